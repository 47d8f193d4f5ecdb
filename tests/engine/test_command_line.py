"""`python -m flexnano`: what it reads, what it writes where, and that trouble ends in one clear line and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest

from flexnano import EngineStats, Inference, Metrics, Result, SamplingParams, TokenEvent
from flexnano.extras import Extras

command = importlib.import_module("flexnano.__main__")
ROOT = Path(__file__).resolve().parents[2]


class FakeEngine:
    """Answers each prompt in upper case, two characters a token; the last prompt is finished first."""

    def __init__(self, chat_template: str | None = "yes", error_at: int = -1, interrupt_after: int = -1) -> None:
        self.tokenizer = SimpleNamespace(chat_template=chat_template)
        self.stats = EngineStats(
            steps=5, prefill_steps=2, decode_steps=3, prefill_tokens=30, padded_tokens=10, preemptions=4
        )
        self.error_at, self.interrupt_after = error_at, interrupt_after
        self.requests: list[Any] = []
        self.params: SamplingParams | None = None
        self.closed = False

    def stream(self, prompts: list[Any], params: SamplingParams) -> Iterator[TokenEvent]:
        self.requests, self.params = prompts, params
        for n, index in enumerate(reversed(range(len(prompts)))):
            if n == self.interrupt_after:
                raise KeyboardInterrupt
            if index == self.error_at:
                yield TokenEvent(-1, index, None, "", "refused", Result.refused("the prompt is empty"))
                continue
            prompt = prompts[index]
            text = (prompt if isinstance(prompt, str) else prompt[-1]["content"]).upper()
            pieces = [text[i : i + 2] for i in range(0, len(text), 2)]
            metrics = Metrics(3, len(pieces), 0.5 + index, [0.1] * (len(pieces) - 1), 1.0, 0)
            logprobs = [{7: -0.5, 8: -float("inf")}] if params.logprobs is not None else None
            result = Result(index, [1, 2, 3], text, list(range(len(pieces))), "stop", None, logprobs, metrics)
            for sample in reversed(range(params.n)):
                for i, piece in enumerate(pieces):
                    last = i == len(pieces) - 1
                    one = dataclasses.replace(result, text=text + "!" * sample) if last else None
                    yield TokenEvent(index, index, i, piece, "stop" if last else None, one, sample)

    def describe(self) -> str:
        return "a fake engine"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return use(monkeypatch, FakeEngine())


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeEngine) -> FakeEngine:
    monkeypatch.setattr(command, "open_engine", lambda args: fake)
    return fake


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# -- answers


def test_one_prompt_streams_as_it_comes(engine: FakeEngine, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    shown_at: list[str] = []
    stream = engine.stream

    def spied(prompts: list[Any], params: SamplingParams) -> Iterator[TokenEvent]:
        for event in stream(prompts, params):
            yield event
            shown_at.append(capsys.readouterr().out)  # what was on the terminal before the next token was asked for

    monkeypatch.setattr(engine, "stream", spied)
    assert command.main(["hello"]) == 0
    assert shown_at == ["HE", "LL", "O"], "each piece must be shown before the next token is computed"
    assert capsys.readouterr().out == "\n" and engine.closed


def test_many_answers_come_in_the_order_of_the_prompts(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["first", "second", "third"]) == 0
    out = capsys.readouterr().out
    assert out == "[1] first\nFIRST\n\n[2] second\nSECOND\n\n[3] third\nTHIRD\n\n"


def test_jsonl_is_one_object_a_result_in_order(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["é", "日本", "--jsonl", "--logprobs", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["index"], row["prompt"], row["text"]) for row in rows] == [(0, "é", "É"), (1, "日本", "日本")]
    assert rows[0]["finish_reason"] == "stop" and rows[0]["metrics"]["output_tokens"] == 1
    assert rows[0]["logprobs"] == [{"7": -0.5, "8": None}], "JSON has no minus infinity"


def test_one_prompt_as_jsonl_is_an_object_too(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["hello", "--jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "HELLO"


def test_stats_go_to_stderr_and_leave_the_answer_alone(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    assert command.main([*(str(i) for i in range(20)), "--stats"]) == 0
    out, err = capsys.readouterr()
    assert "tokens/s" not in out
    for part in (
        "a fake engine",
        "20 tokens in",
        "5: 2 prefill, 3 decode",
        "10 of padding (25%)",
        "preempted  4 times",
    ):
        assert part in err, part
    assert "10.00 s (median), 18.50 s (95th percentile)" in err, "first tokens came after 0.5, 1.5, … 19.5 s"


def test_a_refused_prompt_is_reported_and_the_others_are_answered(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    use(monkeypatch, FakeEngine(error_at=1))
    assert command.main(["a", "b", "c"]) == command.SOME_FAILED
    out, err = capsys.readouterr()
    assert "[1] a\nA" in out and "[3] c\nC" in out
    assert "prompt 2 refused: the prompt is empty" in err


def test_several_answers_to_a_prompt_stand_together_in_order(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    """Also to one prompt alone: the pieces of several answers in turn are no text to read."""
    assert command.main(["first", "second", "--samples", "2"]) == 0
    out = capsys.readouterr().out
    assert out == "[1] first\n(1) FIRST\n(2) FIRST!\n\n[2] second\n(1) SECOND\n(2) SECOND!\n\n"
    assert command.main(["only", "--samples", "3"]) == 0
    assert capsys.readouterr().out == "[1] only\n(1) ONLY\n(2) ONLY!\n(3) ONLY!!\n\n"
    assert engine.params == SamplingParams(n=3)


def test_jsonl_has_a_line_for_each_sample(engine: FakeEngine, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["a", "b", "--samples", "2", "--jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["index"], row["sample"], row["text"]) for row in rows] == [
        (0, 0, "A"), (0, 1, "A!"), (1, 0, "B"), (1, 1, "B!"),
    ]  # fmt: skip
    assert not any("samples" in row for row in rows), "each line is one answer"


def test_a_refused_prompt_is_reported_once_however_many_samples_it_was_to_have(
    monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    class Refusing(FakeEngine):
        def stream(self, prompts: list[Any], params: SamplingParams) -> Iterator[TokenEvent]:
            for event in super().stream(prompts, params):
                if event.finish_reason == "refused":  # as the engine does: an event for each sample
                    for sample in range(params.n):
                        yield dataclasses.replace(event, sample=sample)
                else:
                    yield event

    use(monkeypatch, Refusing(error_at=1))
    assert command.main(["a", "b", "--samples", "2"]) == command.SOME_FAILED
    out, err = capsys.readouterr()
    assert "[1] a\n(1) A\n(2) A!" in out
    assert [line for line in err.splitlines() if "refused" in line] == [
        "flexnano: prompt 2 refused: the prompt is empty"
    ]


# -- what is asked


def test_prompts_are_chat_messages_where_the_tokenizer_has_a_template(
    monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    for template, flags, expected in (
        ("yes", [], user("a")),
        ("yes", ["--chat"], user("a")),
        ("yes", ["--raw"], "a"),
        (None, [], "a"),
        (None, ["--raw"], "a"),
    ):
        engine = use(monkeypatch, FakeEngine(chat_template=template))
        assert command.main(["a", *flags]) == 0
        assert engine.requests == [expected], (template, flags)
    use(monkeypatch, FakeEngine(chat_template=None))
    assert command.main(["a", "--chat"]) == 2
    assert "no chat template; use --raw" in capsys.readouterr().err


def test_a_file_holds_one_prompt_a_line(engine: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffeins\r\n\n  zwei  \n".encode())
    assert command.main(["null", "--file", str(file), "--raw"]) == 0
    assert engine.requests == ["null", "eins", "  zwei  "]


def test_a_jsonl_file_holds_prompts_and_messages(engine: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    messages = [{"role": "system", "content": "Be brief."}, *user("hi")]
    file.write_text(
        json.dumps({"prompt": "a\nb"}) + "\n\n" + json.dumps({"messages": messages}) + "\n", encoding="utf-8"
    )
    assert command.main(["--file", str(file)]) == 0
    assert engine.requests == [user("a\nb"), messages]


@pytest.mark.parametrize("line", ["{", '{"text": "a"}', '{"prompt": 5}', "[]", '"a"', '{"messages": "a"}'])
def test_a_bad_line_of_a_file_is_named(
    line: str, engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "good"}\n' + line + "\n", encoding="utf-8")
    assert command.main(["--file", str(file)]) == 2
    assert f"{file}, line 2" in capsys.readouterr().err


def test_a_dash_reads_one_prompt_from_stdin_and_as_a_file_one_a_line(engine: FakeEngine, monkeypatch) -> None:
    for arguments, expected in ((["-"], ["one\ntwo"]), (["--file", "-"], ["one", "two"])):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(read=lambda: "one\ntwo\n"))
        assert command.main([*arguments, "--raw"]) == 0
        assert engine.requests == expected


def test_prompts_may_stand_before_between_and_after_options(engine: FakeEngine) -> None:
    assert command.main(["a", "--top-k", "3", "b", "--raw", "--", "-c", "--solutions"]) == 0
    assert engine.requests == ["a", "b", "-c", "--solutions"]


def test_sampling_options_reach_the_engine(engine: FakeEngine) -> None:
    numbers = "--max-new-tokens 5 --temperature 0.5 --top-k 9 --top-p 0.8 --min-p 0.1 --seed 0"
    assert (
        command.main(["a", *numbers.split(), *["--stop", "END", "--stop-id", "7", "--ignore-eos", "--stop"], "\n"]) == 0
    )
    assert engine.params == SamplingParams(5, 0.5, 9, 0.8, 0.1, 0, ("END", "\n", 7), True)
    assert command.main(["a"]) == 0
    assert engine.params == SamplingParams(), "what is not given must keep its default"


def test_the_options_of_the_homeworks_reach_the_engine(
    monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A whole run on a tiny model: what is shared, what the window is, and that the answers are the engine's own."""
    families.FAMILIES["llama"]().save_pretrained(tmp_path)
    families.TinyTokenizer().save_pretrained(tmp_path)
    made: list[Inference] = []

    class Spied(Inference):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr("flexnano.Inference", Spied, raising=False)
    prompt = " ".join(f"w{i}" for i in families.random_prompt(40, seed=1))
    sizes = "--page-size 16 --n-pages 64 --max-seq-length 96 --max-new-tokens 8 --attention gather --raw --device cpu"
    ours = "--prefix-sharing --sliding-window 24 --attention-sinks 4 --fuse-prefill --prefill-chunk 32"
    sampled = "--samples 3 --temperature 1 --seed 5 --jsonl --stats"
    assert command.main([prompt, "--model", str(tmp_path), *f"{sizes} {ours} {sampled}".split()]) == 0
    out, err = capsys.readouterr()
    assert made[0].extras == Extras(True, 24, 4, True, 32) and made[0].closed
    for part in (
        "options    prefix sharing; a window of 24 and 4 sinks, which changes the model",
        "prompts beside decodes, 32 tokens a step",
    ):
        assert part in err, part
    rows = [json.loads(line) for line in out.splitlines()]
    assert len({tuple(row["token_ids"]) for row in rows}) == 3, "three samples of one prompt, each with a seed"
    cached = sum(row["metrics"]["cached_tokens"] for row in rows)
    assert cached >= 2 * 32 and f"shared     {cached} tokens" in err
    params = SamplingParams(8, 1.0, seed=5, n=3)
    options = dict(page_size=16, n_pages=64, max_seq_length=96, attention="gather")
    with Inference(families.FAMILIES["llama"](), None, sliding_window=24, attention_sinks=4, **options) as alone:
        (result,) = alone.generate([families.TinyTokenizer()(prompt)["input_ids"]], params)
    assert [row["token_ids"] for row in rows] == [one.token_ids for one in result.samples]


