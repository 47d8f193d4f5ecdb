"""Mistakes in module 03, as edits of the reference or as functions of their own."""

from planting import Planted

RESERVE = """
def reserve(self, batch_idx: int, seq_len: int) -> bool:
    if not self.is_allocated(batch_idx):
        raise ValueError(f"slot {batch_idx} is free")
    if seq_len < 1 or seq_len > self.page_table.shape[1] * self.page_size:
        raise ValueError(f"{seq_len} tokens")
"""

ALLOCATE = [
    Planted("3.1", "same-slot-again", old="return self.free_slots.pop()", new="return self.free_slots[-1]"),
    Planted(
        "3.1",
        "same-slot-again",
        note="a copy is popped",
        code="""
def allocate(self) -> int:
    free = list(self.free_slots)
    if len(free) == 0:
        raise RuntimeError("no slot")
    return free.pop()
""",
    ),
    Planted("3.1", "gives-the-sink", old="return self.free_slots.pop()", new="return self.free_slots.pop() - 1"),
    Planted(
        "3.1",
        "gives-the-sink",
        note="first that is not in use",
        code="""
def allocate(self) -> int:
    for slot in range(self.max_batch_size):
        if slot not in self.free_slots or slot == 0:
            return slot
    raise RuntimeError("full")
""",
    ),
    Planted(
        "3.1",
        "slot-by-count",
        code="""
def allocate(self) -> int:
    if not self.free_slots:
        raise RuntimeError("all slots are taken")
    used = self.max_batch_size - len(self.free_slots)
    self.free_slots.pop()
    return used + 1
""",
    ),
    Planted(
        "3.1",
        "wrong-error",
        old="        if not self.free_slots:\n"
        '            raise RuntimeError(f"all {self.max_batch_size} slots are taken; erase one first")\n',
        new="",
    ),
    Planted(
        "3.1",
        "wrong-error",
        note="smallest first",
        code="""
def allocate(self) -> int:
    slot = min(self.free_slots)
    self.free_slots.remove(slot)
    return slot
""",
    ),
    Planted(
        "3.1",
        "none-when-full",
        code="""
def allocate(self) -> int:
    if self.free_slots:
        return self.free_slots.pop()
""",
    ),
    Planted(
        "3.1",
        "none-when-full",
        note="minus one",
        code="""
def allocate(self) -> int:
    return self.free_slots.pop() if self.free_slots else -1
""",
    ),
    Planted(
        "3.1",
        "",
        note="brings a page",
        code="""
def allocate(self) -> int:
    if not self.free_slots:
        raise RuntimeError("full")
    slot = self.free_slots.pop()
    self.reserve(slot, 1)
    return slot
""",
    ),
    Planted("3.1", "", note="keeps one back", old="if not self.free_slots:", new="if len(self.free_slots) <= 1:"),
]

MISSING = "missing = self.pages_missing(batch_idx, seq_len)"
COUNTED = "return -(-missing_tokens // self.page_size)"

