"""A whole course of four exercises in a folder of its own: quick, and nobody else changes it.

Module 1 (`masks.py`) has `double` and `triple`, module 3 (`page_table.py`) a `Shelf` with `put`, `take` and the function
`label`, module 4 (`kv_cache.py`) `count`, which needs both.  The tooling is a copy of the course's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from course.environment import ROOT
from course.grading import merge

MASKS = '''"""Module 01."""

from __future__ import annotations


def double(x: int) -> int:
    """Twice as much.  [1.1 · ★☆☆ · 5 min]

    Args:
        x: a number.

    Returns:
        The number twice.
    """
    ### BEGIN SOLUTION
    return x + _same(x)
    ### END SOLUTION


### BEGIN SOLUTION
def _same(x: int) -> int:
    return x


### END SOLUTION
def triple(x: int) -> int:
    """Three times as much.  [1.2 · ★☆☆ · 5 min]

    Args:
        x: a number.

    Returns:
        The number three times.
    """
    ### BEGIN SOLUTION
    return double(x) + x
    ### END SOLUTION


def given(x: int) -> int:
    return x
'''

PAGE_TABLE = '''"""Module 03."""

from __future__ import annotations

import math
from collections import deque

PLACES = 4


# ---------------------------------------------------------- a shelf
class Shelf:
    """Books, in the order in which they came."""

    def __init__(self, places: int = PLACES) -> None:
        self.places = places
        self.books: list[str] = []

    @property
    def free(self) -> int:
        return self.places - len(self.books)

    def put(self, book: str) -> int:
        """Put a book at the end.  [3.1 · ★☆☆ · 5 min]

        Args:
            book: its title.

        Returns:
            Where it stands.

        >>> Shelf().put("é")
        0
        """
        ### BEGIN SOLUTION
        self.books.append(book)
        return len(self.books) - 1
        ### END SOLUTION

    def take(self, n: int, *, last: bool = False) -> list[str]:
        """Take some books away.  [3.2 · ★★☆ · 15 min]

        Args:
            n: how many.
            last: from the end.

        Returns:
            The books, in the order in which they stood.
        """
        ### BEGIN SOLUTION
        at = len(self.books) - n if last else 0
        taken = self.books[at : at + n]
        del self.books[at : at + n]
        return taken
        ### END SOLUTION


def label(n: int) -> str:
    """The label of a place.  [3.3 · ★☆☆ · 5 min]

    Args:
        n: the place.

    Returns:
        Its label.
    """
    ### BEGIN SOLUTION
    return f"<{n}>"
    ### END SOLUTION


USED = (math.pi, deque())
'''

KV_CACHE = '''"""Module 04."""

from __future__ import annotations

from .masks import double
from .page_table import Shelf


def count(shelf: Shelf) -> int:
    """Twice the number of books.  [4.1 · ★☆☆ · 5 min]

    Args:
        shelf: with books.

    Returns:
        Twice their number.
    """
    ### BEGIN SOLUTION
    return double(len(shelf.books))
    ### END SOLUTION
'''

DRIVES = {
    1: "from flexnano import masks\n\n\ndef doubled(case):\n    return masks.double(case)\n\n\n"
    "def tripled(case):\n    return masks.triple(case)\n",
    3: "from flexnano import page_table\n\n\ndef placed(case):\n    shelf = page_table.Shelf()\n"
    "    return [[shelf.put(book) for book in case], shelf.books]\n\n\n"
    "def taken(case):\n    shelf = page_table.Shelf()\n    shelf.books = list('abcd')\n"
    "    return [shelf.take(case['n'], last=case['last']), shelf.books]\n\n\n"
    "def labelled(case):\n    return page_table.label(case)\n",
    4: "from flexnano import Shelf, count\n\n\ndef counted(case):\n    shelf = Shelf()\n"
    "    for book in case:\n        shelf.put(book)\n    return count(shelf)\n",
}

JUDGE = """from course.grading.checks import Exercise

HINTS = ("What goes in?", "What comes out?", "Step by step.")
"""

JUDGES = {
    1: JUDGE
    + """
one = Exercise("1.1", section="Doubling", hints=HINTS)
two = Exercise("1.2", section="Tripling", hints=("a", "b", "c"))


@one.check(cases=[1, 2, 5], describe=lambda case: f"double({case})")
def doubled(case):
    return 2 * case


