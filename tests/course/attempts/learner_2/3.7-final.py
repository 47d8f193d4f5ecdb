    def assign_prefill_no_paging(
        self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
    ) -> None:
        """Write the prompts packed into one row into the pool; attention itself reads the fresh keys.  [3.7 · ★☆☆ · 5 min]

        Args:
            batch_idx: int64 [1, L], the slot of each token; 0 for padding.
            input_pos: int64 [1, L], the position of each token in its sequence.
            k, v: [1, Hk, L, D].
            k_cache, v_cache: [1, Hk, N, D], the pool, changed in place.

        Returns:
            Nothing.  Token l goes to `address(batch_idx[0, l], input_pos[0, l])`, padding into page 0.
        """
        address_1L = self.address(batch_idx, input_pos)
        for pool, new in zip((k_cache, v_cache), (k, v), strict=True):
            pool.scatter_(2, address_1L[:, None, :, None].expand_as(new), new.to(pool))
