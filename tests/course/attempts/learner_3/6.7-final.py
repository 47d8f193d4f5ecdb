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
        power = 1
        while power < n_tokens:
            power *= 2
        if self.device.type == "cuda":
            return max(power, self.prefill_block)
        lengths = (power * eighths // 8 for eighths in (5, 6, 7, 8))
        for length in lengths:
            if length >= n_tokens and length % self.prefill_block == 0:
                return length
        return self.prefill_block
