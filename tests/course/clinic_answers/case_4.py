"""A request with a seed gives the same tokens in any company and at any place of the batch."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams


def test_company_changes_no_sampled_token() -> None:
    mine, prompt = SamplingParams(max_new_tokens=10, temperature=1.0, seed=7), [5, 6, 7]
    other = SamplingParams(max_new_tokens=14, temperature=1.0, seed=8)
    with engine_for() as engine:
        alone = engine.generate([prompt], mine)[0].token_ids
        first = engine.generate([prompt, [9, 10]], [mine, other])[0].token_ids
        last = engine.generate([[9, 10], prompt], [other, mine])[1].token_ids
        late = engine.add_request([9, 10], other)
        for _ in range(4):
            engine.run_one_step()
        mine_id = engine.add_request(prompt, mine)
        tokens = []
        while engine.has_work:
            tokens += [event.token_id for event in engine.run_one_step() if event.request_id == mine_id]
    assert late != mine_id
    assert [first, last, tokens] == [alone] * 3
