# ruff: noqa: N999  the name of the folder is the mission's
"""Experiment 1: FlexAttention in a stock Qwen3, held against `eager`, `sdpa` and transformers' own flex_attention.

    python -m experiments.AddFlexAttentionQwen                # the run that is reported; on a GPU under 7 minutes
    python -m experiments.AddFlexAttentionQwen --quick        # does everything run? A minute or two, on a CPU too
    python -m experiments.AddFlexAttentionQwen --draw FILE    # the table and the pictures of an earlier result

It checks that logits agree, then times forward, forward + backward and one decode step, each case in a child process.  See
README.md beside this file for what is compared, how, and what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_code, describe_machine, slug, versions

from . import report as reports
from .cases import MEAN_DOCUMENT, SHAPES, TINY, WINDOW, Group, only, programme, size_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
GRACE = 45.0  # seconds past the end of the time, for a case that has begun
STALLED = 150.0  # seconds without a word, after which a process is taken to hang

Row = dict[str, Any]


@dataclass
class Run:
    """What was asked for, and what is there so far."""

    device: str
    model: str
    layers: int | None
    deadline: float
    rows: list[Row] = field(default_factory=list)

    def job(self, **more: Any) -> Row:
        return {"device": self.device, "model": self.model, "layers": self.layers, "deadline": self.deadline, **more}

    @property
    def left(self) -> float:
        return self.deadline - time.time()


class Child:
    """A process that does a job and writes its rows to a file.

    Started early it imports and then waits for `go`, so that the device is never without work for long.
    """

    def __init__(self, job: Row) -> None:
        self.job, self.folder = job, tempfile.TemporaryDirectory(prefix="qwen-")
        asked, self.answers = Path(self.folder.name, "job.json"), Path(self.folder.name, "rows.jsonl")
        self.errors = Path(self.folder.name, "stderr.txt")
        asked.write_text(json.dumps(job | {"wait": True}))
        env = os.environ | {
            "FLEXNANO": os.environ.get("FLEXNANO", "solutions"),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "experiments.AddFlexAttentionQwen.child", str(asked), str(self.answers)],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )

    def go(self) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.close()
        except OSError:  # it has ended already; `finish` says why
            pass

    def finish(self, until: float) -> tuple[list[Row], str]:
        """Rows, and why it did not come to its end ("" if it did)."""
        until, written, heard = max(until, time.time() + 1), 0, time.time()
        while (status := self.ended(within=0.5)) is None:
            if (size := self.answers.stat().st_size if self.answers.exists() else 0) != written:
                written, heard = size, time.time()
            hangs = time.time() > heard + STALLED
            if hangs or time.time() > until:
                self.process.kill()
                self.process.wait()
                return self.rows(), f"it hung: killed after {STALLED:.0f} s without a word" if hangs else "time was up"
        if status == 0:
            return self.rows(), ""
        lines = [line for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]
        return self.rows(), f"its process ended ({'killed' if status < 0 else lines[-1][:200] if lines else status})"

    def ended(self, within: float) -> int | None:
        """The status of the process if it ends within so many seconds."""
        try:
            return self.process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            return None

    def rows(self) -> list[Row]:
        if not self.answers.exists():
            return []
        found = []
        for line in self.answers.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break  # cut short by the end of the process
        return found

    def drop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


Start = Callable[[Row], Child]


def run_groups(
    run: Run,
    groups: Iterable[Group],
    rate: dict[str, float],
    start: Start = Child,
    keep: Callable[[list[Row]], object] = len,
) -> list[Row]:
    """Do all cases.  One that kills its process is a row that says so, and the rest of its group goes on in another.

    `keep` is called with the rows so far after each group, so that an end from outside loses little.
    """
    todo = list(groups)
    rows: list[Row] = []
    child: Child | None = None
    while todo:
        group = todo.pop(0)
        child = child or start(job_of(run, group, rate))
        child.go()
        # On a GPU the next process may import meanwhile; on a CPU that would take the cores that are measured.
        coming = start(job_of(run, todo[0], rate)) if todo and run.device == "cuda" and run.left > 0 else None
        print(f"  {group.name:28}", end=" ", flush=True)
        began = time.time()
        found, why = child.finish(run.deadline + GRACE)
        child.drop()
        done = [row for row in found if "status" in row]
        rows += done
        if (rest := group.cases[len(done) :]) and why and why != "time was up":
            rows.append({"case": vars(rest[0]), "status": "failed", "why": why})
            if len(rest) > 1:
                todo.insert(0, replace(group, cases=rest[1:]))
                if coming:
                    coming.drop()
                    coming = None
        else:
            rows += [{"case": vars(case), "status": "time was up", "why": "not run: time was up"} for case in rest]
        print(outline(done), f"({time.time() - began:.0f} s)", why if why else "", flush=True)
        keep(rows)
        child = coming
    return rows


def job_of(run: Run, group: Group, rate: dict[str, float]) -> Row:
    return run.job(kind="cases", cases=[vars(case) for case in group.cases], matmul_rate=rate)


def outline(rows: list[Row]) -> str:
    ok = [row for row in rows if row["status"] == "ok"]
    others = [row for row in rows if row["status"] != "ok"]
    said = f"{len(ok):3} measured"
    return said + (f", {len(others)} not: " + "; ".join(sorted({row["status"] for row in others})) if others else "")


def matmul_rate(run: Run, dtypes: list[str], start: Start = Child) -> tuple[dict[str, float], Row]:
    child = start(run.job(kind="matmul rate", dtypes=dtypes))
    child.go()
    rows, why = child.finish(time.time() + 120)
    child.drop()
    if not rows:
        raise SystemExit(f"no child process can work here: {why}")
    print("  " + ", ".join(f"{dtype}: {value / 1e12:.4g} TFLOP/s" for dtype, value in rows[0]["matmul_rate"].items()))
    return rows[0]["matmul_rate"], rows[0]


def check_parity(run: Run, quick: bool, start: Start = Child) -> list[Row]:
    """Compare logits; on a GPU all at the same time, since nothing is timed."""
    changes: Row = {}
    if run.model in SHAPES and run.device == "cuda":
        # Of the real shape, but for the vocabulary: comparing 150,000 logits a token takes more room than sense.
        changes = {"vocab_size": 4096, "num_hidden_layers": run.layers or SHAPES[run.model]["num_hidden_layers"]}
    elif run.model in SHAPES:
        changes = TINY
    length, window = (384, 128) if quick else (1280, WINDOW)
    plain = ["eager", "sdpa", "per_document"]
    bf16 = [*plain, "varlen"] if run.device == "cuda" else plain  # flash attention has no float32
    job = run.job(kind="parity", changes=changes, length=length, window=window, kinds=None)
    jobs = [
        job | {"dtype": dtype, "implementations": names}
        for dtype in ("float32", "bfloat16")
        for names in (["ours"], ["hf_flex"], [*plain, "ours_eager", "ours_gather"] if dtype == "float32" else bf16)
    ]
    if not quick:  # below a block: transformers' own flex path was once seen to be wrong there
        short = job | {"dtype": "float32", "implementations": ["ours", "hf_flex"], "kinds": ["causal", "padding"]}
        # On a GPU torch 2.11 takes its decode kernel below 128 queries.  In float32 at 64 it did not compile within 150 s,
        # at 100 it found no tile that fits.
        jobs += [short | {"length": n} for n in ((8,) if run.device == "cuda" else (8, 64))]
    rows: list[Row] = []
    at_once = len(jobs) if run.device == "cuda" else 1
    for begin in range(0, len(jobs), at_once):
        children = [start(job) for job in jobs[begin : begin + at_once]]
        for child in children:
            child.go()
        for child in children:
            found, why = child.finish(run.deadline + GRACE)
            child.drop()
            rows += [row["parity"] for row in found if "parity" in row]
            if why:
                rows += [row["begins"] | {"error": why} for row in found[-1:] if "begins" in row]
                print(f"  {child.job['implementations']}, {child.job['dtype']}, {child.job['length']} tokens: {why}")
    reports.print_parity(rows)
    return rows


def quick_programme(device: str) -> list[Group]:
    """A few small cases of everything."""
    small = {32768: 512, 16384: 512, 8192: 256, 4096: 256, 2048: 256, 1024: 256, 512: 256}
    groups = []
    for group in programme(device):
        cases = {replace(case, length=small[case.length], batch=min(case.batch, 2)): None for case in group.cases}
        groups.append(Group(group.name, tuple(cases)))
    return groups


def main(argv: list[str] | None = None) -> Path:
    args = parse(argv)
    if args.draw:
        finish(json.loads(args.draw.read_text(encoding="utf-8")), args.draw.with_suffix(""), args.no_plot)
        return args.draw
    began = time.time()
    args.output.mkdir(parents=True, exist_ok=True)
    layers = args.layers or (1 if args.device == "cpu" and args.model in SHAPES else None)
    run = Run(args.device, args.model, layers, began + args.minutes * 60)
    machine = describe_machine(args.device)
    stem = args.output / f"{'quick-' if args.quick else ''}{args.device}-{slug(machine['name'])}"
    print(f"{machine['name']}, {args.minutes:g} minutes at most")
    groups = quick_programme(args.device) if args.quick else programme(args.device)
    if args.only:
        groups = only(groups, lambda case: case.implementation in args.only or case.work in args.only)
    document: Row = {
        "what": "Experiment 1: FlexAttention in Qwen3",
        "machine": machine,
        "versions": versions(),
        "code": describe_code(),
        "device": args.device,
        "model": args.model,
        "model_said": said_of_model(args.model, layers),
        "layers": layers,
        "mean_document": MEAN_DOCUMENT,
        "window": WINDOW,
        "float32_matmul_precision": "highest (no TF32)",
    }
    dtypes = sorted({case.dtype for group in groups for case in group.cases})
    print("matrix products")
    rate, document["matmul"] = matmul_rate(run, dtypes)
    earlier = resumed(args.resume, document)
    document["parity"] = earlier["parity"] if earlier else [] if args.no_parity else check_parity(run, args.quick)
    done = {json.dumps(row["case"], sort_keys=True): row for row in (earlier or {}).get("rows", [])}
    done = {key: row for key, row in done.items() if row["status"] != "time was up"}
    print("cases")
    todo = only(groups, lambda case: json.dumps(vars(case), sort_keys=True) not in done)
    order = [vars(case) for group in groups for case in group.cases]
    path, spent = stem.with_suffix(".json"), (earlier or {}).get("seconds_in_all", 0)

    def keep(new: list[Row]) -> None:
        rows = [*done.values(), *new]
        document["rows"] = sorted(
            rows, key=lambda row: order.index(row["case"]) if row["case"] in order else len(order)
        )
        document["seconds_in_all"] = round(time.time() - began + spent, 1)
        write(document, path)

    keep([])  # the comparison of logits, before anything is timed
    keep(run_groups(run, todo, rate, keep=keep))
    print(f"wrote {path} after {time.time() - began:.0f} s")
    finish(document, stem, args.no_plot)
    return path


def said_of_model(model: str, layers: int | None) -> str:
    """What a reader is told of the model."""
    if model not in SHAPES:
        return Path(model).name
    size = size_of(SHAPES[model] | ({"num_hidden_layers": layers} if layers else {}), tied=True)
    return (
        f"Qwen3-{model.upper()} with random weights, {size.layers} layers, hidden size {size.hidden}, {size.q_heads} query "
        f"heads and {size.kv_heads} key heads of {size.head_dim}"
    )


def resumed(path: Path | None, document: Row) -> Row | None:
    """An earlier result to go on from, if it is of the same machine, model and versions."""
    if path is None:
        return None
    earlier: Row = json.loads(path.read_text(encoding="utf-8"))
    for key in ("device", "model", "layers", "versions"):
        if earlier[key] != document[key]:
            raise SystemExit(f"{path} is of {key} {earlier[key]}, this is {document[key]}: start without --resume")
    if earlier["machine"]["name"] != document["machine"]["name"]:
        raise SystemExit(f"{path} is of another machine: {earlier['machine']['name']}")
    return earlier


def write(document: Row, path: Path) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def finish(document: Row, stem: Path, no_plot: bool) -> None:
    document["summary"] = reports.summary(document)
    write(document, stem.with_name(stem.name + ".json"))
    reports.print_table(document)
    print(f"wrote {reports.write_markdown(document, stem.with_name(stem.name + '.md'))}")
    if no_plot:
        return
    try:
        for picture in reports.draw(document, stem):
            print(f"wrote {picture}")
    except ImportError as error:
        print(f"no pictures ({error}); later, elsewhere: python -m experiments.AddFlexAttentionQwen --draw {stem}.json")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.AddFlexAttentionQwen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None, help="default: cuda if there is one")
    parser.add_argument(
        "--model",
        help=f"default 0.6b: random weights of the shape {', '.join(SHAPES)}; or a folder or name on the hub",
    )
    parser.add_argument("--layers", type=int, help="only the first layers (default: all; 1 on a CPU)")
    parser.add_argument("--minutes", type=float, default=None, help="begin no case after these (7; on a CPU 10)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON and the pictures")
    parser.add_argument("--quick", action="store_true", help="a few small cases; the numbers mean nothing")
    parser.add_argument(
        "--only", nargs="+", help="only these implementations, or kinds of work (forward, backward, decode)"
    )
    parser.add_argument("--resume", type=Path, help="an earlier JSON of the same machine: do only what it lacks")
    parser.add_argument("--no-parity", action="store_true", help="don't compare logits")
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument("--draw", type=Path, help="draw an earlier JSON again and end")
    args = parser.parse_args(argv)
    if args.device is None and not args.draw:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.model = args.model or ("tiny" if args.quick else "0.6b")
    if args.minutes is None:
        args.minutes = 7.0 if args.device == "cuda" else 10.0
    return args


if __name__ == "__main__":
    main()
