"""Mend living code in place, so that an instance made or a name imported earlier uses the new code.

A function keeps its identity and gets another `__code__`; what can't be mended that way (a wrapper with state of its own) is
put in its owner's place, and in place of the old one wherever a module or the notebook holds it by name.
"""

from __future__ import annotations
import __future__

import ast
import sys
import types
from collections.abc import Iterable, MutableMapping
from typing import Any

from ..exercises import Function
from ..grading import merge
from .cell import bound

_COPIED = ("__code__", "__defaults__", "__kwdefaults__", "__doc__", "__annotations__")


def apply(
    module: types.ModuleType,
    source: str,
    filename: str,
    names: Iterable[str] | None = None,
    except_for: Iterable[str] = (),
    fresh: Iterable[str] = (),
) -> None:
    """Bring a living module to what `source` says.

    Args:
        module: the module of the file.
        source, filename: its text now, and the name that tracebacks give it.
        names: functions to bring in, qualified; None: all.
        except_for: functions to leave alone.
        fresh: names at the top of the module to make anew even if the module has them: constants, helper classes.
    """
    tree = ast.parse(source)
    space, fresh, except_for = module.__dict__, set(fresh), set(except_for)
    wanted = [name for name in (merge.parts(source) if names is None else names) if name not in except_for]
    for node in tree.body:  # in order: a constant may be made by a function above it
        new = bound(node)
        if isinstance(node, Function):
            if node.name in wanted:
                _bring_in(module, tree, node.name, filename)
                wanted.remove(node.name)
        elif new and (new & fresh or (names is None and not new <= space.keys())):
            _run(tree, node, filename, space)
    for name in wanted:
        _bring_in(module, tree, name, filename)


def graft(module: types.ModuleType, reference: str, filename: str, names: Iterable[str]) -> None:
    """Put functions of the reference into a living module, and what they need and the module lacks."""
    tree = ast.parse(reference)
    space = module.__dict__
    for node in tree.body:
        if bound(node) - space.keys() and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            _run(tree, node, filename, space)
    parts = merge.parts(reference)
    owners = {name.rpartition(".")[0] for name in names if "." in name}
    for name in parts:
        owner, _, last = name.rpartition(".")
        lost = owner in owners and not hasattr(_owner(module, owner), _mangled(last, _owner(module, owner)))
        if name in names or lost:
            _bring_in(module, tree, name, filename)


def trial(module: types.ModuleType, source: str, filename: str, names: Iterable[str], fresh: Iterable[str]) -> None:
    """Run what `apply` would run, in a copy of the module's names.

    Raises:
        whatever the code raises.
    """
    tree = ast.parse(source)
    space, fresh = dict(module.__dict__), set(fresh)
    for node in tree.body:
        if bound(node) & fresh:
            _run(tree, node, filename, space)
    for name in names:
        owner = name.rpartition(".")[0]
        known = vars(_owner(module, owner)) if owner and hasattr(module, owner.partition(".")[0]) else {}
        _make(tree, name, filename, space, known)


# ------------------------------------------------------------------------------------------------------ making code


def _bring_in(module: types.ModuleType, tree: ast.Module, name: str, filename: str) -> None:
    owner_name, _, last = name.rpartition(".")
    try:
        owner: Any = _owner(module, owner_name) if owner_name else module
    except AttributeError:  # its class is new too and was made as a whole, or is gone
        return
    new = _make(tree, name, filename, module.__dict__, vars(owner) if owner_name else {})
    last = _mangled(last, owner)
    old = vars(owner).get(last)
    if old is not None and mend(old, new):
        return
    new = _with_owner(new, owner, module.__dict__) if owner_name else new
    setattr(owner, last, new)
    if old is not None and not owner_name:
        _replace_everywhere(old, new)


