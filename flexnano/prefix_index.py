# Your copy of solutions/flexnano/prefix_index.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash e67ec664acd680ac
"""Module 08: prefix sharing.  Sequences that begin alike point to the same pages, until they diverge.

A page of keys and values depends on its own tokens and on all before them, on nothing else.  So a full page can be found
again by what it holds: a *key*, the hash of its tokens chained to the key of the page before.  Pages have *owners*, as many
as sequences point to them.  One that nobody owns and that can still be found is *idle*: it is used again when a prompt
matches, and taken for something else when the pool runs out, least recently used first.

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023, §4.3 (sharing
and copy on write); Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", 2024 (reuse across
requests); vLLM's automatic prefix caching (chained hashes over full pages).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .page_table import PageTable

HashPage = Callable[[int, tuple[int, ...]], int]
"""(key of the page before, 0 for the first; the page's tokens) -> key."""


def hash_page(parent_key: int, token_ids: tuple[int, ...]) -> int:
    """The key of a page: of its tokens and of everything before them."""
    return hash((parent_key, token_ids))


@dataclass(frozen=True)
class Entry:
    """A full page that can be found.

    Fields:
        number: of the entry; none is ever used again.
        parent: number of the entry of the page before; 0 for the first page of a prompt.
        key: hash of the tokens, chained.
        token_ids: what the page holds.  Two entries may have the same key by accident, but not the same parent and tokens.
        page: where.
    """

    number: int
    parent: int
    key: int
    token_ids: tuple[int, ...]
    page: int


ROOT = Entry(0, 0, 0, (), 0)
"""What comes before the first page."""


class PrefixIndex:
    """Finds full pages by what they hold.

    Args:
        page_size: tokens in a page.
        hash_page: makes keys; tests put in one that collides.

    Fields that others read:
        by_key: the entries, by key.
        by_page: the same, by page.
    """

    def __init__(self, page_size: int, hash_page: HashPage = hash_page) -> None:
        self.page_size, self.hash_page = page_size, hash_page
        self.by_key: dict[int, Entry] = {}
        self.by_page: dict[int, Entry] = {}
        self._children: dict[int, dict[int, Entry]] = {}  # by the parent's number, then by page
        self._numbers = itertools.count(1)

    def pages_of(self, token_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The tokens of each full page, in order.  [8.1 · ★☆☆ · 5 min]

        Args:
            token_ids: of a sequence, from its beginning.

        Returns:
            A tuple of `page_size` tokens for each page that is full; what is left over at the end is in none.

        >>> PrefixIndex(page_size=4).pages_of([5, 6, 7, 8, 9, 10])
        [(5, 6, 7, 8)]
        """
        raise NotImplementedError("Exercise 8.1: PrefixIndex.pages_of")

    def lookup(self, token_ids: Sequence[int]) -> list[Entry]:
        """The longest run of pages, from the first on, that hold the beginning of these tokens.  [8.2 · ★★★ · 20 min]

        The key of a page is `self.hash_page(key of the page before, its tokens)`, with 0 before the first page.  The run
        ends at the first page that is not found: what comes after a hole can't be used.  A key may be equal by accident, so
        an entry counts only if its tokens are the page's and its `parent` is the `number` of the entry before it (`ROOT`
        for the first).

        Args:
            token_ids: of a prompt.

        Returns:
            Entries in the order of the pages, perhaps none.  Nothing changes.

        >>> index = PrefixIndex(page_size=2)
        >>> index.insert([1, 2, 3, 4, 5], pages=[7, 3, 9])
        >>> [entry.page for entry in index.lookup([1, 2, 3, 4, 5, 6])]
        [7, 3]
        >>> index.lookup([3, 4])  # the same tokens, but at the beginning: other keys and values
        []
        """
        raise NotImplementedError("Exercise 8.2: PrefixIndex.lookup")

    def insert(self, token_ids: Sequence[int], pages: Sequence[int]) -> None:
        """Let the full pages of a sequence be found from now on.  [8.3 · ★★☆ · 20 min]

        What can be found already stays as it is: then the sequence's own page with the same tokens is not entered.  From
        the first page on that is not found, each is entered, as a child of the entry before it.  An entry in the way, with
        the same key but other tokens or another parent, is forgotten first (`forget`), and so is an entry of the same page.
        `enter` makes the new entry.

        Args:
            token_ids: tokens whose keys and values are in the pages, from the beginning of the sequence.
            pages: the pages that hold them, in order; there may be more of them than full ones.  0 stands for a page that
                the sequence has given up: from there on nothing is entered.

        Returns:
            Nothing.

        >>> index = PrefixIndex(page_size=2)
        >>> index.insert([1, 2, 3], pages=[4, 5])
        >>> sorted(index.by_page)
        [4]
        """
        raise NotImplementedError("Exercise 8.3: PrefixIndex.insert")

    def enter(self, before: Entry, key: int, token_ids: tuple[int, ...], page: int) -> Entry:
        """Enter a page after `before`; neither its key nor the page may have an entry.  Given."""
        entry = Entry(next(self._numbers), before.number, key, token_ids, page)
        self.by_key[key] = self.by_page[page] = entry
        self._children.setdefault(before.number, {})[page] = entry
        return entry

    def forget(self, page: int) -> None:
        """A page is going to hold something else: it can't be found any more.  Given.

        Pages after it stay where they are.  Their parent's number is gone, so nobody finds them, and they are taken in time.
        """
        entry = self.by_page.pop(page, None)
        if entry is not None:
            del self.by_key[entry.key]
            siblings = self._children[entry.parent]
            del siblings[page]
            if not siblings:
                del self._children[entry.parent]

    def longest_beginning(self, before: Entry, token_ids: Sequence[int]) -> tuple[int, int]:
        """The page after `before` that shares the most first tokens with these: (page, how many); (0, 0) if none.  Given."""
        best = (0, 0)
        for page, entry in self._children.get(before.number, {}).items():
            pairs = zip(entry.token_ids, token_ids, strict=False)
            alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            best = max(best, (page, alike), key=lambda one: one[1])
        return best


class SharedPages:
    """Counts the owners of a page table's pages, and keeps those that can be found again.

    Args:
        table: its `take`, `drop` and `pages_available` come here from now on.
        hash_page: makes the keys of the index.

    Fields that others read:
        index: finds full pages by what they hold.
        owners: list of ints by page, how many sequences point to it.
        idle: pages without an owner that the index knows, a dict used as an ordered set: the first one was used longest ago.
        fresh: pages whose keys and values the step that is being planned computes; `settle` empties it.
        copies: (from, to) pages that have to be copied before the next step runs; whoever copies clears it.
    """

    def __init__(self, table: PageTable, hash_page: HashPage = hash_page) -> None:
        self.table, self.index = table, PrefixIndex(table.page_size, hash_page)
        self.owners = [0] * (table.n_pages + 1)
        self.idle: dict[int, None] = {}
        self.fresh: set[int] = set()
        self.copies: list[tuple[int, int]] = []
        table.sharing = self

    # ------------------------------------------------------------------ pages change hands

    def take(self, n: int) -> list[int]:
        """Take `n` pages out of the pool, each with one owner.  [8.4 · ★★☆ · 15 min]

        Free pages first (`table.free_pages`).  When there are none, the idle page that was used longest ago: from then on
        it is neither idle nor in the index.

        Args:
            n: at most as many as are free or idle.

        Returns:
            The pages.
        """
        raise NotImplementedError("Exercise 8.4: SharedPages.take")

    def drop(self, pages: list[int]) -> None:
        """One owner of each of these pages is gone.  [8.5 · ★★☆ · 15 min]

        A page that still has owners stays theirs.  One that has none becomes idle if the index knows it, the most recently
        used of all, or else free (`table.free_pages`).  The last page of the list becomes idle first, so that of one sequence
        the end is taken before the beginning: without the beginning the end is never found.

        Args:
            pages: of one sequence, in logical order.

        Returns:
            Nothing.
        """
        raise NotImplementedError("Exercise 8.5: SharedPages.drop")

    def share(self, batch_idx: int, pages: list[int]) -> None:
        """Let a slot that owns nothing yet begin with pages that exist.  [8.6 · ★★☆ · 15 min]

        Args:
            batch_idx: a slot given by `allocate`, without pages.
            pages: in logical order, each owned by others or idle; 0 for one that the slot does not need (homework 09).  The
                list stays the caller's.

        Returns:
            Nothing.  Afterwards each page has one owner more and is not idle, and the table says of the slot what `reserve`
            would: `owned`, `capacity`, `page_table` and `logical_of_page`.
        """
        raise NotImplementedError("Exercise 8.6: SharedPages.share")

    def make_writable(self, batch_idx: int, position: int) -> bool:
        """Before a token is written: see to it that nobody else reads the page it goes to.  [8.7 · ★★★ · 25 min]

        A page is the slot's own if it has one owner and the index does not know it.  If it is not, the slot gets a new
        page in its place, in all that the table says of the slot, the old page has one owner less, and (old, new) is added
        to `copies`.  If the pool has no page left, but the slot is the only owner, the index forgets the page instead: no
        copy is needed then.

        Args:
            batch_idx: a slot.
            position: of the token; the slot's pages reach as far.

        Returns:
            True if the token may be written now; False if the page has other owners and the pool has none left.  Nothing
            changes then.
        """
        raise NotImplementedError("Exercise 8.7: SharedPages.make_writable")

    # ------------------------------------------------------------------ what the planner asks for

    def find(self, token_ids: Sequence[int]) -> tuple[list[int], int]:
        """The pages that a prompt can begin with, and how many of its tokens they hold.  Given.

        At least one token is left to compute: the logits come from there.  The last of the pages may be one of which only
        the first tokens are the prompt's; then it has to be copied before anything is written (`make_writable`).  A page
        that is being computed in this very step can be read, since keys and values are written before attention reads
        them, but not copied.
        """
        entries = self.index.lookup(token_ids[:-1])
        n_tokens = len(entries) * self.table.page_size
        pages = [entry.page for entry in entries]
        page, alike = self.index.longest_beginning(entries[-1] if entries else ROOT, token_ids[n_tokens:-1])
        if alike and page not in self.fresh:
            return [*pages, page], n_tokens + alike
        return pages, n_tokens

    def remember(self, batch_idx: int, token_ids: Sequence[int]) -> None:
        """Let the pages be found that hold these tokens of a slot, at the latest when the planned step has run.  Given."""
        owned = self.table.owned[batch_idx]
        unknown = [page for page in owned if page not in self.index.by_page]
        self.index.insert(token_ids, owned)
        self.fresh.update(page for page in unknown if page in self.index.by_page)

    def settle(self) -> None:
        """What was planned has run.  Given."""
        self.fresh.clear()

    def distrust(self, batch_idx: int, token_ids: Sequence[int]) -> None:
        """Something went wrong while a sequence was computed: nobody may find its pages.  Given.

        Also not those that it gave up or gave back before that was known; 0: it has no slot any more.
        """
        for page in {*self.table.owned[batch_idx], *(entry.page for entry in self.index.lookup(token_ids))}:
            self.index.forget(page)
            if page in self.idle:
                del self.idle[page]
                self.table.free_pages.append(page)
