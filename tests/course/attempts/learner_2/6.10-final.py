    def get_decoding_block_mask(self, batch_idx: Tensor, window: int | None = None) -> BlockMask:
        """The logical BlockMask of a decode step: what each row reads of its own sequence.  [6.10 · ★★☆ · 20 min]

        Args:
            batch_idx: int64 [B], the slot of each row; a row of slot 0 is padding and lists no block.
            window: keys that a token reads, itself included, or None.

        Returns:
            A BlockMask with B rows, one head, one query, key blocks of `page_size` tokens and `pages_per_row` of them,
            and `_decode_mods[window]`.  Row b is at position `positions[b]`.  A page is full if the row reads all of it.
        """
        B, n_pages = len(batch_idx), self.page_table.pages_per_row
        position_B1 = self.positions[:B, None]
        last_B1 = position_B1.where(batch_idx[:, None] > 0, -1)  # padding reads nothing
        first_B1 = torch.zeros_like(last_B1) if window is None else (position_B1 - window + 1).clamp_min(0)
        block_size = (1, self.page_table.page_size)
        partial, full = visible_blocks(first_B1, last_B1, n_pages, block_size)
        return block_mask_from_blocks(
            partial[:, None], full[:, None], self._decode_mods[window], block_size, (1, n_pages * block_size[1])
        )
