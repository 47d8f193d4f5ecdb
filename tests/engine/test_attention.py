"""Three attention paths, one meaning: each is held against textbook attention on the same mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexnano import path_probe
from flexnano.attention import (
    PATHS,
    AttentionPath,
    attend_eager,
    attend_gather,
    attention_forward,
    compiled_attention,
    forget_attention,
    gather_mask,
    prepare_mask,
    register_attention,
)
from flexnano.kv_cache import PagedKVCache
from flexnano.masks import (
    MaskMod,
    all_of,
    block_mask_from_blocks,
    causal,
    classify_blocks,
    dense_mask,
    packed_documents,
    sliding_window,
)
from flexnano.page_table import PageTable
from flexnano.path_probe import choose_path

FAST: tuple[AttentionPath, ...] = ("gather", "eager")
CPU = torch.device("cpu")


def textbook(
    q: Tensor, k: Tensor, v: Tensor, visible_BQK: Tensor, scale: float, softcap: float | None = None
) -> Tensor:
    """[B, Hq, Q, D] in float64; k and v may have one row for all.  A query that sees nothing gives 0."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(group, dim=1) for x in (k, v))
    scores = q.double() @ k.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible_BQK[:, None], -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def lookup(mask_BQK: Tensor) -> MaskMod:
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return mask_BQK[b, q_idx, kv_idx]

    return mask_mod


def block_mask_of(mask_mod: MaskMod, dense_BQK: Tensor, block_size: tuple[int, int]) -> BlockMask:
    partial, full = classify_blocks(dense_BQK[:, None], block_size)
    return block_mask_from_blocks(partial, full, mask_mod, block_size, tuple(dense_BQK.shape[1:]))  # type: ignore[arg-type]


def attend(path: AttentionPath, q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, **how: Any) -> Tensor:
    how = dict(scale=0.3, softcap=None, options=None) | how
    function = {"gather": attend_gather, "eager": attend_eager}.get(path) or compiled_attention("cpu")
    return function(q, k, v, prepare_mask(path, mask), **how)


def numbers(B: int, Hq: int, Hk: int, Q: int, K: int, D: int = 8, Dv: int = 8, rows: int = 1) -> tuple[Tensor, ...]:
    """q for B rows, k and v for `rows` rows; fixed."""
    generator = torch.Generator().manual_seed(B * 1000 + Q * 100 + K)
    shapes = ((B, Hq, Q, D), (rows, Hk, K, D), (rows, Hk, K, Dv))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


# ---------------------------------------------------------------------- the paths agree


