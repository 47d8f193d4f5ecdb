def gather_mask(block_mask: BlockMask) -> GatherMask:
    """Work out which keys each block of queries reads.  [2.2 · ★★★ · 30 min]

    For each block of queries the blocks of keys that it lists, partial or full, are put side by side.  Rows that list fewer
    are filled up with block 0, which they don't see.  Entries of a full block are visible without asking, entries of a
    partial one if the mask_mod says so, all others are not.

    Args:
        block_mask: B rows, one head, any number of queries.

    Returns:
        GatherMask with R = B × query blocks, batch row by batch row; T = the block's queries, at most Q;
        K = (most blocks that a row lists, at least 1) × block size.  Keys beyond the sequence length are not visible.
    """
    (Q, K_all), (per_q, per_k) = block_mask.seq_lengths, block_mask.BLOCK_SIZE
    B, _, n_q = block_mask.kv_num_blocks.shape
    n_k, device = -(-K_all // per_k), block_mask.kv_num_blocks.device
    partial = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n_k).flatten(0, 1)
    full = torch.zeros_like(partial)
    if block_mask.full_kv_num_blocks is not None:
        full = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_k).flatten(0, 1)
    either = partial | full
    widest = max(1, int(either.sum(dim=1).max()))
    R = B * n_q
    # Scatter each listed block to its place in the row; what is not listed goes to a column that is cut off.
    place = (either.cumsum(dim=1) - 1).where(either, widest)
    number = torch.arange(n_k, device=device).expand(R, n_k)
    block_RW = torch.zeros(R, widest + 1, dtype=torch.int64, device=device).scatter_(1, place, number)[:, :widest]
    used_RW = torch.arange(widest, device=device) < either.sum(dim=1, keepdim=True)

    inside = torch.arange(per_k, device=device)
    address_RK = (block_RW[..., None] * per_k + inside).flatten(1)
    in_range_RK = address_RK < K_all
    address_RK = address_RK.clamp(max=K_all - 1)
    full_RK = (full.gather(1, block_RW) & used_RW).repeat_interleave(per_k, dim=1) & in_range_RK
    partial_RK = (partial.gather(1, block_RW) & used_RW).repeat_interleave(per_k, dim=1) & in_range_RK

    row_R11 = torch.arange(R, device=device)[:, None, None]
    q_RT1 = (row_R11 % n_q) * per_q + torch.arange(min(per_q, Q), device=device)[:, None]
    asked_RTK = block_mask.mask_mod(
        row_R11 // n_q, torch.zeros_like(row_R11), q_RT1.clamp(max=Q - 1), address_RK[:, None]
    )
    return GatherMask(address_RK, full_RK[:, None] | (partial_RK[:, None] & asked_RTK))
