def preempt(self, sequence: Sequence) -> None:
        """Take slot and pages from a running sequence and put it at the head of the queue.  [5.6 · ★★☆ · 10 min]

        Args:
            sequence: RUNNING.  It keeps its tokens; their keys and values are computed again when it is admitted.

        Returns:
            Nothing.  Afterwards it is WAITING with slot 0; its `preemptions` and the scheduler's are one higher.
        """
        self._release(sequence, Status.WAITING)
        self.waiting.appendleft(sequence)
        sequence.preemptions += 1
        self.preemptions += 1
