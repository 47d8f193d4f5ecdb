"""What is right in module 10, by models of its own: a pool is a number, a row of a step is a list of names and numbers.

`World` plays the planner, `lay` the layout, and so on.  Told the name of a mistake, they make it: what a learner with it
would get.  A way of making a mistake is named after a colon, "starves:adds-up".
"""

from __future__ import annotations

import functools
import itertools
import string
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Answer, Check, Exercise, draw_plain, is_raised, plain, raises

Case = dict[str, Any]
NAMES = string.ascii_uppercase
MODELS = ("transformers",)

ENGINE_BLOCK = 32
"""Tokens in a row of a prompt, in an engine on a CPU."""


# ================================================================================================ writing a grader


class Crash(Exception):
    """What Python or the given code raises in the middle of a wrong solution: the names of classes that it may be of."""


class Endless(Exception):
    """A wrong solution that does not come to an end."""


def foreseen(answer: Callable[[], Answer]) -> Answer:
    """An answer, or that the solution raises or never ends."""
    try:
        return answer()
    except Crash as crash:
        return raises(*crash.args)
    except Endless:
        return {"endless": True}


def ask(
    exercise: Exercise,
    name: str,
    right: Callable[[Case], Answer],
    cases: Iterable[Case],
    describe: Callable[[Case], str],
    draw: Callable[[Case, Answer], str],
    **more: Any,
) -> Check:
    """A check: the drive's function `name`, put to `cases`.  Lines of a picture that differ from the right one are marked."""

    def expected(case: Case) -> Answer:
        return right(case)

    def marked(case: Case, answer: Answer) -> str:
        if answer == {"endless": True}:
            return "it does not come to an end:\nis there a loop whose\ncondition never changes?"
        if is_raised(answer) or (isinstance(answer, dict) and "raises" in answer):
            return draw_plain(case, answer)
        lines, wanted = draw(case, answer).splitlines(), draw(case, plain(right(case))).splitlines()
        return "\n".join(line if len(lines) < 2 or line in wanted else f"{line} ◄" for line in lines)

    expected.__name__ = name
    return exercise.check(cases=list(cases), describe=describe, draw=marked, **more)(expected)


def known(exercise: Exercise, play: Callable[[Case, str], Answer], mistakes: dict[str, tuple[str, str, str]]) -> None:
    """Mistakes that `play` can make, with their hints.  "slug: a b": one made in three ways, "slug", "slug:a", "slug:b"."""
    for key, hints in mistakes.items():
        slug, _, ways = key.partition(":")
        exercise.mistake(slug, *hints)
        for wrong in [slug, *(f"{slug}:{way}" for way in ways.split())]:
            for check in exercise.checks:
                check.predicts(slug)(_foretold(play, wrong))


def _foretold(play: Callable[[Case, str], Answer], wrong: str) -> Callable[[Case], Answer]:
    return lambda case: foreseen(lambda: play(case, wrong))


def plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(them: Iterable[str]) -> str:
    *first, last = list(them)
    return f"{', '.join(first)} and {last}" if first else last


def span(start: int, n: int) -> str:
    return f"{start}" if n == 1 else f"{start}…{start + n - 1}"


