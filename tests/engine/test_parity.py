"""Every family gives transformers' own tokens, on every attention path, at every page size.

`make test` runs a part of the matrix, `make test-all` (pytest --all) the whole: compiling all of it takes half an hour.
"""

from __future__ import annotations

import itertools

import compiler
import families
import parity
import pytest

COMPILED_BY_DEFAULT = ("llama", "gemma2")  # no window and no soft cap; both
PAGE_SIZE_BY_DEFAULT = 16  # of the paths that take long: a cell compiles up to ten kernels

CELLS = list(itertools.product(families.FAMILIES, parity.PATHS, parity.PAGE_SIZES))


def is_slow(family: str, path: str, page_size: int) -> bool:
    if path == "gather":
        return False
    return page_size != PAGE_SIZE_BY_DEFAULT or (path == "compiled" and family not in COMPILED_BY_DEFAULT)


@pytest.fixture(scope="module")
def matrix() -> dict[tuple[str, str, int], parity.Cell]:
    return {}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_reference_models_are_not_blind(family: str) -> None:
    families.assert_not_blind(families.FAMILIES[family]())


@pytest.mark.parametrize(
    ("family", "path", "page_size"),
    [pytest.param(*cell, marks=[pytest.mark.slow] if is_slow(*cell) else []) for cell in CELLS],
)
def test_tokens_and_logits_are_those_of_transformers(
    family: str, path: str, page_size: int, matrix: dict[tuple[str, str, int], parity.Cell]
) -> None:
    matrix[family, path, page_size] = parity.run_cell(family, path, page_size)


def test_no_cell_of_the_matrix_is_empty(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    matrix: dict[tuple[str, str, int], parity.Cell],
) -> None:
    selected = request.config.getoption("keyword") or request.config.getoption("markexpr")
    paths = [path for path in parity.PATHS if path != "compiled" or not compiler.why_not()]
    wanted = {cell for cell in CELLS if request.config.getoption("--all") or not is_slow(*cell)}
    wanted = {cell for cell in wanted if cell[1] in paths}
    due = set(matrix) if selected else wanted  # somebody may look at a part of it
    with capsys.disabled():
        print("\n\nlargest difference of a log-probability / preemptions (~ near ties), per page size")
        print(f"{'':<14}" + "".join(f"{path:<9}{size:<5}" for path in parity.PATHS for size in parity.PAGE_SIZES))
        for family in families.FAMILIES:
            row = [(family, path, size) for path in parity.PATHS for size in parity.PAGE_SIZES]
            print(
                f"{family:<14}"
                + "".join(f"{matrix.get(cell, '-' if cell not in due else 'EMPTY')!s:<14}" for cell in row)
            )
    assert matrix, "no cell was run"
    assert due <= set(matrix), f"cells that did not run or failed: {sorted(due - set(matrix))}"
