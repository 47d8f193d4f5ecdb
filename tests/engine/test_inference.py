"""The engine as its users see it: generate, stream, and driving it step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import families
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexnano import Inference, Result, SamplingParams, TokenEvent, inference
from flexnano.kv_cache import kv_bytes_per_token
from flexnano.masks import all_of, causal, classify_blocks, dense_mask, packed_documents, sliding_window

MakeEngine = Callable[..., Inference]
PROMPTS = [families.random_prompt(n, seed=n) for n in (5, 21, 1, 16, 33)]


def greedy(n: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=n, **more)


def transformers_tokens(prompt: list[int], n: int, family: str = "llama") -> list[int]:
    return families.reference_tokens(families.FAMILIES[family](), prompt, n)


def drive(engine: Inference) -> dict[int, list[TokenEvent]]:
    """Run until nothing is left; the events of each request in order."""
    events: dict[int, list[TokenEvent]] = {}
    for _ in range(2000):
        if not engine.has_work:
            return events
        for event in engine.run_one_step():
            events.setdefault(event.request_id, []).append(event)
    raise AssertionError("2000 steps, and still work to do")


def result_of(events: list[TokenEvent]) -> Result:
    assert [event.result is not None for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].result is not None
    return events[-1].result


# ---------------------------------------------------------------------- generate


def test_results_come_in_input_order_with_transformers_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=2)
    params = [greedy(n) for n in (12, 3, 7, 1, 9)]  # they finish in another order
    results = engine.generate(PROMPTS, params)
    for prompt, one, result in zip(PROMPTS, params, results, strict=True):
        assert result.prompt_token_ids == prompt
        assert result.token_ids == transformers_tokens(prompt, one.max_new_tokens)
        assert (result.finish_reason, result.error) == ("length", None)


def test_the_same_engine_answers_again_the_same(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=3, n_pages=8)
    first = [result.token_ids for result in engine.generate(PROMPTS, greedy(10))]
    engine.generate(PROMPTS[::-1], greedy(3))
    assert [result.token_ids for result in engine.generate(PROMPTS, greedy(10))] == first


def test_a_prompt_is_text_or_token_ids_or_chat_messages(make_engine: MakeEngine) -> None:
    tokenizer = families.TinyTokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role == 'user' and 'w4' or 'w5' }} {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}w6{% endif %}"
    )
    engine = make_engine(tokenizer=tokenizer)
    chat = [{"role": "user", "content": "w17 w40"}, {"role": "assistant", "content": "w9"}]
    prompts: list[Any] = ["w17 w40", [17, 40], (17, 40), torch.tensor([17, 40]), chat]
    results = engine.generate(prompts, greedy(5))
    assert [r.prompt_token_ids for r in results] == [[17, 40]] * 4 + [[4, 17, 40, 5, 9, 6]]
    assert all(r.token_ids == results[0].token_ids for r in results[1:4])


def test_without_parameters_it_is_greedy_and_64_tokens(make_engine: MakeEngine) -> None:
    (result,) = make_engine().generate([PROMPTS[0]])
    assert result.token_ids == transformers_tokens(PROMPTS[0], 64)


def test_parameters_may_be_one_for_all_or_one_for_each(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for_all = engine.generate(PROMPTS[:3], greedy(4))
    assert [len(r.token_ids) for r in for_all] == [4, 4, 4]
    each = engine.generate(PROMPTS[:3], (greedy(1), greedy(5), greedy(2)))
    assert [len(r.token_ids) for r in each] == [1, 5, 2]


def test_nothing_asked_nothing_answered(make_engine: MakeEngine) -> None:
    engine = make_engine()
    assert engine.generate([]) == []
    assert list(engine.stream([])) == []
    assert engine.run_one_step() == []
    assert not engine.has_work


def test_text_is_what_the_tokenizer_makes_of_the_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for result in engine.generate(PROMPTS, greedy(15)):
        assert result.text == engine.tokenizer.decode(result.token_ids, skip_special_tokens=True)


def test_an_engine_without_a_tokenizer_answers_token_ids(make_engine: MakeEngine) -> None:
    (result,) = make_engine(tokenizer=None).generate([PROMPTS[0]], greedy(6))
    assert result.token_ids == transformers_tokens(PROMPTS[0], 6)
    assert result.text == ""


@pytest.mark.parametrize("path", ["gather", "eager"])
@pytest.mark.parametrize("page_size", [1, 4, 128])
def test_any_power_of_two_is_a_page(make_engine: MakeEngine, page_size: int, path: str) -> None:
    engine = make_engine(page_size=page_size, n_pages=-(-80 // page_size), attention=path)
    results = engine.generate(PROMPTS[:2], greedy(6))
    assert [r.token_ids for r in results] == [transformers_tokens(p, 6) for p in PROMPTS[:2]]


def test_a_prompt_longer_than_the_prefill_budget_runs_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(max_prefill_tokens=8)
    results = engine.generate(PROMPTS, greedy(4))
    assert [r.token_ids for r in results] == [transformers_tokens(p, 4) for p in PROMPTS]


# ---------------------------------------------------------------------- the end of an answer


def test_one_new_token_is_one_token_and_takes_no_decode(make_engine: MakeEngine) -> None:
    engine = make_engine()
    results = engine.generate(PROMPTS[:3], greedy(1))
    assert [r.token_ids for r in results] == [transformers_tokens(p, 1) for p in PROMPTS[:3]]
    assert (engine.stats.decode_steps, engine.stats.output_tokens) == (0, 3)


def test_the_longest_sequence_ends_with_its_last_token(make_engine: MakeEngine) -> None:
    engine = make_engine(max_seq_length=32)
    results = engine.generate([families.random_prompt(n, 0) for n in (31, 20)], greedy(99))
    assert [len(r.token_ids) for r in results] == [1, 12]
    assert {r.finish_reason for r in results} == {"length"}


def new_token(tokens: list[int], at_least: int) -> int:
    """Where a token stands that was not there before; so that it can be made to end the answer just there."""
    return next(i for i, token in enumerate(tokens) if i >= at_least and token not in tokens[:i] and token > 3)


EXPECTED = transformers_tokens(PROMPTS[0], 20)
END = new_token(EXPECTED, 5)


@pytest.mark.parametrize("configured", [EXPECTED[END], [2, EXPECTED[END]]], ids=["one", "several"])
def test_end_of_sequence_comes_from_the_generation_config(make_engine: MakeEngine, configured: Any) -> None:
    model = families.FAMILIES["llama"]()
    model.generation_config.eos_token_id = configured
    engine = make_engine(model)
    (result,) = engine.generate([PROMPTS[0]], greedy(20))
    assert result.finish_reason == "stop"
    assert result.token_ids == EXPECTED[: END + 1], "the token that ends the answer is one of its tokens"
    assert result.text == engine.tokenizer.decode(EXPECTED[:END], skip_special_tokens=True), "but not of its text"


def test_the_tokenizers_end_of_sequence_counts_too(make_engine: MakeEngine) -> None:
    tokenizer = families.TinyTokenizer()
    tokenizer.eos_token = f"w{EXPECTED[END]}"
    (result,) = make_engine(tokenizer=tokenizer).generate([PROMPTS[0]], greedy(20))
    assert (result.finish_reason, result.token_ids) == ("stop", EXPECTED[: END + 1])


def test_end_of_sequence_can_be_ignored_by_one_request_alone(make_engine: MakeEngine) -> None:
    model = families.FAMILIES["llama"]()
    model.generation_config.eos_token_id = [EXPECTED[END]]
    goes_on, ends = make_engine(model).generate([PROMPTS[0]] * 2, [greedy(20, ignore_eos=True), greedy(20)])
    assert (goes_on.finish_reason, goes_on.token_ids) == ("length", EXPECTED)
    assert (ends.finish_reason, ends.token_ids) == ("stop", EXPECTED[: END + 1])


def test_a_stop_id_ends_the_answer_even_if_end_of_sequence_is_ignored(make_engine: MakeEngine) -> None:
    engine = make_engine()
    (result,) = engine.generate([PROMPTS[0]], greedy(20, stop=[EXPECTED[END]], ignore_eos=True))
    assert (result.finish_reason, result.token_ids) == ("stop", EXPECTED[: END + 1])
    assert result.text == engine.tokenizer.decode(EXPECTED[:END], skip_special_tokens=True)


@pytest.mark.parametrize("whole", [True, False], ids=["one token", "across tokens"])
def test_a_stop_string_is_cut_from_the_text(make_engine: MakeEngine, whole: bool) -> None:
    stop = f"w{EXPECTED[END]}" if whole else f"{EXPECTED[END - 1] % 10} w{EXPECTED[END]}"[:-1]
    engine = make_engine()
    text = engine.tokenizer.decode(EXPECTED, skip_special_tokens=True)
    assert stop in text
    (result,) = engine.generate([PROMPTS[0]], greedy(20, stop=stop))
    assert result.finish_reason == "stop"
    assert result.text == text[: text.index(stop)]
    assert result.token_ids == EXPECTED[: len(result.token_ids)]
    assert len(result.token_ids) < 20, "the answer went on after its stop string"


def test_a_stop_string_that_only_begins_is_given_back_at_the_end(make_engine: MakeEngine) -> None:
    engine = make_engine()
    (result,) = engine.generate([PROMPTS[0]], greedy(END + 1, stop=f"w{EXPECTED[END]} and no further"))
    assert result.text.endswith(f"w{EXPECTED[END]}")
    assert result.finish_reason == "length"


# ---------------------------------------------------------------------- sampling


def sampled(seed: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=12, temperature=1.0, seed=seed, **more)


def test_a_seed_gives_the_same_tokens_alone_in_company_and_after_losing_its_pages(make_engine: MakeEngine) -> None:
    params = [sampled(7), sampled(8, top_k=20), sampled(9, top_p=0.9), sampled(7, min_p=0.01), greedy(12)]
    alone = [make_engine().generate([p], one)[0].token_ids for p, one in zip(PROMPTS, params, strict=True)]

    roomy = make_engine(max_batch_size=5)
    assert [r.token_ids for r in roomy.generate(PROMPTS, params)] == alone
    backwards = roomy.generate(PROMPTS[::-1], params[::-1])
    assert [r.token_ids for r in backwards[::-1]] == alone

    # All are admitted at once and then outgrow the pool.
    tight = make_engine(max_batch_size=5, page_size=4, n_pages=24)
    results = tight.generate(PROMPTS, params)
    assert sum(r.metrics.preemptions for r in results) > 0, "the pool is too large for this test to mean anything"
    assert [r.token_ids for r in results] == alone


def test_another_seed_and_no_seed_give_other_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine()
    params = [sampled(1), sampled(2), SamplingParams(12, temperature=1.0), SamplingParams(12, temperature=1.0)]
    answers = [tuple(r.token_ids) for r in engine.generate([PROMPTS[0]] * 4, params)]
    assert len(set(answers)) == 4


def test_sampling_reaches_the_sampler(make_engine: MakeEngine) -> None:
    """A temperature of 1 that comes out greedy is an argument that died on its way."""
    engine = make_engine()
    results = engine.generate([PROMPTS[0]] * 20, [SamplingParams(1, temperature=1.0, seed=s) for s in range(20)])
    assert len({r.token_ids[0] for r in results}) > 3
    only_best = engine.generate([PROMPTS[0]] * 5, [SamplingParams(1, 1.0, top_k=1, seed=s) for s in range(5)])
    assert {r.token_ids[0] for r in only_best} == {EXPECTED[0]}


@pytest.mark.parametrize("k", [None, 0, 3, families.VOCAB, 10**6])
def test_logprobs_are_those_of_the_model_before_any_filter(make_engine: MakeEngine, k: int | None) -> None:
    params = SamplingParams(max_new_tokens=6, temperature=3.0, top_p=0.9, seed=3, logprobs=k)
    (result,) = make_engine().generate([PROMPTS[1]], params)
    if k is None:
        assert result.logprobs is None
        return
    assert result.logprobs is not None and len(result.logprobs) == 6
    logits = families.reference_logits(families.FAMILIES["llama"](), PROMPTS[1] + result.token_ids[:-1])
    expected_TV = logits[len(PROMPTS[1]) - 1 :].log_softmax(-1)
    for token, row, expected_V in zip(result.token_ids, result.logprobs, expected_TV, strict=True):
        most_likely = set(expected_V.topk(min(k, families.VOCAB)).indices.tolist())
        assert set(row) == most_likely | {token}
        for i, value in row.items():
            assert value == pytest.approx(expected_V[i].item(), abs=1e-3)


def test_logprobs_are_given_only_to_those_who_asked(make_engine: MakeEngine) -> None:
    asked, not_asked = make_engine().generate(PROMPTS[:2], [greedy(4, logprobs=2), greedy(4)])
    assert asked.logprobs is not None and len(asked.logprobs) == 4
    assert not_asked.logprobs is None


# ---------------------------------------------------------------------- metrics


def test_metrics_tell_how_long_each_token_took(make_engine: MakeEngine) -> None:
    for result in make_engine(max_batch_size=2).generate(PROMPTS, greedy(6)):
        metrics = result.metrics
        assert (metrics.prompt_tokens, metrics.output_tokens) == (len(result.prompt_token_ids), 6)
        assert metrics.time_to_first_token is not None and metrics.total_time is not None
        assert metrics.time_to_first_token > 0
        assert len(metrics.inter_token_latencies) == 5
        assert all(latency >= 0 for latency in metrics.inter_token_latencies)
        assert metrics.time_to_first_token + sum(metrics.inter_token_latencies) == pytest.approx(metrics.total_time)


def test_the_engine_counts_what_it_did(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.generate(PROMPTS[:3], greedy(6))
    stats = engine.stats
    assert (stats.prefill_steps, stats.decode_steps, stats.steps) == (1, 5, 6)
    assert stats.prefill_tokens == 5 + 21 + 1
    assert stats.padded_tokens == engine.prefill_length(27) - 27
    assert (stats.output_tokens, stats.preemptions) == (18, 0)
    assert stats.seconds > 0


def test_preemptions_are_counted_by_request_and_in_all(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=3, page_size=4, n_pages=8)
    results = engine.generate([families.random_prompt(8, seed) for seed in range(3)], greedy(12))
    assert engine.stats.preemptions == sum(r.metrics.preemptions for r in results) > 0
    assert [r.token_ids for r in results] == [
        transformers_tokens(families.random_prompt(8, seed), 12) for seed in range(3)
    ], "a request that lost its pages goes on where it was"


# ---------------------------------------------------------------------- streaming


def test_the_pieces_of_a_stream_are_its_results(make_engine: MakeEngine) -> None:
    prompts = ["w17 w40", *PROMPTS]
    params = [greedy(9, stop="w1"), *[greedy(n) for n in (1, 12, 7, 9, 3)]]
    engine = make_engine(max_batch_size=3, n_pages=6)
    expected = engine.generate(prompts, params)
    pieces: dict[int, list[TokenEvent]] = {}
    for event in engine.stream(prompts, params):
        pieces.setdefault(event.index, []).append(event)

    assert sorted(pieces) == list(range(len(prompts)))
    for index, events in pieces.items():
        result = result_of(events)
        assert result.token_ids == expected[index].token_ids
        assert "".join(event.text for event in events) == result.text == expected[index].text
        assert [e.token_id for e in events if e.token_id is not None] == result.token_ids
        assert {event.request_id for event in events} == {result.request_id}
        assert [e.finish_reason for e in events] == [None] * (len(events) - 1) + [result.finish_reason]


def test_tokens_come_while_the_others_are_still_being_made(make_engine: MakeEngine) -> None:
    engine = make_engine()
    stream = engine.stream(PROMPTS[:2], greedy(10))
    first = next(stream)
    assert first.result is None
    assert engine.stats.output_tokens <= 2, "the stream waited for more than a step"
    assert len(list(stream)) == 19


@pytest.mark.parametrize("n_events", [0, 1, 4, 7])
def test_leaving_a_stream_gives_everything_back(make_engine: MakeEngine, assert_idle: Any, n_events: int) -> None:
    engine = make_engine(max_batch_size=2)
    stream = engine.stream(PROMPTS, greedy(20))
    for _ in range(n_events):
        next(stream)
    stream.close()
    assert_idle(engine)
    assert not engine.has_work, "events of a stream that nobody reads"
    assert engine.generate([PROMPTS[0]], greedy(3))[0].token_ids == EXPECTED[:3]


def test_leaving_a_stream_loses_no_event_of_another_request(make_engine: MakeEngine) -> None:
    engine = make_engine()
    other = engine.add_request(PROMPTS[1], greedy(1))
    for _ in engine.stream([PROMPTS[0]], greedy(5)):
        break
    events = drive(engine)
    assert list(events) == [other], "the request was answered, but its only event was lost"
    assert result_of(events[other]).token_ids == transformers_tokens(PROMPTS[1], 1)


def test_two_streams_read_in_turn_each_get_their_own_in_order(make_engine: MakeEngine) -> None:
    engine = make_engine()
    streams = [engine.stream([prompt], greedy(8)) for prompt in PROMPTS[:2]]
    events: list[list[TokenEvent]] = [[], []]
    for turn in itertools.islice(itertools.cycle([0, 1]), 16):
        events[turn].append(next(streams[turn]))
    for turn in (0, 1):
        result = result_of(events[turn])
        assert result.token_ids == transformers_tokens(PROMPTS[turn], 8)
        assert [e.token_id for e in events[turn]] == result.token_ids, "the pieces came in another order"
        assert "".join(e.text for e in events[turn]) == result.text
        assert next(streams[turn], None) is None


def test_a_stream_keeps_its_events_while_somebody_else_drives(make_engine: MakeEngine) -> None:
    engine = make_engine()
    stream = engine.stream([PROMPTS[0]], greedy(3))
    first = next(stream)
    assert drive(engine) == {}, "events of a stream were handed to somebody else"
    assert [first.token_id, *(event.token_id for event in stream)] == EXPECTED[:3]


def test_a_stream_that_has_just_refused_a_prompt_keeps_its_events_too(make_engine: MakeEngine) -> None:
    engine = make_engine()
    stream = engine.stream([PROMPTS[0], []], greedy(3))
    assert next(stream).finish_reason == "refused"
    assert drive(engine) == {}, "events of a stream were handed to somebody else"
    assert [event.token_id for event in stream] == EXPECTED[:3]


def test_other_requests_go_on_beside_generate(make_engine: MakeEngine) -> None:
    engine = make_engine()
    other = engine.add_request(PROMPTS[1], greedy(15))
    (result,) = engine.generate([PROMPTS[0]], greedy(4))
    assert result.token_ids == EXPECTED[:4]
    events = drive(engine)
    assert set(events) == {other}, "generate keeps only what is its own"
    assert [e.index for e in events[other]] == [-1] * 15
    assert result_of(events[other]).token_ids == transformers_tokens(PROMPTS[1], 15)
    assert [e.token_id for e in events[other]] == result_of(events[other]).token_ids


# ---------------------------------------------------------------------- step by step


def test_requests_may_be_added_while_others_run(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=2, n_pages=8)
    ids, events = [], {}
    arrivals = {0: PROMPTS[0], 2: PROMPTS[1], 3: PROMPTS[2], 9: PROMPTS[3]}
    for step in range(200):
        if step in arrivals:
            ids.append(engine.add_request(arrivals[step], greedy(8)))
        for event in engine.run_one_step():
            events.setdefault(event.request_id, []).append(event)
        engine.page_table.check()
        if step > 9 and not engine.has_work:
            break
    assert len(set(ids)) == 4
    for request_id, prompt in zip(ids, arrivals.values(), strict=True):
        assert result_of(events[request_id]).token_ids == transformers_tokens(prompt, 8)


def test_a_step_gives_each_running_request_one_token(make_engine: MakeEngine) -> None:
    engine = make_engine()
    ids = [engine.add_request(prompt, greedy(5)) for prompt in PROMPTS[:3]]
    for _ in range(5):
        events = engine.run_one_step()
        assert sorted(event.request_id for event in events) == ids
        assert all(event.token_id is not None for event in events)
    assert not engine.has_work
    assert engine.run_one_step() == []


def test_the_prompt_given_is_not_changed_nor_kept(make_engine: MakeEngine) -> None:
    engine = make_engine()
    prompt = list(PROMPTS[0])
    engine.add_request(prompt, greedy(4))
    prompt[:] = [9] * 5
    (events,) = drive(engine).values()
    assert result_of(events).token_ids == EXPECTED[:4]
    assert prompt == [9] * 5


# ---------------------------------------------------------------------- sizes


def test_the_pool_takes_what_can_be_used_where_memory_is_plenty(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "free_memory", lambda device: 10**12)
    engine = make_engine(n_pages=None, max_batch_size=3, max_seq_length=100, page_size=16)
    assert engine.page_table.n_pages == 3 * 7


def test_the_pool_takes_a_part_of_the_free_memory_where_it_is_short(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.FAMILIES["llama"]()
    page = 16 * 2 * 2 * (16 + 16) * 4  # tokens × layers × key heads × (key + value) × float32
    monkeypatch.setattr(inference, "free_memory", lambda device: 20 * page)
    engine = make_engine(model, n_pages=None, page_size=16, max_seq_length=1024)
    assert kv_bytes_per_token(engine.layers, engine.dtype) * 16 == page
    assert engine.page_table.n_pages == 9, "half of a computer's free memory, less the sink"
    assert sum(c.k_cache.nbytes + c.v_cache.nbytes for c in engine.caches) <= 10 * page
    assert engine.generate([PROMPTS[0]], greedy(5))[0].token_ids == EXPECTED[:5]


def test_no_memory_is_an_error_with_numbers_and_the_model_stays_free(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.FAMILIES["llama"]()
    monkeypatch.setattr(inference, "free_memory", lambda device: 10_000)
    with pytest.raises(MemoryError, match="5,000 bytes are free for the KV cache"):
        make_engine(model, n_pages=None)
    monkeypatch.undo()
    make_engine(model)


def test_the_pool_that_the_engine_sizes_itself_can_be_addressed(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With much memory and a large batch: who did not choose n_pages must not be told that it is too large."""
    from flexnano import kv_cache

    monkeypatch.setattr(inference, "free_memory", lambda device: 10**12)
    monkeypatch.setattr(kv_cache, "LARGEST_POOL", 20 * 16 * 2 * 16)  # 20 pages of 16 tokens, 2 heads of 16
    engine = make_engine(n_pages=None, max_batch_size=16, max_seq_length=128, page_size=16)
    assert engine.page_table.n_pages == 19


