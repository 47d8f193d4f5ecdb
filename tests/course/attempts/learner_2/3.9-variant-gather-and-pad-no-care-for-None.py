    def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
        """Turn a BlockMask over each row's own sequence into one over the pool.  [3.9 · ★★★ · 25 min]

        Args:
            block_mask: B rows, one head; key blocks are logical pages: `BLOCK_SIZE[1]` is `page_size`.  Its lists are no
                wider than a row of the page table, or name pages below `pages_per_row` also behind their counts.
            batch_idx: int64 [B], the slot of each row.

        Returns:
            A BlockMask with the same counts, whose lists name physical pages, int32 [B, 1, query blocks, n_pages + 1]
            (the CPU kernel wants the pool's full width; what stands behind the counts is a valid page), whose key length
            is the pool's, (n_pages + 1) × `page_size`, the query length as it was, and whose mask_mod is `physical_mask_mod(block_mask.mask_mod)`.
            It is valid until the next call, since `slot_of_row` holds the rows of one batch.

        Raises:
            ValueError: the key block is not `page_size`, or B is not the length of `batch_idx` or above `max_batch_size`.

        Source: the idea of a page table under FlexAttention is from attention-gym's `PagedAttention`.
        """
        if block_mask.BLOCK_SIZE[1] != self.page_size:
            raise ValueError("the key block is not a page")
        B = len(block_mask.kv_num_blocks)
        if B != len(batch_idx) or B > self.max_batch_size:
            raise ValueError("wrong number of rows")
        self.slot_of_row[:B] = batch_idx
        rows = self.page_table[batch_idx]
        out = []
        for counts, indices in ((block_mask.kv_num_blocks, block_mask.kv_indices), (block_mask.full_kv_num_blocks, block_mask.full_kv_indices)):
            lists = torch.zeros(*indices.shape[:3], self.n_pages + 1, dtype=torch.int32, device=indices.device)
            w = min(indices.shape[-1], self.n_pages + 1)
            lists[..., :w] = rows[:, None, None].expand(*indices.shape[:3], -1).gather(3, indices[..., :w].long())
            out += [counts, lists]
        return BlockMask.from_kv_blocks(
            *out, BLOCK_SIZE=block_mask.BLOCK_SIZE, mask_mod=self.physical_mask_mod(block_mask.mask_mod),
            seq_lengths=(block_mask.seq_lengths[0], (self.n_pages + 1) * self.page_size), compute_q_blocks=False,
        )
