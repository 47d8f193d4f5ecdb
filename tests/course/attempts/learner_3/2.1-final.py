def attention_forward(
    attend: Attend,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    flex_attn_block_mask: StepMask | Mapping[int | None, StepMask],
    flex_attn_input_pos: Tensor | None = None,
    flex_attn_batch_idx: Tensor | None = None,
    flex_attn_kernel_options: dict[str, Any] | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """What each attention layer of the model calls.  [2.1 · ★★★ · 25 min]

    If the layer has a cache (`module.kv_cache`), the new keys and values go through its `update`, which returns the ones
    to read; and the mask is the one for the cache's window, if there is one for each.

    Args:
        attend: computes the attention, on one of the three paths.
        module: the attention layer.
        query: [B, Hq, Q, D], after RoPE.
        key, value: [B, Hk, Q, D]; Hq is a multiple of Hk: query head h reads key head h // (Hq / Hk).
        attention_mask: not used; transformers makes none for a registered function.
        scaling: factor on the scores; None: 1 / sqrt(D).
        softcap: bound of Gemma 2's soft cap, or None.
        flex_attn_block_mask: mask over the keys that are read, or one for each window: {window or None: mask}.
        flex_attn_input_pos, flex_attn_batch_idx: positions and slots, passed on to the cache.
        flex_attn_kernel_options: passed on to the compiled kernel.

    Returns:
        ([B, Q, Hq, D], None): transposed, since the model flattens heads next; a fully masked row is 0.
    """
    cache = getattr(module, "kv_cache", None)
    mask = flex_attn_block_mask
    if cache is not None:
        key, value = cache.update(flex_attn_input_pos, key, value, flex_attn_batch_idx)
        if isinstance(mask, Mapping):
            mask = mask[cache.window]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attend(query, key, value, mask, scale, softcap, flex_attn_kernel_options)
    return out.transpose(1, 2), None
