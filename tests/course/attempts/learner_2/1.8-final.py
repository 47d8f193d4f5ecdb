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
    per_q, per_k = block_size
    B, Q = first_BQ.shape
    n_q = -(-Q // per_q)
    first_BQ, last_BQ = first_BQ.long(), last_BQ.long()
    block_of_Q = torch.arange(Q, device=first_BQ.device) // per_q

    def how_many(begin_BQ: Tensor, end_BQ: Tensor) -> Tensor:
        """For each block of queries and of keys: how many of the queries have the key block in begin … end - 1."""
        begin_BQ, end_BQ = begin_BQ.clamp(0, n_key_blocks), end_BQ.clamp(0, n_key_blocks)
        one_BQ = (begin_BQ < end_BQ).long()
        # A step up where an interval begins and a step down where it ends; the running sum is the number of open intervals.
        steps = torch.zeros(B, n_q * (n_key_blocks + 1), dtype=torch.int64, device=begin_BQ.device)
        row_Q = block_of_Q * (n_key_blocks + 1)
        steps.scatter_add_(1, row_Q + begin_BQ, one_BQ)
        steps.scatter_add_(1, row_Q + end_BQ, -one_BQ)
        return steps.view(B, n_q, n_key_blocks + 1).cumsum(-1)[..., :n_key_blocks]

    reads_BQ = first_BQ <= last_BQ
    begin_BQ = first_BQ // per_k
    end_BQ = (last_BQ // per_k + 1).where(reads_BQ, begin_BQ)
    readers = how_many(begin_BQ, end_BQ)
    covered = how_many(-(-first_BQ // per_k), (last_BQ + 1) // per_k)

    full = covered == torch.bincount(block_of_Q, minlength=n_q)[:, None]
    return (readers > 0) & ~full, full
