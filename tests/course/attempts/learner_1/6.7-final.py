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
        power = 1 << (n_tokens - 1).bit_length()  # the smallest power of two that holds them
        if self.device.type == "cuda":
            return max(power, self.prefill_block)
        step = max(power // 8, self.prefill_block)  # four steps from power / 2 to power
        return -(-n_tokens // step) * step
