# Your copy of solutions/flexnano/sampling.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 2265c705f4bb4646
"""Module 06: sampling.  From a row of logits to one token, the same token whoever shares the batch.

    logits ─ rank ─ temperature ─ top-k ─ top-p ─ min-p ─ + noise ─ argmax ─ token
       └───────────────────────── argmax ──────────────────────────────┘  (rows with temperature 0)

The noise is not drawn from a generator, whose state would depend on who was served before.  It is computed from the
request's seed, the token's position and the token's id, so that neither the batch, its order, its padding nor a preemption
changes a token.

Letters: B rows of the batch, V vocabulary, K candidates of a row (K ≤ V).

Sources: Gumbel, "Statistical Theory of Extreme Values", 1954, for adding noise and taking the largest; Salmon et al.,
"Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, for random numbers that are a function of a counter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .sampling_params import SamplingParams

ENDLESS = 2**31 - 1
"""A top-k, and a token id, that no vocabulary reaches."""

FIXED_POINT = 2**40
"""What stands for the probability of the most likely token when probabilities are added as integers."""

LEAST_U, GREATEST_U = 2**-63, 1 - 2**-24
"""Next to 0 and 1 in float32; at 0 and 1 themselves Gumbel noise is infinite."""


@dataclass(frozen=True)
class SamplingBatch:
    """The sampling parameters of the rows of one step, as tensors that `sample` reads.

    `candidates` says how many of the most likely tokens `sample` has to bring into order: 0 if no row asks for an order,
    the largest `top_k` if all rows that sample have one, else all.
    """

    temperature_B: Tensor  # float32; 0: greedy
    top_k_B: Tensor  # int64; 0: off
    top_p_B: Tensor  # float32
    min_p_B: Tensor  # float32
    seed_B: Tensor  # int64
    all_greedy: bool
    candidates: int

    @staticmethod
    def of(params: Sequence[SamplingParams], seeds: Sequence[int], device: torch.device | str = "cpu") -> SamplingBatch:
        """Collect `params`, one a row.  `seeds` holds the seed to use for each row: the request's own or the engine's."""
        sampled = [p for p in params if not p.greedy]
        ranked = any(p.top_k or p.top_p < 1 for p in sampled)
        limited = all(p.top_k for p in sampled)
        most = torch.finfo(torch.float32).max
        return SamplingBatch(
            temperature_B=torch.tensor([min(p.temperature, most) for p in params], dtype=torch.float32, device=device),
            top_k_B=torch.tensor([min(p.top_k, ENDLESS) for p in params], dtype=torch.int64, device=device),
            top_p_B=torch.tensor([p.top_p for p in params], dtype=torch.float32, device=device),
            min_p_B=torch.tensor([p.min_p for p in params], dtype=torch.float32, device=device),
            seed_B=torch.tensor(list(seeds), dtype=torch.int64, device=device),
            all_greedy=not sampled,
            candidates=0 if not ranked else max(p.top_k for p in sampled) if limited else ENDLESS,
        )


def sample(logits_BV: Tensor, batch: SamplingBatch, position_B: Tensor) -> Tensor:
    """Choose one token a row.  [6.5 · ★★☆ · 20 min]

    A row with temperature 0 gets its most likely token, as if it were alone.  The others get a random one with the
    probabilities that are left after temperature, top-k, top-p and min-p, in this order.  Adding Gumbel noise to
    log-probabilities and taking the largest draws from exactly that distribution, and a constant in a row changes nothing,
    so logits do as well.

    Args:
        logits_BV: as the model gave them, any float dtype; not changed.
        batch: the rows' parameters.  If `batch.all_greedy`, nothing but the largest logit is looked for.
        position_B: int64, the place of the new token in its sequence; with the seed it decides the noise.

    Returns:
        int64 token ids, one a row.  Nothing here waits for the device.

    A row that holds NaN or plus infinity, or nothing but minus infinity, has no distribution.  It gets its argmax, which
    prefers NaN: whoever wants to know looks at the logit of the chosen token.

    >>> batch = SamplingBatch.of([SamplingParams(), SamplingParams(temperature=1, top_k=2)], seeds=[0, 7])
    >>> greedy, random = sample(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0]]), batch, torch.tensor([4, 4])).tolist()
    >>> greedy, random in (0, 2)
    (1, True)
    """
    raise NotImplementedError("Exercise 6.5: sample")


def rank(logits_BV: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The `n` most likely tokens of each row, most likely first; among equal logits the lower id first.

    Sorting floats leaves equal logits, which bfloat16 makes common, in an order that depends on `n`, the batch and the
    device.  So an int64 is sorted that holds the logit's rank in the upper and the id in the lower half: no two are equal.

    Returns:
        float32 logits and int64 token ids, both [B, min(n, V)].

    >>> rank(torch.tensor([[1.0, 5.0, -2.0, 5.0]]), 3)
    (tensor([[5., 5., 1.]]), tensor([[1, 3, 0]]))
    """
    vocab_size = logits_BV.shape[-1]
    bits_BV = (logits_BV + 0.0).view(torch.int32).long()  # + 0.0 turns -0.0 into 0.0
    ordered_BV = bits_BV ^ ((bits_BV >> 31) & 0x7FFFFFFF)  # the bits of negative floats count backwards
    key_BV = (ordered_BV << 32) | (vocab_size - 1 - torch.arange(vocab_size, device=logits_BV.device))
    all_of_them = n >= vocab_size
    key_BK = key_BV.sort(dim=-1, descending=True).values if all_of_them else key_BV.topk(n, dim=-1).values
    token_BK = vocab_size - 1 - (key_BK & 0xFFFFFFFF)
    return logits_BV.gather(-1, token_BK), token_BK


