    def decode_step(self, batch_idx: Tensor, input_ids: Tensor, input_pos: Tensor) -> Tensor:
        """Compute the newest token of each running sequence.  [6.11 · ★★☆ · 15 min]

        On a GPU the rows are filled up to the next power of two, at most `max_batch_size`, with rows of slot 0: few batch
        sizes mean few compiled graphs.  `positions` gets the position of each row before the masks are made.

        Args:
            batch_idx, input_ids, input_pos: int64 [B]: slot, token and position of each row.

        Returns:
            float32 [B, V], the logits of the next token of each row, without those of the padding.
        """
        B = batch_idx.shape[0]
        n = B
        if self.device.type == "cuda":
            n = 1
            while n < B:
                n *= 2
            n = min(n, self.max_batch_size)
        slot, ids, pos = torch.nn.functional.pad(torch.stack([batch_idx, input_ids, input_pos]), (0, n - B))
        self.positions.zero_()
        self.positions[:n].copy_(pos)
        self.stats.decode_steps += 1
        return self._decode_step(slot, ids, pos).narrow(0, 0, B)
