# Your copy of solutions/flexnano/__main__.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 4f770026ce8469a1
"""`python -m flexnano "Why is the sky blue?"`: ask a model from the command line.  A given file, not an exercise.

One prompt streams to the terminal as its tokens come.  Many run as batches with a progress bar on stderr, and their answers
go to stdout in the order of the prompts, each as soon as those before it are there.

Exit codes: 0 all answered, 1 some prompts could not be answered, 2 nothing could run, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

SOME_FAILED, NOTHING_RAN, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


class CommandError(Exception):
    """Something the person at the keyboard can mend: its text says what is wrong and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process) and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    progress = Progress()
    try:
        args = _parser().parse_intermixed_args(argv)
        if args.solutions and os.environ.get("FLEXNANO") != "solutions":
            return _run_with_solutions(argv)
        return _run(args, progress)
    except SystemExit as exit_:  # after --help
        return int(exit_.code or 0)
    except CommandError as error:
        _complain(str(error))
        return NOTHING_RAN
    except NotImplementedError as error:
        if not str(error).startswith("Exercise"):
            raise
        _complain(_unfinished(str(error)))
        return NOTHING_RAN
    except KeyboardInterrupt:
        _complain(f"interrupted; {progress.finished} of {progress.total} prompts were finished")
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # or Python complains once more when it flushes at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


@dataclasses.dataclass
class Progress:
    """How far it came, for the one who interrupts."""

    finished: int = 0
    total: int = 0


def _run(args: argparse.Namespace, progress: Progress) -> int:
    prompts = read_prompts(args)
    progress.total = len(prompts)
    params = _sampling_params(args)
    engine = open_engine(args)
    try:
        requests = _as_chat(prompts, engine.tokenizer, args.chat)
        start = time.perf_counter()
        if len(prompts) == 1 and params.n == 1 and not args.jsonl:
            results = _stream_one(engine, requests, params, progress)
        else:
            results = _answer_many(engine, prompts, requests, params, args.jsonl, progress)
        if args.stats:
            print(_stats(engine, results, time.perf_counter() - start), file=sys.stderr)
    finally:
        engine.close()
    return SOME_FAILED if any(result.error for result in results) else 0


# ------------------------------------------------------------------ what is asked


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; --help lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m flexnano",
        allow_abbrev=False,  # --solutions is looked for by its name
        description="Ask a language model, one prompt or many at once.",
        epilog='Example: python -m flexnano --solutions "Why is the sky blue?" --temperature 0.7 --seed 1 --stats',
    )
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to ask; - reads one prompt from stdin")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help='one prompt a line, or .jsonl with {"prompt": …} or {"messages": […]} a line; - reads lines from stdin',
    )
    parser.add_argument("--solutions", action="store_true", help="run the reference engine, not your own in flexnano/")
    parser.add_argument(
        "--jsonl", action="store_true", help="write one JSON object a result, in the order of the prompts"
    )
    parser.add_argument("--stats", action="store_true", help="say on stderr what the engine did, and how fast")

    chat = parser.add_mutually_exclusive_group()
    chat.add_argument("--chat", action="store_true", default=None, help="each prompt is a user's message (the default "
                      "where the tokenizer has a chat template)")  # fmt: skip
    chat.add_argument("--raw", dest="chat", action="store_false", help="each prompt is text to go on with")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", metavar="PATH_OR_NAME", help="a folder or a name on the model hub (default: the course's)"
    )
    model.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights that are no safetensors too; only from people you trust",
    )
    model.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: the best for the device")
    model.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, … (default: cuda if there is one)")

    sizes = parser.add_argument_group("engine")
    sizes.add_argument("--max-batch-size", type=int, default=16, metavar="N", help="sequences that run at once (16)")
    sizes.add_argument(
        "--max-seq-length", type=int, metavar="N", help="prompt and answer, in tokens (2048, or the model's)"
    )
    sizes.add_argument("--n-pages", type=int, metavar="N", help="pages of the cache (default: by free memory)")
    sizes.add_argument("--page-size", type=int, default=128, metavar="N", help="tokens in a page (128)")
    sizes.add_argument("--attention", choices=["compiled", "gather", "eager"], help="default: the best that works")

    extras = parser.add_argument_group("engine, homeworks")
    extras.add_argument(
        "--prefix-sharing", action="store_true", help="prompts that begin alike share pages, over time too"
    )
    extras.add_argument(
        "--sliding-window",
        type=int,
        metavar="W",
        help="a token reads W tokens; older pages are given up (default: all)",
    )
    extras.add_argument(
        "--attention-sinks", type=int, default=0, metavar="S", help="with a window: the first S tokens are read too (0)"
    )
    extras.add_argument(
        "--fuse-prefill", action="store_true", help="compute prompts in parts, in the steps in which others decode"
    )
    extras.add_argument("--prefill-chunk", type=int, default=512, metavar="N", help="tokens of such a step (512)")

    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--max-new-tokens", type=int, metavar="N", help="length of an answer at most (64)")
    sampling.add_argument("--temperature", type=float, metavar="T", help="0 takes the most likely token (0)")
    sampling.add_argument("--top-k", type=int, metavar="K", help="sample among the K most likely tokens (0: all)")
    sampling.add_argument("--top-p", type=float, metavar="P", help="… among those that have probability P together (1)")
    sampling.add_argument("--min-p", type=float, metavar="P", help="… among those at least P times the most likely (0)")
    sampling.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    sampling.add_argument("--samples", dest="n", type=int, metavar="N", help="answers to each prompt (1)")
    sampling.add_argument("--stop", action="append", metavar="TEXT", help="end where this text begins; may be repeated")
    sampling.add_argument(
        "--stop-id", action="append", type=int, metavar="ID", help="end at this token; may be repeated"
    )
    sampling.add_argument("--ignore-eos", action="store_true", help="go on after the end of the answer")
    sampling.add_argument(
        "--logprobs", type=int, metavar="K", help="log-probabilities of the K most likely, with --jsonl"
    )
    return parser


