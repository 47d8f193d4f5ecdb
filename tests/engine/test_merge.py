"""Products of the same input that are computed as one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flexnano.merge import Part, merge_products, split_products


class Layer(nn.Module):
    """Attention's and the MLP's products, all of them in what comes out."""

    def __init__(
        self, bias: bool, order: str = "qkv", inputs: Callable[[Tensor, str], Tensor] = lambda x, _: x
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, n, bias=bias) for n in (8, 4, 4))
        self.gate_proj, self.up_proj = (nn.Linear(8, 16, bias=bias) for _ in range(2))
        self.order, self.inputs = order, inputs

    def forward(self, x: Tensor) -> Tensor:
        attention = [getattr(self, f"{name}_proj")(self.inputs(x, name)) for name in self.order]
        return torch.cat([*attention, self.gate_proj(x).relu() * self.up_proj(x)], dim=-1)


def times_of(name: str) -> float:
    return {"q": 1.0, "k": 2.0, "v": 3.0}[name]


def assert_the_same(layers: list[Layer]) -> None:
    x = torch.randn(5, 8)
    alone = [layer(x) for layer in layers]
    merge_products(layers)
    for layer, wanted in zip(layers, alone, strict=True):
        for _ in range(2):
            torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("bias", [False, True])
def test_parts_give_what_the_layers_gave(bias: bool) -> None:
    layers = [Layer(bias), Layer(bias)]
    assert_the_same(layers)
    assert all(isinstance(layer.up_proj, Part) for layer in layers)


@pytest.mark.parametrize("order", ["kqv", "vkq", "qq", "vv", "vqk"])
def test_in_whatever_order_they_are_called(order: str) -> None:
    assert_the_same([Layer(False, order)])


def test_a_part_with_an_input_of_its_own_gets_its_own_product() -> None:
    assert_the_same([Layer(False, "qkv", lambda x, name: x * times_of(name))])


def test_nothing_is_kept_after_a_step() -> None:
    layer = Layer(False)
    merge_products([layer])
    layer(torch.randn(5, 8))
    for part in (layer.q_proj, layer.up_proj):
        assert isinstance(part, Part)
        assert part.together.input is None and part.together.output is None


def test_no_weight_is_there_twice_and_the_layers_come_back() -> None:
    layer = Layer(True)
    before, values = dict(layer.named_modules()), {name: value.clone() for name, value in layer.state_dict().items()}
    replaced = merge_products([layer])
    storages = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    assert len(storages) == 4, "weights and biases of two merged products"
    split_products(replaced)
    assert dict(layer.named_modules()) == before
    assert layer.state_dict().keys() == values.keys()
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=0)


def test_what_does_not_fit_together_stays_as_it_is() -> None:
    other_input, half, special = Layer(False), Layer(False), Layer(False)
    other_input.k_proj = nn.Linear(6, 4, bias=False)
    half.up_proj.half()

    class Special(nn.Linear):
        """Does more than a product, perhaps."""

    special.q_proj = Special(8, 8, bias=False)
    merge_products([other_input, half, special])
    assert type(other_input.q_proj) is type(half.gate_proj) is type(special.v_proj) is nn.Linear


def test_a_layer_that_somebody_watches_or_has_changed_stays_as_it_is() -> None:
    watched, changed = Layer(False), Layer(False)
    watched.k_proj.register_forward_hook(lambda *_: None)
    changed.up_proj.forward = lambda input: input  # type: ignore[method-assign]
    merge_products([watched, changed])
    assert type(watched.q_proj) is type(changed.gate_proj) is nn.Linear
    assert isinstance(watched.gate_proj, Part) and isinstance(changed.q_proj, Part)


def test_where_memory_runs_out_all_layers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Layer(False), Layer(False)]
    cat, calls = torch.cat, []

    def full(tensors: list[Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError
        return cat(tensors)

    monkeypatch.setattr(torch, "cat", full)
    with pytest.raises(torch.OutOfMemoryError):
        merge_products(layers)
    assert not any(isinstance(module, Part) for layer in layers for module in layer.modules())


def test_layers_compile_once_for_all() -> None:
    layers = [Layer(False) for _ in range(3)]
    x = torch.randn(5, 8)
    with torch.inference_mode():
        alone = [layer(x) for layer in layers]
        merge_products(layers)
        torch._dynamo.reset()
        graphs: list[torch.fx.GraphModule] = []

        def keep(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
            graphs.append(graph)
            return graph.forward

        for layer, wanted in zip(layers, alone, strict=True):
            layer.compile(fullgraph=True, dynamic=False, backend=keep)
            torch.testing.assert_close(layer(x), wanted)
    assert len(graphs) == 1, "each layer was compiled anew"
    products = [node for node in graphs[0].graph.nodes if node.op == "call_function" and "linear" in str(node.target)]
    assert len(products) == 2, f"{len(products)} products where two are enough: {products}"
