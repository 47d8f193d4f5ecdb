"""Let earlier modules work in this kernel, whatever is still to be written there.

An exercise of an earlier module that is not started, or fails, gets the reference's code: in the kernel only, function by
function, when its module is imported.  The learner's files stay as they are.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from .. import status
from ..exercises import Exercise
from ..grading import merge
from ..grading.pool import Pool
from . import live, place


class Earlier:
    """What this kernel takes from the reference.

    Args:
        package: the folder that flexnano is imported from.
        reference: where right code comes from, None in a class release without a teacher's catch-up.
    """

    def __init__(self, root: Path, package: Path, reference: Path | None) -> None:
        self.root, self.package, self.reference = root, package, reference
        self.taken: dict[str, set[str]] = {}  # by file, the functions that come from the reference
        self.files: dict[str, str] = {}  # files that come from the reference as a whole, and why
        self.module = 0
        self._finder = _Finder(self)

    def prepare(
        self, module: int, pool: Pool, progress: Callable[[int, int], None] | None = None
    ) -> list[tuple[Exercise, str]]:
        """Make everything before `module` work.

        Args:
            progress: called with how many exercises have been graded for it and how many must be.

        Returns:
            The exercises that come from the reference from now on, and how they stand.
        """
        self.module = module
        if self.reference is None or self.package.resolve() == self.reference.resolve():
            return []
        by_number = {exercise.number: exercise for exercise in merge.course_exercises(self.root)}
        known = status.results(self.root, package=self.package, upto=module - 1, pool=pool, progress=progress)
        # What is written and has no grader yet is the learner's own.
        open_ones = [
            (by_number[one.number], str(one.status)) for one in known if one.status not in ("passed", "no grader")
        ]
        self.taken = {}
        for exercise, _ in open_ones:
            self.taken.setdefault(exercise.file, set()).add(exercise.name)
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)
        for file in self.taken:
            if (loaded := sys.modules.get(f"flexnano.{file.removesuffix('.py')}")) is not None:
                self.graft(loaded)
        return open_ones

    def is_earlier(self, file: str) -> bool:
        """Whether all exercises of a file belong to earlier modules."""
        modules = {exercise.module for exercise in merge.course_exercises(self.root) if exercise.file == file}
        return bool(modules) and max(modules) < self.module

    def graft(self, loaded: ModuleType) -> None:
        """Put the reference's functions into a module that was imported."""
        assert self.reference is not None
        file = loaded.__name__.rpartition(".")[2] + ".py"
        path = self.reference / file
        if names := self.taken.get(file):
            live.graft(loaded, place.read(path), str(path), names)

    def whole_file(self, loaded: ModuleType, error: Exception) -> None:
        """Give a module that can't be imported the reference's code."""
        assert self.reference is not None
        file = loaded.__name__.rpartition(".")[2] + ".py"
        path = self.reference / file
        self.files[file] = f"{type(error).__name__}: {error}"
        print(f"flexnano/{file} can't be imported ({self.files[file]}): this kernel uses the reference's file.")
        kept = {name: value for name, value in vars(loaded).items() if name.startswith("__") and name.endswith("__")}
        vars(loaded).clear()
        vars(loaded).update(kept)
        exec(compile(place.read(path), str(path), "exec", dont_inherit=True), vars(loaded))

    def give_back(self, exercise: Exercise) -> None:
        """The learner's own code is right now: use it from here on."""
        self.taken.get(exercise.file, set()).discard(exercise.name)

    def is_taken(self, exercise: Exercise) -> bool:
        return exercise.name in self.taken.get(exercise.file, ())

    def close(self) -> None:
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)


class _Finder(importlib.abc.MetaPathFinder):
    """Stands in front of Python's own finder for the modules of flexnano that are earlier ones."""

    def __init__(self, earlier: Earlier) -> None:
        self.earlier = earlier

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "flexnano" or not name or not self.earlier.is_earlier(f"{name}.py"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self.earlier)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, earlier: Earlier) -> None:
        super().__init__(name, path)
        self.earlier = earlier

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except Exception as error:  # whatever a learner's file may raise at its top
            self.earlier.whole_file(module, error)
        else:
            self.earlier.graft(module)
