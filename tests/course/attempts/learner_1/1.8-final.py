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
    q_block, k_block = block_size
    B, Q = first_BQ.shape
    q_blocks = -(-Q // q_block)
    first, last = first_BQ.long(), last_BQ.long()
    query = torch.arange(Q, device=first.device)

    def readers(start_BQ: Tensor, stop_BQ: Tensor) -> Tensor:
        """[B, q_blocks, n_key_blocks]: how many queries count key block k, that is have start <= k < stop."""
        start = start_BQ.clamp(0, n_key_blocks)
        stop = torch.maximum(stop_BQ.clamp(0, n_key_blocks), start)
        # One more from `start` on, one fewer from `stop` on: the running sum is the number of queries.
        change = torch.zeros(B, q_blocks * (n_key_blocks + 1), dtype=torch.int64, device=first.device)
        offset = query // q_block * (n_key_blocks + 1)
        one = torch.ones_like(start)
        change.scatter_add_(1, offset + start, one).scatter_add_(1, offset + stop, -one)
        return change.view(B, q_blocks, n_key_blocks + 1).cumsum(dim=-1)[..., :n_key_blocks]

    touched_from = first.div(k_block, rounding_mode="floor")
    touched_to = torch.where(first <= last, last.div(k_block, rounding_mode="floor") + 1, touched_from)
    covered_from = (first + k_block - 1).div(k_block, rounding_mode="floor")
    covered_to = (last + 1).div(k_block, rounding_mode="floor")

    queries = (Q - torch.arange(q_blocks, device=first.device) * q_block).clamp(max=q_block)
    full = readers(covered_from, covered_to) == queries[:, None]
    return (readers(touched_from, touched_to) > 0) & ~full, full
