"""Which known mistake explains the answers.  Never a guess: a mistake counts only if it foretells every answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .checks import Answer, Case, Check, Mistake, plain


@dataclass(frozen=True)
class Answered:
    """A case, what is right, what came back, and whether that is right."""

    case: Case
    expected: Answer
    answer: Answer
    right: bool


def diagnose(failed: Check, results: Mapping[str, Sequence[Answered]]) -> Mistake | None:
    """The one mistake that explains the answers to `failed`, the check that is shown.

    Args:
        failed: a check with at least one wrong answer.
        results: what came back, by the name of the check; all checks of the exercise.

    Returns:
        None if no mistake does, or if several do that the answers can't tell apart.
    """
    exercise = failed.exercise
    candidates = [slug for slug in exercise.mistakes if _explains(failed, slug, results[failed.name])]
    if len(candidates) > 1:
        others = [check for check in exercise.checks if check is not failed and check.name in results]
        candidates = [
            slug
            for slug in candidates
            if all(
                _explains(check, slug, results[check.name])
                if slug in check.predictions or slug in check.signs
                else all(answered.right for answered in results[check.name])
                for check in others
            )
        ]
    return exercise.mistakes[candidates[0]] if len(candidates) == 1 else None


def _explains(check: Check, slug: str, results: Sequence[Answered]) -> bool:
    """Whether one way of making the mistake foretells every answer, or every wrong answer shows its sign."""

    def foretold(predict: Callable[[Case], Answer]) -> bool:
        return _all(lambda one: check.is_right(one.case, plain(predict(one.case)), one.answer), results)

    if slug in check.predictions:
        return any(foretold(predict) for predict in check.predictions[slug])
    sign = check.signs.get(slug)
    return sign is not None and _all(lambda one: one.right or sign(one.case, one.expected, one.answer), results)


def _all(holds: Callable[[Answered], bool], results: Sequence[Answered]) -> bool:
    try:
        return all(holds(one) for one in results)
    except Exception:  # foretelling an answer to a shape that nobody thought of: no explanation
        return False
