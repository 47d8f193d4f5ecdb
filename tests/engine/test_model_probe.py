"""The probe accepts what the engine can serve, describes it rightly, and refuses the rest by name.

The last tests sweep transformers' causal language models, built tiny: whatever the probe accepts must then give its own
logits through the engine's keyword arguments, packed and token by token, on sequences longer than the windows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, HEAD_DIM, VOCAB, WINDOW, TinyTokenizer, assert_not_blind, reference_logits, tiny_config
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.llama import modeling_llama

from flexnano.model_probe import LayerSpec, UnsupportedModel, probe

MAX_SEQ_LENGTH = 256

# --------------------------------------------------------------------------- the families


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_depends_on_its_whole_prompt(family: str) -> None:
    assert_not_blind(FAMILIES[family]())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_described_as_its_configuration_says(family: str) -> None:
    model = FAMILIES[family]()
    config = model.config
    layers = probe(model, MAX_SEQ_LENGTH)

    modules = dict(model.named_modules())
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    if family in ("mistral", "starcoder2", "phi3") and config.sliding_window is not None:
        kinds = ["sliding_attention"] * config.num_hidden_layers
    assert [layer.layer_idx for layer in layers] == list(range(config.num_hidden_layers))
    for layer, kind in zip(layers, kinds, strict=True):
        assert modules[layer.name] is layer.module
        assert f".{layer.layer_idx}." in layer.name
        heads = (layer.q_heads, layer.kv_heads, layer.head_dim, layer.value_head_dim)
        assert heads == (config.num_attention_heads, config.num_key_value_heads, HEAD_DIM, HEAD_DIM)
        assert layer.window == (WINDOW if kind == "sliding_attention" else None)
    scale = {"gemma2": 24**-0.5, "gemma3_text": 24**-0.5, "granite": 0.2}.get(family, HEAD_DIM**-0.5)
    assert {layer.scale for layer in layers} == {scale}
    assert {layer.softcap for layer in layers} == {5.0 if family == "gemma2" else None}


def test_the_families_cover_windows_soft_caps_and_shared_key_value_heads() -> None:
    layers = {family: probe(build(), MAX_SEQ_LENGTH) for family, build in FAMILIES.items()}
    windows = {family: {layer.window for layer in specs} for family, specs in layers.items()}
    assert windows["gemma2"] == windows["gemma3_text"] == {None, WINDOW}
    assert windows["mistral"] == {WINDOW}
    assert all(layer.q_heads > layer.kv_heads for specs in layers.values() for layer in specs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_in_half_precision_is_no_reason_to_refuse(family: str, dtype: torch.dtype) -> None:
    assert len(probe(FAMILIES[family]().to(dtype), MAX_SEQ_LENGTH)) >= 2


@pytest.mark.parametrize("build", [lambda: FAMILIES["gemma2"](), lambda: make("gpt_oss")], ids=["accepted", "refused"])
def test_the_model_is_left_as_it_was(build: Callable[[], PreTrainedModel]) -> None:
    model = build().train()
    model.set_attn_implementation("eager")
    config, weights = copy.deepcopy(model.config.to_dict()), copy.deepcopy(model.state_dict())
    try:
        probe(model, MAX_SEQ_LENGTH)
    except UnsupportedModel:
        assert type(model).__name__ == "GptOssForCausalLM"
    assert model.config._attn_implementation == "eager"
    assert model.config.to_dict() == config
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not any(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())
    assert "flexnano_probe" not in AttentionInterface._global_mapping
    assert "flexnano_probe" not in AttentionMaskInterface._global_mapping


def test_the_model_is_left_as_it_was_after_an_error_inside_it() -> None:
    model = FAMILIES["llama"]()

    def fails(*_: Any) -> None:
        raise RuntimeError("the disk of this layer is on fire")

    hook = model.model.layers[1].register_forward_hook(fails)
    with pytest.raises(UnsupportedModel, match=r"LlamaForCausalLM failed .* on fire"):
        probe(model, MAX_SEQ_LENGTH)
    assert model.config._attn_implementation == "sdpa"
    hook.remove()
    assert len(probe(model, MAX_SEQ_LENGTH)) == 2


def test_running_out_of_memory_is_not_the_models_fault() -> None:
    model = FAMILIES["llama"]()

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    model.model.layers[1].register_forward_hook(fails)
    with pytest.raises(torch.OutOfMemoryError, match="20 GiB"):
        probe(model, MAX_SEQ_LENGTH)
    assert model.config._attn_implementation == "sdpa"


# --------------------------------------------------------------------------- windows


@pytest.mark.parametrize("max_seq_length", [1, 2, 3, WINDOW - 1, WINDOW])
def test_a_window_that_no_sequence_outgrows_is_no_window(max_seq_length: int) -> None:
    assert {layer.window for layer in probe(FAMILIES["mistral"](), max_seq_length)} == {None}


@pytest.mark.parametrize("window", [1, 2, 3, 16, 17, 100])
def test_a_window_is_the_number_of_keys_that_a_query_sees_itself_among_them(window: int) -> None:
    config = tiny_config("mistral")
    config.sliding_window = window
    layers = probe(transformers.MistralForCausalLM(config), MAX_SEQ_LENGTH)
    assert {layer.window for layer in layers} == {window}


def test_the_mask_decides_about_the_window_not_what_a_layer_says_beside_it() -> None:
    """Only flash attention reads `sliding_window` from the call; the mask of eager attention is what the model means."""
    model = FAMILIES["llama"]()
    add_to_the_call(model, sliding_window=3)
    assert {layer.window for layer in probe(model, MAX_SEQ_LENGTH)} == {None}


# --------------------------------------------------------------------------- refused by name


def make(model_type: str, **differences: Any) -> PreTrainedModel:
    """A tiny model of any type that transformers can load for causal language modelling."""
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    return model_class(shrunk(CONFIG_MAPPING[model_type], **differences)).float().eval()


def llama(**differences: Any) -> PreTrainedModel:
    config = tiny_config("llama")
    for key, value in differences.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def phi3_with_longrope(original: int) -> PreTrainedModel:
    factors = dict(short_factor=[1.0] * (HEAD_DIM // 2), long_factor=[4.0] * (HEAD_DIM // 2))
    config = tiny_config("phi3")
    config.original_max_position_embeddings = original
    config.rope_parameters = dict(
        rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=original, factor=4.0, **factors
    )
    return transformers.Phi3ForCausalLM(config).eval()


def gemma3_with_dynamic_rope() -> PreTrainedModel:
    config = tiny_config("gemma3_text")
    config.rope_parameters = dict(config.rope_parameters)
    config.rope_parameters["full_attention"] = dict(rope_type="dynamic", rope_theta=1e6, factor=2.0)
    return transformers.Gemma3ForCausalLM(config).eval()


def partly_on_another_device() -> PreTrainedModel:
    model = llama()
    model.model.layers[1].to("meta")  # where accelerate leaves what it loads from a disk when it is needed
    return model


def quantised() -> PreTrainedModel:
    model = llama()
    model.is_quantized = True
    return model


def in_use() -> PreTrainedModel:
    model = llama()
    model.model.layers[1].self_attn.kv_cache = object()
    return model


def with_dropout(**differences: Any) -> PreTrainedModel:
    return make("gpt2", **differences).train()


LOCAL_GLOBAL = ["sliding_attention", "full_attention"] * 2

REFUSED: dict[str, tuple[Callable[[], PreTrainedModel], int, str]] = {
    # what: (how to build it, max_seq_length, what the message must say)
    "attention code of its own": (lambda: make("falcon"), 64, "attention code of its own"),
    "mamba": (lambda: make("mamba"), 64, "linear_attention"),
    "hybrid": (lambda: make("qwen3_next"), 64, "linear_attention"),
    "convolution layers": (lambda: make("lfm2", layer_types=["conv", "full_attention"] * 2), 64, "type conv"),
    "chunked attention": (lambda: make("llama4_text"), 64, "chunked_attention"),
    "alibi": (lambda: make("bloom"), 64, "position_ids"),
    "attention sinks": (lambda: make("gpt_oss"), 64, "s_aux"),
    "shared keys": (
        lambda: make("gemma4_text", layer_types=LOCAL_GLOBAL, num_kv_shared_layers=2),
        64,
        "2 layers that read another layer's",
    ),
    "attention twice a layer": (lambda: make("diffllama"), 64, "8 times from 4 modules for its 4 layers"),
    "cross-attention": (lambda: make("mllama"), 64, "for its 4 layers"),
    "a mask of its own": (lambda: make("doge"), 64, "a mask of its own"),
    "bidirectional": (lambda: make("bert", is_decoder=False), 64, "bidirectional"),
    "bidirectional by configuration": (
        lambda: make("gemma3_text", use_bidirectional_attention=True),
        64,
        "bidirection",
    ),
    "positions after the padding id": (lambda: make("roberta"), 64, "position_ids"),
    "dynamic RoPE": (
        lambda: llama(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)),
        64,
        "'dynamic', which changes with the longest row",
    ),
    "dynamic RoPE in some layers": (gemma3_with_dynamic_rope, 64, "'dynamic'"),
    "LongRoPE beyond the original length": (lambda: phi3_with_longrope(64), 65, "max_seq_length=65. Allowed: .* ≤ 64"),
    "more than the learned positions": (lambda: make("gpt2", n_positions=64), 65, "table of 64 positions"),
    "more than OPT's positions": (lambda: make("opt", max_position_embeddings=64), 65, "table of 64 positions"),
    "encoder-decoder": (
        lambda: transformers.T5ForConditionalGeneration(shrunk(transformers.T5Config)),
        64,
        "encoder-dec",
    ),
    "an encoder-decoder's decoder": (lambda: make("bart"), 64, "position_ids"),
    "no head": (lambda: transformers.LlamaModel(tiny_config("llama")), 64, "language-model head"),
    "keyword arguments that get lost": (lambda: make("stablelm"), 64, "does not pass flex_attn_block_mask"),
    "dropout": (lambda: with_dropout(), 64, r"model.eval\(\)"),
    "dropout in attention": (lambda: llama(attention_dropout=0.1).train(), 64, r"dropout 0.1 .* model.eval\(\)"),
    "several devices": (partly_on_another_device, 64, "lies on cpu, meta"),
    "quantised": (quantised, 64, "quantised"),
    "float64": (lambda: llama().double(), 64, "float64"),
    "a second engine": (in_use, 64, "is in use"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what: str) -> None:
    build, max_seq_length, says = REFUSED[what]
    model = build()
    before = model.config._attn_implementation
    with pytest.raises(UnsupportedModel, match=says) as refusal:
        probe(model, max_seq_length)
    message = str(refusal.value)
    assert message.startswith(type(model).__name__), f"must say which model: {message}"
    assert "Allowed: " in message, f"must say what is allowed: {message}"
    assert message.rstrip(".").split(". ")[-1].split()[0] in ("Use", "Load", "Call", "Convert"), (
        f"and what to do: {message}"
    )
    assert isinstance(refusal.value, ValueError)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("build", "max_seq_length"),
    [
        (lambda: phi3_with_longrope(64), 64),
        (lambda: make("gpt2", n_positions=64), 64),
        (lambda: make("opt", max_position_embeddings=64), 64),
        (lambda: with_dropout(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), 64),
        (lambda: llama(max_position_embeddings=64), 65),
        (lambda: llama(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)), 64),
    ],
    ids=["LongRoPE within", "GPT-2 within", "OPT within", "training without dropout", "RoPE beyond", "linear RoPE"],
)
def test_accepted_up_to_the_limit(build: Callable[[], PreTrainedModel], max_seq_length: int) -> None:
    model = build()
    assert len(probe(model, max_seq_length)) == model.config.num_hidden_layers


@pytest.mark.parametrize("model", [nn.Linear(2, 2), "google/gemma-2b", None], ids=["module", "name", "None"])
def test_what_is_no_transformers_model_is_a_type_error(model: Any) -> None:
    with pytest.raises(
        TypeError, match=r"transformers.PreTrainedModel, not (Linear|str|NoneType).*AutoModelForCausalLM"
    ):
        probe(model, 64)


# --------------------------------------------------------------------------- the net under it all: numbers


def add_to_the_call(model: PreTrainedModel, **extra: Any) -> None:
    """Have every attention layer pass something more to the attention function."""
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, **extra}), with_kwargs=True)


def counts_positions_itself(model: PreTrainedModel) -> None:
    rotary = model.model.rotary_emb
    forward = rotary.forward
    rotary.forward = lambda x, position_ids: forward(x, torch.arange(x.shape[1])[None])


def mixes_neighbours(model: PreTrainedModel) -> None:
    mlp = model.model.layers[0].mlp
    mlp.register_forward_hook(lambda _, __, out: out + 0.5 * out.roll(1, 1).index_fill(1, torch.tensor([0]), 0.0))


def ignores_logits_to_keep(model: PreTrainedModel) -> None:
    forward = model.forward

    def all_logits(*args: Any, position_ids: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        return forward(*args, position_ids=position_ids, **kwargs)

    model.forward = all_logits


def adds_a_bias_to_scores(model: PreTrainedModel) -> None:
    def biased(_: nn.Module, args: Any, kwargs: Any) -> Any:
        mask = kwargs["attention_mask"]
        return args, kwargs | {"attention_mask": None if mask is None else mask - 0.1}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(biased, with_kwargs=True)


def replaces_an_argument(model: PreTrainedModel) -> None:
    add_to_the_call(model, flex_attn_input_pos=torch.arange(8))


def runs_a_layer_twice(model: PreTrainedModel) -> None:
    model.model.layers[1] = model.model.layers[0]


def is_not_causal(model: PreTrainedModel) -> None:
    model.config.is_causal = False


def has_no_numbers(model: PreTrainedModel) -> None:
    model.model.norm.weight.data.fill_(torch.nan)


BROKEN: dict[str, tuple[Callable[[PreTrainedModel], None], str]] = {
    "counts positions itself": (counts_positions_itself, "does not follow position_ids and the engine's mask"),
    "mixes neighbours outside attention": (mixes_neighbours, "does not follow position_ids and the engine's mask"),
    "ignores logits_to_keep": (ignores_logits_to_keep, r"logits of shape \[1, \d+, 199\] for logits_to_keep"),
    "adds a position bias to the mask": (adds_a_bias_to_scores, "a mask of its own"),
    "passes something unknown to attention": (lambda model: add_to_the_call(model, tau=2.0), "passes tau to attention"),
    "is not causal": (is_not_causal, "bidirectional attention"),
    "replaces an argument of the engine": (replaces_an_argument, "does not pass flex_attn_input_pos on to attention"),
    "runs a layer twice": (runs_a_layer_twice, "calls the attention interface 2 times from 1 modules for its 2 layers"),
    "gives NaN": (has_no_numbers, "not finite"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_would_be_served_wrong_is_refused(what: str, dtype: torch.dtype) -> None:
    model = FAMILIES["llama"]().to(dtype)
    assert len(probe(model, MAX_SEQ_LENGTH)) == 2, "right before it is broken"
    breaks, says = BROKEN[what]
    breaks(model)
    with pytest.raises(UnsupportedModel, match=f"LlamaForCausalLM .*{says}"):
        probe(model, MAX_SEQ_LENGTH)


def sees_a_prefix(_batch: Any, _head: Any, _query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return key < 5


def sees_its_own_kind(ids: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda batch, _head, query, key: ids[batch, query] == ids[batch, key]


@pytest.mark.parametrize(
    ("also_visible", "says"),
    [
        (sees_a_prefix, "neither causally nor by a sliding window"),
        (sees_its_own_kind(torch.zeros(1, 8)), "what the tokens are"),
    ],
    ids=["a prefix", "tokens of one kind"],
)
def test_any_other_mask_is_refused(
    also_visible: Callable[..., torch.Tensor], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = modeling_llama.create_causal_mask
    monkeypatch.setattr(modeling_llama, "create_causal_mask", partial(create, or_mask_function=also_visible))
    with pytest.raises(UnsupportedModel, match=f"LlamaForCausalLM masks .*{says}"):
        probe(FAMILIES["llama"](), MAX_SEQ_LENGTH)


# --------------------------------------------------------------------------- the sweep


class CachedAttention:
    """What the engine does, as plainly as can be: a list of keys and values per layer and document, and textbook masks."""

    NAME = "flexnano_test"

    def __init__(self, layers: list[LayerSpec]) -> None:
        self.specs = {id(layer.module): layer for layer in layers}
        self.keys: dict[tuple[int, int], torch.Tensor] = {}  # (layer, document) → [Hk, T, D]
        self.values: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_, **kwargs: Any
    ):  # type: ignore[no-untyped-def]
        """Rows and columns belong to `flex_attn_batch_idx` `[B, Q]` and stand at `flex_attn_input_pos` `[B, Q]`."""
        spec = self.specs[id(module)]
        documents, positions = kwargs["flex_attn_batch_idx"], kwargs["flex_attn_input_pos"]
        out = torch.zeros(query.shape[0], query.shape[2], spec.q_heads, spec.value_head_dim)
        for document in documents.unique().tolist():
            row, column = (documents == document).nonzero().unbind(-1)
            at, position = (spec.layer_idx, document), positions[row, column]
            new_keys, new_values = key[row, :, column].transpose(0, 1), value[row, :, column].transpose(0, 1)
            self.keys[at] = torch.cat([self.keys[at], new_keys], 1) if at in self.keys else new_keys
            self.values[at] = torch.cat([self.values[at], new_values], 1) if at in self.values else new_values
            distance = position[:, None] - torch.arange(self.keys[at].shape[1])
            visible = (distance >= 0) & (distance < (spec.window or MAX_SEQ_LENGTH))
            groups = spec.q_heads // spec.kv_heads
            scores = query[row, :, column].transpose(0, 1) @ self.keys[at].repeat_interleave(groups, 0).mT * spec.scale
            if spec.softcap is not None:
                scores = spec.softcap * (scores / spec.softcap).tanh()
            weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
            out[row, column] = (weights @ self.values[at].repeat_interleave(groups, 0)).transpose(0, 1)
        return out, None


def logits_through_the_engines_arguments(
    model: PreTrainedModel, layers: list[LayerSpec], prompts: list[list[int]], n_decode: int
) -> list[torch.Tensor]:
    """float32 `[T, V]` for each prompt: all but its last `n_decode` tokens packed in one row, the rest one by one."""
    AttentionInterface.register(CachedAttention.NAME, CachedAttention(layers))
    model.set_attn_implementation(CachedAttention.NAME)
    lengths = [len(prompt) - n_decode for prompt in prompts]

    def run(ids: torch.Tensor, document: torch.Tensor, position: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return model(
            input_ids=ids,
            position_ids=position,
            use_cache=False,
            flex_attn_block_mask=None,
            flex_attn_input_pos=position,
            flex_attn_batch_idx=document,
            flex_attn_kernel_options=None,
            **kwargs,
        ).logits

    ids = torch.tensor([[token for prompt, n in zip(prompts, lengths, strict=True) for token in prompt[:n]]])
    document = torch.tensor([[i for i, n in enumerate(lengths) for _ in range(n)]])
    position = torch.tensor([[p for n in lengths for p in range(n)]])
    with torch.no_grad():
        packed = run(ids, document, position, logits_to_keep=torch.arange(ids.shape[1]))
        logits = [list(rows) for rows in packed[0].split(lengths)]
        for step in range(n_decode):
            ids = torch.tensor([[prompt[n + step]] for prompt, n in zip(prompts, lengths, strict=True)])
            position = torch.tensor([[n + step] for n in lengths])
            for rows, new in zip(logits, run(ids, torch.arange(len(prompts))[:, None], position), strict=True):
                rows.append(new[0])
    return [torch.stack(rows) for rows in logits]


def assert_served_right(model: PreTrainedModel, layers: list[LayerSpec]) -> None:
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(10, vocabulary - 30, (90,), generator=torch.Generator().manual_seed(3)).tolist()
    prompts = [ids[:43], ids[43:60], ids[60:]]
    expected = [reference_logits(model, prompt) for prompt in prompts]
    got = logits_through_the_engines_arguments(model, layers, prompts, n_decode=5)
    for ours, theirs in zip(got, expected, strict=True):
        error = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max().item()
        assert error < 1e-3, f"{type(model).__name__} was accepted, but its logits are off by {error:.2g}"


# Sizes by the names that configurations use for them; a configuration takes those that it knows.
SIZES: dict[int, str] = {
    1: "n_group topk_group",
    2: "num_key_value_heads num_kv_heads num_experts_per_tok moe_topk moe_k",
    4: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_decoder_layers num_attention_heads "
    "n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_encoder_layers num_experts "
    "num_decoder_attention_heads num_encoder_attention_heads num_local_experts n_routed_experts",
    8: "qk_rope_head_dim rotary_dim",
    16: "head_dim kv_channels attention_head_dim qk_nope_head_dim v_head_dim attention_chunk_size d_kv",
    WINDOW: "sliding_window attention_window local_window_size sliding_window_size window_size",
    32: "q_lora_rank kv_lora_rank",
    48: "moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size",
    64: "hidden_size d_model n_embd embed_dim dim embedding_size lru_width word_embed_proj_dim input_dim hidden_dim "
    "input_hidden_size decoder_hidden_size",
    96: "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim d_ff dim_ff ffn_hidden_size",
    512: "max_position_embeddings n_positions max_target_positions max_seq_len n_ctx",
    VOCAB: "vocab_size vocab_size_per_layer_input",
}
SIZE_OF = {name: size for size, names in SIZES.items() for name in names.split()}


def shrunk(config_class: type, **differences: Any) -> Any:
    """A tiny configuration of any class, with weights wide enough that position and mask show in the logits."""
    known = set(config_class().to_dict()) | set(config_class.attribute_map)
    sizes = {name: size for name, size in SIZE_OF.items() if name in known}
    if "qk_rope_head_dim" in known:  # latent attention: heads of their own, rotated in part
        sizes |= {"head_dim": 8, "num_key_value_heads": 4}
    fixed = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, is_decoder=True)
    fixed |= dict(initializer_range=0.2, tie_word_embeddings=False)
    sizes |= {name: value for name, value in fixed.items() if name in known}
    sizes = {name: size for name, size in sizes.items() if config_class.attribute_map.get(name) not in sizes}
    for name, sub_class in config_class.sub_configs.items():
        if hasattr(sub_class, "model_type"):
            sizes[name] = shrunk(sub_class).to_dict()
    return config_class(**(sizes | differences))


def verdict(model_type: str) -> str:
    """Build it, probe it, and if it is accepted prove that it is served right. Says what happened."""
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    for differences in ({}, {"num_key_value_heads": 4}):
        try:
            config = shrunk(CONFIG_MAPPING[model_type], **differences)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in model_class(copy.deepcopy(config)).parameters())
            if size > 50e6:
                return f"not built   {size / 1e6:.0f} million parameters"
            torch.manual_seed(0)
            model = model_class(config).float().eval()
            break
        except Exception as error:
            why = f"{type(error).__name__}: {error}".replace("\n", " ")
    else:
        return f"not built   {why[:150]}"
    try:
        layers = probe(model, MAX_SEQ_LENGTH)
    except UnsupportedModel as refusal:
        assert str(refusal).startswith(type(model).__name__)
        return f"refused     {str(refusal).removeprefix(type(model).__name__ + ' ').replace(chr(10), ' ')}"
    model.set_attn_implementation("eager")  # of a model with a vision tower, not all parts can go back to sdpa
    assert_served_right(model, layers)
    windows = {layer.window for layer in layers} - {None}
    return f"accepted    {len(layers)} layers, windows {windows or 'none'}, soft cap {layers[0].softcap}"


ACCEPTED = (
    "gpt2",
    "opt",
    "gpt_neox",
    "phi",
    "mixtral",
    "olmo3",
    "cohere2",
    "deepseek_v3",
    "gemma4_text",
    "modernbert-decoder",
)


@pytest.mark.parametrize("model_type", ACCEPTED)
def test_other_models_that_are_accepted_are_served_right(model_type: str) -> None:
    assert verdict(model_type).startswith("accepted")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_served_right_through_the_engines_arguments(family: str) -> None:
    model = FAMILIES[family]()
    assert_served_right(model, probe(model, MAX_SEQ_LENGTH))


def test_a_wrong_window_would_be_noticed_here() -> None:
    """The check above can fail: the same model with the window that is off by one."""
    model = FAMILIES["mistral"]()
    layers = [LayerSpec(**{**vars(layer), "window": WINDOW + 1}) for layer in probe(model, MAX_SEQ_LENGTH)]
    with pytest.raises(AssertionError, match="off by"):
        assert_served_right(model, layers)


@pytest.mark.slow
def test_every_causal_model_of_transformers_is_refused_or_served_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table: type of model, accepted or refused, and why."""
    table, wrong = [], []
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            outcome = verdict(model_type)
        except Exception as error:
            outcome = f"WRONG       {type(error).__name__}: {error}"
            wrong.append(model_type)
        table.append(f"{model_type:26} {outcome}")
        with capsys.disabled():
            print(table[-1], flush=True)
    assert not wrong, f"accepted but not served right, or an error without a name: {wrong}"
    assert sum(" accepted " in row for row in table) >= 60, "the sweep must not pass by building nothing"


def test_the_tiny_tokenizer_speaks_the_tiny_models_ids() -> None:
    tokenizer = TinyTokenizer()
    assert tokenizer("w17 w4 nonsense")["input_ids"] == [17, 4, 3]
    assert tokenizer.decode([17, 4]) == "w17 w4"
    assert len(tokenizer) == VOCAB
