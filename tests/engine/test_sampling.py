"""Module 06, sampling: parameters, filters, keyed noise, and that nothing but seed and position decides a token."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexnano.sampling import (
    SamplingBatch,
    SamplingParams,
    gumbel_noise,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    rank,
    sample,
    top_logprobs,
    with_temperature,
)

INF = math.inf


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def kept(logits_BV: Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits_BV]


def one(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([value], dtype=dtype)


def draw(logits_V: Tensor, n: int, *, seed: int = 3, **params: float) -> Tensor:
    """`n` tokens at n positions of one seed."""
    batch = SamplingBatch.of([SamplingParams(**params)] * n, [seed] * n, "cpu")
    return sample(logits_V.expand(n, -1), batch, torch.arange(n))


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """Distance of counts from what the probabilities expect, in standard deviations of the chi-square distribution."""
    expected = probabilities.double() * counts.sum()
    n = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - n) / math.sqrt(2 * n))


# -- parameters


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"temperature": -0.1}, "at least 0"),
        ({"temperature": math.nan}, "finite"),
        ({"temperature": INF}, "finite"),
        ({"top_p": 0}, "above 0 and at most 1"),
        ({"top_p": 1.01}, "above 0 and at most 1"),
        ({"top_p": math.nan}, "above 0 and at most 1"),
        ({"min_p": -0.1}, "from 0 to 1"),
        ({"min_p": 1.5}, "from 0 to 1"),
        ({"min_p": math.nan}, "from 0 to 1"),
        ({"top_k": -1}, "use 0 to switch it off"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"seed": -1}, "from 0 to 9223372036854775807"),
        ({"seed": 2**63}, "from 0 to 9223372036854775807"),
        ({"stop": ""}, "leave it out"),
        ({"stop": ["a", ""]}, "leave it out"),
        ({"stop": [-1]}, "at least 0"),
        ({"logprobs": -1}, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(values: dict, allowed: str) -> None:
    with pytest.raises(ValueError) as error:
        SamplingParams(**values)
    assert next(iter(values)) in str(error.value) and allowed in str(error.value), (
        "the message must name the value and what is allowed"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": "1"},
        {"temperature": True},
        {"temperature": None},
        {"top_p": "0.5"},
        {"top_p": True},
        {"min_p": False},
        {"top_k": 64.0},
        {"top_k": True},
        {"max_new_tokens": 64.0},
        {"max_new_tokens": True},
        {"max_new_tokens": None},
        {"seed": 1.0},
        {"seed": False},
        {"stop": 5},
        {"stop": None},
        {"stop": b"stop"},
        {"stop": [1.0]},
        {"stop": [True]},
        {"stop": {"a"}},
        {"stop": [["a"]]},
        {"ignore_eos": 1},
        {"logprobs": True},
        {"logprobs": 2.0},
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(values: dict) -> None:
    with pytest.raises(TypeError, match=next(iter(values))):
        SamplingParams(**values)


def test_defaults_are_greedy_and_64_tokens() -> None:
    params = SamplingParams()
    assert params.greedy and params.max_new_tokens == 64 and params.stop == () and params.seed is None


def test_stop_is_split_into_strings_and_token_ids() -> None:
    params = SamplingParams(stop=["\n\n", np.int64(7), "END", 0])
    assert params.stop_strings == ("\n\n", "END")
    assert params.stop_token_ids == frozenset({0, 7})
    assert SamplingParams(stop="ab").stop_strings == ("ab",), "one string is one stop string, not its letters"


def test_numbers_of_numpy_and_whole_temperatures_are_taken() -> None:
    params = SamplingParams(
        max_new_tokens=np.int64(3), temperature=1, top_k=np.int32(5), top_p=np.float32(0.5), seed=2**63 - 1
    )
    assert (params.max_new_tokens, params.temperature, params.top_k, params.top_p) == (3, 1.0, 5, 0.5)
    assert {params: 1}[dataclasses.replace(params)] == 1, "parameters can be compared and hashed"


def test_parameters_cannot_be_changed_under_a_running_request() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0  # type: ignore[misc]


# -- filters


def test_top_p_keeps_the_token_that_reaches_p() -> None:
    ranked = logits_of(0.5, 0.3, 0.15, 0.05)
    assert kept(keep_top_p(ranked, one(0.6))) == [[0, 1]], (
        "0.5 alone is short of 0.6: the token that reaches it belongs in"
    )
    assert kept(keep_top_p(ranked, one(0.49))) == [[0]]
    assert kept(keep_top_p(ranked, one(0.9))) == [[0, 1, 2]]


@pytest.mark.parametrize("p", [1e-9, 1e-50, 0.1])
def test_top_p_always_keeps_the_most_likely_token(p: float) -> None:
    assert kept(keep_top_p(logits_of(0.5, 0.3, 0.2), one(p))) == [[0]]


def test_top_p_of_one_keeps_what_rounding_would_lose() -> None:
    ranked = torch.cat([torch.zeros(1, 1), torch.full((1, 50_000), -80.0)], dim=1)
    assert len(kept(keep_top_p(ranked, one(1.0)))[0]) == 50_001


def test_top_p_among_equals_keeps_no_more_than_needed() -> None:
    assert kept(keep_top_p(torch.zeros(1, 8), one(0.5))) == [[0, 1, 2, 3]]


def test_top_p_counts_only_the_mass_that_top_k_left() -> None:
    left = keep_top_k(logits_of(0.4, 0.3, 0.2, 0.1), one(2, torch.int64))  # 4/7 and 3/7
    assert kept(keep_top_p(left, one(0.5))) == [[0]]
    assert kept(keep_top_p(left, one(0.6))) == [[0, 1]]


@pytest.mark.parametrize(("k", "n"), [(0, 4), (1, 1), (3, 3), (4, 4), (99, 4)])
def test_top_k_keeps_k_tokens_and_zero_keeps_all(k: int, n: int) -> None:
    assert len(kept(keep_top_k(torch.zeros(1, 4), one(k, torch.int64)))[0]) == n


@pytest.mark.parametrize(("p", "expected"), [(0.0, [0, 1, 2, 3]), (0.5, [1, 2]), (0.39, [0, 1, 2]), (1.0, [1])])
def test_min_p_is_a_share_of_the_most_likely(p: float, expected: list[int]) -> None:
    assert kept(keep_min_p(logits_of(0.2, 0.48, 0.3, 0.02), one(p))) == [expected]


def test_filters_read_each_row_for_itself_and_change_nothing_in_place() -> None:
    ranked = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    before = ranked.clone()
    assert kept(keep_top_k(ranked, torch.tensor([1, 2]))) == [[0], [0, 1]]
    assert kept(keep_top_p(ranked, torch.tensor([0.1, 1.0]))) == [[0], [0, 1, 2]]
    assert kept(keep_min_p(ranked, torch.tensor([1.0, 0.0]))) == [[0], [0, 1, 2]]
    assert torch.equal(ranked, before), "the logits are still needed for log-probabilities"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_top_p_is_the_smallest_set_that_reaches_p(values: list[float], p: float) -> None:
    ranked = torch.tensor([sorted(values, reverse=True)])
    n = len(kept(keep_top_p(ranked, one(p)))[0])
    mass = ranked.double().softmax(-1)[0].cumsum(0)
    assert mass[n - 1] >= p - 1e-5, "the kept tokens must reach p"
    assert n == 1 or p == 1 or mass[n - 2] < p + 1e-5, "without its last token the set must be short of p"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([-INF, -3.5, -(2.0**-100), -0.0, 0.0, 2.0**-100, 2.0, 7.25]), min_size=1, max_size=20),
    st.integers(1, 25),
)
def test_ranking_orders_by_logit_then_by_id(values: list[float], n: int) -> None:
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:n]
    logits, ids = rank(torch.tensor([values]), n)
    assert ids[0].tolist() == expected
    assert logits[0].tolist() == [values[i] for i in expected]


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-38, 1e-6, 1.0, 3e38])
def test_no_temperature_makes_nan(temperature: float) -> None:
    scaled = with_temperature(torch.tensor([[1e4, -1e4, 1e4 - 1, -INF]]), one(temperature))
    assert not scaled.isnan().any() and scaled[0, 0] == 0


# -- noise


def test_noise_depends_on_nothing_but_seed_position_and_id() -> None:
    torch.manual_seed(0)
    seeds, positions = torch.randint(2**62, (37,)), torch.randint(10_000, (37,))
    ids = torch.stack([torch.randperm(1009) for _ in range(37)])
    noise = gumbel_noise(seeds, positions, ids)
    for row in (0, 1, 17, 36):
        alone = gumbel_noise(seeds[row : row + 1], positions[row : row + 1], torch.arange(1009)[None])
        assert torch.equal(noise[row], alone[0, ids[row]]), "other rows or the order of the ids changed a row's noise"
    for width in (1, 2, 3, 7, 8, 15, 33):
        assert torch.equal(gumbel_noise(seeds, positions, ids[:, :width]), noise[:, :width]), (
            "the width changed the noise"
        )


def test_the_noise_is_the_published_function_in_exact_arithmetic() -> None:
    """The same in Python's unbounded integers and doubles, so that no machine's overflow or shift decides it."""

    def mix(x: int) -> int:
        x %= 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    def gumbel(seed: int, position: int, token: int) -> float:
        u = (mix(mix(mix(seed) + position) + token) >> 1) / 2**63
        return -math.log(-math.log1p(-u))

    for seed, position in ((0, 1), (7, 30), (2**63 - 1, 131_071)):
        noise = gumbel_noise(torch.tensor([seed]), torch.tensor([position]), torch.tensor([[0, 1, 49_151]]))
        assert noise[0].tolist() == pytest.approx([gumbel(seed, position, token) for token in (0, 1, 49_151)], rel=1e-4)


@pytest.mark.parametrize("walk", ["seed", "position", "id"])
def test_neighbours_are_uniform_and_independent(walk: str) -> None:
    n = 1 << 16
    count, fixed = torch.arange(n), torch.full((n,), 5)
    noise = {
        "seed": lambda: gumbel_noise(count, fixed, fixed[:, None])[:, 0],
        "position": lambda: gumbel_noise(fixed, count, fixed[:, None])[:, 0],
        "id": lambda: gumbel_noise(fixed[:1], fixed[:1], count[None])[0],
    }[walk]()
    u = (-(-noise.double()).exp()).exp()  # back to uniform, by Gumbel's distribution function
    bins = torch.bincount((u * 256).long().clamp_max(255), minlength=256)
    assert abs(chi_square(bins, torch.full((256,), 1 / 256))) < 5, f"noise along the {walk} is not uniform"
    for step in (1, 2, 64, 256):
        pairs = (u[:-step] * 16).long().clamp_max(15) * 16 + (u[step:] * 16).long().clamp_max(15)
        distance = chi_square(torch.bincount(pairs, minlength=256), torch.full((256,), 1 / 256))
        assert abs(distance) < 5, f"{walk} and {walk} + {step} give related noise"


def test_seed_position_and_id_are_not_interchangeable() -> None:
    def noise(seed: int, position: int, token: int) -> float:
        return gumbel_noise(torch.tensor([seed]), torch.tensor([position]), torch.tensor([[token]])).item()

    cells = [(s, p, t) for s in range(12) for p in range(12) for t in range(12)]
    assert len({noise(*cell) for cell in cells}) == len(cells), "two different cells share their noise"


@pytest.mark.parametrize("bits", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_noise_is_finite_for_the_rarest_bits(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to 0 or 1, they would make infinite noise: a token that is always drawn, or never."""
    monkeypatch.setattr("flexnano.sampling.mix64", lambda x: torch.full_like(x, bits))
    zero = torch.tensor([0])
    assert gumbel_noise(zero, zero, zero[None]).isfinite().all()


