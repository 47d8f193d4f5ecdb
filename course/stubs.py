"""`python -m course stubs`: make the learner's package from the reference, so that nothing is written twice.

Every file of solutions/flexnano/ goes to flexnano/ with the same name. A region between the markers becomes one line that
raises NotImplementedError and names its exercise; signature, types and docstring stay. A region that stands outside of any
function and holds nothing but private helpers of the solution (names that begin with an underscore) is left out.

The first lines of a made file hold a hash of the rest. While it is true, nobody has worked in the file and it may be written
over; when it is not, there is a learner's work in it, and it is left alone.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .console import CourseError, say
from .environment import ROOT
from .exercises import Exercise, Function, all_exercises, functions, of_function

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HEADER = "# Your copy of solutions/flexnano/{file}, made by `python -m course stubs`"
HASH_LINE = re.compile(r"^# untouched while the rest of this file has the hash ([0-9a-f]{16})$", re.MULTILINE)


@dataclass
class Difference:
    file: str
    what: str  # "missing" | "out of step" | "edited" | "left over"


def make(root: Path = ROOT, check: bool = False, force: bool = False) -> int:
    """Write flexnano/ anew, or with `check` only say what is out of step.  Returns the exit code.

    Raises:
        CourseError: the markers or a docstring in solutions/ are wrong, or a learner's work would be lost.
    """
    source, target = root / "solutions" / "flexnano", root / "flexnano"
    if not source.is_dir():
        raise CourseError(f"{source} does not exist: this copy of the course has no solutions to make the stubs from.")
    stubs = {path.name: stub_of(path) for path in sorted(source.glob("*.py"))}
    check_numbers(root)
    differences = compare(stubs, target)
    if check:
        for difference in differences:
            say(f"flexnano/{difference.file}: {difference.what}")
        if differences:
            say(
                "flexnano/ is not what solutions/flexnano/ gives. Edit solutions/ only, then run: python -m course stubs"
            )
        else:
            say(f"{len(stubs)} files in step with solutions/flexnano/")
        return 1 if differences else 0

    edited = [difference.file for difference in differences if difference.what == "edited"]
    if edited and not force:
        raise CourseError(
            "Somebody has worked in "
            + ", ".join(f"flexnano/{name}" for name in edited)
            + ": making the stubs would throw "
            "that away, so nothing was written.\n"
            "Save these files elsewhere (or commit them), then run: python -m course stubs --force"
        )
    target.mkdir(exist_ok=True)
    for difference in differences:
        path = target / difference.file
        if difference.what == "left over":
            path.unlink()
        else:
            path.write_text(stubs[difference.file], encoding="utf-8", newline="\n")
        say(f"  {'removed' if difference.what == 'left over' else 'wrote'} flexnano/{difference.file}")
    say(f"{len(stubs)} files, {len(all_exercises(root))} exercises, {len(differences)} changed")
    return 0


def compare(stubs: dict[str, str], target: Path) -> list[Difference]:
    """What has to happen to the files in `target` so that they are `stubs`."""
    differences = []
    for name, text in stubs.items():
        path = target / name
        if not path.exists():
            differences.append(Difference(name, "missing"))
        elif (found := path.read_text(encoding="utf-8")) != text:
            differences.append(Difference(name, "out of step" if is_untouched(found) else "edited"))
    for path in sorted(target.glob("*.py")):
        if path.name not in stubs and is_untouched(path.read_text(encoding="utf-8")):
            differences.append(Difference(path.name, "left over"))
    return differences


# -------------------------------------------------------------------------------------------------- header and hash


def with_header(body: str, file: str) -> str:
    if 'raise NotImplementedError("Exercise ' in body:
        use = '# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.'
    else:
        use = "# Given: there is nothing to fill in here."
    return f"{HEADER.format(file=file)}\n{use}\n# untouched while the rest of this file has the hash {hash_of(body)}\n{body}"


def is_untouched(text: str) -> bool:
    """Whether a file is as it was made, by the hash in its header."""
    match = HASH_LINE.search(text[:600])
    return match is not None and hash_of(text[match.end() + 1 :]) == match[1]


def hash_of(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------ the regions


def stub_of(path: Path) -> str:
    return with_header(strip_solutions(path.read_text(encoding="utf-8"), path.name), path.name)


def strip_solutions(source: str, file: str) -> str:
    """The source with each marked region replaced.

    Raises:
        CourseError: naming file and line, if markers do not pair up, a region is in no function, its function carries no
            exercise number, or a docstring is too thin to write the function from.
    """
    lines = source.splitlines()
    tree = ast.parse(source, filename=file)
    named = [(function, name) for function, name in functions(tree)]
    for function, name in named:
        if (exercise := of_function(function, name, file)) is not None:
            check_docstring(function, exercise)

    helpers: set[str] = set()
    # From the last region to the first, so that earlier line numbers stay true.
    for begin, end in reversed(regions(lines, file)):
        around = [(f, name) for f, name in named if f.lineno < begin and end <= _end(f, lines)]
        if not around:
            helpers |= _private_helpers(tree, begin, end, file)
            lines[begin - 1 : end] = []
            while (
                begin - 2 >= 0
                and begin - 1 < len(lines)
                and not lines[begin - 2].strip()
                and not lines[begin - 1].strip()
            ):
                del lines[begin - 1]
            continue
        exercises = [e for f, name in reversed(around) if (e := of_function(f, name, file)) is not None]
        if not exercises:
            _fail(
                file,
                begin,
                f"`{around[-1][1]}` has a solution but its docstring's first line has no [3.2 · ★★☆ · 15 min]",
            )
        indent = lines[begin - 1][: -len(lines[begin - 1].lstrip())]
        raising = f'{indent}raise NotImplementedError("Exercise {exercises[0].number}: {exercises[0].name}")'
        lines[begin - 1 : end] = [raising]
        if lines[begin - 2].strip() == "":  # the blank line that a nested function wants after a docstring
            del lines[begin - 2]
    stub = "\n".join(lines).rstrip("\n") + "\n"
    _check_stub(stub, helpers, file)
    return stub


def regions(lines: list[str], file: str) -> list[tuple[int, int]]:
    """First and last line (from 1, markers included) of each region."""
    found, begin = [], None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text == BEGIN:
            if begin is not None:
                _fail(file, number, f"`{BEGIN}` inside the region that began on line {begin}")
            begin = number
        elif text == END:
            if begin is None:
                _fail(file, number, f"`{END}` without a `{BEGIN}` before it")
            found.append((begin, number))
            begin = None
        elif text.startswith("#") and "SOLUTION" in text:
            _fail(file, number, f"`{text}` is no marker; write `{BEGIN}` or `{END}`")
    if begin is not None:
        _fail(file, begin, f"`{BEGIN}` without a `{END}`")
    return found


def _end(function: Function, lines: list[str]) -> int:
    """The last line of a function, comments after its last statement included: END is such a comment."""
    end = function.end_lineno or function.lineno
    while end < len(lines) and (not lines[end].strip() or _deeper(lines[end], function.col_offset)):
        end += 1
    return end


def _deeper(line: str, column: int) -> bool:
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) > column


def _private_helpers(tree: ast.Module, begin: int, end: int, file: str) -> set[str]:
    """Names defined in a region that stands in no function, if it holds whole private definitions and nothing else."""
    inside = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and begin < node.lineno and (node.end_lineno or node.lineno) < end
    ]
    outer = [node for node in inside if not any(other is not node and _contains(other, node) for other in inside)]
    names = {node.name for node in outer if isinstance(node, Function | ast.ClassDef)}
    if len(names) != len(outer) or not names or not all(name.startswith("_") for name in names):
        _fail(file, begin, "a solution outside of a function may hold only private helpers (`def _name`), whole ones")
    return names


def _contains(outer: ast.stmt, inner: ast.stmt) -> bool:
    return outer.lineno <= inner.lineno and (inner.end_lineno or 0) <= (outer.end_lineno or 0)


def _check_stub(stub: str, removed: set[str], file: str) -> None:
    try:
        tree = ast.parse(stub, filename=file)
    except SyntaxError as error:
        _fail(file, error.lineno or 0, f"the stub does not parse ({error.msg}); line number in the stub")
    for node in ast.walk(tree):
        used = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if used in removed:
            _fail(
                file, getattr(node, "lineno", 0), f"`{used}` is only in a solution but used outside; line in the stub"
            )


# ----------------------------------------------------------------------------------------- numbers and docstrings


def check_numbers(root: Path = ROOT) -> None:
    """Every number is used once."""
    by_number: dict[str, Exercise] = {}
    for exercise in all_exercises(root):
        if (other := by_number.get(exercise.number)) is not None:
            _fail(
                exercise.file,
                exercise.line,
                f"exercise {exercise.number} is also {other.name} in {other.file}:{other.line}",
            )
        by_number[exercise.number] = exercise


def check_docstring(function: Function, exercise: Exercise) -> None:
    """A stub must be enough to write the function from: every parameter and what comes back are described."""
    text = ast.get_docstring(function) or ""
    arguments = function.args
    parameters = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    parameters += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    parameters = [name for name in parameters if name not in ("self", "cls") and not name.startswith("_")]
    described = section(text, "Args")
    missing = [name for name in parameters if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", described)]
    if missing:
        _fail(
            exercise.file, exercise.line, f"{exercise}: `Args:` in the docstring does not describe {', '.join(missing)}"
        )
    returns = function.returns
    gives_nothing = returns is None or (isinstance(returns, ast.Constant) and returns.value is None)
    if not gives_nothing and not section(text, "Returns") and not section(text, "Yields"):
        _fail(exercise.file, exercise.line, f"{exercise}: the docstring has no `Returns:`")


def section(docstring: str, title: str) -> str:
    """The indented text under `title:` in a docstring.

    >>> section("A.\\n\\nArgs:\\n    x: a number\\n\\nReturns:\\n    int", "Args")
    '    x: a number\\n'
    """
    match = re.search(rf"^{title}:\n((?:[ \t]+.*\n?|\n(?=[ \t]))*)", docstring, re.MULTILINE)
    return match[1] if match else ""


def _fail(file: str, line: int, what: str) -> NoReturn:
    raise CourseError(f"solutions/flexnano/{file}:{line}: {what}")
