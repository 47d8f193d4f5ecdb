"""Experiment 1: what it counts, that its ways of attention agree, and that what goes wrong is a row and not a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("FLEXNANO", "solutions")

import torch

from experiments.AddFlexAttentionQwen import __main__ as experiment
from experiments.AddFlexAttentionQwen import child, implementations, models, parity, report
from experiments.AddFlexAttentionQwen.cases import (
    LABELS,
    SHAPES,
    TINY,
    WINDOW,
    Case,
    Group,
    bytes_needed,
    document_lengths,
    documents_of,
    flops,
    programme,
    size_of,
    visible_pairs,
)

RESULTS = Path(experiment.__file__).with_name("results")
SIZE = size_of(TINY, tied=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return models.build("tiny", torch.float32, "cpu")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention without a compiler: the same numbers, and no seconds of compiling in a test."""
    from flexnano.attention import attend_eager

    monkeypatch.setattr(implementations, "flex_attention_static", lambda: attend_eager)


# ------------------------------------------------------------------------------------------------ counting


@pytest.mark.parametrize(("length", "mean"), [(512, 1024), (4096, 1024), (16384, 256), (100, 7)])
def test_documents_fill_the_row_and_have_the_mean_that_was_asked_for(length: int, mean: int) -> None:
    lengths = document_lengths(length, mean, seed=3)
    assert sum(lengths) == length and min(lengths) > 0
    assert len(lengths) == max(1, round(length / mean))
    assert lengths == document_lengths(length, mean, seed=3)
    assert len(lengths) < 3 or max(lengths) > 1.5 * min(lengths), "documents of mixed length"


@pytest.mark.parametrize("mask", ["causal", "packed", "window"])
@pytest.mark.parametrize("work", ["forward", "decode"])
def test_pairs_are_those_of_the_mask(mask: str, work: str) -> None:
    case = Case("ours", work, mask, 1200, batch=2, mean_document=200)
    if work == "decode" and mask == "packed":
        pytest.skip("one new token reads its own row")
    allowed = implementations.dense(case, torch.device("cpu"))
    assert visible_pairs(case) == int(allowed.expand(2, -1, -1, -1).sum())


def test_flops_are_those_of_the_products() -> None:
    case = Case("ours", "forward", "causal", 256, dtype="float32")
    of = flops(case, SIZE)
    pairs = 256 * 257 // 2
    assert of["attention"] == 4 * 128 * 4 * 2 * pairs  # two products, four heads, two layers
    weights = 2 * (256 * 512 + 2 * 256 * 256 + 512 * 256 + 3 * 256 * 512)
    assert of["linear"] == 2 * weights * 256 + 2 * 1024 * 256  # and the logits of one token
    assert flops(replace(case, work="backward"), SIZE)["attention"] == 3 * of["attention"]


def test_weights_are_counted_as_the_model_has_them(model: Any) -> None:
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert sum(p.numel() for p in model.parameters()) - norms == SIZE.weights
    assert models.size_of_model(model) == SIZE


@pytest.mark.parametrize(("name", "billions"), [("0.6b", 0.6), ("1.7b", 1.7), ("4b", 4.0), ("8b", 8.2), ("32b", 32.8)])
def test_shapes_are_those_of_the_published_models(name: str, billions: float) -> None:
    size = size_of(SHAPES[name], tied=name in ("0.6b", "1.7b", "4b"))
    assert size.weights / 1e9 == pytest.approx(billions, rel=0.02)


def test_the_estimate_knows_what_grows_with_the_square_of_the_length() -> None:
    size = size_of(SHAPES["0.6b"], tied=True)

    def gib(implementation: str, length: int, work: str = "forward") -> float:
        return bytes_needed(Case(implementation, work, "packed", length), size) / 2**30

    assert gib("eager", 32768) > 80 > gib("eager", 8192)
    assert gib("sdpa", 32768) - gib("per_document", 32768) == pytest.approx(3, rel=0.1)  # a byte and a bfloat16 each
    assert gib("sdpa", 16384, "backward") - gib("varlen", 16384, "backward") > 28 * 0.4  # kept for each layer


