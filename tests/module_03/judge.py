"""What is right in module 03, how it is drawn, and what each common mistake would give.

Everything here is lists and loops: no tensor, and nothing of the package that is graded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Exercise, is_raised, raises

Case = dict[str, Any]
ANY = "anything"  # a field that a mistake leaves open


def fits(_case: Case, expected: Any, answer: Any) -> bool:
    """Equal, but for the fields that are left open."""
    if not isinstance(expected, dict):
        return type(expected) is type(answer) and expected == answer
    return expected.keys() == answer.keys() and all(
        value == ANY or (type(value) is type(answer[key]) and value == answer[key]) for key, value in expected.items()
    )


def some(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def boxes(pages: Iterable[int]) -> str:
    """A row of the table."""
    return "[ " + " | ".join(str(page) if page else "·" for page in pages) + " ]"


def times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def table_of(*rows: tuple[str, object]) -> str:
    """Names and values, one below the other."""
    wide = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{wide}}  {value}" for name, value in rows)


def names(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


# ==================================================================================================== 3.1 allocate

allocate = Exercise(
    "3.1",
    section="Slots",
    hints=(
        "Write down which slots are free before and after each call: does what you hand out leave that list, and only that?",
        "Compare, call by call, the slots in `free_slots` with those that were handed out and not erased. Together they "
        "must be 1 to max_batch_size, each once.",
        "If no slot is free, raise RuntimeError. Else take one slot out of the free ones, and return that same slot.",
    ),
)
allocate.mistake(
    "gives-the-sink",
    "Slot 0 is among the slots that were handed out. Who else writes there?",
    "The slots of sequences are 1 to max_batch_size. Look at where your numbers start.",
    "Hand out only what the list of free slots holds, as it is: slot 0 was never put into it.",
)
allocate.mistake(
    "same-slot-again",
    "The same slot was handed out to two sequences. After the first call, what says that it is taken?",
    "The slot is looked up, but the list of free slots is as long as before.",
    "Remove the slot from the free ones before you return it.",
)
allocate.mistake(
    "slot-by-count",
    "Slots are given back in any order. If 3 slots were in use and slot 1 is erased, how many are in use, and which is free?",
    "The number of slots in use does not say which ones are free: compare with what erase put into `free_slots`.",
    "Choose the slot from the free ones, instead of counting up.",
)
allocate.mistake(
    "wrong-error",
    "With every slot taken, which class of error does the docstring promise to whoever asks for one more?",
    "The error comes from the empty list itself. Nobody asked first whether a slot is free.",
    "Before you take a slot: if none is free, raise RuntimeError with a message of your own.",
)
allocate.mistake(
    "none-when-full",
    "Every slot is taken. What will the caller do with the slot that it got?",
    "The docstring promises an error under “Raises”; here a value comes back, which would be used as a slot.",
    "If no slot is free, raise RuntimeError instead of returning something.",
)


def same_slots(_case: Case, expected: list[int], answer: list[int]) -> bool:
    return sorted(expected) == sorted(answer)


@allocate.check(
    cases=[{"slots": n} for n in (1, 2, 3, 5)],
    describe=lambda case: f"{some(case['slots'], 'slot')}; allocate() {times(case['slots'])}",
    draw=lambda _case, answer: f"slots {names(sorted(answer))}",
    same=same_slots,
)
def hands_out(case: Case) -> list[int]:
    return list(range(1, case["slots"] + 1))


@hands_out.shows("gives-the-sink")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and 0 in answer


@hands_out.shows("same-slot-again")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and len(set(answer)) < len(answer) and min(answer) > 0


@allocate.check(
    cases=[{"slots": n} for n in (1, 2, 3)],
    describe=lambda case: f"{some(case['slots'], 'slot')}, all allocated",
    draw=lambda _case, answer: table_of(
        ("capacity", answer["capacity"]), ("pages owned", answer["owned"]), ("pages left", answer["left"])
    ),
)
def owns_nothing(case: Case) -> dict[str, Any]:
    return {"left": 4, "capacity": [0] * case["slots"], "owned": [0] * case["slots"]}


@allocate.check(
    cases=[{"slots": n} for n in (1, 2, 3)],
    describe=lambda case: f"{some(case['slots'], 'slot')}; allocate() {times(case['slots'] + 1)}",
    draw=lambda _case, answer: f"no error; the last call gives {answer}",
)
def full(_case: Case) -> Any:
    return raises("RuntimeError")


@full.predicts("wrong-error")
def _(_case: Case) -> Any:
    return raises("IndexError", "KeyError", "StopIteration", "ValueError")


@full.shows("none-when-full")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return answer is None or (isinstance(answer, int) and answer < 1)


@full.predicts("same-slot-again")
def _(_case: Case) -> Any:
    return 1


@full.predicts("slot-by-count")
def _(case: Case) -> Any:
    return case["slots"] + 1


LETTERS = "abcdefgh"


def say_groups(case: Case) -> str:
    erased = "; then ".join(f"erase {names(LETTERS[who] for who in group)}" for group in case["erased"])
    return f"{some(case['slots'], 'slot')}, held by {names(LETTERS[: case['slots']])}; {erased}, and allocate as many again"


def draw_groups(case: Case, answer: list[list[str]]) -> str:
    lines = []
    for group, given in zip(case["erased"], answer, strict=True):
        who = [LETTERS[one] for one in group]
        lines.append(f"{'erased ' + names(who):<14} given {names(given)}")
    return "\n".join(lines)


@allocate.check(
    cases=[
        {"slots": slots, "erased": erased}
        for slots, erased in (
            (1, [[0]]),
            (2, [[0]]),
            (2, [[1], [0]]),
            (3, [[0], [1], [2]]),
            (3, [[2, 0], [1], [0, 1, 2]]),
            (4, [[1, 2], [3, 0], [2]]),
        )
    ],
    describe=say_groups,
    draw=draw_groups,
    search=st.integers(1, 4).flatmap(
        lambda n: st.fixed_dictionaries(
            {
                "slots": st.just(n),
                "erased": st.lists(
                    st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True), min_size=1, max_size=4
                ),
            }
        )
    ),
)
def given_again(case: Case) -> list[list[str]]:
    return [sorted(LETTERS[who] for who in group) for group in case["erased"]]


@given_again.predicts("slot-by-count")
def _(case: Case) -> list[list[str]]:
    return [[LETTERS[case["slots"] - len(group) + i] for i in range(len(group))] for group in case["erased"]]


# ==================================================================================================== 3.2 reserve

reserve = Exercise(
    "3.2",
    section="Growing a sequence",
    hints=(
        "Do the case with pencil and paper: which pages does the slot own before, how many tokens fit into them, and what "
        "is left over?",
        "Compare field by field with the end of the docstring: `owned`, `page_table`, `logical_of_page`, `capacity` and the "
        "pool must all tell the same story, whether the answer is True or False.",
        "In this order: refuse what can't be, count the pages that are missing, ask whether the pool has them, take them, "
        "and write each of the fields once.",
    ),
)
reserve.mistake(
    "from-zero",
    "The slot already owns a page. How many tokens are missing, and how many pages hold those?",
    "The pages are counted for the whole of `seq_len`, as if the slot were empty. What does `capacity` say?",
    "Take off the tokens that the slot's own pages hold, at least down to zero, and round only the rest up to pages.",
)
reserve.mistake(
    "plus-one-page",
    "Pages of 4 tokens: how many do 7, 8 and 9 tokens need?",
    "The page count is one too many exactly where `seq_len` is a multiple of `page_size`: look at how you round up.",
    "Round up so that a whole number of pages stays what it is: only a remainder costs another page.",
)
reserve.mistake(
    "rounds-down",
    "Pages of 4 tokens: how many do 5 tokens need?",
    "The division drops the remainder, and the tokens of the last, half-filled page have nowhere to go.",
    "Round the number of pages up, not down.",
)
reserve.mistake(
    "half-reserve",
    "The pool has fewer pages than are missing, so the answer is False. Where are the pages that it had?",
    "Pages are taken out of the pool before it is known whether there are enough of them.",
    "Compare the number of missing pages with `pages_available` first; take only if there are as many, else change nothing.",
)
reserve.mistake(
    "refuses-the-last",
    "So many pages are missing and just as many are in the pool. Is that too few?",
    "Look at the comparison with `pages_available` where both numbers are equal.",
    "Refuse only if more pages are missing than the pool has.",
)
reserve.mistake(
    "raises-when-full",
    "A full pool is everyday life for a scheduler. What does the docstring promise to give it then?",
    "“Raises” lists a slot that is not allocated and a length that can never fit. Too few pages is neither.",
    "With too few pages in the pool, return False and change nothing.",
)
reserve.mistake(
    "no-when-enough",
    "The slot already holds that many tokens. Did it get what it asked for?",
    "The result says whether pages were taken, instead of whether the slot holds `seq_len` tokens now.",
    "Return True also where nothing was missing.",
)
reserve.mistake(
    "forgets-capacity",
    "How many tokens does the slot hold afterwards, and where would the next call read that?",
    "`capacity` still has the old number.",
    "Set the slot's capacity to the pages that it owns times `page_size`.",
)
reserve.mistake(
    "capacity-is-length",
    "A slot that asked for 5 tokens got two pages of 4. How many tokens does it hold?",
    "`capacity` is what was asked for, so that the rest of the last page is forgotten at the next call.",
    "Set capacity to the pages owned times `page_size`, not to `seq_len`.",
)
reserve.mistake(
    "capacity-in-pages",
    "`capacity` is a number, but of what?",
    "It counts pages, while everyone who reads it counts tokens.",
    "Multiply by `page_size`.",
)
reserve.mistake(
    "writes-a-copy",
    "The pages are gone from the pool. What does the slot's row of `page_table` say?",
    "The row is as before: either nothing writes it, or the write goes into a copy. Indexing with a list or a tensor makes "
    "a copy; an index with numbers and slices does not.",
    "Write the new pages into the row with a single assignment to `page_table`, slot and columns in one pair of brackets.",
)
reserve.mistake(
    "overwrites-the-row",
    "The row begins with the pages that came last. Where are the slot's first tokens now?",
    "New pages are written from column 0 on, over those that the slot had.",
    "Begin writing at the column after the pages that the slot already owns.",
)
reserve.mistake(
    "same-page-twice",
    "Two pages are missing. Are there two different ones in the row?",
    "A single page was taken from the pool and written down more than once, so two logical pages share one place.",
    "Take as many pages from the pool as are missing, and write each into its own column.",
)
reserve.mistake(
    "forgets-logical",
    "From a physical page, how does a mask find out which part of the sequence lies in it?",
    "The row of `page_table` is written, its inverse `logical_of_page` is not.",
    "For each page that was taken, write its column in the row into `logical_of_page`.",
)
reserve.mistake(
    "restarts-logical",
    "The slot had a page and got another. Is the new one its first or its second?",
    "The numbers in `logical_of_page` start at 0 with every call, instead of after the pages that the slot already owned.",
    "Count the new pages on from the number that the slot owned before.",
)
reserve.mistake(
    "forgets-owned",
    "When the slot is erased, where does erase read which pages to give back?",
    "`owned` still has the old list.",
    "Append the pages that were taken to the slot's list in `owned`.",
)
reserve.mistake(
    "unallocated",
    "Who holds that slot? And who will give its pages back?",
    "The slot is used before anything has asked whether it is allocated.",
    "First of all, raise ValueError unless the slot is allocated; `is_allocated` knows.",
)
reserve.mistake(
    "another-error",
    "Which class of error does the docstring promise there?",
    "It is refused, but with an error of another class, which the caller does not expect.",
    "Raise ValueError.",
)
reserve.mistake(
    "too-long",
    "The row has no column for the last page of so long a sequence. Will that be different tomorrow?",
    "False means “not now, the pool is busy”. A length that no row can hold is an error by the docstring.",
    "Compare `seq_len` with the tokens that a row holds, and raise ValueError if it is longer, before anything changes.",
)
reserve.mistake(
    "below-one",
    "A sequence of no tokens: what would it mean to hold that?",
    "The docstring's range for `seq_len` has a lower end too.",
    "Raise ValueError if `seq_len` is below 1.",
)

Count = Callable[[int, int, int, int], int]
"""(tokens asked for, pages owned, capacity as the learner keeps it, page size) -> pages that are taken."""


def rounded_up(tokens: int, size: int) -> int:
    return math.ceil(max(0, tokens) / size)


def count_right(tokens: int, owned: int, _capacity: int, size: int) -> int:
    return max(0, rounded_up(tokens, size) - owned)


FROM_ZERO: list[Count] = [
    lambda tokens, owned, capacity, size: rounded_up(tokens, size),
    lambda tokens, owned, capacity, size: rounded_up(tokens, size) if tokens > owned * size else 0,
]
PLUS_ONE: list[Count] = [
    lambda tokens, owned, capacity, size: max(0, tokens // size + 1 - owned),
    lambda tokens, owned, capacity, size: (tokens - owned * size) // size + 1 if tokens > owned * size else 0,
    lambda tokens, owned, capacity, size: max(0, tokens - owned * size) // size + 1,
    lambda tokens, owned, capacity, size: max(0, tokens // size + 1 - owned) if tokens > owned * size else 0,
    lambda tokens, owned, capacity, size: tokens // size + 1,
    lambda tokens, owned, capacity, size: tokens // size + 1 if tokens > owned * size else 0,
]
ROUNDED_DOWN: list[Count] = [
    lambda tokens, owned, capacity, size: max(0, tokens // size - owned),
    lambda tokens, owned, capacity, size: max(0, tokens - owned * size) // size,
]


def by_capacity(tokens: int, _owned: int, capacity: int, size: int) -> int:
    return rounded_up(tokens - capacity, size)


def grown(
    case: Case,
    count: Count = count_right,
    capacity: Callable[[int, int, int], int] = lambda asked, owned, size: owned * size,
    one_page: bool = False,
    too_few: Callable[[int, int, int], bool] = lambda missing, left, asked: missing > left,
) -> dict[str, Any]:
    """Play the case: three slots reserve one after the other, then the slot in the middle once more.

    capacity: (tokens asked for, pages owned, page size) -> what is kept as capacity.
    one_page: each call takes a single page and writes it down as often as pages are missing.
    too_few: (pages missing, pages left, pages for all tokens asked for) -> whether the answer is False.
    """
    size, left, pages = case["size"], case["pool"], 0
    rows: dict[str, list[int]] = {"before": [], "holds": [], "after": []}
    kept = {"before": 0, "holds": 0, "after": 0}

    def ask(who: str, tokens: int) -> tuple[bool, int]:
        nonlocal left, pages
        n = count(tokens, len(rows[who]), kept[who], size)
        if too_few(n, left, rounded_up(tokens, size)):
            return False, 0
        taken = min(n, 1) if one_page else n
        rows[who] += [pages + 1] * n if one_page else range(pages + 1, pages + n + 1)
        left, pages = left - taken, pages + taken
        if n:
            kept[who] = capacity(tokens, len(rows[who]), size)
        return True, taken

    for who in rows:
        if case[who]:
            ask(who, case[who])
    result, takes = ask("holds", case["wants"])
    row = rows["holds"] + [0] * (case["columns"] - len(rows["holds"]))
    return {"result": result, "takes": takes, "row": row, "left": left, "capacity": kept["holds"]}


def growth_cases() -> list[Case]:
    def cases(wants: Iterable[int], **fixed: int) -> list[Case]:
        return [{**fixed, "wants": tokens} for tokens in wants]

    return [
        *cases((1, 4, 5, 7, 8, 9), pool=6, size=4, columns=4, before=0, holds=0, after=0),
        # The slot's pages are not neighbours: others took theirs before and in between.
        *cases((8, 5, 4, 3, 1), pool=9, size=4, columns=4, before=7, holds=3, after=3),
        *cases((9, 12, 8, 6, 13, 15), pool=12, size=4, columns=6, before=7, holds=7, after=3),
        *cases((4, 5, 6, 8), pool=12, size=2, columns=8, before=3, holds=3, after=1),
        *cases((33, 48, 32, 7), pool=9, size=16, columns=6, before=9, holds=23, after=5),
        *cases((1, 2, 3, 5), pool=16, size=1, columns=9, before=0, holds=2, after=0),
        *cases((16,), pool=7, size=4, columns=6, before=0, holds=0, after=0),
    ]


def holds(case: Case) -> int:
    return rounded_up(case["holds"], case["size"]) * case["size"]


def say_growth(case: Case) -> str:
    held = holds(case) or "nothing"
    return f"pages of {some(case['size'], 'token')}; the slot holds {held}; reserve(slot, {case['wants']})"


def draw_growth(case: Case, answer: dict[str, Any]) -> str:
    """`takes 1 page    row [ 3 | 5 | · | · ]    4 pages left`, and what else is odd."""
    row = f"row {boxes(answer['row'])}    {some(answer['left'], 'page')} left"
    text = f"takes {some(answer['takes'], 'page'):<7}   {row}"
    listed = sum(page > 0 for page in answer["row"]) * case["size"]
    owned = (holds(case) // case["size"] + answer["takes"]) * case["size"]
    if answer["capacity"] not in (listed, owned):
        text += f"    capacity {answer['capacity']}, not {owned}"
    return text if answer["result"] is True else f"False, {text}"


def same_growth(case: Case, expected: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Equal; what stands in the row behind the owned pages may be anything that names no foreign page."""
    row = expected["row"]
    if row != ANY:
        own = [page for page in row if page]
        if answer["row"][: len(own)] != own or not set(answer["row"][len(own) :]) <= {0, *own}:
            return False
    return fits(case, expected | {"row": ANY}, answer)