def read_prompts(args: argparse.Namespace) -> list[Any]:
    """The prompts in order: those of the command line, then those of the file.  Strings, or lists of chat messages."""
    prompts: list[Any] = [_stdin() if prompt == "-" else prompt for prompt in args.prompts]
    if args.file == "-":
        prompts += [line for line in _stdin().splitlines() if line.strip()]
    elif args.file is not None:
        prompts += _from_file(Path(args.file).expanduser())
    if not prompts:
        where = f"{args.file} is empty" if args.file else "nothing was asked"
        raise CommandError(f'{where}; give a prompt, such as  python -m flexnano "Why is the sky blue?"')
    return prompts


def _stdin() -> str:
    text = sys.stdin.read().strip("\n")
    if not text:
        raise CommandError("stdin is empty, but - means that the prompt comes from there")
    return text


def _from_file(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
        ) from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix.lower() != ".jsonl":
        return [line for _, line in numbered]
    return [_from_json(line, f"{path}, line {number}") for number, line in numbered]


def _from_json(line: str, where: str) -> Any:
    try:
        asked = json.loads(line)
    except json.JSONDecodeError as error:
        raise CommandError(f"{where} is not JSON: {error.msg} at column {error.colno}") from error
    if isinstance(asked, dict) and isinstance(asked.get("prompt"), str):
        return asked["prompt"]
    if isinstance(asked, dict) and isinstance(asked.get("messages"), list):
        return asked["messages"]
    raise CommandError(f'{where} has neither {{"prompt": "text"}} nor {{"messages": [{{"role": …, "content": …}}]}}')


