"""`python -m course release DIR`: what is handed out.

Self-study: everything.  `--class`: nothing that gives a solution away; stubs as handed out in `course/pristine/`, where
grading looks for them; and beside DIR a `catchup-NN.zip` a module for the teacher.  A release is made under another name,
searched for lines of the solutions, and gets its name only if none is found.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import keyword
import lzma
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import stubs, work
from .console import CourseError, say, size
from .environment import ROOT
from .exercises import Exercise
from .grading import merge

HANDED_OUT = (
    *("README.md", "LICENSE", "SECURITY.md", "Makefile", "pyproject.toml", "requirements.txt", "constraints.txt"),
    *("_config.yml", "_toc.yml", "conftest.py", ".gitignore", "book", "notebooks", "tests", "course", "experiments"),
    *("benchmarks", "models/README.md", "classroom", "solutions"),
)
NEVER = (
    *("__pycache__", "*.pyc", "*.egg-info", ".*_cache", ".ipynb_checkpoints", ".hypothesis", "_build", "build"),
    *(".DS_Store", ".*.unfinished"),
)
NOT_FOR_A_CLASS = ("solutions", "classroom", "tests/engine", "course/pristine", "course/clinic/cases")
TESTS_FOR_A_CLASS = ("test_check.py", "test_model.py")  # of tests/course: those that need no reference
MARKER = ".course-release.json"
REFERENCE_ONLY = re.compile(r"<!-- reference -->\n.*?<!-- /reference -->\n", re.DOTALL)
FOR_A_CLASS = """> This copy was made for a class: it has no `solutions/`. Grading works without them; an exercise that
> calls one which is not written yet says that it waits for it. Your teacher may hand out `catchup-NN.zip`: put it beside
> this file, and `python -m course catch-up NN` and grading use it.

"""


def make(folder: Path, root: Path = ROOT, for_class: bool = False, force: bool = False) -> list[str]:
    """Make a release.

    Args:
        folder: where; must not be there yet, unless it is a release and `force` is given.
        for_class: without anything that gives a solution away.

    Returns:
        Sentences on what was left out because it held lines of solutions.

    Raises:
        CourseError: there are no solutions here; the folder is in use; something that has to be handed out gives a solution
            away.
    """
    if merge.reference_folder(root) is None:
        raise CourseError(f"{work.NO_REFERENCE}; a release is made where they are.")
    folder = folder.resolve()
    if root.resolve() == folder or root.resolve().is_relative_to(folder):
        raise CourseError(f"{folder} holds the course itself.")
    if folder.exists() and any(folder.iterdir()) and not (force and (folder / MARKER).is_file()):
        raise CourseError(f"{folder} is not empty. Name a new folder, or give --force to replace a release.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _copy(root, unfinished, for_class, besides=folder)
        _write_stubs(root, unfinished / "flexnano")
        said: list[str] = []
        if for_class:
            _write_stubs(root, unfinished / "course" / "pristine")
            (unfinished / "course" / "pristine" / "ruff.toml").write_text('exclude = ["*.py"]\n', encoding="utf-8")
            _adapt_readme(unfinished / "README.md")
            said = _without_leaks(root, unfinished)
        about = {"kind": "class" if for_class else "self-study", "course": work.fingerprint(root)}
        (unfinished / MARKER).write_text(json.dumps(about) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return said


def _copy(root: Path, to: Path, for_class: bool, besides: Path) -> None:
    unwanted = {(root / name).resolve() for name in (NOT_FOR_A_CLASS if for_class else ())} | {besides}

    def ignored(directory: str, names: list[str]) -> set[str]:
        here = Path(directory)
        left_out = set(shutil.ignore_patterns(*NEVER)(directory, names))
        left_out |= {name for name in names if (here / name).resolve() in unwanted or (here / name).is_symlink()}
        left_out |= {name for name in names if name.startswith(".") and name.endswith(".jsonl")}
        if for_class and here.resolve() == (root / "tests" / "course").resolve():
            left_out |= {name for name in names if name not in TESTS_FOR_A_CLASS}
        return left_out

    to.mkdir()
    for name in HANDED_OUT:
        source = root / name
        if not source.exists() or source.resolve() in unwanted:
            continue
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy(source, to / name)


def _write_stubs(root: Path, to: Path) -> None:
    """The package as it is handed out, whatever stands in this copy's flexnano/."""
    to.mkdir(parents=True, exist_ok=True)
    for file in merge.files(root):
        (to / file).write_text(merge.pristine(file, root), encoding="utf-8", newline="\n")


