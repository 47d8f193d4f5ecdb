"""The learner's work in Google Drive, for machines that forget.

Each file is copied there after every exercise cell, and brought back on a new machine.  Two notebooks in Colab are two
machines with one Drive: where both changed a file, it is put together function by function, and of a function that both
changed neither version is lost.
"""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from . import stubs, work
from .exercises import Exercise
from .grading import merge
from .magic import place
from .magic.cell import Extra, NotTaken, bound
from .magic.history import History, Version, is_stub, same


@dataclass
class Shelf:
    """A folder that outlives the machine.

    Args:
        root: the checkout on this machine.
        folder: what lies in Drive.
    """

    root: Path
    folder: Path
    told: list[str] = field(default_factory=list)  # what the learner has to know

    def sync(self) -> list[str]:
        """Bring both sides together.

        Returns:
            Files of this machine that changed.
        """
        changed = []
        for file in merge.files(self.root):
            with contextlib.suppress(NotTaken):  # not UTF-8: nothing that could be put together
                if self._sync(file):
                    changed.append(file)
        self._sync_history()
        return changed

    def _sync(self, file: str) -> bool:
        here, there, kept = self.root / "flexnano" / file, self.folder / "flexnano" / file, self._base(file)
        mine, theirs, base = place.read(here), place.read(there), place.read(kept)
        if mine == theirs:
            new = mine
        elif not theirs or stubs.is_untouched(theirs) or theirs == base:
            new = mine if mine and not (stubs.is_untouched(mine) and not theirs) else theirs
        elif not mine or stubs.is_untouched(mine):
            new = theirs
        else:
            new = self._together(file, mine, theirs, base)
        if not new:
            return False
        if new != theirs:
            work.write(there, new)
        if new != mine:
            place.write(here, new)
        if new != base:
            work.write(kept, new)
        return new != mine

    def _base(self, file: str) -> Path:
        """What both sides had when they last were the same."""
        return self.root / ".course" / "drive" / file

    def _together(self, file: str, mine: str, theirs: str, base: str) -> str:
        """A file that was changed on both sides: mine, with what only they changed."""
        try:
            parts, other = merge.parts(mine), merge.parts(theirs)
        except SyntaxError:
            path = self.root / ".course" / "saved" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-drive" / "flexnano" / file
            work.write(path, theirs)
            self.told.append(f"flexnano/{file} differs from the one in Drive, which is kept as {self._shown(path)}.")
            return mine
        try:
            before = merge.parts(base)
        except SyntaxError:
            before = {}
        new = mine
        for exercise in merge.course_exercises(self.root):
            if exercise.file != file or exercise.name not in other:
                continue
            name = exercise.name
            their_code = other[name].text(theirs)
            my_code = parts[name].text(mine) if name in parts else ""
            old_code = before[name].text(base) if name in before else ""
            if same(my_code, their_code) or is_stub(their_code, exercise) or same(their_code, old_code):
                continue
            if not my_code or is_stub(my_code, exercise):
                new = work.put(new, name, merge.pristine(file, self.root), their_code)
            elif same(my_code, old_code):  # they went on from mine
                self._keep(exercise, my_code, "from this machine, before Drive had another")
                new = work.put(new, name, merge.pristine(file, self.root), their_code)
            elif version := self._keep(exercise, their_code, "from Drive, written on another machine"):
                self.told.append(
                    f"{exercise} was written on two machines: the one here stays, the one in Drive is kept as version "
                    f"{version.number}, {self._shown(version.path)}."
                )
        return self._with_extras(new, theirs, file)

    def _keep(self, exercise: Exercise, code: str, origin: str) -> Version | None:
        """Put a function into the history, unless it is there."""
        pristine = merge.pristine(exercise.file, self.root)
        history = History(self.root, exercise, merge.parts(pristine)[exercise.name].text(pristine))
        if history.current(code) is not None:
            return None
        return history.add(merge.dedented(code), history.marked() or 0, origin)

    def _with_extras(self, new: str, theirs: str, file: str) -> str:
        """With the helpers, imports and constants that only they have."""
        have = {name for node in ast.parse(new).body for name in bound(node)}
        exercise = next(one for one in merge.course_exercises(self.root) if one.file == file)
        lines = merge.lines_of(theirs)
        for node in ast.parse(theirs).body:
            names = frozenset(bound(node))
            if names and not names & have:
                text = "".join(lines[place.first_line(node) - 1 : node.end_lineno])
                with contextlib.suppress(NotTaken):
                    new = place.put_extra(new, exercise, Extra(names, text, node))
        mine, other = merge.parts(new), merge.parts(theirs)
        for name in other:
            if "." in name and name not in mine:
                new = merge.insert_method(new, name, other[name].text(theirs)) or new
        return new

    # ------------------------------------------------------------------ history

    def _sync_history(self) -> None:
        """Copy versions to Drive, and on a machine that has none bring them back."""
        here, there = self.root / ".course" / "history", self.folder / "history"
        numbers = {path.name for path in [*here.glob("*"), *there.glob("*")] if path.is_dir()}
        for number in sorted(numbers):
            mine = {path.name: place.read(path) for path in (here / number).glob("*.py")}
            theirs = {path.name: place.read(path) for path in (there / number).glob("*.py")}
            if not mine:
                for name, text in theirs.items():
                    place.write(here / number / name, text)
                continue
            free = max((int(Path(name).stem) for name in theirs), default=0)
            for name, text in sorted(mine.items()):
                if text in theirs.values():
                    continue
                free = max(free, int(Path(name).stem) - 1) + 1
                work.write(there / number / (name if name not in theirs else f"{free:03d}.py"), text)

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
