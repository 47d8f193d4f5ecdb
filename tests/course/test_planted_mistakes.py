"""Every planted mistake fails under its own exercise, with its own hint; every other right answer passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cards
import pytest
from planting import REFERENCE, Alternative, Planted, build, exercise, load, plant

from course.environment import ROOT
from course.grading import grader, merge
from course.grading.card import Outcome
from course.grading.grader import Grading
from course.grading.pool import Pool

MISTAKES: list[Planted] = load("mistakes", "MISTAKES")
ALTERNATIVES: list[Alternative] = load("alternatives", "ALTERNATIVES")
GRADED = [
    one
    for module in grader.graded_modules()
    for one in merge.course_exercises()
    if one.module == module and one.number in grader.judges(module)
]

TABLE: Counter[tuple[str, str]] = Counter()
"""(exercise, what) -> how often in this run; the last test prints it."""


def name_of(planted: Planted | Alternative) -> str:
    module = int(planted.exercise.partition(".")[0])
    words = (planted.slug or "unknown", planted.note) if isinstance(planted, Planted) else (planted.name,)
    return "-".join([f"module_{module:02d}", planted.exercise, *(word.replace(" ", "_") for word in words if word)])


def grade(package: Path, number: str, pool: Pool) -> Outcome:
    with Grading(package, REFERENCE, pool=pool) as grading:
        return grading.grade(exercise(number))


def in_test_all(ones: list[Any], by_default: Callable[[Any], Any], most: int) -> list[Any]:
    """`make test` takes the first few of each exercise, each of another kind; `make test-all` takes all."""
    seen: dict[str, set[Any]] = {}
    parameters = []
    for one in ones:
        kinds, kind = seen.setdefault(one.exercise, set()), by_default(one)
        new = kind not in kinds and (kind == "" or len(kinds - {""}) < most)
        kinds.add(kind)
        parameters.append(pytest.param(one, id=name_of(one), marks=() if new else pytest.mark.slow))
    return parameters


@pytest.mark.parametrize("planted", in_test_all(MISTAKES, lambda planted: planted.slug, most=3))
def test_a_mistake_fails_with_its_own_hint(planted: Planted, tmp_path: Path, pool: Pool) -> None:
    TABLE[planted.exercise, "planted"] += 1
    outcome = grade(plant(planted, tmp_path), planted.exercise, pool)
    assert outcome.status == "not yet", f"{planted.exercise} {planted.slug} came out as {outcome.status}"
    TABLE[planted.exercise, "caught"] += 1
    known = grader.judges(exercise(planted.exercise).module)[planted.exercise]
    assert outcome.mistake == planted.slug, f"diagnosed as {outcome.mistake or 'unknown'} from {outcome.case}"
    if planted.slug:
        assert outcome.hints[0] == known.mistakes[planted.slug].hints[0]
    else:
        assert outcome.hints == list(known.hints)
    TABLE[planted.exercise, "right hint"] += 1


@pytest.mark.parametrize("alternative", in_test_all(ALTERNATIVES, lambda alternative: alternative.name, most=1))
def test_another_right_answer_passes(alternative: Alternative, tmp_path: Path, pool: Pool) -> None:
    TABLE[alternative.exercise, "alternatives"] += 1
    outcome = grade(build(alternative, tmp_path), alternative.exercise, pool)
    assert outcome.passed, f"{outcome.status}: {outcome.case}\nexpected {outcome.expected}\ngot {outcome.got}"
    TABLE[alternative.exercise, "passed"] += 1


@pytest.mark.parametrize("one", GRADED, ids=str)
def test_an_exercise_has_enough_mistakes_and_another_right_answer(one: object) -> None:
    number = one.number  # type: ignore[attr-defined]
    slugs = {planted.slug for planted in MISTAKES if planted.exercise == number}
    assert len(slugs - {""}) >= 3, f"{number} has only the mistakes {sorted(slugs)}"
    assert "" in slugs, f"{number} has no mistake outside the bank"
    assert any(alternative.exercise == number for alternative in ALTERNATIVES), f"{number} has no other right answer"


@pytest.mark.parametrize("one", GRADED, ids=str)
def test_each_known_mistake_has_hints_of_its_own(one: object) -> None:
    judge = grader.judges(one.module)[one.number]  # type: ignore[attr-defined]
    texts = [hint for mistake in judge.mistakes.values() for hint in mistake.hints] + list(judge.hints)
    twice = [text for text, n in Counter(texts).items() if n > 1]
    assert not twice, f"{judge.number}: two mistakes share a hint: {twice}"
    planted = {mistake.slug for mistake in MISTAKES if mistake.exercise == judge.number}
    assert set(judge.mistakes) <= planted, f"never planted: {sorted(set(judge.mistakes) - planted)}"


@pytest.mark.parametrize("one", GRADED, ids=str)
def test_the_notebook_shows_a_card_of_each_exercise(one: object, tmp_path: Path, pool: Pool) -> None:
    module, number = one.module, one.number  # type: ignore[attr-defined]
    notebook = next((ROOT / "notebooks").glob(f"{module:02d}_*.ipynb"), None)
    if notebook is None:
        pytest.skip(f"module {module:02d} has no notebook yet")
    shown = {at: cell for _, _, cell, at in cards.places(notebook.read_text(encoding="utf-8"))}
    assert number in shown, f'{notebook.name} has no cell with {{"course": {{"card": "{number}"}}}} in its metadata'
    wanted = cards.sample(cards.samples()[number], tmp_path, pool)
    assert "".join(shown[number]["source"]) == wanted, "make it anew: python tests/course/cards.py"


def test_the_table_of_what_was_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts what ran before: all mistakes with --all, the first of each exercise without."""
    columns = ("planted", "caught", "right hint", "alternatives", "passed")
    rows = [(one.number, *(TABLE[one.number, column] for column in columns)) for one in GRADED]
    sums = ("together", *(sum(row[i] for row in rows) for i in range(1, 6)))
    with capsys.disabled():
        print("\n\n" + "".join(f"{word:>13}" for word in ("exercise", *columns)))
        for row in (*rows, sums):
            print("".join(f"{value:>13}" for value in row))
    assert sums[1] == sums[2] == sums[3], f"planted, caught, with the right hint: {sums[1:4]}"
    assert sums[4] == sums[5], f"other right answers, and those that passed: {sums[4:]}"
