"""What the book needs on top of Jupyter Book: facts come from the course's own files, and pages need no network.

{src}`path`               a file of the course, as a link to where its code is kept
{exercise}`3.2`           an exercise, as a link to its chapter
{result}`file:a.b|.1f`    a number out of benchmarks/results/ or course/recorded/
```{results}```           all measured throughputs, with bars
```{syllabus}```          modules, files, exercises and minutes
```{exercises}``` 3       the exercises of a module, or of all
```{commands}```          the commands of `python -m course`, from their own help
```{picture} name.svg```  an SVG of book/images, drawn into the page so that it follows the theme
```{quiz} 03```           book/quizzes/03.yml
```{reference} masks```   what a module of the package offers, from its docstrings
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "_ext")]


def package_folder(root: Path = ROOT) -> Path:
    """Where docstrings are read: the reference, or the stubs as they were handed out, never what a learner has written."""
    for folder in ("solutions/flexnano", "course/pristine"):
        if (root / folder / "__init__.py").is_file():
            return root / folder
    return root / "flexnano"


os.environ["FLEXNANO"] = str(package_folder())  # before anything imports flexnano
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import course_glossary  # noqa: E402
import course_pictures  # noqa: E402
import course_quiz  # noqa: E402
import course_reference  # noqa: E402
import course_tables  # noqa: E402
from docutils import nodes  # noqa: E402
from docutils.parsers.rst.states import Inliner  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.transforms import SphinxTransform  # noqa: E402
from sphinx.util import logging  # noqa: E402

from course import settings  # noqa: E402

log = logging.getLogger(__name__)


def src(
    _name: str, rawtext: str, text: str, line: int, _inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """A path in the course.  In a class release the reference is not there: its files are named as the learner's."""
    path, label = text, text
    if path.endswith("/"):
        path = path.rstrip("/")
    if not (ROOT / path).exists() and path.startswith("solutions/"):
        path = path.removeprefix("solutions/")
        label = label.removeprefix("solutions/")
    literal = nodes.literal(rawtext, label)
    if not (ROOT / path).exists():
        if (ROOT / "solutions").is_dir():
            log.warning("{src}`%s`: there is no such file", text, location=line)
        return [literal], []
    return [nodes.reference(rawtext, "", literal, refuri=settings.source_link(path))], []


def exercise(
    _name: str, rawtext: str, text: str, line: int, _inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    found = {one.number: one for one in course_tables.exercises()}.get(text)
    if found is None:
        log.warning("{exercise}`%s`: there is no such exercise", text, location=line)
        return [nodes.Text(text)], []
    return [nodes.Text(f"{text} "), nodes.literal(rawtext, found.name)], []


def set_up_theme(_app: Sphinx, config: Any) -> None:
    """The repository's address is one setting of the course."""
    options = config.html_theme_options
    options["repository_url"] = settings.REPOSITORY
    options["use_repository_button"] = True
    options["repository_branch"] = settings.BRANCH
    options["path_to_docs"] = ""
    config.html_context.setdefault("default_mode", "auto")
    options["launch_buttons"] = {"colab_url": "https://colab.research.google.com", "notebook_interface": "jupyterlab"}


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What the theme leaves to be done: nothing comes from another host, and what one can press has a name."""
    context["script_files"] = [one for one in context.get("script_files", []) if not _is_foreign(one)]
    if "body" in context:
        # docutils calls this a list of things that are none for those who have it read aloud.
        context["body"] = context["body"].replace('role="list" class="citation-list"', 'class="citation-list"')
        # A label that says something else than what stands there: "Show code cell source".
        context["body"] = context["body"].replace(' aria-label="Toggle hidden content"', "")
    if (tree := context.get("generate_toctree_html")) is not None:

        def named(*arguments: Any, **options: Any) -> Any:
            made = tree(*arguments, **options)
            for summary in made.find_all("summary") if hasattr(made, "find_all") else ():
                summary["aria-label"] = "Pages below this one"
            return (
                made.replace("<summary>", '<summary aria-label="Pages below this one">')
                if isinstance(made, str)
                else made
            )

        context["generate_toctree_html"] = named


def _is_foreign(script: Any) -> bool:
    """Thebe asks unpkg.com; the book runs no code."""
    text = f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {})}"
    return "thebe" in text.lower() or "://" in str(getattr(script, "filename", script) or "")


class ShellLines(SphinxTransform):
    """Cells of notebooks with `!` and `%` lines are not plain Python."""

    default_priority = 700

    def apply(self, **_: Any) -> None:
        if not self.env.docname.startswith("notebooks/"):
            return
        for node in self.document.findall(nodes.literal_block):
            lines = node.astext().splitlines()
            if any(re.match(r"\s*(!|%(?!%))", line) for line in lines):
                node["language"] = "ipython3"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", set_up_theme, priority=10)
    app.connect("html-page-context", mend_page, priority=900)
    app.add_transform(ShellLines)
    app.add_role("src", src)
    app.add_role("exercise", exercise)
    for part in (course_glossary, course_pictures, course_quiz, course_reference, course_tables):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
