"""Mistakes in module 04, as edits of the reference or as functions of their own."""

from planting import Planted

UPDATE = """
def update(self, input_pos: Tensor, k: Tensor, v: Tensor, batch_idx: Tensor) -> tuple[Tensor, Tensor]:
    table, pools = self.page_table, (self.k_cache, self.v_cache)
"""
PREFILL = "self.page_table.assign_prefill_no_paging(batch_idx, input_pos, k, v, self.k_cache, self.v_cache)"
DECODE = "self.page_table.assign(batch_idx, input_pos[:, None], k, v, self.k_cache, self.v_cache)"

UPDATES = [
    Planted("4.1", "pool-in-prefill", old="return k, v", new="return self.k_cache, self.v_cache"),
    Planted(
        "4.1",
        "pool-in-prefill",
        note="one return for both",
        code=UPDATE
        + """
    if batch_idx.dim() > 1:
        table.assign_prefill_no_paging(batch_idx, input_pos, k, v, *pools)
    else:
        table.assign(batch_idx, input_pos.unsqueeze(-1), k, v, *pools)
    return pools
""",
    ),
    Planted("4.1", "fresh-in-decode", old="return self.k_cache, self.v_cache", new="return k, v"),
    Planted(
        "4.1",
        "swapped",
        code=UPDATE
        + """
    if batch_idx.ndim == 2:
        table.assign_prefill_no_paging(batch_idx, input_pos, k, v, *pools)
        return v, k
    table.assign(batch_idx, input_pos[:, None], k, v, *pools)
    return self.v_cache, self.k_cache
""",
    ),
    Planted(
        "4.1",
        "guesses-the-phase",
        note="one token",
        code=UPDATE
        + """
    if k.shape[2] > 1:
        table.assign_prefill_no_paging(batch_idx, input_pos, k, v, *pools)
        return k, v
    table.assign(batch_idx.flatten(), input_pos.flatten()[:, None], k, v, *pools)
    return pools
""",
    ),
    Planted("4.1", "guesses-the-phase", note="one row", old="if batch_idx.ndim == 2:", new="if k.shape[0] == 1:"),
    Planted(
        "4.1",
        "guesses-the-phase",
        note="one row, made to fit",
        code=UPDATE
        + """
    if len(k) == 1:
        table.assign_prefill_no_paging(batch_idx.view(1, -1), input_pos.view(1, -1), k, v, *pools)
        return k, v
    table.assign(batch_idx, input_pos[:, None], k, v, *pools)
    return pools
""",
    ),
    Planted("4.1", "positions-as-they-are", old="input_pos[:, None]", new="input_pos"),
    Planted("4.1", "positions-as-they-are", note="a row of them", old="input_pos[:, None]", new="input_pos[None]"),
    Planted("4.1", "not-stored", note="prefill", old=f"            {PREFILL}\n", new=""),
    Planted("4.1", "not-stored", note="decode", old=f"        {DECODE}\n", new=""),
    Planted(
        "4.1",
        "skips-first",
        old=PREFILL,
        new="self.page_table.assign_prefill_no_paging(\n"
        "                batch_idx[:, 1:], input_pos[:, 1:], k[:, :, 1:], v[:, :, 1:], self.k_cache, self.v_cache)",
    ),
    Planted("4.1", "skips-first", note="positions", old=PREFILL, new=PREFILL.replace("input_pos", "input_pos + 1")),
    Planted(
        "4.1",
        "skips-first",
        note="every position",
        old="        if batch_idx.ndim == 2:\n",
        new="        input_pos = input_pos + 1\n        if batch_idx.ndim == 2:\n",
    ),
    Planted(
        "4.1",
        "view-no-permute",
        old=DECODE,
        new="at = self.page_table.address(batch_idx, input_pos)\n"
        "        self.k_cache[:, :, at] = k.view(1, k.shape[1], -1, k.shape[3])\n"
        "        self.v_cache[:, :, at] = v.view(1, v.shape[1], -1, v.shape[3])",
    ),
    Planted(
        "4.1", "row-not-slot", old=DECODE, new=DECODE.replace("assign(batch_idx", "assign(torch.arange(len(batch_idx))")
    ),
    Planted(
        "4.1",
        "row-not-slot",
        note="prefill",
        old=PREFILL,
        new=PREFILL.replace("batch_idx", "batch_idx[:, :1].expand_as(batch_idx)"),
    ),
    Planted("4.1", "keys-only", old=DECODE, new=DECODE.replace("self.v_cache", "self.v_cache.clone()")),
    Planted(
        "4.1",
        "keys-only",
        note="own writing",
        old=PREFILL,
        new="self.k_cache[:, :, self.page_table.address(batch_idx[0], input_pos[0])] = k",
    ),
    Planted(
        "4.1", "", note="another position in decode", old=DECODE, new=DECODE.replace("input_pos[", "0 * input_pos[")
    ),
    Planted("4.1", "", note="no result", old="        return self.k_cache, self.v_cache\n", new=""),
    Planted(
        "4.1",
        "",
        note="zeroes the pool",
        old=f"        {DECODE}",
        new=f"        self.k_cache.zero_()\n        {DECODE}",
    ),
    Planted(
        "4.1",
        "",
        note="only the rows of the batch come back",
        old="return self.k_cache, self.v_cache",
        new="return self.k_cache[:, :, 2:], self.v_cache[:, :, 2:]",
    ),
]

