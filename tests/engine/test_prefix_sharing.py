"""Prefix sharing (homework 08) in the engine: how many pages it takes, who finds what, and that no token changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import families
import pytest
from homeworks import (
    Window,
    ask,
    assert_all_given_back,
    assert_in_order,
    assert_results,
    assert_right,
    overflowing,
    pages_in_use,
    pools,
    run_to_the_end,
    spoil,
)

from flexnano import Inference, SamplingParams, Sequence
from flexnano.prefix_index import SharedPages

MakeEngine = Callable[..., Inference]
both_paths = pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
fused_or_not = pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])

PAGE = 8
SIZES = dict(tokenizer=None, page_size=PAGE, n_pages=40, max_batch_size=6, prefix_sharing=True)
POISON = 77


def random_prompt(n_tokens: int, seed: int) -> list[int]:
    return [5 if token == POISON else token for token in families.random_prompt(n_tokens, seed)]


COMMON = random_prompt(5 * PAGE, seed=99)


def greedy(n: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=n, **more)


def with_tails(n_common: int, k: int, n_tail: int = 3) -> list[list[int]]:
    """k prompts that begin alike and then all differ from their first token on."""
    tails = [[10 + i, *random_prompt(n_tail - 1, seed=i)] for i in range(k)]
    return [COMMON[:n_common] + tail for tail in tails]


def sharing_of(engine: Inference, group: int = 0) -> SharedPages:
    assert engine.planner is not None
    found = engine.planner.groups[group].sharing
    assert found is not None
    return found


def findable(engine: Inference, tokens: list[int]) -> int:
    """How many whole pages of these tokens can be found."""
    return len(sharing_of(engine).index.lookup(tokens))


# ---------------------------------------------------------------------- pages


@both_paths
@fused_or_not
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("p", [1, 3])
def test_k_sequences_with_p_common_pages_have_p_pages_and_k_tails(
    make_engine: MakeEngine, p: int, k: int, fast: bool, fused: bool
) -> None:
    """All at once: already in the step in which the first of them computes the common pages."""
    engine = make_engine(**SIZES, fast=fast, fuse_prefill=fused)
    prompts = with_tails(p * PAGE, k)
    requests = [engine.add_request(prompt, greedy(4)) for prompt in prompts]
    most = 0
    results = {}
    while engine.has_work:
        spoil(engine)
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
        assert_in_order(engine)
        most = max(most, pages_in_use(engine))
    assert most == p + k, f"{k} sequences with {p} common pages and a tail of one page each"
    assert_results(prompts, [results[request] for request in requests], greedy(4))
    assert engine.stats.prefill_tokens == p * PAGE + k * 3, "the common pages were computed once"


@both_paths
def test_over_time_the_same_pages_serve_again(make_engine: MakeEngine, fast: bool) -> None:
    engine = make_engine(**SIZES, fast=fast)
    prompts = with_tails(3 * PAGE, 4)
    cached = []
    for prompt in prompts:
        results = ask(engine, [prompt], greedy(2))
        assert_results([prompt], results, greedy(2))
        cached.append(results[0].metrics.cached_tokens)
        assert_all_given_back(engine)
    assert cached == [0, 3 * PAGE, 3 * PAGE, 3 * PAGE]
    assert engine.stats.prefill_tokens == 4 * (3 * PAGE + 3) - 9 * PAGE


@pytest.mark.parametrize(("n_common", "found"), [(PAGE - 1, 0), (PAGE, PAGE), (PAGE + 1, PAGE), (2 * PAGE, 2 * PAGE)])
def test_a_running_sequence_shares_its_full_pages_and_no_other(
    make_engine: MakeEngine, n_common: int, found: int
) -> None:
    """Its last page is still being written: nobody can find it, so there is nothing to copy either."""
    engine = make_engine(**SIZES)
    first, second = COMMON[:n_common], with_tails(n_common, 1)[0]
    a = engine.add_request(first, greedy(6))
    engine.run_one_step()
    b = engine.add_request(second, greedy(3))
    results = run_to_the_end(engine)
    assert results[b].metrics.cached_tokens == found
    assert_right(first, results[a].token_ids, greedy(6))
    assert_right(second, results[b].token_ids, greedy(3))


@both_paths
def test_a_page_of_which_only_the_beginning_is_common_is_copied_before_it_is_written(
    make_engine: MakeEngine, fast: bool
) -> None:
    """Copy on write: the one who had the page keeps it, the newcomer goes on in a copy."""
    engine = make_engine(**SIZES, fast=fast)
    first = COMMON[: 2 * PAGE]
    second = [*COMMON[: PAGE + 5], 11, 12, 13]
    a = engine.add_request(first, greedy(12))
    engine.run_one_step()
    b = engine.add_request(second, greedy(12))
    results = run_to_the_end(engine)
    assert results[b].metrics.cached_tokens == PAGE + 5
    for prompt, request in ((first, a), (second, b)):
        assert_right(prompt, results[request].token_ids, greedy(12))
    assert_results([first], ask(engine, [first], greedy(12)), greedy(12))  # the old page is as it was


def test_tokens_that_were_generated_can_be_found_too(make_engine: MakeEngine) -> None:
    """The next turn of a chat begins with what was said before."""
    engine = make_engine(**SIZES)
    (said,) = ask(engine, [COMMON[:10]], greedy(14))
    (result,) = ask(engine, [[*COMMON[:10], *said.token_ids, 7]], greedy(3))
    assert result.metrics.cached_tokens >= 2 * PAGE, "only the last token was not computed"
    assert_results([[*COMMON[:10], *said.token_ids, 7]], [result], greedy(3))


# ---------------------------------------------------------------------- the last token


@both_paths
@fused_or_not
@pytest.mark.parametrize("n_tokens", [1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE])
def test_a_prompt_that_is_wholly_in_pages_still_computes_a_token(
    make_engine: MakeEngine, n_tokens: int, fast: bool, fused: bool
) -> None:
    """The logits come from there.  Its page is others' too, and nobody may see it written."""
    engine = make_engine(**SIZES, fast=fast, fuse_prefill=fused)
    prompt = COMMON[:n_tokens]
    for _ in range(3):
        before = engine.stats.prefill_tokens
        results = ask(engine, [prompt] * 3, greedy(5))
        assert_results([prompt] * 3, results, greedy(5))
        assert all(result.metrics.cached_tokens < n_tokens for result in results)
        assert engine.stats.prefill_tokens - before >= 3, "each of them computes a token at least"
    if n_tokens > PAGE:
        assert results[0].metrics.cached_tokens >= n_tokens - PAGE


