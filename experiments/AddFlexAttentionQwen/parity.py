"""Do the logits agree?  Every implementation against `eager`, for every kind of mask, on the rows that see a key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexnano import (
    all_of,
    any_of,
    attention_forward,
    attention_swapped,
    causal,
    document_block_mask,
    prepare_mask,
    sliding_window,
)
from flexnano.attention import attend_eager, attend_gather

from . import models
from .cases import document_lengths
from .implementations import additive, cumulative, flex_attention_static, sdpa_per_document, varlen

ROWS = 2
PADDING = -1


def prefix(length: int) -> Callable[..., Tensor]:
    """A query reads the prefix whatever comes after what."""

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx < length

    return mask_mod


def masks(length: int, window: int, device: str) -> dict[str, tuple[Tensor, Callable[..., Tensor]]]:
    """(documents [B, L], what must hold besides) for each kind of mask."""
    one = torch.zeros(ROWS, length, dtype=torch.int64, device=device)
    padded = one.clone()
    padded[0, : length // 3] = PADDING  # on the left, as for generation
    padded[1, length - length // 5 :] = PADDING  # on the right, as for training
    packed = torch.stack(
        [
            torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            for lengths in (document_lengths(length, max(1, length // 5), seed=row) for row in range(ROWS))
        ]
    ).to(device)
    both = packed.clone()
    both[padded < 0] = PADDING
    return {
        "causal": (one, causal),
        "padding": (padded, causal),
        "packed documents": (packed, causal),
        f"sliding window of {window}": (one, all_of(causal, sliding_window(window))),
        "prefix-LM": (one, any_of(causal, prefix(length // 4))),
        "packed, padding and window": (both, all_of(causal, sliding_window(window // 4))),
    }


def compare(job: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
    """Rows with the largest difference of a logit, of one dtype and one group of implementations.

    The truth is `eager` in float32, also for bfloat16, where eager's own distance from it is the yardstick.
    """
    device, dtype = job["device"], getattr(torch, job["dtype"])
    exact = models.build(job["model"], torch.float32, device, **job["changes"])
    rounded = exact
    if dtype != torch.float32:
        rounded = models.build(job["model"], dtype, device, **job["changes"])
        rounded.load_state_dict(exact.state_dict())
    length = job["length"]
    ids = torch.randint(0, exact.config.vocab_size, (ROWS, length), generator=torch.Generator().manual_seed(2))
    for kind, (documents, mask_mod) in masks(length, job["window"], device).items():
        if job["kinds"] and kind not in job["kinds"]:
            continue
        block_mask = document_block_mask(documents, mask_mod)
        dense = as_dense(block_mask, device)
        at = torch.arange(length, device=device)[None].expand(ROWS, -1)
        call = dict(input_ids=ids.to(device), position_ids=at, use_cache=False)
        truth = logits(exact, "eager", block_mask, dense, documents, call)
        sees = dense.any(-1)[:, 0]
        plain_causal = as_dense(document_block_mask(torch.zeros_like(documents)), device)
        other = logits(exact, "eager", block_mask, plain_causal, documents, call)
        for name in job["implementations"]:
            if name in ("per_document", "varlen") and (documents.min() < 0 or mask_mod is not causal):
                continue  # they know nothing but documents
            row: dict[str, Any] = {"mask": kind, "implementation": name, "dtype": job["dtype"], "length": length}
            write({"begins": row})
            torch._dynamo.reset()  # the masks differ in numbers, which must not become variables of one graph
            try:
                got = logits(rounded, name, block_mask, dense, documents, call)
            except Exception as error:  # a row that says why
                write({"parity": row | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}})
                continue
            off = (got - truth).abs().amax(-1)
            row |= {
                "largest_difference": float(off[sees].max()),
                "mean_difference": float((got - truth)[sees].abs().mean()),
                "nan_where_a_key_is_seen": bool(got[sees].isnan().any()),
                "rows_that_see_nothing": int((~sees).sum()),
                "nan_where_none_is_seen": bool(got[~sees].isnan().any()),
                "size_of_logits": float(truth[sees].std()),
                "difference_if_the_mask_were_causal": float((other - truth)[sees].abs().max()),
            }
            write({"parity": row})


def as_dense(mask: BlockMask, device: str) -> Tensor:
    """bool [B, 1, L, L]."""
    at = torch.arange(mask.seq_lengths[0], device=device)
    b = torch.arange(ROWS, device=device)[:, None, None, None]
    return mask.mask_mod(b, torch.zeros_like(b), at[:, None], at).expand(ROWS, 1, len(at), len(at))


def logits(
    model: Any, name: str, block_mask: BlockMask, dense: Tensor, documents: Tensor, call: dict[str, Any]
) -> Tensor:
    """float32 [B, L, V]."""
    with torch.inference_mode():
        if name in ("eager", "sdpa", "hf_flex"):
            model.set_attn_implementation("flex_attention" if name == "hf_flex" else name)
            mask: Any = block_mask if name == "hf_flex" else dense if name == "sdpa" else additive(dense, model.dtype)
            return model(attention_mask={"full_attention": mask}, **call).logits.float()
        lengths: list[list[int]] = []
        if name in ("per_document", "varlen"):
            lengths = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in documents]
        if name == "per_document":
            with attention_swapped(model, sdpa_per_document):
                return model(documents=lengths, **call).logits.float()
        if name == "varlen":
            with attention_swapped(model, functools.partial(varlen, window=None)):
                return model(**cumulative(lengths, model.device), **call).logits.float()
        attend: Any = {"ours_eager": attend_eager, "ours_gather": attend_gather}.get(name) or flex_attention_static()
        mask = prepare_mask("gather" if name == "ours_gather" else "eager", block_mask)
        with attention_swapped(model, functools.partial(attention_forward, attend)):
            return model(flex_attn_block_mask=mask, **call).logits.float()
