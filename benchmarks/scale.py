"""How the engine behaves as things grow: sequences at once, requests that wait, tokens in a sequence, pages in the pool.

    python -m benchmarks.scale                  # all; needs a GPU, some five minutes
    python -m benchmarks.scale sequences        # 1 to 1,024 rows in a decode step: tokens/s, the host's time, the bound
    python -m benchmarks.scale requests         # 64 to 8,192 requests at once: tokens/s
    python -m benchmarks.scale context          # 1 and 8 rows of 512 to 32,000 tokens in a large pool, by form of the mask
    python -m benchmarks.scale pages            # the page table alone, on the host: pools of 1,024 to 262,144 pages
    python -m benchmarks.scale picture          # draws what was measured on a GPU

Qwen3-0.6B's shape with random weights.  What is measured has been run before, so that nothing is compiled in it.  Memory
outside weights and cache is noted beside each.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.bound import H100, decode_seconds
from benchmarks.heavy import RESULTS, Workload, make_model, memory_of, run_until_compiled
from benchmarks.machine import describe_machine, head, need_gpu, write
from benchmarks.step import fill, time_steps

Row = dict[str, Any]
Say = Callable[[str], None]
PAGE = 32


def steady_steps(engine: Any, rows: int, context: int, steps: int) -> Row:
    """What a decode step takes while `rows` sequences of some `context` tokens run, and nobody comes or goes."""
    numbers = fill(engine, rows, context, engine.max_seq_length, engine.vocab_size)
    for _ in range(4):
        engine.run_one_step()
    _, taken = time_steps(engine, rows, steps)
    cached = sum(len(sequence) for sequence in engine.scheduler.running)
    for number in numbers:
        engine.abort(number)
    while engine.has_work:
        engine.run_one_step()
    return {"rows": rows, "context": round(cached / rows), **taken}


# ---------------------------------------------------------------------- sequences


def sequences(model: Any, counts: Sequence[int], say: Say, context: int = 256, steps: int = 48) -> Row:
    """Tokens a second of decode by rows at once, beside the least that reading weights and cache takes."""
    from flexnano import Inference, kv_bytes_per_token

    weights = sum(p.numel() for p in model.parameters())
    longest = context + 2 * steps + 64
    most = max(counts)
    pages = most * -(-longest // PAGE)
    cases: list[Row] = []
    with Inference(
        model, None, most, longest, pages, PAGE, max_prefill_tokens=8192, min_prefill=1, fast=True
    ) as engine:
        kv_bytes = kv_bytes_per_token(engine.layers, engine.dtype)
        for rows in counts:
            steady_steps(engine, rows, context, 2)  # compiles and records
            row = steady_steps(engine, rows, context, steps)
            least = decode_seconds(H100, weights, kv_bytes, rows, rows * row["context"])
            cases.append(
                {**row, "bound_ms": round(1000 * least, 3), "of_the_bound": round(1000 * least / row["ms"], 3)}
            )
            say(f"  {cases[-1]}")
        return {"cases": cases, "memory_gib": memory_of(model, engine), "max_batch_size": most, "pages": pages}


# ---------------------------------------------------------------------- requests


def answer(engine: Any, workload: Workload, n: int, clock: Callable[[], float]) -> Row:
    """What an engine takes for n requests of a workload, from the beginning again where it has fewer."""
    from flexnano import SamplingParams

    made = list(itertools.islice(itertools.cycle(workload.make()), n))
    params = [SamplingParams(max_new_tokens=new, ignore_eos=True) for _, new in made]

    def once(_seed: int) -> Row:
        before, began = replace(engine.stats), clock()
        results = engine.generate([prompt for prompt, _ in made], params)
        seconds, tokens = clock() - began, sum(new for _, new in made)
        assert [len(one.token_ids) for one in results] == [new for _, new in made]
        decodes = engine.stats.decode_steps - before.decode_steps
        return {
            "min_prefill": engine.scheduler.min_prefill,
            "requests": n,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            "prefills": engine.stats.prefill_steps - before.prefill_steps,
            "decode_steps": decodes,
            "rows_a_step": round((tokens - n) / decodes, 1),
        }

    return run_until_compiled(engine, once)


def requests(
    model: Any,
    counts: Sequence[int],
    say: Say,
    workload: Workload,
    admissions: Sequence[int | None] = (8, None),
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Tokens a second by requests that all come at once, and by how many newcomers make a prefill (`min_prefill`)."""
    from flexnano import Inference

    batch = workload.max_batch_size
    pages = batch * -(-workload.longest // PAGE)
    cases: list[Row] = []
    for min_prefill in admissions:
        options: Row = {"max_prefill_tokens": 8192, "min_prefill": min_prefill, "fast": True}
        with Inference(model, None, batch, workload.max_seq_length, pages, PAGE, **options) as engine:
            for n in counts:
                cases.append(answer(engine, workload, n, clock))
                say(f"  {cases[-1]}")
            memory = memory_of(model, engine)
    return {
        "cases": cases,
        "memory_gib": memory,
        "max_batch_size": batch,
        "prompt_tokens": workload.prompt_tokens,
        "output_tokens": workload.output_tokens,
    }


# ---------------------------------------------------------------------- context


def context(model: Any, rows: Sequence[int], contexts: Sequence[int], say: Say, steps: int = 24) -> Row:
    """A decode step by the length of its rows, with one list of pages and with two (`DecodeMask.one_list`)."""
    from flexnano import Inference, kv_bytes_per_token

    most = max(rows)
    longest = max(contexts) + 2 * steps + 32
    pages = most * -(-longest // PAGE)
    cases: list[Row] = []
    with Inference(
        model, None, most, longest, pages, PAGE, max_prefill_tokens=longest, min_prefill=1, fast=True
    ) as engine:
        assert engine.fast is not None
        chosen = engine.fast.few_rows
        for lists, few_rows in (("chosen", chosen), ("two", 0)) if chosen else (("chosen", 0),):
            engine.fast.few_rows = few_rows
            engine.fast.graphs.clear()  # they have recorded the other form
            for n, length in itertools.product(rows, contexts):
                steady_steps(engine, n, length, 2)
                row = steady_steps(engine, n, length, steps)
                cases.append({"lists": "one" if n <= few_rows else "two", "asked": lists, **row})
                say(f"  {cases[-1]}")
        return {
            "cases": cases,
            "memory_gib": memory_of(model, engine),
            "max_batch_size": most,
            "pages": pages,
            "kv_bytes_per_token": kv_bytes_per_token(engine.layers, engine.dtype),
        }


# ---------------------------------------------------------------------- the page table


def pages(pools: Sequence[int], touched: Sequence[int], say: Say, rounds: int = 200) -> Row:
    """Microseconds to reserve and to give back some pages, in pools of several sizes of which half is in use."""
    from flexnano import PageTable

    cases: list[Row] = []
    for pool in pools:
        table = PageTable(pool, PAGE, 9, pool * PAGE)
        others = [table.allocate() for _ in range(8)]
        for other in others:
            assert table.reserve(other, pool // 16 * PAGE)
        for n in touched:
            if n > pool // 2:
                continue
            reserving, erasing = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                slot = table.allocate()
                table.reserve(slot, n * PAGE)
                between = time.perf_counter()
                table.erase(slot)
                reserving.append(between - began)
                erasing.append(time.perf_counter() - between)
            cases.append(
                {
                    "pool": pool,
                    "touched": n,
                    "reserve_us": round(1e6 * statistics.median(reserving), 2),
                    "erase_us": round(1e6 * statistics.median(erasing), 2),
                }
            )
            say(f"  {cases[-1]}")
    return {"cases": cases}


# ---------------------------------------------------------------------- all of it

MANY = Workload("Qwen3-0.6B", 8192, (64, 192), (64, 192), 10_000, 512, 512)
WORK: dict[str, Callable[[Any, Say], Row]] = {
    "sequences": lambda model, say: sequences(model, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024], say),
    "requests": lambda model, say: requests(model, [64, 256, 512, 1024, 2048, 4096, 8192], say, MANY),
    "context": lambda model, say: context(model, [1, 8], [512, 2048, 8192, 32_000], say),
    "pages": lambda _model, say: pages([2**10, 2**14, 2**18], [1, 16, 256, 4096], say),
}


# ---------------------------------------------------------------------- the picture


def draw(results: Path, card: str) -> Path:
    """Three plots of what was measured on a card: by rows at once, by the length of the rows, by requests."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flexnano.viz import INK, OWNERS, STYLE

    def found(what: str) -> Row:
        return dict(json.loads((results / f"scale-{what}-{card}.json").read_text(encoding="utf-8")))

    with plt.rc_context(STYLE):
        figure, (above, middle, below) = plt.subplots(3, 1, figsize=(6.8, 9.0), layout="constrained")
        rows = found("sequences")["cases"]
        at = [one["rows"] for one in rows]
        above.plot(at, [one["ms"] for one in rows], "o-", ms=4, color=OWNERS[4], label="a step")
        above.plot(at, [one["bound_ms"] for one in rows], "--", color=INK, label="weights and cache read")
        above.plot(at, [one["host_ms"] for one in rows], ":", color=INK, label="the host works")
        above.set(
            xscale="log",
            yscale="log",
            xlabel="sequences at once →",
            ylabel="ms",
            title="a step with rows of some 300 tokens",
        )
        rows, pool = found("context")["cases"], found("context")["pages"] * PAGE
        for n, marker in ((1, "o"), (8, "s")):
            for lists, line, colour in (("one", "-", OWNERS[4]), ("two", "--", INK)):
                own = [one for one in rows if one["rows"] == n and one["lists"] == lists]
                at = [one["context"] for one in own]
                label = f"{n} row{'s' * (n > 1)}, {lists} list{'s' * (lists == 'two')}"
                middle.plot(at, [one["ms"] for one in own], line + marker, ms=4, color=colour, label=label)
        middle.set(
            xscale="log",
            yscale="log",
            xlabel="tokens of each row →",
            ylabel="ms",
            title=f"a step with long rows in a pool of {pool:,} tokens",
        )
        rows = found("requests")["cases"]
        for n, line in zip(dict.fromkeys(one["min_prefill"] for one in rows), ("o-", "s--"), strict=False):
            own = [one for one in rows if one["min_prefill"] == n]
            at = [one["requests"] for one in own]
            rates = [one["tokens_per_second"] for one in own]
            below.plot(at, rates, line, ms=4, color=OWNERS[4], label=f"prefill from {n} newcomers")
        below.set(
            xscale="log",
            ylim=(0, None),
            xlabel="requests →",
            ylabel="output tokens/s",
            title="requests that come at once, 512 of them running",
        )
        ticks = ((above, (1, 16, 64, 256, 1024)), (middle, (512, 2048, 8192, 32_000)), (below, (64, 512, 2048, 8192)))
        for ax, numbers in ticks:
            ax.set_xticks(numbers, [f"{n:,}" for n in numbers])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.legend(fontsize=9)
        above.set_yticks((0.1, 1, 2, 5, 10, 20), ("0.1", "1", "2", "5", "10", "20"))
        middle.set_yticks((1, 2, 5, 10, 20), ("1", "2", "5", "10", "20"))
        below.set_yticks((0, 20_000, 40_000, 60_000), ("0", "20,000", "40,000", "60,000"))
        path = results / f"scale-{card}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*WORK, "picture", []], help="default: all")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    asked = args.what or list(WORK)
    if asked == ["picture"]:
        for path in sorted(args.output.glob("scale-sequences-*.json")):
            print(f"drawn to {draw(args.output, path.stem.removeprefix('scale-sequences-'))}")
        return
    on_a_gpu = asked != ["pages"]
    if on_a_gpu:
        need_gpu(f"benchmarks.scale {' '.join(name for name in asked if name != 'pages')}")
    model = make_model(MANY.model) if on_a_gpu else None
    for name in asked:
        machine = describe_machine("cpu" if name == "pages" else "cuda")
        print(f"{machine['name']}: {name}", flush=True)
        report: Row = head(f"how the engine scales: {name}", f"python -m benchmarks.scale {name}", machine)
        report |= WORK[name](model, lambda line: print(line, flush=True))
        print(f"written to {write(report, args.output, f'scale-{name}')}", flush=True)
        gc.collect()
        if on_a_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
