"""`python -m course grade-class DIR`: grade what a class handed in, and whatever a submission does, grade the others.

Three kinds of processes.  The *supervisor* (this command) reads all submissions before the first one runs, keeps time, and
writes the grades.  A *judge* a submission asks the questions and never imports it.  The *worker* below it runs the
submission, under the limits of `grading/cell.py`.  A judge tells the supervisor an outcome a line, over a pipe of its own.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import work
from .console import CourseError, duration, paint, say
from .environment import ROOT
from .exercises import Exercise
from .grading import cell, grader, merge
from .grading.card import Outcome
from .grading.cell import Limits

FORMAT = 1
MOST_FILES = 20_000  # in one submission, environments and such left out
SKIPPED = {
    "__pycache__",
    ".git",
    ".venv",
    "venv",
    "env",
    "node_modules",
    "site-packages",
    ".course",
    "solutions",
    "pristine",
}


@dataclass(frozen=True)
class Submission:
    """What one student handed in, read before anything ran."""

    student: str
    files: dict[str, bytes]  # of the package
    problem: str = ""  # why there is nothing to grade

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode(errors="backslashreplace") + content)
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Plan:
    """How a class is graded."""

    root: Path
    exercises: list[Exercise]
    seconds: float
    minutes: float
    limits: Limits
    jobs: int
    key: str  # a hash of everything but the submission that grades depend on


@dataclass
class Record:
    """The grades of one student."""

    student: str
    fingerprint: str
    key: str
    status: str  # "graded", "no package", "stopped"
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> int:
        return sum(one["status"] == "passed" for one in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "student": self.student,
            "status": self.status,
            "passed": self.passed,
            "of": len(self.outcomes),
            "seconds": round(self.seconds, 1),
            "notes": self.notes,
            "fingerprint": self.fingerprint,
            "key": self.key,
            "exercises": self.outcomes,
        }

    @classmethod
    def of(cls, read: dict[str, Any]) -> Record:
        return cls(
            read["student"],
            read["fingerprint"],
            read["key"],
            read["status"],
            read["exercises"],
            read["seconds"],
            read["notes"],
        )


# ------------------------------------------------------------------------------------------------- what was handed in


def collect(folder: Path) -> list[Submission]:
    """One submission for each folder and each zip in `folder`, by name.

    Raises:
        CourseError: there is none.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder. Give one that holds a folder or a zip for each student.")
    found: list[Submission] = []
    names: set[str] = set()
    for path in sorted(folder.iterdir(), key=lambda one: one.name):
        is_zip = path.is_file() and path.suffix.lower() == ".zip"
        if path.name.startswith(".") or not (path.is_dir() or is_zip):
            continue
        student = path.stem if is_zip and path.stem not in names else path.name
        names.add(student)
        if path.is_symlink():
            found.append(Submission(student, {}, "it is a link, and links are not followed"))
        else:
            found.append(_of_zip(student, path) if is_zip else _of_folder(student, path))
    if not found:
        raise CourseError(f"{folder} holds neither folders nor zips, so there is nothing to grade.")
    return found


NOTHING_THERE = "no folder `flexnano` with Python files in it"


def _of_zip(student: str, path: Path) -> Submission:
    try:
        files = work.package_in_zip(path)
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
        return Submission(student, {}, f"the zip can't be read: {error}")
    return Submission(student, files, "" if files else NOTHING_THERE)


def _of_folder(student: str, folder: Path) -> Submission:
    names: list[str] = []
    for directory, folders, files in os.walk(folder):
        here = Path(directory)
        folders[:] = [name for name in folders if name not in SKIPPED and not (here / name).is_symlink()]
        names += [(here / name).relative_to(folder).as_posix() for name in files if name.endswith(".py")]
        if len(names) > MOST_FILES:
            return Submission(student, {}, f"it has more than {MOST_FILES} Python files")
    where = work.package_folder_among(names)
    if where is None:
        return Submission(student, {}, NOTHING_THERE)
    found: dict[str, bytes] = {}
    for path in sorted((folder / where).glob("*.py")):
        if path.is_symlink() or not path.is_file():
            continue  # a link may lead to the reference
        if path.stat().st_size > work.LARGEST_FILE:
            return Submission(student, {}, f"{path.name} has {path.stat().st_size} bytes")
        found[path.name] = path.read_bytes()
        if sum(map(len, found.values())) > work.LARGEST_PACKAGE:
            return Submission(student, {}, f"its Python files have more than {work.LARGEST_PACKAGE} bytes")
    return Submission(student, found, "" if found else NOTHING_THERE)


