"""Grades for programs: one line at the end, and a JSON file."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import work
from .card import Outcome


def last_line(outcomes: Sequence[Outcome]) -> str:
    """How many pass, and what comes next: `grades: 4 of 9 passed, 2 not yet, 3 not started; next: 3.5 PageTable.address`."""
    counts = Counter(outcome.status for outcome in outcomes)
    others = ", ".join(f"{n} {status}" for status, n in counts.items() if status != "passed")
    line = f"grades: {counts['passed']} of {len(outcomes)} passed" + (f", {others}" if others else "")
    ahead = next((outcome for outcome in outcomes if not outcome.passed), None)
    return line if ahead is None else f"{line}; next: {ahead.number} {ahead.name}"


def document(outcomes: Sequence[Outcome], package: Path, notebooks: dict[str, str]) -> dict[str, Any]:
    """What `--report` writes."""
    return {
        "format": 1,
        "package": str(package),
        "python": platform.python_version(),
        "platform": sys.platform,
        "torch": metadata.version("torch"),
        "passed": sum(outcome.passed for outcome in outcomes),
        "of": len(outcomes),
        "exercises": [outcome.as_dict() for outcome in outcomes],
        "notebooks": notebooks,
    }


def write(path: Path, outcomes: Sequence[Outcome], package: Path, notebooks: dict[str, str]) -> None:
    """Write the document as a file."""
    work.write(path, json.dumps(document(outcomes, package, notebooks), indent=1, ensure_ascii=False) + "\n")
