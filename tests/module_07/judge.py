"""What is right in module 07, how it is drawn, and what each common mistake would give.

Everything here is lists and loops: no tensor, and nothing of the package that is graded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Exercise, is_raised, raises

Case = dict[str, Any]
PRELOAD = ("torch.nn.attention.flex_attention", "transformers", "torch._dynamo._trace_wrapped_higher_order_op")
"""What the drive and the files that it looks into need; imported once for all."""


def predict(check: Any, slug: str, *ways: Callable[[Case], Any]) -> None:
    """Several ways of making one mistake."""
    for way in ways:
        check.predicts(slug)(way)


def some(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def names(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def boxes(pages: Iterable[object]) -> str:
    return "[ " + " | ".join(map(str, pages)) + " ]"


# ==================================================================================================== 7.1 batch_buckets

buckets = Exercise(
    "7.1",
    section="A graph for each batch size",
    hints=(
        "Take a step of one row, one of as many rows as there can be, and a few between. In which size does each run?",
        "Compare with the two examples: which sizes are missing, which are too many, and does the list end where it must?",
        "List the regular sizes that lie below `max_batch_size`, in ascending order, and put `max_batch_size` behind them.",
    ),
    preload=PRELOAD,
)
buckets.mistake(
    "bucket-gap",
    "In which size does a step run that has as many rows as there can be?",
    "The largest step fits in no size: `max_batch_size` itself is missing where it is not a regular size.",
    "End the list with `max_batch_size`, whatever it is.",
)
buckets.mistake(
    "above-max",
    "The buffers have `max_batch_size` rows. Which rows would the largest graph read?",
    "Sizes above `max_batch_size` are listed.",
    "Keep only the regular sizes below `max_batch_size`; it is the last one itself.",
)
buckets.mistake(
    "listed-twice",
    "What if `max_batch_size` is one of the regular sizes?",
    "One size stands there twice, and its graph would be recorded twice.",
    "Take the regular sizes that are smaller than `max_batch_size`, not those that are equal to it.",
)
buckets.mistake(
    "none-of-one",
    "One user alone: how many rows has a step, and in which size does it run?",
    "There is no size for a single row.",
    "Begin with 1.",
)
buckets.mistake(
    "too-many",
    "Each size is a graph to record. By how much does one grow to the next in the examples?",
    "There are more sizes than the course records: they lie closer together than in the examples.",
    "Go from 1 to 64 by the factor that the examples show, and on from there in the steps that they show.",
)
buckets.mistake(
    "no-steps",
    "With 300 rows at most, in which size does a step of 129 rows run, and how many of its rows are padding?",
    "Above 64 the sizes grow by a factor, or there are none, so that a large step is padded by half of its rows and more.",
    "From 128 on, go on in steps of equal length.",
)
buckets.mistake(
    "steps-off",
    "Say the sizes above 64 aloud, one after the other. At which number do they begin, and how far apart are they?",
    "The sizes above 64 are not those of the example: they begin elsewhere, or are too far apart.",
    "Above 64, begin at 128 and go on in steps of 128.",
)
buckets.mistake(
    "not-in-order",
    "A step takes the first size that holds its rows. Is that the smallest one?",
    "The right sizes are there, and they are not in ascending order.",
    "Put `max_batch_size` last, and the others before it from the smallest on.",
)

FACTOR, TOP, STEP = 4, 64, 128  # as in the docstring's examples

LOW = [1, 4, 16, 64]


def regular(
    most: int, factor: int = FACTOR, top: int = TOP, step: int = STEP, begin: int = 0, first: int = 1
) -> list[int]:
    """Regular sizes below `most`: by a factor up to `top`, then in steps from `begin` on."""
    sizes, size = [], first
    while size < most and size <= top:
        sizes.append(size)
        size *= factor
    size = begin or step
    while size < most:
        if size > top:
            sizes.append(size)
        size += step
    return sizes


def draw_sizes(case: Case, answer: list[int]) -> str:
    """Each size, and the steps that run in it: those that no size before it holds."""
    lines, held = ["size    steps of"], 0
    for size in answer:
        first, last = held + 1, min(size, case["most"])
        lines.append(
            f"{size:<7} "
            + (f"{first} to {last} rows" if first < last else some(last, "row") if first == last else "none")
        )
        held = max(held, last)
    if held < case["most"]:
        lines.append(
            f"no size {held + 1} to {case['most']} rows"
            if held + 1 < case["most"]
            else f"no size {some(case['most'], 'row')}"
        )
    return "\n".join(lines)


@buckets.check(
    cases=[
        {"most": most}
        for most in (
            1,
            2,
            3,
            4,
            5,
            8,
            15,
            16,
            17,
            20,
            63,
            64,
            65,
            100,
            128,
            129,
            192,
            200,
            256,
            257,
            300,
            512,
            1000,
            1024,
        )
    ],
    describe=lambda case: f"batch_buckets({case['most']})",
    draw=draw_sizes,
    search=st.integers(1, 2000).map(lambda most: {"most": most}),
)
def sizes(case: Case) -> list[int]:
    return [*regular(case["most"]), case["most"]]


predict(
    sizes,
    "bucket-gap",
    lambda case: regular(case["most"]),
    lambda case: regular(case["most"] + 1),
    lambda case: (
        [size for size in LOW if size <= case["most"]] + [size for size in regular(case["most"]) if size > TOP]
    ),
)
predict(
    sizes,
    "above-max",
    lambda case: (
        [size for size in regular(10_000) if size < case["most"]]
        + [next(size for size in regular(10_000) if size >= case["most"])]
    ),
    lambda case: sorted({*LOW, *sizes.expected(case)}),
    lambda case: [*LOW, *(size for size in regular(case["most"]) if size > TOP), case["most"]],
    lambda case: (
        [*LOW, *(size for size in regular(case["most"]) if size > TOP)]
        + ([case["most"]] if case["most"] not in (*LOW, *regular(case["most"])) else [])
    ),
)
predict(
    sizes,
    "listed-twice",
    lambda case: [*regular(case["most"] + 1), case["most"]],
    lambda case: [*LOW[: sum(size <= case["most"] for size in LOW)], *regular(case["most"])[4:], case["most"]],
    lambda case: (
        [*regular(case["most"])[:4], *regular(case["most"] + 1)[len(regular(case["most"])[:4]) :], case["most"]]
        if case["most"] > TOP
        else sizes.expected(case)
    ),
)
predict(
    sizes,
    "none-of-one",
    lambda case: [*regular(case["most"], first=FACTOR), case["most"]],
    lambda case: [*regular(case["most"], first=2), case["most"]],
    lambda case: [*regular(case["most"], first=2, factor=2), case["most"]],
)
predict(
    sizes,
    "too-many",
    *(
        (lambda case, by=by: [*regular(case["most"], *by), case["most"]])
        for by in (
            (2, TOP, STEP),
            (FACTOR, TOP, 64),
            (2, TOP, 64),
            (2, TOP, 32),
            (2, 128, STEP),
            (2, 8, 16),
            (4, 16, 16),
        )
    ),
    lambda case: list(range(1, case["most"] + 1)),
)
predict(
    sizes,
    "no-steps",
    *((lambda case, factor=f: [*regular(case["most"], factor, 10**9), case["most"]]) for f in (2, 4)),
    lambda case: [*(size for size in regular(case["most"]) if size <= TOP), case["most"]],
)
predict(
    sizes,
    "steps-off",
    *(
        (lambda case, by=by: [*regular(case["most"], step=by[0], begin=by[1]), case["most"]])
        for by in ((128, 192), (128, 256), (256, 256), (256, 128), (192, 128), (192, 192))
    ),
)


@sizes.shows("not-in-order")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and sorted(answer) == expected


# ==================================================================================================== 7.2 set_rows

rows = Exercise(
    "7.2",
    section="Buffers that stay",
    hints=(
        "Write down all places of `slot_B` before and after each call. Which must change, and which graph reads them?",
        "Compare, place by place, what a graph reads that was recorded before the first step; then look behind the rows.",
        "Into the tensor that is there, write the slots in the order given, and 0 into every place behind them.",
    ),
    preload=PRELOAD,
)
rows.mistake(
    "rebound-buffer",
    "A graph was recorded before this call. Which address does it read from?",
    "`slot_B` is a new tensor with the right numbers; the graph still reads the old one.",
    "Write into the tensor that is there: slice assignment, `copy_`, `fill_` and the like, never `self.slot_B = …`.",
)
rows.mistake(
    "stale-pad",
    "Five rows, then three in a graph of eight. Which slots do the other five rows have?",
    "What an earlier step wrote still stands behind the rows, and padding would write into pages of others.",
    "Set everything behind the slots to 0, up to the end of the buffer.",
)
rows.mistake(
    "clears-one",
    "How many rows can a step have fewer than the one before it?",
    "Only the place right behind the rows is cleared.",
    "Clear from there to the end of the buffer, not one place only.",
)
rows.mistake(
    "wiped",
    "In which order do you write the slots and the zeros?",
    "The zeros come last and wipe out the slots.",
    "First all zeros and then the slots, or zeros behind the slots only.",
)
rows.mistake(
    "empty-keeps",
    "A step without rows, which is how a graph is recorded: what must the buffer hold then?",
    "An empty list changes nothing, and the rows of the step before are still there.",
    "Treat no slots like any other number of them: all places become 0.",
)
rows.mistake(
    "skips-a-change",
    "When may a call do nothing? Think of a slot that leaves as another one comes.",
    "Slots that differ from those before are taken for the same: as many of them, or the same ones in another order.",
    "Skip the work only if the slots are equal to the last ones, one by one and in order; or never skip it.",
)
rows.mistake(
    "keeps-the-list",
    "The caller uses its list again for the next step. What do you compare with then?",
    "The caller's own list was kept, so that later it is compared with itself and nothing is written.",
    "Keep a copy of the slots if you want to compare with them.",
)
rows.mistake(
    "lists-only",
    "`slots` is any sequence. What do your operations do with a tuple?",
    "It works with a list and with no other sequence.",
    "Make a list of it first, or use what every sequence can do.",
)
rows.mistake(
    "by-slot",
    "A row's number and a slot's number are two things. Which one counts the places of `slot_B`?",
    "The places are chosen by slot and not by row.",
    "Row i gets the i-th of the slots, whatever its number is.",
)
rows.mistake(
    "sorted",
    "Who decides which sequence is in row 0? The token of row 0 will be given to it.",
    "The slots are there, and in another order than given.",
    "Keep the order of `slots`.",
)
rows.mistake(
    "pads-minus-one",
    "A graph runs its padding too. Which slot may padding write to?",
    "Padding has a number that is not the sink's.",
    "Pad with 0: slot 0 is the sink.",
)


def steps(most: int, *steps: list[int], how: str = "lists") -> Case:
    return {"most": most, "steps": list(steps), "how": how}


STEPS = [
    steps(1, [1]),
    steps(2, [2]),
    steps(2, [2, 1]),
    steps(2, [1], [2]),
    steps(2, [2, 1], []),
    steps(3, [2, 3], [3]),
    steps(3, [2, 3], [2]),
    steps(3, [1, 3], [3, 1]),
    steps(4, [4, 2, 3], [1]),
    steps(4, [3, 1, 4, 2], [4, 2], [2, 4, 1]),
    steps(5, [5, 3, 1], [], [2]),
    steps(8, [3, 1, 7, 5, 2], [7, 2, 4], [7, 2, 4], [8, 6, 4, 2, 7, 5, 3, 1], [6]),
]


def say_steps(case: Case) -> str:
    calls = "; ".join(f"set_rows({slots})" for slots in case["steps"])
    return f"a buffer of {some(case['most'], 'row')}, recorded before the first step; {calls}"


def draw_steps(case: Case, answer: dict[str, Any]) -> str:
    lines = []
    for number, (read, shown) in enumerate(zip(answer["graph"], answer["slot_B"], strict=True), start=1):
        lines.append(f"step {number}: the graph reads {boxes(read)}")
        if shown != read:
            lines.append(f"        slot_B shows {boxes(shown)}")
    if answer["tokens"] != "kept":
        lines.append("the newest tokens or positions have changed")
    return "\n".join(lines)


Written = Callable[[Case, list[int], list[int]], list[int]]
"""(case, what the buffer holds, slots) -> what it holds then."""


def after(case: Case, write: Written) -> dict[str, Any]:
    holds, seen = [0] * case["most"], []
    for slots in case["steps"]:
        holds = write(case, holds, slots)
        seen.append(holds)
    return {"graph": seen, "slot_B": seen, "tokens": "kept"}


def padded(case: Case, slots: list[int], pad: int = 0) -> list[int]:
    return slots + [pad] * (case["most"] - len(slots))


def right_rows(case: Case) -> dict[str, Any]:
    return after(case, lambda case, holds, slots: padded(case, slots))


@rows.check(cases=STEPS, describe=say_steps, draw=draw_steps)
def replayed_rows(case: Case) -> dict[str, Any]:
    return right_rows(case)


def overlaid(case: Case, holds: list[int], slots: list[int], cleared: int = 0) -> list[int]:
    """Written over what was there, with so many places behind set to 0."""
    new = slots + [0] * cleared
    return (new + holds[len(new) :])[: case["most"]]


predict(replayed_rows, "stale-pad", lambda case: after(case, overlaid))
predict(replayed_rows, "clears-one", lambda case: after(case, lambda *step: overlaid(*step, cleared=1)))
predict(replayed_rows, "wiped", lambda case: after(case, lambda case, holds, slots: [0] * case["most"]))
predict(
    replayed_rows,
    "empty-keeps",
    lambda case: after(case, lambda case, holds, slots: padded(case, slots) if slots else holds),
)
predict(
    replayed_rows,
    "skips-a-change",
    *(
        (lambda case, same=same: after(case, lambda case, holds, slots: skipping(case, holds, slots, same)))
        for same in (
            lambda before, now: len(before) == len(now),
            lambda before, now: sorted(before) == sorted(now),
            lambda before, now: before[: len(now)] == now,
            lambda before, now: set(now) <= set(before),
        )
    ),
)
predict(
    replayed_rows,
    "sorted",
    *(
        (lambda case, down=down: after(case, lambda case, _, slots: padded(case, sorted(slots, reverse=down))))
        for down in (False, True)
    ),
    lambda case: after(case, lambda case, _, slots: padded(case, slots[::-1])),
)
predict(
    replayed_rows,
    "pads-minus-one",
    *((lambda case, pad=p: after(case, lambda case, _, slots: padded(case, slots, pad))) for p in (-1, 1)),
    lambda case: after(case, lambda case, _, slots: padded(case, slots, case["most"])),
)


def skipping(case: Case, holds: list[int], slots: list[int], same: Callable[[list[int], list[int]], bool]) -> list[int]:
    """Nothing is done if the slots seem to be those that the buffer holds."""
    before = [slot for slot in holds if slot]
    return holds if same(before, slots) else padded(case, slots)


@replayed_rows.shows("rebound-buffer")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    """`slot_B` is right and the recorded address is not."""
    return not is_raised(answer) and answer["slot_B"] == expected["slot_B"] and answer["graph"] != expected["graph"]


def placed(case: Case, slots: list[int], shift: int, number: bool) -> list[int]:
    """At the place that the slot's number says."""
    return [
        (place + shift if not number else slots.index(place + shift) + 1) if place + shift in slots else 0
        for place in range(case["most"])
    ]


