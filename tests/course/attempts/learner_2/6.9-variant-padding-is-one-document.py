    def prefill_sequences(self, rows: list[Row]) -> Tensor:
        """Compute the prompts of several sequences, packed into one row, and fill their pages.  [6.9 · ★★★ · 35 min]

        The row is padded to L = `prefill_length`.  Each token carries its slot and its position in its own sequence;
        padding has slot 0.  `documents[:L]` says which sequence each token belongs to: 0, 1, 2, … and for padding a number
        that nothing else has.  The model is called by `_forward` with the masks of `get_prefill_block_mask` for each
        window, and returns logits only where they are needed: at the last token of each sequence.

        Args:
            rows: sequences with slots and pages, all of their tokens to be computed.

        Returns:
            float32 [len(rows), V], the logits of the next token of each.
        """
        # One list of (token, slot, position, document, start of the document) for the row, then padding of the same form:
        # token 0 of slot 0, each a document of its own that reads only itself.
        n = [row.n_tokens for row in rows]
        total, L = sum(n), self.prefill_length(sum(n))
        z = torch.zeros(5, L, dtype=torch.int64)
        at = 0
        for d, row in enumerate(rows):
            s = slice(at, at + n[d])
            z[0, s] = torch.tensor(row.sequence.token_ids)
            z[1, s] = row.sequence.slot
            z[2, s] = torch.arange(n[d])
            z[3, s] = d
            z[4, s] = at
            at += n[d]
        z[2, at:] = torch.arange(L - at)
        z[3, at:] = len(rows)
        z[4, at:] = at
        z = z.to(self.device)
        self.documents[:L] = z[3]
        last = torch.tensor(n).cumsum(0) - 1
        masks = {w: self.get_prefill_block_mask(z[4], w) for w in self.windows}
        return self._forward(z[0:1], z[2:3], z[1:2], masks, last.to(self.device), self._prefill_options)[0]
