"""Run a module's notebook with nbval against the package under test, and say in a few lines what did not work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import say
from ..environment import ROOT
from .merge import package_folder

CELL_SECONDS = 300
MOST_SHOWN = 3  # failed cells; what follows the first one is often only its consequence
MOST_LINES = 14  # of one failed cell


@dataclass(frozen=True)
class Failed:
    """A cell that did not run, or showed something else."""

    heading: str  # the nearest one above it
    code: str  # its first line
    why: list[str]


def run_notebook(notebook: Path, root: Path = ROOT, strict: bool = True) -> str | None:
    """Execute a notebook with nbval.  Returns what failed in words, None if nothing did.

    Args:
        strict: compare what cells show with what is stored; else they must only run.
    """
    environment = {**os.environ, "FLEXNANO_NBVAL": "1", "PYTHONUTF8": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")  # a thread that waits for a busy core makes minutes of seconds
    if os.environ.get("FLEXNANO"):  # the kernel starts in another folder
        chosen = os.environ["FLEXNANO"]
        environment["FLEXNANO"] = chosen if chosen == "solutions" else str(package_folder(root).resolve())
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "nbval.xml"
        run = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pytest",
                    "--nbval" if strict else "--nbval-lax",
                    "--nbval-current-env",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                ),
                *(f"--nbval-cell-timeout={CELL_SECONDS}", f"--junitxml={report}", "-o", "junit_family=xunit1"),
                *("--color=no", "-c", str(root / "pyproject.toml"), "--rootdir", str(root), str(notebook)),
            ],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if run.returncode == 0:
            return None
        failed = failures(notebook, report) if report.is_file() else []
    if not failed:  # it did not get as far as a cell
        return "\n".join((run.stdout + run.stderr).splitlines()[-30:])
    return told(failed)


def failures(notebook: Path, report: Path) -> list[Failed]:
    """The cells that failed, from nbval's report."""
    cells = code_cells(notebook)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is None:
            continue
        number = re.search(r"Cell (\d+)", case.get("name", ""))
        heading, code = cells[int(number[1])] if number and int(number[1]) < len(cells) else ("", case.get("name", ""))
        found.append(Failed(heading, code, reason(problem.text or problem.get("message") or "")))
    return found


def code_cells(notebook: Path) -> list[tuple[str, str]]:
    """(nearest heading above, first line) of each code cell, counted as nbval counts."""
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    heading, found = "", []
    for cell in content["cells"]:
        lines = "".join(cell["source"]).splitlines()
        if cell["cell_type"] == "markdown":
            heading = next((line.lstrip("# ") for line in reversed(lines) if re.match("#+ ", line)), heading)
        elif cell["cell_type"] == "code":
            code = [line for line in lines if line.strip() and not line.startswith("#")] or lines or [""]
            found.append((heading, code[0]))
    return found


def reason(text: str) -> list[str]:
    """What nbval says about a cell, without the cell and without the tooling's own lines."""
    text = re.sub(r"(\x1b|#x1B)\[[0-9;]*m", "", text)  # the second is how the report writes the first
    if waiting := re.search(r"waiting for \d+\.\d+ \S+", text):
        return [waiting[0]]
    lines = [line.rstrip() for line in text.splitlines()]
    said = lines[lines.index("Traceback:") + 1 :] if "Traceback:" in lines else lines
    if "Cell outputs differ" not in text:
        return _last_frame(said) if "Traceback:" in lines else [line for line in said if line][-MOST_LINES:]
    return _differences(said) or [line for line in said if line][:MOST_LINES]


def _differences(lines: list[str]) -> list[str]:
    """What was expected and what came, from nbval's comparison (`+` is what the notebook has)."""
    at = next((n for n, line in enumerate(lines) if re.match(r"  .* == ", line)), None)
    compared = [line[2:] for line in lines[at + 1 :]] if at is not None else []
    expected = [line[2:] for line in compared if line[:1] in ("+", " ")]
    got = [line[2:] for line in compared if line[:1] in ("-", " ")]
    return [*_row("expected", expected), *_row("got", got)] if expected or got else []


def _row(name: str, lines: list[str]) -> list[str]:
    return [f"{name if n == 0 else '':<10}{line}".rstrip() for n, line in enumerate(lines[: MOST_LINES // 2] or [""])]


def _last_frame(lines: list[str]) -> list[str]:
    """The end of a traceback: the line in the package that it came from, if it got there, and the error."""
    said = [line for line in lines if line.strip()]
    frames = [n for n, line in enumerate(said) if re.match(r"(File|Cell) |<ipython|\S+\.py in ", line)]
    own = [n for n in frames if re.search(r"flexnano[/\\]\w+\.py", said[n])] or frames
    where = [re.sub(r"^.*?(flexnano[/\\]\w+\.py)", r"\1", said[n]) for n in own[-1:]]
    where += [line.strip() for n in own[-1:] for line in said[n:] if re.match(r"-+> *\d+", line)][:1]
    errors = [n for n, line in enumerate(said) if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return [*where, *said[(errors or [-1])[-1] :][:MOST_LINES]]


def told(failed: list[Failed]) -> str:
    """What a learner reads.  Cells that wait are told in one line."""
    waiting = list(dict.fromkeys(one.why[0].removeprefix("waiting for ") for one in failed if _waits(one)))
    others = [one for one in failed if not _waits(one)]
    lines = [f"waiting for {', '.join(waiting)}"] if waiting else []
    for one in others[: 1 if waiting else MOST_SHOWN]:  # beside what waits, most of it is a consequence
        lines += [
            f"under “{one.heading}”, the cell that begins with:  {one.code}",
            *(f"    {line}" for line in one.why),
        ]
    if len(others) > MOST_SHOWN and not waiting:
        lines.append(f"and {len(others) - MOST_SHOWN} more cells after that")
    return "\n".join(lines)


def _waits(one: Failed) -> bool:
    return one.why[:1] != [] and one.why[0].startswith("waiting for ")


def main() -> int:
    """`python -m course.grading.notebook PATH…`: run notebooks without comparing, and say how each went."""
    trouble = False
    for path in map(Path, sys.argv[1:]):
        began = time.monotonic()
        said = run_notebook(path, strict=False)
        trouble = trouble or said is not None
        say(f"{path.name}: {said or f'ran, {time.monotonic() - began:.0f} s'}")
    return int(trouble)


if __name__ == "__main__":
    sys.exit(main())
