# Your copy of solutions/flexnano/model_probe.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash b96d4d712721d0ce
"""Look at a stock transformers model once, before the engine trusts it.  (Given, not an exercise.)

The engine replaces attention from outside: it registers a function with transformers' attention interface and passes its
own mask, positions and slots through `model(...)`. transformers then builds no mask, so that a model that bypasses the
interface, ignores `position_ids` or masks in a way of its own would give fluent nonsense without any error. `probe`
therefore runs the model on a few tokens and refuses, by name and before the first request, what would not be served right:

1. *What the configuration says*: encoder-decoder, RoPE that depends on the longest row, kinds of layers, devices.
2. *What arrives in attention* in a plain forward: heads, scale, window, soft cap, and the mask that transformers built
   for each layer, whose rule is evaluated far beyond the few tokens, up to `max_seq_length`.
3. *What comes out*: two documents interleaved token by token in one row, with the engine's keyword arguments, must give
   the logits that the model's own eager forward gives for each document alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

PROBE = "flexnano_probe"
ENGINE_KWARGS = ("flex_attn_block_mask", "flex_attn_input_pos", "flex_attn_batch_idx", "flex_attn_kernel_options")
ALLOWED_LAYER_TYPES = ("full_attention", "sliding_attention")
# What models hand to attention besides q, k and v that either the engine applies too, or that only asks for more output.
KNOWN_KWARGS = {
    *("scaling", "sliding_window", "softcap", "is_causal", "dropout", "position_ids", "use_cache", "logits_to_keep"),
    *("output_attentions", "output_hidden_states", "output_router_logits"),
    *ENGINE_KWARGS,
}
# Median relative error of the logits. A lost mask or lost positions give errors near 1; rounding stays far below these.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.15}


class UnsupportedModel(ValueError):
    """The engine would not give this model's own tokens; the message says why and what to do."""


@dataclass(frozen=True)
class LayerSpec:
    """One attention layer, as its model calls it.

    `name` is the module's path in the model; `layer_idx` counts the layers from 0. A key is visible to a query iff
    0 ≤ query position - key position < `window`; None means every earlier key, also where a window is longer than the
    `max_seq_length` that was probed. Scores are q·k × `scale`, then softcap × tanh(score / softcap) if there is one.
    """

    module: nn.Module
    name: str
    layer_idx: int
    q_heads: int
    kv_heads: int
    head_dim: int
    value_head_dim: int
    scale: float
    window: int | None
    softcap: float | None


