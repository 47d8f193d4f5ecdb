"""The process in which cases run: `python -m experiments.AddFlexAttentionQwen.child JOB.json ROWS.jsonl`.

It writes a row as soon as a case is done, so that what kills it takes nothing along but the case that it was at.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .cases import Case, Size, all_pairs, bytes_needed, documents_of, flops, visible_pairs

GIB = 2**30


def main() -> None:
    job_path, rows_path = map(Path, sys.argv[1:3])
    job = json.loads(job_path.read_text())
    import torch

    torch.set_float32_matmul_precision("highest")  # float32 means float32, not TF32
    torch.backends.cudnn.allow_tf32 = False
    torch._dynamo.config.recompile_limit = 64  # beyond its limit dynamo goes on without compiling, and says nothing
    import transformers.models.qwen3.modeling_qwen3

    from . import implementations, models  # noqa: F401  all that takes long to import, before the device is asked for

    transformers.logging.set_verbosity_error()
    if job["wait"]:  # started early, so that importing costs no time: now wait until the device is free
        sys.stdin.readline()
    with rows_path.open("a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        WORK[job["kind"]](job, write)


# ------------------------------------------------------------------------------------------------------- timed cases


def run_cases(job: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
    """Every case of a group, in order, until the deadline."""
    import torch

    from . import models

    device, built = job["device"], {}
    for case in (Case(**one) for one in job["cases"]):
        if time.time() > job["deadline"]:
            return
        write({"case": vars(case), "begins": True})
        began = time.perf_counter()
        try:
            dtype = getattr(torch, case.dtype)
            if dtype not in built:
                built[dtype] = models.build(job["model"], dtype, device, job["layers"])
            row = run_case(built[dtype], case, job)
        except Exception as error:  # a row that says why, not a crash
            row = {"status": "failed", "why": first_line(error)}
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
                row["status"] = "does not fit"
        clean_up(device)
        write({"case": vars(case), **row, "seconds_in_all": round(time.perf_counter() - began, 2)})


def first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]


def clean_up(device: str) -> None:
    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def run_case(model: Any, case: Case, job: dict[str, Any]) -> dict[str, Any]:
    """Measure one case."""
    import torch

    from flexnano import Stopwatch, measure

    from . import implementations, models

    size, device = models.size_of_model(model), job["device"]
    if case.work == "backward" and device == "cpu" and case.implementation in ("ours", "hf_flex"):
        return {"status": "not there", "why": "FlexAttention has no backward on a CPU"}
    if case.implementation == "varlen" and device == "cpu":
        return {"status": "not there", "why": "varlen_attn needs a GPU"}
    estimate, room = bytes_needed(case, size), bytes_free(device) + weights_bytes(model)
    told = {"estimate_gib": estimate / GIB, **on_paper(case, size)}
    if estimate > 0.94 * room:
        why = f"would take about {estimate / GIB:.0f} GiB; there are {room / GIB:.0f}"
        return {"status": "does not fit", "why": why, **told}
    stopwatch = Stopwatch(device)
    if case.implementation == "hf_flex":  # each length by itself: a graph for several is slower, and none on a CPU
        torch._dynamo.reset()
    if case.work == "decode":
        implementations.attach_full_caches(model, case)
    try:
        with implementations.set_up(model, case) as make:
            with memory(device) as making:
                begin = stopwatch.mark()
                arguments = make()
                end = stopwatch.mark()
                stopwatch.wait()
            run = runner(model, case, arguments)
            timing = measure(run, stopwatch, **repeats_of(case, device))
            with memory(device) as running:
                run()
                stopwatch.wait()
            alone = attention_alone(model, run, stopwatch, device, case) if case.work != "backward" else None
    finally:
        implementations.detach_caches(model)
        model.zero_grad(set_to_none=True)
    rate = job["matmul_rate"].get(case.dtype)
    row = {
        "status": "ok",
        "ms": timing.median * 1e3,
        "ms_repeats": [second * 1e3 for second in timing.repeats],
        "first_ms": timing.first * 1e3,
        "tokens_per_second": case.tokens / timing.median,
        "peak_gib": running["peak"] / GIB,
        "peak_over_weights_gib": (running["peak"] - (weights_bytes(model) if device == "cuda" else 0)) / GIB,
        "mask_ms": stopwatch.seconds(begin, end) * 1e3,
        "mask_peak_gib": (making["peak"] - making["before"]) / GIB,
        "blocks_listed": listed_blocks(arguments),
        "attention_ms": alone,  # of one layer
        "of_matmul_rate": told["flops"] / timing.median / rate if rate else None,
    }
    return told | row


def on_paper(case: Case, size: Size) -> dict[str, Any]:
    counted = flops(case, size)
    rows = documents_of(case)
    return {
        "flops": counted["all"],
        "flops_attention": counted["attention"],
        "visible_pairs": visible_pairs(case),
        "visible_fraction": visible_pairs(case) / all_pairs(case),
        "documents": [len(row) for row in rows] if case.mask == "packed" else None,
        "longest_document": max(map(max, rows)) if case.mask == "packed" else None,
    }


def repeats_of(case: Case, device: str) -> dict[str, int]:
    if device == "cpu":
        return {"warm_up": 1, "repeats": 3}
    return {"warm_up": 2, "repeats": 7} if case.tokens <= 8192 else {"warm_up": 1, "repeats": 5}


def runner(model: Any, case: Case, arguments: dict[str, Any]) -> Callable[[], None]:
    """The call that is timed."""
    import torch

    from . import implementations

    generator = torch.Generator().manual_seed(1)
    width = 1 if case.work == "decode" else case.length
    ids = torch.randint(0, model.config.vocab_size, (case.batch, width), generator=generator).to(model.device)
    at = implementations.positions(documents_of(case), model.device)
    if case.work == "decode":
        at = at[:, -1:]

    def forward() -> None:
        with torch.inference_mode():
            model(ids, position_ids=at, use_cache=False, logits_to_keep=1, **arguments)

    def backward() -> None:
        hidden = model.model(ids, position_ids=at, use_cache=False, **arguments).last_hidden_state
        hidden.square().mean().backward()
        model.zero_grad(set_to_none=True)

    return backward if case.work == "backward" else forward


def attention_alone(model: Any, run: Callable[[], None], stopwatch: Any, device: str, case: Case) -> float | None:
    """Milliseconds that the attention function takes in one layer, by calling it again with what it got in that layer.

    On a GPU as a replay of a CUDA graph, so that it is the device's time and not that of the host that launches it.
    """
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.qwen3 import modeling_qwen3

    from flexnano import measure

    if case.implementation == "eager" and case.tokens * case.length > 2**27:
        return None  # a graph would hold the scores a second time
    name = model.config._attn_implementation
    original = modeling_qwen3.eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
    seen: list[tuple[Any, Any]] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        if not seen:
            seen.append((args, kwargs))
        return original(*args, **kwargs)

    with replaced(name, spy):
        run()
    (args, kwargs) = seen[0]

    def again() -> None:
        with torch.inference_mode():
            original(*args, **kwargs)

    if device == "cuda":
        try:
            again = graphed(again)
        except Exception:  # not everything can be captured; then the launch counts too
            clean_up(device)
            return None
    return measure(again, stopwatch, warm_up=1, repeats=5 if device == "cuda" else 3).median * 1e3


def graphed(call: Callable[[], None]) -> Callable[[], None]:
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@contextlib.contextmanager
def replaced(name: str, function: Any) -> Iterator[None]:
    """Another function under a name that the model uses already."""
    from transformers import AttentionInterface
    from transformers.models.qwen3 import modeling_qwen3

    mapping = AttentionInterface._global_mapping
    if name == "eager":
        before, modeling_qwen3.eager_attention_forward = modeling_qwen3.eager_attention_forward, function
    else:
        before, mapping[name] = mapping[name], function
    try:
        yield
    finally:
        if name == "eager":
            modeling_qwen3.eager_attention_forward = before
        else:
            mapping[name] = before


def listed_blocks(arguments: dict[str, Any]) -> dict[str, int] | None:
    """How many blocks of keys the mask lists, over all rows and blocks of queries, if it is a BlockMask."""
    mask = arguments.get("flex_attn_block_mask")
    if mask is None:
        return None
    full = mask.full_kv_num_blocks
    queries, keys = mask.seq_lengths
    q_block, k_block = mask.BLOCK_SIZE
    return {
        "partial": int(mask.kv_num_blocks.sum()),
        "full": int(full.sum()) if full is not None else 0,
        "of": len(mask.kv_num_blocks) * -(-queries // q_block) * -(-keys // k_block),
    }


# ------------------------------------------------------------------------------------------------------------ memory


def weights_bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def bytes_free(device: str) -> int:
    """Memory that a case may take."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


