def all_of(*mask_mods: MaskMod) -> MaskMod:
    """The intersection of masks: a key is read where every one of them allows it.  [1.4 · ★☆☆ · 5 min]

    Args:
        mask_mods: one `mask_mod` or more.

    Returns:
        A `mask_mod`.  Use tensor operators (`&`), not `and`: FlexAttention traces the function with tensors.  The masks'
        answers may have different shapes that broadcast: one that looks at the key alone gives [K].

    Raises:
        ValueError: no mask given.

    >>> both = all_of(causal, sliding_window(2))
    >>> both(None, None, torch.tensor(2), torch.tensor([0, 1, 2, 3])).tolist()
    [False, True, True, False]
    """
    if not mask_mods:
        raise ValueError("all_of needs at least one mask")

    def intersection(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        allowed = mask_mods[0](b, h, q_idx, kv_idx)
        for mask_mod in mask_mods[1:]:
            allowed = allowed & mask_mod(b, h, q_idx, kv_idx)
        return allowed

    return intersection
