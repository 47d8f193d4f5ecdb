"""Bad input and trouble: a clear error that names the value, for the request that it is about, and nothing left behind."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import families
import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flexnano import Inference, Result, SamplingParams, TokenEvent, UnsupportedModel, inference, kv_cache

MakeEngine = Callable[..., Inference]
AssertIdle = Callable[[Inference], None]
PROMPTS = [families.random_prompt(n, seed=n) for n in (5, 21, 3, 16)]


def greedy(n: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=n, **more)


def right_tokens(prompt: list[int], n: int) -> list[int]:
    return families.reference_tokens(families.FAMILIES["llama"](), prompt, n)


def results_of(events: list[TokenEvent]) -> dict[int, Result]:
    return {event.request_id: event.result for event in events if event.result is not None}


def finish(engine: Inference) -> dict[int, Result]:
    """Run until nothing is left."""
    results: dict[int, Result] = {}
    for _ in range(500):
        if not engine.has_work:
            return results
        results |= results_of(engine.run_one_step())
    raise AssertionError("500 steps, and still work to do")


def assert_answers(engine: Inference) -> None:
    """The engine can still be used, and is right."""
    (result,) = engine.generate([PROMPTS[1]], greedy(4))
    assert (result.finish_reason, result.token_ids) == ("length", right_tokens(PROMPTS[1], 4)), result.error


# ---------------------------------------------------------------------- prompts

BAD_PROMPTS: list[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "no tokens"),
    ([], ValueError, "no tokens"),
    (torch.tensor([], dtype=torch.int64), ValueError, "no tokens"),
    ([5] * 128, ValueError, r"128 tokens .* max_seq_length 128"),
    ([5, families.VOCAB], ValueError, rf"token id {families.VOCAB} .* 0 to {families.VOCAB - 1}"),
    ([-1, 5], ValueError, "token id -1 .* 0 to"),
    ([5, 6.0], TypeError, "6.0 .* float"),
    ([5, "w6"], TypeError, "'w6' .* str"),
    ([5, None], TypeError, "None"),
    ([True, 5], TypeError, "True .* bool"),
    ([[5, 6]], TypeError, "list"),
    ([torch.tensor([5, 6])], TypeError, "token ids are integers"),
    ([torch.tensor(5.5)], TypeError, "token ids are integers"),
    (torch.tensor([5.5, 6.5]), TypeError, "float"),
    (torch.tensor([[5, 6]]), TypeError, "Tensor"),
    (5, TypeError, "int"),
    (None, TypeError, "NoneType"),
    (b"w5", TypeError, "bytes"),
    ({"role": "user", "content": "w5"}, TypeError, "dict"),
    ([{"role": "user", "content": "w5"}, 5], TypeError, "dict"),
]


@pytest.mark.parametrize(("prompt", "error", "named"), BAD_PROMPTS, ids=[f"{p!r:.24}" for p, _, _ in BAD_PROMPTS])
def test_a_bad_prompt_is_named_and_concerns_nobody_else(
    make_engine: MakeEngine, assert_idle: AssertIdle, prompt: Any, error: type[Exception], named: str
) -> None:
    engine = make_engine()
    with pytest.raises(error, match=named):
        engine.add_request(prompt)
    assert_idle(engine)
    assert not engine.has_work

    before, refused, after = engine.generate([PROMPTS[0], prompt, PROMPTS[2]], greedy(3))
    assert refused.finish_reason == "refused"
    assert refused.error is not None and refused.error
    assert (refused.token_ids, refused.text) == ([], "")
    assert before.token_ids == right_tokens(PROMPTS[0], 3)
    assert after.token_ids == right_tokens(PROMPTS[2], 3)


def test_a_prompt_that_never_fits_the_pool_is_refused_and_the_others_are_answered(make_engine: MakeEngine) -> None:
    engine = make_engine(n_pages=2, page_size=16)
    too_long = families.random_prompt(33, seed=0)
    with pytest.raises(ValueError, match=r"33 tokens can never run: .* 2 pages of 16 tokens, 32 tokens.*n_pages"):
        engine.add_request(too_long)
    first, refused, last = engine.generate([PROMPTS[0], too_long, PROMPTS[2]], greedy(5))
    assert refused.finish_reason == "refused" and "33 tokens" in (refused.error or "")
    assert [first.token_ids, last.token_ids] == [right_tokens(PROMPTS[0], 5), right_tokens(PROMPTS[2], 5)]


def test_a_stream_says_at_once_what_it_refuses(make_engine: MakeEngine) -> None:
    engine = make_engine()
    events = list(engine.stream([[], PROMPTS[0], "w5", [999]], greedy(2)))
    refused = [event for event in events if event.finish_reason == "refused"]
    assert [event.index for event in refused] == [0, 3]
    assert all(event.result is not None and event.token_id is None for event in refused)
    assert sorted(event.index for event in events if event.finish_reason == "length") == [1, 2]


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        ("w5", "str"),
        (b"w5", "bytes"),
        (None, "NoneType"),
        (5, "int"),
        (iter([[5]]), "list_iterator"),
        ({"a": 1}, "dict"),
    ],
)
@pytest.mark.parametrize("call", ["generate", "stream"])
def test_prompts_that_are_no_list_are_an_error_at_once(
    make_engine: MakeEngine, prompts: Any, named: str, call: str
) -> None:
    engine = make_engine()
    with pytest.raises(TypeError, match=f"prompts is a {named}, but must be a list"):
        getattr(engine, call)(prompts)


@pytest.mark.parametrize(
    ("params", "error", "named"),
    [
        ([greedy(1)], ValueError, "1 sampling_params for 2 prompts"),
        ([greedy(1)] * 3, ValueError, "3 sampling_params for 2 prompts"),
        ([greedy(1), {"temperature": 1.0}], TypeError, "dict.*SamplingParams"),
        ({"temperature": 1.0}, TypeError, "dict.*SamplingParams"),
        (5, TypeError, "int.*SamplingParams"),
        (0.7, TypeError, "float.*SamplingParams"),
        ("greedy", TypeError, "str.*SamplingParams"),
    ],
)
def test_wrong_sampling_parameters_are_an_error_before_anything_runs(
    make_engine: MakeEngine, assert_idle: AssertIdle, params: Any, error: type[Exception], named: str
) -> None:
    engine = make_engine()
    for call in (engine.generate, engine.stream):
        with pytest.raises(error, match=named):
            call(PROMPTS[:2], params)  # type: ignore[operator]
    assert_idle(engine)


@pytest.mark.parametrize("params", [{"temperature": 1.0}, 5, "greedy", [greedy(1)]])
def test_one_request_takes_one_set_of_parameters(make_engine: MakeEngine, params: Any) -> None:
    with pytest.raises(TypeError, match=f"{type(params).__name__}.*SamplingParams"):
        make_engine().add_request(PROMPTS[0], params)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (dict(max_new_tokens=0), ValueError),
        (dict(max_new_tokens="5"), TypeError),
        (dict(temperature=-1), ValueError),
        (dict(temperature=float("nan")), ValueError),
        (dict(temperature=None), TypeError),
        (dict(top_k=-1), ValueError),
        (dict(top_k=1.5), TypeError),
        (dict(top_p=0), ValueError),
        (dict(top_p=1.1), ValueError),
        (dict(min_p=-0.1), ValueError),
        (dict(min_p=2), ValueError),
        (dict(seed=-1), ValueError),
        (dict(seed="x"), TypeError),
        (dict(stop=[1.5]), TypeError),
        (dict(stop=""), ValueError),
        (dict(logprobs=-1), ValueError),
        (dict(ignore_eos=1), TypeError),
    ],
)
def test_sampling_values_out_of_range_never_reach_the_engine(values: dict[str, Any], error: type[Exception]) -> None:
    name = "stop" if "stop" in values else next(iter(values))
    with pytest.raises(error, match=name):
        SamplingParams(**values)


def test_text_without_a_tokenizer_is_refused_and_says_what_to_give(make_engine: MakeEngine) -> None:
    engine = make_engine(tokenizer=None)
    for prompt in ("w5", [{"role": "user", "content": "w5"}]):
        with pytest.raises(TypeError, match="no tokenizer; give token ids"):
            engine.add_request(prompt)
    with pytest.raises(ValueError, match=r"stop strings .*'w5'.* need a tokenizer"):
        engine.add_request(PROMPTS[0], greedy(5, stop="w5"))


# ---------------------------------------------------------------------- a tokenizer in trouble


class Trouble(Exception):
    """No error that the engine could know."""


class Troubled:
    """A tokenizer that fails where it is told to."""

    def __init__(self, at: str, error: BaseException) -> None:
        self._tokenizer, self._at, self._error, self.asked = families.TinyTokenizer(), at, error, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str) -> Any:
        if self._at == "encode" and "w13" in text:
            raise self._error
        return self._tokenizer(text)

    def apply_chat_template(self, *_: Any, **__: Any) -> Any:
        raise self._error

    def decode(self, ids: Any, **how: Any) -> str:
        self.asked += 1
        if self._at == "decode" and self.asked > 3:
            raise self._error
        return self._tokenizer.decode(ids, **how)


@pytest.mark.parametrize("prompt", ["w13 w5", [{"role": "user", "content": "w5"}]], ids=["text", "chat"])
@pytest.mark.parametrize("error", [Trouble("roles must alternate"), ValueError("roles must alternate")])
def test_a_prompt_that_the_tokenizer_cannot_take_is_refused_alone(
    make_engine: MakeEngine, prompt: Any, error: Exception
) -> None:
    """Chat templates raise errors of their own kind: on roles that don't alternate, on a key that is missing."""
    engine = make_engine(tokenizer=Troubled("encode", error))
    refused, answered = engine.generate([prompt, PROMPTS[0]], greedy(3))
    assert refused.finish_reason == "refused" and "roles must alternate" in (refused.error or "")
    assert answered.token_ids == right_tokens(PROMPTS[0], 3)


