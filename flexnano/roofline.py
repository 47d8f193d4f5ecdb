# Your copy of solutions/flexnano/roofline.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 55885a0ef2dd1d4e
"""Module 04: the roofline.  What no engine can be faster than, because bytes have to be read and products computed.

Sources: Williams, Waterman and Patterson, "Roofline", 2009, for the two limits; Pope et al., "Efficiently Scaling
Transformer Inference", 2022, for what a transformer reads and computes in a step.
"""

from __future__ import annotations

from .machine import Machine


def least_step_seconds(
    machine: Machine,
    weights: int,
    bytes_per_weight: int,
    new_tokens: int,
    cached_tokens: int,
    kv_bytes_per_token: int,
) -> float:
    """The least time that a step of a model can take, prefill or decode.  [4.5 · ★☆☆ · 10 min]

    A step reads every weight once, however many tokens it computes, and the keys and values of every token that is cached.
    For each new token it does two operations with each weight, a product and a sum.  Reading and computing go on at the
    same time, so the longer of the two decides.  What attention itself computes, and what is written, is left out.

    Args:
        machine: `bytes_per_second` that it reads and `flops_per_second` that it computes, operations a second.
        weights: how many the model has.
        bytes_per_weight: 2 in bfloat16.
        new_tokens: tokens that the step computes: all of the prompts in a prefill, one a sequence in decode.
        cached_tokens: tokens whose keys and values the step reads, over all sequences together; 0 in a prefill.
        kv_bytes_per_token: from `kv_bytes_per_token`.

    Returns:
        Seconds.

    >>> machine = Machine("by hand", bytes_per_second=100, flops_per_second=1000)
    >>> least_step_seconds(machine, 50, 2, new_tokens=1, cached_tokens=0, kv_bytes_per_token=10)
    1.0
    >>> least_step_seconds(machine, 50, 2, new_tokens=4, cached_tokens=15, kv_bytes_per_token=10)
    2.5
    >>> least_step_seconds(machine, 50, 2, new_tokens=30, cached_tokens=0, kv_bytes_per_token=10)
    3.0
    """
    raise NotImplementedError("Exercise 4.5: least_step_seconds")
