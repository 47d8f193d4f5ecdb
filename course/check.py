"""`python -m course check`: can the course be worked on this machine, and what to do where it can't.

Starts on a bare Python.  What needs torch runs in a child process, so that a torch that crashes or hangs is a finding too.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .console import paint, say, size, width
from .environment import ROOT, in_colab
from .model import NAME, WHEEL_BYTES, is_complete

Level = Literal["ok", "note", "problem"]
SECONDS = 240.0  # patience with the child: a trial compilation on a busy machine
OLDEST, TOO_NEW = (3, 11), (3, 14)
SETUP = "python -m course setup --no-demo"
ON_A_T4 = (
    "FlexAttention does not compile on it: modules 01 and 02 run eagerly at small sizes, 06 by gathering, 02 and 07 show "
    "recorded results. An L4 or A100 runs everything"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    level: "ok"; "note": works, with something to know; "problem": the course can't be worked like this.
    """

    name: str
    level: Level
    found: str
    do: str = ""  # what to do about it, if anything


def look(root: Path = ROOT, try_attention: bool = True) -> list[Finding]:
    """Everything that matters, in the order in which to mend it.

    Args:
        try_attention: also find out which attention path works, which takes a child process and some seconds.
    """
    findings = [python(), *packages(root)]
    if all(one.level != "problem" for one in findings):
        findings += from_child(ask_child(root, try_attention), root, try_attention)
    return [*findings, compiler(), disk(root), memory(), model(root), own_package(root)]


def works(findings: Sequence[Finding]) -> bool:
    """Whether the course can be worked on this machine."""
    return all(one.level != "problem" for one in findings)


# --------------------------------------------------------------------------------------------- what needs no package


def python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        return Finding("Python", "problem", found, "The course needs 3.11, 3.12 or 3.13: make course PYTHON=python3.12")
    return Finding("Python", "ok", found)


def packages(root: Path) -> list[Finding]:
    """The packages of requirements.txt: torch and transformers by name, the others together."""
    wanted = requirements(root)
    found: list[Finding] = []
    missing, old, fine = [], [], []
    for name, oldest in wanted.items():
        try:
            version: str | None = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        too_old = version is not None and numbers(version) < numbers(oldest)
        if name in ("torch", "transformers"):
            if version is None:
                found.append(Finding(name, "problem", "not installed", f"{SETUP} installs it"))
            elif too_old:
                found.append(
                    Finding(name, "problem", f"{version}, and {oldest} is needed", f"{SETUP} brings it up to date")
                )
            else:
                found.append(Finding(name, "ok", version))
        elif version is None:
            missing.append(name)
        elif too_old:
            old.append(f"{name} {version} (needs {oldest})")
        else:
            fine.append(name)
    if missing or old:
        found.append(Finding("packages", "problem", "missing: " + ", ".join(missing + old), f"{SETUP} installs them"))
    elif fine:
        found.append(Finding("packages", "ok", ", ".join(fine)))
    return found


def requirements(root: Path) -> dict[str, str]:
    """Names and oldest versions in requirements.txt."""
    path = root / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ["torch>=2.11", "transformers>=5.15"]
    matches = (re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def numbers(version: str) -> tuple[int, ...]:
    """
    >>> numbers("2.11.0+cu128") < numbers("2.13"), numbers("5.15.0.dev0") >= numbers("5.15")
    (True, True)
    """
    release = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in release[0].split(".")] if release else []
    return tuple(([*parts, 0, 0, 0])[:3])


def compiler() -> Finding:
    """What torch.compile needs on a CPU."""
    names = [os.environ.get("CXX", ""), *(("cl",) if os.name == "nt" else ("g++", "c++", "clang++"))]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is not None:
        return Finding("C++ compiler", "ok", found)
    how = {
        "Linux": "on Debian and Ubuntu: sudo apt install g++",
        "Darwin": "xcode-select --install",
        "Windows": "the Build Tools for Visual Studio bring one",
    }.get(platform.system(), "")
    return Finding(
        "C++ compiler",
        "note",
        "none",
        "Only torch.compile on the CPU needs one; without it attention gathers pages, and everything works. To have it: "
        + how,
    )


def disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    if not os.access(root, os.W_OK):
        return Finding("disk", "problem", f"{root} can't be written to", "Copy the course to a folder of your own")
    if free < 200_000_000:
        return Finding("disk", "problem", f"{size(free)} free", "Free some: `python -m pip cache purge` helps")
    if free < 1_000_000_000:
        return Finding("disk", "note", f"{size(free)} free", "The model and compiled kernels take up to 1 GB")
    return Finding("disk", "ok", f"{size(free)} free")


def memory() -> Finding:
    """What is free of the machine's memory."""
    total = available = 0
    try:
        import psutil

        total, available = psutil.virtual_memory().total, psutil.virtual_memory().available
    except ImportError:
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            page = os.sysconf("SC_PAGE_SIZE")
            total, available = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    if not total:
        return Finding("memory", "note", "unknown", "4 GB are enough for everything on the CPU")
    found = f"{size(available)} of {size(total)} free"
    if total < 1_900_000_000:
        return Finding(
            "memory", "problem", found, "torch and the small model need about 2 GB: use Colab, or a larger machine"
        )
    if available < 2_000_000_000:
        return Finding("memory", "note", found, "Close other programs before the notebooks: they take about 2 GB")
    return Finding("memory", "ok", found)


def model(root: Path) -> Finding:
    folder = root / "models" / NAME
    if is_complete(folder):
        return Finding("model", "ok", str(folder.relative_to(root)))
    return Finding(
        "model",
        "note",
        f"{NAME} is not there",
        f"{SETUP} fetches it ({size(WHEEL_BYTES)}, once). Exercises and grading work without it",
    )


def own_package(root: Path) -> Finding:
    """Whether `import flexnano` finds the learner's package from anywhere, as notebooks need."""
    if not (root / "flexnano" / "__init__.py").is_file():
        return Finding(
            "flexnano/", "problem", "not there", "python -m course stubs makes it, where there are solutions"
        )
    code = "import importlib.util as u; s = u.find_spec('flexnano'); print(s.origin if s else '')"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FLEXNANO")}
    with tempfile.TemporaryDirectory() as elsewhere:
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True
        )
    origin = run.stdout.strip()
    if origin and Path(origin).parent.resolve() == (root / "flexnano").resolve():
        return Finding("flexnano/", "ok", "found from every folder")
    where = f"`import flexnano` finds {Path(origin).parent}" if origin else "installed nowhere"
    return Finding(
        "flexnano/",
        "note",
        f"{where}; in this folder it works all the same",
        "For notebooks and scripts elsewhere: python -m pip install --no-deps -e .",
    )


# ------------------------------------------------------------------------------------------- what only torch can tell


