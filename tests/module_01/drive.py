"""Runs the cases of module 01 on the learner's masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from course.grading.driving import NotUsable, function, instance, tensor
from flexnano import masks

Case = dict[str, Any]

# ------------------------------------------------------------------------------------------------ asking a mask


def asked_at_once(mask_mod: Any, case: Case) -> dict[str, Any]:
    """What a mask_mod says to index tensors that broadcast to [B, H, Q, K]."""
    b, h = torch.arange(case["B"]), torch.arange(case["H"])
    q, k = torch.tensor(case["q"]), torch.tensor(case["k"])
    answer = mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k)
    return painted(answer, [case["B"], case["H"], len(q), len(k)])


def asked_one_by_one(mask_mod: Any, case: Case) -> dict[str, Any]:
    """What it says to one index at a time, all four without dimensions: as FlexAttention asks, under torch.vmap."""
    q, k = torch.tensor(case["q"]), torch.tensor(case["k"])

    def at_positions(b: Tensor, h: Tensor, q_place: Tensor, k_place: Tensor) -> Tensor:
        answer = mask_mod(b, h, q[q_place], k[k_place])
        return tensor(answer, "what the mask_mod gives back", kind="bool")

    sizes = case["B"], case["H"], len(q), len(k)
    return painted(create_mask(at_positions, *sizes, device="cpu"), list(sizes))


def painted(answer: Any, shape: list[int]) -> dict[str, Any]:
    """A bool tensor as rows of ■ and □; its shape where it does not broadcast to `shape`."""
    answer = tensor(answer, "what the mask_mod gives back", kind="bool")
    try:
        whole = answer.expand(*shape)
    except RuntimeError:
        return {"shape": list(answer.shape)}
    return {"grid": rows(whole)}


def rows(mask: Tensor) -> Any:
    """A bool tensor as nested lists, its last dimension as strings."""
    if mask.ndim == 1:
        return "".join("■" if is_read else "□" for is_read in mask.tolist())
    return [rows(part) for part in mask]


def looked_up(table: list[list[list[str]]]) -> Any:
    """A mask_mod that reads a table [B, H, Q, K] of ■ and □.  A dimension of size 1 is not asked for."""
    whole = torch.tensor([[[[cell == "■" for cell in row] for row in head] for head in batch] for batch in table])
    used = [size > 1 for size in whole.shape]
    values = whole.squeeze()

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        indices = (b, h, q_idx, kv_idx)
        for name, index, is_used in zip(("b", "h", "q_idx", "kv_idx"), indices, used, strict=True):
            if is_used and index is None:
                raise NotUsable(f"a mask that looks at {name} was called with {name} = None")
        return values[tuple(index for index, is_used in zip(indices, used, strict=True) if is_used)]

    mask_mod.__qualname__ = "mask_mod"  # as it stands in the message where it is called with other arguments
    return mask_mod


def refusal(make: Any, *arguments: Any) -> str:
    """What comes of making a mask that must not be made."""
    made = make(*arguments)
    try:
        made(*(torch.tensor(0) for _ in range(4)))
    except Exception as error:
        return f"no error yet; {type(error).__name__} once the mask is asked"
    return "no error"


# ------------------------------------------------------------------------------------------------ 1.1 to 1.5


def causal_at_once(case: Case) -> dict[str, Any]:
    return asked_at_once(masks.causal, case)


def causal_one_by_one(case: Case) -> dict[str, Any]:
    return asked_one_by_one(masks.causal, case)


def window_at_once(case: Case) -> dict[str, Any]:
    return asked_at_once(function(masks.sliding_window(case["window"]), "sliding_window's result"), case)


def window_one_by_one(case: Case) -> dict[str, Any]:
    return asked_one_by_one(function(masks.sliding_window(case["window"]), "sliding_window's result"), case)


def window_refused(case: Case) -> str:
    return refusal(masks.sliding_window, case["window"])


def documents_at_once(case: Case) -> dict[str, Any]:
    made = function(masks.packed_documents(torch.tensor(case["documents"])), "packed_documents' result")
    return asked_at_once(made, case)


def documents_one_by_one(case: Case) -> dict[str, Any]:
    made = function(masks.packed_documents(torch.tensor(case["documents"])), "packed_documents' result")
    return asked_one_by_one(made, case)


def documents_change(case: Case) -> dict[str, Any]:
    document_L = torch.tensor(case["before"], dtype=getattr(torch, case["dtype"]))
    made = function(masks.packed_documents(document_L), "packed_documents' result")
    if case["asked_before"]:
        asked_at_once(made, case)
    document_L.copy_(torch.tensor(case["documents"]))  # other contents, same tensor
    return asked_at_once(made, case)


def all_of_at_once(case: Case) -> dict[str, Any]:
    return asked_at_once(function(masks.all_of(*map(looked_up, case["masks"])), "all_of's result"), case)


def all_of_one_by_one(case: Case) -> dict[str, Any]:
    return asked_one_by_one(function(masks.all_of(*map(looked_up, case["masks"])), "all_of's result"), case)


def all_of_nothing(_case: Case) -> str:
    return refusal(masks.all_of)


def any_of_at_once(case: Case) -> dict[str, Any]:
    return asked_at_once(function(masks.any_of(*map(looked_up, case["masks"])), "any_of's result"), case)


def any_of_one_by_one(case: Case) -> dict[str, Any]:
    return asked_one_by_one(function(masks.any_of(*map(looked_up, case["masks"])), "any_of's result"), case)


def any_of_nothing(_case: Case) -> str:
    return refusal(masks.any_of)


# ------------------------------------------------------------------------------------------------ 1.6 dense_mask


def dense(case: Case) -> dict[str, Any]:
    sizes = [case["B"], case["H"], case["Q"], case["K"]]
    mask = tensor(masks.dense_mask(looked_up(case["mask"]), *sizes), "the mask", kind="bool")
    answer = {"shape": list(mask.shape), "grid": None}
    if mask.numel() <= 1000:
        try:
            answer["grid"] = rows(mask.expand(*sizes))
        except RuntimeError:
            answer["grid"] = None
    return answer


def dense_device(case: Case) -> dict[str, Any]:
    """Made on the device "meta", which is there on every machine and computes nothing."""
    seen: set[str] = set()

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        seen.update(str(index.device) for index in (b, h, q_idx, kv_idx) if isinstance(index, Tensor))
        return (b + h + q_idx + kv_idx) % 2 == 0

    try:
        mask = masks.dense_mask(mask_mod, case["B"], case["H"], case["Q"], case["K"], device=torch.device("meta"))
        result = str(tensor(mask, "the mask").device)
    except (RuntimeError, NotImplementedError) as error:
        # Where nothing is computed no entry can be looked at.  Code that looks at single entries is right on a GPU.
        if "meta" not in str(error).lower():
            raise
        result = "meta"
    return {"indices": "meta" if seen <= {"meta"} else ", ".join(sorted(seen - {"meta"})), "result": result}


# ------------------------------------------------------------------------------------------------ 1.7 and 1.8, blocks


def classified(case: Case) -> dict[str, Any]:
    mask = torch.tensor([[[[cell == "■" for cell in row] for row in head] for head in batch] for batch in case["mask"]])
    return blocks(masks.classify_blocks(mask, tuple(case["block"])))


def intervals(case: Case) -> dict[str, Any]:
    first, last = torch.tensor(case["first"]), torch.tensor(case["last"])
    return blocks(masks.visible_blocks(first, last, case["n_key_blocks"], tuple(case["block"])))


empty_intervals = intervals


def blocks(answer: Any) -> dict[str, Any]:
    """Two maps as one: ■ full, ▨ partial, □ neither, ✗ both.  Their shapes where these differ."""
    answer = instance(answer, (tuple, list), "the result")
    if len(answer) != 2:
        raise NotUsable(f"the result holds {len(answer)} things, not two: partial and full")
    partial, full = tensor(answer[0], "`partial`", kind="bool"), tensor(answer[1], "`full`", kind="bool")
    if partial.shape != full.shape or partial.ndim < 2:
        return {"partial": list(partial.shape), "full": list(full.shape)}
    return {"blocks": _signs(2 * full.int() + partial.int())}


def _signs(kinds: Tensor) -> Any:
    if kinds.ndim == 1:
        return "".join("□▨■✗"[kind] for kind in kinds.tolist())
    return [_signs(part) for part in kinds]


# ------------------------------------------------------------------------------------------------ 1.9, BlockMask


def made(case: Case) -> Any:
    """The BlockMask of a case."""
    partial = torch.tensor([[[[cell == "▨" for cell in row] for row in head] for head in b] for b in case["blocks"]])
    full = torch.tensor([[[[cell == "■" for cell in row] for row in head] for head in b] for b in case["blocks"]])
    mask = masks.block_mask_from_blocks(
        partial, full, looked_up(case["mask"]), tuple(case["block"]), tuple(case["lengths"])
    )
    if mask is None:
        raise NotUsable("the result is None: is a `return` missing?")
    if not hasattr(mask, "kv_num_blocks"):
        raise NotUsable(f"the result is a {type(mask).__name__}, not a BlockMask")
    return mask


def listed(case: Case) -> dict[str, Any]:
    mask = made(case)
    return {
        "partial": lists(mask.kv_num_blocks, mask.kv_indices),
        "full": lists(mask.full_kv_num_blocks, mask.full_kv_indices),
    }


def lists(counts: Any, indices: Any) -> Any:
    """The blocks that a row of blocks names, sorted, for each; None where there are no lists."""
    if counts is None or indices is None:
        return None
    if counts.shape != indices.shape[:-1]:
        raise NotUsable(f"counts of shape {list(counts.shape)} do not go with lists of shape {list(indices.shape)}")

    def sort(counts: Any, indices: Any) -> Any:
        if isinstance(counts, list):
            return [sort(*both) for both in zip(counts, indices, strict=True)]
        return sorted(int(index) for index in indices[: int(counts)])

    return sort(counts.tolist(), indices.tolist())


def form(case: Case) -> dict[str, str]:
    mask = made(case)
    counts_and_lists = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    answer = {name: _said(getattr(mask, name, None)) for name in counts_and_lists}
    n = len(case["blocks"][0][0][0])
    numbers = {
        int(x)
        for name in ("kv_indices", "full_kv_indices")
        if isinstance(getattr(mask, name, None), Tensor)
        for x in getattr(mask, name).flatten().tolist()
    }
    outside = sorted(x for x in numbers if not 0 <= x < n)
    answer["numbers listed"] = f"{', '.join(map(str, outside))}: no such block" if outside else f"0 … {n - 1}"
    return answer


def _said(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else str(value)


def rest(case: Case) -> dict[str, Any]:
    mask = made(case)
    Q, K = case["lengths"]
    asked = {"B": len(case["blocks"]), "H": len(case["blocks"][0]), "q": list(range(Q)), "k": list(range(K))}
    return {
        "block size": list(mask.BLOCK_SIZE),
        "lengths": [int(length) for length in mask.seq_lengths],
        "mask_mod": asked_at_once(function(mask.mask_mod, "the BlockMask's mask_mod"), asked),
    }


# ------------------------------------------------------------------------------------------------ 1.10 soft_cap


def capped(case: Case) -> list[Any]:
    score_mod = function(masks.soft_cap(case["cap"]), "soft_cap's result")
    score = torch.tensor([[case["scores"]]])
    Q, K = score.shape[-2:]
    b, h = torch.zeros(1, 1, 1, 1, dtype=torch.long), torch.zeros(1, 1, 1, dtype=torch.long)
    answer = score_mod(score.clone(), b, h, torch.arange(Q)[:, None], torch.arange(K))
    answer = tensor(answer, "the changed score", kind="float")
    if answer.shape != score.shape:
        raise NotUsable(f"scores of shape {list(score.shape)} came back as {list(answer.shape)}")
    return answer[0, 0].tolist()


def weights(case: Case) -> list[list[float]]:
    """What each key weighs in FlexAttention's eager form: keys and values are unit vectors, queries are the scores."""
    score_mod = function(masks.soft_cap(case["cap"]), "soft_cap's result")
    query = torch.tensor([[case["scores"]]])
    Q, K = query.shape[-2:]
    unit = torch.eye(K)[None, None]
    mask = create_block_mask(looked_up(case["mask"]), 1, 1, Q, K, device="cpu")
    out = flex_attention(query, unit, unit, score_mod=score_mod, block_mask=mask, scale=1.0)
    return instance(out, Tensor, "the output")[0, 0].tolist()