@given(
    data=st.data(),
    B=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 1)]),
    Q=st.sampled_from([1, 3, 8, 9]),
    K=st.sampled_from([4, 12, 16]),
    block_size=st.sampled_from([(1, 4), (4, 4), (8, 2), (16, 1)]),
    softcap=st.sampled_from([None, 0.5]),
)
@settings(max_examples=30)
def test_any_mask_means_the_same_on_each_path(
    data: st.DataObject,
    B: int,
    heads: tuple[int, int],
    Q: int,
    K: int,
    block_size: tuple[int, int],
    softcap: float | None,
) -> None:
    # Whole blocks empty or full, and a few entries turned over, so that all kinds of blocks occur.
    n_q, n_k = -(-Q // block_size[0]), -(-K // block_size[1])
    blocks = torch.tensor(data.draw(st.lists(st.booleans(), min_size=B * n_q * n_k, max_size=B * n_q * n_k)))
    dense = blocks.view(B, n_q, n_k).repeat_interleave(block_size[0], 1).repeat_interleave(block_size[1], 2)
    dense = dense[:, :Q, :K].clone()
    for cell in data.draw(st.lists(st.integers(0, B * Q * K - 1), max_size=6)):
        dense.view(-1)[cell] ^= True

    q, k, v = numbers(B, *heads, Q, K, Dv=6)
    expected = textbook(q, k, v, dense, 0.3, softcap)
    mask = block_mask_of(lookup(dense), dense, block_size)
    for path in FAST:
        got = attend(path, q, k, v, mask, softcap=softcap)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4, msg=f"{path} is not attention")


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_packed_documents_in_windows(path: AttentionPath, window: int | None, softcap: float | None) -> None:
    mods = [causal, packed_documents(torch.tensor([0] * 11 + [1] + [2] * 17 + [3, 4, 5]))]
    mask_mod = all_of(*mods) if window is None else all_of(*mods, sliding_window(window))
    dense = dense_mask(mask_mod, 1, 1, 32, 32)[:, 0]
    q, k, v = numbers(1, 4, 2, 32, 32)
    got = attend(path, q, k, v, block_mask_of(mask_mod, dense, (8, 8)), softcap=softcap)
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3, softcap), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("seeing", ["nobody", "some"])
def test_a_row_that_sees_nothing_gives_zero(path: AttentionPath, softcap: float | None, seeing: str) -> None:
    dense = torch.zeros(3, 2, 8, dtype=torch.bool)
    if seeing == "some":
        dense[1, 0, :5] = True
    q, k, v = numbers(3, 4, 2, 2, 8)
    got = attend(path, q, k, v, block_mask_of(lookup(dense), dense, (1, 4)), softcap=softcap)
    blind = ~dense.any(-1)
    assert (got.transpose(1, 2)[blind] == 0).all(), "a row without a key must be 0, not NaN"
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3, softcap), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", FAST)
def test_each_row_reads_its_own_keys_where_there_is_no_pool(path: AttentionPath) -> None:
    """A model without caches hands over a row of keys for each row of queries."""
    dense = dense_mask(causal, 2, 1, 8, 8)[:, 0]
    q, k, v = numbers(2, 4, 2, 8, 8, rows=2)
    got = attend(path, q, k, v, block_mask_of(causal, dense, (4, 4)))
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", FAST)
def test_one_mask_may_serve_all_rows(path: AttentionPath) -> None:
    dense = dense_mask(causal, 1, 1, 8, 8)[:, 0]
    q, k, v = numbers(2, 4, 2, 8, 8, rows=2)
    got = attend(path, q, k, v, block_mask_of(causal, dense, (4, 4)))
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense.expand(2, -1, -1), 0.3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("path", FAST)
def test_a_small_soft_cap_does_not_bring_masked_keys_back(path: AttentionPath) -> None:
    """Capped after masking, -inf would become -cap, and a masked key would count e⁻²ᶜ as much as the best."""
    dense = torch.tensor([[[True, True, False, False]]])
    q, k, v = torch.ones(1, 1, 1, 8), torch.ones(1, 1, 4, 8), torch.zeros(1, 1, 4, 8)
    v[:, :, 2:] = 1e6
    got = attend(path, q, k, v, block_mask_of(lookup(dense), dense, (1, 4)), softcap=0.1)
    assert got.abs().max() == 0


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_gathering_works_in_half_precision(dtype: torch.dtype, tolerance: float, softcap: float | None) -> None:
    dense = dense_mask(all_of(causal, sliding_window(9)), 1, 1, 16, 16)[:, 0]
    q, k, v = (x.to(dtype) for x in numbers(1, 4, 2, 16, 16))
    got = attend("gather", q, k, v, block_mask_of(lookup(dense), dense, (4, 4)), softcap=softcap)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3, softcap), atol=tolerance, rtol=tolerance)


# ---------------------------------------------------------------------- the gather path reads the lists


def test_gathering_takes_only_the_blocks_that_are_listed() -> None:
    dense = torch.zeros(2, 1, 32, dtype=torch.bool)
    dense[0, 0, 8:14], dense[1, 0, 28:32] = True, True
    mask = gather_mask(block_mask_of(lookup(dense), dense, (1, 4)))
    assert mask.address_RK.shape == (2, 8), "two blocks of four for the row that lists more"
    for b, keys in ((0, range(8, 14)), (1, range(28, 32))):
        assert mask.address_RK[b][mask.visible_RTK[b, 0]].tolist() == list(keys)


def test_a_full_block_is_read_without_asking_and_what_is_not_listed_is_not_read() -> None:
    """So that a wrong list is noticed, which eager FlexAttention can't do."""
    everything = torch.ones(1, 1, 8, dtype=torch.bool)
    nothing = ~everything
    full = torch.tensor([[[[True, False]]]])
    listed_as_full = block_mask_from_blocks(torch.zeros_like(full), full, lookup(nothing), (1, 4), (1, 8))
    assert gather_mask(listed_as_full).visible_RTK.sum() == 4
    not_listed = block_mask_from_blocks(full, torch.zeros_like(full), lookup(everything), (1, 4), (1, 8))
    assert gather_mask(not_listed).visible_RTK.sum() == 4


def test_what_stands_behind_the_count_of_a_list_is_not_read() -> None:
    dense = torch.tensor([[[True] * 4 + [False] * 8]])
    mask = block_mask_of(lookup(dense), dense, (1, 4))
    mask.full_kv_indices[..., 1:] = 0  # block 0 again, and again
    read = gather_mask(mask)
    assert read.address_RK.tolist() == [[0, 1, 2, 3]]
    assert read.visible_RTK.all()


