"""benchmarks/throughput.py runs, measures what it says, and notices an engine that cheats. No timing is asserted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import families
import pytest
import tokenizers
import transformers

from benchmarks import engines, throughput
from benchmarks.child import Job, launch, work
from benchmarks.workload import PROMPTS, Request, Shape, describe, make_workload

ALL = ["flexnano", "one_by_one", "static", "continuous"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A small tokenizer that knows the text of the benchmark and fits the vocabulary of the tiny models."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=families.VOCAB, special_tokens=["<pad>", "<unk>"], show_progress=False
    )
    bpe.train([str(PROMPTS)], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", unk_token="<unk>")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    families.tiny_model("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def benchmark(model_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`benchmark("--repeats", "2", launch=…)`: the report of a quick run; jobs run in this process unless said otherwise."""

    def run(*arguments: str, launch: Callable[[Job], dict[str, Any]] = work) -> dict[str, Any]:
        always = ["--model", str(model_folder), "--output", str(tmp_path), "--attention", "gather", "--device", "cpu"]
        return throughput.main([*always, *arguments], launch)

    return run


def test_a_quick_run_measures_all_four_engines_and_finds_their_tokens_right(
    benchmark: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    report = benchmark("--quick")
    for name in ALL:
        row = report["engines"][name]
        assert "error" not in row, f"{name} did not run: {row.get('error')}"
        assert row["runs"][0]["output_tokens"] == report["workload"]["output_tokens"], f"{name} wrote another number"
        assert row["output_tokens_per_second"]["median"] > 0
        assert 0 < row["first_token_seconds"]["median"] <= row["seconds"]["median"], (
            f"{name}: first token after the end"
        )
        found = report["tokens"]["engines"][name]
        assert found["rows_with_a_wrong_token"] == 0, f"{name} wrote tokens that the model would not choose: {found}"
    assert set(report["ratios"]) == {f"flexnano / {other}" for other in ALL[1:]}

    written = {path.suffix: path for path in tmp_path.iterdir()}
    assert set(written) == {".json", ".png", ".svg"}, "the result, two pictures and nothing else should be left"
    assert json.loads(written[".json"].read_text()) == json.loads(json.dumps(report))
    assert report["machine"]["name"] in written[".svg"].read_text(), "the picture must name the machine"


def test_a_job_in_a_process_of_its_own_gives_the_same_tokens(model_folder: Path) -> None:
    shape = vars(Shape(requests=2, prompt_tokens=(4, 8), output_tokens=(3, 5)))
    job = Job("run", str(model_folder), "one_by_one", workload=shape, warm_up=shape)
    apart = launch(job)
    assert "error" not in apart, f"the child failed: {apart.get('error')}"
    assert apart["tokens"] == work(job)["tokens"]


def test_an_engine_that_writes_other_tokens_is_found_out(
    benchmark: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(engines.OneByOne):
        def run(self, requests: list[Request]) -> engines.Outcome:
            outcome = super().run(requests)
            outcome.tokens[1][-1] = (outcome.tokens[1][-1] + 1) % families.VOCAB
            return outcome

    monkeypatch.setitem(engines.ENGINES, "flexnano", Wrong)
    report = benchmark("--quick", "--engines", "flexnano", "one_by_one", "--no-plot")
    assert report["tokens"]["engines"]["flexnano"]["rows_with_a_wrong_token"] == 1
    assert report["tokens"]["engines"]["one_by_one"]["rows_with_a_wrong_token"] == 0
    rows = report["workload"]["requests"]
    assert report["tokens"]["rows_equal"] == {"flexnano = one_by_one": rows - 1}


def test_an_engine_that_stops_early_is_no_faster_for_it(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(engines.OneByOne):
        def run(self, requests: list[Request]) -> engines.Outcome:
            outcome = super().run(requests)
            outcome.tokens[0].pop()
            return outcome

    monkeypatch.setitem(engines.ENGINES, "static", Short)
    shape = vars(Shape(requests=2, prompt_tokens=(4, 8), output_tokens=(3, 5)))
    with pytest.raises(RuntimeError, match="unfair"):
        work(Job("run", str(model_folder), "static", workload=shape, warm_up=shape))


def made_up(job: Job) -> dict[str, Any]:
    """A result without a model: two threads are faster than one, and bfloat16 than float32."""
    if job.kind == "check":
        return {"worst_distance": [0.0] * len(job.rows), "tokens_not_first": [0] * len(job.rows)}
    seconds = 10.0 / job.threads / (2 if job.dtype == "bfloat16" else 1)
    return dict(
        seconds=seconds, output_tokens=20, prompt_tokens=10, first_token_seconds=[0.5], cpu_share_of_others=0.0,
        description=job.engine, tokens=[[1, 2]], prompts=[[3]],
    )  # fmt: skip


def test_each_engine_is_measured_in_its_own_fastest_setting(
    benchmark: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def static_dislikes_bfloat16(job: Job) -> dict[str, Any]:
        if job.engine == "static" and job.dtype == "bfloat16":
            return {"error": "no such kernel"}
        return made_up(job)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    report = benchmark("--no-plot", "--repeats", "1", launch=static_dislikes_bfloat16)
    chosen = {name: (row["setting"]["dtype"], row["setting"]["threads"]) for name, row in report["engines"].items()}
    assert chosen == {name: ("float32" if name == "static" else "bfloat16", 2) for name in ALL}
    assert len(report["sweep"]) == 4 * len(ALL), "the sweep's numbers, failures too, belong into the result"


def test_rounds_hold_every_engine_once_and_start_with_another_each_time(
    benchmark: Callable[..., dict[str, Any]],
) -> None:
    jobs: list[Job] = []

    def note(job: Job) -> dict[str, Any]:
        jobs.append(job)
        return made_up(job)

    benchmark("--no-plot", "--repeats", "3", launch=note)
    timed = [job.engine for job in jobs if job.workload == asdict(throughput.FULL)]
    assert len(timed) == 3 * len(ALL)
    rounds = [timed[i : i + 4] for i in range(0, 12, 4)]
    assert [sorted(r) for r in rounds] == [sorted(ALL)] * 3, f"rounds are {rounds}"
    assert len({r[0] for r in rounds}) == 3, f"rounds start with {[r[0] for r in rounds]}"


def test_an_engine_that_cannot_run_is_reported_with_the_reason_and_the_others_are_measured(
    benchmark: Callable[..., dict[str, Any]],
) -> None:
    def one_fails(job: Job) -> dict[str, Any]:
        return {"error": "no CPU kernel"} if job.engine == "continuous" else made_up(job)

    report = benchmark("--repeats", "1", launch=one_fails)
    assert report["engines"]["continuous"] == {"error": "no CPU kernel"}
    assert set(report["ratios"]) == {"flexnano / one_by_one", "flexnano / static"}


def test_an_interrupted_run_goes_on_where_it_stopped(benchmark: Callable[..., dict[str, Any]]) -> None:
    calls = itertools.count()
    later: list[Job] = []

    def interrupted(job: Job) -> dict[str, Any]:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return made_up(job)

    def resumed(job: Job) -> dict[str, Any]:
        later.append(job)
        return made_up(job)

    with pytest.raises(KeyboardInterrupt):
        benchmark("--no-plot", launch=interrupted)
    report = benchmark("--no-plot", "--resume", launch=resumed)
    jobs = (
        len(report["sweep"]) + 3 * len(ALL) + len(ALL) + 1
    )  # sweep, three rounds, the comparison of tokens, its check
    assert len(later) == jobs - 5, "the five jobs that were done should not be done again"


def test_the_workload_is_the_same_each_time_and_keeps_to_its_lengths(tokenizer: Any) -> None:
    shape = Shape(requests=50, prompt_tokens=(5, 40), output_tokens=(3, 9))
    requests = make_workload(tokenizer, shape)
    assert requests == make_workload(tokenizer, shape)
    assert requests != make_workload(tokenizer, Shape(50, (5, 40), (3, 9), seed=1))
    assert {len(r.prompt) for r in requests} <= set(range(5, 41))
    assert {r.max_new_tokens for r in requests} == set(range(3, 10)), "fifty draws should meet all seven lengths"
    assert len({tuple(r.prompt) for r in requests}) > 40, "prompts should differ"


def test_the_waste_of_static_batches_is_counted_in_tokens() -> None:
    requests = [Request([1] * 3, 2), Request([1] * 5, 7), Request([1] * 4, 1)]
    counted = describe(requests, max_batch_size=2)
    assert (counted["prompt_tokens"], counted["output_tokens"]) == (12, 10)
    assert counted["static_prompt_tokens_with_padding"] == 2 * 5 + 4
    assert counted["static_output_tokens_computed"] == 2 * 7 + 1
