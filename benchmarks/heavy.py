"""Output tokens per second on a GPU: fixed workloads, random weights of real shapes, one engine at a time.

    python -m benchmarks.throughput --workload gemma2                      # this engine
    python -m benchmarks.throughput --workload qwen3 --engine transformers-cb
    python -m benchmarks.throughput --workload gemma2 --max-batch-size 512 --output DIR
    python -m benchmarks.throughput --workload gemma2 --engine transformers-static --requests 64 --repeats 1

Greedy, the end of sequence ignored.  First a rehearsal with the same lengths and other tokens, in which everything is
compiled and recorded, then the workload `--repeats` times; the median counts.  Results go to a JSON file for each card,
workload, engine and batch size.  What takes minutes can be given the first `--requests` alone; its result is named a part,
and compared with parts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch

from benchmarks import engines
from benchmarks.engines import Engine, Limits
from benchmarks.machine import describe_machine, head, need_gpu, write
from benchmarks.peers import VLLM
from benchmarks.workload import Request

RESULTS = Path(__file__).with_name("results")
T = TypeVar("T")
Requests = list[tuple[list[int], int]]
"""Token ids of a prompt, and how many tokens to write after it."""


@dataclass(frozen=True)
class Workload:
    """A model's shape and the lengths of its requests, drawn uniformly, both ends included.

    All prompts begin with the same `common` tokens; `prompt_tokens` are those of their own.
    """

    model: str
    requests: int
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    vocabulary: int  # ids are drawn below it
    max_batch_size: int
    max_seq_length: int
    common: int = 0
    max_prefill_tokens: int = 8192

    @property
    def longest(self) -> int:
        return self.common + self.prompt_tokens[1] + self.output_tokens[1]

    def make(self, seed: int = 0) -> Requests:
        rng = random.Random(seed)
        beginning = [rng.randrange(5, self.vocabulary) for _ in range(self.common)]
        return [
            (
                beginning + [rng.randrange(5, self.vocabulary) for _ in range(rng.randint(*self.prompt_tokens))],
                rng.randint(*self.output_tokens),
            )
            for _ in range(self.requests)
        ]


def with_other_tokens(requests: Requests, vocabulary: int, by: int) -> Requests:
    """The same requests with every token moved on in the vocabulary: an engine takes the same steps for them, and what began
    alike still does.

    >>> with_other_tokens([([5, 6], 3), ([9], 1)], vocabulary=10, by=1)
    [([6, 7], 3), ([5], 1)]
    """
    return [([5 + (one - 5 + by) % (vocabulary - 5) for one in prompt], n) for prompt, n in requests]


WORKLOADS = {
    "gemma2": Workload("Gemma-2-2B", 512, (16, 512), (128, 512), 250_000, 256, 1024),
    "qwen3": Workload("Qwen3-0.6B", 256, (100, 1024), (100, 1024), 10_000, 256, 2048),
    "shared-prefix": Workload("Gemma-2-2B", 256, (64, 64), (128, 128), 250_000, 256, 2048, common=1024),
    "long": Workload("Qwen3-0.6B", 64, (8192, 32_000), (128, 512), 10_000, 16, 32_768, max_prefill_tokens=32_768),
}


def config_of(name: str) -> Any:
    """A published shape, as transformers has it."""
    from transformers import AutoConfig

    shape: dict[str, Any] = {
        "Gemma-2-2B": dict(
            model_type="gemma2",
            hidden_size=2304,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            intermediate_size=9216,
            vocab_size=256_000,
            sliding_window=4096,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            query_pre_attn_scalar=256,
        ),
        "Qwen3-0.6B": dict(
            model_type="qwen3",
            hidden_size=1024,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=3072,
            vocab_size=151_936,
            tie_word_embeddings=True,
            max_position_embeddings=40_960,
        ),
    }[name]
    return AutoConfig.for_model(shape.pop("model_type"), **shape)


def make_model(name: str) -> Any:
    """A model of transformers with a published shape and random weights in bfloat16."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


