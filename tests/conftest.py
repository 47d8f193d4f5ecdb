"""What every test may say about itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def counted() -> Callable[[str, int], None]:
    """Tell how much was tried: `counted("cheats", 27)` adds a line of JSON to the file that FLEXNANO_COUNTS names."""

    def add(what: str, n: int) -> None:
        if path := os.environ.get("FLEXNANO_COUNTS"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, "n": n}) + "\n")

    return add
