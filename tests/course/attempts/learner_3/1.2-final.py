def sliding_window(window: int) -> MaskMod:
    """A query reads at most `window` keys: itself and the `window - 1` before it.  [1.2 · ★☆☆ · 10 min]

    The mask bounds only the distance backwards; combine it with `causal` to keep the future out.

    Args:
        window: number of keys, the query's own included; at least 1.

    Returns:
        A `mask_mod`, True where `q_idx - kv_idx` is below `window`.

    Raises:
        ValueError: `window` is below 1.

    >>> sliding_window(2)(None, None, torch.tensor(5), torch.tensor([3, 4, 5])).tolist()
    [False, True, True]

    Source: Beltagy et al., "Longformer", 2020, §3.1; the count follows Hugging Face transformers.
    """
    if window < 1:
        raise ValueError(f"window is {window}, but must be at least 1")

    def near(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return q_idx - kv_idx < window

    return near
