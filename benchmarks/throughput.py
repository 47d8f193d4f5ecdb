"""Tokens per second of this engine and of three ways to generate with transformers, on one workload, in one run.

    python -m benchmarks.throughput                 # the run that is reported; about 18 minutes on two quiet cores
    python -m benchmarks.throughput --quick         # does it run at all: minutes, numbers without meaning
    python -m benchmarks.throughput --resume        # goes on after an interruption
    python -m benchmarks.throughput --option-sweep  # also this engine's own options; some minutes more
    python -m benchmarks.throughput --workload gemma2 --engine flexnano    # on a GPU: benchmarks/heavy.py

See benchmarks/README.md for what is measured, and how fairly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.child import Job, launch
from benchmarks.engines import LABELS
from benchmarks.machine import describe_code, describe_machine, need_gpu, slug, versions
from benchmarks.report import draw, print_table
from benchmarks.workload import Shape, describe, make_workload

RESULTS = Path(__file__).with_name("results")
FULL = Shape()
SAMPLE = Shape(requests=16, shorten_prompts=4, shorten_outputs=4)  # for the sweeps: the same proportions
TOKENS = Shape(requests=24, shorten_outputs=4)  # for comparing tokens in float32: requests that come and go
QUICK = Shape(requests=4, prompt_tokens=(8, 32), output_tokens=(4, 8))
NOT_TIMED = -1  # a repeat that doesn't count
NEAR_TIE = 1e-3  # logits; float32 sums in another order differ by about 1e-4 here

Result = dict[str, Any]
Launch = Callable[[Job], Result]


@dataclass
class Bench:
    """The run's arguments, and a log of finished jobs, which lets an interrupted run go on."""

    model: str
    engines: list[str]
    device: str
    max_batch_size: int
    shape: Shape
    sample: Shape
    tokens: Shape
    engine_options: dict[str, Any]
    launch: Launch
    code: Result  # the commit: a job that other code has done is not this one
    log: Path
    done: dict[str, Result]

    def run(self, what: str, job: Job, repeat: int = 0) -> Result:
        """The result of `job`, from the log if it is there. `what` is shown while it runs."""
        key = hashlib.sha256(json.dumps([asdict(job), repeat, self.code], sort_keys=True).encode()).hexdigest()
        if key not in self.done:
            print(f"  {what:58}", end=" ", flush=True)
            began = time.perf_counter()
            result = self.launch(job)
            self.done[key] = result
            with self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps([key, result]) + "\n")
            print(outline(result), f"({time.perf_counter() - began:.0f} s in all)", flush=True)
        return self.done[key]

    def job(self, engine: str, dtype: str, threads: int, shape: Shape) -> Job:
        """A timed run. The warm-up has other text where there is nothing to compile, and is shorter."""
        short = replace(shape, seed=shape.seed + 1, shorten_outputs=8 * shape.shorten_outputs)
        # Only this engine compiles anything: the same lengths once before make sure that all of it is compiled.
        warm_up = {"flexnano": shape, "one_by_one": replace(short, requests=2)}.get(engine, short)
        return Job(
            kind="run",
            model=self.model,
            engine=engine,
            dtype=dtype,
            threads=threads,
            device=self.device,
            max_batch_size=self.max_batch_size,
            options=self.engine_options if engine == "flexnano" else {},
            workload=asdict(shape),
            warm_up=asdict(warm_up),
        )


