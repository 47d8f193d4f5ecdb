"""Output tokens per second on a GPU: fixed workloads, random weights of real shapes, one engine at a time.

    python -m benchmarks.throughput --workload gemma2                      # this engine
    python -m benchmarks.throughput --workload qwen3 --engine transformers-cb
    python -m benchmarks.throughput --workload gemma2 --max-batch-size 512 --output DIR

Greedy, the end of sequence ignored.  First a rehearsal with other prompts, in which everything is compiled and recorded, then
the workload `--repeats` times; the median counts.  Results go to a JSON file for each card, workload, engine and batch size.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_code, describe_machine, slug, versions

RESULTS = Path(__file__).with_name("results")
Requests = list[tuple[list[int], int]]
"""Token ids of a prompt, and how many tokens to write after it."""


@dataclass(frozen=True)
class Workload:
    """A model's shape and the lengths of its requests, drawn uniformly, both ends included."""

    model: str
    requests: int
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    vocabulary: int  # ids are drawn below it
    max_batch_size: int
    max_seq_length: int

    def make(self, seed: int = 0) -> Requests:
        rng = random.Random(seed)
        return [
            (
                [rng.randrange(5, self.vocabulary) for _ in range(rng.randint(*self.prompt_tokens))],
                rng.randint(*self.output_tokens),
            )
            for _ in range(self.requests)
        ]


WORKLOADS = {
    "gemma2": Workload("Gemma-2-2B", 512, (16, 512), (128, 512), 250_000, 256, 1024),
    "qwen3": Workload("Qwen3-0.6B", 256, (100, 1024), (100, 1024), 10_000, 256, 2048),
}


def make_model(name: str, device: str = "cuda", layers: int | None = None) -> Any:
    """A model of transformers with a published shape and random weights in bfloat16."""
    from transformers import AutoConfig, AutoModelForCausalLM

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
    if layers is not None:
        shape["num_hidden_layers"] = layers
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


class Flexnano:
    """This engine."""

    def __init__(self, model: Any, workload: Workload, batch: int, options: dict[str, Any]) -> None:
        from flexnano import Inference

        page_size = options.pop("page_size", 64)
        pages = -(-workload.max_seq_length // page_size)
        options.setdefault("n_pages", min(batch * pages, workload_pages(workload, page_size, batch)))
        options.setdefault("max_prefill_tokens", 8192)
        self.engine = Inference(
            model, None, max_batch_size=batch, max_seq_length=workload.max_seq_length, page_size=page_size, **options
        )

    def run(self, requests: Requests) -> list[int]:
        from flexnano import SamplingParams

        results = self.engine.generate(
            [prompt for prompt, _ in requests],
            [SamplingParams(max_new_tokens=n, ignore_eos=True) for _, n in requests],
        )
        return [len(result.token_ids) for result in results]

    def facts(self) -> dict[str, Any]:
        stats = asdict(self.engine.stats)
        made = self.engine.fast.seconds_to_make if self.engine.fast is not None else {}
        return {
            "description": self.engine.describe().splitlines(),
            "stats_with_rehearsal": stats,
            "seconds_to_make": {what: round(seconds, 2) for what, seconds in made.items()},
        }

    def close(self) -> None:
        self.engine.close()


def workload_pages(workload: Workload, page_size: int, batch: int) -> int:
    """Pages for a batch in which every sequence is as long as the workload's longest."""
    longest = workload.prompt_tokens[1] + workload.output_tokens[1]
    return batch * -(-longest // page_size)


class TransformersStatic:
    """`model.generate` on left-padded batches, the surplus thrown away."""

    def __init__(self, model: Any, workload: Workload, batch: int, options: dict[str, Any]) -> None:
        self.model, self.batch = model, batch
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0

    def run(self, requests: Requests) -> list[int]:
        written = []
        for i in range(0, len(requests), self.batch):
            part = requests[i : i + self.batch]
            width = max(len(prompt) for prompt, _ in part)
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in part], device=self.model.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in part], device=self.model.device)
            longest = max(n for _, n in part)
            out = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=longest, min_new_tokens=longest, do_sample=False
            )
            written += [min(out.shape[1] - width, n) for _, n in part]
        torch.cuda.synchronize()
        return written

    def facts(self) -> dict[str, Any]:
        return {"attention": self.model.config._attn_implementation}

    def close(self) -> None:
        pass


