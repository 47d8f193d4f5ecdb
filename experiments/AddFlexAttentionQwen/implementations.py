"""The ways in which the model may compute its attention, each with the mask in the form that it wants.

No model code is copied: transformers' own are chosen by name, all others go through `attention_swapped`, which proves that
every layer called them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from flexnano import all_of, attention_forward, attention_swapped, causal, document_block_mask, sliding_window
from flexnano.attention import compiled_attention

from .cases import BLOCK, WINDOW, Case, documents_of

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
IN_TRANSFORMERS = {"eager": "eager", "sdpa": "sdpa", "sdpa_causal": "sdpa", "hf_flex": "flex_attention"}


@contextlib.contextmanager
def set_up(model: Any, case: Case, documents: list[list[int]] | None = None) -> Iterator[Callable[[], dict[str, Any]]]:
    """Let the model compute its attention as the case says.  Gives a function that makes the arguments for `model(...)`.

    The masks are made when that function is called, so that making them can be measured by itself.
    """
    name, device = case.implementation, model.device
    documents = documents or documents_of(case)
    if (known := IN_TRANSFORMERS.get(name)) and case.work != "decode":
        before = model.config._attn_implementation
        model.set_attn_implementation(known)
        try:
            # A mask for each kind of layer is taken as it is; Qwen3 makes its own only if there is none.
            yield lambda: {"attention_mask": {"full_attention": mask_for(name, case, device, model.dtype)}}
        finally:
            model.set_attn_implementation(before)
        return
    with attention_swapped(model, attention_for(name, case)):
        if name == "ours":
            yield lambda: {"flex_attn_block_mask": block_mask(case, device)} | cache_arguments(case, device)
        elif name in ("per_document", "varlen"):
            yield lambda: {"documents": documents} | cumulative(documents, device)
        else:
            yield lambda: {"dense_or_block": mask_for(name, case, device, model.dtype)}


def attention_for(name: str, case: Case) -> Callable[..., Any]:
    """The attention function to swap in."""
    if name == "ours":
        return functools.partial(attention_forward, flex_attention_static())
    if name == "per_document":
        return sdpa_per_document
    if name == "varlen":
        return functools.partial(varlen, window=WINDOW if case.mask == "window" else None)
    return functools.partial(with_cache, "sdpa" if name == "last_keys" else IN_TRANSFORMERS[name], name == "last_keys")


@functools.cache
def flex_attention_static() -> Callable[..., Tensor]:
    """FlexAttention, compiled for each shape anew, on a CPU too: the masks here hold tensors as long as the input."""
    return compiled_attention("cuda")


# --------------------------------------------------------------------------------------------------------- masks


def document_ids(documents: list[list[int]], device: torch.device | str) -> Tensor:
    """int64 [B, L]: which document each token belongs to."""
    rows = [[i for i, n in enumerate(row) for _ in range(n)] for row in documents]
    return torch.tensor(rows, device=device)


def positions(documents: list[list[int]], device: torch.device | str) -> Tensor:
    """int64 [B, L]: the position of each token in its document."""
    return torch.tensor([list(itertools.chain(*map(range, row))) for row in documents], device=device)


def mask_mod_of(case: Case) -> MaskMod:
    return all_of(causal, sliding_window(WINDOW)) if case.mask == "window" else causal


def block_mask(case: Case, device: torch.device) -> BlockMask:
    """The case's mask for FlexAttention."""
    if case.work == "decode":
        last, window = case.length - 1, WINDOW if case.mask == "window" else case.length

        def decode(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return last - kv_idx < window

        return create_block_mask(decode, None, None, 1, case.length, device=device, BLOCK_SIZE=BLOCK)
    if case.mask == "packed":
        return document_block_mask(document_ids(documents_of(case), device), causal, BLOCK)
    mask_mod, n = mask_mod_of(case), case.length
    return create_block_mask(mask_mod, None, None, n, n, device=device, BLOCK_SIZE=BLOCK)


def dense(case: Case, device: torch.device) -> Tensor:
    """bool [B or 1, 1, Q, K]."""
    mask, batch = block_mask(case, device), case.batch if case.mask == "packed" else 1
    queries = 1 if case.work == "decode" else case.length
    b, q, kv = (torch.arange(n, device=device) for n in (batch, queries, case.length))
    allowed = mask.mask_mod(b[:, None, None, None], torch.zeros_like(b)[:, None, None, None], q[:, None], kv)
    return allowed.expand(batch, 1, queries, case.length).contiguous()


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to the scores, as transformers makes it for eager attention."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def mask_for(name: str, case: Case, device: torch.device, dtype: torch.dtype) -> Any:
    """The mask in the form that one of transformers' functions takes."""
    if name in ("sdpa_causal", "last_keys") or (name in ("sdpa", "eager") and reads_all(case)):
        return None
    if name == "hf_flex":
        return block_mask(case, device)
    mask = dense(case, device)
    return additive(mask, dtype) if name == "eager" else mask


def reads_all(case: Case) -> bool:
    return case.work == "decode" and (case.mask == "causal" or case.length <= WINDOW)


# --------------------------------------------------------------------------------- the rivals that know the documents


def cumulative(documents: list[list[int]], device: torch.device) -> dict[str, Any]:
    """Where documents begin and end in all rows laid end to end, as flash attention wants it."""
    lengths = list(itertools.chain(*documents))
    return {
        "cu_documents": torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device),
        "longest": max(lengths),
    }