def _sampling_params(args: argparse.Namespace) -> Any:
    sampling_params = _from_package("SamplingParams")
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "logprobs", "n")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.logprobs is not None and not args.jsonl:
        raise CommandError("--logprobs are written only with --jsonl")
    stops = [*(args.stop or []), *(args.stop_id or [])]
    try:
        return sampling_params(**given, stop=stops, ignore_eos=args.ignore_eos)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _as_chat(prompts: list[Any], tokenizer: Any, chat: bool | None) -> list[Any]:
    """Put texts into chat messages: if asked to, or if the tokenizer knows how and nobody said otherwise."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if not has_template and (chat or not all(isinstance(prompt, str) for prompt in prompts)):
        raise CommandError("the tokenizer of this model has no chat template; use --raw and plain prompts")
    if chat is False or not has_template:
        return prompts
    return [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]


# ------------------------------------------------------------------ the engine


def open_engine(args: argparse.Namespace) -> Any:
    """Load the model and put the engine around it."""
    inference = _from_package("Inference")
    import torch
    from huggingface_hub.utils import logging as hub_logging
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    for log in (logging, hub_logging):  # without a network the hub's client would announce each of its five attempts
        log.set_verbosity_error()
    logging.disable_progress_bar()
    device = _device(args.device)
    dtype = getattr(torch, args.dtype) if args.dtype else _best_dtype(device)
    source = _model_source(args.model)
    # Code that comes with a model is not run, and nobody is asked whether it should be.
    own: dict[str, Any] = {"trust_remote_code": False}
    try:
        AutoConfig.from_pretrained(source, **own)  # the first to say that the model brings code
        tokenizer = AutoTokenizer.from_pretrained(source, **own)
        placed = {} if device.type == "cpu" else {"device_map": {"": device}}
        formats = None if args.allow_pickle else True  # None: whatever is there
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=formats, **placed, **own
        ).eval()
    except (OSError, ValueError, ImportError, pickle.UnpicklingError) as error:
        raise CommandError(f"cannot load the model {source}: {_why_not(error, args.allow_pickle)}") from error
    except RuntimeError as error:
        raise CommandError(f"cannot load the model {source} onto {device}: {_first_line(error)}") from error

    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    try:
        return inference(
            model,
            tokenizer,
            max_batch_size=args.max_batch_size,
            max_seq_length=min(2048, longest) if args.max_seq_length is None else args.max_seq_length,
            n_pages=args.n_pages,
            page_size=args.page_size,
            attention=args.attention,
            prefix_sharing=args.prefix_sharing,
            sliding_window=args.sliding_window,
            attention_sinks=args.attention_sinks,
            fuse_prefill=args.fuse_prefill,
            prefill_chunk=args.prefill_chunk,
        )
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise CommandError(f"the cache does not fit on {device}; give fewer --n-pages: {_first_line(error)}") from error


def _why_not(error: Exception, allow_pickle: bool) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own, which is not run here; only models that transformers knows can be used"
    if "safetensors" in str(error) and not allow_pickle:
        return f"{_first_line(error).rstrip('.')}; weights in another format are read only with --allow-pickle"
    return _first_line(error)


def _from_package(name: str) -> Any:
    """A name of flexnano.  Looked up only now: `--help` needs no torch, and an unfinished package can still say so."""
    import flexnano

    try:
        return getattr(flexnano, name)
    except (AttributeError, ImportError) as error:
        raise CommandError(_unfinished(f"{name}: {_first_line(error)}")) from error


def _device(name: str | None) -> Any:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CommandError(f"device {name!r} cannot be used: {_first_line(error)}") from error
    return device


def _best_dtype(device: Any) -> Any:
    import torch

    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _model_source(model: str | None) -> str:
    """A folder or a name on the hub."""
    if model is not None:
        path = Path(model).expanduser()
        looks_local = path.is_absolute() or model.startswith((".", "~")) or len(path.parts) > 2
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise CommandError(f"{model} is a folder without config.json, so no model of transformers")
            return str(path)
        if looks_local or path.exists():
            raise CommandError(f"there is no folder {model}; give the folder of a model, or its name on the model hub")
        return model
    try:
        from course.model import ensure_model
    except ImportError as error:
        raise CommandError(
            "the course's own model needs the course's checkout; give another one with --model"
        ) from error
    from course.console import CourseError

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what is fetched is not an answer
            return str(ensure_model())
    except CourseError as error:
        raise CommandError(str(error)) from error


# ------------------------------------------------------------------ answers


def _stream_one(engine: Any, requests: list[Any], params: Any, progress: Progress) -> list[Any]:
    results = []
    written = ""
    try:
        with contextlib.closing(engine.stream(requests, params)) as events:
            for event in events:
                written += event.text
                print(event.text, end="", flush=True)
                if event.result is not None:
                    results.append(event.result)
                    progress.finished += 1
    finally:
        if written and not written.endswith("\n"):
            print(flush=True)
    _report_errors([results])
    return results


def _answer_many(
    engine: Any, prompts: list[Any], requests: list[Any], params: Any, as_json: bool, progress: Progress
) -> list[Any]:
    from tqdm import tqdm

    results: list[list[Any]] = [[None] * params.n for _ in prompts]  # by prompt, then by sample
    n_shown = n_tokens = 0
    bar = tqdm(total=len(prompts), unit="prompt", file=sys.stderr, disable=None, dynamic_ncols=True)
    with bar, contextlib.closing(engine.stream(requests, params)) as events:
        for event in events:
            n_tokens += event.token_id is not None
            if event.result is None:
                continue
            results[event.index][event.sample] = event.result
            if None in results[event.index]:
                continue
            progress.finished += 1
            bar.update()
            bar.set_postfix_str(
                f"{n_tokens / max(bar.format_dict['elapsed'], 1e-9):.1f} tokens/s" if not bar.disable else ""
            )
            while n_shown < len(results) and None not in results[n_shown]:
                index, n_shown = n_shown, n_shown + 1
                show = _as_json if as_json else _as_text
                with bar.external_write_mode(file=sys.stdout):
                    print(show(index, prompts[index], results[index]), flush=True)
    _report_errors(results)
    return [result for samples in results for result in samples]


def _as_text(index: int, prompt: Any, samples: list[Any]) -> str:
    question = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "") if prompt else "")
    question = " ".join(question.split())
    answers = [result.text.strip() for result in samples]
    if len(answers) > 1:
        answers = [f"({number}) {answer}" for number, answer in enumerate(answers, start=1)]
    return "\n".join([f"[{index + 1}] {question if len(question) <= 100 else question[:99] + '…'}", *answers, ""])


def _as_json(index: int, prompt: Any, samples: list[Any]) -> str:
    """A line for each sample."""
    lines = []
    for number, result in enumerate(samples):
        fields = dataclasses.asdict(result)
        del fields["request_id"], fields["samples"]
        if fields["logprobs"] is not None:  # JSON knows no minus infinity
            fields["logprobs"] = [
                {i: p if math.isfinite(p) else None for i, p in row.items()} for row in fields["logprobs"]
            ]
        row = {"index": index, "sample": number, "prompt": prompt, **fields}
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
    return "\n".join(lines)


def _report_errors(results: list[list[Any]]) -> None:
    """One line a prompt, or a sample if there are several; a prompt that was refused has no samples."""
    for index, samples in enumerate(results):
        for number, result in enumerate(samples):
            refused = result.finish_reason == "refused"
            if result.error and not (refused and number):
                which = f", sample {number + 1}" if len(samples) > 1 and not refused else ""
                _complain(f"prompt {index + 1}{which} {result.finish_reason}: {result.error}")


def _stats(engine: Any, results: list[Any], seconds: float) -> str:
    stats = engine.stats
    n_tokens = sum(len(result.token_ids) for result in results)
    prefilled = stats.prefill_tokens + stats.padded_tokens
    lines = [
        engine.describe(),
        f"output     {n_tokens} tokens in {seconds:.2f} s, {n_tokens / seconds:.1f} tokens/s",
        f"steps      {stats.steps}: {stats.prefill_steps} prefill, {stats.decode_steps} decode",
        f"prefill    {stats.prefill_tokens} tokens and {stats.padded_tokens} of padding "
        f"({stats.padded_tokens / max(prefilled, 1):.0%})",
        f"preempted  {stats.preemptions} times",
    ]
    if (cached := sum(result.metrics.cached_tokens for result in results)) > 0:
        lines.append(f"shared     {cached} tokens of prompts were in pages already")
    waits = sorted(r.metrics.time_to_first_token for r in results if r.metrics.time_to_first_token is not None)
    if waits:
        p95 = waits[math.ceil(0.95 * len(waits)) - 1]
        lines.append(f"first token after {statistics.median(waits):.2f} s (median), {p95:.2f} s (95th percentile)")
    return "\n".join(lines)


# ------------------------------------------------------------------ the reference, and messages


def _run_with_solutions(argv: list[str]) -> int:
    """Start the same command once more with the reference: where code is imported from is decided when Python starts."""
    if _solutions_folder() is None:
        raise CommandError("--solutions: this copy of the course has no solutions")
    end = argv.index("--") if "--" in argv else len(argv)  # what follows -- is a prompt, whatever it looks like
    rest = [arg for arg in argv[:end] if arg != "--solutions"] + argv[end:]
    child = subprocess.Popen([sys.executable, "-m", "flexnano", *rest], env={**os.environ, "FLEXNANO": "solutions"})
    while True:
        try:
            code = child.wait()
            return code if code >= 0 else 128 - code  # as a shell says that a signal ended it
        except KeyboardInterrupt:
            continue  # the child has got it as well, and says how far it came


def _solutions_folder() -> Path | None:
    here = Path(__file__).resolve().parent
    folders = (root / "solutions" / "flexnano" for root in (here.parent, here.parent.parent))
    return next((folder for folder in folders if (folder / "__init__.py").is_file()), None)


def _unfinished(what: str) -> str:
    advice = "; run with --solutions to use the reference" if _solutions_folder() else ""
    return f"{what.rstrip('.')}: not written yet{advice}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _complain(text: str) -> None:
    print(f"flexnano: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
