def least_step_seconds(
    machine: Machine,
    weights: int,
    bytes_per_weight: int,
    new_tokens: int,
    cached_tokens: int,
    kv_bytes_per_token: int,
) -> float:
    bytes_read = weights * bytes_per_weight + cached_tokens * kv_bytes_per_token
    operations = 2 * weights * new_tokens
    return max(bytes_read / machine.bytes_per_second, operations / machine.flops_per_second)
