"""Mistakes in module 06, as edits of the reference.

Of the mistakes seen in other engines two have no exercise of their own here.  "one-eos" (only the tokenizer's end of sequence
counts) would be made in `_eos_token_ids`, which is given, or in `Sequence.check_done`, which is exercise 5.1.  Pieces of text
are made in detokenize.py, which is given too; "token-by-token-text" can be made in 6.12 by who does without `_accept`.
"""

from planting import Planted

TOP_K = [
    Planted("6.1", "zero-not-off", old=" & (top_k_B[:, None] > 0)", new=""),
    Planted(
        "6.1",
        "zero-not-off",
        note="one by clamp",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    place = torch.arange(ranked_BV.shape[1])
    return torch.where(place < top_k_B.clamp(min=1)[:, None], ranked_BV, -math.inf)
""",
    ),
    Planted("6.1", "one-too-many", old="place_V >= top_k_B[:, None]", new="place_V > top_k_B[:, None]"),
    Planted("6.1", "one-too-few", old="place_V >= top_k_B[:, None]", new="place_V >= top_k_B[:, None] - 1"),
    Planted(
        "6.1",
        "ties-stay",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    vocab_size = ranked_BV.shape[-1]
    k_B = torch.where(top_k_B > 0, top_k_B, vocab_size).clamp(max=vocab_size)
    least_B1 = ranked_BV.gather(1, (k_B - 1)[:, None])
    return ranked_BV.masked_fill(ranked_BV < least_B1, -math.inf)
""",
    ),
    Planted(
        "6.1",
        "ties-stay",
        note="by loop",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    rows = []
    for row, k in zip(ranked_BV, top_k_B.tolist()):
        if 0 < k < len(row):
            row = torch.where(row >= row.topk(k).values[-1], row, torch.tensor(-torch.inf))
        rows.append(row)
    return torch.stack(rows)
""",
    ),
    Planted(
        "6.1",
        "k-beyond-row",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    out = torch.full_like(ranked_BV, -torch.inf)
    for row, k in enumerate(top_k_B.tolist()):
        values, places = ranked_BV[row].topk(k if k else ranked_BV.shape[1])
        out[row, places] = values
    return out
""",
    ),
    Planted(
        "6.1",
        "one-for-all",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    k = int(top_k_B.max())
    out = ranked_BV.clone()
    if 0 < k < ranked_BV.shape[1]:
        out[:, k:] = float("-inf")
    return out
""",
    ),
    Planted(
        "6.1",
        "one-for-all",
        note="of the first row",
        code="""
def keep_top_k(ranked_BV, top_k_B):
    k = top_k_B[0].item() or ranked_BV.shape[1]
    return ranked_BV.masked_fill(torch.arange(ranked_BV.shape[1]) >= k, -math.inf)
""",
    ),
    Planted("6.1", "not-minus-inf", old="-math.inf", new="-1e9"),
    Planted(
        "6.1",
        "not-minus-inf",
        note="zeros",
        old="ranked_BV.masked_fill(dropped_BV, -math.inf)",
        new="ranked_BV * ~dropped_BV",
    ),
    Planted("6.1", "in-place", old="ranked_BV.masked_fill(", new="ranked_BV.masked_fill_("),
    Planted("6.1", "", note="drops the best", old="place_V >= top_k_B[:, None]", new="place_V < top_k_B[:, None]"),
    Planted("6.1", "", note="nothing given back", old="return ranked_BV.masked_fill", new="ranked_BV.masked_fill"),
]

TOP_P = [
    Planted("6.2", "nucleus-short", old="share_before_BV >= top_p_B", new="reached_BV / reached_BV[:, -1:] > top_p_B"),
    Planted(
        "6.2",
        "nucleus-short",
        note="nothing may be left",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    reached = ranked_BV.softmax(-1).cumsum(-1)
    keep = (reached <= top_p_B[:, None]) | (top_p_B[:, None] == 1)
    return torch.where(keep, ranked_BV, -torch.inf)
""",
    ),
    Planted(
        "6.2",
        "nucleus-short",
        note="below p, p of 1 forgotten",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    out = ranked_BV.clone()
    for row, p in zip(out, top_p_B.tolist()):
        total = 0.0
        for i, share in enumerate(row.softmax(0).tolist()):
            total += share
            if total >= p and i > 0:
                row[i] = -math.inf
    return out
""",
    ),
    Planted("6.2", "beyond-p", old="share_before_BV >= top_p_B", new="share_before_BV > top_p_B"),
    Planted(
        "6.2",
        "beyond-p",
        note="as in Llama's own code",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    probs = torch.softmax(ranked_BV, dim=1)
    before = torch.cumsum(probs, dim=1) - probs
    mask = (before > top_p_B.unsqueeze(-1)) & (top_p_B.unsqueeze(-1) != 1.0)
    return ranked_BV.masked_fill(mask, float("-inf"))
""",
    ),
    Planted(
        "6.2",
        "not-probabilities",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    mass_BV = ranked_BV.exp()
    before_BV = mass_BV.cumsum(-1) - mass_BV
    dropped_BV = (before_BV >= top_p_B[:, None]) & (top_p_B[:, None] < 1)
    dropped_BV[:, 0] = False
    return ranked_BV.masked_fill(dropped_BV, -math.inf)
""",
    ),
    Planted(
        "6.2",
        "not-probabilities",
        note="largest is 1",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    mass_BV = (ranked_BV - ranked_BV[:, :1]).exp()
    before_BV = mass_BV.cumsum(-1) - mass_BV
    return ranked_BV.masked_fill((before_BV >= top_p_B[:, None]) & (top_p_B[:, None] < 1), -math.inf)
""",
    ),
    Planted(
        "6.2",
        "overflow",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    mass = ranked_BV.exp()
    probs = mass / mass.sum(-1, keepdim=True)
    before = probs.cumsum(-1) - probs
    return ranked_BV.masked_fill((before >= top_p_B[:, None]) & (top_p_B[:, None] < 1), -math.inf)
""",
    ),
    Planted("6.2", "one-is-off", old=" & (top_p_B[:, None] < 1)", new=""),
    Planted(
        "6.2",
        "one-is-off",
        note="by softmax",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    probs = ranked_BV.softmax(dim=1)
    before = probs.cumsum(dim=1) - probs
    return torch.where(before < top_p_B[:, None], ranked_BV, torch.full_like(ranked_BV, -math.inf))
""",
    ),
    Planted(
        "6.2",
        "wrong-end",
        note="known code, other order",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    reached = ranked_BV.softmax(-1).cumsum(-1)
    remove = reached <= 1 - top_p_B[:, None]
    return ranked_BV.masked_fill(remove, -math.inf)
""",
    ),
    Planted(
        "6.2",
        "wrong-end",
        note="from the tail",
        code="""
def keep_top_p(ranked_BV, top_p_B):
    flipped = ranked_BV.flip(-1)
    probs = flipped.softmax(-1)
    before = probs.cumsum(-1) - probs
    drop = (before >= top_p_B[:, None]) & (top_p_B[:, None] < 1)
    return flipped.masked_fill(drop, -math.inf).flip(-1)
""",
    ),
    Planted(
        "6.2",
        "one-for-all",
        old="(share_before_BV >= top_p_B[:, None]) & (top_p_B[:, None] < 1)",
        new="(share_before_BV >= top_p_B[0]) & (top_p_B[0] < 1)",
    ),
    Planted(
        "6.2",
        "not-minus-inf",
        old="ranked_BV.masked_fill(dropped_BV, -math.inf)",
        new="ranked_BV.masked_fill(dropped_BV, torch.finfo(torch.float32).min)",
    ),
    Planted("6.2", "in-place", old="ranked_BV.masked_fill(", new="ranked_BV.masked_fill_("),
    Planted(
        "6.2",
        "",
        note="probabilities given back",
        old="return ranked_BV.masked_fill(dropped_BV, -math.inf)",
        new="return ranked_BV.softmax(-1).masked_fill(dropped_BV, -math.inf)",
    ),
    Planted(
        "6.2",
        "",
        note="two too many",
        old="dropped_BV[:, 0] = False",
        new="dropped_BV = dropped_BV.roll(2, 1); dropped_BV[:, :2] = False",
    ),
]

MIN_P = [
    Planted(
        "6.3",
        "absolute",
        code="""
def keep_min_p(logits_BV, min_p_B):
    return logits_BV.masked_fill(logits_BV.softmax(-1) < min_p_B[:, None], -math.inf)
""",
    ),
    Planted("6.3", "strict", old="logits_BV < least_B1", new="logits_BV <= least_B1"),
    Planted(
        "6.3",
        "strict",
        note="in probabilities",
        code="""
def keep_min_p(logits_BV, min_p_B):
    probs = torch.softmax(logits_BV, dim=1)
    top = probs.max(dim=1, keepdim=True).values
    return torch.where(probs > top * min_p_B[:, None], logits_BV, -math.inf)
""",
    ),
    Planted(
        "6.3",
        "logits-scaled",
        old="logits_BV.amax(dim=1, keepdim=True) + min_p_B[:, None].log()",
        new="logits_BV.amax(dim=1, keepdim=True) * min_p_B[:, None]",
    ),
    Planted("6.3", "no-log", old="+ min_p_B[:, None].log()", new="- min_p_B[:, None]"),
    Planted("6.3", "no-log", note="above", old=" + min_p_B[:, None].log()", new=" + min_p_B[:, None]"),
    Planted(
        "6.3",
        "overflow",
        code="""
def keep_min_p(logits_BV, min_p_B):
    mass = logits_BV.exp()
    return torch.where(mass >= mass.amax(-1, keepdim=True) * min_p_B[:, None], logits_BV, -math.inf)
""",
    ),
    Planted("6.3", "first-is-best", old="logits_BV.amax(dim=1, keepdim=True)", new="logits_BV[:, :1]"),
    Planted("6.3", "best-of-all", old="logits_BV.amax(dim=1, keepdim=True)", new="logits_BV.max()"),
    Planted("6.3", "one-for-all", old="min_p_B[:, None].log()", new="min_p_B[0].log()"),
    Planted("6.3", "one-for-all", note="the largest", old="min_p_B[:, None].log()", new="min_p_B.max().log()"),
    Planted("6.3", "not-minus-inf", old="-math.inf", new="0.0"),
    Planted(
        "6.3",
        "in-place",
        old="return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)",
        new="logits_BV[logits_BV < least_B1] = -math.inf\n    return logits_BV",
    ),
    Planted("6.3", "", note="inverted", old="logits_BV < least_B1", new="logits_BV > least_B1"),
    Planted("6.3", "", note="base 2", old="min_p_B[:, None].log()", new="min_p_B[:, None].log2()"),
]

NOISE = [
    Planted(
        "6.4",
        "unseeded",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    return -torch.log(-torch.log(torch.rand(token_BK.shape).clamp(1e-9, 1 - 1e-7)))
""",
    ),
    Planted(
        "6.4",
        "shared-rng",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    generator = torch.Generator().manual_seed(int(seed_B[0]) + int(position_B[0]))
    u = torch.rand(token_BK.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(u))
""",
    ),
    Planted(
        "6.4",
        "shared-rng",
        note="global seed",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    torch.manual_seed(int(seed_B.sum() % 1000))
    u = torch.empty(token_BK.shape).uniform_(1e-9, 1 - 1e-7)
    return -(-u.log()).log()
""",
    ),
    Planted(
        "6.4",
        "row-number",
        old="key_B = mix64(mix64(seed_B) + position_B)",
        new="key_B = mix64(mix64(seed_B) + position_B + torch.arange(len(seed_B)))",
    ),
    Planted("6.4", "place-not-id", old="+ token_BK", new="+ torch.arange(token_BK.shape[1])"),
    Planted(
        "6.4",
        "place-not-id",
        note="a generator a row",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    rows = []
    for seed, position in zip(seed_B.tolist(), position_B.tolist()):
        generator = torch.Generator().manual_seed((seed * 1000003 + position) % 2**63)
        rows.append(torch.rand(token_BK.shape[1], generator=generator))
    u = torch.stack(rows).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(u))
""",
    ),
    Planted("6.4", "forgets-seed", old="mix64(seed_B)", new="mix64(torch.ones_like(seed_B))"),
    Planted(
        "6.4",
        "forgets-position",
        old="mix64(mix64(seed_B) + position_B)",
        new="mix64(seed_B)",
    ),
    Planted("6.4", "forgets-id", old="key_B[:, None] + token_BK", new="key_B[:, None] + token_BK * 0"),
    Planted(
        "6.4",
        "adds-up",
        old="mix64(mix64(seed_B) + position_B)",
        new="mix64(seed_B + position_B + 1)",
    ),
    Planted(
        "6.4",
        "adds-up",
        note="exclusive or",
        old="mix64(mix64(seed_B) + position_B)",
        new="mix64(seed_B ^ position_B)",
    ),
    Planted(
        "6.4",
        "adds-up",
        note="all three",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    bits = mix64((seed_B + position_B)[:, None] + token_BK + 1) & (2**63 - 1)
    u = (bits.float() / 2**63).clamp(2**-60, 1 - 2**-24)
    return -torch.log(-torch.log1p(-u))
""",
    ),
    Planted("6.4", "float-seed", old="(seed_B)", new="(seed_B.float().long())"),
    Planted("6.4", "float-seed", note="32 bits", old="(seed_B)", new="(seed_B.int().long())"),
    Planted(
        "6.4",
        "not-mixed",
        old="mix64(key_B[:, None] + token_BK)",
        new="((key_B[:, None] + token_BK) * 0x2545F4914F6CDD1D)",
    ),
    Planted("6.4", "uniform", old="return -torch.log(-torch.log1p(-u_BK))", new="return u_BK"),
    Planted("6.4", "one-log", old="-torch.log(-torch.log1p(-u_BK))", new="-torch.log1p(-u_BK)"),
    Planted("6.4", "mirrored", old="return -torch.log(", new="return torch.log("),
    Planted("6.4", "half-range", old="* LEAST_U)", new="* LEAST_U / 2)"),
    Planted(
        "6.4",
        "signed-bits",
        old="_shift_right(mix64(key_B[:, None] + token_BK), 1)",
        new="mix64(key_B[:, None] + token_BK)",
    ),
    Planted(
        "6.4",
        "signed-bits",
        note="without clamp",
        code="""
def gumbel_noise(seed_B, position_B, token_BK):
    key_B = mix64(mix64(seed_B) + position_B)
    u_BK = (mix64(key_B[:, None] + token_BK).double() / 2**63).float()
    return -torch.log(-torch.log1p(-u_BK))
""",
    ),
    Planted("6.4", "ends-of-u", old=".clamp(LEAST_U, GREATEST_U)", new=""),
    Planted(
        "6.4",
        "ends-of-u",
        note="a clamp that float32 does not see",
        old=".clamp(LEAST_U, GREATEST_U)",
        new=".clamp(1e-30, 1 - 1e-9)",
    ),
    Planted("6.4", "", note="no number", old="-torch.log1p(-u_BK)", new="torch.log1p(-u_BK)"),
    Planted(
        "6.4", "", note="normal", old="return -torch.log(-torch.log1p(-u_BK))", new="return torch.special.ndtri(u_BK)"
    ),
    Planted(
        "6.4",
        "",
        note="float64",
        old="return -torch.log(-torch.log1p(-u_BK))",
        new="return -torch.log(-torch.log1p(-u_BK.double()))",
    ),
]

