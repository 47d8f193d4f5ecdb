"""`python -m course status`: real grades, found once and remembered exactly as long as they are true."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import little_course
import pytest

from course import speed, status
from course.environment import ROOT
from course.grading.grader import Grading
from course.grading.pool import Pool


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The numbers of the exercises that were graded, in order."""
    numbers: list[str] = []
    original = Grading.grade

    def grade(self: Grading, exercise: object) -> object:
        numbers.append(exercise.number)  # type: ignore[attr-defined]
        return original(self, exercise)  # type: ignore[arg-type]

    monkeypatch.setattr(Grading, "grade", grade)
    return numbers


def states(root: Path, pool: Pool, **options: object) -> dict[str, str]:
    return {one.number: one.status for one in status.results(root, pool=pool, **options)}  # type: ignore[arg-type]


def test_every_exercise_stands_as_it_is(root: Path, pool: Pool) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    found = states(root, pool)
    assert found == {
        **{number: "not started" for number in ("1.1", "1.2", "3.3", "4.1")},
        **{"3.1": "not yet", "3.2": "passed"},
    }
    assert status.passed_exercises(root) == {"3.2"}


def test_a_second_call_grades_nothing(root: Path, pool: Pool, graded: list[str]) -> None:
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    first = states(root, pool)
    assert sorted(graded) == ["1.1", "1.2", "3.1", "3.2", "3.3", "4.1"]
    graded.clear()
    assert states(root, pool) == first and graded == []
    assert states(root, pool, upto=1) == {"1.1": "not started", "1.2": "not started"} and graded == []


def test_work_on_one_exercise_leaves_the_grades_of_others(root: Path, pool: Pool, graded: list[str]) -> None:
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    states(root, pool)
    graded.clear()
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 2\n")
    found = states(root, pool)
    assert found["1.1"] == "passed"
    # A passing one is not asked again; one that fails may fail because of any other.
    assert graded == ["1.1", "3.1"]
    graded.clear()
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    assert states(root, pool)["3.1"] == "passed" and graded == ["3.1"]


def test_what_was_graded_before_is_known_again(root: Path, pool: Pool, graded: list[str]) -> None:
    path = root / "flexnano" / "page_table.py"
    stub = path.read_bytes()
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    states(root, pool)
    written = path.read_bytes()
    path.write_bytes(stub)
    assert states(root, pool)["3.1"] == "not started"
    graded.clear()
    path.write_bytes(written)
    assert states(root, pool)["3.1"] == "passed" and graded == []


@pytest.mark.parametrize("file", ["flexnano/page_table.py", "solutions/flexnano/masks.py", "tests/module_03/judge.py"])
def test_a_grade_is_found_anew_when_what_it_depends_on_changes(
    file: str, root: Path, pool: Pool, graded: list[str]
) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    states(root, pool)
    graded.clear()
    path = root / file
    path.write_text(path.read_text(encoding="utf-8") + "\n\nMORE = 1\n", encoding="utf-8")
    states(root, pool)
    assert "3.1" in graded
    assert file != "tests/module_03/judge.py" or "1.1" not in graded


def test_only_what_is_known_without_running_anything(root: Path, pool: Pool, graded: list[str]) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    assert status.results(root, grade=False) == [] and graded == []
    assert status.passed_exercises(root, grade=False) == set()
    states(root, pool)
    graded.clear()
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 2\n")
    assert status.passed_exercises(root, grade=False) == {"3.1"} and graded == []


def test_no_answer_in_time_is_not_remembered(root: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    while True: pass\n")
    original = Grading.__init__

    def impatient(self: Grading, *arguments: object, **options: object) -> None:
        original(self, *arguments, **options)  # type: ignore[arg-type]
        self.seconds = 0.5

    monkeypatch.setattr(Grading, "__init__", impatient)
    assert states(root, pool)["1.1"] == "not yet"
    assert "1.1" not in {one.number for one in status.results(root, grade=False)}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1, "known": 3}', '{"format": 1, "known": {"a": {}}}'])
def test_a_damaged_memory_costs_time_only(content: str, root: Path, pool: Pool) -> None:
    memory = root / ".course" / "grades.json"
    memory.parent.mkdir(exist_ok=True)
    memory.write_text(content)
    assert states(root, pool)["1.1"] == "not started"
    assert json.loads(memory.read_text(encoding="utf-8"))["format"] == status.FORMAT