def test_without_options_no_homework_is_asked_for(monkeypatch, tmp_path: Path) -> None:
    families.FAMILIES["llama"]().save_pretrained(tmp_path)
    families.TinyTokenizer().save_pretrained(tmp_path)
    args = command._parser().parse_args(["a", "--model", str(tmp_path), "--device", "cpu", "--n-pages", "4"])
    with command.open_engine(args) as engine:
        assert not engine.extras.any and engine.planner is None


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--sliding-window", "0"], "sliding_window is 0"),
        (["--attention-sinks", "4"], "without a sliding_window"),
        (["--prefill-chunk", "0"], "prefill_chunk"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(
    option: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    families.FAMILIES["llama"]().save_pretrained(tmp_path)
    families.TinyTokenizer().save_pretrained(tmp_path)
    assert command.main(["a", "--model", str(tmp_path), "--device", "cpu", "--n-pages", "4", *option]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1, err


# -- trouble


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a prompt"),
        (["a", "--top-p", "2"], "top_p is 2.0"),
        (["a", "--temperature", "nan"], "temperature is nan"),
        (["a", "--seed", "x"], "--seed"),
        (["a", "--nonsense"], "--nonsense"),
        (["a", "--stop", ""], "empty string"),
        (["a", "--logprobs", "3"], "--jsonl"),
        (["a", "--samples", "0"], "n is 0"),
        (["a", "--samples", "two"], "--samples"),
        (["a", "--sliding-window", "wide"], "--sliding-window"),
        (["--file", "no/such/file"], "cannot read"),
        (["a", "--chat", "--raw"], "not allowed with"),
    ],
)
def test_a_bad_value_ends_in_one_clear_line(
    arguments: list[str], said: str, engine: FakeEngine, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "./no/such/model"], "there is no folder"),
        (["--model", "TMP"], "without config.json"),
        (["--model", "BROKEN"], "cannot load the model"),
        (["--device", "nonsense"], "device 'nonsense' cannot be used"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_in_one_clear_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    places = {"TMP": str(tmp_path), "BROKEN": str(tmp_path / "broken")}
    assert command.main(["a", *(places.get(argument, argument) for argument in arguments)]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1, err


def test_an_interrupt_says_how_far_it_came(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    engine = use(monkeypatch, FakeEngine(interrupt_after=2))
    assert command.main(["a", "b", "c"]) == 130
    assert "2 of 3 prompts were finished" in capsys.readouterr().err and engine.closed


def test_an_exercise_that_is_not_written_is_named(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    def unfinished(args: argparse.Namespace) -> None:
        raise NotImplementedError("Exercise 3.2: PageTable.reserve")

    monkeypatch.setattr(command, "open_engine", unfinished)
    assert command.main(["a"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Exercise 3.2: PageTable.reserve" in line and "--solutions" in line


def test_other_things_not_implemented_keep_their_traceback(monkeypatch) -> None:
    def broken(args: argparse.Namespace) -> None:
        raise NotImplementedError("aten::something on this device")

    monkeypatch.setattr(command, "open_engine", broken)
    with pytest.raises(NotImplementedError):
        command.main(["a"])


# -- as a process


def run(*arguments: str, flexnano: str | None = "solutions", **options: Any) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("FLEXNANO", None)
    if flexnano:
        environment["FLEXNANO"] = flexnano
    return subprocess.run(
        [sys.executable, "-m", "flexnano", *arguments],
        cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120, **options,
    )  # fmt: skip


def test_help_needs_no_torch() -> None:
    shown = run("--help")
    assert shown.returncode == 0 and "--max-batch-size" in shown.stdout
    code = "import sys, flexnano.__main__ as m; m.main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr


def test_solutions_starts_the_reference_and_passes_its_exit_code_on(monkeypatch) -> None:
    """A bad value, told by the child: `--solutions` is not passed on, all else is, a prompt that looks like it as well."""
    started: list[Any] = []

    class Child:
        def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
            started.append((arguments[1:], env["FLEXNANO"]))

        def wait(self) -> int:
            if len(started) == 1:
                started.append("interrupted once")
                raise KeyboardInterrupt
            return 7

    monkeypatch.setattr(subprocess, "Popen", Child)
    monkeypatch.delenv("FLEXNANO", raising=False)
    assert command.main(["a", "--solutions", "--top-k", "3", "--", "--solutions"]) == 7
    assert started[0] == (["-m", "flexnano", "a", "--top-k", "3", "--", "--solutions"], "solutions")


def test_solutions_works_from_the_students_package() -> None:
    done = run("--solutions", "hello", "--top-p", "3", flexnano=None)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        "flexnano: top_p is 3.0, but must be above 0 and at most 1; use 1.0 to switch it off"
    ], done.stderr


def test_a_closed_pipe_is_quiet() -> None:
    code = (
        "import os, sys, flexnano.__main__ as m\n"
        "sys.path.insert(0, sys.argv[1]); from test_command_line import FakeEngine\n"
        "m.open_engine = lambda args: FakeEngine()\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.exit(m.main(['x' * 100] * 50))"
    )
    environment = {**os.environ, "FLEXNANO": "solutions"}
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == command.PIPE_CLOSED and done.stderr == "", done.stderr