@pytest.mark.parametrize("error", [Trouble("no such piece"), KeyboardInterrupt()])
def test_a_tokenizer_that_fails_while_decoding_leaves_nothing_behind(
    make_engine: MakeEngine, assert_idle: AssertIdle, error: BaseException
) -> None:
    tokenizer = Troubled("decode", error)
    engine = make_engine(tokenizer=tokenizer)
    try:
        results = engine.generate(PROMPTS[:3], greedy(9))
    except type(error):
        pass
    else:
        assert "no such piece" in str([result.error for result in results])
    finally:
        tokenizer.asked = -(10**6)  # it works again
    assert_idle(engine)
    assert_answers(engine)


@pytest.mark.parametrize("tokenizer", ["gpt2", 5, object()])
def test_what_is_no_tokenizer_is_refused_when_the_engine_is_made(make_engine: MakeEngine, tokenizer: Any) -> None:
    with pytest.raises(TypeError, match=f"tokenizer .*{type(tokenizer).__name__}"):
        make_engine(tokenizer=tokenizer)


# ---------------------------------------------------------------------- making an engine


@pytest.mark.parametrize("name", ["max_batch_size", "max_seq_length", "n_pages", "page_size", "max_prefill_tokens"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("4", TypeError), (True, TypeError)]
)
def test_impossible_sizes_are_refused_by_name(
    make_engine: MakeEngine, name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"{name} is {value!r}, but must be .*at least 1"):
        make_engine(**{name: value})