SAMPLE = [
    Planted(
        "6.5",
        "rank-not-id",
        old="token_BK.masked_fill(beaten_BK, ENDLESS).amin(dim=1)",
        new="noisy_BK.argmax(dim=1)",
    ),
    Planted(
        "6.5", "not-float32", old="rank(logits_BV.float(), batch.candidates)", new="rank(logits_BV, batch.candidates)"
    ),
    Planted(
        "6.5",
        "greedy-by-noise",
        code="""
def sample(logits_BV, batch, position_B):
    if batch.all_greedy:
        return logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[1])
    temperature = torch.where(batch.temperature_B > 0, batch.temperature_B, torch.ones_like(batch.temperature_B))
    logits = with_temperature(logits, temperature)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    noisy = logits + gumbel_noise(batch.seed_B, position_B, ids)
    return ids.gather(1, noisy.argmax(-1, keepdim=True))[:, 0]
""",
    ),
    Planted(
        "6.5",
        "dead-argument",
        old="noisy_BK = logits_BK + gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="noisy_BK = logits_BK",
    ),
    Planted(
        "6.5",
        "dead-argument",
        note="always greedy",
        old="return torch.where(drawn_B, sampled_B, greedy_B)",
        new="return greedy_B",
    ),
    Planted(
        "6.5",
        "no-temperature",
        old=(
            "logits_BK, token_BK = rank(logits_BV.float(), batch.candidates)\n"
            "        logits_BK = with_temperature(logits_BK, batch.temperature_B)"
        ),
        new="logits_BK, token_BK = rank(logits_BV.float(), batch.candidates)",
        note="dropped where ranked",
    ),
    Planted(
        "6.5",
        "no-temperature",
        note="noise first",
        code="""
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[1])
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    logits = logits + gumbel_noise(batch.seed_B, position_B, ids)
    drawn = ids.gather(1, with_temperature(logits, batch.temperature_B).argmax(-1, keepdim=True))[:, 0]
    return torch.where((batch.temperature_B > 0) & logits_BV.amax(-1).isfinite(), drawn, greedy)
""",
    ),
    Planted(
        "6.5",
        "temperature-multiplied",
        code="""
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[1])
    logits = (logits - logits[:, :1]) * batch.temperature_B[:, None]
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    noisy = logits + gumbel_noise(batch.seed_B, position_B, ids)
    drawn = ids.gather(1, noisy.argmax(-1, keepdim=True))[:, 0]
    return torch.where((batch.temperature_B > 0) & logits_BV.amax(-1).isfinite(), drawn, greedy)
""",
    ),
    Planted(
        "6.5",
        "temperature-last",
        code="""
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    logits, ids = rank(logits_BV.float(), logits_BV.shape[1])
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    noisy = with_temperature(logits, batch.temperature_B) + gumbel_noise(batch.seed_B, position_B, ids)
    drawn = ids.gather(1, noisy.argmax(-1, keepdim=True))[:, 0]
    return torch.where((batch.temperature_B > 0) & logits_BV.amax(-1).isfinite(), drawn, greedy)
""",
    ),
    Planted(
        "6.5",
        "temperature-last",
        note="before min-p only",
        old=(
            "logits_BK, token_BK = rank(logits_BV.float(), batch.candidates)\n"
            "        logits_BK = with_temperature(logits_BK, batch.temperature_B)\n"
            "        logits_BK = keep_top_k(logits_BK, batch.top_k_B)\n"
            "        logits_BK = keep_top_p(logits_BK, batch.top_p_B)"
        ),
        new=(
            "logits_BK, token_BK = rank(logits_BV.float(), batch.candidates)\n"
            "        logits_BK = keep_top_k(logits_BK, batch.top_k_B)\n"
            "        logits_BK = keep_top_p(logits_BK, batch.top_p_B)\n"
            "        logits_BK = with_temperature(logits_BK, batch.temperature_B)"
        ),
    ),
    Planted(
        "6.5",
        "other-order",
        old=(
            "logits_BK = keep_top_k(logits_BK, batch.top_k_B)\n        logits_BK = keep_top_p(logits_BK, batch.top_p_B)"
        ),
        new=(
            "logits_BK = keep_top_p(logits_BK, batch.top_p_B)\n        logits_BK = keep_top_k(logits_BK, batch.top_k_B)"
        ),
    ),
    Planted(
        "6.5",
        "other-order",
        note="min-p first",
        old="logits_BK = with_temperature(logits_BK, batch.temperature_B)\n        logits_BK = keep_top_k",
        new=(
            "logits_BK = with_temperature(logits_BK, batch.temperature_B)\n"
            "        logits_BK = keep_min_p(logits_BK, batch.min_p_B)\n"
            "        logits_BK = keep_top_k"
        ),
    ),
    Planted(
        "6.5",
        "filter-forgotten",
        note="min-p",
        old="logits_BK = keep_min_p(logits_BK, batch.min_p_B)",
        new="keep_min_p(logits_BK, batch.min_p_B)",
    ),
    Planted(
        "6.5", "filter-forgotten", note="top-p", old="logits_BK = keep_top_p(logits_BK, batch.top_p_B)", new="pass"
    ),
    Planted("6.5", "nothing-ranked", old="if batch.candidates:", new="if True:"),
    Planted(
        "6.5",
        "all-greedy-if-one",
        old="if batch.all_greedy:",
        new="if (batch.temperature_B == 0).any():",
    ),
    Planted(
        "6.5",
        "noise-on-probabilities",
        old="noisy_BK = logits_BK + gumbel_noise(batch.seed_B, position_B, token_BK)",
        new=(
            "noisy_BK = (logits_BK.softmax(-1) + gumbel_noise(batch.seed_B, position_B, "
            "token_BK)).masked_fill(logits_BK == -math.inf, -math.inf)"
        ),
    ),
    Planted("6.5", "no-distribution", old=" & logits_BV.amax(dim=1).isfinite()", new=""),
    Planted(
        "6.5",
        "shared-rng",
        code="""
def sample(logits_BV, batch, position_B):
    greedy = logits_BV.argmax(-1)
    if batch.all_greedy:
        return greedy
    logits, ids = rank(logits_BV.float(), logits_BV.shape[1])
    logits = with_temperature(logits, batch.temperature_B)
    logits = keep_min_p(keep_top_p(keep_top_k(logits, batch.top_k_B), batch.top_p_B), batch.min_p_B)
    odd = ~logits_BV.amax(-1).isfinite()
    probs = logits.masked_fill(odd[:, None], 0).softmax(-1)
    generator = torch.Generator().manual_seed(int(batch.seed_B[0]))
    drawn = ids.gather(1, torch.multinomial(probs, 1, generator=generator))[:, 0]
    return torch.where((batch.temperature_B > 0) & ~odd, drawn, greedy)
""",
    ),
    Planted(
        "6.5",
        "shared-rng",
        note="the global generator",
        old="gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="-torch.log(-torch.log(torch.rand_like(logits_BK).clamp(1e-9, 1 - 1e-7)))",
    ),
    Planted(
        "6.5",
        "noise-by-rank",
        old="gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="gumbel_noise(batch.seed_B, position_B, torch.arange(token_BK.shape[1]).expand_as(token_BK))",
    ),
    Planted(
        "6.5",
        "seed-ignored",
        old="gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="gumbel_noise(torch.zeros_like(batch.seed_B), position_B, token_BK)",
    ),
    Planted(
        "6.5",
        "position-ignored",
        old="gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="gumbel_noise(batch.seed_B, torch.zeros_like(position_B), token_BK)",
        note="by shares",
    ),
    Planted(
        "6.5",
        "in-place",
        old="greedy_B = logits_BV.argmax(dim=1)",
        new=(
            "greedy_B = logits_BV.argmax(dim=1)\n"
            "    logits_BV -= logits_BV.amax(dim=1, keepdim=True).nan_to_num(0, 0, 0)"
        ),
    ),
    Planted(
        "6.5",
        "",
        note="smallest wins",
        old="beaten_BK = noisy_BK < noisy_BK.amax(dim=1, keepdim=True)",
        new="beaten_BK = noisy_BK > noisy_BK.amin(dim=1, keepdim=True)",
    ),
    Planted(
        "6.5",
        "",
        note="noise halved",
        old="+ gumbel_noise(batch.seed_B, position_B, token_BK)",
        new="+ 0.5 * gumbel_noise(batch.seed_B, position_B, token_BK)",
    ),
]