SUM = "sum(layer.kv_heads * (layer.head_dim + layer.value_head_dim) for layer in layers) * dtype.itemsize"
PER_TOKEN = "\ndef kv_bytes_per_token(layers: Iterable[LayerSpec], dtype: torch.dtype) -> int:\n"

PER_TOKENS = [
    Planted("4.2", "query-heads", old="layer.kv_heads *", new="layer.q_heads *"),
    Planted(
        "4.2",
        "query-heads",
        note="from the configuration",
        old="layer.kv_heads *",
        new="layer.module.config.num_attention_heads *",
    ),
    Planted(
        "4.2",
        "derived-head-dim",
        old="(layer.head_dim + layer.value_head_dim)",
        new="2 * (layer.module.config.hidden_size // layer.q_heads)",
    ),
    Planted(
        "4.2",
        "derived-head-dim",
        note="in a loop",
        code=PER_TOKEN
        + """
    numbers = 0
    for layer in layers:
        config = layer.module.config
        head_dim = config.hidden_size // config.num_attention_heads
        numbers += 2 * head_dim * config.num_key_value_heads
    return numbers * dtype.itemsize
""",
    ),
    Planted("4.2", "keys-only", old="(layer.head_dim + layer.value_head_dim)", new="layer.head_dim"),
    Planted(
        "4.2", "keys-only", note="values", old="(layer.head_dim + layer.value_head_dim)", new="layer.value_head_dim"
    ),
    Planted("4.2", "key-size-twice", old="(layer.head_dim + layer.value_head_dim)", new="2 * layer.head_dim"),
    Planted(
        "4.2",
        "one-layer",
        code=PER_TOKEN
        + """
    layers = list(layers)
    first = layers[0]
    return len(layers) * first.kv_heads * (first.head_dim + first.value_head_dim) * dtype.itemsize
""",
    ),
    Planted(
        "4.2",
        "one-layer",
        note="returns in the loop",
        code=PER_TOKEN
        + """
    total = 0
    for layer in layers:
        total += layer.kv_heads * (layer.head_dim + layer.value_head_dim) * dtype.itemsize
        return total
""",
    ),
    Planted(
        "4.2",
        "one-layer",
        note="assigns instead of adding",
        code=PER_TOKEN
        + """
    for layer in layers:
        total = layer.kv_heads * (layer.head_dim + layer.value_head_dim)
    return total * dtype.itemsize
""",
    ),
    Planted("4.2", "numbers-not-bytes", old=" * dtype.itemsize", new=""),
    Planted("4.2", "numbers-not-bytes", note="always two", old=SUM, new=SUM.replace("dtype.itemsize", "2")),
    Planted("4.2", "numbers-not-bytes", note="bits", old=SUM, new=SUM + " * 8"),
    Planted(
        "4.2",
        "needs-a-list",
        code=PER_TOKEN
        + """
    heads = [layer.kv_heads for layer in layers]
    sizes = [layer.head_dim + layer.value_head_dim for layer in layers]
    return sum(h * s for h, s in zip(heads, sizes)) * dtype.itemsize
""",
    ),
    Planted(
        "4.2",
        "needs-a-list",
        note="by index",
        code=PER_TOKEN
        + """
    total = 0
    for i in range(len(layers)):
        total += layers[i].kv_heads * (layers[i].head_dim + layers[i].value_head_dim)
    return total * dtype.itemsize
""",
    ),
    Planted(
        "4.2",
        "",
        note="product of the sizes",
        old="layer.head_dim + layer.value_head_dim",
        new="layer.head_dim * layer.value_head_dim",
    ),
    Planted("4.2", "", note="twice", old=SUM, new="2 * " + SUM),
    Planted("4.2", "", note="a float", old=SUM, new="1.0 * " + SUM),
]

