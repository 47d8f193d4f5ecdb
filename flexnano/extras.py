# Your copy of solutions/flexnano/extras.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 53f25fc48d221753
"""Given: what the homeworks add to an engine, built only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .attention import Attend
    from .inference import Inference
    from .mixed_step import MixedSteps
    from .model_probe import LayerSpec
    from .planner import Group, Planner


@dataclass(frozen=True)
class Extras:
    """The options of the homeworks, as `Inference` gets them.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of range.
    """

    prefix_sharing: bool
    sliding_window: int | None
    attention_sinks: int
    fuse_prefill: bool
    prefill_chunk: int

    def __post_init__(self) -> None:
        for name in ("prefix_sharing", "fuse_prefill"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} is {value!r}, but must be True or False")
        for name, least in (("sliding_window", 1), ("attention_sinks", 0)):
            value = getattr(self, name)
            if value is None and name == "sliding_window":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}, but must be an integer of at least {least}")
            if value < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}")
        if self.attention_sinks and self.sliding_window is None:
            raise ValueError(
                f"attention_sinks is {self.attention_sinks}, but without a sliding_window everything is read anyway; "
                f"give a sliding_window, or leave attention_sinks at 0"
            )

    @property
    def any(self) -> bool:
        return self.prefix_sharing or self.sliding_window is not None or self.fuse_prefill

    @property
    def around(self) -> Callable[[Attend], Attend] | None:
        """What the attention function is put into."""
        if not self.any:
            return None
        from .mixed_step import mixed_attention

        return mixed_attention

    # ------------------------------------------------------------------ windows

    def narrow(self, layers: list[LayerSpec], config: Any) -> list[LayerSpec]:
        """The layers with the windows that they are going to have."""
        if self.sliding_window is None:
            return layers
        from .eviction import narrowed

        # The probe calls a layer global whose window is longer than any sequence served; here its kind counts.
        kinds = getattr(config, "layer_types", None) or []
        own = [
            layer.window
            or (getattr(config, "sliding_window", None) if kinds[i : i + 1] == ["sliding_attention"] else None)
            for i, layer in enumerate(layers)
        ]
        windows = narrowed(own, self.sliding_window)
        return [replace(layer, window=window) for layer, window in zip(layers, windows, strict=True)]

    def changes_model(self, layers: list[LayerSpec], config: Any) -> bool:
        """Whether the model computes something else than it was trained for."""
        own = getattr(config, "sliding_window", None)
        windows = {layer.window for layer in layers if layer.window is not None}
        return self.sliding_window is not None and (self.attention_sinks > 0 or windows != {own})

    def tokens_kept(self, windows: list[int | None], max_seq_length: int, max_prefill_tokens: int) -> int:
        """Tokens whose pages a sequence holds at most."""
        if self.sliding_window is None or None in windows:
            return max_seq_length
        kept = max(window or 0 for window in windows) + self.attention_sinks + self._budget(max_prefill_tokens)
        return min(max_seq_length, kept + 2 * 128)

    def _budget(self, max_prefill_tokens: int) -> int:
        return self.prefill_chunk if self.fuse_prefill else max_prefill_tokens

    # ------------------------------------------------------------------ what the engine gets

    def planner(self, engine: Inference, n_pages: int, device: torch.device | str) -> Planner:
        """Give an engine a planner, and its groups of layers tables of their own where they give up pages."""
        from .eviction import most_pages
        from .page_groups import PageGroups
        from .page_table import PageTable
        from .planner import Group, Planner
        from .prefix_index import SharedPages

        page_size, slots = engine.page_table.page_size, engine.max_batch_size
        budget = self._budget(engine.scheduler.max_prefill_tokens)
        groups: list[Group] = []
        evicting = [window for window in engine.windows if window is not None and self.sliding_window is not None]
        keeping = tuple(window for window in engine.windows if window not in evicting)
        if keeping:
            groups.append(Group(engine.page_table, keeping))
        for window in sorted(evicting, reverse=True):
            least = most_pages(window, self.attention_sinks, page_size)
            if n_pages < min(least, -(-engine.max_seq_length // page_size)):
                raise ValueError(
                    f"n_pages {n_pages} is too few for a window of {window} and {self.attention_sinks} sinks: a sequence "
                    f"needs {least} pages of {page_size} tokens"
                )
            # Behind a group that keeps everything, more than all slots can hold is never used.
            enough = slots * (least + 1) + -(-budget // page_size)
            n = min(n_pages, enough) if groups else n_pages
            table = PageTable(n, page_size, slots, engine.max_seq_length, device, gives_up_pages=True)
            engine.tables[window] = table
            groups.append(Group(table, (window,), window, self.attention_sinks))
        if self.prefix_sharing:
            for group in groups:
                SharedPages(group.table)
        engine.page_table = groups[0].table if len(groups) == 1 else PageGroups([one.table for one in groups])  # type: ignore[assignment]
        engine.scheduler.page_table = engine.page_table
        return Planner(engine.scheduler, groups, budget, self.fuse_prefill)

    def mixed_steps(self, engine: Inference, planner: Planner) -> MixedSteps:
        """Give an engine, whose caches are attached, the steps in which prompts read the pool."""
        from .mixed_step import MixedSteps, PoolReader, plain_pages, plain_rule

        for layer, cache in zip(engine.layers, engine.caches, strict=True):
            layer.module.kv_cache = PoolReader(cache)  # type: ignore[assignment]
        rules, pages = {}, {}
        for group in planner.groups:
            for window in group.layers:
                if group.window is not None:
                    rules[window], pages[window] = self._windowed(group)
                else:
                    rules[window], pages[window] = plain_rule(window), plain_pages(group.table, window)
        return MixedSteps(engine, planner, rules, pages)

    def _windowed(self, group: Group) -> tuple[Any, Any]:
        """The mask of a group that gives up pages, over positions and over pages."""
        from .eviction import window_mask, window_pages

        window, sinks, table = group.window, group.sinks, group.table
        return window_mask(window, sinks), lambda position_RT: window_pages(
            position_RT, window, sinks, table.pages_per_row, table.page_size
        )
