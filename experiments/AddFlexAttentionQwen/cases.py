"""What is measured: models, masks, cases, and what each case costs on paper.  Nothing here imports torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

WINDOW = 1024
MEAN_DOCUMENT = 1024
BLOCK = 128  # queries and keys in a block of FlexAttention's mask

SHARED: dict[str, Any] = dict(
    vocab_size=151936, num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, rms_norm_eps=1e-6
)
TINY: dict[str, Any] = dict(  # to see whether everything runs, and to compare logits on a CPU
    vocab_size=1024,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
SHAPES: dict[str, dict[str, Any]] = {  # of the published models; what SHARED says is the same for all
    "tiny": TINY,
    "0.6b": dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16),
    "1.7b": dict(hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16),
    "4b": dict(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
    "8b": dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32),
    "14b": dict(hidden_size=5120, intermediate_size=17408, num_hidden_layers=40, num_attention_heads=40),
    "32b": dict(hidden_size=5120, intermediate_size=25600, num_hidden_layers=64, num_attention_heads=64),
}
UNTIED = ("8b", "14b", "32b")  # the smaller ones use the embedding as the last layer too

LABELS = {
    "ours": "FlexAttention (ours)",
    "hf_flex": "flex_attention of transformers",
    "sdpa": "sdpa, dense mask",
    "sdpa_causal": "sdpa, is_causal",
    "per_document": "sdpa, a call per document",
    "varlen": "flash with lengths (varlen_attn)",
    "last_keys": "sdpa on the window's keys",
    "eager": "eager",
}
"""The implementations that are compared.  The last three but `eager` are rivals that get the mask's structure by hand."""


@dataclass(frozen=True)
class Case:
    """One row of the result.

    work: "forward" of the whole model; "backward": forward and backward through all layers (not the vocabulary's);
        "decode": one new token in each row, `length` - 1 tokens in the cache.
    mask: "causal", "packed" (causal documents of mixed length), "window" (causal, the last 1,024 tokens).
    """

    implementation: str
    work: str
    mask: str
    length: int
    batch: int = 1
    mean_document: int = MEAN_DOCUMENT
    dtype: str = "bfloat16"

    @property
    def tokens(self) -> int:
        return self.batch * (1 if self.work == "decode" else self.length)


@dataclass(frozen=True)
class Size:
    """A model's numbers, as counting needs them."""

    hidden: int
    inner: int
    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @property
    def layer_weights(self) -> int:
        """Weights of the matrix products of one layer."""
        heads = 2 * self.q_heads + 2 * self.kv_heads  # q, o, k, v
        return self.hidden * (heads * self.head_dim + 3 * self.inner)

    @property
    def weights(self) -> int:
        return self.layers * self.layer_weights + self.vocab * self.hidden * (1 if self.tied else 2)


def size_of(shape: dict[str, Any], tied: bool) -> Size:
    shape = SHARED | shape
    return Size(
        hidden=shape["hidden_size"],
        inner=shape["intermediate_size"],
        layers=shape["num_hidden_layers"],
        q_heads=shape["num_attention_heads"],
        kv_heads=shape["num_key_value_heads"],
        head_dim=shape["head_dim"],
        vocab=shape["vocab_size"],
        tied=tied,
    )


# ------------------------------------------------------------------------------------------------------- documents


