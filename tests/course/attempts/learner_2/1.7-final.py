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
    per_q, per_k = block_size
    B, H, Q, K = mask_BHQK.shape
    n_q, n_k = math.ceil(Q / per_q), math.ceil(K / per_k)
    device = mask_BHQK.device
    block_of_Q = torch.arange(Q, device=device).div(per_q, rounding_mode="floor")
    block_of_K = torch.arange(K, device=device).div(per_k, rounding_mode="floor")

    # How many readable entries each block has, and how many it needs to be full: keys that don't exist count as unreadable.
    count = torch.zeros(B, H, n_q, K, dtype=torch.int64, device=device).index_add_(2, block_of_Q, mask_BHQK.long())
    count = torch.zeros(B, H, n_q, n_k, dtype=torch.int64, device=device).index_add_(3, block_of_K, count)
    needed_Q = torch.bincount(block_of_Q, minlength=n_q)[:, None] * per_k

    full = count == needed_Q
    return (count > 0) & ~full, full
