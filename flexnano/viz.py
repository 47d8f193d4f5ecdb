# Your copy of solutions/flexnano/viz.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 211b8bfeed90adc9
"""Pictures of masks, pages, schedules and bytes, drawn from the objects that the course builds.  Given.

Each function returns a matplotlib Figure, which a notebook shows if it is the last line of a cell.  A colour means the same
everywhere: owners have the Okabe-Ito palette in order of admission, free pages are white, the sink is grey, a page taken
from a preempted sequence has a red edge; what is full is solid, what is partial is hatched, what is empty is left out;
prefill is dark, decode light, a preempted sequence crossed.  Everything also carries a letter or a pattern, so that no
picture needs its colours, and stands on white, so that it can be read on a dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

    from .masks import MaskMod
    from .page_table import PageTable
    from .trace import Step, Trace

    BlockMaps = tuple[Tensor, Tensor]
    """Bool tensors [..., query blocks, key blocks]: which blocks are partial, which are full."""

OWNERS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
"""Okabe and Ito's palette without black, which is for text."""
INK, SLATE, EDGE, SINK, STOLEN = "#1a1a1a", "#46515c", "#8c8c8c", "#c4c4c4", "#d00000"
WIDTH = 6.8  # inches, at 100 dots each: as wide as a page of the book, so that text is shown at its size
STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": EDGE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "hatch.linewidth": 1.1,
}


# ------------------------------------------------------------------------------------------------------ masks


def draw_mask(
    mask: MaskMod | BlockMask | BlockMaps | Mapping[str, Any],
    Q: int | None = None,
    K: int | None = None,
    block_size: int | tuple[int, int] | None = None,
    b: int = 0,
    h: int = 0,
) -> Figure:
    """Which query reads which key: entry by entry, and as blocks if there are any.

    Args:
        mask: a `mask_mod`, a BlockMask, or the two maps (partial, full) that `classify_blocks` gives; or several of these
            by title, which are drawn side by side.
        Q, K: queries and keys.  K may be left out where it is Q; both, where a BlockMask has its own.
        block_size: queries and keys in a block, of a `mask_mod` that is to be cut into blocks, or of maps.
        b, h: batch row and head that are looked at.  A BlockMask with one query a row, as in decode, is drawn with all its
            rows below each other.

    A BlockMask is drawn as its lists say, right or wrong: a full block solid, a partial one hatched, one that is not listed
    is left out.  Up to 64 by 64, the entries that the `mask_mod` allows are drawn too.
    """
    masks = dict(mask) if isinstance(mask, Mapping) else {"": mask}
    maps = [_MaskPicture.of(one, Q, K, block_size, b, h) for one in masks.values()]
    side = min(WIDTH / len(maps), 4)
    high = side + 0.5 if maps[0].rows == "query" else 1.3 + 0.35 * maps[0].size[0]
    with _figure(side * len(maps), high, columns=len(maps)) as (figure, axes):
        for ax, picture, title in zip(axes, maps, masks, strict=True):
            picture.draw(ax)
            ax.set_title(title)
        drawn = [kind for kind in ("full", "partial", "entry") if any(picture.shows(kind) for picture in maps)]
        said = {"full": "full block", "partial": "partial block", "entry": "query reads key"}
        _legend(figure, [(said[kind], _MaskPicture.style(kind)) for kind in drawn])
    return figure