@pytest.mark.parametrize("page_size", [3, 12, 100])
def test_a_page_size_that_is_no_power_of_two_is_refused(make_engine: MakeEngine, page_size: int) -> None:
    with pytest.raises(ValueError, match=f"page_size {page_size} is not a power of two"):
        make_engine(page_size=page_size)


@pytest.mark.parametrize("attention", ["flash", 5])
def test_an_unknown_attention_path_is_refused_with_those_that_exist(make_engine: MakeEngine, attention: Any) -> None:
    with pytest.raises(ValueError, match=f"{attention!r}.*compiled, gather, eager"):
        make_engine(attention=attention)


@pytest.mark.parametrize("model", ["gpt2", None, nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(make_engine: MakeEngine, model: Any) -> None:
    with pytest.raises(TypeError, match=type(model).__name__):
        Inference(model, None)


def test_an_engine_that_could_not_be_made_leaves_the_model_free(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out at the second layer; the caller tries again with fewer pages."""
    model = families.FAMILIES["llama"]()
    made: list[int] = []

    class LastOne(kv_cache.PagedKVCache):
        def __init__(self, *args: Any) -> None:
            made.append(0)
            if len(made) == 2:
                raise MemoryError("no room for the second layer")
            super().__init__(*args)

    monkeypatch.setattr(kv_cache, "PagedKVCache", LastOne)
    with pytest.raises(MemoryError, match="second layer"):
        make_engine(model)
    monkeypatch.undo()
    assert not any(hasattr(module, "kv_cache") for module in model.modules()), "caches stayed in the model"
    assert_answers(make_engine(model))


# ---------------------------------------------------------------------- one engine a model


def test_a_second_engine_on_the_same_model_is_refused_until_the_first_is_closed(make_engine: MakeEngine) -> None:
    model = families.FAMILIES["llama"]()
    first = make_engine(model)
    with pytest.raises(UnsupportedModel, match=r"in use.*close\(\)"):
        make_engine(model)
    assert_answers(first)
    first.close()
    assert_answers(make_engine(model))


@pytest.mark.parametrize(("family", "implementation"), [("llama", "sdpa"), ("llama", "eager"), ("gemma2", "eager")])
def test_close_gives_the_model_back_as_it_was(make_engine: MakeEngine, family: str, implementation: str) -> None:
    model = families.FAMILIES[family]()
    model.set_attn_implementation(implementation)
    ids = torch.tensor([families.random_prompt(40, seed=1)])
    with torch.no_grad():
        logits_before = model(ids).logits
    config_before = copy.deepcopy(model.config)
    attributes_before = {name: set(vars(module)) for name, module in model.named_modules()}

    engine = make_engine(model)
    engine.generate([PROMPTS[1]], greedy(10))
    engine.add_request(PROMPTS[0])
    engine.run_one_step()
    engine.close()

    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits_before), "not the same model any more"
    assert model.config.to_dict() == config_before.to_dict()
    assert model.config._attn_implementation == implementation
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes_before
    generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert generated.shape == (1, 45)


def test_closing_ends_what_is_unfinished(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(max_batch_size=1)
    running, waiting = engine.add_request(PROMPTS[0]), engine.add_request(PROMPTS[1])
    engine.run_one_step()
    engine.close()
    assert_idle(engine)
    results = finish(engine)
    assert {i: r.finish_reason for i, r in results.items()} == {running: "aborted", waiting: "aborted"}
    assert "closed" in (results[running].error or "")
    assert not engine.abort(running)


def test_closing_twice_does_not_take_the_model_from_its_next_engine(make_engine: MakeEngine) -> None:
    model = families.FAMILIES["llama"]()
    with make_engine(model) as first:
        first.close()
        second = make_engine(model)
    assert_answers(second)


def test_a_closed_engine_says_so_instead_of_answering(make_engine: MakeEngine) -> None:
    """Its caches are gone: through the model's own attention, packed prompts would read each other."""
    engine = make_engine()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.add_request(PROMPTS[0])
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(PROMPTS)


def test_an_engine_closes_at_the_end_of_its_block_also_after_an_error() -> None:
    model = families.FAMILIES["llama"]()
    with pytest.raises(Trouble), Inference(model, None, n_pages=4, attention="gather") as engine:
        engine.add_request(PROMPTS[0])
        raise Trouble
    assert not any(hasattr(module, "kv_cache") for module in model.modules())
    assert model.config._attn_implementation in ("eager", "sdpa")


# ---------------------------------------------------------------------- aborting


def test_one_that_waits_can_be_aborted(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(max_batch_size=1)
    running, waiting = engine.add_request(PROMPTS[0], greedy(4)), engine.add_request(PROMPTS[1], greedy(4))
    engine.run_one_step()
    assert engine.abort(waiting)
    results = finish(engine)
    assert (results[waiting].finish_reason, results[waiting].token_ids) == ("aborted", [])
    assert results[running].token_ids == right_tokens(PROMPTS[0], 4)
    assert_idle(engine)


def test_one_that_runs_can_be_aborted_and_frees_its_pages_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine()
    aborted, other = engine.add_request(PROMPTS[1], greedy(9)), engine.add_request(PROMPTS[0], greedy(9))
    for _ in range(3):
        engine.run_one_step()
    available = engine.page_table.pages_available
    assert engine.abort(aborted)
    assert engine.page_table.pages_available > available
    engine.page_table.check()
    results = finish(engine)
    assert results[aborted].finish_reason == "aborted"
    assert results[aborted].token_ids == right_tokens(PROMPTS[1], 3), "what was made so far is handed over"
    assert results[aborted].text == engine.tokenizer.decode(results[aborted].token_ids)
    assert results[other].token_ids == right_tokens(PROMPTS[0], 9)


def test_one_that_lost_its_pages_can_be_aborted(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(page_size=4, n_pages=5)
    old, new = (engine.add_request(families.random_prompt(8, seed), greedy(10)) for seed in (1, 2))
    while not engine.scheduler.preemptions:
        engine.run_one_step()
    assert engine.abort(new)
    results = finish(engine)
    assert results[new].finish_reason == "aborted" and results[new].token_ids
    assert results[old].token_ids == right_tokens(families.random_prompt(8, 1), 10)
    assert_idle(engine)


def test_one_in_a_stream_can_be_aborted_from_outside(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine()
    results: dict[int, Result] = {}
    for event in engine.stream(PROMPTS[:2], greedy(10)):
        if event.index == 0 and event.result is None:
            engine.abort(event.request_id)
        if event.result is not None:
            results[event.index] = event.result
    assert results[0].finish_reason == "aborted" and len(results[0].token_ids) == 1
    assert results[1].token_ids == right_tokens(PROMPTS[1], 10)
    assert_idle(engine)


def test_what_is_not_there_cannot_be_aborted(make_engine: MakeEngine) -> None:
    engine = make_engine()
    request = engine.add_request(PROMPTS[0], greedy(2))
    assert not engine.abort(request + 1)
    assert engine.abort(request)
    assert not engine.abort(request), "it has ended already"
    results = finish(engine)
    assert list(results) == [request]
    assert not engine.abort(request)


# ---------------------------------------------------------------------- the model raises


@contextmanager
def failing(module: nn.Module, when: Callable[[int], bool], error: BaseException) -> Iterator[None]:
    """`module` raises `error` instead of running if `when(number of tokens or rows that it is given)`."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if when(hidden.shape[1]):
            raise error

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def in_prefill(n_tokens: int) -> bool:
    return n_tokens > 1


def in_decode(n_tokens: int) -> bool:
    return n_tokens == 1


ERRORS = [Trouble("cosmic ray"), RuntimeError("cosmic ray"), KeyboardInterrupt("cosmic ray")]


@pytest.mark.parametrize("layer", [0, 1, "lm_head"])
@pytest.mark.parametrize("when", [in_prefill, in_decode])
@pytest.mark.parametrize("error", ERRORS, ids=[type(e).__name__ for e in ERRORS])
def test_an_error_in_the_model_comes_out_of_generate_and_leaves_nothing_behind(
    make_engine: MakeEngine,
    assert_idle: AssertIdle,
    layer: int | str,
    when: Callable[[int], bool],
    error: BaseException,
) -> None:
    engine = make_engine(max_batch_size=2, n_pages=8)
    if layer == "lm_head":
        module, fails = engine.model.lm_head, (lambda n: when(n) or when is in_prefill)
    else:
        module, fails = engine.layers[int(layer)].module, when
    with failing(module, fails, error), pytest.raises(type(error), match="cosmic ray"):
        engine.generate(PROMPTS, greedy(6))
    assert_idle(engine)
    assert not engine.has_work
    assert_answers(engine)


def test_an_error_ends_the_requests_of_its_step_by_name_and_no_other(
    make_engine: MakeEngine, assert_idle: AssertIdle
) -> None:
    engine = make_engine(max_batch_size=2)
    ids = [engine.add_request(prompt, greedy(5)) for prompt in PROMPTS]
    engine.run_one_step()
    with failing(engine.layers[1].module, in_decode, Trouble("cosmic ray")), pytest.raises(Trouble):
        engine.run_one_step()
    engine.page_table.check()
    assert engine.page_table.pages_available == engine.page_table.n_pages

    results = finish(engine)
    for request_id in ids[:2]:
        assert results[request_id].finish_reason == "error"
        assert results[request_id].error == "Trouble: cosmic ray"
        assert len(results[request_id].token_ids) == 1, "what was made before is handed over"
    for request_id, prompt in zip(ids[2:], PROMPTS[2:], strict=True):
        assert results[request_id].finish_reason == "length", "this one only waited"
        assert results[request_id].token_ids == right_tokens(prompt, 5)
    assert_idle(engine)


def test_an_error_in_a_prefill_spares_those_who_run(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(max_batch_size=3)
    running = engine.add_request(PROMPTS[0], greedy(8))
    engine.run_one_step()
    hit = engine.add_request(PROMPTS[1], greedy(8))
    with failing(engine.layers[0].module, in_prefill, Trouble("cosmic ray")), pytest.raises(Trouble):
        for _ in range(40):
            engine.run_one_step()
    results = finish(engine)
    assert (results[hit].finish_reason, results[hit].token_ids) == ("error", [])
    assert results[running].token_ids == right_tokens(PROMPTS[0], 8)
    assert_idle(engine)


def test_an_error_in_generate_spares_the_requests_that_others_queued(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=1)
    with failing(engine.layers[0].module, in_decode, Trouble("cosmic ray")), pytest.raises(Trouble):
        stream = engine.stream([PROMPTS[0]], greedy(5))
        next(stream)
        queued = engine.add_request(PROMPTS[2], greedy(5))
        next(stream)
    results = finish(engine)
    assert list(results) == [queued]
    assert results[queued].token_ids == right_tokens(PROMPTS[2], 5)


def test_an_interrupt_while_sampling_frees_everything(
    make_engine: MakeEngine, assert_idle: AssertIdle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    n_sampled, sample = [0], inference.sample

    def interrupted(*args: Any) -> Any:
        n_sampled[0] += 1
        if n_sampled[0] == 4:
            raise KeyboardInterrupt
        return sample(*args)

    monkeypatch.setattr(inference, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, greedy(10))
    assert_idle(engine)
    assert not engine.has_work
    assert_answers(engine)


def test_an_interrupt_of_the_one_who_reads_the_stream_frees_everything(
    make_engine: MakeEngine, assert_idle: AssertIdle
) -> None:
    engine = make_engine()
    stream = engine.stream(PROMPTS, greedy(10))
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert_idle(engine)
    assert_answers(engine)


# ---------------------------------------------------------------------- logits that are no numbers


@contextmanager
def logits_replaced(engine: Inference, row: int, value: float, everywhere: bool) -> Iterator[None]:
    """In each decode of two or more, the logits of one row hold `value`, at one place or everywhere."""

    def hook(_: nn.Module, __: Any, logits: torch.Tensor) -> torch.Tensor:
        if logits.shape[0] > 1:
            logits = logits.clone()
            logits[row, :, slice(None) if everywhere else 7] = value
        return logits

    handle = engine.model.lm_head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("value", "everywhere"), [(float("nan"), False), (float("nan"), True), (float("inf"), False), (-float("inf"), True)]
)
def test_logits_that_are_no_numbers_end_that_request_alone(
    make_engine: MakeEngine, assert_idle: AssertIdle, value: float, everywhere: bool, temperature: float
) -> None:
    params = SamplingParams(max_new_tokens=6, temperature=temperature, seed=1, logprobs=2)
    expected = make_engine().generate(PROMPTS[:3], params)
    engine = make_engine()
    with logits_replaced(engine, row=1, value=value, everywhere=everywhere):
        results = engine.generate(PROMPTS[:2], params)
    assert results[0].token_ids == expected[0].token_ids
    assert results[1].finish_reason == "error"
    assert "not finite" in (results[1].error or "")
    assert results[1].token_ids == expected[1].token_ids[:1]
    assert results[1].logprobs is not None and len(results[1].logprobs) == 1
    assert_idle(engine)
    assert_answers(engine)


POISON = 77


@contextmanager
def poisoned(engine: Inference, token: int = POISON) -> Iterator[None]:
    """A token whose embedding overflowed: all that is computed from it is NaN, keys and values too."""
    weight = engine.model.get_input_embeddings().weight
    with torch.no_grad():
        before = weight[token].clone()
        weight[token] = float("nan")
        try:
            yield
        finally:
            weight[token] = before


@pytest.mark.parametrize("path", ["gather", "eager"])
def test_nan_keys_and_values_do_not_outlive_their_request(make_engine: MakeEngine, path: str) -> None:
    """A masked key is not unread: 0 · NaN is NaN, for whoever gets the page next, or shares a step with the sink."""
    engine = make_engine(attention=path, n_pages=6)
    with poisoned(engine):
        (bad,) = engine.generate([[5] * 30 + [POISON] + [6] * 9], greedy(5))
        assert bad.finish_reason == "error" and "not finite" in (bad.error or "")
    for prompts in ([PROMPTS[0]], PROMPTS[:3]):  # different lengths: the shorter rows are filled up
        results = engine.generate(prompts, greedy(6))
        assert [r.finish_reason for r in results] == ["length"] * len(prompts), [r.error for r in results]
        assert [r.token_ids for r in results] == [right_tokens(p, 6) for p in prompts]


@pytest.mark.parametrize("bad_first", [True, False])
def test_nan_in_one_prompt_does_not_reach_the_prompts_packed_with_it(make_engine: MakeEngine, bad_first: bool) -> None:
    engine = make_engine()
    bad_prompt = [5, POISON, 6]
    prompts = [bad_prompt, PROMPTS[0]] if bad_first else [PROMPTS[0], bad_prompt]
    with poisoned(engine):
        results = engine.generate(prompts, greedy(5))
    bad, good = results if bad_first else results[::-1]
    assert bad.finish_reason == "error"
    assert (good.finish_reason, good.token_ids) == ("length", right_tokens(PROMPTS[0], 5)), good.error


def test_nan_in_one_row_of_a_decode_does_not_reach_the_others(make_engine: MakeEngine) -> None:
    """Its page has the lowest number: gathering fills up shorter rows with pages that they do not read."""
    engine = make_engine()
    prompts = [PROMPTS[2], PROMPTS[0], families.random_prompt(60, seed=60)]
    bad, *good = [right_tokens(prompt, 6) for prompt in prompts]
    assert bad[2] not in {*bad[:2], *good[0], *good[1], *prompts[0], *prompts[1], *prompts[2]}
    with poisoned(engine, token=bad[2]):
        results = engine.generate(prompts, greedy(6))
    assert (results[0].finish_reason, results[0].token_ids) == ("error", bad[:3])
    assert [result.token_ids for result in results[1:]] == good, [result.error for result in results]


# ---------------------------------------------------------------------- out of pages


def test_a_lone_sequence_that_outgrows_the_pool_ends_by_name(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(n_pages=2, page_size=16)
    (result,) = engine.generate([PROMPTS[1]], greedy(99))
    assert result.finish_reason == "out_of_pages"
    assert result.token_ids == right_tokens(PROMPTS[1], 12), "32 tokens in the cache; the 33rd is the last answer"
    assert "33 tokens" in (result.error or "") and "n_pages" in (result.error or "")
    assert_idle(engine)
    assert_answers(engine)


def test_several_that_outgrow_the_pool_one_after_the_other_all_end(
    make_engine: MakeEngine, assert_idle: AssertIdle
) -> None:
    engine = make_engine(n_pages=3, page_size=8)
    results = engine.generate(PROMPTS[:3] * 2, greedy(99))
    assert {r.finish_reason for r in results} == {"out_of_pages"}
    for prompt, result in zip(PROMPTS[:3] * 2, results, strict=True):
        assert result.token_ids == right_tokens(prompt, 25 - len(prompt))
    assert_idle(engine)


def test_a_prompt_that_fills_the_pool_still_gets_its_first_token(make_engine: MakeEngine) -> None:
    engine = make_engine(n_pages=1, page_size=16)
    one, more = engine.generate([PROMPTS[3], PROMPTS[3]], [greedy(1), greedy(2)])
    assert (one.finish_reason, more.finish_reason) == ("length", "out_of_pages")
    assert one.token_ids == more.token_ids == right_tokens(PROMPTS[3], 1)


def test_one_chat_without_the_list_around_it_is_named(make_engine: MakeEngine) -> None:
    with pytest.raises(TypeError, match=r"messages of one chat.*\[messages\]"):
        make_engine().generate([{"role": "user", "content": "Hello"}])


def test_kernel_options_must_be_a_dict(make_engine: MakeEngine) -> None:
    with pytest.raises(TypeError, match="kernel_options is a str"):
        make_engine(kernel_options="fast")


def test_a_wrong_path_in_the_environment_is_said_to_come_from_there(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXNANO_ATTENTION", "flash")
    with pytest.raises(ValueError, match="'flash' .*FLEXNANO_ATTENTION"):
        make_engine(attention=None)


# --------------------------------------------------------------------------------------------------------------- fuzzed

ANY_NUMBER = st.one_of(
    st.integers(-3, 12),
    st.floats(0, 1),
    st.integers(),
    st.floats(),
    st.sampled_from([2**31, 2**63, 2**64, -0.0, 1e-320, True, None, "1", b"1", float("nan")]),
)
ANY_TEXT = st.text(st.characters(), max_size=40)  # control characters and halves of pairs of surrogates among them
ANY_STOP = st.one_of(
    ANY_TEXT, st.integers(), st.lists(st.one_of(ANY_TEXT, st.integers(-2, 90), ANY_NUMBER), max_size=4)
)
VALUES = {
    **dict.fromkeys(["max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "logprobs", "n"], ANY_NUMBER),
    "stop": ANY_STOP,
    "ignore_eos": st.one_of(st.booleans(), ANY_NUMBER),
}
SOME_VALUES = st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
)
IDS = st.lists(st.one_of(st.integers(-2, families.VOCAB + 2), st.integers(), ANY_NUMBER), max_size=140)
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "name", ""]), st.one_of(ANY_TEXT, st.none(), st.integers())
)
ANY_PROMPT = st.one_of(
    ANY_TEXT,
    st.lists(st.sampled_from(["w5", "w6", " ", "\0", "é", "\ud800", "\u202e"]), max_size=200).map("".join),
    IDS,
    IDS.map(tuple),
    st.lists(MESSAGE, max_size=3),
    st.recursive(ANY_NUMBER, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.sampled_from(["w5 " * 20_000, [5] * 100_000, range(5), {5}, object, torch.tensor([5, 6]), torch.zeros(0)]),
)
fuzzed = hypothesis.settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


def test_any_sampling_values_are_refused_by_name_or_answered(
    make_engine: MakeEngine, assert_idle: AssertIdle, counted: Callable[[str, int], None]
) -> None:
    engine, tried = make_engine(), {"refused": 0, "answered": 0}

    @given(SOME_VALUES)
    @fuzzed
    def one(values: dict[str, Any]) -> None:
        try:
            params = SamplingParams(**values)
        except (ValueError, TypeError) as error:
            assert any(name in str(error) for name in values), f"{values}: {error}"
            tried["refused"] += 1
            return
        if params.n > 8:
            return  # any number may be asked for
        short = dataclasses.replace(params, max_new_tokens=min(params.max_new_tokens, 5))
        (result,) = engine.generate([PROMPTS[0]], short)
        assert result.finish_reason in ("length", "stop", "refused"), result
        assert_idle(engine)
        tried["answered"] += 1

    one()
    assert min(tried.values()) > 20, tried
    assert_answers(engine)
    counted("sampling parameters", sum(tried.values()))


def test_any_prompt_is_refused_in_words_or_answered(
    make_engine: MakeEngine, assert_idle: AssertIdle, counted: Callable[[str, int], None]
) -> None:
    engine, tried = make_engine(), {"refused": 0, "answered": 0}
    right = right_tokens(PROMPTS[2], 2)

    @given(ANY_PROMPT)
    @fuzzed
    def one(prompt: Any) -> None:
        result, other = engine.generate([prompt, PROMPTS[2]], greedy(2))
        refused = result.finish_reason == "refused"
        assert bool(result.error) == refused, result
        assert other.token_ids == right, f"{prompt!r} changed another's answer"
        assert_idle(engine)
        tried["refused" if refused else "answered"] += 1

    one()
    assert min(tried.values()) > 10, tried
    assert_answers(engine)
    counted("prompts", sum(tried.values()))


# ------------------------------------------------------------------------------------------------ models of other people


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few weights, with a tokenizer, as it lies on a disk."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model") / "tiny"
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, bos_token_id=1, eos_token_id=2)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(8)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def copy_of(folder: Path, to: Path, **config: Any) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    read = json.loads((to / "config.json").read_text(encoding="utf-8"))
    (to / "config.json").write_text(json.dumps({**read, **config}), encoding="utf-8")
    return to


def ask(folder: Path, *options: str) -> int:
    """Ask the model in a folder on the command line.  Returns the exit code."""
    sizes = [
        "--device",
        "cpu",
        "--max-new-tokens",
        "2",
        "--max-seq-length",
        "32",
        "--n-pages",
        "4",
        "--page-size",
        "16",
    ]
    command = importlib.import_module("flexnano.__main__")
    return int(command.main(["--model", str(folder), "--attention", "eager", *sizes, *options, "w3 w4"]))


def test_a_model_that_brings_code_is_refused_and_its_code_never_runs(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked whether to run the code"))
    own = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model", "AutoTokenizer": ["theirs.T", None]}
    folder = copy_of(model_folder, tmp_path / "theirs", model_type="theirs", auto_map=own)
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    assert ask(folder) == 2
    said = capsys.readouterr().err
    assert "brings code of its own, which is not run" in said and len(said.splitlines()) == 1
    assert not ran.exists()


def test_only_safetensors_are_read_unless_asked_for(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    assert ask(model_folder) == 0
    folder = copy_of(model_folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    capsys.readouterr()
    assert ask(folder) == 2
    said = capsys.readouterr().err
    assert "--allow-pickle" in said and len(said.splitlines()) == 1
    assert ask(folder, "--allow-pickle") == 0


def test_a_pickle_that_would_run_code_does_not_run_it_even_then(model_folder: Path, tmp_path: Path) -> None:
    """transformers reads pickles with the reader of torch that makes tensors and nothing else."""
    ran = tmp_path / "ran"
    folder = copy_of(model_folder, tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Touches(ran)}, folder / "pytorch_model.bin")
    assert ask(folder) == 2
    assert ask(folder, "--allow-pickle") == 2
    assert not ran.exists()


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
