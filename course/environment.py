"""The virtual environment `.venv`: made once, checked in a moment, never half done.

A stamp in `.venv` says for which requirements it was filled and with what. A run that finds a true stamp installs nothing.
A marker stands in `.venv` while pip is replacing packages; a run that finds it knows that the last one was killed there, and
starts over (what was downloaded whole is in pip's cache).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .console import CourseError, say, size

ROOT = Path(__file__).resolve().parent.parent
FREE_BYTES_NEEDED = 3_000_000_000  # torch for CPUs, the other packages and pip's own copies while it unpacks them
CAREFUL_WITH = (
    "torch",
    "torchvision",
    "torchaudio",
    "triton",
    "numpy",
    "transformers",
)  # never replaced with --no-venv


@dataclass(frozen=True)
class Environment:
    """The Python that runs the course, and where its stamp is kept."""

    python: Path
    stamp: Path
    own_venv: Path | None  # None: somebody else's Python (Colab, --no-venv), in which torch is never touched

    @property
    def marker(self) -> Path:
        return self.stamp.with_name("course-installing")


def in_colab() -> bool:
    if "COLAB_RELEASE_TAG" in os.environ:
        return True
    try:
        return importlib.util.find_spec("google.colab") is not None
    except (ImportError, ValueError):
        return False


def choose(root: Path, no_venv: bool) -> Environment:
    if no_venv or in_colab():
        return Environment(Path(sys.executable), root / ".course" / "course-stamp.json", None)
    venv = root / ".venv"
    return Environment(venv_python(venv), venv / "course-stamp.json", venv)


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def prepare(root: Path = ROOT, no_venv: bool = False) -> Environment:
    """Bring the environment up to date with the requirements; a second call changes nothing.

    Raises:
        CourseError: what stopped it and what to do.  The next call goes on from there.
    """
    environment = choose(root, no_venv)
    if (problem := out_of_date(environment, root)) is None:
        where = f"{environment.own_venv.name} " if environment.own_venv else ""
        say(f"{where}is up to date: nothing to install" if where else "All packages are there: nothing to install")
        return environment
    say(problem)
    if environment.own_venv is not None:
        _make_venv(environment)
    _install(environment, root)
    _write_stamp(environment, root)
    return environment


# ---------------------------------------------------------------------------------------------- is it up to date?


def out_of_date(environment: Environment, root: Path) -> str | None:
    """Why something has to be installed, in words; None if nothing has to."""
    if not environment.stamp.exists():
        return "Nothing installed yet" if not environment.marker.exists() else "The last installation was interrupted"
    try:
        stamp = json.loads(environment.stamp.read_text(encoding="utf-8"))
        wanted, packages = stamp["requirements"], stamp["packages"]
    except (ValueError, KeyError, TypeError):
        return "The stamp of the last installation cannot be read"
    if wanted != fingerprint(root):
        return "The requirements have changed"
    found = _inspect(environment.python)
    if found is None:
        return f"{environment.python} does not start"
    if stamp.get("python") != found["python"]:
        return f"Python was {stamp.get('python')} and is {found['python']}"
    if environment.own_venv is not None and not _same_folder(found["home"], root):
        return f"flexnano is installed from another folder ({found['home']})"
    for name, version in packages.items():
        if found["packages"].get(name) != version:
            return f"{name} was {version} and is {found['packages'].get(name, 'missing')}"
    return None


def fingerprint(root: Path) -> str:
    """A hash of everything that says what belongs into the environment."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "requirements.txt", "constraints.txt"):
        path = root / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.exists() else b"") + b"\0")
    return digest.hexdigest()


_INSPECT = """
import importlib.metadata, importlib.util, json, pathlib, platform
spec = importlib.util.find_spec("flexnano")
origin = spec.origin if spec else None
print(json.dumps({
    "python": platform.python_version(),
    "home": str(pathlib.Path(origin).parent.parent) if origin else None,
    "packages": {d.name: d.version for d in importlib.metadata.distributions() if d.name},
}))
"""


