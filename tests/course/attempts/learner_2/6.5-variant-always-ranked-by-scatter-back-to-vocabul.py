def sample(logits_BV: Tensor, batch: SamplingBatch, position_B: Tensor) -> Tensor:
    """Choose one token a row.  [6.5 · ★★☆ · 20 min]

    A row with temperature 0 gets its most likely token, as if it were alone.  The others get a random one with the
    probabilities that are left after temperature, top-k, top-p and min-p, in this order.  Adding Gumbel noise to
    log-probabilities and taking the largest draws from exactly that distribution, and a constant in a row changes nothing,
    so logits do as well.

    Args:
        logits_BV: as the model gave them, any float dtype; not changed.
        batch: the rows' parameters.  If `batch.all_greedy`, nothing but the largest logit is looked for.
        position_B: int64, the place of the new token in its sequence; with the seed it decides the noise.

    Returns:
        int64 token ids, one a row.  Nothing here waits for the device.

    A row that holds NaN or plus infinity, or nothing but minus infinity, has no distribution.  It gets its argmax, which
    prefers NaN: whoever wants to know looks at the logit of the chosen token.

    >>> batch = SamplingBatch.of([SamplingParams(), SamplingParams(temperature=1, top_k=2)], seeds=[0, 7])
    >>> sample(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0]]), batch, torch.tensor([4, 4])).tolist()
    [1, 0]
    """
    best = logits_BV.argmax(-1)
    if batch.all_greedy:
        return best
    x_BV = logits_BV.float()
    ranked, ids = rank(x_BV, x_BV.shape[1])
    y = keep_top_p(keep_top_k(with_temperature(ranked, batch.temperature_B), batch.top_k_B), batch.top_p_B)
    y = keep_min_p(torch.empty_like(y).scatter_(1, ids, y), batch.min_p_B)
    every = torch.arange(y.shape[1], device=y.device).expand_as(y)
    drawn = (y + gumbel_noise(batch.seed_B, position_B, every)).argmax(1)
    top = x_BV.amax(1)
    return drawn.where((batch.temperature_B > 0) & (top.abs() < math.inf), best)
