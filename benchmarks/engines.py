"""The engines that are compared, each behind the same two calls: make it, then `run(requests)`.

All get the same token ids, write exactly the number of tokens asked for (greedy, the end of sequence ignored) and hold
the same loaded transformers model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch

from benchmarks.workload import Request


@dataclass
class Outcome:
    """What a run gave: for each request its tokens and the seconds from the start of the run to its first token."""

    tokens: list[list[int]]
    first_token_seconds: list[float]


class Engine(Protocol):
    """An engine that is ready to run."""

    def run(self, requests: list[Request]) -> Outcome: ...

    def describe(self) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What every batching engine is given alike: rows in a batch, tokens in a prefill, room for keys and values."""

    max_batch_size: int
    max_seq_length: int
    page_size: int = 128
    max_prefill_tokens: int = 2048

    @property
    def n_pages(self) -> int:
        """Pages for twice the longest batch, so that no engine has to preempt or to keep requests waiting for memory."""
        return 2 * self.max_batch_size * -(-self.max_seq_length // self.page_size)


class FirstToken:
    """A transformers streamer that notes when the first token came, and nothing else."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        if len(self.times) < 2:  # the prompt, then the first token
            self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class OneByOne:
    """`model.generate` on one request after another."""

    batch_size = 1

    def __init__(self, model: Any, tokenizer: Any, limits: Limits, options: dict[str, Any]) -> None:
        self.model = model
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        # generate() fills unset fields of a call from here, so that passing eos_token_id=None alone would not do.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = self.pad

    def run(self, requests: list[Request]) -> Outcome:
        start, outcome = time.perf_counter(), Outcome([], [])
        for i in range(0, len(requests), self.batch_size):
            batch = requests[i : i + self.batch_size]
            first = FirstToken()
            outcome.tokens += self.generate(batch, first)
            outcome.first_token_seconds += [first.times[1] - start] * len(batch)
        return outcome

    @torch.inference_mode()
    def generate(self, batch: list[Request], streamer: FirstToken) -> list[list[int]]:
        """One call of `generate`: left-padded, every row runs to the longest answer, the surplus is thrown away."""
        width = max(len(r.prompt) for r in batch)
        ids_BL = torch.tensor([[self.pad] * (width - len(r.prompt)) + r.prompt for r in batch])
        mask_BL = torch.tensor([[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in batch])
        out_BL = self.model.generate(
            ids_BL.to(self.model.device),
            attention_mask=mask_BL.to(self.model.device),
            max_new_tokens=max(r.max_new_tokens for r in batch),
            do_sample=False,
            streamer=streamer,
        )
        return [row[: r.max_new_tokens] for row, r in zip(out_BL[:, width:].tolist(), batch, strict=True)]

    def describe(self) -> str:
        return f"generate, batch size {self.batch_size}, attention {self.model.config._attn_implementation}"

    def close(self) -> None:
        pass


class StaticBatches(OneByOne):
    """`model.generate` on left-padded batches, in order of arrival."""

    def __init__(self, model: Any, tokenizer: Any, limits: Limits, options: dict[str, Any]) -> None:
        super().__init__(model, tokenizer, limits, options)
        self.batch_size = limits.max_batch_size


class ContinuousBatching:
    """transformers' own continuous batching, driven by its manager, the one interface that takes a length per request."""

    def __init__(self, model: Any, tokenizer: Any, limits: Limits, options: dict[str, Any]) -> None:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        known = {f.name for f in fields(ContinuousBatchingConfig)}
        wanted = {
            "page_size" if "page_size" in known else "block_size": limits.page_size,
            "num_blocks": limits.n_pages,
            "max_batch_tokens": limits.max_prefill_tokens,
            "max_requests_per_batch": limits.max_batch_size,
            "allow_block_sharing": False,  # no engine here shares prefixes
            **options,
        }
        self.manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=64),
            continuous_batching_config=ContinuousBatchingConfig(**{k: v for k, v in wanted.items() if k in known}),
        )
        if hasattr(self.manager, "warmup"):  # not before transformers 5.17
            self.manager.warmup()
        self.manager.start()
        self.model, self.runs = model, 0

    def run(self, requests: list[Request]) -> Outcome:
        self.runs += 1
        start = time.perf_counter()
        for i, r in enumerate(requests):
            self.manager.add_request(
                r.prompt, request_id=f"{self.runs}-{i}", max_new_tokens=r.max_new_tokens, record_timestamps=True
            )
        done: dict[str, Any] = {}
        while len(done) < len(requests):
            result = self.manager.get_result(timeout=1)
            if result is None:
                if not self.manager.is_running():
                    raise RuntimeError(
                        "the generation thread of transformers' continuous batching ended; see its log above"
                    )
            elif result.error is not None:
                raise RuntimeError(f"request {result.request_id}: {result.error}")
            elif result.is_finished():
                done[result.request_id] = result
        results = [done[f"{self.runs}-{i}"] for i in range(len(requests))]
        return Outcome([list(r.generated_tokens) for r in results], [r.timestamps[0] - start for r in results])

    def describe(self) -> str:
        config = self.manager.continuous_batching_config
        return (
            f"continuous batching, attention {self.model.config._attn_implementation}, "
            f"max_batch_tokens {config.max_batch_tokens}, max_requests_per_batch {config.max_requests_per_batch}"
        )

    def close(self) -> None:
        self.manager.stop(block=True, timeout=30)


class FlexNano:
    """The engine of this course."""

    def __init__(self, model: Any, tokenizer: Any, limits: Limits, options: dict[str, Any]) -> None:
        from flexnano import Inference

        wanted: dict[str, Any] = {
            "max_batch_size": limits.max_batch_size,
            "max_seq_length": limits.max_seq_length,
            "n_pages": limits.n_pages,
            "page_size": limits.page_size,
            "max_prefill_tokens": limits.max_prefill_tokens,
            **options,
        }
        self.engine = Inference(model, tokenizer, **wanted)

    def run(self, requests: list[Request]) -> Outcome:
        from flexnano import SamplingParams

        params = [SamplingParams(max_new_tokens=r.max_new_tokens, ignore_eos=True) for r in requests]
        results = self.engine.generate([r.prompt for r in requests], params)
        for result in results:
            if result.finish_reason != "length":
                raise RuntimeError(f"request {result.request_id} ended with {result.finish_reason}: {result.error}")
        return Outcome([list(r.token_ids) for r in results], [r.metrics.time_to_first_token or 0.0 for r in results])

    def describe(self) -> str:
        return str(self.engine.describe())

    def close(self) -> None:
        self.engine.close()


Maker = Callable[[Any, Any, Limits, dict[str, Any]], Engine]

ENGINES: dict[str, Maker] = {
    "flexnano": FlexNano,
    "one_by_one": OneByOne,
    "static": StaticBatches,
    "continuous": ContinuousBatching,
}

LABELS = {
    "flexnano": "flexnano (this engine)",
    "one_by_one": "transformers generate,\none by one",
    "static": "transformers generate,\nstatic batches",
    "continuous": "transformers,\ncontinuous batching",
}