def document_lengths(length: int, mean: int, seed: int) -> list[int]:
    """Lengths of the documents that fill a row: mixed (exponential, about as texts are), with this mean, none empty."""
    n = max(1, round(length / mean))
    draw = random.Random(seed)
    weights = [draw.expovariate(1.0) + 0.02 for _ in range(n)]
    ends = [i + 1 + round((length - n) * sum(weights[: i + 1]) / sum(weights)) for i in range(n)]
    return [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def documents_of(case: Case) -> list[list[int]]:
    """The documents of each row.  One a row, unless the mask is "packed"."""
    if case.mask != "packed" or case.mean_document >= case.length:
        return [[case.length]] * case.batch
    return [document_lengths(case.length, case.mean_document, seed=row) for row in range(case.batch)]


# --------------------------------------------------------------------------------------------------- what it costs


def visible_pairs(case: Case) -> int:
    """Pairs of a query and a key that it may read, over all rows, for one head of one layer."""
    if case.work == "decode":
        return case.batch * (min(WINDOW, case.length) if case.mask == "window" else case.length)
    if case.mask == "window":
        outside = max(0, case.length - WINDOW)
        return case.batch * (case.length * (case.length + 1) // 2 - outside * (outside + 1) // 2)
    return sum(n * (n + 1) // 2 for row in documents_of(case) for n in row)


def all_pairs(case: Case) -> int:
    return case.tokens * case.length


def flops(case: Case, size: Size) -> dict[str, float]:
    """What the mask leaves to compute: {"linear", "attention", "all"}.  A multiplication and an addition count as two.

    A backward pass counts as twice the forward one, whatever an implementation computes again.
    """
    times = 3 if case.work == "backward" else 1
    linear = 2.0 * size.layers * size.layer_weights * case.tokens * times
    if case.work != "backward":  # logits of the last token of each row
        linear += 2.0 * size.vocab * size.hidden * case.batch
    attention = 4.0 * size.head_dim * size.q_heads * size.layers * visible_pairs(case) * times
    return {"linear": linear, "attention": attention, "all": linear + attention}


def bytes_needed(case: Case, size: Size) -> int:
    """An estimate of the memory that a case takes at its peak, weights included: to know before it is tried."""
    item = {"float32": 4, "bfloat16": 2}[case.dtype]
    queries = 1 if case.work == "decode" else case.length
    backward = case.work == "backward"
    entries = case.batch * queries * case.length  # of a dense mask, or of one head's scores
    heads = size.q_heads + 2 * size.kv_heads
    # Tensors that live at the same time in a layer.
    work = case.tokens * item * (10 * size.hidden + 4 * size.inner + 6 * heads * size.head_dim)
    making = 0
    if case.implementation == "eager":  # scores, scores with the mask, a float32 softmax, and that as `item`
        work += entries * (item + size.q_heads * (3 * item + 4))
    elif case.implementation == "sdpa" and case.work != "decode":  # the mask as bool, and as numbers for the kernel
        work += entries * (1 + item)
    elif case.implementation in ("ours", "hf_flex"):  # torch makes the mask dense for a moment to find the blocks
        making = entries * 6
    total = size.weights * item + max(work, making)
    if backward:
        total += size.weights * item + size.layers * bytes_kept(case, size, item, entries)
    if case.work == "decode":
        total += 2 * size.layers * case.batch * size.kv_heads * case.length * size.head_dim * item
    return total


def bytes_kept(case: Case, size: Size, item: int, entries: int) -> int:
    """What a backward pass needs of one layer, as counted on the saved tensors of Qwen3; norms are kept in float32."""
    normed = (size.q_heads + size.kv_heads) * size.head_dim
    kept = case.tokens * (item * (5 * size.inner + 4 * size.hidden + 2 * normed) + 4 * (2 * size.hidden + normed))
    if case.implementation == "eager":
        kept += size.q_heads * entries * (item + 4)
    elif case.implementation == "sdpa":  # the mask as numbers, made anew in each layer
        kept += entries * item
    return kept


# ---------------------------------------------------------------------------------------------------- the programme


@dataclass(frozen=True)
class Group:
    """Cases that one process does, one after another."""

    name: str
    cases: tuple[Case, ...]


def programme(device: str) -> list[Group]:
    """All cases, most telling first: what does not fit into the time stays undone from the end."""
    return _on_gpu() if device == "cuda" else _on_cpu()


def _cases(
    implementation: str, work: str, mask: str, lengths: list[int], batch: int = 1, **more: Any
) -> tuple[Case, ...]:
    return tuple(Case(implementation, work, mask, length, batch, **more) for length in lengths)


def _on_gpu() -> list[Group]:
    every, some, few = [512, 1024, 2048, 4096, 8192, 16384, 32768], [512, 2048, 8192, 16384, 32768], [2048, 16384]
    sparsity = [256, 512, 2048, 4096, 8192, 16384]

    def packed(implementation: str, lengths: list[int], means: list[int]) -> tuple[Case, ...]:
        return (
            *_cases(implementation, "forward", "packed", lengths[::-1]),
            *(
                case
                for mean in means
                for case in _cases(implementation, "forward", "packed", [16384], mean_document=mean)
            ),
            *_cases(implementation, "forward", "packed", [2048], batch=8),
        )

    def group(implementation: str, *cases: tuple[Case, ...]) -> Group:
        done = tuple(case for several in cases for case in several)
        return Group(f"{implementation}, {done[0].work}", done)

    def backward(name: str, *masks: str) -> Group:
        both = [_cases(name, "backward", mask, few[::-1]) for mask in masks]
        return group(name, *both, _cases(name, "backward", masks[0], [32768]))

    def decode(name: str) -> Group:
        return group(
            name,
            _cases(name, "decode", "causal", [512, 4096, 32768]),
            _cases(name, "decode", "causal", [4096], batch=32),
            _cases(name, "decode", "window", [4096], batch=32),
            _cases(name, "decode", "window", [32768]),
        )

    return [
        group(
            "ours",
            packed("ours", every, sparsity),
            _cases("ours", "forward", "causal", some[::-1]),
            _cases("ours", "forward", "window", some[:0:-1]),
            _cases("ours", "forward", "causal", [2048], batch=8),
        ),
        group("sdpa", packed("sdpa", every, [256, 16384]), _cases("sdpa", "forward", "window", some[1:])),
        group(
            "sdpa_causal",
            _cases("sdpa_causal", "forward", "causal", every),
            _cases("sdpa_causal", "forward", "causal", [2048], batch=8),
        ),
        group("per_document", packed("per_document", every, sparsity)),
        group("varlen", packed("varlen", every, sparsity), _cases("varlen", "forward", "window", some[1:])),
        backward("ours", "packed", "causal"),
        backward("sdpa", "packed"),
        backward("sdpa_causal", "causal"),
        decode("ours"),
        decode("sdpa"),
        group(
            "last_keys",
            _cases("last_keys", "decode", "window", [4096], batch=32),
            _cases("last_keys", "decode", "window", [32768]),
        ),
        group(
            "hf_flex",
            _cases("hf_flex", "forward", "packed", few[::-1]),
            _cases("hf_flex", "forward", "causal", few[::-1]),
            _cases("hf_flex", "backward", "packed", [16384]),
            _cases("hf_flex", "decode", "causal", [4096], batch=32),
        ),
        backward("varlen", "packed"),
        backward("per_document", "packed"),
        group("eager", _cases("eager", "forward", "packed", [512, 2048, 8192, 16384, 32768])),
        decode("eager"),
        backward("eager", "packed"),
    ]


def _on_cpu() -> list[Group]:
    lengths, some = [512, 1024, 2048, 4096], [512, 2048, 4096]
    groups = []
    forwards: dict[str, dict[str, list[int]]] = {
        "ours": {"packed": lengths, "causal": some, "window": [4096]},
        "sdpa": {"packed": lengths, "window": [4096]},
        "sdpa_causal": {"causal": some},
        "per_document": {"packed": lengths},
        "eager": {"packed": some},
        "hf_flex": {"packed": [512, 2048]},
    }
    for name, masks in forwards.items():
        cases = [case for mask, some in masks.items() for case in _cases(name, "forward", mask, some)]
        if name in ("ours", "sdpa", "per_document"):
            means = (4096,) if name == "sdpa" else (256, 4096)  # a dense mask costs the same whatever it holds
            cases += [case for mean in means for case in _cases(name, "forward", "packed", [4096], mean_document=mean)]
            cases += _cases(name, "forward", "packed", [512], batch=4)
        if name not in ("hf_flex", "sdpa_causal"):
            cases += _cases(name, "backward", "packed", [1024])
        if name in ("ours", "sdpa", "eager"):
            cases += _cases(name, "decode", "causal", [512, 4096])
            cases += _cases(name, "decode", "window", [4096], batch=4)
        groups.append(Group(name, tuple(replace(case, dtype="float32") for case in cases)))
    last = _cases("last_keys", "decode", "window", [4096], batch=4, dtype="float32")
    return [*groups, Group("last_keys", last)]


def only(groups: list[Group], keep: Callable[[Case], bool]) -> list[Group]:
    kept = [Group(group.name, tuple(filter(keep, group.cases))) for group in groups]
    return [group for group in kept if group.cases]
