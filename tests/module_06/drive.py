"""Runs the cases of module 06 on the learner's sampling and engine."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from course.grading.driving import NotUsable, instance, tensor

Case = dict[str, Any]


def shaped(value: Any, what: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`value` if it is a tensor of that shape and dtype."""
    found = tensor(value, what)
    if tuple(found.shape) != shape:
        raise NotUsable(f"{what} has shape {list(found.shape)}, not {list(shape)}")
    if found.dtype != dtype:
        raise NotUsable(f"{what} is a tensor of {found.dtype}, not of {dtype}")
    return found.detach()


# ------------------------------------------------------------------------------------------- 6.1 to 6.3, filters


def _filter(name: str, case: Case, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The logits as given, the same tensor after the call, and the result."""
    import flexnano.sampling

    given = torch.tensor(case["logits"], dtype=torch.float32)
    used = given.clone()
    result = getattr(flexnano.sampling, name)(used, torch.tensor(case["by"], dtype=kind))
    return given, used, shaped(result, "the result", tuple(given.shape), torch.float32)


def _kept(name: str, case: Case, kind: torch.dtype) -> list[list[float]]:
    return _filter(name, case, kind)[2].tolist()


def _untouched(name: str, case: Case, kind: torch.dtype) -> list[list[float]]:
    return _filter(name, case, kind)[1].tolist()


def top_k(case: Case) -> Any:
    return _kept("keep_top_k", case, torch.int64)


def top_k_input(case: Case) -> Any:
    return _untouched("keep_top_k", case, torch.int64)


def top_p(case: Case) -> Any:
    return _kept("keep_top_p", case, torch.float32)


def top_p_off(case: Case) -> Any:
    return _kept("keep_top_p", case, torch.float32)


def top_p_input(case: Case) -> Any:
    return _untouched("keep_top_p", case, torch.float32)


def min_p(case: Case) -> Any:
    return _kept("keep_min_p", case, torch.float32)


def min_p_input(case: Case) -> Any:
    return _untouched("keep_min_p", case, torch.float32)


# ------------------------------------------------------------------------------------------- 6.4, noise


def _noise(seeds: list[int], positions: list[int], ids: list[list[int]] | Tensor) -> Tensor:
    from flexnano.sampling import gumbel_noise

    token_BK = torch.as_tensor(ids, dtype=torch.int64)
    noise = gumbel_noise(torch.as_tensor(seeds), torch.as_tensor(positions), token_BK)
    return shaped(noise, "the noise", tuple(token_BK.shape), torch.float32)


def same_bits(case: Case) -> list[list[bool]]:
    """For each row and token whether the noise is the same when it is asked for in another way."""
    seeds, positions, ids = case["seeds"], case["positions"], case["ids"]
    noise = _noise(seeds, positions, ids)
    how = case["how"]
    if how == "alone":
        other = torch.cat([_noise([s], [p], [row]) for s, p, row in zip(seeds, positions, ids, strict=True)])
    elif how == "rows reversed":
        other = _noise(seeds[::-1], positions[::-1], ids[::-1]).flip(0)
    elif how == "ids reversed":
        other = _noise(seeds, positions, [row[::-1] for row in ids]).flip(1)
    elif how == "last two ids":
        noise, other = noise[:, -2:], _noise(seeds, positions, [row[-2:] for row in ids])
    else:
        other = _noise(seeds, positions, ids)
    return ((noise == other) | (noise.isnan() & other.isnan())).tolist()


def different(case: Case) -> list[float]:
    """The noise of each cell (seed, position, id)."""
    seeds, positions, ids = zip(*case["cells"], strict=True)
    return _noise(list(seeds), list(positions), [[i] for i in ids])[:, 0].tolist()


def distribution(case: Case) -> dict[str, Any]:
    """Where the quantiles of the noise lie as one of seed, position and id counts up, and what neighbours share."""
    n = case["n"]
    count, fixed = torch.arange(n), torch.full((n,), 5)
    if case["along"] == "id":
        noise = _noise([5], [5], count[None])[0]
    else:
        by_seed = case["along"] == "seed"
        noise = _noise(*((count, fixed) if by_seed else (fixed, count)), fixed[:, None])[:, 0]
    ordered = noise.sort().values
    quarter = torch.bucketize(noise, ordered[[n // 4, n // 2, 3 * n // 4]])
    return {
        "quantiles": [float(ordered[int(n * q)]) for q in case["quantiles"]],
        "alike": round(float((quarter[1:] == quarter[:-1]).float().mean()), 3),
    }


def ends(case: Case) -> float:
    """The noise where mixing gives the rarest bits."""
    import flexnano.sampling

    mix64 = flexnano.sampling.mix64
    flexnano.sampling.mix64 = lambda x: torch.full_like(x, case["bits"])
    try:
        return _noise([3], [4], [[5]]).item()
    finally:
        flexnano.sampling.mix64 = mix64


# ------------------------------------------------------------------------------------------- 6.5, sample


def _sample(
    logits: Tensor, params: list[dict[str, Any]], seeds: list[int], positions: list[int], used: Tensor | None = None
) -> list[int]:
    from flexnano.sampling import SamplingBatch, SamplingParams, sample

    batch = SamplingBatch.of([SamplingParams(**one) for one in params], seeds)
    used = logits.clone() if used is None else used
    tokens = shaped(sample(used, batch, torch.tensor(positions)), "the result", (len(logits),), torch.int64).tolist()
    if outside := [token for token in tokens if not 0 <= token < logits.shape[1]]:
        raise NotUsable(f"the tokens are {tokens}, but {outside[0]} is no id: there are {logits.shape[1]}")
    return tokens


def greedy_rows(case: Case) -> list[int]:
    return _certain(case)


def _certain(case: Case) -> list[int]:
    logits = torch.tensor(case["logits"], dtype=getattr(torch, case.get("dtype", "float32")))
    n = len(logits)
    return _sample(logits, case["params"], list(range(7, 7 + n)), [4] * n)


def certain(case: Case) -> list[int]:
    return _certain(case)


def odd_rows(case: Case) -> list[int]:
    return _certain(case)


def shares(case: Case) -> list[float]:
    """How often each token comes, at n positions of one seed."""
    n, logits_V = case["n"], torch.tensor(case["logits"])
    params = [case["params"]] * n + ([] if case["beside"] is None else [case["beside"]])
    rows = len(params)
    tokens = _sample(logits_V.expand(rows, -1).contiguous(), params, [5] * rows, list(range(rows)))[:n]
    return (torch.bincount(torch.tensor(tokens), minlength=len(logits_V)) / n).tolist()


def together(case: Case) -> list[list[int]]:
    """The token of each row: in the batch, alone, with the rows reversed, beside a row with filters of its own."""
    logits = torch.tensor(case["logits"])
    params, seeds, positions = case["params"], case["seeds"], case["positions"]
    rows = range(len(logits))
    batch = _sample(logits, params, seeds, positions)
    alone = [_sample(logits[i : i + 1], [params[i]], [seeds[i]], [positions[i]])[0] for i in rows]
    turned = _sample(logits.flip(0), params[::-1], seeds[::-1], positions[::-1])[::-1]
    company = {"temperature": 1.0, "top_p": 0.5}
    beside = _sample(torch.cat([logits, logits[:1]]), [*params, company], [*seeds, 99], [*positions, 3])[:-1]
    return [list(one) for one in zip(batch, alone, turned, beside, strict=True)]


def moves(case: Case) -> list[int]:
    """Tokens of one distribution while the seed or the position counts up."""
    n = case["n"]
    count, fixed = list(range(n)), [6] * n
    seeds, positions = (count, fixed) if case["along"] == "seed" else (fixed, count)
    return _sample(torch.zeros(n, case["vocabulary"]), [{"temperature": 1.0}] * n, seeds, positions)


def sample_input(case: Case) -> list[list[float]]:
    logits = torch.tensor(case["logits"])
    _sample(logits, case["params"], [7] * len(logits), [4] * len(logits), used=logits)
    return logits.tolist()


# ------------------------------------------------------------------------------------------- 6.6, log-probabilities


def logprobs(case: Case) -> list[list[list[float]]]:
    """[id, log-probability] pairs of each row, in order."""
    from flexnano.sampling import top_logprobs

    logits = torch.tensor(case["logits"], dtype=getattr(torch, case.get("dtype", "float32")))
    rows = instance(top_logprobs(logits, torch.tensor(case["tokens"]), case["k"]), list, "the result")
    if len(rows) != len(logits):
        raise NotUsable(f"the result has {len(rows)} dicts, for {len(logits)} rows")
    answer = []
    for row in rows:
        pairs = instance(row, dict, "a row of the result").items()
        answer.append(
            [
                [instance(token, int, "a token id"), instance(value, float, "a log-probability")]
                for token, value in pairs
            ]
        )
    return answer


# ------------------------------------------------------------------------------------------- an engine


def _engine(case: Case, **sizes: Any) -> Any:
    """A new engine around a tiny model, with the sizes of the case."""
    from course.grading.tiny import tiny_model
    from flexnano.inference import Inference

    model = tiny_model(case.get("model", "llama"), case.get("window") or 8)
    settings = {"max_batch_size": 4, "max_seq_length": 64, "n_pages": 40, "page_size": 4, "attention": "gather"}
    engine = Inference(model, sizes.pop("tokenizer", None), **{**settings, **case.get("sizes", {}), **sizes})
    engine.prefill_block = case.get("block", 4)  # so that a picture of a mask fits on a card
    return engine


def _rows(engine: Any, sequences: list[dict[str, Any]], first_id: int = 0) -> list[Any]:
    """A row for each sequence {"prompt": ids, "output": ids, "slot": number}, with pages for all of its tokens."""
    from flexnano.sampling import SamplingParams
    from flexnano.scheduler import Row
    from flexnano.sequence import Sequence, Status

    table = engine.page_table
    allocated = {table.allocate() for _ in range(table.max_batch_size)}  # all, so that each can have the slot it wants
    rows = []
    for number, one in enumerate(sequences, start=first_id):
        sequence = Sequence(number, list(one["prompt"]), SamplingParams(), output_ids=list(one.get("output", [])))
        sequence.slot, sequence.status = one["slot"], Status.RUNNING
        table.reserve(sequence.slot, len(sequence))
        rows += [Row(sequence, start=0, n_tokens=len(sequence))]
    for slot in allocated - {one["slot"] for one in sequences}:
        table.erase(slot)
    return rows


class Watch:
    """Notes what reaches the model: `calls` holds the keyword arguments of each forward pass, `heads` the places at
    which it computed logits.
    """

    def __init__(self, engine: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self.heads: list[int] = []
        self._hooks = [
            engine.model.register_forward_pre_hook(self._called, with_kwargs=True),
            engine.model.get_output_embeddings().register_forward_pre_hook(self._head),
        ]

    def _called(self, _module: Any, _positional: Any, arguments: dict[str, Any]) -> None:
        self.calls.append(arguments)

    def _head(self, _module: Any, positional: Any) -> None:
        self.heads.append(positional[0].shape[:-1].numel())

    def one_call(self) -> dict[str, Any]:
        if len(self.calls) != 1:
            raise NotUsable(f"the model was called {len(self.calls)} times, not once")
        return self.calls[0]

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_exc: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _logits(value: Any, n: int, engine: Any) -> list[list[float]]:
    return shaped(value, "the result", (n, engine.vocab_size), torch.float32).tolist()


# ------------------------------------------------------------------------------------------- 6.7, lengths


def _length(case: Case, device: str, block: int) -> int:
    from flexnano.inference import Inference

    engine = Inference.__new__(Inference)
    engine.device, engine.prefill_block = torch.device(device), block
    engine.model = SimpleNamespace(device=engine.device)
    return instance(engine.prefill_length(case["n"]), int, "the length")


def on_a_cpu(case: Case) -> int:
    return _length(case, "cpu", 32)


def on_a_gpu(case: Case) -> int:
    return _length(case, "cuda", 128)


# ------------------------------------------------------------------------------------------- 6.8 and 6.10, masks


def _listed(numbers: Any, indices: Any, width: int, what: str) -> list[list[list[int]]]:
    """The blocks that a list of a BlockMask names, by batch row and row of blocks."""
    if numbers is None or indices is None:
        return []
    listed = [
        [[int(i) for i in row[: int(n)]] for n, row in zip(counts, rows, strict=True)]
        for counts, rows in zip(numbers[:, 0].tolist(), indices[:, 0].tolist(), strict=True)
    ]
    for rows in listed:
        for row in rows:
            if len(set(row)) != len(row):
                raise NotUsable(f"the {what} blocks {row} of a row name one twice")
            if any(not 0 <= block < width for block in row):
                raise NotUsable(f"the {what} blocks {row} of a row name one that there is not: there are {width}")
    return listed


def _block_mask(mask: Any, n_rows: int, block_size: tuple[int | None, int], lengths: tuple[int, int]) -> dict[str, Any]:
    """Blocks as pictures, and which keys each query reads, by the blocks and by the mask_mod alone.

    Raises:
        NotUsable: it is no BlockMask of these sizes.
    """
    from torch.nn.attention.flex_attention import BlockMask

    instance(mask, BlockMask, "the result")
    q_block, k_block = mask.BLOCK_SIZE
    if (block_size[0] not in (None, q_block)) or k_block != block_size[1]:
        raise NotUsable(
            f"the blocks are {q_block} by {k_block} tokens, not {block_size[0] or q_block} by {block_size[1]}"
        )
    if tuple(mask.seq_lengths) != lengths:
        raise NotUsable(f"the mask is over {list(mask.seq_lengths)} queries and keys, not {list(lengths)}")
    if tuple(mask.kv_num_blocks.shape[:2]) != (n_rows, 1):
        found = mask.kv_num_blocks.shape
        raise NotUsable(f"the mask has {found[0]} batch rows and {found[1]} heads, not {n_rows} and 1")
    Q, K = lengths
    width = -(-K // k_block)
    shape = (n_rows, 1, -(-Q // q_block), width)
    for lists in (mask.kv_indices, mask.full_kv_indices):
        if lists is not None and tuple(lists.shape) != shape:
            raise NotUsable(f"the lists of blocks have shape {list(lists.shape)}, not {list(shape)}")
    partial = _listed(mask.kv_num_blocks, mask.kv_indices, width, "partial")
    full = _listed(mask.full_kv_num_blocks, mask.full_kv_indices, width, "full")
    full = full or [[[] for _ in rows] for rows in partial]
    b, q, k = torch.arange(n_rows)[:, None, None], torch.arange(Q)[:, None], torch.arange(K)
    allowed = mask.mask_mod(b, torch.zeros_like(b), q, k).expand(n_rows, Q, K)
    blocks, reads = [], torch.zeros(n_rows, Q, K, dtype=torch.bool)
    for row in range(n_rows):
        blocks.append([])
        for i, (some, whole) in enumerate(zip(partial[row], full[row], strict=True)):
            if twice := set(some) & set(whole):
                raise NotUsable(f"block {min(twice)} of a row is listed as partial and as full")
            kinds = {**dict.fromkeys(some, "▒"), **dict.fromkeys(whole, "■")}
            blocks[-1].append("".join(kinds.get(block, "·") for block in range(width)))
            queries = slice(i * q_block, (i + 1) * q_block)
            for block in some:
                keys = slice(block * k_block, (block + 1) * k_block)
                reads[row, queries, keys] = allowed[row, queries, keys]
            for block in whole:
                reads[row, queries, block * k_block : (block + 1) * k_block] = True
    return {
        "blocks": blocks,
        "reads": [[[int(key) for key in one.nonzero()] for one in rows] for rows in reads],
        "mod_reads": [[[int(key) for key in one.nonzero()] for one in rows] for rows in allowed],
    }


def packed_mask(case: Case) -> dict[str, Any]:
    engine = _engine(case)
    starts: list[int] = []
    documents: list[int] = []
    for document, length in enumerate(case["lengths"]):
        starts += [len(documents)] * length
        documents += [document] * length
    n, L = len(documents), len(documents) + case["padding"]
    documents += range(L, L + case["padding"])
    starts += range(n, L)
    engine.documents[:L] = torch.tensor(documents)
    block = case["block"]
    mask = engine.get_prefill_block_mask(torch.tensor(starts), case["window"])
    found = _block_mask(mask, 1, (block, block), (L, L))
    return {name: value[0] for name, value in found.items()}


def decode_mask(case: Case) -> dict[str, Any]:
    engine = _engine(case)
    table = engine.page_table
    slots = torch.tensor(case["slots"])
    engine.positions[:] = torch.tensor(case["buffer"])
    mask = engine.get_decoding_block_mask(slots, case["window"])
    size = case["sizes"]["page_size"]
    return _block_mask(mask, len(slots), (None, size), (1, table.pages_per_row * size))


# ------------------------------------------------------------------------------------------- 6.9, prefill


@torch.inference_mode()
def packed_row(case: Case) -> dict[str, Any]:
    """What reaches the model in a prefill, and `documents`."""
    engine = _engine(case)
    rows = _rows(engine, case["sequences"])
    documents = engine.documents.fill_(7)  # the buffer that the masks hold on to
    with Watch(engine) as watch:
        engine.prefill_sequences(rows)
    call = watch.one_call()
    ids, slots, positions = (
        tensor(call.get(name), f"`{name}` of the model's call", ndim=2, kind="int")[0].tolist()
        for name in ("input_ids", "flex_attn_batch_idx", "flex_attn_input_pos")
    )
    return {
        "tokens": ids,
        "slots": slots,
        "positions": positions,
        "documents": documents[: len(ids)].tolist(),
    }


@torch.inference_mode()
def prefill_logits(case: Case) -> list[list[float]]:
    engine = _engine(case)
    rows = _rows(engine, case["sequences"])
    return _logits(engine.prefill_sequences(rows), len(rows), engine)


@torch.inference_mode()
def cache_filled(case: Case) -> list[list[float]]:
    """The logits of the next step, for which attention reads what the prefill left in the cache."""
    engine = _engine(case)
    rows = _rows(engine, case["sequences"])
    first = len(rows) // 2
    if first:  # in two prefills, so that the second must leave the first alone
        engine.prefill_sequences(rows[:first])
    engine.prefill_sequences(rows[first:])
    slots, ids, positions = [], [], []
    for row, token in zip(rows, case["next"], strict=True):
        engine.page_table.reserve(row.sequence.slot, row.n_tokens + 1)
        slots.append(row.sequence.slot)
        ids.append(token)
        positions.append(row.n_tokens)
    logits = engine.decode_step(torch.tensor(slots), torch.tensor(ids), torch.tensor(positions))
    return _logits(logits, len(rows), engine)


@torch.inference_mode()
def where_needed(case: Case) -> int:
    engine = _engine(case)
    with Watch(engine) as watch:
        engine.prefill_sequences(_rows(engine, case["sequences"]))
    return sum(watch.heads)


# ------------------------------------------------------------------------------------------- 6.11, decode


def _decoding(case: Case) -> tuple[Any, list[Any]]:
    """An engine whose sequences have been prefilled but for `steps` tokens, and their rows."""
    engine = _engine(case)
    rows = _rows(engine, case["sequences"])
    engine.prefill_sequences(rows)
    return engine, rows


def _step(engine: Any, rows: list[Any], order: list[int], step: int, case: Case) -> Any:
    slots, ids, positions = [], [], []
    for i in order:
        sequence = rows[i].sequence
        slots.append(sequence.slot)
        ids.append(case["sequences"][i]["next"][step])
        positions.append(rows[i].n_tokens + step)
        engine.page_table.reserve(sequence.slot, positions[-1] + 1)
    return engine.decode_step(torch.tensor(slots), torch.tensor(ids), torch.tensor(positions))


def _keys_read(engine: Any, call: dict[str, Any], row: int, slot: int) -> list[int]:
    """The positions that a row of a decode step reads, from the mask that the model was called with."""
    masks = call["flex_attn_block_mask"]
    mask = masks[None]
    addresses = mask.address_RK[row][mask.visible_RTK[row, 0]].tolist()
    size, owned = engine.page_table.page_size, engine.page_table.owned[slot]
    place = {page * size + i: n * size + i for n, page in enumerate(owned) for i in range(size)}
    return sorted(place.get(address, -1) for address in addresses)


@torch.inference_mode()
def fed(case: Case) -> list[dict[str, Any]]:
    """What reaches the model in one decode step, row by row, and `positions` afterwards."""
    engine, rows = _decoding(case)
    engine.positions[:] = torch.tensor(case["buffer"])
    with Watch(engine) as watch:
        _step(engine, rows, case["order"], 0, case)
    call = watch.one_call()
    ids, slots, positions = (
        tensor(call.get(name), f"`{name}` of the model's call", kind="int").flatten().tolist()
        for name in ("input_ids", "flex_attn_batch_idx", "flex_attn_input_pos")
    )
    return [
        {
            "slot": slots[i],
            "token": ids[i],
            "position": positions[i],
            "buffer": int(engine.positions[i]),
            "keys": _keys_read(engine, call, i, slots[i]),
        }
        for i in range(len(case["order"]))
    ]


@torch.inference_mode()
def decode_logits(case: Case) -> list[list[list[float]]]:
    """The logits of each step, row by row in the order in which the rows were given."""
    engine, rows = _decoding(case)
    steps = []
    for step, order in enumerate(case["orders"]):
        steps.append(_logits(_step(engine, rows, order, step, case), len(order), engine))
    return steps


@torch.inference_mode()
def filled_up(case: Case) -> dict[str, Any]:
    """Rows of a decode step of an engine that believes to be on a GPU: the slots that reach the model, rows that return."""
    engine, rows = _decoding(case)
    engine.device = torch.device("cuda")
    with Watch(engine) as watch, CudaIsCpu():
        logits = _step(engine, rows, list(range(len(rows))), 0, case)
    slots = tensor(watch.one_call().get("flex_attn_batch_idx"), "`flex_attn_batch_idx` of the model's call", kind="int")
    return {"slots": slots.tolist(), "returned": len(tensor(logits, "the result", ndim=2))}


class CudaIsCpu(torch.overrides.TorchFunctionMode):
    """Whatever asks for a GPU gets the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def here(value: Any) -> Any:
            on_gpu = isinstance(value, torch.device) and value.type == "cuda"
            return torch.device("cpu") if on_gpu or (isinstance(value, str) and value == "cuda") else value

        return function(*map(here, args), **{name: here(value) for name, value in (kwargs or {}).items()})


# ------------------------------------------------------------------------------------------- 6.12, the step


@torch.inference_mode()
def calls(case: Case) -> dict[str, Any]:
    """How many tokens each sequence gets from a prefill, and what reaches the model in the decode that follows."""
    from flexnano.scheduler import Row

    engine = _engine(case)
    one_by_one = zip(case["sequences"], case["slots"], strict=True)
    rows = _rows(engine, [{**one, "slot": slot} for one, slot in one_by_one])
    engine._run_rows(rows)
    made = [len(row.sequence) - row.n_tokens for row in rows]
    if set(made) != {1}:
        return {"made": made, "rows": []}
    decode = []
    for row in rows:
        engine.page_table.reserve(row.sequence.slot, row.n_tokens + 1)
        decode.append(Row(row.sequence, row.n_tokens, 1))
    with Watch(engine) as watch:
        engine._run_rows(decode)
    call = watch.one_call()
    ids, slots, positions = (
        tensor(call.get(name), f"`{name}` of the model's call", kind="int").flatten().tolist()
        for name in ("input_ids", "flex_attn_batch_idx", "flex_attn_input_pos")
    )
    fed = [
        {"slot": slot, "token": token, "position": position}
        for slot, token, position in zip(slots, ids, positions, strict=True)
    ]
    return {"made": made, "rows": fed}


@torch.inference_mode()
def one_step(case: Case) -> list[list[int]]:
    """Output tokens of each sequence after each step; steps are lists of sequences (a prefill) or "decode"."""
    from flexnano.sampling import SamplingParams

    engine = _engine(case)
    for one in case["sequences"]:
        engine.add_request(one["prompt"], SamplingParams(max_new_tokens=20))
    sequences = list(engine.scheduler.waiting)
    for sequence, one in zip(sequences, case["sequences"], strict=True):
        sequence.output_ids += one.get("output", [])
    after = []
    for _ in range(case["steps"]):
        rows = engine.scheduler.next_step()
        engine._run_rows(rows)
        after.append([list(sequence.output_ids) for sequence in sequences])
    return after


def _texts(results: list[Any]) -> list[dict[str, Any]]:
    return [{"tokens": list(one.token_ids), "reason": one.finish_reason} for one in results]


def answers(case: Case) -> list[dict[str, Any]]:
    """`generate` for all prompts."""
    from flexnano.sampling import SamplingParams

    engine = _engine(case)
    engine.eos_token_ids = frozenset(case.get("eos", []))
    params = [SamplingParams(max_new_tokens=n) for n in case["max_new_tokens"]]
    return _texts(engine.generate(case["prompts"], params))


def seeds(case: Case) -> int:
    """How many different answers come to one prompt with many seeds."""
    from flexnano.sampling import SamplingParams

    engine = _engine(case)
    params = [SamplingParams(max_new_tokens=4, temperature=case["temperature"], seed=seed) for seed in case["seeds"]]
    results = engine.generate([case["prompt"]] * len(params), params)
    return len({tuple(one.token_ids) for one in results})


def company(case: Case) -> list[list[str]]:
    """The tokens of each request: all together, alone, and in reverse order."""
    from flexnano.sampling import SamplingParams

    engine = _engine(case)
    params = [SamplingParams(max_new_tokens=6, temperature=case["temperature"], seed=seed) for seed in case["seeds"]]
    requests = list(zip(case["prompts"], params, strict=True))

    def tokens(some: list[Any]) -> list[str]:
        results = engine.generate([prompt for prompt, _ in some], [one for _, one in some])
        return [" ".join(map(str, result.token_ids)) for result in results]

    alone = [tokens([request])[0] for request in requests]
    return [list(one) for one in zip(tokens(requests), alone, tokens(requests[::-1])[::-1], strict=True)]


def broken(case: Case) -> list[dict[str, Any]]:
    """`generate` while the model's logits are not finite for one prompt."""
    from flexnano.sampling import SamplingParams

    engine = _engine(case)
    token = case["poison"]
    with torch.no_grad():
        engine.model.get_input_embeddings().weight[token] = math.nan
    steps, requests = 0, [engine.add_request(prompt, SamplingParams(max_new_tokens=2)) for prompt in case["prompts"]]
    results: dict[int, Any] = {}
    while engine.has_work and steps < 20:
        steps += 1
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
    return [
        {"tokens": [], "reason": "still running"} if request not in results else _texts([results[request]])[0]
        for request in requests
    ]


def streamed(case: Case) -> dict[str, str]:
    """The pieces of a streamed text, and the same tokens decoded at once."""
    from flexnano.sampling import SamplingParams

    tokenizer = _letters(case["pieces"])
    engine = _engine({}, tokenizer=tokenizer)
    script = iter(case["tokens"])
    engine._next_tokens = lambda rows, logits: [next(script) for _ in rows]
    events = list(engine.stream([[5, 9, 3]], SamplingParams(max_new_tokens=len(case["tokens"]))))
    ids = [event.token_id for event in events if event.token_id is not None]
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"pieces": [event.text for event in events], "whole": whole}


def _letters(pieces: list[str]) -> Any:
    """A tokenizer of bytes, in which token i stands for `pieces[i]`, given as hexadecimal bytes."""
    import tokenizers
    import transformers

    spelled = {bytes([byte]): letter for byte, letter in _byte_letters().items()}
    vocabulary = {
        "".join(spelled[bytes([byte])] for byte in bytes.fromhex(piece)): number for number, piece in enumerate(pieces)
    }
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token=None)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: those that can be printed stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
