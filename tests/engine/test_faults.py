"""Faults, one a test: whatever breaks on the way, nobody else is harmed, nobody is lost, and nothing stays taken.

`test_bad_input.py` and `test_fast_path.py` hold the plainest cases.  Here are those in between: any layer at any step,
memory that runs out, an interrupt at any line, and what other threads and processes do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import families
import pytest
import torch
from ledger import Ledger, alone
from torch import nn

import flexnano
from course import counts
from flexnano import Inference, Result, SamplingParams, UnsupportedModel, cuda_graphs, fast_path

MakeEngine = Callable[..., Inference]
AssertIdle = Callable[[Inference], None]
both_paths = pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])

PROMPTS = [families.random_prompt(n, seed=n) for n in (5, 21, 3, 16)]
N_TOKENS = [9, 4, 12, 1]
SMALL = dict(page_size=4, n_pages=11, max_batch_size=3)  # sequences give way to each other, and one has to wait


@pytest.fixture(autouse=True)
def count_what_was_survived(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each fault that was really there is noted where it is made, and counts if the test passes."""
    counts.settle(passed=False)
    failed = request.session.testsfailed
    yield
    counts.settle(passed=request.session.testsfailed == failed)


def survived(n: int = 1) -> None:
    counts.note("faults", n)


class Trouble(Exception):
    """No error that the engine could know."""


def greedy(n: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=n)


def asked(engine: Inference) -> Ledger:
    ledger = Ledger(engine)
    for prompt, n_tokens in zip(PROMPTS, N_TOKENS, strict=True):
        ledger.add(prompt, n_tokens)
    return ledger


def assert_answers(engine: Inference) -> None:
    """The engine can still be used, and is right: also where a page or a slot was used before the fault."""
    results = engine.generate(PROMPTS, [greedy(n) for n in N_TOKENS])
    for prompt, n_tokens, result in zip(PROMPTS, N_TOKENS, results, strict=True):
        assert (result.finish_reason, result.token_ids) == ("length", alone(prompt, n_tokens)), result.error


