"""Every example in a docstring of the reference runs and gives what it says; every public name is there."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import flexnano

MODULES = sorted(module.name for module in pkgutil.iter_modules(flexnano.__path__) if module.name != "__main__")
WITH_EXAMPLES = ("kv_cache", "masks", "page_table", "sampling", "sequence")  # written for learners to read first


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(f"flexnano.{name}")
    assert Path(str(module.__file__)).parent.parent.name == "solutions", "these are not the reference's examples"
    result = doctest.testmod(module, extraglobs={"torch": importlib.import_module("torch")})
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name}.py fail; see above"
    if name in WITH_EXAMPLES:
        assert result.attempted > 0, f"{name}.py has no example at all"


def test_each_module_under_test_is_looked_at() -> None:
    assert set(WITH_EXAMPLES) | {"attention", "inference", "scheduler"} <= set(MODULES)


@pytest.mark.parametrize("name", flexnano.__all__)
def test_a_public_name_is_there_and_in_the_listing(name: str) -> None:
    assert getattr(flexnano, name) is not None
    assert name in dir(flexnano)


def test_a_name_that_is_not_public_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no `Engine`"):
        flexnano.Engine  # noqa: B018
