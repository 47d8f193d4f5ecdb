def classify_blocks(mask_BHQK: Tensor, block_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut a dense mask into blocks and sort them into partial and full ones; the rest is empty.  [1.7 · ★★☆ · 15 min]

    An empty block is skipped by the kernel, a full one is computed without asking the mask, a partial one asks for each
    entry.  Queries beyond Q in the last row of blocks do not exist and do not count; keys beyond K in the last column
    cannot be read, so a block that sticks out of the mask on that side is never full.

    Args:
        mask_BHQK: bool tensor [B, H, Q, K].
        block_size: queries and keys in a block.

    Returns:
        (partial, full): bool tensors [B, H, ceil(Q / block_size[0]), ceil(K / block_size[1])].

    >>> partial, full = classify_blocks(dense_mask(causal, 1, 1, 4, 4), (2, 2))
    >>> partial[0, 0].int().tolist(), full[0, 0].int().tolist()
    ([[1, 0], [0, 1]], [[0, 0], [1, 0]])
    """
    q_block, k_block = block_size
    B, H, Q, K = mask_BHQK.shape
    q_blocks, k_blocks = -(-Q // q_block), -(-K // k_block)
    padded = mask_BHQK.new_zeros(B, H, q_blocks * q_block, k_blocks * k_block)
    padded[:, :, :Q, :K] = mask_BHQK
    # Count what each block lets through, and compare with what it could: queries that exist times keys of a whole block.
    readable = padded.view(B, H, q_blocks, q_block, k_blocks, k_block).sum(dim=(3, 5))
    first_query = torch.arange(q_blocks, device=mask_BHQK.device) * q_block
    possible = (Q - first_query).clamp(max=q_block) * k_block
    full = readable == possible[:, None]
    return (readable > 0) & ~full, full