@contextmanager
def failing_at(module: nn.Module, call: int, error: BaseException) -> Iterator[list[int]]:
    """`module` raises `error` at its call number `call`, counted from 0; what it is given is the number of calls."""
    calls = [0]

    def hook(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == call + 1:
            survived()
            raise error

    handle = module.register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def failing_once(function: Callable[..., Any], error: BaseException, call: int = 0, before: bool = True) -> Any:
    """`function`, but its call number `call` raises `error`, before it has done anything or after it has done all."""
    calls = [0]

    def failing(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        fails = calls[0] == call + 1
        survived(fails)
        if fails and before:
            raise error
        result = function(*args, **more)
        if fails:
            raise error
        return result

    return failing


def run_through(ledger: Ledger, error: type[BaseException]) -> set[int]:
    """Step until all is done.  Returns the requests that ended in the step that raised `error`, if one did."""
    hit: set[int] = set()
    engine = ledger.engine
    for _ in range(400):
        if not engine.has_work:
            break
        before = set(ledger.results)
        try:
            ledger.step()
        except error:
            assert not hit, "the fault comes once"
            engine.page_table.check()
            ledger.note(engine._take_events(lambda _event: True))
            hit = {request for request in ledger.results if request not in before}
    return hit


# ---------------------------------------------------------------------- the model raises


def modules_of(engine: Inference) -> dict[str, nn.Module]:
    model = engine.model
    first, last = model.model.layers[0], model.model.layers[-1]
    return {
        "embedding": model.model.embed_tokens,
        "first attention": first.self_attn,
        "between keys and attention": last.self_attn.o_proj,
        "last layer": last.mlp,
        "last norm": model.model.norm,
        "logits": model.lm_head,
    }


@both_paths
@pytest.mark.parametrize("where", ["embedding", "first attention", "between keys and attention", "last norm", "logits"])
def test_a_model_that_raises_at_any_layer_and_step_harms_nobody_but_the_rows_of_that_step(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, where: str
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    module, call = modules_of(engine)[where], 0
    while True:
        ledger = asked(engine)
        with failing_at(module, call, Trouble("cosmic ray")) as calls:
            hit = run_through(ledger, Trouble)
        ledger.check(may_fail=hit)
        assert_idle(engine)
        if calls[0] <= call:
            break
        assert len(hit) <= engine.max_batch_size, f"at call {call} even those who waited were ended: {sorted(hit)}"
        for request in hit:
            assert ledger.results[request].finish_reason in ("error", "length")
        call += 1
    assert call >= 12, f"only {call} steps: too few to speak of any step"
    assert_answers(engine)


@both_paths
def test_a_model_that_raises_in_every_other_step_still_loses_no_request(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    """Again and again: nothing is used up by a fault, such as the buffers that tokens are read through."""
    engine = make_engine(**SMALL, fast=fast)
    for _ in range(6):
        ledger = asked(engine)
        for call in range(60):
            if not engine.has_work:
                break
            try:
                with failing_at(engine.model.lm_head, call % 2, Trouble("cosmic ray")):
                    ledger.step()
            except Trouble:
                pass
        assert not engine.has_work
        ledger.check(may_fail=ledger.asked)
        assert_idle(engine)
    assert_answers(engine)


# ---------------------------------------------------------------------- the tokenizer raises


class Troubled:
    """A tokenizer that fails at its decode number `call`, or from then on."""

    def __init__(self, call: int, for_good: bool) -> None:
        self._tokenizer, self.call, self.for_good, self.calls = families.TinyTokenizer(), call, for_good, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str) -> Any:
        return self._tokenizer(text)

    def decode(self, ids: Any, **how: Any) -> str:
        self.calls += 1
        if self.calls > self.call and (self.for_good or self.calls == self.call + 1):
            survived()
            raise Trouble("no such piece")
        return self._tokenizer.decode(ids, **how)


@both_paths
def test_a_tokenizer_that_fails_once_ends_one_request_by_name_whenever_it_is(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    tokenizer = Troubled(10**9, for_good=False)
    engine = make_engine(**SMALL, fast=fast, tokenizer=tokenizer)
    for call in range(0, 60, 7):
        ledger = asked(engine)
        tokenizer.calls, tokenizer.call = 0, call
        ledger.drain()
        failed = [request for request, result in ledger.results.items() if result.finish_reason == "error"]
        assert len(failed) == (call < tokenizer.calls), f"at decode {call}"
        ledger.check(may_fail=failed)
        assert all("no such piece" in (ledger.results[request].error or "") for request in failed)
        assert_idle(engine)
    tokenizer.call = 10**9
    assert_answers(engine)


@both_paths
def test_a_tokenizer_that_is_broken_for_good_ends_all_and_keeps_nobody_from_aborting(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    tokenizer = Troubled(6, for_good=True)
    engine = make_engine(**SMALL, fast=fast, tokenizer=tokenizer)
    ledger = asked(engine)
    ledger.step()
    assert engine.abort(3)
    ledger.drain()
    ledger.check(may_fail=ledger.asked)
    assert ledger.results[3].finish_reason == "aborted"
    assert_idle(engine)
    tokenizer.call = 10**9
    assert_answers(engine)


# ---------------------------------------------------------------------- memory runs out


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_out_of_memory_while_a_graph_is_recorded_ends_that_step_and_the_graph_is_recorded_next_time(
    make_engine: MakeEngine, assert_idle: AssertIdle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first decode of a batch size records its graph; half a recording is thrown away."""

    class OutOfMemory(cuda_graphs.Graph):
        def __init__(self, function: Callable[[], None], device: torch.device, pool: object = None) -> None:
            function()  # memory lasted for running it, but not for recording
            survived()
            raise out_of_memory()

    for n_requests in (1, 3):
        engine = make_engine(**SMALL, fast=True)
        ledger = Ledger(engine)
        for prompt in PROMPTS[:n_requests]:
            ledger.add(prompt, 5)
        with monkeypatch.context() as patch:
            patch.setattr(fast_path, "Graph", OutOfMemory)
            ledger.step()
            with pytest.raises(torch.OutOfMemoryError):
                for _ in range(9):
                    ledger.step()
        assert engine.fast is not None and not engine.fast.graphs, "a graph that was not recorded is kept"
        ledger.drain()
        ledger.check(may_fail=ledger.asked)
        assert {result.finish_reason for result in ledger.results.values()} == {"error"}
        assert "OutOfMemoryError" in (ledger.results[0].error or ""), ledger.results[0].error
        assert_idle(engine)
        assert_answers(engine)


@both_paths
@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_out_of_memory_in_a_step_ends_its_rows_by_name_and_the_rest_is_answered(
    make_engine: MakeEngine, assert_idle: AssertIdle, monkeypatch: pytest.MonkeyPatch, fast: bool, step: str
) -> None:
    """Memory runs out deep inside: a layer has written its keys and values already."""
    engine = make_engine(**SMALL, fast=fast)
    ledger, mlp, forward = asked(engine), engine.model.model.layers[1].mlp, engine.model.model.layers[1].mlp.forward
    ran_out = []

    def scarce(hidden: torch.Tensor) -> torch.Tensor:
        if (hidden.shape[1] > 1) == (step == "prefill") and not ran_out:
            ran_out.append(hidden.shape)
            survived()
            raise out_of_memory()
        return forward(hidden)

    monkeypatch.setattr(mlp, "forward", scarce)
    hit = run_through(ledger, torch.OutOfMemoryError)
    assert ran_out and hit
    ledger.check(may_fail=hit)
    assert any("OutOfMemoryError: CUDA out of memory" in (ledger.results[request].error or "") for request in hit)
    assert_idle(engine)
    assert_answers(engine)


@both_paths
@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_out_of_memory_while_pages_are_handed_out_leaves_no_sequence_half_admitted(
    make_engine: MakeEngine,
    assert_idle: AssertIdle,
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
    call: int,
    before: bool,
) -> None:
    """The table lies on the device, and writing into it takes memory.  A sequence with pages that the table does not list
    would read those of nobody."""
    engine = make_engine(**SMALL, fast=fast)
    ledger = asked(engine)
    reserve = failing_once(engine.page_table.reserve, out_of_memory(), call, before)
    monkeypatch.setattr(engine.page_table, "reserve", reserve)
    hit = run_through(ledger, torch.OutOfMemoryError)
    assert hit, "nobody was ended by name"
    ledger.check(may_fail=hit)
    assert_idle(engine)
    assert_answers(engine)


def test_out_of_memory_while_the_fast_path_is_set_up_leaves_the_model_free(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.FAMILIES["llama"]()
    for what in ("DecodeState", "DecodeMask", "LateTokens"):
        with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
            patch.setattr(fast_path, what, failing_once(getattr(fast_path, what), out_of_memory()))
            make_engine(model, fast=True)
        assert not any(hasattr(module, "kv_cache") for module in model.modules()), f"{what}: caches stayed in the model"
    assert_answers(make_engine(model, fast=True))


# ---------------------------------------------------------------------- who asked goes away


@pytest.mark.parametrize("n_events", [0, 1, 2, 3, 5, 8, 13, 20, 25])
def test_a_stream_closed_at_any_event_gives_everything_back_also_what_is_in_flight(
    make_engine: MakeEngine, assert_idle: AssertIdle, n_events: int
) -> None:
    engine = make_engine(**SMALL, fast=True)
    stream = engine.stream(PROMPTS, [greedy(n) for n in N_TOKENS])
    for _ in range(n_events):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    survived()
    assert_idle(engine)
    assert not engine.has_work, "the one who asked is gone, and still there is work"
    assert_answers(engine)


@both_paths
def test_who_leaves_a_stream_takes_nobody_along(make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool) -> None:
    engine = make_engine(**SMALL, fast=fast)
    for n_events in range(0, 12, 2):
        ledger = Ledger(engine)
        ledger.add(PROMPTS[1], 9)
        stream = engine.stream([PROMPTS[0], PROMPTS[2]], greedy(9))
        for _ in range(n_events):
            next(stream)
        ledger.add(PROMPTS[3], 5)
        stream.close()  # type: ignore[attr-defined]
        survived()
        ledger.drain()
        ledger.check()
        assert_idle(engine)


@both_paths
@pytest.mark.parametrize("n_steps", [0, 1, 2, 3, 4, 6, 9])
def test_aborting_at_any_step_ends_that_request_alone(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, n_steps: int
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    for aborted in range(4):
        ledger = asked(engine)
        first = min(ledger.asked)
        for _ in range(n_steps):
            ledger.step()
        was_there = first + aborted in ledger.unfinished
        assert engine.abort(first + aborted) == was_there
        survived(was_there)
        ledger.drain()
        ledger.check(may_fail=[first + aborted])
        assert ledger.results[first + aborted].finish_reason == ("aborted" if was_there else "length")
        assert_idle(engine)


# ---------------------------------------------------------------------- interrupts

PACKAGE = str(Path(flexnano.__path__[0]))
BOOKKEEPING = {"page_table.py", "scheduler.py"}
BOOKKEEPERS = {"add_request", "_stream", "_end", "_take_events"}
"""Where pages, slots and requests change hands, in a few lines of Python.  An interrupt there is a matter of microseconds in
a step of milliseconds, and what it leaves behind is not promised."""


@contextmanager
def interrupted_at(line: int, within: Collection[str] = ()) -> Iterator[list[str]]:
    """Ctrl-C at line number `line` of those that the engine executes (in these functions), `BOOKKEEPING` left out."""
    where: list[str] = []
    n_lines = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal n_lines
        path, caller = Path(frame.f_code.co_filename), frame
        while caller.f_code.co_name.startswith("<") and caller.f_back is not None:  # a comprehension or a lambda
            caller = caller.f_back
        if str(path.parent) != PACKAGE or path.name in BOOKKEEPING or caller.f_code.co_name in BOOKKEEPERS:
            return None
        if event == "line" and not where and (not within or caller.f_code.co_name in within):
            n_lines += 1
            if n_lines > line:
                where.append(f"{path.name}:{frame.f_lineno} in {frame.f_code.co_name}")
                survived()
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(before)


@both_paths
@pytest.mark.parametrize("stride", [97, pytest.param(11, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_line_of_generate_frees_every_page_and_spares_who_only_waited(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, stride: int
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    params = [greedy(n) for n in N_TOKENS]
    for n in range(10_000):
        with interrupted_at(n * stride + n % stride) as where, contextlib.suppress(KeyboardInterrupt):
            engine.generate(PROMPTS, params)
        if not where:
            break
        assert not engine._requests and not engine._events and not engine._streamed, f"{where[0]}: something is left"
        try:
            assert_idle(engine)
        except AssertionError as error:
            raise AssertionError(f"interrupted at {where[0]}: {error}") from error
        assert not engine.has_work, f"interrupted at {where[0]}, there is still work"
        if n % 8 == 0:
            assert_answers(engine)
    assert n >= 10
    assert_answers(engine)


def test_ctrl_c_again_and_again_while_a_step_is_read_mixes_up_no_tokens(
    make_engine: MakeEngine, assert_idle: AssertIdle
) -> None:
    """At every other line that reads a step and hands out its tokens, run after run: what an interrupt leaves behind must
    not meet the next."""
    engine = make_engine(**SMALL, fast=True)
    params = [greedy(n) for n in N_TOKENS]
    for n in range(1000):
        with interrupted_at(2 * n, within=("_read_one", "read")) as where, contextlib.suppress(KeyboardInterrupt):
            engine.generate(PROMPTS, params)
        if not where:
            break
        assert_idle(engine)
        if n % 5 == 4:
            assert_answers(engine)
    assert n > 25
    assert_answers(engine)


def interrupted_while_waiting(send: Callable[..., Any], call: int) -> Callable[..., Any]:
    """As `LateTokens.send`, but whoever waits for the copy number `call` is interrupted."""
    copies = [0]

    class Interrupted:
        def synchronize(self) -> None:
            survived()
            raise KeyboardInterrupt

    def sending(token_B: torch.Tensor) -> Any:
        copies[0] += 1
        buffer, n, event = send(token_B)
        return buffer, n, Interrupted() if copies[0] == call + 1 else event

    return sending


@both_paths
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_ctrl_c_while_tokens_are_read_ends_requests_by_name_and_forgets_none(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the device is where a program spends its time, so that is where Ctrl-C finds it, again and again."""
    engine = make_engine(**SMALL, fast=fast)
    for call in range(12):
        ledger = asked(engine)
        with monkeypatch.context() as patch:
            if engine.fast is None:
                next_tokens = failing_once(engine._next_tokens, KeyboardInterrupt(), call, before)
                patch.setattr(engine, "_next_tokens", next_tokens)
            elif before:
                patch.setattr(engine.fast.late, "send", interrupted_while_waiting(engine.fast.late.send, call))
            else:
                patch.setattr(engine, "_accept", failing_once(engine._accept, KeyboardInterrupt(), call))
            hit = run_through(ledger, KeyboardInterrupt)
        assert hit, f"at read {call} nobody was ended by name"
        ledger.check(may_fail=hit)
        assert_idle(engine)
        assert_answers(engine)


# ---------------------------------------------------------------------- logits that are no numbers

POISON = 77


@contextmanager
def poisoned(engine: Inference, token: int = POISON) -> Iterator[None]:
    """A token whose embedding overflowed: all that is computed from it is NaN, keys and values too."""
    weight = engine.model.get_input_embeddings().weight
    with torch.no_grad():
        before = weight[token].clone()
        weight[token] = float("nan")
        survived()
        try:
            yield
        finally:
            weight[token] = before


@both_paths
@pytest.mark.parametrize("n_tokens", [1, 2, 5])
def test_keys_and_values_that_are_nan_do_not_outlive_their_request_however_short_it_is(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, n_tokens: int
) -> None:
    """Whoever gets the page next fills only a part of it, and 0 · NaN is NaN for the rest."""
    engine = make_engine(page_size=16, n_pages=3, fast=fast)
    with poisoned(engine):
        (bad,) = engine.generate([[5] * 30 + [POISON] + [6] * 9], greedy(n_tokens))
    assert bad.finish_reason == "error" and "not finite" in (bad.error or "") and bad.token_ids == []
    assert_idle(engine)
    assert_answers_where_pages_are_wide(engine)


@both_paths
@pytest.mark.parametrize("n_tokens", [1, 3])
def test_nan_in_one_prompt_does_not_reach_those_packed_with_it_however_short_their_answers(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, n_tokens: int
) -> None:
    engine = make_engine(fast=fast)
    ledger = Ledger(engine)
    with poisoned(engine):
        bad = ledger.add([5, POISON, 6], n_tokens)
        ledger.add(PROMPTS[0], n_tokens)
        ledger.add(PROMPTS[2], n_tokens)
        ledger.drain()
    assert (ledger.results[bad].finish_reason, ledger.results.pop(bad).token_ids) == ("error", [])
    del ledger.asked[bad]
    ledger.check()
    assert_idle(engine)


@both_paths
def test_out_of_pages_hands_over_every_token_that_was_made(make_engine: MakeEngine, fast: bool) -> None:
    """The last token needs no place in the pool, and may be on its way when the pool is too small for the next."""
    engine = make_engine(page_size=4, n_pages=6, fast=fast)
    (result,) = engine.generate([PROMPTS[0]], greedy(40))
    survived()
    assert (result.finish_reason, result.token_ids) == ("out_of_pages", alone(PROMPTS[0], 20)), result.error


def assert_answers_where_pages_are_wide(engine: Inference) -> None:
    for prompts in ([PROMPTS[0]], PROMPTS[:3]):
        results = engine.generate(prompts, greedy(6))
        for prompt, result in zip(prompts, results, strict=True):
            assert (result.finish_reason, result.token_ids) == ("length", alone(prompt, 6)), result.error


@both_paths
@pytest.mark.parametrize("n_tokens", range(3, 9))
def test_a_token_that_turns_to_nan_ends_its_request_alone_also_as_the_last_one_or_the_last_but_one(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, n_tokens: int
) -> None:
    """The token that the third step makes is poison: what follows it is NaN, whether or not that is the last token, and
    whether or not its pages have been given to somebody else when the host learns of it."""
    prompt = families.random_prompt(3, seed=7)
    tokens = alone(prompt, n_tokens)
    others = [PROMPTS[0], PROMPTS[3], PROMPTS[1]]
    clean = {token for other in others for token in (*other, *alone(other, 20))}
    assert tokens[2] not in {*tokens[:2], *prompt, *clean}
    engine = make_engine(page_size=4, n_pages=14, max_batch_size=4, fast=fast)
    ledger = Ledger(engine)
    with poisoned(engine, tokens[2]):
        ledger.add(others[0], 20)
        bad = ledger.add(prompt, n_tokens)
        ledger.add(others[1], 20)
        ledger.add(others[2], 9)
        ledger.drain()
    expected = ("length", tokens) if n_tokens == 3 else ("error", tokens[:3])
    assert (ledger.results[bad].finish_reason, ledger.results[bad].token_ids) == expected
    ledger.check(may_fail=[bad])
    assert_idle(engine)
    assert_answers(engine)


# ---------------------------------------------------------------------- more than one: engines, threads, processes


@both_paths
def test_a_second_engine_that_is_refused_does_not_disturb_the_first_at_work(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    ledger = asked(engine)
    while engine.has_work:
        for second in (False, True):
            with pytest.raises(UnsupportedModel, match=r"in use.*close\(\)"):
                make_engine(engine.model, fast=second)
            survived()
        ledger.step()
    ledger.check()
    assert_idle(engine)


def test_two_engines_on_two_models_that_take_turns_do_not_mix_anything_up(make_engine: MakeEngine) -> None:
    ledgers = [
        Ledger(make_engine(family, **SMALL, fast=fast), family)
        for family, fast in (("llama", True), ("qwen3", True), ("gemma2", False))
    ]
    for ledger in ledgers:
        for prompt, n_tokens in zip(PROMPTS, N_TOKENS, strict=True):
            ledger.add(prompt, n_tokens)
    while any(ledger.engine.has_work for ledger in ledgers):
        for ledger in ledgers:
            ledger.step()
    for ledger in ledgers:
        ledger.check()


@both_paths
def test_threads_may_add_requests_at_once_while_another_runs_the_steps(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    """Each gets a number of its own and its own tokens; the queue may grow in the middle of a step."""
    engine = make_engine(**SMALL, fast=fast)
    n_threads, n_each = 8, 12
    added: dict[int, int] = {}
    troubles: list[BaseException] = []
    start = threading.Barrier(n_threads + 1)

    def add(which: int) -> None:
        try:
            start.wait()
            for i in range(n_each):
                text = " ".join(f"w{token}" for token in PROMPTS[(which + i) % 3])
                request = engine.add_request(text, greedy(2))
                assert request not in added, f"request number {request} was given twice"
                added[request] = (which + i) % 3
        except BaseException as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=add, args=(which,)) for which in range(n_threads)]
    results: dict[int, Result] = {}
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        start.wait()
        while any(thread.is_alive() for thread in threads) or engine.has_work:
            for event in engine.run_one_step() if engine.has_work else []:
                if event.result is not None:
                    assert event.request_id not in results
                    results[event.request_id] = event.result
    finally:
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join()
    survived(n_threads)
    assert not troubles, troubles
    assert sorted(results) == sorted(added) and len(added) == n_threads * n_each, "a request was lost"
    for request, which in added.items():
        assert results[request].token_ids == alone(PROMPTS[which], 2), f"request {request}: {results[request].error}"
    assert_idle(engine)


@both_paths
def test_another_thread_may_add_a_request_just_while_the_scheduler_reads_the_queue(
    make_engine: MakeEngine, fast: bool
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    ledger = Ledger(engine)
    pages_missing, more, threads = engine.page_table.pages_missing, list(PROMPTS), []

    def meanwhile(slot: int, n_tokens: int) -> int:
        if more:
            threads.append(threading.Thread(target=ledger.add, args=(more.pop(), 3)))
            threads[-1].start()
            threads[-1].join(timeout=0.05)  # it may have to wait until the step is chosen
        return pages_missing(slot, n_tokens)

    ledger.add(PROMPTS[0], 3)
    engine.page_table.pages_missing = meanwhile  # type: ignore[method-assign]
    ledger.drain()
    for thread in threads:
        thread.join()
    ledger.drain()
    ledger.check()
    assert len(ledger.results) == 5
    survived(len(threads))


@both_paths
@pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="this system forks no process with torch"
)
def test_a_forked_process_goes_on_with_a_copy_and_the_first_with_its_own(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    engine = make_engine(**SMALL, fast=fast)
    ledger = asked(engine)
    for _ in range(3):
        ledger.step()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ledger.drain()
            ledger.check()
            assert_idle(engine)
            code = 0
        finally:
            os._exit(code)  # nothing of pytest runs twice
    ledger.drain()
    ledger.check()
    assert_idle(engine)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child did not get the same tokens"
    survived()


# ---------------------------------------------------------------------- with the options of the homeworks

ALL = dict(prefix_sharing=True, sliding_window=20, attention_sinks=2, fuse_prefill=True, prefill_chunk=12)
SHARED = dict(prefix_sharing=True, fuse_prefill=True, prefill_chunk=12)
SAME = families.random_prompt(14, seed=77)
ALIKE = [SAME, [*SAME, 9, 8], SAME[:10], [*SAME[:9], 5, 6]]
"""Prompts that begin alike: sequences with the same pages, and copies of the page in which they part."""

options = pytest.mark.parametrize("more", [SHARED, ALL], ids=["shared", "all"])


def asked_alike(engine: Inference) -> list[int]:
    """A first request, whose pages the others find."""
    engine.generate([SAME], greedy(1))
    return [engine.add_request(prompt, greedy(n)) for prompt, n in zip(ALIKE, N_TOKENS, strict=True)]


def assert_answers_alike(engine: Inference, right: list[list[int]]) -> None:
    for _ in range(2):  # the second time all is found in shared pages
        results = engine.generate(ALIKE, [greedy(n) for n in N_TOKENS])
        assert [result.token_ids for result in results] == right, [result.error for result in results]


def answers_of_a_new_engine(make_engine: MakeEngine, more: dict[str, Any]) -> list[list[int]]:
    """One prompt after the other, each on an engine of its own without sharing: nothing can have been mixed up."""
    found = []
    for prompt, n in zip(ALIKE, N_TOKENS, strict=True):
        engine = make_engine(**SMALL, **{**more, "prefix_sharing": False})
        found += engine.generate([prompt], greedy(n))
        engine.close()
    return [result.token_ids for result in found]


@both_paths
@options
@pytest.mark.parametrize("what", ["reserve", "share", "make_writable", "remember"])
def test_out_of_memory_while_pages_are_shared_ends_requests_by_name_and_no_page_is_lost(
    make_engine: MakeEngine,
    assert_idle: AssertIdle,
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
    more: dict[str, Any],
    what: str,
) -> None:
    right = answers_of_a_new_engine(make_engine, more)
    engine = make_engine(**SMALL, fast=fast, **more)
    planner = engine.planner
    assert planner is not None and planner.groups[0].sharing is not None
    sharing, fired = planner.groups[0].sharing, 0
    at = planner.groups[0].table if what == "reserve" else sharing
    for call, before in [(0, True), (0, False), (1, True), (2, False)]:
        asked = asked_alike(engine)
        ended: dict[int, Result] = {}
        with monkeypatch.context() as patch:
            patch.setattr(at, what, failing_once(getattr(at, what), out_of_memory(), call, before))
            for _ in range(200):
                if not engine.has_work:
                    break
                try:
                    events = engine.run_one_step()
                except torch.OutOfMemoryError:
                    fired += 1
                    events = engine._take_events(lambda _event: True)
                for event in events:
                    if event.result is not None:
                        assert event.request_id not in ended
                        ended[event.request_id] = event.result
        assert sorted(ended) == sorted(asked), "a request was lost"
        for request, tokens in zip(asked, right, strict=True):
            result = ended[request]
            assert result.token_ids == tokens[: len(result.token_ids)]
            assert result.finish_reason == "length" or "OutOfMemoryError" in (result.error or ""), result.error
        assert_idle(engine)
    assert fired >= 2, f"{what} was called too seldom to prove anything"
    assert_answers_alike(engine, right)


@options
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_a_stream_closed_at_any_event_gives_back_shared_pages_too(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool, more: dict[str, Any]
) -> None:
    right = answers_of_a_new_engine(make_engine, more)
    engine = make_engine(**SMALL, fast=fast, **more)
    for n_events in range(0, 26, 3):
        stream = engine.stream(ALIKE, [greedy(n) for n in N_TOKENS])
        for _ in range(n_events):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        survived()
        assert_idle(engine)
        assert not engine.has_work
    assert_answers_alike(engine, right)


@both_paths
def test_threads_may_add_requests_whose_pages_are_shared_while_another_runs_the_steps(
    make_engine: MakeEngine, assert_idle: AssertIdle, fast: bool
) -> None:
    right = answers_of_a_new_engine(make_engine, SHARED)
    engine = make_engine(**SMALL, fast=fast, **SHARED)
    added: dict[int, int] = {}
    troubles: list[BaseException] = []

    def add(which: int) -> None:
        try:
            for _ in range(6):
                added[engine.add_request(ALIKE[which], greedy(N_TOKENS[which]))] = which
        except BaseException as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=add, args=(which,)) for which in range(4)]
    results: dict[int, Result] = {}
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or engine.has_work:
            for event in engine.run_one_step() if engine.has_work else []:
                if event.result is not None:
                    results[event.request_id] = event.result
    finally:
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join()
    survived(len(threads))
    assert not troubles, troubles
    assert sorted(results) == sorted(added) and len(added) == 24, "a request was lost"
    for request, which in added.items():
        assert results[request].token_ids == right[which], f"request {request}: {results[request].error}"
    assert_idle(engine)


# ---------------------------------------------------------------------- a machine that cannot compile

ANSWER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import families
from flexnano import Inference, SamplingParams
try:
    engine = Inference(
        families.FAMILIES["llama"](), families.TinyTokenizer(), 4, 128, 32, 16, attention=sys.argv[2] or None
    )
except RuntimeError as error:
    print("REFUSED", error)
    sys.exit()
(result,) = engine.generate([families.random_prompt(21, seed=21)], SamplingParams(max_new_tokens=4))
print("PATH", engine.path)
print("REASON", engine.path_reason)
print("TOKENS", result.token_ids)
"""


def answer_in_a_process(variables: dict[str, str], attention: str = "") -> dict[str, str]:
    """What an engine in a new process says of itself and gives for `PROMPTS[1]`."""
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(Path(__file__).parent), attention],
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.skipif(sys.platform != "linux", reason="where the compiler and its cache are looked for differs")
@pytest.mark.parametrize(
    "trouble",
    ["no compiler", "a cache that cannot be written", pytest.param("a broken compiler", marks=pytest.mark.slow)],
)
def test_where_nothing_can_be_compiled_the_engine_says_why_and_answers_all_the_same(
    tmp_path: Path, trouble: str
) -> None:
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    if trouble == "a cache that cannot be written":
        variables["TORCHINDUCTOR_CACHE_DIR"] = "/proc"  # root may write into any other folder
    elif trouble == "no compiler":
        variables["CXX"] = str(tmp_path / "none")
    else:
        (tmp_path / "broken").write_text("#!/bin/sh\necho internal compiler error >&2; exit 1\n")
        (tmp_path / "broken").chmod(0o755)
        variables["CXX"] = str(tmp_path / "broken")
    said = answer_in_a_process(variables)
    assert said["PATH"] == "gather", said
    assert said["REASON"].startswith("compiling FlexAttention failed ("), said
    assert said["TOKENS"] == str(alone(PROMPTS[1], 4))
    survived()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="where the compiler is looked for differs")
def test_compiled_attention_that_was_asked_for_by_name_is_refused_with_the_reason(tmp_path: Path) -> None:
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "CXX": str(tmp_path / "none")}
    said = answer_in_a_process(variables, "compiled")
    assert "attention='compiled' does not work on this machine: compiling FlexAttention failed" in said["REFUSED"]
    survived()
