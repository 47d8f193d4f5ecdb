"""Tokens a second of the learner's engine, the reference and transformers: a small measurement, each in a child process.

Small means eight prompts of 32 new tokens on the embedded model, so that it takes seconds; `benchmarks/` measures properly.
On a CPU attention goes by gathering: compiling would take longer than all the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import work
from .environment import ROOT
from .grading import merge
from .model import NAME, is_complete

FORMAT = 1
PROMPTS = [
    "The page table of an operating system",
    "A compiler reads source code and",
    "In the morning the harbour was quiet, and",
    "Water boils at a lower temperature in the mountains because",
    "The recipe needs two eggs, some flour and",
    "Once upon a time there was a scheduler that",
    "The quickest way from the station to the museum is",
    "Light takes eight minutes from the sun to the earth, so",
]
NEW_TOKENS = 32
SECONDS = 300.0  # patience with one child


def speeds(
    root: Path = ROOT, package: Path | None = None, say_what: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """What was measured, now or earlier with the same code on the same machine.

    Returns:
        {"own", "reference", "transformers": {"tokens_per_second"} or {"error"}, "model", "workload", "machine"};
        {"absent": why} where nothing can be measured.
    """
    package = package or work.package(root)
    model = root / "models" / NAME
    if not is_complete(model):
        return {"absent": f"the embedded model is not there; `python -m course setup --no-demo` fetches {NAME}"}
    reference = merge.reference_folder(root)
    store = root / ".course" / "speed.json"
    known = _load(store)
    found: dict[str, Any] = {
        "model": NAME,
        "workload": f"{len(PROMPTS)} prompts, {NEW_TOKENS} new tokens each, greedy",
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }
    for name, folder in (("own", package), ("reference", reference), ("transformers", None)):
        if name == "reference" and folder is None:
            continue
        key = _key(folder)
        if key not in known:
            if say_what is not None:
                say_what(f"measuring tokens/s: {'your engine' if name == 'own' else name} …")
            result = _in_child(folder, model, root)
            if "error" in result:
                found[name] = result
                continue
            known[key] = result
        found[name] = known[key]
    with contextlib.suppress(OSError):  # measured again another time
        work.write(store, json.dumps({"format": FORMAT, "known": dict(list(known.items())[-50:])}))
    return found


def _load(store: Path) -> dict[str, Any]:
    try:
        read = json.loads(store.read_text(encoding="utf-8"))
        return dict(read["known"]) if read["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(folder: Path | None) -> str:
    """A hash of what the speed of a package depends on."""
    from importlib import metadata

    versions = [metadata.version(name) for name in ("torch", "transformers")]
    digest = hashlib.sha256(
        json.dumps([FORMAT, platform.node(), platform.python_version(), *versions, str(folder is None)]).encode()
    )
    digest.update(os.environ.get("CUDA_VISIBLE_DEVICES", "").encode())
    if folder is not None:
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def _in_child(folder: Path | None, model: Path, root: Path) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    environment["FLEXNANO"] = str(folder) if folder is not None else ""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        command = [
            sys.executable,
            "-m",
            "course.speed",
            "engine" if folder else "transformers",
            str(model),
            str(answer),
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, errors="replace"
            )
            return json.loads(answer.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {SECONDS:.0f} s"}
        except (OSError, ValueError):
            said = [line for line in done.stderr.splitlines() if line.strip()]
            return {"error": said[-1][:200] if said else f"it ended with exit code {done.returncode}"}


# ------------------------------------------------------------------------------------------------------- in the child


def main(kind: str, model_folder: str, answer: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ["FLEXNANO_ATTENTION"] = "gather"
    dtype = torch.float32
    if cuda:
        dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype, device_map="cuda" if cuda else None).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    run = _engine(model, tokenizer) if kind == "engine" else _transformers(model, tokenizer)
    run(4)  # whatever is set up once
    start = time.perf_counter()
    tokens = run(NEW_TOKENS)
    seconds = time.perf_counter() - start
    if tokens != len(PROMPTS) * NEW_TOKENS:
        raise SystemExit(f"{tokens} tokens came back instead of {len(PROMPTS) * NEW_TOKENS}")
    result = {"tokens_per_second": round(tokens / seconds, 1), "dtype": str(dtype).removeprefix("torch.")}
    Path(answer).write_text(json.dumps(result), encoding="utf-8")


def _engine(model: Any, tokenizer: Any) -> Callable[[int], int]:
    from flexnano import Inference, SamplingParams

    engine = Inference(model, tokenizer, max_batch_size=len(PROMPTS), max_seq_length=256, n_pages=32)

    def run(n: int) -> int:
        results = engine.generate(PROMPTS, SamplingParams(max_new_tokens=n, ignore_eos=True))
        return sum(len(result.token_ids) for result in results)

    return run


def _transformers(model: Any, tokenizer: Any) -> Callable[[int], int]:
    import torch

    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True).to(model.device)

    @torch.inference_mode()
    def run(n: int) -> int:
        out = model.generate(
            **inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        return int((out.shape[1] - inputs.input_ids.shape[1]) * out.shape[0])

    return run


if __name__ == "__main__":
    main(*sys.argv[1:4])
