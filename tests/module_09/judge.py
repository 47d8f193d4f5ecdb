"""What is right in module 09, how it is drawn, and what each common mistake would give.

The functions are judged by lists and loops; what an engine must say comes from transformers' own model with a dense mask,
which knows no pages, no cache and no step.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Check, Exercise, is_raised, raises

Case = dict[str, Any]
PRELOAD = ("torch.nn.attention.flex_attention", "transformers", "torch._dynamo._trace_wrapped_higher_order_op")
"""What the drive and the engine need; imported once for all."""


def predict(check: Check, slug: str, *ways: Callable[[Case], Any]) -> None:
    """Several ways of making one mistake."""
    for way in ways:
        check.predicts(slug)(way)


def up(n: int, size: int) -> int:
    """n / size, rounded up."""
    return -(-n // size)


def some(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def boxes(pages: Iterable[object]) -> str:
    return "[ " + " | ".join(map(str, pages)) + " ]"


def said(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} … {last}"


def say_sizes(case: Case) -> str:
    sinks = f", {some(case['sinks'], 'sink')}" if case["sinks"] else ""
    return f"pages of {some(case['size'], 'token')}, window {case['window']}{sinks}"


# ==================================================================================================== in an engine

NEVER = "still running"
_asking = threading.RLock()


@functools.cache
def _model(kind: str, own: int) -> Any:
    from course.grading.tiny import tiny_model

    model = tiny_model(kind, own)
    model.set_attn_implementation("eager")
    return model


@functools.cache
def dense_tokens(kind: str, own: int, window: int | None, sinks: int, prompt: tuple[int, ...], n: int) -> list[int]:
    """The n most likely tokens: after each one the whole sequence is computed anew under a mask of all its pairs.

    Args:
        kind: "llama": the window is imposed on every layer; "gemma2": on the local one, which never reads more than `own`.
    """
    import torch

    longest = len(prompt) + n
    q, k = torch.arange(longest)[:, None], torch.arange(longest)

    def mask(window: int | None) -> Any:
        is_read = (k <= q) & ((k < sinks) | (k > q - (longest if window is None else window)))
        return torch.zeros(1, 1, longest, longest).masked_fill(~is_read, torch.finfo(torch.float32).min)

    ids = list(prompt)
    local = mask(window if kind == "llama" else own if window is None else min(window, own))
    everything = mask(None)
    for _ in range(n):
        L = len(ids)
        masks = local[:, :, :L, :L]
        if kind == "gemma2":
            masks = {"sliding_attention": masks, "full_attention": everything[:, :, :L, :L]}
        with _asking, torch.no_grad():
            logits = _model(kind, own)(input_ids=torch.tensor([ids]), attention_mask=masks, use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


PROMPT = [5, 9, 3, 7, 11, 2, 8, 4, 6, 1, 12, 13]
OTHERS = [[21, 4, 33], [17, 2, 40, 8, 8, 19, 30, 3, 3, 3, 25], [1, 44, 9, 2, 6, 31, 14]]
LONG = [(7 * i * i + 3 * i + 5) % 47 + 1 for i in range(43)]
FAR = [39, 47, 25, 46, 28, 26, 47, 37]


def run(
    window: int | None,
    sinks: int = 0,
    n: int = 20,
    size: int = 4,
    model: str = "llama",
    own: int = 8,
    prompts: list[list[int]] | None = None,
    **engine: Any,
) -> Case:
    """An engine that answers prompts with n tokens each."""
    return {
        "model": model,
        "own": own,
        "window": window,
        "sinks": sinks,
        "size": size,
        "n": n,
        "prompts": prompts or [PROMPT],
        "engine": engine,
    }


def say_run(case: Case) -> str:
    kind = f"a model with a local layer (window {case['own']}) and a global one" if case["model"] == "gemma2" else ""
    options = ", ".join(f"{name} {value}" for name, value in case["engine"].items())
    prompts = " and ".join(str(len(prompt)) for prompt in case["prompts"])
    lines = [
        f"an engine with {say_sizes(case)}{': ' + kind if kind else ''}{'; ' + options if options else ''}",
        f"prompts of {prompts} tokens, {some(case['n'], 'new token')} each; whatever nobody owns is filled with 10,000",
    ]
    return "\n".join(lines)


def tokens_of(case: Case) -> list[list[int]]:
    """What each prompt must be answered with."""
    sizes = case["model"], case["own"], case["window"], case["sinks"]
    return [dense_tokens(*sizes, tuple(prompt), case["n"]) for prompt in case["prompts"]]


def most_held(case: Case) -> list[list[int]]:
    """By window of the layers, 0 for those that read everything: the most pages that may be in use after a step."""
    longest = [up(len(prompt) + case["n"], case["size"]) for prompt in case["prompts"]]

    def bound(window: int) -> int:
        return sum(min(all_of, up(window, case["size"]) + 1 + up(case["sinks"], case["size"])) for all_of in longest)

    if case["model"] == "llama":
        return [[case["window"], bound(case["window"])]]
    local = min(case["own"], case["window"])
    return [[0, sum(longest)], [local, bound(local)]]


def right_run(case: Case) -> dict[str, Any]:
    return {"tokens": tokens_of(case), "held": most_held(case), "preempted": 0, "pool": "whole"}


def same_run(_case: Case, expected: Any, answer: Any) -> bool:
    windows = [window for window, _ in answer["held"]] == [window for window, _ in expected["held"]]
    held = all(got <= most for (_, most), (_, got) in zip(expected["held"], answer["held"], strict=True))
    return windows and held and all(expected[name] == answer[name] for name in ("tokens", "preempted", "pool"))


def draw_run(case: Case, answer: Any) -> str:
    lines = []
    for i, (right, got) in enumerate(zip(tokens_of(case), answer["tokens"], strict=True)):
        who = f"prompt {i}  " if len(case["prompts"]) > 1 else ""
        if got == NEVER:
            lines.append(f"{who}never answered")
            continue
        at = next((i for i, (a, b) in enumerate(zip(right, got, strict=False)) if a != b), min(len(right), len(got)))
        if at == len(right) == len(got):
            lines.append(f"{who}{len(got)} tokens, as a dense mask gives them")
        else:
            lines.append(f"{who}other tokens than with a dense mask from number {at} on")
    most = answer == right_run(case)
    for window, held in answer["held"]:
        layers = f"layers with a window of {window}" if window else "layers that read everything"
        lines.append(f"{layers}: {'at most ' if most else ''}{some(held, 'page')} in use after a step")
    lines.append(f"preempted {answer['preempted']} times; the pool at the end: {answer['pool']}")
    return "\n".join(lines)


def engine_check(exercise: Exercise, name: str, cases: list[Case]) -> Check:
    def right(case: Case) -> dict[str, Any]:
        return right_run(case)

    right.__name__ = name
    return exercise.check(cases=cases, describe=say_run, draw=draw_run, same=same_run)(right)


# ==================================================================================================== 9.1 pages_to_give_up

which = Exercise(
    "9.1",
    section="What nobody reads any more",
    hints=(
        "Write down the positions that the next query reads, page by page, and put the sinks beside them. Which pages hold "
        "none of both?",
        "Take the first page that differs. Is there a token in it that is read by this query, or by any later one?",
        "The oldest position in the window tells in which page the window begins; the pages before that one, and behind the "
        "sinks' last one, are the answer.",
    ),
    preload=PRELOAD,
)
which.mistake(
    "early-free",
    "Which is the oldest position that the query at `position` reads? Its own counts as one of `window`.",
    "A page goes while its last token is still in the window: the window is one token short.",
    "The query reads `window` positions that end with its own, so the oldest is position - window + 1.",
)
which.mistake(
    "one-late",
    "`position` is that of the next query. Does anyone still read what only the one before it could?",
    "A page stays one query too long: the window begins one token too early.",
    "Count from the query at `position`, which is still to come, and not from the one before.",
)
which.mistake(
    "partly-read",
    "Which tokens of the last page in your answer does the next query read?",
    "The page in which the window begins is given up too, and the tokens behind the beginning with it.",
    "Stop before the page that holds the oldest position in the window: divide rounding down, and leave that page out.",
)
which.mistake(
    "rounded-twice",
    "How many tokens of the oldest page are in the window? Does that follow from the page of `position` alone?",
    "Position and window were turned into pages one by one, and what was rounded off each is lost.",
    "First find the oldest position in tokens, then ask in which page it lies.",
)
which.mistake(
    "sinks-forgotten",
    "Which tokens does every query read, however far it has come?",
    "The sinks' pages are given up as well.",
    "Begin behind the last page that holds a sink.",
)
which.mistake(
    "sinks-cut",
    "In which page does the last sink lie?",
    "A page that is only partly sinks is given up: the number of their pages was rounded down.",
    "The sinks' pages are sinks / page_size rounded up; the range begins behind them.",
)
which.mistake(
    "sinks-are-pages",
    "Is `sinks` a number of tokens or of pages?",
    "The number of sinks was taken for a number of pages.",
    "Turn tokens into pages first, rounding up.",
)
which.mistake(
    "sinks-move-the-window",
    "A query reads the window and the sinks. Does the window get longer or shorter because there are sinks?",
    "The number of sinks was added to the window, or taken from it.",
    "Leave the sinks out of the window's beginning; they only decide where the range begins.",
)
which.mistake(
    "tokens-not-pages",
    "Do the numbers in your answer count pages or tokens?",
    "Positions of tokens came back.",
    "Divide by `page_size`, in the direction that keeps a page with a token still read.",
)
which.mistake(
    "newest-only",
    "Are pages that could have gone earlier still read by anyone?",
    "Only the last of the pages is named. After a part of a long prompt several become unread at once.",
    "Give back all of them, from behind the sinks to the window's first page.",
)
which.mistake(
    "kept-not-gone",
    "Does the function name the pages that go, or those that stay?",
    "The pages that are still read came back.",
    "Turn it round: what lies before the window, and behind the sinks.",
)

Pages = Callable[[int, int, int, int], Iterable[int]]
"""(position, window, sinks, page size) -> logical pages."""


def which_case(position: int, window: int, sinks: int = 0, size: int = 4) -> Case:
    return {"position": position, "window": window, "sinks": sinks, "size": size}


def by_pages_of(pages: Pages) -> Callable[[Case], Any]:
    return lambda case: sorted(set(pages(case["position"], case["window"], case["sinks"], case["size"])))


def is_read_from(position: int, window: int, sinks: int, token: int) -> bool:
    """Whether a query at `position`, or a later one, reads a token."""
    return token < sinks or token >= position - window + 1


def unread_pages(position: int, window: int, sinks: int, size: int) -> list[int]:
    pages = range(position // size + 1)
    return [p for p in pages if not any(is_read_from(position, window, sinks, p * size + i) for i in range(size))]


WHICH = [
    *(which_case(position, 8) for position in (3, 10, 11, 12, 14, 15, 19)),
    *(which_case(position, 6) for position in (8, 9, 12, 13)),
    *(which_case(position, 1) for position in (0, 3, 4, 8)),
    *(which_case(position, 5, 0, 2) for position in (5, 6, 7, 11)),
    which_case(23, 8, 4),
    which_case(23, 8, 5),
    which_case(23, 8, 1),
    which_case(22, 8, 1),
    which_case(11, 8, 1),
    which_case(15, 8, 5),
    which_case(9, 8, 9),
    which_case(30, 6, 3, 2),
    which_case(31, 6, 2, 2),
    which_case(6, 3, 1, 1),
    which_case(100, 16, 4, 16),
]


def say_which(case: Case) -> str:
    position, first = case["position"], max(0, case["position"] - case["window"] + 1)
    sinks = f" and the sinks {span(0, case['sinks'] - 1)}" if case["sinks"] else ""
    return f"{say_sizes(case)}; the next query is at position {position} and reads {span(first, position)}{sinks}"


def draw_which(case: Case, answer: list[int]) -> str:
    """Page by page the tokens that are read, and whether it goes."""
    position, size = case["position"], case["size"]
    last = position // size
    if last > 11 or size > 8 or (answer and answer[-1] > last):
        return f"gives up the pages {said(answer)}"
    wide, lines = len(str(position)), []
    for page in range(last + 1):
        tokens = [t for t in range(page * size, page * size + size) if t <= position]
        read = [is_read_from(position, case["window"], case["sinks"], token) for token in tokens]
        cells = " ".join((str(t) if is_read else "·").rjust(wide) for t, is_read in zip(tokens, read, strict=True))
        fate = "given up" if page in answer else "kept"
        lines.append(f"page {page:<3} {cells:<{(wide + 1) * size}} {fate}")
    return "\n".join(lines)


@which.check(
    cases=WHICH,
    describe=say_which,
    draw=draw_which,
    search=st.builds(
        which_case, st.integers(0, 40), st.integers(1, 12), st.integers(0, 9), st.sampled_from([1, 2, 4, 8])
    ),
)
def given_up(case: Case) -> list[int]:
    return by_pages_of(unread_pages)(case)


def between(first: Callable[..., int], end: Callable[..., int]) -> Callable[[Case], Any]:
    return by_pages_of(lambda *sizes: range(first(*sizes), end(*sizes)))


def sink_pages(_p: int, _W: int, S: int, size: int) -> int:
    return up(S, size)


def begin(p: int, W: int, _S: int, size: int) -> int:
    """The page in which the window begins."""
    return (p - W + 1) // size


predict(given_up, "early-free", *(between(sink_pages, lambda p, W, S, z, n=n: (p - W + n) // z) for n in (2, 3)))
predict(given_up, "one-late", between(sink_pages, lambda p, W, S, z: (p - W) // z))
predict(
    given_up,
    "partly-read",
    between(sink_pages, lambda p, W, S, z: up(p - W + 1, z)),
    between(sink_pages, lambda p, W, S, z: (p - W + 1) // z + 1),
    between(sink_pages, lambda p, W, S, z: max(0, p - W + 1) // z + 1),
    between(sink_pages, lambda p, W, S, z: (p - W + 1) // z + 1 if p >= W else 0),
)
predict(
    given_up,
    "rounded-twice",
    between(sink_pages, lambda p, W, S, z: p // z - up(W, z)),
    between(sink_pages, lambda p, W, S, z: p // z - W // z),
    between(sink_pages, lambda p, W, S, z: p // z - up(W, z) + 1),
    between(sink_pages, lambda p, W, S, z: (p + 1) // z - up(W, z)),
    between(sink_pages, lambda p, W, S, z: (p + 1) // z - W // z),
    between(sink_pages, lambda p, W, S, z: up(p + 1, z) - up(W, z)),
    between(sink_pages, lambda p, W, S, z: up(p + 1, z) - up(W, z) - 1),
    between(sink_pages, lambda p, W, S, z: p // z - up(W - 1, z)),
)
predict(given_up, "sinks-forgotten", between(lambda *_: 0, begin))
predict(
    given_up,
    "sinks-cut",
    between(lambda p, W, S, z: S // z, begin),
    by_pages_of(lambda p, W, S, z: [one for one in range(begin(p, W, S, z)) if one * z + z > S + z - 1]),
)
predict(given_up, "sinks-are-pages", between(lambda p, W, S, z: S, begin))
predict(
    given_up,
    "sinks-move-the-window",
    between(sink_pages, lambda p, W, S, z: (p - (W - S) + 1) // z),
    between(sink_pages, lambda p, W, S, z: (p - (W + S) + 1) // z),
    between(sink_pages, lambda p, W, S, z: (p - W + 1) // z - up(S, z)),
    between(sink_pages, lambda p, W, S, z: (p - W + 1) // z + up(S, z)),
)
predict(
    given_up,
    "tokens-not-pages",
    between(lambda p, W, S, z: S, lambda p, W, S, z: p - W + 1),
    between(sink_pages, lambda p, W, S, z: p - W + 1),
)
predict(
    given_up,
    "newest-only",
    by_pages_of(lambda *sizes: unread_pages(*sizes)[-1:]),
    by_pages_of(lambda p, W, S, z: unread_pages(p, W, S, z)[-1:] if (p - W + 1) % z == 0 else []),
)
predict(
    given_up,
    "kept-not-gone",
    by_pages_of(lambda p, W, S, z: range(max(0, begin(p, W, S, z)), p // z + 1)),
    by_pages_of(lambda p, W, S, z: set(range(p // z + 1)) - set(unread_pages(p, W, S, z))),
    by_pages_of(lambda p, W, S, z: range(max(up(S, z), begin(p, W, S, z)), p // z + 1)),
)

engine_check(
    which,
    "in_the_engine",
    [
        run(8),
        run(6, 5),
        run(1, 1),
        run(8, n=160, prompts=[FAR]),
        run(6, 5, size=2, prompts=[LONG], max_prefill_tokens=10),
    ],
)

# ==================================================================================================== 9.2 give_up_pages

give = Exercise(
    "9.2",
    section="Giving pages back",
    hints=(
        "Say for one page that is not read any more who has to learn of it: the pool, the slot's list, the row of the "
        "table. What does each hold afterwards?",
        "Compare the line that differs, call by call: the list `owned`, the row, the capacity, and what went back. Which "
        "of them changed too much, or not at all?",
        "For each logical page of `pages_to_give_up` that the slot still has: put 0 into its place in both lists, and hand "
        "the physical page to `drop`; touch nothing else.",
    ),
    preload=PRELOAD,
)
give.mistake(
    "row-keeps-page",
    "The page may be someone else's in the next step. Who still has its number?",
    "The slot's row of `page_table` still names the page that was given up.",
    "Set the page's place in the row to 0 as well.",
)
give.mistake(
    "evict-then-erase",
    "The sequence ends. Which pages does `erase` give back, and was one of them given back before?",
    "`owned` still lists the page that was given up, so that it goes back a second time.",
    "Put 0 into the page's place in `owned`; whoever gives back a sequence's pages passes over 0.",
)
give.mistake(
    "never-back",
    "The page is in no list any more. Who can take it now?",
    "The page is struck out of the lists and did not go back to the pool.",
    "Hand the physical pages to `drop`, as they were before you struck them out.",
)
give.mistake(
    "position-by-count",
    "Token 12 has come, 4 tokens are given up. Which position has the next token?",
    "`capacity` shrank, as if positions counted the tokens that are kept. They stay what they were.",
    "Leave `capacity` alone: it says up to which position the slot has pages, and its places count from the beginning.",
)
give.mistake(
    "list-shifts",
    "In which place of the list do you find logical page 3 once page 0 has gone?",
    "Pages were taken out of a list, and all behind them have moved: token t no longer lies in page t // page_size.",
    "Keep the length of the list: 0 stands in the place of what was given up.",
)
give.mistake(
    "past-the-row",
    "How many pages has the slot, and which is the last one that you ask for?",
    "A place was read that the slot's list does not have. The slot may hold fewer tokens than `position`.",
    "Leave out logical pages at or beyond the end of `owned[batch_idx]`.",
)
give.mistake(
    "logical-not-physical",
    "Which number does the pool know a page by?",
    "The numbers of logical pages were given to `drop`.",
    "Look up in `owned` which physical page lies at each logical place.",
)
give.mistake(
    "past-drop",
    "Another sequence may share this page. Who asks it before the page is free?",
    "The pages went into `free_pages` directly and not by `drop`, which alone knows whether someone shares them.",
    "Call `drop` with the physical pages.",
)
give.mistake(
    "given-back-twice",
    "How often does this page stand in the pool now?",
    "A page went back more than once.",
    "Hand each page to `drop` once, in the call in which it is struck out.",
)
give.mistake(
    "every-slot",
    "Whose row of the table changes when one sequence moves on?",
    "Other sequences lost pages, or their places in the table.",
    "Change the row of `batch_idx` only.",
)
give.mistake(
    "sinks-forgotten",
    "Which pages does every later query read, however long the sequence gets?",
    "The sinks' pages were given up: `sinks` did not reach `pages_to_give_up`.",
    "Pass on all four: position, window, sinks and the table's page size.",
)
give.mistake(
    "swapped-arguments",
    "In which order does `pages_to_give_up` want its numbers?",
    "Window and sinks have changed places on the way.",
    "Pass on position, window, sinks and page size in this order, or by name.",
)
give.mistake(
    "minus-one",
    "Which page may padding and gaps point to? An index of -1 is the last place of a list.",
    "Something else than 0 marks the place of what was given up.",
    "Write 0, the sink's page, into both lists.",
)
give.mistake(
    "one-a-call",
    "A part of a prompt of 512 tokens was computed. How many pages become unread in that one step?",
    "At most one page goes in a call, and the sequence holds more and more.",
    "Go through all logical pages that `pages_to_give_up` names.",
)
give.mistake(
    "stops-at-a-gap",
    "The first page went three calls ago. What does your loop do when it meets its place?",
    "The walk ends at a place that is already 0, and what lies behind it stays for ever.",
    "Pass over places that are 0 and go on.",
)
give.mistake(
    "off-by-one",
    "`position` is that of the next query already. Which query do you ask for?",
    "Pages go one query too early or too late: `position` was moved by one before it was asked for.",
    "Pass `position` on as it is.",
)


class Table:
    """What the drive's table would say: a stack of free pages, two sequences, names in the order of first appearance."""

    def __init__(self, case: Case) -> None:
        self.size, self.window, self.sinks = case["size"], case["window"], case["sinks"]
        self.free = list(range(24, 0, -1))
        self.owned: list[list[int]] = [[], []]
        self.row = [[0] * 16, [0] * 16]
        self.capacity = [0, 0]
        self.names: dict[int, int] = {}
        self.back: list[int] = []

    def reserve(self, pages: int) -> None:
        """Up to the capacity, as `reserve` counts."""
        for n in range(len(self.owned[0]) + 1, pages + 1):
            for who in (0, 1):
                missing = up(max(0, n * self.size - self.capacity[who]), self.size)
                for _ in range(missing):
                    page = self.free.pop()
                    self.row[who][len(self.owned[who])] = page
                    self.owned[who].append(page)
                if missing:
                    self.capacity[who] = len(self.owned[who]) * self.size
                self.named(self.owned[who])

    def named(self, pages: Iterable[int]) -> list[int]:
        return [self.names.setdefault(p, len(self.names) + 1) if p > 0 else p for p in pages]

    def drop(self, pages: Iterable[int]) -> None:
        pages = [page for page in pages if page]
        self.back += pages
        self.free += pages

    def unread(self, position: int, window: int | None = None, sinks: int | None = None) -> list[int]:
        """Logical pages that the slot has a place for."""
        window = self.window if window is None else window
        sinks = self.sinks if sinks is None else sinks
        return [p for p in unread_pages(position, window, sinks, self.size) if p < len(self.owned[0])]

    def strike(self, logical: Iterable[int], owned: bool = True, row: bool = True, mark: int = 0) -> list[int]:
        """Mark places as given up; the pages that were there."""
        logical = list(logical)
        pages = [self.owned[0][p] for p in logical]
        for p in logical:
            if owned:
                self.owned[0][p] = mark
            if row:
                self.row[0][p] = mark
        return pages

    def state(self, who: int) -> dict[str, Any]:
        return {"owned": self.named(self.owned[who]), "row": self.named(self.row[who]), "capacity": self.capacity[who]}


