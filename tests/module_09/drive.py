"""Runs the cases of module 09 on the learner's window: each function alone, and in an engine that generates.

Pages may be handed out in any order, so they are called 1, 2, 3 … in the order in which they first appear in the table, as
in module 03.  In an engine every page that nobody owns is filled with 1e4 after each step: whoever reads one that was given
up says other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

import flexnano.eviction as written
from course.grading.driving import NotUsable, function, instance, tensor
from flexnano.page_table import PageTable

Case = dict[str, Any]

# ------------------------------------------------------------------------------------------------ 9.1 pages_to_give_up


def given_up(case: Case) -> list[int]:
    pages = written.pages_to_give_up(case["position"], case["window"], case["sinks"], case["size"])
    pages = instance(pages, (range, list, tuple, set), "the result")
    return sorted(instance(page, int, "a logical page") for page in pages)


# ------------------------------------------------------------------------------------------------ 9.2 give_up_pages


class Books:
    """A table with two sequences side by side, one of which gives up pages, and what was given to `drop`."""

    def __init__(self, size: int) -> None:
        self.table = PageTable(24, size, 2, max_seq_length=16 * size, gives_up_pages=True)
        self.slot, self.other = self.table.allocate(), self.table.allocate()
        self.names: dict[int, int] = {}
        self.back: list[int] = []
        drop = self.table.drop

        def noted(pages: Iterable[int]) -> None:
            pages = list(pages)
            self.back += [int(page) for page in pages if page]
            drop(pages)

        self.table.drop = noted  # type: ignore[method-assign]

    def reserve(self, pages: int) -> None:
        """Let the sequence have so many logical pages, each beside one of the other's."""
        for n in range(len(self.table.owned[self.slot]) + 1, pages + 1):
            for who in (self.slot, self.other):
                self.table.reserve(who, n * self.table.page_size)
                self.named(self.table.owned[who])

    def named(self, pages: Iterable[Any]) -> list[int]:
        return [self.names.setdefault(int(p), len(self.names) + 1) if int(p) > 0 else int(p) for p in pages]

    def of(self, slot: int) -> dict[str, Any]:
        owned = instance(self.table.owned[slot], list, "owned[batch_idx]")
        row = tensor(self.table.page_table, "page_table", ndim=2)[slot].tolist()
        return {"owned": self.named(owned), "row": self.named(row), "capacity": int(self.table.capacity[slot])}


def books(case: Case) -> dict[str, Any]:
    """What the table says after each call, then after the sequence has ended."""
    books = Books(case["size"])
    table, answer = books.table, {"after": list[Any]()}
    for pages, position in case["calls"]:
        books.reserve(pages)
        books.back.clear()
        other, left = books.of(books.other), table.pages_available
        result = written.give_up_pages(table, books.slot, position, case["window"], case["sinks"])
        if result is not None:
            raise NotUsable(
                f"give_up_pages gave back a {type(result).__name__}; it changes the table and gives nothing"
            )
        answer["after"].append(
            {
                **books.of(books.slot),
                "back": sorted(books.named(books.back)),
                "pool": table.pages_available - left,
                "other": "as before" if books.of(books.other) == other else "changed",
            }
        )
    for slot in (books.slot, books.other):
        table.erase(slot)
    return answer | {"end": [table.pages_available, len(set(table.free_pages))]}


# ------------------------------------------------------------------------------------------------ 9.3 most_pages


def most(case: Case) -> int:
    return instance(written.most_pages(case["window"], case["sinks"], case["size"]), int, "the result")


# ------------------------------------------------------------------------------------------------ 9.4 window_mask


def _mask_of(case: Case) -> Any:
    return function(written.window_mask(case["window"], case["sinks"]), "window_mask's result")


def _painted(answer: Any, shape: list[int]) -> dict[str, Any]:
    answer = tensor(answer, "what the mask_mod gives back", kind="bool")
    try:
        whole = answer.expand(*shape)
    except RuntimeError:
        return {"shape": list(answer.shape)}
    return {"grid": ["".join("■" if is_read else "□" for is_read in row) for row in whole[-1, -1].tolist()]}


def mask_at_once(case: Case) -> dict[str, Any]:
    """With index tensors that broadcast."""
    q, k = torch.tensor(case["q"]), torch.tensor(case["k"])
    b, h = torch.arange(2)[:, None, None, None], torch.arange(6)[:, None, None]
    return _painted(_mask_of(case)(b, h, q[:, None], k), [2, 6, len(q), len(k)])


