"""Notebooks: their made cells are in step, all others stay as they are, and `pytest tests/module_NN` runs them readably."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import little_course
import nbformat
import pytest

from course import first_look, notebooks, settings
from course.environment import ROOT
from course.grading import merge
from course.grading.notebook import run_notebook

REAL = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def marks(path: Path) -> list[Any]:
    return [cell["metadata"].get("course") for cell in cells_of(path)]


# ------------------------------------------------------------------------------------------- the notebooks of the course


def test_the_made_cells_are_in_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.make(ROOT, check=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_its_made_cells_keep_their_names(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook, relax_add_props=False)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        mark = cell.metadata.get("course")
        if isinstance(mark, dict):
            ((kind, number),) = mark.items()
            assert cell["id"] == f"{kind}-{number.replace('.', '-')}"
        elif mark is not None:
            assert cell["id"] == mark
        if mark == "setup" or (isinstance(mark, dict) and "exercise" in mark):
            assert not cell.outputs and cell.execution_count is None and notebooks.IGNORED in cell.metadata.tags


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_nothing_runs_before_the_course_is_there(path: Path) -> None:
    first = next(cell for cell in cells_of(path) if cell["cell_type"] == "code")
    assert first["metadata"].get("course") == "setup", f"{first['id']} would fail on Colab"


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_each_exercise_follows_the_heading_that_its_card_names(path: Path) -> None:
    heading: Any = None
    for cell in cells_of(path):
        mark = cell["metadata"].get("course")
        if isinstance(mark, dict) and "section" in mark:
            heading = mark["section"]
        if isinstance(mark, dict) and "exercise" in mark:
            assert heading == mark["exercise"]


# ------------------------------------------------------------------------------------------------ byte for byte


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = little_course.make(tmp_path_factory.mktemp("course") / "made")
    shutil.copy(ROOT / "pyproject.toml", root)
    assert notebooks.make(root) == 0
    return root


@pytest.fixture
def course(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "course")


def test_new_notebooks_have_all_that_can_be_made(course: Path) -> None:
    path = course / "notebooks" / "03_page_table.ipynb"
    made_of = ["links", "setup", *({kind: n} for n in ("3.1", "3.2", "3.3") for kind in ("section", "exercise"))]
    assert [mark for mark in marks(path) if mark] == made_of
    by_id = {cell["id"]: "".join(cell["source"]) for cell in cells_of(path)}
    assert by_id["exercise-3-1"].startswith('%%exercise 3.1\ndef put(self, book: str) -> int:\n    """Put a book')
    assert by_id["section-3-2"] == "## Taking books away"
    assert by_id["setup"].endswith("%course_module 3") and len(by_id["setup"].splitlines()) <= 20
    assert "/notebooks/03_page_table.ipynb)" in by_id["links"]
    assert notebooks.make(course, check=True) == 0


@pytest.mark.parametrize("style", ["jupyter", "colab", "one line", "windows"])
def test_only_made_cells_are_rewritten(style: str, course: Path) -> None:
    path = course / "notebooks" / "03_page_table.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][0]["source"] = ['# "cells": [ {"a": 1} ] é\n', "漢\u2028字"]
    code = {
        "cell_type": "code",
        "execution_count": 3,
        "id": "x",
        "metadata": {"tags": []},
        "outputs": [],
        "source": "1 +1",
    }
    notebook["cells"].insert(5, code)
    notebook["metadata"] = {"z": 1, "a": {"cells": [1, 2]}}
    indent = {"jupyter": 1, "colab": 2, "one line": None, "windows": 1}[style]
    text = json.dumps(notebook, indent=indent, ensure_ascii=style != "jupyter", sort_keys=style == "jupyter") + "\n\n"
    path.write_bytes((text.replace("\n", "\r\n") if style == "windows" else text).encode())
    before = path.read_bytes()
    assert notebooks.make(course) == 0
    assert path.read_bytes() == before, "nothing had to change"

    reference = course / "solutions" / "flexnano" / "page_table.py"
    reference.write_text(reference.read_text().replace("Put a book at the end.", "Put a „Buch“ last."))
    assert notebooks.make(course, check=True) == 1 and path.read_bytes() == before
    assert notebooks.make(course) == 0
    after = path.read_bytes().decode()
    old = list(notebooks.cell_spans(before.decode()))
    new = list(notebooks.cell_spans(after))
    changed = [cell["id"] for (_, _, cell), (_, _, other) in zip(old, new, strict=True) if cell != other]
    assert changed == ["exercise-3-1"]
    (at,) = [index for index, (_, _, cell) in enumerate(old) if cell["id"] == "exercise-3-1"]
    assert before.decode()[: old[at][0]] == after[: new[at][0]] and before.decode()[old[at][1] :] == after[new[at][1] :]
    assert "Put a „Buch“ last." in "".join(json.loads(after)["cells"][at]["source"])