FITS = "fits = free_bytes // (bytes_per_token * page_size) - 1"
CAP = "max_batch_size * -(-max_seq_length // page_size)"
BUDGET = """
def pages_for_budget(
    free_bytes: int, bytes_per_token: int, page_size: int, max_batch_size: int, max_seq_length: int
) -> int:
"""

BUDGETS = [
    Planted(
        "4.3", "forgets-the-sink", old=" // (bytes_per_token * page_size) - 1", new=" // (bytes_per_token * page_size)"
    ),
    Planted(
        "4.3",
        "sink-under-the-cap",
        code=BUDGET
        + """
    fits = free_bytes // (bytes_per_token * page_size)
    if fits < 2:
        raise MemoryError("too little")
    return min(fits, max_batch_size * -(-max_seq_length // page_size)) - 1
""",
    ),
    Planted("4.3", "sink-under-the-cap", note="on top", old=CAP, new=CAP + " + 1"),
    Planted("4.3", "no-cap", old=f"min(fits, {CAP})", new="fits"),
    Planted("4.3", "rounds-the-cap", old=CAP, new="-(-max_batch_size * max_seq_length // page_size)"),
    Planted("4.3", "rounds-the-cap", note="down", old=CAP, new="max_batch_size * max_seq_length // page_size"),
    Planted("4.3", "rounds-the-cap", note="each down", old=CAP, new="max_batch_size * (max_seq_length // page_size)"),
    Planted("4.3", "plus-one-page", old=CAP, new="max_batch_size * (max_seq_length // page_size + 1)"),
    Planted("4.3", "tokens-not-pages", old=CAP, new="max_batch_size * max_seq_length"),
    Planted("4.3", "tokens-not-pages", note="what fits", old=FITS, new="fits = free_bytes // bytes_per_token - 1"),
    Planted("4.3", "no-error", old="if fits < 1:", new="if False:"),
    Planted("4.3", "no-error", note="at least one", old="if fits < 1:", new="fits = max(fits, 1)\n    if fits < 1:"),
    Planted("4.3", "another-error", note="another class", old="raise MemoryError(", new="raise ValueError("),
    Planted("4.3", "refuses-the-last", old="if fits < 1:", new="if fits <= 1:"),
    Planted(
        "4.3",
        "total-not-free",
        old=FITS,
        new="import psutil\n\n    fits = int(psutil.virtual_memory().total * 0.9 // (bytes_per_token * page_size)) - 1",
    ),
    Planted(
        "4.3",
        "total-not-free",
        note="asks again",
        code=BUDGET
        + """
    free = max(free_bytes, free_memory(torch.device("cpu")))
    pages = free // (page_size * bytes_per_token) - 1
    if pages < 1:
        raise MemoryError("no room")
    return min(pages, ((max_seq_length + page_size - 1) // page_size) * max_batch_size)
""",
    ),
    Planted("4.3", "", note="half of it", old=FITS, new=FITS.replace("free_bytes //", "free_bytes // 2 //")),
    Planted("4.3", "", note="a float", old=FITS, new=FITS.replace("//", "/")),
    Planted("4.3", "", note="the larger one", old="min(fits,", new="max(fits,"),
]

