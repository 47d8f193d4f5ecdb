# Your copy of solutions/flexnano/fast_path.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 6534ceb164a16044
"""Module 07: the fast path.  What module 06 does step by step, recorded once and then only replayed.

plain (module 06)                           fast
the host waits for each token               tokens are read one step late, ids stay on the device
logical mask, converted for each step       rows of the page table, written into lists that stay
a thousand kernels launched one by one      one graph for each batch size
each operation a kernel                     each decoder layer compiled, its pointwise parts fused
page table written page by page             one copy a step, if something changed
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from .attention import allow_many_graphs, prepare_mask
from .compile import (
    SetAside,
    compile_layers,
    decoder_layers,
    give_own_code,
    put_capturing_back,
    set_capturing_aside,
    take_back_code,
    uncompile_layers,
)
from .cuda_graphs import (
    NONE,
    DecodeMask,
    DecodeState,
    Graph,
    LateTokens,
    batch_buckets,
    finite_or_none,
    up_to_a_size,
)
from .masks import causal
from .merge import merge_products, split_products
from .page_table import PageTable
from .path_probe import rows_that_are_split
from .sampling import SamplingBatch, sample
from .scheduler import Row
from .sequence import Sequence, Status

if TYPE_CHECKING:
    from .fast_mixed import FastMixedSteps, Places
    from .inference import Inference


def why_not() -> str | None:
    """Why the fast path can't be used: an exercise of module 07 is not written yet.  None: it can."""
    try:
        batch_buckets(1)
        state, table = DecodeState(1, torch.device("cpu")), PageTable(1, 1, 1)
        state.set_rows([])
        DecodeMask(table, state, causal, None).fill(1)
        compile_layers(nn.Module(), [])
    except NotImplementedError as missing:
        return f"{missing} is not written yet"
    return None


@torch.inference_mode()
def keeps_order(model: Any) -> bool:
    """Whether what a model does to its logits after the last product leaves their order as it is.

    Gemma 2's final soft cap and the scales of Granite and Cohere do; then greedy rows can leave it out, which for a
    vocabulary of 256,000 words saves three passes over all logits.  Found out by looking: of a few tokens, the logits that
    the last product gave and the model's own are brought into the same order.  In 16 bits a cap can make two neighbours
    equal, of which the model's own argmax takes the first and this the larger: a near tie.
    """
    raw: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _module, _inputs, output: raw.append(output))
    implementation = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        ids = torch.arange(8, device=model.device)[None] % model.get_input_embeddings().num_embeddings
        own = model(input_ids=ids, use_cache=False).logits.flatten()
    finally:
        hook.remove()
        model.set_attn_implementation(implementation)
    if len(raw) != 1 or raw[0].numel() != own.numel():
        return False
    own_in_order = own[raw[0].flatten().argsort()].float()
    return bool((own_in_order.diff() >= 0).all())


class TableMirror:
    """A page table on the device that follows the scheduler's own on the host: one copy a step, and only after a change."""

    def __init__(self, source: PageTable, device: torch.device) -> None:
        self.source = source
        self.table = PageTable(
            source.n_pages,
            source.page_size,
            source.max_batch_size,
            source.pages_per_row * source.page_size,
            device,
            gives_up_pages=True,  # rows as long as the source's, also where they are longer than its pool
        )
        pinned = device.type == "cuda"
        n = source.page_table.numel() + source.logical_of_page.numel()
        self._staging = [torch.zeros(n, dtype=torch.int32, pin_memory=pinned) for _ in range(2)]
        self._sent = [torch.cuda.Event() if pinned else None for _ in range(2)]
        # The table's two tensors become parts of one, so that one copy carries both.
        self._device = torch.zeros(n, dtype=torch.int32, device=device)
        cells = source.page_table.numel()
        self.table.page_table = self._device[:cells].view_as(source.page_table)
        self.table.logical_of_page = self._device[cells:]
        self._version = -1
        self._turn = 0

    def send(self) -> None:
        """Bring the device's table up to date.  Waits for nothing that the device has still to do."""
        source = self.source
        version = source.page_table._version + source.logical_of_page._version  # torch counts writes in place
        if version == self._version:
            return
        self._turn = 1 - self._turn
        staging, sent = self._staging[self._turn], self._sent[self._turn]
        if sent is not None:
            sent.synchronize()
        cells = source.page_table.numel()
        staging[:cells].copy_(source.page_table.view(-1))
        staging[cells:].copy_(source.logical_of_page)
        self._device.copy_(staging, non_blocking=True)
        if sent is not None:
            sent.record()
        self._version = version


