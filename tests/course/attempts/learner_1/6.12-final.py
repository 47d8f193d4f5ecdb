def _run_rows(self, rows: list[Row]) -> None:
        """Compute the rows of a step and give each sequence its next token.  [6.12 · ★★★ · 30 min]

        Rows that start at 0 are a prefill (`prefill_sequences`); all others are a decode (`decode_step`, with the slot, the
        newest token and its position of each row).  From the logits `_next_tokens` chooses a token for each row, and
        `_accept` hands it to the sequence.

        Args:
            rows: of one step, from the scheduler; at least one.

        Returns:
            Nothing.
        """
        if rows[0].start == 0:
            logits_BV = self.prefill_sequences(rows)
        else:
            step = [(row.sequence.slot, row.sequence.token_ids[row.start], row.start) for row in rows]
            slot_B, token_B, position_B = torch.tensor(step, dtype=torch.int64, device=self.device).unbind(dim=1)
            logits_BV = self.decode_step(slot_B, token_B, position_B)
        for row, token in zip(rows, self._next_tokens(rows, logits_BV), strict=True):
            self._accept(row.sequence, token)
