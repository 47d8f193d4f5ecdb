"""What is right in module 06: sampling, and the engine.

Filters and distributions are worked out by brute force in plain Python.  Logits and tokens come from transformers itself: a
plain forward pass of a model with the same weights, with its own eager attention, without a cache.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from course.grading.checks import Answer, Case, Check, Exercise, is_raised, raises

INF = math.inf
MODELS = ("transformers.models.llama.modeling_llama", "transformers.models.gemma2.modeling_gemma2")
"""What drives need of transformers; imported once for all."""
ANY = "?"
"""In a foretold answer: whatever stands there."""

# ------------------------------------------------------------------------------------------- small helpers


def foretell(check: Check, slug: str, *ways: Callable[[Case], Answer]) -> None:
    """A known mistake, written in one of several ways: what each of them gives."""
    for way in ways:
        check.predicts(slug)(way)


def crashed(answer: Answer, *names: str) -> bool:
    """Whether the learner's code raised an error (one of `names`), rather than giving back something of no use."""
    return (
        is_raised(answer)
        and "NotUsable" not in answer["raised"]
        and (not names or not set(names).isdisjoint(answer["raised"]))
    )


def shares_of(logits: Sequence[float]) -> list[float]:
    """Probabilities of a row of logits."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def logs(*weights: float, shift: float = 0.0) -> list[float]:
    """A row of logits with these weights; 0 stands for a dropped token."""
    total = sum(weights)
    return [math.log(weight / total) + shift if weight else -INF for weight in weights]


def number(value: float) -> str:
    """As short as it can be told apart."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    return "0" if share == 0 else "≈0" if share < 0.0005 else f"{100 * share:.3g}%"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Columns under each other."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) for row in cells)


# ------------------------------------------------------------------------------------------- 6.1 to 6.3, filters
#
# A case is {"logits": rows, "by": one number a row}; an answer is the rows, -inf where a token is dropped.

Keep = Callable[[list[float], float], list[bool]]
"""(a row of logits, its k or p) -> which places are kept."""


def filtered(case: Case, keep: Keep) -> list[list[float]]:
    """What a rule gives."""
    rows = []
    for logits, by in zip(case["logits"], case["by"], strict=True):
        rows.append([logit if kept else -INF for logit, kept in zip(logits, keep(logits, by), strict=True)])
    return rows


def same_rows(case: Case, expected: Answer, answer: Answer) -> bool:
    """The same tokens are kept, where those with equal logits may stand for each other."""
    return len(expected) == len(answer) and all(
        same_row(*rows) for rows in zip(case["logits"], expected, answer, strict=True)
    )


def same_row(logits: list[float], expected: list[float], answer: list[float]) -> bool:
    untouched = all(
        got == -INF or math.isclose(got, was, abs_tol=1e-4) for got, was in zip(answer, logits, strict=True)
    )
    return untouched and all(
        (a == b) or math.isclose(a, b, abs_tol=1e-4) for a, b in zip(sorted(expected), sorted(answer), strict=True)
    )


def wrong_rows(case: Case, expected: Answer, answer: Answer) -> list[int]:
    """Which rows of an answer are wrong.  Raises where the answer has no rows."""
    return [i for i, rows in enumerate(zip(case["logits"], expected, answer, strict=True)) if not same_row(*rows)]


def kept_count(row: list[float]) -> int:
    return sum(value != -INF for value in row)


def filter_checks(exercise: Exercise, name: str, letter: str, keep: Keep, cases: list[Case], as_shares: bool) -> Check:
    """The two checks of a filter, and the mistakes that all filters share.  Returns the first."""

    def written(logits: list[float]) -> list[str]:
        return [percent(share) for share in shares_of(logits)] if as_shares else [number(logit) for logit in logits]

    def describe(case: Case) -> str:
        rows = []
        for logits, by in zip(case["logits"], case["by"], strict=True):
            said = " ".join(written(logits))
            if as_shares and abs(max(logits) - max(logs(*map(math.exp, logits)))) > 1e-6:
                said += f"  (logits {' '.join(map(number, logits))})"
            rows.append(f"{said},  {letter} = {by:g}")
        if len(rows) == 1:
            return ("probabilities " if as_shares else "logits ") + rows[0]
        return "\n".join(f"row {i}: {row}" for i, row in enumerate(rows))

    def draw(case: Case, answer: Answer) -> str:
        lines = []
        for i, (logits, row) in enumerate(zip(case["logits"], answer, strict=True)):
            cells = [
                "·" if value == -INF else label if math.isclose(value, logit, abs_tol=1e-4) else number(value)
                for value, logit, label in zip(row, logits, written(logits), strict=True)
            ]
            lines.append([f"row {i}" if len(answer) > 1 else "keeps", *cells])
        return table(lines)

    def expected(case: Case) -> Answer:
        return filtered(case, keep)

    expected.__name__ = name
    check = exercise.check(cases, describe, draw, same_rows)(expected)

    def draw_input(case: Case, answer: Answer) -> str:
        return "the input afterwards\n" + draw(case, answer).replace("keeps", "logits")

    def unchanged(case: Case) -> Answer:
        return case["logits"]

    def same_input(case: Case, right: Answer, answer: Answer) -> bool:
        return all(
            math.isclose(a, b, abs_tol=1e-4) or a == b
            for r, x in zip(right, answer, strict=True)
            for a, b in zip(r, x, strict=True)
        )

    unchanged.__name__ = f"{name}_input"
    untouched = exercise.check(cases[:1] + cases[-2:], describe, draw_input, same_input)(unchanged)

    @untouched.shows("in-place")
    def _(case: Case, right: Answer, answer: Answer) -> bool:
        return True

    @check.shows("not-minus-inf")
    def _(case: Case, right: Answer, answer: Answer) -> bool:
        """Kept where it must, and elsewhere neither -inf nor what was there."""
        places = [
            place for rows in zip(case["logits"], right, answer, strict=True) for place in zip(*rows, strict=True)
        ]
        kept = all(math.isclose(got, want, abs_tol=1e-4) for _, want, got in places if want != -INF)
        dropped = [(was, got) for was, want, got in places if want == -INF]
        filled = all(got != -INF or was == -INF for was, got in dropped)
        return kept and filled and any(was != got for was, got in dropped)

    for choose in (lambda by: by[0], lambda by: by[-1], max, min):
        check.predicts("one-for-all")(
            lambda case, choose=choose: filtered({**case, "by": [choose(case["by"])] * len(case["by"])}, keep)
        )
    return check


# --------------------------------------------------------------------------- 6.1

keep_top_k = Exercise(
    "6.1",
    section="The most likely k",
    hints=(
        "Count what each row keeps, and compare it with its k.",
        "The places of a row are ordered, so whether a token stays depends only on its place and on the k of its own "
        "row. "
        "0 and numbers above the length of the row keep all.",
        "Make a [B, V] mask of what is dropped, by comparing the place in the row with each row's k; rows with k = 0 "
        "drop "
        "nothing. Put -inf there, into a new tensor.",
    ),
)
keep_top_k.mistake(
    "zero-not-off",
    "What does k = 0 mean: nothing is kept, or nothing is dropped?",
    "Only rows with k = 0 come out wrong. By the docstring 0 switches the filter off.",
    "Let the condition for dropping a token include that the row's k is above 0.",
)
keep_top_k.mistake(
    "one-too-many",
    "With k = 2, which places stay, if the first is place 0?",
    "Each row keeps one token more than its k: the place of the last one kept is k - 1.",
    "Drop a place as soon as it is equal to k, not only where it is above.",
)
keep_top_k.mistake(
    "one-too-few",
    "With k = 1, which places stay, if the first is place 0?",
    "Each row keeps one token less than its k: place k - 1 still belongs in.",
    "Drop the places from k on, not from k - 1 on.",
)
keep_top_k.mistake(
    "ties-stay",
    "Several tokens have the logit of the k-th. How many tokens are kept then?",
    "A threshold keeps all that are equal to the k-th logit, so more than k. The place in the row tells equals apart.",
    "Decide by the place in the ordered row, not by comparing logits with the k-th.",
)
keep_top_k.mistake(
    "k-beyond-row",
    "What is the k-th token of a row that has fewer than k?",
    "A k above the vocabulary must keep all, but here it reaches outside the row.",
    "Clamp k to the length of the row before you look anything up with it, or compare places with k, which needs no "
    "look-up.",
)
keep_top_k.mistake(
    "one-for-all",
    "The rows are different requests. Whose k decides about a row?",
    "All rows were cut with the k of one of them: one number was taken out of `top_k_B`, where each row has its own.",
    "Give `top_k_B` a second axis, so that row b is compared with its own k by broadcasting.",
)
keep_top_k.mistake(
    "not-minus-inf",
    "What probability does softmax give to the value that stands where a token was dropped?",
    "The right tokens are dropped, but what stands there is not -inf: others may be below it, and after a temperature "
    "it moves.",
    "Write minus infinity into the dropped places.",
)
keep_top_k.mistake(
    "in-place",
    "Who else reads the logits that you were given?",
    "The result is right, but the input has changed too: something writes into it, such as a function whose name ends "
    "in `_` or an "
    "assignment to a slice.",
    "Fill a copy: use the variant of the operation that gives back a new tensor.",
)

TOP_K_CASES: list[Case] = [
    {"logits": [[3.0, 2.0, 1.0]], "by": [1]},
    {"logits": [[3.0, 2.0, 1.0]], "by": [2]},
    {"logits": [[3.0, 2.0, 1.0]], "by": [0]},
    {"logits": [[3.0, 2.0, 1.0]], "by": [3]},
    {"logits": [[3.0, 2.0, 1.0]], "by": [7]},
    {"logits": [[5.0]], "by": [1]},
    {"logits": [[5.0]], "by": [0]},
    {"logits": [[2.0, 2.0, 1.0]], "by": [1]},
    {"logits": [[3.0, 2.0, 2.0, 2.0]], "by": [2]},
    {"logits": [[3.0, -1.0, -INF, -INF]], "by": [3]},
    {"logits": [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], "by": [1, 2]},
    {"logits": [[3.0, 2.0, 1.0], [6.0, 5.0, -4.0]], "by": [2, 0]},
    {"logits": [[3.0, 2.0, 1.0, 0.0], [9.0, 5.0, -1.0, -2.0], [4.0, 3.0, 2.0, 1.0]], "by": [0, 3, 9]},
    {"logits": [[3.0, 2.0, 1.0, 0.0], [9.0, 5.0, -1.0, -2.0]], "by": [3, 1]},
]


def first_k(logits: list[float], k: float) -> list[bool]:
    return [k == 0 or place < k for place in range(len(logits))]


top_k = filter_checks(keep_top_k, "top_k", "k", first_k, TOP_K_CASES, as_shares=False)


@top_k.shows("zero-not-off")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    if is_raised(answer):
        return crashed(answer) and 0 in case["by"]
    wrong = wrong_rows(case, expected, answer)
    return all(case["by"][i] == 0 and kept_count(answer[i]) < len(answer[i]) for i in wrong)


@top_k.predicts("one-too-many")
def _(case: Case) -> Answer:
    return filtered(case, lambda logits, k: first_k(logits, k + 1 if k else 0))


@top_k.predicts("one-too-few")
def _(case: Case) -> Answer:
    return filtered(case, lambda logits, k: [k == 0 or place + 1 < k for place in range(len(logits))])


@top_k.predicts("ties-stay")
def _(case: Case) -> Answer:
    return filtered(
        case, lambda logits, k: [not k or logit >= logits[min(int(k), len(logits)) - 1] for logit in logits]
    )


@top_k.shows("k-beyond-row")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer) and any(k > len(row) for k, row in zip(case["by"], case["logits"], strict=True))


# --------------------------------------------------------------------------- 6.2

keep_top_p = Exercise(
    "6.2",
    section="The nucleus",
    hints=(
        "Add up the probabilities from the left. After which token does the sum reach p for the first time?",
        "A token stays if those before it have not reached p yet. So the sum that decides about a token is the one "
        "without it.",
        "Probabilities of the row by softmax, their running sum, minus each token's own share: drop where that is at "
        "least p, "
        "except in rows with p = 1. Put -inf there, into a new tensor.",
    ),
)
keep_top_p.mistake(
    "nucleus-short",
    "Does the sum that decides about a token count the mass before it, or the token's own as well?",
    "The kept tokens do not reach p: the one that would is dropped too, since the sum that includes it is above p.",
    "Compare the sum of the tokens before, without the token itself: the one that reaches p belongs in.",
)
keep_top_p.mistake(
    "beyond-p",
    "The kept tokens have exactly p together. Do they need one more?",
    "Only where a sum is exactly p one token too many is kept. “At least p” is reached by then.",
    "Drop a token where the mass before it is equal to p already, not only where it is above.",
)
keep_top_p.mistake(
    "not-probabilities",
    "What do the numbers that you add up sum to over the whole row?",
    "A row of logits may be shifted, and after top-k some of its mass is gone: neither the logits nor their "
    "exponentials add up to 1.",
    "Take the softmax of the row before the running sum.",
)
keep_top_p.mistake(
    "overflow",
    "What is e to the power of 100, and of -120, in float32?",
    "Only rows of very large or very small logits come out wrong: the exponentials overflow, or are all 0.",
    "Subtract the largest logit of the row before you take exponentials, or leave that to softmax.",
)
keep_top_p.mistake(
    "one-is-off",
    "What is the running sum of float32 probabilities when the rest of the row has less than its last digit?",
    "With p = 1 all must stay, but rounding lets the sum reach 1 early, and what comes after is dropped.",
    "Treat p = 1 as off: drop nothing in such a row.",
)
keep_top_p.mistake(
    "wrong-end",
    "Do you add up from the most likely token or from the least likely one?",
    "What goes is the head of the row or what stays is its tail. Known code adds up in ascending order and compares "
    "with 1 - p; here a row "
    "is in descending order.",
    "Add up from the most likely token on, and drop what comes after p is reached.",
)
keep_top_p.mistake(
    "one-for-all",
    "The rows are different requests. Whose p decides about a row?",
    "All rows were cut with the p of one of them: one number was taken out of `top_p_B`, where each row has its own.",
    "Give `top_p_B` a second axis, so that row b is compared with its own p by broadcasting.",
)
keep_top_p.mistake(
    "not-minus-inf",
    "What probability does softmax give to the value that stands where a token was dropped?",
    "The right tokens are dropped, but what stands there is not -inf, so the next filter still sees it.",
    "Write minus infinity into the dropped places.",
)
keep_top_p.mistake(
    "in-place",
    "Who else reads the logits that you were given?",
    "The result is right, but the input has changed too: something writes into it.",
    "Fill a copy: use the variant of the operation that gives back a new tensor.",
)

LARGE = [100.0, 99.5, 98.0, 90.0], [-120.0, -120.5, -122.0, -130.0]
TOP_P_CASES: list[Case] = [
    {"logits": [logs(50, 30, 15, 5)], "by": [0.6]},
    {"logits": [logs(50, 30, 15, 5)], "by": [0.4]},
    {"logits": [logs(50, 30, 15, 5)], "by": [0.9]},
    {"logits": [logs(50, 30, 15, 5)], "by": [0.97]},
    {"logits": [logs(50, 30, 15, 5)], "by": [1e-6]},
    {"logits": [[0.0]], "by": [0.3]},
    {"logits": [[0.0, 0.0]], "by": [0.5]},
    {"logits": [[0.0, 0.0, 0.0, 0.0]], "by": [0.5]},
    {"logits": [[0.0, 0.0, 0.0, 0.0]], "by": [0.6]},
    {"logits": [logs(50, 30, 15, 5, shift=3)], "by": [0.6]},
    {"logits": [logs(50, 30, 15, 5, shift=-4)], "by": [0.9]},
    {"logits": [[logit if i < 2 else -INF for i, logit in enumerate(logs(40, 30, 20, 10))]], "by": [0.5]},
    {"logits": [[logit if i < 2 else -INF for i, logit in enumerate(logs(40, 30, 20, 10))]], "by": [0.65]},
    {"logits": [[logit if i < 3 else -INF for i, logit in enumerate(logs(40, 30, 20, 10))]], "by": [0.8]},
    {"logits": [logs(50, 30, 15, 5), logs(50, 30, 15, 5)], "by": [0.9, 0.6]},
    {"logits": [logs(50, 30, 15, 5), logs(70, 20, 6, 4), logs(26, 25, 25, 24)], "by": [0.97, 0.8, 0.7]},
    {"logits": [logs(26, 25, 25, 24), logs(80, 10, 6, 4)], "by": [0.4, 0.85]},
    {"logits": [LARGE[0]], "by": [0.8]},
    {"logits": [LARGE[1]], "by": [0.8]},
]
OFF_CASES: list[Case] = [
    {"logits": [logs(50, 30, 15, 5)], "by": [1.0]},
    {"logits": [[2.0]], "by": [1.0]},
    {"logits": [[0.0, -80.0, -81.0]], "by": [1.0]},
    {"logits": [[5.0, -60.0, -INF]], "by": [1.0]},
    {"logits": [logs(50, 30, 15, 5), [0.0, -70.0, -70.0, -90.0]], "by": [0.9, 1.0]},
    {"logits": [[i / -3 for i in range(50)]], "by": [1.0]},
]


def nucleus(logits: list[float], p: float) -> list[bool]:
    """The fewest from the left that reach p, by trying."""
    probabilities = shares_of(logits)
    for n in range(1, len(logits) + 1):
        if p < 1 and math.fsum(probabilities[:n]) >= p:
            return [place < n for place in range(len(logits))]
    return [True] * len(logits)


def sums_below(limit: Callable[[float, float], bool], forced: bool) -> Keep:
    """Keep while the sum with the token itself is below p."""

    def keep(logits: list[float], p: float) -> list[bool]:
        sums = itertools.accumulate(shares_of(logits))
        return [limit(total, p) or (forced and place == 0) for place, total in enumerate(sums)]

    return keep


