# Your copy of solutions/flexnano/mixed_step.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 9b78eb444f7a46a5
"""Modules 08 to 10: a step whose prompts read the pool.

Module 06 prefills whole prompts, which read only their own fresh keys.  A prompt that begins with shared pages, or of which
an earlier step has computed a part, has keys in the pool too.  Here all queries read the pool: a decode row is one query, a
part of a prompt is cut into rows of `block` queries, each row of one sequence.  So both are what module 03 knows: batch rows
with a slot, whose logical mask the page table converts.

Letters: B decode rows; R rows of prompts; T queries in such a row.

Source: Agrawal et al., "SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills", 2023.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from .attention import Attend, StepMask, prepare_mask
from .kv_cache import PagedKVCache
from .masks import MaskMod, all_of, block_mask_from_blocks, causal, sliding_window, visible_blocks
from .page_table import PageTable
from .path_probe import keys_of_a_tile
from .planner import Chunk, Planner
from .scheduler import Row

if TYPE_CHECKING:
    from .inference import Inference

GPU_BLOCK = 64
"""Queries in a row of a prompt on a GPU: fewer make more rows, which the card's processors share."""

PagesRead = Callable[[Tensor], tuple[Tensor, Tensor]]
"""positions [R, T] -> (partial, full), bool [R, 1, logical pages]: the pages that a row reads."""


class PoolReader:
    """A layer's cache whose `update` returns the pool, also where prompts are packed.  Given.

    Padding behind a part of a prompt has what is computed from that prompt, and may be NaN with it.  Page 0 stays finite.
    """

    def __init__(self, cache: PagedKVCache) -> None:
        self.cache, self.window = cache, cache.window

    def update(self, input_pos: Tensor, k: Tensor, v: Tensor, batch_idx: Tensor) -> tuple[Tensor, Tensor]:
        if batch_idx.ndim == 2:
            real = (batch_idx > 0)[:, None, :, None]
            k, v = k.where(real, 0), v.where(real, 0)
        self.cache.update(input_pos, k, v, batch_idx)
        return self.cache.k_cache, self.cache.v_cache


# ---------------------------------------------------------------------- masks


class RowMasks:
    """Masks over the pool for rows of queries.  Given.

    Args:
        table: whose pages the rows read.
        rows, queries: the most rows, and the queries in each.
        rule: mask_mod over positions in the sequence.
        pages_read: the same by pages.
    """

    def __init__(self, table: PageTable, rows: int, queries: int, rule: MaskMod, pages_read: PagesRead) -> None:
        # The same table, but with rows of its own: decode and prompts of one step must not write into the same buffer.
        self.table = copy.copy(table)
        device = table.page_table.device
        self.table.max_batch_size, self.table.slot_of_row = rows, torch.zeros(rows, dtype=torch.int64, device=device)
        self.position_RT = torch.zeros(rows, queries, dtype=torch.int64, device=device)
        self.pages_read = pages_read
        position_RT = self.position_RT

        def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, position: Tensor) -> Tensor:
            return rule(b, h, position_RT[b, q_idx], position)

        self.mask_mod = mask_mod

    def block_mask(self, slot_R: Tensor, position_RT: Tensor) -> BlockMask:
        """int64 [R], the slot of each row, 0 for padding; int64 [R, T], its positions -> BlockMask over the pool."""
        (R, T), page_size = position_RT.shape, self.table.page_size
        self.position_RT[:R, :T] = position_RT
        partial, full = self.pages_read(position_RT.where(slot_R[:, None] > 0, -1))
        logical = block_mask_from_blocks(
            partial[:, None],
            full[:, None],
            self.mask_mod,
            (128 if T == 1 else T, page_size),
            (T, self.table.pages_per_row * page_size),
        )
        return self.table.convert_logical_block_mask(logical, slot_R)


def plain_rule(window: int | None) -> MaskMod:
    """What a query may read in a model as it was trained."""
    return causal if window is None else all_of(causal, sliding_window(window))


def plain_pages(table: PageTable, window: int | None) -> PagesRead:
    """The pages that rows of queries read in a model as it was trained."""

    def pages_read(position_RT: Tensor) -> tuple[Tensor, Tensor]:
        first_RT = torch.zeros_like(position_RT) if window is None else (position_RT - window + 1).clamp(min=0)
        return visible_blocks(first_RT, position_RT, table.pages_per_row, (position_RT.shape[1], table.page_size))

    return pages_read


# ---------------------------------------------------------------------- the row of a step


