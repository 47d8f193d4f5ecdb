"""`pytest --solutions` and `pytest --all`, tried on a small set of tests of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course.environment import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nmarkers = slow\n")
    tests = tmp_path / "tests"
    tests.mkdir()
    # The worst case: a conftest deeper down that imports flexnano before pytest has read its options.
    (tests / "conftest.py").write_text("import flexnano\n")
    (tests / "test_it.py").write_text(
        "import os, subprocess, sys, flexnano, pytest\n"
        "def test_where():\n"
        "    code = 'import flexnano; print(*flexnano.__path__)'\n"
        "    child = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()\n"
        "    print('\\nHERE', *flexnano.__path__)\n"
        "    print('CHILD', child)\n"
        "@pytest.mark.slow\n"
        "def test_slow():\n"
        "    print('SLOW RAN')\n"
    )
    return tmp_path


def run(project: Path, *arguments: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("FLEXNANO", "PYTEST_ADDOPTS")} | variables
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["command line", "folder", "PYTEST_ADDOPTS"])
def test_solutions_puts_the_reference_under_test_in_children_too(project: Path, how: str) -> None:
    if how == "PYTEST_ADDOPTS":
        output = run(project, "tests", PYTEST_ADDOPTS="--solutions")
    else:
        output = run(project, *(["tests"] if how == "folder" else []), "--solutions")
    reference = ROOT / "solutions" / "flexnano"
    assert f"HERE {reference}" in output
    assert f"CHILD {reference}" in output


def test_without_it_the_learners_package_is_under_test(project: Path) -> None:
    output = run(project)
    assert f"HERE {ROOT / 'flexnano'}" in output
    assert f"CHILD {ROOT / 'flexnano'}" in output


def test_slow_tests_are_left_out_and_counted(project: Path) -> None:
    output = run(project)
    assert "SLOW RAN" not in output
    assert "1 slow test left out; --all runs them" in output


@pytest.mark.parametrize("arguments", [["--all"], ["-m", "slow"], ["tests/test_it.py::test_slow"]])
def test_slow_tests_run_when_asked_for(project: Path, arguments: list[str]) -> None:
    output = run(project, *arguments)
    assert "SLOW RAN" in output
    assert "left out" not in output
