"""The fixed workload: requests of mixed lengths, made from `prompts.txt` by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPTS = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class Shape:
    """How many requests, and how long. Lengths are drawn uniformly from the two ranges, both ends included, in tokens."""

    requests: int = 32
    prompt_tokens: tuple[int, int] = (16, 256)
    output_tokens: tuple[int, int] = (16, 96)
    seed: int = 0
    shorten_prompts: int = 1  # divide every length by this: a sample of the same proportions, for the sweep
    shorten_outputs: int = 1


@dataclass(frozen=True)
class Request:
    """A prompt as token ids, and the number of tokens to write after it."""

    prompt: list[int]
    max_new_tokens: int


def make_workload(tokenizer: Any, shape: Shape) -> list[Request]:
    """The requests of `shape`, in the order in which they arrive; the same list for the same shape and tokenizer.

    The text of a prompt is an instruction followed by passages that start at a drawn sentence, cut to the drawn length.
    """
    instructions, sentences = read_prompts()
    draw = random.Random(shape.seed)
    requests = []
    for _ in range(shape.requests):
        n_prompt = max(draw.randint(*shape.prompt_tokens) // shape.shorten_prompts, 4)
        n_output = max(draw.randint(*shape.output_tokens) // shape.shorten_outputs, 2)
        start = draw.randrange(len(sentences))
        text = draw.choice(instructions) + "\n\n" + " ".join(sentences[start:] + sentences[:start])
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) < n_prompt:
            raise ValueError(
                f"a prompt of {n_prompt} tokens was asked for, {PROMPTS.name} has {len(ids)}; add text to it"
            )
        requests.append(Request(list(ids[:n_prompt]), n_output))
    return requests


def read_prompts() -> tuple[list[str], list[str]]:
    """The instructions and the sentences of `prompts.txt`."""
    lines = [line for line in PROMPTS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    cut = lines.index("---")
    passages = " ".join(lines[cut + 1 :])
    return lines[:cut], [sentence.rstrip(".") + "." for sentence in passages.split(". ")]


def describe(requests: list[Request], max_batch_size: int) -> dict[str, Any]:
    """Counts that explain the results: tokens in and out, and what static batches of `max_batch_size` waste on them."""
    prompts, outputs = [len(r.prompt) for r in requests], [r.max_new_tokens for r in requests]
    batches = [slice(i, i + max_batch_size) for i in range(0, len(requests), max_batch_size)]
    return {
        "requests": len(requests),
        "prompt_tokens": sum(prompts),
        "output_tokens": sum(outputs),
        "prompt_lengths": prompts,
        "output_lengths": outputs,
        "static_prompt_tokens_with_padding": sum(max(prompts[b]) * len(prompts[b]) for b in batches),
        "static_output_tokens_computed": sum(max(outputs[b]) * len(outputs[b]) for b in batches),
    }