LOGPROBS = [
    Planted("6.6", "chosen-missing", old=" | {token: chosen}", new=""),
    Planted(
        "6.6",
        "one-more",
        old="topk(min(k, logits_BV.shape[1]), dim=1)",
        new="topk(min(k + 1, logits_BV.shape[1]), dim=1)",
    ),
    Planted(
        "6.6",
        "chosen-first",
        old="dict(zip(ids, top, strict=True)) | {token: chosen}",
        new="{token: chosen} | dict(zip(ids, top, strict=True))",
    ),
    Planted("6.6", "probabilities", old="log_softmax", new="softmax"),
    Planted("6.6", "raw-logits", old=".log_softmax(dim=1)", new=""),
    Planted(
        "6.6",
        "over-top-k",
        code="""
def top_logprobs(logits_BV, tokens_B, k):
    logits = logits_BV.float()
    values, ids = logits.topk(min(k, logits.shape[-1]))
    rows = []
    for row, token in enumerate(tokens_B.tolist()):
        norm = values[row].logsumexp(0) if k else logits[row].logsumexp(0)
        rows.append({int(i): float(v - norm) for i, v in zip(ids[row], values[row])})
        rows[-1].setdefault(token, float(logits[row, token] - norm))
    return rows
""",
    ),
    Planted(
        "6.6", "other-base", old="logits_BV.float().log_softmax(dim=1)", new="logits_BV.float().softmax(dim=1).log2()"
    ),
    Planted(
        "6.6",
        "other-base",
        note="10",
        old="logits_BV.float().log_softmax(dim=1)",
        new="logits_BV.float().softmax(dim=1).log10()",
    ),
    Planted("6.6", "k-beyond-row", old="min(k, logits_BV.shape[1])", new="k"),
    Planted("6.6", "half-precision", old="logits_BV.float().log_softmax", new="logits_BV.log_softmax"),
    Planted("6.6", "", note="least likely", old="dim=1)\n    chosen_B", new="dim=1, largest=False)\n    chosen_B"),
    Planted(
        "6.6",
        "",
        note="tensors for numbers",
        old="rows = zip(id_BK.tolist(), top_BK.tolist()",
        new="rows = zip(id_BK.tolist(), top_BK",
    ),
]

