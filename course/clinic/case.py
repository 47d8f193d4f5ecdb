"""What a case of the clinic is: a bug as edits of the reference, and what a user says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..grading import merge


@dataclass(frozen=True)
class Edit:
    """In one function of one file, `old`, which stands there once, becomes `new`."""

    file: str
    function: str  # qualified: PageTable.reserve
    old: str
    new: str


@dataclass(frozen=True)
class Variant:
    """One way to write the bug, or to write a healthy engine."""

    name: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        number: 1 to 6; 0 is the one that the chapter works.
        slug: the mistake, as in the list that the course keeps of them.
        title: what the user sees, in a few words.  It must not say where the bug is.
        report: REPORT.md without its heading: what the user did, expected and got.
        reproduce: reproduce.py: what the user ran.  It prints lines; with `--check` nothing else is needed.
        symptom: a line that reproduce.py prints with the broken engine and not with a healthy one.
        bugs: the engine that is handed out, and the same bug written in other ways, that a test has to see too.
        twins: healthy engines written in another way, that a test has to let pass.
        hints: what to look at; where; the step in words.
        published, address: the real bug, and where it was reported.  Told once the case is solved.
    """

    number: int
    slug: str
    title: str
    report: str
    reproduce: str
    symptom: str
    bugs: tuple[Variant, ...]
    twins: tuple[Variant, ...]
    hints: tuple[str, str, str]
    published: str
    address: str

    @property
    def file(self) -> str:
        """Where the bug is, in the engine that is handed out."""
        return self.bugs[0].edits[0].file

    @property
    def function(self) -> str:
        return self.bugs[0].edits[0].function


def edited(sources: Mapping[str, str], variant: Variant) -> dict[str, str]:
    """The files of an engine with the edits of a variant.

    Raises:
        ValueError: an edit does not apply: the reference has changed.
    """
    result = dict(sources)
    for edit in variant.edits:
        part = merge.parts(result[edit.file]).get(edit.function)
        if part is None:
            raise ValueError(f"{variant.name}: {edit.file} has no {edit.function}")
        code = part.text(result[edit.file])
        if (times := code.count(edit.old)) != 1:
            raise ValueError(f"{variant.name}: {edit.old!r} stands {times} times in {edit.function}, not once")
        result[edit.file] = merge.replace(result[edit.file], edit.function, code.replace(edit.old, edit.new))
        compile(result[edit.file], edit.file, "exec")
    return result


def elsewhere(edit: Edit, old: str, new: str) -> Edit:
    """The same function, edited in another way."""
    return replace(edit, old=old, new=new)
