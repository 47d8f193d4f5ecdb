    def get_decoding_block_mask(self, batch_idx: Tensor, window: int | None = None) -> BlockMask:
        """The logical BlockMask of a decode step: what each row reads of its own sequence.  [6.10 · ★★☆ · 20 min]

        Args:
            batch_idx: int64 [B], the slot of each row; a row of slot 0 is padding and lists no block.
            window: keys that a token reads, itself included, or None.

        Returns:
            A BlockMask with B rows, one head, one query, key blocks of `page_size` tokens and `pages_per_row` of them,
            and `_decode_mods[window]`.  Row b is at position `positions[b]`.  A page is full if the row reads all of it.
        """
        last_B = self.positions[: len(batch_idx)]
        first_B = torch.zeros_like(last_B) if window is None else (last_B - window + 1).clamp(min=0)
        last_B = last_B.where(batch_idx != 0, -1)
        pages, block_size = self.page_table.pages_per_row, (1, self.page_table.page_size)
        partial, full = visible_blocks(first_B[:, None], last_B[:, None], pages, block_size)
        return block_mask_from_blocks(
            partial[:, None], full[:, None], self._decode_mods[window], block_size, (1, pages * block_size[1])
        )