def mask_one_by_one(case: Case) -> dict[str, Any]:
    """With one index at a time, without dimensions: as FlexAttention asks, under torch.vmap."""
    mask_mod, q, k = _mask_of(case), torch.tensor(case["q"]), torch.tensor(case["k"])

    def at_positions(b: Tensor, h: Tensor, q_place: Tensor, k_place: Tensor) -> Tensor:
        answer = mask_mod(b, h, q[q_place], k[k_place])
        return tensor(answer, "what the mask_mod gives back", kind="bool")

    return _painted(create_mask(at_positions, 1, 1, len(q), len(k), device="cpu"), [1, 1, len(q), len(k)])


# ------------------------------------------------------------------------------------------------ 9.5 window_pages


def pages_read(case: Case) -> dict[str, Any]:
    """Both maps as one: ■ full, ▨ partial, □ neither, ✗ both.  Their shapes where these are not [R, 1, J]."""
    position_RT = torch.tensor(case["position"])
    found = written.window_pages(position_RT, case["window"], case["sinks"], case["pages"], case["size"])
    found = instance(found, (tuple, list), "the result")
    if len(found) != 2:
        raise NotUsable(f"the result holds {len(found)} things, not two: partial and full")
    partial, full = tensor(found[0], "`partial`", kind="bool"), tensor(found[1], "`full`", kind="bool")
    wanted = [len(case["position"]), 1, case["pages"]]
    if list(partial.shape) != wanted or list(full.shape) != wanted:
        return {"shapes": [list(partial.shape), list(full.shape)]}
    signs = 2 * full[:, 0].int() + partial[:, 0].int()
    return {"pages": ["".join("□▨■✗"[kind] for kind in row) for row in signs.tolist()]}


# ------------------------------------------------------------------------------------------------ 9.6 narrowed


def windows(case: Case) -> list[int | None]:
    found = instance(written.narrowed(list(case["own"]), case["wanted"]), (list, tuple), "the result")
    return [instance(one, (int, type(None)), "a window") for one in found]


# ------------------------------------------------------------------------------------------------ in an engine


def _engine(case: Case) -> Any:
    from course.grading.tiny import tiny_model
    from flexnano.inference import Inference

    model = tiny_model(case["model"], case["own"])
    settings = {"max_batch_size": 4, "max_seq_length": 256, "n_pages": 80, "attention": "gather"}
    windows = {"sliding_window": case["window"], "attention_sinks": case["sinks"], "page_size": case["size"]}
    return Inference(model, None, **{**settings, **case.get("engine", {})}, **windows)


@torch.inference_mode()
def _poison(engine: Any) -> None:
    """Fill the pages that nobody owns: a masked key is not unread, so with a number that is finite."""
    for cache in engine.caches:
        table = cache.page_table
        for page in set(table.free_pages):
            for pool in (cache.k_cache, cache.v_cache):
                pool[:, :, page * table.page_size : (page + 1) * table.page_size] = 1e4


def generates(case: Case) -> dict[str, Any]:
    """The tokens of each prompt, one request after the other or side by side, and what was in use on the way."""
    from flexnano.sampling_params import SamplingParams

    engine = _engine(case)
    tables = list(dict.fromkeys(cache.page_table for cache in engine.caches))
    windows = [next(c.window for c in engine.caches if c.page_table is table) for table in tables]
    requests = [engine.add_request(prompt, SamplingParams(max_new_tokens=case["n"])) for prompt in case["prompts"]]
    results: dict[int, Any] = {}
    held = [0] * len(tables)
    for _ in range(4 * case["n"] * len(requests) + 100):
        if not engine.has_work:
            break
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
        held = [max(most, table.n_pages - table.pages_available) for most, table in zip(held, tables, strict=True)]
        _poison(engine)
    return {
        "tokens": [list(results[one].token_ids) if one in results else "still running" for one in requests],
        "held": sorted([window or 0, most] for window, most in zip(windows, held, strict=True)),
        "preempted": engine.stats.preemptions,
        "pool": "whole" if all(_is_whole(table) for table in tables) else "pages lost, or free twice",
    }


in_the_engine = crowded = smallest_pool = layers_that_differ = by_mask_alone = by_pages = generates


def _is_whole(table: PageTable) -> bool:
    idle = [] if table.sharing is None else list(table.sharing.idle)
    return sorted([*table.free_pages, *idle]) == list(range(1, table.n_pages + 1))


def too_small(case: Case) -> str:
    _engine(case)
    return "accepted"