@two.check(cases=[1, 2, 5], describe=lambda case: f"triple({case})")
def tripled(case):
    return 3 * case
""",
    3: JUDGE
    + """
one = Exercise("3.1", section="Putting a book on the shelf", hints=HINTS)
two = Exercise("3.2", section="Taking books away", hints=("a", "b", "c"))
three = Exercise("3.3", section="Labels", hints=("d", "e", "f"))


@one.check(cases=[["a"], ["a", "b"]], describe=lambda case: f"put {case}")
def placed(case):
    return [list(range(len(case))), case]


@two.check(cases=[{"n": n, "last": last} for n in (1, 2) for last in (False, True)], describe=str)
def taken(case):
    books = list("abcd")
    here = books[-case["n"]:] if case["last"] else books[:case["n"]]
    return [here, [book for book in books if book not in here]]


@three.check(cases=[1, 2], describe=str)
def labelled(case):
    return "<" + str(case) + ">"
""",
    4: JUDGE
    + """
one = Exercise("4.1", section="Counting", hints=HINTS)


@one.check(cases=[[], ["a"], ["a", "b"]], describe=str)
def counted(case):
    return sum(2 for _ in case)
""",
}

PUT = """def put(self, book: str) -> int:
    self.books.append(book)
    return len(self.books) - 1
"""
WRONG_PUT = """def put(self, book: str) -> int:
    self.books.append(book)
    return len(self.books)
"""
TAKE = """def take(self, n: int, *, last: bool = False) -> list[str]:
    books = self.books
    taken = books[-n:] if last else books[:n]
    self.books = books[:-n] if last else books[n:]
    return taken
"""


def make(root: Path, solutions: bool = True) -> Path:
    """The course in `root`, with nothing written by the learner."""
    shutil.copytree(ROOT / "course", root / "course", ignore=shutil.ignore_patterns("__pycache__"))
    pool = root / "course" / "grading" / "pool.py"  # nothing here needs torch, which takes a second to import
    pool.write_text(pool.read_text(encoding="utf-8").replace('["torch", *preload]', "[*preload]"), encoding="utf-8")
    reference = root / "solutions" / "flexnano"
    reference.mkdir(parents=True)
    init = (ROOT / "solutions" / "flexnano" / "__init__.py").read_text(encoding="utf-8")
    init = re.sub(r"if TYPE_CHECKING:.*?(?=^_PUBLIC)", "", init, flags=re.DOTALL | re.MULTILINE)
    public = {"masks": "double triple given", "page_table": "Shelf label", "kv_cache": "count"}
    init = re.sub(r"^_PUBLIC = \{.*?^\}", f"_PUBLIC = {public!r}", init, flags=re.DOTALL | re.MULTILINE)
    for file, text in (
        ("__init__.py", init),
        ("masks.py", MASKS),
        ("page_table.py", PAGE_TABLE),
        ("kv_cache.py", KV_CACHE),
    ):
        (reference / file).write_text(text, encoding="utf-8")
    for module, judge in JUDGES.items():
        folder = root / "tests" / f"module_{module:02d}"
        folder.mkdir(parents=True)
        (folder / "judge.py").write_text(judge, encoding="utf-8")
        (folder / "drive.py").write_text(DRIVES[module], encoding="utf-8")
    (root / "notebooks").mkdir()
    run(root, "from course import stubs; from pathlib import Path; stubs.make(Path.cwd())")
    if not solutions:
        pristine = root / "course" / "pristine"
        shutil.copytree(root / "flexnano", pristine)
        shutil.rmtree(root / "solutions")
    return root


def run(root: Path, code: str, **variables: str) -> str:
    """Run Python in the course's root.  Returns what it printed; a failure fails the test with all of it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLEXNANO")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**environment, "PYTHONPATH": str(root), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(root: Path, file: str, name: str, code: str) -> None:
    """Write a function in an editor."""
    path = root / "flexnano" / file
    path.write_text(merge.replace(path.read_text(encoding="utf-8"), name, code), encoding="utf-8", newline="")


def function(root: Path, file: str, name: str) -> str:
    """A function as it stands in the learner's file, dedented."""
    source = (root / "flexnano" / file).read_text(encoding="utf-8")
    return merge.dedented(merge.parts(source)[name].text(source))
