"""Tiny random language models for graders: the same weights in the process with the learner's code and in the judge's.

Small enough to be built in milliseconds, and made so that a wrong engine can't pass: grouped-query heads, norms away from 1,
attention that picks few keys and whose output counts.
"""

from __future__ import annotations

import threading
from typing import Any

VOCAB = 48
_building = threading.Lock()  # building a model changes torch's and transformers' global state for a moment


def tiny_model(kind: str = "llama", window: int = 8) -> Any:
    """A new model in float32 and evaluation mode.

    Args:
        kind: "llama": two layers that read everything; "gemma2": one that reads a window, one that reads everything, and a
            soft cap on the scores.
        window: keys that a local layer of "gemma2" reads, the token's own included.
    """
    import torch
    import transformers

    common: dict[str, Any] = dict(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    with _building:
        if kind == "llama":
            model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
        else:
            local = dict(
                sliding_window=window,
                layer_types=["sliding_attention", "full_attention"],
                query_pre_attn_scalar=12,
                attn_logit_softcapping=5.0,
            )
            model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**common, **local))
        model = model.float().eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.add_(0.3 * noise)
            elif "embed" in name:
                parameter.copy_(0.1 * noise)  # small, so that what attention brings in outweighs the token itself
            else:
                parameter.copy_((2.0 if "attn" in name else 1.0) * noise * parameter.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model
