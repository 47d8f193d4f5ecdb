"""One cell of the parity matrix: a family, an attention path, a page size.  The engine against transformers' own logits.

Seven prompts with lengths around page boundaries, in shuffled order, are answered with so few pages that sequences are
preempted.  The engine reports the whole distribution at every token; each is held against a forward of transformers over
the same tokens (teacher-forced), so that one early difference cannot hide the later ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import families
import torch

from flexnano import Inference, Result, SamplingParams

PATHS = ("compiled", "gather", "eager")
PAGE_SIZES = (16, 32, 64, 128)
NEW_TOKENS = 20
TOLERANCE = 2e-4  # of log-probabilities, float32; seen: 2e-5
NEAR_TIE = 1e-3  # two best logits closer than this: either token is right


@dataclass(frozen=True)
class Cell:
    worst: float  # largest difference of a log-probability
    near_ties: int
    preemptions: int

    def __str__(self) -> str:
        return f"{self.worst:.0e}/{self.preemptions}" + (f"~{self.near_ties}" if self.near_ties else "")


def prompts_for(page_size: int) -> list[list[int]]:
    lengths = [1, 5, page_size - 1, page_size, page_size + 1, 2 * page_size - 1, 2 * page_size]
    random.Random(page_size).shuffle(lengths)
    return [families.random_prompt(length, seed=length) for length in lengths]


def make_engine(family: str, path: str, page_size: int, device: str = "cpu") -> Inference:
    return Inference(
        families.FAMILIES[family]().to(device),
        None,
        max_batch_size=4,
        max_seq_length=2 * page_size + NEW_TOKENS + 1,
        n_pages=2 + -(-(2 * page_size + NEW_TOKENS) // page_size),
        page_size=page_size,
        attention=path,
    )


def run_cell(family: str, path: str, page_size: int, device: str = "cpu") -> Cell:
    """Raises AssertionError where the engine is not transformers."""
    with make_engine(family, path, page_size, device) as engine:
        return compare(engine, families.FAMILIES[family](), prompts_for(page_size))


def compare(engine: Inference, reference: families.PreTrainedModel, prompts: list[list[int]]) -> Cell:
    results = engine.generate(prompts, SamplingParams(max_new_tokens=NEW_TOKENS, logprobs=families.VOCAB))
    engine.page_table.check()
    cells = [compare_one(prompt, result, reference) for prompt, result in zip(prompts, results, strict=True)]
    assert engine.stats.preemptions > 0, "no sequence was preempted: the pool is too large to prove anything"
    return Cell(max(worst for worst, _ in cells), sum(near_ties for _, near_ties in cells), engine.stats.preemptions)


def compare_one(prompt: list[int], result: Result, reference: families.PreTrainedModel) -> tuple[float, int]:
    what = f"prompt of {len(prompt)} tokens"
    assert result.finish_reason == "length", f"{what}: ended with {result.finish_reason!r}: {result.error}"
    assert len(result.token_ids) == NEW_TOKENS, f"{what}: {len(result.token_ids)} tokens instead of {NEW_TOKENS}"
    logits_TV = families.reference_logits(reference, prompt + result.token_ids[:-1])[len(prompt) - 1 :]
    expected_TV = logits_TV.log_softmax(-1)
    assert result.logprobs is not None
    got_TV = torch.tensor([[row[token] for token in range(families.VOCAB)] for row in result.logprobs])

    off_T = (got_TV - expected_TV).abs().amax(-1)
    assert off_T.max() < TOLERANCE, (
        f"{what}: log-probabilities are off by {off_T.max():.3g}, "
        f"first at new token {int((off_T > TOLERANCE).int().argmax())}"
    )
    best_T2 = logits_TV.topk(2).values
    near_tie_T = best_T2[:, 0] - best_T2[:, 1] < NEAR_TIE
    wrong_T = logits_TV.argmax(-1) != torch.tensor(result.token_ids)
    assert not (wrong_T & ~near_tie_T).any(), (
        f"{what}: another token than transformers' at {wrong_T.nonzero().tolist()}"
    )
    return float(off_T.max()), int(near_tie_T.sum())
