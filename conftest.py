"""Options of pytest that hold for every test of the course.

pytest tests/module_03               grades the learner's package
pytest tests/module_03 --solutions   the same tests on the reference
pytest --all                         the slow tests too
"""

from __future__ import annotations

import os
import shlex

import pytest

pytest_plugins = ["course.grading.pytest_plugin"]

_left_out = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("course")
    group.addoption("--solutions", action="store_true", help="test the reference in solutions/ instead of flexnano/")
    group.addoption("--all", action="store_true", help="run the tests marked slow too")
    # Set here and not in pytest_configure: a conftest.py deeper down may import flexnano before that. In the environment,
    # so that notebooks' kernels and every other child process see it too.
    config = pluginmanager.get_plugin("pytestconfig")
    given = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    if "--solutions" in map(str, given):
        os.environ["FLEXNANO"] = "solutions"


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--solutions") and os.environ.get("FLEXNANO") != "solutions":
        raise pytest.UsageError(
            "give --solutions on the command line or in PYTEST_ADDOPTS: elsewhere it comes too late"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for_by_name = any("::" in argument for argument in config.args)
    if config.getoption("--all") or config.getoption("-m") or asked_for_by_name:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
    config.stash[_left_out] = len(slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if n := config.stash.get(_left_out, 0):
        terminalreporter.write_line(
            f"{n} slow {'test' if n == 1 else 'tests'} left out; --all runs them (make test-all)"
        )