@contextlib.contextmanager
def memory(device: str) -> Iterator[dict[str, int]]:
    """Bytes allocated before, and at the peak: of the allocator on a GPU, of the whole process on a CPU."""
    found: dict[str, int] = {}
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        found["before"] = torch.cuda.memory_allocated()
        yield found
        torch.cuda.synchronize()
        found["peak"] = torch.cuda.max_memory_allocated()
        return
    found["before"] = resident("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    yield found
    found["peak"] = resident("VmHWM")


def resident(what: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        import psutil

        return psutil.Process(os.getpid()).memory_info().rss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


# ---------------------------------------------------------------------------------------------------- the matmul rate


def matmul_rate(job: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
    """FLOP/s of a large matrix product, per dtype: what a fraction of the card's rate is a fraction of."""
    import torch

    from flexnano import Stopwatch, measure

    device = job["device"]
    n, repeats = (8192, 10) if device == "cuda" else (2048, 5)
    rates = {}
    for dtype in job["dtypes"]:
        a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
        with torch.inference_mode():
            timing = measure(functools.partial(torch.mm, a, b), Stopwatch(device), warm_up=3, repeats=repeats)
        rates[dtype] = 2 * n**3 / timing.median
    write({"matmul_rate": rates, "n": n, "threads": torch.get_num_threads()})


def parity(job: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
    from .parity import compare

    compare(job, write)


WORK: dict[str, Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]] = {
    "cases": run_cases,
    "matmul rate": matmul_rate,
    "parity": parity,
}

if __name__ == "__main__":
    main()