@dataclass(frozen=True)
class Layout:
    """What lies where in the row of a step: first the decode rows, one token each, then the rows of prompts.

    Fields:
        token_ids, slots, positions: of each token.  Padding has token 0 and slot 0, and the position of the last token before
            it in its row.
        row_slots: of each row of a prompt.
        logits_at: the places of the tokens after which a token is due, in the order of the step's rows.
        n_decode: decode rows.
    """

    token_ids: list[int]
    slots: list[int]
    positions: list[int]
    row_slots: list[int]
    logits_at: list[int]
    n_decode: int


def lay_out_chunks(chunks: Sequence[Row], block: int) -> Layout:
    """A step of prompts alone.  Given: what `lay_out` does beside decode rows."""
    layout = Layout([], [], [], [], [], 0)
    for chunk in chunks:
        sequence, end = chunk.sequence, chunk.start + chunk.n_tokens
        padding = -chunk.n_tokens % block
        layout.token_ids.extend([*sequence.token_ids[chunk.start : end], *[0] * padding])
        layout.slots.extend([*[sequence.slot] * chunk.n_tokens, *[0] * padding])
        layout.positions.extend([*range(chunk.start, end), *[end - 1] * padding])
        layout.row_slots.extend([sequence.slot] * ((chunk.n_tokens + padding) // block))
        if gives_token(chunk):
            layout.logits_at.append(len(layout.token_ids) - padding - 1)
    return layout


def rows_of(chunks: Sequence[Row], block: int) -> list[slice]:
    """Which rows of prompts each part of a prompt fills.  Given."""
    ends = list(itertools.accumulate(-(-chunk.n_tokens // block) for chunk in chunks))
    return [slice(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def gives_token(row: Row) -> bool:
    """Whether a token is due after this row: not in the middle of a prompt.  Given."""
    return not isinstance(row, Chunk) or row.is_last


def lay_out(decodes: Sequence[Row], chunks: Sequence[Row], block: int) -> Layout:
    """One row for a whole step: decode rows and parts of prompts side by side.  [10.2 · ★★★ · 30 min]

    First one token for each decode row, the newest of its sequence, whose position is `start`.  Then the chunks: each begins
    a new row of `block` tokens and is filled up to whole rows, so that no row belongs to two sequences.

    Args:
        decodes: rows of one token.
        chunks: parts of prompts, tokens start … start + n_tokens - 1 of `sequence.token_ids`.
        block: tokens in a row of a prompt.

    Returns:
        A Layout.  `logits_at` has a place for each decode row, then one for the last token of each chunk that is its prompt's
        last (`gives_token`): the model says nothing useful in the middle of a prompt.

    Two decodes and a chunk of 5 tokens, block 4: the tokens lie at 0, 1 and 2 … 6; 7 … 9 are padding; two rows of a prompt.
    """
    raise NotImplementedError("Exercise 10.2: lay_out")


# ---------------------------------------------------------------------- attention


@dataclass(frozen=True)
class MixedMask:
    """The masks of a step with rows of prompts.

    Fields:
        n_decode: how many of the row's first tokens are decode rows, B.
        n_rows: rows of prompts behind them, R.
        decode, chunks: the masks of either; None where there are none.
    """

    n_decode: int
    n_rows: int
    decode: StepMask | None
    chunks: StepMask | None


def attend_chunks(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: MixedMask, scale: float, softcap: float | None, options: Any
) -> Tensor:
    """Attention of rows of prompts: [1, Hq, R·T, D] -> [1, Hq, R·T, D].  Given."""
    q_RHTD = q[0].unflatten(1, (mask.n_rows, -1)).transpose(0, 1)
    out_RHTD = attend(q_RHTD, k, v, mask.chunks, scale, softcap, options)
    return out_RHTD.transpose(0, 1).flatten(1, 2)[None]


def attend_side_by_side(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: MixedMask,
    scale: float,
    softcap: float | None,
    options: tuple[Any, Any],
) -> Tensor:
    """Attention of a step in which some decode while prompts are computed.  [10.3 · ★★★ · 25 min]

    The first B = `mask.n_decode` queries are decode rows: they go to `attend` as [B, Hq, 1, D], with `mask.decode`.  The
    others are rows of prompts: `attend_chunks` does them.  Both read the same pool.

    Args:
        attend: computes attention: (q [rows, Hq, queries, D], k, v, mask, scale, softcap, options) -> the shape of q.
        q: [1, Hq, B + R·T, D].
        k, v: [1, Hk, N, D], the pool.
        mask: its `decode` and `chunks` are both there.
        scale, softcap: passed on.
        options: (of decode, of prompts), passed on.

    Returns:
        [1, Hq, B + R·T, D], in the order of the queries.
    """
    raise NotImplementedError("Exercise 10.3: attend_side_by_side")


def mixed_attention(attend: Attend) -> Attend:
    """Attention for steps with rows of prompts, and for all others as before.  Given."""

    def attend_rows(q: Tensor, *rest: Any) -> Tensor:
        # A view that begins in the middle of a tensor is read from its beginning by torch's compiled CPU kernel, and strides
        # that change with the length of the row would be compiled for anew.  On a GPU each length is compiled anyway.
        return attend(q if q.is_cuda else q.contiguous(), *rest)

    def attend_mixed(
        q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, softcap: float | None, options: Any
    ) -> Tensor:
        if not isinstance(mask, MixedMask):
            return attend(q, k, v, mask, scale, softcap, options)
        if mask.n_decode and mask.n_rows:
            return attend_side_by_side(attend_rows, q, k, v, mask, scale, softcap, options)
        if mask.n_rows:
            return attend_chunks(attend_rows, q, k, v, mask, scale, softcap, options[1])
        q_BH1D = q[0].transpose(0, 1)[:, :, None]
        return attend_rows(q_BH1D, k, v, mask.decode, scale, softcap, options[0])[:, :, 0].transpose(0, 1)[None]

    return attend_mixed


# ---------------------------------------------------------------------- a step


def rows_due(rows: Sequence[Row]) -> list[Row]:
    """The rows of a fused step after which a token is due, in the order of their logits.  [10.4 · ★☆☆ · 10 min]

    A decode row gives a token, and a part of a prompt only if it is the prompt's last (`gives_token`).  The logits of a step
    lie as its tokens do (`Layout.logits_at`): those of the decode rows first, then those of the prompts, either in the order
    of `rows`.  A part of a prompt is a `Chunk`, even one of a single token; all others are decode rows.

    Args:
        rows: of one step, decode rows and parts of prompts in any order.

    Returns:
        The rows to choose a token for: the first one's logits are row 0 of what the model gives, the next one's row 1, …

    The last part of prompt A, a decode row of B, a part from the middle of prompt C: B, A.
    """
    raise NotImplementedError("Exercise 10.4: rows_due")


class MixedSteps:
    """Runs the rows of a planner's steps for an engine.  Given.

    Args:
        engine: with tables, and caches attached.
        planner: of the engine.
        rules, pages: by window, the mask over positions and over pages; None: as the model was trained.
    """

    def __init__(
        self,
        engine: Inference,
        planner: Planner,
        rules: dict[int | None, MaskMod],
        pages: dict[int | None, PagesRead],
    ) -> None:
        self.engine, self.planner = engine, planner
        self.block = GPU_BLOCK if engine.device.type == "cuda" else 32
        budget = max(engine.scheduler.max_prefill_tokens, engine.max_seq_length)
        self.most_rows = rows = -(-budget // self.block) + engine.max_batch_size
        self.giving_up = {window for group in planner.groups if group.window for window in group.layers}
        # Both have buffers of the same sizes, although a decode row has one query: dynamo makes a variable of a size that it
        # has seen change, and kernels whose masks read buffers of variable size don't compile on a CPU.
        self.decode_masks = {
            window: RowMasks(table, rows, self.block, rules[window], pages[window])
            for window, table in engine.tables.items()
        }
        self.chunk_masks = {
            window: RowMasks(table, rows, self.block, rules[window], pages[window])
            for window, table in engine.tables.items()
        }
        # The kernel for prompts: its tiles of queries must fit into a row, those of keys into a page.
        tile = {"BLOCK_M": self.block, "BLOCK_N": keys_of_a_tile(engine.dtype, engine.page_table.page_size)}
        of_prompts = engine._prefill_options
        self.options: Any = (engine._decode_options, None if of_prompts is None else of_prompts | tile)

    def run(self, rows: list[Row]) -> None:
        """Compute the rows of a step and give its sequences their next tokens."""
        self.copy_pages()
        due = rows_due(rows) if self.planner.fuse else [row for row in rows if gives_token(row)]
        logits_BV = self.logits(rows)
        broken = self.broken(rows)
        if due:
            for row, token in zip(due, self.engine._next_tokens(due, logits_BV), strict=True):
                self.engine._accept(row.sequence, None if row in broken else token)
        for row in broken:
            if not gives_token(row):
                self.engine._accept(row.sequence, None)

    def broken(self, rows: list[Row]) -> list[Row]:
        """The parts of prompts that left keys or values in the pool that are no numbers."""
        chunks = [row for row in rows if isinstance(row, Chunk)]
        if not chunks:
            return []
        layout = lay_out_chunks(chunks, self.block)
        slot_L, position_L = (torch.tensor(one, device=self.engine.device) for one in (layout.slots, layout.positions))
        finite_R = self.finite_rows(slot_L, position_L, len(layout.row_slots)).tolist()
        return [
            row for row, places in zip(chunks, rows_of(chunks, self.block), strict=True) if not all(finite_R[places])
        ]

    def finite_rows(self, slot_L: Tensor, position_L: Tensor, n_rows: int) -> Tensor:
        """bool [R]: whether all is finite that the rows of prompts have just written.

        No token may be due after a part of a prompt, so that nobody would see a NaN in logits.  Once it is in a token, it
        stays there up to the last layer, whose values are looked at.
        """
        cache = self.engine.caches[-1]
        written = cache.v_cache[0][:, cache.page_table.address(slot_L, position_L)]
        return written.isfinite().all(dim=2).all(dim=0).view(n_rows, -1).all(dim=1)

    def copy_pages(self) -> None:
        """Copy the pages that are about to be written and that others read too."""
        for group in self.planner.groups:
            if group.sharing is None or not group.sharing.copies:
                continue
            old, new = torch.tensor(group.sharing.copies, device=self.engine.device).unbind(dim=1)
            for cache in self.engine.caches:
                if cache.window in group.layers:
                    for pool in (cache.k_cache, cache.v_cache):
                        pages = pool.unflatten(2, (-1, group.table.page_size))
                        pages[:, :, new] = pages[:, :, old]
            group.sharing.copies.clear()

    def logits(self, rows: list[Row]) -> Tensor:
        """float32 [rows that give a token, V]."""
        layout = self.lay_out(rows)
        device = self.engine.device
        token_T, slot_T, position_T = (
            torch.tensor(one, device=device) for one in (layout.token_ids, layout.slots, layout.positions)
        )
        slot_R = torch.tensor(layout.row_slots, dtype=torch.int64, device=device)
        at = torch.tensor(layout.logits_at, dtype=torch.int64, device=device)
        return self.forward(token_T, slot_T, position_T, slot_R, at, layout.n_decode)

    def lay_out(self, rows: list[Row]) -> Layout:
        """The rows of a step side by side: decodes first, whatever their order was."""
        decodes = [row for row in rows if not isinstance(row, Chunk)]
        chunks = [row for row in rows if isinstance(row, Chunk)]
        if not decodes:
            return lay_out_chunks(chunks, self.block)
        if chunks:
            return lay_out(decodes, chunks, self.block)
        ids = [row.sequence.token_ids[row.start] for row in decodes]
        slots, positions = [row.sequence.slot for row in decodes], [row.start for row in decodes]
        return Layout(ids, slots, positions, [], list(range(len(ids))), len(ids))

    def forward(
        self, token_T: Tensor, slot_T: Tensor, position_T: Tensor, slot_R: Tensor, logits_at: Tensor, n_decode: int
    ) -> Tensor:
        """int64 [T] each, [R], [F]: what a `Layout` says -> float32 [F, V]."""
        decode = {
            window: masks.block_mask(slot_T[:n_decode], position_T[:n_decode, None])
            for window, masks in self.decode_masks.items()
            if n_decode
        }
        masks = self.masks(decode, slot_R, position_T[n_decode:], n_decode)
        return self.engine._forward(token_T[None], position_T[None], slot_T[None], masks, logits_at, self.options)[0]

    def masks(
        self, decode: Mapping[int | None, BlockMask], slot_R: Tensor, position_L: Tensor, n_decode: int
    ) -> dict[int | None, Any]:
        """The masks of a step: those of its decode rows, if there are any, beside those of its rows of prompts."""
        n_rows, path = len(slot_R), self.engine.path
        masks: dict[int | None, Any] = {}
        for window in self.engine.windows:
            rows = self.chunk_masks[window].block_mask(slot_R, position_L.view(n_rows, -1)) if n_rows else None
            prepared = (None if one is None else prepare_mask(path, one) for one in (decode.get(window), rows))
            masks[window] = MixedMask(n_decode, n_rows, *prepared)
        return masks