def _owner(module: types.ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _make(tree: ast.Module, name: str, filename: str, space: dict[str, Any], owned: Any) -> Any:
    """The object that a function's definition makes, in the names of its module."""
    *owners, last = name.split(".")
    node: Any = tree
    for part in owners:
        node = next(one for one in node.body if isinstance(one, ast.ClassDef) and one.name == part)
    definitions = [one for one in ast.walk(node) if isinstance(one, Function) and one.name == last]
    in_place = [one for one in node.body if one in definitions]
    wrapped: ast.stmt = (in_place or definitions)[-1]
    for part in reversed(owners):  # in a class of that name, for `__qualname__`, `__private` names and `super()`
        around = ast.parse(f"class {part}: pass").body[0]
        assert isinstance(around, ast.ClassDef)
        around.body = [wrapped]
        wrapped = ast.fix_missing_locations(ast.copy_location(around, wrapped))
    made: dict[str, Any] = {}
    try:
        _run(tree, wrapped, filename, space, made)
    except NameError:
        if not owned:
            raise
        # A default or decorator that is written with other names of its class.
        _run(tree, wrapped, filename, {**space, **owned}, made)
    found = made[(owners or [last])[0]]
    for part in [*owners, last][1:]:
        found = vars(found)[_mangled(part, found)]
    return found


def _mangled(name: str, owner: Any) -> str:
    """A name as a class has it: `__private` is kept as `_Class__private`."""
    private = isinstance(owner, type) and name.startswith("__") and not name.endswith("__")
    return f"_{owner.__name__.lstrip('_')}{name}" if private else name


def _run(tree: ast.Module, node: ast.stmt, filename: str, space: dict[str, Any], local: Any = None) -> None:
    postponed = any(
        isinstance(one, ast.ImportFrom)
        and one.module == "__future__"
        and "annotations" in [alias.name for alias in one.names]
        for one in tree.body
    )
    flags = __future__.annotations.compiler_flag if postponed else 0
    code = compile(ast.Module([node], []), filename, "exec", flags=flags, dont_inherit=True)
    exec(code, space, space if local is None else local)


# --------------------------------------------------------------------------------------------------- putting it in


def mend(old: Any, new: Any) -> bool:
    """Give `old` the code of `new`.  False: it can't be done in place."""
    if isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType):
        if hasattr(old, "__wrapped__") or hasattr(new, "__wrapped__"):
            # A decorator's wrapper keeps what it wraps in a closure; mended there, the wrapper serves the new code.
            inner = getattr(old, "__wrapped__", None), getattr(new, "__wrapped__", None)
            return None not in inner and _same_code(old, new) and mend(*inner)
        if old.__code__.co_freevars or new.__code__.co_freevars:
            return False
        for name in _COPIED:
            setattr(old, name, getattr(new, name))
        old.__dict__.update(new.__dict__)
        return True
    if type(old) is not type(new):
        return False
    if isinstance(old, staticmethod | classmethod):
        return mend(old.__func__, new.__func__)
    if isinstance(old, property):
        pairs = [(old.fget, new.fget), (old.fset, new.fset), (old.fdel, new.fdel)]
        return all((a is None) == (b is None) for a, b in pairs) and all(mend(a, b) for a, b in pairs if a is not None)
    return False


def _same_code(a: types.FunctionType, b: types.FunctionType) -> bool:
    return a.__code__.co_code == b.__code__.co_code and a.__code__.co_freevars == b.__code__.co_freevars


def _with_owner(new: Any, owner: type, space: dict[str, Any]) -> Any:
    """A function of the stand-in class as one of the living class: `super()` has to find that one."""
    if not isinstance(new, types.FunctionType):
        return new
    closure = tuple(
        types.CellType(owner) if name == "__class__" else cell
        for name, cell in zip(new.__code__.co_freevars, new.__closure__ or (), strict=True)
    )
    made = types.FunctionType(new.__code__, space, new.__name__, new.__defaults__, closure or None)
    for name in ("__kwdefaults__", "__doc__", "__annotations__", "__qualname__", "__module__"):
        setattr(made, name, getattr(new, name))
    made.__dict__.update(new.__dict__)
    return made


def _replace_everywhere(old: Any, new: Any) -> None:
    """Put `new` in place of `old` where a module of the package or the notebook has it by name."""
    spaces: list[MutableMapping[str, Any]] = [
        vars(module) for name, module in list(sys.modules.items()) if name.partition(".")[0] in ("flexnano", "__main__")
    ]
    for space in spaces:
        for name, value in list(space.items()):
            if value is old:
                space[name] = new
