"""Runs the cases of module 02 on the learner's code.

Attention is made readable: all scores are 0, so that a query weighs the keys that it reads equally, and each value is a mark
of its own (1 at the place of its row, head and key).  What comes out then says which keys were read, of which head.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

from course.grading.driving import NotUsable, instance, tensor
from course.grading.tiny import tiny_model
from flexnano import attention, experiment

Case = dict[str, Any]

# ------------------------------------------------------------------------------------------------ 2.1 attention_forward


class Cache:
    """A cache that gives back keys and values of its own, and remembers what came in."""

    def __init__(self, window: int | None, keys: Tensor, values: Tensor) -> None:
        self.window, self.keys, self.values = window, keys, values
        self.came: list[tuple[Any, ...]] = []

    def update(self, input_pos: Any, k: Any, v: Any, batch_idx: Any) -> tuple[Tensor, Tensor]:
        self.came.append((input_pos, k, v, batch_idx))
        return self.keys, self.values


class Layer(nn.Module):
    """An attention layer, as far as the attention function needs one."""

    def __init__(self, cache: Cache | None, layer_idx: int = 0) -> None:
        super().__init__()
        self.layer_idx, self.is_causal = layer_idx, True
        if cache is not None:
            self.kv_cache = cache


def table_mask(table: list[Any]) -> BlockMask:
    """The BlockMask of a table [B or 1][Q] of strings with ■ and □."""
    cells = torch.tensor([[[cell == "■" for cell in row] for row in rows] for rows in table])

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return cells[b if len(cells) > 1 else torch.zeros_like(b), q_idx, kv_idx]

    B = len(cells) if len(cells) > 1 else None
    return create_block_mask(mask_mod, B, None, *cells.shape[1:], device="cpu", BLOCK_SIZE=128)


def attends(q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: Any, softcap: Any, kernel_options: Any) -> Tensor:
    """Textbook attention of grouped heads; without a mask everything is read, as in FlexAttention."""
    B, Hq, Q, _ = q.shape
    Hk, K = k.shape[1:3]
    group = Hq // Hk
    if mask is None:
        allowed = torch.ones(B, 1, Q, K, dtype=torch.bool)
    else:
        whole = instance(mask, BlockMask, "the mask that attend is given")
        allowed = create_mask(whole.mask_mod, B, 1, Q, K, device="cpu")
    k, v = (x.expand(B, -1, -1, -1) for x in (k, v))
    out = torch.zeros(B, Hq, Q, v.shape[-1])
    for h in range(Hq):
        scores = (q[:, h] @ k[:, h // group].mT * (1.0 if scale is None else scale)).masked_fill(
            ~allowed[:, 0], -torch.inf
        )
        out[:, h] = scores.softmax(-1).nan_to_num(0.0) @ v[:, h // group]
    return out


def marks(batch: int, heads: int, keys: int) -> Tensor:
    """[batch, heads, keys, batch·heads·keys]: each value a 1 at its own place."""
    return torch.eye(batch * heads * keys).view(batch, heads, keys, -1)


def called(
    case: Case, attend: Callable[..., Any], masks: Any, cache: Cache | None, k: Tensor, v: Tensor, **more: Any
) -> Tensor:
    """What the learner's function gives: [B, Q, Hq, D], or whatever shape it has."""
    q = torch.zeros(case["B"], case["Hq"], case["Q"], k.shape[-1])
    given = dict(scaling=0.5, softcap=None, dropout=0.0, sliding_window=None, position_ids=None) | more
    result = attention.attention_forward(
        attend, Layer(cache, case.get("layer", 0)), q, k, v, None, flex_attn_block_mask=masks, **given
    )
    if isinstance(result, Tensor):
        raise NotUsable("the result is a tensor, not a pair (output, None)")
    result = instance(result, (tuple, list), "the result")
    if len(result) != 2 or result[1] is not None:
        raise NotUsable(f"the result has {len(result)} parts, of which the last is {result[-1]!r}; not (output, None)")
    return tensor(result[0], "the output", kind="float")


def read_off(out: Tensor, case: Case, heads: int, keys: int) -> dict[str, Any]:
    """Which keys each head of each query has read: [B][Q][Hq] of "1: ■■□", the key head and its keys."""
    B, Hq, Q = case["B"], case["Hq"], case["Q"]
    if out.ndim != 4 or list(out.shape[:3]) != [B, Q, Hq]:
        return {"shape": list(out.shape)}
    shared = out.shape[-1] == heads * keys
    whole = out.view(B, Q, Hq, 1 if shared else B, heads, keys)
    return {"reads": [[[said(whole[b, q, h], b) for h in range(Hq)] for q in range(Q)] for b in range(B)]}


