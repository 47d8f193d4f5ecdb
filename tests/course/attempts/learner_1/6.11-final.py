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
        padding = 0
        if self.device.type == "cuda":
            padding = min(1 << (B - 1).bit_length(), self.max_batch_size) - B
        slot_B, token_B, position_B = (
            torch.nn.functional.pad(each, (0, padding)) for each in (batch_idx, input_ids, input_pos)
        )
        self.positions[: B + padding] = position_B
        return self._decode_step(slot_B, token_B, position_B)[:B]