RESERVED = [
    Planted("3.2", "from-zero", old=MISSING, new="missing = -(-seq_len // self.page_size)"),
    Planted("3.2", "from-zero", note="asks for slot 0", old=MISSING, new="missing = self.pages_missing(0, seq_len)"),
    Planted(
        "3.2",
        "from-zero",
        note="after asking whether it is enough",
        code=RESERVE
        + """
    if seq_len <= self.capacity[batch_idx]:
        return True
    n = (seq_len + self.page_size - 1) // self.page_size
    if n > self.pages_available:
        return False
    for page in self.take(n):
        self.logical_of_page[page] = len(self.owned[batch_idx])
        self.page_table[batch_idx, len(self.owned[batch_idx])] = page
        self.owned[batch_idx].append(page)
    self.capacity[batch_idx] = len(self.owned[batch_idx]) * self.page_size
    return True
""",
    ),
    Planted(
        "3.2",
        "from-zero",
        note="replaces what is there",
        code=RESERVE
        + """
    n = (seq_len + self.page_size - 1) // self.page_size
    if n > len(self.free_pages):
        return False
    pages = self.take(n)
    self.owned[batch_idx] = pages
    self.capacity[batch_idx] = n * self.page_size
    self.page_table[batch_idx, :n] = torch.tensor(pages)
    self.logical_of_page[pages] = torch.arange(n, dtype=torch.int32)
    return True
""",
    ),
    Planted(
        "3.2",
        "from-zero",
        note="only in the question whether there is room",
        old="if missing > self.pages_available:",
        new="if -(-seq_len // self.page_size) > self.pages_available:",
    ),
    Planted(
        "3.2",
        "plus-one-page",
        old=MISSING,
        new="missing = max(0, seq_len // self.page_size + 1 - len(self.owned[batch_idx]))",
    ),
    Planted(
        "3.2",
        "plus-one-page",
        note="of the missing tokens",
        old=MISSING,
        new="tokens = seq_len - self.capacity[batch_idx]\n"
        "        missing = tokens // self.page_size + 1 if tokens > 0 else 0",
    ),
    Planted(
        "3.2",
        "plus-one-page",
        note="also where nothing is missing",
        old=MISSING,
        new="missing = max(0, seq_len - self.capacity[batch_idx]) // self.page_size + 1",
    ),
    Planted(
        "3.2",
        "plus-one-page",
        note="whole loop",
        code=RESERVE
        + """
    need = (seq_len + self.page_size) // self.page_size
    have = len(self.owned[batch_idx])
    if need - have > self.pages_available:
        return False
    while have < need:
        (page,) = self.take(1)
        self.owned[batch_idx].append(page)
        self.page_table[batch_idx, have] = page
        self.logical_of_page[page] = have
        have += 1
        self.capacity[batch_idx] += self.page_size
    return True
""",
    ),
    Planted(
        "3.2", "rounds-down", old=MISSING, new="missing = max(0, seq_len - self.capacity[batch_idx]) // self.page_size"
    ),
    Planted(
        "3.2",
        "half-reserve",
        old="        if missing > self.pages_available:\n            return False\n",
        new="",
        note="no question",
    ),
    Planted(
        "3.2",
        "half-reserve",
        note="takes one by one",
        code=RESERVE
        + """
    while self.capacity[batch_idx] < seq_len:
        if self.pages_available == 0:
            return False
        page = self.take(1)[0]
        place = len(self.owned[batch_idx])
        self.owned[batch_idx].append(page)
        self.page_table[batch_idx, place] = page
        self.logical_of_page[page] = place
        self.capacity[batch_idx] += self.page_size
    return True
""",
    ),
    Planted(
        "3.2",
        "half-reserve",
        note="loses what it took",
        old="        if missing > self.pages_available:\n            return False\n",
        new="        pages = []\n"
        "        while len(pages) < missing:\n"
        "            if not self.free_pages:\n"
        "                return False\n"
        "            pages.append(self.free_pages.pop())\n"
        "        self.drop(pages)\n",
    ),
    Planted(
        "3.2",
        "half-reserve",
        note="a slice that is too short",
        code=RESERVE
        + """
    n = self.pages_missing(batch_idx, seq_len)
    pages = self.free_pages[:n]
    del self.free_pages[:n]
    have = len(self.owned[batch_idx])
    self.page_table[batch_idx, have : have + n] = torch.tensor(pages, dtype=torch.int32)
    for place, page in enumerate(pages, start=have):
        self.logical_of_page[page] = place
    self.owned[batch_idx] += pages
    self.capacity[batch_idx] = len(self.owned[batch_idx]) * self.page_size
    return True
""",
    ),
    Planted(
        "3.2", "refuses-the-last", old="if missing > self.pages_available:", new="if missing >= self.pages_available:"
    ),
    Planted(
        "3.2",
        "refuses-the-last",
        note="only where pages are missing",
        old="if missing > self.pages_available:",
        new="if missing and not missing < self.pages_available:",
    ),
    Planted("3.2", "raises-when-full", old="return False", new='raise RuntimeError("out of pages")'),
    Planted("3.2", "raises-when-full", note="memory", old="return False", new='raise MemoryError("out of pages")'),
    Planted(
        "3.2",
        "no-when-enough",
        old="        if missing:\n",
        new="        if not missing:\n            return False\n        if missing:\n",
    ),
    Planted("3.2", "forgets-capacity", old="self.capacity[batch_idx] = len(row) * self.page_size", new="pass"),
    Planted(
        "3.2",
        "forgets-capacity",
        note="counts owned pages",
        code=RESERVE
        + """
    have = len(self.owned[batch_idx])
    missing = max(0, -(-seq_len // self.page_size) - have)
    if missing > self.pages_available:
        return False
    for place in range(have, have + missing):
        page = self.take(1)[0]
        self.page_table[batch_idx, place] = page
        self.logical_of_page[page] = place
        self.owned[batch_idx].append(page)
    return True
""",
    ),
    Planted(
        "3.2",
        "capacity-is-length",
        old="self.capacity[batch_idx] = len(row) * self.page_size",
        new="self.capacity[batch_idx] = seq_len",
    ),
    Planted(
        "3.2",
        "capacity-in-pages",
        old="self.capacity[batch_idx] = len(row) * self.page_size",
        new="self.capacity[batch_idx] = len(row)",
    ),
    Planted(
        "3.2",
        "writes-a-copy",
        old="            self.page_table[batch_idx, logical.start : logical.stop] = torch.tensor(pages, dtype=torch.int32)\n",
        new="",
        note="writes nothing",
    ),
    Planted(
        "3.2",
        "writes-a-copy",
        note="chained indices",
        old="self.page_table[batch_idx, logical.start : logical.stop] =",
        new="self.page_table[[batch_idx]][:, logical.start : logical.stop] =",
    ),
    Planted(
        "3.2",
        "writes-a-copy",
        note="clone",
        old="self.page_table[batch_idx, logical.start : logical.stop] =",
        new="self.page_table[batch_idx].clone()[logical.start : logical.stop] =",
    ),
    Planted(
        "3.2",
        "overwrites-the-row",
        old="self.page_table[batch_idx, logical.start : logical.stop] =",
        new="self.page_table[batch_idx, : len(pages)] =",
    ),
    Planted("3.2", "same-page-twice", old="self.take(missing)", new="self.take(1) * missing"),
    Planted(
        "3.2",
        "same-page-twice",
        note="taken outside of the loop",
        code=RESERVE
        + """
    missing = self.pages_missing(batch_idx, seq_len)
    if missing > self.pages_available:
        return False
    if missing == 0:
        return True
    page = self.take(1)[0]
    for _ in range(missing):
        place = len(self.owned[batch_idx])
        self.owned[batch_idx].append(page)
        self.page_table[batch_idx, place] = page
        self.logical_of_page[page] = place
    self.capacity[batch_idx] = len(self.owned[batch_idx]) * self.page_size
    return True
""",
    ),
    Planted(
        "3.2",
        "forgets-logical",
        old="self.logical_of_page[pages] = torch.tensor(logical, dtype=torch.int32, device=self.logical_of_page.device)",
        new="pass",
    ),
    Planted(
        "3.2",
        "forgets-logical",
        note="writes a copy",
        old="self.logical_of_page[pages] = torch.tensor(logical,",
        new="self.logical_of_page.clone()[pages] = torch.tensor(logical,",
    ),
    Planted(
        "3.2",
        "restarts-logical",
        old="torch.tensor(logical, dtype=torch.int32, device=self.logical_of_page.device)",
        new="torch.arange(len(pages), dtype=torch.int32)",
    ),
    Planted(
        "3.2",
        "restarts-logical",
        note="enumerate",
        old="self.logical_of_page[pages] = torch.tensor(logical, dtype=torch.int32, device=self.logical_of_page.device)",
        new="for i, page in enumerate(pages):\n                self.logical_of_page[page] = i",
    ),
    Planted(
        "3.2",
        "forgets-owned",
        note="column by capacity",
        code=RESERVE
        + """
    missing = self.pages_missing(batch_idx, seq_len)
    if missing > self.pages_available:
        return False
    for page in self.take(missing):
        place = self.capacity[batch_idx] // self.page_size
        self.page_table[batch_idx, place] = page
        self.logical_of_page[page] = place
        self.capacity[batch_idx] += self.page_size
    return True
""",
    ),
    Planted(
        "3.2",
        "forgets-owned",
        old="row, pages = self.owned[batch_idx],",
        new="row, pages = list(self.owned[batch_idx]),",
    ),
    Planted("3.2", "unallocated", old="        self._check_allocated(batch_idx)\n", new=""),
    Planted(
        "3.2",
        "unallocated",
        note="only the range",
        old="self._check_allocated(batch_idx)",
        new='if not 0 < batch_idx <= self.max_batch_size:\n            raise ValueError("no such slot")',
    ),
    Planted("3.2", "too-long", old="raise ValueError(self._wrong_length(seq_len))", new="return False", note="false"),
    Planted(
        "3.2",
        "too-long",
        note="no question",
        old="if not 1 <= seq_len <= self.pages_per_row * self.page_size:",
        new="if seq_len < 1:",
    ),
    Planted(
        "3.2",
        "too-long",
        note="compares with the pool",
        old="if not 1 <= seq_len <= self.pages_per_row * self.page_size:",
        new="if not 1 <= seq_len <= self.n_pages * self.page_size:",
    ),
    Planted(
        "3.2",
        "below-one",
        old="if not 1 <= seq_len <= self.pages_per_row * self.page_size:",
        new="if seq_len > self.pages_per_row * self.page_size:",
    ),
    Planted(
        "3.2",
        "below-one",
        note="zero",
        old="if not 1 <= seq_len <= self.pages_per_row * self.page_size:",
        new="if not 0 <= seq_len <= self.pages_per_row * self.page_size:",
    ),
    Planted(
        "3.2", "another-error", old="raise ValueError(self._wrong_length(seq_len))", new="raise IndexError(seq_len)"
    ),
    Planted(
        "3.2",
        "another-error",
        note="an assertion",
        old="self._check_allocated(batch_idx)",
        new="assert self.is_allocated(batch_idx), batch_idx",
    ),
    Planted(
        "3.2",
        "half-reserve",
        note="takes what there is and says yes",
        old="        if missing > self.pages_available:\n            return False\n",
        new="        missing = min(missing, self.pages_available)\n",
    ),
    Planted(
        "3.2",
        "",
        note="refuses a full row",
        old="if not 1 <= seq_len <= self.pages_per_row * self.page_size:",
        new="if not 1 <= seq_len < self.pages_per_row * self.page_size:",
    ),
    Planted("3.2", "", note="new pages in front", old="row.extend(pages)", new="row[:0] = pages"),
    Planted(
        "3.2",
        "",
        note="two pages too many",
        old=MISSING,
        new=MISSING + " and self.pages_missing(batch_idx, seq_len) + 2",
    ),
    Planted("3.2", "", note="no result", old="        return True", new="        return None"),
    Planted(
        "3.2",
        "",
        note="capacity also grows where the answer is no",
        old="        if missing > self.pages_available:\n            return False\n",
        new="        if missing > self.pages_available:\n"
        "            self.capacity[batch_idx] += missing * self.page_size\n"
        "            return False\n",
    ),
    Planted(
        "3.2",
        "",
        note="forgets a page at the third growth",
        old="            row.extend(pages)\n",
        new="            row.extend(pages)\n"
        "            if len(row) > 4:\n"
        "                self.free_pages = self.free_pages[1:]\n",
    ),
]