def test_a_class_release_waits_for_what_is_not_written(tmp_path: Path, pool: Pool) -> None:
    root = little_course.make(tmp_path, solutions=False)
    little_course.write(root, "kv_cache.py", "count", "def count(shelf) -> int:\n    return double(len(shelf.books))\n")
    assert states(root, pool)["4.1"] == "waiting"
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 2\n")
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    found = states(root, pool)
    assert [found[number] for number in ("1.1", "3.1", "4.1")] == ["passed"] * 3


def test_an_exercise_without_a_grader_is_told_from_one_that_fails(root: Path, pool: Pool) -> None:
    (root / "tests" / "module_04" / "judge.py").unlink()
    assert states(root, pool)["4.1"] == "not started"
    little_course.write(root, "kv_cache.py", "count", "def count(shelf) -> int:\n    return 0\n")
    outcomes = status.results(root, pool=pool)
    assert outcomes[-1].status == "no grader"
    assert status.minutes_left(outcomes) == sum(one.minutes for one in outcomes[:-1])


# ------------------------------------------------------------------------------------------------------- as a command


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "course", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_table_says_what_is_next_and_the_second_call_is_quick(root: Path) -> None:
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 3\n")
    text = command(root, "status").stdout
    assert "1.1   double" in text and "not yet" in text
    assert "next: 1.1 double in flexnano/masks.py" in text and "python -m course grade 1.1" in text
    assert "0 of 6 exercises pass, 40 min left" in text
    start = time.perf_counter()
    document = json.loads(command(root, "status", "--json").stdout)
    assert time.perf_counter() - start < 3, "nothing had changed"  # one second on an idle machine
    assert document["next"]["number"] == "1.1" and document["minutes_left"] == 40
    assert [one["module"] for one in document["modules"]] == [1, 3, 4]
    assert document["modules"][0]["exercises"][0]["status"] == "not yet"


def test_nothing_heavy_is_imported_when_all_is_known(root: Path) -> None:
    code = "from course import status; print(len(status.passed_exercises())); import sys; print(*sys.modules)"
    little_course.run(root, code)
    loaded = little_course.run(root, code).splitlines()[-1].split()
    assert "course.status" in loaded
    assert not {"torch", "numpy", "hypothesis", "pytest", "transformers"} & set(loaded)


def test_the_course_itself_is_read_quickly() -> None:
    """All exercises of the real course, of which nothing runs."""
    start = time.perf_counter()
    status.results(ROOT, package=ROOT / "flexnano", grade=False)
    assert time.perf_counter() - start < 5


# -------------------------------------------------------------------------------------------------------------- speed


def test_speed_is_measured_only_of_a_complete_engine(root: Path, pool: Pool) -> None:
    outcomes = status.results(root, pool=pool, package=root / "solutions" / "flexnano")
    assert all(one.passed for one in outcomes)
    assert not status.engine_passes(outcomes), "there is no module 06"


def test_without_the_model_it_says_how_to_get_it(root: Path) -> None:
    found = speed.speeds(root)
    assert "setup --no-demo" in found["absent"]
    assert "setup --no-demo" in "\n".join(status.speed_lines(found))


def test_speeds_are_drawn_as_bars_and_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path | None] = []
    answers = [{"tokens_per_second": 50.0}, {"tokens_per_second": 100.0}, {"error": "no answer within 300 s"}]

    def in_child(folder: Path | None, _model: Path, _root: Path) -> dict[str, object]:
        asked.append(folder)
        return dict(answers[len(asked) - 1])

    monkeypatch.setattr(speed, "is_complete", lambda _folder: True)
    monkeypatch.setattr(speed, "_in_child", in_child)
    own, reference, other = status.speed_lines(speed.speeds(root))[-3:]
    assert own.count("█") * 2 == reference.count("█") and "50.0" in own
    assert "could not be measured" in other
    answers.append({"tokens_per_second": 10.0})
    speed.speeds(root)
    assert len(asked) == 4, "only what failed is measured again"


@pytest.mark.slow
def test_real_speeds_of_the_reference() -> None:
    found = speed.speeds(ROOT, ROOT / "solutions" / "flexnano")
    if "absent" in found:
        pytest.skip(found["absent"])
    for name in ("own", "reference", "transformers"):
        assert found[name]["tokens_per_second"] > 1, found[name]
