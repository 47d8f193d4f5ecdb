"""The command line: python -m benchmarks.soak schedule | engine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, head, need_gpu, slug

Report = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[1] / "results"


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=sys.modules["benchmarks.soak"].__doc__
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    schedule = kinds.add_parser("schedule", help="scheduler, planner and page table with a hash for a model")
    schedule.add_argument(
        "--requests", type=int, default=1_000_000, help="of the scheduler; the planner gets half as many more"
    )
    engine = kinds.add_parser("engine", help="mixed traffic on the engine with the embedded model")
    engine.add_argument("--minutes", type=float, default=20.0)
    engine.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    engine.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 on a GPU")
    engine.add_argument("--threads", type=int, default=1, help="of a CPU")
    engine.add_argument(
        "--shape", type=Path, metavar="FOLDER", help="random weights of this folder's config.json, and its tokenizer"
    )
    for one in (schedule, engine):
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON and the picture")
    args = parser.parse_args(arguments)
    device = getattr(args, "device", "cpu")
    if device == "cuda":
        need_gpu("benchmarks.soak engine --device cuda")
    run: Callable[[], Report]
    if args.what == "schedule":
        from benchmarks.soak import schedule as kind

        said, run = kind.WHAT, lambda: kind.soak(args.requests, seed=args.seed, say=say)
    else:
        from benchmarks.soak import traffic

        said, run = (
            traffic.WHAT,
            lambda: traffic.soak_embedded(args.minutes, device, args.dtype, args.threads, args.seed, say, args.shape),
        )
    command = "python -m benchmarks.soak " + " ".join(arguments)
    report = {**head(said, command, describe_machine(device)), **run()}
    write(report, args.output, f"soak-{args.what}-{slug(report['machine']['name'])}")
    return 0 if report["passed"] else 1


def write(report: Report, folder: Path, name: str) -> None:
    from benchmarks.soak.picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"{'PASSED' if report['passed'] else 'FAILED'}; written to {path}, {draw(report, path.with_suffix('.png'))}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
