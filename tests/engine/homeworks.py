"""What the tests of the homeworks share: the answer of a dense model whose attention is masked, and a look at the pages.

A window that is imposed on a model is no model of transformers, so its answer comes from transformers' eager attention under
a mask that is written down here, token by token.  Nothing of the engine's masks, tables or windows is used for it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import families
import torch

from flexnano import Inference, PageTable, Result, SamplingParams
from flexnano.kv_cache import PagedKVCache
from flexnano.sampling import SamplingBatch, sample

NEAR_TIE = 1e-3
STALE = 1e4
"""Stands in pages that nobody may read: finite, since 0 · NaN is NaN, but large enough to change every token."""


@dataclass(frozen=True)
class Window:
    """The window that an engine is asked for; None: none."""

    tokens: int | None = None
    sinks: int = 0

    @property
    def options(self) -> dict[str, Any]:
        return dict(sliding_window=self.tokens, attention_sinks=self.sinks)


NO_WINDOW = Window()


# ---------------------------------------------------------------------- what is right


def dense_mask(n: int, window: int | None, sinks: int) -> torch.Tensor:
    """float32 [1, 1, n, n], 0 where query i reads key j, else minus infinity."""
    mask = torch.full((n, n), -torch.inf)
    for i in range(n):
        first = 0 if window is None else max(0, i - window + 1)
        mask[i, first : i + 1] = 0
        if window is not None:
            mask[i, : min(sinks, i + 1)] = 0
    return mask[None, None]


@functools.cache
def _reference(family: str) -> families.PreTrainedModel:
    return families.FAMILIES[family]()


@functools.lru_cache(maxsize=4096)
def dense_logits(ids: tuple[int, ...], family: str = "llama", window: Window = NO_WINDOW) -> torch.Tensor:
    """float32 [T, V]: the logits after each token, by a dense attention under a mask."""
    model = _reference(family)
    n, own = len(ids), getattr(model.config, "sliding_window", None)
    kinds = set(getattr(model.config, "layer_types", None) or [])
    everything = dense_mask(n, None, 0)
    if "sliding_attention" in kinds or own is not None:  # the model's own local layers, narrowed at most
        narrow = dense_mask(n, own if window.tokens is None else min(own, window.tokens), window.sinks)
        mask: Any = {"full_attention": everything, "sliding_attention": narrow} if len(kinds) == 2 else narrow
    else:
        mask = dense_mask(n, window.tokens, window.sinks)
    with torch.no_grad(), families._eager(model):
        return model(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0].float()


def choose(logits_V: torch.Tensor, params: SamplingParams, position: int) -> int:
    """The token at `position` that these parameters choose; a request that samples has a seed."""
    if params.greedy:
        return int(logits_V.argmax())
    assert params.seed is not None
    batch = SamplingBatch.of([params], [params.seed], logits_V.device)
    return int(sample(logits_V[None], batch, torch.tensor([position])))


def assert_right(
    prompt: Sequence[int],
    tokens: Sequence[int],
    params: SamplingParams,
    family: str = "llama",
    window: Window = NO_WINDOW,
) -> None:
    """Each token is the one that a dense model chooses after those before it; of two that nearly tie either is right."""
    if not tokens:
        return
    logits_TV = dense_logits((*prompt, *tokens[:-1]), family, window)[len(prompt) - 1 :]
    for i, (token, logits_V) in enumerate(zip(tokens, logits_TV, strict=True)):
        right = choose(logits_V, params, len(prompt) + i)
        if token != right:
            nearly = logits_V.clone()
            nearly[token] += NEAR_TIE
            assert choose(nearly, params, len(prompt) + i) == token, (
                f"token {i} after a prompt of {len(prompt)} tokens is {token}, but a dense model chooses {right}: "
                f"{list(tokens)}"
            )


def dense_tokens(prompt: Sequence[int], n: int, family: str = "llama", window: Window = NO_WINDOW) -> list[int]:
    """The greedy tokens of a dense model."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(dense_logits(tuple(ids), family, window)[-1].argmax()))
    return ids[len(prompt) :]


def assert_results(
    prompts: Sequence[Sequence[int]],
    results: Sequence[Result],
    params: SamplingParams | Sequence[SamplingParams],
    family: str = "llama",
    window: Window = NO_WINDOW,
) -> None:
    """All were answered, to their full length, with the tokens of a dense model."""
    each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
    for prompt, result, one in zip(prompts, results, each, strict=True):
        assert result.finish_reason == "length", f"{result.finish_reason}: {result.error}"
        assert len(result.token_ids) == one.max_new_tokens
        assert_right(prompt, result.token_ids, one, family, window)


# ---------------------------------------------------------------------- who has which page


