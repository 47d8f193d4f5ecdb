"""Read the cell of an exercise, and say in words why it can't be taken if it can't."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..exercises import Exercise, Function, of_function
from ..grading import merge


class NotTaken(Exception):
    """The cell changes nothing.

    Args:
        why: in words.
        line: of the cell as the learner sees it, the magic's line being the first; 0: no line in particular.
        text: that line.
        expected: what the exercise asks for.
    """

    def __init__(self, why: str, line: int = 0, text: str = "", expected: str = "") -> None:
        super().__init__(why)
        self.why, self.line, self.text, self.expected = why, line, text, expected


Say = Callable[..., NotTaken]
"""(why, line of the code) -> the exception to raise."""


@dataclass(frozen=True)
class Extra:
    """What stands beside the exercise in its cell and goes into the module with it: a helper, an import, a constant."""

    names: frozenset[str]
    text: str
    node: ast.stmt
    method: bool = False  # goes into the class of the exercise


@dataclass
class Cell:
    """What a cell gives."""

    code: str  # all of it
    function: str  # the exercise's own function, dedented
    node: Function
    untouched: bool  # it is the stub
    extras: list[Extra] = field(default_factory=list)


MAGIC_LINES = 1
"""Lines of the cell above the code that a cell magic is given."""


def read(text: str, exercise: Exercise, pristine: str) -> Cell:
    """Take a cell apart.

    Args:
        text: the cell without the line of the magic.
        exercise: what it is for.
        pristine: the file of the exercise as it was handed out.

    Raises:
        NotTaken: it does not parse, does not define the function, or not as the exercise asks for it.
    """
    try:
        return _read(text, exercise, pristine)
    except (RecursionError, MemoryError):
        raise NotTaken("It is nested too deeply to be read.") from None


def _read(text: str, exercise: Exercise, pristine: str) -> Cell:
    wanted = merge.parts(pristine)[exercise.name].node
    expected = signature(wanted)
    code = merge.dedented(text)
    above = MAGIC_LINES + _blank_lines_in_front(text)
    lines = merge.lines_of(code)

    def no(why: str, line: int = 0) -> NotTaken:
        shown = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        return NotTaken(why, line + above if line else 0, shown, expected)

    if not code.strip():
        raise no(f"The cell is empty. `%exercise {exercise.number}` loads what stands in the file into a new one.")
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        if lines[(error.lineno or 1) - 1].lstrip().startswith(("%", "!")):
            raise no("Only Python can go into the file, no magics.", error.lineno or 0) from None
        raise no(f"It is not Python: {error.msg}.", error.lineno or 0) from None
    except ValueError as error:  # null bytes, half a pair of surrogates
        raise no(f"It is not Python: {error}.") from None

    found, others = _split(tree, exercise, no)
    _check_signature(found, wanted, no)
    begins = [_first_line(node) for node in tree.body]
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if _first_line(after) <= (before.end_lineno or 0):
            raise no("Please write one statement a line: this one can't be told from its neighbour.", after.lineno)

    def text_of(node: ast.stmt) -> str:
        end = node.end_lineno or node.lineno
        if isinstance(node, Function):
            end = merge.parts(code)[node.name].end
        following = [line for line in begins if line > node.lineno]
        return "".join(lines[_first_line(node) - 1 : min([end, *(line - 1 for line in following)])])

    cell = Cell(code, text_of(found), found, merge.is_untouched(found, exercise.number))
    for node in others:
        method = "." in exercise.name and isinstance(node, Function) and _is_method(node)
        cell.extras.append(Extra(frozenset(bound(node)), text_of(node), node, method))
    _check_extras(cell.extras, exercise, pristine, no)
    return cell


def signature(node: Function) -> str:
    """The line that begins a function, as one would write it.

    >>> signature(ast.parse("def f(a: int, *, b=1) -> bool: return a").body[0])
    'def f(a: int, *, b=1) -> bool'
    """
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    decorators = "".join(f"@{ast.unparse(decorator)} " for decorator in node.decorator_list)
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{decorators}{kind} {node.name}({ast.unparse(node.args)}){returns}"


def bound(node: ast.stmt) -> set[str]:
    """Names that a statement at the top of a module gives a value."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    elif type(node).__name__ == "TypeAlias":  # Python 3.12
        targets = [node.name]  # type: ignore[attr-defined]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


# ---------------------------------------------------------------------------------------------------------- checks


def _split(tree: ast.Module, exercise: Exercise, no: Say) -> tuple[Function, list[ast.stmt]]:
    """The exercise's function, and what stands beside it."""
    owner, _, name = exercise.name.rpartition(".")
    own = [node for node in tree.body if isinstance(node, Function) and node.name == name]
    if len(own) > 1:
        raise no(f"`{name}` is defined twice, also on line {own[0].lineno + MAGIC_LINES}. Keep one.", own[1].lineno)
    if not own:
        raise _not_there(tree, owner, name, no)
    others: list[ast.stmt] = []
    for node in tree.body:
        if node is own[0] or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a string that says something
        if not bound(node) or isinstance(node, ast.AugAssign):
            raise no(
                "Beside the function only imports, constants, functions and classes can go into the file. "
                "Try things out in a cell of their own.",
                node.lineno,
            )
        others.append(node)
    return own[0], others


