# Your copy of solutions/flexnano/results.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 621a7b04b98af292
"""What the engine hands back: a token as it comes, a result when a request ends, and counts of what was done.  Given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .sequence import Sequence


@dataclass(frozen=True)
class Metrics:
    """Times are in seconds and counted from `add_request`.  `cached_tokens`: of the prompt, found in shared pages."""

    prompt_tokens: int
    output_tokens: int
    time_to_first_token: float | None
    inter_token_latencies: list[float]
    total_time: float | None
    preemptions: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Result:
    """A request that has ended.

    `token_ids` hold the token that ended it (end of sequence or a stop id), `text` does not; a stop string is cut off.
    `finish_reason`: "stop", "length", "out_of_pages", "refused", "aborted" or "error"; `error` says more for the last four.
    `logprobs`: for each output token {token id: natural logarithm of its probability}, if they were asked for.
    `samples`: all results of a prompt of which several samples were asked for, this one first; else empty.
    """

    request_id: int
    prompt_token_ids: list[int]
    text: str
    token_ids: list[int]
    finish_reason: str
    error: str | None
    logprobs: list[dict[int, float]] | None
    metrics: Metrics
    samples: tuple[Result, ...] = ()

    @classmethod
    def of(cls, sequence: Sequence, error: str | None) -> Result:
        times = sequence.token_times
        metrics = Metrics(
            prompt_tokens=len(sequence.prompt_ids),
            output_tokens=len(sequence.output_ids),
            time_to_first_token=times[0] - sequence.arrival_time if times else None,
            inter_token_latencies=[later - earlier for earlier, later in itertools.pairwise(times)],
            total_time=times[-1] - sequence.arrival_time if times else None,
            preemptions=sequence.preemptions,
            cached_tokens=sequence.cached,
        )
        return cls(
            request_id=sequence.request_id,
            prompt_token_ids=list(sequence.prompt_ids),
            text=sequence.detokenizer.text if sequence.detokenizer else "",
            token_ids=list(sequence.output_ids),
            finish_reason=sequence.finish_reason or "error",
            error=error,
            logprobs=list(sequence.logprobs) if sequence.params.logprobs is not None else None,
            metrics=metrics,
        )

    @classmethod
    def refused(cls, error: str) -> Result:
        """A request that never started."""
        return cls(-1, [], "", [], "refused", error, None, Metrics(0, 0, None, [], None, 0))


@dataclass(frozen=True)
class TokenEvent:
    """One token of one request, or its end.

    `text` is the piece that can be shown now; the pieces of a request joined are its result's `text`.  `token_id` is None
    where a request ended without a new token.  `result` and `finish_reason` are set on a request's last event only.
    `index` is the place of its prompt in the call to `stream`, or -1 for a request from `add_request`; `sample` counts the
    samples of that prompt.
    """

    request_id: int
    index: int
    token_id: int | None
    text: str
    finish_reason: str | None = None
    result: Result | None = None
    sample: int = 0


def in_order(events: Iterable[TokenEvent]) -> list[Result]:
    """The results of a call in the order of its prompts; of several samples the first, which has them all."""
    found = {(event.index, event.sample): event.result for event in events if event.result is not None}
    results: list[Result] = []
    for _, group in itertools.groupby(sorted(found), key=lambda place: place[0]):
        samples = tuple(found[place] for place in group)
        results.append(samples[0] if len(samples) == 1 else replace(samples[0], samples=samples))
    return results


def outgrown(sequence: Sequence, longest: int) -> str:
    """What is said of a sequence that needs more than the whole pool."""
    return (
        f"the sequence reached {len(sequence)} tokens, but the whole pool holds {longest}; "
        f"give the engine more n_pages or the request a smaller max_new_tokens"
    )


@dataclass
class EngineStats:
    """Counts since the engine was made; `seconds` is the time spent in steps."""

    steps: int = 0
    prefill_steps: int = 0
    decode_steps: int = 0
    prefill_tokens: int = 0
    padded_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    seconds: float = 0.0

    def count(self, n_tokens: int, padding: int, is_prefill: bool) -> None:
        """Count a step that was run."""
        self.steps += 1
        if is_prefill:
            self.prefill_steps += 1
            self.prefill_tokens += n_tokens
            self.padded_tokens += padding
        else:
            self.decode_steps += 1
