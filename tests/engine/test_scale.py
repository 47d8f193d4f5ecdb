"""benchmarks.scale on a tiny model: what it counts, not how long that takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import families
import pytest

from benchmarks import heavy, scale
from flexnano import Inference


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    make = Inference
    monkeypatch.setattr(
        "flexnano.Inference", lambda *args, **options: make(*args, **{**options, "attention": "gather"})
    )
    return families.FAMILIES["qwen3"]()


def quiet(_line: str) -> None:
    pass


def test_a_step_is_timed_with_that_many_rows_of_that_length(tiny: Any) -> None:
    found = scale.sequences(tiny, [1, 3, 4], quiet, context=20, steps=4)
    assert [case["rows"] for case in found["cases"]] == [1, 3, 4]
    assert all(20 < case["context"] < 40 and case["ms"] > 0 for case in found["cases"])
    assert found["memory_gib"].keys() == {"weights", "cache"}


def test_every_number_of_requests_is_served_to_its_last_token(tiny: Any) -> None:
    few = heavy.Workload("tiny", 5, (4, 9), (3, 6), families.VOCAB, 4, 64)
    ticks = itertools.count()
    found = scale.requests(tiny, [2, 12], quiet, few, (1, 3), clock=lambda: float(next(ticks)))
    assert [(case["min_prefill"], case["requests"]) for case in found["cases"]] == [(1, 2), (1, 12), (3, 2), (3, 12)]
    first = sum(n for _, n in few.make()[:2])
    assert found["cases"][0]["tokens_per_second"] == first, "one tick of the clock"
    assert found["cases"][1]["prefills"] > found["cases"][3]["prefills"] >= 2
    assert all(1 <= case["rows_a_step"] <= few.max_batch_size for case in found["cases"])


def test_on_a_cpu_the_context_has_one_form_of_mask(tiny: Any) -> None:
    found = scale.context(tiny, [1, 2], [16, 40], quiet, steps=3)
    assert [(case["rows"], case["lists"]) for case in found["cases"]] == [
        (1, "two"),
        (1, "two"),
        (2, "two"),
        (2, "two"),
    ]
    assert [case["context"] >= asked for case, asked in zip(found["cases"], [16, 40, 16, 40], strict=True)] == [
        True
    ] * 4


def test_pages_are_reserved_in_a_pool_that_others_use() -> None:
    found = scale.pages([64, 256], [1, 16, 100], quiet, rounds=3)
    assert [(case["pool"], case["touched"]) for case in found["cases"]] == [
        (64, 1),
        (64, 16),
        (256, 1),
        (256, 16),
        (256, 100),
    ]
    assert all(case["reserve_us"] > 0 and case["erase_us"] > 0 for case in found["cases"])


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    [card] = [path.stem.removeprefix("scale-sequences-") for path in heavy.RESULTS.glob("scale-sequences-*.json")]
    for path in heavy.RESULTS.glob(f"scale-*-{card}.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert scale.draw(tmp_path, card).stat().st_size > 20_000


def test_the_weights_of_a_tiny_model_are_counted_once_each(tiny: Any) -> None:
    by_hand = sum(p.numel() * p.element_size() for p in tiny.parameters())
    with Inference(tiny, None, 2, 64, 8, 16, attention="gather", fast=True) as engine:
        found = heavy.memory_of(tiny, engine)
    assert found["weights"] == round(by_hand / 2**30, 3)
