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
    x = logits_BV.double().log_softmax(-1)
    out = []
    for b in range(len(x)):
        ids = rank(logits_BV[b : b + 1].float(), k)[1][0].tolist()
        t = int(tokens_B[b])
        out.append({i: x[b, i].item() for i in (ids if t in ids else [*ids, t])})
    return out
