"""Module 09: one page table for each group of layers, where groups give up pages at different times.  Given.

A model with global and local layers keeps all pages of a sequence for the former and a window of them for the latter.  A
sequence has the same slot in all tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .page_table import PageTable


class PageGroups:
    """Several page tables, for a scheduler that knows one.

    Args:
        tables: the first one is that of the group that keeps most; what is not said here is asked of it.
    """

    def __init__(self, tables: Sequence[PageTable]) -> None:
        self.tables = list(tables)
        self.lead = self.tables[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lead, name)

    def allocate(self) -> int:
        slot = self.lead.allocate()
        for table in self.tables[1:]:
            table.free_slots.remove(slot)
        return slot

    def reserve(self, batch_idx: int, seq_len: int) -> bool:
        """As `PageTable.reserve`: in all groups or in none."""
        if any(table.pages_missing(batch_idx, seq_len) > table.pages_available for table in self.tables):
            return False
        return all([table.reserve(batch_idx, seq_len) for table in self.tables])

    def erase(self, batch_idx: int) -> None:
        for table in self.tables:
            table.erase(batch_idx)

    def check(self) -> None:
        for table in self.tables:
            table.check()
            assert len(table.free_slots) == len(self.lead.free_slots), "groups disagree about who has a slot"