predict(
    replayed_rows,
    "by-slot",
    *(
        (lambda case, number=number: after(case, lambda case, _, slots: placed(case, slots, 1, number)))
        for number in (False, True)
    ),
    lambda case: after(case, lambda case, _, slots: padded(case, list(range(1, len(slots) + 1)))),
    lambda case: after(case, lambda case, _, slots: padded(case, list(range(len(slots))))),
    lambda case: (
        raises("IndexError", "RuntimeError")
        if any(case["most"] in slots for slots in case["steps"])
        else after(case, lambda case, _, slots: placed(case, slots, 0, False))
    ),
)


@rows.check(
    cases=[
        steps(2, [2], how="tuples"),
        steps(2, [1, 2], how="ranges"),
        steps(3, [3, 1], [2], how="tuples"),
        steps(3, [1, 2], [], [2, 3], how="ranges"),
        steps(4, [2, 4, 1], [4, 2], [4, 2], [], how="tuples"),
    ],
    describe=lambda case: f"{case['how']} of slots: {say_steps(case)}",
    draw=draw_steps,
)
def other_sequences(case: Case) -> dict[str, Any]:
    return right_rows(case)


@other_sequences.shows("lists-only")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer)


@rows.check(
    cases=[{**case, "how": "one list"} for case in STEPS if len(case["steps"]) > 1],
    describe=lambda case: f"one list that its owner changes between the calls: {say_steps(case)}",
    draw=draw_steps,
)
def one_list(case: Case) -> dict[str, Any]:
    return right_rows(case)


