"""Page table, scheduler and engine, each driven at random beside a small model of it that is written differently.

The models say what must come out without saying how: a page table is a dictionary of what was written, a scheduler is a list
of lengths in order of arrival, and an engine answers each request as if it were alone.
"""

from __future__ import annotations

from typing import Any

import families
import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger import MOST, UNHARMED, Ledger, alone

from course import counts
from flexnano import Inference, PageTable, Row, SamplingParams, Scheduler, Sequence, Status, TokenEvent

many = pytest.mark.parametrize("factor", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["", "many"])


def drive(machine: type[RuleBasedStateMachine], examples: int, steps: int, shrink: bool = True) -> None:
    phases = [phase for phase in hypothesis.Phase if shrink or phase is not hypothesis.Phase.shrink]
    settings = hypothesis.settings(
        phases=phases,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    counts.settle(passed=False)  # what a failed test before this one has noted
    run_state_machine_as_test(counted(machine), settings=settings)
    counts.settle(passed=True)


def counted(machine: type[RuleBasedStateMachine]) -> type[RuleBasedStateMachine]:
    """The same machine; each example that it runs is counted."""

    def __init__(self: Any) -> None:  # noqa: N807  of the class below
        machine.__init__(self)
        counts.note("examples")

    return type(machine.__name__, (machine,), {"__init__": __init__})


def pages_for(tokens: int, page_size: int) -> int:
    return (tokens + page_size - 1) // page_size


# ---------------------------------------------------------------------- the page table


class PageTableMachine(RuleBasedStateMachine):
    """What was written for a sequence is read back as long as it holds its slot, and by nobody else.

    The model: for each slot that was handed out, the value at each of its positions.
    """

    slots = Bundle("slots")

    @initialize(
        n_pages=st.integers(1, 8),
        page_size=st.sampled_from([1, 2, 4]),
        n_slots=st.integers(1, 4),
        longest=st.none() | st.integers(1, 20),
    )
    def begin(self, n_pages: int, page_size: int, n_slots: int, longest: int | None) -> None:
        self.table = PageTable(n_pages, page_size, n_slots, longest)
        self.row = min(n_pages, pages_for(longest, page_size)) if longest else n_pages
        self.written: dict[int, list[int]] = {}
        self.n_written = 0
        self.k_cache, self.v_cache = torch.zeros(2, 1, 1, (n_pages + 1) * page_size, 1)

    def pages_held(self, slot: int) -> int:
        return pages_for(len(self.written[slot]), self.table.page_size)

    @property
    def pages_left(self) -> int:
        return self.table.n_pages - sum(map(self.pages_held, self.written))

    @rule(target=slots)
    def allocate(self) -> Any:
        if len(self.written) == self.table.max_batch_size:
            with pytest.raises(RuntimeError, match="slots are taken"):
                self.table.allocate()
            return multiple()
        slot = self.table.allocate()
        assert slot != 0, "slot 0 is the sink, and was handed out"
        assert slot not in self.written, f"slot {slot} was handed out twice"
        assert self.table.capacity[slot] == 0, f"a new slot holds {self.table.capacity[slot]} tokens already"
        self.written[slot] = []
        return slot

    @rule(slot=slots, more=st.integers(1, 12), packed=st.booleans())
    def grow_and_write(self, slot: int, more: int, packed: bool) -> None:
        """As many tokens more, written one by one as in decode or at once as in a prefill."""
        had = len(self.written[slot])
        length = had + more
        if pages_for(length, self.table.page_size) > self.row:
            with pytest.raises(ValueError, match="longer than a row"):
                self.table.reserve(slot, length)
            return
        missing = pages_for(length, self.table.page_size) - self.pages_held(slot)
        assert self.table.pages_missing(slot, length) == missing
        fits = missing <= self.pages_left
        assert self.table.reserve(slot, length) == fits
        if not fits:
            return
        positions = list(range(had, length))
        values = torch.arange(self.n_written + 1, self.n_written + more + 1, dtype=torch.float32)
        self.n_written += more
        if packed:
            kv = values.view(1, 1, more, 1)
            self.table.assign_prefill_no_paging(
                torch.tensor([[slot] * more]), torch.tensor([positions]), kv, -kv, self.k_cache, self.v_cache
            )
        else:
            for position, value in zip(positions, values, strict=True):
                kv = value.view(1, 1, 1, 1)
                self.table.assign(torch.tensor([slot]), torch.tensor([[position]]), kv, -kv, self.k_cache, self.v_cache)
        self.written[slot] += [int(value) for value in values]

    @rule(position=st.integers(0, 99))
    def write_padding(self, position: int) -> None:
        kv = torch.full((1, 1, 1, 1), -77.0)
        self.table.assign(torch.tensor([0]), torch.tensor([[position]]), kv, kv, self.k_cache, self.v_cache)

    @rule(slot=consumes(slots))
    def erase(self, slot: int) -> None:
        self.table.erase(slot)
        del self.written[slot]
        with pytest.raises(ValueError, match=f"slot {slot} is not allocated"):
            self.table.erase(slot)

    @invariant()
    def each_page_is_free_or_owned_once(self) -> None:
        self.table.check()
        owned = [page for slot in self.written for page in self.table.owned[slot]]
        assert 0 not in owned and 0 not in self.table.free_pages, "page 0 is the sink, and was handed out"
        assert len(owned) == len(set(owned)), f"a page has two owners: {owned}"
        assert not set(owned) & set(self.table.free_pages), "a page is owned and free"
        assert self.table.pages_available == self.pages_left

    @invariant()
    def capacity_is_pages_times_size(self) -> None:
        for slot, values in self.written.items():
            pages = pages_for(len(values), self.table.page_size)
            assert self.table.capacity[slot] == pages * self.table.page_size

    @invariant()
    def what_was_written_is_read_back_and_only_by_its_sequence(self) -> None:
        everything = torch.arange(self.k_cache.shape[2])
        slots = list(self.written)
        self.table.slot_of_row[: len(slots)] = torch.tensor(slots, dtype=torch.int64)
        zero = torch.tensor(0)
        for row, (slot, values) in enumerate(self.written.items()):
            at = self.table.address(torch.tensor(slot), torch.arange(len(values)))
            assert self.k_cache[0, 0, at, 0].tolist() == values, f"slot {slot} does not read its own keys"
            assert self.v_cache[0, 0, at, 0].tolist() == [-value for value in values]
            n = len(values)
            up_to_newest = self.table.physical_mask_mod(lambda b, h, q, position, n=n: position < n)  # type: ignore[misc]
            visible = up_to_newest(torch.tensor(row), zero, zero, everything).nonzero().flatten()
            assert sorted(self.k_cache[0, 0, visible, 0].tolist()) == values, (
                f"slot {slot} reads more or less than its own"
            )


@many
def test_what_is_written_for_a_sequence_is_read_back_by_it_alone_until_it_is_erased(factor: int) -> None:
    drive(PageTableMachine, examples=60 * factor, steps=30)


# ---------------------------------------------------------------------- the scheduler


class SchedulerMachine(RuleBasedStateMachine):
    """Who takes part in a step follows from the lengths of the sequences and the order in which they came.

    The model keeps one list, all unfinished sequences in order of arrival, of which the first `n_running` run.  So it knows
    without following any page which are admitted and which stay: as many from the front as have room together.
    """

    @initialize(
        n_pages=st.integers(1, 7),
        page_size=st.sampled_from([1, 2, 4]),
        n_slots=st.integers(1, 4),
        row=st.none() | st.integers(1, 16),
        budget=st.integers(1, 20),
        min_prefill=st.integers(1, 3),
        patience=st.integers(1, 4),
    )
    def begin(
        self, n_pages: int, page_size: int, n_slots: int, row: int | None, budget: int, min_prefill: int, patience: int
    ) -> None:
        self.table = PageTable(n_pages, page_size, n_slots, row)
        self.scheduler = Scheduler(self.table, budget, min_prefill, patience)
        self.everyone: list[Sequence] = []  # unfinished, in order of arrival
        self.n_running = 0
        self.n_asked = 0
        self.ended: dict[int, int] = {}  # how often each request ended
        self.waited = 0  # steps in which the first who waits would have fitted and did not come in
        self.older_pages: dict[int, int] = {}  # pages that those before it have taken by growing
        self.no_prefill_before = True

    def need(self, sequence: Sequence) -> int:
        return pages_for(len(sequence), self.table.page_size)

    def fits(self, sequences: list[Sequence]) -> bool:
        return sum(map(self.need, sequences)) <= self.table.n_pages

    @rule(prompt=st.integers(1, 14), new_tokens=st.integers(1, 12))
    def add(self, prompt: int, new_tokens: int) -> None:
        sequence = Sequence(self.n_asked, [1] * prompt, SamplingParams(max_new_tokens=new_tokens))
        self.n_asked += 1
        if prompt > self.scheduler.longest:
            with pytest.raises(ValueError, match="can never run"):
                self.scheduler.add(sequence)
            return
        self.scheduler.add(sequence)
        self.everyone.append(sequence)
        self.older_pages[sequence.request_id] = 0

    @precondition(lambda self: self.everyone)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        """Also one that runs: what it held is free at once."""
        which = data.draw(st.integers(0, len(self.everyone) - 1), label="which")
        sequence = self.everyone[which]
        self.scheduler.finish(sequence, "aborted")
        self.scheduler.finish(sequence, "again")
        assert sequence.finish_reason == "aborted", "who has ended stays as it is"
        self.leave(sequence)

    def leave(self, sequence: Sequence) -> None:
        assert sequence.status is Status.FINISHED and sequence.slot == 0
        self.n_running -= self.everyone.index(sequence) < self.n_running
        self.everyone.remove(sequence)
        self.ended[sequence.request_id] = self.ended.get(sequence.request_id, 0) + 1

    def held(self) -> int:
        """Pages in use: a sequence that sat out a step has no place for its newest token yet."""
        return sum(len(self.table.owned[sequence.slot]) for sequence in self.scheduler.running)

    def could_come_in(self) -> list[Sequence]:
        waiting = self.everyone[self.n_running :]
        free_slots = self.table.max_batch_size - self.n_running
        most = 0
        for n in range(1, min(free_slots, len(waiting)) + 1):
            pages = sum(map(self.need, waiting[:n])) + self.held()
            tokens = sum(map(len, waiting[:n]))
            if pages <= self.table.n_pages and (n == 1 or tokens <= self.scheduler.max_prefill_tokens):
                most = n
            else:
                break
        return waiting[:most]

    @precondition(lambda self: self.everyone)
    @rule()
    def step(self) -> None:
        candidates, running_before = self.could_come_in(), self.everyone[: self.n_running]
        pages_before = {sequence.request_id: len(self.table.owned[sequence.slot]) for sequence in running_before}
        preemptions_before = {sequence.request_id: sequence.preemptions for sequence in running_before}
        rows = self.scheduler.next_step()
        self.table.check()

        outgrown = [sequence for sequence in running_before if len(sequence) > self.scheduler.longest]
        if rows and rows[0].start == 0 and not self.scheduler.outgrown:
            outgrown = []
        assert sorted(s.request_id for s in self.scheduler.outgrown) == sorted(s.request_id for s in outgrown), (
            "exactly those who need more than a row can ever hold end without an answer"
        )
        self.scheduler.outgrown.clear()
        for sequence in outgrown:
            assert sequence.finish_reason == "out_of_pages"
            self.leave(sequence)

        assert rows or not self.everyone, "an empty step, and somebody waits"
        prefilled = [row.sequence for row in rows if row.start == 0]
        assert prefilled in ([], [row.sequence for row in rows]), "a step is a prefill or a decode, never both"
        if prefilled:
            self.a_prefill(rows, candidates, running_before, outgrown)
        elif rows:
            self.a_decode(rows)
        self.count_pages_and_preemptions(running_before, pages_before, preemptions_before)

        if candidates and not prefilled:
            self.waited += 1
            assert self.waited <= self.scheduler.patience + 1, "one who fits is kept waiting beyond all patience"
        else:
            self.waited = 0
        self.no_prefill_before = not prefilled
        for row in rows:
            row.sequence.output_ids.append(1)
            if reason := row.sequence.check_done():
                self.scheduler.finish(row.sequence, reason)
                self.leave(row.sequence)
        self.table.check()

    def a_prefill(
        self, rows: list[Row], candidates: list[Sequence], running: list[Sequence], outgrown: list[Sequence]
    ) -> None:
        chosen = [row.sequence for row in rows]
        if not outgrown:
            assert self.no_prefill_before or not running, "those who run stand still for two prefills in a row"
            assert chosen == candidates, "as many come in as fit together, first come first served"
        assert all(row.n_tokens == len(row.sequence) for row in rows), "a prefill has all tokens, those made before too"
        assert self.everyone[self.n_running : self.n_running + len(chosen)] == chosen, "somebody passed another"
        self.n_running += len(chosen)

    def a_decode(self, rows: list[Row]) -> None:
        running = self.everyone[: self.n_running]
        stay = max(n for n in range(len(running) + 1) if self.fits(running[:n]))
        assert [row.sequence for row in rows] == running[:stay], "the oldest go on, as many as have room together"
        assert all((row.start, row.n_tokens) == (len(row.sequence) - 1, 1) for row in rows)
        assert stay, "the oldest always goes on"
        self.n_running = stay

    def count_pages_and_preemptions(
        self, running: list[Sequence], pages: dict[int, int], preemptions: dict[int, int]
    ) -> None:
        taken = 0
        for sequence in running:
            self.older_pages[sequence.request_id] += taken
            grown = len(self.table.owned[sequence.slot]) if sequence.slot else self.need(sequence)
            taken += max(0, grown - pages[sequence.request_id])
            if sequence.preemptions > preemptions[sequence.request_id]:
                # Its own page may be the one that was missing.
                own = self.need(sequence) > pages[sequence.request_id]
                self.older_pages[sequence.request_id] += own
            assert sequence.preemptions <= len(sequence.output_ids), "preempted before it got a token"
            assert sequence.preemptions <= self.older_pages[sequence.request_id], (
                "preempted although nobody before it, nor it itself, took another page"
            )

    @invariant()
    def queues_and_slots_are_those_of_the_model(self) -> None:
        if not hasattr(self, "everyone"):
            return
        assert self.scheduler.running == self.everyone[: self.n_running]
        assert list(self.scheduler.waiting) == self.everyone[self.n_running :]
        slots = [sequence.slot for sequence in self.scheduler.running]
        assert 0 not in slots and len(slots) == len(set(slots)), f"slot 0 or one slot for two: {slots}"
        assert all(sequence.slot == 0 for sequence in self.scheduler.waiting)
        assert len(slots) + len(self.table.free_slots) == self.table.max_batch_size, "a slot is lost"
        assert self.held() + self.table.pages_available == self.table.n_pages, "a page is lost"

    def teardown(self) -> None:
        if not hasattr(self, "everyone"):
            return
        for _ in range(1000):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.everyone, f"after 1,000 steps these have not ended: {self.everyone}"
        assert set(self.ended) == set(self.older_pages) and set(self.ended.values()) <= {1}, (
            "each request ends exactly once"
        )
        assert self.table.pages_available == self.table.n_pages


@many
def test_each_step_has_those_who_have_room_together_in_order_of_arrival_and_nobody_starves(factor: int) -> None:
    drive(SchedulerMachine, examples=100 * factor, steps=40)


# ---------------------------------------------------------------------- the engine

POISON = 77
"""A token whose embedding is NaN.  No prompt but the poisoned ones holds it, and no answer."""

LENGTHS = (1, 3, 4, 5, 8, 11, 16)


def clean_prompts() -> list[list[int]]:
    prompts = []
    for length in LENGTHS:
        seed = length
        while POISON in [*(prompt := families.random_prompt(length, seed)), *alone(prompt, MOST)]:
            seed += 100
        prompts.append(prompt)
    return prompts


class EngineMachine(RuleBasedStateMachine):
    """Whatever others ask, abort, leave or break, a request gets what it would have got alone.

    The model: a table of what each prompt gives alone.
    """

    fast = False
    requests = Bundle("requests")
    streams = Bundle("streams")

    @initialize(
        n_pages=st.integers(6, 14), n_slots=st.integers(1, 4), budget=st.sampled_from([1, 8, 20, 64]), page=st.just(4)
    )
    def begin(self, n_pages: int, n_slots: int, budget: int, page: int) -> None:
        model = families.FAMILIES["llama"]()
        self.engine = Inference(
            model,
            families.TinyTokenizer(),
            max_batch_size=n_slots,
            max_seq_length=64,
            n_pages=n_pages,
            page_size=page,
            attention="gather",
            max_prefill_tokens=budget,
            fast=self.fast,
        )
        with torch.no_grad():
            model.get_input_embeddings().weight[POISON] = float("nan")
        self.prompts = clean_prompts()
        self.ledger = Ledger(self.engine)
        self.poisoned: list[int] = []
        self.may_fail: set[int] = set()
        self.aborted: set[int] = set()
        self.outgrown: set[int] = set()
        self.open: list[tuple[Any, list[tuple[list[int], int]], dict[int, TokenEvent]]] = []
        self.n_admissible = 0

    def room(self) -> int:
        return self.engine.scheduler.longest

    def outgrows(self, prompt: list[int], n_tokens: int) -> bool:
        """Whether its answer ends only after it has more tokens than the pool: the last one needs no place."""
        return len(prompt) + len(alone(prompt, n_tokens)) - 1 > self.room()

    def note(self, prompt: list[int], n_tokens: int, request: int) -> int:
        if self.outgrows(prompt, n_tokens):
            self.outgrown.add(request)
        return request

    @rule(target=requests, which=st.integers(0, len(LENGTHS) - 1), n_tokens=st.integers(1, MOST))
    def ask(self, which: int, n_tokens: int) -> int:
        return self.note(self.prompts[which], n_tokens, self.ledger.add(self.prompts[which], n_tokens))

    @rule(which=st.integers(0, len(LENGTHS) - 1), n_tokens=st.integers(1, 5))
    def ask_with_poison(self, which: int, n_tokens: int) -> None:
        """A prompt for which the model's logits are NaN, and its keys and values too."""
        prompt = [*self.prompts[which][:-1], POISON]
        request = self.engine.add_request(prompt, SamplingParams(max_new_tokens=n_tokens))
        self.ledger.tokens[request] = []
        self.ledger.asked[request] = (prompt, SamplingParams(max_new_tokens=n_tokens))
        self.poisoned.append(request)

    @rule(steps=st.integers(1, 6))
    def run_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        engine = self.engine
        first = engine.scheduler.waiting[0] if engine.scheduler.waiting else None
        admissible = bool(engine.scheduler.admissible())
        had_work = bool(engine.scheduler.has_work)
        forwards: list[int] = []
        handle = engine.model.register_forward_pre_hook(lambda *_: forwards.append(1))
        base = engine.model.base_model.register_forward_pre_hook(lambda *_: forwards.append(1))
        before = len(self.ledger.results)
        try:
            self.ledger.step()
        finally:
            handle.remove()
            base.remove()
        if had_work and not self.fast:
            ended = len(self.ledger.results) > before
            assert forwards or ended or self.open, "an empty step, and there was work"
        kept_waiting = first is not None and admissible and first in engine.scheduler.waiting
        self.n_admissible = self.n_admissible + 1 if kept_waiting else 0
        assert self.n_admissible <= engine.scheduler.patience + 1, "one who fits is kept waiting beyond all patience"

    @rule(request=requests)
    def abort(self, request: int) -> None:
        if self.engine.abort(request):
            assert request not in self.ledger.results
            self.aborted.add(request)

    @precondition(lambda self: self.engine.has_work)
    @rule(layer=st.integers(0, 1), call=st.integers(0, 2), interrupt=st.booleans())
    def break_a_step(self, layer: int, call: int, interrupt: bool) -> None:
        """The model raises; those of that step may end with an error, and nobody else."""
        error = KeyboardInterrupt() if interrupt else RuntimeError("cosmic ray")
        calls = [0]

        def hook(*_: Any) -> None:
            calls[0] += 1
            if calls[0] == call + 1:
                raise error

        handle = self.engine.model.model.layers[layer].register_forward_pre_hook(hook)
        unfinished = {sequence.request_id for sequence in self.engine._requests.values()}
        try:
            for _ in range(call + 1):
                self.step()
        except type(error):
            counts.note("faults")
            ended = self.engine._take_events(lambda event: event.request_id in self.ledger.asked)
            self.ledger.note(ended)
            hit = {
                request
                for request in unfinished & set(self.ledger.results)
                if self.ledger.results[request].finish_reason == "error"
            }
            n_hit = len(hit - set(self.poisoned))
            assert n_hit <= self.engine.max_batch_size * (call + 1), "even those who only waited were ended"
            self.may_fail |= hit
            self.streams_may_fail = True
        finally:
            handle.remove()

    streams_may_fail = False

    @rule(
        target=streams,
        asked=st.lists(st.tuples(st.integers(0, len(LENGTHS) - 1), st.integers(1, MOST)), min_size=1, max_size=3),
    )
    def open_a_stream(self, asked: list[tuple[int, int]]) -> Any:
        prompts = [(self.prompts[which], n_tokens) for which, n_tokens in asked]
        stream = self.engine.stream(
            [prompt for prompt, _ in prompts], [SamplingParams(max_new_tokens=n) for _, n in prompts]
        )
        tokens: dict[int, list[int]] = {index: [] for index in range(len(prompts))}
        return stream, prompts, tokens

    @rule(stream=streams, events=st.integers(1, 12))
    def read_a_stream(self, stream: Any, events: int) -> None:
        iterator, prompts, tokens = stream
        for _ in range(events):
            event = next(iterator, None)
            if event is None:
                return
            prompt, n_tokens = prompts[event.index]
            if event.token_id is not None:
                tokens[event.index].append(event.token_id)
            right = alone(prompt, n_tokens)
            assert tokens[event.index] == right[: len(tokens[event.index])], f"prompt {event.index} of a stream"
            if event.result is not None:
                reason = event.result.finish_reason
                if self.outgrows(prompt, n_tokens):
                    assert reason in ("out_of_pages", "error")
                elif not self.streams_may_fail:
                    assert reason in UNHARMED, f"{reason}: {event.result.error}"
                if reason in UNHARMED:
                    assert tokens[event.index] == right

    @rule(stream=consumes(streams))
    def leave_a_stream(self, stream: Any) -> None:
        stream[0].close()

    @invariant()
    def each_page_and_slot_is_free_or_owned_once(self) -> None:
        if hasattr(self, "engine"):
            table, scheduler = self.engine.page_table, self.engine.scheduler
            table.check()
            slots = [sequence.slot for sequence in scheduler.running]
            assert 0 not in slots and len(set(slots)) == len(slots)
            assert sorted([*slots, *table.free_slots]) == list(range(1, table.max_batch_size + 1)), "a slot is lost"

    @invariant()
    def nobody_starves(self) -> None:
        if hasattr(self, "engine"):
            for sequence in self.engine._requests.values():
                assert sequence.preemptions <= len(sequence.output_ids) + sequence.pending, (
                    "each time it comes in, it gets a token: no request is preempted more often than it has tokens"
                )

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            self.engine._streamed.clear()  # nobody reads the streams that were left open: all events come from the steps
            for _ in range(2000):
                if not self.engine.has_work:
                    break
                events = self.engine.run_one_step()
                self.ledger.note(event for event in events if event.request_id in self.ledger.asked)
            clean = Ledger(self.engine)
            clean.asked = {
                request: asked for request, asked in self.ledger.asked.items() if request not in self.poisoned
            }
            clean.tokens, clean.results = self.ledger.tokens, dict(self.ledger.results)
            for request in self.poisoned:
                result = clean.results.pop(request, None)
                assert result is not None, f"request {request} never ended"
                assert (result.finish_reason, result.token_ids) == ("error", []), "poison was answered"
            clean.check(may_fail=self.may_fail | self.aborted | self.outgrown)
            for request in self.outgrown - self.may_fail - self.aborted:
                result = clean.results[request]
                assert result.finish_reason == "out_of_pages"
                assert len(clean.asked[request][0]) + len(result.token_ids) == self.room() + 1
            table = self.engine.page_table
            assert table.pages_available == table.n_pages and len(table.free_slots) == table.max_batch_size
        finally:
            self.engine.close()


class FastEngineMachine(EngineMachine):
    fast = True


@many
@pytest.mark.parametrize("machine", [EngineMachine, FastEngineMachine], ids=["plain", "fast"])
def test_every_request_ends_once_with_what_it_would_have_got_alone(machine: type[EngineMachine], factor: int) -> None:
    drive(machine, examples=30 * factor, steps=25, shrink=False)  # a shrunken failure would take minutes to find
