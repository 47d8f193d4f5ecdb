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
        n = [len(row.sequence) for row in rows]
        L = self.prefill_length(sum(n))
        ids, slots, pos, docs, starts = ([] for _ in range(5))
        for d, row in enumerate(rows):
            starts += [len(ids)] * n[d]
            ids += row.sequence.token_ids
            slots += [row.sequence.slot] * n[d]
            pos += range(n[d])
            docs += [d] * n[d]
        last = [i - 1 for i in range(1, len(ids) + 1) if i == len(ids) or docs[i] != docs[i - 1]]
        pad = L - len(ids)
        starts += range(len(ids), L)
        docs += range(10**6, 10**6 + pad)
        ids, slots, pos = ids + [0] * pad, slots + [0] * pad, pos + [0] * pad
        t = lambda x: torch.tensor(x, dtype=torch.int64, device=self.device)
        self.documents[:L].copy_(t(docs))
        masks = {}
        for w in self.windows:
            masks[w] = self.get_prefill_block_mask(t(starts), w)
        return self._forward(t([ids]), t([pos]), t([slots]), masks, 0, self._prefill_options)[0].index_select(0, t(last))
