"""Other right answers in module 04."""

from planting import Alternative

UPDATE = """
def update(self, input_pos: Tensor, k: Tensor, v: Tensor, batch_idx: Tensor) -> tuple[Tensor, Tensor]:
"""
PER_TOKEN = "\ndef kv_bytes_per_token(layers: Iterable[LayerSpec], dtype: torch.dtype) -> int:\n"
BUDGET = """
def pages_for_budget(
    free_bytes: int, bytes_per_token: int, page_size: int, max_batch_size: int, max_seq_length: int
) -> int:
"""
ATTACH = """
def attach_caches(
    layers: Iterable[LayerSpec], tables: Mapping[int | None, PageTable], dtype: torch.dtype
) -> list[PagedKVCache]:
"""
ROOFLINE = """
def least_step_seconds(
    machine: Machine,
    weights: int,
    bytes_per_weight: int,
    new_tokens: int,
    cached_tokens: int,
    kv_bytes_per_token: int,
) -> float:
"""

ALTERNATIVES = [
    Alternative(
        "4.1",
        "by the dimensions of the positions",
        UPDATE
        + """
    table = self.page_table
    prefill = input_pos.dim() > 1
    if not prefill:
        table.assign(
            batch_idx=batch_idx,
            input_pos=input_pos.unsqueeze(1),
            k=k,
            v=v,
            k_cache=self.k_cache,
            v_cache=self.v_cache,
        )
    else:
        table.assign_prefill_no_paging(batch_idx, input_pos, k, v, self.k_cache, self.v_cache)
    return (k, v) if prefill else (self.k_cache, self.v_cache)
""",
    ),
    Alternative(
        "4.1",
        "writes by itself",
        UPDATE
        + """
    at = self.page_table.address(batch_idx, input_pos).flatten()
    for pool, new in ((self.k_cache, k), (self.v_cache, v)):
        pool.index_copy_(2, at, new if batch_idx.ndim == 2 else new.permute(2, 1, 0, 3))
    if batch_idx.ndim == 2:
        return k, v
    return self.k_cache, self.v_cache
""",
    ),
    Alternative(
        "4.1",
        "token by token, padding left out, copies of what came",
        UPDATE
        + """
    slots, positions = batch_idx.flatten().tolist(), input_pos.flatten()
    for i, slot in enumerate(slots):
        if slot == 0:
            continue
        at = int(self.page_table.address(torch.tensor(slot), positions[i]))
        self.k_cache[0, :, at] = k[0, :, i] if batch_idx.ndim == 2 else k[i, :, 0]
        self.v_cache[0, :, at] = v[0, :, i] if batch_idx.ndim == 2 else v[i, :, 0]
    return (k.clone(), v.clone()) if batch_idx.ndim == 2 else (self.k_cache, self.v_cache)
""",
    ),
    Alternative(
        "4.2",
        "in a loop",
        PER_TOKEN
        + """
    total = 0
    for layer in layers:
        key = layer.kv_heads * layer.head_dim * dtype.itemsize
        value = layer.kv_heads * layer.value_head_dim * dtype.itemsize
        total += key + value
    return total
""",
    ),
    Alternative(
        "4.2",
        "by the size of a tensor",
        PER_TOKEN
        + """
    size = torch.empty(0, dtype=dtype).element_size()
    return sum((layer.head_dim + layer.value_head_dim) * size * layer.kv_heads for layer in list(layers))
""",
    ),
    Alternative(
        "4.3",
        "the sink's bytes first",
        BUDGET
        + """
    page = page_size * bytes_per_token
    usable = (free_bytes - page) // page
    if usable <= 0:
        raise MemoryError(f"{free_bytes} bytes do not hold a page and the sink")
    longest = (max_seq_length + page_size - 1) // page_size
    return min(max_batch_size * longest, usable)
""",
    ),
    Alternative(
        "4.3",
        "divmod",
        BUDGET
        + """
    pages, _rest = divmod(free_bytes, bytes_per_token * page_size)
    full, rest = divmod(max_seq_length, page_size)
    needed = max_batch_size * (full + bool(rest))
    if pages >= needed + 1:
        return needed
    if pages < 2:
        raise MemoryError
    return pages - 1
""",
    ),
    Alternative(
        "4.4",
        "a list first",
        ATTACH
        + """
    layers = list(layers)
    caches = [
        PagedKVCache(
            page_table=tables[layer.window],
            kv_heads=layer.kv_heads,
            head_dim=layer.head_dim,
            value_head_dim=layer.value_head_dim,
            window=layer.window,
            dtype=dtype,
            device=tables[layer.window].page_table.device,
        )
        for layer in layers
    ]
    for layer, cache in zip(layers, caches, strict=True):
        setattr(layer.module, "kv_cache", cache)
    return caches
""",
    ),
    Alternative(
        "4.4",
        "read back from the modules",
        ATTACH
        + """
    attached = []
    for spec in layers:
        table = tables.get(spec.window)
        device = table.page_table.device
        sizes = dict(kv_heads=spec.kv_heads, head_dim=spec.head_dim, value_head_dim=spec.value_head_dim)
        spec.module.kv_cache = PagedKVCache(table, **sizes, window=spec.window, dtype=dtype, device=device)
        spec.module.kv_cache.k_cache.zero_()
        attached += [spec.module.kv_cache]
    return attached
""",
    ),
    Alternative(
        "4.5",
        "two branches",
        ROOFLINE
        + """
    memory = (bytes_per_weight * weights + kv_bytes_per_token * cached_tokens) / machine.bytes_per_second
    arithmetic = weights * new_tokens * 2.0 / machine.flops_per_second
    if arithmetic > memory:
        return arithmetic
    return memory
""",
    ),
    Alternative(
        "4.5",
        "by intensity",
        ROOFLINE
        + """
    n_bytes = weights * bytes_per_weight + cached_tokens * kv_bytes_per_token
    n_operations = new_tokens * 2 * weights
    ridge = machine.flops_per_second / machine.bytes_per_second
    bound_by_memory = n_operations / n_bytes <= ridge
    return n_bytes / machine.bytes_per_second if bound_by_memory else n_operations / machine.flops_per_second
""",
    ),
]