predict(
    one_list,
    "keeps-the-list",
    lambda case: after(case, lambda case, _, slots: padded(case, case["steps"][0])),
)

# ==================================================================================================== 7.3 fill

mask = Exercise(
    "7.3",
    section="A decode mask that costs nothing",
    hints=(
        "Take one row: which positions does it read, on which logical pages do they lie, and which of these are read whole?",
        "Compare page by page: is it in the right list, once, and of the right slot? Then look at what else was written.",
        "From each row's position get the first and the last page that it reads; write the physical pages of these as "
        "partial where they must be, those between as full, and the counts, in place and with tensor operations only.",
    ),
    preload=PRELOAD,
)
mask.mistake(
    "row-not-slot",
    "Row 0 of the step may belong to slot 3. Whose pages does it read?",
    "The page table is asked with the number of the row; `slot_B` says which slot it is.",
    "Look the pages up in the table's rows of `state.slot_B[:n]`.",
)
mask.mistake(
    "stays-logical",
    "Page 1 of a sequence lies somewhere in the pool. Which number does a kernel need?",
    "Logical pages are listed, not those that the table has for them.",
    "Translate each column by the slot's row of the page table.",
)
mask.mistake(
    "one-short",
    "At position 4 with pages of 4 tokens, the newest token is on which page?",
    "The page of the newest token is missing where the token is the first on it: the position was taken for a length.",
    "The last page is the position divided by the page size, rounded down.",
)
mask.mistake(
    "one-long",
    "At position 3 with pages of 4 tokens, has the sequence a second page yet?",
    "A page too many is listed where a token is the last on its page.",
    "Divide the position itself; it is the last that is read, not the number of those.",
)
mask.mistake(
    "window-plus-one",
    "A window of 3 at position 5: count the positions that are read, 5 included.",
    "The window begins one position too early, so that it can touch a page too many or cut one that is whole.",
    "The first position that is read is position minus window plus 1.",
)
mask.mistake(
    "no-window",
    "Which pages lie wholly before the window, and who leaves them out?",
    "Pages are listed from the sequence's beginning, whatever the window is.",
    "Begin with the page of the window's first position.",
)
mask.mistake(
    "from-column-0",
    "The first full page of a row with a window: in which column of the table does it stand?",
    "There are as many full pages as there should be, and they are taken from the beginning of the table's row.",
    "Begin the full pages at the first page that lies in the window from its first token on.",
)
mask.mistake(
    "always-cut",
    "A window that begins with the first token of a page: does anything of that page go unread?",
    "The first page is partial also where the row reads all of it.",
    "Only if the window begins inside of its first page is that page partial.",
)
mask.mistake(
    "full-for-partial",
    "A kernel does not ask the mask_mod on full pages. What would it read on the page in which the window begins?",
    "The page in which the window begins is listed as full, and keys before the window are read.",
    "List the first page as partial if the window begins inside of it.",
)
mask.mistake(
    "loses-the-cut",
    "The window begins in the middle of a page. Where are the tokens of its second half listed?",
    "The page in which the window begins stands in no list.",
    "It is the second page of the partial list, and counts there.",
)
mask.mistake(
    "listed-twice",
    "A window that begins and ends on one page: is that page listed once? A key that counts twice weighs double.",
    "A page that is the first and the last at once stands there twice.",
    "Count the first page as a partial one only if it is another page than the last.",
)
mask.mistake(
    "last-full",
    "Who knows which tokens of the last page are already written? The mask_mod, which is asked on partial pages only.",
    "The last page stands in the full list.",
    "Keep the last page out of the full list, also when the position is the last on it: it is partial.",
)
mask.mistake(
    "swapped",
    "On which of the two lists is the mask_mod asked?",
    "Partial and full pages have changed places.",
    "The last page and the one where the window begins are partial; those between are full.",
)
mask.mistake(
    "same-for-all",
    "Each row has a position of its own. Whose do you use?",
    "One position, of one row or the largest, is used for all rows.",
    "Keep a number for each row, [n], all the way.",
)
mask.mistake(
    "before-zero",
    "Position 1 and a window of 4: where does the window begin?",
    "Where a sequence is shorter than the window, the window begins before position 0.",
    "Let nothing below 0 be the first position.",
)
mask.mistake(
    "past-the-row",
    "From the first full page on, the columns are counted up. How many columns has a row of the table?",
    "Columns behind the end of the table's row are looked up, also where the count says that they are not listed.",
    "Keep each column below `pages_per_row`; what stands behind the counts is not read.",
)
mask.mistake(
    "rebound-buffer",
    "A BlockMask was made from these lists before. Which memory does it look at?",
    "New tensors with the lists take the place of the old ones, and what was recorded reads the old.",
    "Write into the tensors that are there, by slice.",
)
mask.mistake(
    "all-rows",
    "The step has n rows. What is known about those behind them?",
    "Rows behind the first n are written too.",
    "Take `[:n]` of everything that is read and written.",
)
mask.mistake(
    "whole-width",
    "The lists are as wide as the pool, thousands of columns. How many of them can one row of the table ever use?",
    "Columns are written that no row of the table can use, in each step and each layer group.",
    "Write the first `pages_per_row` columns at most.",
)
mask.mistake(
    "stale-count",
    "In the step before, this row had full pages. What says now that it has none?",
    "A count is only written where there is something to count, and the one of an earlier step stays.",
    "Write both counts of all n rows in every call, zeros included.",
)
mask.mistake(
    "first-call-stays",
    "The second call comes with other slots and other positions. What do you read again, and what did you keep?",
    "The lists are those of the first call: something that was read then was kept.",
    "Read slots, positions and the table's rows anew in each call.",
)
mask.mistake(
    "baked-length",
    "A graph repeats the numbers that Python had when it was recorded. Which of yours come out of a tensor?",
    "A number goes to the host, where a recorded graph freezes it, and waiting for it stops the device.",
    "Keep it a tensor: compare, clamp, gather and multiply instead of asking it for a Python number or a size.",
)
mask.mistake(
    "wrong-device",
    "Where does a tensor lie that you make yourself, without saying where?",
    "It works only if the table lies on the CPU: a new tensor is on another device than the table.",
    "Make new tensors on the device of the ones that you have.",
)


