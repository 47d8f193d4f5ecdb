"""What a submission may try to get a better grade, or to harm: no grade is raised, and each gets a line that says why.

Each cheat is a whole submission: the reference of the little course, in which `Shelf.put` (3.1) is dishonest and everything
else is honest.  It has to get what the untouched stub gets for 3.1, and what is its due for 3.2.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_grade_class import WALLS, grade, hand_in, rows

from course import classroom, work
from course.environment import ROOT
from course.grading import checks, grader, merge
from course.grading.grader import Grading
from course.grading.pool import Pool

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and walls are Linux's")
Counted = Callable[[str, int], None]


@dataclass(frozen=True)
class Cheat:
    """The body of a method, and what the report says.

    said: part of the line in grades.csv.  `walls`: only walls keep it from working, or from doing harm.
    where: whose body it is; the other exercise is honest.
    """

    body: str
    said: str
    walls: bool = False
    where: str = "3.1"


WRONG = "[[7], []]"  # what the card shows of an answer of 7
HONEST = "self.books.append(book)\nreturn len(self.books) - 1"

# Resources are bounded, so that nothing happens to the machine if a defence fails.
CHEATS = {
    # ------------------------------------------------------------------ never answers, or ends instead
    "loops": Cheat("while True:\n    pass", "no answer within 2 s"),
    "recurses": Cheat("return self.put(book)", "RecursionError"),
    "forks": Cheat(
        "import os, time\nfor _ in range(6):\n    os.fork()\ntime.sleep(20)",  # 64 of them
        "more than 16 processes",
    ),
    "threads": Cheat(
        "import threading, time\n"
        "for _ in range(500):\n    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\nreturn 7",
        "can't start new thread",
        walls=os.name == "posix" and os.getuid() == 0,  # root is held to no limit, and threads are no processes
    ),
    "hogs": Cheat("kept = []\nfor _ in range(20):\n    kept.append(b'x' * 2**26)\nreturn 3", "MemoryError"),
    "exits": Cheat("import os\nos._exit(0)", "the process ended without an answer"),
    "leaves": Cheat("import sys\nsys.exit(0)", "raises SystemExit: 0"),
    "interrupts": Cheat("raise KeyboardInterrupt", "raises KeyboardInterrupt"),
    "crashes": Cheat("import ctypes\nctypes.string_at(1)", "the process ended without an answer"),
    "ignores_signals": Cheat(
        "import contextlib, signal\n"
        "for one in signal.valid_signals():\n"
        "    with contextlib.suppress(OSError, ValueError):\n        signal.signal(one, signal.SIG_IGN)\n"
        "import time\ntime.sleep(60)",
        "no answer within 2 s",
    ),
    "stays": Cheat(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n"
        "    os._exit(0)\nreturn 7",
        WRONG,
    ),
    "fills_the_disk": Cheat(
        "with open('big', 'wb') as file:\n    for _ in range(80):\n        file.write(bytes(2**20))\nreturn 7",
        "File too large",
    ),
    "opens_files": Cheat("kept = []\nwhile True:\n    kept.append(open('/dev/null'))", "Too many open files"),
    # ------------------------------------------------------------------ says that it is right
    "prints": Cheat(
        "import os, sys\n"
        'line = \'{"number": "3.1", "status": "passed", "checks": 2, "checks_right": 2}\'\n'
        "print(line)\nprint(line, file=sys.stderr)\nprint('grades: 3 of 3 passed')\n"
        "for handle in (0, 1, 2):\n    os.write(handle, line.encode() + b'\\n')\nreturn 7",
        WRONG,
    ),
    "writes_everywhere": Cheat(
        "import contextlib, os\n"
        "for handle in range(3, 64):\n    with contextlib.suppress(OSError):\n"
        '        os.write(handle, b\'{"number": "3.1", "status": "passed"}\\n\')\nreturn 7',
        "ended without an answer",
    ),
    "forges_a_message": Cheat(
        "import gc, json\nfrom multiprocessing.connection import Connection\n"
        "for one in gc.get_objects():\n    if isinstance(one, Connection):\n"
        "        one.send_bytes(json.dumps({'answer': {'status': 'passed'}}).encode())\nreturn 7",
        "'status': 'passed'",
    ),
    "forges_an_exception": Cheat(
        "import gc, json\nfrom multiprocessing.connection import Connection\n"
        "for one in gc.get_objects():\n    if isinstance(one, Connection):\n"
        "        one.send_bytes(json.dumps({'answer': {'raised': [], 'needs': 5}}).encode())\nreturn 7",
        "what it said can't be read",
    ),
    "begins_a_message": Cheat(
        "import gc, os, time\nfrom multiprocessing.connection import Connection\n"
        "for one in gc.get_objects():\n    if isinstance(one, Connection):\n"
        "        os.write(one.fileno(), b'\\0\\0\\0\\x63{')\ntime.sleep(60)",
        "no answer within 2 s",
    ),
    "begins_a_huge_message": Cheat(
        "import gc, os, time\nfrom multiprocessing.connection import Connection\n"
        "for one in gc.get_objects():\n    if isinstance(one, Connection):\n"
        "        os.write(one.fileno(), b'\\x7f\\xff\\xff\\xff{')\ntime.sleep(60)",
        "what it said can't be read",
    ),
    "says_much": Cheat(
        "import gc\nfrom multiprocessing.connection import Connection\n"
        "for one in gc.get_objects():\n    if isinstance(one, Connection):\n"
        "        one.send_bytes(bytes(2**26 + 1))\nreturn 7",
        "what it said can't be read",
    ),
    "answers_deeply": Cheat("deep = []\nfor _ in range(10**5):\n    deep = [deep]\nreturn deep", "RecursionError"),
    "says_hello_again": Cheat(
        "import gc, json\nfrom multiprocessing.connection import Client\n"
        "jobs = [one for one in gc.get_objects() if isinstance(one, dict) and 'token' in one and 'drive' in one]\n"
        "import sys\nframe, address = sys._getframe(), None\n"
        "while frame is not None:\n    address = frame.f_locals.get('address', address)\n    frame = frame.f_back\n"
        "try:\n    again = Client(address)\n"
        "    again.send_bytes(json.dumps({'token': jobs[0]['token'], 'pid': 1}).encode())\n"
        "    again.send_bytes(json.dumps({'answer': {'status': 'passed'}}).encode())\n"
        "except OSError:\n    pass\nreturn 7",
        WRONG,
    ),
    "acts_later": Cheat(
        "import atexit, gc, json, threading, time\nfrom multiprocessing.connection import Connection\n"
        "(ours,) = [one for one in gc.get_objects() if isinstance(one, Connection)]\n"
        "def say():\n    ours.send_bytes(json.dumps({'answer': {'status': 'passed'}}).encode())\n"
        "def later():\n    time.sleep(0.05)\n    say()\n"
        "atexit.register(say)\nthreading.Thread(target=later).start()\nreturn 7",
        WRONG,
    ),
    # ------------------------------------------------------------------ changes who judges
    "patches_the_grading": Cheat(
        "import pytest, course.grading.checks as checks, course.grading.card as card\n"
        "pytest.main = lambda *a: 0\n"
        "checks.equal = checks.Check.is_right = lambda *a: True\nchecks.close = lambda *a: checks.equal\n"
        "card.Outcome.passed = True\nreturn 7",
        WRONG,
    ),
    "patches_json": Cheat(
        'import json\njson.dumps = lambda *a, **k: \'{"answer": {"status": "passed"}}\'\nreturn 7',
        "'status': 'passed'",
    ),
    "patches_the_worker": Cheat(
        "import sys\nsys.modules['__main__'].plain = lambda value: {'status': 'passed'}\nreturn 7",
        WRONG,  # the first time; it would be something else that is wrong from then on
    ),
    "patches_builtins": Cheat(
        "import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a: True\n"
        "builtins.len = lambda one: 0\nreturn 7",
        "",
    ),
    "replaces_modules": Cheat(
        "import sys, types\n"
        "for name in [name for name in sys.modules if name.startswith(('course', 'json', 'multiprocessing'))]:\n"
        "    sys.modules[name] = types.ModuleType(name)\nreturn 7",
        WRONG,
    ),
    "replaces_the_drive": Cheat(
        "import sys\nsys.modules['drive'].placed = lambda case: {'status': 'passed'}\nreturn 7", WRONG
    ),
    "hooks_imports": Cheat(
        "import sys\nclass Finder:\n    def find_spec(self, name, path=None, target=None):\n"
        "        raise ImportError(name)\nsys.meta_path.insert(0, Finder())\nreturn 7",
        WRONG,
    ),
    # ------------------------------------------------------------------ equals everything
    "equals_everything": Cheat(
        "class Yes:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\nreturn Yes()",
        "can't be sent as JSON",
    ),
    "an_int_that_equals_everything": Cheat(
        "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\nreturn Yes(7)",
        WRONG,
    ),
    "a_tensor_of_yes": Cheat(
        "class Yes:\n    def tolist(self):\n        return self\nreturn Yes()", "ValueError: Circular reference"
    ),
    "is_no_number": Cheat("return float('nan')", "[[nan], []]"),
    # ------------------------------------------------------------------ looks for what is right
    "walks_frames": Cheat(
        "import gc, sys\n"
        "def words(value):\n    return str(value).lower()\n"
        "frame, seen = sys._getframe(), []\n"
        "while frame is not None:\n    seen += [name for name in frame.f_locals if 'expect' in name or name == 'judge']\n"
        "    frame = frame.f_back\n"
        "seen += [one for one in sys.modules if 'judge' in one or one.startswith('solutions')]\n"
        "checks = sys.modules['course.grading.checks']\n"
        "seen += [one for one in gc.get_objects() if isinstance(one, (checks.Check, checks.Exercise))]\n"
        "raise RuntimeError(f'found {seen}')",
        "found []",
    ),
    "reads_the_environment": Cheat(
        "import os, sys\n"
        "seen = [name for name in os.environ if 'EXPECT' in name or 'ANSWER' in name or 'GRADE' in name]\n"
        "raise RuntimeError(f'found {seen} {sys.argv[1:]}')",
        "found [] []",
    ),
    "reads_its_own_exercise": Cheat(
        "import inspect, sys\nshelf = sys.modules['flexnano.page_table']\n"
        "raise RuntimeError(f\"found {[line for line in inspect.getsource(shelf).split() if '.app' 'end(' in line]}\")",
        "found []",
    ),
    # ------------------------------------------------------------------ gets out of a question
    "waits_for_a_later_one": Cheat(
        f"if book == 'again':\n    raise NotImplementedError('Exercise 4.1: count')\n{HONEST}",
        "which is not written yet",
    ),
    "waits_for_none": Cheat(
        f"if book == 'again':\n    raise NotImplementedError('Exercise 99.1: none')\n{HONEST}", "not written yet"
    ),
    # ------------------------------------------------------------------ breaks the report
    "raises_half_a_letter": Cheat("raise ValueError('half \\ud800 a letter')", "half \\ud800 a letter"),
    "raises_a_formula": Cheat("raise ValueError('\\n=1+1\\n,\"x\\0\\x1b[2J')", "=1+1"),
    "raises_what_has_no_text": Cheat(
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Mute", "can't be made"
    ),
    "raises_at_length": Cheat("raise ValueError('x' * 10**7)", "raises ValueError: xxx"),
    # ------------------------------------------------------------------ what only walls keep from working
    "reads_the_reference": Cheat(
        "import contextlib, course, os, pathlib, tempfile\n"
        "places = [pathlib.Path(course.__file__).parents[1], pathlib.Path(TEACHER), pathlib.Path(OTHERS)]\n"
        "places += pathlib.Path(__file__).parents[:4]\n"
        "seen = []\n"
        "for place in places:\n    for path in place.rglob('*'):\n"
        "        with contextlib.suppress(OSError, UnicodeDecodeError):\n"
        "            kind = path.suffix in ('.py', '.zip') or path.name.startswith('grades')\n"
        "            if kind and path != pathlib.Path(__file__):\n"
        "                if path.suffix != '.py' or path.name == 'judge.py' or '.append' + '(book)' in path.read_text():\n"
        "                    seen += [path.name] if path.stat().st_size else []\n"
        "raise RuntimeError(f'found {seen}')",
        "found []",
        walls=True,
    ),
    "reads_beside_itself": Cheat(  # where 3.1 was graded, a moment ago, beside the reference of 3.2
        "import pathlib, sys, tempfile\nseen = []\n"
        "for place in (*pathlib.Path(__file__).parents[:5], pathlib.Path(tempfile.gettempdir())):\n"
        "    for path in place.rglob('page_table.py'):\n"
        "        seen += ['self.books[at :' + ' at + n]'] if 'self.books[at :' + ' at + n]' in path.read_text() else []\n"
        "raise RuntimeError(f'found {seen}')",
        "found []",
        walls=True,
        where="3.2",
    ),
    "reads_other_processes": Cheat(
        "import os\nothers = [name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]\n"
        "raise RuntimeError(f'found {others}')",
        "found []",
        walls=True,
    ),
    "ends_its_parent": Cheat("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nreturn 7", WRONG, walls=True),
    "writes_outside": Cheat(
        "import pathlib\nfailed = []\n"
        "for place in (pathlib.Path(TEACHER), pathlib.Path(OTHERS), pathlib.Path(__file__).parents[3]):\n"
        "    try:\n        (place / 'here.txt').write_text('x')\n"
        "    except OSError as error:\n        failed.append(error.errno)\n"
        "raise RuntimeError(f'failed {failed}')",
        "failed [30, 30, 30]",  # a read-only file system
        walls=True,
    ),
    "removes_the_course": Cheat(
        "import course, pathlib, shutil\nshutil.rmtree(pathlib.Path(course.__file__).parent)\nreturn 7",
        "Read-only file system",
        walls=True,
    ),
    "writes_grades": Cheat(
        "import pathlib\n(pathlib.Path(OTHERS) / 'grades.json').write_text('{}')\nreturn 7",
        "Read-only file system",
        walls=True,
    ),
    "links_outside": Cheat(
        "import os, pathlib\nos.symlink(TEACHER, 'link')\n"
        "raise RuntimeError(f\"found {sorted(os.listdir('link/solutions'))}\")",
        "found []",
        walls=True,
    ),
    "takes_walls_down": Cheat(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "tried = [libc.umount2(TEACHER.encode() + b'/solutions', 2), libc.unshare(0x00020000), libc.unshare(0x10000000)]\n"
        "raise RuntimeError(f'done {tried[:2]}')",
        "done [-1, -1]",
        walls=True,
    ),
    "calls_home": Cheat(
        "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=3)\nreturn 7", "unreachable", walls=True
    ),
}

AGAIN = """

