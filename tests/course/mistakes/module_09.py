"""Mistakes in module 09, as edits of the reference or as functions of their own."""

from planting import Planted


def which(first: str, end: str) -> str:
    """`p`, `W`, `S`, `z`: the arguments; the range from first to end."""
    return (
        "def pages_to_give_up(position, window, sinks, page_size):\n"
        "    p, W, S, z = position, window, sinks, page_size\n"
        f"    return range({first}, {end})\n"
    )


def which_body(body: str) -> str:
    return (
        "def pages_to_give_up(position, window, sinks, page_size):\n"
        "    p, W, S, z = position, window, sinks, page_size\n"
        f"    right = range(-(-S // z), (p - W + 1) // z)\n{body}"
    )


SINKS, BEGIN = "-(-S // z)", "(p - W + 1) // z"

WHICH = [
    Planted("9.1", "early-free", old="position - window + 1", new="position - window + 2"),
    Planted("9.1", "early-free", note="as long as the window", code=which(SINKS, "(p + 1 - (W - 1)) // z")),
    Planted("9.1", "early-free", note="two tokens", old="position - window + 1", new="position - window + 3"),
    Planted("9.1", "one-late", old="position - window + 1", new="position - window"),
    Planted(
        "9.1", "partly-read", old="(position - window + 1) // page_size", new="-(-(position - window + 1) // page_size)"
    ),
    Planted(
        "9.1",
        "partly-read",
        note="end included",
        old="(position - window + 1) // page_size",
        new="(position - window + 1) // page_size + 1",
    ),
    Planted("9.1", "partly-read", note="from 0", code=which(SINKS, "max(0, p - W + 1) // z + 1")),
    Planted("9.1", "rounded-twice", code=which(SINKS, "p // z - -(-W // z)")),
    Planted("9.1", "rounded-twice", note="down", code=which(SINKS, "p // z - W // z")),
    Planted("9.1", "rounded-twice", note="by length", code=which(SINKS, "(p + 1) // z - -(-W // z)")),
    Planted("9.1", "rounded-twice", note="pages of each", code=which(SINKS, "-(-(p + 1) // z) - -(-W // z)")),
    Planted("9.1", "rounded-twice", note="and one more", code=which(SINKS, "-(-(p + 1) // z) - -(-W // z) - 1")),
    Planted("9.1", "sinks-forgotten", old="first = -(-sinks // page_size)", new="first = 0"),
    Planted(
        "9.1",
        "sinks-forgotten",
        note="a list",
        code=which_body("    return [page for page in range(p // z) if (page + 1) * z <= p - W + 1]\n"),
    ),
    Planted("9.1", "sinks-cut", old="-(-sinks // page_size)", new="sinks // page_size"),
    Planted("9.1", "sinks-are-pages", old="-(-sinks // page_size)", new="sinks"),
    Planted("9.1", "sinks-move-the-window", old="position - window + 1", new="position - window + sinks + 1"),
    Planted(
        "9.1", "sinks-move-the-window", note="longer", old="position - window + 1", new="position - window - sinks + 1"
    ),
    Planted("9.1", "sinks-move-the-window", note="in pages", code=which(SINKS, f"{BEGIN} + {SINKS}")),
    Planted("9.1", "tokens-not-pages", code=which("S", "p - W + 1")),
    Planted("9.1", "tokens-not-pages", note="the end", code=which(SINKS, "p - W + 1")),
    Planted("9.1", "newest-only", code=which_body("    return right[-1:]\n")),
    Planted(
        "9.1",
        "newest-only",
        note="in the step in which it goes",
        code=which_body("    return right[-1:] if (p - W + 1) % z == 0 else range(0)\n"),
    ),
    Planted("9.1", "kept-not-gone", code=which(f"max(0, {BEGIN})", "p // z + 1")),
    Planted(
        "9.1",
        "kept-not-gone",
        note="with the sinks",
        code=which_body("    return [page for page in range(p // z + 1) if page not in right]\n"),
    ),
    Planted("9.1", "kept-not-gone", note="behind the sinks", code=which(f"max({SINKS}, {BEGIN})", "p // z + 1")),
    Planted("9.1", "", note="how many", code=which_body("    return len(right)\n")),
    Planted("9.1", "", note="nothing is returned", code=which_body("    list(right)\n")),
    Planted("9.1", "", note="every other page", code=which_body("    return right[::2]\n")),
    Planted("9.1", "", note="never", code=which_body("    return range(0)\n")),
    Planted("9.1", "", note="oldest only", code=which_body("    return right[:1]\n")),
]


