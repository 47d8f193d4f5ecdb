"""`python -m course reliability`: what was tried to break engine and course, in one table.

Runs the tests that look for what gets lost, leaks or is taken in, and a short soak of each kind.  Every number is counted
where it happens: tests append to the file that FLEXNANO_COUNTS names, soaks write reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, describe_machine, head, write
from course import counts
from course.console import CourseError, duration, heading, say

Report = dict[str, Any]
RESULTS = ROOT / "benchmarks" / "results"
WHAT = "what was tried to break engine and course: examples, faults, cheats, any input, a soak"

TESTS = (
    *("tests/engine/test_stateful.py", "tests/engine/test_homeworks_together.py", "tests/engine/test_faults.py"),
    *("tests/engine/test_bad_input.py", "tests/engine/test_soak.py", "tests/course/test_model.py"),
    *("tests/course/test_cheats.py", "tests/course/test_security.py", "tests/course/test_writing_safely.py"),
)
NAMES = {
    "examples": "examples run (Hypothesis)",
    "faults": "faults survived",
    "cheats": "cheats tried, none paid",
    "requests": "requests soaked",
    "prompts": "prompts of anything",
    "sampling parameters": "sampling parameters of anything",
}
"""What is counted, in the words of the table.  Tests may count more, which is listed by its own name."""


def run(minutes: float, requests: int, device: str, everything: bool, output: Path | None) -> int:
    """Run it all, print the table and write it.

    Args:
        minutes: of traffic on the engine.
        requests: through scheduler and page table.
        everything: the slow tests too.
        output: folder of the JSON; None: benchmarks/results.

    Returns:
        The exit code: 0 if nothing failed.

    Raises:
        CourseError: this copy of the course has no reference to try it on.
    """
    if not (ROOT / "solutions" / "flexnano").is_dir() or not (ROOT / "tests" / "engine").is_dir():
        raise CourseError("This copy of the course has no solutions, and it is the finished engine that is tried here.")
    began, machine, command = time.perf_counter(), describe_machine(device), " ".join(sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tests = {name: run_tests(name, everything, folder) for name in TESTS if (ROOT / name).is_file()}
        counted = counts.read(folder / "counts.jsonl")
        soaks = {
            "schedule": soak(["schedule", "--requests", str(requests)], folder),
            "engine": soak(["engine", "--minutes", str(minutes), "--device", device], folder),
        }
    report = {
        **head(WHAT, f"python -m course {command}", machine),
        "seconds": round(time.perf_counter() - began, 1),
        **summed(tests, counted, soaks),
    }
    heading("Reliability")
    say(table(report))
    say(f"\nWritten to {write(report, output or RESULTS, 'reliability')}")
    return 0 if report["passed"] else 1


def run_tests(name: str, everything: bool, folder: Path) -> Report:
    """One file of tests in a process of its own, so that none can spoil another's memory."""
    heading(name)
    found = folder / "junit.xml"
    found.unlink(missing_ok=True)
    arguments = [name, "-q", f"--junitxml={found}", *(["--all"] if everything else [])]
    variables = {**os.environ, "PYTHONUTF8": "1", counts.VARIABLE: str(folder / "counts.jsonl")}
    began = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=variables).returncode
    report: Report = {"code": code, "seconds": round(time.perf_counter() - began, 1), "passed": 0, "failed": 0}
    if found.is_file():
        suites = list(ElementTree.parse(found).getroot().iter("testsuite"))
        n = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
        report["failed"] = n["failures"] + n["errors"]
        report["passed"] = n["tests"] - report["failed"] - n["skipped"]
    return report


def soak(arguments: list[str], folder: Path) -> Report:
    """A soak in a process of its own; without its intervals, which the picture beside the long ones shows."""
    heading(f"Soak: {arguments[0]}")
    command = [sys.executable, "-m", "benchmarks.soak", *arguments, "--output", str(folder)]
    variables = {**os.environ, "PYTHONUTF8": "1", "FLEXNANO": "solutions"}
    variables.setdefault("OMP_NUM_THREADS", "1")
    code = subprocess.run(command, cwd=ROOT, env=variables).returncode
    path = next(folder.glob(f"soak-{arguments[0]}-*.json"), None)
    if path is None:  # it ended with an error, which stands above
        return {"passed": False, "code": code}
    read: Report = json.loads(path.read_text(encoding="utf-8"))
    totals = read.get("total", read)
    kept = ("requests", "steps", "preemptions", "aborted", "closed", "refused", "pages_leaked", "slots_leaked")
    return {"passed": read["passed"], "grows": read["grows"], **{key: totals[key] for key in kept}}


def summed(tests: dict[str, Report], counted: dict[str, int], soaks: dict[str, Report]) -> Report:
    """What goes into the table."""
    counted = dict(counted)
    counted["requests"] = counted.get("requests", 0) + sum(one.get("requests", 0) for one in soaks.values())
    complete = all("pages_leaked" in one for one in soaks.values())
    return {
        "passed": all(one["code"] == 0 for one in tests.values()) and all(one["passed"] for one in soaks.values()),
        "counts": {what: counted[what] for what in sorted(counted, key=_place)},
        # Unknown, and not 0, where a soak broke off.
        "pages_leaked": sum(one["pages_leaked"] for one in soaks.values()) if complete else None,
        "slots_leaked": sum(one["slots_leaked"] for one in soaks.values()) if complete else None,
        "tests": tests,
        "tests_passed": sum(one["passed"] for one in tests.values()),
        "tests_failed": sum(one["failed"] for one in tests.values()),
        "soaks": soaks,
    }


def _place(what: str) -> tuple[int, str]:
    return (list(NAMES).index(what) if what in NAMES else len(NAMES), what)


def table(report: Report) -> str:
    """The numbers under each other."""
    rows = [(NAMES.get(what, what), f"{n:,}") for what, n in report["counts"].items()]
    leaked = {"pages leaked": report["pages_leaked"], "slots leaked": report["slots_leaked"]}
    rows += [(what, "unknown" if n is None else f"{n:,}") for what, n in leaked.items()]
    rows += [("tests passed", f"{report['tests_passed']:,}"), ("tests failed", f"{report['tests_failed']:,}")]
    width, digits = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"  {what.ljust(width)}  {n.rjust(digits)}" for what, n in rows]
    broken = [name for name, one in report["tests"].items() if one["code"]]
    broken += [f"soak: {name}" for name, one in report["soaks"].items() if not one["passed"]]
    took = duration(report["seconds"])
    lines.append(f"\n  {'FAILED: ' + ', '.join(broken) if broken else 'All passed'}, after {took}")
    return "\n".join(lines)
