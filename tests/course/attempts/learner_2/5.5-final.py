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
            slot, tokens = self.page_table.allocate(), len(sequence)
            if not self.page_table.reserve(slot, tokens):
                self.page_table.erase(slot)
                raise RuntimeError(f"the pool has too few pages for the {tokens} tokens of request {sequence.request_id}")
            self.waiting.remove(sequence)
            self.running.append(sequence)
            sequence.slot, sequence.status = slot, Status.RUNNING
            rows.append(Row(sequence, start=0, n_tokens=tokens))
        return rows