def ask_child(root: Path, try_attention: bool) -> dict[str, Any]:
    """What `_child` printed, or {"error": why it printed nothing}."""
    reference = (root / "solutions" / "flexnano").is_dir()
    environment = {
        **os.environ,
        "FLEXNANO": "solutions" if reference else "",
        "PYTHONUTF8": "1",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    code = f"from course.check import _child; _child({try_attention and reference})"
    try:
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {SECONDS:.0f} s"}
    try:
        return json.loads(run.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]
    except (ValueError, IndexError):
        said = [line for line in run.stderr.splitlines() if line.strip()]
        return {"error": said[-1][:300] if said else f"it ended with exit code {run.returncode}"}


def _child(try_attention: bool) -> None:
    """Runs in a process of its own: what torch finds, as a line of JSON."""
    import torch

    found: dict[str, Any] = {"threads": torch.get_num_threads(), "gpus": []}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = [properties.major, properties.minor]
        found["gpus"].append({"name": properties.name, "capability": capability, "memory": properties.total_memory})
    found["mps"] = bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
    found["cuda_build"] = torch.version.cuda
    try:
        import transformers

        found["transformers"] = transformers.__version__
        import transformers.models.llama.modeling_llama as _llama  # noqa: F401  the slow and breakable part
    except Exception as error:
        found["transformers_error"] = f"{type(error).__name__}: {error}"
    if try_attention:
        try:
            found["attention"] = _attention(torch)
        except Exception as error:
            found["attention_error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


def _attention(torch: Any) -> dict[str, str]:
    """The attention path that the engine takes for the embedded model here, as `Inference` would choose it."""
    from flexnano import choose_path

    dtype, why = torch.float32, "the CPU computes fastest and exactly in it"
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda")
        modern = torch.cuda.get_device_capability() >= (8, 0)
        dtype = torch.bfloat16 if modern else torch.float16
        why = "the GPU has it in hardware" if modern else "this GPU has no bfloat16"
    path, reason = choose_path(device, dtype, head_dim=64, group=3)
    return {
        "path": path,
        "reason": reason,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "dtype_reason": why,
    }


def from_child(answer: dict[str, Any], root: Path, try_attention: bool) -> list[Finding]:
    if "error" in answer:
        how = f"`python -c 'import torch'` shows more. If torch is damaged, delete .venv and run {SETUP}"
        return [Finding("torch starts", "problem", answer["error"], how)]
    found = []
    if "transformers_error" in answer:
        found.append(
            Finding("transformers starts", "problem", answer["transformers_error"], f"{SETUP} installs what fits")
        )
    found.append(gpu(answer))
    if not (root / "solutions" / "flexnano").is_dir():
        text = "not tried: this copy of the course has no solutions, and yours decides it once module 02 is written"
        found.append(Finding("attention path", "ok", text))
    elif "attention" in answer:
        one = answer["attention"]
        text = f"{one['path']} ({one['reason']}) in {one['dtype']} on {one['device']} ({one['dtype_reason']})"
        found.append(Finding("attention path", "ok", text))
    elif try_attention:
        error = answer.get("attention_error", "unknown")
        found.append(
            Finding("attention path", "problem", error, "FLEXNANO_ATTENTION=gather does without the compiler; try it")
        )
    return found


def gpu(answer: dict[str, Any]) -> Finding:
    if not answer["gpus"]:
        text = "none; everything works on the CPU, at small sizes"
        if answer.get("mps"):
            text = "Apple's, which FlexAttention can't use; everything works on the CPU, at small sizes"
        elif in_colab():
            return Finding("GPU", "note", "none", "Runtime → Change runtime type gives one; the CPU is enough for most")
        elif shutil.which("nvidia-smi") and not answer.get("cuda_build"):
            return Finding("GPU", "note", "one is there, but this torch is built for CPUs", "Install torch for CUDA")
        return Finding("GPU", "ok", text)
    names = ", ".join(
        f"{one['name']} (compute capability {one['capability'][0]}.{one['capability'][1]}, {size(one['memory'])})"
        for one in answer["gpus"]
    )
    if tuple(answer["gpus"][0]["capability"]) < (8, 0):
        return Finding("GPU", "note", names, ON_A_T4)
    return Finding("GPU", "ok", names)


# ------------------------------------------------------------------------------------------------------ what is shown


MARKS = {"ok": ("✓", "green"), "note": ("•", "yellow"), "problem": ("✗", "red")}


def lines(findings: Sequence[Finding], columns: int | None = None) -> list[str]:
    """The findings as a table; what to do stands below what it is about."""
    columns = max(50, min(columns or width(), 110))
    wide = max(len(one.name) for one in findings) + 2
    shown = []
    for one in findings:
        mark, colour = MARKS[one.level]
        body = textwrap.wrap(one.found, columns - wide - 4, break_long_words=False) or [""]
        body += [
            f"→ {text}" if not n else f"  {text}" for n, text in enumerate(textwrap.wrap(one.do, columns - wide - 6))
        ]
        shown.append(f"{paint(mark, colour)} {one.name:<{wide}}{body[0]}")
        shown += [" " * (wide + 2) + line for line in body[1:]]
    return shown


def verdict(findings: Sequence[Finding]) -> str:
    problems = [one.name for one in findings if one.level == "problem"]
    if not problems:
        return "The course can be worked on this machine."
    return f"The course can't be worked on this machine yet: {', '.join(problems)}."


def show(root: Path = ROOT, as_json: bool = False, try_attention: bool = True) -> int:
    """The command `check`."""
    if not as_json and try_attention and (root / "solutions" / "flexnano").is_dir():
        say("Looking at this machine, and trying whether attention can be compiled on it (up to a minute) …")
    findings = look(root, try_attention)
    if as_json:
        document = {"works": works(findings), "findings": [asdict(one) for one in findings]}
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        say()
        for line in lines(findings):
            say(line)
        say(f"\n{verdict(findings)}")
    return 0 if works(findings) else 1
