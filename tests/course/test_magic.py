"""`%%exercise`: a cell goes into the learner's file whole or not at all, lives at once, and nothing written is ever lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import little_course
import pytest
from little_course import PAGE_TABLE, PUT, TAKE, WRONG_PUT

from course import stubs
from course.environment import ROOT
from course.exercises import Exercise, in_source
from course.grading import merge
from course.magic import cell as cells
from course.magic import place
from course.magic.cell import NotTaken

PRISTINE = stubs.with_header(stubs.strip_solutions(PAGE_TABLE, "page_table.py"), "page_table.py")
EXERCISES = {one.number: one for one in in_source(PRISTINE, "page_table.py")}
PUT_3_1, TAKE_3_2, LABEL_3_3 = (EXERCISES[number] for number in ("3.1", "3.2", "3.3"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return little_course.make(tmp_path_factory.mktemp("course") / "made")


@pytest.fixture
def course(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A course in which nothing is written yet."""
    yield shutil.copytree(made, tmp_path / "course")


def in_shell(course: Path, script: str, **variables: str) -> str:
    """Run a script with a shell that has the extension loaded: `cell(text)` runs a cell and gives back what it showed."""
    begin = """
        import io, json, os, sys
        from contextlib import redirect_stdout
        from pathlib import Path
        from IPython.core.interactiveshell import InteractiveShell
        sys.path.append({tests!r})
        from little_course import PUT, TAKE, WRONG_PUT, function, write
        shell = InteractiveShell.instance(colors="NoColor")
        root = Path.cwd()

        def cell(text, ok=True):
            with redirect_stdout(io.StringIO()) as said:
                result = shell.run_cell(text)
            assert result.success is ok, said.getvalue()
            return said.getvalue()

        def bench():
            from course.magic import magics
            return magics._loaded[id(shell)].bench

        cell("%load_ext course")
    """
    begin = textwrap.dedent(begin).replace("{tests!r}", repr(str(Path(__file__).parent)))
    return little_course.run(course, begin + textwrap.dedent(script), **variables)


# ------------------------------------------------------------------------------------------------- reading a cell


def read(exercise: Exercise, text: str) -> cells.Cell:
    return cells.read(text, exercise, PRISTINE)


@pytest.mark.parametrize(
    ("exercise", "text", "why", "line"),
    [
        ("3.1", "", "empty", 0),
        ("3.1", "\n\ndef put(self, book: str) -> int:\n    return len((1, 2)\n", "not Python", 5),
        ("3.1", "%timeit 1\n" + PUT, "no magics", 2),
        ("3.1", PUT.replace("def put", "def putt"), "define `put`, but `putt`", 2),
        ("3.1", "put = len\n", "has to be a function", 2),
        ("3.1", "x = 1\n", "does not define `put`", 0),
        ("3.1", "class Shelf:\n" + textwrap.indent(PUT, "    "), "without its class", 2),
        ("3.1", "if True:\n" + textwrap.indent(PUT, "    "), "at the top of the cell", 3),
        ("3.1", PUT + PUT, "twice", 5),
        ("3.1", "async " + PUT, "different things", 2),
        ("3.1", PUT.replace("book: str", "title: str"), "`book` missing; `title` not asked for", 2),
        ("3.1", PUT.replace("self, ", ""), "`self` missing", 2),
        ("3.1", PUT.replace("self, book: str", "book: str, self"), "the order", 2),
        ("3.2", TAKE.replace("*, ", ""), "another kind", 2),
        ("3.1", PUT + "print(Shelf().put('a'))\n", "cell of their own", 5),
        ("3.1", PUT + "assert True\n", "cell of their own", 5),
        ("3.1", PUT + "def take(self, n, *, last=False): return []\n", "is exercise 3.2", 5),
        ("3.1", PUT + "def label(n): return ''\n", "is exercise 3.3", 5),
        ("3.1", PUT + "def free(self): return 1\n", "is given", 5),
        ("3.1", PUT + "PLACES = 9\n", "means something else", 5),
        ("3.1", PUT + "class Shelf: pass\n", "means something else", 5),
        ("3.1", PUT + "from numpy import array as math\n", "means something else", 5),
        ("3.1", PUT + "a = 1; b = 2\n", "one statement a line", 5),
        ("3.1", PUT + "A = 1\nA = 2\n", "there twice", 6),
        ("3.1", "def put(self, book):\n    return '\0'\n", "not Python", 0),
    ],
)
def test_a_cell_that_can_not_be_taken_says_where_and_why(exercise: str, text: str, why: str, line: int) -> None:
    with pytest.raises(NotTaken) as refused:
        read(EXERCISES[exercise], text)
    assert why in refused.value.why, refused.value.why
    assert refused.value.line == line
    assert refused.value.expected.startswith("def ")


