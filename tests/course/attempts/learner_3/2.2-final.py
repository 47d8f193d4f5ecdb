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
    n_queries, n_keys = block_mask.seq_lengths
    query_block, key_block = block_mask.BLOCK_SIZE
    T, n_blocks = min(query_block, n_queries), -(-n_keys // key_block)
    partial_BQK = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n_blocks)
    full_BQK = torch.zeros_like(partial_BQK)
    if block_mask.full_kv_num_blocks is not None:
        full_BQK = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_blocks)
    B, QB, _ = partial_BQK.shape
    device = partial_BQK.device

    listed_BQK = partial_BQK | full_BQK
    count_BQ1 = listed_BQK.sum(dim=-1, keepdim=True)
    most = max(int(count_BQ1.max()), 1)
    counted_BQW = torch.arange(most, device=device) < count_BQ1
    block_BQW = listed_BQK.int().argsort(dim=-1, descending=True, stable=True)[..., :most].where(counted_BQW, 0)
    full_BQW = full_BQK.gather(-1, block_BQW) & counted_BQW
    counted_BQ1K = counted_BQW.repeat_interleave(key_block, dim=-1)[:, :, None]
    full_BQ1K = full_BQW.repeat_interleave(key_block, dim=-1)[:, :, None]
    key_BQ1K = (block_BQW[..., None] * key_block + torch.arange(key_block, device=device)).flatten(2)[:, :, None]
    exists_BQ1K = key_BQ1K < n_keys
    key_BQ1K = key_BQ1K.clamp(max=n_keys - 1)

    b = torch.arange(B, device=device)[:, None, None, None]
    h = torch.zeros((), dtype=torch.int64, device=device)
    query = torch.arange(QB, device=device)[:, None] * query_block + torch.arange(T, device=device)
    query_QT1 = query.clamp(max=n_queries - 1)[..., None]
    allowed_BQTK = block_mask.mask_mod(b, h, query_QT1, key_BQ1K)
    visible_BQTK = ((allowed_BQTK | full_BQ1K) & counted_BQ1K & exists_BQ1K).expand(B, QB, T, most * key_block)
    return GatherMask(key_BQ1K.reshape(B * QB, -1), visible_BQTK.reshape(B * QB, T, -1))