# ---------------------------------------------------------------------- collisions


@both_paths
@pytest.mark.parametrize("hash_page", [lambda *_: 0, lambda before, tokens: tokens[0] % 2], ids=["all", "many"])
def test_pages_with_the_same_key_are_not_taken_for_each_other(
    make_engine: MakeEngine, fast: bool, hash_page: Callable[..., int]
) -> None:
    engine = make_engine(**SIZES | dict(n_pages=14), fast=fast)
    assert engine.planner is not None
    SharedPages(engine.planner.groups[0].table, hash_page)
    prompts = [*with_tails(2 * PAGE, 3), *(random_prompt(n, seed=n) for n in (PAGE, 2 * PAGE, 2 * PAGE + 1)), COMMON]
    for _ in range(3):
        assert_results(prompts, ask(engine, prompts, greedy(6)), greedy(6))
    assert_all_given_back(engine)


def test_the_same_tokens_after_another_beginning_are_another_page(make_engine: MakeEngine) -> None:
    engine = make_engine(**SIZES)
    ask(engine, [COMMON[: 3 * PAGE]], greedy(1))
    other = random_prompt(PAGE, seed=3) + COMMON[PAGE : 3 * PAGE]
    (result,) = ask(engine, [other], greedy(5))
    assert result.metrics.cached_tokens == 0
    assert_results([other], [result], greedy(5))


# ---------------------------------------------------------------------- eviction


