"""Runs the cases of module 03 on the learner's page table.

Pages and slots may be handed out in any order.  So that right answers are equal whatever the order, pages are called 1, 2,
3 … in the order in which they first appear in the table, and slots a, b, c … in the order in which they were allocated.
With the free lists as handed out, those are also the numbers that the learner sees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask

from course.grading.driving import NotUsable, function, instance, tensor
from flexnano.page_table import PageTable

LETTERS = "abcdefgh"
EMPTY = -1.0  # what the pool holds where nothing was written
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Names:
    """Calls pages 1, 2, 3 … in the order in which they appear in the table; 0 is no page."""

    def __init__(self, table: PageTable) -> None:
        self.table, self.known = table, dict[int, int]()

    def row(self, slot: int) -> list[int]:
        """The slot's whole row of the table."""
        return self.pages(tensor(self.table.page_table, "page_table", ndim=2)[slot].tolist())

    def pages(self, pages: Iterable[Any]) -> list[int]:
        return [self.known.setdefault(int(page), len(self.known) + 1) if int(page) > 0 else 0 for page in pages]


def logical(table: PageTable, pages: Iterable[int]) -> list[int | None]:
    """Where pages lie in their sequence; None for a number that is no page."""
    return [int(table.logical_of_page[page]) if 0 <= page <= table.n_pages else None for page in pages]


def allocated(table: PageTable, n: int) -> list[int]:
    return [instance(table.allocate(), int, "the result of allocate") for _ in range(n)]


def reserved(table: PageTable, slot: int, tokens: int) -> bool:
    return bool(instance(table.reserve(slot, tokens), bool, "the result of reserve"))


def state(table: PageTable, slots: Sequence[int]) -> Any:
    """All that may not change when nothing changes."""
    return (
        table.pages_available,
        [table.capacity[slot] for slot in slots],
        [list(table.owned[slot]) for slot in slots],
        table.page_table[list(slots)].tolist(),
    )


# ---------------------------------------------------------------------------------------------------- 3.1 allocate


def hands_out(case: dict[str, Any]) -> list[int]:
    return allocated(PageTable(4, 4, case["slots"]), case["slots"])


