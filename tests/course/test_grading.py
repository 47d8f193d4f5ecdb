"""Grading: never a wrong exercise blamed, never stuck, and what right is stays out of the learner's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planting import REFERENCE, exercise, package

from course.environment import ROOT
from course.grading import card, grader, merge
from course.grading.card import Outcome
from course.grading.grader import Grading
from course.grading.pool import Pool

STUBS = ROOT / "flexnano"


def learner(folder: Path, *, done: tuple[str, ...] = (), code: dict[str, str] | None = None, extra: str = "") -> Path:
    """A package in which the exercises `done` are as the reference has them, `code` as given, all others not started."""
    target = folder / "flexnano"
    target.mkdir(parents=True)
    for file in merge.files():
        text = merge.pristine(file)
        for number in done:
            one = exercise(number)
            if one.file == file:
                source = (REFERENCE / file).read_text(encoding="utf-8")
                text = merge.replace(text, one.name, merge.parts(source)[one.name].text(source))
        for number, body in (code or {}).items():
            one = exercise(number)
            if one.file == file:
                text = merge.replace(text, one.name, body)
        (target / file).write_text(text + (extra if file == "page_table.py" else ""), encoding="utf-8")
    return target


def grade(
    folder: Path, pool: Pool, *numbers: str, reference: Path | None = REFERENCE, **options: object
) -> list[Outcome]:
    with Grading(folder, reference, pool=pool, **options) as grading:  # type: ignore[arg-type]
        return list(grading.grade_all([exercise(number) for number in numbers]))


RESERVE = "def reserve(self, batch_idx: int, seq_len: int) -> bool:\n    {}\n"


def test_an_untouched_stub_is_not_started_in_every_module(pool: Pool, tmp_path: Path) -> None:
    folder = learner(tmp_path)
    with Grading(folder, REFERENCE, pool=pool) as grading:
        for module in grader.graded_modules():
            exercises = grading.exercises(module)
            assert exercises or module == 11, f"module {module} has no exercises; only the clinic adds none"
            outcomes = list(grading.grade_all(exercises))
            assert {outcome.status for outcome in outcomes} <= {"not started"}, f"module {module}"
            assert len(outcomes) == len(exercises), f"module {module}"


def test_the_reference_passes_everywhere(pool: Pool) -> None:
    with Grading(REFERENCE, REFERENCE, pool=pool) as grading:
        for module in grader.graded_modules():
            for outcome in grading.grade_all(grading.exercises(module)):
                assert outcome.passed, card.text(outcome, 3, verbose=True)


def test_a_right_exercise_passes_although_those_that_it_calls_are_not_started(pool: Pool, tmp_path: Path) -> None:
    (outcome,) = grade(learner(tmp_path, done=("3.2",)), pool, "3.2")
    assert outcome.passed, card.text(outcome)


def test_without_a_reference_it_waits_for_what_it_calls(pool: Pool, tmp_path: Path) -> None:
    (outcome,) = grade(learner(tmp_path, done=("3.2",)), pool, "3.2", reference=None)
    assert outcome.status == "waiting"
    assert "3." in outcome.got and outcome.hints


def test_without_a_reference_what_can_be_judged_is_judged(pool: Pool, tmp_path: Path) -> None:
    """Exercises can be passed in their order: a check that needs a later one does not hold up the others."""
    (outcome,) = grade(learner(tmp_path, done=("3.1",)), pool, "3.1", reference=None)
    assert outcome.passed, card.text(outcome)
    assert "wait for 3.4" in outcome.note


def test_a_loop_without_end_is_stopped_with_a_card(pool: Pool, tmp_path: Path) -> None:
    folder = learner(tmp_path, code={"3.2": RESERVE.format("while True: pass")})
    start = time.monotonic()
    (outcome,) = grade(folder, pool, "3.2", seconds=1.0)
    assert outcome.status == "not yet" and "no answer within 1 s" in outcome.got
    assert "loop" in outcome.hints[0]
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "ending", ["import os; os._exit(0)", "raise SystemExit", "import os, signal; os.kill(os.getpid(), 9)"]
)
def test_ending_the_process_is_a_card_and_not_a_pass(ending: str, pool: Pool, tmp_path: Path) -> None:
    (outcome,) = grade(learner(tmp_path, code={"3.2": RESERVE.format(ending)}), pool, "3.2")
    assert outcome.status == "not yet" and outcome.hints


def test_a_file_that_is_no_python_is_named_with_its_line_and_blames_nobody_else(pool: Pool, tmp_path: Path) -> None:
    folder = learner(tmp_path, done=("1.1",), extra="\ndef broken(:\n")
    table, mask = (
        grade(folder, pool, "3.2", "1.1") if 1 in grader.graded_modules() else (*grade(folder, pool, "3.2"), None)
    )
    assert table.status == "unreadable" and "page_table.py" in table.got and "line" in table.got
    assert mask is None or mask.passed


def test_a_lost_function_says_how_to_get_it_back(pool: Pool, tmp_path: Path) -> None:
    folder = learner(tmp_path)
    file = folder / "page_table.py"
    source = file.read_text(encoding="utf-8")
    part = merge.parts(source)["PageTable.reserve"]
    file.write_text(source.replace(part.text(source), ""), encoding="utf-8")
    (outcome,) = grade(folder, pool, "3.2")
    assert outcome.status == "missing" and "course reset 3.2" in outcome.hints[0]


def test_a_given_part_that_was_broken_is_named_and_not_held_against_an_exercise(pool: Pool, tmp_path: Path) -> None:
    folder = learner(tmp_path, done=("3.2",))
    file = folder / "page_table.py"
    source = file.read_text(encoding="utf-8")
    broken = "def take(self, n: int) -> list[int]:\n    return []\n"
    file.write_text(merge.replace(source, "PageTable.take", broken), encoding="utf-8")
    (outcome,) = grade(folder, pool, "3.2")
    assert outcome.passed and "PageTable.take" in outcome.note


def test_what_a_learner_added_stays(pool: Pool, tmp_path: Path) -> None:
    body = "return _grow(self, batch_idx, seq_len)"
    source = (REFERENCE / "page_table.py").read_text(encoding="utf-8")
    helper = merge.parts(source)["PageTable.reserve"].text(source).replace("def reserve(self", "def _grow(self")
    lines = [line[4:] if line.startswith("    ") else line for line in helper.splitlines()]
    folder = learner(tmp_path, code={"3.2": RESERVE.format(body)}, extra="\n\n" + "\n".join(lines) + "\n")
    (outcome,) = grade(folder, pool, "3.2")
    assert outcome.passed, card.text(outcome, verbose=True)


def test_functions_that_keep_their_own_books_pass_together(pool: Pool, tmp_path: Path) -> None:
    """Free slots in a set: the reference's `allocate` could not take one from it."""
    code = {
        "3.1": "def allocate(self) -> int:\n    if not (free := set(self.free_slots)):\n        raise RuntimeError('full')\n"
        "    slot = min(free)\n    self.free_slots = free - {slot}\n    return slot\n",
        "3.4": "def erase(self, batch_idx: int) -> None:\n    self._check_allocated(batch_idx)\n"
        "    self.drop(self.owned[batch_idx])\n"
        "    self.owned[batch_idx], self.capacity[batch_idx] = [], 0\n    self.page_table[batch_idx] = 0\n"
        "    self.free_slots = set(self.free_slots) | {batch_idx}\n",
    }
    for outcome in grade(learner(tmp_path, code=code), pool, "3.1", "3.4"):
        assert outcome.passed, card.text(outcome)


