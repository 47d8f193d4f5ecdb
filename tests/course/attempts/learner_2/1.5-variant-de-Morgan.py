def any_of(*mask_mods: MaskMod) -> MaskMod:
    """The union of masks: a key is read where one of them allows it.  [1.5 · ★☆☆ · 5 min]

    Args:
        mask_mods: one `mask_mod` or more.

    Returns:
        A `mask_mod`.  As in `all_of`, the answers may have different shapes that broadcast.

    Raises:
        ValueError: no mask given.

    >>> def sink(b, h, q_idx, kv_idx): return kv_idx < 1
    >>> any_of(sink, sliding_window(2))(None, None, torch.tensor(3), torch.tensor([0, 1, 2, 3])).tolist()
    [True, False, True, True]
    """
    if not mask_mods:
        raise ValueError("no mask")
    def mod(*where):
        none = torch.tensor(True)
        for m in mask_mods:
            none = none & ~m(*where)
        return ~none
    return mod