def said(weights: Tensor, b: int) -> str:
    """The keys behind the weights [rows, heads, keys] of one head of one query of row b."""
    if not weights.isfinite().all():
        return "NaN"
    found = []
    for row, of_row in enumerate(weights.tolist()):
        for head, of_head in enumerate(of_row):
            if any(weight > 1e-6 for weight in of_head):
                strange = f"row {row}, " if len(weights) > 1 and row != b else ""
                found.append(f"{strange}{head}: " + "".join("■" if weight > 1e-6 else "□" for weight in of_head))
    return " + ".join(found) or "nothing"


def reads(case: Case) -> dict[str, Any]:
    B, Hk, Q, K = case["B"], case["Hk"], case["Q"], case["K"]
    cached = case["cache"]
    rows = 1 if cached == "shared" else B
    values = marks(rows, Hk, K)
    cache = Cache(None, torch.zeros_like(values), values) if cached else None
    fresh = torch.full((B, Hk, Q, values.shape[-1]), -1.0) if cached else values
    asked: list[bool] = []  # whether attention was asked for the keys of this call, not those of the cache

    def attend(q: Tensor, k: Tensor, v: Tensor, *more: Any) -> Tensor:
        asked.append(bool((v < 0).any()))
        return attends(q, k, v, *more)

    out = called(case, attend, table_mask(case["mask"]), cache, torch.zeros_like(fresh), fresh)
    if cached and (any(asked) or (out < 0).any()):
        return {"fresh": True}
    return read_off(out, case, Hk, K)


def told(case: Case) -> dict[str, Any]:
    """What attend is called with."""
    seen: list[dict[str, Any]] = []
    mask = table_mask([["■■", "■■"]])

    def attend(q: Any, k: Any, v: Any, mask: Any, scale: Any, softcap: Any, kernel_options: Any) -> Tensor:
        scale = None if scale is None else round(float(scale), 6)
        seen.append({"scale": scale, "softcap": softcap, "options": kernel_options, "mask": mask})
        return torch.zeros_like(q)

    k = torch.zeros(1, 1, 2, case["D"])
    of = {"B": 1, "Hq": 2, "Q": 2}
    called(
        of,
        attend,
        mask,
        None,
        k,
        k,
        scaling=case["scaling"],
        softcap=case["softcap"],
        flex_attn_kernel_options=case["options"],
    )
    if not seen:
        return {"calls": 0}
    return seen[-1] | {"calls": len(seen), "mask": "as given" if seen[-1]["mask"] is mask else "another"}


def stored(case: Case) -> dict[str, Any]:
    """What the cache is given."""
    pool = torch.zeros(1, 1, 8, 2)
    cache = Cache(None, pool, pool)
    k, v = torch.full((1, 1, 1, 2), 1.0), torch.full((1, 1, 1, 2), 2.0)
    position, slot = torch.tensor([case["position"]]), torch.tensor([case["slot"]])
    of = {"B": 1, "Hq": 1, "Q": 1}
    called(of, attends, table_mask([["■" * 8]]), cache, k, v, flex_attn_input_pos=position, flex_attn_batch_idx=slot)
    came = [[first(value) for value in one] for one in cache.came]
    return {"updates": len(came), "came": came[0] if came else None}


def first(value: Any) -> Any:
    return value.flatten()[0].item() if isinstance(value, Tensor) and value.numel() else repr(value)


def window(case: Case) -> str:
    """Which of several masks the layer takes."""
    masks = {None if name == "all" else int(name): table_mask([["■■■■"]]) for name in case["masks"]}
    names = {id(mask): name for name, mask in zip(case["masks"], masks.values(), strict=True)}
    pool = torch.zeros(1, 1, 4, 2)
    taken: list[str] = []

    def attend(q: Tensor, k: Any, v: Any, mask: Any, scale: Any, softcap: Any, kernel_options: Any) -> Tensor:
        taken.append(names.get(id(mask), "none of them"))
        return torch.zeros_like(q)

    k = torch.zeros(1, 1, 1, 2)
    of = {"B": 1, "Hq": 1, "Q": 1, "layer": case["layer"]}
    called(of, attend, masks, Cache(case["window"], pool, pool), k, k, sliding_window=case["model_says"])
    return taken[-1] if taken else "attend was not called"


