"""Module 02: attention.  One function that a stock transformers model calls instead of its own, computed on one of three
paths that mean the same:

    compiled  FlexAttention through torch.compile: reads only the blocks that the mask lists
    gather    copies the listed blocks side by side, then plain attention: needs no compiler, runs on a T4
    eager     FlexAttention without a compiler: computes every score, and looks at the mask_mod alone.  A yardstick
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._C._dynamo.eval_frame import reset_code
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface

from .masks import soft_cap

AttentionPath = Literal["compiled", "gather", "eager"]
PATHS: tuple[AttentionPath, ...] = get_args(AttentionPath)


Attend = Callable[..., Tensor]
"""(q, k, v, mask, scale, softcap, kernel_options): q [B, Hq, Q, D], k and v [B or 1, Hk, K, D] -> [B, Hq, Q, D]."""


def attention_forward(
    attend: Attend,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    flex_attn_block_mask: StepMask | Mapping[int | None, StepMask],
    flex_attn_input_pos: Tensor | None = None,
    flex_attn_batch_idx: Tensor | None = None,
    flex_attn_kernel_options: dict[str, Any] | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """What each attention layer of the model calls.  [2.1 · ★★★ · 25 min]

    If the layer has a cache (`module.kv_cache`), the new keys and values go through its `update`, which returns the ones
    to read; and the mask is the one for the cache's window, if there is one for each.

    Args:
        attend: computes the attention, on one of the three paths.
        module: the attention layer.
        query: [B, Hq, Q, D], after RoPE.
        key, value: [B, Hk, Q, D]; Hq is a multiple of Hk: query head h reads key head h // (Hq / Hk).
        attention_mask: not used; transformers makes none for a registered function.
        scaling: factor on the scores; None: 1 / sqrt(D).
        softcap: bound of Gemma 2's soft cap, or None.
        flex_attn_block_mask: mask over the keys that are read, or one for each window: {window or None: mask}.
        flex_attn_input_pos, flex_attn_batch_idx: positions and slots, passed on to the cache.
        flex_attn_kernel_options: passed on to the compiled kernel.

    Returns:
        ([B, Q, Hq, D], None): transposed, since the model flattens heads next; a fully masked row is 0.
    """
    ### BEGIN SOLUTION
    mask = flex_attn_block_mask
    cache = getattr(module, "kv_cache", None)
    if cache is not None:
        key, value = cache.update(flex_attn_input_pos, key, value, flex_attn_batch_idx)
    if isinstance(mask, Mapping):
        mask = mask[cache.window if cache is not None else None]
    scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])
    out_BHQD = attend(query, key, value, mask, scale, softcap, flex_attn_kernel_options)
    return out_BHQD.transpose(1, 2).contiguous(), None
    ### END SOLUTION


# ---------------------------------------------------------------------- FlexAttention, compiled and eager


def attend_flex(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float, softcap: float | None, options: Any
) -> Tensor:
    """FlexAttention, for the compiler to make one kernel of."""
    score_mod = None if softcap is None else soft_cap(softcap)
    many = q.shape[1] != k.shape[1]
    return flex_attention(q, k, v, score_mod, mask, scale, enable_gqa=many, kernel_options=options)


def allow_many_graphs() -> None:
    """Let one function have a graph for each batch size, prefill length and window; dynamo's own limit is 8.

    Beyond it, fullgraph makes an error of what would otherwise be a silent and very slow fallback to eager.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 64)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 1024)


def compiled_attention(device_type: str) -> Attend:
    """FlexAttention as one kernel, with graphs of its own: one for each caller, that is for each engine."""
    # dynamo keeps what it learns by code object, and makes a variable of each size that it has seen change.  Engines with
    # pools or pages of different sizes would teach each other kernels that don't compile, so each gets its own.
    code = attend_flex.__code__.replace(co_name=f"attend_{next(_numbers)}")
    attend = FunctionType(code, globals(), code.co_name)
    allow_many_graphs()
    # On a GPU FlexAttention has a kernel of its own for decode, and takes it only where the batch size is a constant of
    # the graph: one graph a size.  On a CPU one graph with the size as a variable serves all.
    return torch.compile(attend, fullgraph=True, dynamic=False if device_type == "cuda" else None)


