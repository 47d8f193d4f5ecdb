def keep_min_p(logits_BV: Tensor, min_p_B: Tensor) -> Tensor:
    """Keep the tokens that are at least `min_p` times as likely as the most likely one of their row.  [6.3 · ★☆☆ · 10 min]

    Args:
        logits_BV: float32 logits in any order; -inf where dropped before; not changed.
        min_p_B: float32 in [0, 1], one a row.  0 keeps all; 1 keeps the most likely token and its equals.

    Returns:
        float32 [B, V], -inf where a token is dropped.

    >>> keep_min_p(torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([0.5])).exp()
    tensor([[0.0000, 0.5000, 0.3000]])

    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", 2024.
    """
    best_B1, _ = logits_BV.max(dim=-1, keepdim=True)
    share_B1 = min_p_B[:, None]
    unlikely_BV = logits_BV < best_B1 + share_B1.log()  # log 0 is -inf: nothing lies below
    return logits_BV.masked_fill(unlikely_BV & (share_B1 > 0), -math.inf)