@dataclass(frozen=True)
class Pool:
    """Layers of an engine that share a page table."""

    table: PageTable
    caches: list[PagedKVCache]
    window: int | None
    sinks: int

    @property
    def owned(self) -> Counter[int]:
        return Counter(page for row in self.table.owned for page in row if page)

    @property
    def idle(self) -> list[int]:
        return [] if self.table.sharing is None else list(self.table.sharing.idle)

    @property
    def most_pages(self) -> int | None:
        """Pages that a sequence may hold between two steps."""
        if self.window is None:
            return None
        size = self.table.page_size
        return -(-self.window // size) + 1 + -(-self.sinks // size)


def pools(engine: Inference) -> list[Pool]:
    if engine.planner is None:
        return [Pool(engine.page_table, list(engine.caches), None, 0)]
    return [
        Pool(group.table, [cache for cache in engine.caches if cache.window in group.layers], group.window, group.sinks)
        for group in engine.planner.groups
    ]


def spoil(engine: Inference) -> None:
    """Write nonsense into every page that nobody owns and nobody may find, and into the sink."""
    for pool in pools(engine):
        used = {*pool.owned, *pool.idle}
        stale = torch.tensor([page for page in range(pool.table.n_pages + 1) if page not in used])
        for cache in pool.caches:
            for strip in (cache.k_cache, cache.v_cache):
                strip.unflatten(2, (-1, pool.table.page_size))[:, :, stale] = STALE


def assert_in_order(engine: Inference) -> None:
    """Each page is free, idle or owned, each slot free or held, and windowed sequences hold no more than their bound."""
    engine.page_table.check()
    running = [sequence.slot for sequence in engine.scheduler.running]
    assert 0 not in running, "slot 0 is the sink, and was handed out"
    assert len(set(running)) == len(running), f"two sequences have one slot: {running}"
    assert all(sequence.slot == 0 for sequence in engine.scheduler.waiting), "somebody waits with a slot"
    for pool in pools(engine):
        table, owned, idle, free = pool.table, pool.owned, pool.idle, list(pool.table.free_pages)
        table.check()
        assert sorted([*owned, *idle, *free]) == list(range(1, table.n_pages + 1)), (
            f"each page is free, idle or owned, and page 0 none of it: free {free}, idle {idle}, owned {dict(owned)}"
        )
        assert table.pages_available == len(idle) + len(free)
        if table.sharing is None:
            assert set(owned.values()) <= {1}, f"a page has two owners, and nobody shares: {owned}"
        else:
            counts = {page: n for page, n in enumerate(table.sharing.owners) if n}
            assert counts == owned, f"listed {dict(owned)}, but counted {counts}"
            assert not table.sharing.copies, "a copy was noted and not made"
        assert sorted([*running, *table.free_slots]) == list(range(1, table.max_batch_size + 1)), (
            f"running {running}, free {table.free_slots}: a slot is lost or in two hands"
        )
        assert not table.owned[0], "the sink owns pages"
        for slot in running:
            row = table.owned[slot]
            held = [page for page in row if page]
            assert len(set(held)) == len(held), f"slot {slot} lists a page twice: {row}"
            if pool.most_pages is None:
                assert 0 not in row, f"slot {slot} has no page where it needs one: {row}"
            else:
                assert len(held) <= pool.most_pages, (
                    f"slot {slot} holds {len(held)} pages, not {pool.most_pages}: {row}"
                )


def assert_all_given_back(engine: Inference) -> None:
    """Nobody has a page or a slot; idle pages are nobody's."""
    assert_in_order(engine)
    assert not engine.scheduler.running and not engine.scheduler.waiting
    for pool in pools(engine):
        assert not pool.owned, f"pages are still owned: {dict(pool.owned)}"
        assert pool.table.pages_available == pool.table.n_pages


def pages_in_use(engine: Inference, group: int = 0) -> int:
    """Different pages that somebody owns."""
    return len(pools(engine)[group].owned)


def run_to_the_end(engine: Inference) -> dict[int, Result]:
    """Step until nothing is left, with nonsense in every page that is nobody's; the results by request."""
    results: dict[int, Result] = {}
    for _ in range(3000):
        if not engine.has_work:
            return results
        spoil(engine)
        for event in engine.run_one_step():
            if event.result is not None:
                assert event.request_id not in results, f"request {event.request_id} ended twice"
                results[event.request_id] = event.result
        assert_in_order(engine)
    raise AssertionError("3000 steps, and still work to do")


def ask(engine: Inference, prompts: Iterable[Sequence[int]], params: SamplingParams) -> list[Result]:
    """As `generate`, but with the checks of `run_to_the_end`."""
    requests = [engine.add_request(list(prompt), params) for prompt in prompts]
    results = run_to_the_end(engine)
    return [results[request] for request in requests]


@contextmanager
def overflowing(engine: Inference, token: int) -> Iterator[None]:
    """A token whose embedding is NaN: so are all keys, values and logits that are computed from it."""
    weight = engine.model.get_input_embeddings().weight
    with torch.no_grad():
        before = weight[token].clone()
        weight[token] = float("nan")
        try:
            yield
        finally:
            weight[token] = before
