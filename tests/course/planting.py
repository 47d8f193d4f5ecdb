"""Mistakes and other right answers, as small edits of the reference, and the package that each gives.

`python tests/course/planting.py 3.2 from-zero` prints the card that a learner with that mistake sees.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from course.exercises import Exercise  # noqa: E402
from course.grading import card, merge  # noqa: E402
from course.grading.grader import Grading  # noqa: E402
from course.grading.pool import Pool  # noqa: E402

REFERENCE = ROOT / "solutions" / "flexnano"


@dataclass(frozen=True)
class Planted:
    """A mistake in one exercise: `old` becomes `new` in the reference's function, or the function becomes `code`.

    slug: the mistake that must be diagnosed; empty: one that nobody knows, which must get the neutral hint.
    """

    exercise: str
    slug: str
    old: str = ""
    new: str = ""
    code: str = ""
    note: str = ""  # tells two variants of one mistake apart


@dataclass(frozen=True)
class Alternative:
    """Another right answer: the function as `code`, and others that go with it in `also`, by name."""

    exercise: str
    name: str
    code: str
    also: dict[str, str] = field(default_factory=dict)


def exercise(number: str) -> Exercise:
    return next(one for one in merge.course_exercises() if one.number == number)


def package(folder: Path, changes: dict[tuple[str, str], str]) -> Path:
    """The reference with functions replaced, by (file, name), in `folder`/flexnano."""
    target = folder / "flexnano"
    target.mkdir(parents=True, exist_ok=True)
    sources = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.py")}
    for (file, name), code in changes.items():
        if name in merge.parts(sources[file]):
            sources[file] = merge.replace(sources[file], name, code)
        else:
            sources[file] = merge.insert_method(sources[file], name, code) or sources[file]
    for file, source in sources.items():
        compile(source, file, "exec")
        (target / file).write_text(source, encoding="utf-8")
    return target


def plant(planted: Planted, folder: Path) -> Path:
    """The package of a learner with that mistake."""
    one = exercise(planted.exercise)
    source = (REFERENCE / one.file).read_text(encoding="utf-8")
    code = planted.code
    if not code:
        code = merge.parts(source)[one.name].text(source)
        if (times := code.count(planted.old)) != 1:
            raise ValueError(f"{planted.exercise} {planted.slug}: `{planted.old}` stands {times} times in {one.name}")
        code = code.replace(planted.old, planted.new)
    return package(folder, {(one.file, one.name): code})


def build(alternative: Alternative, folder: Path) -> Path:
    """The package of a learner with that solution."""
    one = exercise(alternative.exercise)
    changes = {(one.file, one.name): alternative.code}
    changes |= {(one.file, name): code for name, code in alternative.also.items()}
    return package(folder, changes)


def load(kind: str, name: str) -> list[Planted] | list[Alternative]:
    """MISTAKES or ALTERNATIVES of all modules: kind "mistakes" or "alternatives"."""
    found = []
    for path in sorted((Path(__file__).parent / kind).glob("module_*.py")):
        spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += getattr(module, name)
    return found


def show(number: str, slug: str) -> None:
    import tempfile

    pool = Pool()
    for planted in load("mistakes", "MISTAKES"):
        if planted.exercise == number and slug in ("all", planted.slug):
            with (
                tempfile.TemporaryDirectory() as folder,
                Grading(plant(planted, Path(folder)), REFERENCE, pool=pool) as grading,
            ):
                outcome = grading.grade(exercise(number))
                print(f"--- {planted.slug or 'not in the bank'} {planted.note}")
                print(card.text(outcome, hint_level=3), "\n")
    pool.close()


if __name__ == "__main__":
    show(*sys.argv[1:3])
