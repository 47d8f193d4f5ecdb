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
    (per_q, per_k), (B, H, Q, K) = block_size, mask_BHQK.shape
    n_q, n_k = -(-Q // per_q), -(-K // per_k)
    dev = mask_BHQK.device
    in_q = torch.nn.functional.one_hot(torch.arange(Q, device=dev) // per_q, n_q)
    in_k = torch.nn.functional.one_hot(torch.arange(K, device=dev) // per_k, n_k)
    count = torch.einsum("bhqk,qi,kj->bhij", mask_BHQK.long(), in_q, in_k)
    full = count == in_q.sum(0)[:, None] * per_k
    return (count > 0) ^ full, full
