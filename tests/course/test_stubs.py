"""The learner's package is made from the reference, and from nothing else."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from course import exercises, stubs
from course.console import CourseError
from course.environment import ROOT

REFERENCE = ROOT / "solutions" / "flexnano"
ALL = exercises.all_exercises()

SOURCE = '''\
"""A module."""

from __future__ import annotations


class Table:
    def reserve(self, n: int) -> bool:
        """Take pages.  [3.2 · ★★☆ · 15 min]

        Args:
            n: pages to take.

        Returns:
            True.
        """
        ### BEGIN SOLUTION
        return _helper(n)
        ### END SOLUTION

    def given(self) -> int:
        return 1


### BEGIN SOLUTION
def _helper(n: int) -> bool:
    return n > 0


### END SOLUTION


def last() -> int:
    """The last.  [3.3 · ★☆☆ · 5 min]

    Returns:
        2.
    """

    ### BEGIN SOLUTION
    def inner() -> int:
        return 2

    return inner()
    ### END SOLUTION
'''


def replaced(old: str, new: str) -> str:
    assert old in SOURCE, f"the example no longer contains {old!r}"
    return SOURCE.replace(old, new)


# ---------------------------------------------------------------------------------------------- the course as it is


def test_the_stubs_are_what_the_reference_gives() -> None:
    made = {path.name: stubs.stub_of(path) for path in REFERENCE.glob("*.py")}
    different = [f"{d.file}: {d.what}" for d in stubs.compare(made, ROOT / "flexnano")]
    assert not different, f"flexnano/ is out of step, run `make stubs`: {different}"


def test_exercise_numbers_are_unique() -> None:
    stubs.check_numbers(ROOT)


def test_stubs_list_the_same_exercises_as_the_reference() -> None:
    from_stubs = [e for path in (ROOT / "flexnano").glob("*.py") for e in exercises.in_file(path)]
    assert {(e.number, e.name, e.file) for e in from_stubs} == {(e.number, e.name, e.file) for e in ALL}


def test_no_marker_and_no_solution_is_left_in_the_stubs() -> None:
    for path in (ROOT / "flexnano").glob("*.py"):
        assert "SOLUTION" not in path.read_text(encoding="utf-8"), f"{path.name} still has a marker"


def test_the_stubs_pass_ruff_but_for_what_only_the_solutions_used() -> None:
    arguments = ["--isolated", "--no-cache", "--select", "E,F,W", "--ignore", "F401,F841,E266", "--line-length", "126"]
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *arguments, str(ROOT / "flexnano")], capture_output=True, text=True
    )
    assert ruff.returncode == 0, ruff.stdout


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_an_untouched_stub_names_its_exercise(exercise: exercises.Exercise) -> None:
    function = untouched(exercise)
    arguments = inspect.signature(function).parameters.values()
    positional = [None for p in arguments if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: None for p in arguments if p.kind is p.KEYWORD_ONLY}
    with pytest.raises(NotImplementedError) as raised:
        function(*positional, **named)
    assert str(raised.value) == f"Exercise {exercise.number}: {exercise.name}"


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_a_stub_keeps_signature_and_docstring(exercise: exercises.Exercise) -> None:
    stub, reference = (
        {name: node for node, name in exercises.functions(ast.parse(text))}[exercise.name]
        for text in (stubs.stub_of(REFERENCE / exercise.file), (REFERENCE / exercise.file).read_text(encoding="utf-8"))
    )
    assert ast.dump(stub.args) == ast.dump(reference.args), "the signature has changed"
    assert ast.dump(stub.returns or ast.Pass()) == ast.dump(reference.returns or ast.Pass()), (
        "the result type has changed"
    )
    assert ast.get_docstring(stub) == ast.get_docstring(reference), "the docstring has changed"


def untouched(exercise: exercises.Exercise) -> Any:
    """The function as a learner first finds it, made here so that a learner's own work does not matter."""
    package = _stub_package()
    thing: Any = importlib.import_module(f"{package}.{exercise.file.removesuffix('.py')}")
    for part in exercise.name.split("."):
        thing = inspect.getattr_static(thing, part)
    thing = thing.fget if isinstance(thing, property) else thing
    return thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing


def _stub_package() -> str:
    name = "untouched_flexnano"
    if name not in sys.modules:
        import tempfile

        folder = Path(tempfile.mkdtemp()) / name
        folder.mkdir()
        for path in REFERENCE.glob("*.py"):
            text = "" if path.name == "__init__.py" else stubs.stub_of(path)
            (folder / path.name).write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return name


# -------------------------------------------------------------------------------------------- how a stub is made


def test_a_region_becomes_one_line_that_names_the_exercise() -> None:
    stub = stubs.strip_solutions(SOURCE, "example.py")
    assert stub == textwrap.dedent(
        '''\
        """A module."""

        from __future__ import annotations


        class Table:
            def reserve(self, n: int) -> bool:
                """Take pages.  [3.2 · ★★☆ · 15 min]

                Args:
                    n: pages to take.

                Returns:
                    True.
                """
                raise NotImplementedError("Exercise 3.2: Table.reserve")

            def given(self) -> int:
                return 1


        def last() -> int:
            """The last.  [3.3 · ★☆☆ · 5 min]

            Returns:
                2.
            """
            raise NotImplementedError("Exercise 3.3: last")
        '''
    )


def test_code_around_a_region_stays() -> None:
    source = replaced("        ### BEGIN SOLUTION\n", "        size = 4\n        ### BEGIN SOLUTION\n")
    assert "        size = 4\n        raise NotImplementedError" in stubs.strip_solutions(source, "example.py")


