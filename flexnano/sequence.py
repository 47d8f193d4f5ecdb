# Your copy of solutions/flexnano/sequence.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash e828aff0801c2ef8
"""Module 05: a sequence, one request on its way through the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .detokenize import Detokenizer


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """The prompt, what has been generated, and where the sequence stands.

    Fields:
        request_id: number by which the caller knows the request.
        prompt_ids: tokens of the prompt, at least one.
        params: how to sample, when to stop.
        eos_token_ids: tokens that end the text.
        max_length: tokens at which the sequence ends, prompt included.
        seed: of the sampling noise, so that the same request gives the same tokens in any batch.
        output_ids: tokens generated so far.
        slot: row of the page table while running, else 0.
        preemptions: how often the sequence lost its pages and had to start over.
        finish_reason: why it ended, once it has.
        pending: tokens that the device has chosen and the host has not read yet (module 07; else 0).
        computed, cached: tokens whose keys and values lie in the slot's pages, and how many were there when a slot was first
            given (homeworks; else 0).
    """

    request_id: int
    prompt_ids: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    eos_token_ids: frozenset[int] = frozenset()
    max_length: int = 2**31
    seed: int = 0
    output_ids: list[int] = field(default_factory=list)
    slot: int = 0
    status: Status = Status.WAITING
    preemptions: int = 0
    finish_reason: str | None = None
    pending: int = 0
    computed: int = 0
    cached: int = 0
    # for the caller's results: not read by the scheduler
    detokenizer: Detokenizer | None = None
    logprobs: list[dict[int, float]] = field(default_factory=list)
    arrival_time: float = field(default_factory=time.perf_counter)
    token_times: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        """Tokens of prompt and output, those that are still on their way included."""
        return len(self.prompt_ids) + len(self.output_ids) + self.pending

    @property
    def token_ids(self) -> list[int]:
        """All tokens: what a prefill has to compute, also after a preemption."""
        return self.prompt_ids + self.output_ids

    def check_done(self) -> str | None:
        """Why the sequence ends with its newest token, or None if it goes on.  [5.1 · ★★☆ · 10 min]

        Returns:
            "stop" if the newest token is one of `eos_token_ids` (unless `params.ignore_eos`), or one of
            `params.stop_token_ids` (always); else
            "length" if `params.max_new_tokens` tokens have been generated or the sequence has `max_length` tokens (prompt
            and output; `pending` does not count); else
            None, also while nothing has been generated.

        >>> Sequence(0, [5, 6], SamplingParams(max_new_tokens=2), output_ids=[7]).check_done()
        >>> Sequence(0, [5, 6], SamplingParams(max_new_tokens=2), output_ids=[7, 8]).check_done()
        'length'
        >>> Sequence(0, [5, 6], eos_token_ids=frozenset({1, 106}), output_ids=[7, 106]).check_done()
        'stop'
        """
        raise NotImplementedError("Exercise 5.1: Sequence.check_done")
