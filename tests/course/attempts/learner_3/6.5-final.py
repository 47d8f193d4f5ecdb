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
    logits_BV = logits_BV.float()
    likeliest_B = logits_BV.argmax(dim=-1)
    if batch.all_greedy:
        return likeliest_B
    if batch.candidates:
        candidate_BK, token_BK = rank(logits_BV, batch.candidates)
    else:
        candidate_BK = logits_BV
        token_BK = torch.arange(logits_BV.shape[-1], device=logits_BV.device).expand_as(logits_BV)
    candidate_BK = with_temperature(candidate_BK, batch.temperature_B)
    if batch.candidates:
        candidate_BK = keep_top_p(keep_top_k(candidate_BK, batch.top_k_B), batch.top_p_B)
    candidate_BK = keep_min_p(candidate_BK, batch.min_p_B)
    noisy_BK = candidate_BK + gumbel_noise(batch.seed_B, position_B, token_BK)
    sampled_B = token_BK.gather(-1, noisy_BK.argmax(dim=-1, keepdim=True))[:, 0]
    drawn_B = (batch.temperature_B > 0) & logits_BV.amax(dim=-1).isfinite()
    return sampled_B.where(drawn_B, likeliest_B)
