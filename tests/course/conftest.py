"""What holds for every test of the course, and what several of them start from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import little_course
import pytest

from course.grading.pool import Pool


@pytest.fixture(autouse=True)
def no_package_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the engine choose the reference for their whole process; here each test says what it grades."""
    monkeypatch.delenv("FLEXNANO", raising=False)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Processes for learners' code, shared by the tests of a file."""
    shared = Pool()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small course, as it is handed out; not to be changed."""
    return little_course.make(tmp_path_factory.mktemp("course"))


@pytest.fixture
def root(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    return shutil.copytree(untouched, tmp_path / "course")
