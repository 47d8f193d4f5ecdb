"""benchmarks.step and benchmarks.latency on a tiny model: what they count, not how long it takes."""

from __future__ import annotations

from typing import Any

import families
import pytest

from benchmarks import latency, step
from flexnano import Inference


@pytest.fixture
def tiny() -> Any:
    return families.FAMILIES["llama"]()


def test_a_step_is_timed_with_all_rows_in_it(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Inference] = []

    def make(*args: Any, **options: Any) -> Inference:
        engines.append(Inference(*args, **{**options, "fast": True, "attention": "gather"}))
        return engines[-1]

    monkeypatch.setattr("flexnano.Inference", make)
    found = step.measure(tiny, rows=4, context=20, vocabulary=families.VOCAB, steps=6, profiled=2)
    assert found["rows"] == 4 and found["ms"] > 0
    assert 0 <= found["host_ms"] <= found["ms"] * 1.5
    assert engines[0].stats.decode_steps >= 6 and not engines[0]._requests, "the engine was not closed"


class Clock:
    """Goes on by itself, a hundredth of a second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def test_everybody_who_arrives_is_served_and_counted(tiny: Any) -> None:
    requests = [([5, 6, 7 + n], 3 + n) for n in range(4)]
    times = [0.05 * n for n in range(1, 21)]
    with Inference(tiny, None, 4, 64, 32, 16, attention="gather", fast=False) as engine:
        found = latency.serve(engine, requests, times, Clock())
        assert not engine.has_work
    assert found["requests"] == 20
    assert found["counted"] == sum(at >= times[-1] / 5 for at in times)
    assert found["first_token_p99_seconds"] >= found["first_token_p50_seconds"] > 0
    assert found["output_tokens_per_second"] > 0