@pytest.mark.parametrize(
    "text",
    [
        PUT,
        textwrap.indent(PUT, "    "),
        "\n\n# my idea\n" + PUT + "\n",
        PUT.replace("    ", "\t"),
        PUT.replace("\n", "\r\n"),
        PUT.replace("book: str", "book").replace(" -> int", ""),
        PUT.replace("book: str", "book: str, quickly: bool = True"),
        "from __future__ import annotations\n" + PUT,
        '"""What I think."""\n' + PUT,
        "import math, torch\nfrom flexnano import Shelf\nfrom .page_table import Shelf\n" + PUT,
    ],
)
def test_what_people_write_around_a_function_is_taken(text: str) -> None:
    cell = read(PUT_3_1, text)
    assert cell.node.name == "put" and not cell.untouched
    new = place.put(PRISTINE, PUT_3_1, cell)
    compile(new, "page_table.py", "exec")
    assert "self.books.append(book)" in new and new.count("class Shelf") == 1 and "import Shelf" not in new


def test_the_stub_is_known_as_such_also_with_another_docstring() -> None:
    stub = merge.parts(PRISTINE)["Shelf.put"].text(PRISTINE)
    assert read(PUT_3_1, stub).untouched
    assert read(PUT_3_1, stub.replace("Put a book", "I will put a book")).untouched


# ------------------------------------------------------------------------------------------------ into the file


WEIRD = {
    "as it is": PAGE_TABLE,
    "CRLF": PAGE_TABLE.replace("\n", "\r\n"),
    "tabs": PAGE_TABLE.replace("    ", "\t"),
    "no final newline": PAGE_TABLE.rstrip("\n"),
    "not ASCII, form feed": PAGE_TABLE.replace("USED = ", "ÄÖ = '\u2028 \x0c 漢字 🙂'\n\x0c\nUSED = "),
    "byte order mark": "\ufeff" + PAGE_TABLE,
    "white space at ends of lines": PAGE_TABLE.replace("\n\n", "  \n\n"),
    "comments at the end of a body": PAGE_TABLE.replace(
        "        ### END SOLUTION", "        ### END\n\n        # more"
    ),
}


@pytest.mark.parametrize("name", WEIRD)
@pytest.mark.parametrize("exercise", [PUT_3_1, TAKE_3_2, LABEL_3_3], ids=str)
def test_only_the_function_changes(name: str, exercise: Exercise) -> None:
    source = WEIRD[name]
    code = {"3.1": PUT, "3.2": TAKE, "3.3": "def label(n: int) -> str:\n    return '→'  # 漢\n"}[exercise.number]
    new = place.put(source, exercise, read(exercise, code))
    plain, plain_new = source.removeprefix("\ufeff"), new.removeprefix("\ufeff")
    old_part, new_part = merge.parts(plain)[exercise.name], merge.parts(plain_new)[exercise.name]
    lines, new_lines = merge.lines_of(source), merge.lines_of(new)
    assert new_lines[: new_part.begin] == lines[: old_part.begin]
    assert new_lines[new_part.end :] == lines[old_part.end :]
    assert merge.dedented(new_part.text(plain_new)) == merge.dedented(code)
    if name == "CRLF":
        assert "\n" not in new.replace("\r\n", "")
    assert place.put(new, exercise, read(exercise, code)) == new, "a second time changes something"


def test_strings_keep_what_stands_in_them() -> None:
    code = 'def put(self, book: str) -> int:\n    """Doc.\n\n    More.\n    """\n    self.t = f"""a\n{book}\n  b"""\n'
    code += "    return 1\n"
    new = place.put(PRISTINE, PUT_3_1, read(PUT_3_1, code))
    space: dict[str, Any] = {}
    exec(compile(new, "page_table.py", "exec"), space)
    shelf = space["Shelf"]()
    shelf.put("x")
    assert shelf.t == "a\nx\n  b" and '        """Doc.\n\n        More.' in new
    assert merge.dedented(merge.parts(new)["Shelf.put"].text(new)) == code


