"""A learner's file is the old one or the new one: whatever a cell holds, wherever a process is killed, on a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import little_course
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from little_course import PAGE_TABLE, PUT, TAKE

from course import stubs, work
from course.environment import ROOT
from course.exercises import in_source
from course.grading import merge
from course.magic import cell as cells
from course.magic import place
from course.magic.cell import NotTaken

PRISTINE = stubs.with_header(stubs.strip_solutions(PAGE_TABLE, "page_table.py"), "page_table.py")
PUT_3_1 = {one.number: one for one in in_source(PRISTINE, "page_table.py")}["3.1"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
Counted = Callable[[str, int], None]

# ---------------------------------------------------------------------------------------------- whatever a cell holds

ODD = [
    "\0",
    "\x0c",
    "\r",
    "\r\n",
    "\x1a",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "é",
    "𝒳",
    "\\",
    '"""',
    "'''",
    "#",
]
PIECES = [
    *(line + "\n" for line in PUT.splitlines()),
    PUT,
    TAKE,
    "\n",
    "    ",
    "\t",
    "pass\n",
    "import math\n",
    "from .masks import double\n",
    "LIMIT = 3\n",
    "a, b = 1, 2\n",
    "def _helper(x): return x\n",
    "class Other:\n    pass\n",
    "@property\n",
    "async ",
    "%%exercise 3.2\n",
    "%timeit 1\n",
    "!rm -r .\n",
    '"""text\n',
    "(",
    ")",
    "}",
    "; ",
    "\\\n",
    "def put(self, book: str) -> int: return 1\n",
    "if True:\n",
    "type X = int\n",
    "### BEGIN SOLUTION\n",
    "### END SOLUTION\n",
    'raise NotImplementedError("Exercise 3.1: Shelf.put")\n',
    *ODD,
]


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """A right cell with some of its text replaced."""
    text = "LIMIT = 3\n\n" + PUT
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 8)))
        text = text[:at] + draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=3))) + text[end:]
    return text


CELLS = st.one_of(
    mangled(),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(), max_size=60),
    st.text(st.characters(), max_size=20).map(lambda text: PUT.replace("book)", f"book)  # {text}")),
    st.text(st.characters(), max_size=20).map(lambda text: PUT + f'    """{text}"""\n'),
)
DEEP = "A = " + "(" * 5000 + ")" * 5000 + "\n"
HUGE = PUT + "    " + "x = 1; " * 50_000 + "\n"
SOURCES = {
    "as handed out": PRISTINE,
    "with CRLF": PRISTINE.replace("\n", "\r\n"),
    "with a mark": "\ufeff" + PRISTINE,
    "without a line end": PRISTINE.rstrip("\n"),
    "with tabs": PRISTINE.replace("    ", "\t"),
}
quick = hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)


def others(source: str) -> dict[str, str]:
    """Every function but the exercise's own."""
    return {name: part.text(source) for name, part in merge.parts(source).items() if name != PUT_3_1.name}


def assert_taken_whole_or_not_at_all(text: str, source: str) -> bool:
    """Whether it was taken."""
    try:
        cell = cells.read(text, PUT_3_1, PRISTINE)
        new = place.put(source, PUT_3_1, cell)
    except NotTaken as refused:
        assert refused.why.strip() and refused.line <= text.count("\n") + text.count("\r") + 2, refused.why
        return False
    new.encode("utf-8")
    plain_new, plain = new.removeprefix(place.BOM), source.removeprefix(place.BOM)
    compile(plain_new, "page_table.py", "exec")
    before, after = others(plain), others(plain_new)
    extras = {name for extra in cell.extras for name in extra.names}
    assert {name: code for name, code in after.items() if name in before} == before, "another function has changed"
    added = {name.rpartition(".")[2].partition(".")[0] for name in after.keys() - before.keys()}
    assert added <= extras | {name for name in added if any(name in extra.text for extra in cell.extras)}
    assert PUT_3_1.name in merge.parts(plain_new)
    return True


tried = {"cells": 0, "taken": 0}


