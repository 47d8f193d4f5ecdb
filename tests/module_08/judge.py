"""What is right in module 08, how it is drawn, and what each common mistake would give.

Everything here is lists, dicts and loops: no tensor, and nothing of the package that is graded.  `Index` and `Books` play
what the docstrings say; a mistake is played by the same code with one of its habits changed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Check, Exercise, is_raised, raises

Case = dict[str, Any]
PRELOAD = ("torch.nn.attention.flex_attention", "transformers", "transformers.models.llama.modeling_llama")
"""What the drive and the engine need; imported once for all."""


def predict(check: Check, slug: str, *ways: Callable[[Case], Any]) -> None:
    """Several ways of making one mistake."""
    for way in ways:
        check.predicts(slug)(way)


def some(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def names(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def boxes(pages: Iterable[object]) -> str:
    return "[ " + " | ".join(str(page) if page else "·" for page in pages) + " ]"


def spaced(tokens: Iterable[object]) -> str:
    return " ".join(map(str, tokens)) or "nothing"


def table_of(*rows: tuple[str, object]) -> str:
    """Names and values, one below the other; what has no value is left out."""
    shown = [(name, value) for name, value in rows if value not in ("", None)]
    wide = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{wide}}  {value}" for name, value in shown)


# ==================================================================================================== an engine
#
# The last check of each exercise serves requests with the exercise among right neighbours.  A case says in numbers what
# has to come out: the tokens found in shared pages (`cached`), and the most pages owned at once in each round (`held`).

LETTERS = "ABCDEFGHIJ"
COMMON = [1, 2, 3, 4, 5, 6, 7, 8]  # two full pages
OTHER, THIRD = [21, 22, 23, 24, 25, 26, 27, 28], [31, 32, 33, 34, 35, 36, 37, 38]


def ask(*prompt: int, new: int = 3, samples: int = 1) -> dict[str, Any]:
    return {"prompt": list(prompt), "new": new, "samples": samples}


def rounds(
    *rounds: list[dict[str, Any]],
    cached: list[list[int]],
    held: list[int],
    pool: int = 20,
    hash: str = "",
    gives_way: bool = False,
) -> Case:
    return {
        "rounds": list(rounds),
        "cached": cached,
        "held": held,
        "pool": pool,
        "hash": hash,
        "gives_way": gives_way,
    }


# Three prompts with two common pages and a token of their own: 2 pages and 3 tails.
TOGETHER = rounds(
    [ask(*COMMON, 9), ask(*COMMON, 10), ask(*COMMON, 11)],
    [ask(*COMMON, 12), ask(*COMMON, 13, 14)],
    cached=[[0, 8, 8], [8, 8]],
    held=[5, 4],
)
# The second comes when the first has ended; the third begins otherwise; the fourth finds the first's pages still there.
IN_TURN = rounds(
    [ask(*COMMON, 9)],
    [ask(*COMMON, 10)],
    [ask(*OTHER[:4], 9)],
    [ask(*COMMON, 11)],
    cached=[[0], [8], [0], [8]],
    held=[3, 3, 2, 3],
)
# The same second page behind another first one: other keys and values.
OTHER_FIRST = rounds(
    [ask(*COMMON, 9)],
    [ask(*OTHER[:4], *COMMON[4:], 9)],
    [ask(*COMMON[4:], 9)],
    cached=[[0], [0], [0]],
    held=[3, 3, 2],
)
# One token is always left to compute, in a copy of the page that it lies in.
ALL_OF_IT = rounds(
    [ask(*COMMON)],
    [ask(*COMMON)],
    [ask(*COMMON), ask(*COMMON)],
    cached=[[0], [7], [7, 7]],
    held=[3, 3, 5],
)
# Six tokens in common: a page and a half.  Whoever goes on writes into a copy of the half.
HALF = rounds(
    [ask(*COMMON, 9)],
    [ask(*COMMON[:6], 9, 10, 11)],
    [ask(*COMMON[:6], 12), ask(*COMMON[:6], 13), ask(*COMMON, 14)],
    cached=[[0], [6], [6, 6, 8]],
    held=[3, 3, 5],
)
# A page that a request filled as it went on is found too, here by its first two tokens.
OUTPUT = rounds([ask(1, 2, 3, new=6)], [ask(1, 2, 3, new=6)], cached=[[0], [2]], held=[2, 2])
SAMPLES = rounds(
    [ask(*COMMON, 9, samples=3)],
    [ask(*COMMON, samples=2)],
    cached=[[0, 8, 8], [7, 7]],
    held=[5, 5],
)
# A pool of 6.  The third round takes the first prompt's pages out of the oldest place; the fifth finds no free page and
# takes the end of the second prompt, whose beginning is found in the last round.
OLDEST = rounds(
    [ask(*COMMON, new=1)],
    [ask(*OTHER, new=1)],
    [ask(*COMMON, new=1)],
    [ask(*THIRD, new=1)],
    [ask(*COMMON, 9, new=1)],
    [ask(*OTHER, 9)],
    cached=[[0], [0], [7], [0], [8], [4]],
    held=[0, 0, 0, 0, 0, 3],
    pool=6,
)
# A pool of 3.  The second prompt takes a free page and the end of the first prompt.
END_FIRST = rounds(
    [ask(*COMMON, new=1)],
    [ask(*OTHER[:5])],
    [ask(*COMMON, 9)],
    cached=[[0], [0], [4]],
    held=[0, 2, 3],
    pool=3,
)
# A pool of 3, and never the same prompt: each page is taken again and again.
USED_UP = rounds(
    [ask(*COMMON)],
    [ask(*OTHER)],
    [ask(*COMMON[4:], *COMMON[:4])],
    [ask(*COMMON)],
    cached=[[0], [0], [0], [0]],
    held=[3, 3, 3, 3],
    pool=3,
)
TOO_MANY = rounds(
    [ask(*COMMON, 9, new=10), ask(*COMMON, 10, new=10), ask(*COMMON, 11, new=10), ask(*OTHER[:4], new=10)],
    [ask(*COMMON, 9, new=10), ask(*OTHER[:4], new=10)],
    cached=[],
    held=[],
    pool=6,
    gives_way=True,
)
# Every page has the same key: the newest entry is the only one.
SAME_KEY = rounds(
    [ask(1, 2, 3, 4, 9)],
    [ask(1, 2, 3, 4, 9)],
    [ask(5, 6, 7, 8, 9)],
    [ask(1, 2, 3, 4, 9), ask(5, 6, 7, 8, 9)],
    cached=[[0], [4], [0], [0, 0]],
    held=[2, 2, 2, 4],
    hash="7",
)
# Keys are sums: the second prompt has those of the first.
SAME_SUM = rounds(
    [ask(*COMMON, 9)],
    [ask(2, 1, 4, 3, 5, 6, 7, 8, 9)],
    [ask(*COMMON, 10)],
    cached=[[0], [0], [0]],
    held=[3, 3, 3],
    hash="sum",
)
NOT_SHARED = "as without sharing"
"""What the drive says of tokens that are those of an engine without sharing."""


def say_rounds(case: Case) -> str:
    letters = iter(LETTERS)

    def said(one: dict[str, Any]) -> str:
        samples = f" ({one['samples']} samples)" if one["samples"] > 1 else ""
        return f"{next(letters)} = {spaced(one['prompt'])}{samples}, {one['new']} new"

    lines = []
    for i, asked in enumerate(case["rounds"]):
        for j, one in enumerate(asked):
            lines.append(f"{'' if j else 'then' if i else 'first':<5}  {said(one)}")
    key = {"": "", "sum": "; hash_page is the sum of all tokens so far", "7": "; hash_page is always 7"}[case["hash"]]
    return "\n".join([f"an engine with prefix sharing, pages of 4 tokens, {case['pool']} of them{key}", *lines])


def draw_rounds(case: Case, answer: dict[str, Any]) -> str:
    letters, lines = iter(LETTERS), []
    for i, (asked, tokens) in enumerate(zip(case["rounds"], answer["tokens"], strict=True)):
        owners = [letter for one in asked for letter in [next(letters)] * one["samples"]]
        for j, (letter, said) in enumerate(zip(owners, tokens, strict=True)):
            found = f", {answer['cached'][i][j]} tokens found" if "cached" in answer else ""
            lines.append(f"{letter}: {said}{found}")
        if "pages" in answer and answer["pages"][i]:
            lines.append(f"   {some(answer['pages'][i], 'page')} in use")
    if "gave_way" in answer:
        lines.append(f"somebody had to give way: {'yes' if answer['gave_way'] else 'no'}")
    lines.append(f"left at the end: {answer['left']} of {case['pool']} pages")
    return "\n".join(lines)


def served(case: Case) -> dict[str, Any]:
    tokens = [[NOT_SHARED] * sum(one["samples"] for one in asked) for asked in case["rounds"]]
    if case["gives_way"]:
        return {"tokens": tokens, "left": case["pool"], "gave_way": True}
    return {"tokens": tokens, "cached": case["cached"], "pages": case["held"], "left": case["pool"]}


def in_an_engine(exercise: Exercise, *cases: Case) -> Check:
    """The check that serves requests: that one exercise is the learner's, all else is right."""
    return exercise.check(cases=cases, describe=say_rounds, draw=draw_rounds)(served)


# ==================================================================================================== 8.1 pages_of