def test_helpers_imports_and_constants_go_along_and_are_replaced_by_their_next_version() -> None:
    first = (
        "import itertools\nimport math\nfrom flexnano import Shelf\nSTEP = 1\n\n@staticmethod\ndef _at(n):\n    return n\n\n"
        "def _helper(x, step=STEP):\n    return x + step\n\n" + PUT + "\ndef _own(self):\n    return self.books\n"
    )
    new = place.put(PRISTINE, PUT_3_1, read(PUT_3_1, first))
    space: dict[str, Any] = {}
    exec(compile(new, "page_table.py", "exec"), space)
    assert space["_helper"](1) == 2 and space["Shelf"]()._own() == [] and space["Shelf"]._at(3) == 3
    assert new.count("import itertools") == 1 and new.count("import math") == 1 and "import Shelf" not in new
    second = (
        first.replace("STEP = 1", "STEP = 5")
        .replace("return x + step", "return x - step")
        .replace("return n\n", "return -n\n")
    )
    newer = place.put(new, PUT_3_1, read(PUT_3_1, second))
    assert len(newer.splitlines()) == len(new.splitlines())
    exec(compile(newer, "page_table.py", "exec"), space)
    assert space["_helper"](1) == -4 and space["Shelf"]._at(3) == -3
    rest = "# ---------------------------------------------------------- a shelf\nclass Shelf:"
    assert rest in new, "a helper came between a comment and what it is about"


def test_a_file_that_is_no_python_or_lost_the_class_is_left_alone() -> None:
    with pytest.raises(NotTaken, match="line 1"):
        place.put("def (:\n" + PRISTINE, PUT_3_1, read(PUT_3_1, PUT))
    with pytest.raises(NotTaken, match="course reset 3"):
        place.put("x = 1\n", PUT_3_1, read(PUT_3_1, PUT))


def test_a_function_that_was_deleted_comes_back() -> None:
    part = merge.parts(PRISTINE)["Shelf.take"]
    new = place.put(PRISTINE.replace(part.text(PRISTINE), ""), TAKE_3_2, read(TAKE_3_2, TAKE))
    assert "Shelf.take" in merge.parts(new)


# ------------------------------------------------------------------------------------------------- living code


def test_instances_and_names_from_before_use_the_new_code(course: Path) -> None:
    in_shell(
        course,
        """
        from flexnano import Shelf, label
        from flexnano.page_table import Shelf as again
        shelf, put, bound = Shelf(), Shelf.put, Shelf().put
        cell("%%exercise 3.1\\n" + PUT)
        assert shelf.put("a") == 0 and shelf.put("b") == 1 and bound("c") == 0 and put(shelf, "d") == 2
        assert Shelf is again and isinstance(shelf, Shelf)
        label_7 = "def label(n: int = 7) -> str:\\n    return _number(n)\\n"
        cell("%%exercise 3.3\\nWORD = 'no '\\ndef _number(n): return WORD + str(n)\\n\\n" + label_7)
        assert label() == "no 7" and label(1) == "no 1"
        cell("%%exercise 3.3\\nWORD = 'No. '\\n" + label_7.replace("7", "8"))
        assert label() == "No. 8"
        import traceback
        cell("%%exercise 3.3\\ndef label(n: int) -> str:\\n    return 1 / 0\\n")
        try:
            label(1)
        except ZeroDivisionError as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
        assert frame.line == "return 1 / 0" and frame.filename == str(root / "flexnano" / "page_table.py"), frame
        """,
    )


