"""Incremental detokenizing: the pieces are the text, whatever the tokenizer and however a character is split."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from flexnano.detokenize import BROKEN, WINDOW, Detokenizer

TEXT = (
    "Hello world, this is a small text.  It has two  spaces, a\ttab and\n\nempty lines!\n"
    "Übergrößenträger naïve café; cafe\u0301 and e\u0301 with combining accents. "
    "日本語のテキスト。中文字符也在这里。한국어도 있습니다. "
    "😀😃 👍🏽 👩‍👩‍👧‍👦 🇩🇪🇫🇷 flags and families. "
    "def f(x):\n    return x + 1  # code\n"
)
KINDS = ["byte-level", "byte-fallback", "metaspace", "slow"]


@functools.cache
def tokenizer(kind: str) -> Any:
    """A real tokenizer of each family, trained here on a few lines."""
    special = ["<unk>", "<s>", "</s>"]
    if kind == "slow":
        return ByT5Tokenizer(extra_ids=0)
    if kind == "byte-level":  # GPT-2, Llama 3, Qwen
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        raw.train_from_iterator(
            [TEXT], trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
        )
    else:  # Llama 2, Mistral, Gemma: ▁ for a space, bytes for what the vocabulary lacks, the first space of a text dropped
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        letters = [c for c in TEXT if c not in "😀👍🏽中文语\n"]
        raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special + byte_tokens)
        raw.train_from_iterator(["".join(letters)], trainer)
        if kind == "metaspace":
            raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        else:
            raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            raw.pre_tokenizer = None
            raw.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
        # byte tokens were only reserved as special: make them plain tokens of the vocabulary
        raw = _with_plain_bytes(raw, special)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.add_tokens([AddedToken("<tool>", special=False), AddedToken("<|end|>", special=True)])
    return fast


def _with_plain_bytes(raw: Tokenizer, special: list[str]) -> Tokenizer:
    import json

    state = json.loads(raw.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


def ids_of(kind: str, text: str) -> list[int]:
    return tokenizer(kind)(text, add_special_tokens=False)["input_ids"]


def decode(kind: str, ids: list[int]) -> str:
    return tokenizer(kind).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def pieces_of(kind: str, ids: list[int], stop_strings: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(tokenizer(kind), stop_strings)
    pieces = [detokenizer.add(token_id) for token_id in ids]
    return [*pieces, detokenizer.finish()], detokenizer


class CountingTokenizer:
    """Counts the tokens that are decoded."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.n_decoded = inner, 0

    def decode(self, ids: list[int], **options: Any) -> str:
        self.n_decoded += len(ids)
        return self.inner.decode(ids, **options)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return self.inner.convert_ids_to_tokens(token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizers_here_are_what_they_claim(kind: str) -> None:
    """Else the tests below would pass without a split character."""
    ids = ids_of(kind, "日本 😀!")
    assert decode(kind, ids) == "日本 😀!"
    assert any(not decode(kind, [i]) or BROKEN in decode(kind, [i]) for i in ids), "no character is split over tokens"


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_join_to_the_text(kind: str) -> None:
    ids = ids_of(kind, TEXT)
    pieces, detokenizer = pieces_of(kind, ids)
    assert "".join(pieces) == detokenizer.text == decode(kind, ids)
    assert BROKEN not in detokenizer.text


@pytest.mark.parametrize("kind", KINDS)
def test_an_emoji_comes_whole_or_not_at_all(kind: str) -> None:
    pieces, _ = pieces_of(kind, ids_of(kind, "a 😀 👍🏽 中 z"))
    assert not any(BROKEN in piece for piece in pieces)
    assert sum("😀" in piece for piece in pieces) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_emoji_is_shown_with_its_last_byte_not_with_the_next_token(kind: str) -> None:
    detokenizer = Detokenizer(tokenizer(kind))
    for token_id in ids_of(kind, "a😀"):
        detokenizer.add(token_id)
    assert detokenizer.text == "a😀"


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace"])
def test_half_an_emoji_at_the_end_is_flushed_as_broken(kind: str) -> None:
    ids = ids_of(kind, "ok 😀")[:-1]
    pieces, detokenizer = pieces_of(kind, ids)
    assert not any(BROKEN in piece for piece in pieces[:-1])
    assert detokenizer.text == decode(kind, ids) and BROKEN in pieces[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["  two leading spaces", " x", "\n\n", "a  b   c", "e\u0301\u0301", "👩‍👩‍👧‍👦", "."])
def test_spaces_and_joined_characters_survive(kind: str, text: str) -> None:
    ids = ids_of(kind, text)
    pieces, _ = pieces_of(kind, ids)
    assert "".join(pieces) == decode(kind, ids)


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace"])
def test_special_tokens_are_silent_wherever_they_stand(kind: str) -> None:
    end, tool, bos = tokenizer(kind).convert_tokens_to_ids(["<|end|>", "<tool>", "<s>"])
    ids = [bos, end, *ids_of(kind, "Hello world"), end, end, tool, *ids_of(kind, " this 😀"), bos, *ids_of(kind, "is")]
    pieces, detokenizer = pieces_of(kind, ids)
    assert "".join(pieces) == decode(kind, ids)
    assert "<tool>" in detokenizer.text and "<|end|>" not in detokenizer.text


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace"])
def test_an_id_beyond_the_tokenizer_is_silent(kind: str) -> None:
    """Many models have a padded vocabulary, larger than their tokenizer's."""
    hello = ids_of(kind, "Hello 😀")
    pieces, _ = pieces_of(kind, [10**6, *hello[:2], 10**6, *hello[2:]])
    assert "".join(pieces) == "Hello 😀"


# -- stop strings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("world",), "Hello "),
        (("o w",), "Hell"),
        (("d, t", "lo"), "Hel"),
        (("世",), "Hello world, "),
        (("😀",), "Hello world, 世界 "),
        (("界 😀!",), "Hello world, 世"),
        (("Hello",), ""),
        (("!",), "Hello world, 世界 😀"),
        (("! and more",), "Hello world, 世界 😀!"),
        (("worlds", "Hello x"), "Hello world, 世界 😀!"),
    ],
)
def test_the_text_ends_before_the_earliest_stop_string(kind: str, stops: tuple[str, ...], expected: str) -> None:
    _, detokenizer = pieces_of(kind, ids_of(kind, "Hello world, 世界 😀!"), stops)
    assert detokenizer.text == expected
    assert detokenizer.stopped == (expected != "Hello world, 世界 😀!")


