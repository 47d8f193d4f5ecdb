    def assign(
        self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
    ) -> None:
        """Write keys and values of several sequences, a batch row each, into the pool.  [3.6 · ★★☆ · 15 min]

        Args:
            batch_idx: int64 [B], the slot of each row.
            input_pos: int64 [B, S], the position of each token in its sequence; S is 1 in decode.
            k, v: [B, Hk, S, D], the new keys and values.
            k_cache, v_cache: [1, Hk, N, D], the pool, changed in place.  Row n holds the token at address n.

        Returns:
            Nothing.  Only the addresses of the given tokens change.

        Token (b, s) goes to `address(batch_idx[b], input_pos[b, s])`.
        """
        address_N = self.address(batch_idx.unsqueeze(1), input_pos).flatten()
        for new, pool in (k, k_cache), (v, v_cache):
            pool[0].index_copy_(1, address_N, new.transpose(0, 1).flatten(1, 2).to(pool))