def _adapt_readme(readme: Path) -> None:
    if not readme.is_file():
        return
    text = REFERENCE_ONLY.sub("", readme.read_text(encoding="utf-8"))
    rows = re.compile(r"^\| `(?P<path>[^`]+/)` \|.*\n", re.MULTILINE)  # of the table of folders
    text = rows.sub(lambda row: row[0] if (readme.parent / row["path"]).exists() else "", text)
    title, newline, rest = text.partition("\n\n")
    readme.write_text(f"{title}{newline}{FOR_A_CLASS}{rest}", encoding="utf-8")


# ----------------------------------------------------------------------------------------- lines that give a solution away


@dataclass(frozen=True)
class Leak:
    """A line of a solution in a file where it must not be."""

    file: str
    line: str

    def __str__(self) -> str:
        return f"{self.file}: {self.line}"


_TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*|\"[^\"]*\"|'[^']*'|[^\s\w]")
_TELLS_NOTHING = {*keyword.kwlist, "self", "int", "len", "range", "list", "bool", "float", "str"}


def normal(line: str) -> str:
    """A line of code as its tokens, without comment, indentation and kind of quotes.

    >>> normal("    x = f( a,'b' )  # why") == normal('x = f(a, "b")')
    True
    """
    tokens = []
    for token in _TOKEN.findall(line):
        if token == "#":
            break
        tokens.append(f'"{token[1:-1]}"' if token[0] == "'" and len(token) > 1 else token)
    return " ".join(tokens)


def tells(normalised: str) -> bool:
    """Whether a line gives something away: three different names in nine tokens or more.  A `def` is the stub's already.

    >>> tells(normal("return True")), tells(normal("pages = self.take(self.pages_missing(slot, n))"))
    (False, True)
    """
    tokens = normalised.split(" ")
    names = {token for token in tokens if token[:1].isidentifier()} - _TELLS_NOTHING
    return len(names) >= 3 and len(tokens) >= 9 and tokens[0] not in ("def", "import", "from")


