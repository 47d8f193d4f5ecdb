"""Notebook 00: the finished engine and a naive `generate` answer the same prompts, each in a process of its own.

A class release has no finished engine; there, and where the embedded model can't be fetched, a recorded run is shown.
`python -m course.first_look record` records one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import work
from .console import CourseError, say
from .demo import PROMPTS, limit_threads
from .environment import ROOT
from .model import NAME, ensure_model

NEW_TOKENS = 32
RECORDED = Path("course") / "recorded" / "first_run.json"


@dataclass
class Answer:
    """What became of one prompt.  Seconds are counted from the moment at which all prompts were there."""

    prompt: str
    text: str
    tokens: int
    first_token: float
    done: float


@dataclass
class Look:
    """One run over all prompts."""

    kind: str  # "engine" | "naive"
    about: str = ""
    machine: str = ""
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    recorded: bool = False

    @property
    def tokens_per_second(self) -> float:
        return sum(answer.tokens for answer in self.answers) / self.seconds


def engine(root: Path = ROOT) -> Look:
    """All prompts as one batch, by the finished engine."""
    return _look("engine", root)


def naive(root: Path = ROOT) -> Look:
    """One prompt after the other, by transformers' `generate`."""
    return _look("naive", root)


def compare(one: Look, other: Look) -> None:
    """Both runs side by side."""
    say(f"{'':<28}{'engine':>10}{'naive':>10}")
    rows = {
        "all answers after": [f"{look.seconds:.1f} s" for look in (one, other)],
        "tokens a second": [f"{look.tokens_per_second:.1f}" for look in (one, other)],
        "first token, on average": [f"{_mean(a.first_token for a in look.answers):.1f} s" for look in (one, other)],
        "first token, the last one": [f"{max(a.first_token for a in look.answers):.1f} s" for look in (one, other)],
    }
    for name, (left, right) in rows.items():
        say(f"{name:<28}{left:>10}{right:>10}")
    same = sum(a.text == b.text for a, b in zip(one.answers, other.answers, strict=True))
    say(f"{'the same answers':<28}{f'{same} of {len(one.answers)}':>20}")


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _look(kind: str, root: Path) -> Look:
    if kind == "engine" and not (root / "solutions" / "flexnano" / "inference.py").is_file():
        say(
            "This copy of the course has no finished engine (you are about to build it). Here is a run that was recorded:\n"
        )
        return replay(kind, root)
    try:
        ensure_model(root / "models")
        return run(kind, root)
    except (CourseError, OSError) as error:
        say(f"{str(error).splitlines()[0]}\nHere is a run that was recorded:\n")
        return replay(kind, root)


def replay(kind: str, root: Path = ROOT) -> Look:
    """Show the recorded run."""
    read = json.loads((root / RECORDED).read_text(encoding="utf-8"))[kind]
    look = Look(**{**read, "answers": [Answer(**one) for one in read["answers"]], "recorded": True})
    for answer in look.answers:
        say(shown(answer))
    say(_summary(look))
    return look


