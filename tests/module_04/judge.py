"""What is right in module 04, how it is drawn, and what each common mistake would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from course.grading.checks import Exercise, is_raised, raises

Case = dict[str, Any]
ANY = "anything"  # a field that a mistake leaves open


def predict(check: Any, slug: str, *ways: Callable[[Case], Any]) -> None:
    """Several ways of making one mistake."""
    for way in ways:
        check.predicts(slug)(way)


def names(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def some(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def boxes(pages: Iterable[int]) -> str:
    return "[ " + " | ".join(map(str, pages)) + " ]"


# ==================================================================================================== 4.1 update

update = Exercise(
    "4.1",
    section="One update for prefill and decode",
    hints=(
        "Which of the two phases is the case: how many dimensions has `batch_idx`, and what must attention read then?",
        "Look at two things apart from each other: what lies in the pool afterwards, and what comes back.",
        "If `batch_idx` is [1, L], write the packed prompts and give back the keys and values that came; if it is [B], "
        "write one token a row and give back the whole pool.",
    ),
)
update.mistake(
    "pool-in-prefill",
    "In prefill the prompts read only themselves. Where do their keys already lie, side by side?",
    "In prefill the whole pool comes back, and attention would run over every page of it.",
    "In prefill give back k and v as they came.",
)
update.mistake(
    "fresh-in-decode",
    "The new token must read all that came before it. Is that in the k that was passed in?",
    "In decode only the new keys and values come back, so that each token sees nothing but itself.",
    "In decode give back the pool: `k_cache` and `v_cache`.",
)
update.mistake(
    "swapped",
    "Which of the two comes first in what is given back?",
    "Keys and values have changed places.",
    "Give back keys first, values second.",
)
update.mistake(
    "guesses-the-phase",
    "A prompt of one token, and a decode step with one row: what tells them apart?",
    "The phase is guessed from a number of rows or tokens, which can be 1 in both.",
    "Look at the dimensions of `batch_idx`: [1, L] in prefill, [B] in decode.",
)
update.mistake(
    "positions-as-they-are",
    "`assign` wants a position for each row and each token in it, [B, S]. What shape has `input_pos` in decode?",
    "The positions [B] are passed on as they came, and broadcast against the slots into B times B addresses.",
    "Give the positions a second dimension, of one token, before they go to `assign`.",
)
update.mistake(
    "not-stored",
    "After the call, what will the next step find in the pool?",
    "In at least one of the two phases nothing is written into the pool.",
    "Write in both phases before you give anything back.",
)
update.mistake(
    "skips-first",
    "The first token of a prompt is a token like any other. What lies at its address?",
    "The other tokens are in the pool and the first is not, or each lies one place too far: look at slices and positions.",
    "Write every token that was given, each at its own position.",
)
update.mistake(
    "view-no-permute",
    "In memory, k goes through batch row 0 with all its heads before row 1 begins. In which order does the pool want them?",
    "Heads and rows are mixed up: a view or reshape does not move an axis. It looks right with one row or one head.",
    "Let `assign` do it, or bring the heads in front of the rows (transpose, permute) before you flatten.",
)
update.mistake(
    "row-not-slot",
    "Batch row 0 is not slot 0. Whose pages are written?",
    "The table is asked with the number of the row; `batch_idx` has the slots.",
    "Pass the slots of `batch_idx` on as they are.",
)
update.mistake(
    "keys-only",
    "Attention needs keys and values. Is each of the two in its own pool?",
    "One of the pools is left as it was, or holds what belongs into the other.",
    "Write k into `k_cache` and v into `v_cache`.",
)


def packed(rows: dict[str, list[int]], batch: list[int], position: list[int], **more: int) -> Case:
    return update_case(rows, batch, position, packed=True, **more)


def decode(rows: dict[str, list[int]], batch: list[int], position: list[int], **more: int) -> Case:
    return update_case(rows, batch, position, packed=False, **more)


def update_case(rows: dict[str, list[int]], batch: list[int], position: list[int], **more: Any) -> Case:
    sizes = {"pages": 4, "size": 2, "columns": 3, "slots": 7, "heads": 2, "value_size": 2}
    return {**sizes, "rows": rows, "batch": batch, "position": position, **more}


UPDATES = [
    packed({"1": [3, 2]}, [1, 1, 1], [0, 1, 2]),
    decode({"2": [3], "1": [2, 4]}, [2, 1], [0, 3]),
    packed({"2": [4, 1], "1": [3]}, [2, 2, 2, 1, 1], [0, 1, 2, 0, 1]),
    packed({"3": [2]}, [3], [0]),
    decode({"3": [4, 2]}, [3], [2]),
    decode({"5": [2], "7": [1, 3], "1": [4]}, [5, 7, 1], [1, 2, 0]),
    packed({"2": [3], "1": [4]}, [2, 2, 1, 0, 0], [0, 1, 0, 0, 1], value_size=1),
    decode({"2": [3, 1]}, [2, 0], [2, 1], value_size=1),
    decode({"1": [3], "2": [2], "3": [1, 4]}, [3, 2, 1], [3, 1, 0], heads=3, value_size=3),
]


def say_update(case: Case) -> str:
    phase = "packed prefill" if case["packed"] else "decode"
    batch, position = ([case["batch"]], [case["position"]]) if case["packed"] else (case["batch"], case["position"])
    rows = "; ".join(f"slot {slot} has {boxes(row)}" for slot, row in case["rows"].items())
    return f"{phase}: batch_idx {batch}, input_pos {position}; pages of {case['size']} tokens; {rows}"


@update.check(cases=UPDATES, describe=say_update, draw=lambda _case, answer: "\n".join(answer))
def reads(case: Case) -> list[str]:
    return ["the new keys", "the new values"] if case["packed"] else ["the pool of keys", "the pool of values"]


NEW, POOL = ["the new keys", "the new values"], ["the pool of keys", "the pool of values"]
predict(reads, "pool-in-prefill", lambda case: POOL)
predict(reads, "fresh-in-decode", lambda case: NEW)
predict(reads, "swapped", lambda case: reads.expected(case)[::-1])


@reads.shows("guesses-the-phase")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Wrong only where there is a single token, and as in the other phase, or with shapes that do not fit together."""
    single = len(case["batch"]) == 1
    other = POOL if case["packed"] else NEW
    return single and (answer["raised"][0] in ("RuntimeError", "IndexError") if is_raised(answer) else answer == other)


