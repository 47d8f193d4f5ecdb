"""Mistakes in module 01, as edits of the reference."""

from planting import Planted


def causal(body: str) -> str:
    return f"def causal(b, h, q_idx, kv_idx):\n    {body}\n"


def window(inner: str, before: str = "") -> str:
    return (
        "def sliding_window(window):\n"
        "    if window < 1:\n"
        "        raise ValueError(f'window {window}')\n"
        f"{before}"
        "    def mask_mod(b, h, q_idx, kv_idx):\n"
        f"        {inner}\n"
        "    return mask_mod\n"
    )


def packed(inner: str, before: str = "") -> str:
    return (
        "def packed_documents(document_L):\n"
        f"{before}"
        "    def mask_mod(b, h, q_idx, kv_idx):\n"
        f"        {inner}\n"
        "    return mask_mod\n"
    )


def combining(name: str, body: str) -> str:
    """`body` follows the check for no mask."""
    return f"def {name}(*mask_mods):\n    if not mask_mods:\n        raise ValueError('no mask')\n{body}"


def joined(name: str, inner: str) -> str:
    return combining(name, f"    def mask_mod(b, h, q_idx, kv_idx):\n{inner}    return mask_mod\n")


def dense(body: str) -> str:
    return f"def dense_mask(mask_mod, B, H, Q, K, device='cpu'):\n{body}"


def classify(some: str, full: str, result: str = "some & ~full, full", tiles: str = "") -> str:
    """From padded masks; `any_mask` and `all_mask` are [B, H, n_q, q_block, n_k, k_block]."""
    return (
        "def classify_blocks(mask_BHQK, block_size):\n"
        "    qb, kb = block_size\n"
        "    B, H, Q, K = mask_BHQK.shape\n"
        "    nq, nk = -(-Q // qb), -(-K // kb)\n"
        "    def filled(below, right):\n"
        "        whole = torch.zeros(B, H, nq * qb, nk * kb, dtype=torch.bool)\n"
        "        whole[:, :, :, K:] = right\n"
        "        whole[:, :, Q:, :] = below\n"
        "        whole[:, :, :Q, :K] = mask_BHQK\n"
        "        return whole.view(B, H, nq, qb, nk, kb)\n"
        f"    some = {some}\n"
        f"    full = {full}\n"
        f"    return {result}\n"
    )


ANY = "filled(False, False).any(5).any(3)"
ALL = "filled(True, False).all(5).all(3)"


def visible(
    some: str, full: str, first: str = "first_BQ[:, -1:]", last: str = "last_BQ[:, -1:]", result: str = ""
) -> str:
    """From `lo`, `hi` (what is read at all), `late`, `early` (what all read), `start`, `end` of the blocks."""
    return (
        "def visible_blocks(first_BQ, last_BQ, n_key_blocks, block_size):\n"
        "    qb, kb = block_size\n"
        "    more = -first_BQ.shape[1] % qb\n"
        f"    first = torch.cat([first_BQ, ({first}).expand(first_BQ.shape[0], more)], 1).unflatten(1, (-1, qb))\n"
        f"    last = torch.cat([last_BQ, ({last}).expand(first_BQ.shape[0], more)], 1).unflatten(1, (-1, qb))\n"
        "    start = torch.arange(n_key_blocks) * kb\n"
        "    end = start + kb - 1\n"
        "    none = first > last\n"
        "    lo = first.masked_fill(none, 10**6).amin(2, keepdim=True)\n"
        "    hi = last.masked_fill(none, -1).amax(2, keepdim=True)\n"
        "    late, early = first.amax(2, keepdim=True), last.amin(2, keepdim=True)\n"
        f"    some = {some}\n"
        f"    full = {full}\n"
        f"    return {result or 'some & ~full, full'}\n"
    )


SOME = "(lo <= end) & (start <= hi)"
COVERED = "(late <= start) & (end <= early)"

BY_HAND_LISTS = "indices = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)"


def by_hand(build: str, arguments: str = "BLOCK_SIZE=block_size, mask_mod=mask_mod, seq_lengths=seq_lengths") -> str:
    """`build` gives pc, pi, fc, fi: counts and lists of partial and full blocks."""
    return (
        "def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):\n"
        f"{build}"
        f"    return BlockMask.from_kv_blocks(pc, pi, fc, fi, {arguments}, compute_q_blocks=False)\n"
    )


def of_lists(counts: str, indices: str, partial: str = "partial_BHQK", full: str = "full_BHQK") -> str:
    return (
        "    def lists(m):\n"
        f"        return {counts}, {indices}\n"
        f"    pc, pi = lists({partial})\n"
        f"    fc, fi = lists({full})\n"
    )


COUNTS = "m.sum(-1).int()"
INDICES = "m.int().argsort(dim=-1, descending=True).int()"


def cap(body: str, arguments: str = "score, b, h, q_idx, kv_idx") -> str:
    return f"def soft_cap(cap):\n    def score_mod({arguments}):\n{body}    return score_mod\n"


