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
        def tensor(values):
            return torch.tensor(list(values), dtype=torch.int64, device=self.device)
        self.stats.steps += 1
        if all(r.start == 0 for r in rows):
            logits = self.prefill_sequences(rows)
        else:
            logits = self.decode_step(
                batch_idx=tensor(r.sequence.slot for r in rows),
                input_ids=tensor(r.sequence.token_ids[-1] for r in rows),
                input_pos=tensor(r.start for r in rows),
            )
        tokens = self._next_tokens(rows, logits)
        while tokens:
            self._accept(rows[-len(tokens)].sequence, tokens.pop(0))
