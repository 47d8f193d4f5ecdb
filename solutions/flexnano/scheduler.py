"""Module 05: the scheduler.  Which sequences take part in the next step, and who has to give way when pages run out.

Source: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", 2022 (scheduling by the
step); Kwon et al., 2023, §4.5 (preemption by recomputing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .page_table import PageTable
from .sequence import Sequence, Status


@dataclass(frozen=True)
class Row:
    """The part that one sequence has in a step: its tokens start … start + n_tokens - 1 are computed.

    A prefill starts at 0 and has all tokens; a decode has the newest one.
    """

    sequence: Sequence
    start: int
    n_tokens: int

    @property
    def is_prefill(self) -> bool:
        return self.start == 0


class Scheduler:
    """Continuous batching: decides anew before each step.

    Args:
        page_table: slots and pages; the scheduler allocates, reserves and erases.
        max_prefill_tokens: tokens that one prefill may have in all.  A longer prompt runs alone.
        min_prefill: how many sequences make a prefill worth interrupting the running ones; None: a sixteenth of the slots,
            or one for each 1,024 of `max_prefill_tokens` if that is less: a prefill that is full waits in vain for more.
        patience: after how many decode steps a prefill is due however small.

    Fields that others read:
        waiting: sequences without a slot, first to come first.
        running: sequences with a slot, the one admitted longest ago first.
        outgrown: sequences that were ended because they need more than the pool; whoever reads them clears the list.
        preemptions: how often a running sequence lost its pages.
        on_release: called with a sequence that is about to lose its pages (homework 08).
    """

    def __init__(
        self, page_table: PageTable, max_prefill_tokens: int, min_prefill: int | None = None, patience: int = 16
    ) -> None:
        self.page_table, self.max_prefill_tokens, self.patience = page_table, max_prefill_tokens, patience
        self.min_prefill = min_prefill or max(1, min(page_table.max_batch_size // 16, max_prefill_tokens // 1024))
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.outgrown: list[Sequence] = []
        self.steps_kept_waiting = 0  # decode steps since somebody could have been admitted
        self.prefilled_last = False  # whether the step before was a prefill
        self.preemptions = 0
        self.on_release: Callable[[Sequence], None] = lambda sequence: None

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can run when it has all pages."""
        return self.page_table.pages_per_row * self.page_table.page_size

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait, or refuse it at once if it can never run.  [5.2 · ★☆☆ · 5 min]

        Args:
            sequence: WAITING.

        Raises:
            ValueError: it has more tokens than `longest`: it would wait for ever, and everyone behind it too.

        Returns:
            Nothing.
        """
        ### BEGIN SOLUTION
        if len(sequence) > self.longest:
            raise ValueError(
                f"a prompt of {len(sequence)} tokens can never run: a sequence has at most "
                f"{self.page_table.pages_per_row} pages of {self.page_table.page_size} tokens, {self.longest} tokens; "
                f"shorten the prompt or give the engine more n_pages"
            )
        self.waiting.append(sequence)
        ### END SOLUTION

    def admissible(self) -> list[Sequence]:
        """Which of the waiting sequences could be prefilled together now.  [5.3 · ★★★ · 25 min]

        Takes from the head of the queue, never past one that does not fit (else a long prompt would wait for ever), while
          - there is a free slot for each (`page_table.free_slots` lists them),
          - the pool has the pages for all tokens of each (`page_table.pages_missing(0, n)` for n tokens),
          - all their tokens together are at most `max_prefill_tokens`; the first may be longer, and is then alone.

        A sequence that was preempted has output tokens too, and all have to be computed again.

        Returns:
            The sequences in order, perhaps none.  Nothing changes.
        """
        ### BEGIN SOLUTION
        chosen: list[Sequence] = []
        tokens, pages = 0, 0
        for sequence in self.waiting:
            tokens += len(sequence)
            pages += self.page_table.pages_missing(0, len(sequence))
            if len(chosen) == len(self.page_table.free_slots) or pages > self.page_table.pages_available:
                break
            if chosen and tokens > self.max_prefill_tokens:
                break
            chosen.append(sequence)
        return chosen
        ### END SOLUTION

    def worth_prefilling(self, candidates: list[Sequence]) -> bool:
        """Whether to prefill now or let the running sequences go on.  [5.4 · ★★☆ · 10 min]

        A prefill holds up everyone who runs, so one for each newcomer is dear; but nobody may wait for ever.

        Args:
            candidates: what `admissible` found.

        Returns:
            True if there are candidates and
              - nobody is running, or
              - the step before was not a prefill (`prefilled_last`), so that those who run get on however many arrive, and
                there are at least `min_prefill` candidates or some have been kept waiting for `patience` steps
                (`steps_kept_waiting`).
        """
        ### BEGIN SOLUTION
        if not candidates or not self.running:
            return bool(candidates)
        due = len(candidates) >= self.min_prefill or self.steps_kept_waiting >= self.patience
        return due and not self.prefilled_last
        ### END SOLUTION

    def admit(self, sequences: list[Sequence]) -> list[Row]:
        """Give sequences from the head of the queue a slot and pages for all their tokens.  [5.5 · ★★☆ · 10 min]

        Args:
            sequences: what `admissible` found.

        Returns:
            A row for each that covers all its tokens.  The sequences left `waiting`, have a `slot`, are RUNNING, and stand
            last in `running`.
        """
        ### BEGIN SOLUTION
        rows = []
        for sequence in sequences:
            self.waiting.remove(sequence)
            sequence.slot = self.page_table.allocate()
            self.page_table.reserve(sequence.slot, len(sequence))
            sequence.status = Status.RUNNING
            self.running.append(sequence)
            rows.append(Row(sequence, 0, len(sequence)))
        return rows
        ### END SOLUTION

    def preempt(self, sequence: Sequence) -> None:
        """Take slot and pages from a running sequence and put it at the head of the queue.  [5.6 · ★★☆ · 10 min]

        Args:
            sequence: RUNNING.  It keeps its tokens; their keys and values are computed again when it is admitted.

        Returns:
            Nothing.  Afterwards it is WAITING with slot 0; its `preemptions` and the scheduler's are one higher.
        """
        ### BEGIN SOLUTION
        self._release(sequence, Status.WAITING)
        sequence.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(sequence)
        ### END SOLUTION

    def finish(self, sequence: Sequence, reason: str) -> None:
        """End a sequence, running or waiting, for whatever reason.  [5.7 · ★☆☆ · 5 min]

        Args:
            sequence: RUNNING or WAITING; one that is FINISHED stays as it is.
            reason: its `finish_reason` from now on.

        Returns:
            Nothing.  Afterwards it is FINISHED, has slot 0, owns no page and is in neither queue.
        """
        ### BEGIN SOLUTION
        if sequence.status is not Status.FINISHED:
            self._release(sequence, Status.FINISHED)
            sequence.finish_reason = reason
        ### END SOLUTION

    def _release(self, sequence: Sequence, status: Status) -> None:
        """Take a sequence out of its queue and free what it holds."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.slot:
            self.on_release(sequence)
            self.page_table.erase(sequence.slot)
        sequence.slot, sequence.status, sequence.computed = 0, status, 0

    def grow(self) -> list[Row]:
        """Make room for one more token of each running sequence; the newest gives way.  [5.8 · ★★★ · 30 min]

        A decode step writes the key of the newest token, so each sequence needs pages for all its tokens.  They are served
        in the order of `running`.  While one can't get its pages, the last of `running` is preempted, even if that is the
        sequence itself.  So the oldest always goes on, and everyone gets to be the oldest.  Those that have more tokens than
        `longest` can't be helped by anyone: before the others are served, each is finished with "out_of_pages" and listed
        in `outgrown`.

        Returns:
            A row for the newest token of each sequence that is still running.
        """
        ### BEGIN SOLUTION
        # First, so that none is preempted instead: it would wait for ever.
        for sequence in [sequence for sequence in self.running if len(sequence) > self.longest]:
            self.finish(sequence, "out_of_pages")
            self.outgrown.append(sequence)
        rows = []
        for sequence in list(self.running):
            while sequence.status is Status.RUNNING:
                if self.page_table.reserve(sequence.slot, len(sequence)):
                    rows.append(Row(sequence, len(sequence) - 1, 1))
                    break
                self.preempt(self.running[-1])
        return rows
        ### END SOLUTION

    def next_step(self) -> list[Row]:
        """Choose the rows of the next step: a prefill of some, or a decode of all that run.  [5.9 · ★★☆ · 15 min]

        Returns:
            Rows, all of a prefill or all of a decode.  Empty only if nobody is left; a step in which every running sequence
            ended or gave way is not worth running, so the next one is chosen at once.  `prefilled_last` says whether this
            step is a prefill; `steps_kept_waiting` counts the decode steps in a row in which `admissible` found somebody,
            and a prefill sets it to 0.
        """
        ### BEGIN SOLUTION
        while self.has_work:
            candidates = self.admissible()
            self.prefilled_last = self.worth_prefilling(candidates)
            if self.prefilled_last:
                self.steps_kept_waiting = 0
                return self.admit(candidates)
            self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
            if rows := self.grow():
                return rows
        return []
        ### END SOLUTION
