"""Mistakes in module 02, as edits of the reference."""

from planting import Planted

# ------------------------------------------------------------------------------------------------ 2.1

HEAD_21 = '''def attention_forward(
    attend, module, query, key, value, attention_mask, scaling=None, softcap=None, *,
    flex_attn_block_mask, flex_attn_input_pos=None, flex_attn_batch_idx=None, flex_attn_kernel_options=None, **_unused,
):
    """What each attention layer of the model calls.  [2.1 · ★★★ · 25 min]"""
'''
CACHE_21 = """
    cache = getattr(module, "kv_cache", None)
    if cache is not None:
        key, value = cache.update(flex_attn_input_pos, key, value, flex_attn_batch_idx)
    mask = flex_attn_block_mask
    if isinstance(mask, Mapping):
        mask = mask[cache.window if cache is not None else None]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
"""
RETURN = "return out_BHQD.transpose(1, 2).contiguous(), None"
ATTEND = "out_BHQD = attend(query, key, value, mask, scale, softcap, flex_attn_kernel_options)"
UPDATE = "key, value = cache.update(flex_attn_input_pos, key, value, flex_attn_batch_idx)"
CHOOSE = "mask = mask[cache.window if cache is not None else None]"
SCALE = "scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])"

FORWARD = [
    Planted("2.1", "no-transpose", old=RETURN, new="return out_BHQD.contiguous(), None"),
    Planted(
        "2.1",
        "no-transpose",
        old=RETURN,
        new="B, H, Q, D = out_BHQD.shape\n    return out_BHQD.reshape(B, Q, H, D), None",
        note="reshaped",
    ),
    Planted(
        "2.1",
        "no-transpose",
        old=RETURN,
        new="B, H, Q, D = out_BHQD.shape\n    return out_BHQD.contiguous().view(B, Q, H, D), None",
        note="viewed",
    ),
    Planted(
        "2.1",
        "kv-tile",
        old=ATTEND,
        new="many = query.shape[1] // key.shape[1]\n"
        "    key, value = key.repeat(1, many, 1, 1), value.repeat(1, many, 1, 1)\n    " + ATTEND,
    ),
    Planted(
        "2.1",
        "kv-tile",
        code=HEAD_21
        + CACHE_21
        + """
        # heads of queries that share a head of keys
    pick = torch.arange(query.shape[1]) % key.shape[1]
    out = attend(query, key[:, pick], value[:, pick], mask, scale, softcap, flex_attn_kernel_options)
    return out.permute(0, 2, 1, 3), None
""".replace("        # heads", "    # heads"),
        note="by index",
    ),
    Planted(
        "2.1",
        "top-left",
        old=ATTEND,
        new="out_BHQD = nn.functional.scaled_dot_product_attention(\n"
        "        query, key.expand(len(query), -1, -1, -1), value.expand(len(query), -1, -1, -1),\n"
        "        is_causal=True, scale=scale, enable_gqa=True)",
    ),
    Planted(
        "2.1",
        "top-left",
        old=ATTEND,
        new="from torch.nn.attention.flex_attention import create_block_mask\n"
        "    mask = create_block_mask(lambda b, h, q, kv: q >= kv, None, None, query.shape[2], key.shape[2], device='cpu')\n"
        "    " + ATTEND,
        note="a block mask of its own",
    ),
    Planted("2.1", "mask-dropped", old="mask = flex_attn_block_mask", new="mask = attention_mask"),
    Planted("2.1", "mask-dropped", old=ATTEND, new=ATTEND.replace("mask,", "None,"), note="None"),
    Planted(
        "2.1",
        "mask-if-no-cache",
        old=ATTEND,
        new="mask = mask if cache is None or query.shape[2] == 0 else None\n    " + ATTEND,
    ),
    Planted(
        "2.1", "mask-if-no-cache", old=ATTEND, new=ATTEND.replace("mask,", "None if cache else mask,"), note="inline"
    ),
    Planted(
        "2.1",
        "mask-if-no-cache",
        old=ATTEND,
        new="if query.shape[2] == 1:  # decode: the newest token reads everything\n        mask = None\n    " + ATTEND,
        note="in decode",
    ),
    Planted("2.1", "ignores-cache", old=UPDATE, new="pass"),
    Planted("2.1", "ignores-cache", old=UPDATE, new=UPDATE.replace("key, value = ", ""), note="result thrown away"),
    Planted("2.1", "own-scale", old=SCALE, new="scale = 1 / math.sqrt(query.shape[-1])"),
    Planted("2.1", "own-scale", old=SCALE, new="scale = query.size(-1) ** -0.5", note="power"),
    Planted("2.1", "no-scale", old=SCALE, new="scale = scaling"),
    Planted("2.1", "cap-dropped", old=ATTEND, new=ATTEND.replace("softcap", "None")),
    Planted("2.1", "options-dropped", old=ATTEND, new=ATTEND.replace("flex_attn_kernel_options", "None")),
    Planted(
        "2.1",
        "past-attend",
        old=ATTEND,
        new="out_BHQD = flex_attention(query, key.expand(len(query), -1, -1, -1), value.expand(len(query), -1, -1, -1),\n"
        "        block_mask=mask, scale=scale, enable_gqa=True)",
    ),
    Planted(
        "2.1",
        "update-order",
        old=UPDATE,
        new="key, value = cache.update(flex_attn_batch_idx, key, value, flex_attn_input_pos)",
    ),
    Planted(
        "2.1",
        "update-order",
        old=UPDATE,
        new="key, value = cache.update(key, value, flex_attn_input_pos, flex_attn_batch_idx)",
        note="keys first",
    ),
    Planted(
        "2.1",
        "flipped-layers",
        old=CHOOSE,
        new="windows = [window for window in mask if window is not None]\n"
        "        mask = mask[windows[0] if module.layer_idx % 2 else None]",
    ),
    Planted(
        "2.1",
        "flipped-layers",
        old=CHOOSE,
        new="windows = [window for window in mask if window is not None]\n"
        "        mask = mask[None if module.layer_idx % 2 else windows[0]]",
        note="even ones local",
    ),
    Planted("2.1", "always-all", old=CHOOSE, new="mask = mask[None]"),
    Planted("2.1", "always-all", old=CHOOSE, new="mask = next(iter(mask.values()))", note="the first"),
    Planted("2.1", "asks-the-model", old=CHOOSE, new="mask = mask[_unused.get('sliding_window')]"),
    Planted("2.1", "whole-mapping", old=CHOOSE, new="pass"),
    Planted("2.1", "", old=ATTEND, new=ATTEND.replace("key, value", "value, key"), note="keys and values exchanged"),
    Planted("2.1", "", old=RETURN, new="return out_BHQD.transpose(1, 2).flip(1).contiguous(), None", note="backwards"),
    Planted("2.1", "", old=RETURN, new="return out_BHQD.transpose(1, 2).contiguous()", note="not a pair"),
    Planted("2.1", "", old=SCALE, new="scale = scaling or math.sqrt(query.shape[-1])", note="root of D"),
]

