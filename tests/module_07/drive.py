"""Runs the cases of module 07 on the learner's buffers, without a GPU and without a compiler.

What a graph recorded is played by two stand-ins: views of the buffers, made before the learner's code runs, which see only
what is written to the old addresses; and `Recording`, which notes every operation and carries them out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import flexnano.compile
from course.grading.driving import NotUsable, instance, tensor
from flexnano.cuda_graphs import DecodeMask, DecodeState, batch_buckets
from flexnano.page_table import PageTable

Case = dict[str, Any]
CPU = torch.device("cpu")
UNWRITTEN = -7  # what the lists hold where nothing was written

# ---------------------------------------------------------------------------------------------------- 7.1 batch_buckets


def sizes(case: Case) -> list[int]:
    found = instance(batch_buckets(case["most"]), (list, tuple), "the result of batch_buckets")
    return [int(instance(one, int, "a size")) for one in found]


# ---------------------------------------------------------------------------------------------------- 7.2 set_rows


def replayed_rows(case: Case) -> dict[str, Any]:
    """What a graph reads that was recorded before the first step, and what `slot_B` shows, after each step."""
    state = DecodeState(case["most"], CPU)
    recorded = state.slot_B[:]
    state.token_S.copy_(torch.arange(100, 101 + case["most"]))
    state.position_S.copy_(torch.arange(20, 21 + case["most"]))
    newest = state.token_S.clone(), state.position_S.clone()
    answer: dict[str, Any] = {"graph": [], "slot_B": []}
    passed: list[int] = []
    for slots in case["steps"]:
        if case["how"] == "one list":
            passed[:] = slots
        kinds: dict[str, Callable[[], Any]] = {
            "lists": lambda slots=slots: list(slots),  # type: ignore[misc]
            "tuples": lambda slots=slots: tuple(slots),  # type: ignore[misc]
            "ranges": lambda slots=slots: range(slots[0], slots[-1] + 1) if slots else range(0),  # type: ignore[misc]
            "one list": lambda: passed,
        }
        state.set_rows(kinds[case["how"]]())
        answer["graph"].append(recorded.tolist())
        answer["slot_B"].append(tensor(state.slot_B, "slot_B", 1, "int").tolist())
    kept = torch.equal(state.token_S, newest[0]) and torch.equal(state.position_S, newest[1])
    return answer | {"tokens": "kept" if kept else "changed"}


other_sequences = one_list = replayed_rows

# ---------------------------------------------------------------------------------------------------- 7.3 fill

LISTS = ("partial_count", "partial_pages", "full_count", "full_pages")


class Buffers:
    """A DecodeMask over the table of a case, and views of its lists as a graph would have recorded them."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.case = case
        self.table = PageTable(case["pages"], case["size"], case["slots"], case["columns"] * case["size"], device)
        self.state = DecodeState(case["slots"], torch.device(device))
        self.table.slot_of_row = self.state.slot_B
        state = self.state
        self.mask = DecodeMask(self.table, state, lambda b, h, q, kv: kv <= state.position_B[b], case["window"])
        self.n = len(case["batch"])
        for name in LISTS:
            getattr(self.mask, name)[self.n if name.endswith("count") else 0 :].fill_(UNWRITTEN)
        self.views = {name: getattr(self.mask, name)[:] for name in LISTS}

    def put(self, case: Case) -> None:
        """Table, slots and positions as in the case, changed in place."""
        table, state = self.table, self.state
        table.page_table.zero_()
        for slot, pages in case["rows"].items():
            table.page_table[int(slot), : len(pages)] = torch.tensor(pages, dtype=torch.int32)
            table.logical_of_page[pages] = torch.arange(len(pages), dtype=torch.int32)
            table.owned[int(slot)] = list(pages)
            table.capacity[int(slot)] = len(pages) * table.page_size
        state.slot_B.zero_()
        state.slot_B[: self.n] = torch.tensor(case["batch"])
        state.position_B.zero_()
        state.position_B[: self.n] = torch.tensor(case["position"])

    def read(self) -> dict[str, Any]:
        """What the recorded views show."""
        view, n = self.views, self.n
        used = max(2, self.case["columns"])
        return {
            "rows": [self.row(row, slot) for row, slot in enumerate(self.case["batch"])],
            "behind_n": sum(
                any((view[name][row] != UNWRITTEN).any() for name in LISTS) for row in range(n, self.case["slots"])
            ),
            "unused_columns": sorted(
                {int(at) for name in LISTS[1::2] for at in (view[name][:n, 0, 0] != UNWRITTEN).nonzero()[:, 1]}
                - set(range(used))
            ),
            "moved": [name for name in LISTS if self.has_moved(name)],
        }

    def has_moved(self, name: str) -> bool:
        now, then = tensor(getattr(self.mask, name), name), self.views[name]
        return now.shape != then.shape or now.data_ptr() != then.data_ptr()

    def row(self, row: int, slot: int) -> dict[str, Any]:
        listed = {}
        for kind in ("partial", "full"):
            count, pages = int(self.views[f"{kind}_count"][row, 0, 0]), self.views[f"{kind}_pages"][row, 0, 0]
            if not 0 <= count <= len(pages):
                raise NotUsable(f"{kind}_count of row {row} is {count}; the list has room for {len(pages)}")
            listed[kind] = sorted(pages[:count].tolist())
        if slot:
            return listed
        wrong = sorted({page for page in listed["partial"] + listed["full"] if not 0 <= page <= self.case["pages"]})
        return {"padding": wrong}


