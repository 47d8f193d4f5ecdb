"""The finished engine answers eight prompts as one batch, and the text streams to the terminal as it comes.

On a terminal each answer has one line that is drawn over while it grows; the whole answers follow at the end. Elsewhere (a
log, a pipe) each answer is printed when it is finished.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .console import can_redraw, duration, say, width
from .model import NAME, ensure_model

PROMPTS = [
    "What is the capital of France?",
    "Why is the sky blue?",
    "Explain gravity to a child in one sentence.",
    "List five fruits.",
    "What does a compiler do?",
    "What is machine learning in one sentence?",
    "Why do we sleep?",
    "What does a bee do in a garden?",
]
MAX_NEW_TOKENS = 64


def main() -> int:
    with elapsed("Loading torch and the model"):
        engine, params = _engine()
    say(engine.describe())
    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    # The same prompts once before the clock runs: what is compiled for their sizes is compiled now.
    with elapsed("Compiling and warming up (longest the first time; later runs find it in a cache)"):
        engine.generate(prompts, params(max_new_tokens=4))
    say(f"\n{NAME} is a small model: its answers are fluent, not always true.\n")
    results, seconds = stream(engine, prompts, params(max_new_tokens=MAX_NEW_TOKENS))
    say(summary(results, seconds))
    engine.close()
    return 0 if all(result.text and result.error is None for result in results) else 1


def limit_threads() -> None:
    """A guess on the safe side: where other work keeps cores busy, threads that wait for one cost more than they bring."""
    import psutil
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (psutil.cpu_count(logical=False) or 2) // 2))


def _engine() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from flexnano import Inference, SamplingParams

    logging.disable_progress_bar()
    limit_threads()
    folder = ensure_model()
    if torch.cuda.is_available():
        dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cuda")
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = Inference(model.eval(), tokenizer, max_batch_size=len(PROMPTS), max_seq_length=512, n_pages=32)
    return engine, SamplingParams


def stream(engine: Any, prompts: list[Any], params: Any) -> tuple[list[Any], float]:
    """Show the answers as they come.  Returns the results in order, and how long all took in seconds."""
    texts = [""] * len(prompts)
    results: list[Any] = [None] * len(prompts)
    board = Board(len(prompts)) if can_redraw() else None
    start = time.perf_counter()
    for event in engine.stream(prompts, params):
        texts[event.index] += event.text
        if event.result is not None:
            results[event.index] = event.result
        if board is not None:
            board.draw(texts, [result is not None for result in results])
        elif event.result is not None:
            say(answer(event.index, event.result) + "\n")
    seconds = time.perf_counter() - start
    if board is not None:
        board.clear()
        for index, result in enumerate(results):
            say(answer(index, result) + "\n")
    return results, seconds


def answer(index: int, result: Any) -> str:
    """A prompt and its whole answer, wrapped to the terminal; `…` where it ran into the limit of new tokens."""
    text = result.text.rstrip() + (" …" if result.finish_reason == "length" else "") + (result.error or "")
    columns = max(min(width(), 100), 40)
    lines = [
        piece
        for line in text.strip().splitlines()
        for piece in (textwrap.wrap(line, columns - 5, break_long_words=True) or [""])
    ]
    return f"{index + 1}  {PROMPTS[index]}\n" + "\n".join(f"     {line}".rstrip() for line in lines)


def summary(results: list[Any], seconds: float) -> str:
    lines = ["request   prompt tokens   new tokens   first token after   tokens/s   ended by"]
    for index, result in enumerate(results, start=1):
        metrics = result.metrics
        rate = metrics.output_tokens / (metrics.total_time or seconds)
        lines.append(
            f"{index:>7}   {metrics.prompt_tokens:>13}   {metrics.output_tokens:>10}   "
            f"{metrics.time_to_first_token or 0:>15.2f} s   {rate:>8.1f}   {result.finish_reason}"
        )
    tokens = sum(result.metrics.output_tokens for result in results)
    lines.append(
        f"\n{NAME}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s over all eight at once"
    )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------- terminal


class Board:
    """One line for each answer, drawn over in place.  Lines never wrap, so that the cursor's way back is known."""

    PAUSE = 0.05  # seconds between two drawings: terminals over a network are slow

    def __init__(self, n_lines: int) -> None:
        self.n_lines = n_lines
        self.drawn = False
        self.last = 0.0

    def draw(self, texts: list[str], done: list[bool]) -> None:
        now = time.perf_counter()
        if now - self.last < self.PAUSE and not all(done):
            return
        self.last = now
        columns = width() - 1
        lines = []
        for index, text in enumerate(texts):
            head = f"{index + 1} {'■' if done[index] else '▸'} "
            flat = " ".join(text.split())
            lines.append(head + tail(flat, columns - cells(head)))
        back = f"\x1b[{self.n_lines}F" if self.drawn else ""
        sys.stdout.write(back + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stdout.flush()
        self.drawn = True

    def clear(self) -> None:
        if self.drawn:
            sys.stdout.write(f"\x1b[{self.n_lines}F\x1b[J")
            sys.stdout.flush()


def cells(text: str) -> int:
    """How many columns a text takes: wide characters take two, combining ones and invisible ones none.

    >>> cells("abc"), cells("日本"), cells("e\\u0301")
    (3, 4, 1)
    """
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cc", "Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def tail(text: str, columns: int) -> str:
    """The end of a text that fits, with `…` where something is missing in front.

    >>> tail("abcdef", 4), tail("日本語", 5), tail("abc", 4)
    ('…def', '…本語', 'abc')
    """
    if cells(text) <= columns:
        return text
    used, start = 1, len(text)
    while start > 0 and used + _cells(text[start - 1]) <= columns:
        start -= 1
        used += _cells(text[start])
    return "…" + text[start:]


@contextmanager
def elapsed(text: str) -> Iterator[None]:
    """Show that something long is going on: a running clock on a terminal, now and then a line elsewhere."""
    start = time.perf_counter()
    stop = threading.Event()
    redraw = can_redraw()
    print(f"{text} …", end="" if redraw else "\n", flush=True)

    def tick() -> None:
        while not stop.wait(1 if redraw else 20):
            passed = duration(round(time.perf_counter() - start))
            print(
                f"\r\x1b[2K{tail(f'{text} … {passed}', width() - 1)}" if redraw else f"  … {passed}",
                end="" if redraw else "\n",
                flush=True,
            )

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        taken = duration(time.perf_counter() - start)
        print(f"\r\x1b[2K{text}: {taken}" if redraw else f"  took {taken}", flush=True)