def mass_as(weigh: Callable[[list[float]], list[float]]) -> Keep:
    """The right rule with other numbers than probabilities."""

    def keep(logits: list[float], p: float) -> list[bool]:
        mass = weigh(logits)
        before = [total - own for total, own in zip(itertools.accumulate(mass), mass, strict=True)]
        return [place == 0 or not already >= p for place, already in enumerate(before)]  # NaN is not

    return keep


def without_inf(logits: list[float]) -> list[float]:
    return [logit if logit != -INF else -1e30 for logit in logits]


def passed_over(logits: list[float], p: float) -> list[bool]:
    """One more where a sum is exactly p."""
    sums = [0.0, *itertools.accumulate(shares_of(logits))]
    return [before <= p for before in sums[:-1]]


def last_reach(logits: list[float], p: float) -> list[bool]:
    return nucleus(logits[::-1], p)[::-1]


def head_dropped(logits: list[float], p: float) -> list[bool]:
    return [math.fsum(shares_of(logits)[: place + 1]) > 1 - p + 1e-7 for place in range(len(logits))]


def head_dropped_early(logits: list[float], p: float) -> list[bool]:
    return [math.fsum(shares_of(logits)[:place]) >= 1 - p - 1e-7 for place in range(len(logits))]


def with_first(rule: Keep) -> Keep:
    return lambda logits, p: [place == 0 or kept for place, kept in enumerate(rule(logits, p))]


def exponentials(logits: list[float]) -> list[float]:
    """As float32 has them."""
    return [math.exp(logit) if -103 < logit < 88 else 0.0 if logit < 0 else INF for logit in logits]


def shares_of_the_best(logits: list[float]) -> list[float]:
    return [math.exp(logit - max(logits)) for logit in logits]


top_p = filter_checks(keep_top_p, "top_p", "p", nucleus, TOP_P_CASES, as_shares=True)
TAILS = [last_reach, head_dropped, head_dropped_early]
for slug, rules in {
    "nucleus-short": [sums_below(limit, forced) for limit in (float.__lt__, float.__le__) for forced in (False, True)],
    "beyond-p": [passed_over],
    "not-probabilities": [mass_as(weigh) for weigh in (exponentials, shares_of_the_best, without_inf)],
    "wrong-end": [*TAILS, *map(with_first, TAILS)],
}.items():
    foretell(top_p, slug, *(lambda case, rule=rule: filtered(case, rule) for rule in rules))


@top_p.shows("overflow")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return case["logits"][0] in LARGE


@keep_top_p.check(OFF_CASES, top_p.describe, top_p.draw, same_rows)
def top_p_off(case: Case) -> Answer:
    return filtered(case, nucleus)


@top_p_off.shows("one-is-off")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return all(case["by"][i] == 1 and kept_count(answer[i]) > 0 for i in wrong_rows(case, expected, answer))


# --------------------------------------------------------------------------- 6.3

keep_min_p = Exercise(
    "6.3",
    section="A share of the best",
    hints=(
        "Find the most likely token of the row. How many times as likely as that is each other one?",
        "A token stays if its probability is at least min_p times that of the most likely one of its own row, "
        "wherever that stands.",
        "Dividing probabilities is subtracting logits: a token is dropped if it lies further below the row's largest "
        "logit than "
        "the logarithm of min_p. Put -inf there, into a new tensor.",
    ),
)
keep_min_p.mistake(
    "absolute",
    "Is 0.5 a probability here, or a share of something?",
    "Tokens are dropped whose probability is below min_p. The docstring compares with the most likely token of the "
    "row.",
    "Multiply min_p by the row's largest probability before you compare.",
)
keep_min_p.mistake(
    "strict",
    "What does min_p = 1 keep? And min_p = 0, of a token whose probability float32 rounds to 0?",
    "“At least” includes equality: with 1 the most likely token and its equals stay, with 0 all do.",
    "Drop what is below the bound, not what is equal to it.",
)
keep_min_p.mistake(
    "logits-scaled",
    "What is half of a logit, and what is the logit of half the probability?",
    "The bound is min_p times the largest logit. Shifting a row of logits must change nothing, but it moves that "
    "bound.",
    "Take the factor in probabilities, or add its logarithm to the largest logit.",
)
keep_min_p.mistake(
    "no-log",
    "By how much do two logits differ if one token is half as likely as the other?",
    "The bound lies min_p away from the largest logit. A factor on probabilities is a difference of logarithms.",
    "Add the logarithm of min_p to the largest logit; it is negative, or 0 for min_p = 1.",
)
keep_min_p.mistake(
    "overflow",
    "What is e to the power of 100, and of -120, in float32?",
    "Only rows of very large or very small logits come out wrong: the exponentials overflow, or are all 0.",
    "Compare differences of logits, or leave the exponentials to softmax.",
)
keep_min_p.mistake(
    "first-is-best",
    "Are these rows in order?",
    "The first token is taken for the most likely one. This filter also gets rows that nobody sorted.",
    "Look for the largest logit of the row.",
)
keep_min_p.mistake(
    "best-of-all",
    "The most likely token of which row?",
    "The largest logit was looked for in the whole batch, so a row depends on who shares it.",
    "Take the maximum along the last axis, and keep that axis for broadcasting.",
)
keep_min_p.mistake(
    "one-for-all",
    "The rows are different requests. Whose min_p decides about a row?",
    "All rows were cut with the min_p of one of them: one number was taken out of `min_p_B`, where each row has its "
    "own.",
    "Give `min_p_B` a second axis, so that row b is compared with its own min_p by broadcasting.",
)
keep_min_p.mistake(
    "not-minus-inf",
    "What probability does softmax give to the value that stands where a token was dropped?",
    "The right tokens are dropped, but what stands there is not -inf, so noise may still lift it above the others.",
    "Write minus infinity into the dropped places.",
)
keep_min_p.mistake(
    "in-place",
    "Who else reads the logits that you were given?",
    "The result is right, but the input has changed too: something writes into it.",
    "Fill a copy: use the variant of the operation that gives back a new tensor.",
)

MIN_P_CASES: list[Case] = [
    {"logits": [logs(20, 48, 32)], "by": [0.5]},
    {"logits": [logs(20, 48, 32)], "by": [0.3]},
    {"logits": [logs(20, 48, 32)], "by": [0.0]},
    {"logits": [logs(20, 48, 32)], "by": [1.0]},
    {"logits": [logs(20, 48, 32)], "by": [0.7]},
    {"logits": [[3.0]], "by": [0.7]},
    {"logits": [[1.0, 4.0, 4.0, 2.0]], "by": [1.0]},
    {"logits": [logs(60, 25, 10, 5)], "by": [0.12]},
    {"logits": [logs(5, 10, 25, 60, shift=3)], "by": [0.2]},
    {"logits": [logs(5, 10, 60, 25, shift=-4)], "by": [0.3]},
    {"logits": [logs(5, 60, 10, 25, shift=9)], "by": [0.9]},
    {"logits": [[logit if i else -INF for i, logit in enumerate(logs(40, 25, 30, 5))]], "by": [0.8]},
    {"logits": [[-INF, 2.0, -INF, 2.5]], "by": [0.0]},
    {"logits": [[0.0, -200.0]], "by": [0.0]},
    {"logits": [[98.0, 100.0, 99.5]], "by": [0.3]},
    {"logits": [[-121.0, -120.0, -122.0]], "by": [0.3]},
    {"logits": [logs(20, 50, 30), logs(20, 50, 30)], "by": [0.5, 0.0]},
    {"logits": [logs(20, 50, 30, shift=5), logs(45, 20, 35)], "by": [0.5, 0.7]},
    {"logits": [logs(1, 9, 40, 50), logs(97, 1, 1, 1), logs(24, 26, 25, 25)], "by": [0.15, 0.005, 0.9]},
]


def near_the_best(logits: list[float], share: float) -> list[bool]:
    best = max(shares_of(logits))
    return [share == 0 or p / best >= share for p in shares_of(logits)]


min_p = filter_checks(keep_min_p, "min_p", "min_p", near_the_best, MIN_P_CASES, as_shares=True)


@min_p.predicts("absolute")
def _(case: Case) -> Answer:
    return filtered(case, lambda logits, share: [not share or p >= share for p in shares_of(logits)])


def above_in_shares(logits: list[float], share: float) -> list[bool]:
    """Float32 rounds small probabilities to 0."""
    probabilities = [p if p > 1e-38 else 0.0 for p in shares_of(logits)]
    return [p > share * max(probabilities) for p in probabilities]


def above_in_logits(logits: list[float], share: float) -> list[bool]:
    return [logit > max(logits) + math.log(share) if share else True for logit in logits]


foretell(
    min_p, "strict", *(lambda case, rule=rule: filtered(case, rule) for rule in (above_in_shares, above_in_logits))
)


@min_p.shows("overflow")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return max(map(abs, case["logits"][0])) in (100.0, 122.0)


@min_p.predicts("logits-scaled")
def _(case: Case) -> Answer:
    return filtered(case, lambda logits, share: [logit >= share * max(logits) for logit in logits])


for sign in (-1, 1):
    min_p.predicts("no-log")(
        lambda case, sign=sign: filtered(
            case, lambda logits, share: [logit >= max(logits) + sign * share for logit in logits]
        )
    )


@min_p.predicts("first-is-best")
def _(case: Case) -> Answer:
    def keep(logits: list[float], share: float) -> list[bool]:
        return [logit >= logits[0] + (math.log(share) if share else -INF) for logit in logits]

    return filtered(case, keep)


@min_p.predicts("best-of-all")
def _(case: Case) -> Answer:
    best = max(max(row) for row in case["logits"])

    def keep(logits: list[float], share: float) -> list[bool]:
        return [logit >= best + math.log(share) - 1e-6 if share else True for logit in logits]

    return filtered(case, keep)


# ------------------------------------------------------------------------------------------- 6.4, noise

gumbel_noise = Exercise(
    "6.4",
    section="Noise that belongs to a request",
    hints=(
        "Which of seed, position and token id does this noise depend on, and on what else?",
        "Each number of the result must be a function of one seed, one position and one id, and of nothing else; all "
        "three must "
        "matter, each in its own way; and read as u between 0 and 1, the mixed bits must be uniform.",
        "Mix the seed, add the position (spread by a large odd number) and mix again, do the same with the id; take "
        "63 bits as "
        "a fraction, keep it away from 0 and 1, and take minus the logarithm of minus the logarithm.",
    ),
)
gumbel_noise.mistake(
    "unseeded",
    "You asked twice with the same seed. Where did the second noise come from?",
    "The noise comes from torch's global generator, whose state every call changes.",
    "Compute it from seed, position and id with `mix64`; draw nothing.",
)
gumbel_noise.mistake(
    "shared-rng",
    "Whose stream of random numbers does the second row read?",
    "One generator serves the whole batch, so what a row gets depends on its place and on who came before.",
    "No generator: mix each row's own seed and position, then each token's id, into bits of their own.",
)
gumbel_noise.mistake(
    "row-number",
    "The row stands at another place in the batch. What has changed for the request?",
    "The number of the row goes into the noise: it is the same only as long as the row keeps its place.",
    "Let nothing but the values in `seed_B`, `position_B` and `token_BK` enter.",
)
gumbel_noise.mistake(
    "place-not-id",
    "Token 9 may stand first or last among the candidates. What must its noise depend on?",
    "The noise follows the place in the row, not the token's id: candidates in another order get other noise.",
    "Mix the values of `token_BK` in, not a count of the columns.",
)
gumbel_noise.mistake(
    "forgets-seed",
    "Two requests with other seeds stand at the same position. What tells them apart?",
    "The seed makes no difference to the noise.",
    "Begin the mixing with the seed of the row.",
)
gumbel_noise.mistake(
    "forgets-position",
    "The request asks again for its next token. What has changed?",
    "The position makes no difference to the noise, so every token of a request is drawn with the same numbers.",
    "Mix the position in after the seed.",
)
gumbel_noise.mistake(
    "forgets-id",
    "All tokens of the row get the same noise. What does adding it change?",
    "The id makes no difference to the noise, so the largest logit always wins.",
    "Mix the id of each token in after seed and position.",
)
gumbel_noise.mistake(
    "adds-up",
    "Seed 2 at position 5, and seed 3 at position 4: what are their sums?",
    "Two of the three were combined (added, multiplied or by exclusive or) before anything was mixed, so different "
    "requests share their noise.",
    "Mix the first with `mix64` before the next is added, and mix again.",
)
gumbel_noise.mistake(
    "float-seed",
    "How many digits of a seed near 2⁶² does a float keep?",
    "Large seeds that differ by 1 give the same noise: somewhere they became floats, or lost bits.",
    "Stay in int64 until the bits are mixed.",
)
gumbel_noise.mistake(
    "not-mixed",
    "The noise of one number is among the highest quarter. What does that say about the noise of the next?",
    "Neighbours are related: multiplying by a constant spreads numbers evenly, but it does not shuffle their bits.",
    "Let `mix64` be the last thing that happens to the bits.",
)
gumbel_noise.mistake(
    "uniform",
    "The noise lies between 0 and 1. How often does Gumbel noise exceed 2?",
    "These are the uniform numbers themselves; the two logarithms are missing.",
    "Take minus the logarithm of minus the logarithm of them.",
)
gumbel_noise.mistake(
    "one-log",
    "The noise is never negative. How many logarithms does the formula have?",
    "This is the exponential distribution: the outer logarithm is missing.",
    "Take minus the logarithm of what you have.",
)
gumbel_noise.mistake(
    "mirrored",
    "Which tail is the long one, the upper or the lower?",
    "The picture is turned upside down: large negative numbers are common, large positive ones are rare. A minus is "
    "missing.",
    "Put a minus before the outer logarithm.",
)
gumbel_noise.mistake(
    "half-range",
    "What is the largest u that you make, and what the smallest?",
    "The bits fill only half of the interval from 0 to 1: 63 bits were divided by 2⁶⁴.",
    "Divide by the number of different values that your bits have.",
)
gumbel_noise.mistake(
    "signed-bits",
    "Can an int64 be read as a fraction between 0 and 1, whatever its sign?",
    "Half of the mixed numbers are negative, and the logarithm of such a u is none.",
    "Cut the sign bit off (`& (2**63 - 1)`), then divide.",
)
gumbel_noise.mistake(
    "ends-of-u",
    "What is the formula's value at u = 0, and at u = 1?",
    "Rounded to float32, u can be exactly 0 or exactly 1, and the noise is infinite then: that token always wins, or "
    "never.",
    "Keep u a little above 0 and a little below 1 in float32 before you take logarithms.",
)

WAYS = ("twice", "alone", "rows reversed", "ids reversed", "last two ids")
SAY_WAY = {
    "twice": "asked twice",
    "alone": "each row alone, and in the batch",
    "rows reversed": "with the rows in reverse order",
    "ids reversed": "with the ids of each row in reverse order",
    "last two ids": "for the last two ids of each row only",
}


def same_bits_cases() -> list[Case]:
    one = {"seeds": [7], "positions": [3], "ids": [[0, 1, 2]]}
    three = {"seeds": [7, 8, 9], "positions": [3, 3, 3], "ids": [[0, 1, 2]] * 3}
    mixed = {"seeds": [7, 7, 40], "positions": [5, 6, 2], "ids": [[0, 4, 9], [9, 4, 0], [30, 2, 17]]}
    small = [(one, "twice"), (three, "twice"), (three, "alone"), (three, "rows reversed"), (one, "ids reversed")]
    small += [(one, "last two ids"), (three, "ids reversed"), (three, "last two ids")]
    return [{**cells, "how": how} for cells, how in [*small, *((mixed, how) for how in WAYS)]]


def say_same_bits(case: Case) -> str:
    rows = zip(case["seeds"], case["positions"], case["ids"], strict=True)
    said = [f"row {i}: seed {s}, position {p}, ids {said_ids(ids)}" for i, (s, p, ids) in enumerate(rows)]
    return "\n".join([*said, SAY_WAY[case["how"]]])


def draw_same_bits(case: Case, answer: Answer) -> str:
    return "\n".join(
        f"row {i}  " + "  ".join("same" if same else "other" for same in row) for i, row in enumerate(answer)
    )


def with_wildcards(_case: Case, expected: Answer, answer: Answer) -> bool:
    """Equal, but for what is not foretold."""
    if expected == ANY:
        return True
    if isinstance(expected, list) and isinstance(answer, list):
        return len(expected) == len(answer) and all(
            with_wildcards(_case, e, a) for e, a in zip(expected, answer, strict=True)
        )
    return type(expected) is type(answer) and expected == answer


def bits(case: Case, say: Callable[[int, int], Any]) -> Answer:
    """A table of say(row, place) over what is compared."""
    width = 2 if case["how"] == "last two ids" else len(case["ids"][0])
    return [[say(row, place) for place in range(width)] for row in range(len(case["seeds"]))]


@gumbel_noise.check(same_bits_cases, say_same_bits, draw_same_bits, with_wildcards)
def same_bits(case: Case) -> Answer:
    return bits(case, lambda row, place: True)


@same_bits.predicts("unseeded")
def _(case: Case) -> Answer:
    return bits(case, lambda row, place: False)


@same_bits.predicts("shared-rng")
def _(case: Case) -> Answer:
    rows = len(case["seeds"])

    def say(row: int, place: int) -> Any:
        if case["how"] == "twice":
            return True
        if case["how"] == "alone":
            return ANY if row == 0 else False  # the first may have the same seed, and the beginning of the stream
        if case["how"] == "rows reversed":
            return True if rows == 1 else ANY if row == rows // 2 else False
        if case["how"] == "ids reversed":
            return place == 1
        return ANY if row else False

    return bits(case, say)


@same_bits.predicts("row-number")
def _(case: Case) -> Answer:
    rows = len(case["seeds"])

    def say(row: int, place: int) -> Any:
        if case["how"] == "alone":
            return row == 0
        return case["how"] != "rows reversed" or row == rows - 1 - row

    return bits(case, say)


