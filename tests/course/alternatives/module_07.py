"""Other right answers in module 07."""

from planting import Alternative

BUCKETS = "\ndef batch_buckets(max_batch_size: int) -> list[int]:\n"
ROWS = "\ndef set_rows(self, slots: Sequence[int]) -> None:\n"
FILL = "\ndef fill(self, n: int) -> None:\n"
COMPILE = "\ndef compile_layers(model: nn.Module, layers: list[LayerSpec]) -> None:\n"

ALTERNATIVES = [
    Alternative(
        "7.1",
        "a loop",
        BUCKETS
        + """
    sizes, size = [], 1
    while size < max_batch_size:
        sizes.append(size)
        size = size * 4 if size < 64 else (size // 128 + 1) * 128
    sizes.append(max_batch_size)
    return sizes
""",
    ),
    Alternative(
        "7.1",
        "a set",
        BUCKETS
        + """
    sizes = {4**n for n in range(4)} | set(range(128, max_batch_size + 1, 128)) | {max_batch_size}
    return sorted(size for size in sizes if size <= max_batch_size)
""",
    ),
    Alternative(
        "7.2",
        "one write of padded slots",
        ROWS
        + """
    padding = [0] * (len(self.slot_B) - len(slots))
    self.slot_B[:] = torch.tensor([*slots, *padding], device=self.slot_B.device)
""",
    ),
    Alternative(
        "7.2",
        "zeros first",
        ROWS
        + """
    self.slot_B.zero_()
    for row, slot in enumerate(slots):
        self.slot_B[row] = slot
""",
    ),
    Alternative(
        "7.2",
        "only what differs, by index",
        ROWS
        + """
    new = torch.zeros_like(self.slot_B)
    new[: len(slots)] = torch.as_tensor(tuple(slots), dtype=new.dtype)
    rows = (new != self.slot_B).nonzero()[:, 0]
    self.slot_B.index_copy_(0, rows, new[rows])
""",
    ),
    Alternative(
        "7.3",
        "page by page, sorted to the front",
        FILL
        + """
    size, columns = self.table.page_size, self.table.pages_per_row
    last = self.state.position_B[:n, None]
    first = (last - (self.window or last.new_tensor(2**40)) + 1).clamp(min=0)
    column = torch.arange(columns, device=last.device)
    begin, end = column * size, column * size + size - 1
    touched = (end >= first) & (begin <= last)
    partial = touched & ((begin < first) | (column == last // size))
    full = touched & ~partial
    row = self.table.page_table[self.state.slot_B[:n]]
    for wanted, count, pages in (
        (partial, self.partial_count, self.partial_pages),
        (full, self.full_count, self.full_pages),
    ):
        count[:n, 0, 0] = wanted.sum(dim=1)
        order = (~wanted).to(torch.uint8).argsort(dim=1, stable=True)
        pages[:n, 0, 0, :columns].copy_(row.gather(1, order))
""",
    ),
    Alternative(
        "7.3",
        "row by row, no number on the host",
        FILL
        + """
    size, columns, device = self.table.page_size, self.table.pages_per_row, self.table.page_table.device
    at = torch.arange(columns, device=device)
    for b in range(n):
        pages = self.table.page_table.index_select(0, self.state.slot_B[b : b + 1])[0]
        p = self.state.position_B[b]
        begin = torch.zeros_like(p) if self.window is None else torch.clamp(p - (self.window - 1), min=0)
        last, first, whole = p // size, begin // size, (begin + size - 1) // size
        two = (begin % size != 0) & (first != last)
        self.partial_count[b, 0, 0] = torch.where(two, 2, 1)
        ends = torch.stack([torch.where(two, first, last), last])
        self.partial_pages[b, 0, 0, :2] = pages.gather(0, ends)
        self.full_count[b, 0, 0] = torch.relu(last - whole)
        self.full_pages[b, 0, 0, :columns] = pages.gather(0, (whole + at) % columns)
""",
    ),
    Alternative(
        "7.3",
        "scattered to their places, only what the counts cover",
        FILL
        + """
    size, columns = self.table.page_size, self.table.pages_per_row
    slot, p = self.state.slot_B[:n], self.state.position_B[:n]
    first = torch.zeros_like(p) if self.window is None else (p + 1 - self.window).clamp_min(0)
    at = torch.arange(columns, device=p.device)[None]
    page = self.table.page_table[slot]
    is_last = at == (p // size)[:, None]
    is_cut = (at == (first // size)[:, None]) & (first % size > 0)[:, None] & ~is_last
    is_full = (at >= (first // size)[:, None]) & (at < (p // size)[:, None]) & ~is_cut
    for wanted, count, pages in (
        (is_last | is_cut, self.partial_count, self.partial_pages),
        (is_full, self.full_count, self.full_pages),
    ):
        rank = wanted.cumsum(1) - 1
        place = torch.where(wanted, rank, columns)
        room = torch.zeros(n, columns + 1, dtype=page.dtype, device=page.device).scatter(1, place, page)
        count[:n] = wanted.sum(1, keepdim=True)[:, :, None].to(count.dtype)
        old = pages[:n, 0, 0, :columns]
        old.copy_(torch.where(at < wanted.sum(1, keepdim=True), room[:, :columns], old))
""",
    ),
    Alternative(
        "7.3",
        "padding lists nothing",
        FILL
        + """
    size, columns = self.table.page_size, self.table.pages_per_row
    slot, p = self.state.slot_B[:n], self.state.position_B[:n]
    first = (p - self.window + 1).clamp(min=0) if self.window is not None else p * 0
    last, cut, whole = p // size, first // size, (first + size - 1) // size
    row = self.table.page_table[slot]
    real = (slot > 0).int()
    self.partial_count[:n, 0, 0] = real * (1 + ((cut < whole) & (cut < last)).int())
    self.partial_pages[:n, 0, 0, 0] = torch.take_along_dim(row, last[:, None], 1)[:, 0]
    self.partial_pages[:n, 0, 0, 1] = torch.take_along_dim(row, cut[:, None], 1)[:, 0]
    self.full_count[:n, 0, 0] = real * (last - whole).clamp(min=0).int()
    column = (whole[:, None] + torch.arange(columns, device=p.device)).clamp(max=columns - 1)
    self.full_pages[:n, 0, 0, :columns] = torch.take_along_dim(row, column, 1)
""",
    ),
    Alternative(
        "7.4",
        "by the probe's names, each once",
        COMPILE
        + """
    for name in dict.fromkeys(layer.name.rpartition(".")[0] for layer in layers):
        model.get_submodule(name).compile(dynamic=False, fullgraph=True)
""",
    ),
    Alternative(
        "7.4",
        "what Module.compile does, by hand",
        COMPILE
        + """
    import torch

    options = {"fullgraph": True, "dynamic": False}
    for layer in reversed(decoder_layers(model, layers)):
        layer._compiled_call_impl = torch.compile(layer._call_impl, **options)
""",
    ),
]
