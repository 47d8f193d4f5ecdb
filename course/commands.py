"""The commands of `python -m course`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
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
    options.arguments = list(arguments)
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
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    notebooks = command("notebooks", make_notebooks, "make the stub cells of the notebooks from solutions/flexnano/")
    notebooks.add_argument("--check", action="store_true", help="write nothing; fail if something is out of step")
    notebooks.add_argument(
        "--run", nargs="*", metavar="NN", help="then run them on the reference and store what they show"
    )
    notebooks.add_argument(
        "--no-venv", action="store_true", help="use this Python for that, and leave its torch as it is"
    )
    book = command("book", make_book, "build the book into _build/html (installs what that needs)")
    book.add_argument("--pdf", action="store_true", help="also _build/pdf/book.pdf, printed by Chromium or Chrome")
    book.add_argument("--all", action="store_true", help="all pages anew, also those that have not changed")
    book.add_argument("--no-venv", action="store_true", help="use this Python, and leave its torch as it is")
    reliable = command(
        "reliability", try_reliability, "try to break engine and course, and print a table of what was tried"
    )
    reliable.add_argument("--minutes", type=float, default=2.0, help="of mixed traffic on the engine")
    reliable.add_argument("--requests", type=int, default=50_000, help="through scheduler and page table")
    reliable.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the traffic runs")
    reliable.add_argument("--all", action="store_true", help="the slow tests too")
    reliable.add_argument("--output", type=Path, metavar="DIR", help="folder of the JSON; default: benchmarks/results")
    _learner_commands(command)
    _teacher_commands(command)
    return parser


Command = Callable[[str, object, str], argparse.ArgumentParser]


def _learner_commands(command: Command) -> None:
    check = command("check", check_machine, "say whether this machine can run the course, and what to do if it can't")
    check.add_argument("--json", action="store_true", help="for programs")
    check.add_argument("--quick", action="store_true", help="do not try whether attention can be compiled")

    status = command("status", show_status, "all modules and exercises, what is next, and how much is left")
    status.add_argument("--all", action="store_true", help="list the exercises of every module")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--no-speed", action="store_true", help="do not measure tokens/s once the engine is complete")

    grade = command("grade", grade_exercises, "grade a module (3), an exercise (3.2), several, or everything")
    grade.add_argument("what", nargs="*", metavar="N", help="a module or an exercise; nothing: all that has a grader")
    grade.add_argument("--hint", type=int, choices=(1, 2, 3), default=1, help="how much a hint says")
    grade.add_argument("--report", metavar="FILE", help="write the grades to a JSON file")
    grade.add_argument("--solutions", action="store_true", help="grade the reference instead of flexnano/")
    grade.add_argument("--notebook", action="store_true", help="run the notebook of each module named as well")
    grade.add_argument("-v", "--verbose", action="store_true", help="show whole tracebacks")

    clinic = command("clinic", bug_clinic, "module 11: list the cases of the bug clinic, open one (3), grade it")
    clinic.add_argument("number", nargs="?", type=int, metavar="N", help="a case; nothing: all of them")
    clinic.add_argument("--hint", type=int, choices=(1, 2, 3), help="what to look at; where; the step in words")
    clinic.add_argument("--grade", action="store_true", help="found, proved, mended; without a number: all cases")
    clinic.add_argument("--folder", type=Path, metavar="DIR", help="where the cases lie, if not in clinic/")
    clinic.add_argument("--pack", type=Path, metavar="ZIP", help="for teachers: clinic.zip for a class release")

    catch_up = command("catch-up", catch_up_to, "put the reference into what does not pass yet, up to a module")
    catch_up.add_argument("module", type=int, metavar="N")
    catch_up.add_argument("--force", action="store_true", help="also replace files that can't be read as Python")

    reset = command("reset", reset_exercises, "put the stub back into an exercise (3.2) or a module (3)")
    reset.add_argument("what", metavar="N")

    diff = command("diff", show_diff, "your functions beside the reference's, once they pass")
    diff.add_argument("what", nargs="?", metavar="N", help="a module or an exercise; nothing: all that pass")
    diff.add_argument("--spoil", action="store_true", help="also where it does not pass yet")

    save = command("save", save_files, "save your files to .course/saved/, or as a zip")
    save.add_argument("--zip", metavar="FILE", help="as a zip, for another machine")
    restore = command("restore", restore_files, "put saved files back; those of now are saved first")
    restore.add_argument("when", nargs="?", default="", metavar="WHEN", help="the beginning of a name, or a zip")
    history = command("history", show_history, "what is saved, or the versions of one exercise (3.2)")
    history.add_argument("what", nargs="?", metavar="N")


def _teacher_commands(command: Command) -> None:
    release = command("release", make_release, "make the folder that is handed out")
    release.add_argument("folder", type=Path, metavar="DIR")
    release.add_argument(
        "--class", dest="for_class", action="store_true", help="without solutions, with catch-ups beside it"
    )
    release.add_argument("--force", action="store_true", help="replace a release that is there")

    grade_class = command("grade-class", grade_submissions, "grade a folder with one folder or zip a student")
    grade_class.add_argument("folder", type=Path, metavar="DIR")
    grade_class.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where grades.csv and grades.json go; default: DIR"
    )
    grade_class.add_argument("--modules", nargs="+", metavar="N", help="modules or exercises to grade; default: all")
    grade_class.add_argument("--seconds", type=float, default=30.0, help="patience with one check")
    grade_class.add_argument("--minutes", type=float, default=10.0, help="patience with one submission")
    grade_class.add_argument("--memory", type=float, default=2.0, metavar="GB", help="what a submission may take")
    grade_class.add_argument("--processes", type=int, default=64, help="how many processes and threads it may have")
    grade_class.add_argument("--jobs", type=int, metavar="N", help="submissions at the same time")
    grade_class.add_argument("--no-walls", action="store_true", help="limits only: do not use namespaces")
    grade_class.add_argument("--resume", action="store_true", help="keep what grades.json has of the same files")

    classroom = command("classroom", classroom_workflow, "GitHub Classroom: install the workflow, or count points")
    classroom.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a release to install the workflow in")
    classroom.add_argument(
        "--points", type=Path, metavar="REPORT", help="print the points of a report of `grade --report`"
    )


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
    pytest = [str(prepared.python), "-m", "pytest", *everything]
    paths = own_tests(ROOT)
    # Whoever asks for certain tests wants only those.  Else two cores have enough to do: the engine's tests run beside the
    # rest, and whoever is done first begins with the notebooks.
    beside: list[Job] = []
    if not options.rest and "tests/engine" in paths:
        paths.remove("tests/engine")
        beside.append(Job("Tests of the engine", [*pytest, "tests/engine"], variables_of(reference=False)))
    # --all runs the notebooks as tests, and compares.
    if not (options.all or options.rest) and (ROOT / "solutions").is_dir():
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            command = [str(prepared.python), "-m", "course.grading.notebook", str(path)]
            beside.append(Job("Notebooks", command, variables_of(reference=True)))
    named = any(argument.startswith("tests") for argument in options.rest)
    with meanwhile(beside):
        step("Tests", prepared, ["-m", "pytest", *everything, *options.rest, *([] if named else paths)])
    heading(f"All passed in {duration(time.perf_counter() - start)}")
    return 0


@dataclass
class Job:
    """A command that runs beside others; `output` and `code` are there once it has ended."""

    name: str
    command: list[str]
    variables: dict[str, str]
    output: str = ""
    code: int | None = None


@contextlib.contextmanager
def meanwhile(jobs: list[Job]) -> Iterator[None]:
    """Run jobs one after the other beside what the block does and, once that is done, two at a time; say how they went."""
    running: list[subprocess.Popen[str]] = []
    stopped = threading.Event()
    waiting = deque(jobs)

    def work() -> None:
        while not stopped.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            variables = {**job.variables, "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                job.command,
                cwd=ROOT,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            ) as process:
                running.append(process)
                job.output = process.communicate()[0]
                job.code = process.returncode

    thread = threading.Thread(target=work)
    thread.start()
    try:
        try:
            yield
        finally:
            work()
            thread.join()
    except KeyboardInterrupt:
        stopped.set()
        for process in running:
            process.kill()
        thread.join()
        raise
    finally:
        for name, same in groupby((job for job in jobs if job.code is not None), key=lambda job: job.name):
            heading(name)
            for job in same:
                say(job.output.rstrip())
    if failed := dict.fromkeys(job.name for job in jobs if job.code != 0):
        raise CourseError(f"FAILED: {', '.join(failed)} (what stands above)")


def own_tests(root: Path) -> list[str]:
    """The tests of the course itself: all but the graders, which test a learner's work."""
    folders = ("tests/engine", "tests/course", "tests/module_00")
    return [folder for folder in folders if (root / folder).is_dir()]


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