Giving = Callable[[Table, int], None]
"""(table, position) changes the table."""


def kept_books(case: Case, giving: Giving) -> dict[str, Any]:
    table, after = Table(case), []
    for pages, position in case["calls"]:
        table.reserve(pages)
        table.back = []
        other, left = table.state(1), len(table.free)
        giving(table, position)
        after.append(
            {
                **table.state(0),
                "back": sorted(table.named(table.back)),
                "pool": len(table.free) - left,
                "other": "as before" if table.state(1) == other else "changed",
            }
        )
    for who in (0, 1):
        table.drop(table.owned[who])
    return {"after": after, "end": [len(table.free), len(set(table.free))]}


def giving_up(table: Table, position: int) -> None:
    table.drop(table.strike(table.unread(position)))


def book_case(window: int, *calls: tuple[int, int], sinks: int = 0, size: int = 4) -> Case:
    return {"window": window, "sinks": sinks, "size": size, "calls": [list(call) for call in calls]}


BOOKS = [
    book_case(8, (3, 11)),
    book_case(8, (3, 10)),
    book_case(8, (3, 12)),
    book_case(8, (4, 15)),
    book_case(8, (3, 11), (3, 11)),
    book_case(8, (3, 11), (4, 15)),
    book_case(8, (3, 11), (4, 12), (4, 15), (5, 19)),
    book_case(6, (6, 21)),
    book_case(8, (6, 23), sinks=4),
    book_case(8, (6, 23), sinks=5),
    book_case(8, (6, 23), (7, 26), (7, 27), sinks=3),
    book_case(3, (8, 15), (8, 15), (9, 18), sinks=1, size=2),
    book_case(8, (7, 11)),
    book_case(8, (2, 19)),
    book_case(1, (3, 12)),
    book_case(4, (2, 6), (4, 15), (6, 23), (8, 24), (8, 31)),
]


