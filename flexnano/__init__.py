# Your copy of solutions/flexnano/__init__.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash f54789c80f572d17
"""A small LLM inference engine on PyTorch's FlexAttention, built module by module in the course.

    from flexnano import Inference, SamplingParams

Names are looked up when they are first used, so `import flexnano` loads neither torch nor a module that is not written yet.

Where the code comes from: this folder, unless the environment variable FLEXNANO says otherwise when flexnano is imported:
    FLEXNANO=solutions      the reference, in solutions/flexnano/ of the same checkout
    FLEXNANO=some/folder    a folder `flexnano` with an __init__.py, or the folder that holds it; relative to the current one
Everything else stays the same: the name of the package, and how it is imported.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time __getattr__ looks into _HOME
    from .attention import AttentionPath as AttentionPath
    from .attention import GatherMask as GatherMask
    from .attention import attention_forward as attention_forward
    from .attention import gather_mask as gather_mask
    from .attention import prepare_mask as prepare_mask
    from .attention import register_attention as register_attention
    from .detokenize import Detokenizer as Detokenizer
    from .eviction import give_up_pages as give_up_pages
    from .eviction import most_pages as most_pages
    from .eviction import narrowed as narrowed
    from .eviction import pages_to_give_up as pages_to_give_up
    from .eviction import window_mask as window_mask
    from .eviction import window_pages as window_pages
    from .experiment import attention_swapped as attention_swapped
    from .experiment import document_block_mask as document_block_mask
    from .experiment import measure as measure
    from .inference import Inference as Inference
    from .kv_cache import PagedKVCache as PagedKVCache
    from .kv_cache import attach_caches as attach_caches
    from .kv_cache import kv_bytes_per_token as kv_bytes_per_token
    from .kv_cache import pages_for_budget as pages_for_budget
    from .machine import Machine as Machine
    from .machine import measure_machine as measure_machine
    from .masks import MaskMod as MaskMod
    from .masks import ScoreMod as ScoreMod
    from .masks import all_of as all_of
    from .masks import any_of as any_of
    from .masks import block_mask_from_blocks as block_mask_from_blocks
    from .masks import causal as causal
    from .masks import classify_blocks as classify_blocks
    from .masks import dense_mask as dense_mask
    from .masks import packed_documents as packed_documents
    from .masks import sliding_window as sliding_window
    from .masks import soft_cap as soft_cap
    from .masks import visible_blocks as visible_blocks
    from .mixed_step import Layout as Layout
    from .mixed_step import MixedMask as MixedMask
    from .mixed_step import lay_out as lay_out
    from .mixed_step import rows_due as rows_due
    from .model_probe import LayerSpec as LayerSpec
    from .model_probe import UnsupportedModel as UnsupportedModel
    from .model_probe import probe as probe
    from .page_table import PageTable as PageTable
    from .path_probe import choose_path as choose_path
    from .planner import Chunk as Chunk
    from .planner import Planner as Planner
    from .planner import inter_token_times as inter_token_times
    from .prefix_index import PrefixIndex as PrefixIndex
    from .prefix_index import SharedPages as SharedPages
    from .results import EngineStats as EngineStats
    from .results import Metrics as Metrics
    from .results import Result as Result
    from .results import TokenEvent as TokenEvent
    from .roofline import least_step_seconds as least_step_seconds
    from .sampling import SamplingBatch as SamplingBatch
    from .sampling import gumbel_noise as gumbel_noise
    from .sampling import keep_min_p as keep_min_p
    from .sampling import keep_top_k as keep_top_k
    from .sampling import keep_top_p as keep_top_p
    from .sampling import sample as sample
    from .sampling import top_logprobs as top_logprobs
    from .sampling_params import SamplingParams as SamplingParams
    from .scheduler import Row as Row
    from .scheduler import Scheduler as Scheduler
    from .sequence import Sequence as Sequence
    from .sequence import Status as Status
    from .stopwatch import Stopwatch as Stopwatch
    from .stopwatch import Timing as Timing
    from .trace import Trace as Trace
    from .trace import record as record
    from .viz import draw_fragmentation as draw_fragmentation
    from .viz import draw_kv_bytes as draw_kv_bytes
    from .viz import draw_mask as draw_mask
    from .viz import draw_page_table as draw_page_table
    from .viz import draw_schedule as draw_schedule
    from .viz import draw_step as draw_step

_PUBLIC = {
    "masks": (
        "MaskMod ScoreMod all_of any_of block_mask_from_blocks causal classify_blocks dense_mask packed_documents "
        "sliding_window soft_cap visible_blocks"
    ),
    "attention": ("AttentionPath GatherMask attention_forward gather_mask prepare_mask register_attention"),
    "experiment": "attention_swapped document_block_mask measure",
    "stopwatch": "Stopwatch Timing",
    "page_table": "PageTable",
    "kv_cache": "PagedKVCache attach_caches kv_bytes_per_token pages_for_budget",
    "machine": "Machine measure_machine",
    "roofline": "least_step_seconds",
    "sequence": "Sequence Status",
    "scheduler": "Row Scheduler",
    "sampling": "SamplingBatch gumbel_noise keep_min_p keep_top_k keep_top_p sample top_logprobs",
    "sampling_params": "SamplingParams",
    "inference": "Inference",
    "prefix_index": "PrefixIndex SharedPages",
    "eviction": "give_up_pages most_pages narrowed pages_to_give_up window_mask window_pages",
    "planner": "Chunk Planner inter_token_times",
    "mixed_step": "Layout MixedMask lay_out rows_due",
    "results": "EngineStats Metrics Result TokenEvent",
    "detokenize": "Detokenizer",
    "path_probe": "choose_path",
    "model_probe": "LayerSpec UnsupportedModel probe",
    "trace": "Trace record",
    "viz": "draw_fragmentation draw_kv_bytes draw_mask draw_page_table draw_schedule draw_step",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = list(_HOME)


def _folder() -> Path:
    """The folder that the modules are imported from."""
    here = Path(__file__).resolve().parent
    chosen = os.environ.get("FLEXNANO", "")
    if not chosen:
        return here
    if chosen == "solutions":
        root = here.parent.parent if here.parent.name == "solutions" else here.parent
        folder = root / "solutions" / "flexnano"
        if not (folder / "__init__.py").is_file():
            raise ImportError(
                f"FLEXNANO=solutions, but {folder} does not exist: this copy of the course has no solutions"
            )
        return folder
    for folder in (Path(chosen) / "flexnano", Path(chosen)):
        if (folder / "__init__.py").is_file():
            return folder.resolve()
    raise ImportError(
        f"FLEXNANO={chosen!r} names no code: it may be `solutions`, a folder `flexnano` with an __init__.py, or the folder "
        f"that holds one. Looked in {Path(chosen).resolve()}. Unset it to use your own code in {here}"
    )


__path__ = [str(_folder())]
if __spec__ is not None:
    __spec__.submodule_search_locations = __path__


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None and name not in _PUBLIC:
        raise AttributeError(f"flexnano has no `{name}`")
    try:
        found = importlib.import_module(f"{__name__}.{module or name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{module or name}":
            raise
        raise AttributeError(f"flexnano.{name} is not there yet: {__path__[0]} has no {module or name}.py") from error
    return getattr(found, name) if module else found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PUBLIC})
