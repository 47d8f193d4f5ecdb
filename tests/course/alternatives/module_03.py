"""Other right answers in module 03."""

from planting import Alternative

INIT = """
def __init__(
    self,
    n_pages: int,
    page_size: int,
    max_batch_size: int,
    max_seq_length: int | None = None,
    device: torch.device | str = "cpu",
) -> None:
    if min(n_pages, page_size, max_batch_size, 1 if max_seq_length is None else max_seq_length) < 1:
        raise ValueError("a size below 1")
    if page_size & (page_size - 1):
        raise ValueError("not a power of two")
    self.n_pages, self.page_size, self.max_batch_size = n_pages, page_size, max_batch_size
    self.pages_per_row = n_pages if max_seq_length is None else min(n_pages, -(-max_seq_length // page_size))
    self.page_table = torch.full((max_batch_size + 1, self.pages_per_row), {fill}, dtype=torch.{dtype}, device=device)
    self.page_table[0] = 0
    self.logical_of_page = torch.zeros(n_pages + 1, dtype=torch.{dtype}, device=device)
    self.slot_of_row = torch.zeros(max_batch_size, dtype=torch.int64, device=device)
    self.capacity = [0] * (max_batch_size + 1)
    self.owned = [[] for _ in range(max_batch_size + 1)]
    self.sharing = None
    {slots}
    {pages}
"""


def init(slots: str, pages: str, fill: str = "0", dtype: str = "int32") -> str:
    return INIT.replace("{slots}", slots).replace("{pages}", pages).replace("{fill}", fill).replace("{dtype}", dtype)


RESERVE = """
def reserve(self, batch_idx: int, seq_len: int) -> bool:
    if not self.is_allocated(batch_idx):
        raise ValueError(f"slot {batch_idx} is free")
    if seq_len < 1 or seq_len > self.page_table.shape[1] * self.page_size:
        raise ValueError(f"{seq_len} tokens")
    have = self.capacity[batch_idx] // self.page_size
    want = (seq_len + self.page_size - 1) // self.page_size
    if want - have > self.pages_available:
        return False
    for place in range(have, want):
        [page] = self.take(1)
        self.owned[batch_idx].append(page)
        self.page_table[batch_idx, place] = page
        self.logical_of_page[page] = place
        self.capacity[batch_idx] += self.page_size
    return True
"""
ERASE = """
def erase(self, batch_idx: int) -> None:
    if not self.is_allocated(batch_idx):
        raise ValueError(f"slot {batch_idx} is free")
    pages, self.owned[batch_idx] = self.owned[batch_idx], []
    self.drop(pages)
    self.page_table[batch_idx].fill_(0)
    self.capacity[batch_idx] = 0
    {give}
"""
HEAP = {
    "PageTable.__init__": init(
        "self.free_slots = list(range(1, max_batch_size + 1))", "self.free_pages = list(range(1, n_pages + 1))"
    ),
    "PageTable.take": """
def take(self, n: int) -> list[int]:
    import heapq
    return [heapq.heappop(self.free_pages) for _ in range(n)]
""",
    "PageTable.drop": """
def drop(self, pages: list[int]) -> None:
    import heapq
    for page in pages:
        heapq.heappush(self.free_pages, page)
""",
}
HEAP_ALLOCATE = """
def allocate(self) -> int:
    import heapq
    if not self.free_slots:
        raise RuntimeError("no slot is free")
    return heapq.heappop(self.free_slots)
"""
HEAP_ERASE = ERASE.replace("{give}", "__import__('heapq').heappush(self.free_slots, batch_idx)")
SETS = {
    "PageTable.__init__": init(
        "self.free_slots = set(range(1, max_batch_size + 1))", "self.free_pages = set(range(1, n_pages + 1))"
    ),
    "PageTable.drop": "def drop(self, pages: list[int]) -> None:\n    self.free_pages |= set(pages)\n",
}
SET_ALLOCATE = """
def allocate(self) -> int:
    for slot in self.free_slots:
        self.free_slots.remove(slot)
        return slot
    raise RuntimeError("no slot is free")
"""
SET_ERASE = ERASE.replace("{give}", "self.free_slots.add(batch_idx)")
QUEUE = {
    "PageTable.__init__": init(
        "from collections import deque; self.free_slots = deque(range(1, max_batch_size + 1))",
        "self.free_pages = deque(range(n_pages, 0, -1))",
    ),
    "PageTable.take": "def take(self, n: int) -> list[int]:\n    return [self.free_pages.popleft() for _ in range(n)]\n",
}
QUEUE_ALLOCATE = """
def allocate(self) -> int:
    try:
        return self.free_slots.popleft()
    except IndexError:
        raise RuntimeError("every slot is taken") from None
"""
BITS = {
    "PageTable.__init__": init(
        "self.is_free = [False] + [True] * max_batch_size", "self.free_page = torch.ones(n_pages + 1, dtype=torch.bool)"
    ),
    "PageTable.is_allocated": """
def is_allocated(self, batch_idx: int) -> bool:
    return 1 <= batch_idx <= self.max_batch_size and not self.is_free[batch_idx]
""",
    "PageTable.take": """
def take(self, n: int) -> list[int]:
    pages = self.free_page[1:].nonzero().flatten()[:n] + 1
    self.free_page[pages] = False
    return pages.tolist()
""",
    "PageTable.drop": "def drop(self, pages: list[int]) -> None:\n    self.free_page[pages] = True\n",
    "PageTable.pages_available": """
@property
def pages_available(self) -> int:
    return int(self.free_page[1:].sum())
""",
}
BITS_ALLOCATE = """
def allocate(self) -> int:
    slot = next((slot for slot, free in enumerate(self.is_free) if free), None)
    if slot is None:
        raise RuntimeError("every slot is taken")
    self.is_free[slot] = False
    return slot
"""
BITS_ERASE = ERASE.replace("{give}", "self.is_free[batch_idx] = True").replace(
    "self.drop(pages)", "self.drop(pages) if pages else None"
)
QUEUE_ERASE = ERASE.replace("{give}", "self.free_slots.append(batch_idx)")