def like_eager(case: Case) -> dict[str, Any]:
    """The logits of a small model whose layers call the learner's function, beside those of its own attention."""
    from transformers import AttentionInterface

    model = tiny_model()
    ids = (torch.arange(2 * case["length"]).view(2, -1) * 7 + 3) % 48

    def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx <= q_idx

    mask = create_block_mask(causal, None, None, case["length"], case["length"], device="cpu")
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        right = model(ids, use_cache=False).logits
        AttentionInterface.register("graded", functools.partial(attention.attention_forward, attends))
        model.set_attn_implementation("graded")
        got = tensor(model(ids, use_cache=False, flex_attn_block_mask=mask).logits, "the logits")
    return {"close": bool((got - right).abs().max() < 1e-4)}


# ------------------------------------------------------------------------------------------------ 2.2 gather_mask


def listed_mask(case: Case) -> BlockMask:
    """The BlockMask of the case: lists[row][query block] = [partial blocks, full blocks, what stands behind the counts]."""
    blocks = -(-case["N"] // case["k_block"])

    def lists(which: int) -> tuple[Tensor, Tensor]:
        filled = []
        for row in case["lists"]:
            filled.append([])
            for block in row:
                names = block[which]
                rest = [n for n in [*block[2], *range(blocks)] if n not in names]
                filled[-1].append((names + rest)[:blocks])
        counts = torch.tensor([[[len(block[which]) for block in row]] for row in case["lists"]], dtype=torch.int32)
        return counts, torch.tensor([[row] for row in filled], dtype=torch.int32)

    return BlockMask.from_kv_blocks(
        *lists(0),
        *(lists(1) if case["has_full"] else (None, None)),
        BLOCK_SIZE=(case["q_block"], case["k_block"]),
        mask_mod=rule_of(case),
        seq_lengths=(case["Q"], case["N"]),
        compute_q_blocks=False,
    )


def rule_of(case: Case) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    if case["rule"] != "documents":
        return RULES[case["rule"]]
    document_L = torch.arange(case["N"]) // 4  # as long as there are tokens: a position beyond is an error

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (document_L[q_idx] == document_L[kv_idx]) & (kv_idx <= q_idx)

    return mask_mod


RULES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "causal": lambda b, h, q, kv: kv <= q,
    "even": lambda b, h, q, kv: (kv + q * 0) % 2 == 0,
    "by row": lambda b, h, q, kv: (kv + q * 0) % 2 == b % 2,
    "all": lambda b, h, q, kv: (kv >= 0) & (q >= 0),
    "none": lambda b, h, q, kv: (kv < 0) & (q >= 0),
}


def gathered(case: Case) -> tuple[Tensor, Tensor]:
    result = instance(attention.gather_mask(listed_mask(case)), attention.GatherMask, "the result of gather_mask")
    addresses = tensor(result.address_RK, "address_RK", ndim=2, kind="int")
    visible = tensor(result.visible_RTK, "visible_RTK", ndim=3, kind="bool")
    shape = (len(addresses), visible.shape[1], addresses.shape[1])
    if visible.shape[0] not in (1, shape[0]) or visible.shape[2] not in (1, shape[2]):
        raise NotUsable(f"address_RK has shape {list(addresses.shape)}, but visible_RTK {list(visible.shape)}")
    return addresses, visible.expand(shape)


