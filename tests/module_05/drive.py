"""Puts sequences of module 05 into a state, lets the learner's scheduler act, and says how everyone stands afterwards."""

from __future__ import annotations

import string
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from course.grading.driving import NotUsable, instance
from flexnano.page_table import PageTable
from flexnano.sampling_params import SamplingParams
from flexnano.scheduler import Scheduler
from flexnano.sequence import Sequence, Status

Case = dict[str, Any]
Named = dict[str, Sequence]

MANY_CALLS = 20_000
"""More function calls than any step of these small cases takes."""


# ------------------------------------------------------------------------------------------------------ no end


class Endless(BaseException):
    """Raised in code that does not come to an end.  No `except Exception` stops it."""


def within(calls: int, function: Callable[[], Any]) -> Any:
    """What `function` gives, unless it calls more functions than any right one would."""
    left = calls

    def count(*_event: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise Endless

    sys.setprofile(count)
    try:
        return function()
    finally:
        sys.setprofile(None)


# ------------------------------------------------------------------------------------------------------ states


def job(number: int, prompt: int, made: int, new: int = 99) -> Sequence:
    return Sequence(number, list(range(10, 10 + prompt)), SamplingParams(max_new_tokens=new), output_ids=[7] * made)


def scheduler_of(case: Case) -> Scheduler:
    table = PageTable(case["pool"], case["size"], case["slots"], case["row"])
    return Scheduler(table, case["budget"], case["min_prefill"], case["patience"])


def state(case: Case) -> tuple[Scheduler, Named]:
    """A scheduler with sequences A, B, … in it: first those that run, then those that wait."""
    scheduler, named = scheduler_of(case), {}
    for stands in ("running", "waiting"):
        for prompt, made in case[stands]:
            name = string.ascii_uppercase[len(named)]
            named[name] = job(len(named), prompt, made)
            getattr(scheduler, stands).append(named[name])
            if stands == "running":
                seat(scheduler, named[name])
    return scheduler, named


def seat(scheduler: Scheduler, sequence: Sequence) -> None:
    """As after a step: every token but the newest has its place in a page."""
    table = scheduler.page_table
    vars(sequence).update(slot=table.allocate(), status=Status.RUNNING)
    held = len(sequence) - bool(sequence.output_ids)
    if not table.reserve(sequence.slot, held):
        raise NotUsable(f"a pool of {table.n_pages} pages had no room for {held} tokens")


# ------------------------------------------------------------------------------------------------------ answers


def names(them: Iterable[Any], named: Named) -> list[str]:
    known = {id(sequence): name for name, sequence in named.items()}
    return [known.get(id(one), "?") for one in them]


def chosen(result: Any, named: Named, what: str) -> list[str]:
    """The names in a result that must be a list of sequences."""
    for one in instance(result, (list, tuple, deque), what):
        instance(one, Sequence, f"an element of {what}")
    return names(result, named)


def rows_of(result: Any, named: Named) -> list[list[Any]]:
    """The rows of a step, by name: their order is nobody's business."""
    rows = []
    for row in instance(result, (list, tuple, deque), "the result"):
        if not all(hasattr(row, field) for field in ("sequence", "start", "n_tokens")):
            raise NotUsable(f"an element of the result is a {type(row).__name__}, not a Row")
        rows.append([*names([row.sequence], named), row.start, row.n_tokens])
    return sorted(rows, key=str)


def board(scheduler: Scheduler, named: Named) -> dict[str, Any]:
    """How everyone stands."""
    table = scheduler.page_table
    seen: list[int] = []

    def place(slot: Any) -> int:
        """Slots are numbered by first appearance: which one a sequence is given does not matter."""
        if not isinstance(slot, int) or not 0 <= slot <= table.max_batch_size:
            return -1
        if slot and slot not in seen:
            seen.append(slot)
        return seen.index(slot) + 1 if slot else 0

    jobs = {}
    for name, sequence in named.items():
        slot = place(sequence.slot)
        jobs[name] = {
            "stands": getattr(sequence.status, "value", str(sequence.status)),
            "prompt": len(sequence.prompt_ids),
            "made": len(sequence.output_ids),
            "slot": slot,
            "pages": table.capacity[sequence.slot] // table.page_size if slot > 0 else 0,
            "gave_way": sequence.preemptions,
            "why": sequence.finish_reason,
        }
    return {
        "jobs": jobs,
        "running": names(scheduler.running, named),
        "waiting": names(scheduler.waiting, named),
        "outgrown": sorted(names(scheduler.outgrown, named)),
        "gave_way": scheduler.preemptions,
        "free_pages": table.pages_available,
        "free_slots": sum(not table.is_allocated(slot) for slot in range(1, table.max_batch_size + 1)),
    }


# ------------------------------------------------------------------------------------------------------ 5.1


def reason(case: Case) -> str | None:
    """Why a sequence ends."""
    sequence = Sequence(
        0,
        case["prompt"],
        SamplingParams(max_new_tokens=case["new"], stop=case["stop"], ignore_eos=case["ignore_eos"]),
        frozenset(case["eos"]),
        case["longest"],
        output_ids=list(case["output"]),
    )
    result = sequence.check_done()
    if result is not None and not isinstance(result, str):
        raise NotUsable(f'{result!r}, a {type(result).__name__}: neither "stop" nor "length" nor None')
    return result


by_count = by_room = by_token = first_rule = before_the_first = reason


# ------------------------------------------------------------------------------------------------------ 5.2


def added(case: Case) -> dict[str, Any]:
    """Add a sequence, and say whether it was refused."""
    scheduler, named = state(case)
    prompt, made = case["new"]
    name = string.ascii_uppercase[len(named)]
    named[name] = job(len(named), prompt, made, new=8)
    try:
        scheduler.add(named[name])
    except ValueError:
        return {"refused": True, **board(scheduler, named)}
    return {"refused": False, **board(scheduler, named)}


queued = refused = not_refused_for_now = added


# ------------------------------------------------------------------------------------------------------ 5.3


def candidates(case: Case) -> Any:
    scheduler, named = state(case)
    try:
        return chosen(within(MANY_CALLS, scheduler.admissible), named, "admissible's result")
    except Endless:
        return {"endless": True}


by_slots = by_tokens = by_pages = long_ones = in_order = resumed_ones = any_queue = candidates


def nothing_changes(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    scheduler.admissible()
    return board(scheduler, named)


# ------------------------------------------------------------------------------------------------------ 5.4


def worth(case: Case) -> bool:
    scheduler, _named = state(case)
    scheduler.prefilled_last, scheduler.steps_kept_waiting = case["prefilled_last"], case["kept_waiting"]
    result = scheduler.worth_prefilling(list(scheduler.waiting))
    if result is None:
        raise NotUsable("worth_prefilling's result is None: is a `return` missing?")
    return bool(result)


nobody_to_choose = due = after_a_prefill = worth


# ------------------------------------------------------------------------------------------------------ 5.5


def admitted(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    rows = scheduler.admit(list(scheduler.waiting)[: case["admit"]])
    return {"rows": rows_of(rows, named), **board(scheduler, named)}


newcomers = returning = admitted


# ------------------------------------------------------------------------------------------------------ 5.6, 5.7


def preempted(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    scheduler.preempt(named[case["who"]])
    return board(scheduler, named)


def preempted_one_by_one(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    for name in case["who"]:
        scheduler.preempt(named[name])
    return board(scheduler, named)


def finished(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    scheduler.finish(named[case["who"]], case["why"])
    return board(scheduler, named)


who_runs = who_waits = finished


def finished_twice(case: Case) -> dict[str, Any]:
    """The second time after somebody else was given what the first time set free."""
    scheduler, named = state(case)
    scheduler.finish(named[case["who"]], "stop")
    if case["heir"]:
        heir = next(iter(scheduler.waiting))
        scheduler.waiting.remove(heir)
        scheduler.running.append(heir)
        seat(scheduler, heir)
    scheduler.finish(named[case["who"]], case["why"])
    return board(scheduler, named)


# ------------------------------------------------------------------------------------------------------ 5.8


def grown(case: Case) -> dict[str, Any]:
    scheduler, named = state(case)
    try:
        rows = within(MANY_CALLS, scheduler.grow)
    except Endless:
        return {"endless": True}
    return {"rows": rows_of(rows, named), **board(scheduler, named)}


alone = side_by_side = too_few_pages = too_long = pages_of_one = any_batch = grown


# ------------------------------------------------------------------------------------------------------ 5.9


def run(case: Case) -> list[dict[str, Any]]:
    """Steps of a scheduler whose model makes the same token again and again.  Everybody ends at a number of tokens."""
    scheduler, named, steps = scheduler_of(case), {}, []
    coming = [tuple(one) for one in case["arrivals"]]
    while len(steps) < case["steps"] and (coming or scheduler.has_work):
        while coming and coming[0][0] <= len(steps):
            _, prompt, new = coming.pop(0)
            name = string.ascii_uppercase[len(named)]
            named[name] = job(len(named), prompt, 0, new)
            scheduler.add(named[name])
        try:
            rows = within(MANY_CALLS, scheduler.next_step)
        except Endless:
            steps.append({"endless": True})
            break
        steps.append(
            {
                "rows": rows_of(rows, named),
                "running": names(scheduler.running, named),
                "waiting": names(scheduler.waiting, named),
                "free_pages": scheduler.page_table.pages_available,
                "outgrown": sorted(names(scheduler.outgrown, named)),
            }
        )
        scheduler.outgrown.clear()
        for row in rows:
            row.sequence.output_ids.append(7)
            if len(row.sequence.output_ids) >= row.sequence.params.max_new_tokens:
                scheduler.finish(row.sequence, "length")
    return steps


plain_runs = newcomers_in_a_run = runs_short_of_pages = long_runs = run
