"""benchmarks/soak: a short one of each kind, the longer ones under --all, and that a soak sees what it is there for."""

from __future__ import annotations

import doctest
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch

from benchmarks import reliability
from benchmarks.soak import schedule, traffic, trend
from benchmarks.soak.__main__ import write
from course import counts
from flexnano import Inference, PageTable, Scheduler
from flexnano.planner import Planner
from flexnano.prefix_index import SharedPages

ENDS = ("stop", "length", "out_of_pages", "aborted", "closed")


def quiet(_line: str) -> None:
    pass


def assert_soaked(report: dict[str, Any]) -> None:
    counted = report.get("total", report)
    # No verdict on time is asserted: the machine may be anyone's.
    grows = [what for what in report["grows"] if not what.endswith("step")]
    assert not grows, f"{grows}, {counted}"
    assert not report.get("probes_with_other_tokens")
    assert counted["pages_leaked"] == counted["slots_leaked"] == 0
    assert counted["requests"] == sum(counted[end] for end in ENDS), "a request is not accounted for"
    counts.add("requests", counted["requests"])


# ---------------------------------------------------------------------- without a model


@pytest.mark.parametrize(
    ("requests", "of_the_planner"), [(800, 900), pytest.param(50_000, 30_000, marks=pytest.mark.slow)], ids=["", "many"]
)
def test_requests_through_scheduler_planner_and_page_table_each_end_once_as_they_would_alone(
    requests: int, of_the_planner: int
) -> None:
    report = schedule.soak(requests, of_the_planner, say=quiet)
    assert_soaked(report)
    total, cases = report["total"], report["cases"]
    assert total["requests"] >= requests + of_the_planner
    for what in ("preemptions", "out_of_pages", "aborted", "closed", "refused", "cached_tokens", "looks"):
        assert total[what] > 0, f"{what}: none, so that nothing is proved about them"
    for name, case in cases.items():
        assert case["preemptions"] > 0, f"{name}: nobody gave way"
    assert cases["sharing"]["cached_tokens"] > cases["sharing"]["requests"]


# Each breaks the engine in one place, as an edit might.


def loses_a_page(patch: pytest.MonkeyPatch) -> None:
    drop = PageTable.drop
    patch.setattr(PageTable, "drop", lambda self, pages: drop(self, pages[:-1] if len(pages) > 6 else pages))


def gives_a_page_twice(patch: pytest.MonkeyPatch) -> None:
    take = PageTable.take
    patch.setattr(PageTable, "take", lambda self, n: [*(pages := take(self, n))[:-1], pages[0]])


def loses_whoever_is_preempted(patch: pytest.MonkeyPatch) -> None:
    def preempt(self: Scheduler, sequence: Any) -> None:
        self._release(sequence, sequence.status)

    patch.setattr(Scheduler, "preempt", preempt)


def forgets_a_slot(patch: pytest.MonkeyPatch) -> None:
    erase = PageTable.erase

    def forget(self: PageTable, slot: int) -> None:
        erase(self, slot)
        if len(self.free_slots) > 12:
            self.free_slots.pop()

    patch.setattr(PageTable, "erase", forget)


def writes_into_shared_pages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SharedPages, "make_writable", lambda self, slot, position: True)


def gives_up_a_page_too_early(patch: pytest.MonkeyPatch) -> None:
    from flexnano import planner

    give_up = planner.give_up_pages
    patch.setattr(planner, "give_up_pages", lambda table, slot, at, w, s: give_up(table, slot, at + 8, w, s))


def finds_what_was_never_computed(patch: pytest.MonkeyPatch) -> None:
    find = SharedPages.find

    def one_more(self: SharedPages, token_ids: Any) -> Any:
        pages, n = find(self, token_ids)
        return pages, n + 1 if n % self.table.page_size and n < len(token_ids) - 1 else n

    patch.setattr(SharedPages, "find", one_more)


def answers_twice(patch: pytest.MonkeyPatch) -> None:
    end = Inference._end

    def twice(self: Inference, *arguments: Any, **more: Any) -> None:
        end(self, *arguments, **more)
        self._events.append(self._events[-1])

    patch.setattr(Inference, "_end", twice)


def remembers_every_request(patch: pytest.MonkeyPatch) -> None:
    end, kept = Inference._end, []

    def keep(self: Inference, sequence: Any, *arguments: Any, **more: Any) -> None:
        kept.append(sequence)
        end(self, sequence, *arguments, **more)

    patch.setattr(Inference, "_end", keep)


