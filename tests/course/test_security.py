"""Nothing runs or loads what nobody asked for: a model's own code, pickles, and what other hosts serve to a page."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from course.environment import ROOT

FOLDERS = ("solutions", "course", "benchmarks", "experiments", "notebooks", "book", "tests", "classroom")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code() -> Iterator[tuple[str, str]]:
    """(where, Python code) of everything in the repository but the learner's package, which is made of the reference."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8", errors="replace")
    for path in NOTEBOOKS:
        for n, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                lines = "".join(cell["source"]).splitlines()
                yield f"{path.name}, cell {n}", "\n".join(line for line in lines if not line.startswith(("%", "!")))


def calls() -> Iterator[tuple[str, ast.Call]]:
    for where, source in code():
        try:
            tree = ast.parse(source)
        except SyntaxError:  # what learners wrote, as they wrote it
            continue
        yield from ((where, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_call_runs_a_model_s_own_code_or_reads_a_pickle() -> None:
    found, n = [], 0
    for where, call in calls():
        n += 1
        name = ast.unparse(call.func)
        for keyword in call.keywords:
            never = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "trust_remote_code" and not never:
                found.append(f"{where}: {name}({ast.unparse(keyword)})")
        if name in ("torch.load", "pickle.load", "pickle.loads", "torch.hub.load", "numpy.load", "joblib.load"):
            found.append(f"{where}: {name}")
    assert n > 10_000 and found == []


def test_a_dictionary_of_options_never_says_to_run_it_either() -> None:
    said = [where for where, source in code() if re.search(r"[\"']trust_remote_code[\"']\s*:(?!\s*False)", source)]
    assert [where for where in said if where != "tests/course/test_security.py"] == []


# ------------------------------------------------------------------------------------------------ pages at view time

ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|video|audio|source|embed|object|link\s[^>]*rel=["']?stylesheet)\b[^>]*?"""
    r"""(?:src|href|data)\s*=\s*\\?["']?\s*(?:https?:)?//[^\s"'>]+"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^"')]+|\burl\(\s*["']?(?:https?:)?//[^"')]+"""
    r"""|!\[[^\]]*\]\(\s*(?:https?:)?//[^)]+|\bfetch\(\s*["'](?:https?:)?//[^"']+"""
    r"""|\bfrom\s+["']https?://[^"']+|\bimport\s*\(?\s*["']https?://[^"']+""",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js">',
        "<img alt='a' src='//example/x.png'>",
        '<link rel="stylesheet" href="http://example/x.css">',
        "@import url(https://example/x.css)",
        "background: url('https://example/x.png')",
        "![a picture](https://example/x.png)",
        'import x from "https://example/x.js"',
        "fetch('https://example')",
    ],
)
def test_what_would_be_loaded_is_seen(text: str) -> None:
    assert ELSEWHERE.search(text)


def texts_of(value: Any) -> Iterator[str]:
    """Every text in the JSON of a notebook, lines joined."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(one, str) for one in value):
        yield "".join(value)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts_of(one)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_loads_nothing_from_other_hosts(path: Path) -> None:
    loaded = [
        hit[0] for text in texts_of(json.loads(path.read_text(encoding="utf-8"))) for hit in ELSEWHERE.finditer(text)
    ]
    # A badge that leads to Colab is a picture that GitHub shows; the book leaves it out.
    assert loaded == []


def test_the_sources_of_the_book_load_nothing_from_other_hosts() -> None:
    loaded = []
    for path in [*sorted((ROOT / "book").rglob("*")), ROOT / "_config.yml"]:
        if path.suffix in (".md", ".html", ".css", ".js", ".yml", ".svg", ".py"):
            text = path.read_text(encoding="utf-8")
            loaded += [f"{path.name}: {hit[0]}" for hit in ELSEWHERE.finditer(text)]
    assert loaded == []


def test_the_book_as_it_was_built_loads_nothing_from_other_hosts() -> None:
    pages = sorted(path for path in (ROOT / "_build" / "html").rglob("*") if path.suffix in (".html", ".css"))
    if not pages:
        pytest.skip("the book is not built: make book")
    shown = re.compile(r"<pre>.*?</pre>|<code\b.*?</code>", re.DOTALL)
    loaded = [
        f"{path.name}: {hit[0]}"
        for path in pages
        for hit in ELSEWHERE.finditer(shown.sub("", path.read_text(encoding="utf-8")))
    ]
    assert loaded == []
