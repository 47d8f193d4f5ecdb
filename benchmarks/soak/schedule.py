"""A million and a half requests through scheduler, planner and page table, with a hash for a model."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.soak.books import Books, leaked, poisson
from benchmarks.soak.stand_in import FIRST_WORD, VOCAB, StandIn
from benchmarks.soak.trend import growth, yardstick
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

PARTS = 20  # of an interval at most; each begins with a look at how fast the machine is

STEPS_TO_COMPARE = 1000
"""Steps of an interval, so that it has seen many come and few come: below that, intervals differ by who was there."""

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


def run_case(name: str, options: dict[str, Any], n_requests: int, seed: int, say: Callable[[str], None]) -> Report:
    rng = random.Random(f"{seed} {name}")
    engine = StandIn(**options)
    books = Books(engine, engine.judge, engine.forget)
    people = People(rng)
    gc.collect()
    gc.freeze()  # what is there already is neither looked through nor counted
    n_intervals = max(12, min(40, n_requests // 250))
    parts = max(1, min(PARTS, n_requests // n_intervals // 20))
    intervals: list[Report] = []
    began = time.perf_counter()
    for number in range(n_intervals):
        goals = [n_requests * (parts * number + part) // (parts * n_intervals) for part in range(1, parts + 1)]
        steps, seconds, worked, yardsticks = engine.stats.steps, 0.0, 0.0, list[float]()
        for goal in goals:
            yardsticks.append(yardstick())
            clock, processor = time.perf_counter(), time.process_time()
            while books.counts["requests"] < goal:
                people.come(engine, books)
                books.step()
            if goal == goals[-1]:
                books.settle()
            seconds, worked = seconds + time.perf_counter() - clock, worked + time.process_time() - processor
        steps = engine.stats.steps - steps
        pages, slots = leaked(engine)
        assert not engine.expected
        gc.collect()
        intervals.append(
            {
                "requests": books.counts["requests"],
                "steps": steps,
                "steps_per_second": round(steps / seconds, 1),
                "microseconds_of_processor_a_step": round(worked / steps * 1e6, 2),
                "microseconds_of_yardstick": round(statistics.mean(yardsticks), 2),
                "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 3),
                "objects": len(gc.get_objects()),
                "pages_leaked": pages,
                "slots_leaked": slots,
            }
        )
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
        "pages_leaked": sum(one["pages_leaked"] for one in intervals),
        "slots_leaked": sum(one["slots_leaked"] for one in intervals),
        "intervals": intervals,
    }
    report["growth"] = {what: one.as_dict() for what, one in fits(intervals).items()}
    say(
        f"{name}: {report['requests']:,} requests, {report['steps']:,} steps in {report['seconds']:.0f} s, "
        f"{report['preemptions']:,} preemptions, {report['pages_leaked']} pages leaked"
    )
    for one in fits(intervals).values():
        say(f"  {one.line()}")
    return report


def fits(intervals: list[Report]) -> dict[str, Any]:
    done = [one["requests"] for one in intervals]
    half = done[-1] - done[len(done) // 2]
    cost = [one["microseconds_of_processor_a_step"] / one["microseconds_of_yardstick"] for one in intervals]
    middle = sorted(cost)[len(cost) // 2]
    long_enough = min(one["steps"] for one in intervals) >= STEPS_TO_COMPARE
    compared = (done, [100 * one / middle for one in cost]) if long_enough else ([], [])
    return {
        # A page of memory more or less is nothing that a short run could tell from a leak.
        "memory": growth(
            "memory", "MiB", done, [one["rss_mib"] for one in intervals], max(0.25, BYTES_A_REQUEST * half / 2**20)
        ),
        "objects": growth("objects", "", done, [one["objects"] for one in intervals], max(25.0, half / 1000)),
        "step": growth("time of a step by a fixed yardstick", "%", *compared, 10.0),
    }


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
