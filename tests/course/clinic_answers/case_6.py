"""The pieces of a stream, joined, are the text of its tokens."""

from course.clinic.bench import ToyTokenizer, engine_for, recite
from flexnano import SamplingParams


def test_the_text_is_that_of_the_tokens() -> None:
    text = "a café, 漢 and 😀."
    ids = ToyTokenizer()(text)["input_ids"]
    with engine_for(text=True) as engine:
        recite(engine, text)
        events = list(engine.stream(["a "], SamplingParams(max_new_tokens=len(ids) - 2)))
    assert "".join(event.text for event in events) == text[2:]
