"""The pool takes the share of the free memory that it may take, up to less than a page."""

import pytest

from course.clinic.bench import engine_for, memory_of


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_pools_fill_their_share(kind: str) -> None:
    free = 64 * 1024
    with memory_of(free), engine_for(kind, n_pages=None, max_batch_size=16) as engine:
        taken = sum(pool.nbytes for cache in engine.caches for pool in (cache.k_cache, cache.v_cache))
        page = taken // (engine.page_table.n_pages + 1)
    assert taken <= free // 2 < taken + page