def test_idle_pages_go_least_recently_used_first_and_the_end_before_the_beginning(make_engine: MakeEngine) -> None:
    engine = make_engine(**SIZES | dict(n_pages=8))
    a, b = random_prompt(3 * PAGE, seed=1), random_prompt(3 * PAGE, seed=2)
    ask(engine, [a], greedy(1))
    ask(engine, [b], greedy(1))
    assert (findable(engine, a), findable(engine, b)) == (3, 3), "8 pages hold both, and two are free"
    ask(engine, [[*a[: 2 * PAGE], 9]], greedy(1))  # the first two pages of a are used again: the newest of all
    found = []
    for seed in range(10, 15):  # each takes one page that can't be found, and leaves it findable
        ask(engine, [random_prompt(PAGE, seed=seed)], greedy(1))
        found.append((findable(engine, a), findable(engine, b)))
    # Two were free.  Then a's last page, which was used before b's; then b from its end.
    assert found[0] == (3, 3)
    assert found == sorted(found, reverse=True), "what is gone can't come back"
    losses = [
        x for pair in itertools.pairwise(found) for x in [(pair[0][0] - pair[1][0], pair[0][1] - pair[1][1])] if any(x)
    ]
    assert losses[0] == (1, 0), f"a's third page was used longest ago: {found}"
    assert all(loss == (0, 1) for loss in losses[1:]), f"then b, page by page from its end: {found}"
    assert_results([a, b], ask(engine, [a, b], greedy(4)), greedy(4))


def test_pages_in_use_are_never_evicted(make_engine: MakeEngine) -> None:
    engine = make_engine(**SIZES | dict(n_pages=6))
    running = engine.add_request(COMMON[: 2 * PAGE], greedy(20))
    engine.run_one_step()
    for seed in range(6):
        prompt = random_prompt(2 * PAGE, seed)
        other = engine.add_request(prompt, greedy(1))
        while other in engine._requests:
            spoil(engine)
            engine.run_one_step()
            assert_in_order(engine)
    results = run_to_the_end(engine)
    assert_right(COMMON[: 2 * PAGE], results[running].token_ids, greedy(20))
    assert findable(engine, COMMON[: 2 * PAGE]) == 2


def test_idle_pages_are_available(make_engine: MakeEngine) -> None:
    """A pool full of what might be used again is not a full pool: a prompt as long as the pool is admitted at once."""
    engine = make_engine(**SIZES | dict(n_pages=5))
    ask(engine, [random_prompt(4 * PAGE, seed=1)], greedy(2))
    (result,) = ask(engine, [random_prompt(5 * PAGE - 1, seed=2)], greedy(2))
    assert_results([random_prompt(5 * PAGE - 1, seed=2)], [result], greedy(2))


# ---------------------------------------------------------------------- in company


@both_paths
@fused_or_not
def test_preempted_sequences_that_share_go_on_where_they_were(make_engine: MakeEngine, fast: bool, fused: bool) -> None:
    engine = make_engine(**SIZES | dict(n_pages=10), fast=fast, fuse_prefill=fused)
    prompts = with_tails(2 * PAGE, 6)
    assert_results(prompts, ask(engine, prompts, greedy(24)), greedy(24))
    assert engine.stats.preemptions, "the pool is too large for this test to mean anything"
    assert_all_given_back(engine)


@both_paths
def test_requests_that_share_a_prompt_sample_each_for_itself(make_engine: MakeEngine, fast: bool) -> None:
    prompt = COMMON[: 2 * PAGE + 3]
    params = [
        greedy(12),
        greedy(12, temperature=1.0, seed=1),
        greedy(12, temperature=1.0, seed=2),
        greedy(12, temperature=0.7, seed=1, top_k=10),
        greedy(12, temperature=1.3, seed=3, top_p=0.8),
        greedy(12, temperature=1.0, seed=1),
    ]
    engine = make_engine(**SIZES, fast=fast)
    results = engine.generate([prompt] * 6, params)
    assert_results([prompt] * 6, results, params)
    alone = make_engine(**SIZES | dict(prefix_sharing=False))
    assert [r.token_ids for r in results] == [alone.generate([prompt], one)[0].token_ids for one in params]
    assert len({tuple(r.token_ids) for r in results}) == 5, "the same seed gives the same, another one something else"