# ------------------------------------------------------------------------------------------------ 2.2

FULL = """    if block_mask.full_kv_num_blocks is not None and block_mask.full_kv_indices is not None:
        full = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_blocks)
"""
VISIBLE = "(full | (partial & allowed)) & (address_RK < N)[:, None]"
PARTIAL = "partial = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n_blocks)"
LISTED_FULL = "full = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_blocks)"
FILL = "gathered_RJ = block_RJ.where(read.gather(1, block_RJ), 0)"
ASKED = "allowed = block_mask.mask_mod(b, torch.zeros_like(b), q.clamp(max=Q - 1), inside_RK[:, None])"

GATHER = [
    Planted("2.2", "ignores-full", old=FULL, new=""),
    Planted(
        "2.2", "ignores-full", old="read = partial | full", new="full = full & False\n    read = partial", note="later"
    ),
    Planted("2.2", "asks-full", old=VISIBLE, new="((full | partial) & allowed) & (address_RK < N)[:, None]"),
    Planted(
        "2.2",
        "asks-full",
        old="read = partial | full",
        new="partial = partial | full\n    full = torch.zeros_like(full)\n    read = partial",
        note="all as partial",
    ),
    Planted(
        "2.2",
        "behind-the-count",
        old=PARTIAL,
        new="partial = torch.zeros(*block_mask.kv_num_blocks[:, 0].shape, n_blocks, dtype=torch.bool).scatter_(\n"
        "        2, block_mask.kv_indices[:, 0].long(), True)",
    ),
    Planted(
        "2.2",
        "behind-the-count",
        old=LISTED_FULL,
        new="full = full.scatter(2, block_mask.full_kv_indices[:, 0].long(), True)",
        note="the full ones",
    ),
    Planted(
        "2.2",
        "behind-the-count",
        old="    query_blocks, device = partial.shape[1], partial.device\n",
        new="    def whole(counts, indices):\n"
        "        some = torch.zeros_like(partial)\n"
        "        return some.scatter(2, indices[:, 0, :, : int(counts.max())].long(), True)\n"
        "    partial = whole(block_mask.kv_num_blocks, block_mask.kv_indices)\n"
        "    if block_mask.full_kv_indices is not None:\n"
        "        full = whole(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)\n"
        "    query_blocks, device = partial.shape[1], partial.device\n",
        note="as wide as the longest",
    ),
    Planted("2.2", "not-its-row", old="b = row // query_blocks", new="b = row"),
    Planted("2.2", "not-its-row", old="b = row // query_blocks", new="b = torch.zeros_like(row)", note="row 0"),
    Planted("2.2", "place-in-block", old="q = row % query_blocks * q_block + ", new="q = row * 0 + "),
    Planted(
        "2.2",
        "place-not-address",
        old=ASKED,
        new="place = torch.arange(inside_RK.shape[1], device=device)\n"
        "    allowed = block_mask.mask_mod(b, torch.zeros_like(b), q.clamp(max=Q - 1), place)",
    ),
    Planted("2.2", "filler-seen", old=VISIBLE, new="(full | allowed) & (address_RK < N)[:, None]"),
    Planted(
        "2.2",
        "filler-seen",
        old=VISIBLE,
        new="(full | (partial & allowed) | ~(full | partial)) & (address_RK < N)[:, None]",
        note="all of it",
    ),
    Planted("2.2", "filler-elsewhere", old=FILL, new="gathered_RJ = block_RJ"),
    Planted("2.2", "filler-elsewhere", old=FILL, new=FILL.replace(", 0)", ", n_blocks - 1)"), note="the last block"),
    Planted("2.2", "beyond-the-end", old=VISIBLE, new="full | (partial & allowed)"),
    Planted(
        "2.2",
        "beyond-the-end",
        old="return GatherMask(inside_RK, " + VISIBLE + ")",
        new="return GatherMask(address_RK, full | (partial & allowed))",
        note="outside",
    ),
    Planted(
        "2.2", "", old="descending=True, stable=True", new="descending=False, stable=True", note="empty blocks first"
    ),
    Planted("2.2", "", old=VISIBLE, new="~((full | (partial & allowed)) & (address_RK < N)[:, None])", note="negated"),
]

