"""Every version of an exercise that stood in the learner's file, in `.course/history/3.2/`.

001.py, 002.py, ... are never changed or removed.  `current` names the one that stands in the file now.  What stands there
may be none of them (somebody edited the file): then it becomes one before anything takes its place.
"""

from __future__ import annotations

import ast
import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..exercises import Exercise
from ..grading import merge
from . import place

HEAD = re.compile(r"# \S+ .* · version (\d+) · .*? · (.*)\n# the one before it: (\d+)\n")


@dataclass(frozen=True)
class Version:
    """One version.  Version 0 is the stub."""

    number: int
    before: int  # the version that stood in the file before it
    code: str
    origin: str
    path: Path


class History:
    """The versions of one exercise."""

    def __init__(self, root: Path, exercise: Exercise, stub: str) -> None:
        self.exercise, self.stub = exercise, merge.dedented(stub)
        self.folder = root / ".course" / "history" / exercise.number

    def all(self) -> list[Version]:
        """All versions, the oldest first."""
        return [self.get(number) for number in self._numbers()]

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.py") if path.stem.isdigit())

    def get(self, number: int) -> Version:
        if number == 0:
            return Version(0, 0, self.stub, "stub", self.folder)
        path = self.path_of(number)
        text = place.read(path)
        head = HEAD.match(text)
        if head is None:  # made by hand
            return Version(number, number - 1, text, "?", path)
        return Version(number, int(head[3]), text[head.end() :], head[2], path)

    def current(self, function: str) -> Version | None:
        """The version that stands in the file, told by its code; None: somebody edited the file since.

        Args:
            function: the code of the exercise in the file.
        """
        for number in self._numbers_likeliest_first():
            if self._is_there(number) and same(self._function(number), function):
                return self.get(number)
        return None

    def _numbers_likeliest_first(self) -> Iterator[int]:
        if (marked := self.marked()) is not None:
            yield marked
        yield from reversed(self._numbers())
        yield 0

    def add(self, code: str, before: int, origin: str) -> Version:
        """Keep one more version."""
        number = max(self._numbers(), default=0) + 1
        head = (
            f"# {self.exercise} · version {number} · {time.strftime('%Y-%m-%d %H:%M:%S')} · {origin}\n"
            f"# the one before it: {before}\n"
        )
        place.write(self.path_of(number), head + code)
        return self.get(number)

    def mark(self, number: int) -> None:
        """Say which version stands in the file now.  On a full disk nobody does, and the code itself has to tell."""
        with contextlib.suppress(OSError):
            place.write(self.folder / "current", f"{number}\n")

    def marked(self) -> int | None:
        """The version that this notebook put into the file last."""
        text = place.read(self.folder / "current").strip()
        return int(text) if text.isdigit() else None

    def path_of(self, number: int) -> Path:
        return self.folder / f"{number:03d}.py"

    def _is_there(self, number: int) -> bool:
        return number == 0 or self.path_of(number).is_file()

    def _function(self, number: int) -> str:
        """The exercise's function in a version, without what stands beside it."""
        code = self.get(number).code
        name = self.exercise.name.rpartition(".")[2]
        try:
            return merge.parts(code)[name].text(code)
        except (SyntaxError, KeyError):
            return code


def same(a: str, b: str) -> bool:
    """Whether two texts are the same function, wherever they are indented."""
    return _plain(a) == _plain(b)


def _plain(code: str) -> str:
    lines = [line.rstrip() for line in merge.lines_of(merge.dedented(code))]
    return "\n".join(lines).strip()


def is_stub(code: str, exercise: Exercise) -> bool:
    """Whether a function is the untouched stub."""
    code = merge.dedented(code)
    try:
        node = merge.parts(code)[exercise.name.rpartition(".")[2]].node
    except (SyntaxError, KeyError):
        return False
    assert isinstance(node, ast.stmt)
    return merge.is_untouched(node, exercise.number)