@same_bits.predicts("place-not-id")
def _(case: Case) -> Answer:
    moved = {"ids reversed": lambda place: place == 1, "last two ids": lambda place: False}
    return bits(case, lambda row, place: moved.get(case["how"], lambda _: True)(place))


CELLS = {
    "seeds": [(1, 5, 3), (2, 5, 3), (3, 5, 3), (4, 5, 3)],
    "positions": [(5, 1, 3), (5, 2, 3), (5, 3, 3), (5, 4, 3)],
    "ids": [(5, 3, 1), (5, 3, 2), (5, 3, 3), (5, 3, 4)],
    "sums": [(2, 5, 3), (3, 4, 3), (4, 3, 3), (2, 4, 4), (2, 3, 5)],
    "swapped": [(1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1), (2, 3, 1), (3, 1, 2)],
    "products": [(1, 6, 4), (2, 3, 4), (3, 2, 4), (6, 1, 4), (2, 2, 6), (4, 6, 1)],
    "zeros": [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)],
    "large seeds": [(2**62, 5, 3), (2**62 + 1, 5, 3), (2**63 - 2, 5, 3), (2**63 - 1, 5, 3)],
    "far seeds": [(1, 5, 3), (2**32 + 1, 5, 3), (2**33 + 1, 5, 3)],
    "many": [(seed, position, 9) for seed in (3, 8, 21, 55) for position in (2, 13, 34, 89)],
    "far positions": [(5, 1, 3), (5, 65537, 3), (5, 131073, 3)],
}


def as_letters(values: Sequence[Any]) -> str:
    """Equal values get the same letter, in the order in which they come."""
    seen: dict[Any, str] = {}
    return "".join(seen.setdefault(value, chr(ord("A") + len(seen))) for value in values)


def said_number(n: int) -> str:
    """Large ones by the nearest power of two."""
    for power, said in ((63, "2⁶³"), (62, "2⁶²"), (33, "2³³"), (32, "2³²"), (17, "2¹⁷"), (16, "2¹⁶")):
        if abs(rest := n - 2**power) < 9:
            return said + (f"{rest:+d}" if rest else "")
    return str(n)


def say_cells(case: Case) -> str:
    cells = "  ".join(f"({', '.join(map(said_number, cell))})" for cell in case["cells"])
    return f"one token each, with (seed, position, id)\n{cells}"


def draw_cells(case: Case, answer: Answer) -> str:
    n = len(set(answer))
    if answer == list(range(len(answer))):
        return "all different"
    values = "  ".join(f"{noise:.2f}" for noise in answer)
    return f"{values}\n{len(answer)} cells, {n} different"


def same_letters(_case: Case, expected: Answer, answer: Answer) -> bool:
    return as_letters(expected) == as_letters(answer)


@gumbel_noise.check(
    [{"what": what, "cells": cells} for what, cells in CELLS.items()], say_cells, draw_cells, same_letters
)
def different(case: Case) -> Answer:
    return list(range(len(case["cells"])))


for slug, left in {
    "forgets-seed": lambda s, p, i: (p, i),
    "forgets-position": lambda s, p, i: (s, i),
    "forgets-id": lambda s, p, i: (s, p),
}.items():
    different.predicts(slug)(lambda case, left=left: [str(left(*cell)) for cell in case["cells"]])

COMBINED: list[Callable[[int, int, int], Any]] = [
    combine
    for two in (int.__add__, int.__mul__, int.__xor__)
    for combine in (
        lambda s, p, i, two=two: two(two(s, p), i),
        lambda s, p, i, two=two: (two(s, p), i),
        lambda s, p, i, two=two: (s, two(p, i)),
        lambda s, p, i, two=two: (two(s, i), p),
    )
]


@different.shows("adds-up")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return any(as_letters(answer) == as_letters([combine(*cell) for cell in case["cells"]]) for combine in COMBINED)


def is_an_end(noise: float) -> bool:
    """What comes of u = 0 or u = 1, or of a u that is none."""
    return not -2.5 < noise < 12


@different.shows("signed-bits")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    mixed = case["what"] != "many" or not all(map(is_an_end, answer))
    return mixed and all(is_an_end(noise) for noise in answer if answer.count(noise) > 1)


@different.shows("float-seed")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return case["what"] in ("large seeds", "far seeds")


QUANTILES = [1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8]


def say_distribution(case: Case) -> str:
    fixed = [name for name in ("seed", "position", "id") if name != case["along"]]
    return f"{case['n']} numbers: {case['along']} 0, 1, 2, …; {fixed[0]} and {fixed[1]} stay the same"


def draw_distribution(case: Case, answer: Answer) -> str:
    said = ["1/8", "1/4", "1/2", "3/4", "7/8"]
    lines = [f"{share} of it below {value:6.2f}" for share, value in zip(said, answer["quantiles"], strict=True)]
    return "\n".join([*lines, f"neighbours in the same quarter: {answer['alike']:.0%}"])


def near_quantiles(_case: Case, expected: Answer, answer: Answer) -> bool:
    """Within about five standard deviations of what chance does."""
    near = [math.isclose(e, a, abs_tol=0.16) for e, a in zip(expected["quantiles"], answer["quantiles"], strict=True)]
    return all(near) and (expected["alike"] == ANY or abs(expected["alike"] - answer["alike"]) < 0.04)


@gumbel_noise.check(
    [{"along": along, "n": 8192, "quantiles": QUANTILES} for along in ("id", "position", "seed")],
    say_distribution,
    draw_distribution,
    near_quantiles,
)
def distribution(case: Case) -> Answer:
    return {"quantiles": [-math.log(math.log(1 / q)) for q in QUANTILES], "alike": 0.25}


for slug, quantile in {
    "uniform": lambda q: q,
    "one-log": lambda q: -math.log(1 - q),
    "mirrored": lambda q: math.log(-math.log(1 - q)),
}.items():
    distribution.predicts(slug)(
        lambda case, quantile=quantile: {"quantiles": [quantile(q) for q in QUANTILES], "alike": 0.25}
    )


for beginning in (0.5, 0.0):
    distribution.predicts("half-range")(
        lambda case, beginning=beginning: {
            "quantiles": [-math.log(-math.log(beginning + q / 2)) for q in QUANTILES],
            "alike": 0.25,
        }
    )


@distribution.shows("signed-bits")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """Half of it is no number, or one of the ends."""
    ends = [is_an_end(value) for value in answer["quantiles"]]
    return any(ends) and not all(ends)


@distribution.shows("not-mixed")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return near_quantiles(case, {**expected, "alike": ANY}, answer)


def say_ends(case: Case) -> str:
    return f"`mix64` happens to give {case['said']}"


def draw_noise(_case: Case, answer: Answer) -> str:
    return answer if isinstance(answer, str) else f"noise {answer:.2f}"


def is_finite(_case: Case, _expected: Answer, answer: Answer) -> bool:
    return math.isfinite(answer)


@gumbel_noise.check(
    [
        {"bits": 0, "said": "0"},
        {"bits": -1, "said": "-1, all bits set"},
        {"bits": 2**63 - 1, "said": "2⁶³ - 1"},
        {"bits": -(2**63), "said": "-2⁶³"},
        {"bits": 1, "said": "1"},
        {"bits": 2**62, "said": "2⁶²"},
    ],
    say_ends,
    draw_noise,
    is_finite,
)
def ends(case: Case) -> Answer:
    return "a finite number"


@ends.shows("ends-of-u")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return isinstance(answer, float) and not math.isfinite(answer)


# ------------------------------------------------------------------------------------------- 6.5, sample

sample = Exercise(
    "6.5",
    section="From logits to a token",
    hints=(
        "Take the smallest case and do it by hand: which tokens are left after each step, and what is added to them?",
        "Follow one row: rank, temperature, top-k, top-p, min-p, noise, largest. Every number keeps its token's id on "
        "the way, and "
        "rows with temperature 0 go by the side.",
        "Rank if `batch.candidates` asks for it and carry the ids along; apply the four steps in order; add the noise "
        "of each "
        "row's seed, position and ids; turn the place of the largest back into an id; let greedy and odd rows have "
        "their argmax.",
    ),
)
sample.mistake(
    "rank-not-id",
    "Is that the number of a token, or its place among the candidates?",
    "Once a row is ranked, place 0 is its most likely token, whatever its id.",
    "Look the id up in what `rank` gave back beside the logits.",
)
sample.mistake(
    "nothing-ranked",
    "No row asks for top-k or top-p. What is `batch.candidates` then?",
    "With 0 candidates `rank` gives back nothing, and there is nothing to choose from.",
    "Where `batch.candidates` is 0, take all tokens as they stand, each place being its own id.",
)
sample.mistake(
    "not-float32",
    "In which dtype do the logits arrive, and in which does `rank` read them?",
    "Models give bfloat16; sorting by bits and the logarithms of small probabilities need float32.",
    "Convert the logits once, before anything else reads them.",
)
sample.mistake(
    "greedy-by-noise",
    "This request has temperature 0. What is random about it?",
    "A row with temperature 0 was drawn like the others: the batch is mixed, so `all_greedy` is False.",
    "Choose row by row at the end: the argmax of the logits where the temperature is 0, the drawn token elsewhere.",
)
sample.mistake(
    "all-greedy-if-one",
    "This row has a temperature above 0 or one candidate only; whose argmax did it get?",
    "Rows that must be drawn came out greedy since another row of the batch is.",
    "Decide for each row by its own temperature.",
)
sample.mistake(
    "dead-argument",
    "All draws gave the same token. Follow the noise: does it reach the comparison?",
    "The row asks for a temperature above 0, but the largest logit always wins. Something that should make it random "
    "is computed and "
    "not used, or not computed.",
    "Add the noise to the filtered logits, and take the largest of the sum.",
)
sample.mistake(
    "no-temperature",
    "The shares are those of temperature 1. When is the noise added, before or after dividing?",
    "Dividing everything, noise included, changes no order; and without dividing nothing changes either.",
    "Divide by the temperature first, and add the noise to the result.",
)
sample.mistake(
    "temperature-multiplied",
    "Does a temperature above 1 make the shares more alike or less?",
    "The logits are multiplied by the temperature: 2 sharpens where it should flatten.",
    "Divide, as `with_temperature` does.",
)
sample.mistake(
    "temperature-last",
    "Which probabilities do top-p and min-p add up and compare: those of the model, or those after the temperature?",
    "The filters ran before the temperature, so they kept what the model finds likely. The docstring has temperature "
    "first.",
    "Apply the temperature to the ranked logits, then the filters.",
)
sample.mistake(
    "other-order",
    "Which filter sees the mass that the other one has left?",
    "The filters ran in another order than top-k, top-p, min-p: each one reads what the one before has left.",
    "Chain them: the result of one is the input of the next, in the docstring's order.",
)
sample.mistake(
    "filter-forgotten",
    "Which tokens came that no filter should have left?",
    "One of top-k, top-p and min-p does nothing here: it was not called, its result was dropped, or only on one of "
    "the two paths.",
    "Pass each result on to the next step; min-p acts also where nothing is ranked.",
)
sample.mistake(
    "noise-on-probabilities",
    "Adding Gumbel noise to log-probabilities draws from them. What was it added to?",
    "The shares are too even: the noise was added to probabilities.",
    "Add it to logits; they are log-probabilities but for a constant.",
)
sample.mistake(
    "no-distribution",
    "What are the probabilities of a row that holds NaN or infinity?",
    "Such a row has none, and whatever the noise and the filters make of it is chance. It must get its argmax, so "
    "that somebody can notice.",
    "For rows whose largest logit is not finite take the argmax of the logits as they came.",
)
sample.mistake(
    "shared-rng",
    "Whose stream of random numbers does this row read?",
    "The token changes with the company of the row: a generator serves the batch, or the place of the row decides.",
    "Take the noise from `gumbel_noise`, with each row's own seed and position.",
)
sample.mistake(
    "noise-by-rank",
    "Token 9 may stand at place 9 or, ranked, at place 2. Which noise does it get?",
    "A row draws another token as soon as another row of the batch makes all be ranked: the noise belongs to places, "
    "not to ids.",
    "Give `gumbel_noise` the ids in the order of the candidates.",
)
sample.mistake(
    "seed-ignored",
    "Twelve requests with twelve seeds. What do they differ in for the noise?",
    "The seeds do not reach the noise.",
    "Pass `batch.seed_B` on.",
)
sample.mistake(
    "position-ignored",
    "One request, twelve positions. What do they differ in for the noise?",
    "The position does not reach the noise, so that a request draws with the same numbers at every step.",
    "Pass `position_B` on.",
)
sample.mistake(
    "in-place",
    "Who reads the logits after you?",
    "The tokens are right, but the logits that were given have changed: log-probabilities are taken from them later.",
    "Work on copies: nothing may write into `logits_BV`.",
)

GREEDY: dict[str, Any] = {}


def say_params(params: dict[str, Any]) -> str:
    said = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
    return ", ".join(f"{said[name]} {value:g}" for name, value in params.items()) or "temperature 0"


def say_logits(case: Case) -> str:
    dtype = f"  ({case['dtype']})" if "dtype" in case else ""
    rows = [
        f"logits {' '.join(number(logit) for logit in row)}:  {say_params(one)}{dtype}"
        for row, one in zip(case["logits"], case["params"], strict=True)
    ]
    counted = [(row, len(list(group))) for row, group in itertools.groupby(rows)]
    return "\n".join(row if n == 1 else f"{n} rows of {row}" for row, n in counted)


def draw_tokens(case: Case, answer: Answer) -> str:
    return "token" + "s" * (len(answer) > 1) + " " + " ".join("any" if token == ANY else str(token) for token in answer)


def best_of(row: list[float]) -> int:
    return row.index(max(row))


# --- rows with temperature 0

ALIKE = [0.1, 0.3, 0.2]
GREEDY_CASES: list[Case] = [
    {"logits": [[1.0, 3.0, 2.0]], "params": [GREEDY]},
    {"logits": [[1.0, 3.0, 2.0], [5.0, 0.0, 4.0]], "params": [GREEDY, GREEDY]},
    {"logits": [ALIKE] * 7, "params": [GREEDY] * 6 + [{"temperature": 1.0}]},
    {"logits": [ALIKE] * 7, "params": [{"temperature": 1.0, "top_k": 2}] + [GREEDY] * 6},
    {"logits": [[0.3, 0.2, 0.1]] * 9, "params": [GREEDY] * 8 + [{"temperature": 9.0, "top_p": 0.9, "min_p": 0.1}]},
    # A tie: the first of the largest, as argmax gives it to a row that is alone.
    {"logits": [[1.0, 2.0, 2.0, 2.0]] * 8, "params": [GREEDY] * 7 + [{"temperature": 1.0}]},
]


@sample.check(GREEDY_CASES, say_logits, draw_tokens, with_wildcards)
def greedy_rows(case: Case) -> Answer:
    """What becomes of the rows with a temperature is not asked here."""
    return [ANY if one else best_of(row) for one, row in zip(case["params"], case["logits"], strict=True)]


@greedy_rows.shows("greedy-by-noise")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return not is_raised(answer) and any(case["params"])


@greedy_rows.shows("nothing-ranked")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer, "IndexError") and not any(map(is_ranked, case["params"]))


# --- what the noise depends on


def say_moves(case: Case) -> str:
    other = "position" if case["along"] == "seed" else "seed"
    return (
        f"{case['vocabulary']} tokens, all as likely; temperature 1\n"
        f"{other} 6; {case['along']} 0 to {case['n'] - 1}: {case['n']} rows"
    )


def draw_moves(_case: Case, answer: Answer) -> str:
    return answer if isinstance(answer, str) else f"tokens {' '.join(map(str, answer))}"


VARIED = "tokens that differ"


def as_varied(_case: Case, expected: Answer, answer: Answer) -> bool:
    return answer == expected if expected != VARIED else isinstance(answer, list) and len(set(answer)) >= 5


@sample.check(
    [{"along": along, "n": 12, "vocabulary": 50} for along in ("seed", "position")], say_moves, draw_moves, as_varied
)
def moves(case: Case) -> Answer:
    return VARIED


@moves.shows("seed-ignored")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return case["along"] == "seed" and len(set(answer)) == 1


@moves.shows("position-ignored")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return case["along"] == "position" and len(set(answer)) == 1


@moves.predicts("dead-argument")
def _(case: Case) -> Answer:
    """The first of equals."""
    return [0] * case["n"]


# --- distributions

STEPS = ("temperature", "top_k", "top_p", "min_p")


def drawn_shares(
    case: Case, steps: Sequence[str] = STEPS, temperature: Callable[[float], float] = lambda t: t
) -> dict[int, float]:
    """The probability of each token that is left, by carrying out the steps on a dict of probabilities."""
    params = case["params"]
    left = dict(enumerate(shares_of(case["logits"])))
    for step in steps:
        order = sorted(left, key=lambda token: (-left[token], token))
        if step == "temperature":
            left = {token: p ** (1 / temperature(params["temperature"])) for token, p in left.items()}
        elif step == "top_k" and params.get("top_k"):
            left = {token: left[token] for token in order[: params["top_k"]]}
        elif step == "top_p" and "top_p" in params:
            kept: dict[int, float] = {}
            for token in order:
                if sum(kept.values()) < params["top_p"]:
                    kept[token] = left[token]
            left = kept
        elif step == "min_p" and "min_p" in params:
            left = {token: p for token, p in left.items() if p >= params["min_p"] * left[order[0]]}
        total = math.fsum(left.values())
        left = {token: p / total for token, p in left.items()}
    return left


def row_of(case: Case, left: dict[int, float]) -> Answer:
    return [left.get(token, 0.0) for token in range(len(case["logits"]))]


