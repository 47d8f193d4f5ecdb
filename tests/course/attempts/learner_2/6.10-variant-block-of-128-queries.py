    def get_decoding_block_mask(self, batch_idx: Tensor, window: int | None = None) -> BlockMask:
        """The logical BlockMask of a decode step: what each row reads of its own sequence.  [6.10 · ★★☆ · 20 min]

        Args:
            batch_idx: int64 [B], the slot of each row; a row of slot 0 is padding and lists no block.
            window: keys that a token reads, itself included, or None.

        Returns:
            A BlockMask with B rows, one head, one query, key blocks of `page_size` tokens and `pages_per_row` of them,
            and `_decode_mods[window]`.  Row b is at position `positions[b]`.  A page is full if the row reads all of it.
        """
        pt = self.page_table
        pos = self.positions[: len(batch_idx), None]
        last = torch.where(batch_idx[:, None] == 0, -1, pos)
        first = torch.zeros_like(pos) if window is None else pos - window + 1
        maps = visible_blocks(first, last, pt.pages_per_row, (128, pt.page_size))
        return block_mask_from_blocks(*(m[:, None] for m in maps), self._decode_mods[window], (128, pt.page_size), (1, pt.pages_per_row * pt.page_size))
