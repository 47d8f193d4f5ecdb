# Your copy of solutions/flexnano/cuda_graphs.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 6e513e49e5a89241
"""Module 07: CUDA graphs.  A decode step is a thousand small kernels; recorded once, they are launched as one.

A graph repeats exactly what was recorded: the same kernels on the same addresses with the same numbers.  So whatever changes
from step to step lies in buffers that live as long as the engine, and a step only fills them.  On a device without graphs
`Graph` calls the recorded function again, on the same buffers: what is wrong there is wrong on a GPU too.

Source: gpt-fast and nano-vllm capture graphs by batch size in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from .masks import MaskMod
from .page_table import PageTable


def batch_buckets(max_batch_size: int) -> list[int]:
    """The batch sizes that graphs are recorded for.  [7.1 · ★☆☆ · 10 min]

    A step runs in the smallest bucket that holds its rows, filled up with padding.  Few buckets mean little to record, many
    mean little padding.  Small steps are limited by reading the weights, so padding is nearly free there: powers of four up
    to 64, then multiples of 128, and `max_batch_size` itself, whatever it is.

    Args:
        max_batch_size: rows of the largest step, at least 1.

    Returns:
        Sizes in ascending order, each once, none above `max_batch_size`, the last one equal to it.

    >>> batch_buckets(20), batch_buckets(200)
    ([1, 4, 16, 20], [1, 4, 16, 64, 128, 200])
    """
    raise NotImplementedError("Exercise 7.1: batch_buckets")


def up_to_a_size(n: int, quarter: int) -> int:
    """`n` rounded up to one of few sizes of prefill: quarters of the largest, a half of one, and half of that.  Given.

    A prompt that comes alone would wait for a quarter full of padding, and with it all who run.

    >>> [up_to_a_size(n, quarter=16) for n in (1, 4, 5, 9, 17, 33, 60)]
    [4, 4, 8, 16, 32, 48, 64]
    """
    small = next((size for size in (quarter // 4, quarter // 2) if size >= n), None)
    return small or -(-n // quarter) * quarter


class Graph:
    """A recorded function: `replay` does what it did, on the same buffers.  Given.

    Args:
        function: launches work on `device` and gives nothing back; all it reads and writes lies in buffers that stay.
        device: records on a CUDA device; elsewhere `replay` calls the function.
        pool: memory that several graphs share, from another graph's `pool`; they must not run at the same time.
    """

    def __init__(self, function: Callable[[], None], device: torch.device, pool: Any = None) -> None:
        self.function, self.graph, self.pool = function, None, pool
        if device.type != "cuda":
            return
        self.graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(self.graph, pool=pool)
        # Twice before recording: what is compiled or set up on first use must not be part of the graph.  On the stream that
        # records, the same for all graphs: cuBLAS keeps 32 MiB for each stream that it has ever run on.
        side = recording.capture_stream
        assert side is not None
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            function()
            function()
        torch.cuda.current_stream(device).wait_stream(side)
        with recording:
            function()
        self.pool = self.graph.pool()

    def replay(self) -> None:
        if self.graph is None:
            self.function()
        else:
            self.graph.replay()


NONE = -1
"""Stands for a token where the model gave no number."""


def finite_or_none(logits_BV: Tensor, token_B: Tensor) -> Tensor:
    """The chosen tokens, NONE where the logit is not finite: argmax prefers NaN, so that one anywhere in the row shows."""
    return token_B.where(logits_BV.gather(1, token_B[:, None])[:, 0].isfinite(), NONE)


class DecodeState:
    """What decode steps read and write on the device, for all batch sizes.

    Letters: S slots, the sink included; B rows of the largest step.

    Fields:
        token_S, position_S: int64, the newest token of each slot and its position.  A step reads them here and leaves the
            next ones, so that the host has nothing to send.
        slot_B: int64, the slot of each row; 0 is padding.
        position_B: int64, the position of each row, for masks and RoPE.
        chosen_B: int64, the token that the step chose for each row, as `finite_or_none` gives it.
    """

    def __init__(self, max_batch_size: int, device: torch.device) -> None:
        S, B = max_batch_size + 1, max_batch_size
        self.token_S = torch.zeros(S, dtype=torch.int64, device=device)
        self.position_S = torch.zeros(S, dtype=torch.int64, device=device)
        self.slot_B = torch.zeros(B, dtype=torch.int64, device=device)
        self.position_B = torch.zeros(B, dtype=torch.int64, device=device)
        self.chosen_B = torch.zeros(B, dtype=torch.int64, device=device)
        self._staging = torch.zeros(B, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._sent: torch.cuda.Event | None = torch.cuda.Event() if device.type == "cuda" else None
        self._slots: list[int] | None = []

    def set_rows(self, slots: Sequence[int]) -> None:
        """Say which slots take part in the next steps.  [7.2 · ★★☆ · 10 min]

        Args:
            slots: of the rows, at most B of them.

        Returns:
            Nothing.  Afterwards `slot_B` begins with `slots` and is 0 behind them, up to its end: what stood there belongs
            to sequences that may be gone.  It is the same tensor as before: graphs have recorded its address.
        """
        raise NotImplementedError("Exercise 7.2: DecodeState.set_rows")

    def load(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slot, token and position of the first `n` rows, [n] each; `position_B` is filled."""
        slot_B = self.slot_B[:n]
        position_B = self.position_S[slot_B]
        self.position_B[:n] = position_B
        return slot_B, self.token_S[slot_B], position_B

    def store(self, slot_B: Tensor, token_B: Tensor, chosen_B: Tensor) -> None:
        """Note the tokens of a step.  The sinks' position stays 0, so that padding never grows."""
        n = len(slot_B)
        self.token_S[slot_B] = token_B
        self.position_S[slot_B] = torch.where(slot_B > 0, self.position_B[:n] + 1, 0)
        self.chosen_B[:n] = chosen_B


