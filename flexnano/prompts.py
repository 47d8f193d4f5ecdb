# Your copy of solutions/flexnano/prompts.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 80192c4647e4896f
"""What a caller may give as a prompt, and its token ids; and the ids that end a text.  Given."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .sampling_params import SamplingParams

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""Raw text, token ids, or chat messages such as [{"role": "user", "content": "Hello"}]."""


def prompt_ids(prompt: Prompt, tokenizer: Any, vocab_size: int) -> list[int]:
    """The token ids of a prompt; chat messages go through the tokenizer's chat template.

    Args:
        prompt: text, token ids (a list, a tuple or a tensor [T]) or chat messages.
        tokenizer: of transformers; None if only token ids are given.
        vocab_size: ids are below it.

    Raises:
        TypeError: the prompt or one of its ids is of another type.
        ValueError: there is no token, or an id is not in the vocabulary.
    """
    is_chat = isinstance(prompt, list | tuple) and bool(prompt) and all(isinstance(part, Mapping) for part in prompt)
    if isinstance(prompt, str) or is_chat:
        if tokenizer is None:
            raise TypeError("the prompt is text, but the engine has no tokenizer; give token ids")
        try:
            if is_chat:
                ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
            else:
                ids = tokenizer(prompt)["input_ids"]
        except Exception as error:  # chat templates raise what they like, on roles that do not alternate for one
            raise ValueError(f"the tokenizer cannot take the prompt ({type(error).__name__}: {error})") from error
    elif isinstance(prompt, list | tuple):
        ids = list(prompt)
    elif isinstance(prompt, Tensor) and prompt.ndim == 1:
        ids = prompt.tolist()
    else:
        raise TypeError(
            f"a prompt is a {type(prompt).__name__}, but must be a string, a list of token ids or a list of chat messages"
        )
    if not ids:
        raise ValueError("the prompt has no tokens; it needs at least one")
    return [_token_id(token, vocab_size) for token in ids]


def one_params_each(
    prompts: Sequence[Prompt], sampling_params: SamplingParams | Sequence[SamplingParams] | None
) -> list[SamplingParams | None]:
    """The sampling parameters of each prompt of a call.

    Raises:
        TypeError: `prompts` is no list of prompts, or the parameters are of another type.
        ValueError: there are more or fewer parameters than prompts.
    """
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        raise TypeError(f"prompts is a {type(prompts).__name__}, but must be a list of prompts: [prompt]")
    if prompts and all(isinstance(prompt, Mapping) for prompt in prompts):
        raise TypeError("prompts is the messages of one chat, but must be a list of prompts: [messages]")
    if sampling_params is None or isinstance(sampling_params, SamplingParams):
        return [sampling_params] * len(prompts)
    if isinstance(sampling_params, str) or not isinstance(sampling_params, Sequence):
        raise TypeError(
            f"sampling_params is a {type(sampling_params).__name__}, but must be SamplingParams or a list of them"
        )
    if len(sampling_params) != len(prompts):
        raise ValueError(
            f"{len(sampling_params)} sampling_params for {len(prompts)} prompts; give one, or one for each"
        )
    for one in sampling_params:
        if one is not None and not isinstance(one, SamplingParams):
            raise TypeError(f"sampling_params holds a {type(one).__name__}, but must hold SamplingParams")
    return list(sampling_params)


def one_sample(params: SamplingParams | None) -> SamplingParams:
    """The parameters of a request of its own; None: greedy, 64 tokens.

    Raises:
        TypeError: they are something else.
        ValueError: they ask for several samples.
    """
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        raise TypeError(f"sampling_params is a {type(params).__name__}, but must be SamplingParams")
    if params.n > 1:
        raise ValueError(
            f"n is {params.n}, but a request that is added by itself has one sample; add one for each, or use generate"
        )
    return params


def samples_of(
    prompts: Sequence[Prompt], params: Sequence[SamplingParams | None]
) -> Iterator[tuple[int, int, Prompt, SamplingParams | None]]:
    """(index of the prompt, number of the sample, prompt, parameters of this sample) for each sample of each prompt.

    The first sample has the seed that was given, so that it is what `n=1` would give; those after it have seeds of their own.
    """
    for index, (prompt, one) in enumerate(zip(prompts, params, strict=True)):
        n = 1 if one is None else one.n
        for sample in range(n):
            if one is None or n == 1:
                yield index, 0, prompt, one
            else:
                seed = None if one.seed is None else (one.seed + sample * 0x9E3779B97F4A7C15) % 2**63
                yield index, sample, prompt, replace(one, n=1, seed=seed)


def _token_id(token: Any, vocab_size: int) -> int:
    try:
        if isinstance(token, bool):
            raise TypeError
        number = operator.index(token)
    except TypeError:
        raise TypeError(f"{token!r} in the prompt is a {type(token).__name__}, but token ids are integers") from None
    if not 0 <= number < vocab_size:
        raise ValueError(f"token id {number} in the prompt is not in the vocabulary: 0 to {vocab_size - 1}")
    return number


def eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text: those of the generation config (chat models have several), and the tokenizer's own."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, getattr(tokenizer, "eos_token_id", None)] if i is not None)