def sdpa_per_document(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    *,
    documents: list[list[int]],
    **more: Any,
) -> tuple[Tensor, None]:
    """Each document by itself with `is_causal`: no mask, no wasted work, a kernel a document."""
    scale, many = more.get("scaling"), query.shape[1] != key.shape[1]
    rows = []
    for row, lengths in enumerate(documents):
        parts = zip(*(x[row : row + 1].split(lengths, dim=2) for x in (query, key, value)), strict=True)
        outputs = [
            nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=many)
            for q, k, v in parts
        ]
        rows.append(torch.cat(outputs, dim=2))
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    *,
    window: int | None,
    cu_documents: Tensor,
    longest: int,
    **more: Any,
) -> tuple[Tensor, None]:
    """Flash attention that is told where documents begin (`torch.nn.attention.varlen`): one kernel, no mask at all."""
    from torch.nn.attention.varlen import varlen_attn

    group = query.shape[1] // key.shape[1]
    takes = inspect.signature(varlen_attn).parameters
    if "enable_gqa" not in takes:
        key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))  # [B, H, L, D] -> [B·L, H, D]
    # Flash counts the keys before the query's own.
    more_given: dict[str, Any] = {"window_size": (-1 if window is None else window - 1, 0)}
    if "enable_gqa" in takes:
        more_given["enable_gqa"] = group > 1
    lengths = (cu_documents, cu_documents, longest, longest)
    out: Any = varlen_attn(q, k, v, *lengths, scale=more.get("scaling"), **more_given)
    return out.unflatten(0, (query.shape[0], query.shape[2])).contiguous(), None


# -------------------------------------------------------------------------------------------------------- decoding


class FullCache:
    """Keys and values of `length` tokens, the newest of which is the one that comes in."""

    window = None

    def __init__(self, batch: int, heads: int, length: int, head_dim: int, like: Tensor) -> None:
        shape = (batch, heads, length, head_dim)
        self.k, self.v = (torch.randn(shape, dtype=like.dtype, device=like.device) for _ in range(2))

    def update(self, _position: Any, k: Tensor, v: Tensor, _slot: Any) -> tuple[Tensor, Tensor]:
        self.k[:, :, -1:], self.v[:, :, -1:] = k, v
        return self.k, self.v


def attach_full_caches(model: Any, case: Case) -> None:
    config = model.config
    for layer in model.model.layers:
        layer.self_attn.kv_cache = FullCache(
            case.batch, config.num_key_value_heads, case.length, config.head_dim, layer.self_attn.q_proj.weight
        )


def detach_caches(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.__dict__.pop("kv_cache", None)


def cache_arguments(case: Case, device: torch.device) -> dict[str, Any]:
    if case.work != "decode":
        return {}
    every = torch.full((case.batch,), case.length - 1, device=device)
    return {"flex_attn_input_pos": every, "flex_attn_batch_idx": every}


def with_cache(
    function: str,
    crop: bool,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    *,
    dense_or_block: Any,
    **more: Any,
) -> Any:
    """One of transformers' own functions, over the keys of the cache; with `crop` only over those in the window."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.qwen3.modeling_qwen3 import eager_attention_forward

    key, value = module.kv_cache.update(None, key, value, None)
    if crop:
        key, value = key[:, :, -WINDOW:], value[:, :, -WINDOW:]
    attention = eager_attention_forward if function == "eager" else ALL_ATTENTION_FUNCTIONS[function]
    return attention(module, query, key, value, dense_or_block, **more)