def fill_case(
    rows: dict[str, list[int]], batch: list[int], position: list[int], window: int | None = None, **more: Any
) -> Case:
    sizes = {"size": 2, "columns": 4, "pages": 8, "slots": 4}
    return {**sizes, "rows": rows, "batch": batch, "position": position, "window": window, **more}


FILLS = [
    fill_case({"1": [3]}, [1], [0]),
    fill_case({"2": [3]}, [2], [1]),
    fill_case({"2": [3, 5]}, [2], [2]),
    fill_case({"2": [5, 3]}, [2], [3]),
    fill_case({"1": [4, 2]}, [1], [1], 3),
    fill_case({"1": [4, 2]}, [1], [2], 3),
    fill_case({"3": [4, 2]}, [3], [2], 2),
    fill_case({"3": [6, 2]}, [3], [3], 1),
    fill_case({"3": [6, 2]}, [3], [2], 1),
    fill_case({"1": [4, 2, 6]}, [1], [4], 3),
    fill_case({"1": [4, 2, 6]}, [1], [5], 3),
    fill_case({"1": [3, 7], "3": [4, 1, 8]}, [3, 1], [4, 2]),
    fill_case({"1": [3, 7], "3": [4, 1, 8]}, [3, 1], [5, 1], 4),
    fill_case({"2": [3, 7, 5, 1], "4": [4, 8]}, [2, 0, 4], [7, 0, 3]),
    fill_case({"2": [3, 7, 5, 1], "4": [4, 8]}, [4, 2, 0], [2, 7, 0], 5),
    fill_case({"2": [3, 7, 5, 1], "4": [4, 8]}, [4, 2, 0], [3, 6, 0], 6),
    fill_case({"1": [2], "2": [5]}, [2, 1], [1, 0], columns=1),
    fill_case({"1": [2], "2": [5]}, [2, 1], [3, 2], 2, columns=1, size=4),
    fill_case({"1": [2, 4, 6], "3": [5, 1]}, [3, 1], [1, 2], 2, size=1),
    fill_case({"1": [2, 4, 6, 7, 3, 8, 9], "4": [5, 1, 10]}, [4, 1], [11, 25], 10, size=4, columns=7, pages=10),
    fill_case({"1": [2, 4, 6, 7, 3, 8, 9], "4": [5, 1, 10]}, [1, 4], [27, 8], size=4, columns=7, pages=10),
    fill_case({"1": [3], "2": [6, 1], "3": [2, 7], "4": [4, 8, 5]}, [2, 4, 3, 1], [3, 5, 2, 0], 3),
]