def probe(model: PreTrainedModel, max_seq_length: int) -> list[LayerSpec]:
    """Return the attention layers of `model` in the order in which they run, or refuse the model by name.

    Runs a few tokens through the model, on its own device and in its own dtype, without gradients. Afterwards, also
    after an error, the model's configuration and attention implementation are what they were.

    Args:
        model: a causal language model of transformers; its dtype is float32, bfloat16 or float16.
        max_seq_length: the longest sequence that will be served, prompt and output, in tokens; at least 1.

    Raises:
        TypeError: `model` is not a `transformers.PreTrainedModel`.
        UnsupportedModel: (a ValueError) the engine could not give this model's own tokens.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers.PreTrainedModel, not {type(model).__name__}: load it with "
            "AutoModelForCausalLM.from_pretrained(...); merge an adapter first, and don't wrap it in torch.compile"
        )
    check_configuration(model, max_seq_length)
    with torch.no_grad(), _restored(model):
        layers = read_layers(model, max_seq_length)
        check_numbers(model, layers, max_seq_length)
    return layers


# --------------------------------------------------------------------------- 1. what the configuration says


def check_configuration(model: PreTrainedModel, max_seq_length: int) -> None:
    """Refuse what can be told without running the model."""
    config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder:
        _refuse(model, "is an encoder-decoder model", "decoder-only models", "Use a causal language model.")
    if model.get_output_embeddings() is None:
        _refuse(model, "has no language-model head", "causal language models", "Load it with AutoModelForCausalLM.")
    devices = sorted({parameter.device.type + str(parameter.device.index or "") for parameter in model.parameters()})
    if len(devices) > 1 or "meta" in devices:  # what accelerate keeps elsewhere is "meta"
        _refuse(model, f"lies on {', '.join(devices)}", "one device", 'Load it with device_map="cuda".')
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        _refuse(model, "is quantised", "float32, bfloat16 and float16", "Load it without a quantization_config.")
    if model.dtype not in TOLERANCE:
        _refuse(model, f"has dtype {model.dtype}", "float32, bfloat16 and float16", "Convert it with model.to(...).")
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in model.modules()):
        _refuse(model, "is in training mode with dropout", "evaluation mode", "Call model.eval() first.")

    strange = sorted({str(kind) for kind in getattr(config, "layer_types", None) or ()} - set(ALLOWED_LAYER_TYPES))
    if strange:
        _refuse(model, f"has layers of type {', '.join(strange)}", " and ".join(ALLOWED_LAYER_TYPES))
    if shared := getattr(config, "num_kv_shared_layers", None):
        _refuse(model, f"has {shared} layers that read another layer's keys and values", "0")
    if (bidirectional := getattr(config, "use_bidirectional_attention", None)) in (True, "all"):
        _refuse(model, f"has use_bidirectional_attention={bidirectional!r}", "causal attention")
    for argument in ("position_ids", "logits_to_keep"):
        if argument not in inspect.signature(model.forward).parameters:
            _refuse(model, f"has no argument {argument}", "models that take position_ids and logits_to_keep")
    _check_rope(model, max_seq_length)
    limit = getattr(config, "max_position_embeddings", None) or max_seq_length
    if max_seq_length > limit and not any("Rotary" in type(module).__name__ for module in model.modules()):
        # A table of positions: past its end lies an IndexError on a CPU, a dead process on a GPU.
        found = f"has a table of {limit} positions, max_seq_length={max_seq_length}"
        _refuse(model, found, f"max_seq_length ≤ {limit}", f"Use max_seq_length={limit}.")


def _check_rope(model: PreTrainedModel, max_seq_length: int) -> None:
    """Refuse RoPE whose frequencies depend on the longest row: a token would change with the company that it is in."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layer_type, kind in (kinds if isinstance(kinds, dict) else {None: kinds}).items():
            if "dynamic" in str(kind):
                _refuse(model, f"has RoPE of type {kind!r}, which changes with the longest row", "RoPE of a fixed type")
            if kind == "longrope":
                parameters = module.config.rope_parameters
                parameters = parameters if layer_type is None else parameters[layer_type]
                original = parameters.get("original_max_position_embeddings") or module.config.max_position_embeddings
                if max_seq_length > original:
                    found = f"has LongRoPE, which changes beyond {original} tokens; max_seq_length={max_seq_length}"
                    _refuse(model, found, f"max_seq_length ≤ {original}", f"Use max_seq_length={original}.")


# --------------------------------------------------------------------------- 2. what arrives in attention


@dataclass
class _Call:
    """One call of attention."""

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    kwargs: dict[str, Any]


