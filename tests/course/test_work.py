"""The learner's files: saved before anything changes them, changed function by function, whole at every moment."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import little_course
import pytest

from course import release, status, work
from course.console import CourseError
from course.grading import merge
from course.grading.pool import Pool


@pytest.fixture
def class_root(root: Path) -> Path:
    """A class release, with the reference kept beside it for the teacher."""
    shutil.copytree(root / "flexnano", root / "course" / "pristine")
    (root / "solutions").rename(root.parent / "solutions")
    return root


def package(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "flexnano").glob("*.py")}


def command(root: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "course", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# --------------------------------------------------------------------------------------------------------- save, restore


def test_saving_keeps_everything_and_twice_the_same_once(root: Path) -> None:
    (root / "flexnano" / "mine.py").write_text("X = 1\n")
    first = work.save(root, "by hand")
    assert first.files() == package(root) and first.why == "by hand"
    assert work.save(root) == first
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    second = work.save(root)
    assert second != first and [one.when for one in work.saved(root)] == [first.when, second.when]


def test_restore_puts_back_what_was_and_saves_what_is(root: Path) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    good = package(root)
    work.save(root)
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    bad = package(root)
    put_back, changed, before = work.restore(root)
    assert package(root) == good and changed == ["page_table.py"] and before.files() == bad
    work.restore(root, before.when)
    assert package(root) == bad
    assert put_back.when in [one.when for one in work.saved(root)]


def test_restoring_what_is_not_there_says_so(root: Path) -> None:
    with pytest.raises(CourseError, match="Nothing else is saved"):
        work.restore(root)
    with pytest.raises(CourseError, match="Nothing is saved under '1999'"):
        work.restore(root, "1999")


def test_a_zip_goes_to_another_machine_and_back(root: Path, tmp_path: Path) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    assert "restore work.zip" in command(root, "save", "--zip", str(tmp_path / "work.zip"))
    written = package(root)
    command(root, "reset", "3")
    assert package(root) != written
    command(root, "restore", str(tmp_path / "work.zip"))
    assert package(root) == written


def test_a_zip_can_write_nowhere_else(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("flexnano/masks.py", "flexnano/../../outside.py", "/etc/flexnano/masks.py", "flexnano/sub/x.py"):
            archive.writestr(name, "X = 1\n")
    _, changed, _ = work.from_zip(path, root)
    assert changed == ["masks.py"]
    assert not list(tmp_path.rglob("outside.py")) and not (root / "flexnano" / "sub").exists()


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_what_is_no_zip_is_said_in_words(content: bytes, root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(CourseError, match=r"a\.zip can't be read"):
        work.from_zip(tmp_path / "a.zip", root)


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["flexnano/masks.py", "solutions/flexnano/masks.py"], "flexnano"),
        (
            ["repo/solutions/flexnano/masks.py", "repo/course/pristine/masks.py", "repo/flexnano/masks.py"],
            "repo/flexnano",
        ),
        (["masks.py", "page_table.py"], "."),
        (["some/where/page_table.py"], "some/where"),
        (["a/flexnano/b/flexnano/masks.py", "a/flexnano/masks.py"], "a/flexnano"),
        (["solutions/flexnano/masks.py"], None),
        (["README.md"], None),
    ],
)
def test_the_package_is_found_wherever_it_is(names: list[str], folder: str | None) -> None:
    assert work.package_folder_among(names) == folder


def test_history_shows_each_different_version_of_a_function(root: Path) -> None:
    work.save(root, "first")
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    work.save(root, "second")
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return 2 * x\n")
    work.save(root, "third: another function")
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    versions = work.history(work.find("3.1", root)[0], root)
    assert [one.why for one in versions] == ["first", "second", ""]
    assert "self.books) - 1" in versions[-1].code
    assert "second" in command(root, "history") and "3.1 Shelf.put" in command(root, "history", "3.1")


# --------------------------------------------------------------------------------------------------------- whole files


def test_a_file_is_old_or_new_also_when_the_machine_stops(root: Path) -> None:
    """Stopped at every moment of a write, and between the files."""
    old = package(root)
    code = (
        "import os\nfrom course import work\nfrom pathlib import Path\n"
        "left = {}\n"
        "def stop(module, name):\n"
        "    original = getattr(module, name)\n"
        "    def stopping(*arguments, **options):\n"
        "        if left['n'] == 0: os._exit(9)\n"
        "        left['n'] -= 1\n"
        "        return original(*arguments, **options)\n"
        "    setattr(module, name, stopping)\n"
        "stop(os, 'fsync'); stop(os, 'replace')\n"
    )
    seen = set()
    for n in range(30):
        shutil.rmtree(root / ".course", ignore_errors=True)
        for name, content in old.items():
            (root / "flexnano" / name).write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", f"{code}left['n'] = {n}\nwork.catch_up(3, Path.cwd())"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 9), done.stderr
        now = package(root)
        seen.add(tuple(name for name in sorted(old) if now[name] != old[name]))
        for name, content in now.items():
            assert content == old[name] or b"Exercise 3" not in content, "half a change"
            compile(content, name, "exec")
        if now != old:
            assert any(one.files() == old for one in work.saved(root)), "written before everything was saved"
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert () in seen and ("masks.py",) in seen and ("masks.py", "page_table.py") in seen
    little_course.run(root, "from course import work; from pathlib import Path; work._forget_unfinished(Path.cwd())")
    assert not list((root / "flexnano").glob(".*"))


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.py", tmp_path / "link.py"
    real.write_text("old")
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("no links here")
    work.write(link, "new")
    assert link.is_symlink() and real.read_text() == "new"


# ------------------------------------------------------------------------------------------------------------ catch-up


def test_catch_up_fills_the_gaps_and_touches_nothing_that_passes(root: Path, pool: Pool) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    path = root / "flexnano" / "page_table.py"
    path.write_bytes(path.read_bytes() + b"\n\ndef mine():  # with my own comment\n    return 'mine'  \n")
    before = package(root)
    change = work.catch_up(3, root, pool=pool)
    assert [step.exercise.number for step in change.written] == ["1.1", "1.2", "3.1", "3.3"]
    assert change.before is not None and change.before.files() == before
    assert little_course.function(root, "page_table.py", "Shelf.take") == merge.dedented(little_course.TAKE)
    assert path.read_bytes().endswith(b"\n\ndef mine():  # with my own comment\n    return 'mine'  \n")
    assert "SOLUTION" not in path.read_text(encoding="utf-8")
    assert package(root)["kv_cache.py"] == before["kv_cache.py"], "module 04 was not asked for"
    assert {one.number for one in status.results(root, pool=pool) if one.passed} == {"1.1", "1.2", "3.1", "3.2", "3.3"}
    assert work.catch_up(3, root, pool=pool).before is None, "nothing to do, nothing saved"


def test_catch_up_brings_back_what_was_deleted(root: Path, pool: Pool) -> None:
    path = root / "flexnano" / "page_table.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source[: source.index("class Shelf")] + source[source.index("def label") :], encoding="utf-8")
    (root / "flexnano" / "masks.py").unlink()
    work.catch_up(3, root, pool=pool)
    assert {one.number for one in status.results(root, pool=pool) if one.passed} >= {"1.1", "1.2", "3.1", "3.2", "3.3"}


def test_catch_up_leaves_a_file_that_it_cannot_read_unless_told(root: Path, pool: Pool) -> None:
    path = root / "flexnano" / "page_table.py"
    path.write_text(path.read_text(encoding="utf-8") + "\ndef broken(:\n", encoding="utf-8")
    broken = path.read_bytes()
    change = work.catch_up(3, root, pool=pool)
    left = [step for step in change.steps if step.done == "left"]
    assert [step.exercise.number for step in left] == ["3.1", "3.2", "3.3"] and "line" in left[0].why
    assert path.read_bytes() == broken and [step.exercise.number for step in change.written] == ["1.1", "1.2"]
    work.catch_up(3, root, force=True, pool=pool)
    assert "broken" not in path.read_text(encoding="utf-8")
    assert any(one.files()["page_table.py"] == broken for one in work.saved(root))


def test_line_ends_stay_as_they_are(root: Path, pool: Pool) -> None:
    path = root / "flexnano" / "page_table.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    work.catch_up(3, root, pool=pool)
    content = path.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n")
    assert {one.number for one in status.results(root, pool=pool) if one.passed} >= {"3.1", "3.2", "3.3"}


def test_the_command_says_what_it_did_and_where_the_old_files_are(root: Path) -> None:
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 2\n")
    text = command(root, "catch-up", "1")
    assert "Your files are saved in .course/saved/" in text
    assert "1.2   triple" in text and "1 exercise from the reference, 1 of yours not touched" in text
    assert "Nothing to do: 2 of 2" in command(root, "catch-up", "1")


# ----------------------------------------------------------------------------------------------------- class releases


def test_without_solutions_it_says_what_is_absent(class_root: Path) -> None:
    before = package(class_root)
    text = command(class_root, "catch-up", "3", code=1)
    assert "no solutions" in text and "catchup-03.zip" in text
    assert package(class_root) == before and not work.saved(class_root)


def zips(class_root: Path) -> dict[int, bytes]:
    """The teacher's zips, made where the solutions are."""
    (class_root.parent / "solutions").rename(class_root / "solutions")
    try:
        exercises = merge.course_exercises(class_root)
        return {module: release.catch_up(module, exercises, class_root) for module in (1, 3, 4)}
    finally:
        (class_root / "solutions").rename(class_root.parent / "solutions")


