"""Mistakes in module 10, as edits of the reference."""

from planting import Planted

REST = "max(1, self.token_budget - len(rows))"

STEP = """
def fused_step(self):
    rows = self.decode_rows()
    left = max(1, self.token_budget - len(rows))
    {}
"""
"""A step whose end is to be filled in."""

LOOP = """
def lay_out(decodes, chunks, block):
    token_ids, slots, positions, row_slots, logits_at = [], [], [], [], []
    for i, row in enumerate(decodes):
        logits_at.append(len(token_ids))
        token_ids.append(row.sequence.token_ids[{token}])
        slots.append({decode_slot})
        positions.append({position})
    {between}
    for i, row in enumerate(chunks, start=len(decodes)):
        sequence, start, n, slot = row.sequence, {start}, {n_tokens}, {slot}
        end, padding = start + n, {padding}
        token_ids += {tokens}
        slots += [slot] * n
        positions += {places}
        if {due}:
            logits_at.append({at})
        token_ids += [{fill}] * padding
        slots += [{owner}] * padding
        positions += {goes_on}
        row_slots += [slot] * ({rows})
    {after}
    return Layout(token_ids, slots, positions, {row_slots}, logits_at, {n})
"""
"""A layout put down token by token."""

RIGHT = {
    "token": "row.start",
    "decode_slot": "row.sequence.slot",
    "position": "row.start",
    "between": "pass",
    "start": "row.start",
    "n_tokens": "row.n_tokens",
    "slot": "row.sequence.slot",
    "padding": "-n % block",
    "tokens": "sequence.token_ids[start:end]",
    "places": "range(start, end)",
    "due": "gives_token(row)",
    "at": "len(token_ids) - 1",
    "fill": "0",
    "owner": "0",
    "goes_on": "[positions[-1]] * padding",
    "rows": "-(-n // block)",
    "after": "pass",
    "row_slots": "row_slots",
    "n": "len(decodes)",
}


def loop(**wrong: str) -> str:
    return LOOP.format(**(RIGHT | wrong))


SIDE = """
def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
    B = mask.n_decode
    q_BHD = {take}
    out = {call}
    rest = attend_chunks({chunks})
    return {join}
"""
"""Attention whose lines are to be filled in."""

SIDE_RIGHT = {
    "take": "q[0, :, :B].permute(1, 0, 2).unsqueeze(2)",
    "call": "attend(q_BHD, k, v, mask.decode, scale, softcap, options[0])",
    "chunks": "attend, q[:, :, B:], k, v, mask, scale, softcap, options[1]",
    "join": "torch.cat((out.squeeze(2).permute(1, 0, 2).unsqueeze(0), rest), 2)",
}


def side(**wrong: str) -> str:
    return SIDE.format(**(SIDE_RIGHT | wrong))


def chunks(mask: str = "mask", scale: str = "scale, softcap", options: str = "options[1]", pool: str = "k, v") -> str:
    return f"attend, q[:, :, B:], {pool}, {mask}, {scale}, {options}"


def decode(
    mask: str = "mask.decode", scale: str = "scale, softcap", options: str = "options[0]", pool: str = "k, v"
) -> str:
    return f"attend(q_BHD, {pool}, {mask}, {scale}, {options})"


TIMES = """
def inter_token_times(token_times):
    waits = []
    for times in token_times:
        for i in range(1, len(times)):
            waits.append(times[i] - times[i - 1])
    {}
"""
"""Percentiles whose end is to be filled in."""


def ranked(rank: str, more: str = "waits.sort()") -> str:
    """Percentiles by an index that is an expression in p and n."""
    return TIMES.format(
        f"""n = len(waits)
    if not n:
        return 0.0, 0.0
    {more}
    return tuple(waits[{rank}] for p in (50, 99))"""
    )


