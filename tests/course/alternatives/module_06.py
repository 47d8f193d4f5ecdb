"""Other right answers in module 06."""

from planting import Alternative

ALTERNATIVES: list[Alternative] = [
    # ------------------------------------------------------------------------------------------------ 6.1
    Alternative(
        "6.1",
        "by loop and topk",
        """
def keep_top_k(ranked_BV, top_k_B):
    out = torch.full_like(ranked_BV, -math.inf)
    for row, k in enumerate(top_k_B.tolist()):
        k = min(k, ranked_BV.shape[1]) or ranked_BV.shape[1]
        values, places = ranked_BV[row].topk(k)
        out[row, places] = values
    return out
""",
    ),
    Alternative(
        "6.1",
        "where, with 0 read as all",
        """
def keep_top_k(ranked_BV, top_k_B):
    vocab_size = ranked_BV.size(1)
    k_B1 = torch.where(top_k_B == 0, vocab_size, top_k_B).unsqueeze(1)
    kept = torch.arange(vocab_size, device=ranked_BV.device).unsqueeze(0) < k_B1
    return torch.where(kept, ranked_BV, float("-inf"))
""",
    ),
    Alternative(
        "6.1",
        "slices of a copy",
        """
def keep_top_k(ranked_BV, top_k_B):
    out = ranked_BV.clone()
    for row in range(len(out)):
        if (k := int(top_k_B[row])) > 0:
            out[row, k:] = -torch.inf
    return out
""",
    ),
    Alternative(
        "6.1",
        "adding a penalty",
        """
def keep_top_k(ranked_BV, top_k_B):
    place = torch.ones_like(ranked_BV).cumsum(-1)
    over = (place > top_k_B[:, None]) * (top_k_B[:, None] != 0)
    penalty = torch.zeros_like(ranked_BV)
    penalty[over] = -math.inf
    return ranked_BV + penalty
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.2
    Alternative(
        "6.2",
        "softmax and cumsum",
        """
def keep_top_p(ranked_BV, top_p_B):
    probs = ranked_BV.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs
    drop = (before >= top_p_B[:, None]) & (top_p_B[:, None] != 1)
    drop[..., 0] = False
    return torch.where(drop, -math.inf, ranked_BV)
""",
    ),
    Alternative(
        "6.2",
        "shifted, as known from transformers",
        """
def keep_top_p(ranked_BV, top_p_B):
    reached = torch.softmax(ranked_BV.double(), dim=-1).cumsum(-1)
    remove = reached >= top_p_B[:, None]
    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
    remove &= top_p_B[:, None] < 1
    return ranked_BV.masked_fill(remove, float("-inf"))
""",
    ),
    Alternative(
        "6.2",
        "ascending",
        """
def keep_top_p(ranked_BV, top_p_B):
    ascending = ranked_BV.flip(-1)
    reached = ascending.softmax(dim=-1).cumsum(dim=-1)
    remove = (reached <= 1 - top_p_B[:, None]) & (top_p_B[:, None] < 1)
    remove[:, -1] = False
    return ascending.masked_fill(remove, -math.inf).flip(-1)
""",
    ),
    Alternative(
        "6.2",
        "row by row in Python",
        """
def keep_top_p(ranked_BV, top_p_B):
    out = torch.full_like(ranked_BV, -math.inf)
    for row, p in enumerate(top_p_B.tolist()):
        shares, total, n = ranked_BV[row].softmax(0).tolist(), 0.0, 0
        while n < len(shares) and (p == 1 or total < p):
            total += shares[n]
            n += 1
        out[row, :n] = ranked_BV[row, :n]
    return out
""",
    ),
    Alternative(
        "6.2",
        "by counting",
        """
def keep_top_p(ranked_BV, top_p_B):
    reached = ranked_BV.log_softmax(-1).exp().cumsum(-1)
    n_B = (reached < top_p_B[:, None]).sum(-1) + 1
    n_B = torch.where(top_p_B >= 1, ranked_BV.shape[-1], n_B)
    return ranked_BV.masked_fill(torch.arange(ranked_BV.shape[-1]) >= n_B[:, None], -math.inf)
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.3
    Alternative(
        "6.3",
        "in probabilities",
        """
def keep_min_p(logits_BV, min_p_B):
    probs = logits_BV.softmax(-1)
    least = probs.max(-1, keepdim=True).values * min_p_B[:, None]
    return torch.where(probs >= least, logits_BV, -math.inf)
""",
    ),
    Alternative(
        "6.3",
        "as a ratio",
        """
def keep_min_p(logits_BV, min_p_B):
    ratio = torch.exp(logits_BV - logits_BV.max(dim=1, keepdim=True)[0])
    out = logits_BV.clone()
    out[ratio < min_p_B.unsqueeze(1)] = float("-inf")
    return out
""",
    ),
    Alternative(
        "6.3",
        "row by row",
        """
def keep_min_p(logits_BV, min_p_B):
    rows = []
    for row, share in zip(logits_BV, min_p_B.tolist()):
        least = row.max() + math.log(share) if share > 0 else -math.inf
        rows.append(torch.where(row < least, torch.tensor(-math.inf), row))
    return torch.stack(rows)
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.4
    Alternative(
        "6.4",
        "other constants, u by division in float64",
        """
def gumbel_noise(seed_B, position_B, token_BK):
    key = mix64(mix64(seed_B ^ 0x1234567) ^ (position_B + 77))
    bits = mix64(key[:, None] ^ (token_BK * 0x5851F42D4C957F2D)) >> 12 & (2**52 - 1)
    u = (bits.double() + 0.5) / 2**52
    return (-(-u.log()).log()).float()
""",
    ),
    Alternative(
        "6.4",
        "SHA-256 of each cell",
        """
def gumbel_noise(seed_B, position_B, token_BK):
    import hashlib
    rows = []
    for seed, position, ids in zip(seed_B.tolist(), position_B.tolist(), token_BK.tolist()):
        row = []
        for token in ids:
            digest = hashlib.sha256(f"{seed},{position},{token}".encode()).digest()
            u = (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
            row.append(-math.log(-math.log(u)))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float32)
""",
    ),
    Alternative(
        "6.4",
        "minus the logarithm of an exponential",
        """
def gumbel_noise(seed_B, position_B, token_BK):
    key = mix64(seed_B + 1)
    key = mix64(key + position_B * 0x2545F4914F6CDD1D + 3)
    bits = mix64(key.unsqueeze(-1) + (token_BK + 5) * 0x5851F42D4C957F2D)
    u = (bits.float() / 2.0**64 + 0.5).clamp(1e-7, 1 - 1e-7)
    exponential = -torch.log(u)
    return -exponential.log()
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.5
    Alternative(
        "6.5",
        "ranked always, place looked up",
        """
def sample(logits_BV, batch, position_B):
    logits, ids = rank(logits_BV.float(), logits_BV.shape[-1])
    logits = with_temperature(logits, batch.temperature_B)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    best = (logits + gumbel_noise(batch.seed_B, position_B, ids)).argmax(-1)
    drawn = ids[torch.arange(len(ids)), best]
    greedy = logits_BV.argmax(-1)
    usable = (batch.temperature_B != 0) & torch.isfinite(logits_BV.max(-1).values)
    return torch.where(usable, drawn, greedy)
""",
    ),
    Alternative(
        "6.5",
        "back into the vocabulary",
        """
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    if batch.all_greedy:
        return greedy
    logits, ids = rank(logits_BV.float(), logits_BV.shape[-1])
    logits = keep_top_k(with_temperature(logits, batch.temperature_B), batch.top_k_B)
    logits = keep_min_p(keep_top_p(logits, batch.top_p_B), batch.min_p_B)
    logits = torch.empty_like(logits).scatter_(1, ids, logits)
    every = torch.arange(logits.shape[1]).expand_as(logits)
    drawn = (logits + gumbel_noise(batch.seed_B, position_B, every)).argmax(-1)
    odd = ~logits_BV.amax(-1).isfinite() | (batch.temperature_B == 0)
    drawn[odd] = greedy[odd]
    return drawn
""",
    ),
    Alternative(
        "6.5",
        "exponential race",
        """
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[-1])
    logits = with_temperature(logits, batch.temperature_B)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    arrival = torch.exp(-gumbel_noise(batch.seed_B, position_B, ids).double())
    drawn = ids.gather(1, (logits.double().softmax(-1) / arrival).argmax(-1, keepdim=True)).squeeze(1)
    return torch.where((batch.temperature_B > 0) & logits_BV.amax(-1).isfinite(), drawn, greedy)
""",
    ),
    Alternative(
        "6.5",
        "softmax and multinomial, a generator for each seed and position",
        """
def sample(logits_BV, batch, position_B):
    tokens = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[-1])
    logits = with_temperature(logits, batch.temperature_B)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    finite = logits_BV.amax(-1).isfinite()
    keys = mix64(mix64(batch.seed_B) + position_B).tolist()
    for row, key in enumerate(keys):
        if batch.temperature_B[row] > 0 and finite[row]:
            generator = torch.Generator().manual_seed(key)
            place = torch.multinomial(logits[row].softmax(0), 1, generator=generator)
            tokens[row] = ids[row, place]
    return tokens
""",
    ),
    Alternative(
        "6.5",
        "one number a row, inverted",
        """
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[-1])
    logits = with_temperature(logits, batch.temperature_B)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    reached = logits.double().softmax(-1).cumsum(-1)
    u = (mix64(mix64(batch.seed_B + 9) + position_B) & (2**53 - 1)).double() / 2**53 * reached[:, -1]
    place = torch.searchsorted(reached.nan_to_num(), u[:, None].nan_to_num(), right=True).clamp(max=ids.shape[1] - 1)
    drawn = ids.gather(1, place)[:, 0]
    return torch.where((batch.temperature_B > 0) & logits_BV.amax(-1).isfinite(), drawn, greedy)
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.6
    Alternative(
        "6.6",
        "row by row",
        """
def top_logprobs(logits_BV, tokens_B, k):
    result = []
    for logits, token in zip(logits_BV.double(), tokens_B.tolist()):
        logprobs = torch.log_softmax(logits, dim=0)
        order = logprobs.argsort(descending=True)[:k].tolist()
        if token not in order:
            order.append(token)
        result.append({i: logprobs[i].item() for i in order})
    return result
""",
    ),
    Alternative(
        "6.6",
        "minus the log of the sum",
        """
def top_logprobs(logits_BV, tokens_B, k):
    logits = logits_BV.to(torch.float32)
    norm = torch.logsumexp(logits, -1)
    rows = []
    for row in range(len(logits)):
        entries = {}
        values, ids = torch.topk(logits[row], min(k, logits.shape[1]))
        for value, i in zip(values, ids):
            entries[int(i)] = float(value - norm[row])
        token = int(tokens_B[row])
        entries.setdefault(token, float(logits[row, token] - norm[row]))
        rows.append(entries)
    return rows
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.7
    Alternative(
        "6.7",
        "by growing",
        """
def prefill_length(self, n_tokens):
    block = self.prefill_block
    length = block
    while length < n_tokens:
        if self.device.type == "cuda":
            length *= 2
        else:
            power = 1
            while power * 2 <= length:
                power *= 2
            length += max(power // 4, block)
    return length
""",
    ),
    Alternative(
        "6.7",
        "from a list",
        """
def prefill_length(self, n_tokens):
    lengths = set()
    power = 1
    while power < 4 * n_tokens + 4 * self.prefill_block:
        steps = (4,) if str(self.device).startswith("cuda") else (4, 5, 6, 7)
        lengths |= {power * part // 4 for part in steps if power * part % 4 == 0}
        power *= 2
    return min(length for length in lengths if length >= n_tokens and length % self.prefill_block == 0)
""",
    ),
    Alternative(
        "6.7",
        "with logarithms",
        """
def prefill_length(self, n_tokens):
    import math
    power = 2 ** math.ceil(math.log2(n_tokens))
    if self.device.type == "cuda":
        return max(self.prefill_block, power)
    step = max(self.prefill_block, power // 2 // 4)
    return math.ceil(n_tokens / step) * step
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.8
    Alternative(
        "6.8",
        "PyTorch's own",
        """
def get_prefill_block_mask(self, start_L, window=None):
    from torch.nn.attention.flex_attention import create_block_mask
    L, size = len(start_L), self.prefill_block
    return create_block_mask(self._prefill_mods[window], None, None, L, L, device="cpu", BLOCK_SIZE=size)
""",
    ),
    Alternative(
        "6.8",
        "from the dense mask",
        """
def get_prefill_block_mask(self, start_L, window=None):
    from .masks import classify_blocks, dense_mask
    L, size = len(start_L), (self.prefill_block, self.prefill_block)
    mod = self._prefill_mods[window]
    partial, full = classify_blocks(dense_mask(mod, 1, 1, L, L, self.device), size)
    return block_mask_from_blocks(partial, full, mod, size, (L, L))
""",
    ),
    Alternative(
        "6.8",
        "all partial, from intervals in Python",
        """
def get_prefill_block_mask(self, start_L, window=None):
    L, size = len(start_L), self.prefill_block
    n = L // size
    listed = torch.zeros(1, 1, n, n, dtype=torch.bool)
    for q, start in enumerate(start_L.tolist()):
        first = start if window is None else max(start, q - window + 1)
        listed[0, 0, q // size, first // size : q // size + 1] = True
    none = torch.zeros_like(listed)
    return block_mask_from_blocks(listed, none, self._prefill_mods[window], (size, size), (L, L))
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.9
    Alternative(
        "6.9",
        "tensors joined, negative documents for padding",
        """
def prefill_sequences(self, rows):
    lengths = [row.n_tokens for row in rows]
    n = sum(lengths)
    L = self.prefill_length(n)
    pad = torch.zeros(L - n, dtype=torch.int64)
    n_B = torch.tensor(lengths)
    begin_B = n_B.cumsum(0) - n_B
    ids = torch.cat([*(torch.tensor(row.sequence.token_ids) for row in rows), pad])
    slots = torch.cat([torch.tensor([row.sequence.slot for row in rows]).repeat_interleave(n_B), pad])
    places = torch.arange(L)
    documents = torch.cat([torch.arange(len(rows)).repeat_interleave(n_B), -1 - torch.arange(L - n)])
    starts = torch.cat([begin_B.repeat_interleave(n_B), places[n:]])
    self.documents[:L].copy_(documents)
    masks = {w: self.get_prefill_block_mask(starts, w) for w in self.windows}
    logits = self._forward(
        ids[None], (places - starts)[None], slots[None], masks, n_B.cumsum(0) - 1, self._prefill_options
    )
    return logits.squeeze(0)
""",
    ),
    Alternative(
        "6.9",
        "one token at a time, slots as documents",
        """
def prefill_sequences(self, rows):
    tokens, last = [], []
    for row in rows:
        begin = len(tokens)
        for position, token in enumerate(row.sequence.token_ids):
            tokens.append((token, row.sequence.slot, position, row.sequence.slot, begin))
        last += [len(tokens) - 1]
    while len(tokens) < self.prefill_length(sum(row.n_tokens for row in rows)):
        tokens.append((1, 0, len(tokens), 10_000 + len(tokens), len(tokens)))
    ids, slots, positions, documents, starts = torch.tensor(tokens).T
    self.documents[: len(tokens)] = documents
    masks = {}
    for window in self.windows:
        masks[window] = self.get_prefill_block_mask(starts.contiguous(), window)
    return self._forward(ids[None], positions[None], slots[None], masks, torch.tensor(last), None)[0]
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.10
    Alternative(
        "6.10",
        "from the dense mask",
        """
def get_decoding_block_mask(self, batch_idx, window=None):
    from .masks import classify_blocks, dense_mask
    table, B = self.tables[window], len(batch_idx)
    K, mod = table.pages_per_row * table.page_size, self._decode_mods[window]
    dense = dense_mask(mod, B, 1, 1, K, self.device) & (batch_idx != 0)[:, None, None, None]
    partial, full = classify_blocks(dense, (128, table.page_size))
    return block_mask_from_blocks(partial, full, mod, (128, table.page_size), (1, K))
""",
    ),
    Alternative(
        "6.10",
        "PyTorch's own, slot 0 left out by the mask",
        """
def get_decoding_block_mask(self, batch_idx, window=None):
    from torch.nn.attention.flex_attention import create_block_mask
    size, pages = self.page_table.page_size, self.page_table.pages_per_row
    position_of = self._decode_mods[window]

    def mask_mod(b, h, q, k):
        return position_of(b, h, q, k) & (batch_idx[b] > 0)

    return create_block_mask(mask_mod, len(batch_idx), 1, 1, size * pages, device="cpu", BLOCK_SIZE=(1, size))
""",
    ),
    Alternative(
        "6.10",
        "page by page, the last one always partial",
        """
def get_decoding_block_mask(self, batch_idx, window=None):
    table = self.tables[window]
    size, pages, B = table.page_size, table.pages_per_row, len(batch_idx)
    partial = torch.zeros(B, 1, 1, pages, dtype=torch.bool)
    full = torch.zeros_like(partial)
    for row in range(B):
        last = int(self.positions[row])
        first = 0 if window is None else max(0, last - window + 1)
        if int(batch_idx[row]) == 0:
            continue
        for page in range(first // size, last // size + 1):
            whole = page * size >= first and (page + 1) * size <= last
            (full if whole else partial)[row, 0, 0, page] = True
    return block_mask_from_blocks(partial, full, self._decode_mods[window], (1, size), (1, pages * size))
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.11
    Alternative(
        "6.11",
        "zeros joined",
        """
def decode_step(self, batch_idx, input_ids, input_pos):
    n, size = len(batch_idx), len(batch_idx)
    if self.device.type == "cuda":
        size = 1
        while size < n:
            size *= 2
        size = min(size, self.max_batch_size)
    zeros = torch.zeros(size - n, dtype=torch.int64, device=self.device)
    slots = torch.cat([batch_idx, zeros])
    positions = torch.cat([input_pos, zeros])
    self.positions[:size].copy_(positions)
    return self._decode_step(slots, torch.cat([input_ids, zeros]), positions)[:n]
""",
    ),
    Alternative(
        "6.11",
        "buffers of zeros, filled up on a CPU too",
        """
def decode_step(self, batch_idx, input_ids, input_pos):
    n = batch_idx.shape[0]
    size = min(2 ** (n - 1).bit_length(), self.max_batch_size)
    slots, ids, positions = (batch_idx.new_zeros(size) for _ in range(3))
    slots[:n], ids[:n], positions[:n] = batch_idx, input_ids, input_pos
    self.positions.zero_()
    self.positions[:n] = input_pos
    logits = self._decode_step(slots, ids, positions)
    return logits.narrow(0, 0, n)
""",
    ),
    Alternative(
        "6.11",
        "sorted by slot, and back",
        """
def decode_step(self, batch_idx, input_ids, input_pos):
    order = batch_idx.argsort()
    batch_idx, input_ids, input_pos = batch_idx[order], input_ids[order], input_pos[order]
    n = len(order)
    extra = min(1 << (n - 1).bit_length(), self.max_batch_size) - n if self.device.type == "cuda" else 0
    pad = torch.full((extra,), 0, device=self.device)
    rows = [torch.hstack([one, pad]) for one in (batch_idx, input_ids, input_pos)]
    self.positions[: n + extra] = rows[2]
    logits = self._decode_step(*rows)[:n]
    return logits[order.argsort()]
""",
    ),
    # ------------------------------------------------------------------------------------------------ 6.12
    Alternative(
        "6.12",
        "with a helper",
        """
def _run_rows(self, rows):
    prefill = all(row.start == 0 for row in rows)
    logits = self.prefill_sequences(rows) if prefill else self._decode_rows(rows)
    tokens = self._next_tokens(rows, logits)
    for i in range(len(rows)):
        self._accept(rows[i].sequence, tokens[i])
""",
        also={
            "Inference._decode_rows": """
def _decode_rows(self, rows):
    slots, ids, positions = [], [], []
    for row in rows:
        slots.append(row.sequence.slot)
        ids.append(row.sequence.token_ids[row.start])
        positions.append(row.start)
    return self.decode_step(torch.tensor(slots), torch.tensor(ids), torch.tensor(positions))
"""
        },
    ),
    Alternative(
        "6.12",
        "row by row",
        """
def _run_rows(self, rows):
    if any(row.start for row in rows):
        slots, ids, starts = zip(*((row.sequence.slot, row.sequence.output_ids[-1], row.start) for row in rows))
        logits = self.decode_step(*(torch.tensor(numbers, device=self.device) for numbers in (slots, ids, starts)))
    else:
        logits = self.prefill_sequences(rows)
    for i, row in enumerate(rows):
        (token,) = self._next_tokens([row], logits[i : i + 1])
        self._accept(row.sequence, token)
""",
    ),
    Alternative(
        "6.12",
        "as one table",
        """
def _run_rows(self, rows):
    if rows[0].start > 0:
        newest = [(row.sequence.slot, row.sequence.token_ids[-1], len(row.sequence) - 1) for row in rows]
        logits = self.decode_step(*torch.tensor(newest, device=self.device).unbind(1))
    else:
        logits = self.prefill_sequences(rows)
    for row, token in zip(rows, self._next_tokens(rows, logits)):
        self._accept(row.sequence, token)
""",
    ),
]
