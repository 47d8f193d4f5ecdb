"""The page table: no page and no slot is ever lost, given twice, or read by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexnano.masks import block_mask_from_blocks, causal, classify_blocks, dense_mask, visible_blocks
from flexnano.page_table import PageTable

PAGE = 4


def table_of(n_pages: int = 12, max_batch_size: int = 8, max_seq_length: int | None = None) -> PageTable:
    return PageTable(n_pages, PAGE, max_batch_size, max_seq_length)


def slots_with(table: PageTable, *lengths: int) -> list[int]:
    """A slot for each length, holding so many tokens."""
    slots = [table.allocate() for _ in lengths]
    for slot, length in zip(slots, lengths, strict=True):
        assert table.reserve(slot, length)
    return slots


# ---------------------------------------------------------------------- making one


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        (dict(n_pages=0), "n_pages is 0"),
        (dict(n_pages=-1), "n_pages is -1"),
        (dict(page_size=0), "page_size is 0"),
        (dict(page_size=12), "page_size 12 is not a power of two"),
        (dict(max_batch_size=0), "max_batch_size is 0"),
        (dict(max_seq_length=0), "max_seq_length is 0"),
        (dict(max_seq_length=-5), "max_seq_length is -5"),
    ],
)
def test_impossible_sizes_are_refused_by_name(sizes: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PageTable(**(dict(n_pages=4, page_size=4, max_batch_size=2) | sizes))


def test_a_page_of_one_token_is_a_page() -> None:
    table = PageTable(n_pages=3, page_size=1, max_batch_size=1)
    slot = table.allocate()
    assert table.reserve(slot, 3)
    assert table.capacity[slot] == 3


@pytest.mark.parametrize(("max_seq_length", "pages"), [(None, 12), (1, 1), (4, 1), (5, 2), (8, 2), (999, 12)])
def test_a_row_has_room_for_the_longest_sequence_or_the_whole_pool(max_seq_length: int | None, pages: int) -> None:
    table = table_of(12, max_seq_length=max_seq_length)
    assert table.pages_per_row == pages
    assert table.page_table.shape == (9, pages)


# ---------------------------------------------------------------------- slots


def test_every_slot_but_the_sink_is_handed_out_once() -> None:
    table = table_of(max_batch_size=3)
    assert sorted(table.allocate() for _ in range(3)) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="all 3 slots are taken"):
        table.allocate()


def test_an_erased_slot_is_handed_out_again_without_pages() -> None:
    table = table_of(max_batch_size=1)
    (slot,) = slots_with(table, 9)
    table.erase(slot)
    assert table.allocate() == slot
    assert table.capacity[slot] == 0
    assert table.owned[slot] == []


@pytest.mark.parametrize("slot", [0, -1, 2, 99])
@pytest.mark.parametrize("method", ["erase", "reserve"])
def test_a_slot_that_nobody_holds_is_refused_by_number(slot: int, method: str) -> None:
    table = table_of()
    table.allocate()
    with pytest.raises(ValueError, match=f"slot {slot} is not allocated"):
        getattr(table, method)(slot, *([4] if method == "reserve" else []))
    table.check()


def test_erasing_twice_is_an_error_and_gives_no_slot_twice() -> None:
    table = table_of(max_batch_size=2)
    slot, _ = slots_with(table, 4, 4)
    table.erase(slot)
    with pytest.raises(ValueError, match=f"slot {slot} is not allocated"):
        table.erase(slot)
    table.check()
    table.allocate()
    with pytest.raises(RuntimeError):
        table.allocate()


# ---------------------------------------------------------------------- pages


@pytest.mark.parametrize(("tokens", "pages"), [(1, 1), (3, 1), (4, 1), (5, 2), (7, 2), (8, 2), (9, 3)])
def test_a_sequence_takes_whole_pages_and_none_to_spare(tokens: int, pages: int) -> None:
    table = table_of(12)
    assert table.pages_missing(0, tokens) == pages
    (slot,) = slots_with(table, tokens)
    assert table.pages_available == 12 - pages
    assert table.capacity[slot] == pages * PAGE
    table.check()


def test_growing_takes_only_what_is_missing_and_keeps_what_is_there() -> None:
    table = table_of(12)
    (slot,) = slots_with(table, 4)
    first = table.owned[slot][:]
    for tokens, pages in ((4, 1), (5, 2), (8, 2), (2, 2), (17, 5)):
        assert table.reserve(slot, tokens)
        assert len(table.owned[slot]) == pages, f"{tokens} tokens after the ones before"
    assert table.owned[slot][:1] == first
    assert table.page_table[slot, :5].tolist() == table.owned[slot]
    assert table.logical_of_page[table.owned[slot]].tolist() == [0, 1, 2, 3, 4]


def test_too_few_pages_leave_everything_as_it_was() -> None:
    table = table_of(n_pages=5)
    slot, other = slots_with(table, 4, 8)
    before = (list(table.free_pages), [row[:] for row in table.owned], table.capacity[:], table.page_table.clone())
    assert not table.can_reserve(slot, 13)
    assert table.reserve(slot, 13) is False, "three pages are missing and two are there"
    after = (list(table.free_pages), [row[:] for row in table.owned], table.capacity[:], table.page_table.clone())
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])
    assert table.reserve(slot, 12), "two pages are missing and two are there"
    assert other


def test_a_sequence_longer_than_a_row_is_an_error_not_a_false() -> None:
    table = table_of(12, max_seq_length=8)
    slot = table.allocate()
    assert not table.can_reserve(slot, 9)
    with pytest.raises(ValueError, match=r"seq_len 9 is longer than a row .* 2 pages of 4 tokens hold 8"):
        table.reserve(slot, 9)
    table.check()


@pytest.mark.parametrize("seq_len", [0, -4])
def test_no_token_is_no_sequence(seq_len: int) -> None:
    table = table_of()
    slot = table.allocate()
    with pytest.raises(ValueError, match=f"seq_len is {seq_len}"):
        table.reserve(slot, seq_len)


def test_erased_pages_serve_the_next_one() -> None:
    table = table_of(n_pages=3)
    (slot,) = slots_with(table, 12)
    table.erase(slot)
    assert table.pages_available == 3
    (again,) = slots_with(table, 12)
    assert sorted(table.owned[again]) == [1, 2, 3], "page 0 is the sink"
    table.check()


# ---------------------------------------------------------------------- under random use


@given(
    n_pages=st.integers(1, 9),
    n_slots=st.integers(1, 4),
    max_seq_length=st.none() | st.integers(1, 40),
    actions=st.lists(
        st.tuples(st.sampled_from(["allocate", "reserve", "erase"]), st.integers(0, 5), st.integers(1, 40)), max_size=40
    ),
)
@settings(max_examples=120)
def test_any_use_keeps_the_books(
    n_pages: int, n_slots: int, max_seq_length: int | None, actions: list[tuple[str, int, int]]
) -> None:
    """Against a model that counts only: tokens held by slot.  What it can't know, which page, is checked for being unique."""
    table = PageTable(n_pages, PAGE, n_slots, max_seq_length)
    row = n_pages if max_seq_length is None else min(n_pages, (max_seq_length + PAGE - 1) // PAGE)
    pages_of: dict[int, int] = {}
    for action, slot, tokens in actions:
        if action == "allocate":
            if len(pages_of) < n_slots:
                new = table.allocate()
                assert 1 <= new <= n_slots
                assert new not in pages_of, f"slot {new} was given twice"
                pages_of[new] = 0
            else:
                with pytest.raises(RuntimeError):
                    table.allocate()
        elif slot not in pages_of:
            with pytest.raises(ValueError):
                table.reserve(slot, tokens) if action == "reserve" else table.erase(slot)
        elif action == "erase":
            table.erase(slot)
            del pages_of[slot]
        elif tokens > row * PAGE:
            with pytest.raises(ValueError):
                table.reserve(slot, tokens)
        else:
            wanted = max(pages_of[slot], (tokens + PAGE - 1) // PAGE)
            fits = wanted - pages_of[slot] <= n_pages - sum(pages_of.values())
            assert table.can_reserve(slot, tokens) == fits
            assert table.reserve(slot, tokens) == fits
            pages_of[slot] = wanted if fits else pages_of[slot]

        table.check()
        assert table.pages_available == n_pages - sum(pages_of.values())
        assert [table.capacity[s] for s in range(n_slots + 1)] == [
            PAGE * pages_of.get(s, 0) for s in range(n_slots + 1)
        ]
        cells = [
            int(address)
            for s, pages in pages_of.items()
            for address in table.address(torch.tensor(s), torch.arange(pages * PAGE))
        ]
        assert len(set(cells)) == len(cells), "two tokens lie in one place"
        assert all(PAGE <= cell < (n_pages + 1) * PAGE for cell in cells), (
            "a token lies in the sink or outside the pool"
        )


def lose_a_page(table: PageTable) -> None:
    table.free_pages.pop()


def free_a_page_twice(table: PageTable) -> None:
    table.free_pages.append(table.free_pages[0])


def own_a_free_page(table: PageTable) -> None:
    table.owned[1].append(table.free_pages[0])


def share_a_page(table: PageTable) -> None:
    table.owned[2][0] = table.owned[1][0]


def free_a_slot_twice(table: PageTable) -> None:
    table.free_slots.append(table.free_slots[0])


def free_a_slot_that_owns(table: PageTable) -> None:
    table.free_slots.append(1)


def give_the_sink_away(table: PageTable) -> None:
    table.free_slots.append(0)


def miscount_a_capacity(table: PageTable) -> None:
    table.capacity[1] += 1


def list_another_page(table: PageTable) -> None:
    table.page_table[1, 0] = table.page_table[2, 0]


def forget_the_logical_place(table: PageTable) -> None:
    table.logical_of_page[table.owned[1][1]] = 0


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lose_a_page, "each page from 1 to 12 must be free or owned, once"),
        (free_a_page_twice, "each page from 1 to 12 must be free or owned, once"),
        (own_a_free_page, "each page from 1 to 12 must be free or owned, once"),
        (share_a_page, "each page from 1 to 12 must be free or owned, once"),
        (free_a_slot_twice, "a slot is free twice"),
        (free_a_slot_that_owns, "slot 1 is free but owns"),
        (give_the_sink_away, "not a slot"),
        (miscount_a_capacity, "its capacity is 9"),
        (list_another_page, "its row lists"),
        (forget_the_logical_place, r"lie at \[0, 0\]"),
    ],
)
def test_the_check_names_what_is_broken(damage: Callable[[PageTable], None], named: str) -> None:
    table = table_of(max_batch_size=4)
    assert sorted(slots_with(table, 8, 8)) == [1, 2]
    table.check()
    damage(table)
    with pytest.raises(AssertionError, match=named):
        table.check()


