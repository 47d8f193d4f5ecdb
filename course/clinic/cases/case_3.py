"""Case 3: a prefill whenever somebody comes."""

from course.clinic.case import Case, Edit, Variant

WORTH = ("scheduler.py", "Scheduler.worth_prefilling")
NEXT = ("scheduler.py", "Scheduler.next_step")

CASE = Case(
    number=3,
    slug="prefill-always",
    title="A running answer stands still while others come",
    report="""\
We stream long answers. On the same server runs a classifier that sends a short prompt every few milliseconds and wants one
token back. Since it was added, the long answers hang: the first token comes, and then nothing, for as long as the
classifier is at work. It gets all of its own answers. When it stops, the long answers go on as if nothing had happened,
and what they say is right.

With the classifier off, everything is fast.
""",
    reproduce='''\
"""What the user did: a long answer, and a classifier that sends a prompt in every step and wants one token."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams

with engine_for() as engine:
    long = engine.add_request([5, 6, 7], SamplingParams(max_new_tokens=40))
    tokens = classified = 0
    for step in range(40):
        engine.add_request([8, 9], SamplingParams(max_new_tokens=1))
        events = engine.run_one_step()
        tokens += sum(event.request_id == long for event in events)
        classified += sum(event.request_id != long for event in events)
    print(f"after 40 steps: the long answer has {tokens} tokens, the classifier {classified} answers")
    print("the long answer stands still" if tokens < 5 else "the long answer gets on")
''',
    symptom="the long answer stands still",
    bugs=(
        Variant("due is enough", (Edit(*WORTH, "return due and not self.prefilled_last", "return due"),)),
        Variant("candidates are enough", (Edit(*WORTH, "if not candidates or not self.running:", "if True:"),)),
        Variant(
            "forgets that it was a prefill",
            (
                Edit(
                    *NEXT, "self.steps_kept_waiting = 0\n", "self.steps_kept_waiting, self.prefilled_last = 0, False\n"
                ),
            ),
        ),
    ),
    twins=(
        Variant(
            "asked the other way round",
            (
                Edit(
                    *WORTH,
                    "due = len(candidates) >= self.min_prefill or self.steps_kept_waiting >= self.patience\n",
                    "if self.prefilled_last:\n            return False\n"
                    "        due = self.steps_kept_waiting >= self.patience or len(candidates) >= self.min_prefill\n",
                ),
            ),
        ),
    ),
    hints=(
        "Nothing is lost and nothing is wrong, so look at what each step does: write down for twenty steps whether it is a "
        "prefill or a decode. Who gets a token in a prefill?",
        "The scheduler decides before each step between those who wait and those who run. Find where, and what it must know "
        "about the step before.",
        "Right after a prefill those who run have a turn, however many wait: at least every second step is a decode.",
    ),
    published="a scheduler that preferred a prefill in every step, so that decodes starved while requests arrived",
    address="https://github.com/sgl-project/sglang/issues/32549",
)