ATTACH = """
def attach_caches(
    layers: Iterable[LayerSpec], tables: Mapping[int | None, PageTable], dtype: torch.dtype
) -> list[PagedKVCache]:

    def cache_for(layer, dtype=dtype):
        table = tables[layer.window]
        sizes = layer.kv_heads, layer.head_dim, layer.value_head_dim
        return PagedKVCache(table, *sizes, layer.window, dtype, table.page_table.device)

"""
SET = "layer.module.kv_cache = cache  # type: ignore[assignment]"

ATTACHED = [
    Planted(
        "4.4",
        "late-closure",
        code=ATTACH
        + """
    layers = list(layers)
    caches = []
    for layer in layers:
        cache = cache_for(layer)
        caches.append(cache)
    for layer in layers:
        layer.module.kv_cache = cache
    return caches
""",
    ),
    Planted(
        "4.4",
        "late-closure",
        note="functions that look up the index later",
        code=ATTACH
        + """
    layers = list(layers)
    caches = [cache_for(layer) for layer in layers]
    getters = []
    for i in range(len(layers)):
        getters.append(lambda: caches[i])
    for layer, get in zip(layers, getters, strict=True):
        layer.module.kv_cache = get()
    return caches
""",
    ),
    Planted(
        "4.4",
        "one-cache",
        code=ATTACH
        + """
    layers = list(layers)
    cache = cache_for(layers[0])
    for layer in layers:
        layer.module.kv_cache = cache
    return [cache] * len(layers)
""",
    ),
    Planted(
        "4.4",
        "one-cache",
        note="one for each window",
        code=ATTACH
        + """
    by_window, caches = {}, []
    for layer in layers:
        if layer.window not in by_window:
            by_window[layer.window] = cache_for(layer)
        layer.module.kv_cache = by_window[layer.window]
        caches.append(by_window[layer.window])
    return caches
""",
    ),
    Planted("4.4", "not-attached", old=SET, new="pass"),
    Planted("4.4", "not-attached", note="on the layer's description", old=SET, new="layer.kv_cache = cache"),
    Planted("4.4", "query-heads", old="layer.kv_heads", new="layer.q_heads"),
    Planted(
        "4.4",
        "derived-head-dim",
        old="            layer.head_dim,\n            layer.value_head_dim,\n",
        new="            *[layer.module.config.hidden_size // layer.q_heads] * 2,\n",
    ),
    Planted("4.4", "key-size-for-values", old="layer.value_head_dim", new="layer.head_dim"),
    Planted(
        "4.4",
        "key-size-for-values",
        note="swapped",
        old="            layer.head_dim,\n            layer.value_head_dim,\n",
        new="            layer.value_head_dim,\n            layer.head_dim,\n",
    ),
    Planted("4.4", "one-table", old="tables[layer.window]", new="next(iter(tables.values()))"),
    Planted("4.4", "one-table", note="None", old="tables[layer.window]", new="tables[None]"),
    Planted("4.4", "no-window", old="            layer.window,\n", new="            None,\n"),
    Planted("4.4", "default-dtype", old="            dtype,\n", new="            torch.float32,\n"),
    Planted("4.4", "default-dtype", note="bfloat16", old="            dtype,\n", new="            torch.bfloat16,\n"),
    Planted("4.4", "default-device", old="            table.page_table.device,\n", new='            "cpu",\n'),
    Planted(
        "4.4",
        "other-order",
        code=ATTACH
        + """
    layers, caches = list(layers), []
    for window in tables:
        for layer in layers:
            if layer.window == window:
                layer.module.kv_cache = cache_for(layer)
                caches.append(layer.module.kv_cache)
    return caches
""",
    ),
    Planted("4.4", "other-order", note="backwards", old="caches.append(cache)", new="caches.insert(0, cache)"),
    Planted(
        "4.4",
        "used-up",
        code=ATTACH
        + """
    caches = [cache_for(layer) for layer in layers]
    for layer, cache in zip(layers, caches):
        layer.module.kv_cache = cache
    return caches
""",
    ),
    Planted(
        "4.4",
        "used-up",
        note="by index",
        code=ATTACH
        + """
    caches = []
    for i in range(len(layers)):
        layers[i].module.kv_cache = cache_for(layers[i])
        caches.append(layers[i].module.kv_cache)
    return caches
""",
    ),
    Planted(
        "4.4",
        "dirty-pool",
        old="        caches.append(cache)\n",
        new="        cache.k_cache, cache.v_cache = torch.empty_like(cache.k_cache), torch.empty_like(cache.v_cache)\n"
        "        caches.append(cache)\n",
    ),
    Planted(
        "4.4",
        "dirty-pool",
        note="values only",
        old="        caches.append(cache)\n",
        new="        cache.v_cache = torch.empty(cache.v_cache.shape, dtype=dtype, device=cache.v_cache.device)\n"
        "        caches.append(cache)\n",
    ),
    Planted("4.4", "", note="one head too many", old="layer.kv_heads", new="layer.kv_heads + 1"),
    Planted("4.4", "", note="no result", old="    return caches\n", new=""),
    Planted(
        "4.4",
        "",
        note="every second layer",
        old="        caches.append(cache)\n",
        new="        if len(caches) < 2:\n            caches.append(cache)\n",
    ),
]

