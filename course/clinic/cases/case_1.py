"""Case 1: a mask that asks for the batch row where it needs the slot."""

from course.clinic.case import Case, Edit, Variant

CONVERT = ("page_table.py", "PageTable.convert_logical_block_mask")
MASK = ("page_table.py", "PageTable.physical_mask_mod")

CASE = Case(
    number=1,
    slug="row-not-slot",
    title="The second answer changes when the first one has ended",
    report="""\
I ask two questions at once. The first answer is short, the second one long. Up to the moment when the first answer has
ended, the second one is the same as when I ask that question alone. From then on it is another text: not broken, just
different, and usually worse.

Asked alone after a restart, each question gives the right answer, every time. Asked the other way round, the long
question first, both answers are right. So I don't believe that it is the model.
""",
    reproduce='''\
"""What the user did: a short and a long question at once, and the long one alone."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams

short, long = [5, 6, 7], [20, 3, 9, 30, 11]
answers = [SamplingParams(max_new_tokens=6), SamplingParams(max_new_tokens=24)]

with engine_for() as engine:
    (alone,) = engine.generate([long], answers[1])
with engine_for() as engine:
    first, second = engine.generate([short, long], answers)

print("the long answer, alone  ", alone.token_ids)
print("the long answer, beside ", second.token_ids)
same = sum(a == b for a, b in zip(alone.token_ids, second.token_ids))
print("equal" if alone.token_ids == second.token_ids else f"not equal: {same} of 24 tokens agree")
''',
    symptom="not equal",
    bugs=(
        Variant(
            "row for slot",
            (Edit(*CONVERT, "self.slot_of_row[:B] = batch_idx", "self.slot_of_row[:B] = torch.arange(1, B + 1)"),),
        ),
        Variant("row in the mask", (Edit(*MASK, "self.slot_of_row[b], address", "b + 1, address"),)),
        Variant(
            "row in the list of pages",
            (
                Edit(
                    *CONVERT,
                    "self.page_table[batch_idx.long()[:, None, None, None], listed]",
                    "self.page_table[1 : B + 1][torch.arange(B)[:, None, None, None], listed]",
                ),
            ),
        ),
        Variant(
            "written once",
            (
                Edit(
                    *CONVERT,
                    "self.slot_of_row[:B] = batch_idx",
                    "self.slot_of_row[:B] = self.slot_of_row[:B].where(self.slot_of_row[:B] > 0, batch_idx)",
                ),
            ),
        ),
    ),
    twins=(
        Variant(
            "slots copied",
            (
                Edit(
                    *CONVERT, "self.slot_of_row[:B] = batch_idx", "self.slot_of_row[: len(batch_idx)].copy_(batch_idx)"
                ),
                Edit(
                    *MASK,
                    "slot, page = self.slot_of_row[b], address // self.page_size",
                    "slot = self.slot_of_row[b]\n            page = (address - address % self.page_size) // self.page_size",
                ),
            ),
        ),
    ),
    hints=(
        "What is different about the second sequence from the moment that the first one has ended? Not its slot and not "
        "its pages. Print both, and what the masks read, in the step before and in the step after.",
        "The page table gives every row of a batch the keys of its own sequence. Follow the number of a row, and the "
        "number of a slot, through the function that turns a mask over positions into one over the pool.",
        "Row and slot are equal plus one only as long as nobody has left. Let what the mask looks up for row b be the slot "
        "that the step was given for row b.",
    ),
    published="an inverse of the page table that was indexed by the row of the batch instead of the sequence's slot",
    address="https://github.com/meta-pytorch/attention-gym/issues/189",
)
