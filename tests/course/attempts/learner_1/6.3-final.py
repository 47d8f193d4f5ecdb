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
    # p >= min_p * p_max, in logarithms: the normaliser of the softmax drops out.  log(0) = -inf keeps all.
    below_best_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)
    return logits_BV.where(below_best_BV >= min_p_B.log()[:, None], -math.inf)
