"""How `import flexnano` behaves: from where, with what, and whose code it is."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from course.environment import ROOT

REFERENCE = ROOT / "solutions" / "flexnano"
# Found but not run: what matters is the place, and running it would import torch each time.
SAY_WHERE = "import importlib.util; print(importlib.util.find_spec('flexnano.masks').origin)"


def python(code: str, cwd: Path, flexnano: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("FLEXNANO", "PYTHONPATH")} | variables
    if flexnano is not None:
        environment["FLEXNANO"] = flexnano
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


def loaded_from(cwd: Path, flexnano: str | None) -> Path:
    run = python(SAY_WHERE, cwd, flexnano)
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.strip()).parent


@pytest.mark.parametrize("place", ["root", "notebooks", "elsewhere"])
def test_the_learners_package_is_found_from_anywhere(place: str, tmp_path: Path) -> None:
    cwd = {"root": ROOT, "notebooks": ROOT / "notebooks", "elsewhere": tmp_path}[place]
    assert loaded_from(cwd, None) == ROOT / "flexnano"
    assert loaded_from(cwd, "") == ROOT / "flexnano"


@pytest.mark.parametrize("place", ["root", "notebooks", "elsewhere"])
def test_flexnano_solutions_means_the_reference_from_anywhere(place: str, tmp_path: Path) -> None:
    cwd = {"root": ROOT, "notebooks": ROOT / "notebooks", "elsewhere": tmp_path}[place]
    assert loaded_from(cwd, "solutions") == REFERENCE


def test_the_reference_is_also_found_on_the_path() -> None:
    """`PYTHONPATH=solutions`, as an editor or a teacher may have it."""
    run = python(SAY_WHERE, ROOT / "notebooks", None, PYTHONPATH=str(ROOT / "solutions"))
    assert Path(run.stdout.strip()).parent == REFERENCE, run.stderr
    run = python(SAY_WHERE, ROOT / "notebooks", "solutions", PYTHONPATH=str(ROOT / "solutions"))
    assert Path(run.stdout.strip()).parent == REFERENCE, run.stderr


def test_flexnano_may_name_a_package_folder_or_the_folder_that_holds_it(tmp_path: Path) -> None:
    merged = tmp_path / "merged" / "flexnano"
    merged.mkdir(parents=True)
    for name in ("__init__.py", "masks.py"):
        shutil.copy(ROOT / "flexnano" / name, merged)
    for value in (str(merged), str(merged.parent), "merged", "merged/flexnano"):
        assert loaded_from(tmp_path, value) == merged, f"FLEXNANO={value}"


def test_a_module_missing_in_the_named_folder_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "flexnano").mkdir()
    shutil.copy(ROOT / "flexnano" / "__init__.py", tmp_path / "flexnano")
    run = python("import flexnano.masks", ROOT, str(tmp_path))
    assert "No module named 'flexnano.masks'" in run.stderr
    run = python("import flexnano; flexnano.causal", ROOT, str(tmp_path))
    assert f"flexnano.causal is not there yet: {tmp_path / 'flexnano'} has no masks.py" in run.stderr


@pytest.mark.parametrize("value", ["solution", "no/such/folder", "empty"])
def test_a_wrong_value_of_flexnano_says_what_is_allowed(value: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = python("import flexnano", tmp_path, value)
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: FLEXNANO={value!r} names no code: it may be `solutions`, a folder"), last


def test_flexnano_solutions_without_solutions_says_so(tmp_path: Path) -> None:
    (tmp_path / "flexnano").mkdir()
    shutil.copy(ROOT / "flexnano" / "__init__.py", tmp_path / "flexnano")
    run = python("import flexnano", tmp_path, "solutions")
    assert "this copy of the course has no solutions" in run.stderr


@pytest.mark.parametrize("flexnano", [None, "solutions"])
def test_importing_the_package_loads_nothing_heavy(flexnano: str | None) -> None:
    run = python("import sys, flexnano; dir(flexnano); print(*sys.modules)", ROOT, flexnano)
    loaded = run.stdout.split()
    assert "flexnano" in loaded, run.stderr
    heavy = [name for name in loaded if name.startswith(("torch", "transformers", "numpy", "flexnano."))]
    assert not heavy, f"`import flexnano` loaded {heavy}"


def test_a_name_loads_its_own_module_and_no_later_one() -> None:
    code = "import sys, flexnano; flexnano.causal; print(*sorted(m for m in sys.modules if m.startswith('flexnano.')))"
    assert python(code, ROOT).stdout.split() == ["flexnano.masks"]


def test_every_public_name_exists_in_the_reference() -> None:
    code = "import flexnano\nfor name in flexnano.__all__: getattr(flexnano, name)"
    run = python(code, ROOT, "solutions")
    assert run.returncode == 0, run.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    run = python("import flexnano; print(hasattr(flexnano, 'Engine')); from flexnano import Engine", ROOT)
    assert run.stdout.strip() == "False"
    assert "cannot import name 'Engine'" in run.stderr


def test_type_checkers_see_the_names_that_exist_at_run_time() -> None:
    path = REFERENCE / "__init__.py"
    imported = {
        alias.name: node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert imported == importlib.import_module("flexnano")._HOME


def test_the_whole_command_line_runs_on_the_reference() -> None:
    environment = {**os.environ, "FLEXNANO": "solutions"}
    run = subprocess.run(
        [sys.executable, "-m", "flexnano", "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "--model" in run.stdout


# -------------------------------------------------------------------------------------------------------- size


COUNTED = [
    "masks",
    "attention",
    "experiment",
    "page_table",
    "kv_cache",
    "roofline",
    "sequence",
    "scheduler",
    "sampling",
    "inference",
]
"""The files that hold exercises of modules 01 to 06; the others are given."""


def lines_of_code(source: str) -> int:
    """Lines that hold code: without blank lines, comments and docstrings."""
    lines: set[int] = set()
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type not in nothing and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_lines_are_counted_without_blanks_comments_and_docstrings() -> None:
    source = '"""Doc.\n\nMore.\n"""\n\n# why\nx = [\n    1,  # one\n]\n\n\ndef f():\n    """Doc."""\n    return "a"\n'
    assert lines_of_code(source) == 5


def test_modules_01_to_06_stay_small(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {name: lines_of_code((REFERENCE / f"{name}.py").read_text(encoding="utf-8")) for name in COUNTED}
    total = sum(counts.values())
    with capsys.disabled():
        print("\nlines of code: " + ", ".join(f"{name} {n}" for name, n in counts.items()) + f"; together {total}")
    assert total < 1200, f"modules 01 to 06 have {total} lines of code: {counts}"


def test_no_public_name_is_also_the_name_of_another_file() -> None:
    """Importing a file puts the file in the place of the name: `flexnano.x` would mean two things."""
    files = {path.stem for path in REFERENCE.glob("*.py")}
    home = importlib.import_module("flexnano")._HOME
    clashes = {name: module for name, module in home.items() if name in files and name != module}
    assert not clashes, f"these names are also files: {clashes}"
