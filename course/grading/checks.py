"""What graders are written with.  A module has two files:

tests/module_03/drive.py   runs in the process with the learner's code: `def growth(case): ...` gives back plain data
tests/module_03/judge.py   says what is right, draws it, and knows what each common mistake would have given:

    reserve = Exercise("3.2", section="Growing a sequence", hints=("Asks.", "Says where.", "Says the step."))
    reserve.mistake("from-zero", "Asks.", "Says where.", "Says the step.")

    @reserve.check(cases=tables, describe=say_case, draw=draw_table)
    def growth(case): return what is right

    @growth.predicts("from-zero")
    def _(case): return what a learner with that mistake gets

Cases and answers are plain data (dict, list, str, numbers, bool, None) and travel as JSON; tuples become lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Case = Any
Answer = Any


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make.  `hints`: the question not asked; where to look; the step in words.  Never the code."""

    slug: str
    hints: tuple[str, str, str]


class Exercise:
    """The grader of one exercise.

    Args:
        number: as in the docstring, "3.2".
        section: heading in the notebook that teaches it.
        hints: three levels for a mistake that nobody knows: they must be true whatever the mistake is.
        preload: modules that the drive needs and that take long to import, such as "transformers".
    """

    registry: dict[str, Exercise] = {}  # noqa: RUF012  the one registry of graders, filled by importing judge files

    def __init__(self, number: str, section: str, hints: tuple[str, str, str], preload: tuple[str, ...] = ()) -> None:
        self.number, self.section, self.hints, self.preload = number, section, hints, preload
        self.checks: list[Check] = []
        self.mistakes: dict[str, Mistake] = {}
        Exercise.registry[number] = self

    def mistake(self, slug: str, *hints: str) -> None:
        """Make a mistake known; `check.predicts` or `check.shows` says how it is recognised."""
        if len(hints) != 3:
            raise ValueError(f"{self.number} {slug}: {len(hints)} hints; give three: asks, says where, says the step")
        if slug in self.mistakes:
            raise ValueError(f"{self.number} {slug} is there twice")
        self.mistakes[slug] = Mistake(slug, (hints[0], hints[1], hints[2]))

    def check(
        self,
        cases: Callable[[], Iterable[Case]] | Iterable[Case],
        describe: Callable[[Case], str],
        draw: Callable[[Case, Answer], str] | None = None,
        same: Callable[[Case, Answer, Answer], bool] | None = None,
        search: Any = None,
    ) -> Callable[[Callable[[Case], Answer]], Check]:
        """Decorator of the function that says what is right; the drive has a function of the same name.

        Args:
            cases: from the smallest to the largest, since the first that fails is shown.  Enough of them, and different
                enough, that no two mistakes give the same answers.
            describe: the case in a line or two, with numbers that fit in a head.
            draw: an answer (right or wrong) as a picture in text; None: as Python writes it.
            same: (case, expected, answer) -> whether the answer is right; None: equal, floats to 1e-5.
            search: a Hypothesis strategy for further cases, tried and shrunk only if all `cases` are right.
        """

        def decorate(expected: Callable[[Case], Answer]) -> Check:
            check = Check(expected.__name__, self, cases, expected, describe, draw or draw_plain, same or equal, search)
            self.checks.append(check)
            return check

        return decorate