def test_the_exercises_are_read_with_their_place_stars_and_minutes() -> None:
    found = exercises.in_source(SOURCE, "example.py")
    assert [(e.number, e.name, e.stars, e.minutes, e.line) for e in found] == [
        ("3.2", "Table.reserve", 2, 15, 7),
        ("3.3", "last", 1, 5, 32),
    ]


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        (
            replaced("        return _helper(n)\n        ### END SOLUTION\n", "        return True\n"),
            23,
            "inside the region",
        ),
        (replaced("    return inner()\n    ### END SOLUTION\n", "    return inner()\n"), 39, "without a `### END"),
        (replaced("        ### BEGIN SOLUTION\n", ""), 17, "without a `### BEGIN"),
        (replaced("### BEGIN SOLUTION\ndef", "### BEGIN SOLUTIONS\ndef"), 24, "is no marker"),
        (replaced("def _helper", "def helper"), 24, "only private helpers"),
        (replaced("def _helper(n: int) -> bool:\n    return n > 0\n", "SIZE = 4\n"), 24, "only private helpers"),
        (replaced("        return 1\n", "        return _helper(1)\n"), 19, "`_helper` is only in a solution"),
        (replaced("  [3.2 · ★★☆ · 15 min]", ""), 16, "no [3.2 · ★★☆ · 15 min]"),
        (replaced("            n: pages to take.\n", "            k: pages.\n"), 7, "does not describe n"),
        (replaced("        Returns:\n            True.\n", ""), 7, "no `Returns:`"),
    ],
)
def test_a_wrong_source_is_refused_with_file_and_line(source: str, line: int, says: str) -> None:
    with pytest.raises(CourseError) as raised:
        stubs.strip_solutions(source, "example.py")
    assert f"solutions/flexnano/example.py:{line}: " in str(raised.value)
    assert says in str(raised.value)


# ------------------------------------------------------------------------------------------ writing over and checking


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A small course with one file of exercises, whose stubs have been made."""
    (tmp_path / "solutions" / "flexnano").mkdir(parents=True)
    (tmp_path / "solutions" / "flexnano" / "example.py").write_text(SOURCE, encoding="utf-8")
    assert stubs.make(tmp_path) == 0
    return tmp_path


def test_made_stubs_are_in_step_and_say_what_they_are(course: Path) -> None:
    assert stubs.make(course, check=True) == 0
    assert (
        (course / "flexnano" / "example.py")
        .read_text()
        .startswith("# Your copy of solutions/flexnano/example.py, made by")
    )


def test_making_them_again_changes_nothing(course: Path) -> None:
    before = (course / "flexnano" / "example.py").stat().st_mtime_ns
    assert stubs.make(course) == 0
    assert (course / "flexnano" / "example.py").stat().st_mtime_ns == before


def test_a_changed_reference_is_out_of_step_until_the_stubs_are_made(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (course / "solutions" / "flexnano" / "example.py").write_text(replaced("Take pages", "Take more pages"))
    assert stubs.make(course, check=True) == 1
    assert "flexnano/example.py: out of step" in capsys.readouterr().out
    assert stubs.make(course) == 0
    assert stubs.make(course, check=True) == 0


def test_a_learners_work_is_never_written_over(course: Path) -> None:
    mine = course / "flexnano" / "example.py"
    mine.write_text(mine.read_text().replace('raise NotImplementedError("Exercise 3.3: last")', "return 2"))
    written = mine.read_text()
    (course / "solutions" / "flexnano" / "other.py").write_text('"""Another."""\n')
    assert stubs.make(course, check=True) == 1
    with pytest.raises(CourseError, match=r"flexnano/example\.py[\s\S]*--force"):
        stubs.make(course)
    assert mine.read_text() == written
    assert not (course / "flexnano" / "other.py").exists(), "all or nothing: the other file was written"
    stubs.make(course, force=True)
    assert "Exercise 3.3: last" in mine.read_text()


def test_a_file_gone_from_the_reference_goes_but_not_a_learners_own(course: Path) -> None:
    (course / "solutions" / "flexnano" / "other.py").write_text('"""Another."""\n')
    stubs.make(course)
    (course / "solutions" / "flexnano" / "other.py").unlink()
    (course / "flexnano" / "my_notes.py").write_text("x = 1\n")
    assert stubs.make(course, check=True) == 1
    stubs.make(course)
    assert sorted(path.name for path in (course / "flexnano").glob("*.py")) == ["example.py", "my_notes.py"]


def test_a_number_used_twice_is_refused(course: Path) -> None:
    (course / "solutions" / "flexnano" / "other.py").write_text(
        'def f() -> None:\n    """F.  [3.3 · ★☆☆ · 5 min]"""\n    ### BEGIN SOLUTION\n    ### END SOLUTION\n'
    )
    with pytest.raises(CourseError, match=r"other.py:1: exercise 3.3 is also last in example.py:32"):
        stubs.make(course)


def test_without_solutions_the_exercises_come_from_the_stubs(course: Path) -> None:
    from_solutions = [(e.number, e.name) for e in exercises.all_exercises(course)]
    (course / "solutions" / "flexnano" / "example.py").unlink()
    (course / "solutions" / "flexnano").rmdir()
    assert [(e.number, e.name) for e in exercises.all_exercises(course)] == from_solutions
    with pytest.raises(CourseError, match="no solutions to make the stubs from"):
        stubs.make(course)
