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
        ids, slots, positions, documents, last = [], [], [], [], []
        for number, row in enumerate(rows):
            n = row.n_tokens
            ids += row.sequence.token_ids
            slots += [row.sequence.slot] * n
            positions += range(n)
            documents += [number] * n
            last.append(len(ids) - 1)
        n_tokens = len(ids)
        L = self.prefill_length(n_tokens)
        padding = [0] * (L - n_tokens)
        documents += range(len(rows), len(rows) + len(padding))  # each token of padding is alone
        starts = [place - position for place, position in enumerate(positions)] + list(range(n_tokens, L))

        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self.device)

        self.documents[:L] = tensor(documents)
        start_L = tensor(starts)
        masks = {window: self.get_prefill_block_mask(start_L, window) for window in self.windows}
        return self._forward(
            tensor(ids + padding)[None],
            tensor(positions + padding)[None],
            tensor(slots + padding)[None],
            masks,
            tensor(last),
            self._prefill_options,
        )[0]
