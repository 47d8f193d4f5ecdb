"""Runs the cases of module 10 on the learner's planner, layout and attention, and on engines that they are part of."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course.grading.driving import NotUsable, instance, tensor
from flexnano import mixed_step, planner
from flexnano.mixed_step import MixedMask
from flexnano.page_table import PageTable
from flexnano.planner import Chunk, Group, Planner
from flexnano.sampling_params import SamplingParams
from flexnano.scheduler import Row, Scheduler
from flexnano.sequence import Sequence, Status

Case = dict[str, Any]
Named = dict[str, Sequence]

MANY_CALLS = 50_000
"""More function calls than any step of these small cases takes."""


# ------------------------------------------------------------------------------------------------------ no end


class Endless(BaseException):
    """Raised in code that does not come to an end.  No `except Exception` stops it."""


def within(calls: int, function: Callable[[], Any]) -> Any:
    """What `function` gives, unless it calls more functions than any right one would."""
    left = calls

    def count(*_event: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise Endless

    sys.setprofile(count)
    try:
        return function()
    finally:
        sys.setprofile(None)


# ------------------------------------------------------------------------------------------------------ states


def planner_of(case: Case) -> Planner:
    table = PageTable(case["pool"], case["size"], case["slots"])
    scheduler = Scheduler(table, case["budget"])
    return Planner(scheduler, [Group(table, (None,))], case["budget"], fuse=True)


def state(case: Case) -> tuple[Planner, Named]:
    """A planner with sequences A, B, … in it: those that decode, those in the middle of their prompt, those that wait."""
    chooser, named = planner_of(case), dict[str, Sequence]()
    for prompt, made, computed in [*case["running"], *([*one, None] for one in case["waiting"])]:
        name = string.ascii_uppercase[len(named)]
        named[name] = job(len(named), prompt, made)
        if computed is None:
            chooser.scheduler.waiting.append(named[name])
        else:
            seat(chooser, named[name], computed)
    return chooser, named


def job(number: int, prompt: int, made: int, new: int = 99) -> Sequence:
    return Sequence(number, list(range(10, 10 + prompt)), SamplingParams(max_new_tokens=new), output_ids=[7] * made)


def seat(chooser: Planner, sequence: Sequence, computed: int) -> None:
    """As after a step: whoever decodes has pages for every token but the newest, an admitted prompt for all of its."""
    table = chooser.scheduler.page_table
    sequence.slot, sequence.status, sequence.computed = table.allocate(), Status.RUNNING, computed
    decodes = computed == len(sequence) - 1 and bool(sequence.output_ids)
    if not table.reserve(sequence.slot, computed if decodes else len(sequence)):
        raise NotUsable(f"a pool of {table.n_pages} pages had no room for {computed} tokens")
    chooser.scheduler.running.append(sequence)
    if not decodes:
        chooser.unfinished.append(sequence)


def rows_of(result: Any, named: Named) -> list[list[Any]]:
    """The rows of a step: [name, start, tokens, what it is], in the order of names."""
    known = {id(sequence): name for name, sequence in named.items()}
    rows = []
    for row in instance(result, (list, tuple), "the result"):
        instance(row, Row, "an element of the result")
        kind = ("last part" if row.is_last else "part") if isinstance(row, Chunk) else "decode"
        rows.append([known.get(id(row.sequence), "?"), row.start, row.n_tokens, kind])
    return sorted(rows, key=str)


# ------------------------------------------------------------------------------------------------------ 10.1


def rows_of_one_step(case: Case) -> dict[str, Any]:
    chooser, named = state(case)
    try:
        rows = within(MANY_CALLS, chooser.fused_step)
    except Endless:
        return {"endless": True}
    rows_of(rows, named)
    return {"rows": rows_of([row for row in rows if row.sequence.status is Status.RUNNING], named)}


decodes_first = rest_of_the_budget = many_decode = few_pages = rows_of_one_step


def run(case: Case) -> list[dict[str, Any]]:
    """Steps of a planner whose model makes the same token again and again.  Everybody ends at a number of tokens."""
    chooser, named, steps = planner_of(case), dict[str, Sequence](), list[dict[str, Any]]()
    scheduler, coming = chooser.scheduler, [tuple(one) for one in case["arrivals"]]
    while len(steps) < case["steps"] and (coming or scheduler.has_work):
        while coming and coming[0][0] <= len(steps):
            _, prompt, new = coming.pop(0)
            name = string.ascii_uppercase[len(named)]
            named[name] = job(len(named), prompt, 0, new)
            scheduler.add(named[name])
        try:
            rows = within(MANY_CALLS, chooser.next_step)
        except Endless:
            steps.append({"endless": True})
            break
        steps.append({"rows": rows_of(rows, named)})
        for row in rows:
            if isinstance(row, Chunk) and not row.is_last:
                continue
            row.sequence.output_ids.append(7)
            if len(row.sequence.output_ids) >= row.sequence.params.max_new_tokens:
                scheduler.finish(row.sequence, "length")
    return steps


one_prompt = prompts_beside_decodes = runs_short_of_pages = long_runs = run


# ------------------------------------------------------------------------------------------------------ 10.2, 10.4


def rows_from(case: Case) -> tuple[list[Row], Named]:
    """Rows as the case lists them: [name, kind, n tokens of the prompt, generated, slot, start, n]."""
    named: Named = {}
    rows: list[Row] = []
    for name, kind, prompt, made, slot, start, n in case["rows"]:
        number = string.ascii_uppercase.index(name)
        ids = list(range(100 * number + 100, 100 * number + 100 + prompt + made))
        named[name] = sequence = Sequence(number, ids[:prompt], SamplingParams(), output_ids=ids[prompt:])
        sequence.slot, sequence.status, sequence.computed = slot, Status.RUNNING, start + n
        rows.append(Row(sequence, start, n) if kind == "decode" else Chunk(sequence, start, n, kind == "last part"))
    return rows, named


LISTS = ("token_ids", "slots", "positions", "row_slots", "logits_at")


def layout(case: Case) -> dict[str, Any]:
    rows, _named = rows_from(case)
    decodes = [row for row in rows if not isinstance(row, Chunk)]
    chunks = [row for row in rows if isinstance(row, Chunk)]
    result = instance(mixed_step.lay_out(decodes, chunks, case["block"]), mixed_step.Layout, "the result")
    answer: dict[str, Any] = {"n_decode": instance(result.n_decode, int, "`n_decode`")}
    for name in LISTS:
        value = instance(getattr(result, name), (list, tuple, range), f"`{name}`")
        answer[name] = [instance(one, int, f"an element of `{name}`") for one in value]
    return answer


whole_prompts = parts_of_prompts = full_rows = several_prompts = any_step = layout


def due(case: Case) -> list[list[Any]]:
    rows, named = rows_from(case)
    known = {id(sequence): name for name, sequence in named.items()}
    result = instance(mixed_step.rows_due(rows), (list, tuple), "the result")
    return [
        [known.get(id(row.sequence), "?"), row.start, row.n_tokens]
        for row in (instance(one, Row, "an element of the result") for one in result)
    ]


who = in_order = odd_parts = any_rows = due


# ------------------------------------------------------------------------------------------------------ 10.3


class Mark(str):
    """Something to be passed on, that can be told apart: masks that are no masks, options that are no options."""


class Attention:
    """Stands for `attend`: notes what it was given, and answers each query by numbers that say which one it was."""

    def __init__(self, case: Case) -> None:
        B, R, T, heads, D = (case[name] for name in ("B", "R", "T", "heads", "D"))
        self.pool = torch.zeros(1, 1, 8, D), torch.ones(1, 1, 8, D)
        # The query of head h at place n is 10 n + h + 1, and in each of its D components a little more.
        n, h = torch.arange(B + R * T), torch.arange(heads)
        self.q = (10.0 * n + h[:, None] + 1)[None, :, :, None] + torch.arange(D) / 64
        self.calls: list[dict[str, Any]] = []

    def __call__(self, q: Any, k: Any, v: Any, mask: Any, scale: Any, softcap: Any, options: Any) -> Tensor:
        tensor(q, "the q that attend is given", ndim=4, kind="float")
        self.calls.append(
            {
                "q": list(q.shape),
                "queries": [[[label(one) for one in head] for head in row] for row in q],
                "mask": str(mask),
                "pool": f"{self.which(k)} {self.which(v)}",
                "scale": scale,
                "softcap": softcap,
                "options": str(options),
            }
        )
        return q.contiguous() * (-1 if str(mask) == "decode" else -1000)

    def which(self, pool: Any) -> str:
        tensor(pool, "k or v of a call of attend", kind="float")
        return next((name for name, one in zip("kv", self.pool, strict=True) if torch.equal(pool, one)), "another")


def label(values_D: Tensor) -> str:
    """Which query it is: "3.1" is the one at place 3 of head 1."""
    number = int(values_D[0])
    whole = torch.allclose(values_D, number + torch.arange(len(values_D)) / 64, atol=1e-3) and number > 0
    return f"{(number - 1) // 10}.{(number - 1) % 10}" if whole else "?"


def side_by_side(case: Case) -> tuple[Any, Attention]:
    attend = Attention(case)
    mask = MixedMask(case["B"], case["R"], Mark("decode"), Mark("prompts"))  # type: ignore[arg-type]
    options = Mark("decode's"), Mark("prompts'")
    result = mixed_step.attend_side_by_side(
        attend, attend.q, *attend.pool, mask, case["scale"], case["softcap"], options
    )
    return tensor(result, "the result", kind="float"), attend


def calls(case: Case) -> list[dict[str, Any]]:
    """How attend was called; in which order is nobody's business."""
    return sorted(side_by_side(case)[1].calls, key=lambda call: (call["mask"], call["queries"]))


