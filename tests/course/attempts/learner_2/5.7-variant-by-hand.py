    def finish(self, sequence: Sequence, reason: str) -> None:
        """End a sequence, running or waiting, for whatever reason.  [5.7 · ★☆☆ · 5 min]

        Args:
            sequence: RUNNING or WAITING; one that is FINISHED stays as it is.
            reason: its `finish_reason` from now on.

        Returns:
            Nothing.  Afterwards it is FINISHED, has slot 0, owns no page and is in neither queue.
        """
        if sequence.status is Status.FINISHED:
            return
        if sequence.slot:
            self.page_table.erase(sequence.slot)
        self.running = [s for s in self.running if s is not sequence]
        self.waiting = deque(s for s in self.waiting if s is not sequence)
        sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
