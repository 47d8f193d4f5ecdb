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
        n = self.address(batch_idx[:, None], input_pos).reshape(-1)
        for pool, new in ((k_cache, k), (v_cache, v)):
            heads = torch.arange(new.shape[1], device=n.device)[:, None]
            pool[0].index_put_((heads, n[None]), torch.einsum("bhsd->hbsd", new).flatten(1, 2))
