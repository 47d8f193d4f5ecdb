"""What every test may say about itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from course import counts


@pytest.fixture
def counted() -> Callable[[str, int], None]:
    """Tell how much was tried: `counted("cheats", 27)`, for `python -m course reliability`."""
    return counts.add
