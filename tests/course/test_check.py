"""`python -m course check`: every finding says what to do, and only what stops the course counts against the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from course import check
from course.check import Finding
from course.environment import ROOT

CPU: dict[str, Any] = {"gpus": [], "mps": False, "cuda_build": None}


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


def test_this_machine_as_data_and_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEXNANO_ATTENTION", "gather")  # or a kernel is compiled
    assert check.show(as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    names = [one["name"] for one in document["findings"]]
    for name in ("Python", "torch", "transformers", "GPU", "attention path", "C++ compiler", "disk", "memory", "model"):
        assert name in names
    assert document["works"] is True
    if (ROOT / "solutions").is_dir():
        attention = next(one for one in document["findings"] if one["name"] == "attention path")
        assert attention["found"].startswith("gather (asked for")


def test_a_bare_python_is_told_what_to_install() -> None:
    """-S -I: a Python that sees nothing but its standard library, as on a fresh machine."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from course import check; sys.exit(check.show())"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 1, run.stderr
    assert "not installed" in run.stdout and "python -m course setup" in run.stdout
    assert "can't be worked on this machine yet: torch, transformers, packages" in run.stdout


def test_what_is_too_old_or_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch>=2.11\ntransformers>=5.15,<6\nnumpy>=2.0\ntqdm>=4.66\n")
    there = {"torch": "2.10.1+cu128", "transformers": "5.15.0.dev0", "numpy": "1.26.4"}

    def version(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(check.metadata, "version", version)
    found = by_name(check.packages(tmp_path))
    assert found["torch"].level == "problem" and "2.11 is needed" in found["torch"].found
    assert found["transformers"].level == "ok"
    assert found["packages"].found == "missing: tqdm, numpy 1.26.4 (needs 2.0)"
    assert all(one.do for one in found.values() if one.level == "problem")


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (CPU, "ok", "everything works on the CPU"),
        ({**CPU, "mps": True}, "ok", "Apple"),
        (
            {**CPU, "gpus": [{"name": "Tesla T4", "capability": [7, 5], "memory": 15e9}]},
            "note",
            "compute capability 7.5",
        ),
        ({**CPU, "gpus": [{"name": "NVIDIA L4", "capability": [8, 9], "memory": 23e9}]}, "ok", "23.0 GB"),
    ],
)
def test_a_gpu_is_named_with_what_it_can_do(answer: dict[str, Any], level: str, said: str) -> None:
    found = check.gpu(answer)
    assert found.level == level and said in found.found
    assert found.level == "ok" or found.do


def test_a_torch_that_does_not_start_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = check.ask_child(ROOT, try_attention=False)
    (found,) = check.from_child(answer, ROOT, try_attention=False)
    assert found.level == "problem" and "libcudart" in found.found and "setup" in found.do


def test_without_solutions_the_attention_path_is_not_tried(tmp_path: Path) -> None:
    found = by_name(check.from_child(CPU, tmp_path, try_attention=True))
    assert found["attention path"].level == "ok" and "has no solutions" in found["attention path"].found


def test_a_failing_attention_is_a_problem_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "solutions" / "flexnano").mkdir(parents=True)
    found = by_name(check.from_child({**CPU, "attention_error": "RuntimeError: no"}, tmp_path, try_attention=True))
    assert found["attention path"].level == "problem" and "gather" in found["attention path"].do


def test_notes_do_not_count_against_the_machine() -> None:
    fine, note = Finding("Python", "ok", "3.12"), Finding("C++ compiler", "note", "none", "install one")
    assert check.works([fine, note])
    assert "can be worked" in check.verdict([fine, note])
    assert not check.works([fine, Finding("torch", "problem", "not installed", "install it")])


def test_a_missing_model_says_what_works_without_it(tmp_path: Path) -> None:
    found = check.model(tmp_path)
    assert found.level == "note" and "work without it" in found.do


def test_long_lines_are_wrapped_below_their_name() -> None:
    lines = check.lines([Finding("GPU", "note", "x " * 80, "do " * 60)], columns=80)
    assert all(len(line) <= 80 for line in lines)
    assert sum("→" in line for line in lines) == 1 and lines[1].startswith("    ")


def test_the_disk_and_the_memory_of_a_small_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 10**8})())
    assert check.disk(tmp_path).level == "problem"
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"total": 10**9, "available": 5 * 10**8})())
    assert check.memory().level == "problem"
