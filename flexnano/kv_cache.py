# Your copy of solutions/flexnano/kv_cache.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 212065a939533d12
"""Module 04: the paged KV cache.  Where keys and values are kept, how many fit, and how a stock model gets to use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .page_table import PageTable

if TYPE_CHECKING:
    from .model_probe import LayerSpec

LARGEST_POOL = 2**31 - 1
"""Elements of one layer's pool: some FlexAttention kernels count offsets in 32 bits."""


class PagedKVCache:
    """The pool of one attention layer.

    Args:
        page_table: which page belongs to whom; shared by all layers of a group.
        kv_heads: heads of keys and values, not of queries.
        head_dim, value_head_dim: size of a key and of a value.
        window: keys that a query of this layer may read; None: all.
        dtype, device: of the pool.

    Fields that others read:
        k_cache, v_cache: [1, Hk, N, D] with N = (n_pages + 1) × page_size.  All zero at birth: a masked key is not unread,
            and 0 · NaN is NaN.
    """

    def __init__(
        self,
        page_table: PageTable,
        kv_heads: int,
        head_dim: int,
        value_head_dim: int,
        window: int | None,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.page_table, self.window = page_table, window
        N = (page_table.n_pages + 1) * page_table.page_size
        at_most = addressable_pages(kv_heads * max(head_dim, value_head_dim), page_table.page_size)
        if page_table.n_pages > at_most:
            raise ValueError(
                f"n_pages {page_table.n_pages} makes a layer's pool of {N * kv_heads * head_dim:,} elements; at most "
                f"{LARGEST_POOL:,} can be addressed, that is {at_most} pages"
            )
        self.k_cache = torch.zeros(1, kv_heads, N, head_dim, dtype=dtype, device=device)
        self.v_cache = torch.zeros(1, kv_heads, N, value_head_dim, dtype=dtype, device=device)

    def update(self, input_pos: Tensor, k: Tensor, v: Tensor, batch_idx: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values, and return those that attention has to read.  [4.1 · ★★☆ · 15 min]

        Packed prefill: `batch_idx` is [1, L], the slot of each token.  The prompts read only themselves, so attention
        reads the fresh keys and values, and the pool is only written (`assign_prefill_no_paging`).
        Decode: `batch_idx` is [B], the slot of each row, one new token a row.  Attention reads the pool (`assign`).

        Args:
            input_pos: int64 [1, L] or [B], the position of each token in its sequence.
            k: [1, Hk, L, D] or [B, Hk, 1, D].
            v: as k, with the value's head size.
            batch_idx: int64 [1, L] or [B].

        Returns:
            (k, v) as given in prefill; (k_cache, v_cache), both [1, Hk, N, D], in decode.
        """
        raise NotImplementedError("Exercise 4.1: PagedKVCache.update")


def kv_bytes_per_token(layers: Iterable[LayerSpec], dtype: torch.dtype) -> int:
    """What one token costs in the cache, over all layers.  [4.2 · ★☆☆ · 10 min]

    Args:
        layers: each with `kv_heads`, `head_dim` and `value_head_dim`, as the model uses them.
        dtype: of the cache; `dtype.itemsize` is the bytes of one number.

    Returns:
        Bytes.  A layer stores one key and one value for each head of keys, however many heads the queries have.

    >>> from types import SimpleNamespace
    >>> layer = SimpleNamespace(kv_heads=8, head_dim=128, value_head_dim=128)
    >>> kv_bytes_per_token([layer] * 32, torch.bfloat16)  # 128 KiB a token
    131072
    """
    raise NotImplementedError("Exercise 4.2: kv_bytes_per_token")


def pages_for_budget(
    free_bytes: int, bytes_per_token: int, page_size: int, max_batch_size: int, max_seq_length: int
) -> int:
    """How many pages the pool gets when the caller does not say.  [4.3 · ★★☆ · 10 min]

    As many as fit into `free_bytes` next to the sink page, but no more than `max_batch_size` sequences of
    `max_seq_length` tokens can ever hold.

    Args:
        free_bytes: memory that the pool may take; what others use is already off.
        bytes_per_token: from `kv_bytes_per_token`.
        page_size: tokens in a page.
        max_batch_size, max_seq_length: sequences at once, and tokens in each.

    Returns:
        Number of usable pages, the sink not counted; at least 1.

    Raises:
        MemoryError: not even one page and the sink fit.

    >>> pages_for_budget(10_000, bytes_per_token=100, page_size=16, max_batch_size=8, max_seq_length=64)
    5
    >>> pages_for_budget(10**9, bytes_per_token=100, page_size=16, max_batch_size=8, max_seq_length=65)
    40
    """
    raise NotImplementedError("Exercise 4.3: pages_for_budget")


def forget_nan(caches: Iterable[PagedKVCache]) -> None:
    """Set NaN and infinity in the pools to zero: a masked key is not unread, and the pages may be others' by now."""
    for pool in [pool for cache in caches for pool in (cache.k_cache, cache.v_cache)]:
        pool.nan_to_num_(0, 0, 0)


def addressable_pages(elements_per_token: int, page_size: int) -> int:
    """Usable pages, the sink not counted, of the largest pool that a layer can have."""
    return LARGEST_POOL // (elements_per_token * page_size) - 1


def free_memory(device: torch.device) -> int:
    """Bytes that a new tensor could take on the device right now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for reuse looks used from outside.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # only needed here, and absent from some minimal installations

    return psutil.virtual_memory().available


def attach_caches(
    layers: Iterable[LayerSpec], tables: Mapping[int | None, PageTable], dtype: torch.dtype
) -> list[PagedKVCache]:
    """Give each attention layer of a model a cache of its own, as `module.kv_cache`.  [4.4 · ★★☆ · 10 min]

    Args:
        layers: what the probe found; `module` is the attention module, the other fields are the cache's sizes and window.
        tables: the page table of each group of layers, by their window (None: they read everything).  A cache lives on
            the device of its table (`page_table.page_table.device`).
        dtype: of the caches.

    Returns:
        The caches in the order of the layers.
    """
    raise NotImplementedError("Exercise 4.4: attach_caches")
