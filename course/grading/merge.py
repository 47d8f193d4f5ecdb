"""The package that is graded: the learner's files, function by function, with what is not to blame taken from the reference.

One gap must never fail everything after it, so an exercise is graded among right neighbours: all other exercises come from
the reference.  What the learner added (helpers, imports, constants) stays.
"""

from __future__ import annotations

import ast
import functools
import io
import os
import threading
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import stubs
from ..environment import ROOT
from ..exercises import Exercise, Function, functions, in_source

parsing = threading.RLock()
"""Held while a text becomes a tree: in Python 3.11 two threads that parse at once may get a SystemError."""


def parse(source: str) -> ast.Module:
    """`ast.parse`, by one thread at a time."""
    with parsing:
        return ast.parse(source)


def reference_folder(root: Path = ROOT) -> Path | None:
    """Where the reference is, None in a class release."""
    folder = root / "solutions" / "flexnano"
    return folder if folder.is_dir() else None


def package_folder(root: Path = ROOT) -> Path:
    """The package that is graded: FLEXNANO, or the learner's."""
    chosen = os.environ.get("FLEXNANO", "")
    if not chosen:
        return root / "flexnano"
    if chosen == "solutions":
        return root / "solutions" / "flexnano"
    folder = Path(chosen)
    return (folder / "flexnano" if (folder / "flexnano" / "__init__.py").is_file() else folder).resolve()


def pristine(file: str, root: Path = ROOT) -> str:
    """The stub as it was handed out; empty if there is no such file."""
    if (reference := reference_folder(root)) is not None:
        path = reference / file
        return _stub(path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else ""
    kept = root / "course" / "pristine" / file
    return kept.read_text(encoding="utf-8") if kept.is_file() else ""


@functools.lru_cache(maxsize=256)
def _stub(path: Path, _changed: int, _size: int) -> str:
    return stubs.stub_of(path)


def files(root: Path = ROOT) -> list[str]:
    """The files of the package."""
    folder = reference_folder(root) or root / "course" / "pristine"
    return sorted(path.name for path in folder.glob("*.py"))


def course_exercises(root: Path = ROOT) -> list[Exercise]:
    """Every exercise in the order of the course, whatever a learner did to the docstrings."""
    found = [exercise for file in files(root) for exercise in _exercises(pristine(file, root), file)]
    return sorted(found, key=lambda exercise: (exercise.module, exercise.index))


@functools.lru_cache(maxsize=256)
def _exercises(source: str, file: str) -> tuple[Exercise, ...]:
    with parsing:
        return tuple(in_source(source, file))


@functools.lru_cache(maxsize=512)
def must_compile(source: str) -> None:
    """Raise SyntaxError or ValueError where a source is no Python."""
    compile(source, "<merged>", "exec")


# ------------------------------------------------------------------------------------------ one function in a file


@dataclass(frozen=True)
class Part:
    """A function in a source text: its lines, from the first decorator on."""

    name: str
    node: Function
    begin: int  # index of the first line
    end: int  # index after the last

    def text(self, source: str) -> str:
        return "".join(lines_of(source)[self.begin : self.end])


def parts(source: str) -> dict[str, Part]:
    """Functions and methods of a module by qualified name, without those inside of functions.

    Raises:
        SyntaxError: the source does not parse.
    """
    return dict(_parts(source))


@functools.lru_cache(maxsize=64)  # the same sources are looked at for each exercise; trees are large, so not too many
def _parts(source: str) -> dict[str, Part]:
    found: dict[str, Part] = {}
    lines = lines_of(source)
    for node, name in functions(parse(source)):
        if "<locals>" not in name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            # Of two functions with the same name Python keeps the last.
            found[name] = Part(name, node, first - 1, _end(node, lines))
    return found


def _end(node: Function, lines: list[str]) -> int:
    """Index after the last line of a function, comments at the end of its body included."""
    end = at = node.end_lineno or node.lineno
    while at < len(lines):
        text = lines[at].lstrip()
        if text and (not text.startswith("#") or len(lines[at]) - len(text) <= node.col_offset):
            break
        at += 1
        if text:
            end = at
    return end


def lines_of(source: str) -> list[str]:
    """The lines of a source, ends included, counted as Python counts them: a form feed, for instance, ends none."""
    return io.StringIO(source, newline="").readlines()


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
    lines = lines_of(source)
    first = lines[part.begin]
    text = indented(code, first[: len(first) - len(first.lstrip())], newline_of(first))
    ended = lines[part.end - 1].endswith(("\n", "\r"))
    return "".join([*lines[: part.begin], text if ended else text.rstrip("\r\n"), *lines[part.end :]])


def newline_of(text: str) -> str:
    """How the lines of a text end, told by its first one."""
    first = next(iter(lines_of(text)), "\n")
    return "\r\n" if first.endswith("\r\n") else "\n"


def dedented(code: str) -> str:
    """Code without the indentation of its first line.  What stands in strings stays, but for docstrings."""
    lines = [line.rstrip("\r\n") for line in lines_of(code)]
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip())]
    inside = _inside_strings(code)
    lines = [
        line if index in inside else line.removeprefix(margin) if line.strip() else ""
        for index, line in enumerate(lines)
    ]
    return "\n".join(lines).strip("\n") + "\n"


