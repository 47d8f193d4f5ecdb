"""The engine without a model: real queues, pages, planner and bookkeeping, and tokens out of a hash.

Everything but the forward is the engine's own code.  The pool is kept on paper: where a token's keys and values would be
written stands a hash of that token and of all before it, so that a step can look at what each of its rows would read.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from flexnano import Inference, PageTable, Result, Row, SamplingParams, Scheduler
from flexnano.extras import Extras
from flexnano.fast_path import FastPath
from flexnano.mixed_step import gives_token, rows_due
from flexnano.planner import Group
from flexnano.results import EngineStats

EOS, FIRST_WORD, VOCAB = 2, 3, 100
MASK = 2**64 - 1
NOTHING = Extras(False, None, 0, False, 512)


def token(seed: int, index: int, end_every: int) -> int:
    """The token number `index` that a request with this seed gets; one in `end_every` ends the text."""
    x = (seed ^ (index * 0x9E3779B97F4A7C15)) & MASK
    x = ((x ^ (x >> 31)) * 0xBF58476D1CE4E5B9) & MASK
    x ^= x >> 27
    return EOS if x % end_every == 0 else FIRST_WORD + (x >> 20) % (VOCAB - FIRST_WORD)


@dataclass(eq=False)
class Expected:
    """What a request gets, whoever else is there, and what its tokens leave in the pool."""

    n_prompt: int
    answer: list[int]
    reason: str
    chain: list[int]


class Pool:
    """What the pages of a group hold."""

    def __init__(self, group: Group) -> None:
        self.group, size = group, group.table.page_size
        self.pages = [[0] * size for _ in range(group.table.n_pages + 1)]

    def copy_pages(self) -> None:
        if (sharing := self.group.sharing) is not None and sharing.copies:
            for old, new in sharing.copies:
                self.pages[new] = list(self.pages[old])
            sharing.copies.clear()

    def write(self, row: Row, chain: list[int]) -> None:
        table, size = self.group.table, self.group.table.page_size
        owned = table.owned[row.sequence.slot]
        for position in range(row.start, row.start + row.n_tokens):
            self.pages[owned[position // size]][position % size] = chain[position]

    def look_at(self, row: Row, chain: list[int]) -> None:
        """Is all there that the queries of this row read, at its place?"""
        group, size = self.group, self.group.table.page_size
        owned, end = group.table.owned[row.sequence.slot], row.start + row.n_tokens
        first = 0 if group.window is None else max(0, row.start - group.window + 1)
        for position in itertools.chain(range(min(group.sinks, first)), range(first, end)):
            page = owned[position // size]
            assert page and self.pages[page][position % size] == chain[position], (
                f"request {row.sequence.request_id} reads at position {position}, page {page}, what is not its own"
            )


class StandIn(Inference):
    """An engine whose model is a hash.

    Args:
        windows: of the layers that it pretends to have.
        late: tokens are read one step late, as by module 07's path.
        look_every: so many steps from one look at everything that is read, and at all books, to the next.
        end_every: one token in so many ends a text.
    """

    def __init__(
        self,
        max_batch_size: int = 16,
        max_seq_length: int = 224,
        n_pages: int = 24,
        page_size: int = 8,
        max_prefill_tokens: int = 96,
        *,
        extras: Extras = NOTHING,
        windows: tuple[int | None, ...] = (None,),
        late: bool = False,
        look_every: int = 64,
        end_every: int = 16,
    ) -> None:
        self.model = self.tokenizer = None
        self.extras, self.windows, self.device = extras, list(windows), torch.device("cpu")
        self.max_batch_size, self.max_seq_length, self.vocab_size = max_batch_size, max_seq_length, VOCAB
        self.eos_token_ids = frozenset({EOS})
        self.page_table = PageTable(n_pages, page_size, max_batch_size, max_seq_length)
        self.tables = dict.fromkeys(self.windows, self.page_table)
        self.scheduler = Scheduler(self.page_table, max_prefill_tokens)
        self.planner = extras.planner(self, n_pages, "cpu") if extras.any else None
        self.stats, self._request_ids, self._requests = EngineStats(), itertools.count(), {}
        self._queue_lock = threading.RLock()
        self._events, self._streamed, self.caches, self.layers = [], set(), [], []
        self.prefill_block, self.closed = 32, False
        groups = [Group(self.page_table, tuple(windows))] if self.planner is None else self.planner.groups
        self.pools = [Pool(group) for group in groups]
        self.expected: dict[int, Expected] = {}
        self.look_every, self.end_every, self.looks = look_every, end_every, 0
        self.mixed = None if self.planner is None else MixedStandIn(self)  # type: ignore[assignment]
        self.fast = LateStandIn(self) if late else None

    # ------------------------------------------------------------------ what is right

    def add_request(self, prompt: Any, sampling_params: SamplingParams | None = None) -> int:
        request = super().add_request(prompt, sampling_params)
        sequence = self._requests[request]
        n_prompt, params, answer = len(sequence.prompt_ids), sequence.params, list[int]()
        while True:
            answer.append(token(sequence.seed, len(answer), self.end_every))
            n_tokens = n_prompt + len(answer)
            if answer[-1] == EOS and not params.ignore_eos:
                reason = "stop"
            elif len(answer) == params.max_new_tokens or n_tokens == self.max_seq_length:
                reason = "length"
            elif n_tokens > self.scheduler.longest:
                reason = "out_of_pages"
            else:
                continue
            break
        chain, before = [], 0
        for one in [*sequence.prompt_ids, *answer]:
            before = hash((before, one))
            chain.append(before)
        self.expected[request] = Expected(n_prompt, answer, reason, chain)
        return request

    def forget(self, request: int) -> None:
        del self.expected[request]

    def judge(self, request: int, _params: SamplingParams, result: Result) -> None:
        expected = self.expected.pop(request)
        if result.finish_reason == "aborted":
            n = len(result.token_ids)
            assert result.token_ids == expected.answer[:n], f"request {request} did not get its own tokens"
            return
        found = (result.finish_reason, result.token_ids)
        assert found == (expected.reason, expected.answer), (
            f"request {request} got {found}, but alone it gets {expected.reason, expected.answer}"
        )

    # ------------------------------------------------------------------ a step

    def compute(self, rows: list[Row]) -> None:
        """What the model would do: write, then read."""
        for pool in self.pools:
            pool.copy_pages()
        chains = [self.expected[row.sequence.request_id].chain for row in rows]
        for pool in self.pools:
            for row, chain in zip(rows, chains, strict=True):
                pool.write(row, chain)
        if self.stats.steps % self.look_every:
            return
        self.looks += 1
        for pool in self.pools:
            pool.group.table.check()
            for row, chain in zip(rows, chains, strict=True):
                pool.look_at(row, chain)
        slots = [sequence.slot for sequence in self.scheduler.running]
        assert 0 not in slots and len(set(slots)) == len(slots), f"slot 0, or one slot for two: {slots}"

    def chosen(self, row: Row) -> int:
        expected = self.expected[row.sequence.request_id]
        index = row.start + row.n_tokens - expected.n_prompt
        # A token that is on its way when its sequence ends is wanted by nobody.
        return expected.answer[index] if index < len(expected.answer) else FIRST_WORD

    def _run_rows(self, rows: list[Row]) -> None:
        self.compute(rows)
        for row in rows:
            self._accept(row.sequence, self.chosen(row))

    def close(self) -> None:
        for sequence in list(self._requests.values()):
            self._end(sequence, "aborted", error="the engine was closed")
        self.closed = True


class MixedStandIn:
    """Steps of a planner: parts of prompts give no token but for the last."""

    def __init__(self, engine: StandIn) -> None:
        self.engine = engine

    def run(self, rows: list[Row]) -> None:
        self.engine.compute(rows)
        for row in self.due(rows):
            self.engine._accept(row.sequence, self.engine.chosen(row))

    def due(self, rows: list[Row]) -> list[Row]:
        return rows_due(rows) if self.engine.extras.fuse_prefill else [row for row in rows if gives_token(row)]


class LateStandIn(FastPath):
    """Module 07's bookkeeping: one step is always on its way."""

    class Late:
        def send(self, chosen: list[int]) -> list[int]:
            return chosen

        def read(self, chosen: list[int]) -> list[int]:
            return chosen

    class Mixed:
        def __init__(self, fast: LateStandIn) -> None:
            self.fast = fast

        def run(self, rows: list[Row]) -> tuple[list[Row], list[int], list[int], list[Any]]:
            engine = self.fast.engine
            engine.compute(rows)
            due = engine.mixed.due(rows)
            return due, [engine.chosen(row) for row in due], list(range(len(due))), []

    def __init__(self, engine: StandIn) -> None:
        self.engine: Any = engine
        self.device, self.mirrors, self.in_flight = engine.device, [], deque()
        self.counts_newcomers = engine.planner is None
        self.late: Any = self.Late()
        self.mixed: Any = None
        if engine.planner is not None:
            self.mixed = self.Mixed(self)
            engine.planner.read_all = self.read_all

    def _decode(self, rows: list[Row]) -> Any:
        self.engine.compute(rows)
        return [self.engine.chosen(row) for row in rows]

    _prefill = _decode

    def close(self) -> None:
        self.in_flight.clear()