@given(text=CELLS, kind=st.sampled_from(list(SOURCES)))
@example(text=DEEP + PUT, kind="as handed out")
@example(text="LIMIT = " + "-" * 50_000 + "1\n" + PUT, kind="as handed out")
@example(text="LIMIT = [] " + "+ [] " * 5000 + "\n" + PUT, kind="as handed out")
@example(text=HUGE, kind="as handed out")
@example(text=PUT + "    '\ud800'\n", kind="as handed out")
@example(text=PUT + "    # \ud800\n", kind="as handed out")
@example(text="LIMIT = '\udc80'\n" + PUT, kind="as handed out")
@example(text=PUT.replace("\n", "\x0c\n"), kind="as handed out")
@example(text="\ufeff" + PUT, kind="with a mark")
@example(text="# coding: utf-7\n" + PUT, kind="as handed out")
@quick
def cells_of_any_text(text: str, kind: str) -> None:
    tried["cells"] += 1
    tried["taken"] += assert_taken_whole_or_not_at_all(text, SOURCES[kind])


def test_a_cell_is_taken_whole_or_not_at_all_whatever_it_holds(counted: Counted) -> None:
    tried.update(cells=0, taken=0)
    cells_of_any_text()
    assert tried["taken"] > 12, "the cells are too strange to say anything about those that are taken"
    counted("cells of any text", tried["cells"])


IN_A_NOTEBOOK = [
    "",
    "\0",
    PUT + "    '\ud800'\n",
    PUT + "    # \ud800\n",
    "LIMIT = exit()\n" + PUT,
    "import sys\nLIMIT = sys.exit('gone')\n" + PUT,
    "class Other:\n    raise KeyboardInterrupt\n\n" + PUT,
    "class Other:\n    raise SystemExit\n\n" + PUT,
    "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n\nclass Other:\n    raise Exception\n\n" + PUT,
    "class Other:\n    __init_subclass__ = 1\nclass Again(Other): pass\n\n" + PUT,
    PUT.replace("book: str", "book: 1 / 0").replace("self, ", "self, "),
    PUT.replace("book: str", "book: str = open('/no/such/file')"),
    "@undefined\n" + PUT,
    "from __future__ import annotations\nfrom flexnano import no_such_name\n" + PUT,
    "from .page_table import *\n" + PUT,
    "import flexnano.page_table as math\n" + PUT,
    "def __getattr__(name): raise RuntimeError\n\n" + PUT,
    "__file__ = 1\n" + PUT,
    "__name__ = 'other'\n" + PUT,
    DEEP + PUT,
    PUT + "    " + "(" * 5000 + ")" * 5000 + "\n",
    "LIMIT = " + "-" * 5000 + "1\n" + PUT,
    "LIMIT = [] " + "+ [] " * 5000 + "\n" + PUT,
    PUT.replace("\n", "\r"),
    PUT + "    return '\x1b[2J'\n",
    PUT,
]


def test_any_cell_in_a_notebook_leaves_a_file_that_python_reads_and_says_something(
    root: Path, tmp_path: Path, counted: Counted
) -> None:
    """The whole way, but for the grading: what is odd for the notebook and for the live module too."""
    generated: list[str] = []

    @hypothesis.settings(
        max_examples=60, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
    )
    @given(CELLS)
    def collect(text: str) -> None:
        generated.append(text)

    collect()
    texts = [*IN_A_NOTEBOOK, *generated]
    (tmp_path / "cells.json").write_text(json.dumps(texts), encoding="utf-8")
    script = """
        import ast, io, json, sys
        from contextlib import redirect_stderr, redirect_stdout
        from pathlib import Path
        from IPython.core.error import UsageError
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance(colors="NoColor")
        shell.run_cell("%load_ext course")
        from course.magic import magics
        from course.magic.workbench import Result
        bench = magics._loaded[id(shell)].bench
        bench.grade = lambda exercise, notes: Result(exercise, None, [*notes, "taken"])
        path = Path("flexnano/page_table.py")
        wrong, taken = [], 0
        for text in json.loads(Path(CELLS).read_text(encoding="utf-8")):
            before = path.read_bytes()
            said, errors = io.StringIO(), io.StringIO()
            with redirect_stdout(said), redirect_stderr(errors):
                ran = shell.run_cell("%%exercise 3.1\\n" + text)
            now = path.read_bytes()
            ast.parse(now.decode("utf-8").removeprefix("\\ufeff"))
            told = said.getvalue() + errors.getvalue()
            ended = isinstance(ran.error_in_exec, (UsageError, SystemExit, KeyboardInterrupt)) and now == before
            if not (ran.success or ended) or not told.strip() or ("nothing changed" in told and now != before):
                wrong.append((text[:200], repr(ran.error_in_exec or ran.error_before_exec), told[-300:]))
            taken += now != before
            assert not list(path.parent.glob(".*unfinished"))
        print(json.dumps([wrong, taken]))
    """
    script = textwrap.dedent(script).replace("CELLS", repr(str(tmp_path / "cells.json")))
    wrong, taken = json.loads(little_course.run(root, script).splitlines()[-1])
    assert not wrong, wrong
    assert taken > 5
    counted("cells of any text", len(texts))


