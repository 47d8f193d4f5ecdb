"""`python -m course notebooks`: the cells of the notebooks that are made and not written by hand.

A cell says in its metadata what it is; all others, and everything else in the file, stay byte for byte as they are:

    {"course": "setup"}                 the first code cell, the same in every notebook but for the module's number
    {"course": "links"}                 where to open the notebook
    {"course": {"exercise": "3.2"}}     `%%exercise 3.2` and the stub
    {"course": {"section": "3.2"}}      the heading that the grader of 3.2 points to: its first line is made
    {"course": {"card": "3.2"}}         what the grader says to one wrong answer: tests/course/cards.py

`python -m course notebooks --run 03` also runs a notebook on the reference and stores what its cells show; without a number
all of them (make notebooks).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import settings, work
from .console import CourseError, say
from .environment import ROOT
from .exercises import Exercise
from .grading import grader, merge

FILES = {
    0: "00_first_look",
    1: "01_masks",
    2: "02_flexattention_in_qwen3",
    3: "03_page_table",
    4: "04_kv_cache",
    5: "05_scheduler",
    6: "06_engine",
    7: "07_making_it_fast",
    8: "08_prefix_sharing",
    9: "09_sliding_window",
    10: "10_fusion",
    11: "11_bug_clinic",
}
STARTED = (0, 1, 2, 3, 4, 5, 6, 7)  # notebooks that exist, or are made anew with all that can be made
IGNORED = "nbval-ignore-output"  # strict nbval runs the cell and does not look at what it shows
SETUP = """\
# Setup: run this cell first. It finds the course, or fetches it on Colab, and says what this machine has.
import os
import sys
from pathlib import Path

home = Path("/content/flexnano-course")
found = [p for p in (Path.cwd(), *Path.cwd().parents, home) if (p / "course" / "colab.py").is_file()]
if not found and "COLAB_RELEASE_TAG" in os.environ:
    if home.exists():  # half a course: set aside
        home.rename(f"{home}.{home.stat().st_mtime_ns}")
    !rm -rf {home}.part && git clone -q -b BRANCH REPOSITORY {home}.part && mv {home}.part {home}
sys.path[:0] = [str(p) for p in found[:1] or [home]]
from course import colab  # missing? Clone REPOSITORY and open the notebook in its folder

colab.start()
%load_ext course
%course_module MODULE"""


def make(root: Path = ROOT, check: bool = False) -> int:
    """Bring the made cells of all notebooks up to date, or with `check` only say what is out of step.

    Returns:
        The exit code.
    """
    folder = root / "notebooks"
    exercises = merge.course_exercises(root)
    changed: list[str] = []
    problems: list[str] = []
    for module, name in FILES.items():
        path = folder / f"{name}.ipynb"
        old = path.read_bytes().decode("utf-8") if path.is_file() else None
        if old is None and module not in STARTED:
            continue
        own = [exercise for exercise in exercises if exercise.module == module]
        new = new_notebook(module, own, root) if old is None else brought_up_to_date(old, module, own, root)
        problems += [f"{path.name}: {problem}" for problem in troubles(new, own)]
        if new != old:
            changed.append(path.name)
            if not check:
                work.write(path, new)
    for name in changed:
        say(f"notebooks/{name}: {'out of step' if check else 'written'}")
    for problem in problems:
        say(f"notebooks/{problem}")
    if check and changed:
        say("Their made cells are not what solutions/ gives. Run: python -m course notebooks")
    if not changed and not problems:
        say(f"{len(list(folder.glob('*.ipynb')))} notebooks in step with solutions/flexnano/")
    return 1 if problems or (check and changed) else 0


def brought_up_to_date(text: str, module: int, exercises: list[Exercise], root: Path = ROOT) -> str:
    """The text of a notebook with its made cells as they have to be.

    Raises:
        CourseError: it is no notebook.
    """
    try:
        spans = list(cell_spans(text))
    except (ValueError, KeyError) as error:
        raise CourseError(f"notebooks/{FILES[module]}.ipynb is not a notebook: {error}") from error
    by_number = {exercise.number: exercise for exercise in exercises}
    for begin, end, cell in reversed(spans):
        wanted = made(cell, module, by_number, root)
        if wanted is not None and wanted != cell:
            text = text[:begin] + rewritten(wanted, text, begin) + text[end:]
    return text


def made(cell: dict[str, Any], module: int, exercises: dict[str, Exercise], root: Path) -> dict[str, Any] | None:
    """A made cell as it has to be; None: it is written by hand."""
    mark = cell.get("metadata", {}).get("course")
    if mark == "setup":
        return _as_code(cell, setup(module))
    if mark == "links":
        return {**cell, "source": _lines(links(module))}
    if isinstance(mark, dict) and mark.get("exercise") in exercises:
        return _as_code(cell, stub(exercises[mark["exercise"]], root))
    if isinstance(mark, dict) and mark.get("section") in exercises:
        level, _, rest = "".join(cell["source"]).partition("\n")
        hashes = (re.match(r"#+", level) or ["##"])[0]
        heading = f"{hashes} {section(exercises[mark['section']], root)}"
        return {**cell, "source": _lines(f"{heading}\n{rest}" if rest else heading)}
    return None


def setup(module: int) -> str:
    """The text of the first code cell."""
    text = SETUP.replace("BRANCH", settings.BRANCH).replace("REPOSITORY", settings.REPOSITORY)
    return text.replace("MODULE", str(module))


def links(module: int) -> str:
    name = f"{FILES[module]}.ipynb"
    return f"[Open in Colab]({settings.colab_link(name)}) · [on GitHub]({settings.source_link(f'notebooks/{name}')})"


def stub(exercise: Exercise, root: Path = ROOT) -> str:
    """The text of an exercise's cell."""
    pristine = merge.pristine(exercise.file, root)
    code = merge.parts(pristine)[exercise.name].text(pristine)
    return f"%%exercise {exercise.number}\n{merge.dedented(code)}".rstrip("\n")


