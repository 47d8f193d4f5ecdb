"""`pytest tests/module_03`: grade the exercises of a module, then run its notebook.

Each judge.py is collected as one item an exercise, and one for the notebook if there is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import status, work
from ..clinic import command as clinic
from ..clinic.grading import PARTS, Clinic
from ..console import CourseError
from ..environment import ROOT
from . import card, grader, merge, report
from .card import Outcome
from .grader import Grading
from .merge import package_folder
from .notebook import run_notebook

_gradings = pytest.StashKey[dict[str, Grading]]()
_outcomes = pytest.StashKey[list[Outcome]]()
_notebooks = pytest.StashKey[dict[str, str]]()
_open = pytest.StashKey[contextlib.ExitStack]()

OUTCOME = "flexnano_status"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("course")
    group.addoption("--hint", type=int, default=1, metavar="LEVEL", help="how much a hint says: 1, 2 or 3")
    group.addoption("--report", metavar="FILE", help="write the grades to a JSON file")
    group.addoption("--no-notebook", action="store_true", help="grade without running the module's notebook")


def pytest_configure(config: pytest.Config) -> None:
    if not 1 <= (level := config.getoption("--hint")) <= 3:
        raise pytest.UsageError(f"--hint {level}: there are levels 1, 2 and 3")
    config.stash[_gradings] = {}
    config.stash[_outcomes] = []
    config.stash[_notebooks] = {}
    config.stash[_open] = contextlib.ExitStack()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name == "judge.py" and file_path.parent.name.startswith("module_"):
        return ModuleFile.from_parent(parent, path=file_path)
    return None


class ModuleFile(pytest.File):
    """The graders of one module."""

    def collect(self) -> Iterator[pytest.Item]:
        self.module_number = int(self.path.parent.name.removeprefix("module_"))
        graders = grader.judges(self.module_number)
        for exercise in merge.course_exercises():
            if exercise.number in graders:
                yield ExerciseItem.from_parent(self, name=f"{exercise.number} {exercise.name}", exercise=exercise)
        if self.module_number == clinic.MODULE:
            for case, judge in sorted(graders.items()):
                for part in PARTS:
                    yield ClinicItem.from_parent(self, name=f"{case} {part}: {judge.section}", case=case, part=part)
        notebooks = sorted((ROOT / "notebooks").glob(f"{self.module_number:02d}_*.ipynb"))
        if not self.config.getoption("--no-notebook"):
            for notebook in notebooks:
                yield NotebookItem.from_parent(self, name=notebook.name, notebook=notebook)

    def grading(self) -> Grading:
        gradings = self.config.stash[_gradings]
        key = str(package_folder())
        if key not in gradings:
            gradings[key] = Grading(package_folder(), work.neighbours())
        return gradings[key]

    def outcome(self, item: ExerciseItem) -> Outcome:
        """The outcome of an item; all selected ones of the module are graded side by side when the first is asked for."""
        if not hasattr(self, "_coming"):
            wanted = [
                one.exercise for one in self.session.items if isinstance(one, ExerciseItem) and one.parent is self
            ]
            self._coming = self.grading().grade_all(wanted)
            self._known: dict[str, Outcome] = {}
        while item.exercise.number not in self._known:
            outcome = next(self._coming)
            self._known[outcome.number] = outcome
        return self._known[item.exercise.number]

    def part(self, number: str, part: str) -> Outcome:
        """The outcome of a part of a case of the clinic; all three are graded when the first is asked for.

        Raises:
            CourseError: there is no clinic in this copy of the course.
        """
        if not hasattr(self, "_clinic"):
            self._clinic: Clinic = self.config.stash[_open].enter_context(clinic.clinic_of())
            self._parts: dict[tuple[str, str], Outcome] = {}
        if (number, part) not in self._parts:
            (case,) = clinic.cases_of([number])
            self._parts |= {(number, one.check): one for one in self._clinic.grade(case)}
        return self._parts[number, part]


class ExerciseItem(pytest.Item):
    """One exercise."""

    parent: ModuleFile

    def __init__(self, *, exercise: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.exercise = exercise

    def graded(self) -> Outcome:
        return self.parent.outcome(self)

    def runtest(self) -> None:
        outcome = self.graded()
        self.config.stash[_outcomes].append(outcome)
        self.user_properties.append((OUTCOME, outcome.status))
        if not outcome.passed:
            raise NotYet(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, NotYet):
            options = self.config.option
            return card.text(excinfo.value.outcome, options.hint, verbose=options.verbose > 1)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class ClinicItem(ExerciseItem):
    """One part of a case of the bug clinic."""

    def __init__(self, *, case: str, part: str, **arguments: Any) -> None:
        super().__init__(exercise=None, **arguments)
        self.case, self.part = case, part

    def graded(self) -> Outcome:
        try:
            return self.parent.part(self.case, self.part)
        except CourseError as absent:
            pytest.skip(str(absent))


class NotYet(Exception):
    """An exercise that is not right yet."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.number)
        self.outcome = outcome


class NotebookItem(pytest.Item):
    """The module's notebook, run from top to bottom with the package; outputs that must be equal are compared."""

    parent: ModuleFile

    def __init__(self, *, notebook: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.notebook = notebook

    def runtest(self) -> None:
        failure = run_notebook(self.notebook)
        self.config.stash[_notebooks][self.notebook.name] = "passed" if failure is None else "not yet"
        self.user_properties.append((OUTCOME, "passed" if failure is None else "not yet"))
        if failure is not None:
            raise NotebookFailed(failure)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, NotebookFailed):
            return f"notebooks/{self.notebook.name}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class NotebookFailed(Exception):
    """The cells that did not run, or gave something else."""


# ------------------------------------------------------------------------------------------------ what is printed


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    status = dict(report.user_properties).get(OUTCOME) if report.when == "call" else None
    if status is None or status == "passed":
        return None
    letter = "." if status == "not started" else "x"
    return str(status), letter, (str(status), {"yellow": status == "not started", "red": status != "not started"})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    outcomes = config.stash[_outcomes]
    if not outcomes:
        return
    terminalreporter.section("grades")
    for outcome in outcomes:
        terminalreporter.write_line(card.text(outcome, config.option.hint, verbose=config.option.verbose > 1))
        if outcome.status not in ("passed", "not started"):
            terminalreporter.write_line("")
    for item_report in terminalreporter.stats.get("not yet", []):
        if item_report.nodeid.endswith(".ipynb"):
            terminalreporter.write_line(str(item_report.longrepr))


def pytest_unconfigure(config: pytest.Config) -> None:
    outcomes = config.stash.get(_outcomes, [])
    if (still_open := config.stash.get(_open, None)) is not None:
        still_open.close()
    for grading in config.stash.get(_gradings, {}).values():
        status.remember(grading, outcomes)
        grading.close()
    if not outcomes:
        return
    if path := config.getoption("--report"):
        report.write(Path(path), outcomes, package_folder(), config.stash[_notebooks])
    print(report.last_line(outcomes), flush=True)
