def dense_mask(mask_mod: MaskMod, B: int, H: int, Q: int, K: int, device: torch.device | str = "cpu") -> Tensor:
    """The whole mask as a tensor, to look at and to compare with: it costs B·H·Q·K bytes.  [1.6 · ★★☆ · 10 min]

    Args:
        mask_mod: the mask.
        B, H, Q, K: batch rows, heads, queries and keys; the mask is asked for every index below these.
        device: where the index tensors, and so the result, live.

    Returns:
        bool tensor [B, H, Q, K], also where the mask does not depend on b or h.

    >>> dense_mask(causal, 1, 1, 2, 3).int().tolist()
    [[[[1, 0, 0], [1, 1, 0]]]]
    """
    b, h, q, k = (torch.arange(n, device=device) for n in (B, H, Q, K))
    dense = torch.empty(B, H, Q, K, dtype=torch.bool, device=device)
    dense[...] = mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k)
    return dense
