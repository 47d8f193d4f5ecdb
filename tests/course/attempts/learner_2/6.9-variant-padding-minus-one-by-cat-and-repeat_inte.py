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
        n_R = torch.tensor([row.n_tokens for row in rows])
        total = int(n_R.sum())
        L = self.prefill_length(total)
        R = len(rows)
        doc = torch.arange(R).repeat_interleave(n_R)
        starts = n_R.cumsum(0) - n_R
        def fill(x, value):
            return torch.nn.functional.pad(x, (0, L - total), value=value).to(self.device)
        tokens = torch.tensor([t for row in rows for t in row.sequence.token_ids])
        ids, slot = fill(tokens, 0), fill(torch.tensor([r.sequence.slot for r in rows])[doc], 0)
        pos, start = fill(torch.arange(total) - starts[doc], 0), fill(starts[doc], total)
        self.documents[:L] = fill(doc, -1)
        self.stats.prefill_steps += 1
        self.stats.prefill_tokens += total
        self.stats.padded_tokens += L - total
        out = self._forward(
            input_ids=ids[None], input_pos=pos[None], batch_idx=slot[None],
            masks={w: self.get_prefill_block_mask(start, w) for w in self.windows},
            logits_at=(starts + n_R - 1).to(self.device), kernel_options=self._prefill_options,
        )
        return out.squeeze(0)
