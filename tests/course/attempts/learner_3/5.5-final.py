    def admit(self, sequences: list[Sequence]) -> list[Row]:
        """Give sequences from the head of the queue a slot and pages for all their tokens.  [5.5 · ★★☆ · 10 min]

        Args:
            sequences: what `admissible` found.

        Returns:
            A row for each that covers all its tokens.  The sequences left `waiting`, have a `slot`, are RUNNING, and stand
            last in `running`.
        """
        rows = []
        for sequence in sequences:
            self.waiting.popleft()
            sequence.slot = self.page_table.allocate()
            self.page_table.reserve(sequence.slot, len(sequence))
            sequence.status = Status.RUNNING
            self.running.append(sequence)
            rows.append(Row(sequence, 0, len(sequence)))
        return rows
