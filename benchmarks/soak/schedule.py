"""Almost two million requests through scheduler, planner and page table, with a hash for a model."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.soak.books import Books, leaked, poisson
from benchmarks.soak.stand_in import FIRST_WORD, VOCAB, StandIn
from benchmarks.soak.trend import Growth, growth, longer
from flexnano import SamplingParams
from flexnano.extras import Extras

Report = dict[str, Any]

WHAT = "requests through scheduler, planner and page table with a hash for a model: each ends once, as it would alone"

SCHEDULER: dict[str, dict[str, Any]] = {
    "scheduler": {},
    "scheduler, tokens late": {"late": True},
}
"""Modules 03 and 05 by themselves, by module 06's path and by module 07's."""


def _extras(sharing: bool = False, window: int | None = None, sinks: int = 0, fuse: bool = False) -> Extras:
    return Extras(sharing, window, sinks, fuse, prefill_chunk=24)


PLANNER: dict[str, dict[str, Any]] = {
    "sharing": {"extras": _extras(sharing=True)},
    "fusion": {"extras": _extras(fuse=True)},
    "window": {"extras": _extras(window=20, sinks=3), "windows": (20,), "n_pages": 20},
    "window and global layers": {"extras": _extras(window=20), "windows": (None, 20)},
    "all": {"extras": _extras(True, 20, 3, True), "windows": (20,), "n_pages": 20},
    "all, global layers too, tokens late": {
        "extras": _extras(True, 20, 3, True),
        "windows": (None, 20),
        "late": True,
    },
}
"""The homeworks' planner, option by option and together."""

PAIRS, ENOUGH = 100, 5000
"""How often engines take turns when they are compared, and from how many requests on an engine is old enough for that."""

BYTES_A_REQUEST = 16
"""Growth of memory that is taken for flat: less than the smallest object that could be kept for each request."""