@reads.predicts("positions-as-they-are")
def _(case: Case) -> Any:
    many = not case["packed"] and len(case["batch"]) > 1
    return raises("RuntimeError", "IndexError") if many else reads.expected(case)


def token_name(case: Case, index: int) -> str:
    """a3: position 3 of the first sequence; p: padding."""
    slot = case["batch"][index]
    order = [one for i, one in enumerate(case["batch"]) if one and one not in case["batch"][:i]]
    return f"{'abcdefgh'[order.index(slot)]}{case['position'][index]}" if slot else "p"


def place(case: Case, slot: int, position: int) -> tuple[int, int]:
    """(page, place in it)."""
    column, at = divmod(position, case["size"])
    row = case["rows"].get(str(slot), [])
    return (row[column] if column < len(row) else 0), at


Written = Callable[[Case, int, int], tuple[int, int, str] | None]
"""(case, index of the token, head) -> (page, place, what lies there); None: nothing."""


def write_right(case: Case, index: int, head: int) -> tuple[int, int, str] | None:
    return (*place(case, case["batch"][index], case["position"][index]), token_name(case, index))


def pools(case: Case, written: Written = write_right, values: Written | None = None) -> dict[str, Any]:
    """Both pools as names in [head][page][place]."""

    def pool(write: Written) -> list[list[list[str]]]:
        cells = [[["·"] * case["size"] for _ in range(case["pages"] + 1)] for _ in range(case["heads"])]
        for index, head in product(range(len(case["batch"])), range(case["heads"])):
            if (found := write(case, index, head)) is not None:
                page, at, name = found
                cells[head][page][at] = name
        return cells

    return {"keys": pool(written), "values": pool(values or written), "sink": ANY}


def same_pools(_case: Case, expected: Any, answer: Any) -> bool:
    """Equal outside of the sink's page."""
    if expected["sink"] not in (ANY, answer["sink"]):
        return False
    return all(
        [head[1:] for head in expected[kind]] == [head[1:] for head in answer[kind]] for kind in ("keys", "values")
    )


def draw_pools(case: Case, answer: Any) -> str:
    """The pools page by page: · is untouched, a3/1 is token a3 of head 1 in another head, k:a3 a key among the values."""

    def lines(kind: str) -> list[str]:
        wide = max(2, *(len(name) for head in answer[kind] for page in head for name in page))
        return [
            f"page {page}  " + " │ ".join(" ".join(f"{name:<{wide}}" for name in head[page]) for head in answer[kind])
            for page in range(1, case["pages"] + 1)
        ]

    keys, values = lines("keys"), lines("values")
    heads = f", {case['heads']} heads"
    if keys == values:
        return "\n".join([f"keys and values{heads}", *keys])
    return "\n".join([f"keys{heads}", *keys, "values", *values])


def say_stored(case: Case) -> str:
    return f"{say_update(case)} (a0: position 0 of the first sequence)"


@update.check(cases=UPDATES, describe=say_stored, draw=draw_pools, same=same_pools)
def stored(case: Case) -> dict[str, Any]:
    return pools(case)


def only(keep: Callable[[Case, int], bool]) -> Callable[[Case], Any]:
    return lambda case: pools(
        case, lambda case, index, head: write_right(case, index, head) if keep(case, index) else None
    )


def nothing(_case: Case, _index: int, _head: int) -> None:
    return None


def not_written(where: Callable[[Case], bool]) -> Callable[[Case], Any]:
    """Nothing at all is written in the phases for which where(case)."""
    return lambda case: pools(case, nothing) | {"sink": False} if where(case) else pools(case)


def named(kind: str) -> Written:
    def write(case: Case, index: int, head: int) -> tuple[int, int, str] | None:
        page, at = place(case, case["batch"][index], case["position"][index])
        return page, at, kind + token_name(case, index)

    return write


def shifted(case: Case, index: int, _head: int) -> tuple[int, int, str] | None:
    """Each token one position too far."""
    return (*place(case, case["batch"][index], case["position"][index] + 1), token_name(case, index))


def viewed(case: Case, index: int, head: int) -> tuple[int, int, str] | None:
    """In decode, memory [rows, heads] read as [heads, rows]."""
    page, at = place(case, case["batch"][index], case["position"][index])
    if case["packed"]:
        return page, at, token_name(case, index)
    from_row, from_head = divmod(head * len(case["batch"]) + index, case["heads"])
    name = token_name(case, from_row)
    return page, at, name if from_head == head else f"{name}/{from_head}"


def by_row(slot: Callable[[Case, int], int]) -> Written:
    def write(case: Case, index: int, head: int) -> tuple[int, int, str] | None:
        return (*place(case, slot(case, index), case["position"][index]), token_name(case, index))

    return write


