"""The learner's files: never lost, never half written.

Whatever changes them (`catch-up`, `reset`, `restore`) first saves all of them to `.course/saved/`, then works out every new
text, and only then writes, file by file: a file is the old one or the new one at any moment, also if the machine stops there.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from . import stubs
from .console import CourseError, paint, say
from .environment import ROOT
from .exercises import Exercise, Function
from .grading import merge

WHY = "why.txt"
LARGEST_FILE = 2_000_000  # bytes, in a zip that somebody brings
LARGEST_PACKAGE = 20_000_000  # bytes, in all files of one
NO_REFERENCE = "This copy of the course has no solutions"


def package(root: Path = ROOT) -> Path:
    return root / "flexnano"


def write(path: Path, data: str | bytes) -> None:
    """Replace a file as a whole: who reads it, or finds it after a crash, sees the old text or the new one."""
    content = data.encode() if isinstance(data, str) else data
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Say what could not be written, and what that leaves.

    Raises:
        CourseError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "the disk is full" if full else error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise CourseError(
            f"Not everything could be written: {why}{where}. Every file of yours is whole, as it was or as it was to be, and "
            "what stood there before is in .course/saved. Mend that and run the same command again."
        ) from error


# ------------------------------------------------------------------------------------------------------ save, restore


@dataclass(frozen=True)
class Saved:
    """What was saved at one time."""

    folder: Path
    why: str

    @property
    def when(self) -> str:
        return self.folder.name

    def files(self) -> dict[str, bytes]:
        return _files(self.folder / "flexnano")


def save(root: Path = ROOT, why: str = "") -> Saved:
    """Copy the learner's package to `.course/saved/<date-time>/`.

    Returns:
        Where it is; the newest one that is there already if nothing has changed since.
    """
    files = _files(package(root))
    earlier = saved(root)
    if earlier and earlier[-1].files() == files:
        return earlier[-1]
    shelf = root / ".course" / "saved"
    shelf.mkdir(parents=True, exist_ok=True)
    unfinished = shelf / f".unfinished-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name, content in files.items():
            write(unfinished / "flexnano" / name, content)
        write(unfinished / WHY, why)
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for n in range(1, 1000):
            folder = shelf / (stamp if n == 1 else f"{stamp}-{n:03d}")
            if not folder.exists():
                unfinished.rename(folder)
                return Saved(folder, why)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    raise CourseError(f"{shelf} can't be written to.")


def saved(root: Path = ROOT) -> list[Saved]:
    """Everything that was saved, oldest first."""
    shelf = root / ".course" / "saved"
    if not shelf.is_dir():
        return []
    folders = sorted(path for path in shelf.iterdir() if (path / "flexnano").is_dir() and path.name[0] != ".")
    return [Saved(path, _text(path / WHY).strip()) for path in folders]


def restore(root: Path = ROOT, when: str = "") -> tuple[Saved, list[str], Saved]:
    """Put saved files back.

    Args:
        when: the beginning of a name in `.course/saved`, or a zip; empty: the newest that differs from what is there.

    Returns:
        (what was put back, the names of the files that changed, where the files of before are).

    Raises:
        CourseError: there is nothing saved under that name.
    """
    if when.endswith(".zip"):
        return from_zip(Path(when), root)
    now = _files(package(root))
    found = [one for one in saved(root) if one.when.startswith(when) and (when or one.files() != now)]
    if not found:
        what = f"Nothing is saved under {when!r}" if when else "Nothing else is saved"
        raise CourseError(f"{what}. `python -m course history` lists what is there.")
    before = save(root, "before restore")
    return found[-1], _put_back(found[-1].files(), root), before


def _put_back(files: dict[str, bytes], root: Path) -> list[str]:
    now = _files(package(root))
    changed = [name for name, content in files.items() if now.get(name) != content]
    for name in changed:
        write(package(root) / name, files[name])
    return changed


def _files(folder: Path) -> dict[str, bytes]:
    """Everything in a package but what Python makes of it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
        and path.suffix != ".pyc"
    }