PAGES_MISSING = [
    Planted("3.3", "from-zero", old="max(0, seq_len - self.capacity[batch_idx])", new="seq_len"),
    Planted(
        "3.3",
        "from-zero",
        note="after asking whether it is enough",
        old=COUNTED,
        new="return -(-seq_len // self.page_size) if missing_tokens else 0",
    ),
    Planted("3.3", "from-zero", note="slot 0", old="self.capacity[batch_idx]", new="self.capacity[0]"),
    Planted("3.3", "plus-one-page", old=COUNTED, new="return missing_tokens // self.page_size + 1"),
    Planted(
        "3.3",
        "plus-one-page",
        note="only where something is missing",
        old=COUNTED,
        new="return missing_tokens // self.page_size + 1 if missing_tokens else 0",
    ),
    Planted(
        "3.3",
        "plus-one-page",
        note="in pages",
        code="""
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    return max(0, 1 + seq_len // self.page_size - self.capacity[batch_idx] // self.page_size)
""",
    ),
    Planted(
        "3.3",
        "plus-one-page",
        note="both mistakes",
        code="""
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    return int(seq_len / self.page_size) + 1
""",
    ),
    Planted("3.3", "rounds-down", old=COUNTED, new="return missing_tokens // self.page_size"),
    Planted(
        "3.3",
        "rounds-down",
        note="in pages",
        code="""
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    return max(0, seq_len // self.page_size - len(self.owned[batch_idx]))
""",
    ),
    Planted(
        "3.3", "below-zero", old="max(0, seq_len - self.capacity[batch_idx])", new="seq_len - self.capacity[batch_idx]"
    ),
    Planted(
        "3.3",
        "below-zero",
        note="in pages",
        code="""
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    import math
    return math.ceil(seq_len / self.page_size) - len(self.owned[batch_idx])
""",
    ),
    Planted("3.3", "tokens-for-pages", old=COUNTED, new="return missing_tokens"),
    Planted(
        "3.3",
        "mixes-units",
        code="""
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    pages = (seq_len + self.page_size - 1) // self.page_size
    return max(0, pages - self.capacity[batch_idx])
""",
    ),
    Planted(
        "3.3",
        "no-slot-yet",
        old="missing_tokens = max(",
        new="self._check_allocated(batch_idx)\n        missing_tokens = max(",
    ),
    Planted("3.3", "", note="a float", old=COUNTED, new="return missing_tokens / self.page_size"),
    Planted("3.3", "", note="always one more", old=COUNTED, new=COUNTED + " + 1"),
    Planted(
        "3.3",
        "",
        note="takes them",
        old=COUNTED,
        new=COUNTED.replace("return", "n =") + "\n        self.take(n)\n        return n",
    ),
    Planted(
        "3.3",
        "",
        note="at most what the pool has",
        old=COUNTED,
        new="return min(2, -(-missing_tokens // self.page_size))",
    ),
]

GUARD = "        self._check_allocated(batch_idx)\n"

CLEARED = "        self.page_table[batch_idx, : len(self.owned[batch_idx])] = 0\n"

