"""The quizzes: `book/quizzes/NN.yml`, shown in the book and, by `quiz.show(3)`, in a notebook.

title: Page table
questions:
  - ask: What is asked; `code` and *emphasis* as in Markdown, and ``` blocks.
    choices:
      - text: What can be chosen
        why: Why it is wrong
      - text: What is right
        right: true
        why: Why it is right
    worked: The whole way to the answer
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import CourseError
from .environment import ROOT

QUESTIONS = 10
LETTERS = "ABCDE"


@dataclass(frozen=True)
class Choice:
    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    ask: str
    choices: list[Choice]
    worked: str

    @property
    def answer(self) -> str:
        """The letter of the right choice."""
        return next(letter for letter, choice in zip(LETTERS, self.choices, strict=False) if choice.right)


@dataclass(frozen=True)
class Quiz:
    name: str  # "03"
    title: str
    questions: list[Question]


def path_of(name: str, root: Path = ROOT) -> Path:
    return root / "book" / "quizzes" / f"{name}.yml"


def read(name: str, root: Path = ROOT) -> Quiz:
    """The quiz of a module.

    Args:
        name: two digits, "03".

    Raises:
        CourseError: there is none, or it is not as it has to be.
    """
    import yaml

    path = path_of(name, root)
    if not path.is_file():
        raise CourseError(f"There is no quiz for module {name} ({path.name}).")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        quiz = Quiz(name, content["title"], [_question(one) for one in content["questions"]])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(f"{path.name} can't be read: {type(error).__name__}: {error}") from error
    if problems := troubles(quiz):
        raise CourseError(f"{path.name}: " + "; ".join(problems))
    return quiz


def _question(content: dict[str, Any]) -> Question:
    choices = [
        Choice(str(one["text"]).strip(), str(one["why"]).strip(), one.get("right", False)) for one in content["choices"]
    ]
    return Question(content["ask"].strip(), choices, content["worked"].strip())


def troubles(quiz: Quiz) -> list[str]:
    """What is wrong with a quiz, in words."""
    found = []
    if len(quiz.questions) != QUESTIONS:
        found.append(f"{len(quiz.questions)} questions, not {QUESTIONS}")
    for number, question in enumerate(quiz.questions, start=1):
        here = f"question {number}"
        if not 3 <= len(question.choices) <= len(LETTERS):
            found.append(f"{here} has {len(question.choices)} choices, not 3 to {len(LETTERS)}")
        if sum(choice.right is True for choice in question.choices) != 1:
            found.append(f"{here} must have one right choice")
        if len({choice.text for choice in question.choices}) != len(question.choices):
            found.append(f"{here} offers the same choice twice")
        if any(len(choice.why) < 20 for choice in question.choices):
            found.append(f"{here} has a choice that is not explained (`why`)")
        if len({choice.why for choice in question.choices}) != len(question.choices):
            found.append(f"{here} explains two choices with the same words")
        if len(question.worked) < 40:
            found.append(f"{here} has no worked answer")
    if not found:
        letters = Counter(question.answer for question in quiz.questions)
        letter, times = letters.most_common(1)[0]
        if times > QUESTIONS // 2:
            found.append(f"{times} of the right answers are {letter}")
    return found


# ------------------------------------------------------------------------------------------------------ words to HTML


def inline(text: str) -> str:
    """`code`, **strong** and *emphasis* as HTML; everything else as it is.

    >>> inline("`a < b` is *not* **b > a**")
    '<code>a &lt; b</code> is <em>not</em> <strong>b &gt; a</strong>'
    """
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    written = []
    for piece in pieces:
        if piece.startswith("`") and len(piece) > 2:
            written.append(f"<code>{html.escape(piece[1:-1], quote=False)}</code>")
        else:
            piece = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html.escape(piece, quote=False))
            written.append(re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<em>\1</em>", piece))
    return "".join(written)


def blocks(text: str) -> str:
    """Paragraphs and ``` blocks as HTML."""
    written = []
    for index, part in enumerate(re.split(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)):
        if index % 2:
            written.append(f'<pre tabindex="0"><code>{html.escape(part.rstrip(), quote=False)}</code></pre>')
        else:
            written += [f"<p>{inline(one)}</p>" for one in re.split(r"\n\s*\n", part) if one.strip()]
    return "".join(written)


def as_html(quiz: Quiz) -> str:
    """To be answered on the page.  Without JavaScript the questions can be read and the answers unfolded."""
    written = [f'<section class="quiz" id="quiz-{quiz.name}" aria-label="Quiz: {html.escape(quiz.title)}">']
    for number, question in enumerate(quiz.questions, start=1):
        name = f"quiz-{quiz.name}-{number}"
        written.append(
            f'<fieldset class="quiz-question" id="{name}"><legend>Question {number} of {len(quiz.questions)}</legend>'
        )
        written.append(f'<div class="quiz-ask">{blocks(question.ask)}</div>')
        for letter, choice in zip(LETTERS, question.choices, strict=False):
            written.append(
                f'<label class="quiz-choice"><input type="radio" name="{name}" value="{letter}"> '
                f"<span><b>{letter}</b> {inline(choice.text)}</span></label>"
            )
        written.append('<p class="quiz-said" role="status"></p>')
        written.append(f"<details><summary>Answer to question {number}, worked</summary>{answered(question)}</details>")
        written.append("</fieldset>")
    written.append('<p class="quiz-score" role="status"></p></section>')
    return "".join(written)


def as_static_html(quiz: Quiz) -> str:
    """To be printed: the questions, and all answers after them."""
    written = ['<section class="quiz quiz-static"><ol class="quiz-questions">']
    for question in quiz.questions:
        choices = "".join(f"<li>{inline(choice.text)}</li>" for choice in question.choices)
        written.append(f'<li>{blocks(question.ask)}<ol type="A">{choices}</ol></li>')
    written.append('</ol><p class="quiz-answers-title"><strong>Answers</strong></p><ol class="quiz-questions">')
    written += [f"<li>{answered(question)}</li>" for question in quiz.questions]
    return "".join([*written, "</ol></section>"])


def answered(question: Question) -> str:
    """The worked answer, and why each of the others is wrong."""
    whys = "".join(
        f'<li data-choice="{letter}"{" data-right" if choice.right else ""}>'
        f"<b>{letter}</b> {'is right' if choice.right else 'is wrong'}: <span>{inline(choice.why)}</span></li>"
        for letter, choice in zip(LETTERS, question.choices, strict=False)
    )
    return f'<div class="quiz-worked">{blocks(question.worked)}<ul class="quiz-whys">{whys}</ul></div>'


def show(module: int, root: Path = ROOT) -> Any:
    """The quiz as the output of a notebook's cell: `from course import quiz`, then `quiz.show(3)`.

    Raises:
        CourseError: there is no quiz for this module.
    """
    from IPython.display import HTML

    static = root / "book" / "_static"
    style = (static / "quiz.css").read_text(encoding="utf-8")
    script = (static / "quiz.js").read_text(encoding="utf-8")
    return HTML(f"<style>{style}</style>{as_html(read(f'{module:02d}', root))}<script>{script}</script>")
