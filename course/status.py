"""Where a learner stands: real grades, remembered until something that they depend on changes.

`results` and `passed_exercises` are for other parts of the course: without torch, and in a blink when nothing has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import work
from .console import can_redraw, duration, paint, say, width
from .environment import ROOT
from .exercises import Exercise
from .grading import card, merge
from .grading.card import Outcome

if TYPE_CHECKING:
    from .grading.grader import Grading
    from .grading.pool import Pool

FORMAT = 1
MOST_KEPT = 800  # outcomes in the file

TITLES = {
    0: "first look",
    1: "masks",
    2: "FlexAttention in Qwen3",
    3: "page table",
    4: "paged KV cache",
    5: "scheduler",
    6: "the engine",
    7: "making it fast",
    8: "homework: prefix sharing",
    9: "homework: sliding window",
    10: "homework: prefill + decode fusion",
    11: "homework: the bug clinic",
}
ENGINE_MODULES = range(1, 7)  # with these the engine runs


# ------------------------------------------------------------------------------------------------------------ results


def results(
    root: Path = ROOT,
    *,
    package: Path | None = None,
    upto: int | None = None,
    grade: bool = True,
    pool: Pool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """How every exercise stands, in the order of the course.

    Args:
        package: the folder that is graded; None: FLEXNANO if that is set, else flexnano/.
        upto: the last module that matters; None: all.
        grade: False: only what is known already, and nothing runs; exercises that are not known are left out.
        pool: processes to grade with, of another grading.
        progress: called with how many of those that must be graded are done, and how many there are.

    An exercise without a grader is "not started", or "no grader" once something is written there.
    """
    package = package or merge.package_folder(root)
    memory = Memory(root)
    snapshot = _snapshot(root, package)
    latest = memory.latest(snapshot)
    if latest is not None:
        return [one for one in latest if upto is None or _module(one) <= upto]
    from .grading.grader import Grading

    found: dict[str, Outcome] = {}
    with Grading(package, work.neighbours(root), root, pool=pool) as grading:
        keys = Keys(grading)
        everything = [one for one in grading.all if upto is None or one.module <= upto]
        todo: list[Exercise] = []
        for exercise in everything:
            known = memory.find(keys, exercise)
            if known is not None:
                found[exercise.number] = known
                continue
            graded = memory.graded(exercise.module, keys.tests(exercise.module), root, look=grade)
            if graded is None or exercise.number in graded:
                todo.append(exercise)
            else:
                found[exercise.number] = _ungraded(grading, exercise)
        if grade and todo:
            if progress is not None:
                progress(0, len(todo))
            for n, outcome in enumerate(grading.grade_all(todo), start=1):
                found[outcome.number] = outcome
                memory.keep(keys, outcome)
                if progress is not None:
                    progress(n, len(todo))
    ordered = [found[one.number] for one in everything if one.number in found]
    if upto is None and len(ordered) == len(everything) and not any(one.stopped for one in ordered):
        memory.keep_latest(snapshot, ordered)
    memory.write()
    return ordered


def passed_exercises(root: Path = ROOT, *, package: Path | None = None, grade: bool = True) -> set[str]:
    """Numbers of the exercises that pass.  With `grade=False` those that are known to, without running anything."""
    return {one.number for one in results(root, package=package, grade=grade) if one.passed}


def remember(grading: Grading, outcomes: Iterable[Outcome]) -> None:
    """Keep what a grading found, so that `status` need not find it again.  Never fails."""
    try:
        memory, keys = Memory(grading.root), Keys(grading)
        for outcome in outcomes:
            memory.keep(keys, outcome)
        memory.write()
    except OSError:  # a full disk or a folder that can't be written to: it will be graded again
        pass


def _module(outcome: Outcome) -> int:
    return int(outcome.number.partition(".")[0])


def _ungraded(grading: Grading, exercise: Exercise) -> Outcome:
    outcome = Outcome(exercise.number, exercise.name, exercise.file, exercise.minutes, "not started")
    if (error := grading.errors.get(exercise.file)) is not None:
        outcome.status, outcome.got = "unreadable", f"flexnano/{exercise.file} is not Python: {error}"
    elif exercise.name not in grading.parts[exercise.file]:
        outcome.status, outcome.got = "missing", f"flexnano/{exercise.file} has no {exercise.name} any more"
    elif grading.is_started(exercise):
        outcome.status = "no grader"
    return outcome


# -------------------------------------------------------------------------------------------- what an outcome depends on


def _hash(*pieces: str | bytes) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        data = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]


def _versions() -> str:
    from importlib import metadata

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "none"
    return f"{FORMAT} {torch} {sys.version_info[:2]}"


def _contents(folder: Path, pattern: str = "*.py") -> str:
    """A hash of the files in a folder."""
    files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    return _hash(*(piece for path in files for piece in (path.relative_to(folder).as_posix(), path.read_bytes())))


def _course(root: Path) -> str:
    """Everything but the learner's files and the graders: tooling, reference or what was handed out."""
    neighbours = work.neighbours(root)
    return _hash(
        _versions(),
        _contents(Path(__file__).parent / "grading"),
        _contents(Path(__file__).parent),
        _contents(neighbours) if neighbours is not None else "",
        _contents(root / "course" / "pristine"),
    )


