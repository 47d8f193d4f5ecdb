"""What a workload takes at least: by hand, as the chapter has it, and above what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import bound
from course.environment import ROOT
from flexnano import Machine, least_step_seconds

AT_ONCE = {"gemma2": 512, "qwen3": 256}


def test_the_chapter_computes_the_bound_as_the_benchmark_does() -> None:
    chapter = json.loads((ROOT / "notebooks" / "07_making_it_fast.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in chapter["cells"] if cell["cell_type"] == "code"]
    (code,) = [cell for cell in cells if "def bound(" in cell]
    names: dict[str, Any] = {"least_step_seconds": least_step_seconds, "h100": bound.H100}
    names |= {"GEMMA": 2_614_341_888, "HEAD": 589_824_000, "GEMMA_KV": 106_496}
    exec(code, names)
    assert names["bounds"] == pytest.approx(
        {name: bound.of_workload(name, at_once) for name, at_once in AT_ONCE.items()}
    )


def test_a_workload_that_needs_one_step_more_has_a_lower_bound() -> None:
    machine = Machine("by hand", bytes_per_second=10, flops_per_second=100)
    together = bound.at_most(machine, [(3, 2), (3, 2)], 10, 4, 1, at_once=2)
    assert together == pytest.approx(4 / (1.2 + 2.0 + 0.8))
    assert bound.at_most(machine, [(3, 2), (3, 2)], 10, 4, 1, at_once=1) == pytest.approx(4 / (1.2 + 2 * 2.4))


def test_where_products_take_longer_than_reading_they_decide() -> None:
    """Four prompts of 60 tokens: 2 · 6 · 240 operations are 28.8 s, their 6 weights 1.2 s."""
    machine = Machine("by hand", bytes_per_second=10, flops_per_second=100)
    assert bound.at_most(machine, [(60, 1)] * 4, 10, 4, 1, at_once=4) == pytest.approx(4 / 28.8)


def test_no_result_is_above_its_bound() -> None:
    rows = bound.reached()
    assert {row["workload"] for row in rows} == {"gemma2", "qwen3", "long"}
    assert all(0 < row["share"] < 1 for row in rows), rows
