"""Other right answers in module 02."""

from planting import Alternative

HEAD_21 = '''def attention_forward(
    attend, module, query, key, value, attention_mask, scaling=None, softcap=None, *,
    flex_attn_block_mask, flex_attn_input_pos=None, flex_attn_batch_idx=None, flex_attn_kernel_options=None, **_unused,
):
    """What each attention layer of the model calls.  [2.1 · ★★★ · 25 min]"""
'''
HEAD_22 = '''def gather_mask(block_mask):
    """Work out which keys each block of queries reads.  [2.2 · ★★★ · 30 min]"""
'''
HEAD_23 = '''def document_block_mask(document_BL, mask_mod=causal, block_size=128):
    """The mask of a batch whose rows hold packed documents and padding.  [2.3 · ★★☆ · 20 min]"""
'''
HEAD_24 = '''@contextlib.contextmanager
def attention_swapped(model, attention):
    """Let a model compute its attention with another function for a while, and prove that it did.  [2.4 · ★★☆ · 25 min]"""
'''
HEAD_25 = '''def measure(run, stopwatch, warm_up=2, repeats=5):
    """How long a call takes.  [2.5 · ★★☆ · 15 min]"""
'''


def heads(how: str) -> str:
    """Keys repeated for each query head before attend gets them."""
    return (
        HEAD_21
        + f"""
    mask, cache = flex_attn_block_mask, getattr(module, "kv_cache", None)
    if cache:
        key, value = cache.update(flex_attn_input_pos, key, value, flex_attn_batch_idx)
    if isinstance(mask, dict):
        mask = mask[cache.window if cache else None]
    group = query.shape[1] // key.shape[1]
    key, value = ({how} for x in (key, value))
    scale = query.size(3) ** -0.5 if scaling is None else scaling
    out = attend(query, key, value, mask, scale, softcap, flex_attn_kernel_options)
    return out.transpose(1, 2), None
"""
    )