# -------------------------------------------------------------------------------------- killed at every line that runs

# Each way to change files, from the same start: `Shelf.put` is written, everything else open; all was solved and saved once.
CHANGES = {
    "catch-up": "work.catch_up(3, root)",
    "reset": "work.reset('3', root)",
    "restore": "work.restore(root, everything)",
    "a zip": "work.from_zip(root / 'work.zip', root)",
    "the magic": "place.write(page_table, new)",
    "a version": "History(root, exercise, '').add(new, 0, 'from a cell')",
}
SAVES_FIRST = ("catch-up", "reset", "restore", "a zip")

BEGIN = """
import json, os, resource, shutil, signal, sys
from pathlib import Path
from types import SimpleNamespace
from course import status, work
from course.grading import merge
from course.magic import place
from course.magic.history import History

root = Path.cwd()
package, page_table = root / "flexnano", root / "flexnano" / "page_table.py"
(exercise,) = work.find("3.1", root)
status.results = lambda *_, **__: [  # grading changes no file; it would take most of the time
    SimpleNamespace(number=one.number, passed=False, status="not yet") for one in merge.course_exercises(root)
]
os.fsync = lambda handle: None  # who is killed loses nothing that the system has taken; and it takes most of the time


def contents():
    return {path.name: path.read_bytes() for path in package.glob("*.py")}


handed_out = contents()
work.catch_up(4, root)
everything = work.save(root, "everything").when
(root / "work.zip").write_bytes(work.to_zip(root))
new = page_table.read_text() + "# " + "x" * 20_000
for name, content in handed_out.items():
    (package / name).write_bytes(content)
page_table.write_text(merge.replace(page_table.read_text(), "Shelf.put", PUT))
start = contents()
shutil.copytree(root / ".course", root / "kept")


def begin_again():
    work._forget_unfinished(root)  # as every command does
    for name, content in start.items():
        (package / name).write_bytes(content)
    shutil.rmtree(root / ".course")
    shutil.copytree(root / "kept", root / ".course")


def in_a_process(kind, before):
    \"\"\"Whether the change came to its end; `before` is called just before it.\"\"\"
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 1, -signal.SIGKILL), code
        return code == 0
    code = 2
    try:
        before()
        exec(KINDS[kind])
        code = 0
    except OSError:
        code = 1
    finally:
        sys.settrace(None)
        os._exit(code)


def look(kind, final):
    \"\"\"Which files are new; and that none is half.\"\"\"
    now = contents()
    assert now.keys() == start.keys(), sorted(now)
    for name, content in now.items():
        assert content in (start[name], final[name]), f"{kind}: half of {name}"
    changed = {name for name in now if now[name] != start[name]}
    saved = [one.files() for one in work.saved(root)]
    assert all(one.keys() == start.keys() for one in saved), f"{kind}: half a copy of the files"
    assert not changed or kind not in SAVES_FIRST or start in saved, f"{kind}: written before everything was saved"
    for path in (root / ".course").glob("history/3.1/*.py"):
        assert path.read_text().endswith(new), "half a version"
    return changed
"""

KILLED = """
def kill_at(n):
    left = [n]

    def line(frame, event, _argument):
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    files = ("work.py", "place.py", "history.py")
    sys.settrace(lambda frame, *_: line if frame.f_code.co_filename.endswith(files) else None)


seen, moments = {}, 0
for kind in KINDS:
    assert in_a_process(kind, lambda: None)
    final = contents()
    begin_again()
    seen[kind], n, done = set(), 0, False
    while not done:
        done = in_a_process(kind, lambda: kill_at(n))
        assert n < 10_000, "it never came to its end"
        seen[kind] |= {" ".join(sorted(look(kind, final)))}
        begin_again()
        moments, n = moments + 1, n + STEP
    assert not list(package.glob(".*")), "what was killed left something beside the files"
print(json.dumps([moments, {kind: sorted(names) for kind, names in seen.items()}]))
"""

