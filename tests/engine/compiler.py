"""Whether FlexAttention can be compiled on this machine, for the tests that need it."""

from __future__ import annotations

import functools
import os

import torch

from flexnano.path_probe import _compiling_fails


@functools.cache
def why_not() -> str | None:
    """Why the compiled path does not work here, or None.  In CI always None: there it has to work."""
    if "CI" in os.environ:
        return None
    return _compiling_fails(torch.device("cpu"), torch.float32, (16, 16), 2, 16, ())
