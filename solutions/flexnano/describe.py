"""An engine in a few lines of words.  Given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kv_cache import kv_bytes_per_token

if TYPE_CHECKING:
    from .inference import Inference


def describe(engine: Inference) -> str:
    """What was set up: the model, the attention path and why, how steps run, the cache and its size."""
    table, per_token = engine.page_table, kv_bytes_per_token(engine.layers, engine.dtype)
    layers = ", ".join(
        f"{sum(layer.window == window for layer in engine.layers)} "
        + ("reading everything" if window is None else f"reading a window of {window}")
        for window in engine.windows
    )
    steps = "plain" if engine.fast is None else "fast: replayed graphs, tokens read one step late"
    return "\n".join(
        [
            f"model      {type(engine.model).__name__}, {engine.dtype} on {engine.device}, layers: {layers}",
            f"attention  {engine.path} ({engine.path_reason})",
            f"steps      {steps} ({engine.steps_reason})",
            f"cache      {table.n_pages} pages of {table.page_size} tokens, "
            f"{(table.n_pages + 1) * table.page_size * per_token / 2**20:,.0f} MiB ({per_token:,} bytes a token)",
            f"batch      {engine.max_batch_size} sequences of up to {engine.max_seq_length} tokens",
        ]
    )
