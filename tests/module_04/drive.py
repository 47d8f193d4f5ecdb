"""Runs the cases of module 04 on the learner's cache."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from course.grading.driving import NotUsable, instance, tensor
from flexnano.kv_cache import PagedKVCache, attach_caches, kv_bytes_per_token, pages_for_budget
from flexnano.machine import Machine
from flexnano.page_table import PageTable
from flexnano.roofline import least_step_seconds

EMPTY = -1.0  # what the pool holds where nothing was written
LETTERS = "abcdefgh"

# ---------------------------------------------------------------------------------------------------- 4.1 update


def cache_of(case: dict[str, Any]) -> PagedKVCache:
    """A cache whose table has the rows of the case, as after `reserve`."""
    table = PageTable(case["pages"], case["size"], case["slots"], max_seq_length=case["columns"] * case["size"])
    for slot, pages in case["rows"].items():
        table.page_table[int(slot), : len(pages)] = torch.tensor(pages, dtype=table.page_table.dtype)
        table.logical_of_page[pages] = torch.arange(len(pages), dtype=table.logical_of_page.dtype)
        table.owned[int(slot)] = list(pages)
        table.capacity[int(slot)] = len(pages) * case["size"]
    cache = PagedKVCache(table, case["heads"], 2, case["value_size"], None, torch.float32, "cpu")
    cache.k_cache.fill_(EMPTY)
    cache.v_cache.fill_(EMPTY)
    return cache


def fresh(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """New keys and values; every number occurs once, so that it says where it comes from."""
    tokens = len(case["batch"])
    shape = (1, case["heads"], tokens) if case["packed"] else (tokens, case["heads"], 1)
    n = tokens * case["heads"]
    k = torch.arange(1.0, 2 * n + 1).view(*shape, 2)
    v = torch.arange(1001.0, 1001 + case["value_size"] * n).view(*shape, case["value_size"])
    return k, v


def updated(case: dict[str, Any]) -> tuple[PagedKVCache, Tensor, Tensor, Any]:
    cache, (k, v) = cache_of(case), fresh(case)
    batch, position = torch.tensor(case["batch"]), torch.tensor(case["position"])
    if case["packed"]:
        batch, position = batch[None], position[None]
    return cache, k, v, cache.update(position, k.clone(), v.clone(), batch)


def reads(case: dict[str, Any]) -> list[str]:
    """Which keys and values attention gets to read: those that were passed in, or the pool."""
    cache, k, v, result = updated(case)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise NotUsable(f"update gave back {kind_of(result)}; it is promised to give back keys and values")
    known = {
        "the new keys": k,
        "the new values": v,
        "the pool of keys": cache.k_cache,
        "the pool of values": cache.v_cache,
    }
    answer = []
    for part, what in zip(result, ("first", "second"), strict=True):
        found = tensor(part, f"the {what} result of update")
        names = [name for name, one in known.items() if one.shape == found.shape and torch.equal(one, found)]
        likely = [name for name in names if name.endswith("keys" if what == "first" else "values")]
        # Pools in which nothing was written are equal.
        answer.append([*likely, *names, f"something else, {list(found.shape)}"][0])
    return answer


def kind_of(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def stored(case: dict[str, Any]) -> dict[str, Any]:
    """What lies in the pool afterwards, cell by cell, by the names of the tokens."""
    cache, k, v, _ = updated(case)
    sink = cache.k_cache[0, :, : case["size"]]
    return {
        "keys": cells(case, cache.k_cache, {"": k, "v:": v}),
        "values": cells(case, cache.v_cache, {"": v, "k:": k}),
        "sink": bool((sink != EMPTY).any()),
    }


def cells(case: dict[str, Any], pool: Any, sources: dict[str, Tensor]) -> list[list[list[str]]]:
    """[head][page][place]: a0 is token 0 of sequence a, · nothing, a0/1 something of head 1."""
    names = {}
    for kind, source in sources.items():
        for head in range(case["heads"]):
            for token, name in enumerate(token_names(case)):
                vector = source[0, head, token] if case["packed"] else source[token, head, 0]
                names[head, tuple(vector.tolist())] = kind + name

    def cell(head: int, vector: tuple[float, ...]) -> str:
        if set(vector) == {EMPTY}:
            return "·"
        found = {of: name for (of, known), name in names.items() if known == vector}
        if head in found:
            return found[head]
        return next((f"{name}/{of}" for of, name in found.items()), "0" if set(vector) == {0.0} else "?")

    pool = tensor(pool, "the pool", ndim=4)
    return [
        [[cell(head, tuple(vector)) for vector in page] for page in pages.unflatten(0, (-1, case["size"])).tolist()]
        for head, pages in enumerate(pool[0])
    ]


def token_names(case: dict[str, Any]) -> list[str]:
    """a3: position 3 of the first sequence; p: padding."""
    slots = [slot for slot in dict.fromkeys(case["batch"]) if slot]
    letter = dict(zip(slots, LETTERS, strict=False))
    return [
        f"{letter[slot]}{position}" if slot else "p"
        for slot, position in zip(case["batch"], case["position"], strict=True)
    ]


# ---------------------------------------------------------------------------------------------------- layers


def layer_of(case: dict[str, Any], index: int, attention: type[torch.nn.Module]) -> SimpleNamespace:
    """What the probe says about a layer, with a module that has a stock model's configuration."""
    sizes = case["layers"][index]
    config = SimpleNamespace(
        hidden_size=case["hidden"],
        num_attention_heads=sizes["q"],
        num_key_value_heads=sizes["kv"],
        head_dim=sizes["k"],
        num_hidden_layers=len(case["layers"]),
    )
    module = attention()
    module.config, module.head_dim, module.layer_idx = config, sizes["k"], index  # type: ignore[assignment]
    module.num_key_value_groups = sizes["q"] // sizes["kv"]  # type: ignore[assignment]
    return SimpleNamespace(
        module=module,
        name=f"model.layers.{index}.self_attn",
        layer_idx=index,
        q_heads=sizes["q"],
        kv_heads=sizes["kv"],
        head_dim=sizes["k"],
        value_head_dim=sizes["v"],
        scale=sizes["k"] ** -0.5,
        window=sizes.get("window"),
        softcap=None,
    )


