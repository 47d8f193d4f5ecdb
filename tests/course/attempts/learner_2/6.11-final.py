    def decode_step(self, batch_idx: Tensor, input_ids: Tensor, input_pos: Tensor) -> Tensor:
        """Compute the newest token of each running sequence.  [6.11 · ★★☆ · 15 min]

        On a GPU the rows are filled up to the next power of two, at most `max_batch_size`, with rows of slot 0: few batch
        sizes mean few compiled graphs.  `positions` gets the position of each row before the masks are made.

        Args:
            batch_idx, input_ids, input_pos: int64 [B]: slot, token and position of each row.

        Returns:
            float32 [B, V], the logits of the next token of each row, without those of the padding.
        """
        B = rows = len(batch_idx)
        if self.device.type == "cuda":
            rows = min(1 << (B - 1).bit_length(), self.max_batch_size)

        def filled_up(values_B: Tensor) -> Tensor:
            return torch.cat([values_B, values_B.new_zeros(rows - B)])

        batch_idx, input_ids, input_pos = map(filled_up, (batch_idx, input_ids, input_pos))
        self.positions[:rows] = input_pos
        return self._decode_step(batch_idx, input_ids, input_pos)[:B]