# ------------------------------------------------------------------------------------------------ 2.3

SAME = "return (document_BL[b, q_idx] == read) & (read >= 0)"
BOTH = "both = all_of(same_document, mask_mod)"
MADE = "return create_block_mask(both, B, None, L, L, device=document_BL.device, BLOCK_SIZE=block_size)"
HEAD_23 = '''def document_block_mask(document_BL, mask_mod=causal, block_size=128):
    """The mask of a batch whose rows hold packed documents and padding.  [2.3 · ★★☆ · 20 min]"""
'''
BY_HAND = """    b, q = torch.arange(B)[:, None, None], torch.arange(L)[:, None]
    dense = both(b, torch.zeros_like(b), q, torch.arange(L)).expand(B, L, L)
    from .masks import block_mask_from_blocks, classify_blocks
    partial, full = classify_blocks(dense[:, None], (block_size, block_size))
    return block_mask_from_blocks(partial, full, both, (block_size, block_size), (L, L))
"""

DOCUMENTS = [
    Planted("2.3", "broadcast-batch", old=MADE, new=MADE.replace("both, B, None", "both, None, None")),
    Planted("2.3", "broadcast-batch", old=MADE, new=MADE.replace("both, B, None", "both, 1, None"), note="B is 1"),
    Planted(
        "2.3",
        "only-row-0",
        old=SAME,
        new="return (document_BL[0, q_idx] == document_BL[0, kv_idx]) & (document_BL[0, kv_idx] >= 0)",
    ),
    Planted("2.3", "padding-is-a-document", old=SAME, new="return document_BL[b, q_idx] == read"),
    Planted(
        "2.3",
        "padding-is-a-document",
        code=HEAD_23
        + """
    def mask(b, h, q, kv):
        return mask_mod(b, h, q, kv) & (document_BL[b, q] - document_BL[b, kv] == 0)

    n, length = document_BL.size()
    return create_block_mask(mask, n, None, length, length, "cpu", BLOCK_SIZE=block_size)
""",
        note="by difference",
    ),
    Planted("2.3", "minus-one-only", old=SAME, new=SAME.replace("read >= 0", "read != -1")),
    Planted("2.3", "forgets-mask-mod", old=BOTH, new="both = same_document"),
    Planted("2.3", "causal-always", old=BOTH, new="both = all_of(same_document, causal)"),
    Planted("2.3", "causal-always", old=BOTH, new="both = all_of(same_document, mask_mod, causal)", note="besides"),
    Planted("2.3", "documents-ignored", old=SAME, new="return (document_BL[b, q_idx] >= 0) & (read >= 0)"),
    Planted("2.3", "documents-ignored", old=SAME, new="return read >= 0", note="keys only"),
    Planted(
        "2.3",
        "either",
        old=BOTH,
        new="from .masks import any_of\n    both = any_of(same_document, mask_mod)",
    ),
    Planted("2.3", "forward-only", old=MADE, new=BY_HAND.lstrip()),
    Planted("2.3", "default-block", old=", BLOCK_SIZE=block_size", new=""),
    Planted("2.3", "", old=SAME, new="return (document_BL[b, q_idx] != read) & (read >= 0)", note="other documents"),
    Planted("2.3", "", old=MADE, new=MADE.replace("L, L,", "L, L + block_size,"), note="too many keys"),
    Planted("2.3", "", old=MADE, new="return both", note="the mask_mod itself"),
    Planted("2.3", "", old=MADE, new=MADE.replace("both, B, None", "both, B, 2"), note="a list for each of two heads"),
]

