"""Pictures show what the objects hold, and the page of a recorded run shows what the run did.

A picture is tested by the artists in it: each carries in its `gid` what it stands for.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest

from course.environment import ROOT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OKABE_ITO = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]


@pytest.fixture(scope="module")
def nano() -> Iterator[Any]:
    """The reference, imported beside whatever `flexnano` other tests use."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flexnano"}
    chosen = os.environ.get("FLEXNANO")
    os.environ["FLEXNANO"] = "solutions"
    yield importlib.import_module("flexnano")
    for name in [name for name in sys.modules if name.partition(".")[0] == "flexnano"]:
        del sys.modules[name]
    sys.modules.update(before)
    os.environ.pop("FLEXNANO")
    if chosen is not None:
        os.environ["FLEXNANO"] = chosen


def simulate(
    nano: Any, prompts: list[int], new: list[int], pages: int = 6, slots: int = 3, watched: bool = True
) -> Any:
    """A scheduler without a model.  Returns the trace, or, not watched, the rows of all steps."""
    run = nano.Scheduler(nano.PageTable(pages, 4, slots), max_prefill_tokens=16)
    for number, (n_tokens, n_new) in enumerate(zip(prompts, new, strict=True)):
        run.add(nano.Sequence(number, [0] * n_tokens, nano.SamplingParams(max_new_tokens=n_new)))
    if not watched:
        return drive(run)
    with nano.record(run) as trace:
        drive(run)
    return trace


def drive(run: Any) -> list[list[tuple[int, int, int]]]:
    steps = []
    while rows := run.next_step():
        steps.append([(row.sequence.request_id, row.start, row.n_tokens) for row in rows])
        for row in rows:
            row.sequence.output_ids.append(1)
            if reason := row.sequence.check_done():
                run.finish(row.sequence, reason)
    return steps


@pytest.fixture(scope="module")
def small(nano: Any) -> Any:
    """Four requests on six pages: C is preempted in step 3, B in step 7."""
    return simulate(nano, [5, 6, 4, 7], [9, 8, 7, 5])


@pytest.fixture(scope="module")
def busy(nano: Any) -> Any:
    chance = random.Random(3)
    return simulate(nano, [chance.randint(4, 30) for _ in range(14)], [chance.randint(5, 40) for _ in range(14)], 24, 6)


@pytest.fixture(scope="module")
def table(nano: Any) -> Any:
    """Eight pages of four: A holds 1 and 2, C what B gave back and more."""
    table = nano.PageTable(8, 4, 4, 16)
    slots = [table.allocate() for _ in range(3)]
    for slot, n_tokens in zip(slots[:2], (5, 9), strict=True):
        table.reserve(slot, n_tokens)
    table.reserve(slots[2], 6)
    return table


def drawn(figure: Figure, kind: str = "") -> dict[str, Any]:
    """The artists that stand for something, by what they stand for."""
    found = {}
    for ax in figure.axes:
        for artist in ax.get_children():
            if (gid := artist.get_gid()) and gid.startswith(kind) and not (kind and hasattr(artist, "get_text")):
                found[gid] = artist
    return found


def boxes(ax: Any) -> list[Any]:
    return [artist for artist in ax.get_children() if artist.get_gid() and hasattr(artist, "get_xy")]


def texts(figure: Figure) -> list[Any]:
    """Everything that can be read in a picture."""
    import matplotlib.text

    figure.canvas.draw()
    return [one for one in figure.findobj(matplotlib.text.Text) if one.get_text().strip() and one.get_visible()]


def labels(figure: Figure) -> list[str]:
    return [one.get_text() for one in texts(figure)]


