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
        pages, tokens = self.page_table.pages_available, self.max_prefill_tokens

        def fits(sequence: Sequence, is_first: bool) -> bool:
            """Whether it fits beside those before it; takes its share of pages and tokens."""
            nonlocal pages, tokens
            pages -= self.page_table.pages_missing(0, len(sequence))
            tokens -= len(sequence)
            return pages >= 0 and (tokens >= 0 or is_first)

        # One candidate at most for each free slot; after a long first one `tokens` is below 0, so that it stays alone.
        candidates = zip(range(len(self.page_table.free_slots)), self.waiting, strict=False)
        return [sequence for _, sequence in itertools.takewhile(lambda c: fits(c[1], c[0] == 0), candidates)]