def with_temperature(logits_BV: Tensor, temperature_B: Tensor) -> Tensor:
    """Divide each row by its temperature; the largest logit becomes 0, so that no temperature overflows.

    Rows with temperature 0 are divided by the smallest normal float; what becomes of them is not used.

    >>> with_temperature(torch.tensor([[3.0, 1.0]]), torch.tensor([0.5])).tolist()
    [[0.0, -4.0]]
    """
    below_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)
    return below_BV / temperature_B[:, None].clamp_min(torch.finfo(torch.float32).tiny)


def keep_top_k(ranked_BV: Tensor, top_k_B: Tensor) -> Tensor:
    """Keep the k most likely tokens of each row.  [6.1 · ★☆☆ · 5 min]

    Args:
        ranked_BV: float32 logits, each row in order, most likely first; not changed.
        top_k_B: int64, at least 0, one a row.  0 keeps all, and so does a number above V.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_top_k(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 0])).tolist()
    [[3.0, -inf, -inf], [3.0, 2.0, 1.0]]

    Source: Fan et al., "Hierarchical Neural Story Generation", 2018, §5.4.
    """
    raise NotImplementedError("Exercise 6.1: keep_top_k")


def keep_top_p(ranked_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Keep the fewest most likely tokens of each row whose probabilities add up to at least p.  [6.2 · ★★☆ · 15 min]

    The token that reaches p is kept, so at least one always is.

    Args:
        ranked_BV: float32 logits, each row in order, most likely first; -inf where dropped before; not changed.
        top_p_B: float32 in (0, 1], one a row.  1 keeps all, also where rounding lets the sum reach 1 early.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_top_p(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), torch.tensor([0.6])).exp()
    tensor([[0.5000, 0.3000, 0.0000, 0.0000]])

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, §3.1.
    """
    raise NotImplementedError("Exercise 6.2: keep_top_p")


def keep_min_p(logits_BV: Tensor, min_p_B: Tensor) -> Tensor:
    """Keep the tokens that are at least `min_p` times as likely as the most likely one of their row.  [6.3 · ★☆☆ · 10 min]

    Args:
        logits_BV: float32 logits in any order; -inf where dropped before; not changed.
        min_p_B: float32 in [0, 1], one a row.  0 keeps all; 1 keeps the most likely token and its equals.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_min_p(torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([0.5])).exp()
    tensor([[0.0000, 0.5000, 0.3000]])

    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", 2024.
    """
    raise NotImplementedError("Exercise 6.3: keep_min_p")


def gumbel_noise(seed_B: Tensor, position_B: Tensor, token_BK: Tensor) -> Tensor:
    """Gumbel noise for each row and token, a pure function of seed, position and token id.  [6.4 · ★★★ · 25 min]

    Mixing the seed, then the position, then the id with `mix64` gives 64 bits that look random and depend on nothing else.
    Read as u between 0 and 1, they become Gumbel noise as −log(−log(1 − u)).

    Args:
        seed_B: int64, one a row.
        position_B: int64, one a row.
        token_BK: int64 ids of the tokens that need noise, in any order, all or some of the vocabulary.

    Returns:
        float32 [B, K], finite, also where `mix64` gives 0 or nothing but ones.  Same seed, position and id give the same
        bits in any batch, at any place and on any device; only the last digit of the logarithms may differ between a CPU
        and a GPU.

    >>> seed_B, position_B, token_BK = torch.tensor([7, 8]), torch.tensor([30, 30]), torch.tensor([[0, 1, 2], [2, 1, 0]])
    >>> both = gumbel_noise(seed_B, position_B, token_BK)
    >>> alone = gumbel_noise(seed_B[1:], position_B[1:], token_BK[1:, :2])
    >>> torch.equal(alone, both[1:, :2])
    True

    Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    raise NotImplementedError("Exercise 6.4: gumbel_noise")


def mix64(x: Tensor) -> Tensor:
    """Shuffle the bits of int64 numbers so that each bit of the input changes about half of the output's.

    Distinct numbers stay distinct.  Multiplication wraps around at 2⁶⁴, on CPU and GPU alike.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, with Stafford's constants.
    """
    x = (x ^ _shift_right(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift_right(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, n: int) -> Tensor:
    return (x >> n) & ((1 << (64 - n)) - 1)  # `>>` alone would fill up with the sign


def top_logprobs(logits_BV: Tensor, tokens_B: Tensor, k: int) -> list[dict[int, float]]:
    """The log-probabilities of the `k` most likely tokens of each row and of the chosen one.  [6.6 · ★☆☆ · 10 min]

    Args:
        logits_BV: as the model gave them, before temperature and filters; any float dtype.
        tokens_B: int64, the chosen tokens.
        k: 0 or more; above V it means V, the whole distribution.

    Returns:
        One dict a row, token id -> natural logarithm of its probability, most likely first.  It has k entries, or k + 1 if
        the chosen token is not among the k most likely.

    >>> top_logprobs(torch.zeros(1, 4), torch.tensor([3]), k=0)
    [{3: -1.3862943649291992}]
    """
    raise NotImplementedError("Exercise 6.6: top_logprobs")