# -- sampling


@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 12}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 12, "top_p": 0.9, "min_p": 0.05}]
)
def test_drawn_tokens_follow_the_filtered_distribution(filters: dict) -> None:
    torch.manual_seed(1)
    logits = torch.randn(16) * 1.5
    p = (logits.double() / 0.8).softmax(-1)
    order = p.argsort(descending=True)
    if "top_k" in filters:
        p[order[filters["top_k"] :]] = 0
    if "top_p" in filters:
        mass = (p / p.sum())[order].cumsum(0)
        p[order[1:][mass[:-1] >= filters["top_p"]]] = 0
    if "min_p" in filters:
        p[p < filters["min_p"] * p.max()] = 0
    p /= p.sum()

    counts = torch.bincount(draw(logits, 40_000, temperature=0.8, **filters), minlength=16)
    assert counts[p == 0].sum() == 0, "a token that a filter drops was drawn"
    assert (counts[p > 0] > 0).all(), "a token that the filters keep was never drawn"
    assert chi_square(counts[p > 0], p[p > 0]) < 5, "the drawn tokens do not follow the distribution"


def test_different_seeds_and_positions_give_different_tokens() -> None:
    logits = torch.zeros(1000)
    by_position = draw(logits, 50, temperature=1)
    batch = SamplingBatch.of([SamplingParams(temperature=1)] * 50, range(50), "cpu")
    by_seed = sample(logits.expand(50, -1), batch, torch.full((50,), 9))
    assert len(set(by_position.tolist())) > 40 and len(set(by_seed.tolist())) > 40