ERASED = [
    Planted("3.4", "leaks-pages", old="        self.drop(self.owned[batch_idx])\n", new=""),
    Planted(
        "3.4",
        "leaks-pages",
        note="empties before it gives back",
        old="        self.drop(self.owned[batch_idx])\n        self.owned[batch_idx] = []\n",
        new="        self.owned[batch_idx] = []\n        self.drop(self.owned[batch_idx])\n",
    ),
    Planted(
        "3.4",
        "leaks-pages",
        note="counts by a capacity that is 0 already",
        code="""
def erase(self, batch_idx: int) -> None:
    if not self.is_allocated(batch_idx):
        raise ValueError(batch_idx)
    self.capacity[batch_idx] = 0
    self.drop(self.owned[batch_idx][: self.capacity[batch_idx] // self.page_size])
    self.owned[batch_idx] = []
    self.page_table[batch_idx].zero_()
    self.free_slots.append(batch_idx)
""",
    ),
    Planted("3.4", "keeps-the-slot", old="        self.free_slots.append(batch_idx)\n", new=""),
    Planted("3.4", "keeps-capacity", old="        self.capacity[batch_idx] = 0\n", new=""),
    Planted("3.4", "keeps-owned", old="        self.owned[batch_idx] = []\n", new=""),
    Planted(
        "3.4", "keeps-owned", note="a copy", old="self.owned[batch_idx] = []", new="list(self.owned[batch_idx]).clear()"
    ),
    Planted("3.4", "touches-others", old=CLEARED.strip(), new="self.page_table.zero_()"),
    Planted(
        "3.4",
        "touches-others",
        note="capacity",
        old="self.capacity[batch_idx] = 0",
        new="self.capacity = [0] * (self.max_batch_size + 1)",
    ),
    Planted("3.4", "clears-a-copy", note="does not clear", old=CLEARED, new=""),
    Planted(
        "3.4",
        "clears-a-copy",
        note="chained indices",
        old=CLEARED.strip(),
        new="self.page_table[[batch_idx]][:, : self.pages_per_row] = 0",
    ),
    Planted(
        "3.4",
        "clears-a-copy",
        note="a tensor as index",
        old=CLEARED.strip(),
        new="self.page_table[torch.tensor([batch_idx])].zero_()",
    ),
    Planted(
        "3.4",
        "clears-a-copy",
        note="only as many columns as there are pages, of a list that is empty",
        old=CLEARED + "        self.drop(self.owned[batch_idx])\n        self.owned[batch_idx] = []\n",
        new="        self.drop(self.owned[batch_idx])\n        self.owned[batch_idx] = []\n" + CLEARED,
    ),
    Planted("3.4", "double-erase", old=GUARD, new=""),
    Planted(
        "3.4",
        "double-erase",
        note="only the range",
        old=GUARD,
        new='        if not 1 <= batch_idx <= self.max_batch_size:\n            raise ValueError("no such slot")\n',
    ),
    Planted("3.4", "silent-twice", old=GUARD, new="        if not self.is_allocated(batch_idx):\n            return\n"),
    Planted(
        "3.4",
        "silent-twice",
        note="a set of free slots",
        code="""
def erase(self, batch_idx: int) -> None:
    if not 1 <= batch_idx <= self.max_batch_size:
        raise ValueError(f"slot {batch_idx}")
    self.drop(self.owned[batch_idx])
    self.owned[batch_idx] = []
    self.page_table[batch_idx, :] = -1
    self.capacity[batch_idx] = 0
    self.free_slots = list({*self.free_slots, batch_idx})
""",
    ),
    Planted(
        "3.4",
        "unallocated",
        note="only erased ones are refused",
        old=GUARD,
        new="        if batch_idx in self.free_slots:\n            raise ValueError(batch_idx)\n",
    ),
    Planted(
        "3.4",
        "unallocated",
        note="the sink",
        old=GUARD,
        new="        if batch_idx != 0:\n            self._check_allocated(batch_idx)\n",
    ),
    Planted(
        "3.4",
        "another-error",
        old="self._check_allocated(batch_idx)",
        new="assert self.is_allocated(batch_idx), batch_idx",
    ),
    Planted(
        "3.4",
        "another-error",
        note="KeyError",
        old="self._check_allocated(batch_idx)",
        new="if not self.is_allocated(batch_idx):\n            raise KeyError(batch_idx)",
    ),
    Planted(
        "3.4",
        "",
        note="gives back twice",
        old="self.drop(self.owned[batch_idx])",
        new="self.drop(self.owned[batch_idx] * 2)",
    ),
    Planted(
        "3.4",
        "",
        note="keeps the last page",
        old="self.drop(self.owned[batch_idx])",
        new="self.drop(self.owned[batch_idx][:-1])",
    ),
    Planted(
        "3.4",
        "",
        note="gives the list as one page",
        old="self.drop(self.owned[batch_idx])",
        new="self.free_pages.append(self.owned[batch_idx])",
    ),
    Planted(
        "3.4",
        "",
        note="the wrong slot",
        old="self.free_slots.append(batch_idx)",
        new="self.free_slots.append(batch_idx + 1)",
    ),
]

LOOKUP = "page = self.page_table[batch_idx.long(), input_pos // self.page_size % self.pages_per_row].long()"
PLACE = "return page * self.page_size + input_pos % self.page_size"

ADDRESSED = [
    Planted(
        "3.5",
        "swaps-div-and-mod",
        code="""
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    page = self.page_table[batch_idx, input_pos % self.page_size].long()
    return page * self.page_size + input_pos // self.page_size
""",
    ),
    Planted("3.5", "swaps-div-and-mod", note="only the place", old=PLACE, new=PLACE.replace("%", "//")),
    Planted(
        "3.5",
        "swaps-div-and-mod",
        note="only the column",
        old="input_pos // self.page_size %",
        new="input_pos % self.page_size %",
    ),
    Planted("3.5", "page-start", old=PLACE, new="return page * self.page_size + 0 * input_pos"),
    Planted("3.5", "page-not-times-size", old=PLACE, new="return page + input_pos % self.page_size"),
    Planted("3.5", "skips-the-table", old=LOOKUP, new="return input_pos.long() + 0 * batch_idx"),
    Planted(
        "3.5",
        "skips-the-table",
        note="a piece of the pool for each slot",
        old=LOOKUP,
        new="return batch_idx.long() * self.pages_per_row * self.page_size + input_pos",
    ),
    Planted("3.5", "padding-position", old=" % self.pages_per_row].long()", new="].long()"),
    Planted(
        "3.5",
        "page-minus-one",
        old="        return page",
        new="        page = torch.where(batch_idx == 0, -1, page)\n        return page",
    ),
    Planted(
        "3.5",
        "page-minus-one",
        note="address",
        code="""
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    column = (input_pos // self.page_size).clamp(max=self.page_table.shape[1] - 1)
    address = self.page_table[batch_idx.long(), column].long() * self.page_size + input_pos % self.page_size
    return address.masked_fill((batch_idx == 0).expand_as(address), -1)
""",
    ),
    Planted(
        "3.5",
        "outer-product",
        code="""
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    pages = self.page_table[batch_idx.long()][..., input_pos // self.page_size % self.pages_per_row].long()
    return pages * self.page_size + input_pos % self.page_size
""",
    ),
    Planted("3.5", "not-int64", old="% self.pages_per_row].long()", new="% self.pages_per_row]"),
    Planted("3.5", "not-int64", note="int32", old=PLACE, new=f"{PLACE.replace('return ', 'return (')}).int()"),
    Planted("3.5", "", note="one place too far", old=PLACE, new=PLACE + " + 1"),
    Planted("3.5", "", note="pages counted from 1", old=PLACE, new=PLACE.replace("page *", "(page - 1) *")),
    Planted("3.5", "", note="divides", old="input_pos // self.page_size %", new="input_pos / self.page_size %"),
]