@both_paths
def test_n_samples_of_a_prompt_share_its_pages(make_engine: MakeEngine, fast: bool) -> None:
    engine = make_engine(**SIZES, fast=fast)
    prompt = COMMON[: 3 * PAGE + 2]
    params = SamplingParams(max_new_tokens=5, temperature=1.0, seed=7, n=5)
    (result,) = engine.generate([prompt], params)
    assert len(result.samples) == 5 and result.samples[0].token_ids == result.token_ids
    assert len({tuple(sample.token_ids) for sample in result.samples}) == 5
    assert engine.stats.prefill_tokens == 3 * PAGE + 5 * 2, "the prompt's pages were computed once"
    (one,) = make_engine(**SIZES | dict(prefix_sharing=False)).generate([prompt], greedy(5, temperature=1.0, seed=7))
    assert one.token_ids == result.token_ids, "the first sample is what n=1 gives"


@both_paths
@pytest.mark.parametrize("window", [Window(), Window(12), Window(12, 4)], ids=["everything", "window", "sinks"])
def test_sharing_changes_no_token_where_layers_have_tables_of_their_own(
    make_engine: MakeEngine, fast: bool, window: Window
) -> None:
    """Gemma 2: global layers keep all pages, local ones give theirs up; a prompt is cached as far as both have it."""
    engine = make_engine("gemma2", **SIZES | dict(n_pages=16), fast=fast, fuse_prefill=True, **window.options)
    prompts = [*with_tails(3 * PAGE, 4), COMMON[: 3 * PAGE], COMMON[: 3 * PAGE], COMMON, [*COMMON[: PAGE + 3], 9]]
    for _ in range(2):
        assert_results(prompts, ask(engine, prompts, greedy(12)), greedy(12), "gemma2", window)
    assert_all_given_back(engine)


def test_a_page_that_is_being_computed_is_not_copied_where_another_group_has_only_a_part_of_it(
    make_engine: MakeEngine,
) -> None:
    """Global layers find the whole page, computed in this very step; local ones another page with the same first tokens."""
    engine = make_engine("gemma2", **SIZES, sliding_window=12)
    assert engine.planner is not None
    for group, tokens in enumerate([COMMON[:PAGE], [*COMMON[:5], 11, 12, 13]]):
        sharing, table = sharing_of(engine, group), pools(engine)[group].table
        pages = table.take(1)
        sharing.index.insert(tokens, pages)
        if group == 0:
            sharing.fresh.update(pages)
        table.drop(pages)
    slot = engine.page_table.allocate()
    prompt = COMMON[: PAGE + 4]
    assert engine.planner.share(slot, Sequence(0, prompt)) == 0, "five tokens would be copied before they are written"
    for group in engine.planner.groups:
        group.sharing.settle()  # type: ignore[union-attr]
    assert engine.planner.share(slot, Sequence(0, prompt)) == 5
    engine.page_table.erase(slot)


def test_cached_tokens_are_those_of_the_prompt_also_after_a_preemption(make_engine: MakeEngine) -> None:
    """Who is preempted finds its own tokens again; that says nothing of its prompt."""
    engine = make_engine(**SIZES | dict(n_pages=8))
    prompts = [random_prompt(2 * PAGE, seed=seed) for seed in range(3)]
    results = ask(engine, prompts, greedy(30))
    assert engine.stats.preemptions
    assert [result.metrics.cached_tokens for result in results] == [0, 0, 0]


# ---------------------------------------------------------------------- faults: nothing is found that was not computed


class Trouble(Exception):
    pass


@both_paths
@fused_or_not
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("where", ["before", "between keys and attention"])
def test_a_step_that_fails_leaves_nothing_findable_that_was_not_computed(
    make_engine: MakeEngine, fast: bool, fused: bool, layer: int, where: str
) -> None:
    """Pages are entered when a step is planned, and the step may fail in any layer."""
    engine = make_engine(**SIZES, fast=fast, fuse_prefill=fused)
    block = engine.model.model.layers[layer]
    module = block if where == "before" else block.self_attn.o_proj
    prompts = with_tails(3 * PAGE, 3)

    def hook(*_: Any) -> None:
        raise Trouble

    handle = module.register_forward_pre_hook(hook)
    requests = [engine.add_request(prompt, greedy(4)) for prompt in prompts]
    with pytest.raises(Trouble):
        engine.run_one_step()
    handle.remove()
    assert findable(engine, COMMON) == 0, "a page can be found that was never computed"
    results = run_to_the_end(engine)
    assert {results[request].finish_reason for request in requests} == {"error"}
    assert_all_given_back(engine)
    assert_results(prompts, ask(engine, prompts, greedy(4)), greedy(4))


