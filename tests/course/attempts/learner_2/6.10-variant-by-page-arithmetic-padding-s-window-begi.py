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
        ps, pos = pt.page_size, self.positions[: len(batch_idx), None]
        first = (pos - (window or 2**31) + 1).clamp(min=0)
        page = torch.arange(pt.pages_per_row, device=self.device)
        some = (page * ps <= pos) & (page * ps + ps - 1 >= first) & (batch_idx > 0)[:, None]
        full = some & (page * ps >= first) & (page * ps + ps - 1 <= pos)
        return block_mask_from_blocks((some & ~full)[:, None, None], full[:, None, None], self._decode_mods[window], (pt.page_size * 2, ps), (1, pt.pages_per_row * ps))
