"""The parity test is worth something: each of these cache bugs, all seen in real engines, makes it fail.

Every one of them leaves a single prompt in a batch of one right, or nearly so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import parity
import pytest
import torch

from flexnano import Inference
from flexnano.page_table import PageTable
from flexnano.sequence import Sequence


def rows_instead_of_slots(patch: pytest.MonkeyPatch) -> None:
    """The mask looks up the owner by row of the batch, as if row b were always slot b + 1."""
    convert = PageTable.convert_logical_block_mask

    def wrong(table: PageTable, block_mask: Any, batch_idx: torch.Tensor) -> Any:
        mask = convert(table, block_mask, batch_idx)
        table.slot_of_row[: len(batch_idx)] = torch.arange(1, len(batch_idx) + 1)
        return mask

    patch.setattr(PageTable, "convert_logical_block_mask", wrong)


def one_cache_for_all_layers(patch: pytest.MonkeyPatch) -> None:
    """A closure over the layer index: every layer writes to the last layer's cache and reads it."""
    from flexnano import inference

    attach = inference.attach_caches

    def wrong(layers: Any, *args: Any) -> Any:
        caches = attach(layers, *args)
        for layer in layers:
            layer.module.kv_cache = caches[-1]
        return caches

    patch.setattr(inference, "attach_caches", wrong)


def new_page_one_token_late(patch: pytest.MonkeyPatch) -> None:
    """The first token of a page is written to the page before, over the token that lies there."""
    address = PageTable.address

    def wrong(table: PageTable, batch_idx: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        at_edge = (input_pos % table.page_size == 0) & (input_pos > 0)
        return address(table, batch_idx, input_pos - at_edge.long())

    patch.setattr(PageTable, "address", wrong)


def last_page_marked_full(patch: pytest.MonkeyPatch) -> None:
    """The last page is listed as full: the kernel skips the mask and reads what an earlier sequence left there."""
    from flexnano import inference

    visible_blocks = inference.visible_blocks

    def wrong(first: torch.Tensor, last: torch.Tensor, n: int, block_size: tuple[int, int]) -> Any:
        partial, full = visible_blocks(first, last, n, block_size)
        return (torch.zeros_like(partial), partial | full) if block_size[0] == 1 else (partial, full)

    patch.setattr(inference, "visible_blocks", wrong)


def page_given_to_two(patch: pytest.MonkeyPatch) -> None:
    """A page that is taken stays in the pool as well, and is given to the next one who asks."""

    def wrong(table: PageTable, n: int) -> list[int]:
        taken = [table.free_pages.pop() for _ in range(n)]
        table.free_pages[:0] = taken
        return taken

    patch.setattr(PageTable, "take", wrong)
    patch.setattr(PageTable, "check", lambda table: None)  # it would tell; here parity has to


def output_forgotten_on_resume(patch: pytest.MonkeyPatch) -> None:
    """A sequence that resumes prefills its prompt alone, so that its output's keys are missing."""
    patch.setattr(
        Sequence,
        "token_ids",
        property(lambda self: self.prompt_ids + ([0] * len(self.output_ids) if self.preemptions else self.output_ids)),
    )


def window_one_too_wide(patch: pytest.MonkeyPatch) -> None:
    """Decode reads `window` keys before the query instead of `window` with it."""
    decode_mask_mod, block_mask = Inference._decode_mask_mod, Inference.get_decoding_block_mask

    def wider(window: int | None) -> int | None:
        return None if window is None else window + 1

    patch.setattr(Inference, "_decode_mask_mod", lambda self, window: decode_mask_mod(self, wider(window)))

    def wrong(self: Inference, batch_idx: torch.Tensor, window: int | None = None) -> Any:
        for of_window in (self._decode_mods, self.tables):
            of_window[wider(window)] = of_window[window]  # type: ignore[index]
        return block_mask(self, batch_idx, wider(window))

    patch.setattr(Inference, "get_decoding_block_mask", wrong)


BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = [
    (rows_instead_of_slots, "llama", "eager"),
    (one_cache_for_all_layers, "llama", "gather"),
    (new_page_one_token_late, "llama", "gather"),
    (last_page_marked_full, "llama", "gather"),
    (page_given_to_two, "llama", "gather"),
    (output_forgotten_on_resume, "llama", "gather"),
    (window_one_too_wide, "gemma2", "gather"),
]


@pytest.mark.parametrize(("bug", "family", "path"), BUGS, ids=[bug.__name__ for bug, _, _ in BUGS])
def test_parity_fails_with(
    bug: Callable[[pytest.MonkeyPatch], None], family: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match=r"log-probabilities are off|another token"):
        parity.run_cell(family, path, page_size=16)


def test_and_passes_without_a_bug() -> None:
    assert parity.run_cell("gemma2", "gather", page_size=16).worst < parity.TOLERANCE