@st.composite
def random_fills(draw: st.DrawFn) -> Case:
    size, columns = draw(st.sampled_from([2, 4, 1])), draw(st.integers(1, 5))
    batch = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True))
    position = [draw(st.integers(0, columns * size - 1)) for _ in batch]
    owned = [at // size + 1 for at in position]
    pool = draw(st.permutations(range(1, 16)))
    rows = {str(slot): list(pool[sum(owned[:i]) : sum(owned[: i + 1])]) for i, slot in enumerate(batch)}
    window = draw(st.none() | st.integers(1, columns * size + 1))
    return fill_case(rows, batch, position, window, size=size, columns=columns, pages=15)


def say_step(case: Case, table: bool = True) -> str:
    said = []
    for row, (slot, position) in enumerate(zip(case["batch"], case["position"], strict=True)):
        pages = f", pages {boxes(case['rows'][str(slot)])}" if table and slot else ""
        said.append(f"row {row}: slot {slot} at position {position}{pages}" if slot else f"row {row}: slot 0, padding")
    return "; ".join(said)


def say_fill(case: Case) -> str:
    window = "no window" if case["window"] is None else f"a window of {case['window']}"
    return f"pages of {some(case['size'], 'token')}, {window}; {say_step(case)}; fill({len(case['batch'])})"


def draw_lists(case: Case, rows: Any) -> list[str]:
    """The pages of each row in their order, ▒ partial, █ full; those that are not its own stand behind."""
    lines = []
    for row, (slot, found) in enumerate(zip(case["batch"], rows, strict=True)):
        if "padding" in found:
            wrong = (
                f"lists {names(found['padding'])}: no such page" if found["padding"] else "padding, lists what it likes"
            )
            lines.append(f"row {row}  {wrong}")
            continue
        own = case["rows"][str(slot)]

        def marked(page: int, found: dict[str, list[int]] = found) -> str:
            marks = "▒" * found["partial"].count(page) + "█" * found["full"].count(page)
            return f"{page if page >= 0 else '?'} {marks or '·'}"

        others = sorted({page for page in found["partial"] + found["full"] if page not in own})
        foreign = f"  and {', '.join(map(marked, others))}" if others else ""
        lines.append(f"row {row}  {boxes(map(marked, own))}{foreign}")
    return [*lines, "▒ partial  █ full  · not listed"]


def draw_fill(case: Case, answer: dict[str, Any]) -> str:
    lines = draw_lists(case, answer["rows"])
    if answer["behind_n"]:
        lines.append(f"{some(answer['behind_n'], 'row')} behind the first {len(case['batch'])} written")
    if answer["unused_columns"]:
        lines.append(f"columns {answer['unused_columns'][0]} to {answer['unused_columns'][-1]} written")
    if answer["moved"]:
        lines.append(f"new tensors: {names(answer['moved'])}")
    return "\n".join(lines)


def page_of(case: Case, row: int, logical: int) -> int:
    """What the table says; columns behind its last are taken for the last."""
    pages = case["rows"].get(str(case["batch"][row]), [])
    logical = min(logical, case["columns"] - 1)
    return pages[logical] if logical < len(pages) else 0


def reads_right(case: Case, row: int) -> tuple[int, int]:
    """The first and the last position that a row reads."""
    last = case["position"][row]
    return (0 if case["window"] is None else max(0, last - case["window"] + 1)), last


def kinds_right(case: Case, first: int, last: int, logical: int) -> str:
    """In which lists a page is that holds one of the positions: p partial, f full."""
    is_last, is_cut = logical == last // case["size"], first > logical * case["size"]
    return "p" if is_last or is_cut else "f"


def filled(
    case: Case,
    reads: Callable[[Case, int], tuple[int, int]] = reads_right,
    kinds: Callable[[Case, int, int, int], str] = kinds_right,
    page: Callable[[Case, int, int], int] = page_of,
) -> dict[str, Any]:
    found: list[dict[str, list[int]]] = []
    for row, slot in enumerate(case["batch"]):
        if not slot:
            found.append({"padding": []})
            continue
        lists: dict[str, list[int]] = {"p": [], "f": []}
        first, last = reads(case, row)
        for logical in range(first // case["size"], last // case["size"] + 1):
            for kind in kinds(case, first, last, logical):
                lists[kind].append(page(case, row, logical))
        found.append({"partial": sorted(lists["p"]), "full": sorted(lists["f"])})
    return {"rows": found, "behind_n": 0, "unused_columns": [], "moved": []}


@mask.check(cases=FILLS, describe=say_fill, draw=draw_fill, search=random_fills())
def listed(case: Case) -> dict[str, Any]:
    return filled(case)


def of_row(shift: int) -> Callable[[Case, int, int], int]:
    """The table asked with the number of the row."""

    def page(case: Case, row: int, logical: int) -> int:
        pages = case["rows"].get(str(row + shift), [])
        logical = min(logical, case["columns"] - 1)
        return pages[logical] if logical < len(pages) else 0

    return page


predict(
    listed,
    "row-not-slot",
    *((lambda case, shift=shift: filled(case, page=of_row(shift))) for shift in (0, 1)),
)
predict(listed, "stays-logical", lambda case: filled(case, page=lambda case, row, logical: logical))


def moved_span(begin: int, end: int, least: int = 0) -> Callable[[Case, int], tuple[int, int]]:
    """The positions with the first and the last one moved."""

    def reads(case: Case, row: int) -> tuple[int, int]:
        position = case["position"][row]
        first = 0 if case["window"] is None else max(0, position - case["window"] + 1 + begin)
        return first, max(least, position + end)

    return reads


@listed.shows("one-short")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Wrong where the newest token is the first on its page, which is not listed then."""
    if is_raised(answer):
        return runs_out(answer) and 0 in case["position"]
    return answer | {"rows": 0} == expected | {"rows": 0} and all(
        now == then or (at % case["size"] == 0 and page_of(case, row, at // case["size"]) not in now["partial"])
        for row, (at, then, now) in enumerate(zip(case["position"], expected["rows"], answer["rows"], strict=True))
    )


predict(
    listed,
    "one-long",
    *((lambda case, begin=begin: filled(case, moved_span(begin, 1))) for begin in (0, 1)),
)
predict(listed, "window-plus-one", lambda case: filled(case, moved_span(-1, 0)))


def from_the_beginning(case: Case, row: int) -> tuple[int, int]:
    return 0, case["position"][row]


def cut_anyway(case: Case, first: int, last: int, logical: int) -> str:
    """Listed from the beginning on, with the partial pages of the window, and those full too."""
    window = 10**9 if case["window"] is None else case["window"]
    begin = max(0, last - window + 1)
    right = kinds_right(case, begin, last, logical) if logical >= begin // case["size"] else "f"
    cut = logical == begin // case["size"] and begin % case["size"] and logical < last // case["size"]
    return "pf" if cut else right


def cut_partial(case: Case, first: int, last: int, logical: int) -> str:
    kinds = cut_anyway(case, first, last, logical)
    return "p" if "p" in kinds else kinds


predict(
    listed,
    "no-window",
    lambda case: filled(case, from_the_beginning),
    lambda case: filled(case, from_the_beginning, cut_anyway),
    lambda case: filled(case, from_the_beginning, cut_partial),
)


@listed.predicts("from-column-0")
def _(case: Case) -> dict[str, Any]:
    right = filled(case)
    for row, found in enumerate(right["rows"]):
        if "full" in found:
            found["full"] = sorted(page_of(case, row, logical) for logical in range(len(found["full"])))
    return right


def first_always(case: Case, first: int, last: int, logical: int) -> str:
    return "p" if logical in (first // case["size"], last // case["size"]) else "f"


predict(
    listed,
    "always-cut",
    lambda case: filled(case, kinds=first_always),
    lambda case: filled(case, kinds=kinds_right if case["window"] is None else first_always),
)


def cut_as(kinds: str) -> Callable[[Case, int, int, int], str]:
    """The page where the window begins, if that is inside of it and not on the last page."""

    def told(case: Case, first: int, last: int, logical: int) -> str:
        if logical == last // case["size"]:
            return "p"
        return kinds if first > logical * case["size"] else "f"

    return told


predict(listed, "full-for-partial", lambda case: filled(case, kinds=cut_as("f")))
predict(listed, "loses-the-cut", lambda case: filled(case, kinds=cut_as("")))


def twice(only_cut: bool) -> Callable[[Case, int, int, int], str]:
    def told(case: Case, first: int, last: int, logical: int) -> str:
        both = first // case["size"] == last // case["size"]
        return (
            "pp"
            if both and (first > logical * case["size"] or not only_cut)
            else kinds_right(case, first, last, logical)
        )

    return told


predict(
    listed,
    "listed-twice",
    lambda case: filled(case, kinds=twice(only_cut=True)),
    lambda case: filled(case, kinds=twice(only_cut=case["window"] is None)),
    lambda case: filled(case, kinds=twice(only_cut=False)),
)


def last_as(kinds: str, only_complete: bool = False, only_whole: bool = False) -> Callable[[Case, int, int, int], str]:
    """The last page otherwise: always, if its last token is there, or if also none of it lies before the window."""

    def told(case: Case, first: int, last: int, logical: int) -> str:
        right = kinds_right(case, first, last, logical)
        is_complete = last % case["size"] == case["size"] - 1
        is_whole = is_complete and first <= logical * case["size"]
        if logical != last // case["size"] or (only_complete and not is_complete) or (only_whole and not is_whole):
            return right
        return kinds

    return told


predict(
    listed,
    "last-full",
    *((lambda case, k=kinds: filled(case, kinds=last_as(k))) for kinds in ("f", "pf")),
    *((lambda case, k=kinds: filled(case, kinds=last_as(k, only_complete=True))) for kinds in ("f", "pf")),
    *((lambda case, k=kinds: filled(case, kinds=last_as(k, only_whole=True))) for kinds in ("f", "pf")),
)


@listed.predicts("swapped")
def _(case: Case) -> dict[str, Any]:
    right = filled(case)
    rows = [{"partial": row["full"], "full": row["partial"]} if "full" in row else row for row in right["rows"]]
    return right | {"rows": rows}


predict(
    listed,
    "same-for-all",
    *(
        (lambda case, of=of: filled(case | {"position": [of(case["position"])] * len(case["position"])}))
        for of in (max, min, lambda positions: positions[0], lambda positions: positions[-1])
    ),
)


def runs_out(answer: Any) -> bool:
    return is_raised(answer) and any(text in answer["message"] for text in ("out of bounds", "out of range"))


@listed.shows("before-zero")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Only rows that are shorter than the window are wrong."""
    short = [
        slot == 0 or (case["window"] is not None and position + 1 < case["window"])
        for slot, position in zip(case["batch"], case["position"], strict=True)
    ]
    if is_raised(answer):
        return any(short) and runs_out(answer) and "index -" in answer["message"]
    pairs = zip(short, expected["rows"], answer["rows"], strict=True)
    return answer | {"rows": 0} == expected | {"rows": 0} and all(
        now == then or is_short for is_short, then, now in pairs
    )


@listed.shows("past-the-row")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return runs_out(answer) and case["window"] is not None and "index -" not in answer["message"]


@listed.shows("rebound-buffer")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and bool(answer["moved"])


@listed.shows("all-rows")
def _(case: Case, expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return False
    return answer["behind_n"] > 0 and answer | {"behind_n": 0} == expected


@listed.shows("whole-width")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return False
    return bool(answer["unused_columns"]) and answer | {"unused_columns": []} == expected


def next_case(earlier: Case, now: Case) -> Case:
    """A step, and one before it with the same mask: earlier slots, positions and table."""
    return {**now, "earlier": {name: earlier[name] for name in ("rows", "batch", "position")}}


def fills(rows: dict[str, list[int]], *steps: tuple[list[int], list[int]], window: int | None = None) -> Case:
    earlier, now = (fill_case(rows, batch, position, window) for batch, position in steps)
    return next_case(earlier, now)


NEXT = [
    fills({"1": [3, 5]}, ([1], [1]), ([1], [2])),
    fills({"1": [3, 5], "2": [4]}, ([1], [0]), ([2], [0])),
    fills({"1": [3, 5], "2": [4]}, ([1], [3]), ([2], [1])),
    next_case(fill_case({"1": [3, 5]}, [1], [2]), fill_case({"1": [6, 2]}, [1], [2])),
    fills({"1": [3, 5, 7]}, ([1], [4]), ([1], [5]), window=3),
    fills({"1": [3, 5, 7], "2": [4]}, ([1], [5]), ([2], [0]), window=3),
    fills({"1": [3, 5, 7], "3": [2, 8, 1, 6]}, ([1, 3], [5, 7]), ([3, 1], [6, 4])),
    fills({"2": [3, 5, 7], "3": [2, 8, 1, 6]}, ([2, 3, 0], [4, 7, 0]), ([3, 0, 0], [5, 0, 0]), window=5),
    fills({"2": [3, 5, 7], "3": [2, 8, 1, 6]}, ([3, 0], [1, 0]), ([2, 3], [5, 6]), window=4),
    fills({"2": [3, 5, 7], "4": [2, 8, 1, 6]}, ([4, 2], [3, 1]), ([4, 2], [7, 5])),
]


def say_next(case: Case) -> str:
    moved = case["rows"] != case["earlier"]["rows"]
    return f"{say_fill(case)}; the step before: {say_step(case['earlier'], table=moved)}"


@mask.check(cases=NEXT, describe=say_next, draw=lambda case, answer: "\n".join(draw_lists(case, answer["rows"])))
def again(case: Case) -> dict[str, Any]:
    return {"rows": filled(case)["rows"]}


def kept(case: Case, *fields: str) -> dict[str, Any]:
    """With some of what the first call read."""
    mixed = {**case, **{name: case["earlier"][name] for name in fields}}
    answer = filled(
        case,
        reads=lambda case, row: reads_right(mixed, row),
        page=lambda case, row, logical: page_of(mixed, row, logical),
    )
    return {"rows": answer["rows"]}


predict(
    again,
    "first-call-stays",
    lambda case: kept(case, "rows", "batch", "position"),
    lambda case: kept(case, "batch"),
    lambda case: kept(case, "position"),
    lambda case: kept(case, "rows"),
    lambda case: kept(case, "rows", "batch"),
)


@again.shows("stale-count")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    """Where a row has fewer pages than before, it lists more than it should, and only there."""

    def more(then: dict[str, Any], now: dict[str, Any]) -> bool:
        return then == now or all(set(now[kind]) >= set(then[kind]) for kind in ("partial", "full"))

    return not is_raised(answer) and all(map(more, expected["rows"], answer["rows"]))


def draw_replay(case: Case, answer: dict[str, Any]) -> str:
    lines = ["the graph can't be replayed"] if answer["rows"] is None else draw_lists(case, answer["rows"])
    return "\n".join([*lines, "to the host:", *(f"  {what}" for what in answer["host"] or ["nothing"])])


@mask.check(cases=NEXT, describe=lambda case: f"recorded once and replayed: {say_next(case)}", draw=draw_replay)
def replayed(case: Case) -> dict[str, Any]:
    return {"rows": filled(case)["rows"], "host": []}


@replayed.shows("baked-length")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and bool(answer["host"])


@mask.check(
    cases=[fill_case({}, [1], [0]), fill_case({}, [1, 2], [0, 0], 3)],
    describe=lambda case: (
        f"a table on a device that is not the CPU, window {case['window']}; fill({len(case['batch'])})"
    ),
)
def elsewhere(_case: Case) -> str:
    return "runs"


@elsewhere.shows("wrong-device")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer)


# ==================================================================================================== 7.4 compile_layers

layers = Exercise(
    "7.4",
    section="One layer, compiled once",
    hints=(
        "Follow one step through the model: which modules are called, and which of these calls are compiled, with which "
        "options?",
        "Compare the compiled calls with the modules that `decoder_layers` gives, and the modules of the model before and "
        "after.",
        "For each module that `decoder_layers` gives, call its own `compile` with fullgraph and dynamic as the docstring "
        "says, and change nothing else.",
    ),
    preload=PRELOAD,
)
layers.mistake(
    "whole-model",
    "How many layers does the compiler go through if you give it the model? All have the same code.",
    "The whole model is compiled as one, and would be unrolled layer by layer.",
    "Compile each decoder layer by itself, and not the model.",
)
layers.mistake(
    "attention-only",
    "`layers` lists attention layers. Are norms and MLP a part of them?",
    "Only attention is compiled; norms and MLP run one kernel after the other as before.",
    "Compile the blocks that hold the attention layers; `decoder_layers` finds them.",
)
layers.mistake(
    "first-only",
    "Who uses what the first layer made? Only a module that was told to be compiled.",
    "One layer is compiled and the others run as before.",
    "Ask it of every layer; the compiler itself sees that their code is the same.",
)
layers.mistake(
    "every-block",
    "Does each block of the model hold one of the attention layers that the probe found?",
    "Blocks or other modules are compiled that hold none of the layers given.",
    "Compile what `decoder_layers` gives, and nothing else.",
)
layers.mistake(
    "breaks-in-silence",
    "What happens at a place that the compiler can't follow: do you learn of it?",
    "A break in the graph would be no error.",
    "Pass fullgraph=True.",
)
layers.mistake(
    "dynamic-left-open",
    "After a second batch size the compiler makes sizes variable. Which kernel does FlexAttention take then?",
    "`dynamic` is not False, so that the batch size need not be a constant.",
    "Pass dynamic=False; leaving it out means that the compiler decides.",
)
layers.mistake(
    "module-replaced",
    "The engine and the probe hold references to the model's own modules. Are they still in the model?",
    "Another module stands in a layer's place, and the names of its weights have changed.",
    "Use the method `compile` of the module, which leaves the module where it is.",
)
layers.mistake(
    "result-lost",
    "Call the model after your function: is anything compiled?",
    "Nothing is: what came out of torch.compile was dropped, or compile was never called.",
    "Call the method `compile` of each layer; it changes what calling that module does.",
)
layers.mistake(
    "one-family",
    "Where are the decoder layers of a model whose blocks are called `transformer.h`?",
    "The path to the layers is written down, and fits one family of models.",
    "Let `decoder_layers` find them by the names in `layers`.",
)
layers.mistake(
    "forward-replaced",
    "`close` gives the model back as it was. Which attribute does `uncompile_layers` reset?",
    "It still runs compiled after `uncompile_layers`: `forward` was replaced on the module.",
    "Use the method `compile` of the module; that is what can be taken back.",
)


def model_case(path: str, attention: str, blocks: str) -> Case:
    return {"path": path, "attention": attention, "blocks": blocks}


MODELS = [
    model_case("model.layers", "self_attn", "a"),
    model_case("model.layers", "self_attn", "aa"),
    model_case("model.layers", "self_attn", "aaa"),
    model_case("transformer.h", "attn", "aa"),
    model_case("layers", "attention", "a"),
    model_case("model.layers", "self_attn", "am"),
    model_case("model.decoder.layers", "self_attn", "mama"),
]


def say_model(case: Case) -> str:
    blocks = [
        f"{i} {'with ' + case['attention'] if kind == 'a' else 'without attention'}"
        for i, kind in enumerate(case["blocks"])
    ]
    return f"a model whose blocks are {case['path']}: {'; '.join(blocks)}"


def draw_compiled(_case: Case, answer: dict[str, Any]) -> str:
    lines = [f"{one['module']}  fullgraph={one['fullgraph']}, dynamic={one['dynamic']}" for one in answer["called"]]
    place = "modules in their place" if answer["in_place"] else "modules replaced"
    return "\n".join(["compiled in a step:", *(lines or ["nothing"]), place])


def paths(case: Case, kinds: str = "a") -> list[str]:
    return [f"{case['path']}.{i}" for i, kind in enumerate(case["blocks"]) if kind in kinds]


def calls(modules: list[str], fullgraph: Any = True, dynamic: Any = False, in_place: bool = True) -> dict[str, Any]:
    called = [{"module": path, "fullgraph": fullgraph, "dynamic": dynamic} for path in modules]
    return {"called": called, "in_place": in_place}


@layers.check(cases=MODELS, describe=say_model, draw=draw_compiled)
def compiled(case: Case) -> dict[str, Any]:
    return calls(paths(case))


predict(compiled, "whole-model", lambda case: calls(["the model"]), lambda case: calls(["the model", *paths(case)]))
predict(compiled, "attention-only", lambda case: calls([f"{path}.{case['attention']}" for path in paths(case)]))
predict(compiled, "first-only", lambda case: calls(paths(case)[:1]), lambda case: calls(paths(case)[-1:]))


def modules_of(case: Case) -> list[str]:
    """Every module below the blocks' list, in the order in which they are called."""
    found = []
    for i, kind in enumerate(case["blocks"]):
        block = f"{case['path']}.{i}"
        attention = [f"{block}.{case['attention']}", f"{block}.{case['attention']}.proj"] if kind == "a" else []
        found += [block, *([f"{block}.norm", *attention] if kind == "a" else []), f"{block}.mlp"]
    return found


predict(
    compiled,
    "every-block",
    lambda case: calls(paths(case, "am")),
    lambda case: calls(["embed", *modules_of(case), "head"]),
    lambda case: calls(["the model", "embed", *modules_of(case), "head"]),
    lambda case: calls(["embed", *paths(case, "am"), "head"]),
)

predict(compiled, "breaks-in-silence", lambda case: calls(paths(case), fullgraph=False))
predict(compiled, "dynamic-left-open", *((lambda case, d=d: calls(paths(case), dynamic=d)) for d in (None, True)))
predict(compiled, "result-lost", lambda case: calls([]))


@compiled.shows("module-replaced")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and not answer["in_place"]


@compiled.shows("one-family")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    """Right where the blocks are at the usual path, an attribute that is not there elsewhere."""
    if not is_raised(answer) or answer["raised"][0] != "AttributeError":
        return False
    return any(f"'{kind}' object" in answer["message"] for kind in ("Model", "Module"))


@layers.check(
    cases=MODELS,
    describe=lambda case: f"{say_model(case)}; after uncompile_layers",
    draw=lambda _case, answer: f"compiled: {names(answer)}",
)
def taken_back(_case: Case) -> list[str]:
    return []


predict(taken_back, "forward-replaced", lambda case: paths(case))
predict(taken_back, "whole-model", lambda case: ["the model"])


@layers.check(
    cases=[model_case("model.layers", "self_attn", ""), model_case("model.layers", "self_attn", "m")],
    describe=lambda case: (
        f"no attention layers given; {say_model(case) if case['blocks'] else 'a model without blocks'}"
    ),
    draw=draw_compiled,
)
def no_layers(_case: Case) -> dict[str, Any]:
    return calls([])
