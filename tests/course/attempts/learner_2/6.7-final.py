    def prefill_length(self, n_tokens: int) -> int:
        """The length that a row of packed prompts is padded to.  [6.7 · ★★☆ · 10 min]

        Few different lengths mean few compiled graphs; many mean little padding.  On a GPU each length is a graph of its
        own: powers of two.  On a CPU one graph serves all, and only the time of the padding counts: four lengths between
        one power of two and the next.  Always a multiple of `prefill_block`.

        Args:
            n_tokens: tokens to pack, at least 1.

        Returns:
            The smallest of these lengths that is at least `n_tokens`.
        """
        def lengths() -> Iterator[int]:
            """All lengths in ascending order, also those that are no multiple of a block."""
            eighths = (8,) if self.device.type == "cuda" else (8, 10, 12, 14)
            for power in itertools.count():
                yield from (eighth * 2**power // 8 for eighth in eighths if eighth * 2**power % 8 == 0)

        return next(L for L in lengths() if L >= n_tokens and L % self.prefill_block == 0)