def test_the_programme_of_a_gpu_has_what_was_promised() -> None:
    cases = [case for group in programme("cuda") for case in group.cases]
    assert len(cases) == len(set(cases)), "a case is there twice"
    assert {case.implementation for case in cases} == set(LABELS)
    for implementation in ("ours", "sdpa", "per_document", "varlen"):
        lengths = {case.length for case in cases if case.implementation == implementation and case.mask == "packed"}
        assert {512, 1024, 2048, 4096, 8192, 16384, 32768} <= lengths
    assert {case.work for case in cases} == {"forward", "backward", "decode"}
    assert {case.mask for case in cases} == {"causal", "packed", "window"}
    assert {case.batch for case in cases} >= {1, 8, 32}


def test_on_a_cpu_nothing_is_longer_than_4096() -> None:
    cases = [case for group in programme("cpu") for case in group.cases]
    assert max(case.length for case in cases) == 4096
    assert {case.dtype for case in cases} == {"float32"}
    assert len(cases) == len(set(cases))


# ------------------------------------------------------------------------------------------------ the ways agree


def logits(model: Any, case: Case) -> torch.Tensor:
    """Of all tokens, with the masks as the timed runs have them."""
    torch.manual_seed(5)  # keys and values of the decode cache
    ids = torch.randint(0, 1024, (case.batch, 1 if case.work == "decode" else case.length))
    at = implementations.positions(documents_of(case), "cpu")
    if case.work == "decode":
        implementations.attach_full_caches(model, case)
        at = at[:, -1:]
    try:
        with implementations.set_up(model, case) as make, torch.inference_mode():
            return model(ids, position_ids=at, use_cache=False, **make()).logits
    finally:
        implementations.detach_caches(model)


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("packed", ["ours", "sdpa", "per_document"]),
        ("causal", ["ours", "sdpa", "sdpa_causal", "per_document"]),
        ("window", ["ours", "sdpa"]),
    ],
)
def test_forward_gives_eagers_logits(mask: str, names: list[str], model: Any, uncompiled: None) -> None:
    length = WINDOW + 200 if mask == "window" else 150
    case = Case("eager", "forward", mask, length, batch=2, mean_document=40, dtype="float32")
    truth = logits(model, case)
    for name in names:
        off = (logits(model, replace(case, implementation=name)) - truth).abs().max().item()
        assert off < 1e-4, f"{name} is off by {off}"
    if mask != "causal":
        other = logits(model, replace(case, mask="causal"))
        assert (other - truth).abs().max() > 0.1, "the comparison would not see a wrong mask"


@pytest.mark.parametrize(("mask", "length"), [("causal", 70), ("window", WINDOW + 50)])
def test_a_decode_step_gives_eagers_logits(mask: str, length: int, model: Any, uncompiled: None) -> None:
    case = Case("eager", "decode", mask, length, batch=2, dtype="float32")
    truth = logits(model, case)
    assert truth.shape == (2, 1, 1024)
    for name in ["ours", "sdpa", *(["last_keys"] if mask == "window" else [])]:
        off = (logits(model, replace(case, implementation=name)) - truth).abs().max().item()
        assert off < 1e-4, f"{name} is off by {off}"
    if mask == "window":
        assert (logits(model, replace(case, mask="causal")) - truth).abs().max() > 1e-3


def test_the_model_has_its_attention_back(model: Any, uncompiled: None) -> None:
    before = model.config._attn_implementation
    for name in ("ours", "sdpa", "eager", "per_document"):
        logits(model, Case(name, "forward", "packed", 40, mean_document=20, dtype="float32"))
        assert model.config._attn_implementation == before