@dataclass
class _MaskPicture:
    """One panel of `draw_mask`.  Maps and entries are numpy arrays [rows, columns], bool; entries may be None."""

    partial: Any
    full: Any
    entries: Any
    block: tuple[int, int]
    size: tuple[int, int]
    rows: str = "query"

    @classmethod
    def of(cls, mask: Any, Q: int | None, K: int | None, block_size: Any, b: int, h: int) -> _MaskPicture:
        import numpy as np

        if isinstance(mask, tuple):
            partial, full = (_last_two(blocks).numpy() for blocks in mask)
            block = _pair(1 if block_size is None else block_size)
            size = (Q or partial.shape[0] * block[0], K or partial.shape[1] * block[1])
            return cls(partial, full, None, block, size)
        if hasattr(mask, "kv_indices"):
            return cls._of_block_mask(mask, b, h)
        if Q is None:
            raise ValueError("a mask_mod has no size of its own: give Q, and K if it differs")
        size = (Q, Q if K is None else K)
        entries = _entries(mask, *size, b, h)
        if block_size is None:
            nothing = np.zeros((0, 0), bool)
            return cls(nothing, nothing, entries, (1, 1), size)
        block = _pair(block_size)
        # How many entries of each block are set; all of them, where a block is full.
        starts = [range(0, size[axis], block[axis]) for axis in (0, 1)]
        count = np.add.reduceat(np.add.reduceat(entries.astype(int), starts[0], axis=0), starts[1], axis=1)
        queries = [min(block[0], size[0] - start) for start in starts[0]]
        every = np.array(queries)[:, None] * block[1]  # a block that sticks out beyond the last key is never full
        return cls((count > 0) & (count < every), count == every, entries, block, size)

    @classmethod
    def _of_block_mask(cls, mask: BlockMask, b: int, h: int) -> _MaskPicture:
        import numpy as np

        one_query = mask.seq_lengths[0] == 1
        rows = list(range(mask.kv_num_blocks.shape[0])) if one_query else [b]

        def listed(counts: Tensor | None, indices: Tensor | None) -> Any:
            """The blocks named in the lists, as a map."""
            found = np.zeros((len(rows) * mask.kv_num_blocks.shape[2], mask.kv_indices.shape[3]), bool)
            if counts is not None and indices is not None:
                numbers = counts[rows, h].flatten().tolist()
                for line, n, blocks in zip(found, numbers, indices[rows, h].flatten(0, 1).tolist(), strict=True):
                    line[blocks[:n]] = True
            return found

        partial = listed(mask.kv_num_blocks, mask.kv_indices)
        full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
        size = (len(rows) if one_query else mask.seq_lengths[0], mask.seq_lengths[1])
        entries = None
        if size[0] <= 64 and size[1] <= 64:
            device = mask.kv_indices.device
            entries = np.concatenate(
                [_entries(mask.mask_mod, mask.seq_lengths[0], size[1], row, h, device) for row in rows]
            )
        block = (1 if one_query else mask.BLOCK_SIZE[0], mask.BLOCK_SIZE[1])
        return cls(partial, full, entries, block, size, "batch row" if one_query else "query")

    def shows(self, kind: str) -> bool:
        found = {"partial": self.partial, "full": self.full, "entry": self.entries}[kind]
        return found is not None and bool(found.any())

    @staticmethod
    def style(kind: str) -> dict[str, Any]:
        if kind == "partial":
            return {"facecolor": "#dfe3e7", "edgecolor": SLATE, "hatch": "////"}
        return {"facecolor": "#7d8996" if kind == "full" else INK, "edgecolor": "white"}

    def draw(self, ax: Axes) -> None:
        (q_block, k_block), (Q, K) = self.block, self.size
        for kind, blocks in (("full", self.full), ("partial", self.partial)):
            for i, j in zip(*blocks.nonzero(), strict=True):
                x, y = j * k_block, i * q_block
                wide, high = min(k_block, K - x), min(q_block, Q - y)
                _box(ax, x, y, wide, high, gid=f"{kind} {i} {j}", linewidth=0.8, **self.style(kind))
        if self.entries is not None:
            within = 0.36 if self.full.size else 0  # entries inside of blocks leave the blocks to be seen
            for q, k in zip(*self.entries.nonzero(), strict=True):
                box = (k + within / 2, q + within / 2, 1 - within, 1 - within)
                _box(ax, *box, gid=f"entry {q} {k}", linewidth=0.5, **self.style("entry"))
        ax.set_xlim(0, K)
        ax.set_ylim(Q, 0)
        ax.set_aspect("equal" if self.rows == "query" and 0.2 < Q / K < 5 else "auto")
        ax.spines[:].set_visible(True)
        step = (q_block, k_block) if self.full.size else (1, 1)
        for axis, length, every in ((ax.yaxis, Q, step[0]), (ax.xaxis, K, step[1])):
            _ticks(axis, length, every, at_most=9, middle=every == 1)
        if max(Q / step[0], K / step[1]) <= 64:
            ax.set_xticks(range(0, K + 1, step[1]), minor=True)
            ax.set_yticks(range(0, Q + 1, step[0]), minor=True)
            ax.grid(which="minor", color="#d5d5d5", linewidth=0.5)
            ax.set_axisbelow(True)
        ax.tick_params(which="minor", length=0)
        blocks = f", blocks of {k_block}" if self.full.size else ""
        ax.set_xlabel(f"key (token{blocks}) →")
        ax.set_ylabel(f"← {self.rows}" if self.rows == "batch row" else f"← {self.rows} (token)")


