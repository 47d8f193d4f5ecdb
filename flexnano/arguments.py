# Your copy of solutions/flexnano/arguments.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 93bd330a4613b788
"""Given: what an engine is made with, checked before anything is built."""

from __future__ import annotations

from typing import Any


def check_sizes(*, page_size: int, **sizes: int) -> None:
    """Raise TypeError or ValueError if one of these sizes can't be one."""
    for name, value in {"page_size": page_size, **sizes}.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, but must be an integer of at least 1")
        if value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1")
    if page_size & (page_size - 1):
        raise ValueError(f"page_size {page_size} is not a power of two; use one, such as 16, 32, 64 or 128")


def check_helpers(tokenizer: Any, kernel_options: Any) -> None:
    """Raise TypeError if the tokenizer or the options of the kernel are something else."""
    if kernel_options is not None and not isinstance(kernel_options, dict):
        raise TypeError(f"kernel_options is a {type(kernel_options).__name__}, but must be a dict or None")
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "decode")):
        raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, but must be a tokenizer of transformers, or None")
