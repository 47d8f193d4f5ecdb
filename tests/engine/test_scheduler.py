"""The scheduler, without a model: everyone is served, in order, within the pool, and nobody waits for ever."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from flexnano import Row, SamplingParams, Scheduler, Sequence, Status
from flexnano.page_table import PageTable

PAGE = 4


class GuardedScheduler(Scheduler):
    """Fails instead of looping for ever inside `next_step`."""

    grown_in_vain = 0

    def grow(self) -> list[Row]:
        rows = super().grow()
        self.grown_in_vain = 0 if rows else self.grown_in_vain + 1
        assert self.grown_in_vain < 100, f"next_step chooses for ever; waiting: {[len(s) for s in self.waiting]}"
        return rows


def scheduler_of(
    n_pages: int = 12, slots: int = 4, budget: int = 64, row: int | None = None, min_prefill: int | None = 1
) -> Scheduler:
    return GuardedScheduler(PageTable(n_pages, PAGE, slots, row), budget, min_prefill)


_numbers = itertools.count()


def sequence_of(prompt: int, max_new_tokens: int = 100) -> Sequence:
    return Sequence(next(_numbers), [1] * prompt, SamplingParams(max_new_tokens=max_new_tokens))


def added(scheduler: Scheduler, *prompts: int) -> list[Sequence]:
    sequences = [sequence_of(prompt) for prompt in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def give_tokens(scheduler: Scheduler, rows: list[Row]) -> list[Sequence]:
    """What the engine does after a step: a token for each row.  Returns who is done."""
    done = []
    for row in rows:
        row.sequence.output_ids.append(1)
        if reason := row.sequence.check_done():
            scheduler.finish(row.sequence, reason)
            done.append(row.sequence)
    scheduler.page_table.check()
    return done


def decode(scheduler: Scheduler) -> list[Sequence]:
    rows = scheduler.grow()
    give_tokens(scheduler, rows)
    return [row.sequence for row in rows]


# ---------------------------------------------------------------------- when a sequence is done


@pytest.mark.parametrize(
    ("output", "params", "eos", "reason"),
    [
        ([], {}, {1, 106}, None),
        ([7], {}, {1, 106}, None),
        ([7, 106], {}, {1, 106}, "stop"),
        ([106, 7], {}, {1, 106}, None),
        ([106], dict(ignore_eos=True), {1, 106}, None),
        ([7], dict(stop=[7]), set(), "stop"),
        ([7], dict(stop=["7"]), {8}, None),
        ([106], dict(ignore_eos=True, stop=[106]), {106}, "stop"),
        ([7, 8, 9], dict(max_new_tokens=3), set(), "length"),
        ([7, 8], dict(max_new_tokens=3), set(), None),
        ([7], dict(max_new_tokens=1), {7}, "stop"),
    ],
)
def test_a_sequence_is_done_when_its_newest_token_says_so(
    output: list[int], params: dict[str, object], eos: set[int], reason: str | None
) -> None:
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    assert Sequence(0, [5, 5], sampling, frozenset(eos), output_ids=output).check_done() == reason


@pytest.mark.parametrize(("n_output", "reason"), [(2, None), (3, "length")])
def test_the_prompt_counts_for_the_longest_sequence(n_output: int, reason: str | None) -> None:
    sequence = Sequence(0, [5, 5], max_length=5, output_ids=[7] * n_output)
    assert sequence.check_done() == reason


# ---------------------------------------------------------------------- adding


def test_what_can_never_run_is_refused_at_once_and_does_not_block_the_queue() -> None:
    scheduler = scheduler_of(n_pages=3)
    with pytest.raises(ValueError, match=r"13 tokens can never run: .* 3 pages of 4 tokens, 12 tokens"):
        scheduler.add(sequence_of(13))
    (fits,) = added(scheduler, 12)
    assert [row.sequence for row in scheduler.next_step()] == [fits]


def test_the_length_of_a_row_is_a_limit_too() -> None:
    scheduler = scheduler_of(n_pages=12, row=8)
    assert scheduler.longest == 8
    with pytest.raises(ValueError, match="9 tokens can never run"):
        scheduler.add(sequence_of(9))


# ---------------------------------------------------------------------- admission


@pytest.mark.parametrize(
    ("prompts", "options", "admitted", "why"),
    [
        ([4, 4, 4], dict(budget=8), 2, "the budget may be used up"),
        ([4, 5], dict(budget=8), 1, "but not exceeded"),
        ([9, 1], dict(budget=8), 1, "a longer prompt runs alone"),
        ([5, 5], dict(n_pages=3), 1, "each is rounded up to whole pages"),
        ([5, 5], dict(n_pages=4), 2, "and all pages may be taken"),
        ([1, 1, 1], dict(slots=2), 2, "a slot for each"),
        ([4, 9, 1], dict(n_pages=3), 1, "nobody passes one who does not fit"),
        ([], {}, 0, "nobody waits"),
    ],
)
def test_as_many_are_admissible_as_fit(prompts: list[int], options: dict[str, int], admitted: int, why: str) -> None:
    scheduler = scheduler_of(**options)
    sequences = added(scheduler, *prompts)
    assert scheduler.admissible() == sequences[:admitted], why
    assert list(scheduler.waiting) == sequences, "asking changes nothing"
    assert scheduler.page_table.pages_available == scheduler.page_table.n_pages


def test_the_admitted_get_slot_and_pages_and_leave_the_queue() -> None:
    scheduler = scheduler_of()
    first, second, third = added(scheduler, 5, 3, 4)
    rows = scheduler.admit([first, second])
    assert rows == [Row(first, 0, 5), Row(second, 0, 3)]
    assert (list(scheduler.waiting), scheduler.running) == ([third], [first, second])
    assert first.slot != second.slot and min(first.slot, second.slot) > 0, "slot 0 is the sink"
    assert [scheduler.page_table.capacity[s.slot] for s in (first, second)] == [8, 4]
    assert {first.status, second.status} == {Status.RUNNING} and third.status is Status.WAITING


@pytest.mark.parametrize(
    ("candidates", "running", "kept_waiting", "worth"),
    [
        (0, 0, 0, False),
        (0, 3, 99, False),
        (1, 0, 0, True),
        (1, 3, 0, False),
        (1, 3, 15, False),
        (1, 3, 16, True),
        (2, 3, 0, True),
    ],
)
def test_a_prefill_waits_until_it_is_worth_it(candidates: int, running: int, kept_waiting: int, worth: bool) -> None:
    scheduler = scheduler_of(n_pages=50, slots=8, min_prefill=2)
    scheduler.admit(added(scheduler, *[1] * running))
    scheduler.steps_kept_waiting = kept_waiting
    assert scheduler.worth_prefilling([sequence_of(1) for _ in range(candidates)]) == worth


def test_one_who_fits_is_admitted_within_patience_steps() -> None:
    scheduler = scheduler_of(n_pages=50, min_prefill=3)
    added(scheduler, 4)
    give_tokens(scheduler, scheduler.next_step())
    (late,) = added(scheduler, 4)
    waited = 0
    while late.status is Status.WAITING:
        give_tokens(scheduler, scheduler.next_step())
        waited += 1
        assert waited <= scheduler.patience + 1, "a request that fits waits for ever"
    assert waited > 1, "and it did wait for company"


@pytest.mark.parametrize("new_tokens", [1, 50])
def test_who_runs_goes_on_while_one_request_arrives_each_step(new_tokens: int) -> None:
    """Prefills first, always, would be a standstill for all who run already."""
    scheduler = scheduler_of(n_pages=100, slots=16, min_prefill=None)
    (runner,) = added(scheduler, 4)
    for _ in range(10):
        give_tokens(scheduler, scheduler.next_step())
        scheduler.add(sequence_of(4, max_new_tokens=new_tokens))
    assert len(runner.output_ids) > 1, "ten steps, and only the prefill's own token: the newcomers took every step"


# ---------------------------------------------------------------------- growing and giving way


@pytest.mark.parametrize(("prompt", "pages"), [(3, 1), (4, 2), (5, 2), (7, 2), (8, 3)])
def test_the_newest_token_has_a_place_before_it_is_computed(prompt: int, pages: int) -> None:
    scheduler = scheduler_of()
    (sequence,) = added(scheduler, prompt)
    give_tokens(scheduler, scheduler.next_step())
    assert scheduler.grow() == [Row(sequence, prompt, 1)], "the row computes the token that the prefill made"
    assert len(scheduler.page_table.owned[sequence.slot]) == pages


def test_the_newest_gives_way_to_the_oldest_and_keeps_its_tokens() -> None:
    scheduler = scheduler_of(n_pages=3)
    old, new = added(scheduler, 4, 3)
    give_tokens(scheduler, scheduler.next_step())
    assert decode(scheduler) == [old, new], "one page is left for the older one"
    for _ in range(3):
        decode(scheduler)
    assert new.status is Status.WAITING
    assert new.preemptions == scheduler.preemptions == 1
    assert (new.slot, old.preemptions) == (0, 0)
    kept = len(new.output_ids)
    assert kept >= 1

    assert scheduler.waiting[0] is new
    scheduler.finish(old, "aborted")
    assert scheduler.next_step() == [Row(new, 0, 3 + kept)], "its output has to be computed again as well"


def test_who_gave_way_comes_before_those_who_never_ran() -> None:
    scheduler = scheduler_of(n_pages=2)
    old, new, never = added(scheduler, 4, 4, 4)
    give_tokens(scheduler, scheduler.next_step())
    assert [row.sequence for row in scheduler.next_step()] == [old]
    assert list(scheduler.waiting) == [new, never]


def test_one_that_cannot_be_helped_by_giving_way_gives_way_itself() -> None:
    """The newest can't take pages from an older one."""
    scheduler = scheduler_of(n_pages=3)
    old, new = added(scheduler, 5, 4)
    give_tokens(scheduler, scheduler.next_step())
    assert decode(scheduler) == [old]
    assert new.status is Status.WAITING and new.preemptions == 1


