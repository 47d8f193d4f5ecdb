"""The first time that a page uses a word of the glossary, the word links there."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from course.book import glossary_terms

GLOSSARY = "book/glossary"
FILE = Path(__file__).resolve().parents[1] / "glossary.md"
LEFT_ALONE = (
    *(nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.term, nodes.raw, nodes.math),
    *(nodes.math_block, nodes.caption, nodes.comment, addnodes.pending_xref, addnodes.desc_signature, addnodes.toctree),
    *(nodes.rubric, nodes.thead),
)
NOT_MEANT = re.compile(
    r"\b(this|web|welcome|reference|step by|next|each|first) $", re.IGNORECASE
)  # this page of the book
NOT_OF_ENGINES = ("book/teacher/ai", "book/teacher/class", "book/teacher/index", "book/teacher/rubric")
NO_LINKS_IN = ("book/glossary", "book/bibliography", "book/reference/", "book/commands", *NOT_OF_ENGINES)


@functools.cache
def pattern() -> re.Pattern[str]:
    """Any of the words, the longest first, alone or in the plural."""
    longest_first = sorted(glossary_terms(), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(s?)(?![\w-])", re.IGNORECASE)


class FirstUse(SphinxTransform):
    default_priority = 600

    def apply(self, **_: Any) -> None:
        name = self.env.docname
        if name.startswith(NO_LINKS_IN) or name == GLOSSARY or not FILE.is_file():
            return
        self.env.note_dependency(str(FILE))
        canonical = {term.lower(): term for term in glossary_terms()}
        seen = {
            node["reftarget"].lower()
            for node in self.document.findall(addnodes.pending_xref)
            if node.get("reftype") == "term"
        }
        for text in list(self.document.findall(nodes.Text)):
            if not self.is_prose(text):
                continue
            pieces = list(self.linked(text.astext(), canonical, seen, name))
            if len(pieces) > 1 or not isinstance(pieces[0], nodes.Text):
                text.parent.replace(text, pieces)

    @staticmethod
    def is_prose(text: nodes.Node) -> bool:
        node, in_paragraph = text.parent, False
        while node is not None:
            if isinstance(node, LEFT_ALONE) or "no-terms" in (
                node.get("classes", []) if isinstance(node, nodes.Element) else []
            ):
                return False
            in_paragraph = in_paragraph or isinstance(node, nodes.paragraph)
            node = node.parent
        return in_paragraph

    @staticmethod
    def linked(text: str, canonical: dict[str, str], seen: set[str], page: str) -> Iterator[nodes.Node]:
        at = 0
        for match in pattern().finditer(text):
            term = match[1].lower()
            if term in seen or NOT_MEANT.search(text[: match.start()]):
                continue
            seen.add(term)
            if match.start() > at:
                yield nodes.Text(text[at : match.start()])
            label = nodes.inline("", match[0], classes=["xref", "std", "std-term"])
            yield addnodes.pending_xref(
                "",
                label,
                refdomain="std",
                reftype="term",
                reftarget=canonical[term],
                refexplicit=True,
                refwarn=True,
                refdoc=page,
            )
            at = match.end()
        if at < len(text) or at == 0:
            yield nodes.Text(text[at:])


def setup(app: Sphinx) -> None:
    app.add_transform(FirstUse)