def to_zip(root: Path = ROOT) -> bytes:
    """The learner's package as a zip, for a machine that forgets."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _files(package(root)).items():
            archive.writestr(f"flexnano/{name}", content)
    return buffer.getvalue()


def from_zip(path: Path | io.BytesIO, root: Path = ROOT) -> tuple[Saved, list[str], Saved]:
    """Put the files of a zip that `to_zip` made (or any with a folder `flexnano` in it) back, as `restore` does.

    Raises:
        CourseError: it is no zip, or holds no package.
    """
    name = path.name if isinstance(path, Path) else "the zip"
    try:
        files = package_in_zip(path)
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as error:
        raise CourseError(f"{name} can't be read: {error}") from error
    if not files:
        raise CourseError(f"{name} holds no folder `flexnano` with Python files.")
    before = save(root, f"before restore of {name}")
    changed = _put_back(files, root)
    return Saved(Path(name), ""), changed, before


def package_in_zip(path: Path | io.BytesIO) -> dict[str, bytes]:
    """The Python files of the package in a zip, by name.  Nothing is written, so that no name can lead elsewhere."""
    with zipfile.ZipFile(path) as archive:
        members = {one.filename.replace("\\", "/"): one for one in archive.infolist() if not one.is_dir()}
        folder = package_folder_among(members)
        found: dict[str, bytes] = {}
        total = 0
        for name, member in members.items():
            inside = PurePosixPath(name)
            if str(inside.parent) == folder and inside.suffix == ".py":
                if member.file_size > LARGEST_FILE:
                    raise zipfile.BadZipFile(f"{inside.name} has {member.file_size} bytes")
                with archive.open(member) as file:
                    content = file.read(LARGEST_FILE + 1)
                if len(content) > LARGEST_FILE:
                    raise zipfile.BadZipFile(f"{inside.name} is too large")
                total += len(content)
                if total > LARGEST_PACKAGE:
                    raise zipfile.BadZipFile(f"its Python files have more than {LARGEST_PACKAGE} bytes")
                found[inside.name] = content
        return found


def package_folder_among(names: Iterable[str]) -> str | None:
    """Which folder is the learner's package, of the files of a checkout, of a package, or of something around them.

    >>> package_folder_among(["anna/README.md", "anna/solutions/flexnano/masks.py", "anna/flexnano/masks.py"])
    'anna/flexnano'
    >>> package_folder_among(["masks.py", "__init__.py"])
    '.'
    """
    known = {"page_table.py", "masks.py", "kv_cache.py", "scheduler.py"}
    packages, loose = set(), set()
    for path in map(PurePosixPath, names):
        parts = path.parent.parts
        others = ("solutions", "pristine", "__MACOSX", "site-packages")
        if path.suffix != ".py" or any(part in others or part.startswith(".") for part in parts):
            continue
        if parts[-1:] == ("flexnano",):
            packages.add(path.parent)
        elif path.name in known:
            loose.add(path.parent)
    if packages:
        return str(min(packages, key=lambda folder: (len(folder.parts), str(folder))))
    return str(loose.pop()) if len(loose) == 1 else None


# ------------------------------------------------------------------------------------------------------------ history


@dataclass(frozen=True)
class Version:
    """How one function stood when it was saved."""

    when: str
    why: str
    code: str


def history(exercise: Exercise, root: Path = ROOT) -> list[Version]:
    """The different texts that a function had, oldest first, today's last."""
    versions: list[Version] = []
    points = [(one.when, one.why, one.files().get(exercise.file, b"")) for one in saved(root)]
    points.append(("now", "", _files(package(root)).get(exercise.file, b"")))
    for when, why, content in points:
        code = _function(content.decode("utf-8", "replace"), exercise.name)
        if not versions or versions[-1].code != code:
            versions.append(Version(when, why, code))
    return versions


def _function(source: str, name: str) -> str:
    try:
        part = merge.parts(source).get(name)
    except (SyntaxError, ValueError):
        return ""
    return part.text(source) if part is not None else ""


