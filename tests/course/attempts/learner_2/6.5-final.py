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
    best_B = logits_BV.argmax(dim=-1)  # prefers NaN
    if batch.all_greedy:
        return best_B

    logits_BV, V = logits_BV.float(), logits_BV.shape[-1]
    if batch.candidates == 0:  # nobody asks for an order
        kept_BK = with_temperature(logits_BV, batch.temperature_B)
        token_BK = torch.arange(V, device=logits_BV.device).expand_as(logits_BV)
    else:
        ranked_BK, token_BK = rank(logits_BV, min(batch.candidates, V))
        kept_BK = with_temperature(ranked_BK, batch.temperature_B)
        kept_BK = keep_top_k(kept_BK, batch.top_k_B)
        kept_BK = keep_top_p(kept_BK, batch.top_p_B)
    kept_BK = keep_min_p(kept_BK, batch.min_p_B)

    score_BK = kept_BK + gumbel_noise(batch.seed_B, position_B, token_BK)
    # Where scores are equal the lowest id wins, in whatever order the batch made the candidates come.
    winner_BK = score_BK == score_BK.amax(dim=-1, keepdim=True)
    drawn_B = token_BK.where(winner_BK, V).amin(dim=-1)

    no_distribution_B = ~logits_BV.amax(dim=-1).isfinite()
    return torch.where((batch.temperature_B == 0) | no_distribution_B, best_B, drawn_B)