READ = "read = weights * bytes_per_weight + cached_tokens * kv_bytes_per_token"
COMPUTED = "computed = 2 * weights * new_tokens"
LONGER = "return max(read / machine.bytes_per_second, computed / machine.flops_per_second)"

ROOFLINES = [
    Planted(
        "4.5",
        "adds-them",
        old=LONGER,
        new="return read / machine.bytes_per_second + computed / machine.flops_per_second",
    ),
    Planted("4.5", "the-shorter", old="max(", new="min("),
    Planted("4.5", "one-operation", old=COMPUTED, new="computed = weights * new_tokens"),
    Planted("4.5", "one-operation", note="twice two", old=COMPUTED, new="computed = 2 * 2 * weights * new_tokens"),
    Planted("4.5", "weights-for-each-token", old="read = weights", new="read = new_tokens * weights"),
    Planted("4.5", "cache-for-each-token", old="+ cached_tokens", new="+ new_tokens * cached_tokens"),
    Planted(
        "4.5",
        "cache-for-each-token",
        note="all for each token",
        old=READ,
        new="read = new_tokens * (weights * bytes_per_weight + cached_tokens * kv_bytes_per_token)",
    ),
    Planted("4.5", "no-cache", old=READ, new="read = weights * bytes_per_weight"),
    Planted("4.5", "weights-not-bytes", old=READ, new="read = weights + cached_tokens * kv_bytes_per_token"),
    Planted(
        "4.5",
        "weights-not-bytes",
        note="always bfloat16",
        old=READ,
        new="read = 2 * weights + cached_tokens * kv_bytes_per_token",
    ),
    Planted("4.5", "bytes-computed", old=COMPUTED, new="computed = 2 * weights * bytes_per_weight * new_tokens"),
    Planted(
        "4.5",
        "bytes-computed",
        note="for the two",
        old=COMPUTED,
        new="computed = weights * bytes_per_weight * new_tokens",
    ),
    Planted("4.5", "cached-are-computed", old=COMPUTED, new="computed = 2 * weights * (new_tokens + cached_tokens)"),
    Planted(
        "4.5", "cached-are-computed", note="only those", old=COMPUTED, new="computed = 2 * weights * cached_tokens"
    ),
    Planted("4.5", "one-token", old=COMPUTED, new="computed = 2 * weights"),
    Planted("4.5", "", note="a rate", old=LONGER, new=LONGER.replace("return ", "return 1 / ")),
    Planted("4.5", "", note="in milliseconds", old=LONGER, new=LONGER.replace("return ", "return 1000 * ")),
    Planted("4.5", "", note="only computes", old=LONGER, new="return computed / machine.flops_per_second"),
]

MISTAKES = [*UPDATES, *PER_TOKENS, *BUDGETS, *ATTACHED, *ROOFLINES]
