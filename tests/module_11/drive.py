"""Puts a mended engine of the clinic to work, and says what came out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from course.clinic.bench import SIZES, engine_for, memory_of, recite
from flexnano import SamplingParams

Case = dict[str, Any]

MANY_STEPS = 400
"""More than any of these small loads takes."""


def loss(engine: Any) -> str:
    """What is not as it was before anybody came; empty: nothing."""
    table = engine.page_table
    lost = table.n_pages - table.pages_available
    taken = [slot for slot in range(1, table.max_batch_size + 1) if table.is_allocated(slot)]
    try:
        table.check()
    except AssertionError as broken:
        return str(broken)[:200]
    said = [f"{lost} of {table.n_pages} pages did not come back"] if lost else []
    return "; ".join([*said, *([f"slots {taken} are still taken"] if taken else [])])


def params(one: dict[str, Any]) -> SamplingParams:
    """The sampling parameters of a request of a case."""
    names = ("temperature", "seed", "top_k", "top_p")
    return SamplingParams(max_new_tokens=one["new"], **{name: one[name] for name in names if name in one})


def run_all(engine: Any, until: Iterable[int] = ()) -> dict[int, Any]:
    """Run the engine until it is empty, or until these requests have ended.  Gives the results by request."""
    results: dict[int, Any] = {}
    wanted = set(until)
    for _ in range(MANY_STEPS):
        if not engine.has_work or (wanted and wanted <= results.keys()):
            break
        results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
    return results


# ------------------------------------------------------------------------------------------------ answers


def answers(case: Case) -> dict[str, Any]:
    """Several rounds of requests in one engine, each begun when the one before is answered."""
    tokens, preempted = [], 0
    with engine_for(case["kind"], **case["sizes"]) as engine:
        for together in case["rounds"]:
            results = engine.generate([one["prompt"] for one in together], [params(one) for one in together])
            tokens += [result.token_ids for result in results]
            preempted += sum(result.metrics.preemptions for result in results)
        return {"tokens": tokens, "preempted": preempted > 0, "lost": loss(engine)}


several = one_leaves = a_used_engine = few_pages = a_window = answers


def arrivals(case: Case) -> dict[str, Any]:
    """Requests that come while others run."""
    with engine_for(case["kind"], **case["sizes"]) as engine:
        coming, numbers, results = list(case["requests"]), [], {}
        for step in range(MANY_STEPS):
            while coming and coming[0]["step"] <= step:
                one = coming.pop(0)
                numbers.append(engine.add_request(one["prompt"], params(one)))
            if not coming and not engine.has_work:
                break
            results |= {event.request_id: event.result for event in engine.run_one_step() if event.result}
        return {"tokens": [results[n].token_ids if n in results else None for n in numbers], "lost": loss(engine)}


# ------------------------------------------------------------------------------------------------ aborts


def aborted(case: Case) -> dict[str, Any]:
    """Some requests are aborted after so many steps; again and again.  What the others get, and what comes back."""
    with engine_for(**case["sizes"]) as engine:
        tokens, reasons, again = [], [], []
        for _ in range(case["times"]):
            numbers = [engine.add_request(one["prompt"], params(one)) for one in case["requests"]]
            for _ in range(case["steps"]):
                engine.run_one_step()
            gone = [numbers[index] for index in case["abort"]]
            said = [engine.abort(number) for number in gone]
            again.append(said == [True] * len(gone) and not any(engine.abort(number) for number in gone))
            results = run_all(engine)
            tokens.append([results[n].token_ids for n in numbers if n not in gone and n in results])
            reasons.append([results[n].finish_reason for n in gone if n in results])
        return {"tokens": tokens, "reasons": reasons, "said": again, "lost": loss(engine)}


def closed_streams(case: Case) -> dict[str, Any]:
    """Streams that their reader leaves."""
    with engine_for(**case["sizes"]) as engine:
        for _ in range(case["times"]):
            stream = engine.stream(
                [one["prompt"] for one in case["requests"]], [params(one) for one in case["requests"]]
            )
            for _event in itertools.islice(stream, case["steps"]):
                pass
            stream.close()
        return {"lost": loss(engine)}


aborts = waiting_aborts = aborted


# ------------------------------------------------------------------------------------------------ seeds


def company(case: Case) -> dict[str, Any]:
    """One sampled request, alone and in company of all kinds.  How many different answers that gives."""
    mine = case["mine"]
    with engine_for(**case["sizes"]) as engine:
        (alone,) = engine.generate([mine["prompt"]], params(mine))
        got = [alone.token_ids]
        for others in case["others"]:
            for at in range(len(others) + 1):
                requests = [*others[:at], mine, *others[at:]]
                results = engine.generate([one["prompt"] for one in requests], [params(one) for one in requests])
                got.append(results[at].token_ids)
        other_seeds = [
            engine.generate([mine["prompt"]], params({**mine, "seed": seed}))[0].token_ids for seed in range(90, 96)
        ]
    longest_run = max(len(list(run)) for _, run in itertools.groupby(alone.token_ids))
    return {
        "answers": len({tuple(one) for one in got}),
        "seeds differ": len({tuple(one) for one in other_seeds}) > 3,
        "positions differ": longest_run < len(alone.token_ids) // 2,
    }


# ------------------------------------------------------------------------------------------------ who gets on


def getting_on(case: Case) -> dict[str, Any]:
    """A long answer while a newcomer arrives in each step.  Whether it gets a token in every second step, and they too."""
    with engine_for(**case["sizes"]) as engine:
        running = [engine.add_request(one["prompt"], params(one)) for one in case["long"]]
        engine.run_one_step()
        counts, came, answered = dict.fromkeys(running, 0), 0, 0
        for _ in range(case["steps"]):
            engine.add_request(case["newcomer"]["prompt"], params(case["newcomer"]))
            came += 1
            for event in engine.run_one_step():
                if event.request_id in counts:
                    counts[event.request_id] += event.token_id is not None
                elif event.result is not None:
                    answered += 1
        results = run_all(engine)
        return {
            "the long ones get on": min(counts.values()) >= case["steps"] // 2 - 1,
            "newcomers are answered": answered >= came // 3,
            "tokens": [results[number].token_ids for number in running if number in results],
            "lost": loss(engine),
        }


# ------------------------------------------------------------------------------------------------ memory


def pool(case: Case) -> dict[str, Any]:
    """How many pages an engine gives itself, and whether its pools then fill the share."""
    import torch

    sizes = {**SIZES, "n_pages": None, **case["sizes"]}
    model = _model_with(**case["model"]) if case["model"] else None
    with memory_of(case["free"]), engine_for(case["kind"], model=model, **sizes) as engine, torch.no_grad():
        return {"pages": engine.page_table.n_pages}


def _model_with(q_heads: int, kv_heads: int, head_dim: int, layers: int) -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=q_heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    return transformers.LlamaForCausalLM(config).float().eval()


# ------------------------------------------------------------------------------------------------ text


def streamed(case: Case) -> list[dict[str, Any]]:
    """The pieces of each answer as they came, and the text and tokens of the result."""
    with engine_for(text=True, max_seq_length=256, n_pages=128) as engine:
        recite(engine, case["text"])
        prompts = [case["text"][:at] for at in case["prompts"]]
        asked = [SamplingParams(max_new_tokens=new, stop=case.get("stop", ())) for new in case["new"]]
        pieces: list[list[str]] = [[] for _ in prompts]
        results: list[Any] = [None] * len(prompts)
        for event in engine.stream(prompts, asked):
            pieces[event.index].append(event.text)
            results[event.index] = event.result or results[event.index]
    return [
        {"pieces": own, "text": result.text, "tokens": result.token_ids, "why": result.finish_reason}
        for own, result in zip(pieces, results, strict=True)
    ]


letters = cut_short = stop_strings = streamed
