def least_step_seconds(
    machine: Machine,
    weights: int,
    bytes_per_weight: int,
    new_tokens: int,
    cached_tokens: int,
    kv_bytes_per_token: int,
) -> float:
    from operator import truediv

    # Two workloads, two speeds, divided pairwise: (read, compute) / (read speed, compute speed).
    # Each workload is itself a dot product of counts with the cost of one of each.
    work = (
        sum(count * size for count, size in ((weights, bytes_per_weight), (cached_tokens, kv_bytes_per_token))),
        sum(2 * weights for _ in range(1)) * new_tokens,
    )
    speed = (machine.bytes_per_second, machine.flops_per_second)
    *_, slowest = sorted(map(truediv, work, speed))
    return slowest
