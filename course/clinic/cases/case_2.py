"""Case 2: a byte budget that counts the heads of queries."""

from course.clinic.case import Case, Edit, Variant

BYTES = ("kv_cache.py", "kv_bytes_per_token")
SUM = "layer.kv_heads * (layer.head_dim + layer.value_head_dim) for layer in layers"

CASE = Case(
    number=2,
    slug="query-heads",
    title="The pool is too small for the memory that is free",
    report="""\
All answers are right. But since we moved to a model with grouped-query attention, the engine is slow under load and
reports preemptions all the time, on a machine that has memory to spare. I let it choose the number of pages itself
(`n_pages=None`), as before.

I measured it: after start, the pool takes a good deal less memory than the share of the free memory that the engine may
use. With one request at a time nobody notices. With another model, the old one, it took all of its share.
""",
    reproduce='''\
"""What the user did: start an engine on a machine with little memory, and look how much of its share the pool takes."""

from course.clinic.bench import engine_for, memory_of
from flexnano import SamplingParams

free = 64 * 1024  # bytes; on a CPU an engine may take half
with memory_of(free), engine_for(n_pages=None, max_batch_size=16) as engine:
    taken = sum(pool.nbytes for cache in engine.caches for pool in (cache.k_cache, cache.v_cache))
    prompts = [[1 + n, 2 + n, 3 + n] for n in range(16)]
    results = engine.generate(prompts, SamplingParams(max_new_tokens=40))
    print(f"{engine.page_table.n_pages} pages; the pools take {taken:,} of {free // 2:,} bytes")
    print(f"preempted {engine.stats.preemptions} times")
    print("the share is used" if taken > 0.9 * free / 2 else "a large part of the share is not used")
''',
    symptom="a large part of the share is not used",
    bugs=(
        Variant("all query heads", (Edit(*BYTES, SUM, SUM.replace("kv_heads", "q_heads")),)),
        Variant(
            "query heads for keys",
            (
                Edit(
                    *BYTES,
                    SUM,
                    "layer.q_heads * layer.head_dim + layer.kv_heads * layer.value_head_dim for layer in layers",
                ),
            ),
        ),
        Variant(
            "the widest of both",
            (
                Edit(
                    *BYTES,
                    SUM,
                    "max(layer.q_heads, layer.kv_heads) * (layer.head_dim + layer.value_head_dim) for layer in layers",
                ),
            ),
        ),
    ),
    twins=(
        Variant(
            "keys and values apart",
            (
                Edit(
                    *BYTES,
                    "return sum(" + SUM + ") * dtype.itemsize",
                    "layers = list(layers)\n"
                    "    keys = sum(one.kv_heads * one.head_dim for one in layers)\n"
                    "    values = sum(one.kv_heads * one.value_head_dim for one in layers)\n"
                    "    return dtype.itemsize * keys + dtype.itemsize * values",
                ),
            ),
        ),
    ),
    hints=(
        "Do the sum by hand for this model: layers, heads, size of a head, bytes of a number. How many bytes does a token "
        "take in the pools that the engine made, and how many does the engine believe that it takes?",
        "The number of pages is free memory divided by what a page costs. Look at the function that says what one token "
        "costs in the cache.",
        "A layer stores a key and a value for each head of keys. Query heads that share a key head share what is stored, so "
        "they must not be counted.",
    ),
    published="a KV cache whose size was worked out with the attention heads instead of the key-value heads",
    address="https://github.com/meta-pytorch/torchtune/issues/38",
)