class DecodeMask:
    """The mask of decode for one window, over the pool, without a logical mask to convert: rows of the page table.

    The BlockMask of each batch size is made once; a step only fills its lists.

    Args:
        table: on the device.
        state: whose `position_B` and `slot_B` the mask reads.
        mask_mod: logical, as `convert_logical_block_mask` gets it; reads `state.position_B`.
        window: keys that a row reads, itself included; None: all.
    """

    def __init__(self, table: PageTable, state: DecodeState, mask_mod: MaskMod, window: int | None) -> None:
        self.table, self.state, self.window = table, state, window
        self.mask_mod = table.physical_mask_mod(mask_mod)
        B, width, device = table.max_batch_size, table.n_pages + 1, table.page_table.device

        def lists() -> tuple[Tensor, Tensor]:
            return (
                torch.zeros(B, 1, 1, dtype=torch.int32, device=device),
                torch.zeros(B, 1, 1, width, dtype=torch.int32, device=device),
            )

        self.partial_count, self.partial_pages = lists()
        self.full_count, self.full_pages = lists()

    def block_mask(self, n: int) -> BlockMask:
        """The mask of the first `n` rows; it follows what `fill` writes."""
        partial_count, partial_pages = self.partial_count[:n], self.partial_pages[:n]
        return self._block_mask(partial_count, partial_pages, self.full_count[:n], self.full_pages[:n])

    def _block_mask(
        self, count: Tensor, pages: Tensor, full_count: Tensor | None = None, full_pages: Tensor | None = None
    ) -> BlockMask:
        page_size, n_pages = self.table.page_size, self.table.n_pages
        return BlockMask.from_kv_blocks(
            count,
            pages,
            full_count,
            full_pages,
            BLOCK_SIZE=(128, page_size),
            mask_mod=self.mask_mod,
            seq_lengths=(1, (n_pages + 1) * page_size),
            compute_q_blocks=False,
        )

    def one_list(self, n: int) -> BlockMask:
        """The mask of the first `n` rows after `fill`, with one list, in which all pages are partial: for few rows on a GPU.

        There FlexAttention shares each row among several of the card's processors: by the length of the row's list, or, if
        there is a full one too, by that of the whole pool, of which a row has few pages, and most processors get nothing.
        One row of 8,192 tokens in a pool of 524,288 took 257 µs with two lists and 17 with one.
        """
        pages, count = self.full_pages[:n], self.full_count[:n]
        behind = count[..., None] + torch.arange(2, device=count.device)
        pages.scatter_(-1, behind, self.partial_pages[:n, ..., :2])
        count += self.partial_count[:n]
        return self._block_mask(count, pages)

    def fill(self, n: int) -> None:
        """List the pages that the first `n` rows read, by their slots and positions.  [7.3 · ★★★ · 30 min]

        Row b at position p reads the positions from max(0, p - window + 1), or 0 without a window, to p.  Its last page is
        partial.  Its first is partial too if the window begins inside of it, and is not listed twice if it is also the
        last.  All pages between are full.  A row of slot 0 lists what it likes, as long as it is a valid page.

        Args:
            n: rows; `state.slot_B` and `state.position_B` hold theirs.

        Returns:
            Nothing.  The first `n` rows of `partial_count` [B, 1, 1], `partial_pages` [B, 1, 1, n_pages + 1], `full_count`
            and `full_pages` are written in place: only these rows, and only their first max(2, `pages_per_row`) columns.
            No number goes to the host.
        """
        raise NotImplementedError("Exercise 7.3: DecodeMask.fill")


class LateTokens:
    """Reads a step's tokens while the next step is already running, so that the device never waits for the host.  Given."""

    def __init__(self, max_batch_size: int, device: torch.device) -> None:
        self._max_batch_size, self._cuda = max_batch_size, device.type == "cuda"
        self._free: list[Tensor] = []

    def send(self, token_B: Tensor) -> tuple[Tensor, int, torch.cuda.Event | None]:
        """Begin to copy a step's tokens to the host."""
        # One that an interrupt has lost is made anew.
        buffer = self._free.pop() if self._free else self._new_buffer()
        buffer[: len(token_B)].copy_(token_B, non_blocking=True)
        if not self._cuda:
            return buffer, len(token_B), None
        event = torch.cuda.Event()
        event.record()
        return buffer, len(token_B), event

    def read(self, sent: tuple[Tensor, int, torch.cuda.Event | None]) -> list[int]:
        """The tokens of an earlier `send`; waits for that step, not for those after it."""
        buffer, n, event = sent
        if event is not None:
            event.synchronize()
        tokens = buffer[:n].tolist()
        self._free.append(buffer)
        return tokens

    def _new_buffer(self) -> Tensor:
        return torch.zeros(self._max_batch_size, dtype=torch.int64, pin_memory=self._cuda)
