"""Found, proved, mended: the three parts of a case, each with a card of its own.

    found    answer.toml names the file and the function with the bug
    proved   the test fails on the engine of the case, by an assertion, and on engines with the same bug written in other
             ways; it passes on healthy engines, whatever they look like
    mended   the engine passes checks that differ from the report's example, and nothing else got broken

Each engine and each test runs in a process of its own, with a limit of time.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import work
from ..console import CourseError
from ..environment import ROOT
from ..grading import checks, grader, merge
from ..grading.card import Outcome
from ..grading.pool import Ended, Pool, TookTooLong
from . import folder as folders
from .case import Case, edited
from .folder import Folder
from .store import Store, load

MODULE = 11
PARTS = ("found", "proved", "mended")
MINUTES = {"found": 20, "proved": 20, "mended": 10}
SECONDS = 60.0
"""Patience with the tests on one engine, and with one check of a mended engine."""

WITNESS = Path(__file__).with_name("witness.py")
PYTEST_INI = "[pytest]\naddopts =\nfilterwarnings = ignore\n"


Ask = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Trial:
    """One engine that a test is tried on, in the words of the card."""

    where: str
    sources: Mapping[str, str]
    healthy: bool
    is_another_way: bool = False  # to write the engine, or its bug


@dataclass
class Ran:
    """What the tests did on one engine."""

    trouble: str = ""  # they could not be run at all
    endless: bool = False
    tests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [one for one in self.tests if one["outcome"] == "failed"]

    @property
    def passed(self) -> list[dict[str, Any]]:
        return [one for one in self.tests if one["outcome"] == "passed"]

    @property
    def looked(self) -> str:
        """The first test that read the engine's source."""
        return next((one["name"] for one in self.tests if one["looked"]), "")


