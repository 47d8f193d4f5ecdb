"""Module 07: products of the same input become one.  Given.

Queries, keys and values are three products of the same input, gate and up of the MLP are two.  One product with all their
weights reads the same bytes, but begins once: in a decode step of 64 rows in Gemma 2's shape, queries, keys and values take
9 µs a layer on an H100 instead of 19.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What transformers calls them, in the order in which they are called."""


@dataclass
class Together:
    """The weights [sum of outputs, inputs] of several products, and what the first of them computed for the others."""

    weight: Tensor
    bias: Tensor | None
    input: Tensor | None = None
    output: Tensor | None = None


class Part(nn.Linear):
    """A linear layer whose product is computed together with others.

    Whichever is called first computes all, the last one forgets.  Whatever the order, and also where the inputs differ, the
    results are those of separate layers.
    """

    def __init__(self, linear: nn.Linear, together: Together, outputs: slice, is_last: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.together, self.outputs, self.is_last = together, outputs, is_last

    def forward(self, input: Tensor) -> Tensor:
        together = self.together
        if together.input is not input or together.output is None:
            together.input = input
            together.output = nn.functional.linear(input, together.weight, together.bias)
        part = together.output[..., self.outputs]
        if self.is_last:
            together.input = together.output = None
        # FlexAttention's compiled CPU kernel reads a view that begins in the middle of a tensor from its beginning.
        return part if part.is_cuda else part.contiguous()


Replaced = list[tuple[nn.Module, str, nn.Linear]]
"""Where a part stands instead of which layer: (parent, name, layer)."""


@torch.no_grad()
def merge_products(layers: Iterable[nn.Module]) -> Replaced:
    """Put parts in the place of linear layers that share their input.  No weight is there twice: the layers' own become
    views of the merged ones, and stay so.

    Args:
        layers: of a model, to look for them in.

    Returns:
        What `split_products` takes.
    """
    replaced: Replaced = []
    try:
        for parent in (module for layer in layers for module in layer.modules()):
            for names in TOGETHER:
                parts = [getattr(parent, name, None) for name in names]
                # A subclass may do something else, and a part of another engine is merged already.
                linears = [part for part in parts if type(part) is nn.Linear]
                if len(linears) < len(names) or not fit_together(*linears):
                    continue
                weight = torch.cat([linear.weight.data for linear in linears])
                biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
                together = Together(weight, torch.cat(biases) if biases else None)
                end = 0
                for name, linear in zip(names, linears, strict=True):
                    outputs = slice(end, end := end + linear.out_features)
                    linear.weight.data = weight[outputs]
                    if together.bias is not None:
                        linear.bias.data = together.bias[outputs]
                    setattr(parent, name, Part(linear, together, outputs, is_last=name == names[-1]))
                    replaced.append((parent, name, linear))
    except BaseException:  # memory may run out at the last of them
        split_products(replaced)
        raise
    return replaced


def fit_together(*linears: nn.Linear) -> bool:
    """Whether the weights can be one tensor, and nobody has hung anything on the layers."""
    kinds = {(one.in_features, one.weight.dtype, one.weight.device, one.bias is None) for one in linears}
    changed = any("forward" in vars(one) or one._forward_hooks or one._forward_pre_hooks for one in linears)
    return len(kinds) == 1 and not changed


def split_products(replaced: Replaced) -> None:
    """Put the layers back."""
    for parent, name, linear in replaced:
        setattr(parent, name, linear)
