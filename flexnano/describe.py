# Your copy of solutions/flexnano/describe.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 6b58501855207cfd
"""An engine in a few lines of words.  Given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kv_cache import kv_bytes_per_token

if TYPE_CHECKING:
    from .inference import Inference


def describe(engine: Inference) -> str:
    """What was set up: the model, the attention path and why, how steps run, the cache and its size, the options."""
    layers = ", ".join(
        f"{sum(layer.window == window for layer in engine.layers)} {_reading(window)}" for window in engine.windows
    )
    steps = "plain" if engine.fast is None else "fast: replayed graphs, tokens read one step late"
    return "\n".join(
        [
            f"model      {type(engine.model).__name__}, {engine.dtype} on {engine.device}, layers: {layers}",
            f"attention  {engine.path} ({engine.path_reason})",
            f"steps      {steps} ({engine.steps_reason})",
            f"cache      {_cache(engine)}",
            f"batch      {engine.max_batch_size} sequences of up to {engine.max_seq_length} tokens",
            *_options(engine),
        ]
    )


def _reading(window: int | None) -> str:
    return "reading everything" if window is None else f"reading a window of {window}"


def _cache(engine: Inference) -> str:
    """Pages of each group of layers that has a table of its own, and the bytes of all layers."""
    page_size, per_token = engine.page_table.page_size, kv_bytes_per_token(engine.layers, engine.dtype)
    pools = {window: engine.tables[window].n_pages for window in engine.windows}
    n_bytes = sum(
        (pools[layer.window] + 1) * page_size * kv_bytes_per_token([layer], engine.dtype) for layer in engine.layers
    )
    if len(set(map(id, engine.tables.values()))) == 1:
        pages = f"{engine.page_table.n_pages} pages of {page_size} tokens"
    else:
        pages = ", ".join(f"{n} pages for layers {_reading(window)}" for window, n in pools.items())
        pages += f", of {page_size} tokens each"
    return f"{pages}, {n_bytes / 2**20:,.0f} MiB ({per_token:,} bytes a token)"


def _options(engine: Inference) -> list[str]:
    """A line about the homeworks' options, if there are any."""
    extras, parts = engine.extras, []
    if extras.prefix_sharing:
        parts.append("prefix sharing")
    if extras.sliding_window is not None:
        sinks = f" and {extras.attention_sinks} sinks" if extras.attention_sinks else ""
        changes = extras.changes_model(engine.layers, engine.model.config)
        does = ", which changes the model: it was not trained with it" if changes else ""
        parts.append(f"a window of {extras.sliding_window}{sinks}{does}")
    if extras.fuse_prefill:
        parts.append(f"prompts beside decodes, {extras.prefill_chunk} tokens a step")
    return [f"options    {'; '.join(parts)}"] if parts else []