def solution_lines(root: Path = ROOT) -> dict[str, str]:
    """The telling lines of all marked regions, normalised, each with its original; without those that the stubs show."""
    found: dict[str, str] = {}
    given: set[str] = set()
    for path in sorted((root / "solutions" / "flexnano").glob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        given |= {normal(line) for line in stubs.stub_of(path).splitlines()}
        for begin, end in stubs.regions(lines, path.name):
            for line in lines[begin : end - 1]:
                if tells(normalised := normal(line)):
                    found.setdefault(normalised, line.strip())
    return {normalised: line for normalised, line in found.items() if normalised not in given}


def leaks(folder: Path, lines: dict[str, str]) -> list[Leak]:
    """Every line of a solution in the files of a folder, also in archives, notebooks, pickles and compiled code."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found += [Leak(name, line) for line in _lines_in(path.read_bytes(), lines)]
            if path.suffix in (".pyc", ".pyo"):
                found.append(Leak(name, "compiled code"))
    return found


def _lines_in(content: bytes, lines: dict[str, str], depth: int = 0) -> list[str]:
    found: dict[str, None] = {}
    for piece in _pieces(content, depth):
        text = piece.decode("utf-8", "replace")
        # Strings in JSON, in notebooks for instance, hold their lines with \n and \" in them.
        unescaped = text.replace('\\"', '"').replace("\\t", "\t").replace("\\n", "\n")
        for line in {*text.splitlines(), *unescaped.splitlines()}:
            for form in (line, line.strip().strip('",')):
                if (normalised := normal(form)) in lines:
                    found[lines[normalised]] = None
        # Whatever stands around it: the rest of one long line, or bytes.
        found.update(dict.fromkeys(line for line in lines.values() if line in unescaped))
    return list(found)


def _pieces(content: bytes, depth: int) -> Iterator[bytes]:
    """The content, and what is packed in it."""
    yield content
    if depth > 3:
        return
    packed: list[bytes] = []
    with contextlib.suppress(zipfile.BadZipFile, RuntimeError, OSError, EOFError, zlib.error, lzma.LZMAError):
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                packed = [archive.read(name) for name in archive.namelist()]
        elif content[:2] == b"\x1f\x8b":
            packed = [gzip.decompress(content)]
        elif content[:6] == b"\xfd7zXZ\x00":
            packed = [lzma.decompress(content)]
        elif content[:1] == b"\x78":
            packed = [zlib.decompress(content)]
    for one in packed:
        yield from _pieces(one, depth + 1)


CAN_DO_WITHOUT = ("experiments", "benchmarks", "tests/course")


def _without_leaks(root: Path, folder: Path) -> list[str]:
    """Take out what gives a solution away and is not needed.  Returns what was left out, in words.

    Raises:
        CourseError: something that is needed gives a solution away.
    """
    lines = solution_lines(root)
    cleared = [name for path in sorted(folder.glob("notebooks/*.ipynb")) if (name := _clear_outputs(path, lines))]
    said = [f"{name}: outputs cleared that showed code" for name in cleared]
    found = leaks(folder, lines)
    needed = [leak for leak in found if not leak.file.startswith(CAN_DO_WITHOUT)]
    if needed:
        listed = "\n".join(f"  {leak}" for leak in needed[:20])
        raise CourseError(f"Lines of solutions stand in what a class gets, so nothing was made:\n{listed}")
    for name in sorted({leak.file for leak in found}):
        (folder / name).unlink()
        said.append(f"{name}: left out, it holds lines of solutions")
    return said


def _clear_outputs(path: Path, lines: dict[str, str]) -> str:
    """Remove outputs that show code of a solution, tracebacks among them.  Returns the file's name if there were any."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changed = False
    for cell in notebook.get("cells", ()):
        outputs = cell.get("outputs", [])
        kept = [one for one in outputs if one.get("output_type") != "error" and not _lines_in(_text_of(one), lines)]
        if len(kept) != len(outputs):
            cell["outputs"], changed = kept, True
    if changed:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path.name if changed else ""


def _text_of(value: Any) -> bytes:
    """All strings in an output, one below the other, without the tags of HTML and the colours of terminals."""
    strings: list[str] = []
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            strings.append(one)
        elif isinstance(one, list) and all(isinstance(part, str) for part in one):
            strings.append("".join(one))
        else:
            todo += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
    plain = re.sub(r"<[^>\n]*>|\x1b\[[0-9;]*m", "", "\n".join(strings))
    for name, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")):
        plain = plain.replace(name, sign)
    return plain.encode()


# ------------------------------------------------------------------------------------------------ the teacher's catch-ups


def write_catch_ups(folder: Path, root: Path = ROOT) -> list[Path]:
    """`catchup-NN.zip` for each module with exercises: those up to it solved, the others as stubs."""
    exercises = merge.course_exercises(root)
    written = []
    for module in sorted({one.module for one in exercises}):
        path = folder / f"catchup-{module:02d}.zip"
        work.write(path, catch_up(module, exercises, root))
        written.append(path)
    return written


def catch_up(module: int, exercises: Iterable[Exercise], root: Path = ROOT) -> bytes:
    """The zip, the same bytes for the same course."""
    exercises = list(exercises)
    files = {file: _solved_upto(module, file, exercises, root) for file in merge.files(root)}
    about = {"format": 1, "module": module, "course": work.fingerprint(root)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in [("catchup.json", json.dumps(about)), *((f"flexnano/{f}", t) for f, t in files.items())]:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def _write_clinic(folder: Path, root: Path) -> None:
    """`clinic.zip`, without which the bug clinic of a class has no engines."""
    from .clinic import store  # which imports this module

    if (root / "solutions" / "flexnano" / "inference.py").is_file():  # a course with an engine to break
        work.write(folder / store.PACK, store.packed(root))
        say(f"And {store.PACK} for the bug clinic, with modules 01 to {store.LAST_MODULE} solved.")


def _solved_upto(module: int, file: str, exercises: list[Exercise], root: Path) -> str:
    """A file with the exercises up to a module solved and the later ones as stubs."""
    own = [one for one in exercises if one.file == file]
    handed_out = merge.pristine(file, root)
    if not any(one.module <= module for one in own):
        return handed_out
    text = (root / "solutions" / "flexnano" / file).read_text(encoding="utf-8")
    stubs_here = merge.parts(handed_out)
    for one in own:
        if one.module > module:
            text = merge.replace(text, one.name, stubs_here[one.name].text(handed_out))
    return work.without_markers(text)


# ------------------------------------------------------------------------------------------------------------ command


def show(folder: Path, root: Path = ROOT, for_class: bool = False, force: bool = False) -> int:
    """The command `release`."""
    said = make(folder, root, for_class, force)
    files = [path for path in folder.rglob("*") if path.is_file()]
    kind = "A class release" if for_class else "A release for self-study"
    say(f"{kind} is in {folder}: {len(files)} files, {size(sum(path.stat().st_size for path in files))}")
    for sentence in said:
        say(f"  {sentence}")
    if for_class:
        zips = write_catch_ups(folder.resolve().parent, root)
        _write_clinic(folder.resolve().parent, root)
        say(f"For you, not for them: {zips[0].name} to {zips[-1].name} in {zips[0].parent}")
        say("Each solves the exercises up to its module; hand one out when a module is over.")
    return 0