def say_books(case: Case) -> str:
    calls = "; ".join(f"with {some(pages, 'page')}: position {position}" for pages, position in case["calls"])
    return f"{say_sizes(case)}; give_up_pages of a slot {calls}"


def draw_books(case: Case, answer: Any) -> str:
    lines = []
    for (_, position), one in zip(case["calls"], answer["after"], strict=True):
        used = max(len(one["owned"]), max((i + 1 for i, page in enumerate(one["row"]) if page), default=0))
        lines.append(f"position {position}: owned {boxes(one['owned'])}")
        lines.append(f"  row     {boxes(one['row'][:used])}, capacity {one['capacity']}")
        more = "" if one["pool"] == len(one["back"]) else f", the pool has {one['pool']} more"
        lines.append(f"  dropped {said(one['back'])}{more}{'' if one['other'] == 'as before' else ', others changed'}")
    free, different = answer["end"]
    twice = f", {free - different} of them twice" if free != different else ""
    lines.append(f"all erased: {free} of 24 pages free{twice}")
    return "\n".join(lines)


@give.check(cases=BOOKS, describe=say_books, draw=draw_books)
def books(case: Case) -> dict[str, Any]:
    return kept_books(case, giving_up)


def books_with(slug: str, *ways: Giving) -> None:
    predict(books, slug, *((lambda case, way=way: kept_books(case, way)) for way in ways))


def held(table: Table, position: int) -> list[int]:
    """Unread logical pages that the slot still has."""
    return [page for page in table.unread(position) if table.owned[0][page]]


def remembering(mark: Callable[[Table, list[int]], None]) -> Giving:
    """Gives each page up once, and marks by another rule."""

    def giving(table: Table, position: int) -> None:
        gone: set[int] = table.__dict__.setdefault("gone", set())
        new = [page for page in table.unread(position) if page not in gone]
        gone.update(new)
        table.drop([table.owned[0][page] for page in new])
        mark(table, new)

    return giving


books_with(
    "row-keeps-page",
    lambda table, position: table.drop(table.strike(table.unread(position), row=False)),
)
books_with(
    "evict-then-erase",
    lambda table, position: table.drop(table.strike(table.unread(position), owned=False)),
    lambda table, position: table.drop(table.strike(table.unread(position), owned=False, row=False)),
    remembering(lambda table, new: table.strike(new, owned=False) and None),
    remembering(lambda table, new: None),
    lambda table, position: table.drop(
        table.strike([p for p in table.unread(position) if table.row[0][p]], owned=False)
    ),
)
books_with(
    "never-back",
    lambda table, position: table.strike(table.unread(position)) and None,
    lambda table, position: table.drop(page for page in [*table.strike(table.unread(position))] if not page),
)


