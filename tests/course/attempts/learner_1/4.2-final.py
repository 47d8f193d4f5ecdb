def kv_bytes_per_token(layers: Iterable[LayerSpec], dtype: torch.dtype) -> int:
    """What one token costs in the cache, over all layers.  [4.2 · ★☆☆ · 10 min]

    Args:
        layers: each with `kv_heads`, `head_dim` and `value_head_dim`, as the model uses them.
        dtype: of the cache; `dtype.itemsize` is the bytes of one number.

    Returns:
        Bytes.  A layer stores one key and one value for each head of keys, however many heads the queries have.

    >>> from types import SimpleNamespace
    >>> layer = SimpleNamespace(kv_heads=8, head_dim=128, value_head_dim=128)
    >>> kv_bytes_per_token([layer] * 32, torch.bfloat16)  # 128 KiB a token
    131072
    """
    numbers = 0
    for layer in layers:
        numbers += layer.kv_heads * (layer.head_dim + layer.value_head_dim)
    return numbers * dtype.itemsize