def test_a_lone_sequence_that_outgrows_the_pool_ends_by_name() -> None:
    scheduler = scheduler_of(n_pages=2)
    (lone,) = added(scheduler, 7)
    while rows := scheduler.next_step():
        give_tokens(scheduler, rows)
    assert lone.finish_reason == "out_of_pages"
    assert scheduler.outgrown == [lone]
    assert len(lone) == 9, "eight tokens in the cache, and the ninth needs no place until it is computed"
    assert not scheduler.has_work
    assert scheduler.page_table.pages_available == 2


def test_one_that_outgrew_its_row_ends_even_if_an_older_one_wants_its_pages() -> None:
    """Preempted instead, it would wait for ever: no pool is large enough for it."""
    scheduler = scheduler_of(n_pages=3, row=8)
    older, newer = added(scheduler, 4, 8)
    for sequence in (older, newer):
        sequence.params = SamplingParams(max_new_tokens=4)
    n_steps = 0
    while rows := scheduler.next_step():
        give_tokens(scheduler, rows)
        n_steps += 1
        assert n_steps < 50
    assert (older.finish_reason, newer.finish_reason) == ("length", "out_of_pages")


# ---------------------------------------------------------------------- finishing


@pytest.mark.parametrize("running", [True, False])
def test_finishing_frees_everything_whether_running_or_waiting(running: bool) -> None:
    scheduler = scheduler_of()
    sequence, other = added(scheduler, 5, 5)
    if running:
        scheduler.admit([sequence])
    scheduler.finish(sequence, "aborted")
    assert (sequence.status, sequence.slot, sequence.finish_reason) == (Status.FINISHED, 0, "aborted")
    assert (list(scheduler.waiting), scheduler.running) == ([other], [])
    assert scheduler.page_table.pages_available == 12
    scheduler.page_table.check()


