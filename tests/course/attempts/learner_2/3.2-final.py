    def reserve(self, batch_idx: int, seq_len: int) -> bool:
        """Grow slot `batch_idx` until it holds at least `seq_len` tokens.  [3.2 · ★★☆ · 15 min]

        Takes as many pages from the pool as are missing, no more, and appends them to the slot's row of the page table in
        logical order.  All or nothing: with too few pages in the pool nothing changes.

        Args:
            batch_idx: a slot given by `allocate` and not erased since.
            seq_len: tokens that the slot must hold; 1 ≤ seq_len ≤ pages in a row × `page_size`.

        Returns:
            True if the slot now holds `seq_len` tokens, also if it already did; False if the pool has too few pages.

        Raises:
            ValueError: the slot is not allocated, or `seq_len` is below 1 or longer than a row.

        Afterwards `capacity[batch_idx]` is the pages owned × `page_size`, in tokens; `page_table[batch_idx, i]` is the
        physical page of logical page i; `logical_of_page[p]` is i for each page p just taken; `owned[batch_idx]` lists
        the pages in logical order.  Pages leave the pool by `take`.

        >>> table = PageTable(n_pages=5, page_size=4, max_batch_size=2)
        >>> slot = table.allocate()
        >>> table.reserve(slot, 5), table.capacity[slot], table.pages_available
        (True, 8, 3)
        >>> table.reserve(slot, 99)
        Traceback (most recent call last):
        ValueError: seq_len 99 is longer than a row of the page table: 5 pages of 4 tokens hold 20

        Source: Kwon et al., 2023, §4.3.
        """
        self._check_allocated(batch_idx)
        if not 1 <= seq_len <= self.pages_per_row * self.page_size:
            raise ValueError(self._wrong_length(seq_len))
        own = self.owned[batch_idx]
        # The logical pages that are still without a physical one; an empty range if the slot has enough.
        new = range(len(own), (seq_len - 1) // self.page_size + 1)
        if len(new) > self.pages_available:
            return False
        for logical, page in zip(new, self.take(len(new)), strict=True):
            self.page_table[batch_idx, logical] = page
            self.logical_of_page[page] = logical
            own.append(page)
        self.capacity[batch_idx] = self.page_size * len(own)
        return True
