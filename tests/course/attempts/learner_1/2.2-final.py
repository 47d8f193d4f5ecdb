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
    Q, K = block_mask.seq_lengths
    q_block, k_block = block_mask.BLOCK_SIZE
    n_blocks = -(-K // k_block)
    device = block_mask.kv_indices.device

    partial = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n_blocks)
    full = torch.zeros_like(partial)
    if block_mask.full_kv_num_blocks is not None:
        full = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_blocks)
    listed = partial | full
    counts = listed.sum(dim=-1)  # [B, query blocks]
    most = max(1, int(counts.max()))
    B, q_blocks = counts.shape

    # The listed blocks first, in ascending order; block 0 where a row has fewer.
    block = (~listed).to(torch.uint8).argsort(dim=-1, stable=True)[..., :most]
    block = block.where(torch.arange(most, device=device) < counts[..., None], 0)
    unlisted = torch.arange(most, device=device) >= counts[..., None]
    asked = partial.gather(-1, block) & ~unlisted
    sure = full.gather(-1, block) & ~unlisted

    def per_key(each: Tensor) -> Tensor:
        """[B, query blocks, blocks] -> [B, query blocks, 1, keys]."""
        return each.repeat_interleave(k_block, dim=-1)[:, :, None]

    place = torch.arange(k_block, device=device).repeat(most)
    address = per_key(block * k_block) + place
    exists = address < K
    address = address.clamp(max=K - 1)

    T = min(q_block, Q)
    q_idx = torch.arange(q_blocks, device=device)[:, None] * q_block + torch.arange(T, device=device)
    q_idx = q_idx.clamp(max=Q - 1)[:, :, None]  # what sticks out of the last block is cut off after attention
    b = torch.arange(B, device=device)[:, None, None, None]
    allowed = block_mask.mask_mod(b, torch.zeros_like(b), q_idx, address)
    visible = (per_key(sure) | (per_key(asked) & allowed)) & exists
    visible = visible.expand(B, q_blocks, T, most * k_block)
    return GatherMask(address_RK=address.flatten(0, 2), visible_RTK=visible.flatten(0, 1))