def make_notebooks(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    try:
        from . import notebooks  # type: ignore[attr-defined,unused-ignore]
    except ImportError as error:
        raise CourseError("This copy of the course has no tooling for notebooks.") from error
    code = int(notebooks.make(ROOT, check=options.check) or 0)
    if code or options.run is None:
        return code
    prepared = environment.prepare(ROOT, options.no_venv)
    return in_environment(prepared, ["-m", "course.notebooks", *options.run])


def make_book(options: argparse.Namespace) -> int:
    heading("Packages")
    prepared = environment.prepare(ROOT, options.no_venv)
    heading("Book")
    flags = [flag for flag, wanted in (("--pdf", options.pdf), ("--all", options.all)) if wanted]
    return in_environment(prepared, ["-m", "course.book", *flags])


def try_reliability(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from benchmarks import reliability

    return reliability.run(options.minutes, options.requests, options.device, options.all, options.output)


# ------------------------------------------------------------------------------------------------ for learners


def check_machine(options: argparse.Namespace) -> int:
    if (code := elsewhere(options, needed=False)) is not None:
        return code
    from . import check

    return check.show(ROOT, options.json, try_attention=not options.quick)


def show_status(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from . import status

    return status.show(ROOT, as_json=options.json, everything=options.all, with_speed=not options.no_speed)


def grade_exercises(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from .grading import command

    if options.solutions:
        os.environ["FLEXNANO"] = "solutions"
    return command.grade(
        ROOT, options.what, options.hint, options.report, verbose=options.verbose, with_notebook=options.notebook
    )


def bug_clinic(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from .clinic import command

    return command.show(ROOT, options.number, options.hint, options.grade, options.pack, options.folder)


def catch_up_to(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from . import work

    return work.say_catch_up(options.module, ROOT, options.force)


def reset_exercises(options: argparse.Namespace) -> int:
    from . import work

    return work.say_reset(options.what, ROOT)


def show_diff(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from . import work

    return work.say_diff(options.what, ROOT, options.spoil)


def save_files(options: argparse.Namespace) -> int:
    from . import work

    return work.say_save(ROOT, options.zip)


def restore_files(options: argparse.Namespace) -> int:
    from . import work

    return work.say_restore(ROOT, options.when)


def show_history(options: argparse.Namespace) -> int:
    from . import work

    return work.say_history(ROOT, options.what)


# ------------------------------------------------------------------------------------------------ for teachers


def make_release(options: argparse.Namespace) -> int:
    from . import release

    return release.show(options.folder, ROOT, options.for_class, options.force)


def grade_submissions(options: argparse.Namespace) -> int:
    if (code := elsewhere(options)) is not None:
        return code
    from . import classroom

    return classroom.show(options, ROOT)


def classroom_workflow(options: argparse.Namespace) -> int:
    from . import classroom

    return classroom.workflow(options.folder, options.points, ROOT)


# ---------------------------------------------------------------------------------------------------------- steps


def elsewhere(options: argparse.Namespace, needed: bool = True) -> int | None:
    """Run the command in .venv if it needs packages that this Python lacks.  Returns its exit code, None: go on here.

    Raises:
        CourseError: there is no .venv either, and the packages are `needed`.
    """
    if all(importlib.util.find_spec(name) is not None for name in ("torch", "psutil", "hypothesis")):
        return None
    python = environment.venv_python(ROOT / ".venv")
    if python.exists() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        variables = {**os.environ, "PYTHONUTF8": "1"}
        command = [str(python), "-m", "course", *options.arguments]
        return subprocess.run(command, cwd=ROOT, env=variables).returncode
    if needed:
        raise CourseError("The packages of the course are not installed for this Python. First: python -m course setup")
    return None


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
    there = (ROOT / "solutions" / "flexnano").is_dir()
    # A class release has no solutions to check, and what learners write there is theirs.
    step("Types: mypy", prepared, ["-m", "mypy", *([] if there else ["--follow-imports=silent", "course"])])
    if there:
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
    return subprocess.run([str(prepared.python), *arguments], cwd=ROOT, env=variables_of(reference)).returncode


def variables_of(reference: bool) -> dict[str, str]:
    """The environment of a child: Python in UTF-8, on the reference if asked for."""
    return {**os.environ, "PYTHONUTF8": "1", **({"FLEXNANO": "solutions"} if reference else {})}


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
        ("course/status.py", "See what there is to do, and how far you are:  python -m course status"),
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
