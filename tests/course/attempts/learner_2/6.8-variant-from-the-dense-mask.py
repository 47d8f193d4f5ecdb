    def get_prefill_block_mask(self, start_L: Tensor, window: int | None = None) -> BlockMask:
        """The BlockMask of a packed row.  [6.8 · ★★☆ · 15 min]

        Args:
            start_L: int64 [L], where in the row the document of each token begins; L is a multiple of `prefill_block`.
            window: keys that a token reads, or None.

        Returns:
            A BlockMask over [L, L] in blocks of `prefill_block`, one batch row, one head, with `_prefill_mods[window]`.
        """
        L = len(start_L)
        i = torch.arange(L, device=start_L.device)
        seen = (i >= start_L[:, None]) & (i <= i[:, None])
        if window is not None:
            seen = seen & (i[:, None] - i < window)
        size = (self.prefill_block, self.prefill_block)
        from .masks import classify_blocks
        return block_mask_from_blocks(*classify_blocks(seen[None, None], size), self._prefill_mods[window], size, (L, L))
