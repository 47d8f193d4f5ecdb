"""`python -m course clinic`, and what `grade 11` does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import work
from ..console import CourseError, say, width
from ..environment import ROOT
from ..grading import card, report
from ..grading.card import Outcome
from . import folder as folders
from . import store as stores
from .case import Case
from .grading import MODULE, PARTS, Clinic, model_home, remembered, state_of
from .store import Store, load

ALL_PASSED, NOT_ALL = 0, 1


def show(
    root: Path = ROOT,
    number: int | None = None,
    hint: int | None = None,
    graded: bool = False,
    pack: Path | None = None,
    home: Path | None = None,
) -> int:
    """The command `clinic`: list the cases, open one, give a hint, grade.

    Args:
        number: of a case; None: all.
        hint: how much of the hints to give, 1 to 3.
        graded: grade the case, or all that are open.
        pack: where to write clinic.zip, for the teacher of a class.
        home: where the folders of the cases are; None: clinic/ in the course.
    """
    if pack is not None:
        work.write(pack, stores.packed(root))
        say(f"{pack}: what a class release needs for the clinic. It holds modules 01 to {stores.LAST_MODULE}, solved.")
        return ALL_PASSED
    if number is None and hint is None and not graded and not stores.is_there(root):
        say(stores.NO_CLINIC)
        return ALL_PASSED
    store = load(root)
    if number is None:
        if hint is not None:
            raise CourseError("A hint is for one case: python -m course clinic 3 --hint 1")
        return grade(root, store.graded, home=home) if graded else _list(store, root, home)
    case = chosen(store, number)
    if hint is not None:
        for level, text in enumerate(case.hints[:hint], start=1):
            say(f"hint {level}  {text}")
        return ALL_PASSED
    if graded:
        return grade(root, [case], home=home)
    return _open(case, store, root, home)


def chosen(store: Store, number: int) -> Case:
    """The case of that number.

    Raises:
        CourseError: there is none.
    """
    if number not in store.cases:
        numbers = ", ".join(str(one) for one in sorted(store.cases) if one)
        raise CourseError(f"There is no case {number}. There are {numbers}, and 0, which the chapter works.")
    return store.cases[number]


def _list(store: Store, root: Path, home: Path | None) -> int:
    say("The bug clinic: six engines, each with a bug of a real one, and what a user says about it.\n")
    known = remembered(root)
    solved = 0
    for case in store.graded:
        folder = folders.folder_of(case, home, root)
        memory = known.get(str(case.number), {})
        parts = memory.get("parts", {})
        done = [part for part in PARTS if parts.get(part) == "passed"]
        changed = folder.is_open and bool(parts) and memory.get("of") != state_of(folder)
        stands = "solved" if len(done) == len(PARTS) else ", ".join(done) or ("open" if folder.is_open else "")
        solved += len(done) == len(PARTS)
        say(f"  {case.number}  {case.title:<58} {stands}{' (changed since)' if changed else ''}".rstrip())
    say(
        f"\n{solved} of {len(store.graded)} solved. Open one: python -m course clinic 1    grade: --grade    hint: --hint 1"
    )
    return ALL_PASSED


def _open(case: Case, store: Store, root: Path, home: Path | None) -> int:
    folder = folders.folder_of(case, home, root)
    new = folders.open_case(case, store, folder, root)
    say(folder.read(folders.REPORT).rstrip())
    place = folder.path.relative_to(root) if folder.path.is_relative_to(root) else folder.path
    say(f"\n{place}: {work.many(len(new), 'file')} written" if new else f"\n{place}: open already, nothing was written")
    return ALL_PASSED


# ------------------------------------------------------------------------------------------------ grading


@contextmanager
def clinic_of(root: Path = ROOT, home: Path | None = None) -> Iterator[Clinic]:
    """The clinic that is graded: the learner's, or with FLEXNANO=solutions the course's own answers."""
    if os.environ.get("FLEXNANO") != "solutions" or home is not None:
        with Clinic(root, home) as clinic:
            yield clinic
        return
    store = load(root)
    with (
        tempfile.TemporaryDirectory(prefix="flexnano-clinic-answers-") as scratch,
        Clinic(root, model_home(Path(scratch), store, root), store) as clinic,
    ):
        yield clinic


def grade(root: Path, cases: Sequence[Case], hint: int = 1, home: Path | None = None) -> int:
    """Grade cases and print their cards.  Returns 0 if all parts pass, 1 if not."""
    outcomes = list(graded(root, cases, hint, home=home))
    say(report.last_line(outcomes))
    return ALL_PASSED if all(outcome.passed for outcome in outcomes) else NOT_ALL


def graded(
    root: Path, cases: Sequence[Case], hint: int = 1, verbose: bool = False, home: Path | None = None
) -> Iterator[Outcome]:
    """Grade cases, print a card for each part, and give the outcomes."""
    with clinic_of(root, home) as clinic:
        for outcome in clinic.grade_all(cases):
            say(card.text(outcome, hint, verbose, min(width(), 110)))
            if outcome.status not in ("passed", "not started"):
                say()
            yield outcome


def names_the_clinic(word: str) -> bool:
    """Whether a word of `grade` means module 11 or one of its cases."""
    return word.strip().partition(".")[0].lstrip("0") == str(MODULE)


def cases_of(words: Sequence[str], root: Path = ROOT) -> list[Case]:
    """The cases that words such as "11" and "11.3" name.

    Raises:
        CourseError: one names none; or there is no clinic here.
    """
    store = load(root)
    numbers: set[int] = set()
    for word in words:
        _, dot, index = word.strip().partition(".")
        if not dot:
            return store.graded
        if not index.isdigit() or int(index) not in store.cases or int(index) == 0:
            raise CourseError(f"There is no case {word!r}. `python -m course clinic` lists them.")
        numbers.add(int(index))
    return [case for case in store.graded if case.number in numbers]


def open_ones(root: Path = ROOT) -> list[str]:
    """The cases that the learner has opened, as words for `grade`."""
    if not (root / "clinic").is_dir() or not stores.is_there(root) or os.environ.get("FLEXNANO"):
        return []
    return [f"{MODULE}.{case.number}" for case in load(root).graded if folders.folder_of(case, root=root).is_open]