# --------------------------------------------------------------------------------------------------- what is meant


def find(what: str, root: Path = ROOT) -> list[Exercise]:
    """The exercises that "3.2", "3" or "03" names.

    Raises:
        CourseError: there is none.
    """
    everything = merge.course_exercises(root)
    module, dot, index = what.strip().partition(".")
    if module.isdigit() and (index.isdigit() or not dot):
        found = [one for one in everything if one.module == int(module) and (not dot or one.index == int(index))]
        if found:
            return found
    modules = sorted({one.module for one in everything})
    raise CourseError(
        f"There is no exercise {what!r}. Give a module ({', '.join(map(str, modules))}) or an exercise such as "
        f"{everything[0].number if everything else '3.2'}; `python -m course status` lists them."
    )


# ---------------------------------------------------------------------------------------------- a teacher's catch-up


def teachers_zips(root: Path = ROOT) -> dict[int, Path]:
    """`catchup-03.zip` and the like, where a learner puts them: beside README.md or in .course/."""
    found: dict[int, Path] = {}
    for folder in (root / ".course", root):
        for path in sorted(folder.glob("catchup-*.zip")):
            number = path.stem.removeprefix("catchup-")
            if number.isdigit():
                found[int(number)] = path
    return dict(sorted(found.items()))


def unpacked(path: Path, root: Path = ROOT) -> Path:
    """The package in a teacher's zip, as a folder.

    Raises:
        CourseError: it is none.
    """
    try:
        content = path.read_bytes()
        folder = root / ".course" / "catchup" / hashlib.sha256(content).hexdigest()[:16]
        if (folder / "flexnano").is_dir():
            return folder / "flexnano"
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            about = json.loads(archive.read("catchup.json"))
        files = package_in_zip(io.BytesIO(content))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CourseError(f"{path.name} is not a catch-up that `python -m course release --class` made.") from error
    if about.get("course") != fingerprint(root):
        raise CourseError(
            f"{path.name} was made from another version of the course: its exercises differ from those here. "
            "Ask for the one that belongs to this release."
        )
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    for name, data in files.items():
        write(unfinished / "flexnano" / name, data)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder / "flexnano"


def fingerprint(root: Path = ROOT) -> str:
    """A hash of what was handed out; the same in the release and where it was made."""
    digest = hashlib.sha256()
    for file in merge.files(root):
        digest.update(f"{file}\0{merge.pristine(file, root)}\0".encode())
    return digest.hexdigest()[:16]


def neighbours(root: Path = ROOT) -> Path | None:
    """Where right neighbours for grading come from: the reference, else a teacher's catch-up, else nowhere."""
    if (reference := merge.reference_folder(root)) is not None:
        return reference
    zips = teachers_zips(root)
    return unpacked(zips[max(zips)], root) if zips else None


def solution_for(module: int, root: Path = ROOT) -> Path:
    """A package in which the exercises up to `module` are solved.

    Raises:
        CourseError: there is none; says what is absent.
    """
    if (reference := merge.reference_folder(root)) is not None:
        return reference
    fitting = [path for number, path in teachers_zips(root).items() if number >= module]
    if not fitting:
        raise CourseError(
            f"{NO_REFERENCE}. With your teacher's catchup-{module:02d}.zip beside README.md, this command works."
        )
    return unpacked(fitting[0], root)


# ------------------------------------------------------------------------------------------------- changing functions


@dataclass(frozen=True)
class Step:
    """What was done about one exercise."""

    exercise: Exercise
    done: str  # "written" | "kept" | "left"
    why: str = ""


@dataclass(frozen=True)
class Change:
    """What a command did to the learner's files."""

    steps: list[Step]
    before: Saved | None  # where the files of before are; None: nothing was written
    files: list[str]

    @property
    def written(self) -> list[Step]:
        return [step for step in self.steps if step.done == "written"]


TOGETHER = "passes with your other functions"


