"""The embedded model answers real prompts with transformers' own tokens, on every attention path."""

from __future__ import annotations

from typing import Any

import parity
import pytest
import torch
import transformers

from course.model import ensure_model
from flexnano import Inference, SamplingParams

PROMPTS = [
    "Once upon a time, in a village by the sea, " * 12,
    "The capital of France is",
    [{"role": "user", "content": "What is a page table? Answer in one sentence."}],
    [{"role": "user", "content": "Write a haiku about rain."}],
    "def fibonacci(n):\n",
    [{"role": "user", "content": "Wie heißt du? 🙂"}],
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(ensure_model())


def load() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(ensure_model(), dtype=torch.float32)


@pytest.mark.parametrize(("path", "new_tokens"), [("compiled", 24), ("gather", 24), ("eager", 4)])
def test_the_embedded_model_gives_the_tokens_of_transformers(path: str, new_tokens: int, tokenizer: Any) -> None:
    reference = load()
    with Inference(load(), tokenizer, 4, 256, n_pages=14, page_size=16, attention=path) as engine:
        results = engine.generate(PROMPTS, SamplingParams(max_new_tokens=new_tokens))
        if new_tokens > 16:  # a page each: with fewer, nobody needs to grow
            assert engine.stats.preemptions > 0, "the pool is too large to prove anything"
    near_ties = 0
    for result in results:
        ids = result.prompt_token_ids + result.token_ids
        with torch.inference_mode():
            logits_TV = reference(torch.tensor([ids[:-1]])).logits[0, len(result.prompt_token_ids) - 1 :]
        best = logits_TV.topk(2)
        for step, token in enumerate(result.token_ids):
            near_tie = bool(best.values[step, 0] - best.values[step, 1] < parity.NEAR_TIE)
            near_ties += near_tie
            assert near_tie or token == best.indices[step, 0], (
                f"token {step} after {result.text!r} is not transformers'"
            )
        assert result.text == tokenizer.decode(result.token_ids, skip_special_tokens=True)
    assert near_ties <= 2, f"{near_ties} near ties: the comparison proves little"


def test_it_stops_at_the_end_of_its_answer(tokenizer: Any) -> None:
    """The chat model ends with <|im_end|>, which the generation config names."""
    with Inference(load(), tokenizer, 1, 256, page_size=16, attention="gather") as engine:
        (result,) = engine.generate([[{"role": "user", "content": "What is the capital of France?"}]])
    assert result.finish_reason == "stop"
    assert "Paris" in result.text
    assert tokenizer.decode(result.token_ids[-1:]) == "<|im_end|>"
