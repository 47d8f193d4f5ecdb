"""What single kernels do on a card: decode attention, attention of prompts, and the products of a layer.

    python -m benchmarks.kernel                 # all three; needs a GPU, some three minutes
    python -m benchmarks.kernel decode          # bytes of cache read per second, against what the card can read
    python -m benchmarks.kernel prompts         # a layer's attention of prompts, by options and by form of the soft cap
    python -m benchmarks.kernel products        # a layer's products, apart and merged, by tokens in the row

Random numbers in bfloat16, in the shapes of Gemma-2-2B and Qwen3-0.6B.  Times are medians of replays of a CUDA graph that
holds a kernel ten times, so that no launch is in them.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.heavy import RESULTS
from benchmarks.machine import describe_machine, head, need_gpu, write

Row = dict[str, Any]
Options = dict[str, Any] | None
REPEATS = 10
"""How often a kernel stands in the graph that is replayed."""


@dataclass(frozen=True)
class Shape:
    """A model's attention and products."""

    q_heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    softcap: float | None

    def kv_bytes(self, tokens: int) -> int:
        """Keys and values of one layer, two bytes each.

        >>> Shape(8, 4, 256, 2304, 9216, 50.0).kv_bytes(1)
        4096
        """
        return 2 * self.kv_heads * self.head_dim * 2 * tokens

    def products(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's products."""
        q, kv = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


SHAPES = {
    "Gemma-2-2B": Shape(8, 4, 256, 2304, 9216, 50.0),
    "Qwen3-0.6B": Shape(16, 8, 128, 1024, 3072, None),
}


def microseconds(run: Callable[[], object], rounds: int = 7) -> float:
    """Of one call: median over replays of a graph that holds several."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            run()
    graph.replay()
    taken = []
    for _ in range(rounds):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        graph.replay()
        ended.record()
        torch.cuda.synchronize()
        taken.append(began.elapsed_time(ended) * 1000 / REPEATS)
    return statistics.median(taken)


def numbers(*size: int, device: torch.device) -> Tensor:
    return torch.randn(*size, device=device, dtype=torch.bfloat16)


def attention_of(softcap: Callable[..., Tensor] | None, options: Options) -> Callable[..., Tensor]:
    """FlexAttention, compiled for one shape."""
    from torch.nn.attention.flex_attention import flex_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        chosen: Any = options
        out = flex_attention(q, k, v, softcap, mask, q.shape[-1] ** -0.5, enable_gqa=True, kernel_options=chosen)
        assert isinstance(out, Tensor)
        return out

    torch._dynamo.reset()
    return torch.compile(attend, fullgraph=True, dynamic=False)


# ---------------------------------------------------------------------- decode


def decode(
    device: torch.device, sizes: list[tuple[int, int, int]], say: Callable[[str], None], pool_tokens: int = 524_288
) -> Row:
    """One query for each row over shuffled pages: bytes of cache read per second, of what the card can read.

    Args:
        sizes: (rows, tokens of each, tokens of a page).
        pool_tokens: of the pool in which they lie, or as many as they have if that is more.
    """
    from flexnano import PageTable, measure_machine, soft_cap
    from flexnano.cuda_graphs import DecodeMask, DecodeState
    from flexnano.path_probe import decode_options, rows_that_are_split

    read = measure_machine(device.type, torch.bfloat16).bytes_per_second
    rows: list[Row] = []
    for (name, shape), (n_rows, context, page_size) in itertools.product(SHAPES.items(), sizes):
        width = -(-context // page_size)
        n_pages = max(n_rows * width, pool_tokens // page_size)
        table = PageTable(n_pages, page_size, n_rows, width * page_size, device)
        slots = [table.allocate() for _ in range(n_rows)]
        # The pool's pages, and whose turn it is, in random order, so that no sequence's pages lie side by side.
        rng = random.Random(0)
        rng.shuffle(table.free_pages)
        order = slots * width
        rng.shuffle(order)
        have = dict.fromkeys(slots, 0)
        for slot in order:
            have[slot] += 1
            table.reserve(slot, min(context, have[slot] * page_size))
        state = DecodeState(n_rows, device)
        state.set_rows(slots)
        state.position_B[:] = context - 1
        table.slot_of_row = state.slot_B

        def up_to_itself(b: Tensor, h: Tensor, q: Tensor, position: Tensor) -> Tensor:
            return position <= state.position_B[b]  # noqa: B023

        masks = DecodeMask(table, state, up_to_itself, None)
        masks.fill(n_rows)
        keys = (n_pages + 1) * page_size
        q = numbers(n_rows, shape.q_heads, 1, shape.head_dim, device=device)
        k, v = (numbers(1, shape.kv_heads, keys, shape.head_dim, device=device) for _ in range(2))
        cap = soft_cap(shape.softcap) if shape.softcap else None
        group = shape.q_heads // shape.kv_heads
        chosen = decode_options(device, torch.bfloat16, group, page_size)
        ways: list[tuple[str, Any, Options]] = [
            ("two", masks.block_mask(n_rows), None),
            ("two", masks.block_mask(n_rows), chosen),
        ]
        if n_rows <= rows_that_are_split(device, group, shape.kv_heads):
            other = DecodeMask(table, state, up_to_itself, None)
            other.fill(n_rows)
            ways.append(("one", other.one_list(n_rows), chosen))
        for lists, mask, options in ways:
            attend = attention_of(cap, options)
            us = microseconds(lambda: attend(q, k, v, mask))  # noqa: B023
            rate = n_rows * shape.kv_bytes(context) / us * 1e6
            case = {"model": name, "rows": n_rows, "context": context, "page_size": page_size}
            case |= {"options": "own" if options is None else "chosen", "lists": lists}
            rows.append(
                {**case, "us": round(us, 1), "gb_per_second": round(rate / 1e9), "share": round(rate / read, 3)}
            )
            say(f"  {rows[-1]}")
    return {"read_gb_per_second": round(read / 1e9), "pool_tokens": pool_tokens, "cases": rows}


# ---------------------------------------------------------------------- prompts


def prompts(device: torch.device, packs: dict[str, list[int]], say: Callable[[str], None]) -> Row:
    """A layer's attention of packed prompts: by options, and for a soft cap by what it is computed with."""
    from torch.nn.attention.flex_attention import create_block_mask

    from flexnano import soft_cap
    from flexnano.path_probe import prompt_options

    def by_tanh(cap: float) -> Callable[..., Tensor]:
        return lambda score, b, h, q, k: cap * torch.tanh(score / cap)

    rows: list[Row] = []
    for (name, shape), (pack, lengths) in itertools.product(SHAPES.items(), packs.items()):
        total = sum(lengths)
        document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)

        def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (document[q] == document[k]) & (q >= k)  # noqa: B023

        mask = create_block_mask(visible, None, None, total, total, device=str(device))
        q = numbers(1, shape.q_heads, total, shape.head_dim, device=device)
        k, v = (numbers(1, shape.kv_heads, total, shape.head_dim, device=device) for _ in range(2))
        caps: dict[str, Any] = {"none": None}
        if shape.softcap:
            caps = {"tanh": by_tanh(shape.softcap), "sigmoid": soft_cap(shape.softcap)}
        own: Options = {"FORCE_USE_FLEX_ATTENTION": True} if device.type == "cuda" else None
        chosen = prompt_options(device, torch.bfloat16, shape.head_dim)
        for (cap, score_mod), (what, options) in itertools.product(
            caps.items(), (("own", own), ("chosen", chosen)) if chosen != own else (("own", own),)
        ):
            attend = attention_of(score_mod, options)
            us = microseconds(lambda: attend(q, k, v, mask))  # noqa: B023
            rows.append({"model": name, "prompts": pack, "soft_cap": cap, "options": what, "us": round(us, 1)})
            say(f"  {rows[-1]}")
    return {"cases": rows}


