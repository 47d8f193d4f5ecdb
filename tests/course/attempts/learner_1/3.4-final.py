def erase(self, batch_idx: int) -> None:
        """Take everything from a slot: its pages go back to the pool, the slot can be allocated again.  [3.4 · ★★☆ · 10 min]

        Args:
            batch_idx: a slot given by `allocate` and not erased since.

        Returns:
            Nothing.  Afterwards `capacity[batch_idx]` is 0 and `owned[batch_idx]` is empty.  The row of `page_table` and
            `logical_of_page` may keep old numbers, as long as no mask lets the slot read a page that it does not own:
            setting the row to 0, the sink's page, does that.  Pages go back by `drop`.

        Raises:
            ValueError: the slot is not allocated (also when it was erased already).  Nothing changes then.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=1)
        >>> slot = table.allocate()
        >>> table.reserve(slot, 16), table.pages_available
        (True, 0)
        >>> table.erase(slot); table.pages_available
        4
        """
        self._check_allocated(batch_idx)
        pages, self.owned[batch_idx] = self.owned[batch_idx], []
        self.drop(pages)
        self.capacity[batch_idx] = 0
        self.page_table[batch_idx] = 0
        self.free_slots.append(batch_idx)