def test_keys_beyond_the_end_are_not_read() -> None:
    dense = torch.ones(1, 1, 6, dtype=torch.bool)
    q, k, v = numbers(1, 1, 1, 1, 6)
    got = attend("gather", q, k, v, block_mask_of(lookup(dense), dense, (1, 4)))
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------- compiled: a few cases, seconds each


@pytest.mark.compiles
def test_compiled_decode_over_pages_out_of_order_with_a_window_and_a_soft_cap() -> None:
    table = PageTable(n_pages=7, page_size=16, max_batch_size=4, max_seq_length=64)
    table.free_pages, table.free_slots = [1, 6, 3, 7, 2, 5, 4], [2, 4, 1, 3]
    slots = [table.allocate() for _ in range(3)]
    lengths = [40, 1, 17]
    for slot, length in zip(slots, lengths, strict=True):
        assert table.reserve(slot, length)
    last_B = torch.tensor([length - 1 for length in lengths])

    def in_window(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (kv_idx <= last_B[b]) & (last_B[b] - kv_idx < 24)

    logical = block_mask_of(in_window, dense_mask(in_window, 3, 1, 1, 64)[:, 0], (128, 16))
    mask = table.convert_logical_block_mask(logical, torch.tensor(slots))
    q, k, v = numbers(3, 4, 2, 1, 8 * 16, D=16, Dv=16)
    expected = textbook(q, k, v, dense_mask(mask.mask_mod, 3, 1, 1, 8 * 16)[:, 0], 0.3, softcap=2.0)
    for path in PATHS:
        with torch.inference_mode():
            got = attend(path, q, k, v, mask, softcap=2.0)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4, msg=f"{path} is off")


@pytest.mark.compiles
def test_compiled_prefill_of_packed_documents_in_a_window() -> None:
    documents = torch.tensor([0] * 30 + [1] * 50 + [2] * 10 + list(range(100, 138)))
    mask_mod = all_of(causal, packed_documents(documents), sliding_window(24))
    dense = dense_mask(mask_mod, 1, 1, 128, 128)[:, 0]
    q, k, v = numbers(1, 4, 2, 128, 128, D=16, Dv=16)
    with torch.inference_mode():
        got = attend("compiled", q, k, v, block_mask_of(mask_mod, dense, (32, 32)))
    torch.testing.assert_close(got.double(), textbook(q, k, v, dense, 0.3), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------- what a layer of the model calls


def forward(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **more: Any) -> Tensor:
    out, weights = attention_forward(attend_gather, module, q, k, v, None, flex_attn_block_mask=mask, **more)
    assert weights is None
    return out


def causal_mask(n: int) -> tuple[BlockMask, Tensor]:
    dense = dense_mask(causal, 1, 1, n, n)[:, 0]
    return block_mask_of(causal, dense, (4, 4)), dense


def test_heads_come_last_but_one_as_the_model_flattens_them_next() -> None:
    q, k, v = numbers(1, 4, 2, 8, 8, Dv=6)
    mask, dense = causal_mask(8)
    out = forward(SimpleNamespace(), q, k, v, gather_mask(mask), scaling=0.3)
    assert out.shape == (1, 8, 4, 6)
    assert out.is_contiguous()
    torch.testing.assert_close(out.double(), textbook(q, k, v, dense, 0.3).transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("scaling", "scale"), [(None, 16**-0.5), (0.5, 0.5)])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_scale_and_soft_cap_are_the_models(scaling: float | None, scale: float, softcap: float | None) -> None:
    q, k, v = numbers(1, 4, 2, 8, 8, D=16)
    mask, dense = causal_mask(8)
    out = forward(SimpleNamespace(), q, k, v, gather_mask(mask), scaling=scaling, softcap=softcap, sliding_window=3)
    expected = textbook(q, k, v, dense, scale, softcap).transpose(1, 2)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 3])
