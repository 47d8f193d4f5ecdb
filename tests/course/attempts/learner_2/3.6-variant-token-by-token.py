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
        for b, slot in enumerate(batch_idx):
            for s, pos in enumerate(input_pos[b]):
                n = int(self.address(slot, pos))
                k_cache[0, :, n] = k[b, :, s]
                v_cache[0, :, n] = v[b, :, s]
