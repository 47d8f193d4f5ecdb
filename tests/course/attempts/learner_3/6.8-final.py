    def get_prefill_block_mask(self, start_L: Tensor, window: int | None = None) -> BlockMask:
        """The BlockMask of a packed row.  [6.8 · ★★☆ · 15 min]

        Args:
            start_L: int64 [L], where in the row the document of each token begins; L is a multiple of `prefill_block`.
            window: keys that a token reads, or None.

        Returns:
            A BlockMask over [L, L] in blocks of `prefill_block`, one batch row, one head, with `_prefill_mods[window]`.
        """
        L, block = len(start_L), self.prefill_block
        last_L = torch.arange(L, device=start_L.device)
        first_L = start_L if window is None else torch.maximum(start_L, last_L - window + 1)
        partial, full = visible_blocks(first_L[None], last_L[None], L // block, (block, block))
        return block_mask_from_blocks(partial[:, None], full[:, None], self._prefill_mods[window], (block, block), (L, L))
