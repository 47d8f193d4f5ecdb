    def next_step(self) -> list[Row]:
        """Choose the rows of the next step: a prefill of some, or a decode of all that run.  [5.9 · ★★☆ · 15 min]

        Returns:
            Rows, all of a prefill or all of a decode.  Empty only if nobody is left; a step in which every running sequence
            ended or gave way is not worth running, so the next one is chosen at once.  `prefilled_last` and
            `steps_kept_waiting` are kept up to date.
        """
        while self.has_work:
            candidates = self.admissible()
            if self.worth_prefilling(candidates):
                self.prefilled_last, self.steps_kept_waiting = True, 0
                return self.admit(candidates)
            if rows := self.grow():
                self.prefilled_last = False
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
                return rows
        return []