def run(kind: str, root: Path = ROOT) -> Look:
    """Run it now, and show each answer when it is there.

    Raises:
        CourseError: the process ended without all answers.
    """
    variables = {"FLEXNANO": "solutions", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    look = Look(kind)
    with subprocess.Popen(
        [sys.executable, "-m", "course.first_look", kind],
        cwd=root,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        for line in child.stdout:
            message = json.loads(line)
            if "prompt" in message:
                look.answers.append(Answer(**message))
                say(shown(look.answers[-1]))
            else:
                look.about, look.machine, look.seconds = message["about"], message["machine"], message["seconds"]
        trouble = child.stderr.read().strip().splitlines()
    if not look.seconds:
        raise CourseError(f"It ended early: {trouble[-1] if trouble else 'without a word'}")
    look.answers.sort(key=lambda answer: PROMPTS.index(answer.prompt))
    say(_summary(look))
    return look


def shown(answer: Answer) -> str:
    """
    >>> print(shown(Answer("Why?", "Because it is so.", 5, 0.1, 0.5)))
       0.5 s  Why?
              Because it is so.
    """
    lines = textwrap.wrap(" ".join(answer.text.split()), 90) or [""]
    return "\n".join([f"{answer.done:6.1f} s  {answer.prompt}", *(f"          {line}" for line in lines)])


def _summary(look: Look) -> str:
    when = f" Recorded on {look.machine}." if look.recorded else ""
    tokens = sum(answer.tokens for answer in look.answers)
    return f"\n{look.about}\n{tokens} tokens in {look.seconds:.1f} s: {look.tokens_per_second:.1f} tokens/s.{when}"


def record(root: Path = ROOT) -> None:
    """Write down a run of both kinds."""
    looks = {kind: asdict(run(kind, root)) for kind in ("engine", "naive")}
    for look in looks.values():
        look.pop("recorded")
    work.write(root / RECORDED, json.dumps(looks, indent=1, ensure_ascii=False) + "\n")


# --------------------------------------------------------------------------------------------------------- the children


def main(arguments: list[str]) -> int:
    """`python -m course.first_look engine|naive|record`"""
    (what,) = arguments
    if what == "record":
        record()
        return 0
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    limit_threads()
    folder = ensure_model()
    cuda = torch.cuda.is_available()
    dtype = torch.float32
    if cuda:
        dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    else:
        os.environ.setdefault("FLEXNANO_ATTENTION", "gather")  # compiling takes longer than all the answers
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cuda" if cuda else None).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    about = _engine(model, tokenizer) if what == "engine" else _naive(model, tokenizer)
    machine = torch.cuda.get_device_name() if cuda else f"a CPU (threads: {torch.get_num_threads()})"
    _send({**about, "machine": machine})
    return 0


def _send(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _engine(model: Any, tokenizer: Any) -> dict[str, Any]:
    from flexnano import Inference, SamplingParams

    runner = Inference(model, tokenizer, max_batch_size=len(PROMPTS), max_seq_length=512, n_pages=32)
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    runner.generate(chats, SamplingParams(max_new_tokens=2))  # what is set up once
    first: dict[int, float] = {}
    start = time.perf_counter()
    for event in runner.stream(chats, SamplingParams(max_new_tokens=NEW_TOKENS)):
        now = time.perf_counter() - start
        first.setdefault(event.index, now)
        if event.result is not None:
            result = event.result
            _send(asdict(Answer(PROMPTS[event.index], result.text, len(result.token_ids), first[event.index], now)))
    seconds = time.perf_counter() - start
    about = f"{NAME}, all prompts at once, by the finished engine; attention on the {runner.path} path."
    return {"about": about, "seconds": seconds}


def _naive(model: Any, tokenizer: Any) -> dict[str, Any]:
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc]
        """When the first new token came."""

        def __init__(self) -> None:
            self.calls, self.first = 0, 0.0

        def put(self, value: Any) -> None:
            self.calls += 1
            if self.calls == 2:  # the first call brings the prompt
                self.first = time.perf_counter() - start

        def end(self) -> None:
            pass

    def ids(prompt: str) -> Any:
        chat = [{"role": "user", "content": prompt}]
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)

    options = {"do_sample": False, "max_new_tokens": NEW_TOKENS}
    with torch.inference_mode():
        model.generate(**ids(PROMPTS[0]).to(model.device), do_sample=False, max_new_tokens=2)
        start = time.perf_counter()
        for prompt in PROMPTS:
            inputs, clock = ids(prompt).to(model.device), Clock()
            new = model.generate(**inputs, **options, streamer=clock)[0, inputs["input_ids"].shape[1] :]
            text = tokenizer.decode(new, skip_special_tokens=True)
            _send(asdict(Answer(prompt, text, len(new), clock.first, time.perf_counter() - start)))
    return {
        "about": f"{NAME}, one prompt after the other, by transformers' generate.",
        "seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
