def block_mask_from_blocks(
    partial_BHQK: Tensor,
    full_BHQK: Tensor,
    mask_mod: MaskMod,
    block_size: tuple[int, int],
    seq_lengths: tuple[int, int],
) -> BlockMask:
    """Build FlexAttention's `BlockMask` by hand from two maps of blocks.  [1.9 · ★★☆ · 15 min]

    A BlockMask lists, for each row of query blocks, how many key blocks it reads and which: once for the partial blocks
    (`kv_num_blocks`, `kv_indices`), once for the full ones (`full_kv_num_blocks`, `full_kv_indices`).  The counts are
    int32 [B, H, query blocks], the lists int32 [B, H, query blocks, key blocks] with the listed blocks first; what
    stands behind them is not read but must be a valid block number.  All four must be given, also when all is zero:
    the CPU kernel does not compile without them.

    Args:
        partial_BHQK, full_BHQK: bool tensors [B, H, query blocks, key blocks]; no block is in both.  A block goes into the
            list of its own map and into no other.
        mask_mod: asked for each entry of the partial blocks.
        block_size: queries and keys in a block.
        seq_lengths: queries and keys in tokens.

    Returns:
        A BlockMask for the forward pass (without the transposed lists that only a backward pass needs).

    >>> partial, full = classify_blocks(dense_mask(causal, 1, 1, 4, 4), (2, 2))
    >>> mask = block_mask_from_blocks(partial, full, causal, (2, 2), (4, 4))
    >>> mask.kv_num_blocks.tolist(), mask.full_kv_num_blocks.tolist(), mask.full_kv_indices[0, 0, 1, 0].item()
    ([[[1, 1]]], [[[0, 1]]], 0)
    """
    def lists(m):
        B, H, Q, K = m.shape
        n, idx = torch.zeros(B, H, Q, dtype=torch.int32), torch.zeros(B, H, Q, K, dtype=torch.int32)
        for b, h, q, k in m.nonzero().tolist():
            idx[b, h, q, n[b, h, q]] = k
            n[b, h, q] += 1
        return n.to(m.device), idx.to(m.device)
    return BlockMask(seq_lengths, *lists(partial_BHQK), *lists(full_BHQK), None, None, None, None, BLOCK_SIZE=block_size, mask_mod=mask_mod)
