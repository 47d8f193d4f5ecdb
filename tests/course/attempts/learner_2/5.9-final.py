    def next_step(self) -> list[Row]:
        """Choose the rows of the next step: a prefill of some, or a decode of all that run.  [5.9 · ★★☆ · 15 min]

        Returns:
            Rows, all of a prefill or all of a decode.  Empty only if nobody is left; a step in which every running sequence
            ended or gave way is not worth running, so the next one is chosen at once.  `prefilled_last` and
            `steps_kept_waiting` are kept up to date.
        """
        rows: list[Row] = []
        while not rows and self.has_work:
            candidates = self.admissible()
            if not candidates and not self.running:
                raise RuntimeError(f"{len(self.waiting)} sequences wait, but others hold the slots or pages that they need")
            self.prefilled_last = self.worth_prefilling(candidates)
            if self.prefilled_last:
                rows = self.admit(candidates)
                self.steps_kept_waiting = 0
            else:
                rows = self.grow()
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
        return rows
