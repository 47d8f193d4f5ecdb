"""The bug clinic: each case is what it says, and the three parts are graded rightly, whoever answers and however."""

from __future__ import annotations

import re
import shutil
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clinic_drive
import pytest

from course import release
from course.clinic import command, grading, store
from course.clinic import folder as folders
from course.clinic.bench import plain_tokens
from course.clinic.case import Case, Variant, edited
from course.clinic.folder import Folder
from course.clinic.grading import PARTS, Clinic
from course.console import CourseError
from course.environment import ROOT
from course.grading import checks
from course.grading.card import Outcome
from course.grading.pool import Pool

STORE = store.load(ROOT)
CASES = list(STORE.cases.values())
ANSWERS = Path(__file__).parent / "clinic_answers"
numbered = pytest.mark.parametrize("case", CASES, ids=lambda case: case.slug)
graded = pytest.mark.parametrize("case", STORE.graded, ids=lambda case: case.slug)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def bench(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with Clinic(home=tmp_path_factory.mktemp("clinic"), store=STORE, seconds=20, pool=pool) as clinic:
        yield clinic


def asked(bench: Clinic, sources: dict[str, str], check: str, question: Any = None) -> Any:
    """What the drive beside this file answers with one engine."""
    with bench._process(bench._engine(sources), Path(clinic_drive.__file__)) as ask:
        return ask(check, question)


# ------------------------------------------------------------------------------------------------ what a case is


def test_there_are_six_cases_with_six_symptoms() -> None:
    assert [case.number for case in STORE.graded] == [1, 2, 3, 4, 5, 6]
    for name in ("slug", "title", "symptom", "address"):
        assert len({getattr(case, name) for case in CASES}) == len(CASES), name
    assert len({case.file for case in STORE.graded}) >= 5, "spread over the engine"


@numbered
def test_every_edit_applies_and_changes_something(case: Case) -> None:
    assert len(case.bugs) >= 3 and len(case.twins) >= 1
    texts = [tuple(sorted(edited(STORE.healthy, variant).items())) for variant in (*case.bugs, *case.twins)]
    assert len({*texts, tuple(sorted(STORE.healthy.items()))}) == len(texts) + 1
    assert all(edit.file == case.file for edit in case.bugs[0].edits)


def test_an_edit_that_no_longer_applies_says_so() -> None:
    edit = STORE.cases[1].bugs[0].edits[0]
    gone = Variant("gone", (type(edit)(edit.file, edit.function, "not there", "x"),))
    with pytest.raises(ValueError, match="stands 0 times"):
        edited(STORE.healthy, gone)


@numbered
def test_a_report_tells_symptoms_and_no_place(case: Case) -> None:
    told = f"{case.title}\n{case.report}"
    function = case.function.rpartition(".")[2]
    assert function not in told or function in ("abort", "sample"), "a user's words, and what a user calls"
    assert case.file not in told and case.slug not in told and case.address not in told
    assert len(case.hints) == 3 and all(hint.endswith((".", "?")) for hint in case.hints)
    assert not re.search(rf"\b{function}\b", "".join(case.hints[:2])), "a hint is no answer"


@numbered
def test_the_symptom_is_there_with_each_bug_and_with_no_healthy_engine(case: Case, bench: Clinic) -> None:
    question = {"text": case.reproduce}
    for variant in case.bugs:
        said = asked(bench, edited(STORE.healthy, variant), "reproduce", question)
        assert not checks.is_raised(said) and case.symptom in said, (variant.name, said)
    for sources in (STORE.healthy, *(edited(STORE.healthy, twin) for twin in case.twins)):
        said = asked(bench, sources, "reproduce", question)
        assert not checks.is_raised(said) and case.symptom not in said, said


@numbered
def test_the_simplest_use_does_not_see_it(case: Case, bench: Clinic) -> None:
    for variant in case.bugs:
        found = asked(bench, edited(STORE.healthy, variant), "naive")
        assert found == {"tokens": plain_tokens([5, 6, 7], 20), "text": " prompt, one answer."}, variant.name


def test_the_engines_look_like_nobodys_exercise() -> None:
    marks = re.compile(r"### (BEGIN|END) SOLUTION|\[\d+\.\d+ · |★|Exercise \d|python -m course stubs")
    assert not {file: found for file, text in STORE.healthy.items() if (found := marks.findall(text))}
    assert "inference.py" in STORE.healthy and "prefix_index.py" not in STORE.healthy


# ------------------------------------------------------------------------------------------------ the folder


def opened(case: Case, home: Path) -> Folder:
    folder = folders.folder_of(case, home)
    folders.open_case(case, STORE, folder)
    return folder


def answered(case: Case, home: Path) -> Folder:
    """A folder with the course's own answers."""
    folder = opened(case, home)
    (folder.path / folders.TEST).write_text((ANSWERS / f"case_{case.number}.py").read_text())
    (folder.path / folders.ANSWER).write_text(f'file = "{case.file}"\nfunction = "{case.function}"\n')
    mend(folder, STORE.healthy)
    return folder


def mend(folder: Folder, sources: dict[str, str]) -> None:
    for name, text in sources.items():
        (folder.path / "flexnano" / name).write_text(text, encoding="utf-8")


def change(folder: Folder, file: str, old: str, new: str) -> None:
    path = folder.path / "flexnano" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_opening_a_case_writes_everything_once_and_nothing_over(tmp_path: Path) -> None:
    case = STORE.cases[3]
    folder = opened(case, tmp_path)
    assert {path.name for path in folder.path.iterdir()} >= {
        "REPORT.md",
        "reproduce.py",
        "test_case.py",
        "answer.toml",
        "flexnano",
    }
    assert (
        folder.is_untouched and case.title in folder.read("REPORT.md") and case.function not in folder.read("REPORT.md")
    )
    for name in ("test_case.py", "answer.toml", "flexnano/scheduler.py"):
        (folder.path / name).write_text("# mine\n")
    (folder.path / "reproduce.py").unlink()
    (folder.path / "flexnano" / "viz.py").unlink()
    assert folders.open_case(case, STORE, folder) == ["reproduce.py"]
    assert all(folder.read(name) == "# mine\n" for name in ("test_case.py", "answer.toml", "flexnano/scheduler.py"))
    assert not (folder.path / "flexnano" / "viz.py").exists()


def parts(bench: Clinic, case: Case, home: Path) -> dict[str, Outcome]:
    bench.home = home
    return dict(zip(PARTS, bench.grade(case), strict=True))


def test_nothing_done_is_not_started(bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[2]
    assert {one.status for one in parts(bench, case, tmp_path).values()} == {"not started"}
    opened(case, tmp_path)
    assert {one.status for one in parts(bench, case, tmp_path).values()} == {"not started"}


@pytest.mark.slow
@graded
def test_a_right_answer_gets_full_marks_and_is_told_the_published_bug(
    case: Case, bench: Clinic, tmp_path: Path
) -> None:
    answered(case, tmp_path)
    outcomes = parts(bench, case, tmp_path)
    assert [(part, one.status, one.got) for part, one in outcomes.items()] == [(part, "passed", "") for part in PARTS]
    assert case.address in outcomes["mended"].note


@pytest.mark.slow
@graded
def test_a_mend_in_another_style_passes(case: Case, bench: Clinic, tmp_path: Path) -> None:
    for twin in case.twins:
        mend(opened(case, tmp_path), edited(STORE.healthy, twin))
        outcome = parts(bench, case, tmp_path)["mended"]
        assert outcome.passed, (twin.name, outcome.case, outcome.got)


@pytest.mark.slow
@graded
def test_the_same_bug_in_other_words_is_no_mend(case: Case, bench: Clinic, tmp_path: Path) -> None:
    for bug in case.bugs[1:]:
        mend(opened(case, tmp_path), edited(STORE.healthy, bug))
        outcome = parts(bench, case, tmp_path)["mended"]
        assert outcome.status == "not yet" and outcome.checks_right == 0 and outcome.expected != outcome.got, bug.name


# ------------------------------------------------------------------------------------------------ found


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ('file = "page_table.py"\nfunction = "PageTable.convert_logical_block_mask"', "passed", ""),
        ('file = "flexnano/page_table.py"\nfunction = "convert_logical_block_mask()"', "passed", ""),
        ('file = "clinic/case_1/flexnano/page_table"\nfunction = "convert_logical_block_mask"', "passed", ""),
        ('file = "page_table.py"\nfunction = "PageTable.erase"', "not yet", "The file is right, the function is not."),
        ('file = "page_table.py"\nfunction = ""', "not yet", "Which function?"),
        ('file = "scheduler.py"\nfunction = "Scheduler.grow"', "not yet", "It is not there"),
        ('file = ""\nfunction = "convert_logical_block_mask"', "not yet", "Which file?"),
        ("file = page_table.py", "unreadable", "not TOML"),
        (folders.ANSWER_TEXT, "not started", ""),
    ],
)
def test_found(text: str, status: str, says: str, bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[1]
    folder = opened(case, tmp_path)
    (folder.path / folders.ANSWER).write_text(text)
    outcome = parts(bench, case, tmp_path)["found"]
    assert outcome.status == status and says in f"{outcome.where} {outcome.got}"


# ------------------------------------------------------------------------------------------------ proved

ENGINE = "from course.clinic.bench import engine_for, plain_tokens\nfrom flexnano import SamplingParams\n"
WRONG_TESTS = {
    "always fails": ("def test_it(): assert 1 == 2, 'never'", "a healthy engine", "never", "without the bug as well"),
    "always passes": ("def test_it(): assert True", "as it was handed out", "the test passes", "does not see it"),
    "sees the simplest use only": (
        ENGINE
        + """
def test_it():
    with engine_for() as engine:
        (one,) = engine.generate([[5, 6, 7]], SamplingParams(max_new_tokens=20))
    assert one.token_ids == plain_tokens([5, 6, 7], 20)
""",
        "as it was handed out",
        "the test passes",
        "more than one request",
    ),
    "can't be imported": (
        "import flexnano.no_such_module",
        "a healthy engine",
        "ModuleNotFoundError",
        "not run at all",
    ),
    "has no test": ("def check(): assert False", "a healthy engine", "there is no test", "begins with `test_`"),
    "is skipped": (
        "import pytest\n@pytest.mark.skip\ndef test_it(): assert False",
        "a healthy engine",
        "skipped",
        "proves nothing",
    ),
    "reads the source": (
        "import inspect\nimport flexnano.page_table as p\n"
        "def test_it(): assert 'arange(1' not in inspect.getsource(p.PageTable.convert_logical_block_mask)",
        "a healthy engine",
        "reads the source",
        "Test what the engine does",
    ),
    "reads the file": (
        "from pathlib import Path\nimport flexnano.page_table as p\n"
        "def test_it(): assert 'arange(1' not in Path(p.__file__).read_text()",
        "a healthy engine",
        "reads the source",
        "Test what the engine does",
    ),
    "looks at the names in the code": (
        "from flexnano import PageTable\n"
        "def test_it(): assert 'arange' not in PageTable.convert_logical_block_mask.__code__.co_names",
        "written in another way",
        "the test passes",
        "one way to write the bug",
    ),
    "holds to one way of writing": (
        ENGINE
        + """
from flexnano import PageTable
def test_it():
    assert "copy_" not in PageTable.convert_logical_block_mask.__code__.co_names
    assert "arange" not in PageTable.convert_logical_block_mask.__code__.co_names
""",
        "healthy engine that is written in another way",
        "fails",
        "one way of writing",
    ),
    "fails by an exception": (
        ENGINE
        + """
def test_it():
    with engine_for() as engine:
        params = [SamplingParams(max_new_tokens=3), SamplingParams(max_new_tokens=20)]
        _, second = engine.generate([[5, 6, 7], [20, 3, 9, 30, 11]], params)
    if second.token_ids != plain_tokens([20, 3, 9, 30, 11], 20):
        raise KeyError("wrong")
""",
        "as it was handed out",
        "KeyError",
        "something that was asserted",
    ),
}


@pytest.mark.parametrize("name", WRONG_TESTS)
def test_a_test_that_proves_nothing_is_told_why(name: str, bench: Clinic, tmp_path: Path) -> None:
    code, where, got, hint = WRONG_TESTS[name]
    folder = opened(STORE.cases[1], tmp_path)
    (folder.path / folders.TEST).write_text(code)
    outcome = parts(bench, STORE.cases[1], tmp_path)["proved"]
    assert outcome.status == "not yet" and where in outcome.case, (outcome.case, outcome.got)
    assert got in outcome.got and hint in outcome.hints[0] and len(outcome.hints) == 3


@pytest.mark.slow
def test_a_test_without_end_is_stopped(pool: Pool, tmp_path: Path) -> None:
    case = STORE.cases[3]
    folder = opened(case, tmp_path)
    (folder.path / folders.TEST).write_text("import time\ndef test_it():\n    time.sleep(10**6)\n")
    with Clinic(home=tmp_path, store=STORE, seconds=4, pool=pool) as clinic:
        outcome = parts(clinic, case, tmp_path)["proved"]
    assert outcome.status == "not yet" and "no end in 4 s" in outcome.got and "number of steps" in outcome.hints[0]


def test_a_test_that_is_no_python_is_unreadable(bench: Clinic, tmp_path: Path) -> None:
    folder = opened(STORE.cases[1], tmp_path)
    (folder.path / folders.TEST).write_text("def test_it(:")
    assert parts(bench, STORE.cases[1], tmp_path)["proved"].status == "unreadable"


def test_helpers_beside_a_test_come_along(bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[1]
    folder = opened(case, tmp_path)
    text = (ANSWERS / "case_1.py").read_text()
    (folder.path / "helper.py").write_text(text)
    (folder.path / folders.TEST).write_text("from helper import *  # noqa\n")
    assert parts(bench, case, tmp_path)["proved"].passed


# ------------------------------------------------------------------------------------------------ mended

HIDING = {
    # case, file, what is written instead of what: the symptom of the report goes, the bug does not
    "one at a time": (
        1,
        "scheduler.py",
        "if len(chosen) == len(self.page_table.free_slots)",
        "if chosen or self.running",
    ),
    "the sum doubled": (
        2,
        "kv_cache.py",
        "return min(fits, max_batch_size",
        "return min(2 * fits + 1, max_batch_size",
    ),
    "newcomers have to wait until all have ended": (
        3,
        "scheduler.py",
        "return due",
        "return False",
    ),
    "no seed counts": (
        4,
        "inference.py",
        "seeds = [row.sequence.params for row in rows], [row.sequence.seed for row in rows]",
        "seeds = [row.sequence.params for row in rows], [0 for row in rows]",
    ),
    "aborts are ignored": (
        5,
        "inference.py",
        '        text = ""\n        with contextlib',
        '        return True\n        text = ""\n        with contextlib',
    ),
    "what is broken is left out": (
        6,
        "detokenize.py",
        "        self._pieces.append(piece)\n",
        "        piece = piece.replace(BROKEN, '')\n        self._pieces.append(piece)\n",
    ),
    "the exception is caught": (
        5,
        "inference.py",
        "        self._advance()\n        return",
        "        try:\n            self._advance()\n        except Exception:\n            pass\n        return",
    ),
    "all text at the end": (
        6,
        "detokenize.py",
        "        return self._show(self._decode([int(token_id)]), last=False)\n",
        "        self._window.append(int(token_id))\n        return ''\n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HIDING)
def test_a_mend_that_only_hides_the_symptom_does_not_pass(name: str, bench: Clinic, tmp_path: Path) -> None:
    number, file, old, new = HIDING[name]
    case = STORE.cases[number]
    change(opened(case, tmp_path), file, old, new)
    outcome = parts(bench, case, tmp_path)["mended"]
    assert outcome.status == "not yet" and outcome.case and outcome.got and len(outcome.hints) == 3, outcome


def test_a_mend_that_breaks_something_else_does_not_pass(bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[3]
    folder = answered(case, tmp_path)
    change(
        folder,
        "scheduler.py",
        "self.waiting.appendleft(sequence)",
        "sequence.output_ids.clear()\n        self.waiting.appendleft(sequence)",
    )
    change(folder, "detokenize.py", "len(tail) - _n_waiting(tail)", "len(tail)")
    outcome = parts(bench, case, tmp_path)["mended"]
    assert outcome.status == "not yet" and outcome.checks_right > 0


@pytest.mark.slow
def test_a_mend_that_never_ends_is_stopped(pool: Pool, tmp_path: Path) -> None:
    case = STORE.cases[3]
    change(opened(case, tmp_path), "scheduler.py", "return due", "while True: pass")
    with Clinic(home=tmp_path, store=STORE, seconds=5, pool=pool) as clinic:
        outcome = parts(clinic, case, tmp_path)["mended"]
    assert outcome.status == "not yet" and "none in 5 s" in outcome.got


def test_an_engine_that_is_no_python_is_unreadable(bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[1]
    (opened(case, tmp_path).path / "flexnano" / "masks.py").write_text("def causal(:")
    outcome = parts(bench, case, tmp_path)["mended"]
    assert outcome.status == "unreadable" and "masks.py" in outcome.got


def test_ones_own_test_must_pass_on_ones_own_engine(bench: Clinic, tmp_path: Path) -> None:
    case = STORE.cases[1]
    folder = answered(case, tmp_path)
    engine = STORE.healthy | {"page_table.py": STORE.healthy["page_table.py"] + "\nMINE = True\n"}
    mend(folder, engine)
    test = (ANSWERS / "case_1.py").read_text() + textwrap.dedent(
        """

        def test_nobody_added_anything():
            import flexnano.page_table
            assert not hasattr(flexnano.page_table, "MINE")
        """
    )
    (folder.path / folders.TEST).write_text(test)
    outcomes = parts(bench, case, tmp_path)
    assert outcomes["proved"].passed and not outcomes["mended"].passed
    assert "your own test" in outcomes["mended"].case


# ------------------------------------------------------------------------------------------------ the command


def test_the_list_says_where_one_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load", lambda _root: STORE)
    monkeypatch.setattr(store, "is_there", lambda _root: True)
    case = STORE.cases[2]
    folder = opened(case, tmp_path / "clinic")
    assert command.show(tmp_path) == 0
    assert re.search(rf"2  {case.title} +open\n", capsys.readouterr().out)
    outcomes = [
        Outcome("11.2", part, "", 1, status)
        for part, status in zip(PARTS, ("passed", "passed", "not yet"), strict=True)
    ]
    grading.remember(case, folder, outcomes, tmp_path)
    command.show(tmp_path)
    assert re.search(rf"2  {case.title} +found, proved\n", capsys.readouterr().out)
    (folder.path / folders.ANSWER).write_text('file = "x"\n')
    command.show(tmp_path)
    assert "found, proved (changed since)" in capsys.readouterr().out


def test_hints_come_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    case = STORE.cases[4]
    for level in (1, 2, 3):
        assert command.show(ROOT, 4, hint=level) == 0
        out = capsys.readouterr().out
        assert [hint in out for hint in case.hints] == [level > n for n in range(3)]


def test_words_that_name_no_case_are_told_which_there_are() -> None:
    with pytest.raises(CourseError, match="There is no case 9"):
        command.show(ROOT, 9)
    with pytest.raises(CourseError, match="There is no case '11.7'"):
        command.cases_of(["11.7"])
    assert [case.number for case in command.cases_of(["11.3", "11.1"])] == [1, 3]
    assert command.names_the_clinic("11") and command.names_the_clinic("11.2") and not command.names_the_clinic("1.11")


# ------------------------------------------------------------------------------------------------ a class


def class_copy(folder: Path) -> Path:
    """What a class gets, as far as the clinic is concerned."""
    release._copy(ROOT, folder, for_class=True, besides=folder)
    release._write_stubs(ROOT, folder / "course" / "pristine")
    return folder


def test_a_class_gets_the_clinic_by_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = class_copy(tmp_path / "class")
    assert (copy / "course" / "clinic" / "grading.py").is_file() and (copy / "tests" / "module_11").is_dir()
    assert not (copy / "course" / "clinic" / "cases").exists()
    lines = release.solution_lines(ROOT)
    shutil.rmtree(copy / "course" / "pristine")
    release._write_stubs(ROOT, copy / "course" / "pristine")
    assert not release.leaks(copy / "course" / "clinic", lines) and not release.leaks(
        copy / "tests" / "module_11", lines
    )
    with pytest.raises(CourseError, match=r"clinic\.zip beside README\.md"):
        store.load(copy)
    assert not store.is_there(copy) and command.show(copy) == 0 and store.NO_CLINIC in capsys.readouterr().out
    (copy / store.PACK).write_bytes(store.packed(ROOT))
    handed_out = store.load(copy)
    assert handed_out.healthy == store.healthy_engine(ROOT)
    assert [case.title for case in handed_out.graded] == [case.title for case in STORE.graded]


def test_the_release_puts_the_zip_beside_the_class_and_not_into_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release._write_clinic(tmp_path, ROOT)
    assert (tmp_path / store.PACK).read_bytes() == store.packed(ROOT)
    assert store.PACK in capsys.readouterr().out


def test_a_zip_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    copy = class_copy(tmp_path / "class")
    (copy / store.PACK).write_bytes(b"no zip")
    with pytest.raises(CourseError, match="is not a clinic.zip"):
        store.load(copy)
    with zipfile.ZipFile(copy / store.PACK, "w") as archive:
        archive.writestr("clinic.json", '{"course": "another"}')
    with pytest.raises(CourseError, match="another version of the course"):
        store.load(copy)


def test_the_zip_is_the_same_each_time_and_holds_no_homework(tmp_path: Path) -> None:
    assert store.packed(ROOT) == store.packed(ROOT)
    (tmp_path / store.PACK).write_bytes(store.packed(ROOT))
    with zipfile.ZipFile(tmp_path / store.PACK) as archive:
        names = archive.namelist()
    assert "flexnano/inference.py" in names and "cases/case_6.py" in names
    assert not [name for name in names if "prefix_index" in name or "cuda_graphs" in name]
