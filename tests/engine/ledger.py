"""What was asked of an engine and what came back: every request ends exactly once, with what it would have got alone.

The tiny models are float32, so what a request gets in company equals, token by token, what transformers gives it alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import families

from flexnano import Inference, Result, SamplingParams, TokenEvent

MOST = 24
"""Tokens that a request of these tests may ask for."""

EOS = 2
"""The end of a text, as the tiny tokenizer has it."""

UNHARMED = ("length", "stop")
"""How a request ends to which nothing happened."""


@functools.cache
def _reference(family: str) -> families.PreTrainedModel:
    return families.FAMILIES[family]()


@functools.cache
def _alone(prompt: tuple[int, ...], family: str) -> list[int]:
    return families.reference_tokens(_reference(family), list(prompt), MOST)


def alone(prompt: list[int], n_tokens: int, family: str = "llama") -> list[int]:
    """The greedy tokens that transformers gives to this prompt alone, up to the end of the text."""
    tokens = _alone(tuple(prompt), family)[:n_tokens]
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


class Ledger:
    """Keeps account of requests that were added with `add_request`, event by event."""

    def __init__(self, engine: Inference, family: str = "llama") -> None:
        self.engine, self.family = engine, family
        self.asked: dict[int, tuple[list[int], SamplingParams]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.results: dict[int, Result] = {}

    def add(self, prompt: list[int], n_tokens: int) -> int:
        params = SamplingParams(max_new_tokens=n_tokens)
        request = self.engine.add_request(prompt, params)
        assert request not in self.asked, f"two requests have number {request}"
        self.asked[request], self.tokens[request] = (prompt, params), []
        return request

    @property
    def unfinished(self) -> list[int]:
        return [request for request in self.asked if request not in self.results]

    def note(self, events: Iterable[TokenEvent]) -> None:
        for event in events:
            request = event.request_id
            assert request in self.asked, f"an event of request {request}, for which nobody asked: {event}"
            assert request not in self.results, f"request {request} had ended already, and then came {event}"
            if event.token_id is not None:
                self.tokens[request].append(event.token_id)
            if event.result is not None:
                self.results[request] = event.result

    def step(self) -> None:
        self.note(self.engine.run_one_step())

    def drain(self) -> None:
        """Run until there is nothing to do."""
        for _ in range(40 + 4 * MOST * (len(self.unfinished) + 1)):
            if not self.engine.has_work:
                return
            self.step()
        raise AssertionError(f"the engine always has work, and these do not end: {self.unfinished}")

    def check(self, may_fail: Iterable[int] = ()) -> None:
        """After `drain`: nobody is lost; who is not in `may_fail` has all tokens, and the others a beginning of them."""
        assert not self.unfinished, f"requests {self.unfinished} never ended"
        for request, result in self.results.items():
            prompt, params = self.asked[request]
            right = alone(prompt, params.max_new_tokens, self.family)
            if request not in may_fail:
                assert result.finish_reason in UNHARMED, (
                    f"request {request} ended with {result.finish_reason!r} ({result.error}), but nothing happened to it"
                )
            if result.finish_reason not in UNHARMED:
                assert result.error, f"request {request} ended with {result.finish_reason!r} and does not say why"
                right = right[: len(result.token_ids)]
            assert result.token_ids == right, f"request {request} got {result.token_ids}, but alone it gets {right}"
            assert self.tokens[request] == result.token_ids, f"the events of request {request} are not its result"
