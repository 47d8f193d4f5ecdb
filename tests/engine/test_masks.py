"""Masks: which query reads which key, entry by entry and block by block."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from flexnano.masks import (
    all_of,
    any_of,
    block_mask_from_blocks,
    causal,
    classify_blocks,
    dense_mask,
    packed_documents,
    sliding_window,
    soft_cap,
    visible_blocks,
)

# ---------------------------------------------------------------------- entry by entry


def keys_read(mask_mod: Any, query: int, n_keys: int) -> list[int]:
    row = dense_mask(mask_mod, 1, 1, query + 1, n_keys)[0, 0, query]
    return row.nonzero().flatten().tolist()


def test_a_query_reads_itself_and_the_past() -> None:
    assert keys_read(causal, query=2, n_keys=5) == [0, 1, 2]


@pytest.mark.parametrize(("window", "keys"), [(1, [7]), (4, [4, 5, 6, 7]), (99, list(range(8)))])
def test_a_window_counts_the_query_itself(window: int, keys: list[int]) -> None:
    assert keys_read(all_of(causal, sliding_window(window)), query=7, n_keys=9) == keys


def test_a_window_alone_does_not_hide_the_future() -> None:
    assert keys_read(sliding_window(2), query=3, n_keys=6) == [2, 3, 4, 5]


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_without_a_key_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"window {window} .* at least 1"):
        sliding_window(window)


def test_a_document_reads_only_itself_even_if_it_comes_in_two_parts() -> None:
    mask = packed_documents(torch.tensor([5, 9, 5, 9]))
    assert [keys_read(mask, query, 4) for query in range(4)] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def test_packed_documents_follow_the_tensor_when_it_changes() -> None:
    document_L = torch.tensor([0, 0, 0])
    mask = packed_documents(document_L)
    document_L.copy_(torch.tensor([0, 1, 1]))
    assert keys_read(mask, query=2, n_keys=3) == [1, 2], "the mask froze the documents that it was made with"


@pytest.mark.parametrize(("combine", "rule"), [(all_of, all), (any_of, any)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_combining_masks_is_logic_entry_by_entry(combine: Any, rule: Any, n: int) -> None:
    masks = [causal, sliding_window(2), packed_documents(torch.arange(6) // 2)][:n]
    dense = [dense_mask(mask, 1, 1, 6, 6)[0, 0].tolist() for mask in masks]
    expected = [[rule(mask[q][k] for mask in dense) for k in range(6)] for q in range(6)]
    assert dense_mask(combine(*masks), 1, 1, 6, 6)[0, 0].tolist() == expected


@pytest.mark.parametrize("combine", [all_of, any_of])
def test_combining_no_mask_is_refused(combine: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        combine()


def test_a_dense_mask_asks_for_every_row_and_head() -> None:
    def odd(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx == b + 2 * h

    mask = dense_mask(odd, 2, 3, 1, 8)
    assert mask.shape == (2, 3, 1, 8)
    assert [[mask[b, h, 0].nonzero().item() for h in range(3)] for b in range(2)] == [[0, 2, 4], [1, 3, 5]]


def test_a_dense_mask_has_its_full_shape_where_the_mask_ignores_row_and_head() -> None:
    mask = dense_mask(causal, 2, 3, 4, 5)
    assert mask.shape == (2, 3, 4, 5)
    assert mask.dtype == torch.bool


def test_a_soft_cap_bounds_scores_and_hardly_changes_small_ones() -> None:
    cap = soft_cap(2.0)
    scores = cap(torch.tensor([-1e4, -0.01, 0.0, 0.01, 1.0, 1e4]), *[None] * 4)  # type: ignore[arg-type]
    assert scores.tolist() == pytest.approx([-2.0, -0.01, 0.0, 0.01, 0.9242, 2.0], abs=1e-4)


# ---------------------------------------------------------------------- block by block

BLOCK_SIZES = st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([1, 2, 4, 5]))


def blocks_by_hand(mask_QK: list[list[bool]], q_block: int, k_block: int) -> tuple[list[Any], list[Any]]:
    """The definition, with loops: what is read at all, and what is read by every query that exists at every place."""
    Q, K = len(mask_QK), len(mask_QK[0])
    partial, full = [], []
    for q0 in range(0, Q, q_block):
        rows = range(q0, min(q0 + q_block, Q))
        partial.append([])
        full.append([])
        for k0 in range(0, K, k_block):
            entries = [k < K and mask_QK[q][k] for q in rows for k in range(k0, k0 + k_block)]
            full[-1].append(all(entries))
            partial[-1].append(any(entries) and not all(entries))
    return partial, full


@given(st.data(), st.integers(1, 9), st.integers(1, 9), BLOCK_SIZES)
@settings(max_examples=150)
def test_blocks_are_sorted_into_partial_and_full_as_defined(
    data: st.DataObject, Q: int, K: int, block_size: tuple[int, int]
) -> None:
    # Mostly True, else hardly a block would be full.
    mask = [[data.draw(st.integers(0, 4)) > 0 for _ in range(K)] for _ in range(Q)]
    partial, full = classify_blocks(torch.tensor(mask)[None, None], block_size)
    assert (partial[0, 0].tolist(), full[0, 0].tolist()) == blocks_by_hand(mask, *block_size)


def test_rows_and_heads_are_classified_each_by_itself() -> None:
    mask = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    mask[0, 1], mask[1, 0, 0, 0] = True, True
    partial, full = classify_blocks(mask, (2, 4))
    assert full.nonzero().tolist() == [[0, 1, 0, 0], [0, 1, 1, 0]]
    assert partial.nonzero().tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    "mask_mod",
    [causal, all_of(causal, sliding_window(40)), all_of(causal, packed_documents(torch.arange(128) // 48))],
    ids=["causal", "window", "documents"],
)
def test_the_blocks_are_those_of_torch(mask_mod: Any) -> None:
    partial, full = classify_blocks(dense_mask(mask_mod, 1, 1, 128, 128), (16, 16))
    theirs = create_block_mask(mask_mod, 1, 1, 128, 128, device="cpu", BLOCK_SIZE=16)
    ours = block_mask_from_blocks(partial, full, mask_mod, (16, 16), (128, 128))
    assert listed(ours.kv_num_blocks, ours.kv_indices) == listed(theirs.kv_num_blocks, theirs.kv_indices)
    assert listed(ours.full_kv_num_blocks, ours.full_kv_indices) == listed(
        theirs.full_kv_num_blocks, theirs.full_kv_indices
    )


@st.composite
def intervals(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """First and last key of each query, such that neighbours overlap or touch, or all empty; number of keys."""
    first, last = [draw(st.integers(0, 6))], []
    last.append(first[0] + draw(st.integers(0, 8)))
    for _ in range(draw(st.integers(0, 12))):
        first.append(draw(st.integers(max(0, first[-1] - 2), last[-1] + 1)))
        last.append(max(first[-1], first[-2] - 1, last[-1] + draw(st.integers(-3, 4))))
    n_keys = max(last) + 1 + draw(st.integers(0, 6))
    if draw(st.booleans()):  # a padded row of a decode reads nothing at all
        first, last = [0] * len(first), [-1] * len(last)
    return first, last, n_keys


@given(intervals(), BLOCK_SIZES, st.sampled_from([torch.int32, torch.int64]))
@settings(max_examples=300)
def test_blocks_from_intervals_are_those_of_the_dense_mask(
    interval: tuple[list[int], list[int], int], block_size: tuple[int, int], dtype: torch.dtype
) -> None:
    first, last, n_keys = interval
    n_key_blocks = -(-n_keys // block_size[1])
    # Keys up to the end of the last block: intervals know of no ragged end.
    key = torch.arange(n_key_blocks * block_size[1])
    dense = (torch.tensor(first)[:, None] <= key) & (key <= torch.tensor(last)[:, None])
    expected = classify_blocks(dense[None, None], block_size)
    got = visible_blocks(
        torch.tensor([first], dtype=dtype), torch.tensor([last], dtype=dtype), n_key_blocks, block_size
    )
    for name, ours, theirs in zip(("partial", "full"), got, expected, strict=True):
        assert torch.equal(ours, theirs[:, 0]), f"{name} blocks differ: {ours.int()} instead of {theirs[:, 0].int()}"


@pytest.mark.parametrize(
    ("window", "documents"),
    [(None, [20, 1, 43]), (7, [64]), (5, [3, 30, 31]), (64, [10, 54])],
)
def test_packed_windowed_prompts_are_intervals(window: int | None, documents: list[int]) -> None:
    """What prefill relies on: the intervals of a packed row give the blocks of its mask."""
    document_L = torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(documents))
    starts = [0, *itertools.accumulate(documents)]
    position_L = torch.arange(64)
    first_L = torch.tensor(starts)[document_L]
    mods = [causal, packed_documents(document_L)]
    if window is not None:
        first_L = torch.maximum(first_L, position_L - window + 1)
        mods.append(sliding_window(window))
    expected = classify_blocks(dense_mask(all_of(*mods), 1, 1, 64, 64), (16, 16))
    got = visible_blocks(first_L[None], position_L[None], 4, (16, 16))
    assert torch.equal(got[0], expected[0][:, 0])
    assert torch.equal(got[1], expected[1][:, 0])


def listed(num_blocks: Tensor, indices: Tensor) -> list[list[int]]:
    """The blocks that a BlockMask's list names, for each row of query blocks, sorted."""
    rows = zip(num_blocks.flatten().tolist(), indices.flatten(0, -2).tolist(), strict=True)
    return [sorted(row[:n]) for n, row in rows]