# ---------------------------------------------------------------------- products


def products(device: torch.device, tokens: list[int], say: Callable[[str], None]) -> Row:
    """The products of a layer, one after the other, and with those of the same input merged."""
    from flexnano.merge import TOGETHER

    rows: list[Row] = []
    for name, shape in SHAPES.items():
        sizes = shape.products()
        merged = dict(sizes)
        for names in TOGETHER:
            inputs = sizes[names[0]][0]
            merged["+".join(names)] = (inputs, sum(merged.pop(one)[1] for one in names))
        # Weights of several layers in turn: those of one would stay in the card's cache.
        weights = {
            one: itertools.cycle([numbers(n_out, n_in, device=device) * 0.02 for _ in range(8)])
            for one, (n_in, n_out) in {**sizes, **merged}.items()
        }
        for n in tokens:
            found: dict[str, float] = {}
            for one, (n_in, _) in {**sizes, **merged}.items():
                x, some = numbers(n, n_in, device=device), weights[one]
                found[one] = microseconds(lambda: nn.functional.linear(x, next(some)))  # noqa: B023
            flops = sum(2 * n * n_in * n_out for n_in, n_out in sizes.values())
            apart, one_by_input = (sum(found[one] for one in group) for group in (sizes, merged))
            rows.append(
                {
                    "model": name,
                    "tokens": n,
                    "apart_us": round(apart, 1),
                    "merged_us": round(one_by_input, 1),
                    "merged_tflops": round(flops / one_by_input / 1e6, 1),
                    "each_us": {one: round(us, 1) for one, us in found.items()},
                }
            )
            said = {key: value for key, value in rows[-1].items() if key != "each_us"}
            say(f"  {said}")
    return {"cases": rows}


WORK: dict[str, Callable[[torch.device, Callable[[str], None]], Row]] = {
    "decode": lambda device, say: decode(
        device,
        [
            *((256, 1024, page_size) for page_size in (16, 32, 64, 128)),
            *((256, 512, 32), (64, 1024, 32), (16, 2048, 32), (8, 8192, 32), (1, 1024, 32), (1, 32_768, 32)),
        ],
        say,
    ),
    "prompts": lambda device, say: prompts(
        device, {"1 of 4,096": [4096], "31 of 264": [264] * 31, "16 of 512": [512] * 16}, say
    ),
    "products": lambda device, say: products(
        device, [1, 16, 64, 128, 256, 384, 512, 592, 640, 720, 768, 848, 896, 976, 1024, 1104, 2048, 4096, 8192], say
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*WORK, []], help="default: all")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    need_gpu("benchmarks.kernel")
    machine = describe_machine("cuda")
    for name in args.what or WORK:
        print(f"{machine['name']}: {name}", flush=True)
        report: Row = head("single kernels, in microseconds", f"python -m benchmarks.kernel {name}", machine)
        report |= WORK[name](torch.device("cuda"), lambda line: print(line, flush=True))
        print(f"written to {write(report, args.output, f'kernel-{name}')}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