# ---------------------------------------------------------------------- what a step is made of


@given(st.integers(1, 5000))
@settings(max_examples=300)
def test_a_prefill_is_padded_little_and_to_few_lengths(n_tokens: int) -> None:
    engine = Inference.__new__(Inference)
    engine.device, engine.prefill_block = torch.device("cpu"), 32
    length = engine.prefill_length(n_tokens)
    assert length >= n_tokens
    assert length % 32 == 0
    assert length <= n_tokens * 1.25 + 32, "more than a quarter is padding"
    assert engine.prefill_length(length) == length, "a padded length is a length"
    below_next_power = {engine.prefill_length(n) for n in range(2**11 + 1, 2**12 + 1, 7)}
    assert len(below_next_power) <= 4


@pytest.mark.parametrize("n_tokens", [1, 127, 128, 129, 1000, 4097])
def test_on_a_gpu_each_length_is_a_power_of_two(n_tokens: int) -> None:
    engine = Inference.__new__(Inference)
    engine.device, engine.prefill_block = torch.device("cuda"), 128
    length = engine.prefill_length(n_tokens)
    assert length >= max(n_tokens, 128)
    assert length == 128 or length < 2 * n_tokens
    assert length & (length - 1) == 0


def assert_lists_the_blocks_of(block_mask: Any, dense_BQK: torch.Tensor) -> None:
    partial, full = classify_blocks(dense_BQK[:, None], block_mask.BLOCK_SIZE)
    for name, blocks, num, indices in (
        ("partial", partial, block_mask.kv_num_blocks, block_mask.kv_indices),
        ("full", full, block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
    ):
        for place in itertools.product(*map(range, num.shape)):
            listed = sorted(indices[place][: num[place]].tolist())
            assert listed == blocks[place].nonzero().flatten().tolist(), f"{name} blocks at {place}"


@pytest.mark.parametrize("window", [None, families.WINDOW])
def test_the_prefill_mask_is_causal_documents_in_a_window(make_engine: MakeEngine, window: int | None) -> None:
    engine = make_engine("gemma2")
    lengths = [30, 1, 60]
    document_L = torch.tensor([d for d, n in enumerate(lengths) for _ in range(n)] + list(range(96, 101)))
    start_L = torch.tensor([0] * 30 + [30] + [31] * 60 + [91, 92, 93, 94, 95])
    engine.documents[:96] = document_L
    mask = engine.get_prefill_block_mask(start_L, window)
    mods = [causal, packed_documents(document_L)] + ([sliding_window(window)] if window else [])
    dense = dense_mask(all_of(*mods), 1, 1, 96, 96)
    assert torch.equal(dense_mask(mask.mask_mod, 1, 1, 96, 96), dense)
    assert_lists_the_blocks_of(mask, dense[:, 0])


@pytest.mark.parametrize("window", [None, families.WINDOW])
def test_the_decode_mask_reads_up_to_the_newest_token_within_the_window(
    make_engine: MakeEngine, window: int | None
) -> None:
    engine = make_engine("gemma2", max_batch_size=8)
    positions = [0, 15, 16, 40, 127, 63, 5]
    slots = torch.tensor([3, 7, 1, 2, 5, 4, 0])
    engine.positions[:7] = torch.tensor(positions)
    mask = engine.get_decoding_block_mask(slots, window)
    key = torch.arange(128)
    dense = torch.stack([(key <= p) & (key > p - (window or 999)) for p in positions])[:, None]
    assert torch.equal(dense_mask(mask.mask_mod, 7, 1, 1, 128)[:, 0], dense)
    dense[6] = False  # slot 0 is padding
    assert_lists_the_blocks_of(mask, dense)


def test_padding_rows_of_a_decode_change_nothing(make_engine: MakeEngine) -> None:
    """On a GPU a decode is filled up with rows of slot 0; that the others don't notice can be seen anywhere."""
    engine = make_engine()
    for prompt in PROMPTS[:2]:
        engine.add_request(prompt, greedy(9))
    engine.run_one_step()
    first, second = engine.scheduler.running
    for sequence in (first, second):
        assert engine.page_table.reserve(sequence.slot, len(sequence))
    slots = torch.tensor([second.slot, 0, first.slot, 0])
    ids = torch.tensor([second.token_ids[-1], 0, first.token_ids[-1], 0])
    positions = torch.tensor([len(second) - 1, 0, len(first) - 1, 0])
    with torch.inference_mode():
        logits = engine.decode_step(slots, ids, positions)
    assert logits.isfinite().all()
    for b, sequence in ((0, second), (2, first)):
        expected = families.reference_logits(families.FAMILIES["llama"](), sequence.token_ids)[-1]
        torch.testing.assert_close(logits[b], expected, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------- describe


def test_the_engine_says_what_it_is(make_engine: MakeEngine) -> None:
    text = make_engine("gemma2", n_pages=33).describe()
    for part in (
        "Gemma2ForCausalLM",
        "torch.float32 on cpu",
        "2 reading everything",
        f"2 reading a window of {families.WINDOW}",
        "gather (asked for)",
        "33 pages of 16 tokens",
        "4 sequences of up to 128 tokens",
    ):
        assert part in text


def test_the_path_may_come_from_the_environment(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXNANO_ATTENTION", "eager")
    engine = make_engine(attention=None)
    assert engine.path == "eager"
    assert "eager" in engine.describe()


def test_float16_and_bfloat16_models_are_served(make_engine: MakeEngine) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        engine = make_engine(families.FAMILIES["llama"]().to(dtype))
        assert engine.caches[0].k_cache.dtype == dtype
        (result,) = engine.generate([PROMPTS[0]], greedy(5, logprobs=0))
        assert result.finish_reason == "length"
        assert result.logprobs is not None and all(math.isfinite(v) for row in result.logprobs for v in row.values())
        logits = families.reference_logits(families.FAMILIES["llama"](), PROMPTS[0] + result.token_ids[:-1])
        expected_TV = logits[len(PROMPTS[0]) - 1 :].log_softmax(-1)
        for token, row, expected_V in zip(result.token_ids, result.logprobs, expected_TV, strict=True):
            assert row[token] == pytest.approx(expected_V[token].item(), abs=0.3)
