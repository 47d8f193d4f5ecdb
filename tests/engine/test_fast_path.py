"""Module 07's path gives the tokens of module 06's, whatever happens on the way.  Here graphs are replaced by calls."""

from __future__ import annotations

from collections.abc import Callable

import families
import parity
import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask

from flexnano import Inference, PageTable, SamplingParams
from flexnano.compile import decoder_layers
from flexnano.cuda_graphs import DecodeMask, DecodeState, LateTokens, batch_buckets
from flexnano.fast_path import TableMirror, keeps_order
from flexnano.model_probe import probe

MakeEngine = Callable[..., Inference]
AssertIdle = Callable[[Inference], None]
CPU = torch.device("cpu")

PROMPTS = [families.random_prompt(n, seed=n) for n in (5, 17, 33, 40, 3, 12)]
PARAMS = [
    SamplingParams(max_new_tokens=20, ignore_eos=True),
    SamplingParams(max_new_tokens=14, temperature=1.0, top_p=0.9, seed=5, ignore_eos=True),
    SamplingParams(max_new_tokens=30),
    SamplingParams(max_new_tokens=9, temperature=0.7, seed=3, logprobs=2),
    SamplingParams(max_new_tokens=1),
    SamplingParams(max_new_tokens=25, ignore_eos=True),
]


def answers(engine: Inference, params: list[SamplingParams]) -> list[tuple[list[int], str, str]]:
    results = engine.generate(PROMPTS, params)
    assert [result.error for result in results] == [None] * len(results)
    return [(result.token_ids, result.text, result.finish_reason) for result in results]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("params", [PARAMS, [SamplingParams(max_new_tokens=25)] * 6], ids=["mixed", "greedy"])
