def attach_caches(
    layers: Iterable[LayerSpec], tables: Mapping[int | None, PageTable], dtype: torch.dtype
) -> list[PagedKVCache]:
    """Give each attention layer of a model a cache of its own, as `module.kv_cache`.  [4.4 · ★★☆ · 10 min]

    Args:
        layers: what the probe found; `module` is the attention module, the other fields are the cache's sizes and window.
        tables: the page table of each group of layers, by their window (None: they read everything).  A cache lives on
            the device of its table (`page_table.page_table.device`).
        dtype: of the caches.

    Returns:
        The caches in the order of the layers.
    """
    caches = []
    for layer in layers:
        table = tables[layer.window]
        layer.module.kv_cache = PagedKVCache(
            table,
            kv_heads=layer.kv_heads,
            head_dim=layer.head_dim,
            value_head_dim=layer.value_head_dim,
            window=layer.window,
            dtype=dtype,
            device=table.page_table.device,
        )
        caches.append(layer.module.kv_cache)
    return caches
