def keep_top_k(ranked_BV: Tensor, top_k_B: Tensor) -> Tensor:
    """Keep the k most likely tokens of each row.  [6.1 · ★☆☆ · 5 min]

    Args:
        ranked_BV: float32 logits, each row in order, most likely first; not changed.
        top_k_B: int64, at least 0, one a row.  0 keeps all, and so does a number above V.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_top_k(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 0])).tolist()
    [[3.0, -inf, -inf], [3.0, 2.0, 1.0]]

    Source: Fan et al., "Hierarchical Neural Story Generation", 2018, §5.4.
    """
    vocab_size = ranked_BV.shape[-1]
    kept_B = torch.where(top_k_B == 0, vocab_size, top_k_B)
    place_V = torch.arange(vocab_size, device=ranked_BV.device)
    return ranked_BV.masked_fill(place_V >= kept_B[:, None], -math.inf)