def put(source: str, name: str, handed_out: str, code: str) -> str:
    """The source with a function as `code`; where the function or its class is lost, it comes back.

    Args:
        handed_out: the file as it was handed out.
    """
    if name in merge.parts(source):
        return merge.replace(source, name, code)
    added = merge.insert_method(source, name, code)
    if added is None:
        owner = name.partition(".")[0]
        added = source.rstrip("\n") + "\n\n\n" + _class(handed_out, owner)
        added = merge.replace(added, name, code)
    return added


def _class(source: str, name: str) -> str:
    node = next(one for one in ast.parse(source).body if isinstance(one, ast.ClassDef) and one.name == name)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return "".join(merge.lines_of(source)[first - 1 : node.end_lineno])


def without_markers(code: str) -> str:
    """Solution text as one would write it: without the lines that mark what is cut out."""
    marks = (stubs.BEGIN, stubs.END)
    return "".join(line for line in code.splitlines(keepends=True) if line.strip() not in marks)


def catch_up(module: int, root: Path = ROOT, force: bool = False, pool: Any = None) -> Change:
    """Put the reference into every exercise up to `module` that does not pass, function by function.

    What passes is not touched.  Everything is saved before the first file is written.

    Args:
        force: also where a file can't be read as Python: it is then replaced as a whole.
        pool: processes to grade with.

    Raises:
        CourseError: there is no such module, or no reference; nothing was written.
    """
    from . import status

    solution = solution_for(module, root)
    wanted = [one for one in merge.course_exercises(root) if one.module <= module]
    outcomes = {one.number: one for one in status.results(root, upto=module, pool=pool, package=package(root))}
    steps: list[Step] = []
    texts: dict[str, str] = {}
    for exercise in wanted:
        outcome = outcomes[exercise.number]
        if outcome.passed:
            steps.append(Step(exercise, "kept", "passes" if outcome.attempt == 1 else TOGETHER))
        elif outcome.status == "no grader":
            steps.append(Step(exercise, "left", "written, and there is no grader that could say whether it is right"))
        elif outcome.status == "unreadable" and not force:
            steps.append(Step(exercise, "left", f"{outcome.got}; mend that, or replace the whole file with --force"))
        else:
            handed_out = merge.pristine(exercise.file, root)
            if exercise.file not in texts:
                texts[exercise.file] = (
                    handed_out if outcome.status == "unreadable" else _read(package(root) / exercise.file)
                )
            theirs = _text(solution / exercise.file)
            code = without_markers(merge.parts(theirs)[exercise.name].text(theirs))
            texts[exercise.file] = put(texts[exercise.file] or handed_out, exercise.name, handed_out, code)
            steps.append(Step(exercise, "written"))
    finished = {file: _with_needs(file, text, solution) for file, text in texts.items()}
    return _write_all(steps, finished, root, f"before catch-up {module}")


def _with_needs(file: str, text: str, solution: Path) -> str:
    """With the imports and helpers that functions of the reference use."""
    return without_markers(merge.merged(text, _text(solution / file), []))


def reset(what: str, root: Path = ROOT) -> Change:
    """Put the stub back into an exercise ("3.2") or all of a module ("3").

    Raises:
        CourseError: there is no such exercise, or its file can't be read and holds more than what is to be reset.
    """
    exercises = find(what, root)
    everything = merge.course_exercises(root)
    steps: list[Step] = []
    texts: dict[str, str] = {}
    for exercise in exercises:
        file = exercise.file
        handed_out = merge.pristine(file, root)
        stub = merge.parts(handed_out)[exercise.name].text(handed_out)
        source = texts.get(file, _read(package(root) / file))
        try:
            part = merge.parts(source).get(exercise.name)
        except (SyntaxError, ValueError) as error:
            if any(one.file == file and one not in exercises for one in everything):
                line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
                raise CourseError(
                    f"flexnano/{file} can't be read ({line}), so that one function in it can't be found; nothing was "
                    "written. Mend that line, or put saved files back: python -m course restore"
                ) from error
            source, part = handed_out, None
        if part is not None and part.text(source) == stub:
            steps.append(Step(exercise, "kept", "is the stub"))
            continue
        texts[file] = put(source or handed_out, exercise.name, handed_out, stub)
        steps.append(Step(exercise, "written"))
    return _write_all(steps, texts, root, f"before reset {what}")