def shrinking(table: Table, position: int) -> None:
    gone = held(table, position)
    table.drop(table.strike(gone))
    table.capacity[0] -= len(gone) * table.size


def recounting(table: Table, position: int) -> None:
    giving_up(table, position)
    table.capacity[0] = sum(page != 0 for page in table.owned[0]) * table.size


def capped(table: Table, position: int) -> None:
    giving_up(table, position)
    table.capacity[0] = min(table.capacity[0], table.window)


books_with("position-by-count", shrinking, recounting, capped)


@books.shows("list-shifts")
def _(case: Case, expected: Any, answer: Any) -> bool:
    """A list is shorter than it should be, or its pages have moved to other places."""
    if is_raised(answer):
        return False
    for right, got in zip(expected["after"], answer["after"], strict=True):
        if len(got["owned"]) != len(right["owned"]):
            return True
        if [p for p in got["row"] if p] == [p for p in right["row"] if p] and got["row"] != right["row"]:
            return True
    return False


@books.shows("past-the-row")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and "IndexError" in answer["raised"]


def by_logical(table: Table, position: int) -> None:
    gone = table.unread(position)
    table.strike(gone)
    table.drop(gone)


def by_logical_held(table: Table, position: int) -> None:
    gone = held(table, position)
    table.strike(gone)
    table.drop(gone)


books_with("logical-not-physical", by_logical, by_logical_held)


def past_drop(zeros: bool) -> Giving:
    def giving(table: Table, position: int) -> None:
        pages = table.strike(table.unread(position))
        table.free += [page for page in pages if page or zeros]

    return giving


books_with("past-drop", past_drop(zeros=False), past_drop(zeros=True))


def twice_at_once(table: Table, position: int) -> None:
    pages = table.strike(table.unread(position))
    table.drop(pages)
    table.drop(pages)


def drop_and_extend(table: Table, position: int) -> None:
    pages = [page for page in table.strike(table.unread(position)) if page]
    table.drop(pages)
    table.free += pages


books_with("given-back-twice", twice_at_once, drop_and_extend)


@books.shows("every-slot")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and any(one["other"] != "as before" for one in answer["after"])


books_with("sinks-forgotten", lambda table, position: table.drop(table.strike(table.unread(position, sinks=0))))
books_with(
    "swapped-arguments",
    lambda table, position: table.drop(table.strike(table.unread(position, window=table.sinks, sinks=table.window))),
)


@books.shows("minus-one")
def _(_case: Case, expected: Any, answer: Any) -> bool:
    """Something below 0 stands where 0 should, in the first call at least."""
    if is_raised(answer):
        return False
    return any(page < 0 for one in answer["after"] for page in [*one["owned"], *one["row"]])


books_with(
    "one-a-call",
    lambda table, position: table.drop(table.strike(held(table, position)[:1])),
    lambda table, position: table.drop(table.strike(held(table, position)[-1:])),
    lambda table, position: table.drop(table.strike(table.unread(position)[-1:])),
    lambda table, position: table.drop(table.strike(table.unread(position)[:1])),
)


def stopping(table: Table, position: int) -> None:
    for page in table.unread(position):
        if not table.owned[0][page]:
            break
        table.drop(table.strike([page]))


books_with("stops-at-a-gap", stopping)
books_with(
    "off-by-one",
    *((lambda table, position, by=by: table.drop(table.strike(table.unread(position + by)))) for by in (1, -1)),
)

engine_check(
    give,
    "in_the_engine",
    [
        run(8),
        run(6, 5),
        run(8, n=160, prompts=[FAR]),
        run(6, 2, size=2, prompts=[LONG], max_prefill_tokens=10),
        run(5, model="gemma2", n=60),
        run(8, prompts=[LONG, [*LONG[:30], 3, 4, 5]], prefix_sharing=True),
        run(6, 1, prompts=[PROMPT, LONG, OTHERS[0]], fuse_prefill=True, prefill_chunk=8),
    ],
)


def crowd(window: int, sinks: int, prompts: list[list[int]], n: int = 40, size: int = 4) -> Case:
    """A pool in which each sequence has just the pages that a window needs."""
    pages = len(prompts) * (1 + up(window - 1, size) + up(sinks, size))
    return run(window, sinks, n, size, prompts=prompts, n_pages=pages)


engine_check(
    give,
    "crowded",
    [
        crowd(8, 0, [PROMPT, OTHERS[0]]),
        crowd(5, 2, [OTHERS[1], OTHERS[2], PROMPT]),
        crowd(6, 0, [PROMPT, LONG, OTHERS[1], OTHERS[2]]),
    ],
)

# ==================================================================================================== 9.3 most_pages

count = Exercise(
    "9.3",
    section="How many pages a window takes",
    hints=(
        "Draw pages of four and lay a window on them, first beginning with a page, then one token further, and so on. On how "
        "many pages does it lie each time?",
        "Compare with the examples. Which beginning of the window touches the most pages, and do the sinks have theirs?",
        "Count one page for the window's first token, alone at the end of its page; then the pages that the other tokens of "
        "the window fill, rounded up; then the sinks' pages, rounded up.",
    ),
    preload=PRELOAD,
)
count.mistake(
    "ceil-bound",
    "Does a window always begin where a page begins?",
    "It counts the pages of a window that begins with a page. One that begins inside of a page can touch one more.",
    "Take the worst beginning: the window's first token is the last one of its page.",
)
count.mistake(
    "one-too-many",
    "A window of one token: on how many pages can it lie?",
    "It counts one page more than any window can touch.",
    "Of the window's tokens one lies on the first page in the worst case; only the others have to be rounded up.",
)
count.mistake(
    "rounded-down",
    "Window 6, pages of 4: the first token is the last of its page. Where are the other five?",
    "A page that is used by some tokens only was rounded off.",
    "Round up: a page with a single token is a whole page of memory.",
)
count.mistake(
    "first-page-forgotten",
    "Where is the window's first token, if the others fill pages of their own?",
    "The pages behind the first one are right; the first one itself is missing.",
    "Add the page on which the window's first token lies.",
)
count.mistake(
    "sinks-forgotten",
    "Which pages stay for ever?",
    "The pages of the sinks are not counted.",
    "Add the pages that the first `sinks` tokens lie on.",
)
count.mistake(
    "sinks-cut",
    "Five sinks, pages of four: how many pages hold a sink?",
    "The sinks' pages were rounded down.",
    "Round the sinks' pages up: the last of them may hold a single sink.",
)
count.mistake(
    "sinks-are-pages",
    "Is `sinks` a number of pages?",
    "The number of sinks was added as if each had a page of its own.",
    "Divide by `page_size` first, rounding up.",
)
count.mistake(
    "sinks-in-the-window",
    "Do the sinks and the window share a page, once the window has moved on?",
    "Sinks and window were counted as one run of tokens, or one in the place of the other.",
    "Count the two apart, each with its own rounding, and add them.",
)
count.mistake(
    "tokens-not-pages",
    "Is the answer a number of tokens or of pages?",
    "A number of tokens came back.",
    "Divide by `page_size`.",
)


def count_case(window: int, sinks: int = 0, size: int = 4) -> Case:
    return {"window": window, "sinks": sinks, "size": size}


