"""Tables made from the course's own files: results, the syllabus, exercises, commands.  No number is typed by hand."""

from __future__ import annotations

import argparse
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from course import notebooks
from course.book import look_up
from course.exercises import Exercise
from course.grading import merge
from course.status import TITLES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT / "book" / "data"
log = logging.getLogger(__name__)

ENGINES = {
    "flexnano": "flexnano (this engine)",
    "one_by_one": "`generate`, one by one",
    "static": "`generate`, static batches",
    "continuous": "transformers' continuous batching",
    "vllm": "vLLM",
}


def exercises() -> list[Exercise]:
    return merge.course_exercises(ROOT)


def result(
    _name: str, rawtext: str, text: str, line: int, _inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    try:
        return [nodes.inline(rawtext, look_up(text))], []
    except (KeyError, IndexError, ValueError, TypeError) as error:
        log.warning("{result}`%s`: %s", text, error, location=line)
        return [nodes.Text("?")], []


class Made(SphinxDirective):
    """A directive whose content is made, as Markdown."""

    optional_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        parsed = nodes.Element()
        lines = self.markdown(*self.arguments).splitlines()
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, parsed)
        return parsed.children

    def markdown(self, argument: str = "") -> str:
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------------ results


class Results(Made):
    """Every throughput in benchmarks/results, one below the other."""

    def markdown(self, argument: str = "") -> str:
        parts = []
        for path in sorted(RESULTS.glob("throughput-*.json")):
            self.env.note_dependency(str(path))
            parts.append(throughput(path))
        return "\n".join(parts) or "Nothing has been measured yet."


class ResultFiles(Made):
    """Every other file of benchmarks/results, and what it says of itself."""

    def markdown(self, argument: str = "") -> str:
        others = [path for path in sorted(RESULTS.glob("*.json")) if not path.name.startswith("throughput-")]
        return "\n".join(f"- {{src}}`{path.relative_to(ROOT).as_posix()}`: {_what(path)}" for path in others)


def _what(path: Path) -> str:
    read = json.loads(path.read_text(encoding="utf-8"))
    return read.get("what", "") if isinstance(read, dict) else ""


def throughput(path: Path) -> str:
    """One file of benchmarks/throughput.py in words, bars and a table."""
    read = json.loads(path.read_text(encoding="utf-8"))
    machine, workload, versions = read["machine"], read["workload"], read["versions"]
    ran = {name: one for name, one in read["engines"].items() if "error" not in one}
    fastest = max(one["output_tokens_per_second"]["max"] for one in ran.values())
    order = sorted(ran, key=lambda name: -ran[name]["output_tokens_per_second"]["median"])
    cores = f", {machine['cores']} cores" if "cores" in machine and "gpu" not in machine else ""
    lines = [
        f"**{machine['name']}**{cores}, {read['date'][:10]}. Model {read['model']}, {workload['requests']} requests at once: "
        f"{workload['prompt_tokens']:,} tokens in, {workload['output_tokens']:,} out; at most {read['max_batch_size']} in a "
        f"batch. torch {versions['torch']}, transformers {versions['transformers']}.",
        "",
        "```{raw} html",
        '<div class="bars-frame"><table class="bars table">',
        "<caption>Output tokens a second: median, and smallest to largest run</caption>",
        '<thead><tr><th scope="col">Engine</th><th scope="col">Tokens/s</th><th scope="col">Runs</th>'
        '<th scope="col">First token after</th></tr></thead><tbody>',
    ]
    for name in order:
        one, rate = ran[name], ran[name]["output_tokens_per_second"]
        label = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(ENGINES.get(name, name), quote=False))
        setting = one.get("setting", {})
        how = ", ".join(
            str(part)
            for part in (setting.get("dtype"), f"{setting['threads']} threads" if setting.get("threads") else None)
            if part
        )
        lines.append(
            f'<tr><th scope="row">{label}<br><small>{how}</small></th>'
            f'<td><span class="bar{" bar-own" if name == "flexnano" else ""}" '
            f'style="--share:{rate["median"] / fastest:.3f}"></span>{rate["median"]:.1f}</td>'
            f"<td>{rate['min']:.1f} to {rate['max']:.1f}</td><td>{one['first_token_seconds']['median']:.1f} s</td></tr>"
        )
    lines += ["</tbody></table></div>", "```", ""]
    if read.get("ratios"):
        lines += ["| this engine against | ratio, median of the rounds | smallest to largest |", "|---|---|---|"]
        for pair, ratio in read["ratios"].items():
            other = ENGINES.get(pair.split(" / ")[1], pair)
            lines.append(f"| {other} | {ratio['median']:.2f} | {ratio['min']:.2f} to {ratio['max']:.2f} |")
    if tokens := read.get("tokens"):
        wrong = sum(one["rows_with_a_wrong_token"] for one in tokens["engines"].values())
        lines += [
            "",
            f"Checked for the right tokens: {tokens['rows']} answers of each engine in {tokens['dtype']}, "
            f"{wrong or 'none'} with a wrong token.",
        ]
    lines += [
        "",
        f"All numbers: {{src}}`{path.relative_to(ROOT).as_posix()}`; made by `{read['command'].strip()}`.",
        "",
    ]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- syllabus and exercises


