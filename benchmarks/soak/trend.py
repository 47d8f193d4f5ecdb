"""Does a series of measurements grow?  A fit that a few odd points don't move, and what it can't tell."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

FEWEST = 5
"""Points that a fit takes."""


@dataclass(frozen=True)
class Growth:
    """How much a quantity grew over the part of a run that was fitted.

    Fields:
        grew, low, high: the fitted growth and its 95% interval, all in `unit`.
        limit: what is taken for flat.
    """

    what: str
    unit: str
    grew: float
    low: float
    high: float
    limit: float
    points: int

    @property
    def verdict(self) -> str:
        """ "flat": surely less than the limit; "grows": surely more; "not told": the noise is larger than the limit."""
        if self.points < FEWEST:
            return "not told"
        if self.high <= self.limit:
            return "flat"
        return "grows" if self.low > self.limit else "not told"

    def line(self) -> str:
        if self.points < FEWEST:
            return f"{self.what}: not told, the run was too short"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.what}: {self.verdict} ({self.grew:+.2f}{unit}, "
            f"95% interval {self.low:+.2f} to {self.high:+.2f}, limit {self.limit:g})"
        )

    def as_dict(self) -> dict[str, Any]:
        numbers = {name: round(getattr(self, name), 4) for name in ("grew", "low", "high")}
        return {**asdict(self), **numbers, "verdict": self.verdict}


def growth(what: str, unit: str, x: Sequence[float], y: Sequence[float], limit: float) -> Growth:
    """Fit the second half of a series: the median slope between all pairs of points (Theil and Sen), times its length.

    The first half is left out: caches fill up, an allocator finds its size.  The interval is Sen's, from Kendall's normal
    approximation; it takes the points for independent of each other.

    >>> growth("memory", "MiB", range(20), [100.0] * 20, limit=1).verdict
    'flat'
    >>> growth("memory", "MiB", range(20), [100.0 + i for i in range(20)], limit=1).verdict
    'grows'
    >>> growth("memory", "MiB", range(20), [100.0 + 50 * (i % 2) for i in range(20)], limit=1).verdict
    'not told'
    """
    half = len(x) // 2
    x, y = list(x)[half:], list(y)[half:]
    slopes = sorted((b - a) / (v - u) for (u, a), (v, b) in itertools.combinations(zip(x, y, strict=True), 2) if v > u)
    if not slopes:
        return Growth(what, unit, 0.0, 0.0, 0.0, limit, min(len(x), FEWEST - 1))
    n, length = len(x), x[-1] - x[0]
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = max(0, round((len(slopes) - spread) / 2))
    last = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    low, middle, high = slopes[first], statistics.median(slopes), slopes[last]
    return Growth(what, unit, middle * length, low * length, high * length, limit, n)


def longer(what: str, ratios: Sequence[float], limit: float) -> Growth:
    """By how many percent one thing takes longer than another, from the ratios of pairs: their median, and of its 95%
    interval the places that a fair coin gives.

    >>> longer("a step", [1.0, 1.02] * 50, limit=10).verdict
    'flat'
    >>> longer("a step", [1.2, 1.3] * 50, limit=10).verdict
    'grows'
    >>> longer("a step", [], limit=10).verdict
    'not told'
    """
    n, found = len(ratios), sorted(100 * (ratio - 1) for ratio in ratios)
    if not n:
        return Growth(what, "%", 0.0, 0.0, 0.0, limit, 0)
    spread = 1.96 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - spread)), min(n - 1, math.ceil(n / 2 + spread))
    return Growth(what, "%", statistics.median(found), found[low], found[high], limit, n)
