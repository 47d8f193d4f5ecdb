"""Where the cases and a healthy engine come from: this copy of the course, or a teacher's `clinic.zip`.

A class release has neither: the engines are complete, and the cases quote the reference.  The teacher makes the zip with the
release, or with `python -m course clinic --pack clinic.zip`, and hands it out when modules 01 to 06 are over.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import release, work
from ..console import CourseError
from ..environment import ROOT
from ..exercises import MARK
from ..grading import merge
from .case import Case

PACK = "clinic.zip"
LAST_MODULE = 6
"""Exercises of later modules are stubs in the clinic's engines, so that nobody finds homework solved there."""

ENTRANCES = ("inference.py", "trace.py", "viz.py")
HOME = '''def _folder() -> Path:
    """The folder that the modules are imported from."""
    return Path(__file__).resolve().parent
'''
NO_CLINIC = (
    f"{work.NO_REFERENCE}, and the engines of the clinic are complete ones. With your teacher's {PACK} beside README.md, "
    "this command works."
)


@dataclass(frozen=True)
class Store:
    """The cases by number, and the files of a healthy engine by name."""

    cases: dict[int, Case]
    healthy: dict[str, str]

    @property
    def graded(self) -> list[Case]:
        """The cases but for the one that the chapter works."""
        return [case for number, case in sorted(self.cases.items()) if number]


def load(root: Path = ROOT) -> Store:
    """What there is.

    Raises:
        CourseError: neither solutions nor a clinic.zip; or one that does not fit.
    """
    if merge.reference_folder(root) is not None:
        return Store(_cases(root / "course" / "clinic" / "cases"), healthy_engine(root))
    for path in (root / PACK, root / ".course" / PACK):
        if path.is_file():
            folder = unpacked(path, root)
            files = sorted((folder / "flexnano").glob("*.py"))
            return Store(_cases(folder / "cases"), {file.name: file.read_text(encoding="utf-8") for file in files})
    raise CourseError(NO_CLINIC)


def is_there(root: Path = ROOT) -> bool:
    """Whether `load` finds something."""
    return merge.reference_folder(root) is not None or any(
        path.is_file() for path in (root / PACK, root / ".course" / PACK)
    )


# ------------------------------------------------------------------------------------------------ a healthy engine


def healthy_engine(root: Path = ROOT) -> dict[str, str]:
    """The reference up to module 06 as somebody would have written it who knows nothing of a course."""
    exercises = merge.course_exercises(root)
    files = {file: _plain(release._solved_upto(LAST_MODULE, file, exercises, root)) for file in merge.files(root)}
    files = {file: files[file] for file in ("__init__.py", *sorted(_needed(files)))}
    # Wherever the folder lies, its package is itself: FLEXNANO chooses the learner's own, not the patient.
    files["__init__.py"] = merge.replace(files["__init__.py"], "_folder", HOME)
    return files


def _needed(files: dict[str, str]) -> set[str]:
    """The files that the plain engine and the tools to look at it import: module 07 and the homework stay out."""
    needed: set[str] = set()
    todo: list[str] = [file for file in ENTRANCES if file in files]
    while todo:
        file = todo.pop()
        needed.add(file)
        for node in merge.parse(files[file]).body:  # not those in functions, or for type checkers only
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                wanted = f"{node.module}.py"
                todo += [wanted] if wanted in files and wanted not in needed else []
    return needed


def _plain(source: str) -> str:
    """Without the header of stubs, without marks of solutions and of exercises."""
    lines = work.without_markers(source).splitlines(keepends=True)
    while lines and lines[0].startswith("# "):
        del lines[0]
    mark = re.compile(rf" *{MARK.pattern.removesuffix('$')}(?=\n)")
    return mark.sub("", "".join(lines))


def _cases(folder: Path) -> dict[int, Case]:
    """The cases in a folder, each a file with a CASE."""
    found = {}
    for path in sorted(folder.glob("case_*.py")):
        spec = importlib.util.spec_from_file_location(f"clinic_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[module.CASE.number] = module.CASE
    return found


# ------------------------------------------------------------------------------------------------ the teacher's zip


def packed(root: Path = ROOT) -> bytes:
    """What a class needs for the clinic, as a zip; the same bytes for the same course.

    Raises:
        CourseError: there are no solutions here.
    """
    if merge.reference_folder(root) is None:
        raise CourseError(f"{work.NO_REFERENCE}; {PACK} is made where they are.")
    members = {"clinic.json": json.dumps({"format": 1, "course": work.fingerprint(root)})}
    members |= {f"flexnano/{file}": text for file, text in healthy_engine(root).items()}
    for path in sorted((root / "course" / "clinic" / "cases").glob("case_*.py")):
        members[f"cases/{path.name}"] = path.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def unpacked(path: Path, root: Path = ROOT) -> Path:
    """The folder that a teacher's zip was unpacked to.

    Raises:
        CourseError: it is none, or of another version of the course.
    """
    try:
        content = path.read_bytes()
        folder = root / ".course" / "clinic" / hashlib.sha256(content).hexdigest()[:16]
        if folder.is_dir():
            return folder
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            about = json.loads(archive.read("clinic.json"))
            names = [name for name in archive.namelist() if _fits(name)]
            files = {name: archive.read(name) for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CourseError(f"{path.name} is not a {PACK} that `python -m course release --class` made.") from error
    if about.get("course") != work.fingerprint(root):
        raise CourseError(
            f"{path.name} was made from another version of the course. Ask for the one that belongs to this release."
        )
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, data in files.items():
        work.write(unfinished / name, data)
    unfinished.rename(folder)
    return folder


def _fits(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix == ".py" and len(path.parts) == 2 and path.parts[0] in ("flexnano", "cases")
