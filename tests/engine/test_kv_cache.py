"""The paged KV cache: what it stores where, what it costs, how large it gets, and how a stock model finds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flexnano import kv_cache
from flexnano.kv_cache import PagedKVCache, attach_caches, kv_bytes_per_token, pages_for_budget
from flexnano.model_probe import probe
from flexnano.page_table import PageTable

PAGE = 4


@pytest.fixture
def table() -> PageTable:
    table = PageTable(n_pages=6, page_size=PAGE, max_batch_size=3)
    for length in (5, 4, 9):
        assert table.reserve(table.allocate(), length)
    return table


def cache_of(table: PageTable, dtype: torch.dtype = torch.float32) -> PagedKVCache:
    return PagedKVCache(table, 2, 8, 6, window=None, dtype=dtype, device="cpu")


# ---------------------------------------------------------------------- the pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_new_pool_holds_the_pages_and_the_sink_and_is_all_zero(table: PageTable, dtype: torch.dtype) -> None:
    cache = cache_of(table, dtype)
    assert cache.k_cache.shape == (1, 2, 7 * PAGE, 8)
    assert cache.v_cache.shape == (1, 2, 7 * PAGE, 6)
    assert cache.k_cache.dtype == cache.v_cache.dtype == dtype
    assert not cache.k_cache.any() and not cache.v_cache.any(), "a masked key is not unread: 0 · NaN is NaN"


def test_a_pool_that_no_kernel_can_address_is_refused_with_the_number_that_can(
    table: PageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "LARGEST_POOL", 7 * PAGE * 2 * 8 - 1)
    with pytest.raises(ValueError, match="n_pages 6 .* 5 pages"):
        cache_of(table)
    monkeypatch.setattr(kv_cache, "LARGEST_POOL", 7 * PAGE * 2 * 8)
    cache_of(table)


# ---------------------------------------------------------------------- update


def test_prefill_stores_the_prompts_and_attention_reads_the_fresh_keys(table: PageTable) -> None:
    cache = cache_of(table)
    slot_L = torch.tensor([1] * 5 + [3] * 2 + [0])
    position_L = torch.tensor([0, 1, 2, 3, 4, 0, 1, 0])
    k, v = torch.rand(1, 2, 8, 8), torch.rand(1, 2, 8, 6)
    read_k, read_v = cache.update(position_L[None], k, v, slot_L[None])
    assert read_k is k and read_v is v
    stored = table.address(slot_L[:7], position_L[:7])
    assert torch.equal(cache.k_cache[:, :, stored], k[:, :, :7])
    assert torch.equal(cache.v_cache[:, :, stored], v[:, :, :7])


def test_decode_stores_one_token_a_row_and_attention_reads_the_pool(table: PageTable) -> None:
    cache = cache_of(table)
    slot_B, position_B = torch.tensor([3, 1, 2]), torch.tensor([8, 4, 3])
    k, v = torch.rand(3, 2, 1, 8), torch.rand(3, 2, 1, 6)
    read_k, read_v = cache.update(position_B, k, v, slot_B)
    assert read_k is cache.k_cache and read_v is cache.v_cache
    stored = table.address(slot_B, position_B)
    for b in range(3):
        assert torch.equal(cache.k_cache[0, :, stored[b]], k[b, :, 0]), f"row {b}"
        assert torch.equal(cache.v_cache[0, :, stored[b]], v[b, :, 0]), f"row {b}"
    untouched = torch.ones(7 * PAGE, dtype=torch.bool)
    untouched[stored] = False
    assert not cache.k_cache[:, :, untouched].any() and not cache.v_cache[:, :, untouched].any()


def test_token_by_token_stores_what_prefill_stores(table: PageTable) -> None:
    at_once, one_by_one = cache_of(table), cache_of(table)
    k, v = torch.rand(1, 2, 9, 8), torch.rand(1, 2, 9, 6)
    at_once.update(torch.arange(9)[None], k, v, torch.full((1, 9), 3))
    for t in range(9):
        one_by_one.update(torch.tensor([t]), k[:, :, t : t + 1], v[:, :, t : t + 1], torch.tensor([3]))
    assert torch.equal(at_once.k_cache, one_by_one.k_cache)
    assert torch.equal(at_once.v_cache, one_by_one.v_cache)


# ---------------------------------------------------------------------- what it costs


def layer(kv_heads: int = 2, head_dim: int = 8, value_head_dim: int = 6, **more: Any) -> Any:
    return SimpleNamespace(
        module=torch.nn.Linear(1, 1), kv_heads=kv_heads, head_dim=head_dim, value_head_dim=value_head_dim, **more
    )


def test_a_token_costs_a_key_and_a_value_for_each_key_head_of_each_layer() -> None:
    layers = [layer(kv_heads=2), layer(kv_heads=1, head_dim=128, value_head_dim=64)]
    assert kv_bytes_per_token(layers, torch.float32) == (2 * (8 + 6) + 128 + 64) * 4
    assert kv_bytes_per_token(layers, torch.bfloat16) == (2 * (8 + 6) + 128 + 64) * 2


def test_the_budget_is_what_the_caches_really_take(table: PageTable) -> None:
    """With head sizes that are not hidden / heads, and fewer key than query heads."""
    layers = probe(families.FAMILIES["phi3"](), 64) + probe(families.FAMILIES["gemma"](), 64)
    caches = attach_caches(layers, dict.fromkeys((layer.window for layer in layers), table), torch.float32)
    taken = sum(cache.k_cache.nbytes + cache.v_cache.nbytes for cache in caches)
    assert kv_bytes_per_token(layers, torch.float32) * 7 * PAGE == taken


@given(
    st.integers(1, 10**7), st.integers(1, 5000), st.sampled_from([1, 16, 128]), st.integers(1, 64), st.integers(1, 999)
)
def test_the_pool_is_the_largest_that_fits_and_can_be_used(
    free: int, per_token: int, page_size: int, max_batch_size: int, max_seq_length: int
) -> None:
    def taken(n_pages: int) -> int:
        return (n_pages + 1) * page_size * per_token  # the sink comes on top

    pages_in_use = sum(1 for _ in range(0, max_seq_length, page_size)) * max_batch_size
    if taken(1) > free:
        with pytest.raises(MemoryError, match=f"{free:,} bytes .* {taken(1):,}"):
            pages_for_budget(free, per_token, page_size, max_batch_size, max_seq_length)
        return
    n_pages = pages_for_budget(free, per_token, page_size, max_batch_size, max_seq_length)
    assert taken(n_pages) <= free
    assert n_pages <= pages_in_use
    assert n_pages == pages_in_use or taken(n_pages + 1) > free, "one more page would fit and could be used"


# ---------------------------------------------------------------------- attaching


def test_each_layer_gets_a_cache_of_its_own_with_its_own_sizes(table: PageTable) -> None:
    layers = [layer(window=None), layer(kv_heads=1, head_dim=16, value_head_dim=16, window=24)]
    caches = attach_caches(layers, {None: table, 24: table}, torch.float16)
    assert [spec.module.kv_cache for spec in layers] == caches
    assert [cache.window for cache in caches] == [None, 24]
    assert [cache.k_cache.shape[1::2] for cache in caches] == [(2, 8), (1, 16)]
    assert all(cache.page_table is table for cache in caches)

    caches[0].k_cache.fill_(1)
    caches[1].k_cache.fill_(2)
    assert layers[0].module.kv_cache.k_cache.unique().tolist() == [1], "all layers share the last layer's cache"


def test_a_cache_is_no_part_of_the_model_that_is_saved(table: PageTable) -> None:
    spec = layer(window=None)
    before = set(spec.module.state_dict())
    attach_caches([spec], {spec.window: table}, torch.float32)
    assert set(spec.module.state_dict()) == before