def give(body: str) -> str:
    """From `row`, `gone` (logical pages that the slot has and nobody reads) and `pages` (the physical ones)."""
    return (
        "def give_up_pages(table, batch_idx, position, window, sinks):\n"
        "    row = table.owned[batch_idx]\n"
        "    gone = [p for p in pages_to_give_up(position, window, sinks, table.page_size) if p < len(row)]\n"
        "    gone = [p for p in gone if row[p]]\n"
        "    pages = [row[p] for p in gone]\n"
        f"{body}"
    )


def give_all(body: str) -> str:
    """The same with what was given up before."""
    return give(body).replace("    gone = [p for p in gone if row[p]]\n", "")


STRIKE = "    for p in gone:\n        row[p] = 0\n        table.page_table[batch_idx, p] = 0\n"
DROP = "    table.drop(pages)\n"
ASK = "pages_to_give_up(position, window, sinks, table.page_size)"

GIVE = [
    Planted("9.2", "row-keeps-page", old="        table.page_table[batch_idx, logical] = 0\n", new=""),
    Planted(
        "9.2",
        "row-keeps-page",
        note="a copy of the row",
        code=give("    line = table.page_table[batch_idx].clone()\n    line[gone] = 0\n" + DROP).replace(
            "    table.drop", "    for p in gone:\n        row[p] = 0\n    table.drop"
        ),
    ),
    Planted("9.2", "evict-then-erase", old="        row[logical] = 0\n", new=""),
    Planted(
        "9.2",
        "evict-then-erase",
        note="a copy of the list",
        old="row = table.owned[batch_idx]",
        new="row = list(table.owned[batch_idx])",
    ),
    Planted(
        "9.2",
        "evict-then-erase",
        note="dropped again each time",
        code=give_all("    for p in gone:\n        table.page_table[batch_idx, p] = 0\n" + DROP),
    ),
    Planted(
        "9.2",
        "evict-then-erase",
        note="only the table is asked",
        code=give_all(
            "    gone = [p for p in gone if table.page_table[batch_idx, p]]\n    pages = [row[p] for p in gone]\n"
            "    table.page_table[batch_idx, gone] = 0\n" + DROP
        ),
    ),
    Planted("9.2", "evict-then-erase", note="neither list", code=give_all(DROP)),
    Planted("9.2", "never-back", old="    table.drop(pages)\n", new=""),
    Planted(
        "9.2",
        "never-back",
        note="dropped after striking out",
        code=give(STRIKE + "    table.drop([row[p] for p in gone])\n"),
    ),
    Planted(
        "9.2",
        "position-by-count",
        code=give(STRIKE + DROP + "    table.capacity[batch_idx] -= len(gone) * table.page_size\n"),
    ),
    Planted(
        "9.2",
        "position-by-count",
        note="counted anew",
        code=give(STRIKE + DROP + "    table.capacity[batch_idx] = sum(map(bool, row)) * table.page_size\n"),
    ),
    Planted(
        "9.2",
        "position-by-count",
        note="the window",
        code=give(STRIKE + DROP + "    table.capacity[batch_idx] = min(table.capacity[batch_idx], window)\n"),
    ),
    Planted(
        "9.2",
        "list-shifts",
        code=give(STRIKE + DROP + "    table.owned[batch_idx] = [page for page in row if page]\n"),
    ),
    Planted(
        "9.2",
        "list-shifts",
        note="pop",
        code=give(
            "    for p in reversed(gone):\n        row.pop(p)\n        table.page_table[batch_idx, p] = 0\n" + DROP
        ),
    ),
    Planted(
        "9.2",
        "list-shifts",
        note="in the table",
        code=give(
            "    for p in gone:\n        row[p] = 0\n" + DROP + "    kept = [page for page in row if page]\n"
            "    table.page_table[batch_idx] = 0\n"
            "    table.page_table[batch_idx, : len(kept)] = torch.tensor(kept)\n"
        ).replace("torch.", "__import__('torch')."),
    ),
    Planted("9.2", "past-the-row", old=" if logical < len(row)]", new="]"),
    Planted(
        "9.2",
        "past-the-row",
        note="one place too far",
        old=" if logical < len(row)]",
        new=" if logical <= len(row)]",
    ),
    Planted("9.2", "logical-not-physical", code=give(STRIKE + "    table.drop(gone)\n")),
    Planted("9.2", "logical-not-physical", note="all of them", code=give_all(STRIKE + "    table.drop(gone)\n")),
    Planted("9.2", "past-drop", old="table.drop(pages)", new="table.free_pages.extend(pages)"),
    Planted("9.2", "past-drop", note="zeros too", code=give_all(STRIKE + "    table.free_pages += pages\n")),
    Planted("9.2", "given-back-twice", code=give(STRIKE + DROP + DROP)),
    Planted(
        "9.2",
        "given-back-twice",
        note="to the pool as well",
        code=give(STRIKE + DROP + "    table.free_pages += pages\n"),
    ),
    Planted(
        "9.2", "every-slot", old="table.page_table[batch_idx, logical] = 0", new="table.page_table[:, logical] = 0"
    ),
    Planted(
        "9.2",
        "every-slot",
        note="wherever the page stands",
        code=give(
            STRIKE + DROP + "    for one in table.owned:\n        for p in gone:\n            one[p : p + 1] = [0]\n"
        ),
    ),
    Planted("9.2", "sinks-forgotten", old=ASK, new="pages_to_give_up(position, window, 0, table.page_size)"),
    Planted("9.2", "swapped-arguments", old=ASK, new="pages_to_give_up(position, sinks, window, table.page_size)"),
    Planted("9.2", "minus-one", old="        row[logical] = 0\n", new="        row[logical] = -1\n"),
    Planted(
        "9.2",
        "minus-one",
        note="in the table",
        old="table.page_table[batch_idx, logical] = 0",
        new="table.page_table[batch_idx, logical] = -1",
    ),
    Planted("9.2", "one-a-call", code=give("    gone, pages = gone[:1], pages[:1]\n" + STRIKE + DROP)),
    Planted(
        "9.2", "one-a-call", note="the newest", code=give("    gone, pages = gone[-1:], pages[-1:]\n" + STRIKE + DROP)
    ),
    Planted(
        "9.2",
        "one-a-call",
        note="the newest of all",
        code=give_all("    gone, pages = gone[-1:], pages[-1:]\n" + STRIKE + DROP),
    ),
    Planted(
        "9.2",
        "stops-at-a-gap",
        code=give_all(
            "    for p in gone:\n        if not row[p]:\n            break\n        page, row[p] = row[p], 0\n"
            "        table.page_table[batch_idx, p] = 0\n        table.drop([page])\n"
        ),
    ),
    Planted(
        "9.2",
        "stops-at-a-gap",
        note="return",
        code=give_all("    if not all(pages):\n        return\n" + STRIKE + DROP),
    ),
    Planted("9.2", "off-by-one", old=ASK, new="pages_to_give_up(position + 1, window, sinks, table.page_size)"),
    Planted(
        "9.2",
        "off-by-one",
        note="before",
        old=ASK,
        new="pages_to_give_up(position - 1, window, sinks, table.page_size)",
    ),
    Planted(
        "9.2",
        "",
        note="only when the pool is empty",
        code=give("    if table.pages_available:\n        return\n" + STRIKE + DROP),
    ),
    Planted("9.2", "", note="nothing", code=give("    pass\n")),
    Planted("9.2", "", note="gives them back", code=give(STRIKE + DROP + "    return pages\n")),
    Planted("9.2", "", note="the whole row", code=give(STRIKE + DROP + "    table.page_table[batch_idx] = 0\n")),
]


