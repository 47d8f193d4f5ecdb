"""What a workload takes at least on a card, and how much of that is reached.

    python -m benchmarks.bound          # a line for each result in results/ and a plot for each card

The bound: the weights are read or multiplied with, whichever takes longer, once a step; then the cache of each running
sequence is read; prompts are computed in one row without padding; the host takes no time.  Module 07 teaches it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.heavy import RESULTS, WORKLOADS, config_of
from benchmarks.machine import slug
from flexnano import Machine, least_step_seconds

H100 = Machine("NVIDIA H100 80GB HBM3", bytes_per_second=3.07e12, flops_per_second=755e12)
"""What a plain sum reads there and what the products of Gemma-2-2B reach; both measured."""

OTHERS = {
    "gemma2": {"vLLM 0.20.2 (256)": 14_862, "flex-nano-vllm (512)": 11_152, "transformers (256)": 3_225},
    "qwen3": {"vLLM 0.20.2 (256)": 17_979, "transformers (256)": 14_288, "nano-vllm (256)": 11_634},
}
"""Output tokens a second that this project was given for the same card and workloads, with the sequences at once: another
run, one each.  transformers is its continuous batching, for qwen3 compiled."""


def decode_seconds(machine: Machine, weights: int, kv_bytes: int, rows: int, cached: int) -> float:
    """The least time of a decode step: weights read or multiplied with, then the cache of all rows, `cached` tokens."""
    weighed = least_step_seconds(machine, weights, 2, rows, 0, kv_bytes)
    return weighed + least_step_seconds(machine, 0, 2, 0, cached, kv_bytes)


def at_most(
    machine: Machine, requests: Sequence[tuple[int, int]], weights: int, table: int, kv_bytes: int, at_once: int
) -> float:
    """Output tokens a second that no engine can exceed.

    Args:
        requests: tokens of each prompt and of its answer, at least one, in the order in which they are admitted.
        weights: of the model; `table`: those of them that only last tokens are multiplied with.  Two bytes each.
        kv_bytes: keys and values of a token in all layers.
        at_once: sequences that run at the same time at most.

    By hand, with 10 bytes and 100 operations a second.  The prompt reads 6 weights of two bytes: 1.2 s.  The first token
    comes with it; the second one's step reads 10 weights, 2 s, and the cache of 4 tokens, 0.4 s.  Two tokens in 3.6 s.

    >>> slow = Machine("by hand", bytes_per_second=10, flops_per_second=100)
    >>> at_most(slow, [(3, 2)], weights=10, table=4, kv_bytes=1, at_once=1) == 2 / 3.6
    True

    Two of them at once share the reading of the weights: 1.2 + 2 + 0.8 s for four tokens.  One after the other they share the
    prefill only.

    >>> [round(4 / at_most(slow, [(3, 2)] * 2, 10, 4, 1, at_once), 6) for at_once in (2, 1)]
    [4.0, 6.0]
    """
    prompt_tokens = sum(prompt for prompt, _ in requests)
    seconds = least_step_seconds(machine, weights - table, 2, prompt_tokens, 0, kv_bytes)
    waiting = [(prompt + 1, answer - 1) for prompt, answer in reversed(requests) if answer > 1]
    running: list[tuple[int, int]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(waiting.pop())
        seconds += decode_seconds(machine, weights, kv_bytes, len(running), sum(length for length, _ in running))
        running = [(length + 1, left - 1) for length, left in running if left > 1]
    return sum(answer for _, answer in requests) / seconds


def of_workload(name: str, at_once: int, machine: Machine = H100) -> float:
    """The bound of a workload of `heavy.WORKLOADS`, with its model's numbers."""
    from transformers import AutoModelForCausalLM

    workload = WORKLOADS[name]
    config = config_of(workload.model)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    kv_bytes = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * 2
    requests = [(len(prompt), n) for prompt, n in workload.make()]
    return at_most(machine, requests, weights, config.vocab_size * config.hidden_size, kv_bytes, at_once)


def reached(results: Path = RESULTS) -> list[dict[str, Any]]:
    """The throughput that was measured on an H100, with the bound beside it.

    Not where prompts share pages: what all rows read may stay near the processors, and is not read anew for each.
    """
    found = []
    for path in sorted(results.glob("*-flexnano-*-nvidia-h100*.json")):
        name = path.stem.partition("-flexnano")[0]
        if name not in WORKLOADS or WORKLOADS[name].common:  # the others: how long the start took, parts
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        bound = of_workload(name, result["max_batch_size"])
        rate = result["tokens_per_second"]
        found.append(
            {"workload": name, "card": result["machine"]["name"], "at_once": result["max_batch_size"]}
            | {"rate": rate, "bound": bound, "share": rate / bound}
        )
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Bound, this engine and others, a group of bars for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    from flexnano.viz import EDGE, INK, OWNERS, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 2.4 * len(rows)), layout="constrained", sharex=True)
        for ax, row in zip(axes, rows, strict=True):
            own = {"bound": row["bound"], f"flexnano ({row['at_once']})": row["rate"]}
            bars = [*own.items(), *OTHERS[row["workload"]].items()]
            for y, (_, rate) in enumerate(bars):
                look: dict[str, Any] = {"color": EDGE} if y > 1 else {"color": OWNERS[4]}
                if y == 0:
                    look = {"color": "white", "hatch": "////"}
                ax.barh(y, rate, 0.7, edgecolor=INK, linewidth=0.6, **look)
                ax.text(rate, y, f" {rate:,.0f}", va="center", fontsize=9)
            ax.set_yticks(range(len(bars)), [name for name, _ in bars])
            ax.invert_yaxis()
            ax.margins(x=0.2)
            ax.set_title(f"{row['workload']}: {WORKLOADS[row['workload']].model}", fontsize=10)
            ax.set(xticks=(0, 20_000, 40_000), xticklabels=("0", "20,000", "40,000"))
        axes[-1].set_xlabel("output tokens/s →")
        kinds = (
            ("most that is possible", "white", "////"),
            ("this engine", OWNERS[4], ""),
            ("others, another run", EDGE, ""),
        )
        handles = [Patch(facecolor=colour, edgecolor=INK, hatch=hatch, label=label) for label, colour, hatch in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


def main() -> None:
    rows = reached()
    for row in rows:
        print(
            f"{row['card']}, {row['workload']}, {row['at_once']} at once: {row['rate']:,.0f} output tokens/s, "
            f"{row['share']:.1%} of {row['bound']:,.0f}"
        )
    for card in sorted({row["card"] for row in rows}):
        path = RESULTS / f"throughput-{slug(card)}.png"
        draw([row for row in rows if row["card"] == card and row["workload"] in OTHERS], path)
        print(f"drawn to {path}")


if __name__ == "__main__":
    main()
