"""The tooling of the course: set-up, the embedded model, the learner's stubs, the checks.

Everything that `python -m course` needs to start runs on a bare Python with the standard library alone; what needs the
installed packages imports them inside the functions that use them.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext course`: the magics of the notebooks."""
    from .magic import magics

    magics.load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    from .magic import magics

    magics.unload(ipython)