def most(value: str) -> str:
    return (
        "def most_pages(window, sinks, page_size):\n    W, S, z = window, sinks, page_size\n"
        f"    up = lambda n: -(-n // z)\n    return {value}\n"
    )


MOST = [
    Planted("9.3", "ceil-bound", code=most("up(W) + up(S)")),
    Planted(
        "9.3",
        "ceil-bound",
        note="from the first token",
        old="-(-(window - 1) // page_size)",
        new="(window - 1) // page_size",
    ),
    Planted("9.3", "one-too-many", code=most("up(W) + 1 + up(S)")),
    Planted("9.3", "one-too-many", note="both", code=most("2 + up(W - 1) + up(S)")),
    Planted("9.3", "one-too-many", note="sinks", code=most("1 + up(W - 1) + S // z + 1")),
    Planted("9.3", "one-too-many", note="where there are sinks", code=most("1 + up(W - 1) + up(S) + (1 if S else 0)")),
    Planted("9.3", "rounded-down", code=most("W // z + 1 + up(S)")),
    Planted("9.3", "rounded-down", note="only", code=most("W // z + up(S)")),
    Planted("9.3", "rounded-down", note="both", code=most("W // z + 1 + S // z")),
    Planted("9.3", "first-page-forgotten", old="1 + -(-(window - 1)", new="-(-(window - 1)"),
    Planted("9.3", "sinks-forgotten", old=" + -(-sinks // page_size)", new=""),
    Planted("9.3", "sinks-cut", old="-(-sinks // page_size)", new="sinks // page_size"),
    Planted("9.3", "sinks-are-pages", old="-(-sinks // page_size)", new="sinks"),
    Planted("9.3", "sinks-in-the-window", code=most("1 + up(W + S - 1)")),
    Planted("9.3", "sinks-in-the-window", note="largest", code=most("max(1 + up(W - 1), up(S))")),
    Planted("9.3", "sinks-in-the-window", note="taken from it", code=most("1 + up(max(1, W - S) - 1) + up(S)")),
    Planted("9.3", "sinks-in-the-window", note="ceil", code=most("up(W + S) + 1")),
    Planted("9.3", "tokens-not-pages", code=most("W + S")),
    Planted("9.3", "tokens-not-pages", note="of whole pages", code=most("(1 + up(W - 1) + up(S)) * z")),
    Planted("9.3", "", note="a float", code=most("1 + (W - 1) / z + S / z")),
    Planted("9.3", "", note="two pages", code=most("2")),
    Planted("9.3", "", note="minus", code=most("1 + up(W - 1) - up(S)")),
]