predict(
    stored,
    "not-stored",
    not_written(lambda case: True),
    not_written(lambda case: case["packed"]),
    not_written(lambda case: not case["packed"]),
)
predict(
    stored,
    "skips-first",
    only(lambda case, index: not (case["packed"] and index == 0)),
    only(lambda case, index: index > 0),
    only(lambda case, index: case["position"][index] > 0),
    only(lambda case, index: not case["packed"] or case["position"][index] > 0),
    lambda case: pools(case, shifted),
    lambda case: pools(case, shifted if case["packed"] else write_right),
)
predict(stored, "view-no-permute", lambda case: pools(case, viewed))
predict(
    stored,
    "row-not-slot",
    lambda case: pools(case, write_right if case["packed"] else by_row(lambda case, index: index)) | {"sink": ANY},
    lambda case: pools(case, write_right if case["packed"] else by_row(lambda case, index: index + 1)),
    lambda case: pools(case, by_row(lambda case, index: 0 if case["packed"] else index)) | {"sink": True},
    lambda case: pools(case, by_row(lambda case, index: case["batch"][0]) if case["packed"] else write_right),
)
predict(
    stored,
    "keys-only",
    lambda case: pools(case, write_right, nothing),
    lambda case: pools(case, nothing, write_right),
    lambda case: pools(case, write_right, named("k:")),
    lambda case: pools(case, named("v:"), write_right),
    lambda case: pools(case, named("v:"), named("k:")),
    *(
        (lambda case, packed=packed: pools(case, write_right, nothing) if case["packed"] == packed else pools(case))
        for packed in (True, False)
    ),
)

# ==================================================================================================== 4.2 bytes per token

per_token = Exercise(
    "4.2",
    section="What one token costs",
    hints=(
        "Take one layer and one token: which vectors are stored, how many of them, how long is each?",
        "Compare with the sum for each layer by hand: heads times (key + value) numbers, times the bytes of a number.",
        "For each layer, add the size of a key and that of a value, times the heads of keys; sum over the layers; multiply "
        "by the bytes of one number.",
    ),
)
per_token.mistake(
    "query-heads",
    "Which heads are stored: those of the queries, or those of keys and values?",
    "The bytes are counted for the heads of queries. With grouped queries several of them share one key.",
    "Count the layer's `kv_heads`.",
)
per_token.mistake(
    "derived-head-dim",
    "Must a head be as long as the hidden size divided by the heads?",
    "The size of a key is derived from the hidden size; many models choose it freely.",
    "Use the layer's own `head_dim` and `value_head_dim`.",
)
per_token.mistake(
    "keys-only",
    "A token leaves two things in each layer. Which one is counted?",
    "Either keys or values are missing in the sum.",
    "Add the size of a key and the size of a value.",
)
per_token.mistake(
    "key-size-twice",
    "Is a value as long as a key in every model?",
    "One of the two sizes is counted twice, instead of each once.",
    "Add `head_dim` and `value_head_dim`.",
)
per_token.mistake(
    "one-layer",
    "Does every layer have as many heads as the first one?",
    "Only one of the layers is looked at, or it stands for all.",
    "Sum over the layers, each with its own sizes.",
)
per_token.mistake(
    "numbers-not-bytes",
    "How many bytes has one number of this dtype?",
    "What is counted are numbers, or bytes of another dtype.",
    "Multiply by `dtype.itemsize`.",
)
per_token.mistake(
    "needs-a-list",
    "An iterable can be gone through, once. What else does your code do with it?",
    "The layers are asked for their number, for one by its index, or a second time: a generator can do none of these.",
    "Go through the layers once, with a single loop.",
)


def layer(q: int, kv: int, k: int, v: int | None = None, window: int | None = None) -> dict[str, int | None]:
    return {"q": q, "kv": kv, "k": k, "v": k if v is None else v, "window": window}


def byte_cases() -> list[Case]:
    def case(layers: list[dict[str, int | None]], dtype: str = "float32", hidden: int = 24) -> Case:
        return {"layers": layers, "dtype": dtype, "hidden": hidden}

    return [
        case([layer(1, 1, 2)]),
        case([layer(2, 2, 4)], "bfloat16"),
        case([layer(4, 2, 3)]),
        case([layer(4, 1, 8)] * 2, "float16"),
        case([layer(2, 2, 4, 6)]),
        case([layer(6, 3, 2), layer(4, 4, 3, 1), layer(2, 1, 5)], "bfloat16"),
        case([layer(6, 2, 4, 8), layer(4, 4, 3, 1)], "float64", hidden=48),
        case([layer(16, 8, 128)] * 3, "bfloat16", hidden=1024),
        case([layer(32, 8, 128)] * 32, "bfloat16", hidden=4096),
        case([layer(8, 2, 16)] * 4, "int8", hidden=64),
    ]


def say_layers(case: Case) -> str:
    groups: list[tuple[int, str]] = []
    for one in case["layers"]:
        heads = f"{some(one['kv'], 'head')} of keys for {one['q']} of queries"
        text = f"{heads}, key {one['k']}, value {one['v']}"
        if groups and groups[-1][1] == text:
            groups[-1] = (groups[-1][0] + 1, text)
        else:
            groups.append((1, text))
    layers = "; ".join(f"{some(n, 'layer')}: {text}" for n, text in groups)
    return f"{case['dtype']}; {layers}; hidden size {case['hidden']}"


BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def counted(
    case: Case,
    heads: Callable[[Case, dict[str, int]], float] = lambda case, one: one["kv"],
    sizes: Callable[[Case, dict[str, int]], float] = lambda case, one: one["k"] + one["v"],
    layers: Callable[[Case], list[dict[str, int]]] = lambda case: case["layers"],
    number: Callable[[Case], int] = lambda case: BYTES[case["dtype"]],
) -> int:
    total = 0.0
    for one in layers(case):
        total += heads(case, one) * sizes(case, one)
    return int(total * number(case))


def draw_bytes(_case: Case, answer: int) -> str:
    return some(answer, "byte")


@per_token.check(cases=byte_cases, describe=say_layers, draw=draw_bytes)
def bytes_per_token(case: Case) -> int:
    return counted(case)


@per_token.check(
    cases=lambda: byte_cases()[:7], describe=lambda case: f"from a generator; {say_layers(case)}", draw=draw_bytes
)
def any_iterable(case: Case) -> int:
    return counted(case)


predict(
    bytes_per_token,
    "query-heads",
    lambda case: counted(case, heads=lambda case, one: one["q"]),
    lambda case: counted(
        case, heads=lambda case, one: 1, sizes=lambda case, one: one["q"] * one["k"] + one["kv"] * one["v"]
    ),
    lambda case: counted(
        case, heads=lambda case, one: 1, sizes=lambda case, one: one["kv"] * one["k"] + one["q"] * one["v"]
    ),
    lambda case: counted(case, heads=lambda case, one: one["q"], sizes=lambda case, one: 2 * one["k"]),
)
predict(
    bytes_per_token,
    "derived-head-dim",
    *(
        (lambda case, count=count, sizes=sizes: counted(case, heads=count, sizes=sizes))
        for count, sizes in product(
            (lambda case, one: one["kv"], lambda case, one: one["q"]),
            (
                lambda case, one: 2 * (case["hidden"] // one["q"]),
                lambda case, one: case["hidden"] // one["q"] + one["v"],
                lambda case, one: 2 * (case["hidden"] // one["kv"]),
            ),
        )
    ),
)
predict(
    bytes_per_token,
    "keys-only",
    lambda case: counted(case, sizes=lambda case, one: one["k"]),
    lambda case: counted(case, sizes=lambda case, one: one["v"]),
)
predict(
    bytes_per_token,
    "key-size-twice",
    lambda case: counted(case, sizes=lambda case, one: 2 * one["k"]),
    lambda case: counted(case, sizes=lambda case, one: 2 * one["v"]),
)
predict(
    bytes_per_token,
    "one-layer",
    lambda case: counted(case, layers=lambda case: case["layers"][:1]),
    lambda case: counted(case, layers=lambda case: case["layers"][-1:]),
    lambda case: counted(case, layers=lambda case: case["layers"][:1] * len(case["layers"])),
    lambda case: counted(case, layers=lambda case: case["layers"][-1:] * len(case["layers"])),
)
predict(
    bytes_per_token,
    "numbers-not-bytes",
    *((lambda case, size=size: counted(case, number=lambda case: size)) for size in (1, 2, 4)),
    lambda case: counted(case, number=lambda case: 8 * BYTES[case["dtype"]]),
)


@any_iterable.shows("needs-a-list")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    """Refused by the generator, or what was left of it is nothing."""
    if is_raised(answer):
        return answer["raised"][0] in ("TypeError", "IndexError", "ValueError") and bool(answer["where"])
    return True


# ==================================================================================================== 4.3 pages for a budget

budget = Exercise(
    "4.3",
    section="As many pages as fit",
    hints=(
        "How many bytes does one page take, and how many pages does the pool really have?",
        "Put the case into three numbers: what fits, less the sink, and what all sequences together can ever hold.",
        "Divide the free bytes by those of a page, rounding down, and take off the sink; refuse if nothing is left; then do "
        "not go above the number of sequences times the pages of the longest.",
    ),
)
budget.mistake(
    "forgets-the-sink",
    "The pool has one page more than sequences can use. Who pays for it?",
    "The pages that fit are counted without the sink, so that the pool is one page larger than the memory.",
    "Take one page off what fits.",
)
budget.mistake(
    "sink-under-the-cap",
    "All sequences at full length need a certain number of pages. Is the sink one of them?",
    "The sink is counted in what sequences can hold, on one side or the other: the number is off by one there.",
    "Take the sink off what fits into memory, before you compare.",
)
budget.mistake(
    "no-cap",
    "There is memory for far more tokens than all sequences together can ever hold. What is the rest good for?",
    "Only the memory limits the pool; `max_batch_size` and `max_seq_length` do not come in.",
    "Take the smaller of what fits and what all sequences can hold at most.",
)
budget.mistake(
    "rounds-the-cap",
    "A sequence of 65 tokens with pages of 16: how many pages, and how many do eight such sequences need?",
    "The last, half-filled page of each sequence is lost: pages are not shared, so each sequence rounds up on its own.",
    "Round the pages of one sequence up, then multiply by the number of sequences.",
)
budget.mistake(
    "tokens-not-pages",
    "The result is a number of what?",
    "Tokens and pages are mixed: somewhere `page_size` is missing.",
    "Count in pages throughout: bytes of a page, pages of a sequence.",
)
budget.mistake(
    "no-error",
    "Not even one page fits next to the sink. What should the caller do with the number that came back?",
    "Where less than one usable page is left, the docstring promises a MemoryError.",
    "Raise MemoryError if the pages that fit, the sink taken off, are fewer than 1.",
)
budget.mistake(
    "another-error",
    "Which class of error does the docstring promise to whoever has too little memory?",
    "It is refused, but with an error of another class, which the caller does not expect.",
    "Raise MemoryError.",
)
budget.mistake(
    "plus-one-page",
    "Pages of 16 tokens: how many does a sequence of 64 need, and one of 65?",
    "One page too many for each sequence where its tokens are a multiple of `page_size`.",
    "Round up so that a multiple of `page_size` stays what it is.",
)
budget.mistake(
    "refuses-the-last",
    "One page and the sink fit exactly. Is that too little?",
    "A single usable page is refused, though the docstring allows it.",
    "Refuse only if fewer than one usable page fits.",
)
budget.mistake(
    "total-not-free",
    "The machine has a lot of memory. How much of it may the pool take, and who says so?",
    "The memory is asked for again, or reckoned from a total: what others use is then counted as free.",
    "Use `free_bytes` and nothing else; the caller has already taken off what is not free.",
)


def budgets(*cases: tuple[int, int, int, int, int]) -> list[Case]:
    return [dict(zip(("free", "token", "size", "slots", "longest"), case, strict=True)) for case in cases]


ENOUGH = budgets(
    (5_000, 100, 10, 8, 40),
    (10_000, 100, 16, 8, 64),
    (3_200, 100, 16, 8, 64),
    (9_999, 10, 4, 50, 20),
    (4_800, 100, 16, 2, 16),
    (6_400, 100, 16, 2, 16),
    (8_000, 100, 16, 2, 16),
    (10**9, 100, 16, 8, 64),
    (10**9, 100, 16, 8, 65),
    (10**9, 1, 4, 3, 5),
    (10**9, 7, 8, 1, 1),
    (10**12, 131_072, 16, 16, 256),
    (10**8, 131_072, 16, 16, 256),
    (23, 1, 1, 9, 30),
)
TOO_LITTLE = budgets(
    (1_600, 100, 16, 8, 64), (3_199, 100, 16, 8, 64), (1_599, 100, 16, 8, 64), (0, 100, 16, 8, 64), (1, 1, 1, 1, 1)
)


def say_budget(case: Case) -> str:
    return (
        f"{case['free']:,} bytes free, {case['token']:,} a token, pages of {some(case['size'], 'token')}; "
        f"up to {some(case['slots'], 'sequence')} of {case['longest']:,} tokens"
    )


def fits(case: Case) -> int:
    return case["free"] // (case["token"] * case["size"])


def cap(case: Case) -> int:
    return case["slots"] * math.ceil(case["longest"] / case["size"])


def draw_pages(_case: Case, answer: int) -> str:
    return some(answer, "page")


@budget.check(cases=ENOUGH, describe=say_budget, draw=draw_pages)
def pages(case: Case) -> int:
    return min(fits(case) - 1, cap(case))


@budget.check(cases=TOO_LITTLE, describe=say_budget, draw=draw_pages)
def too_little(_case: Case) -> Any:
    return raises("MemoryError")


predict(pages, "forgets-the-sink", lambda case: min(fits(case), cap(case)))
predict(
    pages,
    "sink-under-the-cap",
    lambda case: min(fits(case), cap(case)) - 1,
    lambda case: min(fits(case) - 1, cap(case) - 1),
    lambda case: min(fits(case) - 1, cap(case) + 1),
)
predict(pages, "no-cap", lambda case: fits(case) - 1)
predict(
    pages,
    "rounds-the-cap",
    lambda case: min(fits(case) - 1, math.ceil(case["slots"] * case["longest"] / case["size"])),
    lambda case: min(fits(case) - 1, case["slots"] * case["longest"] // case["size"]),
    lambda case: min(fits(case) - 1, case["slots"] * (case["longest"] // case["size"])),
    lambda case: max(1, min(fits(case) - 1, case["slots"] * (case["longest"] // case["size"]))),
)
predict(
    pages,
    "plus-one-page",
    lambda case: min(fits(case) - 1, case["slots"] * (case["longest"] // case["size"] + 1)),
    lambda case: min(fits(case) - 1, case["slots"] * case["longest"] // case["size"] + 1),
)
predict(
    pages,
    "tokens-not-pages",
    lambda case: min(fits(case) - 1, case["slots"] * case["longest"]),
    lambda case: min(case["free"] // case["token"] - 1, cap(case)),
    lambda case: min(case["free"] // case["token"] - case["size"], cap(case)),
    lambda case: min(case["free"] // case["token"] - case["size"], case["slots"] * case["longest"]),
    lambda case: min(case["free"] // case["token"] - 1, case["slots"] * case["longest"]),
)
predict(pages, "total-not-free", cap)
predict(
    pages,
    "refuses-the-last",
    lambda case: raises("MemoryError") if fits(case) - 1 <= 1 else pages.expected(case),
)


@too_little.shows("no-error")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer)


@too_little.shows("another-error")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    """Raised on purpose."""
    return is_raised(answer) and any(word in answer["where"] for word in ("raise ", "assert "))


# ==================================================================================================== 4.4 attach_caches

attach = Exercise(
    "4.4",
    section="A cache for every layer",
    hints=(
        "For each layer: which cache does its module have afterwards, and with which sizes and table was that one made?",
        "Compare the layers one by one with what the probe said about them, and the returned list with the modules.",
        "Go through the layers once. For each, make one cache from its own fields and from the table of its window, put it "
        "on the module, and append it to the list.",
    ),
)
attach.mistake(
    "late-closure",
    "Layer 0 wrote its own keys. Whose does it read?",
    "Every module got the cache of the last layer: a loop variable is looked up when it is used, not before.",
    "Put each cache on its module in the same round of the loop in which it is made.",
)
attach.mistake(
    "one-cache",
    "Layers keep different keys for the same token. How many caches are there?",
    "Several layers share one cache, and overwrite each other's keys.",
    "Make a new cache for each layer, inside the loop.",
)
attach.mistake(
    "not-attached",
    "Where will a layer's attention look for its cache?",
    "The caches are made and given back, but the modules do not have them.",
    "Set `kv_cache` on the layer's module.",
)
attach.mistake(
    "query-heads",
    "Which heads are stored: those of the queries, or those of keys and values?",
    "The cache is made for the heads of queries.",
    "Use the layer's `kv_heads`.",
)
attach.mistake(
    "derived-head-dim",
    "Must a head be as long as the hidden size divided by the heads?",
    "The size of a key is derived from the configuration instead of taken from the probe.",
    "Use the layer's own `head_dim` and `value_head_dim`.",
)
attach.mistake(
    "key-size-for-values",
    "Is a value as long as a key in every model?",
    "The pool of values, or of keys, has the size of the other one.",
    "Pass `head_dim` and `value_head_dim`, in this order.",
)
attach.mistake(
    "one-table",
    "Layers with a window keep other pages than layers that read everything. Whose table does each cache ask?",
    "The table does not depend on the layer's window.",
    "Look up the table by the layer's `window`.",
)
attach.mistake(
    "no-window",
    "How does attention know how far back this layer may read?",
    "The cache's window is not the layer's.",
    "Pass the layer's `window` on.",
)
attach.mistake(
    "default-dtype",
    "Which dtype was asked for, and which has the pool?",
    "The pools have a dtype of their own instead of the one that was passed in.",
    "Pass `dtype` on.",
)
attach.mistake(
    "default-device",
    "On which device is the table that the cache goes with?",
    "The pools are made on a fixed device.",
    "Make the cache on the device of its table's `page_table`.",
)
attach.mistake(
    "other-order",
    "The caches must come in the order of the layers. Which layer does the second one belong to?",
    "The list is grouped or sorted in another way than the layers are.",
    "Append each cache as its layer comes.",
)
attach.mistake(
    "used-up",
    "A generator can be gone through once. What is left of it for a second loop?",
    "The layers are gone through more than once, or asked for their number.",
    "Do everything for a layer in one round of one loop, or make a list first.",
)
attach.mistake(
    "dirty-pool",
    "A masked key has weight 0. What is 0 times NaN?",
    "The pools hold memory that nobody set. Masked is not unread, and whatever lies there is multiplied.",
    "Leave the pools as the cache makes them, all zero, or set them to zero yourself.",
)


def attach_case(*layers: dict[str, int | None], dtype: str = "float32", device: str = "cpu", **more: Any) -> Case:
    return {"layers": list(layers), "dtype": dtype, "device": device, "hidden": 24, **more}


def say_attach(case: Case) -> str:
    windows = [one["window"] for one in case["layers"]]
    return f"{some(len(windows), 'layer')} with window {names(windows)}"


def draw_own(_case: Case, answer: dict[str, Any]) -> str:
    lines = [f"layer {i} wrote {i + 1}, reads {read}" for i, read in enumerate(answer["read"])]
    return "\n".join([*lines, f"{some(answer['returned'], 'cache')} returned"])


OWN = [
    attach_case(layer(1, 1, 2)),
    attach_case(layer(2, 1, 2), layer(2, 1, 2)),
    attach_case(layer(2, 1, 2), layer(2, 1, 2, window=4), layer(2, 1, 2)),
    attach_case(layer(2, 1, 2, window=4), layer(2, 1, 2), layer(2, 1, 2, window=4), layer(4, 2, 3)),
]


def same_own(_case: Case, expected: Any, answer: Any) -> bool:
    return all(value == ANY or value == answer[name] for name, value in expected.items())


@attach.check(
    cases=OWN,
    describe=lambda case: f"{say_attach(case)}; each writes its number into its cache, then all read",
    draw=draw_own,
    same=same_own,
)
def own_caches(case: Case) -> dict[str, Any]:
    n = len(case["layers"])
    return {"read": list(range(1, n + 1)), "returned": n, "different": n}


def last_of(case: Case, same: Callable[[dict[str, Any], dict[str, Any]], bool]) -> list[int]:
    """For each layer, the number of the last layer that is the same."""
    layers = case["layers"]
    return [max(j + 1 for j, other in enumerate(layers) if same(one, other)) for one in layers]


def shared(same: Callable[[dict[str, Any], dict[str, Any]], bool], returned: bool = True) -> Callable[[Case], Any]:
    """Layers that are the same share one cache."""

    def answer(case: Case) -> dict[str, Any]:
        read = last_of(case, same)
        return {
            "read": read,
            "returned": len(read) if returned else len(set(read)),
            "different": len(set(read)),
        }

    return answer


@own_caches.predicts("late-closure")
def _(case: Case) -> dict[str, Any]:
    n = len(case["layers"])
    return {"read": [n] * n, "returned": n, "different": n}


def always(_one: dict[str, Any], _other: dict[str, Any]) -> bool:
    return True


def same_window(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["window"] == other["window"])


def same_sizes(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one == other


predict(
    own_caches,
    "one-cache",
    *(shared(same, returned) for same in (always, same_window, same_sizes) for returned in (True, False)),
)


@own_caches.shows("not-attached")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and answer["raised"][0] == "NotUsable" and "has no kv_cache" in answer["message"]


def draw_order(_case: Case, answer: list[int | None]) -> str:
    return "\n".join(
        f"layer {i}  has cache {'?' if cache is None else cache} of the list" for i, cache in enumerate(answer)
    )


@attach.check(cases=OWN, describe=say_attach, draw=draw_order)
def in_order(case: Case) -> list[int | None]:
    return list(range(len(case["layers"])))


@in_order.shows("other-order")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return sorted(answer) == list(range(len(case["layers"])))


SIZES = [
    attach_case(layer(2, 2, 4)),
    attach_case(layer(4, 2, 3)),
    attach_case(layer(4, 2, 3, 5)),
    attach_case(layer(4, 2, 3), layer(4, 2, 3, window=4)),
    attach_case(layer(4, 2, 3), dtype="bfloat16"),
    attach_case(layer(4, 2, 3, window=8), layer(6, 1, 2, 4, window=16), layer(8, 4, 1), dtype="float16"),
    attach_case(layer(4, 2, 3), dtype="float16", device="meta"),
]


def draw_sizes(_case: Case, answer: list[dict[str, Any]]) -> str:
    lines = []
    for i, one in enumerate(answer):
        lines.append(f"layer {i}  {some(one['heads'], 'head')}, key {one['key']}, value {one['value']}")
        lines.append(f"         {one['dtype']} on {one['device']}")
        lines.append(f"         window {one['window']}, table for {one['table']}")
    return "\n".join(lines)


def say_sizes(case: Case) -> str:
    texts = [
        f"{some(one['kv'], 'head')} of keys for {one['q']} of queries, key {one['k']}, value {one['v']}, "
        f"window {one['window']}"
        for one in case["layers"]
    ]
    return f"{case['dtype']}, tables on {case['device']}; " + "; ".join(texts)


def made(case: Case, **other: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """What the caches are like, with some fields otherwise."""
    fields: dict[str, Callable[[dict[str, Any]], Any]] = {
        "heads": lambda one: one["kv"],
        "key": lambda one: one["k"],
        "value": lambda one: one["v"],
        "window": lambda one: one["window"],
        "table": lambda one: one["window"],
        "dtype": lambda one: case["dtype"],
        "device": lambda one: case["device"],
    }
    return [{name: field(one) for name, field in (fields | other).items()} for one in case["layers"]]


@attach.check(cases=SIZES, describe=say_sizes, draw=draw_sizes)
def sizes(case: Case) -> list[dict[str, Any]]:
    return made(case)


def derived(case: Case) -> Callable[[dict[str, Any]], Any]:
    return lambda one: case["hidden"] // one["q"]


predict(sizes, "query-heads", lambda case: made(case, heads=lambda one: one["q"]))
predict(
    sizes,
    "derived-head-dim",
    lambda case: made(case, key=derived(case), value=derived(case)),
    lambda case: made(case, key=derived(case)),
    lambda case: made(case, heads=lambda one: one["q"], key=derived(case), value=derived(case)),
)
predict(
    sizes,
    "key-size-for-values",
    lambda case: made(case, value=lambda one: one["k"]),
    lambda case: made(case, key=lambda one: one["v"]),
    lambda case: made(case, key=lambda one: one["v"], value=lambda one: one["k"]),
)
predict(sizes, "no-window", lambda case: made(case, window=lambda one: None))
predict(
    sizes,
    "default-dtype",
    *((lambda case, dtype=dtype: made(case, dtype=lambda one: dtype)) for dtype in ("float32", "bfloat16", "float16")),
)
predict(sizes, "default-device", lambda case: made(case, device=lambda one: "cpu"))


@sizes.shows("one-table")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """Only the table is another one, or there is none for the window that is always asked for."""
    if is_raised(answer):
        return answer["raised"][0] == "KeyError"
    return all(one | {"table": None} == other | {"table": None} for one, other in zip(expected, answer, strict=True))


@attach.check(
    cases=[{**case, "once": True} for case in OWN],
    describe=lambda case: f"from a generator: {say_attach(case)}",
    draw=draw_own,
    same=same_own,
)
def from_an_iterator(case: Case) -> dict[str, Any]:
    return own_caches.expected(case)


@from_an_iterator.shows("used-up")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return answer["raised"][0] in ("TypeError", "NotUsable", "IndexError", "ValueError")
    return True


@attach.check(
    cases=OWN,
    describe=lambda case: f"{say_attach(case)}; the pools before anything is written",
    draw=lambda _case, answer: "\n".join(f"layer {i}  {what}" for i, what in enumerate(answer)),
)
def at_birth(case: Case) -> list[str]:
    return ["zeros"] * len(case["layers"])


@at_birth.shows("dirty-pool")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return "NaN" in answer


# ==================================================================================================== 4.5 roofline

roofline = Exercise(
    "4.5",
    section="The least time a step can take",
    hints=(
        "Which two things does a step have to do, and how long does each take on its own?",
        "Put the case into three numbers: bytes of the weights, bytes of the cache, operations. Which of them grows with the "
        "new tokens, and which with the cached ones?",
        "Bytes of the weights and of the cache by what is read a second; two operations for each weight and new token by "
        "what is computed a second; the longer of the two.",
    ),
)
roofline.mistake(
    "adds-them",
    "Memory delivers the next weights while the last ones are multiplied. Does a step then take both times?",
    "Reading and computing are put one after the other.",
    "Take the longer of the two times.",
)
roofline.mistake(
    "the-shorter",
    "A step is over when both are done. Which of the two times is that?",
    "The shorter of the two times comes back.",
    "A step ends when the slower of reading and computing ends: give back that time.",
)
roofline.mistake(
    "one-operation",
    "A weight is multiplied, and the product is added to a sum. How many operations is that?",
    "The operations are off by a factor of two.",
    "Count two operations for each weight and new token.",
)
roofline.mistake(
    "weights-for-each-token",
    "A batch of sixteen sequences: how often does a step have to read the weights from memory?",
    "The weights are read again for each new token. Then batching would never pay.",
    "Count the bytes of the weights once a step.",
)
roofline.mistake(
    "cache-for-each-token",
    "`cached_tokens` is of all sequences together. Does each of the new tokens read all of them?",
    "The cache is counted once for each new token, though every cached token belongs to one sequence only.",
    "Count each cached token once.",
)
roofline.mistake(
    "no-cache",
    "A hundred long conversations decode one token each. What is read besides the weights?",
    "Only the weights are read; keys and values are missing.",
    "Add the bytes of the cached tokens to those of the weights.",
)
roofline.mistake(
    "weights-not-bytes",
    "How many bytes is a weight?",
    "The weights are counted, not their bytes.",
    "Multiply the number of weights by the bytes of each where they are read.",
)
roofline.mistake(
    "bytes-computed",
    "Does the number of operations depend on how many bytes a weight takes?",
    "`bytes_per_weight` has come into the operations.",
    "Operations count weights; only reading counts bytes.",
)
roofline.mistake(
    "cached-are-computed",
    "What does the cache keep a step from doing again?",
    "The cached tokens go through the weights again, as if there were no cache.",
    "Only the new tokens are multiplied with the weights.",
)
roofline.mistake(
    "one-token",
    "Sixteen sequences decode one token each. How many tokens are multiplied with the weights?",
    "The number of new tokens is missing from the operations.",
    "Multiply by the new tokens.",
)


def steps(*cases: tuple[int, int, int, int, int, int, int]) -> list[Case]:
    names = ("reads", "computes", "weights", "bytes", "new", "cached", "kv")
    return [dict(zip(names, case, strict=True)) for case in cases]


STEPS = steps(
    (100, 1000, 50, 2, 1, 0, 10),
    (100, 1000, 50, 2, 30, 0, 10),
    (100, 1000, 50, 4, 1, 7, 10),
    (100, 1000, 50, 2, 3, 15, 10),
    (100, 1000, 50, 4, 20, 5, 10),
    (100, 100, 50, 2, 4, 30, 10),
    (100, 100, 50, 1, 2, 30, 10),
    (100, 300, 30, 2, 7, 20, 8),
    (3_070_000_000_000, 755_000_000_000_000, 2_614_341_888, 2, 256, 131_072, 106_496),
    (3_070_000_000_000, 755_000_000_000_000, 2_614_341_888, 2, 8_192, 0, 106_496),
    (12_000_000_000, 80_000_000_000, 134_515_008, 4, 16, 4_096, 46_080),
)


def say_step(case: Case) -> str:
    return (
        f"reads {case['reads']:,} bytes/s, computes {case['computes']:,} operations/s; {case['weights']:,} weights of "
        f"{some(case['bytes'], 'byte')}; {some(case['new'], 'new token')}, {some(case['cached'], 'cached token')} of "
        f"{some(case['kv'], 'byte')}"
    )


def least(
    case: Case, read: Callable[[Case], int] | None = None, computed: Callable[[Case], int] | None = None, of: Any = max
) -> float:
    """The time, with what is read or computed replaced."""
    n_bytes = case["weights"] * case["bytes"] + case["cached"] * case["kv"] if read is None else read(case)
    operations = 2 * case["weights"] * case["new"] if computed is None else computed(case)
    return float(of((n_bytes / case["reads"], operations / case["computes"])))


@roofline.check(
    cases=STEPS,
    describe=say_step,
    draw=lambda _case, answer: f"{answer:.6g} s",
    same=lambda _case, expected, answer: math.isclose(expected, answer, rel_tol=1e-6),
)
def seconds(case: Case) -> float:
    return least(case)


predict(seconds, "adds-them", lambda case: least(case, of=sum))
predict(seconds, "the-shorter", lambda case: least(case, of=min))
predict(
    seconds,
    "one-operation",
    lambda case: least(case, computed=lambda case: case["weights"] * case["new"]),
    lambda case: least(case, computed=lambda case: 4 * case["weights"] * case["new"]),
)
predict(
    seconds,
    "weights-for-each-token",
    lambda case: least(
        case, read=lambda case: case["new"] * case["weights"] * case["bytes"] + case["cached"] * case["kv"]
    ),
)
predict(
    seconds,
    "cache-for-each-token",
    lambda case: least(
        case, read=lambda case: case["weights"] * case["bytes"] + case["new"] * case["cached"] * case["kv"]
    ),
    lambda case: least(
        case, read=lambda case: case["new"] * (case["weights"] * case["bytes"] + case["cached"] * case["kv"])
    ),
)
predict(seconds, "no-cache", lambda case: least(case, read=lambda case: case["weights"] * case["bytes"]))
predict(
    seconds,
    "weights-not-bytes",
    *(
        (lambda case, n=n: least(case, read=lambda case: n * case["weights"] + case["cached"] * case["kv"]))
        for n in (1, 2)
    ),
)
predict(
    seconds,
    "bytes-computed",
    lambda case: least(case, computed=lambda case: 2 * case["weights"] * case["bytes"] * case["new"]),
    lambda case: least(case, computed=lambda case: case["weights"] * case["bytes"] * case["new"]),
)
predict(
    seconds,
    "cached-are-computed",
    lambda case: least(case, computed=lambda case: 2 * case["weights"] * (case["new"] + case["cached"])),
    lambda case: least(case, computed=lambda case: 2 * case["weights"] * case["cached"]),
)
predict(seconds, "one-token", lambda case: least(case, computed=lambda case: 2 * case["weights"]))
