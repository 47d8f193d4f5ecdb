    def get_prefill_block_mask(self, start_L: Tensor, window: int | None = None) -> BlockMask:
        """The BlockMask of a packed row.  [6.8 · ★★☆ · 15 min]

        Args:
            start_L: int64 [L], where in the row the document of each token begins; L is a multiple of `prefill_block`.
            window: keys that a token reads, or None.

        Returns:
            A BlockMask over [L, L] in blocks of `prefill_block`, one batch row, one head, with `_prefill_mods[window]`.
        """
        L = len(start_L)
        token_L = torch.arange(L, device=start_L.device)
        first_L = start_L if window is None else start_L.maximum(token_L - (window - 1))
        block_size = (self.prefill_block,) * 2
        maps = visible_blocks(first_L[None], token_L[None], L // self.prefill_block, block_size)
        partial, full = (blocks.unsqueeze(1) for blocks in maps)
        return block_mask_from_blocks(partial, full, self._prefill_mods[window], block_size, (L, L))