def test_the_stub_s_own_line_left_at_the_end_is_said_in_words(pool: Pool, tmp_path: Path) -> None:
    body = "missing = 1\n    raise NotImplementedError('Exercise 3.2: PageTable.reserve')"
    (outcome,) = grade(learner(tmp_path, code={"3.2": RESERVE.format(body)}), pool, "3.2")
    assert outcome.status == "not yet" and "still there" in outcome.hints[0]


def test_the_process_with_the_learner_s_code_knows_no_right_answer(pool: Pool, tmp_path: Path) -> None:
    body = (
        "import sys\n    found = [name for name in sys.modules if 'judge' in name or name.startswith('solutions')]\n"
        "    raise RuntimeError(repr(found))"
    )
    (outcome,) = grade(learner(tmp_path, code={"3.2": RESERVE.format(body)}), pool, "3.2")
    assert "RuntimeError: []" in outcome.got


def test_replacing_a_function_leaves_every_other_byte(tmp_path: Path) -> None:
    source = (
        "import os  \r\n\r\nclass A:\r\n    @property\r\n    def f(self):\r\n        return 1  # one\r\n    x = 2\t\r\n"
    )
    changed = merge.replace(source, "A.f", "@property\ndef f(self):\n    return 2\n")
    assert changed == source.replace("return 1  # one", "return 2")


