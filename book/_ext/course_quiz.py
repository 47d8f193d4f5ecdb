"""`{quiz} 03`: a quiz of book/quizzes, to be answered on the page; on paper the answers stand after the questions."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from course import quiz
from course.console import CourseError


class QuizDirective(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        self.env.note_dependency(str(quiz.path_of(name)))
        try:
            content = quiz.as_html(quiz.read(name))
        except CourseError as error:
            raise self.error(str(error)) from error
        return [nodes.raw("", content, format="html", quiz=name)]


class OnPaper(SphinxPostTransform):
    default_priority = 100
    builders = ("singlehtml",)

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if node.get("quiz"):
                written = quiz.as_static_html(quiz.read(node["quiz"]))
                node.replace_self(nodes.raw("", written, format="html"))


def setup(app: Sphinx) -> None:
    app.add_directive("quiz", QuizDirective)
    app.add_post_transform(OnPaper)