pages_of = Exercise(
    "8.1",
    section="What a page depends on",
    hints=(
        "Write the tokens in a row, draw a line behind each `page_size` of them, and read off what stands between two lines.",
        "Compare page by page: how many there are, what is in each, in which order, and where the last tokens went.",
        "For each whole multiple of `page_size` within the length: the tuple of the `page_size` tokens that end there.",
    ),
    preload=PRELOAD,
)
pages_of.mistake(
    "keeps-the-rest",
    "The sequence will write one more token into its last page. Would that page still hold what its key says?",
    "The tokens left over at the end came out as a page, though the page is not full.",
    "Leave out what is shorter than `page_size`.",
)
pages_of.mistake(
    "drops-the-last",
    "Pages of 2 tokens and a sequence of 4: how many pages are full?",
    "Where the length is a multiple of `page_size`, the last full page is missing.",
    "Let the last page end at the length itself: the end of a range is not in it.",
)
pages_of.mistake(
    "overlapping",
    "In how many pages does one token lie?",
    "Pages begin at every token, so that most tokens are in several.",
    "Go on by `page_size`, not by one.",
)
pages_of.mistake(
    "from-the-beginning",
    "What is in the second page, and what is before it? Both count for its key, but not in the same place.",
    "Each tuple holds everything up to the end of its page.",
    "Cut each page at its own beginning, too; the chained key takes care of what comes before.",
)
pages_of.mistake(
    "lists",
    "A page's tokens are hashed. Which sequences of Python can be?",
    "The pages are of another type than the signature says.",
    "Make a tuple of each page.",
)
pages_of.mistake(
    "padded",
    "Which token is the one that nobody sent?",
    "The last page was filled up with a token of your own, so that it looks full.",
    "Leave a page that is not full out, instead of filling it.",
)
pages_of.mistake(
    "takes-the-tokens",
    "Whose list is that, and who needs it afterwards?",
    "The list that was passed in has lost its tokens.",
    "Read from the list by slices or by index, and take nothing out.",
)
pages_of.mistake(
    "lists-only",
    "`token_ids` is any sequence. What do your operations do with a tuple or a range?",
    "It works with a list and with no other sequence.",
    "Use what every sequence can do: length, index, slice. Or make a list of it first.",
)


def cut_at(tokens: Sequence[int], size: int) -> list[list[int]]:
    return [list(tokens[i : i + size]) for i in range(0, len(tokens) - size + 1, size)]


def tokens_case(size: int, *tokens: int, kind: str = "list") -> Case:
    return {"size": size, "tokens": list(tokens), "kind": kind}


def draw_pages(_case: Case, answer: list[list[int]]) -> str:
    return " ".join(f"({spaced(page)})" for page in answer) or "no page"


@pages_of.check(
    cases=[
        tokens_case(2, 5, 6, 7),
        tokens_case(2, 5, 6, 7, 8),
        tokens_case(2, 5),
        tokens_case(2),
        tokens_case(2, 5, 6),
        tokens_case(4, 5, 6, 7, 8, 9, 1),
        tokens_case(4, 5, 6, 7, 8, 9, 1, 2, 3),
        tokens_case(1, 7, 5, 7),
        tokens_case(2, 9, 8, 9, 8, 9, 8, 1),
        tokens_case(8, *range(20, 0, -1)),
    ],
    describe=lambda case: f"page_size {case['size']}, tokens {spaced(case['tokens'])}",
    draw=draw_pages,
    search=st.fixed_dictionaries(
        {
            "size": st.sampled_from([1, 2, 4, 8]),
            "tokens": st.lists(st.integers(0, 9), max_size=30),
            "kind": st.just("list"),
        }
    ),
)
def cut(case: Case) -> list[list[int]]:
    return cut_at(case["tokens"], case["size"])


def with_rest(case: Case, pad: int | None = None) -> list[list[int]]:
    pages = cut_at(case["tokens"], case["size"])
    rest = case["tokens"][len(pages) * case["size"] :]
    if rest and pad is not None:
        rest = rest + [pad] * (case["size"] - len(rest))
    return [*pages, rest] if rest else pages


def empty_rest(case: Case) -> list[list[int]]:
    """The rest always, an empty one too."""
    pages = cut_at(case["tokens"], case["size"])
    return [*pages, case["tokens"][len(pages) * case["size"] :]]


