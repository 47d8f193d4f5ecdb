def pages_for_budget(
    free_bytes: int, bytes_per_token: int, page_size: int, max_batch_size: int, max_seq_length: int
) -> int:
    """How many pages the pool gets when the caller does not say.  [4.3 · ★★☆ · 10 min]

    As many as fit into `free_bytes` next to the sink page, but no more than `max_batch_size` sequences of
    `max_seq_length` tokens can ever hold.

    Args:
        free_bytes: memory that the pool may take; what others use is already off.
        bytes_per_token: from `kv_bytes_per_token`.
        page_size: tokens in a page.
        max_batch_size, max_seq_length: sequences at once, and tokens in each.

    Returns:
        Number of usable pages, the sink not counted; at least 1.

    Raises:
        MemoryError: not even one page and the sink fit.

    >>> pages_for_budget(10_000, bytes_per_token=100, page_size=16, max_batch_size=8, max_seq_length=64)
    5
    >>> pages_for_budget(10**9, bytes_per_token=100, page_size=16, max_batch_size=8, max_seq_length=65)
    40
    """
    page_bytes = page_size * bytes_per_token
    usable = (free_bytes - page_bytes) // page_bytes  # one page is the sink
    if usable <= 0:
        raise MemoryError(
            f"{free_bytes:,} bytes are free, but one page and the sink take {2 * page_bytes:,}; use a smaller page_size or model"
        )
    pages_per_sequence, rest = divmod(max_seq_length, page_size)
    return min(usable, (pages_per_sequence + bool(rest)) * max_batch_size)
