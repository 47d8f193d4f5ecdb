"""Put the questions of a module to what a learner wrote."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..environment import ROOT
from ..exercises import Exercise
from . import checks, merge
from .card import Outcome
from .checks import Answer, Case, Check, is_raised
from .diagnose import Answered, diagnose
from .pool import Ended, Pool, Submission, TookTooLong

SECONDS = 30.0
"""Patience with one check."""


def tests_of(module: int, root: Path = ROOT) -> Path:
    return root / "tests" / f"module_{module:02d}"


def judges(module: int, root: Path = ROOT) -> dict[str, checks.Exercise]:
    """The graders of a module, by number.  Empty: the module has none yet."""
    path = tests_of(module, root) / "judge.py"
    if not path.is_file():
        return {}
    with _judges_lock:
        if path not in _judges:
            _judges[path] = _load_judges(
                path, f"judge_{module:02d}" if root == ROOT else f"judge_{module:02d}_{len(_judges)}"
            )
        return {n: one for n, one in _judges[path].items() if n.partition(".")[0] == str(module)}


_judges: dict[Path, dict[str, checks.Exercise]] = {}
_judges_lock = threading.Lock()


def _load_judges(path: Path, name: str) -> dict[str, checks.Exercise]:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    registry = checks.Exercise.registry
    before = dict(registry)
    registry.clear()
    try:
        spec.loader.exec_module(loaded)
        return dict(registry)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        found = dict(registry)
        registry.clear()
        registry.update(before | found)


def graded_modules(root: Path = ROOT) -> list[int]:
    """Modules that have graders."""
    return sorted(int(path.parent.name[-2:]) for path in (root / "tests").glob("module_*/judge.py"))


class Grading:
    """Grades one package.

    Args:
        package: the folder with the learner's files (a `flexnano`).
        reference: the folder that right neighbours come from; None: there is none (a class release), and a function that
            needs an unwritten one is "waiting" for it.
        seconds: patience with one check.
        workers: exercises graded at the same time; None: one a core, at most 4.
        pool: of another grading, to share its processes.
    """

    def __init__(
        self,
        package: Path,
        reference: Path | None = None,
        root: Path = ROOT,
        seconds: float = SECONDS,
        workers: int | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.root, self.package, self.seconds = root, package, seconds
        self.reference = reference
        self.workers = workers or max(1, min(4, os.cpu_count() or 1))
        self.all = merge.course_exercises(root)
        self.by_number = {exercise.number: exercise for exercise in self.all}
        self.sources: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.parts: dict[str, dict[str, merge.Part]] = {}
        for file in merge.files(root):
            self.sources[file], self.parts[file] = "", {}
            try:
                self.sources[file] = _read(package / file)
                self.parts[file] = merge.parts(self.sources[file])
            except SyntaxError as error:
                self.errors[file] = f"line {error.lineno}: {error.msg}"
            except UnicodeDecodeError as error:
                self.errors[file] = f"byte {error.start} is not UTF-8"
            except (ValueError, RecursionError, MemoryError) as error:  # null bytes; brackets in brackets without end
                self.errors[file] = str(error)
        self.solved = {(one.file, one.name) for one in self.all} if reference is not None else set()
        if reference is not None and reference != merge.reference_folder(root):
            self.solved -= _unsolved(reference, self.all)
        self._scratch = tempfile.TemporaryDirectory(prefix="flexnano-grading-", ignore_cleanup_errors=True)
        self._pool, self._owns_pool = pool or Pool(), pool is None

    def close(self) -> None:
        if self._owns_pool:
            self._pool.close()
        self._scratch.cleanup()

    def __enter__(self) -> Grading:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------ what is there

    def exercises(self, module: int) -> list[Exercise]:
        """The exercises of a module that have a grader."""
        graders = judges(module, self.root)
        return [exercise for exercise in self.all if exercise.module == module and exercise.number in graders]

    def is_started(self, exercise: Exercise) -> bool:
        """Whether the learner wrote something; also if the function is gone."""
        part = self.parts[exercise.file].get(exercise.name)
        return part is None or not merge.is_untouched(part.node, exercise.number)

    # ------------------------------------------------------------------ grading

    def grade_all(self, wanted: Iterable[Exercise]) -> Iterator[Outcome]:
        """Grade exercises side by side; outcomes come in the order asked for."""
        wanted = list(wanted)
        for module in {exercise.module for exercise in wanted}:
            judges(module, self.root)  # imported here, not by several threads at once
        with ThreadPoolExecutor(self.workers) as threads:
            futures = [threads.submit(self.grade, exercise) for exercise in wanted]
            try:
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()

    def grade(self, exercise: Exercise) -> Outcome:
        """Grade one exercise."""
        judge = judges(exercise.module, self.root)[exercise.number]
        outcome = _passed(exercise, judge)
        if (error := self.errors.get(exercise.file)) is not None:
            outcome.status = "unreadable"
            outcome.got = f"flexnano/{exercise.file} is not Python: {error}"
            outcome.hints = ["Python can't read the file. Is a bracket open, an indent off, a colon missing?"]
            return outcome
        if exercise.name not in self.parts[exercise.file]:
            outcome.status = "missing"
            outcome.got = f"flexnano/{exercise.file} has no {exercise.name} any more"
            outcome.hints = [f"`python -m course reset {exercise.number}` puts the stub back."]
            return outcome
        if not self.is_started(exercise):
            outcome.status = "not started"
            return outcome
        started = time.perf_counter()
        first: Outcome | None = None
        for number, (note, sources) in enumerate(self._attempts(exercise), start=1):
            attempt = self._attempt(exercise, judge, sources)
            attempt.attempt = number
            if attempt.passed:
                attempt.note, first = attempt.note or note, attempt
                break
            if first is None or (attempt.mistake and not first.mistake):
                first = attempt  # the card that can say what the mistake is
        assert first is not None
        first.seconds = round(time.perf_counter() - started, 2)
        return first

    def _attempts(self, exercise: Exercise) -> Iterator[tuple[str, dict[str, str]]]:
        """Packages to try the exercise in, until one is right: (what to tell if it is, sources by file)."""
        if self.reference is None:
            yield "", self.sources
            return
        # A teacher's catch-up holds the first modules only: what it leaves open stays the learner's.
        others = [
            other for other in self.all if other.number != exercise.number and (other.file, other.name) in self.solved
        ]
        tried: list[dict[str, str]] = []
        # Among right neighbours: what others got wrong can't be held against this one.
        alone = self._merged(exercise, {(other.file, other.name) for other in others})
        tried.append(alone)
        yield "", alone
        # Among the learner's own: a set of functions may agree on another way to keep the books.
        own = self._merged(exercise, {(other.file, other.name) for other in others if not self.is_started(other)})
        if own not in tried:
            tried.append(own)
            yield "", own
        # With the given parts as handed out.
        exercise_names = {(one.file, one.name) for one in self.all}
        given = {
            (file, name)
            for file in self.sources
            for name in merge.parts(_read(self.reference / file))
            if (file, name) in self.solved or (file, name) not in exercise_names
        } - {(exercise.file, exercise.name)}
        restored = self._merged(exercise, given)
        if restored not in tried:
            changed = ", ".join(self._changed_given())
            yield (
                f"graded with the given parts as handed out, since yours differ: {changed}"
                if changed
                else "graded with the given parts as handed out",
                restored,
            )

    def _changed_given(self) -> list[str]:
        """Given functions that the learner changed or lost."""
        exercise_names = {(exercise.file, exercise.name) for exercise in self.all}
        changed = []
        for file, source in self.sources.items():
            if file in self.errors:
                continue
            with merge.parsing:
                pristine = merge.pristine(file, self.root)
            for name, part in merge.parts(pristine).items():
                mine = self.parts[file].get(name)
                if (file, name) not in exercise_names and (mine is None or mine.text(source) != part.text(pristine)):
                    changed.append(name)
        return changed

    def _merged(self, graded: Exercise, names: set[tuple[str, str]]) -> dict[str, str]:
        assert self.reference is not None
        result = {}
        for file, source in self.sources.items():
            reference = _read(self.reference / file)
            if file == "__init__.py" or file in self.errors or not source.strip():
                result[file] = reference
                continue
            try:
                result[file] = merge.merged(source, reference, [name for f, name in sorted(names) if f == file])
                merge.must_compile(result[file])
            except (SyntaxError, ValueError):
                # The reference must never be graded as the learner's own.
                result[file] = source if file == graded.file else reference
        return result

    def _attempt(self, exercise: Exercise, judge: checks.Exercise, sources: dict[str, str]) -> Outcome:
        """Ask all checks of an exercise in one package."""
        outcome = _passed(exercise, judge)
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name)) / "flexnano"
        folder.mkdir()
        for file, source in sources.items():
            (folder / file).write_text(source, encoding="utf-8", newline="")
        with contextlib.ExitStack() as stack:
            try:
                submission = stack.enter_context(
                    self._pool.start(folder, tests_of(exercise.module, self.root) / "drive.py", judge.preload)
                )
            except Ended as ended:
                raise RuntimeError(f"the process for {exercise} did not start: {ended}") from ended
            results: dict[str, list[Answered]] = {}
            failed: tuple[Check, Answered] | None = None
            waiting: list[tuple[Check, Answered]] = []
            for check in judge.checks:
                results[check.name] = []
                try:
                    wrong = self._ask(check, submission, results[check.name])
                except (TookTooLong, Ended) as trouble:
                    return self._stopped(outcome, judge, check, results[check.name], trouble)
                if wrong is not None and self._needs_a_later_one(exercise, wrong.answer):
                    waiting.append((check, wrong))
                    del results[check.name]
                elif wrong is not None and failed is None:
                    failed = (check, wrong)
        if waiting and failed is None:
            needed = ", ".join(sorted({wrong.answer["needs"] for _, wrong in waiting}))
            if results:  # who works in order must be able to pass
                outcome.note = f"{len(waiting)} of {len(judge.checks)} checks wait for {needed}; grade it again then"
            else:
                failed = waiting[0]
        outcome.checks = len(judge.checks)
        outcome.checks_right = sum(all(one.right for one in answered) for answered in results.values())
        if failed is not None:
            self._fill(outcome, judge, *failed, results)
        return outcome

    def _needs_a_later_one(self, exercise: Exercise, answer: Answer) -> bool:
        """Whether an answer is that an exercise is not written that comes after this one (where there is no reference).

        What has a right neighbour is written: who says otherwise says it to get out of a question.
        """
        needed = self.by_number.get(answer["needs"]) if is_raised(answer) else None
        if needed is None or (needed.file, needed.name) in self.solved:
            return False
        return (needed.module, needed.index) > (exercise.module, exercise.index)

    def _ask(self, check: Check, submission: Submission, into: list[Answered]) -> Answered | None:
        """Put all cases of a check; the first wrong answer, or the smallest that a search finds."""
        until = time.monotonic() + self.seconds

        def ask(case: Case) -> Answered:
            try:
                answer = submission.ask(check.name, case, until)
            except (TookTooLong, Ended):
                into.append(Answered(case, None, None, False))
                raise
            expected = checks.plain(check.expected(case))
            return Answered(case, expected, answer, check.is_right(case, expected, answer))

        for case in check.all_cases():
            into.append(ask(case))
        wrong = next((one for one in into if not one.right), None)
        if wrong is not None or check.search is None:
            return wrong
        with merge.parsing:  # Hypothesis parses too
            until = time.monotonic() + self.seconds  # waiting for others' searches took none of the patience
            found = _search(check, ask)
        into.extend(found)
        return found[-1] if found else None

    def _stopped(
        self, outcome: Outcome, judge: checks.Exercise, check: Check, asked: list[Answered], trouble: Exception
    ) -> Outcome:
        outcome.status, outcome.check, outcome.stopped = "not yet", check.name, True
        outcome.checks = len(judge.checks)
        case = asked[-1].case if asked else None
        with contextlib.suppress(Exception):
            outcome.case = check.describe(case)
            outcome.expected = check.draw(case, checks.plain(check.expected(case)))
        if isinstance(trouble, TookTooLong):
            outcome.got = f"no answer within {self.seconds:.0f} s"
            outcome.hints = [
                "It did not end in time. Is there a loop whose condition never changes, or one over far too much?"
            ]
        else:
            reason = trouble.reason if isinstance(trouble, Ended) else ""
            outcome.got = "the process ended without an answer" + (f": {reason}" if reason else "")
            outcome.hints = ["It ended the whole process. Is there an exit(), or memory without bound?"]
        return outcome

    def _fill(
        self,
        outcome: Outcome,
        judge: checks.Exercise,
        check: Check,
        wrong: Answered,
        results: dict[str, list[Answered]],
    ) -> None:
        """Write the card of a wrong answer."""
        outcome.status, outcome.check = "not yet", check.name
        outcome.case = check.describe(wrong.case)
        outcome.expected = _draw(check, wrong.case, wrong.expected)
        outcome.got = _draw(check, wrong.case, wrong.answer)
        if is_raised(wrong.answer):
            answer = wrong.answer
            outcome.where, outcome.traceback = answer["where"], answer["traceback"]
            if answer["needs"] == outcome.number:
                outcome.hints = ["The line that the stub came with is still there, and your code reaches it."]
                return
            if answer["needs"]:
                needed = self.by_number.get(answer["needs"])
                outcome.status = "waiting"
                outcome.got = f"it needs {needed or answer['needs']}, which is not written yet"
                outcome.hints = [f"Write {answer['needs']} first; this one can't be judged before."]
                return
        mistake = diagnose(check, results)
        outcome.mistake = mistake.slug if mistake else ""
        outcome.hints = list(mistake.hints if mistake else judge.hints)


# ------------------------------------------------------------------------------------------------------- helpers


def _passed(exercise: Exercise, judge: checks.Exercise) -> Outcome:
    """The outcome from which all others are made."""
    return Outcome(exercise.number, exercise.name, exercise.file, exercise.minutes, "passed", section=judge.section)


def _read(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:  # line ends as they are
        return file.read()


def _unsolved(folder: Path, everything: list[Exercise]) -> set[tuple[str, str]]:
    """Exercises that the package in `folder` leaves open."""
    found = {file: merge.parts(_read(folder / file)) for file in {one.file for one in everything}}
    return {
        (one.file, one.name)
        for one in everything
        if (part := found[one.file].get(one.name)) is None or merge.is_untouched(part.node, one.number)
    }


def _draw(check: Check, case: Case, answer: Answer) -> str:
    if is_raised(answer):
        name, message = answer["raised"][0], answer["message"]
        message = message if len(message) <= 400 else message[:400] + " …"  # a message with a whole sequence in it
        if name == "NotUsable":
            return message
        if answer["in_course"]:
            return f"an answer that can't be used ({name}: {message})"
        return f"raises {name}" + (f": {message}" if message else "")
    if isinstance(answer, dict) and "raises" in answer:
        return checks.draw_plain(case, answer)
    try:
        return check.draw(case, answer)
    except Exception:  # a picture of the right answer may be impossible to draw of a wrong one
        return checks.draw_plain(case, answer)


def _search(check: Check, ask: Any) -> list[Answered]:
    """Random cases; the smallest wrong one that Hypothesis finds, alone in a list, or nothing."""
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis.errors import NoSuchExample

    trouble: list[BaseException] = []

    def is_wrong(case: Case) -> bool:
        try:
            return not ask(checks.plain(case)).right
        except (TookTooLong, Ended) as error:
            trouble.append(error)
            return False

    try:
        smallest = find(
            check.search,
            is_wrong,
            settings=settings(
                max_examples=50,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except NoSuchExample:
        if trouble:
            raise trouble[0] from None
        return []
    if trouble:
        raise trouble[0]
    return [ask(checks.plain(smallest))]