# Not in order, so that places and ids differ.
FIVE = logs(20, 5, 35, 10, 30, shift=2)
SHARES: list[tuple[list[float], dict[str, Any], dict[str, Any] | None]] = [
    (logs(30, 70), {"temperature": 1.0}, None),
    (FIVE, {"temperature": 1.0}, None),
    (FIVE, {"temperature": 2.5}, None),
    (FIVE, {"temperature": 0.4}, None),
    (FIVE, {"temperature": 1.0, "top_k": 3}, None),
    (FIVE, {"temperature": 1.0, "top_p": 0.6}, None),
    (FIVE, {"temperature": 1.0, "min_p": 0.4}, None),
    (FIVE, {"temperature": 3.0, "top_k": 2}, None),
    (FIVE, {"temperature": 0.5, "top_p": 0.7}, None),
    (FIVE, {"temperature": 3.0, "top_p": 0.8}, None),
    (FIVE, {"temperature": 3.0, "min_p": 0.5}, None),
    (FIVE, {"temperature": 1.0, "top_k": 3, "top_p": 0.7}, {"temperature": 1.0, "top_p": 0.9}),
    (logs(14, 8, 40, 18, 20), {"temperature": 1.0, "top_p": 0.63, "min_p": 0.3}, None),
    (logs(9, 20, 30, 10, 31), {"temperature": 1.0, "top_k": 4, "min_p": 0.4, "top_p": 0.8}, None),
    ([4.0, 1.0, 4.0, -INF], {"temperature": 0.7, "top_k": 2}, None),
    (FIVE, {"temperature": 1.0}, GREEDY),
    (FIVE, {"temperature": 1.0, "top_k": 3}, GREEDY),
]


def say_shares(case: Case) -> str:
    said = " ".join(percent(p) for p in shares_of(case["logits"]))
    beside = "" if case["beside"] is None else f"; beside a row with {say_params(case['beside'])}"
    return f"probabilities {said}\n{say_params(case['params'])}; drawn at {case['n']} positions{beside}"


def draw_shares(case: Case, answer: Answer) -> str:
    return table([["token", *map(str, range(len(answer)))], ["drawn", *(f"{p:.0%}" if p else "·" for p in answer)]])


def near_shares(_case: Case, expected: Answer, answer: Answer) -> bool:
    """Within four and a half standard deviations of 2500 draws; a token that is dropped never comes."""
    return all(abs(e - a) < 0.045 and (e > 0 or a == 0) for e, a in zip(expected, answer, strict=True))


@sample.check(
    [{"n": 2500, "logits": logits, "params": params, "beside": beside} for logits, params, beside in SHARES],
    say_shares,
    draw_shares,
    near_shares,
)
def shares(case: Case) -> Answer:
    return row_of(case, drawn_shares(case))


def is_ranked(params: dict[str, Any]) -> bool:
    return "top_k" in params or "top_p" in params


def is_best(case: Case) -> Answer:
    """The most likely token each time."""
    best = best_of(case["logits"])
    return [float(token == best) for token in range(len(case["logits"]))]


def by_steps(*steps: str) -> Callable[[Case], Answer]:
    return lambda case: row_of(case, drawn_shares(case, steps))


def where_ranked(elsewhere: bool, way: Callable[[Case], Answer]) -> Callable[[Case], Answer]:
    """A mistake on one of the two paths only."""
    return lambda case: way(case) if is_ranked(case["params"]) != elsewhere else shares.expected(case)


def on_each_path(way: Callable[[Case], Answer]) -> list[Callable[[Case], Answer]]:
    return [way, where_ranked(False, way), where_ranked(True, way)]


def untempered(case: Case) -> Answer:
    return row_of(case, drawn_shares(case, temperature=lambda t: 1.0))


def multiplied(case: Case) -> Answer:
    return row_of(case, drawn_shares(case, temperature=lambda t: 1 / t))


def on_probabilities(dropped_too: bool) -> Callable[[Case], Answer]:
    """Gumbel noise on probabilities draws from their softmax."""

    def way(case: Case) -> Answer:
        left = drawn_shares(case)
        left = dict(enumerate(row_of(case, left))) if dropped_too else left
        return row_of(case, dict(zip(left, shares_of(list(left.values())), strict=True)))

    return way


def places(case: Case) -> Answer:
    """Places among the ranked candidates, taken for ids."""
    right = shares.expected(case)
    return sorted(right, reverse=True) if is_ranked(case["params"]) else right


def all_places(case: Case) -> Answer:
    return sorted(shares.expected(case), reverse=True)


foretell(shares, "dead-argument", *on_each_path(is_best))
foretell(shares, "all-greedy-if-one", lambda case: is_best(case) if case["beside"] == GREEDY else shares.expected(case))
foretell(shares, "no-temperature", *on_each_path(untempered))
foretell(shares, "temperature-multiplied", *on_each_path(multiplied))
foretell(
    shares,
    "temperature-last",
    by_steps("top_k", "top_p", "min_p", "temperature"),
    where_ranked(False, by_steps("top_k", "top_p", "temperature", "min_p")),
    by_steps("top_k", "temperature", "top_p", "min_p"),
)
foretell(
    shares,
    "other-order",
    *(by_steps("temperature", *steps) for steps in itertools.permutations(STEPS[1:]) if steps != STEPS[1:]),
)
for forgotten in STEPS[1:]:
    foretell(shares, "filter-forgotten", *on_each_path(by_steps(*(step for step in STEPS if step != forgotten))))
foretell(shares, "noise-on-probabilities", on_probabilities(True), on_probabilities(False))
foretell(shares, "rank-not-id", places, all_places)


# --- rows of which only one token is left

CERTAIN_CASES: list[Case] = [
    {"logits": [[1.0, 3.0, 2.0]], "params": [{"temperature": 1.0, "top_k": 1}]},
    {"logits": [[1.0, 2.0, 3.0]], "params": [{"temperature": 1.0, "top_p": 0.01}]},
    {"logits": [[1.0, 2.0, 3.0]], "params": [{"temperature": 1.0, "min_p": 1.0}]},
    {"logits": [[1.0, 2.0, 3.0]], "params": [{"temperature": 1e-6}]},
    {"logits": [[0.5, 3.0, 1.0], [2.0, 0.0, 2.5]], "params": [{"temperature": 1.0, "top_k": 1}, GREEDY]},
    {"logits": [[0.1, 0.3, 0.2], [1.0, 2.0, 3.0]], "params": [GREEDY, {"temperature": 9.0, "top_p": 0.01}]},
    {"logits": [[-INF, 2.0, -INF, 1.0]], "params": [{"temperature": 1.0, "top_k": 1}]},
    {"logits": [[1.0, 3.0, 2.0], [9.0, 8.0, 7.0]], "params": [{"temperature": 1.0, "top_k": 1}] * 2},
    {"logits": [[1.0, 3.0, 2.0]], "params": [GREEDY], "dtype": "bfloat16"},
    {
        "logits": [[1.0, 3.0, 2.0], [1.0, 2.0, 4.0]],
        "params": [GREEDY, {"temperature": 1.0, "top_k": 1}],
        "dtype": "bfloat16",
    },
    {"logits": [[1.0, 2.0, 4.0]], "params": [{"temperature": 1.0, "top_p": 0.01}], "dtype": "float16"},
    {"logits": [[1.0, 2.0, 4.0]], "params": [{"temperature": 0.01}], "dtype": "float16"},
]


@sample.check(CERTAIN_CASES, say_logits, draw_tokens)
def certain(case: Case) -> Answer:
    return [best_of(row) for row in case["logits"]]


@certain.shows("rank-not-id")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return all(got == 0 for one, want, got in zip(case["params"], expected, answer, strict=True) if want != got and one)


@certain.shows("not-float32")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer) and "dtype" in case


# --- rows without a distribution

NAN = math.nan
ODD_CASES: list[Case] = [
    {"logits": [[1.0, NAN, 2.0]], "params": [{"temperature": 1.0}]},
    {"logits": [[1.0, 2.0, NAN, 0.0]], "params": [{"temperature": 1.0, "top_k": 2}]},
    {"logits": [[1.0, INF, 2.0]], "params": [{"temperature": 1.0}]},
    {"logits": [[1.0, INF, 2.0]], "params": [{"temperature": 2.0, "top_p": 0.5}]},
    {"logits": [[INF, NAN, 2.0]], "params": [{"temperature": 1.0, "min_p": 0.1}]},
    {"logits": [[1.0, NAN, 2.0]], "params": [GREEDY]},
    {"logits": [[-INF, -INF, -INF]], "params": [{"temperature": 1.0}]},
    {"logits": [[1.0, NAN, 2.0], [1.0, 3.0, 2.0]], "params": [{"temperature": 1.0}, {"temperature": 1.0, "top_k": 1}]},
    {"logits": [[0.0, 1.0, NAN], [1.0, 3.0, 2.0], [0.0, INF, 9.0]], "params": [GREEDY, GREEDY, {"temperature": 1.0}]},
]


@sample.check(ODD_CASES, say_logits, draw_tokens, with_wildcards)
def odd_rows(case: Case) -> Answer:
    def argmax(row: list[float]) -> Any:
        for i, logit in enumerate(row):
            if math.isnan(logit):
                return i
        return ANY if max(row) == -INF else best_of(row)

    return [argmax(row) for row in case["logits"]]


@odd_rows.shows("no-distribution")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    odd = [any(math.isnan(x) or x == INF for x in row) or max(row) == -INF for row in case["logits"]]
    return is_raised(answer) or all(o for o, e, a in zip(odd, expected, answer, strict=True) if e not in (ANY, a))


# --- alone and in company

MANY = [round(math.sin(7.0 * i), 3) for i in range(50)]
TOGETHER_CASES: list[Case] = [
    {"logits": [MANY] * 2, "params": [{"temperature": 1.0}] * 2, "seeds": [1, 2], "positions": [3, 3]},
    {"logits": [MANY] * 3, "params": [{"temperature": 1.0}] * 3, "seeds": [4, 4, 5], "positions": [3, 7, 7]},
    {
        "logits": [MANY, MANY[::-1], MANY, MANY],
        "params": [{"temperature": 1.0 + 0.5 * i, "top_k": 20, "top_p": 0.9} for i in range(4)],
        "seeds": [11, 12, 13, 14],
        "positions": [9, 2, 30, 4],
    },
    {
        "logits": [MANY[i:] + MANY[:i] for i in range(6)],
        "params": [{"temperature": 1.0 + 0.2 * i, "min_p": 0.05} for i in range(6)],
        "seeds": [3, 1, 4, 1, 5, 9],
        "positions": [2, 6, 5, 3, 5, 8],
    },
]


def say_together(case: Case) -> str:
    rows = zip(case["params"], case["seeds"], case["positions"], strict=True)
    lines = [f"row {i}: seed {s}, position {p}, {say_params(one)}" for i, (one, s, p) in enumerate(rows)]
    how = "in the batch, alone, with the rows reversed, and beside a row with top-p"
    return "\n".join([f"{len(MANY)} tokens; {how}", *lines])


def draw_together(case: Case, answer: Answer) -> str:
    """Equal tokens of a row share a letter."""
    heads = ["", "batch", "alone", "reversed", "beside"]
    return table([heads, *([f"row {i}", *as_letters(row)] for i, row in enumerate(answer))])


def all_alike(_case: Case, expected: Answer, answer: Answer) -> bool:
    return all(len(set(row)) == 1 for row in answer)


@sample.check(TOGETHER_CASES, say_together, draw_together, all_alike)
def together(case: Case) -> Answer:
    return [[0] * 4 for _ in case["seeds"]]


@together.shows("shared-rng")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return any(len(set(row[:3])) > 1 for row in answer)


@together.shows("noise-by-rank")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return not is_ranked(case["params"][0]) and all(len(set(row[:3])) == 1 for row in answer)


# --- the input


def draw_logits(case: Case, answer: Answer) -> str:
    return "\n".join("logits " + " ".join(number(logit) for logit in row) for row in answer)


@sample.check(
    [
        {"logits": [[1.0, 3.0, 2.0]], "params": [{"temperature": 2.0}]},
        {"logits": [[1.0, 3.0, 2.0], [3.0, 0.0, 2.0]], "params": [{"temperature": 2.0, "top_k": 2}, GREEDY]},
        {"logits": [[1.0, 3.0, 2.0]], "params": [{"temperature": 0.5, "min_p": 0.5}]},
    ],
    say_logits,
    draw_logits,
)
def sample_input(case: Case) -> Answer:
    return case["logits"]


@sample_input.shows("in-place")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return True


# ------------------------------------------------------------------------------------------- 6.6, log-probabilities

top_logprobs = Exercise(
    "6.6",
    section="How sure the model was",
    hints=(
        "Which tokens does the dict hold, in which order, and what do the exponentials of all log-probabilities add "
        "up to?",
        "The k most likely tokens in order, then the chosen one if it is not among them; each with the logarithm of "
        "its probability in "
        "the whole vocabulary.",
        "Logits as float32, log-softmax over the vocabulary, its k largest with their ids; then set the chosen "
        "token's entry, which "
        "changes nothing if it is there already.",
    ),
)
top_logprobs.mistake(
    "chosen-missing",
    "The caller wants to know about the token that was chosen. Where is it?",
    "Only the k most likely are there; a chosen token that is not among them must have an entry too.",
    "Add the chosen token's entry to the dict of each row.",
)
top_logprobs.mistake(
    "one-more",
    "How many entries has the dict if the chosen token is among the k most likely?",
    "There is an entry too many: room for the chosen token was made whether it needs it or not.",
    "Take k tokens, not k + 1, and add the chosen one only if it is missing.",
)
top_logprobs.mistake(
    "chosen-first",
    "Which token is the first of the dict, by the docstring?",
    "The entries are right, but not in order, most likely first: a dict keeps the order in which its keys came.",
    "Put the k most likely in first, and the chosen token after them.",
)
top_logprobs.mistake(
    "probabilities",
    "Can a log-probability be above 0?",
    "These are the probabilities; their natural logarithms are wanted.",
    "Use the logarithm of the softmax.",
)
top_logprobs.mistake(
    "raw-logits",
    "What do the exponentials of these numbers add up to?",
    "These are the logits as they came. Shifting them all changes no probability, but it would change these numbers.",
    "Normalise over the vocabulary first, by log-softmax.",
)
top_logprobs.mistake(
    "over-top-k",
    "Over how many tokens do these probabilities add up to 1?",
    "They were normalised over the k most likely alone, as if no others existed.",
    "Normalise over the whole vocabulary, then pick the k largest.",
)
top_logprobs.mistake(
    "other-base",
    "Which logarithm is natural?",
    "All numbers are off by one and the same factor: this is a logarithm to base 2 or 10.",
    "Take the one to base e.",
)
top_logprobs.mistake(
    "k-beyond-row",
    "What are the 9 most likely of 4 tokens?",
    "A k above the vocabulary means the whole distribution, but here it asks for more tokens than there are.",
    "Bound k by the size of the vocabulary.",
)
top_logprobs.mistake(
    "half-precision",
    "How many digits does a bfloat16 have?",
    "Only the 16-bit logits give wrong numbers: the logarithms were computed in 16 bits too.",
    "Convert the logits to float32 before the log-softmax.",
)

QUARTERS = logs(20, 50, 5, 25)
LOGPROBS_CASES: list[Case] = [
    {"logits": [QUARTERS], "tokens": [1], "k": 1},
    {"logits": [QUARTERS], "tokens": [0], "k": 0},
    {"logits": [QUARTERS], "tokens": [2], "k": 1},
    {"logits": [QUARTERS], "tokens": [3], "k": 2},
    {"logits": [QUARTERS], "tokens": [0], "k": 2},
    {"logits": [QUARTERS], "tokens": [0], "k": 4},
    {"logits": [QUARTERS], "tokens": [2], "k": 9},
    {"logits": [[logit + 3 for logit in QUARTERS]], "tokens": [2], "k": 2},
    {"logits": [[1.0, 1.0, -1.0]], "tokens": [2], "k": 1},
    {"logits": [QUARTERS, QUARTERS[::-1]], "tokens": [1, 3], "k": 2},
    {"logits": [QUARTERS, [4.0, 2.0, 3.0, 1.0], [0.5, 0.0, 9.0, -9.0]], "tokens": [2, 0, 1], "k": 1},
    {"logits": [[10.0, 9.0, 8.0, 7.5], [2.0, 3.0, 0.0, 1.0]], "tokens": [3, 1], "k": 2, "dtype": "bfloat16"},
]


def say_logprobs(case: Case) -> str:
    k, dtype = case["k"], f" ({case['dtype']})" if "dtype" in case else ""
    lines = []
    for row, token in zip(case["logits"], case["tokens"], strict=True):
        shares = " ".join(map(percent, shares_of(row)))
        lines.append(f"logits {' '.join(map(number, row))}{dtype} ({shares}); chosen {token}; k = {k}")
    return "\n".join(lines)


def draw_logprobs(case: Case, answer: Answer) -> str:
    return "\n".join("{" + ", ".join(f"{int(token)}: {value:.3f}" for token, value in row) + "}" for row in answer)


def same_logprobs(case: Case, expected: Answer, answer: Answer) -> bool:
    """The same numbers in the same order, of the same tokens; tokens that are as likely may stand for each other."""
    for logits, token, right, got in zip(case["logits"], case["tokens"], expected, answer, strict=True):
        if (token in [i for i, _ in right]) != (token in [i for i, _ in got]):
            return False
        for (i, value), (j, other) in zip(right, got, strict=True):
            if logits[i] != logits[j] or not math.isclose(value, other, abs_tol=2e-4):
                return False
    return True


def full_logprobs(logits: list[float]) -> list[tuple[int, float]]:
    """All tokens with their log-probabilities, most likely first."""
    probabilities = shares_of(logits)
    return sorted(((i, math.log(p)) for i, p in enumerate(probabilities)), key=lambda pair: (-pair[1], pair[0]))


def entries(case: Case, change: Callable[[list[Any], int, int, list[float]], list[Any]]) -> Answer:
    """change(all tokens in order, k, chosen, logits) for each row."""
    return [
        [list(pair) for pair in change(full_logprobs(row), case["k"], token, row)]
        for row, token in zip(case["logits"], case["tokens"], strict=True)
    ]


def wanted(ranked: list[Any], k: int, token: int, _logits: Any = None) -> list[Any]:
    return ranked[:k] + [pair for pair in ranked[k:] if pair[0] == token]


