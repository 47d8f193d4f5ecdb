"""Other right answers in module 01."""

from planting import Alternative


def inner(head: str, body: str) -> str:
    """A function that gives back a mask_mod with that body."""
    return f"{head}\n    def mask_mod(b, h, q_idx, kv_idx):\n        {body}\n    return mask_mod\n"


WINDOW = "def sliding_window(window):\n    if window < 1:\n        raise ValueError('window below 1')"
PACKED = "def packed_documents(document_L):"
ALL = "def all_of(*mask_mods):\n    if len(mask_mods) == 0:\n        raise ValueError('no mask')"
ANY = ALL.replace("all_of", "any_of")
VMAPPED = """
def dense_mask(mask_mod, B, H, Q, K, device="cpu"):
    from torch.nn.attention.flex_attention import create_mask
    return create_mask({mask}, B, H, Q, K, device=device)
"""

ALTERNATIVES = [
    # ------------------------------------------------------------------ 1.1
    Alternative("1.1", "negated", "def causal(b, h, q_idx, kv_idx):\n    return ~(q_idx < kv_idx)\n"),
    Alternative("1.1", "difference", "def causal(b, h, q_idx, kv_idx):\n    return (q_idx - kv_idx).ge(0)\n"),
    Alternative("1.1", "function", "def causal(b, h, q_idx, kv_idx):\n    return torch.less_equal(kv_idx, q_idx)\n"),
    Alternative(
        "1.1",
        "expanded by b and h",
        "def causal(b, h, q_idx, kv_idx):\n    return (q_idx >= kv_idx) & (b >= 0) & (h >= 0)\n",
    ),
    Alternative(
        "1.1",
        "where",
        "def causal(b, h, q_idx, kv_idx):\n"
        "    return torch.where(q_idx >= kv_idx, torch.tensor(True), torch.tensor(False))\n",
    ),
    # ------------------------------------------------------------------ 1.2
    Alternative("1.2", "moved", inner(WINDOW, "return kv_idx > q_idx - window")),
    Alternative("1.2", "negated", inner(WINDOW, "return ~(q_idx >= kv_idx + window)")),
    Alternative("1.2", "lambda", f"{WINDOW}\n    return lambda b, h, q, k: q - k <= window - 1\n"),
    Alternative(
        "1.2",
        "captured tensor",
        inner(WINDOW + "\n    size = torch.tensor(window)", "return torch.lt(q_idx - kv_idx, size)"),
    ),
    Alternative(
        "1.2",
        "partial",
        "def _within(window, b, h, q_idx, kv_idx):\n    return q_idx - kv_idx < window\n\n\n"
        "def sliding_window(window):\n    import functools\n    if not window >= 1:\n        raise ValueError\n"
        "    return functools.partial(_within, window)\n",
    ),
    Alternative(
        "1.2",
        "class",
        f"{WINDOW}\n    class Window:\n        def __call__(self, b, h, q_idx, kv_idx):\n"
        "            return q_idx - kv_idx < window\n    return Window()\n",
    ),
    Alternative(
        "1.2",
        "own error",
        "def sliding_window(window):\n    class TooSmall(ValueError):\n        pass\n"
        "    if window <= 0:\n        raise TooSmall(window)\n"
        "    return lambda b, h, q_idx, kv_idx: (q_idx - kv_idx).clamp(min=0) < window\n",
    ),
    # ------------------------------------------------------------------ 1.3
    Alternative("1.3", "function", inner(PACKED, "return torch.eq(document_L[q_idx], document_L[kv_idx])")),
    Alternative("1.3", "difference", inner(PACKED, "return (document_L[q_idx] - document_L[kv_idx]) == 0")),
    Alternative("1.3", "negated", inner(PACKED, "return ~(document_L[q_idx] != document_L[kv_idx])")),
    Alternative("1.3", "take", inner(PACKED, "return document_L.take(q_idx) == document_L.take(kv_idx)")),
    Alternative(
        "1.3",
        "matrix at each call",
        inner(PACKED, "return (document_L[:, None] == document_L[None, :])[q_idx, kv_idx]"),
    ),
    Alternative(
        "1.3",
        "view of the tensor",
        inner(PACKED + "\n    view = document_L.view(-1)", "return view[q_idx] == view[kv_idx]"),
    ),
    Alternative(
        "1.3",
        "index_select",
        inner(
            PACKED,
            "of = lambda i: document_L.index_select(0, i.reshape(-1)).reshape(i.shape)\n"
            "        return of(q_idx) == of(kv_idx)",
        ),
    ),
    # ------------------------------------------------------------------ 1.4, 1.5
    *(
        Alternative(number, name, code)
        for number, head, and_, logical, fold, start in (
            ("1.4", ALL, "&", "logical_and", "all", "True"),
            ("1.5", ANY, "|", "logical_or", "any", "False"),
        )
        for name, code in {
            "reduce": inner(
                head,
                "import functools\n        return functools.reduce("
                f"torch.{logical}, [m(b, h, q_idx, kv_idx) for m in mask_mods])",
            ),
            "any arguments": f"{head}\n    import functools\n    import operator\n"
            f"    return lambda *i: functools.reduce(operator.{and_.replace('&', 'and_').replace('|', 'or_')}, "
            "(m(*i) for m in mask_mods))\n",
            "start value": inner(
                head,
                f"allowed = {start}\n        for m in mask_mods:\n"
                f"            allowed = allowed {and_} m(b, h, q_idx, kv_idx)\n        return allowed",
            ),
            "start tensor": inner(
                head,
                f"allowed = q_idx.new_full((), {start}, dtype=torch.bool)\n        for m in mask_mods:\n"
                f"            allowed = torch.{logical}(allowed, m(b, h, q_idx, kv_idx))\n        return allowed",
            ),
            "broadcast and stack": inner(
                head,
                "answers = torch.broadcast_tensors(*(m(b, h, q_idx, kv_idx) for m in mask_mods))\n"
                f"        return torch.stack(answers).{fold}(dim=0)",
            ),
            "recursive": f"{head}\n    first, *rest = mask_mods\n    if not rest:\n        return first\n"
            f"    others = {'all_of' if number == '1.4' else 'any_of'}(*rest)\n"
            f"    return lambda b, h, q, k: first(b, h, q, k) {and_} others(b, h, q, k)\n",
            "closures in a loop": f"{head}\n    def pair(f, g):\n"
            f"        return lambda b, h, q, k: f(b, h, q, k) {and_} g(b, h, q, k)\n"
            "    joined = mask_mods[0]\n    for m in mask_mods[1:]:\n"
            "        joined = pair(joined, m)\n    return joined\n",
            "torch's own": f"{head}\n    from torch.nn.attention.flex_attention import and_masks, or_masks\n"
            f"    return {'and_masks' if number == '1.4' else 'or_masks'}(*mask_mods)\n",
        }.items()
    ),
    Alternative(
        "1.4",
        "count",
        inner(ALL, "return sum(m(b, h, q_idx, kv_idx).int() for m in mask_mods) == len(mask_mods)"),
    ),
    Alternative(
        "1.4",
        "product",
        inner(ALL, "import math\n        return math.prod(m(b, h, q_idx, kv_idx) for m in mask_mods).bool()"),
    ),
    Alternative("1.5", "count", inner(ANY, "return sum(m(b, h, q_idx, kv_idx).int() for m in mask_mods) > 0")),
    Alternative(
        "1.5",
        "de Morgan",
        inner(ANY, "return ~all_of(*(lambda *i, m=m: ~m(*i) for m in mask_mods))(b, h, q_idx, kv_idx)"),
    ),
    # ------------------------------------------------------------------ 1.6
    Alternative("1.6", "vmap by torch", VMAPPED.format(mask="mask_mod")),
    Alternative("1.6", "vmap, wrapped", VMAPPED.format(mask="lambda b, h, q, k: mask_mod(b, h, q, k)")),
    Alternative(
        "1.6",
        "meshgrid",
        """
def dense_mask(mask_mod, B, H, Q, K, device="cpu"):
    grid = torch.meshgrid(*(torch.arange(n, device=device) for n in (B, H, Q, K)), indexing="ij")
    return mask_mod(*grid).expand(B, H, Q, K)
""",
    ),
    Alternative(
        "1.6",
        "loops over rows and heads",
        """
def dense_mask(mask_mod, B, H, Q, K, device="cpu"):
    out = torch.zeros(B, H, Q, K, dtype=torch.bool, device=device)
    q, k = torch.arange(Q, device=device)[:, None], torch.arange(K, device=device)[None, :]
    for b in range(B):
        for h in range(H):
            out[b, h] = mask_mod(torch.tensor(b, device=device), torch.tensor(h, device=device), q, k)
    return out
""",
    ),
    Alternative(
        "1.6",
        "one by one",
        """
def dense_mask(mask_mod, B, H, Q, K, device="cpu"):
    def t(i):
        return torch.tensor(i, device=device)
    return torch.tensor(
        [
            [[[bool(mask_mod(t(b), t(h), t(q), t(k))) for k in range(K)] for q in range(Q)] for h in range(H)]
            for b in range(B)
        ],
        device=device,
    )
""",
    ),
    Alternative(
        "1.6",
        "or with zeros",
        """
def dense_mask(mask_mod, B, H, Q, K, device="cpu"):
    b = torch.arange(B, device=device).view(B, 1, 1, 1)
    h = torch.arange(H, device=device).view(1, H, 1, 1)
    q = torch.arange(Q, device=device).view(1, 1, Q, 1)
    k = torch.arange(K, device=device).view(1, 1, 1, K)
    return torch.zeros(B, H, Q, K, dtype=torch.bool, device=device) | mask_mod(b, h, q, k)
""",
    ),
    # ------------------------------------------------------------------ 1.7
    Alternative(
        "1.7",
        "loops",
        """
def classify_blocks(mask_BHQK, block_size):
    B, H, Q, K = mask_BHQK.shape
    qb, kb = block_size
    partial = torch.zeros(B, H, -(-Q // qb), -(-K // kb), dtype=torch.bool)
    full = partial.clone()
    for i in range(partial.shape[2]):
        for j in range(partial.shape[3]):
            tile = mask_BHQK[:, :, i * qb : (i + 1) * qb, j * kb : (j + 1) * kb].flatten(2)
            whole = tile.all(-1) if (j + 1) * kb <= K else torch.zeros(B, H, dtype=torch.bool)
            full[:, :, i, j] = whole
            partial[:, :, i, j] = tile.any(-1) & ~whole
    return partial, full
""",
    ),
    Alternative(
        "1.7",
        "counting",
        """
def classify_blocks(mask_BHQK, block_size):
    import torch.nn.functional as F
    (qb, kb), (B, H, Q, K) = block_size, mask_BHQK.shape
    nq, nk = (Q + qb - 1) // qb, (K + kb - 1) // kb
    padded = F.pad(mask_BHQK, (0, nk * kb - K, 0, nq * qb - Q))
    count = padded.reshape(B, H, nq, qb, nk, kb).sum(dim=(3, 5))
    rows = (Q - torch.arange(nq) * qb).clamp(max=qb)[:, None]
    full = count == rows * kb
    return (count > 0) ^ full, full
""",
    ),
    Alternative(
        "1.7",
        "pooling",
        """
def classify_blocks(mask_BHQK, block_size):
    import torch.nn.functional as F
    (qb, kb), (B, H, Q, K) = block_size, mask_BHQK.shape
    x = mask_BHQK.float()
    some = F.max_pool2d(F.pad(x, (0, -K % kb, 0, -Q % qb)), (qb, kb)) > 0
    x = F.pad(F.pad(x, (0, -K % kb), value=0.0), (0, 0, 0, -Q % qb), value=1.0)
    full = -F.max_pool2d(-x, (qb, kb)) > 0
    return [some.logical_and(full.logical_not()), full]
""",
    ),
    # ------------------------------------------------------------------ 1.8
    Alternative(
        "1.8",
        "dense",
        """
def visible_blocks(first_BQ, last_BQ, n_key_blocks, block_size):
    key = torch.arange(n_key_blocks * block_size[1])
    dense = (first_BQ[..., None] <= key) & (key <= last_BQ[..., None])
    partial, full = classify_blocks(dense[:, None], block_size)
    return partial[:, 0], full[:, 0]
""",
    ),
    Alternative(
        "1.8",
        "each query by itself",
        """
def visible_blocks(first_BQ, last_BQ, n_key_blocks, block_size):
    qb, kb = block_size
    start = torch.arange(n_key_blocks) * kb
    first, last = first_BQ[..., None], last_BQ[..., None]
    reads = (first <= last) & (first < start + kb) & (last >= start)
    covers = (first <= start) & (last >= start + kb - 1)
    some = torch.stack([part.any(1) for part in reads.split(qb, dim=1)], dim=1)
    full = torch.stack([part.all(1) for part in covers.split(qb, dim=1)], dim=1)
    return some & ~full, full
""",
    ),
    Alternative(
        "1.8",
        "block numbers",
        """
def visible_blocks(first_BQ, last_BQ, n_key_blocks, block_size):
    qb, kb = block_size
    B, Q = first_BQ.shape
    n = -(-Q // qb)
    partial = torch.zeros(B, n, n_key_blocks, dtype=torch.bool)
    full = torch.zeros_like(partial)
    for b in range(B):
        for i in range(n):
            spans = list(zip(first_BQ[b, i * qb : i * qb + qb].tolist(), last_BQ[b, i * qb : i * qb + qb].tolist()))
            for f, last in spans:
                if f <= last:
                    partial[b, i, f // kb : last // kb + 1] = True
            begin, end = -(-max(f for f, _ in spans) // kb), (min(last for _, last in spans) + 1) // kb
            if begin < end:
                full[b, i, begin:end] = True
    return partial & ~full, full
""",
    ),
    # ------------------------------------------------------------------ 1.9
    Alternative(
        "1.9",
        "constructor",
        """
def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):
    def listed(blocks):
        return blocks.sum(-1).to(torch.int32), torch.argsort((~blocks).int(), dim=-1).to(torch.int32)
    counts, indices = listed(partial_BHQK)
    full_counts, full_indices = listed(full_BHQK)
    return BlockMask(
        seq_lengths=seq_lengths, kv_num_blocks=counts, kv_indices=indices, full_kv_num_blocks=full_counts,
        full_kv_indices=full_indices, q_num_blocks=None, q_indices=None, full_q_num_blocks=None, full_q_indices=None,
        BLOCK_SIZE=block_size, mask_mod=mask_mod,
    )
""",
    ),
    Alternative(
        "1.9",
        "loops, last block first, zeros behind",
        """
def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):
    def listed(blocks):
        B, H, n, m = blocks.shape
        counts = torch.zeros(B, H, n, dtype=torch.int32)
        indices = torch.zeros(B, H, n, m, dtype=torch.int32)
        for b in range(B):
            for h in range(H):
                for i in range(n):
                    names = blocks[b, h, i].nonzero().flatten().tolist()[::-1]
                    counts[b, h, i] = len(names)
                    indices[b, h, i, : len(names)] = torch.tensor(names, dtype=torch.int32)
        return counts, indices
    return BlockMask.from_kv_blocks(
        *listed(partial_BHQK), *listed(full_BHQK), block_size, mask_mod, seq_lengths=seq_lengths
    )
""",
    ),
    Alternative(
        "1.9",
        "topk, with the transposed lists",
        """
def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):
    lists = []
    for blocks in (partial_BHQK, full_BHQK):
        lists += [blocks.int().sum(-1).int(), blocks.int().topk(blocks.shape[-1], dim=-1).indices.int()]
    wrapped = lambda b, h, q_idx, kv_idx: mask_mod(b, h, q_idx, kv_idx)
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=tuple(block_size), mask_mod=wrapped, seq_lengths=seq_lengths)
""",
    ),
    Alternative(
        "1.9",
        "cumsum and scatter, garbage behind",
        """
def block_mask_from_blocks(partial_BHQK, full_BHQK, mask_mod, block_size, seq_lengths):
    def listed(m):
        n = m.shape[-1]
        place = (m.cumsum(-1) - 1).where(m, n)
        out = torch.full((*m.shape[:-1], n + 1), n - 1)
        out.scatter_(-1, place, torch.arange(n).expand(m.shape))
        return m.sum(-1).int(), out[..., :n].contiguous().int()
    pc, pi = listed(partial_BHQK)
    fc, fi = listed(full_BHQK)
    return BlockMask.from_kv_blocks(
        pc, pi, fc, fi, BLOCK_SIZE=block_size, mask_mod=mask_mod, seq_lengths=seq_lengths, compute_q_blocks=False
    )
""",
    ),
    # ------------------------------------------------------------------ 1.10
    Alternative(
        "1.10",
        "steps",
        """
def soft_cap(cap):
    def score_mod(score, b, h, q_idx, kv_idx):
        score = score / cap
        score = torch.tanh(score)
        return score * cap
    return score_mod
""",
    ),
    Alternative(
        "1.10",
        "in place",
        "def soft_cap(cap):\n    return lambda score, b, h, q, k: score.div(cap).tanh_().mul_(cap)\n",
    ),
    Alternative(
        "1.10",
        "sigmoid",
        "def soft_cap(cap):\n    return lambda score, b, h, q, k: cap * (2 * torch.sigmoid(2 * score / cap) - 1)\n",
    ),
    Alternative(
        "1.10",
        "captured tensor",
        "def soft_cap(cap):\n    c = torch.tensor(cap)\n"
        "    return lambda score, *indices: c * torch.tanh(score * c.reciprocal())\n",
    ),
]