passed_on = calls


def outputs(case: Case) -> dict[str, Any]:
    """By head, whose output lies at each place: "3.1" is what attention gave for the query at place 3 of head 1."""
    out, attend = side_by_side(case)
    if out.shape != attend.q.shape:
        return {"shape": list(out.shape)}
    return {"heads": [[said_output(one, place < case["B"]) for place, one in enumerate(head)] for head in out[0]]}


one_row = many_rows = outputs


def said_output(values_D: Tensor, decodes: bool) -> str:
    """The query behind an output, and the mask that it was computed with if that is the other one."""
    by_prompts = bool(values_D[0] <= -1000)
    where = label(values_D / (-1000 if by_prompts else -1))
    return where if by_prompts != decodes else f"{where}!"


# ------------------------------------------------------------------------------------------------------ 10.5


def waits(case: Case) -> list[float]:
    result = instance(planner.inter_token_times([list(times) for times in case["times"]]), (tuple, list), "the result")
    if len(result) != 2:
        raise NotUsable(f"the result has {len(result)} parts, not two: (p50, p99)")
    return [float(instance(value, (int, float), "a percentile")) for value in result]


one_request = several_requests = ranks = no_wait = any_times = waits


# ------------------------------------------------------------------------------------------------------ an engine


class Watch:
    """Notes the shape of the tokens of each of the model's calls."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[list[int]] = []
        self._hook = model.register_forward_pre_hook(self._called, with_kwargs=True)

    def _called(self, _module: Any, _positional: Any, arguments: dict[str, Any]) -> None:
        self.shapes.append(list(arguments["input_ids"].shape))

    def close(self) -> None:
        self._hook.remove()


@torch.inference_mode()
def engine(case: Case) -> dict[str, Any]:
    """An engine with fusion: the answers, and for each step how many tokens each request has and what the model was given."""
    from course.grading.tiny import tiny_model
    from flexnano.inference import Inference

    model = tiny_model(case.get("model", "llama"), 8)
    whole = Inference(
        model,
        None,
        max_batch_size=case["slots"],
        max_seq_length=96,
        n_pages=case["pool"],
        page_size=case["size"],
        attention="gather",
        fast=False,
        fuse_prefill=True,
        prefill_chunk=case["budget"],
    )
    assert whole.planner is not None
    choose = whole.planner.next_step
    whole.planner.next_step = lambda: within(MANY_CALLS, choose)  # type: ignore[method-assign]
    watch, requests, steps = Watch(model), list[Sequence](), list[dict[str, Any]]()
    coming = [tuple(one) for one in case["arrivals"]]
    try:
        while len(steps) < case["steps"] and (coming or whole.has_work):
            while coming and coming[0][0] <= len(steps):
                _, first, n, new = coming.pop(0)
                whole.add_request(prompt_of(first, n), SamplingParams(max_new_tokens=new))
                requests.append(whole.scheduler.waiting[-1])
            watch.shapes.clear()
            whole.run_one_step()
            steps.append({"calls": list(watch.shapes), "made": [len(one.output_ids) for one in requests]})
    except Endless:
        steps.append({"endless": True})
    finally:
        watch.close()
        whole.close()
    return {"steps": steps, "tokens": [list(one.output_ids) for one in requests]}


def prompt_of(first: int, n: int) -> list[int]:
    """Tokens that look random and are not."""
    return [3 + (first * 7 + i * i * 5 + i * 11) % 44 for i in range(n)]


in_an_engine = engine