# ---------------------------------------------------------------------- addresses and writing


def shuffled_table() -> tuple[PageTable, list[int]]:
    """Three sequences of 9, 6 and 4 tokens in slots and pages out of order."""
    table = PageTable(n_pages=12, page_size=PAGE, max_batch_size=8, max_seq_length=16)
    slots = [3, 7, 1]
    table.free_slots = [*(s for s in range(8, 0, -1) if s not in slots), 1, 7, 3]
    table.free_pages = [4, 10, 1, 9, 3, 12, 6, 11, 2, 8, 5, 7]
    assert slots_with(table, 9, 6, 4) == slots
    table.check()
    return table, slots


def test_a_token_lies_in_its_page_at_its_place() -> None:
    table, slots = shuffled_table()
    for slot in slots:
        expected = [page * PAGE + place for page in table.owned[slot] for place in range(PAGE)]
        assert table.address(torch.tensor(slot), torch.arange(len(expected))).tolist() == expected


@pytest.mark.parametrize("position", [0, 3, 4, 15, 16, 1000])
def test_padding_lies_in_the_sink_whatever_its_position(position: int) -> None:
    table, _ = shuffled_table()
    assert 0 <= table.address(torch.tensor(0), torch.tensor(position)).item() < PAGE


def test_addresses_broadcast() -> None:
    table, slots = shuffled_table()
    address = table.address(torch.tensor(slots)[:, None], torch.tensor([0, 1]))
    assert address.shape == (3, 2)
    assert address.dtype == torch.int64
    assert address[:, 0].tolist() == [table.owned[slot][0] * PAGE for slot in slots]


