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
    V = ranked_BV.shape[-1]
    # In float64, so that the rounding of a long sum, which depends on its length, hardly ever decides.
    upto_BV = ranked_BV.double().softmax(dim=-1).cumsum(dim=-1)
    p_B1 = top_p_B.double()[:, None].contiguous()
    last_B1 = torch.searchsorted(upto_BV, p_B1)  # the first place where the sum is at least p
    last_B1 = last_B1.masked_fill(p_B1 >= 1, V)
    place_V = torch.arange(V, device=ranked_BV.device)
    return ranked_BV.where(place_V <= last_B1, -math.inf)
