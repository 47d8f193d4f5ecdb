def visible_blocks(
    first_BQ: Tensor, last_BQ: Tensor, n_key_blocks: int, block_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The same without the dense mask, where each query reads an interval of keys.  [1.8 · ★★★ · 20 min]

    Causal, windowed and packed masks, alone or combined, all let query q read exactly the keys first[q] … last[q], and
    intervals of neighbouring queries overlap or touch.  So two numbers a query say all: a block of keys is read by a
    block of queries if one of the intervals reaches it, and it is full if every interval covers it.

    Args:
        first_BQ, last_BQ: integer tensors [B, Q], first and last key that a query reads.  first > last: it reads none.
            Neither need ascend from one query to the next.
        n_key_blocks: number of blocks of keys.
        block_size: queries and keys in a block.  Q need not be a multiple; missing queries do not count.

    Returns:
        (partial, full): bool tensors [B, ceil(Q / block_size[0]), n_key_blocks].

    >>> partial, full = visible_blocks(torch.tensor([[0]]), torch.tensor([[5]]), 3, (1, 4))
    >>> partial.int().tolist(), full.int().tolist()  # six keys, blocks of four: one full, one partial, one not read
    ([[[0, 1, 0]]], [[[1, 0, 0]]])
    """
    (per_q, per_k), (B, Q) = block_size, first_BQ.shape
    n_q = -(-Q // per_q)
    partial = torch.zeros(B, n_q, n_key_blocks, dtype=torch.bool, device=first_BQ.device)
    full = torch.zeros_like(partial)
    firsts, lasts = first_BQ.tolist(), last_BQ.tolist()
    for b in range(B):
        for i in range(n_q):
            touched, covered = set(), set(range(n_key_blocks))
            for q in range(i * per_q, min(Q, (i + 1) * per_q)):
                f, l = firsts[b][q], lasts[b][q]
                mine = {j for j in range(n_key_blocks) if f <= l and f < (j + 1) * per_k and l >= j * per_k}
                touched |= mine
                covered &= {j for j in mine if f <= j * per_k and l >= (j + 1) * per_k - 1}
            full[b, i, list(covered)] = True
            partial[b, i, list(touched - covered)] = True
    return partial, full