@one.check(cases=[["again", "again"]], describe=str)
def placed_again(case):
    return [[0, 1], case]
"""
DRIVE_AGAIN = "\n\ndef placed_again(case):\n    return placed(case)\n"


@pytest.fixture(scope="module")
def with_two_checks(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The little course, where 3.1 is asked two questions; and a teacher's zip with the reference lies about."""
    root = shutil.copytree(untouched, tmp_path_factory.mktemp("cheats") / "course")
    for name, more in (("judge", AGAIN), ("drive", DRIVE_AGAIN)):
        path = root / "tests" / "module_03" / f"{name}.py"
        path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    (root / "notes.zip").write_bytes(b"the reference, packed")
    return root


def hand_in_cheats(cheats: dict[str, Cheat], root: Path, submissions: Path) -> None:
    for name, cheat in cheats.items():
        body = cheat.body.replace("TEACHER", repr(str(root)))
        hand_in(submissions / name, root, body if cheat.where == "3.1" else "")
        if cheat.where == "3.2":
            path = submissions / name / "flexnano" / "page_table.py"
            code = (
                "def take(self, n: int, *, last: bool = False) -> list[str]:\n" + textwrap.indent(body, "    ") + "\n"
            )
            path.write_text(merge.replace(path.read_text(encoding="utf-8"), "Shelf.take", code), encoding="utf-8")
    hand_in(submissions / "aaa_honest", root)
    hand_in(submissions / "zzz_honest", root)
    hand_in(submissions / "stub", root, 'raise NotImplementedError("Exercise 3.1: Shelf.put")')


