"""Put what a cell gave into the text of a file: one function replaced, everything else byte for byte as it was."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from pathlib import Path

from .. import work
from ..exercises import Exercise, Function
from ..grading import merge
from .cell import Cell, Extra, NotTaken, bound, comes_from, import_origins

BOM = "\ufeff"


def put(source: str, exercise: Exercise, cell: Cell) -> str:
    """The source with the function of a cell, and with what stands beside it.

    Raises:
        NotTaken: the source does not parse, or lacks the class of the exercise.
    """
    mark, source = (BOM, source[1:]) if source.startswith(BOM) else ("", source)
    try:
        parts = merge.parts(source)
    except SyntaxError as error:
        raise NotTaken(
            f"flexnano/{exercise.file} is not Python any more (line {error.lineno}: {error.msg}), so there is no telling "
            "where the function stands. Mend that line first."
        ) from None
    if exercise.name in parts:
        source = merge.replace(source, exercise.name, cell.function)
    else:
        source = _insert(source, exercise.name, cell.function, exercise)
    for extra in cell.extras:
        source = put_extra(source, exercise, extra)
    ast.parse(source)
    return mark + source


def _insert(source: str, name: str, code: str, exercise: Exercise) -> str:
    inserted = merge.insert_method(source, name, code)
    if inserted is None:
        owner = name.rpartition(".")[0]
        raise NotTaken(
            f"flexnano/{exercise.file} has no class `{owner}` any more. `python -m course reset {exercise.module}` brings "
            "it back, and saves what is there."
        )
    return inserted


def put_extra(source: str, exercise: Exercise, extra: Extra) -> str:
    """The source with a helper, an import or a constant; an earlier version of it is replaced."""
    if extra.method:
        (name,) = extra.names
        qualified = f"{exercise.name.rpartition('.')[0]}.{name}"
        if qualified in merge.parts(source):
            return merge.replace(source, qualified, extra.text)
        return _insert(source, qualified, extra.text, exercise)
    tree = ast.parse(source)
    if isinstance(extra.node, ast.Import | ast.ImportFrom):
        return _put_import(source, tree, exercise, extra.node)
    same = [node for node in tree.body if bound(node) == extra.names]
    overlapping = [node for node in tree.body if bound(node) & extra.names and node not in same]
    if overlapping:
        names = ", ".join(f"`{name}`" for name in sorted(bound(overlapping[0]) & extra.names))
        raise NotTaken(
            f"{names} gets its value on line {overlapping[0].lineno} of flexnano/{exercise.file}, with others."
        )
    if same:
        node = same[-1]  # the one that counts
        if isinstance(node, Function):
            return merge.replace(source, node.name, extra.text)
        return _splice(source, first_line(node) - 1, node.end_lineno or node.lineno, extra.text)
    return _insert_above(source, tree, exercise, extra)


def there(source: str, exercise: Exercise, extra: Extra) -> str | None:
    """What `put_extra` would replace; None: nothing.  An import replaces nothing."""
    lines = merge.lines_of(source.removeprefix(BOM))
    if extra.method or isinstance(extra.node, Function):
        (name,) = extra.names
        parts = merge.parts(source.removeprefix(BOM))
        part = parts.get(f"{exercise.name.rpartition('.')[0]}.{name}" if extra.method else name)
        return merge.dedented("".join(lines[part.begin : part.end])) if part is not None else None
    if isinstance(extra.node, ast.Import | ast.ImportFrom):
        return None
    same = [node for node in ast.parse(source.removeprefix(BOM)).body if bound(node) == extra.names]
    return "".join(lines[first_line(same[-1]) - 1 : same[-1].end_lineno]) if same else None


def _put_import(source: str, tree: ast.Module, exercise: Exercise, node: ast.Import | ast.ImportFrom) -> str:
    """Add an import below the others, unless the file has all of it already."""
    there = {(name, origin) for one in tree.body for name, origin in import_origins(one).items()}
    defined = {name for one in tree.body for name in bound(one)}
    wanted = []
    for alias in node.names:
        single = (
            ast.ImportFrom(node.module, [alias], node.level)
            if isinstance(node, ast.ImportFrom)
            else ast.Import([alias])
        )
        in_this_file = comes_from(node, exercise.file) and alias.name in defined
        if not in_this_file and not there.issuperset(import_origins(single).items()):
            wanted.append(alias)
    if not wanted:
        return source
    added = ast.ImportFrom(node.module, wanted, node.level) if isinstance(node, ast.ImportFrom) else ast.Import(wanted)
    at = 0
    for index, one in enumerate(tree.body):
        docstring = index == 0 and isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
        if not docstring and not isinstance(one, ast.Import | ast.ImportFrom):
            break
        at = one.end_lineno or one.lineno
    return _splice(source, at, at, ast.unparse(added))


def _insert_above(source: str, tree: ast.Module, exercise: Exercise, extra: Extra) -> str:
    """Put a helper above what holds the exercise, so that decorators and defaults there may use it."""
    outermost = exercise.name.partition(".")[0]
    holder = next(node for node in tree.body if outermost in bound(node))
    lines = merge.lines_of(source)
    at = first_line(holder) - 1
    while at > 0 and lines[at - 1].startswith("#"):
        at -= 1
    return _splice(source, at, at, extra.text.strip("\r\n") + "\n\n\n")


def _splice(source: str, begin: int, end: int, text: str) -> str:
    lines = merge.lines_of(source)
    newline = merge.newline_of(source)
    inserted = "".join(line.rstrip("\r\n") + newline for line in merge.lines_of(text))
    before = "".join(lines[:begin])
    if before and not before.endswith(("\n", "\r")):
        before += newline
    ended = end > begin and not lines[end - 1].endswith(("\n", "\r"))  # the file's last line, without a line end
    return before + (inserted.rstrip("\r\n") if ended else inserted) + "".join(lines[end:])


def first_line(node: ast.stmt) -> int:
    """Of a statement, its decorators included."""
    decorators = node.decorator_list if isinstance(node, Function | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


# ----------------------------------------------------------------------------------------------------------- files


def read(path: Path) -> str:
    """A file as it is, line ends included; empty if there is none."""
    if not path.is_file():
        return ""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotTaken(
            f"{path.parent.name}/{path.name} is not UTF-8 ({error}). Save it as UTF-8 in your editor."
        ) from None


def write(path: Path, text: str) -> None:
    """Write a file so that, whatever happens, it is the old one or the new one and never half.

    Raises:
        OSError: the file is the old one.
    """
    work.write(path, text.encode("utf-8"))
    if path.suffix == ".py":
        # Python tells by seconds and size whether compiled code is stale: two quick edits of one size would look the same.
        with contextlib.suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(path.resolve()))).unlink(missing_ok=True)
