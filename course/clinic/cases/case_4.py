"""Case 4: one stream of random numbers for the whole batch."""

from course.clinic.case import Case, Edit, Variant

SAMPLE = ("sampling.py", "sample")
NOISE = ("sampling.py", "gumbel_noise")
ADD = "gumbel_noise(batch.seed_B, position_B, token_BK)"

CASE = Case(
    number=4,
    slug="shared-rng",
    title="The same seed gives another text",
    report="""\
I sample with a fixed seed, so that I can reproduce what my evaluation did. On my own machine, with one request at a time,
that works: the same seed gives the same text, as often as I like. On the shared server the same request with the same seed
gives another text every day, and even twice in one batch it gives two different ones.

Requests without sampling (temperature 0) are not affected.
""",
    reproduce='''\
"""What the user did: one request with a seed, alone and in company."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams

mine = SamplingParams(max_new_tokens=12, temperature=1.0, seed=7)
others = SamplingParams(max_new_tokens=12, temperature=1.0, seed=8)

with engine_for() as engine:
    (alone,) = engine.generate([[5, 6, 7]], mine)
    (again,) = engine.generate([[5, 6, 7]], mine)
    _, beside = engine.generate([[9, 10], [5, 6, 7]], [others, mine])
print("alone ", alone.token_ids)
print("again ", again.token_ids)
print("beside", beside.token_ids)
print("one seed, one text" if alone.token_ids == again.token_ids == beside.token_ids else "one seed, several texts")
''',
    symptom="one seed, several texts",
    bugs=(
        Variant(
            "one generator",
            (
                Edit(
                    *SAMPLE,
                    "noisy_BK = logits_BK + " + ADD,
                    "generator = torch.Generator(logits_BK.device).manual_seed(int(mix64(batch.seed_B + position_B)[0]))\n"
                    "    noise_BK = torch.empty_like(logits_BK).exponential_(generator=generator)\n"
                    "    noisy_BK = logits_BK - noise_BK.log()",
                ),
            ),
        ),
        Variant(
            "row in the key",
            (
                Edit(
                    *NOISE,
                    "mix64(mix64(seed_B) + position_B)",
                    "mix64(mix64(seed_B) + position_B + torch.arange(len(seed_B)))",
                ),
            ),
        ),
        Variant(
            "the first seed for all",
            (Edit(*SAMPLE, ADD, "gumbel_noise(batch.seed_B[:1].expand_as(batch.seed_B), position_B, token_BK)"),),
        ),
        Variant(
            "the first position for all",
            (Edit(*SAMPLE, ADD, "gumbel_noise(batch.seed_B, position_B[:1].expand_as(position_B), token_BK)"),),
        ),
    ),
    twins=(
        Variant(
            "a generator a row",
            (
                Edit(
                    *SAMPLE,
                    "noisy_BK = logits_BK + " + ADD,
                    "noisy_BK = logits_BK.clone()\n"
                    "    for row, (seed, position) in enumerate(zip(batch.seed_B.tolist(), position_B.tolist())):\n"
                    "        generator = torch.Generator().manual_seed(int(mix64(torch.tensor(seed)) + position))\n"
                    "        noise_V = torch.empty(logits_BV.shape[1]).exponential_(generator=generator)\n"
                    "        noisy_BK[row] -= noise_V[token_BK[row]].log()",
                ),
            ),
        ),
    ),
    hints=(
        "What does the random number of one token of one request depend on? Change one thing at a time: the order of the "
        "batch, its size, how far the others are, the others' seeds.",
        "Logits are the same with and without company; you can check that. So look at what is added to them, where one token "
        "is chosen for each row.",
        "The noise of a row must depend on that row's own seed, on its own position and on the token's id, and on nothing "
        "that belongs to the batch.",
    ),
    published="per-request seeds whose random numbers came from a state that the whole batch shares",
    address="https://github.com/vllm-project/vllm/issues/1637",
)