FULL = """
def room_for(n):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


largest = max(len(content) for content in start.values())
sizes = sorted({0, 1, 100, 1000, 2000, largest - 1, largest, largest + 200, largest + 1000, 10**6})
seen, moments = {}, 0
for kind in KINDS:
    assert in_a_process(kind, lambda: None)
    final = contents()
    begin_again()
    seen[kind] = []
    for size in sizes:
        done = in_a_process(kind, lambda: room_for(size))
        changed = look(kind, final)
        seen[kind].append(done)
        assert not list(package.glob(".*")), "something is left beside the files"
        assert not list((root / ".course").rglob(".unfinished*")), "something is left beside what was saved"
        begin_again()
        moments += 1
print(json.dumps([moments, seen]))
"""


def in_the_course(root: Path, script: str, changes: dict[str, str] = CHANGES, step: int = 1) -> list[Any]:
    head = f"KINDS, PUT, STEP, SAVES_FIRST = {changes!r}, {PUT!r}, {step}, {SAVES_FIRST!r}\n"
    return json.loads(little_course.run(root, head + BEGIN + script).splitlines()[-1])


def killed_at_lines(root: Path, changes: dict[str, str], step: int) -> int:
    moments, seen = in_the_course(root, KILLED, changes, step)
    assert set(seen) == set(changes)
    for kind, together in seen.items():
        assert "" in together, f"{kind} is never killed before it wrote"
        assert len(together) > 1 or kind == "a version", f"{kind} never wrote"
    return int(moments)


@POSIX
def test_killed_anywhere_it_leaves_the_old_file_or_the_new_one(root: Path, counted: Counted) -> None:
    moments = killed_at_lines(root, CHANGES, step=17)
    assert moments > 40
    counted("moments at which a process was killed", moments)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_killed_at_many_more_lines_it_leaves_the_old_file_or_the_new_one(
    kind: str, root: Path, counted: Counted
) -> None:
    moments = killed_at_lines(root, {kind: CHANGES[kind]}, step=2)
    assert moments > 5
    counted("moments at which a process was killed", moments)


@POSIX
def test_where_no_room_is_left_every_file_is_the_old_one_or_the_new_one(root: Path, counted: Counted) -> None:
    moments, seen = in_the_course(root, FULL)
    for kind, done in seen.items():
        assert not done[0] and done[-1], f"{kind}: {done}"
        assert done == sorted(done), f"{kind}: with more room it ended, with less it did not: {done}"
    counted("disks filled", moments)


@POSIX
@pytest.mark.parametrize("command", ["catch-up 3", "reset 3", "restore", "save", "save --zip work.zip"])
def test_a_full_disk_is_said_in_words(command: str, root: Path) -> None:
    work.save(root)
    little_course.write(root, "page_table.py", "Shelf.put", PUT)
    before = {path: path.read_bytes() for path in (root / "flexnano").glob("*.py")}
    code = (
        "import resource, sys\nfrom course.commands import run\n"
        "from course import status\nfrom types import SimpleNamespace\nfrom course.grading import merge\n"
        "status.results = lambda *_, **__: [SimpleNamespace(number=one.number, passed=False, status='not yet') "
        "for one in merge.course_exercises()]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        f"sys.exit(run({command.split()!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "the disk is full" in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (root / "flexnano").glob("*.py")} == before


@POSIX
def test_killed_at_any_time_while_it_writes_a_large_file(tmp_path: Path, counted: Counted) -> None:
    """Also inside one call of the system, where no line of Python ends."""
    path = tmp_path / "page_table.py"
    texts = [letter * 3_000_000 for letter in "ab"]
    code = (
        "from course import work\nfrom pathlib import Path\n"
        "texts, n = [letter * 3_000_000 for letter in 'ab'], 0\n"
        f"while True:\n    work.write(Path({str(path)!r}), texts[n % 2])\n    n += 1\n"
    )
    moments = random.Random(1)
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        while not path.exists() and writer.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        assert path.read_text(encoding="utf-8") in texts
        path.unlink()
    counted("moments at which a process was killed", 8)
