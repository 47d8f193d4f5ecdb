"""Module 06: the engine.  Sequences in, tokens out: packed prefill, decode over the paged cache, sampling, streaming."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from .arguments import check_helpers, check_sizes
from .attention import StepMask, forget_attention, prepare_mask, register_attention
from .describe import describe
from .detokenize import Detokenizer
from .extras import Extras
from .kv_cache import addressable_pages, attach_caches, forget_nan, free_memory, kv_bytes_per_token, pages_for_budget
from .masks import MaskMod, all_of, block_mask_from_blocks, causal, packed_documents, sliding_window, visible_blocks
from .model_probe import probe
from .page_table import PageTable
from .path_probe import choose_path_of, choose_steps, decode_options, prompt_options
from .prompts import Prompt, eos_token_ids, one_params_each, one_sample, prompt_ids, samples_of
from .results import EngineStats, Result, TokenEvent, in_order, outgrown
from .sampling import SamplingBatch, sample, top_logprobs
from .sampling_params import SamplingParams
from .scheduler import Row, Scheduler
from .sequence import Sequence

if TYPE_CHECKING:
    from .fast_path import FastPath
    from .mixed_step import MixedSteps
    from .planner import Planner

Masks = dict[int | None, StepMask]
"""The masks of a step: one for each window that layers of the model have, None for layers that read everything."""


class Inference:
    """A batch inference engine around a stock transformers model.

    Args:
        model: a causal language model of transformers, in eval mode.  The engine puts its caches and its attention into it;
            `close` takes them out again.
        tokenizer: of the model; None if all prompts are token ids and no text is wanted.
        max_batch_size: sequences that run at once.
        max_seq_length: tokens of a sequence, prompt and output together.
        n_pages: pages of the KV cache; None: as many as fit into free memory, and can be used.
        page_size: tokens in a page, a power of two.
        attention: "compiled", "gather" or "eager"; None: the best that works here.
        max_prefill_tokens: tokens that are prefilled in one step.
        min_prefill: sequences that make a prefill worth interrupting those that run; None: the engine's own choice.
        kernel_options: passed on to FlexAttention's kernel in decode.
        fast: module 07's path: decode replayed from graphs, layers compiled, tokens read one step late; None: on a GPU
            with compiled attention.
        prefix_sharing: sequences that begin alike share pages, also with those that have ended (homework 08).
        sliding_window: keys that a query reads at most; pages behind that are given up (homework 09).  It changes what a
            model computes that was not trained with it.  A model with local and global layers keeps its global ones.
        attention_sinks: first tokens that are read and kept all the same.
        fuse_prefill: prompts are computed beside the decoding of others, in parts (homework 10).
        prefill_chunk: tokens of such a step, those that decode included.

    Fields that others read:
        device, windows: where the model is, and the windows of its layers (None: they read everything).
        tables: the page table of each window.
        positions, documents: what the masks read, int64; a step writes into them.
        prefill_block: size of the blocks of a packed row's mask.

    Raises:
        UnsupportedModel (a ValueError): the model would give wrong tokens; says why.
        ValueError: a size out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_batch_size: int = 16,
        max_seq_length: int = 2048,
        n_pages: int | None = None,
        page_size: int = 128,
        *,
        attention: str | None = None,
        max_prefill_tokens: int = 2048,
        min_prefill: int | None = None,
        kernel_options: dict[str, Any] | None = None,
        fast: bool | None = None,
        prefix_sharing: bool = False,
        sliding_window: int | None = None,
        attention_sinks: int = 0,
        fuse_prefill: bool = False,
        prefill_chunk: int = 512,
    ) -> None:
        check_sizes(
            max_batch_size=max_batch_size,
            max_seq_length=max_seq_length,
            page_size=page_size,
            max_prefill_tokens=max_prefill_tokens,
            n_pages=1 if n_pages is None else n_pages,
            min_prefill=1 if min_prefill is None else min_prefill,
            prefill_chunk=prefill_chunk,
        )
        check_helpers(tokenizer, kernel_options)
        self.extras = Extras(prefix_sharing, sliding_window, attention_sinks, fuse_prefill, prefill_chunk)
        self.model, self.tokenizer = model, tokenizer
        self.max_batch_size, self.max_seq_length = max_batch_size, max_seq_length
        self.layers = self.extras.narrow(probe(model, max_seq_length), model.config)
        self.device, self.dtype = model.device, model.dtype
        self.windows = sorted({layer.window for layer in self.layers}, key=lambda window: window or 0)
        first = self.layers[0]
        self._decode_options = kernel_options or decode_options(
            self.device, self.dtype, first.q_heads // first.kv_heads, page_size
        )
        self.path, self.path_reason = choose_path_of(
            self.layers, self.device, self.dtype, attention, page_size, self._decode_options
        )
        self.vocab_size = model.get_input_embeddings().num_embeddings
        self.eos_token_ids = eos_token_ids(model, tokenizer)

        if n_pages is None:
            # The rest is left to activations; a CPU's memory is also everyone else's.
            share = 0.9 if self.device.type == "cuda" else 0.5
            fits = pages_for_budget(
                int(free_memory(self.device) * share),
                kv_bytes_per_token(self.layers, self.dtype),
                page_size,
                max_batch_size,
                self.extras.tokens_kept(self.windows, max_seq_length, max_prefill_tokens),
            )
            widest = max(layer.kv_heads * max(layer.head_dim, layer.value_head_dim) for layer in self.layers)
            n_pages = min(fits, addressable_pages(widest, page_size))
        use_fast, self.steps_reason = choose_steps(fast, self.device, self.path)
        host = "cpu" if use_fast else self.device
        self.page_table = PageTable(n_pages, page_size, max_batch_size, max_seq_length, host)
        # Layers that read the same window are a group, with a table, pools and masks.  As long as no group gives up pages
        # before its sequence ends, all tables would say the same, and one does for all.
        self.tables: dict[int | None, PageTable] = dict.fromkeys(self.windows, self.page_table)
        self.planner: Planner | None = None
        self.mixed: MixedSteps | None = None
        self.scheduler = Scheduler(self.page_table, max_prefill_tokens, min_prefill)
        if self.extras.any:
            self.planner = self.extras.planner(self, n_pages, host)
        mirrors: dict[PageTable, TableMirror] = {}
        if use_fast:
            from .fast_path import FastPath, TableMirror

            mirrors = {table: TableMirror(table, self.device) for table in set(self.tables.values())}
            self.tables = {window: mirrors[table].table for window, table in self.tables.items()}
        self.stats = EngineStats()
        self._request_ids = itertools.count()
        self._requests: dict[int, Sequence] = {}
        # Other threads may add requests while a step is chosen.  Re-entrant: an interrupt just before the release must not
        # lock its own thread out.
        self._queue_lock = threading.RLock()
        self._events: list[TokenEvent] = []  # made and not fetched yet
        self._streamed: set[int] = set()  # requests whose events belong to a stream

        # What the masks read lies in buffers that live as long as the engine, so that no step compiles anything anew.
        self.prefill_block = 128 if self.device.type == "cuda" else 32
        longest_prefill = self.prefill_length(max(max_prefill_tokens, max_seq_length))
        self.documents = torch.zeros(longest_prefill, dtype=torch.int64, device=self.device)
        self.positions = torch.zeros(max_batch_size, dtype=torch.int64, device=self.device)
        self._prefill_mods = {window: self._prefill_mask_mod(window) for window in self.windows}
        self._decode_mods = {window: self._decode_mask_mod(window) for window in self.windows}
        self._prefill_options = prompt_options(self.device, self.dtype, max(one.head_dim for one in self.layers))

        self._implementation = model.config._attn_implementation
        self._attention_name = register_attention(self.path, self.device.type, use_fast, self.extras.around)
        self.closed = False
        self.fast: FastPath | None = None
        try:
            self.caches = attach_caches(self.layers, self.tables, self.dtype)
            model.set_attn_implementation(self._attention_name)
            if self.planner is not None:
                self.mixed = self.extras.mixed_steps(self, self.planner)
            if use_fast:
                self.fast = FastPath(self, list(mirrors.values()), counts_newcomers=min_prefill is None)
        except BaseException:
            self.close()  # memory may run out at the last layer
            raise

    # ------------------------------------------------------------------ requests

    def add_request(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> int:
        """Queue a request, also while others run.

        Args:
            prompt: raw text, token ids or chat messages.
            sampling_params: None: greedy, 64 tokens.

        Returns:
            Its number, as in the events of `run_one_step`.

        Raises:
            TypeError, ValueError: the prompt is not one, or can never run.  Nothing changes then.
        """
        if self.closed:
            raise RuntimeError("the engine is closed and its model given back; make a new one: Inference(model, ...)")
        params = one_sample(sampling_params)
        ids = prompt_ids(prompt, self.tokenizer, self.vocab_size)
        if len(ids) >= self.max_seq_length:
            raise ValueError(
                f"a prompt of {len(ids)} tokens leaves no room for an answer in max_seq_length "
                f"{self.max_seq_length}; shorten the prompt or give the engine a larger max_seq_length"
            )
        if params.stop_strings and self.tokenizer is None:
            raise ValueError(f"stop strings {params.stop_strings} need a tokenizer, but the engine has none")
        sequence = Sequence(
            request_id=next(self._request_ids),
            prompt_ids=ids,
            params=params,
            eos_token_ids=self.eos_token_ids,
            max_length=self.max_seq_length,
            seed=secrets.randbits(62) if params.seed is None else params.seed,
            detokenizer=Detokenizer(self.tokenizer, params.stop_strings) if self.tokenizer is not None else None,
        )
        with self._queue_lock:
            self.scheduler.add(sequence)
            self._requests[sequence.request_id] = sequence
        return sequence.request_id

    def abort(self, request_id: int) -> bool:
        """End a request now and free what it holds.  Its last event comes with the next step.

        Returns:
            False if the request is unknown or has ended already.
        """
        sequence = self._requests.get(request_id)
        if sequence is None:
            return False
        text = ""
        with contextlib.suppress(Exception):  # a tokenizer in trouble keeps nobody from aborting
            text = sequence.detokenizer.finish() if sequence.detokenizer is not None else ""
        self._end(sequence, "aborted", text=text, error="aborted by the caller")
        return True

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished, or an event is waiting to be fetched by `run_one_step`."""
        unread = bool(self.scheduler.outgrown) or (self.fast is not None and self.fast.owes_tokens)
        return (
            self.scheduler.has_work or unread or any(event.request_id not in self._streamed for event in self._events)
        )

    # ------------------------------------------------------------------ one step

    def run_one_step(self) -> list[TokenEvent]:
        """Run one step: prefill newcomers or decode one token of all that run.

        Returns:
            An event for each token made, and for each request that ended since the last call.  Empty if there was nothing
            to do.  Events of requests that a `stream` or `generate` answers are kept for it.

        Raises:
            Whatever the model raises.  The sequences of that step have ended with "error" then and hold nothing; all
            others can go on.
        """
        self._advance()
        return self._take_events(lambda event: event.request_id not in self._streamed)

    def _take_events(self, wanted: Callable[[TokenEvent], bool]) -> list[TokenEvent]:
        taken = [event for event in self._events if wanted(event)]
        self._events = [event for event in self._events if not wanted(event)]
        return taken

    @torch.inference_mode()
    def _advance(self) -> None:
        """Schedule a step, run it, and queue its events."""
        started, rows = time.perf_counter(), list[Row]()
        try:
            with self._queue_lock:
                rows = (self.planner or self.scheduler).next_step()
            if self.fast is not None:
                rows = self.fast.run(rows)
            elif rows:
                self._run_rows(rows) if self.mixed is None else self.mixed.run(rows)
            if self.planner is not None:
                self.planner.ran(rows)
            for sequence in self.scheduler.outgrown:
                self._end(sequence, "out_of_pages", error=outgrown(sequence, self.scheduler.longest))
            self.scheduler.outgrown.clear()
            if rows:
                n_tokens = sum(row.n_tokens for row in rows if row.is_prefill)
                padding = self.mixed is None and n_tokens and (self.fast or self).prefill_length(n_tokens) - n_tokens
                self.stats.count(n_tokens or len(rows), int(padding), is_prefill=n_tokens > 0)
        except BaseException as error:
            # Whoever holds a slot, if the choice itself failed: the books may be half written.
            for sequence in [row.sequence for row in rows] or [one for one in self._requests.values() if one.slot]:
                self._end(sequence, "error", error=f"{type(error).__name__}: {error}")
            forget_nan(self.caches)  # nobody has looked at the logits
            raise
        self.stats.preemptions = self.scheduler.preemptions
        self.stats.seconds += time.perf_counter() - started

    def _run_rows(self, rows: list[Row]) -> None:
        """Compute the rows of a step and give each sequence its next token.  [6.12 · ★★★ · 30 min]

        Rows that start at 0 are a prefill (`prefill_sequences`); all others are a decode (`decode_step`, with the slot, the
        newest token and its position of each row).  From the logits `_next_tokens` chooses a token for each row, and
        `_accept` hands it to the sequence.

        Args:
            rows: of one step, from the scheduler; at least one.

        Returns:
            Nothing.
        """
        ### BEGIN SOLUTION
        if rows[0].start == 0:
            logits_BV = self.prefill_sequences(rows)
        else:
            batch_idx = torch.tensor([row.sequence.slot for row in rows], device=self.device)
            input_ids = torch.tensor([row.sequence.output_ids[-1] for row in rows], device=self.device)
            input_pos = torch.tensor([row.start for row in rows], device=self.device)
            logits_BV = self.decode_step(batch_idx, input_ids, input_pos)
        for row, token in zip(rows, self._next_tokens(rows, logits_BV), strict=True):
            self._accept(row.sequence, token)
        ### END SOLUTION

    # ------------------------------------------------------------------ prefill

    def prefill_length(self, n_tokens: int) -> int:
        """The length that a row of packed prompts is padded to.  [6.7 · ★★☆ · 10 min]

        Few different lengths mean few compiled graphs; many mean little padding.  On a GPU each length is a graph of its
        own: powers of two.  On a CPU one graph serves all, and only the time of the padding counts: five, six, seven or
        eight eighths of a power of two.  Always a multiple of `prefill_block`.

        Args:
            n_tokens: tokens to pack, at least 1.

        Returns:
            The smallest of these lengths that is at least `n_tokens`.
        """
        ### BEGIN SOLUTION
        power = 1 << (n_tokens - 1).bit_length()
        if self.device.type == "cuda":
            return max(power, self.prefill_block)
        step = max(power // 8, self.prefill_block)
        return -(-n_tokens // step) * step
        ### END SOLUTION

    def prefill_sequences(self, rows: list[Row]) -> Tensor:
        """Compute the prompts of several sequences, packed into one row, and fill their pages.  [6.9 · ★★★ · 35 min]

        The row is padded to L = `prefill_length`.  Each token carries its slot and its position in its own sequence;
        padding has slot 0 and position 0.  `documents[:L]` says which sequence each token belongs to: 0, 1, 2, … and each
        token of padding gets a number that no other token has.  It is written in place: the masks hold on to that tensor.
        The model is called by `_forward` with the masks of `get_prefill_block_mask` for each window, and returns logits only
        where they are needed: at the last token of each sequence.

        Args:
            rows: sequences with slots and pages, all of their tokens to be computed.

        Returns:
            float32 [len(rows), V], the logits of the next token of each.
        """
        ### BEGIN SOLUTION
        n_tokens = sum(row.n_tokens for row in rows)
        L = self.prefill_length(n_tokens)
        padding = L - n_tokens
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        documents: list[int] = []
        starts: list[int] = []
        last_tokens: list[int] = []
        for document, row in enumerate(rows):
            start = len(ids)
            ids += row.sequence.token_ids
            slots += [row.sequence.slot] * row.n_tokens
            positions += range(row.n_tokens)
            documents += [document] * row.n_tokens
            starts += [start] * row.n_tokens
            last_tokens.append(len(ids) - 1)
        # A padding token is a document of its own, so that it costs no attention and sees something.
        documents += range(L, L + padding)
        starts += range(n_tokens, L)

        self.documents[:L] = torch.tensor(documents)
        start_L = torch.tensor(starts, device=self.device)
        return self._forward(
            input_ids=torch.tensor([ids + [0] * padding], device=self.device),
            input_pos=torch.tensor([positions + [0] * padding], device=self.device),
            batch_idx=torch.tensor([slots + [0] * padding], device=self.device),
            masks={window: self.get_prefill_block_mask(start_L, window) for window in self.windows},
            logits_at=torch.tensor(last_tokens, device=self.device),
            kernel_options=self._prefill_options,
        )[0]
        ### END SOLUTION

    def _prefill_mask_mod(self, window: int | None) -> MaskMod:
        """Each token reads what came before it in its own document, within the window."""
        mods = [causal, packed_documents(self.documents)]
        return all_of(*mods) if window is None else all_of(*mods, sliding_window(window))

    def get_prefill_block_mask(self, start_L: Tensor, window: int | None = None) -> BlockMask:
        """The BlockMask of a packed row.  [6.8 · ★★☆ · 15 min]

        Args:
            start_L: int64 [L], where in the row the document of each token begins; L is a multiple of `prefill_block`.
            window: keys that a token reads, or None.

        Returns:
            A BlockMask over [L, L] in blocks of `prefill_block`, one batch row, one head, with `_prefill_mods[window]`.  It
            lists the blocks that some token of its row of blocks reads, and no others; a block is full only if every token
            reads all of it.
        """
        ### BEGIN SOLUTION
        L, block = len(start_L), self.prefill_block
        last_L = torch.arange(L, device=self.device)
        first_L = start_L if window is None else torch.maximum(start_L, last_L - window + 1)
        partial, full = visible_blocks(first_L[None], last_L[None], L // block, (block, block))
        return block_mask_from_blocks(
            partial[:, None], full[:, None], self._prefill_mods[window], (block, block), (L, L)
        )
        ### END SOLUTION

    # ------------------------------------------------------------------ decode

    def _decode_mask_mod(self, window: int | None) -> MaskMod:
        """Row b reads the positions up to its own, within the window; there is one query, at position `positions[b]`."""

        def up_to_itself(b: Tensor, h: Tensor, q_idx: Tensor, position: Tensor) -> Tensor:
            return position <= self.positions[b]

        if window is None:
            return up_to_itself

        def within_window(b: Tensor, h: Tensor, q_idx: Tensor, position: Tensor) -> Tensor:
            return (position <= self.positions[b]) & (self.positions[b] - position < window)

        return within_window

    def get_decoding_block_mask(self, batch_idx: Tensor, window: int | None = None) -> BlockMask:
        """The logical BlockMask of a decode step: what each row reads of its own sequence.  [6.10 · ★★☆ · 20 min]

        Args:
            batch_idx: int64 [B], the slot of each row; a row of slot 0 is padding and lists no block.
            window: keys that a token reads, itself included, or None.

        Returns:
            A BlockMask with B rows, one head, one query, query blocks of 128 (FlexAttention's own size), key blocks of
            `page_size` tokens and `pages_per_row` of them, and `_decode_mods[window]`.  Row b is at position `positions[b]`.
            A page is full if the row reads all of it.
        """
        ### BEGIN SOLUTION
        table = self.tables[window]
        position_B = self.positions[: len(batch_idx)]
        last_B = position_B.where(batch_idx > 0, -1)
        first_B = torch.zeros_like(last_B) if window is None else (position_B - window + 1).clamp(min=0)
        partial, full = visible_blocks(first_B[:, None], last_B[:, None], table.pages_per_row, (1, table.page_size))
        return block_mask_from_blocks(
            partial[:, None],
            full[:, None],
            self._decode_mods[window],
            (128, table.page_size),
            (1, table.pages_per_row * table.page_size),
        )
        ### END SOLUTION

    def decode_step(self, batch_idx: Tensor, input_ids: Tensor, input_pos: Tensor) -> Tensor:
        """Compute the newest token of each running sequence.  [6.11 · ★★☆ · 15 min]

        On a GPU the rows are filled up to the next power of two, at most `max_batch_size`, with rows of slot 0: few batch
        sizes mean few compiled graphs.  `positions` gets the position of each row before the masks are made.

        Args:
            batch_idx, input_ids, input_pos: int64 [B]: slot, token and position of each row.

        Returns:
            float32 [B, V], the logits of the next token of each row, without those of the padding.
        """
        ### BEGIN SOLUTION
        B = len(batch_idx)
        padding = min(1 << (B - 1).bit_length(), self.max_batch_size) - B if self.device.type == "cuda" else 0
        batch_idx, input_ids, input_pos = (
            torch.nn.functional.pad(rows, (0, padding)) for rows in (batch_idx, input_ids, input_pos)
        )
        self.positions[: B + padding] = input_pos
        return self._decode_step(batch_idx, input_ids, input_pos)[:B]
        ### END SOLUTION

    def _decode_step(self, batch_idx: Tensor, input_ids: Tensor, input_pos: Tensor) -> Tensor:
        """From the logical masks through the page table to the model's forward: [B] each -> float32 [B, V]."""
        masks = {
            window: self.tables[window].convert_logical_block_mask(
                self.get_decoding_block_mask(batch_idx, window), batch_idx
            )
            for window in self.windows
        }
        return self._forward(input_ids[:, None], input_pos, batch_idx, masks, 1, self._decode_options)[:, -1]

    # ------------------------------------------------------------------ the model, and what becomes of its logits

    def _forward(
        self,
        input_ids: Tensor,
        input_pos: Tensor,
        batch_idx: Tensor,
        masks: dict[int | None, BlockMask],
        logits_at: Tensor | int,
        kernel_options: dict[str, Any] | None,
    ) -> Tensor:
        """Call the stock model: its attention layers find mask, positions and slots among their keyword arguments."""
        step_masks: Masks = {window: prepare_mask(self.path, mask) for window, mask in masks.items()}
        return self.model(
            input_ids=input_ids,
            position_ids=input_pos if input_pos.ndim == 2 else input_pos[:, None],
            use_cache=False,
            logits_to_keep=logits_at,
            flex_attn_block_mask=step_masks,
            flex_attn_input_pos=input_pos,
            flex_attn_batch_idx=batch_idx,
            flex_attn_kernel_options=kernel_options,
        ).logits.float()

    def _next_tokens(self, rows: list[Row], logits_BV: Tensor) -> list[int | None]:
        """Choose a token for each row, None where the model gave no number; note the probabilities that were asked for."""
        if self.mixed is None and rows[0].start == 0 and len(rows) > 1 and logits_BV.isnan().any():
            # A masked key is not unread, and 0 · NaN is NaN: who shared the row with a NaN is asked again, alone.
            logits_BV = torch.cat([self.prefill_sequences([row]) for row in rows])
        position_B = torch.tensor([row.start + row.n_tokens for row in rows], device=self.device)
        token_B = sample(logits_BV, self._sampling_batch(rows), position_B)
        # argmax prefers NaN, so the chosen logit tells of one anywhere in the row.
        finite = logits_BV.gather(1, token_B[:, None])[:, 0].isfinite().tolist()
        tokens = [token if ok else None for token, ok in zip(token_B.tolist(), finite, strict=True)]
        self._note_logprobs(rows, logits_BV, tokens)
        return tokens

    def _sampling_batch(self, rows: list[Row]) -> SamplingBatch:
        params, seeds = [row.sequence.params for row in rows], [row.sequence.seed for row in rows]
        return SamplingBatch.of(params, seeds, self.device)

    def _note_logprobs(self, rows: list[Row], logits_BV: Tensor, tokens: list[int | None]) -> None:
        """Note the probabilities that were asked for, where there is a token."""
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if (k := row.sequence.params.logprobs) is not None and token is not None:
                token_B = torch.tensor([token], device=self.device)
                row.sequence.logprobs += top_logprobs(logits_BV[i : i + 1], token_B, k)

    def _accept(self, sequence: Sequence, token: int | None) -> None:
        """Hand a sequence its token, end it if that was the last, and tell the caller."""
        if token is None:
            forget_nan(self.caches)  # its keys and values may be NaN too, and padding's that shared the step
            self._end(sequence, "error", error="the model's logits are not finite (NaN or infinity)")
            return
        sequence.output_ids.append(token)
        sequence.token_times.append(time.perf_counter())
        self.stats.output_tokens += 1
        reason, text = sequence.check_done(), ""
        detokenizer = sequence.detokenizer
        try:
            if detokenizer is not None and reason != "stop":
                text = detokenizer.add(token)
                reason = "stop" if detokenizer.stopped else reason
            if detokenizer is not None and reason is not None:
                text += detokenizer.finish()
        except Exception as trouble:
            self._end(
                sequence, "error", token=token, error=f"the tokenizer failed: {type(trouble).__name__}: {trouble}"
            )
            return
        if reason is None:
            self._events.append(TokenEvent(sequence.request_id, -1, token, text))
        else:
            self._end(sequence, reason, token=token, text=text)

    def _end(
        self, sequence: Sequence, reason: str, token: int | None = None, text: str = "", error: str | None = None
    ) -> None:
        """Finish a sequence, free what it holds, and queue its last event."""
        if self.planner is not None and reason == "error":
            self.planner.distrust(sequence)
        self.scheduler.finish(sequence, reason)
        if self._requests.pop(sequence.request_id, None) is None:
            return
        sequence.finish_reason = reason  # module 07 frees what a last token needed before it knows the token
        result = Result.of(sequence, error)
        self._events.append(TokenEvent(sequence.request_id, -1, token, text, result.finish_reason, result))

    # ------------------------------------------------------------------ many requests

    def generate(
        self, prompts: SequenceOf[Prompt], sampling_params: SamplingParams | SequenceOf[SamplingParams] | None = None
    ) -> list[Result]:
        """Answer all prompts.

        Args:
            prompts: strings (raw text), lists of token ids or lists of chat messages, mixed as you like.
            sampling_params: for all, or a list with one for each; None: greedy, 64 tokens.

        Returns:
            Results in the order of the prompts.  A prompt that cannot run has `finish_reason` "refused" and an `error`;
            the others are answered.  Of a prompt with `n` samples the first one's result has all of them in `samples`.

        Raises:
            TypeError, ValueError: `prompts` is no list, or `sampling_params` do not fit it.
            Whatever the model raises.  Nothing of this call is left in the engine then.
        """
        return in_order(event for event in self.stream(prompts, sampling_params) if event.result)

    def stream(
        self, prompts: SequenceOf[Prompt], sampling_params: SamplingParams | SequenceOf[SamplingParams] | None = None
    ) -> Iterator[TokenEvent]:
        """Answer all prompts and yield each token as it comes; `event.index` says of which prompt, `sample` of which sample.

        Args, raises: as `generate`.  Nothing is queued before the first event is asked for.  Stopping early (`close`,
        `break`) aborts what is unfinished.
        """
        return self._stream(prompts, one_params_each(prompts, sampling_params))

    def _stream(self, prompts: SequenceOf[Prompt], params: list[SamplingParams | None]) -> Iterator[TokenEvent]:
        index_of: dict[int, tuple[int, int]] = {}
        try:
            for index, sample, prompt, one in samples_of(prompts, params):
                try:
                    request_id = self.add_request(prompt, one)
                    index_of[request_id] = index, sample
                    self._streamed.add(request_id)
                except (TypeError, ValueError) as error:
                    yield TokenEvent(-1, index, None, "", "refused", Result.refused(str(error)), sample)
            unfinished = set(index_of)
            while unfinished:
                events = self._take_events(lambda event: event.request_id in index_of)
                if not events:
                    self._advance()
                for event in events:
                    if event.result is not None:
                        unfinished.discard(event.request_id)
                    index, sample = index_of[event.request_id]
                    yield replace(event, index=index, sample=sample)
        finally:
            for request_id in index_of:
                if sequence := self._requests.get(request_id):
                    self._end(sequence, "aborted", error="its stream was closed")
            self._take_events(lambda event: event.request_id in index_of)
            self._streamed -= set(index_of)

    # ------------------------------------------------------------------ about the engine

    def describe(self) -> str:
        """What was set up, in words: the model, the attention path and why, the cache and its size."""
        return describe(self)

    def close(self) -> None:
        """End what is unfinished and give the model back as it was.  The engine can't be used afterwards."""
        for sequence in list(self._requests.values()):
            self._end(sequence, "aborted", error="the engine was closed")
        if self.closed:  # another engine may have the model by now
            return
        self.closed = True
        if self.fast is not None:
            self.fast.close()
        for layer in self.layers:
            if getattr(layer.module, "kv_cache", None) is not None:
                del layer.module.kv_cache
        self.caches = []
        self.model.set_attn_implementation(self._implementation)
        forget_attention(self._attention_name)

    def __enter__(self) -> Inference:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
