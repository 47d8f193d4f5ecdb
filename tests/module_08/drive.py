"""Runs the cases of module 08 on the learner's index and shared pages, and on an engine that uses them.

Pages come out of the pool in any order.  So that right answers are equal whatever the order, an answer says where a page
came from (free, idle), and not which of the free ones it is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from course.grading.driving import NotUsable, instance, tensor
from flexnano.page_table import PageTable
from flexnano.prefix_index import ROOT, Entry, PrefixIndex, SharedPages

Case = dict[str, Any]
UNTOUCHED = 77  # what the table says of a page where nothing was written

# ---------------------------------------------------------------------------------------------------- hashes


def digits(parent: int, tokens: tuple[int, ...]) -> int:
    """Tokens from 1 to 9 as the digits of a number: pages (1, 2) and (3, 4) have keys 12 and 1234."""
    return functools.reduce(lambda key, token: 10 * key + token, tokens, parent)


HASHES: dict[str, Callable[[int, tuple[int, ...]], int]] = {
    "digits": digits,
    "sum": lambda parent, tokens: parent + sum(tokens),
    "own": lambda parent, tokens: digits(0, tokens),
    "7": lambda parent, tokens: 7,
}


def index_of(case: Case) -> PrefixIndex:
    """An index with the entries of the case, put in by what is given: `enter` and `forget`."""
    index = PrefixIndex(case["size"], HASHES[case["hash"]])
    fill(index, case["entries"])
    return index


def fill(index: PrefixIndex, entries: Iterable[dict[str, Any]]) -> None:
    known: dict[int, Entry] = {0: ROOT}
    for one in entries:
        if "forget" in one:
            index.forget(one["forget"])
            continue
        before, tokens = known[one["after"]], tuple(one["tokens"])
        known[one["page"]] = index.enter(before, index.hash_page(before.key, tokens), tokens, one["page"])


def contents(index: PrefixIndex) -> dict[str, Any]:
    """What can be found, by page: tokens, key and the page before; and whether both dicts say the same."""
    by_number = {entry.number: entry for entry in [*index.by_page.values(), *index.by_key.values()]}
    before = {number: entry.page for number, entry in by_number.items()} | {0: 0}
    pages = [
        [page, list(entry.token_ids), entry.key, before.get(entry.parent, -1)]
        for page, entry in sorted(index.by_page.items())
    ]
    keys = sorted([key, entry.page] for key, entry in index.by_key.items())
    return {"pages": pages, "keys": keys}


# ---------------------------------------------------------------------------------------------------- 8.1 pages_of


def cut(case: Case) -> list[list[int]]:
    kinds: dict[str, Callable[[], Any]] = {
        "list": lambda: list(case["tokens"]),
        "tuple": lambda: tuple(case["tokens"]),
        "range": lambda: range(case["tokens"][0], case["tokens"][-1] + 1) if case["tokens"] else range(0),
    }
    found = instance(PrefixIndex(case["size"]).pages_of(kinds[case["kind"]]()), (list, tuple), "the result of pages_of")
    pages = []
    for page in found:
        if not isinstance(page, tuple):
            raise NotUsable(f"a page is {page!r}, a {type(page).__name__}, not a tuple")
        pages.append([instance(token, int, "a token") for token in page])
    return pages


other_kinds = cut


def left_alone(case: Case) -> list[int]:
    """The sequence's own list afterwards."""
    tokens = list(case["tokens"])
    PrefixIndex(case["size"]).pages_of(tokens)
    return tokens


# ---------------------------------------------------------------------------------------------------- 8.2 lookup


def found(case: Case) -> list[int]:
    index = index_of(case)
    entries = instance(index.lookup(list(case["prompt"])), (list, tuple), "the result of lookup")
    pages = []
    for entry in entries:
        if not isinstance(entry, Entry):
            raise NotUsable(f"lookup gave back {entry!r}, a {type(entry).__name__}, among what should be an Entry each")
        pages.append(entry.page)
    return pages


def as_before(case: Case) -> dict[str, Any]:
    """The index after a lookup."""
    index = index_of(case)
    index.lookup(list(case["prompt"]))
    return contents(index)


# ---------------------------------------------------------------------------------------------------- 8.3 insert


def entered(case: Case) -> dict[str, Any]:
    index = index_of(case)
    for one in case["inserts"]:
        index.insert(list(one["tokens"]), list(one["pages"]))
    return contents(index)


in_the_way = given_up = entered

# ---------------------------------------------------------------------------------------------------- 8.4 to 8.7


