"""The eight answers on the terminal."""

from __future__ import annotations

import doctest
import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from course import demo

MODULES = ["console", "demo", "environment", "exercises", "model", "stubs"]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_are_true(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"course.{module}"))
    assert failed == 0


class Engine:
    """Streams one word a step to each prompt; answer i has i + 1 words, some of them wide."""

    def stream(self, prompts: list[Any], params: Any) -> Any:
        for step in range(len(prompts)):
            for index in range(step, len(prompts)):
                last = step == index
                text = f"語{index}.{step} "
                result = SimpleNamespace(
                    text=" ".join(f"語{index}.{i}" for i in range(index + 1)),
                    finish_reason="stop",
                    error=None,
                    metrics=SimpleNamespace(
                        prompt_tokens=3, output_tokens=index + 1, time_to_first_token=0.5, total_time=1.0
                    ),
                )
                yield SimpleNamespace(index=index, text=text, result=result if last else None)


def whole_answers() -> list[str]:
    return [" ".join(f"語{index}.{i}" for i in range(index + 1)) for index in range(8)]


def test_every_answer_is_printed_in_full_where_lines_cannot_be_redrawn(capsys: pytest.CaptureFixture[str]) -> None:
    results, seconds = demo.stream(Engine(), demo.PROMPTS, None)
    output = capsys.readouterr().out
    for prompt, answer in zip(demo.PROMPTS, whole_answers(), strict=True):
        assert prompt in output and answer in output
    assert "\x1b" not in output
    assert "36 tokens in" in demo.summary(results, seconds)


def test_on_a_terminal_lines_are_redrawn_within_its_width_and_all_is_there_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "can_redraw", lambda: True)
    monkeypatch.setattr(demo, "width", lambda: 20)
    monkeypatch.setattr(demo.Board, "PAUSE", 0.0)
    demo.stream(Engine(), demo.PROMPTS, None)
    drawn, _, final = capsys.readouterr().out.rpartition("\x1b[J")
    lines = [line.split("\x1b[2K")[1] for line in drawn.split("\n") if "\x1b[2K" in line]
    assert len(lines) % 8 == 0 and len(lines) > 8
    assert max(map(demo.cells, lines)) <= 19, "a line as wide as the terminal wraps, and the cursor comes back wrongly"
    assert any("…" in line for line in lines), "no line was long enough to be cut: this test sees nothing"
    words = final.split()
    for answer in whole_answers():
        assert all(word in words for word in answer.split())


def test_an_answer_cut_by_the_limit_shows_it() -> None:
    cut = SimpleNamespace(text="And so", finish_reason="length", error=None)
    assert demo.answer(0, cut).endswith("And so …")