def section(exercise: Exercise, root: Path = ROOT) -> str:
    """The heading that the card of an exercise points to."""
    judge = grader.judges(exercise.module, root).get(exercise.number)
    return judge.section if judge is not None else exercise.name


def troubles(text: str, exercises: list[Exercise]) -> list[str]:
    """What no making can mend."""
    marks = [cell.get("metadata", {}).get("course") for _, _, cell in cell_spans(text)]
    there = [mark["exercise"] for mark in marks if isinstance(mark, dict) and "exercise" in mark]
    numbers = [exercise.number for exercise in exercises]
    found = [f'no cell with {{"course": {{"exercise": "{n}"}}}} in its metadata' for n in numbers if n not in there]
    found += [f"exercise {n} does not exist" for n in dict.fromkeys(there) if n not in numbers]
    found += [f"exercise {n} is there twice" for n in dict.fromkeys(there) if there.count(n) > 1]
    if "setup" not in marks:
        found.append('no cell with {"course": "setup"} in its metadata')
    return found


# -------------------------------------------------------------------------------------------------- text of a notebook


def cell_spans(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Where each cell stands in the text of a notebook, and what it is."""
    notebook = json.loads(text)
    n_cells = len(notebook["cells"])
    decoder = json.JSONDecoder()
    for match in re.finditer(r'"cells"\s*:\s*\[\s*', text):
        at, found = match.end(), []
        try:
            for index in range(n_cells):
                cell, end = decoder.raw_decode(text, at)
                found.append((at, end, cell))
                following = re.compile(r"\s*,\s*" if index + 1 < n_cells else r"\s*\]").match(text, end)
                if following is None:
                    raise ValueError
                at = following.end()
        except ValueError:
            continue  # the word stands in some cell
        if [cell for _, _, cell in found] == notebook["cells"]:
            yield from found
            return
    if n_cells:
        raise ValueError("its cells can't be found")


def rewritten(cell: dict[str, Any], text: str, at: int) -> str:
    """A cell as JSON, indented as the one that stands at `at`."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    margin = line if not line.strip() else ""
    step = (re.search(r"\n( +)\"", text) or ["", " "])[1]
    written = json.dumps(cell, ensure_ascii=False, indent=len(step))
    return written.replace("\n", ("\r\n" if "\r\n" in text else "\n") + margin)


def _as_code(cell: dict[str, Any], source: str) -> dict[str, Any]:
    """A made code cell: without output, and with output that nobody compares."""
    tags = cell["metadata"].get("tags", [])
    metadata = {**cell["metadata"], "tags": tags if IGNORED in tags else [*tags, IGNORED]}
    return {**cell, "execution_count": None, "metadata": metadata, "outputs": [], "source": _lines(source)}


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)


# -------------------------------------------------------------------------------------------------- a new notebook