def owns_nothing(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(4, 4, case["slots"])
    slots = allocated(table, case["slots"])
    return {
        "left": table.pages_available,
        "capacity": [table.capacity[slot] for slot in slots],
        "owned": [len(table.owned[slot]) for slot in slots],
    }


def full(case: dict[str, Any]) -> Any:
    table = PageTable(4, 4, case["slots"])
    allocated(table, case["slots"])
    slot = table.allocate()
    return slot if slot is None or isinstance(slot, int) else repr(slot)


def given_again(case: dict[str, Any]) -> list[list[str]]:
    """Fill every slot, then erase some and allocate as many, again and again: who was handed out each time."""
    table = PageTable(4, 4, case["slots"])
    names = dict(zip(allocated(table, case["slots"]), LETTERS, strict=False))
    slots = {name: slot for slot, name in names.items()}
    answers = []
    for group in case["erased"]:
        for who in group:
            with contextlib.suppress(ValueError):  # one slot was given to two: the answer shows that
                table.erase(slots[LETTERS[who]])
        answers.append(sorted(names.get(slot, str(slot)) for slot in allocated(table, len(group))))
    return answers


# ---------------------------------------------------------------------------------------------------- 3.2 reserve


def growth(case: dict[str, Any]) -> dict[str, Any]:
    size = case["size"]
    table = PageTable(case["pool"], size, 3, max_seq_length=case["columns"] * size)
    names, (first, slot, last) = Names(table), allocated(table, 3)
    for who, tokens in ((first, case["before"]), (slot, case["holds"]), (last, case["after"])):
        if tokens:
            reserved(table, who, tokens)
        names.row(who)
    left = table.pages_available
    result = reserved(table, slot, case["wants"])
    return {
        "result": result,
        "takes": left - table.pages_available,
        "row": names.row(slot),
        "left": table.pages_available,
        "capacity": int(table.capacity[slot]),
    }


room = growth


def books(case: dict[str, Any]) -> dict[str, Any]:
    size = case["size"]
    table = PageTable(12, size, 2)
    names, (slot, other) = Names(table), allocated(table, 2)
    for asked, tokens in enumerate(case["asks"], start=1):
        reserved(table, slot, tokens)
        names.row(slot)
        reserved(table, other, asked * size)  # so that the slot's pages are not neighbours
        names.row(other)
    pages = [page for page in table.page_table[slot].tolist() if page > 0]
    return {"row": names.pages(pages), "owned": names.pages(table.owned[slot]), "logical": logical(table, pages)}


def nobody_s_slot(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(6, 4, 4)
    slots = allocated(table, 2)
    for slot in slots:
        reserved(table, slot, 5)
    held, erased = slots
    table.erase(erased)
    free = next(slot for slot in range(1, 5) if slot not in slots)
    slot = {"sink": 0, "free": free, "erased": erased, "beyond": 99, "negative": -1}[case["which"]]
    return refused(table, lambda: table.reserve(slot, 4), [0, held, erased, free])


def refused(table: PageTable, act: Callable[[], Any], slots: Sequence[int]) -> dict[str, Any]:
    """Whether something raises ValueError, and whether it left everything as it was."""
    before, left = state(table, slots), table.pages_available
    result, error = None, False
    try:
        result = act()
    except ValueError:
        error = True
    return {
        "error": error,
        "result": None if error else str(result),
        "left": table.pages_available,
        "were": left,
        "unchanged": state(table, slots) == before,
    }


def too_long(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(case["pool"], case["size"], 2, max_seq_length=case["longest"])
    slots = allocated(table, 2)
    if case["holds"]:
        reserved(table, slots[0], case["holds"])
    return refused(table, lambda: table.reserve(slots[0], case["wants"]), slots)


too_short = too_long


def lives(case: dict[str, Any]) -> dict[str, Any]:
    """Many sequences come, grow and go: who owns what at the end."""
    table = PageTable(case["pool"], case["size"], 3)
    held: dict[str, int] = {}
    letters, results = iter("abcdefghijklmnopqrstuvwxyz"), []
    for action, which, tokens in case["ops"]:
        who = list(held)[which % len(held)] if held else None
        if action == "allocate" and len(held) < 3:
            held[next(letters)] = allocated(table, 1)[0]
        elif action == "reserve" and who is not None:
            results.append(reserved(table, held[who], tokens))
        elif action == "erase" and who is not None:
            table.erase(held.pop(who))
    names = Names(table)
    rows = {who: table.page_table[slot, : len(table.owned[slot])].tolist() for who, slot in held.items()}
    return {
        "results": results,
        "slots": len(set(held.values())),
        "rows": {who: names.pages(row) for who, row in rows.items()},
        "owned": {who: names.pages(table.owned[slot]) for who, slot in held.items()},
        "logical": {who: logical(table, row) for who, row in rows.items()},
        "capacity": {who: int(table.capacity[slot]) for who, slot in held.items()},
        "left": table.pages_available,
    }


lives_of_reserve = lives_of_erase = lives


# ---------------------------------------------------------------------------------------------------- 3.3 pages_missing


def give(table: PageTable, slot: int, n: int) -> None:
    """Let a slot own `n` pages, without calling what is graded."""
    pages = table.take(n)
    table.owned[slot] = list(pages)
    table.capacity[slot] = n * table.page_size
    table.page_table[slot, :n] = torch.tensor(pages, dtype=table.page_table.dtype)
    table.logical_of_page[pages] = torch.arange(n, dtype=table.logical_of_page.dtype)


def missing(case: dict[str, Any]) -> int:
    table = PageTable(12, case["size"], 2)
    slot = 0
    if case["owns"] is not None:
        slot, _ = allocated(table, 2)
        if case["owns"]:
            give(table, slot, case["owns"])
    before = state(table, range(3))
    pages = instance(table.pages_missing(slot, case["wants"]), int, "the result of pages_missing")
    if state(table, range(3)) != before:
        raise NotUsable("the table is not as it was: pages_missing is a question, it takes nothing")
    return int(pages)


# ---------------------------------------------------------------------------------------------------- 3.4 erase


def gives_back(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(case["pool"], 4, 2)
    a, b = allocated(table, 2)
    for slot, pages in ((a, case["a"]), (b, case["b"])):
        if pages:
            reserved(table, slot, 4 * pages)
    kept = (table.page_table[b, : case["b"]].tolist(), list(table.owned[b]), table.capacity[b])
    names = {a: "a", b: "b"}
    result: Any = table.erase(a)  # type: ignore[func-returns-value]
    if result is not None:
        raise NotUsable(f"erase gave back {result!r}; it is promised to give back nothing")
    return {
        "left": table.pages_available,
        "capacity": int(table.capacity[a]),
        "owned": len(table.owned[a]),
        "slots": [names.get(slot, str(slot)) for slot in until_full(table)],
        "kept": kept == (table.page_table[b, : case["b"]].tolist(), list(table.owned[b]), table.capacity[b]),
    }


def until_full(table: PageTable) -> list[int]:
    """Every slot that can still be had; one more than there are shows that a slot is given twice."""
    slots: list[int] = []
    with contextlib.suppress(RuntimeError, IndexError):
        while len(slots) <= table.max_batch_size:
            slots.append(table.allocate())
    return slots


def everything(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return (q >= 0) & (kv >= 0)


def reads_nothing_foreign(case: dict[str, Any]) -> dict[str, Any]:
    """a holds pages and is erased; b takes them; a is allocated again."""
    table = PageTable(case["pool"], 4, 2)
    a, b = allocated(table, 2)
    reserved(table, a, case["a"] * 4)
    table.erase(a)
    reserved(table, b, case["b"] * 4)
    (again,) = allocated(table, 1)
    if case["again"]:
        reserved(table, again, case["again"] * 4)
    table.slot_of_row[:2] = torch.tensor([again, b])
    asked = tensor(mask_over(table, table.physical_mask_mod(everything), 2, 1, 1), "the mask")
    pages = asked[:, 0, 0].unflatten(-1, (-1, 4)).any(-1)
    read = [{page for page in range(case["pool"] + 1) if pages[row, page]} for row in (0, 1)]
    return {
        who: {"own": len(read[row] & set(table.owned[slot])), "foreign": len(read[row] - set(table.owned[slot]))}
        for who, row, slot in (("a", 0, again), ("b", 1, b))
    }


def twice(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(8, 4, case["slots"])
    names = dict(zip(allocated(table, case["slots"]), LETTERS, strict=False))
    slots = list(names)
    for slot in slots:
        if case["pages"]:
            reserved(table, slot, 4 * case["pages"])
    for _ in range(case["times"] - 1):
        with contextlib.suppress(ValueError):
            table.erase(slots[0])
    answer = {"error": False}
    try:
        table.erase(slots[0])
    except ValueError:
        answer["error"] = True
    given = sorted(names.get(slot, str(slot)) for slot in until_full(table))
    return answer | {"slots": given, "left": table.pages_available}


def erases_nobody(case: dict[str, Any]) -> dict[str, Any]:
    table = PageTable(6, 4, 3)
    (held,) = allocated(table, 1)
    reserved(table, held, 8)
    free = next(slot for slot in range(1, 4) if slot != held)
    slot = {"sink": 0, "free": free, "beyond": 99, "negative": -1}[case["which"]]
    return refused(table, lambda: table.erase(slot), [0, held, free])


# ---------------------------------------------------------------------------------------------------- 3.5 address


def table_with(case: dict[str, Any]) -> PageTable:
    """A table whose rows are those of the case, as they are after `reserve`."""
    table = PageTable(case["pages"], case["size"], case["slots"], max_seq_length=case["columns"] * case["size"])
    write_rows(table, case["rows"])
    return table


def write_rows(table: PageTable, rows: dict[str, list[int]]) -> None:
    for slot, pages in rows.items():
        if pages:
            table.page_table[int(slot), : len(pages)] = torch.tensor(pages, dtype=table.page_table.dtype)
            table.logical_of_page[pages] = torch.arange(len(pages), dtype=table.logical_of_page.dtype)
            table.owned[int(slot)] = list(pages)
            table.capacity[int(slot)] = len(pages) * table.page_size


def places(case: dict[str, Any]) -> Any:
    answer = ask_address(case)
    return answer.tolist()


def ask_address(case: dict[str, Any]) -> Tensor:
    kind = getattr(torch, case.get("dtype", "int64"))
    asked = torch.tensor(case["slot"], dtype=kind), torch.tensor(case["position"], dtype=kind)
    return tensor(table_with(case).address(*asked), "the result of address", kind="int")


padding = places


def shape_and_dtype(case: dict[str, Any]) -> dict[str, Any]:
    answer = ask_address(case)
    return {"addresses": answer.tolist(), "dtype": str(answer.dtype).removeprefix("torch.")}


# ---------------------------------------------------------------------------------------------------- 3.6, 3.7 writing


def code(shape: tuple[int, ...]) -> Tensor:
    """Numbers that say which batch row, head, token and component they come from."""
    return torch.arange(1.0, 1.0 + torch.Size(shape).numel()).view(shape)


def pools(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    shape = (1, case["heads"], (case["pages"] + 1) * case["size"], 2)
    return torch.full(shape, EMPTY), torch.full(shape, EMPTY)


def pools_after(case: dict[str, Any], k_cache: Tensor, v_cache: Tensor) -> dict[str, Any]:
    sink = k_cache[0, :, : case["size"]]
    return {"k": k_cache[0].tolist(), "v": v_cache[0].tolist(), "sink": bool((sink != EMPTY).any())}


def written(case: dict[str, Any]) -> dict[str, Any]:
    table, (k_cache, v_cache) = table_with(case), pools(case)
    positions = torch.tensor(case["positions"])
    k = code((len(positions), case["heads"], positions.shape[1], 2))
    table.assign(torch.tensor(case["batch"]), positions, k, -10 * k, k_cache, v_cache)
    return pools_after(case, k_cache, v_cache)


def written_packed(case: dict[str, Any]) -> dict[str, Any]:
    table, (k_cache, v_cache) = table_with(case), pools(case)
    batch, positions = torch.tensor([case["batch"]]), torch.tensor([case["positions"]])
    k = code((1, case["heads"], positions.shape[1], 2))
    table.assign_prefill_no_paging(batch, positions, k, -10 * k, k_cache, v_cache)
    return pools_after(case, k_cache, v_cache)


padded, padded_pack = written, written_packed


# ---------------------------------------------------------------------------------------------------- 3.8 masks


def logical_mask(case: dict[str, Any]) -> MaskMod:
    """A mask over positions, by its name in the case."""
    lengths = torch.tensor(case.get("lengths", [0]))
    masks: dict[str, MaskMod] = {
        "everything": everything,
        "causal": lambda b, h, q, kv: kv <= q,
        "lengths": lambda b, h, q, kv: (kv < lengths[b]) & (q >= 0),
        "heads": lambda b, h, q, kv: (kv % 2 == h) & (q >= 0),
        "window": lambda b, h, q, kv: (kv <= q) & (q - kv < 3),
    }
    return masks[case["mask"]]


def mask_over(table: PageTable, mask_mod: Any, rows: int, heads: int, queries: int) -> Tensor:
    """The mask over every address, asked with tensors that broadcast."""
    n_keys = (table.n_pages + 1) * table.page_size
    asked = function(mask_mod, "the mask_mod")(
        torch.arange(rows)[:, None, None, None],
        torch.arange(heads)[:, None, None],
        torch.arange(queries)[:, None],
        torch.arange(n_keys),
    )
    return tensor(asked, "what the mask_mod gives", kind="bool").expand(rows, heads, queries, n_keys)


def one_by_one(table: PageTable, mask_mod: Any, rows: int, heads: int, queries: int) -> Tensor:
    """The same, asked as FlexAttention asks: one element at a time, under vmap."""
    n_keys = (table.n_pages + 1) * table.page_size
    asked = create_mask(function(mask_mod, "the mask_mod"), rows, heads, queries, n_keys, "cpu")
    return tensor(asked, "what the mask_mod gives", ndim=4, kind="bool")


def put_rows(table: PageTable, case: dict[str, Any]) -> None:
    """The table as the case says, changed in place: rows, what free pages are left with, and which slots the rows have."""
    table.page_table.zero_()
    write_rows(table, case["rows"])
    for page, place in case.get("stale", {}).items():
        table.logical_of_page[int(page)] = place
    table.slot_of_row[: len(case["batch"])] = torch.tensor(case["batch"])


def readable(case: dict[str, Any], ask: Callable[..., Tensor] = mask_over) -> list[list[list[list[bool]]]]:
    table = PageTable(case["pages"], case["size"], case["slots"], max_seq_length=case["columns"] * case["size"])
    put_rows(table, case)
    mask_mod = table.physical_mask_mod(logical_mask(case))
    return ask(table, mask_mod, len(case["batch"]), case["heads"], case["queries"]).tolist()


passes_on = readable


def asked_one_by_one(case: dict[str, Any]) -> list[list[list[list[bool]]]]:
    return readable(case, one_by_one)


def changed_later(case: dict[str, Any]) -> list[list[list[list[bool]]]]:
    """The mask is made first and the table changes afterwards."""
    table = PageTable(case["pages"], case["size"], case["slots"], max_seq_length=case["columns"] * case["size"])
    put_rows(table, case["earlier"])
    mask_mod = table.physical_mask_mod(logical_mask(case))
    put_rows(table, case)
    return mask_over(table, mask_mod, len(case["batch"]), case["heads"], case["queries"]).tolist()


# ---------------------------------------------------------------------------------------------------- 3.9 block masks


def logical_block_mask(case: dict[str, Any]) -> BlockMask:
    """The BlockMask of the case: lists[row][query block] = [partial blocks, full blocks]."""
    width, has_full = case["columns"], case["full"]

    def lists(which: int) -> tuple[Tensor, Tensor]:
        listed = [[block[which] for block in row] for row in case["lists"]]
        # Behind the counts stand the blocks that are not listed, as torch leaves them there.
        filled = [[pages + [p for p in range(width) if p not in pages] for pages in row] for row in listed]
        counts = torch.tensor([[[len(pages) for pages in row]] for row in listed], dtype=torch.int32)
        return counts, torch.tensor([[row] for row in filled], dtype=torch.int32)

    full_counts, full_lists = lists(1) if has_full else (None, None)
    counts, partial = lists(0)
    return BlockMask.from_kv_blocks(
        counts,
        partial,
        full_counts,
        full_lists,
        BLOCK_SIZE=(case["query_block"], case.get("key_block", case["size"])),
        mask_mod=logical_mask(case),
        seq_lengths=(case["queries"], width * case["size"]),
        compute_q_blocks=False,
    )


def converted(case: dict[str, Any]) -> tuple[PageTable, BlockMask]:
    table = PageTable(case["pages"], case["size"], case["slots"], max_seq_length=case["columns"] * case["size"])
    write_rows(table, case["rows"])
    for page, place in case.get("stale", {}).items():
        table.logical_of_page[int(page)] = place
    if "earlier" in case:  # another batch went before
        earlier = case | {"batch": case["earlier"]}
        table.convert_logical_block_mask(logical_block_mask(earlier), torch.tensor(case["earlier"]))
    answer = table.convert_logical_block_mask(logical_block_mask(case), torch.tensor(case["batch"]))
    return table, instance(answer, BlockMask, "the result of convert_logical_block_mask")


def indices(counts: Any, lists: Any, what: str, case: dict[str, Any]) -> list[list[tuple[list[int], list[int]]]]:
    """For each row and query block: what is listed, and what stands behind the count."""
    rows, blocks = len(case["batch"]), len(case["lists"][0])
    if counts is None or lists is None:
        return [[([], []) for _ in range(blocks)] for _ in range(rows)]
    counts, lists = tensor(counts, f"{what}_num_blocks", 3, "int"), tensor(lists, f"{what}_indices", 4, "int")
    for found, shape in ((counts, (rows, 1, blocks)), (lists, (rows, 1, blocks, lists.shape[-1]))):
        if tuple(found.shape) != shape:
            raise NotUsable(f"{what} lists have shape {list(found.shape)}, not {list(shape)}")
    return [
        [
            (
                lists[row, 0, block, : counts[row, 0, block]].tolist(),
                lists[row, 0, block, counts[row, 0, block] :].tolist(),
            )
            for block in range(blocks)
        ]
        for row in range(rows)
    ]


def listed(case: dict[str, Any]) -> list[list[dict[str, list[int]]]]:
    """Which pages are listed, sorted: the order within a list is free."""
    _, mask = converted(case)
    partial = indices(mask.kv_num_blocks, mask.kv_indices, "kv", case)
    whole = indices(mask.full_kv_num_blocks, mask.full_kv_indices, "full_kv", case)
    return [
        [{"partial": sorted(p[0]), "full": sorted(f[0])} for p, f in zip(*row, strict=True)]
        for row in zip(partial, whole, strict=True)
    ]


def form(case: dict[str, Any]) -> dict[str, Any]:
    """What else a kernel reads: widths, what stands behind the counts, lengths, block sizes."""
    table, mask = converted(case)
    behind = [
        page
        for counts, lists, what in (
            (mask.kv_num_blocks, mask.kv_indices, "kv"),
            (mask.full_kv_num_blocks, mask.full_kv_indices, "full_kv"),
        )
        for row in indices(counts, lists, what, case)
        for block in row
        for page in block[1]
    ]
    widths = {lists.shape[-1] for lists in (mask.kv_indices, mask.full_kv_indices) if lists is not None}
    wrong = sorted({page for page in behind if not 0 <= page <= table.n_pages})
    return {
        "width": sorted(widths),
        "behind": wrong,
        "keys": int(mask.seq_lengths[1]),
        "queries": int(mask.seq_lengths[0]),
        "blocks": [int(size) for size in mask.BLOCK_SIZE],
    }


def masked(case: dict[str, Any]) -> list[list[list[list[bool]]]]:
    table, mask = converted(case)
    return mask_over(table, mask.mask_mod, len(case["batch"]), 1, case["queries"]).tolist()


next_batch = masked


def attends(case: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Attention in the two ways in which it is computed: over the listed pages, and by the mask_mod alone."""
    table, mask = converted(case)
    size, n_keys = table.page_size, (table.n_pages + 1) * table.page_size
    allowed = mask_over(table, mask.mask_mod, len(case["batch"]), 1, case["queries"])[:, 0]
    partial = indices(mask.kv_num_blocks, mask.kv_indices, "kv", case)
    whole = indices(mask.full_kv_num_blocks, mask.full_kv_indices, "full_kv", case)
    key, value = torch.arange(n_keys) * 7 % 5 / 2, torch.arange(float(n_keys))

    def attention(addresses: list[int], query: float) -> float:
        if not addresses:
            return 0.0
        return float((key[addresses] * query).softmax(0) @ value[addresses])

    answers: list[list[dict[str, Any]]] = []
    for row in range(len(case["batch"])):
        answers.append([])
        for q in range(case["queries"]):
            block = q // case["query_block"]
            gathered = [
                page * size + place
                for page in partial[row][block][0]
                for place in range(size)
                if allowed[row, q, page * size + place]
            ]
            gathered += [page * size + place for page in whole[row][block][0] for place in range(size)]
            alone = allowed[row, q].nonzero().flatten().tolist()
            answers[-1].append(
                {
                    "reads": sorted(gathered),
                    "listed": attention(gathered, 0.5 + q),
                    "masked": attention(alone, 0.5 + q),
                }
            )
    return answers


def other_blocks(case: dict[str, Any]) -> Any:
    converted(case)
    return "a BlockMask"


other_rows = other_blocks
