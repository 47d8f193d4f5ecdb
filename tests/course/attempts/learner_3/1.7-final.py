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
    B, H, Q, K = mask_BHQK.shape
    rows, columns = block_size
    pad_q, pad_k = -Q % rows, -K % columns

    def blocks(value: bool) -> Tensor:
        padded = torch.nn.functional.pad(mask_BHQK, (0, pad_k), value=False)
        padded = torch.nn.functional.pad(padded, (0, 0, 0, pad_q), value=value)
        return padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows)).transpose(3, 4).flatten(4)

    full = blocks(True).all(dim=-1)
    return blocks(False).any(dim=-1) & ~full, full