def _inspect(python: Path) -> dict | None:  # type: ignore[type-arg]
    """What is installed, asked from that Python in isolation (-I: neither this folder nor PYTHONPATH counts)."""
    try:
        answer = subprocess.run([str(python), "-I", "-c", _INSPECT], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return json.loads(answer.stdout) if answer.returncode == 0 else None


def _same_folder(found: str | None, root: Path) -> bool:
    return found is not None and Path(found).resolve() == root.resolve()


def _write_stamp(environment: Environment, root: Path) -> None:
    found = _inspect(environment.python)
    if found is None:
        raise CourseError(f"{environment.python} does not start after the installation. Run the same command again.")
    stamp = {"requirements": fingerprint(root), "python": found["python"], "packages": found["packages"]}
    unfinished = environment.stamp.with_suffix(".tmp")
    unfinished.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    unfinished.replace(environment.stamp)
    environment.marker.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------ make it so


def _make_venv(environment: Environment) -> None:
    venv = environment.own_venv
    assert venv is not None
    interrupted = environment.marker.exists()
    if not interrupted and _has_pip(environment.python):
        return
    if _running_inside(venv):
        raise CourseError(
            f"{venv} is damaged and cannot be rebuilt by its own Python. Leave it (`deactivate`) and run the command again."
        )
    say(f"Making {venv.name} with Python {sys.version.split()[0]} …")
    try:
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    except OSError as error:
        raise CourseError(f"{sys.executable} does not start: {error}") from error
    output = made.stdout + made.stderr
    if made.returncode == 0 and _has_pip(environment.python):
        return
    shutil.rmtree(venv, ignore_errors=True)
    if "No space left" in output:
        raise CourseError(_disk_full(venv.parent))
    if "ensurepip" in output or "No module named venv" in output:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise CourseError(
            "This Python cannot make virtual environments: its venv or ensurepip module is missing.\n"
            f"On Debian and Ubuntu:  sudo apt install python{version}-venv\n"
            "Then run the same command again."
        )
    raise CourseError(f"Making {venv} failed:\n{output.strip()}")


def _has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    try:
        return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def _running_inside(venv: Path) -> bool:
    return Path(sys.prefix).resolve() == venv.resolve()


def _install(environment: Environment, root: Path) -> None:
    check_space([root, Path(tempfile.gettempdir())], FREE_BYTES_NEEDED)
    environment.stamp.parent.mkdir(parents=True, exist_ok=True)
    environment.stamp.unlink(missing_ok=True)
    environment.marker.touch()
    say("Installing the packages (a few minutes the first time) …")
    with tempfile.TemporaryDirectory() as scratch:
        constraints = root / "constraints.txt"
        if environment.own_venv is None:
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text(_keep_what_is_there(environment.python), encoding="utf-8")
        arguments = ["install", "--editable", f"{root}[dev]", "--constraint", str(constraints)]
        log = Path(scratch) / "pip.log"
        if (failed := _pip(environment.python, arguments, log)) and damaged_download(failed):
            say("A package arrived damaged; downloading once more, without pip's cache …")
            failed = _pip(environment.python, [*arguments, "--no-cache-dir"], log)
        if failed is None:
            return
        if "Installing collected packages" not in failed:
            environment.marker.unlink(missing_ok=True)  # pip stopped before it changed anything
    raise CourseError(explain_pip_failure(failed, root))


def _keep_what_is_there(python: Path) -> str:
    found = _inspect(python) or {"packages": {}}
    installed = {name.lower(): version for name, version in found["packages"].items()}
    return "".join(f"{name}=={installed[name]}\n" for name in CAREFUL_WITH if name in installed)


def _pip(python: Path, arguments: Sequence[str], log: Path) -> str | None:
    """Run pip with its own progress bars on the terminal.  Returns None, or what it logged if it failed."""
    log.unlink(missing_ok=True)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--log", str(log), *arguments]
    try:
        code = subprocess.run(command).returncode
    except OSError as error:
        return str(error)
    if code == 0:
        return None
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else f"pip ended with code {code}"


# ------------------------------------------------------------------------------------------------ what went wrong


def check_space(folders: Sequence[Path], needed: int) -> None:
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise CourseError(
                f"{size(free)} are free where {folder} lies, and {size(needed)} are needed. Free some space "
                "(pip's cache: `python3 -m pip cache purge`) and run the same command again."
            )


def _disk_full(folder: Path) -> str:
    return (
        f"The disk is full ({size(shutil.disk_usage(folder).free)} free where {folder} lies). Free some space "
        "(pip's cache: `python3 -m pip cache purge`) and run the same command again: it goes on from here."
    )


_OFFLINE = re.compile(
    "NewConnectionError|NameResolutionError|Temporary failure in name resolution|Failed to establish a new connection"
    "|ConnectTimeoutError|ReadTimeoutError|Read timed out|Connection refused|Network is unreachable|ProxyError"
    "|Connection aborted|Connection reset|Max retries exceeded|SSLError"
)
_DAMAGED = re.compile(
    "BadZipFile|Bad magic number|is invalid\\.|IncompleteRead|DO NOT MATCH THE HASHES|has an invalid wheel|Bad CRC-32"
    "|File is not a zip file"
)


def damaged_download(log: str) -> bool:
    return _DAMAGED.search(log) is not None


def explain_pip_failure(log: str, folder: Path) -> str:
    """Say in one message what pip's log of a failed run means, and what to do."""
    if "No space left on device" in log or "[Errno 28]" in log:
        return _disk_full(folder)
    if damaged_download(log):
        return (
            "A package was downloaded incompletely, twice. Nothing of it was kept. If it happens again, look whether a proxy "
            "cuts long downloads; then run the same command again."
        )
    if _OFFLINE.search(log):
        return (
            "The package index cannot be reached: this machine looks offline (or a proxy or firewall is in between).\n"
            "Packages that arrived whole are kept in pip's cache. Connect, and run the same command again."
        )
    errors = [line.split("ERROR: ", 1)[-1] for line in log.splitlines() if "ERROR: " in line]
    said = "\n".join(f"  {line}" for line in (errors or log.strip().splitlines())[-8:])
    return f"pip could not install the packages. It said:\n{said}\nRun the same command again once that is mended."
