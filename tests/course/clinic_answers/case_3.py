"""Whoever runs gets a token in every second step at least, however many come."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams


def test_those_who_run_get_on_while_others_come() -> None:
    with engine_for() as engine:
        long = engine.add_request([5, 6, 7], SamplingParams(max_new_tokens=40))
        tokens = 0
        for _ in range(20):
            engine.add_request([8, 9], SamplingParams(max_new_tokens=1))
            tokens += sum(event.request_id == long for event in engine.run_one_step())
    assert tokens >= 9, f"{tokens} tokens in 20 steps"
