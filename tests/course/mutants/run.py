"""`make mutants`: change each operator, number and condition of the reference's solutions, one at a time, and grade.

The mutants come from cosmic-ray (https://cosmic-ray.readthedocs.io).  Its session file keeps what was done, so that an
interrupted run goes on.  Instead of its test command, which would start pytest for every mutant, the graders' own pool grades
the one exercise that the mutant is in.  Left out: whatever is not part of an exercise's solution (a learner does not write
it, and it is restored before grading), and string literals.

A mutant that the graders pass is a survivor.  Those that no grader can catch, because they do the same, stand in
`equivalent.json` with the reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from planting import REFERENCE, package  # noqa: E402

from course import stubs  # noqa: E402
from course.exercises import Exercise  # noqa: E402
from course.grading import merge  # noqa: E402
from course.grading.grader import Grading  # noqa: E402
from course.grading.pool import Pool  # noqa: E402

MODULES = ("masks", "page_table", "kv_cache", "scheduler", "sampling")
SESSIONS = ROOT / ".course" / "mutants"
RESULTS = HERE / "results.json"
EQUIVALENT = HERE / "equivalent.json"
SECONDS = 10.0


def session(module: str) -> Path:
    """The session file of a module, made anew when its source has changed."""
    SESSIONS.mkdir(parents=True, exist_ok=True)
    source = REFERENCE / f"{module}.py"
    path = SESSIONS / f"{module}-{stubs.hash_of(source.read_text(encoding='utf-8'))}.sqlite"
    if not path.exists():
        config = SESSIONS / f"{module}.toml"
        config.write_text(
            f'[cosmic-ray]\nmodule-path = "{source.as_posix()}"\ntimeout = {SECONDS}\n'
            'excluded-modules = []\ntest-command = "true"\n[cosmic-ray.distributor]\nname = "local"\n',
            encoding="utf-8",
        )
        subprocess.run([sys.executable, "-m", "cosmic_ray.cli", "init", str(config), str(path)], check=True)
    return path


def forget_survivors(module: str) -> None:
    """Let the next run grade them again."""
    with contextlib.closing(sqlite3.connect(session(module))) as database, database:
        database.execute("DELETE FROM work_results WHERE test_outcome = 'SURVIVED'")


def solution_lines(source: str, file: str) -> dict[int, Exercise]:
    """Which exercise each line of a solution belongs to, lines counted from 1."""
    exercises = {one.name: one for one in merge.course_exercises() if one.file == file}
    found: dict[int, Exercise] = {}
    for begin, end in stubs.regions(source.splitlines(), file):
        for name, part in merge.parts(source).items():
            if name in exercises and part.begin < begin and end <= part.end + 1:
                found |= dict.fromkeys(range(begin + 1, end), exercises[name])
    return found


Place = tuple[int, int]


def strings(source: str) -> list[tuple[Place, Place]]:
    """Where the string literals of a source begin and end, f-strings included: line from 1, column."""
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def changed_line(before: str, after: str) -> tuple[int, str, str]:
    """Number and text of the first line that differs, before and after."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((n, a.strip(), b.strip()) for n, (a, b) in enumerate(pairs, start=1) if a != b)


def run_module(module: str, pool: Pool, budget: float) -> None:
    """Grade the mutants of a module that were not graded yet."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    file = f"{module}.py"
    source = (REFERENCE / file).read_text(encoding="utf-8")
    lines, texts = solution_lines(source, file), strings(source)
    until = time.monotonic() + budget
    with use_db(session(module), WorkDB.Mode.open) as database:
        pending = list(database.pending_work_items)
        for number, item in enumerate(pending, start=1):
            (mutation,) = item.mutations
            exercise = lines.get(mutation.start_pos[0])
            if exercise is None or any(begin <= mutation.start_pos < end for begin, end in texts):
                database.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
                continue
            if time.monotonic() > until:
                print(f"  {module}: {len(pending) - number + 1} left for the next run", flush=True)
                return
            operator = get_operator(mutation.operator_name)(**mutation.operator_args)
            mutated = mutate_code(source, operator, mutation.occurrence)
            if mutated is None or mutated == source:
                database.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.NO_TEST))
                continue
            line, old, new = changed_line(source, mutated)
            status = grade(mutated, file, exercise, pool)
            survived = status == "passed"
            database.set_result(
                item.job_id,
                WorkResult(
                    worker_outcome=WorkerOutcome.NORMAL,
                    test_outcome=TestOutcome.SURVIVED if survived else TestOutcome.KILLED,
                    output=exercise.number,
                    diff=json.dumps([line, old, new]),
                ),
            )
            if survived:
                print(f"  survived {exercise.number} {file}:{line}  {old}  ->  {new}", flush=True)


def grade(mutated: str, file: str, exercise: Exercise, pool: Pool) -> str:
    """How the exercise comes out in a package whose `file` is the mutant."""
    try:
        compile(mutated, file, "exec")
    except SyntaxError:
        return "not python"
    code = merge.parts(mutated)[exercise.name].text(mutated)
    with tempfile.TemporaryDirectory() as scratch:
        changed = package(Path(scratch), {(file, exercise.name): code})
        with Grading(changed, REFERENCE, pool=pool, seconds=SECONDS) as grading:
            return grading.grade(exercise).status


def results(module: str) -> Iterator[tuple[str, str, int, str, str]]:
    """(exercise, outcome, line, old, new) of every mutant graded."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome

    with use_db(session(module), WorkDB.Mode.open) as database:
        for _job, result in database.results:
            if result.worker_outcome == WorkerOutcome.NORMAL and result.diff:
                line, old, new = json.loads(result.diff)
                yield result.output, result.test_outcome.value, line, old, new


def report() -> dict[str, Any]:
    """Count, compare with the equivalent ones, write results.json, and print a table."""
    equivalent = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else []
    known = {(one["exercise"], one["old"], one["new"]) for one in equivalent}
    document: dict[str, Any] = {
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "tool": "cosmic-ray",
        "modules": {},
    }
    print(f"\n{'module':<12}{'mutants':>9}{'killed':>9}{'equivalent':>12}{'survived':>10}{'killed of the rest':>20}")
    for module in MODULES:
        counts: Counter[str] = Counter()
        survivors = []
        for exercise, outcome, line, old, new in results(module):
            kind = "killed" if outcome == "killed" else "equivalent" if (exercise, old, new) in known else "survived"
            counts[kind] += 1
            if kind == "survived":
                survivors.append({"exercise": exercise, "line": line, "old": old, "new": new})
        total = sum(counts.values())
        score = counts["killed"] / max(1, total - counts["equivalent"])
        document["modules"][module] = {"mutants": total, **counts, "score": round(score, 4), "survivors": survivors}
        print(
            f"{module:<12}{total:>9}{counts['killed']:>9}{counts['equivalent']:>12}{counts['survived']:>10}{score:>20.1%}"
        )
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return document


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, help="of " + ", ".join(MODULES))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next run goes on")
    parser.add_argument("--survivors", action="store_true", help="grade those again that passed, after graders changed")
    parser.add_argument("--report", action="store_true", help="only count what was done")
    options = parser.parse_args()
    try:
        import cosmic_ray  # noqa: F401
    except ModuleNotFoundError:
        print("cosmic-ray is not installed here:  python -m pip install 'cosmic-ray>=8.4'")
        return 1
    if not options.report:
        end = time.monotonic() + options.minutes * 60
        pool = Pool()
        for module in options.modules:
            print(module, flush=True)
            if options.survivors:
                forget_survivors(module)
            run_module(module, pool, end - time.monotonic())
        pool.close()
    report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
