"""Case 6: each token decoded alone."""

from course.clinic.case import Case, Edit, Variant

ADD = ("detokenize.py", "Detokenizer.add")
READ = ("detokenize.py", "Detokenizer._read")
SHOW = "self._read(int(token_id))"

CASE = Case(
    number=6,
    slug="token-by-token-text",
    title="Question marks in place of letters",
    report="""\
Our English texts are perfect. Since we have users in other countries, there are black diamonds with question marks in the
answers: two or three in place of one letter. It does not depend on the language alone, some words are always right. All
emoji are broken.

The token ids are right: when I take `result.token_ids` and decode them myself, the text is as it should be.
""",
    reproduce='''\
"""What the user did: an English answer, and one with an accent, a Chinese character and an emoji."""

from course.clinic.bench import engine_for, recite
from flexnano import SamplingParams

for text in ("the answer is yes, of course.", "the café in 漢 is open 😀 all day."):
    with engine_for(text=True, n_pages=64, max_seq_length=128) as engine:
        recite(engine, text)  # the model continues any beginning of this text
        ids = engine.tokenizer(text)["input_ids"]
        (result,) = engine.generate([text[:4]], SamplingParams(max_new_tokens=len(ids) - 4))
    print("the engine's text   ", text[:4] + result.text)
    print("its tokens, decoded ", text[:4] + engine.tokenizer.decode(result.token_ids))
    print("equal" if result.text == engine.tokenizer.decode(result.token_ids) else "the text is not that of its tokens")
''',
    symptom="the text is not that of its tokens",
    bugs=(
        Variant("each token alone", (Edit(*ADD, SHOW, "self._decode([int(token_id)])"),)),
        Variant(
            "and what is broken left out", (Edit(*ADD, SHOW, 'self._decode([int(token_id)]).replace(BROKEN, "")'),)
        ),
        Variant("nothing waits", (Edit(*READ, "len(tail) - _n_waiting(tail)", "len(tail)"),)),
    ),
    twins=(
        Variant(
            "everything anew for each token",
            (
                Edit(
                    *ADD,
                    "return self._show(" + SHOW + ", last=False)",
                    "self._window.append(int(token_id))\n"
                    "        text = self._decode(self._window)\n"
                    "        end = len(text) - _n_waiting(text)\n"
                    "        new, self._n_read = text[self._n_read : end], max(self._n_read, end)\n"
                    "        return self._show(new, last=False)",
                ),
            ),
        ),
    ),
    hints=(
        "Write the tokens of the emoji below each other, each with its bytes. Which of them is a text?",
        "Follow one token from the model to the piece of text that is shown. What is decoded: the token, or the tokens?",
        "Decode a token together with those before it that are not shown yet, and hold back what a later token can still "
        "change: an unfinished character at the end.",
    ),
    published="a stream that decoded each token id alone, so that characters of several tokens became U+FFFD",
    address="https://github.com/exo-explore/exo/pull/1691",
)
