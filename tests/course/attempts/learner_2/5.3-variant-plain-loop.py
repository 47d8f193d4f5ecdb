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
        out, tokens, pages = [], 0, 0
        for sequence in self.waiting:
            n = len(sequence)
            tokens, pages = tokens + n, pages + self.page_table.pages_missing(0, n)
            if len(out) == len(self.page_table.free_slots) or pages > self.page_table.pages_available:
                break
            if out and tokens > self.max_prefill_tokens:
                break
            out.append(sequence)
        return out