def _entries(mask_mod: MaskMod, Q: int, K: int, b: int, h: int, device: Any = "cpu") -> Any:
    """What a mask_mod answers for each query and key, a numpy array [Q, K]."""
    import torch

    row, head = torch.tensor(b, device=device), torch.tensor(h, device=device)
    answer = mask_mod(row, head, torch.arange(Q, device=device)[:, None], torch.arange(K, device=device)[None, :])
    return answer.broadcast_to((Q, K)).cpu().numpy()


def _last_two(blocks: Tensor) -> Tensor:
    """[..., rows, columns] -> the first [rows, columns]."""
    return blocks.reshape(-1, *blocks.shape[-2:])[0].cpu()


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


# ------------------------------------------------------------------------------------------------------ pages


@dataclass
class _Page:
    """What is drawn of a page: who owns it, as what part of its sequence, and which share of it holds tokens."""

    number: int
    owners: list[int]  # places in the order of admission; several where a prefix is shared
    name: str = ""  # of the first owner
    label: str = ""
    share: float = 1.0
    stolen_from: str = ""


def draw_page_table(
    page_table: PageTable, names: Mapping[int, str] | None = None, tokens: Mapping[int, int] | None = None
) -> Figure:
    """The pool as a strip of pages, each in the colour of its owner.

    Args:
        page_table: as it is now.
        names: by slot, what to call its sequence, in order of admission; without it A, B, … in order of the slots.
        tokens: by slot, how many tokens its pages hold; what is reserved and empty is hatched.  Without it pages are drawn
            as full.
    """
    names = _names(page_table, names)
    size = page_table.page_size
    pages: dict[int, _Page] = {}
    said = []
    for place, (slot, name) in enumerate(names.items()):
        owned = page_table.owned[slot]
        held = len(owned) * size if tokens is None else tokens.get(slot, 0)
        kept = {i: number for i, number in enumerate(owned) if number}  # 0: given up
        for i, number in kept.items():
            page = pages.setdefault(number, _Page(number, []))
            page.owners.append(place)
            page.name = page.name or name
            page.label += f"{name}{_small(i)}"
            page.share = min(max(held - i * size, 0), size) / size
        filled = "" if tokens is None else f"{_count(held, 'token')} in "
        said.append((f"{name}: slot {slot}, {filled}{_count(len(kept), 'page')}", _owner_style(place)))
    strip = [
        _Page(0, [], label="sink"),
        *(pages.get(number, _Page(number, [])) for number in range(1, page_table.n_pages + 1)),
    ]
    return _draw_strip(strip, size, said)


def draw_step(trace: Trace, step: int) -> Figure:
    """The pool as it was in one step of a recorded run, with the pages that a preempted sequence lost edged in red.

    Args:
        trace: from `record`.
        step: counted from 0; negative from the end.
    """
    one = trace.steps[step]
    order = {request: place for place, request in enumerate(trace.admission_order)}
    pages: dict[int, _Page] = {}
    said = []
    for held in one.held:
        name = trace.name(held.request)
        for i, (number, filled) in enumerate(zip(held.pages, held.filled, strict=True)):
            page = pages.setdefault(number, _Page(number, []))
            page.owners.append(order[held.request])
            page.name = page.name or name
            page.label += f"{name}{_small(held.first + i)}"
            page.share = filled / trace.page_size
        said.append((f"{name}: {sum(held.filled)} tokens", _owner_style(order[held.request])))
    for number, victim in one.stolen.items():
        pages.setdefault(number, _Page(number, [])).stolen_from = trace.name(victim)
    strip = [
        _Page(0, [], label="sink"),
        *(pages.get(number, _Page(number, [])) for number in range(1, trace.n_pages + 1)),
    ]
    doing = {
        **{kind: [part.request for part in one.parts if part.kind == kind] for kind in ("prefill", "decode")},
        "preempted": one.preempted,
    }
    did = [
        f"{what} {' '.join(map(trace.name, who)) if len(who) <= 12 else _count(len(who), 'request')}"
        for what, who in doing.items()
        if who
    ]
    return _draw_strip(strip, trace.page_size, said, f"step {range(len(trace.steps))[step]}: {', '.join(did)}")