@reserve.check(cases=growth_cases, describe=say_growth, draw=draw_growth, same=same_growth)
def growth(case: Case) -> dict[str, Any]:
    return grown(case)


def predict(check: Any, slug: str, *ways: Callable[[Case], Any]) -> None:
    """Several ways of making one mistake."""
    for way in ways:
        check.predicts(slug)(way)


def from_zero(count: Count) -> Callable[[Case], dict[str, Any]]:
    """It goes wrong only where the slot owns something; how the row is then written is open."""
    return lambda case: grown(case, count) | ({"row": ANY, "capacity": ANY} if case["holds"] else {})


predict(growth, "from-zero", *map(from_zero, FROM_ZERO))
predict(
    growth,
    "plus-one-page",
    *(lambda case, n=count: grown(case, n) | {"row": ANY, "capacity": ANY} for count in PLUS_ONE),
)
predict(
    growth,
    "rounds-down",
    *(lambda case, n=count: grown(case, n) | {"row": ANY, "capacity": ANY} for count in ROUNDED_DOWN),
)
predict(
    growth,
    "no-when-enough",
    lambda case: grown(case) | ({"result": False} if case["wants"] <= holds(case) else {}),
)
predict(
    growth,
    "forgets-capacity",
    lambda case: grown(case) | {"capacity": 0},
    lambda case: grown(case, by_capacity, lambda asked, owned, size: 0),
)
predict(
    growth,
    "capacity-is-length",
    lambda case: grown(case, capacity=lambda asked, owned, size: asked),
    lambda case: grown(case) | {"capacity": case["wants"]},
    lambda case: grown(case) | {"capacity": max(case["wants"], case["holds"])},
    lambda case: grown(case, by_capacity, lambda asked, owned, size: asked),
    lambda case: (
        grown(case, by_capacity, lambda asked, owned, size: asked) | {"capacity": max(case["wants"], case["holds"])}
    ),
)
predict(
    growth,
    "capacity-in-pages",
    lambda case: grown(case, capacity=lambda asked, owned, size: owned),
    lambda case: grown(case, by_capacity, lambda asked, owned, size: owned) | {"row": ANY},
)
predict(growth, "writes-a-copy", lambda case: grown(case) | {"row": [0] * case["columns"]})


