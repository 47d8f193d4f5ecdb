"""How long people wait while requests arrive at several rates: first tokens, and one token after another.

    python -m benchmarks.latency                                    # gemma2, 4 to 64 requests a second
    python -m benchmarks.latency --workload qwen3 --rates 8 16 32 --options '{"fuse_prefill": true, "prefill_chunk": 704}'

Requests of a workload of benchmarks.throughput, in its order, arrive as Poisson has them whether or not the engine keeps up
(an open loop), for as long as `--seconds`.  Those that arrived in the first fifth are not counted, nor is the time after the
last arrival in tokens a second.  Before it, a rehearsal at the highest rate until nothing is compiled any more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.heavy import RESULTS, WORKLOADS, Requests, make_model, run_until_compiled
from benchmarks.machine import describe_machine, head, need_gpu, write

Row = dict[str, Any]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests arrive, in seconds from the beginning: `rate` a second on average, the gaps exponential.

    >>> times = arrivals(100, 50, seed=0)
    >>> times == sorted(times), times[-1] < 50, 4700 < len(times) < 5300
    (True, True, True)
    """
    rng = random.Random(seed)
    times = itertools.accumulate(rng.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda at: at < seconds, times))


def percentile(values: list[float], percent: int) -> float:
    """By nearest rank, so that it is a value that somebody had; 0.0 of nothing.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([4.0, 1.0, 3.0, 2.0], 99)
    (2.0, 4.0)
    """
    return sorted(values)[-(-percent * len(values) // 100) - 1] if values else 0.0


def serve(engine: Any, requests: Requests, times: list[float], clock: Callable[[], float] = time.perf_counter) -> Row:
    """Let requests arrive at these times, round and round through the list; returns what they got and what they waited."""
    from flexnano import SamplingParams

    due = list(zip(times, itertools.cycle(requests), strict=False))
    due.reverse()
    came, results, tokens_at = dict[int, float](), dict[int, Any](), list[float]()
    began = clock()
    while due or engine.has_work:
        now = clock() - began
        while due and due[-1][0] <= now:
            at, (prompt, n) = due.pop()
            came[engine.add_request(prompt, SamplingParams(max_new_tokens=n, ignore_eos=True))] = at
        if not engine.has_work:  # nobody is there: wait for the next
            time.sleep(max(0.0, min(0.001, due[-1][0] - (clock() - began))))
            continue
        for event in engine.run_one_step():
            if event.token_id is not None:
                tokens_at.append(clock() - began)
            if event.result is not None:
                results[event.request_id] = event.result
    first_fifth, last = times[-1] / 5, times[-1]
    counted = [results[number].metrics for number, at in came.items() if at >= first_fifth]
    firsts = [one.time_to_first_token for one in counted]
    gaps = [gap for one in counted for gap in one.inter_token_latencies]
    within = sum(first_fifth <= at <= last for at in tokens_at)
    return {
        "requests": len(came),
        "counted": len(counted),
        "first_token_p50_seconds": round(percentile(firsts, 50), 4),
        "first_token_p99_seconds": round(percentile(firsts, 99), 4),
        "inter_token_p50_ms": round(1000 * percentile(gaps, 50), 2),
        "inter_token_p99_ms": round(1000 * percentile(gaps, 99), 2),
        "output_tokens_per_second": round(within / (last - first_fifth), 1),
        "drained_after_seconds": round(clock() - began - last, 2),
    }


def serve_compiled(engine: Any, requests: Requests, times: list[float]) -> Row:
    """`serve`, and again if something was compiled meanwhile: somebody has waited for it."""
    return run_until_compiled(engine, lambda _seed: serve(engine, requests, times))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=list(WORKLOADS), default="gemma2")
    parser.add_argument("--rates", type=float, nargs="+", default=[4, 8, 16, 32, 64], help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which they arrive, at each rate")
    parser.add_argument("--options", type=json.loads, default={}, help="of the engine, as JSON")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    need_gpu("benchmarks.latency")
    from flexnano import Inference

    workload, machine = WORKLOADS[args.workload], describe_machine("cuda")
    model, batch = make_model(workload.model), workload.max_batch_size
    pages = batch * -(-workload.longest // 64)
    options: Row = {"max_prefill_tokens": 8192, "min_prefill": 1, **args.options}
    rows = []
    with Inference(model, None, batch, workload.max_seq_length, pages, 64, **options) as engine:
        assert engine.fast is not None
        most = max(args.rates)
        run_until_compiled(
            engine, lambda seed: serve(engine, workload.make(seed), arrivals(most, args.seconds / 2, seed))
        )
        for rate in args.rates:
            found = serve_compiled(engine, workload.make(), arrivals(rate, args.seconds, seed=0))
            rows.append({"requests_per_second": rate, **found})
            print(f"  {rows[-1]}", flush=True)
    rates = " ".join(f"{rate:g}" for rate in args.rates)
    command = f"python -m benchmarks.latency --workload {args.workload} --rates {rates} --seconds {args.seconds:g}"
    command += f" --options '{json.dumps(args.options)}'" * bool(args.options)
    report = {
        **head("waits while requests arrive at several rates", command, machine),
        "model": workload.model,
        "max_batch_size": batch,
        "options": options,
        "seconds": args.seconds,
        "rates": rows,
    }
    fused = "-fused" if options.get("fuse_prefill") else ""
    path = write(report, args.output, f"latency-{args.workload}{fused}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
