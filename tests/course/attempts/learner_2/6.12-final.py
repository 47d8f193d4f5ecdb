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
            columns = [(row.sequence.slot, row.sequence.token_ids[row.start], row.start) for row in rows]
            logits_BV = self.decode_step(*torch.tensor(columns, device=self.device).unbind(1))
        for row, token in zip(rows, self._next_tokens(rows, logits_BV), strict=True):
            self._accept(row.sequence, token)
