"""The book: what its pages say is there, and, slow, it builds without a warning and every page opens in a browser."""

from __future__ import annotations

import ast
import doctest
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from course import book, notebooks, quiz, release, settings
from course.console import CourseError
from course.environment import ROOT

BOOK = ROOT / "book"
PAGES = sorted(
    path for path in BOOK.rglob("*.md") if not any(part.startswith("_") for part in path.relative_to(BOOK).parts)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUIZZES = sorted(path.stem for path in (BOOK / "quizzes").glob("*.yml"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The Markdown of a page or a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def without_code(text: str) -> str:
    """Fences of code out; those of directives stay."""
    text = re.sub(r"^```(?!\{)\w*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!\})`[^`\n]+`", "", text)


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(node: Any) -> Iterator[str]:
    """Every page that _toc.yml names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("file", "root"):
                yield value
            else:
                yield from entries(value)
    elif isinstance(node, list):
        for one in node:
            yield from entries(one)


IN_TOC = list(entries(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))


# ---------------------------------------------------------------------------------------------------------- quick ones


def test_every_page_and_notebook_is_in_the_table_of_contents_once() -> None:
    there = [name_of(path.with_suffix("")) for path in (*PAGES, *NOTEBOOKS)]
    assert sorted(set(there) - set(IN_TOC)) == []
    assert len(IN_TOC) == len(set(IN_TOC))


def test_the_table_of_contents_names_only_what_is_there_or_still_to_come() -> None:
    to_come = {f"notebooks/{name}" for name in notebooks.FILES.values()}
    to_come |= {f"book/quizzes/{module:02d}" for module in notebooks.FILES}
    unknown = [name for name in IN_TOC if book.page(name) is None and name not in to_come]
    assert unknown == []


def test_what_is_missing_is_left_out_of_the_table_of_contents(tmp_path: Path) -> None:
    parts = [{"caption": "A", "chapters": [{"file": "a", "sections": [{"file": "b"}]}, {"file": "c"}]}]
    parts.append({"caption": "B", "chapters": [{"file": "d"}]})
    toc = {"format": "jb-book", "root": "r", "parts": parts}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    for name in ("r.md", "b.md", "c.ipynb"):
        (tmp_path / name).touch()
    assert book.write_toc(tmp_path, tmp_path / "toc.yml") == ["a", "d"]
    written = yaml.safe_load((tmp_path / "toc.yml").read_text(encoding="utf-8"))
    assert written["parts"] == [{"caption": "A", "chapters": [{"file": "b"}, {"file": "c"}]}]


def tracked() -> set[str]:
    """Files of the repository, those not added yet among them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git repository")
    return set(listed.stdout.splitlines())


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS, ROOT / "README.md"], ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = without_code(prose(path))
    files = tracked()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(settings.REPOSITORY) or "colab.research.google.com" in target:
            _, _, inside = target.partition(f"/blob/{settings.BRANCH}/")
            inside = inside.partition("#")[0]
            if inside and inside not in files and not any(file.startswith(f"{inside}/") for file in files):
                broken.append(target)
        elif not re.match(r"(https?:|mailto:|#)", target):
            file = target.partition("#")[0]
            base = ROOT if file.startswith("/") else path.parent
            place = base / file.lstrip("/")
            if not any(place.with_name(place.name + suffix).exists() for suffix in ("", ".md", ".ipynb")):
                broken.append(target)
    for inside in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", prose(path)):
        place = (ROOT if inside.startswith("/") else path.parent) / inside.strip().lstrip("/")
        if not any(place.with_name(place.name + suffix).exists() for suffix in (".md", ".ipynb")):
            broken.append(inside)
    for inside in re.findall(r"\{src\}`([^`]+)`", prose(path)):
        if not (ROOT / inside).exists():
            broken.append(inside)
    assert broken == []


def test_every_notebook_has_a_link_that_opens_it_in_colab() -> None:
    for path in NOTEBOOKS:
        assert settings.colab_link(path.name) in prose(path), path.name


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS, ROOT / "README.md"], ids=name_of)
def test_pictures_are_told_in_words(path: Path) -> None:
    text = prose(path)
    assert re.findall(r"!\[\s*\]\([^)]*\)", text) == []
    for tag in re.findall(r"<img\b[^>]*>", text):
        assert re.search(r'\balt="[^"]{10,}"', tag), tag
    for directive in re.findall(r"^```\{(?:picture|image|figure)\}.*?^```$", text, re.DOTALL | re.MULTILINE):
        assert re.search(r"^:alt: .{30,}", directive, re.MULTILINE), directive.splitlines()[0]


def test_the_glossary_is_in_order_and_defines_every_word() -> None:
    terms = book.glossary_terms()
    assert len(terms) > 30
    assert terms == sorted(terms, key=str.lower)
    assert len({term.lower() for term in terms}) == len(terms)
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    for term in terms:
        assert re.search(rf"^{re.escape(term)}\n    \S.{{20,}}", text, re.MULTILINE), f"{term} is not defined"


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_words_of_the_glossary_exist(path: Path) -> None:
    terms = {term.lower() for term in book.glossary_terms()}
    used = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", prose(path))
    assert [word for word in used if word.strip().lower() not in terms] == []


