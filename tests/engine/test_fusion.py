"""Prefill beside decode (homework 10) in the engine: who is in a step, what it costs, and that the numbers are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from homeworks import (
    NO_WINDOW,
    Window,
    ask,
    assert_all_given_back,
    assert_results,
    assert_right,
    dense_logits,
    run_to_the_end,
)
from torch._dynamo.utils import counters

from flexnano import Inference, Result, SamplingParams
from flexnano.extras import Extras

MakeEngine = Callable[..., Inference]
ROOT = Path(__file__).resolve().parents[2]
both_paths = pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
LENGTHS = (3, 40, 7, 60, 16, 1, 33)
PROMPTS = [families.random_prompt(n, seed=n) for n in LENGTHS]
SIZES = dict(tokenizer=None, page_size=16, n_pages=40, max_batch_size=4, fuse_prefill=True)
TOLERANCE = 2e-4  # of log-probabilities, float32; as in parity.py


def greedy(n: int, **more: Any) -> SamplingParams:
    return SamplingParams(max_new_tokens=n, **more)


def watched(engine: Inference) -> list[dict[str, Any]]:
    """What each step from now on consists of: its rows as (request, start, tokens), and the shapes of the model's calls."""
    assert engine.planner is not None
    steps: list[dict[str, Any]] = []
    next_step = engine.planner.next_step

    def choose() -> list[Any]:
        unfinished = {one.request_id for one in engine.planner.unfinished}  # type: ignore[union-attr]
        running = {one.request_id for one in engine.scheduler.running}
        rows = next_step()
        steps.append(
            dict(
                decoding=running - unfinished,
                still_running={one.request_id for one in engine.scheduler.running},
                rows=[(row.sequence.request_id, row.start, row.n_tokens, row.is_prefill) for row in rows],
                shapes=[],
            )
        )
        return rows

    def note(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        steps[-1]["shapes"].append(tuple(inputs["input_ids"].shape))

    engine.planner.next_step = choose  # type: ignore[method-assign]
    engine.model.register_forward_pre_hook(note, with_kwargs=True)
    return steps


# ---------------------------------------------------------------------- who is in a step


@both_paths
@pytest.mark.parametrize("chunk", [1, 2, 5, 16, 64])
def test_a_step_has_at_most_the_budget_and_everyone_who_decodes(
    make_engine: MakeEngine, chunk: int, fast: bool
) -> None:
    """With requests that come while others run.  One token of a prompt gets through however many decode."""
    engine = make_engine(**SIZES, prefill_chunk=chunk, fast=fast)
    steps = watched(engine)
    requests = []
    results: dict[int, Result] = {}
    for prompt in PROMPTS:
        requests.append(engine.add_request(prompt, greedy(12)))
        for _ in range(3):
            results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
    results |= run_to_the_end(engine)
    assert_results(PROMPTS, [results[request] for request in requests], greedy(12))
    mixed = 0
    for step in steps:
        decodes = [row for row in step["rows"] if not row[3]]
        prompts = [row for row in step["rows"] if row[3]]
        n_prompt_tokens = sum(row[2] for row in prompts)
        assert len(decodes) + n_prompt_tokens <= max(chunk, len(decodes) + 1), f"more than {chunk} tokens: {step}"
        # By the fast path one may have ended whose last token the host has not read.
        assert {row[0] for row in decodes} == step["decoding"] & step["still_running"], f"somebody was left out: {step}"
        assert all(row[2] == 1 for row in decodes)
        mixed += bool(decodes and prompts)
    assert mixed > 3, "no step had both, so nothing was seen"
    for request, prompt in zip(requests, PROMPTS, strict=True):
        parts = [(row[1], row[2]) for step in steps for row in step["rows"] if row[3] and row[0] == request]
        assert [start for start, _ in parts] == [sum(n for _, n in parts[:i]) for i in range(len(parts))]
        assert sum(n for _, n in parts) == len(prompt), "each token of the prompt is computed once"


def test_a_step_is_one_call_of_the_model_on_one_row(make_engine: MakeEngine) -> None:
    engine = make_engine(**SIZES, prefill_chunk=24)
    steps = watched(engine)
    requests = [engine.add_request(prompt, greedy(8)) for prompt in PROMPTS]
    results = run_to_the_end(engine)
    assert len(results) == len(requests)
    block = 32
    for step in steps:
        if not step["rows"]:
            continue
        (shape,) = step["shapes"]
        prompts = [row for row in step["rows"] if row[3]]
        n_decodes = len(step["rows"]) - len(prompts)
        assert shape == (1, n_decodes + sum(-(-row[2] // block) * block for row in prompts)), (
            "a token for each decode row, and whole blocks of one prompt each"
        )


@both_paths
def test_running_requests_get_a_token_a_step_while_a_long_prompt_is_computed(
    make_engine: MakeEngine, fast: bool
) -> None:
    engine = make_engine(**SIZES | dict(max_seq_length=256), prefill_chunk=16, fast=fast)
    runners = [engine.add_request(prompt, greedy(40)) for prompt in PROMPTS[:2]]
    for _ in range(8):
        engine.run_one_step()
    late = engine.add_request(families.random_prompt(200, seed=9), greedy(1))
    waits = dict.fromkeys(runners, 0)
    n_steps = 0
    while late in engine._requests:
        seen = {event.request_id for event in engine.run_one_step() if event.token_id is not None}
        n_steps += 1
        for runner in runners:
            waits[runner] = 0 if runner in seen else waits[runner] + 1
            assert waits[runner] == 0, f"a running request waited, {n_steps} steps after the long prompt came"
    assert n_steps >= 200 // 16, "the prompt was computed at once"


def test_without_fusion_they_wait(make_engine: MakeEngine) -> None:
    """What the test above would see if it were not so."""
    engine = make_engine(**SIZES | dict(max_seq_length=256, fuse_prefill=False, prefix_sharing=True))
    runner = engine.add_request(PROMPTS[0], greedy(40))
    for _ in range(5):
        engine.run_one_step()
    engine.add_request(families.random_prompt(200, seed=9), greedy(1))
    seen = [bool([e for e in engine.run_one_step() if e.request_id == runner]) for _ in range(4)]
    assert not all(seen)


# ---------------------------------------------------------------------- numbers


@both_paths
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "mistral"])
@pytest.mark.parametrize("path", ["gather", "eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_logits_are_those_of_a_dense_model_token_by_token(
    make_engine: MakeEngine, family: str, path: str, fast: bool
) -> None:
    if path == "eager" and family not in ("llama", "gemma2"):
        pytest.skip("two families are enough on the slowest path")
    engine = make_engine(family, **SIZES, prefill_chunk=24, attention=path, fast=fast)
    params = greedy(6, logprobs=families.VOCAB)
    results = ask(engine, PROMPTS, params)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.logprobs is not None and len(result.token_ids) == 6
        expected_TV = dense_logits((*prompt, *result.token_ids[:-1]), family)[len(prompt) - 1 :].log_softmax(-1)
        got_TV = torch.tensor([[row[token] for token in range(families.VOCAB)] for row in result.logprobs])
        assert (got_TV - expected_TV).abs().max() < TOLERANCE
        assert_right(prompt, result.token_ids, params, family)


@both_paths
@pytest.mark.parametrize("n_pages", [40, 7], ids=["", "preempted"])
@pytest.mark.parametrize("window", [NO_WINDOW, Window(20), Window(20, 3)], ids=["", "window", "sinks"])
@pytest.mark.parametrize("sharing", [False, True], ids=["", "sharing"])
def test_sampled_and_greedy_tokens_are_those_of_an_engine_without_fusion(
    make_engine: MakeEngine, fast: bool, n_pages: int, window: Window, sharing: bool
) -> None:
    params = [greedy(20, temperature=i % 3 * 0.6, seed=i, top_k=i % 2 * 20) for i in range(len(PROMPTS))]
    engine = make_engine(
        **SIZES | dict(n_pages=n_pages), prefill_chunk=12, fast=fast, prefix_sharing=sharing, **window.options
    )
    results = engine.generate(PROMPTS, params)
    assert_results(PROMPTS, results, params, window=window)
    assert bool(engine.stats.preemptions) == (n_pages == 7)
    assert_all_given_back(engine)
    if window is NO_WINDOW:
        plain = make_engine(**SIZES | dict(fuse_prefill=False)).generate(PROMPTS, params)
        assert [r.token_ids for r in results] == [r.token_ids for r in plain]


@pytest.mark.parametrize("at", range(0, 40, 5))
def test_an_interrupt_anywhere_in_a_fused_step_gives_everything_back(make_engine: MakeEngine, at: int) -> None:
    """With all options at once; the model is where a step spends its time."""
    engine = make_engine(
        **SIZES | dict(n_pages=12), prefill_chunk=12, prefix_sharing=True, sliding_window=20, attention_sinks=2
    )
    calls = [0]

    def interrupt(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == at + 1:
            raise KeyboardInterrupt

    handles = [
        module.register_forward_pre_hook(interrupt) for module in engine.model.modules() if module is not engine.model
    ]
    calls[0] = -11 * at  # so that it comes in another step each time, too
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, greedy(12))
    for handle in handles:
        handle.remove()
    assert not engine._requests and not engine.has_work
    assert_all_given_back(engine)
    assert_results(PROMPTS, ask(engine, PROMPTS, greedy(12)), greedy(12), window=Window(20, 2))


@pytest.mark.parametrize(
    ("needed", "recorded"), [(1, 3), (3, 3), (4, 6), (9, 9), (10, 11), (11, 11), (12, 12), (13, 15), (23, 24)]
)
def test_few_sizes_of_steps_are_recorded_and_one_fits_a_full_budget_beside_a_full_batch(
    make_engine: MakeEngine, needed: int, recorded: int
) -> None:
    """Budget 360: eleven rows of 32 hold what is left of it beside eight that decode."""
    engine = make_engine(max_batch_size=8, fuse_prefill=True, prefill_chunk=360, fast=True)
    assert engine.fast is not None and engine.fast.mixed is not None
    assert engine.fast.mixed.rows_recorded(needed) == recorded


@pytest.mark.compiles
@pytest.mark.parametrize("family", ["llama", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_the_compiled_path_gives_the_same_and_compiles_nothing_in_steady_state(
    make_engine: MakeEngine, family: str
) -> None:
    """With every option.  A CPU has a graph for each number of rows; once those have been seen, none is made any more,
    whatever the tokens, positions, slots and pages are."""
    window = Window(20, 3) if family == "llama" else Window(20)
    options = dict(prefix_sharing=True, prefill_chunk=48, attention="compiled", **window.options)
    engine = make_engine(family, **SIZES | dict(max_seq_length=160), **options)
    lengths = (50, 2, 31, 9)
    warm_up, prompts = ([families.random_prompt(n, seed=first + n) for n in lengths] for first in (200, 100))
    assert_results(warm_up, ask(engine, warm_up, greedy(12)), greedy(12), family, window)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0, "nothing was compiled, so that this test would pass without a compiler"
    with torch._dynamo.config.patch(error_on_recompile=True):
        results = ask(engine, prompts, greedy(12))
    assert_results(prompts, results, greedy(12), family, window)
    assert counters["stats"]["unique_graphs"] == graphs, "a step compiled a graph anew"


# ---------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("option", "error", "said"),
    [
        (dict(prefix_sharing=1), TypeError, "prefix_sharing is 1, but must be True or False"),
        (dict(prefix_sharing=None), TypeError, "prefix_sharing is None"),
        (dict(fuse_prefill="yes"), TypeError, "fuse_prefill is 'yes', but must be True or False"),
        (dict(sliding_window=0), ValueError, "sliding_window is 0, but must be at least 1"),
        (dict(sliding_window=-4), ValueError, "sliding_window is -4"),
        (dict(sliding_window=True), TypeError, "sliding_window is True"),
        (dict(sliding_window=8.0), TypeError, "sliding_window is 8.0"),
        (dict(sliding_window=8, attention_sinks=-1), ValueError, "attention_sinks is -1"),
        (dict(sliding_window=8, attention_sinks=None), TypeError, "attention_sinks is None"),
        (dict(attention_sinks=4), ValueError, "attention_sinks is 4, but without a sliding_window"),
        (dict(prefill_chunk=0), ValueError, "prefill_chunk is 0"),
        (dict(prefill_chunk=2.5), TypeError, "prefill_chunk is 2.5"),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_type_or_out_of_range_is_refused_by_name(
    make_engine: MakeEngine, option: dict[str, Any], error: type[Exception], said: str
) -> None:
    model = families.FAMILIES["llama"]()
    with pytest.raises(error) as refused:
        make_engine(model, **option)
    assert said in str(refused.value)
    assert not any(hasattr(module, "kv_cache") for module in model.modules()), "the model was touched"


def test_options_at_their_defaults_ask_for_nothing() -> None:
    assert not Extras(False, None, 0, False, 512).any
    assert Extras(True, None, 0, False, 512).any and Extras(False, 8, 0, False, 512).any
    assert Extras(False, None, 0, True, 512).any


def test_with_all_options_off_nothing_of_the_homeworks_is_imported() -> None:
    """A learner who has not come to module 08 runs an engine without a line of it."""
    code = (
        "import sys; sys.path.insert(0, 'tests/engine')\n"
        "import families\n"
        "from flexnano import Inference, SamplingParams\n"
        "for fast in (False, True):\n"
        "    options = dict(n_pages=8, page_size=16, attention='gather', fast=fast)\n"
        "    with Inference(families.FAMILIES['llama'](), None, **options) as e:\n"
        "        assert len(e.generate([[5, 6, 7]], SamplingParams(max_new_tokens=3))[0].token_ids) == 3\n"
        "        assert e.planner is None and e.mixed is None\n"
        "    homeworks = {'planner', 'mixed_step', 'page_groups', 'prefix_index', 'sliding_window'}\n"
        "    print(fast, sorted(name for name in homeworks if 'flexnano.' + name in sys.modules))\n"
    )
    environment = {**os.environ, "FLEXNANO": "solutions", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False []", "True []"], done.stdout