# ------------------------------------------------------------------------------------------------ 2.4

SWITCH = "        model.set_attn_implementation(name)\n"
BACK = "        model.set_attn_implementation(before)\n        forget_attention(name)\n"
PROOF = """    if len(calls) != (layers := model.config.get_text_config().num_hidden_layers):
        raise RuntimeError(f"{len(calls)} of {layers} layers called the attention function; the others ran their own")
"""
HEAD_24 = '''@contextlib.contextmanager
def attention_swapped(model, attention):
    """Let a model compute its attention with another function for a while, and prove that it did.  [2.4 · ★★☆ · 25 min]"""
'''
REGISTER = """
    calls = Counter()

    def counted(module, *args, **kwargs):
        calls[module] += 1
        return attention(module, *args, **kwargs)

    name, before = f"mine_{next(_numbers)}", model.config._attn_implementation
    AttentionInterface.register(name, counted)
"""

SWAPPED = [
    Planted("2.4", "never-called", old=SWITCH, new=""),
    Planted(
        "2.4",
        "never-called",
        code=HEAD_24
        + REGISTER
        + """    import copy
    config = copy.deepcopy(model.config)
    config._attn_implementation = name
    try:
        yield calls
    finally:
        model.set_attn_implementation(before)
""",
        note="told a copy of the configuration",
    ),
    Planted("2.4", "stays-swapped", old=BACK, new="        pass\n"),
    Planted(
        "2.4",
        "only-when-well",
        code=HEAD_24
        + REGISTER
        + "    model.set_attn_implementation(name)\n    yield calls\n    model.set_attn_implementation(before)\n"
        + PROOF,
    ),
    Planted("2.4", "back-to-a-guess", old="set_attn_implementation(before)", new="set_attn_implementation('eager')"),
    Planted(
        "2.4",
        "back-to-a-guess",
        old="set_attn_implementation(before)",
        new="set_attn_implementation('sdpa')",
        note="sdpa",
    ),
    Planted("2.4", "silent", old=PROOF, new=""),
    Planted("2.4", "one-is-enough", old=PROOF, new='    if not calls:\n        raise RuntimeError("never called")\n'),
    Planted(
        "2.4",
        "one-is-enough",
        old=PROOF,
        new='    if sum(calls.values()) == 0:\n        raise RuntimeError("never called")\n',
        note="by sum",
    ),
    Planted(
        "2.4",
        "hides-error",
        code=HEAD_24
        + REGISTER
        + """    try:
        model.set_attn_implementation(name)
        yield calls
    finally:
        model.set_attn_implementation(before)
        if len(calls) < model.config.num_hidden_layers:
            raise RuntimeError("not every layer called")
""",
    ),
    Planted(
        "2.4",
        "hides-error",
        code=HEAD_24
        + REGISTER
        + """    try:
        model.set_attn_implementation(name)
        yield calls
    except Exception:
        return
    finally:
        model.set_attn_implementation(before)
"""
        + PROOF,
        note="swallowed",
    ),
    Planted("2.4", "one-name", old='f"flexnano_swapped_{next(_numbers)}"', new='"swapped"'),
    Planted(
        "2.4",
        "one-name",
        code=HEAD_24
        + REGISTER.replace('f"mine_{next(_numbers)}"', "'mine'")
        + "    model.set_attn_implementation(name)\n    try:\n        yield calls\n    finally:\n"
        + "        model.set_attn_implementation(before)\n"
        + PROOF,
        note="and kept",
    ),
    Planted("2.4", "counts-something-else", old="calls[module] += 1", new="calls[module.layer_idx] += 1"),
    Planted(
        "2.4",
        "counts-something-else",
        old="calls[module] += 1",
        new="calls[type(module).__name__, module.layer_idx] += 1",
        note="by class",
    ),
    Planted(
        "2.4",
        "",
        old="return attention(module, *args, **kwargs)",
        new="attention(module, *args, **kwargs)",
        note="no result",
    ),
    Planted(
        "2.4",
        "",
        old="return attention(module, *args, **kwargs)",
        new="return attention(module, *args)",
        note="no keywords",
    ),
    Planted("2.4", "", old="yield calls", new="yield", note="nothing given out"),
]