def test_a_teachers_zip_serves_catch_up_and_grading(class_root: Path, pool: Pool) -> None:
    made = zips(class_root)
    little_course.write(
        class_root, "kv_cache.py", "count", "def count(shelf) -> int:\n    return double(len(shelf.books))\n"
    )
    assert status.results(class_root, pool=pool)[-1].status == "waiting"
    (class_root / "catchup-03.zip").write_bytes(made[3])
    # Neighbours come from the zip now.
    assert status.results(class_root, pool=pool)[-1].passed
    assert little_course.function(class_root, "masks.py", "double").endswith('("Exercise 1.1: double")\n')
    text = command(class_root, "catch-up", "3")
    assert "5 exercises from the reference" in text
    assert all(one.passed for one in status.results(class_root, pool=pool))
    assert "catchup-04.zip" in command(class_root, "catch-up", "4", code=1)


def test_a_teachers_zip_that_stops_earlier_leaves_the_learners_own_neighbours(class_root: Path, pool: Pool) -> None:
    (class_root / "catchup-01.zip").write_bytes(zips(class_root)[1])
    little_course.write(
        class_root, "kv_cache.py", "count", "def count(shelf) -> int:\n    return double(len(shelf.books))\n"
    )
    assert status.results(class_root, pool=pool)[-1].status == "waiting"
    little_course.write(class_root, "page_table.py", "Shelf.put", little_course.PUT)
    found = {one.number: one.status for one in status.results(class_root, pool=pool)}
    assert (found["3.1"], found["4.1"]) == ("passed", "passed")


