"""Mistakes in module 07, as edits of the reference or as functions of their own."""

from planting import Planted

BUCKETS = "\ndef batch_buckets(max_batch_size: int) -> list[int]:\n"
SIZES = "[1, 4, 16, 64, *range(128, max_batch_size, 128)]"
RESULT = "[*(size for size in sizes if size < max_batch_size), max_batch_size]"

SIZE_MISTAKES = [
    Planted("7.1", "bucket-gap", old=RESULT, new="[size for size in sizes if size <= max_batch_size]"),
    Planted("7.1", "bucket-gap", note="below it", old=RESULT, new="[size for size in sizes if size < max_batch_size]"),
    Planted(
        "7.1",
        "above-max",
        code=BUCKETS
        + """
    sizes = [1]
    while sizes[-1] < max_batch_size:
        sizes.append(sizes[-1] * 4 if sizes[-1] < 64 else sizes[-1] // 128 * 128 + 128)
    return sizes
""",
    ),
    Planted("7.1", "above-max", note="fixed ones", old=RESULT, new="sorted({*sizes, max_batch_size})"),
    Planted("7.1", "above-max", note="not sorted", old=RESULT, new="[*sizes, max_batch_size]"),
    Planted("7.1", "listed-twice", old="size < max", new="size <= max"),
    Planted(
        "7.1",
        "listed-twice",
        note="steps too",
        code=BUCKETS
        + """
    sizes = [1, 4, 16, 64] + list(range(128, max_batch_size + 1, 128))
    return [size for size in sizes if size <= max_batch_size] + [max_batch_size]
""",
    ),
    Planted("7.1", "none-of-one", old=SIZES, new="[4, 16, 64, *range(128, max_batch_size, 128)]"),
    Planted("7.1", "none-of-one", note="powers of two", old=SIZES, new=SIZES.replace("1, 4, 16,", "2, 4, 8, 16, 32,")),
    Planted("7.1", "too-many", note="powers of two", old=SIZES, new=SIZES.replace("1, 4, 16,", "1, 2, 4, 8, 16, 32,")),
    Planted(
        "7.1",
        "too-many",
        note="multiples of 64",
        old="range(128, max_batch_size, 128)",
        new="range(128, max_batch_size, 64)",
    ),
    Planted(
        "7.1",
        "too-many",
        note="both",
        old=SIZES,
        new="[1, 2, 4, 8, 16, 32, *range(64, max_batch_size, 64)]",
    ),
    Planted("7.1", "too-many", note="like others", old=SIZES, new="[1, 2, 4, 8, *range(16, max_batch_size, 16)]"),
    Planted("7.1", "too-many", note="all", old=SIZES, new="range(1, max_batch_size)"),
    Planted("7.1", "no-steps", old=SIZES, new="[4**n for n in range(20)]"),
    Planted("7.1", "no-steps", note="by two", old=SIZES, new="[2**n for n in range(20)]"),
    Planted("7.1", "no-steps", note="nothing above 64", old=SIZES, new="[1, 4, 16, 64]"),
    Planted("7.1", "steps-off", old="range(128,", new="range(192,"),
    Planted(
        "7.1", "steps-off", note="256", old="range(128, max_batch_size, 128)", new="range(256, max_batch_size, 256)"
    ),
    Planted("7.1", "not-in-order", old=RESULT, new=RESULT + "[::-1]"),
    Planted(
        "7.1",
        "not-in-order",
        note="largest first",
        old=RESULT,
        new="[max_batch_size, *(size for size in sizes if size < max_batch_size)]",
    ),
    Planted("7.1", "", note="only the largest", old=RESULT, new="[max_batch_size]"),
    Planted("7.1", "", note="halves", old=SIZES, new="sorted({max_batch_size >> n for n in range(12)} - {0})"),
    Planted(
        "7.1",
        "",
        note="one row less",
        old=RESULT,
        new="[*(size for size in sizes if size < max_batch_size), max_batch_size - 1]",
    ),
    Planted(
        "7.1",
        "",
        note="an iterator",
        old=RESULT,
        new="(size for size in [*sizes, max_batch_size] if size <= max_batch_size)",
    ),
]

ROWS = "\ndef set_rows(self, slots: Sequence[int]) -> None:\n"
PUT = "self._staging[: len(slots)] = torch.tensor(slots)"
SEND = "self.slot_B.copy_(self._staging, non_blocking=True)"
PADDED = "torch.tensor([*slots] + [0] * (len(self.slot_B) - len(slots)))"