LENGTH = [
    Planted("6.7", "rounds-down", old="-(-n_tokens // step) * step", new="n_tokens // step * step"),
    Planted("6.7", "plus-one-step", old="-(-n_tokens // step) * step", new="(n_tokens // step + 1) * step"),
    Planted("6.7", "power-too-big", old="(n_tokens - 1).bit_length()", new="n_tokens.bit_length()"),
    Planted("6.7", "always-powers", old='if self.device.type == "cuda":', new="if True:"),
    Planted(
        "6.7",
        "always-powers",
        note="by loop",
        code="""
def prefill_length(self, n_tokens):
    length = self.prefill_block
    while length < n_tokens:
        length *= 2
    return length
""",
    ),
    Planted("6.7", "cpu-rule-on-gpu", old='if self.device.type == "cuda":', new="if False:"),
    Planted(
        "6.7",
        "only-blocks",
        code="""
def prefill_length(self, n_tokens):
    return math.ceil(n_tokens / self.prefill_block) * self.prefill_block
""".replace("math.ceil(n_tokens / self.prefill_block)", "-(-n_tokens // self.prefill_block)"),
    ),
    Planted("6.7", "not-a-block", old="step = max(power // 8, self.prefill_block)", new="step = max(power // 8, 1)"),
    Planted("6.7", "not-a-block", note="on a GPU", old="max(power, self.prefill_block)", new="power"),
    Planted("6.7", "wrong-steps", old="power // 8", new="power // 4"),
    Planted("6.7", "wrong-steps", note="eight", old="power // 8", new="power // 16"),
    Planted(
        "6.7", "", note="twice", old="return -(-n_tokens // step) * step", new="return -(-n_tokens // step) * step * 2"
    ),
    Planted(
        "6.7",
        "",
        note="a float",
        old="return -(-n_tokens // step) * step",
        new="return (n_tokens + step - 1) / step * step",
    ),
]