def test_parity_is_within_1e_4_for_every_kind_of_mask() -> None:
    rows: list[Any] = []
    names = ["eager", "sdpa", "per_document", "ours_eager", "ours_gather"]
    job = {
        "device": "cpu",
        "model": "tiny",
        "dtype": "float32",
        "changes": {},
        "length": 130,
        "window": 40,
        "kinds": None,
    }
    parity.compare(job | {"implementations": names}, rows.append)
    found = [row["parity"] for row in rows if "parity" in row]
    assert len(rows) == 2 * len(found), "each comparison says that it begins"
    assert len({row["mask"] for row in found}) == 6
    for row in found:
        assert "error" not in row, row
        assert row["largest_difference"] < report.NEEDED, row
        assert not row["nan_where_a_key_is_seen"]
        if row["implementation"].startswith("ours"):
            assert not row["nan_where_none_is_seen"]
    assert any(row["rows_that_see_nothing"] for row in found), "no row of padding was looked at"
    assert all(row["difference_if_the_mask_were_causal"] > 0.1 for row in found if row["mask"] != "causal")
    assert "1.0" not in report.parity_cell(found[0])  # a number, not a share
    assert "padding" in "\n".join(report.parity_table(found))


# ------------------------------------------------------------------------------------------------ rows, not crashes

JOB = {"device": "cpu", "model": "tiny", "layers": None, "matmul_rate": {"float32": 1e11}}


def test_a_measured_row_says_everything(model: Any) -> None:
    case = Case("sdpa", "forward", "packed", 96, mean_document=30, dtype="float32")
    row = child.run_case(model, case, JOB)
    assert row["status"] == "ok"
    assert row["tokens_per_second"] == pytest.approx(96 / (row["ms"] / 1e3))
    assert row["of_matmul_rate"] == pytest.approx(row["flops"] / (row["ms"] / 1e3) / 1e11)
    assert row["peak_gib"] > 0 and row["first_ms"] > 0 and row["attention_ms"] > 0
    assert row["documents"] == [3] and 0 < row["visible_fraction"] < 0.5
    assert len(row["ms_repeats"]) == 3
    json.dumps(row)


def test_flex_attention_lists_its_blocks(model: Any, uncompiled: None) -> None:
    row = child.run_case(model, Case("ours", "forward", "causal", 256, dtype="float32"), JOB)
    assert row["blocks_listed"] == {"partial": 2, "full": 1, "of": 4}


def test_backward_is_measured_where_there_is_one(model: Any) -> None:
    case = Case("per_document", "backward", "packed", 64, mean_document=20, dtype="float32")
    row = child.run_case(model, case, JOB)
    assert row["status"] == "ok" and row["attention_ms"] is None
    assert all(parameter.grad is None for parameter in model.parameters())
    for name in ("ours", "hf_flex"):
        row = child.run_case(model, replace(case, implementation=name), JOB)
        assert row == {"status": "not there", "why": "FlexAttention has no backward on a CPU"}


def test_a_case_that_does_not_fit_is_a_row(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "bytes_free", lambda device: 2**20)
    row = child.run_case(model, Case("eager", "forward", "causal", 4096, dtype="float32"), JOB)
    assert row["status"] == "does not fit" and "would take about" in row["why"] and row["estimate_gib"] > 0


def test_an_error_is_a_row_and_the_next_case_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(model: Any, case: Case, job: Any) -> Any:
        if case.length == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if case.length == 2:
            raise ValueError("no\nsuch mask")
        return {"status": "ok"}

    monkeypatch.setattr(child, "run_case", run)
    monkeypatch.setattr(models, "build", lambda *args: None)
    rows: list[Any] = []
    cases = [vars(Case("ours", "forward", "causal", length, dtype="float32")) for length in (1, 2, 3)]
    child.run_cases(JOB | {"cases": cases, "deadline": time.time() + 60}, rows.append)
    done = [row for row in rows if "status" in row]
    assert [row["status"] for row in done] == ["does not fit", "failed", "ok"]
    assert done[1]["why"] == "ValueError: no such mask"


