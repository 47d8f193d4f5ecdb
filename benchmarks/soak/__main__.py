"""The command line: python -m benchmarks.soak schedule | engine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_code, describe_machine, slug, versions

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
        "--requests", type=int, default=1_000_000, help="of the scheduler; the planner gets a tenth more"
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
    machine, code, began = describe_machine(device), describe_code(), time.strftime("%Y-%m-%d %H:%M:%S %z")
    if args.what == "schedule":
        from benchmarks.soak import schedule as kind

        report, said = kind.soak(args.requests, seed=args.seed, say=say), kind.WHAT
    else:
        from benchmarks.soak import traffic

        report = traffic.soak_embedded(args.minutes, device, args.dtype, args.threads, args.seed, say, args.shape)
        said = traffic.WHAT
    report = {
        "what": said,
        "date": began,
        "command": "python -m benchmarks.soak " + " ".join(arguments),
        "code": code,
        "machine": machine,
        "versions": versions(),
        **report,
    }
    write(report, args.output, f"soak-{args.what}-{slug(machine['name'])}")
    return 0 if report["passed"] else 1


def write(report: Report, folder: Path, name: str) -> None:
    from benchmarks.soak.picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"{'PASSED' if report['passed'] else 'FAILED'}; written to {path}, {draw(report, path.with_suffix('.png'))}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
