def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """A query reads itself and what came before.  [1.1 · ★☆☆ · 5 min]

    Args:
        b, h: batch row and head, integer tensors; not needed here.
        q_idx, kv_idx: positions of query and key, integer tensors of any shapes that broadcast.

    Returns:
        bool tensor of the broadcast shape: True where `kv_idx` is not later than `q_idx`.

    >>> causal(None, None, torch.tensor([0, 1, 2]), torch.tensor(1)).tolist()
    [False, True, True]
    """
    return torch.ge(q_idx, kv_idx)