@both_paths
@pytest.mark.parametrize("n_tokens", [1, 2, 6])
def test_nan_leaves_nothing_findable_also_if_the_request_was_done_before_the_host_knew(
    make_engine: MakeEngine, fast: bool, n_tokens: int
) -> None:
    """With one token to make, pages are free while the token is on its way; then they hold what became of the NaN."""
    engine = make_engine(**SIZES, fast=fast)
    prompt = [*COMMON[:PAGE], POISON, *COMMON[PAGE : 3 * PAGE]]
    with overflowing(engine, POISON):
        (bad,) = ask(engine, [prompt], greedy(n_tokens))
    assert (bad.finish_reason, bad.token_ids) == ("error", [])
    assert findable(engine, prompt) == 0
    assert_results([prompt], ask(engine, [prompt], greedy(6)), greedy(6))


@both_paths
@fused_or_not
@pytest.mark.parametrize("chunk", [4, PAGE, 64])
def test_nan_in_the_middle_of_a_prompt_ends_it_there_and_harms_nobody_who_shares_its_beginning(
    make_engine: MakeEngine, fast: bool, fused: bool, chunk: int
) -> None:
    """A part of a prompt gives no token, so no logits tell of it; the pool is cleaned when somebody else's do."""
    engine = make_engine(**SIZES, fast=fast, fuse_prefill=fused, prefill_chunk=chunk, max_prefill_tokens=chunk)
    good = with_tails(2 * PAGE, 3)
    bad = [[*COMMON[: 2 * PAGE], POISON, *COMMON[2 * PAGE : 4 * PAGE], i] for i in range(3, 6)]
    prompts = [prompt for pair in zip(good, bad, strict=True) for prompt in pair]
    with overflowing(engine, POISON):
        results = ask(engine, prompts, greedy(6))
        assert_results(good, results[::2], greedy(6))
        assert [(r.finish_reason, r.token_ids) for r in results[1::2]] == [("error", [])] * 3
        assert_results(good, ask(engine, good, greedy(6)), greedy(6))
    assert_results(bad, ask(engine, bad, greedy(6)), greedy(6))


@both_paths
@pytest.mark.parametrize("n_steps", range(1, 7))
def test_aborting_in_the_middle_of_a_prompt_leaves_only_what_was_computed(
    make_engine: MakeEngine, fast: bool, n_steps: int
) -> None:
    engine = make_engine(**SIZES, fast=fast, fuse_prefill=True, prefill_chunk=6)
    running = engine.add_request(COMMON[:5], greedy(20))
    engine.run_one_step()
    prompt = random_prompt(4 * PAGE, seed=8)
    request = engine.add_request(prompt, greedy(5))
    for _ in range(n_steps):
        engine.run_one_step()
    assert engine.abort(request)
    assert findable(engine, prompt) * PAGE <= 6 * n_steps, "more than was computed"
    other = engine.add_request([*prompt, 9], greedy(5))
    results = run_to_the_end(engine)
    assert results[request].finish_reason == "aborted"
    assert_right([*prompt, 9], results[other].token_ids, greedy(5))
    assert_right(COMMON[:5], results[running].token_ids, greedy(20))
    assert_all_given_back(engine)


# ---------------------------------------------------------------------- what is never built


def test_pools_are_those_of_the_groups(make_engine: MakeEngine) -> None:
    """That the checks above look at every page table there is."""
    engine = make_engine("gemma2", **SIZES, sliding_window=16)
    assert [pool.window for pool in pools(engine)] == [None, 16]
    assert sum(len(pool.caches) for pool in pools(engine)) == len(engine.caches) == 4