def _not_there(tree: ast.Module, owner: str, name: str, no: Say) -> NotTaken:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            return no(f"Write `{name}` by itself, without its class around it.", node.lineno)
        if name in bound(node):
            return no(f"`{name}` has to be a function made by `def`.", node.lineno)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}
    if name in functions:
        return no(f"`{name}` has to stand at the top of the cell, in nothing else.", functions[name].lineno)
    near = difflib.get_close_matches(name, functions, 1) or list(functions)[:1]
    if near:
        return no(f"It does not define `{name}`, but `{near[0]}`.", functions[near[0]].lineno)
    return no(f"It does not define `{name}`.")


def _check_signature(found: Function, wanted: Function, no: Say) -> None:
    if type(found) is not type(wanted):
        raise no("`def` and `async def` are different things.", found.lineno)
    for decorator in wanted.decorator_list:
        if ast.unparse(decorator) not in map(ast.unparse, found.decorator_list):
            raise no(f"Its decorator `@{ast.unparse(decorator)}` is missing.", found.lineno)
    mine, theirs = list(_parameters(found)), list(_parameters(wanted))
    optional = {name for _, name, has_default in mine if has_default}
    kept = [(kind, name) for kind, name, _ in mine]
    asked = [(kind, name) for kind, name, _ in theirs]
    # One more with a default harms nobody who calls it as the exercise says.
    kept = [one for one in kept if one[1] not in optional or one[1] in [name for _, name in asked]]
    if kept == asked:
        return
    names, wanted_names = [name for _, name in kept], [name for _, name in asked]
    if names == wanted_names:
        raise no("Its parameters are of another kind: look at `*`, `/` and `**`.", found.lineno)
    missing = [name for name in wanted_names if name not in names]
    more = [name for name in names if name not in wanted_names]
    said = [f"{', '.join(f'`{name}`' for name in missing)} missing"] if missing else []
    said += [f"{', '.join(f'`{name}`' for name in more)} not asked for"] if more else []
    raise no(
        f"Its parameters have to keep their names and order: {'; '.join(said) or 'the order is another one'}.",
        found.lineno,
    )


def _parameters(node: Function) -> Iterator[tuple[str, str, bool]]:
    """(kind, name, has a default) of each parameter."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    for index, one in enumerate(positional):
        yield "/" if index < len(arguments.posonlyargs) else "", one.arg, index >= without
    if arguments.vararg is not None:
        yield "*", arguments.vararg.arg, False
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield "keyword", one.arg, default is not None
    if arguments.kwarg is not None:
        yield "**", arguments.kwarg.arg, False


def _is_method(node: Function) -> bool:
    first = [*node.args.posonlyargs, *node.args.args][:1]
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    return bool(first and first[0].arg in ("self", "cls")) or bool(decorators & {"staticmethod", "classmethod"})


def _check_extras(extras: list[Extra], exercise: Exercise, pristine: str, no: Say) -> None:
    """Nothing beside the function may take the place of something that was handed out."""
    owner = exercise.name.rpartition(".")[0]
    tree = ast.parse(pristine)
    parts = merge.parts(pristine)
    given = {name: node for node in tree.body for name in bound(node)}
    origins = {name: origin for node in tree.body for name, origin in import_origins(node).items()}
    seen: dict[str, int] = {}
    for extra in extras:
        for name in extra.names:
            line = extra.node.lineno
            qualified = f"{owner}.{name}" if extra.method else name
            if name in seen and not isinstance(extra.node, ast.Import | ast.ImportFrom):
                raise no(f"`{name}` is there twice, also on line {seen[name] + MAGIC_LINES}. Keep one.", line)
            seen[name] = line
            if (part := parts.get(qualified)) is not None:
                other = of_function(part.node, qualified, exercise.file)
                if other is not None:
                    raise no(f"`{name}` is exercise {other.number}: give it a cell of its own.", line)
                raise no(f"`{name}` is given in {exercise.file}: choose another name.", line)
            if not extra.method and re.fullmatch(r"__\w+__", name) and name != "__all__":
                raise no(f"`{name}` means something to Python: choose another name.", line)
            if extra.method or name not in given:
                continue
            origin = import_origins(extra.node).get(name)
            if name in origins and origin is not None and _same_thing(origin, origins[name]):
                continue  # imported once more
            if origin is not None and comes_from(extra.node, exercise.file):
                continue  # it is in this very file
            raise no(f"`{name}` means something else in {exercise.file}: choose another name.", line)


def import_origins(node: ast.stmt) -> dict[str, tuple[str, str]]:
    """Where the names that an import binds come from: (module, what of it)."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: (alias.name, "as" if alias.asname else "")
            for alias in node.names
        }
    if isinstance(node, ast.ImportFrom):
        # `from .masks import causal` and `from flexnano.masks import causal` are the same.
        module = ("flexnano." if node.level else "") + (node.module or "")
        return {alias.asname or alias.name: (module.rstrip("."), alias.name) for alias in node.names}
    return {}


def _same_thing(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Whether two imports give a name the same meaning: `import torch` and `import torch.nn` both make it torch."""
    return a == b or (a[1] == b[1] == "" and a[0].partition(".")[0] == b[0].partition(".")[0])


def comes_from(node: ast.stmt, file: str) -> bool:
    """Whether an import asks the package or this file for something: `from flexnano import PageTable`."""
    if not isinstance(node, ast.ImportFrom):
        return False
    module = (node.module or "").removeprefix("flexnano").removeprefix(".")
    ours = node.level == 1 or (node.module or "").partition(".")[0] == "flexnano"
    return ours and module in ("", file.removesuffix(".py"))


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, Function | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _blank_lines_in_front(text: str) -> int:
    """Lines that `dedented` takes away at the top."""
    n = 0
    for line in merge.lines_of(text):
        if line.strip():
            break
        n += 1
    return n
