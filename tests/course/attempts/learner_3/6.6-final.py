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
    logprobs_BV = logits_BV.float().log_softmax(dim=-1)
    top = logprobs_BV.topk(min(k, logprobs_BV.shape[-1]), dim=-1)
    chosen_B = logprobs_BV.gather(-1, tokens_B[:, None])[:, 0]
    found = []
    for ids, values, token, value in zip(
        top.indices.tolist(), top.values.tolist(), tokens_B.tolist(), chosen_B.tolist(), strict=True
    ):
        entries = dict(zip(ids, values, strict=True))
        entries.setdefault(token, value)
        found.append(entries)
    return found
