# Your copy of solutions/flexnano/fast_mixed.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash ac4bc7f940150019
"""Modules 07 and 10: a step with prompts that read the pool, recorded like a decode step.  Given.

A recorded step has a fixed number of decode rows, filled up with padding, and one of few numbers of rows of prompts.
All that the host knows goes to the device in one copy; what the step before chose is there already.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cuda_graphs import NONE, Graph, finite_or_none, up_to_a_size
from .mixed_step import MixedSteps, gives_token, lay_out_chunks, rows_of
from .planner import Chunk
from .sampling import sample
from .scheduler import Row

if TYPE_CHECKING:
    from .fast_path import FastPath


Places = list[tuple[Row, slice]]
"""Rows of a step, and where among its tokens something is said of them."""


class FastMixedSteps:
    """Runs steps with prompts for a fast path.

    Letters: B decode rows, R rows of prompts of T tokens; L = R·T.

    Args:
        fast: whose state of decode steps is read and written.
        steps: masks and the forward.
    """

    def __init__(self, fast: FastPath, steps: MixedSteps) -> None:
        self.fast, self.steps, self.device = fast, steps, fast.device
        engine = fast.engine
        on_gpu = self.device.type == "cuda"
        # Few sizes are recorded, by quarters of what a budget holds.  If prompts share it with those who decode, each is
        # recorded with and without these: only quarters, and just what is left beside the most, a step in which many wait.
        budget = steps.planner.token_budget
        self.quarter = max(1, round(budget / 4 / steps.block))
        self.beside_most = -(-(budget - self.fast.buckets[-1]) // steps.block)
        R = self.rows_recorded(steps.most_rows)
        L = R * steps.block
        # Rows: token, slot, position of each token of prompts; [R] slot, place of the last token, slot where that is due.
        self.inputs = torch.zeros(6, L, dtype=torch.int64, device=self.device)
        self._staging = [torch.zeros(6, L, dtype=torch.int64, pin_memory=on_gpu) for _ in range(2)]
        self._sent = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
        self._turn = 0
        # Tokens of decode rows and behind rows of prompts; then for each row of a prompt NONE if it is no number.
        self.chosen = torch.zeros(engine.max_batch_size + 2 * R, dtype=torch.int64, device=self.device)
        self.logits: dict[tuple[int, int], Tensor] = {}
        self.graphs: dict[tuple[int, int, bool], Graph] = {}

    def run(self, rows: list[Row]) -> tuple[list[Row], Tensor, list[int], Places]:
        """Launch a step: (the rows that are given a token, all tokens on the device, which of them are the rows', and for
        each part of a prompt where NONE says that it is no number)."""
        decodes = [row for row in rows if not isinstance(row, Chunk)]
        chunks = [row for row in rows if isinstance(row, Chunk)]
        last = [row for row in chunks if gives_token(row)]
        due: list[Row] = [*decodes, *last]
        n = next(size for size in self.fast.buckets if size >= len(decodes)) if decodes else 0
        if n and self.device.type == "cuda":
            # Each pair of numbers is recorded, so those that decode are filled up to the most.
            n = self.fast.buckets[-1]
        R = self._send(chunks)
        self.fast.state.set_rows([row.sequence.slot for row in decodes])
        self.steps.copy_pages()
        greedy = all(row.sequence.params.greedy and row.sequence.params.logprobs is None for row in due)
        self._graph(n, R, greedy).replay()
        if due and not greedy:
            self._sample(due, n, R, len(decodes), len(last))
        checks: Places = [
            (chunk, slice(n + R + places.start, n + R + places.stop))
            for chunk, places in zip(chunks, rows_of(chunks, self.steps.block), strict=True)
        ]
        return due, self.chosen[: n + 2 * R], [*range(len(decodes)), *range(n, n + len(last))], checks

    def rows_recorded(self, needed: int) -> int:
        """How many rows of prompts are recorded for a step that needs so many."""
        if not self.steps.planner.fuse:
            return up_to_a_size(needed, self.quarter)
        R = -(-needed // self.quarter) * self.quarter
        return self.beside_most if needed <= self.beside_most < R else R

    def _send(self, chunks: list[Chunk]) -> int:
        """The prompts' part of the row, filled up to a number of rows that is recorded; returns R."""
        layout = lay_out_chunks(chunks, self.steps.block)
        R = self.rows_recorded(len(layout.row_slots))
        L = len(layout.token_ids)
        self._turn = 1 - self._turn
        staging, sent = self._staging[self._turn], self._sent[self._turn]
        if sent is not None:
            sent.synchronize()  # the copy of the step before last may still be reading
        host = staging.numpy()
        host[:] = 0
        host[0, :L], host[1, :L], host[2, :L] = layout.token_ids, layout.slots, layout.positions
        host[3, : len(layout.row_slots)] = layout.row_slots
        n_last = len(layout.logits_at)
        host[4, :n_last] = layout.logits_at
        host[5, :n_last] = [chunk.sequence.slot for chunk in chunks if gives_token(chunk)]
        self.inputs.copy_(staging, non_blocking=True)
        if sent is not None:
            sent.record()
        return R

    def _graph(self, n: int, R: int, greedy: bool) -> Graph:
        key = (n, R, greedy)
        if key not in self.graphs:
            # Recording runs the step; nothing of it may reach a sequence.
            kept = self.inputs.clone(), self.fast.state.slot_B.clone()
            self.inputs.zero_()
            self.fast.state.slot_B.zero_()
            began = time.perf_counter()
            graph = Graph(lambda: self._body(n, R, greedy), self.device, self.fast.pool)
            name = f"{R * self.steps.block} tokens of prompts" + (f" beside {n} rows" if n else "")
            self.fast.seconds_to_make[name + ("" if greedy else ", sampled")] = time.perf_counter() - began
            self.fast.pool = self.fast.pool or graph.pool
            self.graphs[key] = graph
            self.inputs.copy_(kept[0])
            self.fast.state.slot_B.copy_(kept[1])
        return self.graphs[key]

    def _body(self, n: int, R: int, greedy: bool) -> None:
        """What a graph records."""
        state, L = self.fast.state, R * self.steps.block
        token_L, slot_L, position_L = self.inputs[:3, :L]
        slot_R, last_R, due_R = self.inputs[3:, :R]
        token_T, slot_T, position_T = token_L, slot_L, position_L
        if n:
            slot_B, token_B, position_B = state.load(n)
            token_T, slot_T, position_T = (
                torch.cat(pair) for pair in ((token_B, token_L), (slot_B, slot_L), (position_B, position_L))
            )
        at = torch.cat([torch.arange(n, device=self.device), n + last_R])
        decode = {window: self.fast.decode_mask(window, n) for window in self.fast.engine.windows if n}
        logits_BV = self.fast.logits(
            greedy,
            at,
            input_ids=token_T[None],
            position_ids=position_T[None],
            flex_attn_block_mask=self.steps.masks(decode, slot_R, position_L, n),
            flex_attn_input_pos=position_T[None],
            flex_attn_batch_idx=slot_T[None],
            flex_attn_kernel_options=self.steps.options,
        )
        if not greedy:
            if (n, R) not in self.logits:
                self.logits[n, R] = torch.zeros_like(logits_BV)
            self.logits[n, R].copy_(logits_BV)
        token_B = logits_BV.argmax(dim=-1)
        self.chosen[: n + R] = finite_or_none(logits_BV, token_B)
        self.chosen[n + R : n + 2 * R] = torch.where(self.steps.finite_rows(slot_L, position_L, R), 0, NONE)
        if n:
            state.store(slot_T[:n], token_B[:n], self.chosen[:n])
        self._start(due_R, token_B[n:], position_L[last_R])

    def _start(self, slot_R: Tensor, token_R: Tensor, position_R: Tensor) -> None:
        """The first token of a sequence and its position, where decode steps read them.  Slot 0 keeps position 0."""
        self.fast.state.token_S[slot_R] = token_R
        self.fast.state.position_S[slot_R] = torch.where(slot_R > 0, position_R + 1, 0)

    def _sample(self, due: list[Row], n: int, R: int, n_decode: int, n_last: int) -> None:
        """Replace what the graph chose greedily by what the rows' parameters ask for."""
        state, engine = self.fast.state, self.fast.engine

        def rows(of_all: Tensor) -> Tensor:
            return torch.cat([of_all[:n_decode], of_all[n : n + n_last]])

        logits_BV = rows(self.logits[n, R])
        slot_B = torch.cat([state.slot_B[:n_decode], self.inputs[5, :n_last]])
        token_B = sample(logits_BV, engine._sampling_batch(due), state.position_S[slot_B])
        state.token_S[slot_B] = token_B
        chosen_B = finite_or_none(logits_BV, token_B)
        self.chosen[:n_decode], self.chosen[n : n + n_last] = chosen_B[:n_decode], chosen_B[n_decode:]
        self.fast._note_logprobs(due, logits_BV, chosen_B)
