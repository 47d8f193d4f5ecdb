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
        enough = len(candidates) >= self.min_prefill or self.steps_kept_waiting >= self.patience
        return bool(candidates) and (not self.running or (not self.prefilled_last and enough))