def test_no_case_begins_after_the_deadline() -> None:
    rows: list[Any] = []
    case = vars(Case("ours", "forward", "causal", 8))
    child.run_cases(JOB | {"cases": [case], "deadline": time.time() - 1}, rows.append)
    assert rows == []


class FakeChild:
    """Does the cases of a job as a table says: a status, or how its process ends."""

    def __init__(self, job: Any, ends: dict[int, str]) -> None:
        self.job, self.ends = job, ends

    def go(self) -> None: ...

    def drop(self) -> None: ...

    def finish(self, until: float) -> tuple[list[Any], str]:
        rows = []
        for case in self.job["cases"]:
            if (how := self.ends.get(case["length"])) is not None:
                return rows, how
            rows.append({"case": case, "status": "ok"})
        return rows, ""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_case_that_ends_its_process_takes_no_other_along(device: str) -> None:
    groups = [
        Group("first", tuple(Case("eager", "forward", "causal", n) for n in (1, 2, 3))),
        Group("second", (Case("ours", "forward", "causal", 4),)),
    ]
    run = experiment.Run(device, "tiny", None, time.time() + 60)
    kept: list[int] = []
    rows = experiment.run_groups(
        run,
        groups,
        {},
        lambda job: FakeChild(job, {2: "its process ended (killed)"}),
        lambda rows: kept.append(len(rows)),
    )
    assert [(row["case"]["length"], row["status"]) for row in rows] == [(1, "ok"), (2, "failed"), (3, "ok"), (4, "ok")]
    assert "killed" in rows[1]["why"]
    assert kept == [2, 3, 4]


HANGS_AT_2 = """
import json, sys, time
for case in json.loads(sys.argv[2]):
    for row in ({"case": case, "begins": True}, {"case": case, "status": "ok"}):
        with open(sys.argv[1], "a") as file:
            file.write(json.dumps(row) + "\\n")
        time.sleep(60 if case["length"] == 2 and "begins" in row else 0)
"""


def test_a_case_that_hangs_is_killed_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hanging(experiment.Child):
        def __init__(self, job: Any) -> None:
            self.folder = tempfile.TemporaryDirectory(dir=tmp_path)
            self.answers, self.errors = (Path(self.folder.name, name) for name in ("rows", "errors"))
            command = [sys.executable, "-c", HANGS_AT_2, str(self.answers), json.dumps(job["cases"])]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    monkeypatch.setattr(experiment, "STALLED", 2)
    groups = [Group("one", tuple(Case("ours", "forward", "causal", n) for n in (1, 2, 3)))]
    rows = experiment.run_groups(experiment.Run("cpu", "tiny", None, time.time() + 60), groups, {}, Hanging)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["why"] == "it hung: killed after 2 s without a word"


def test_what_there_was_no_time_for_is_said() -> None:
    groups = [Group("one", tuple(Case("ours", "forward", "causal", n) for n in (1, 2, 3)))]
    run = experiment.Run("cpu", "tiny", None, time.time() + 60)
    rows = experiment.run_groups(run, groups, {}, lambda job: FakeChild(job, {2: "time was up"}))
    assert [row["status"] for row in rows] == ["ok", "time was up", "time was up"]


def test_a_result_of_another_machine_is_not_gone_on_with(tmp_path: Path) -> None:
    document = {"device": "cuda", "model": "0.6b", "layers": None, "versions": {"torch": "2"}, "machine": {"name": "A"}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert experiment.resumed(path, document) == document
    with pytest.raises(SystemExit, match="another machine"):
        experiment.resumed(path, document | {"machine": {"name": "B"}})
    with pytest.raises(SystemExit, match="versions"):
        experiment.resumed(path, document | {"versions": {"torch": "3"}})


@pytest.mark.slow
def test_the_whole_script_runs(tmp_path: Path) -> None:
    path = experiment.main(
        ["--quick", "--device", "cpu", "--no-parity", "--only", "per_document", "last_keys", "--output", str(tmp_path)]
    )
    document = json.loads(path.read_text())
    assert {row["status"] for row in document["rows"]} == {"ok"}
    assert document["machine"]["name"] and document["matmul"]["matmul_rate"]["float32"] > 0
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".md", ".png", ".svg"}


