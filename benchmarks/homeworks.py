"""What the homeworks gain on a GPU: each workload with the option and without, in one run on one card.

    python -m benchmarks.homeworks prefix    # 256 requests that begin with the same 1,024 tokens
    python -m benchmarks.homeworks fusion    # prompts of 4,096 tokens arrive while 60 others decode
    python -m benchmarks.homeworks window    # 32,768 tokens of one sequence with a window of 4,096

Random weights of real shapes in bfloat16, greedy, the end of sequence ignored.  Each engine first does a rehearsal with other
prompts, in which everything is compiled and recorded; it is not timed.  Results go to a JSON file for each card.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.heavy import RESULTS, make_model, run_until_compiled
from benchmarks.machine import describe_machine, head, need_gpu, write

Report = dict[str, Any]


def make(model: Any, batch: int, length: int, pages: int, **options: Any) -> Any:
    from flexnano import Inference

    return Inference(model, None, batch, length, pages, 64, **options)


def answered(engine: Any, prompts: list[list[int]], tokens: int) -> tuple[float, list[Any]]:
    """Seconds for all, and the results."""
    from flexnano import SamplingParams

    began = time.perf_counter()
    results = engine.generate(prompts, SamplingParams(max_new_tokens=tokens, ignore_eos=True))
    seconds = time.perf_counter() - began
    wrong = [result.error for result in results if len(result.token_ids) != tokens]
    if wrong:
        raise RuntimeError(f"{len(wrong)} requests did not get {tokens} tokens: {wrong[0]}")
    return seconds, results


# ---------------------------------------------------------------------- prefix sharing


def prefix(repeats: int) -> Report:
    """256 requests, a common prompt of 1,024 tokens, 64 of their own, 128 new ones."""
    common, own, new, n = 1024, 64, 128, 256
    page = 64

    def prompts(seed: int) -> list[list[int]]:
        rng = random.Random(seed)
        start = [rng.randrange(5, 250_000) for _ in range(common)]
        return [start + [rng.randrange(5, 250_000) for _ in range(own)] for _ in range(n)]

    pages_each = -(-(common + own + new) // page)
    report: Report = {"requests": n, "common": common, "own": own, "new": new, "model": "Gemma-2-2B"}
    for name, sharing in (("without", False), ("with", True)):
        model = make_model("Gemma-2-2B")
        # Seven prompts fill a prefill; for eight, which is the default at this size, it would wait in vain.
        options: dict[str, Any] = dict(max_prefill_tokens=8192, min_prefill=4, prefix_sharing=sharing)
        with make(model, n, 2048, n * pages_each, **options) as engine:
            answered(engine, prompts(100), new)
            timed = []
            for repeat in range(repeats):
                before = asdict(engine.stats)
                most = PagesInUse(engine)
                seconds, results = answered(engine, prompts(repeat), new)
                first = sorted(result.metrics.time_to_first_token for result in results)
                timed.append(
                    {
                        "seconds": round(seconds, 3),
                        "output_tokens_per_second": round(n * new / seconds, 1),
                        "last_first_token_seconds": round(first[-1], 3),
                        "prefilled_tokens": engine.stats.prefill_tokens - before["prefill_tokens"],
                        "pages_in_use_at_most": most.stop(),
                    }
                )
                print(f"  {name} sharing: {timed[-1]}", flush=True)
            report[name] = {
                "runs": timed,
                "output_tokens_per_second": statistics.median(run["output_tokens_per_second"] for run in timed),
                "last_first_token_seconds": statistics.median(run["last_first_token_seconds"] for run in timed),
                "prefilled_tokens": timed[-1]["prefilled_tokens"],
                "pages_in_use_at_most": timed[-1]["pages_in_use_at_most"],
                "seconds_to_make": engine.fast.seconds_to_make if engine.fast else {},
            }
        del model
        torch.cuda.empty_cache()
    report["throughput_gain"] = round(
        report["with"]["output_tokens_per_second"] / report["without"]["output_tokens_per_second"], 2
    )
    return report


class PagesInUse:
    """Watches how many pages have an owner, after each step."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.most, self._run = engine, 0, engine._advance
        engine._advance = self._step

    def _step(self) -> None:
        self._run()
        table = self.engine.page_table
        self.most = max(self.most, table.n_pages - table.pages_available)

    def stop(self) -> int:
        self.engine._advance = self._run
        return self.most