def test_tiny_temperatures_are_greedy() -> None:
    logits = torch.tensor([3.0, 3.01, -INF, 2.0])
    for temperature in (1e-6, 1e-38, 1e-60):
        assert draw(logits, 64, temperature=temperature).tolist() == [1] * 64


def test_high_temperatures_still_never_draw_what_the_model_excludes() -> None:
    tokens = draw(torch.tensor([0.0, -INF, 1.0]), 500, temperature=1e300)
    assert set(tokens.tolist()) == {0, 2}


def test_greedy_rows_are_the_argmax_also_beside_sampled_ones() -> None:
    torch.manual_seed(2)
    logits = torch.randn(40, 333).bfloat16()  # many equal logits
    params = [SamplingParams(temperature=0.9 * (i % 2), top_p=0.8) for i in range(40)]
    tokens = sample(logits, SamplingBatch.of(params, range(40), "cpu"), torch.arange(40))
    assert torch.equal(tokens[::2], logits.argmax(-1)[::2])
    assert not torch.equal(tokens[1::2], logits.argmax(-1)[1::2]), "sampled rows must not be greedy too"
    assert tokens.dtype == torch.int64


def test_an_all_greedy_batch_looks_only_for_the_largest_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("an all-greedy batch needs neither order nor noise")

    for name in ("rank", "gumbel_noise", "with_temperature"):
        monkeypatch.setattr(f"flexnano.sampling.{name}", forbidden)
    batch = SamplingBatch.of([SamplingParams(top_p=0.5, top_k=3)] * 2, [0, 0], "cpu")
    assert sample(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), batch, torch.tensor([0, 0])).tolist() == [1, 0]