def mask(inner: str, arguments: str = "b, h, q_idx, kv_idx", before: str = "") -> str:
    """`q`, `k`: the positions; `W`, `S`: window (a large one for None) and sinks."""
    names = "        q, k = q_idx, kv_idx\n" if "q_idx" in arguments else ""
    return (
        "def window_mask(window, sinks):\n"
        "    W, S = 10**9 if window is None else window, sinks\n"
        f"{before}    def mask_mod({arguments}):\n{names}        {inner}\n    return mask_mod\n"
    )


RULE = "seen & ((q_idx - kv_idx < window) | (kv_idx < sinks))"

MASK = [
    Planted("9.4", "window-plus-one", old="q_idx - kv_idx < window", new="q_idx - kv_idx <= window"),
    Planted("9.4", "window-plus-one", note="moved", code=mask("return (k <= q) & ((k >= q - W) | (k < S))")),
    Planted("9.4", "one-short", old="q_idx - kv_idx < window", new="q_idx - kv_idx < window - 1"),
    Planted("9.4", "sinks-from-the-future", old=RULE, new="seen & (q_idx - kv_idx < window) | (kv_idx < sinks)"),
    Planted("9.4", "sinks-from-the-future", note="always", code=mask("return ((k <= q) & (q - k < W)) | (k < S)")),
    Planted("9.4", "no-causal", old=RULE, new="(q_idx - kv_idx < window) | (kv_idx < sinks)"),
    Planted("9.4", "no-causal", note="always", code=mask("return (q - k < W) | (k < S)")),
    Planted("9.4", "sinks-forgotten", old=RULE, new="seen & (q_idx - kv_idx < window)"),
    Planted("9.4", "one-sink-more", old="kv_idx < sinks", new="kv_idx <= sinks"),
    Planted("9.4", "one-sink-more", note="one less", old="kv_idx < sinks", new="kv_idx < sinks - 1"),
    Planted("9.4", "one-sink-more", note="from 1", code=mask("return (k <= q) & ((q - k < W) | ((k > 0) & (k <= S)))")),
    Planted("9.4", "both-needed", old=RULE, new="seen & (q_idx - kv_idx < window) & (kv_idx < sinks)"),
    Planted("9.4", "both-needed", note="always", code=mask("return (k <= q) & (q - k < W) & (k < S)")),
    Planted("9.4", "both-needed", note="behind the sinks", code=mask("return (k <= q) & (q - k < W) & (k >= S)")),
    Planted("9.4", "sinks-move-the-window", old="q_idx - kv_idx < window", new="q_idx - kv_idx < window + sinks"),
    Planted(
        "9.4",
        "sinks-move-the-window",
        note="shorter",
        old="q_idx - kv_idx < window",
        new="q_idx - kv_idx < window - sinks",
    ),
    Planted("9.4", "sinks-move-the-window", note="no sinks", code=mask("return (k <= q) & (q - k < W + S)")),
    Planted("9.4", "none-window", old="seen if window is None else ", new=""),
    Planted(
        "9.4", "none-window", note="only sinks", code=mask("return (k <= q) & ((q - k < (window or 0)) | (k < S))")
    ),
    Planted(
        "9.4",
        "none-window",
        note="the future too",
        code=mask("return (k > -1) & (q > -1) if window is None else (k <= q) & ((q - k < W) | (k < S))"),
    ),
    Planted("9.4", "true-means-hidden", code=mask("return (k > q) | ((q - k >= W) & (k >= S))")),
    Planted("9.4", "python-not", old=RULE, new="seen and (q_idx - kv_idx < window or kv_idx < sinks)"),
    Planted("9.4", "python-not", note="chain", code=mask("return (q - W < k <= q) | ((k < S) & (k <= q))")),
    Planted(
        "9.4",
        "python-not",
        note="if",
        code=mask("if k > q:\n            return k < 0\n        return (q - k < W) | (k < S)"),
    ),
    Planted(
        "9.4",
        "four-arguments",
        code=mask("return (k <= q) & ((q - k < W) | (k < S))", arguments="q, k"),
    ),
    Planted(
        "9.4", "own-axes", code=mask("q, k = q[:, None], k[None, :]\n        return (k <= q) & ((q - k < W) | (k < S))")
    ),
    Planted("9.4", "", note="no return", code=mask("(k <= q) & ((q - k < W) | (k < S))")),
    Planted("9.4", "", note="blocks", code=mask("return (k <= q) & ((q // W == k // W) | (k < S))")),
    Planted("9.4", "", note="int", code=mask("return ((k <= q) & ((q - k < W) | (k < S))).int()")),
    Planted("9.4", "", note="one key more", code=mask("return (k <= q) & ((q - k < W) | (k == S))")),
]


