"""Module 01: masks.  Which query may read which key, told to FlexAttention as a function and as a map of blocks.

Letters used in shapes throughout the package:
    B batch rows    H heads (Hq of queries, Hk of keys and values)    Q query positions    K key positions
    L tokens packed into one row    N tokens in the cache's pool    D head size    V vocabulary
A capital list such as `mask_BHQK` is a tensor of shape [B, H, Q, K].  Where Q and K count blocks instead of tokens, the
name says so (`partial_blocks`).

Source: Dong et al., "FlexAttention: A Programming Model for Generating Optimized Attention Kernels", 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(b, h, q_idx, kv_idx), integer tensors that broadcast -> bool tensor, True where the query may read the key."""

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(score, b, h, q_idx, kv_idx) -> changed score.  Applied before the mask."""


def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """A query reads itself and what came before.  [1.1 · ★☆☆ · 5 min]

    Args:
        b, h: batch row and head, integer tensors; not needed here.
        q_idx, kv_idx: positions of query and key, integer tensors of any shapes that broadcast.

    Returns:
        bool tensor of the broadcast shape: True where `kv_idx` is not later than `q_idx`.

    >>> causal(None, None, torch.tensor([0, 1, 2]), torch.tensor(1)).tolist()
    [False, True, True]
    """
    ### BEGIN SOLUTION
    return kv_idx <= q_idx
    ### END SOLUTION


def sliding_window(window: int) -> MaskMod:
    """A query reads at most `window` keys: itself and the `window - 1` before it.  [1.2 · ★☆☆ · 10 min]

    The mask bounds only the distance backwards; combine it with `causal` to keep the future out.

    Args:
        window: number of keys, the query's own included; at least 1.

    Returns:
        A `mask_mod`, True where `q_idx - kv_idx` is below `window`.

    Raises:
        ValueError: `window` is below 1.

    >>> sliding_window(2)(None, None, torch.tensor(5), torch.tensor([3, 4, 5])).tolist()
    [False, True, True]

    Source: Beltagy et al., "Longformer", 2020, §3.1; the count follows Hugging Face transformers.
    """
    ### BEGIN SOLUTION
    if window < 1:
        raise ValueError(f"window {window} holds no key; it must be at least 1 (the query's own)")

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return q_idx - kv_idx < window

    return mask_mod
    ### END SOLUTION


def packed_documents(document_L: Tensor) -> MaskMod:
    """Several documents lie in one row; a query reads only its own document.  [1.3 · ★☆☆ · 10 min]

    Args:
        document_L: integer tensor [L], the document that each position belongs to.

    Returns:
        A `mask_mod`, True where query and key belong to the same document.  It reads `document_L` when it is called, so
        that new contents of the tensor count without a new mask.

    >>> same = packed_documents(torch.tensor([0, 0, 1, 1]))
    >>> same(None, None, torch.tensor(2), torch.tensor([0, 1, 2, 3])).tolist()
    [False, False, True, True]
    """

    ### BEGIN SOLUTION
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return document_L[q_idx] == document_L[kv_idx]

    return mask_mod
    ### END SOLUTION


def all_of(*mask_mods: MaskMod) -> MaskMod:
    """The intersection of masks: a key is read where every one of them allows it.  [1.4 · ★☆☆ · 5 min]

    Args:
        mask_mods: one `mask_mod` or more.

    Returns:
        A `mask_mod`.  Use tensor operators (`&`), not `and`: FlexAttention traces the function with tensors.  The masks'
        answers may have different shapes that broadcast: one that looks at the key alone gives [K].

    Raises:
        ValueError: no mask given.

    >>> both = all_of(causal, sliding_window(2))
    >>> both(None, None, torch.tensor(2), torch.tensor([0, 1, 2, 3])).tolist()
    [False, True, True, False]
    """
    ### BEGIN SOLUTION
    if not mask_mods:
        raise ValueError("all_of() needs at least one mask_mod")

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        allowed = mask_mods[0](b, h, q_idx, kv_idx)
        for other in mask_mods[1:]:
            allowed = allowed & other(b, h, q_idx, kv_idx)
        return allowed

    return mask_mod
    ### END SOLUTION


def any_of(*mask_mods: MaskMod) -> MaskMod:
    """The union of masks: a key is read where one of them allows it.  [1.5 · ★☆☆ · 5 min]

    Args:
        mask_mods: one `mask_mod` or more.

    Returns:
        A `mask_mod`.  As in `all_of`, the answers may have different shapes that broadcast.

    Raises:
        ValueError: no mask given.

    >>> def sink(b, h, q_idx, kv_idx): return kv_idx < 1
    >>> any_of(sink, sliding_window(2))(None, None, torch.tensor(3), torch.tensor([0, 1, 2, 3])).tolist()
    [True, False, True, True]
    """
    ### BEGIN SOLUTION
    if not mask_mods:
        raise ValueError("any_of() needs at least one mask_mod")

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        allowed = mask_mods[0](b, h, q_idx, kv_idx)
        for other in mask_mods[1:]:
            allowed = allowed | other(b, h, q_idx, kv_idx)
        return allowed

    return mask_mod
    ### END SOLUTION


def dense_mask(mask_mod: MaskMod, B: int, H: int, Q: int, K: int, device: torch.device | str = "cpu") -> Tensor:
    """The whole mask as a tensor, to look at and to compare with: it costs B·H·Q·K bytes.  [1.6 · ★★☆ · 10 min]

    Args:
        mask_mod: the mask.
        B, H, Q, K: batch rows, heads, queries and keys; the mask is asked for every index below these.
        device: where the index tensors, and so the result, live.

    Returns:
        bool tensor [B, H, Q, K], also where the mask does not depend on b or h.

    >>> dense_mask(causal, 1, 1, 2, 3).int().tolist()
    [[[[1, 0, 0], [1, 1, 0]]]]
    """
    ### BEGIN SOLUTION
    b, h, q, k = (torch.arange(n, device=device) for n in (B, H, Q, K))
    return mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k).expand(B, H, Q, K)
    ### END SOLUTION


def classify_blocks(mask_BHQK: Tensor, block_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut a dense mask into blocks and sort them into partial and full ones; the rest is empty.  [1.7 · ★★☆ · 15 min]

    An empty block is skipped by the kernel, a full one is computed without asking the mask, a partial one asks for each
    entry.  Queries beyond Q in the last row of blocks do not exist and do not count; keys beyond K in the last column
    cannot be read, so a block that sticks out of the mask on that side is never full.

    Args:
        mask_BHQK: bool tensor [B, H, Q, K].
        block_size: queries and keys in a block.

    Returns:
        (partial, full): bool tensors [B, H, ceil(Q / block_size[0]), ceil(K / block_size[1])].

    >>> partial, full = classify_blocks(dense_mask(causal, 1, 1, 4, 4), (2, 2))
    >>> partial[0, 0].int().tolist(), full[0, 0].int().tolist()
    ([[1, 0], [0, 1]], [[0, 0], [1, 0]])
    """
    ### BEGIN SOLUTION
    q_block, k_block = block_size
    B, H, Q, K = mask_BHQK.shape
    q_missing, k_missing = -Q % q_block, -K % k_block

    def tiles(outside_q: bool) -> Tensor:
        """The mask padded to whole blocks, [B, H, query blocks, q_block, key blocks, k_block]."""
        mask = torch.nn.functional.pad(mask_BHQK, (0, k_missing), value=False)
        mask = torch.nn.functional.pad(mask, (0, 0, 0, q_missing), value=outside_q)
        return mask.view(B, H, (Q + q_missing) // q_block, q_block, (K + k_missing) // k_block, k_block)

    some = tiles(outside_q=False).any(dim=5).any(dim=3)
    full = tiles(outside_q=True).all(dim=5).all(dim=3)
    return some & ~full, full
    ### END SOLUTION


def visible_blocks(
    first_BQ: Tensor, last_BQ: Tensor, n_key_blocks: int, block_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The same without the dense mask, where each query reads an interval of keys.  [1.8 · ★★★ · 20 min]

    Causal, windowed and packed masks, alone or combined, all let query q read exactly the keys first[q] … last[q], and
    intervals of neighbouring queries overlap or touch.  So two numbers a query say all: a block of keys is read by a
    block of queries if one of the intervals reaches it, and it is full if every interval covers it.

    Args:
        first_BQ, last_BQ: integer tensors [B, Q], first and last key that a query reads.  first > last: it reads none.
            Neither need ascend from one query to the next.
        n_key_blocks: number of blocks of keys.
        block_size: queries and keys in a block.  Q need not be a multiple; missing queries do not count.

    Returns:
        (partial, full): bool tensors [B, ceil(Q / block_size[0]), n_key_blocks].

    >>> partial, full = visible_blocks(torch.tensor([[0]]), torch.tensor([[5]]), 3, (1, 4))
    >>> partial.int().tolist(), full.int().tolist()  # six keys, blocks of four: one full, one partial, one not read
    ([[[0, 1, 0]]], [[[1, 0, 0]]])
    """
    ### BEGIN SOLUTION
    q_block, k_block = block_size
    q_missing = -first_BQ.shape[1] % q_block
    # Repeating the last query fills the last block without changing what the block reads.
    first = torch.cat([first_BQ, first_BQ[:, -1:].expand(-1, q_missing)], dim=1).unflatten(1, (-1, q_block))
    last = torch.cat([last_BQ, last_BQ[:, -1:].expand(-1, q_missing)], dim=1).unflatten(1, (-1, q_block))
    block_start = torch.arange(n_key_blocks, device=first_BQ.device) * k_block
    block_end = block_start + k_block - 1

    reads_something = first <= last
    beyond = torch.iinfo(first.dtype).max
    lowest = first.where(reads_something, beyond).amin(dim=2)[..., None]
    highest = last.where(reads_something, -1).amax(dim=2)[..., None]
    some = (lowest <= block_end) & (block_start <= highest)
    full = (first.amax(dim=2)[..., None] <= block_start) & (block_end <= last.amin(dim=2)[..., None])
    return some & ~full, full
    ### END SOLUTION


def block_mask_from_blocks(
    partial_BHQK: Tensor,
    full_BHQK: Tensor,
    mask_mod: MaskMod,
    block_size: tuple[int, int],
    seq_lengths: tuple[int, int],
) -> BlockMask:
    """Build FlexAttention's `BlockMask` by hand from two maps of blocks.  [1.9 · ★★☆ · 15 min]

    A BlockMask lists, for each row of query blocks, how many key blocks it reads and which: once for the partial blocks
    (`kv_num_blocks`, `kv_indices`), once for the full ones (`full_kv_num_blocks`, `full_kv_indices`).  The counts are
    int32 [B, H, query blocks], the lists int32 [B, H, query blocks, key blocks] with the listed blocks first; what
    stands behind them is not read but must be a valid block number.  All four must be given, also when all is zero:
    the CPU kernel does not compile without them.

    Args:
        partial_BHQK, full_BHQK: bool tensors [B, H, query blocks, key blocks]; no block is in both.  A block goes into the
            list of its own map and into no other.
        mask_mod: asked for each entry of the partial blocks.
        block_size: queries and keys in a block.
        seq_lengths: queries and keys in tokens.

    Returns:
        A BlockMask for the forward pass (without the transposed lists that only a backward pass needs).

    >>> partial, full = classify_blocks(dense_mask(causal, 1, 1, 4, 4), (2, 2))
    >>> mask = block_mask_from_blocks(partial, full, causal, (2, 2), (4, 4))
    >>> mask.kv_num_blocks.tolist(), mask.full_kv_num_blocks.tolist(), mask.full_kv_indices[0, 0, 1, 0].item()
    ([[[1, 1]]], [[[0, 1]]], 0)
    """

    ### BEGIN SOLUTION
    def listed_first(blocks: Tensor) -> tuple[Tensor, Tensor]:
        indices = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)
        return blocks.sum(dim=-1, dtype=torch.int32), indices.int()

    kv_num_blocks, kv_indices = listed_first(partial_BHQK)
    full_kv_num_blocks, full_kv_indices = listed_first(full_BHQK)
    return BlockMask.from_kv_blocks(
        kv_num_blocks,
        kv_indices,
        full_kv_num_blocks,
        full_kv_indices,
        BLOCK_SIZE=block_size,
        mask_mod=mask_mod,
        seq_lengths=seq_lengths,
        compute_q_blocks=False,
    )
    ### END SOLUTION


def soft_cap(cap: float) -> ScoreMod:
    """Gemma 2's soft cap: squeeze scores smoothly into (-cap, cap).  [1.10 · ★☆☆ · 5 min]

    Args:
        cap: the bound, above 0.

    Returns:
        A `score_mod`: cap · tanh(score / cap).  FlexAttention applies it before the mask, so a masked key stays masked.

    >>> round(soft_cap(2.0)(torch.tensor(4.0), None, None, None, None).item(), 3)
    1.928

    Source: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, §2.
    """

    ### BEGIN SOLUTION
    def score_mod(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        # tanh(x) = 2 · sigmoid(2x) - 1, in fewer instructions: on an H100 prompts take a third less time in the kernel.
        return 2 * cap * torch.sigmoid(2 * score / cap) - cap

    return score_mod
    ### END SOLUTION
