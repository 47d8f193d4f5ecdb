"""Where the time of a decode step goes, on a GPU: attention, products, sampling, the rest, the host, and gaps.

    python -m benchmarks.step --workload gemma2 --rows 512 --context 384
    python -m benchmarks.step --workload qwen3 --rows 256 --context 1024

Random weights of the workload's model.  All rows decode from the same length, so that the steps are alike.  First the steps
are timed as they run, one in flight while the host works; then some are profiled, kernel by kernel.  The host's share is what
`run_one_step` takes without the time in which it waits for tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.heavy import RESULTS, WORKLOADS, make_model
from benchmarks.machine import describe_machine, head, need_gpu, write

Row = dict[str, Any]

PARTS = {
    "attention": r"flex_attention|flex_decod",
    "products": r"nvjet|gemm|cutlass|splitK|cublas|xmma",
    "sampling": r"ArgMax|softmax|isfinite|sort|scan",
    "copies": r"[Mm]emcpy|[Mm]emset|(?<!_to_)copy",
}
"""Part of a step by the name of a kernel, the first that fits; what fits none is pointwise: norms, rotations, activations."""


def part_of(kernel: str) -> str:
    """Which part of a step a kernel belongs to.

    >>> part_of("triton_tem_fused_add_flex_attention_view_3"), part_of("nvjet_sm90_tst_72x64_64x12_2x1_v_bz_TNN")
    ('attention', 'products')
    >>> part_of("triton_poi_fused_gelu_mul_6")
    'pointwise'
    """
    return next((part for part, names in PARTS.items() if re.search(names, kernel)), "pointwise")


def shares(kernels: Iterable[tuple[str, float]], steps: int, wall_ms: float) -> Row:
    """Milliseconds of a step by part, and how long the device had nothing to do.

    Args:
        kernels: (name, microseconds) of all kernels of some steps; they follow one another.
        wall_ms: what a step took on the clock while nobody profiled.

    >>> shares([("nvjet_1", 3000.0), ("flex_attention", 5000.0), ("nvjet_1", 1000.0)], steps=2, wall_ms=5.0)
    {'products': 2.0, 'attention': 2.5, 'busy': 4.5, 'idle': 0.5, 'idle_share': 0.1, 'kernels': 1.5}
    """
    total: Counter[str] = Counter()
    n = 0
    for name, us in kernels:
        total[part_of(name)] += us / 1000 / steps  # type: ignore[assignment]
        n += 1
    busy = sum(total.values())
    idle = max(0.0, wall_ms - busy)
    return {
        **{part: round(ms, 3) for part, ms in total.items()},
        "busy": round(busy, 3),
        "idle": round(idle, 3),
        "idle_share": round(idle / wall_ms, 3),
        "kernels": n / steps,
    }


class Waiting:
    """Counts how long the host waits for tokens, step by step, as long as it is entered."""

    def __init__(self, late: Any) -> None:
        self.seconds, self._late, self._read = 0.0, late, late.read

    def __enter__(self) -> Waiting:
        self._late.read = self._wait
        return self

    def __exit__(self, *_: object) -> None:
        self._late.read = self._read

    def _wait(self, sent: Any) -> list[int]:
        began = time.perf_counter()
        _, _, event = sent
        if event is not None:
            event.synchronize()
        self.seconds += time.perf_counter() - began
        return self._read(sent)


def fill(engine: Any, rows: int, length: int, new_tokens: int, vocabulary: int) -> list[int]:
    """Step until so many rows decode and nobody waits; each began with a prompt of this length.  Returns their numbers."""
    from flexnano import SamplingParams

    params = SamplingParams(max_new_tokens=new_tokens, ignore_eos=True)
    ids = [[5 + (row * 7 + i) % (vocabulary - 5) for i in range(length)] for row in range(rows)]
    numbers = [engine.add_request(one, params) for one in ids]
    while len(engine.scheduler.running) < rows or engine.scheduler.waiting:
        engine.run_one_step()
    return numbers


def time_steps(engine: Any, rows: int, n: int) -> tuple[float, Row]:
    """Milliseconds of a step of an engine that `fill` has filled, the median of n, and what a report says of it."""
    walls, hosts = [], []
    with Waiting(engine.fast.late) as waiting:
        for _ in range(n):
            waited, began = waiting.seconds, time.perf_counter()
            engine.run_one_step()
            walls.append(time.perf_counter() - began)
            hosts.append(walls[-1] - (waiting.seconds - waited))
    ms = 1000 * statistics.median(walls)
    return ms, {
        "ms": round(ms, 3),
        "host_ms": round(1000 * statistics.median(hosts), 3),
        "tokens_per_second": round(rows / ms * 1000, 1),
    }


def measure(model: Any, rows: int, context: int, vocabulary: int, steps: int = 64, profiled: int = 8) -> Row:
    """Fill an engine with rows that decode, then time and profile their steps."""
    from flexnano import Inference

    longest = context + 2 * steps + profiled + 64
    pages = rows * -(-longest // 64)
    with Inference(model, None, rows, longest, pages, 64, max_prefill_tokens=8192, min_prefill=1) as engine:
        fill(engine, rows, context - steps // 2, longest - context, vocabulary)
        while engine.stats.decode_steps < 8:
            engine.run_one_step()
        if engine.fast is None:
            raise SystemExit("the fast path is not used here; benchmarks.step looks at its steps")
        wall_ms, taken = time_steps(engine, rows, steps)
        report: Row = {"rows": rows, "context": context, **taken}
        if model.device.type == "cuda":
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CUDA]) as found:
                torch.cuda.synchronize()
                for _ in range(profiled):
                    engine.run_one_step()
                torch.cuda.synchronize()
            on_device = torch.autograd.DeviceType.CUDA
            kernels = [(one.name, one.device_time_total) for one in found.events() if one.device_type == on_device]
            # The first of them was launched before the profile began, the last is one that nobody reads any more.
            report |= {"parts_ms": shares(kernels, profiled, wall_ms)}
            most = Counter[str]()
            for name, us in kernels:
                most[name] += us / 1000 / profiled  # type: ignore[assignment]
            report["largest_ms"] = {name[:120]: round(ms, 3) for name, ms in most.most_common(12)}
        return report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=list(WORKLOADS), default="gemma2")
    parser.add_argument("--rows", type=int, nargs="+", default=[256])
    parser.add_argument("--context", type=int, nargs="+", default=[512])
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    need_gpu("benchmarks.step")
    workload = WORKLOADS[args.workload]
    machine = describe_machine("cuda")
    cases = []
    for rows in args.rows:
        for context in args.context:
            model = make_model(workload.model)
            cases.append(measure(model, rows, context, workload.vocabulary))
            print(f"{machine['name']}, {args.workload}: {json.dumps(cases[-1])}", flush=True)
            del model
            torch.cuda.empty_cache()
    rows, contexts = (" ".join(map(str, numbers)) for numbers in (args.rows, args.context))
    command = f"python -m benchmarks.step --workload {args.workload} --rows {rows} --context {contexts}"
    report = {
        **head("where the time of a decode step goes", command, machine),
        "model": workload.model,
        "cases": cases,
    }
    path = write(report, args.output, f"step-{args.workload}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
