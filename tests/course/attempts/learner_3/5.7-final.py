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
        self._release(sequence, Status.FINISHED)
        sequence.finish_reason = reason