def main(argv: list[str] | None = None, launch: Launch = launch) -> Result:
    """Runs what the command line asks for; returns what it also writes as JSON."""
    arguments = sys.argv[1:] if argv is None else argv
    if any(argument.startswith("--workload") for argument in arguments):
        from benchmarks import heavy

        return heavy.main(arguments)
    began, args = time.time(), parse(argv)
    machine = describe_machine(args.device)
    name = f"throughput-{args.device}-{slug(machine['name'])}" + ("-quick" if args.quick else "")
    args.output.mkdir(parents=True, exist_ok=True)
    log = args.output / f".{name}.jobs.jsonl"
    if not args.resume:
        log.unlink(missing_ok=True)
    bench = Bench(
        model=str(args.model or embedded_model()),
        engines=args.engines,
        device=args.device,
        max_batch_size=args.max_batch_size,
        shape=QUICK if args.quick else FULL,
        sample=QUICK if args.quick else SAMPLE,
        tokens=QUICK if args.quick else TOKENS,
        engine_options={"attention": args.attention} if args.attention else {},
        launch=launch,
        code=describe_code(),
        log=log,
        done=read_log(log),
    )
    settings = [("float32", 1)] if args.quick else settings_to_try(args.device)

    print(f"{machine['name']}, {machine['cores']} cores; {', '.join(f'{k} {v}' for k, v in versions().items())}")
    sweep = sweep_settings(bench, settings)
    best = {engine: fastest(sweep, engine) for engine in bench.engines}
    runs = measure(bench, best, 1 if args.quick else args.repeats)
    report: Result = {
        "what": "output tokens per second of several engines on one workload of mixed lengths; greedy, no end of sequence",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(began)),
        "command": "python -m benchmarks.throughput " + " ".join(sys.argv[1:] if argv is None else argv),
        "code": bench.code,
        "machine": machine,
        "versions": versions(),
        "model": Path(bench.model).name,
        "max_batch_size": bench.max_batch_size,
        "workload": describe_workload(bench),
        "engines": {engine: summarise(runs[engine], best[engine]) for engine in bench.engines},
        "ratios": ratios(runs),
        "tokens": compare_tokens(bench, best),
        "sweep": sweep,
        "sweep_workload": asdict(bench.sample),
        "option_sweep": sweep_options(bench, best["flexnano"]) if args.option_sweep else [],
    }
    report["seconds_in_all"] = round(time.time() - began, 1)
    path = args.output / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_table(report)
    for picture in [] if args.no_plot else draw(report, args.output / name):
        print(f"wrote {picture}")
    print(f"wrote {path} after {report['seconds_in_all']:.0f} s")
    log.unlink(missing_ok=True)
    return report


def parse(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="folder of a transformers model (default: the embedded one)")
    parser.add_argument("--engines", nargs="+", choices=list(LABELS), default=list(LABELS), help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each engine (default 3)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None, help="default: cuda if there is one")
    parser.add_argument("--max-batch-size", type=int, default=16, help="rows of a batch, of all batching engines (16)")
    parser.add_argument("--attention", choices=["compiled", "gather", "eager"], help="this engine's attention path")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and pictures")
    parser.add_argument("--quick", action="store_true", help="a few short requests, one setting, one repeat")
    parser.add_argument("--resume", action="store_true", help="keep the finished jobs of an interrupted run")
    parser.add_argument(
        "--option-sweep", action="store_true", help="also this engine's options, on the sweep's requests"
    )
    parser.add_argument("--no-plot", action="store_true")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.max_batch_size < 1:
        parser.error("--repeats and --max-batch-size must be at least 1")
    if args.option_sweep and "flexnano" not in args.engines:
        parser.error("--option-sweep is about flexnano, which --engines leaves out")
    if args.device is None:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    elif args.device == "cuda":
        need_gpu("benchmarks.throughput --device cuda")
    return args


def embedded_model() -> Path:
    from course.model import ensure_model

    return ensure_model()


def settings_to_try(device: str) -> list[tuple[str, int]]:
    """(dtype, threads) pairs. On a GPU the host's threads don't matter, and float32 is nobody's fastest."""
    if device == "cuda":
        return [("bfloat16", 1), ("float16", 1)]
    threads = sorted({1, os.cpu_count() or 1})
    return [(dtype, n) for dtype in ("float32", "bfloat16") for n in threads]