@top_logprobs.check(LOGPROBS_CASES, say_logprobs, draw_logprobs, same_logprobs)
def logprobs(case: Case) -> Answer:
    return entries(case, wanted)


@logprobs.predicts("chosen-missing")
def _(case: Case) -> Answer:
    return entries(case, lambda ranked, k, token, _: ranked[:k])


for longer in (
    lambda ranked, k, token, _: wanted(ranked, k + 1, token),
    lambda ranked, k, token, _: ranked[: k + 1],
):
    logprobs.predicts("one-more")(lambda case, longer=longer: entries(case, longer))


@logprobs.predicts("chosen-first")
def _(case: Case) -> Answer:
    def first(ranked: list[Any], k: int, token: int, _: Any) -> list[Any]:
        return [pair for pair in ranked if pair[0] == token] + [pair for pair in ranked[:k] if pair[0] != token]

    return entries(case, first)


@logprobs.predicts("probabilities")
def _(case: Case) -> Answer:
    return entries(case, lambda *row: [(i, math.exp(value)) for i, value in wanted(*row)])


@logprobs.predicts("raw-logits")
def _(case: Case) -> Answer:
    return entries(case, lambda ranked, k, token, logits: [(i, logits[i]) for i, _ in wanted(ranked, k, token)])


@logprobs.shows("over-top-k")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """The k most likely ones add up to 1."""
    sums = [math.fsum(math.exp(value) for _, value in row[: case["k"]]) for row in answer]
    return all(math.isclose(total, 1, abs_tol=1e-3) for total in sums)


for base in (2, 10):
    logprobs.predicts("other-base")(
        lambda case, base=base: entries(
            case, lambda *row: [(token, value / math.log(base)) for token, value in wanted(*row)]
        )
    )


@logprobs.shows("k-beyond-row")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer) and case["k"] > len(case["logits"][0])


@logprobs.shows("half-precision")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    near = all(
        i == j and math.isclose(value, other, rel_tol=0.02, abs_tol=0.02)
        for right, got in zip(expected, answer, strict=True)
        for (i, value), (j, other) in zip(right, got, strict=True)
    )
    return "dtype" in case and near


# ------------------------------------------------------------------------------------------- transformers' own answers

EVERYTHING = 10**6
"""A window that no sequence reaches."""

_asking = threading.RLock()


@functools.cache
def model_of(kind: str, window: int) -> Any:
    """The tiny model with transformers' own eager attention."""
    from course.grading.tiny import tiny_model

    model = tiny_model(kind, window)
    model.set_attn_implementation("eager")
    return model


@functools.cache
def all_logits(kind: str, window: int, ids: tuple[int, ...]) -> list[list[float]]:
    """The logits after each token of a sequence that is alone."""
    import torch

    with _asking, torch.no_grad():
        return model_of(kind, window)(input_ids=torch.tensor([ids]), use_cache=False).logits[0].tolist()


def next_logits(case: Case, ids: Sequence[int], window: int = 0) -> list[float]:
    """The logits after a sequence."""
    return all_logits(case.get("model", "llama"), window or case.get("window") or 8, tuple(ids))[-1]


def best_token(case: Case, ids: Sequence[int]) -> int:
    logits = next_logits(case, ids)
    return logits.index(max(logits))


def continuation(case: Case, ids: Sequence[int], n: int) -> list[int]:
    """The n tokens that are most likely, one after the other."""
    tokens: list[int] = []
    for _ in range(n):
        tokens.append(best_token(case, [*ids, *tokens]))
    return tokens


def near_logits(_case: Case, expected: Answer, answer: Answer) -> bool:
    """Rows of logits that are equal but for rounding."""
    if expected == ANY:
        return True
    if isinstance(expected, list):
        return len(expected) == len(answer) and all(
            near_logits(_case, e, a) for e, a in zip(expected, answer, strict=True)
        )
    return math.isclose(expected, answer, abs_tol=2e-3)


def said_logits(row: list[float]) -> str:
    """The two most likely tokens, which is what the eye can compare."""
    order = sorted(range(len(row)), key=lambda token: -row[token])[:2]
    return "  ".join(f"{token} ({row[token]:.2f})" for token in order)


