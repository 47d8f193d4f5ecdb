def pages_missing(self, batch_idx: int, seq_len: int) -> int:
        """How many pages slot `batch_idx` needs on top of its own to hold `seq_len` tokens.  [3.3 · ★★☆ · 10 min]

        Args:
            batch_idx: a slot given by `allocate`, or 0 to ask for a sequence that has no slot yet.
            seq_len: tokens that the slot must hold, at least 1.

        Returns:
            Number of pages, 0 if the slot already holds as many tokens.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=2)
        >>> [table.pages_missing(0, n) for n in (1, 4, 5, 8, 9)]
        [1, 1, 2, 2, 3]
        """
        tokens_to_add = seq_len - self.capacity[batch_idx]  # what the slot holds is whole pages
        return max(0, -(-tokens_to_add // self.page_size))
