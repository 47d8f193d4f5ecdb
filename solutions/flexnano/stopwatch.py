"""Given: moments on the timeline of the device, and what was read off it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch


class Stopwatch:
    """Marks moments on the device's own timeline: on a GPU as CUDA events, on a CPU as readings of the clock."""

    def __init__(self, device_type: str) -> None:
        self.on_gpu = device_type == "cuda"

    def mark(self) -> Any:
        """A moment: after all work that has been asked for so far, and before all that comes.  Does not wait for it."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Come back when the device has done all that it was asked for."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, begin: Any, end: Any) -> float:
        """From one mark to another.  Raises RuntimeError if the device has not reached them yet."""
        return begin.elapsed_time(end) / 1e3 if self.on_gpu else end - begin


@dataclass(frozen=True)
class Timing:
    """Seconds of the first call, which compiles, and of each of those that count."""

    first: float
    repeats: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.repeats)
