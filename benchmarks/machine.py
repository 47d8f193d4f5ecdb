"""What a measurement was taken on, and with what."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


def describe_machine(device: str) -> dict[str, Any]:
    """Name of the processor or card, cores, memory, system, and how busy the machine is at this moment."""
    machine = {
        "name": cpu_name(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "logical_cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": round(psutil.getloadavg()[0], 2),
    }
    if device == "cuda":
        import torch

        machine |= {
            "cpu": machine["name"],
            "name": torch.cuda.get_device_name(),
            "device_memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        }
    return machine


def cpu_name() -> str:
    """The name that the processor gives itself; the platform's word for it where there is no /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def need_gpu(command: str) -> None:
    """Ends the process with a sentence where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"{command} measures a GPU, and none is found here")


def head(what: str, command: str, machine: dict[str, Any]) -> dict[str, Any]:
    """What the report of a measurement begins with; `machine`: from `describe_machine`."""
    return {
        "what": what,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": command,
        "code": describe_code(),
        "machine": machine,
        "versions": versions(),
    }


def write(report: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a report into a folder, under a name that ends in the machine's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{slug(report['machine']['name'])}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {package: version(package) for package in ("torch", "transformers")}


def describe_code() -> dict[str, Any]:
    """The commit, and whether files differ from it (results of this benchmark apart)."""
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results") if commit else None
    return {"commit": commit, "uncommitted_changes": changed.splitlines() if changed else []}


def git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
