def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait, or refuse it at once if it can never run.  [5.2 · ★☆☆ · 5 min]

        Args:
            sequence: WAITING.

        Raises:
            ValueError: it has more tokens than `longest`: it would wait for ever, and everyone behind it too.

        Returns:
            Nothing.
        """
        if (n := len(sequence)) > self.longest:
            raise ValueError(f"the sequence has {n} tokens, but the pool can hold at most {self.longest} of one")
        self.waiting.append(sequence)