def test_outputs_of_made_cells_go_and_headings_keep_what_is_written_under_them(course: Path) -> None:
    path = course / "notebooks" / "03_page_table.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-3-1":
            cell["outputs"], cell["execution_count"] = [{"name": "stdout", "output_type": "stream", "text": "x"}], 3
            cell["source"] = "%%exercise 3.1\nmy solution"
            cell["metadata"]["tags"] = ["mine"]
        if cell["id"] == "section-3-1":
            cell["source"] = ["### Old\n", "\n", "Prose.\n"]
    path.write_text(json.dumps(notebook, indent=1))
    assert notebooks.make(course) == 0
    by_id = {cell["id"]: cell for cell in cells_of(path)}
    cell = by_id["exercise-3-1"]
    assert (
        not cell["outputs"]
        and cell["execution_count"] is None
        and cell["metadata"]["tags"] == ["mine", notebooks.IGNORED]
    )
    assert "".join(by_id["section-3-1"]["source"]) == "### Putting a book on the shelf\n\nProse.\n"


def test_what_making_can_not_mend_is_said(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = course / "notebooks" / "03_page_table.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    by_id = {cell["id"]: cell for cell in notebook["cells"]}
    notebook["cells"].remove(by_id["exercise-3-2"])
    notebook["cells"].append({**by_id["exercise-3-1"], "id": "again"})
    notebook["cells"].append({**by_id["exercise-3-1"], "id": "no", "metadata": {"course": {"exercise": "3.9"}}})
    path.write_text(json.dumps(notebook, indent=1))
    for check in (False, True):
        assert notebooks.make(course, check) == 1
        said = capsys.readouterr().out
        assert '"exercise": "3.2"' in said and "3.1 is there twice" in said and "3.9 does not exist" in said
    path.write_text("no notebook")
    with pytest.raises(notebooks.CourseError, match=r"03_page_table\.ipynb is not a notebook"):
        notebooks.make(course)


# -------------------------------------------------------------------------------------------------------- nbval


DEMOS = (
    "from flexnano import Shelf, count, double\nshelf = Shelf()\nprint(double(21), shelf.put('a'))",
    "count(shelf)",
    "print('how many:')\nprint(count(shelf))",
)


@pytest.fixture(scope="module")
def with_demos_once(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course whose notebook 04 has cells at its end, with the outputs of the reference."""
    course = shutil.copytree(made, tmp_path_factory.mktemp("demos") / "course")
    path = course / "notebooks" / "04_kv_cache.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for n, source in enumerate(DEMOS):
        code = {"cell_type": "code", "execution_count": None, "id": f"demo-{n}", "metadata": {}, "outputs": []}
        notebook["cells"].append({**code, "source": source.splitlines(keepends=True)})
    path.write_text(json.dumps(notebook, indent=1))
    # In a process of its own, since this one has another course in it.
    script = f"""
from course import first_look, notebooks, settings
from pathlib import Path
path = Path({str(path)!r})
done = notebooks.run(path.read_text(), path.parent)
assert not done.errors, done.errors
path.write_text(done.text)
"""
    little_course.run(course, script)
    return course


@pytest.fixture
def demos(with_demos_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(with_demos_once, tmp_path / "demos")


def nbval(course: Path, **variables: str) -> str | None:
    """`run_notebook` in a process that has this course in it."""
    path = course / "notebooks" / "04_kv_cache.ipynb"
    script = f"""
from course.grading.notebook import run_notebook
from pathlib import Path
import json
print("RESULT" + json.dumps(run_notebook(Path({str(path)!r}), Path.cwd())))
"""
    said = little_course.run(course, script, **variables)
    return json.loads(said.split("RESULT")[1])


def test_a_notebook_runs_on_the_package_under_test(demos: Path) -> None:
    cells = cells_of(demos / "notebooks" / "04_kv_cache.ipynb")
    outputs = [cell["outputs"] for cell in cells if cell["id"].startswith("demo")]
    assert outputs[1][0]["data"]["text/plain"] == ["2"] and "".join(outputs[2][0]["text"]) == "how many:\n2\n"
    stubs = {file: file.read_bytes() for file in (demos / "flexnano").glob("*.py")}
    # Own gaps wait, in one line; earlier gaps hold nothing up.
    assert nbval(demos) == "waiting for 4.1 count"
    assert stubs == {file: file.read_bytes() for file in (demos / "flexnano").glob("*.py")}
    # A folder named from here, with everything right in it.
    shutil.copytree(demos / "solutions", demos / "hand in")
    assert nbval(demos, FLEXNANO="hand in") is None


def test_what_a_notebook_shows_otherwise_is_said_in_a_few_lines(demos: Path) -> None:
    little_course.write(demos, "kv_cache.py", "count", "def count(shelf: Shelf) -> int:\n    return 3\n")
    said = nbval(demos)
    assert said is not None
    assert "under “Counting”, the cell that begins with:  count(shelf)" in said
    assert "    expected  2\n    got       3\n" in said
    assert "    expected  how many:\n              2\n    got       how many:\n              3" in said
    assert "print('how many:')" in said and len(said.splitlines()) < 40 and "site-packages" not in said
    little_course.write(demos, "kv_cache.py", "count", "def count(shelf: Shelf) -> int:\n    return 1 // 0\n")
    said = nbval(demos)
    assert said is not None and "ZeroDivisionError" in said and "kv_cache.py" in said and "1 // 0" in said, said
    assert len(said.splitlines()) < 20 and "site-packages" not in said


def test_the_grader_of_a_module_runs_its_notebook(demos: Path) -> None:
    shutil.copy(ROOT / "conftest.py", demos)
    script = """
import subprocess, sys
run = subprocess.run([sys.executable, "-m", "pytest", "tests/module_04", *sys.argv[1:]], capture_output=True, text=True)
print(run.returncode, run.stdout + run.stderr)
"""
    said = little_course.run(demos, script)
    assert said.startswith("1 ") and "notebooks/04_kv_cache.ipynb\nwaiting for 4.1 count" in said, said
    assert re.search(r"4\.1 +count +not started", said)
    little_course.write(
        demos, "kv_cache.py", "count", "def count(shelf: Shelf) -> int:\n    return 2 * len(shelf.books)\n"
    )
    said = little_course.run(demos, script)
    assert said.startswith("0 ") and "1 of 1 passed" in said, said


@pytest.mark.slow
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_notebooks_run_on_the_reference(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXNANO", "solutions")
    assert run_notebook(path) is None


def test_stub_cells_are_what_the_learner_s_files_say() -> None:
    for exercise in merge.course_exercises():
        text = notebooks.stub(exercise)
        assert text.startswith((f"%%exercise {exercise.number}\ndef ", f"%%exercise {exercise.number}\n@"))
        assert text.endswith(f'raise NotImplementedError("Exercise {exercise.number}: {exercise.name}")')
        compile(text.partition("\n")[2], exercise.file, "exec")


# ------------------------------------------------------------------------------------------------ notebook 00


def test_without_a_finished_engine_a_recorded_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "course" / "recorded").mkdir(parents=True)
    shutil.copy(ROOT / first_look.RECORDED, tmp_path / first_look.RECORDED)
    engine = first_look.engine(tmp_path)
    said = capsys.readouterr().out
    assert engine.recorded and "no finished engine" in said and "Recorded on" in said
    assert all(answer.prompt in said for answer in engine.answers) and len(engine.answers) == len(first_look.PROMPTS)
    naive = first_look.replay("naive", tmp_path)
    capsys.readouterr()
    first_look.compare(engine, naive)
    said = capsys.readouterr().out
    assert f"{len(first_look.PROMPTS)} of {len(first_look.PROMPTS)}" in said and "tokens a second" in said


def test_a_run_that_fails_is_said_and_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "course" / "recorded").mkdir(parents=True)
    shutil.copy(ROOT / first_look.RECORDED, tmp_path / first_look.RECORDED)
    (tmp_path / "course" / "__init__.py").touch()
    (tmp_path / "course" / "first_look.py").write_text("raise MemoryError('no room')\n")
    monkeypatch.setattr(first_look, "ensure_model", lambda folder: folder)
    assert first_look.naive(tmp_path).recorded
    assert "ended early: MemoryError: no room" in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_look_runs_here() -> None:
    engine, naive = first_look.run("engine"), first_look.run("naive")
    assert [answer.text for answer in engine.answers] == [answer.text for answer in naive.answers]


def test_every_link_comes_from_one_setting() -> None:
    """Whoever hands out a copy changes one line."""
    for path in REAL:
        for cell in cells_of(path):
            if settings.REPOSITORY in "".join(cell["source"]):
                assert cell["metadata"].get("course") in ("setup", "links")
    for path in sorted((ROOT / "course").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert path.name == "settings.py" or "github.com/flexnano" not in text, path


def test_a_number_that_no_notebook_has_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main(["99"]) == 1
    assert "no notebook's name begins with '99'; there are 00, 01, 02" in capsys.readouterr().out