def test_references_resolve_and_say_where_to_read_them() -> None:
    text = (BOOK / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    for path in (*PAGES, *NOTEBOOKS):
        for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(path)):
            assert [key for key in cited.split(",") if key.strip() not in keys] == [], path.name
    for entry in re.split(r"^@", text, flags=re.MULTILINE)[1:]:
        assert "url = {https://" in entry or "publisher" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_numbers_come_from_files(path: Path) -> None:
    for asked in re.findall(r"\{result\}`([^`]+)`", prose(path)):
        in_a_table = asked.replace("\\|", "|")  # as Markdown has it there
        assert re.match(r"-?[\d.,]+%?$", book.look_up(in_a_table)), asked


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_examples_in_pages_are_right(path: Path) -> None:
    text = "\n".join(re.findall(r"^```python\n(>>> .*?)^```$", prose(path), re.DOTALL | re.MULTILINE))
    example = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert said == []


def test_no_page_holds_a_line_of_a_solution() -> None:
    if not (ROOT / "solutions").is_dir():
        pytest.skip("there are no solutions to compare with")
    lines = release.solution_lines(ROOT)
    assert release.leaks(BOOK, lines) == []
    assert release.leaks(ROOT / "notebooks", lines) == []


def test_the_reference_names_every_module_of_the_package() -> None:
    if not (ROOT / "solutions").is_dir():
        pytest.skip("there is no reference")
    named = [
        name
        for path in (BOOK / "reference").glob("*.md")
        for name in re.findall(r"^```\{reference\} (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    modules = {path.stem for path in (ROOT / "solutions" / "flexnano").glob("[!_]*.py")}
    assert sorted(modules - set(named)) == [], "add them to a page in book/reference/"
    assert len(named) == len(set(named))


def test_pictures_are_in_step_with_what_they_are_made_from() -> None:
    render, roofline = (module_at(BOOK / "diagrams" / f"{name}.py") for name in ("render", "roofline"))
    assert len(render.sources()) == 4
    for source in render.sources():
        drawn = (BOOK / "images" / f"{source.stem}.svg").read_text(encoding="utf-8")
        assert render.mark(source) in drawn, f"{source.name} was changed: run book/diagrams/render.py"
    drawn = (BOOK / "images" / "roofline.svg").read_text(encoding="utf-8")
    assert roofline.draw() == drawn, "run book/diagrams/roofline.py"


def test_functions_in_the_diagrams_exist() -> None:
    defined = {"flex_attention", "forward"}
    folder = ROOT / ("solutions/flexnano" if (ROOT / "solutions").is_dir() else "flexnano")
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for path in (BOOK / "diagrams").glob("*.mmd"):
        text = re.sub(r'"[^"]*"', lambda match: match[0].replace("(", " ("), path.read_text(encoding="utf-8"))
        named = set(re.findall(r"\b([a-z]\w+)\(", text))
        assert named - defined == set(), path.name


def test_packages_of_the_book_are_pinned() -> None:
    pinned = {
        line.partition("==")[0].lower() for line in (BOOK / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = [line for line in (BOOK / "requirements.txt").read_text().splitlines() if re.match(r"\w", line)]
    assert wanted and all(re.match(r"[\w-]+", line)[0].lower() in pinned for line in wanted)  # type: ignore[index]
    assert "torch" not in pinned


# --------------------------------------------------------------------------------------------------------------- quizzes


@pytest.mark.parametrize("name", QUIZZES)
def test_quizzes_are_whole(name: str) -> None:
    read = quiz.read(name)
    assert len(read.questions) == 10
    page = (BOOK / "quizzes" / f"{name}.md").read_text(encoding="utf-8")
    assert f"```{{quiz}} {name}\n```" in page
    assert f"book/quizzes/{name}" in IN_TOC


def broken(**changes: Any) -> quiz.Quiz:
    choices = [quiz.Choice(f"choice {i}", f"the reason of choice number {i}", right=i == 1) for i in range(3)]
    orders = [[choices[1], choices[0], choices[2]], choices, [choices[0], choices[2], choices[1]]]
    questions = [
        quiz.Question("what?", orders[i % 3], "a worked answer that says how one gets there") for i in range(10)
    ]
    questions[4] = quiz.Question(**{**vars(questions[4]), **changes})
    return quiz.Quiz("99", "test", questions)


def test_a_good_quiz_has_no_troubles() -> None:
    assert quiz.troubles(broken()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choices": []}, "0 choices"),
        ({"choices": [quiz.Choice(t, f"a long reason for {t}", False) for t in "abc"]}, "one right choice"),
        ({"choices": [quiz.Choice(t, "", t == "a") for t in "abc"]}, "not explained"),
        (
            {"choices": [quiz.Choice("a", f"a long reason, number {t}", t == "a") for t in "abc"]},
            "the same choice twice",
        ),
        ({"choices": [quiz.Choice(t, "the very same long reason", t == "a") for t in "abc"]}, "the same words"),
        ({"worked": "see above"}, "no worked answer"),
    ],
)
def test_a_bad_quiz_is_refused(changes: dict[str, Any], said: str) -> None:
    assert any(said in one for one in quiz.troubles(broken(**changes)))


def test_a_quiz_whose_answers_stand_in_one_place_is_refused() -> None:
    read = broken()
    same = quiz.Quiz("99", "test", [read.questions[1]] * 10)
    assert any("right answers are B" in one for one in quiz.troubles(same))


def test_a_quiz_is_for_eyes_ears_and_paper() -> None:
    read = quiz.read(QUIZZES[0])
    page = quiz.as_html(read)
    assert page.count("<fieldset") == page.count("<legend>") == page.count("<details>") == 10
    assert page.count("<label") == page.count('type="radio"') == sum(len(one.choices) for one in read.questions)
    assert page.count(" data-right") == 10
    paper = quiz.as_static_html(read)
    assert "<input" not in paper and paper.index("Answers") > paper.index(
        quiz.inline(read.questions[-1].choices[-1].text)
    )


def test_a_quiz_is_shown_in_a_notebook() -> None:
    shown = quiz.show(int(QUIZZES[0])).data
    assert "<fieldset" in shown and "<script>" in shown and "http" not in shown


def test_a_quiz_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(CourseError, match="no quiz for module 98"):
        quiz.read("98")


def test_words_of_a_quiz_become_html() -> None:
    assert quiz.blocks("a `x < 1`\n\n```python\na < b\n```") == (
        '<p>a <code>x &lt; 1</code></p><pre tabindex="0"><code>a &lt; b</code></pre>'
    )
    assert quiz.inline("2 * 3 * 4") == "2 * 3 * 4"


# ------------------------------------------------------------------------------------------- slow: built, and looked at


def built(root: Path, *flags: str) -> tuple[str, float]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "course.book", *flags], cwd=root, capture_output=True, text=True, env=clean_environment()
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    return said, time.perf_counter() - started


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("FLEXNANO", "PYTHONPATH")}


@pytest.fixture(scope="module")
def browser() -> str:
    found = book.find_browser()
    if found is None:
        pytest.skip("no Chromium or Chrome here (FLEXNANO_BROWSER names one)")
    return found


@pytest.fixture(scope="module")
def the_book() -> tuple[str, float]:
    book.packages(ROOT)  # a minute the first time, and not what is measured
    return built(ROOT, "--all")


@pytest.mark.slow
def test_the_book_builds_without_a_warning_in_good_time(the_book: tuple[str, float]) -> None:
    said, seconds = the_book
    assert "WARNING" not in said
    assert seconds < 300
    pages = ROOT / "_build" / "html"
    missing = [name for name in IN_TOC if book.page(name) and not (pages / f"{name}.html").is_file()]
    assert missing == []


@pytest.mark.slow
@pytest.mark.usefixtures("the_book")
def test_first_uses_are_linked_to_the_glossary() -> None:
    page = (ROOT / "_build" / "html" / "book" / "background.html").read_text(encoding="utf-8")
    assert len(re.findall(r'href="glossary\.html#term-KV-cache"', page)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("the_book")
def test_links_between_built_pages_lead_to_something() -> None:
    folder = ROOT / "_build" / "html"
    pages = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.html") if "_static" not in path.parts}
    anchors = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for target in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text):
            if re.match(r"\w+:", target):
                continue
            file, _, anchor = html.unescape(target).partition("#")
            to = (path.parent / unquote(file)).resolve() if file else path
            if not to.exists() or (anchor and to in anchors and unquote(anchor) not in anchors[to]):
                broken.append(f"{path.relative_to(folder)}: {target}")
    assert broken == []


@pytest.mark.slow
@pytest.mark.usefixtures("the_book")
def test_every_page_opens_in_a_browser(browser: str) -> None:
    command = [str(book.packages(ROOT)), str(BOOK / "_tools" / "look.py"), str(ROOT / "_build" / "html"), browser]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    troubles = [f"{one['page']} {one['width']} {one['theme']}: {one['trouble']}" for one in json.loads(done.stdout)]
    assert troubles == []


@pytest.mark.slow
def test_the_pdf_is_printed(browser: str) -> None:
    built(ROOT, "--pdf")
    printed = (ROOT / "_build" / "pdf" / "book.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(printed) > 500_000


@pytest.mark.slow
def test_the_book_of_a_class_release_holds_no_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXNANO_BOOK_PYTHON", str(book.packages(ROOT)))
    folder = tmp_path / "class"
    release.make(folder, ROOT, for_class=True)
    built(folder, "--all")
    lines = release.solution_lines(ROOT)
    pages = [
        path
        for path in (folder / "_build" / "html").rglob("*")
        if path.suffix in (".html", ".js", ".txt", ".md", ".ipynb")
    ]
    assert len(pages) > 60
    for path in pages:
        if "vendor" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        shown = re.sub(r"<[^>]*>", "", text) if path.suffix == ".html" else text
        found = release._lines_in(shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").encode(), lines)
        assert found == [], path.name
