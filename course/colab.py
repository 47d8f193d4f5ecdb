"""What the first cell of a notebook does, on Colab and elsewhere.

On Colab each notebook is a new machine: the course is fetched or brought up to date, what is missing is installed (torch
never is), and the learner's work comes from Google Drive, if that is mounted, or from a zip.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from . import check, environment, settings, work
from .console import CourseError, say
from .drive import Shelf
from .environment import ROOT

GIT_SECONDS = 60.0
NEVER_TOUCHED = ("torch", "torchvision", "torchaudio", "triton", "numpy")
ON_THIS_MACHINE = (
    "Your work lies on this machine only, and Colab throws machines away. `%course_drive` keeps it in your Google Drive; or "
    "`%course_save` downloads it as a zip, which `%course_restore` brings to another machine."
)


def start(root: Path = ROOT) -> None:
    """Make the machine ready and say what it has.  Nothing that goes wrong here stops the notebook."""
    from .magic.waiting import in_test

    _make_importable(root)
    # Whether ipywidgets are installed is nobody's worry here, and a warning with a path in it differs on every machine.
    warnings.filterwarnings("ignore", message="IProgress not found")
    if in_test():
        return
    colab = environment.in_colab()
    if colab:
        for line in (*update(root), *install_missing(root)):
            say(line)
    for line in machine(root):
        say(line)
    if not colab:
        say(f"Your work: {root / 'flexnano'}")
    elif (folder := drive_folder(root)) is not None:
        for line in restore_from_drive(root, folder):
            say(line)
    else:
        say(ON_THIS_MACHINE)


def _make_importable(root: Path) -> None:
    """So that every process that the notebook starts finds the course: `!pytest tests/module_03` does."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(root) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, paths)])


# -------------------------------------------------------------------------------------------------- bring up to date


def update(root: Path = ROOT) -> list[str]:
    """Fast-forward the clone to what was published since.  Files that the learner changed are never touched.

    Returns:
        What to tell.
    """
    if not (root / ".git").exists():
        return []
    lost = _git(root, "ls-files", "--deleted", "-z").split("\0")
    if lost := [name for name in lost if name]:  # the machine stopped while they were written
        _git(root, "checkout", "--", *lost)
    try:
        _git(root, "fetch", "--quiet", "--no-tags", "origin", settings.BRANCH)
        here, there = _git(root, "rev-parse", "HEAD").strip(), _git(root, "rev-parse", "FETCH_HEAD").strip()
    except (subprocess.SubprocessError, OSError):
        return ["The course could not be brought up to date (is this machine online?); the one that is here is used."]
    if here == there:
        return []
    try:
        _git(root, "merge-base", "--is-ancestor", here, there)
    except subprocess.SubprocessError:
        return ["This copy of the course has commits of its own and was not brought up to date: `git pull` does that."]
    try:
        return _fast_forward(root, here, there)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return [f"The course could not be brought up to date: {said[0] if said else error}"]


def _fast_forward(root: Path, here: str, there: str) -> list[str]:
    """Take over every changed file but those that were changed on this machine too."""
    changed = _git(root, "diff", "--name-only", "--no-renames", "-z", here, there).split("\0")
    dirty = set(_git(root, "diff", "--name-only", "--no-renames", "-z", here).split("\0"))
    unknown = set(_git(root, "ls-files", "--others", "-z").split("\0"))
    mine = [name for name in changed if name and name in dirty | unknown and not _is_at(root, name, there)]
    take = [name for name in changed if name and name not in mine]
    present = set(_git(root, "ls-tree", "-r", "--name-only", "-z", there).split("\0"))
    # File by file, and the branch last: whoever is stopped here goes on from here.
    if kept := [name for name in take if name in present]:
        _git(root, "checkout", there, "--", *kept)
    for name in take:
        if name not in present:
            (root / name).unlink(missing_ok=True)
    _git(root, "reset", "--quiet", "--soft", there)
    _git(root, "read-tree", there)
    told = ["The course was brought up to date."]
    if any(name.startswith("course/") for name in take):
        told.append("Its tooling changed too: restart the kernel and run this cell again.")
    if mine:
        told.append(f"As you left them, though newer ones were published: {', '.join(mine)}.")
    return told


def _is_at(root: Path, name: str, commit: str) -> bool:
    """Whether a file here is what it is in a commit."""
    try:
        known = _git(root, "rev-parse", f"{commit}:{name}").strip()
    except subprocess.SubprocessError:
        return not (root / name).exists()
    return (root / name).is_file() and _git(root, "hash-object", "--", name).strip() == known


def _git(root: Path, *arguments: str) -> str:
    slow = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20", "-c", "core.quotePath=off")
    return subprocess.run(
        ["git", *slow, *arguments],
        cwd=root,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
    ).stdout


# ---------------------------------------------------------------------------------------------------------- packages