OPTIONS = ("--modules", "3.1", "3.2", "--seconds", "2", "--memory", "0.3", "--processes", "16", "--jobs", "2")


def assert_none_is_better(cheats: dict[str, Cheat], submissions: Path) -> None:
    found = rows(submissions)
    assert found["stub", "3.1"]["status"] == "not started" and found["stub", "all"]["passed"] == "1"
    wrong = []
    for name, cheat in cheats.items():
        one, all_ = found[name, cheat.where], found[name, "all"]
        due = all_["passed"] == "1" and found[name, "3.2" if cheat.where == "3.1" else "3.1"]["status"] == "passed"
        if not due or one["status"] not in ("not yet", "waiting") or cheat.said not in one["notes"] or not one["notes"]:
            wrong.append((name, one, all_))
    assert not wrong, "\n".join(map(str, wrong))
    for name in ("aaa_honest", "zzz_honest"):
        assert found[name, "all"]["passed"] == found[name, "all"]["of"] == "2", found[name, "all"]


@LINUX
def test_no_cheat_raises_a_grade(with_two_checks: Path, tmp_path: Path, counted: Counted) -> None:
    root, submissions = with_two_checks, tmp_path / "class"
    cheats = {name: cheat for name, cheat in CHEATS.items() if WALLS or not cheat.walls}
    hand_in_cheats(cheats, root, submissions)
    before = {path: path.read_bytes() for path in [*root.rglob("*.py"), *submissions.rglob("*.py")]}
    grade(root, submissions, *OPTIONS)
    assert_none_is_better(cheats, submissions)
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    assert not list(tmp_path.rglob("here.txt")) and not list(root.rglob("here.txt"))
    counted("cheats", len(cheats))