def _snapshot(root: Path, package: Path) -> str:
    """A hash of all that any outcome depends on."""
    return _hash(_course(root), _contents(package), _contents(root / "tests", "module_*/*.py"))


class Keys:
    """For each exercise the hash of what its outcome depends on.

    An exercise that passes among right neighbours depends on its own text and on what surrounds the exercises (given parts,
    helpers, imports), so that work on another exercise leaves it alone.  Any other outcome depends on every file.
    """

    def __init__(self, grading: Grading) -> None:
        self._grading = grading
        self._course = _course(grading.root)
        self._around = _hash(*(piece for file in sorted(grading.sources) for piece in (file, self._rest(file))))
        self._all = _hash(*(piece for file in sorted(grading.sources) for piece in (file, grading.sources[file])))
        self._tests: dict[int, str] = {}

    def _rest(self, file: str) -> str:
        source, parts = self._grading.sources[file], self._grading.parts[file]
        lines = merge.lines_of(source)
        for name, part in parts.items():
            if (file, name) in self._grading.solved:
                lines[part.begin : part.end] = ["\0"] * (part.end - part.begin)
        return "".join(line for line in lines if line != "\0")

    def alone(self, exercise: Exercise) -> str:
        """Of the exercise among right neighbours."""
        source = self._grading.sources[exercise.file]
        part = self._grading.parts[exercise.file].get(exercise.name)
        own = part.text(source) if part is not None else ""
        return _hash(exercise.number, self._course, self.tests(exercise.module), self._around, own)

    def tests(self, module: int) -> str:
        """Of the graders of a module."""
        if module not in self._tests:
            self._tests[module] = _contents(self._grading.root / "tests" / f"module_{module:02d}")
        return self._tests[module]

    def among_all(self, exercise: Exercise) -> str:
        """Of the exercise with everything that the learner wrote."""
        return _hash(self.alone(exercise), self._all)

    def of(self, outcome: Outcome) -> str:
        """Of what this outcome depends on."""
        exercise = self._grading.by_number[outcome.number]
        alone = outcome.status == "not started" or (outcome.passed and outcome.attempt == 1)
        strict = self._grading.reference is None
        return self.alone(exercise) if alone and not strict else self.among_all(exercise)


class Memory:
    """`.course/grades.json`."""

    def __init__(self, root: Path = ROOT) -> None:
        self.path = root / ".course" / "grades.json"
        self._new: dict[str, dict[str, Any]] = {}
        self._latest: dict[str, Any] | None = None
        self._graded: dict[int, list[Any]] = {}
        self._changed = False
        self._read = self._load()

    def _load(self) -> dict[str, Any]:
        try:
            read = json.loads(self.path.read_text(encoding="utf-8"))
            if read["format"] == FORMAT and isinstance(read["known"], dict):
                return read  # type: ignore[no-any-return]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {"format": FORMAT, "known": {}, "latest": {}}

    def find(self, keys: Keys, exercise: Exercise) -> Outcome | None:
        for key in (keys.alone(exercise), keys.among_all(exercise)):
            if (found := _outcome(self._read["known"].get(key))) is not None:
                self._new[key] = found.as_dict()  # used: kept longest
                return found
        return None

    def keep(self, keys: Keys, outcome: Outcome) -> None:
        if not outcome.stopped:
            self._new[keys.of(outcome)] = outcome.as_dict()
            self._changed = True

    def graded(self, module: int, tests: str, root: Path, look: bool) -> list[str] | None:
        """The exercises of a module that have a grader.  Known without importing the graders if they have not changed.

        Args:
            look: False: None if it is not known.
        """
        read = self._read.get("graded")
        known = read.get(str(module)) if isinstance(read, dict) else None
        if module not in self._graded and isinstance(known, list) and len(known) == 2 and known[0] == tests:
            self._graded[module] = known
        if module not in self._graded and look:
            from .grading import grader

            self._graded[module] = [tests, sorted(grader.judges(module, root))]
            self._changed = True
        return self._graded[module][1] if module in self._graded else None

    def latest(self, snapshot: str) -> list[Outcome] | None:
        """All outcomes, if nothing has changed since they were kept."""
        latest = self._read.get("latest")
        if not isinstance(latest, dict) or latest.get("snapshot") != snapshot:
            return None
        outcomes = [_outcome(one) for one in latest.get("outcomes", ())]
        found = [one for one in outcomes if one is not None]
        return found if found and len(found) == len(outcomes) else None

    def keep_latest(self, snapshot: str, outcomes: Sequence[Outcome]) -> None:
        self._latest = {"snapshot": snapshot, "outcomes": [one.as_dict() for one in outcomes]}
        self._changed = True

    def write(self) -> None:
        """Add what is new.  A folder that can't be written to costs time, nothing else."""
        if not self._changed:
            return
        now = self._load()  # another process may have added something
        known = {key: value for key, value in now["known"].items() if key not in self._new} | self._new
        now["known"] = dict(list(known.items())[-MOST_KEPT:])
        graded = now.get("graded")
        now["graded"] = {
            **(graded if isinstance(graded, dict) else {}),
            **{str(n): one for n, one in self._graded.items()},
        }
        if self._latest is not None:
            now["latest"] = self._latest
        with contextlib.suppress(OSError):
            work.write(self.path, json.dumps(now, ensure_ascii=False))