def _write_all(steps: list[Step], texts: dict[str, str], root: Path, why: str) -> Change:
    """Save everything, then write.

    Raises:
        CourseError: a text would not be Python; nothing was written then.
    """
    for file, text in texts.items():
        try:
            compile(text, file, "exec")
        except (SyntaxError, ValueError) as error:
            raise CourseError(
                f"flexnano/{file} would not be Python afterwards ({error}); nothing was written."
            ) from error
    if not texts:
        return Change(steps, None, [])
    before = save(root, why)
    for file, text in sorted(texts.items()):
        write(package(root) / file, text)
    return Change(steps, before, sorted(texts))


# --------------------------------------------------------------------------------------------------------------- diff


def diff(exercise: Exercise, root: Path = ROOT, against: Path | None = None) -> list[str]:
    """The learner's function beside the reference's, or the stub's, as a unified diff without the docstring's own lines.

    Args:
        against: folder of the reference; None: what was handed out.

    Returns:
        Lines; empty if they are equal.
    """
    mine = _function(_read(package(root) / exercise.file), exercise.name)
    source = _text(against / exercise.file) if against is not None else merge.pristine(exercise.file, root)
    mine, theirs = (_without_docstring(code) for code in (mine, without_markers(_function(source, exercise.name))))
    return list(
        difflib.unified_diff(
            mine.splitlines(),
            theirs.splitlines(),
            f"yours: flexnano/{exercise.file}, {exercise.name}",
            "the reference" if against is not None else "the stub",
            lineterm="",
            n=2,
        )
    )


def _without_docstring(code: str) -> str:
    """A function's text without its docstring, which is the same for everybody or of no interest."""
    try:
        (node,) = ast.parse(merge.dedented(code)).body
    except (SyntaxError, ValueError):
        return code
    if not isinstance(node, Function) or ast.get_docstring(node) is None or len(node.body) == 1:
        return code
    docstring = node.body[0]
    lines = merge.lines_of(code)
    return "".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno or docstring.lineno :])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read(path: Path) -> str:
    """With line ends as they are, and whatever bytes they are."""
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


# ---------------------------------------------------------------------------------------------- what the commands say


def say_catch_up(module: int, root: Path = ROOT, force: bool = False) -> int:
    """The command `catch-up`.  Returns 1 if something is left that does not pass."""
    from . import status

    if not any(one.module <= module for one in merge.course_exercises(root)):
        find(str(module), root)  # says which modules there are
    solution_for(module, root)  # says what is absent before anything is graded
    _forget_unfinished(root)
    with in_words():
        change = catch_up(module, root, force)
    if change.before is not None:
        say(f"Your files are saved in {_short(change.before.folder, root)}")
    for step in change.written:
        say(f"  {step.exercise.number:<5} {step.exercise.name:<42} from the reference")
    left = [step for step in change.steps if step.done == "left"]
    for step in left:
        say(f"  {step.exercise.number:<5} {step.exercise.name:<42} left as it is: {step.why}")
    kept = sum(step.done == "kept" for step in change.steps)
    written = len(change.written)
    say(
        f"{many(written, 'exercise')} from the reference, {kept} of yours not touched."
        if written
        else f"Nothing to do: {kept} of {len(change.steps)} exercises up to module {module:02d} pass."
    )
    if not written:
        return 1 if left else 0
    # What passed among right neighbours passes still; what needed the learner's other functions may not.
    together = {step.exercise.number for step in change.steps if step.why == TOGETHER}
    apart = [
        one
        for one in (status.results(root, upto=module, package=package(root)) if together else [])
        if one.number in together and not one.passed
    ]
    for one in apart:
        say(
            f"{one.number} {one.name} passed with your other functions and does not fit the reference's. "
            f"To replace it too: python -m course reset {one.number}, then catch-up again."
        )
    return 1 if left or apart else 0


