"""What reproductions and tests of the clinic are written with: a tiny model, an engine on it, and the right tokens.

    from course.clinic.bench import engine_for, plain_tokens

    with engine_for("llama", n_pages=8) as engine:
        (result,) = engine.generate([[5, 6, 7]])
    assert result.token_ids == plain_tokens([5, 6, 7], n=64)

`engine_for` takes whatever `import flexnano` finds: in the folder of a case that is the engine of the case, and in grading
also a healthy one, and others.  So a test names no engine.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch

from ..grading.tiny import tiny_model

SIZES: dict[str, Any] = dict(max_batch_size=4, max_seq_length=64, n_pages=32, page_size=4)
"""Of an engine, unless said otherwise: 4 slots, 32 pages of 4 tokens, at most 64 tokens a sequence."""


def engine_for(
    kind: str = "llama", text: bool = False, package: ModuleType | None = None, model: Any = None, **sizes: Any
) -> Any:
    """An engine on a tiny random model in float32, on the CPU, without a compiler.  Use it in a `with`.

    Args:
        kind: "llama", or "gemma2": every second layer reads a window of 8 tokens.
        text: with `ToyTokenizer`, so that prompts may be text and answers have one.
        package: the engine's package; None: `flexnano`.
        model: another one than the tiny model.
        sizes: as `Inference` has them; otherwise those of `SIZES`.
    """
    package = package or importlib.import_module("flexnano")
    tokenizer = ToyTokenizer() if text else None
    return package.Inference(model or tiny_model(kind), tokenizer, attention="gather", fast=False, **{**SIZES, **sizes})


@torch.inference_mode()
def plain_tokens(prompt: Sequence[int], n: int = 64, kind: str = "llama", longest: int = 64) -> list[int]:
    """The `n` greedy tokens after a prompt, without any engine: the whole text through the model for each of them.

    Args:
        longest: tokens at which a sequence ends, prompt included, as `max_seq_length` has it.
    """
    model, ids = tiny_model(kind), list(prompt)
    model.set_attn_implementation("eager")  # before transformers 5.24 the other way leaves out Gemma 2's soft cap
    while len(ids) < min(len(prompt) + n, longest):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@contextlib.contextmanager
def memory_of(free_bytes: int) -> Iterator[None]:
    """As if the machine had so many bytes of free memory."""
    with mock.patch("psutil.virtual_memory", lambda: SimpleNamespace(available=free_bytes, total=free_bytes)):
        yield


def recite(engine: Any, text: str) -> None:
    """Let the engine's model recite: whatever the prompt, the token at position p of a sequence is the p-th of `text`.

    Give a beginning of the text as the prompt, and the answer is the rest.  The model still computes everything.
    """
    ids = torch.tensor(ToyTokenizer()(text)["input_ids"])

    def say_it(_model: Any, _args: Any, arguments: dict[str, Any], output: Any) -> Any:
        position = arguments["flex_attn_input_pos"]
        if position.ndim == 2:  # a prefill: logits at the last token of each prompt
            position = position[0][arguments["logits_to_keep"]]
        following = ids[(position + 1).clamp(max=len(ids) - 1)].view(output.logits.shape[:2])
        output.logits = output.logits.scatter_add(2, following[..., None], torch.full((*following.shape, 1), 1e3))
        return output

    engine.model.register_forward_hook(say_it, with_kwargs=True)


class ToyTokenizer:
    """A tokenizer for the tiny model: most tokens are a letter, nine are single bytes of the characters é, 漢 and 😀.

    It has what an engine asks of a tokenizer of transformers, and no more.
    """

    eos_token_id = None
    pieces = (
        *(bytes([letter]) for letter in b" abcdefghijklmnopqrstuvwxyz.,!?'-:;()\n\""),
        *(bytes([byte]) for byte in "é漢😀".encode()),
    )

    def __call__(self, text: str) -> dict[str, list[int]]:
        data, ids = text.encode(), []
        for byte in data:
            one = bytes([byte])
            if one not in self.pieces:
                raise ValueError(f"the toy tokenizer has no token for byte {byte:#x} of {text!r}")
            ids.append(self.pieces.index(one))
        return {"input_ids": ids}

    def decode(self, ids: Any, skip_special_tokens: bool = True, **_options: Any) -> str:
        return b"".join(self.pieces[int(one)] for one in ids).decode("utf-8", "replace")

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return repr(self.pieces[int(token_id)])
