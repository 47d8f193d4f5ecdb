"""One job in a process of its own: a timed run of one engine, or the check of the tokens that the engines wrote.

`python -m benchmarks.child JOB.json RESULT.json`; made by `launch`, which a test replaces by `work`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 900  # seconds


@dataclass(frozen=True)
class Job:
    """`kind` "run": time one engine. `kind` "check": compare `rows` (prompt, output) with the model's own choice."""

    kind: str
    model: str
    engine: str = ""
    dtype: str = "float32"
    threads: int = 1
    device: str = "cpu"
    max_batch_size: int = 16
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the engine itself
    workload: dict[str, Any] = field(default_factory=dict)  # of Shape
    warm_up: dict[str, Any] = field(default_factory=dict)  # of Shape
    rows: list[tuple[list[int], list[int]]] = field(default_factory=list)


def launch(job: Job) -> dict[str, Any]:
    """Does `job` in a fresh process. Returns what `work` returns, or {"error": the last lines it wrote}."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "job.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(asdict(job)))
        env = os.environ | {
            "FLEXNANO": os.environ.get("FLEXNANO", "solutions"),
            "OMP_NUM_THREADS": str(job.threads),  # set before torch loads, so that its pool is never larger
            "MKL_NUM_THREADS": str(job.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "benchmarks.child", str(asked), str(answered)]
        try:
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than {TIME_LIMIT} s"}
        if done.returncode or not answered.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return {"error": "\n".join(lines[-12:]) or f"ended with exit status {done.returncode}"}
        return json.loads(answered.read_text())  # type: ignore[no-any-return]


def work(job: Job) -> dict[str, Any]:
    """Does `job` here."""
    return {"run": timed_run, "check": check_tokens}[job.kind](job)


def timed_run(job: Job) -> dict[str, Any]:
    """Loads, warms up, and times one pass over the workload. Seconds are wall-clock; loading and warm-up are apart."""
    from torch._dynamo.utils import counters

    from benchmarks.engines import ENGINES, Limits
    from benchmarks.workload import Shape, make_workload

    begun = time.perf_counter()
    model, tokenizer = load(job)
    requests = make_workload(tokenizer, Shape(**job.workload))
    limits = Limits(job.max_batch_size, max(len(r.prompt) + r.max_new_tokens for r in requests))
    loaded = time.perf_counter()
    engine = ENGINES[job.engine](model, tokenizer, limits, dict(job.options))
    try:
        engine.run(make_workload(tokenizer, Shape(**job.warm_up)))
        graphs = counters["stats"]["unique_graphs"]
        clocks, start = CpuClocks(), time.perf_counter()
        outcome = engine.run(requests)
        seconds = time.perf_counter() - start
        cpu_seconds, others = clocks.own_seconds(), clocks.share_of_others(seconds)
        about = engine.describe()
    finally:
        engine.close()
    asked = [r.max_new_tokens for r in requests]
    if (lengths := [len(t) for t in outcome.tokens]) != asked:
        raise RuntimeError(f"{job.engine} wrote {lengths} tokens, asked for {asked}: the comparison would be unfair")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "output_tokens": sum(asked),
        "prompt_tokens": sum(len(r.prompt) for r in requests),
        "first_token_seconds": outcome.first_token_seconds,
        "load_seconds": loaded - begun,
        "warm_up_seconds": start - loaded,
        "graphs_compiled_while_timed": counters["stats"]["unique_graphs"] - graphs,
        "cpu_share_of_others": others,
        "resident_bytes": resident_bytes(),
        "description": about,
        "prompts": [r.prompt for r in requests],
        "tokens": outcome.tokens,
    }


def check_tokens(job: Job) -> dict[str, Any]:
    """For each token of each row: how far below the largest logit is its own, given the tokens before it, in float32?

    Returns per row the largest such distance and the number of tokens that are not the largest themselves. A distance
    of the size of rounding is a near tie, which engines may break either way; a large one is a wrong token.
    """
    import torch

    model, _ = load(job)
    worst, not_first = [], []
    with torch.inference_mode():
        for prompt, output in job.rows:
            ids = torch.tensor([prompt + output[:-1]], device=model.device)
            logits_TV = model(ids, use_cache=False, logits_to_keep=len(output)).logits[0].float()
            chosen_T = logits_TV.gather(1, torch.tensor(output, device=model.device)[:, None])[:, 0]
            distance_T = logits_TV.max(dim=1).values - chosen_T
            worst.append(float(distance_T.max()))
            not_first.append(int((distance_T > 0).sum()))
    return {"worst_distance": worst, "tokens_not_first": not_first}


def load(job: Job) -> tuple[Any, Any]:
    """The model in the job's dtype on its device, and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(job.threads)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.dtype)).to(job.device).eval()
    return model, AutoTokenizer.from_pretrained(job.model)


class CpuClocks:
    """Tells how much of the processor somebody else used: a timing taken beside a busy neighbour can't be trusted."""

    def __init__(self) -> None:
        self.all, self.own = self.busy(), time.process_time()

    @staticmethod
    def busy() -> float:
        import psutil

        times = psutil.cpu_times()
        return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))

    def own_seconds(self) -> float:
        """Processor time of this process, all threads together."""
        return time.process_time() - self.own

    def share_of_others(self, seconds: float) -> float:
        """From 0 (alone on the machine) to 1."""
        foreign = self.busy() - self.all - self.own_seconds()
        return max(foreign, 0.0) / (seconds * (os.cpu_count() or 1))


def resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def main() -> None:
    asked, answered = map(Path, sys.argv[1:3])
    answered.write_text(json.dumps(work(Job(**json.loads(asked.read_text())))))


if __name__ == "__main__":
    main()
