# Your copy of solutions/flexnano/experiment.py, made by `python -m course stubs`
# Yours to write: the body of each function that says `raise NotImplementedError("Exercise ...")`.
# untouched while the rest of this file has the hash c70b10adf2ab6846
"""Module 02: the experiment.  What it takes to put an attention function into a stock model and to say what that is worth:
the mask of a batch, the swap, the stopwatch.  experiments/AddFlexAttentionQwen/ runs it on Qwen3.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, PreTrainedModel

from .attention import forget_attention
from .masks import MaskMod, all_of, causal
from .stopwatch import Stopwatch, Timing


def document_block_mask(document_BL: Tensor, mask_mod: MaskMod = causal, block_size: int = 128) -> BlockMask:
    """The mask of a batch whose rows hold packed documents and padding.  [2.3 · ★★☆ · 20 min]

    A query reads a key if both belong to the same document of their row and `mask_mod` allows it.  Padding reads nothing and
    nobody reads it.

    Args:
        document_BL: integer tensor [B, L], the document of each token; negative: the token is padding.
        mask_mod: what must hold besides; the positions that it is asked for count in the row, not in the document.
        block_size: queries and keys in a block.

    Returns:
        BlockMask for L queries and L keys, with lists of its own for each of the B rows, the same for all heads, that name
        only blocks in which something is read; and with the transposed lists (`q_num_blocks`, `q_indices`) that a backward
        pass needs.

    >>> mask = document_block_mask(torch.tensor([[0, 0, 1, -1]]), block_size=2)
    >>> q, kv = torch.arange(4)[:, None], torch.arange(4)
    >>> mask.mask_mod(torch.tensor(0), torch.tensor(0), q, kv).int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    """
    raise NotImplementedError("Exercise 2.3: document_block_mask")


@contextlib.contextmanager
def attention_swapped(model: PreTrainedModel, attention: Callable[..., Any]) -> Iterator[Counter[torch.nn.Module]]:
    """Let a model compute its attention with another function for a while, and prove that it did.  [2.4 · ★★☆ · 25 min]

        with attention_swapped(model, attention) as calls:
            logits = model(ids, flex_attn_block_mask=mask, use_cache=False).logits

    `attention` is registered with transformers' `AttentionInterface` under a name that nothing else has, and the model is
    told to use it (`model.set_attn_implementation`).  At the end, also after an error, the model has the implementation
    back that it had before (`model.config._attn_implementation`).

    A model that goes on with its own attention gives perfect logits, so success proves nothing; only calls do.

    Args:
        model: any whose attention goes through the interface.
        attention: called as the interface calls it, (module, query, key, value, attention_mask, **more), with the attention
            layer as `module`; returns what the layer expects: (output [B, Q, Hq, D], weights or None).

    Yields:
        Counter: how often each attention layer (`module`) has called `attention`, kept up to date.

    Raises:
        RuntimeError: at the end, if there was no other error but not each of the model's
            `config.get_text_config().num_hidden_layers` layers has called `attention`.
    """
    raise NotImplementedError("Exercise 2.4: attention_swapped")


_numbers = itertools.count()


def measure(run: Callable[[], object], stopwatch: Stopwatch, warm_up: int = 2, repeats: int = 5) -> Timing:
    """How long a call takes.  [2.5 · ★★☆ · 15 min]

    A GPU does its work after the call that asked for it has returned; and the first call, which compiles, says nothing about
    the others, but everything about what compiling costs.

    Args:
        run: what is timed; called 1 + `warm_up` + `repeats` times.
        stopwatch: its `mark`, `wait` and `seconds` are the only clock that is used.
        warm_up: calls after the first that are made and not reported.
        repeats: calls that are reported, each with a time of its own; at least 1.

    Returns:
        Timing(seconds of the first call, seconds of each repeat in order).
    """
    raise NotImplementedError("Exercise 2.5: measure")