@dataclass
class Check:
    """One question, put to an exercise with many cases."""

    name: str
    exercise: Exercise
    cases: Callable[[], Iterable[Case]] | Iterable[Case]
    expected: Callable[[Case], Answer]
    describe: Callable[[Case], str]
    draw: Callable[[Case, Answer], str]
    same: Callable[[Case, Answer, Answer], bool]
    search: Any = None
    predictions: dict[str, list[Callable[[Case], Answer]]] = field(default_factory=dict)
    signs: dict[str, Callable[[Case, Answer, Answer], bool]] = field(default_factory=dict)

    def all_cases(self) -> list[Case]:
        """The cases as the other process sees them."""
        return [plain(case) for case in (self.cases() if callable(self.cases) else self.cases)]

    def is_right(self, case: Case, expected: Answer, answer: Answer) -> bool:
        """Whether an answer is the expected (or the predicted) one."""
        if isinstance(expected, dict) and "raises" in expected:
            says = expected.get("says", "")
            return (
                is_raised(answer)
                and any(name in answer["raised"] for name in expected["raises"])
                and says in answer.get("message", "")
            )
        if is_raised(answer):
            return False
        try:
            return bool(self.same(case, expected, answer))
        except Exception:  # an answer of a shape that nobody thought of is not right
            return False

    def predicts(self, slug: str) -> Callable[[Callable[[Case], Answer]], Callable[[Case], Answer]]:
        """Decorator: what one gets with that mistake, for every case of this check.

        The mistake is diagnosed if that is what came back, for every case.  Used again with the same slug: the same mistake
        written in another way; one of them must foretell every answer.
        """
        self._must_be_known(slug, self.signs)

        def decorate(function: Callable[[Case], Answer]) -> Callable[[Case], Answer]:
            self.predictions.setdefault(slug, []).append(function)
            return function

        return decorate

    def shows(
        self, slug: str
    ) -> Callable[[Callable[[Case, Answer, Answer], bool]], Callable[[Case, Answer, Answer], bool]]:
        """Decorator: whether a wrong answer (case, expected, answer) is a sign of that mistake.

        For mistakes whose answers can't be predicted to the number.  The mistake is diagnosed if every wrong answer is one.
        """
        self._must_be_known(slug, {**self.predictions, **self.signs})

        def decorate(function: Callable[[Case, Answer, Answer], bool]) -> Callable[[Case, Answer, Answer], bool]:
            self.signs[slug] = function
            return function

        return decorate

    def _must_be_known(self, slug: str, foretold: dict[str, Any]) -> None:
        if slug not in self.exercise.mistakes:
            raise ValueError(f"{self.exercise.number}: mistake {slug!r} has no hints; call exercise.mistake first")
        if slug in foretold:
            raise ValueError(f"{self.exercise.number}, {self.name}: mistake {slug!r} is foretold twice")


# ------------------------------------------------------------------------------------------------------ answers


def raises(*names: str, says: str = "") -> Answer:
    """The answer "an exception of one of these classes", as an expected or predicted one.

    Args:
        says: a part of its message, to tell apart what mistakes lead to.  Never of an expected one: messages are not graded.
    """
    return {"raises": list(names), "says": says} if says else {"raises": list(names)}


def is_raised(answer: Answer) -> bool:
    """Whether an answer says that the learner's code raised something."""
    return isinstance(answer, dict) and "raised" in answer


def close(tolerance: float) -> Callable[[Case, Answer, Answer], bool]:
    """A `same` for numbers: floats equal up to `tolerance`, absolute or relative; NaN equals NaN."""

    def same(case: Case, expected: Answer, answer: Answer) -> bool:
        if isinstance(expected, bool) or isinstance(answer, bool):
            return expected is answer
        if isinstance(expected, int | float) and isinstance(answer, int | float):
            if math.isnan(expected) or math.isnan(answer):
                return math.isnan(expected) and math.isnan(answer)
            return expected == answer or math.isclose(expected, answer, rel_tol=tolerance, abs_tol=tolerance)
        if isinstance(expected, list) and isinstance(answer, list):
            return len(expected) == len(answer) and all(same(case, e, a) for e, a in zip(expected, answer, strict=True))
        if isinstance(expected, dict) and isinstance(answer, dict):
            return expected.keys() == answer.keys() and all(same(case, expected[k], answer[k]) for k in expected)
        return type(expected) is type(answer) and expected == answer

    return same


equal = close(1e-5)
"""Equal, floats to 1e-5."""


def plain(value: Any) -> Any:
    """As it is after a journey as JSON.  Tensors become lists."""
    return json.loads(json.dumps(value, default=_plain_tensor))


def _plain_tensor(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} can't be sent as JSON: give back plain data")


def draw_plain(_case: Case, answer: Answer) -> str:
    """As Python writes it, or which exception it is."""
    if is_raised(answer):
        message = f": {answer['message']}" if answer.get("message") else ""
        return f"raises {answer['raised'][0]}{message}"
    if isinstance(answer, dict) and "raises" in answer:
        return "raises " + " or ".join(answer["raises"])
    return str(answer)