ROW_MISTAKES = [
    Planted("7.2", "stale-pad", old="        self._staging.zero_()\n", new=""),
    Planted("7.2", "stale-pad", note="a slice", code=ROWS + "    self.slot_B[: len(slots)] = torch.tensor([*slots])\n"),
    Planted("7.2", "rebound-buffer", code=ROWS + f"    self.slot_B = {PADDED}\n"),
    Planted("7.2", "rebound-buffer", note="only the data", code=ROWS + f"    self.slot_B.data = {PADDED}\n"),
    Planted(
        "7.2",
        "rebound-buffer",
        note="a copy sent",
        old=SEND,
        new="self.slot_B = self._staging.to(self.slot_B.device).clone()",
    ),
    Planted(
        "7.2",
        "clears-one",
        code=ROWS
        + """
    self.slot_B[: len(slots)] = torch.tensor([*slots])
    if len(slots) < len(self.slot_B):
        self.slot_B[len(slots)] = 0
""",
    ),
    Planted("7.2", "wiped", old=PUT, new=PUT + "\n        self._staging.zero_()"),
    Planted("7.2", "empty-keeps", old="if slots == self._slots:", new="if not slots or slots == self._slots:"),
    Planted(
        "7.2",
        "empty-keeps",
        note="own writing",
        code=ROWS
        + """
    if len(slots):
        self.slot_B.zero_()
        self.slot_B[: len(slots)] = torch.tensor([*slots])
""",
    ),
    Planted("7.2", "skips-a-change", old="if slots == self._slots:", new="if len(slots) == len(self._slots):"),
    Planted(
        "7.2", "skips-a-change", note="order", old="slots == self._slots", new="sorted(slots) == sorted(self._slots)"
    ),
    Planted(
        "7.2", "skips-a-change", note="fewer", old="slots == self._slots", new="slots == self._slots[: len(slots)]"
    ),
    Planted("7.2", "keeps-the-list", old="self._slots = list(slots)", new="self._slots = slots"),
    Planted("7.2", "lists-only", code=ROWS + f"    self.slot_B.copy_({PADDED.replace('[*slots]', 'slots')})\n"),
    Planted(
        "7.2",
        "lists-only",
        note="by its methods",
        code=ROWS
        + """
    full = slots.copy()
    full += [0] * (len(self.slot_B) - len(full))
    self.slot_B.copy_(torch.tensor(full))
""",
    ),
    Planted(
        "7.2",
        "by-slot",
        code=ROWS + "    self.slot_B.zero_()\n    for slot in slots:\n        self.slot_B[slot] = slot\n",
    ),
    Planted(
        "7.2",
        "by-slot",
        note="from one",
        code=ROWS + "    self.slot_B.zero_()\n    for slot in slots:\n        self.slot_B[slot - 1] = slot\n",
    ),
    Planted("7.2", "by-slot", note="rows for slots", old="torch.tensor(slots)", new="torch.arange(len(slots)) + 1"),
    Planted("7.2", "by-slot", note="rows from zero", old="torch.tensor(slots)", new="torch.arange(len(slots))"),
    Planted("7.2", "sorted", old="torch.tensor(slots)", new="torch.tensor(sorted(slots))"),
    Planted("7.2", "pads-minus-one", old="self._staging.zero_()", new="self._staging.fill_(-1)"),
    Planted(
        "7.2",
        "",
        note="at the end",
        code=ROWS
        + "    self.slot_B.zero_()\n    if slots:\n        self.slot_B[-len(slots) :] = torch.tensor([*slots])\n",
    ),
    Planted("7.2", "", note="forgets the tokens", old=SEND, new=SEND + "\n        self.token_S.zero_()"),
    Planted(
        "7.2",
        "",
        note="the last one again",
        old="self._staging.zero_()",
        new="self._staging.fill_(slots[-1] if slots else 0)",
    ),
    Planted("7.2", "", note="one less", old="torch.tensor(slots)", new="torch.tensor(slots) - 1"),
    Planted("7.2", "", note="adds", old=SEND, new="self.slot_B.add_(self._staging)"),
]

FILL = "\ndef fill(self, n: int) -> None:\n"
PAGES = "page_BJ = self.table.page_table[slot_B]"
FIRST = "(position_B - self.window + 1).clamp(min=0)"
CUT = "(first_page_B < first_full_B) & (\n            first_page_B < last_page_B\n        )"
FULL_COUNT = "(last_page_B - first_full_B).clamp(min=0).int()"
PARTIAL = "self.partial_pages[:n, 0, 0, :2] = page_BJ.gather(1, ends_B2)"
FULL = "self.full_pages[:n, 0, 0, :columns] = full_BJ"
POSITION = "self.state.position_B[:n]\n        page_BJ"