def test_a_zip_of_another_version_is_refused(class_root: Path) -> None:
    made = zips(class_root)[1]
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name != "catchup.json" else b'{"course": "other"}')
    (class_root / "catchup-01.zip").write_bytes(buffer.getvalue())
    assert "another version" in command(class_root, "catch-up", "1", code=1)
    (class_root / "catchup-01.zip").write_bytes(b"no zip")
    assert "is not a catch-up" in command(class_root, "catch-up", "1", code=1)


# ---------------------------------------------------------------------------------------------------------------- reset


def test_reset_gives_the_file_as_it_was_handed_out(root: Path) -> None:
    handed_out = package(root)
    little_course.write(root, "page_table.py", "Shelf.put", little_course.PUT)
    little_course.write(root, "page_table.py", "label", "def label(n):\n    return str(n)\n")
    written = package(root)
    text = command(root, "reset", "3.1")
    assert "the stub again, in flexnano/page_table.py" in text
    assert "return str(n)" in (root / "flexnano" / "page_table.py").read_text(encoding="utf-8")
    command(root, "reset", "3")
    assert package(root) == handed_out
    assert any(one.files() == written for one in work.saved(root))
    assert "Nothing to do" in command(root, "reset", "3")


def test_reset_of_a_broken_file(root: Path) -> None:
    handed_out = package(root)
    path = root / "flexnano" / "page_table.py"
    path.write_text("def broken(:\n")
    with pytest.raises(CourseError, match=r"page_table\.py can't be read \(line 1"):
        work.reset("3.1", root)
    assert path.read_text() == "def broken(:\n"
    work.reset("3", root)
    assert package(root) == handed_out


