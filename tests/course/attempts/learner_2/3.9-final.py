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
        B, block = block_mask.kv_num_blocks.shape[0], block_mask.BLOCK_SIZE[1]
        if block != self.page_size:
            raise ValueError(f"a key block of the mask has {block} tokens, but a page {self.page_size}")
        if B != len(batch_idx):
            raise ValueError(f"the mask has {B} rows, but batch_idx {len(batch_idx)}")
        if B > self.max_batch_size:
            raise ValueError(f"the mask has {B} rows, but the table has {self.max_batch_size} slots")
        self.slot_of_row[:B] = batch_idx
        width = self.n_pages + 1
        row_B11P = self.page_table[batch_idx][:, None, None, :]

        def physical(count_B1Q: Tensor, logical_B1QW: Tensor) -> Tensor:
            """The lists with physical pages in them, as wide as the pool; the sink stands behind the counts."""
            listed = torch.arange(logical_B1QW.shape[-1], device=count_B1Q.device) < count_B1Q[..., None]
            pages = torch.take_along_dim(row_B11P, logical_B1QW.long().where(listed, 0), dim=-1).where(listed, 0)
            return torch.nn.functional.pad(pages, (0, width - pages.shape[-1])).contiguous()  # below 0: cuts

        counts, lists = block_mask.kv_num_blocks, block_mask.kv_indices
        full_counts, full_lists = block_mask.full_kv_num_blocks, block_mask.full_kv_indices
        if full_counts is None or full_lists is None:
            full_counts, full_lists = torch.zeros_like(counts), torch.zeros_like(lists)
        return BlockMask.from_kv_blocks(
            counts,
            physical(counts, lists),
            full_counts,
            physical(full_counts, full_lists),
            BLOCK_SIZE=block_mask.BLOCK_SIZE,
            mask_mod=self.physical_mask_mod(block_mask.mask_mod),
            seq_lengths=(block_mask.seq_lengths[0], width * self.page_size),
            compute_q_blocks=False,
        )
