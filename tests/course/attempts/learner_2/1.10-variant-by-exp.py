def soft_cap(cap: float) -> ScoreMod:
    """Gemma 2's soft cap: squeeze scores smoothly into (-cap, cap).  [1.10 · ★☆☆ · 5 min]

    Args:
        cap: the bound, above 0.

    Returns:
        A `score_mod`: cap · tanh(score / cap).  FlexAttention applies it before the mask, so a masked key stays masked.

    >>> round(soft_cap(2.0)(torch.tensor(4.0), None, None, None, None).item(), 3)
    1.928

    Source: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, §2.
    """
    def mod(score, b, h, q_idx, kv_idx):
        return cap - 2 * cap / (torch.exp(2 * score / cap) + 1)
    return mod
