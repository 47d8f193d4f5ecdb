# Your copy of solutions/flexnano/compile.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash 33244b651e03e8a6
"""Module 07: compiling.  One layer is compiled and used for all."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

from torch import nn
from torch._C._dynamo.eval_frame import reset_code

if TYPE_CHECKING:
    from .model_probe import LayerSpec


def decoder_layers(model: nn.Module, layers: list[LayerSpec]) -> list[nn.Module]:
    """The blocks of a model that hold its attention layers, in order: attention, norms and MLP of one layer each.

    >>> from types import SimpleNamespace
    >>> model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(1, 1)})])})
    >>> decoder_layers(model, [SimpleNamespace(name="layers.0.attn")]) == [model["layers"][0]]
    True
    """
    return [model.get_submodule(layer.name.rpartition(".")[0]) for layer in layers]


def compile_layers(model: nn.Module, layers: list[LayerSpec]) -> None:
    """Compile each decoder layer by itself.  [7.4 · ★★☆ · 10 min]

    The layers run the same code on tensors of the same shapes, so the first one that is called is compiled, and all others
    use what it made: 26 layers for the price of one.  The whole model at once would be unrolled and take minutes.

    Use `module.compile(...)`, which compiles what calling the module does and leaves the module itself in its place, with
    fullgraph=True, so that a break in the graph is an error and no silent loss, and dynamic=False: FlexAttention takes its
    decode kernel only where the batch size is a constant.

    Args:
        model: of transformers.
        layers: what the probe found; `decoder_layers` gives the modules to compile.

    Returns:
        Nothing.
    """
    raise NotImplementedError("Exercise 7.4: compile_layers")


def give_own_code(model: nn.Module, layers: list[LayerSpec]) -> list[nn.Module]:
    """Let the layers run a copy of their class's code, one for all of them.  Given.

    What is compiled for them then belongs to one engine alone, and goes with it: it holds the engine's masks and buffers.

    Returns:
        Those that do now, for `take_back_code`; not those that somebody else has given a forward of their own.
    """
    copies: dict[Callable[..., object], Callable[..., object]] = {}
    changed = [layer for layer in decoder_layers(model, layers) if "forward" not in vars(layer)]
    for layer in changed:
        own = type(layer).forward
        if own not in copies:
            copy = FunctionType(
                own.__code__.replace(), own.__globals__, own.__name__, own.__defaults__, own.__closure__
            )
            copy.__kwdefaults__ = own.__kwdefaults__
            copies[own] = copy
        layer.forward = MethodType(copies[own], layer)
    return changed


def take_back_code(changed: list[nn.Module]) -> None:
    """Take back what `give_own_code` did, and free what was compiled.  Given."""
    for layer in changed:
        # dynamo keeps compiled graphs with the code, in a circle that Python never collects.
        reset_code(vars(layer).pop("forward").__code__)


SetAside = list[tuple[dict[int, Callable[..., object]], int, Callable[..., object]]]
"""Hooks that were taken from modules: (the module's hooks, which one, the hook)."""


def set_capturing_aside(model: nn.Module, layers: list[LayerSpec]) -> SetAside:
    """Take away the hooks that transformers leaves on a model once asked for its attentions.  Given.

    They do nothing unless it is asked again, but what they look at can't be compiled.
    """
    taken: SetAside = []
    for module in (part for layer in decoder_layers(model, layers) for part in layer.modules()):
        for number, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
                taken.append((module._forward_hooks, number, module._forward_hooks.pop(number)))
    return taken


def put_capturing_back(taken: SetAside) -> None:
    """Undo `set_capturing_aside`.  Given."""
    for hooks, number, hook in taken:
        hooks[number] = hook


def uncompile_layers(model: nn.Module, layers: list[LayerSpec]) -> None:
    """Take back what `compile_layers` did.  Given."""
    for layer in decoder_layers(model, layers):
        layer._compiled_call_impl = None
