"""The folder in which a learner works on a case: `clinic/case_3/` in the course.

    REPORT.md      what the user reports, and how to run things
    reproduce.py   what the user did
    flexnano/      the engine, to be mended
    test_case.py   to be written: a test that fails as long as the bug is there
    answer.toml    to be filled in: where the bug is
    conftest.py    lets `pytest clinic/case_3` test this engine and no other

What is there is never written over.  A file that was deleted comes back with the next `python -m course clinic 3`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import work
from ..environment import ROOT
from .case import Case, edited
from .store import Store

TEST, ANSWER, REPORT, REPRODUCE, CONFTEST = "test_case.py", "answer.toml", "REPORT.md", "reproduce.py", "conftest.py"
MADE = ".handed_out"
"""Holds a hash of the engine as it was handed out."""

TEST_TEXT = '''\
"""Case {number}: a test that fails as long as the bug is there, and passes on every healthy engine.

`import flexnano` gives the engine of this folder here, and another one in grading: test what an engine does, not how it is
written.  course/clinic/bench.py has a tiny model (`engine_for`), the right tokens (`plain_tokens`) and a bit more.
"""

from course.clinic.bench import engine_for, plain_tokens


def test_case() -> None:
    with engine_for() as engine:
        raise NotImplementedError("write the test")
'''
ANSWER_TEXT = """\
# Where is the bug?  The file in flexnano/, as "scheduler.py", and the function, as "Scheduler.grow" or "forget_nan".
file = ""
function = ""

# What is wrong there, in a sentence of your own.  Nobody grades it but your teacher.
why = ""
"""
CONFTEST_TEXT = '''\
"""So that the tests here get the engine of this folder, also when pytest has imported another one before."""

import sys
from pathlib import Path

for name in [name for name in sys.modules if name.partition(".")[0] == "flexnano"]:
    del sys.modules[name]
sys.path.insert(0, str(Path(__file__).parent))
'''
HOW = """

## How to go on

```bash
python {folder}/reproduce.py     # what the user did
pytest {folder}                  # your test, {test}, on this engine
python -m course clinic {number} --grade   # found, proved, mended
python -m course clinic {number} --hint 1  # then 2, then 3
```

1. **Find** the bug in `{folder}/flexnano/`, and write file and function into `{answer}`.
2. **Prove** it in `{test}`: a test that fails on this engine by an assertion, and passes on a healthy one. It is also
   tried on engines with the same bug written in other ways, and on healthy ones that are written differently.
3. **Mend** it in `{folder}/flexnano/`, in any way you like. Nothing else may break.

An engine that is not broken stands in the course, and a comparison of the two would show the line at once. It would also
take away the one thing that there is to learn here.
"""


@dataclass(frozen=True)
class Folder:
    """A learner's folder for one case."""

    path: Path
    case: Case

    @property
    def is_open(self) -> bool:
        return self.path.is_dir()

    def read(self, name: str) -> str:
        """A file's text, empty if it is not there."""
        path = self.path / name
        return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""

    def engine(self) -> dict[str, str]:
        """The files of the learner's engine."""
        files = sorted((self.path / "flexnano").rglob("*.py"))
        return {
            file.relative_to(self.path / "flexnano").as_posix(): file.read_bytes().decode("utf-8", "replace")
            for file in files
        }

    @property
    def is_untouched(self) -> bool:
        """Whether the engine is as it was handed out."""
        return self.read(MADE).strip() == hash_of(self.engine())

    def answer(self) -> dict[str, str]:
        """What stands in answer.toml.

        Raises:
            ValueError: it is not TOML; the message says where.
        """
        values = tomllib.loads(self.read(ANSWER))
        return {name: str(values.get(name, "")).strip() for name in ("file", "function", "why")}

    def helpers(self) -> dict[str, str]:
        """Python files beside the test that it may import."""
        given = (REPRODUCE, CONFTEST)
        return {file.name: self.read(file.name) for file in sorted(self.path.glob("*.py")) if file.name not in given}


def folder_of(case: Case, home: Path | None = None, root: Path = ROOT) -> Folder:
    """Where a case is worked on.  `home`: another folder than clinic/ for the cases."""
    return Folder((home or root / "clinic") / f"case_{case.number}", case)


def handed_out(case: Case, store: Store) -> dict[str, str]:
    """The engine as the learner gets it."""
    return edited(store.healthy, case.bugs[0])


def hash_of(engine: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(engine, sort_keys=True).encode()).hexdigest()[:16]


def test_text(case: Case) -> str:
    return TEST_TEXT.format(number=case.number)


def report_text(case: Case, shown: str = "") -> str:
    """REPORT.md: what the user says, and how to work on it."""
    shown = shown or f"clinic/case_{case.number}"
    how = HOW.format(folder=shown, number=case.number, test=TEST, answer=ANSWER)
    return f"# Case {case.number}: {case.title}\n\n{case.report.rstrip()}{how}"


def open_case(case: Case, store: Store, folder: Folder, root: Path = ROOT) -> list[str]:
    """Write what is missing of a case's folder.

    Returns:
        The names of what was written.
    """
    shown = folder.path.relative_to(root).as_posix() if folder.path.is_relative_to(root) else str(folder.path)
    files = {
        REPORT: report_text(case, shown),
        REPRODUCE: case.reproduce,
        TEST: test_text(case),
        ANSWER: ANSWER_TEXT,
        CONFTEST: CONFTEST_TEXT,
    }
    if not (folder.path / "flexnano").is_dir():  # a file that somebody deleted from the engine is their mend
        engine = handed_out(case, store)
        files |= {f"flexnano/{name}": text for name, text in engine.items()}
        (folder.path / MADE).unlink(missing_ok=True)
        files[MADE] = hash_of(engine) + "\n"
    missing = [name for name in files if not (folder.path / name).exists()]
    for name in missing:
        work.write(folder.path / name, files[name])
    return [name for name in missing if name != MADE]
