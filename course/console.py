"""What the commands say, and how they end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CourseError(Exception):
    """Something the person at the keyboard can mend: its text says what is wrong and what to do."""


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    """A line that is found again when scrolling through a long log."""
    say(f"\n== {text} {'=' * max(3, min(width(), 100) - len(text) - 4)}")


def width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def duration(seconds: float) -> str:
    """
    >>> duration(0.51), duration(12.34), duration(125)
    ('0.5 s', '12 s', '2 min 05 s')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def size(n_bytes: float) -> str:
    """
    >>> size(92_900_000), size(3.2e9)
    ('93 MB', '3.2 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def can_redraw() -> bool:
    """Whether the terminal moves its cursor when told to, so that lines can be drawn over."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ


COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "grey": 90}


def paint(text: str, colour: str) -> str:
    """The text in a colour, where a person reads it on a terminal that has them."""
    wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    if colour not in COLOURS or not wanted or (os.name == "nt" and "WT_SESSION" not in os.environ):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


@contextmanager
def task(text: str) -> Iterator[None]:
    """Say what begins, and how long it took once it is done."""
    say(f"{text} …")
    start = time.perf_counter()
    yield
    say(f"  done in {duration(time.perf_counter() - start)}")