def test_what_does_not_exist_is_said_in_words(root: Path) -> None:
    for what in ("9", "3.7", "x", ""):
        with pytest.raises(CourseError, match="There is no exercise"):
            work.reset(what, root)
    assert [one.number for one in work.find("03", root)] == ["3.1", "3.2", "3.3"]


# ----------------------------------------------------------------------------------------------------------------- diff


def test_diff_shows_what_passes_and_no_more(root: Path) -> None:
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    text = command(root, "diff")
    assert "3.2 Shelf.take" in text and "+        del self.books" in text and "Args:" not in text
    assert "3.1 Shelf.put" not in text and "5 exercises not shown" in text
    assert "does not pass yet" in command(root, "diff", "3.1")
    assert "+        return len(self.books) - 1" in command(root, "diff", "3.1", "--spoil")


def test_diff_without_solutions_is_against_the_stub(class_root: Path) -> None:
    little_course.write(class_root, "page_table.py", "Shelf.put", little_course.PUT)
    text = command(class_root, "diff", "3.1")
    assert "no solutions" in text and '+        raise NotImplementedError("Exercise 3.1' in text


# ---------------------------------------------------------------------------------------------------------------- grade


def test_grade_prints_the_cards_and_has_the_exit_codes_of_pytest(root: Path, tmp_path: Path) -> None:
    little_course.write(root, "page_table.py", "Shelf.put", little_course.WRONG_PUT)
    little_course.write(root, "page_table.py", "Shelf.take", little_course.TAKE)
    text = command(root, "grade", "3", "--report", str(tmp_path / "r.json"), code=1)
    assert "expected  [[0], ['a']]" in text and "hint      What goes in?" in text and "     hint 2" not in text
    assert text.strip().splitlines()[-1].startswith("grades: 1 of 3 passed")
    assert '"checks_right": 1' in (tmp_path / "r.json").read_text(encoding="utf-8")
    assert "hint 3" in command(root, "grade", "3.1", "--hint", "3", code=1)
    command(root, "grade", "3.2")
    assert "There is no exercise" in command(root, "grade", "3.9", code=4)
    (root / "tests" / "module_04" / "judge.py").unlink()
    assert "no grader yet: 4.1" in command(root, "grade", "4", code=5)
    command(root, "grade", "3", "--solutions")


def test_grade_remembers_for_status(root: Path) -> None:
    little_course.write(root, "masks.py", "double", "def double(x: int) -> int:\n    return x * 2\n")
    command(root, "grade", "1.1")
    code = "from course import status; print(status.passed_exercises(grade=False))"
    assert little_course.run(root, code).strip() == "{'1.1'}"