def fill(mask: DecodeMask, n: int) -> None:
    if (result := mask.fill(n)) is not None:
        raise NotUsable(f"fill gave back a {type(result).__name__}; it writes and gives nothing back")


def listed(case: Case) -> dict[str, Any]:
    buffers = Buffers(case)
    buffers.put(case)
    fill(buffers.mask, buffers.n)
    return buffers.read()


def again(case: Case) -> dict[str, Any]:
    """Filled for the step before, then for this one."""
    buffers = Buffers(case)
    for step in (case["earlier"], case):
        buffers.put(step)
        fill(buffers.mask, buffers.n)
    return {"rows": buffers.read()["rows"]}


def replayed(case: Case) -> dict[str, Any]:
    """Recorded at the step before, replayed at this one; and which operations would send a number to the host."""
    buffers, recording = Buffers(case), Recording()
    buffers.put(case["earlier"])
    with recording.running():
        fill(buffers.mask, buffers.n)
    buffers.put(case)
    try:
        recording.replay()
        rows: Any = buffers.read()["rows"]
    except Exception:  # with other numbers the same operations need not fit together
        rows = None
    return {"rows": rows, "host": sorted(set(recording.to_host))}


def elsewhere(case: Case) -> str:
    """With every buffer on a device that is not the default one."""
    buffers = Buffers(case, device="meta")
    fill(buffers.mask, buffers.n)
    return "runs"


# What needs a number on the host, for itself or for the size of its result.
WAITING = {
    "_local_scalar_dense": "a number out of a tensor (item, int, bool, an index, a slice)",
    "nonzero": "the size of nonzero",
    "_unique2": "the size of unique",
    "unique_consecutive": "the size of unique_consecutive",
    "masked_select": "the size of masked_select",
    "repeat_interleave": "the size of repeat_interleave",
    "equal": "torch.equal",
    "is_nonzero": "a truth value",
}
WHOLE = ("tolist", "numpy", "__array__", "cpu")


class Recording:
    """Operations with the tensors that they had: replayed, they read and write the same memory, whatever it holds by then."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.to_host: list[str] = []

    def running(self) -> Any:
        recording = self

        class Operations(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                kwargs = kwargs or {}
                result = func(*args, **kwargs)
                recording.operations.append((func, args, kwargs, result))
                name = func.overloadpacket.__name__
                by_mask = name == "index" and any(
                    one.dtype == torch.bool for one in tree_leaves(args[1]) if one is not None
                )
                if by_mask:
                    recording.to_host.append("the size of a selection by a mask")
                elif name in WAITING and kwargs.get("output_size") is None:
                    recording.to_host.append(WAITING[name])
                return result

        class Methods(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if getattr(func, "__name__", "") in WHOLE:
                    recording.to_host.append("a whole tensor (tolist, numpy, cpu)")
                return func(*args, **(kwargs or {}))

        @contextmanager
        def both() -> Iterator[None]:
            with Methods(), Operations():
                yield

        return both()

    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            inputs = {
                one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)
            }
            now = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(now), strict=True):
                # A view, or what was written in place, is where it was.
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in inputs:
                    if old.shape != new.shape:
                        raise NotUsable(f"{func} gives another shape this time")
                    old.copy_(new)


# ---------------------------------------------------------------------------------------------------- 7.4 compile_layers


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(2, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.proj(hidden)


class Block(nn.Module):
    """A decoder layer: norm, attention under the name that its family gives it, MLP."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.name = attention
        self.norm, self.mlp = nn.LayerNorm(2), nn.Linear(2, 2)
        if attention:
            self.add_module(attention, Attention())

    def forward(self, hidden: Tensor) -> Tensor:
        if self.name:
            hidden = hidden + self.get_submodule(self.name)(self.norm(hidden))
        return hidden + self.mlp(hidden)


