"""Prefix sharing, sliding windows and fusion together, driven at random: every request gets what it would have got alone.

Every combination of the options has a run of its own, by module 06's path and by module 07's.  Pools are small, so that
sequences are preempted and idle pages evicted; prompts begin alike for whole pages, one token more or one less.  What is
right comes from a dense attention under a mask, teacher-forced, and from the sampler alone.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import families
import pytest
import torch
from homeworks import NO_WINDOW, Window, assert_all_given_back, assert_in_order, assert_right, pools, spoil
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_stateful import drive

from course import counts
from flexnano import Inference, Result, SamplingParams, TokenEvent

LONGEST = 64
MOST = 20
POISON = 77
"""A token whose embedding is NaN.  No other prompt holds it."""

COMMON = [token for token in families.random_prompt(40, seed=40) if token != POISON]
TAILS = [[], *([token for token in families.random_prompt(9, seed) if token != POISON] for seed in (1, 2))]
ASKED = st.tuples(
    st.sampled_from([0, 1, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24]),  # tokens that all prompts have in common
    st.sampled_from(range(len(TAILS))),
    st.integers(1, 9),  # tokens of the tail
)
PARAMS = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(1, MOST),
    temperature=st.sampled_from([0.0, 0.0, 0.9, 1.5]),
    top_k=st.sampled_from([0, 20]),
    seed=st.integers(0, 2),
    stop=st.sampled_from([(), tuple(range(3, 199, 12))]),
)


@functools.cache
def model_of(family: str) -> Any:
    """One for all runs: an engine gives its model back."""
    return families.FAMILIES[family]()


def prompt_of(asked: tuple[int, int, int]) -> list[int]:
    n_common, tail, n_tail = asked
    return COMMON[:n_common] + TAILS[tail][:n_tail] or COMMON[:2]


class Machine(RuleBasedStateMachine):
    """The model: what was asked, and that nothing else matters."""

    fast = False
    sharing = False
    windowed = False
    with_sinks = False
    fused = False
    counted: Any = None  # examples, steps, preemptions and cached tokens of all runs
    requests = Bundle("requests")

    @initialize(
        family=st.sampled_from(["llama", "llama", "gemma2"]),
        page=st.sampled_from([4, 8]),
        window=st.sampled_from([5, 8, 11]),
        sinks=st.sampled_from([1, 4, 6]),
        n_slots=st.integers(1, 4),
        spare=st.integers(0, 8),
        budget=st.sampled_from([1, 8, 20, 64]),
        chunk=st.sampled_from([1, 5, 8, 16, 64]),
    )
    def begin(
        self, family: str, page: int, window: int, sinks: int, n_slots: int, spare: int, budget: int, chunk: int
    ) -> None:
        self.window = Window(window, sinks if self.with_sinks else 0) if self.windowed else NO_WINDOW
        self.family = family
        # As many pages as the longest prompt needs, and few more.
        least = -(-34 // page) if family == "gemma2" or not self.windowed else -(-window // page) + 3
        self.model = model_of(family)
        self.engine = Inference(
            self.model,
            None,
            max_batch_size=n_slots,
            max_seq_length=LONGEST,
            n_pages=least + spare,
            page_size=page,
            attention="gather",
            max_prefill_tokens=budget,
            fast=self.fast,
            prefix_sharing=self.sharing,
            fuse_prefill=self.fused,
            prefill_chunk=chunk,
            **self.window.options,
        )
        embedding = self.model.get_input_embeddings().weight
        self.before = embedding[POISON].clone()
        with torch.no_grad():
            embedding[POISON] = float("nan")
        gives_up = self.windowed and family == "llama"
        self.room = LONGEST if gives_up else min(LONGEST, (least + spare) * page)
        self.asked: dict[int, tuple[list[int], SamplingParams]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.results: dict[int, Result] = {}
        self.may_fail: set[int] = set()
        self.aborted: set[int] = set()
        self.poisoned: set[int] = set()
        self.counted["examples"] += 1

    # ------------------------------------------------------------------ what is asked

    def add(self, prompt: list[int], params: SamplingParams) -> int:
        request = self.engine.add_request(prompt, params)
        assert request not in self.asked, f"two requests have number {request}"
        self.asked[request], self.tokens[request] = (prompt, params), []
        return request

    @rule(target=requests, asked=ASKED, params=PARAMS)
    def ask(self, asked: tuple[int, int, int], params: SamplingParams) -> int:
        return self.add(prompt_of(asked), params)

    @rule(asked=ASKED, params=PARAMS, n=st.integers(2, 4))
    def ask_the_same_of_many(self, asked: tuple[int, int, int], params: SamplingParams, n: int) -> None:
        for _ in range(n):
            self.add(prompt_of(asked), params)

    @rule(asked=ASKED, at=st.integers(0, 30), n_tokens=st.integers(1, 4))
    def ask_with_poison(self, asked: tuple[int, int, int], at: int, n_tokens: int) -> None:
        """Somewhere in the prompt is a token that makes keys, values and logits NaN."""
        prompt = prompt_of(asked)
        prompt.insert(min(at, len(prompt)), POISON)
        self.poisoned.add(self.add(prompt, SamplingParams(max_new_tokens=n_tokens)))

    @rule(asked=ASKED, params=PARAMS, n=st.integers(1, 3))
    def samples(self, asked: tuple[int, int, int], params: SamplingParams, n: int) -> None:
        """`generate` answers all samples of a prompt, while others run, whose events are kept for them."""
        prompt = prompt_of(asked)
        several = SamplingParams(params.max_new_tokens, params.temperature, params.top_k, n=n, seed=params.seed)
        spoil(self.engine)
        (result,) = self.engine.generate([prompt], several)
        found = result.samples or (result,)
        assert len(found) == n
        for number, one in enumerate(found):
            seed = (several.seed + number * 0x9E3779B97F4A7C15) % 2**63  # type: ignore[operator]
            params_of_one = SamplingParams(several.max_new_tokens, several.temperature, several.top_k, seed=seed)
            self.check(prompt, params_of_one, one)

    @rule(request=requests)
    def abort(self, request: int) -> None:
        if self.engine.abort(request):
            assert request not in self.results
            self.aborted.add(request)

    # ------------------------------------------------------------------ steps

    @rule(steps=st.integers(1, 8))
    def run_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        spoil(self.engine)
        self.note(self.engine.run_one_step())
        assert_in_order(self.engine)
        self.counted["steps"] += 1

    def note(self, events: list[TokenEvent]) -> None:
        for event in events:
            request = event.request_id
            assert request in self.asked, f"an event of request {request}, for which nobody asked: {event}"
            assert request not in self.results, f"request {request} had ended already, and then came {event}"
            if event.token_id is not None:
                self.tokens[request].append(event.token_id)
            if event.result is not None:
                self.results[request] = event.result

    @precondition(lambda self: self.engine.has_work)
    @rule(layer=st.integers(0, 1), call=st.integers(0, 2), interrupt=st.booleans())
    def break_a_step(self, layer: int, call: int, interrupt: bool) -> None:
        """The model raises; those of that step may end with an error, and nobody else."""
        error = KeyboardInterrupt() if interrupt else RuntimeError("cosmic ray")
        calls = itertools.count()

        def hook(*_: Any) -> None:
            if next(calls) == call:
                raise error

        handle = self.model.model.layers[layer].register_forward_pre_hook(hook)
        before = set(self.results)
        try:
            for _ in range(call + 1):
                self.step()
        except type(error):
            counts.note("faults")
            self.note(self.engine._take_events(lambda _event: True))
            self.may_fail |= {r for r in set(self.results) - before if self.results[r].finish_reason == "error"}
        finally:
            handle.remove()

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def pages_and_slots_are_in_order(self) -> None:
        if hasattr(self, "engine"):
            assert_in_order(self.engine)

    @property
    def may_catch_it(self) -> bool:
        """Whether a NaN may end others too.  It reaches keys before it, since 0 · NaN is NaN, so whoever shares pages in the
        step that computes them has it; and by module 07's path pages may be others' before the host knows.  Nobody is ever
        given a wrong token."""
        chosen = any(POISON in tokens for tokens in self.tokens.values())
        return (bool(self.poisoned) or chosen) and (self.sharing or self.fast)

    def check(
        self,
        prompt: list[int],
        params: SamplingParams,
        result: Result,
        may_fail: bool = False,
        in_company: bool = True,
    ) -> None:
        """The whole answer, or a beginning of it where something happened to the request."""
        tokens, reason = result.token_ids, result.finish_reason
        assert_right(prompt, tokens, params, self.family, self.window)
        if reason == "error" and tokens and tokens[-1] == POISON:  # it has chosen that token itself
            may_fail = True
        if reason == "error" and "not finite" in (result.error or ""):
            may_fail |= self.may_catch_it and in_company
        if not may_fail:
            assert reason in ("length", "stop", "out_of_pages"), f"{reason}, but nothing happened to it: {result.error}"
        stops = [i for i, token in enumerate(tokens) if token in params.stop_token_ids]
        if reason == "stop":
            assert stops == [len(tokens) - 1]
            return
        assert not stops, f"the answer goes on after a stop token: {tokens}"
        if reason == "length":
            assert len(tokens) == min(params.max_new_tokens, LONGEST - len(prompt))
        elif reason == "out_of_pages":
            assert len(prompt) + len(tokens) == self.room + 1, "the last token needs no place"
        else:
            assert result.error, f"{reason}, and it does not say why"

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            for _ in range(3000):
                if not self.engine.has_work:
                    break
                self.step()
            assert set(self.results) == set(self.asked), "a request never ended"
            for request, result in self.results.items():
                assert self.tokens[request] == result.token_ids, f"the events of request {request} are not its result"
                prompt, params = self.asked[request]
                if request in self.poisoned and request not in self.may_fail:
                    assert (result.finish_reason, result.token_ids) == ("error", []), f"poison was answered: {result}"
                elif request not in self.poisoned:
                    self.check(prompt, params, result, request in self.may_fail | self.aborted)
            assert_all_given_back(self.engine)
            self.once_more()
            self.counted["preemptions"] += self.engine.stats.preemptions
            self.counted["cached tokens"] += self.engine.planner.cached_tokens if self.engine.planner else 0
        finally:
            with torch.no_grad():
                self.model.get_input_embeddings().weight[POISON] = self.before
            self.engine.close()
            assert_all_given_back_after_close(self.engine)

    def once_more(self) -> None:
        """What can be found afterwards is right: also what was written by those that were aborted or broke."""
        everyone = {tuple(prompt): prompt for r, (prompt, _) in self.asked.items() if r not in self.poisoned}
        prompts = list(everyone.values())[:4]
        params = SamplingParams(max_new_tokens=2)
        for prompt, result in zip(prompts, self.engine.generate(prompts, params), strict=True):
            self.check(prompt, params, result, in_company=False)


def assert_all_given_back_after_close(engine: Inference) -> None:
    for pool in pools(engine):
        assert not pool.owned and pool.table.pages_available == pool.table.n_pages


COMBINATIONS = list(itertools.product([False, True], [(False, False), (True, False), (True, True)], [False, True]))


def name_of(combination: tuple[bool, tuple[bool, bool], bool]) -> str:
    sharing, (windowed, sinks), fused = combination
    names = ["sharing"] * sharing + ["sinks" if sinks else "window"] * windowed + ["fused"] * fused
    return "+".join(names) or "nothing"


@pytest.mark.parametrize("factor", [1, pytest.param(30, marks=pytest.mark.slow)], ids=["", "many"])
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
def test_every_request_ends_once_with_what_a_dense_model_gives_it_alone(
    combination: tuple[bool, tuple[bool, bool], bool], fast: bool, factor: int
) -> None:
    sharing, (windowed, sinks), fused = combination
    counted = dict.fromkeys(["examples", "steps", "preemptions", "cached tokens"], 0)
    options = dict(fast=fast, sharing=sharing, windowed=windowed, with_sinks=sinks, fused=fused, counted=counted)
    machine = type("Machine", (Machine,), options)
    drive(machine, examples=3 * factor, steps=12, shrink=False)
    print(f"{name_of(combination)}: " + ", ".join(f"{n:,} {what}" for what, n in counted.items()))


# ---------------------------------------------------------------------- what was found once


def replay(options: dict[str, bool], begin: dict[str, Any], acts: list[tuple[str, dict[str, Any]]]) -> None:
    """Do what a run did that found a mistake."""
    counted = dict.fromkeys(["examples", "steps", "preemptions", "cached tokens"], 0)
    machine = type("Machine", (Machine,), {**options, "counted": counted})()
    machine.begin(**begin)
    try:
        for name, arguments in acts:
            getattr(machine, name)(**arguments)
            machine.pages_and_slots_are_in_order()
    finally:
        machine.teardown()


def test_who_shares_a_page_with_a_nan_in_it_computes_it_again() -> None:
    """The poisoned one computes the common beginning, whose keys are NaN with it, and another's prompt goes on from there."""
    replay(
        dict(fast=True, sharing=True, fused=True),
        dict(family="llama", window=5, sinks=6, page=4, n_slots=4, spare=0, budget=8, chunk=8),
        [
            ("ask_with_poison", dict(asked=(4, 0, 3), at=26, n_tokens=3)),
            (
                "samples",
                dict(asked=(3, 2, 5), n=3, params=SamplingParams(max_new_tokens=6, temperature=0.9, top_k=20, seed=0)),
            ),
            ("ask_with_poison", dict(asked=(0, 1, 1), at=21, n_tokens=1)),
            ("break_a_step", dict(call=2, interrupt=False, layer=0)),
            ("ask_with_poison", dict(asked=(5, 2, 3), at=27, n_tokens=4)),
            ("samples", dict(asked=(15, 0, 2), n=2, params=SamplingParams(max_new_tokens=16, seed=1))),
        ],
    )


def test_who_has_copied_a_page_with_a_nan_in_it_computes_it_again() -> None:
    replay(
        dict(fast=True, sharing=True, fused=True, windowed=True),
        dict(family="llama", window=8, sinks=6, page=4, n_slots=2, spare=1, budget=1, chunk=16),
        [
            ("ask_with_poison", dict(asked=(16, 0, 1), at=3, n_tokens=1)),
            ("ask_the_same_of_many", dict(asked=(3, 2, 3), n=2, params=SamplingParams(max_new_tokens=12, seed=1))),
        ],
    )
