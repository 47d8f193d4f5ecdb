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
        columns: list[tuple[int, int, int, int, int]] = []
        last: list[int] = []
        for document, row in enumerate(rows):
            start, slot = len(columns), row.sequence.slot
            columns += [
                (token, slot, position, document, start) for position, token in enumerate(row.sequence.token_ids)
            ]
            last.append(len(columns) - 1)
        columns += [(0, 0, 0, place, place) for place in range(len(columns), self.prefill_length(len(columns)))]

        ids_L, slot_L, position_L, document_L, start_L = torch.tensor(columns, device=self.device).T.contiguous()
        self.documents[: len(columns)] = document_L
        masks = {window: self.get_prefill_block_mask(start_L, window) for window in self.windows}
        logits_at = torch.tensor(last, device=self.device)
        return self._forward(ids_L[None], position_L[None], slot_L[None], masks, logits_at, self._prefill_options)[0]
