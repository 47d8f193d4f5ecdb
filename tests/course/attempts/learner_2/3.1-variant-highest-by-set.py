    def allocate(self) -> int:
        """Hand out a free slot that owns no pages yet.  [3.1 · ★☆☆ · 5 min]

        Returns:
            A slot between 1 and `max_batch_size` that nobody holds.  Slot 0 is the sink and is never given.

        Raises:
            RuntimeError: every slot is taken.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=2)
        >>> sorted([table.allocate(), table.allocate()])
        [1, 2]
        """
        free = set(self.free_slots)
        if not free:
            raise RuntimeError("every slot is taken")
        slot = max(free)
        self.free_slots = sorted(free - {slot})
        return slot