def sweep_settings(bench: Bench, settings: list[tuple[str, int]]) -> list[Result]:
    """Every engine with every setting, once, on fewer and shorter requests of the same proportions."""
    print(f"sweep: {len(settings)} settings for {len(bench.engines)} engines")
    rows = []
    for dtype, threads in settings:
        for engine in bench.engines:
            sample = replace(bench.sample, requests=4) if engine == "one_by_one" else bench.sample
            result = bench.run(f"{engine}, {dtype}, {threads} thread(s)", bench.job(engine, dtype, threads, sample))
            rows.append({"engine": engine, "dtype": dtype, "threads": threads, **without_tokens(result)})
    return rows


def fastest(sweep: list[Result], engine: str) -> Result:
    """The sweep's best row for `engine`; {"error": …} if no setting ran."""
    rows = [row for row in sweep if row["engine"] == engine]
    ran = [row for row in rows if "error" not in row]
    return max(ran, key=lambda row: row["output_tokens"] / row["seconds"]) if ran else rows[0]


def measure(bench: Bench, best: dict[str, Result], repeats: int) -> dict[str, list[Result]]:
    """All engines once, then all again, so that a drift of the machine hits all alike; each round starts with another."""
    runs: dict[str, list[Result]] = {engine: [] for engine in bench.engines}
    for repeat in range(repeats):
        print(f"round {repeat + 1} of {repeats}")
        for engine in rotate(bench.engines, repeat):
            if "error" in best[engine]:
                continue
            job = bench.job(engine, best[engine]["dtype"], best[engine]["threads"], bench.shape)
            runs[engine].append(bench.run(f"{engine}, {job.dtype}, {job.threads} thread(s)", job, repeat + 1))
    return runs


def rotate(engines: list[str], by: int) -> list[str]:
    by %= len(engines)
    return engines[by:] + engines[:by]