# ------------------------------------------------------------------------------------------------ 2.5

HEAD_25 = '''def measure(run, stopwatch, warm_up=2, repeats=5):
    """How long a call takes.  [2.5 · ★★☆ · 15 min]"""
'''
TIMED = """
    def timed():
        begin = stopwatch.mark()
        run()
        end = stopwatch.mark()
        stopwatch.wait()
        return stopwatch.seconds(begin, end)

"""
ALL = "first, *others = [timed() for _ in range(1 + warm_up + repeats)]"

MEASURE = [
    Planted("2.5", "no-wait", old="        stopwatch.wait()\n", new=""),
    Planted(
        "2.5",
        "no-wait",
        code=HEAD_25
        + """
    stopwatch.wait()
    times = []
    for _ in range(1 + warm_up + repeats):
        begin = stopwatch.mark()
        run()
        times.append(stopwatch.seconds(begin, stopwatch.mark()))
    stopwatch.wait()
    return Timing(times[0], times[1 + warm_up:])
""",
        note="once at the end",
    ),
    Planted(
        "2.5",
        "first-is-warm-up",
        code=HEAD_25
        + TIMED
        + "    times = [timed() for _ in range(warm_up + repeats)]\n    return Timing(times[0], times[warm_up:])\n",
    ),
    Planted(
        "2.5",
        "first-is-warm-up",
        old="return Timing(first, others[warm_up:])",
        new="return Timing(first, [first, *others[warm_up:]])",
        note="among the repeats",
    ),
    Planted("2.5", "warm-up-counts", old="others[warm_up:]", new="others"),
    Planted("2.5", "warm-up-counts", old="others[warm_up:]", new="others[:repeats]", note="the first ones"),
    Planted(
        "2.5",
        "one-pair",
        code=HEAD_25
        + TIMED
        + """    first = timed()
    for _ in range(warm_up):
        run()
    stopwatch.wait()
    begin = stopwatch.mark()
    for _ in range(repeats):
        run()
    end = stopwatch.mark()
    stopwatch.wait()
    return Timing(first, [stopwatch.seconds(begin, end) / repeats] * repeats)
""",
    ),
    Planted(
        "2.5",
        "one-pair",
        old="return Timing(first, others[warm_up:])",
        new="kept = others[warm_up:]\n    return Timing(first, [sum(kept) / len(kept)])",
        note="the mean",
    ),
    Planted(
        "2.5",
        "one-begin",
        code=HEAD_25
        + TIMED
        + """    first = timed()
    for _ in range(warm_up):
        run()
    begin, times = stopwatch.mark(), []
    for _ in range(repeats):
        run()
        end = stopwatch.mark()
        stopwatch.wait()
        times.append(stopwatch.seconds(begin, end))
    return Timing(first, times)
""",
    ),
    Planted(
        "2.5",
        "own-clock",
        code=HEAD_25
        + """
    from time import perf_counter

    times = []
    for _ in range(1 + warm_up + repeats):
        begin = perf_counter()
        run()
        stopwatch.wait()
        times.append(perf_counter() - begin)
    return Timing(times[0], times[1 + warm_up:])
""",
    ),
    Planted(
        "2.5",
        "first-missing",
        code=HEAD_25
        + TIMED
        + """    for _ in range(warm_up):
        run()
    times = [timed() for _ in range(1 + repeats)]
    return Timing(times[0], times[1:])
""",
    ),
    Planted(
        "2.5",
        "first-missing",
        code=HEAD_25
        + TIMED
        + """    for _ in range(1 + warm_up):
        run()
    times = [timed() for _ in range(repeats)]
    return Timing(times[0], times)
""",
        note="none apart",
    ),
    Planted("2.5", "", old="others[warm_up:]", new="sorted(others[warm_up:])[:-1]", note="the slowest left out"),
    Planted(
        "2.5",
        "",
        old="return stopwatch.seconds(begin, end)",
        new="return stopwatch.seconds(end, begin)",
        note="backwards",
    ),
    Planted(
        "2.5", "", old="return Timing(first, others[warm_up:])", new="return first, others[warm_up:]", note="a pair"
    ),
]

MISTAKES = [*FORWARD, *GATHER, *DOCUMENTS, *SWAPPED, *MEASURE]
