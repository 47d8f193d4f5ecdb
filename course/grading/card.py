"""What a learner reads about one exercise."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "not yet", "not started", "waiting", "missing", "unreadable", "no grader"]

SAY = {
    "passed": "passed",
    "not yet": "not yet",
    "not started": "not started",
    "waiting": "waiting",
    "missing": "missing",
    "unreadable": "not readable",
    "no grader": "no grader yet",
}


@dataclass
class Outcome:
    """How one exercise came out.  All fields are plain data, for `--report`."""

    number: str
    name: str
    file: str
    minutes: int
    status: Status
    case: str = ""
    expected: str = ""
    got: str = ""
    mistake: str = ""  # slug of the diagnosed one; empty: none
    hints: list[str] = field(default_factory=list)
    section: str = ""
    note: str = ""  # a sentence on how it was graded, where that is not plain
    where: str = ""
    traceback: str = ""
    check: str = ""
    seconds: float = 0.0
    checks: int = 0  # how many questions the exercise was asked, and how many of them it answered rightly
    checks_right: int = 0
    attempt: int = 0  # which of the packages that it was tried in gave this outcome; 1: the one with right neighbours
    stopped: bool = False  # no answer in time, or the process ended: may come out otherwise another time

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def title(outcome: Outcome) -> str:
    """One line: number, name, how it stands."""
    say = SAY[outcome.status]
    more = f"    {outcome.minutes} min" if outcome.status == "not started" else ""
    return f"{outcome.number:<5} {outcome.name:<44} {say}{more}".rstrip()


def text(outcome: Outcome, hint_level: int = 1, verbose: bool = False, width: int = 100) -> str:
    """The card in plain text: one line if there is nothing to say."""
    lines = [title(outcome)]
    if outcome.status in ("passed", "not started") and not outcome.note:
        return lines[0]

    def row(name: str, content: str) -> None:
        if not content:
            return
        drawn = content.splitlines()
        if len(drawn) == 1:
            drawn = textwrap.wrap(content, width - 15, break_long_words=False) or [""]
        lines.extend(f"     {name if index == 0 else '':<10}{line}".rstrip() for index, line in enumerate(drawn))

    row("case", outcome.case)
    beside = side_by_side(outcome.expected, outcome.got, width)
    if beside is not None:
        row("", beside)
    else:
        row("expected", outcome.expected)
        row("got", outcome.got)
    row("in", outcome.where)
    for level, hint in enumerate(outcome.hints[:hint_level], start=1):
        row("hint" if level == 1 else f"hint {level}", hint)
    row("note", outcome.note)
    if outcome.section:
        notebook = f"notebook {int(outcome.number.partition('.')[0]):02d}, “{outcome.section}”"
        more = f"    more: --hint {hint_level + 1}" if hint_level < len(outcome.hints) else ""
        row("read", notebook + more)
    if verbose and outcome.traceback:
        lines += ["", textwrap.indent(outcome.traceback.rstrip(), "     ")]
    return "\n".join(lines)


def side_by_side(expected: str, got: str, width: int = 100) -> str | None:
    """Two drawings of several lines next to each other, so that the eye finds the difference; None if they don't fit."""
    left, right = expected.splitlines(), got.splitlines()
    if len(left) < 2 and len(right) < 2:
        return None
    wide = max(map(cells, [*left, "expected"]))
    if wide + 4 + max(map(cells, [*right, "got"])) > width - 15:
        return None
    rows = max(len(left), len(right))
    left, right = left + [""] * (rows - len(left)), right + [""] * (rows - len(right))
    return "\n".join(
        f"{a}{' ' * (wide - cells(a))}    {b}".rstrip()
        for a, b in zip(["expected", *left], ["got", *right], strict=True)
    )


def cells(line: str) -> int:
    """Columns that a line takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


COLOUR = {"passed": "#009e73", "not yet": "#d55e00", "not started": "#777777"}


def as_html(outcome: Outcome, hint_level: int = 1) -> str:
    """The card for a notebook: the same text, with what comes next folded away."""
    colour = COLOUR.get(outcome.status, "#e69f00")
    lines = text(outcome, 1).splitlines()
    body = html.escape("\n".join(re.sub(r"\s+more: --hint 2$", "", line) for line in lines[1:]))
    folded = "".join(
        f"<details style='margin:2px 0 2px 3em'><summary>hint {level}</summary>{html.escape(hint)}</details>"
        for level, hint in enumerate(outcome.hints[1:], start=2)
    )
    if outcome.traceback and outcome.status == "not yet":
        folded += (
            "<details style='margin:2px 0 2px 3em'><summary>traceback</summary>"
            f"<pre>{html.escape(outcome.traceback)}</pre></details>"
        )
    head = html.escape(f"{outcome.number}  {outcome.name}")
    return (
        f"<div style='border-left:4px solid {colour};padding:4px 12px'>"
        f"<b>{head}</b> <span style='color:{colour}'>{SAY[outcome.status]}</span>"
        + (f"<pre style='margin:4px 0;white-space:pre;overflow-x:auto'>{body}</pre>" if body.strip() else "")
        + folded
        + "</div>"
    )