def _draw_strip(strip: list[_Page], page_size: int, said: list[tuple[str, dict[str, Any]]], title: str = "") -> Figure:
    """Pages from left to right and from top to bottom, the sink first."""
    n, most = len(strip), 17 if len(strip) <= 17 else 16 if len(strip) <= 130 else 32
    columns = min(n, most)
    rows = -(-n // columns)
    with _figure(WIDTH, 0.95 + rows * (0.7 if most < 32 else 0.36) + 0.1 * len(said)) as (figure, axes):
        ax = axes[0]
        for place, page in enumerate(strip):
            x, y = place % columns, place // columns
            _draw_page(ax, page, x, y, small=most == 32)
            if most < 32:
                ax.text(x + 0.5, y + 0.8, str(page.number), ha="center", va="top", fontsize=9, color=SLATE)
        if most == 32:
            ax.set_yticks([row + 0.38 for row in range(rows)], [str(row * columns) for row in range(rows)])
            ax.tick_params(left=False)
        else:
            ax.set_yticks([])
        ax.set_xticks([])
        ax.spines[:].set_visible(False)
        ax.set_xlim(-0.05, columns + 0.05)
        ax.set_ylim(rows + (0.05 if most < 32 else -0.2), -0.08)
        ax.set_xlabel(f"physical page, {_count(page_size, 'token')} each →")
        ax.set_title(title)
        if any(0 < page.share < 1 or (page.owners and page.share == 0) for page in strip):
            said = [*said, ("reserved, still empty", {"facecolor": "white", "edgecolor": SLATE, "hatch": "////"})]
        if any(page.stolen_from for page in strip):
            said = [
                *said,
                (
                    "stolen (from → to)" if most < 32 else "stolen",
                    {"facecolor": "white", "edgecolor": STOLEN, "linewidth": 2.5},
                ),
            ]
        _legend(figure, [*said, ("free", {"facecolor": "white", "edgecolor": EDGE})])
    return figure


def _draw_page(ax: Axes, page: _Page, x: float, y: float, small: bool) -> None:
    """One box: solid as far as it holds tokens, hatched where it is reserved and empty."""
    high, gid = 0.74, f"page {page.number}"
    if not page.number:
        _box(ax, x, y, 1, high, gid=gid, facecolor=SINK, edgecolor=EDGE, linewidth=0.8)
    elif not page.owners:
        _box(ax, x, y, 1, high, gid=gid, facecolor="white", edgecolor=EDGE, linewidth=0.8)
    for i, owner in enumerate(page.owners):  # who shares a page has a part of its height
        top, part = y + high * i / len(page.owners), high / len(page.owners)
        _reserved(ax, x, top, 1, part, page.share, _colour(owner), gid)
    if page.stolen_from:
        _box(ax, x, y, 1, high, gid=f"{gid} stolen", facecolor="none", edgecolor=STOLEN, linewidth=3, zorder=4)
    label = page.label
    if small:
        label = page.name[:2]
    elif page.stolen_from:
        label = f"{page.stolen_from}→{label or '·'}"
    _label(ax, x + 0.5, y + high / 2, label, backed=bool(page.owners), gid=gid)


def _reserved(ax: Axes, x: float, y: float, wide: float, high: float, share: float, colour: str, gid: str) -> None:
    """A box of the pool that has an owner: `share` of it, from the left, holds tokens."""
    _box(ax, x, y, wide, high, gid=gid, facecolor="white", edgecolor=colour, hatch="////", linewidth=0)
    _box(ax, x, y, share * wide, high, gid=f"{gid} filled", facecolor=colour, linewidth=0)
    _box(ax, x, y, wide, high, facecolor="none", edgecolor=INK, linewidth=0.8)


def draw_fragmentation(
    page_table: PageTable,
    tokens: Mapping[int, int],
    max_seq_length: int | None = None,
    names: Mapping[int, str] | None = None,
) -> Figure:
    """The same pool cut twice: a piece of the longest possible length for each sequence, and pages.

    Args:
        page_table: with the sequences in their pages.
        tokens: by slot, how many tokens its sequence has now.
        max_seq_length: what one piece has to hold, since nobody knows how long an answer gets; None: a row of the table.
        names: by slot, in order of admission; without it A, B, … in order of the slots.
    """
    names, size = _names(page_table, names), page_table.page_size
    longest = page_table.pages_per_row * size if max_seq_length is None else max_seq_length
    pool = page_table.n_pages * size
    fitting = list(names)[: pool // longest]
    pieces = [(i * longest, longest, tokens.get(slot, 0), i, names[slot]) for i, slot in enumerate(fitting)]
    cut = []
    for place, slot in enumerate(names):
        for i, number in enumerate(page_table.owned[slot]):
            if not number:
                continue
            held = min(max(tokens.get(slot, 0) - i * size, 0), size)
            cut.append(((number - 1) * size, size, held, place, f"{names[slot]}{_small(i)}"))
    with _figure(WIDTH, 3.6, rows=2) as (figure, axes):
        paged = [slot for slot in names if page_table.owned[slot]]
        for ax, kind, strip, seated in ((axes[0], "contiguous", pieces, fitting), (axes[1], "pages", cut, paged)):
            _box(ax, 0, 0, pool, 1, gid=f"{kind} pool", facecolor="white", edgecolor=EDGE, linewidth=0.8)
            for start, length, held, place, label in strip:
                _reserved(ax, start, 0, length, 1, held / length, _colour(place), f"{kind} {start}")
                if length / pool > 0.035:
                    _label(ax, start + length / 2, 0.5, label)
            used, reserved = sum(piece[2] for piece in strip), sum(piece[1] for piece in strip)
            left_out = [name for slot, name in names.items() if slot not in seated]
            who = f"; no room for {', '.join(left_out)}" if left_out else ""
            what = f"pieces of {longest} tokens" if kind == "contiguous" else f"pages of {size} tokens"
            waste = f"{reserved - used} of {reserved} reserved places are empty"
            ax.set_title(f"{what}: {waste}{who}")
            ax.set_xlim(-0.002 * pool, 1.002 * pool)
            ax.set_ylim(1.03, -0.03)
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            _ticks(ax.xaxis, pool, longest if kind == "contiguous" else size, at_most=17)
        axes[1].set_xlabel("place in the pool (tokens) →")
        said = [
            (f"{name}: {tokens.get(slot, 0)} tokens", _owner_style(i)) for i, (slot, name) in enumerate(names.items())
        ]
        hatched = {"facecolor": "white", "edgecolor": SLATE, "hatch": "////"}
        _legend(figure, [*said, ("reserved, empty", hatched), ("free", {"facecolor": "white", "edgecolor": EDGE})])
    return figure


# ------------------------------------------------------------------------------------------------------ schedule


def draw_schedule(trace: Trace) -> Figure:
    """Who did what in which step, and how many pages everyone held.

    Args:
        trace: from `record`.
    """
    if not trace.steps:
        raise ValueError("no step was recorded: the run has to happen inside of `with record(...) as trace`")
    order = {request: place for place, request in enumerate(trace.admission_order)}
    n, steps = len(trace.requests), trace.steps
    with _figure(WIDTH, 2.7 + 0.3 * n, rows=2, heights=(0.3 * n + 0.1, 1.2), share_x=True) as (figure, axes):
        ax, below = axes
        for y, request in enumerate(trace.requests):
            colour = _colour(order[request.id]) if request.id in order else "#ffffff"
            for x, step in enumerate(steps):
                _draw_turn(ax, x, y, step, request.id, colour, edge=0.6 if len(steps) <= 60 else 0)
        ax.set_yticks([y + 0.5 for y in range(n)], [request.name for request in trace.requests])
        ax.tick_params(length=0, labelbottom=False)
        ax.set_ylim(n, 0)
        ax.set_ylabel("request")
        ax.spines[:].set_visible(False)
        base = [0] * len(steps)
        for number, place in order.items():
            pages = [sum(len(held.pages) for held in step.held if held.request == number) for step in steps]
            top, edges = [a + b for a, b in zip(base, pages, strict=True)], range(len(steps) + 1)
            below.stairs(top, edges, baseline=base, fill=True, color=_colour(place), gid=f"pages {trace.name(number)}")
            below.stairs(top, edges, color="white", linewidth=1.2)
            longest = _longest_run([held > max(pages) / 2 for held in pages])
            x = longest[len(longest) // 2] if longest else 0
            if len(longest) >= len(steps) / 25 and pages[x] >= trace.n_pages / 7:
                _label(below, x + 0.5, base[x] + pages[x] / 2, trace.name(number))
            base = top
        below.axhline(trace.n_pages, color=INK, linewidth=1, linestyle="--")
        below.set_ylim(0, trace.n_pages * 1.08)
        below.set_yticks(sorted({0, trace.n_pages // 2, trace.n_pages}))
        below.set_ylabel(f"pages held\n(of {trace.n_pages}) ↑")
        below.set_xlim(0, len(steps))
        _ticks(below.xaxis, len(steps), 1, at_most=12, middle=True)
        below.set_xlabel("step →")
        middle = OWNERS[4]
        said = [
            ("prefill", {"facecolor": _dark(middle), "edgecolor": INK}),
            ("decode", {"facecolor": _light(middle), "edgecolor": INK}),
            ("preempted", {"marker": "x", "color": INK}),
            ("waiting", {"linestyle": ":", "color": SLATE}),
            ("running, not in the step", {"linestyle": "-", "color": SLATE}),
            ("finished", {"marker": "|", "color": INK}),
        ]
        _legend(figure, said)
    return figure


def _longest_run(marked: list[bool]) -> list[int]:
    """Where the most marks in a row stand."""
    runs: list[list[int]] = [[]]
    for x, mark in enumerate(marked):
        if mark:
            runs[-1].append(x)
        elif runs[-1]:
            runs.append([])
    return max(runs, key=len)


def _draw_turn(ax: Axes, x: int, y: int, step: Step, request: int, colour: str, edge: float) -> None:
    """What one request did in one step."""
    gid = f"{request} {x}"
    kind = next((part.kind for part in step.parts if part.request == request), None)
    if kind is not None:
        shade = _dark(colour) if kind == "prefill" else _light(colour)
        _box(ax, x, y + 0.12, 1, 0.76, gid=f"{gid} {kind}", facecolor=shade, edgecolor=INK, linewidth=edge)
    elif any(held.request == request for held in step.held):
        _line(ax, [x, x + 1], [y + 0.5] * 2, color=SLATE, linewidth=1.2, gid=f"{gid} held up")
    elif request in step.waiting:
        _line(ax, [x, x + 1], [y + 0.5] * 2, color=SLATE, linewidth=1.2, linestyle=":", gid=f"{gid} waiting")
    if request in step.preempted:
        _line(ax, [x + 0.5], [y + 0.5], marker="x", color=INK, markersize=8, markeredgewidth=2, gid=f"{gid} preempted")
    if request in step.finished:
        _line(ax, [x + 1] * 2, [y + 0.04, y + 0.96], color=INK, linewidth=2.5, gid=f"{gid} finished", clip_on=False)


# ------------------------------------------------------------------------------------------------------ bytes


@dataclass(frozen=True)
class ModelShape:
    """What a model's published config says about its attention.  All layers are alike, and values are as long as keys."""

    name: str
    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int

    @property
    def value_head_dim(self) -> int:
        return self.head_dim


MODELS = (
    ModelShape("Gemma-2B", 18, 8, 1, 256),
    ModelShape("SmolLM2-135M", 30, 9, 3, 64),
    ModelShape("Gemma-2-2B", 26, 8, 4, 256),
    ModelShape("Qwen3-0.6B", 28, 16, 8, 128),
    ModelShape("Llama-3-8B", 32, 32, 8, 128),
    ModelShape("Llama-2-7B", 32, 32, 32, 128),
)
"""num_hidden_layers, num_attention_heads, num_key_value_heads and head_dim of each config.json on the Hugging Face hub."""


def draw_kv_bytes(
    count: Callable[[Iterable[Any], Any], int] | None = None, models: SequenceOf[ModelShape] = MODELS
) -> Figure:
    """What a token costs in the KV cache, by model, in bfloat16, with the sum written out.

    Args:
        count: `kv_bytes_per_token`, or a function like it, asked with a model's layers and torch.bfloat16; None: the product
            that is written beside each bar.
        models: to be compared.
    """
    if count is None:
        each = [m.layers * m.kv_heads * (m.head_dim + m.value_head_dim) * 2 for m in models]
    else:
        import torch

        each = [count([model] * model.layers, torch.bfloat16) for model in models]
    with _figure(WIDTH, 1.5 + 0.46 * len(models)) as (figure, axes):
        ax = axes[0]
        for y, (model, n_bytes) in enumerate(zip(models, each, strict=True)):
            _box(ax, 0, y + 0.2, n_bytes / 1024, 0.6, gid=f"bar {model.name}", facecolor=SLATE, edgecolor=INK)
            product = f"{model.layers} · {model.kv_heads} · ({model.head_dim} + {model.value_head_dim}) · 2"
            text = f" {n_bytes / 1024:,.4g} KiB = {product}"
            inside = n_bytes > 0.5 * max(each)
            ax.text(
                n_bytes / 1024,
                y + 0.5,
                f"{text} " if inside else text,
                ha="right" if inside else "left",
                va="center",
                fontsize=9.5,
                color="white" if inside else INK,
                gid=f"text {model.name}",
            )
        room = [_count(2**30 // n_bytes, "token") for n_bytes in each]
        labels = [f"{model.name}\n{n_tokens} a GiB" for model, n_tokens in zip(models, room, strict=True)]
        ax.set_yticks([y + 0.5 for y in range(len(models))], labels)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(models), 0)
        ax.set_xlim(0, max(each) / 1024 * 1.02)
        ax.set_xlabel("KV cache (KiB a token, bfloat16) →")
        ax.set_title("layers · KV heads · (size of a key + of a value) · 2 bytes")
    return figure


# ------------------------------------------------------------------------------------------------------ one style


@contextmanager
def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Any = None, share_x: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the course's style.  Closed at once: a notebook shows what a cell returns, and not all figures too."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, height),
            squeeze=False,
            sharex="col" if share_x else "none",
            layout="constrained",
            gridspec_kw={"height_ratios": heights} if heights else None,
        )
        plt.close(figure)
        yield figure, list(axes.flat)


def _box(ax: Axes, x: float, y: float, wide: float, high: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    # Not add_patch, which asks each box for its extent: the limits of the axes are set by who draws.
    ax.add_artist(Rectangle((x, y), wide, high, **{"zorder": 2, **style}))


def _line(ax: Axes, x: list[float], y: list[float], **style: Any) -> None:
    from matplotlib.lines import Line2D

    ax.add_artist(Line2D(x, y, **{"zorder": 3, **style}))


def _label(ax: Axes, x: float, y: float, text: str, backed: bool = True, **style: Any) -> None:
    """Text in the middle of a box, on white where there is colour or a hatching behind it."""
    backing = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"} if backed else None
    ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=backing if text else None, zorder=5, **style)


def _legend(figure: Figure, said: list[tuple[str, dict[str, Any]]]) -> None:
    """Below the picture: a patch, a mark or a line for each thing that is drawn, in as many columns as there is room for."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not said:
        return
    handles: list[Any] = []
    for label, style in said:
        if "marker" in style:
            handles.append(Line2D([], [], linestyle="", markersize=8, markeredgewidth=2.2, label=label, **style))
        elif "linestyle" in style:
            handles.append(Line2D([], [], label=label, **style))
        else:
            handles.append(Patch(label=label, **style))
    columns = int(figure.get_figwidth() / (0.072 * max(len(label) for label, _ in said) + 0.45))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(max(columns, 1), len(said)), handlelength=1.6)


def _ticks(axis: Any, length: int, every: int, at_most: int, middle: bool = False) -> None:
    """Labels at multiples of `every`, thinned out to `at_most`; of things that are counted, below the middle of each."""
    while length / every > at_most:
        every *= 2
    numbers = range(0, length if middle else length + 1, every)
    axis.set_ticks([number + 0.5 * middle for number in numbers], [str(number) for number in numbers])


def _names(page_table: PageTable, names: Mapping[int, str] | None) -> dict[int, str]:
    """By slot, in order of admission."""
    from .trace import letter

    if names is not None:
        return dict(names)
    slots = [slot for slot in range(1, page_table.max_batch_size + 1) if page_table.is_allocated(slot)]
    return {slot: letter(i) for i, slot in enumerate(slots)}


def _colour(place: int) -> str:
    return OWNERS[place % len(OWNERS)]


def _owner_style(place: int) -> dict[str, Any]:
    return {"facecolor": _colour(place), "edgecolor": INK}


def _mixed(colour: str, other: int, share: float) -> str:
    """A colour moved towards black (0) or white (255)."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (other - part) * share):02x}" for part in parts)


def _dark(colour: str) -> str:
    return _mixed(colour, 0, 0.45)


def _light(colour: str) -> str:
    return _mixed(colour, 255, 0.55)


def _small(number: int) -> str:
    """A number in subscript digits."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