def bodies(code: str) -> str:
    """A function of its own: which pages, [n, columns], are partial and which full, is decided in `code`."""
    return (
        FILL
        + """
    size, columns = self.table.page_size, self.table.pages_per_row
    slot, last = self.state.slot_B[:n, None], self.state.position_B[:n, None]
    first = (last - (self.window or 10**9) + 1).clamp(min=0)
    page, at = self.table.page_table[slot[:, 0]], torch.arange(columns, device=slot.device)
    here, cut = (at >= first // size) & (at <= last // size), at * size < first
"""
        + code
        + """
    for count, pages, wanted in (
        (self.partial_count, self.partial_pages, partial), (self.full_count, self.full_pages, full)
    ):
        count[:n, 0, 0] = wanted.sum(1).int()
        order = wanted.int().argsort(dim=1, descending=True, stable=True)
        pages[:n, 0, 0, :columns] = page.gather(1, order)
"""
    )


PLAIN = "    partial = here & (cut | (at == last // size))\n    full = here & ~partial\n"

FILL_MISTAKES = [
    Planted("7.3", "row-not-slot", old="page_table[slot_B]", new="page_table[:n]"),
    Planted("7.3", "row-not-slot", note="from one", old="page_table[slot_B]", new="page_table[1 : n + 1]"),
    Planted(
        "7.3", "stays-logical", old=PAGES, new="page_BJ = torch.arange(columns, device=slot_B.device).expand(n, -1)"
    ),
    Planted(
        "7.3",
        "one-short",
        old="last_page_B, first_page_B = position_B // page_size",
        new="last_page_B, first_page_B = (position_B - 1).clamp(min=0) // page_size",
    ),
    Planted(
        "7.3",
        "one-short",
        note="from -1",
        old="last_page_B, first_page_B = position_B // page_size",
        new="last_page_B, first_page_B = (position_B - 1) // page_size",
    ),
    Planted(
        "7.3",
        "one-long",
        old="last_page_B, first_page_B = position_B // page_size",
        new="last_page_B, first_page_B = (position_B + 1) // page_size",
    ),
    Planted("7.3", "one-long", note="both ends", old=POSITION, new="self.state.position_B[:n] + 1\n        page_BJ"),
    Planted("7.3", "window-plus-one", old="self.window + 1", new="self.window"),
    Planted(
        "7.3",
        "no-window",
        old="first_B = torch.zeros_like(position_B) if self.window is None else",
        new="first_B = torch.zeros_like(position_B) if True else",
    ),
    Planted(
        "7.3",
        "no-window",
        note="cut is full too",
        code=bodies(
            PLAIN.replace("full = here & ~partial", "full = (at < last // size) & (cut | ~partial)").replace(
                "here & (cut", "here & (cut"
            )
        ),
    ),
    Planted(
        "7.3",
        "no-window",
        note="full from the beginning",
        code=bodies(PLAIN.replace("full = here & ~partial", "full = (at < last // size) & ~partial")),
    ),
    Planted("7.3", "from-column-0", old="        if self.window is None:", new="        if True:"),
    Planted("7.3", "always-cut", code=bodies(PLAIN.replace("cut |", "(at == first // size) |"))),
    Planted(
        "7.3",
        "always-cut",
        note="with a window",
        code=bodies(PLAIN.replace("cut |", "((at == first // size) & (self.window is not None)) |")),
    ),
    Planted(
        "7.3", "full-for-partial", code=bodies(PLAIN.replace("(cut | (at == last // size))", "(at == last // size)"))
    ),
    Planted("7.3", "loses-the-cut", old="1 + cut_B.int()", new="1"),
    Planted("7.3", "listed-twice", old=CUT, new="first_page_B < first_full_B"),
    Planted(
        "7.3",
        "listed-twice",
        note="also whole",
        old=CUT,
        new="(first_page_B < first_full_B) | (first_page_B == last_page_B)",
    ),
    Planted(
        "7.3", "last-full", code=bodies("    partial = here & cut & (at < last // size)\n    full = here & ~partial\n")
    ),
    Planted(
        "7.3",
        "last-full",
        note="both",
        code=bodies(PLAIN.replace("here & ~partial", "here & (~partial | (at == last // size))")),
    ),
    Planted(
        "7.3",
        "last-full",
        note="if complete",
        code=bodies("    partial = here & (cut | ((at + 1) * size > last + 1))\n    full = here & ~partial\n"),
    ),
    Planted("7.3", "swapped", code=bodies(PLAIN + "    partial, full = full, partial\n")),
    Planted("7.3", "same-for-all", old=POSITION, new="self.state.position_B[:n].max().expand(n)\n        page_BJ"),
    Planted(
        "7.3", "same-for-all", note="row 0", old=POSITION, new="self.state.position_B[:1].expand(n)\n        page_BJ"
    ),
    Planted("7.3", "before-zero", old=FIRST, new="position_B - self.window + 1"),
    Planted("7.3", "past-the-row", old="column_BJ.clamp(max=columns - 1)", new="column_BJ"),
    Planted("7.3", "rebound-buffer", old=FULL, new="self.full_pages = self.full_pages.clone()\n        " + FULL),
    Planted(
        "7.3",
        "rebound-buffer",
        note="a count",
        old="self.partial_count[:n, 0, 0] = 1 + cut_B.int()",
        new="self.partial_count = (1 + cut_B.int())[:, None, None]",
    ),
    Planted(
        "7.3",
        "rebound-buffer",
        note="all",
        old="        page_size, columns",
        new="        self.partial_count, self.partial_pages, self.full_count, self.full_pages = (\n"
        "            torch.zeros_like(one)\n"
        "            for one in (self.partial_count, self.partial_pages, self.full_count, self.full_pages)\n"
        "        )\n        page_size, columns",
    ),
    Planted(
        "7.3",
        "all-rows",
        old="        page_size, columns",
        new="        n = len(self.state.slot_B)\n        page_size, columns",
    ),
    Planted(
        "7.3",
        "whole-width",
        old="        page_size, columns",
        new="        self.full_pages[:n] = 0\n        page_size, columns",
    ),
    Planted(
        "7.3",
        "stale-count",
        old=f"self.full_count[:n, 0, 0] = {FULL_COUNT}",
        new=f"count_B, old_B = {FULL_COUNT}, self.full_count[:n, 0, 0]\n"
        "        self.full_count[:n, 0, 0] = torch.where(count_B > 0, count_B, old_B)",
    ),
    Planted(
        "7.3",
        "stale-count",
        note="partial",
        old="self.partial_count[:n, 0, 0] = 1 + cut_B.int()",
        new="self.partial_count[:n, 0, 0] = torch.maximum(1 + cut_B.int(), self.partial_count[:n, 0, 0])",
    ),
    Planted(
        "7.3", "stale-count", note="counts on", old="self.full_count[:n, 0, 0] =", new="self.full_count[:n, 0, 0] +="
    ),
    Planted(
        "7.3",
        "first-call-stays",
        old=PAGES,
        new="if not hasattr(self, '_pages'):\n"
        "            self._pages = self.table.page_table[slot_B]\n"
        "        page_BJ = self._pages",
    ),
    Planted(
        "7.3",
        "first-call-stays",
        note="positions",
        old=POSITION,
        new="self.__dict__.setdefault('_position', self.state.position_B[:n].clone())\n        page_BJ",
    ),
    Planted(
        "7.3",
        "first-call-stays",
        note="all of it",
        old="        page_size, columns",
        new="        if getattr(self, '_done', False):\n            return\n"
        "        self._done = True\n        page_size, columns",
    ),
    Planted(
        "7.3",
        "baked-length",
        old=POSITION,
        new="torch.tensor(self.state.position_B[:n].tolist(), device=self.state.slot_B.device)\n        page_BJ",
    ),
    Planted(
        "7.3",
        "baked-length",
        note="loop",
        code=FILL
        + """
    size, table = self.table.page_size, self.table.page_table
    for row in range(n):
        slot, last = int(self.state.slot_B[row]), int(self.state.position_B[row])
        first = max(0, last - self.window + 1) if self.window else 0
        partial, full = [last // size], list(range(-(-first // size), last // size))
        if first % size and first // size < last // size:
            partial.append(first // size)
        for count, pages, wanted in (
            (self.partial_count, self.partial_pages, partial), (self.full_count, self.full_pages, full)
        ):
            count[row] = len(wanted)
            pages[row, 0, 0, : len(wanted)] = table[slot, wanted] if wanted else 0
""",
    ),
    Planted(
        "7.3",
        "baked-length",
        note="only as many columns as are listed",
        old=FULL,
        new="used = (last_page_B - first_full_B).max().item()\n        if used > 0:\n"
        "            self.full_pages[:n, 0, 0, :used] = full_BJ[:, :used]",
    ),
    Planted(
        "7.3",
        "baked-length",
        note="truth value",
        old="        if self.window is None:",
        new="        if self.window is None or not (first_full_B > 0).any():",
    ),
    Planted(
        "7.3",
        "wrong-device",
        code=bodies(PLAIN).replace("torch.arange(columns, device=slot.device)", "torch.arange(columns)"),
    ),
    Planted("7.3", "", note="one position less in a window", old="self.window + 1", new="self.window + 2"),
    Planted("7.3", "", note="a page less", old=FULL_COUNT, new="(last_page_B - first_full_B - 1).clamp(min=0).int()"),
    Planted(
        "7.3", "", note="true division", old="position_B // page_size, first_B", new="position_B / page_size, first_B"
    ),
    Planted("7.3", "", note="the sink", old=PARTIAL, new=PARTIAL + "\n        self.partial_pages[:n, 0, 0, 0] = 0"),
    Planted("7.3", "", note="gives it back", old=FULL, new=FULL + "\n        return self.block_mask(n)"),
]