# ------------------------------------------------------------------------------------------------------ the supervisor


class Supervisor:
    """Grades submissions, each by a judge of its own."""

    def __init__(self, plan: Plan, hidden: Sequence[Path] = ()) -> None:
        self.plan = plan
        self._base = Path(tempfile.mkdtemp(prefix="flexnano-class-"))
        # Judges work on a copy: what a submission does to it reaches nobody's checkout, and who edits theirs meanwhile
        # changes no grade.
        self.root = _copy_of_course(plan.root, self._base / "course")
        self._course = Guarded(self.root)
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._again: set[str] = set()  # ran while somebody changed the course's files
        # Each submission as it was handed in, and the packages that its exercises are tried in, which hold the reference.
        self._handed_in = self._base / "in"  # short: a socket lies in it, whose path has little room
        self._cells = self._base / "cells"
        for made in (self._handed_in, self._cells):
            made.mkdir()
        self._files = set(merge.files(self.root))
        own = [Path(sys.prefix), Path(sys.base_prefix), self.root / "course", self._cells]
        hidden = [*hidden, self._handed_in, *(self.root / name for name in ("solutions", "tests", ".course"))]
        self._hidden = tuple(
            str(path.resolve())
            for path in hidden
            if not any(one.resolve().is_relative_to(path.resolve()) for one in own)
        )

    def close(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)

    def grade_all(self, submissions: Sequence[Submission]) -> Iterator[Record]:
        """Records in the order in which they are done."""
        by_name = {one.student: one for one in submissions}
        with ThreadPoolExecutor(self.plan.jobs) as threads:
            futures = [threads.submit(self._grade, one) for one in submissions]
            for future in as_completed(futures):
                yield future.result()
        for student in sorted(self._again):  # one at a time, so that it is known who it was
            yield self._grade(by_name[student], alone=True)

    def _grade(self, submission: Submission, alone: bool = False) -> Record:
        record = Record(submission.student, submission.fingerprint, self.plan.key, "graded")
        if submission.problem:
            record.status, record.notes = "no package", [submission.problem]
            record.outcomes = [_not_graded(one, submission.problem) for one in self.plan.exercises]
            return record
        with self._lock:
            self._running.add(submission.student)
        scratch = Path(tempfile.mkdtemp(dir=self._handed_in))
        try:
            (scratch / "flexnano").mkdir()
            for name in self._files & set(submission.files):  # no other is looked at, whatever its name is
                (scratch / "flexnano" / name).write_bytes(submission.files[name])
            self._ask_judge(scratch, record)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with self._lock:
                changed = self._course.put_back()
                if changed:
                    names = ", ".join(str(path.relative_to(self.root)) for path in changed[:5])
                    record.notes.append(f"files of the course were changed while it ran, and were put back: {names}")
                    if self.plan.jobs > 1 and not alone:
                        self._again |= self._running
                self._running.discard(submission.student)
        return record

    def _ask_judge(self, scratch: Path, record: Record) -> None:
        """Start a judge, take down what it says, and stop it when the time is over."""
        started = time.monotonic()
        until = started + 60 * self.plan.minutes
        judge = self._start_judge(scratch, mark := secrets.token_hex(8))
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(judge, lines), daemon=True).start()
        outcomes: dict[str, dict[str, Any]] = {}
        ended = ""
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    ended = f"stopped after {self.plan.minutes:g} min"
                    break
                if line is None:
                    break
                message = json.loads(line)
                outcomes[message["number"]] = message
        except (ValueError, KeyError, TypeError):
            ended = "its judge said something that can't be read"
        finally:
            self._end(judge, mark)
        record.seconds = time.monotonic() - started
        missing = [one for one in self.plan.exercises if one.number not in outcomes]
        if missing:
            record.status = "stopped"
            ended = ended or f"its judge was ended (exit code {judge.returncode})"
            record.notes.append(f"{ended}; {len(missing)} of {len(self.plan.exercises)} exercises not graded")
        record.outcomes = [
            outcomes.get(one.number) or _not_graded(one, f"not graded: {ended}") for one in self.plan.exercises
        ]

    def _start_judge(self, scratch: Path, mark: str) -> subprocess.Popen[bytes]:
        limits = {**self.plan.limits.as_dict(), "hidden": self._hidden}
        job = {
            "root": str(self.root),
            "package": str(scratch / "flexnano"),
            "cells": str(self._cells),
            "numbers": [one.number for one in self.plan.exercises],
            "seconds": self.plan.seconds,
            "limits": limits,
            "workers": max(1, (os.cpu_count() or 1) // self.plan.jobs),
        }
        (scratch / "t").mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "FLEXNANO"}
        environment |= {"TMPDIR": str(scratch / "t"), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment[cell.MARK] = mark
        judge = subprocess.Popen(
            [sys.executable, "-m", "course.classroom"],
            cwd=self.root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert judge.stdin is not None
        with contextlib.suppress(OSError):
            judge.stdin.write(json.dumps(job).encode() + b"\n")
            judge.stdin.flush()  # left open: its end tells the judge that nobody listens any more
        return judge

    def _end(self, judge: subprocess.Popen[bytes], mark: str) -> None:
        """End a judge and everything that it started."""
        if judge.poll() is None:
            judge.kill()
        judge.wait()
        cell.end_all(lambda: cell.marked(mark))


def _read_lines(judge: subprocess.Popen[bytes], into: queue.Queue[bytes | None]) -> None:
    assert judge.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for line in judge.stdout:
            into.put(line)
    into.put(None)


def _not_graded(exercise: Exercise, why: str) -> dict[str, Any]:
    outcome = Outcome(exercise.number, exercise.name, exercise.file, exercise.minutes, "not started").as_dict()
    return {**outcome, "status": "not graded", "note": why}


def _copy_of_course(root: Path, to: Path) -> Path:
    """What judging needs, in a folder of its own."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("course", "tests", "solutions"):
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=unwanted)
    for path in work.teachers_zips(root).values():
        (to / ".course").mkdir(exist_ok=True)  # which submissions can't see
        shutil.copy(path, to / ".course")
    return to


class Guarded:
    """A folder whose Python files must stay as they are; what was changed is put back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._now()

    def _now(self) -> dict[Path, bytes]:
        files: dict[Path, bytes] = {}
        for path in sorted(self._folder.rglob("*.py")):
            with contextlib.suppress(OSError):
                files[path] = path.read_bytes()
        return files

    def put_back(self) -> list[Path]:
        """Undo every change.  Returns the files that were changed, removed or added."""
        now = self._now()
        changed = sorted(path for path in {*now, *self._before} if now.get(path) != self._before.get(path))
        for path in changed:
            if path in self._before:
                work.write(path, self._before[path])
            else:
                path.unlink(missing_ok=True)
        return changed


# ----------------------------------------------------------------------------------------------------------- the judge


def judge() -> None:
    """A process of its own: reads a job from stdin, writes an outcome a line.  Never imports the submission."""
    from .grading.grader import Grading
    from .grading.pool import Pool

    cell.close_to_others()
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # the worker inherits these, and must not reach the pipe to the supervisor
        os.dup2(nowhere, stream)
    root = Path(job["root"])
    limits = Limits(**{**job["limits"], "hidden": tuple(job["limits"]["hidden"])})
    pool = Pool(limits, Path(job["cells"]))
    said = threading.Lock()
    with Grading(Path(job["package"]), work.neighbours(root), root, job["seconds"], pool=pool) as grading:
        wanted = [grading.by_number[number] for number in job["numbers"]]
        for module in {one.module for one in wanted}:
            grader.judges(module, root)

        def grade(exercise: Exercise) -> None:
            try:
                graded = grading.grade(exercise)
                if graded.passed and graded.checks_right < graded.checks:
                    graded.status = "waiting"  # for an exercise that its writer may have left out on purpose
                outcome = graded.as_dict()
            except Exception as error:
                outcome = _not_graded(exercise, f"could not be graded: {type(error).__name__}: {error}")
            with said:
                print(json.dumps(outcome), file=out, flush=True)

        with ThreadPoolExecutor(job["workers"]) as threads:
            list(threads.map(grade, wanted))
    pool.close()
    out.flush()
    os._exit(0)


def _end_with_supervisor() -> None:
    """When the supervisor ends, however that came, so does the judge."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.read()
    cell.end_all(lambda: cell.marked(os.environ[cell.MARK]))
    os._exit(3)


# -------------------------------------------------------------------------------------------------------------- grades


def write_grades(folder: Path, records: Sequence[Record], plan: Plan, running: Sequence[str] = ()) -> None:
    """grades.json and grades.csv, each replaced as a whole."""
    ordered = sorted(records, key=lambda one: one.student)
    document = {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "walled": plan.limits.walled,
        "running": list(running),
        "exercises": [one.number for one in plan.exercises],
        "submissions": [one.as_dict() for one in ordered],
    }
    # What a submission says may be no text that can be written as it is: half a pair of surrogates.
    read = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    work.write(folder / "grades.json", read.encode(errors="backslashreplace"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", "exercise", "name", "status", "passed", "of", "seconds", "mistake", "notes"])
    for record in ordered:
        writer.writerow(
            _cells(
                [
                    *(record.student, "all", "", record.status, record.passed, len(record.outcomes)),
                    *(round(record.seconds, 1), "", "; ".join(record.notes)),
                ]
            )
        )
        for one in record.outcomes:
            writer.writerow(
                _cells(
                    [
                        *(record.student, one["number"], one["name"], one["status"], one.get("checks_right", 0)),
                        *(one.get("checks", 0), one["seconds"], one["mistake"], _note(one)),
                    ]
                )
            )
    # With the mark by which spreadsheets know UTF-8.
    work.write(folder / "grades.csv", ("\ufeff" + text.getvalue()).encode(errors="backslashreplace"))


def _note(outcome: dict[str, Any]) -> str:
    """One line on why an exercise did not pass."""
    parts = [outcome.get("note", "")]
    if outcome["status"] not in ("passed", "not started", "not graded"):
        parts = [outcome.get("case", ""), outcome.get("got", ""), *parts]
    return " | ".join(" ".join(part.split())[:200] for part in parts if part)


def _shown(text: str) -> str:
    """A text that does nothing to a terminal: names of folders come from students too."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def _cells(row: Sequence[Any]) -> list[Any]:
    """Texts that no spreadsheet takes for a formula: they may come from a submission."""
    return [f"'{one}" if isinstance(one, str) and one[:1] in ("=", "+", "-", "@", "\t", "\r") else one for one in row]


def earlier_records(folder: Path, plan: Plan, submissions: Sequence[Submission]) -> tuple[dict[str, Record], list[str]]:
    """What a stopped run has graded of the same files in the same way, and who was being graded when it stopped."""
    try:
        read = json.loads((folder / "grades.json").read_text(encoding="utf-8"))
        known = [Record.of(one) for one in read["submissions"]]
        running = [str(one) for one in read["running"]]
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, KeyError, TypeError):
        say(f"{folder / 'grades.json'} can't be read, so everything is graded anew.")
        return {}, []
    files = {one.student: one.fingerprint for one in submissions}
    same = {one.student: one for one in known if one.key == plan.key and files.get(one.student) == one.fingerprint}
    return same, running


# ------------------------------------------------------------------------------------------------------------- command


def make_plan(options: Any, root: Path) -> Plan:
    """How to grade, from the options of the command.

    Raises:
        CourseError: there is no such module, or nothing with a grader among them.
    """
    from .grading import command
    from .status import _contents, _course

    wanted = command.chosen(root, options.modules or [])
    exercises = [one for one in wanted if one.number in grader.judges(one.module, root)]
    if not exercises:
        raise CourseError("None of these exercises has a grader.")
    cores = os.cpu_count() or 1
    limits = Limits(
        memory=int(options.memory * 2**30),
        processes=options.processes,
        walled=not options.no_walls and cell.walls_work(),
    )
    key = json.dumps(
        [
            *(FORMAT, _course(root), _contents(root / "tests", "module_*/*.py"), [one.number for one in exercises]),
            *(options.seconds, options.minutes, options.memory, options.processes),
        ]
    )
    return Plan(
        root,
        exercises,
        options.seconds,
        options.minutes,
        limits,
        options.jobs or max(1, cores // 2),
        hashlib.sha256(key.encode()).hexdigest()[:32],
    )


def show(options: Any, root: Path = ROOT) -> int:
    """The command `grade-class`."""
    folder: Path = options.folder
    submissions = collect(folder)
    plan = make_plan(options, root)
    out = options.out or folder
    done, crashed = earlier_records(out, plan, submissions) if options.resume else ({}, [])
    todo = [one for one in submissions if one.student not in done]
    todo.sort(key=lambda one: one.student in crashed)  # who may have ended the run comes last
    say(
        f"{work.many(len(submissions), 'submission')}, {work.many(len(plan.exercises), 'exercise')} each"
        + (f"; {len(done)} graded before" if done else "")
    )
    if work.neighbours(root) is None:
        say(f"{work.NO_REFERENCE}: an exercise that calls an unwritten one waits for it.")
    if not plan.limits.walled:
        say(
            "Without namespaces (this system forbids them, or --no-walls) a submission can read and write what you can, end\n"
            "what you started and use the network. Grade in a virtual machine or container that holds nothing else;\n"
            "SECURITY.md says more."
        )
    wide = max(len(_shown(one.student)) for one in submissions) + 2
    hidden = [*root.iterdir(), folder, out]
    supervisor = Supervisor(plan, hidden)
    waiting = [one.student for one in todo]
    try:
        write_grades(out, list(done.values()), plan, waiting)
        for record in supervisor.grade_all(todo):
            done[record.student] = record
            waiting = [student for student in waiting if student != record.student]
            write_grades(out, list(done.values()), plan, waiting)
            result = f"{record.passed} of {len(record.outcomes)}" if record.status != "no package" else record.status
            say(f"{_shown(record.student):<{wide}}{result:<12}{duration(record.seconds):>8}")
            for note in record.notes:
                say(f"{'':<{wide}}{paint(_shown(note), 'yellow')}")
    finally:
        supervisor.close()
    say(f"grades.csv and grades.json are in {out}")
    return 0


# --------------------------------------------------------------------------------------------------- GitHub Classroom


def points(report: dict[str, Any]) -> dict[str, Any]:
    """A report of `grade --report` as GitHub Classroom's reporter wants it: a point an exercise."""
    tests = [
        {
            "name": f"{one['number']} {one['name']}",
            "status": "pass" if one["status"] == "passed" else "fail",
            "score": int(one["status"] == "passed"),
            "message": ""
            if one["status"] == "passed"
            else one["status"] + (f": {one['got']}" if one.get("got") else ""),
        }
        for one in report["exercises"]
    ]
    passed = sum(one["status"] == "passed" for one in report["exercises"])
    return {
        "version": 1,
        "status": "pass" if tests and passed == len(tests) else "fail",
        "max_score": len(tests),
        "tests": tests,
    }


def workflow_text(modules: Sequence[int], root: Path = ROOT) -> str:
    """The workflow for some modules, from the template in classroom/."""
    template = (root / "classroom" / "classroom.yml").read_text(encoding="utf-8")
    head, _, rest = template.partition("      # BEGIN each module\n")
    block, _, tail = rest.partition("      # END each module\n")
    env_line = next(line for line in tail.splitlines(keepends=True) if "@NN@" in line and "_RESULTS" in line)

    def filled(text: str, module: int) -> str:
        return text.replace("@NN@", f"{module:02d}").replace("@N@", str(module))

    steps = "".join(filled(block, module) for module in modules)
    results = "".join(filled(env_line, module) for module in modules)
    runners = ",".join(f"module-{module:02d}" for module in modules)
    return head + steps + tail.replace(env_line, results).replace("@RUNNERS@", runners)


def workflow(folder: Path | None, report: Path | None, root: Path = ROOT) -> int:
    """The command `classroom`."""
    if report is not None:
        try:
            result = points(json.loads(report.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CourseError(f"{report} is not a report of `grade --report`.") from error
        print("result=" + base64.b64encode(json.dumps(result).encode()).decode())
        return 0
    if folder is None:
        raise CourseError("Give a release to install the workflow in, or --points REPORT.")
    if not (root / "classroom" / "classroom.yml").is_file():
        raise CourseError("This copy of the course has no classroom/: it is for teachers, and not handed out.")
    if not (folder / "course").is_dir():
        raise CourseError(f"{folder} is no release of the course: python -m course release {folder} --class")
    modules = [one for one in grader.graded_modules(folder) if grader.judges(one, folder)]
    target = folder / ".github" / "workflows" / "classroom.yml"
    work.write(target, workflow_text(modules, root))
    say(f"{target}: grades modules {', '.join(f'{one:02d}' for one in modules)} on every push.")
    say("classroom/README.md says what to do on GitHub.")
    return 0


__all__ = ["collect", "judge", "points", "show", "workflow", "workflow_text"]


if __name__ == "__main__":
    judge()
