"""Module 09: the sliding window.  A sequence gives up its oldest pages, so that its memory stays the same however long it
runs.

A query of a layer with window W reads itself and the W - 1 tokens before it.  A page that ends before that is never read
again, neither by this query nor by a later one: it goes back to the pool.  *Sinks*, the first S tokens, can be kept: models
that were not trained with a window put much attention there.  Positions stay what they were; nothing is rotated again.

Letters: R rows of queries, each of one sequence; T queries in a row; J logical pages.

Source: Beltagy et al., "Longformer", 2020 (the window); Xiao et al., "Efficient Streaming Language Models with Attention
Sinks", 2023 (the sinks); Jiang et al., "Mistral 7B", 2023, §2 (the cache of constant size).
"""

from __future__ import annotations

from torch import Tensor

from .masks import MaskMod, visible_blocks
from .page_table import PageTable


def pages_to_give_up(position: int, window: int, sinks: int, page_size: int) -> range:
    """Logical pages that no query from `position` on reads.  [9.1 · ★★☆ · 10 min]

    A query at position p reads the positions from p - window + 1 to p, and the first `sinks` of the sequence.

    Args:
        position: of the next query of the sequence.
        window: keys that it reads, its own included.
        sinks: tokens at the beginning that are always read; 0: none.
        page_size: tokens in a page.

    Returns:
        A range of logical pages: all of them, those that were given up earlier too, and no other.  Empty if every page is
        still read.  A page of which one token is still read stays; one of which none is goes, since others wait for it.

    >>> [list(pages_to_give_up(p, window=8, sinks=0, page_size=4)) for p in (10, 11, 14, 15)]
    [[], [0], [0], [0, 1]]
    >>> list(pages_to_give_up(23, window=8, sinks=5, page_size=4))
    [2, 3]
    """
    ### BEGIN SOLUTION
    first = -(-sinks // page_size)
    return range(first, max(first, (position - window + 1) // page_size))
    ### END SOLUTION


def give_up_pages(table: PageTable, batch_idx: int, position: int, window: int, sinks: int) -> None:
    """Give the pages of a slot that nobody reads any more back to the pool.  [9.2 · ★★☆ · 15 min]

    Args:
        table: made with `gives_up_pages`.
        batch_idx: a slot given by `allocate`.
        position: of the next query of the sequence; the slot may hold fewer tokens, or pages beyond.
        window, sinks: as in `pages_to_give_up`.

    Returns:
        Nothing.  All pages of `pages_to_give_up` that the slot has are given up, and no other.  For each one that was not
        given up before, `owned[batch_idx]` has a 0 in its place and so has the slot's row of `page_table`; the page went
        back by `drop`, once.  `capacity` stays: positions count as before.
    """
    ### BEGIN SOLUTION
    row = table.owned[batch_idx]
    gone = [logical for logical in pages_to_give_up(position, window, sinks, table.page_size) if logical < len(row)]
    gone = [logical for logical in gone if row[logical]]
    pages = [row[logical] for logical in gone]
    for logical in gone:
        row[logical] = 0
        table.page_table[batch_idx, logical] = 0
    table.drop(pages)
    ### END SOLUTION


def most_pages(window: int, sinks: int, page_size: int) -> int:
    """How many pages a sequence holds at most while it decodes.  [9.3 · ★★☆ · 10 min]

    Args:
        window, sinks, page_size: in tokens, as in `pages_to_give_up`.

    Returns:
        The most pages that the sinks and a window lie in, wherever the window begins, as long as it does not reach into the
        sinks' pages.  The exact number: a pool of one page less could not hold the sequence.

    >>> [most_pages(window, sinks=0, page_size=4) for window in (1, 4, 5, 6, 8, 9)]
    [1, 2, 2, 3, 3, 3]
    """
    ### BEGIN SOLUTION
    # The worst case is a window whose first token is the last of its page.
    return 1 + -(-(window - 1) // page_size) + -(-sinks // page_size)
    ### END SOLUTION


def window_mask(window: int | None, sinks: int) -> MaskMod:
    """The rule, exact to the token: which position may a query at another position read?  [9.4 · ★☆☆ · 10 min]

    Args:
        window: keys that a query reads, its own included; None: all.
        sinks: tokens at the beginning that every query after them reads too.

    Returns:
        A `mask_mod` over positions (b, h, position of the query, position of the key): True for keys that are not later
        than the query and lie in the window or among the sinks.

    >>> import torch
    >>> window_mask(2, sinks=1)(None, None, torch.tensor(4), torch.arange(6)).int().tolist()
    [1, 0, 0, 1, 1, 0]
    """

    ### BEGIN SOLUTION
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        seen = kv_idx <= q_idx
        return seen if window is None else seen & ((q_idx - kv_idx < window) | (kv_idx < sinks))

    return mask_mod
    ### END SOLUTION


def window_pages(
    position_RT: Tensor, window: int | None, sinks: int, n_pages: int, page_size: int
) -> tuple[Tensor, Tensor]:
    """The same by pages: which pages does a row of queries read, and which of them wholly?  [9.5 · ★★★ · 25 min]

    Args:
        position_RT: int64 [R, T], the positions of each row's queries, one after the other; the last one may be repeated.
            A row of -1: its queries read nothing.
        window, sinks: as in `window_mask`.
        n_pages: logical pages of a sequence, J.
        page_size: tokens in a page.

    Returns:
        (partial, full): bool [R, 1, J].  A page is listed in one of them if a query of the row reads a token of it, else in
        none: in `full` if every query of the row reads all of it, so that nobody needs to ask the mask there, or else in
        `partial`.  A page that is read wholly only because window and sinks meet in it may be in either.

    >>> import torch
    >>> partial, full = window_pages(torch.tensor([[9]]), window=6, sinks=0, n_pages=4, page_size=4)
    >>> partial.int().tolist(), full.int().tolist()  # positions 4 to 9: page 1 wholly, two tokens of page 2
    ([[[0, 0, 1, 0]]], [[[0, 1, 0, 0]]])

    `masks.visible_blocks` does it for one interval a query.
    """
    ### BEGIN SOLUTION
    block = (position_RT.shape[1], page_size)
    first_RT = position_RT.new_zeros(position_RT.shape) if window is None else (position_RT - window + 1).clamp(min=0)
    partial, full = visible_blocks(first_RT, position_RT, n_pages, block)
    if window is None or not sinks:
        return partial, full
    zero_RT = position_RT.new_zeros(position_RT.shape)
    sinks_partial, sinks_full = visible_blocks(zero_RT, position_RT.clamp(max=sinks - 1), n_pages, block)
    full = full | sinks_full
    return (partial | sinks_partial) & ~full, full
    ### END SOLUTION


def narrowed(own: list[int | None], wanted: int | None) -> list[int | None]:
    """The window of each layer when a window is wanted.  [9.6 · ★☆☆ · 10 min]

    A model that has local layers keeps its global ones: the local ones read at most `wanted`.  A model whose layers all read
    everything gets the window in every layer, which changes what it computes.

    Args:
        own: the window of each layer as the model was trained; None: it reads everything.
        wanted: keys that a query may read, its own included; None: as the model was trained.

    Returns:
        A window, or None, for each layer; never wider than the model's own.

    >>> narrowed([None, None], 64), narrowed([4096, None], 64), narrowed([32, None], 64)
    ([64, 64], [64, None], [32, None])
    """
    ### BEGIN SOLUTION
    if wanted is None:
        return list(own)
    if all(window is None for window in own):
        return [wanted] * len(own)
    return [window and min(window, wanted) for window in own]
    ### END SOLUTION