class FastPath:
    """Runs the rows of a step for an engine.  One step is always in flight: its tokens are read when the next is launched.

    Args:
        engine: with caches attached, on tables whose device side is `mirrors`.
        mirrors: of the engine's page tables.
        counts_newcomers: nobody said how many make a prefill; `count_newcomers` does.
    """

    def __init__(self, engine: Inference, mirrors: list[TableMirror], counts_newcomers: bool = False) -> None:
        self.engine, self.mirrors, self.device = engine, mirrors, engine.device
        self.counts_newcomers = counts_newcomers and engine.mixed is None
        B = engine.max_batch_size
        self.buckets = batch_buckets(B)
        self.state = DecodeState(B, self.device)
        self.state.position_B = engine.positions  # the logical masks of the engine read it
        self.masks = {
            window: DecodeMask(engine.tables[window], self.state, engine._decode_mods[window], window)
            for window in engine.windows
            if engine.mixed is None or window not in engine.mixed.giving_up
        }
        heads = {(one.q_heads // one.kv_heads, one.kv_heads) for one in engine.layers}
        shared = min(rows_that_are_split(self.device, *of_a_layer) for of_a_layer in heads)
        self.few_rows = shared if engine.path == "compiled" else 0
        for mirror in mirrors:
            mirror.table.slot_of_row = self.state.slot_B
        # Rows, which tokens are theirs, where something is said of parts of prompts, and the tokens.
        self.in_flight: deque[tuple[list[Row], list[int], Places, Any]] = deque()
        self.graphs: dict[tuple[int, bool], Graph] = {}
        self.logits_BV: dict[int, Tensor] = {}
        self.pool: object = None
        self.sampling: tuple[list[int], SamplingBatch] | None = None
        self.prompt_staging: dict[int, Tensor] = {}
        self.seconds_to_make: dict[str, float] = {}  # what was compiled or recorded, and how long that took
        self.order_is_kept = keeps_order(engine.model)
        self.mixed: FastMixedSteps | None = None
        if engine.mixed is not None:  # of the homeworks, nothing is imported before it is asked for
            from .fast_mixed import FastMixedSteps

            self.mixed = FastMixedSteps(self, engine.mixed)
        self.late = LateTokens(B if self.mixed is None else len(self.mixed.chosen), self.device)
        if engine.planner is not None:
            engine.planner.read_all = self.read_all
        self.merged = merge_products(decoder_layers(engine.model, engine.layers))
        self.own_code: list[nn.Module] = []
        self.set_aside: SetAside = []
        if engine.path == "compiled":
            allow_many_graphs()
            self.set_aside = set_capturing_aside(engine.model, engine.layers)
            self.own_code = give_own_code(engine.model, engine.layers)
            compile_layers(engine.model, engine.layers)

    def close(self) -> None:
        split_products(self.merged)
        uncompile_layers(self.engine.model, self.engine.layers)
        take_back_code(self.own_code)
        put_capturing_back(self.set_aside)
        self.graphs.clear()
        self.in_flight.clear()

    # ------------------------------------------------------------------ a step

    @property
    def owes_tokens(self) -> bool:
        """Whether a token on its way belongs to a request that has not ended."""
        return any(row.sequence.request_id in self.engine._requests for rows, *_ in self.in_flight for row in rows)

    def run(self, rows: list[Row]) -> list[Row]:
        """Launch the rows of a step, then read the tokens of the step before.  No rows: only read.

        Returns:
            The rows that were launched: without those that a token on its way has ended.
        """
        if self.counts_newcomers:
            self.count_newcomers()
        prefill = any(row.is_prefill for row in rows)
        outgrown = bool(self.engine.scheduler.outgrown)
        if not rows or (self.mixed is None and (outgrown or (prefill and any(row.sequence.pending for row in rows)))):
            # Whoever was preempted, or outgrew the pool, with a token on its way needs it now; and it may have been the last.
            # A planner has seen to the former, and between its choice and the step nothing may change.
            self.read_all()
            rows = [row for row in rows if row.sequence.status is Status.RUNNING]
        if not rows:
            return []
        for mirror in self.mirrors:
            mirror.send()
        due, places = rows, list(range(len(rows)))
        checks: Places = []
        if prefill and self.mixed is not None:
            due, chosen_B, places, checks = self.mixed.run(rows)
        else:
            chosen_B = self._prefill(rows) if prefill else self._decode(rows)
        self.in_flight.append((due, places, checks, self.late.send(chosen_B)))
        alone = prefill and self.mixed is None  # read at once, and perhaps computed again
        for row in due:
            row.sequence.pending += 1
            if not alone:
                self._free_if_last(row.sequence)
        # The staging of prompts is free again once they have been read, and logprobs are noted as they are made.
        if alone or outgrown or any(row.sequence.params.logprobs is not None for row in due):
            self.read_all()
        while len(self.in_flight) > 1:
            self._read_one()
        return rows

    def _free_if_last(self, sequence: Sequence) -> None:
        """If the token on its way is the last by count, pages and slot are free now: what comes later runs later."""
        made = len(sequence.output_ids) + sequence.pending
        if made >= sequence.params.max_new_tokens or len(sequence) >= sequence.max_length:
            self.engine.scheduler.finish(sequence, "length")

    def read_all(self) -> None:
        """Read the tokens of every step that was launched."""
        while self.in_flight:
            self._read_one()

    def _read_one(self) -> None:
        engine, rows = self.engine, list[Row]()
        try:
            # In one line: an interrupt finds the step either in flight or among those that end here, never in both, since
            # what is read twice gives back its buffer twice.
            rows, places, checks, sent = self.in_flight.popleft()
            made = self.late.read(sent)
            broken = [row for row, at in checks if NONE in made[at]]
            tokens = [NONE if row in broken else made[place] for row, place in zip(rows, places, strict=True)]
            if self.mixed is None and rows[0].start == 0 and len(rows) > 1 and NONE in tokens:
                tokens = self._prefill_again_alone(rows, tokens)
            for row, token in zip(rows, tokens, strict=True):
                row.sequence.pending -= 1
                if row.sequence.request_id in engine._requests:  # else it ended before this token, which nobody wants
                    engine._accept(row.sequence, None if token == NONE else token)
            for row in broken:
                if row not in rows and row.sequence.request_id in engine._requests:
                    engine._accept(row.sequence, None)
        except (
            BaseException
        ) as error:  # without its token none of them can go on, and not all are in the step that runs
            for row in rows:
                engine._end(row.sequence, "error", error=f"{type(error).__name__}: {error}")
            raise

    def _prefill_again_alone(self, rows: list[Row], tokens: list[int]) -> list[int]:
        """A masked key is not unread, and 0 · NaN is NaN: who shared a row with a NaN is asked again, alone."""
        return [
            token if token != NONE or row.sequence.status is not Status.RUNNING else int(self._prefill([row]))
            for row, token in zip(rows, tokens, strict=True)
        ]

    # ------------------------------------------------------------------ decode

    def _decode(self, rows: list[Row]) -> Tensor:
        n = len(rows)
        # Longest first: rows are given to the card's processors in this order, and a long one that begins last is waited for.
        rows.sort(key=lambda row: row.start, reverse=True)
        bucket = next(size for size in self.buckets if size >= n)
        greedy = all(row.sequence.params.greedy and row.sequence.params.logprobs is None for row in rows)
        graph = self._graph(bucket, greedy)
        self.state.set_rows([row.sequence.slot for row in rows])
        graph.replay()
        if not greedy:
            self._sample(rows, self.logits_BV[bucket][:n])
        return self.state.chosen_B[:n]

    def _graph(self, bucket: int, greedy: bool) -> Graph:
        key = (bucket, greedy)
        if key not in self.graphs:
            self.state.set_rows([])  # padding only, while it is recorded
            began = time.perf_counter()
            graph = Graph(lambda: self._decode_body(bucket, greedy), self.device, self.pool)
            self.seconds_to_make[f"decode of {bucket}{'' if greedy else ', sampled'}"] = time.perf_counter() - began
            self.pool = self.pool or graph.pool
            self.graphs[key] = graph
        return self.graphs[key]

    def _decode_body(self, n: int, greedy: bool) -> None:
        """What a graph records."""
        slot_B, token_B, position_B = self.state.load(n)
        logits_BV = self.logits(
            greedy,
            1,
            input_ids=token_B[:, None],
            position_ids=position_B[:, None],
            flex_attn_block_mask={
                window: prepare_mask(self.engine.path, self.decode_mask(window, n)) for window in self.engine.windows
            },
            flex_attn_input_pos=position_B,
            flex_attn_batch_idx=slot_B,
            flex_attn_kernel_options=self.engine._decode_options,
        )
        if not greedy:
            if n not in self.logits_BV:
                self.logits_BV[n] = torch.zeros_like(logits_BV)
            self.logits_BV[n].copy_(logits_BV)
        token_B = logits_BV.argmax(dim=-1)
        self.state.store(slot_B, token_B, finite_or_none(logits_BV, token_B))

    def logits(self, greedy: bool, at: Tensor | int, **inputs: Any) -> Tensor:
        """[rows, V], the logits at these places of a packed row, or at the last of each batch row; greedy: in their order."""
        model = self.engine.model
        if greedy and self.order_is_kept:
            hidden = model.base_model(**inputs, use_cache=False)[0]
            return model.get_output_embeddings()(hidden[:, -1] if isinstance(at, int) else hidden[0, at])
        logits = model(**inputs, use_cache=False, logits_to_keep=at).logits
        return logits[:, -1] if isinstance(at, int) else logits[0]

    def decode_mask(self, window: int | None, n: int) -> BlockMask:
        if (mask := self.masks.get(window)) is not None:
            mask.fill(n)
            return mask.one_list(n) if n <= self.few_rows else mask.block_mask(n)
        assert self.engine.mixed is not None  # layers that give up pages
        state = self.state
        return self.engine.mixed.decode_masks[window].block_mask(state.slot_B[:n], state.position_B[:n, None])

    def _sample(self, rows: list[Row], logits_BV: Tensor) -> None:
        """Replace what the graph chose greedily by what the rows' parameters ask for."""
        ids = [row.sequence.request_id for row in rows]
        if self.sampling is None or self.sampling[0] != ids:
            self.sampling = (ids, self.engine._sampling_batch(rows))
        n, state = len(rows), self.state
        logits_BV = logits_BV.float()
        token_B = sample(logits_BV, self.sampling[1], state.position_B[:n] + 1)
        state.token_S[state.slot_B[:n]] = token_B
        state.chosen_B[:n] = finite_or_none(logits_BV, token_B)
        self._note_logprobs(rows, logits_BV, state.chosen_B[:n])

    def _note_logprobs(self, rows: list[Row], logits_BV: Tensor, chosen_B: Tensor) -> None:
        if any(row.sequence.params.logprobs is not None for row in rows):  # reading the tokens waits for the device
            tokens = [None if token == NONE else token for token in chosen_B.tolist()]
            self.engine._note_logprobs(rows, logits_BV, tokens)

    # ------------------------------------------------------------------ prefill

    def count_newcomers(self) -> None:
        """Say how many newcomers make the next prefill worth it: as many as fill three quarters of it, if they are like those
        who wait now, and at most a sixteenth of the slots.

        Fewer would hold up those who run for a row of padding, and more often; more may not fit, and wait in vain.
        """
        scheduler = self.engine.scheduler
        with self.engine._queue_lock:
            lengths = [len(sequence) for sequence in itertools.islice(scheduler.waiting, 32)]
        if lengths:
            fill = 0.75 * scheduler.max_prefill_tokens * len(lengths) / sum(lengths)
            scheduler.min_prefill = max(1, min(self.engine.max_batch_size // 16, int(fill)))

    def prefill_length(self, n_tokens: int) -> int:
        """On a GPU each length is compiled, so there are six (`up_to_a_size`)."""
        engine, block = self.engine, self.engine.prefill_block
        longest = engine.prefill_length(engine.scheduler.max_prefill_tokens)
        if self.device.type != "cuda" or n_tokens > longest:
            return engine.prefill_length(n_tokens)
        return block * up_to_a_size(-(-n_tokens // block), max(1, longest // 4 // block))

    def _prefill(self, rows: list[Row]) -> Tensor:
        """As in module 06, but all that the host knows goes to the device in one copy, and nothing waits for it.

        The chosen tokens and their positions go to where the decode steps read them.
        """
        engine, state, n = self.engine, self.state, len(rows)
        n_tokens = sum(row.n_tokens for row in rows)
        L = self.prefill_length(n_tokens)
        began, is_first = time.perf_counter(), L not in self.prompt_staging
        ids_L, slot_L, position_L, document_L, start_L, last_L = self._send_prompts(rows, L)
        engine.documents[:L] = document_L
        logits_BV = engine._forward(
            input_ids=ids_L[None],
            input_pos=position_L[None],
            batch_idx=slot_L[None],
            masks={window: engine.get_prefill_block_mask(start_L, window) for window in engine.windows},
            logits_at=last_L[:n],
            kernel_options=engine._prefill_options,
        )[0]
        if is_first:  # the device may still be at it, but it is compiled
            self.seconds_to_make[f"prefill of {L}"] = time.perf_counter() - began
        slot_B, position_B = slot_L[last_L[:n]], position_L[last_L[:n]] + 1
        token_B = sample(logits_BV, engine._sampling_batch(rows), position_B)
        state.token_S[slot_B] = token_B
        state.position_S[slot_B] = position_B
        chosen_B = finite_or_none(logits_BV, token_B)
        self._note_logprobs(rows, logits_BV, chosen_B)
        return chosen_B

    def _send_prompts(self, rows: list[Row], L: int) -> Tensor:
        """int64 [6, L] on the device: token, slot, position, document, the document's first place; the rows' last places."""
        if L not in self.prompt_staging:
            self.prompt_staging[L] = torch.zeros(6, L, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        staging = self.prompt_staging[L]
        host = staging.numpy()
        host[:] = 0
        # A padding token is a document of its own: it costs no attention and sees itself.
        host[3] = host[4] = np.arange(L)
        at = 0
        for document, row in enumerate(rows):
            end = at + row.n_tokens
            host[0, at:end] = row.sequence.token_ids
            host[1, at:end] = row.sequence.slot
            host[2, at:end] = np.arange(row.n_tokens)
            host[3, at:end] = L + document
            host[4, at:end] = at
            host[5, document] = end - 1
            at = end
        return staging.to(self.device, non_blocking=True)
