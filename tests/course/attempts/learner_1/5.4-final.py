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
        if not candidates:
            return False
        if not self.running:
            return True
        if self.prefilled_last:
            return False
        return len(candidates) >= self.min_prefill or self.steps_kept_waiting >= self.patience