MISTAKES = [
    # ------------------------------------------------------------------------------------------------ 10.1
    Planted(
        "10.1",
        "decode-last",
        code="""
        def fused_step(self):
            rows = self.prompt_rows(self.token_budget)
            if sum(row.n_tokens for row in rows) < self.token_budget:
                rows += self.decode_rows()
            return rows
        """,
        note="only if there is room",
    ),
    Planted(
        "10.1",
        "decode-last",
        code="""
        def fused_step(self):
            rows = self.prompt_rows(self.token_budget)
            left = self.token_budget - sum(row.n_tokens for row in rows)
            return rows + self.decode_rows()[:left]
        """,
        note="cut",
    ),
    Planted(
        "10.1",
        "decode-last",
        code="""
        def fused_step(self):
            return [*self.prompt_rows(self.token_budget), *self.decode_rows()]
        """,
    ),
    Planted(
        "10.1",
        "prompts-choose-first",
        code="""
        def fused_step(self):
            decoding = [one for one in self.scheduler.running if one not in self.unfinished]
            prompts = self.prompt_rows(max(1, self.token_budget - len(decoding)))
            return self.decode_rows() + prompts
        """,
    ),
    Planted(
        "10.1",
        "unfused",
        code="""
        def fused_step(self):
            return self.decode_rows() or self.prompt_rows(self.token_budget)
        """,
    ),
    Planted(
        "10.1",
        "unfused",
        code="""
        def fused_step(self):
            prompts = self.prompt_rows(self.token_budget)
            return prompts if prompts else self.decode_rows()
        """,
        note="prompts",
    ),
    Planted("10.1", "decodes-not-counted", old=REST, new="self.token_budget"),
    Planted("10.1", "starves", old=REST, new="self.token_budget - len(rows)"),
    Planted("10.1", "starves", old=REST, new="max(0, self.token_budget - len(rows))", note="zero"),
    Planted(
        "10.1",
        "starves",
        code="""
        def fused_step(self):
            rows = self.decode_rows()
            if len(rows) < self.token_budget:
                rows.extend(self.prompt_rows(self.token_budget - len(rows)))
            return rows
        """,
        note="only if there is room",
    ),
    Planted("10.1", "decodes-cut", old="self.decode_rows()", new="self.decode_rows()[: self.token_budget]", note="cut"),
    Planted(
        "10.1", "decodes-cut", old="self.decode_rows()", new="self.decode_rows()[: self.token_budget - 1]", note="room"
    ),
    Planted(
        "10.1",
        "decodes-cut",
        code=STEP.format("""prompts = self.prompt_rows(left)
    return rows[: self.token_budget - sum(row.n_tokens for row in prompts)] + prompts"""),
        note="room if needed",
    ),
    Planted("10.1", "one-token", old=REST, new="1 if rows else self.token_budget"),
    Planted("10.1", "one-token", old=REST, new="1", note="always"),
    Planted("10.1", "one-token-min", old="max(1", new="min(1"),
    Planted("10.1", "counts-all-running", old="len(rows)", new="len(self.scheduler.running)"),
    Planted("10.1", "off-by-one", old="len(rows))", new="len(rows) - 1)"),
    Planted("10.1", "off-by-one", old=REST, new=f"{REST} + 1", note="more"),
    Planted(
        "10.1",
        "nobody-admitted",
        code=STEP.format("""for sequence in list(self.unfinished):
        row = self.chunk(sequence, left)
        if row is not None:
            rows.append(row)
            left -= row.n_tokens
    return rows"""),
    ),
    Planted(
        "10.1",
        "one-prompt",
        code=STEP.format("""for sequence in self.prompts():
        row = self.chunk(sequence, left)
        if row is not None:
            rows.append(row)
        break
    return rows"""),
    ),
    Planted("10.1", "one-prompt", code=STEP.format("return rows + self.prompt_rows(left)[:1]"), note="drops others"),
    Planted("10.1", "one-prompt", code=STEP.format("return rows + self.prompt_rows(left)[-1:]"), note="drops first"),
    Planted(
        "10.1",
        "each-gets-all",
        code=STEP.format("""for sequence in self.prompts():
        row = self.chunk(sequence, left)
        if row is not None:
            rows.append(row)
    return rows"""),
    ),
    Planted("10.1", "rows-dropped", code=STEP.format("return self.prompt_rows(left) or rows"), note="either"),
    Planted("10.1", "rows-dropped", code=STEP.format("return self.prompt_rows(left)"), note="decodes"),
    Planted(
        "10.1",
        "rows-dropped",
        code=STEP.format("""self.prompt_rows(left)
    return rows"""),
        note="prompts",
    ),
    Planted("10.1", "", old=REST, new="max(1, (self.token_budget - len(rows)) // 2)", note="half"),
    Planted("10.1", "", code=STEP.format("return [rows, self.prompt_rows(left)]"), note="nested"),
    Planted("10.1", "", code=STEP.format("rows.append(self.prompt_rows(left))"), note="no return"),
    Planted("10.1", "", old="self.decode_rows()", new="self.decode_rows()[::2]", note="every other"),
    Planted("10.1", "", old="self.token_budget", new="self.scheduler.page_table.page_size", note="a page"),
    # ------------------------------------------------------------------------------------------------ 10.2
    Planted("10.2", "samples-mid-prompt", code=loop(due="True")),
    Planted(
        "10.2",
        "samples-mid-prompt",
        code="""
        def lay_out(decodes, chunks, block):
            part = lay_out_chunks(chunks, block)
            n = len(decodes)
            places, at = list(range(n)), n
            for chunk in chunks:
                places.append(at + chunk.n_tokens - 1)
                at += -(-chunk.n_tokens // block) * block
            return Layout(
                [row.sequence.token_ids[row.start] for row in decodes] + part.token_ids,
                [row.sequence.slot for row in decodes] + part.slots,
                [row.start for row in decodes] + part.positions,
                part.row_slots,
                places,
                n,
            )
        """,
        note="own places",
    ),
    Planted("10.2", "samples-mid-prompt", code=loop(due="not gives_token(row)"), note="reversed"),
    Planted("10.2", "no-first-token", code=loop(due="False")),
    Planted(
        "10.2", "no-first-token", old="[*range(n), *(n + place for place in part.logits_at)]", new="list(range(n))"
    ),
    Planted("10.2", "asks-the-prompt", code=loop(due="end == len(sequence.prompt_ids)")),
    Planted("10.2", "asks-the-prompt", code=loop(due="end >= len(sequence.prompt_ids)"), note="reached"),
    Planted("10.2", "logits-of-padding", code=loop(at="len(token_ids) + padding - 1")),
    Planted("10.2", "logits-beside", code=loop(at="len(token_ids)")),
    Planted("10.2", "logits-beside", code=loop(at="len(token_ids) - n"), note="first"),
    Planted("10.2", "logits-unshifted", old="(n + place for place in part.logits_at)", new="part.logits_at"),
    Planted("10.2", "logits-unshifted", old="(n + place for", new="(1 + place for", note="by one"),
    Planted(
        "10.2",
        "logits-order",
        old="[*range(n), *(n + place for place in part.logits_at)]",
        new="[*(n + place for place in part.logits_at), *range(n)]",
    ),
    Planted("10.2", "all-logits", code=loop(after="logits_at = [place for place, slot in enumerate(slots) if slot]")),
    Planted("10.2", "positions-from-zero", code=loop(places="range(n)")),
    Planted(
        "10.2",
        "positions-from-zero",
        code=loop(places="range(len(positions), len(positions) + n)"),
        note="places",
    ),
    Planted("10.2", "tokens-from-zero", code=loop(tokens="sequence.token_ids[:n]")),
    Planted("10.2", "whole-sequence", code=loop(n_tokens="len(row.sequence) - row.start")),
    Planted("10.2", "whole-sequence", code=loop(start="0", n_tokens="len(row.sequence)"), note="from zero"),
    Planted("10.2", "forgets-output", code=loop(tokens="sequence.prompt_ids[start:end]")),
    Planted("10.2", "another-token", code=loop(token="len(row.sequence.prompt_ids) - 1"), note="prompt"),
    Planted("10.2", "another-token", code=loop(token="row.start - 1"), note="before"),
    Planted("10.2", "another-token", code=loop(token="0"), note="zero"),
    Planted("10.2", "another-token", old="token_ids[row.start]", new="output_ids[0]", note="output"),
    Planted("10.2", "decode-position", old="[row.start for", new="[row.start + 1 for"),
    Planted("10.2", "decode-position", old="[row.start for", new="[len(row.sequence) for", note="length"),
    Planted("10.2", "decode-position", old="[row.start for", new="[len(row.sequence.output_ids) - 1 for", note="made"),
    Planted("10.2", "decode-position", old="[row.start for row in decodes]", new="[0] * n", note="zero"),
    Planted("10.2", "decode-position", old="[row.start for row in decodes]", new="list(range(n))", note="row"),
    Planted("10.2", "row-not-slot", code=loop(decode_slot="i", slot="i")),
    Planted("10.2", "row-not-slot", code=loop(decode_slot="i + 1", slot="i + 1"), note="from one"),
    Planted("10.2", "row-not-slot", old="[row.sequence.slot for row in decodes]", new="list(range(n))", note="decodes"),
    Planted("10.2", "unpadded", code=loop(padding="0")),
    Planted(
        "10.2",
        "rows-shared",
        code=loop(
            padding="0",
            after="""begin = len(decodes)
    while (len(token_ids) - begin) % block:
        token_ids.append(0)
        slots.append(0)
        positions.append(positions[-1])""",
            row_slots="slots[begin::block]",
        ),
    ),
    Planted(
        "10.2",
        "rows-shared",
        code=loop(
            padding="0",
            after="""missing = -(len(token_ids) - len(decodes)) % block
    token_ids, slots, positions = token_ids + [0] * missing, slots + [0] * missing, positions + positions[-1:] * missing""",
        ),
        note="listed",
    ),
    Planted("10.2", "padded-to-many", code=loop(padding="block - n % block", rows="n // block + 1")),
    Planted(
        "10.2",
        "decodes-padded",
        code=loop(
            between="""missing = -len(decodes) % block
    token_ids, slots, positions = token_ids + [0] * missing, slots + [0] * missing, positions + [0] * missing"""
        ),
    ),
    Planted(
        "10.2",
        "decodes-padded",
        code=loop(
            between="""while len(token_ids) % block:
        token_ids.append(0)
        slots.append(0)
        positions.append(positions[-1])"""
        ),
        note="last",
    ),
    Planted("10.2", "padding-owned", code=loop(owner="sequence.slot")),
    Planted("10.2", "padding-position", code=loop(goes_on="[0] * padding")),
    Planted("10.2", "padding-position", code=loop(goes_on="range(end, end + padding)"), note="goes on"),
    Planted("10.2", "padding-repeats", code=loop(fill="token_ids[-1]")),
    Planted("10.2", "row-slots", code=loop(rows="1")),
    Planted("10.2", "row-slots", code=loop(rows="n // block"), note="floor"),
    Planted("10.2", "row-slots", code=loop(rows="n"), note="tokens"),
    Planted("10.2", "row-slots", code=loop(rows="n + padding"), note="places"),
    Planted("10.2", "row-slots", code=loop(rows="n // block + 1"), note="more"),
    Planted(
        "10.2", "row-slots-of-all", old="part.row_slots", new="[row.sequence.slot for row in decodes] + part.row_slots"
    ),
    Planted(
        "10.2",
        "chunks-first",
        code="""
        def lay_out(decodes, chunks, block):
            part = lay_out_chunks(chunks, block)
            n, m = len(decodes), len(part.token_ids)
            return Layout(
                part.token_ids + [row.sequence.token_ids[row.start] for row in decodes],
                part.slots + [row.sequence.slot for row in decodes],
                part.positions + [row.start for row in decodes],
                part.row_slots,
                [*part.logits_at, *range(m, m + n)],
                n,
            )
        """,
    ),
    Planted("10.2", "n-decode", code=loop(n="len(decodes) + len(chunks)")),
    Planted("10.2", "n-decode", code=loop(n="len(logits_at)"), note="logits"),
    Planted("10.2", "n-decode", code=loop(n="len(row_slots)"), note="rows"),
    Planted("10.2", "n-decode", code=loop(n="len(chunks)"), note="chunks"),
    Planted("10.2", "", old="part.row_slots", new="part.row_slots[::-1]", note="turned"),
    Planted("10.2", "", code=loop(n="0"), note="no decodes"),
    Planted("10.2", "", code=loop(row_slots="[]"), note="no rows"),
    Planted("10.2", "", code=loop(position="row.start - 1"), note="position before"),
    Planted("10.2", "", code=loop(tokens="sequence.token_ids[start + 1 : end + 1]"), note="a token later"),
    # ------------------------------------------------------------------------------------------------ 10.3
    Planted(
        "10.3",
        "one-row",
        code="""
        def attend_side_by_side(attend, q, k, v, mask, scale, softcap, options):
            q_decode, q_chunks = q[:, :, : mask.n_decode], q[:, :, mask.n_decode :]
            decode = attend(q_decode, k, v, mask.decode, scale, softcap, options[0])
            chunks = attend_chunks(attend, q_chunks, k, v, mask, scale, softcap, options[1])
            return torch.cat([decode, chunks], dim=2)
        """,
    ),
    Planted("10.3", "masks-swapped", code=side(call=decode(mask="mask.chunks")), note="prompts"),
    Planted(
        "10.3",
        "masks-swapped",
        code=side(
            call=decode(mask="mask.chunks"),
            chunks=chunks(mask="MixedMask(B, mask.n_rows, mask.decode, mask.decode)"),
        ),
    ),
    Planted(
        "10.3",
        "masks-swapped",
        code=side(chunks=chunks(mask="MixedMask(B, mask.n_rows, mask.decode, mask.decode)")),
        note="decode",
    ),
    Planted(
        "10.3", "options-swapped", code=side(call=decode(options="options[1]"), chunks=chunks(options="options[0]"))
    ),
    Planted("10.3", "options-swapped", old="options[1]", new="options[0]", note="decode"),
    Planted("10.3", "options-swapped", old="options[0]", new="options[1]", note="prompts"),
    Planted("10.3", "options-whole", code=side(call=decode(options="options"), chunks=chunks(options="options"))),
    Planted("10.3", "options-whole", old="options[0]", new="options", note="decode"),
    Planted("10.3", "options-whole", old="options[1]", new="options", note="prompts"),
    Planted("10.3", "options-lost", code=side(call=decode(options="None"), chunks=chunks(options="None"))),
    Planted("10.3", "options-lost", old="options[0]", new="None", note="decode"),
    Planted("10.3", "options-lost", old="options[1]", new="None", note="prompts"),
    Planted("10.3", "scale-lost", code=side(call=decode(scale="None, softcap"), chunks=chunks(scale="None, softcap"))),
    Planted("10.3", "scale-lost", code=side(call=decode(scale="None, softcap")), note="decode"),
    Planted("10.3", "scale-lost", code=side(chunks=chunks(scale="None, softcap")), note="prompts"),
    Planted("10.3", "softcap-lost", code=side(call=decode(scale="scale, None"), chunks=chunks(scale="scale, None"))),
    Planted("10.3", "softcap-lost", code=side(call=decode(scale="scale, None")), note="decode"),
    Planted("10.3", "softcap-lost", code=side(chunks=chunks(scale="scale, None")), note="prompts"),
    Planted(
        "10.3",
        "scale-for-softcap",
        code=side(call=decode(scale="softcap, scale"), chunks=chunks(scale="softcap, scale")),
    ),
    Planted("10.3", "scale-for-softcap", code=side(call=decode(scale="softcap, scale")), note="decode"),
    Planted("10.3", "scale-for-softcap", code=side(chunks=chunks(scale="softcap, scale")), note="prompts"),
    Planted("10.3", "values-for-keys", code=side(call=decode(pool="v, k"), chunks=chunks(pool="v, k"))),
    Planted("10.3", "values-for-keys", code=side(call=decode(pool="v, k")), note="decode"),
    Planted("10.3", "values-for-keys", code=side(chunks=chunks(pool="v, k")), note="prompts"),
    Planted(
        "10.3",
        "one-by-one",
        code=side(
            call="torch.cat([attend(one[None], k, v, mask.decode, scale, softcap, options[0]) for one in q_BHD])"
        ),
    ),
    Planted("10.3", "scrambled", code=side(take="q[0, :, :B].reshape(B, -1, 1, q.shape[-1])"), note="in"),
    Planted(
        "10.3",
        "scrambled",
        code=side(join="torch.cat([out.reshape(1, q.shape[1], B, -1), rest], dim=2)"),
        note="out",
    ),
    Planted(
        "10.3",
        "scrambled",
        code=side(
            take="q[:, :, :B].contiguous().view(B, -1, 1, q.shape[-1])",
            join="torch.cat([out.reshape(1, q.shape[1], B, -1), rest], dim=2)",
        ),
        note="both",
    ),
    Planted(
        "10.3",
        "splits-at-the-end",
        code=side(take="q[0, :, -B:].permute(1, 0, 2).unsqueeze(2)", chunks=chunks().replace("B:", ":-B")),
    ),
    Planted(
        "10.3",
        "splits-at-the-end",
        code=side(
            take="q[0, :, -B:].permute(1, 0, 2).unsqueeze(2)",
            chunks=chunks().replace("B:", ":-B"),
            join="torch.cat((rest, out.squeeze(2).permute(1, 0, 2).unsqueeze(0)), 2)",
        ),
        note="in place",
    ),
    Planted(
        "10.3",
        "prompts-first",
        old="torch.cat([out_BH1D[:, :, 0].transpose(0, 1)[None], chunks], dim=2)",
        new="torch.cat([chunks, out_BH1D[:, :, 0].transpose(0, 1)[None]], dim=2)",
    ),
    Planted("10.3", "wrong-axis", old="dim=2", new="dim=1"),
    Planted("10.3", "wrong-axis", old=", dim=2", new="", note="first"),
    Planted("10.3", "no-batch", code=side(join="torch.cat([out[:, :, 0].transpose(0, 1), rest[0]], dim=1)")),
    Planted("10.3", "heads-last", old="chunks], dim=2)", new="chunks], dim=2).transpose(1, 2)"),
    Planted("10.3", "half", code=side(join="rest"), note="prompts"),
    Planted("10.3", "half", code=side(join="out.squeeze(2).transpose(0, 1)[None]"), note="decode"),
    Planted("10.3", "", code=side(join="torch.zeros_like(q)"), note="zeros"),
    Planted("10.3", "", code=side(take="q[:, :, :B].transpose(0, 2).flip(3)"), note="turned round"),
    Planted("10.3", "", old="B = mask.n_decode", new="B = mask.n_rows", note="rows for decodes"),
    Planted("10.3", "", code=side(call=decode() + " * scale"), note="scaled twice"),
    Planted("10.3", "", old="q[:, :, B:]", new="q", note="all to chunks"),
    # ------------------------------------------------------------------------------------------------ 10.4
    Planted(
        "10.4",
        "samples-mid-prompt",
        code="""
        def rows_due(rows):
            return sorted(rows, key=lambda row: isinstance(row, Chunk))
        """,
    ),
    Planted(
        "10.4",
        "samples-mid-prompt",
        old="if gives_token",
        new="if not isinstance(row, Chunk) or not gives_token",
        note="reversed",
    ),
    Planted("10.4", "no-first-token", old="gives_token(row)", new="not isinstance(row, Chunk)"),
    Planted(
        "10.4",
        "drops-decodes",
        code="""
        def rows_due(rows):
            return [row for row in rows if isinstance(row, Chunk) and row.is_last]
        """,
    ),
    Planted(
        "10.4",
        "drops-decodes",
        code="""
        def rows_due(rows):
            return [row for row in rows if getattr(row, "is_last", False)]
        """,
        note="getattr",
    ),
    Planted(
        "10.4",
        "asks-the-prompt",
        code="""
        def rows_due(rows):
            first = [row for row in rows if not isinstance(row, Chunk)]
            for row in rows:
                if isinstance(row, Chunk) and row.start + row.n_tokens == len(row.sequence.prompt_ids):
                    first.append(row)
            return first
        """,
    ),
    Planted(
        "10.4",
        "asks-the-prompt",
        old="gives_token(row)",
        new="row.start + row.n_tokens >= len(row.sequence.prompt_ids)",
        note="reached",
    ),
    Planted(
        "10.4",
        "asks-the-prompt",
        old="gives_token(row)",
        new="row.start + row.n_tokens == len(row.sequence.prompt_ids)",
        note="all",
    ),
    Planted(
        "10.4",
        "whole-prompts-only",
        old="gives_token(row)",
        new="not isinstance(row, Chunk) or (row.start == 0 and row.is_last)",
    ),
    Planted("10.4", "as-they-come", code="def rows_due(rows):\n    return [row for row in rows if gives_token(row)]\n"),
    Planted("10.4", "prompts-first", old="isinstance(row, Chunk))", new="not isinstance(row, Chunk))"),
    Planted(
        "10.4",
        "prompts-first",
        code="""
        def rows_due(rows):
            due = []
            for kind in (True, False):
                due += [row for row in rows if isinstance(row, Chunk) is kind and gives_token(row)]
            return due
        """,
        note="loop",
    ),
    Planted("10.4", "by-length", old="isinstance(row, Chunk)", new="row.n_tokens > 1", note="order"),
    Planted(
        "10.4",
        "by-length",
        code="""
        def rows_due(rows):
            decodes = [row for row in rows if row.n_tokens == 1]
            return decodes + [row for row in rows if row.n_tokens > 1 and row.is_last]
        """,
    ),
    Planted("10.4", "by-start", old="isinstance(row, Chunk)", new="row.start == 0", note="order"),
    Planted(
        "10.4",
        "by-start",
        code="""
        def rows_due(rows):
            decodes = [row for row in rows if row.start > 0]
            prompts = [row for row in rows if row.start == 0]
            return decodes + [row for row in prompts if gives_token(row)]
        """,
    ),
    Planted("10.4", "by-slot", old="isinstance(row, Chunk)", new="(isinstance(row, Chunk), row.sequence.slot)"),
    Planted("10.4", "by-slot", old="isinstance(row, Chunk)", new="row.sequence.slot", note="all"),
    Planted(
        "10.4", "by-request", old="isinstance(row, Chunk)", new="(isinstance(row, Chunk), row.sequence.request_id)"
    ),
    Planted("10.4", "by-request", old="isinstance(row, Chunk)", new="row.sequence.request_id", note="all"),
    Planted(
        "10.4",
        "backwards",
        code="""
        def rows_due(rows):
            due = []
            for row in sorted(rows, key=lambda row: isinstance(row, Chunk)):
                if gives_token(row):
                    due.insert(0, row)
            return due
        """,
    ),
    Planted(
        "10.4",
        "",
        code="def rows_due(rows):\n    return [row.sequence for row in rows if gives_token(row)]\n",
        note="sequences",
    ),
    Planted(
        "10.4", "", code="def rows_due(rows):\n    return [row for row in rows if gives_token(row)][:1]\n", note="one"
    ),
    Planted("10.4", "", old="isinstance(row, Chunk)", new="row.n_tokens", note="by size"),
    Planted(
        "10.4",
        "",
        code="""
        def rows_due(rows):
            prompts = [row for row in rows if isinstance(row, Chunk)]
            return [row for row in rows if row not in prompts] + prompts[-1:]
        """,
        note="the last prompt",
    ),
    # ------------------------------------------------------------------------------------------------ 10.5
    Planted(
        "10.5",
        "across-requests",
        code="""
        def inter_token_times(token_times):
            times = sorted(time for one in token_times for time in one)
            waits = sorted(after - before for before, after in pairwise(times))
            if not waits:
                return 0.0, 0.0
            return waits[-(-50 * len(waits) // 100) - 1], waits[-(-99 * len(waits) // 100) - 1]
        """,
    ),
    Planted(
        "10.5",
        "across-requests",
        code="""
        def inter_token_times(token_times):
            times = sum(token_times, [])
            waits = sorted(times[i + 1] - times[i] for i in range(len(times) - 1))
            if not waits:
                return 0.0, 0.0
            return waits[-(-50 * len(waits) // 100) - 1], waits[-(-99 * len(waits) // 100) - 1]
        """,
        note="joined",
    ),
    Planted("10.5", "first-token", old="pairwise(times)", new="pairwise([0, *times])"),
    Planted(
        "10.5",
        "per-request",
        code="""
        def inter_token_times(token_times):
            each = [sorted(b - a for a, b in pairwise(times)) for times in token_times]
            each = [waits for waits in each if waits]
            if not each:
                return 0.0, 0.0
            p50 = [waits[-(-50 * len(waits) // 100) - 1] for waits in each]
            p99 = [waits[-(-99 * len(waits) // 100) - 1] for waits in each]
            return sum(p50) / len(p50), sum(p99) / len(p99)
        """,
    ),
    Planted(
        "10.5",
        "per-request",
        code="""
        def inter_token_times(token_times):
            p50 = p99 = 0.0
            for times in token_times:
                waits = sorted(b - a for a, b in pairwise(times))
                if waits:
                    p50 = max(p50, waits[-(-50 * len(waits) // 100) - 1])
                    p99 = max(p99, waits[-(-99 * len(waits) // 100) - 1])
            return p50, p99
        """,
        note="worst",
    ),
    Planted(
        "10.5",
        "averages",
        old="after - before for times in token_times for before, after in pairwise(times)",
        new="(times[-1] - times[0]) / (len(times) - 1) for times in token_times if len(times) > 1",
    ),
    Planted("10.5", "one-request", old="for times in token_times for", new="for times in token_times[:1] for"),
    Planted(
        "10.5", "one-request", old="for times in token_times for", new="for times in token_times[-1:] for", note="last"
    ),
    Planted(
        "10.5",
        "tokens",
        old="after - before for times in token_times for before, after in pairwise(times)",
        new="time for times in token_times for time in times",
    ),
    Planted(
        "10.5",
        "mean",
        code=ranked("-(-99 * n // 100) - 1").replace("tuple(", "sum(waits) / n, *(").replace("(50, 99)", "(99,)"),
    ),
    Planted("10.5", "largest", code=ranked("-(-p * n // 100) - 1 if p == 50 else -1")),
    Planted(
        "10.5",
        "interpolates",
        code=TIMES.format("""if not waits:
        return 0.0, 0.0
    import numpy

    p50, p99 = numpy.percentile(waits, [50, 99])
    return float(p50), float(p99)"""),
        note="numpy",
    ),
    Planted(
        "10.5",
        "interpolates",
        code=TIMES.format("""if not waits:
        return 0.0, 0.0
    import statistics

    waits.sort()
    return statistics.median(waits), waits[-(-99 * len(waits) // 100) - 1]"""),
        note="median",
    ),
    Planted("10.5", "rank-too-high", code=ranked("int(n * p / 100)")),
    Planted("10.5", "rank-too-high", code=ranked("min(n - 1, -(-p * n // 100))"), note="ceil"),
    Planted("10.5", "rank-too-low", code=ranked("max(0, n * p // 100 - 1)")),
    Planted("10.5", "rank-too-low", code=ranked("n * p // 100 - 1"), note="wraps"),
    Planted("10.5", "rank-too-low", code=ranked("int((n - 1) * p / 100)"), note="less one"),
    Planted("10.5", "rank-too-low", code=ranked("max(0, -(-p * n // 100) - 2)"), note="two"),
    Planted("10.5", "rank-rounded", code=ranked("round((n - 1) * p / 100)")),
    Planted("10.5", "rank-rounded", code=ranked("max(0, round(n * p / 100) - 1)"), note="of n"),
    Planted("10.5", "rank-too-high", code=ranked("-(-(n - 1) * p // 100)"), note="less one, up"),
    Planted("10.5", "not-sorted", code=ranked("-(-p * n // 100) - 1", more="pass")),
    Planted("10.5", "descending", code=ranked("-(-p * n // 100) - 1", more="waits.sort(reverse=True)")),
    Planted("10.5", "swapped", old="return p50, p99", new="return p99, p50"),
    Planted("10.5", "milliseconds", old="return p50, p99", new="return 1000 * p50, 1000 * p99"),
    Planted("10.5", "other-percentiles", old="(50, 99)", new="(50, 95)"),
    Planted("10.5", "other-percentiles", old="(50, 99)", new="(50, 90)", note="nines"),
    Planted("10.5", "other-percentiles", old="(50, 99)", new="(50, 1)", note="low"),
    Planted("10.5", "other-percentiles", old="(50, 99)", new="(25, 99)", note="quarter"),
    Planted("10.5", "no-wait", old="if not waits:", new="if not token_times:", note="of nobody"),
    Planted("10.5", "no-wait", old="if not waits:", new="if waits is None:", note="raises"),
    Planted("10.5", "no-wait", old="return 0.0, 0.0", new='return float("nan"), float("nan")', note="nan"),
    Planted("10.5", "", old="return p50, p99", new="return p50", note="one number"),
    Planted("10.5", "", old="after - before", new="before - after", note="negative"),
    Planted("10.5", "", old="return p50, p99", new="return round(p50), round(p99) + 1", note="rounded"),
    Planted(
        "10.5", "", code=ranked("-(-p * n // 100) - 1", more="waits = sorted(set(waits)); n = len(waits)"), note="a set"
    ),
]
