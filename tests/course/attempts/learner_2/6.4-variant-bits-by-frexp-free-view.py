def gumbel_noise(seed_B: Tensor, position_B: Tensor, token_BK: Tensor) -> Tensor:
    """Gumbel noise for each row and token, a pure function of seed, position and token id.  [6.4 · ★★★ · 25 min]

    Mixing the seed, then the position, then the id with `mix64` gives 64 bits that look random and depend on nothing else.
    Read as u between 0 and 1, they become Gumbel noise as −log(−log(1 − u)).

    Args:
        seed_B: int64, one a row.
        position_B: int64, one a row.
        token_BK: int64 ids of the tokens that need noise, in any order, all or some of the vocabulary.

    Returns:
        float32 [B, K], finite.  Same seed, position and id give the same bits in any batch, at any place and on any device;
        only the last digit of the logarithms may differ between a CPU and a GPU.

    >>> seed_B, position_B, token_BK = torch.tensor([7, 8]), torch.tensor([30, 30]), torch.tensor([[0, 1, 2], [2, 1, 0]])
    >>> both = gumbel_noise(seed_B, position_B, token_BK)
    >>> alone = gumbel_noise(seed_B[1:], position_B[1:], token_BK[1:, :2])
    >>> torch.equal(alone, both[1:, :2])
    True

    Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    x = torch.zeros_like(token_BK)
    for n in (seed_B.unsqueeze(1), position_B.unsqueeze(1), token_BK):
        x = mix64(x * 31 + n + STRIDE)
    one_two = (_shift_right(x, 12) | (1023 << 52)).view(torch.float64)  # 1 <= . < 2
    u = one_two - 1 + 2.0**-53
    return (-(-(-u).log1p()).log()).float()
