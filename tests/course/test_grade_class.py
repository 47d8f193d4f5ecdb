"""`grade-class`: whatever a submission does, it gets a clear line, and the others get their grades."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from course import classroom, work
from course.console import CourseError
from course.environment import ROOT
from course.grading import cell, merge

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and walls are Linux's")
WALLS = cell.walls_work()
needs_walls = pytest.mark.skipif(not WALLS, reason="this system lets nobody make namespaces")

# What stands in `Shelf.put`.  Each bounded, so that nothing happens to the machine if a defence fails.
BAD = {
    "hangs": """
        while True:
            pass
    """,
    "forks": """
        import os, time
        for _ in range(60):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
        time.sleep(20)
    """,
    "memory": """
        kept = []
        for _ in range(20):
            kept.append(b"x" * 2**26)
        return 3
    """,
    "memory_of_many": """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                kept = b"x" * (150 * 2**20)
                time.sleep(20)
                os._exit(0)
        time.sleep(20)
    """,
    "exits": """
        import os
        os._exit(0)
    """,
    "fakes": """
        import os
        for fd in (1, 2):
            os.write(fd, b"grades: 3 of 3 passed")
        print("grades: 3 of 3 passed")
        return 5
    """,
    "patches": """
        import json, pytest
        json.dumps = lambda *a, **k: '{"answer": [[0], ["a"]]}'
        pytest.main = lambda *a: 0
        return 7
    """,
    "writes": """
        import pathlib
        import course.grading.checks as checks
        pathlib.Path("here.txt").write_text("x")
        pathlib.Path(checks.__file__).write_text("broken = (")
        for path in pathlib.Path(OTHERS).rglob("*.py"):
            path.write_text("")
        return 7
    """,
    "stays": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
        return 7
    """,
}
# And what only walls keep from others.
BAD_WITH_WALLS = {
    "parent": """
        import os, signal
        os.kill(os.getppid(), signal.SIGKILL)
        return 7
    """,
    "reads": """
        import course, os, pathlib
        root = pathlib.Path(course.__file__).parents[1]
        seen = [path.name for path in root.rglob("*.py") if "solutions" in path.parts or path.name == "judge.py"]
        seen += os.listdir(OTHERS)
        alone = len([name for name in os.listdir("/proc") if name.isdigit()]) == 1
        raise RuntimeError(f"sees {seen}, alone {alone}")
    """,
    "network": """
        import socket
        socket.create_connection(("192.0.2.1", 80), timeout=3)
        return 7
    """,
    "unwalls": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        done = [libc.umount2(b"/proc", 2), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.unshare(0x00020000)]
        raise RuntimeError(f"done {done}")
    """,
}


def hand_in(folder: Path, root: Path, put: str = "") -> None:
    """A submission that is the reference, with another body of `Shelf.put`."""
    shutil.copytree(root / "solutions" / "flexnano", folder / "flexnano", ignore=shutil.ignore_patterns("__pycache__"))
    if put:
        path = folder / "flexnano" / "page_table.py"
        body = textwrap.indent(textwrap.dedent(put).strip(), "    ").replace("OTHERS", repr(str(folder.parent)))
        code = f"def put(self, book: str) -> int:\n{body}\n"
        path.write_text(merge.replace(path.read_text(encoding="utf-8"), "Shelf.put", code), encoding="utf-8")


def grade(root: Path, submissions: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "course", "grade-class", str(submissions), *options],
        cwd=root,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(submissions: Path) -> dict[tuple[str, str], dict[str, str]]:
    text = (submissions / "grades.csv").read_text(encoding="utf-8-sig")
    return {(row["student"], row["exercise"]): row for row in csv.DictReader(io.StringIO(text))}


EXPECTED = {
    "hangs": "no answer within 3 s",
    "forks": "more than 16 processes",
    "memory": "MemoryError",
    "memory_of_many": "more than 0.3 GB of memory",
    "exits": "the process ended without an answer",
    "fakes": "[[5], []]",
    "patches": "[[0], ['a']]",
    "writes": "Read-only file system",
    "stays": "[[7], []]",
    "parent": "[[7], []]",
    "reads": "sees [], alone True",
    "network": "unreachable",
    "unwalls": "done [-1, -1, -1]",
}
LIMITS = ("--modules", "3.1", "3.2", "--seconds", "3", "--memory", "0.3", "--processes", "16")


@LINUX
@needs_walls
def test_no_submission_harms_another(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    for name, body in {**BAD, **BAD_WITH_WALLS}.items():
        hand_in(submissions / name, root, body)
    hand_in(submissions / "aaa_first", root)
    hand_in(submissions / "zzz_last", root)
    before = {path: path.read_bytes() for path in [*root.rglob("*.py"), *submissions.rglob("*.py")]}
    text = grade(root, submissions, *LIMITS)
    found = rows(submissions)
    for name, said in EXPECTED.items():
        one = found[name, "3.1"]
        assert one["status"] == "not yet" and said in one["notes"], one
        assert found[name, "3.2"]["status"] == "passed", f"{name}: its other exercise has no fault"
        assert found[name, "all"]["passed"] == "1"
    for name in ("aaa_first", "zzz_last"):
        assert found[name, "all"]["passed"] == found[name, "all"]["of"] == "2"
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    assert not list(root.rglob("here.txt")) and "zzz_last" in text


@LINUX
def test_without_walls_the_others_are_graded_all_the_same(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    for name in ("forks", "exits", "writes", "stays"):
        hand_in(submissions / name, root, BAD[name])
    hand_in(submissions / "aaa_first", root)
    hand_in(submissions / "zzz_last", root)
    checks = root / "course" / "grading" / "checks.py"
    before = checks.read_bytes()
    text = grade(root, submissions, *LIMITS, "--no-walls")
    found = rows(submissions)
    assert "Without namespaces" in text
    for name in ("forks", "exits", "stays"):
        assert found[name, "3.1"]["status"] == "not yet" and found[name, "3.2"]["status"] == "passed"
    assert "course/grading/checks.py" in found["writes", "all"]["notes"]
    assert checks.read_bytes() == before
    for name in ("aaa_first", "zzz_last"):
        assert found[name, "all"]["passed"] == "2", "its files were emptied on the disk, after they had been read"


def test_who_edits_the_course_meanwhile_keeps_the_edit(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    hand_in(submissions / "ann", root, BAD["hangs"])
    run = subprocess.Popen(
        [sys.executable, "-m", "course", "grade-class", str(submissions), "--modules", "3.1", "--seconds", "3"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None and "1 submission, 1 exercise each" in run.stdout.readline()
    until = time.monotonic() + 30
    while not (submissions / "grades.json").exists() and time.monotonic() < until:
        time.sleep(0.02)  # then everything has been read
    time.sleep(1)
    judge = root / "tests" / "module_03" / "judge.py"
    judge.write_text(judge.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    assert run.wait(120) == 0
    assert judge.read_text(encoding="utf-8").endswith("# edited\n")
    assert rows(submissions)["ann", "all"]["notes"] == ""


def test_what_can_be_handed_in(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    shutil.copytree(root, submissions / "whole_checkout")
    shutil.copytree(root / "solutions" / "flexnano", submissions / "whole_checkout" / "flexnano", dirs_exist_ok=True)
    shutil.copytree(root / "solutions" / "flexnano", submissions / "bare_files")
    hand_in(submissions / "package", root)
    with zipfile.ZipFile(submissions / "zipped.zip", "w") as archive:
        for path in (root / "solutions" / "flexnano").glob("*.py"):
            archive.write(path, f"repo-main/flexnano/{path.name}")
    (submissions / "broken.zip").write_bytes(b"no zip")
    (submissions / "nothing").mkdir()
    (submissions / "notes.txt").write_text("not a submission")
    (submissions / "not_utf8" / "flexnano").mkdir(parents=True)
    (submissions / "not_utf8" / "flexnano" / "page_table.py").write_bytes(b"\xff\xfe# \x00")
    only_solutions = submissions / "only_solutions" / "solutions"
    shutil.copytree(root / "solutions", only_solutions)
    grade(root, submissions, "--modules", "3.2")
    found = rows(submissions)
    passed = {
        student for student, exercise in found if exercise == "3.2" and found[student, exercise]["status"] == "passed"
    }
    assert passed == {"whole_checkout", "bare_files", "package", "zipped"}
    assert found["not_utf8", "3.2"]["status"] == "unreadable" and "UTF-8" in found["not_utf8", "3.2"]["notes"]
    assert "can't be read" in found["broken", "all"]["notes"]
    for student in ("nothing", "only_solutions"):
        assert found[student, "all"]["status"] == "no package"
    document = json.loads((submissions / "grades.json").read_text(encoding="utf-8"))
    assert [one["student"] for one in document["submissions"]] == sorted({student for student, _ in found})


def test_links_to_the_reference_are_not_followed(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    (submissions / "folder").mkdir(parents=True)
    (submissions / "file" / "flexnano").mkdir(parents=True)
    try:
        (submissions / "folder" / "flexnano").symlink_to(root / "solutions" / "flexnano")
        (submissions / "file" / "flexnano" / "page_table.py").symlink_to(
            root / "solutions" / "flexnano" / "page_table.py"
        )
        (submissions / "whole").symlink_to(root)
    except OSError:
        pytest.skip("no links here")
    found = {one.student: one for one in classroom.collect(submissions)}
    assert all(one.problem and not one.files for one in found.values()) and len(found) == 3


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flexnano/page_table.py", b"#" * (work.LARGEST_FILE + 1))
    (bomb,) = classroom.collect(tmp_path)
    assert "bytes" in bomb.problem and not bomb.files


def test_an_empty_folder_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="nothing to grade"):
        classroom.collect(tmp_path)
    with pytest.raises(CourseError, match="is no folder"):
        classroom.collect(tmp_path / "none")


def test_resume_grades_only_what_is_new(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    for name in ("ann", "bob"):
        hand_in(submissions / name, root)
    grade(root, submissions, "--modules", "3.2")
    path = submissions / "grades.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    (bob,) = [one for one in document["submissions"] if one["student"] == "bob"]
    document["submissions"].remove(bob)  # as if it had been stopped there
    document["running"] = ["bob"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert "1 graded before" in (text := grade(root, submissions, "--modules", "3.2", "--resume"))
    assert "bob" in text and "ann" not in text
    hand_in(submissions / "new", root)
    file = submissions / "ann" / "flexnano" / "page_table.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    text = grade(root, submissions, "--modules", "3.2", "--resume")
    assert "1 graded before" in text and "ann" in text and "new" in text
    assert {row["passed"] for (_, exercise), row in rows(submissions).items() if exercise == "all"} == {"1"}


def test_a_submission_that_uses_up_its_time_keeps_what_it_has(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    hand_in(submissions / "slow", root, BAD["hangs"])
    start = time.monotonic()
    text = grade(root, submissions, "--modules", "3", "--seconds", "300", "--minutes", "0.1")
    assert time.monotonic() - start < 120
    found = rows(submissions)
    assert found["slow", "all"]["status"] == "stopped" and "stopped after 0.1 min" in text
    assert found["slow", "3.1"]["status"] == "not graded"
    assert found["slow", "3.3"]["status"] == "passed"


def test_no_spreadsheet_takes_a_message_for_a_formula(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    hand_in(submissions / "=1+1", root, "raise ValueError('=HYPERLINK(1)')")
    grade(root, submissions, "--modules", "3.1")
    assert ("'=1+1", "3.1") in rows(submissions)


def test_in_a_class_release_it_says_what_is_absent(root: Path, tmp_path: Path) -> None:
    submissions = tmp_path / "class"
    hand_in(submissions / "ann", root)
    shutil.copytree(root / "flexnano", root / "course" / "pristine")
    shutil.rmtree(root / "solutions")
    assert "no solutions" in grade(root, submissions, "--modules", "4")
    assert rows(submissions)["ann", "4.1"]["status"] == "passed"


# --------------------------------------------------------------------------------------------------- GitHub Classroom


def test_a_report_becomes_points() -> None:
    report = {
        "exercises": [
            {"number": "3.1", "name": "put", "status": "passed", "got": ""},
            {"number": "3.2", "name": "take", "status": "not yet", "got": "raises ValueError"},
        ]
    }
    result = classroom.points(report)
    assert (result["status"], result["max_score"]) == ("fail", 2)
    assert [test["score"] for test in result["tests"]] == [1, 0]
    assert "ValueError" in result["tests"][1]["message"]


def test_points_on_the_command_line(root: Path, tmp_path: Path) -> None:
    import base64

    report = tmp_path / "report.json"
    for arguments in (["grade", "3", "--report", str(report)], ["classroom", "--points", str(report)]):
        done = subprocess.run([sys.executable, "-m", "course", *arguments], cwd=root, capture_output=True, text=True)
    key, _, value = done.stdout.strip().partition("=")
    assert key == "result" and json.loads(base64.b64decode(value))["max_score"] == 3


def test_the_workflow_has_a_step_for_each_module() -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(classroom.workflow_text([1, 3, 11], ROOT))
    steps = document["jobs"]["run-autograding-tests"]["steps"]
    assert [step["id"] for step in steps if "id" in step] == ["module-01", "module-03", "module-11"]
    assert "grade 11 --report report-11.json" in next(step["run"] for step in steps if step.get("id") == "module-11")
    report = steps[-1]
    assert report["with"]["runners"] == "module-01,module-03,module-11"
    assert sorted(report["env"]) == ["MODULE-01_RESULTS", "MODULE-03_RESULTS", "MODULE-11_RESULTS"]
    assert "@" not in "".join(report["env"].values()) + "".join(step.get("run", "") for step in steps)


def test_the_workflow_goes_into_a_release(root: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "classroom", root / "classroom")
    shutil.copytree(root, tmp_path / "release")
    done = subprocess.run(
        [sys.executable, "-m", "course", "classroom", str(tmp_path / "release")],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "module-04" in (tmp_path / "release" / ".github" / "workflows" / "classroom.yml").read_text(encoding="utf-8")
    assert "modules 01, 03, 04" in done.stdout


# ---------------------------------------------------------------------------------------------------------- the cell


@LINUX
def test_marked_processes_are_found_and_ended() -> None:
    mark = "test-of-marks"
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, cell.MARK: mark},
        start_new_session=True,
    )
    until = time.monotonic() + 10
    while child.pid not in cell.marked(mark) and time.monotonic() < until:
        time.sleep(0.02)
    assert cell.marked(mark) == [child.pid]
    cell.end_all(lambda: cell.marked(mark))
    assert child.wait(10) != 0


@LINUX
def test_the_descendants_of_a_process_are_known() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert child.pid in {one.pid for one in cell.descendants(os.getpid())}
    finally:
        child.kill()
        child.wait()
