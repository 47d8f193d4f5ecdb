"""Other right answers in module 09."""

from planting import Alternative

WHICH = "def pages_to_give_up(position, window, sinks, page_size):\n"
GIVE = "def give_up_pages(table, batch_idx, position, window, sinks):\n"
MOST = "def most_pages(window, sinks, page_size):\n"
MASK = "def window_mask(window, sinks):\n"
PAGES = "def window_pages(position_RT, window, sinks, n_pages, page_size):\n"
NARROWED = "def narrowed(own, wanted):\n"

ALTERNATIVES = [
    # ------------------------------------------------------------------ 9.1
    Alternative(
        "9.1",
        "without max",
        WHICH + "    return range((sinks + page_size - 1) // page_size, (position + 1 - window) // page_size)\n",
    ),
    Alternative(
        "9.1",
        "a list, token by token",
        WHICH
        + """
    def is_read(token):
        return token < sinks or token > position - window
    pages = []
    for page in range(position // page_size + 1):
        if not any(is_read(token) for token in range(page * page_size, (page + 1) * page_size)):
            pages.append(page)
    return pages
""",
    ),
    Alternative(
        "9.1",
        "a set of what is kept",
        WHICH
        + """
    oldest = max(0, position - window + 1)
    read = {t // page_size for t in range(oldest, position + 1)} | {t // page_size for t in range(sinks)}
    last = position // page_size
    return sorted(set(range(last)) - read)
""",
    ),
    Alternative(
        "9.1",
        "early return, divmod and ceil",
        WHICH
        + """
    import math
    unread = position - (window - 1)
    if unread <= sinks:
        return range(0)
    begin = math.ceil(sinks / page_size)
    end, _ = divmod(unread, page_size)
    return range(begin, end) if end > begin else range(begin, begin)
""",
    ),
    Alternative(
        "9.1",
        "last token of the page",
        WHICH
        + """
    gone = ()
    page = -(-sinks // page_size)
    while (page + 1) * page_size - 1 < position - window + 1:
        gone += (page,)
        page += 1
    return gone
""",
    ),
    # ------------------------------------------------------------------ 9.2
    Alternative(
        "9.2",
        "one by one",
        GIVE
        + """
    for logical in pages_to_give_up(position, window, sinks, table.page_size):
        if logical >= len(table.owned[batch_idx]):
            break
        page = table.owned[batch_idx][logical]
        if page == 0:
            continue
        table.owned[batch_idx][logical] = 0
        table.page_table[batch_idx, logical] = 0
        table.drop([page])
""",
    ),
    Alternative(
        "9.2",
        "slices, zeros handed to drop",
        GIVE
        + """
    gone = pages_to_give_up(position, window, sinks, table.page_size)
    row = table.owned[batch_idx]
    first, last = gone.start, min(gone.stop, len(row))
    if first < last:
        table.drop(row[first:last])
        row[first:last] = [0] * (last - first)
        table.page_table[batch_idx, first:last] = 0
""",
    ),
    Alternative(
        "9.2",
        "by the table's row",
        GIVE
        + """
    size = table.page_size
    row = table.page_table[batch_idx]
    logical = torch.arange(len(row))
    unread = (logical * size >= sinks) & ((logical + 1) * size <= position - window + 1) & (row.cpu() > 0)
    pages = row[unread].tolist()
    table.owned[batch_idx] = [0 if page in pages else page for page in table.owned[batch_idx]]
    row[unread] = 0
    if pages:
        table.drop(pages)
""".replace("torch.", "__import__('torch')."),
    ),
    Alternative(
        "9.2",
        "a new list, dropped last first",
        GIVE
        + """
    gone = set(pages_to_give_up(position, window, sinks, table.page_size))
    before = table.owned[batch_idx]
    after = [0 if place in gone else page for place, page in enumerate(before)]
    table.owned[batch_idx] = after
    for place in sorted(gone, reverse=True):
        if place < table.pages_per_row:
            table.page_table[batch_idx, place].zero_()
    table.drop([old for old, new in zip(before, after) if old != new])
""",
    ),
    Alternative(
        "9.2",
        "filtered",
        GIVE
        + """
    owned = table.owned[batch_idx]
    still_here = filter(lambda at: at < len(owned) and owned[at], pages_to_give_up(position, window, sinks, table.page_size))
    pages = {at: owned[at] for at in still_here}
    for at in pages:
        owned[at] = table.page_table[batch_idx, at] = 0
    table.drop([*pages.values()])
""",
    ),
    # ------------------------------------------------------------------ 9.3
    Alternative(
        "9.3",
        "worst beginning tried out",
        MOST
        + """
    def on(first, n):
        return len({token // page_size for token in range(first, first + n)})
    return max(on(first, window) for first in range(page_size)) + on(0, sinks)
""",
    ),
    Alternative(
        "9.3",
        "last token",
        MOST + "    last = page_size - 1 + window - 1\n"
        "    return last // page_size + 1 + (sinks + page_size - 1) // page_size\n",
    ),
    Alternative(
        "9.3",
        "ceil and divmod",
        MOST
        + """
    import math
    full, rest = divmod(window - 1, page_size)
    return 1 + full + (1 if rest else 0) + math.ceil(sinks / page_size)
""",
    ),
    Alternative(
        "9.3",
        "a counting loop",
        MOST
        + """
    pages, left = 1, window - 1
    while left > 0:
        pages, left = pages + 1, left - page_size
    while sinks > 0:
        pages, sinks = pages + 1, sinks - page_size
    return pages
""",
    ),
    Alternative(
        "9.3",
        "two less than a page",
        MOST + "    return (window + 2 * page_size - 2) // page_size + -(-sinks // page_size)\n",
    ),
    # ------------------------------------------------------------------ 9.4
    Alternative(
        "9.4",
        "combinators",
        MASK
        + """
    from .masks import all_of, any_of, causal, sliding_window
    if window is None:
        return causal
    return all_of(causal, any_of(sliding_window(window), lambda b, h, q, k: k < sinks))
""",
    ),
    Alternative(
        "9.4",
        "a wide window",
        MASK + "    W = 2**40 if window is None else window\n"
        "    return lambda b, h, q, k: ~((k > q) | ((q - k >= W) & (k >= sinks)))\n",
    ),
    Alternative(
        "9.4",
        "where",
        MASK
        + """
    import torch
    def mask_mod(b, h, q_idx, kv_idx):
        if window is None:
            return q_idx >= kv_idx
        first = torch.where(kv_idx < sinks, kv_idx, q_idx - window + 1)
        return (first <= kv_idx) & (kv_idx <= q_idx)
    return mask_mod
""",
    ),
    Alternative(
        "9.4",
        "two intervals",
        MASK
        + """
    def mask_mod(b, h, q_idx, kv_idx):
        distance = q_idx - kv_idx
        recent = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        return recent | ((distance >= 0) & (kv_idx < sinks))
    return mask_mod
""",
    ),
    Alternative(
        "9.4",
        "a class",
        MASK
        + """
    class Rule:
        def __call__(self, b, h, q_idx, kv_idx):
            allowed = kv_idx <= q_idx
            if window is not None:
                allowed = allowed.logical_and((kv_idx > q_idx - window).logical_or(kv_idx < sinks))
            return allowed
    return Rule()
""",
    ),
    # ------------------------------------------------------------------ 9.5
    Alternative(
        "9.5",
        "dense",
        PAGES
        + """
    import torch
    from .masks import classify_blocks
    key = torch.arange(n_pages * page_size, device=position_RT.device)
    q = position_RT[:, :, None]
    read = key <= q
    if window is not None:
        read = read & ((key > q - window) | (key < sinks))
    partial, full = classify_blocks(read[:, None], (position_RT.shape[1], page_size))
    return partial[:, 0], full[:, 0]
""",
    ),
    Alternative(
        "9.5",
        "by page, each query by itself",
        PAGES
        + """
    import torch
    start = torch.arange(n_pages, device=position_RT.device) * page_size
    end = start + page_size - 1
    last = position_RT[..., None]
    def one(first, last):
        reads = (first <= last) & (first <= end) & (start <= last)
        whole = (first <= start) & (end <= last)
        return reads, whole
    first = torch.zeros_like(last) if window is None else (last - window + 1).clamp(min=0)
    reads, whole = one(first, last)
    if window is not None and sinks > 0:
        more, all_sinks = one(torch.zeros_like(last), last.clamp(max=sinks - 1))
        reads, whole = reads | more, whole | all_sinks
    full = whole.all(dim=1, keepdim=True)
    return reads.any(dim=1, keepdim=True) & ~full, full
""",
    ),
    Alternative(
        "9.5",
        "loops",
        PAGES
        + """
    import torch
    R = position_RT.shape[0]
    partial = torch.zeros(R, 1, n_pages, dtype=torch.bool)
    full = torch.zeros(R, 1, n_pages, dtype=torch.bool)
    for r, row in enumerate(position_RT.tolist()):
        if row[-1] < 0:
            continue
        first = [0 if window is None else max(0, p - window + 1) for p in row]
        for page in range(n_pages):
            a, b = page * page_size, (page + 1) * page_size - 1
            touched = min(first) <= b and a <= max(row)
            whole = max(first) <= a and b <= min(row)
            if window is not None and sinks:
                touched = touched or (a < sinks and a <= max(row))
                whole = whole or (b < sinks and b <= min(row))
            full[r, 0, page] = whole
            partial[r, 0, page] = touched and not whole
    return partial, full
""",
    ),
    Alternative(
        "9.5",
        "counting tokens",
        PAGES
        + """
    import torch
    R, T = position_RT.shape
    mask_mod = window_mask(window, sinks)
    key = torch.arange(n_pages * page_size)
    read = mask_mod(None, None, position_RT[..., None], key)
    n = read.view(R, T, n_pages, page_size).sum(dim=(1, 3))[:, None]
    return [(n > 0) & (n < T * page_size), n == T * page_size]
""",
    ),
    # ------------------------------------------------------------------ 9.6
    Alternative(
        "9.6",
        "loop",
        NARROWED
        + """
    if wanted is None:
        return own
    has_local = any(window is not None for window in own)
    result = []
    for window in own:
        if window is None:
            result.append(None if has_local else wanted)
        elif window < wanted:
            result.append(window)
        else:
            result.append(wanted)
    return result
""",
    ),
    Alternative(
        "9.6",
        "infinity",
        NARROWED
        + """
    import math
    limit = math.inf if wanted is None else wanted
    if set(own) == {None}:
        return [wanted for _ in own]
    return [None if window is None else int(min(limit, window)) for window in own]
""",
    ),
    Alternative(
        "9.6",
        "a tuple",
        NARROWED
        + """
    local = [window for window in own if window]
    if not wanted:
        return tuple(own)
    if not local:
        return (wanted,) * len(own)
    return tuple(window if window is None else sorted((window, wanted))[0] for window in own)
""",
    ),
    Alternative(
        "9.6",
        "a map",
        NARROWED
        + """
    if wanted is None or own.count(None) == len(own):
        return own if wanted is None else list(map(lambda _: wanted, own))
    return list(map(lambda window: window if window is None or window <= wanted else wanted, own))
""",
    ),
]
