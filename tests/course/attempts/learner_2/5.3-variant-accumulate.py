    def admissible(self) -> list[Sequence]:
        """Which of the waiting sequences could be prefilled together now.  [5.3 · ★★★ · 25 min]

        Takes from the head of the queue, never past one that does not fit (else a long prompt would wait for ever), while
          - there is a free slot for each,
          - the pool has the pages for all tokens of each (`page_table.pages_missing(0, n)` for n tokens),
          - all their tokens together are at most `max_prefill_tokens`; the first may be longer, and is then alone.

        A sequence that was preempted has output tokens too, and all have to be computed again.

        Returns:
            The sequences in order, perhaps none.  Nothing changes.
        """
        n = [len(s) for s in self.waiting]
        tokens = list(itertools.accumulate(n))
        pages = list(itertools.accumulate(self.page_table.pages_missing(0, i) for i in n))
        free = sum(not self.page_table.is_allocated(s) for s in range(1, self.page_table.max_batch_size + 1))
        ok = [
            i < free and pages[i] <= self.page_table.pages_available and (i == 0 or tokens[i] <= self.max_prefill_tokens)
            for i in range(len(n))
        ]
        k = ok.index(False) if False in ok else len(ok)
        return list(self.waiting)[:k]