def summarise(runs: list[Result], setting: Result) -> Result:
    """Medians and the spread of the runs of one engine, or the reason why there are none."""
    good = [run for run in runs if "error" not in run]
    if not good:
        return {"error": (runs[0] if runs else setting)["error"]}
    first = sorted(
        statistics.median(column) for column in zip(*(run["first_token_seconds"] for run in good), strict=True)
    )
    return {
        "setting": {"dtype": setting["dtype"], "threads": setting["threads"], "description": good[0]["description"]},
        "output_tokens_per_second": spread([run["output_tokens"] / run["seconds"] for run in good]),
        "total_tokens_per_second": spread(
            [(run["output_tokens"] + run["prompt_tokens"]) / run["seconds"] for run in good]
        ),
        "seconds": spread([run["seconds"] for run in good]),
        "first_token_seconds": {
            "median": statistics.median(first),
            "p90": first[int(0.9 * (len(first) - 1))],
            "max": first[-1],
        },
        "runs": [without_tokens(run) for run in runs],
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(runs: dict[str, list[Result]]) -> Result:
    """This engine's speed over each other's, round by round: neighbours in time shared the machine's mood."""
    others = [engine for engine in runs if engine != "flexnano"] if runs.get("flexnano") else []
    pairs = {
        other: [
            b["seconds"] / a["seconds"]
            for a, b in zip(runs["flexnano"], runs[other], strict=False)
            if "error" not in a | b
        ]
        for other in others
    }
    return {f"flexnano / {other}": spread(values) for other, values in pairs.items() if values}


def compare_tokens(bench: Bench, best: dict[str, Result]) -> Result:
    """Are the engines' float32 tokens the same, and the model's own choice?"""
    print("tokens in float32")
    outputs: dict[str, Result] = {}
    for engine in bench.engines:
        if "error" not in best[engine]:
            job = bench.job(engine, "float32", best[engine]["threads"], bench.tokens)
            outputs[engine] = bench.run(f"{engine}, float32", job, NOT_TIMED)
    return check(bench, {engine: run for engine, run in outputs.items() if "error" not in run})


def check(bench: Bench, outputs: dict[str, Result]) -> Result:
    """Rows equal between each pair of engines, and each token's distance from the largest logit of a plain forward."""
    names = list(outputs)
    equal = {
        f"{a} = {b}": sum(x == y for x, y in zip(outputs[a]["tokens"], outputs[b]["tokens"], strict=True))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    }
    rows = [(p, t) for run in outputs.values() for p, t in zip(run["prompts"], run["tokens"], strict=True)]
    distinct = [json.loads(row) for row in sorted({json.dumps(row) for row in rows})]
    job = Job(
        "check",
        bench.model,
        device=bench.device,
        threads=1 if bench.device == "cuda" else os.cpu_count() or 1,
        rows=distinct,
    )
    result = bench.run("the model's own choice, teacher-forced", job)
    if "error" in result:
        return {"error": result["error"], "rows_equal": equal}
    found = {json.dumps(row): i for i, row in enumerate(distinct)}
    engines = {}
    for name, run in outputs.items():
        at = [found[json.dumps(row)] for row in zip(run["prompts"], run["tokens"], strict=True)]
        worst = [result["worst_distance"][i] for i in at]
        engines[name] = {
            "near_ties_broken_otherwise": sum(
                result["tokens_not_first"][i] for i in at if result["worst_distance"][i] <= NEAR_TIE
            ),
            "rows_with_a_wrong_token": sum(distance > NEAR_TIE for distance in worst),
            "largest_distance": max(worst),
        }
    return {
        "dtype": "float32",
        "rows": len(next(iter(outputs.values()))["tokens"]) if outputs else 0,
        "near_tie_means_within": NEAR_TIE,
        "rows_equal": equal,
        "engines": engines,
    }


def sweep_options(bench: Bench, setting: Result) -> list[Result]:
    """This engine with one option changed at a time, in its fastest dtype and thread count."""
    if "error" in setting:
        return []
    base = bench.job(
        "flexnano", setting["dtype"], setting["threads"], replace(bench.sample, requests=bench.shape.requests)
    )
    jobs = [replace(base, options={**base.options, "attention": path}) for path in ("compiled", "gather")]
    jobs += [replace(base, options={**base.options, "page_size": size, "n_pages": None}) for size in (16, 32, 64, 128)]
    jobs += [replace(base, max_batch_size=rows) for rows in (8, 16, 32)]
    table = []
    print("options of this engine")
    for job in jobs:
        changed = {k: v for k, v in job.options.items() if v is not None} | {"max_batch_size": job.max_batch_size}
        result = bench.run(", ".join(f"{k} {v}" for k, v in changed.items()), job)
        table.append({**changed, "dtype": job.dtype, "threads": job.threads, **without_tokens(result)})
    return table


def describe_workload(bench: Bench) -> Result:
    from transformers import AutoTokenizer

    requests = make_workload(AutoTokenizer.from_pretrained(bench.model), bench.shape)
    return {"shape": asdict(bench.shape), **describe(requests, bench.max_batch_size)}


def without_tokens(result: Result) -> Result:
    return {k: v for k, v in result.items() if k not in ("tokens", "prompts", "first_token_seconds")}


def outline(result: Result) -> str:
    if "error" in result:
        return "failed: " + result["error"].splitlines()[-1][:100]
    if "seconds" not in result:
        return "done"
    busy = (
        f", {result['cpu_share_of_others']:.0%} of the CPU used by others"
        if result["cpu_share_of_others"] > 0.05
        else ""
    )
    return f"{result['output_tokens'] / result['seconds']:7.1f} tokens/s{busy}"


def read_log(path: Path) -> dict[str, Result]:
    """Finished jobs; a line cut short by an interruption is left out."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            key, result = json.loads(line)
        except ValueError:
            continue
        if "error" not in result:
            done[key] = result
    return done


if __name__ == "__main__":
    main()