def visible(case: Case) -> list[list[list[int]]]:
    """For each row and each of its queries that exists, the addresses that it sees, sorted."""
    addresses, seen = gathered(case)
    query_blocks = -(-case["Q"] // case["q_block"])
    return [
        [
            sorted(addresses[r][seen[r, t]].tolist())
            for t in range(seen.shape[1])
            if r % query_blocks * case["q_block"] + t < case["Q"]
        ]
        for r in range(len(addresses))
    ]


def form(case: Case) -> dict[str, Any]:
    """Sizes, and which blocks are gathered in each row, once for each time that they are."""
    addresses, seen = gathered(case)
    N, size = case["N"], case["k_block"]
    outside = sorted({address for address in addresses.flatten().tolist() if not 0 <= address < N})
    blocks = [
        {str(block): n for block, n in sorted(Counter(address // size for address in row).items())}
        for row in addresses.tolist()
    ]
    return {
        "sizes": [seen.shape[0], seen.shape[1], seen.shape[2]],
        "outside": outside,
        "gathered": blocks,
        "dtypes": [str(addresses.dtype).removeprefix("torch."), str(seen.dtype).removeprefix("torch.")],
    }


# ------------------------------------------------------------------------------------------------ 2.3 document_block_mask


def more_mask(name: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    return {
        "causal": lambda b, h, q, kv: kv <= q,
        "window of 2": lambda b, h, q, kv: (kv <= q) & (q - kv < 2),
        "everything": lambda b, h, q, kv: (kv >= 0) & (q >= 0),
        "prefix of 2": lambda b, h, q, kv: (kv <= q) | (kv < 2),
    }[name]


def made(case: Case) -> BlockMask:
    documents = torch.tensor(case["documents"])
    more = {} if case["more"] is None else {"mask_mod": more_mask(case["more"])}
    mask = experiment.document_block_mask(documents, **more, block_size=case["block"])
    return instance(mask, BlockMask, "the result of document_block_mask")


def tokens(case: Case) -> list[list[str]]:
    """Who reads whom by the mask_mod, asked as FlexAttention does."""
    mask, B, L = made(case), len(case["documents"]), len(case["documents"][0])
    asked = tensor(create_mask(mask.mask_mod, B, 1, L, L, device="cpu"), "what the mask_mod gives", 4, "bool")
    return [["".join("■" if cell else "□" for cell in row) for row in asked[b, 0].tolist()] for b in range(B)]


def blocks(case: Case) -> dict[str, Any]:
    """Which blocks are listed: [B] rows of "·", "▨" (partial) and "■" (full)."""
    mask, B = made(case), len(case["documents"])
    partial = listed(mask.kv_num_blocks, mask.kv_indices)
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    grids = [
        [
            "".join(
                "■" if n in full_row else "▨" if n in row else "·"
                for n in range(-(-len(case["documents"][0]) // case["block"]))
            )
            for row, full_row in zip(
                partial[b % len(partial)], full[b % len(full)] if full else [[]] * 99, strict=False
            )
        ]
        for b in range(B)
    ]
    return {"rows": len(partial), "blocks": grids}


def listed(counts: Any, indices: Any) -> list[list[list[int]]]:
    """[B][query blocks] lists of blocks; empty if there are none at all."""
    if counts is None or indices is None:
        return []
    return [
        [indices[b, 0, q, : counts[b, 0, q]].tolist() for q in range(counts.shape[2])] for b in range(counts.shape[0])
    ]


def transposed(case: Case) -> dict[str, Any]:
    """Sizes, and whether the lists that a backward pass needs are there and say the same as the others."""
    mask = made(case)
    same = True
    for forth, back in (
        ((mask.kv_num_blocks, mask.kv_indices), (mask.q_num_blocks, mask.q_indices)),
        ((mask.full_kv_num_blocks, mask.full_kv_indices), (mask.full_q_num_blocks, mask.full_q_indices)),
    ):
        if forth[0] is None:
            continue
        if back[0] is None or back[1] is None:
            return {"lists": "missing", **sizes(mask)}
        pairs = {(b, q, k) for b, rows in enumerate(listed(*forth)) for q, row in enumerate(rows) for k in row}
        same &= pairs == {(b, q, k) for b, rows in enumerate(listed(*back)) for k, row in enumerate(rows) for q in row}
    return {"lists": "there" if same else "others than the forward ones", **sizes(mask)}


def sizes(mask: BlockMask) -> dict[str, Any]:
    return {
        "block": [int(size) for size in mask.BLOCK_SIZE],
        "lengths": [int(length) for length in mask.seq_lengths],
        "heads": int(mask.kv_num_blocks.shape[1]),
    }


# ------------------------------------------------------------------------------------------------ 2.4 attention_swapped


class Probe:
    """An attention function that counts and gives back nothing but zeros."""

    def __init__(self, name: str = "") -> None:
        self.name, self.layers, self.markers = name, list[Any](), list[Any]()

    def __call__(self, module: Any, query: Any, key: Any, value: Any, mask: Any = None, *rest: Any, **more: Any) -> Any:
        self.layers.append(getattr(module, "layer_idx", "no layer"))
        self.markers.append(more.get("marker"))
        return torch.zeros(query.shape[0], query.shape[2], query.shape[1], query.shape[3]), None


def fresh_model(starts_with: str, bypasses: list[int] = []) -> Any:  # noqa: B006  only read
    """A small model; layers in `bypasses` have attention code of their own that asks nobody."""
    model = tiny_model()
    model.set_attn_implementation(starts_with)
    for index in bypasses:
        layer = model.model.layers[index].self_attn
        layer.forward = lambda hidden_states, *args, **kwargs: (torch.zeros_like(hidden_states), None)
    return model


def forward(model: Any, **more: Any) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([[1, 2, 3]]), use_cache=False, **more).logits


def counted(calls: Any, model: Any) -> list[Any]:
    """What the Counter says of each layer."""
    calls = instance(calls, Counter, "what `with ... as calls` gives")
    return [calls[layer.self_attn] for layer in model.model.layers]


def swapped(case: Case) -> dict[str, Any]:
    """Forward passes with the function swapped in."""
    model, probe = fresh_model(case["starts"]), Probe()
    mine = forward(model)
    with torch.inference_mode():
        nothing = forward_without_attention(model)
    answer: dict[str, Any] = {"error": None}
    told: list[Any] = []
    used = False
    try:
        with experiment.attention_swapped(model, probe) as calls:
            for _ in range(case["forwards"]):
                logits = forward(model, marker=7)
                told.append(counted(calls, model))
                used = bool((logits - nothing).abs().max() < 1e-5)
    except (RuntimeError, KeyError, AttributeError, ValueError) as error:
        answer["error"] = type(error).__name__
    answer["calls"] = [probe.layers.count(layer) for layer in range(2)]
    answer["told"] = told
    answer["used"] = used
    answer["markers"] = sorted({str(marker) for marker in probe.markers})
    answer["after"] = model.config._attn_implementation
    answer["as before"] = after_all(model, mine)
    return answer


def forward_without_attention(model: Any) -> Tensor:
    """What comes out if attention gives zeros."""
    kept = [layer.self_attn.forward for layer in model.model.layers]
    for layer in model.model.layers:
        layer.self_attn.forward = lambda hidden_states, *args, **kwargs: (torch.zeros_like(hidden_states), None)
    try:
        return forward(model)
    finally:
        for layer, before in zip(model.model.layers, kept, strict=True):
            layer.self_attn.forward = before


def after_all(model: Any, mine: Tensor) -> bool:
    """Whether the model gives what it gave before."""
    try:
        return bool((forward(model) - mine).abs().max() < 1e-5)
    except Exception:  # the name that it is told to use is gone, for instance
        return False


def goes_wrong(case: Case) -> dict[str, Any]:
    """An error in the block, or a model that does not call the function everywhere."""
    model = fresh_model(case["starts"], case["bypasses"])
    mine = forward(model)
    error = None
    try:
        with experiment.attention_swapped(model, Probe()):
            for _ in range(case["forwards"]):
                forward(model)
            if case["breaks"]:
                raise ZeroDivisionError("the block's own")
    except Exception as caught:
        error = type(caught).__name__
    return {"error": error, "after": model.config._attn_implementation, "as before": after_all(model, mine)}


def one_in_another(case: Case) -> dict[str, Any]:
    """A swap within a swap, on the same model or on two."""
    outer_model = fresh_model("eager")
    inner_model = outer_model if case["same"] else fresh_model("eager")
    outer, inner = Probe("outer"), Probe("inner")
    error = None
    try:
        with experiment.attention_swapped(outer_model, outer):
            forward(outer_model)
            with experiment.attention_swapped(inner_model, inner):
                forward(inner_model)
            forward(outer_model)
    except Exception as caught:
        error = type(caught).__name__
    return {
        "error": error,
        "outer": len(outer.layers),
        "inner": len(inner.layers),
        "after": outer_model.config._attn_implementation,
    }


# ------------------------------------------------------------------------------------------------ 2.5 measure


class Device:
    """A device with a queue, and a stopwatch on its own timeline; time passes only as the case says."""

    def __init__(self, calls: list[list[float]]) -> None:
        self.calls, self.made = calls, 0
        self.host = self.busy_until = self.seen_until = 0.0
        self.waits = 0

    def run(self) -> None:
        compiling, work = self.calls[min(self.made, len(self.calls) - 1)]
        self.made += 1
        self.host += compiling
        self.busy_until = max(self.busy_until, self.host) + work

    def mark(self) -> Any:
        return SimpleNamespace(at=max(self.host, self.busy_until))

    def wait(self) -> None:
        self.waits += 1
        self.host = self.seen_until = max(self.host, self.busy_until)

    def seconds(self, begin: Any, end: Any) -> float:
        if max(begin.at, end.at) > self.seen_until:
            raise RuntimeError("the device has not reached that mark yet")
        return end.at - begin.at


def times(case: Case) -> dict[str, Any]:
    device = Device(case["calls"])
    result = experiment.measure(device.run, device, **case["asked"])
    result = instance(result, experiment.Timing, "the result of measure")
    repeats = instance(result.repeats, (list, tuple), "Timing.repeats")
    return {
        "first": float(instance(result.first, (int, float), "Timing.first")),
        "repeats": [float(instance(one, (int, float), "a time in Timing.repeats")) for one in repeats],
        "calls": device.made,
    }


by_default = times
