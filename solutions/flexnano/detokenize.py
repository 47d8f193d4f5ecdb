"""From token ids to text, piece by piece.  A given file, not an exercise.

Tokens are not text: an emoji may take four tokens, none of which means anything alone; some tokenizers drop the first
space of a text; a stop string may end in the middle of a token.  So a piece is shown only once no later token can change it.

    tokens   Hel | lo | <F0> | <9F> | <98> | <80> | !
    shown    Hel | lo |      |      |      | 😀   | !

Decoding the whole answer again for each token would take time that grows with its square.  Instead a window of a few
tokens is decoded: those since the last piece, and before them those of the last piece, so that a decoder which treats the
beginning of a text specially does so in both.  The idea of the two offsets is from text-generation-inference
(`Model.decode_token`) and vLLM (`detokenize_incrementally`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
"""What decoders write for bytes that are no character (yet)."""

LONGEST_WAIT = 3
"""A character is at most four bytes of UTF-8, so at most three of them can be waiting for the rest."""

WINDOW = 32
"""A window that has settled nothing for so many tokens is cut: the bytes in it are broken for good."""


class Detokenizer:
    """Turns the tokens of one answer into text as they come.

    The pieces, joined, are `tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)`, cut
    before the earliest stop string.  Only where a byte-fallback tokenizer is given bytes that are no UTF-8 can it differ:
    then the decoder would take back characters before them that have been shown already.

    Args:
        tokenizer: any Hugging Face tokenizer, fast or slow.
        stop_strings: not empty, each; where the first of them begins, the text ends.

    Attributes:
        stopped: True from the moment a stop string was complete.  Nothing is shown from then on.
    """

    def __init__(self, tokenizer: Any, stop_strings: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        self.stopped = False
        self._pieces: list[str] = []
        self._window: list[int] = []  # ids of the last settled piece, then those that are not settled
        self._n_settled = 0  # how many ids of the window are settled
        self._settled_text = ""  # their text
        self._n_read = 0  # how many characters after that text have been taken out
        self._held = ""  # taken out, but may be the beginning of a stop string

    @property
    def text(self) -> str:
        """All pieces so far, joined."""
        return "".join(self._pieces)

    def add(self, token_id: int) -> str:
        """Take the next token; return the text that is safe to show now, often one token's, possibly empty."""
        if self.stopped or not self._token(token_id):
            return ""
        return self._show(self._read(int(token_id)), last=False)

    def finish(self) -> str:
        """The rest, when no token will follow: a half character as U+FFFD, the beginning of a stop string as itself."""
        if self.stopped:
            return ""
        rest = self._tail()[self._n_read :]
        self._window, self._n_settled, self._settled_text, self._n_read = [], 0, "", 0
        return self._show(rest, last=True)

    # -- from tokens to text that no later token changes

    def _read(self, token_id: int) -> str:
        self._window.append(token_id)
        tail = self._tail()
        end = len(tail) - _n_waiting(tail)
        new = tail[self._n_read : end]
        self._n_read = max(self._n_read, end)

        if new and end == len(tail):
            self._window, self._n_read = self._window[self._n_settled :], 0
            self._n_settled, self._settled_text = len(self._window), self._decode(self._window)
        elif not new and end == len(tail) and self._is_skipped(token_id):
            self._window.pop()
        elif len(self._window) > WINDOW:
            n_unread = max(0, len(tail) - self._n_read)
            self._window, self._n_settled, self._settled_text = self._window[-WINDOW // 4 :], 0, ""
            self._n_read = max(0, len(self._decode(self._window)) - n_unread)
        return new

    def _tail(self) -> str:
        """The text of the tokens that are not settled, decoded after those that are."""
        text = self._decode(self._window)
        if text.startswith(self._settled_text):
            return text[len(self._settled_text) :]
        # A byte-fallback decoder breaks a whole run of bytes while its last character is not complete.
        return self._decode(self._window[self._n_settled :])

    def _decode(self, ids: list[int]) -> str:
        # Cleaning up would change text that was shown: " ." becomes "." only once the dot is there.
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _token(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it; None for an id that a model with a padded vocabulary may give."""
        try:
            return self.tokenizer.convert_ids_to_tokens(int(token_id))
        except (IndexError, KeyError, OverflowError):
            return None

    def _is_skipped(self, token_id: int) -> bool:
        """Whether it is a special token: one that has a text, but not in an answer."""
        return not self._decode([token_id]) and bool(self.tokenizer.decode([token_id], skip_special_tokens=False))

    # -- stop strings

    def _show(self, new: str, last: bool) -> str:
        text = self._held + new
        starts = [start for stop in self.stop_strings if (start := text.find(stop)) >= 0]
        if starts:
            self.stopped = True
            self._held, piece = "", text[: min(starts)]
        else:
            n_held = 0 if last else self._n_possible_stop(text)
            piece, self._held = text[: len(text) - n_held], text[len(text) - n_held :]
        self._pieces.append(piece)
        return piece

    def _n_possible_stop(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        longest = min(len(text), max(map(len, self.stop_strings), default=1) - 1)
        ends = (text[-n:] for n in range(longest, 0, -1))
        return next((len(end) for end in ends if any(stop.startswith(end) for stop in self.stop_strings)), 0)


def _n_waiting(text: str) -> int:
    """How many characters at the end of `text` may still become others."""
    n_broken = len(text) - len(text.rstrip(BROKEN))
    return min(n_broken, LONGEST_WAIT)