@dataclass
class _Recorder:
    """An attention function that remembers its calls, and the mask function that transformers asks beside it."""

    visible: Callable[[int], torch.Tensor] | None = None  # i-th call → bool [Q, K]; None: use the mask that comes
    calls: list[_Call] = field(default_factory=list)
    masks: list[tuple[torch.Tensor, Callable[..., torch.Tensor]]] = field(default_factory=list)

    def attention(self, module, query, key, value, attention_mask=None, **kwargs):  # type: ignore[no-untyped-def]
        """q `[B, Hq, Q, D]`, k and v `[B, Hk, K, D]` → `[B, Q, Hq, Dv]`: textbook attention, in float32."""
        self.calls.append(_Call(module, query, key, value, attention_mask, kwargs))
        if self.visible is not None:
            attention_mask = self.visible(len(self.calls) - 1)
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        groups = query.shape[1] // key.shape[1]
        scores = query.float() @ key.float().repeat_interleave(groups, 1).mT * scale
        if cap := kwargs.get("softcap"):
            scores = cap * torch.tanh(scores / cap)
        if attention_mask is not None:
            is_bool = attention_mask.dtype == torch.bool
            scores = scores.masked_fill(~attention_mask, -torch.inf) if is_bool else scores + attention_mask
        out = scores.softmax(-1) @ value.float().repeat_interleave(groups, 1)
        return out.to(query.dtype).transpose(1, 2).contiguous(), None

    def mask(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Build the mask that eager attention would get, and keep the rule that it was made from."""
        mask = eager_mask(*args, **kwargs)
        self.masks.append((mask, kwargs["mask_function"]))
        return mask

    def rule_of(self, mask: Any) -> Callable[..., torch.Tensor] | None:
        """The rule behind a mask that arrived, also if the model cut it to size, but not if it added something."""
        if isinstance(mask, torch.Tensor):
            for made, rule in self.masks:
                if made is not None and made.untyped_storage().data_ptr() == mask.untyped_storage().data_ptr():
                    return rule
        return None


def read_layers(model: PreTrainedModel, max_seq_length: int) -> list[LayerSpec]:
    """Run a few plain tokens and read off each layer's attention; refuse what is not causal self-attention once a layer."""
    recorder = _Recorder()
    ids = _token_ids(model, n_tokens=min(8, max_seq_length))
    with _registered(model, recorder.attention, recorder.mask):
        _forward(model, "a plain forward", input_ids=ids[:1])

    n_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    calls = recorder.calls
    if len(calls) != n_layers or len({id(call.module) for call in calls}) != n_layers:
        modules = len({id(call.module) for call in calls})
        found = f"calls the attention interface {len(calls)} times from {modules} modules for its {n_layers} layers"
        why = "(attention code of its own, linear attention or Mamba layers, or layers that run twice)"
        _refuse(model, f"{found} {why}", "once a layer")

    names = {id(module): name for name, module in model.named_modules()}
    windows: dict[int, int | None] = {}  # by rule: the layers share two rules at most
    layers = []
    for layer_idx, call in enumerate(calls):
        name = names.get(id(call.module)) or _refuse(model, "gives attention a strange module", "a module of its own")
        _check_call(model, name, call)
        rule = recorder.rule_of(call.mask)
        if rule is None:
            _refuse(model, f"gives {name} a mask of its own (position bias?)", "the mask that transformers creates")
        if id(rule) not in windows:
            windows[id(rule)] = _window_of(model, name, rule, max_seq_length)
        (_, q_heads, _, head_dim), kv_heads = call.query.shape, call.key.shape[1]
        scale, softcap = call.kwargs.get("scaling"), call.kwargs.get("softcap")
        layers.append(
            LayerSpec(
                module=call.module,
                name=name,
                layer_idx=layer_idx,
                q_heads=q_heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                value_head_dim=call.value.shape[-1],
                scale=head_dim**-0.5 if scale is None else float(scale),
                window=windows[id(rule)],
                softcap=None if softcap is None else float(softcap),
            )
        )
    return layers


def _check_call(model: PreTrainedModel, name: str, call: _Call) -> None:
    module, kwargs = call.module, call.kwargs
    if getattr(module, "kv_cache", None) is not None:
        _refuse(model, f"is in use: {name} has a kv_cache", "one engine a model", "Call the other engine's close().")
    if getattr(module, "is_causal", True) is False or kwargs.get("is_causal") is False:
        _refuse(model, f"has bidirectional attention in {name} (is_causal is False)", "causal attention")
    if not call.query.shape[2] == call.key.shape[2] == call.value.shape[2]:
        found = f"has {call.query.shape[2]} queries and {call.key.shape[2]} keys in {name}"
        _refuse(model, found, "self-attention over the tokens that are given")
    if call.query.shape[1] % call.key.shape[1]:
        _refuse(model, f"has {call.query.shape[1]} query and {call.key.shape[1]} key heads in {name}", "a multiple")
    if kwargs.get("dropout"):
        _refuse(model, f"has dropout {kwargs['dropout']} active in {name}", "0", "Call model.eval() first.")
    for key in ("scaling", "softcap"):
        if not isinstance(kwargs.get(key, 1.0), (int, float, type(None))):
            _refuse(model, f"has a {key} in {name} that is not one number", "a Python number")
    if unknown := sorted(key for key, value in kwargs.items() if key not in KNOWN_KWARGS and value is not None):
        _refuse(model, f"passes {', '.join(unknown)} to attention in {name}", "q, k, v, scale, window and soft cap")


def _window_of(model: PreTrainedModel, name: str, rule: Callable[..., torch.Tensor], max_seq_length: int) -> int | None:
    """Read the window off the rule itself, at several queries up to `max_seq_length`; refuse any other pattern."""
    last = max_seq_length - 1
    key = torch.arange(max_seq_length, device=model.device)
    window = max_seq_length
    for query in sorted({last, last - 1, last // 2, last // 3, 1, 0} & set(range(max_seq_length)), reverse=True):
        try:
            visible = rule(0, 0, torch.tensor(query, device=key.device), key).expand(max_seq_length)
        except (IndexError, RuntimeError, TypeError) as error:
            found = f"masks {name} by what the tokens are, not by their positions alone"
            _refuse(model, found, "a causal mask, with or without a window", cause=error)
        if query == last:
            window = int(visible.sum())
        if window == 0 or not torch.equal(visible, (key <= query) & (query - key < window)):
            found = f"masks {name} neither causally nor by a sliding window (query {query} of {max_seq_length})"
            _refuse(model, found, "a causal mask, with or without a window")
    return window if window < max_seq_length else None


# --------------------------------------------------------------------------- 3. what comes out


def check_numbers(model: PreTrainedModel, layers: list[LayerSpec], max_seq_length: int) -> None:
    """Two documents in one row, through the engine's keyword arguments, must give the logits of each one alone."""
    # Longer than a tiny window, so that the window is seen to work; a long one was read off the mask's own rule.
    tiny_windows = [layer.window for layer in layers if layer.window is not None and layer.window <= 16]
    n = min(max([4, *tiny_windows]) + 8, max_seq_length)
    ids = _token_ids(model, n)  # [2, n]
    model.set_attn_implementation("eager")
    expected = _forward(model, "its eager forward", input_ids=ids).logits.reshape(2 * n, -1)

    # Interleaved, neighbours in the row belong to different documents: a model that counts positions itself, or mixes
    # neighbouring tokens outside attention (convolutions, token shift), can't pass, as it would with one after the other.
    document = torch.arange(2, device=ids.device).repeat(n)
    position = torch.arange(n, device=ids.device).repeat_interleave(2)
    distance = position[:, None] - position
    causal = (document[:, None] == document) & (distance >= 0)

    def visible(layer_idx: int) -> torch.Tensor:
        window = layers[layer_idx].window if layer_idx < len(layers) else None
        return causal if window is None else causal & (distance < window)

    recorder = _Recorder(visible)
    sentinels = {key: object() for key in ENGINE_KWARGS}
    keep = torch.arange(2 * n, device=ids.device).view(n, 2).T.reshape(-1)[1:]  # document by document; one token less
    with _registered(model, recorder.attention, mask=None):
        engine_kwargs = dict(position_ids=position[None], logits_to_keep=keep, **sentinels)
        logits = _forward(model, "a packed forward", input_ids=ids.T.reshape(1, -1), **engine_kwargs).logits

    if [call.module for call in recorder.calls] != [layer.module for layer in layers]:
        _refuse(model, "calls other attention modules in a packed forward than in a plain one", "the same ones")
    for layer, call in zip(layers, recorder.calls, strict=True):
        if lost := [key for key, sentinel in sentinels.items() if call.kwargs.get(key) is not sentinel]:
            found = f"does not pass {', '.join(lost)} on to attention in {layer.name}"
            _refuse(model, found, "models that pass unknown keyword arguments on to every layer")
    if logits.shape[:2] != (1, 2 * n - 1):
        found = f"gave logits of shape {list(logits.shape)} for logits_to_keep with {2 * n - 1} indices"
        _refuse(model, found, "models that take logits_to_keep as an index tensor")

    if not expected.isfinite().all():
        _refuse(model, "gives logits that are not finite", "finite logits", "Check its weights and dtype.")
    error = _relative_error(logits[0], expected[1:])
    # Over all tokens, and over the first ones of the second document, where anything leaking in from the first shows most.
    worst = max(error.median().item(), error[n - 1 : n + 2].median().item())
    tolerance = TOLERANCE[model.dtype]
    if model.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        tolerance = TOLERANCE[torch.float16]  # TF32 rounds like float16
    if not worst <= tolerance:
        found = f"does not follow position_ids and the engine's mask: packed logits are off by {worst:.2g} (relative)"
        _refuse(model, found, f"at most {tolerance:g} in {str(model.dtype).removeprefix('torch.')}")


def _relative_error(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """`[T, V]`, `[T, V]` → `[T]`. Without each token's mean logit, which softmax ignores and which can be large."""
    logits, expected = logits.float(), expected.float()
    expected = expected - expected.mean(-1, keepdim=True)
    return (logits - logits.mean(-1, keepdim=True) - expected).norm(dim=-1) / expected.norm(dim=-1)


# --------------------------------------------------------------------------- helpers


def _token_ids(model: PreTrainedModel, n_tokens: int) -> torch.Tensor:
    """int64 `[2, n_tokens]`: fixed ordinary tokens, none of the special ones, which may mean an image or padding."""
    config = model.config.get_text_config(decoder=True)
    values = [
        v for c in (model.config, config) for k, v in c.to_dict().items() if k.endswith(("token_id", "token_index"))
    ]
    special = {i for value in values for i in (value if isinstance(value, list) else [value])}
    ordinary = [i for i in range(min(config.vocab_size, 50_000)) if i not in special]
    order = torch.randint(len(ordinary), (2, n_tokens), generator=torch.Generator().manual_seed(0))
    return torch.tensor(ordinary)[order].to(model.get_input_embeddings().weight.device)


def _forward(model: PreTrainedModel, what: str, **inputs: Any) -> Any:
    try:
        return model(use_cache=False, **inputs)
    except (UnsupportedModel, torch.OutOfMemoryError):
        raise
    except Exception as error:
        _refuse(model, f"failed in {what}: {type(error).__name__}: {error}", "models that run it", cause=error)


@contextmanager
def _registered(
    model: PreTrainedModel, attention: Callable[..., Any], mask: Callable[..., torch.Tensor] | None
) -> Iterator[None]:
    """Let the model's attention go through `attention`; without `mask`, transformers builds none, as with the engine's."""
    AttentionInterface.register(PROBE, attention)
    if mask is not None:
        AttentionMaskInterface.register(PROBE, mask)
    try:
        try:
            model.set_attn_implementation(PROBE)
        except ValueError as error:
            _refuse(model, f"does not take an attention function: {error}", "the attention interface", cause=error)
        if model.config.get_text_config(decoder=True)._attn_implementation != PROBE:
            _refuse(model, "has attention code of its own", "models on transformers' attention interface")
        yield
    finally:
        AttentionInterface._global_mapping.pop(PROBE, None)
        AttentionMaskInterface._global_mapping.pop(PROBE, None)


@contextmanager
def _restored(model: PreTrainedModel) -> Iterator[None]:
    """Put back each configuration's attention implementation; the setter would check again, and write into all at once."""
    configs: dict[int, Any] = {}
    pending = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    while pending:
        config = pending.pop()
        if config is not None and id(config) not in configs:
            configs[id(config)] = config
            pending += [getattr(config, key, None) for key in config.sub_configs]
    before = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _refuse(
    model: PreTrainedModel, found: str, allowed: str, todo: str = "Use another model.", cause: Exception | None = None
) -> NoReturn:
    raise UnsupportedModel(f"{type(model).__name__} {found}. Allowed: {allowed}. {todo}") from cause