ADDRESS_BS = "address_T = self.address(batch_idx[:, None], input_pos).flatten()"
K_LINE = "k_cache[:, :, address_T] = k.transpose(0, 1).flatten(1, 2)[None]"
V_LINE = "v_cache[:, :, address_T] = v.transpose(0, 1).flatten(1, 2)[None]"

ASSIGN = """
def assign(
    self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
) -> None:
    B, Hk, S, D = k.shape
"""

ASSIGNED = [
    Planted(
        "3.6",
        "row-not-slot",
        old="self.address(batch_idx[:, None], input_pos)",
        new="self.address(torch.arange(len(batch_idx))[:, None], input_pos)",
    ),
    Planted(
        "3.6",
        "row-not-slot",
        note="loop",
        code=ASSIGN
        + """
    for b in range(B):
        for s in range(S):
            page = self.page_table[b, input_pos[b, s] // self.page_size]
            at = page * self.page_size + input_pos[b, s] % self.page_size
            k_cache[0, :, at] = k[b, :, s]
            v_cache[0, :, at] = v[b, :, s]
""",
    ),
    Planted(
        "3.6",
        "row-not-slot",
        note="row plus 1",
        code=ASSIGN
        + """
    for b in range(B):
        at = self.address(torch.tensor(b + 1), input_pos[b])
        k_cache[0, :, at] = k[b]
        v_cache[0, :, at] = v[b]
""",
    ),
    Planted(
        "3.6",
        "writes-a-copy",
        old=K_LINE,
        new="k_cache = k_cache.index_copy(2, address_T, k.transpose(0, 1).flatten(1, 2)[None])\n        return",
    ),
    Planted(
        "3.6",
        "writes-a-copy",
        note="chained indices",
        code=ASSIGN
        + """
    at = self.address(batch_idx[:, None], input_pos).flatten()
    k_cache[:, :, at][:] = k.transpose(0, 1).reshape(1, Hk, B * S, D)
    v_cache[:, :, at].copy_(v.transpose(0, 1).reshape(1, Hk, B * S, D))
""",
    ),
    Planted("3.6", "keys-only", old="        " + V_LINE + "\n", new=""),
    Planted("3.6", "keys-only", note="k into both", old=V_LINE, new=V_LINE.replace("= v", "= k")),
    Planted("3.6", "keys-only", note="v over k", old=V_LINE, new=V_LINE.replace("v_cache", "k_cache")),
    Planted(
        "3.6",
        "skips-first",
        code=ASSIGN
        + """
    for b in range(B):
        for s in range(1, S):
            at = self.address(batch_idx[b], input_pos[b, s])
            k_cache[0, :, at], v_cache[0, :, at] = k[b, :, s], v[b, :, s]
""",
    ),
    Planted(
        "3.6",
        "skips-first",
        note="of all",
        code=ASSIGN
        + """
    at = self.address(batch_idx[:, None], input_pos).flatten()[1:]
    k_cache[:, :, at] = k.transpose(0, 1).reshape(1, Hk, B * S, D)[:, :, 1:]
    v_cache[:, :, at] = v.transpose(0, 1).reshape(1, Hk, B * S, D)[:, :, 1:]
""",
    ),
    Planted(
        "3.6",
        "skips-first",
        note="position 0",
        code=ASSIGN
        + """
    for b in range(B):
        for s in range(S):
            if input_pos[b, s]:
                at = self.address(batch_idx[b], input_pos[b, s])
                k_cache[0, :, at], v_cache[0, :, at] = k[b, :, s], v[b, :, s]
""",
    ),
    Planted(
        "3.6",
        "page-minus-one",
        old=ADDRESS_BS,
        new="address_T = torch.where(batch_idx[:, None] > 0, self.address(batch_idx[:, None], input_pos), -1).flatten()",
    ),
    Planted(
        "3.6",
        "page-minus-one",
        note="page",
        code=ASSIGN
        + """
    page = self.page_table[batch_idx[:, None], input_pos // self.page_size % self.pages_per_row].long()
    page[batch_idx == 0] = -1
    at = (page * self.page_size + input_pos % self.page_size).flatten()
    k_cache[:, :, at] = k.transpose(0, 1).reshape(1, Hk, B * S, D)
    v_cache[:, :, at] = v.transpose(0, 1).reshape(1, Hk, B * S, D)
""",
    ),
    Planted(
        "3.6",
        "view-no-permute",
        code=ASSIGN
        + """
    at = self.address(batch_idx[:, None], input_pos).flatten()
    k_cache[:, :, at] = k.reshape(1, Hk, B * S, D)
    v_cache[:, :, at] = v.reshape(1, Hk, B * S, D)
""",
    ),
    Planted(
        "3.6",
        "view-no-permute",
        note="in place",
        code=ASSIGN
        + """
    at = self.address(batch_idx.unsqueeze(1), input_pos).view(-1)
    k_cache.index_copy_(2, at, k.contiguous().view(1, Hk, -1, D))
    v_cache.index_copy_(2, at, v.contiguous().view(1, Hk, -1, D))
""",
    ),
    Planted(
        "3.6",
        "token-order",
        code=ASSIGN
        + """
    at = self.address(batch_idx[:, None], input_pos).flatten()
    k_cache[:, :, at] = k.permute(1, 2, 0, 3).reshape(1, Hk, B * S, D)
    v_cache[:, :, at] = v.permute(1, 2, 0, 3).reshape(1, Hk, B * S, D)
""",
    ),
    Planted("3.6", "", note="next cell", old=ADDRESS_BS, new=ADDRESS_BS + " + 1"),
    Planted(
        "3.6", "", note="empties the rest", old="        " + K_LINE, new="        k_cache.zero_()\n        " + K_LINE
    ),
    Planted(
        "3.6",
        "",
        note="shapes",
        old="self.address(batch_idx[:, None], input_pos)",
        new="self.address(batch_idx, input_pos)",
    ),
    Planted("3.6", "", note="adds", old=K_LINE, new=K_LINE.replace("] = ", "] += ", 1)),
]