def test_finishing_twice_changes_nothing() -> None:
    scheduler = scheduler_of()
    first, _ = added(scheduler, 5, 5)
    scheduler.admit([first])
    scheduler.finish(first, "stop")
    slot = scheduler.page_table.allocate()  # somebody else has its slot now
    scheduler.page_table.reserve(slot, 5)
    scheduler.finish(first, "aborted")
    assert first.finish_reason == "stop"
    assert scheduler.page_table.is_allocated(slot)
    scheduler.page_table.check()


def test_nothing_to_do_is_an_empty_step() -> None:
    scheduler = scheduler_of()
    assert not scheduler.has_work
    assert scheduler.next_step() == []


# ---------------------------------------------------------------------- under random load


@dataclass
class Load:
    """What arrives, and what serves it."""

    n_pages: int
    slots: int
    budget: int
    row: int | None
    min_prefill: int
    patience: int
    arrivals: list[tuple[int, int, int]] = field(default_factory=list)  # step, prompt tokens, new tokens at most


loads = st.builds(
    Load,
    n_pages=st.integers(1, 8),
    slots=st.integers(1, 5),
    budget=st.integers(1, 24),
    row=st.none() | st.integers(1, 40),
    min_prefill=st.integers(1, 4),
    patience=st.integers(1, 6),
    arrivals=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 30), st.integers(1, 16)), min_size=1, max_size=14
    ).map(sorted),
)


