"""Sliding window (homework 09) in the engine: memory that stays the same, tokens exact, no page read that was given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import families
import pytest
from homeworks import (
    NO_WINDOW,
    Window,
    ask,
    assert_all_given_back,
    assert_in_order,
    assert_results,
    assert_right,
    dense_mask,
    dense_tokens,
    pools,
    run_to_the_end,
    spoil,
)

from flexnano import Inference, SamplingParams

MakeEngine = Callable[..., Inference]
both_paths = pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
fused_or_not = pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
sharing_or_not = pytest.mark.parametrize("sharing", [False, True], ids=["", "sharing"])

PAGE = 4
SIZES = dict(tokenizer=None, page_size=PAGE, max_batch_size=4, max_seq_length=192)
WINDOWS = [Window(8), Window(9), Window(1), Window(6, 3), Window(8, 4), Window(5, 9)]
windows = pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w.tokens}+{w.sinks}")


def greedy(n: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=n, **more)


def bound(window: Window) -> int:
    """⌈W / page⌉ + 1 pages, and those of the sinks."""
    assert window.tokens is not None
    return -(-window.tokens // PAGE) + 1 + -(-window.sinks // PAGE)


def held(engine: Inference, group: int = 0) -> list[int]:
    """Pages of each sequence that runs."""
    table = pools(engine)[group].table
    return [sum(page > 0 for page in table.owned[sequence.slot]) for sequence in engine.scheduler.running]


# ---------------------------------------------------------------------- memory


@both_paths
@windows
def test_memory_stays_the_same_over_a_generation_twenty_times_as_long_as_the_window(
    make_engine: MakeEngine, window: Window, fast: bool
) -> None:
    """In a pool that has just as many pages as one sequence needs, however long it runs."""
    assert window.tokens is not None
    n_tokens = max(40, 20 * window.tokens)
    engine = make_engine(
        **SIZES | dict(max_seq_length=n_tokens + 16), n_pages=bound(window), fast=fast, **window.options
    )
    prompt = families.random_prompt(11, seed=1)
    request = engine.add_request(prompt, greedy(n_tokens))
    most, results = 0, {}
    while engine.has_work:
        spoil(engine)
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
        assert_in_order(engine)
        most = max([most, *held(engine)])
    assert len(results[request].token_ids) == n_tokens
    assert_right(prompt, results[request].token_ids, greedy(n_tokens), window=window)
    assert most <= bound(window)
    assert most >= bound(window) - 1, "so few pages cannot hold the window"
    assert_all_given_back(engine)


@both_paths
def test_pages_that_are_given_up_are_others_at_once(make_engine: MakeEngine, fast: bool) -> None:
    """Four sequences of 60 tokens in 13 pages of 4: without a window not even one would fit."""
    window = Window(8)
    engine = make_engine(**SIZES, n_pages=13, fast=fast, **window.options)
    prompts = [families.random_prompt(n, seed=n) for n in (20, 9, 3, 14)]
    assert_results(prompts, ask(engine, prompts, greedy(40)), greedy(40), window=window)
    assert engine.stats.preemptions == 0, "each needs at most 3 pages, and there are 13"


@windows
def test_a_prompt_longer_than_the_pool_runs_part_by_part(make_engine: MakeEngine, window: Window) -> None:
    engine = make_engine(**SIZES, n_pages=bound(window) + 1, **window.options)
    prompt = families.random_prompt(100, seed=3)
    assert_results([prompt], ask(engine, [prompt], greedy(6)), greedy(6), window=window)


def test_a_pool_too_small_for_the_window_is_refused_by_name(make_engine: MakeEngine) -> None:
    with pytest.raises(ValueError, match="n_pages 3 is too few for a window of 12 and 0 sinks"):
        make_engine(**SIZES, n_pages=3, sliding_window=12)
    make_engine(**SIZES | dict(max_seq_length=12), n_pages=3, sliding_window=12)  # no sequence is longer


# ---------------------------------------------------------------------- tokens


@both_paths
@fused_or_not
@sharing_or_not
@windows
def test_tokens_are_those_of_a_dense_windowed_attention(
    make_engine: MakeEngine, window: Window, sharing: bool, fused: bool, fast: bool
) -> None:
    engine = make_engine(
        **SIZES, n_pages=30, fast=fast, prefix_sharing=sharing, fuse_prefill=fused, prefill_chunk=16, **window.options
    )
    lengths = (1, 3, 4, 7, 8, 9, 12, 13, 40)
    prompts = [families.random_prompt(n, seed=n) for n in lengths] + [families.random_prompt(40, seed=40)[:24]] * 2
    assert_results(prompts, ask(engine, prompts, greedy(24)), greedy(24), window=window)
    assert_all_given_back(engine)


def test_the_window_is_exact_to_the_token(make_engine: MakeEngine) -> None:
    """One key more or less, or one sink, and the tokens are others; so the engine has just this many."""
    prompt = families.random_prompt(30, seed=5)
    answers = {}
    for window in [NO_WINDOW, *(Window(w, s) for w in (7, 8, 9) for s in (0, 1, 2))]:
        engine = make_engine(**SIZES, n_pages=48, **window.options)
        (result,) = ask(engine, [prompt], greedy(16))
        assert_right(prompt, result.token_ids, greedy(16), window=window)
        answers[window] = tuple(result.token_ids)
    assert len(set(answers.values())) == len(answers), f"a dense model would not tell these apart: {answers}"


@both_paths
def test_a_window_as_long_as_the_sequence_changes_nothing(make_engine: MakeEngine, fast: bool) -> None:
    engine = make_engine(**SIZES, n_pages=48, fast=fast, sliding_window=192)
    prompts = [families.random_prompt(n, seed=n) for n in (5, 21, 40)]
    assert_results(prompts, ask(engine, prompts, greedy(20)), greedy(20))


@both_paths
def test_sampling_and_preemption_with_a_window(make_engine: MakeEngine, fast: bool) -> None:
    window = Window(10, 2)
    engine = make_engine(**SIZES, n_pages=9, fast=fast, **window.options)
    prompts = [families.random_prompt(n, seed=n) for n in (5, 21, 12, 30)]
    params = [greedy(20, temperature=1.0, seed=seed) for seed in range(4)]
    assert_results(prompts, engine.generate(prompts, params), params, window=window)
    assert engine.stats.preemptions, "the pool is too large for this test to mean anything"
    assert_all_given_back(engine)


def test_aborting_gives_back_what_is_left_once(make_engine: MakeEngine) -> None:
    """Pages that were given up before are not given back again."""
    engine = make_engine(**SIZES, n_pages=12, sliding_window=8, attention_sinks=2)
    request = engine.add_request(families.random_prompt(30, seed=2), greedy(99))
    for _ in range(20):
        engine.run_one_step()
    assert engine.abort(request)
    run_to_the_end(engine)
    assert_all_given_back(engine)


# ---------------------------------------------------------------------- models with windows of their own


@both_paths
@fused_or_not
@sharing_or_not
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
@pytest.mark.parametrize(
    "window",
    [NO_WINDOW, Window(families.WINDOW), Window(10), Window(10, 3)],
    ids=["own", "own, evicting", "10", "10+3"],
)
def test_local_layers_give_up_pages_and_global_ones_keep_theirs(
    make_engine: MakeEngine, family: str, window: Window, sharing: bool, fused: bool, fast: bool
) -> None:
    engine = make_engine(
        family,
        **SIZES,
        n_pages=26,
        fast=fast,
        prefix_sharing=sharing,
        fuse_prefill=fused,
        prefill_chunk=16,
        **window.options,
    )
    prompts = [families.random_prompt(n, seed=n) for n in (1, 9, 40)] + [families.random_prompt(40, seed=40)[:32]] * 2
    requests = [engine.add_request(prompt, greedy(30)) for prompt in prompts]
    most = [0, 0]
    results = {}
    while engine.has_work:
        spoil(engine)
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
        assert_in_order(engine)
        for group in range(len(pools(engine))):
            most[group] = max([most[group], *held(engine, group)])
    assert_results(prompts, [results[request] for request in requests], greedy(30), family, window)
    if engine.planner is not None:
        assert most[0] >= 70 // PAGE, "global layers keep all of 69 tokens"
    if window is not NO_WINDOW:
        assert most[1] <= bound(window)
    assert_all_given_back(engine)


def test_a_model_with_its_own_window_everywhere_gives_up_pages_when_asked_to(make_engine: MakeEngine) -> None:
    """Mistral: the tokens are those of the model as it was trained."""
    prompts = [families.random_prompt(n, seed=n) for n in (40, 30)]
    window = Window(families.WINDOW)
    engine = make_engine("mistral", **SIZES, n_pages=2 * bound(window), **window.options)
    results = ask(engine, prompts, greedy(30))
    for prompt, result in zip(prompts, results, strict=True):
        assert result.token_ids == families.reference_tokens(families.FAMILIES["mistral"](), prompt, 30)


def test_the_dense_reference_is_transformers_where_there_is_one() -> None:
    """What the tests above hold the engine to."""
    prompt = families.random_prompt(40, seed=1)
    for family in ("llama", "mistral", "gemma2", "gemma3_text"):
        assert dense_tokens(prompt, 12, family) == families.reference_tokens(families.FAMILIES[family](), prompt, 12)
    rows = (dense_mask(6, window=2, sinks=1)[0, 0] == 0).int().tolist()
    assert rows == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


# ---------------------------------------------------------------------- what it says of itself


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", dict(sliding_window=64), "a window of 64, which changes the model: it was not trained with it"),
        ("llama", dict(sliding_window=64, attention_sinks=4), "a window of 64 and 4 sinks, which changes the model"),
        ("gemma2", dict(sliding_window=families.WINDOW), f"a window of {families.WINDOW}"),
        ("gemma2", dict(sliding_window=8), "a window of 8, which changes the model"),
        ("mistral", dict(sliding_window=99), "a window of 99"),
        ("mistral", dict(sliding_window=99, attention_sinks=1), "a window of 99 and 1 sinks, which changes the model"),
        ("llama", dict(prefix_sharing=True), "prefix sharing"),
        ("llama", dict(fuse_prefill=True, prefill_chunk=40), "prompts beside decodes, 40 tokens a step"),
    ],
)
def test_an_engine_says_what_it_was_asked_for_and_whether_that_changes_the_model(
    make_engine: MakeEngine, family: str, options: dict[str, Any], said: str
) -> None:
    engine = make_engine(family, **SIZES, n_pages=48, **options)
    (line,) = [line for line in engine.describe().splitlines() if line.startswith("options")]
    assert said in line
    assert ("changes the model" in line) == ("changes the model" in said), line


def test_an_engine_without_options_says_nothing_of_them(make_engine: MakeEngine) -> None:
    assert "options" not in make_engine(**SIZES, n_pages=4).describe()


def test_the_pages_of_each_group_of_layers_are_told(make_engine: MakeEngine) -> None:
    engine = make_engine("gemma2", **SIZES, n_pages=48, sliding_window=8)
    (line,) = [line for line in engine.describe().splitlines() if line.startswith("cache")]
    local = pools(engine)[1].table.n_pages
    assert f"48 pages for layers reading everything, {local} pages for layers reading a window of 8" in line
    n_bytes = sum(cache.k_cache.nbytes + cache.v_cache.nbytes for cache in engine.caches)
    assert f"{n_bytes / 2**20:,.0f} MiB" in line
