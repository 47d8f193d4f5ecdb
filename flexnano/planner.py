# Your copy of solutions/flexnano/planner.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 01b3b10df229c299
"""Modules 08 to 10: who takes part in a step, where a prompt may begin behind shared pages and be computed in parts.

Module 05's scheduler keeps the queues, preempts and finishes; the planner only chooses differently.  It counts, for each
sequence, the tokens whose keys and values lie in pages (`computed`).

Source: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", 2024 (decodes first, the
rest of a token budget for parts of prompts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .eviction import give_up_pages, most_pages, pages_to_give_up
from .page_table import PageTable
from .prefix_index import SharedPages
from .scheduler import Row, Scheduler
from .sequence import Sequence, Status


@dataclass(frozen=True)
class Chunk(Row):
    """A part of a prompt: tokens start … start + n_tokens - 1.  `is_last`: the rest of it, after which a token is due."""

    is_last: bool

    @property
    def is_prefill(self) -> bool:
        return True


@dataclass(frozen=True)
class Group:
    """Layers with a page table of their own.

    Fields:
        table: theirs.
        layers: the windows of its layers, None for those that read everything.
        window, sinks: what a query of theirs reads if they give up pages; None and 0: they keep everything.
    """

    table: PageTable
    layers: tuple[int | None, ...]
    window: int | None = None
    sinks: int = 0

    @property
    def sharing(self) -> SharedPages | None:
        return self.table.sharing


class Planner:
    """Chooses the rows of steps.

    Args:
        scheduler: with the queues.
        groups: page tables of the engine, the one that keeps most first.
        token_budget: tokens of a step.  With `fuse` decode tokens count too.
        fuse: decode and prompts in the same step; else prompts are computed in steps of their own.

    Fields that others read:
        unfinished: running sequences of whose prompt a part is still to be computed, the one admitted longest ago first.
    """

    def __init__(self, scheduler: Scheduler, groups: list[Group], token_budget: int, fuse: bool) -> None:
        self.scheduler, self.groups, self.token_budget, self.fuse = scheduler, groups, token_budget, fuse
        self.unfinished: list[Sequence] = []
        self.read_all: Callable[[], None] = lambda: None  # module 07: reads the tokens that are on their way
        self.cached_tokens = 0  # that admitted sequences found computed
        self.in_doubt = False  # a sequence went wrong, and others may have read what it computed
        scheduler.on_release = self.released

    # ------------------------------------------------------------------ a step

    def next_step(self) -> list[Row]:
        """Choose the rows of the next step.  Empty only if nobody is left.  Given."""
        scheduler = self.scheduler
        for group in self.groups:
            if group.sharing is not None:
                group.sharing.settle()
        if self.in_doubt:
            self.start_over()
        if any(sequence.pending for sequence in scheduler.waiting):
            self.read_all()  # whoever was preempted needs its newest token to start over
        while scheduler.has_work:
            for sequence in [one for one in scheduler.running if len(one) > scheduler.longest]:
                scheduler.finish(sequence, "out_of_pages")
                scheduler.outgrown.append(sequence)
            rows = self.fused_step() if self.fuse else self.separate_step()
            rows = [row for row in rows if row.sequence.status is Status.RUNNING]
            if rows:
                return rows
            if not scheduler.running:
                break
            scheduler.preempt(scheduler.running[-1])  # nobody had room for a single token
        return []

    def fused_step(self) -> list[Row]:
        """Decode all that can, and compute prompts with what is left of the budget.  [10.1 · ★★☆ · 20 min]

        Nobody who decodes waits: all decode rows come first (`decode_rows`), and each is one token of `token_budget`.  What
        is left, but at least one token, so that no prompt waits for ever, goes to prompts: `prompt_rows(n)` gives parts of
        them, n tokens in all or fewer, and admits newcomers for it.

        Returns:
            Decode rows, then parts of prompts; perhaps only one or the other.

        Budget 8, three decode, a prompt of 20 tokens waits: rows of 1, 1, 1 and 5 tokens.
        """
        raise NotImplementedError("Exercise 10.1: Planner.fused_step")

    def separate_step(self) -> list[Row]:
        """Compute prompts or decode, as module 05 does.  Given."""
        scheduler = self.scheduler
        candidates = self.unfinished + self.newcomers(scheduler.min_prefill)
        nobody_decodes = len(self.unfinished) == len(scheduler.running)
        due = bool(candidates) and (nobody_decodes or scheduler.worth_prefilling(candidates))
        rows = self.prompt_rows(self.token_budget) if due else []
        scheduler.prefilled_last = bool(rows)
        if rows:
            scheduler.steps_kept_waiting = 0
            return rows
        scheduler.steps_kept_waiting = scheduler.steps_kept_waiting + 1 if candidates else 0
        return self.decode_rows()

    def decode_rows(self) -> list[Row]:
        """A row for the newest token of each sequence whose prompt is computed; the newest gives way.  Given."""
        scheduler, rows = self.scheduler, list[Row]()
        for sequence in list(scheduler.running):
            while sequence.status is Status.RUNNING and sequence not in self.unfinished:
                if scheduler.page_table.reserve(sequence.slot, len(sequence)):
                    sequence.computed = len(sequence)
                    rows.append(Row(sequence, len(sequence) - 1, 1))
                    break
                scheduler.preempt(scheduler.running[-1])
        return rows

    # ------------------------------------------------------------------ prompts

    def prompt_rows(self, budget: int) -> list[Row]:
        """Parts of prompts, `budget` tokens in all.  Given."""
        rows: list[Row] = []
        for sequence in self.prompts():
            row = self.chunk(sequence, budget)
            if row is None:
                break
            rows.append(row)
            budget -= row.n_tokens
            if not budget:
                break
        return rows

    def prompts(self) -> Iterator[Sequence]:
        """Those in the middle of their prompt, then whoever can be admitted: asking for one admits it.  Given."""
        yield from list(self.unfinished)
        while (sequence := self.admit_next()) is not None:
            yield sequence

    def chunk(self, sequence: Sequence, n_tokens: int) -> Chunk | None:
        """The next part of a prompt, at most `n_tokens` of it; None if there is no page for a single token.  Given."""
        start, slot = sequence.computed, sequence.slot
        n = min(len(sequence) - start, n_tokens)
        for table in (group.table for group in self.groups):
            n = min(n, table.capacity[slot] + table.pages_available * table.page_size - start)
        if n < 1:
            return None
        sequence.computed = start + n
        for group in self.groups:
            group.table.reserve(slot, sequence.computed)
            if group.sharing is not None:
                group.sharing.remember(slot, sequence.token_ids[: sequence.computed])
        is_last = sequence.computed == len(sequence)
        if is_last:
            self.unfinished.remove(sequence)
        return Chunk(sequence, start, n, is_last)

    def newcomers(self, enough: int) -> list[Sequence]:
        """Which of the waiting could be admitted now, `enough` of them; never past one that does not fit.  Given."""
        chosen: list[Sequence] = []
        pages = tokens = 0
        table = self.scheduler.page_table
        for sequence in self.scheduler.waiting:
            if len(chosen) in (enough, len(table.free_slots)) or sequence.pending or tokens >= self.token_budget:
                break
            needed, cached = self.cost(sequence)
            pages, tokens = pages + needed, tokens + len(sequence) - cached
            if pages > table.pages_available:
                break
            chosen.append(sequence)
        return chosen

    def cost(self, sequence: Sequence) -> tuple[int, int]:
        """What admitting a sequence takes: (available pages of the first group, tokens that need no computing)."""
        group = self.groups[0]
        table, sharing = group.table, group.sharing
        needed = -(-len(sequence) // table.page_size)
        if group.window is not None:
            needed = min(needed, most_pages(group.window, group.sinks, table.page_size))
        if sharing is None:
            return needed, 0
        pages, n_tokens = sharing.find(sequence.token_ids)
        owned_by_others = sum(sharing.owners[page] > 0 for page in pages[: n_tokens // table.page_size])
        return max(1, needed - owned_by_others), n_tokens

    def admit_next(self) -> Sequence | None:
        """Give the head of the queue a slot, the pages that it can share, and pages for the rest.  Given."""
        scheduler, table = self.scheduler, self.scheduler.page_table
        if not scheduler.waiting or not table.free_slots or scheduler.waiting[0].pending:
            return None
        sequence = scheduler.waiting[0]
        needed, _ = self.cost(sequence)
        if needed > table.pages_available:
            return None
        # Noted on the sequence at once: memory may run out in what follows, and then the slot is given back.
        slot = sequence.slot = table.allocate()
        noted = [(group.sharing, len(group.sharing.copies)) for group in self.groups if group.sharing is not None]
        cached = self.share(slot, sequence)
        # Groups that give up pages on the way get theirs part by part.
        goals = [len(sequence) if group.window is None else cached + 1 for group in self.groups]
        done = all(
            g.table.pages_missing(slot, n) <= g.table.pages_available for g, n in zip(self.groups, goals, strict=True)
        )
        done = done and all([g.table.reserve(slot, n) for g, n in zip(self.groups, goals, strict=True)])
        done = done and all(group.sharing is None or group.sharing.make_writable(slot, cached) for group in self.groups)
        if not done:
            for sharing, n in noted:
                del sharing.copies[n:]
            table.erase(slot)
            sequence.slot = 0
            return None
        scheduler.waiting.popleft()
        sequence.status = Status.RUNNING
        sequence.computed = cached
        if not sequence.preemptions:  # later it would find itself
            sequence.cached = cached
        self.cached_tokens += cached
        scheduler.running.append(sequence)
        self.unfinished.append(sequence)
        return sequence

    def share(self, slot: int, sequence: Sequence) -> int:
        """Let a slot begin with what all groups have of its tokens; returns how many tokens that is."""
        found = [group.sharing.find(sequence.token_ids) for group in self.groups if group.sharing is not None]
        cached = min((n_tokens for _, n_tokens in found), default=0)
        whole, part = divmod(cached, self.groups[0].table.page_size)
        if part and any(
            g.sharing and pages[whole] in g.sharing.fresh for g, (pages, _) in zip(self.groups, found, strict=False)
        ):
            cached -= part  # one group has all of a page, but it is computed in this very step: no copy can be taken
        if not cached:
            return 0
        for group, (pages, _) in zip(self.groups, found, strict=True):
            assert group.sharing is not None
            pages = pages[: -(-cached // group.table.page_size)]
            if group.window is not None:
                for logical in pages_to_give_up(cached, group.window, group.sinks, group.table.page_size):
                    pages[logical] = 0
            group.sharing.share(slot, pages)
        return cached

    # ------------------------------------------------------------------ afterwards

    def ran(self, rows: list[Row]) -> None:
        """A step was run, or is on its way: what no later query reads is given up.  Given."""
        for group in self.groups:
            if group.window is None:
                continue
            for row in rows:
                if slot := row.sequence.slot:
                    give_up_pages(group.table, slot, row.start + row.n_tokens, group.window, group.sinks)

    def released(self, sequence: Sequence) -> None:
        """A sequence is about to lose its pages: what they hold can be used again.  Given."""
        if sequence in self.unfinished:
            self.unfinished.remove(sequence)
        known = sequence.token_ids[: sequence.computed]
        for group in self.groups:
            if group.sharing is not None:
                group.sharing.remember(sequence.slot, known)

    def distrust(self, sequence: Sequence) -> None:
        """A step went wrong: nobody may find what the sequence computed.  Given."""
        sequence.computed = 0
        for group in self.groups:
            if group.sharing is not None:
                group.sharing.copies.clear()
                group.sharing.distrust(sequence.slot, sequence.token_ids)
                self.in_doubt = True

    def start_over(self) -> None:
        """Everyone who runs computes again what it has.  Given.

        A NaN reaches keys before it too, since 0 · NaN is NaN.  Whoever shares pages with its sequence, or has copied one,
        may have them, and not know: in the middle of a prompt no logits are looked at.
        """
        for sequence in reversed(list(self.scheduler.running)):
            self.distrust(sequence)
            self.scheduler.preempt(sequence)
        self.read_all()
        self.in_doubt = False


# ---------------------------------------------------------------------- what a schedule costs those who read


def inter_token_times(token_times: list[list[float]]) -> tuple[float, float]:
    """How long readers wait from one token to the next: median and 99th percentile.  [10.5 · ★★☆ · 15 min]

    A wait is the time between a token and the next one of the same request; how long the first token took is another number.
    The waits of all requests count alike, in one list.  Percentiles by nearest rank, so that each is a wait that somebody
    had: of n waits in ascending order the p-th percentile is the one at place ⌈p · n / 100⌉, counted from 1.

    Args:
        token_times: of each request, when its tokens came, in seconds, ascending.  A request may have one token or none.

    Returns:
        (p50, p99) in seconds; (0.0, 0.0) if there was no wait.

    Tokens of one request at 0, 1, 2 and 12 s, of another at 5 and 6 s: waits 1, 1, 1 and 10 s; p50 is 1 s, p99 is 10 s.
    """
    raise NotImplementedError("Exercise 10.5: inter_token_times")