def new_notebook(module: int, exercises: list[Exercise], root: Path = ROOT) -> str:
    """A notebook with all that can be made: a place for each part, the exercises and their headings."""
    from .status import TITLES

    minutes = sum(exercise.minutes for exercise in exercises)
    title = TITLES.get(module, FILES[module])
    cells = [
        _markdown("title", f"# {title[:1].upper()}{title[1:]}"),
        _markdown("links", links(module), "links"),
        _code("setup", setup(module), "setup"),
        _markdown("objectives", f"**Objectives.** …\n\n**Time.** {minutes} minutes for the exercises.\n\n**Needs.** …"),
    ]
    for exercise in exercises:
        number = exercise.number.replace(".", "-")
        cells += [
            _markdown(f"section-{number}", f"## {section(exercise, root)}", {"section": exercise.number}),
            _code(f"exercise-{number}", stub(exercise, root), {"exercise": exercise.number}),
        ]
    notebook = {
        "cells": cells,
        "metadata": {
            "accelerator": "GPU",
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _markdown(name: str, source: str, mark: Any = None) -> dict[str, Any]:
    metadata = {"course": mark} if mark is not None else {}
    return {"cell_type": "markdown", "id": name, "metadata": metadata, "source": _lines(source)}


def _code(name: str, source: str, mark: Any) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": "code", "id": name, "metadata": {"course": mark}}
    return _as_code(cell, source)


# ---------------------------------------------------------------------------------------- for those who write notebooks


@dataclass
class Run:
    """A notebook that was run: its text with outputs, and what went wrong."""

    text: str
    errors: list[str]
    seconds: float


def run(text: str, folder: Path, reference: bool = True) -> Run:
    """Run all cells of a notebook in a kernel of this Python, and store what they show, but for made cells.

    Args:
        folder: where the kernel starts.
        reference: with FLEXNANO=solutions.
    """
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    if manager.kernel_spec is not None:
        manager.kernel_spec.argv[0] = sys.executable
    environment = {**os.environ, "PYTHONUTF8": "1", "FLEXNANO_NBVAL": "1"}
    if reference:
        environment["FLEXNANO"] = "solutions"
    manager.start_kernel(cwd=str(folder), env=environment)
    client = manager.client()
    client.start_channels()
    errors: list[str] = []
    began = time.monotonic()
    new: list[tuple[int, int, dict[str, Any]]] = []
    try:
        client.wait_for_ready(timeout=120)
        count = 0
        for begin, end, cell in cell_spans(text):
            if cell["cell_type"] != "code":
                continue
            outputs: list[dict[str, Any]] = []
            reply = client.execute_interactive(
                "".join(cell["source"]), timeout=600, output_hook=lambda message, to=outputs: _collect(message, to)
            )
            if reply["content"]["status"] != "ok":
                errors.append(f"{cell.get('id')}: {reply['content'].get('ename')}: {reply['content'].get('evalue')}")
            count += 1
            if "course" not in cell["metadata"]:
                shown: dict[str, Any] = {**cell, "execution_count": count, "outputs": outputs}
                new.append((begin, end, shown))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    for begin, end, shown in reversed(new):
        text = text[:begin] + rewritten(shown, text, begin) + text[end:]
    return Run(text, errors, time.monotonic() - began)


def _collect(message: dict[str, Any], outputs: list[dict[str, Any]]) -> None:
    """Keep one message of a kernel as the notebook format has it."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        # Where it ran is nobody's concern.
        content = {**content, "text": content["text"].replace(f"{ROOT}{os.sep}", "")}
        if outputs and outputs[-1]["output_type"] == "stream" and outputs[-1]["name"] == content["name"]:
            content = {**content, "text": "".join(outputs.pop()["text"]) + content["text"]}
        outputs.append({"name": content["name"], "output_type": kind, "text": _lines(content["text"])})
    elif kind in ("display_data", "execute_result"):
        data = {
            mime: _lines(value) if isinstance(value, str) and not mime.startswith("image/p") else value
            for mime, value in content["data"].items()
        }
        count = {"execution_count": content["execution_count"]} if kind == "execute_result" else {}
        outputs.append({"data": data, **count, "metadata": content["metadata"], "output_type": kind})


def main(arguments: list[str]) -> int:
    """Run notebooks (`03`, `3`, none: all) on the reference and store their outputs."""
    failed = False
    for argument in arguments or [""]:
        number = argument.zfill(2) if argument.isdigit() else argument
        paths = sorted((ROOT / "notebooks").glob(f"{number}*.ipynb"))
        if not paths:
            there = ", ".join(path.name[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
            say(f"no notebook's name begins with {argument!r}; there are {there}")
            failed = True
        for path in paths:
            done = run(path.read_text(encoding="utf-8"), path.parent)
            for error in done.errors:
                say(f"{path.name}: {error}")
            if not done.errors:
                work.write(path, done.text)
                say(f"{path.name}: outputs stored, {done.seconds:.0f} s")
            failed = failed or bool(done.errors)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
