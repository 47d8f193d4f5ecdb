"""What is right in module 01, and what a learner gets who makes one of the usual mistakes.

A mask is drawn as a grid: rows are queries, columns are keys, ■ is read and □ is not.  Of blocks, ■ is full, ▨ partial.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Check, Exercise, close, is_raised, raises

Case = dict[str, Any]
Rule = Callable[[Case, int, int, int, int], bool]
"""(case, b, h, q, k) -> whether query q reads key k."""

PRELOAD = ("torch.nn.attention.flex_attention", "torch._dynamo._trace_wrapped_higher_order_op")
"""What asking a mask one by one needs."""

# ------------------------------------------------------------------------------------------------ pictures


def picture(
    grids: list[list[list[str]]],
    queries: Sequence[int],
    keys: Sequence[int],
    words: tuple[str, str] = ("query", "key"),
    cut: tuple[int, int] | None = None,
    right: Any = None,
) -> str:
    """Grids [B][H][rows] as text.

    Args:
        cut: queries and keys in a block, to draw lines between blocks.
        right: the grids as they should be; rows that differ get an arrow.
    """
    if right is None:
        right = grids
    title = len(grids) > 1 or len(grids[0]) > 1
    if title and _all_equal(grids) and _all_equal(right):
        return "in every row and head\n" + picture([[grids[0][0]]], queries, keys, words, cut, [[right[0][0]]])
    width = max(len(str(key)) for key in keys)
    left = max(len(words[1]), len(words[0]) + 1 + max(len(str(query)) for query in queries))
    columns = _line([str(key) for key in keys], width, cut, " ")
    lines: list[str] = []
    for b, heads in enumerate(grids):
        if title:
            heads_said = (
                ("   ".join(f"head {h}".ljust(len(columns)) for h in range(len(heads)))) if len(heads) > 1 else ""
            )
            lines.append(f"{f'row {b}':<{left}}  {heads_said}".rstrip())
        lines.append(f"{words[1]:<{left}}  {'   '.join(columns for _ in heads)}")
        for i, query in enumerate(queries):
            if cut and i and i % cut[0] == 0:
                rule = _line(["─" * width] * len(keys), width, cut, "┼", "─")
                lines.append(f"{'':<{left}}  {'   '.join(rule for _ in heads)}")
            label = f"{words[0] if i == 0 else '':<{len(words[0])}} {query:>{left - len(words[0]) - 1}}"
            cells = "   ".join(_line(list(head[i]), width, cut, "│") for head in heads)
            lines.append(f"{label}  {cells}{'' if _same_row(right, b, heads, i) else ' ←'}")
    return "\n".join(lines)


def _line(cells: list[str], width: int, cut: tuple[int, int] | None, bar: str, gap: str = " ") -> str:
    texts = [cell.rjust(width) for cell in cells]
    if not cut:
        return gap.join(texts)
    groups = [gap.join(texts[i : i + cut[1]]) for i in range(0, len(texts), cut[1])]
    return f"{gap}{bar}{gap}".join(groups)


def _same_row(right: Any, b: int, heads: list[list[str]], i: int) -> bool:
    try:
        return [head[i] for head in right[b]] == [head[i] for head in heads]
    except IndexError:
        return False


def _all_equal(grids: Any) -> bool:
    return all(head == grids[0][0] for batch in grids for head in batch)


def span(numbers: Sequence[int]) -> str:
    """0 … 3, or 5, 6."""
    ordered = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    return f"{numbers[0]} … {numbers[-1]}" if ordered and len(numbers) > 2 else ", ".join(map(str, numbers))


# ------------------------------------------------------------------------------------------------ masks, entry by entry


def grid_of(case: Case, rule: Rule) -> dict[str, Any]:
    """What a mask_mod with that rule answers."""
    return {
        "grid": [
            [
                ["".join("■" if rule(case, b, h, q, k) else "□" for k in case["k"]) for q in case["q"]]
                for h in range(case["H"])
            ]
            for b in range(case["B"])
        ]
    }


def draw_grid(case: Case, answer: Any, right: Any) -> str:
    if "grid" not in answer:
        sizes = [case["B"], case["H"], len(case["q"]), len(case["k"])]
        return f"a tensor of shape {answer['shape']}, which\ndoes not broadcast to {sizes}"
    return picture(answer["grid"], case["q"], case["k"], right=right["grid"])


def mask_check(
    exercise: Exercise, name: str, cases: Callable[[], Iterable[Case]], rule: Rule, say: Callable[[Case], str]
) -> Check:
    """A check of a mask_mod with index tensors of any kind."""

    def right(case: Case) -> dict[str, Any]:
        return grid_of(case, rule)

    right.__name__ = name
    return exercise.check(cases=cases, describe=say, draw=lambda case, answer: draw_grid(case, answer, right(case)))(
        right
    )


def at_once_and_one_by_one(
    exercise: Exercise, name: str, cases: Callable[[], Iterable[Case]], rule: Rule, say: Callable[[Case], str]
) -> tuple[Check, Check]:
    """A mask_mod is asked in two ways: with tensors that broadcast, and as FlexAttention does it."""
    at_once = mask_check(exercise, f"{name}_at_once", cases, rule, say)
    one_by_one = mask_check(
        exercise,
        f"{name}_one_by_one",
        cases,
        rule,
        lambda case: say(case) + "\nasked as FlexAttention does (torch.vmap)",
    )
    return at_once, one_by_one


def positions(q: Sequence[int], k: Sequence[int], B: int = 1, H: int = 1, **more: Any) -> Case:
    return {"B": B, "H": H, "q": list(q), "k": list(k), **more}


def follows(checks: Iterable[Check], slug: str, *rules: Rule) -> None:
    """A mistake after which the mask follows another rule; several rules: several forms of it."""
    for check, rule in itertools.product(checks, rules):
        check.predicts(slug)(lambda case, rule=rule: grid_of(case, rule))


def is_seen(checks: Iterable[Check], slug: str, sign: Callable[[Case, Any, Any], bool]) -> None:
    for check in checks:
        check.shows(slug)(sign)


ONE_VALUE = re.compile(
    r"ambiguous|data-dependent control flow|calling \.item|converted to (a )?(Python )?[sS]calar|only one element tensors"
    r"|access data pointer|single element"
)


def asks_for_one_value(_case: Case, expected: Any, answer: Any) -> bool:
    """Python wanted one value of a tensor that holds many.  Where it holds one, anything may come of it."""
    of_one = len(re.findall(r"[■□▨✗]|\d\.\d", str(expected))) == 1
    return of_one or (is_raised(answer) and bool(ONE_VALUE.search(answer["message"])))


def wrong_arguments(_case: Case, _expected: Any, answer: Any) -> bool:
    """A function was called with four arguments and takes others, or the other way round."""
    return is_raised(answer) and "TypeError" in answer["raised"] and "positional argument" in answer["message"]


def wrong_shape(_case: Case, _expected: Any, answer: Any) -> bool:
    """Axes were added to indices that have their own."""
    if is_raised(answer):
        return "IndexError" in answer["raised"] and "dimension" in answer["message"].lower()
    return "shape" in answer and len(answer["shape"]) > 2


PYTHON_NOT = (
    "Where does your code want one single True or False, or one single number, from a tensor that holds many?",
    "`and`, `or`, `not`, `if`, `all()`, `min()`, `.item()` and a comparison in a chain all do. So does `a < b & c < d`: "
    "without brackets Python reads the chain `a < (b & c) < d`.",
    "Use what works on every entry at once: `&`, `|`, `~`, `torch.where`; and put brackets around each comparison.",
)
FOUR_ARGUMENTS = (
    "With how many arguments does FlexAttention call a mask_mod?",
    "Compare the arguments of your inner function, and of any mask that it calls, with `MaskMod` at the top of the file.",
    "A mask_mod takes four: batch row, head, query, key. Those that it does not need have to be there all the same.",
)
OWN_AXES = (
    "How many dimensions do the index tensors have when they arrive, and how many after your code has added some?",
    "The caller has already shaped the indices so that they broadcast. FlexAttention gives indices without any dimension.",
    "Compare the two indices as they come, without new axes, reshaping or arange.",
)


# ------------------------------------------------------------------------------------------------ 1.1 causal

causal = Exercise(
    "1.1",
    section="Who may read whom",
    hints=(
        "Take one entry that differs (← marks the rows) or, if there is an error, the smallest case. "
        "Which query is it, which key, and which of them comes first?",
        "The two positions alone decide. Work out by hand what your expression gives for that pair of numbers.",
        "Go through the three sorts of pairs: key before query, key = query, key after query. The docstring allows two.",
    ),
    preload=PRELOAD,
)
causal.mistake(
    "strict",
    "May a query read itself? Look at the diagonal.",
    "The comparison leaves out the case that both positions are equal.",
    "Let the comparison be true also where key and query are at the same position.",
)
causal.mistake(
    "one-ahead",
    "Which is the last key that query 0 may read, and which is the last that yours reads?",
    "The comparison lets one key of the future through.",
    "The last key that a query reads is at its own position, not one behind it.",
)
causal.mistake(
    "swapped",
    "Row 0 is the first query. Which keys can it know, and which does yours read?",
    "Query and key have changed places: your rows do what the columns should.",
    "The key's position must be the smaller one or equal, not the query's.",
)
causal.mistake(
    "true-means-hidden",
    "What does True mean in a mask_mod: may be read, or must be hidden?",
    "Your picture is the negative of the right one. Some other masks in PyTorch mark what is hidden; a mask_mod does not.",
    "Turn the condition round, so that it is True exactly where the key may be read.",
)
causal.mistake(
    "places-not-positions",
    "The first query here is not at position 0. Where does your code look at the positions?",
    "The shape of the index tensors says how many there are; their values say which.",
    "Compare the values of the two index tensors instead of building a triangle from their sizes.",
)
causal.mistake(
    "precedence",
    "Which does Python work out first in your expression: the comparison, or `~`, `&` and `|`?",
    "`~`, `&` and `|` bind tighter than comparisons: `~a < b` is `(~a) < b`, and for integers `~a` is -a - 1.",
    "Put brackets around the comparison, then negate or combine it.",
)
causal.mistake("python-not", *PYTHON_NOT)
causal.mistake("own-axes", *OWN_AXES)


def causal_cases() -> list[Case]:
    return [
        positions(range(3), range(3)),
        positions([0], [0]),
        positions(range(2), range(4)),
        positions(range(4), range(2)),
        positions([5, 6], range(8)),
        positions([4, 0, 2], [3, 1, 2, 0]),
        positions(range(2), range(3), B=2, H=3),
    ]


def say_positions(case: Case) -> str:
    rows = f"; {case['B']} rows, {case['H']} heads" if case["B"] > 1 or case["H"] > 1 else ""
    several_q, several_k = ("s" if len(case[name]) > 1 else "" for name in "qk")
    return f"query position{several_q} {span(case['q'])}, key position{several_k} {span(case['k'])}{rows}"


causal_checks = at_once_and_one_by_one(causal, "causal", causal_cases, lambda _, b, h, q, k: k < q + 1, say_positions)
follows(causal_checks, "strict", lambda _, b, h, q, k: k < q)
follows(causal_checks, "one-ahead", lambda _, b, h, q, k: k < q + 2)
follows(causal_checks, "swapped", lambda _, b, h, q, k: q < k + 1)
follows(causal_checks, "true-means-hidden", lambda _, b, h, q, k: k > q)
follows(causal_checks, "precedence", lambda _, b, h, q, k: -q - 1 < k, lambda _, b, h, q, k: -k - 1 > q)
follows(
    causal_checks[:1],
    "places-not-positions",
    lambda case, b, h, q, k: case["k"].index(k) <= case["q"].index(q),
)
is_seen(causal_checks, "python-not", asks_for_one_value)
is_seen(causal_checks, "own-axes", wrong_shape)

# ------------------------------------------------------------------------------------------------ 1.2 sliding_window

window = Exercise(
    "1.2",
    section="A window that slides",
    hints=(
        "Take one row that differs (← marks them) or, if there is an error, the last one. How many keys up to the query "
        "does it read, and how many should it?",
        "Only the distance from the query back to the key decides. Work it out by hand for one entry that differs.",
        "The distance of a query to itself is 0, and a window of 1 allows just that. Later keys are not bounded here.",
    ),
    preload=PRELOAD,
)
window.mistake(
    "window-plus-one",
    "Count the keys in one row up to the query's own. Is the query's own key among the `window` that are allowed?",
    "The bound on the distance lets one key too many through: distances 0, 1, …, window are window + 1 keys.",
    "The largest distance allowed is window - 1, because distance 0 counts too.",
)
window.mistake(
    "one-short",
    "Count the keys in one row up to the query's own. How many should a window hold?",
    "The bound on the distance stops one key too early; a window of 1 would hold none.",
    "Distances 0 to window - 1 are allowed, the last one included.",
)
window.mistake(
    "hides-future",
    "Look right of the diagonal. Does the docstring ask this mask to hide what comes after the query?",
    "There is a second condition in your mask; `causal` has that task, and `all_of` puts both together.",
    "Bound only the distance backwards. For a key after the query it is negative, and so below any window.",
)
window.mistake(
    "both-sides",
    "Which entries far right of the diagonal should be read, and which does yours read?",
    "An absolute value, or a bound on both sides, limits the distance forwards as well.",
    "Bound only the distance from the query back to the key, with its sign.",
)
window.mistake(
    "true-means-hidden",
    "What does True mean in a mask_mod: may be read, or must be hidden?",
    "Your mask is True for the keys that are too far back.",
    "Turn the condition round, so that it is True exactly where the key may be read.",
)
window.mistake(
    "swapped",
    "Is the key that is hidden too old, or too new?",
    "The subtraction is the wrong way round: it measures how far the key lies ahead of the query.",
    "Measure from the query back to the key: query position minus key position.",
)
window.mistake(
    "precedence",
    "Which does Python work out first in your expression: the comparisons, or `&`?",
    "`&` binds tighter than `<`: `(a) & b < c` is `((a) & b) < c`, a bit-wise product of a bool and a number.",
    "Put brackets around each comparison before you combine them, and ask whether this mask needs more than one.",
)
window.mistake("python-not", *PYTHON_NOT)
window.mistake("four-arguments", *FOUR_ARGUMENTS)
window.mistake("own-axes", *OWN_AXES)
window.mistake(
    "refuses-one",
    "What can a query read in a window of 1?",
    "The check of `window` refuses a value that the docstring allows.",
    "1 is the smallest window; only what is below 1 is refused.",
)
window.mistake(
    "takes-zero",
    "What could a query read in a window of this size, and when should the caller hear of it?",
    "`sliding_window` itself must refuse, with the error that the docstring names, before it gives back a mask.",
    "Check `window` first thing in `sliding_window`, outside the inner function, and raise the ValueError there.",
)


def window_cases() -> list[Case]:
    return [
        positions(range(4), range(4), window=2),
        positions(range(3), range(3), window=1),
        positions(range(6), range(6), window=3),
        positions([7], range(9), window=4),
        positions([9, 3], [2, 6, 8, 12], window=4),
        positions(range(4), range(4), window=99),
        positions(range(2), range(4), B=2, H=3, window=2),
    ]


window_checks = at_once_and_one_by_one(
    window,
    "window",
    window_cases,
    lambda case, b, h, q, k: k > q - case["window"],
    lambda case: f"sliding_window({case['window']}): {say_positions(case)}",
)
follows(
    window_checks,
    "window-plus-one",
    lambda case, b, h, q, k: q - k <= case["window"],
    lambda case, b, h, q, k: 0 <= q - k <= case["window"],
    lambda case, b, h, q, k: abs(q - k) <= case["window"],
)
follows(window_checks, "one-short", lambda case, b, h, q, k: q - k < case["window"] - 1)
follows(window_checks, "hides-future", lambda case, b, h, q, k: q - case["window"] < k <= q)
follows(window_checks, "both-sides", lambda case, b, h, q, k: abs(q - k) < case["window"])
follows(
    window_checks,
    "true-means-hidden",
    lambda case, b, h, q, k: q - k >= case["window"],
    lambda case, b, h, q, k: q - k > case["window"],
)
follows(window_checks, "swapped", lambda case, b, h, q, k: k - q < case["window"])
follows(
    window_checks,
    "precedence",
    lambda case, b, h, q, k: (int(k <= q) & (q - k)) < case["window"],
    lambda case, b, h, q, k: (int(q - k >= 0) & (q - k)) < case["window"],
    lambda case, b, h, q, k: (int(q - k < case["window"]) & k) <= q,
    lambda case, b, h, q, k: (int(q - k < case["window"]) & q) >= k,
    lambda case, b, h, q, k: (int(q - k < case["window"]) & (q - k)) >= 0,
)
is_seen(window_checks, "python-not", asks_for_one_value)
is_seen(window_checks, "four-arguments", wrong_arguments)
is_seen(window_checks, "own-axes", wrong_shape)
is_seen(
    window_checks,
    "refuses-one",
    lambda case, _, answer: case["window"] == 1 and is_raised(answer) and "positional" not in answer["message"],
)


@window.check(cases=[{"window": 0}, {"window": -3}], describe=lambda case: f"sliding_window({case['window']})")
def window_refused(_case: Case) -> Any:
    return raises("ValueError")


window_refused.shows("takes-zero")(lambda *_: True)

# ------------------------------------------------------------------------------------------------ 1.3 packed_documents

documents = Exercise(
    "1.3",
    section="Several documents in one row",
    hints=(
        "Take one entry that differs (← marks the rows) or, if there is an error, any entry. To which document does its "
        "query belong, and to which its key?",
        "Look both numbers up in `document_L` by hand, and put them into your expression.",
        "True exactly where the document at the query's position is the document at the key's position, "
        "by what `document_L` holds when the mask is asked.",
    ),
    preload=PRELOAD,
)
documents.mistake(
    "frozen-copy",
    "The tensor has new contents. From when are those that your mask compares?",
    "A clone, a conversion, a list or a finished matrix made before the inner function keeps what was there then.",
    "Look the documents up in `document_L` itself, inside the inner function, each time that it is called.",
)
documents.mistake(
    "adds-causal",
    "Look right of the diagonal. Does the docstring of this mask say anything about the future?",
    "There is a second condition in your mask; `causal` has that task, and `all_of` puts both together.",
    "Compare the documents and nothing else.",
)
documents.mistake(
    "precedence",
    "Which does Python work out first in your expression: the comparisons, or `&`?",
    "`&` binds tighter than `==`: `(a) & b == c` is `((a) & b) == c`, a bit-wise product of a bool and a document's number.",
    "Put brackets around each comparison before you combine them, and ask whether this mask needs more than one.",
)
documents.mistake(
    "earlier-documents",
    "May a query read a document that is not its own, when that one has a smaller number?",
    "The comparison of the two documents lets an order through.",
    "The two documents must be equal; smaller or larger is not enough.",
)
documents.mistake(
    "one-looked-up",
    "`document_L[q_idx]` is a document. What is it compared with?",
    "One of the two indices is used as it is: a position is compared with a document.",
    "Look both up in `document_L`, the query's position and the key's.",
)
documents.mistake(
    "other-documents",
    "What does True mean in a mask_mod: may be read, or must be hidden?",
    "Your picture is the negative of the right one: a query reads every document but its own.",
    "Turn the comparison of the two documents round.",
)
documents.mistake(
    "ignores-indices",
    "Only some positions are asked for. Where does your code use `q_idx` and `kv_idx`?",
    "It compares all of `document_L` with all of itself, whichever positions it is asked for.",
    "Index `document_L` by the positions that come in, then compare.",
)
documents.mistake(
    "runs-not-documents",
    "One document comes in two parts here. Do these have the same number in `document_L`?",
    "Something counts where documents begin or end, and takes the second part for a document of its own.",
    "Compare the numbers in `document_L`; it does not matter what lies between.",
)
documents.mistake("python-not", *PYTHON_NOT)
documents.mistake("four-arguments", *FOUR_ARGUMENTS)
documents.mistake("own-axes", *OWN_AXES)


def whole_row(numbers: list[int], **more: Any) -> Case:
    return positions(range(len(numbers)), range(len(numbers)), documents=numbers, **more)


def document_cases() -> list[Case]:
    return [
        whole_row([0, 0, 1, 1]),
        whole_row([0, 1, 1, 2, 2, 2]),
        whole_row([3]),
        whole_row([2, 2, 2]),
        whole_row([5, 9, 5, 9]),
        positions([3], range(6), documents=[0, 0, 1, 1, 2, 2]),
        positions([4, 1], [0, 1, 3, 5], documents=[7, 7, 3, 3, 3, 7]),
        whole_row([1, 1, 0], B=2, H=2),
    ]


documents_checks = at_once_and_one_by_one(
    documents,
    "documents",
    document_cases,
    lambda case, b, h, q, k: case["documents"][q] - case["documents"][k] == 0,
    lambda case: f"document_L = {case['documents']}; {say_positions(case)}",
)


def by_document(test: Callable[[int, int, int, int], bool]) -> Rule:
    """(document of the query, document of the key, query, key) -> read."""
    return lambda case, b, h, q, k: test(case["documents"][q], case["documents"][k], q, k)


def run_of(numbers: list[int], position: int) -> int:
    return sum(numbers[i] != numbers[i - 1] for i in range(1, position + 1))


follows(
    documents_checks,
    "adds-causal",
    by_document(lambda dq, dk, q, k: dq == dk and k <= q),
    by_document(lambda dq, dk, q, k: dq == dk and k >= q),
)
follows(
    documents_checks,
    "precedence",
    by_document(lambda dq, dk, q, k: (int(k <= q) & dq) == dk),
    by_document(lambda dq, dk, q, k: (int(k <= q) & dk) == dq),
    by_document(lambda dq, dk, q, k: (int(dq == dk) & q) >= k),
    by_document(lambda dq, dk, q, k: (int(dq == dk) & k) <= q),
)
follows(
    documents_checks,
    "earlier-documents",
    by_document(lambda dq, dk, q, k: dk <= dq),
    by_document(lambda dq, dk, q, k: dk >= dq),
)
follows(
    documents_checks,
    "one-looked-up",
    by_document(lambda dq, dk, q, k: dq == k),
    by_document(lambda dq, dk, q, k: dk == q),
)
follows(documents_checks, "other-documents", by_document(lambda dq, dk, q, k: dq != dk))
follows(
    documents_checks,
    "runs-not-documents",
    lambda case, b, h, q, k: run_of(case["documents"], q) == run_of(case["documents"], k),
)
is_seen(documents_checks, "python-not", asks_for_one_value)
is_seen(documents_checks, "four-arguments", wrong_arguments)
is_seen(documents_checks, "own-axes", wrong_shape)


@documents_checks[0].predicts("ignores-indices")
def _(case: Case) -> Any:
    L = len(case["documents"])
    if (len(case["q"]), len(case["k"])) == (L, L):
        return grid_of(case, by_document(lambda dq, dk, q, k: dq == dk))
    return {"shape": [L, L]}


def changing_documents() -> list[Case]:
    return [
        whole_row([0, 1, 1], before=[0, 0, 0], asked_before=False, dtype="int64"),
        whole_row([4, 4, 2, 4], before=[0, 1, 2, 3], asked_before=True, dtype="int64"),
        whole_row([0, 0, 1], before=[0, 1, 1], asked_before=False, dtype="int32"),
    ]


def say_change(case: Case) -> str:
    asked = "asked once, then " if case["asked_before"] else ""
    dtype = f" ({case['dtype']})" if case["dtype"] != "int64" else ""
    return f"mask made with document_L = {case['before']}{dtype}; {asked}document_L.copy_({case['documents']})"


documents_change = mask_check(
    documents,
    "documents_change",
    changing_documents,
    by_document(lambda dq, dk, q, k: dq == dk),
    say_change,
)
follows([documents_change], "frozen-copy", lambda case, b, h, q, k: case["before"][q] == case["before"][k])


@documents_change.predicts("frozen-copy")
def _(case: Case) -> Any:
    """Kept from the first time that it was asked."""
    numbers = case["before"] if case["asked_before"] else case["documents"]
    return grid_of(case, lambda _, b, h, q, k: numbers[q] == numbers[k])


@documents_change.predicts("frozen-copy")
def _(case: Case) -> Any:
    """A conversion, which copies only what has another dtype."""
    numbers = case["before"] if case["dtype"] == "int32" else case["documents"]
    return grid_of(case, lambda _, b, h, q, k: numbers[q] == numbers[k])


# ------------------------------------------------------------------------------------------------ 1.4, 1.5 combinations

Combination = Callable[[list[bool]], bool]

CAUSAL = [[["■□□", "■■□", "■■■"]]]
NOT_FIRST = [[["□■■"]]]  # depends on the key alone
LAST_QUERY = [[["□", "□", "■"]]]  # on the query alone
SECOND_ROW = [[["□"]], [["■"]]]  # on the batch row alone


def combination_cases() -> list[Case]:
    a, b, c = [[["■■", "□□"]]], [[["■□", "■□"]]], [[["□■", "□■"]]]
    wide = [[["■■■■", "□□□□"]]], [[["■■□□", "■■□□"]]], [[["■□■□", "■□■□"]]]
    return [
        positions(range(2), range(2), masks=[a, b]),
        positions(range(2), range(2), masks=[c]),
        positions(range(3), range(3), masks=[CAUSAL, [[["□■■", "□■■", "□■■"]]]]),
        positions(range(2), range(4), masks=list(wide)),
        positions(range(2), range(4), masks=[wide[2], wide[0], wide[1]]),
        positions(range(3), range(3), masks=[NOT_FIRST, CAUSAL]),
        positions(range(3), range(3), masks=[CAUSAL, NOT_FIRST]),
        positions(range(3), range(3), masks=[CAUSAL, LAST_QUERY]),
        positions(range(3), range(3), B=2, masks=[CAUSAL, [[["□□■"]], [["■□□"]]]]),
        positions(range(2), range(2), B=2, H=2, masks=[SECOND_ROW, [[["■■", "□■"], ["□■", "□□"]]]]),
    ]


def read_in(table: list[list[list[str]]], b: int, h: int, q: int, k: int) -> bool:
    """An entry of a table in which a dimension of size 1 stands for all."""
    batch = table[b if len(table) > 1 else 0]
    head = batch[h if len(batch) > 1 else 0]
    row = head[q if len(head) > 1 else 0]
    return row[k if len(row) > 1 else 0] == "■"


def sizes_of(table: list[list[list[str]]]) -> tuple[int, int, int, int]:
    return len(table), len(table[0]), len(table[0][0]), len(table[0][0][0])


def combined(rule: Combination) -> Rule:
    return lambda case, b, h, q, k: rule([read_in(mask, b, h, q, k) for mask in case["masks"]])


def say_masks(name: str) -> Callable[[Case], str]:
    def say(case: Case) -> str:
        names = "ABC"[: len(case["masks"])]
        lines = [f"{name}({', '.join(names)})"]
        grids = [_whole(case, mask) for mask in case["masks"]]
        tall = max(len(grid) for grid in grids)
        wide = [max(len(line) for line in grid) for grid in grids]
        for i in range(tall):
            cells = [(grid[i] if i < len(grid) else "").ljust(w) for grid, w in zip(grids, wide, strict=True)]
            lead = [f"{letter} " if i == 0 else "  " for letter in names]
            lines.append("   ".join(a + b for a, b in zip(lead, cells, strict=True)).rstrip())
        return "\n".join(lines)

    return say


def _whole(case: Case, table: list[list[list[str]]]) -> list[str]:
    """A mask of a case, drawn for the first row and head or, where it depends on these, in words."""
    B, H, Q, K = sizes_of(table)
    if (B > 1 or H > 1) and Q == 1 and K == 1:
        return [f"True in {'row' if B > 1 else 'head'} 1"]
    lines = [
        " ".join("■" if read_in(table, b, 0, q, k) else "□" for k in case["k"]) for b in range(B) for q in case["q"]
    ]
    if B > 1:
        Qs = len(case["q"])
        return [line + (f"  row {i // Qs}" if i % Qs == 0 else "") for i, line in enumerate(lines)]
    return lines


def combination(number: str, name: str, other: str, rule: Combination) -> tuple[Exercise, tuple[Check, Check]]:
    """The grader of all_of, or of any_of."""
    needed = "every one" if name == "all_of" else "at least one"
    exercise = Exercise(
        number,
        section="All of several masks" if name == "all_of" else "Any of several masks",
        hints=(
            "Take one entry that differs (← marks the rows) or, if there is an error, the case with its masks A, B, C. "
            f"Which of the masks allow that entry?  {name} needs {needed}.",
            "Go through your code with that case: which masks are asked, with which indices, and how are the answers joined?",
            "Ask each mask with the same four indices, and join all the answers entry by entry, however many there are "
            "and whatever their shapes.",
        ),
        preload=PRELOAD,
    )
    exercise.mistake(
        f"{other}-instead",
        f"How many of the masks must allow an entry: {needed}, or another number?",
        f"Your mask is right for {other}: it joins the answers with the other operator.",
        f"{'A key is out as soon as one mask says no' if name == 'all_of' else 'A key is in as soon as one mask says yes'}: "
        "choose the operator for which that holds.",
    )
    exercise.mistake("python-not", *PYTHON_NOT)
    exercise.mistake("four-arguments", *FOUR_ARGUMENTS)
    exercise.mistake(
        "two-only",
        "How many masks were given, and how many of them does your mask ask?",
        "The number of masks is fixed at two in your code.",
        "Start with the first mask, and join the others to it one after the other, however many there are.",
    )
    exercise.mistake(
        "one-wins",
        "Which of the masks does the answer look like?",
        "One mask alone decides: a loop that returns in its first turn, starts again in each, or closes over its variable "
        "(which at the end is the last mask for every function made in the loop).",
        "Carry the joined answer through the loop, and return it after the loop.",
    )
    exercise.mistake(
        "calls-itself",
        "Who is called when the new mask asks for the mask made before it?",
        "A function made in a loop looks its names up when it is called, not when it is made: by then the name means itself.",
        "Make one inner function, with the loop over the masks inside it.",
    )
    exercise.mistake(
        "single-answer",
        "Every entry got the same answer. Over which dimensions does your code combine?",
        "A reduction without `dim` goes over all queries and keys as well as over the masks.",
        "Combine over the masks only, entry by entry.",
    )
    exercise.mistake(
        "wrong-start",
        f"What does your mask say before it has asked any of A, B, C, and can their answers change that in {name}?",
        "The value that the joining starts from decides already; no mask can change it.",
        "Start from the first mask's answer, or from the value that leaves any answer as it is.",
    )
    exercise.mistake(
        "same-shape",
        "Do all the answers have the same shape? One of the masks here looks at fewer indices than another.",
        "Stacking needs equal shapes, and an operation in place can't grow its left side. Masks only have to broadcast.",
        "Join the answers by an operator that broadcasts and makes a new tensor.",
    )
    exercise.mistake(
        "swapped",
        "Mirror the masks at the diagonal: is your picture right for those? Which index is third, and which is fourth?",
        "The masks are asked with query and key in each other's place.",
        "Pass the four indices on in the order in which they came in.",
    )
    exercise.mistake(
        "drops-indices",
        "One of the masks looks at the batch row or the head. Which does it get from your code?",
        "The masks are asked with something made up in place of `b` or `h`, or with one in place of the other.",
        "Pass all four indices on to each mask, as they came in.",
    )
    exercise.mistake(
        "takes-none",
        f"What should {name}() without any mask do, and when should the caller hear of it?",
        f"{name} itself must refuse, with the error that the docstring names, before it gives back a mask.",
        "Look first, outside the inner function, whether there is at least one mask, and raise the ValueError there.",
    )
    checks = at_once_and_one_by_one(exercise, name, combination_cases, combined(rule), say_masks(name))
    follows(checks, "one-wins", combined(lambda answers: answers[-1]), combined(lambda answers: answers[0]))
    for check in checks:
        for _spared in (0, 1):
            check.predicts("swapped")(lambda case, spared=_spared: _mirrored(case, rule, spared))
        check.shows("two-only")(lambda case, _, answer: _is_two_only(case, answer, rule))
    is_seen(checks, "python-not", asks_for_one_value)
    is_seen(checks, "four-arguments", wrong_arguments)
    is_seen(checks, "calls-itself", lambda case, _, answer: is_raised(answer) and "RecursionError" in answer["raised"])
    is_seen(checks, "same-shape", _is_shape_error)
    is_seen(checks, "drops-indices", lambda case, _, answer: _is_dropped(case, answer, rule))
    for _stacked in (False, True):
        checks[0].predicts("single-answer")(lambda case, stacked=_stacked: _reduced(case, rule, stacked))
    follows(checks, "wrong-start", combined(lambda answers: name == "any_of"))

    def nothing(_case: Case) -> Any:
        return raises("ValueError")

    nothing.__name__ = f"{name}_nothing"
    refused = exercise.check(cases=[{}], describe=lambda _: f"{name}()")(nothing)
    refused.shows("takes-none")(lambda *_: True)
    return exercise, checks


Change = Callable[[int, int, int, int], tuple[int, int, int, int]]
"""What becomes of the four indices."""


def _asked_otherwise(case: Case, rule: Combination, change: Change, spared: int) -> Any:
    """The masks are asked with other indices, all but the first `spared` ones."""

    def answers(b: int, h: int, q: int, k: int) -> list[bool]:
        return [
            read_in(mask, *((b, h, q, k) if i < spared else change(b, h, q, k))) for i, mask in enumerate(case["masks"])
        ]

    return grid_of(case, lambda _, b, h, q, k: rule(answers(b, h, q, k)))


def _mirrored(case: Case, rule: Combination, spared: int) -> Any:
    """Query and key swapped."""
    if len(case["q"]) != len(case["k"]) and len(case["masks"]) > spared:
        return raises("IndexError")
    return _asked_otherwise(case, rule, lambda b, h, q, k: (b, h, k, q), spared)


def _is_two_only(case: Case, answer: Any, rule: Combination) -> bool:
    if len(case["masks"]) == 2:
        return False
    if is_raised(answer):
        return (
            "ValueError" in answer["raised"] or "IndexError" in answer["raised"] or wrong_arguments(case, None, answer)
        )
    return bool(answer == grid_of(case, combined(lambda answers: rule(answers[:2]))))


def _is_shape_error(_case: Case, _expected: Any, answer: Any) -> bool:
    words = ("equal size", "broadcast shape", "inplace arithmetic", "must match")
    return is_raised(answer) and any(word in answer["message"] for word in words)


def _is_dropped(case: Case, answer: Any, rule: Combination) -> bool:
    """Only masks that look at b or h went wrong."""
    if all(sizes_of(mask)[:2] == (1, 1) for mask in case["masks"]):
        return False
    if is_raised(answer):
        return "= None" in answer["message"]
    changes: tuple[Change, ...] = (
        lambda b, h, q, k: (0, 0, q, k),
        lambda b, h, q, k: (0, h, q, k),
        lambda b, h, q, k: (b, 0, q, k),
        lambda b, h, q, k: (h, b, q, k),
    )
    return any(answer == _asked_otherwise(case, rule, change, spared) for change in changes for spared in (0, 1))


def _reduced(case: Case, rule: Combination, stacked: bool) -> Any:
    """One answer for all entries; masks that are stacked must have answered in the same shape."""
    if stacked and len({_shape_of_answer(mask) for mask in case["masks"]}) > 1:
        return raises("RuntimeError")
    grid = grid_of(case, combined(rule))["grid"]
    answer = rule([cell == "■" for batch in grid for head in batch for row in head for cell in row])
    return grid_of(case, lambda *_: answer)


def _shape_of_answer(mask: list[list[list[str]]]) -> tuple[int, ...]:
    """Of index tensors [B, 1, 1, 1], [H, 1, 1], [Q, 1] and [K], those that the mask looks at."""
    sizes = sizes_of(mask)
    return sizes[next((i for i, size in enumerate(sizes) if size > 1), 4) :]


all_of, all_of_checks = combination("1.4", "all_of", "any_of", lambda answers: False not in answers)
any_of, any_of_checks = combination("1.5", "any_of", "all_of", lambda answers: True in answers)
follows(all_of_checks, "any_of-instead", combined(lambda answers: True in answers))
follows(any_of_checks, "all_of-instead", combined(lambda answers: False not in answers))
any_of.mistake(
    "exclusive",
    "What of an entry that two of the masks allow?",
    "An entry is lost where an even number of masks allow it: the answers are joined by “either … or”.",
    "Join them by an “or” that is also true where both sides are.",
)
follows(any_of_checks, "exclusive", combined(lambda answers: sum(answers) % 2 == 1))

# ------------------------------------------------------------------------------------------------ 1.6 dense_mask

dense_mask = Exercise(
    "1.6",
    section="Looking at a whole mask",
    hints=(
        "Compare shape and dtype first. Then take one entry that differs (← marks the rows): which row, head, query, key?",
        "Print the shapes of the four index tensors that you give to the mask, and the shape that they broadcast to.",
        "Each of the four indices runs from 0 along a dimension of its own, in the order batch row, head, query, key.",
    ),
    preload=PRELOAD,
)
dense_mask.mistake(
    "broadcast-batch",
    "For which batch rows and heads was the mask asked?",
    "The values of one batch row, or of one head, stand in all of them: the mask saw only the index 0.",
    "Let the indices of batch row and head run over B and H, each along a dimension of its own.",
)
dense_mask.mistake(
    "not-expanded",
    "The values are right. Which shape comes back from a mask that does not look at the batch row, or at the head?",
    "The mask's answer is given back in the shape that it came in; dimensions that it ignores are missing or of size 1.",
    "Bring the answer to [B, H, Q, K] before you give it back.",
)
dense_mask.mistake(
    "transposed",
    "Which are the queries in your result, the rows or the columns?",
    "Queries and keys are in each other's place, in the call or in the result.",
    "The third dimension is the query, the last one the key, in the order in which a mask_mod takes them.",
)
dense_mask.mistake(
    "from-one",
    "What are the first query and the first key that the mask is asked for?",
    "Your indices start at 1: the mask is asked for what lies one further.",
    "Indices run from 0 to one below the size.",
)
dense_mask.mistake(
    "ignores-device",
    "On which device are the index tensors, and on which is the result?",
    "`device` must reach every tensor that is made, before the mask is asked; a mask may hold tensors that live there.",
    "Make all four index tensors on `device`; the result then lives there by itself.",
)
dense_mask.mistake("four-arguments", *FOUR_ARGUMENTS)
dense_mask.mistake("python-not", *PYTHON_NOT)

EVERY_CELL = [  # [2][2][6][6], no two rows, columns or grids equal
    [
        ["".join("■" if (5 * q + 3 * k + 2 * h + b + q * k) % 7 < 3 else "□" for k in range(6)) for q in range(6)]
        for h in (0, 1)
    ]
    for b in (0, 1)
]


def table_of(b: bool, h: bool, q: bool, k: bool) -> list[list[list[str]]]:
    """A mask that depends on the indices that are named, as a table."""
    return [
        [[row[: 6 if k else 1] for row in head[: 6 if q else 1]] for head in batch[: 2 if h else 1]]
        for batch in EVERY_CELL[: 2 if b else 1]
    ]


def dense_cases() -> list[Case]:
    def case(B: int, H: int, Q: int, K: int, reads: str) -> Case:
        mask = table_of(*(name in reads for name in "bhqk"))
        return {"B": B, "H": H, "Q": Q, "K": K, "reads": reads, "mask": mask}

    return [
        case(1, 1, 2, 3, "qk"),
        case(1, 1, 3, 3, "qk"),
        case(1, 1, 1, 1, "qk"),
        case(2, 1, 2, 3, "bqk"),
        case(1, 2, 2, 3, "hqk"),
        case(2, 2, 2, 3, "bhqk"),
        case(2, 2, 2, 3, "qk"),
        case(2, 2, 3, 2, "bk"),
        case(2, 1, 3, 2, "q"),
        case(2, 2, 1, 4, "h"),
    ]


def dense_of(case: Case, rule: Callable[[Case, int, int, int, int], bool], shape: list[int] | None = None) -> Any:
    indices = positions(range(case["Q"]), range(case["K"]), B=case["B"], H=case["H"])
    answer = grid_of(indices, lambda _, b, h, q, k: rule(case, b, h, q, k))
    return {"shape": shape or [case["B"], case["H"], case["Q"], case["K"]], **answer}


def say_dense(case: Case) -> str:
    names = {"b": "batch row", "h": "head", "q": "query", "k": "key"}
    reads = ", ".join(names[letter] for letter in case["reads"])
    sizes = ", ".join(f"{name}={case[name]}" for name in "BHQK")
    return f"dense_mask(mask, {sizes}), of a mask that looks at: {reads}"


def draw_dense(case: Case, answer: Any) -> str:
    shape = f"shape {answer['shape']}"
    if answer["grid"] is None:
        return shape
    drawn = picture(answer["grid"], range(case["Q"]), range(case["K"]), right=dense.expected(case)["grid"])
    return f"{shape}\n{drawn}"


@dense_mask.check(cases=dense_cases, describe=say_dense, draw=draw_dense)
def dense(case: Case) -> Any:
    return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], b, h, q, k))


for _zero_b, _zero_h in ((0, 0), (0, 1), (1, 0)):
    for _narrow in (False, True):

        @dense.predicts("broadcast-batch")
        def _(case: Case, kb: int = _zero_b, kh: int = _zero_h, narrow: bool = _narrow) -> Any:
            """Asked for index 0 in place of b, of h or of both; expanded afterwards or not."""
            shape = [case["B"] if kb else 1, case["H"] if kh else 1, case["Q"], case["K"]] if narrow else None
            return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], b * kb, h * kh, q, k), shape)


@dense.predicts("broadcast-batch")
def _(case: Case) -> Any:
    """Asked for index 0 in place of b and h, then repeated B and H times."""
    shape = [case["B"], case["H"], *(case[size] if name in case["reads"] else 1 for name, size in ("qQ", "kK"))]
    return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], 0, 0, q, k), shape)


@dense.predicts("broadcast-batch")
def _(case: Case) -> Any:
    """Written for the first batch row and head only; the others are as they were made."""
    return dense_of(case, lambda c, b, h, q, k: b == h == 0 and read_in(c["mask"], 0, 0, q, k))


@dense.shows("not-expanded")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """The values are there, with dimensions missing, or some of size 1 too many."""
    if is_raised(answer) or answer["shape"] == expected["shape"] or answer["grid"] not in (expected["grid"], None):
        return False
    wanted = iter(size for size in expected["shape"] if size > 1)
    return all(size in wanted for size in answer["shape"] if size > 1)  # in the same order


@dense.predicts("transposed")
def _(case: Case) -> Any:
    return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], b, h, k, q))


for _values_too in (False, True):

    @dense.predicts("transposed")
    def _(case: Case, values_too: bool = _values_too) -> Any:
        """The shape is [B, H, K, Q]; with the values in their right places, or mirrored with it."""
        B, H, Q, K = (case[name] for name in "BHQK")
        if Q != K:
            return {"shape": [B, H, K, Q], "grid": None}
        return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], b, h, *((k, q) if values_too else (q, k))))


@dense.predicts("from-one")
def _(case: Case) -> Any:
    return dense_of(case, lambda c, b, h, q, k: read_in(c["mask"], b, h, q + 1, k + 1))


dense.shows("python-not")(asks_for_one_value)
dense.shows("four-arguments")(wrong_arguments)


@dense_mask.check(
    cases=[{"B": 1, "H": 1, "Q": 2, "K": 2}],
    describe=lambda _: 'dense_mask(mask, 1, 1, 2, 2, device="meta")',
    draw=lambda _, answer: f"indices on {answer['indices']}\nresult on {answer['result']}",
)
def dense_device(_case: Case) -> Any:
    return {"indices": "meta", "result": "meta"}


dense_device.shows("ignores-device")(lambda case, _, answer: not is_raised(answer))

# ------------------------------------------------------------------------------------------------ 1.7, 1.8: what blocks are

FULL, PARTIAL, EMPTY, BOTH = "■▨□✗"
LEGEND = "■ full  ▨ partial  □ in neither"


def ceil_div(n: int, size: int) -> int:
    return (n + size - 1) // size


def draw_blocks(case: Case, answer: Any, right: Any) -> str:
    """A map of blocks [B][H][rows] or [B][rows]."""
    if "blocks" not in answer:
        return f"partial of shape {answer['partial']}\nfull of shape {answer['full']}"
    grids, expected = ([b if isinstance(b[0], list) else [b] for b in maps["blocks"]] for maps in (answer, right))
    legend = LEGEND + ("  ✗ in both" if "✗" in str(grids) else "")
    rows, columns = len(grids[0][0]), len(grids[0][0][0])
    return legend + "\n" + picture(grids, range(rows), range(columns), ("blocks", ""), right=expected)


def _swap(maps: Any, change: dict[str, str]) -> Any:
    """A map of blocks with its signs replaced."""
    if isinstance(maps, str):
        return "".join(change.get(sign, sign) for sign in maps)
    return [_swap(part, change) for part in maps]


def swapped(answer: Any) -> Any:
    return {"blocks": _swap(answer["blocks"], {FULL: PARTIAL, PARTIAL: FULL})}


def in_both(answer: Any) -> Any:
    return {"blocks": _swap(answer["blocks"], {FULL: BOTH})}


def empty_as_partial(answer: Any) -> Any:
    return {"blocks": _swap(answer["blocks"], {EMPTY: PARTIAL})}


def all_full(answer: Any) -> Any:
    return {"blocks": _swap(answer["blocks"], {PARTIAL: FULL})}


def last_full(answer: Any) -> Any:
    """The last block that a row reads counts as full."""

    def changed(maps: Any) -> Any:
        if isinstance(maps, str):
            end = len(maps.rstrip(EMPTY))
            return maps[: end - 1] + FULL + maps[end:] if end else maps
        return [changed(part) for part in maps]

    return {"blocks": changed(answer["blocks"])}


def know_block_mistakes(exercise: Exercise) -> None:
    """Mistakes that 1.7 and 1.8 have in common."""
    exercise.mistake(
        "maps-swapped",
        "Which of the two maps comes first in the result?",
        "Partial and full have changed places.",
        "Give back the partial blocks first, then the full ones.",
    )
    exercise.mistake(
        "full-in-both",
        "In which of the two maps is a block of which everything is read?",
        "Each block that is full is also marked as partial, so the kernel would count it twice.",
        "Take the full blocks out of those that are read at all; what remains is partial.",
    )
    exercise.mistake(
        "empty-is-partial",
        "In which map belongs a block of which nothing is read?",
        "Partial has come out as “not full”. Mind that `a & b == False` means `(a & b) == False`.",
        "Partial is read somewhere and not everywhere: both conditions, each in brackets.",
    )
    exercise.mistake(
        "block-size-swapped",
        "`block_size` holds two numbers. Which belongs to the queries, and which to the keys?",
        "The mask is cut with the two block sizes in each other's place.",
        "The first number counts queries, the second one keys.",
    )
    exercise.mistake(
        "broadcast-batch",
        "Which batch rows and heads of the input does each map of your result come from?",
        "One batch row or head stands for all of them, or all are mixed into one.",
        "Keep the leading dimensions apart, and reduce only over the queries and keys inside a block.",
    )
    exercise.mistake("python-not", *PYTHON_NOT)


# ------------------------------------------------------------------------------------------------ 1.7 classify_blocks

classify = Exercise(
    "1.7",
    section="From entries to blocks",
    hints=(
        "Take one block that differs (← marks the rows) or, if there is an error, the first one. Find it in the mask above: "
        "how many of its entries are read?",
        "Compute for that one block by hand what your code asks of it: is any entry read, is every entry read, "
        "and which entries are there at all?",
        "Partial: some entry is read, but not all. Full: every entry of every query that exists, and no key beyond K.  "
        "Look at whole blocks first, then at those that stick out of the mask.",
    ),
    preload=PRELOAD,
)
know_block_mistakes(classify)
classify.mistake(
    "full-for-partial",
    "Who skips asking the mask, and what would be read in the part of a full block that no key has filled?",
    "A block is marked full of which not every key is there and allowed. Of a full block the kernel reads everything.",
    "What lies beyond K counts as not read, for both maps: a block that sticks out on that side can only be partial.",
)
classify.mistake(
    "missing-queries-count",
    "The last row of blocks has fewer queries than the others. What do those that don't exist read, in your code?",
    "Rows added below the mask count as queries: as such that read nothing (no block is full) or all (no block is empty).",
    "Missing queries must not change either answer: for “is any read” they read nothing, for “are all read” they read all.",
)
classify.mistake(
    "drops-the-rest",
    "How many blocks does it take to cover all queries and keys, the last ones included?",
    "What does not fill a whole block has been cut off.",
    "Round the number of blocks up, and fill the mask up to whole blocks.",
)
classify.mistake(
    "true-means-hidden",
    "What does True mean in this mask: is read, or is hidden?",
    "Your blocks are those of the mask's negative: what is hidden counts as read.",
    "An entry that is True is read.",
)
classify.mistake(
    "one-row-is-enough",
    "How many entries of a full block are read?",
    "A block counts as full as soon as one of its rows or columns is, or as soon as there is something in each.",
    "For a full block ask for all entries, along both directions inside the block.",
)


def mask_case(rows: list[str], block: tuple[int, int], *others: list[str]) -> Case:
    return {"mask": [[rows], *([other] for other in others)], "block": list(block)}


def classify_cases() -> list[Case]:
    staircase = ["■□□□", "■■□□", "■■■□", "■■■■"]
    return [
        mask_case(staircase, (2, 2)),
        mask_case(["■■■■", "■■■■", "□□□□", "□□□■"], (2, 2)),
        mask_case(["■□■□■■", "■■□□■■", "□□□□■■", "■■□□■□"], (2, 2)),
        mask_case(["■■■■■■"], (1, 4)),
        mask_case(["■■□", "■■□", "■■■"], (2, 1)),
        mask_case(["■■□□", "■■□□", "■■□□"], (2, 2)),
        mask_case(["■■■■■", "■■■■■", "■■■■■"], (2, 2)),
        mask_case(["■■□□□", "■■□□□", "■■□□□"], (2, 4)),
        mask_case(["■■■□□□", "■■■□□□"], (2, 3)),
        mask_case(["■□□□", "□□□□"], (1, 2), ["□□■■", "■■■■"]),
        {
            "mask": [[["■■", "■■"], ["□□", "□□"]], [["□■", "■□"], ["■■", "□□"]]],
            "block": [1, 2],
        },
        mask_case(["■"], (4, 4)),
        mask_case(["□□"], (1, 1)),
    ]


def say_classify(case: Case) -> str:
    Q, K = len(case["mask"][0][0]), len(case["mask"][0][0][0])
    block = tuple(case["block"])
    return f"blocks of {block[0]} by {block[1]} (queries by keys)\n" + picture(
        case["mask"], range(Q), range(K), cut=(block[0], block[1])
    )


def sort_blocks(
    case: Case,
    any_pad: tuple[bool, bool] = (False, False),
    all_pad: tuple[bool, bool] = (True, False),
    is_full: Callable[[list[list[bool]]], bool] = lambda entries: all(map(all, entries)),
    block: Sequence[int] | None = None,
    mask: Any = None,
    down: tuple[bool, bool] = (False, False),
) -> Any:
    """The map of a mask's blocks.

    Args:
        any_pad, all_pad: what counts as read beyond Q and beyond K, when asking whether any entry is, and whether all are.
        is_full: what makes a block full.
        down: leave out blocks that stick out of the mask, below and on the right.
    """
    qb, kb = block or case["block"]

    def of_head(rows: list[str]) -> list[str]:
        Q, K = len(rows), len(rows[0])

        def entry(q: int, k: int, pad: tuple[bool, bool]) -> bool:
            return pad[0] if q >= Q else pad[1] if k >= K else rows[q][k] == FULL

        def sign(i: int, j: int) -> str:
            inside = [[(q, k) for k in range(j * kb, j * kb + kb)] for q in range(i * qb, i * qb + qb)]
            if is_full([[entry(q, k, all_pad) for q, k in row] for row in inside]):
                return FULL
            return PARTIAL if any(entry(q, k, any_pad) for row in inside for q, k in row) else EMPTY

        n_q, n_k = (n // size if cut else ceil_div(n, size) for n, size, cut in ((Q, qb, down[0]), (K, kb, down[1])))
        return ["".join(sign(i, j) for j in range(n_k)) for i in range(n_q)]

    return {"blocks": [[of_head(head) for head in batch] for batch in (mask or case["mask"])]}


@st.composite
def random_masks(draw: st.DrawFn) -> Case:
    Q, K = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = st.sampled_from("■■■□")  # mostly read, else hardly a block would be full
    rows = ["".join(draw(cells) for _ in range(K)) for _ in range(Q)]
    return mask_case(rows, (draw(st.integers(1, 4)), draw(st.integers(1, 4))))


@classify.check(
    cases=classify_cases,
    describe=say_classify,
    draw=lambda case, answer: draw_blocks(case, answer, sort_blocks(case)),
    search=random_masks(),
)
def classified(case: Case) -> Any:
    return sort_blocks(case)


def also(check: Check, slug: str, *forms: Callable[[Case], Any]) -> None:
    """Several forms of one mistake."""
    for predict in forms:
        check.predicts(slug)(predict)


also(classified, "maps-swapped", lambda case: swapped(sort_blocks(case)))
also(classified, "full-in-both", lambda case: in_both(sort_blocks(case)))
also(classified, "empty-is-partial", lambda case: empty_as_partial(sort_blocks(case)))
also(classified, "block-size-swapped", lambda case: sort_blocks(case, block=case["block"][::-1]))
also(
    classified,
    "full-for-partial",
    lambda case: all_full(sort_blocks(case)),
    lambda case: last_full(sort_blocks(case)),
    lambda case: sort_blocks(case, all_pad=(True, True)),
    lambda case: sort_blocks(case, all_pad=(False, True)),
    lambda case: sort_blocks(case, any_pad=(True, True), all_pad=(True, True)),
    lambda case: sort_blocks(case, any_pad=(False, True), all_pad=(True, True)),
    lambda case: sort_blocks(case, any_pad=(False, True), all_pad=(False, True)),
)
also(
    classified,
    "true-means-hidden",
    lambda case: sort_blocks(case, mask=negative(case["mask"])),
    lambda case: sort_blocks(case, mask=negative(case["mask"]), all_pad=(True, True)),
    lambda case: sort_blocks(case, mask=negative(case["mask"]), any_pad=(True, True), all_pad=(True, True)),
)
also(
    classified,
    "missing-queries-count",
    lambda case: sort_blocks(case, all_pad=(False, False)),
    lambda case: sort_blocks(case, any_pad=(True, False)),
)
also(
    classified,
    "one-row-is-enough",
    lambda case: sort_blocks(case, is_full=lambda entries: any(map(all, entries))),
    lambda case: sort_blocks(case, is_full=lambda entries: all(map(any, entries))),
    lambda case: sort_blocks(case, is_full=lambda entries: any(map(all, zip(*entries, strict=True)))),
    lambda case: sort_blocks(case, is_full=lambda entries: all(map(any, zip(*entries, strict=True)))),
)


def negative(mask: Any) -> Any:
    """A mask with read and hidden exchanged."""
    return _swap(mask, {"■": "□", "□": "■"})


def one_for_all(mask: Any, b: bool, h: bool, narrow: bool = False) -> Any:
    """The mask with batch row 0, head 0 or both in place of all of them; once, or as often as there were."""
    batches = mask[:1] * (1 if narrow else len(mask)) if b else mask
    return [batch[:1] * (1 if narrow else len(batch)) if h else batch for batch in batches]


def only_first(maps: Any) -> Any:
    """A map of blocks [B][H][rows] in which all but the first row and head are empty."""
    return [
        [
            head if b == h == 0 else [_swap(row, {FULL: EMPTY, PARTIAL: EMPTY}) for row in head]
            for h, head in enumerate(batch)
        ]
        for b, batch in enumerate(maps)
    ]


def mixed(case: Case) -> Any:
    """Any and all taken over batch rows and heads too."""
    maps = [head for batch in sort_blocks(case)["blocks"] for head in batch]

    def sign(signs: tuple[str, ...]) -> str:
        return FULL if set(signs) == {FULL} else EMPTY if set(signs) == {EMPTY} else PARTIAL

    rows = ["".join(map(sign, zip(*row, strict=True))) for row in zip(*maps, strict=True)]
    return {"blocks": [[rows for _ in batch] for batch in case["mask"]]}


for _b, _h, _narrow in itertools.product((False, True), repeat=3):
    if _b or _h:

        @classified.predicts("broadcast-batch")
        def _(case: Case, b: bool = _b, h: bool = _h, narrow: bool = _narrow) -> Any:
            return sort_blocks(case, mask=one_for_all(case["mask"], b, h, narrow))


classified.predicts("broadcast-batch")(mixed)
classified.predicts("broadcast-batch")(lambda case: {"blocks": only_first(sort_blocks(case)["blocks"])})
classified.shows("python-not")(asks_for_one_value)


def is_uneven(answer: Any) -> bool:
    """A reshape that only works for whole blocks."""
    words = (
        "invalid for input of size",
        "multiply up to",
        "not divisible",
        "split_with_sizes",
        "maximum size for tensor",
    )
    return is_raised(answer) and any(word in answer["message"] for word in words)


@classified.shows("drops-the-rest")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return is_uneven(answer) or answer in [
        sort_blocks(case, down=down) for down in ((True, True), (True, False), (False, True))
    ]


# ------------------------------------------------------------------------------------------------ 1.8 visible_blocks

visible = Exercise(
    "1.8",
    section="Blocks without the dense mask",
    hints=(
        "Take one block that differs (← marks the rows) or, if there is an error, the first one. Find it in the picture "
        "above: which of its queries reach into it, and which cover it?",
        "Write down the first and last key of the block, and of each query in it. Compare these numbers as your code does.",
        "Read: some interval that holds a key begins no later than the block ends, and ends no earlier than it begins.  "
        "Full: every query's interval begins no later than the block, and ends no earlier.",
    ),
    preload=PRELOAD,
)
know_block_mistakes(visible)
visible.mistake(
    "full-for-partial",
    "Who skips asking the mask, and what would be read of a block that an interval only touches?",
    "A block is marked full though an interval begins or ends inside it. Of a full block the kernel reads everything.",
    "For a full block look at both ends: the interval must hold the block's first key and its last key.",
)
visible.mistake(
    "one-for-all",
    "How many of the queries must cover a block that is full, and how many do?",
    "A block is marked full as soon as one query covers it, or several do together.",
    "For a full block the strictest query decides: the latest first key, and the earliest last key.",
)
visible.mistake(
    "off-by-one",
    "Which key is the last of a block, and does a query read the key `last`?",
    "An end that belongs to the interval, or to the block, is left out or overstepped by one.",
    "A block holds the keys from its start to start + size - 1, and a query reads `first` and `last` themselves too.",
)
visible.mistake(
    "precedence",
    "Which does Python work out first in your expression: the comparisons, or `&`?",
    "`&` binds tighter than `<=`: `(a) & b <= c` is `((a) & b) <= c`, a bit-wise product of a bool and a number.",
    "Put brackets around each of the comparisons that you combine.",
)
visible.mistake(
    "assumes-order",
    "Does the first query of a block always begin first, and does the last one always end last?",
    "Only one query at an edge of the block is looked at. The docstring says that neighbours touch, not that they ascend.",
    "Take the smallest and the largest over all queries of the block.",
)
visible.mistake(
    "missing-queries-count",
    "The last row of blocks has fewer queries than the others. What do those that don't exist read, in your code?",
    "The queries that fill up the last block read something of their own, or nothing, and so change what the block is.",
    "Fill up with what changes neither answer, such as a query that is there already.",
)
visible.mistake(
    "same-for-all",
    "Which queries does each row of blocks look at?",
    "All rows of blocks come out alike: the smallest and the largest are those of all queries, not of a block's own.",
    "Reduce over the queries inside a block only.",
)
visible.mistake(
    "drops-the-rest",
    "How many blocks does it take to cover all queries, the last ones included?",
    "Queries that do not fill a whole block have been cut off, or can't be reshaped.",
    "Round the number of blocks up, and fill the last one before you reshape.",
)
visible.mistake(
    "empty-reads",
    "One query has first > last. Which keys does it read, and which block does it touch in your code?",
    "The two numbers of a query that reads nothing still take part in the smallest and largest, or in the comparison.",
    "Leave queries with first > last out when you ask whether a block is read.",
)
visible.mistake(
    "empty-skipped",
    "One query has first > last. May the kernel skip asking the mask for a block that holds this query?",
    "A query that reads nothing was left out when you asked whether a block is full.",
    "Every query that exists has to cover a full block, and one that reads nothing covers none.",
)


def interval_case(first: list[int], last: list[int], n: int, block: tuple[int, int], *others: list[list[int]]) -> Case:
    return {
        "first": [first, *(one[0] for one in others)],
        "last": [last, *(one[1] for one in others)],
        "n_key_blocks": n,
        "block": list(block),
    }


def interval_cases() -> list[Case]:
    return [
        interval_case([0], [5], 3, (1, 4)),
        interval_case([0], [3], 2, (1, 4)),
        interval_case([4], [7], 3, (1, 4)),
        interval_case([1], [2], 2, (1, 2)),
        interval_case([0], [0], 3, (1, 1)),
        interval_case([0, 0, 0, 0], [0, 1, 2, 3], 2, (2, 2)),
        interval_case([0, 0, 1, 2], [0, 1, 2, 3], 4, (2, 1)),
        interval_case([0, 0, 2, 2, 2, 5], [0, 1, 2, 3, 4, 5], 3, (2, 2)),
        interval_case([0, 2], [1, 3], 2, (2, 2)),
        interval_case([1, 2, 3], [5, 6, 7], 8, (3, 1)),
        interval_case([0, 0, 2, 3], [3, 4, 6, 7], 2, (2, 4)),
        interval_case([0, 0, 0], [1, 3, 5], 3, (2, 2)),
        interval_case([0, 2, 4], [3, 5, 7], 4, (2, 2)),
        interval_case([2], [5], 3, (4, 2)),
        interval_case([0, 0], [1, 3], 2, (1, 2), [[2, 1], [3, 2]]),
        interval_case([0, 1, 3], [3, 5, 7], 4, (2, 2), [[4, 4, 6], [5, 7, 7]]),
        interval_case([4, 2], [6, 5], 4, (2, 2)),
        interval_case([2, 0, 3], [4, 7, 5], 4, (3, 2)),
        interval_case([0, 0, 6, 6], [7, 7, 7, 7], 4, (4, 2)),
    ]


def empty_interval_cases() -> list[Case]:
    return [
        interval_case([0], [-1], 2, (1, 2)),
        interval_case([3], [1], 1, (1, 4)),
        interval_case([4, 0], [7, -1], 2, (2, 4)),
        interval_case([0, 9], [3, 1], 3, (2, 4)),
        interval_case([0, 10], [3, 8], 3, (2, 4)),
        interval_case([6, 7], [2, 0], 4, (2, 2)),
        interval_case([0, 5, 0], [3, 2, 3], 3, (3, 2)),
        interval_case([0, 5], [3, 4], 2, (1, 4), [[8, 4], [2, 7]]),
        interval_case([8, 8, 5], [3, 3, 4], 5, (2, 2)),
        interval_case([0, 9], [0, 3], 3, (2, 1)),
    ]


def say_intervals(case: Case) -> str:
    qb, kb = case["block"]
    keys = range(case["n_key_blocks"] * kb)
    queries = range(len(case["first"][0]))
    grids = [
        [["".join("■" if f <= k <= last else "□" for k in keys) for f, last in zip(firsts, lasts, strict=True)]]
        for firsts, lasts in zip(case["first"], case["last"], strict=True)
    ]
    numbers = [case["first"], case["last"]] if len(grids) > 1 else [case["first"][0], case["last"][0]]
    return (
        f"first {numbers[0]}, last {numbers[1]}, n_key_blocks {case['n_key_blocks']}, blocks of {qb} by {kb}\n"
        + picture(grids, queries, keys, cut=(qb, kb))
    )


Interval = tuple[int, int]
Sign = Callable[[list[Interval], int, int], bool]
"""(intervals of a block's queries, first and last key of a block) -> whether it is read, or full."""


def holds_keys(intervals: list[Interval]) -> list[Interval]:
    return [(f, last) for f, last in intervals if f <= last]


def is_read(intervals: list[Interval], start: int, end: int) -> bool:
    return any(f <= end and start <= last for f, last in holds_keys(intervals))


def is_covered(intervals: list[Interval], start: int, end: int) -> bool:
    return all(f <= start and end <= last for f, last in intervals)


def sort_intervals(
    case: Case,
    read: Sign = is_read,
    covered: Sign = is_covered,
    pad: Interval | None = None,
    block: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    down: bool = False,
) -> Any:
    """The map of blocks [B][rows] for intervals.

    Args:
        pad: interval of queries that fill up the last block.
        rows: batch rows to use.
        down: leave out queries that do not fill a block.
    """
    qb, kb = block or case["block"]
    maps = []
    for b in rows if rows is not None else range(len(case["first"])):
        of_query = list(zip(case["first"][b], case["last"][b], strict=True))
        n_q = len(of_query) // qb if down else ceil_div(len(of_query), qb)
        lines = []
        for i in range(n_q):
            chosen = of_query[i * qb : i * qb + qb]
            if pad is not None:
                chosen = chosen + [pad] * (qb - len(chosen))
            spans = [(j * kb, j * kb + kb - 1) for j in range(case["n_key_blocks"])]
            lines.append(
                "".join(FULL if covered(chosen, *s) else PARTIAL if read(chosen, *s) else EMPTY for s in spans)
            )
        maps.append(lines)
    return {"blocks": maps}


@st.composite
def random_intervals(draw: st.DrawFn) -> Case:
    """Neighbours overlap or touch."""
    first = [draw(st.integers(0, 4))]
    last = [first[0] + draw(st.integers(0, 5))]
    for _ in range(draw(st.integers(0, 5))):
        first.append(draw(st.integers(max(0, first[-1] - 2), last[-1] + 1)))
        last.append(max(first[-1], first[-2] - 1, last[-1] + draw(st.integers(-2, 3))))
    qb, kb = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return interval_case(first, last, ceil_div(max(last) + 1, kb) + draw(st.integers(0, 1)), (qb, kb))


def draw_intervals(case: Case, answer: Any) -> str:
    return draw_blocks(case, answer, sort_intervals(case))


@visible.check(cases=interval_cases, describe=say_intervals, draw=draw_intervals, search=random_intervals())
def intervals(case: Case) -> Any:
    return sort_intervals(case)


@visible.check(cases=empty_interval_cases, describe=say_intervals, draw=draw_intervals)
def empty_intervals(case: Case) -> Any:
    return sort_intervals(case)


def low(intervals: list[Interval]) -> int:
    return min(f for f, _ in intervals)


def high(intervals: list[Interval]) -> int:
    return max(last for _, last in intervals)


def latest_first(intervals: list[Interval]) -> int:
    return max(f for f, _ in intervals)


def earliest_last(intervals: list[Interval]) -> int:
    return min(last for _, last in intervals)


def hull(intervals: list[Interval], start: int, end: int) -> bool:
    """Read, by the smallest and largest key of all queries, those that read nothing included."""
    return low(intervals) <= end and start <= high(intervals)


for _check in (intervals, empty_intervals):
    also(_check, "maps-swapped", lambda case: swapped(sort_intervals(case)))
    also(_check, "full-in-both", lambda case: in_both(sort_intervals(case)))
    also(_check, "empty-is-partial", lambda case: empty_as_partial(sort_intervals(case)))
    also(_check, "block-size-swapped", lambda case: sort_intervals(case, block=case["block"][::-1]))
    also(
        _check,
        "full-for-partial",
        lambda case: all_full(sort_intervals(case)),
        lambda case: last_full(sort_intervals(case)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: latest_first(i) <= s <= earliest_last(i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: latest_first(i) <= e <= earliest_last(i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: e <= earliest_last(i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: e <= earliest_last(i) and is_read(i, s, e)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: latest_first(i) <= s),
        lambda case: sort_intervals(case, covered=lambda i, s, e: latest_first(i) <= s and is_read(i, s, e)),
    )
    also(
        _check,
        "one-for-all",
        lambda case: sort_intervals(case, covered=lambda i, s, e: low(i) <= s and e <= high(i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: any(f <= s and e <= last for f, last in i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: low(i) <= s and e <= earliest_last(i)),
        lambda case: sort_intervals(case, covered=lambda i, s, e: latest_first(i) <= s and e <= high(i)),
    )
    also(
        _check,
        "broadcast-batch",
        lambda case: sort_intervals(case, rows=[0] * len(case["first"])),
        lambda case: sort_intervals(case, rows=[0]),
        lambda case: {"blocks": [maps for [maps] in only_first([[b] for b in sort_intervals(case)["blocks"]])]},
    )
    _check.shows("python-not")(asks_for_one_value)


def off_by_one(case: Case, at_read: int, at_block: int, at_full: int) -> Any:
    """Ends moved: of the interval or of the block when asking what is read, of either when asking what is full."""
    return sort_intervals(
        case,
        read=lambda i, s, e: low(i) <= e + at_block and s <= high(i) + at_read,
        covered=lambda i, s, e: latest_first(i) <= s and e + at_full <= earliest_last(i),
    )


for _ends in itertools.product((-1, 0, 1), repeat=3):
    if any(_ends):
        intervals.predicts("off-by-one")(lambda case, ends=_ends: off_by_one(case, *ends))

READ_WITHOUT_BRACKETS: tuple[Callable[[int, int, int, int], bool], ...] = (
    lambda lo, hi, s, e: lo <= e and s <= hi,
    lambda lo, hi, s, e: (int(lo <= e) & s) <= hi,
    lambda lo, hi, s, e: (int(s <= hi) & lo) <= e,
    lambda lo, hi, s, e: lo <= (e & int(s <= hi)),
    lambda lo, hi, s, e: s <= (hi & int(lo <= e)),
    lambda lo, hi, s, e: (int(lo <= e) & hi) >= s,
    lambda lo, hi, s, e: (int(s <= hi) & e) >= lo,
)
"""Whether the span lo … hi meets the block s … e; the first one has its brackets."""
FULL_WITHOUT_BRACKETS: tuple[Callable[[int, int, int, int], bool], ...] = (
    lambda lo, hi, s, e: lo <= s and e <= hi,
    lambda lo, hi, s, e: (int(lo <= s) & e) <= hi,
    lambda lo, hi, s, e: (int(e <= hi) & lo) <= s,
    lambda lo, hi, s, e: lo <= (s & int(e <= hi)),
    lambda lo, hi, s, e: e <= (hi & int(lo <= s)),
    lambda lo, hi, s, e: (int(lo <= s) & hi) >= e,
    lambda lo, hi, s, e: (int(e <= hi) & s) >= lo,
)

for _read, _covered in list(itertools.product(READ_WITHOUT_BRACKETS, FULL_WITHOUT_BRACKETS))[1:]:

    @intervals.predicts("precedence")
    def _(case: Case, read: Any = _read, covered: Any = _covered) -> Any:
        return sort_intervals(
            case,
            read=lambda i, s, e: read(low(i), high(i), s, e),
            covered=lambda i, s, e: covered(latest_first(i), earliest_last(i), s, e),
        )


def edges_read(i: list[Interval], start: int, end: int) -> bool:
    return i[0][0] <= end and start <= i[-1][1]


def edges_cover(i: list[Interval], start: int, end: int) -> bool:
    return i[-1][0] <= start and end <= i[0][1]


also(
    intervals,
    "assumes-order",
    lambda case: sort_intervals(case, read=edges_read, covered=edges_cover),
    lambda case: sort_intervals(case, read=edges_read),
    lambda case: sort_intervals(case, covered=edges_cover),
)

for _pad, _hull in itertools.product([(0, 0), (0, -1), (-1, -1), (0, 10**6)], (is_read, hull)):

    @intervals.predicts("missing-queries-count")
    def _(case: Case, pad: Interval = _pad, read: Sign = _hull) -> Any:
        return sort_intervals(case, read=read, pad=pad)


@intervals.predicts("same-for-all")
def _(case: Case) -> Any:
    """By all queries of a batch row."""
    Q = len(case["first"][0])
    wide = sort_intervals(case, block=(Q, case["block"][1]))["blocks"]
    return {"blocks": [rows * ceil_div(Q, case["block"][0]) for rows in wide]}


@intervals.predicts("same-for-all")
def _(case: Case) -> Any:
    """By all queries of all batch rows."""
    first, last = ([x for row in case[name] for x in row] for name in ("first", "last"))
    one = {**case, "first": [first], "last": [last]}
    [rows] = sort_intervals(one, block=(len(first), case["block"][1]))["blocks"]
    return {"blocks": [rows * ceil_div(len(batch), case["block"][0]) for batch in case["first"]]}


@intervals.shows("drops-the-rest")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return is_uneven(answer) or answer == sort_intervals(case, down=True)


also(
    empty_intervals,
    "empty-reads",
    lambda case: sort_intervals(case, read=hull),
    lambda case: sort_intervals(case, read=lambda i, s, e: any(f <= e and s <= last for f, last in i)),
    lambda case: sort_intervals(
        case, read=lambda i, s, e: low(i) <= e and s <= max((last for _, last in holds_keys(i)), default=-1)
    ),
    lambda case: sort_intervals(
        case, read=lambda i, s, e: min((f for f, _ in holds_keys(i)), default=10**9) <= e and s <= high(i)
    ),
)
also(
    empty_intervals,
    "empty-skipped",
    lambda case: sort_intervals(case, covered=lambda i, s, e: is_covered(holds_keys(i), s, e)),
    lambda case: sort_intervals(case, covered=lambda i, s, e: is_covered(holds_keys(i), s, e) and is_read(i, s, e)),
)

# ------------------------------------------------------------------------------------------------ 1.9 block_mask_from_blocks

by_hand = Exercise(
    "1.9",
    section="A BlockMask by hand",
    hints=(
        "Compare line by line (← marks rows that differ), or start with the first row if there is an error. Which blocks do "
        "the maps mark there, and which do the lists name, as far as their counts go?",
        "Print the count and the list of that row, for both lists, next to the maps.",
        "For each list: the count says how many blocks the map marks in a row, and as many places at the front of the list "
        "name them. The rest of a BlockMask is what you were given.",
    ),
    preload=PRELOAD,
)
by_hand.mistake(
    "lists-swapped",
    "Which list does the kernel compute without asking the mask, and which blocks are in it?",
    "The partial and the full blocks have changed places.",
    "`kv_num_blocks` and `kv_indices` are for the partial blocks, those that begin with `full_` for the full ones.",
)
by_hand.mistake(
    "full-for-partial",
    "Who skips asking the mask_mod, and which blocks does the kernel compute whole here?",
    "Partial blocks stand in the list of the full ones.",
    "Into the full list belongs what the map of full blocks marks, and nothing else.",
)
by_hand.mistake(
    "all-partial",
    "For which blocks may the kernel save asking the mask_mod, and does it learn of them here?",
    "Full blocks stand in the list of the partial ones, so their entries are asked for all the same, or counted twice.",
    "Give each list its own map: a block that is full is listed as full only.",
)
by_hand.mistake(
    "none-for-zero",
    "Which of the four tensors are there when no block is full?",
    "The full list is left out. On a CPU the kernel does not compile without it.",
    "Give all four tensors always; where nothing is full, the counts are zeros.",
)
by_hand.mistake(
    "broadcast-batch",
    "From which batch row and head do the lists come, and how many rows and heads do they have?",
    "One batch row or head stands for all of them.",
    "Work along the last dimension only, and keep the three before it.",
)
by_hand.mistake(
    "listed-last",
    "The kernel reads as many places of a list as the count says, from the front. Which blocks stand there?",
    "The sort puts the blocks that are not marked first, because False comes before True.",
    "Turn the order round, so that the marked blocks stand in front.",
)
by_hand.mistake(
    "first-blocks",
    "Which blocks does the map mark, and which does the list name?",
    "The lists count 0, 1, 2, … in every row, whatever the map says.",
    "The front of each list must hold the numbers of the marked blocks; sorting the map gives these.",
)
by_hand.mistake(
    "asks-mask-mod",
    "Where do your lists come from: from the two maps, or from the mask_mod?",
    "The maps are not used. They may list more than the mask_mod would show, and asking it costs all Q·K entries.",
    "Build the lists from the two maps alone; the mask_mod is only handed on.",
)
by_hand.mistake(
    "not-int32",
    "Which dtype do the counts and the lists have, and which does the kernel read?",
    "A sum or a sort gives int64 if nobody says otherwise.",
    "Make all four tensors int32.",
)
by_hand.mistake(
    "narrow-lists",
    "How long is each list, and how many blocks of keys are there?",
    "The lists are cut off behind the longest count.",
    "Each list has one place for each block of keys, whether it is used or not.",
)
by_hand.mistake(
    "invalid-behind",
    "What stands in a list behind the places that the count covers?",
    "Some of those places hold a number that no block has. The kernel does not use them, but may look ahead.",
    "Fill them with any block that exists.",
)
by_hand.mistake(
    "block-size-swapped",
    "`BLOCK_SIZE` holds two numbers. Which belongs to the queries, and which to the keys?",
    "The block size has not arrived as it was given: its numbers are swapped, or one stands for both.",
    "Hand `block_size` on as the pair that it is.",
)
by_hand.mistake(
    "default-block-size",
    "Which block size does the BlockMask have, and which was given?",
    "BlockMask uses its own default where it is not told.",
    "Hand the block size on.",
)
by_hand.mistake(
    "padded-lengths",
    "How many queries and keys are there, and how many would fill all blocks?",
    "Where it is not told, BlockMask takes the lengths that fill whole blocks.",
    "Hand `seq_lengths` on.",
)
by_hand.mistake(
    "lengths-swapped",
    "Which of the two lengths counts the queries?",
    "The lengths are in each other's place.",
    "First the queries, then the keys.",
)
by_hand.mistake(
    "no-mask-mod",
    "What does your BlockMask answer for a single entry of a partial block?",
    "Without a mask_mod everything in a partial block is read.",
    "Hand the mask_mod on.",
)


def block_case(maps: list[str], block: tuple[int, int], lengths: tuple[int, int], *others: list[list[str]]) -> Case:
    """A case with the map of one batch row and head, or [B - 1][H] further ones; the mask_mod is a diagonal pattern."""
    rows = ["".join("■" if (q + 2 * k) % 3 else "□" for k in range(lengths[1])) for q in range(lengths[0])]
    return {"blocks": [[maps], *others], "mask": [[rows]], "block": list(block), "lengths": list(lengths)}


def by_hand_cases() -> list[Case]:
    return [
        block_case(["▨□", "■▨"], (2, 2), (4, 4)),
        block_case(["■▨□"], (1, 4), (1, 12)),
        block_case(["▨▨", "□▨"], (2, 2), (4, 4)),
        block_case(["□□□"], (2, 2), (2, 6)),
        block_case(["■■", "□■"], (2, 2), (4, 4)),
        block_case(["□▨■□▨", "■□□■▨"], (2, 1), (4, 5)),
        block_case(["▨□■"], (2, 2), (2, 6), [["■▨▨"]]),
        {**block_case(["▨■"], (2, 3), (2, 6)), "blocks": [[["▨■"], ["■□"]], [["□▨"], ["■■"]]]},
    ]


def say_by_hand(case: Case) -> str:
    maps = case["blocks"]
    sizes = (
        f"blocks of {case['block'][0]} by {case['block'][1]}, {case['lengths'][0]} queries, {case['lengths'][1]} keys"
    )
    drawn = picture(maps, range(len(maps[0][0])), range(len(maps[0][0][0])), ("blocks", ""))
    return f"{sizes}; ■ in the full map, ▨ in the partial one\n{drawn}"


def lists_of(maps: Any, partial: str = PARTIAL, full: str = FULL) -> Any:
    """The blocks that each row lists, where the lists hold the blocks with these signs."""

    def numbers(signs: str) -> Any:
        return [[[[j for j, sign in enumerate(row) if sign in signs] for row in head] for head in b] for b in maps]

    return {"partial": numbers(partial), "full": numbers(full)}


def draw_lists(case: Case, answer: Any) -> str:
    lines = []
    several = len(case["blocks"]) > 1
    right = lists_of(case["blocks"])
    named = {name: answer[name] for name in ("partial", "full")}
    shape = next((lists for lists in named.values() if lists is not None), [[[]]])
    lines.append(f"{'':<9} {'partial':<9} {'full':<9}".rstrip())
    for b, batch in enumerate(shape):
        for h, head in enumerate(batch):
            if several:
                lines.append(f"row {b}, head {h}")
            for i in range(len(head)):
                cells = [
                    "None" if named[name] is None else " ".join(map(str, named[name][b][h][i])) or "-" for name in named
                ]
                arrow = "" if all(_at(named[n], b, h, i) == _at(right[n], b, h, i) for n in named) else " ←"
                lines.append(f"{f'blocks {i}':<9} {cells[0]:<9} {cells[1]:<9}".rstrip() + arrow)
    return "\n".join(lines)


def _at(lists: Any, b: int, h: int, i: int) -> Any:
    try:
        return lists[b][h][i]
    except (TypeError, IndexError):
        return None


@st.composite
def random_maps(draw: st.DrawFn) -> Case:
    n_q, n_k = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    maps = ["".join(draw(st.sampled_from("□▨■")) for _ in range(n_k)) for _ in range(n_q)]
    return block_case(maps, (2, 2), (2 * n_q, 2 * n_k))


@by_hand.check(cases=by_hand_cases, describe=say_by_hand, draw=draw_lists, search=random_maps())
def listed(case: Case) -> Any:
    return lists_of(case["blocks"])


also(listed, "lists-swapped", lambda case: lists_of(case["blocks"], FULL, PARTIAL))
also(
    listed,
    "full-for-partial",
    lambda case: lists_of(case["blocks"], "", PARTIAL + FULL),
    lambda case: lists_of(case["blocks"], PARTIAL, PARTIAL + FULL),
    lambda case: lists_of(last_full({"blocks": case["blocks"]})["blocks"]),
)
also(
    listed,
    "all-partial",
    lambda case: lists_of(case["blocks"], PARTIAL + FULL, ""),
    lambda case: lists_of(case["blocks"], PARTIAL + FULL, FULL),
    lambda case: {**lists_of(case["blocks"], PARTIAL + FULL), "full": None},
)
also(
    listed,
    "none-for-zero",
    lambda case: _without_full(case, always=False),
    lambda case: _without_full(case, always=True),
)
also(
    listed,
    "listed-last",
    lambda case: _by_place(case, lambda row, sign: sorted(range(len(row)), key=lambda j: row[j] in sign)),
)
also(listed, "first-blocks", lambda case: _by_place(case, lambda row, sign: list(range(len(row)))))


def _without_full(case: Case, always: bool) -> Any:
    answer = lists_of(case["blocks"])
    return {**answer, "full": None} if always or FULL not in str(case["blocks"]) else answer


def _by_place(case: Case, order: Callable[[str, str], list[int]]) -> Any:
    """Right counts, but the lists in some other order."""
    return {
        name: [
            [[sorted(order(row, sign)[: sum(s in sign for s in row)]) for row in head] for head in batch]
            for batch in case["blocks"]
        ]
        for name, sign in (("partial", PARTIAL), ("full", FULL))
    }


for _b, _h, _narrow in itertools.product((False, True), repeat=3):
    if _b or _h:

        @listed.predicts("broadcast-batch")
        def _(case: Case, b: bool = _b, h: bool = _h, narrow: bool = _narrow) -> Any:
            return lists_of(one_for_all(case["blocks"], b, h, narrow))


listed.predicts("broadcast-batch")(lambda case: lists_of(only_first(case["blocks"])))

for _narrow in (False, True):

    @listed.predicts("asks-mask-mod")
    def _(case: Case, narrow: bool = _narrow) -> Any:
        B, H = (1, 1) if narrow else (len(case["blocks"]), len(case["blocks"][0]))
        whole = [case["mask"][0] * H] * B
        return lists_of(sort_blocks(case, all_pad=(False, False), mask=whole)["blocks"])


NUMBERS = "numbers listed"


def draw_form(_case: Case, answer: Any) -> str:
    return "\n".join(f"{name:<18}  {said}" for name, said in answer.items())


def form_cases() -> list[Case]:
    return [
        block_case(["▨□", "■▨"], (2, 2), (4, 4)),
        block_case(["□▨■□▨", "■□□■▨"], (2, 1), (4, 5)),
        block_case(["▨□■"], (2, 2), (2, 6), [["■▨▨"]]),
        block_case(["□□□"], (2, 2), (2, 6)),
    ]


@by_hand.check(cases=form_cases, describe=say_by_hand, draw=draw_form)
def form(case: Case) -> Any:
    B, H, n_q, n_k = sizes_of(case["blocks"])
    counts, lists = f"int32 {[B, H, n_q]}", f"int32 {[B, H, n_q, n_k]}"
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    said = dict(zip(names, (counts, lists, counts, lists), strict=True))
    return {**said, NUMBERS: f"0 … {n_k - 1}"}


def different(expected: Any, answer: Any) -> set[str]:
    return {name for name in expected if expected[name] != answer[name]}


form.shows("invalid-behind")(lambda case, right, answer: different(right, answer) == {NUMBERS})


def dtype_and_shape(said: str) -> tuple[str, str]:
    dtype, _, shape = said.partition(" ")
    return dtype, shape


@form.shows("not-int32")
def _(_case: Case, right: Any, answer: Any) -> bool:
    return all(dtype_and_shape(right[name])[1] == dtype_and_shape(answer[name])[1] for name in different(right, answer))


@form.shows("narrow-lists")
def _(_case: Case, right: Any, answer: Any) -> bool:
    others = different(right, answer) - {NUMBERS}
    same_dtype = all(dtype_and_shape(right[name])[0] == dtype_and_shape(answer[name])[0] for name in others)
    return bool(others) and others <= {"kv_indices", "full_kv_indices"} and same_dtype


def rest_cases() -> list[Case]:
    return [
        block_case(["▨■"], (2, 4), (2, 8)),
        block_case(["▨□", "■▨"], (2, 3), (3, 5)),
    ]


def of_rest(
    case: Case, block: Sequence[int] | None = None, lengths: Sequence[int] | None = None, all_read: bool = False
) -> Any:
    Q, K = case["lengths"]
    asked = positions(range(Q), range(K))
    return {
        "block size": list(block or case["block"]),
        "lengths": list(lengths or case["lengths"]),
        "mask_mod": grid_of(asked, lambda _, b, h, q, k: all_read or read_in(case["mask"], b, h, q, k)),
    }


def draw_rest(case: Case, answer: Any) -> str:
    Q, K = case["lengths"]
    head = f"BLOCK_SIZE {answer['block size']}\nseq_lengths {answer['lengths']}\nmask_mod says"
    return f"{head}\n{picture(answer['mask_mod']['grid'], range(Q), range(K), right=of_rest(case)['mask_mod']['grid'])}"


@by_hand.check(cases=rest_cases, describe=say_by_hand, draw=draw_rest)
def rest(case: Case) -> Any:
    return of_rest(case)


also(
    rest,
    "block-size-swapped",
    lambda case: of_rest(case, block=case["block"][::-1]),
    lambda case: of_rest(case, block=[case["block"][0]] * 2),
    lambda case: of_rest(case, block=[case["block"][1]] * 2),
)
also(rest, "default-block-size", lambda case: of_rest(case, block=[128, 128]))
also(rest, "padded-lengths", lambda case: of_rest(case, lengths=_filled(case)))
also(rest, "lengths-swapped", lambda case: of_rest(case, lengths=case["lengths"][::-1]))
also(rest, "no-mask-mod", lambda case: of_rest(case, all_read=True))


def _filled(case: Case) -> list[int]:
    return [len(case["blocks"][0][0]) * case["block"][0], len(case["blocks"][0][0][0]) * case["block"][1]]


# ------------------------------------------------------------------------------------------------ 1.10 soft_cap

soft_cap = Exercise(
    "1.10",
    section="Gemma's soft cap",
    hints=(
        "Take one score that differs (← marks the rows) or, if there is an error, the first one, and work it out with a "
        "calculator: cap · tanh(score / cap).",
        "Try a score much smaller than the cap, which should hardly change, and one much larger, which should come near it.",
        "Divide by the cap, take tanh, multiply by the cap; for every score alike, wherever its query and key are.",
    ),
    preload=PRELOAD,
)
soft_cap.mistake(
    "cap-after-mask",
    "What is tanh(-inf), and so what remains of a key that was masked before the cap?",
    "Scores of some keys are set to -inf, or far below, and then capped: they come out as -cap, which weighs something.",
    "Cap every score and mask none: FlexAttention masks after the score_mod.",
)
soft_cap.mistake(
    "masks-too",
    "Which scores are changed although the formula does not say so? Where are their keys?",
    "Your score_mod also hides keys that come after the query. That is for a mask_mod, and not every model wants it.",
    "Apply the formula to every score, wherever its query and key are.",
)
soft_cap.mistake(
    "no-divide",
    "What should become of a score that is far below the cap?",
    "tanh sees the score itself and is near 1 long before the score is near the cap.",
    "Divide by the cap first, so that tanh sees how much of the cap the score is.",
)
soft_cap.mistake(
    "no-scale",
    "Between which two values do your results lie, and between which should they?",
    "tanh gives something between -1 and 1, and nobody brings that to the size of the cap.",
    "Multiply by the cap after tanh.",
)
soft_cap.mistake(
    "cancels",
    "Try it with two different caps: does the cap change anything?",
    "Your result is tanh(score): the product and the division both stand outside of tanh, and cancel.",
    "The division belongs inside of tanh, the product outside.",
)
soft_cap.mistake(
    "hard-cap",
    "What becomes of two different scores that are both above the cap?",
    "They are clamped to the same value, and scores below the cap do not change at all. A soft cap bends them all a little.",
    "Use the docstring's formula instead of a limit.",
)
soft_cap.mistake(
    "times-cap",
    "What does tanh see for a score that is equal to the cap? It should see 1.",
    "Score and cap are multiplied inside of tanh.",
    "Inside of tanh divide, outside multiply.",
)
soft_cap.mistake("python-not", *PYTHON_NOT)
soft_cap.mistake(
    "five-arguments",
    "With how many arguments does FlexAttention call a score_mod?",
    "Compare the arguments of your inner function with `ScoreMod` at the top of the file.",
    "A score_mod takes five: score, batch row, head, query, key. Those that it does not need have to be there all the same.",
)

Score = Callable[[float, float, int, int], float]
"""(score, cap, query, key) -> changed score."""


def bent(score: float, cap: float, q: int = 0, k: int = 0) -> float:
    e = math.exp(-2.0 * abs(score) / cap)
    return math.copysign(cap * (1 - e) / (1 + e), score)


def soft_cap_cases() -> list[Case]:
    return [
        {"cap": 2.0, "scores": [[4.0]]},
        {"cap": 2.0, "scores": [[1.0, 0.5], [3.0, -2.0]]},
        {"cap": 50.0, "scores": [[3.0], [20.0], [-75.0]]},
        {"cap": 0.5, "scores": [[0.1, -0.4, 2.0]]},
        {"cap": 30.0, "scores": [[-100.0, -1.0, 0.0, 1.0, 100.0]]},
    ]


def numbers(values: list[list[float]], right: list[list[float]] | None = None) -> str:
    """Numbers of queries and keys as a table."""
    columns = "  ".join(f"{f'key {k}':>7}" for k in range(len(values[0])))
    lines = [f"{'':<7}  {columns}"]
    for q, row in enumerate(values):
        arrow = "" if right is None or close(1e-5)(None, right[q], row) else " ←"
        cells = (f"{value:.3f}" if abs(value) < 1e6 or math.isinf(value) else f"{value:.0e}" for value in row)
        lines.append(f"query {q}  " + "  ".join(f"{cell:>7}" for cell in cells) + arrow)
    return "\n".join(lines)


def of_scores(case: Case, score: Score) -> list[list[float]]:
    return [[score(s, case["cap"], q, k) for k, s in enumerate(row)] for q, row in enumerate(case["scores"])]


@soft_cap.check(
    cases=soft_cap_cases,
    describe=lambda case: f"soft_cap({case['cap']:g}) of the scores\n{numbers(case['scores'])}",
    draw=lambda case, answer: numbers(answer, of_scores(case, bent)),
)
def capped(case: Case) -> Any:
    return of_scores(case, bent)


def weights_cases() -> list[Case]:
    scores = [[2.0, 1.0, 4.0], [0.0, 3.0, 1.0], [1.0, 2.0, -3.0]]
    return [
        {"cap": 2.0, "scores": scores, "mask": CAUSAL},
        {"cap": 2.0, "scores": scores, "mask": [[["■■■", "■■□", "□■■"]]]},
    ]


def of_weights(case: Case, score: Score) -> list[list[float]]:
    """Softmax over the keys that the mask allows."""
    answer = []
    for q, row in enumerate(of_scores(case, score)):
        powers = [math.exp(s) if read_in(case["mask"], 0, 0, q, k) else 0.0 for k, s in enumerate(row)]
        answer.append([power / sum(powers) for power in powers])
    return answer


@soft_cap.check(
    cases=weights_cases,
    describe=lambda case: (
        f"flex_attention with soft_cap({case['cap']:g}) and a mask; what each key weighs, for the scores\n"
        + numbers(case["scores"])
    ),
    draw=lambda case, answer: numbers(answer, of_weights(case, bent)),
    same=close(1e-4),
)
def weights(case: Case) -> Any:
    return of_weights(case, bent)


SCORES: dict[str, tuple[Score, ...]] = {
    "cap-after-mask": (
        lambda s, cap, q, k: -cap if k > q else bent(s, cap),
        lambda s, cap, q, k: -cap if k < q else bent(s, cap),
    ),
    "no-divide": (lambda s, cap, q, k: cap * math.tanh(s),),
    "no-scale": (lambda s, cap, q, k: bent(s, cap) / cap,),
    "cancels": (lambda s, cap, q, k: math.tanh(s),),
    "hard-cap": (lambda s, cap, q, k: max(-cap, min(cap, s)),),
    "times-cap": (lambda s, cap, q, k: cap * math.tanh(s * cap),),
}
for _slug, _scores in SCORES.items():
    for _score in _scores:
        capped.predicts(_slug)(lambda case, score=_score: of_scores(case, score))
        weights.predicts(_slug)(lambda case, score=_score: of_weights(case, score))


@capped.shows("masks-too")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Scores are right, or far below what the cap lets through, on one side of the diagonal only."""
    hidden = {
        (q < k) - (q > k)
        for q, (row, right) in enumerate(zip(answer, expected, strict=True))
        for k, (value, wanted) in enumerate(zip(row, right, strict=True))
        if not close(1e-5)(case, wanted, value) and value < -2 * case["cap"]
    }
    others = [
        value
        for row, right in zip(answer, expected, strict=True)
        for value, wanted in zip(row, right, strict=True)
        if not close(1e-5)(case, wanted, value) and value >= -2 * case["cap"]
    ]
    return not others and len(hidden) == 1


for _check in (capped, weights):
    _check.shows("python-not")(asks_for_one_value)
    _check.shows("five-arguments")(wrong_arguments)
