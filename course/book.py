"""`python -m course book`: the book, with Jupyter Book 1, from _config.yml and _toc.yml.

Its packages lie in `.course/book-venv`, beside the course's and not among them: Sphinx wants older versions of some.  What
they lack, torch for instance, they find in the environment that this runs in.
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
import sysconfig
import time
from pathlib import Path
from typing import Any

from .console import CourseError, duration, say
from .environment import ROOT, venv_python

BUILD = Path("_build")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def make(root: Path = ROOT, pdf: bool = False, everything: bool = False) -> int:
    """Build the book into _build/html, and with `pdf` also _build/pdf/book.pdf.  A warning is an error.

    Args:
        everything: build all pages anew, also those that have not changed.

    Returns:
        The exit code.

    Raises:
        CourseError: the book's packages, or for a PDF the browser, are not to be had.
    """
    started = time.perf_counter()
    browser = find_browser() if pdf else None
    if pdf and browser is None:
        raise CourseError(
            "A PDF is printed by Chromium or Chrome, and there is none here. Install one (Debian, Ubuntu: sudo apt install\n"
            "chromium), or name it: FLEXNANO_BROWSER=/path/to/chrome"
        )
    python = packages(root)
    toc = root / BUILD / "toc.yml"
    toc.parent.mkdir(exist_ok=True)
    write_toc(root, toc)
    if (code := _jupyter_book(python, root, toc, [], everything)) != 0:
        say("The book was not built: warnings are errors, and stand above.")
        return code
    say(f"The book is in {root / BUILD / 'html' / 'index.html'} ({duration(time.perf_counter() - started)})")
    if pdf:
        one_page = ["--builder", "custom", "--custom-builder", "singlehtml"]
        if (code := _jupyter_book(python, root, toc, one_page, everything)) != 0:
            return code
        file = root / BUILD / "pdf" / "book.pdf"
        file.parent.mkdir(exist_ok=True)
        # Sphinx lays the page into a folder, and names what belongs to it as seen from the folder above.
        single = root / BUILD / "singlehtml"
        whole = Path(shutil.copy(single / "book" / "welcome.html", single / "whole.html"))
        command = [str(python), str(root / "book" / "_tools" / "pdf.py"), str(whole), str(file), str(browser)]
        if (code := subprocess.run(command, cwd=root).returncode) != 0:
            return code
        say(f"The PDF is {file} ({duration(time.perf_counter() - started)})")
    return 0


def find_browser() -> str | None:
    """A browser of the system that can run without a window."""
    named = os.environ.get("FLEXNANO_BROWSER")
    return named or next((found for name in BROWSERS if (found := shutil.which(name))), None)


# ------------------------------------------------------------------------------------------------------ table of contents


def write_toc(root: Path, to: Path) -> list[str]:
    """_toc.yml without the pages that this copy of the course does not have.  Returns those that were left out."""
    import yaml

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    missing: list[str] = []
    for part in toc["parts"]:
        part["chapters"] = _there(part["chapters"], root, missing)
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    text = yaml.safe_dump(toc, sort_keys=False)
    if not to.is_file() or to.read_text(encoding="utf-8") != text:
        to.write_text(text, encoding="utf-8")
    return missing


def _there(entries: list[dict[str, Any]], root: Path, missing: list[str]) -> list[dict[str, Any]]:
    kept = []
    for entry in entries:
        sections = _there(entry.get("sections", []), root, missing)
        if page(entry["file"], root) is None:
            missing.append(entry["file"])
            kept += sections
            continue
        kept.append({"file": entry["file"], **({"sections": sections} if sections else {})})
    return kept


def page(name: str, root: Path = ROOT) -> Path | None:
    """The file of a page of the table of contents, if there is one."""
    return next((path for suffix in (".md", ".ipynb") if (path := root / f"{name}{suffix}").is_file()), None)


# ------------------------------------------------------------------------------------------------------- facts in pages


def glossary_terms(root: Path = ROOT) -> list[str]:
    """The words of book/glossary.md, in its order: the lines that are not set in, in its directive."""
    text = (root / "book" / "glossary.md").read_text(encoding="utf-8")
    found = re.search(r"^:{3,}\{glossary\}\n(.*?)^:{3,}$", text, re.DOTALL | re.MULTILINE)
    lines = found[1].splitlines() if found else []
    return [line.strip() for line in lines if line.strip() and not line.startswith((" ", ":"))]


def look_up(text: str, root: Path = ROOT) -> str:
    """A number out of a file, as pages ask for it by `{result}`: `throughput-x.json:engines.flexnano.seconds.median|.1f`.

    The file lies in benchmarks/results/, book/data/, course/recorded/ or the results of Experiment 1.  Keys are parted by
    dots; a number picks from a list; what follows `|` is a format of Python.

    Raises:
        KeyError: no such file, or nothing there.
    """
    import yaml

    where, _, form = text.partition("|")
    name, _, keys = where.partition(":")
    experiment = root / "experiments" / "AddFlexAttentionQwen" / "results"
    folders = (root / "benchmarks" / "results", root / "book" / "data", root / "course" / "recorded", experiment)
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        raise KeyError(f"no file {name}")
    read = path.read_text(encoding="utf-8")
    value = yaml.safe_load(read) if path.suffix == ".yml" else json.loads(read)
    for key in keys.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return f"{value:{form}}" if form else str(value)


# --------------------------------------------------------------------------------------------------------------- packages


def packages(root: Path) -> Path:
    """The Python that has Jupyter Book: FLEXNANO_BOOK_PYTHON, this one, or .course/book-venv, filled if it has to be.

    Raises:
        CourseError: they can't be installed.
    """
    if (named := os.environ.get("FLEXNANO_BOOK_PYTHON")) is not None:
        return Path(named)
    if importlib.util.find_spec("jupyter_book") is not None:
        return Path(sys.executable)
    venv = root / ".course" / "book-venv"
    python, stamp = venv_python(venv), venv / "stamp.json"
    wanted = {"requirements": _fingerprint(root), "python": sys.version, "beside": sysconfig.get_path("purelib")}
    if python.exists() and stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return python
    say("Installing the book's packages (a minute the first time) …")
    venv.parent.mkdir(exist_ok=True)
    folder = root / "book"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted_packages = ["-r", str(folder / "requirements.txt"), "-c", str(folder / "constraints.txt")]
    for command in ([sys.executable, "-m", "venv", "--clear", str(venv)], [*install, *wanted_packages]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()[-8:]
            raise CourseError("The book's packages can't be installed. It said:\n  " + "\n  ".join(said))
    library = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    # Last in line: what both have is taken from the book's own.
    Path(library.stdout.strip(), "zz_course.pth").write_text(f"{wanted['beside']}\n", encoding="utf-8")
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256()
    for name in ("requirements.txt", "constraints.txt"):
        digest.update((root / "book" / name).read_bytes())
    return digest.hexdigest()


def _jupyter_book(python: Path, root: Path, toc: Path, more: list[str], everything: bool) -> int:
    start = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"  # the script, wherever it lies
    command = [str(python), "-c", start, "build", str(root), "--toc", str(toc), "-W", "--keep-going", "-q", *more]
    variables = {**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    variables.pop("FLEXNANO", None)
    return subprocess.run([*command, *(["--all"] if everything else [])], cwd=root, env=variables).returncode


def main(arguments: list[str]) -> int:
    try:
        return make(ROOT, pdf="--pdf" in arguments, everything="--all" in arguments)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
