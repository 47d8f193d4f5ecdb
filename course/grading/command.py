"""`python -m course grade`: the cards of `pytest tests/module_03`, without pytest around them, and the same exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import status, work
from ..clinic import command as clinic
from ..console import CourseError, say, width
from ..exercises import Exercise
from . import card, grader, merge, report
from .card import Outcome
from .grader import Grading
from .notebook import run_notebook

ALL_PASSED, NOT_ALL, USAGE, NOTHING = 0, 1, 4, 5  # as pytest has them


def grade(
    root: Path,
    what: Sequence[str] = (),
    hint: int = 1,
    report_file: str | None = None,
    verbose: bool = False,
    with_notebook: bool = False,
) -> int:
    """Grade, and print a card an exercise.

    Args:
        what: "3", "3.2", several of them; "0" is `check`; "11" and "11.3" are the bug clinic; none: everything that has a
            grader, and the clinic once a case of it is open.
        report_file: where the grades go as JSON.
        with_notebook: run the notebooks of the modules named, too.

    Returns:
        0 if all pass, 1 if not, 4 if there is no such exercise, 5 if there is nothing to grade.
    """
    if [one.strip().lstrip("0") for one in what] == [""]:
        from .. import check

        return check.show(root)
    package = merge.package_folder(root)
    of_clinic = [one for one in what if clinic.names_the_clinic(one)] or ([] if what else clinic.open_ones(root))
    try:
        cases = clinic.cases_of(of_clinic, root) if of_clinic else []
        rest = [one for one in what if not clinic.names_the_clinic(one)]
        wanted = chosen(root, rest) if rest or not what else []
    except CourseError as error:
        say(str(error))
        return USAGE
    if not package.is_dir():
        say(
            f"There is no {package}: {work.NO_REFERENCE if package.parent.name == 'solutions' else 'nothing to grade'}."
        )
        return USAGE
    outcomes: list[Outcome] = []
    with Grading(package, work.neighbours(root), root) as grading:
        graded = [one for one in wanted if one.number in grader.judges(one.module, root)]
        for outcome in grading.grade_all(graded):
            outcomes.append(outcome)
            say(card.text(outcome, hint, verbose, min(width(), 110)))
            if outcome.status not in ("passed", "not started"):
                say()
        status.remember(grading, outcomes)
    if cases:
        outcomes += clinic.graded(root, cases, hint, verbose)
    left_out = sorted({one.number for one in wanted} - {one.number for one in graded}, key=_order)
    if left_out and what:
        say(f"no grader yet: {', '.join(left_out)}")
    modules = {one.module for one in wanted} | ({clinic.MODULE} if of_clinic else set())
    notebooks = run_notebooks(root, sorted(modules)) if with_notebook else {}
    if report_file is not None:
        report.write(Path(report_file), outcomes, package, notebooks)
    if not outcomes:
        say("Nothing to grade.")
        return NOTHING
    say(report.last_line(outcomes))
    fine = all(outcome.passed for outcome in outcomes) and all(state == "passed" for state in notebooks.values())
    return ALL_PASSED if fine else NOT_ALL


def chosen(root: Path, what: Sequence[str]) -> list[Exercise]:
    """The exercises that are meant, each once, in the order of the course.

    Raises:
        CourseError: one of the words names none.
    """
    everything = merge.course_exercises(root)
    if not what:
        return everything
    numbers = {one.number for word in what for one in work.find(word, root)}
    return [one for one in everything if one.number in numbers]


def run_notebooks(root: Path, modules: Sequence[int]) -> dict[str, str]:
    """Execute the notebooks of some modules.  Returns how each came out."""
    states = {}
    for module in modules:
        for notebook in sorted((root / "notebooks").glob(f"{module:02d}_*.ipynb")):
            failure = run_notebook(notebook)
            states[notebook.name] = "passed" if failure is None else "not yet"
            say(f"notebooks/{notebook.name}  {states[notebook.name]}")
            if failure is not None:
                say(failure)
    return states


def _order(number: str) -> tuple[int, int]:
    module, _, index = number.partition(".")
    return int(module), int(index)
