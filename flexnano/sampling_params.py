# Your copy of solutions/flexnano/sampling_params.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 9c90a0f480b99feb
"""Given: what a request may ask of the sampler, checked the moment it is written down."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST, LARGEST = math.ulp(0.0), sys.float_info.max
"""The smallest float above 0, and the largest that is finite."""


@dataclass(frozen=True)
class SamplingParams:
    """How one request is continued.  The defaults are greedy, 64 new tokens.

    Attributes:
        max_new_tokens: stop after so many tokens, the last one included; at least 1.
        temperature: 0 takes the most likely token; above 0 logits are divided by it.
        top_k: sample among the k most likely tokens only; 0 switches it off.
        top_p: sample among the fewest most likely tokens that have this probability together; in (0, 1], 1 is off.
        min_p: drop tokens less likely than this share of the most likely one; in [0, 1], 0 is off.
        seed: 0 to 2⁶³ − 1.  The same seed gives the same tokens, in any batch.  None: the engine picks one.
        stop: a string, or several strings and token ids.  A stop string is cut from the text.
        ignore_eos: go on after the model's end-of-sequence tokens.
        n: how many samples of the prompt `generate` and `stream` make, each with a seed of its own; with `prefix_sharing`
            they share the prompt's pages.
        logprobs: report so many most likely tokens, and the chosen one, with their log-probabilities; None: none.

    Raises:
        TypeError: a value of the wrong type; True and False are no numbers here.
        ValueError: a value out of range.

    >>> SamplingParams(temperature=0.7, stop="\\n\\n").stop
    ('\\n\\n',)
    >>> SamplingParams(top_p=0)
    Traceback (most recent call last):
    ValueError: top_p is 0, but must be above 0 and at most 1; use 1.0 to switch it off
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str | int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1

    def __post_init__(self) -> None:
        self._set("max_new_tokens", _integer("max_new_tokens", self.max_new_tokens, least=1))
        self._set("temperature", _real("temperature", self.temperature, 0, LARGEST, "finite and at least 0 (greedy)"))
        self._set("top_k", _integer("top_k", self.top_k, hint="; use 0 to switch it off"))
        self._set("top_p", _real("top_p", self.top_p, SMALLEST, 1, "above 0 and at most 1; use 1.0 to switch it off"))
        self._set("min_p", _real("min_p", self.min_p, 0, 1, "from 0 to 1; use 0.0 to switch it off"))
        self._set("n", _integer("n", self.n, least=1))
        if self.seed is not None:
            self._set("seed", _integer("seed", self.seed, most=2**63 - 1, hint="; use None for the engine's choice"))
        if self.logprobs is not None:
            self._set("logprobs", _integer("logprobs", self.logprobs, hint="; use None for no log-probabilities"))
        if not isinstance(self.ignore_eos, bool):
            raise TypeError(f"ignore_eos is {self.ignore_eos!r}, but must be True or False")
        self._set("stop", _stops(self.stop))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone but __post_init__

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return tuple(stop for stop in self.stop if isinstance(stop, str))

    @property
    def stop_token_ids(self) -> frozenset[int]:
        return frozenset(stop for stop in self.stop if isinstance(stop, int))


def _integer(name: str, value: object, least: int = 0, most: int | None = None, hint: str = "") -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), but must be an integer{hint}") from None
    if number < least or (most is not None and number > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {number}, but must be {allowed}{hint}")
    return number


def _real(name: str, value: object, least: float, most: float, allowed: str) -> float:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), but must be a number {allowed}")
    if not least <= (number := float(value)) <= most:  # so that NaN is refused as well
        raise ValueError(f"{name} is {value!r}, but must be {allowed}")
    return number


def _stops(stop: object) -> tuple[str | int, ...]:
    if isinstance(stop, str):
        stop = (stop,)
    if not isinstance(stop, Sequence) or isinstance(stop, (bytes, bytearray)):
        raise TypeError(
            f"stop is {stop!r} ({type(stop).__name__}), but must be a string or a list of them and token ids"
        )
    if "" in stop:
        raise ValueError("stop holds an empty string, which would end every text before it begins; leave it out")
    return tuple(item if isinstance(item, str) else _integer("a stop token id", item) for item in stop)