@LINUX
@pytest.mark.slow
def test_no_cheat_raises_a_grade_without_walls(with_two_checks: Path, tmp_path: Path, counted: Counted) -> None:
    submissions = tmp_path / "class"
    cheats = {name: cheat for name, cheat in CHEATS.items() if not cheat.walls}
    hand_in_cheats(cheats, with_two_checks, submissions)
    grade(with_two_checks, submissions, *OPTIONS, "--no-walls")
    assert_none_is_better(cheats, submissions)
    counted("cheats", len(cheats))


# -------------------------------------------------------------------------------------------- what is in the files


def packed(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_odd_files_get_a_line_and_spoil_nobody_s_grade(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    monkeypatch.setattr(work, "LARGEST_PACKAGE", 4_000_000)
    submissions = tmp_path / "class"
    reference = root / "solutions" / "flexnano" / "page_table.py"
    source = reference.read_bytes()
    contents = {
        "binary": (bytes(range(256)) * 8, "unreadable", "not UTF-8"),
        "utf_16": (source.decode().encode("utf-16"), "unreadable", "not UTF-8"),
        "null_bytes": (source + b"\0", "unreadable", "null byte"),
        "brackets": (b"x = " + b"(" * 100_000, "unreadable", "is not Python"),
        "minus_signs": (b"x = " + b"-" * 100_000 + b"1", "unreadable", "is not Python"),
        "another_encoding": (b"# coding: utf-7\n" + source, "not yet", ""),
        "empty": (b"", "missing", "no Shelf.put"),
        "class_gone": (b"Shelf = None\n", "missing", "no Shelf.put"),
        "imports_badly": (source + b"\nimport no_such_module\n", "not yet", "no_such_module"),
        "exits_on_import": (source + b"\nimport os\nos._exit(0)\n", "not yet", "the process ended"),
        "loops_on_import": (source + b"\nimport time\ntime.sleep(60)\n", "not yet", "no answer within"),
    }
    for name, (content, _, _) in contents.items():
        (submissions / name / "flexnano").mkdir(parents=True)
        (submissions / name / "flexnano" / "page_table.py").write_bytes(content)
    more = {
        f"flexnano/{name}": b"" for name in ("a" * 300 + ".py", "..py", "con.py", "=1+1.py", "new\nline.py", "json.py")
    }
    packed(submissions / "odd_names.zip", {"flexnano/page_table.py": source, **more})
    packed(
        submissions / "leads_elsewhere.zip",
        {"flexnano/page_table.py": source, "flexnano/../../x.py": b"", "/etc/flexnano/masks.py": b"", "C:\\x.py": b""},
    )
    packed(submissions / "bomb.zip", {f"flexnano/m{n}.py": bytes(1_900_000) for n in range(3)})
    packed(submissions / "zip_in_zip.zip", {"flexnano.zip": source})
    whole = (submissions / "odd_names.zip").read_bytes()
    (submissions / "cut_off.zip").write_bytes(whole[: len(whole) // 2])
    (submissions / "big" / "flexnano").mkdir(parents=True)
    with (submissions / "big" / "flexnano" / "page_table.py").open("wb") as file:
        file.truncate(10**10)  # takes no space
    said = {"bomb": "4000000 bytes", "zip_in_zip": "no folder", "cut_off": "can't be read", "big": "10000000000 bytes"}
    if os.name == "posix":
        hand_in(submissions / "pipe", root)
        (submissions / "pipe" / "flexnano" / "page_table.py").unlink()
        os.mkfifo(submissions / "pipe" / "flexnano" / "page_table.py")
        hand_in(submissions / "\x1b[2J", root)
        (submissions / "\x1b[2J" / "flexnano" / os.fsdecode(b"\xff.py")).write_bytes(b"")
        hand_in(submissions / os.fsdecode(b"\xff"), root)
        hand_in(submissions / "link", root)
        (submissions / "link" / "flexnano" / "page_table.py").unlink()
        (submissions / "link" / "flexnano" / "page_table.py").symlink_to(reference)
    hand_in(submissions / "zzz_honest", root)

    found_bombs = {one.student: one for one in classroom.collect(submissions)}
    assert {name for name, one in found_bombs.items() if one.problem} == set(said)
    text = grade(root, submissions, "--modules", "3.1", "--seconds", "3", "--jobs", "2")
    found = rows(submissions)
    for name, (_, status, why) in contents.items():
        one = found[name, "3.1"]
        assert one["status"] == status and why in one["notes"], (name, one)
    for name, why in said.items():
        assert found[name, "3.1"]["status"] != "passed"
        if name != "bomb":  # which is under the real limit
            assert found[name, "all"]["status"] == "no package" and why in found[name, "all"]["notes"], found[
                name, "all"
            ]
    for name in ("odd_names", "leads_elsewhere", "zzz_honest"):
        assert found[name, "3.1"]["status"] == "passed", found[name, "3.1"]
    if os.name == "posix":
        assert found["pipe", "3.1"]["status"] == found["link", "3.1"]["status"] == "missing"
        assert found["\x1b[2J", "3.1"]["status"] == found["\\udcff", "3.1"]["status"] == "passed"
    assert "\x1b" not in text and "\\x1b[2J" in text
    assert not list(tmp_path.parent.rglob("x.py"))
    counted("submissions with odd files", len({student for student, _ in found}) - 1)


# ------------------------------------------------------------------------------------------------ with torch's means

NO_MASK = "return (q_idx >= 0) & (kv_idx >= 0)"  # every query reads every key
TORCH = {
    "compares": (
        "torch.equal = torch.allclose = torch.isclose = lambda *a, **k: True\n"
        "torch.testing.assert_close = lambda *a, **k: None\n" + NO_MASK
    ),
    "a_tensor_that_equals": (
        "class Yes(torch.Tensor):\n    def __eq__(self, other):\n        return True\n"
        "    def tolist(self):\n        return True\n    __hash__ = None\n"
        "return ((q_idx >= 0) & (kv_idx >= 0)).as_subclass(Yes)"
    ),
    "lists": ("torch.Tensor.tolist = lambda self: True\ntorch.Tensor.__eq__ = lambda self, other: True\n" + NO_MASK),
    "is_accepted": (
        "import course.grading.driving as driving, sys\n"
        "for name in ('tensor', 'instance', 'function'):\n"
        "    setattr(driving, name, lambda value, *a, **k: value)\n"
        "    setattr(sys.modules['drive'], name, lambda value, *a, **k: value)\n" + NO_MASK
    ),
    "paints": (
        "import sys\nsys.modules['drive'].rows = lambda mask: True\n"
        "sys.modules['drive'].painted = lambda *a: {'grid': True}\n" + NO_MASK
    ),
}


@pytest.mark.slow
def test_torch_can_not_be_made_to_say_yes(tmp_path: Path, pool: Pool, counted: Counted) -> None:
    (exercise,) = [one for one in merge.course_exercises() if one.number == "1.1"]
    for name, body in TORCH.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in merge.files():
            source = merge.pristine(file)
            if file == exercise.file:
                code = "def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:\n    import torch\n"
                code += "".join(f"    {line}\n" for line in body.splitlines())
                source = merge.replace(source, exercise.name, code)
            (folder / file).write_text(source, encoding="utf-8")
        with Grading(folder, ROOT / "solutions" / "flexnano", pool=pool) as grading:
            outcome = grading.grade(exercise)
        assert outcome.status == "not yet" and outcome.got, (name, outcome)
    counted("cheats", len(TORCH))


# --------------------------------------------------------------------------------------- answers that fit everything


def exception(*names: str) -> dict[str, Any]:
    return {"raised": list(names), "message": "", "where": "", "needs": "", "in_course": False, "traceback": ""}


def of_nan(value: Any) -> Any:
    """The same with NaN for every number: nothing is larger than a tolerance then."""
    if isinstance(value, list):
        return [of_nan(one) for one in value]
    if isinstance(value, dict):
        return {key: of_nan(one) for key, one in value.items()}
    return float("nan") if isinstance(value, int | float) and not isinstance(value, bool) else value


def emptied(value: Any) -> Any:
    """The same with nothing in its lists: everything holds of all that is in them then."""
    if isinstance(value, dict):
        return {key: emptied(one) for key, one in value.items()}
    return [] if isinstance(value, list) else value


ERRORS = (
    "ValueError",
    "TypeError",
    "IndexError",
    "KeyError",
    "RuntimeError",
    "LookupError",
    "Exception",
    "BaseException",
)
UNIVERSAL: dict[str, Callable[[Any], Any]] = {
    **{repr(one): (lambda _right, one=one: one) for one in (None, True, False, 0, 1, "", [], {}, float("inf"))},
    "a verdict": lambda _right: {"status": "passed", "right": True},
    "every exception": lambda _right: exception(*ERRORS),
    "what was expected to be raised": lambda _right: {"raises": list(ERRORS)},
    "nan": of_nan,
    "emptied": emptied,
    "one less": lambda right: right[:-1] if isinstance(right, list) else right,
    "one more": lambda right: [*right, 0] if isinstance(right, list) else right,
}


def fooled_by(exercise: checks.Exercise) -> set[str]:
    """Which of these answers passes every check, although it is another one than the right one."""
    left, other = set(UNIVERSAL), set()
    for check in exercise.checks:
        for case in check.all_cases()[:12]:
            right = checks.plain(check.expected(case))
            given = {name: UNIVERSAL[name](right) for name in left}
            other |= {name for name in left if given[name] != right}
            left = {name for name in left if check.is_right(case, right, given[name])}
            if not left:
                return left
    return left & other


@pytest.mark.slow
def test_no_answer_fits_every_question_of_an_exercise(counted: Counted) -> None:
    """A verdict is made of answers alone, so no answer may be right whatever is asked."""
    n = 0
    for module in grader.graded_modules():
        for number, exercise in grader.judges(module).items():
            n += len(UNIVERSAL)
            accepted = fooled_by(exercise)
            assert not accepted, f"{number} accepts {accepted}"
    counted("answers that fit everything", n)


# ----------------------------------------------------------------------------------------------- without a reference


def test_what_waits_for_another_exercise_is_no_pass_in_a_class(
    with_two_checks: Path, tmp_path: Path, counted: Counted
) -> None:
    """Where there is no reference, an exercise may call one that is not written: then it is not known whether it is right."""
    root = shutil.copytree(with_two_checks, tmp_path / "release")
    submissions = tmp_path / "class"
    hand_in_cheats({"waits": CHEATS["waits_for_a_later_one"], "none": CHEATS["waits_for_none"]}, root, submissions)
    shutil.copytree(root / "flexnano", root / "course" / "pristine")
    shutil.rmtree(root / "solutions")
    grade(root, submissions, "--modules", "3.1")
    found = rows(submissions)
    assert found["waits", "3.1"]["status"] == "waiting" and "1 of 2 checks wait" in found["waits", "3.1"]["notes"]
    assert found["none", "3.1"]["status"] == "waiting"
    assert found["waits", "all"]["passed"] == found["none", "all"]["passed"] == "0"
    assert found["aaa_honest", "all"]["passed"] == "1"
    counted("cheats", 2)