def remembers_streams(patch: pytest.MonkeyPatch) -> None:
    class Never(set):  # type: ignore[type-arg]
        def __isub__(self, _other: object) -> Never:  # type: ignore[override,misc]
            return self

    add = Inference.add_request

    def adding(self: Inference, *arguments: Any) -> int:
        if not isinstance(self._streamed, Never):
            self._streamed = Never(self._streamed)
        return add(self, *arguments)

    patch.setattr(Inference, "add_request", adding)


def forgets_what_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Planner, "next_step", lambda self, choose=Planner.next_step: choose(self)[:-1] or choose(self))


@pytest.mark.parametrize(
    ("broken", "case"),
    [
        (loses_a_page, "scheduler"),
        (gives_a_page_twice, "scheduler"),
        (loses_whoever_is_preempted, "scheduler"),
        (forgets_a_slot, "scheduler, tokens late"),
        (writes_into_shared_pages, "sharing"),
        (gives_up_a_page_too_early, "window"),
        (finds_what_was_never_computed, "sharing"),
        (answers_twice, "scheduler, tokens late"),
        (remembers_every_request, "scheduler"),
        (remembers_streams, "fusion"),
        (forgets_what_is_on_its_way, "fusion"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_soak_sees_an_engine_that(
    broken: Callable[[pytest.MonkeyPatch], None], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    try:
        report = schedule.run_case(case, {**schedule.SCHEDULER, **schedule.PLANNER}[case], 500, 0, quiet)
    except (AssertionError, KeyError, RuntimeError, ValueError, IndexError):
        return  # an error at once is as good as a verdict
    assert not schedule.passed({case: report}), "it says that all is well"


# ---------------------------------------------------------------------- with a model

TINY = {**traffic.SIZES, "attention": "gather"}


def short_traffic(seconds: float, **more: Any) -> dict[str, Any]:
    model, tokenizer = families.FAMILIES["llama"](), families.TinyTokenizer()
    return traffic.soak(model, tokenizer, seconds / 60, 0, quiet, TINY, **more)


def test_mixed_traffic_on_a_tiny_model_leaves_nothing_behind(tmp_path: Path) -> None:
    report = short_traffic(4, seconds_an_engine=0.5)
    assert_soaked(report)
    assert report["engines"] >= len(traffic.SETTINGS), "each setting has its turn, however short the run"
    assert report["probes_with_other_tokens"] == 0
    assert report["tokens"] > 0 and report["refused"] > 0
    described = {"what": "", "machine": {"name": "a machine"}, "versions": {"torch": "2"}}
    write({**described, **report}, tmp_path, "soak")
    assert json.loads((tmp_path / "soak.json").read_text())["requests"] == report["requests"]
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.parametrize("what", ["a tensor for each engine", "pages of a stream", "other tokens each time"])
def test_traffic_sees_what_an_engine_leaves_behind(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []
    plain = {"plain": {"fast": False}}
    if what == "a tensor for each engine":
        close = Inference.close

        def keep(self: Inference) -> None:
            kept.append(torch.zeros(1))
            close(self)

        monkeypatch.setattr(Inference, "close", keep)
    elif what == "pages of a stream":
        loses_a_page(monkeypatch)
    else:
        next_tokens, n = Inference._next_tokens, [0]

        def drifting(self: Inference, rows: Any, logits: Any) -> Any:
            n[0] += 1
            return [token and (token + n[0]) % 190 + 3 for token in next_tokens(self, rows, logits)]

        monkeypatch.setattr(Inference, "_next_tokens", drifting)
    try:
        report = short_traffic(1, settings=plain, seconds_an_engine=0.1, rounds=12)
    except AssertionError:
        return
    assert not report["passed"], "it says that all is well"


@pytest.mark.slow
def test_two_minutes_of_mixed_traffic_on_the_embedded_model() -> None:
    report = traffic.soak_embedded(2.0, "cpu", None, 1, 0, print)
    assert_soaked(report)
    assert report["preemptions"] > 0 and report["cached_tokens"] > 0


# ---------------------------------------------------------------------- verdicts


def test_the_examples_of_its_docstrings_hold() -> None:
    failed, tried = doctest.testmod(trend)
    assert tried and not failed


def test_what_a_test_notes_counts_once_it_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts.jsonl"
    monkeypatch.setenv(counts.VARIABLE, str(path))
    for n, passed in ((2, True), (30, False), (1, True)):
        counts.note("faults", n)
        counts.settle(passed)
    counts.add("cheats", 4)
    assert counts.read(path) == {"faults": 3, "cheats": 4}
    monkeypatch.delenv(counts.VARIABLE)
    counts.add("cheats", 4)
    assert counts.read(path) == {"faults": 3, "cheats": 4}
    assert counts.read(tmp_path / "nothing") == {}


@pytest.mark.parametrize(("slope", "noise", "verdict"), [(0, 1, "flat"), (2, 1, "grows"), (0, 60, "not told")])
def test_a_verdict_says_only_what_the_noise_allows(slope: float, noise: float, verdict: str) -> None:
    x = list(range(40))
    y = [100 + slope * i + noise * ((i * 7919) % 11 - 5) / 5 for i in x]
    assert trend.growth("memory", "MiB", x, y, limit=8.0).verdict == verdict


def test_what_happened_before_the_second_half_does_not_count() -> None:
    y = [float(i) for i in range(20)] + [20.0] * 20
    assert trend.growth("memory", "MiB", list(range(40)), y, limit=0.5).verdict == "flat"


@pytest.mark.parametrize(("aged", "verdict"), [(1.0, "flat"), (1.05, "flat"), (1.3, "grows")])
def test_an_engine_that_has_served_long_is_compared_with_a_new_one(aged: float, verdict: str) -> None:
    """Both are twice as slow while somebody else uses the machine."""
    moments = itertools.cycle([1.0] * 10 + [2.0] * 4)

    class Service(SimpleNamespace):
        __hash__ = object.__hash__

    def service(step: float) -> Any:
        engine = SimpleNamespace(close=lambda: None)
        return Service(serve=lambda _n: step * next(moments), settle=lambda: (0, 0), engine=engine)

    found = schedule.beside_a_new_one(service(aged), service(1.0), schedule.ENOUGH)
    assert found.verdict == verdict, found.line()
    young = schedule.beside_a_new_one(service(aged), service(1.0), schedule.ENOUGH - 1)
    assert young.verdict == "not told"


def test_a_step_is_compared_with_those_of_its_own_setting() -> None:
    turns = [{"setting": name, "probe_by_yardstick": times} for name, times in [("a", 5.0), ("b", 25.0)] * 5]
    assert traffic.relative_step(turns, "probe_by_yardstick") == [100.0] * 10


# ---------------------------------------------------------------------- the table of `python -m course reliability`

RAN = {"code": 0, "passed": 7, "failed": 0}
SOAKED = {"passed": True, "requests": 500, "pages_leaked": 0, "slots_leaked": 0}


def test_the_table_adds_up_what_was_counted() -> None:
    counted = {"cheats": 27, "faults": 1200, "requests": 10, "any input": 3}
    report = reliability.summed({"a": RAN, "b": RAN}, counted, {"schedule": SOAKED, "engine": SOAKED})
    assert report["passed"]
    said = reliability.table({**report, "seconds": 3.0})
    lines = {" ".join(line.split()[:-1]): line.split()[-1] for line in said.splitlines() if line.startswith("  ")}
    assert lines["faults survived"] == "1,200" and lines["requests soaked"] == "1,010"
    assert lines["cheats tried, none paid"] == "27" and lines["any input"] == "3"
    assert lines["pages leaked"] == "0" and lines["tests passed"] == "14"
    assert "All passed" in said


@pytest.mark.parametrize(
    ("tests", "soaks", "named"),
    [
        ({"a": {**RAN, "code": 1, "failed": 2}}, {"engine": SOAKED}, "FAILED: a"),
        ({"a": {**RAN, "code": 2, "passed": 0}}, {"engine": SOAKED}, "FAILED: a"),  # it could not even be collected
        ({"a": RAN}, {"engine": {**SOAKED, "passed": False, "pages_leaked": 3}}, "FAILED: soak: engine"),
        ({"a": RAN}, {"engine": {"passed": False, "code": 1}}, "FAILED: soak: engine"),
    ],
)
def test_the_table_says_what_failed_and_never_that_nothing_leaked_where_nobody_looked(
    tests: dict[str, Any], soaks: dict[str, Any], named: str
) -> None:
    report = reliability.summed(tests, {}, soaks)
    said = reliability.table({**report, "seconds": 3.0})
    assert not report["passed"] and named in said
    leaked = next(line.split()[-1] for line in said.splitlines() if "pages leaked" in line)
    assert leaked == ("unknown" if "code" in soaks["engine"] else str(soaks["engine"]["pages_leaked"]))


def test_what_a_file_of_tests_counts_arrives_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "test_small.py"
    file.write_text(
        "from course import counts\n"
        "def test_good(): counts.add('faults', 4)\n"
        "def test_bad(): counts.note('faults', 100); assert False\n"
    )
    monkeypatch.delenv("FLEXNANO_COUNTS", raising=False)
    report = reliability.run_tests(str(file), False, tmp_path)
    assert (report["code"], report["passed"], report["failed"]) == (1, 1, 1)
    assert counts.read(tmp_path / "counts.jsonl") == {"faults": 4}