def pages(window: str = "", sinks: str = "", joined: str = "", before: str = "") -> str:
    """From `wp`, `wf` (partial and full by the window) and `sp`, `sf` (by the sinks)."""
    return (
        "def window_pages(position_RT, window, sinks, n_pages, page_size):\n"
        "    import torch\n"
        "    block, last = (position_RT.shape[1], page_size), position_RT\n"
        f"{before}"
        "    first = torch.zeros_like(last) if window is None else (last - window + 1).clamp(min=0)\n"
        f"    wp, wf = {window or 'visible_blocks(first, last, n_pages, block)'}\n"
        "    if window is None or not sinks:\n        return wp, wf\n"
        "    zero = torch.zeros_like(last)\n"
        f"    sp, sf = {sinks or 'visible_blocks(zero, last.clamp(max=sinks - 1), n_pages, block)'}\n"
        f"    {joined or 'full = wf | sf; return (wp | sp) & ~full, full'}\n"
    )


def by_query(some: str, full: str, result: str = "some & ~full, full") -> str:
    """From `wr`, `ww`, `sr`, `sw` [R, T, J]: what window and sinks read of each page, and what they read wholly."""
    return (
        "def window_pages(position_RT, window, sinks, n_pages, page_size):\n"
        "    import torch\n"
        "    start = torch.arange(n_pages) * page_size\n    end = start + page_size - 1\n"
        "    last = position_RT[..., None]\n"
        "    first = torch.zeros_like(last) if window is None else (last - window + 1).clamp(min=0)\n"
        "    S = 0 if window is None else sinks\n"
        "    wr, ww = (first <= last) & (first <= end) & (start <= last), (first <= start) & (end <= last)\n"
        "    sink = last.clamp(max=S - 1)\n"
        "    sr, sw = (start <= sink) & (last >= 0), end <= sink\n"
        f"    some = {some}\n    full = {full}\n    return {result}\n"
    )


SOME, EVERY = "(wr | sr).any(1, keepdim=True)", "(ww | sw).all(1, keepdim=True)"
SINKS_LAST = "position_RT.clamp(max=sinks - 1)"

