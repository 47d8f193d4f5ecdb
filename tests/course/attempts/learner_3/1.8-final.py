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
    rows, columns = block_size
    start_K = torch.arange(n_key_blocks, device=first_BQ.device) * columns
    end_K = start_K + columns - 1
    first_BQ1, last_BQ1 = first_BQ[..., None], last_BQ[..., None]
    reached_BQK = (first_BQ1 <= last_BQ1) & (first_BQ1 <= end_K) & (last_BQ1 >= start_K)
    covered_BQK = (first_BQ1 <= start_K) & (last_BQ1 >= end_K)
    missing = -first_BQ.shape[1] % rows
    reached_BQK = torch.nn.functional.pad(reached_BQK, (0, 0, 0, missing), value=False)
    covered_BQK = torch.nn.functional.pad(covered_BQK, (0, 0, 0, missing), value=True)
    reached = reached_BQK.unflatten(1, (-1, rows)).any(dim=2)
    full = covered_BQK.unflatten(1, (-1, rows)).all(dim=2)
    return reached & ~full, full
