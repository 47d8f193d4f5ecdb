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
    p_BV = ranked_BV.double().softmax(-1)
    rest_BV = p_BV.flip(-1).cumsum(-1).flip(-1)  # this one and those after it
    keep = (1 - rest_BV < top_p_B[:, None].double()) | (top_p_B[:, None] >= 1)
    keep[:, 0] = True
    return torch.where(keep, ranked_BV, -math.inf)