def said_ids(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def all_ids(sequence: dict[str, Any]) -> list[int]:
    return [*sequence["prompt"], *sequence.get("output", [])]


# ------------------------------------------------------------------------------------------- 6.7, lengths

prefill_length = Exercise(
    "6.7",
    section="How long a row is",
    hints=(
        "Write the lengths down that are allowed: on a CPU from 32 to 256, on a GPU from 128 to 1024. Which is the "
        "first that is long enough?",
        "On a GPU: powers of two, none below `prefill_block`. On a CPU: quarters of the way from one power of two to "
        "the next, "
        "as far as they are multiples of `prefill_block`.",
        "Find the power of two that is at least n. On a GPU that is it, but for the lower bound; on a CPU round n up "
        "to a multiple "
        "of an eighth of that power, or of `prefill_block` if that is more.",
    ),
    preload=MODELS,
)
prefill_length.mistake(
    "rounds-down",
    "Do all tokens fit into a row of that length?",
    "The length is below the number of tokens: the division rounds down.",
    "Round up: the smallest multiple that is not below n.",
)
prefill_length.mistake(
    "plus-one-step",
    "How long must the row be if the tokens fill an allowed length exactly?",
    "Where n is an allowed length already, the row is a step longer than needed: one is added to the quotient in "
    "every case.",
    "Round up so that multiples stay as they are.",
)
prefill_length.mistake(
    "power-too-big",
    "Which power of two is the smallest that is at least 256?",
    "A power of two is taken for the one below it: `bit_length` of 256 is 9.",
    "Ask for the bits of n - 1.",
)
prefill_length.mistake(
    "always-powers",
    "130 tokens on a CPU: how much of a row of 256 is padding?",
    "The powers of two are for GPUs, where each length costs a graph. On a CPU only the padding costs.",
    "Branch on the device, and take four lengths between one power of two and the next on a CPU.",
)
prefill_length.mistake(
    "cpu-rule-on-gpu",
    "How many graphs does a GPU compile if prompts take all these lengths?",
    "The device makes no difference: the lengths of a CPU are used on a GPU too.",
    "Branch on the device; on a GPU only powers of two are allowed.",
)
prefill_length.mistake(
    "only-blocks",
    "How many lengths are there between 512 and 1024?",
    "Every multiple of `prefill_block` is taken. The steps should grow with the length: four from one power of two to "
    "the next.",
    "Let the step be an eighth of the power of two above n, but at least `prefill_block`.",
)
prefill_length.mistake(
    "not-a-block",
    "Is that a multiple of `prefill_block`?",
    "Short rows come out shorter than a block, or between two multiples of it.",
    "Bound the step, and on a GPU the length, from below by `prefill_block`.",
)
prefill_length.mistake(
    "wrong-steps",
    "How many lengths are there from 257 to 512?",
    "The steps are not a quarter of the way from one power of two to the next. The way from 256 to 512 is half of 512.",
    "A quarter of the way is an eighth of the upper power.",
)

ON_A_CPU = (1, 20, 32, 33, 64, 65, 100, 128, 129, 150, 256, 257, 300, 384, 512, 513, 700, 1024, 1025)
ON_A_GPU = (1, 100, 128, 129, 200, 256, 257, 600, 1024)


def allowed_lengths(block: int, gpu: bool, parts: int = 4) -> list[int]:
    """Allowed lengths up to 4096, by listing them."""
    found = set()
    for exponent in range(13):
        power = 2**exponent
        found |= {power} if gpu else {power + power * part // parts for part in range(parts + 1)}
    return sorted(length for length in found if length % block == 0)


def first_length(n: int, lengths: Iterable[int]) -> int:
    return next(length for length in lengths if length >= n)


def say_length(case: Case) -> str:
    return (
        f"{case['n']} token{'s' * (case['n'] > 1)} on a {'GPU, blocks of 128' if case['gpu'] else 'CPU, blocks of 32'}"
    )


def draw_length(case: Case, answer: Answer) -> str:
    spare = answer - case["n"]
    if spare < 0:
        return f"{answer}, too short by {-spare}"
    return f"{answer}, {spare} of it padding" if spare else f"{answer}, no padding"


@prefill_length.check([{"n": n, "gpu": False} for n in ON_A_CPU], say_length, draw_length)
def on_a_cpu(case: Case) -> Answer:
    return first_length(case["n"], allowed_lengths(32, gpu=False))


@prefill_length.check([{"n": n, "gpu": True} for n in ON_A_GPU], say_length, draw_length)
def on_a_gpu(case: Case) -> Answer:
    return first_length(case["n"], allowed_lengths(128, gpu=True))


def power_above(n: int) -> int:
    return first_length(n, [2**exponent for exponent in range(13)])


def cpu_step(n: int, parts: int = 8) -> int:
    return max(power_above(n) // parts, 32)


on_a_cpu.predicts("rounds-down")(lambda case: case["n"] - case["n"] % cpu_step(case["n"]))
on_a_cpu.predicts("plus-one-step")(lambda case: case["n"] - case["n"] % cpu_step(case["n"]) + cpu_step(case["n"]))
on_a_cpu.predicts("always-powers")(lambda case: max(32, power_above(case["n"])))
on_a_cpu.predicts("only-blocks")(lambda case: first_length(case["n"], range(32, 9999, 32)))
on_a_gpu.predicts("power-too-big")(lambda case: max(128, power_above(case["n"] + 1)))
on_a_gpu.predicts("cpu-rule-on-gpu")(lambda case: first_length(case["n"], allowed_lengths(128, gpu=False)))
on_a_gpu.predicts("only-blocks")(lambda case: first_length(case["n"], range(128, 9999, 128)))


@on_a_gpu.predicts("rounds-down")
def _(case: Case) -> Answer:
    power = power_above(case["n"])
    return max(128, power if power == case["n"] else power // 2)


@on_a_cpu.shows("not-a-block")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer, "ZeroDivisionError") or (answer % 32 != 0 and answer >= case["n"])


@on_a_gpu.shows("not-a-block")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return answer % 128 != 0 and answer >= case["n"]


for parts in (4, 16):
    on_a_cpu.predicts("wrong-steps")(
        lambda case, parts=parts: first_length(case["n"], range(0, 9999, cpu_step(case["n"], parts)))
    )


# ------------------------------------------------------------------------------------------- 6.8 and 6.10, masks
#
# An answer holds `blocks`, rows of ■ (full), ▒ (partial) and · (not listed); `reads`, the keys that each query reads by
# them; `mod_reads`, those that it reads if only the mask_mod is asked.

Reads = list[list[int]]


def by_blocks(firsts: list[int], lasts: list[int], K: int, q_block: int, k_block: int, mod: Reads) -> Answer:
    """The mask of queries that read first … last, with whatever mask_mod says in partial blocks."""
    blocks: list[str] = []
    reads: Reads = [[] for _ in firsts]
    for top in range(0, len(firsts), q_block):
        queries = range(top, min(top + q_block, len(firsts)))
        line = ""
        for left in range(0, K, k_block):
            keys = range(left, left + k_block)
            read = {q: [k for k in keys if firsts[q] <= k <= lasts[q]] for q in queries}
            kind = "■" if all(len(one) == k_block for one in read.values()) else "▒" if any(read.values()) else "·"
            line += kind
            for q in queries:
                if kind != "·":
                    reads[q] += [k for k in keys if kind == "■" or k in mod[q]]
        blocks.append(line)
    return {"blocks": blocks, "reads": reads, "mod_reads": mod}


def relisted(mask: Answer, kinds: dict[str, str], size: tuple[int, int]) -> Answer:
    """The same mask with kinds of blocks exchanged."""
    q_block, k_block = size
    lines = ["".join(kinds.get(kind, kind) for kind in line) for line in mask["blocks"]]
    reads: Reads = [[] for _ in mask["reads"]]
    for q, kept in enumerate(reads):
        for i, kind in enumerate(lines[q // q_block]):
            keys = range(i * k_block, (i + 1) * k_block)
            kept += [k for k in keys if kind == "■" or (kind == "▒" and k in mask["mod_reads"][q])]
    return {**mask, "blocks": lines, "reads": reads}


def same_mask(_case: Case, expected: Answer, answer: Answer) -> bool:
    """The same blocks are listed and the same keys read; a block that all read may be listed as partial."""
    listed = [
        ["".join("·" if kind == "·" else "#" for kind in line) for line in one["blocks"]] for one in (expected, answer)
    ]
    return listed[0] == listed[1] and all(expected[name] == answer[name] for name in ("reads", "mod_reads"))


get_prefill_block_mask = Exercise(
    "6.8",
    section="The blocks of a packed row",
    hints=(
        "Take one row of blocks. Which keys does its first token read, and which its last?",
        "Each token reads one interval of keys: from the beginning of its document, or of its window if that is "
        "later, to itself. "
        "A block is listed if one token of the row reads of it, and full only if every token reads all of it.",
        "Work out the first and the last key of each token as tensors of L; `visible_blocks` makes maps of blocks of "
        "them and "
        "`block_mask_from_blocks` the BlockMask, with the mask_mod of the window.",
    ),
    preload=MODELS,
)
get_prefill_block_mask.mistake(
    "ignores-documents",
    "Where does the second document begin, and what may its tokens read?",
    "Blocks of earlier documents are listed: the first key of a token was taken to be key 0.",
    "Begin at `start_L`, the place where the token's document begins.",
)
get_prefill_block_mask.mistake(
    "ignores-window",
    "How far back does a token of this layer read?",
    "The window made no difference to the blocks: they reach back to the beginning of the document.",
    "The first key is the later of two: the beginning of the document and of the window.",
)
get_prefill_block_mask.mistake(
    "window-plus-one",
    "With a window of 3, which keys does token 7 read, itself included?",
    "The window is one key too long.",
    "The first key of token q is q - window + 1.",
)
get_prefill_block_mask.mistake(
    "window-only",
    "Where does the window of a document's first token begin?",
    "The window reaches back over the beginning of the document, into another one.",
    "Take the later of the window's beginning and `start_L`.",
)
get_prefill_block_mask.mistake(
    "future",
    "Which is the last key that a token may read?",
    "Blocks are listed that lie after the tokens that read them.",
    "The last key of each token is the token itself.",
)
get_prefill_block_mask.mistake(
    "swapped",
    "In which kind of block is the mask_mod asked, in partial or in full ones?",
    "Partial and full blocks have changed places.",
    "`visible_blocks` gives partial first, then full, and `block_mask_from_blocks` takes them in that order.",
)
get_prefill_block_mask.mistake(
    "full-for-partial",
    "Who asks the mask_mod in a full block?",
    "Blocks are listed as full though not every token of the row reads all of them; nobody checks their entries.",
    "A block is full only if every token of its row reads all of its keys.",
)
get_prefill_block_mask.mistake(
    "lists-everything",
    "How many blocks does the kernel read for this row, and how many does it need?",
    "Blocks are listed that no token of the row reads. The tokens come out right, and slowly.",
    "List a block only if one of its row's tokens reads a key of it.",
)
get_prefill_block_mask.mistake(
    "wrong-mod",
    "Whose mask_mod decides inside a partial block of this window?",
    "The blocks are right, but the mask_mod is the one of another window.",
    "Look the mask_mod up in `_prefill_mods` by the window that was asked for.",
)


def packed_cases() -> list[Case]:
    plain = [
        ([4], 0),
        ([8], 0),
        ([3], 1),
        ([4, 4], 0),
        ([3, 5], 0),
        ([6, 2], 0),
        ([5], 3),
        ([8, 8], 0),
        ([2, 3, 6], 1),
        ([9, 2], 5),
    ]
    windowed = [([8], 0, 3), ([12], 0, 6), ([16], 0, 5), ([4, 8], 0, 6), ([7, 5], 4, 3), ([16], 0, 9), ([10, 6], 0, 8)]
    return [
        {"lengths": lengths, "padding": padding, "window": None, "block": 4, "sizes": {"page_size": 8}}
        for lengths, padding in plain
    ] + [
        {
            "model": "gemma2",
            "lengths": lengths,
            "padding": padding,
            "window": window,
            "block": 4,
            "sizes": {"page_size": 8},
        }
        for lengths, padding, window in windowed
    ]


def packed(case: Case) -> tuple[list[int], list[int]]:
    """Where the document of each token begins, and the number of the document."""
    starts: list[int] = []
    documents: list[int] = []
    for length in [*case["lengths"], *[1] * case["padding"]]:
        documents += [len(set(documents))] * length
        starts += [len(starts)] * length
    return starts, documents


def packed_reads(case: Case, windowed: bool = True) -> Reads:
    """Which keys each token reads, by asking for each pair."""
    _, documents = packed(case)
    window = case["window"] if windowed and case["window"] else EVERYTHING
    n = len(documents)
    return [[k for k in range(q + 1) if documents[k] == documents[q] and q - k < window] for q in range(n)]


def say_packed(case: Case) -> str:
    lengths = " and ".join(map(str, case["lengths"]))
    said = f"documents of {lengths} tokens" if len(case["lengths"]) > 1 else f"a document of {lengths} tokens"
    said += f", {case['padding']} of padding" if case["padding"] else ""
    said += f"; window {case['window']}" if case["window"] else "; no window"
    return f"{said}\nblocks of {case['block']} by {case['block']}; beside each row of blocks, how many keys its tokens read"


def draw_packed(case: Case, answer: Answer) -> str:
    counts = [str(len(keys)) for keys in answer["reads"]]
    size, lines = case["block"], []
    for i, line in enumerate(answer["blocks"]):
        rows = slice(i * size, (i + 1) * size)
        lines.append(f"{rows.start:>2}-{rows.stop - 1:<2}  {' '.join(line)}  read {' '.join(counts[rows])}")
    pairs, alone = sum(map(len, answer["reads"])), sum(map(len, answer["mod_reads"]))
    apart = [f"{pairs} pairs; by mask_mod alone {alone}"] if pairs != alone else []
    return "\n".join([*lines, *apart, "■ full  ▒ partial  · not listed"])


def packed_by(
    case: Case, first: Callable[[int, int, int], int], last: Callable[[int, int], int] = lambda q, n: q
) -> Answer:
    """first(q, beginning of its document, window), last(q, L)."""
    starts, _ = packed(case)
    n, window = len(starts), case["window"] or EVERYTHING
    firsts = [first(q, starts[q], window) for q in range(n)]
    lasts = [last(q, n) for q in range(n)]
    return by_blocks(firsts, lasts, n, case["block"], case["block"], packed_reads(case))


def first_read(q: int, start: int, window: int) -> int:
    return max(start, q - window + 1)


@get_prefill_block_mask.check(packed_cases, say_packed, draw_packed, same_mask)
def packed_mask(case: Case) -> Answer:
    return packed_by(case, first_read)


packed_mask.predicts("ignores-documents")(lambda case: packed_by(case, lambda q, start, window: max(0, q - window + 1)))
packed_mask.predicts("ignores-window")(lambda case: packed_by(case, lambda q, start, window: start))
packed_mask.predicts("window-plus-one")(lambda case: packed_by(case, lambda q, start, window: max(start, q - window)))
packed_mask.predicts("window-only")(
    lambda case: packed_by(case, lambda q, start, window: max(0, q - window + 1) if case["window"] else start)
)


def block_pair(case: Case) -> tuple[int, int]:
    return case["block"], case["block"]


def end_of_document(case: Case) -> Callable[[int, int], int]:
    starts, _ = packed(case)
    return lambda q, n: max(i for i, start in enumerate(starts) if start == starts[q])


foretell(
    packed_mask,
    "future",
    lambda case: packed_by(case, first_read, lambda q, n: n - 1),
    lambda case: packed_by(case, first_read, lambda q, n: min(q + 1, n)),
    lambda case: packed_by(case, first_read, end_of_document(case)),
)


def exactly(check: Check, slug: str, kinds: dict[str, str]) -> None:
    """A mistake in the kinds of blocks alone, where a full one may not pass for a partial one."""

    @check.shows(slug)
    def _(case: Case, expected: Answer, answer: Answer) -> bool:
        return bool(answer == relisted(expected, kinds, block_pair(case)))


exactly(packed_mask, "swapped", {"■": "▒", "▒": "■"})
exactly(packed_mask, "full-for-partial", {"▒": "■"})


@packed_mask.shows("lists-everything")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """More blocks than needed, and nothing wrong with what is read."""
    needed = all(
        kind != "·" or want == "·"
        for line, right in zip(answer["blocks"], expected["blocks"], strict=True)
        for kind, want in zip(line, right, strict=True)
    )
    everything = all("·" not in line[: i + 1] for i, line in enumerate(answer["blocks"]))
    return needed and everything and all(answer[name] == expected[name] for name in ("reads", "mod_reads"))


@packed_mask.predicts("wrong-mod")
def _(case: Case) -> Answer:
    mask = packed_mask.expected(case)
    return relisted({**mask, "mod_reads": packed_reads(case, windowed=False)}, {}, block_pair(case))


# --------------------------------------------------------------------------- 6.10

get_decoding_block_mask = Exercise(
    "6.10",
    section="What a decode step reads",
    hints=(
        "Take one row. At which position is its token, and which positions does that token read, the first and the "
        "last?",
        "Row b reads from the beginning, or from its window's, up to `positions[b]`, itself included; a row of slot 0 "
        "reads nothing. "
        "With one query a row, a page is full if it lies inside that interval as a whole.",
        "Make the first and last position of each row as tensors [B, 1], with a last below the first for padding; "
        "`visible_blocks` in "
        "blocks of (1, page_size), and `block_mask_from_blocks` with the mask_mod of the window.",
    ),
    preload=MODELS,
)
get_decoding_block_mask.mistake(
    "position-is-not-length",
    "The newest token is at position 3. How many tokens are there, and which page holds the next one?",
    "The last position read is one too late: it was taken for a number of tokens, or one was added.",
    "The row reads up to `positions[b]` itself, and not beyond.",
)
get_decoding_block_mask.mistake(
    "forgets-itself",
    "Does a token read its own key?",
    "The last position read is one too early: the newest token is left out.",
    "The row reads up to `positions[b]`, itself included.",
)
get_decoding_block_mask.mistake(
    "row-or-slot",
    "`positions` is indexed by what, rows or slots?",
    "The position was looked up by slot; row b is at `positions[b]`, whatever its slot.",
    "Take the first B entries of `positions`.",
)
get_decoding_block_mask.mistake(
    "padding-reads",
    "What does a row of slot 0 stand for, and what should it cost?",
    "Rows of padding list pages.",
    "Give rows of slot 0 an empty interval: a last position below the first.",
)
get_decoding_block_mask.mistake(
    "ignores-window",
    "How far back does a token of this layer read?",
    "The window made no difference to the pages: they are listed from the beginning.",
    "With a window the first position is `positions[b]` - window + 1, but not below 0.",
)
get_decoding_block_mask.mistake(
    "window-plus-one",
    "With a window of 3, which positions does the token at 7 read, itself included?",
    "The window is one key too long.",
    "The first position read is position - window + 1.",
)
get_decoding_block_mask.mistake(
    "full-for-partial",
    "Who asks the mask_mod in a full page, and what stands in its last places?",
    "Pages are listed as full of which the row reads a part only: the rest is stale, or outside of the window.",
    "A page is full only if the row reads all of it.",
)
get_decoding_block_mask.mistake(
    "all-partial",
    "Of which pages does the row read every key?",
    "All pages are listed as partial, so that the mask_mod is asked for every key of a long sequence.",
    "List those as full that lie inside what the row reads.",
)
get_decoding_block_mask.mistake(
    "swapped",
    "In which kind of page is the mask_mod asked, in partial or in full ones?",
    "Partial and full pages have changed places.",
    "`visible_blocks` gives partial first, then full, and `block_mask_from_blocks` takes them in that order.",
)
get_decoding_block_mask.mistake(
    "lists-everything",
    "How many pages does the kernel read for this row, and how many does it need?",
    "Pages are listed of which the row reads nothing: the mask_mod saves the result, but not the time.",
    "List a page only if a position that the row reads lies in it.",
)
get_decoding_block_mask.mistake(
    "wrong-mod",
    "Whose mask_mod decides inside a partial page of this window?",
    "The pages are right, but the mask_mod is the one of another window.",
    "Look the mask_mod up in `_decode_mods` by the window that was asked for.",
)

PAGES = {"page_size": 4, "max_seq_length": 20, "n_pages": 12}


def decode_cases() -> list[Case]:
    """`buffer` is all of `positions`: the rows' own, and what was left behind them."""
    rows = [
        ([2], [5, 9, 9, 9], None),
        ([2], [3, 9, 9, 9], None),
        ([2], [2, 6, 9, 1], None),
        ([1], [0, 4, 4, 4], None),
        ([3], [4, 8, 1, 6], None),
        ([3, 1], [6, 1, 11, 17], None),
        ([1, 2, 3], [10, 7, 3, 15], None),
        ([2, 0], [9, 9, 5, 0], None),
        ([0, 3, 1], [7, 18, 8, 2], None),
        ([2], [7, 3, 12, 3], 3),
        ([2], [9, 3, 1, 3], 6),
        ([1], [3, 11, 3, 3], 6),
        ([3, 1, 2], [14, 5, 9, 2], 8),
        ([2, 0, 1], [15, 15, 8, 1], 5),
        ([1, 3], [17, 2, 4, 10], 9),
    ]
    return [
        {
            "model": "gemma2" if window else "llama",
            "slots": slots,
            "buffer": buffer,
            "window": window,
            "sizes": PAGES,
            "block": 8,
        }
        for slots, buffer, window in rows
    ]


def say_decode(case: Case) -> str:
    rows = [f"row {i}: slot {slot}, position {case['buffer'][i]}" for i, slot in enumerate(case["slots"])]
    window = f"window {case['window']}" if case["window"] else "no window"
    return "\n".join([f"pages of 4 tokens, 5 in a row of the table; {window}", *rows])


def say_span(keys: list[int]) -> str:
    if not keys:
        return "none"
    if -1 in keys:
        return "not own"
    gaps = keys != list(range(keys[0], keys[-1] + 1))
    return " ".join(map(str, keys)) if gaps else f"{keys[0]}-{keys[-1]}" if len(keys) > 1 else str(keys[0])


def draw_decode(case: Case, answer: Answer) -> str:
    lines = []
    for i, (line, keys, alone) in enumerate(zip(answer["blocks"], answer["reads"], answer["mod_reads"], strict=True)):
        line = "".join(line)
        said = say_span(keys[0] if keys and isinstance(keys[0], list) else keys)
        lines.append(f"row {i} [ {' | '.join(line)} ] reads {said}")
        del alone
    return "\n".join([*lines, "■ full  ▒ partial  · not listed"])


def decode_by(
    case: Case, first: Callable[[int, int], int], last: Callable[[int, int, list[int]], int], **change: Any
) -> Answer:
    """first(position, window), last(position, row, buffer) with the position of each row; rows of slot 0 read nothing."""
    window = case["window"] or EVERYTHING
    answer: Answer = {"blocks": [], "reads": [], "mod_reads": []}
    for row, slot in enumerate(case["slots"]):
        position = last(case["buffer"][row], row, case["buffer"])
        end = position if slot or change.get("padding_reads") else -1
        mod = [
            k for k in range(20) if 0 <= case["buffer"][row] - k < (EVERYTHING if change.get("no_window") else window)
        ]
        one = by_blocks([max(0, first(position, window))], [end], 20, 1, 4, [mod])
        if kinds := change.get("kinds"):
            one = relisted(one, kinds, (1, 4))
        for name in answer:
            answer[name].append(one[name])
    return answer


def start_of_window(position: int, window: int) -> int:
    return position - window + 1


def own_position(position: int, row: int, buffer: list[int]) -> int:
    return position


def same_decode(case: Case, expected: Answer, answer: Answer) -> bool:
    """Same pages and keys; a page whose last place is the row's own position may be partial."""
    real = [row for row, slot in enumerate(case["slots"]) if slot]  # what a mask_mod says of padding is not promised
    if expected["reads"] != answer["reads"] or any(expected["mod_reads"][i] != answer["mod_reads"][i] for i in real):
        return False
    for want, got, keys in zip(expected["blocks"], answer["blocks"], expected["reads"], strict=True):
        own = keys[0][-1] // 4 if keys[0] else None
        for page, (right, kind) in enumerate(zip(want[0], got[0], strict=True)):
            if right != kind and not (page == own and (right, kind) == ("■", "▒")):
                return False
    return True


@get_decoding_block_mask.check(decode_cases, say_decode, draw_decode, same_decode)
def decode_mask(case: Case) -> Answer:
    return decode_by(case, start_of_window, own_position)


Variant = dict[str, Any]
LATE, EARLY = (lambda position, row, buffer: position + 1), (lambda position, row, buffer: position - 1)
DECODE_MISTAKES: dict[str, list[Variant]] = {
    "position-is-not-length": [{"last": LATE}, {"last": LATE, "first": lambda position, window: position - window}],
    "forgets-itself": [{"last": EARLY}, {"last": EARLY, "first": lambda position, window: position - window + 2}],
    "padding-reads": [{"padding_reads": True}],
    "ignores-window": [{"first": lambda position, window: 0}],
    "window-plus-one": [{"first": lambda position, window: position - window}],
    "full-for-partial": [{"kinds": {"▒": "■"}}],
    "all-partial": [{"kinds": {"■": "▒"}}],
    "swapped": [{"kinds": {"■": "▒", "▒": "■"}}],
    "lists-everything": [{"kinds": {"·": "▒"}}, {"kinds": {"·": "▒", "■": "▒"}}],
    "wrong-mod": [{"no_window": True}],
}


def decode_variant(variant: Variant) -> Callable[[Case], Answer]:
    return lambda case: decode_by(case, **{"first": start_of_window, "last": own_position, **variant})


for slug, variants in DECODE_MISTAKES.items():
    foretell(decode_mask, slug, *map(decode_variant, variants))


@decode_mask.shows("row-or-slot")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """Positions of other rows, or of rows that there are not."""
    if is_raised(answer):
        return crashed(answer, "IndexError") and max(case["slots"]) >= len(case["buffer"])
    foretold = decode_by(case, start_of_window, lambda position, row, buffer: buffer[case["slots"][row]])
    return same_decode(case, foretold, answer)


# ------------------------------------------------------------------------------------------- 6.9, prefill

prefill_sequences = Exercise(
    "6.9",
    section="Packed prefill",
    hints=(
        "Write the row down for prompts of 3 and 2 tokens: tokens, slots, positions, documents. Where does the answer "
        "of each prompt stand?",
        "The lists go token by token through all sequences and then through the padding. Positions begin anew with "
        "each sequence; "
        "the logits of a sequence are those at its last token.",
        "Build ids, slots, positions, documents, document starts and last places in one loop over the rows, pad them "
        "to `prefill_length`, "
        "write `documents`, make a mask for each window, and call `_forward` with a leading axis of 1 and the last "
        "places.",
    ),
    preload=MODELS,
)
prefill_sequences.mistake(
    "positions-run-on",
    "At which position of its own sequence does the second prompt begin?",
    "Positions count through the whole row. The second sequence is written to pages that it does not have, and RoPE "
    "turns it too far.",
    "Begin at 0 with each sequence.",
)
prefill_sequences.mistake(
    "row-not-slot",
    "The sequence is the first of the row. Is that its slot?",
    "The slots are numbers of the rows. The keys and values go to the pages of somebody else.",
    "Take `row.sequence.slot` for each token.",
)
prefill_sequences.mistake(
    "padding-in-a-slot",
    "Where are the keys of the padding written?",
    "Padding carries the slot of a sequence and overwrites its pages.",
    "Give padding slot 0, the sink.",
)
prefill_sequences.mistake(
    "padding-one-document",
    "Which tokens share a document with the first token of padding?",
    "All padding is one document, or belongs to one of the sequences. The docstring wants a number of its own for "
    "each.",
    "Count on with numbers that no sequence has, one for each token of padding.",
)
prefill_sequences.mistake(
    "stale-documents",
    "What stands in `documents` from the step before?",
    "`documents` was not written, so that the mask keeps together what belonged together in an earlier step.",
    "Write the documents of this row into the first L places of the buffer, in place: the masks hold on to that very "
    "tensor.",
)
prefill_sequences.mistake(
    "prompt-only",
    "The sequence was preempted after two tokens. Which keys did it lose?",
    "Only the prompt is computed again, and not the tokens that had been generated.",
    "Take all tokens of the sequence, prompt and output.",
)
prefill_sequences.mistake(
    "no-padding",
    "How long is the row, and how long should it be?",
    "The row is as long as its tokens, so each prefill has a length of its own.",
    "Fill up to `prefill_length` of the number of tokens.",
)
prefill_sequences.mistake(
    "last-index",
    "A prompt of 3 tokens begins at place 0. At which place is its last token?",
    "The logits are taken one place too late: at the first token of the next sequence, or in the padding.",
    "The last place of a sequence is where it begins plus its length minus 1; a running sum of lengths is one too "
    "high.",
)
prefill_sequences.mistake(
    "first-index",
    "Which token of a prompt has seen the whole prompt?",
    "The logits are those at the first token of each sequence, which has read nothing but itself.",
    "Take the place of the last token.",
)
prefill_sequences.mistake(
    "one-window",
    "Which of the model's layers read everything, and which a window?",
    "All layers read everything: the mask without a window was given for each.",
    "Make a mask for each of `windows` and pass them as a dict.",
)
prefill_sequences.mistake(
    "all-logits",
    "How many rows of logits does the model compute, and how many are needed?",
    "The result is right, but logits were computed at every place, one for each word of the vocabulary each time.",
    "Tell `_forward` by `logits_at` the places where logits are needed.",
)

SEQUENCES: list[list[dict[str, Any]]] = [
    [{"prompt": [5, 9, 3], "slot": 1}],
    [{"prompt": [7, 2], "slot": 2}, {"prompt": [11], "slot": 3}],
    [{"prompt": [5, 9, 3], "slot": 4}, {"prompt": [7, 2], "slot": 2}],
    [{"prompt": [5, 9, 3], "output": [8, 6], "slot": 3}],
    [{"prompt": [7, 2], "slot": 2}, {"prompt": [5, 9], "output": [3], "slot": 4}, {"prompt": [4], "slot": 1}],
    [
        {"prompt": [4, 8, 15, 16, 23, 42, 10], "slot": 3},
        {"prompt": [11, 12], "slot": 1},
        {"prompt": [9, 9, 9, 9], "slot": 2},
    ],
]


def sequence_cases() -> list[Case]:
    return [{"model": "llama", "sequences": sequences} for sequences in SEQUENCES]


def logit_cases() -> list[Case]:
    """With padding behind each row, and sequences longer than a window of 8."""
    long = [
        [{"prompt": [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30], "slot": 2}],
        [{"prompt": [4, 8, 15, 16, 23, 42, 10, 11, 12], "output": [13, 14], "slot": 4}, {"prompt": [7, 2], "slot": 1}],
        [
            {"prompt": list(range(40, 30, -1)), "slot": 1},
            {"prompt": list(range(5, 19)), "slot": 3},
            {"prompt": [6], "slot": 2},
        ],
    ]
    return sequence_cases() + [{"model": "gemma2", "sequences": one} for one in [SEQUENCES[2], *long]]


def say_sequences(case: Case) -> str:
    lines = []
    for one in case["sequences"]:
        output = f" + generated {said_ids(one['output'])}" if one.get("output") else ""
        lines.append(f"slot {one['slot']}: prompt {said_ids(one['prompt'])}{output}")
    model = "a model with windows of 8 and without" if case.get("model") == "gemma2" else ""
    return "\n".join([*lines, *([model] if model else [])])


def padded(values: list[Any], case: Case, fill: Any) -> list[Any]:
    length = first_length(len(values), allowed_lengths(4, gpu=False))
    return values + [fill] * (length - len(values))


def the_row(sequences: list[dict[str, Any]], **fill: Any) -> Answer:
    """What reaches the model; of padding only the slot and the document are promised."""
    tokens = [token for one in sequences for token in all_ids(one)]
    slots = [one["slot"] for one in sequences for _ in all_ids(one)]
    positions = [place for one in sequences for place in range(len(all_ids(one)))]
    documents: list[Any] = [f"document {i}" for i, one in enumerate(sequences) for _ in all_ids(one)]
    n = len(tokens)
    length = first_length(n, allowed_lengths(4, gpu=False))
    documents += [fill.get("document") or f"padding {i}" for i in range(n, length)]
    return {
        "tokens": padded(tokens, None, ANY),
        "slots": padded(slots, None, fill.get("slot", 0)),
        "positions": padded(positions, None, ANY),
        "documents": documents,
    }


def same_row_of_tokens(case: Case, expected: Answer, answer: Answer) -> bool:
    """Equal, but for what is not promised: tokens and positions of padding, and how documents are numbered."""
    others = all(with_wildcards(case, expected[name], answer[name]) for name in ("tokens", "slots", "positions"))
    if expected["documents"] == ANY:
        return others
    return others and as_letters(expected["documents"]) == as_letters(answer["documents"])


def draw_row(case: Case, answer: Answer) -> str:
    letters = list(as_letters(answer["documents"]).lower())
    lines = [
        [name, *(str(x) if x != ANY else "·" for x in answer[f"{name}s"])] for name in ("token", "slot", "position")
    ]
    return table([*lines, ["document", *letters]])


@prefill_sequences.check(sequence_cases, say_sequences, draw_row, same_row_of_tokens)
def packed_row(case: Case) -> Answer:
    return the_row(case["sequences"])


@packed_row.shows("positions-run-on")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    n = sum(len(all_ids(one)) for one in case["sequences"])
    run_on = answer["positions"][:n] == list(range(n))
    return run_on and same_row_of_tokens(case, {**expected, "positions": ANY}, answer)


@packed_row.shows("row-not-slot")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    numbered = [[i for i, one in enumerate(case["sequences"], start) for _ in all_ids(one)] for start in (0, 1)]
    n = len(numbered[0])
    others = same_row_of_tokens(case, {**expected, "slots": ANY}, answer)
    return answer["slots"][:n] in numbered and not any(answer["slots"][n:]) and others


@packed_row.shows("padding-in-a-slot")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    n = sum(len(all_ids(one)) for one in case["sequences"])
    same = answer["slots"][:n] == expected["slots"][:n]
    return same and any(answer["slots"][n:]) and same_row_of_tokens(case, {**expected, "slots": ANY}, answer)


@packed_row.shows("padding-one-document")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    n = sum(len(all_ids(one)) for one in case["sequences"])
    one = len(set(answer["documents"][n:])) == 1
    tokens = as_letters(answer["documents"][:n]) == as_letters(expected["documents"][:n])
    return one and tokens and same_row_of_tokens(case, {**expected, "documents": ANY}, answer)


@packed_row.shows("stale-documents")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return set(answer["documents"]) == {7} and same_row_of_tokens(case, {**expected, "documents": ANY}, answer)


@packed_row.shows("prompt-only")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    generated = any(one.get("output") for one in case["sequences"])
    if is_raised(answer):
        return crashed(answer) and generated  # the prompt's tokens do not fit to the row's number of tokens
    prompts = [token for one in case["sequences"] for token in one["prompt"]]
    n = sum(len(all_ids(one)) for one in case["sequences"])
    return generated and answer["tokens"][: len(prompts)] == prompts and answer["tokens"][:n] != expected["tokens"][:n]


@packed_row.predicts("no-padding")
def _(case: Case) -> Answer:
    n = sum(len(all_ids(one)) for one in case["sequences"])
    return {name: values[:n] for name, values in the_row(case["sequences"]).items()}


def draw_next(case: Case, answer: Answer) -> str:
    """The two most likely tokens of each row."""
    ids = [one["slot"] for one in case["sequences"]]
    lines = [f"slot {slot}: {said_logits(row)}" for slot, row in zip(ids, answer, strict=True)]
    return "\n".join(["next token (logit), and the second", *lines])


@prefill_sequences.check(logit_cases, say_sequences, draw_next, near_logits)
def prefill_logits(case: Case) -> Answer:
    return [next_logits(case, all_ids(one)) for one in case["sequences"]]


@prefill_logits.predicts("last-index")
def _(case: Case) -> Answer:
    """The first token of the next sequence; what padding gives is not foretold."""
    followers = case["sequences"][1:]
    return [next_logits(case, all_ids(one)[:1]) for one in followers] + [ANY]


@prefill_logits.predicts("first-index")
def _(case: Case) -> Answer:
    return [next_logits(case, all_ids(one)[:1]) for one in case["sequences"]]


@prefill_logits.predicts("prompt-only")
def _(case: Case) -> Answer:
    return [next_logits(case, one["prompt"]) for one in case["sequences"]]


@prefill_logits.predicts("one-window")
def _(case: Case) -> Answer:
    return [next_logits(case, all_ids(one), window=EVERYTHING) for one in case["sequences"]]


def filled_cases() -> list[Case]:
    nexts = [[4], [4, 6], [17, 3], [31], [8, 8, 8], [12, 40, 2]]
    cases = [{**case, "next": one} for case, one in zip(sequence_cases(), nexts, strict=True)]
    return [*cases, {**cases[-1], "model": "gemma2"}]


def say_filled(case: Case) -> str:
    half = len(case["sequences"]) // 2
    how = f"prefilled in two steps, the first {half} first; " if half else "prefilled; "
    return f"{say_sequences(case)}\n{how}then a decode of {said_ids(case['next'])}"


@prefill_sequences.check(filled_cases, say_filled, draw_next, near_logits)
def cache_filled(case: Case) -> Answer:
    return [
        next_logits(case, [*all_ids(one), token]) for one, token in zip(case["sequences"], case["next"], strict=True)
    ]


def draw_places(case: Case, answer: Answer) -> str:
    return f"logits at {answer} place{'s' * (answer != 1)}"


@prefill_sequences.check(lambda: sequence_cases()[1:3], say_sequences, draw_places)
def where_needed(case: Case) -> Answer:
    return len(case["sequences"])


@where_needed.shows("all-logits")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return answer > expected


# ------------------------------------------------------------------------------------------- 6.11, decode

decode_step = Exercise(
    "6.11",
    section="One token for everyone",
    hints=(
        "Look at one row on its way to the model: slot, token, position, and the entry of `positions` that its mask "
        "reads. Do they fit together?",
        "All four belong to the same row, and `positions` must be written before `_decode_step` makes the masks. On a "
        "GPU rows of slot 0 are "
        "added behind, and their logits taken off again.",
        "Find the next power of two, at most `max_batch_size`; pad the three tensors with zeros up to it on a GPU; "
        "copy the positions into the "
        "first rows of `positions`; call `_decode_step` and give back the first B rows.",
    ),
    preload=MODELS,
)
decode_step.mistake(
    "positions-never",
    "What does the mask of this step know about the rows' positions?",
    "`positions` still holds what an earlier step left: rows read too few keys or too many.",
    "Copy the positions of the rows into the first entries of `positions`, before the masks are made.",
)
decode_step.mistake(
    "positions-too-late",
    "`positions` is right after the step. When was it read?",
    "The masks were made from the positions of the step before, since `positions` is written after the forward pass.",
    "Write `positions` before you call `_decode_step`.",
)
decode_step.mistake(
    "positions-by-slot",
    "`positions` is indexed by what, rows or slots?",
    "The positions were written at the places of the slots; the masks read them by row.",
    "Write them in the order of the rows, from entry 0 on.",
)
decode_step.mistake(
    "row-not-slot",
    "The sequence is the first row. Is that its slot?",
    "The numbers of the rows went to the model as slots: the keys go to somebody else's pages.",
    "Pass `batch_idx` on as it was given.",
)
decode_step.mistake(
    "position-plus-one",
    "The first token of a sequence is at position 0. At which is the one that comes after 3 tokens?",
    "The positions are one too high: they were given with the rows and need no correction.",
    "Pass `input_pos` on as it is.",
)
decode_step.mistake(
    "order-lost",
    "Whose logits stand in row 0?",
    "The logits are right, but in another order than the rows that were given.",
    "Give the rows back in the order in which they came.",
)
decode_step.mistake(
    "no-padding",
    "How many batch sizes does a GPU see while sequences come and go, and how many graphs is that?",
    "On a GPU the rows were not filled up.",
    "Fill up to the next power of two with rows of slot 0.",
)
decode_step.mistake(
    "beyond-max",
    "What is the next power of two above 5, and how many rows can the engine have at most?",
    "The rows were filled up beyond `max_batch_size`.",
    "Take the smaller of the power of two and `max_batch_size`.",
)
decode_step.mistake(
    "power-too-big",
    "Which power of two is the smallest that is at least 2?",
    "A batch that is a power of two already was filled up to the next one.",
    "Ask for the bits of B - 1.",
)
decode_step.mistake(
    "always-max",
    "One row is running. How many rows does the step compute?",
    "The rows were filled up to `max_batch_size` in every case.",
    "Fill up to the next power of two only.",
)
decode_step.mistake(
    "padding-in-a-slot",
    "Where are the keys of the added rows written?",
    "The added rows carry the slot of a sequence and overwrite its pages.",
    "Give them slot 0, the sink.",
)
decode_step.mistake(
    "padding-returned",
    "For how many rows did the caller ask?",
    "The logits of the added rows came back too.",
    "Cut the result to the B rows that were given.",
)


def running(*rows: tuple[list[int], int, list[int]]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "slot": slot, "next": following} for prompt, slot, following in rows]


THREE = running(
    ([5, 9, 3], 3, [8, 6, 4, 4, 9]), ([7, 2], 1, [20, 34, 19, 35, 11]), ([4, 8, 15, 16, 23, 42], 2, [34, 0, 26, 25, 4])
)
LONG = running(
    ([20, 21, 22, 23, 24, 25, 26, 27, 28, 29], 2, [31, 6, 8, 1, 0]),
    ([4, 8, 15], 3, [16, 5, 5, 7, 9]),
    ([40] * 7, 1, [3, 4, 5, 6, 7]),
)
FOUR = [*THREE, *running(([6, 6, 7, 7], 4, [12, 13, 14]))]
FED_CASES: list[Case] = [
    {"sequences": running(([5, 9, 3], 1, [8])), "order": [0], "buffer": [1, 0, 2, 1]},
    {"sequences": running(([5, 9, 3], 2, [8])), "order": [0], "buffer": [0, 1, 2, 1]},
    {"sequences": running(([7, 2], 2, [20]), ([5, 9, 3], 1, [8])), "order": [0, 1], "buffer": [1, 0, 1, 0]},
    {"sequences": THREE, "order": [0, 1, 2], "buffer": [2, 1, 0, 3]},
    {"sequences": THREE, "order": [2, 0, 1], "buffer": [0, 1, 1, 2]},
    {"sequences": LONG, "order": [1, 2, 0], "buffer": [1, 0, 3, 2]},
]


def say_running(case: Case) -> str:
    order = case.get("order") or range(len(case["sequences"]))
    lines = []
    for row, i in enumerate(order):
        one = case["sequences"][i]
        lines.append(
            f"row {row}: slot {one['slot']}, {len(one['prompt'])} tokens in the cache, next token {one['next'][0]}"
        )
    return "\n".join([*lines, "noted: in `positions` afterwards; reads: the keys that the row reads"])


def draw_fed(case: Case, answer: Answer) -> str:
    heads = ["slot", "token", "position", "noted", "reads"]
    lines = [
        [str(row["slot"]), str(row["token"]), str(row["position"]), str(row["buffer"]), say_span(row["keys"])]
        for row in answer
    ]
    return table([heads, *lines])


def fed_rows(case: Case, change: Callable[[dict[str, Any], int], dict[str, Any]] = lambda row, i: row) -> Answer:
    """What reaches the model for each row; change(right row, its number)."""
    rows = []
    for i, number in enumerate(case["order"]):
        one = case["sequences"][number]
        n = len(one["prompt"])
        right = {"slot": one["slot"], "token": one["next"][0], "position": n, "buffer": n, "keys": list(range(n + 1))}
        rows.append(change(right, i))
    return rows


def same_fed(case: Case, expected: Answer, answer: Answer) -> bool:
    """The rows may reach the model in any order."""
    return sorted(map(str, expected)) == sorted(map(str, answer))


def keys_up_to(last: int, row: dict[str, Any]) -> list[int]:
    """Positions that a row reads if its mask takes `last` for its position.

    It has pages for its own tokens only.  Beyond, whole pages are the sink's (-1), and the mask_mod leaves out the rest.
    """
    end = (row["position"] // 4 + 1) * 4
    beyond = max(0, (last + 1) // 4 * 4 - end)
    return [-1] * beyond + list(range(min(last + 1, end)))


@decode_step.check(FED_CASES, say_running, draw_fed, same_fed)
def fed(case: Case) -> Answer:
    return fed_rows(case)


@fed.predicts("positions-never")
def _(case: Case) -> Answer:
    return fed_rows(
        case, lambda row, i: {**row, "buffer": case["buffer"][i], "keys": keys_up_to(case["buffer"][i], row)}
    )


@fed.predicts("positions-too-late")
def _(case: Case) -> Answer:
    return fed_rows(case, lambda row, i: {**row, "keys": keys_up_to(case["buffer"][i], row)})


def by_slot(first: int) -> Callable[[Case], Answer]:
    """Positions written at the places of the slots, counted from `first`."""

    def way(case: Case) -> Answer:
        buffer = list(case["buffer"])
        for row in fed_rows(case):
            buffer[row["slot"] - first] = row["position"]
        return fed_rows(case, lambda row, i: {**row, "buffer": buffer[i], "keys": keys_up_to(buffer[i], row)})

    return way


foretell(fed, "positions-by-slot", by_slot(0), by_slot(1))


@fed.shows("row-not-slot")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    slots = [row["slot"] for row in answer]
    fits = [row["token"] for row in answer] == [row["token"] for row in expected]
    return fits and slots in (list(range(len(slots))), list(range(1, len(slots) + 1)))


@fed.shows("position-plus-one")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return all(
        got["position"] == row["position"] + 1 and got["slot"] == row["slot"] and got["token"] == row["token"]
        for row, got in zip(expected, answer, strict=True)
    )


DECODE_LOGITS: list[Case] = [
    {"sequences": running(([5, 9, 3], 1, [8])), "orders": [[0]]},
    {"sequences": running(([5, 9, 3], 2, [8, 6, 4])), "orders": [[0], [0], [0]]},
    {"sequences": THREE[:2], "orders": [[0, 1], [1, 0]]},
    {"sequences": THREE, "orders": [[2, 0, 1], [0, 1, 2], [1, 2, 0], [2, 1, 0], [0, 2, 1]]},
    {"sequences": FOUR, "orders": [[3, 1, 0, 2], [0, 1, 2, 3]]},
    {"model": "gemma2", "sequences": THREE, "orders": [[1, 0, 2], [2, 0, 1], [0, 1, 2]]},
    {"model": "gemma2", "sequences": LONG, "orders": [[2, 1, 0], [0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 0, 1]]},
]


def say_orders(case: Case) -> str:
    lines = [
        f"slot {one['slot']}: {len(one['prompt'])} tokens in the cache, next {said_ids(one['next'][: len(case['orders'])])}"
        for one in case["sequences"]
    ]
    orders = " / ".join(said_ids([case["sequences"][i]["slot"] for i in order]) for order in case["orders"])
    return "\n".join([*lines, f"slots in the rows of each step: {orders}"])


def draw_steps(case: Case, answer: Answer) -> str:
    """The two most likely tokens of each row of each step."""
    lines = ["next token (logit), and the second"]
    for step, (order, rows) in enumerate(zip(case["orders"], answer, strict=True), start=1):
        for i, row in zip(order, rows, strict=True):
            lines.append(f"step {step} slot {case['sequences'][i]['slot']}: {said_logits(row)}")
    return "\n".join(lines)


def decoded(case: Case, arrange: Callable[[list[int]], list[int]] = list) -> Answer:
    steps = []
    for step, order in enumerate(case["orders"]):
        given = [case["sequences"][i] for i in arrange(order)]
        steps.append([next_logits(case, [*one["prompt"], *one["next"][: step + 1]]) for one in given])
    return steps


@decode_step.check(DECODE_LOGITS, say_orders, draw_steps, near_logits)
def decode_logits(case: Case) -> Answer:
    return decoded(case)


@decode_logits.shows("order-lost")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """The same rows, in another order."""
    return all(
        any(near_logits(case, list(rows), got) for rows in itertools.permutations(right))
        for right, got in zip(expected, answer, strict=True)
    )


SIX = [
    {"prompt": [5 + i, 9, 3][: 1 + i % 3], "slot": slot, "next": [8 + i]} for i, slot in enumerate((4, 2, 6, 1, 3, 5))
]
FILLED_UP_CASES: list[Case] = [
    {"sequences": SIX[:n], "sizes": {"max_batch_size": most}}
    for n, most in ((3, 8), (1, 8), (2, 8), (5, 8), (4, 6), (5, 6), (6, 6))
]


def say_filled_up(case: Case) -> str:
    slots = said_ids([one["slot"] for one in case["sequences"]])
    return f"on a GPU; rows with the slots {slots}; max_batch_size {case['sizes']['max_batch_size']}"


def draw_filled_up(case: Case, answer: Answer) -> str:
    return f"slots of the rows computed  {said_ids(answer['slots'])}\nrows of logits returned     {answer['returned']}"


def same_filled_up(case: Case, expected: Answer, answer: Answer) -> bool:
    return sorted(expected["slots"]) == sorted(answer["slots"]) and expected["returned"] == answer["returned"]


def up_to(case: Case, size: Callable[[int, int], int], returned: int = 0) -> Answer:
    slots = [one["slot"] for one in case["sequences"]]
    computed = size(len(slots), case["sizes"]["max_batch_size"])
    return {"slots": slots + [0] * (computed - len(slots)), "returned": returned or len(slots)}


@decode_step.check(FILLED_UP_CASES, say_filled_up, draw_filled_up, same_filled_up)
def filled_up(case: Case) -> Answer:
    return up_to(case, lambda n, most: min(power_above(n), most))


filled_up.predicts("no-padding")(lambda case: up_to(case, lambda n, most: n))
filled_up.predicts("always-max")(lambda case: up_to(case, lambda n, most: most))
filled_up.predicts("power-too-big")(lambda case: up_to(case, lambda n, most: min(power_above(n + 1), most)))


@filled_up.shows("beyond-max")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    beyond = power_above(len(case["sequences"])) > case["sizes"]["max_batch_size"]
    return beyond and (crashed(answer) or len(answer["slots"]) > case["sizes"]["max_batch_size"])


@filled_up.shows("padding-in-a-slot")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    real, added = set(expected["slots"]) - {0}, len(expected["slots"]) - len(case["sequences"])
    return (
        len(answer["slots"]) == len(expected["slots"])
        and added > 0
        and answer["slots"].count(0) < added
        and real <= set(answer["slots"])
    )


@filled_up.shows("padding-returned")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return answer["slots"] == expected["slots"] and answer["returned"] == len(answer["slots"])


# ------------------------------------------------------------------------------------------- 6.12, the step

run_rows = Exercise(
    "6.12",
    section="The step",
    hints=(
        "Take one prompt and two steps by hand. Which tokens are computed in each, and how many tokens does the "
        "sequence have afterwards?",
        "A step computes its rows once and gives each sequence exactly one token, a prefill as well as a decode. "
        "Which of the two it is stands in "
        "`start`; everything that a decode needs stands in its rows.",
        "Get logits from `prefill_sequences` or from `decode_step` (slot, newest token and start of each row, as "
        "int64 tensors); "
        "`_next_tokens` makes tokens of them; hand each sequence its own by `_accept`, whatever it is.",
    ),
    preload=MODELS,
)
run_rows.mistake(
    "one-more",
    "Who made the first token of the answer, and was it counted?",
    "A prefill gives two tokens, or one that nobody counts: the model is asked once more before the step ends.",
    "One step, one forward pass, one token a sequence. The decode of the first token is the next step.",
)
run_rows.mistake(
    "no-first-token",
    "The prompt has been computed. What do its last logits say?",
    "A prefill gives no token: its logits were dropped, and the last token of the prompt is computed again later.",
    "Choose and hand over a token after a prefill too.",
)
run_rows.mistake(
    "one-token-prompt",
    "A prompt of one token, and a decode: by what do you tell them apart?",
    "Rows with one token were taken for a decode. A prompt may have one token.",
    "Look at `start`: a prefill begins at 0.",
)
run_rows.mistake(
    "resumed-as-decode",
    "This sequence was preempted and has generated tokens. What does the cache know of it?",
    "A sequence that has output was taken for a decode. After a preemption all of its tokens must be computed again.",
    "Look at `start` of its row: a prefill begins at 0.",
)
run_rows.mistake(
    "position-off",
    "The sequence has 4 tokens, counting the newest. At which position is the newest?",
    "The position of the newest token is off by one.",
    "The row says it: `start` is the position of the token to be computed.",
)
run_rows.mistake(
    "row-not-slot",
    "The sequence is the first row. Is that its slot?",
    "The numbers of the rows went to `decode_step` as slots.",
    "Take `row.sequence.slot` of each row.",
)
run_rows.mistake(
    "feeds-the-prompt",
    "Which token has no keys and values in the cache yet?",
    "Decode was given another token than the newest: one of the prompt, or one that has been computed already.",
    "Give it the last token that the sequence has.",
)
run_rows.mistake(
    "dead-argument",
    "Thirty seeds, one answer. Who reads the request's temperature and seed?",
    "The most likely token was taken whatever the request asks for: its parameters do not reach the choice.",
    "Let `_next_tokens` choose; it looks at the parameters of each row.",
)
run_rows.mistake(
    "none-skipped",
    "`_next_tokens` gave None for a row. Who tells the caller that this request will get no answer?",
    "Nobody did: the sequence goes on for ever, since a token that is None was not handed to `_accept`.",
    "Hand over what `_next_tokens` gave, None too: `_accept` ends the sequence with an error.",
)
run_rows.mistake(
    "nan-accepted",
    "The model's logits were NaN. Is the largest of them a token?",
    "A token was made of logits that are no numbers: the choice went past `_next_tokens`, which gives None then.",
    "Let `_next_tokens` choose, and hand its None over to `_accept` as well.",
)
run_rows.mistake(
    "shared-rng",
    "Whose stream of random numbers does this request read?",
    "A request with a seed gets other tokens as soon as it has other company: its tokens were drawn from one "
    "generator for all.",
    "Let `_next_tokens` choose: its noise belongs to the seed of the request and the position of the token.",
)
run_rows.mistake(
    "token-by-token-text",
    "Is every token a piece of text of its own?",
    "Tokens were decoded one by one. An emoji is spread over several, none of which is text alone.",
    "Leave the text to `_accept`, which shows a piece once no later token can change it.",
)


def call_cases() -> list[Case]:
    one = [{"prompt": [5, 9, 3]}]
    two = [{"prompt": [7, 2]}, {"prompt": [5, 9, 3]}]
    four = [{"prompt": [7, 2]}, {"prompt": [5, 9, 3]}, {"prompt": [4, 8, 15, 16]}, {"prompt": [11]}]
    return [
        {"sequences": one, "slots": [1]},
        {"sequences": one, "slots": [3]},
        {"sequences": two, "slots": [4, 2]},
        {"sequences": four, "slots": [2, 4, 1, 3]},
    ]


def say_calls(case: Case) -> str:
    rows = [
        f"slot {slot}: prompt {said_ids(one['prompt'])}"
        for one, slot in zip(case["sequences"], case["slots"], strict=True)
    ]
    return "\n".join([*rows, "a prefill, then a decode"])


def draw_calls(case: Case, answer: Answer) -> str:
    after = f"tokens made by the prefill  {said_ids(answer['made'])}"
    if not answer["rows"]:
        return after
    rows = [[str(row["slot"]), str(row["token"]), str(row["position"])] for row in answer["rows"]]
    return f"{after}\nrows of the decode\n" + table([["slot", "token", "position"], *rows])


def call_rows(case: Case, change: Callable[[dict[str, Any], int], dict[str, Any]] = lambda row, i: row) -> Answer:
    """change(right row, its number)."""
    rows = []
    for i, (one, slot) in enumerate(zip(case["sequences"], case["slots"], strict=True)):
        ids = one["prompt"]
        rows.append(change({"slot": slot, "token": best_token(case, ids), "position": len(ids)}, i))
    return {"made": [1] * len(rows), "rows": rows}


def same_calls(case: Case, expected: Answer, answer: Answer) -> bool:
    return expected["made"] == answer["made"] and same_fed(case, expected["rows"], answer["rows"])


@run_rows.check(call_cases, say_calls, draw_calls, same_calls)
def calls(case: Case) -> Answer:
    return call_rows(case)


for number_made, slug in ((2, "one-more"), (0, "no-first-token")):
    calls.predicts(slug)(lambda case, made=number_made: {"made": [made] * len(case["slots"]), "rows": []})


def moved(by: int) -> Callable[[Case], Answer]:
    return lambda case: call_rows(case, lambda row, i: {**row, "position": row["position"] + by})


def numbered(start: int) -> Callable[[Case], Answer]:
    return lambda case: call_rows(case, lambda row, i: {**row, "slot": i + start})


foretell(calls, "position-off", moved(-1), moved(1))
foretell(calls, "row-not-slot", numbered(0), numbered(1))


@calls.shows("feeds-the-prompt")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return all(
        got["token"] in one["prompt"] and got["slot"] == row["slot"] and got["position"] == row["position"]
        for one, row, got in zip(case["sequences"], expected["rows"], answer["rows"], strict=True)
        if got != row
    )


STEP_CASES: list[Case] = [
    {"sequences": [{"prompt": [5, 9, 3]}], "steps": 1},
    {"sequences": [{"prompt": [5, 9, 3]}], "steps": 3},
    {"sequences": [{"prompt": [11]}], "steps": 3},
    {"sequences": [{"prompt": [5, 9, 3]}, {"prompt": [7, 2]}], "steps": 4},
    {"sequences": [{"prompt": [11]}, {"prompt": [5, 9, 3]}, {"prompt": [7, 2]}], "steps": 3},
    {"sequences": [{"prompt": [5, 9, 3], "output": [8, 6]}], "steps": 2},
    {"sequences": [{"prompt": [4, 8, 15], "output": [2]}, {"prompt": [7, 2]}], "steps": 3},
    {"model": "gemma2", "sequences": [{"prompt": [4, 8, 15, 16, 23, 42]}, {"prompt": [20, 21, 22]}], "steps": 6},
]


def say_steps(case: Case) -> str:
    lines = []
    for one in case["sequences"]:
        output = f", resumed with generated {said_ids(one['output'])}" if one.get("output") else ""
        lines.append(f"prompt {said_ids(one['prompt'])}{output}")
    return "\n".join(
        [
            *lines,
            f"a prefill{'' if case['steps'] == 1 else ', then decode'}: {case['steps']} step{'s' * (case['steps'] > 1)}",
        ]
    )


def draw_outputs(case: Case, answer: Answer) -> str:
    lines = []
    for step, rows in enumerate(answer, start=1):
        said = "   ".join(said_ids(row) or "none" for row in rows)
        lines.append(f"after step {step}  {said}")
    return "\n".join(lines)


def outputs(case: Case, made: Callable[[int], int] = lambda step: step) -> Answer:
    """Output of each sequence after each step; made(step): tokens that it has got by then."""
    answer = []
    for step in range(1, case["steps"] + 1):
        rows = []
        for one in case["sequences"]:
            rows.append([*one.get("output", []), *continuation(case, all_ids(one), made(step))])
        answer.append(rows)
    return answer


@run_rows.check(STEP_CASES, say_steps, draw_outputs)
def one_step(case: Case) -> Answer:
    return outputs(case)


@one_step.shows("one-more")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """Two tokens after the first step, whatever comes then."""
    if is_raised(answer):
        return False
    first = [len(row) - len(one.get("output", [])) for row, one in zip(answer[0], case["sequences"], strict=True)]
    return set(first) == {2}


def one_late(case: Case) -> Answer:
    return outputs(case, lambda step: step - 1)


def late_or_lost(case: Case) -> Answer:
    """The decode looks for a newest token in a sequence that has none."""
    lost = case["steps"] > 1 and any(not one.get("output") for one in case["sequences"])
    return raises("IndexError") if lost else one_late(case)


foretell(one_step, "no-first-token", one_late, late_or_lost)


@one_step.shows("one-token-prompt")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return len(case["sequences"][0]["prompt"]) == 1


@one_step.shows("resumed-as-decode")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return bool(case["sequences"][0].get("output"))


SMALL_POOL = {"n_pages": 6, "page_size": 4, "max_seq_length": 24, "max_batch_size": 3}
ANSWERS_CASES: list[Case] = [
    {"prompts": [[5, 9, 3]], "max_new_tokens": [1]},
    {"prompts": [[5, 9, 3]], "max_new_tokens": [4]},
    {"prompts": [[5, 9, 3], [7, 2]], "max_new_tokens": [2, 5]},
    {"prompts": [[5, 9, 3], [7, 2]], "max_new_tokens": [6, 6], "eos": [38, 35]},
    {"prompts": [[7, 2], [11], [5, 9, 3], [4, 8, 15, 16, 23, 42], [20, 21]], "max_new_tokens": [3, 6, 1, 4, 2]},
    {"prompts": [[5, 9, 3], [4, 8, 15, 16, 23, 42], [7, 2]], "max_new_tokens": [10, 8, 9], "sizes": SMALL_POOL},
    {
        "model": "gemma2",
        "prompts": [[5, 9, 3], [4, 8, 15, 16, 23, 42], [7, 2]],
        "max_new_tokens": [10, 8, 9],
        "sizes": SMALL_POOL,
    },
]


def say_answers(case: Case) -> str:
    lines = [
        f"prompt {said_ids(ids)}; at most {n} token{'s' * (n > 1)}"
        for ids, n in zip(case["prompts"], case["max_new_tokens"], strict=True)
    ]
    ends = [f"end of sequence: {said_ids(case['eos'])}"] if case.get("eos") else []
    small = ["6 pages of 4 tokens for all: one has to give way"] if case.get("sizes") else []
    return "\n".join([*lines, *ends, *small])


def draw_answers(case: Case, answer: Answer) -> str:
    return "\n".join(f"{said_ids(one['tokens']) or 'no token'}  ({one['reason']})" for one in answer)


@run_rows.check(ANSWERS_CASES, say_answers, draw_answers)
def answers(case: Case) -> Answer:
    results = []
    for ids, most in zip(case["prompts"], case["max_new_tokens"], strict=True):
        tokens = continuation(case, ids, most)
        ends = [i for i, token in enumerate(tokens) if token in case.get("eos", [])]
        kept = tokens[: ends[0] + 1] if ends else tokens
        results.append({"tokens": kept, "reason": "stop" if ends else "length"})
    return results


@answers.shows("one-more")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    """The right tokens and one behind them, for whoever got the last one from a prefill."""
    return all(
        got["tokens"][:-1] == right["tokens"]
        for right, got in zip(expected, answer, strict=True)
        if got["tokens"] != right["tokens"]
    )


def say_seeds(case: Case) -> str:
    return f"prompt {said_ids(case['prompt'])}, temperature {case['temperature']:g}, {len(case['seeds'])} seeds"


def draw_seeds(_case: Case, answer: Answer) -> str:
    return answer if isinstance(answer, str) else f"{answer} different answer{'s' * (answer != 1)}"


def several(_case: Case, expected: Answer, answer: Answer) -> bool:
    return answer == expected if isinstance(expected, int) else answer > 4


@run_rows.check([{"prompt": [5, 9, 3], "temperature": 1.0, "seeds": list(range(30))}], say_seeds, draw_seeds, several)
def seeds(case: Case) -> Answer:
    return "many different answers"


@seeds.predicts("dead-argument")
def _(case: Case) -> Answer:
    return 1


def say_company(case: Case) -> str:
    rows = zip(case["prompts"], case["seeds"], strict=True)
    return "\n".join(
        [
            *(f"prompt {said_ids(ids)}, seed {seed}, temperature {case['temperature']:g}" for ids, seed in rows),
            "all together, each alone, and in reverse order",
        ]
    )


def draw_company(case: Case, answer: Answer) -> str:
    """Equal answers to a request share a letter."""
    seeds = [f"seed {seed}" for seed in case["seeds"]]
    return table(
        [["", "together", "alone", "reversed"], *([s, *as_letters(row)] for s, row in zip(seeds, answer, strict=True))]
    )


@run_rows.check(
    [{"prompts": [[5, 9, 3], [5, 9, 3], [7, 2]], "seeds": [1, 2, 3], "temperature": 1.0}],
    say_company,
    draw_company,
    all_alike,
)
def company(case: Case) -> Answer:
    return [["the same"] * 3 for _ in case["seeds"]]


@company.shows("shared-rng")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return not is_raised(answer)


def say_broken(case: Case) -> str:
    prompts = "; ".join(said_ids(ids) for ids in case["prompts"])
    return f"prompts {prompts}; the model gives NaN after token {case['poison']}; at most 2 tokens"


@run_rows.check(
    [{"prompts": [[5, 44, 3]], "poison": 44}, {"prompts": [[7, 2, 8, 4], [5, 44, 3]], "poison": 44}],
    say_broken,
    draw_answers,
)
def broken(case: Case) -> Answer:
    return [
        {"tokens": [], "reason": "error"}
        if case["poison"] in ids
        else {"tokens": continuation(case, ids, 2), "reason": "length"}
        for ids in case["prompts"]
    ]


@broken.shows("nan-accepted")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return any(one["reason"] == "length" for one, right in zip(answer, expected, strict=True) if one != right)


@broken.shows("none-skipped")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    return crashed(answer) or any(one["reason"] == "still running" for one in answer)


PIECES = ["48656c6c6f", "20776f726c64", "f09f", "9880", "f0", "9f", "98", "80", "21"]
TEXT_CASES: list[Case] = [
    {"pieces": PIECES, "tokens": [0, 1, 8]},
    {"pieces": PIECES, "tokens": [2, 3]},
    {"pieces": PIECES, "tokens": [0, 4, 5, 6, 7, 1]},
]


def bytes_of(case: Case) -> list[bytes]:
    return [bytes.fromhex(case["pieces"][token]) for token in case["tokens"]]


def say_streamed(case: Case) -> str:
    return "tokens that are the bytes " + " | ".join(one.hex(" ") for one in bytes_of(case))


def draw_streamed(_case: Case, answer: Answer) -> str:
    pieces = answer["pieces"]
    joined = pieces if isinstance(pieces, str) else "".join(pieces)
    return f"pieces, joined  {joined}\nall decoded     {answer['whole']}"


def joins(_case: Case, expected: Answer, answer: Answer) -> bool:
    return "".join(answer["pieces"]) == "".join(expected["pieces"]) and answer["whole"] == expected["whole"]


@run_rows.check(TEXT_CASES, say_streamed, draw_streamed, joins)
def streamed(case: Case) -> Answer:
    text = b"".join(bytes_of(case)).decode()
    return {"pieces": [text], "whole": text}


@streamed.predicts("token-by-token-text")
def _(case: Case) -> Answer:
    alone = [one.decode(errors="replace") for one in bytes_of(case)]
    return {"pieces": alone, "whole": b"".join(bytes_of(case)).decode()}