def pages_for(tokens: int, size: int) -> int:
    """Pages that tokens 0, 1, 2, … lie in, by counting them."""
    return len({token // size for token in range(tokens)})


# ================================================================================================ 10.1, the model


@dataclass
class Job:
    prompt: int
    made: int = 0
    at_most: int = 99
    computed: int = 0
    pages: int = 0
    stands: str = "waiting"

    @property
    def tokens(self) -> int:
        return self.prompt + self.made


class World:
    """A pool, jobs by name, and the planner's rules; `wrong`: a mistake to make."""

    def __init__(self, case: Case, wrong: str = "") -> None:
        self.wrong, self.slug = wrong, wrong.partition(":")[0]
        self.size, self.pool, self.slots, self.budget = case["size"], case["pool"], case["slots"], case["budget"]
        self.jobs: dict[str, Job] = {}
        self.running: list[str] = []
        self.unfinished: list[str] = []
        self.waiting: list[str] = []
        for prompt, made, computed in case.get("running", []):
            name = self.newcomer(prompt, made)
            job = self.jobs[name]
            decodes = made > 0 and computed == job.tokens - 1
            job.computed, job.stands = computed, "running"
            job.pages = pages_for(computed if decodes else job.tokens, self.size)
            self.running.append(name)
            if not decodes:
                self.unfinished.append(name)
        for prompt, made in case.get("waiting", []):
            self.waiting.append(self.newcomer(prompt, made))

    def newcomer(self, prompt: int, made: int = 0, at_most: int = 99) -> str:
        name = NAMES[len(self.jobs)]
        self.jobs[name] = Job(prompt, made, at_most)
        return name

    @property
    def free(self) -> int:
        return self.pool - sum(job.pages for job in self.jobs.values())

    def hold(self, name: str, tokens: int) -> bool:
        job, needed = self.jobs[name], pages_for(tokens, self.size)
        if needed - job.pages > self.free:
            return False
        job.pages = max(job.pages, needed)
        return True

    def leave(self, name: str, stands: str) -> None:
        job = self.jobs[name]
        self.running.remove(name)
        if name in self.unfinished:
            self.unfinished.remove(name)
        job.pages, job.computed, job.stands = 0, 0, stands
        if stands == "waiting":
            self.waiting.insert(0, name)

    # ------------------------------------------------------------------------ given

    def decode_rows(self) -> list[list[Any]]:
        rows = []
        for name in list(self.running):
            job = self.jobs[name]
            while job.stands == "running" and name not in self.unfinished:
                if self.hold(name, job.tokens):
                    job.computed = job.tokens
                    rows.append([name, job.tokens - 1, 1, "decode"])
                    break
                self.leave(self.running[-1], "waiting")
        return rows

    def prompts(self) -> Iterator[str]:
        yield from list(self.unfinished)
        while self.waiting and len(self.running) < self.slots:
            name = self.waiting[0]
            if pages_for(self.jobs[name].tokens, self.size) > self.free:
                return
            self.waiting.pop(0)
            self.hold(name, self.jobs[name].tokens)
            self.jobs[name].stands = "running"
            self.running.append(name)
            self.unfinished.append(name)
            yield name

    def chunk(self, name: str, n: int) -> list[Any] | None:
        job = self.jobs[name]
        start, n = job.computed, min(job.tokens - job.computed, n)
        if n < 1:
            return None
        job.computed += n
        last = job.computed == job.tokens
        if last:
            self.unfinished.remove(name)
        return [name, start, n, "last part" if last else "part"]

    def prompt_rows(self, budget: int) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for name in self.prompts():
            if (row := self.chunk(name, budget)) is None:
                break
            rows.append(row)
            budget -= row[2]
            if not budget:
                break
        return rows

    # ------------------------------------------------------------------------ the exercise

    def fused(self) -> list[list[Any]]:
        wrong = self.wrong
        budget = self.budget
        if self.slug == "decode-last":
            rows = self.prompt_rows(budget)
            left = budget - sum(row[2] for row in rows)
            if wrong == "decode-last:cut":
                return [*rows, *self.decode_rows()[: max(0, left)]]
            if wrong == "decode-last:only-if-room" and left <= 0:
                return rows
            return [*rows, *self.decode_rows()]
        if self.slug == "prompts-choose-first":
            rows = self.prompt_rows(max(1, budget - len(self.deciding())))
            return [*self.decode_rows(), *rows]
        if self.slug == "unfused":
            if wrong == "unfused:prompts":
                return self.prompt_rows(budget) or self.decode_rows()
            return self.decode_rows() or self.prompt_rows(budget)
        rows = self.decode_rows()
        n = len(rows)
        if self.slug == "decodes-not-counted":
            return [*rows, *self.prompt_rows(budget)]
        if wrong == "starves":
            return [*rows, *self.prompt_rows(budget - n)]
        if wrong == "starves:only-if-room":
            return [*rows, *(self.prompt_rows(budget - n) if budget > n else [])]
        if wrong == "starves:decodes-or-nothing":
            return [*rows, *self.prompt_rows(max(0, budget - n))]
        if wrong == "decodes-cut":
            return [*rows[:budget], *self.prompt_rows(max(1, budget - n))]
        if wrong == "decodes-cut:make-room":
            rows = rows[: budget - 1]
            return [*rows, *self.prompt_rows(budget - len(rows))]
        if wrong == "decodes-cut:make-room-if-needed":
            parts = self.prompt_rows(max(1, budget - n))
            return [*rows[: budget - sum(row[2] for row in parts)], *parts]
        if self.slug == "one-token":
            return [*rows, *self.prompt_rows(1 if n or wrong == "one-token:always" else budget)]
        if wrong == "one-token-min":
            return [*rows, *self.prompt_rows(min(1, budget - n))]
        if self.slug == "counts-all-running":
            return [*rows, *self.prompt_rows(max(1, budget - len(self.running)))]
        if wrong == "off-by-one":
            return [*rows, *self.prompt_rows(max(1, budget - n - 1))]
        if wrong == "off-by-one:more":
            return [*rows, *self.prompt_rows(max(1, budget - n) + 1)]
        if self.slug == "nobody-admitted":
            left, parts = max(1, budget - n), []
            for name in list(self.unfinished):
                if left and (row := self.chunk(name, left)) is not None:
                    parts.append(row)
                    left -= row[2]
            return [*rows, *parts]
        if wrong == "one-prompt":
            name = next(self.prompts(), None)
            row = self.chunk(name, max(1, budget - n)) if name else None
            return [*rows, *([row] if row else [])]
        if wrong == "one-prompt:drops-others":
            return [*rows, *self.prompt_rows(max(1, budget - n))[:1]]
        if wrong == "one-prompt:drops-first-ones":
            return [*rows, *self.prompt_rows(max(1, budget - n))[-1:]]
        if self.slug == "each-gets-all":
            left = max(1, budget - n)
            return [*rows, *(row for name in self.prompts() if (row := self.chunk(name, left)) is not None)]
        if self.slug == "rows-dropped":
            parts = self.prompt_rows(max(1, budget - n))
            return (parts or rows) if wrong == "rows-dropped" else parts if wrong == "rows-dropped:decodes" else rows
        return [*rows, *self.prompt_rows(max(1, budget - n))]

    def deciding(self) -> list[str]:
        """Those who decode, as far as one knows before they were asked."""
        return [name for name in self.running if name not in self.unfinished]

    def step(self) -> list[list[Any]]:
        for _round in range(300):
            if not self.running and not self.waiting:
                return []
            if rows := [row for row in self.fused() if self.jobs[row[0]].stands == "running"]:
                return rows
            if not self.running:
                return []
            self.leave(self.running[-1], "waiting")
        raise Endless

    def run(self, case: Case) -> Iterator[list[list[Any]]]:
        """The rows of each step.  The model is there between one and the next."""
        coming = [tuple(one) for one in case["arrivals"]]
        steps = 0
        while steps < case["steps"] and (coming or self.running or self.waiting):
            while coming and coming[0][0] <= steps:
                *_, prompt, new = coming.pop(0)
                self.waiting.append(self.newcomer(prompt, 0, new))
            rows = self.step()
            for name, _start, _n, kind in rows:
                job = self.jobs[name]
                job.made += kind != "part"
                if kind != "part" and job.made >= job.at_most:
                    self.leave(name, "finished")
            steps += 1
            yield sorted(rows, key=str)


# ================================================================================================ 10.1, cases


def setting(
    running: Iterable[Iterable[int]] = (),
    waiting: Iterable[Iterable[int]] = (),
    *,
    budget: int = 8,
    pool: int = 40,
    size: int = 4,
    slots: int = 8,
) -> Case:
    return {
        "running": [list(one) for one in running],
        "waiting": [list(one) for one in waiting],
        "budget": budget,
        "pool": pool,
        "size": size,
        "slots": slots,
    }


def decodes(prompt: int, made: int = 1) -> list[int]:
    return [prompt, made, prompt + made - 1]


def halfway(prompt: int, computed: int) -> list[int]:
    return [prompt, 0, computed]


def say_tokens(prompt: int, made: int) -> str:
    """3+2: three of the prompt, two generated."""
    return f"{prompt}+{made}" if made else str(prompt)


def say_setting(case: Case) -> str:
    everyone = iter(NAMES)
    decoding, begun, queued = list[str](), list[str](), list[str]()
    for prompt, made, computed in case["running"]:
        if made and computed == prompt + made - 1:
            decoding.append(f"{next(everyone)} ({say_tokens(prompt, made)})")
        else:
            begun.append(f"{next(everyone)} ({computed} of {say_tokens(prompt, made)} tokens computed)")
    queued = [f"{next(everyone)} ({say_tokens(*one)})" for one in case["waiting"]]
    said = [f"token_budget {case['budget']}"]
    said += [f"{listed(decoding)} {'decode' if len(decoding) > 1 else 'decodes'}"] if decoding else ["nobody decodes"]
    said += [f"{listed(begun)} in the middle of the prompt"] if begun else []
    said += [f"{listed(queued)} {'wait' if len(queued) > 1 else 'waits'}"] if queued else ["nobody waits"]
    said += [f"pool of {plural(case['pool'], 'page')}, {case['size']} tokens each"] if case["pool"] < 40 else []
    said += [plural(case["slots"], "slot")] if case["slots"] < 8 else []
    return "; ".join(said)


def draw_rows(case: Case, answer: Answer) -> str:
    """A line for each row: whose, which tokens, what it is."""
    rows = answer["rows"]
    if not rows:
        return "no rows"
    lines = [f"{name}  {say_kind(kind):<9}{span(start, n):<7} {plural(n, 'token')}" for name, start, n, kind in rows]
    decoding = sum(row[3] == "decode" for row in rows)
    in_all = sum(row[2] for row in rows)
    return "\n".join([*lines, f"{decoding} + {in_all - decoding} tokens"])


def say_kind(kind: str) -> str:
    return "decode" if kind == "decode" else "prompt"


def one_step(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    rows = [row for row in world.fused() if world.jobs[row[0]].stands == "running"]
    return {"rows": sorted(rows, key=str)}


def a_few_decode() -> Iterator[Case]:
    yield setting([decodes(3)], [[4, 0]])
    yield setting([decodes(3)], [[20, 0]])
    yield setting([decodes(3), decodes(4), decodes(5)], [[20, 0]])
    for n, prompt, budget in itertools.product((0, 1, 2, 4), (1, 3, 12), (4, 8)):
        if n < budget:
            yield setting([decodes(3 + i, 1 + i) for i in range(n)], [[prompt, 0]], budget=budget)
    yield setting([decodes(3)], [])
    yield setting([decodes(3), decodes(4)], [])


def several_prompts() -> Iterator[Case]:
    yield setting([decodes(3)], [[3, 0], [9, 0]])
    yield setting([], [[3, 0], [3, 0], [9, 0]])
    yield setting([decodes(3), decodes(3)], [[2, 0], [2, 0], [5, 0], [5, 0]])
    yield setting([decodes(3), halfway(9, 4)], [])
    yield setting([decodes(3), halfway(20, 4)], [[5, 0]])
    yield setting([decodes(3), halfway(9, 4)], [[5, 0]])
    yield setting([halfway(9, 4)], [[5, 0]])
    yield setting([decodes(3), decodes(3), halfway(6, 4), halfway(9, 2)], [[5, 0]])
    yield setting([decodes(3), halfway(9, 7)], [[2, 3], [5, 0]])
    yield setting([decodes(3)], [[5, 0], [5, 0]], slots=2)
    yield setting([decodes(3)], [[5, 0]], slots=1)
    yield setting([], [[20, 0], [3, 0]], budget=6)


def more_decode_than_the_budget() -> Iterator[Case]:
    yield setting([decodes(3), decodes(4)], [[6, 0]], budget=2)
    yield setting([decodes(3), decodes(4), decodes(5)], [[6, 0]], budget=2)
    yield setting([decodes(3)], [[6, 0]], budget=1)
    yield setting([decodes(3), decodes(3), halfway(9, 4)], [], budget=2)
    yield setting([decodes(3)] * 5, [[6, 0], [6, 0]], budget=4)
    yield setting([decodes(3)] * 5, [], budget=4)
    yield setting([decodes(3)] * 3, [[1, 0], [6, 0]], budget=3)
    yield setting([*[decodes(3)] * 4, halfway(9, 8)], [[6, 0]], budget=3)


def a_small_pool() -> Iterator[Case]:
    yield setting([decodes(4)], [[4, 0]], pool=2)
    yield setting([decodes(4), decodes(4)], [[4, 0]], pool=4)
    yield setting([decodes(4), decodes(4)], [[4, 0]], pool=5)
    yield setting([decodes(4), decodes(4)], [[4, 0]], pool=3)
    yield setting([decodes(4)], [[4, 0], [4, 0]], pool=3)
    yield setting([decodes(3)], [[9, 0]], pool=3)
    yield setting([decodes(4), halfway(8, 4)], [], pool=3)
    yield setting([decodes(4), decodes(8), decodes(4)], [[4, 0]], pool=5)
    yield setting([decodes(4)], [[8, 0]], pool=3, budget=3)


# ------------------------------------------------------------------------------------------------------ runs


def load(
    *arrivals: Iterable[int], budget: int = 8, pool: int = 40, size: int = 4, slots: int = 8, steps: int = 30
) -> Case:
    """Arrivals: (step, tokens of the prompt, tokens at which it ends)."""
    return {
        "arrivals": [list(one) for one in arrivals],
        "budget": budget,
        "pool": pool,
        "size": size,
        "slots": slots,
        "steps": steps,
    }


def say_load(case: Case) -> str:
    lines = [f"token_budget {case['budget']}; pool of {plural(case['pool'], 'page')}, {case['size']} tokens each"]
    for name, (step, *_, prompt, new) in zip(NAMES, case["arrivals"], strict=False):
        lines.append(f"{name}: prompt of {prompt}, ends after {plural(new, 'token')}; comes before step {step + 1}")
    return "\n".join(lines)


def timeline(case: Case, wrong: str = "") -> Answer:
    steps: list[dict[str, Any]] = []
    try:
        steps.extend({"rows": rows} for rows in World(case, wrong).run(case))
    except Endless:
        steps.append({"endless": True})
    return steps


MOST_LINES = 14


def draw_timeline(case: Case, answer: Answer) -> str:
    """A line for each step: who decodes (d) and which tokens of prompts are computed; ● where a prompt gives its token."""
    lines, right = [], timeline(case)
    wrong = next((n for n, step in enumerate(answer) if right[n : n + 1] != [step]), len(answer))
    first = max(0, min(wrong - MOST_LINES + 3, len(answer) - MOST_LINES))
    if first:
        lines.append(f"(steps 1 to {first} are left out)")
    for n, step in enumerate(answer[first : first + MOST_LINES], start=first + 1):
        if "endless" in step:
            lines.append(f"{n:>2}  no end")
            continue
        said = [
            f"{name} d" if kind == "decode" else f"{name} {span(start, m)}{'●' if kind == 'last part' else ''}"
            for name, start, m, kind in step["rows"]
        ]
        lines.append(f"{n:>2}  " + (", ".join(said) or "nothing"))
    if len(answer) > first + MOST_LINES:
        lines.append(f"…   {len(answer)} steps in all")
    return "\n".join([*lines, "d decode, ● gives its first token"])


def lone_prompts() -> Iterator[Case]:
    yield load((0, 10, 1), budget=4)
    yield load((0, 10, 3), budget=4)
    yield load((0, 4, 2), budget=4)
    yield load((0, 5, 2), budget=4)
    yield load((0, 1, 3), budget=4)


def company() -> Iterator[Case]:
    yield load((0, 3, 6), (1, 10, 2), budget=4)
    yield load((0, 3, 6), (0, 3, 6), (0, 3, 6), (1, 20, 2))
    yield load((0, 3, 12), (0, 3, 12), (0, 3, 12), (1, 6, 2), budget=2)
    yield load((0, 3, 12), (2, 9, 3), (2, 3, 3), (4, 5, 2), budget=4)
    yield load(*((step, 3, 6) for step in range(6)), budget=4)
    yield load((0, 6, 4), (0, 6, 4), (0, 6, 4), budget=5, slots=2)
    yield load((0, 3, 15), (0, 3, 15), (1, 4, 15), (2, 4, 3), (3, 9, 2), budget=3)


def loads_short_of_pages() -> Iterator[Case]:
    yield load((0, 4, 4), (0, 4, 4), pool=2, budget=4)
    yield load((0, 4, 6), (1, 8, 3), pool=4, budget=4)
    yield load((0, 4, 6), (0, 4, 6), (1, 4, 4), pool=5)
    yield load((0, 4, 9), (2, 4, 5), (3, 7, 3), pool=5, budget=3)
    yield load((0, 8, 8), (0, 8, 8), (1, 4, 8), (2, 3, 2), pool=6, budget=5)


def load_search() -> Any:
    """Any small load, each sequence short enough for the pool."""
    arrival = st.tuples(st.integers(0, 8), st.integers(1, 14), st.integers(1, 6))
    return st.builds(
        lambda arrivals, pool, slots, budget: load(
            *((step, min(prompt, 4 * pool - new), new) for step, prompt, new in sorted(arrivals)),
            pool=pool,
            slots=slots,
            budget=budget,
        ),
        st.lists(arrival, min_size=1, max_size=5),
        st.integers(2, 8),
        st.integers(1, 4),
        st.integers(1, 10),
    )


# ------------------------------------------------------------------------------------------------------ engines


def served(*arrivals: Iterable[int], budget: int = 8, pool: int = 40, slots: int = 4, **more: Any) -> Case:
    """An engine: (step, which prompt, its tokens, tokens to generate)."""
    return {
        "arrivals": [list(one) for one in arrivals],
        "budget": budget,
        "pool": pool,
        "size": 4,
        "slots": slots,
        "steps": 40,
        **more,
    }


LONE = served((0, 1, 10, 3), budget=4)
TWO = served((0, 1, 3, 5), (1, 2, 9, 2))
THREE = served((0, 1, 3, 8), (0, 2, 2, 8), (1, 3, 20, 3))
TIGHT = served((0, 1, 3, 9), (0, 2, 2, 9), (0, 3, 4, 9), (2, 4, 5, 2), budget=2)
ROWS = served((0, 1, 5, 8), (1, 2, 33, 3), (1, 3, 6, 3), budget=40)
GEMMA = served((0, 1, 12, 6), (1, 2, 25, 3), budget=10, model="gemma2")
CROWD = served((0, 1, 7, 9), (0, 2, 6, 9), (1, 3, 11, 4), (2, 4, 9, 5), (3, 5, 4, 4), pool=9, budget=6, slots=3)


def say_engine(case: Case) -> str:
    kind = "Gemma 2's windows, " if case.get("model") else ""
    lines = [
        f"an engine with {kind}fuse_prefill=True, prefill_chunk={case['budget']}, {case['pool']} pages of 4 tokens"
    ]
    for name, (step, _, prompt, new) in zip(NAMES, case["arrivals"], strict=False):
        lines.append(f"{name}: prompt of {prompt}, max_new_tokens {new}; added before step {step + 1}")
    return "\n".join(lines)


def draw_engine(case: Case, answer: Answer) -> str:
    """The tokens of each request; then, for each step, how many each has by then and what the model was given."""
    lines = [
        f"{name}  {' '.join(map(str, ids)) or 'no token'}" for name, ids in zip(NAMES, answer["tokens"], strict=False)
    ]
    lines.append("step  tokens so far   model call")
    for n, step in enumerate(answer["steps"][:10], start=1):
        if "endless" in step:
            lines.append(f"{n:>3}   no end")
            continue
        made = " ".join(f"{name} {count}" for name, count in zip(NAMES, step["made"], strict=False))
        lines.append(f"{n:>3}   {made:<15} {' '.join(str(shape) for shape in step['calls'])}")
    lines += ["  …"] if len(answer["steps"]) > 10 else []
    return "\n".join(lines)


def prompt_of(first: int, n: int) -> list[int]:
    """As in drive.py: tokens that look random and are not."""
    return [3 + (first * 7 + i * i * 5 + i * 11) % 44 for i in range(n)]


_asking = threading.RLock()


@functools.cache
def model_of(kind: str) -> Any:
    """The tiny model with transformers' own eager attention."""
    from course.grading.tiny import tiny_model

    model = tiny_model(kind, 8)
    model.set_attn_implementation("eager")
    return model


@functools.cache
def continuation(kind: str, first: int, n: int, new: int) -> list[int]:
    """What the model says alone, without a cache: the most likely tokens, one after the other."""
    import torch

    ids = prompt_of(first, n)
    with _asking, torch.no_grad():
        for _ in range(new):
            ids.append(int(model_of(kind)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[n:]


def served_steps(case: Case) -> Answer:
    world, steps = World(case), list[dict[str, Any]]()
    for rows in world.run(case):
        places = sum(1 if kind == "decode" else -(-n // ENGINE_BLOCK) * ENGINE_BLOCK for _, _, n, kind in rows)
        steps.append({"calls": [[1, places]] if rows else [], "made": [job.made for job in world.jobs.values()]})
    tokens = [continuation(case.get("model", "llama"), *one[1:]) for one in case["arrivals"]]
    made = steps[-1]["made"]
    return {"steps": steps, "tokens": [ids[:n] for ids, n in zip(tokens, made, strict=False)]}


def in_engines(exercise: Exercise, cases: Iterable[Case]) -> None:
    """A check in engines, after all others: with a mistake they may say anything, so other checks tell mistakes apart."""
    check = ask(exercise, "in_an_engine", served_steps, cases, say_engine, draw_engine)
    for slug in exercise.mistakes:
        check.shows(slug)(lambda case, expected, answer: True)


# ================================================================================================ 10.1

fused_step = Exercise(
    "10.1",
    section="Who takes part in a step",
    hints=(
        "Count the tokens of the step on your fingers: one for each that decodes, then the parts of prompts. What does "
        "the budget leave?",
        "Compare your step with the docstring: all decode rows, chosen before any prompt; then `prompt_rows`, once, with "
        "what is left of `token_budget`.",
        "Ask for the decode rows, subtract their number from the budget, and give prompts the rest, or one token if "
        "there is no rest. Return both.",
    ),
    preload=MODELS,
)

for _name, _cases in {
    "decodes_first": a_few_decode,
    "rest_of_the_budget": several_prompts,
    "many_decode": more_decode_than_the_budget,
    "few_pages": a_small_pool,
}.items():
    ask(fused_step, _name, one_step, _cases(), say_setting, draw_rows)
for _name, _cases in {
    "one_prompt": lone_prompts,
    "prompts_beside_decodes": company,
    "runs_short_of_pages": loads_short_of_pages,
}.items():
    ask(fused_step, _name, timeline, _cases(), say_load, draw_timeline)
ask(fused_step, "long_runs", timeline, [], say_load, draw_timeline, search=load_search())


def planned(case: Case, wrong: str = "") -> Answer:
    return one_step(case, wrong) if "running" in case else timeline(case, wrong)


known(
    fused_step,
    planned,
    {
        "decode-last: cut only-if-room": (
            "Three requests are being read, a long prompt arrives. Who waits in this step?",
            "Look at whom you serve first: the prompt took the budget, and those who decode got what was left, or came on "
            "top of it.",
            "Take the decode rows first and subtract them from the budget; prompts get the rest.",
        ),
        "prompts-choose-first": (
            "One page is free. A request that decodes needs it for its next token, and a prompt waits. Who should get it?",
            "Look at the order of your two calls: `prompt_rows` admits newcomers and takes pages, and what it took "
            "`decode_rows` can't get any more.",
            "Call `decode_rows` before `prompt_rows`, whatever order the rows are returned in.",
        ),
        "unfused: prompts": (
            "Some decode and a prompt waits. How many kinds of rows may this step have?",
            "Look at what you return while some decode: rows of one kind alone, as in a step without fusion.",
            "Put both together in one list: the decode rows and the parts of prompts.",
        ),
        "decodes-not-counted": (
            "Add up the tokens of this step. Is the sum within `token_budget`?",
            "Look at the number that `prompt_rows` is given: the decode rows are tokens of the same step.",
            "Subtract the number of decode rows from the budget before prompts get the rest.",
        ),
        "starves: only-if-room decodes-or-nothing": (
            "As many decode as the budget has tokens. When will the prompt that waits be computed?",
            "Look at what prompts get when nothing is left: 0 tokens, in this step and in every one like it.",
            "Give prompts at least one token in each step, even if that is one more than the budget.",
        ),
        "decodes-cut: make-room make-room-if-needed": (
            "More requests decode than the budget has tokens. Which of them may be left out?",
            "Look at what you do with the decode rows: some were cut off to keep the budget. `decode_rows` counts their "
            "tokens as computed already.",
            "Return every decode row; the budget limits the prompts alone.",
        ),
        "one-token: always": (
            "How many tokens of the budget are left in this step, and how many does the prompt get?",
            "Look at the number that `prompt_rows` is given: it is 1 however much is left.",
            "At least one token means the larger of two numbers: what is left, and 1.",
        ),
        "one-token-min": (
            "5 tokens are left, and it must be at least 1. Which of the two numbers is the answer?",
            "Look at how you choose between what is left and 1: with `min` a prompt never gets more than one token.",
            "Take the larger of the two, with `max`.",
        ),
        "counts-all-running": (
            "Someone is in the middle of a prompt. Does it also have a decode row in this step?",
            "Look at what you subtract from the budget: `running` also holds those whose prompt is not finished.",
            "Subtract the number of decode rows, and nothing else.",
        ),
        "off-by-one: more": (
            "Add up the tokens of this step. Is the budget used, and kept?",
            "Look at the number that `prompt_rows` is given: it differs by one from what is left.",
            "What is left is the budget less the number of decode rows, or 1 if that is less than 1.",
        ),
        "nobody-admitted": (
            "Who lets the requests in that wait?",
            "Look at whose prompts you compute: those begun already. Nobody new is ever admitted.",
            "Let `prompt_rows` choose: it goes on with the prompts that are begun, then admits newcomers.",
        ),
        "one-prompt: drops-others drops-first-ones": (
            "The first prompt needs less than what is left. Who gets the rest?",
            "Look at how many parts of prompts you return: one, though the budget has room for more, or though "
            "`prompt_rows` gave more and counts them as computed.",
            "Call `prompt_rows` once with all that is left, and return everything it gives.",
        ),
        "each-gets-all": (
            "Two prompts share what is left. How many tokens do they get together?",
            "Look at the number that the second prompt gets: what the first one took is gone.",
            "Let `prompt_rows` split it, or subtract the tokens of each part before the next.",
        ),
        "rows-dropped: decodes prompts": (
            "Rows were chosen for some who decode and for some prompts. Which of them does the step compute?",
            "Look at what you return: one half of the rows is missing, though its tokens count as computed from now on.",
            "Return the decode rows and the parts of prompts in one list.",
        ),
    },
)
in_engines(fused_step, [LONE, THREE, TIGHT, CROWD])


# ================================================================================================ rows of a step

Listed = list[Any]
"""A row of a step: [name, kind, tokens of the prompt, generated, slot, start, n]."""


def decode(prompt: int, made: int, slot: int) -> Listed:
    return ["", "decode", prompt, made, slot, prompt + made - 1, 1]


def part(prompt: int, slot: int, start: int, n: int, made: int = 0) -> Listed:
    return ["", "last part" if start + n == prompt + made else "part", prompt, made, slot, start, n]


def rows_case(*rows: Listed, **more: Any) -> Case:
    """The rows of a step, of sequences A, B, …"""
    return {"rows": [[name, *row[1:]] for name, row in zip(NAMES, rows, strict=False)], **more}


def say_rows(case: Case) -> str:
    lines = [f"block {case['block']}"] if "block" in case else []
    for name, kind, prompt, made, slot, start, n in case["rows"]:
        ids = ids_of(name, prompt, made)
        whose = f"{name} in slot {slot}, {say_tokens(prompt, made)} tokens ({span_of(ids)})"
        which = f"decode of token {start}" if kind == "decode" else f"{kind}: tokens {span(start, n)}"
        lines.append(f"{whose}: {which}" if "block" in case else f"{name}, {say_tokens(prompt, made)} tokens: {which}")
    return "\n".join(lines or ["no rows"])


def span_of(ids: list[int]) -> str:
    return span(ids[0], len(ids))


def ids_of(name: str, prompt: int, made: int) -> list[int]:
    """The tokens of a sequence: A has 100, 101, …, B has 200, 201, …"""
    first = 100 * (NAMES.index(name) + 1)
    return list(range(first, first + prompt + made))


# ================================================================================================ 10.2

lay_out = Exercise(
    "10.2",
    section="One row for a step",
    hints=(
        "Draw the row on paper: a box for each token, with its slot and its position below. Where does each part begin, and "
        "where does a new row of a prompt?",
        "Compare the lists one by one with what `Layout` says of them: tokens, slots and positions have one entry a place, "
        "`row_slots` one a row of a prompt, `logits_at` one a token to come.",
        "Put the decode rows first, one place each; then what `lay_out_chunks` gives for the chunks, with its places moved "
        "by the number of decode rows.",
    ),
    preload=MODELS,
)


def lay(case: Case, wrong: str = "") -> Answer:
    """What lies where, put down token by token."""
    (slug, _, way), block = wrong.partition(":"), case["block"]
    out: dict[str, Any] = {name: [] for name in ("token_ids", "slots", "positions", "row_slots", "logits_at")}
    decoding = [row for row in case["rows"] if row[1] == "decode"]
    parts = [row for row in case["rows"] if row[1] != "decode"]

    def put(token: int, slot: int, position: int) -> None:
        for name, value in (("token_ids", token), ("slots", slot), ("positions", position)):
            out[name].append(value)

    def put_decodes() -> None:
        for i, (name, _kind, prompt, made, slot, start, _n) in enumerate(decoding):
            ids = ids_of(name, prompt, made)
            token = {"": start, "prompt": prompt - 1, "output": prompt, "before": start - 1, "zero": 0}
            at = token[way] if slug == "another-token" else start
            places = {"beside": start + 1, "made": made - 1, "zero": 0, "row": i}
            position = places.get(way, start) if slug == "decode-position" else start
            put(ids[at], i + (way == "from-one") if slug == "row-not-slot" else slot, position)
            out["logits_at"].append(len(out["token_ids"]) - 1)
        if slug == "decodes-padded":
            while len(out["token_ids"]) % block:
                put(0, 0, out["positions"][-1] if wrong == "decodes-padded:last" else 0)

    def put_part(i: int, row: Listed) -> None:
        name, kind, prompt, made, slot, start, n = row
        ids = ids_of(name, prompt, made)
        if wrong == "whole-sequence":
            n = len(ids) - start
        if wrong == "whole-sequence:from-zero":
            start, n = 0, len(ids)
        if slug == "row-not-slot":
            slot = slot if way == "decodes" else len(decoding) + i + (way == "from-one")
        tokens, positions = ids[start : start + n], list(range(start, start + n))
        if wrong == "forgets-output":
            tokens = ids[:prompt][start : start + n]
        if wrong == "tokens-from-zero":
            tokens = ids[:n]
        if wrong == "positions-from-zero":
            positions = list(range(n))
        if wrong == "positions-from-zero:places":
            positions = list(range(len(out["token_ids"]), len(out["token_ids"]) + n))
        padding = {"padded-to-many": block - n % block, "unpadded": 0, "rows-shared": 0}.get(slug, -n % block)
        last = start + n - 1
        fills = {"zero": [0] * padding, "goes-on": list(range(last + 1, last + 1 + padding))}
        fill = fills[way or "zero"] if slug == "padding-position" else [positions[-1]] * padding
        out["token_ids"] += tokens + [tokens[-1] if wrong == "padding-repeats" else 0] * padding
        out["slots"] += [slot] * n + [slot if slug == "padding-owned" else 0] * padding
        out["positions"] += positions + fill
        rows = (n + padding) // block if slug not in ("unpadded", "rows-shared") else -(-n // block)
        by_row = {"": 1, "floor": n // block, "tokens": n, "places": n + padding, "more": n // block + 1}
        out["row_slots"] += [slot] * (by_row[way] if slug == "row-slots" else rows)
        end = len(out["token_ids"])
        ends = kind == "last part"
        if slug == "asks-the-prompt":
            ends = start + n == prompt if wrong == "asks-the-prompt" else start + n >= prompt
        if wrong == "samples-mid-prompt":
            ends = True
        if wrong == "samples-mid-prompt:reversed":
            ends = kind == "part"
        if slug == "no-first-token":
            ends = False
        place = {"logits-of-padding": end - 1, "logits-beside": end - padding}.get(slug, end - padding - 1)
        if wrong == "logits-beside:first":
            place = end - padding - n
        if slug == "logits-unshifted":
            place -= len(decoding) if wrong == "logits-unshifted" else len(decoding) - 1
        if ends:
            out["logits_at"].append(place)

    def put_parts() -> None:
        for i, row in enumerate(parts):
            put_part(i, row)
        if slug == "rows-shared":
            begin = 0 if wrong == "rows-shared:whole" else len(decoding)
            while (len(out["token_ids"]) - begin) % block:
                put(0, 0, out["positions"][-1])
            slots = out["slots"][begin:]
            out["row_slots"] = slots[::block] if wrong != "rows-shared:listed" else out["row_slots"]

    first, then = (put_parts, put_decodes) if slug == "chunks-first" else (put_decodes, put_parts)
    first()
    then()
    if wrong == "chunks-first:logits":
        out["logits_at"].sort()
    n = len(decoding)
    if wrong == "logits-order":
        out["logits_at"] = out["logits_at"][n:] + out["logits_at"][:n]
    if wrong == "all-logits":
        out["logits_at"] = [place for place, slot in enumerate(out["slots"]) if slot]
    if slug == "row-slots-of-all":
        out["row_slots"] = [row[4] for row in decoding] + out["row_slots"]
    counts = {
        "": len(case["rows"]),
        "chunks": len(parts),
        "logits": len(out["logits_at"]),
        "rows": len(out["row_slots"]),
    }
    return {"n_decode": counts[way] if slug == "n-decode" else n, **out}


def draw_layout(case: Case, answer: Answer) -> str:
    """The row as a table: a column for each place."""
    n = len(answer["token_ids"])
    wide = max(n, len(answer["slots"]), len(answer["positions"]))
    due = ["▲" * answer["logits_at"].count(place) for place in range(wide)]
    beyond = [place for place in answer["logits_at"] if not 0 <= place < wide]
    lines = [
        "place    " + columns(range(wide)),
        "token    " + columns(answer["token_ids"]),
        "slot     " + columns("·" if slot == 0 else slot for slot in answer["slots"]),
        "position " + columns(answer["positions"]),
        "logits   " + columns(due) + (f" and at {' '.join(map(str, beyond))}" if beyond else ""),
        f"logits_at {' '.join(map(str, answer['logits_at'])) or 'nothing'}",
        f"row_slots {' '.join(map(str, answer['row_slots'])) or 'nothing'}",
        f"n_decode {answer['n_decode']}",
    ]
    return "\n".join(line.rstrip() for line in lines)


def columns(values: Iterable[Any]) -> str:
    return "".join(f"{value!s:>4}" for value in values)


D1, D2, D3 = decode(3, 1, 1), decode(2, 2, 2), decode(4, 3, 5)


def whole_prompt_cases() -> Iterator[Case]:
    yield rows_case(D1, part(2, 2, 0, 2), block=2)
    yield rows_case(D1, part(3, 2, 0, 3), block=4)
    yield rows_case(D1, D2, part(5, 3, 0, 5), block=4)
    yield rows_case(decode(3, 1, 4), decode(2, 3, 1), part(4, 2, 0, 4), block=4)
    yield rows_case(D3, D2, D1, part(1, 3, 0, 1), block=2)
    yield rows_case(D2, part(7, 4, 0, 7), block=2)
    yield rows_case(D2, part(9, 4, 0, 9), block=4)


def part_cases() -> Iterator[Case]:
    yield rows_case(D1, part(5, 2, 0, 2), block=2)
    yield rows_case(D1, part(5, 2, 2, 2), block=2)
    yield rows_case(D1, part(5, 2, 2, 3), block=4)
    yield rows_case(D1, D2, part(9, 3, 3, 5), block=4)
    yield rows_case(D3, part(9, 2, 8, 1), block=4)
    yield rows_case(D3, part(3, 2, 0, 5, made=2), block=4)
    yield rows_case(D3, part(3, 2, 2, 3, made=2), block=4)
    yield rows_case(D3, part(3, 2, 0, 3, made=2), block=4)
    yield rows_case(D3, part(3, 2, 1, 3, made=3), block=2)
    yield rows_case(D1, D2, part(12, 3, 4, 8), block=4)


def full_row_cases() -> Iterator[Case]:
    yield rows_case(D1, part(8, 2, 0, 4), block=4)
    yield rows_case(D1, part(8, 2, 4, 4), block=4)
    yield rows_case(D1, D2, part(8, 3, 0, 8), block=4)
    yield rows_case(D1, part(3, 2, 0, 3), block=1)


def several_part_cases() -> Iterator[Case]:
    yield rows_case(D1, part(2, 2, 0, 2), part(1, 3, 0, 1), block=2)
    yield rows_case(D1, part(3, 2, 0, 3), part(5, 3, 0, 2), block=4)
    yield rows_case(D1, D2, part(6, 4, 4, 2), part(3, 3, 0, 3), block=2)
    yield rows_case(D3, part(9, 2, 6, 3), part(5, 7, 0, 5), part(9, 4, 0, 2), block=4)
    yield rows_case(D1, D2, D3, part(3, 7, 0, 3), part(2, 4, 0, 2), block=4)
    yield rows_case(D1, part(9, 3, 0, 1), part(9, 2, 3, 1), block=2)


def step_search() -> Any:
    """Any small step with rows of both kinds."""
    decoding = st.builds(lambda prompt, made: ("decode", prompt, made), st.integers(1, 4), st.integers(1, 3))
    chunks = st.builds(
        lambda tokens, made, start, n: ("part", max(1, tokens - made), made, start, n),
        st.integers(2, 9),
        st.integers(0, 2),
        st.integers(0, 8),
        st.integers(1, 9),
    )

    def build(some: list[Any], others: list[Any], block: int, shift: int) -> Case:
        slots = [1 + (slot * 3 + shift) % 11 for slot in range(len(some) + len(others))]
        rows = [decode(prompt, made, slot) for (_, prompt, made), slot in zip(some, slots, strict=False)]
        for (_, prompt, made, start, n), slot in zip(others, slots[len(some) :], strict=True):
            start = min(start, prompt + made - 1)
            rows.append(part(prompt, slot, start, min(n, prompt + made - start), made))
        return rows_case(*rows, block=block)

    return st.builds(
        build,
        st.lists(decoding, min_size=1, max_size=3),
        st.lists(chunks, min_size=1, max_size=3),
        st.integers(1, 5),
        st.integers(0, 10),
    )


for _name, _cases in {
    "whole_prompts": whole_prompt_cases,
    "parts_of_prompts": part_cases,
    "full_rows": full_row_cases,
    "several_prompts": several_part_cases,
}.items():
    ask(lay_out, _name, lay, _cases(), say_rows, draw_layout)
ask(lay_out, "any_step", lay, [], say_rows, draw_layout, search=step_search())

known(
    lay_out,
    lay,
    {
        "samples-mid-prompt: reversed": (
            "The middle of a prompt has been computed. Which token does it get as an answer?",
            "Look at which chunks have a place in `logits_at`: only the last part of a prompt has one.",
            "Add a place for a chunk only if `gives_token` says that a token is due after it.",
        ),
        "no-first-token": (
            "This chunk is its prompt's last. Where does the first token of the answer come from?",
            "Look at `logits_at`: it has places of decode rows alone.",
            "After the places of the decode rows, add the place of the last token of each chunk that gives a token.",
        ),
        "asks-the-prompt: reached": (
            "This sequence was preempted: it computes its prompt and its output again. When is it done?",
            "Look at how you find out whether a chunk is the last: the length of the prompt alone does not say so.",
            "Ask `gives_token`.",
        ),
        "logits-of-padding": (
            "A row ends with padding. Which place holds the last token of the chunk?",
            "Look at the places that you note for chunks: the last place of the row is padding, of which the model says "
            "nothing useful.",
            "Note the place of the chunk's last own token, before the padding.",
        ),
        "logits-beside: first": (
            "Point at the place whose logits tell the next token. Is it the last token of the chunk?",
            "Look at the places that you note for chunks: they belong to a neighbour, or to the first token of the chunk.",
            "The place is where the chunk begins, plus its number of tokens, less one.",
        ),
        "logits-unshifted: by-one": (
            "The decode rows lie before the chunks. By how many places does everything of a chunk move?",
            "Look at the places of chunks in `logits_at`: they are counted from where the prompts begin, not from where the "
            "row begins.",
            "Add the number of decode rows to each place that `lay_out_chunks` gives.",
        ),
        "logits-order": (
            "In which order do the logits come: those of the decode rows first, or those of the prompts?",
            "Look at how you put `logits_at` together: the sequences would get each other's tokens.",
            "The places of the decode rows come first.",
        ),
        "all-logits": (
            "How many tokens come out of this step, and how many logits do you ask for?",
            "Look at `logits_at`: every token that is computed has a place in it.",
            "One place a decode row, and one for the last token of each chunk that gives a token.",
        ),
        "positions-from-zero: places": (
            "The chunk begins at token 2 of its prompt. At which position is its first token?",
            "Look at the positions of chunks: they count within the chunk or along the row, but RoPE and the mask need the "
            "place in the sequence.",
            "Positions of a chunk are start … start + n_tokens - 1.",
        ),
        "tokens-from-zero": (
            "An earlier step has computed the beginning of this prompt. Which tokens come now?",
            "Look at how you cut the chunk out of `token_ids`: it begins at 0 instead of at `start`.",
            "Take the tokens from `start` to `start + n_tokens`.",
        ),
        "whole-sequence: from-zero": (
            "How many tokens of this prompt does the chunk have?",
            "Look at where your slice ends: a chunk has `n_tokens` tokens, not all that the sequence has.",
            "Take the tokens from `start` to `start + n_tokens`, no more.",
        ),
        "forgets-output": (
            "This sequence comes back with tokens that it had generated. Are they computed again too?",
            "Look at where you take the tokens of a chunk from: `prompt_ids` ends before the chunk does.",
            "Take them from `token_ids`, prompt and output together.",
        ),
        "another-token: prompt output before zero": (
            "Which token of the sequence that decodes has no keys and values yet?",
            "Look at the token that you put down for a decode row: it has been computed already.",
            "Take the token at `start`, the newest.",
        ),
        "decode-position: beside made zero row": (
            "The newest token is token number `start` of its sequence. At which position is it?",
            "Look at the positions of the decode rows: they count something else than the place in the sequence.",
            "The position of a decode row is its `start`.",
        ),
        "row-not-slot: from-one decodes": (
            "This sequence is the first row of the step. Is that also its slot?",
            "Look at what you write into `slots` and `row_slots`: numbers of rows, counted along the step.",
            "Write the `slot` of each row's sequence.",
        ),
        "unpadded": (
            "A row of a prompt has `block` places, and the chunk has fewer tokens left. What fills the row?",
            "Look at what follows the last token of each chunk: rows must be whole.",
            "Fill each chunk up to a multiple of `block` with padding.",
        ),
        "rows-shared: whole listed": (
            "Two chunks lie behind one another. Does the second begin a row of its own?",
            "Look at where you add padding: once at the end, so that one row holds tokens of two sequences, "
            "though it has one slot.",
            "Fill up each chunk before the next one begins.",
        ),
        "padded-to-many": (
            "The chunk fills its rows exactly. How much padding does it need?",
            "Look at how you compute the padding: where the length is a multiple of `block`, a whole row of it is added.",
            "The padding is what is missing to the next multiple, and 0 if there is nothing missing.",
        ),
        "decodes-padded: last": (
            "Decode rows go to attention one by one. Why should they be filled up to a row of a prompt?",
            "Look at what lies between the decode rows and the first chunk: there is padding that nobody expects.",
            "Let the first chunk begin right behind the decode rows.",
        ),
        "padding-owned": (
            "Padding writes keys and values too. Into whose pages?",
            "Look at the slot of the padding: it has the sequence's, so it overwrites what the last token wrote.",
            "Padding has slot 0, the sink.",
        ),
        "padding-position: goes-on": (
            "Padding is computed as well. How far back does a query at its position look?",
            "Look at the positions of the padding: they must not leave what the row reads anyway.",
            "Padding repeats the position of the last token before it.",
        ),
        "padding-repeats": (
            "Which token does `Layout` say that padding has?",
            "Look at `token_ids` behind the end of a chunk: it holds a token of the sequence.",
            "Padding has token 0.",
        ),
        "row-slots: floor tokens places more": (
            "How many rows of `block` tokens does the chunk have, the last one filled up?",
            "Look at `row_slots`: it has one entry for each row of a prompt, not one a chunk or one a token.",
            "Add the slot as often as the chunk, with its padding, has rows.",
        ),
        "row-slots-of-all": (
            "Is a decode row a row of a prompt?",
            "Look at `row_slots`: the slots of decode rows stand in it too.",
            "Only rows of prompts have an entry in `row_slots`.",
        ),
        "chunks-first: logits": (
            "Which tokens lie at place 0, those who decode or those of prompts?",
            "Look at the order in which you put the lists together: attention takes the first `n_decode` places for decode "
            "rows.",
            "Decode rows first, then the chunks.",
        ),
        "n-decode: chunks logits rows": (
            "How many tokens at the beginning of the row go to attention as decode rows?",
            "Look at `n_decode`: it counts something else than the decode rows.",
            "`n_decode` is the number of `decodes`.",
        ),
    },
)
in_engines(lay_out, [TWO, THREE, TIGHT, ROWS, GEMMA])

# ================================================================================================ 10.3

side_by_side = Exercise(
    "10.3",
    section="Two kinds of rows in one attention",
    hints=(
        "Write down the shapes: q as it comes, what `attend` gets for the decode rows, what `attend_chunks` gets, "
        "and what is to come out.",
        "Follow one query of the second head through your code: is it the same head and the same place when it comes out, "
        "and was it computed with the mask of its kind?",
        "Cut q at `n_decode`; make a batch row of each decode query; let `attend_chunks` do the others; put both results "
        "back into one row, in the order of the queries.",
    ),
    preload=MODELS,
)


def query(place: int, head: int) -> str:
    return f"{place}.{head}"


def side(case: Case, wrong: str = "") -> tuple[list[dict[str, Any]], Answer]:
    """The calls of attend, and the output by head and place."""
    slug, way = wrong.partition(":")[::2]
    B, R, T, H, D = (case[name] for name in ("B", "R", "T", "heads", "D"))
    N = B + R * T
    if slug == "wrong-axis":
        raise Crash("RuntimeError")
    own, others = list(range(B)), list(range(B, N))
    if slug == "splits-at-the-end":
        own, others = list(range(N - B, N)), list(range(N - B))
    if slug == "cut-beside":
        raise Crash("RuntimeError")
    # [rows][heads][queries]
    of_decode = [[[query(place, h)] for h in range(H)] for place in own]
    flat = [query(place, h) for h in range(H) for place in own]
    if slug == "scrambled" and way != "out":
        of_decode = [[[flat[b * H + h]] for h in range(H)] for b in range(B)]
    if slug == "one-row":
        of_decode = [[[query(place, h) for place in own] for h in range(H)]]
    of_prompts = [[[query(others[r * T + t], h) for t in range(T)] for h in range(H)] for r in range(R)]

    masks, options = ["decode", "prompts"], ["decode's", "prompts'"]
    if slug == "masks-swapped":
        masks = {"": masks[::-1], "decode": [masks[0]] * 2, "prompts": [masks[1]] * 2}[way]
    if slug == "options-swapped":
        options = {"": options[::-1], "decode": [options[0]] * 2, "prompts": [options[1]] * 2}[way]
    if slug == "options-whole":
        both = str(tuple(options))
        options = {"": [both, both], "decode": [both, options[1]], "prompts": [options[0], both]}[way]
    if slug == "options-lost":
        options = {"": ["None"] * 2, "decode": ["None", options[1]], "prompts": [options[0], "None"]}[way]
    scales, caps = [case["scale"]] * 2, [case["softcap"]] * 2
    lost: dict[str, list[Any]] = {"": [None, None], "decode": [None, 1], "prompts": [1, None]}
    if slug == "scale-lost":
        scales = [kept and scales[0] for kept in lost[way]]
    if slug == "softcap-lost":
        caps = [kept and caps[0] for kept in lost[way]]
    if slug == "scale-for-softcap":
        pairs = [(caps[0], scales[0]), (scales[0], caps[0])]
        first, second = {"": (0, 0), "decode": (0, 1), "prompts": (1, 0)}[way]
        (scales[0], caps[0]), (scales[1], caps[1]) = pairs[first], pairs[second]
    pools = ["k v", "k v"]
    if slug == "values-for-keys":
        pools = {"": ["v k"] * 2, "decode": ["v k", "k v"], "prompts": ["k v", "v k"]}[way]

    calls = []
    for kind, rows in enumerate((of_decode, of_prompts)):
        batches = [[row] for row in rows] if slug == "one-by-one" and (kind == 0) == (way != "prompts") else [rows]
        for batch in batches:
            calls.append(
                {
                    "q": [len(batch), H, len(batch[0][0]), D],
                    "queries": batch,
                    "mask": masks[kind],
                    "pool": pools[kind],
                    "scale": scales[kind],
                    "softcap": caps[kind],
                    "options": options[kind],
                }
            )
    calls.sort(key=lambda call: (call["mask"], call["queries"]))

    # [heads][places of the part], each with the mask it was computed with
    if slug == "one-row":
        decoded = [[(label, masks[0]) for label in of_decode[0][h]] for h in range(H)]
    else:
        decoded = [[(of_decode[b][h][0], masks[0]) for b in range(B)] for h in range(H)]
    if slug == "scrambled" and way != "in":
        back = [of_decode[b][h][0] for b in range(B) for h in range(H)]
        decoded = [[(back[h * B + b], masks[0]) for b in range(B)] for h in range(H)]
    prompted = [[(of_prompts[r][h][t], masks[1]) for r in range(R) for t in range(T)] for h in range(H)]
    shapes = {"no-batch": [H, N, D], "heads-last": [1, N, H, D], "half": [1, H, B if way == "decode" else R * T, D]}
    if slug in shapes:
        return calls if slug != "half" else [calls[0] if way == "decode" else calls[1]], {"shape": shapes[slug]}
    swapped = slug == "prompts-first" or wrong == "splits-at-the-end:in-place"
    whole = [prompted[h] + decoded[h] if swapped else decoded[h] + prompted[h] for h in range(H)]
    said = [
        [label if (mask == "decode") == (place < B) else f"{label}!" for place, (label, mask) in enumerate(head)]
        for head in whole
    ]
    return calls, {"heads": said}


def calls_of(case: Case, wrong: str = "") -> Answer:
    return side(case, wrong)[0]


def outputs_of(case: Case, wrong: str = "") -> Answer:
    return side(case, wrong)[1]


def attention_case(
    B: int, R: int, T: int, heads: int = 2, D: int = 4, scale: float = 0.5, softcap: float | None = None
) -> Case:
    return {"B": B, "R": R, "T": T, "heads": heads, "D": D, "scale": scale, "softcap": softcap}


def say_attention(case: Case) -> str:
    B, R, T, heads, D = (case[name] for name in ("B", "R", "T", "heads", "D"))
    shape = f"q [1, {heads}, {B + R * T}, {D}]"
    more = f"; scale {case['scale']}, softcap {case['softcap']}"
    return (
        f"{shape}: {plural(B, 'decode row')}, {plural(R, 'row')} of a prompt with {plural(T, 'query')}{more}".replace(
            "querys", "queries"
        )
    )


def draw_calls(case: Case, answer: Answer) -> str:
    """For each call of attend what it was given; 3.1 is the query at place 3 of head 1."""
    lines = []
    for call in answer:
        lines.append(f"attend(q {call['q']}, mask of {call['mask']})")
        pool = {"k v": "k, v", "v k": "v, k"}.get(call["pool"], "another k or v")
        lines.append(f"  {pool}, scale {call['scale']}, softcap {call['softcap']}, options of {call['options']}")
        for row, heads in enumerate(call["queries"][:4]):
            lines.append(f"  row {row}: " + " | ".join(" ".join(head) for head in heads))
        lines += ["  …"] if len(call["queries"]) > 4 else []
    return "\n".join([*lines, "3.1: the query at place 3 of head 1"] if lines else ["attend is not called"])


def draw_outputs(case: Case, answer: Answer) -> str:
    if "shape" in answer:
        return f"shape {answer['shape']}"
    lines = ["place  " + "".join(f"{place:<6}" for place in range(len(answer["heads"][0])))]
    lines += [f"head {h} " + "".join(f"{label:<6}" for label in head) for h, head in enumerate(answer["heads"])]
    lines = [line.rstrip() for line in lines]
    return "\n".join([*lines, "3.1: of the query at place 3 of head 1; !: with the other mask"])


ONE_ROW = [attention_case(1, 1, 2), attention_case(1, 1, 3), attention_case(2, 1, 3), attention_case(3, 1, 2, heads=1)]
MANY_ROWS = [
    attention_case(2, 2, 2, heads=3),
    attention_case(3, 2, 4, heads=2, D=8),
    attention_case(1, 3, 2, heads=4),
    attention_case(5, 1, 4, heads=3, D=1),
    attention_case(4, 3, 3, heads=2),
]
PASSED_ON = [
    attention_case(1, 1, 2, scale=0.25, softcap=5.0),
    attention_case(2, 1, 3, scale=0.5),
    attention_case(2, 2, 2, heads=3, scale=0.125, softcap=30.0),
    attention_case(3, 2, 4, heads=2, D=8, scale=0.3),
]

ask(side_by_side, "one_row", outputs_of, ONE_ROW, say_attention, draw_outputs)
ask(side_by_side, "many_rows", outputs_of, MANY_ROWS, say_attention, draw_outputs)
ask(side_by_side, "passed_on", calls_of, PASSED_ON, say_attention, draw_calls)

ATTENTION_MISTAKES = {
    "masks-swapped: decode prompts": (
        "Which mask tells a decode row what it reads, and which one a row of a prompt?",
        "Look at the masks that go along with the two halves of q: one half was computed with the other's.",
        "Decode rows go with `mask.decode`; `attend_chunks` takes `mask.chunks` from the whole `mask`.",
    ),
    "options-swapped: decode prompts": (
        "There are two sets of kernel options. Which half of q belongs to which?",
        "Look at which element of `options` goes along with each half.",
        "The first of `options` is for decode, the second for prompts.",
    ),
    "options-whole: decode prompts": (
        "`options` is a pair. What does `attend` expect, the pair or one of the two?",
        "Look at what you pass on as options: the whole tuple.",
        "Pass on its first element for decode and its second for prompts.",
    ),
    "options-lost: decode prompts": (
        "On a GPU the kernel needs options that fit its rows. Where have they gone?",
        "Look at the last argument of both calls: `options` is not passed on.",
        "Pass on the first of `options` for decode, the second for prompts.",
    ),
    "scale-lost: decode prompts": (
        "Who decides by what scores are multiplied, this function or the model?",
        "Look at `scale` in both calls: it has to reach `attend` as it came.",
        "Pass `scale` on, for decode rows and for prompts.",
    ),
    "softcap-lost: decode prompts": (
        "Gemma 2 caps its scores. Does `attend` learn of it in both calls?",
        "Look at `softcap` in both calls: it has to reach `attend` as it came.",
        "Pass `softcap` on, for decode rows and for prompts.",
    ),
    "scale-for-softcap: decode prompts": (
        "Two numbers are passed on by position. In which order does `attend` take them?",
        "Look at the order of the arguments behind the mask.",
        "After the mask: scale, softcap, options.",
    ),
    "values-for-keys: decode prompts": (
        "Which of the two pools are scores computed with, and which is summed up?",
        "Look at the order in which you pass the pools on.",
        "After q: k, then v.",
    ),
    "one-row": (
        "Three requests decode, each with a page list of its own. How many rows must the batch have that `attend` gets?",
        "Look at the shape of q for the decode rows: they are queries of one row, but the mask has a row for each.",
        "Give `attend` [B, Hq, 1, D]: the queries become the batch, with one query each.",
    ),
    "one-by-one: prompts": (
        "How often is `attend` called for this layer? It costs a kernel each time.",
        "Look for a loop: the mask has all rows, and each call gets one of them.",
        "One call for all decode rows, one for all rows of prompts.",
    ),
    "scrambled: in out": (
        "Follow the query at place 1 of head 0. Is it still of head 0 where it arrives?",
        "Look for a `view` or `reshape` that makes [Hq, B] into [B, Hq], or back: it keeps the order in memory and mixes "
        "heads with rows.",
        "Exchange the two axes with `transpose` or `permute`; add and remove axes of length 1 only after that.",
    ),
    "splits-at-the-end: in-place": (
        "Where in the row do the decode rows lie, at its beginning or at its end?",
        "Look at where you cut q: the last `n_decode` queries were taken for decode rows.",
        "The first `n_decode` queries are decode rows, all others belong to prompts.",
    ),
    "prompts-first": (
        "The first place of q was a decode row. Whose output lies at the first place now?",
        "Look at the order in which you join the two results.",
        "Join them in the order of the queries: decode rows, then prompts.",
    ),
    "wrong-axis": (
        "Two results [1, Hq, …, D] are joined. Along which axis do they differ?",
        "Look at the axis that you join along: heads must stay heads.",
        "Join them along the axis of the queries, the third one.",
    ),
    "no-batch": (
        "How many axes has q, and how many has what you give back?",
        "Look at the first axis: there is one row, and its axis must be there.",
        "Give back [1, Hq, B + R·T, D].",
    ),
    "heads-last": (
        "Which comes second in the shape that the docstring promises, heads or queries?",
        "Look at the last exchange of axes: it gives [1, queries, Hq, D].",
        "Give back heads before queries, as q has them.",
    ),
    "half: decode prompts": (
        "How many queries came in, and how many outputs go out?",
        "Look at what you return: one of the two kinds of rows is missing.",
        "Compute both kinds and join them.",
    ),
}


for _key, _hints in ATTENTION_MISTAKES.items():
    _slug, _, _ways = _key.partition(":")
    side_by_side.mistake(_slug, *_hints)
    for _wrong in [_slug, *(f"{_slug}:{_way}" for _way in _ways.split())]:
        for _check in side_by_side.checks:
            _check.predicts(_slug)(_foretold(calls_of if _check.name == "passed_on" else outputs_of, _wrong))

in_engines(side_by_side, [TWO, THREE, ROWS, GEMMA])

# ================================================================================================ 10.4

rows_due = Exercise(
    "10.4",
    section="Who is given a token",
    hints=(
        "Go through the rows one by one: is a token due after it? Then write down in which order their logits lie.",
        "Two questions: which rows give a token (`gives_token`), and which come first, decode rows or parts of prompts.",
        "Take the decode rows in their order, then the chunks that give a token in theirs.",
    ),
    preload=MODELS,
)


def due(case: Case, wrong: str = "") -> Answer:
    slug, way = wrong.partition(":")[::2]

    def is_chunk(row: Listed) -> bool:
        if slug == "by-length":
            return bool(row[6] > 1)
        if slug == "by-start":
            return bool(row[5] == 0)
        return bool(row[1] != "decode")

    def gives(row: Listed) -> bool:
        _name, kind, prompt, _made, _slot, start, n = row
        if slug == "samples-mid-prompt":
            return kind != "last part" if way == "reversed" else True
        if slug == "no-first-token":
            return bool(kind == "decode")
        if slug == "drops-decodes":
            return bool(kind == "last part")
        if slug == "asks-the-prompt":
            done = start + n >= prompt if way == "reached" else start + n == prompt
            return bool(done or (kind == "decode" and way != "all"))
        if slug == "whole-prompts-only":
            return bool(kind == "decode" or (start == 0 and kind == "last part"))
        if wrong == "by-length":
            return n == 1 or kind == "last part"
        if wrong == "by-start":
            return start > 0 or kind == "last part"
        return bool(kind != "part")

    rows = [row for row in case["rows"] if gives(row)]
    if slug == "as-they-come":
        ordered = rows
    elif slug == "prompts-first":
        ordered = [row for row in rows if is_chunk(row)] + [row for row in rows if not is_chunk(row)]
    else:
        ordered = [row for row in rows if not is_chunk(row)] + [row for row in rows if is_chunk(row)]
    if slug == "by-slot":
        ordered = sorted(rows, key=lambda row: (way != "all" and is_chunk(row), row[4]))
    if slug == "by-request":
        ordered = sorted(rows, key=lambda row: (way != "all" and is_chunk(row), row[0]))
    if slug == "backwards":
        ordered = ordered[::-1]
    return [[row[0], row[5], row[6]] for row in ordered]


def draw_due(case: Case, answer: Answer) -> str:
    kinds = {row[0]: say_kind(row[1]) for row in case["rows"]}
    lines = [
        f"logits {i}: {name} ({kinds.get(name, '?')}, {span(start, n)})" for i, (name, start, n) in enumerate(answer)
    ]
    return "\n".join(lines or ["no row"])


def swapped_names(*rows: Listed, order: Iterable[int]) -> Case:
    """Rows in another order than that of the requests' names."""
    case = rows_case(*rows)
    return {"rows": [case["rows"][i] for i in order]}


def who_cases() -> Iterator[Case]:
    yield rows_case(D1)
    yield rows_case(part(9, 2, 0, 4))
    yield rows_case(part(9, 2, 4, 5))
    yield rows_case(part(3, 2, 0, 3))
    yield rows_case(D1, part(9, 2, 0, 4))
    yield rows_case(D1, part(9, 2, 4, 5))
    yield rows_case(D1, D2)
    yield rows_case(D1, part(9, 2, 4, 5), part(5, 3, 0, 2))


def order_cases() -> Iterator[Case]:
    yield rows_case(part(3, 2, 0, 3), D1)
    yield rows_case(part(3, 2, 0, 3), D1, part(9, 4, 0, 5))
    yield rows_case(part(9, 2, 4, 5), D1, part(3, 7, 0, 3), D2)
    yield swapped_names(D1, D3, part(3, 4, 0, 3), part(9, 2, 4, 5), order=(1, 0, 3, 2))
    yield swapped_names(D3, D1, part(9, 3, 4, 5), part(3, 4, 0, 3), order=(3, 1, 2, 0))


def odd_cases() -> Iterator[Case]:
    yield rows_case(part(1, 2, 0, 1), D1)
    yield rows_case(part(9, 2, 8, 1), D1)
    yield rows_case(D1, part(9, 2, 3, 1))
    yield rows_case(part(3, 2, 0, 5, made=2), D1)
    yield rows_case(part(3, 2, 2, 3, made=2), D1)
    yield rows_case(D1, part(3, 2, 0, 3, made=2))
    yield rows_case(D1, part(3, 2, 0, 4, made=2))
    yield rows_case()


def due_search() -> Any:
    row = st.builds(
        lambda prompt, made, start, n, slot, decodes: (
            decode(prompt, max(1, made), slot)
            if decodes
            else part(prompt, slot, min(start, prompt - 1), min(n, prompt + made - min(start, prompt - 1)), made)
        ),
        st.integers(1, 6),
        st.integers(0, 2),
        st.integers(0, 5),
        st.integers(1, 8),
        st.integers(1, 9),
        st.booleans(),
    )
    return st.builds(lambda rows: rows_case(*rows), st.lists(row, min_size=1, max_size=5))


for _name, _cases in {"who": who_cases, "in_order": order_cases, "odd_parts": odd_cases}.items():
    ask(rows_due, _name, due, _cases(), say_rows, draw_due)
ask(rows_due, "any_rows", due, [], say_rows, draw_due, search=due_search())

known(
    rows_due,
    due,
    {
        "samples-mid-prompt: reversed": (
            "The middle of a prompt has been computed. Which token does its request get?",
            "Look at which parts of prompts you let through: only the last one gives a token.",
            "Leave out the rows of which `gives_token` says no.",
        ),
        "no-first-token": (
            "The last part of a prompt has been computed. Who makes the first token of the answer?",
            "Look at what you do with parts of prompts: none is left, though the last one gives a token.",
            "Keep each row of which `gives_token` says yes, parts of prompts too.",
        ),
        "drops-decodes": (
            "Someone decodes in this step. Does it get its token?",
            "Look at what becomes of rows that are no `Chunk`: each of them gives a token.",
            "Keep the decode rows, all of them, before the parts of prompts.",
        ),
        "asks-the-prompt: reached all": (
            "This sequence was preempted: it computes its prompt and its output again. Which part is the last?",
            "Look at how you find out whether a part is the last: the length of the prompt alone does not say so.",
            "`gives_token` says it, whatever the sequence went through.",
        ),
        "whole-prompts-only": (
            "This part begins in the middle of a prompt and ends with it. Is a token due?",
            "Look at the condition on `start`: where a part begins does not matter, only whether it is the last.",
            "Ask `gives_token`, and nothing about `start`.",
        ),
        "as-they-come": (
            "A part of a prompt stands before a decode row here. Whose logits are row 0?",
            "Look at the order of what you return: it is that of the rows given, but the step lays decode rows out first.",
            "Return the decode rows first, then the parts of prompts.",
        ),
        "prompts-first": (
            "Which tokens lie first in the row of a step, those who decode or those of prompts?",
            "Look at the order of the two kinds: the wrong one comes first, and requests would get each other's tokens.",
            "Put the decode rows before the prompts, not behind them.",
        ),
        "by-length: order": (
            "A prompt has one token left to compute. Is that a decode row?",
            "Look at how you tell decode rows from parts of prompts: by the number of tokens one can't.",
            "A `Chunk` is a part of a prompt, whatever its length.",
        ),
        "by-start: order": (
            "The second part of a prompt begins at token 4. Is it a decode row because it does not begin at 0?",
            "Look at how you tell decode rows from parts of prompts: `start` told them apart only as long as prompts were "
            "computed in one go.",
            "A `Chunk` is a part of a prompt, wherever it begins.",
        ),
        "by-slot: all": (
            "Does the row of a step lie in the order of slots?",
            "Look at what you sort by: the slots have no part in it.",
            "Keep the order of `rows` within the decode rows and within the prompts.",
        ),
        "by-request: all": (
            "Does the row of a step lie in the order in which requests came?",
            "Look at what you sort by: the ids of requests have no part in it.",
            "Within either kind keep the order in which `rows` has them.",
        ),
        "backwards": (
            "Read your list from its end. Does it look better?",
            "Look for what turns the order round: a `reverse`, an `insert(0, …)`, a sort in descending order.",
            "First the decode rows, then the prompts, each as they stand in `rows`.",
        ),
    },
)
in_engines(rows_due, [LONE, TWO, THREE, CROWD])

# ================================================================================================ 10.5

inter_token_times = Exercise(
    "10.5",
    section="What the readers notice",
    hints=(
        "Write down all waits of the case in ascending order, and count to the place that the docstring names.",
        "Two steps: the waits (between neighbours of one request, all requests in one list), then the rank "
        "⌈p · n / 100⌉, counted from 1.",
        "Collect the differences of neighbours request by request, sort them all, and take the element at the rank less one.",
    ),
    preload=MODELS,
)


def gaps(times: list[float]) -> list[float]:
    return [times[i + 1] - times[i] for i in range(len(times) - 1)]


def at_rank(ordered: list[float], percent: int) -> float:
    """The smallest that at least `percent` of all are not above, found by counting."""
    return next(value for i, value in enumerate(ordered, start=1) if 100 * i >= percent * len(ordered))


def interpolated(ordered: list[float], percent: int) -> float:
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def exclusive(ordered: list[float], percent: int) -> float:
    """As statistics.quantiles(n=100) does it."""
    n = len(ordered)
    if n < 2:
        raise Crash("StatisticsError")
    j, delta = divmod(percent * (n + 1), 100)
    j, delta = (1, 0) if j < 1 else (n - 1, 100) if j > n - 1 else (j, delta)
    return (ordered[j - 1] * (100 - delta) + ordered[j] * delta) / 100


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def median(ordered: list[float]) -> float:
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def percentiles(case: Case, wrong: str = "") -> Answer:
    slug, way = wrong.partition(":")[::2]
    every = case["times"]
    waits = [wait for times in every for wait in gaps(times)]
    if slug == "first-token":
        every = [[0, *times] for times in every]
        waits = [wait for times in every for wait in gaps(times)]
    if slug == "across-requests":
        one = [time for times in every for time in times]
        waits = gaps(one if way == "joined" else sorted(one))
    if slug == "one-request":
        waits = gaps(every[0] if way != "last" else every[-1]) if every else []
    if slug == "averages":
        waits = [mean(gaps(times)) for times in every if gaps(times)]
    if slug == "tokens":
        waits = [time for times in every for time in times]
    if not waits:
        if slug == "no-wait" and (every or way != "of-nobody"):
            return [float("nan")] * 2 if way == "nan" else raises("IndexError", "StatisticsError", "ValueError")
        return [0.0, 0.0]
    ordered = sorted(waits, reverse=slug == "descending") if slug != "not-sorted" else waits
    n = len(ordered)
    if slug == "per-request":
        each = [sorted(gaps(times)) for times in every if gaps(times)]
        return [(max if way == "worst" else mean)([at_rank(one, p) for one in each]) for p in (50, 99)]
    if slug == "mean":
        return [mean(waits), at_rank(ordered, 99)]
    if slug == "largest":
        return [at_rank(ordered, 50), max(waits)]
    if slug == "interpolates":
        kinds: dict[str, Callable[[], Answer]] = {
            "": lambda: [interpolated(ordered, p) for p in (50, 99)],
            "median": lambda: [median(ordered), at_rank(ordered, 99)],
            "exclusive": lambda: [exclusive(ordered, p) for p in (50, 99)],
            "half": lambda: [median(ordered), ordered[n * 99 // 100]],
        }
        return kinds[way]()
    ranks: dict[str, Callable[[int], int]] = {
        "rank-too-high": lambda p: n * p // 100,
        "rank-too-high:ceil": lambda p: min(n - 1, -(-p * n // 100)),
        "rank-too-low": lambda p: max(0, n * p // 100 - 1),
        "rank-too-low:wraps": lambda p: n * p // 100 - 1,
        "rank-too-low:less-one": lambda p: (n - 1) * p // 100,
        "rank-too-low:two": lambda p: max(0, -(-p * n // 100) - 2),
        "rank-rounded": lambda p: round((n - 1) * p / 100),
        "rank-rounded:of-n": lambda p: max(0, round(n * p / 100) - 1),
    }
    if wrong in ranks:
        return [ordered[ranks[wrong](p)] for p in (50, 99)]
    if slug == "other-percentiles":
        p50, p99 = {"": (50, 95), "low": (50, 1), "quarter": (25, 99), "nines": (50, 90)}[way]
        return [at_rank(ordered, p50), at_rank(ordered, p99)]
    result = [at_rank(ordered, p) for p in (50, 99)]
    return result[::-1] if slug == "swapped" else [1000 * x for x in result] if slug == "milliseconds" else result


def say_waits(case: Case) -> str:
    if case["said"]:
        return str(case["said"])
    said = [f"{', '.join(f'{time:g}' for time in times)} s" if times else "never" for times in case["times"]]
    return "\n".join(f"tokens of {name} at {one}" for name, one in zip(NAMES, said, strict=False)) or "no request"


def draw_waits(case: Case, answer: Answer) -> str:
    return "\n".join(f"{name}  {value:g} s" for name, value in zip(("p50", "p99"), answer, strict=True))


def token_times(*times: Iterable[float], said: str = "") -> Case:
    return {"times": [list(one) for one in times], "said": said}


def long_request(n: int, begin: int = 0) -> Case:
    """One request with waits of n, …, 3, 2, 1 s, in another order than by length."""
    waits = [*reversed(range(2, n + 1, 2)), *range(1, n + 1, 2)]
    times = list(itertools.accumulate(waits, initial=begin))
    return token_times(times, said=f"one request, {n} waits: of 1, 2, 3, … {n} s, in no order")


def alone_cases() -> Iterator[Case]:
    yield token_times([0, 1, 2])
    yield token_times([0, 1, 2, 12])
    yield token_times([5, 6, 8])
    yield token_times([5, 15, 16, 17])
    yield token_times([0, 4, 5, 8, 10])
    yield token_times([3, 4])


def side_cases() -> Iterator[Case]:
    yield token_times([0, 1, 2, 12], [5, 6])
    yield token_times([0, 1], [10, 13])
    yield token_times([0, 2, 4, 6, 8], [1, 11])
    yield token_times([7], [0, 3, 6], [2, 3])
    yield token_times([], [0, 3, 6, 7], [])
    yield token_times([0, 5, 6], [1, 2, 3, 4], [9, 11, 14])
    yield token_times([100, 101, 103], [0.5, 0.75, 1.75])


def rank_cases() -> Iterator[Case]:
    for n in (4, 5, 6, 10, 20, 99, 100, 101, 150, 199, 200, 201, 250, 300, 301):
        yield long_request(n)


NO_WAIT = [token_times(), token_times([]), token_times([4]), token_times([4], [9], [])]


def times_search() -> Any:
    waits = st.lists(st.integers(1, 40), max_size=4)
    one = st.builds(lambda begin, waits, empty: [] if empty else list(itertools.accumulate(waits, initial=begin)),
                    st.integers(1, 30), waits, st.booleans())  # fmt: skip
    return st.builds(lambda times: token_times(*times), st.lists(one, max_size=3))


for _name, _list in {
    "one_request": alone_cases(),
    "several_requests": side_cases(),
    "ranks": rank_cases(),
    "no_wait": iter(NO_WAIT),
}.items():
    ask(inter_token_times, _name, percentiles, _list, say_waits, draw_waits)
ask(inter_token_times, "any_times", percentiles, [], say_waits, draw_waits, search=times_search())

known(
    inter_token_times,
    percentiles,
    {
        "first-token": (
            "A token came at 5 s, the next at 6 s. How long did the reader wait from one to the next?",
            "Look at what you take for the first wait: the first token has none before it.",
            "Take the differences of neighbours only: n tokens have n - 1 waits.",
        ),
        "across-requests: joined": (
            "The token of one request follows that of another. Does anyone read both?",
            "Look at which times you subtract: they may belong to different requests.",
            "Take the differences within each request, then put all of them into one list.",
        ),
        "per-request: worst": (
            "One request has three waits, another has one. How much does each wait count?",
            "Look at where you take the percentiles: of each request alone, and then of those numbers.",
            "Put the waits of all requests into one list first, and take the percentiles of that.",
        ),
        "averages": (
            "One wait of ten was long. Where is it in the average?",
            "Look at what you put into the list: one average a request hides the waits that p99 is meant to show.",
            "Keep every single wait.",
        ),
        "one-request: last": (
            "How many requests are there, and whose waits did you look at?",
            "Look at your loop: it ends too soon, or it starts its list anew for each request.",
            "Collect the waits of all requests.",
        ),
        "tokens": (
            "Is the moment at which a token came a wait?",
            "Look at what you sort: times, not the differences between them.",
            "Subtract each time from the next one of its request first.",
        ),
        "mean": (
            "One reader in a hundred waited for ten seconds. How long did the one in the middle wait?",
            "Look at the first number: it is an average, which one long wait moves.",
            "p50 is the wait at the middle rank, not the mean.",
        ),
        "largest": (
            "Of 100 waits, which place has the 99th percentile, and which one the longest?",
            "Look at the second number: it is always the longest wait.",
            "Take the wait at place ⌈99 · n / 100⌉, which is the last one only for fewer than 100 waits.",
        ),
        "interpolates: median exclusive half": (
            "Is there a wait as long as this number says?",
            "Look at how the percentile is made: it lies between two waits, as `statistics` or NumPy do it.",
            "Nearest rank takes one of the waits: that at place ⌈p · n / 100⌉.",
        ),
        "rank-too-high: ceil": (
            "Of 4 waits, the median is at place 2. Which index has place 2?",
            "Look at the index: places are counted from 1, a list from 0.",
            "Round p · n / 100 up, then subtract one.",
        ),
        "rank-too-low: wraps less-one two": (
            "Of 5 waits, at which place is the median? And of 4, the 99th percentile?",
            "Look at how you round: a rank that is no whole number goes up, not down.",
            "The index is the next whole number from p · n / 100 upwards, less one.",
        ),
        "rank-rounded: of-n": (
            "1.2 of the waits are to be at most that long. How many whole waits does that take?",
            "Look at what you round, and how: to the nearest whole number, or after subtracting.",
            "Round p · n / 100 itself, always up, and subtract one only then.",
        ),
        "not-sorted": (
            "Which wait is at place 2, the second that happened or the second shortest?",
            "Look at the order of the list that you take the percentiles of.",
            "Sort the waits before you count.",
        ),
        "descending": (
            "99 % of the waits should be at most as long as p99. Count them.",
            "Look at the direction in which the waits are sorted.",
            "Sort them in ascending order.",
        ),
        "swapped": (
            "Which of the two numbers should be the larger one?",
            "Look at the order of what you return.",
            "Return the median first, then the 99th percentile.",
        ),
        "milliseconds": (
            "Times come in seconds. In what do the results go out?",
            "Look for a factor of 1000.",
            "Return seconds.",
        ),
        "other-percentiles: low quarter nines": (
            "Which share of the waits is at most as long as each of your two numbers?",
            "Look at the percentages that you use.",
            "Use 50 for the first number and 99 for the second.",
        ),
        "no-wait: nan of-nobody": (
            "Each request has one token, or none. How many waits are there?",
            "Look at what your code does with an empty list: the docstring names a result for it.",
            "Return (0.0, 0.0) if there is no wait.",
        ),
    },
)