_numbers = itertools.count()


def attend_eager(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float, softcap: float | None, options: Any
) -> Tensor:
    """FlexAttention in plain tensor operations: all scores, over the whole pool."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile.*")
        return attend_flex(q, k, v, mask, scale, softcap, None)


# ---------------------------------------------------------------------- gather, then plain attention


@dataclass(frozen=True)
class GatherMask:
    """A BlockMask as the gather path reads it, worked out once a step and used by every layer.

    Letters: R rows of gathered keys, one for each block of queries of each batch row; T queries in a block.

    address_RK: int64, the keys that each row reads, as places in the keys given to attention.
    visible_RTK: bool, which of them each query reads.
    """

    address_RK: Tensor
    visible_RTK: Tensor

    @functools.cached_property
    def readers(self) -> Tensor | None:
        """bool, the queries that see a key at all; None if all do, as nearly always."""
        sees_RT = self.visible_RTK.any(dim=-1)
        return None if sees_RT.all() else sees_RT


StepMask = BlockMask | GatherMask
"""The mask of one step, in the form that its attention path reads."""


def listed_blocks(num_blocks: Tensor, indices: Tensor, n_blocks: int) -> Tensor:
    """Which blocks a list of a BlockMask names: int32 [B, 1, QB], [B, 1, QB, W] -> bool [B, QB, n_blocks]."""
    counted = torch.arange(indices.shape[-1], device=indices.device) < num_blocks[..., None]
    # What stands behind the count is not listed: it goes into a column that is cut off.
    column = indices.long().where(counted, n_blocks)[:, 0]
    return torch.zeros(*column.shape[:2], n_blocks + 1, dtype=torch.bool, device=indices.device).scatter_(
        2, column, True
    )[..., :n_blocks]


def gather_mask(block_mask: BlockMask) -> GatherMask:
    """Work out which keys each block of queries reads.  [2.2 · ★★★ · 30 min]

    For each block of queries the blocks of keys that it lists, partial or full, are put side by side.  Rows that list fewer
    are filled up with block 0, which they don't see.  Entries of a full block are visible without asking, entries of a
    partial one if the mask_mod says so, all others are not.

    Args:
        block_mask: B rows, one head, any number of queries.

    Returns:
        GatherMask with R = B × query blocks, batch row by batch row; T = the block's queries, at most Q;
        K = (most blocks that a row lists, at least 1) × block size.  Keys beyond the sequence length are not visible, and
        their addresses lie inside of it all the same, since they are gathered.
    """
    ### BEGIN SOLUTION
    Q, N = block_mask.seq_lengths
    q_block, k_block = block_mask.BLOCK_SIZE
    n_blocks = -(-N // k_block)
    partial = listed_blocks(block_mask.kv_num_blocks, block_mask.kv_indices, n_blocks)
    full = torch.zeros_like(partial)
    if block_mask.full_kv_num_blocks is not None and block_mask.full_kv_indices is not None:
        full = listed_blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, n_blocks)
    query_blocks, device = partial.shape[1], partial.device
    partial, full = partial.flatten(0, 1), full.flatten(0, 1)

    read = partial | full
    widest = max(1, int(read.sum(dim=1).max()))
    block_RJ = torch.argsort(read.int(), dim=1, descending=True, stable=True)[:, :widest]
    partial, full = (
        blocks.gather(1, block_RJ).repeat_interleave(k_block, dim=1)[:, None] for blocks in (partial, full)
    )
    # Block 0 is the sink in the cache: another sequence's page might hold NaN, and 0 · NaN is NaN.
    gathered_RJ = block_RJ.where(read.gather(1, block_RJ), 0)
    address_RK = (gathered_RJ[..., None] * k_block + torch.arange(k_block, device=device)).flatten(1)

    row = torch.arange(len(read), device=device)[:, None, None]
    q = row % query_blocks * q_block + torch.arange(min(q_block, Q), device=device)[None, :, None]
    inside_RK = address_RK.clamp(max=N - 1)
    b = row // query_blocks
    allowed = block_mask.mask_mod(b, torch.zeros_like(b), q.clamp(max=Q - 1), inside_RK[:, None])
    return GatherMask(inside_RK, (full | (partial & allowed)) & (address_RK < N)[:, None])
    ### END SOLUTION


def attend_gather(
    q: Tensor, k: Tensor, v: Tensor, mask: GatherMask, scale: float, softcap: float | None, options: Any
) -> Tensor:
    """Plain attention over the keys that the mask names: [B, Hq, Q, D] -> [B, Hq, Q, D]."""
    B, Hq, Q, _ = q.shape
    Hk, group = k.shape[1], Hq // k.shape[1]
    T = mask.visible_RTK.shape[1]
    blocks = -(-Q // T)
    if (times := B * blocks // len(mask.visible_RTK)) > 1:  # one mask for all batch rows
        mask = GatherMask(mask.address_RK.repeat(times, 1), mask.visible_RTK.repeat(times, 1, 1))
    address_RK, visible_R1TK = mask.address_RK, mask.visible_RTK[:, None]
    R, K = address_RK.shape

    def rows(pool: Tensor) -> Tensor:
        """[B or 1, Hk, N, D] -> [R, Hk, K, D]."""
        if len(pool) > 1:  # no cache: each batch row has keys of its own
            batch_row_R1 = torch.arange(R, device=pool.device)[:, None] // blocks
            return pool[batch_row_R1, :, address_RK].transpose(1, 2)
        return pool[0].index_select(1, address_RK.flatten()).unflatten(1, (R, K)).transpose(0, 1)

    # Each block of queries is a row of its own; query heads that share a key head become further queries of it, so that no
    # key is copied for them.
    q = nn.functional.pad(q, (0, 0, 0, blocks * T - Q)).view(B, Hk, group, blocks, T, -1)
    q = q.permute(0, 3, 1, 2, 4, 5).reshape(R, Hk, group * T, -1)
    # One query a row, as in decode: its mask serves the whole group as it is.
    visible = visible_R1TK if T == 1 else visible_R1TK.repeat(1, 1, group, 1)
    if softcap is None:
        out = nn.functional.scaled_dot_product_attention(q, rows(k), rows(v), attn_mask=visible, scale=scale)
    else:
        scores = (q.float() @ rows(k).float().transpose(2, 3)) * scale
        scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, -math.inf)
        out = (torch.softmax(scores, dim=-1) @ rows(v).float()).to(q.dtype)
    out = out.view(R, Hk, group, T, -1)
    if mask.readers is not None:  # a query that sees nothing gives 0 / 0
        out = out.where(mask.readers[:, None, None, :, None], 0)
    out = out.view(B, blocks, Hk, group, T, -1)
    return out.permute(0, 2, 3, 1, 4, 5).reshape(B, Hq, blocks * T, -1)[:, :, :Q]


def prepare_mask(path: AttentionPath, block_mask: StepMask) -> StepMask:
    """The mask in the form that the path reads; one that has it already stays as it is."""
    return gather_mask(block_mask) if path == "gather" and isinstance(block_mask, BlockMask) else block_mask


# ---------------------------------------------------------------------- transformers


def register_attention(
    path: AttentionPath, device_type: str, inlined: bool = False, around: Callable[[Attend], Attend] | None = None
) -> str:
    """Tell transformers of an attention function on one of the paths.

    Args:
        path, device_type: what `choose_path` chose, and for which device.
        inlined: FlexAttention is called from layers that are compiled themselves (module 07), and becomes part of them.
        around: makes of it what is registered (homeworks).

    Returns:
        The name to give to `model.set_attn_implementation`.
    """
    plain: dict[str, Attend] = {"gather": attend_gather, "eager": attend_eager}
    attend = plain[path] if path in plain else attend_flex if inlined else compiled_attention(device_type)
    name = f"flexnano_{path}_{next(_numbers)}"
    function: Any = functools.partial(attention_forward, around(attend) if around else attend)
    function.compiled = getattr(attend, "_torchdynamo_orig_callable", None)
    AttentionInterface.register(name, function)
    return name


def forget_attention(name: str) -> None:
    """Take back what `register_attention` did."""
    function = AttentionInterface._global_mapping.pop(name, None)
    if (compiled := getattr(function, "compiled", None)) is not None:
        # dynamo keeps compiled graphs with the code, in a circle that Python never collects.
        reset_code(compiled.__code__)