def install_missing(root: Path = ROOT) -> list[str]:
    """Install what requirements.txt asks for and this Python lacks.  torch stays what it is, and so does what belongs to it.

    Returns:
        What to tell.
    """
    wanted = check.requirements(root)
    found = {name: _version(name) for name in {*wanted, *NEVER_TOUCHED, *environment.CAREFUL_WITH}}
    lacking = {
        name: oldest for name, oldest in wanted.items() if check.numbers(found[name] or "0") < check.numbers(oldest)
    }
    told = [
        f"{name} {found[name] or 'is missing'}: the course needs {oldest} or newer, and never installs it itself. "
        "Runtime → Disconnect and delete runtime gives a new machine with a newer one."
        for name, oldest in lacking.items()
        if name in NEVER_TOUCHED
    ]
    install = [f"{name}>={oldest}" for name, oldest in lacking.items() if name not in NEVER_TOUCHED]
    if not install:
        return told
    say(f"Installing {', '.join(install)} …")
    pins = [f"{name}=={version}" for name, version in sorted(found.items()) if version and name not in lacking]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
        arguments = ["install", "--quiet", "--constraint", str(constraints), *install]
        failed = environment._pip(Path(sys.executable), arguments, Path(scratch) / "pip.log")
    if failed is not None:
        told.append(environment.explain_pip_failure(failed, root))
    return told


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ----------------------------------------------------------------------------------------------------------- machine


def machine(root: Path = ROOT) -> list[str]:
    """What this machine has, and what the engine will do with it."""
    try:
        import torch
    except Exception as error:
        return [
            f"This kernel's Python ({sys.executable}) can't import torch ({error}). Choose the course's .venv as kernel; "
            "`make course` makes it."
        ]
    versions = (
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, transformers {_version('transformers') or '-'}"
    )
    forced = os.environ.get("FLEXNANO_ATTENTION")
    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        modern = capability >= (8, 0)
        path = forced or ("compiled FlexAttention" if modern else "gathered pages (a T4 can't compile FlexAttention)")
        name = f"{torch.cuda.get_device_name()}, compute capability {capability[0]}.{capability[1]}"
        return [versions, f"GPU: {name}; {'bfloat16' if modern else 'float16'}; attention by {path}"]
    compiles = check.compiler().level == "ok" and sys.platform.startswith("linux")
    path = forced or ("compiled FlexAttention, if it works here" if compiles else "gathered pages (no compiler)")
    return [versions, f"GPU: none, and the CPU is enough at small sizes; float32; attention by {path}"]


# ------------------------------------------------------------------------------------------------------ where work is


def drive_folder(root: Path = ROOT) -> Path | None:
    """The course's folder in Google Drive; None: Drive is not mounted."""
    mine = root.parent / "drive" / "MyDrive"
    return mine / settings.DRIVE_FOLDER if environment.in_colab() and mine.is_dir() else None


def restore_from_drive(root: Path, folder: Path) -> list[str]:
    """Bring the work that lies in Drive to this machine.  Returns what to tell."""
    shelf = Shelf(root, folder)
    try:
        changed = shelf.sync()
    except OSError as error:
        return [f"Your work in Google Drive can't be reached ({error.strerror or error}). {ON_THIS_MACHINE}"]
    told = [f"Your work is kept in Google Drive, MyDrive/{settings.DRIVE_FOLDER}."]
    if changed:
        told.append(f"From there: {', '.join(f'flexnano/{file}' for file in changed)}.")
    return told + shelf.told


def keep(root: Path = ROOT) -> list[str]:
    """Copy what was written to Drive, if it is mounted.  Returns what to tell; never fails."""
    if (folder := drive_folder(root)) is None:
        return []
    shelf = Shelf(root, folder)
    try:
        changed = shelf.sync()
    except OSError as error:
        return [f"It could not be copied to Google Drive ({error.strerror or error}). `%course_save` downloads a zip."]
    told = [f"From Google Drive, written on another machine: {', '.join(changed)}."] if changed else []
    return told + shelf.told


def mount_drive(root: Path = ROOT) -> list[str]:
    """`%course_drive`: ask for Google Drive, and keep the work there from now on."""
    drive, _ = _google()
    drive.mount(str(root.parent / "drive"))
    folder = drive_folder(root)
    if folder is None:
        return ["Google Drive was not mounted."]
    return restore_from_drive(root, folder)


def save(root: Path = ROOT) -> list[str]:
    """`%course_save`: the work as a zip, downloaded where there is a browser to do it."""
    if environment.in_colab():
        path = root.parent / "flexnano-work.zip"
        work.write(path, work.to_zip(root))
        _google()[1].download(str(path))
        return [f"{path.name} is on its way to your computer. `%course_restore` brings it back on another machine."]
    path = root / ".course" / "flexnano-work.zip"
    work.write(path, work.to_zip(root))
    return [f"Your work as a zip: {path}"]


def restore(root: Path = ROOT, name: str = "") -> list[str]:
    """`%course_restore`: put the work of a zip back, uploaded in Colab, by name elsewhere."""
    try:
        if name:
            contents: list[Any] = [Path(name)]
        elif environment.in_colab():
            contents = [io.BytesIO(content) for content in _google()[1].upload().values()]
        else:
            return ["Name the zip: %course_restore flexnano-work.zip"]
        told = []
        for content in contents:
            _, changed, before = work.from_zip(content, root)
            told.append(
                f"Restored: {', '.join(f'flexnano/{file}' for file in changed) or 'nothing, since all of it is here'}. "
                f"What was here before is kept in {before.folder.relative_to(root).as_posix()}."
            )
    except CourseError as error:
        return [str(error)]
    return [*told, *keep(root)]


def _google() -> tuple[Any, Any]:
    """Colab's own modules.

    Raises:
        CourseError: this is not Colab.
    """
    try:
        from google.colab import drive, files  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise CourseError("This works in Colab only; here your files are where you put them.") from error
    return drive, files