PAGES = [
    Planted(
        "9.5",
        "head-full",
        code=by_query(SOME, "((wr & (end <= last)) | sw).all(1, keepdim=True)"),
    ),
    Planted(
        "9.5",
        "head-full",
        note="down to the page",
        code=pages(window="visible_blocks(first // page_size * page_size, last, n_pages, block)"),
    ),
    Planted(
        "9.5",
        "tail-full",
        code=pages(
            window="visible_blocks(first, torch.where(last < 0, last, last // page_size * page_size + page_size - 1), "
            "n_pages, block)"
        ),
    ),
    Planted(
        "9.5", "tail-full", note="by query", code=by_query(SOME, "((wr & (first <= start)) | sw).all(1, keepdim=True)")
    ),
    Planted("9.5", "all-full", code=by_query(SOME, SOME)),
    Planted("9.5", "sinks-page-full", code=pages(joined="full = wf | sf | sp; return (wp | sp) & ~full, full")),
    Planted("9.5", "sinks-page-full", note="by query", code=by_query(SOME, "(ww | sr).all(1, keepdim=True)")),
    Planted(
        "9.5",
        "sinks-page-full",
        note="whole pages of sinks",
        code=pages(
            sinks="visible_blocks(zero, torch.where(last < 0, last, -(-sinks // page_size) * page_size - 1), n_pages, block)"
        ),
    ),
    Planted("9.5", "sinks-forgotten", old="if window is None or not sinks:", new="if True:"),
    Planted(
        "9.5", "sinks-forgotten", note="by query", code=by_query("wr.any(1, keepdim=True)", "ww.all(1, keepdim=True)")
    ),
    Planted(
        "9.5",
        "sinks-from-the-future",
        code=pages(sinks="visible_blocks(zero, torch.where(last < 0, last, sinks - 1), n_pages, block)"),
    ),
    Planted(
        "9.5",
        "sinks-from-the-future",
        note="partial only",
        code=by_query("(wr | ((start < S) & (last >= 0))).any(1, keepdim=True)", EVERY),
    ),
    Planted(
        "9.5",
        "padding-reads",
        code=pages(sinks="visible_blocks(zero, torch.full_like(last, sinks - 1), n_pages, block)"),
    ),
    Planted(
        "9.5",
        "padding-reads",
        note="at 0",
        code=pages(before="    position_RT = last = position_RT.clamp(min=0)\n"),
    ),
    Planted(
        "9.5",
        "in-both",
        old="(partial | sinks_partial) & ~full, full",
        new="partial | sinks_partial, full",
    ),
    Planted("9.5", "in-both", note="all that is read", code=by_query(SOME, EVERY, "some, full")),
    Planted("9.5", "one-for-all", code=by_query(SOME, "(ww | sw).any(1, keepdim=True)")),
    Planted(
        "9.5",
        "one-for-all",
        note="the last query",
        code=by_query(SOME, "(ww | sw)[:, -1:]"),
    ),
    Planted("9.5", "one-for-all", note="the first query", code=by_query(SOME, "(ww | sw)[:, :1]")),
    Planted(
        "9.5",
        "one-for-all",
        note="from the earliest to the latest",
        code=by_query(
            SOME,
            "((first.amin(1, keepdim=True) <= start) & (end <= last.amax(1, keepdim=True))) | sw.any(1, keepdim=True)",
        ),
    ),
    Planted("9.5", "one-query-only", code=by_query("(wr | sr)[:, -1:]", "(ww | sw)[:, -1:]")),
    Planted("9.5", "one-query-only", note="the first", code=by_query("(wr | sr)[:, :1]", "(ww | sw)[:, :1]")),
    Planted("9.5", "one-query-only", note="of what is read", code=by_query("(wr | sr)[:, -1:]", EVERY)),
    Planted(
        "9.5",
        "gap-listed",
        code=pages(before="    window = None if sinks else window\n"),
    ),
    Planted(
        "9.5",
        "gap-listed",
        note="not full",
        code=by_query("(wr | ((S > 0) & (start <= last))).any(1, keepdim=True)", EVERY),
    ),
    Planted("9.5", "window-plus-one", old="position_RT - window + 1", new="position_RT - window"),
    Planted("9.5", "one-short", old="position_RT - window + 1", new="position_RT - window + 2"),
    Planted("9.5", "never-full", code=by_query(SOME, EVERY, "some, full & False")),
    Planted("9.5", "never-full", note="not by the sinks", code=by_query(SOME, "ww.all(1, keepdim=True)")),
    Planted("9.5", "maps-swapped", code=by_query(SOME, EVERY, "full, some & ~full")),
    Planted(
        "9.5",
        "none-window",
        old="position_RT.new_zeros(position_RT.shape) if window is None else ",
        new="",
    ),
    Planted(
        "9.5",
        "none-window",
        note="as 0",
        code=pages(before="    window = window or 1\n"),
    ),
    Planted(
        "9.5",
        "no-middle-axis",
        old="(partial | sinks_partial) & ~full, full",
        new="((partial | sinks_partial) & ~full)[:, 0], full[:, 0]",
    ),
    Planted("9.5", "no-middle-axis", note="always", code=by_query(SOME, EVERY, "(some & ~full)[:, 0], full[:, 0]")),
    Planted("9.5", "", note="one map", code=by_query(SOME, EVERY, "some")),
    Planted("9.5", "", note="everything partial", code=by_query(SOME, EVERY, "torch.ones_like(some), full & False")),
    Planted("9.5", "", note="nothing", code=by_query(SOME, EVERY, "some & False, full & False")),
]


