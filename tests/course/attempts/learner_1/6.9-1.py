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
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        documents: list[int] = []
        starts: list[int] = []
        last_tokens: list[int] = []
        for number, row in enumerate(rows):
            n, start = row.n_tokens, len(tokens)
            tokens += row.sequence.token_ids[:n]
            slots += [row.sequence.slot] * n
            positions += range(n)
            documents += [number] * n
            starts += [start] * n
            last_tokens.append(start + n - 1)

        n_tokens = len(tokens)
        L = self.prefill_length(n_tokens)
        padding = L - n_tokens
        packed = [
            tokens + [0] * padding,
            slots + [0] * padding,
            positions + [0] * padding,
            documents + [len(rows)] * padding,  # a document of its own
            starts + [n_tokens] * padding,
        ]
        input_ids_L, slot_L, position_L, document_L, start_L = torch.tensor(packed, dtype=torch.int64).to(self.device)
        self.documents[:L] = document_L
        masks = {window: self.get_prefill_block_mask(start_L, window) for window in self.windows}
        last_R = torch.tensor(last_tokens, dtype=torch.int64, device=self.device)
        logits_1RV = self._forward(
            input_ids_L[None], position_L[None], slot_L[None], masks, last_R, self._prefill_options
        )
        return logits_1RV[0]