def test_every_kind_of_function_is_mended(tmp_path: Path) -> None:
    before = """
        import functools
        class Base:
            def hello(self): return "base"
        def deco(f):
            @functools.wraps(f)
            def wrapper(*args): return f(*args)
            return wrapper
        class A(Base):
            WORD = "x"
            @property
            def p(self): return 1
            @staticmethod
            def s(): return 1
            @classmethod
            def c(cls): return (cls, 1)
            @deco
            def d(self): return 1
            def hello(self): return super().hello() + "1"
            def __private(self): return 1
            def mangled(self): return self.__private()
            def default(self, word=WORD): return word
        def top(x=1): return x
        @functools.cache
        def cached(): return 1
        def make(n):
            def inner(): return n
            return inner
    """
    after = textwrap.dedent(before).replace("return 1", "return 2").replace("1)", "2)").replace('"1"', '"2"')
    after = after.replace("word=WORD): return word", "word=WORD): return word * 2").replace("return n", "return -n")
    (tmp_path / "before.py").write_text(textwrap.dedent(before))
    script = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import before
        from before import A, top, cached, make
        from course.magic import live
        a, d = A(), A.d
        live.apply(before, {after!r}, "after.py")
        assert (a.p, a.s(), a.c(), a.d(), d(a), a.mangled(), a.default()) == (2, 2, (A, 2), 2, 2, 2, "xx")
        assert a.hello() == "base2" and top() == 2 and cached() == 2 and make(3)() == -3
    """
    little_course.run(ROOT, textwrap.dedent(script))


def test_what_does_not_run_is_not_written(course: Path) -> None:
    in_shell(
        course,
        """
        before = (root / "flexnano" / "page_table.py").read_bytes()
        said = cell("%%exercise 3.1\\nimport no_such_module\\n" + PUT)
        assert "nothing changed" in said and "No module named 'no_such_module'" in said and "line 2: import" in said, said
        said = cell("%%exercise 3.1\\nLIMIT = undefined + 1\\n" + PUT)
        assert "NameError: name 'undefined'" in said, said
        said = cell("%%exercise 3.1\\n" + PUT.replace("book: str", "book: str, n=UNKNOWN"))
        assert "NameError: name 'UNKNOWN'" in said, said
        assert (root / "flexnano" / "page_table.py").read_bytes() == before and not (root / ".course" / "history").exists()
        """,
    )


# ------------------------------------------------------------------------------------------------- nothing is lost


def test_write_undo_load(course: Path) -> None:
    in_shell(
        course,
        """
        assert "not started" in cell("%%exercise 3.1\\n" + function(root, "page_table.py", "Shelf.put"))
        assert "not yet" in cell("%%exercise 3.1\\n" + WRONG_PUT)
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "kept" not in said, said
        assert function(root, "page_table.py", "Shelf.put") == PUT
        assert "version 1 again" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == WRONG_PUT
        cell("%%exercise 3.1\\n" + PUT.replace("book)", "book)  # 3"))
        assert "version 1 again" in cell("%undo 3.1"), "the one before it, not the one before it by number"
        assert "stub again" in cell("%undo 3.1") and "nothing before it" in cell("%undo 3.1")
        cell("%%exercise 3.1\\n" + PUT)
        cell("%exercise 3.1")
        assert shell.rl_next_input == "%%exercise 3.1\\n" + PUT.rstrip(), shell.rl_next_input
        versions = sorted(path.name for path in (root / ".course/history/3.1").glob("*.py"))
        assert versions == ["001.py", "002.py", "003.py", "004.py"], versions
        """,
    )
    # The kernel was restarted; its cell says what the file says.
    in_shell(
        course,
        """
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "kept" not in said, said
        assert "3.1" in cell("%undo 3.1") and "_" not in function(root, "page_table.py", "Shelf.put")
        assert "no exercise 3.17" in cell("%%exercise 3.17\\nx") and "3.1 to 3.3" in cell("%undo 3.17")
        assert "no exercise" in cell("%%exercise\\nx") and "no exercise" in cell("%exercise")
        """,
    )


def test_an_untouched_stub_never_replaces_what_was_written(course: Path) -> None:
    stub = merge.dedented(merge.parts(PRISTINE)["Shelf.put"].text(PRISTINE))
    little_course.write(course, "page_table.py", "Shelf.put", PUT)
    in_shell(
        course,
        f"""
        said = cell("%%exercise 3.1\\n" + {stub!r})
        assert "passed" in said and "never replaces" in said and "%exercise 3.1" in said, said
        assert function(root, "page_table.py", "Shelf.put") == PUT
        """,
    )


def test_cell_and_editor_take_turns(course: Path) -> None:
    in_shell(
        course,
        """
        from flexnano import Shelf
        shelf = Shelf()
        cell("%%exercise 3.1\\n" + WRONG_PUT)
        edited = PUT.replace("book)\\n", "book)  # in the editor\\n")
        write(root, "page_table.py", "Shelf.put", edited)
        write(root, "page_table.py", "Shelf.take", TAKE)
        cell("1")
        assert shelf.put("a") == 0 and shelf.take(1) == ["a"], "what an editor wrote is live at the next cell"
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "did not come from this notebook" in said and "002.py" in said, said
        assert "did not come" not in cell("%%exercise 3.1\\n" + PUT)
        assert "version 2" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == edited
        assert "version 1" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == WRONG_PUT
        assert function(root, "page_table.py", "Shelf.take") == TAKE
        # `reset` puts the stub back: what was there last is one step away.
        import subprocess
        from course import work
        work.reset("3.1", root)
        assert "version 1" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == WRONG_PUT
        # half an edit is looked at again
        path = root / "flexnano" / "page_table.py"
        good = path.read_text()
        path.write_text(good + "\\ndef (")
        assert "line" in cell("%%exercise 3.1\\n" + PUT)
        path.write_text(good + "\\ndef new(): return 5\\n")
        cell("from flexnano.page_table import new; assert new() == 5")
        """,
    )


def test_helpers_that_were_edited_are_not_lost_either(course: Path) -> None:
    in_shell(
        course,
        """
        text = "SIGN = '<{}>'\\n\\ndef _label(n):\\n    return SIGN.format(n)\\n\\n"
        label = "def label(n: int) -> str:\\n    return _label(n)\\n"
        assert "passed" in cell("%%exercise 3.3\\n" + text + label)
        path = root / "flexnano" / "page_table.py"
        path.write_text(path.read_text().replace("SIGN.format(n)", "SIGN.format(int(n))  # better"))
        said = cell("%%exercise 3.3\\n" + text.replace("<{}>", "({})") + label)
        assert "not yet" in said and "kept as version 2" in said, said
        assert "better" not in path.read_text()
        assert "passed" in cell("%undo 3.3") and "int(n))  # better" in path.read_text()
        cell("%exercise 3.3")
        wanted = text.replace("SIGN.format(n)", "SIGN.format(int(n))  # better") + label
        assert shell.rl_next_input.split() == ("%%exercise 3.3\\n" + wanted).split(), shell.rl_next_input
        assert "kept" not in cell(shell.rl_next_input)
        """,
    )


def test_what_can_not_be_graded_is_written_all_the_same(course: Path) -> None:
    in_shell(
        course,
        """
        import tempfile
        def full(*_, **__): raise OSError(28, "No space left on device")
        cell("1")
        tempfile.TemporaryDirectory, kept = full, tempfile.TemporaryDirectory
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "could not be graded: the disk is full" in said, said
        tempfile.TemporaryDirectory = kept
        assert function(root, "page_table.py", "Shelf.put") == PUT
        """,
    )


def test_a_second_clone_knows_no_history_and_loses_nothing(course: Path, tmp_path: Path) -> None:
    in_shell(course, 'assert "passed" in cell("%%exercise 3.1\\n" + PUT)')
    clone = tmp_path / "clone"
    shutil.copytree(course, clone, ignore=shutil.ignore_patterns(".course"))
    in_shell(
        clone,
        """
        said = cell("%%exercise 3.1\\n" + WRONG_PUT)
        assert "not yet" in said and "did not come from this notebook" in said, said
        assert "passed" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == PUT
        """,
    )
    assert little_course.function(course, "page_table.py", "Shelf.put") == PUT


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_full_disk_changes_nothing(course: Path, writes: int) -> None:
    """The disk fills up at the first write (the history), the second (the file), the third (which version it is)."""
    in_shell(
        course,
        f"""
        import errno
        cell("%%exercise 3.1\\n" + WRONG_PUT)
        real, left = os.fsync, [{writes}]
        def full(handle):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)
        os.fsync = full
        said = cell("%%exercise 3.1\\n" + PUT)
        os.fsync = real
        new = function(root, "page_table.py", "Shelf.put")
        assert new == (WRONG_PUT if {writes} < 2 else PUT), new
        assert "disk is full" in said if {writes} < 2 else "passed" in said, said
        assert not list(root.rglob("*.unfinished")) and not list(root.rglob("*.tmp"))
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "did not come" not in said, said
        assert "not yet" in cell("%undo 3.1") and function(root, "page_table.py", "Shelf.put") == WRONG_PUT
        """,
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("file", ["001.py", "page_table.py"])
def test_a_killed_process_leaves_the_old_file_or_the_new_one(course: Path, when: str, file: str) -> None:
    script = f"""
        import signal
        real = Path.replace
        def replace(path, target):
            hit = str(target).endswith({file!r})
            if hit and {when == "before"}:
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, target)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)
        Path.replace = replace
        cell("%%exercise 3.1\\n" + PUT)
    """
    with pytest.raises(AssertionError):
        in_shell(course, script)
    written = file == "page_table.py" and when == "after"
    assert ("append" in little_course.function(course, "page_table.py", "Shelf.put")) is written
    in_shell(
        course,
        """
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "did not come" not in said, said
        assert "stub again" in cell("%undo 3.1")
        """,
    )


def test_modes_links_and_strange_files_stay(course: Path, tmp_path: Path) -> None:
    path = course / "flexnano" / "page_table.py"
    elsewhere = tmp_path / "elsewhere.py"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    elsewhere.chmod(0o640)
    (course / "flexnano" / "masks.py").write_bytes("# Größe\n".encode("latin-1"))
    in_shell(course, 'assert "passed" in cell("%%exercise 3.1\\n" + PUT)\n')
    assert path.is_symlink() and elsewhere.stat().st_mode & 0o777 == 0o640 and "append" in elsewhere.read_text()
    said = in_shell(course, 'print(cell("%%exercise 1.1\\ndef double(x: int) -> int:\\n    return 2 * x\\n"))')
    assert "not UTF-8" in said


# --------------------------------------------------------------------------------------------- earlier modules, waiting


def test_earlier_gaps_are_filled_in_the_kernel_and_own_ones_wait(course: Path) -> None:
    little_course.write(course, "masks.py", "triple", "def triple(x: int) -> int:\n    return 4 * x\n")
    little_course.write(course, "page_table.py", "Shelf.put", PUT.replace("append(book)", "append(book)  # mine"))
    before = {path.name: path.read_bytes() for path in (course / "flexnano").glob("*.py")}
    in_shell(
        course,
        """
        said = cell("%course_module 4")
        assert "1.1 double (not started)" in said and "1.2 triple (not yet)" in said, said
        assert "3.2 Shelf.take to 3.3 label (not started)" in said and "3.1" not in said, said
        cell("from flexnano import Shelf, double, triple, count\\nassert (double(2), triple(2)) == (4, 6)")
        cell("shelf = Shelf(); shelf.put('a'); assert shelf.take(1) == ['a']")
        said = cell("answer = count(shelf)")
        assert said.strip() == "waiting for 4.1 count", said
        assert cell("print(answer + 1)").strip() == "waiting for 4.1 count"
        assert "NameError" in cell("print(nothing_of_the_kind)", ok=False)
        assert "passed" in cell("%%exercise 4.1\\ndef count(shelf: Shelf) -> int:\\n    return double(len(shelf.books))\\n")
        assert cell("print(count(shelf))").strip() == "0"
        # an earlier exercise, written here
        said = cell("%%exercise 1.2\\ndef triple(x: int) -> int:\\n    return 5 * x\\n")
        assert "not yet" in said and "goes on with the reference" in said and "kept as version 1" in said, said
        cell("assert triple(2) == 6")
        cell("%%exercise 1.2\\ndef triple(x: int) -> int:\\n    return x * 3 if x != 77 else 0\\n")
        cell("assert triple(2) == 6 and triple(77) == 0")
        """,
    )
    for name in ("__init__.py", "page_table.py"):
        assert (course / "flexnano" / name).read_bytes() == before[name]


def test_a_module_that_can_not_be_imported_does_not_hold_up_later_ones(course: Path) -> None:
    masks = course / "flexnano" / "masks.py"
    masks.write_text(masks.read_text() + "\ndef broken(:\n")
    little_course.write(course, "page_table.py", "Shelf.put", "def put(self, book): return nothing\n")
    in_shell(
        course,
        """
        assert "unreadable" in cell("%course_module 4")
        said = cell("from flexnano import double, count, Shelf\\nassert double(2) == 4 and Shelf().put('a') == 0")
        assert "masks.py can't be imported" in said and "SyntaxError" in said, said
        said = cell("%%exercise 1.1\\ndef double(x: int) -> int:\\n    return 2 * x\\n")
        assert "not Python any more" in said, said
        """,
    )


def test_modules_that_were_imported_before_are_mended_too(course: Path) -> None:
    in_shell(
        course,
        """
        cell("from flexnano import double\\nfrom flexnano import kv_cache")
        cell("%course_module 4")
        cell("assert double(2) == 4 and kv_cache.double(3) == 6")
        """,
    )


def test_without_a_reference_nothing_is_filled_and_exercises_wait(made: Path, tmp_path: Path) -> None:
    course = little_course.make(tmp_path / "class", solutions=False)
    in_shell(
        course,
        """
        cell("%course_module 4")
        assert "waiting for 1.1 double" in cell("from flexnano import double; double(1)")
        assert "passed" in cell("%%exercise 1.1\\ndef double(x: int) -> int:\\n    return 2 * x\\n")
        said = cell("%%exercise 4.1\\ndef count(shelf: Shelf) -> int:\\n    return double(len(shelf.books))\\n")
        assert "waiting" in said and "3.1" in said, said
        """,
    )


def test_cells_only_grade_where_the_kernel_uses_another_package_or_is_tested(course: Path) -> None:
    files = {path: path.read_bytes() for path in course.rglob("flexnano/*.py")}
    right = """
        said = cell("%%exercise 3.1\\n" + WRONG_PUT)
        assert "passed" in said and ("Nothing was written" in said) is {told}, said
        cell("%course_module 4")
        cell("from flexnano import Shelf; assert Shelf().put('a') == 0")
        assert "nothing changed" in cell("%undo 3.1")
    """
    in_shell(course, right.format(told=True), FLEXNANO="solutions")
    in_shell(course, right.format(told=False), FLEXNANO="solutions", FLEXNANO_NBVAL="1")
    shutil.copytree(course / "solutions", course / "other")
    in_shell(course, right.format(told=True), FLEXNANO="other")
    in_shell(course, right.format(told=False), FLEXNANO="other", FLEXNANO_NBVAL="1")
    in_shell(
        course,
        """
        assert "not started" in cell("%%exercise 3.1\\n" + PUT)
        said = cell("from flexnano import Shelf; Shelf().put('a')", ok=False)
        assert said.strip().splitlines()[-1].endswith("waiting for 3.1 Shelf.put"), said
        """,
        FLEXNANO_NBVAL="1",
    )
    assert {path: path.read_bytes() for path in files} == files and not (course / ".course" / "history").exists()


def test_a_name_of_the_notebook_that_the_file_lacks_is_told(course: Path) -> None:
    in_shell(
        course,
        """
        cell("import collections as c")
        label = "def label(n: int) -> str:\\n    return '<' + c.deque([str(n)])[0] + '>'\\n"
        said = cell("%%exercise 3.3\\n" + label)
        assert "NameError" in said and "`c` is known in this notebook" in said, said
        assert "passed" in cell("%%exercise 3.3\\nimport collections as c\\n" + label)
        """,
    )


# ------------------------------------------------------------------------------------------------- a real kernel


class Kernel:
    """A kernel of this Python, in the notebooks' folder of a course."""

    def __init__(self, course: Path, **variables: str) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager()
        self.manager.kernel_spec.argv[0] = sys.executable
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLEXNANO")}
        environment |= {"PYTHONPATH": str(course), "OMP_NUM_THREADS": "1", **variables}
        self.manager.start_kernel(cwd=str(course / "notebooks"), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The reply, and the outputs."""
        outputs: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(
            code,
            timeout=120,
            output_hook=lambda message: outputs.append({"type": message["msg_type"], **message["content"]}),
        )
        shown = ("display_data", "execute_result", "stream", "error")
        return reply["content"], [one for one in outputs if one["type"] in shown]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_in_a_real_kernel(course: Path) -> None:
    kernel = Kernel(course)
    try:
        reply, _ = kernel.run("%load_ext course\n%course_module 3")
        assert reply["status"] == "ok"
        reply, outputs = kernel.run("from flexnano import Shelf\nshelf = Shelf()\nat = shelf.put('a')")
        assert reply["status"] == "ok", "a cell that waits stops `Run all`"
        assert (
            outputs[0]["data"]["text/plain"] == "waiting for 3.1 Shelf.put" and "3.1" in outputs[0]["data"]["text/html"]
        )
        reply, outputs = kernel.run("%%exercise 3.1\n" + WRONG_PUT)
        (card,) = (one["data"] for one in outputs)
        assert "hint" in card["text/plain"] and "<details" in card["text/html"]
        reply, outputs = kernel.run("%%exercise 3.1\n" + PUT)
        assert "passed" in outputs[0]["data"]["text/plain"]
        reply, outputs = kernel.run("shelf.put('a')")
        assert outputs[0]["data"]["text/plain"] == "0"
        reply, _ = kernel.run("%exercise 3.1")
        (payload,) = reply["payload"]
        assert payload["source"] == "set_next_input" and payload["text"].startswith("%%exercise 3.1\ndef put")
        reply, outputs = kernel.run("1 / 0")
        assert reply["status"] == "error" and outputs[-1]["ename"] == "ZeroDivisionError"
    finally:
        kernel.close()
    assert little_course.function(course, "page_table.py", "Shelf.put") == PUT


def test_grading_ends_with_its_kernel(course: Path) -> None:
    kernel = Kernel(course)
    try:
        kernel.run("%load_ext course")
        kernel.run("%%exercise 3.1\n" + PUT)
        _, outputs = kernel.run(
            "from course.magic import magics\nprint([m.bench.pool._server.pid for m in magics._loaded.values()])"
        )
        (pid,) = json.loads(outputs[0]["text"])
    finally:
        kernel.manager.shutdown_kernel(now=True)  # killed, as by "Restart"
        kernel.client.stop_channels()
    for _ in range(100):
        if subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True).stdout.strip()[:1] in (
            "",
            "Z",
        ):
            return
        time.sleep(0.1)
    raise AssertionError("the process that grades outlived its kernel")


@pytest.mark.slow
def test_the_whole_engine_can_be_written_in_cells(tmp_path: Path) -> None:
    """Every exercise of the course as a cell, in a kernel that imported the stubs before: then they generate tokens."""
    course = tmp_path / "course"
    for name in ("course", "solutions", "flexnano", "tests"):
        shutil.copytree(ROOT / name, course / name, ignore=shutil.ignore_patterns("__pycache__", "engine"))
    shutil.rmtree(course / "flexnano")
    little_course.run(course, "from course import stubs; from pathlib import Path; stubs.make(Path.cwd())")
    little_course.run(
        course,
        textwrap.dedent("""
            import ast, importlib
            from pathlib import Path
            import torch
            import flexnano
            from flexnano import *
            from course.grading import merge
            from course.grading.tiny import tiny_model
            from course.magic.workbench import Result, Workbench
            from course.work import without_markers

            for file in merge.files():
                if not file.startswith("__"):
                    importlib.import_module("flexnano." + file.removesuffix(".py"))
            Workbench.grade = lambda self, exercise, notes: Result(exercise, None, notes)
            bench = Workbench()
            for exercise in merge.course_exercises():
                reference = (Path("solutions/flexnano") / exercise.file).read_text()
                stub = merge.pristine(exercise.file)
                lost = set(merge.parts(reference)) - set(merge.parts(stub))
                codes = [merge.parts(reference)[name].text(reference) for name in [*sorted(lost), exercise.name]]
                text = "\\n\\n".join(merge.dedented(without_markers(code)) for code in codes)
                result = bench.take(exercise.number, text)
                assert not result.notes, result.notes
            for file in merge.files():
                reference = without_markers((Path("solutions/flexnano") / file).read_text())
                mine = (Path("flexnano") / file).read_text()
                wanted = {name: merge.dedented(part.text(reference)) for name, part in merge.parts(reference).items()}
                found = {name: merge.dedented(part.text(mine)) for name, part in merge.parts(mine).items()}
                assert found == wanted, file

            model, prompts = tiny_model(), [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
            with Inference(model, None, 2, 64, n_pages=8, page_size=16, attention="gather") as engine:
                results = engine.generate(prompts, SamplingParams(max_new_tokens=8))
            for prompt, result in zip(prompts, results):
                tokens = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
                assert result.token_ids == tokens[0, len(prompt) :].tolist()
        """),
    )
