def keep_top_p(ranked_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Keep the fewest most likely tokens of each row whose probabilities add up to at least p.  [6.2 · ★★☆ · 15 min]

    The token that reaches p is kept, so at least one always is.

    Args:
        ranked_BV: float32 logits, each row in order, most likely first; -inf where dropped before; not changed.
        top_p_B: float32 in (0, 1], one a row.  1 keeps all, also where rounding lets the sum reach 1 early.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_top_p(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), torch.tensor([0.6])).exp()
    tensor([[0.5000, 0.3000, 0.0000, 0.0000]])

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, §3.1.
    """
    # Summed in float64 and rounded to the precision of p, so that neither the number of candidates nor the order of the sum
    # decides what is kept.
    sum_BV = ranked_BV.double().softmax(dim=-1).cumsum(dim=-1).to(top_p_B.dtype)
    p_B1 = top_p_B[:, None]
    # A token goes if those before it reach p already; before the first there are none.
    enough_before_BV = torch.zeros_like(ranked_BV, dtype=torch.bool)
    enough_before_BV[:, 1:] = (sum_BV[:, :-1] >= p_B1) & (p_B1 < 1)
    return ranked_BV.masked_fill(enough_before_BV, -math.inf)