def pools(Hk: int, D: int, Dv: int, n_pages: int = 12) -> tuple[Tensor, Tensor]:
    N = (n_pages + 1) * PAGE
    return torch.full((1, Hk, N, D), -7.0), torch.full((1, Hk, N, Dv), -8.0)


@pytest.mark.parametrize("S", [1, 3])
def test_decode_writes_each_row_into_its_own_pages_and_nothing_else(S: int) -> None:
    table, slots = shuffled_table()
    Hk, D, Dv = 2, 3, 5
    k_cache, v_cache = pools(Hk, D, Dv)
    k, v = torch.rand(3, Hk, S, D), torch.rand(3, Hk, S, Dv)
    positions = torch.tensor([[6, 7, 8], [3, 4, 5], [1, 2, 3]])[:, :S]
    table.assign(torch.tensor(slots), positions, k, v, k_cache, v_cache)

    expected_k, expected_v = pools(Hk, D, Dv)
    for b, slot in enumerate(slots):
        for s, position in enumerate(positions[b].tolist()):
            cell = table.owned[slot][position // PAGE] * PAGE + position % PAGE
            expected_k[0, :, cell], expected_v[0, :, cell] = k[b, :, s], v[b, :, s]
    assert torch.equal(k_cache, expected_k)
    assert torch.equal(v_cache, expected_v)


def test_prefill_writes_packed_prompts_into_their_pages_and_padding_into_the_sink() -> None:
    table, slots = shuffled_table()
    Hk, D, Dv = 2, 3, 5
    k_cache, v_cache = pools(Hk, D, Dv)
    lengths = [9, 6, 4]
    slot_L = torch.tensor([s for s, n in zip(slots, lengths, strict=True) for _ in range(n)] + [0] * 5)
    position_L = torch.tensor([i for n in lengths for i in range(n)] + [0] * 5)
    k, v = torch.rand(1, Hk, 24, D), torch.rand(1, Hk, 24, Dv)
    table.assign_prefill_no_paging(slot_L[None], position_L[None], k, v, k_cache, v_cache)

    expected_k, expected_v = pools(Hk, D, Dv)
    for i in range(sum(lengths)):
        page = table.owned[int(slot_L[i])][int(position_L[i]) // PAGE]
        cell = page * PAGE + int(position_L[i]) % PAGE
        expected_k[0, :, cell], expected_v[0, :, cell] = k[0, :, i], v[0, :, i]
    assert torch.equal(k_cache[:, :, PAGE:], expected_k[:, :, PAGE:])
    assert torch.equal(v_cache[:, :, PAGE:], expected_v[:, :, PAGE:])


# ---------------------------------------------------------------------- masks over the pool


def up_to(position_B: Tensor, window: int = 10**6) -> Callable[..., Tensor]:
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (kv_idx <= position_B[b]) & (position_B[b] - kv_idx < window)

    return mask_mod


def addresses_of(table: PageTable, slot: int, positions: range) -> list[int]:
    return sorted(table.owned[slot][p // PAGE] * PAGE + p % PAGE for p in positions)


@pytest.mark.parametrize("window", [10**6, 3])
def test_a_row_reads_the_addresses_of_its_own_positions_and_no_other(window: int) -> None:
    table, slots = shuffled_table()
    last = [8, 5, 2, 0]
    table.slot_of_row[:4] = torch.tensor([*slots, 0])
    mask = dense_mask(table.physical_mask_mod(up_to(torch.tensor(last), window)), 4, 1, 1, 13 * PAGE)[:, 0, 0]
    for b, slot in enumerate(slots):
        expected = addresses_of(table, slot, range(max(0, last[b] - window + 1), last[b] + 1))
        assert mask[b].nonzero().flatten().tolist() == expected, f"row {b}, slot {slot}"
    assert not mask[3].any(), "padding has slot 0 and reads nothing"


def test_a_slot_that_was_erased_and_used_again_reads_only_its_new_pages() -> None:
    table = table_of(n_pages=4, max_batch_size=2)
    old, other = slots_with(table, 8, 8)
    table.erase(old)
    table.erase(other)
    new, third = slots_with(table, 4, 12)
    table.slot_of_row[:2] = torch.tensor([new, third])
    everything = table.physical_mask_mod(lambda b, h, q, kv: kv >= 0)
    mask = dense_mask(everything, 2, 1, 1, 5 * PAGE)[:, 0, 0]
    assert mask[0].nonzero().flatten().tolist() == addresses_of(table, new, range(4))
    assert mask[1].nonzero().flatten().tolist() == addresses_of(table, third, range(12))


@given(st.data())
@settings(max_examples=60)
def test_after_any_use_no_sequence_reads_what_another_owns(data: st.DataObject) -> None:
    table = PageTable(n_pages=8, page_size=PAGE, max_batch_size=4)
    for _ in range(data.draw(st.integers(1, 12))):
        held = [s for s in range(1, 5) if table.is_allocated(s)]
        if held and data.draw(st.booleans()):
            table.erase(data.draw(st.sampled_from(held)))
        elif len(held) < 4:
            slot = table.allocate()
            tokens = data.draw(st.integers(1, 16))
            if table.can_reserve(slot, tokens):
                table.reserve(slot, tokens)
    table.slot_of_row.copy_(torch.tensor(data.draw(st.permutations([1, 2, 3, 4]))))
    mask = dense_mask(table.physical_mask_mod(lambda b, h, q, kv: kv >= 0), 4, 1, 1, 9 * PAGE)[:, 0, 0]
    for b, slot in enumerate(table.slot_of_row.tolist()):
        expected = sorted(page * PAGE + i for page in table.owned[slot] for i in range(PAGE))
        assert mask[b].nonzero().flatten().tolist() == expected


def logical_block_mask(table: PageTable, last: list[int], window: int | None = None) -> BlockMask:
    last_B = torch.tensor(last)
    first_B = torch.zeros_like(last_B) if window is None else (last_B - window + 1).clamp(min=0)
    partial, full = visible_blocks(first_B[:, None], last_B[:, None], table.pages_per_row, (1, PAGE))
    mods = up_to(last_B) if window is None else up_to(last_B, window)
    return block_mask_from_blocks(partial[:, None], full[:, None], mods, (128, PAGE), (1, table.pages_per_row * PAGE))


@pytest.mark.parametrize("window", [None, 6])
def test_a_logical_block_mask_is_converted_page_by_page(window: int | None) -> None:
    table, slots = shuffled_table()
    last = [8, 5, 3]
    logical = logical_block_mask(table, last, window)
    physical = table.convert_logical_block_mask(logical, torch.tensor(slots))

    # What the mask_mod says over the whole pool, block by block, is the truth for the lists.
    partial, full = classify_blocks(dense_mask(physical.mask_mod, 3, 1, 1, 13 * PAGE), (128, PAGE))
    for b in range(3):
        n_partial, n_full = int(physical.kv_num_blocks[b, 0, 0]), int(physical.full_kv_num_blocks[b, 0, 0])
        listed_partial = physical.kv_indices[b, 0, 0, :n_partial].tolist()
        listed_full = physical.full_kv_indices[b, 0, 0, :n_full].tolist()
        assert sorted(listed_partial) == partial[b, 0, 0].nonzero().flatten().tolist()
        assert sorted(listed_full) == full[b, 0, 0].nonzero().flatten().tolist()
        assert len(set(listed_partial + listed_full)) == n_partial + n_full, "a page listed twice counts twice"
    for indices in (physical.kv_indices, physical.full_kv_indices):
        assert indices.shape == (3, 1, 1, 13)
        assert indices.dtype == torch.int32
        assert ((indices >= 0) & (indices < 13)).all()
    assert tuple(physical.seq_lengths) == (1, 13 * PAGE)
    assert physical.BLOCK_SIZE == (128, PAGE)


def test_converting_does_not_change_the_logical_mask() -> None:
    table, slots = shuffled_table()
    logical = logical_block_mask(table, [8, 5, 3])
    before = logical.kv_indices.clone()
    table.convert_logical_block_mask(logical, torch.tensor(slots))
    assert torch.equal(logical.kv_indices, before)


def test_a_mask_that_does_not_fit_the_table_is_refused() -> None:
    table, slots = shuffled_table()
    fits = logical_block_mask(table, [8, 5, 3])
    with pytest.raises(ValueError, match="3 rows in the mask and 2 slots"):
        table.convert_logical_block_mask(fits, torch.tensor(slots[:2]))
    ones = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    other_pages: Any = block_mask_from_blocks(ones, ~ones, causal, (128, 8), (1, 16))
    with pytest.raises(ValueError, match="key blocks of 8 tokens, but pages of 4"):
        table.convert_logical_block_mask(other_pages, torch.tensor(slots[:1]))
    with pytest.raises(ValueError, match="9 rows .* at most 8"):
        table.convert_logical_block_mask(logical_block_mask(table, [0] * 9), torch.zeros(9, dtype=torch.int64))