def colour(artist: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(artist.get_facecolor())


def luminance(hexadecimal: str) -> float:
    parts = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


# ------------------------------------------------------------------------------------------------------ nothing at import


@pytest.mark.parametrize("module", ["flexnano", "flexnano.viz", "flexnano.trace"])
def test_importing_needs_neither_matplotlib_nor_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    environment = {**os.environ, "FLEXNANO": "solutions"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not {"matplotlib", "torch", "numpy"} & set(run.stdout.split())


# ------------------------------------------------------------------------------------------------------ masks


def test_a_mask_mod_is_drawn_entry_by_entry(nano: Any) -> None:
    figure = nano.draw_mask(nano.causal, 4)
    entries = {f"entry {q} {k}" for q in range(4) for k in range(q + 1)}
    assert set(drawn(figure)) == entries
    corner = drawn(figure)["entry 3 0"]
    assert corner.get_xy() == (0, 3), "keys from left to right, queries from top to bottom"
    assert figure.axes[0].yaxis_inverted()
    assert "key (token) →" in labels(figure)
    assert "← query (token)" in labels(figure), "turned by a quarter, it points down"


@pytest.mark.parametrize("size", [(12, 12), (10, 7), (5, 13)])
@pytest.mark.parametrize("block", [(4, 4), (3, 2)])
def test_blocks_are_those_of_classify_blocks(nano: Any, size: tuple[int, int], block: tuple[int, int]) -> None:
    mask = nano.all_of(nano.causal, nano.sliding_window(6))
    maps = [blocks[0, 0] for blocks in nano.classify_blocks(nano.dense_mask(mask, 1, 1, *size), block)]
    figure = nano.draw_mask(mask, *size, block_size=block)
    for kind, blocks in zip(("partial", "full"), maps, strict=True):
        assert set(drawn(figure, kind)) == {f"{kind} {i} {j}" for i, j in blocks.nonzero().tolist()}
    given = nano.draw_mask(tuple(maps), block_size=block)
    assert {*drawn(given)} == {*drawn(figure, "partial"), *drawn(figure, "full")}


def test_a_full_block_is_solid_and_a_partial_one_hatched(nano: Any) -> None:
    picture = drawn(nano.draw_mask(nano.causal, 8, block_size=4))
    assert picture["full 1 0"].get_hatch() is None
    assert picture["partial 0 0"].get_hatch() == "////"
    assert "full 0 1" not in picture
    assert "partial 0 1" not in picture


def test_a_block_mask_is_drawn_as_its_lists_say_right_or_wrong(nano: Any) -> None:
    partial, full = nano.classify_blocks(nano.dense_mask(nano.causal, 1, 1, 8, 8), (2, 2))
    right = nano.block_mask_from_blocks(partial, full, nano.causal, (2, 2), (8, 8))
    assert {*drawn(nano.draw_mask(right), "full")} == {f"full {i} {j}" for i in range(4) for j in range(i)}
    wrong = nano.block_mask_from_blocks(full, partial, nano.causal, (2, 2), (8, 8))
    assert {*drawn(nano.draw_mask(wrong), "full")} == {f"full {i} {i}" for i in range(4)}
    assert {*drawn(nano.draw_mask(wrong), "entry")} == {f"entry {q} {k}" for q in range(8) for k in range(q + 1)}


def test_a_decode_mask_is_drawn_with_all_its_rows_and_over_the_pool(nano: Any) -> None:
    import torch

    table = nano.PageTable(9, 4, 3, 24)
    slots = [table.allocate() for _ in range(2)]
    for slot, n_tokens in zip(slots, (6, 10), strict=True):
        table.reserve(slot, n_tokens)
    last = torch.tensor([[5], [9]])
    maps = nano.visible_blocks(torch.zeros_like(last), last, table.pages_per_row, (1, 4))
    logical = nano.block_mask_from_blocks(
        *(blocks[:, None] for blocks in maps), lambda b, h, q, position: position <= last[b, 0], (128, 4), (1, 24)
    )
    physical = table.convert_logical_block_mask(logical, torch.tensor(slots))
    figure = nano.draw_mask({"logical": logical, "physical": physical})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["logical", "physical"]
    for ax, first in zip(figure.axes, ((0, 0), (1, 3)), strict=True):
        found = {patch.get_gid() for patch in boxes(ax) if not patch.get_gid().startswith("entry")}
        pages = table.owned if ax is figure.axes[1] else [[], [0, 1], [0, 1, 2]]
        assert found == {
            *(f"full {row} {page}" for row in (0, 1) for page in pages[row + 1][:-1]),
            *(f"partial {row} {pages[row + 1][-1]}" for row in (0, 1)),
        }, first
    reads = [patch.get_gid() for patch in boxes(figure.axes[1]) if patch.get_gid().startswith("entry")]
    assert len(reads) == 6 + 10


def test_a_mask_that_lets_nothing_through_and_one_without_a_size(nano: Any) -> None:
    assert not drawn(nano.draw_mask(lambda b, h, q, k: k < 0, 4, block_size=2))
    with pytest.raises(ValueError, match="give Q"):
        nano.draw_mask(nano.causal)


# ------------------------------------------------------------------------------------------------------ pages


def test_a_page_has_the_colour_of_its_owner_in_order_of_admission(nano: Any, table: Any) -> None:
    picture = drawn(nano.draw_page_table(table), "page")
    assert {f"page {number}" for number in range(9)} <= picture.keys()
    for place, slot in enumerate((1, 2, 3)):
        for page in table.owned[slot]:
            assert colour(picture[f"page {page} filled"]) == OKABE_ITO[place]
    later = drawn(nano.draw_page_table(table, names={3: "X", 1: "Y", 2: "Z"}), "page")
    assert colour(later[f"page {table.owned[3][0]} filled"]) == OKABE_ITO[0]
    free = picture[f"page {table.free_pages[0]}"]
    assert colour(free) == "#ffffff"
    assert free.get_linewidth() < 1
    assert colour(picture["page 0"]) == "#c4c4c4"


def test_what_is_reserved_and_empty_is_hatched(nano: Any, table: Any) -> None:
    picture = drawn(nano.draw_page_table(table, tokens={1: 5, 2: 9, 3: 6}), "page")
    shares = {page: picture[f"page {page} filled"].get_width() for slot in (1, 2, 3) for page in table.owned[slot]}
    want = [share for shares in ([1, 0.25], [1, 1, 0.25], [1, 0.5]) for share in shares]
    assert [shares[page] for slot in (1, 2, 3) for page in table.owned[slot]] == want
    assert picture[f"page {table.owned[1][1]}"].get_hatch() == "////"


def test_each_page_says_whose_it_is_and_where_in_the_sequence(nano: Any, table: Any) -> None:
    said = labels(nano.draw_page_table(table, tokens={1: 5, 2: 9, 3: 6}))
    assert {"A₀", "A₁", "B₀", "B₁", "B₂", "C₀", "C₁", "sink", *"012345678"} <= set(said)
    assert {"A: slot 1, 5 tokens in 2 pages", "free", "reserved, still empty"} <= set(said)
    assert "physical page, 4 tokens each →" in said


def test_a_page_that_two_sequences_share_shows_both(nano: Any) -> None:
    table = nano.PageTable(3, 4, 2)
    for slot, pages in ((table.allocate(), [2, 1]), (table.allocate(), [2, 3])):
        table.owned[slot] = pages
    figure = nano.draw_page_table(table)
    halves = [patch for patch in boxes(figure.axes[0]) if patch.get_gid() == "page 2 filled"]
    assert [colour(half) for half in halves] == OKABE_ITO[:2]
    assert "A₀B₀" in labels(figure)


def test_a_large_pool_is_drawn_in_small_boxes_with_the_names_alone(nano: Any) -> None:
    table = nano.PageTable(256, 16, 4)
    table.reserve(table.allocate(), 900)
    figure = nano.draw_page_table(table, names={1: "B2"})
    assert {f"page {number}" for number in range(257)} <= drawn(figure, "page").keys()
    assert labels(figure).count("B2") == -(-900 // 16)


def test_fragmentation_counts_the_empty_places_of_both(nano: Any, table: Any) -> None:
    figure = nano.draw_fragmentation(table, {1: 5, 2: 9, 3: 6})
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "pieces of 16 tokens: 18 of 32 reserved places are empty; no room for C",
        "pages of 4 tokens: 8 of 28 reserved places are empty",
    ]
    pieces, pages = drawn(figure, "contiguous"), drawn(figure, "pages")
    assert pieces["contiguous 16 filled"].get_width() == 9
    assert pieces["contiguous 16"].get_width() == 16
    filled = sum(patch.get_width() for gid, patch in pages.items() if gid.endswith("filled"))
    assert filled == 5 + 9 + 6
    assert colour(pages["pages 0 filled"]) == colour(pieces["contiguous 0 filled"]) == OKABE_ITO[0]


# ------------------------------------------------------------------------------------------------------ schedule


def test_the_schedule_shows_who_did_what(nano: Any, small: Any) -> None:
    picture = drawn(nano.draw_schedule(small))
    for x, step in enumerate(small.steps):
        for part in step.parts:
            assert f"{part.request} {x} {part.kind}" in picture
        for request in step.preempted:
            assert picture[f"{request} {x} preempted"].get_marker() == "x"
            assert f"{request} {x} decode" not in picture
        for request in step.finished:
            assert f"{request} {x} finished" in picture
    assert {"2 3 preempted", "1 7 preempted", "3 0 waiting"} <= picture.keys()
    assert [gid for gid in picture if gid.endswith("prefill")] == [
        *("0 0 prefill", "1 0 prefill", "1 9 prefill", "2 0 prefill", "2 10 prefill", "3 10 prefill")
    ]


def test_who_runs_but_is_held_up_by_a_prefill_is_a_line(nano: Any, busy: Any) -> None:
    step = next(x for x, step in enumerate(busy.steps) if len(step.held) > len(step.parts))
    held_up = {held.request for held in busy.steps[step].held} - {part.request for part in busy.steps[step].parts}
    assert {f"{request} {step} held up" for request in held_up} <= drawn(nano.draw_schedule(busy)).keys()


def test_prefill_is_dark_and_decode_light_for_every_owner(nano: Any, busy: Any) -> None:
    picture = drawn(nano.draw_schedule(busy))
    by_request: dict[str, dict[str, float]] = {}
    for gid, artist in picture.items():
        request, _, kind = gid.partition(" ")
        if kind.endswith(("prefill", "decode")):
            by_request.setdefault(request, {})[kind.split()[-1]] = luminance(colour(artist))
    assert len(by_request) == 14
    for request, shades in by_request.items():
        ratio = (shades["decode"] + 0.05) / (shades["prefill"] + 0.05)
        assert ratio > 3, f"request {request} in a picture without colour"


def test_pages_held_are_stacked(nano: Any, small: Any) -> None:
    picture = drawn(nano.draw_schedule(small))
    for x, step in enumerate(small.steps):
        heights = {held.request: len(held.pages) for held in step.held}
        for request in small.admission_order:
            area = picture[f"pages {small.name(request)}"]
            tops, _, bottoms = area.get_data()
            assert tops[x] - bottoms[x] == heights.get(request, 0)
            assert colour(area) == OKABE_ITO[small.admission_order.index(request)]


def test_a_stolen_page_has_a_red_edge_and_says_from_whom_to_whom(nano: Any, small: Any) -> None:
    assert small.steps[3].stolen == {5: 2, 6: 2}, "both pages of C"
    figure = nano.draw_step(small, 3)
    picture = drawn(figure, "page")
    for page in (5, 6):
        edge = picture[f"page {page} stolen"]
        assert edge.get_edgecolor()[:3] == pytest.approx((0xD0 / 255, 0, 0))
        assert edge.get_linewidth() > 2
    assert not [gid for gid in picture if gid.endswith("stolen") and gid[5] not in "56"]
    assert {"C→B₂", "C→·", "step 3: decode A B, preempted C"} <= set(labels(figure))
    assert labels(nano.draw_step(small, -1)).count("step 14: decode D") == 1


# ------------------------------------------------------------------------------------------------------ bytes


def test_bytes_are_those_of_the_published_configs(nano: Any) -> None:
    figure = nano.draw_kv_bytes(nano.kv_bytes_per_token)
    said = " ".join(labels(figure))
    kib = {
        "Gemma-2B": 18,
        "SmolLM2-135M": 22.5,
        "Gemma-2-2B": 104,
        "Qwen3-0.6B": 112,
        "Llama-3-8B": 128,
        "Llama-2-7B": 512,
    }
    bars = drawn(figure, "bar")
    assert {name.removeprefix("bar "): bar.get_width() for name, bar in bars.items()} == kib
    assert "104 KiB = 26 · 4 · (256 + 256) · 2" in said
    assert "8,192 tokens a GiB" in said
    assert {gid: bar.get_width() for gid, bar in drawn(nano.draw_kv_bytes(), "bar").items()} == {
        gid: bar.get_width() for gid, bar in bars.items()
    }


def test_bytes_of_a_wrong_count_are_drawn_as_counted(nano: Any) -> None:
    bars = drawn(nano.draw_kv_bytes(lambda layers, dtype: 1024 * len(list(layers))), "bar")
    assert bars["bar SmolLM2-135M"].get_width() == 30


# ------------------------------------------------------------------------------------------------------ one style


@pytest.fixture(scope="module")
def gallery(nano: Any, table: Any, small: Any, busy: Any) -> dict[str, Figure]:
    tokens = {1: 5, 2: 9, 3: 6}
    return {
        "mask": nano.draw_mask(nano.causal, 8),
        "masks": nano.draw_mask({"all": nano.causal, "some": nano.sliding_window(3)}, 12, block_size=4),
        "pages": nano.draw_page_table(table, tokens=tokens),
        "fragmentation": nano.draw_fragmentation(table, tokens),
        "schedule": nano.draw_schedule(small),
        "long schedule": nano.draw_schedule(busy),
        "step": nano.draw_step(small, 3),
        "bytes": nano.draw_kv_bytes(),
    }


def test_text_is_large_enough_at_the_size_at_which_it_is_shown(gallery: dict[str, Figure]) -> None:
    for name, figure in gallery.items():
        assert figure.get_figwidth() <= 7, f"{name} is wider than a page of the book"
        assert figure.dpi == 100
        small_ones = [one.get_text() for one in texts(figure) if one.get_fontsize() < 9]
        assert not small_ones, name


def test_pictures_are_legible_on_a_dark_page_and_in_print(gallery: dict[str, Figure]) -> None:
    from matplotlib.colors import to_hex

    for name, figure in gallery.items():
        assert figure.get_facecolor() == (1, 1, 1, 1), f"{name} lets the page shine through"
        for one in texts(figure):
            ink, backing = to_hex(one.get_color()), one.get_bbox_patch()
            if ink == "#ffffff":  # in a dark bar
                bar = next(bar for gid, bar in drawn(figure, "bar").items() if gid[4:] == one.get_gid()[5:])
                behind = colour(bar)
            else:
                behind = colour(backing) if backing is not None else "#ffffff"
            assert contrast(ink, behind) >= 4.5, f"{name}: {one.get_text()}"


def test_axes_say_unit_and_direction(gallery: dict[str, Figure]) -> None:
    units = ("token", "tokens each", "tokens)", "bfloat16", "step", "pages held", "request")
    for name, figure in gallery.items():
        said = [text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel()) if text]
        assert any("→" in text for text in said), name
        assert all(any(unit in text for unit in units) for text in said), name


def test_each_picture_explains_its_colours_and_patterns(gallery: dict[str, Figure]) -> None:
    for name, figure in gallery.items():
        assert figure.legends or name == "bytes", name


def test_nothing_of_the_readers_matplotlib_is_changed(nano: Any) -> None:
    import matplotlib.pyplot as plt

    before, figures = dict(plt.rcParams), plt.get_fignums()
    nano.draw_mask(nano.causal, 4)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == figures, "a notebook would show the picture twice"


# ------------------------------------------------------------------------------------------------------ the trace


def test_recording_changes_nothing(nano: Any) -> None:
    case = ([5, 6, 4, 7], [9, 8, 7, 5])
    trace = simulate(nano, *case)
    steps = [[(part.request, part.start, part.n_tokens) for part in step.parts] for step in trace.steps]
    assert steps == simulate(nano, *case, watched=False)


def test_a_scheduler_is_left_as_it_was_also_after_an_error(nano: Any) -> None:
    run = nano.Scheduler(nano.PageTable(6, 4, 3), max_prefill_tokens=16)
    run.add(nano.Sequence(0, [0] * 5))
    with pytest.raises(RuntimeError, match="stop"), nano.record(run) as outer, nano.record(run) as inner:
        run.next_step()
        raise RuntimeError("stop")
    assert "next_step" not in vars(run)
    assert len(outer.steps) == len(inner.steps) == 1
    run.next_step()
    assert len(outer.steps) == 1


@pytest.mark.parametrize("which", ["small", "busy"])
def test_pages_change_hands_as_the_trace_says(which: str, request: pytest.FixtureRequest) -> None:
    trace = request.getfixturevalue(which)
    before: dict[int, int] = {}
    gone: set[int] = set()
    for step in trace.steps:
        now = {page: held.request for held in step.held for page in held.pages}
        assert sum(len(held.pages) for held in step.held) == len(now), "no page has two owners here"
        assert step.taken == sorted(page for page, owner in now.items() if before.get(page) != owner)
        lost = {page: owner for page, owner in before.items() if owner in step.preempted and now.get(page) != owner}
        assert step.stolen == lost
        assert step.freed == sorted(page for page, owner in before.items() if page not in now and owner in gone)
        assert all(held.request not in gone for held in step.held)
        for held in step.held:
            assert 0 <= min(held.filled) <= max(held.filled) <= trace.page_size
            assert len(held.pages) == -(-sum(held.filled) // trace.page_size)
        tokens = {held.request: sum(held.filled) for held in step.held}
        for part in step.parts:
            assert tokens[part.request] == part.start + part.n_tokens
            assert part.kind == ("prefill" if part.start == 0 else "decode")
            assert (part.request in step.admitted) == (part.start == 0)
        before, gone = now, gone | step.finished.keys()
    assert gone == {one.id for one in trace.requests}, "everybody finished"


def test_requests_are_named_in_order_of_arrival_and_coloured_in_order_of_admission(nano: Any) -> None:
    run = nano.Scheduler(nano.PageTable(6, 4, 3), max_prefill_tokens=16)
    jobs = [nano.Sequence(number, [0] * 9, nano.SamplingParams(max_new_tokens=2)) for number in (9, 7, 3)]
    for job in jobs:
        run.add(job)
    with nano.record(run, names={7: "poem"}) as trace:
        run.waiting.rotate(-1)
        drive(run)
    assert [(one.id, one.name) for one in trace.requests] == [(9, "A"), (7, "poem"), (3, "C")]
    assert trace.admission_order == [7, 3, 9]
    assert [one.output_tokens for one in trace.requests] == [2, 2, 2]


def test_more_than_26_requests_have_names_of_their_own(nano: Any) -> None:
    trace = simulate(nano, [4] * 60, [1] * 60, pages=60, slots=60)
    assert len({one.name for one in trace.requests}) == 60
    assert [trace.requests[i].name for i in (0, 25, 26)] == ["A", "Z", "A2"]


def test_a_trace_comes_back_from_json_as_it_was(nano: Any, small: Any, tmp_path: Path) -> None:
    path = small.save(tmp_path / "run.json")
    assert nano.Trace.load(path) == small
    assert repr(small) == "Trace(15 steps of 4 requests, 6 pages of 4 tokens)"


class Tokenizer:
    """Writes each token as its number."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}

    def convert_ids_to_tokens(self, token: int) -> str:
        return f"<{token}>"

    def decode(self, ids: list[int], **_options: Any) -> str:
        return "".join(map(self.convert_ids_to_tokens, ids))


@pytest.mark.parametrize("fast", [False, True])
def test_a_run_of_the_engine_is_recorded_with_the_same_tokens(nano: Any, fast: bool) -> None:
    from course.grading.tiny import tiny_model

    prompts = [[5] * 5, [6] * 6, [7] * 4, [8] * 7]
    params = [nano.SamplingParams(max_new_tokens=n) for n in (9, 8, 7, 5)]
    sizes = dict(max_batch_size=3, max_seq_length=32, n_pages=6, page_size=4, attention="gather", fast=fast)
    with nano.Inference(tiny_model(), Tokenizer(), **sizes) as engine:
        expected = [result.token_ids for result in engine.generate(prompts, params)]
        with nano.record(engine) as trace:
            results = engine.generate(prompts, params)
        assert [result.token_ids for result in results] == expected
        assert "next_step" not in vars(engine.scheduler)
    assert [one.output_tokens for one in trace.requests] == [9, 8, 7, 5]
    assert any(step.preempted for step in trace.steps)
    assert sum(one.prompt_tokens + one.output_tokens for one in trace.requests) == sum(
        len(one.tokens) for one in trace.requests
    )
    assert trace.requests[0].tokens[:5] == ["<5>"] * 5
    assert {number for step in trace.steps for number in step.finished} == {one.id for one in trace.requests}


def test_what_runs_already_and_what_is_aborted_is_in_the_trace(nano: Any) -> None:
    run = nano.Scheduler(nano.PageTable(8, 4, 3), max_prefill_tokens=16)
    jobs = [nano.Sequence(i, [0] * 5, nano.SamplingParams(max_new_tokens=9)) for i in range(2)]
    for job in jobs:
        run.add(job)
    run.next_step()
    for job in jobs:
        job.output_ids.append(1)
    with nano.record(run) as trace:
        run.next_step()
        run.finish(jobs[0], "aborted")
        jobs[1].output_ids.append(1)
        run.next_step()
    assert trace.admission_order == [0, 1]
    assert not trace.steps[0].admitted
    assert not trace.steps[0].taken
    assert trace.steps[0].finished == {0: "aborted"}
    assert len(trace.steps[1].freed) == 2
    assert trace.steps[1].held[0].filled == [4, 3]


def test_a_page_knows_its_place_when_earlier_ones_were_given_up(nano: Any) -> None:
    """As in a sliding window: the table's inverse says where a page lies."""
    run = nano.Scheduler(nano.PageTable(8, 4, 3), max_prefill_tokens=16)
    job = nano.Sequence(0, [0] * 10)
    run.add(job)
    run.next_step()
    table = run.page_table
    table.drop([table.owned[job.slot].pop(0)])
    job.output_ids.append(1)
    with nano.record(run) as trace:
        run.next_step()
    held = trace.steps[0].held[0]
    assert (held.first, held.filled) == (1, [4, 3])
    assert {"A₁", "A₂"} <= set(labels(nano.draw_step(trace, 0)))


def test_nothing_recorded_is_said(nano: Any) -> None:
    with nano.record(nano.Scheduler(nano.PageTable(6, 4, 3), max_prefill_tokens=16)) as trace:
        pass
    with pytest.raises(ValueError, match="no step was recorded"):
        nano.draw_schedule(trace)


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_one_file_that_names_no_other(small: Any, tmp_path: Path) -> None:
    page = small.html(tmp_path / "run.html", title="Four & more").read_text(encoding="utf-8")
    assert "<title>Four &amp; more</title>" in page
    assert "%%" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.findall(r"\b(?:src|href)=|@import|url\(|fetch\(|<link", page)
    policy = re.search(r'content="(default-src[^"]*)"', page)
    assert policy is not None
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == json.loads(small.to_json())


def test_text_of_prompts_cannot_leave_its_place(nano: Any, tmp_path: Path) -> None:
    text = '</script><img src="x"> %%DATA%% <!--'
    trace = simulate(nano, [3], [1])
    trace.requests[0].tokens = [text]
    data = re.search(r'id="data">(.*?)</script>', trace.page(), re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["requests"][0]["tokens"] == [text]
    assert "<img" not in trace.page()


def test_a_notebook_shows_the_page_in_a_frame(small: Any) -> None:
    import html

    shown = small._repr_html_()
    frame = re.fullmatch(r'<iframe title="A recorded run" srcdoc="([^"]*)"[^>]*></iframe>', shown)
    assert frame is not None
    assert html.unescape(frame[1]) == small.page()


# ------------------------------------------------------------------------------------------------- the page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    if (program := chromium.found()) is None:
        pytest.skip(f"needs Linux and one of {', '.join(chromium.NAMES)} (apt install chromium)")
    browser = chromium.Chromium(program)
    yield browser
    browser.close()


def shown(browser: chromium.Chromium) -> dict[str, Any]:
    """What a reader sees of the pool."""
    return browser.ask(
        """({
            where: document.getElementById("where").textContent,
            slider: +document.getElementById("slider").value,
            pages: [...document.querySelectorAll("#pool li")].map((item) => item.firstChild.textContent),
            kinds: [...document.querySelectorAll("#pool .box")].map((box) => box.className.split(" ").slice(1).join(" ")),
            states: [...document.querySelectorAll("#names .state")].map((one) => one.textContent),
            events: [...document.querySelectorAll("#events li")].map((one) => one.textContent),
        })"""
    )


SMALL_PRINT = """[...document.querySelectorAll("body *")].filter((one) => one.getClientRects().length
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
    && parseFloat(getComputedStyle(one).fontSize) < 12).map((one) => one.outerHTML.slice(0, 80))"""

PALE = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    if (!one.getClientRects().length) continue;
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(one);
    const ink = light(parts(one.namespaceURI.endsWith("svg") ? style.fill : style.color));
    let around = one;
    const back = (node) => parts(getComputedStyle(node).backgroundColor);
    while (around !== document.documentElement && (back(around)[3] ?? 1) === 0) around = around.parentElement;
    const paper = light(back(around));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(1)}: ${one.outerHTML.slice(0, 80)}`);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_one_watches_the_run_step_by_step(
    browser: chromium.Chromium, busy: Any, width: int, dark: bool, tmp_path: Path
) -> None:
    browser.open(busy.html(tmp_path / "run.html"), width, dark)
    last = len(busy.steps) - 1
    assert shown(browser)["where"] == f"step 0 of {last}"

    # by keyboard
    browser.ask("document.getElementById('slider').focus()")
    for _ in range(10):
        browser.key("ArrowRight")
    assert shown(browser)["slider"] == 10
    look_at_step(shown(browser), busy, 10)
    browser.key("End")
    look_at_step(shown(browser), busy, last)
    browser.key("Home")
    look_at_step(shown(browser), busy, 0)

    # by mouse: the middle of the slider, the buttons, the timeline
    box = "document.getElementById('slider').getBoundingClientRect()"
    browser.click(*browser.ask(f"[{box}.left + {box}.width / 2, {box}.top + {box}.height / 2]"))
    middle = shown(browser)["slider"]
    assert abs(middle - last / 2) <= 2
    look_at_step(shown(browser), busy, middle)
    for button, step in (("on", middle + 1), ("back", middle)):
        box = f"document.getElementById('{button}').getBoundingClientRect()"
        browser.click(*browser.ask(f"[{box}.left + 9, {box}.top + 9]"))
        look_at_step(shown(browser), busy, step)
    browser.ask("document.getElementById('scroll').scrollLeft = 0; document.getElementById('scroll').scrollIntoView()")
    box = "document.querySelector('#scroll svg').getBoundingClientRect()"
    browser.click(*browser.ask(f"[{box}.left + {box}.width * 12.5 / {last + 1}, {box}.top + 15]"))
    look_at_step(shown(browser), busy, 12)

    assert browser.ask("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.ask("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    assert browser.ask(SMALL_PRINT) == []
    assert browser.ask(PALE) == []
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "about", "data"}


def look_at_step(seen: dict[str, Any], trace: Any, k: int) -> None:
    """Whether the page shows step k of a run in which no page is shared."""
    step = trace.steps[k]
    assert seen["where"] == f"step {k} of {len(trace.steps) - 1}"
    want = ["sink"] + [""] * trace.n_pages
    kinds = ["sink"] + [""] * trace.n_pages
    for held in step.held:
        for i, page in enumerate(held.pages):
            want[page], kinds[page] = f"{trace.name(held.request)}{i}", "owned"
    for page in step.taken:
        kinds[page] += " taken"
    for page in step.freed:
        kinds[page] += " freed"
    for page, victim in step.stolen.items():
        want[page] = f"{trace.name(victim)}→{want[page]}"
        kinds[page] += " stolen"
    assert seen["pages"] == want
    assert seen["kinds"] == [kind.strip() for kind in kinds]
    for part in step.parts:
        state = seen["states"][[one.id for one in trace.requests].index(part.request)]
        tokens = part.start + part.n_tokens
        assert state.startswith(f"{part.kind}: {tokens} token"), state
    for request in step.preempted:
        assert any(event.startswith(f"{trace.name(request)} is preempted") for event in seen["events"])
    for request, reason in step.finished.items():
        assert any(event.startswith(f"{trace.name(request)} finishes ({reason})") for event in seen["events"])


def test_every_step_is_shown_as_recorded(browser: chromium.Chromium, busy: Any, small: Any, tmp_path: Path) -> None:
    for trace in (small, busy):
        browser.open(trace.html(tmp_path / "run.html"), 1280, dark=False)
        for k in range(len(trace.steps)):
            browser.ask(f"go({k})")
            look_at_step(shown(browser), trace, k)
        marks = browser.ask("[...document.querySelectorAll('#scroll [data-kind]')].map((one) => one.dataset.kind)")
        for kind in ("prefill", "decode"):
            assert marks.count(kind) == sum(part.kind == kind for step in trace.steps for part in step.parts)


def test_a_page_tells_what_lies_in_it(browser: chromium.Chromium, nano: Any, tmp_path: Path) -> None:
    trace = simulate(nano, [6], [4])
    trace.requests[0].tokens = ["The", " cap", "ital", " <b>", " of", " France", "!", "?", "…", "x"]
    browser.open(trace.html(tmp_path / "run.html"), 1280, dark=False)
    page = trace.steps[0].held[0].pages[1]
    box = f"document.querySelector('[data-page=\"{page}\"]').getBoundingClientRect()"
    browser.click(*browser.ask(f"[{box}.left + 9, {box}.top + 9]"))
    detail = "document.getElementById('detail').textContent"
    assert browser.ask(detail) == f"Page {page} is page 1 of A: tokens 4 to 5, 2 of 4 places: “ of France”"
    browser.ask("document.getElementById('pool').focus()")
    for _ in range(10):
        browser.key("ArrowLeft")
    assert browser.ask(detail).startswith("Page 0 is the sink")
    browser.key("ArrowRight")
    assert browser.ask(detail).startswith("Page 1")


def test_play_goes_on_by_itself_and_stops_at_the_end(browser: chromium.Chromium, small: Any, tmp_path: Path) -> None:
    import time

    browser.open(small.html(tmp_path / "run.html"), 1280, dark=False)
    browser.ask("go(12)")
    browser.ask("document.getElementById('play').click()")
    assert browser.ask("document.getElementById('play').textContent") == "Pause"
    end = time.monotonic() + 20
    while browser.ask("document.getElementById('play').textContent") == "Pause":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert shown(browser)["where"] == "step 14 of 14"


@pytest.mark.parametrize("width", [390, 760])
def test_in_a_frame_it_takes_the_theme_and_the_height_that_it_needs(
    browser: chromium.Chromium, busy: Any, width: int, tmp_path: Path
) -> None:
    around = tmp_path / "book.html"
    around.write_text(
        f'<!doctype html><html data-theme="dark"><body>{busy._repr_html_()}</body></html>', encoding="utf-8"
    )
    browser.open(around, width, dark=False)
    frame = "document.querySelector('iframe')"
    theme = f"{frame}.contentDocument.documentElement.dataset.theme"
    assert browser.ask(theme) == "dark"
    assert browser.ask(f"{frame}.contentDocument.documentElement.scrollHeight - {frame}.clientHeight") <= 0
    browser.ask("document.documentElement.dataset.theme = 'light'")
    assert browser.ask(theme) == "light"
    assert browser.complaints() == []


def test_a_page_of_a_large_pool_and_one_without_steps_open_too(
    browser: chromium.Chromium, nano: Any, tmp_path: Path
) -> None:
    large = simulate(nano, [40, 300], [3, 3], pages=256)
    browser.open(large.html(tmp_path / "large.html"), 390, dark=True)
    assert len(shown(browser)["pages"]) == 257
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    assert browser.ask(SMALL_PRINT) == []
    with nano.record(nano.Scheduler(nano.PageTable(6, 4, 3), max_prefill_tokens=16)) as nothing:
        pass
    browser.open(nothing.html(tmp_path / "nothing.html"), 390, dark=False)
    assert shown(browser)["where"] == "no step was recorded"
    assert browser.complaints() == []


def test_a_shared_page_shows_both_owners(browser: chromium.Chromium, nano: Any, tmp_path: Path) -> None:
    trace = simulate(nano, [6, 6], [2, 2])
    first, second = trace.steps[0].held
    second.pages[0] = first.pages[0]
    browser.open(trace.html(tmp_path / "run.html"), 1280, dark=False)
    assert shown(browser)["pages"][first.pages[0]] == "A0B0"
    box = f"document.querySelector('[data-page=\"{first.pages[0]}\"] .box')"
    assert browser.ask(f"getComputedStyle({box}).backgroundImage").count("linear-gradient") == 4
