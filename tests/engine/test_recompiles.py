"""The compiled path compiles at the start and never again; and where it would give up, it says so."""

from __future__ import annotations

from collections.abc import Callable

import families
import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from flexnano import Inference, SamplingParams

pytestmark = pytest.mark.compiles

MakeEngine = Callable[..., Inference]


def decode_until_empty(engine: Inference, lengths: list[int], new_tokens: list[int]) -> int:
    """Returns how many decode steps it took."""
    before = engine.stats.decode_steps
    prompts = [families.random_prompt(n, seed=n) for n in lengths]
    results = engine.generate(prompts, [SamplingParams(max_new_tokens=n) for n in new_tokens])
    assert [r.finish_reason for r in results] == ["length"] * len(lengths), [r.error for r in results]
    return engine.stats.decode_steps - before


def test_steady_decode_compiles_nothing(make_engine: MakeEngine) -> None:
    """With a window on every other layer and a soft cap, whose functions a careless engine would make anew each step."""
    engine = make_engine("gemma2", attention="compiled", page_size=16, max_seq_length=160)
    # Warm-up: every size of batch, since rows finish one by one.  All prompts here are padded to 64 tokens.
    decode_until_empty(engine, lengths=[40, 3, 12, 6], new_tokens=[5, 4, 3, 2])

    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0, "nothing was compiled, so that this test would pass without a compiler"
    with torch._dynamo.config.patch(error_on_recompile=True):
        n_steps = decode_until_empty(engine, lengths=[5, 17, 33, 1], new_tokens=[100, 72, 40, 9])
    assert n_steps >= 64
    assert counters["stats"]["unique_graphs"] == graphs, "a step compiled a graph anew"


def test_giving_up_on_compiling_is_an_error_not_a_silent_fallback(make_engine: MakeEngine) -> None:
    """dynamo runs a function uncompiled once it has compiled it too often: a hundred times slower, with one warning."""
    engine = make_engine(attention="compiled")
    with (
        torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=1),
        pytest.raises(FailOnRecompileLimitHit),
    ):
        decode_until_empty(engine, lengths=[9, 40, 5], new_tokens=[6, 4, 2])
    engine.page_table.check()
    assert engine.page_table.pages_available == engine.page_table.n_pages
