    def update(self, input_pos: Tensor, k: Tensor, v: Tensor, batch_idx: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values, and return those that attention has to read.  [4.1 · ★★☆ · 15 min]

        Packed prefill: `batch_idx` is [1, L], the slot of each token.  The prompts read only themselves, so attention
        reads the fresh keys and values, and the pool is only written (`assign_prefill_no_paging`).
        Decode: `batch_idx` is [B], the slot of each row, one new token a row.  Attention reads the pool (`assign`).

        Args:
            input_pos: int64 [1, L] or [B], the position of each token in its sequence.
            k: [1, Hk, L, D] or [B, Hk, 1, D].
            v: as k, with the value's head size.
            batch_idx: int64 [1, L] or [B].

        Returns:
            (k, v) as given in prefill; (k_cache, v_cache), both [1, Hk, N, D], in decode.
        """
        if batch_idx.ndim == 2:
            self.page_table.assign_prefill_no_paging(batch_idx, input_pos, k, v, self.k_cache, self.v_cache)
            return k, v
        self.page_table.assign(batch_idx, input_pos[:, None], k, v, self.k_cache, self.v_cache)
        return self.k_cache, self.v_cache
