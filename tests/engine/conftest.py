"""These tests are about the reference alone: here `import flexnano` means solutions/flexnano/, whatever the caller set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["FLEXNANO"] = "solutions"  # also for child processes
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for _name in [name for name in sys.modules if name.partition(".")[0] == "flexnano"]:
    del sys.modules[_name]  # the learner's package, imported by tests that were collected before

import flexnano  # noqa: E402

if Path(flexnano.__path__[0]).parent.name != "solutions":
    raise ImportError(f"flexnano comes from {flexnano.__path__[0]}, but these tests need solutions/flexnano")

import compiler  # noqa: E402
import families  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

if TYPE_CHECKING:
    from flexnano import Inference

torch.set_num_threads(1)  # with two, times vary a hundredfold on a busy machine
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
hypothesis.settings.register_profile("engine", deadline=None)
hypothesis.settings.load_profile("engine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what compiles where nothing can be compiled (macOS, no C++ compiler), and say so; never in CI."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    compiles = item.get_closest_marker("compiles") or parameters.get("path") == "compiled"
    if compiles and not item.path.name.startswith("test_cuda") and (trouble := compiler.why_not()):
        pytest.skip(f"the engine takes its gather path on this machine: {trouble}")


def _assert_idle(engine: Inference) -> None:
    engine.page_table.check()
    # Homework 09: groups of layers may have tables of their own.  Idle pages of homework 08 are nobody's, and available.
    tables = [engine.page_table] if engine.planner is None else [group.table for group in engine.planner.groups]
    for table in tables:
        table.check()
        assert table.pages_available == table.n_pages, f"pages are still owned: {[row for row in table.owned if row]}"
        assert len(table.free_slots) == table.max_batch_size, f"slots are still taken: only {table.free_slots} are free"
    assert not engine.scheduler.waiting, f"still waiting: {list(engine.scheduler.waiting)}"
    assert not engine.scheduler.running, f"still running: {engine.scheduler.running}"


@pytest.fixture
def assert_idle() -> Callable[[Inference], None]:
    """Fails if the engine holds a page, a slot or a request."""
    return _assert_idle


def _fail_instead_of_waiting_for_ever(engine: Inference) -> None:
    chooser = engine.planner or engine.scheduler
    next_step, n_calls, n_steps = chooser.next_step, 0, -1

    def guarded() -> list[Any]:
        nonlocal n_calls, n_steps
        n_calls = n_calls + 1 if engine.stats.steps == n_steps else 0
        n_steps = engine.stats.steps
        assert n_calls < 50, "somebody asks for steps for ever, and nothing is computed in them"
        return next_step()

    chooser.next_step = guarded  # type: ignore[method-assign]


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Inference]]:
    """`make_engine("gemma2", n_pages=4, …)`: a small engine on a new tiny model, or on the model given.

    After the test its page table must be in order, and closing it must leave no page and no slot taken.
    """
    engines: list[Inference] = []

    def make(model: Any = "llama", **options: Any) -> Inference:
        if isinstance(model, str):
            model = families.FAMILIES[model]()
        defaults: dict[str, Any] = dict(
            tokenizer=families.TinyTokenizer(),
            max_batch_size=4,
            max_seq_length=128,
            n_pages=32,
            page_size=16,
            attention="gather",
        )
        engines.append(flexnano.Inference(model, **(defaults | options)))
        _fail_instead_of_waiting_for_ever(engines[-1])
        return engines[-1]

    yield make
    for engine in engines:
        engine.page_table.check()
        engine.close()
        _assert_idle(engine)
