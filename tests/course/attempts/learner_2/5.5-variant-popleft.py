    def admit(self, sequences: list[Sequence]) -> list[Row]:
        """Give sequences from the head of the queue a slot and pages for all their tokens.  [5.5 · ★★☆ · 10 min]

        Args:
            sequences: what `admissible` found.

        Returns:
            A row for each that covers all its tokens.  The sequences left `waiting`, have a `slot`, are RUNNING, and stand
            last in `running`.
        """
        rows = []
        for _ in sequences:
            s = self.waiting.popleft()
            s.slot = self.page_table.allocate()
            self.page_table.reserve(s.slot, len(s))
            s.status = Status.RUNNING
            self.running = [*self.running, s]
            rows.append(Row(s, 0, len(s)))
        return rows
