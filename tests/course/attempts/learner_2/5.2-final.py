    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that wait, or refuse it at once if it can never run.  [5.2 · ★☆☆ · 5 min]

        Args:
            sequence: WAITING.

        Raises:
            ValueError: it has more tokens than `longest`: it would wait for ever, and everyone behind it too.

        Returns:
            Nothing.
        """
        if (tokens := len(sequence)) > self.longest:
            raise ValueError(
                f"a sequence of {tokens} tokens can never run: with all pages it may have {self.longest}; shorten it or give the "
                f"engine more pages"
            )
        self.waiting.append(sequence)
