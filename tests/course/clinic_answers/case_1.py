"""The second answer must not depend on whether the first one has ended."""

from course.clinic.bench import engine_for, plain_tokens
from flexnano import SamplingParams


def test_an_answer_goes_on_as_before_when_another_one_has_ended() -> None:
    short, long = [5, 6, 7], [20, 3, 9, 30, 11]
    with engine_for() as engine:
        params = [SamplingParams(max_new_tokens=3), SamplingParams(max_new_tokens=20)]
        _, second = engine.generate([short, long], params)
    assert second.token_ids == plain_tokens(long, 20)