def last_capacity(case: Case) -> int:
    """The capacity of a slot whose list of pages starts empty with every call."""
    return (grown(case)["takes"] or holds(case) // case["size"]) * case["size"]


def overwritten(case: Case) -> dict[str, Any]:
    """New pages are written from column 0 on."""
    answer = grown(case)
    own = [page for page in answer["row"] if page]
    before = own[: len(own) - answer["takes"]]
    new = own[len(before) :]
    row = new + before[len(new) :]
    return answer | {"row": row + [0] * (case["columns"] - len(row))}


predict(growth, "overwrites-the-row", overwritten)
predict(
    growth,
    "same-page-twice",
    lambda case: grown(case, one_page=True),
    lambda case: grown(case, one_page=True) | {"capacity": ANY},
)
predict(growth, "forgets-owned", lambda case: overwritten(case) | {"capacity": last_capacity(case)})


# ------------------------------------------------------------------------------------------------ all or nothing


def say_room(case: Case) -> str:
    left = case["pool"] - sum(rounded_up(case[who], case["size"]) for who in ("before", "holds", "after"))
    return (
        f"pages of {case['size']} tokens, {left} of {case['pool']} left; the slot holds {holds(case) or 'nothing'}; "
        f"reserve(slot, {case['wants']})"
    )


def draw_room(case: Case, answer: dict[str, Any]) -> str:
    return f"{answer['result']!s:<5}   row {boxes(answer['row'])}   {some(answer['left'], 'page')} left" + (
        f"   capacity {answer['capacity']}"
    )


def room_cases() -> list[Case]:
    def case(pool: int, before: int, holding: int, after: int, wants: int) -> Case:
        return {
            "pool": pool,
            "size": 4,
            "columns": min(pool, 6),
            "before": before * 4,
            "holds": holding * 4,
            "after": after * 4,
            "wants": wants,
        }

    return [
        case(2, 1, 0, 0, 8),  # two are missing, one is left
        case(2, 0, 0, 0, 8),  # just enough
        case(6, 3, 0, 0, 20),  # five and three
        case(6, 2, 1, 1, 16),  # three and two
        case(6, 2, 1, 1, 12),  # just enough
        case(6, 0, 4, 0, 24),  # just enough: six in all, but only two are missing
        case(4, 2, 2, 0, 9),  # none is left
        case(4, 2, 2, 0, 8),  # none is left, and none is missing
        case(4, 2, 2, 0, 3),
        case(1, 0, 0, 0, 1),
        case(8, 1, 1, 1, 24),  # a full row
    ]


@reserve.check(cases=room_cases, describe=say_room, draw=draw_room, same=same_growth)
def room(case: Case) -> dict[str, Any]:
    return grown(case)


def ran_dry(answer: Any) -> bool:
    """Raised by an empty list or a row that got too little, not on purpose."""
    return answer["raised"][0] in ("IndexError", "KeyError", "StopIteration", "RuntimeError") and (
        "raise " not in answer["where"]
    )


@room.shows("half-reserve")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    if expected["result"]:
        return False
    if is_raised(answer):  # the pool ran dry in the middle
        return ran_dry(answer)
    return answer["left"] < expected["left"] or (answer["left"] == 0 and answer["result"])


predict(
    room,
    "refuses-the-last",
    lambda case: grown(case, too_few=lambda missing, left, asked: missing >= left),
    lambda case: grown(case, too_few=lambda missing, left, asked: missing > 0 and missing >= left),
)
predict(
    room,
    "from-zero",
    lambda case: grown(case, too_few=lambda missing, left, asked: asked > left),
    lambda case: grown(case, too_few=lambda missing, left, asked: missing > 0 and asked > left),
)


@room.shows("raises-when-full")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    """Raised on purpose: not what an empty list says."""
    return (
        not expected["result"]
        and is_raised(answer)
        and "raise " in answer["where"]
        and answer["raised"][0] not in ("NotUsable", "IndexError", "KeyError")
    )


# ------------------------------------------------------------------------------------------------ the books


def draw_books(_case: Case, answer: dict[str, Any]) -> str:
    def line(values: Iterable[object]) -> str:
        return " ".join(f"{'?' if value is None else value:>2}" for value in values) or "empty"

    return table_of(
        ("row", line(answer["row"])), ("logical_of_page", line(answer["logical"])), ("owned", line(answer["owned"]))
    )


def say_books(case: Case) -> str:
    calls = ", ".join(f"reserve(slot, {tokens})" for tokens in case["asks"])
    return f"pages of {case['size']} tokens; {calls}; another slot takes a page after each"


@reserve.check(
    cases=[
        {"size": size, "asks": asks}
        for size, asks in (
            (4, [3]),
            (4, [8]),
            (4, [4, 8]),
            (4, [9]),
            (4, [5, 13]),
            (2, [2, 3, 8]),
            (4, [2, 7, 9, 20]),
        )
    ],
    describe=say_books,
    draw=draw_books,
)
def books(case: Case) -> dict[str, Any]:
    row = [page for pages in pages_by_call(case) for page in pages]
    return {"row": row, "owned": row, "logical": list(range(len(row)))}


def pages_by_call(case: Case) -> list[list[int]]:
    """The pages that each call takes, called by the order in which pages are seen."""
    taken, owned, calls = 0, 0, []
    for tokens in case["asks"]:
        n = count_right(tokens, owned, 0, case["size"])
        calls.append(list(range(taken + 1, taken + n + 1)))
        taken, owned = taken + n + 1, owned + n  # one for the other slot
    return calls


predict(books, "forgets-logical", lambda case: (right := books.expected(case)) | {"logical": [0] * len(right["row"])})
predict(books, "forgets-owned", lambda case: books.expected(case) | {"owned": []})
predict(
    books,
    "restarts-logical",
    lambda case: (
        books.expected(case) | {"logical": [place for pages in pages_by_call(case) for place in range(len(pages))]}
    ),
)


# ------------------------------------------------------------------------------------------------ what is refused

WHO = {
    "sink": "0, the sink",
    "free": "one that nobody was given",
    "erased": "one that was erased",
    "beyond": "99",
    "negative": "-1",
}


def draw_refused(_case: Case, answer: dict[str, Any]) -> str:
    if answer["error"]:
        return "ValueError, nothing changes" if answer["unchanged"] else "ValueError, but something changed before"
    left = "" if answer["left"] == answer["were"] else f"; {answer['were']} pages were left, now {answer['left']}"
    return f"no error: returns {answer['result']}{left}"


def refused(_case: Case, _expected: Any, answer: dict[str, Any]) -> bool:
    return bool(answer["error"] and answer["unchanged"])


REFUSED = {"error": True, "result": None, "left": 0, "were": 0, "unchanged": True}


def unguarded(_case: Case, _expected: Any, answer: Any) -> bool:
    """No error, or one that is an accident of indexing."""
    return by_accident(answer) if is_raised(answer) else not answer["error"]


def by_accident(answer: Any) -> bool:
    return answer["raised"][0] in ("IndexError", "KeyError", "RuntimeError") and "raise " not in answer["where"]


def on_purpose(_case: Case, _expected: Any, answer: Any) -> bool:
    """An error of another class."""
    return is_raised(answer) and any(word in answer["where"] for word in ("raise ", "assert "))


@reserve.check(
    cases=[{"which": which} for which in ("free", "erased", "sink", "beyond", "negative")],
    describe=lambda case: f"reserve(slot, 4), where slot is {WHO[case['which']]}",
    draw=draw_refused,
    same=refused,
)
def nobody_s_slot(_case: Case) -> dict[str, Any]:
    return REFUSED


nobody_s_slot.shows("unallocated")(unguarded)
nobody_s_slot.shows("another-error")(on_purpose)


def say_length(case: Case) -> str:
    columns = min(case["pool"], rounded_up(case["longest"] or 10**6, case["size"]))
    return f"a row has {columns} columns for pages of {case['size']} tokens; reserve(slot, {case['wants']})"


@reserve.check(
    cases=[
        {"pool": pool, "size": 4, "longest": longest, "holds": held, "wants": wants}
        for pool, longest, held, wants in (
            (5, None, 0, 21),
            (5, None, 4, 99),
            (8, 8, 0, 9),
            (8, 8, 8, 9),
            (8, 7, 0, 13),
            (2, 40, 8, 9),
        )
    ],
    describe=say_length,
    draw=draw_refused,
    same=refused,
)
def too_long(_case: Case) -> dict[str, Any]:
    return REFUSED


too_long.shows("too-long")(unguarded)
too_long.shows("another-error")(on_purpose)


@reserve.check(
    cases=[
        {"pool": 5, "size": 4, "longest": None, "holds": held, "wants": wants}
        for held, wants in ((0, 0), (4, 0), (0, -3), (4, -4))
    ],
    describe=say_length,
    draw=draw_refused,
    same=refused,
)
def too_short(_case: Case) -> dict[str, Any]:
    return REFUSED


too_short.shows("below-one")(unguarded)
too_short.shows("another-error")(on_purpose)


# ------------------------------------------------------------------------------------------------ whole lives

OPERATION = st.tuples(
    st.sampled_from(["allocate", "reserve", "reserve", "erase"]), st.integers(0, 2), st.integers(1, 24)
)
# Lists of lists are longer than one list, on average, and shrink as well.
OPERATIONS = st.lists(st.lists(OPERATION, max_size=8), max_size=8).map(
    lambda parts: {"pool": 6, "size": 4, "ops": [("allocate", 0, 1), *(op for part in parts for op in part)]}
)


def calls_of(case: Case) -> list[tuple[str, str, int]]:
    """The operations of a case as (action, letter of the slot, tokens), without those that have no slot."""
    held: list[str] = []
    letters, calls = iter("abcdefghijklmnopqrstuvwxyz"), []
    for action, which, tokens in case["ops"]:
        if action == "allocate" and len(held) < 3:
            held.append(next(letters))
            calls.append((action, held[-1], 0))
        elif action != "allocate" and held:
            who = held[which % len(held)]
            calls.append((action, who, tokens))
            if action == "erase":
                held.remove(who)
    return calls


def say_lives(case: Case) -> str:
    texts = {"allocate": "{0} = allocate()", "reserve": "reserve({0}, {1})", "erase": "erase({0})"}
    said = "; ".join(texts[action].format(who, tokens) for action, who, tokens in calls_of(case))
    return f"{case['pool']} pages of {case['size']} tokens: {said}"


def lived(case: Case) -> dict[str, Any]:
    owned: dict[str, int] = {}
    results = []
    for action, who, tokens in calls_of(case):
        if action == "allocate":
            owned[who] = 0
        elif action == "erase":
            del owned[who]
        else:
            n = count_right(tokens, owned[who], 0, case["size"])
            results.append(n <= case["pool"] - sum(owned.values()))
            owned[who] += n if results[-1] else 0
    pages = iter(range(1, case["pool"] + 1))
    rows = {who: [next(pages) for _ in range(n)] for who, n in owned.items()}
    return {
        "results": results,
        "slots": len(owned),
        "rows": rows,
        "owned": rows,
        "logical": {who: list(range(n)) for who, n in owned.items()},
        "capacity": {who: n * case["size"] for who, n in owned.items()},
        "left": case["pool"] - sum(owned.values()),
    }


def draw_lives(_case: Case, answer: dict[str, Any]) -> str:
    lines = []
    for who, row in answer["rows"].items():
        lines.append(f"{who}  row {boxes(row) if row else 'empty'}  capacity {answer['capacity'][who]}")
        if answer["owned"][who] != row:
            lines.append(f"   owned {boxes(answer['owned'][who])}")
        if answer["logical"][who] != list(range(len(row))):
            lines.append(f"   logical_of_page {names(answer['logical'][who])}")
    results = ["reserve gave " + names(answer["results"])] if answer["results"] else []
    return "\n".join([*results, *lines, f"{some(answer['left'], 'page')} left"])


LIVES = [
    {"pool": 6, "size": 4, "ops": ops}
    for ops in (
        [("allocate", 0, 0), ("reserve", 0, 8), ("erase", 0, 0), ("allocate", 0, 0), ("reserve", 0, 24)],
        [
            *[("allocate", 0, 0)] * 2,
            *[("reserve", 0, 4), ("reserve", 1, 8), ("reserve", 0, 9), ("erase", 1, 0)],
            *[("allocate", 0, 0), ("reserve", 1, 12), ("reserve", 0, 13), ("reserve", 0, 12)],
        ],
        [
            *[("allocate", 0, 0)] * 3,
            *[("reserve", 0, 5), ("reserve", 1, 3), ("reserve", 2, 9), ("reserve", 1, 8)],
            *[("erase", 0, 0), ("reserve", 0, 8), ("allocate", 0, 0), ("reserve", 2, 4), ("reserve", 2, 5)],
        ],
    )
]


@reserve.check(cases=LIVES, describe=say_lives, draw=draw_lives, search=OPERATIONS)
def lives_of_reserve(case: Case) -> dict[str, Any]:
    return lived(case)


# ==================================================================================================== 3.3 pages_missing

pages_missing = Exercise(
    "3.3",
    section="How many pages are missing",
    hints=(
        "Do the case with pencil and paper: how many tokens fit into what the slot owns, and how many are left over?",
        "Put numbers around a multiple of `page_size` into your formula, once with an empty slot and once with one that owns "
        "pages.",
        "Take what the slot holds off `seq_len`, not below zero, and round that up to whole pages.",
    ),
)
pages_missing.mistake(
    "from-zero",
    "The slot owns pages already. How many of the tokens have a place without any new one?",
    "The result is the same for an empty slot and for one that owns pages: where does `capacity` come in?",
    "First take the tokens that the slot's pages hold off `seq_len`; count pages only for what is left.",
)
pages_missing.mistake(
    "plus-one-page",
    "Pages of 4 tokens: how many do 7, 8 and 9 tokens need?",
    "One page too many where the tokens are a multiple of `page_size`: adding 1 is right only if there is a remainder.",
    "Round up so that a multiple of `page_size` stays what it is.",
)
pages_missing.mistake(
    "rounds-down",
    "Pages of 4 tokens: how many do 5 tokens need?",
    "The division throws the remainder away; those tokens need a page too.",
    "Round up instead of down.",
)
pages_missing.mistake(
    "below-zero",
    "The slot holds more than it is asked for. How many pages are missing: fewer than none?",
    "The difference is negative where the slot has room to spare, and the caller would give that many pages back.",
    "Let the number of missing pages end at 0.",
)
pages_missing.mistake(
    "tokens-for-pages",
    "The result is a number of what?",
    "What is missing is counted in tokens; the caller takes as many pages.",
    "Turn the missing tokens into pages, rounding up.",
)
pages_missing.mistake(
    "mixes-units",
    "Pages less tokens: what unit is the difference in?",
    "`capacity` is in tokens, but it is taken off a number of pages.",
    "Subtract tokens from tokens and turn the rest into pages, or turn `capacity` into pages first.",
)
pages_missing.mistake(
    "no-slot-yet",
    "The scheduler asks for a request that waits and has no slot. Which number does it pass?",
    "Slot 0 is refused here, though the docstring allows it: it stands for a sequence that has no slot yet.",
    "Answer for slot 0 as for any slot that owns nothing.",
)


def missing_cases() -> list[Case]:
    return [
        {"size": size, "owns": owns, "wants": tokens}
        for size, owns, wants in (
            (4, None, (1, 4, 5, 7, 8, 9, 12)),
            (4, 0, (1, 4, 5)),
            (4, 1, (5, 8, 9, 4, 3, 1, 12)),
            (4, 2, (9, 12, 13, 8, 7, 4, 1, 16)),
            (2, 1, (3, 4, 5, 2, 1)),
            (16, 2, (33, 48, 49, 32, 31)),
            (1, 3, (4, 3, 1)),
            (128, None, (1, 128, 129, 1000)),
        )
        for tokens in wants
    ]


def say_missing(case: Case) -> str:
    if case["owns"] is None:
        return f"pages of {some(case['size'], 'token')}; no slot yet; pages_missing(0, {case['wants']})"
    owned = some(case["owns"], "page") if case["owns"] else "no page"
    return f"pages of {some(case['size'], 'token')}; the slot owns {owned}; pages_missing(slot, {case['wants']})"


def draw_missing(case: Case, answer: int) -> str:
    """Pages as boxes with the tokens in them: (■■■■) is owned, [■■··] is missing; what stands outside has no place."""
    total = (case["owns"] or 0) + answer
    if case["size"] > 8 or answer < 0 or total > 5 or total * case["size"] > 24:
        return some(answer, "page")
    text, left = "", case["wants"]
    for page in range(total):
        here = min(left, case["size"])
        left -= here
        tokens = "■" * here + "·" * (case["size"] - here)
        text += f"({tokens})" if page < (case["owns"] or 0) else f"[{tokens}]"
    return f"{some(answer, 'page'):<8} {text}{' ' + '■' * left if left else ''}"


@pages_missing.check(cases=missing_cases, describe=say_missing, draw=draw_missing)
def missing(case: Case) -> int:
    return count_right(case["wants"], case["owns"] or 0, 0, case["size"])


def counting(count: Count) -> Callable[[Case], int]:
    return lambda case: count(case["wants"], case["owns"] or 0, 0, case["size"])


predict(missing, "from-zero", *map(counting, FROM_ZERO))
predict(missing, "plus-one-page", *map(counting, PLUS_ONE))
predict(
    missing,
    "plus-one-page",
    counting(lambda tokens, owned, capacity, size: tokens // size + 1 - owned),
    counting(lambda tokens, owned, capacity, size: (tokens - owned * size) // size + 1),
    counting(lambda tokens, owned, capacity, size: max(0, (tokens - owned * size) // size + 1)),
)
predict(missing, "rounds-down", *map(counting, ROUNDED_DOWN))
predict(
    missing,
    "rounds-down",
    counting(lambda tokens, owned, capacity, size: (tokens - owned * size) // size),
    counting(lambda tokens, owned, capacity, size: tokens // size),
)
predict(
    missing, "below-zero", counting(lambda tokens, owned, capacity, size: math.ceil((tokens - owned * size) / size))
)
predict(
    missing,
    "tokens-for-pages",
    counting(lambda tokens, owned, capacity, size: max(0, tokens - owned * size)),
    counting(lambda tokens, owned, capacity, size: tokens - owned * size),
)
predict(
    missing,
    "mixes-units",
    counting(lambda tokens, owned, capacity, size: max(0, rounded_up(tokens, size) - owned * size)),
    counting(lambda tokens, owned, capacity, size: rounded_up(tokens, size) - owned * size),
)
predict(
    missing,
    "no-slot-yet",
    lambda case: raises("ValueError", "AssertionError", "KeyError") if case["owns"] is None else missing.expected(case),
)

# ==================================================================================================== 3.4 erase

erase = Exercise(
    "3.4",
    section="Giving everything back",
    hints=(
        "List what a slot holds after `reserve`: which of these still belongs to it after your erase?",
        "Compare with the docstring: pages in the pool, `owned` empty, `capacity` 0, the slot free, no other slot touched.",
        "Refuse a slot that is not allocated; then give its pages back, empty its fields, and put the slot among the free "
        "ones, each once.",
    ),
)
erase.mistake(
    "leaks-pages",
    "How many pages does the pool have after the erase? Who owns the ones that are not there?",
    "The pages that the slot owned do not reach the pool. Is the list still full when it is given back?",
    "Give the slot's pages back with `drop`, while `owned` still lists them.",
)
erase.mistake(
    "keeps-the-slot",
    "How many sequences can start after every one has been erased?",
    "The pages come back, the slot does not: who puts it among the free ones?",
    "Add the slot to the free slots.",
)
erase.mistake(
    "keeps-capacity",
    "The next sequence in this slot owns nothing yet. How many tokens does the table say it holds?",
    "`capacity` still has the old number, so that the next reserve takes too few pages.",
    "Set the slot's capacity to 0.",
)
erase.mistake(
    "keeps-owned",
    "The pages are in the pool. Does the slot's own list know that?",
    "`owned` still lists pages that somebody else may take, and they would come back a second time.",
    "Empty the slot's list in `owned` after its pages were given back.",
)
erase.mistake(
    "touches-others",
    "A second slot was in use all the time. Are its pages, its row and its capacity as they were?",
    "Something is reset for the whole table that should be reset for one slot.",
    "Index with the slot wherever you reset something.",
)
erase.mistake(
    "clears-a-copy",
    "The slot gave its pages back and somebody else has them now. What does the slot's old row still say?",
    "The row of `page_table` keeps the old pages: nobody clears it, or the clearing goes into a copy. Indexing with a "
    "list or a tensor makes a copy, and a second pair of brackets then writes into that.",
    "Set the slot's row to 0 with one assignment to `page_table` itself.",
)
erase.mistake(
    "double-erase",
    "The slot was erased before. How often is it among the free slots now, and how many sequences will get it?",
    "Nothing asks whether the slot is allocated, so it is put among the free ones a second time.",
    "First raise ValueError if the slot is not allocated; `is_allocated` knows.",
)
erase.mistake(
    "silent-twice",
    "Erasing a slot twice means that two parts of a program think they own it. Who tells them?",
    "Nothing is given twice, but the docstring promises an error where the slot is not allocated.",
    "Raise ValueError instead of returning quietly.",
)
erase.mistake(
    "another-error",
    "Which class of error does the docstring promise there?",
    "It is refused, but with an error of another class, which the caller does not expect.",
    "Raise ValueError.",
)
erase.mistake(
    "unallocated",
    "Who holds that slot? What is there to give back?",
    "The slot is used as an index before anything has asked whether it is allocated.",
    "First raise ValueError unless the slot is allocated; the sink and slots outside the table never are.",
)


def draw_given_back(_case: Case, answer: dict[str, Any]) -> str:
    lines = [
        ("pages left", answer["left"]),
        ("capacity[a]", answer["capacity"]),
        ("owned[a]", some(answer["owned"], "page")),
        ("slots to allocate", names(answer["slots"])),
    ]
    if not answer["kept"]:
        lines.append(("slot b", "changed!"))
    return table_of(*lines)


@erase.check(
    cases=[
        {"pool": pool, "a": a, "b": b}
        for pool, a, b in (
            *((4, 1, 0), (4, 2, 0), (4, 2, 1), (5, 1, 3), (4, 4, 0), (4, 0, 1)),
            *((8, 3, 5), (5, 5, 0), (7, 6, 1), (9, 8, 1)),
        )
    ],
    describe=lambda case: (
        f"{case['pool']} pages; slot a owns {case['a'] or 'none'}, slot b {case['b'] or 'none'}; erase(a)"
    ),
    draw=draw_given_back,
)
def gives_back(case: Case) -> dict[str, Any]:
    return {"left": case["pool"] - case["b"], "capacity": 0, "owned": 0, "slots": ["a"], "kept": True}


def but(check: Any, **fields: Any) -> Callable[[Case], dict[str, Any]]:
    """What is right, but for some fields: values, or functions of the case."""
    return lambda case: (
        check.expected(case) | {name: value(case) if callable(value) else value for name, value in fields.items()}
    )


predict(gives_back, "leaks-pages", but(gives_back, left=lambda case: case["pool"] - case["a"] - case["b"]))
predict(gives_back, "keeps-the-slot", but(gives_back, slots=[]))
predict(gives_back, "keeps-capacity", but(gives_back, capacity=lambda case: case["a"] * 4))
predict(gives_back, "keeps-owned", but(gives_back, owned=lambda case: case["a"]))


@gives_back.shows("touches-others")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    """Whatever else is wrong there, b is not as it was."""
    return case["b"] > 0 and not answer["kept"]


def draw_reads(_case: Case, answer: dict[str, Any]) -> str:
    def one(read: dict[str, int]) -> str:
        foreign = f", {some(read['foreign'], 'foreign page')}" if read["foreign"] else ""
        return some(read["own"], "own page") + foreign

    return table_of(*((f"{who} can read", one(read)) for who, read in answer.items()))


@erase.check(
    cases=[
        {"pool": pool, "a": a, "b": b, "again": again}
        for pool, a, b, again in ((1, 1, 1, 0), (3, 3, 3, 0), (4, 4, 1, 0), (4, 3, 3, 1), (6, 6, 4, 2), (5, 2, 5, 0))
    ],
    describe=lambda case: (
        f"a owned {some(case['a'], 'page')} and was erased; b took {case['b']} of {case['pool']}; a is allocated again"
        + (f" and owns {case['again']}" if case["again"] else "")
        + ", with a mask that allows every position"
    ),
    draw=draw_reads,
)
def reads_nothing_foreign(case: Case) -> dict[str, Any]:
    return {"a": {"own": case["again"], "foreign": 0}, "b": {"own": case["b"], "foreign": 0}}


@reads_nothing_foreign.shows("clears-a-copy")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return answer["a"]["foreign"] > 0


def draw_twice(_case: Case, answer: dict[str, Any]) -> str:
    return table_of(
        ("last erase", "ValueError" if answer["error"] else "no error"),
        ("slots to allocate", names(answer["slots"])),
        ("pages left", answer["left"]),
    )


@erase.check(
    cases=[
        {"slots": slots, "pages": pages, "times": times}
        for slots, pages, times in ((1, 0, 2), (2, 0, 2), (2, 2, 2), (3, 1, 2), (3, 2, 3))
    ],
    describe=lambda case: (
        f"slots held by {names(LETTERS[: case['slots']])}, each with {some(case['pages'], 'page')}; "
        + "; ".join(["erase(a)"] * case["times"])
    ),
    draw=draw_twice,
)
def twice(case: Case) -> dict[str, Any]:
    return {"error": True, "slots": ["a"], "left": 8 - (case["slots"] - 1) * case["pages"]}


predict(
    twice,
    "double-erase",
    but(twice, error=False, slots=lambda case: ["a"] * min(case["times"], case["slots"] + 1)),
)
predict(twice, "silent-twice", but(twice, error=False))


@erase.check(
    cases=[{"which": which} for which in ("free", "sink", "beyond", "negative")],
    describe=lambda case: f"erase(slot), where slot is {WHO[case['which']]}",
    draw=draw_refused,
    same=refused,
)
def erases_nobody(_case: Case) -> dict[str, Any]:
    return REFUSED


erases_nobody.shows("unallocated")(unguarded)
erases_nobody.shows("another-error")(on_purpose)
twice.shows("another-error")(on_purpose)


@erase.check(cases=LIVES, describe=say_lives, draw=draw_lives, search=OPERATIONS)
def lives_of_erase(case: Case) -> dict[str, Any]:
    return lived(case)


# ==================================================================================================== 3.5 address

address = Exercise(
    "3.5",
    section="From position to address",
    hints=(
        "Take one token: which logical page does its position lie in, where in that page, and which physical page is that?",
        "Check the three steps one by one for the first token that differs: the column of the table, the page found there, "
        "the place in the page.",
        "Divide the position by `page_size`: the quotient is the column, the remainder the place in the page. Look up the "
        "page in the slot's row, multiply by `page_size`, add the place.",
    ),
)
address.mistake(
    "swaps-div-and-mod",
    "Positions 0 to 3 lie in one page of 4. Which of quotient and remainder is the same for all of them?",
    "The remainder chooses the page and the quotient the place; it should be the other way round.",
    "Let the quotient choose the page and the remainder the place in it.",
)
address.mistake(
    "page-start",
    "Do all tokens of a page lie at one address?",
    "The result is where the page begins; the place of the token in it is missing.",
    "Add the remainder of the position by `page_size`.",
)
address.mistake(
    "page-not-times-size",
    "A page number is not an address: at which address does page 7 begin, with pages of 4 tokens?",
    "The place in the page is added to the number of the page as it is.",
    "Multiply the page by `page_size` before you add the place.",
)
address.mistake(
    "skips-the-table",
    "Two neighbouring logical pages: does anything promise that they are neighbours in the pool?",
    "The address is computed from the position without asking the table which physical page it is.",
    "Look up the physical page in the slot's row of `page_table`.",
)
address.mistake(
    "padding-position",
    "Padding has slot 0 and any position whatever. Which column of the sink's row would that be?",
    "The position of padding can lie beyond the last column of a row, and the look-up fails.",
    "Keep the column inside the row (for slot 0 every column says page 0), or give slot 0 an address in page 0 without "
    "looking it up.",
)
address.mistake(
    "page-minus-one",
    "A negative index is not an error: which cell of the pool is number -1?",
    "Padding gets a negative address, which wraps around to the end of the pool, where another sequence's page lies.",
    "For slot 0 give an address inside page 0, from 0 to `page_size` - 1.",
)
address.mistake(
    "outer-product",
    "Slots and positions belong together element by element. How many addresses does that make?",
    "Each slot was combined with each position, so that there are more addresses than tokens.",
    "Index the table with the slots and the columns in one pair of brackets, so that they broadcast together.",
)
address.mistake(
    "not-int64",
    "The table is int32. Which dtype does the docstring promise for an address?",
    "The dtype of the table or of the arguments is passed on to the result.",
    "Turn the page into int64 before multiplying.",
)

ROWS = {"1": [7, 2, 5], "3": [4, 8], "2": [6]}
PAGED: Case = {"pages": 9, "size": 4, "columns": 5, "slots": 3, "rows": ROWS}


def flat(value: Any) -> list[Any]:
    return [one for part in value for one in flat(part)] if isinstance(value, list) else [value]


def shaped(value: Any) -> list[int]:
    return [len(value), *shaped(value[0])] if isinstance(value, list) and value else []


def together(case: Case) -> tuple[list[int], list[tuple[int, int]]]:
    """The shape and the (slot, position) of each element, broadcast by hand."""
    slots, positions = case["slot"], case["position"]
    left, right = shaped(slots), shaped(positions)
    rank = max(len(left), len(right))
    left, right = [1] * (rank - len(left)) + left, [1] * (rank - len(right)) + right
    shape = [max(a, b) for a, b in zip(left, right, strict=True)]

    def at(value: Any, own: list[int], index: tuple[int, ...]) -> int:
        found, step = flat(value), 0
        for size, i in zip(own, index, strict=True):
            step = step * size + (i if size > 1 else 0)
        return found[step]

    pairs = [(at(slots, left, i), at(positions, right, i)) for i in product(*map(range, shape))]
    return shape, pairs


def formed(shape: list[int], values: list[Any]) -> Any:
    """A flat list as nested lists."""
    if not shape:
        return values[0]
    step = len(values) // shape[0]
    return [formed(shape[1:], values[i * step : (i + 1) * step]) for i in range(shape[0])]


def page_at(case: Case, slot: int, column: int) -> int:
    row = case["rows"].get(str(slot), [])
    return row[column] if column < len(row) else 0


def addresses(case: Case, place: Callable[[Case, int, int], int]) -> Any:
    shape, pairs = together(case)
    return formed(shape, [place(case, slot, position) for slot, position in pairs])


def place_right(case: Case, slot: int, position: int) -> int:
    column, within = divmod(position, case["size"])
    return page_at(case, slot, column) * case["size"] + within


def same_addresses(case: Case, expected: Any, answer: Any) -> bool:
    """Equal; any place in the sink's page is as good as any other."""
    _shape, pairs = together(case)
    if shaped(answer) != shaped(expected):
        return False
    sink = range(case["size"])
    return all(
        e == a or (slot == 0 and e in sink and a in sink)
        for (slot, _), e, a in zip(pairs, flat(expected), flat(answer), strict=True)
    )


def say_address(case: Case) -> str:
    rows = "; ".join(
        f"slot {slot} has row {boxes(case['rows'][str(slot)])}" for slot in sorted(asked_slots(case)) if slot
    )
    sink = "slot 0 is the sink" if 0 in asked_slots(case) else ""
    return f"pages of {case['size']} tokens; " + "; ".join(filter(None, (rows, sink)))


def asked_slots(case: Case) -> set[int]:
    return set(flat(case["slot"]))


def draw_address(case: Case, answer: Any) -> str:
    shape, pairs = together(case)
    found = flat(answer)
    if len(found) != len(pairs):
        return f"shape {shaped(answer)}, not {shape}"
    lines = [f"{'slot':>4} {'position':>8}  address", ""]
    lines[1:] = [f"{slot:>4} {position:>8}  {at:>7}" for (slot, position), at in zip(pairs, found, strict=True)]
    if shaped(answer) != shape:
        lines.append(f"shape {shaped(answer)}, not {shape}")
    return "\n".join(lines)


@address.check(
    cases=[
        PAGED | {"slot": slot, "position": position}
        for slot, position in (
            ([1], [0]),
            ([1, 1, 1], [0, 1, 3]),
            ([1, 1, 1], [3, 4, 5]),
            ([1, 1, 1, 1], [7, 8, 10, 11]),
            ([3, 1, 2], [5, 5, 2]),
            (1, 6),
            ([3, 3, 1, 2], [7, 0, 9, 3]),
        )
    ]
    + [
        {
            "pages": 6,
            "size": 2,
            "columns": 4,
            "slots": 2,
            "rows": {"2": [3, 6, 1]},
            "slot": [2, 2, 2],
            "position": [1, 2, 5],
        },
        {"pages": 9, "size": 8, "columns": 9, "slots": 1, "rows": {"1": [9, 3]}, "slot": [1, 1], "position": [6, 15]},
    ],
    describe=say_address,
    draw=draw_address,
    same=same_addresses,
)
def places(case: Case) -> Any:
    return addresses(case, place_right)


def placing(place: Callable[[Case, int, int], int]) -> Callable[[Case], Any]:
    return lambda case: addresses(case, place)


predict(
    places,
    "swaps-div-and-mod",
    placing(lambda case, slot, at: page_at(case, slot, at % case["size"]) * case["size"] + at // case["size"]),
    placing(lambda case, slot, at: page_at(case, slot, at % case["size"]) * case["size"] + at % case["size"]),
    placing(lambda case, slot, at: page_at(case, slot, at // case["size"]) * case["size"] + at // case["size"]),
)
predict(places, "page-start", placing(lambda case, slot, at: page_at(case, slot, at // case["size"]) * case["size"]))
predict(
    places,
    "page-not-times-size",
    placing(lambda case, slot, at: page_at(case, slot, at // case["size"]) + at % case["size"]),
)
predict(
    places,
    "skips-the-table",
    placing(lambda case, slot, at: at),
    placing(lambda case, slot, at: slot * case["columns"] * case["size"] + at),
    placing(lambda case, slot, at: (slot - 1) * case["columns"] * case["size"] + at),
    placing(lambda case, slot, at: slot * case["size"] + at % case["size"]),
)


@address.check(
    cases=[
        PAGED | {"slot": slot, "position": position}
        for slot, position in (
            ([0], [0]),
            ([0, 0], [3, 19]),
            ([0], [20]),
            ([1, 0], [4, 4]),
            ([0, 3], [1000, 6]),
            ([0, 2, 0], [7, 1, 123]),
        )
    ],
    describe=say_address,
    draw=draw_address,
    same=same_addresses,
)
def padding(case: Case) -> Any:
    return addresses(case, lambda case, slot, at: place_right(case, slot, at) if slot else at % case["size"])


@padding.predicts("padding-position")
def _(case: Case) -> Any:
    beyond = any(at >= case["columns"] * case["size"] for _slot, at in together(case)[1])
    return raises("IndexError") if beyond else padding.expected(case)


@padding.shows("page-minus-one")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return any(slot == 0 and at < 0 for (slot, _), at in zip(together(case)[1], flat(answer), strict=True))


def draw_shape(case: Case, answer: dict[str, Any]) -> str:
    return f"{draw_address(case, answer['addresses'])}\n{answer['dtype']}, shape {shaped(answer['addresses'])}"


def say_shape(case: Case) -> str:
    return f"{case['dtype']} slots {case['slot']}, positions {case['position']}; " + say_address(case)


@address.check(
    cases=[
        PAGED | {"dtype": dtype, "slot": slot, "position": position}
        for dtype, slot, position in (
            ("int64", [3, 1], [5, 5]),
            ("int64", [[3], [1]], [[5], [5]]),
            ("int64", [[3], [1]], [[4, 5, 6], [0, 4, 8]]),
            ("int64", [[1], [2]], [0, 3]),
            ("int64", 1, [4, 8]),
            ("int32", [3, 1], [5, 5]),
            ("int32", 1, 4),
        )
    ],
    describe=say_shape,
    draw=draw_shape,
    same=lambda case, expected, answer: (
        same_addresses(case, expected["addresses"], answer["addresses"]) and expected["dtype"] == answer["dtype"]
    ),
)
def shape_and_dtype(case: Case) -> dict[str, Any]:
    return {"addresses": addresses(case, place_right), "dtype": "int64"}


@shape_and_dtype.shows("not-int64")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return same_addresses(case, expected["addresses"], answer["addresses"]) and answer["dtype"] != "int64"


@shape_and_dtype.shows("outer-product")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    return shaped(answer["addresses"]) != shaped(expected["addresses"])


@places.shows("outer-product")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    return shaped(answer) != shaped(expected)


# ==================================================================================================== 3.6 and 3.7: writing

assign = Exercise(
    "3.6",
    section="Writing keys and values",
    hints=(
        "Follow one token: which batch row, head and place in the row does it come from, and at which address must it lie?",
        "Compare the pool with the picture page by page, for keys and values, for each head. What was not given must stay "
        "untouched.",
        "One address for each token, flattened; keys and values with heads first and tokens flattened in the same order; "
        "then one assignment into each pool.",
    ),
)
packed = Exercise(
    "3.7",
    section="Writing a packed prompt",
    hints=(
        "Follow one token of the row: whose is it, which position has it there, and at which address must it lie?",
        "Compare the pool with the picture page by page. Each token carries its own slot and its own position.",
        "One address for each token from its slot and its position, then one assignment into each pool.",
    ),
)
assign.mistake(
    "row-not-slot",
    "Batch row 0 is not slot 0. Which slot does the row belong to?",
    "The table is asked with the number of the row; `batch_idx` says which slot each row belongs to.",
    "Ask `address` with the slots in `batch_idx`, one for each row.",
)
packed.mistake(
    "row-not-slot",
    "Several sequences lie in this one row. Which slot does each of its tokens belong to?",
    "All tokens are treated as those of one slot; `batch_idx` has a slot for each of them.",
    "Ask `address` with the whole of `batch_idx[0]`, token by token.",
)
packed.mistake(
    "position-in-pack",
    "The second prompt starts in the middle of the row. What is the position of its first token in its own sequence?",
    "Tokens are placed by their index in the packed row instead of by `input_pos`.",
    "Use the positions that are given; they start again at 0 with each prompt.",
)
for exercise in (assign, packed):
    exercise.mistake(
        "writes-a-copy",
        "After the call, is there anything new in the pool?",
        "The values went into a copy. Indexing with a tensor makes one, and a second pair of brackets then writes into that; "
        "functions without an underscore at the end of their name give back a new tensor too.",
        "Assign into `k_cache` and `v_cache` themselves with one pair of brackets, or use a function that works in place.",
    )
    exercise.mistake(
        "keys-only",
        "Attention needs both keys and values. Is each of the two in its own pool?",
        "One of the pools is left as it was, or holds what belongs into the other.",
        "Write k into `k_cache` and v into `v_cache`, at the same addresses.",
    )
    exercise.mistake(
        "skips-first",
        "The first token is a token like any other. What lies at its address?",
        "The other tokens are written and the first is not: look at where your slice, loop or condition starts.",
        "Write every token that was given, from the first on.",
    )
    exercise.mistake(
        "padding-position",
        "Padding has slot 0 and any position whatever. Which column of the sink's row would that be?",
        "The position of padding can lie beyond the last column of a row, and the look-up fails.",
        "Let `address` do the look-up, which keeps slot 0 inside page 0, or treat padding before you look anything up.",
    )
    exercise.mistake(
        "page-minus-one",
        "Padding must go somewhere. Where does address -1 lie, and whose page is that?",
        "Padding was written to the end of the pool: a negative index is no error, it wraps around.",
        "Send padding into page 0, the sink. `address` does so for slot 0 by itself.",
    )
assign.mistake(
    "view-no-permute",
    "In memory, k goes through batch row 0 with all its heads before row 1 begins. In which order does the pool want them?",
    "Heads and tokens are mixed up: a view or reshape from [B, Hk, S, D] does not move an axis. It looks right with one "
    "row or one head.",
    "Bring the heads in front of the batch rows first (transpose or permute), then flatten rows and tokens.",
)
assign.mistake(
    "token-order",
    "The addresses go through row 0 first, then row 1. Do the keys come in the same order?",
    "Each key lies at another key's address: flattened addresses and flattened tokens run through [B, S] differently.",
    "Flatten both so that the tokens of a batch row stay together.",
)
Where = Callable[[Case, int, int, int], int | None]
"""(case, batch row, slot, position) -> address, None to leave it out."""


def filled(case: Case) -> list[list[list[float]]]:
    return [[[-1.0, -1.0] for _ in range((case["pages"] + 1) * case["size"])] for _ in range(case["heads"])]


def number(case: Case, row: int, head: int, token: int, d: int) -> float:
    """What a key holds: which row, head, token and component it is, counted through."""
    return 1.0 + d + 2 * (token + tokens_in(case) * (head + case["heads"] * row))


def tokens_in(case: Case) -> int:
    positions = case["positions"]
    return len(positions[0]) if isinstance(positions[0], list) else len(positions)


def tokens_of(case: Case) -> list[tuple[int, int, int, int]]:
    """(batch row, index in the row, slot, position) of every token, for 3.6 and 3.7 alike."""
    if isinstance(case["positions"][0], list):
        return [
            (row, token, case["batch"][row], position)
            for row, positions in enumerate(case["positions"])
            for token, position in enumerate(positions)
        ]
    return [(0, token, case["batch"][token], position) for token, position in enumerate(case["positions"])]


def address_of(case: Case, _row: int, slot: int, position: int) -> int:
    return place_right(case, slot, position) if slot else position % case["size"]


def write(
    case: Case,
    where: Where = address_of,
    source: Callable[[Case, int, int, int], tuple[int, int, int]] = lambda case, row, head, token: (row, head, token),
    values: bool = True,
) -> dict[str, Any]:
    """The two pools after each token was written to `where`, taken from `source` (batch row, head, token)."""
    k, v = filled(case), filled(case)
    for (row, token, slot, position), head in product(tokens_of(case), range(case["heads"])):
        if (at := where(case, row, slot, position)) is None:
            continue
        for d in (0, 1):
            found = number(case, *source(case, row, head, token), d)
            k[head][at][d] = found
            if values:
                v[head][at][d] = -10 * found
    return {"k": k, "v": v, "sink": ANY}


def same_pools(case: Case, expected: Any, answer: Any) -> bool:
    """Equal outside of the sink's page; whether anything was written there tells some mistakes apart."""
    return (
        expected["sink"] in (ANY, answer["sink"])
        and all(
            expected[pool][head][case["size"] :] == answer[pool][head][case["size"] :]
            for pool in ("k", "v")
            for head in range(case["heads"])
        )
        and all(len(answer[pool][0]) == len(expected[pool][0]) for pool in ("k", "v"))
    )


def say_write(case: Case) -> str:
    rows = "; ".join(f"slot {slot} has row {boxes(row)}" for slot, row in case["rows"].items())
    told = f"batch_idx {case['batch']}, input_pos {case['positions']}"
    if not isinstance(case["positions"][0], list):
        return f"pages of {case['size']} tokens; {rows}; {told} (t0 is the first token)"
    return f"pages of {case['size']} tokens; {rows}; {told} (a0: row 0, token 0)"


def draw_pools(case: Case, answer: Any) -> str:
    """The pools page by page: · is untouched, a0/1 is token a0 of head 1 in another head, k:a0 a key among the values."""
    known = token_names(case)

    def cell(pool: str, head: int, at: int) -> str:
        first, second = answer[pool][head][at]
        if first == second == -1:
            return "·"
        if first == second == 0:
            return "0"
        kind, of_head, name = known.get((first, second), ("", head, "?"))
        wrong_head = f"/{of_head}" if of_head != head else ""
        return (f"{kind}:" if kind and kind != pool else "") + name + wrong_head

    def lines(pool: str) -> list[str]:
        pages = range(case["size"], (case["pages"] + 1) * case["size"], case["size"])
        cells = [
            [[cell(pool, head, at) for at in range(start, start + case["size"])] for head in range(case["heads"])]
            for start in pages
        ]
        wide = max(2, *(len(text) for page in cells for head in page for text in head))
        return [
            f"page {number}  " + " │ ".join(" ".join(f"{text:<{wide}}" for text in head) for head in page)
            for number, page in enumerate(cells, start=1)
        ]

    keys, values = lines("k"), lines("v")
    heads = f", {case['heads']} heads" if case["heads"] > 1 else ""
    if keys == values:
        return "\n".join([f"keys and values{heads}", *keys])
    return "\n".join([f"keys{heads}", *keys, "values", *values])


def token_names(case: Case) -> dict[tuple[float, float], tuple[str, int, str]]:
    """What lies in a cell -> whether it is a key or a value, of which head, and the token's name."""
    found = {}
    for (row, token, _slot, _position), head in product(tokens_of(case), range(case["heads"])):
        name = f"{LETTERS[row]}{token}" if isinstance(case["positions"][0], list) else f"t{token}"
        first, second = (number(case, row, head, token, d) for d in (0, 1))
        found[first, second] = ("k", head, name)
        found[-10 * first, -10 * second] = ("v", head, name)
    return found


def write_case(rows: dict[str, list[int]], batch: list[int], positions: Any, **more: int) -> Case:
    sizes = {"pages": 5, "size": 2, "columns": 4, "slots": 7, "heads": 2} | more
    return {**sizes, "rows": rows, "batch": batch, "positions": positions}


@assign.check(
    cases=[
        write_case({"1": [3]}, [1], [[0]], heads=1),
        write_case({"1": [3]}, [1], [[1]]),
        write_case({"2": [3], "1": [2, 4]}, [2, 1], [[0], [3]]),
        write_case({"1": [3, 2]}, [1], [[0, 1, 2]]),
        write_case({"3": [4, 1], "1": [2, 5]}, [3, 1], [[0, 1, 2], [1, 2, 3]]),
        write_case({"3": [4, 1], "7": [2], "1": [5, 3]}, [3, 7, 1], [[2], [1], [3]]),
        write_case({"2": [3, 1]}, [2, 0], [[2], [1]]),
        write_case({"2": [3, 5], "1": [4, 2]}, [2, 0, 1], [[1, 2], [0, 0], [0, 1]]),
    ],
    describe=say_write,
    draw=draw_pools,
    same=same_pools,
)
def written(case: Case) -> dict[str, Any]:
    return write(case)


@packed.check(
    cases=[
        write_case({"1": [3]}, [1], [0], heads=1),
        write_case({"1": [3, 2]}, [1, 1, 1], [0, 1, 2]),
        write_case({"2": [4, 1], "1": [3]}, [2, 2, 2, 1, 1], [0, 1, 2, 0, 1]),
        write_case({"3": [4, 1], "7": [2], "1": [5, 3]}, [3, 3, 3, 7, 1, 1, 1], [0, 1, 2, 0, 0, 1, 2]),
        write_case({"2": [3], "1": [4]}, [2, 2, 1, 0, 0], [0, 1, 0, 0, 1]),
        write_case({"2": [3, 1], "5": [4, 2]}, [2, 5, 2, 5, 0], [3, 1, 2, 2, 5]),
    ],
    describe=say_write,
    draw=draw_pools,
    same=same_pools,
)
def written_packed(case: Case) -> dict[str, Any]:
    return write(case)


@assign.check(
    cases=[
        write_case({"2": [3, 1]}, [2, 0], [[2], [8]]),
        write_case({"2": [3, 5], "1": [4, 2]}, [2, 0, 1], [[1, 2], [99, 7], [0, 1]]),
    ],
    describe=say_write,
    draw=draw_pools,
    same=same_pools,
)
def padded(case: Case) -> dict[str, Any]:
    return write(case)


@packed.check(
    cases=[
        write_case({"2": [3]}, [2, 0], [0, 8]),
        write_case({"2": [3, 1], "5": [4, 2]}, [2, 5, 2, 5, 0, 0], [3, 1, 2, 2, 77, 0]),
    ],
    describe=say_write,
    draw=draw_pools,
    same=same_pools,
)
def padded_pack(case: Case) -> dict[str, Any]:
    return write(case)


for check in (padded, padded_pack):
    predict(check, "padding-position", lambda _case: raises("IndexError"))


def by_slot(other: Callable[[Case, int, int, int], int]) -> Where:
    """Addresses of a learner who asks the table with another slot."""

    def where(case: Case, row: int, slot: int, position: int) -> int | None:
        return place_right(case, other(case, row, slot, position), position % (case["columns"] * case["size"]))

    return where


def only(keep: Callable[[Case, int, int, int], bool]) -> Where:
    return lambda case, row, slot, position: (
        address_of(case, row, slot, position) if keep(case, row, slot, position) else None
    )


def last_cell(case: Case, _row: int, slot: int, position: int) -> int | None:
    return place_right(case, slot, position) if slot else (case["pages"] + 1) * case["size"] - 1


def last_page(case: Case, _row: int, slot: int, position: int) -> int | None:
    if slot:
        return place_right(case, slot, position)
    return case["pages"] * case["size"] + position % case["size"]


def skipping(leave_out: Callable[[int, int], bool]) -> Callable[[Case], Any]:
    """Without the tokens for which leave_out(batch row, index in it)."""

    def answer(case: Case) -> dict[str, Any]:
        pools = filled(case), filled(case)
        for (row, token, slot, position), head, d in product(tokens_of(case), range(case["heads"]), (0, 1)):
            if not leave_out(row, token):
                at = address_of(case, row, slot, position)
                found = number(case, row, head, token, d)
                pools[0][head][at][d], pools[1][head][at][d] = found, -10 * found
        return {"k": pools[0], "v": pools[1], "sink": ANY}

    return answer


for check in (written, written_packed):
    predict(check, "writes-a-copy", lambda case: {"k": filled(case), "v": filled(case), "sink": False})
    predict(
        check,
        "keys-only",
        lambda case: write(case, values=False),
        lambda case: write(case) | {"k": filled(case)},
        lambda case: (right := write(case)) | {"v": right["k"]},
        lambda case: (right := write(case)) | {"k": right["v"]},
        lambda case: (right := write(case)) | {"k": right["v"], "v": right["k"]},
        lambda case: (right := write(case)) | {"k": right["v"], "v": filled(case)},
    )
    predict(
        check,
        "skips-first",
        skipping(lambda row, token: token == 0),
        skipping(lambda row, token: row == token == 0),
        lambda case: write(case, only(lambda case, row, slot, position: position > 0)),
    )
    predict(check, "page-minus-one", lambda case: write(case, last_cell), lambda case: write(case, last_page))
predict(
    written, "row-not-slot", lambda case: write(case, by_slot(lambda case, row, slot, position: row)) | {"sink": True}
)
predict(written, "row-not-slot", lambda case: write(case, by_slot(lambda case, row, slot, position: row + 1)))
predict(
    written_packed,
    "row-not-slot",
    lambda case: write(case, by_slot(lambda case, row, slot, position: 0)) | {"sink": True},
    lambda case: write(case, by_slot(lambda case, row, slot, position: case["batch"][0])),
    lambda case: write(case, by_slot(lambda case, row, slot, position: 1)),
)


def as_viewed(case: Case, row: int, head: int, token: int) -> tuple[int, int, int]:
    """Where head `head` of token (row, token) is taken from if memory is read as [heads, rows × tokens]."""
    rows, tokens = len(case["positions"]), tokens_in(case)
    index = head * rows * tokens + row * tokens + token
    from_row, rest = divmod(index, case["heads"] * tokens)
    return (from_row, *divmod(rest, tokens))


def token_first(case: Case, row: int, head: int, token: int) -> tuple[int, int, int]:
    """Addresses run through rows first, tokens through the index in the row first."""
    from_token, from_row = divmod(row * tokens_in(case) + token, len(case["positions"]))
    return from_row, head, from_token


predict(written, "view-no-permute", lambda case: write(case, source=as_viewed))
predict(written, "token-order", lambda case: write(case, source=token_first))


@written_packed.predicts("position-in-pack")
def _(case: Case) -> dict[str, Any]:
    tokens = range(len(case["positions"]))
    by_index = [place_right(case, slot, token) for slot, token in zip(case["batch"], tokens, strict=True)]
    k, v = filled(case), filled(case)
    for token, head, d in product(tokens, range(case["heads"]), (0, 1)):
        found = number(case, 0, head, token, d)
        k[head][by_index[token]][d], v[head][by_index[token]][d] = found, -10 * found
    return {"k": k, "v": v, "sink": ANY}


# ==================================================================================================== 3.8 physical_mask_mod

physical = Exercise(
    "3.8",
    section="Who may read which page",
    preload=("torch._dynamo._trace_wrapped_higher_order_op",),  # what create_mask imports
    hints=(
        "Take one address of the picture that is wrong: which page is it in, who owns that page, and which position of their "
        "sequence is it?",
        "Three questions for each address: is it a sequence's at all (slot and page above 0), does the slot of this batch "
        "row own the page, and does the logical mask allow the position?",
        "From the address: page and place in it. From the page: its logical place. Compare the slot's row at that place with "
        "the page, and ask the logical mask for the position in the sequence; both must say yes.",
    ),
)
physical.mistake(
    "row-not-slot",
    "Batch row 0 may belong to slot 3. Which of the two numbers is the row of the page table?",
    "`page_table` is indexed with the batch row b.",
    "Look up the slot of the batch row in `slot_of_row` first.",
)
physical.mistake(
    "no-owner",
    "Another sequence's first page is a first page too. What keeps this row from reading it?",
    "The position is right, but nothing compares the page with what the slot's own row says: is the page there?",
    "Allow the address only if the slot's row has exactly this page at the page's logical place.",
)
physical.mistake(
    "page-minus-one",
    "A page that is not the slot's got the logical number -1. What does a causal mask say about position -1?",
    "Foreign pages are marked with a negative number, but nothing refuses it: a negative position is before any query.",
    "Combine the logical mask with the question who owns the page, instead of trusting a special number.",
)
physical.mistake(
    "reads-the-sink",
    "A slot that owns nothing has a row of zeros. Which page do those zeros name?",
    "The owner's test holds for page 0 too, since an empty row says 0: the sink's padding is read.",
    "Exclude page 0 (and with it slot 0) before anything else.",
)
physical.mistake(
    "address-for-position",
    "The logical mask knows positions in the sequence. Which position does address 13 stand for?",
    "The logical mask is asked with the address in the pool.",
    "Turn the address back into a position: logical page times `page_size`, plus the place in the page.",
)
physical.mistake(
    "page-start",
    "The tokens of a page have different positions. Which one is the logical mask asked for?",
    "The place in the page is lost on the way from the address to the position.",
    "Add the address's place in its page to the first position of the logical page.",
)
physical.mistake(
    "forgets-the-mask",
    "The slot owns the page. Does that make a key of the future readable?",
    "The result only says who owns the page; the logical mask that was passed in has no say.",
    "Ask the logical mask for the position, and allow the address only if both agree.",
)
physical.mistake(
    "frozen",
    "The mask is made once and asked in many steps. Which of its numbers are those of the first step?",
    "Something of the table is looked up or copied outside of the inner function, when the mask is made.",
    "Move every look-up of `slot_of_row`, `page_table` and `logical_of_page` into the inner function.",
)
physical.mistake(
    "passes-the-slot",
    "The logical mask counts batch rows. What does it get as its b?",
    "The logical mask is asked with the slot, or always with the same row or head.",
    "Pass b, h and q on to the logical mask as they came; only the key's position changes.",
)
physical.mistake(
    "python-and",
    "`and`, `or`, `not` and `if` need one yes or no. How many does a tensor have?",
    "FlexAttention asks for many addresses at once, so that Python can't decide between two branches.",
    "Use the operators of tensors, `&`, `|` and `~`, with brackets around comparisons, or torch.where.",
)

# A mask over positions: (batch row, head, query, position) -> whether it may be read.
LOGICAL: dict[str, Callable[[Case, int, int, int, int], bool]] = {
    "everything": lambda case, b, h, q, kv: kv >= 0,
    "causal": lambda case, b, h, q, kv: kv <= q,
    "lengths": lambda case, b, h, q, kv: kv < case["lengths"][b],
    "heads": lambda case, b, h, q, kv: kv % 2 == h,
    "window": lambda case, b, h, q, kv: q - 3 < kv <= q,
}
Grid = list[list[list[list[bool]]]]
Asked = Callable[[Case, int, int, int, int, int, int], bool]
"""(case, batch row, head, query, slot, page, place in the page) -> whether the address may be read."""


def grid(case: Case, asked: Asked, slots: list[int] | None = None) -> Grid:
    batch = case["batch"] if slots is None else slots
    return [
        [
            [
                [
                    asked(case, b, h, q, slot, page, place)
                    for page in range(case["pages"] + 1)
                    for place in range(case["size"])
                ]
                for q in range(case["queries"])
            ]
            for h in range(case["heads"])
        ]
        for b, slot in enumerate(batch)
    ]


def logical_page(case: Case, page: int) -> int:
    """Where a page lies in its sequence; a free page keeps an old number."""
    for row in case["rows"].values():
        if page in row:
            return int(row.index(page))
    return int(case.get("stale", {}).get(str(page), 0))


def owns(case: Case, slot: int, page: int) -> bool:
    return page > 0 and page in case["rows"].get(str(slot), [])


def allows(case: Case, b: int, h: int, q: int, position: int) -> bool:
    return LOGICAL[case["mask"]](case, b, h, q, position)


def position_of(case: Case, page: int, place: int) -> int:
    return logical_page(case, page) * case["size"] + place


def asked_right(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
    return owns(case, slot, page) and allows(case, b, h, q, position_of(case, page, place))


def without_owner(slot_above_0: bool, page_above_0: bool) -> Asked:
    def asked(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
        if (slot_above_0 and slot == 0) or (page_above_0 and page == 0):
            return False
        return allows(case, b, h, q, position_of(case, page, place))

    return asked


def with_weaker_owner(sinks_apart: bool, somebody: bool) -> Asked:
    """It is enough that the slot has any page at that place, or that anybody has this page."""

    def asked(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
        logical = logical_page(case, page)
        if somebody:
            owned = page == 0 or any(page in row for row in case["rows"].values())
        else:
            owned = page_at(case, slot, logical) > 0
        if sinks_apart and (page == 0 or slot == 0):
            return False
        return owned and allows(case, b, h, q, position_of(case, page, place))

    return asked


def at_minus_one(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
    """Foreign pages get logical page -1 and are then asked for like any other."""
    logical = logical_page(case, page) if owns(case, slot, page) else -1
    return allows(case, b, h, q, logical * case["size"] + place)


def with_the_sink(slot_above_0: bool) -> Asked:
    """The owner's test as it is, so that an empty row owns page 0."""

    def asked(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
        if page > 0 or (slot_above_0 and slot == 0):
            return asked_right(case, b, h, q, slot, page, place)
        return page_at(case, slot, logical_page(case, 0)) == 0 and allows(case, b, h, q, place)

    return asked


def say_state(case: Case) -> str:
    rows = "; ".join(f"slot {slot} has {boxes(row)}" for slot, row in case["rows"].items() if row)
    empty = [slot for slot, row in case["rows"].items() if not row]
    more = f"; slot {names(empty)} owns nothing" if empty else ""
    return f"{rows}{more}; batch rows hold slots {case['batch']}; logical mask: {say_mask(case)}"


def say_mask(case: Case) -> str:
    told = {
        "everything": "True everywhere",
        "causal": "kv <= q",
        "lengths": f"kv < {case.get('lengths')}[b]",
        "heads": "kv % 2 == h",
        "window": "q - 3 < kv <= q",
    }
    return told[case["mask"]]


def draw_grid(case: Case, answer: Grid) -> str:
    """A line for each query, ■ for each address that it may read, page by page."""
    size = case["size"]
    lines = ["page      " + " ".join(f"{page:<{size}}" for page in range(case["pages"] + 1))]
    for b, slot in enumerate(case["batch"]):
        for h in range(case["heads"]):
            for q in range(case["queries"]):
                marks = "".join("■" if yes else "·" for yes in answer[b][h][q])
                pages = " ".join(marks[i : i + size] for i in range(0, len(marks), size))
                head = f"h{h}" if case["heads"] > 1 else ""
                lines.append(f"{f's{slot} q{q} {head}':<9} {pages}")
    return "\n".join(lines)


def state(rows: dict[str, list[int]], batch: list[int], mask: str, **more: Any) -> Case:
    sizes = {"pages": 5, "size": 2, "columns": 4, "slots": 4, "heads": 1, "queries": 1}
    case = {**sizes, "rows": rows, "batch": batch, "mask": mask, **more}
    return case | {"columns": min(case["columns"], case["pages"])}


def readable_cases() -> list[Case]:
    return [
        state({"1": [2]}, [1], "everything", pages=3),
        state({"1": [3, 1]}, [1], "causal", pages=3, queries=4),
        state({"1": [2], "2": [3]}, [1], "everything", pages=3),
        state({"3": [4, 2], "1": [5]}, [3, 1], "everything"),
        state({"3": [4, 2], "1": [5]}, [3, 1], "causal", queries=3),
        state({"2": [1], "1": []}, [1, 2], "everything", pages=3),
        state({"1": [3]}, [1, 0], "everything", pages=3),
        state({"1": [3]}, [1], "everything", pages=4, stale={"1": 0, "2": 1, "4": 3}),
        # A prefix that two sequences share: its page is at the same place in both.
        state({"1": [5, 2], "3": [5, 4]}, [1, 3], "everything"),
        state({"2": [4, 1, 3], "4": [5], "1": [2]}, [4, 0, 2], "causal", queries=6, stale={"5": 0}),
        state({"4": [1, 3], "2": [5, 2, 4], "1": [], "3": []}, [2, 3, 4, 1], "window", queries=5),
        state({"1": [2, 4], "2": [3, 1]}, [2, 1], "everything"),
    ]


@physical.check(cases=readable_cases, describe=say_state, draw=draw_grid)
def readable(case: Case) -> Grid:
    return grid(case, asked_right)


@physical.check(
    cases=[
        state({"1": [3, 1], "2": [2, 5]}, [2, 1], "lengths", lengths=[1, 3, 9, 9, 9]),
        state({"3": [3, 1], "2": [2, 5]}, [3, 2], "lengths", lengths=[4, 2, 9, 1, 9]),
        state({"1": [3, 1], "2": [2, 5]}, [2, 1], "heads", heads=2),
        state({"4": [3, 1], "2": [2, 5], "1": [4]}, [2, 1, 4], "lengths", lengths=[1, 0, 3, 9, 2], queries=2),
    ],
    describe=say_state,
    draw=draw_grid,
)
def passes_on(case: Case) -> Grid:
    return grid(case, asked_right)


@physical.check(cases=readable_cases, describe=say_state, draw=draw_grid)
def asked_one_by_one(case: Case) -> Grid:
    return grid(case, asked_right)


def say_change(case: Case) -> str:
    return f"the mask is made when {say_state(case['earlier'])}. Then {say_state(case)}"


def changes() -> list[Case]:
    one = state({"1": [3, 1], "2": [2]}, [1, 2], "everything")
    return [
        state({"1": [3, 1], "2": [2]}, [2, 1], "everything", earlier=one),
        state({"1": [3, 1, 4], "2": [2]}, [1, 2], "everything", earlier=one),
        state({"1": [1, 3], "2": [2]}, [1, 2], "causal", queries=2, earlier=one),
        state({"3": [5, 3], "2": [2, 1, 4]}, [2, 3], "causal", queries=3, earlier=one),
    ]


@physical.check(cases=changes, describe=say_change, draw=draw_grid)
def changed_later(case: Case) -> Grid:
    return grid(case, asked_right)


def frozen(*parts: str) -> Callable[[Case], Grid]:
    """What one gets if some of the table's fields are those of the time when the mask was made."""

    def answer(case: Case) -> Grid:
        earlier = case["earlier"]

        def place(page: int) -> int:
            # The later state overwrites only what it lists.
            now, then = (find(one, page) for one in (case, earlier))
            known = then if "logical" in parts or now is None else now
            return known or 0

        def find(one: Case, page: int) -> int | None:
            return next((row.index(page) for row in one["rows"].values() if page in row), None)

        def asked(_case: Case, b: int, h: int, q: int, slot: int, page: int, at: int) -> bool:
            table = earlier if "table" in parts else case
            owned = slot > 0 < page and page_at(table, slot, place(page)) == page
            return owned and allows(case, b, h, q, place(page) * case["size"] + at)

        return grid(case, asked, earlier["batch"] if "slots" in parts else case["batch"])

    return answer


for check in (readable, asked_one_by_one, passes_on, changed_later):
    predict(
        check,
        "row-not-slot",
        lambda case: grid(case, asked_right, list(range(len(case["batch"])))),
        lambda case: grid(case, asked_right, [b if slot else 0 for b, slot in enumerate(case["batch"])]),
        lambda case: grid(case, asked_right, list(range(1, len(case["batch"]) + 1))),
    )


def owned_and(
    told: Callable[[Case, int, int, int, int, int], tuple[int, int, int, int] | None],
) -> Callable[[Case], Grid]:
    """The owner is right, but the logical mask is told another (batch row, head, logical page, place).  None: not asked."""

    def asked(case: Case, b: int, h: int, q: int, slot: int, page: int, place: int) -> bool:
        if not owns(case, slot, page):
            return False
        if (what := told(case, b, h, q, page, place)) is None:
            return True
        row, head, logical, at = what
        return allows(case, row, head, q, logical * case["size"] + at)

    return lambda case: grid(case, asked)


for check in (readable, asked_one_by_one, passes_on):
    predict(
        check,
        "no-owner",
        *(
            lambda case, way=way, one=one, other=other: grid(case, way(one, other))
            for way in (without_owner, with_weaker_owner)
            for one, other in product((False, True), (False, True))
        ),
    )
    predict(check, "page-minus-one", lambda case: grid(case, at_minus_one))
    predict(check, "reads-the-sink", *(lambda case, s=slot: grid(case, with_the_sink(s)) for slot in (False, True)))
    predict(check, "address-for-position", owned_and(lambda case, b, h, q, page, place: (b, h, page, place)))
    predict(
        check,
        "page-start",
        owned_and(lambda case, b, h, q, page, place: (b, h, logical_page(case, page), 0)),
        owned_and(lambda case, b, h, q, page, place: (b, h, 0, logical_page(case, page))),
    )
    predict(check, "forgets-the-mask", owned_and(lambda case, b, h, q, page, place: None))


predict(
    passes_on,
    "passes-the-slot",
    owned_and(lambda case, b, h, q, page, place: (case["batch"][b], h, logical_page(case, page), place)),
    owned_and(lambda case, b, h, q, page, place: (0, h, logical_page(case, page), place)),
    owned_and(lambda case, b, h, q, page, place: (0, 0, logical_page(case, page), place)),
    owned_and(lambda case, b, h, q, page, place: (b, 0, logical_page(case, page), place)),
)
predict(
    changed_later,
    "frozen",
    *(
        frozen(*parts)
        for parts in (
            ("slots",),
            ("table",),
            ("logical",),
            ("slots", "table"),
            ("slots", "logical"),
            ("table", "logical"),
            ("slots", "table", "logical"),
        )
    ),
)


def not_for_tensors(_case: Case, _expected: Any, answer: Any) -> bool:
    """What torch says when Python asks a tensor for one yes or no."""
    told = ("data-dependent control flow", "ambiguous", "vmap")
    return (
        is_raised(answer) and answer["raised"][0] == "RuntimeError" and any(text in answer["message"] for text in told)
    )


for check in (readable, asked_one_by_one):
    check.shows("python-and")(not_for_tensors)

# ==================================================================================================== 3.9 block masks

convert = Exercise(
    "3.9",
    section="From logical to physical blocks",
    hints=(
        "Take one row of the batch and one listed block: which logical page is it, and which physical page has this row's "
        "slot there?",
        "A kernel reads the lists and the mask_mod; both must mean the same pages. Compare counts, pages, list width, key "
        "length and mask one by one.",
        "Note which slot each row has; replace each listed number by the page that the slot's row has there, pad the lists "
        "to the pool's width, keep the counts, and build the BlockMask with the physical mask_mod and the pool's length.",
    ),
)
convert.mistake(
    "row-not-slot",
    "Batch row 0 may belong to slot 3. In whose row of the table are the pages looked up?",
    "The table is indexed with the number of the batch row; `batch_idx` says which slot each row has.",
    "Index the first dimension of `page_table` with `batch_idx`, shaped so that it broadcasts over the lists.",
)
convert.mistake(
    "forgets-slot-of-row",
    "The lists are right. From where does the mask_mod know which slot a batch row has?",
    "`slot_of_row` still says what it said before this batch.",
    "Copy `batch_idx` into the first B places of `slot_of_row`, in place.",
)
convert.mistake(
    "stays-logical",
    "The numbers in the lists are those of logical pages. Where do these lie in the pool?",
    "At least one of the lists was passed on as it came.",
    "Translate both lists, the partial and the full one, with the same look-up.",
)
convert.mistake(
    "drops-full",
    "Pages that every query sees in full stand in a list of their own. Where is it?",
    "The full lists and their counts are missing in the result, so that no kernel reads these pages.",
    "Translate `full_kv_indices` too, and pass it on with its counts, if there is one.",
)
convert.mistake(
    "listed-twice",
    "Count the pages of each query block: are there more than before, or one of them twice? A key that counts double gets "
    "double weight.",
    "More is listed than the mask had, or the same page more than once: look at the counts, at what stands behind them, and "
    "at both lists together.",
    "Keep the counts as they came, keep partial and full pages apart, and translate each listed page once.",
)
convert.mistake(
    "page-minus-one",
    "What stands behind the counts is not counted, but a kernel may still load it. Which page is number -1?",
    "The lists are padded with a number that is no page of the pool.",
    "Pad with a page that exists; the sink, 0, is always there.",
)
convert.mistake(
    "narrow-lists",
    "How many key blocks does a query have when the keys are the whole pool?",
    "The lists are only as wide as a row of the table; the kernel wants as many columns as the pool has pages.",
    "Pad the last dimension of each list to n_pages + 1.",
)
convert.mistake(
    "keeps-length",
    "Attention now runs over the pool. How many keys does it have?",
    "The key length is still that of the logical sequence.",
    "Give the BlockMask the pool's length, (n_pages + 1) times `page_size`, as its key length.",
)
convert.mistake(
    "logical-mask-mod",
    "The mask_mod is now asked with addresses. Which numbers does the one that you passed on understand?",
    "The BlockMask carries the logical mask_mod, or none at all.",
    "Pass `physical_mask_mod` of the logical mask on.",
)
convert.mistake(
    "no-owner",
    "The lists are right, but eager FlexAttention asks only the mask_mod. Who keeps it off other sequences' pages?",
    "The mask_mod allows addresses in pages that the row's slot does not own.",
    "Use the mask_mod that `physical_mask_mod` makes; it asks the table who owns a page.",
)
convert.mistake(
    "other-block-size",
    "Blocks and pages of different sizes: which page would block 1 be?",
    "A BlockMask whose key blocks are not pages is translated all the same.",
    "First compare `BLOCK_SIZE[1]` with `page_size`, and raise ValueError if they differ.",
)
convert.mistake(
    "other-rows",
    "How many rows does the mask have, how many slots were given, and how many rows has `slot_of_row`?",
    "A mask whose rows are not those of this batch, or more than the table has slots, is translated all the same.",
    "Compare the rows of the mask with the length of `batch_idx` and with `max_batch_size`, and raise ValueError.",
)

Lists = list[list[list[list[int]]]]
"""[batch row][query block] = [partial pages, full pages], logical."""


def block_case(
    rows: dict[str, list[int]], batch: list[int], lists: Lists, mask: str, query_block: int = 1, **more: Any
) -> Case:
    return state(
        rows, batch, mask, lists=lists, query_block=query_block, **{"full": True, "queries": len(lists[0]), **more}
    )


def block_cases() -> list[Case]:
    return [
        block_case({"1": [3]}, [1], [[[[0], []]]], "lengths", lengths=[2], pages=3),
        block_case({"1": [3, 2]}, [1], [[[[1], [0]]]], "lengths", lengths=[3], pages=3),
        block_case({"3": [4, 2], "1": [5]}, [3, 1], [[[[1], [0]]], [[[0], []]]], "lengths", lengths=[3, 1]),
        block_case(
            {"2": [2, 4], "1": [1]}, [1, 2], [[[[0], []]], [[[1, 0], []]]], "lengths", lengths=[2, 4], full=False
        ),
        block_case(
            {"2": [4, 1, 3], "4": [5, 2]},
            [4, 0, 2],
            [[[[1], [0]]], [[[], []]], [[[2], [1, 0]]]],
            "lengths",
            lengths=[4, 0, 5],
        ),
        # A chunk of three queries in blocks of two: the last query block is half empty.
        block_case(
            {"3": [4, 2], "1": [5, 3]},
            [3, 1],
            [[[[0], []], [[1], [0]]], [[[0], []], [[1], [0]]]],
            "causal",
            query_block=2,
            queries=4,
        ),
        block_case({"1": [5, 2], "3": [5, 4]}, [3, 1], [[[[1], [0]]], [[[1], [0]]]], "lengths", lengths=[4, 3]),
        block_case(
            {"4": [6, 2, 7], "2": [1, 5], "3": [3]},
            [2, 4, 3],
            [[[[1], [0]]], [[[2, 0], [1]]], [[[0], []]]],
            "lengths",
            lengths=[3, 6, 1],
            pages=7,
            stale={"4": 1},
        ),
        # As many rows as the table has slots.
        block_case({"1": [3, 1], "2": [2]}, [2, 1], [[[[0], []]], [[[1], [0]]]], "lengths", lengths=[1, 3], slots=2),
    ]


def say_blocks(case: Case) -> str:
    lists = "; ".join(
        f"row {b}" + "".join(f" partial {names(p)}, full {names(f)}" + (" |" if len(row) > 1 else "") for p, f in row)
        for b, row in enumerate(case["lists"])
    ).replace(" |;", ";")
    rows = "; ".join(f"slot {slot} has {boxes(row)}" for slot, row in case["rows"].items())
    return f"{rows}; batch_idx {case['batch']}; logical blocks: {lists.rstrip(' |')}"


def draw_lists(case: Case, answer: Any) -> str:
    lines = []
    for b, row in enumerate(answer):
        for block, both in enumerate(row):
            name = f"row {b}" + (f", queries {block}" if len(row) > 1 else "")
            lines.append(f"{name}: partial {names(both['partial'])}; full {names(both['full'])}")
    return "\n".join(lines)


def translate(case: Case, page: Callable[[int, int, int], int]) -> list[list[dict[str, list[int]]]]:
    """The lists with each number replaced by page(batch row, slot, logical page)."""
    return [
        [
            {
                name: sorted(page(b, case["batch"][b], number) for number in numbers)
                for name, numbers in zip(("partial", "full"), both, strict=True)
            }
            for both in row
        ]
        for b, row in enumerate(case["lists"])
    ]


@convert.check(cases=block_cases, describe=say_blocks, draw=draw_lists)
def listed(case: Case) -> Any:
    return translate(case, lambda b, slot, number: page_at(case, slot, number))


predict(
    listed,
    "row-not-slot",
    lambda case: translate(case, lambda b, slot, number: page_at(case, b, number)),
    lambda case: translate(case, lambda b, slot, number: page_at(case, b + 1, number)),
    lambda case: translate(case, lambda b, slot, number: page_at(case, case["batch"][0], number)),
)


def mixed(case: Case, full_stays: bool, partial_stays: bool) -> Any:
    right = listed.expected(case)
    logical = translate(case, lambda b, slot, number: number)
    return [
        [
            {
                "partial": (then if partial_stays else now)["partial"],
                "full": (then if full_stays else now)["full"],
            }
            for now, then in zip(*rows, strict=True)
        ]
        for rows in zip(right, logical, strict=True)
    ]


predict(
    listed,
    "stays-logical",
    lambda case: mixed(case, True, True),
    lambda case: mixed(case, True, False),
    lambda case: mixed(case, False, True),
)
predict(listed, "drops-full", lambda case: [[both | {"full": []} for both in row] for row in listed.expected(case)])


@listed.shows("listed-twice")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Some query block reads a page of a sequence twice, or more pages than before."""

    def doubles(both: Any, right: Any) -> bool:
        pages, wanted = both["partial"] + both["full"], right["partial"] + right["full"]
        twice = {page for page in pages if pages.count(page) > 1}
        return len(pages) > len(wanted) or any(page > 0 for page in twice)

    return any(
        doubles(both, right) for rows in zip(answer, expected, strict=True) for both, right in zip(*rows, strict=True)
    )


@listed.shows("narrow-lists")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    """Narrow lists can't name the pool's last pages: torch says so when it computes the queries' lists from them."""
    return is_raised(answer) and "out of bounds" in answer["message"] and "from_kv_blocks" in answer["where"]


def draw_form(_case: Case, answer: dict[str, Any]) -> str:
    return table_of(
        ("lists' width", names(answer["width"])),
        (
            "behind the counts",
            names(f"{page} is no page" for page in answer["behind"]) if answer["behind"] else "pages",
        ),
        ("key length", answer["keys"]),
        ("query length", answer["queries"]),
        ("BLOCK_SIZE", tuple(answer["blocks"])),
    )


def same_form(case: Case, expected: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Equal; a query length rounded up to whole blocks covers the same queries."""
    block = case["query_block"]
    rounded = rounded_up(expected["queries"], block) * block
    return answer["queries"] in (expected["queries"], rounded) and fits(case, expected | {"queries": ANY}, answer)


@convert.check(cases=block_cases, describe=say_blocks, draw=draw_form, same=same_form)
def form(case: Case) -> dict[str, Any]:
    pages = case["pages"] + 1
    return {
        "width": [pages],
        "behind": [],
        "keys": pages * case["size"],
        "queries": case["queries"],
        "blocks": [case["query_block"], case["size"]],
    }


@form.shows("page-minus-one")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return any(page < 0 for page in answer["behind"])


@form.shows("narrow-lists")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    return not answer["behind"] and max(answer["width"]) < expected["width"][0]


predict(form, "keeps-length", but(form, keys=lambda case: case["columns"] * case["size"]))


@convert.check(cases=block_cases, describe=say_blocks, draw=draw_grid)
def masked(case: Case) -> Grid:
    return grid(case, asked_right)


predict(masked, "forgets-slot-of-row", lambda case: grid(case, lambda *_: False))
predict(
    masked,
    "logical-mask-mod",
    lambda case: grid(
        case, lambda case, b, h, q, slot, page, place: allows(case, b, h, q, page * case["size"] + place)
    ),
    lambda case: grid(case, lambda *_: True),
)
predict(
    masked,
    "row-not-slot",
    lambda case: grid(case, asked_right, list(range(len(case["batch"])))),
    lambda case: grid(case, asked_right, list(range(1, len(case["batch"]) + 1))),
)
predict(
    masked,
    "no-owner",
    *(
        lambda case, s=slot, p=page: grid(case, without_owner(s, p))
        for slot, page in product((False, True), (False, True))
    ),
)


@convert.check(
    cases=[
        block_case({"1": [3], "2": [2]}, [1], [[[[0], []]]], "lengths", lengths=[2], pages=3, earlier=[2]),
        block_case(
            {"3": [4, 2], "1": [5]}, [1, 3], [[[[0], []]], [[[1], [0]]]], "lengths", lengths=[1, 3], earlier=[3, 1]
        ),
    ],
    describe=lambda case: f"after a batch with slots {case['earlier']}: {say_blocks(case)}",
    draw=draw_grid,
)
def next_batch(case: Case) -> Grid:
    return grid(case, asked_right)


predict(
    next_batch,
    "forgets-slot-of-row",
    lambda case: grid(case, asked_right, case["earlier"]),
    lambda case: grid(case, lambda *_: False),
)


def draw_attention(_case: Case, answer: Any) -> str:
    lines = []
    for b, row in enumerate(answer):
        for q, found in enumerate(row):
            lines.append(f"row {b} q{q} reads {' '.join(map(str, found['reads'])) or 'nothing'}")
            apart = abs(found["listed"] - found["masked"]) > 1e-3
            lines.append(
                f"    gives {found['listed']:.2f}" + (f", by mask_mod alone {found['masked']:.2f}" if apart else "")
            )
    return "\n".join(lines)


def weigh(addresses: list[int], query: float) -> float:
    """Attention of one query over addresses, with the keys and values that the drive uses."""
    if not addresses:
        return 0.0
    weights = [math.exp(query * (at * 7 % 5) / 2) for at in addresses]
    return sum(weight * at for weight, at in zip(weights, addresses, strict=True)) / sum(weights)


def close_attention(_case: Case, expected: Any, answer: Any) -> bool:
    def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return one["reads"] == other["reads"] and all(abs(one[way] - other[way]) < 1e-3 for way in ("listed", "masked"))

    return all(
        near(one, other) for rows in zip(expected, answer, strict=True) for one, other in zip(*rows, strict=True)
    )


@convert.check(
    cases=block_cases,
    describe=lambda case: f"attention over addresses: {say_blocks(case)}",
    draw=draw_attention,
    same=close_attention,
)
def attends(case: Case) -> Any:
    allowed = grid(case, asked_right)
    answer = []
    for b in range(len(case["batch"])):
        reads = [[at for at, yes in enumerate(allowed[b][0][q]) if yes] for q in range(case["queries"])]
        results = [weigh(found, 0.5 + q) for q, found in enumerate(reads)]
        answer.append(
            [{"reads": found, "listed": out, "masked": out} for found, out in zip(reads, results, strict=True)]
        )
    return answer


OTHER_BLOCKS = {
    "key blocks of 4 tokens, pages of 2": block_case({"1": [3]}, [1], [[[[0], []]]], "causal", key_block=4),
    "key blocks of 1 token, pages of 2": block_case({"1": [3]}, [1], [[[[0], []]]], "causal", key_block=1),
}
OTHER_ROWS = {
    "a mask of 2 rows, 1 slot": block_case({"1": [3]}, [1], [[[[0], []]], [[[0], []]]], "causal"),
    "a mask of 1 row, 2 slots": block_case({"1": [3], "2": [4]}, [1, 2], [[[[0], []]]], "causal"),
    "3 rows and 3 slots, max_batch_size 2": block_case(
        {"1": [3], "2": [4]}, [1, 2, 1], [[[[0], []]]] * 3, "causal", slots=2
    ),
}


def goes_on(_case: Case, _expected: Any, answer: Any) -> bool:
    """It goes through, or fails somewhere inside for want of a question asked before."""
    return not is_raised(answer) or answer["raised"][0] in ("RuntimeError", "IndexError", "AssertionError")


@convert.check(
    cases=[{"says": says, **case} for says, case in OTHER_BLOCKS.items()],
    describe=lambda case: case["says"],
)
def other_blocks(_case: Case) -> Any:
    return raises("ValueError")


@convert.check(
    cases=[{"says": says, **case} for says, case in OTHER_ROWS.items()],
    describe=lambda case: case["says"],
)
def other_rows(_case: Case) -> Any:
    return raises("ValueError")


other_blocks.shows("other-block-size")(goes_on)
other_rows.shows("other-rows")(goes_on)