COMPILE = "\ndef compile_layers(model: nn.Module, layers: list[LayerSpec]) -> None:\n"
LOOP = "for layer in decoder_layers(model, layers):"
CALL = "layer.compile(fullgraph=True, dynamic=False)"
OPTIONS = "fullgraph=True, dynamic=False"

COMPILE_MISTAKES = [
    Planted("7.4", "dynamic-left-open", old=", dynamic=False", new=""),
    Planted("7.4", "dynamic-left-open", note="told so", old=CALL, new=CALL.replace("False", "True")),
    Planted("7.4", "breaks-in-silence", old=CALL, new="layer.compile(dynamic=False)"),
    Planted("7.4", "whole-model", code=COMPILE + f"    model.compile({OPTIONS})\n"),
    Planted("7.4", "whole-model", note="too", old=LOOP, new=f"model.compile({OPTIONS})\n    {LOOP}"),
    Planted(
        "7.4", "attention-only", code=COMPILE + f"    for layer in layers:\n        layer.module.compile({OPTIONS})\n"
    ),
    Planted("7.4", "first-only", old=LOOP, new="for layer in decoder_layers(model, layers)[:1]:"),
    Planted("7.4", "first-only", note="the last", old=f"    {CALL}", new=f"    pass\n    if layers:\n        {CALL}"),
    Planted(
        "7.4",
        "every-block",
        code=COMPILE
        + f"""
    for name in {{layer.name.rsplit(".", 2)[0] for layer in layers}}:
        for block in model.get_submodule(name).children():
            block.compile({OPTIONS})
""",
    ),
    Planted(
        "7.4",
        "every-block",
        note="all modules",
        code=COMPILE + f"    for layer in list(model.modules())[1:]:\n        layer.compile({OPTIONS})\n",
    ),
    Planted(
        "7.4",
        "module-replaced",
        code=COMPILE
        + f"""
    import torch

    for layer in layers:
        name = layer.name.rpartition(".")[0]
        model.set_submodule(name, torch.compile(model.get_submodule(name), {OPTIONS}))
""",
    ),
    Planted("7.4", "result-lost", old=CALL, new=f"import torch\n\n        torch.compile(layer, {OPTIONS})"),
    Planted(
        "7.4",
        "result-lost",
        note="rebinds the name",
        old=CALL,
        new=f"import torch\n\n        layer = torch.compile(layer, {OPTIONS})",
    ),
    Planted("7.4", "result-lost", note="never called", old=CALL, new="layer.compile"),
    Planted("7.4", "one-family", old=LOOP, new="for layer in model.model.layers[: len(layers)]:"),
    Planted(
        "7.4",
        "forward-replaced",
        old=CALL,
        new=f"import torch\n\n        layer.forward = torch.compile(layer.forward, {OPTIONS})",
    ),
    Planted("7.4", "", note="all but the first", old=LOOP, new="for layer in decoder_layers(model, layers)[1:]:"),
    Planted("7.4", "", note="the MLP", old=CALL, new=f"layer.mlp.compile({OPTIONS})"),
    Planted("7.4", "", note="every second", old=LOOP, new="for layer in decoder_layers(model, layers)[::2]:"),
    Planted("7.4", "", note="eager for both", old=CALL, new="layer.compile(fullgraph=False, dynamic=True)"),
    Planted(
        "7.4",
        "",
        note="the list",
        old=f"    {LOOP}\n        {CALL}",
        new=f"    decoder_layers(model, layers).compile({OPTIONS})",
    ),
]

MISTAKES = [*SIZE_MISTAKES, *ROW_MISTAKES, *FILL_MISTAKES, *COMPILE_MISTAKES]