class TransformersContinuous:
    """transformers' own continuous batching."""

    def __init__(self, model: Any, workload: Workload, batch: int, options: dict[str, Any]) -> None:
        from transformers import GenerationConfig

        self.model, self.batch, self.options = model, batch, options
        self.config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, use_cuda_graph=True)

    def run(self, requests: Requests) -> list[int]:
        manager = self.model.init_continuous_batching(generation_config=self.config)
        manager.start()
        try:
            for number, (prompt, n) in enumerate(requests):
                manager.add_request(prompt, request_id=str(number), max_new_tokens=n)
            written: dict[str, int] = {}
            while len(written) < len(requests):
                result = manager.get_result(timeout=60)
                if result is None:
                    raise RuntimeError("no result for a minute")
                if result.is_finished():
                    written[result.request_id] = len(result.generated_tokens)
        finally:
            manager.stop(block=True)
        return [written[str(number)] for number in range(len(requests))]

    def facts(self) -> dict[str, Any]:
        return {"attention": self.model.config._attn_implementation}

    def close(self) -> None:
        pass


ENGINES: dict[str, Callable[[Any, Workload, int, dict[str, Any]], Any]] = {
    "flexnano": Flexnano,
    "transformers-cb": TransformersContinuous,
    "transformers-static": TransformersStatic,
}
NEEDS = {"vllm": "vllm", "nano-vllm": "nanovllm", "flex-nano-vllm": "flex_nano_vllm"}


def measure(workload: Workload, engine: str, batch: int, repeats: int, options: dict[str, Any]) -> dict[str, Any]:
    """Rehearse with other prompts, run, and say what came out."""
    model = make_model(workload.model)
    torch.cuda.synchronize()
    began = time.perf_counter()
    one = ENGINES[engine](model, workload, batch, copy.deepcopy(options))
    one.run([([7] * 16, 2)])
    ready = time.perf_counter() - began
    if not repeats:
        return {"construction_to_first_token_seconds": round(ready, 1), **one.facts()}
    began = time.perf_counter()
    one.run(workload.make(seed=1))
    rehearsal = time.perf_counter() - began
    requests, seconds = workload.make(), []
    for _ in range(repeats):
        began = time.perf_counter()
        written = one.run(requests)
        seconds.append(time.perf_counter() - began)
        if written != [n for _, n in requests]:
            raise RuntimeError(f"{engine} did not write what was asked for: {sum(written)} tokens")
        print(f"  {sum(written) / seconds[-1]:,.0f} tokens/s", flush=True)
    tokens = sum(n for _, n in requests)
    result = {
        "output_tokens": tokens,
        "prompt_tokens": sum(len(prompt) for prompt, _ in requests),
        "seconds": seconds,
        "tokens_per_second": round(tokens / statistics.median(seconds), 1),
        "construction_to_first_token_seconds": round(ready, 1),
        "rehearsal_seconds": round(rehearsal, 1),
        "device_memory_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        **one.facts(),
    }
    one.close()
    return result


def main(argv: list[str]) -> dict[str, Any]:
    """Runs what the command line asks for; returns what it also writes as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), required=True)
    parser.add_argument("--engine", choices=[*ENGINES, *NEEDS], default="flexnano")
    parser.add_argument("--max-batch-size", type=int)
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
        raise SystemExit(f"{args.engine} is installed, but this benchmark does not know how to run it yet")
    workload = WORKLOADS[args.workload]
    batch = args.max_batch_size or workload.max_batch_size
    from flexnano import measure_machine

    rates = measure_machine("cuda", torch.bfloat16)
    machine = describe_machine("cuda") | {
        "bytes_per_second": rates.bytes_per_second,
        "flops_per_second": rates.flops_per_second,
    }
    print(f"{machine['name']}: {args.workload}, {args.engine}, {batch} at once", flush=True)
    report = {
        "what": "output tokens per second of one engine on a fixed workload"
        if args.repeats
        else "seconds from construction to the first token",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": "python -m benchmarks.throughput " + " ".join(argv),
        "code": describe_code(),
        "machine": machine,
        "versions": versions(),
        "workload": asdict(workload),
        "engine": args.engine,
        "max_batch_size": batch,
        "options": args.options,
        **measure(workload, args.engine, batch, args.repeats, args.options),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    what = "ready-" * (not args.repeats) + args.workload
    name = f"{what}-{args.engine}-{batch}-{slug(machine['name'])}.json"
    (args.output / name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"first token {report['construction_to_first_token_seconds']} s after construction began")
    if args.repeats:
        print(
            f"{report['tokens_per_second']:,.0f} tokens/s, the median of {args.repeats}; written to {args.output / name}"
        )
    return report
