"""`release`: what is handed out works by its own README, and a class release gives no solution away."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import little_course
import pytest

from course import release, work
from course.console import CourseError
from course.environment import ROOT
from course.grading import merge
from course.model import NAME, is_complete

LINE = "        taken = self.books[at : at + n]"  # of Shelf.take's solution


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = little_course.make(tmp_path_factory.mktemp("course"))
    shutil.copytree(ROOT / "classroom", root / "classroom")
    (root / "README.md").write_text(
        "# A course\n\nFirst.\n\n| `solutions/` | the reference |\n| `tests/` | graders |\n\n"
        "<!-- reference -->\nOnly with solutions.\n<!-- /reference -->\nLast.\n"
    )
    (root / "tests" / "engine").mkdir()
    (root / "tests" / "engine" / "test_it.py").write_text("def test_it(): pass\n")
    return root


@pytest.fixture
def root(untouched: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untouched, tmp_path / "course")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------- what is handed out


def test_self_study_has_everything_with_fresh_stubs(root: Path, tmp_path: Path) -> None:
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)  # the maker's own work
    for name in (
        ".course/grades.json",
        "flexnano/__pycache__/masks.pyc",
        ".git/HEAD",
        "x.egg-info/a",
        "course/.DS_Store",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    assert release.make(tmp_path / "out", root) == []
    out = files(tmp_path / "out")
    assert {"solutions/flexnano/masks.py", "tests/engine/test_it.py", "classroom/classroom.yml", "README.md"} <= out
    assert not [name for name in out if "__pycache__" in name or name.startswith((".course/", ".git/", "x.egg"))]
    assert (tmp_path / "out/flexnano/page_table.py").read_text(encoding="utf-8") == merge.pristine(
        "page_table.py", root
    )


def test_a_class_gets_no_solutions_but_all_that_grading_needs(root: Path, tmp_path: Path) -> None:
    release.make(tmp_path / "out", root, for_class=True)
    out = files(tmp_path / "out")
    assert not [name for name in out if name.startswith(("solutions", "tests/engine", "classroom", "catchup"))]
    assert {"course/pristine/page_table.py", "flexnano/page_table.py", "tests/module_03/judge.py"} <= out
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "Only with solutions" not in readme and "Last." in readme and "made for a class" in readme
    assert "| `tests/` |" in readme and "| `solutions/` |" not in readme
    assert work.fingerprint(tmp_path / "out") == work.fingerprint(root)


def test_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(CourseError, match="is not empty"):
            release.make(tmp_path / "out", root, force=force)
    release.make(tmp_path / "new", root)
    with pytest.raises(CourseError, match="--force"):
        release.make(tmp_path / "new", root)
    (tmp_path / "new" / "README.md").unlink()
    release.make(tmp_path / "new", root, force=True)
    assert (tmp_path / "new" / "README.md").is_file()
    with pytest.raises(CourseError, match="holds the course itself"):
        release.make(root / ".." / root.name, root, force=True)


def test_a_class_release_makes_no_release(root: Path, tmp_path: Path) -> None:
    release.make(tmp_path / "out", root, for_class=True)
    with pytest.raises(CourseError, match="no solutions"):
        release.make(tmp_path / "again", tmp_path / "out")


# -------------------------------------------------------------------------------------------------------------- leaks


def notebook(output: dict[str, object]) -> str:
    cell = {"cell_type": "code", "source": "show()", "metadata": {}, "execution_count": 1, "outputs": [output]}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("book/page.md", f"```python\n{LINE}  # with a comment\n```\n"),
        ("tests/module_03/helper.py", "def f(self, at, n):\n    taken=self.books[ at:at+n ]\n"),
        ("book/data.json", json.dumps({"code": f"first\n{LINE}\n"})),
        ("book/data.gz", gzip.compress(LINE.encode())),
        ("book/data.pkl", pickle.dumps({"code": f"x\n{LINE}\n", "n": 1})),
        ("course/a.ipynb", notebook({"output_type": "stream", "text": LINE})),
    ],
)
def test_a_line_of_a_solution_stops_a_class_release(
    file: str, content: str | bytes, root: Path, tmp_path: Path
) -> None:
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CourseError, match=re.escape(file)):
        release.make(tmp_path / "out", root, for_class=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course"], "nothing is left"
    release.make(tmp_path / "out", root)  # for self-study it is fine


def test_an_archive_in_an_archive_is_opened(root: Path, tmp_path: Path) -> None:
    (root / "book").mkdir()
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("a.py", LINE)
    with zipfile.ZipFile(root / "book" / "outer.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(CourseError, match=r"outer\.zip"):
        release.make(tmp_path / "out", root, for_class=True)


def test_what_can_be_done_without_is_left_out(root: Path, tmp_path: Path) -> None:
    (root / "experiments").mkdir()
    (root / "experiments" / "a.py").write_text(LINE)
    (root / "experiments" / "b.py").write_text("x = 1\n")
    (said,) = release.make(tmp_path / "out", root, for_class=True)
    assert "experiments/a.py: left out" in said
    assert "experiments/b.py" in files(tmp_path / "out") and "experiments/a.py" not in files(tmp_path / "out")


@pytest.mark.parametrize(
    "output",
    [
        {"output_type": "stream", "name": "stdout", "text": ["def take(self):\n", f"{LINE}\n"]},
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["\x1b[31m---->\x1b[0m anything"]},
        {"output_type": "display_data", "data": {"text/html": f"<pre><span>{LINE}</span></pre>"}, "metadata": {}},
    ],
)
def test_outputs_that_show_code_are_cleared(output: dict[str, object], root: Path, tmp_path: Path) -> None:
    (root / "notebooks" / "03_a.ipynb").write_text(notebook(output))
    (root / "notebooks" / "04_b.ipynb").write_text(notebook({"output_type": "stream", "text": "3 pages"}))
    (said,) = release.make(tmp_path / "out", root, for_class=True)
    assert "03_a.ipynb: outputs cleared" in said
    read = json.loads((tmp_path / "out" / "notebooks" / "03_a.ipynb").read_text())
    assert read["cells"][0]["outputs"] == [] and read["cells"][0]["source"] == "show()"
    assert "3 pages" in (tmp_path / "out" / "notebooks" / "04_b.ipynb").read_text()


@pytest.mark.parametrize(
    "line", ["return True", "else:", "x = 1", "for page in pages:", "def f(self, a, b, c, d) -> None:", ""]
)
def test_what_anybody_would_write_is_no_solution_line(line: str) -> None:
    assert not release.tells(release.normal(line))


def test_no_file_of_the_real_course_gives_a_solution_away(tmp_path: Path) -> None:
    if not (ROOT / "solutions").is_dir():
        pytest.skip("made where the solutions are")
    lines = release.solution_lines()
    assert len(lines) > 150, "the rule would see nothing"
    release.make(tmp_path / "out", for_class=True)
    assert release.leaks(tmp_path / "out", lines) == []
    assert not [name for name in files(tmp_path / "out") if re.search(r"\.(pyc|pkl|pickle|pt|zip)$", name)]
    # The search does find them where they are.
    assert len({leak.line for leak in release.leaks(ROOT / "solutions", lines)}) == len(lines)


# -------------------------------------------------------------------------------------------------------- catch-up zips


def test_a_catch_up_solves_its_modules_and_no_more(root: Path, tmp_path: Path) -> None:
    release.show(tmp_path / "out", root, for_class=True)
    assert [path.name for path in sorted(tmp_path.glob("*.zip"))] == [f"catchup-{n:02d}.zip" for n in (1, 3, 4)]
    with zipfile.ZipFile(tmp_path / "catchup-03.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert LINE.strip() in texts["flexnano/page_table.py"] and "SOLUTION" not in texts["flexnano/page_table.py"]
    assert texts["flexnano/kv_cache.py"] == merge.pristine("kv_cache.py", root)
    before = (tmp_path / "catchup-03.zip").read_bytes()
    release.write_catch_ups(tmp_path, root)
    assert (tmp_path / "catchup-03.zip").read_bytes() == before, "the same course gives the same bytes"


def test_a_file_of_two_modules_is_solved_function_by_function(root: Path) -> None:
    path = root / "solutions" / "flexnano" / "page_table.py"
    path.write_text(path.read_text(encoding="utf-8").replace("[3.3 ·", "[4.2 ·"), encoding="utf-8")
    exercises = merge.course_exercises(root)
    text = release._solved_upto(3, "page_table.py", exercises, root)
    assert LINE in text and '("Exercise 4.2: label")' in text


# ----------------------------------------------------------------------------------------- the README, followed by hand


def blocks(readme: Path, title: str) -> list[str]:
    """The commands in the section `title`, without what is explained behind them."""
    text = readme.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0].strip() for block in found for line in block.splitlines() if line.strip()]


def follow(command: str, folder: Path, scripts: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command word for word, as in a terminal in which the environment is active."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FLEXNANO", "PYTEST_ADDOPTS")}
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={
            **environment,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "FLEXNANO_ATTENTION": "gather",
            **variables,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


NOT_YET = {  # what a fresh copy answers with "not yet"
    "python -m course grade 1.1",
    "pytest tests/module_01",
}


@pytest.mark.skipif(os.name == "nt", reason="the shell of the README")
@pytest.mark.parametrize("kind", [pytest.param("self-study", marks=pytest.mark.slow), "class"])
def test_the_commands_of_the_readme_work_in_a_fresh_folder(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "fresh" / "course"
    release.make(folder, for_class=kind == "class")
    commands = blocks(folder / "README.md", "Commands")
    assert len(commands) >= 10
    for command in commands:
        if command.startswith("pytest"):
            command += " --no-notebook"
        if "grade-class" in command:
            (folder / "submissions" / "ann").mkdir(parents=True)
            command += " --modules 1.1"
        done = follow(command, folder, Path(sysconfig.get_path("scripts")))
        said = done.stdout + done.stderr
        assert "Traceback" not in said, f"{command}\n{said}"
        # Without solutions there is nothing to catch up with, and so nothing that was saved.
        without = kind == "class" and ("catch-up" in command or command.endswith("restore"))
        assert done.returncode == int(command.removesuffix(" --no-notebook") in NOT_YET or without), (
            f"{command}\n{said}"
        )
        if without:
            assert "no solutions" in said or "Nothing else is saved" in said
    if kind == "self-study":
        assert (folder.parent / "class" / ".github" / "workflows" / "classroom.yml").is_file()
        assert (folder.parent / "catchup-03.zip").is_file()
        text = (folder / "flexnano" / "masks.py").read_text(encoding="utf-8")
        assert '("Exercise 1.1: ' not in text, "catch-up wrote it, reset took it away, restore put it back"
    assert (folder / "work.zip").is_file()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the shell of the README")
def test_a_class_release_installs_and_make_test_runs_what_is_there(tmp_path: Path) -> None:
    """In an environment of its own, that sees the packages of this one and no index."""
    if not is_complete(ROOT / "models" / NAME):
        pytest.skip("the embedded model is not there")
    folder = tmp_path / "course"
    release.make(folder, for_class=True)
    shutil.copytree(ROOT / "models" / NAME, folder / "models" / NAME)
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / "bin"
    packages = Path(next((tmp_path / "env" / "lib").glob("python*"))) / "site-packages"
    for old in packages.glob("setuptools*"):  # of Python itself, too old for pyproject.toml
        shutil.rmtree(old)
    # As a path entry: .pth files over there stay unread (one names this checkout), and pip leaves what is there alone.
    packages.joinpath("other.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    done = follow("python -m course test --no-venv", folder, scripts, **offline)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    where = "import importlib.util; print(importlib.util.find_spec('flexnano').origin)"
    (tmp_path / "elsewhere").mkdir()
    found = follow(f'python -c "{where}"', tmp_path / "elsewhere", scripts).stdout.strip()
    assert Path(found) == folder / "flexnano" / "__init__.py"
    assert "not started" in follow("pytest tests/module_01 --no-notebook", folder, scripts).stdout