class Model(nn.Module):
    """Blocks at the path where a family has them, between an embedding and a head."""

    def __init__(self, path: str, attention: str, blocks: str) -> None:
        super().__init__()
        self.path = path
        self.embed, self.head = nn.Linear(2, 2), nn.Linear(2, 3)
        parent: nn.Module = self
        *folders, last = path.split(".")
        for name in folders:
            inner = nn.Module()
            parent.add_module(name, inner)
            parent = inner
        parent.add_module(last, nn.ModuleList(Block(attention if kind == "a" else "") for kind in blocks))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.embed(hidden)
        for block in self.get_submodule(self.path):  # type: ignore[attr-defined]
            hidden = block(hidden)
        return self.head(hidden)


def layers_of(model: Model, case: Case) -> list[SimpleNamespace]:
    """What the probe says: a LayerSpec for each attention layer, in order."""
    names = [f"{case['path']}.{i}.{case['attention']}" for i, kind in enumerate(case["blocks"]) if kind == "a"]
    return [
        SimpleNamespace(
            module=model.get_submodule(name),
            name=name,
            layer_idx=index,
            q_heads=1,
            kv_heads=1,
            head_dim=2,
            value_head_dim=2,
            scale=1.0,
            window=None,
            softcap=None,
        )
        for index, name in enumerate(names)
    ]


class InPlaceOf(nn.Module):
    """What torch.compile makes of a module: another one, which calls it."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self._orig_mod, self._call = module, call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


class Spy:
    """Takes the place of torch.compile: what it gives calls the function as it is, and notes that."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.before = model, dict(model.named_modules())
        self.called: list[dict[str, Any]] = []
        self.torch_compile = torch.compile

    def __call__(self, model: Any = None, **options: Any) -> Any:
        if model is None:  # as a decorator
            return lambda one: self(one, **options)
        if options.get("disable"):
            return model
        owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
        path = next((name or "the model" for name, one in self.before.items() if one is owner), "a function")

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called.append(
                {"module": path, "fullgraph": options.get("fullgraph", False), "dynamic": options.get("dynamic")}
            )
            return model(*args, **kwargs)

        return InPlaceOf(model, call) if isinstance(model, nn.Module) else call

    def __enter__(self) -> Spy:
        self.put(self.torch_compile, self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.put(self, self.torch_compile)

    def put(self, old: Any, new: Any) -> None:
        torch.compile = new
        for name, value in list(vars(flexnano.compile).items()):
            if value is old:  # from torch import compile
                setattr(flexnano.compile, name, new)

    def run(self) -> list[dict[str, Any]]:
        """What a step of the model calls compiled, in order."""
        self.called.clear()
        with torch.no_grad():
            self.model(torch.ones(1, 2))
        return [dict(one) for one in self.called]

    def in_place(self) -> bool:
        """Whether every module is the object that it was, under its name."""
        after = dict(self.model.named_modules())
        return list(after) == list(self.before) and all(after[name] is one for name, one in self.before.items())


def compiled(case: Case) -> dict[str, Any]:
    """The compiled calls of a step, and whether all modules are where they were."""
    torch.manual_seed(0)
    model = Model(case["path"], case["attention"], case["blocks"])
    with Spy(model) as spy:
        flexnano.compile.compile_layers(model, layers_of(model, case))  # type: ignore[arg-type]
        return {"called": spy.run(), "in_place": spy.in_place()}


no_layers = compiled


def taken_back(case: Case) -> list[str]:
    """What is still compiled after `uncompile_layers`."""
    model = Model(case["path"], case["attention"], case["blocks"])
    layers: Any = layers_of(model, case)
    with Spy(model) as spy:
        flexnano.compile.compile_layers(model, layers)
        flexnano.compile.uncompile_layers(model, layers)
        return [one["module"] for one in spy.run()]
