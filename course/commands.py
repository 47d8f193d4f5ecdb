"""The commands of `python -m course`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import environment
from .console import CourseError, duration, heading, say
from .environment import ROOT, Environment


def run(arguments: Sequence[str]) -> int:
    """Run one command.  Returns the exit code; what the person can mend is said in words, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # a console that lacks a letter shows `?` instead of ending the program
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"`{options.command}` does not know {' '.join(rest)}")
    options.rest = [argument for argument in rest if argument != "--"]
    try:
        return options.function(options)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course", description="The tooling of the course.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    for name, function, text in (
        ("setup", setup, "install everything into .venv, fetch the model, and watch the engine answer eight prompts"),
        ("test", test, "set up, then check style, types and stubs, and run the tests; other arguments go to pytest"),
        ("lint", lint, "set up, then check style, types and stubs"),
    ):
        sub = command(name, function, text)
        sub.add_argument("--no-venv", action="store_true", help="use this Python, and leave its torch as it is")
        if name == "setup":
            sub.add_argument("--no-demo", action="store_true", help="stop after installing and fetching")
        if name == "test":
            sub.add_argument("--all", action="store_true", help="the slow tests too")
    stubs = command("stubs", make_stubs, "make flexnano/ from solutions/flexnano/")
    stubs.add_argument("--check", action="store_true", help="write nothing; fail if something is out of step")
    stubs.add_argument("--force", action="store_true", help="write over files that somebody has worked in")
    command("model", fetch_model, "fetch the embedded model into models/ (needs the installed packages)")
    command("demo", show_demo, "let the reference engine answer eight prompts (needs the installed packages)")
    return parser


# ------------------------------------------------------------------------------------------------------- commands


def setup(options: argparse.Namespace) -> int:
    prepared = prepare(options)
    if options.no_demo:
        return 0
    if not (ROOT / "solutions" / "flexnano" / "inference.py").exists():
        say("This copy of the course has no solutions, so there is no finished engine to show.")
    else:
        heading("Eight prompts, one batch")
        if (code := in_environment(prepared, ["-m", "course", "demo"], reference=True)) != 0:
            raise CourseError(f"The engine could not answer the prompts (exit code {code}; the reason stands above).")
    heading("What next")
    say(next_steps(ROOT, prepared))
    return 0


def test(options: argparse.Namespace) -> int:
    prepared = prepare(options)
    start = time.perf_counter()
    checks(prepared)
    everything = ["--all"] if options.all else []
    step("Tests", prepared, ["-m", "pytest", *everything, *options.rest])
    heading(f"All passed in {duration(time.perf_counter() - start)}")
    return 0


def lint(options: argparse.Namespace) -> int:
    checks(prepare(options))
    return 0


def make_stubs(options: argparse.Namespace) -> int:
    from . import stubs

    return stubs.make(ROOT, check=options.check, force=options.force)


def fetch_model(_options: argparse.Namespace) -> int:
    from . import model

    say(f"The model is in {model.ensure_model()}")
    return 0


def show_demo(_options: argparse.Namespace) -> int:
    os.environ["FLEXNANO"] = "solutions"  # before anything imports flexnano: the demo shows the finished engine
    from . import demo

    return demo.main()


# ---------------------------------------------------------------------------------------------------------- steps


def prepare(options: argparse.Namespace) -> Environment:
    """Packages and model: what setup and test have in common."""
    heading("Packages")
    prepared = environment.prepare(ROOT, options.no_venv)
    heading("Model")
    if in_environment(prepared, ["-m", "course", "model"]) != 0:
        raise CourseError("The model is not there (the reason stands above). The same command goes on from here.")
    return prepared


def checks(prepared: Environment) -> None:
    step("Style: ruff check", prepared, ["-m", "ruff", "check", "."])
    step("Style: ruff format", prepared, ["-m", "ruff", "format", "--check", "."])
    step("Types: mypy", prepared, ["-m", "mypy"])
    if (ROOT / "solutions" / "flexnano").is_dir():
        step("Stubs in step with solutions", prepared, ["-m", "course", "stubs", "--check"])


def step(name: str, prepared: Environment, arguments: Sequence[str]) -> None:
    heading(name)
    start = time.perf_counter()
    code = in_environment(prepared, arguments)
    taken = duration(time.perf_counter() - start)
    if code != 0:
        raise CourseError(f"FAILED: {name} (exit code {code}, after {taken})")
    say(f"{name}: passed in {taken}")


def in_environment(prepared: Environment, arguments: Sequence[str], reference: bool = False) -> int:
    """Run Python of the course's environment in the root, on this terminal."""
    variables = {**os.environ, "PYTHONUTF8": "1"}
    if reference:
        variables["FLEXNANO"] = "solutions"
    return subprocess.run([str(prepared.python), *arguments], cwd=ROOT, env=variables).returncode


def next_steps(root: Path, prepared: Environment) -> str:
    """Three things to do now, among those that this copy of the course has."""
    activate = ""
    if prepared.own_venv is not None:
        script = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
        activate = f"First, in every new terminal:  {script}\n"
    candidates = [
        (
            "notebooks/00_first_look.ipynb",
            "Open notebooks/00_first_look.ipynb, in VS Code or Jupyter, with .venv as kernel",
        ),
        ("tests/module_01", "Fill in flexnano/masks.py, the first module, and grade it:  pytest tests/module_01"),
        ("flexnano/masks.py", "Open flexnano/masks.py: the first exercises, each with all that is needed to write it"),
        (
            "solutions/flexnano/masks.py",
            "Read the finished engine, a file a module: start with solutions/flexnano/masks.py",
        ),
        (
            "solutions/flexnano/__main__.py",
            'Ask the finished engine yourself:  python -m flexnano --solutions "Why is the sky blue?"',
        ),
    ]
    there = [text for path, text in candidates if (root / path).exists()]
    if (root / "tests/module_01").exists():
        there = [text for text in there if not text.startswith("Open flexnano/masks.py")]
    return activate + "\n".join(f"  {number}. {text}" for number, text in enumerate(there[:3], start=1))
