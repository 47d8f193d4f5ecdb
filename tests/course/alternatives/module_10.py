"""Other right answers in module 10."""

from planting import Alternative

ALTERNATIVES: list[Alternative] = [
    # ------------------------------------------------------------------------------------------------ 10.1
    Alternative(
        "10.1",
        "decodes last in the list",
        code="""
        def fused_step(self):
            decodes = self.decode_rows()
            left = self.token_budget - len(decodes)
            prompts = self.prompt_rows(left if left > 0 else 1)
            return prompts + decodes
        """,
    ),
    Alternative(
        "10.1",
        "the rest split by hand",
        code="""
        def fused_step(self):
            rows = list(self.decode_rows())
            left = max(self.token_budget - len(rows), 1)
            for sequence in self.prompts():
                chunk = self.chunk(sequence, left)
                if chunk is None:
                    break
                rows.append(chunk)
                left -= chunk.n_tokens
                if left == 0:
                    break
            return rows
        """,
    ),
    Alternative(
        "10.1",
        "unpacked",
        code="""
        def fused_step(self):
            return [
                *(decodes := self.decode_rows()),
                *self.prompt_rows(self.token_budget - min(len(decodes), self.token_budget - 1)),
            ]
        """,
    ),
    Alternative(
        "10.1",
        "only rows of those that run",
        code="""
        def fused_step(self):
            decodes = tuple(self.decode_rows())
            used = sum(row.n_tokens for row in decodes)
            rows = decodes + tuple(self.prompt_rows(max(self.token_budget, used + 1) - used))
            return list(row for row in rows if row.sequence.slot)
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 10.2
    Alternative(
        "10.2",
        "token by token",
        code="""
        def lay_out(decodes, chunks, block):
            token_ids, slots, positions, row_slots, logits_at = [], [], [], [], []

            def put(token, slot, position):
                token_ids.append(token)
                slots.append(slot)
                positions.append(position)

            for row in decodes:
                logits_at.append(len(token_ids))
                put(row.sequence.token_ids[-1], row.sequence.slot, len(row.sequence) - 1)
            for chunk in chunks:
                sequence = chunk.sequence
                for i in range(chunk.n_tokens):
                    if i % block == 0:
                        row_slots.append(sequence.slot)
                    position = chunk.start + i
                    put(sequence.token_ids[position], sequence.slot, position)
                if chunk.is_last:
                    logits_at.append(len(token_ids) - 1)
                while (len(token_ids) - len(decodes)) % block:
                    put(0, 0, positions[-1])
            return Layout(token_ids, slots, positions, row_slots, logits_at, len(decodes))
        """,
    ),
    Alternative(
        "10.2",
        "changes what lay_out_chunks gave",
        code="""
        def lay_out(decodes, chunks, block):
            layout = lay_out_chunks(chunks, block)
            layout.token_ids[:0] = [row.sequence.output_ids[-1] for row in decodes]
            layout.slots[:0] = [row.sequence.slot for row in decodes]
            layout.positions[:0] = [row.start for row in decodes]
            layout.logits_at[:] = [*range(len(decodes)), *(len(decodes) + at for at in layout.logits_at)]
            return Layout(*list(vars(layout).values())[:-1], n_decode=len(decodes))
        """,
    ),
    Alternative(
        "10.2",
        "tuples of tensors' numbers",
        code="""
        def lay_out(decodes, chunks, block):
            n = len(decodes)
            places = []
            table = [(row.sequence.token_ids[row.start], row.sequence.slot, row.start) for row in decodes]
            row_slots = []
            for chunk in chunks:
                own = torch.arange(chunk.start, chunk.start + chunk.n_tokens)
                ids = torch.tensor(chunk.sequence.token_ids)[own]
                places += [len(table) + chunk.n_tokens - 1] * gives_token(chunk)
                table += zip(ids.tolist(), [chunk.sequence.slot] * len(own), own.tolist())
                rows = -(-len(own) // block)
                table += [(0, 0, int(own[-1]))] * (rows * block - len(own))
                row_slots += [chunk.sequence.slot] * rows
            token_ids, slots, positions = zip(*table)
            return Layout(token_ids, slots, positions, tuple(row_slots), [*range(n), *places], n)
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 10.3
    Alternative(
        "10.3",
        "squeeze and permute",
        code="""
        def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
            B = mask.n_decode
            for_decode, for_prompts = options
            out = torch.empty_like(q)
            q_BH1D = q[:, :, :B].permute(2, 1, 0, 3)
            out[:, :, B:] = attend_chunks(attend, q[:, :, B:], k, v, mask, scale, softcap, for_prompts)
            out[:, :, :B] = attend(q_BH1D, k, v, mask.decode, scale, softcap, for_decode).permute(2, 1, 0, 3)
            return out
        """,
    ),
    Alternative(
        "10.3",
        "split, rows by hand",
        code="""
        def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
            B, R = mask.n_decode, mask.n_rows
            one, many = q.squeeze(0).split([B, q.shape[2] - B], dim=1)
            one = attend(one.mT.permute(2, 0, 1).unsqueeze(-1).mT, k, v, mask.decode, scale, softcap, options[0])
            H, D = q.shape[1], q.shape[3]
            rows = many.reshape(H, R, -1, D).permute(1, 0, 2, 3)
            rows = attend(rows, k, v, mask.chunks, scale, softcap, options[1])
            rows = rows.permute(1, 0, 2, 3).reshape(H, -1, D)
            return torch.cat([one.reshape(B, H, D).movedim(0, 1), rows], dim=1).unsqueeze(0)
        """,
    ),
    Alternative(
        "10.3",
        "rows and queries exchanged",
        code="""
        def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
            B = mask.n_decode
            decode = attend(q[:, :, :B].transpose(0, 2), k, v, mask.decode, scale, softcap, options[0]).transpose(0, 2)
            rest = attend_chunks(attend, q[:, :, B:], k, v, mask, scale, softcap, options[1])
            return torch.cat([decode, rest], -2)
        """,
    ),
    Alternative(
        "10.3",
        "einsum",
        code="""
        def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
            chunks = attend_chunks(attend, q[:, :, mask.n_decode :], k, v, mask, scale, softcap, options[1])
            q_decode = torch.einsum("ahbd->bhad", q[:, :, : mask.n_decode]).contiguous()
            decode = attend(q_decode, k, v, mask.decode, scale, softcap, options[0])
            return torch.concatenate((torch.einsum("bhad->ahbd", decode), chunks), -2)
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 10.4
    Alternative(
        "10.4",
        "two lists",
        code="""
        def rows_due(rows):
            decodes, prompts = [], []
            for row in rows:
                if not isinstance(row, Chunk):
                    decodes.append(row)
                elif row.is_last:
                    prompts.append(row)
            return decodes + prompts
        """,
    ),
    Alternative(
        "10.4",
        "by is_prefill and length",
        code="""
        def rows_due(rows):
            due = [row for row in rows if row.start + row.n_tokens == len(row.sequence)]
            return [*(row for row in due if not row.is_prefill), *(row for row in due if row.is_prefill)]
        """,
    ),
    Alternative(
        "10.4",
        "sorted by type, as a tuple",
        code="""
        def rows_due(rows):
            return tuple(filter(gives_token, sorted(rows, key=lambda row: hasattr(row, "is_last"))))
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 10.5
    Alternative(
        "10.5",
        "ceil",
        code="""
        def inter_token_times(token_times):
            import math

            waits = []
            for times in token_times:
                waits += [times[i + 1] - times[i] for i in range(len(times) - 1)]
            waits.sort()
            if len(waits) == 0:
                return (0.0, 0.0)
            return waits[math.ceil(0.5 * len(waits)) - 1], waits[math.ceil(0.99 * len(waits)) - 1]
        """,
    ),
    Alternative(
        "10.5",
        "numpy's inverted_cdf",
        code="""
        def inter_token_times(token_times):
            import numpy

            waits = numpy.concatenate([[], *(numpy.diff(times) for times in token_times)])
            if not waits.size:
                return 0.0, 0.0
            p50, p99 = numpy.percentile(waits, [50, 99], method="inverted_cdf")
            return float(p50), float(p99)
        """,
    ),
    Alternative(
        "10.5",
        "a heap",
        code="""
        def inter_token_times(token_times):
            import heapq

            waits = [after - before for times in token_times for before, after in zip(times, times[1:])]
            n, result = len(waits), []
            for percent in (50, 99):
                rank = (percent * n + 99) // 100
                result.append(heapq.nsmallest(rank, waits)[-1] if waits else 0)
            return result
        """,
    ),
]
