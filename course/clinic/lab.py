"""The clinic in a notebook: open a case, grade it, and look at two engines side by side in one kernel.

from course.clinic import lab

lab.open_case(1)            # writes clinic/case_1 and shows the report
lab.grade(1)                # found, proved, mended
broken = lab.engine(0)      # the package of a broken engine, beside the healthy `lab.engine()`
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from ..console import CourseError, say
from ..grading import card
from . import command
from . import folder as folders
from .case import edited
from .store import load

_loaded: dict[int | None, ModuleType] = {}


def open_case(number: int) -> None:
    """Write what is missing of a case's folder, and show its report.  While a notebook is tested, only show it."""
    try:
        store = load()
        case = command.chosen(store, number)
    except CourseError as absent:
        say(str(absent))
        return
    if not os.environ.get("FLEXNANO_NBVAL"):
        folders.open_case(case, store, folders.folder_of(case))
    say(
        f"Case {case.number}: {case.title}\n\n{case.report.rstrip()}\n\nTo work on it: clinic/case_{case.number}/REPORT.md"
    )


def grade(number: int) -> None:
    """Grade a case, and show a card for each of its three parts."""
    from IPython.display import HTML, display

    try:
        cases = command.cases_of([f"{command.MODULE}.{number}"])
        with command.clinic_of() as clinic:
            outcomes = list(clinic.grade_all(cases)) if not os.environ.get("FLEXNANO_NBVAL") else []
    except CourseError as absent:
        say(str(absent))
        return
    for outcome in outcomes:
        display(HTML(card.as_html(outcome)))


def engine(number: int | None = None) -> ModuleType:
    """The package of the engine of a case, or of a healthy one, under a name of its own.

    Raises:
        CourseError: there is no clinic in this copy of the course.
    """
    if number not in _loaded:
        store = load()
        sources = store.healthy if number is None else edited(store.healthy, command.chosen(store, number).bugs[0])
        scratch = tempfile.TemporaryDirectory(prefix="flexnano-clinic-lab-")
        atexit.register(scratch.cleanup)
        _loaded[number] = _imported(sources, Path(scratch.name), "healthy" if number is None else f"case_{number}")
    return _loaded[number]


def _imported(sources: dict[str, str], folder: Path, name: str) -> ModuleType:
    for file, text in sources.items():
        (folder / file).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