def test_sampling_leaves_the_logits_as_they_were() -> None:
    logits = torch.randn(3, 50)
    before = logits.clone()
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01)
    sample(logits, SamplingBatch.of([params] * 3, [1, 2, 3], "cpu"), torch.arange(3))
    assert torch.equal(logits, before)


requests = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 3, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(0, 5))
def test_no_token_depends_on_who_shares_the_batch(params: list[SamplingParams], random, n_padding: int) -> None:
    """Alone, in any order, and with rows of padding: the same token.  bfloat16 makes equal logits common."""
    torch.manual_seed(random.randrange(2**31))
    n = len(params)
    logits = (torch.randn(n, 517) * 3).bfloat16()
    seeds = [random.randrange(2**63) for _ in range(n)]
    positions = [random.randrange(100_000) for _ in range(n)]

    def tokens(rows: list[int], padding: int = 0) -> list[int]:
        batch = SamplingBatch.of(
            [params[r] for r in rows] + [SamplingParams()] * padding, [seeds[r] for r in rows] + [0] * padding, "cpu"
        )
        padded = torch.cat([logits[rows], torch.zeros(padding, 517).bfloat16()])
        return sample(padded, batch, torch.tensor([positions[r] for r in rows] + [0] * padding))[: len(rows)].tolist()

    alone = [tokens([row])[0] for row in range(n)]
    shuffled = random.sample(range(n), n)
    assert tokens(shuffled, n_padding) == [alone[row] for row in shuffled], "the batch changed a token"


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(temperature=1), SamplingParams(temperature=1, top_p=0.9, top_k=2)],
    ids=["greedy", "sampled", "filtered"],
)
def test_a_row_without_a_distribution_shows_it_in_the_chosen_logit(params: SamplingParams) -> None:
    logits = torch.tensor([[1.0, -math.nan, 2.0, 0.0], [math.nan, 1.0, 2.0, 0.0], [-INF] * 4, [1.0, INF, 2.0, 0.0]])
    tokens = sample(logits, SamplingBatch.of([params] * 4, range(4), "cpu"), torch.arange(4))
    assert all(0 <= token < 4 for token in tokens.tolist()), "an id out of range would crash the next step's embedding"
    assert not logits.gather(1, tokens[:, None]).isfinite().any(), "the engine finds broken rows by the chosen logit"


# -- log-probabilities


def test_logprobs_hold_the_most_likely_tokens_and_the_chosen_one() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.1, 0.2, 0.4, 0.3]]).log()
    first, second = top_logprobs(logits, torch.tensor([2, 0]), k=2)
    assert list(first) == [2, 3], "most likely first; the chosen one is among them"
    assert list(second) == [2, 3, 0], "the chosen one comes on top of the k"
    assert [math.exp(value) for value in second.values()] == pytest.approx([0.4, 0.3, 0.1], rel=1e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 2), (5, 5), (99, 5)])
def test_logprobs_from_none_to_the_whole_vocabulary(k: int, n: int) -> None:
    (row,) = top_logprobs(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]]).half(), torch.tensor([4]), k)
    assert len(row) == n and 4 in row
    if n == 5:
        assert sum(math.exp(value) for value in row.values()) == pytest.approx(1)
    assert list(row.values()) == sorted(row.values(), reverse=True)