PADDING = [
    Planted(
        "3.6",
        "padding-position",
        code=ASSIGN
        + """
    page = self.page_table[batch_idx[:, None], input_pos // self.page_size]
    at = (page * self.page_size + input_pos % self.page_size).flatten()
    k_cache[:, :, at] = k.transpose(0, 1).reshape(1, Hk, B * S, D)
    v_cache[:, :, at] = v.transpose(0, 1).reshape(1, Hk, B * S, D)
""",
    ),
    Planted(
        "3.7",
        "padding-position",
        code="""
def assign_prefill_no_paging(
    self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
) -> None:
    for i, (slot, position) in enumerate(zip(batch_idx[0].tolist(), input_pos[0].tolist(), strict=True)):
        page, place = divmod(position, self.page_size)
        at = int(self.page_table[slot, page]) * self.page_size + place
        k_cache[0, :, at] = k[0, :, i]
        v_cache[0, :, at] = v[0, :, i]
""",
    ),
]

ADDRESS_L = "address_L = self.address(batch_idx[0], input_pos[0])"
PACKED = """
def assign_prefill_no_paging(
    self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
) -> None:
"""

PREFILLED = [
    Planted("3.7", "row-not-slot", old=ADDRESS_L, new="address_L = self.address(batch_idx[0, 0], input_pos[0])"),
    Planted(
        "3.7",
        "row-not-slot",
        note="row 0",
        old=ADDRESS_L,
        new="address_L = self.address(torch.zeros_like(batch_idx[0]), input_pos[0])",
    ),
    Planted(
        "3.7",
        "row-not-slot",
        note="as many rows as k has",
        old=ADDRESS_L,
        new="address_L = self.address(torch.arange(len(k)), input_pos[0])",
    ),
    Planted(
        "3.7", "position-in-pack", old=ADDRESS_L, new="address_L = self.address(batch_idx[0], torch.arange(k.shape[2]))"
    ),
    Planted(
        "3.7",
        "position-in-pack",
        note="loop",
        code=PACKED
        + """
    for i, slot in enumerate(batch_idx[0]):
        at = self.address(slot, torch.tensor(i))
        k_cache[0, :, at] = k[0, :, i]
        v_cache[0, :, at] = v[0, :, i]
""",
    ),
    Planted(
        "3.7",
        "writes-a-copy",
        code=PACKED
        + """
    at = self.address(batch_idx, input_pos)[0]
    k_cache = k_cache.index_put((torch.tensor(0), slice(None), at), k[0]) if False else k_cache.index_copy(2, at, k)
    v_cache = v_cache.index_copy(2, at, v)
""",
    ),
    Planted(
        "3.7",
        "writes-a-copy",
        note="chained indices",
        code=PACKED
        + """
    at = self.address(batch_idx[0], input_pos[0])
    k_cache[0][:, at].copy_(k[0])
    v_cache[0][:, at].copy_(v[0])
""",
    ),
    Planted("3.7", "keys-only", old="        v_cache[:, :, address_L] = v\n", new=""),
    Planted(
        "3.7",
        "keys-only",
        note="swapped",
        code=PACKED
        + "    at = self.address(batch_idx[0], input_pos[0])\n    k_cache[:, :, at] = v\n    v_cache[:, :, at] = k\n",
    ),
    Planted(
        "3.7",
        "skips-first",
        code=PACKED
        + """
    at = self.address(batch_idx[0, 1:], input_pos[0, 1:])
    k_cache[:, :, at] = k[:, :, 1:]
    v_cache[:, :, at] = v[:, :, 1:]
""",
    ),
    Planted(
        "3.7",
        "skips-first",
        note="of every prompt",
        code=PACKED
        + """
    keep = input_pos[0] > 0
    at = self.address(batch_idx[0], input_pos[0])[keep]
    k_cache[:, :, at] = k[:, :, keep]
    v_cache[:, :, at] = v[:, :, keep]
""",
    ),
    Planted(
        "3.7",
        "page-minus-one",
        old=ADDRESS_L,
        new=ADDRESS_L + "\n        address_L = address_L.masked_fill(batch_idx[0] == 0, -1)",
    ),
    Planted(
        "3.7",
        "page-minus-one",
        note="page",
        old=ADDRESS_L,
        new="column = input_pos[0] // self.page_size % self.pages_per_row\n"
        "        page = torch.where(batch_idx[0] == 0, -1, self.page_table[batch_idx[0], column])\n"
        "        address_L = page.long() * self.page_size + input_pos[0] % self.page_size",
    ),
    Planted("3.7", "", note="next cell", old=ADDRESS_L, new=ADDRESS_L + " + 1"),
    Planted(
        "3.7", "", note="one head", old="k_cache[:, :, address_L] = k\n", new="k_cache[:, :1, address_L] = k[:, :1]\n"
    ),
    Planted(
        "3.7", "", note="no position", old=ADDRESS_L, new="address_L = self.address(batch_idx[0], 0 * input_pos[0])"
    ),
]

SLOT = "slot, page = self.slot_of_row[b], address // self.page_size"
OWNED = "owned = (slot > 0) & (page > 0) & (self.page_table[slot, logical_page] == page)"
ASKED = "return owned & logical_mask_mod(b, h, q_idx, logical_page * self.page_size + address % self.page_size)"
MASK = """
def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
"""

