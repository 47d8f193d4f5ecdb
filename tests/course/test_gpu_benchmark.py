"""The benchmark of fixed workloads: what is asked for is what it says, without a GPU."""

from __future__ import annotations

import importlib
import json
import random
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import heavy
from benchmarks.workload import Request

RESULTS = sorted(heavy.RESULTS.glob("*-flexnano-*-nvidia-*.json"))


@pytest.mark.parametrize("name", list(heavy.WORKLOADS))
def test_a_workload_draws_length_ids_and_answer_in_this_order(name: str) -> None:
    workload, rng = heavy.WORKLOADS[name], random.Random(0)
    beginning = [rng.randrange(5, workload.vocabulary) for _ in range(workload.common)]
    for prompt, n in workload.make()[:5]:
        length = rng.randint(*workload.prompt_tokens)
        assert prompt == beginning + [rng.randrange(5, workload.vocabulary) for _ in range(length)]
        assert n == rng.randint(*workload.output_tokens)


def test_prompts_of_a_workload_share_their_beginning_and_nothing_else() -> None:
    workload = heavy.WORKLOADS["shared-prefix"]
    prompts = [prompt for prompt, _ in workload.make()]
    assert len({tuple(prompt[:1024]) for prompt in prompts}) == 1
    assert len({tuple(prompt[1024:]) for prompt in prompts}) == len(prompts) == 256
    assert all(len(prompt) + n == workload.longest for prompt, n in workload.make())


def test_the_rehearsal_has_other_prompts() -> None:
    workload = heavy.WORKLOADS["qwen3"]
    assert workload.make(seed=1)[0] != workload.make()[0]


def test_a_rehearsal_takes_the_steps_of_the_run_with_other_tokens() -> None:
    workload = heavy.WORKLOADS["shared-prefix"]
    asked = workload.make()
    rehearsed = heavy.with_other_tokens(asked, workload.vocabulary, by=100)
    assert [(len(prompt), n) for prompt, n in rehearsed] == [(len(prompt), n) for prompt, n in asked]
    assert all(prompt[: workload.common] == rehearsed[0][0][: workload.common] for prompt, _ in rehearsed)
    for (prompt, _), (other, _) in zip(asked, rehearsed, strict=True):
        assert all(5 <= b < workload.vocabulary and a != b for a, b in zip(prompt, other, strict=True))


@pytest.mark.parametrize("new_in_a_run", [[0], [2, 0], [1, 3, 0, 5]])
def test_the_run_that_counts_is_the_first_in_which_nothing_is_compiled(new_in_a_run: list[int]) -> None:
    made = dict[str, float]()
    engine = SimpleNamespace(fast=SimpleNamespace(seconds_to_make=made))
    seeds: list[int] = []

    def run(seed: int) -> int:
        seeds.append(seed)
        made.update({f"{seed}, {i}": 1.0 for i in range(new_in_a_run[len(seeds) - 1])})
        return seed

    counted = heavy.run_until_compiled(engine, run)
    assert seeds == [100 + i for i in range(new_in_a_run.index(0) + 1)] and counted == seeds[-1]


@pytest.mark.parametrize("engine", list(heavy.NEEDS))
def test_a_peer_that_is_not_there_is_named(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=f"{engine} can't be imported here"):
        heavy.main(["--workload", "gemma2", "--engine", engine])


COMMANDS = {
    "throughput": ["--workload", "gemma2"],
    "kernel": [],
    "step": [],
    "latency": [],
    "scale": ["sequences", "pages"],
    "homeworks": ["prefix"],
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_without_a_gpu_it_says_in_a_sentence_that_it_needs_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [name, *COMMANDS[name]])
    with pytest.raises(SystemExit, match=rf"benchmarks\.{name}.* measures a GPU, and none is found here"):
        importlib.import_module(f"benchmarks.{name}").main()


@dataclass
class FakeVLLM:
    """What the adapter may ask of vLLM, as its documentation has it: an LLM, sampling parameters, outputs with token ids."""

    made: dict[str, Any] = field(default_factory=dict)

    def module(self) -> ModuleType:
        fake = self

        class LLM:
            def __init__(self, model: str, **options: Any) -> None:
                config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
                fake.made.update(options, config=config)

            def generate(self, prompts: list[Any], params: list[Any], use_tqdm: bool = True) -> list[Any]:
                fake.made["params"] = params
                return [
                    SimpleNamespace(
                        outputs=[SimpleNamespace(token_ids=prompt["prompt_token_ids"][: one["max_tokens"]])]
                    )
                    for prompt, one in zip(prompts, params, strict=True)
                ]

        module = ModuleType("vllm")
        vars(module).update(__version__="0", LLM=LLM, SamplingParams=lambda **given: given)
        return module


def test_vllm_is_asked_for_the_same_shape_and_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVLLM()
    monkeypatch.setitem(sys.modules, "vllm", fake.module())
    workload = heavy.WORKLOADS["gemma2"]
    engine = heavy.make_engine("vllm", None, workload, 7, {"gpu_memory_utilization": 0.8})
    asked = [Request([9, 8, 7, 6], 2), Request([5, 6, 7], 3)]
    outcome = engine.run(asked)
    engine.close()
    assert outcome.tokens == [[9, 8], [5, 6, 7]]
    assert fake.made["config"]["architectures"] == ["Gemma2ForCausalLM"]
    assert fake.made["config"]["hidden_size"] == 2304 and fake.made["load_format"] == "dummy"
    assert (fake.made["max_num_seqs"], fake.made["max_model_len"]) == (7, 1024)
    assert fake.made["gpu_memory_utilization"] == 0.8
    assert all(one["temperature"] == 0.0 and one["ignore_eos"] for one in fake.made["params"])


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_where_it_was_measured(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert {"machine", "versions", "workload", "options", "code", "command"} <= set(result)
    assert result["machine"]["name"].startswith("NVIDIA")
    if "seconds" in result:
        workload = heavy.Workload(**result["workload"])
        assert result["output_tokens"] == sum(n for _, n in workload.make())
        said = result["workload"]
        alike = [
            one
            for one in heavy.WORKLOADS.values()
            if json.loads(json.dumps(asdict(replace(one, requests=workload.requests)))) == said
        ]
        assert alike, f"none of the workloads has these lengths: {workload}"
        assert workload.make() == alike[0].make()[: workload.requests], "other requests"