# ------------------------------------------------------------------------------------------------ tables and pictures


def made_up(device: str = "cuda") -> dict[str, Any]:
    """A result with every case of the programme."""
    size = size_of(SHAPES["0.6b"], tied=True)
    rows = []
    for case in (case for group in programme(device) for case in group.cases):
        row: dict[str, Any] = {"case": vars(case), "estimate_gib": 1.0}
        if case.implementation == "eager" and case.length > 16384:
            rows.append(row | {"status": "does not fit", "why": "would take about 166 GiB; there are 79"})
            continue
        ms = 20 + visible_pairs(case) / 1e6 * {"sdpa": 9.0, "eager": 30.0}.get(case.implementation, 1.0)
        told = child.on_paper(case, size)
        rows.append(
            row
            | told
            | {
                "status": "ok",
                "ms": ms,
                "ms_repeats": [ms],
                "first_ms": ms + 3000,
                "tokens_per_second": case.tokens / ms * 1e3,
                "peak_gib": 2.0,
                "peak_over_weights_gib": 0.5,
                "mask_ms": 1.0,
                "mask_peak_gib": 0.1,
                "blocks_listed": None,
                "attention_ms": 0.1,
                "of_matmul_rate": 0.3,
            }
        )
    return {
        "what": "Experiment 1: FlexAttention in Qwen3",
        "machine": {"name": "A Card"},
        "versions": {"torch": "2", "transformers": "5"},
        "model_said": "Qwen3-0.6B",
        "device": device,
        "matmul": {"matmul_rate": {"bfloat16": 7e14}, "n": 8192},
        "parity": [],
        "rows": rows,
    }


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_tables_and_pictures_are_made_of_any_result(device: str, tmp_path: Path) -> None:
    document = made_up(device)
    page = report.write_markdown(document, tmp_path / "a.md").read_text()
    for label in {LABELS[row["case"]["implementation"]] for row in document["rows"]}:
        assert label in page
    assert "times as fast as sdpa, dense mask" in page
    assert ("would take about 166 GiB" in page) == (device == "cuda")
    paths = report.draw(document, tmp_path / "a")
    assert [path.name for path in paths] == ["a.png", "a.svg", "a-more.png", "a-more.svg"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_a_result_with_nothing_in_it_can_be_drawn(tmp_path: Path) -> None:
    document = made_up() | {"rows": []}
    report.draw(document, tmp_path / "a")
    assert report.headline(document) == []


@pytest.mark.parametrize("path", sorted(RESULTS.glob("c*.json")), ids=lambda path: path.stem)
def test_a_committed_result_holds_what_it_must_show(path: Path) -> None:
    document = json.loads(path.read_text())
    assert document["machine"]["name"]
    exact = [row for row in document["parity"] if row["dtype"] == "float32" and row["length"] >= 128]
    mine = [row for row in exact if row["implementation"] == "ours"]
    assert len({row["mask"] for row in mine}) >= 5
    for row in mine:
        assert row["largest_difference"] < report.NEEDED and not row["nan_where_a_key_is_seen"]
        assert not row["nan_where_none_is_seen"]
    report.full_table(document)
    assert document["summary"] == report.summary(document), "run it with --draw"
    found = SimpleNamespace(ours=None, sdpa=None)
    for name in ("ours", "sdpa"):
        row = report.one(
            document, implementation=name, work="forward", mask="packed", length=16384, batch=1, mean_document=1024
        )
        setattr(found, name, row)
    if document["device"] == "cuda":
        assert found.sdpa["ms"] / found.ours["ms"] >= 3
