"""Module 03: the page table.  Which sequence owns which page of the KV cache.

The cache is one long strip of tokens, cut into pages of `page_size`.  A sequence holds a *slot*: a row of the table that
lists its pages in order.  Token t of a sequence lies in its logical page t // page_size; the row says which physical page
that is.  Page 0 and slot 0 are *sinks*: padding is written there, nobody reads it, and nobody is ever given them.

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from .masks import MaskMod
from .page_table_check import check_page_table

if TYPE_CHECKING:
    from .prefix_index import SharedPages


class PageTable:
    """Slots, pages and the map from one to the other.

    Args:
        n_pages: pages that sequences can use; the sink comes on top.
        page_size: tokens in a page, a power of two.
        max_batch_size: slots that sequences can use; the sink comes on top.
        max_seq_length: tokens that a row has room for; None: the whole pool.
        device: where attention reads the table.
        gives_up_pages: sequences give up pages on the way (homework 09), so that a row may be longer than the pool.

    Fields that others read:
        page_table: int32 [max_batch_size + 1, pages in a row]; row `slot`, column i: the physical page of logical page i.
        logical_of_page: int32 [n_pages + 1]; where in its sequence a page lies: the inverse of the table.  One number a
            page is enough, since a page lies at the same logical place in every sequence that reads it.
        capacity: list of ints by slot, tokens that the pages of a slot hold.
        pages_available: pages that nobody owns.
        owned: by slot, the pages in logical order; 0 where one was given up.
        sharing: what lets sequences share pages (homework 08), or None.

    Raises:
        ValueError: a size below 1, or a `page_size` that is not a power of two.
    """

    def __init__(
        self,
        n_pages: int,
        page_size: int,
        max_batch_size: int,
        max_seq_length: int | None = None,
        device: torch.device | str = "cpu",
        gives_up_pages: bool = False,
    ) -> None:
        sizes = {
            "n_pages": n_pages,
            "page_size": page_size,
            "max_batch_size": max_batch_size,
            "max_seq_length": 1 if max_seq_length is None else max_seq_length,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")
        if page_size & (page_size - 1):
            raise ValueError(f"page_size {page_size} is not a power of two; use one, such as 16, 32, 64 or 128")
        self.n_pages, self.page_size, self.max_batch_size = n_pages, page_size, max_batch_size
        self.pages_per_row = n_pages if max_seq_length is None else -(-max_seq_length // page_size)
        if not gives_up_pages:
            self.pages_per_row = min(n_pages, self.pages_per_row)

        self.page_table = torch.zeros(max_batch_size + 1, self.pages_per_row, dtype=torch.int32, device=device)
        self.logical_of_page = torch.zeros(n_pages + 1, dtype=torch.int32, device=device)
        # Masks read which slot a batch row belongs to from this buffer: compiled attention needs one that stays.
        self.slot_of_row = torch.zeros(max_batch_size, dtype=torch.int64, device=device)

        self.capacity = [0] * (max_batch_size + 1)
        self.owned: list[list[int]] = [[] for _ in range(max_batch_size + 1)]  # by slot, in logical order
        self.free_slots = list(range(max_batch_size, 0, -1))
        self.free_pages = list(range(n_pages, 0, -1))
        self.sharing: SharedPages | None = None

    # ------------------------------------------------------------------ pages change hands only here

    def take(self, n: int) -> list[int]:
        """Take `n` pages out of the pool; the caller has checked that it holds as many."""
        return [self.free_pages.pop() for _ in range(n)] if self.sharing is None else self.sharing.take(n)

    def drop(self, pages: list[int]) -> None:
        """Give pages back to the pool.  0 stands for one that was given up before."""
        pages = [page for page in pages if page]
        self.free_pages.extend(pages) if self.sharing is None else self.sharing.drop(pages)

    @property
    def pages_available(self) -> int:
        return len(self.free_pages) + (0 if self.sharing is None else len(self.sharing.idle))

    # ------------------------------------------------------------------ slots

    def is_allocated(self, batch_idx: int) -> bool:
        return 0 < batch_idx <= self.max_batch_size and batch_idx not in self.free_slots

    def allocate(self) -> int:
        """Hand out a free slot that owns no pages yet.  [3.1 · ★☆☆ · 5 min]

        Returns:
            A slot between 1 and `max_batch_size` that nobody holds.  Slot 0 is the sink and is never given.

        Raises:
            RuntimeError: every slot is taken.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=2)
        >>> sorted([table.allocate(), table.allocate()])
        [1, 2]
        """
        ### BEGIN SOLUTION
        if not self.free_slots:
            raise RuntimeError(f"all {self.max_batch_size} slots are taken; erase one first")
        return self.free_slots.pop()
        ### END SOLUTION

    def reserve(self, batch_idx: int, seq_len: int) -> bool:
        """Grow slot `batch_idx` until it holds at least `seq_len` tokens.  [3.2 · ★★☆ · 15 min]

        Takes as many pages from the pool as are missing, no more, and appends them to the slot's row of the page table in
        logical order.  All or nothing: with too few pages in the pool nothing changes.

        Args:
            batch_idx: a slot given by `allocate` and not erased since.
            seq_len: tokens that the slot must hold; 1 ≤ seq_len ≤ pages in a row × `page_size`.

        Returns:
            True if the slot now holds `seq_len` tokens, also if it already did; False if the pool has too few pages.

        Raises:
            ValueError: the slot is not allocated, or `seq_len` is below 1 or longer than a row.

        Afterwards `capacity[batch_idx]` is the pages owned × `page_size`, in tokens; `page_table[batch_idx, i]` is the
        physical page of logical page i; `logical_of_page[p]` is i for each page p just taken; `owned[batch_idx]` lists
        the pages in logical order.  Pages leave the pool by `take`.

        >>> table = PageTable(n_pages=5, page_size=4, max_batch_size=2)
        >>> slot = table.allocate()
        >>> table.reserve(slot, 5), table.capacity[slot], table.pages_available
        (True, 8, 3)
        >>> table.reserve(slot, 99)
        Traceback (most recent call last):
        ValueError: seq_len 99 is longer than a row of the page table: 5 pages of 4 tokens hold 20

        Source: Kwon et al., 2023, §4.3.
        """
        ### BEGIN SOLUTION
        self._check_allocated(batch_idx)
        if not 1 <= seq_len <= self.pages_per_row * self.page_size:
            raise ValueError(self._wrong_length(seq_len))
        missing = self.pages_missing(batch_idx, seq_len)
        if missing > self.pages_available:
            return False
        if missing:
            row, pages = self.owned[batch_idx], self.take(missing)
            logical = range(len(row), len(row) + missing)
            row.extend(pages)
            self.capacity[batch_idx] = len(row) * self.page_size
            self.page_table[batch_idx, logical.start : logical.stop] = torch.tensor(pages, dtype=torch.int32)
            self.logical_of_page[pages] = torch.tensor(logical, dtype=torch.int32, device=self.logical_of_page.device)
        return True
        ### END SOLUTION

    def pages_missing(self, batch_idx: int, seq_len: int) -> int:
        """How many pages slot `batch_idx` needs on top of its own to hold `seq_len` tokens.  [3.3 · ★★☆ · 10 min]

        Args:
            batch_idx: a slot given by `allocate`, or 0 to ask for a sequence that has no slot yet.
            seq_len: tokens that the slot must hold, at least 1.

        Returns:
            Number of pages, 0 if the slot already holds as many tokens.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=2)
        >>> [table.pages_missing(0, n) for n in (1, 4, 5, 8, 9)]
        [1, 1, 2, 2, 3]
        """
        ### BEGIN SOLUTION
        missing_tokens = max(0, seq_len - self.capacity[batch_idx])
        return -(-missing_tokens // self.page_size)
        ### END SOLUTION

    def can_reserve(self, batch_idx: int, seq_len: int) -> bool:
        """Whether the pool has the pages that slot `batch_idx` (0: a new one) needs for `seq_len` tokens, at least 1."""
        return seq_len <= self.pages_per_row * self.page_size and (
            self.pages_missing(batch_idx, seq_len) <= self.pages_available
        )

    def erase(self, batch_idx: int) -> None:
        """Take everything from a slot: its pages go back to the pool, the slot can be allocated again.  [3.4 · ★★☆ · 10 min]

        Args:
            batch_idx: a slot given by `allocate` and not erased since.

        Returns:
            Nothing.  Afterwards `capacity[batch_idx]` is 0 and `owned[batch_idx]` is empty.  The row of `page_table` and
            `logical_of_page` may keep old numbers, as long as no mask lets the slot read a page that it does not own:
            setting the row to 0, the sink's page, does that.  Pages go back by `drop`.

        Raises:
            ValueError: the slot is not allocated (also when it was erased already).  Nothing changes then.

        >>> table = PageTable(n_pages=4, page_size=4, max_batch_size=1)
        >>> slot = table.allocate()
        >>> table.reserve(slot, 16), table.pages_available
        (True, 0)
        >>> table.erase(slot); table.pages_available
        4
        """
        ### BEGIN SOLUTION
        self._check_allocated(batch_idx)
        self.page_table[batch_idx, : len(self.owned[batch_idx])] = 0
        self.drop(self.owned[batch_idx])
        self.owned[batch_idx] = []
        self.capacity[batch_idx] = 0
        self.free_slots.append(batch_idx)
        ### END SOLUTION

    # ------------------------------------------------------------------ addresses

    def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
        """Where in the pool a token of a sequence lies.  [3.5 · ★★☆ · 10 min]

        Args:
            batch_idx: integer tensor of slots, any shape.
            input_pos: integer tensor of positions in the sequence, of a shape that broadcasts with `batch_idx`.

        Returns:
            int64 tensor of the broadcast shape: physical page × `page_size` + place in the page.  For slot 0 always an
            address in page 0, the sink, whatever the position.

        >>> table = PageTable(n_pages=9, page_size=4, max_batch_size=1)
        >>> table.page_table[1, :2] = torch.tensor([7, 2])
        >>> table.address(torch.tensor(1), torch.tensor([0, 3, 4, 5])).tolist()
        [28, 31, 8, 9]
        """
        ### BEGIN SOLUTION
        # Padding may carry any position; the modulo keeps it inside the sink's row.
        page = self.page_table[batch_idx.long(), input_pos // self.page_size % self.pages_per_row].long()
        return page * self.page_size + input_pos % self.page_size
        ### END SOLUTION

    def assign(
        self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
    ) -> None:
        """Write keys and values of several sequences, a batch row each, into the pool.  [3.6 · ★★☆ · 15 min]

        Args:
            batch_idx: int64 [B], the slot of each row.
            input_pos: int64 [B, S], the position of each token in its sequence; S is 1 in decode.
            k, v: [B, Hk, S, D], the new keys and values.
            k_cache, v_cache: [1, Hk, N, D], the pool, changed in place.  Row n holds the token at address n.

        Returns:
            Nothing.  Only the addresses of the given tokens change.

        Token (b, s) goes to `address(batch_idx[b], input_pos[b, s])`.
        """
        ### BEGIN SOLUTION
        address_T = self.address(batch_idx[:, None], input_pos).flatten()
        # [B, Hk, S, D] -> [1, Hk, B·S, D]: heads first, as the pool has them.
        k_cache[:, :, address_T] = k.transpose(0, 1).flatten(1, 2)[None]
        v_cache[:, :, address_T] = v.transpose(0, 1).flatten(1, 2)[None]
        ### END SOLUTION

    def assign_prefill_no_paging(
        self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
    ) -> None:
        """Write the prompts packed into one row into the pool; attention itself reads the fresh keys.  [3.7 · ★☆☆ · 5 min]

        Args:
            batch_idx: int64 [1, L], the slot of each token; 0 for padding.
            input_pos: int64 [1, L], the position of each token in its sequence.
            k, v: [1, Hk, L, D].
            k_cache, v_cache: [1, Hk, N, D], the pool, changed in place.

        Returns:
            Nothing.  Token l goes to `address(batch_idx[0, l], input_pos[0, l])`, padding into page 0.
        """
        ### BEGIN SOLUTION
        address_L = self.address(batch_idx[0], input_pos[0])
        k_cache[:, :, address_L] = k
        v_cache[:, :, address_L] = v
        ### END SOLUTION

    # ------------------------------------------------------------------ masks

    def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
        """Turn a mask over a sequence's positions into one over the addresses of the pool.  [3.8 · ★★★ · 20 min]

        Attention over the pool asks for (b, h, q, address).  The answer is yes only if batch row b may read that
        address at all, that is if its slot (`slot_of_row[b]`) owns the page now, and if the logical mask allows the
        position that the address stands for.  The sinks (slot 0, page 0) read nothing and are read by nobody.

        Args:
            logical_mask_mod: mask over (b, h, q, position of the key in the sequence).

        Returns:
            mask_mod over (b, h, q, address in the pool).  It reads `slot_of_row`, `page_table` and `logical_of_page` when
            it is called.  This mask alone keeps sequences apart: eager FlexAttention looks at nothing else.

        A page belongs to a slot if the slot's row has it at the page's logical place.
        """

        ### BEGIN SOLUTION
        def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, address: Tensor) -> Tensor:
            slot, page = self.slot_of_row[b], address // self.page_size
            logical_page = self.logical_of_page[page]
            owned = (slot > 0) & (page > 0) & (self.page_table[slot, logical_page] == page)
            return owned & logical_mask_mod(b, h, q_idx, logical_page * self.page_size + address % self.page_size)

        return mask_mod
        ### END SOLUTION

    def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
        """Turn a BlockMask over each row's own sequence into one over the pool.  [3.9 · ★★★ · 25 min]

        Args:
            block_mask: B rows, one head; key blocks are logical pages: `BLOCK_SIZE[1]` is `page_size`.  Its lists are no
                wider than a row of the page table, or name pages below `pages_per_row` also behind their counts.  The full
                lists may be missing (None), as in masks that others made; then they are missing in the result.
            batch_idx: int64 [B], the slot of each row.

        Returns:
            A BlockMask with the same counts, whose lists name physical pages, int32 [B, 1, query blocks, n_pages + 1]
            (the CPU kernel wants the pool's full width; what stands behind the counts is a valid page), whose key length
            is the pool's, (n_pages + 1) × `page_size`, the query length as it was, and whose mask_mod is
            `physical_mask_mod(block_mask.mask_mod)`.  It is valid until the next call, since `slot_of_row` holds the rows
            of one batch.

        Raises:
            ValueError: the key block is not `page_size`, or B is not the length of `batch_idx` or above `max_batch_size`.

        Source: the idea of a page table under FlexAttention is from attention-gym's `PagedAttention`.
        """
        ### BEGIN SOLUTION
        B, rows = batch_idx.shape[0], block_mask.kv_indices.shape[0]
        q_block, k_block = block_mask.BLOCK_SIZE
        if k_block != self.page_size:
            raise ValueError(
                f"key blocks of {k_block} tokens, but pages of {self.page_size}: use BLOCK_SIZE[1] = page_size"
            )
        if rows != B or rows > self.max_batch_size:
            raise ValueError(f"{rows} rows in the mask and {B} slots, of at most {self.max_batch_size}")
        self.slot_of_row[:B] = batch_idx

        def physical(indices: Tensor) -> Tensor:
            listed = indices[..., : self.pages_per_row].long()
            pages = self.page_table[batch_idx.long()[:, None, None, None], listed]
            return torch.nn.functional.pad(pages, (0, self.n_pages + 1 - pages.shape[-1]))

        return BlockMask.from_kv_blocks(
            block_mask.kv_num_blocks,
            physical(block_mask.kv_indices),
            block_mask.full_kv_num_blocks,
            None if block_mask.full_kv_indices is None else physical(block_mask.full_kv_indices),
            BLOCK_SIZE=(q_block, k_block),
            mask_mod=self.physical_mask_mod(block_mask.mask_mod),
            seq_lengths=(block_mask.seq_lengths[0], (self.n_pages + 1) * self.page_size),
            compute_q_blocks=False,
        )
        ### END SOLUTION

    def check(self) -> None:
        """Raise AssertionError if a page or slot is lost, given twice or in two places.  For tests and debugging."""
        check_page_table(self)

    def _check_allocated(self, batch_idx: int) -> None:
        if not self.is_allocated(batch_idx):
            raise ValueError(f"slot {batch_idx} is not allocated; free are {sorted(self.free_slots)}, 0 is the sink")

    def _wrong_length(self, seq_len: int) -> str:
        if seq_len < 1:
            return f"seq_len is {seq_len}, but a sequence has at least 1 token"
        return (
            f"seq_len {seq_len} is longer than a row of the page table: {self.pages_per_row} pages of {self.page_size} "
            f"tokens hold {self.pages_per_row * self.page_size}"
        )