MASKED = [
    Planted("3.8", "row-not-slot", old=SLOT, new="slot, page = b, address // self.page_size"),
    Planted(
        "3.8",
        "row-not-slot",
        note="only in the table",
        old="self.page_table[slot, logical_page] == page",
        new="self.page_table[b, logical_page] == page",
    ),
    Planted("3.8", "row-not-slot", note="row plus 1", old=SLOT, new="slot, page = b + 1, address // self.page_size"),
    Planted("3.8", "no-owner", old=OWNED, new="owned = (slot > 0) & (page > 0)"),
    Planted("3.8", "no-owner", note="not even the sinks", old="return owned & ", new="return "),
    Planted("3.8", "no-owner", note="only the page", old=OWNED, new="owned = page > 0"),
    Planted("3.8", "no-owner", note="only the slot", old=OWNED, new="owned = slot > 0"),
    Planted(
        "3.8",
        "no-owner",
        note="some page at that place",
        old="(self.page_table[slot, logical_page] == page)",
        new="(self.page_table[slot, logical_page] > 0)",
    ),
    Planted(
        "3.8",
        "no-owner",
        note="a page that anybody owns",
        old="(self.page_table[slot, logical_page] == page)",
        new="(self.page_table == page[..., None, None]).any(-1).any(-1)",
    ),
    Planted(
        "3.8",
        "page-minus-one",
        code=MASK
        + """
    def mask_mod(b, h, q_idx, address):
        slot, page = self.slot_of_row[b], address // self.page_size
        logical = self.logical_of_page[page]
        logical = torch.where((slot > 0) & (page > 0) & (self.page_table[slot, logical] == page), logical, -1)
        return logical_mask_mod(b, h, q_idx, logical * self.page_size + address % self.page_size)
    return mask_mod
""",
    ),
    Planted("3.8", "reads-the-sink", old="(page > 0) & ", new=""),
    Planted("3.8", "reads-the-sink", note="neither", old="(slot > 0) & (page > 0) & ", new=""),
    Planted(
        "3.8", "address-for-position", old="logical_page * self.page_size + address % self.page_size)", new="address)"
    ),
    Planted("3.8", "page-start", old=" + address % self.page_size)", new=")"),
    Planted(
        "3.8",
        "page-start",
        note="page number",
        old="logical_page * self.page_size + address % self.page_size)",
        new="logical_page)",
    ),
    Planted("3.8", "forgets-the-mask", old=ASKED, new="return owned"),
    Planted(
        "3.8",
        "frozen",
        note="slots",
        code=MASK
        + """
    slots = self.slot_of_row.clone()
    def mask_mod(b, h, q_idx, address):
        slot, page = slots[b], address // self.page_size
        logical = self.logical_of_page[page]
        mine = (slot != 0) & (page != 0) & (self.page_table[slot, logical] == page)
        return mine & logical_mask_mod(b, h, q_idx, logical * self.page_size + address % self.page_size)
    return mask_mod
""",
    ),
    Planted(
        "3.8",
        "frozen",
        note="rows of the table",
        code=MASK
        + """
    rows, logical_of_page = self.page_table[self.slot_of_row], self.logical_of_page
    def mask_mod(b, h, q_idx, address):
        page = address // self.page_size
        logical = logical_of_page[page]
        mine = (page > 0) & (rows[b, logical] == page)
        return mine & logical_mask_mod(b, h, q_idx, logical * self.page_size + address % self.page_size)
    return mask_mod
""",
    ),
    Planted(
        "3.8",
        "frozen",
        note="logical places",
        code=MASK
        + """
    logical_of_page = self.logical_of_page + 0
    def mask_mod(b, h, q_idx, address):
        slot, page = self.slot_of_row[b], address // self.page_size
        logical = logical_of_page[page]
        mine = (page > 0) & (self.page_table[slot, logical] == page)
        return mine & logical_mask_mod(b, h, q_idx, logical * self.page_size + address % self.page_size)
    return mask_mod
""",
    ),
    Planted("3.8", "passes-the-slot", old="logical_mask_mod(b, h,", new="logical_mask_mod(slot, h,"),
    Planted("3.8", "passes-the-slot", note="row 0", old="logical_mask_mod(b, h,", new="logical_mask_mod(0 * b, h,"),
    Planted(
        "3.8",
        "passes-the-slot",
        note="head 0",
        old="logical_mask_mod(b, h,",
        new="logical_mask_mod(b, torch.zeros_like(h),",
    ),
    Planted("3.8", "python-and", old="return owned & ", new="return owned and "),
    Planted(
        "3.8",
        "python-and",
        note="if",
        old="        return owned & ",
        new="        if not owned:\n                return owned\n            return ",
    ),
    Planted("3.8", "", note="owner turned round", old="== page)", new="!= page)"),
    Planted("3.8", "", note="any of its rows", old="return owned & ", new="return owned | "),
    Planted("3.8", "", note="the last page is left out", old="(page > 0)", new="(page > 0) & (page < self.n_pages)"),
    Planted(
        "3.8",
        "",
        note="the column is the page",
        old="self.page_table[slot, logical_page]",
        new="self.page_table[slot, page % self.pages_per_row]",
    ),
]

LISTED = "pages = self.page_table[batch_idx.long()[:, None, None, None], listed]"
PADDED = "return torch.nn.functional.pad(pages, (0, self.n_pages + 1 - pages.shape[-1]))"
BUILT = (
    "        return BlockMask.from_kv_blocks(\n"
    "            block_mask.kv_num_blocks,\n"
    "            physical(block_mask.kv_indices),"
)
MOD = "mask_mod=self.physical_mask_mod(block_mask.mask_mod),"

