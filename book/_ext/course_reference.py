"""Reference pages: docstrings of the package, Google style, read without a GPU; sources are links, never part of a page."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from course import settings
from course.exercises import MARK

REFERENCE = re.compile(r"^```\{reference\} (?P<module>\w+)\n```$", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[2]


def _folder() -> Path:
    from course_book import package_folder

    return package_folder()


def public_names(module: str) -> list[str]:
    """What a module offers: its names in `flexnano.__all__`, or all that it defines without an underscore."""
    import flexnano

    listed = flexnano._PUBLIC.get(module, "").split()
    tree = ast.parse((_folder() / f"{module}.py").read_text(encoding="utf-8"))
    defined: list[str] = []
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            defined.append(node.name)
        told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and told:
            defined.append(node.targets[0].id)
    names = [name for name in defined if not name.startswith("_") and (not listed or name in listed)]
    return names


def expand(app: Sphinx, docname: str, source: list[str]) -> None:
    """`{reference} masks` becomes autodoc's directives.  A module that is not written yet gives a sentence."""

    def expanded(match: re.Match[str]) -> str:
        module = match["module"]
        if not (_folder() / f"{module}.py").is_file():
            return f"`flexnano/{module}.py` is not part of this edition yet."
        lines = ["```{eval-rst}", f".. automodule:: flexnano.{module}", "   :no-index:", ""]
        lines += [f".. currentmodule:: flexnano.{module}", ""]
        for name in public_names(module):
            kind = _kind(module, name)
            lines += [f".. auto{kind}:: {name}"]
            if kind == "class":
                lines += ["   :members:"]
            lines += [""]
        return "\n".join([*lines, "```"])

    if "{reference}" in source[0]:
        source[0] = REFERENCE.sub(expanded, source[0])


def _kind(module: str, name: str) -> str:
    import importlib

    value = getattr(importlib.import_module(f"flexnano.{module}"), name)
    if inspect.isclass(value):
        return "exception" if issubclass(value, Exception) else "class"
    return "function" if inspect.isroutine(value) or hasattr(value, "__wrapped__") else "data"


def docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon: the exercise's mark becomes a line of its own, and pictures in text stay as they are drawn."""
    if lines and (mark := MARK.search(lines[0])):
        lines[0] = lines[0][: mark.start()].rstrip()
        said = f"**Exercise {mark['module']}.{mark['index']}** · {mark['stars']} · {mark['minutes']} min"
        lines[1:1] = ["", said, ""]
    lines[:] = literal_blocks(drawn(lines) if what == "module" else lines)
    if what in ("property", "attribute", "data") and lines:
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type


def drawn(lines: list[str]) -> list[str]:
    """Paragraphs of a module's docstring that are columns or code are set in, and so stay as they are drawn."""
    written: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        columns = sum(re.search(r"\S {3,}\S", line) is not None for line in paragraph.splitlines()) >= 2
        code = re.match(r"(with|from|import|for) .*\n", paragraph) is not None
        flat = not any(line.startswith(" ") for line in paragraph.splitlines()) or code
        if flat and (columns or code):
            paragraph = "\n".join(f"    {line}" for line in paragraph.splitlines())
        written += [*paragraph.splitlines(), ""]
    return written


SECTIONS = re.compile(r"^(Args|Returns|Raises|Yields|Fields|Fields that others read|Attributes|Letters|Sources?|Note):")


def literal_blocks(lines: list[str]) -> list[str]:
    """Lines that are set in, outside of the sections of Google style and of lists, are drawn in text: `::` before them."""
    written: list[str] = []
    section = literal = False
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and not depth:
            if literal and written[-1].strip():
                written.append("")
            section, literal = bool(SECTIONS.match(line)) and line.rstrip().endswith(":"), False
            if line.startswith(("- ", ">>> ", "... ")) or re.match(r"\d+\. ", line):
                section = True
        if depth and line.strip() and not section and not literal:
            before = next((one for one in reversed(written) if one.strip()), "")
            if re.match(r"\s*(- |\d+\. )", line):
                section = True
                if written and written[-1].strip():
                    written.append("")
            else:
                literal = True
                if written and written[-1].strip():
                    written.append("")
                written += ["::", ""] if not before.endswith("::") else []
        written.append(line if literal else _plain_stars(line))
    return written


def _plain_stars(line: str) -> str:
    """`**` of a keyword argument, outside of backquotes, begins nothing bold."""
    pieces = re.split(r"(`+[^`]*`+)", line)
    return "".join(piece if i % 2 else re.sub(r"\*\*(?=\w+[^*]*$)", r"\*\*", piece) for i, piece in enumerate(pieces))


def link_of(domain: str, info: dict[str, Any]) -> str | None:
    """Where the code of a name is kept, for sphinx.ext.linkcode."""
    if domain != "py" or not info["module"]:
        return None
    value: Any = sys.modules.get(info["module"])
    for part in info["fullname"].split("."):
        value = getattr(value, part, None)
    value = value.fget if isinstance(value, property) else inspect.unwrap(value) if callable(value) else value
    try:
        path = Path(inspect.getsourcefile(value) or "").resolve()
        first = inspect.getsourcelines(value)[1]
    except (TypeError, OSError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    path = path.relative_to(ROOT)
    if path.parts[0] == "course":  # pristine stubs
        path = Path("flexnano", path.name)
    return f"{settings.source_link(path.as_posix())}#L{first}"


def set_up(_app: Sphinx, config: Any) -> None:
    config.linkcode_resolve = link_of
    config.napoleon_custom_sections = [
        ("Fields", "Attributes"),
        ("Fields that others read", "Attributes"),
        ("Fields that a learner reads", "Attributes"),
        "Letters",
    ]


def setup(app: Sphinx) -> None:
    app.connect("config-inited", set_up, priority=20)
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", docstring, priority=100)
