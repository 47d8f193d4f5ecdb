"""Which of the three attention paths works on this machine, found out by trying.  Given."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .attention import PATHS, AttentionPath, attend_gather, compiled_attention, gather_mask
from .masks import block_mask_from_blocks, visible_blocks

if TYPE_CHECKING:
    from .model_probe import LayerSpec


def decode_options(device: torch.device, dtype: torch.dtype, group: int, page_size: int) -> dict[str, Any] | None:
    """Options of FlexAttention's decode kernel: those without which it refuses a model, those that are faster, or None.

    The GPU kernel made for decode takes groups of 1, 2, 4, 8, … query heads for each key head.  Others fall to the general
    kernel, whose tiles are 128 keys wide unless told otherwise; but a tile must not span pages.

    On Hopper cards tiles of 64 keys, 4 warps and 3 stages; others, with less shared memory, keep the kernel's own choice.
    """
    if device.type != "cuda":
        return None
    if group & (group - 1):
        return {"BLOCK_M": 32, "BLOCK_N": keys_of_a_tile(dtype, page_size)}
    if not _hopper_in_16_bits(device, dtype):
        return None
    return {"BLOCK_N": min(page_size, 64), "num_warps": 4, "num_stages": 3}


def rows_that_are_split(device: torch.device, group: int, kv_heads: int) -> int:
    """Up to how many rows the decode kernel shares a row's keys among several of the card's processors.

    It does where there are at least as many processors as rows times key heads.  0 on a CPU, and where the group of a key
    head is none for the decode kernel (`decode_options`): the general one does not share.
    """
    if device.type != "cuda" or group & (group - 1):
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count // kv_heads


def keys_of_a_tile(dtype: torch.dtype, page_size: int) -> int:
    """The most keys that the general kernel takes at once: they must lie in one page, and find room."""
    return min(page_size, 32 if dtype == torch.float32 else 64)


def _hopper_in_16_bits(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (9, 0)


def prompt_options(device: torch.device, dtype: torch.dtype, head_dim: int) -> dict[str, Any] | None:
    """Options of FlexAttention's kernel for prompts, or None.  `head_dim`: of the largest heads.

    A short row would be taken by the GPU kernel that is made for decode, and refused; hence FORCE_USE_FLEX_ATTENTION.

    In 16 bits on Hopper cards, with heads of more than 128, tiles of 64 times 64 that are fetched as a whole (USE_TMA): of a
    prompt of 4,096 tokens in Gemma 2 attention takes 252 µs a layer instead of 357.  Smaller heads are better off without.
    Where a card can't fetch tiles the compiler ignores the wish.
    """
    if device.type != "cuda":
        return None
    options: dict[str, Any] = {"FORCE_USE_FLEX_ATTENTION": True}
    if head_dim > 128 and _hopper_in_16_bits(device, dtype):
        options |= {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3, "USE_TMA": True}
    return options


def choose_path(
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    group: int,
    wanted: str | None = None,
    page_size: int = 128,
    options: dict[str, Any] | None = None,
    value_head_dim: int | None = None,
) -> tuple[AttentionPath, str]:
    """Pick the attention path for a model, once, by trying.

    Args:
        device, dtype: of the model.
        head_dim, value_head_dim: size of its keys and values; None: the same.
        group: query heads for each key head.
        wanted: a path by name, from the caller; None: `FLEXNANO_ATTENTION` if set, else the fastest that works.
        page_size, options: of the decode kernel that is tried.

    Returns:
        (path, the reason in words).

    Raises:
        ValueError: no such path.
        RuntimeError: the compiled path was asked for by name and does not work here; or the device is "mps".
    """
    if device.type not in ("cpu", "cuda"):
        raise RuntimeError(f"FlexAttention does not run on device {device.type!r}; move the model to 'cpu' or 'cuda'")
    source = "asked for" if wanted else "asked for by FLEXNANO_ATTENTION"
    wanted = wanted or os.environ.get("FLEXNANO_ATTENTION") or None
    if wanted is not None and wanted not in PATHS:
        raise ValueError(f"no attention path {wanted!r} ({source}); there are {', '.join(PATHS)}")
    if wanted in ("gather", "eager"):
        return wanted, source
    if device.type == "cpu" and dtype != torch.float32 and wanted is None:
        # Measured with SmolLM2 in bfloat16, 16 rows: attention takes 70 ms a step compiled, 42 gathered.
        return "gather", "faster than compiled FlexAttention on a CPU in 16 bits"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        trouble: str | None = "compiled FlexAttention needs compute capability 8.0"
    else:
        sizes = (head_dim, value_head_dim or head_dim)
        trouble = _compiling_fails(device, dtype, sizes, group, page_size, tuple((options or {}).items()))
    if trouble is None:
        return "compiled", "a trial kernel compiled and gave the right result"
    if wanted == "compiled":
        raise RuntimeError(f"attention='compiled' does not work on this machine: {trouble}")
    return "gather", trouble


def choose_path_of(
    layers: Iterable[LayerSpec],
    device: torch.device,
    dtype: torch.dtype,
    wanted: str | None,
    page_size: int,
    options: dict[str, Any] | None,
) -> tuple[AttentionPath, str]:
    """As `choose_path`, for all layers of a model.  Few have heads of more than one size; all take the same path."""
    sizes = {(one.head_dim, one.value_head_dim, one.q_heads // one.kv_heads) for one in layers}
    for head_dim, value_head_dim, group in sizes:
        path, reason = choose_path(device, dtype, head_dim, group, wanted, page_size, options, value_head_dim)
        if path != "compiled":
            break
    return path, reason


def choose_steps(wanted: bool | None, device: torch.device, path: AttentionPath) -> tuple[bool, str]:
    """Whether steps take module 07's fast path, and why.

    Args:
        wanted: what the caller says; None: on a GPU with compiled attention, if module 07 is written.

    Raises:
        NotImplementedError: it was asked for, but an exercise of module 07 is not written yet.
    """
    reason = f"{path} attention on {device.type}" if wanted is None else "asked for"
    if not (wanted if wanted is not None else device.type == "cuda" and path == "compiled"):
        return False, reason
    from .fast_path import why_not  # module 07: nobody needs it before

    missing = why_not()
    if missing and wanted:
        raise NotImplementedError(missing)
    return missing is None, missing or reason


@functools.cache
def _compiling_fails(
    device: torch.device,
    dtype: torch.dtype,
    head_dims: tuple[int, int],
    group: int,
    page_size: int,
    options: tuple[tuple[str, Any], ...],
) -> str | None:
    """Compile a decode of two rows over three pages and compare it with plain attention: None if it works, else why not."""
    generator = torch.Generator().manual_seed(0)
    D, value_D = head_dims
    shapes = ((2, group, 1, D), (1, 1, 3 * page_size, D), (1, 1, 3 * page_size, value_D))
    q, k, v = (torch.randn(*shape, generator=generator).to(device, dtype) for shape in shapes)
    last = torch.tensor([page_size // 2, 2 * page_size + page_size // 2], device=device)

    def up_to_last(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx <= last[b]

    partial, full = visible_blocks(torch.zeros_like(last)[:, None], last[:, None], 3, (1, page_size))
    mask = block_mask_from_blocks(partial[:, None], full[:, None], up_to_last, (128, page_size), (1, 3 * page_size))
    try:
        with torch.inference_mode():
            got = compiled_attention(device.type)(q, k, v, mask, D**-0.5, None, dict(options))
            want = attend_gather(q.float(), k.float(), v.float(), gather_mask(mask), D**-0.5, None, None)
    except Exception as error:  # whatever keeps the compiler from working: no compiler, no cache folder, no support
        return f"compiling FlexAttention failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    off = (got - want).abs().max().item()
    return None if off < 0.05 else f"compiled FlexAttention is off by {off:.3g}"