MISTAKES = [
    # ------------------------------------------------------------------ 1.1
    Planted("1.1", "strict", old="kv_idx <= q_idx", new="kv_idx < q_idx"),
    Planted("1.1", "strict", code=causal("return (q_idx - kv_idx) > 0"), note="difference"),
    Planted("1.1", "strict", code=causal("return ~(q_idx <= kv_idx)"), note="negated"),
    Planted("1.1", "one-ahead", old="kv_idx <= q_idx", new="kv_idx <= q_idx + 1"),
    Planted("1.1", "swapped", old="kv_idx <= q_idx", new="q_idx <= kv_idx"),
    Planted("1.1", "swapped", code=causal("return torch.ge(kv_idx, q_idx)"), note="function"),
    Planted("1.1", "true-means-hidden", old="kv_idx <= q_idx", new="kv_idx > q_idx"),
    Planted("1.1", "true-means-hidden", code=causal("return torch.logical_not(kv_idx <= q_idx)"), note="not"),
    Planted(
        "1.1",
        "places-not-positions",
        code=causal("return torch.ones(q_idx.shape[-2], kv_idx.shape[-1], dtype=torch.bool).tril()"),
    ),
    Planted(
        "1.1",
        "places-not-positions",
        code=causal("return torch.arange(q_idx.numel())[:, None] >= torch.arange(kv_idx.numel())"),
        note="arange",
    ),
    Planted("1.1", "precedence", old="kv_idx <= q_idx", new="~q_idx < kv_idx"),
    Planted("1.1", "precedence", old="kv_idx <= q_idx", new="~kv_idx > q_idx", note="key"),
    Planted("1.1", "python-not", old="kv_idx <= q_idx", new="not kv_idx > q_idx"),
    Planted(
        "1.1",
        "python-not",
        code=causal("if kv_idx <= q_idx:\n        return torch.tensor(True)\n    return torch.tensor(False)"),
        note="if",
    ),
    Planted("1.1", "python-not", code=causal("return torch.tensor(kv_idx.item() <= q_idx.item())"), note="item"),
    Planted(
        "1.1",
        "python-not",
        code=causal("return torch.tensor([[bool(k <= q) for k in kv_idx.flatten()] for q in q_idx.flatten()])"),
        note="list",
    ),
    Planted("1.1", "own-axes", code=causal("return kv_idx[None, :] <= q_idx[:, None]")),
    Planted("1.1", "own-axes", code=causal("return q_idx.unsqueeze(-1) >= kv_idx.unsqueeze(0)"), note="unsqueeze"),
    Planted("1.1", "", code=causal("return (kv_idx <= q_idx) & (kv_idx > 0)"), note="first key"),
    Planted("1.1", "", code=causal("return (kv_idx <= q_idx) | (q_idx == 0)"), note="first query"),
    Planted("1.1", "", code=causal("pass"), note="no return"),
    Planted("1.1", "", code=causal("return (q_idx - kv_idx).clamp(0, 1)"), note="int"),
    # ------------------------------------------------------------------ 1.2
    Planted("1.2", "window-plus-one", old="q_idx - kv_idx < window", new="q_idx - kv_idx <= window"),
    Planted("1.2", "window-plus-one", code=window("return kv_idx >= q_idx - window"), note="moved"),
    Planted("1.2", "window-plus-one", code=window("return ~(q_idx > kv_idx + window)"), note="negated"),
    Planted(
        "1.2", "window-plus-one", code=window("return (q_idx >= kv_idx) & (q_idx - kv_idx <= window)"), note="causal"
    ),
    Planted("1.2", "one-short", old="q_idx - kv_idx < window", new="q_idx - kv_idx < window - 1"),
    Planted("1.2", "one-short", code=window("return q_idx - window + 1 < kv_idx"), note="moved"),
    Planted("1.2", "hides-future", old="q_idx - kv_idx < window", new="(q_idx - kv_idx < window) & (kv_idx <= q_idx)"),
    Planted(
        "1.2",
        "hides-future",
        code=window("d = q_idx - kv_idx\n        return (d >= 0) & (d < window)"),
        note="distance",
    ),
    Planted("1.2", "both-sides", old="q_idx - kv_idx < window", new="(q_idx - kv_idx).abs() < window"),
    Planted(
        "1.2",
        "both-sides",
        code=window("d = q_idx - kv_idx\n        return (-window < d) & (d < window)"),
        note="bounds",
    ),
    Planted("1.2", "true-means-hidden", old="q_idx - kv_idx < window", new="q_idx - kv_idx >= window"),
    Planted("1.2", "true-means-hidden", old="q_idx - kv_idx < window", new="q_idx - kv_idx > window", note="far"),
    Planted("1.2", "swapped", old="q_idx - kv_idx < window", new="kv_idx - q_idx < window"),
    Planted("1.2", "precedence", old="q_idx - kv_idx < window", new="(kv_idx <= q_idx) & q_idx - kv_idx < window"),
    Planted("1.2", "precedence", code=window("return (q_idx - kv_idx < window) & kv_idx <= q_idx"), note="last"),
    Planted("1.2", "precedence", code=window("return (q_idx >= kv_idx) & (q_idx - kv_idx) < window"), note="brackets"),
    Planted("1.2", "python-not", old="q_idx - kv_idx < window", new="0 <= q_idx - kv_idx < window"),
    Planted(
        "1.2", "python-not", code=window("return q_idx - kv_idx < window & kv_idx <= q_idx"), note="chain by precedence"
    ),
    Planted("1.2", "python-not", code=window("return not (q_idx - kv_idx >= window)"), note="not"),
    Planted("1.2", "python-not", code=window("return max(q_idx - kv_idx, 0) < window"), note="max"),
    Planted(
        "1.2",
        "four-arguments",
        old="def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor)",
        new="def mask_mod(q_idx: Tensor, kv_idx: Tensor)",
    ),
    Planted("1.2", "own-axes", code=window("return q_idx[:, None] - kv_idx[None, :] < window")),
    Planted("1.2", "refuses-one", old="if window < 1:", new="if window <= 1:"),
    Planted("1.2", "takes-zero", old="if window < 1:", new="if window < 0:"),
    Planted(
        "1.2",
        "takes-zero",
        code="def sliding_window(window):\n    return lambda b, h, q_idx, kv_idx: q_idx - kv_idx < window\n",
        note="no check",
    ),
    Planted(
        "1.2",
        "takes-zero",
        code=(
            "def sliding_window(window):\n    def mask_mod(b, h, q_idx, kv_idx):\n        if window < 1:\n"
            "            raise ValueError(window)\n        return q_idx - kv_idx < window\n    return mask_mod\n"
        ),
        note="late",
    ),
    Planted(
        "1.2",
        "takes-zero",
        code=(
            "def sliding_window(window):\n    assert window >= 1\n"
            "    return lambda b, h, q_idx, kv_idx: q_idx - kv_idx < window\n"
        ),
        note="assert",
    ),
    Planted("1.2", "", code=window("return q_idx // window == kv_idx // window"), note="blocks"),
    Planted("1.2", "", code=window("return q_idx - kv_idx < 2 * window"), note="doubled"),
    Planted("1.2", "", code=window("return kv_idx < window"), note="first keys"),
    # ------------------------------------------------------------------ 1.3
    Planted("1.3", "frozen-copy", code=packed("return kept[q_idx] == kept[kv_idx]", "    kept = document_L.clone()\n")),
    Planted(
        "1.3",
        "frozen-copy",
        code=packed("return same[q_idx, kv_idx]", "    same = document_L[:, None] == document_L[None, :]\n"),
        note="matrix",
    ),
    Planted(
        "1.3",
        "frozen-copy",
        code=packed(
            "return kept[q_idx] == kept[kv_idx]", "    kept = torch.tensor([int(d) for d in document_L.tolist()])\n"
        ),
        note="list",
    ),
    Planted(
        "1.3",
        "frozen-copy",
        code=packed("return kept[q_idx] == kept[kv_idx]", "    kept = document_L.long()\n"),
        note="conversion",
    ),
    Planted(
        "1.3",
        "frozen-copy",
        code=packed(
            "if not kept:\n            kept.append(document_L.clone())\n"
            "        return kept[0][q_idx] == kept[0][kv_idx]",
            "    kept = []\n",
        ),
        note="first call",
    ),
    Planted(
        "1.3",
        "adds-causal",
        old="document_L[q_idx] == document_L[kv_idx]",
        new="(document_L[q_idx] == document_L[kv_idx]) & (q_idx >= kv_idx)",
    ),
    Planted(
        "1.3",
        "precedence",
        old="document_L[q_idx] == document_L[kv_idx]",
        new="(q_idx >= kv_idx) & document_L[q_idx] == document_L[kv_idx]",
    ),
    Planted(
        "1.3",
        "precedence",
        code=packed("return (document_L[q_idx] == document_L[kv_idx]) & kv_idx <= q_idx"),
        note="last",
    ),
    Planted(
        "1.3",
        "earlier-documents",
        old="document_L[q_idx] == document_L[kv_idx]",
        new="document_L[q_idx] >= document_L[kv_idx]",
    ),
    Planted("1.3", "one-looked-up", old="document_L[q_idx] == document_L[kv_idx]", new="document_L[q_idx] == kv_idx"),
    Planted("1.3", "one-looked-up", code=packed("return q_idx == document_L[kv_idx]"), note="query"),
    Planted(
        "1.3",
        "other-documents",
        old="document_L[q_idx] == document_L[kv_idx]",
        new="document_L[q_idx] != document_L[kv_idx]",
    ),
    Planted("1.3", "ignores-indices", code=packed("return document_L[:, None] == document_L")),
    Planted(
        "1.3",
        "ignores-indices",
        code=packed("return document_L.unsqueeze(1).eq(document_L.unsqueeze(0))"),
        note="unsqueeze",
    ),
    Planted(
        "1.3",
        "runs-not-documents",
        code=packed(
            "runs = (torch.diff(document_L, prepend=document_L[:1]) != 0).cumsum(0)\n"
            "        return runs[q_idx] == runs[kv_idx]"
        ),
    ),
    Planted("1.3", "python-not", code=packed("return torch.tensor(document_L[int(q_idx)] == document_L[int(kv_idx)])")),
    Planted(
        "1.3",
        "python-not",
        code=packed("return document_L[q_idx] == document_L[kv_idx] and q_idx >= 0"),
        note="and",
    ),
    Planted(
        "1.3",
        "four-arguments",
        code="def packed_documents(document_L):\n"
        "    return lambda q_idx, kv_idx: document_L[q_idx] == document_L[kv_idx]\n",
    ),
    Planted("1.3", "own-axes", code=packed("return document_L[q_idx][:, None] == document_L[kv_idx][None, :]")),
    Planted("1.3", "", code=packed("return (document_L[q_idx] - document_L[kv_idx]).abs() <= 1"), note="neighbours"),
    Planted(
        "1.3",
        "",
        code=packed("return (document_L[q_idx] == document_L[kv_idx]) & (document_L[q_idx] > 0)"),
        note="not 0",
    ),
    # ------------------------------------------------------------------ 1.4
    Planted("1.4", "any_of-instead", old="allowed & other(", new="allowed | other("),
    Planted(
        "1.4",
        "any_of-instead",
        code=joined("all_of", "        return sum(m(b, h, q_idx, kv_idx) for m in mask_mods) > 0\n"),
        note="sum",
    ),
    Planted("1.4", "python-not", old="allowed & other(", new="allowed and other("),
    Planted(
        "1.4",
        "python-not",
        code=joined("all_of", "        return all(m(b, h, q_idx, kv_idx) for m in mask_mods)\n"),
        note="all",
    ),
    Planted("1.4", "four-arguments", old="other(b, h, q_idx, kv_idx)", new="other(q_idx, kv_idx)"),
    Planted(
        "1.4",
        "four-arguments",
        code=combining(
            "all_of",
            "    return lambda q_idx, kv_idx: mask_mods[0](None, None, q_idx, kv_idx)"
            " & mask_mods[-1](None, None, q_idx, kv_idx)\n",
        ),
        note="own",
    ),
    Planted(
        "1.4",
        "two-only",
        code=joined("all_of", "        return mask_mods[0](b, h, q_idx, kv_idx) & mask_mods[1](b, h, q_idx, kv_idx)\n"),
    ),
    Planted(
        "1.4",
        "two-only",
        code=joined(
            "all_of",
            "        first, second = mask_mods\n"
            "        return first(b, h, q_idx, kv_idx) & second(b, h, q_idx, kv_idx)\n",
        ),
        note="unpacked",
    ),
    Planted(
        "1.4",
        "one-wins",
        old="allowed = allowed & other(b, h, q_idx, kv_idx)",
        new="allowed = other(b, h, q_idx, kv_idx)",
    ),
    Planted(
        "1.4",
        "one-wins",
        code=joined("all_of", "        for m in mask_mods:\n            return m(b, h, q_idx, kv_idx)\n"),
        note="first",
    ),
    Planted(
        "1.4",
        "one-wins",
        code=joined(
            "all_of",
            "        asked = [lambda: m(b, h, q_idx, kv_idx) for m in mask_mods]\n"
            "        allowed = asked[0]()\n        for ask in asked:\n            allowed = allowed & ask()\n"
            "        return allowed\n",
        ),
        note="late closure",
    ),
    Planted(
        "1.4",
        "calls-itself",
        code=combining(
            "all_of",
            "    both = mask_mods[0]\n    for m in mask_mods[1:]:\n"
            "        both = lambda b, h, q, k: both(b, h, q, k) & m(b, h, q, k)\n    return both\n",
        ),
    ),
    Planted(
        "1.4",
        "single-answer",
        code=joined("all_of", "        return torch.stack([m(b, h, q_idx, kv_idx) for m in mask_mods]).all()\n"),
    ),
    Planted(
        "1.4",
        "wrong-start",
        code=joined(
            "all_of",
            "        allowed = False\n        for m in mask_mods:\n"
            "            allowed = allowed & m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
    ),
    Planted(
        "1.4",
        "same-shape",
        code=joined("all_of", "        return torch.stack([m(b, h, q_idx, kv_idx) for m in mask_mods]).all(dim=0)\n"),
    ),
    Planted(
        "1.4",
        "same-shape",
        code=joined(
            "all_of",
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed &= m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="in place",
    ),
    Planted(
        "1.4",
        "swapped",
        code=joined(
            "all_of",
            "        allowed = True\n        for m in mask_mods:\n"
            "            allowed = allowed & m(b, h, kv_idx, q_idx)\n"
            "        return allowed\n",
        ),
    ),
    Planted(
        "1.4",
        "drops-indices",
        code=joined(
            "all_of",
            "        allowed = True\n        for m in mask_mods:\n"
            "            allowed = allowed & m(None, None, q_idx, kv_idx)\n        return allowed\n",
        ),
    ),
    Planted(
        "1.4",
        "drops-indices",
        code=joined(
            "all_of",
            "        zero = torch.zeros((), dtype=torch.long)\n        allowed = True\n        for m in mask_mods:\n"
            "            allowed = allowed & m(zero, zero, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="zero",
    ),
    Planted("1.4", "drops-indices", old="other(b, h, q_idx, kv_idx)", new="other(h, b, q_idx, kv_idx)", note="swapped"),
    Planted("1.4", "swapped", old="other(b, h, q_idx, kv_idx)", new="other(b, h, kv_idx, q_idx)", note="others"),
    Planted(
        "1.4",
        "takes-none",
        code=(
            "def all_of(*mask_mods):\n    def mask_mod(b, h, q_idx, kv_idx):\n"
            "        allowed = torch.ones_like(q_idx, dtype=torch.bool)\n"
            "        for m in mask_mods:\n"
            "            allowed = allowed & m(b, h, q_idx, kv_idx)\n        return allowed\n"
            "    return mask_mod\n"
        ),
    ),
    Planted(
        "1.4",
        "takes-none",
        code=(
            "def all_of(first, *mask_mods):\n    def mask_mod(b, h, q_idx, kv_idx):\n"
            "        allowed = first(b, h, q_idx, kv_idx)\n"
            "        for m in mask_mods:\n"
            "            allowed = allowed & m(b, h, q_idx, kv_idx)\n        return allowed\n"
            "    return mask_mod\n"
        ),
        note="type error",
    ),
    Planted(
        "1.4",
        "",
        code=joined(
            "all_of",
            "        allowed = ~mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed = allowed & m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="negated",
    ),
    Planted(
        "1.4",
        "",
        code=joined(
            "all_of",
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed = allowed == m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="equal",
    ),
    # ------------------------------------------------------------------ 1.5
    Planted("1.5", "all_of-instead", old="allowed | other(", new="allowed & other("),
    Planted(
        "1.5",
        "all_of-instead",
        code=joined("any_of", "        return sum(m(b, h, q_idx, kv_idx) for m in mask_mods) == len(mask_mods)\n"),
        note="sum",
    ),
    Planted("1.5", "exclusive", old="allowed | other(", new="allowed ^ other("),
    Planted(
        "1.5",
        "exclusive",
        code=joined(
            "any_of",
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed = allowed != m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="unequal",
    ),
    Planted("1.5", "python-not", old="allowed | other(", new="allowed or other("),
    Planted(
        "1.5",
        "python-not",
        code=joined("any_of", "        return any(m(b, h, q_idx, kv_idx) for m in mask_mods)\n"),
        note="any",
    ),
    Planted("1.5", "four-arguments", old="other(b, h, q_idx, kv_idx)", new="other(q_idx, kv_idx)"),
    Planted(
        "1.5",
        "two-only",
        code=joined("any_of", "        return mask_mods[0](b, h, q_idx, kv_idx) | mask_mods[1](b, h, q_idx, kv_idx)\n"),
    ),
    Planted(
        "1.5",
        "one-wins",
        old="allowed = allowed | other(b, h, q_idx, kv_idx)",
        new="allowed = other(b, h, q_idx, kv_idx)",
    ),
    Planted(
        "1.5",
        "one-wins",
        code=joined(
            "any_of",
            "        for m in mask_mods:\n            allowed = torch.zeros((), dtype=torch.bool)\n"
            "            allowed = allowed | m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="starts again",
    ),
    Planted(
        "1.5",
        "calls-itself",
        code=combining(
            "any_of",
            "    either = mask_mods[0]\n    for m in mask_mods[1:]:\n"
            "        def either(b, h, q, k):\n"
            "            return either(b, h, q, k) | m(b, h, q, k)\n    return either\n",
        ),
    ),
    Planted(
        "1.5",
        "single-answer",
        code=joined("any_of", "        return torch.stack([m(b, h, q_idx, kv_idx) for m in mask_mods]).any()\n"),
    ),
    Planted(
        "1.5",
        "same-shape",
        code=joined("any_of", "        return torch.stack([m(b, h, q_idx, kv_idx) for m in mask_mods]).any(0)\n"),
    ),
    Planted(
        "1.5",
        "same-shape",
        code=joined(
            "any_of",
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed |= m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="in place",
    ),
    Planted(
        "1.5",
        "swapped",
        code=joined(
            "any_of",
            "        allowed = False\n        for m in mask_mods:\n"
            "            allowed = allowed | m(b, h, kv_idx, q_idx)\n"
            "        return allowed\n",
        ),
    ),
    Planted(
        "1.5",
        "drops-indices",
        code=joined(
            "any_of",
            "        allowed = False\n        for m in mask_mods:\n"
            "            allowed = allowed | m(0 * b, 0 * h, q_idx, kv_idx)\n        return allowed\n",
        ),
    ),
    Planted("1.5", "swapped", old="other(b, h, q_idx, kv_idx)", new="other(b, h, kv_idx, q_idx)", note="others"),
    Planted(
        "1.5",
        "takes-none",
        code=(
            "def any_of(*mask_mods):\n    def mask_mod(b, h, q_idx, kv_idx):\n"
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n"
            "        for m in mask_mods[1:]:\n"
            "            allowed = allowed | m(b, h, q_idx, kv_idx)\n        return allowed\n"
            "    return mask_mod\n"
        ),
    ),
    Planted(
        "1.5",
        "wrong-start",
        code=joined(
            "any_of",
            "        allowed = torch.ones((), dtype=torch.bool)\n        for m in mask_mods:\n"
            "            allowed = allowed | m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
    ),
    Planted(
        "1.5",
        "",
        code=joined(
            "any_of",
            "        allowed = mask_mods[0](b, h, q_idx, kv_idx)\n        for m in mask_mods[1:]:\n"
            "            allowed = allowed | ~m(b, h, q_idx, kv_idx)\n        return allowed\n",
        ),
        note="negated",
    ),
    Planted(
        "1.5",
        "",
        code=joined(
            "any_of",
            "        return sum(m(b, h, q_idx, kv_idx).int() for m in mask_mods) > 1\n",
        ),
        note="two needed",
    ),
    # ------------------------------------------------------------------ 1.6
    Planted("1.6", "broadcast-batch", old="b[:, None, None, None]", new="b[:1, None, None, None]"),
    Planted(
        "1.6",
        "broadcast-batch",
        code=dense(
            "    zero = torch.tensor(0, device=device)\n"
            "    q, k = torch.arange(Q, device=device), torch.arange(K, device=device)\n"
            "    return mask_mod(zero, zero, q[:, None], k).expand(B, H, Q, K)\n"
        ),
        note="row and head",
    ),
    Planted(
        "1.6",
        "broadcast-batch",
        code=dense(
            "    from torch.nn.attention.flex_attention import create_mask\n"
            "    return create_mask(mask_mod, None, None, Q, K, device=device)\n"
        ),
        note="not expanded",
    ),
    Planted(
        "1.6",
        "broadcast-batch",
        code=dense(
            "    q, k = torch.arange(Q, device=device), torch.arange(K, device=device)\n"
            "    out = torch.empty(B, H, Q, K, dtype=torch.bool, device=device)\n    for b in range(B):\n"
            "        out[b] = mask_mod(torch.tensor(b, device=device), torch.tensor(0, device=device), q[:, None], k)\n"
            "    return out\n"
        ),
        note="head",
    ),
    Planted(
        "1.6",
        "broadcast-batch",
        code=dense(
            "    q, k = torch.arange(Q, device=device), torch.arange(K, device=device)\n"
            "    out = torch.zeros(B, H, Q, K, dtype=torch.bool, device=device)\n"
            "    out[0, 0] = mask_mod(q.new_tensor(0), q.new_tensor(0), q[:, None], k)\n    return out\n"
        ),
        note="first only",
    ),
    Planted("1.6", "not-expanded", old=".expand(B, H, Q, K)", new=""),
    Planted("1.6", "not-expanded", old=".expand(B, H, Q, K)", new="[None, None]", note="two axes"),
    Planted("1.6", "transposed", old="q[:, None], k)", new="k, q[:, None])"),
    Planted(
        "1.6",
        "transposed",
        old="q[:, None], k).expand(B, H, Q, K)",
        new="q, k[:, None]).expand(B, H, K, Q)",
        note="shape",
    ),
    Planted(
        "1.6",
        "transposed",
        code=dense(
            "    from torch.nn.attention.flex_attention import create_mask\n"
            "    return create_mask(lambda b, h, q, k: mask_mod(b, h, k, q), B, H, K, Q, device=device)\n"
        ),
        note="twice",
    ),
    Planted(
        "1.6",
        "from-one",
        old="torch.arange(n, device=device) for n in (B, H, Q, K)",
        new="torch.arange(n, device=device) + i for i, n in zip((0, 0, 1, 1), (B, H, Q, K))",
    ),
    Planted("1.6", "ignores-device", old="torch.arange(n, device=device)", new="torch.arange(n)"),
    Planted(
        "1.6",
        "ignores-device",
        code=dense(
            "    b, h, q, k = (torch.arange(n) for n in (B, H, Q, K))\n"
            "    return mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k).expand(B, H, Q, K).to(device)\n"
        ),
        note="late",
    ),
    Planted(
        "1.6",
        "four-arguments",
        old="mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k)",
        new="mask_mod(q[:, None], k)",
    ),
    Planted(
        "1.6",
        "python-not",
        code=dense(
            "    b, h, q, k = (torch.arange(n, device=device) for n in (B, H, Q, K))\n"
            "    mask = mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k)\n"
            "    return torch.full((B, H, Q, K), bool(mask))\n"
        ),
    ),
    Planted("1.6", "", old=".expand(B, H, Q, K)", new=".expand(B, H, Q, K).tril()", note="tril"),
    Planted("1.6", "", old=".expand(B, H, Q, K)", new=".expand(B, H, Q, K).int()", note="int"),
    Planted("1.6", "", old=".expand(B, H, Q, K)", new=".expand(B, H, Q, K).logical_not()", note="negated"),
    # ------------------------------------------------------------------ 1.7
    Planted("1.7", "maps-swapped", old="return some & ~full, full", new="return full, some & ~full"),
    Planted("1.7", "full-in-both", old="some & ~full, full", new="some, full"),
    Planted("1.7", "empty-is-partial", old="some & ~full, full", new="~full, full"),
    Planted("1.7", "empty-is-partial", old="some & ~full, full", new="some & full == False, full", note="precedence"),
    Planted("1.7", "block-size-swapped", old="q_block, k_block = block_size", new="k_block, q_block = block_size"),
    Planted(
        "1.7",
        "broadcast-batch",
        old="mask = torch.nn.functional.pad(mask_BHQK, (0, k_missing)",
        new="mask = torch.nn.functional.pad(mask_BHQK[:1].expand(B, H, Q, K), (0, k_missing)",
    ),
    Planted(
        "1.7",
        "broadcast-batch",
        code=classify(ANY, ALL, "(some & ~full)[:1, :1], full[:1, :1]"),
        note="narrow",
    ),
    Planted(
        "1.7",
        "broadcast-batch",
        code=classify(ANY + ".any(0).any(0).expand(B, H, nq, nk)", ALL + ".all(0).all(0).expand(B, H, nq, nk)"),
        note="mixed",
    ),
    Planted("1.7", "python-not", old="some & ~full, full", new="some and not full, full"),
    Planted("1.7", "full-for-partial", code=classify(ANY, "filled(True, True).all(5).all(3)")),
    Planted("1.7", "full-for-partial", code=classify(ANY, ANY), note="any"),
    Planted(
        "1.7",
        "full-for-partial",
        code=classify("filled(True, True).any(5).any(3)", "filled(True, True).all(5).all(3)"),
        note="one padding",
    ),
    Planted(
        "1.7", "full-for-partial", old="(0, k_missing), value=False", new="(0, k_missing), value=True", note="value"
    ),
    Planted("1.7", "missing-queries-count", old="tiles(outside_q=True)", new="tiles(outside_q=False)"),
    Planted("1.7", "missing-queries-count", old="tiles(outside_q=False)", new="tiles(outside_q=True)", note="any"),
    Planted(
        "1.7",
        "missing-queries-count",
        code=classify(ANY, "filled(False, False).sum((3, 5)) == qb * kb"),
        note="counted",
    ),
    Planted(
        "1.7",
        "drops-the-rest",
        code=(
            "def classify_blocks(mask_BHQK, block_size):\n    qb, kb = block_size\n"
            "    tiles = mask_BHQK.unfold(2, qb, qb).unfold(3, kb, kb)\n"
            "    some, full = tiles.any(-1).any(-1), tiles.all(-1).all(-1)\n    return some & ~full, full\n"
        ),
    ),
    Planted(
        "1.7",
        "drops-the-rest",
        code=(
            "def classify_blocks(mask_BHQK, block_size):\n    qb, kb = block_size\n    B, H, Q, K = mask_BHQK.shape\n"
            "    tiles = mask_BHQK.reshape(B, H, Q // qb, qb, K // kb, kb)\n"
            "    some, full = tiles.any(5).any(3), tiles.all(5).all(3)\n    return some & ~full, full\n"
        ),
        note="reshape",
    ),
    Planted(
        "1.7",
        "true-means-hidden",
        old="B, H, Q, K = mask_BHQK.shape",
        new="mask_BHQK = ~mask_BHQK; B, H, Q, K = mask_BHQK.shape",
    ),
    Planted("1.7", "one-row-is-enough", old=".all(dim=5).all(dim=3)", new=".all(dim=5).any(dim=3)"),
    Planted("1.7", "one-row-is-enough", old=".all(dim=5).all(dim=3)", new=".any(dim=5).all(dim=3)", note="each row"),
    Planted("1.7", "one-row-is-enough", old=".all(dim=5).all(dim=3)", new=".any(dim=3).all(dim=4)", note="each column"),
    Planted("1.7", "", old=".all(dim=5).all(dim=3)", new="[..., 0, :, 0]", note="corner"),
    Planted("1.7", "", code=classify(ANY, "filled(True, False).float().mean((3, 5)) > 0.7"), note="mostly"),
    Planted("1.7", "", code=classify(ANY, ALL, "some & ~full, (full.int()).bool() & False"), note="never full"),
    # ------------------------------------------------------------------ 1.8
    Planted("1.8", "maps-swapped", old="return some & ~full, full", new="return full, some & ~full"),
    Planted("1.8", "full-in-both", old="some & ~full, full", new="some, full"),
    Planted("1.8", "empty-is-partial", old="some & ~full, full", new="~full, full"),
    Planted("1.8", "empty-is-partial", old="some & ~full, full", new="some & full == False, full", note="precedence"),
    Planted("1.8", "block-size-swapped", old="q_block, k_block = block_size", new="k_block, q_block = block_size"),
    Planted("1.8", "broadcast-batch", code=visible(SOME, COVERED, result="(some & ~full)[:1], full[:1]")),
    Planted(
        "1.8",
        "broadcast-batch",
        code=visible(SOME, COVERED, result="(some & ~full)[:1].expand_as(some), full[:1].expand_as(some)"),
        note="expanded",
    ),
    Planted("1.8", "python-not", old="some & ~full, full", new="some and not full, full"),
    Planted("1.8", "python-not", code=visible("lo <= end and start <= hi", COVERED), note="and"),
    Planted("1.8", "python-not", code=visible("lo <= end & start <= hi", COVERED), note="no brackets at all"),
    Planted("1.8", "full-for-partial", code=visible(SOME, "(late <= start) & (start <= early)")),
    Planted("1.8", "full-for-partial", code=visible(SOME, SOME), note="all"),
    Planted("1.8", "full-for-partial", code=visible(SOME, "end <= early"), note="no first"),
    Planted("1.8", "full-for-partial", code=visible(SOME, "(end <= early) & some"), note="left edge"),
    Planted("1.8", "one-for-all", code=visible(SOME, "(lo <= start) & (end <= hi)")),
    Planted(
        "1.8",
        "one-for-all",
        code=visible(SOME, "((first[..., None] <= start) & (end <= last[..., None])).any(2)"),
        note="any",
    ),
    Planted("1.8", "off-by-one", old="block_end = block_start + k_block - 1", new="block_end = block_start + k_block"),
    Planted("1.8", "off-by-one", code=visible("(lo <= end) & (start < hi)", COVERED), note="read"),
    Planted("1.8", "off-by-one", code=visible(SOME, "(late <= start) & (end < early)"), note="full"),
    Planted("1.8", "off-by-one", code=visible(SOME, "(late <= start) & (start + kb <= early)"), note="block"),
    Planted("1.8", "off-by-one", code=visible("(lo < end) & (start <= hi)", COVERED), note="first"),
    Planted(
        "1.8",
        "precedence",
        old="(lowest <= block_end) & (block_start <= highest)",
        new="(lowest <= block_end) & block_start <= highest",
    ),
    Planted("1.8", "precedence", code=visible(SOME, "(late <= start) & end <= early"), note="full"),
    Planted(
        "1.8", "precedence", code=visible("(start <= hi) & lo <= end", "(end <= early) & late <= start"), note="both"
    ),
    Planted(
        "1.8",
        "assumes-order",
        code=visible("(first[:, :, :1] <= end) & (start <= last[:, :, -1:])", COVERED),
    ),
    Planted(
        "1.8",
        "assumes-order",
        code=visible(
            "(first[:, :, :1] <= end) & (start <= last[:, :, -1:])",
            "(first[:, :, -1:] <= start) & (end <= last[:, :, :1])",
        ),
        note="both",
    ),
    Planted(
        "1.8",
        "missing-queries-count",
        code=visible(SOME, COVERED, first="first_BQ.new_zeros(1, 1)", last="last_BQ.new_zeros(1, 1)"),
    ),
    Planted(
        "1.8",
        "missing-queries-count",
        code=visible(SOME, COVERED, first="first_BQ.new_zeros(1, 1)", last="last_BQ.new_full((1, 1), -1)"),
        note="empty",
    ),
    Planted(
        "1.8",
        "drops-the-rest",
        code=visible(SOME, COVERED).replace("more = -first_BQ.shape[1] % qb", "more = 0"),
    ),
    Planted(
        "1.8",
        "drops-the-rest",
        code=(
            "def visible_blocks(first_BQ, last_BQ, n_key_blocks, block_size):\n    qb, kb = block_size\n"
            "    first, last = first_BQ.unfold(1, qb, qb)[..., None], last_BQ.unfold(1, qb, qb)[..., None]\n"
            "    start = torch.arange(n_key_blocks) * kb\n    end = start + kb - 1\n"
            "    some = ((first <= last) & (first <= end) & (start <= last)).any(2)\n"
            "    full = ((first <= start) & (end <= last)).all(2)\n    return some & ~full, full\n"
        ),
        note="unfold",
    ),
    Planted(
        "1.8",
        "same-for-all",
        code=visible(SOME, COVERED)
        .replace("amin(2, keepdim=True)", "amin((1, 2), keepdim=True)")
        .replace("amax(2, keepdim=True)", "amax((1, 2), keepdim=True)")
        .replace(
            "return some & ~full, full",
            "shape = (*first.shape[:2], n_key_blocks)\n    return (some & ~full).expand(shape), full.expand(shape)",
        ),
    ),
    Planted("1.8", "empty-reads", old="reads_something = first <= last", new="reads_something = first > -1"),
    Planted(
        "1.8",
        "empty-reads",
        code=visible("((first[..., None] <= end) & (start <= last[..., None])).any(2)", COVERED),
        note="by query",
    ),
    Planted(
        "1.8",
        "empty-reads",
        code=visible("(first.amin(2, keepdim=True) <= end) & (start <= hi)", COVERED),
        note="lowest",
    ),
    Planted(
        "1.8",
        "empty-skipped",
        code=visible(
            SOME,
            "(first.masked_fill(none, -1).amax(2, keepdim=True) <= start)"
            " & (end <= last.masked_fill(none, 10**6).amin(2, keepdim=True)) & some",
        ),
    ),
    Planted("1.8", "empty-is-partial", code=visible("(lo <= end) | (start <= hi)", COVERED), note="or"),
    Planted("1.8", "", code=visible("(lo >= start) & (hi <= end)", COVERED), note="inside"),
    Planted("1.8", "", code=visible(SOME, "(late >= start) & (end <= early)"), note="inverted"),
    Planted("1.8", "", code=visible(SOME, COVERED, result="some & ~full, full & False"), note="never full"),
    # ------------------------------------------------------------------ 1.9
    Planted("1.9", "lists-swapped", code=by_hand(of_lists(COUNTS, INDICES, "full_BHQK", "partial_BHQK"))),
    Planted("1.9", "full-for-partial", old="listed_first(full_BHQK)", new="listed_first(full_BHQK | partial_BHQK)"),
    Planted(
        "1.9",
        "full-for-partial",
        code=by_hand(of_lists(COUNTS, INDICES, "partial_BHQK & False", "partial_BHQK | full_BHQK")),
        note="all",
    ),
    Planted(
        "1.9",
        "full-for-partial",
        code=by_hand(
            "    some = partial_BHQK | full_BHQK\n    later = some.flip(-1).cumsum(-1).flip(-1)\n"
            "    last = some & (later == 1)\n" + of_lists(COUNTS, INDICES, "partial_BHQK & ~last", "full_BHQK | last")
        ),
        note="last",
    ),
    Planted("1.9", "all-partial", old="listed_first(partial_BHQK)", new="listed_first(partial_BHQK | full_BHQK)"),
    Planted(
        "1.9",
        "all-partial",
        code=by_hand(of_lists(COUNTS, INDICES, "partial_BHQK | full_BHQK", "full_BHQK & False")),
        note="none full",
    ),
    Planted(
        "1.9",
        "none-for-zero",
        code=by_hand(of_lists(COUNTS, INDICES) + "    if not full_BHQK.any():\n        fc = fi = None\n"),
    ),
    Planted("1.9", "none-for-zero", code=by_hand(of_lists(COUNTS, INDICES) + "    fc = fi = None\n"), note="always"),
    Planted(
        "1.9",
        "broadcast-batch",
        code=by_hand(of_lists(COUNTS, INDICES, "partial_BHQK[:1]", "full_BHQK[:1]")),
    ),
    Planted(
        "1.9",
        "broadcast-batch",
        code=by_hand(
            of_lists(COUNTS, INDICES, "partial_BHQK[:1].expand_as(partial_BHQK)", "full_BHQK[:1].expand_as(full_BHQK)")
        ),
        note="expanded",
    ),
    Planted(
        "1.9",
        "broadcast-batch",
        code=by_hand(of_lists(COUNTS, INDICES, "partial_BHQK[:1, :1]", "full_BHQK[:1, :1]")),
        note="heads",
    ),
    Planted("1.9", "listed-last", old="descending=True", new="descending=False"),
    Planted("1.9", "listed-last", code=by_hand(of_lists(COUNTS, "m.int().sort(dim=-1).indices.int()")), note="sort"),
    Planted("1.9", "first-blocks", code=by_hand(of_lists(COUNTS, "torch.arange(m.shape[-1]).int().expand(m.shape)"))),
    Planted(
        "1.9",
        "asks-mask-mod",
        code=(
            "def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):\n"
            "    from torch.nn.attention.flex_attention import create_block_mask\n    B, H = partial_BHQK.shape[:2]\n"
            "    return create_block_mask(mask_mod, B, H, *seq_lengths, device='cpu', BLOCK_SIZE=block_size)\n"
        ),
    ),
    Planted(
        "1.9",
        "asks-mask-mod",
        code=(
            "def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):\n"
            "    from torch.nn.attention.flex_attention import create_block_mask\n"
            "    return create_block_mask(mask_mod, None, None, *seq_lengths, device='cpu', BLOCK_SIZE=block_size)\n"
        ),
        note="one row",
    ),
    Planted("1.9", "not-int32", old="blocks.sum(dim=-1, dtype=torch.int32)", new="blocks.sum(dim=-1)"),
    Planted("1.9", "not-int32", code=by_hand(of_lists(COUNTS, INDICES.removesuffix(".int()"))), note="lists"),
    Planted("1.9", "narrow-lists", code=by_hand(of_lists(COUNTS, INDICES + "[..., :max(1, int(m.sum(-1).max()))]"))),
    Planted(
        "1.9",
        "invalid-behind",
        code=by_hand(
            of_lists(COUNTS, f"{INDICES}.where(torch.arange(m.shape[-1]) < m.sum(-1, keepdim=True), -1).int()")
        ),
    ),
    Planted(
        "1.9",
        "invalid-behind",
        code=by_hand(
            of_lists(
                COUNTS, "torch.arange(m.shape[-1]).expand(m.shape).where(m, m.shape[-1]).sort(dim=-1).values.int()"
            )
        ),
        note="past the end",
    ),
    Planted("1.9", "block-size-swapped", old="BLOCK_SIZE=block_size", new="BLOCK_SIZE=(block_size[1], block_size[0])"),
    Planted("1.9", "block-size-swapped", old="BLOCK_SIZE=block_size", new="BLOCK_SIZE=block_size[0]", note="one"),
    Planted("1.9", "default-block-size", old="BLOCK_SIZE=block_size,", new=""),
    Planted("1.9", "padded-lengths", old="seq_lengths=seq_lengths,", new=""),
    Planted("1.9", "lengths-swapped", old="seq_lengths=seq_lengths", new="seq_lengths=seq_lengths[::-1]"),
    Planted("1.9", "no-mask-mod", old="mask_mod=mask_mod,", new=""),
    Planted("1.9", "", old="partial_BHQK)", new="partial_BHQK.flip(-1))", note="reversed"),
    Planted("1.9", "", old="return blocks.sum(", new="return 1 + blocks.sum(", note="one more"),
    Planted(
        "1.9",
        "",
        code="def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):\n"
        "    return partial_BHQK, full_BHQK\n",
        note="a tuple",
    ),
    # ------------------------------------------------------------------ 1.10
    Planted(
        "1.10",
        "cap-after-mask",
        code=cap(
            "        score = torch.where(q_idx >= kv_idx, score, -float('inf'))\n"
            "        return cap * torch.tanh(score / cap)\n"
        ),
    ),
    Planted(
        "1.10",
        "cap-after-mask",
        code=cap(
            "        score = score.masked_fill(kv_idx > q_idx, -1e9)\n        return cap * (score / cap).tanh()\n"
        ),
        note="large number",
    ),
    Planted(
        "1.10",
        "masks-too",
        code=cap("        return torch.where(kv_idx <= q_idx, cap * torch.tanh(score / cap), -float('inf'))\n"),
    ),
    Planted(
        "1.10",
        "masks-too",
        code=cap("        return (cap * torch.tanh(score / cap)).masked_fill(q_idx < kv_idx, -1e4)\n"),
        note="large number",
    ),
    Planted("1.10", "no-divide", old="2 * score / cap", new="2 * score"),
    Planted("1.10", "no-scale", code=cap("        return torch.tanh(score / cap)\n")),
    Planted("1.10", "cancels", code=cap("        return cap * torch.tanh(score) / cap\n")),
    Planted("1.10", "cancels", code=cap("        return torch.tanh(score)\n"), note="tanh alone"),
    Planted("1.10", "hard-cap", code=cap("        return score.clamp(-cap, cap)\n")),
    Planted("1.10", "times-cap", old="2 * score / cap", new="2 * score * cap"),
    Planted(
        "1.10",
        "python-not",
        code=cap("        import math\n        return cap * math.tanh(score / cap)\n"),
        note="math",
    ),
    Planted(
        "1.10", "python-not", code=cap("        import math\n        return score * 0 + cap * math.tanh(score / cap)\n")
    ),
    Planted(
        "1.10",
        "python-not",
        code=cap("        return cap * torch.tanh(torch.tensor(max(min(score / cap, 9.0), -9.0)))\n"),
        note="min",
    ),
    Planted(
        "1.10",
        "five-arguments",
        old="def score_mod(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor)",
        new="def score_mod(score: Tensor)",
    ),
    Planted(
        "1.10",
        "five-arguments",
        code="def soft_cap(cap):\n    return lambda s: cap * torch.tanh(s / cap)\n",
        note="lambda",
    ),
    Planted("1.10", "", code=cap("        return cap * score / (cap + score.abs())\n"), note="rational"),
    Planted("1.10", "", code=cap("        return cap * torch.tanh(score / cap).abs()\n"), note="abs"),
    Planted(
        "1.10",
        "",
        old="2 * cap * torch.sigmoid(2 * score / cap) - cap",
        new="cap * torch.sigmoid(score / cap)",
        note="sigmoid",
    ),
]