def say_reset(what: str, root: Path = ROOT) -> int:
    """The command `reset`."""
    _forget_unfinished(root)
    with in_words():
        change = reset(what, root)
    if change.before is None:
        say(f"Nothing to do: {listed([step.exercise.number for step in change.steps])} is as it was handed out.")
        return 0
    say(f"Your files are saved in {_short(change.before.folder, root)}")
    for step in change.written:
        say(f"  {step.exercise.number:<5} {step.exercise.name:<42} the stub again, in flexnano/{step.exercise.file}")
    say(f"To undo: python -m course restore {change.before.when}")
    return 0


def say_diff(what: str | None, root: Path = ROOT, spoil: bool = False) -> int:
    """The command `diff`."""
    from . import status

    reference = merge.reference_folder(root)
    exercises = find(what, root) if what else merge.course_exercises(root)
    outcomes = {one.number: one for one in status.results(root, package=package(root))}
    if reference is None:
        zips = teachers_zips(root)
        say(f"{NO_REFERENCE}, so this shows yours against " + ("your teacher's catch-up." if zips else "the stub."))
        against = unpacked(zips[max(zips)], root) if zips else None
    else:
        against = reference
    shown = hidden = 0
    for exercise in exercises:
        outcome = outcomes[exercise.number]
        if outcome.status == "not started" and not (spoil and what):
            hidden += 1
            continue
        if not outcome.passed and not spoil and against is not None:
            if what:
                say(f"{exercise} does not pass yet, and a diff would show how it is done. To see it: --spoil")
            hidden += 1
            continue
        shown += 1
        say(f"{exercise}")
        lines = diff(exercise, root, against)
        for line in lines:
            say(paint(line, _colour_of(line)))
        if not lines:
            say("  the same, line by line")
        say()
    if not shown:
        say("Nothing to compare yet: a function appears here once it passes.")
    elif hidden and not what:
        say(f"{many(hidden, 'exercise')} not shown: not written, or not passing yet.")
    return 0


def _colour_of(line: str) -> str:
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def say_save(root: Path = ROOT, as_zip: str | None = None) -> int:
    """The command `save`."""
    if as_zip is not None:
        with in_words():
            write(Path(as_zip), to_zip(root))
        say(f"Your files are in {as_zip}. On another machine: python -m course restore {Path(as_zip).name}")
        return 0
    with in_words():
        here = save(root, "asked for").folder
    say(f"Your files are saved in {_short(here, root)}")
    return 0


def say_restore(root: Path = ROOT, when: str = "") -> int:
    """The command `restore`."""
    _forget_unfinished(root)
    with in_words():
        put_back, changed, before = restore(root, when)
    if not changed:
        say(f"Nothing to do: your files are those of {put_back.when}.")
        return 0
    say(f"The files of before are saved in {_short(before.folder, root)}")
    say(f"Back from {put_back.when}: " + listed([f"flexnano/{name}" for name in changed]))
    return 0


def say_history(root: Path = ROOT, what: str | None = None) -> int:
    """The command `history`."""
    if what is None:
        everything = saved(root)
        for one in everything:
            say(f"{one.when}  {one.why}")
        say(f"{many(len(everything), 'saved version')}; to put one back: python -m course restore WHEN")
        return 0
    for exercise in find(what, root):
        say(f"{exercise}")
        before = ""
        for version in history(exercise, root):
            changes = _changes(before, version.code)
            say(f"  {version.when:<20} {changes:<14} {version.why}".rstrip())
            before = version.code
        notebook = root / ".course" / "history" / exercise.number
        if any(notebook.glob("*.py")):
            say(f"  versions from the notebook: {_short(notebook, root)}")
    return 0


def _changes(before: str, after: str) -> str:
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in ("+ ", "- "))
    return f"+{added} -{removed} lines"


def _forget_unfinished(root: Path) -> None:
    """Remove what a command that was killed left beside the files."""
    for path in package(root).glob(".*.unfinished"):
        path.unlink(missing_ok=True)
    for folder in (root / ".course" / "saved").glob(".unfinished-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
