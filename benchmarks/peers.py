"""Engines that load their own models, behind the calls of engines.py.

vLLM was not there where this was written and the results were measured: its interface is taken from its documentation.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from benchmarks.engines import Limits, Outcome
from benchmarks.workload import Request


class VLLM:
    """vLLM with random weights of a published shape: it is given a folder with nothing but the configuration.

    Args:
        config: of transformers.
        options: for `vllm.LLM`, before what the limits say.
    """

    def __init__(self, config: Any, limits: Limits, options: dict[str, Any]) -> None:
        import vllm
        from transformers import AutoModelForCausalLM

        self.name = f"vLLM {vllm.__version__}"
        self.folder = tempfile.TemporaryDirectory()
        with torch.device("meta"):  # which class of vLLM's it is depends on the name of transformers' own
            config.architectures = [type(AutoModelForCausalLM.from_config(config)).__name__]
        config.save_pretrained(self.folder.name)
        wanted = {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "dtype": "bfloat16",
            "max_model_len": limits.max_seq_length,
            "max_num_seqs": limits.max_batch_size,
            "max_num_batched_tokens": limits.max_prefill_tokens,
            "enable_prefix_caching": False,  # unless the options say otherwise, no engine here shares prefixes
            **options,
        }
        self.llm = vllm.LLM(model=self.folder.name, **wanted)

    def run(self, requests: list[Request]) -> Outcome:
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": r.prompt} for r in requests]
        params = [
            SamplingParams(temperature=0.0, max_tokens=r.max_new_tokens, ignore_eos=True, detokenize=False)
            for r in requests
        ]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return Outcome([list(output.outputs[0].token_ids) for output in outputs], [])

    def describe(self) -> str:
        return f"{self.name}, random weights of its own"

    def close(self) -> None:
        self.folder.cleanup()
