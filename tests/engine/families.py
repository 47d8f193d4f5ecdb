"""Tiny random models of every family that the engine must serve, and transformers' own answer for each.

Nothing is downloaded. The models are small enough for a full parity matrix on two cores, and made so that a wrong engine
can't pass: grouped-query heads, local layers with windows shorter than the test sequences, norm weights away from 1, and an
initialisation wide enough that every answer depends on the whole prompt (`assert_not_blind`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers
import torch
import transformers
from transformers import PreTrainedModel

VOCAB = 199
HEAD_DIM = 16
WINDOW = 24  # tokens; tests use longer sequences
SEED = 5

# Sizes that all families share; what a family calls otherwise, or adds, stands in SPECS.
COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=HEAD_DIM,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
)
LOCAL_GLOBAL = dict(
    num_hidden_layers=4,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
)

# family: (class, what differs from COMMON)
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaForCausalLM", dict(num_key_value_heads=1)),  # one key-value head for all, as in Gemma 2B
    "gemma2": ("Gemma2ForCausalLM", dict(LOCAL_GLOBAL, query_pre_attn_scalar=24, attn_logit_softcapping=5.0)),
    "gemma3_text": ("Gemma3ForCausalLM", dict(LOCAL_GLOBAL, query_pre_attn_scalar=24)),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48)),
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", dict(sliding_window=WINDOW)),
    "phi3": ("Phi3ForCausalLM", dict(num_attention_heads=8, num_key_value_heads=4, hidden_size=128)),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "granite": (
        "GraniteForCausalLM",
        dict(attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.7, logits_scaling=2.0),
    ),
    "cohere": ("CohereForCausalLM", dict(use_qk_norm=True, logit_scale=1.0)),
    "smollm3": ("SmolLM3ForCausalLM", dict(num_hidden_layers=4, no_rope_layers=[1, 1, 1, 0])),
    "glm4": ("Glm4ForCausalLM", {}),
    "starcoder2": ("Starcoder2ForCausalLM", {}),
}


def tiny_config(family: str) -> transformers.PretrainedConfig:
    """A new configuration of `family`, one of `FAMILIES`."""
    class_name, differences = SPECS[family]
    config_class = getattr(transformers, class_name).config_class
    return config_class(**{**COMMON, **differences})


def tiny_model(family: str) -> PreTrainedModel:
    """A new model of `family` in float32 and evaluation mode; always the same weights. Raises KeyError for others."""
    torch.manual_seed(SEED)
    model = getattr(transformers, SPECS[family][0])(tiny_config(family)).float().eval()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "q_norm" in name or "k_norm" in name:
                parameter.add_(1 + 0.3 * noise)  # around 2: with short unit vectors, attention would be nearly uniform
            elif "norm" in name:
                parameter.add_(0.3 * noise)  # around 1, or around 0 in models that add the 1 themselves
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)  # biases
            elif "embed" in name:
                parameter.copy_(0.1 * noise)  # small, so that what attention brings in outweighs the token itself
            else:
                gain = 2.0 if "attn" in name else 1.0  # attention that picks few keys, and whose output counts
                parameter.copy_(gain * noise * parameter.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    family: lambda family=family: tiny_model(family)  # type: ignore[misc]
    for family in SPECS
}


def reference_logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """float32 `[T, V]`: the logits after each of the T tokens, by transformers' own eager attention and without a cache.

    `model` must not be in use by an engine at the time: take a second `tiny_model` of the same family, or a deepcopy.
    """
    with _eager(model), torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    assert logits.isfinite().all(), f"{type(model).__name__} gave logits that are not finite"
    return logits


def reference_tokens(model: PreTrainedModel, ids: list[int], n_tokens: int) -> list[int]:
    """The `n_tokens` greedy tokens after the prompt `ids`, by transformers' `generate` and eager attention."""
    prompt = torch.tensor([ids], device=model.device)
    with _eager(model):
        output = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n_tokens, do_sample=False, use_cache=True
        )
    return output[0, len(ids) :].tolist()


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    assert before in ("eager", "sdpa"), f"attention is {before!r}: an engine holds this model; use a second instance"
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def random_prompt(n_tokens: int, seed: int) -> list[int]:
    """Token ids of ordinary words, without padding, beginning and end of text (ids 0 to 2)."""
    return torch.randint(3, VOCAB, (n_tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def assert_not_blind(model: PreTrainedModel, n_prompt: int = 40, n_tokens: int = 16) -> None:
    """Another first half of the prompt must change nearly all greedy tokens; else parity proves nothing about the cache.

    Also: tokens vary, and near ties between the two best tokens are rare, so that equal tokens may be asked for.
    """
    name = type(model).__name__
    prompt, other = random_prompt(n_prompt, seed=1), random_prompt(n_prompt // 2, seed=2)
    tokens = reference_tokens(model, prompt, n_tokens)
    changed = reference_tokens(model, other + prompt[n_prompt // 2 :], n_tokens)
    differing = sum(a != b for a, b in zip(tokens, changed, strict=True))
    assert differing >= 0.8 * n_tokens, f"{name} is blind to its prompt: only {differing} of {n_tokens} tokens changed"
    assert len(set(tokens)) >= n_tokens // 3, f"{name} repeats itself: {tokens}"
    best, second = reference_logits(model, prompt + tokens).topk(2).values.unbind(-1)
    near_ties = int((best - second < 1e-3).sum())
    assert near_ties <= 1, f"{name} has {near_ties} near ties among {len(best)} tokens"


def TinyTokenizer() -> transformers.PreTrainedTokenizerFast:  # noqa: N802  stands for a class
    """A fast tokenizer of transformers for the tiny models, one word an id: "w17 w4" is [17, 4].

    Ids 0, 1 and 2 are <pad>, <bos> and <eos>; text between spaces that is no such word is <unk>, which is 3.
    """
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, VOCAB)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