PACKED_MASK = [
    Planted(
        "6.8",
        "ignores-documents",
        old="first_L = start_L if window is None else torch.maximum(start_L, last_L - window + 1)",
        new="first_L = torch.zeros_like(start_L) if window is None else (last_L - window + 1).clamp(min=0)",
    ),
    Planted(
        "6.8",
        "ignores-window",
        old="first_L = start_L if window is None else torch.maximum(start_L, last_L - window + 1)",
        new="first_L = start_L",
    ),
    Planted("6.8", "window-plus-one", old="last_L - window + 1", new="last_L - window"),
    Planted("6.8", "window-only", old="torch.maximum(start_L, last_L - window + 1)", new="last_L - window + 1"),
    Planted(
        "6.8",
        "future",
        old="visible_blocks(first_L[None], last_L[None]",
        new="visible_blocks(first_L[None], torch.full_like(last_L, L - 1)[None]",
    ),
    Planted("6.8", "swapped", old="partial[:, None], full[:, None]", new="full[:, None], partial[:, None]"),
    Planted(
        "6.8",
        "full-for-partial",
        old="partial[:, None], full[:, None]",
        new="torch.zeros_like(partial)[:, None], (partial | full)[:, None]",
    ),
    Planted(
        "6.8",
        "lists-everything",
        old="partial[:, None], full[:, None]",
        new="torch.ones_like(partial)[:, None], torch.zeros_like(full)[:, None]",
    ),
    Planted(
        "6.8",
        "lists-everything",
        note="the lower triangle",
        old="partial[:, None], full[:, None]",
        new="torch.ones_like(partial).tril()[:, None], torch.zeros_like(full)[:, None]",
    ),
    Planted("6.8", "wrong-mod", old="self._prefill_mods[window]", new="self._prefill_mods[None]"),
    Planted(
        "6.8",
        "",
        note="queries and keys exchanged",
        old="partial[:, None], full[:, None]",
        new="partial.mT[:, None], full.mT[:, None]",
    ),
    Planted("6.8", "", note="block of one", old="L // block, (block, block))", new="L, (block, 1))"),
    Planted(
        "6.8",
        "",
        note="wrong width",
        old="L // block, (block, block))",
        new="L * block, (block, block))",
    ),
    Planted(
        "6.8",
        "",
        note="blocks as large as pages",
        old="L, block = len(start_L), self.prefill_block",
        new="L, block = len(start_L), self.page_table.page_size",
    ),
]