@given(loads)
@settings(max_examples=250)
@example(Load(4, 3, 64, 8, 1, 16, [(0, 4, 9), (0, 1, 9), (0, 8, 9)]))
@example(Load(2, 4, 64, None, 1, 16, [(0, 4, 16)] * 6))
def test_everyone_is_served_once_in_order_and_the_oldest_never_stops(load: Load) -> None:
    table = PageTable(load.n_pages, PAGE, load.slots, load.row)
    scheduler = GuardedScheduler(table, load.budget, load.min_prefill, load.patience)
    arrivals, accepted, finished = list(load.arrivals), [], []
    first_admitted: list[int] = []
    standing_still = 0  # steps since the oldest of all got a token

    for step in range(3000):
        while arrivals and arrivals[0][0] <= step:
            _, prompt, new_tokens = arrivals.pop(0)
            sequence = sequence_of(prompt, new_tokens)
            if prompt > scheduler.longest:
                with pytest.raises(ValueError, match="can never run"):
                    scheduler.add(sequence)
                continue
            scheduler.add(sequence)
            accepted.append(sequence)
        if not scheduler.has_work:
            if not arrivals:
                break
            continue

        running_before = list(scheduler.running)
        oldest = running_before[0] if running_before else scheduler.waiting[0]
        rows = scheduler.next_step()
        table.check()

        outgrown, scheduler.outgrown = scheduler.outgrown, []
        for sequence in outgrown:
            assert sequence.finish_reason == "out_of_pages"
            assert len(sequence) > scheduler.longest, "ended although it still fits"
        finished += outgrown

        assert rows or not scheduler.has_work, "an empty step while there is work"
        scheduled = [row.sequence for row in rows]
        assert len(set(map(id, scheduled))) == len(scheduled), "one sequence has two rows"
        assert not set(map(id, scheduled)) & set(map(id, scheduler.waiting)), "who gave way is computed all the same"
        assert len({row.start == 0 for row in rows}) <= 1, "prefill and decode in one step"
        for row in rows:
            assert row.sequence.status is Status.RUNNING
            assert row.start + row.n_tokens == len(row.sequence)
            assert table.capacity[row.sequence.slot] >= len(row.sequence), "a token has no place in the cache"
        if rows and rows[0].start == 0:
            tokens = sum(row.n_tokens for row in rows)
            assert tokens <= load.budget or len(rows) == 1, "the prefill exceeds its budget"
            first_admitted += [s.request_id for s in scheduled if not s.output_ids]
        elif rows:
            assert scheduled == scheduler.running, "a decode leaves somebody out"

        assert oldest not in scheduler.waiting or oldest not in running_before, "the oldest lost its pages"
        in_order = [s.request_id for s in [*scheduler.running, *scheduler.waiting]]
        assert in_order == sorted(in_order), "somebody passed an older one"
        # The newest token of one who sits out a prefill has no place yet.
        held = sum(-(-(len(s) - (s not in scheduled)) // PAGE) for s in scheduler.running)
        assert table.n_pages - table.pages_available == held, "pages taken and pages needed differ"

        standing_still = 0 if oldest in scheduled or oldest in finished else standing_still + 1
        assert standing_still <= load.slots + 1, "the oldest stands still"
        finished += give_tokens(scheduler, rows)
    else:
        raise AssertionError("3000 steps, and not done")

    assert sorted(s.request_id for s in finished) == [s.request_id for s in accepted], "lost, or finished twice"
    assert first_admitted == [s.request_id for s in accepted], "not first come, first served"
    for sequence in finished:
        assert sequence.finish_reason in ("length", "out_of_pages")
        if sequence.finish_reason == "length":
            assert len(sequence.output_ids) == sequence.params.max_new_tokens
    assert table.pages_available == table.n_pages
    event(f"preempted: {bool(scheduler.preemptions)}")
    event(f"outgrown: {any(s.finish_reason == 'out_of_pages' for s in finished)}")