def together(allocate: str = "", reserve: str = "", erase: str = "", **others: str) -> dict[str, str]:
    named = {"PageTable.allocate": allocate, "PageTable.reserve": reserve, "PageTable.erase": erase, **others}
    return {name: code for name, code in named.items() if code}


BOOKS = {
    "heap": (HEAP, HEAP_ALLOCATE, HEAP_ERASE),
    "sets": (SETS, SET_ALLOCATE, SET_ERASE),
    "queues": (QUEUE, QUEUE_ALLOCATE, QUEUE_ERASE),
    "bitmaps": (BITS, BITS_ALLOCATE, BITS_ERASE),
}
FREE_LISTS = [
    alternative
    for name, (given, allocate, erase) in BOOKS.items()
    for alternative in (
        Alternative("3.1", name, allocate, {**given, **together(reserve=RESERVE, erase=erase)}),
        Alternative("3.2", name, RESERVE, {**given, **together(allocate=allocate, erase=erase)}),
        Alternative("3.4", name, erase, {**given, **together(allocate=allocate, reserve=RESERVE)}),
    )
]

WRITE = """
def {name}(
    self, batch_idx: Tensor, input_pos: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor
) -> None:
"""
ASSIGN, PACK = (WRITE.replace("{name}", name) for name in ("assign", "assign_prefill_no_paging"))