class Syllabus(Made):
    """Modules, what is written in them, and how long their exercises take."""

    def markdown(self, argument: str = "") -> str:
        lines = ["| module | you write in | exercises | minutes |", "|---|---|---|---|"]
        found = exercises()
        for module in notebooks.FILES:
            own = [one for one in found if one.module == module]
            files = ", ".join(f"`{name}`" for name in dict.fromkeys(one.file for one in own)) or "–"
            minutes = str(sum(one.minutes for one in own)) if own else "–"
            lines.append(f"| {chapter(module)} | {files} | {len(own) or '–'} | {minutes} |")
        total = sum(one.minutes for one in found)
        lines.append(f"| **all** | | {len(found)} | {total} |")
        return "\n".join(lines)


def chapter(module: int) -> str:
    """A module as a link to its chapter, where it is in the book."""
    title = f"{module:02d} {TITLES[module]}"
    name = notebooks.FILES[module]
    return f"[{title}](/notebooks/{name}.ipynb)" if (ROOT / "notebooks" / f"{name}.ipynb").is_file() else title


class Exercises(Made):
    """The exercises of a module."""

    def markdown(self, argument: str = "") -> str:
        lines = ["| exercise | what | difficulty | minutes |", "|---|---|---|---|"]
        lines += [
            f"| {one.number} | `{one.name}` | {'★' * one.stars}{'☆' * (3 - one.stars)} | {one.minutes} |"
            for one in exercises()
            if argument in ("", str(one.module))
        ]
        return "\n".join(lines)


def minutes(
    _name: str, rawtext: str, text: str, line: int, _inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """`{minutes}`1-3``: how long the exercises of some modules take."""
    first, _, last = text.partition("-")
    modules = range(int(first), int(last or first) + 1)
    return [nodes.Text(str(sum(one.minutes for one in exercises() if one.module in modules)))], []


# ------------------------------------------------------------------------------------------------------------ commands


class Commands(Made):
    """The commands of `python -m course`, as they describe themselves."""

    def markdown(self, argument: str = "") -> str:
        from course import commands

        found = next(action for action in commands._parser()._actions if isinstance(action, argparse._SubParsersAction))
        lines = []
        for name, sub in found.choices.items():
            arguments = " ".join(_named(action) for action in sub._actions if not action.option_strings)
            said = (sub.description or "").strip()
            lines += [
                f"`python -m course {' '.join([name, arguments]).strip()}`",
                f": {said[:1].upper()}{said[1:]}.",
                "",
            ]
            options = [
                action for action in sub._actions if action.option_strings and "--help" not in action.option_strings
            ]
            lines += [f"  - `{_named(action)}`: {action.help}" for action in options if action.help]
            lines += [""]
        return "\n".join(lines)


def _named(action: argparse.Action) -> str:
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if not action.option_strings:
        return f"[{value}]" if action.nargs in ("?", "*") else str(value)
    name = action.option_strings[-1]
    return name if action.nargs == 0 else f"{name} {value}"


# --------------------------------------------------------------------------------------------------------------- cards


class Roofline(Made):
    """What a decode step costs on the cards of book/data/cards.yml."""

    def markdown(self, argument: str = "") -> str:
        self.env.note_dependency(str(DATA / "cards.yml"))
        cards = yaml.safe_load((DATA / "cards.yml").read_text(encoding="utf-8"))["cards"]
        lines = ["| card | memory | reads | computes in 16 bits | operations a byte read |", "|---|---|---|---|---|"]
        lines += [
            f"| [{one['name']}]({one['source']}) | {one['memory_gb']} GB | {one['gb_per_second']:,} GB/s | "
            f"{one['tflops']:,} TFLOP/s | {intensity(one):.0f} |"
            for one in cards
        ]
        return "\n".join(lines)


def intensity(card: dict[str, Any]) -> float:
    """Operations that a card can do in the time that it takes to read a byte."""
    return card["tflops"] * 1000 / card["gb_per_second"]


def no_role_is_left_as_text(_app: Sphinx, document: nodes.document) -> None:
    """A `|` in the cell of a table ends the cell, also inside a role: what is left of it would be shown as it stands."""
    for text in document.findall(nodes.Text):
        if not isinstance(text.parent, nodes.literal | nodes.literal_block) and (
            left := re.search(r"\{(result|src|minutes|doc|ref|term)\}`\S*", text)
        ):
            log.warning("%s was not understood; in a table a | is written \\|", left[0], location=text.parent)


def setup(app: Sphinx) -> None:
    directives: Iterable[tuple[str, type[Made]]] = (
        ("results", Results),
        ("result-files", ResultFiles),
        ("syllabus", Syllabus),
        ("exercises", Exercises),
        ("commands", Commands),
        ("cards", Roofline),
    )
    for name, directive in directives:
        app.add_directive(name, directive)
    app.add_role("result", result)
    app.add_role("minutes", minutes)
    app.connect("doctree-read", no_role_is_left_as_text)
