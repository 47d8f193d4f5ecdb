# Your copy of solutions/flexnano/machine.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash ce028aec9851a4ca
"""Given: how fast this machine reads and computes, by trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .stopwatch import Stopwatch


@dataclass(frozen=True)
class Machine:
    """The two numbers that a roofline needs.

    Attributes:
        name: of the card, or "CPU, threads: 2".
        bytes_per_second: that are read from memory, in a plain sum over far more than a cache holds.
        flops_per_second: operations a second (a product and a sum are two) in a product of large matrices.
    """

    name: str
    bytes_per_second: float
    flops_per_second: float


def measure_machine(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """What `device` reads and computes, the best of five tries each, as a bound needs it; about a second.

    Args:
        device: on which tensors of half a GiB have room (on a CPU of a quarter).
        dtype: of the matrices that are multiplied.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    n_bytes, side = (2**29, 8192) if on_gpu else (2**28, 1024)
    numbers = torch.ones(n_bytes // 4, device=device)
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    reading = _least_seconds(numbers.sum, device)
    computing = _least_seconds(lambda: left @ right, device)
    name = (
        torch.cuda.get_device_name(device) if on_gpu else f"{device.type.upper()}, threads: {torch.get_num_threads()}"
    )
    return Machine(name, n_bytes / reading, 2 * side**3 / computing)


def _least_seconds(run: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    stopwatch, seconds = Stopwatch(device.type), []
    for _ in range(1 + tries):
        begin = stopwatch.mark()
        run()
        end = stopwatch.mark()
        stopwatch.wait()
        seconds.append(stopwatch.seconds(begin, end))
    return min(seconds[1:])  # the first one warms up
