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
        import heapq
        heapq.heapify(self.free_slots)
        if not self.free_slots:
            raise RuntimeError("every slot is taken")
        return heapq.heappop(self.free_slots)
