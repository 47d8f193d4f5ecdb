"""The exercises of the course, read from the code that they are in.

An exercise is a function or method whose docstring's first line ends with `[3.2 · ★★☆ · 15 min]`. The reference and the
learner's stubs carry the same docstrings, so a class release without solutions/ gives the same list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .environment import ROOT

MARK = re.compile(r"\[(?P<module>\d+)\.(?P<index>\d+) · (?P<stars>[★☆]{3}) · (?P<minutes>\d+) min\]$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Exercise:
    """One exercise and where it is."""

    module: int
    index: int
    name: str  # qualified: PageTable.reserve
    file: str  # page_table.py
    line: int  # of the `def` in the file that was read
    stars: int
    minutes: int

    @property
    def number(self) -> str:
        return f"{self.module}.{self.index}"

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


def all_exercises(root: Path = ROOT) -> list[Exercise]:
    """Every exercise in the order of the course, from solutions/flexnano/ or, where there is none, from flexnano/."""
    reference = root / "solutions" / "flexnano"
    folder = reference if reference.is_dir() else root / "flexnano"
    found = [exercise for path in sorted(folder.glob("*.py")) for exercise in in_file(path)]
    return sorted(found, key=lambda exercise: (exercise.module, exercise.index))


def in_file(path: Path) -> list[Exercise]:
    return in_source(path.read_text(encoding="utf-8"), path.name)


def in_source(source: str, file: str) -> list[Exercise]:
    exercises = (of_function(node, name, file) for node, name in functions(ast.parse(source, filename=file)))
    return [exercise for exercise in exercises if exercise is not None]


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[Function, str]]:
    """Every function in a module with its qualified name, outer ones first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, prefix + child.name
            yield from functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}{child.name}.")
        else:
            yield from functions(child, prefix)


def of_function(function: Function, name: str, file: str) -> Exercise | None:
    first_line = (ast.get_docstring(function) or "").partition("\n")[0].rstrip()
    if (mark := MARK.search(first_line)) is None:
        return None
    return Exercise(
        module=int(mark["module"]),
        index=int(mark["index"]),
        name=name,
        file=file,
        line=function.lineno,
        stars=mark["stars"].count("★"),
        minutes=int(mark["minutes"]),
    )