PREFILL = [
    Planted("6.9", "last-index", old="last_tokens.append(len(ids) - 1)", new="last_tokens.append(len(ids))"),
    Planted("6.9", "first-index", old="last_tokens.append(len(ids) - 1)", new="last_tokens.append(start)"),
    Planted(
        "6.9",
        "positions-run-on",
        old="positions += range(row.n_tokens)",
        new="positions += range(start, start + row.n_tokens)",
    ),
    Planted("6.9", "row-not-slot", old="[row.sequence.slot] * row.n_tokens", new="[document] * row.n_tokens"),
    Planted(
        "6.9",
        "row-not-slot",
        note="from 1",
        old="[row.sequence.slot] * row.n_tokens",
        new="[document + 1] * row.n_tokens",
    ),
    Planted("6.9", "padding-in-a-slot", old="[slots + [0] * padding]", new="[slots + slots[-1:] * padding]"),
    Planted("6.9", "padding-one-document", old="documents += range(L, L + padding)", new="documents += [-1] * padding"),
    Planted(
        "6.9",
        "padding-one-document",
        note="the last",
        old="documents += range(L, L + padding)",
        new="documents += documents[-1:] * padding",
    ),
    Planted("6.9", "stale-documents", old="self.documents[:L] = torch.tensor(documents)", new="pass"),
    Planted(
        "6.9",
        "stale-documents",
        note="another tensor",
        old="self.documents[:L] = torch.tensor(documents)",
        new="documents_L = torch.tensor(documents)",
    ),
    Planted("6.9", "prompt-only", old="ids += row.sequence.token_ids", new="ids += row.sequence.prompt_ids"),
    Planted(
        "6.9",
        "prompt-only",
        note="throughout",
        code="""
def prefill_sequences(self, rows):
    ids, slots, positions, documents, starts, last = [], [], [], [], [], []
    for i, row in enumerate(rows):
        prompt = row.sequence.prompt_ids
        starts.extend([len(ids)] * len(prompt))
        ids.extend(prompt)
        slots.extend([row.sequence.slot] * len(prompt))
        positions.extend(range(len(prompt)))
        documents.extend([i] * len(prompt))
        last.append(len(ids) - 1)
    n = len(ids)
    L = self.prefill_length(n)
    for i in range(n, L):
        ids.append(0)
        slots.append(0)
        positions.append(0)
        documents.append(1000 + i)
        starts.append(i)
    self.documents[:L] = torch.tensor(documents)
    start_L = torch.tensor(starts)
    masks = {w: self.get_prefill_block_mask(start_L, w) for w in self.windows}
    return self._forward(
        torch.tensor([ids]), torch.tensor([positions]), torch.tensor([slots]), masks, torch.tensor(last), None
    )[0]
""",
    ),
    Planted("6.9", "no-padding", old="L = self.prefill_length(n_tokens)", new="L = -(-n_tokens // 1)"),
    Planted(
        "6.9",
        "one-window",
        old="masks={window: self.get_prefill_block_mask(start_L, window) for window in self.windows}",
        new="masks=dict.fromkeys(self.windows, self.get_prefill_block_mask(start_L, None))",
    ),
    Planted(
        "6.9",
        "all-logits",
        old=(
            "logits_at=torch.tensor(last_tokens, device=self.device),\n"
            "            kernel_options=self._prefill_options,\n"
            "        )[0]"
        ),
        new="logits_at=0,\n            kernel_options=self._prefill_options,\n        )[0, last_tokens]",
    ),
    Planted(
        "6.9",
        "",
        note="starts all 0",
        old="start_L = torch.tensor(starts, device=self.device)",
        new="start_L = torch.tensor(starts, device=self.device).flip(0)",
    ),
    Planted(
        "6.9",
        "",
        note="tokens reversed",
        old="ids += row.sequence.token_ids",
        new="ids += row.sequence.token_ids[::-1]",
    ),
    Planted(
        "6.9",
        "stale-documents",
        note="the buffer exchanged",
        old="self.documents[:L] = torch.tensor(documents)",
        new="self.documents = torch.tensor(documents)",
    ),
]