def indented(code: str, indent: str, newline: str = "\n") -> str:
    """Code with its first line at `indent` and all others moved with it."""
    code = dedented(code)
    inside = _inside_strings(code)
    lines = [line.rstrip("\n") for line in lines_of(code)]
    return "".join(
        (line if index in inside or not line else indent + line) + newline for index, line in enumerate(lines)
    )


def _inside_strings(code: str) -> set[int]:
    """Indices of lines that begin in a string whose value counts, that is in any that is not a statement by itself."""
    inside: set[int] = set()
    nothing = ("NL", "COMMENT", "INDENT", "DEDENT", "ENCODING")
    try:
        tokens = [
            (tokenize.tok_name[token.type], token)
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if tokenize.tok_name[token.type] not in nothing
        ]
    except (tokenize.TokenError, SyntaxError):
        return inside
    opened: list[int] = []  # lines on which f-strings begin (they are tokens of their own from Python 3.12 on)
    for at, (kind, token) in enumerate(tokens):
        if kind.endswith("STRING_START"):
            opened.append(token.start[0])
        begin = opened.pop() if kind.endswith("STRING_END") else token.start[0] if kind == "STRING" else None
        if begin is None:
            continue
        alone = (at == 0 or tokens[at - 1][0] == "NEWLINE") and tokens[at + 1][0] in ("NEWLINE", "ENDMARKER")
        if not (kind == "STRING" and alone):
            inside.update(range(begin, token.end[0]))
    return inside


def insert_method(source: str, name: str, code: str) -> str | None:
    """The source with a function that it lacks: at the end of its class, or of the file.  None: the class is missing too."""
    owner, _, _method = name.rpartition(".")
    newline = newline_of(source)
    if not owner:
        return source.rstrip("\r\n") + newline * 3 + indented(code, "", newline)
    tree = parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            lines = lines_of(source)
            last = node.body[-1]
            end = _end(last, lines) if isinstance(last, Function) else node.end_lineno or node.lineno
            first = lines[node.body[0].lineno - 1]
            text = indented(code, first[: len(first) - len(first.lstrip())], newline)
            ended = "" if lines[end - 1].endswith(("\n", "\r")) else newline
            return "".join([*lines[:end], ended, newline, text, *lines[end:]])
    return None


# --------------------------------------------------------------------------------------------------- the merged copy


def merged(source: str, reference: str, names: Iterable[str]) -> str:
    """The learner's source with the functions `names` as the reference has them, and what these need."""
    return _merged(source, reference, tuple(names))


@functools.lru_cache(maxsize=512)  # of a package's files, all but one are the same for each of its exercises
def _merged(source: str, reference: str, names: tuple[str, ...]) -> str:
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
    tree = parse(reference)
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
    lines = lines_of(source)
    at = _after_future_imports(source)
    body = "".join([*lines[:at], *(line + "\n" for line in imports), *lines[at:]])
    return body + "".join("\n\n" + text + "\n" for text in helpers)


def _after_future_imports(source: str) -> int:
    at = 0
    for index, node in enumerate(parse(source).body):
        docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not docstring and not future:
            break
        at = node.end_lineno or node.lineno
    return at


def _top_level_names(source: str) -> set[str]:
    names: set[str] = set()
    todo = list(parse(source).body)
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
