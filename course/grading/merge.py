"""The package that is graded: the learner's files, function by function, with what is not to blame taken from the reference.

One gap must never fail everything after it, so an exercise is graded among right neighbours: all other exercises come from
the reference.  What the learner added (helpers, imports, constants) stays.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import stubs
from ..environment import ROOT
from ..exercises import Exercise, Function, functions, in_source


def reference_folder(root: Path = ROOT) -> Path | None:
    """Where the reference is, None in a class release."""
    folder = root / "solutions" / "flexnano"
    return folder if folder.is_dir() else None


def pristine(file: str, root: Path = ROOT) -> str:
    """The stub as it was handed out; empty if there is no such file."""
    if (reference := reference_folder(root)) is not None:
        return stubs.stub_of(reference / file) if (reference / file).is_file() else ""
    kept = root / "course" / "pristine" / file
    return kept.read_text(encoding="utf-8") if kept.is_file() else ""


def files(root: Path = ROOT) -> list[str]:
    """The files of the package."""
    folder = reference_folder(root) or root / "course" / "pristine"
    return sorted(path.name for path in folder.glob("*.py"))


def course_exercises(root: Path = ROOT) -> list[Exercise]:
    """Every exercise in the order of the course, whatever a learner did to the docstrings."""
    found = [exercise for file in files(root) for exercise in in_source(pristine(file, root), file)]
    return sorted(found, key=lambda exercise: (exercise.module, exercise.index))


# ------------------------------------------------------------------------------------------ one function in a file


@dataclass(frozen=True)
class Part:
    """A function in a source text: its lines, from the first decorator on."""

    name: str
    node: Function
    begin: int  # index of the first line
    end: int  # index after the last

    def text(self, source: str) -> str:
        return "".join(source.splitlines(keepends=True)[self.begin : self.end])


def parts(source: str) -> dict[str, Part]:
    """Functions and methods of a module by qualified name, without those inside of functions.

    Raises:
        SyntaxError: the source does not parse.
    """
    found: dict[str, Part] = {}
    for node, name in functions(ast.parse(source)):
        if "<locals>" not in name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            # Of two functions with the same name Python keeps the last.
            found[name] = Part(name, node, first - 1, node.end_lineno or node.lineno)
    return found


def is_untouched(node: Function, number: str) -> bool:
    """Whether the body, after the docstring, is the line that the stub came with."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if len(body) != 1 or not isinstance(body[0], ast.Raise) or not isinstance(body[0].exc, ast.Call):
        return False
    arguments = body[0].exc.args
    return bool(
        arguments and isinstance(arguments[0], ast.Constant) and f"Exercise {number}:" in str(arguments[0].value)
    )


def replace(source: str, name: str, code: str) -> str:
    """The source with one function replaced by `code`, everything else byte for byte as it was.

    Raises:
        KeyError: the source has no such function.
    """
    part = parts(source)[name]
    lines = source.splitlines(keepends=True)
    newline = "\r\n" if lines[part.begin].endswith("\r\n") else "\n"
    indent = " " * part.node.col_offset
    text = textwrap.indent(textwrap.dedent(code).strip("\r\n"), indent)
    text = newline.join(text.splitlines()) + (newline if lines[part.end - 1].endswith("\n") else "")
    return "".join([*lines[: part.begin], text, *lines[part.end :]])


def insert_method(source: str, name: str, code: str) -> str | None:
    """The source with a function that it lacks: at the end of its class, or of the file.  None: the class is missing too."""
    owner, _, _method = name.rpartition(".")
    if not owner:
        return source.rstrip("\n") + "\n\n\n" + textwrap.dedent(code).strip("\n") + "\n"
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            lines = source.splitlines(keepends=True)
            end = node.end_lineno or node.lineno
            indent = " " * node.body[0].col_offset
            text = textwrap.indent(textwrap.dedent(code).strip("\n"), indent) + "\n"
            return "".join([*lines[:end], "" if lines[end - 1].endswith("\n") else "\n", "\n", text, *lines[end:]])
    return None


# --------------------------------------------------------------------------------------------------- the merged copy


def merged(source: str, reference: str, names: Iterable[str]) -> str:
    """The learner's source with the functions `names` as the reference has them, and what these need."""
    theirs, result = parts(reference), source
    for name in names:
        if name not in theirs:
            continue
        code = theirs[name].text(reference)
        result = replace(result, name, code) if name in parts(result) else (insert_method(result, name, code) or result)
    return _with_what_the_reference_needs(result, reference)


def _with_what_the_reference_needs(source: str, reference: str) -> str:
    """Add the imports and private helpers that functions of the reference use and a learner may have taken out."""
    have = _top_level_names(source)
    tree = ast.parse(reference)
    imports: list[str] = []
    helpers: list[str] = []
    for node in tree.body:
        bound = _bound(node)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom) and bound - have:
            imports.append(ast.unparse(node))
        elif isinstance(node, Function) and bound - have:
            helpers.append(ast.get_source_segment(reference, node) or "")
    if not imports and not helpers:
        return source
    lines = source.splitlines(keepends=True)
    at = _after_future_imports(source)
    body = "".join([*lines[:at], *(line + "\n" for line in imports), *lines[at:]])
    return body + "".join("\n\n" + text + "\n" for text in helpers)


def _after_future_imports(source: str) -> int:
    at = 0
    for index, node in enumerate(ast.parse(source).body):
        docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not docstring and not future:
            break
        at = node.end_lineno or node.lineno
    return at


def _top_level_names(source: str) -> set[str]:
    names: set[str] = set()
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        names |= _bound(node)
        if isinstance(node, ast.If | ast.Try):
            todo += [*node.body, *node.orelse]
    return names


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()
