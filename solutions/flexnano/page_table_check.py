"""Given: the rules of a page table, and whether they hold.  For tests and debugging."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .page_table import PageTable


def check_page_table(table: PageTable) -> None:
    """Raise AssertionError if a page or slot is lost, given twice or in two places."""
    owners = Counter(page for row in table.owned for page in row if page)
    free, used = list(table.free_pages), list(owners.elements())
    if (sharing := table.sharing) is not None:
        free += sharing.idle  # nobody owns them, but what they hold may be used again
        counted = {page: n for page, n in enumerate(sharing.owners) if n}
        assert counted == owners, f"pages are owned as often as {dict(owners)}, but counted as {counted}"
        used = list(owners)
    every = sorted(free + used)
    assert every == list(range(1, table.n_pages + 1)), (
        f"each page from 1 to {table.n_pages} must be free or owned, once: free {sorted(free)}, owned {sorted(used)}"
    )
    assert len(set(table.free_slots)) == len(table.free_slots), f"a slot is free twice: {table.free_slots}"
    assert all(1 <= slot <= table.max_batch_size for slot in table.free_slots), f"not a slot: {table.free_slots}"
    for slot in range(table.max_batch_size + 1):
        row = table.owned[slot]
        assert not row or table.is_allocated(slot), f"slot {slot} is free but owns pages {row}"
        assert table.capacity[slot] == len(row) * table.page_size, (
            f"slot {slot} owns {len(row)} pages of {table.page_size} tokens, but its capacity is {table.capacity[slot]}"
        )
        listed = table.page_table[slot, : len(row)].tolist()
        assert listed == row, f"slot {slot} owns pages {row}, but its row lists {listed}"
        logical = [int(table.logical_of_page[page]) for page in row]
        right = all(place == i for i, (page, place) in enumerate(zip(row, logical, strict=True)) if page)
        assert right, f"pages {row} of slot {slot} lie at {logical}"
