"""For drive.py: make plain data of what the learner's code gave back, or say in words why it can't be used."""

from __future__ import annotations

from typing import Any


class NotUsable(Exception):
    """What came back is not of the kind that the docstring promises; the message says what it is, in one sentence."""


def tensor(value: Any, what: str, ndim: int | None = None, kind: str | None = None) -> Any:
    """`value` if it is a tensor.

    Args:
        what: names it in the message: "the mask", "the result".
        ndim: dimensions that it must have.
        kind: "bool", "int" or "float": the kind of its dtype.

    Raises:
        NotUsable: it is something else.
    """
    import torch

    if value is None:
        raise NotUsable(f"{what} is None: is a `return` missing?")
    if not isinstance(value, torch.Tensor):
        raise NotUsable(f"{what} is a {type(value).__name__}, not a tensor")
    if ndim is not None and value.ndim != ndim:
        raise NotUsable(f"{what} has shape {list(value.shape)}: {value.ndim} dimensions, not {ndim}")
    found = "bool" if value.dtype == torch.bool else "float" if value.dtype.is_floating_point else "int"
    if kind is not None and found != kind:
        raise NotUsable(f"{what} is a tensor of {value.dtype}, not of {kind}")
    return value


def instance(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """`value` if it is a `kind`.  A bool does not pass for an int.

    Raises:
        NotUsable: it is something else.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if value is None and type(None) not in kinds:
        raise NotUsable(f"{what} is None: is a `return` missing?")
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise NotUsable(f"{what} is {value!r}, a {type(value).__name__}, not a {names}")
    return value


def function(value: Any, what: str) -> Any:
    """`value` if it can be called.

    Raises:
        NotUsable: it can't.
    """
    if value is None:
        raise NotUsable(f"{what} is None: is a `return` missing?")
    if not callable(value):
        raise NotUsable(f"{what} is a {type(value).__name__}, not a function")
    return value
