    def decode_step(self, batch_idx: Tensor, input_ids: Tensor, input_pos: Tensor) -> Tensor:
        """Compute the newest token of each running sequence.  [6.11 · ★★☆ · 15 min]

        On a GPU the rows are filled up to the next power of two, at most `max_batch_size`, with rows of slot 0: few batch
        sizes mean few compiled graphs.  `positions` gets the position of each row before the masks are made.

        Args:
            batch_idx, input_ids, input_pos: int64 [B]: slot, token and position of each row.

        Returns:
            float32 [B, V], the logits of the next token of each row, without those of the padding.
        """
        B = len(batch_idx)
        if self.device.type == "cuda":
            rows = 1
            while rows < B:
                rows *= 2
            missing = min(rows, self.max_batch_size) - B
            batch_idx, input_ids, input_pos = (
                torch.nn.functional.pad(values, (0, missing)) for values in (batch_idx, input_ids, input_pos)
            )
        self.positions[: len(input_pos)] = input_pos
        return self._decode_step(batch_idx, input_ids, input_pos)[:B]
