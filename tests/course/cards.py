"""The sample cards in the notebooks: what the grader says to one planted mistake of each exercise.

    python tests/course/cards.py            make them all anew
    python tests/course/cards.py 03         those of one notebook

A cell that says {"course": {"card": "3.2"}} in its metadata holds the card of the first mistake in
mistakes/module_03.py that is planted in 3.2.  test_planted_mistakes.py proves that they are in step.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from planting import REFERENCE, Planted, exercise, load, plant  # noqa: E402

from course import notebooks, work  # noqa: E402
from course.environment import ROOT  # noqa: E402
from course.grading import card  # noqa: E402
from course.grading.grader import Grading  # noqa: E402
from course.grading.pool import Pool  # noqa: E402


def samples() -> dict[str, Planted]:
    """By exercise: the first mistake that has a name."""
    first: dict[str, Planted] = {}
    for planted in load("mistakes", "MISTAKES"):
        if isinstance(planted, Planted) and planted.slug:
            first.setdefault(planted.exercise, planted)
    return first


def sample(planted: Planted, folder: Path, pool: Pool) -> str:
    """The text of the cell."""
    with Grading(plant(planted, folder), REFERENCE, pool=pool) as grading:
        outcome = grading.grade(exercise(planted.exercise))
        shown = card.text(replace(outcome, where=""))  # where it stopped is a line of a solution
    summary = f"A card of {planted.exercise}: what the grader says to one wrong answer"
    return f"<details>\n<summary>{summary}</summary>\n\n```text\n{shown}\n```\n\n</details>"


def places(text: str) -> Iterator[tuple[int, int, dict[str, Any], str]]:
    """The sample cells of a notebook: where they stand, what they are, and of which exercise."""
    for begin, end, cell in notebooks.cell_spans(text):
        mark = cell.get("metadata", {}).get("course")
        if isinstance(mark, dict) and "card" in mark:
            yield begin, end, cell, mark["card"]


def main(arguments: list[str]) -> None:
    known = samples()
    with contextlib.closing(Pool()) as pool, tempfile.TemporaryDirectory() as scratch:
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            if arguments and not path.name.startswith(tuple(arguments)):
                continue
            text = path.read_text(encoding="utf-8")
            for begin, end, cell, number in reversed(list(places(text))):
                source = sample(known[number], Path(scratch) / number, pool)
                new = notebooks.rewritten({**cell, "source": source.splitlines(keepends=True)}, text, begin)
                text = text[:begin] + new + text[end:]
            work.write(path, text)
            print(f"{path.name}: {len(list(places(text)))} cards")


if __name__ == "__main__":
    main(sys.argv[1:])