# ---------------------------------------------------------------------- fusion


def fusion(repeats: int) -> Report:
    """60 requests decode in a batch of 64; every 150 ms a prompt of 4,096 tokens arrives."""
    long, every, arrivals, chats, batch = 4096, 0.15, 24, 60, 64
    report: Report = {
        "model": "Gemma-2-2B",
        "decoding": chats,
        "max_batch_size": batch,
        "prompt_tokens": long,
        "seconds_between_arrivals": every,
        "arrivals": arrivals,
    }
    ways: dict[str, dict[str, Any]] = {
        "without": dict(max_prefill_tokens=8192, min_prefill=1),
        # Beside 60 to 64 that decode eleven rows of 64 tokens of prompts, or fifteen.  With 64 decode rows these are 768 and
        # 1,024 tokens in all, whole tiles of the products: 16 tokens more take 8% longer.
        "with": dict(max_prefill_tokens=8192, fuse_prefill=True, prefill_chunk=760),
        "with large parts": dict(max_prefill_tokens=8192, fuse_prefill=True, prefill_chunk=1016),
    }
    for name, options in ways.items():
        model = make_model("Gemma-2-2B")
        pages = chats * 24 + 16 * (long // 64 + 2)
        with make(model, batch, 4608, pages, **options) as engine:
            run_until_compiled(engine, lambda seed: stream_of_long_prompts(engine, chats, long, arrivals, every, seed))
            made, runs = len(engine.fast.seconds_to_make), []
            for repeat in range(repeats):
                runs.append(stream_of_long_prompts(engine, chats, long, arrivals, every, seed=repeat))
                print(f"  {name} fusion: {runs[-1]}", flush=True)
            if len(engine.fast.seconds_to_make) > made:
                raise RuntimeError(f"something was compiled while it was timed: {engine.fast.seconds_to_make}")
            middle = sorted(runs, key=lambda run: run["p99_ms"])[len(runs) // 2]
            report[name] = {
                "prefill_chunk": options.get("prefill_chunk"),
                **middle,
                "tokens_per_second": statistics.median(run["tokens_per_second"] for run in runs),
                "runs": runs,
                "seconds_to_make": engine.fast.seconds_to_make if engine.fast else {},
            }
        del model
        torch.cuda.empty_cache()
    without = report["without"]
    for name in list(ways)[1:]:
        report[name]["p99_times_lower"] = round(without["p99_ms"] / report[name]["p99_ms"], 2)
        report[name]["throughput_ratio"] = round(report[name]["tokens_per_second"] / without["tokens_per_second"], 3)
    return report


def stream_of_long_prompts(engine: Any, chats: int, long: int, arrivals: int, every: float, seed: int) -> Report:
    """Inter-token times of those who decode while long prompts arrive, and tokens of all by the second."""
    from flexnano import SamplingParams
    from flexnano.planner import inter_token_times

    rng = random.Random(seed)

    def ids(n: int) -> list[int]:
        return [rng.randrange(5, 250_000) for _ in range(n)]

    began = time.perf_counter()
    short = {
        engine.add_request(ids(256), SamplingParams(max_new_tokens=rng.randint(700, 900), ignore_eos=True))
        for _ in range(chats)
    }
    prompts = [ids(long) for _ in range(arrivals)]
    results, due = {}, began + every
    while engine.has_work or prompts:
        if prompts and time.perf_counter() >= due:
            engine.add_request(prompts.pop(), SamplingParams(max_new_tokens=32, ignore_eos=True))
            due += every
        for event in engine.run_one_step():
            if event.result is not None:
                results[event.request_id] = event.result
    seconds = time.perf_counter() - began
    # Only while long prompts come: the first second is the chats' own prompts, and at the end nobody comes any more.
    gaps = [results[number].metrics.inter_token_latencies[20:] for number in short]
    p50, p99 = inter_token_times([list(itertools.accumulate(one, initial=0.0)) for one in gaps])
    firsts = [r.metrics.time_to_first_token for n, r in results.items() if n not in short]
    tokens = sum(len(r.token_ids) + r.metrics.prompt_tokens for r in results.values())
    return {
        "p50_ms": round(1000 * p50, 2),
        "p99_ms": round(1000 * p99, 2),
        "longest_ms": round(1000 * max(map(max, gaps)), 2),
        "first_token_of_long_prompts_seconds": round(statistics.median(firsts), 3),
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
    }


# ---------------------------------------------------------------------- sliding window


def window(repeats: int) -> Report:
    """One sequence of 32,768 tokens, window 4,096: milliseconds a step and pages held, for each 1,024 tokens."""
    from flexnano import SamplingParams

    length, wide = 32_768, 4096
    report: Report = {"model": "Qwen3-0.6B", "tokens": length, "window": wide, "page_size": 64}
    rng = random.Random(0)
    prompt = [rng.randrange(5, 10_000) for _ in range(512)]
    for name, options in (
        ("with", dict(n=wide // 64 + 1 + 64, sliding_window=wide)),
        ("with sinks", dict(n=wide // 64 + 2 + 64, sliding_window=wide, attention_sinks=4, until=9216)),
    ):
        model = make_model("Qwen3-0.6B")
        pages, until = options.pop("n"), options.pop("until", length)
        with make(model, 1, length, pages, max_prefill_tokens=2048, **options) as engine:
            engine.add_request(prompt, SamplingParams(max_new_tokens=until - 512, ignore_eos=True))
            engine.run_one_step()
            for _ in range(64):
                engine.run_one_step()
            table, points = engine.page_table, []
            last = time.perf_counter()
            steps = 0
            while engine.has_work:
                engine.run_one_step()
                steps += 1
                if steps % 1024 == 0:
                    torch.cuda.synchronize()
                    now = time.perf_counter()
                    points.append(
                        {
                            "position": 512 + 64 + steps,
                            "ms_a_step": round((now - last) * 1000 / 1024, 3),
                            "pages": table.n_pages - table.pages_available,
                            "gib": round(torch.cuda.memory_allocated() / 2**30, 3),
                        }
                    )
                    last = now
            report[name] = {"pages_of_the_pool": pages, "points": points}
            print(f"  {name}: {points[0]} … {points[-1]}", flush=True)
        del model
        torch.cuda.empty_cache()
    model = make_model("Qwen3-0.6B")
    with make(model, 1, length, length // 64, max_prefill_tokens=8192) as engine:
        points = []
        for position in (4096, 8192, 16_384, 32_000):
            engine.add_request(
                [rng.randrange(5, 10_000) for _ in range(position)], SamplingParams(max_new_tokens=200, ignore_eos=True)
            )
            for _ in range(40):
                engine.run_one_step()
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(100):
                engine.run_one_step()
            torch.cuda.synchronize()
            table = engine.page_table
            points.append(
                {
                    "position": position,
                    "ms_a_step": round((time.perf_counter() - began) * 10, 3),
                    "pages": table.n_pages - table.pages_available,
                }
            )
            while engine.has_work:
                engine.run_one_step()
        report["without"] = {"pages_of_the_pool": length // 64, "points": points}
        print(f"  without: {points}", flush=True)
    return report


WORKLOADS: dict[str, Callable[[int], Report]] = {"prefix": prefix, "fusion": fusion, "window": window}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.homeworks", description=__doc__)
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    need_gpu("benchmarks.homeworks")
    machine = describe_machine("cuda")
    print(f"{machine['name']}: {args.workload}", flush=True)
    command = f"python -m benchmarks.homeworks {args.workload} --repeats {args.repeats}"
    report = {
        **head((WORKLOADS[args.workload].__doc__ or "").strip(), command, machine),
        **WORKLOADS[args.workload](args.repeats),
    }
    path = write(report, args.output, f"homework-{args.workload}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