def layers_of(case: dict[str, Any]) -> list[SimpleNamespace]:
    attention = type("Attention", (torch.nn.Module,), {})  # as in a model, all layers have one class
    return [layer_of(case, index, attention) for index in range(len(case["layers"]))]


def once(layers: list[SimpleNamespace]) -> Iterator[SimpleNamespace]:
    """Can be gone through a single time."""
    yield from layers


# ---------------------------------------------------------------------------------------------------- 4.2, 4.3 bytes, pages


def bytes_per_token(case: dict[str, Any]) -> int:
    return ask_bytes(layers_of(case), case)


def any_iterable(case: dict[str, Any]) -> int:
    return ask_bytes(once(layers_of(case)), case)


def ask_bytes(layers: Any, case: dict[str, Any]) -> int:
    return int(
        instance(kv_bytes_per_token(layers, getattr(torch, case["dtype"])), int, "the result of kv_bytes_per_token")
    )


def pages(case: dict[str, Any]) -> int:
    found = pages_for_budget(case["free"], case["token"], case["size"], case["slots"], case["longest"])
    return int(instance(found, int, "the result of pages_for_budget"))


too_little = pages

# ---------------------------------------------------------------------------------------------------- 4.4 attach_caches


def tables_of(case: dict[str, Any]) -> dict[int | None, PageTable]:
    """A table for each window, each of another size."""
    windows = list(dict.fromkeys(layer.get("window") for layer in case["layers"]))
    return {
        window: PageTable(3 + index, 2, 4, device=case["device"])
        for index, window in enumerate(sorted(windows, key=lambda window: window or 0))
    }


def attached(case: dict[str, Any], layers: Any = None) -> tuple[list[SimpleNamespace], list[PagedKVCache], Any]:
    layers = layers_of(case)
    tables = tables_of(case)
    given: Any = once(layers) if case.get("once") else layers
    result = attach_caches(given, tables, getattr(torch, case["dtype"]))
    caches = list(instance(result, (list, tuple), "the result of attach_caches"))
    return layers, caches, tables


def cache_at(layer: SimpleNamespace) -> PagedKVCache:
    if not hasattr(layer.module, "kv_cache"):
        raise NotUsable(f"layer {layer.layer_idx}'s module has no kv_cache")
    return instance(layer.module.kv_cache, PagedKVCache, f"kv_cache of layer {layer.layer_idx}'s module")


def own_caches(case: dict[str, Any]) -> dict[str, Any]:
    """Write 1 into the cache of layer 0, 2 into that of layer 1 …, then read them all."""
    layers, caches, _ = attached(case)
    pools = [cache_at(layer).k_cache for layer in layers]
    for number, pool in enumerate(pools, start=1):
        pool.fill_(number)
    return {
        "read": [int(pool.flatten()[0]) for pool in pools],
        "returned": len(caches),
        "different": len({id(cache) for cache in caches}),
    }


from_an_iterator = own_caches


def in_order(case: dict[str, Any]) -> list[int | None]:
    """For each layer, which of the returned caches its module has."""
    layers, caches, _ = attached(case)
    return [next((i for i, cache in enumerate(caches) if cache is cache_at(layer)), None) for layer in layers]


def sizes(case: dict[str, Any]) -> list[dict[str, Any]]:
    layers, _, tables = attached(case)
    answer = []
    for layer in layers:
        cache = cache_at(layer)
        table = next((window for window, table in tables.items() if table is cache.page_table), "another table")
        answer.append(
            {
                "heads": cache.k_cache.shape[1],
                "key": cache.k_cache.shape[3],
                "value": cache.v_cache.shape[3],
                "window": cache.window,
                "table": table,
                "dtype": str(cache.k_cache.dtype).removeprefix("torch."),
                "device": str(cache.k_cache.device.type),
            }
        )
    return answer


def at_birth(case: dict[str, Any]) -> list[str]:
    """What the pools hold before anything is written.  Memory that nobody set reads as NaN here."""
    torch.set_deterministic_debug_mode("warn")  # fills what torch.empty gives
    try:
        layers, _, _ = attached(case)
    finally:
        torch.set_deterministic_debug_mode("default")
    answer = []
    for layer in layers:
        both = torch.cat([pool.flatten().float() for pool in (cache_at(layer).k_cache, cache_at(layer).v_cache)])
        answer.append("NaN" if both.isnan().any() else "zeros" if not both.any() else "something else")
    return answer


# ---------------------------------------------------------------------------------------------------- 4.5 least_step_seconds


def seconds(case: dict[str, Any]) -> float:
    machine = Machine("a machine", bytes_per_second=case["reads"], flops_per_second=case["computes"])
    found = least_step_seconds(
        machine, case["weights"], case["bytes"], case["new"], case["cached"], kv_bytes_per_token=case["kv"]
    )
    return float(instance(found, (int, float), "the result of least_step_seconds"))
