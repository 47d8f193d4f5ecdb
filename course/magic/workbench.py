"""What the magics do, without a notebook around it."""

from __future__ import annotations

import ast
import contextlib
import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import status, work
from ..console import CourseError
from ..environment import ROOT
from ..exercises import Exercise
from ..grading import grader, merge
from ..grading.card import Outcome
from ..grading.grader import Grading
from ..grading.pool import Pool
from . import cell as cells
from . import live, place
from .cell import Cell, NotTaken
from .earlier import Earlier
from .history import History, Version, is_stub, same
from .waiting import in_test


@dataclass
class Result:
    """What is shown under a cell."""

    exercise: Exercise
    outcome: Outcome | None = None
    notes: list[str] = field(default_factory=list)
    refused: NotTaken | None = None


class Workbench:
    """One kernel's view of the learner's package.

    Args:
        root: the checkout.
        names: the notebook's variables.
        written: called after each file that was written; gives back what to tell.
    """

    def __init__(
        self, root: Path = ROOT, names: Mapping[str, Any] | None = None, written: Callable[[], list[str]] | None = None
    ) -> None:
        self.root, self.names, self.written = root, names or {}, written
        self.folder = root / "flexnano"
        self.exercises = {exercise.number: exercise for exercise in merge.course_exercises(root)}
        try:
            self.reference = work.neighbours(root)
        except CourseError as error:
            self.reference = None
            print(error)
        self.earlier = Earlier(root, self.package(), self.reference)
        self._pool: Pool | None = None
        self._seen: dict[str, tuple[int, int]] = {}  # by file, what it looked like when the kernel last read it

    # ------------------------------------------------------------------ where things are

    @property
    def pool(self) -> Pool:
        """The processes that grade, one set for the kernel's life."""
        if self._pool is None:
            self._pool = Pool()
        return self._pool

    def package(self) -> Path:
        """The folder that this kernel imports flexnano from, and so the one that is graded."""
        import flexnano

        return Path(next(iter(flexnano.__path__))).resolve()

    def why_only_grading(self) -> str | None:
        """Why cells write nothing here; None: they do."""
        if in_test():
            return "Nothing was written: while a notebook is tested, exercise cells only grade."
        if self.package() == self.folder.resolve():
            return None
        if chosen := os.environ.get("FLEXNANO"):
            return (
                f"Nothing was written: FLEXNANO={chosen} makes this kernel use {self.package()}, and that was graded."
            )
        return (
            f"Nothing was written: this kernel imports flexnano from {self.package()}, not from {self.folder}. Run the "
            "notebook's first cell after a restart of the kernel."
        )

    def find(self, number: str) -> Exercise:
        """The exercise with a number.

        Raises:
            NotTaken: there is none.
        """
        number = number.strip()
        if (found := self.exercises.get(number)) is not None:
            return found
        module = number.partition(".")[0]
        near = [n for n in self.exercises if n.partition(".")[0] == module]
        said = f"Module {module} has {near[0]} to {near[-1]}." if near else "Write it as in `%%exercise 3.2`."
        raise NotTaken(f"There is no exercise {number or 'without a number'}. {said}")

    def history(self, exercise: Exercise) -> History:
        pristine = merge.pristine(exercise.file, self.root)
        return History(self.root, exercise, merge.parts(pristine)[exercise.name].text(pristine))

    # ------------------------------------------------------------------ what the magics ask for

    def take(self, number: str, text: str) -> Result:
        """Put a cell into the file, make it live, grade the exercise.

        Raises:
            NotTaken: nothing was changed; the exception says why.
        """
        exercise = self.find(number)
        if (why := self.why_only_grading()) is not None:
            return self.grade(exercise, [] if in_test() else [why])
        cell = cells.read(text, exercise, merge.pristine(exercise.file, self.root))
        notes: list[str] = []
        if not cell.untouched:
            self._take(exercise, cell, "from a cell", notes)
        elif self._is_written(exercise):
            name = exercise.name.rpartition(".")[2]
            notes.append(
                f"The cell holds the untouched stub, which never replaces what you wrote: graded is `{name}` as it stands in "
                f"flexnano/{exercise.file}. `%exercise {exercise.number}` loads it into a new cell."
            )
        return self._kept(self.grade(exercise, notes))

    def undo(self, number: str) -> Result:
        """Bring back the version that stood in the file before the present one."""
        exercise = self.find(number)
        if (why := self.why_only_grading()) is not None:
            raise NotTaken(why)
        history = self.history(exercise)
        function = self._function_in_file(exercise)
        notes: list[str] = []
        now = self._known(exercise, history, function, notes)
        # A stub that no `%undo` put there took the place of what was written last.
        before = history.get(now.before if now.number else history.marked() or 0)
        if now.number == before.number == 0:
            raise NotTaken(f"There is nothing before it: flexnano/{exercise.file} holds the stub of {exercise}.")
        cell = self._as_it_was(exercise, before)
        self._keep_helpers(exercise, history, cell, now, notes)
        self._write(exercise, cell, place.put(self._source(exercise), exercise, cell))
        history.mark(before.number)
        what = "the stub" if before.number == 0 else f"version {before.number}"
        notes.append(
            f"flexnano/{exercise.file} holds {what} again. `%exercise {exercise.number}` loads it into a new cell."
            + (f" Version {now.number} is kept as {self._shown(now)}." if now.number else "")
        )
        return self._kept(self.grade(exercise, notes))

    def load(self, number: str) -> str:
        """The text of a new cell with the code that stands in the file."""
        exercise = self.find(number)
        function = self._function_in_file(exercise)
        if not function:
            raise NotTaken(
                f"flexnano/{exercise.file} has no {exercise.name} any more. `python -m course reset {exercise.number}` puts "
                "the stub back."
            )
        pieces = [merge.dedented(function)]
        version = self.history(exercise).current(function)
        if version is not None:  # the helpers that came with it, as they stand in the file
            source = self._source(exercise)
            extras = self._as_it_was(exercise, version).extras
            in_file = [place.there(source, exercise, extra) or merge.dedented(extra.text) for extra in extras]
            pieces = [*in_file, *pieces]
        return f"%%exercise {exercise.number}\n" + "\n\n".join(pieces).rstrip("\n")

    def grade(self, exercise: Exercise, notes: list[str]) -> Result:
        """Grade one exercise of the package that this kernel uses."""
        if exercise.number not in grader.judges(exercise.module, self.root):
            return Result(exercise, None, [*notes, f"There is no grader for {exercise.number} yet."])
        try:
            with Grading(self.package(), self.reference, self.root, pool=self.pool) as grading:
                outcome = grading.grade(exercise)
                status.remember(grading, [outcome])
        except (OSError, RuntimeError) as error:  # no room for the copies that are graded, no process
            why = _why(error) if isinstance(error, OSError) else str(error)
            return Result(exercise, None, [*notes, f"It could not be graded: {why}"])
        name = re.search(r"NameError: name '(\w+)' is not defined", outcome.got)
        if name and name[1] in self.names:
            notes.append(
                f"`{name[1]}` is known in this notebook, but not in flexnano/{exercise.file}: put what makes it, such as an "
                "import, into the exercise's cell too."
            )
        if self.earlier.is_taken(exercise):
            if outcome.passed:
                self.earlier.give_back(exercise)
                self._apply(exercise.file, names=[exercise.name])
            elif outcome.status != "not started":
                notes.append("Until it passes, this kernel goes on with the reference's code for it.")
        return Result(exercise, outcome, notes)

    def _kept(self, result: Result) -> Result:
        """Copy the work to where it outlives the machine, if there is such a place."""
        if self.written is not None:
            result.notes += self.written()
        return result

    def prepare(self, module: int, progress: Callable[[int, int], None] | None = None) -> list[tuple[Exercise, str]]:
        """Make everything before a module work in this kernel, and get ready to grade it."""
        if not in_test():
            preloads = [judge.preload for judge in grader.judges(module, self.root).values()]
            self.pool.warm(sorted({name for preload in preloads for name in preload}))
        return self.earlier.prepare(module, self.pool, progress)

    def close(self) -> None:
        self.earlier.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # ------------------------------------------------------------------ writing

    def _take(self, exercise: Exercise, cell: Cell, origin: str, notes: list[str]) -> None:
        source = self._source(exercise)
        new = place.put(source, exercise, cell)
        self._try(exercise, cell, new)
        history = self.history(exercise)
        function = self._function_in_file(exercise)
        try:
            if new == source:  # written in an editor, or run a second time
                version = history.current(function) or history.add(cell.code, history.marked() or 0, origin)
                history.mark(version.number)
                self._apply(exercise.file)
                return
            before = self._known(exercise, history, function, notes)
            before = self._keep_helpers(exercise, history, cell, before, notes)
            version = history.add(cell.code, before.number, origin)
        except OSError as error:
            raise NotTaken(f"Nothing was changed, since the version before could not be kept: {_why(error)}") from error
        self._write(exercise, cell, new)
        history.mark(version.number)

    def _as_it_was(self, exercise: Exercise, version: Version) -> Cell:
        """A version as a cell.  One that came from the file may be what no cell may be."""
        code = merge.dedented(version.code)
        if version.number:
            with contextlib.suppress(NotTaken):
                return cells.read(code, exercise, merge.pristine(exercise.file, self.root))
        return Cell(code, code, merge.parts(code)[exercise.name.rpartition(".")[2]].node, untouched=False)

    def _known(self, exercise: Exercise, history: History, function: str, notes: list[str]) -> Version:
        """The version that stands in the file.  One that nobody kept yet is kept, and told of."""
        if not function or is_stub(function, exercise):
            return history.get(0)
        if (version := history.current(function)) is not None:
            return version
        last = history.marked() or 0
        version = history.add(merge.dedented(function), last, f"from flexnano/{exercise.file}")
        history.mark(version.number)
        name = exercise.name.rpartition(".")[2]
        notes.append(
            f"flexnano/{exercise.file} held a `{name}` that did not come from this notebook. It is kept as version "
            f"{version.number}, {self._shown(version)}; `%undo {exercise.number}` brings it back."
        )
        return version

    def _keep_helpers(
        self, exercise: Exercise, history: History, cell: Cell, now: Version, notes: list[str]
    ) -> Version:
        """What stands beside the function in the file and is about to be replaced: kept, if no version has it."""
        source = self._source(exercise)
        in_file = [text for extra in cell.extras if (text := place.there(source, exercise, extra)) is not None]
        known = [extra.text for extra in (*self._as_it_was(exercise, now).extras, *cell.extras)]
        if all(any(same(text, one) for one in known) for text in in_file):
            return now
        pieces = [*in_file, self._function_in_file(exercise) or history.stub]
        code = "\n\n".join(merge.dedented(piece) for piece in pieces)
        version = history.add(code, now.number, f"from flexnano/{exercise.file}")
        notes.append(
            f"Something beside the function, which the cell replaces, did not come from this cell. It is kept as version "
            f"{version.number}, {self._shown(version)}."
        )
        return version

    def _write(self, exercise: Exercise, cell: Cell, new: str) -> None:
        path = self.folder / exercise.file
        try:
            place.write(path, new)
        except OSError as error:
            raise NotTaken(f"flexnano/{exercise.file} is as it was: {_why(error)}") from error
        fresh = [name for extra in cell.extras if not extra.method for name in extra.names]
        self._apply(exercise.file, fresh)

    def _source(self, exercise: Exercise) -> str:
        return place.read(self.folder / exercise.file) or merge.pristine(exercise.file, self.root)

    def _function_in_file(self, exercise: Exercise) -> str:
        """The exercise's function as it stands in the learner's file; empty if it doesn't."""
        source = place.read(self.folder / exercise.file).removeprefix(place.BOM)
        try:
            part = merge.parts(source).get(exercise.name)
        except SyntaxError as error:
            raise NotTaken(f"flexnano/{exercise.file} is not Python: line {error.lineno}: {error.msg}.") from None
        return part.text(source) if part is not None else ""

    def _is_written(self, exercise: Exercise) -> bool:
        try:
            function = self._function_in_file(exercise)
        except NotTaken:
            return False  # the card says so
        return bool(function) and not is_stub(function, exercise)

    def _shown(self, version: Version) -> str:
        return version.path.relative_to(self.root).as_posix()

    # ------------------------------------------------------------------ making it live

    def _loaded(self, file: str) -> ModuleType | None:
        """The living module of one of the learner's files."""
        module = sys.modules.get(f"flexnano.{file.removesuffix('.py')}")
        origin = getattr(module, "__file__", None)
        return module if origin and Path(origin).resolve() == (self.folder / file).resolve() else None

    def _try(self, exercise: Exercise, cell: Cell, new: str) -> None:
        """Run what the cell brings, before anything is written."""
        module = self._loaded(exercise.file)
        if module is None:
            try:
                module = importlib.import_module(f"flexnano.{exercise.file.removesuffix('.py')}")
            except Exception:  # something else in the package is broken: the card will say what
                return
        path = str(self.folder / exercise.file)
        owner = exercise.name.rpartition(".")[0]
        names = [exercise.name, *(f"{owner}.{name}" for extra in cell.extras if extra.method for name in extra.names)]
        fresh = [name for extra in cell.extras if not extra.method for name in extra.names]
        try:
            live.trial(module, new.removeprefix(place.BOM), path, names, fresh)
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
            text = merge.lines_of(new)[(frames[-1].lineno or 1) - 1].strip() if frames else ""
            code = [line.strip() for line in merge.lines_of(cell.code)]
            line = code.index(text) + 1 + cells.MAGIC_LINES if text in code else 0
            raise NotTaken(f"Running it ends with {type(error).__name__}: {error}", line, text) from None

    def _apply(self, file: str, fresh: list[str] | None = None, names: list[str] | None = None) -> None:
        """Bring the living module to what the file says, but for what this kernel takes from the reference."""
        path = self.folder / file
        self._seen[file] = _looks(path)
        module = self._loaded(file)
        if module is None or file in self.earlier.files:
            return
        source = place.read(path).removeprefix(place.BOM)
        live.apply(module, source, str(path), names, self.earlier.taken.get(file, ()), fresh or ())

    def follow_edits(self) -> None:
        """Bring in what somebody changed in an editor since the last cell ran."""
        if self.package() != self.folder.resolve():
            return
        for file in merge.files(self.root):
            path = self.folder / file
            if self._loaded(file) is None or not path.is_file():
                continue
            now = _looks(path)
            if self._seen.setdefault(file, now) == now:
                continue
            try:
                ast.parse(place.read(path).removeprefix(place.BOM))
                self._apply(file)
            except (SyntaxError, NotTaken):
                continue  # half an edit: the next cell looks again
            except Exception as error:
                print(f"flexnano/{file} has changed and can't be brought in ({error}): restart the kernel to use it.")


def _looks(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space and run the cell again."
    return f"{error.strerror or error}."