GRADED = [one.number for module in grader.graded_modules() for one in merge.course_exercises() if one.module == module]
STATES = ("not started", "done", "wrong", "nothing")


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_half_finished_work_is_graded_without_blaming_the_wrong_exercise(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, pool: Pool
) -> None:
    """Whatever is done, wrong or missing: who is done passes, who is not is told so, and nothing else happens."""
    module = data.draw(st.sampled_from(grader.graded_modules()))
    numbers = [one.number for one in merge.course_exercises() if one.number in grader.judges(module)]
    states = {number: data.draw(st.sampled_from(STATES)) for number in numbers}
    done = tuple(number for number, state in states.items() if state == "done")
    code = {}
    for number, state in states.items():
        if state in ("wrong", "nothing"):
            source = (REFERENCE / exercise(number).file).read_text(encoding="utf-8")
            part = merge.parts(source)[exercise(number).name]
            head = part.text(source).split('"""')[0]
            code[number] = head + ("    return None\n" if state == "nothing" else "    raise ZeroDivisionError\n")
    folder = learner(tmp_path_factory.mktemp("half"), done=done, code={n: textual(c) for n, c in code.items()})
    with Grading(folder, REFERENCE, pool=pool) as grading:
        outcomes = list(grading.grade_all(grading.exercises(module)))
    for outcome in outcomes:
        right = {"not started": "not started", "done": "passed"}.get(states[outcome.number], "not yet")
        assert outcome.status == right, (
            f"{outcome.number} is {states[outcome.number]}:\n{card.text(outcome, verbose=True)}"
        )


def textual(code: str) -> str:
    """A method's text as a function of its own, body indented by four."""
    lines = code.splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    head = "\n".join(line[indent:] for line in lines[:-1])
    return f"{head}\n    {lines[-1].strip()}\n"


# ----------------------------------------------------------------------------------------------------- as a command


def pytest_on(module: str, *options: str, package_folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "FLEXNANO"}
    if package_folder is not None:
        environment["FLEXNANO"] = str(package_folder)
    return subprocess.run(
        [sys.executable, "-m", "pytest", f"tests/{module}", "--no-notebook", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_pytest_prints_cards_a_last_line_and_a_report(tmp_path: Path) -> None:
    folder = learner(tmp_path / "a", done=("3.1",), code={"3.2": RESERVE.format("return 1 / 0")})
    run = pytest_on(
        "module_03", "--report", str(tmp_path / "r.json"), f"--junitxml={tmp_path / 'r.xml'}", package_folder=folder
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "ZeroDivisionError" in run.stdout and "Traceback" not in run.stdout
    assert run.stdout.strip().splitlines()[-1].startswith("grades: ")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    statuses = {one["number"]: one["status"] for one in report["exercises"]}
    assert statuses["3.2"] == "not yet"
    assert "3.2 PageTable.reserve" in (tmp_path / "r.xml").read_text(encoding="utf-8")


def test_verbose_shows_the_traceback_and_hint_levels_say_more(tmp_path: Path) -> None:
    folder = learner(tmp_path / "a", code={"3.2": RESERVE.format("return 1 / 0")})
    assert "Traceback" in pytest_on("module_03", "-vv", package_folder=folder).stdout
    plain, more = (pytest_on("module_03", "--hint", level, package_folder=folder).stdout for level in ("1", "3"))
    assert "hint 3" not in plain and "hint 3" in more


def test_the_reference_as_a_package_folder_is_a_package(tmp_path: Path) -> None:
    assert (package(tmp_path, {}) / "__init__.py").is_file()