def narrow(
    local: str, globals_: str = "None", full: str = "wanted", of: str = "all(window is None for window in own)"
) -> str:
    return (
        "def narrowed(own, wanted):\n    if wanted is None:\n        return list(own)\n"
        f"    if {of}:\n        return [{full}] * len(own)\n"
        f"    return [{globals_} if window is None else {local} for window in own]\n"
    )


NARROW = [
    Planted("9.6", "global-layers", code=narrow("min(window, wanted)", "wanted")),
    Planted("9.6", "global-layers", note="all alike", code=narrow("wanted", "wanted")),
    Planted("9.6", "global-layers", note="only these", code=narrow("window", "wanted")),
    Planted("9.6", "wider-than-own", old="min(window, wanted)", new="wanted"),
    Planted("9.6", "largest-taken", old="min(window, wanted)", new="max(window, wanted)"),
    Planted("9.6", "none-wanted", old="    if wanted is None:\n        return list(own)\n", new=""),
    Planted("9.6", "none-wanted", note="nothing at all", old="return list(own)", new="return [None] * len(own)"),
    Planted(
        "9.6",
        "none-wanted",
        note="asked too late",
        code="def narrowed(own, wanted):\n    if all(window is None for window in own):\n        return [wanted] * len(own)\n"
        "    return [window and min(window, wanted) for window in own]\n",
    ),
    Planted("9.6", "nothing-imposed", code=narrow("min(window, wanted)", full="None")),
    Planted("9.6", "nothing-imposed", note="wider too", code=narrow("wanted", full="None")),
    Planted("9.6", "nothing-imposed", note="own", code="def narrowed(own, wanted):\n    return list(own)\n"),
    Planted("9.6", "local-untouched", old="window and min(window, wanted)", new="window"),
    Planted("9.6", "first-decides", code=narrow("min(window, wanted)", of="own[0] is None")),
    Planted("9.6", "first-decides", note="the last", code=narrow("min(window, wanted)", of="own[-1] is None")),
    Planted("9.6", "first-decides", note="any", code=narrow("min(window, wanted)", of="None in own")),
    Planted("9.6", "one-for-all", code=narrow("min(wanted, min(one for one in own if one))")),
    Planted("9.6", "one-for-all", note="largest", code=narrow("min(wanted, max(one for one in own if one))")),
    Planted("9.6", "one-for-all", note="first", code=narrow("min(wanted, next(one for one in own if one))")),
    Planted(
        "9.6",
        "layers-lost",
        old="[window and min(window, wanted) for window in own]",
        new="[min(window, wanted) for window in own if window]",
    ),
    Planted("9.6", "layers-lost", note="of a model that reads everything", old="[wanted] * len(own)", new="[wanted]"),
    Planted(
        "9.6",
        "",
        note="0 for None",
        old="[window and min(window, wanted) for window in own]",
        new="[min(window or 0, wanted) for window in own]",
    ),
    Planted("9.6", "", note="halved", old="min(window, wanted)", new="min(window, wanted) // 2"),
    Planted("9.6", "", note="reversed", old="for window in own]", new="for window in own[::-1]]"),
]

MISTAKES = [*WHICH, *GIVE, *MOST, *MASK, *PAGES, *NARROW]