ALTERNATIVES = [
    Alternative("2.1", "repeat_interleave", code=heads("x.repeat_interleave(group, dim=1)")),
    Alternative(
        "2.1", "expand", code=heads("x[:, :, None].expand(-1, -1, group, -1, -1).reshape(len(x), -1, *x.shape[2:])")
    ),
    Alternative(
        "2.1",
        "by names, strided, a list for a pair",
        code=HEAD_21
        + """
    if hasattr(module, "kv_cache"):
        key, value = module.kv_cache.update(
            input_pos=flex_attn_input_pos, k=key, v=value, batch_idx=flex_attn_batch_idx
        )
    masks = flex_attn_block_mask
    if hasattr(masks, "keys"):
        masks = masks[module.kv_cache.window if hasattr(module, "kv_cache") else None]
    if scaling is None:
        scaling = torch.rsqrt(torch.tensor(float(query.shape[-1]))).item()
    out = attend(query, key, value, masks, scaling, softcap, flex_attn_kernel_options)
    return torch.einsum("bhqd->bqhd", out), None
""",
    ),
    Alternative(
        "2.2",
        "by loops, blocks in the order of the lists",
        code=HEAD_22
        + """
    Q, N = block_mask.seq_lengths
    q_block, k_block = block_mask.BLOCK_SIZE
    rows = []
    B, _, blocks = block_mask.kv_num_blocks.shape
    for b in range(B):
        for i in range(blocks):
            partial = block_mask.kv_indices[b, 0, i, : block_mask.kv_num_blocks[b, 0, i]].tolist()
            full = []
            if block_mask.full_kv_num_blocks is not None:
                full = block_mask.full_kv_indices[b, 0, i, : block_mask.full_kv_num_blocks[b, 0, i]].tolist()
            rows.append((b, i, [(n, True) for n in full] + [(n, False) for n in partial]))
    widest = max([1] + [len(listed) for _, _, listed in rows])
    T = min(q_block, Q)
    address = torch.zeros(len(rows), widest * k_block, dtype=torch.int64)
    visible = torch.zeros(len(rows), T, widest * k_block, dtype=torch.bool)
    for r, (b, i, listed) in enumerate(rows):
        for place in range(widest * k_block):
            block, at = divmod(place, k_block)
            if block >= len(listed):
                address[r, place] = at if at < N else 0
                continue
            n, is_full = listed[block]
            k = n * k_block + at
            address[r, place] = min(k, N - 1)
            for t in range(T):
                q = i * q_block + t
                if k < N and q < Q:
                    asked = block_mask.mask_mod(*(torch.tensor(x) for x in (b, 0, q, k)))
                    visible[r, t, place] = is_full or bool(asked)
    return GatherMask(address, visible)
""",
    ),
    Alternative(
        "2.2",
        "by sorting numbers",
        code=HEAD_22
        + """
    (Q, N), (q_block, k_block) = block_mask.seq_lengths, block_mask.BLOCK_SIZE
    n = (N + k_block - 1) // k_block
    kind = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n).long()
    if block_mask.full_kv_num_blocks is not None:
        kind += 2 * listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n)
    B, blocks, _ = kind.shape
    kind = kind.reshape(B * blocks, n)
    numbers = torch.arange(n).expand_as(kind).masked_fill(kind == 0, n).sort(dim=1).values
    numbers = numbers[:, : max(1, int((kind > 0).sum(1).max()))]
    listed = numbers < n
    numbers = numbers.masked_fill(~listed, 0)
    kind = kind.gather(1, numbers) * listed
    address = (numbers[:, :, None] * k_block + torch.arange(k_block)).reshape(len(kind), -1)
    kind = kind.repeat_interleave(k_block, 1)
    outside = address >= N
    address = address.masked_fill(outside, 0)
    r = torch.arange(len(kind))
    q = (r % blocks)[:, None] * q_block + torch.arange(min(q_block, Q))
    b = (r // blocks)[:, None, None].expand(-1, q.shape[1], address.shape[1])
    allowed = block_mask.mask_mod(b, b * 0, q.clamp(max=Q - 1)[:, :, None], address[:, None])
    visible = torch.where((kind == 2)[:, None], True, (kind == 1)[:, None] & allowed)
    return GatherMask(address, visible & ~outside[:, None])
""",
    ),
    Alternative(
        "2.3",
        "dense, then classified by hand",
        code=HEAD_23
        + """
    B, L = document_BL.shape
    b, q, kv = torch.arange(B)[:, None, None], torch.arange(L)[:, None], torch.arange(L)
    real = document_BL >= 0
    dense = (document_BL[:, :, None] == document_BL[:, None]) & real[:, None] & mask_mod(b, b * 0, q, kv)
    n = -(-L // block_size)
    some = torch.zeros(B, n, n, dtype=torch.bool)
    whole = torch.zeros(B, n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            tile = dense[:, i * block_size : (i + 1) * block_size, j * block_size : (j + 1) * block_size]
            some[:, i, j] = tile.any(-1).any(-1)
            whole[:, i, j] = tile.all(-1).all(-1) & ((j + 1) * block_size <= L)

    def both(b, h, q_idx, kv_idx):
        return dense[b, q_idx, kv_idx]

    def ordered(blocks):
        return blocks.sum(-1).int()[:, None], blocks.int().argsort(dim=-1, descending=True).int()[:, None]

    return BlockMask.from_kv_blocks(
        *ordered(some & ~whole), *ordered(whole), BLOCK_SIZE=block_size, mask_mod=both, seq_lengths=(L, L)
    )
""",
    ),
    Alternative(
        "2.3",
        "each row its own numbers, with a negation",
        code=HEAD_23
        + """
    B, L = document_BL.shape
    own = document_BL.clone()
    own[own < 0] = -1

    def mask(b, h, q, kv):
        theirs, mine = own[b, kv], own[b, q]
        return ~((theirs != mine) | (mine == -1)) & mask_mod(b, h, q, kv)

    return create_block_mask(mask, B=B, H=1, Q_LEN=L, KV_LEN=L, device="cpu", BLOCK_SIZE=(block_size, block_size))
""",
    ),
    Alternative(
        "2.3",
        "full blocks listed as partial",
        code=HEAD_23
        + """
    B, L = document_BL.shape

    def mask(b, h, q, kv):
        return (document_BL[b, q] == document_BL[b, kv]) & (document_BL[b, q] > -1) & mask_mod(b, h, q, kv)

    return create_block_mask(mask, B, None, L, L, "cpu", block_size, separate_full_blocks=False)
""",
    ),
    Alternative(
        "2.4",
        "by ExitStack, with layers found by name",
        code=HEAD_24
        + """
    import uuid

    calls, failed = Counter(), False
    name = "swap" + uuid.uuid4().hex
    had = model.config._attn_implementation

    def function(module, query, key, value, attention_mask, **more):
        calls.update([module])
        return attention(module, query, key, value, attention_mask, **more)

    AttentionInterface().register(name, function)
    with contextlib.ExitStack() as stack:
        stack.callback(model.set_attn_implementation, had)
        model.set_attn_implementation(name)
        yield calls
    missing = model.config.num_hidden_layers - len([layer for layer, n in calls.items() if n])
    if missing:
        raise RuntimeError(f"{missing} layers did not call")
""",
    ),
    Alternative(
        "2.4",
        "with except and raise",
        code=HEAD_24
        + """
    calls = Counter()
    had = model.config._attn_implementation

    def function(module, *rest, **more):
        calls[module] += 1
        return attention(module, *rest, **more)

    name = f"swap_{id(function)}"
    AttentionInterface.register(name, function)
    model.set_attn_implementation(name)
    try:
        yield calls
    except BaseException:
        model.set_attn_implementation(had)
        raise
    model.set_attn_implementation(had)
    if len(calls) < model.config.get_text_config().num_hidden_layers:
        raise RuntimeError("not all layers")
""",
    ),
    Alternative(
        "2.5",
        "three loops",
        code=HEAD_25
        + """
    def once():
        stopwatch.wait()
        a = stopwatch.mark()
        run()
        b = stopwatch.mark()
        stopwatch.wait()
        return stopwatch.seconds(a, b)

    first = once()
    for _ in range(warm_up):
        run()
    return Timing(first=first, repeats=[once() for _ in range(repeats)])
""",
    ),
    Alternative(
        "2.5",
        "one wait for all",
        code=HEAD_25
        + """
    pairs = []
    for _ in range(1 + warm_up + repeats):
        begin = stopwatch.mark()
        run()
        pairs.append((begin, stopwatch.mark()))
    stopwatch.wait()
    times = [stopwatch.seconds(*pair) for pair in pairs]
    return Timing(times[0], times[len(times) - repeats :])
""",
    ),
]