def test_nothing_is_shown_after_a_stop_string() -> None:
    detokenizer = Detokenizer(tokenizer("byte-level"), ["lo"])
    pieces = [detokenizer.add(token_id) for token_id in ids_of("byte-level", "Hello world")]
    assert detokenizer.stopped and "".join(pieces) == "Hel"
    assert [detokenizer.add(token_id) for token_id in ids_of("byte-level", "more")] == [""] * len(
        ids_of("byte-level", "more")
    )
    assert detokenizer.finish() == "" and detokenizer.text == "Hel"


def test_the_beginning_of_a_stop_string_waits_and_is_shown_if_it_comes_to_nothing() -> None:
    slow = tokenizer("slow")  # one token a byte
    detokenizer = Detokenizer(slow, ["aab"])
    shown = [detokenizer.add(token_id) for token_id in ids_of("slow", "aaaxaa")]
    assert shown == ["", "", "a", "aax", "", ""], "hold back just what may become the stop string"
    assert detokenizer.finish() == "aa" and not detokenizer.stopped


def test_one_stop_string_may_be_given_as_it_is() -> None:
    assert Detokenizer(tokenizer("slow"), "ab").stop_strings == ("ab",)


# -- anything at all


def any_ids(kind: str) -> st.SearchStrategy[list[int]]:
    vocabulary = st.integers(0, len(tokenizer(kind)) - 1)
    bytes_of_text = st.text(max_size=12).map(lambda text: ids_of(kind, text))
    some = st.sampled_from(["😀", " ", "  ", "中文", "é", "e\u0301", "Hello world", "\n"]).map(
        lambda text: ids_of(kind, text)
    )
    chunk = st.one_of(vocabulary.map(lambda i: [i]), bytes_of_text, some)
    return st.lists(chunk, max_size=30).map(lambda chunks: [i for chunk in chunks for i in chunk])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_tokens_join_to_the_decoded_text(kind: str, data: st.DataObject) -> None:
    ids = data.draw(any_ids(kind))
    pieces, detokenizer = pieces_of(kind, ids)
    whole = decode(kind, ids)
    assert "".join(pieces) == detokenizer.text
    if kind == "byte-level" or BROKEN not in whole:
        assert detokenizer.text == whole
    else:  # byte fallback takes back the characters before a broken byte; those shown stay
        assert detokenizer.text.replace(BROKEN, "").startswith(whole.split(BROKEN)[0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_no_piece_is_held_back_without_a_reason(kind: str, data: st.DataObject) -> None:
    ids = data.draw(any_ids(kind))
    stops = data.draw(st.lists(st.text(alphabet=" abeHlo😀中\n", min_size=1, max_size=4), max_size=3))
    detokenizer = Detokenizer(tokenizer(kind), stops)
    for n, token_id in enumerate(ids, 1):
        detokenizer.add(token_id)
        so_far = decode(kind, ids[:n])
        if detokenizer.stopped or BROKEN in so_far:
            break
        waiting = so_far.removeprefix(detokenizer.text)
        assert so_far.startswith(detokenizer.text), "shown text must be the beginning of the whole"
        assert not waiting or any(stop.startswith(waiting) and stop != waiting for stop in stops), (
            "held back for nothing"
        )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_stop_string_cuts_where_it_begins(kind: str, data: st.DataObject) -> None:
    ids = data.draw(any_ids(kind))
    full = pieces_of(kind, ids)[1].text
    cuts = st.tuples(st.integers(0, max(0, len(full) - 1)), st.integers(1, 6)).map(
        lambda cut: full[cut[0] : cut[0] + cut[1]]
    )
    stops = data.draw(st.lists(st.one_of(cuts, st.text(min_size=1, max_size=3)).filter(bool), min_size=1, max_size=3))
    pieces, detokenizer = pieces_of(kind, ids, tuple(stops))
    text = "".join(pieces)

    assert text == detokenizer.text
    assert detokenizer.stopped == any(stop in full for stop in stops)
    assert not any(stop in text for stop in stops), "a stop string was shown"
    if detokenizer.stopped:
        assert any(full[len(text) :].startswith(stop) for stop in stops) and full.startswith(text), (
            "cut at the wrong place"
        )
    else:
        assert text == full


# -- cost


def endless(kind: str) -> dict[str, list[int]]:
    vocab = tokenizer(kind).get_vocab()
    eos = tokenizer(kind).eos_token_id
    broken = (
        ids_of(kind, "😀")[-1]
        if kind != "byte-level"
        else vocab[pre_tokenizers.ByteLevel().pre_tokenize_str("é")[0][0][-1]]
    )
    return {
        "text": ids_of(kind, TEXT * 4),
        "characters": ids_of(kind, "中" * 700),
        "specials": [eos],
        "broken": [broken],
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["text", "characters", "specials", "broken"])
def test_the_cost_of_a_token_does_not_grow(kind: str, what: str) -> None:
    ids = endless(kind)[what]
    ids = ids * (2000 // len(ids) + 1)
    counting = CountingTokenizer(tokenizer(kind))
    detokenizer = Detokenizer(counting)
    for token_id in ids:
        detokenizer.add(token_id)
    detokenizer.finish()
    assert counting.n_decoded < 2 * WINDOW * len(ids), "each token must decode a few tokens, not all before it"
    whole = decode(kind, ids)
    assert detokenizer.text == whole, f"{len(detokenizer.text)} characters shown, {len(whole)} expected"


def test_a_good_character_after_many_broken_bytes_is_shown_whole() -> None:
    for kind in ("byte-level", "byte-fallback"):
        broken, good = ids_of(kind, "😀")[-1], ids_of(kind, "Hello 😀!")
        for n in range(WINDOW - 6, WINDOW + 6):
            _, detokenizer = pieces_of(kind, [broken] * n + good)
            assert detokenizer.text.endswith("😀!"), "the cut of the window fell into a character"