@given(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_a_block_mask_lists_each_block_once_and_in_the_right_list(
    B: int, H: int, n_query_blocks: int, n_key_blocks: int, random: Any
) -> None:
    kind = torch.tensor([random.randrange(3) for _ in range(B * H * n_query_blocks * n_key_blocks)])
    kind = kind.view(B, H, n_query_blocks, n_key_blocks)
    lengths = (4 * n_query_blocks, 2 * n_key_blocks)
    mask = block_mask_from_blocks(kind == 1, kind == 2, causal, (4, 2), lengths)

    rows = kind.flatten(0, -2).tolist()
    for which, num, indices in (
        (1, mask.kv_num_blocks, mask.kv_indices),
        (2, mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        assert num is not None and indices is not None, "the CPU kernel needs both lists, also where one is empty"
        assert num.dtype == indices.dtype == torch.int32
        assert num.shape == (B, H, n_query_blocks)
        assert indices.shape == (B, H, n_query_blocks, n_key_blocks)
        assert listed(num, indices) == [[k for k, block in enumerate(row) if block == which] for row in rows]
        assert ((indices >= 0) & (indices < n_key_blocks)).all(), "what stands behind the count must be a block too"
    assert mask.mask_mod is causal
    assert mask.BLOCK_SIZE == (4, 2)
    assert tuple(mask.seq_lengths) == lengths
