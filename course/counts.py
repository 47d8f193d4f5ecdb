"""What the tests count for `python -m course reliability`: examples run, faults survived.

A line of JSON each, {"what": "faults", "n": 3}, in the file that the environment variable FLEXNANO_COUNTS names; without it
nothing is written.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

VARIABLE = "FLEXNANO_COUNTS"
_noted: Counter[str] = Counter()


def add(what: str, n: int = 1) -> None:
    """Count at once."""
    if n and (path := os.environ.get(VARIABLE)):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "n": n}) + "\n")


def note(what: str, n: int = 1) -> None:
    """Count once the test has passed: see `settle`."""
    _noted[what] += n


def settle(passed: bool) -> None:
    """A test is over: what it noted counts if it has passed, and is forgotten if not."""
    if passed:
        for what, n in _noted.items():
            add(what, n)
    _noted.clear()


def read(path: Path) -> dict[str, int]:
    """All that was counted in a file; nothing if there is none."""
    counted: Counter[str] = Counter()
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            counted[one["what"]] += one["n"]
    return dict(counted)