def test_a_layer_with_a_cache_stores_its_keys_and_takes_the_mask_of_its_window(window: int | None) -> None:
    table = PageTable(n_pages=4, page_size=4, max_batch_size=1)
    slot = table.allocate()
    assert table.reserve(slot, 8)
    cache = PagedKVCache(table, 2, 8, 8, window, torch.float32, "cpu")
    q, k, v = numbers(1, 4, 2, 8, 8)
    dense_of = {w: dense_mask(m, 1, 1, 8, 8)[:, 0] for w, m in ((None, causal), (3, all_of(causal, sliding_window(3))))}
    masks = {w: gather_mask(block_mask_of(lookup(dense), dense, (4, 4))) for w, dense in dense_of.items()}
    position_1L, slot_1L = torch.arange(8)[None], torch.full((1, 8), slot)
    out = forward(
        SimpleNamespace(kv_cache=cache), q, k, v, masks,
        scaling=0.3, flex_attn_input_pos=position_1L, flex_attn_batch_idx=slot_1L,
    )  # fmt: skip
    expected = textbook(q, k, v, dense_of[window], 0.3).transpose(1, 2)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(cache.k_cache[:, :, table.address(slot_1L[0], position_1L[0])], k)


@pytest.mark.parametrize("path", PATHS)
def test_transformers_knows_a_path_by_the_name_that_is_returned_until_it_is_forgotten(path: AttentionPath) -> None:
    from transformers import AttentionInterface

    name, other = register_attention(path, "cpu"), register_attention(path, "cpu")
    assert path in name and name != other, "two engines must not share a name, nor compiled graphs"
    function: Any = AttentionInterface()[name]
    assert function.func is attention_forward
    forget_attention(name)
    assert name not in AttentionInterface() and other in AttentionInterface()
    forget_attention(other)


# ---------------------------------------------------------------------- choosing a path


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that compiling works (None) or fails for a reason, and forgets the caller's environment."""
    monkeypatch.delenv("FLEXNANO_ATTENTION", raising=False)

    def pretend(trouble: str | None) -> None:
        monkeypatch.setattr(path_probe, "_compiling_fails", lambda *_: trouble)

    return pretend


def test_compiled_is_chosen_where_it_works(compiler: Any) -> None:
    compiler(None)
    assert choose_path(CPU, torch.float32, 16, 2)[0] == "compiled"


def test_gather_is_chosen_where_compiling_fails_and_says_why(compiler: Any) -> None:
    compiler("no compiler today")
    assert choose_path(CPU, torch.float32, 16, 2) == ("gather", "no compiler today")


def test_asking_for_compiled_where_it_fails_is_an_error_that_says_why(compiler: Any) -> None:
    compiler("no compiler today")
    with pytest.raises(RuntimeError, match="compiled.*no compiler today"):
        choose_path(CPU, torch.float32, 16, 2, "compiled")


@pytest.mark.parametrize("path", FAST)
def test_a_path_asked_for_is_taken_without_compiling(path: str, compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_probe, "_compiling_fails", lambda *_: pytest.fail("it compiled something"))
    assert choose_path(CPU, torch.float32, 16, 2, path)[0] == path
    monkeypatch.setenv("FLEXNANO_ATTENTION", path)
    assert choose_path(CPU, torch.float32, 16, 2)[0] == path


def test_the_caller_has_the_last_word_over_the_environment(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXNANO_ATTENTION", "eager")
    assert choose_path(CPU, torch.float32, 16, 2, "gather")[0] == "gather"


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_an_unknown_path_is_refused_with_those_that_exist(
    by: str, compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "environment":
        monkeypatch.setenv("FLEXNANO_ATTENTION", "fast")
    with pytest.raises(ValueError, match="'fast'.*compiled, gather, eager"):
        choose_path(CPU, torch.float32, 16, 2, "fast" if by == "argument" else None)


def test_a_device_that_flexattention_does_not_know_is_refused(compiler: Any) -> None:
    with pytest.raises(RuntimeError, match="mps.*cpu.*cuda"):
        choose_path(torch.device("mps"), torch.float32, 16, 2, "gather")


def test_a_compiler_that_fails_or_computes_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    try_it = path_probe._compiling_fails.__wrapped__

    def computes(compute: Callable[..., Tensor]) -> str | None:
        monkeypatch.setattr(path_probe, "compiled_attention", lambda _: compute)
        return try_it(CPU, torch.float32, (16, 16), 2, 8, ())

    def broken(*_: Any) -> Tensor:
        raise OSError("first line\ng++: not found")

    assert "OSError: first line g++: not found" in (computes(broken) or "")
    assert "off by" in (computes(lambda q, *_: torch.zeros_like(q)) or "")
    assert "off by" in (computes(lambda q, *_: torch.full_like(q, math.nan)) or ""), "NaN is within no tolerance"
    assert (
        computes(lambda q, k, v, mask, *_: textbook(q, k, v, dense_mask(mask.mask_mod, 2, 1, 1, 24)[:, 0], 0.25))
        is None
    )
