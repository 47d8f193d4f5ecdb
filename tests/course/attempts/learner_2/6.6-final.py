def top_logprobs(logits_BV: Tensor, tokens_B: Tensor, k: int) -> list[dict[int, float]]:
    """The log-probabilities of the `k` most likely tokens of each row and of the chosen one.  [6.6 · ★☆☆ · 10 min]

    Args:
        logits_BV: as the model gave them, before temperature and filters; any float dtype.
        tokens_B: int64, the chosen tokens.
        k: 0 or more; above V it means V, the whole distribution.

    Returns:
        One dict a row, token id -> natural logarithm of its probability, most likely first.  It has k entries, or k + 1 if
        the chosen token is not among the k most likely.

    >>> top_logprobs(torch.zeros(1, 4), torch.tensor([3]), k=0)
    [{3: -1.3862943649291992}]
    """
    logits_BV = logits_BV.float()
    logprob_BV = logits_BV.log_softmax(dim=-1)
    _, likely_BK = rank(logits_BV, k)
    token_BK = torch.cat([likely_BK, tokens_B[:, None]], dim=-1)  # a key that is there already keeps its place
    value_BK = logprob_BV.gather(-1, token_BK)
    return [dict(zip(*row, strict=True)) for row in zip(token_BK.tolist(), value_BK.tolist(), strict=True)]