class Pool:
    """A table of 4-token pages that are shared as the case says, without a call of anything that is graded.

    The case has `rows`, by slot the pages that it owns; `idle`, from the one used longest ago on; and `known`, further
    pages that the index knows.  Idle pages are known too.  All others are free.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.table = table = PageTable(case["pages"], 4, case.get("slots", 3), max_seq_length=32)
        self.shared = SharedPages(table)
        slots = {table.allocate() for _ in range(table.max_batch_size)}
        self.rows = {int(slot): pages for slot, pages in case.get("rows", {}).items()}
        for slot, pages in self.rows.items():
            table.owned[slot] = list(pages)
            table.capacity[slot] = 4 * len(pages)
            table.page_table[slot, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
            for place, held in enumerate(pages):
                if held:
                    self.shared.owners[held] += 1
                    table.logical_of_page[held] = place
        for page in case["idle"]:
            self.shared.idle[page] = None
        taken = {page for pages in self.rows.values() for page in pages} | set(case["idle"])
        self.free = [page for page in range(case["pages"], 0, -1) if page not in taken]
        table.free_pages = list(self.free)
        free_slots = slots - {*self.rows, case.get("slot", 0), *case.get("twins", ())}
        table.free_slots = sorted(free_slots, reverse=True)
        fill(
            self.shared.index,
            [{"after": 0, "tokens": [page] * 4, "page": page} for page in sorted({*case["idle"], *case["known"]})],
        )

    def where_from(self, pages: Iterable[int]) -> list[str]:
        """What pages were at the beginning, and which ones, but for the free: one is as good as the other."""
        return ["free" if page in self.free else self.name(page) for page in pages]

    def name(self, page: int) -> str:
        return f"idle {page}" if page in self.case["idle"] else f"owned {page}" if page in self.owned else str(page)

    @property
    def owned(self) -> set[int]:
        return {page for pages in self.rows.values() for page in pages}

    def books(self) -> dict[str, Any]:
        """Where the pages are now that were not free at the beginning, and how many others are free."""
        shared, table = self.shared, self.table
        others = [page for page in range(1, table.n_pages + 1) if page not in self.free]
        return {
            "owners": {str(page): int(shared.owners[page]) for page in others},
            "idle": [page for page in shared.idle if page in others],
            "known": sorted(shared.index.by_page),
            "free": sorted(page for page in table.free_pages if page in others),
            "still_free": sum(page in self.free for page in table.free_pages),
        }


def taken(case: Case) -> dict[str, Any]:
    pool = Pool(case)
    pages = instance(pool.shared.take(case["n"]), (list, tuple), "the result of take")
    pages = [instance(page, int, "a page") for page in pages]
    owners = [int(pool.shared.owners[page]) for page in pages if 0 <= page <= case["pages"]]
    return {
        "taken": sorted(pool.where_from(pages)),
        "twice": len(pages) - len(set(pages)),
        "have": owners,
    } | pool.books()


def dropped(case: Case) -> dict[str, Any]:
    pool = Pool(case)
    for pages in case["drops"]:
        if (result := pool.shared.drop(list(pages))) is not None:  # type: ignore[func-returns-value]
            raise NotUsable(f"drop gave back {result!r}; it is promised to give back nothing")
    return pool.books()


def begun(case: Case) -> dict[str, Any]:
    pool = Pool(case)
    slot, pages = case["slot"], list(case["shares"])
    for page in pages:
        if page in case["idle"]:
            pool.table.logical_of_page[page] = UNTOUCHED  # erase may leave anything there
    if (result := pool.shared.share(slot, pages)) is not None:  # type: ignore[func-returns-value]
        raise NotUsable(f"share gave back {result!r}; it is promised to give back nothing")
    return of_slot(pool, slot, len(case["shares"])) | pool.books()


def of_slot(pool: Pool, slot: int, n: int) -> dict[str, Any]:
    """What the table says of a slot."""
    table = pool.table
    row = tensor(table.page_table, "page_table", ndim=2)[slot, :n].tolist()
    logical = [int(table.logical_of_page[page]) for page in row if 0 < page <= table.n_pages]
    return {
        "owned": [int(page) for page in table.owned[slot]],
        "row": row,
        "logical": [at if at != UNTOUCHED else "not written" for at in logical],
        "capacity": int(table.capacity[slot]),
    }


def two_begin(case: Case) -> dict[str, Any]:
    """Two slots begin with the same list of pages, then the first one grows by a page."""
    pool = Pool(case)
    first, second = case["twins"]
    pages = list(case["shares"])
    for slot in (first, second):
        pool.shared.share(slot, pages)
    pool.table.reserve(first, 4 * (len(case["shares"]) + 1))
    known = {0, *case["shares"]}
    return {
        name: [page if page in known else "new" for page in pool.table.owned[slot]]
        for name, slot in (("first", first), ("second", second))
    }


def written(case: Case) -> dict[str, Any]:
    pool = Pool(case)
    table, slot = pool.table, case["slot"]
    pool.shared.copies = [(int(a), int(b)) for a, b in case["copies"]]
    n = len(pool.rows[slot])
    before = list(pool.rows[slot])
    result = instance(pool.shared.make_writable(slot, case["position"]), bool, "the result of make_writable")
    row = tensor(table.page_table, "page_table", ndim=2)[slot, :n].tolist()
    new = {page for page in [*row, *table.owned[slot]] if page not in before}

    def name(page: int) -> Any:
        return "new" if page in new else int(page)

    copies = [[name(page) for page in pair] for pair in pool.shared.copies]
    others = {
        str(other): table.page_table[other, : len(pages)].tolist()
        for other, pages in pool.rows.items()
        if other != slot
    }
    at = [logical for logical, page in enumerate(row) if page in new]
    return (
        {
            "result": result,
            "owned": [name(page) for page in table.owned[slot]],
            "row": [name(page) for page in row],
            "new": pool.where_from(sorted(new)),
            "new_owners": [int(pool.shared.owners[page]) for page in sorted(new)],
            "new_lies_right": [int(table.logical_of_page[row[logical]]) == logical for logical in at],
            "copies": copies,
            "others": others,
        }
        | {key: value for key, value in pool.books().items() if key != "owners"}
        | {"owners": {str(page): int(pool.shared.owners[page]) for page in sorted(pool.owned - {0})}}
    )


full_pool = written

# ---------------------------------------------------------------------------------------------------- an engine


def engine_of(pages: int, **options: Any) -> Any:
    from course.grading.tiny import tiny_model
    from flexnano.inference import Inference

    sizes = {"max_batch_size": 4, "max_seq_length": 64, "page_size": 4, "attention": "gather"}
    return Inference(tiny_model(), None, n_pages=pages, **{**sizes, **options})


@functools.cache
def unshared() -> Any:
    """An engine without sharing and with room for everyone."""
    return engine_of(64)


PATIENCE = 400  # steps of an engine, or admissions, that no case needs


def never_for_ever(engine: Any) -> None:
    """Let an engine whose requests go round in circles say so."""
    for name in ("next_step", "admit_next"):
        calls, call = itertools.count(), getattr(engine.planner, name)

        def counted(call: Callable[[], Any] = call, calls: Iterator[int] = calls) -> Any:
            if next(calls) > PATIENCE:
                raise NotUsable("the engine goes round in circles: its requests get no further")
            return call()

        setattr(engine.planner, name, counted)


def served(case: Case) -> dict[str, Any]:
    """Rounds of requests, one after the other; those of a round come together."""
    engine = engine_of(case["pool"], prefix_sharing=True)
    never_for_ever(engine)
    if case["hash"]:
        engine.page_table.sharing.index.hash_page = HASHES[case["hash"]]
    answer: dict[str, Any] = {"tokens": [], "cached": [], "pages": []}
    preemptions = 0
    for requests in case["rounds"]:
        results, most = serve(engine, requests)
        alone, _ = serve(unshared(), requests)
        answer["tokens"].append([compared(*both) for both in zip(results, alone, strict=True)])
        answer["cached"].append([result.metrics.cached_tokens for result in results])
        answer["pages"].append(most)
        preemptions += sum(result.metrics.preemptions for result in results)
    answer["left"] = engine.page_table.pages_available
    engine.close()
    if case["gives_way"]:  # who gave way, and when, decides what was found
        return {"tokens": answer["tokens"], "left": answer["left"], "gave_way": preemptions > 0}
    return answer


def serve(engine: Any, requests: list[dict[str, Any]]) -> tuple[list[Any], int]:
    """The results of all samples in order, and the most pages that were owned at once."""
    from flexnano.sampling_params import SamplingParams

    params = [
        SamplingParams(
            max_new_tokens=one["new"], n=one["samples"], temperature=1.0 if one["samples"] > 1 else 0.0, seed=3
        )
        for one in requests
    ]
    results, most = {}, 0
    for event in engine.stream([one["prompt"] for one in requests], params):
        most = max(most, engine.page_table.n_pages - engine.page_table.pages_available)
        if event.result is not None:
            results[event.index, event.sample] = event.result
    return [results[key] for key in sorted(results)], most


def compared(result: Any, alone: Any) -> str:
    if result.token_ids == alone.token_ids:
        return "as without sharing"
    error = f", {result.finish_reason}: {result.error}" if result.error else ""
    return f"{' '.join(map(str, result.token_ids)) or 'none'}, not {' '.join(map(str, alone.token_ids))}{error}"