def touched(window: int, size: int, begin: int) -> int:
    """Pages on which the tokens begin … begin + window - 1 lie."""
    return len({(begin + i) // size for i in range(window)})


def right_count(window: int, sinks: int, size: int) -> int:
    return max(touched(window, size, begin) for begin in range(size)) + len({i // size for i in range(sinks)})


def draw_count(case: Case, answer: int) -> str:
    """The worst place of the window among the pages, in the right answer."""
    right = right_count(case["window"], case["sinks"], case["size"])
    return some(answer, "page") + (" (a window that begins with the last token of a page)" if answer == right else "")


@count.check(
    cases=[
        *(count_case(window) for window in (1, 2, 4, 5, 6, 8, 9, 10)),
        *(count_case(window, 0, 2) for window in (2, 3, 4)),
        count_case(8, 1),
        count_case(8, 4),
        count_case(8, 5),
        count_case(2, 2),
        count_case(3, 1),
        count_case(6, 2),
        count_case(7, 2),
        count_case(6, 3),
        count_case(5, 8),
        count_case(6, 9, 2),
        count_case(3, 2, 1),
        count_case(1024, 4, 128),
        count_case(4096, 0, 16),
    ],
    describe=lambda case: f"most_pages(window={case['window']}, sinks={case['sinks']}, page_size={case['size']})",
    draw=draw_count,
    search=st.builds(count_case, st.integers(1, 40), st.integers(0, 20), st.sampled_from([1, 2, 4, 8, 16])),
)
def most(case: Case) -> int:
    return right_count(case["window"], case["sinks"], case["size"])


def counts(slug: str, *ways: Callable[[int, int, int], int]) -> None:
    predict(most, slug, *((lambda case, w=way: w(case["window"], case["sinks"], case["size"])) for way in ways))


def worst(W: int, size: int) -> int:
    return 1 + up(W - 1, size)


counts("ceil-bound", lambda W, S, z: up(W, z) + up(S, z))
counts(
    "one-too-many",
    lambda W, S, z: up(W, z) + 1 + up(S, z),
    lambda W, S, z: worst(W, z) + 1 + up(S, z),
    lambda W, S, z: worst(W, z) + up(S, z) + (S > 0),
    lambda W, S, z: worst(W, z) + S // z + 1,
    lambda W, S, z: up(W, z) + 1 + S // z + 1,
)
counts(
    "rounded-down",
    lambda W, S, z: W // z + 1 + up(S, z),
    lambda W, S, z: (W - 1) // z + 1 + S // z,
    lambda W, S, z: W // z + 1 + S // z,
    lambda W, S, z: W // z + up(S, z),
)
counts("first-page-forgotten", lambda W, S, z: up(W - 1, z) + up(S, z), lambda W, S, z: (W - 1) // z + up(S, z))
counts("sinks-forgotten", lambda W, S, z: worst(W, z))
counts("sinks-cut", lambda W, S, z: worst(W, z) + S // z)
counts("sinks-are-pages", lambda W, S, z: worst(W, z) + S)
counts(
    "sinks-in-the-window",
    lambda W, S, z: worst(W + S, z),
    lambda W, S, z: max(worst(W, z), up(S, z)),
    lambda W, S, z: worst(max(1, W - S), z) + up(S, z),
    lambda W, S, z: up(W + S, z) + 1,
    lambda W, S, z: up(W + S, z),
)
counts("tokens-not-pages", lambda W, S, z: W + S, lambda W, S, z: (worst(W, z) + up(S, z)) * z, lambda W, S, z: W)

ENOUGH = [crowd(8, 0, [PROMPT]), crowd(6, 0, [LONG]), crowd(5, 5, [PROMPT]), crowd(1, 0, [PROMPT], size=2)]

engine_check(count, "smallest_pool", ENOUGH)


@count.check(
    cases=[{**case, "engine": {"n_pages": case["engine"]["n_pages"] - 1}} for case in ENOUGH[:3]],
    describe=lambda case: f"an engine with {say_sizes(case)} and a pool of {case['engine']['n_pages']} pages",
)
def too_small(_case: Case) -> Any:
    return raises("ValueError")


# ==================================================================================================== 9.4 window_mask

mask = Exercise(
    "9.4",
    section="The rule, to the token",
    hints=(
        "Take one query that differs (← marks it) or, if there is an error, the first one. Which keys does it read by the "
        "docstring: which of its window, which of the sinks?",
        "Three questions decide on a key: is it later than the query, is it in the window, is it a sink? Work all three out "
        "for one entry that differs, and look how your code joins them.",
        "Not later is needed in any case; besides, the key must be in the window or be a sink, unless there is no window.",
    ),
    preload=PRELOAD,
)
mask.mistake(
    "window-plus-one",
    "Count the keys of one query in its window. Is its own among the `window`?",
    "The window holds one key too many: distances 0 … window are window + 1 keys.",
    "The distance has to be below `window`.",
)
mask.mistake(
    "one-short",
    "How many keys does a window of 2 hold, the query's own included?",
    "The window holds one key too few.",
    "The largest distance that is allowed is window - 1.",
)
mask.mistake(
    "sinks-from-the-future",
    "May the first query of all read a sink that has not come yet?",
    "Sinks are read by queries before them: “not later” holds for the window only. `&` binds tighter than `|`.",
    "Put brackets around window-or-sink, and join “not later than the query” to the whole of it.",
)
mask.mistake(
    "no-causal",
    "Who keeps a query from reading what comes after it?",
    "Keys later than the query are read: the bound on the distance alone lets all of them through.",
    "Ask as well that the key is not later than the query.",
)
mask.mistake(
    "sinks-forgotten",
    "What does a query far behind read of the beginning?",
    "Sinks outside of the window are not read.",
    "A key is allowed if it is in the window or if it is one of the first `sinks`.",
)
mask.mistake(
    "one-sink-more",
    "Which position has the last of `sinks` sinks?",
    "One sink too many, or too few: positions count from 0.",
    "The sinks are the positions below `sinks`.",
)
mask.mistake(
    "both-needed",
    "Must a key be a sink and in the window to be read?",
    "The two were joined by “and”, so that hardly any key is left.",
    "One of the two is enough: join them by `|`.",
)
mask.mistake(
    "sinks-move-the-window",
    "Does a query read fewer or more keys of its neighbourhood because there are sinks?",
    "The number of sinks was added to the window, or taken from it.",
    "The window stays `window` keys long; sinks come on top.",
)
mask.mistake(
    "none-window",
    "What does `window=None` say, and what happens to it in your comparison?",
    "Without a window the mask fails, or hides keys that come before the query.",
    "If there is no window, every key that is not later than the query is read.",
)
mask.mistake(
    "true-means-hidden",
    "What does True mean in a mask_mod: may be read, or must be hidden?",
    "The mask is True exactly where a key must not be read.",
    "Turn the condition round.",
)
mask.mistake(
    "python-not",
    "Where does your code want one single True or False from a tensor that holds many?",
    "`and`, `or`, `not`, `if` and a comparison in a chain all ask a tensor for one answer.",
    "Use what works on every entry: `&`, `|`, `~` and `torch.where`, with brackets around each comparison.",
)
mask.mistake(
    "four-arguments",
    "With how many arguments does FlexAttention call a mask_mod?",
    "The inner function takes other arguments than a mask_mod gets.",
    "It takes four: batch row, head, position of the query, position of the key, needed or not.",
)
mask.mistake(
    "own-axes",
    "How many dimensions do the index tensors have when they arrive?",
    "Axes were added to indices that broadcast as they are; under FlexAttention they have none at all.",
    "Compare the two positions as they come.",
)

Rule = Callable[[int | None, int, int, int], bool]
"""(window, sinks, position of the query, of the key) -> whether it is read."""


def right_rule(W: int | None, S: int, q: int, k: int) -> bool:
    if k > q:
        return False
    return W is None or k > q - W or k < S


def mask_case(window: int | None, sinks: int, q: Sequence[int], k: Sequence[int]) -> Case:
    return {"window": window, "sinks": sinks, "q": list(q), "k": list(k)}


MASKS = [
    mask_case(2, 0, range(4), range(4)),
    mask_case(1, 0, range(3), range(3)),
    mask_case(2, 1, [4], range(6)),
    mask_case(2, 1, range(5), range(5)),
    mask_case(2, 3, range(7), range(7)),
    mask_case(3, 2, range(8), range(8)),
    mask_case(4, 0, [7], range(9)),
    mask_case(4, 1, [9, 3], [0, 1, 2, 6, 8, 12]),
    mask_case(None, 0, range(4), range(4)),
    mask_case(None, 2, range(5), range(5)),
    mask_case(99, 1, range(3), range(4)),
    mask_case(5, 4, [11, 12], range(14)),
]


def grid_of(case: Case, rule: Rule) -> dict[str, Any]:
    W, S = case["window"], case["sinks"]
    return {"grid": ["".join("■" if rule(W, S, q, k) else "□" for k in case["k"]) for q in case["q"]]}


def grid(
    rows: Sequence[str], queries: Sequence[object], keys: Sequence[object], right: Sequence[str], size: int = 0
) -> str:
    """Rows of signs with their queries and keys; an arrow where one differs from the right one; a bar between pages."""
    wide = max(len(str(key)) for key in keys)
    left = max(len(f"query {query}") for query in queries)

    def line(cells: Iterable[object]) -> str:
        texts = [str(cell).rjust(wide) for cell in cells]
        groups = [texts[i : i + (size or len(texts))] for i in range(0, len(texts), size or len(texts))]
        return " │ ".join(" ".join(group) for group in groups)

    lines = [f"{'key':<{left}}  {line(keys)}"]
    for query, row, wanted in zip(queries, rows, right, strict=True):
        lines.append(f"{f'query {query}':<{left}}  {line(row)}{'' if row == wanted else ' ←'}")
    return "\n".join(lines)


def draw_grid(case: Case, answer: Any) -> str:
    if "grid" not in answer:
        return f"a tensor of shape {answer['shape']}, which\ndoes not broadcast to queries by keys"
    return grid(answer["grid"], case["q"], case["k"], grid_of(case, right_rule)["grid"])


def say_mask(case: Case) -> str:
    return f"window_mask({case['window']}, {case['sinks']})"


@mask.check(cases=MASKS, describe=say_mask, draw=draw_grid)
def mask_at_once(case: Case) -> dict[str, Any]:
    return grid_of(case, right_rule)


@mask.check(
    cases=MASKS,
    describe=lambda case: f"{say_mask(case)}, asked as FlexAttention does (torch.vmap)",
    draw=draw_grid,
)
def mask_one_by_one(case: Case) -> dict[str, Any]:
    return grid_of(case, right_rule)


def wide(W: int | None) -> int:
    return 10**9 if W is None else W


RULES: dict[str, list[Rule]] = {
    "window-plus-one": [lambda W, S, q, k: k <= q and (q - k <= wide(W) or k < S)],
    "one-short": [lambda W, S, q, k: k <= q and (q - k < wide(W) - 1 or k < S)],
    "sinks-from-the-future": [
        lambda W, S, q, k: (k <= q and q - k < wide(W)) or k < S,
        lambda W, S, q, k: k <= q if W is None else (k <= q and q - k < W) or k < S,
    ],
    "no-causal": [
        lambda W, S, q, k: q - k < wide(W) or k < S,
        lambda W, S, q, k: W is None or q - k < W or k < S,
        lambda W, S, q, k: k <= q if W is None else q - k < W or k < S,
    ],
    "sinks-forgotten": [lambda W, S, q, k: k <= q and q - k < wide(W)],
    "one-sink-more": [
        lambda W, S, q, k: k <= q and (q - k < wide(W) or k <= S),
        lambda W, S, q, k: k <= q and (q - k < wide(W) or k < S - 1),
        lambda W, S, q, k: k <= q and (q - k < wide(W) or 0 < k <= S),
    ],
    "both-needed": [
        lambda W, S, q, k: k <= q and q - k < wide(W) and k < S,
        lambda W, S, q, k: k <= q if W is None else k <= q and q - k < W and k < S,
        lambda W, S, q, k: k <= q and q - k < wide(W) and k >= S,
        lambda W, S, q, k: k <= q if W is None else k <= q and q - k < W and k >= S,
    ],
    "sinks-move-the-window": [
        lambda W, S, q, k: k <= q and (q - k < wide(W) + S or k < S),
        lambda W, S, q, k: k <= q and (q - k < wide(W) - S or k < S),
        lambda W, S, q, k: k <= q and q - k < wide(W) + S,
    ],
    "true-means-hidden": [lambda W, S, q, k: not right_rule(W, S, q, k)],
}
ONE_VALUE = re.compile(
    r"ambiguous|data-dependent control flow|calling \.item|converted to (a )?(Python )?[sS]calar|only one element tensors"
    r"|access data pointer|single element"
)


def asks_for_one_value(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and bool(ONE_VALUE.search(answer["message"]))


def wrong_arguments(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and "TypeError" in answer["raised"] and "positional argument" in answer["message"]


def wrong_axes(_case: Case, _expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return "IndexError" in answer["raised"] and "dimension" in answer["message"].lower()
    return "shape" in answer


def without_window(case: Case, _expected: Any, _answer: Any) -> bool:
    """Nothing is wrong but where there is no window."""
    return case["window"] is None


for _check in (mask_at_once, mask_one_by_one):
    for _slug, _rules in RULES.items():
        predict(_check, _slug, *((lambda case, rule=rule: grid_of(case, rule)) for rule in _rules))
    _check.shows("python-not")(asks_for_one_value)
    _check.shows("four-arguments")(wrong_arguments)
    _check.shows("own-axes")(wrong_axes)
    _check.shows("none-window")(without_window)

engine_check(
    mask,
    "by_mask_alone",
    [
        run(8, n=10, attention="eager", n_pages=10),
        run(3, 2, n=10, attention="eager", n_pages=10),
        run(6, 5, attention="eager", n_pages=10),
        run(5, 1, n=10, model="gemma2", attention="eager", n_pages=10),
    ],
)

# ==================================================================================================== 9.5 window_pages

pages = Exercise(
    "9.5",
    section="Both edges are partial",
    hints=(
        "Take the first page that differs, in the first row with an arrow, and the grid above. Which queries of that row "
        "read a token of it, and which read all of it?",
        "A page is in one of the maps if some query reads some token of it. It is full only if no query and no token is "
        "missing. Check page by page where your code says otherwise.",
        "`visible_blocks` answers for one interval a query. Ask it for the window, and once more for the sinks up to the "
        "query itself; full is what one of them calls full, partial is the rest of what either reads.",
    ),
    preload=PRELOAD,
)
pages.mistake(
    "head-full",
    "The window begins inside a page. Who skips asking the mask there, and what is read?",
    "The page in which the window begins is marked full, and tokens before the window are read.",
    "A window has two edges: the first page is partial too, unless the window begins with it.",
)
pages.mistake(
    "tail-full",
    "The newest token is not the last of its page. What lies in the places behind it?",
    "The page that the query itself is in is marked full, and places are read that are not written, or later.",
    "The last page is full only if the query is at its end.",
)
pages.mistake(
    "all-full",
    "Who skips asking the mask of a full page?",
    "Every page that is read is marked full.",
    "Full is only a page of which every query of the row reads every token.",
)
pages.mistake(
    "sinks-page-full",
    "Five sinks, pages of four: of the second page one token is a sink. What is read if nobody asks the mask?",
    "A page that holds only some sinks is marked full.",
    "A page is full by the sinks only if all its tokens are sinks, and every query has passed them.",
)
pages.mistake(
    "sinks-forgotten",
    "What does a query read far behind the beginning?",
    "The sinks' pages are not listed, so that they are skipped.",
    "Join what the window reads and what the sinks say, in both maps.",
)
pages.mistake(
    "sinks-from-the-future",
    "Which sinks can a query read that is at position 0?",
    "Sinks that come after the query count as read.",
    "Of the sinks a query reads those up to its own position.",
)
pages.mistake(
    "padding-reads",
    "Which pages does a query at position -1 read?",
    "A row of padding lists pages.",
    "A query at -1 reads neither window nor sinks: its last key lies before its first.",
)
pages.mistake(
    "in-both",
    "In how many of the two maps may a page be?",
    "A page is marked partial and full, and would be read twice.",
    "Take the full pages out of those that are read; what remains is partial.",
)
pages.mistake(
    "one-for-all",
    "A row holds several queries. Must one of them read the whole page, or all?",
    "A page is marked full that one query reads wholly and another one does not.",
    "The strictest query decides: the latest beginning of the window, and the earliest query.",
)
pages.mistake(
    "one-query-only",
    "Which queries of the row did your code look at?",
    "Only the first or the last query of a row decides what the row reads.",
    "Look at all: the row reads from the earliest beginning of a window to the latest query.",
)
pages.mistake(
    "gap-listed",
    "Which pages lie between the sinks and the window, and who reads them?",
    "Everything between the sinks and the query is listed. Those pages may be others' by now.",
    "The sinks and the window are two intervals, with a gap between them that nobody reads.",
)
pages.mistake(
    "window-plus-one",
    "Which is the oldest position that a query at 9 reads with a window of 6?",
    "The window reaches one token too far back.",
    "The window ends with the query's own position, which counts: it begins at position - window + 1.",
)
pages.mistake(
    "one-short",
    "How many keys does the query at position 9 read with a window of 6, its own included?",
    "The window is one token short.",
    "It begins at position - window + 1.",
)
pages.mistake(
    "never-full",
    "Which pages could skip asking the mask?",
    "No page is full, so that the mask is asked for every token of every page.",
    "A page that the window covers for every query, or that holds nothing but sinks, belongs into `full`.",
)
pages.mistake(
    "maps-swapped",
    "Which of the two maps comes first?",
    "Partial and full have changed places.",
    "Give back partial, then full.",
)
pages.mistake(
    "none-window",
    "What does `window=None` mean, and what becomes of it in a difference?",
    "Without a window it fails or reads too little.",
    "Without a window a query reads everything from 0 to its own position.",
)
pages.mistake(
    "no-middle-axis",
    "Which shape does the docstring give?",
    "The maps have another shape than [R, 1, J].",
    "One row of query blocks stands between the rows and the pages: keep that axis.",
)

Reads = Callable[[Case, int, int], bool]
"""(case, position of a query, position of a key) -> whether it is read."""


def reads(case: Case, q: int, k: int) -> bool:
    return right_rule(case["window"], case["sinks"], q, k)


def in_window(case: Case, q: int, k: int) -> bool:
    return right_rule(case["window"], 0, q, k)


def among_sinks(case: Case, q: int, k: int) -> bool:
    return k <= q and k < case["sinks"]


def pages_case(position: list[list[int]], window: int | None, sinks: int = 0, pages: int = 4, size: int = 4) -> Case:
    return {"position": position, "window": window, "sinks": sinks, "pages": pages, "size": size}


def run_of(first: int, n: int, T: int = 0) -> list[int]:
    """n positions from `first` on, the last one repeated up to T."""
    return [*range(first, first + n), *[first + n - 1] * (T - n)]


PAGES = [
    pages_case([[9]], 6),
    pages_case([[8]], 6),
    pages_case([[11]], 8),
    pages_case([[3]], 8),
    pages_case([[0]], 2, pages=2),
    pages_case([[12]], 5),
    pages_case([[15]], 9),
    pages_case([[9], [14], [-1], [2]], 6),
    pages_case([[6]], None),
    pages_case([[7], [-1]], None, 2),
    pages_case([[15]], 4, 4),
    pages_case([[15]], 4, 1),
    pages_case([[19]], 6, 5, 5),
    pages_case([[1]], 2, 4, 2),
    pages_case([[0], [5]], 1, 6),
    pages_case([[-1], [17]], 3, 2, 5),
    pages_case([run_of(8, 4)], 6),
    pages_case([run_of(8, 4), run_of(4, 3, 4)], 5),
    pages_case([run_of(0, 4), run_of(12, 4)], 9),
    pages_case([run_of(12, 4)], 3, 5),
    pages_case([run_of(16, 4), run_of(0, 2, 4)], 4, 6, 5),
    pages_case([run_of(13, 8)], 12, 1, 6),
    pages_case([run_of(6, 3)], None, 0, 3),
    pages_case([run_of(8, 2)], 4, 2, 6, 2),
    pages_case([run_of(2, 8), [-1] * 8], 4, 3, 3),
    pages_case([run_of(4, 8)], 3, 2, 3),
]


def say_pages(case: Case) -> str:
    lines = [f"{say_sizes(case)}, {some(case['pages'], 'page')}"]
    keys = range(case["pages"] * case["size"])
    for i, row in enumerate(case["position"]):
        queries = list(dict.fromkeys(row))
        rows = ["".join("■" if reads(case, q, k) else "□" for k in keys) for q in queries]
        if len(case["position"]) > 1:
            lines.append(f"row {i}")
        lines.append(grid(rows, queries, list(keys), rows, case["size"]))
    return "\n".join(lines)


EITHER = "▣"


def maps(
    case: Case,
    read: Reads = reads,
    covers: Sequence[Reads] = (in_window, among_sinks),
    some_query: Callable[[list[int]], list[int]] = list,
    every_query: Callable[[list[int]], list[int]] = list,
    change: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Signs of each page of each row.

    Args:
        read: what a query reads.
        covers: a page is full if one of these lets every query read all of it; where only all of them together do, it may
            be in either map.
        some_query, every_query: the queries that are asked for what is read at all, and for what is read wholly.
    """
    answer = []
    for row in case["position"]:
        signs = ""
        for page in range(case["pages"]):
            keys = range(page * case["size"], page * case["size"] + case["size"])
            is_listed = any(read(case, q, k) for q in some_query(row) for k in keys)
            full = [all(rule(case, q, k) for q in every_query(row) for k in keys) for rule in covers]
            whole = all(read(case, q, k) for q in every_query(row) for k in keys)
            signs += "■" if any(full) else "□" if not is_listed else EITHER if whole else "▨"
        answer.append(change(signs))
    return {"pages": answer}


def same_pages(_case: Case, expected: Any, answer: Any) -> bool:
    if "pages" not in expected or "pages" not in answer:
        return bool(expected == answer)
    pairs = zip(expected["pages"], answer["pages"], strict=True)
    return all(
        len(right) == len(got) and all(a == b or (a == EITHER and b in "■▨") for a, b in zip(right, got, strict=True))
        for right, got in pairs
    )


def draw_pages(case: Case, answer: Any) -> str:
    if "pages" not in answer:
        return "partial {}\nfull    {}".format(*answer["shapes"])
    right = maps(case)["pages"]
    legend = "■ full  ▨ partial  □ in neither"
    legend += "  ✗ in both" if "✗" in str(answer) else ""
    legend += f"  {EITHER} full or partial" if EITHER in str(answer) else ""
    lines = [legend, "       " + " ".join(str(page) for page in range(case["pages"]))]
    for i, (row, wanted) in enumerate(zip(answer["pages"], right, strict=True)):
        fits = same_pages(case, {"pages": [wanted]}, {"pages": [row]})
        lines.append(f"row {i}  {' '.join(row)}{'' if fits or row == wanted else ' ←'}")
    return "\n".join(lines)


@st.composite
def random_pages(draw: st.DrawFn) -> Case:
    size, T = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 6))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, T))
        rows.append([-1] * T if draw(st.integers(0, 4)) == 0 else run_of(draw(st.integers(0, 20)), n, T))
    window = draw(st.one_of(st.none(), st.integers(1, 12)))
    return pages_case(rows, window, draw(st.integers(0, 9)), up(max(map(max, rows)) + 2, size), size)


@pages.check(cases=PAGES, describe=say_pages, draw=draw_pages, same=same_pages, search=random_pages())
def pages_read(case: Case) -> dict[str, Any]:
    return maps(case)


def listed_page(case: Case, page: int, which_page: Callable[[Case, list[int]], int], row: list[int]) -> bool:
    return page == which_page(case, row)


def turned(case: Case, chosen: Callable[[Case, list[int], int], bool], sign: str = "■") -> dict[str, Any]:
    """Listed pages that are chosen get another sign."""
    answer = maps(case)["pages"]
    for i, row in enumerate(case["position"]):
        answer[i] = "".join(
            sign if old in "▨" + EITHER and chosen(case, row, page) else old for page, old in enumerate(answer[i])
        )
    return {"pages": answer}


def first_page(case: Case, row: list[int], page: int) -> bool:
    """The page in which the first query's window begins, where it is not the one of the last query."""
    if case["window"] is None:
        return False
    return page == max(0, row[0] - case["window"] + 1) // case["size"] and page < row[0] // case["size"]


def last_page(case: Case, row: list[int], page: int) -> bool:
    return page == row[-1] // case["size"]


def without_edge(head: bool, tail: bool, sinks: bool = False) -> Callable[[Case], Any]:
    """Full is what every query reads, where one edge of the interval is not asked for."""

    def cover(case: Case, q: int, k: int) -> bool:
        W, z = case["window"], case["size"]
        first = 0 if W is None else max(0, q - W + 1)
        low = first // z * z if head else first
        high = q // z * z + z - 1 if tail else q
        return q >= 0 and low <= k <= high

    def among(case: Case, q: int, k: int) -> bool:
        return (
            among_sinks(case, q, k)
            if not sinks
            else q >= 0 and k < up(min(case["sinks"], q + 1), case["size"]) * case["size"]
        )

    return lambda case: maps(case, covers=(cover, among))


predict(
    pages_read,
    "head-full",
    without_edge(head=True, tail=False),
    lambda case: turned(case, first_page),
    lambda case: turned(
        case, lambda case, row, page: first_page(case, row, page) and page * case["size"] >= case["sinks"]
    ),
    lambda case: maps(case, covers=(lambda c, q, k: q >= 0 and k <= q and reads_page(c, q, k), among_sinks)),
)


def reads_page(case: Case, q: int, k: int) -> bool:
    """Whether a token in the key's page is in the query's window."""
    z = case["size"]
    return any(in_window(case, q, key) for key in range(k // z * z, k // z * z + z))


predict(
    pages_read,
    "tail-full",
    without_edge(head=False, tail=True),
    lambda case: turned(case, last_page),
)
predict(
    pages_read, "all-full", without_edge(head=True, tail=True, sinks=True), lambda case: turned(case, lambda *_: True)
)


def any_sink(case: Case, q: int, k: int) -> bool:
    """Whether the key's page holds a sink that the query reads."""
    return q >= 0 and k // case["size"] * case["size"] < min(case["sinks"], q + 1)


predict(
    pages_read,
    "sinks-page-full",
    lambda case: maps(case, covers=(in_window, any_sink if case["window"] is not None else among_sinks)),
    lambda case: maps(
        case,
        covers=(
            in_window,
            lambda c, q, k: c["window"] is not None and k <= q and any_sink(c, q, k),
        ),
    ),
    lambda case: maps(
        case,
        covers=(
            in_window,
            lambda c, q, k: c["window"] is not None and q >= 0 and k < up(c["sinks"], c["size"]) * c["size"],
        ),
        read=lambda c, q, k: (
            reads(c, q, k) or (c["window"] is not None and q >= 0 and k < up(c["sinks"], c["size"]) * c["size"])
        ),
    ),
)
predict(pages_read, "sinks-forgotten", lambda case: maps(case, in_window, (in_window,)))


def future_sinks(case: Case, q: int, k: int) -> bool:
    return q >= 0 and (k < case["sinks"] and case["window"] is not None)


predict(
    pages_read,
    "sinks-from-the-future",
    *(
        (lambda case, c=cover: maps(case, lambda *at: reads(*at) or future_sinks(*at), (in_window, c)))
        for cover in (future_sinks, among_sinks)
    ),
)


def padding_too(case: Case, q: int, k: int) -> bool:
    return k < case["sinks"] and case["window"] is not None


predict(
    pages_read,
    "padding-reads",
    *(
        (lambda case, c=cover: maps(case, lambda *at: reads(*at) or (at[1] < 0 and padding_too(*at)), (in_window, c)))
        for cover in (
            among_sinks,
            lambda c, q, k: padding_too(c, q, k) if q < 0 else among_sinks(c, q, k),
        )
    ),
    *(
        (lambda case, c=cover: maps(case, lambda *at: reads(*at) or padding_too(*at), (in_window, c)))
        for cover in (padding_too, among_sinks)
    ),
    lambda case: maps(
        {**case, "position": [[max(0, q) for q in row] for row in case["position"]]},
    ),
)
predict(
    pages_read,
    "in-both",
    lambda case: maps(case, change=lambda signs: signs.replace("■", "✗")),
    lambda case: both_by_parts(case),
)


def both_by_parts(case: Case) -> dict[str, Any]:
    """Partial and full of window and sinks joined, without taking out what is full."""
    window = maps(case, in_window, (in_window,))["pages"]
    sinks = maps(case, among_sinks, (among_sinks,))["pages"]
    if case["window"] is None or not case["sinks"]:
        return {"pages": window}
    joined = []
    for a, b in zip(window, sinks, strict=True):
        cells = zip(a, b, strict=True)
        joined.append("".join("✗" if {x, y} == {"■", "▨"} else max(x, y, key="□▨■".index) for x, y in cells))
    return {"pages": joined}


def any_query(*rules: Reads) -> Callable[[Case], Any]:
    """A page is full if one query of the row reads all of it."""

    def of(case: Case) -> Any:
        answer = []
        for row, right in zip(case["position"], maps(case)["pages"], strict=True):
            z = case["size"]
            whole = [
                any(all(rule(case, q, k) for k in range(p * z, p * z + z)) for q in row for rule in rules)
                for p in range(case["pages"])
            ]
            answer.append("".join("■" if w else sign for w, sign in zip(whole, right, strict=True)))
        return {"pages": answer}

    return of


predict(
    pages_read,
    "one-for-all",
    any_query(in_window, among_sinks),
    any_query(reads),
    lambda case: maps(case, covers=(hull_window, hull_sinks)),
    lambda case: maps(case, covers=(in_window, among_sinks), every_query=lambda row: row[:1]),
    lambda case: maps(case, covers=(in_window, among_sinks), every_query=lambda row: row[-1:]),
)


def row_of(case: Case, q: int) -> list[int]:
    return next(row for row in case["position"] if q in row)


def hull_window(case: Case, q: int, k: int) -> bool:
    """Between the earliest beginning of a window and the latest query of the row that q is in."""
    return any(in_window(case, other, k) for other in row_of(case, q))


def hull_sinks(case: Case, q: int, k: int) -> bool:
    return among_sinks(case, max(row_of(case, q)), k)


predict(
    pages_read,
    "one-query-only",
    *(
        (lambda case, of=of: maps(case, some_query=of, every_query=of))
        for of in (lambda row: row[:1], lambda row: row[-1:])
    ),
    *(
        (lambda case, of=of: maps(case, some_query=of, every_query=lambda row: row))
        for of in (lambda row: row[:1], lambda row: row[-1:])
    ),
)


def everything(case: Case, q: int, k: int) -> bool:
    return k <= q if case["sinks"] else in_window(case, q, k)


predict(
    pages_read,
    "gap-listed",
    lambda case: maps(case, everything, (everything,)),
    lambda case: maps(case, everything),
    lambda case: maps(case, lambda c, q, k: k <= q),
    lambda case: maps(case, lambda c, q, k: k <= q, (lambda c, q, k: k <= q,)),
)


def moved(by: int) -> Callable[[Case], Any]:
    return lambda case: maps({**case, "window": case["window"] and max(0, case["window"] + by)})


predict(pages_read, "window-plus-one", moved(1))
predict(pages_read, "one-short", moved(-1))
predict(
    pages_read,
    "never-full",
    lambda case: maps(case, change=lambda signs: signs.replace("■", "▨")),
    lambda case: maps(case, covers=(in_window,)),
    lambda case: maps(case, covers=(among_sinks,)),
)
predict(
    pages_read,
    "maps-swapped",
    lambda case: maps(case, change=lambda signs: signs.translate(str.maketrans("■▨▣", "▨■▣"))),
)


pages_read.shows("none-window")(without_window)


@pages_read.shows("no-middle-axis")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and "shapes" in answer


engine_check(
    pages,
    "by_pages",
    [
        run(8),
        run(3, 2),
        run(6, 5, n=30),
        run(6, 5, prompts=[LONG], max_prefill_tokens=40),
        run(7, 9, size=8, prompts=[LONG, PROMPT]),
        run(5, 1, model="gemma2"),
    ],
)

# ==================================================================================================== 9.6 narrowed

narrow = Exercise(
    "9.6",
    section="Layers that read everything",
    hints=(
        "Go through the layers one by one: what does the docstring say of this one, in a model that has local layers, and in "
        "one that has none?",
        "Compare layer by layer. Is the window of one wider than it was trained with, was a global layer made local, or does "
        "one keep what should have become narrower?",
        "No window wanted: as they are. No local layer at all: the wanted window everywhere. Else the smaller of the two in "
        "each local layer, and None stays None.",
    ),
    preload=PRELOAD,
)
narrow.mistake(
    "global-layers",
    "Does every layer of this model slide? What would a global layer be without its beginning?",
    "Global layers of a model that has local ones were given a window, and their pages would go.",
    "Where the model has a local layer, None stays None.",
)
narrow.mistake(
    "wider-than-own",
    "The layer was trained to read 32 keys. What happens if it suddenly reads 64?",
    "A local layer reads more than it was trained with.",
    "Take the smaller of the layer's own window and the wanted one.",
)
narrow.mistake(
    "largest-taken",
    "Which of two windows lets a layer read less?",
    "The larger of the two windows was taken.",
    "Take the smaller one.",
)
narrow.mistake(
    "none-wanted",
    "What does None mean in `wanted`?",
    "Without a wanted window the layers do not keep their own, or the comparison with None fails.",
    "Nothing wanted: give back each layer's window as it is.",
)
narrow.mistake(
    "nothing-imposed",
    "A model without local layers was given a window. What should its layers read?",
    "A model whose layers all read everything stays as it is.",
    "If no layer has a window of its own, each gets the wanted one.",
)
narrow.mistake(
    "local-untouched",
    "Why would one ask for a window below the model's own?",
    "The local layers keep a window that is wider than the wanted one.",
    "A local layer reads at most what is wanted.",
)
narrow.mistake(
    "first-decides",
    "Which layer is local: must it be the first one?",
    "One layer was asked whether the model has local layers, and it was not the right one to ask.",
    "Ask all of them: a single local layer is enough.",
)
narrow.mistake(
    "one-for-all",
    "May two local layers of a model have different windows?",
    "All local layers came out with the same window.",
    "Compare each layer's own window with the wanted one.",
)
narrow.mistake(
    "layers-lost",
    "How many layers go in, and how many windows come out?",
    "There is not one window a layer any more.",
    "Give back a window or None for every layer, in order.",
)

Windows = list[int | None]


def narrow_case(own: Windows, wanted: int | None) -> Case:
    return {"own": own, "wanted": wanted}


NARROW = [
    narrow_case([None, None], 64),
    narrow_case([4096, None], 64),
    narrow_case([32, None], 64),
    narrow_case([32, None], None),
    narrow_case([None, None], None),
    narrow_case([None], 1),
    narrow_case([None, 4096], 64),
    narrow_case([None, None, 100, None], 8),
    narrow_case([4096, 4096, 4096], 64),
    narrow_case([32, 32], 64),
    narrow_case([100, 50, None, 20], 40),
    narrow_case([20, 50, None, 100], 64),
    narrow_case([64, None], 64),
    narrow_case([512, 1024, 512, None], None),
]


@narrow.check(
    cases=NARROW,
    describe=lambda case: f"narrowed({case['own']}, {case['wanted']})",
    search=st.builds(
        narrow_case,
        st.lists(st.one_of(st.none(), st.integers(1, 20)), min_size=1, max_size=5),
        st.one_of(st.none(), st.integers(1, 20)),
    ),
)
def windows(case: Case) -> Windows:
    own, wanted = case["own"], case["wanted"]
    local = [one for one in own if one is not None]
    if wanted is None:
        return list(own)
    if not local:
        return [wanted for _ in own]
    return [None if one is None else min(one, wanted) for one in own]


Narrowing = Callable[[Windows, int], Any]


def narrows(slug: str, *ways: Narrowing) -> None:
    """Mistakes that leave alone what nobody wants narrowed."""
    predict(
        windows,
        slug,
        *(
            (lambda case, way=way: list(case["own"]) if case["wanted"] is None else way(case["own"], case["wanted"]))
            for way in ways
        ),
    )


def is_full(own: Windows) -> bool:
    return all(one is None for one in own)


def each(own: Windows, wanted: int, local: Callable[[int], int | None], layer: int | None = None) -> Windows:
    """Local layers by a rule; global ones `layer`; a model without local layers gets what is wanted."""
    return [wanted] * len(own) if is_full(own) else [layer if one is None else local(one) for one in own]


narrows(
    "global-layers",
    lambda own, wanted: each(own, wanted, lambda one: min(one, wanted), wanted),
    lambda own, wanted: [wanted] * len(own),
    lambda own, wanted: [wanted if one is None else one for one in own],
    lambda own, wanted: [min([wanted, *(one for one in own if one is not None)])] * len(own),
)
narrows("wider-than-own", lambda own, wanted: each(own, wanted, lambda one: wanted))
narrows("largest-taken", lambda own, wanted: each(own, wanted, lambda one: max(one, wanted)))
narrows(
    "nothing-imposed",
    lambda own, wanted: [None if one is None else min(one, wanted) for one in own],
    lambda own, wanted: list(own),
    lambda own, wanted: [None if one is None else wanted for one in own],
)
narrows("local-untouched", lambda own, wanted: each(own, wanted, lambda one: one))
narrows(
    "first-decides",
    *(
        (
            lambda own, wanted, at=at: (
                [wanted] * len(own) if own[at] is None else [None if one is None else min(one, wanted) for one in own]
            )
        )
        for at in (0, -1)
    ),
    lambda own, wanted: (
        [wanted] * len(own)
        if any(one is None for one in own)
        else [None if one is None else min(one, wanted) for one in own]
    ),
)
narrows(
    "one-for-all",
    *(
        (lambda own, wanted, of=of: each(own, wanted, lambda _: min(wanted, of([one for one in own if one]))))
        for of in (min, max, lambda local: local[0], lambda local: local[-1])
    ),
)


@windows.shows("none-wanted")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return case["wanted"] is None


@windows.shows("layers-lost")
def _(case: Case, _expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and len(answer) != len(case["own"])


engine_check(
    narrow,
    "layers_that_differ",
    [
        run(5, n=24),
        run(5, model="gemma2", n=24),
        run(20, model="gemma2", n=24),
        run(5, 3, model="gemma2", n=60, prompts=[PROMPT, OTHERS[1]]),
    ],
)