class Clinic:
    """Grades the cases of one learner.

    Args:
        root: the course.
        home: where the folders of the cases are; None: clinic/ in the course.
        store: the cases; None: those of the course.
        seconds: patience with the tests on one engine, and with one check.
        pool: of another grading, to share its processes.
    """

    def __init__(
        self,
        root: Path = ROOT,
        home: Path | None = None,
        store: Store | None = None,
        seconds: float = SECONDS,
        pool: Pool | None = None,
    ) -> None:
        self.root, self.home, self.seconds = root, home, seconds
        self.store = store or load(root)
        self.judges = grader.judges(MODULE, root)
        self._scratch = tempfile.TemporaryDirectory(prefix="flexnano-clinic-", ignore_cleanup_errors=True)
        self._pool, self._owns_pool = pool, pool is None

    def close(self) -> None:
        if self._pool is not None and self._owns_pool:
            self._pool.close()
        self._scratch.cleanup()

    def __enter__(self) -> Clinic:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------ all three parts

    def grade_all(self, cases: Iterable[Case]) -> Iterator[Outcome]:
        """Three outcomes for each case, as they come."""
        for case in cases:
            yield from self.grade(case)

    def grade(self, case: Case) -> list[Outcome]:
        """The three parts of one case."""
        folder = folders.folder_of(case, self.home, self.root)
        outcomes = [self._blank(case, part) for part in PARTS]
        if not folder.is_open:
            return outcomes
        self._found(outcomes[0], case, folder)
        self._proved(outcomes[1], case, folder)
        self._mended(outcomes[2], case, folder, tests_count=outcomes[1].passed)
        for outcome in outcomes:
            if outcome.passed:
                outcome.case = outcome.section = ""
                outcome.hints = []
        if all(outcome.passed for outcome in outcomes):
            said = textwrap.wrap(f"The published bug: {case.published}.", 84)
            outcomes[-1].note = "\n".join([*said, case.address])
        if self.home is None:
            remember(case, folder, outcomes, self.root)
        return outcomes

    def _blank(self, case: Case, part: str) -> Outcome:
        judge = self.judges[f"{MODULE}.{case.number}"]
        return Outcome(
            number=f"{MODULE}.{case.number}",
            name=f"{part}: {judge.section}",
            file=f"clinic/case_{case.number}",
            minutes=MINUTES[part],
            status="not started",
            section=judge.section,
            check=part,
        )

    # ------------------------------------------------------------------ found

    def _found(self, outcome: Outcome, case: Case, folder: Folder) -> None:
        outcome.case, outcome.hints = f"case_{case.number}/{folders.ANSWER}", list(case.hints)
        try:
            answer = folder.answer()
        except ValueError as error:
            outcome.status, outcome.got = "unreadable", f"{folders.ANSWER} is not TOML: {error}"
            outcome.hints = ['Two lines: file = "scheduler.py" and function = "Scheduler.grow".']
            return
        file, function = _file_name(answer["file"]), _function_name(answer["function"])
        if not file and not function:
            return
        right_function = function in (case.function, case.function.rpartition(".")[2])
        if file == case.file and right_function:
            outcome.status = "passed"
            return
        outcome.status = "not yet"
        outcome.expected = "the file and the function with the bug"
        outcome.got = f"{file or 'no file'}, {function or 'no function'}"
        outcome.where = self._about_the_answer(case, file, function)

    @staticmethod
    def _about_the_answer(case: Case, file: str, function: str) -> str:
        """What is true of a wrong answer without telling the right one."""
        if file == case.file:
            return "The file is right, the function is not." if function else "The file is right. Which function?"
        return "It is not there, or not named as it is in flexnano/." if file else "Which file?"

    # ------------------------------------------------------------------ proved

    def _proved(self, outcome: Outcome, case: Case, folder: Folder) -> None:
        test = folder.read(folders.TEST)
        outcome.case = f"case_{case.number}/{folders.TEST}"
        if not test.strip() or _same_code(test, folders.test_text(case)):
            return
        try:
            compile(test, folders.TEST, "exec")
        except (SyntaxError, ValueError) as error:
            outcome.status, outcome.got = "unreadable", f"{folders.TEST} is not Python: {error}"
            outcome.hints = ["Python can't read the file. Is a bracket open, an indent off, a colon missing?"]
            return
        for trial in self._trials(case):
            ran = self._run(trial.sources, folder)
            if (verdict := judged(trial, ran, self.seconds)) is not None:
                outcome.status, outcome.stopped = "not yet", ran.endless
                outcome.case = f"case_{case.number}/{folders.TEST} on {trial.where}"
                outcome.expected, outcome.got, hint = verdict
                outcome.hints = [hint, *PROVED_HINTS]
                return
        outcome.status = "passed"

    def _trials(self, case: Case) -> Iterator[Trial]:
        """The engines that a test is tried on, the plainest first."""
        healthy = self.store.healthy
        yield Trial("a healthy engine", healthy, True)
        yield Trial("the engine of this case, as it was handed out", edited(healthy, case.bugs[0]), False)
        for twin in case.twins:
            yield Trial("a healthy engine that is written in another way", edited(healthy, twin), True, True)
        for bug in case.bugs[1:]:
            yield Trial("an engine with the same bug, written in another way", edited(healthy, bug), False, True)

    def _run(self, sources: Mapping[str, str], folder: Folder) -> Ran:
        """Run the learner's tests on an engine."""
        engine = self._engine(sources)
        place = engine.parent
        for name, text in folder.helpers().items():
            (place / name).write_text(text, encoding="utf-8")
        (place / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
        try:
            with self._process(engine, WITNESS) as ask:
                answer = ask("tests", {"folder": str(place), "file": folders.TEST})
        except TookTooLong:
            return Ran(endless=True)
        except Ended as ended:
            return Ran(trouble=f"the process ended in the middle of it {ended.reason}".rstrip())
        if checks.is_raised(answer):
            return Ran(trouble=f"{answer['raised'][0]}: {answer['message']}")
        return Ran(answer["trouble"], tests=answer["tests"])

    # ------------------------------------------------------------------ mended

    def _mended(self, outcome: Outcome, case: Case, folder: Folder, tests_count: bool) -> None:
        engine = folder.engine()
        outcome.case = f"case_{case.number}/flexnano"
        if folder.is_untouched:
            return
        outcome.status = "not yet"
        for name, text in engine.items():
            try:
                compile(text, name, "exec")
            except (SyntaxError, ValueError) as error:
                outcome.status, outcome.got = "unreadable", f"flexnano/{name} is not Python: {error}"
                outcome.hints = ["Python can't read the file. Is a bracket open, an indent off, a colon missing?"]
                return
        if "__init__.py" not in engine:
            outcome.expected, outcome.got = "a package", f"{folder.path.name}/flexnano has no __init__.py"
            outcome.hints = [f"Delete the folder, and `python -m course clinic {case.number}` writes it anew."]
            return
        judge = self.judges[outcome.number]
        outcome.hints = list(judge.hints)
        outcome.checks = len(judge.checks)
        written = self._engine(engine)
        for check in judge.checks:
            if not self._passes(check, written, judge, outcome):
                return
            outcome.checks_right += 1
        if tests_count and (failed := self._run(engine, folder).failed):
            outcome.case = "your own test on your engine"
            outcome.expected, outcome.got = "passes", _said(failed[0])
            outcome.hints = ["Your test sees the bug still. Is what it asserts true of your engine?"]
            return
        outcome.status = "passed"

    def _passes(self, check: checks.Check, engine: Path, judge: checks.Exercise, outcome: Outcome) -> bool:
        """Put all cases of a check to a mended engine; the first wrong one goes into the outcome."""
        drive, case = grader.tests_of(MODULE, self.root) / "drive.py", None
        try:
            with self._process(engine, drive, judge.preload) as ask:
                for case in check.all_cases():
                    expected, answer = checks.plain(check.expected(case)), ask(check.name, case)
                    if not check.is_right(case, expected, answer):
                        outcome.case = check.describe(case)
                        outcome.expected, outcome.got = check.draw(case, expected), _drawn(check, case, answer)
                        if checks.is_raised(answer):
                            outcome.where, outcome.traceback = answer.get("where", ""), answer.get("traceback", "")
                        return False
        except (TookTooLong, Ended) as trouble:
            outcome.case = check.describe(case) if case is not None else outcome.case
            outcome.expected, outcome.stopped = "an answer", True
            outcome.got = "the process ended" if isinstance(trouble, Ended) else f"none in {self.seconds:.0f} s"
            outcome.hints = ["What is it waiting for, and what will be different in the next round?", *judge.hints[1:]]
            return False
        return True

    # ------------------------------------------------------------------ processes

    def _engine(self, sources: Mapping[str, str]) -> Path:
        """An engine in a folder of its own."""
        engine = Path(tempfile.mkdtemp(dir=self._scratch.name)) / "flexnano"
        for name, text in sources.items():
            (engine / name).parent.mkdir(parents=True, exist_ok=True)
            (engine / name).write_text(text, encoding="utf-8")
        return engine

    @contextlib.contextmanager
    def _process(self, engine: Path, drive: Path, preload: Iterable[str] = ()) -> Iterator[Ask]:
        """A process with that engine: (name of a function in the drive, case) -> its answer.

        Raises:
            TookTooLong, Ended: from the start, and from asking.
        """
        if self._pool is None:
            self._pool = Pool()
        needed = ["pytest", *preload, *next(iter(self.judges.values())).preload]
        with self._pool.start(engine, drive, list(dict.fromkeys(needed))) as submission:
            until = time.monotonic() + self.seconds
            yield lambda name, case: submission.ask(name, checks.plain(case), until)


# ------------------------------------------------------------------------------------------------ what a test proves

PROVED_HINTS = (
    "Write down what the user sees as one assertion, with the numbers of reproduce.py; then make it smaller.",
    "The test needs three parts: an engine in the state in which the bug shows, one thing done to it, and an assertion on "
    "something that a caller can see (tokens, pages, events, text) or a rule that always holds.",
)
ENDLESS = (
    "A test that hangs tells nobody anything. Give it a number of steps, `for _ in range(100): engine.run_one_step()`, and "
    "assert what must be true after them."
)
NOT_RUN = "The tests were not run at all. `pytest` in the folder of the case shows the same."
NO_TEST = "A test is a function whose name begins with `test_`."
SKIPPED = "A test that is skipped proves nothing."
READS_SOURCE = (
    "Whoever mends the engine in other words fails such a test, and whoever breaks it in other words passes. Test what the "
    "engine does."
)
ALWAYS_FAILS = (
    "It fails without the bug as well. Is what it asserts true of a right engine? Compare with `plain_tokens`."
)
ONE_WAY_TO_WRITE = "It holds a healthy engine to one way of writing it. Assert only what every right engine must do."
NO_ASSERTION = (
    "It fails, but not because something that was asserted is wrong. An exception may have many reasons: let the test get as "
    "far as the symptom, and assert on that."
)
SEES_NOTHING = (
    "The bug is there and the test does not see it. Does it do what reproduce.py does, with more than one request, or for "
    "long enough?"
)
ONE_SPELLING = (
    "It sees one way to write the bug and not the others. Assert on what the user sees, or on the rule that is broken."
)


def judged(trial: Trial, ran: Ran, seconds: float) -> tuple[str, str, str] | None:
    """(expected, got, hint) where the tests do not do what they must on an engine; None: they do."""
    expected = "all tests pass" if trial.healthy else "a test fails, by an assertion"
    if ran.endless:
        return expected, f"no end in {seconds:.0f} s", ENDLESS
    if ran.trouble:
        return expected, ran.trouble, NOT_RUN
    if not ran.tests:
        return expected, "there is no test", NO_TEST
    if ran.looked:
        return expected, f"{ran.looked} reads the source of the engine", READS_SOURCE
    verdict = _on_a_healthy_one(trial, ran) if trial.healthy else _on_a_broken_one(trial, ran)
    return None if verdict is None else (expected, *verdict)


def _on_a_healthy_one(trial: Trial, ran: Ran) -> tuple[str, str] | None:
    if ran.failed:
        return _said(ran.failed[0]), ONE_WAY_TO_WRITE if trial.is_another_way else ALWAYS_FAILS
    return None if ran.passed else ("all tests are skipped", SKIPPED)


def _on_a_broken_one(trial: Trial, ran: Ran) -> tuple[str, str] | None:
    asserted = [one for one in ran.failed if one["kind"] == "assertion"]
    if asserted or (trial.is_another_way and ran.failed):
        return None
    if ran.failed:
        return _said(ran.failed[0]), NO_ASSERTION
    n = len(ran.passed)
    return (
        "the test passes" if n == 1 else f"all {n} tests pass",
        ONE_SPELLING if trial.is_another_way else SEES_NOTHING,
    )


def _said(test: dict[str, Any]) -> str:
    """A failed test in a line."""
    first = next((line for line in test["message"].splitlines() if line.strip()), "")
    kind = "" if test["kind"] == "assertion" else f"{test['kind']}: "
    return f"{test['name']} fails: {kind}{first}".strip().removesuffix(":")


def _drawn(check: checks.Check, case: Any, answer: Any) -> str:
    try:
        return check.draw(case, answer)
    except Exception:  # an answer of a shape that nobody thought of
        return checks.draw_plain(case, answer)


def _file_name(text: str) -> str:
    name = text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"{name}.py" if name and "." not in name else name


def _function_name(text: str) -> str:
    """
    >>> _function_name("def grow(self)"), _function_name("Scheduler.grow()")
    ('grow', 'Scheduler.grow')
    """
    return text.removeprefix("def ").partition("(")[0].strip()


def _same_code(one: str, other: str) -> bool:
    return "".join(one.split()) == "".join(other.split())


# ------------------------------------------------------------------------------------------------ what was graded


def _memory(root: Path) -> Path:
    return root / ".course" / "clinic.json"


def remembered(root: Path = ROOT) -> dict[str, Any]:
    """The last grades, by case: {"3": {"of": hash of the folder, "parts": {"found": "passed", …}}}."""
    try:
        known = json.loads(_memory(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(case: Case, folder: Folder, outcomes: list[Outcome], root: Path = ROOT) -> None:
    """Keep how a case came out, until something in its folder changes."""
    known = remembered(root)
    parts = {part: outcome.status for part, outcome in zip(PARTS, outcomes, strict=True)}
    known[str(case.number)] = {"of": state_of(folder), "parts": parts}
    work.write(_memory(root), json.dumps(known, indent=1) + "\n")


def state_of(folder: Folder) -> str:
    """A hash of what a learner can change."""
    return folders.hash_of({**folder.engine(), **folder.helpers(), folders.ANSWER: folder.read(folders.ANSWER)})


# ------------------------------------------------------------------------------------------------ the course's answers


def model_home(home: Path, store: Store, root: Path = ROOT) -> Path:
    """Folders with the answers that the course keeps: what `--solutions` grades.

    Raises:
        CourseError: this copy has none.
    """
    kept = root / "tests" / "course" / "clinic_answers"
    if not kept.is_dir() or merge.reference_folder(root) is None:
        raise CourseError(f"{work.NO_REFERENCE}, and so no answers to the clinic.")
    for case in store.graded:
        folder = folders.folder_of(case, home, root)
        folders.open_case(case, store, folder, root)
        work.write(folder.path / folders.TEST, (kept / f"case_{case.number}.py").read_text(encoding="utf-8"))
        work.write(folder.path / folders.ANSWER, f'file = "{case.file}"\nfunction = "{case.function}"\n')
        for name, text in store.healthy.items():
            work.write(folder.path / "flexnano" / name, text)
    return home