DECODE_MASK = [
    Planted(
        "6.10",
        "position-is-not-length",
        old="last_B = position_B.where(batch_idx > 0, -1)",
        new="last_B = (position_B + 1).where(batch_idx > 0, -1)",
    ),
    Planted(
        "6.10",
        "position-is-not-length",
        note="first too",
        old="position_B = self.positions[: len(batch_idx)]",
        new="position_B = self.positions[: len(batch_idx)] + 1",
    ),
    Planted(
        "6.10",
        "forgets-itself",
        old="last_B = position_B.where(batch_idx > 0, -1)",
        new="last_B = (position_B - 1).where(batch_idx > 0, -1)",
    ),
    Planted(
        "6.10",
        "row-or-slot",
        old="position_B = self.positions[: len(batch_idx)]",
        new="position_B = self.positions[batch_idx]",
    ),
    Planted("6.10", "padding-reads", old="last_B = position_B.where(batch_idx > 0, -1)", new="last_B = position_B"),
    Planted(
        "6.10",
        "ignores-window",
        old="torch.zeros_like(last_B) if window is None else (position_B - window + 1).clamp(min=0)",
        new="torch.zeros_like(last_B)",
    ),
    Planted("6.10", "window-plus-one", old="(position_B - window + 1)", new="(position_B - window)"),
    Planted(
        "6.10",
        "full-for-partial",
        old="partial[:, None],\n            full[:, None],",
        new="torch.zeros_like(partial)[:, None],\n            (full | partial)[:, None],",
    ),
    Planted(
        "6.10",
        "all-partial",
        old="partial[:, None],\n            full[:, None],",
        new="(full | partial)[:, None],\n            torch.zeros_like(full)[:, None],",
    ),
    Planted(
        "6.10",
        "swapped",
        old="partial[:, None],\n            full[:, None],",
        new="full[:, None],\n            partial[:, None],",
    ),
    Planted(
        "6.10",
        "lists-everything",
        old="partial[:, None],\n            full[:, None],",
        new="torch.ones_like(partial)[:, None],\n            torch.zeros_like(full)[:, None],",
    ),
    Planted(
        "6.10",
        "lists-everything",
        note="the rest as partial",
        old="partial[:, None],\n            full[:, None],",
        new="(~full)[:, None],\n            full[:, None],",
    ),
    Planted("6.10", "wrong-mod", old="self._decode_mods[window]", new="self._decode_mods[None]"),
    Planted(
        "6.10",
        "",
        note="all rows",
        old="position_B = self.positions[: len(batch_idx)]",
        new="position_B = self.positions[:1].expand(len(batch_idx))",
    ),
    Planted(
        "6.10",
        "",
        note="wrong length",
        old="(1, table.pages_per_row * table.page_size),",
        new="(1, table.n_pages * table.page_size),",
    ),
]

DECODE = [
    Planted("6.11", "positions-never", old="self.positions[: B + padding] = input_pos", new="pass"),
    Planted(
        "6.11",
        "positions-never",
        note="another tensor",
        old="self.positions[: B + padding] = input_pos",
        new="positions = self.positions.clone(); positions[: B + padding] = input_pos",
    ),
    Planted(
        "6.11",
        "positions-too-late",
        old=(
            "self.positions[: B + padding] = input_pos\n"
            "        return self._decode_step(batch_idx, input_ids, input_pos)[:B]"
        ),
        new=(
            "logits = self._decode_step(batch_idx, input_ids, input_pos)[:B]\n"
            "        self.positions[: B + padding] = input_pos\n"
            "        return logits"
        ),
    ),
    Planted(
        "6.11",
        "positions-by-slot",
        old="self.positions[: B + padding] = input_pos",
        new="self.positions[batch_idx.clamp(max=len(self.positions) - 1)] = input_pos",
    ),
    Planted(
        "6.11",
        "row-not-slot",
        old="return self._decode_step(batch_idx,",
        new="return self._decode_step(torch.arange(len(batch_idx)),",
    ),
    Planted(
        "6.11",
        "row-not-slot",
        note="from 1",
        old="return self._decode_step(batch_idx,",
        new="return self._decode_step(torch.arange(len(batch_idx)) + 1,",
    ),
    Planted(
        "6.11",
        "position-plus-one",
        old="B = len(batch_idx)",
        new="B = len(batch_idx)\n        input_pos = input_pos + 1",
    ),
    Planted(
        "6.11",
        "order-lost",
        old="B = len(batch_idx)",
        new=(
            "B = len(batch_idx)\n"
            "        order = batch_idx.argsort()\n"
            "        batch_idx, input_ids, input_pos = batch_idx[order], input_ids[order], input_pos[order]"
        ),
    ),
    Planted("6.11", "no-padding", old='if self.device.type == "cuda" else 0', new="if False else 0"),
    Planted(
        "6.11",
        "beyond-max",
        old="min(1 << (B - 1).bit_length(), self.max_batch_size) - B",
        new="(1 << (B - 1).bit_length()) - B",
    ),
    Planted("6.11", "power-too-big", old="(B - 1).bit_length()", new="B.bit_length()"),
    Planted(
        "6.11",
        "always-max",
        old="min(1 << (B - 1).bit_length(), self.max_batch_size) - B",
        new="self.max_batch_size - B",
    ),
    Planted(
        "6.11",
        "padding-in-a-slot",
        old="torch.nn.functional.pad(rows, (0, padding)) for rows",
        new="torch.cat([rows, rows[-1:].expand(padding)]) for rows",
    ),
    Planted("6.11", "padding-returned", old="input_pos)[:B]", new="input_pos)"),
    Planted(
        "6.11",
        "",
        note="tokens of others",
        old="return self._decode_step(batch_idx, input_ids,",
        new="return self._decode_step(batch_idx, input_ids.flip(0) * 0 + 3,",
    ),
    Planted("6.11", "", note="probabilities", old="input_pos)[:B]", new="input_pos)[:B].softmax(-1)"),
]

STEP_BY_HAND = """
def _run_rows(self, rows):
    if rows[0].start == 0:
        logits = self.prefill_sequences(rows)
    else:
        logits = self.decode_step(
            torch.tensor([row.sequence.slot for row in rows]),
            torch.tensor([row.sequence.output_ids[-1] for row in rows]),
            torch.tensor([row.start for row in rows]),
        )
"""