predict(cut, "keeps-the-rest", with_rest, empty_rest)
predict(cut, "padded", *(lambda case, pad=pad: with_rest(case, pad) for pad in (0, -1)))
predict(
    cut,
    "drops-the-last",
    lambda case: cut_at(case["tokens"][:-1], case["size"]),
    lambda case: cut_at(case["tokens"], case["size"])[:-1],
)
predict(
    cut,
    "overlapping",
    lambda case: [case["tokens"][i : i + case["size"]] for i in range(len(case["tokens"]) - case["size"] + 1)],
    lambda case: [
        page
        for i in range(len(case["tokens"]))
        if len(page := case["tokens"][i : i + case["size"]]) == case["size"] or i % case["size"] == 0
    ],
)
predict(
    cut,
    "from-the-beginning",
    lambda case: [case["tokens"][: (i + 1) * case["size"]] for i in range(len(case["tokens"]) // case["size"])],
)


@cut.shows("lists")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and "not a tuple" in answer["message"]


@pages_of.check(
    cases=[
        tokens_case(2, 5, 6, 7, kind="range"),
        tokens_case(2, 5, 9, 7, 8, 3, kind="tuple"),
        tokens_case(4, *range(9), kind="range"),
    ],
    describe=lambda case: f"page_size {case['size']}, a {case['kind']} of tokens {spaced(case['tokens'])}",
    draw=draw_pages,
)
def other_kinds(case: Case) -> list[list[int]]:
    return cut_at(case["tokens"], case["size"])


@other_kinds.shows("lists-only")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and "not a tuple" not in answer["message"]


@pages_of.check(
    cases=[tokens_case(2, 5, 6, 7), tokens_case(2, 5, 6), tokens_case(4, 5, 6, 7, 8, 9)],
    describe=lambda case: f"page_size {case['size']}, the list {spaced(case['tokens'])}, read again after the call",
    draw=lambda _case, answer: f"the list holds {spaced(answer)}",
)
def left_alone(case: Case) -> list[int]:
    return case["tokens"]


left_alone.shows("takes-the-tokens")(lambda case, expected, answer: not is_raised(answer))
in_an_engine(pages_of, TOGETHER, ALL_OF_IT, HALF)

# ==================================================================================================== an index
#
# Entries come as {"after": page of the entry before, 0 for none; "tokens", "page"}, or {"forget": page}.


def digits(parent: int, tokens: Sequence[int]) -> int:
    return functools.reduce(lambda key, token: 10 * key + token, tokens, parent)


HASHES: dict[str, Callable[[int, Sequence[int]], int]] = {
    "digits": digits,
    "sum": lambda parent, tokens: parent + sum(tokens),
    "own": lambda _parent, tokens: digits(0, tokens),
    "7": lambda _parent, _tokens: 7,
}
SAID = {
    "digits": "",
    "sum": "hash_page is the sum of all tokens so far; ",
    "own": "hash_page looks at the page's own tokens only; ",
    "7": "hash_page is always 7; ",
}


@dataclass(frozen=True)
class Known:
    """An entry."""

    number: int
    parent: int
    key: int
    tokens: tuple[int, ...]
    page: int


NONE = Known(0, 0, 0, (), 0)


class Index:
    """What the given parts of the index do."""

    def __init__(self, case: Case) -> None:
        self.size, self.hash = case["size"], HASHES[case["hash"]]
        self.by_key: dict[int, Known] = {}
        self.by_page: dict[int, Known] = {}
        self.count = 0
        known = {0: NONE}
        for one in case["entries"]:
            if "forget" in one:
                self.forget(one["forget"])
            else:
                before = known[one["after"]]
                known[one["page"]] = self.enter(
                    before, self.hash(before.key, one["tokens"]), one["tokens"], one["page"]
                )

    def enter(self, before: Known, key: int, tokens: Sequence[int], page: int) -> Known:
        self.count += 1
        entry = Known(self.count, before.number, key, tuple(tokens), page)
        self.by_key[key] = self.by_page[page] = entry
        return entry

    def forget(self, page: int) -> None:
        entry = self.by_page.pop(page, None)
        if entry is not None:
            del self.by_key[entry.key]

    def run(self, tokens: Sequence[int]) -> list[Known]:
        """The run of pages that hold the beginning of these tokens."""
        found, before = [], NONE
        for page in cut_at(tokens, self.size):
            entry = self.by_key.get(self.hash(before.key, page))
            if entry is None or list(entry.tokens) != page or entry.parent != before.number:
                break
            found.append(entry)
            before = entry
        return found

    def contents(self) -> dict[str, Any]:
        everyone = [*self.by_page.values(), *self.by_key.values()]
        before = {one.number: one.page for one in everyone} | {0: 0}
        return {
            "pages": [
                [page, list(one.tokens), one.key, before.get(one.parent, -1)]
                for page, one in sorted(self.by_page.items())
            ],
            "keys": sorted([key, one.page] for key, one in self.by_key.items()),
        }


def entry(after: int, *tokens: int, page: int) -> dict[str, Any]:
    return {"after": after, "tokens": list(tokens), "page": page}


def gone(page: int) -> dict[str, Any]:
    return {"forget": page}


def chain(*parts: tuple[int, list[int]]) -> list[dict[str, Any]]:
    """Entries one behind the other: (page, tokens) each."""
    pages = [0, *(page for page, _ in parts)]
    return [entry(pages[i], *tokens, page=page) for i, (page, tokens) in enumerate(parts)]


def say_entries(case: Case) -> str:
    said = []
    for one in case["entries"]:
        if "forget" in one:
            said.append(f"page {one['forget']} is forgotten")
        else:
            behind = f" behind page {one['after']}" if one["after"] else ""
            said.append(f"page {one['page']} holds {spaced(one['tokens'])}{behind}")
    return SAID[case["hash"]] + (", ".join(said) if said else "nothing is known yet")


# ==================================================================================================== 8.2 lookup

lookup = Exercise(
    "8.2",
    section="Finding a beginning",
    hints=(
        "Do the case by hand, page by page from the first on: what is its key, which entry has that key, and is it the one?",
        "Compare the pages found with the expected ones: which is the first that differs, and which of the three conditions "
        "(a key that is there, equal tokens, the entry before as parent) decides about it?",
        "Walk over the full pages. Make the key out of that of the entry before, get its entry, stop at the first that is "
        "missing or not the right one, and remember each that you take as the one before the next.",
    ),
    preload=PRELOAD,
)
lookup.mistake(
    "hole",
    "A page in the middle is not known. What would attention read where it should lie?",
    "The search goes on behind a page that was not found.",
    "Stop at the first page that is not found.",
)
lookup.mistake(
    "orphan-hash",
    "Two prompts have the same second page behind different first ones. Are its keys and values the same?",
    "The key is made without that of the page before, so that it is not the key that was entered.",
    "Give `hash_page` the key of the entry before, and 0 only for the first page.",
)
lookup.mistake(
    "chains-the-number",
    "`hash_page` takes the key of the page before. What is in its place?",
    "Keys are chained by another field of the entry before.",
    "Pass on the `key` of the entry before.",
)
lookup.mistake(
    "trusts-the-key",
    "Two different pages may have the same key. Where would you see it?",
    "An entry counts because its key is equal, though it holds other tokens.",
    "Compare the entry's tokens with those of the page.",
)
lookup.mistake(
    "any-parent",
    "The tokens of this page are right. Are those before it, too?",
    "The entry stands behind another page than the one that was found before it: its `parent` says so.",
    "Take an entry only if its `parent` is the `number` of the entry before, which is that of `ROOT` for the first.",
)
lookup.mistake(
    "other-parent",
    "What does `parent` hold: a number, a key, a page, a place?",
    "Pages are refused, or taken, because `parent` is compared with something that it does not hold.",
    "Compare it with the `number` of the entry before.",
)
lookup.mistake(
    "leaves-the-last",
    "A prompt ends with its last full page. Does that page hold the beginning of these tokens?",
    "The last page is not looked for. That a token is left to compute is `find`'s business, which cuts the prompt before.",
    "Look up all full pages of the tokens that were given.",
)
lookup.mistake(
    "no-default",
    "Most pages of most prompts are unknown. What does your look-up do then?",
    "A key that is not there leads to an error.",
    "Ask in a way that a missing key is an answer, and stop there.",
)
lookup.mistake(
    "other-hash",
    "Which function makes the keys of this index? Its caller may have put in another one.",
    "Nothing is found, since the keys come from another function than those of the entries.",
    "Call `self.hash_page`.",
)
lookup.mistake(
    "not-entries",
    "What is in the list that comes back?",
    "Something else than entries is returned; the caller wants to know their numbers and keys too.",
    "Return the entries as they are.",
)
lookup.mistake(
    "changes-the-index",
    "Looking is a question. Is the index the same afterwards?",
    "Entries have come or gone.",
    "Only read from `by_key`.",
)


def looked(entries: list[dict[str, Any]], *prompt: int, size: int = 2, hash: str = "digits") -> Case:
    return {"entries": entries, "prompt": list(prompt), "size": size, "hash": hash}


TWO = chain((7, [1, 2]), (3, [3, 4]))
THREE = [*TWO, entry(3, 5, 6, page=8)]
LOOKUPS = [
    looked(TWO, 1, 2, 3, 4, 5),
    looked(TWO, 1, 2),
    looked(TWO, 1, 2, 3, 4),
    looked([], 1, 2, 3),
    looked(TWO, 1),
    looked(TWO, 3, 4),
    looked(TWO, 1, 2, 5, 6),
    looked([*THREE, gone(3)], 1, 2, 3, 4, 5, 6, 7),
    looked(TWO, 1, 2, 9, 9, 3, 4),
    looked([*TWO, gone(7)], 1, 2, 3, 4),
    looked([entry(0, 1, 2, page=7)], 1, 2, 1, 2, 1, 2),
    looked([entry(0, 9, 9, page=1), entry(0, 8, 8, page=2), *TWO], 1, 2, 3, 4),
    looked([entry(0, 1, 4, page=5)], 2, 3, hash="sum"),
    looked([entry(0, 1, 4, page=5), entry(5, 6, 6, page=8)], 2, 3, 6, 6, hash="sum"),
    looked([entry(0, 1, 4, page=5), entry(5, 6, 6, page=8), gone(5), entry(0, 2, 3, page=9)], 2, 3, 6, 6, hash="sum"),
    looked([entry(0, 1, 2, page=7), entry(7, 3, 4, page=3), gone(7), entry(0, 1, 2, page=4)], 1, 2, 3, 4),
    looked(TWO, 3, 4, 1, 2, hash="own"),
    looked(TWO, 1, 2, 3, 4, 3, 4, hash="own"),
    looked([entry(0, 1, 2, page=7)], 1, 2, 3, 4, hash="7"),
    looked([entry(0, 1, 2, page=7)], 3, 4, hash="7"),
    looked(chain((2, [1]), (1, [1]), (3, [1])), 1, 1, 1, 1, size=1),
    looked(chain((5, [1, 2, 3, 4]), (2, [5, 6, 7, 8]), (9, [1, 2, 3, 4])), 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, size=4),
    looked(chain((1, [1, 2]), (2, [3, 4]), (3, [5, 6]), (4, [7, 8])), 1, 2, 3, 4, 5, 6, 7, 8),
]


def say_lookup(case: Case) -> str:
    return f"pages of {some(case['size'], 'token')}; {say_entries(case)}; lookup of {spaced(case['prompt'])}"


def look(
    case: Case,
    chained: str = "key",
    tokens: bool = True,
    parent: str = "number",
    goes_on: bool = False,
    missing: str = "",
) -> Any:
    """Look up with other habits.

    chained: what of the entry before goes into the key: "key", "number", "nothing", or "computed" by the prompt's own pages.
    tokens: whether an entry must hold the page's tokens.
    parent: what `parent` is compared with: "number", "key", "page", "found" (how many), or "" for nothing.
    missing: the error that a missing key leads to.
    """
    index, found, before, key = Index(case), [], NONE, 0
    for page in cut_at(case["prompt"], case["size"]):
        start = {"key": before.key, "number": before.number, "nothing": 0, "computed": key}[chained]
        key = index.hash(start, page)
        one = index.by_key.get(key)
        if one is None and missing:
            return raises(missing)
        wanted = {"number": before.number, "key": before.key, "page": before.page, "found": len(found)}
        if one is None or (tokens and list(one.tokens) != page) or (parent and one.parent != wanted[parent]):
            if goes_on:
                continue
            break
        found.append(one)
        before = one
    return [one.page for one in found]


def draw_found(_case: Case, answer: list[int]) -> str:
    return f"page{'s' if len(answer) > 1 else ''} {names(answer)}" if answer else "no page"


@lookup.check(cases=LOOKUPS, describe=say_lookup, draw=draw_found)
def found(case: Case) -> list[int]:
    return [one.page for one in Index(case).run(case["prompt"])]


predict(
    found,
    "hole",
    *(
        (lambda case, by=by: look(case, goes_on=True, **by))
        for by in (
            {},
            {"chained": "computed"},
            {"chained": "computed", "parent": ""},
            {"chained": "computed", "parent": "", "tokens": False},
            {"parent": ""},
        )
    ),
)
predict(
    found,
    "orphan-hash",
    *((lambda case, by=by: look(case, chained="nothing", parent=by)) for by in ("number", "")),
    lambda case: look(case, chained="nothing", parent="", tokens=False),
)
predict(
    found,
    "chains-the-number",
    *((lambda case, by=by: look(case, chained="number", parent=by)) for by in ("number", "")),
)
predict(
    found,
    "trusts-the-key",
    lambda case: look(case, tokens=False),
    lambda case: look(case, tokens=False, parent=""),
)
predict(found, "any-parent", lambda case: look(case, parent=""))
predict(found, "other-parent", *((lambda case, by=by: look(case, parent=by)) for by in ("key", "page", "found")))
predict(found, "leaves-the-last", lambda case: look({**case, "prompt": case["prompt"][:-1]}))
predict(found, "no-default", *((lambda case, by=by: look(case, missing=by)) for by in ("KeyError", "AttributeError")))
predict(found, "other-hash", lambda case: [])


@found.shows("not-entries")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    return is_raised(answer) and "should be an Entry" in answer["message"]


def draw_contents(_case: Case, answer: dict[str, Any]) -> str:
    def behind(page: int) -> str:
        return "first" if page == 0 else "behind a page that is gone" if page < 0 else f"behind page {page}"

    lines = [f"page {page}: {spaced(tokens)}, key {key}, {behind(at)}" for page, tokens, key, at in answer["pages"]]
    keys = sorted([key, page] for page, _, key, _ in answer["pages"])
    lines += [f"key {key} leads to page {page}" for key, page in answer["keys"] if [key, page] not in keys]
    lines += [f"key {key} does not lead to page {page}" for key, page in keys if [key, page] not in answer["keys"]]
    return "\n".join(lines) or "nothing is known"


@lookup.check(
    cases=[one for one in LOOKUPS if one["entries"]],
    describe=lambda case: f"the index after the call: {say_lookup(case)}",
    draw=draw_contents,
)
def as_before(case: Case) -> dict[str, Any]:
    return Index(case).contents()


as_before.shows("changes-the-index")(lambda case, expected, answer: not is_raised(answer))
as_before.shows("no-default")(lambda case, expected, answer: is_raised(answer))
in_an_engine(lookup, IN_TURN, OTHER_FIRST, ALL_OF_IT, SAME_KEY, SAME_SUM)

# ==================================================================================================== 8.3 insert

insert = Exercise(
    "8.3",
    section="Letting pages be found",
    hints=(
        "Write the index down before the call, then go through the sequence's pages: known already, new, or in the way?",
        "Compare entry by entry: page, tokens, key, and which page it stands behind. Do by_key and by_page agree?",
        "Look up what is known. From there on, for each further full page: its key behind the entry before, forget whoever "
        "has that key or that page, enter it, and let it be the one before the next.",
    ),
    preload=PRELOAD,
)
insert.mistake(
    "replaces-known",
    "These tokens can be found already, in a page that others use. Why should they be looked for in another one?",
    "Pages that were known are entered anew.",
    "Begin behind what `lookup` finds.",
)
insert.mistake(
    "stops-at-known",
    "The beginning is known, the rest is not. What will the next prompt with both find?",
    "Nothing is entered as soon as something is found.",
    "Enter the pages behind those that were found.",
)
insert.mistake(
    "all-first",
    "Which entry does the second page stand behind?",
    "Pages are entered as if each one were the first, or all behind the same one.",
    "After each `enter`, let the new entry be the one before the next page.",
)
insert.mistake(
    "from-the-root",
    "The first pages were found. Which entry does the first new one stand behind?",
    "The new pages begin at `ROOT`, though there are known ones before them.",
    "Begin behind the last entry that was found; `ROOT` only if there is none.",
)
insert.mistake(
    "wrong-page",
    "The first page was found. Which of `pages` belongs to the first new one?",
    "Tokens and pages are paired with a shift: the pages of those that were found are not skipped.",
    "Skip as many pages as were found, in both lists.",
)
insert.mistake(
    "leaves-it-in-the-way",
    "One key leads to one entry. What becomes of the entry that had it?",
    "An entry with the same key stays behind in `by_page`, and nobody can find it.",
    "Before you enter, forget the page of the entry that has this key.",
)
insert.mistake(
    "gives-way",
    "Two pages have the same key by accident. Which one is used next, the older or the newer?",
    "The page is not entered since its key is taken.",
    "Forget the entry that is in the way, and enter the new one.",
)
insert.mistake(
    "page-known-twice",
    "The page held something else before. Who can still find that?",
    "An older entry of the same page is left, and its key leads to a page with other tokens.",
    "Before you enter a page, forget it.",
)
insert.mistake(
    "enters-zero",
    "Page 0 stands for one that the sequence gave up. What would the one who finds it read?",
    "Page 0 is in the index.",
    "Stop at the first 0.",
)
insert.mistake(
    "skips-the-zero",
    "A page behind a hole: which entry would it stand behind, and who could find it?",
    "Pages behind the one that was given up are entered.",
    "Stop at the first 0, instead of going on to the next page.",
)
insert.mistake(
    "other-hash",
    "Which function makes the keys of this index? Its caller may have put in another one.",
    "The pages are right, and their keys come from another function.",
    "Call `self.hash_page`.",
)
insert.mistake(
    "one-page",
    "How many pages of the sequence are full, and how many of those are known afterwards?",
    "A single page is entered, whatever the length.",
    "Enter each of the new full pages.",
)


def put(
    entries: list[dict[str, Any]], *inserts: tuple[list[int], list[int]], size: int = 2, hash: str = "digits"
) -> Case:
    asked = [{"tokens": tokens, "pages": pages} for tokens, pages in inserts]
    return {"entries": entries, "inserts": asked, "size": size, "hash": hash}


def say_insert(case: Case) -> str:
    calls = "; then ".join(f"insert({spaced(one['tokens'])}; pages {boxes(one['pages'])})" for one in case["inserts"])
    return f"pages of {some(case['size'], 'token')}; {say_entries(case)}; {calls}"


def inserted(
    case: Case,
    known: str = "skip",
    before: str = "chain",
    key_in_the_way: str = "forget",
    page_in_the_way: bool = True,
    zero: str = "stop",
    shift: bool = False,
    only: slice = slice(None),
) -> dict[str, Any]:
    """Insert with other habits.

    known: "skip" what is found, "replace" it, or "stop" if there is any.
    before: the new pages make a "chain"; or all stand behind the "root", or behind what was "found"; or the chain begins
        at the root ("restart").
    key_in_the_way: "forget" it, "leave" it, or "skip" / "stop" because of it.
    zero: "stop" there, "enter" it, or "skip" it.
    shift: the pages are paired from the first one on.
    """
    index = Index(case)
    for one in case["inserts"]:
        there = [] if known == "replace" else index.run(one["tokens"])
        if known == "stop" and there:
            continue
        parts = list(zip(cut_at(one["tokens"], case["size"]), one["pages"], strict=False))
        if shift:
            parts = list(zip(cut_at(one["tokens"], case["size"])[len(there) :], one["pages"], strict=False))
        else:
            parts = parts[len(there) :]
        last = there[-1] if there and before not in ("root", "restart") else NONE
        for tokens, page in parts[only]:
            if not page and zero != "enter":
                if zero == "skip":
                    continue
                break
            key = index.hash(last.key, tokens)
            if key in index.by_key and key_in_the_way != "leave":
                if key_in_the_way == "skip":
                    continue
                if key_in_the_way == "stop":
                    break
                index.forget(index.by_key[key].page)
            if page_in_the_way:
                index.forget(page)
            new = index.enter(last, key, tokens, page)
            last = new if before in ("chain", "restart") else last
    return index.contents()


@insert.check(
    cases=[
        put([], ([1, 2, 3], [4, 5])),
        put([], ([1, 2, 3, 4], [4, 5])),
        put([], ([1], [4])),
        put(chain((4, [1, 2])), ([1, 2, 3, 4], [6, 5])),
        put(chain((4, [1, 2])), ([1, 2], [6])),
        put(TWO, ([1, 2, 3, 4], [6, 5])),
        put(TWO, ([1, 2, 3, 4, 5, 6, 7], [7, 3, 2, 9])),
        put(TWO, ([1, 2, 5, 6, 7, 8], [1, 2, 4])),
        put([], ([1, 2, 3, 4], [9, 2]), ([1, 2, 5, 6], [3, 4])),
        put([], ([1, 2, 3, 4], [3, 1]), ([3, 4, 1, 2], [5, 6])),
        put(chain((1, [1, 2, 3, 4])), ([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3], [5, 6, 7]), size=4),
        put(chain((3, [5])), ([5, 6, 7], [1, 2, 4]), size=1),
        # Known pages are found, but not entered, so that 1 2 is the only beginning of both.
        put(TWO, ([1, 2], [1]), ([1, 2, 3, 4, 9, 9], [1, 2, 5])),
    ],
    describe=say_insert,
    draw=draw_contents,
)
def entered(case: Case) -> dict[str, Any]:
    return inserted(case)


predict(entered, "replaces-known", lambda case: inserted(case, known="replace"))
predict(entered, "stops-at-known", lambda case: inserted(case, known="stop"))
predict(entered, "all-first", *((lambda case, by=by: inserted(case, before=by)) for by in ("root", "found")))
predict(entered, "from-the-root", lambda case: inserted(case, before="restart"))
predict(entered, "wrong-page", lambda case: inserted(case, shift=True))
predict(
    entered,
    "one-page",
    lambda case: inserted(case, only=slice(1)),
    lambda case: inserted(case, only=slice(-1, None)),
)


@entered.shows("other-hash")
def _(_case: Case, _expected: Any, answer: Any) -> bool:
    """Some key does not even end with the page's own tokens."""
    return not is_raised(answer) and any(
        not str(key).endswith("".join(map(str, tokens))) for _, tokens, key, _ in answer["pages"]
    )


@insert.check(
    cases=[
        put(chain((4, [1, 4])), ([2, 3], [5]), hash="sum"),
        put(chain((5, [3, 4])), ([1, 2], [5])),
        put([entry(0, 1, 4, page=4), entry(4, 6, 6, page=8)], ([2, 3, 6, 6], [5, 9]), hash="sum"),
        put(chain((5, [3, 4])), ([1, 2, 5, 6, 7, 8], [4, 5, 6])),
        put([*TWO, gone(7)], ([1, 2, 3, 4], [7, 3])),
        put([*TWO, gone(7)], ([1, 2, 3, 4], [5, 6])),
        put(chain((4, [1, 4]), (6, [9, 9])), ([2, 3, 7, 8], [5, 6]), hash="sum"),
        put([entry(0, 1, 4, page=4), entry(0, 9, 9, page=5)], ([2, 3], [5]), hash="sum"),
    ],
    describe=say_insert,
    draw=draw_contents,
)
def in_the_way(case: Case) -> dict[str, Any]:
    return inserted(case)


def or_key_error(case: Case, **habits: Any) -> Any:
    """What comes of books that no longer agree."""
    try:
        return inserted(case, **habits)
    except KeyError:
        return raises("KeyError")


predict(in_the_way, "leaves-it-in-the-way", lambda case: or_key_error(case, key_in_the_way="leave"))
predict(in_the_way, "gives-way", *((lambda case, by=by: inserted(case, key_in_the_way=by)) for by in ("skip", "stop")))
predict(in_the_way, "page-known-twice", lambda case: or_key_error(case, page_in_the_way=False))
# A collision hides what is known from a look-up too: with nothing known, these leave other traces.
predict(in_the_way, "replaces-known", lambda case: inserted(case, known="replace"))
predict(in_the_way, "stops-at-known", lambda case: inserted(case, known="stop"))
predict(in_the_way, "from-the-root", lambda case: inserted(case, before="restart"))
predict(in_the_way, "wrong-page", lambda case: inserted(case, shift=True))


@insert.check(
    cases=[
        put([], ([1, 2, 3, 4], [4, 0])),
        put([], ([1, 2, 3, 4], [0, 5])),
        put([], ([1, 2, 3, 4, 5, 6], [4, 0, 6])),
        put(chain((4, [1, 2])), ([1, 2, 3, 4, 5, 6], [4, 0, 6])),
    ],
    describe=say_insert,
    draw=draw_contents,
)
def given_up(case: Case) -> dict[str, Any]:
    return inserted(case)


predict(given_up, "enters-zero", lambda case: inserted(case, zero="enter"))
predict(given_up, "skips-the-zero", lambda case: inserted(case, zero="skip"))
in_an_engine(insert, TOGETHER, OUTPUT, SAME_KEY, SAME_SUM, TOO_MANY)

# ==================================================================================================== pages and owners


class Books:
    """Who owns what: `rows` by slot, idle pages from the one used longest ago on, known pages, free pages."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rows = {int(slot): list(pages) for slot, pages in case.get("rows", {}).items()}
        self.idle, self.known = list(case["idle"]), {*case["idle"], *case["known"]}
        self.owners = dict.fromkeys(range(case["pages"] + 1), 0)
        for pages in self.rows.values():
            for page in pages:
                self.owners[page] += page > 0
        self.at_first = {page for pages in self.rows.values() for page in pages if page} | set(case["idle"])
        self.owned = self.at_first - set(case["idle"])
        self.free = [page for page in range(case["pages"], 0, -1) if page not in self.at_first]
        self.were_free = list(self.free)

    def name(self, page: int) -> str:
        return "free" if page in self.were_free else f"idle {page}" if page in self.case["idle"] else f"owned {page}"

    def books(self) -> dict[str, Any]:
        return {
            "owners": {str(page): self.owners[page] for page in sorted(self.at_first)},
            "idle": [page for page in self.idle if page in self.at_first],
            "known": sorted(self.known),
            "free": sorted(page for page in self.free if page in self.at_first),
            "still_free": sum(page in self.were_free for page in self.free),
        }


def books_drawn(answer: dict[str, Any]) -> list[tuple[str, object]]:
    owners = [f"{page}: {n}" for page, n in answer["owners"].items()]
    still = answer["still_free"]
    return [
        ("owners", names(owners)),
        ("idle", boxes(answer["idle"]) if answer["idle"] else "none"),
        ("known", names(answer["known"])),
        ("free", names([*answer["free"], *([some(still, "other" if answer["free"] else "page")] if still else [])])),
    ]


def say_books(case: Case) -> str:
    books = Books(case)
    said = [f"slot {slot} owns {boxes(pages)}" for slot, pages in books.rows.items() if pages]
    if books.idle:
        said.append(f"idle, the one used longest ago first: {boxes(books.idle)}")
    if case["known"]:
        said.append(f"the index knows {names(sorted(case['known']))} too")
    said.append(f"{some(len(books.free), 'page')} free")
    return ", ".join(said)


# ==================================================================================================== 8.4 take

take = Exercise(
    "8.4",
    section="Out of the pool",
    hints=(
        "Take the pages one by one with a pencil: which one, why that one, and what does each list say afterwards?",
        "Compare free, idle, owners and the index. A page that was taken is in none of them any more, and has one owner.",
        "For each page: a free one if there is one, else the first of the idle ones, which leaves `idle` and is forgotten by "
        "the index; either way it has one owner now.",
    ),
    preload=PRELOAD,
)
take.mistake(
    "idle-first",
    "A free page holds nothing that anyone could want. And an idle one?",
    "Idle pages are taken although there are free ones.",
    "Take an idle page only when no page is free.",
)
take.mistake(
    "newest-first",
    "Which idle page is likeliest to be asked for again: the one used a moment ago, or the one used long ago?",
    "The idle page that was used last is taken. A dict keeps the order in which keys came; which end is the oldest?",
    "Take the first key of `idle`.",
)
take.mistake(
    "by-number",
    "What does a page's number say about when it was used?",
    "The idle page is chosen by its number.",
    "Take the idle page that came into `idle` first.",
)
take.mistake(
    "ghost-entry",
    "The page is about to hold another sequence's tokens. What does the index say that it holds?",
    "A page that was idle can still be found by what it held before.",
    "When you take an idle page, let the index forget it.",
)
take.mistake(
    "stays-idle",
    "The page has an owner now. Where does it still stand?",
    "A page that was taken is still in `idle`, so that it may be given again.",
    "Remove it from `idle`.",
)
take.mistake(
    "stays-free",
    "Two sequences ask, one after the other. Does each get pages of its own?",
    "Pages that were taken are still among the free ones.",
    "Remove what you take from `free_pages`.",
)
take.mistake(
    "ref-zero",
    "How many owners does a page have that somebody has just taken?",
    "The pages that were taken have another number of owners than one.",
    "Set the owners of each page that is taken to 1.",
)
take.mistake(
    "free-only",
    "No page is free, and `pages_available` promised one. Where is it?",
    "Only free pages are given; idle ones count as available too.",
    "When no page is free, take an idle one.",
)
take.mistake(
    "one-kind",
    "Two pages are wanted, one is free and two are idle. Which ones are taken?",
    "The pages come all from the free ones or all from the idle ones.",
    "Decide anew for each page.",
)
take.mistake(
    "forgets-all",
    "One idle page was needed. What about the others?",
    "Idle pages that were not taken are lost: they are no longer idle, or no longer known.",
    "Take and forget only as many as are needed.",
)
take.mistake(
    "one-page",
    "How many pages were asked for?",
    "A single page comes back, whatever `n` is.",
    "Take `n` pages.",
)


def pool(
    pages: int, n: int, idle: Iterable[int] = (), rows: dict[str, list[int]] | None = None, known: Iterable[int] = ()
) -> Case:
    return {"pages": pages, "n": n, "idle": list(idle), "rows": rows or {}, "known": list(known)}


def draw_taken(_case: Case, answer: dict[str, Any]) -> str:
    owners = sorted(set(answer["have"]))
    return table_of(
        ("taken", names(answer["taken"])),
        ("", f"the same page {answer['twice'] + 1} times" if answer["twice"] else ""),
        ("owners of each", names(owners)),
        *books_drawn(answer),
    )


def take_from(
    case: Case,
    idle_first: bool = False,
    which: Callable[[list[int]], int] = lambda idle: idle[0],
    forget: bool = True,
    leave_idle: bool = True,
    leave_free: bool = True,
    owners: Callable[[int], int] = lambda before: 1,
    n: int | None = None,
    one_kind: bool = False,
    every: str = "",
) -> Any:
    """Take with other habits."""
    books, pages = Books(case), []
    wanted = case["n"] if n is None else n
    all_free = len(books.free) >= wanted
    taken_free = 0
    for _ in range(wanted):
        free = len(books.free) - (0 if leave_free else taken_free) > 0
        if one_kind:
            free = all_free
        elif idle_first and books.idle:
            free = False
        if free:
            page = books.free.pop() if leave_free else books.free[-1 - taken_free]
            taken_free += 1
        else:
            if not books.idle:
                return raises("IndexError", "KeyError", "StopIteration", "ValueError", "RuntimeError")
            page = which(books.idle)
            if leave_idle:
                books.idle.remove(page)
            if forget:
                books.known.discard(page)
            if every in ("forgotten", "dropped"):
                books.known -= set(books.idle)
            if every == "dropped":
                books.free += books.idle
                books.idle = []
        books.owners[page] = owners(books.owners[page])
        pages.append(page)
    return {
        "taken": sorted(map(books.name, pages)),
        "twice": len(pages) - len(set(pages)),
        "have": [books.owners[page] for page in pages],
    } | books.books()


@take.check(
    cases=[
        pool(3, 1),
        pool(3, 2),
        pool(2, 1, idle=[2, 1]),
        pool(3, 1, idle=[2, 1]),
        pool(3, 2, idle=[2, 3, 1]),
        pool(4, 2, idle=[4, 2, 3]),
        pool(4, 3, idle=[4, 2, 3, 1]),
        pool(5, 1, idle=[5, 2], rows={"1": [1, 4], "2": [1]}, known=[1]),
        pool(6, 2, idle=[5, 2, 6], rows={"1": [4, 3]}, known=[3]),
        pool(7, 4, idle=[5, 7, 6, 2], rows={"1": [3]}),
    ],
    describe=lambda case: f"{say_books(case)}; take({case['n']})",
    draw=draw_taken,
)
def taken(case: Case) -> dict[str, Any]:
    return take_from(case)


predict(
    taken,
    "idle-first",
    lambda case: take_from(case, idle_first=True),
    lambda case: take_from(case, idle_first=True, which=lambda idle: idle[-1]),
)
predict(taken, "newest-first", lambda case: take_from(case, which=lambda idle: idle[-1]))
predict(taken, "by-number", *((lambda case, by=by: take_from(case, which=by)) for by in (min, max)))
predict(taken, "ghost-entry", lambda case: take_from(case, forget=False))
predict(
    taken,
    "stays-idle",
    lambda case: take_from(case, leave_idle=False),
    lambda case: take_from(case, leave_idle=False, owners=lambda before: before + 1),
    lambda case: take_from(case, leave_idle=False, forget=False),
)
predict(taken, "stays-free", lambda case: take_from(case, leave_free=False))
predict(taken, "ref-zero", *((lambda case, n=n: take_from(case, owners=lambda before: n)) for n in (0, 2)))
predict(
    taken,
    "free-only",
    lambda case: (
        take_from(case) if case["n"] <= len(Books(case).free) else raises("IndexError", "KeyError", "ValueError")
    ),
    lambda case: take_from(case, n=min(case["n"], len(Books(case).free))),
)
predict(taken, "one-kind", lambda case: take_from(case, one_kind=True))
predict(taken, "forgets-all", *((lambda case, by=by: take_from(case, every=by)) for by in ("forgotten", "dropped")))
predict(taken, "one-page", lambda case: take_from(case, n=1))
in_an_engine(take, OLDEST, END_FIRST, USED_UP, TOO_MANY)

# ==================================================================================================== 8.5 drop

drop = Exercise(
    "8.5",
    section="One owner less",
    hints=(
        "Go through the pages from the last to the first: how many owners are left, and can the index find the page?",
        "Compare the lists: owners, idle, free. After the call each page is with its owners, or idle, or free, and in one of "
        "these only.",
        "From the last page to the first: one owner less; if none is left, put it at the end of `idle` if the index knows "
        "it, else among the free pages.",
    ),
    preload=PRELOAD,
)
drop.mistake(
    "frees-shared",
    "Another sequence still reads this page. What happens when it is given away?",
    "A page becomes idle or free although it has owners left.",
    "Count one owner less, and go on only if none is left.",
)
drop.mistake(
    "keeps-the-count",
    "How many sequences point to the page now?",
    "`owners` is as before, or not what it should be.",
    "Take one off the owners of each page.",
)
drop.mistake(
    "head-first",
    "Which page of a sequence is of no use without the others: its first or its last?",
    "The beginning stands before the end in `idle`, so that it is taken first.",
    "Go through the pages from the last to the first.",
)
drop.mistake(
    "oldest",
    "When were these pages used last, compared with the idle ones that are there already?",
    "They come before those that became idle earlier.",
    "Put them behind all that are idle already.",
)
drop.mistake(
    "free-though-known",
    "The index knows what this page holds. Why should it be the first to be taken?",
    "Pages that could be found again are among the free ones.",
    "A page that the index knows becomes idle.",
)
drop.mistake(
    "idle-though-unknown",
    "Who will ever find this page again?",
    "Pages that the index does not know are idle: they wait for nobody.",
    "A page that the index does not know becomes free.",
)
drop.mistake(
    "forgets",
    "The sequence has ended. Are its keys and values wrong now?",
    "The index has forgotten pages that are dropped, so that no later request can use them.",
    "Leave the index as it is: pages that it knows become idle.",
)
drop.mistake(
    "free-and-idle",
    "In how many places can one page be taken from?",
    "A page is idle and free at the same time, so that two sequences will get it.",
    "Either idle or free, never both.",
)
drop.mistake(
    "by-number",
    "Is the order of the page numbers that of the sequence?",
    "Pages become idle in the order of their numbers.",
    "Go by the order of the list: it is the logical one.",
)


def dropping(
    pages: int,
    rows: dict[str, list[int]],
    *drops: list[int],
    idle: Iterable[int] = (),
    known: Iterable[int] = (),
) -> Case:
    return {"pages": pages, "rows": rows, "drops": list(drops), "idle": list(idle), "known": list(known)}


def say_drop(case: Case) -> str:
    return f"{say_books(case)}; " + "; then ".join(f"drop({boxes(pages)})" for pages in case["drops"])


def drop_all(
    case: Case,
    order: Callable[[list[int]], list[int]] = lambda pages: pages[::-1],
    counts: bool = True,
    one_less: bool = True,
    oldest: bool = False,
    goes: str = "",
    forget: bool = False,
) -> dict[str, Any]:
    """Drop with other habits.

    counts: whether other owners keep a page; one_less: whether the count is kept.
    goes: where every page goes: "free", "idle", "both" (known ones); empty: where it should.
    """
    books = Books(case)
    for pages in case["drops"]:
        for page in order(pages):
            left = books.owners[page] - 1
            if one_less:
                books.owners[page] = left if counts else 0
            if counts and left:
                continue
            known = page in books.known
            if forget:
                books.known.discard(page)
            becomes_idle = (known and goes != "free" and not forget) or goes == "idle"
            if becomes_idle and page not in books.idle:  # a dict keeps a key where it is
                books.idle.insert(0 if oldest else len(books.idle), page)
            if (not known and goes != "idle") or goes in ("free", "both") or (forget and goes != "idle"):
                books.free.append(page)
    return books.books()


@drop.check(
    cases=[
        dropping(4, {"1": [3]}, [3]),
        dropping(4, {"1": [3]}, [3], known=[3]),
        dropping(4, {"1": [3, 4]}, [3, 4], known=[3, 4]),
        dropping(4, {"1": [4, 3]}, [4, 3], known=[3, 4]),
        dropping(4, {"1": [3, 4], "2": [3]}, [3, 4], known=[3]),
        dropping(4, {"1": [3], "2": [3]}, [3], [3], known=[3]),
        dropping(5, {"1": [3, 4]}, [3, 4], idle=[5, 1], known=[3]),
        dropping(5, {"1": [4, 2, 5]}, [4, 2, 5], idle=[3], known=[4, 2]),
        dropping(6, {"1": [6, 2, 4], "2": [6, 2, 5]}, [6, 2, 4], [6, 2, 5], known=[6, 2, 5]),
        dropping(7, {"1": [6, 2], "2": [6, 4], "3": [6]}, [6, 4], idle=[7], known=[6, 2]),
    ],
    describe=say_drop,
    draw=lambda _case, answer: table_of(*books_drawn(answer)),
)
def dropped(case: Case) -> dict[str, Any]:
    return drop_all(case)


def clamped(case: Case) -> dict[str, Any]:
    """Each page that is dropped has no owner any more."""
    return drop_all(case, counts=False)


predict(dropped, "frees-shared", clamped, lambda case: drop_twice(case))
predict(
    dropped,
    "keeps-the-count",
    lambda case: drop_all(case, one_less=False),
    lambda case: drop_all(case, counts=False, one_less=False),
    lambda case: kept_ones(case),
)
predict(dropped, "head-first", lambda case: drop_all(case, order=list))
predict(
    dropped,
    "oldest",
    *((lambda case, by=by: drop_all(case, order=by, oldest=True)) for by in (list, lambda pages: pages[::-1])),
)
predict(dropped, "free-though-known", *((lambda case, by=by: drop_all(case, goes="free", order=by)) for by in (list,)))
predict(dropped, "idle-though-unknown", lambda case: drop_all(case, goes="idle"))
predict(dropped, "forgets", lambda case: drop_all(case, forget=True))
predict(dropped, "free-and-idle", lambda case: drop_all(case, goes="both"))
predict(
    dropped,
    "by-number",
    *(
        (lambda case, down=down: drop_all(case, order=lambda pages: sorted(pages, reverse=down)))
        for down in (False, True)
    ),
)


def drop_twice(case: Case) -> dict[str, Any]:
    """The count is kept, but every page goes at once, as often as it is dropped."""
    books = Books(case)
    for pages in case["drops"]:
        for page in pages[::-1]:
            books.owners[page] -= 1
            if page not in books.known:
                books.free.append(page)
            elif page not in books.idle:
                books.idle.append(page)
    return books.books()


def kept_ones(case: Case) -> dict[str, Any]:
    """The count is not touched, and a page with one owner goes."""
    books = Books(case)
    for pages in case["drops"]:
        for page in pages[::-1]:
            if books.owners[page] > 1:
                books.owners[page] -= 1
            elif page in books.known:
                books.idle.append(page)
            else:
                books.free.append(page)
    return books.books()


in_an_engine(drop, IN_TURN, END_FIRST, OLDEST, SAMPLES, TOO_MANY)

# ==================================================================================================== 8.6 share

share = Exercise(
    "8.6",
    section="The same pages in two rows",
    hints=(
        "Which pages does the slot point to afterwards, how many point to each of them, and what does each of the table's "
        "fields say about the slot?",
        "Compare field by field: owners and idle for the pages; `owned`, the row, `logical_of_page` and `capacity` for the "
        "slot, as `reserve` would have left them.",
        "For each page that is not 0: one owner more, and no longer idle. Then write the slot's pages, in order and with "
        "the zeros, into the four fields.",
    ),
    preload=PRELOAD,
)
share.mistake(
    "not-counted",
    "When the first owner ends, who says that another one still reads the page?",
    "The pages have as many owners as before.",
    "Count one owner more for each page.",
)
share.mistake(
    "sets-one",
    "Two sequences read the page, and a third one comes. How many are there?",
    "The number of owners is set, whatever it was before.",
    "Add one to it.",
)
share.mistake(
    "stays-idle",
    "The page has an owner now. Who could still take it away?",
    "A page that is shared is still idle, so that it may be given to someone else.",
    "Remove it from `idle`.",
)
share.mistake(
    "forgets-capacity",
    "How many tokens does the slot hold before anything is computed, and who asks?",
    "`capacity` does not say so.",
    "Set it to the number of pages times `page_size`.",
)
share.mistake(
    "capacity-in-pages",
    "`capacity` is a number, but of what?",
    "It counts pages, while everyone who reads it counts tokens.",
    "Multiply by `page_size`.",
)
share.mistake(
    "holes-not-counted",
    "A page that is not needed has its place all the same. Which position comes behind [ 3 | · | 5 ]?",
    "`capacity` counts only the pages that are not 0.",
    "Count the zeros too: capacity is where the next page begins.",
)
share.mistake(
    "closes-the-holes",
    "At which logical place does the last page of [ 3 | · | 5 ] lie?",
    "The zeros are left out, so that the pages behind them have moved forward.",
    "Keep the zeros, in `owned` and in the row.",
)
share.mistake(
    "forgets-the-row",
    "Where does attention read which pages are the slot's?",
    "The slot's row of `page_table` does not list the pages.",
    "Write them into the row, from column 0 on.",
)
share.mistake(
    "forgets-owned",
    "When the slot is erased, where does `erase` read which pages to give back?",
    "`owned` does not list the pages.",
    "Set the slot's `owned` to the pages.",
)
share.mistake(
    "forgets-logical",
    "From a physical page, how does a mask find out which part of the sequence lies in it? Whoever had it may have left "
    "anything there.",
    "`logical_of_page` is not written for each page.",
    "Write for each page its place in the list.",
)
share.mistake(
    "logical-without-holes",
    "Which column of the row has page 5 of [ 3 | · | 5 ], and what does the inverse of the table say?",
    "`logical_of_page` counts only the pages that are not 0.",
    "Count the zeros too.",
)
share.mistake(
    "one-list",
    "`owned` grows when the slot does. Whose list is that?",
    "The list that was passed in is kept, so that whoever else has it grows too.",
    "Keep a copy of it.",
)
share.mistake(
    "forgets",
    "The page holds what it held. Who else may want to find it?",
    "The index has forgotten pages that are shared.",
    "Leave the index as it is.",
)


def sharing(
    pages: int,
    shares: list[int],
    rows: dict[str, list[int]] | None = None,
    idle: Iterable[int] = (),
    slot: int = 2,
    known: Iterable[int] = (),
) -> Case:
    return {
        "pages": pages,
        "shares": shares,
        "rows": rows or {},
        "idle": list(idle),
        "slot": slot,
        "known": list(known),
    }


def draw_begun(case: Case, answer: dict[str, Any]) -> str:
    shown = [*books_drawn(answer)]
    return table_of(
        ("owned", boxes(answer["owned"])),
        ("row", boxes(answer["row"])),
        ("logical_of_page", boxes(f"{at}" for at in answer["logical"])),
        ("capacity", answer["capacity"]),
        *shown,
    )


def begin(
    case: Case,
    owners: Callable[[int, bool], int] = lambda before, idle: before + 1,
    leave_idle: bool = True,
    capacity: str = "",
    close: str = "",
    row: bool = True,
    owned: bool = True,
    logical: str = "",
    forget: bool = False,
) -> dict[str, Any]:
    """Share with other habits."""
    books, shares = Books(case), case["shares"]
    real = [page for page in shares if page]
    for page in real:
        books.owners[page] = owners(books.owners[page], page in case["idle"])
        if leave_idle and page in books.idle:
            books.idle.remove(page)
        if forget:
            books.known.discard(page)
    listed = [*real, *[0] * (len(shares) - len(real))] if close else shares
    before = {page: at for pages in books.rows.values() for at, page in enumerate(pages) if page} | dict.fromkeys(
        case["idle"], "not written"
    )
    places: dict[int, Any] = {page: at for at, page in enumerate(real if logical == "closed" or close else shares)}
    at = [(before if logical == "none" else places)[page] for page in listed if page]
    tokens = {
        "": 4 * len(shares),
        "none": 0,
        "pages": len(shares),
        "real": 4 * len(real),
    }[capacity or ("real" if close == "all" else "")]
    return {
        "owned": (real if close else list(shares)) if owned else [],
        "row": listed if row else [0] * len(shares),
        "logical": at if row else [],
        "capacity": tokens,
    } | books.books()


SHARES = [
    sharing(4, [3], idle=[3]),
    sharing(4, [3], rows={"1": [3]}, known=[3]),
    sharing(4, [3, 1], idle=[1, 2, 3]),
    sharing(6, [5, 2], rows={"1": [5, 2, 3]}, known=[5, 2]),
    sharing(6, [5, 2], rows={"1": [5, 4]}, idle=[6, 2], known=[5]),
    sharing(6, [5], rows={"1": [5, 4], "3": [5]}, known=[5]),
    sharing(6, [3, 0, 5], idle=[5, 3]),
    sharing(6, [0, 4], rows={"1": [6, 4]}, known=[6, 4]),
    sharing(8, [7, 0, 0, 2, 4], rows={"3": [7, 1, 6, 2]}, idle=[4, 8], known=[7, 2], slot=1),
]


@share.check(
    cases=SHARES,
    describe=lambda case: f"pages of 4 tokens, {say_books(case)}; share({case['slot']}, {boxes(case['shares'])})",
    draw=draw_begun,
)
def begun(case: Case) -> dict[str, Any]:
    return begin(case)


predict(
    begun,
    "not-counted",
    lambda case: begin(case, owners=lambda before, idle: before),
    lambda case: begin(case, owners=lambda before, idle: before + idle),
    lambda case: begin(case, owners=lambda before, idle: before + (not idle)),
)
predict(begun, "sets-one", lambda case: begin(case, owners=lambda before, idle: 1))
predict(begun, "stays-idle", lambda case: begin(case, leave_idle=False))
predict(begun, "forgets-capacity", lambda case: begin(case, capacity="none"))
predict(begun, "capacity-in-pages", lambda case: begin(case, capacity="pages"))
predict(begun, "holes-not-counted", lambda case: begin(case, capacity="real"))
predict(begun, "closes-the-holes", *((lambda case, by=by: begin(case, close=by)) for by in ("pages", "all")))
predict(begun, "forgets-the-row", lambda case: begin(case, row=False))
predict(begun, "forgets-owned", lambda case: begin(case, owned=False))
predict(begun, "forgets-logical", lambda case: begin(case, logical="none"))
predict(begun, "logical-without-holes", lambda case: begin(case, logical="closed"))
predict(begun, "forgets", lambda case: begin(case, forget=True))


@share.check(
    cases=[
        {**sharing(6, [3], idle=[3]), "twins": [1, 2]},
        {**sharing(6, [3, 5], idle=[5, 3]), "twins": [2, 3]},
    ],
    describe=lambda case: (
        f"{say_books(case)}; slots {case['twins'][0]} and {case['twins'][1]} share the same list {boxes(case['shares'])}, "
        f"then slot {case['twins'][0]} grows by a page"
    ),
    draw=lambda case, answer: table_of(
        *(
            (f"slot {slot} owns", boxes(answer[who]))
            for slot, who in zip(case["twins"], ("first", "second"), strict=True)
        )
    ),
)
def two_begin(case: Case) -> dict[str, Any]:
    return {"first": [*case["shares"], "new"], "second": case["shares"]}


predict(two_begin, "one-list", lambda case: {who: [*case["shares"], "new"] for who in ("first", "second")})
in_an_engine(share, TOGETHER, IN_TURN, HALF, SAMPLES, TOO_MANY)

# ==================================================================================================== 8.7 make_writable

writable = Exercise(
    "8.7",
    section="Copy on write",
    hints=(
        "Which page does the token go to, who else points to it, and who could find it? What must be true before the write?",
        "Compare: the slot's row, the other rows, owners, idle, what the index knows, and the copies that are noted.",
        "Return True if the page is the slot's own. Else, if the pool has a page: put it into the slot's row, note the copy, "
        "drop the old one. If it has none: let the index forget a page that has no other owner, or return False.",
    ),
    preload=PRELOAD,
)
writable.mistake(
    "shared-tail",
    "Two sequences point to this page, and one writes. What does the other one read?",
    "The page that is written still has other owners.",
    "If the page has more than one owner, the slot needs a page of its own.",
)
writable.mistake(
    "known-page",
    "The slot is alone, but the index says what is in the page. Will that be true after the write?",
    "A page that can be found is written to.",
    "A page is the slot's own only if it has one owner and the index does not know it.",
)
writable.mistake(
    "always-copies",
    "Nobody else points to this page, and nobody can find it. Why does it need a copy?",
    "A page that is the slot's own is replaced.",
    "Return True at once if the page has one owner and the index does not know it.",
)
writable.mistake(
    "forgets-too-soon",
    "The pool has a page. What is lost if the index forgets this one?",
    "The index forgets a page although it could have been copied, so that no later request finds it.",
    "Let the index forget only if the pool has no page left.",
)
writable.mistake(
    "no-copy",
    "What does the new page hold when the next step reads it?",
    "The copy is not noted: the page would hold whatever it held before.",
    "Append (old, new) to `copies`.",
)
writable.mistake(
    "copies-backwards",
    "Which page has the keys, and which one needs them?",
    "The pair is noted the wrong way round.",
    "Note (old, new): from, to.",
)
writable.mistake(
    "one-copy",
    "Another slot's copy has been noted and not been made yet. Where is it now?",
    "Copies that were noted earlier are gone.",
    "Append to `copies`; whoever copies clears it.",
)
writable.mistake(
    "forgets-the-row",
    "The slot owns a new page. Where does attention read which page it is?",
    "The slot's row of `page_table`, or its `owned`, still has the old page.",
    "Put the new page into both, at the page's logical place.",
)
writable.mistake(
    "forgets-logical",
    "From the new page, how does a mask find out where in the sequence it lies?",
    "`logical_of_page` of the new page is not written.",
    "Write the logical place of the page.",
)
writable.mistake(
    "keeps-owning",
    "How many sequences point to the old page now?",
    "The old page has as many owners as before.",
    "Drop the old page: the slot no longer owns it.",
)
writable.mistake(
    "frees-the-old",
    "The slot leaves the old page. Do others still read it, or could someone find it?",
    "The old page is free, or without owners, whatever it was.",
    "Give it back by `drop`, which knows what becomes of it.",
)
writable.mistake(
    "refuses-the-only-owner",
    "The pool is empty, but nobody else points to this page. What stands in the way?",
    "False comes back though the slot is the only owner.",
    "Let the index forget the page, and return True.",
)
writable.mistake(
    "leaves-it-known",
    "No page is left, so the token goes to this one. What will the index say that it holds?",
    "The page is written to, and the index still knows it.",
    "Let the index forget the page before you return True.",
)
writable.mistake(
    "raises-when-full",
    "A full pool is everyday life. What does the docstring promise then?",
    "A page is taken without asking whether the pool has one.",
    "Ask `pages_available` first; return False if the page has other owners and nothing is left.",
)
writable.mistake(
    "counts-the-free-only",
    "No page is free, but some are idle. Does the pool have a page left?",
    "Idle pages are not counted as available.",
    "Ask `pages_available`, which counts free and idle ones.",
)
writable.mistake(
    "wrong-place",
    "Pages of 4 tokens: in which logical page does position 5 lie?",
    "Another page than that of the position is looked at, or replaced.",
    "The logical page is the position divided by `page_size`, rounded down.",
)
writable.mistake(
    "everybody-moves",
    "Which slots point to the new page?",
    "Other slots' rows have changed too.",
    "Change the row of this slot only.",
)


def writing(
    pages: int,
    rows: dict[str, list[int]],
    position: int,
    slot: int = 1,
    idle: Iterable[int] = (),
    known: Iterable[int] = (),
    copies: Iterable[tuple[int, int]] = (),
) -> Case:
    return {
        "pages": pages,
        "rows": rows,
        "position": position,
        "slot": slot,
        "idle": list(idle),
        "known": list(known),
        "copies": [list(pair) for pair in copies],
    }


def say_write(case: Case) -> str:
    noted = f"; copies so far: {names(f'{a} to {b}' for a, b in case['copies'])}" if case["copies"] else ""
    return f"pages of 4 tokens, {say_books(case)}{noted}; make_writable({case['slot']}, position {case['position']})"


def draw_written(case: Case, answer: dict[str, Any]) -> str:
    return table_of(
        ("result", answer["result"]),
        ("row", boxes(answer["row"])),
        ("owned", boxes(answer["owned"]) if answer["owned"] != answer["row"] else ""),
        ("new page was", f"{names(answer['new'])}, owners now {names(answer['new_owners'])}" if answer["new"] else ""),
        ("logical_of_page", "not right for the new page" if not all(answer["new_lies_right"]) else ""),
        ("copies", names(f"{a} to {b}" for a, b in answer["copies"])),
        *((f"slot {slot}", boxes(row)) for slot, row in answer["others"].items()),
        *books_drawn(answer),
    )


def write(
    case: Case,
    own: Callable[[int, bool], bool] = lambda owners, known: owners == 1 and not known,
    note: str = "append",
    row: bool = True,
    owned: bool = True,
    logical: bool = True,
    old: str = "drop",
    full: str = "right",
    room: str = "all",
    at: Callable[[int], int] = lambda position: position // 4,
    soon: bool = False,
    everybody: bool = False,
) -> Any:
    """Make writable with other habits.

    own: (owners of the page, whether it is known) -> whether nothing needs to be done.
    old: what becomes of the old page: "drop", "keep" (it is still counted), "free" (given away), "none" (no owner).
    full: with no page left: "right", "refuse" always, "leave" it known, "raise".
    room: which pages count as left: "all" or "free".
    """
    books, slot = Books(case), case["slot"]
    mine = books.rows[slot]
    where = at(case["position"])
    if not -len(mine) <= where < len(mine):
        return raises("IndexError")
    page, copies = mine[where], [list(pair) for pair in case["copies"]]
    new: int | None = None
    result = True
    if own(books.owners[page], page in books.known):
        pass
    elif soon and books.owners[page] == 1:
        books.known.discard(page)
    elif not (books.free or (books.idle and room == "all")):
        if full == "raise":
            return raises("IndexError", "KeyError", "StopIteration", "ValueError")
        if books.owners[page] > 1 or full == "refuse":
            result = False
        elif full == "right":
            books.known.discard(page)
    else:
        new = books.free.pop() if books.free else books.idle.pop(0)
        books.known.discard(new)
        books.owners[new] = 1
        if note != "none":
            pair = [page, "new"] if note != "backwards" else ["new", page]
            copies = [pair] if note == "replace" else [*copies, pair]
        if old in ("drop", "free", "none"):
            books.owners[page] = books.owners[page] - 1 if old != "none" else 0
        if old == "free":
            books.free.append(page)
        elif old != "keep" and not books.owners[page]:
            if page in books.known:
                books.idle.append(page)
            else:
                books.free.append(page)

    def listed(changed: bool) -> list[Any]:
        return ["new" if new is not None and changed and one == page else one for one in mine]

    changed = new is not None and (row or owned)
    answer = books.books()
    return (
        {
            "result": result,
            "owned": listed(owned),
            "row": listed(row),
            "new": [books.name(new)] if changed and new is not None else [],
            "new_owners": [1] if changed else [],
            "new_lies_right": [logical or where == 0] if new is not None and row else [],
            "copies": copies,
            "others": {
                str(other): [0 if everybody and one == page and new else one for one in pages]
                for other, pages in books.rows.items()
                if other != slot
            },
        }
        | answer
        | {"owners": {str(one): books.owners[one] for one in sorted(books.owned)}}
    )


WRITES = [
    writing(4, {"1": [3]}, 2),
    writing(4, {"1": [3], "2": [3]}, 2),
    writing(4, {"1": [3]}, 2, known=[3]),
    writing(6, {"1": [5, 3]}, 6, known=[5]),
    writing(6, {"1": [5, 3], "2": [5, 3]}, 6, known=[5]),
    writing(6, {"1": [5, 3], "2": [5, 3]}, 5, known=[5, 3]),
    writing(6, {"1": [5, 3, 2], "2": [5, 3, 2]}, 9, known=[5, 3, 2]),
    writing(6, {"1": [5, 3], "2": [5, 3], "3": [5, 3, 1]}, 7, slot=2, known=[5, 3]),
    writing(6, {"1": [5, 3], "2": [5, 3]}, 6, known=[5, 3], copies=[(6, 4)]),
    writing(6, {"1": [5, 3]}, 6, idle=[6], known=[5, 3]),
    writing(4, {"1": [4, 3], "2": [4, 3]}, 6, idle=[2, 1], known=[4, 3]),
    writing(4, {"1": [4, 3]}, 7, idle=[2, 1], known=[4, 3]),
    writing(6, {"1": [5, 0, 3], "2": [6, 0, 3]}, 9, known=[5, 3]),
    writing(6, {"1": [5, 3], "2": [5, 4]}, 4, known=[5]),
    writing(6, {"1": [5, 3], "2": [5, 4]}, 1, known=[5]),
]


@writable.check(cases=WRITES, describe=say_write, draw=draw_written)
def written(case: Case) -> Any:
    return write(case)


predict(written, "shared-tail", lambda case: write(case, own=lambda owners, known: True))
predict(
    written,
    "shared-tail",
    lambda case: write(case, own=lambda owners, known: not known),
)
predict(written, "known-page", lambda case: write(case, own=lambda owners, known: owners == 1))
predict(written, "always-copies", lambda case: write(case, own=lambda owners, known: False))
predict(written, "forgets-too-soon", lambda case: write(case, soon=True))
predict(written, "no-copy", lambda case: write(case, note="none"))
predict(written, "copies-backwards", lambda case: write(case, note="backwards"))
predict(written, "one-copy", lambda case: write(case, note="replace"))
predict(
    written,
    "forgets-the-row",
    lambda case: write(case, row=False),
    lambda case: write(case, owned=False),
    lambda case: write(case, row=False, owned=False),
)
predict(written, "forgets-logical", lambda case: write(case, logical=False))
predict(written, "keeps-owning", lambda case: write(case, old="keep"))
predict(written, "frees-the-old", *((lambda case, by=by: write(case, old=by)) for by in ("free", "none")))
predict(
    written,
    "counts-the-free-only",
    lambda case: write(case, room="free"),
)
predict(
    written,
    "wrong-place",
    *(
        (lambda case, by=by: write(case, at=by))
        for by in (
            lambda position: position,
            lambda position: position % 4,
            lambda position: -(-position // 4),
            lambda position: (position - 1) // 4,
            lambda position: 0,
        )
    ),
    lambda case: write(case, at=lambda position: -1, row=False),
)


@written.shows("everybody-moves")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return not is_raised(answer) and answer["others"] != expected["others"] and answer["row"] == expected["row"]


@writable.check(
    cases=[
        writing(1, {"1": [1]}, 2),
        writing(1, {"1": [1]}, 2, known=[1]),
        writing(1, {"1": [1], "2": [1]}, 2),
        writing(2, {"1": [1, 2]}, 5, known=[1, 2]),
        writing(2, {"1": [1, 2], "2": [1, 2]}, 5, known=[1, 2], copies=[(1, 2)]),
        writing(3, {"1": [3, 2], "2": [3, 1]}, 6, known=[3, 2]),
        writing(3, {"1": [3, 2], "2": [3, 1]}, 3, known=[3, 1]),
    ],
    describe=say_write,
    draw=draw_written,
)
def full_pool(case: Case) -> Any:
    return write(case)


predict(full_pool, "refuses-the-only-owner", lambda case: write(case, full="refuse"))
predict(full_pool, "leaves-it-known", lambda case: write(case, full="leave"))
predict(full_pool, "raises-when-full", lambda case: write(case, full="raise"))
predict(full_pool, "shared-tail", lambda case: write(case, own=lambda owners, known: True))
predict(full_pool, "known-page", lambda case: write(case, own=lambda owners, known: owners == 1))
in_an_engine(writable, HALF, ALL_OF_IT, SAMPLES, TOO_MANY)
