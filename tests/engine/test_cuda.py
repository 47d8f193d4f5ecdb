"""What only a GPU can show: the three paths agree there, 16-bit floats are as exact as transformers', nothing recompiles."""

from __future__ import annotations

from typing import Any

import families
import parity
import pytest
import torch
import torch._dynamo

from flexnano import Inference, SamplingParams

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

NEW_TOKENS = 32
HALF_PRECISION = [("compiled", torch.bfloat16), ("gather", torch.bfloat16), ("gather", torch.float16)]


@pytest.mark.parametrize("page_size", [16, 128])
@pytest.mark.parametrize("path", parity.PATHS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_float32_is_transformers_on_every_path(family: str, path: str, page_size: int) -> None:
    cell = parity.run_cell(family, path, page_size, device="cuda")
    print(f"\n{family} {path} pages of {page_size}: {cell}")


def real_shape(dtype: torch.dtype) -> families.PreTrainedModel:
    """SmolLM2-135M's shape with random weights, wide enough that its answers depend on the prompt."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        initializer_range=0.05,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    return model.to("cuda", dtype)


@pytest.mark.parametrize(("path", "dtype"), HALF_PRECISION, ids=lambda value: str(value).removeprefix("torch."))
def test_half_precision_is_as_exact_as_transformers_own(path: str, dtype: torch.dtype) -> None:
    """Against float32 with the same weights, the engine's error is at most 1.5 times that of transformers' eager forward."""
    prompts = [
        torch.randint(3, 49152, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 127, 200)
    ]
    with Inference(real_shape(dtype), None, 4, 512, page_size=64, attention=path) as engine:
        results = engine.generate(prompts, SamplingParams(max_new_tokens=NEW_TOKENS, logprobs=49152))
        engine.page_table.check()
    own, exact = real_shape(dtype), real_shape(dtype).float()
    for prompt, result in zip(prompts, results, strict=True):
        ids = prompt + result.token_ids[:-1]
        want, theirs = (
            families.reference_logits(model, ids)[len(prompt) - 1 :].log_softmax(-1).cpu() for model in (exact, own)
        )
        assert result.logprobs is not None
        ours = torch.tensor([[row[token] for token in range(49152)] for row in result.logprobs])
        error, allowed = (ours - want).square().mean().sqrt(), 1.5 * (theirs - want).square().mean().sqrt()
        print(f"\n{path} {dtype}: rms error of log-probabilities {error:.4f}, transformers' own {allowed / 1.5:.4f}")
        assert error <= allowed, f"prompt of {len(prompt)} tokens: error {error:.4f}, allowed {allowed:.4f}"


def test_steady_decode_never_recompiles() -> None:
    model = families.FAMILIES["gemma2"]().to("cuda", torch.bfloat16)
    prompts = [families.random_prompt(n, seed=n) for n in (5, 60, 61, 62, 63, 64, 65, 100)]
    with Inference(model, None, 8, 512, page_size=64, attention="compiled") as engine:
        engine.generate(prompts, SamplingParams(max_new_tokens=4))
        for prompt in prompts:
            engine.add_request(prompt, SamplingParams(max_new_tokens=80))
        engine.run_one_step()
        before = engine.stats.decode_steps
        with torch._dynamo.config.patch(error_on_recompile=True):
            tokens = [len(engine.run_one_step()) for _ in range(64)]
        assert engine.stats.decode_steps == before + 64
        assert tokens[1:] == [len(prompts)] * 63, "the first may come a step late, then all of each step"


OPTIONS = {
    "sharing": dict(prefix_sharing=True),
    "fusion": dict(fuse_prefill=True, prefill_chunk=128),
    "window": dict(sliding_window=families.WINDOW),
    "all": dict(prefix_sharing=True, fuse_prefill=True, prefill_chunk=128, sliding_window=families.WINDOW),
}


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_homeworks_change_no_token(family: str, options: dict[str, Any], fast: bool) -> None:
    if family == "llama" and "sliding_window" in options:
        pytest.skip("a window changes what a model computes that was not trained with one")
    common = families.random_prompt(70, seed=0)
    prompts = [common + families.random_prompt(n, seed=n) for n in (1, 9, 30, 58)] + [common[:64], common, common]
    prompts += [families.random_prompt(n, seed=n) for n in (3, 64, 100, 200)]
    model = families.FAMILIES[family]().to("cuda")
    want = [families.reference_tokens(model, prompt, NEW_TOKENS) for prompt in prompts]
    with Inference(model, None, 4, 256, 40, 16, attention="compiled", fast=fast, **options) as engine:
        for _ in range(2):  # the second time with pages that can be found
            results = engine.generate(prompts, SamplingParams(max_new_tokens=NEW_TOKENS))
            engine.page_table.check()
            assert [result.token_ids for result in results] == want
        assert engine.planner is not None and bool(engine.planner.cached_tokens) == ("prefix_sharing" in options)
