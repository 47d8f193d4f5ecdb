"""Case 0, which the chapter works: padding that is written to page -1."""

from course.clinic.case import Case, Edit, Variant

ADDRESS = ("page_table.py", "PageTable.address")
PREFILL = ("page_table.py", "PageTable.assign_prefill_no_paging")
PLACE = "page * self.page_size + input_pos % self.page_size"
LINE = "self.address(batch_idx[0], input_pos[0])"

CASE = Case(
    number=0,
    slug="page-minus-one",
    title="The end of a long answer is wrong when the server is full",
    report="""\
We gave the engine just as many pages as we need, ten of four tokens. Short answers are right. Long ones are right when
the server is quiet. But with three users on it, the end of a long answer is sometimes wrong: not nonsense, only another
text than the same question gives at night. The beginning is always right.

With more pages it does not happen, or not so often; but we pay for memory.
""",
    reproduce='''\
"""What the user did: two requests at once, and a third one when the second has ended."""

from course.clinic.bench import engine_for, plain_tokens
from flexnano import SamplingParams

long, medium, short = [20, 3, 9, 30, 11, 7, 2], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [1, 2, 3]


def long_answer(n_pages: int) -> list[int]:
    """The long answer's tokens, with the two others beside it."""
    with engine_for(n_pages=n_pages) as engine:
        mine = engine.add_request(long, SamplingParams(max_new_tokens=28))
        engine.add_request(medium, SamplingParams(max_new_tokens=11))
        tokens = []
        for step in range(40):
            if step == 16:
                engine.add_request(short, SamplingParams(max_new_tokens=4))
            tokens += [event.token_id for event in engine.run_one_step() if event.request_id == mine]
    return tokens


right = plain_tokens(long, 28)
for n_pages in (10, 16):
    tokens = long_answer(n_pages)
    same = sum(a == b for a, b in zip(tokens, right))
    print(f"{n_pages} pages:", "right" if tokens == right else f"wrong, {same} of {len(right)} tokens agree")
''',
    symptom="wrong",
    bugs=(
        Variant(
            "the place of padding", (Edit(*ADDRESS, f"return {PLACE}", f"return ({PLACE}).where(batch_idx > 0, -1)"),)
        ),
        Variant(
            "the page of padding",
            (
                Edit(
                    *ADDRESS,
                    f"return {PLACE}",
                    "return page.where(batch_idx > 0, -1) * self.page_size + 3"
                    " - (3 - input_pos % self.page_size) * (batch_idx > 0)",
                ),
            ),
        ),
        Variant("in the prefill", (Edit(*PREFILL, LINE, f"{LINE}.where(batch_idx[0] > 0, -1)"),)),
    ),
    twins=(
        Variant("the sink by name", (Edit(*ADDRESS, f"return {PLACE}", f"return ({PLACE}).where(batch_idx > 0, 0)"),)),
    ),
    hints=(
        "Which keys does the long answer read, and do they stay as they were when they were written?",
        "Keep a copy of the pool, run one step, and list the places that changed. Then look at how a place is worked out.",
        "Padding has to be written somewhere, and the sink is there for it: a negative place is the end of the pool.",
    ),
    published="a page number of -1, meant as no page, that was used as an address and wrapped around to the last page",
    address="https://github.com/vllm-project/vllm/issues/43810",
)