ENGINES = {"flexnano": "flexnano", "transformers-cb": "continuous", "transformers-static": "static"}
"""What they are called here and in engines.py."""
NEEDS = {"vllm": "vllm", "nano-vllm": "nanovllm", "flex-nano-vllm": "flex_nano_vllm"}


def make_engine(name: str, model: Any, workload: Workload, batch: int, options: dict[str, Any]) -> Engine:
    """One of engines.py or peers.py, with room for a batch in which every sequence is as long as the workload's longest."""
    page_size = options.get("page_size", 64)
    limits = Limits(batch, workload.max_seq_length, page_size, workload.max_prefill_tokens)
    if name == "vllm":
        return VLLM(config_of(workload.model), limits, options)
    n_pages = batch * -(-workload.longest // page_size)
    # Without a tokenizer this engine makes no text; the others only ask theirs for the padding.
    tokenizer = None if name == "flexnano" else SimpleNamespace(pad_token_id=0)
    room = {"n_pages" if name == "flexnano" else "num_blocks": n_pages}
    return engines.ENGINES[ENGINES[name]](model, tokenizer, limits, room | options)


def facts(engine: Engine) -> dict[str, Any]:
    """What an engine says of itself; this one also what it compiled and recorded."""
    said: dict[str, Any] = {"description": engine.describe().splitlines()}
    if isinstance(engine, engines.FlexNano):
        fast = engine.engine.fast
        made = fast.seconds_to_make if fast is not None else {}
        said["stats_with_rehearsal"] = asdict(engine.engine.stats)
        said["seconds_to_make"] = {what: round(seconds, 2) for what, seconds in made.items()}
        said["memory_gib"] = memory_of(engine.engine.model, engine.engine)
    return said


def memory_of(model: Any, engine: Any) -> dict[str, float]:
    """GiB on the device: what the weights take, the cache, and everything else that torch holds or has held at most."""
    storages = [p.untyped_storage() for p in model.parameters()]  # tied and merged weights share theirs
    weights = sum({one.data_ptr(): one.nbytes() for one in storages}.values())
    cache = sum(one.k_cache.nbytes + one.v_cache.nbytes for one in engine.caches)
    found = {"weights": weights, "cache": cache}
    if model.device.type == "cuda":
        known, reserved, (free, total) = weights + cache, torch.cuda.memory_reserved(), torch.cuda.mem_get_info()
        found |= {
            "other_held": torch.cuda.memory_allocated() - known,
            "other_at_most": torch.cuda.max_memory_allocated() - known,
            "reserved": reserved,
            "outside_torch": total - free - reserved,
        }
    return {what: round(n / 2**30, 3) for what, n in found.items()}


def measure(workload: Workload, name: str, batch: int, repeats: int, options: dict[str, Any]) -> dict[str, Any]:
    """Rehearse with other prompts, run, and say what came out."""
    model = make_model(workload.model) if name in ENGINES else None  # the others load their own
    torch.cuda.synchronize()
    began = time.perf_counter()
    engine = make_engine(name, model, workload, batch, options)
    engine.run([Request([7] * 16, 2)])
    ready = round(time.perf_counter() - began, 1)
    try:
        if not repeats:
            return {"construction_to_first_token_seconds": ready, **facts(engine)}
        began = time.perf_counter()
        made = workload.make()
        if isinstance(engine, engines.FlexNano) and engine.engine.fast is not None:
            run_until_compiled(
                engine.engine, lambda by: timed(engine, with_other_tokens(made, workload.vocabulary, by))
            )
        else:
            timed(engine, with_other_tokens(made, workload.vocabulary, by=100))
        rehearsed = time.perf_counter() - began
        seconds = []
        for repeat in range(repeats):
            # Whoever shares prefixes still has those of the last run, prompts and answers, and must not find all of them.
            requests = workload.make(repeat if workload.common else 0)
            taken, written = timed(engine, requests)
            if written != [n for _, n in requests]:
                raise RuntimeError(f"{name} did not write what was asked for: {sum(written)} tokens")
            seconds.append(taken)
            print(f"  {sum(written) / taken:,.0f} tokens/s", flush=True)
        tokens = sum(n for _, n in requests)
        return {
            "output_tokens": tokens,
            "prompt_tokens": sum(len(prompt) for prompt, _ in requests),
            "seconds": seconds,
            "tokens_per_second": round(tokens / statistics.median(seconds), 1),
            "construction_to_first_token_seconds": ready,
            "rehearsal_seconds": round(rehearsed, 1),
            "device_memory_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            **facts(engine),
        }
    finally:
        engine.close()


def run_until_compiled(engine: Any, run: Callable[[int], T]) -> T:
    """Run with 100, 101, … until nothing is left to be compiled and recorded; what the run gave in which nothing was."""
    seed = 100
    while True:
        made = len(engine.fast.seconds_to_make)
        found = run(seed)
        if len(engine.fast.seconds_to_make) == made:
            return found
        seed += 1


def timed(engine: Engine, requests: Requests) -> tuple[float, list[int]]:
    """Seconds of a run, and how many tokens each request got."""
    wanted = [Request(prompt, n) for prompt, n in requests]
    began = time.perf_counter()
    outcome = engine.run(wanted)
    return time.perf_counter() - began, [len(tokens) for tokens in outcome.tokens]


def main(argv: list[str]) -> dict[str, Any]:
    """Runs what the command line asks for; returns what it also writes as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), required=True)
    parser.add_argument("--engine", choices=[*ENGINES, *NEEDS], default="flexnano")
    parser.add_argument("--max-batch-size", type=int)
    parser.add_argument("--requests", type=int, help="only so many of the workload, the first ones")
    parser.add_argument(
        "--repeats", type=int, default=3, help="0: only how long the first token takes after construction"
    )
    parser.add_argument("--options", type=json.loads, default={}, help="for this engine, as JSON")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if args.engine in NEEDS:
        module = NEEDS[args.engine]
        if importlib.util.find_spec(module) is None:
            raise SystemExit(f"{args.engine} can't be imported here (no module {module}); its figures are in README.md")
        if args.engine != "vllm":
            raise SystemExit(f"{args.engine} is installed, but has no adapter in benchmarks/peers.py yet")
    need_gpu(f"benchmarks.throughput --workload {args.workload}")
    workload = WORKLOADS[args.workload]
    if args.requests:
        workload = replace(workload, requests=args.requests)
    batch = args.max_batch_size or workload.max_batch_size
    from flexnano import measure_machine

    rates = measure_machine("cuda", torch.bfloat16)
    machine = describe_machine("cuda") | {
        "bytes_per_second": rates.bytes_per_second,
        "flops_per_second": rates.flops_per_second,
    }
    print(f"{machine['name']}: {args.workload}, {args.engine}, {batch} at once", flush=True)
    what = "output tokens per second of one engine on a fixed workload"
    if not args.repeats:
        what = "seconds from construction to the first token"
    report = {
        **head(what, "python -m benchmarks.throughput " + " ".join(argv), machine),
        "workload": asdict(workload),
        "engine": args.engine,
        "max_batch_size": batch,
        "options": args.options,
        **measure(workload, args.engine, batch, args.repeats, args.options),
    }
    kind = "ready-" if not args.repeats else "part-" if args.requests else ""
    path = write(report, args.output, f"{kind}{args.workload}-{args.engine}-{batch}")
    print(f"first token {report['construction_to_first_token_seconds']} s after construction began")
    if args.repeats:
        print(f"{report['tokens_per_second']:,.0f} tokens/s, the median of {args.repeats}; written to {path}")
    return report
