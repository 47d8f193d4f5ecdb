"""What benchmarks.kernel computes from its times.  The kernels themselves need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import kernel
from benchmarks.kernel import Shape

CPU = torch.device("cpu")
TINY = Shape(q_heads=4, kv_heads=2, head_dim=8, hidden=16, intermediate=32, softcap=5.0)


@pytest.fixture(autouse=True)
def a_machine_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel takes 2 µs, and the machine reads 1 GB/s."""
    import flexnano

    machine = flexnano.Machine("by hand", bytes_per_second=1e9, flops_per_second=1e12)
    monkeypatch.setattr(flexnano, "measure_machine", lambda *_: machine)
    monkeypatch.setattr(kernel, "SHAPES", {"tiny": TINY})

    def microseconds(run: Callable[[], object]) -> float:
        run()
        return 2.0

    monkeypatch.setattr(kernel, "microseconds", microseconds)

    def attention_of(softcap: Any, options: Any) -> Callable[..., torch.Tensor]:
        from torch.nn.attention.flex_attention import flex_attention

        def attend(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
            return flex_attention(q, k, v, softcap, mask, enable_gqa=True)

        return attend

    monkeypatch.setattr(kernel, "attention_of", attention_of)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")
def test_decode_counts_the_cache_that_is_read() -> None:
    found = kernel.decode(CPU, [(3, 20, 16)], lambda _: None, pool_tokens=160)
    assert found["read_gb_per_second"] == 1
    for case in found["cases"]:
        # 3 rows of 20 tokens, keys and values, 2 heads of 8, 2 bytes each: 3,840 bytes in 2 µs
        assert case["gb_per_second"] == 2 and case["share"] == 1.92
        assert case["lists"] == "two", "the kernel of CPUs needs both"


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")
def test_prompts_are_tried_with_each_form_of_the_soft_cap() -> None:
    found = kernel.prompts(CPU, {"two": [100, 60]}, lambda _: None)
    assert [(case["soft_cap"], case["us"]) for case in found["cases"]] == [("tanh", 2.0), ("sigmoid", 2.0)]


def test_products_of_the_same_input_are_counted_once_when_merged() -> None:
    [case] = kernel.products(CPU, [5], lambda _: None)["cases"]
    assert case["apart_us"] == 7 * 2.0
    assert case["merged_us"] == 4 * 2.0
    # q, k, v, o: 16 times 32, 16, 16 and 32; gate, up, down: 16 times 32; two operations each for 5 tokens
    assert case["merged_tflops"] == round(2 * 5 * 16 * (32 + 16 + 16 + 32 + 3 * 32) / 8 / 1e6, 1)