ALTERNATIVES = [
    *FREE_LISTS,
    Alternative(
        "3.1",
        "smallest first",
        """
def allocate(self) -> int:
    if len(self.free_slots) == 0:
        raise RuntimeError(f"no slot is free, all {self.max_batch_size} are in use")
    slot = min(self.free_slots)
    self.free_slots = [other for other in self.free_slots if other != slot]
    return slot
""",
    ),
    Alternative("3.2", "page by page", RESERVE),
    Alternative(
        "3.2",
        "a copy of the row is written back",
        """
def reserve(self, batch_idx: int, seq_len: int) -> bool:
    if not self.is_allocated(batch_idx):
        raise ValueError(batch_idx)
    longest = self.pages_per_row * self.page_size
    if seq_len not in range(1, longest + 1):
        raise ValueError(seq_len)
    if not self.can_reserve(batch_idx, seq_len):
        return False
    pages = self.owned[batch_idx] + self.take(self.pages_missing(batch_idx, seq_len))
    self.owned[batch_idx] = pages
    row = torch.zeros(self.pages_per_row, dtype=torch.int32)
    row[: len(pages)] = torch.tensor(pages)
    self.page_table[batch_idx] = row
    self.logical_of_page.index_copy_(0, torch.tensor(pages), torch.arange(len(pages)).int())
    self.capacity[batch_idx] = len(pages) * self.page_size
    return True
""",
    ),
    Alternative(
        "3.2",
        "takes all or gives back",
        """
def reserve(self, batch_idx: int, seq_len: int) -> bool:
    self._check_allocated(batch_idx)
    if seq_len > self.pages_per_row * self.page_size or seq_len <= 0:
        raise ValueError("this length can never be held")
    taken: list[int] = []
    while (len(self.owned[batch_idx]) + len(taken)) * self.page_size < seq_len:
        if not self.pages_available:
            self.drop(taken)
            return False
        taken += self.take(1)
    for page in taken:
        index = len(self.owned[batch_idx])
        self.page_table.index_put_((torch.tensor(batch_idx), torch.tensor(index)), torch.tensor(page, dtype=torch.int32))
        self.logical_of_page[page] = index
        self.owned[batch_idx].append(page)
    self.capacity[batch_idx] = self.page_size * len(self.owned[batch_idx])
    return True
""",
    ),
    Alternative(
        "3.2",
        "int64 tables that start with -1",
        RESERVE,
        {
            "PageTable.__init__": init(
                "self.free_slots = list(range(max_batch_size, 0, -1))",
                "self.free_pages = list(range(n_pages, 0, -1))",
                fill="-1",
                dtype="int64",
            )
        },
    ),
    Alternative(
        "3.3",
        "in pages",
        """
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    needed = (seq_len + self.page_size - 1) // self.page_size
    return max(needed - self.capacity[batch_idx] // self.page_size, 0)
""",
    ),
    Alternative(
        "3.3",
        "counts up",
        """
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    pages, room = 0, len(self.owned[batch_idx]) * self.page_size
    while room < seq_len:
        pages, room = pages + 1, room + self.page_size
    return pages
""",
    ),
    Alternative(
        "3.3",
        "ceil and shift",
        """
def pages_missing(self, batch_idx: int, seq_len: int) -> int:
    import math
    return max(0, math.ceil((seq_len - self.capacity[batch_idx]) / self.page_size))
""",
    ),
    Alternative("3.4", "in another order", ERASE.replace("{give}", "self.free_slots.insert(0, batch_idx)")),
    Alternative(
        "3.4",
        "minus one for no page",
        ERASE.replace("{give}", "self.free_slots.append(batch_idx)").replace("fill_(0)", "fill_(-1)"),
    ),
    Alternative(
        "3.4",
        "forgets the logical places, empties the list in place",
        """
def erase(self, batch_idx: int) -> None:
    if batch_idx < 1 or batch_idx > self.max_batch_size or batch_idx in self.free_slots:
        raise ValueError(f"slot {batch_idx} is not in use")
    self.logical_of_page[self.owned[batch_idx]] = 0
    self.drop(list(reversed(self.owned[batch_idx])))
    self.owned[batch_idx].clear()
    self.page_table[batch_idx, :] = 0
    self.capacity[batch_idx] = 0
    self.free_slots.append(batch_idx)
""",
    ),
    Alternative(
        "3.4",
        "the row is cleaned by allocate",
        ERASE.replace("{give}", "self.free_slots.append(batch_idx)").replace(
            "    self.page_table[batch_idx].fill_(0)\n", ""
        ),
        together(
            allocate="""
def allocate(self) -> int:
    if not self.free_slots:
        raise RuntimeError("all slots are taken")
    slot = self.free_slots.pop()
    self.page_table[slot].zero_()
    return slot
"""
        ),
    ),
    Alternative(
        "3.5",
        "divmod, the sink apart",
        """
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    batch_idx, input_pos = torch.broadcast_tensors(batch_idx, input_pos)
    safe = torch.where(batch_idx == 0, 0, input_pos)
    column = torch.div(safe, self.page_size, rounding_mode="floor")
    page = self.page_table[batch_idx, column]
    return (page.to(torch.int64) * self.page_size + torch.remainder(safe, self.page_size)).to(torch.int64)
""",
    ),
    Alternative(
        "3.5",
        "gathers in the flattened table",
        """
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    width = self.page_table.shape[1]
    column = (input_pos.long() >> (self.page_size.bit_length() - 1)).clamp(max=width - 1)
    page = self.page_table.flatten()[batch_idx.long() * width + column].long()
    return (page << (self.page_size.bit_length() - 1)) | (input_pos.long() & (self.page_size - 1))
""",
    ),
    Alternative(
        "3.5",
        "token by token",
        """
def address(self, batch_idx: Tensor, input_pos: Tensor) -> Tensor:
    slots, positions = torch.broadcast_tensors(batch_idx, input_pos)
    found = []
    for slot, position in zip(slots.flatten().tolist(), positions.flatten().tolist(), strict=True):
        if slot == 0:
            found.append(0)
            continue
        page, place = divmod(position, self.page_size)
        found.append(int(self.page_table[slot, page]) * self.page_size + place)
    return torch.tensor(found, dtype=torch.int64).view(slots.shape)
""",
    ),
    Alternative(
        "3.6",
        "token by token",
        ASSIGN
        + """
    for b, slot in enumerate(batch_idx):
        for s, position in enumerate(input_pos[b]):
            at = self.address(slot, position)
            k_cache[0, :, at] = k[b, :, s]
            v_cache[0, :, at] = v[b, :, s]
""",
    ),
    Alternative(
        "3.6",
        "index_put, padding left out",
        ASSIGN
        + """
    at = self.address(batch_idx[:, None], input_pos)
    real = (batch_idx > 0)[:, None].expand_as(at)
    for pool, new in ((k_cache, k), (v_cache, v)):
        pool[0].transpose(0, 1).index_put_((at[real],), new.transpose(1, 2)[real])
""",
    ),
    Alternative(
        "3.6",
        "scatter",
        ASSIGN
        + """
    B, Hk, S, D = k.shape
    at = self.address(batch_idx.view(B, 1), input_pos).reshape(1, 1, B * S, 1)
    k_cache.scatter_(2, at.expand(1, Hk, -1, k.shape[-1]), k.permute(1, 0, 2, 3).reshape(1, Hk, B * S, -1))
    v_cache.scatter_(2, at.expand(1, Hk, -1, v.shape[-1]), v.permute(1, 0, 2, 3).reshape(1, Hk, B * S, -1))
""",
    ),
    Alternative(
        "3.6",
        "index_copy, row by row",
        ASSIGN
        + """
    for b in range(len(batch_idx)):
        at = self.address(batch_idx[b], input_pos[b])
        k_cache.index_copy_(2, at, k[b : b + 1])
        v_cache.index_copy_(2, at, v[b : b + 1])
""",
    ),
    Alternative(
        "3.7",
        "index_copy",
        PACK
        + """
    at = self.address(batch_idx, input_pos).squeeze(0)
    k_cache.index_copy_(2, at, k)
    v_cache.index_copy_(2, at, v)
""",
    ),
    Alternative(
        "3.7",
        "one sequence after the other, padding left out",
        PACK
        + """
    for slot in batch_idx.unique().tolist():
        if slot == 0:
            continue
        mine = batch_idx[0] == slot
        at = self.address(torch.tensor(slot), input_pos[0, mine])
        k_cache[0, :, at] = k[0][:, mine]
        v_cache[0, :, at] = v[0][:, mine]
""",
    ),
    Alternative(
        "3.7",
        "as many rows of one token",
        PACK
        + """
    k_rows, v_rows = (new[0].transpose(0, 1)[:, :, None] for new in (k, v))
    self.assign(batch_idx[0], input_pos[0][:, None], k_rows, v_rows, k_cache, v_cache)
""",
    ),
    Alternative(
        "3.8",
        "where, buffers captured",
        """
def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
    table, places, slots, size = self.page_table, self.logical_of_page, self.slot_of_row, self.page_size

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        page, place = kv_idx // size, kv_idx % size
        slot = slots[b]
        at = places[page]
        mine = torch.logical_and(table[slot, at] == page, ~((slot == 0) | (page == 0)))
        return torch.where(mine, logical_mask_mod(b, h, q_idx, at * size + place), False)

    return mask_mod
""",
    ),
    Alternative(
        "3.8",
        "looks for the page in the row",
        """
def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, address: Tensor) -> Tensor:
        page = address // self.page_size
        found = self.page_table[self.slot_of_row[b]] == page[..., None]
        column = found.int().argmax(-1)
        allowed = logical_mask_mod(b, h, q_idx, column * self.page_size + address % self.page_size)
        return (page != 0) & found.any(-1) & allowed

    return mask_mod
""",
    ),
    Alternative(
        "3.8",
        "position through the logical place, the sink by its page only",
        """
def physical_mask_mod(self, logical_mask_mod: MaskMod) -> MaskMod:
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, address: Tensor) -> Tensor:
        page = torch.div(address, self.page_size, rounding_mode="floor")
        position = self.logical_of_page[page] * self.page_size + (address - page * self.page_size)
        owner = self.page_table[self.slot_of_row[b], self.logical_of_page[page]]
        return logical_mask_mod(b, h, q_idx, position) & (owner == page) & (address >= self.page_size)

    return mask_mod
""",
    ),
    Alternative(
        "3.9",
        "gather, int64, query lists too",
        """
def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
    rows, size = block_mask.kv_num_blocks.shape[0], block_mask.BLOCK_SIZE[1]
    if size != self.page_size:
        raise ValueError(f"blocks of {size}")
    if len(batch_idx) != rows or rows > self.max_batch_size:
        raise ValueError(f"{rows} rows")
    self.slot_of_row[:rows].copy_(batch_idx)
    table = self.page_table.long()[batch_idx.long()][:, None, None]
    n = self.n_pages + 1

    def translated(indices: Tensor | None) -> Tensor | None:
        if indices is None:
            return None
        pages = table.expand(*indices.shape[:3], -1).gather(3, indices.long())
        wide = pages.new_zeros(*pages.shape[:3], n)
        wide[..., : pages.shape[3]] = pages
        return wide

    return BlockMask.from_kv_blocks(
        block_mask.kv_num_blocks.clone(),
        translated(block_mask.kv_indices),
        block_mask.full_kv_num_blocks,
        translated(block_mask.full_kv_indices),
        BLOCK_SIZE=block_mask.BLOCK_SIZE,
        mask_mod=self.physical_mask_mod(block_mask.mask_mod),
    )
""",
    ),
    Alternative(
        "3.9",
        "list by list, backwards, zeros for no full lists",
        """
def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
    B = batch_idx.numel()
    if block_mask.BLOCK_SIZE[1] != self.page_size or block_mask.kv_indices.shape[0] != B or B > self.max_batch_size:
        raise ValueError("the mask does not fit the table")
    for row, slot in enumerate(batch_idx.tolist()):
        self.slot_of_row[row] = slot
    blocks = block_mask.kv_indices.shape[2]

    def lists(counts: Tensor | None, indices: Tensor | None) -> tuple[Tensor, Tensor]:
        new_counts = torch.zeros(B, 1, blocks, dtype=torch.int32)
        new = torch.full((B, 1, blocks, self.n_pages + 1), self.n_pages, dtype=torch.int32)
        for row in range(B):
            for block in range(blocks):
                n = 0 if counts is None else int(counts[row, 0, block])
                new_counts[row, 0, block] = n
                for i in range(n):
                    logical = int(indices[row, 0, block, i])
                    new[row, 0, block, n - 1 - i] = self.page_table[batch_idx[row], logical]
        return new_counts, new

    return BlockMask.from_kv_blocks(
        *lists(block_mask.kv_num_blocks, block_mask.kv_indices),
        *lists(block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
        BLOCK_SIZE=block_mask.BLOCK_SIZE,
        mask_mod=self.physical_mask_mod(block_mask.mask_mod),
        seq_lengths=(block_mask.shape[-2], (self.n_pages + 1) * self.page_size),
    )
""",
    ),
    Alternative(
        "3.9",
        "the last page behind the counts",
        """
def convert_logical_block_mask(self, block_mask: BlockMask, batch_idx: Tensor) -> BlockMask:
    q_block, k_block = block_mask.BLOCK_SIZE
    if k_block != self.page_size:
        raise ValueError("key blocks must be pages")
    if not len(batch_idx) == len(block_mask.kv_indices) <= self.max_batch_size:
        raise ValueError("one slot for each row, and no more rows than slots")
    self.slot_of_row[: len(batch_idx)] = batch_idx

    def pages(indices: Tensor) -> Tensor:
        columns = torch.arange(self.n_pages + 1).clamp(max=indices.shape[-1] - 1)
        listed = indices[..., columns].long().clamp(max=self.pages_per_row - 1)
        return self.page_table[batch_idx.view(-1, 1, 1, 1), listed]

    full = block_mask.full_kv_indices
    return BlockMask(
        seq_lengths=(block_mask.seq_lengths[0], (self.n_pages + 1) * self.page_size),
        kv_num_blocks=block_mask.kv_num_blocks,
        kv_indices=pages(block_mask.kv_indices),
        full_kv_num_blocks=block_mask.full_kv_num_blocks,
        full_kv_indices=pages(full) if full is not None else None,
        q_num_blocks=None,
        q_indices=None,
        full_q_num_blocks=None,
        full_q_indices=None,
        BLOCK_SIZE=(q_block, k_block),
        mask_mod=self.physical_mask_mod(block_mask.mask_mod),
    )
""",
    ),
]