_FIELDS = {one.name for one in fields(Outcome)}


def _outcome(read: Any) -> Outcome | None:
    if not isinstance(read, dict):
        return None
    try:
        return Outcome(**{name: value for name, value in read.items() if name in _FIELDS})
    except TypeError:
        return None


# ------------------------------------------------------------------------------------------------------ what is shown


def document(root: Path, outcomes: Sequence[Outcome], speed: dict[str, Any] | None) -> dict[str, Any]:
    """Everything that `status` shows, as plain data."""
    stars = {one.number: one.stars for one in merge.course_exercises(root)}
    modules = []
    for number in modules_of(outcomes, root):
        own = [one for one in outcomes if _module(one) == number]
        modules.append(
            {
                "module": number,
                "title": TITLES.get(number, ""),
                "passed": sum(one.passed for one in own),
                "of": len(own),
                "minutes_left": minutes_left(own),
                "exercises": [
                    {
                        "number": one.number,
                        "name": one.name,
                        "file": f"flexnano/{one.file}",
                        "stars": stars.get(one.number, 0),
                        "minutes": one.minutes,
                        "status": one.status,
                        "mistake": one.mistake,
                    }
                    for one in own
                ],
            }
        )
    ahead = next_one(outcomes)
    return {
        "format": FORMAT,
        "passed": sum(one.passed for one in outcomes),
        "of": len(outcomes),
        "minutes_left": minutes_left(outcomes),
        "next": None
        if ahead is None
        else {"number": ahead.number, "name": ahead.name, "file": f"flexnano/{ahead.file}"},
        "modules": modules,
        "tokens_per_second": speed,
    }


def modules_of(outcomes: Sequence[Outcome], root: Path) -> list[int]:
    """Modules that this copy of the course has something for."""
    found = {_module(one) for one in outcomes}
    for folder in (root / "tests").glob("module_*"):
        if (number := folder.name.removeprefix("module_")).isdigit() and any(folder.glob("*.py")):
            found.add(int(number))
    return sorted(found)


def minutes_left(outcomes: Iterable[Outcome]) -> int:
    """By the minutes that stand on the exercises."""
    return sum(one.minutes for one in outcomes if not one.passed and one.status != "no grader")


def next_one(outcomes: Sequence[Outcome]) -> Outcome | None:
    """What to do next: what was begun in the earliest module that has gaps, else its first gap."""
    gaps = [one for one in outcomes if not one.passed and one.status != "no grader"]
    if not gaps:
        return None
    module = _module(gaps[0])
    begun = [one for one in gaps if _module(one) == module and one.status not in ("not started", "waiting")]
    return (begun or gaps)[0]


MARKS = {"passed": "■", "not yet": "x", "not started": "·", "waiting": "…", "no grader": "?"}
COLOURS = {"passed": "green", "not yet": "red", "waiting": "yellow", "missing": "red", "unreadable": "red"}


def table(root: Path, outcomes: Sequence[Outcome], everything: bool = False) -> list[str]:
    """A line a module; its exercises below it where work is going on."""
    ahead = next_one(outcomes)
    lines = []
    for number in modules_of(outcomes, root):
        own = [one for one in outcomes if _module(one) == number]
        lines.append(_module_line(number, own))
        begun = any(one.status != "not started" for one in own) and not all(one.passed for one in own)
        here = ahead is not None and _module(ahead) == number
        if everything or begun or here:
            lines += [_exercise_line(one, one is ahead) for one in own]
    return lines