STEP = [
    Planted(
        "6.12",
        "one-more",
        code="""
def _run_rows(self, rows):
    if rows[0].start == 0:
        logits = self.prefill_sequences(rows)
        for row, token in zip(rows, self._next_tokens(rows, logits)):
            row.sequence.output_ids.append(token)
            self.page_table.reserve(row.sequence.slot, len(row.sequence))
        rows = [Row(row.sequence, len(row.sequence) - 1, 1) for row in rows]
    logits = self.decode_step(
        torch.tensor([row.sequence.slot for row in rows]),
        torch.tensor([row.sequence.output_ids[-1] for row in rows]),
        torch.tensor([row.start for row in rows]),
    )
    for row, token in zip(rows, self._next_tokens(rows, logits)):
        self._accept(row.sequence, token)
""",
    ),
    Planted(
        "6.12",
        "one-more",
        note="the first token is not counted",
        code=STEP_BY_HAND
        + """
    for row, token in zip(rows, self._next_tokens(rows, logits)):
        if row.start == 0 and token is not None:
            row.sequence.output_ids.append(token)
            self._events.append(TokenEvent(row.sequence.request_id, -1, token, ""))
        else:
            self._accept(row.sequence, token)
""",
    ),
    Planted(
        "6.12",
        "no-first-token",
        code="""
def _run_rows(self, rows):
    if rows[0].start == 0:
        self.prefill_sequences(rows)
        return
    logits = self.decode_step(
        torch.tensor([row.sequence.slot for row in rows]),
        torch.tensor([row.sequence.token_ids[-1] for row in rows]),
        torch.tensor([row.start for row in rows]),
    )
    for row, token in zip(rows, self._next_tokens(rows, logits)):
        self._accept(row.sequence, token)
""",
    ),
    Planted("6.12", "one-token-prompt", old="if rows[0].start == 0:", new="if rows[0].n_tokens > 1:"),
    Planted("6.12", "resumed-as-decode", old="if rows[0].start == 0:", new="if not rows[0].sequence.output_ids:"),
    Planted(
        "6.12",
        "position-off",
        old="torch.tensor([row.start for row in rows]",
        new="torch.tensor([len(row.sequence) for row in rows]",
    ),
    Planted(
        "6.12",
        "position-off",
        note="before",
        old="torch.tensor([row.start for row in rows]",
        new="torch.tensor([row.start - 1 for row in rows]",
    ),
    Planted(
        "6.12",
        "row-not-slot",
        old="torch.tensor([row.sequence.slot for row in rows]",
        new="torch.tensor([i for i, row in enumerate(rows)]",
    ),
    Planted(
        "6.12",
        "row-not-slot",
        note="from 1",
        old="torch.tensor([row.sequence.slot for row in rows]",
        new="torch.tensor([i + 1 for i, row in enumerate(rows)]",
    ),
    Planted("6.12", "feeds-the-prompt", old="row.sequence.output_ids[-1]", new="row.sequence.prompt_ids[-1]"),
    Planted(
        "6.12",
        "feeds-the-prompt",
        note="the one before",
        old="row.sequence.output_ids[-1]",
        new="row.sequence.token_ids[row.start - 1]",
    ),
    Planted("6.12", "dead-argument", old="self._next_tokens(rows, logits_BV)", new="logits_BV.argmax(-1).tolist()"),
    Planted(
        "6.12",
        "dead-argument",
        note="new parameters",
        code=STEP_BY_HAND
        + """
    batch = SamplingBatch.of([SamplingParams() for _ in rows], [row.sequence.seed for row in rows])
    tokens = sample(logits, batch, torch.tensor([len(row.sequence) for row in rows]))
    for row, token in zip(rows, tokens.tolist()):
        self._accept(row.sequence, token)
""",
    ),
    Planted(
        "6.12",
        "none-skipped",
        old="self._accept(row.sequence, token)",
        new="token is None or self._accept(row.sequence, token)",
    ),
    Planted(
        "6.12",
        "nan-accepted",
        code=STEP_BY_HAND
        + """
    batch = SamplingBatch.of([row.sequence.params for row in rows], [row.sequence.seed for row in rows])
    tokens = sample(logits, batch, torch.tensor([len(row.sequence) for row in rows]))
    for row, token in zip(rows, tokens.tolist()):
        self._accept(row.sequence, token)
""",
    ),
    Planted(
        "6.12",
        "shared-rng",
        code=STEP_BY_HAND
        + """
    for row, scores in zip(rows, logits):
        temperature = row.sequence.params.temperature
        if temperature == 0:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial((scores / temperature).softmax(-1), 1))
        self._accept(row.sequence, token if scores.isfinite().all() else None)
""",
    ),
    Planted(
        "6.12",
        "token-by-token-text",
        code=STEP_BY_HAND
        + """
    for row, token in zip(rows, self._next_tokens(rows, logits)):
        sequence = row.sequence
        if token is None or self.tokenizer is None:
            self._accept(sequence, token)
            continue
        sequence.output_ids.append(token)
        text, reason = self.tokenizer.decode([token]), sequence.check_done()
        if reason is None:
            self._events.append(TokenEvent(sequence.request_id, -1, token, text))
        else:
            self._end(sequence, reason, token=token, text=text)
""",
    ),
    Planted(
        "6.12",
        "",
        note="tokens to the wrong rows",
        old="for row, token in zip(rows, self._next_tokens(rows, logits_BV), strict=True)",
        new="for row, token in zip(rows[::-1], self._next_tokens(rows, logits_BV), strict=True)",
    ),
    Planted(
        "6.12",
        "",
        note="first row only",
        old="for row, token in zip(rows, self._next_tokens(rows, logits_BV), strict=True)",
        new="for row, token in zip(rows[:1], self._next_tokens(rows, logits_BV))",
    ),
]

MISTAKES = [
    *TOP_K,
    *TOP_P,
    *MIN_P,
    *NOISE,
    *SAMPLE,
    *LOGPROBS,
    *LENGTH,
    *PACKED_MASK,
    *PREFILL,
    *DECODE_MASK,
    *DECODE,
    *STEP,
]
