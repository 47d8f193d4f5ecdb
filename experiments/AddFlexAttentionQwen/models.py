"""Stock Qwen3 models of transformers: random weights of the published shapes, or real ones by name."""

from __future__ import annotations

from typing import Any

import torch

from .cases import SHAPES, SHARED, UNTIED, Size


def build(name: str, dtype: torch.dtype, device: str, layers: int | None = None, **changes: Any) -> Any:
    """A Qwen3 in evaluation mode.

    Args:
        name: one of SHAPES for random weights, or a folder or a name on the hub for real ones.
        layers: keep only the first so many.
        changes: to the configuration, with random weights only.
    """
    import transformers

    if name not in SHAPES:
        config = transformers.AutoConfig.from_pretrained(name)
        if layers:
            config.num_hidden_layers = layers
            config.layer_types = config.layer_types[:layers]
        model = transformers.AutoModelForCausalLM.from_pretrained(name, config=config, dtype=dtype)
        return model.to(device).eval()
    shape = SHARED | SHAPES[name] | ({"num_hidden_layers": layers} if layers else {}) | changes
    config = transformers.Qwen3Config(
        **shape,
        tie_word_embeddings=name not in UNTIED,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return transformers.Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def size_of_model(model: Any) -> Size:
    config = model.config
    return Size(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        q_heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab=config.vocab_size,
        tied=config.tie_word_embeddings,
    )