def test_tokens_are_those_of_the_plain_path(
    family: str, params: list[SamplingParams], make_engine: MakeEngine, assert_idle: AssertIdle
) -> None:
    """With a pool so small that sequences are preempted while a token of theirs is on its way."""
    plain, fast = make_engine(family, n_pages=6), make_engine(family, n_pages=6, fast=True)
    assert answers(fast, params) == answers(plain, params)
    assert plain.stats.preemptions and fast.stats.preemptions, "nothing was preempted"
    assert not fast.has_work
    assert_idle(fast)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_step_of_few_rows_reads_the_same_from_one_list(
    family: str, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As steps of few rows do on a GPU; steps of more rows in the same run have two lists."""
    plain = answers(make_engine(family, n_pages=6), PARAMS)
    fast = make_engine(family, n_pages=6, fast=True)
    assert fast.fast is not None and fast.fast.few_rows == 0, "the kernel of CPUs needs both"
    fast.fast.few_rows = 2
    with_one: list[int] = []
    one_list = DecodeMask.one_list

    def counted(mask: DecodeMask, n: int) -> BlockMask:
        with_one.append(n)
        return one_list(mask, n)

    monkeypatch.setattr(DecodeMask, "one_list", counted)
    assert answers(fast, PARAMS) == plain
    assert with_one, "no step took it"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_log_probabilities_are_those_of_transformers(family: str, make_engine: MakeEngine) -> None:
    engine = make_engine(family, tokenizer=None, n_pages=6, fast=True)
    parity.compare(engine, families.FAMILIES[family](), parity.prompts_for(16))


def test_a_token_in_flight_after_the_last_is_dropped(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    """When the host learns that a text has ended, the device has computed one token more."""
    (alone,) = make_engine().generate([PROMPTS[2]], SamplingParams(max_new_tokens=12, ignore_eos=True))
    stop = alone.token_ids[5]
    first = alone.token_ids.index(stop)
    engine = make_engine(fast=True)
    params = SamplingParams(max_new_tokens=12, stop=[stop], ignore_eos=True)
    result, other = engine.generate([PROMPTS[2], PROMPTS[0]], [params, SamplingParams(max_new_tokens=15)])
    assert result.token_ids == alone.token_ids[: first + 1]
    assert result.finish_reason == "stop" and other.finish_reason in ("length", "stop")
    assert_idle(engine)


def test_aborting_and_closing_with_tokens_in_flight(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(fast=True)
    ids = [engine.add_request(prompt, SamplingParams(max_new_tokens=20, ignore_eos=True)) for prompt in PROMPTS[:3]]
    for _ in range(4):
        engine.run_one_step()
    assert engine.abort(ids[1])
    ended = {}
    while engine.has_work:
        for event in engine.run_one_step():
            if event.result is not None:
                ended[event.request_id] = event.result
    assert [ended[i].finish_reason for i in ids] == ["length", "aborted", "length"]
    assert_idle(engine)


def test_events_come_one_step_late_and_none_is_lost(make_engine: MakeEngine) -> None:
    engine = make_engine(fast=True)
    engine.add_request(PROMPTS[0], SamplingParams(max_new_tokens=5, ignore_eos=True))
    tokens = []
    steps = 0
    while engine.has_work:
        tokens += [event.token_id for event in engine.run_one_step() if event.token_id is not None]
        steps += 1
    assert len(tokens) == 5
    assert steps <= 7


def test_a_model_that_gives_nan_ends_only_its_own_request(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    model = families.FAMILIES["llama"]()
    poison = PROMPTS[1][3]
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = float("nan")
    engine = make_engine(model, fast=True)
    prompts = [[token for token in prompt if token != poison] for prompt in PROMPTS[:3]]
    prompts[1] = PROMPTS[1]
    results = engine.generate(prompts, SamplingParams(max_new_tokens=4))
    assert results[1].finish_reason == "error"
    assert {results[0].finish_reason, results[2].finish_reason} <= {"length", "stop"}
    assert_idle(engine)


def test_an_exception_in_the_model_leaves_nothing_behind(make_engine: MakeEngine, assert_idle: AssertIdle) -> None:
    engine = make_engine(fast=True)
    for prompt in PROMPTS[:2]:
        engine.add_request(prompt, SamplingParams(max_new_tokens=20, ignore_eos=True))
    for _ in range(3):
        engine.run_one_step()
    hook = engine.model.base_model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError, match="no"):
        engine.run_one_step()
    hook.remove()
    while engine.has_work:
        engine.run_one_step()
    assert_idle(engine)
    assert engine.generate([PROMPTS[0]], SamplingParams(max_new_tokens=3))[0].error is None


# -------------------------------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, [1]), (2, [1, 2]), (20, [1, 4, 16, 20]), (64, [1, 4, 16, 64]), (300, [1, 4, 16, 64, 128, 256, 300])],
)
def test_buckets_cover_every_batch_up_to_the_largest(most: int, sizes: list[int]) -> None:
    assert batch_buckets(most) == sizes


@pytest.mark.parametrize("most", range(1, 600, 7))
def test_every_number_of_rows_has_a_bucket(most: int) -> None:
    sizes = batch_buckets(most)
    assert sizes[-1] == most and sizes == sorted(set(sizes)) and sizes[0] == 1


def test_on_a_gpu_prompts_are_padded_to_one_of_few_lengths(make_engine: MakeEngine) -> None:
    engine = make_engine(fast=True, max_prefill_tokens=2048)
    assert engine.fast is not None
    engine.fast.device = torch.device("cuda")  # nothing is launched
    lengths = {n: engine.fast.prefill_length(n) for n in range(1, 2049)}
    assert sorted(set(lengths.values())) == [128, 256, 512, 1024, 1536, 2048]
    assert all(n <= length <= max(128, 2 * n) for n, length in lengths.items()), "more than half is padding"


@pytest.mark.parametrize(
    ("said", "n_tokens", "newcomers"),
    [(None, 10, 4), (None, 60, 3), (None, 120, 1), (2, 10, 2)],
    ids=["short prompts", "longer ones", "long ones", "somebody said so"],
)
def test_newcomers_are_awaited_as_far_as_they_fit(
    said: int | None, n_tokens: int, newcomers: int, make_engine: MakeEngine
) -> None:
    """64 slots, of which a sixteenth is 4, and prefills of 256 tokens, of which three quarters are 192."""
    engine = make_engine(fast=True, max_batch_size=64, max_prefill_tokens=256, min_prefill=said)
    for seed in range(30):
        engine.add_request(
            families.random_prompt(n_tokens, seed=seed), SamplingParams(max_new_tokens=2, ignore_eos=True)
        )
    engine.run_one_step()
    assert engine.scheduler.waiting, "nobody was left to be counted"
    assert engine.scheduler.min_prefill == newcomers


def test_rows_that_are_left_over_from_a_larger_step_become_padding() -> None:
    state = DecodeState(8, CPU)
    address = state.slot_B.data_ptr()
    state.set_rows([3, 1, 7, 5, 2])
    state.set_rows([7, 2, 4])
    assert state.slot_B.tolist() == [7, 2, 4, 0, 0, 0, 0, 0]
    assert state.slot_B.data_ptr() == address


@pytest.mark.parametrize("window", [None, 1, 3, 4, 6, 9, 100])
def test_pages_are_those_of_the_converted_logical_mask(window: int | None, make_engine: MakeEngine) -> None:
    """For every position, with slots that are not the rows’ numbers: the same pages, each partial or full as it must be."""
    table = PageTable(n_pages=24, page_size=4, max_batch_size=4, max_seq_length=24)
    slots = [table.allocate() for _ in range(4)]
    for n in range(4, 25, 4):
        for slot in reversed(slots):
            assert table.reserve(slot, n)
    state = DecodeState(4, CPU)
    table.slot_of_row = state.slot_B
    state.set_rows([slots[2], slots[0], slots[3]])

    def up_to_itself(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        distance = state.position_B[b] - position
        return (distance >= 0) & (distance < (window or 10**6))

    mask = DecodeMask(table, state, up_to_itself, window)
    for position in range(24):
        state.position_B[:3] = torch.tensor([position, max(0, position - 5), 23 - position])
        mask.fill(3)
        for row, slot in enumerate([slots[2], slots[0], slots[3]]):
            p = int(state.position_B[row])
            read = range(max(0, p - (window or 10**6) + 1), p + 1)
            pages = {table.owned[slot][t // 4] for t in read}
            full = mask.full_pages[row, 0, 0, : int(mask.full_count[row])].tolist()
            partial = mask.partial_pages[row, 0, 0, : int(mask.partial_count[row])].tolist()
            assert sorted(full + partial) == sorted(pages), f"position {p}, window {window}"
            for page in full:
                start = table.owned[slot].index(page) * 4
                assert start in read and start + 3 in read, f"page {page} is not read to its end at position {p}"
        one = mask.one_list(3)
        for row, slot in enumerate([slots[2], slots[0], slots[3]]):
            p = int(state.position_B[row])
            read = range(max(0, p - (window or 10**6) + 1), p + 1)
            listed = one.kv_indices[row, 0, 0, : int(one.kv_num_blocks[row])].tolist()
            assert sorted(listed) == sorted({table.owned[slot][t // 4] for t in read}), f"position {p}, one list"


def test_the_mirror_follows_the_table_and_sends_only_after_a_change() -> None:
    table = PageTable(n_pages=8, page_size=4, max_batch_size=2)
    mirror = TableMirror(table, CPU)
    slot = table.allocate()
    table.reserve(slot, 9)
    mirror.send()
    assert torch.equal(mirror.table.page_table, table.page_table)
    assert torch.equal(mirror.table.logical_of_page, table.logical_of_page)
    before = mirror._turn
    mirror.send()
    assert mirror._turn == before
    table.erase(slot)
    mirror.send()
    assert torch.equal(mirror.table.page_table, table.page_table)


def test_tokens_read_late_are_those_that_were_sent() -> None:
    late = LateTokens(3, CPU)
    first, second = late.send(torch.tensor([1, 2])), late.send(torch.tensor([3]))
    assert late.read(first) == [1, 2] and late.read(second) == [3]


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere"])
def test_what_a_model_does_to_its_logits_at_the_end_keeps_their_order(family: str) -> None:
    assert keeps_order(families.FAMILIES[family]())


def test_a_model_that_reorders_its_logits_at_the_end_is_seen() -> None:
    model = families.FAMILIES["llama"]()
    forward = model.forward

    def negated(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = -output.logits
        return output

    model.forward = negated
    assert not keeps_order(model)


@pytest.mark.slow
@pytest.mark.compiles
def test_what_was_compiled_for_an_engine_goes_with_it() -> None:
    """dynamo keeps graphs with a function's code, and with them the masks and buffers that they read."""
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list as graphs_of

    model = families.FAMILIES["llama"]()
    layer = decoder_layers(model, probe(model, 64))[0]
    own = layer.forward.__func__.__code__
    before = len(graphs_of(own))
    with Inference(model, None, 2, 64, 16, 16, fast=True, attention="compiled") as engine:
        engine.generate([[5, 6, 7]], SamplingParams(max_new_tokens=3, ignore_eos=True))
        code = layer.forward.__func__.__code__
        assert len(graphs_of(code)) > 0, "nothing was compiled, so that this test would pass without a compiler"
    assert len(graphs_of(code)) == 0
    assert len(graphs_of(own)) == before, "the class's own code has graphs of an engine"
    assert layer.forward.__func__.__code__ is own


@pytest.mark.compiles
def test_a_model_that_was_asked_for_its_attentions_can_be_compiled() -> None:
    """transformers leaves hooks on it then, which no compiler can follow; afterwards it can be asked again."""
    model = families.FAMILIES["llama"]()
    model.set_attn_implementation("eager")

    def attentions() -> int:
        return len(model(input_ids=torch.tensor([[5, 6, 7]]), output_attentions=True, use_cache=False).attentions)

    assert attentions() == 2
    with Inference(model, None, 2, 64, 16, 16, fast=True, attention="compiled") as engine:
        (result,) = engine.generate([[5, 6, 7]], SamplingParams(max_new_tokens=3, ignore_eos=True))
    assert len(result.token_ids) == 3, result.error
    assert attentions() == 2
