    def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
        """Turn a mask over a sequence's positions into one over the addresses of the pool.  [3.8 · ★★★ · 20 min]

        Attention over the pool asks for (b, h, q, address).  The answer is yes only if batch row b may read that
        address at all, that is if its slot (`slot_of_row[b]`) owns the page now, and if the logical mask allows the
        position that the address stands for.  The sinks (slot 0, page 0) read nothing and are read by nobody.

        Args:
            logical_mask_mod: mask over (b, h, q, position of the key in the sequence).

        Returns:
            mask_mod over (b, h, q, address in the pool).  It reads `slot_of_row`, `page_table` and `logical_of_page` when
            it is called.  This mask alone keeps sequences apart: eager FlexAttention looks at nothing else.

        A page belongs to a slot if the slot's row has it at the page's logical place.
        """
        shift = self.page_size.bit_length() - 1
        def mod(b, h, q_idx, address):
            page, slot = address >> shift, self.slot_of_row[b]
            at = self.logical_of_page[page]
            readable = (self.page_table[slot, at] == page) & torch.ne(page * slot, 0)
            return torch.where(readable, logical_mask_mod(b, h, q_idx, (at << shift) | (address & (self.page_size - 1))), False)
        return mod
