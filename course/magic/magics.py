"""The magics: what a notebook sees of all this."""

from __future__ import annotations

import atexit
import html
import time
from collections.abc import Callable
from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from .. import colab
from ..console import CourseError
from ..environment import ROOT
from ..exercises import Exercise
from ..grading import card
from .cell import NotTaken
from .waiting import Waiting, in_test
from .workbench import Result, Workbench


@magics_class
class CourseMagics(Magics):
    """`%%exercise`, `%exercise`, `%undo` and `%course_module`."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.kernel = shell
        self.bench = Workbench(ROOT, shell.user_ns, colab.keep)
        self.waiting = Waiting(shell, show)
        self.module: int | None = None
        shell.events.register("pre_run_cell", self._before)
        atexit.register(self.bench.close)

    @cell_magic("exercise")  # type: ignore[arg-type]
    def exercise_cell(self, line: str, cell: str) -> None:
        """Put the code of this cell into your own file, make it live, grade it.

        %%exercise 3.2
        """
        try:
            self._show(self.bench.take(line, cell))
        except NotTaken as refused:
            show(*refusal(line.strip(), self.bench.exercises.get(line.strip()), refused))

    @line_magic("exercise")  # type: ignore[arg-type]
    def load_exercise(self, line: str) -> None:
        """Load the code that stands in your file into a new cell: `%exercise 3.2`."""
        try:
            text = self.bench.load(line)
        except NotTaken as refused:
            show(*refusal(line.strip(), self.bench.exercises.get(line.strip()), refused))
        else:
            self.kernel.set_next_input(text)

    @line_magic
    def undo(self, line: str) -> None:
        """Bring the version before the present one back: `%undo 3.2`."""
        try:
            self._show(self.bench.undo(line))
        except NotTaken as refused:
            show(*refusal(line.strip(), self.bench.exercises.get(line.strip()), refused))

    @line_magic
    def course_module(self, line: str) -> None:
        """Say which module this notebook is about: `%course_module 3`."""
        if not line.strip().isdigit():
            print("Which module? Write for example:  %course_module 3")
            return
        self.module = int(line)
        open_ones = self.bench.prepare(self.module, _Progress())
        if open_ones:
            print(told(open_ones))

    @line_magic
    def course_drive(self, _line: str) -> None:
        """Keep your work in Google Drive."""
        self._say(colab.mount_drive)

    @line_magic
    def course_save(self, _line: str) -> None:
        """Your work as a zip: downloaded in Colab, a file elsewhere."""
        self._say(colab.save)

    @line_magic
    def course_restore(self, line: str) -> None:
        """Put the work of a zip back: uploaded in Colab, `%course_restore flexnano-work.zip` elsewhere."""
        self._say(lambda: colab.restore(name=line.strip()))

    def _say(self, what: Callable[[], list[str]]) -> None:
        try:
            lines = what()
        except CourseError as error:
            lines = [str(error)]
        self.bench.follow_edits()
        print("\n".join(lines))

    def _show(self, result: Result) -> None:
        if result.outcome is not None and result.outcome.passed:
            self.waiting.done(result.exercise)
        show(*shown(result))

    def _before(self, _info: Any = None) -> None:
        if not in_test():
            self.bench.follow_edits()

    def close(self) -> None:
        self.kernel.events.unregister("pre_run_cell", self._before)
        self.waiting.close()
        self.bench.close()
        atexit.unregister(self.bench.close)


_loaded: dict[int, CourseMagics] = {}


def load(shell: Any) -> None:
    """Register the magics; a second time is the same as once."""
    if id(shell) not in _loaded:
        _loaded[id(shell)] = CourseMagics(shell)
        shell.register_magics(_loaded[id(shell)])


def unload(shell: Any) -> None:
    if (magics := _loaded.pop(id(shell), None)) is not None:
        magics.close()


class _Progress:
    """Says what takes so long, if it does."""

    def __init__(self) -> None:
        self.begin, self.told = time.monotonic(), False

    def __call__(self, done: int, of: int) -> None:
        if not self.told and done < of and time.monotonic() - self.begin > 1:
            self.told = True
            print(f"Grading {of} exercises of earlier modules, once until they change …", flush=True)


# ------------------------------------------------------------------------------------------------------ what is shown


def show(text: str, markup: str) -> None:
    """Show the same thing in a browser and where there is only text."""
    display({"text/plain": text, "text/html": markup}, raw=True)


def shown(result: Result) -> tuple[str, str]:
    """A result as text and as HTML."""
    texts = [card.text(result.outcome)] if result.outcome is not None else []
    markup = card.as_html(result.outcome) if result.outcome is not None else ""
    notes = "".join(f"<div style='margin:2px 0 2px 16px'>{_code(note)}</div>" for note in result.notes)
    return "\n".join([*texts, *(f"     {note}" for note in result.notes)]), markup + notes


def refusal(number: str, exercise: Exercise | None, refused: NotTaken) -> tuple[str, str]:
    """Why a cell changed nothing, as text and as HTML."""
    title = f"{number}  {exercise.name}" if exercise is not None else number or "exercise"
    rows = [f"line {refused.line}: {refused.text}"] if refused.line else []
    rows += [f"expected: {refused.expected}"] if refused.expected else []
    text = "\n".join([f"{title}    nothing changed", f"     {refused.why}", *(f"     {row}" for row in rows)])
    pre = (
        f"<pre style='margin:4px 0;white-space:pre;overflow-x:auto'>{html.escape(chr(10).join(rows))}</pre>"
        if rows
        else ""
    )
    markup = (
        "<div style='border-left:4px solid #e69f00;padding:4px 12px'>"
        f"<b>{html.escape(title)}</b> <span style='color:#e69f00'>nothing changed</span><br>{_code(refused.why)}{pre}</div>"
    )
    return text, markup


def _code(text: str) -> str:
    """Backquoted words as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))


def told(open_ones: list[tuple[Exercise, str]]) -> str:
    """Which earlier exercises this kernel takes from the reference.

    A whole run of untouched ones is told by its ends: a learner who began at module 4 knows without a list of thirty.
    """
    runs: list[list[tuple[Exercise, str]]] = []
    for exercise, status in open_ones:
        last = runs[-1][-1] if runs else None
        if last and last[1] == status and last[0].module == exercise.module and last[0].index + 1 == exercise.index:
            runs[-1].append((exercise, status))
        else:
            runs.append([(exercise, status)])
    said = [f"{run[0][0]}" + (f" to {run[-1][0]}" if len(run) > 1 else "") + f" ({run[0][1]})" for run in runs]
    return (
        "Earlier exercises that this notebook takes from the reference, in this kernel only; your files stay as they are:\n"
        + "\n".join(f"  {line}" for line in said)
    )