CONVERTED = [
    Planted(
        "3.9", "row-not-slot", old=LISTED, new="pages = self.page_table[torch.arange(B)[:, None, None, None], listed]"
    ),
    Planted(
        "3.9",
        "row-not-slot",
        note="rows 0 to B",
        old=LISTED,
        new="pages = self.page_table[:B][:, None, None].expand(-1, 1, listed.shape[2], -1).gather(-1, listed)",
    ),
    Planted(
        "3.9",
        "row-not-slot",
        note="only in the mask",
        old="self.slot_of_row[:B] = batch_idx",
        new="self.slot_of_row[:B] = torch.arange(B)",
    ),
    Planted("3.9", "forgets-slot-of-row", old="        self.slot_of_row[:B] = batch_idx\n", new=""),
    Planted(
        "3.9",
        "forgets-slot-of-row",
        note="once is enough",
        old="        self.slot_of_row[:B] = batch_idx\n",
        new="        if not self.slot_of_row.any():\n            self.slot_of_row[:B] = batch_idx\n",
    ),
    Planted(
        "3.9",
        "stays-logical",
        old="None if block_mask.full_kv_indices is None else physical(block_mask.full_kv_indices),",
        new="None if block_mask.full_kv_indices is None else torch.nn.functional.pad(\n"
        "                block_mask.full_kv_indices, (0, self.n_pages + 1 - block_mask.full_kv_indices.shape[-1])),",
        note="the full list",
    ),
    Planted("3.9", "stays-logical", old=LISTED, new="pages = listed"),
    Planted(
        "3.9",
        "drops-full",
        old="            block_mask.full_kv_num_blocks,\n"
        "            None if block_mask.full_kv_indices is None else physical(block_mask.full_kv_indices),\n",
        new="",
    ),
    Planted(
        "3.9",
        "listed-twice",
        note="a count as wide as the row",
        old="            block_mask.kv_num_blocks,\n",
        new="            torch.full_like(block_mask.kv_num_blocks, self.pages_per_row),\n",
    ),
    Planted(
        "3.9",
        "listed-twice",
        note="a column too low",
        old=LISTED,
        new="pages = self.page_table[batch_idx.long()[:, None, None, None], listed.clamp(max=1)]",
    ),
    Planted(
        "3.9",
        "listed-twice",
        note="full pages in both lists",
        old=BUILT,
        new="        counts, partial = block_mask.kv_num_blocks.clone(), physical(block_mask.kv_indices)\n"
        "        if block_mask.full_kv_indices is not None:\n"
        "            for row in range(B):\n"
        "                for block in range(counts.shape[2]):\n"
        "                    n, more = int(counts[row, 0, block]), int(block_mask.full_kv_num_blocks[row, 0, block])\n"
        "                    full = physical(block_mask.full_kv_indices)\n"
        "                    partial[row, 0, block, n : n + more] = full[row, 0, block, :more]\n"
        "                    counts[row, 0, block] += more\n"
        "        return BlockMask.from_kv_blocks(\n            counts,\n            partial,",
    ),
    Planted(
        "3.9",
        "listed-twice",
        note="one more",
        old="            block_mask.kv_num_blocks,\n",
        new="            block_mask.kv_num_blocks + 1,\n",
    ),
    Planted("3.9", "page-minus-one", old=PADDED, new=PADDED[:-1] + ", value=-1)"),
    Planted(
        "3.9",
        "page-minus-one",
        note="behind the counts",
        old=BUILT,
        new="        partial = physical(block_mask.kv_indices)\n"
        "        partial[torch.arange(partial.shape[-1]) >= block_mask.kv_num_blocks[..., None]] = -1\n"
        "        return BlockMask.from_kv_blocks(\n            block_mask.kv_num_blocks,\n            partial,",
    ),
    Planted("3.9", "narrow-lists", old=PADDED, new="return pages"),
    Planted(
        "3.9",
        "narrow-lists",
        note="without a length",
        code="""
def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
    if block_mask.BLOCK_SIZE[1] != self.page_size:
        raise ValueError("block size")
    B = len(batch_idx)
    if B > self.max_batch_size or B != len(block_mask.kv_num_blocks):
        raise ValueError("batch")
    self.slot_of_row[:B].copy_(batch_idx)
    table = self.page_table[batch_idx][:, None, None, :].expand(-1, -1, block_mask.kv_indices.shape[2], -1)
    full = block_mask.full_kv_indices
    return BlockMask.from_kv_blocks(
        block_mask.kv_num_blocks,
        table.gather(3, block_mask.kv_indices.long()),
        block_mask.full_kv_num_blocks,
        table.gather(3, full.long()) if full is not None else None,
        BLOCK_SIZE=block_mask.BLOCK_SIZE,
        mask_mod=self.physical_mask_mod(block_mask.mask_mod),
    )
""",
    ),
    Planted(
        "3.9",
        "keeps-length",
        old="seq_lengths=(block_mask.seq_lengths[0], (self.n_pages + 1) * self.page_size),",
        new="seq_lengths=block_mask.seq_lengths,",
    ),
    Planted("3.9", "logical-mask-mod", old=MOD, new="mask_mod=block_mask.mask_mod,"),
    Planted("3.9", "logical-mask-mod", note="none", old="            " + MOD + "\n", new=""),
    Planted(
        "3.9",
        "no-owner",
        old=MOD,
        new="mask_mod=lambda b, h, q, n: block_mask.mask_mod(\n"
        "                b, h, q, self.logical_of_page[n // self.page_size] * self.page_size + n % self.page_size),",
    ),
    Planted(
        "3.9",
        "no-owner",
        note="but the sinks",
        old=MOD,
        new="mask_mod=lambda b, h, q, n: (n >= self.page_size) & (self.slot_of_row[b] > 0) & block_mask.mask_mod(\n"
        "                b, h, q, self.logical_of_page[n // self.page_size] * self.page_size + n % self.page_size),",
    ),
    Planted("3.9", "other-block-size", old="if k_block != self.page_size:", new="if False:"),
    Planted("3.9", "other-rows", note="rows", old="if rows != B or rows > self.max_batch_size:", new="if False:"),
    Planted("3.9", "other-rows", note="room", old="if rows != B or rows > self.max_batch_size:", new="if rows != B:"),
    Planted(
        "3.9",
        "",
        note="one page fewer",
        old="            block_mask.kv_num_blocks,\n",
        new="            (block_mask.kv_num_blocks - 1).clamp(min=0),\n",
    ),
    Planted("3.9", "", note="next page", old=LISTED, new=LISTED + " % self.n_pages + 1"),
    Planted(
        "3.9",
        "",
        note="the length without the sink",
        old="(self.n_pages + 1) * self.page_size),",
        new="self.n_pages * self.page_size),",
    ),
    Planted(
        "3.9", "", note="no block size", old="BLOCK_SIZE=(q_block, k_block),", new="BLOCK_SIZE=(q_block, q_block),"
    ),
]

MISTAKES = [
    *ALLOCATE,
    *RESERVED,
    *PAGES_MISSING,
    *ERASED,
    *ADDRESSED,
    *ASSIGNED,
    *PREFILLED,
    *PADDING,
    *MASKED,
    *CONVERTED,
]