def soak(
    requests: int, planner_requests: int | None = None, seed: int = 0, say: Callable[[str], None] = print
) -> Report:
    """Run all cases.

    Args:
        requests: of the scheduler, half of them with tokens that are read late.
        planner_requests: of the planner, spread over its cases; None: half as many.
    """
    each = {name: requests // len(SCHEDULER) for name in SCHEDULER}
    n_planner = requests // 2 if planner_requests is None else planner_requests
    each |= {name: n_planner // len(PLANNER) for name in PLANNER}
    cases = {
        name: run_case(name, options, each[name], seed, say)
        for name, options in {**SCHEDULER, **PLANNER}.items()
        if each[name]
    }
    total: Counter[str] = Counter()
    for case in cases.values():
        for key, value in case.items():
            if isinstance(value, int):
                total[key] += value
    return {"seed": seed, "total": dict(total), "passed": passed(cases), "grows": what_grows(cases), "cases": cases}


def what_grows(cases: dict[str, Report]) -> list[str]:
    return [
        f"{name}: {what}"
        for name, case in cases.items()
        for what, one in case["growth"].items()
        if one["verdict"] == "grows"
    ]


def passed(cases: dict[str, Report]) -> bool:
    """No page and no slot is gone, and nothing grows.  All else would have ended the run."""
    leaks = sum(case["pages_leaked"] + case["slots_leaked"] for case in cases.values())
    return not leaks and not what_grows(cases)


class Service:
    """An engine, those who ask it, and the books."""

    def __init__(self, name: str, options: dict[str, Any], seed: int) -> None:
        self.engine = StandIn(**options)
        self.books = Books(self.engine, self.engine.judge, self.engine.forget)
        self.people = People(random.Random(f"{seed} {name}"))

    def serve(self, n: int) -> float:
        """Let n more requests come; microseconds of the processor that a step took."""
        goal, steps, began = self.books.counts["requests"] + n, self.engine.stats.steps, time.process_time()
        while self.books.counts["requests"] < goal:
            self.people.come(self.engine, self.books)
            self.books.step()
        return 1e6 * (time.process_time() - began) / (self.engine.stats.steps - steps)

    def settle(self) -> tuple[int, int]:
        """Let everyone finish; (pages, slots) that are gone then."""
        self.books.settle()
        assert not self.engine.expected
        return leaked(self.engine)


def run_case(name: str, options: dict[str, Any], n_requests: int, seed: int, say: Callable[[str], None]) -> Report:
    service = Service(name, options, seed)
    engine, books = service.engine, service.books
    gc.collect()
    gc.freeze()  # what is there already is neither looked through nor counted
    n_intervals = max(12, min(40, n_requests // 250))
    intervals: list[Report] = []
    began = time.perf_counter()
    for number in range(n_intervals):
        goal, steps, clock = n_requests * (number + 1) // n_intervals, engine.stats.steps, time.perf_counter()
        worked = service.serve(max(1, goal - books.counts["requests"]))
        pages, slots = service.settle()
        seconds, steps = time.perf_counter() - clock, engine.stats.steps - steps
        gc.collect()
        intervals.append(
            {
                "requests": books.counts["requests"],
                "steps": steps,
                "steps_per_second": round(steps / seconds, 1),
                "microseconds_of_processor_a_step": round(worked, 2),
                "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 3),
                "objects": len(gc.get_objects()),
                "pages_leaked": pages,
                "slots_leaked": slots,
            }
        )
    step = beside_a_new_one(service, Service(name, options, seed), n_requests)
    pages, slots = service.settle()
    gc.unfreeze()
    engine.close()
    report = {
        "requests": books.counts["requests"],
        "steps": engine.stats.steps,
        "seconds": round(time.perf_counter() - began, 1),
        **{end: books.counts[end] for end in ("stop", "length", "out_of_pages", "aborted", "closed", "refused")},
        "tokens": books.counts["tokens"],
        "preemptions": engine.scheduler.preemptions,
        "streams": books.counts["streams"],
        "cached_tokens": 0 if engine.planner is None else engine.planner.cached_tokens,
        "looks": engine.looks,
        "pages_leaked": pages + sum(one["pages_leaked"] for one in intervals),
        "slots_leaked": slots + sum(one["slots_leaked"] for one in intervals),
        "intervals": intervals,
    }
    growths = {**fits(intervals), "step": step}
    report["growth"] = {what: one.as_dict() for what, one in growths.items()}
    say(
        f"{name}: {report['requests']:,} requests, {report['steps']:,} steps in {report['seconds']:.0f} s, "
        f"{report['preemptions']:,} preemptions, {report['pages_leaked']} pages leaked"
    )
    for one in growths.values():
        say(f"  {one.line()}")
    return report


def fits(intervals: list[Report]) -> dict[str, Growth]:
    done = [one["requests"] for one in intervals]
    half = done[-1] - done[len(done) // 2]
    return {
        # A page of memory more or less is nothing that a short run could tell from a leak.
        "memory": growth(
            "memory", "MiB", done, [one["rss_mib"] for one in intervals], max(0.25, BYTES_A_REQUEST * half / 2**20)
        ),
        "objects": growth("objects", "", done, [one["objects"] for one in intervals], max(25.0, half / 1000)),
    }


def beside_a_new_one(aged: Service, new: Service, n_requests: int) -> Growth:
    """How much longer a step of an engine takes that has served so many requests than one of a new engine.

    They serve in turns, so that a machine that is slow for a while is slow for both.
    """
    ratios: list[float] = []
    each = max(50, n_requests // 500)
    if n_requests >= ENOUGH:
        new.serve(5 * each)  # what is set up on first use
        for turn in range(PAIRS):
            taken = {one: one.serve(each) for one in ((aged, new) if turn % 2 else (new, aged))}
            ratios.append(taken[aged] / taken[new])
        assert new.settle() == (0, 0)
    new.engine.close()
    return longer("time of a step beside a new engine's", ratios, limit=10.0)


class People:
    """Those who ask: many at once and nobody for a while, some of whom change their mind."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.params = [
            SamplingParams(max_new_tokens=rng.randint(1, 40), ignore_eos=rng.random() < 0.1, seed=rng.getrandbits(62))
            for _ in range(5000)
        ]
        # More than the pool holds.
        self.params += [SamplingParams(max_new_tokens=500, ignore_eos=True, seed=n) for n in range(10)]
        words = range(FIRST_WORD, VOCAB)
        self.beginnings = [rng.choices(words, k=k) for k in (0, 0, 3, 8, 11, 16, 24, 40)]
        self.words = rng.choices(words, k=10_000)

    def prompt(self) -> list[int]:
        n = self.rng.randint(1, 40) if self.rng.random() < 0.2 else self.rng.randint(1, 10)
        at = self.rng.randrange(len(self.words) - n)
        return self.rng.choice(self.beginnings) + self.words[at : at + n]

    def come(self, engine: StandIn, books: Books) -> None:
        rng = self.rng
        # More than can be served, then less, so that the queue is long and short.
        busy = engine.stats.steps // 500 % 2 == 0
        if len(engine.scheduler.waiting) < 60:
            for _ in range(poisson(rng, 1.4 if busy else 0.5)):
                books.add(self.prompt(), rng.choice(self.params))
        chance = rng.random()
        if chance < 0.02:
            books.abort(rng)
        elif chance < 0.025:
            books.add_bad(self.words[: engine.max_seq_length], None)
        elif chance < 0.03 and len(books.streams) < 3:
            n = rng.randint(1, 3)
            books.open_stream([self.prompt() for _ in range(n)], rng.choices(self.params, k=n))
        for stream in list(books.streams):
            if rng.random() < 0.3:
                books.read_stream(stream, rng.randint(1, 4))
        if books.streams and rng.random() < 0.03:
            books.close_stream(rng.choice(books.streams))
