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
    def listing(blocks_BHQK: Tensor) -> tuple[Tensor, Tensor]:
        """Counts and lists: each listed block is scattered to its place, all others to a column that is cut off."""
        n = blocks_BHQK.shape[-1]
        upto_BHQK = blocks_BHQK.cumsum(dim=-1)
        place_BHQK = torch.where(blocks_BHQK, upto_BHQK - 1, n)
        number = torch.arange(n, dtype=torch.int32, device=blocks_BHQK.device).expand_as(blocks_BHQK)
        lists = number.new_zeros(*blocks_BHQK.shape[:-1], n + 1).scatter_(-1, place_BHQK, number)
        return blocks_BHQK.sum(dim=-1, dtype=torch.int32), lists[..., :n].contiguous()

    counts_and_lists = [*listing(partial_BHQK), *listing(full_BHQK)]
    return BlockMask.from_kv_blocks(
        *counts_and_lists,
        BLOCK_SIZE=tuple(block_size),
        mask_mod=mask_mod,
        seq_lengths=tuple(seq_lengths),
        compute_q_blocks=False,
    )
