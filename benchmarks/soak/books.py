"""Who asked for what, and how it ended: each request exactly once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexnano import Inference, Result, SamplingParams, TokenEvent

Judge = Callable[[int, SamplingParams, Result], None]
"""Raises AssertionError if a result is not what its request should have got."""


def nobody_cares(_request: int) -> None:
    pass


@dataclass(eq=False)
class Stream:
    """A stream that somebody reads, and the requests that it has added."""

    events: Iterator[TokenEvent]
    requests: list[int] = field(default_factory=list)


class Books:
    """Keeps account of all that is asked of an engine.

    Args:
        engine: whose `add_request` is watched from now on.
        judge: looks at each result of a request.
        forget: is told of requests whose stream was closed before they ended: no result comes.

    Fields that others read:
        asked: parameters of the requests that have not ended, by number.
        counts: of what happened.
    """

    def __init__(self, engine: Inference, judge: Judge, forget: Callable[[int], None] = nobody_cares) -> None:
        self.engine, self.judge, self.forget = engine, judge, forget
        self.asked: dict[int, SamplingParams] = {}
        self.tokens: dict[int, list[int]] = {}
        self.aborted: set[int] = set()
        self.streams: list[Stream] = []
        self.counts: Counter[str] = Counter()
        self._stream: Stream | None = None  # the one that adds requests at the moment
        self._add = engine.add_request
        engine.add_request = self._watched  # type: ignore[method-assign]

    def _watched(self, prompt: Any, sampling_params: SamplingParams | None = None) -> int:
        request = self._add(prompt, sampling_params)
        assert request not in self.asked, f"two requests have number {request}"
        self.asked[request], self.tokens[request] = sampling_params or SamplingParams(), []
        self.counts["requests"] += 1
        if self._stream is not None:
            self._stream.requests.append(request)
        return request

    # ------------------------------------------------------------------ what others do

    def add(self, prompt: Any, params: SamplingParams | None) -> None:
        self.engine.add_request(prompt, params)

    def add_bad(self, prompt: Any, params: Any) -> None:
        """A request that has to be refused."""
        before = len(self.asked)
        try:
            self.engine.add_request(prompt, params)
        except (TypeError, ValueError):
            assert len(self.asked) == before
            self.counts["refused"] += 1
            return
        raise AssertionError(f"a bad request was taken: {prompt!r:.80}, {params!r}")

    def abort(self, rng: random.Random) -> None:
        """Abort somebody, whoever it is."""
        if self.asked:
            request = rng.choice(list(self.asked))
            if self.engine.abort(request):
                self.aborted.add(request)

    def open_stream(self, prompts: Sequence[Any], params: Sequence[SamplingParams]) -> None:
        self.streams.append(Stream(self.engine.stream(prompts, params)))
        self.counts["streams"] += 1

    def read_stream(self, stream: Stream, n_events: int) -> None:
        self._stream = stream
        for _ in range(n_events):
            event = next(stream.events, None)
            if event is None:
                self.streams.remove(stream)
                assert not any(request in self.asked for request in stream.requests), "a stream ended too early"
                break
            self.note(event)
        self._stream = None

    def close_stream(self, stream: Stream) -> None:
        """Who read it goes away."""
        stream.events.close()  # type: ignore[attr-defined]
        self.streams.remove(stream)
        self.counts["streams closed"] += 1
        for request in stream.requests:
            if self.asked.pop(request, None) is not None:
                assert not self.engine.abort(request), f"request {request} goes on, but its stream is closed"
                del self.tokens[request]
                self.aborted.discard(request)
                self.forget(request)
                self.counts["closed"] += 1

    # ------------------------------------------------------------------ what the engine does

    def step(self) -> None:
        for event in self.engine.run_one_step():
            self.note(event)

    def note(self, event: TokenEvent) -> None:
        request = event.request_id
        if request == -1:  # of a stream: refused
            assert event.finish_reason == "refused", event
            self.counts["refused"] += 1
            return
        assert request in self.asked, f"an event of request {request}, which has ended or never was: {event}"
        if event.token_id is not None:
            self.tokens[request].append(event.token_id)
        if event.result is None:
            return
        params, result = self.asked.pop(request), event.result
        assert self.tokens.pop(request) == result.token_ids, f"the events of request {request} are not its result"
        reason = result.finish_reason
        assert reason != "error", f"request {request} ended with an error: {result.error}"
        assert reason != "aborted" or request in self.aborted, f"request {request} was aborted by nobody"
        self.aborted.discard(request)
        self.judge(request, params, result)
        self.counts[reason] += 1
        self.counts["tokens"] += len(result.token_ids)

    def close(self) -> None:
        """Watch no longer."""
        del self.engine.add_request  # what the class has is there again

    def settle(self) -> None:
        """Run until nothing is left, and see that nobody is lost."""
        for stream in list(self.streams):
            self.close_stream(stream)
        for _ in range(100_000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "100,000 steps, and still work to do"
        assert not self.asked, f"these never ended: {list(self.asked)[:20]}"
        assert not self.aborted and not self.tokens
        engine = self.engine
        assert not engine._requests and not engine._events and not engine._streamed, "something of a request is kept"
        ends = ("stop", "length", "out_of_pages", "aborted", "closed")
        assert self.counts["requests"] == sum(self.counts[end] for end in ends), (
            f"the books don't add up: {self.counts}"
        )


def page_tables(engine: Inference) -> list[Any]:
    return [engine.page_table] if engine.planner is None else [group.table for group in engine.planner.groups]


def leaked(engine: Inference) -> tuple[int, int]:
    """Pages and slots that are missing where nobody runs any more."""
    assert not engine.scheduler.running and not engine.scheduler.waiting
    tables = page_tables(engine)
    for table in tables:
        table.check()
    return (
        sum(table.n_pages - table.pages_available for table in tables),
        sum(table.max_batch_size - len(table.free_slots) for table in tables),
    )


def poisson(rng: random.Random, mean: float) -> int:
    """How many arrive in a step when arrivals have nothing to do with each other."""
    n, left = 0, rng.expovariate(1.0)
    while left < mean:
        n, left = n + 1, left + rng.expovariate(1.0)
    return n
