"""SVG drawn into the page, so that its colours follow the theme and its words are found and read aloud."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

IMAGES = Path(__file__).resolve().parents[1] / "images"


def inlined(name: str, alt: str, text: str) -> str:
    """An SVG file as part of a page: its ids and rules touch nothing else there.

    A picture is drawn with variables (`--ink` and others) set by a rule `svg{…}`, and for dark pages in
    `@media (prefers-color-scheme:dark){svg{…}}`; in the book the reader chooses the theme, not the system.
    """
    stem = re.sub(r"\W", "-", Path(name).stem)
    text = re.sub(r"<\?xml.*?\?>|<!--.*?-->", "", text, flags=re.DOTALL).strip()
    text = re.sub(r"<title\b.*?</title>|<desc\b.*?</desc>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{stem}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{stem}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{stem}-\1"', text)
    text = re.sub(
        r"<style>(.*?)</style>", lambda match: f"<style>{scoped(match[1], stem)}</style>", text, flags=re.DOTALL
    )
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:id|role|aria-\w+|width|height|style)="[^"]*"', "", head)
    return f'{head} id="picture-{stem}" role="img" aria-label="{_attribute(alt)}">{rest}'


def scoped(rules: str, stem: str) -> str:
    """Rules of a stylesheet for one picture only."""
    own = f"#picture-{stem}"
    dark = re.search(r"@media\s*\(prefers-color-scheme:\s*dark\)\s*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", rules)
    light = rules.replace(dark[0], "") if dark else rules
    return _prefixed(light, own) + (_prefixed(dark[1], f'html[data-theme="dark"] {own}') if dark else "")


def _prefixed(rules: str, own: str) -> str:
    written = []
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", rules):
        each = [selector.strip() for selector in selectors.split(",")]
        named = [own if selector == "svg" else f"{own} {selector.removeprefix('svg ')}" for selector in each]
        written.append(f"{','.join(named)}{{{body}}}")
    return "".join(written)


def _attribute(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


class Picture(SphinxDirective):
    """`{picture} engine.svg` with :alt:, and text below as caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "alt": directives.unchanged_required,
        "narrowest": directives.nonnegative_int,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        path = IMAGES / self.arguments[0]
        alt = self.options.get("alt", "")
        if not path.is_file() or not alt:
            raise self.error(f"{{picture}} {path.name}: " + ("it has no :alt:" if path.is_file() else "no such file"))
        self.env.note_dependency(str(path))
        svg = inlined(path.name, alt, path.read_text(encoding="utf-8"))
        # Where the page is narrower than the picture can be read, it scrolls in its own frame, by keyboard as well.
        narrowest = self.options.get("narrowest", 0)
        size = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', svg)
        widest = f"--widest:{float(size[1]):.0f}px" if size else ""
        scrolls = ' tabindex="0" role="group" aria-label="Picture, scrolls sideways"' if narrowest else ""
        frame = f'<div class="picture" style="--narrowest:{narrowest}px;{widest}"{scrolls}>'
        figure = nodes.figure("", nodes.raw("", f"{frame}{svg}</div>", format="html"), classes=["drawn"])
        if self.content:
            caption = nodes.caption()
            parsed: Any = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, parsed)
            if parsed.children:
                caption += parsed[0].children
            figure += caption
        return [figure]


def setup(app: Sphinx) -> None:
    app.add_directive("picture", Picture)