def _module_line(number: int, own: Sequence[Outcome]) -> str:
    title = f"{number:02d}  {TITLES.get(number, '')}"
    if not own:
        how = "python -m course check" if number == 0 else f"pytest tests/module_{number:02d}"
        return f"{title:<38} {how}"
    strip = "".join(paint(MARKS.get(one.status, "x"), COLOURS.get(one.status, "")) for one in own)
    done, left = sum(one.passed for one in own), minutes_left(own)
    text = f"{done} of {len(own)}"
    return f"{title:<38} {strip}{' ' * max(0, 12 - len(own))}  " + (f"{text:<9} {minutes(left)} left" if left else text)


def _exercise_line(one: Outcome, is_next: bool) -> str:
    said = paint(card.SAY[one.status], COLOURS.get(one.status, ""))
    left = f"{one.minutes} min" if one.status == "not started" else ""
    mark = "→" if is_next else " "
    return f"  {mark} {one.number:<5} {one.name:<42} {said}{'  ' + left if left else ''}".rstrip()


def minutes(n: int) -> str:
    """
    >>> minutes(45), minutes(60), minutes(135)
    ('45 min', '1 h', '2 h 15 min')
    """
    hours, rest = divmod(n, 60)
    return " ".join(
        text for text in (f"{hours} h" if hours else "", f"{rest} min" if rest or not hours else "") if text
    )


def last_lines(outcomes: Sequence[Outcome]) -> list[str]:
    counts = Counter(one.status for one in outcomes)
    lines = [f"{counts['passed']} of {len(outcomes)} exercises pass"]
    if (left := minutes_left(outcomes)) > 0:
        lines[0] += f", {minutes(left)} left by the minutes on the exercises"
    if (ahead := next_one(outcomes)) is not None:
        lines.append(f"next: {ahead.number} {ahead.name} in flexnano/{ahead.file}")
        if ahead.status == "not started":
            lines.append(f"      open the file, write it, then: python -m course grade {ahead.number}")
        else:
            lines.append(f"      {card.SAY[ahead.status]}; what is wrong: python -m course grade {ahead.number}")
    return lines


def show(root: Path = ROOT, *, as_json: bool = False, everything: bool = False, with_speed: bool = True) -> int:
    """The command `status`."""
    outcomes = results(root, progress=None if as_json else _counter())
    speed = None
    if with_speed and engine_passes(outcomes):
        from . import speed as measuring

        speed = measuring.speeds(root, merge.package_folder(root), say_what=None if as_json else say)
    if as_json:
        print(json.dumps(document(root, outcomes, speed), indent=1, ensure_ascii=False))
        return 0
    for line in table(root, outcomes, everything):
        say(line)
    say()
    for line in last_lines(outcomes):
        say(line)
    for line in speed_lines(speed):
        say(line)
    return 0


def engine_passes(outcomes: Sequence[Outcome]) -> bool:
    """Whether the learner's own engine is complete: all of modules 01 to 06, each graded and passed."""
    own = [one for one in outcomes if _module(one) in ENGINE_MODULES]
    return any(_module(one) == max(ENGINE_MODULES) for one in own) and all(one.passed for one in own)


def speed_lines(speed: dict[str, Any] | None) -> list[str]:
    """Tokens a second as bars."""
    if speed is None:
        return []
    if "absent" in speed:
        return ["", f"tokens/s: {speed['absent']}"]
    names = {"own": "your engine", "reference": "the reference", "transformers": "transformers generate"}
    rows = [(label, speed[name]) for name, label in names.items() if name in speed]
    top = max((row["tokens_per_second"] for _, row in rows if "tokens_per_second" in row), default=1.0)
    lines = ["", f"tokens/s on {speed['model']}: {speed['workload']}; {speed['machine']}"]
    room = max(10, min(40, width() - 50))
    for label, row in rows:
        if "error" in row:
            lines.append(f"  {label:<22} could not be measured: {row['error']}")
        else:
            value = row["tokens_per_second"]
            lines.append(f"  {label:<22} {value:>7.1f}  {'█' * max(1, round(room * value / top))}")
    return lines


def _counter() -> Callable[[int, int], None]:
    """Says how far grading is, on one line where the terminal can redraw it."""

    def progress(done: int, of: int) -> None:
        if can_redraw():
            end = "\r" if done < of else "\r\x1b[2K"
            print(f"\r\x1b[2Kgrading: {done} of {of}" if done < of else "", end=end, flush=True)
        elif done == 0:
            say(f"Grading {of} exercise{'s' if of != 1 else ''} …")

    return progress


def machine() -> str:
    """Something that names this machine, for measurements."""
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"


__all__ = ["Keys", "Memory", "duration", "engine_passes", "passed_exercises", "remember", "results", "show", "table"]
