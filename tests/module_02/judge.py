"""What is right in module 02, and what a learner gets who makes one of the usual mistakes.

What is read is drawn as a strip: ■ a key that is read, □ one that is not.  Of blocks, ■ is full, ▨ partial, · not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from course.grading.checks import Exercise, is_raised, raises

Case = dict[str, Any]
PRELOAD = ("torch.nn.attention.flex_attention", "transformers", "transformers.models.llama.modeling_llama")


def is_error(answer: Any, name: str) -> bool:
    return is_raised(answer) and name in answer["raised"]


def rectangle(rows: list[list[str]]) -> str:
    """Cells in columns."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, wide, strict=True)).rstrip() for row in rows)


# ------------------------------------------------------------------------------------------------ 2.1 attention_forward

forward = Exercise(
    "2.1",
    section="An attention function for a stock model",
    hints=(
        "Take one query of one head that differs. Which keys of which head should it read, and through which of the "
        "arguments does your function get to know that?",
        "Follow one argument after the other from where it comes in to where it is used: query, key, value, mask, "
        "scaling, "
        "softcap, cache. Is one of them lost, or changed on the way?",
        "The steps are: let the cache store and give back keys and values if there is one, choose the mask, settle the "
        "scale, call attend once with all seven arguments, and put the axes in the order of the docstring.",
    ),
    preload=PRELOAD,
)
forward.mistake(
    "no-transpose",
    "In what order does the layer after attention flatten heads and queries?",
    "attend gives [B, Hq, Q, D]; the docstring promises [B, Q, Hq, D]. Reshaping to those sizes is not enough: it "
    "moves numbers "
    "to other heads.",
    "Exchange the axes of heads and queries, as a transposition and not as a view or reshape.",
)
forward.mistake(
    "kv-tile",
    "With 4 query heads and 2 key heads: which key head does query head 1 share, and with whom?",
    "Neighbours share a key head: 0 and 1 the first, 2 and 3 the second. Yours go round: 0, 1, 0, 1.",
    "attend groups the heads itself; give it the keys as they are. If you do repeat heads, repeat each one in its "
    "place.",
)
forward.mistake(
    "top-left",
    "Where in the sequence is query 0 of this call, and who says which keys it may read?",
    "Your function reads as if query i were at position i and might read keys 0 to i. That holds only while nothing is "
    "cached and nothing but the future is hidden.",
    "Hand on the mask that was given to the function; no causal rule of your own comes into it.",
)
forward.mistake(
    "mask-dropped",
    "Every query reads everything. Which argument knows what it may read?",
    "`attention_mask` is None for a registered function. The mask comes in `flex_attn_block_mask`.",
    "Give attend the block mask that the function was called with.",
)
forward.mistake(
    "mask-if-no-cache",
    "Is a call with a cache always a single new token that may read all that is stored?",
    "With a cache attached your function reads without a mask. Prefill has a cache too, and the pool holds the tokens "
    "of "
    "other sequences.",
    "Give attend the mask in both cases, with and without a cache.",
)
forward.mistake(
    "ignores-cache",
    "In decode there is one new key. Where are those of the tokens before it?",
    "If the layer has a `kv_cache`, attention reads what its `update` gives back, not the keys of this call.",
    "Call `update` with positions, keys, values and slots, and go on with the keys and values that it returns.",
)
forward.mistake(
    "own-scale",
    "Who decides by how much the scores are scaled: the head size, or the model?",
    "`scaling` is given by the model; Gemma 2's is not one over the root of the head size.",
    "Take `scaling` where it is given, and the root of the head size only if it is None.",
)
forward.mistake(
    "no-scale",
    "What does `scaling=None` mean, by the docstring?",
    "attend is given a number for the scale; None is what the model may say, not what attend expects.",
    "If `scaling` is None, work the scale out from the last dimension of the query.",
)
forward.mistake(
    "cap-dropped",
    "What does attend get as its sixth argument when the model has a soft cap?",
    "The soft cap arrives in the function and is not passed on.",
    "Pass `softcap` through to attend, None included.",
)
forward.mistake(
    "options-dropped",
    "What does attend get as its last argument?",
    "`flex_attn_kernel_options` arrives in the function and is not passed on.",
    "Pass the kernel options through to attend, None included.",
)
forward.mistake(
    "past-attend",
    "What is the first argument, `attend`, for?",
    "The right keys are read, but not by attend: your function computes attention in a way of its own.",
    "attend is one of three paths that mean the same. Call it, and compute nothing yourself.",
)
forward.mistake(
    "update-order",
    "In which order does the cache's `update` take its arguments?",
    "`PagedKVCache.update` takes positions first, then keys and values, then slots.",
    "Give it the four in the order of its signature, or by name.",
)
forward.mistake(
    "flipped-layers",
    "Which layers of this model read a window: does the number of the layer say so?",
    "Your choice follows odd and even layers. In Gemma 2 layer 0 is local, in other models another one is.",
    "Ask the layer's cache for its `window`; it is the key of the mask.",
)
forward.mistake(
    "always-all",
    "This layer reads a window only. Which of the masks is for that?",
    "Your function takes the mask of `None`, or the first one, whatever the layer.",
    "The mapping has the window as its key: look up the one of the layer's cache.",
)
forward.mistake(
    "asks-the-model",
    "The model says that its window is longer than any sequence here. Is there a mask for that window?",
    "`sliding_window` is what the model was made for. What is stored for this layer, and masked, is in its cache: "
    "`window`.",
    "Look the mask up by the window of the cache, not by the model's argument.",
)
forward.mistake(
    "whole-mapping",
    "What may `flex_attn_block_mask` be, besides one mask?",
    "If it is a mapping, attend was given all of it instead of one of its masks.",
    "Tell the two apart, and take one mask out of a mapping.",
)


def reading(Hq: int, Hk: int, mask: list[Any], cache: str = "", B: int = 1) -> Case:
    """`mask`: rows of strings for each query; for B rows apart a list of such lists."""
    table = mask if isinstance(mask[0], list) else [mask]
    return {"B": B, "Hq": Hq, "Hk": Hk, "Q": len(table[0]), "K": len(table[0][0]), "mask": table, "cache": cache}


def reading_cases() -> list[Case]:
    return [
        reading(2, 1, ["■"]),
        reading(1, 1, ["■□", "■■"]),
        reading(2, 2, ["■□", "■■"]),
        reading(1, 1, ["■■■■"], cache="own"),
        reading(4, 2, ["■□□", "■■□", "■■■"]),
        reading(2, 1, ["■□□", "■■□", "□■■"]),
        reading(1, 1, ["□■■□"], cache="own"),
        reading(2, 2, ["■□□", "■■□", "□□■"], cache="own"),
        reading(2, 1, ["□□", "■■"]),
        reading(2, 1, [["■■□□"], ["□□■■"]], cache="shared", B=2),
        reading(4, 2, [["■□", "■■"], ["■□", "□■"]], B=2),
        reading(3, 3, ["■□□", "■■□", "■■■"]),
    ]


def say_reading(case: Case) -> str:
    heads = ", ".join(
        f"{n} {what} head{'s' if n > 1 else ''}" for n, what in ((case["Hq"], "query"), (case["Hk"], "key"))
    )
    where = {"": "no cache", "own": "keys from a cache", "shared": "keys from a cache that both rows share"}
    row = f"{case['B']} rows, " if case["B"] > 1 else ""
    masks = "   |   ".join(" / ".join(rows) for rows in case["mask"])
    how = "(“1: ■□” = the head read key 0 of key head 1, and not its key 1)"
    return f"{row}{heads}, {where[case['cache']]}; mask {masks}   {how}"


def strip(case: Case, b: int, q: int, head: int, row: str | None = None) -> str:
    """What one query of one head reads."""
    row = row if row is not None else case["mask"][b if len(case["mask"]) > 1 else 0][q]
    return f"{head}: {row}" if "■" in row else "nothing"


def table_of(case: Case, cell: Callable[[int, int, int], str]) -> dict[str, Any]:
    return {"reads": [[[cell(b, q, h) for h in range(case["Hq"])] for q in range(case["Q"])] for b in range(case["B"])]}


def group(case: Case, h: int) -> int:
    return h * case["Hk"] // case["Hq"]


def draw_reading(case: Case, answer: Any) -> str:
    if "shape" in answer:
        return f"an output of shape {answer['shape']},\nnot [B, Q, Hq, D] = [{case['B']}, {case['Q']}, {case['Hq']}, …]"
    if "fresh" in answer:
        return "the keys of this call,\nnot those that the cache gives back"
    lines = []
    for b, rows in enumerate(answer["reads"]):
        title = f"row {b}" if case["B"] > 1 else ""
        lines.append([title, *(f"head {h}" for h in range(case["Hq"]))])
        lines += [[f"query {q}", *row] for q, row in enumerate(rows)]
    return rectangle(lines)


@forward.check(cases=reading_cases, describe=say_reading, draw=draw_reading)
def reads(case: Case) -> dict[str, Any]:
    return table_of(case, lambda b, q, h: strip(case, b, q, group(case, h)))


def width(case: Case) -> int:
    rows = 1 if case["cache"] == "shared" else case["B"]
    return rows * case["Hk"] * case["K"]


@reads.predicts("no-transpose")
def _(case: Case) -> dict[str, Any]:
    if case["Hq"] != case["Q"]:
        return {"shape": [case["B"], case["Hq"], case["Q"], width(case)]}
    return table_of(case, lambda b, q, h: strip(case, b, h, group(case, q)))


@reads.predicts("no-transpose")
def _(case: Case) -> dict[str, Any]:
    def scrambled(b: int, q: int, h: int) -> str:
        head, query = divmod(q * case["Hq"] + h, case["Q"])
        return strip(case, b, query, group(case, head))

    return table_of(case, scrambled)


@reads.predicts("kv-tile")
def _(case: Case) -> dict[str, Any]:
    return table_of(case, lambda b, q, h: strip(case, b, q, h % case["Hk"]))


@reads.predicts("top-left")
def _(case: Case) -> dict[str, Any]:
    K = case["K"]
    return table_of(case, lambda b, q, h: strip(case, b, q, group(case, h), ("■" * (q + 1) + "□" * K)[:K]))


@reads.predicts("mask-dropped")
def _(case: Case) -> dict[str, Any]:
    return table_of(case, lambda b, q, h: strip(case, b, q, group(case, h), "■" * case["K"]))


@reads.predicts("mask-if-no-cache")
def _(case: Case) -> dict[str, Any]:
    if not case["cache"]:
        return reads.expected(case)
    return table_of(case, lambda b, q, h: strip(case, b, q, group(case, h), "■" * case["K"]))


@reads.predicts("mask-if-no-cache")
def _(case: Case) -> dict[str, Any]:
    """Only where one token comes in."""
    if not case["cache"] or case["Q"] > 1:
        return reads.expected(case)
    return table_of(case, lambda b, q, h: strip(case, b, q, group(case, h), "■" * case["K"]))


@reads.predicts("ignores-cache")
def _(case: Case) -> dict[str, Any]:
    return {"fresh": True} if case["cache"] else reads.expected(case)


def telling(D: int, scaling: float | None = 0.5, softcap: float | None = None, options: Any = None) -> Case:
    return {"D": D, "scaling": scaling, "softcap": softcap, "options": options}


TELLING = [
    telling(4),
    telling(16, 0.125),
    telling(16, None),
    telling(64, None),
    telling(16, 0.125, softcap=50.0),
    telling(4, None, softcap=2.0),
    telling(16, 0.125, options={"BLOCK_N": 64}),
]


def say_telling(case: Case) -> str:
    return (
        f"head size {case['D']}; called with scaling={case['scaling']}, softcap={case['softcap']}, "
        f"flex_attn_kernel_options={case['options']}. What is attend given?"
    )


def draw_telling(_case: Case, answer: Any) -> str:
    if answer["calls"] == 0:
        return "attend is not called"
    rows = [["scale", answer["scale"]], ["softcap", answer["softcap"]], ["options", answer["options"]]]
    rows += [["mask", answer["mask"]]] + ([["calls", answer["calls"]]] if answer["calls"] != 1 else [])
    return rectangle([[name, str(value)] for name, value in rows])


@forward.check(cases=TELLING, describe=say_telling, draw=draw_telling)
def told(case: Case) -> dict[str, Any]:
    scale = case["scaling"] if case["scaling"] is not None else 1 / case["D"] ** 0.5
    return {
        "scale": round(scale, 6),
        "softcap": case["softcap"],
        "options": case["options"],
        "mask": "as given",
        "calls": 1,
    }


told.predicts("own-scale")(lambda case: told.expected(case) | {"scale": round(1 / case["D"] ** 0.5, 6)})
told.predicts("no-scale")(lambda case: told.expected(case) | {"scale": case["scaling"]})
told.predicts("cap-dropped")(lambda case: told.expected(case) | {"softcap": None})
told.predicts("options-dropped")(lambda case: told.expected(case) | {"options": None})
told.predicts("past-attend")(lambda case: {"calls": 0})
told.predicts("mask-dropped")(lambda case: told.expected(case) | {"mask": "another"})
told.shows("top-left")(lambda case, expected, answer: answer["calls"] == 0 or answer["mask"] == "another")


@forward.check(
    cases=[{"position": 5, "slot": 3}, {"position": 0, "slot": 1}],
    describe=lambda case: (
        f"one new token at position {case['position']} of slot {case['slot']}; its key is 1, its value 2. "
        "What does the cache's `update` get?"
    ),
    draw=lambda case, answer: (
        f"update is called {answer['updates']} times"
        if answer["updates"] != 1
        else rectangle(
            [
                [name, str(value)]
                for name, value in zip(("position", "key", "value", "slot"), answer["came"], strict=True)
            ]
        )
    ),
)
def stored(case: Case) -> dict[str, Any]:
    return {"updates": 1, "came": [case["position"], 1.0, 2.0, case["slot"]]}


@stored.shows("update-order")
def _(case: Case, expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return False
    came = answer["came"] or []
    return answer["updates"] == 1 and len(came) == 4 and sorted(came) == sorted(expected["came"])


stored.predicts("ignores-cache")(lambda case: {"updates": 0, "came": None})


def windowed(
    layer: int, window: int | None, model_says: int | None = None, masks: tuple[str, ...] = ("all", "8")
) -> Case:
    return {"layer": layer, "window": window, "model_says": model_says, "masks": list(masks)}


WINDOWED = [
    windowed(0, 8, 8),
    windowed(1, None),
    windowed(1, 8, 8),
    windowed(0, None),
    windowed(2, None, 4096),
    windowed(3, 8, 8, ("8", "all")),
    windowed(1, None, 4096, ("8", "all")),
]


def say_windowed(case: Case) -> str:
    return (
        f"masks for the windows {', '.join('None' if name == 'all' else name for name in case['masks'])}; layer "
        f"{case['layer']}, whose cache has window {case['window']} (the model says "
        f"sliding_window={case['model_says']}). "
        "Which mask is used?"
    )


@forward.check(
    cases=WINDOWED,
    describe=say_windowed,
    draw=lambda case, answer: {"all": "the mask of None"}.get(
        answer, f"the mask of {answer}" if answer == "8" else answer
    ),
)
def window(case: Case) -> str:
    return "all" if case["window"] is None else str(case["window"])


window.predicts("flipped-layers")(lambda case: "8" if case["layer"] % 2 else "all")
window.predicts("flipped-layers")(lambda case: "all" if case["layer"] % 2 else "8")
window.predicts("always-all")(lambda case: "all")
window.predicts("always-all")(lambda case: case["masks"][0])
window.predicts("past-attend")(lambda case: "attend was not called")
window.predicts("whole-mapping")(lambda case: "none of them")


@window.predicts("asks-the-model")
def _(case: Case) -> Any:
    name = "all" if case["model_says"] is None else str(case["model_says"])
    return name if name in case["masks"] else raises("KeyError")


@forward.check(
    cases=[{"length": 3}, {"length": 9}],
    describe=lambda case: (
        f"a small model with grouped heads, 2 rows of {case['length']} tokens, causal: are its logits those of its "
        f"own attention?"
    ),
    draw=lambda case, answer: "within 0.0001" if answer["close"] else "other logits",
)
def like_eager(case: Case) -> dict[str, Any]:
    return {"close": True}


# ------------------------------------------------------------------------------------------------ 2.2 gather_mask

gather = Exercise(
    "2.2",
    section="The same without a compiler: gather the blocks",
    hints=(
        "Take one query that differs. Which blocks does its row list, partial and full, and which keys of them should "
        "it see?",
        "Compare step by step: which blocks are listed, which addresses they stand for, for which (b, q, key) the "
        "mask_mod is "
        "asked, and what is seen without asking.",
        "Three rules: an entry of a full block is seen; one of a partial block is seen if the mask_mod says so of its "
        "own "
        "address; all others are not, fillers and keys beyond the end among them.",
    ),
    preload=PRELOAD,
)
gather.mistake(
    "ignores-full",
    "How many lists of blocks does a BlockMask have?",
    "The blocks that are full stand in lists of their own: `full_kv_num_blocks` and `full_kv_indices`.",
    "Gather the blocks of both lists.",
)
gather.mistake(
    "asks-full",
    "Does anybody ask the mask_mod about an entry of a full block?",
    "Yours hides entries of full blocks of which the mask_mod says no. Full means: all of it is read, nobody asks.",
    "Let an entry be seen if its block is full, or if its block is partial and the mask_mod allows it.",
)
gather.mistake(
    "behind-the-count",
    "The list is as wide as the longest row needs. How many of its entries count?",
    "What stands behind `kv_num_blocks` (or `full_kv_num_blocks`) is left over and names blocks that are not listed.",
    "Cut each row of the indices at its count; `listed_blocks` does that.",
)
gather.mistake(
    "not-its-row",
    "For which batch row is the mask_mod asked in the second row of the batch?",
    "Each batch row has as many gathered rows as it has blocks of queries. Counting gathered rows, or asking for row "
    "0, is not "
    "the batch row.",
    "Divide the number of the gathered row by the number of query blocks, and ask with that.",
)
gather.mistake(
    "place-in-block",
    "Which query is the first one of the second block?",
    "The mask_mod is asked with the place of the query in its block; it wants its place in the whole sequence.",
    "Add the first query of the block to the place in it.",
)
gather.mistake(
    "place-not-address",
    "The second gathered block is not always block 1. Which key is its first?",
    "The mask_mod is asked with the place of the key among the gathered ones; it wants the key's own address.",
    "Ask it with the address that the key comes from.",
)
gather.mistake(
    "filler-seen",
    "A row that lists fewer blocks than others is filled up. May a query see what it is filled up with?",
    "Some keys are seen that no list names, or are seen twice: they come from the filling.",
    "Only entries of listed blocks can be seen. Keep apart which columns are listed, and hide the rest.",
)
gather.mistake(
    "filler-elsewhere",
    "With which block are the shorter rows filled up, and why that one?",
    "The filling comes from other blocks. In the cache these are other sequences' pages, which may hold anything; NaN "
    "times "
    "0 is NaN.",
    "Put block 0 wherever a row has no block of its own left.",
)
gather.mistake(
    "beyond-the-end",
    "How many keys are there, and how many would whole blocks hold?",
    "The last block sticks out. Its addresses beyond the last key are seen, or lie outside and can't be gathered.",
    "Hide every address from the sequence length on, and keep addresses inside of it.",
)


def gathering(
    lists: list[Any], k_block: int, N: int, rule: str, Q: int = 1, q_block: int = 128, full: bool = True
) -> Case:
    """`lists`: for each batch row, for each block of queries, [partial, full] or [partial, full, what stands "
    "behind]."""
    whole = [[[*block, []][:3] for block in row] for row in lists]
    return {"lists": whole, "k_block": k_block, "N": N, "rule": rule, "Q": Q, "q_block": q_block, "has_full": full}


def gathering_cases() -> list[Case]:
    return [
        gathering([[[[0], []]]], 2, 2, "all"),
        gathering([[[[0], []]]], 2, 4, "all", full=False),
        gathering([[[[], [0]]]], 2, 4, "all"),
        gathering([[[[1], []]]], 2, 4, "even"),
        gathering([[[[1], [0]]]], 2, 4, "even"),
        gathering([[[[1, 3], []]]], 1, 4, "even"),
        gathering([[[[1], [], [0]]]], 2, 4, "all"),
        gathering([[[[], [2], [1]]]], 2, 6, "all"),
        gathering([[[[2], []]]], 2, 5, "all"),
        gathering([[[[0], [2]]]], 2, 5, "even"),
        gathering([[[[0], []]], [[[0], [1]]]], 2, 4, "by row"),
        gathering([[[[1], []]], [[[0, 2], [1]]]], 2, 6, "by row"),
        gathering([[[[0], []], [[1], [0]]]], 2, 4, "causal", Q=4, q_block=2),
        gathering([[[[0], []], [[1], [0]]]], 2, 4, "causal", Q=3, q_block=2),
        gathering([[[[0], []], [[1], []]], [[[0], []], [[0, 1], []]]], 2, 4, "by row", Q=4, q_block=2),
        gathering([[[[], []]]], 2, 4, "all"),
        gathering([[[[], []]], [[[2], [0]]]], 2, 6, "all"),
        gathering([[[[3, 1], [2]]]], 1, 4, "even"),
        gathering([[[[1], [0]]]], 4, 6, "all"),
        gathering([[[[0], [1]]]], 4, 5, "even"),
        gathering([[[[0], []], [[0, 1], []], [[1, 2], []]]], 3, 8, "documents", Q=8, q_block=3),
    ]


def say_gathering(case: Case) -> str:
    def said(block: list[list[int]]) -> str:
        return ", ".join([f"partial {block[0]}"] + ([f"full {block[1]}"] if case["has_full"] else []))

    rules = {
        "all": "the mask_mod allows all",
        "even": "the mask_mod allows even keys",
        "by row": "the mask_mod allows even keys in row 0, odd ones in row 1",
        "causal": "the mask_mod is causal",
        "documents": "the mask_mod is causal within documents of 4 tokens, read from a tensor",
    }
    listed = "; ".join(
        (f"row {b}" if len(case["lists"]) > 1 else "")
        + (f"{' ' if len(case['lists']) > 1 else ''}query block {i}" if len(row) > 1 else "")
        + (": " if len(case["lists"]) > 1 or len(row) > 1 else "")
        + said(block)
        for b, row in enumerate(case["lists"])
        for i, block in enumerate(row)
    )
    queries = f"{case['Q']} queries in blocks of {case['q_block']}" if case["Q"] > 1 else "1 query"
    keys = f"{case['N']} keys in blocks of {case['k_block']}"
    return f"{queries}, {keys}, {rules[case['rule']]}; lists, with other blocks behind the counts: {listed}"


def allows(rule: str, b: int, q: int, k: int) -> bool:
    documents = k // 4 == q // 4 and k <= q
    return {"all": True, "even": k % 2 == 0, "by row": k % 2 == b % 2, "causal": k <= q, "documents": documents}[rule]


Seen = Callable[[Case, int, int, int, str, int], bool]
"""(case, gathered row, query, key, which list it is in, place among the gathered keys) -> seen"""


def rows_of(case: Case) -> list[tuple[int, int, list[list[int]]]]:
    """(batch row, block of queries, its lists) of each gathered row."""
    return [(b, i, block) for b, row in enumerate(case["lists"]) for i, block in enumerate(row)]


def queries_of(case: Case, i: int) -> list[int]:
    return [q for q in range(i * case["q_block"], min(case["Q"], (i + 1) * case["q_block"]))]


def right_entry(case: Case, b: int, q: int, k: int, kind: str) -> bool:
    return k < case["N"] and (kind == "full" or allows(case["rule"], b, q, k))


def seen_by(
    case: Case, entry: Callable[[Case, int, int, int, str], bool], kinds: Iterable[str] = ("partial", "full")
) -> Any:
    """What each query sees if `entry` decides about (case, batch row, query, key, list)."""
    answer = []
    for b, i, block in rows_of(case):
        answer.append([])
        for q in queries_of(case, i):
            listed = [(n, kind) for kind, names in zip(("partial", "full"), block, strict=False) for n in names]
            keys = [
                (n * case["k_block"] + at, kind) for n, kind in listed if kind in kinds for at in range(case["k_block"])
            ]
            answer[-1].append(sorted(k for k, kind in keys if entry(case, b, q, k, kind)))
    return answer


def draw_seen(case: Case, answer: Any) -> str:
    rows = [["keys", "".join(str(k % 10) for k in range(case["N"]))]]
    for r, (b, i, _) in enumerate(rows_of(case)):
        for at, q in enumerate(queries_of(case, i)):
            keys = answer[r][at]
            cells = "".join("□■23456789"[min(9, keys.count(k))] for k in range(case["N"]))
            outside = sorted({k for k in keys if not 0 <= k < case["N"]})
            rows.append([f"row {b}, query {q}", cells + (f" and {outside}" if outside else "")])
    return rectangle(rows) + ("" if len(answer) == len(rows_of(case)) else f"\n{len(answer)} gathered rows")


@gather.check(cases=gathering_cases, describe=say_gathering, draw=draw_seen)
def visible(case: Case) -> Any:
    return seen_by(case, right_entry)


visible.predicts("ignores-full")(lambda case: seen_by(case, right_entry, kinds=("partial",)))
visible.predicts("asks-full")(
    lambda case: seen_by(case, lambda c, b, q, k, kind: k < c["N"] and allows(c["rule"], b, q, k))
)
visible.predicts("place-in-block")(
    lambda case: seen_by(case, lambda c, b, q, k, kind: right_entry(c, b, q % c["q_block"], k, kind))
)
visible.predicts("not-its-row")(lambda case: seen_by(case, lambda c, b, q, k, kind: right_entry(c, 0, q, k, kind)))


@visible.predicts("not-its-row")
def _(case: Case) -> Any:
    """Asked for the number of the gathered row."""
    per_row = len(case["lists"][0])
    return seen_by(case, lambda c, b, q, k, kind: right_entry(c, b * per_row + q // c["q_block"], q, k, kind))


def beyond(case: Case, expected: Any, answer: Any) -> bool:
    """Addresses that do not exist are seen, or the last key more than once."""
    if is_raised(answer) or case["N"] % case["k_block"] == 0:
        return is_error(answer, "IndexError") and case["N"] % case["k_block"] > 0
    last = case["N"] - 1
    return all(
        [k for k in got if k < last] == [k for k in right if k < last] and got.count(last) >= right.count(last)
        for mine, theirs in zip(expected, answer, strict=True)
        for right, got in zip(mine, theirs, strict=True)
    )


visible.shows("beyond-the-end")(beyond)


def everything_of(case: Case, names: Iterable[int]) -> list[int]:
    """Addresses of blocks, those that exist."""
    size = case["k_block"]
    return [k for n in names for k in range(n * size, (n + 1) * size) if k < case["N"]]


def filled(case: Case, block: list[list[int]], which: int) -> list[int]:
    """A list of blocks with what stands behind its count."""
    rest = [*block[2], *range(-(-case["N"] // case["k_block"]))]
    return list(dict.fromkeys([*block[which], *rest]))


def with_lists(case: Case, change: Callable[[int, list[list[int]]], tuple[list[int], list[int]]]) -> Any:
    """What is seen with other lists: `change`(gathered row, its lists) -> (partial, full)."""
    answer = []
    for r, (b, i, block) in enumerate(rows_of(case)):
        partial, full = change(r, block)
        answer.append([])
        for q in queries_of(case, i):
            asked = [k for k in everything_of(case, partial) if allows(case["rule"], b, q, k)]
            answer[-1].append(sorted({*asked, *everything_of(case, full)}))
    return answer


@visible.predicts("behind-the-count")
def _(case: Case) -> Any:
    """Both lists as wide as they are."""
    return with_lists(
        case, lambda r, block: (filled(case, block, 0), filled(case, block, 1) if case["has_full"] else [])
    )


@visible.predicts("behind-the-count")
def _(case: Case) -> Any:
    """Only the partial one."""
    return with_lists(case, lambda r, block: (filled(case, block, 0), block[1]))


@visible.predicts("behind-the-count")
def _(case: Case) -> Any:
    """Only the full one."""
    return with_lists(case, lambda r, block: (block[0], filled(case, block, 1) if case["has_full"] else []))


@visible.predicts("behind-the-count")
def _(case: Case) -> Any:
    """Each list as wide as its longest row."""
    blocks = [block for _, _, block in rows_of(case)]
    wide = [max(len(block[which]) for block in blocks) for which in (0, 1)]
    return with_lists(case, lambda r, block: (filled(case, block, 0)[: wide[0]], filled(case, block, 1)[: wide[1]]))


def with_fillers(case: Case, seen: Callable[[int, int, int], bool]) -> Any:
    """What is seen if entries of block 0, put in as filling, count: `seen`(batch row, query, key)."""
    rows = rows_of(case)
    widest = max(1, *(len(block[0]) + len(block[1]) for _, _, block in rows))
    answer = seen_by(case, right_entry)
    for (b, i, block), of_row in zip(rows, answer, strict=True):
        for q, keys in zip(queries_of(case, i), of_row, strict=True):
            filling = [k for k in everything_of(case, [0]) if seen(b, q, k)]
            keys += filling * (widest - len(block[0]) - len(block[1]))
            keys.sort()
    return answer


visible.predicts("filler-seen")(lambda case: with_fillers(case, lambda b, q, k: True))
visible.predicts("filler-seen")(lambda case: with_fillers(case, lambda b, q, k: allows(case["rule"], b, q, k)))


def by_place(case: Case, order: Callable[[list[list[int]]], list[int]]) -> Any:
    """What is seen if the mask_mod is asked for the place of a key among the gathered ones."""
    answer = []
    for b, i, block in rows_of(case):
        answer.append([])
        for q in queries_of(case, i):
            keys = []
            for place, n in enumerate(order(block)):
                for at in range(case["k_block"]):
                    k = n * case["k_block"] + at
                    asked = allows(case["rule"], b, q, place * case["k_block"] + at)
                    if k < case["N"] and (n in block[1] or asked):
                        keys.append(k)
            answer[-1].append(sorted(keys))
    return answer


visible.predicts("place-not-address")(lambda case: by_place(case, lambda block: sorted([*block[0], *block[1]])))
visible.predicts("place-not-address")(lambda case: by_place(case, lambda block: [*block[0], *block[1]]))


def form_cases() -> list[Case]:
    return sorted(gathering_cases(), key=lambda case: case["N"] % case["k_block"] > 0)


def expected_form(case: Case) -> dict[str, Any]:
    rows = rows_of(case)
    widest = max(1, *(len(block[0]) + len(block[1]) for _, _, block in rows))
    gathered = []
    for _, _, block in rows:
        own = [*block[0], *block[1]]
        counts = dict.fromkeys(own, case["k_block"])
        if widest > len(own):
            counts[0] = counts.get(0, 0) + (widest - len(own)) * case["k_block"]
        gathered.append({str(n): counts[n] for n in sorted(counts)})
    return {
        "sizes": [len(rows), min(case["q_block"], case["Q"]), widest * case["k_block"]],
        "outside": [],
        "gathered": gathered,
        "dtypes": ["int64", "bool"],
    }


def same_form(case: Case, expected: Any, answer: Any) -> bool:
    if case["N"] % case["k_block"]:  # where the addresses beyond the end point to is free, as long as it is inside
        expected, answer = ({key: one[key] for key in ("sizes", "outside", "dtypes")} for one in (expected, answer))
    return bool(expected == answer)


def draw_form(case: Case, answer: Any) -> str:
    rows = [
        ["R, T, K", ", ".join(map(str, answer["sizes"]))],
        *(
            [f"row {r}", " ".join(f"{n} of block {block}" for block, n in counts.items())]
            for r, counts in enumerate(answer["gathered"])
        ),
        ["dtypes", ", ".join(answer["dtypes"])],
    ]
    if answer["outside"]:
        rows.append(["outside", f"addresses {answer['outside']}"])
    return rectangle(rows)


@gather.check(
    cases=form_cases,
    describe=lambda case: say_gathering(case) + ". Sizes, and how many keys of which block each row gathers",
    draw=draw_form,
    same=same_form,
)
def form(case: Case) -> dict[str, Any]:
    return expected_form(case)


@form.shows("filler-elsewhere")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return answer["sizes"] == expected["sizes"] and not answer["outside"] and answer["dtypes"] == expected["dtypes"]


form.shows("beyond-the-end")(
    lambda case, expected, answer: bool(case["N"] % case["k_block"]) and bool(answer["outside"])
)

# ------------------------------------------------------------------------------------------------ 2.3 document_block_mask

documents = Exercise(
    "2.3",
    section="One mask for padding and documents",
    hints=(
        "Take one pair of query and key that differs (or one block). To which documents do they belong, is one of "
        "them padding, "
        "and what does the other mask say?",
        "Three things must hold at once: same document in the same row, not padding, allowed by mask_mod. And the "
        "blocks are "
        "worked out from the same rule, for every row of the batch.",
        "Write the rule as one mask_mod that looks its row up in `document_BL`, combine it with the other, and let a "
        "BlockMask "
        "of B rows, L queries and L keys be made of it with the block size asked for.",
    ),
    preload=(*PRELOAD, "torch._dynamo._trace_wrapped_higher_order_op"),
)
documents.mistake(
    "broadcast-batch",
    "For which b was the mask evaluated when the blocks were found?",
    "The mask_mod is right, but there is one row of blocks for all rows of the batch: those of row 0. What the kernel "
    "skips in "
    "row 1 depends on row 0's documents.",
    "Tell the function that makes the BlockMask how many rows the batch has; None means that they are all alike.",
)
documents.mistake(
    "only-row-0",
    "Row 1 has other documents than row 0. Where does your mask look them up?",
    "The mask_mod is asked for a row, b, and does not use it.",
    "Look both tokens up in row b of `document_BL`.",
)
documents.mistake(
    "padding-is-a-document",
    "Two padding tokens have the same number. Do they belong to the same document?",
    "By the docstring padding reads nothing and nobody reads it. Yours forms a document of its own.",
    "Besides the numbers being equal, ask that the number is not negative.",
)
documents.mistake(
    "minus-one-only",
    "Which numbers mean padding, by the docstring?",
    "Yours knows -1 only. Any negative number is padding.",
    "Compare with zero instead of with -1.",
)
documents.mistake(
    "forgets-mask-mod",
    "What does the second argument say, and where does it come into your mask?",
    "Documents and padding are right, but queries read what `mask_mod` forbids: the future, by default.",
    "Let both rules hold: the documents' and the one that was given.",
)
documents.mistake(
    "causal-always",
    "The mask that was given here is not the causal one. Which one does yours apply?",
    "`mask_mod` is causal only by default. A window, or a prefix that all may read, comes in through it too.",
    "Use the mask that was given instead of `causal`.",
)
documents.mistake(
    "documents-ignored",
    "Which tokens does a query read that belong to another document?",
    "Padding and the given mask are right, but documents of the same row read each other.",
    "Compare the documents of query and key.",
)
documents.mistake(
    "either",
    "Must both rules allow a key, or is one of them enough?",
    "Yours reads a key if the documents or the given mask allow it.",
    "A key is read only where both allow it: the intersection.",
)
documents.mistake(
    "forward-only",
    "Which lists of a BlockMask does the backward pass of attention follow?",
    "`q_num_blocks` and `q_indices` are missing: from a block of keys to the queries that read it.",
    "Have the BlockMask made with the transposed lists; `block_mask_from_blocks` leaves them out.",
)
documents.mistake(
    "default-block",
    "How large are the blocks of your mask, and how large were they asked to be?",
    "The blocks are of the default size, 128.",
    "Pass `block_size` on to what makes the BlockMask.",
)


def batch(*rows: list[int], more: str | None = None, block: int = 2) -> Case:
    return {"documents": list(rows), "more": more, "block": block}


def document_cases() -> list[Case]:
    return [
        batch([0, 0]),
        batch([0, 1]),
        batch([0, -1]),
        batch([0, 0, 1, 1]),
        batch([0, 0, -1, -1]),
        batch([-1, -1, 0, 0]),
        batch([-2, -2, 0, 0]),
        batch([0, 0, 0, 1], [0, 1, 1, 1]),
        batch([0, 0, 1, 1], more="everything"),
        batch([0, 0, 0, 0], more="window of 2"),
        batch([0, 0, 0, 1, 1, 1], more="prefix of 2"),
        batch([0, 1, 0, 1]),
        batch([7, 7, 3, 3, -1]),
        batch([-1, 0, 0, -1], [0, 0, -5, -5], more="everything"),
        batch([0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2], block=3),
    ]


def say_documents(case: Case) -> str:
    rows = "   |   ".join(" ".join("pad" if n < 0 else chr(97 + n) for n in row) for row in case["documents"])
    more = {None: "causal (the default)"}.get(case["more"], case["more"])
    numbers = sorted({n for row in case["documents"] for n in row if n < 0}, reverse=True)
    return (
        f"documents {rows}"
        + (f" (padding is {', '.join(map(str, numbers))})" if numbers else "")
        + f"; mask_mod: {more}"
    )


def more_allows(case: Case, q: int, k: int) -> bool:
    rule = case["more"] or "causal"
    return {
        "causal": k <= q,
        "window of 2": k <= q < k + 2,
        "everything": True,
        "prefix of 2": k <= q or k < 2,
    }[rule]


def token_grid(case: Case, rule: Callable[[Case, list[int], int, int], bool]) -> list[list[str]]:
    """`rule`: (case, documents of the row, query, key)."""
    return [
        ["".join("■" if rule(case, row, q, k) else "□" for k in range(len(row))) for q in range(len(row))]
        for row in case["documents"]
    ]


def right_pair(case: Case, row: list[int], q: int, k: int) -> bool:
    return row[q] == row[k] and row[k] >= 0 and more_allows(case, q, k)


def draw_tokens(case: Case, answer: Any) -> str:
    lines = []
    for b, rows in enumerate(answer):
        title = f"row {b}" if len(answer) > 1 else ""
        names = "".join("·" if n < 0 else chr(97 + n) for n in case["documents"][b])
        lines.append([title, names])
        lines += [[f"query {q}", row] for q, row in enumerate(rows)]
    return rectangle(lines)


@documents.check(cases=document_cases, describe=say_documents, draw=draw_tokens)
def tokens(case: Case) -> Any:
    return token_grid(case, right_pair)


tokens.predicts("padding-is-a-document")(
    lambda case: token_grid(case, lambda c, row, q, k: row[q] == row[k] and more_allows(c, q, k))
)
tokens.predicts("minus-one-only")(
    lambda case: token_grid(case, lambda c, row, q, k: row[q] == row[k] and row[k] != -1 and more_allows(c, q, k))
)
tokens.predicts("forgets-mask-mod")(
    lambda case: token_grid(case, lambda c, row, q, k: row[q] == row[k] and row[k] >= 0)
)
tokens.predicts("causal-always")(
    lambda case: token_grid(case, lambda c, row, q, k: row[q] == row[k] and row[k] >= 0 and k <= q)
)
tokens.predicts("causal-always")(
    lambda case: token_grid(case, lambda c, row, q, k: right_pair(c, row, q, k) and k <= q)
)
tokens.predicts("documents-ignored")(
    lambda case: token_grid(case, lambda c, row, q, k: row[k] >= 0 and row[q] >= 0 and more_allows(c, q, k))
)
tokens.predicts("documents-ignored")(
    lambda case: token_grid(case, lambda c, row, q, k: row[k] >= 0 and more_allows(c, q, k))
)
tokens.predicts("either")(
    lambda case: token_grid(case, lambda c, row, q, k: (row[q] == row[k] and row[k] >= 0) or more_allows(c, q, k))
)
tokens.predicts("only-row-0")(
    lambda case: token_grid(case, lambda c, _row, q, k: right_pair(c, c["documents"][0], q, k))
)


def block_grid(case: Case, b: int) -> list[str]:
    size, row = case["block"], case["documents"][b]
    n = -(-len(row) // size)
    grid = []
    for i in range(n):
        cells = ""
        for j in range(n):
            pairs = [
                k < len(row) and right_pair(case, row, q, k)
                for q in range(i * size, min(len(row), (i + 1) * size))
                for k in range(j * size, (j + 1) * size)
            ]
            cells += "■" if all(pairs) else "▨" if any(pairs) else "·"
        grid.append(cells)
    return grid


def same_blocks(case: Case, expected: Any, answer: Any) -> bool:
    """A block that is seen as a whole may be listed as partial; nothing else is free."""
    if answer["rows"] != expected["rows"] or len(answer["blocks"]) != len(expected["blocks"]):
        return False
    for mine, theirs in zip(expected["blocks"], answer["blocks"], strict=True):
        if list(map(len, mine)) != list(map(len, theirs)):
            return False
        if any(a != b and (a, b) != ("■", "▨") for a, b in zip("".join(mine), "".join(theirs), strict=True)):
            return False
    return True


def draw_blocks(case: Case, answer: Any) -> str:
    lines = [] if answer["rows"] == len(case["documents"]) else [["lists", f"of {answer['rows']} row"]]
    for b, rows in enumerate(answer["blocks"]):
        lines += [[f"row {b}" if q == 0 and len(answer["blocks"]) > 1 else "", row] for q, row in enumerate(rows)]
    return rectangle(lines)


@documents.check(
    cases=document_cases,
    describe=lambda case: say_documents(case) + f"; blocks of {case['block']}: which are listed? (■ full, ▨ partial)",
    draw=draw_blocks,
    same=same_blocks,
)
def blocks(case: Case) -> dict[str, Any]:
    return {"rows": len(case["documents"]), "blocks": [block_grid(case, b) for b in range(len(case["documents"]))]}


@blocks.predicts("broadcast-batch")
def _(case: Case) -> dict[str, Any]:
    return {"rows": 1, "blocks": [block_grid(case, 0)] * len(case["documents"])}


@blocks.predicts("default-block")
def _(case: Case) -> dict[str, Any]:
    def one(row: list[int]) -> list[str]:
        some = any(right_pair(case, row, q, k) for q in range(len(row)) for k in range(len(row)))
        return [("▨" if some else "·") + "·" * (-(-len(row) // case["block"]) - 1)]

    return {"rows": len(case["documents"]), "blocks": [one(row) for row in case["documents"]]}


def transposed_cases() -> list[Case]:
    return [batch([0, 0, 1, 1]), batch([0, 0, 0, 1], [0, 1, 1, 1]), batch([0] * 6, block=3), batch([0, 0, -1, -1, -1])]


@documents.check(
    cases=transposed_cases,
    describe=lambda case: (
        say_documents(case) + f"; blocks of {case['block']}: sizes, and the lists of the backward pass"
    ),
    draw=lambda case, answer: rectangle(
        [
            ["transposed lists", str(answer["lists"])],
            ["block size", str(answer["block"])],
            ["queries, keys", str(answer["lengths"])],
            ["heads", str(answer["heads"])],
        ]
    ),
)
def transposed(case: Case) -> dict[str, Any]:
    L, size = len(case["documents"][0]), case["block"]
    return {"lists": "there", "block": [size, size], "lengths": [L, L], "heads": 1}


transposed.predicts("forward-only")(lambda case: transposed.expected(case) | {"lists": "missing"})
transposed.predicts("default-block")(lambda case: transposed.expected(case) | {"block": [128, 128]})


# ------------------------------------------------------------------------------------------------ 2.4 attention_swapped

swapping = Exercise(
    "2.4",
    section="Swapping it in, and proving it",
    hints=(
        "Go through the life of one swap: before, inside, at the end, and at the end after an error. What does the "
        "model use at "
        "each of these moments, and who is called?",
        "Look at four places: the name under which the function is registered, what the model is told, what is undone "
        "and "
        "whether that also happens after an error, and what is checked at the end.",
        "A generator with one yield does it: remember, register, switch, give out the counter; undo in any case; and "
        "then, if "
        "there was no error, check that each layer has called.",
    ),
    preload=PRELOAD,
)
swapping.mistake(
    "never-called",
    "Which function do the model's layers call inside the block?",
    "The function is registered, but the model goes on with its own attention: the logits are perfect and nothing was "
    "swapped.",
    "Tell the model to use the name under which the function is registered, before the block runs.",
)
swapping.mistake(
    "stays-swapped",
    "What does the model use after the block?",
    "It keeps the function that was swapped in.",
    "Remember which implementation it had, and set it again at the end.",
)
swapping.mistake(
    "only-when-well",
    "What happens to the lines after `yield` if the block raises an error?",
    "After an error in the block the model keeps the function that was swapped in.",
    "Undo the swap where it is done in any case, error or not.",
)
swapping.mistake(
    "back-to-a-guess",
    "Which implementation had this model before the block, and which has it afterwards?",
    "The model gets the same implementation in the end whatever it had before.",
    "Read `model.config._attn_implementation` before switching, and set that again.",
)
swapping.mistake(
    "silent",
    "How would somebody find out that a layer never called the function?",
    "At the end nobody looks at the counter. A model that goes on with its own attention gives perfect logits.",
    "Compare the layers that have called with the number that the configuration names; raise RuntimeError if some are "
    "missing.",
)
swapping.mistake(
    "one-is-enough",
    "One layer of this model has attention code of its own. Would your check see that?",
    "Yours is content when anybody has called. Each of the model's layers must have.",
    "Count the layers that are in the counter and compare with `num_hidden_layers`.",
)
swapping.mistake(
    "hides-error",
    "The block raised an error of its own. Which error comes out?",
    "The block's error is lost: swallowed, or replaced by your RuntimeError.",
    "Do the check only when the block ended well, and never return from a `finally`.",
)
swapping.mistake(
    "one-name",
    "Two swaps at the same time: under which names are their two functions registered?",
    "Both use the same name, so that the second function takes the place of the first.",
    "Make a new name for each swap, from a running number for instance.",
)
swapping.mistake(
    "counts-something-else",
    "What are the keys of the counter that `with ... as calls` gives?",
    "The calls are there, but asking the counter for a layer gives another number.",
    "Count under the layer itself, the `module` that the function is called with, once for each call.",
)


def swap(starts: str, forwards: int = 1) -> Case:
    return {"starts": starts, "forwards": forwards}


def say_swap(case: Case) -> str:
    times = "one forward pass" if case["forwards"] == 1 else f"{case['forwards']} forward passes"
    return (
        f"a model of 2 layers that uses {case['starts']}; {times} inside the block "
        "(marker=7), with a function that gives zeros"
    )


def draw_swap(case: Case, answer: Any) -> str:
    told = answer["told"][-1] if answer["told"] else "-"
    return rectangle(
        [
            ["calls of each layer", str(answer["calls"])],
            ["calls says", str(told)],
            ["output used", "yes" if answer["used"] else "no"],
            ["marker=7 came", "yes" if answer["markers"] == ["7"] else "no"],
            ["afterwards", shown(case, answer["after"])],
            ["error", str(answer["error"])],
        ]
    )


def shown(case: Case, name: str) -> str:
    return name if name in ("eager", "sdpa", "flex_attention") else "still the swapped one"


def same_swap(case: Case, expected: Any, answer: Any) -> bool:
    return bool(expected == answer)


@swapping.check(
    cases=[
        swap("eager"),
        swap("sdpa"),
        swap("eager", 2),
        swap("flex_attention", 0) | {"starts": "sdpa", "forwards": 3},
    ],
    describe=say_swap,
    draw=draw_swap,
    same=same_swap,
)
def swapped(case: Case) -> dict[str, Any]:
    n = case["forwards"]
    return {
        "error": None,
        "calls": [n, n],
        "told": [[i, i] for i in range(1, n + 1)],
        "used": True,
        "markers": ["7"],
        "after": case["starts"],
        "as before": True,
    }


@swapped.shows("never-called")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return answer["calls"] == [0, 0] and not answer["used"] and answer["after"] == case["starts"]


def stays(case: Case, expected: Any, answer: Any) -> bool:
    same = all(answer[key] == expected[key] for key in expected if key not in ("after", "as before"))
    return same and answer["after"] not in ("eager", "sdpa", "flex_attention")


swapped.shows("stays-swapped")(stays)
for guess in ("eager", "sdpa"):
    swapped.predicts("back-to-a-guess")(lambda case, guess=guess: swapped.expected(case) | {"after": guess})


@swapped.shows("counts-something-else")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return all(answer[key] == expected[key] for key in expected if key not in ("told", "error"))


def trouble(starts: str, forwards: int, breaks: bool = False, bypasses: tuple[int, ...] = ()) -> Case:
    return {"starts": starts, "forwards": forwards, "breaks": breaks, "bypasses": list(bypasses)}


TROUBLE = [
    trouble("eager", 1, breaks=True),
    trouble("sdpa", 0, breaks=True),
    trouble("eager", 0),
    trouble("sdpa", 1, bypasses=(0, 1)),
    trouble("eager", 1, bypasses=(1,)),
    trouble("eager", 2, bypasses=(0,)),
    trouble("sdpa", 1, breaks=True, bypasses=(1,)),
]


def say_trouble(case: Case) -> str:
    own = {
        0: "",
        1: f"; layer {case['bypasses'][0] if case['bypasses'] else 0} has attention code of its own",
        2: "; both layers have attention code of their own",
    }
    passes = {0: "no forward pass", 1: "one forward pass"}.get(case["forwards"], f"{case['forwards']} forward passes")
    ends = "; then the block raises ZeroDivisionError" if case["breaks"] else ""
    return f"a model of 2 layers that uses {case['starts']}{own[len(case['bypasses'])]}; in the block {passes}{ends}"


@swapping.check(
    cases=TROUBLE,
    describe=say_trouble,
    draw=lambda case, answer: rectangle(
        [["error", str(answer["error"])], ["afterwards", shown(case, answer["after"])]]
    ),
)
def goes_wrong(case: Case) -> dict[str, Any]:
    complete = case["forwards"] > 0 and not case["bypasses"]
    error = "ZeroDivisionError" if case["breaks"] else None if complete else "RuntimeError"
    return {"error": error, "after": case["starts"], "as before": True}


goes_wrong.predicts("silent")(
    lambda case: goes_wrong.expected(case) | {"error": "ZeroDivisionError" if case["breaks"] else None}
)


@goes_wrong.predicts("one-is-enough")
def _(case: Case) -> dict[str, Any]:
    somebody = case["forwards"] > 0 and len(case["bypasses"]) < 2
    error = "ZeroDivisionError" if case["breaks"] else None if somebody else "RuntimeError"
    return goes_wrong.expected(case) | {"error": error}


@goes_wrong.shows("hides-error")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return case["breaks"] and answer["error"] in (None, "RuntimeError") and answer["after"] == case["starts"]


@goes_wrong.shows("only-when-well")
def _(case: Case, expected: Any, answer: Any) -> bool:
    return case["breaks"] and answer["error"] == expected["error"] and answer["after"] not in ("eager", "sdpa")


for guess in ("eager", "sdpa"):
    goes_wrong.predicts("back-to-a-guess")(lambda case, guess=guess: goes_wrong.expected(case) | {"after": guess})


@swapping.check(
    cases=[{"same": True}, {"same": False}],
    describe=lambda case: (
        "two swaps at the same time, the inner on "
        + ("the same model" if case["same"] else "another model")
        + " of 2 layers: outer function, inner function, outer function"
    ),
    draw=lambda case, answer: rectangle(
        [
            ["calls of the outer", str(answer["outer"])],
            ["calls of the inner", str(answer["inner"])],
            ["afterwards", shown(case, answer["after"])],
            ["error", str(answer["error"])],
        ]
    ),
)
def one_in_another(case: Case) -> dict[str, Any]:
    return {"error": None, "outer": 4, "inner": 2, "after": "eager"}


one_in_another.shows("one-name")(lambda case, expected, answer: answer["outer"] != 4 or answer["error"] is not None)


# ------------------------------------------------------------------------------------------------ 2.5 measure

measuring = Exercise(
    "2.5",
    section="Measuring",
    hints=(
        "Write down the calls in their order: which is the first, which are the warm-up, which are reported? Then the "
        "marks: "
        "between which two does each call lie?",
        "Compare the number of calls with the docstring's, then the times one by one with those that the case names.",
        "A mark, the call, another mark, then wait, then read: that is one time. Of 1 + warm_up + repeats of them the "
        "first is "
        "reported by itself, the next warm_up not at all.",
    ),
    preload=("transformers",),
)
measuring.mistake(
    "no-wait",
    "Has the device done its work when the call comes back?",
    "The time between two marks is read before the device has reached them.",
    "Wait for the device after the second mark, before reading.",
)
measuring.mistake(
    "first-is-warm-up",
    "How many calls are made, and is the first one of the warm-up?",
    "The first call comes besides: 1 + warm_up + repeats. Yours counts it among the warm-up calls, or among the "
    "repeats.",
    "Time one call by itself, then make the warm-up calls, then the repeats.",
)
measuring.mistake(
    "warm-up-counts",
    "Which calls are reported in `repeats`?",
    "The warm-up calls are among the reported ones.",
    "Leave out the warm_up calls that follow the first, and report those after them.",
)
measuring.mistake(
    "one-pair",
    "Can you tell from your times which call was the slow one?",
    "There is one pair of marks around all repeats, and what is reported is the mean or the sum. One hiccup spoils "
    "it, and "
    "nobody sees it.",
    "Put a pair of marks around each call.",
)
measuring.mistake(
    "one-begin",
    "From where does the second time run?",
    "The times grow from call to call: each runs from the same first mark.",
    "Make a new mark before each call.",
)
measuring.mistake(
    "own-clock",
    "Which clock does the docstring allow?",
    "The times are those of another clock, such as time.perf_counter. It knows nothing of a device that works on "
    "after the call "
    "has returned.",
    "Take the marks and the seconds from the stopwatch that was given.",
)
measuring.mistake(
    "first-missing",
    "What does the first call cost that the others don't?",
    "`first` is the time of a later call; that of the very first, which compiles, is lost.",
    "Make the very first call between two marks of its own.",
)


def timed(calls: list[list[float]], **asked: int) -> Case:
    return {"calls": calls, "asked": asked}


def timed_cases() -> list[Case]:
    return [
        timed([[0, 2], [0, 3]], warm_up=0, repeats=1),
        timed([[8, 2], [0, 3]], warm_up=0, repeats=1),
        timed([[8, 2], [0, 5], [0, 3]], warm_up=1, repeats=1),
        timed([[8, 2], [0, 5], [0, 3], [0, 4]], warm_up=1, repeats=2),
        timed([[20, 1], [0, 7], [0, 6], [0, 2], [0, 9], [0, 3]], warm_up=2, repeats=3),
        timed([[5, 1], [0, 4], [0, 3], [0, 6], [0, 2]], warm_up=0, repeats=4),
    ]


def say_timed(case: Case) -> str:
    work = ", ".join(f"{work:g}" for _, work in case["calls"])
    asked = ", ".join(f"{name}={value}" for name, value in case["asked"].items()) or "the defaults"
    compiles = f"the first call compiles for {case['calls'][0][0]:g} seconds before"
    return f"{asked}; the device works {work} seconds on the calls in turn, and {compiles}"


def draw_timed(_case: Case, answer: Any) -> str:
    return rectangle(
        [
            ["first", f"{answer['first']:.3g}"],
            ["repeats", "[" + ", ".join(f"{one:.3g}" for one in answer["repeats"]) + "]"],
            ["calls made", str(answer["calls"])],
        ]
    )


def durations(case: Case, n: int) -> list[float]:
    calls = case["calls"]
    return [float(sum(calls[min(i, len(calls) - 1)])) for i in range(n)]


def asked_for(case: Case) -> tuple[int, int]:
    return case["asked"].get("warm_up", 2), case["asked"].get("repeats", 5)


def as_measured(case: Case) -> dict[str, Any]:
    warm_up, repeats = asked_for(case)
    every = durations(case, 1 + warm_up + repeats)
    return {"first": every[0], "repeats": every[1 + warm_up :], "calls": len(every)}


@measuring.check(cases=timed_cases, describe=say_timed, draw=draw_timed)
def times(case: Case) -> dict[str, Any]:
    return as_measured(case)


@measuring.check(
    cases=[timed([[9, 1], [0, 8], [0, 7], [0, 2], [0, 6], [0, 3], [0, 5], [0, 4]])], describe=say_timed, draw=draw_timed
)
def by_default(case: Case) -> dict[str, Any]:
    return as_measured(case)


def both(slug: str, *forms: Callable[[Case], Any]) -> None:
    for check in (times, by_default):
        for one in forms:
            check.predicts(slug)(one)


def seen(slug: str, sign: Callable[[Case, Any, Any], bool]) -> None:
    for check in (times, by_default):
        check.shows(slug)(sign)


def _first_within(case: Case) -> dict[str, Any]:
    """One call too few: the first is one of the warm-up, or of the repeats where there is no warm-up."""
    warm_up, repeats = asked_for(case)
    every = durations(case, warm_up + repeats)
    return {"first": every[0], "repeats": every[warm_up:], "calls": len(every)}


def _first_beside_warm_up(case: Case) -> dict[str, Any]:
    """As many calls as should be, but the first is counted among the repeats too."""
    warm_up, repeats = asked_for(case)
    every = durations(case, 1 + warm_up + repeats)
    return {"first": every[0], "repeats": [every[0], *every[1 + warm_up :]], "calls": len(every)}


def _at_least_one(case: Case) -> dict[str, Any]:
    warm_up, repeats = asked_for(case)
    every = durations(case, max(1, warm_up) + repeats)
    return {"first": every[0], "repeats": every[max(1, warm_up) :], "calls": len(every)}


both("first-is-warm-up", _first_within, _first_beside_warm_up, _at_least_one)


def _all_others(case: Case) -> dict[str, Any]:
    right = as_measured(case)
    return right | {"repeats": durations(case, right["calls"])[1:]}


def _the_first_others(case: Case) -> dict[str, Any]:
    right = as_measured(case)
    return right | {"repeats": durations(case, right["calls"])[1 : 1 + asked_for(case)[1]]}


both("warm-up-counts", _all_others, _the_first_others)


def _mean(case: Case, times: int) -> dict[str, Any]:
    right = as_measured(case)
    return right | {"repeats": [sum(right["repeats"]) / len(right["repeats"])] * times}


both(
    "one-pair",
    lambda case: _mean(case, len(as_measured(case)["repeats"])),
    lambda case: _mean(case, 1),
    lambda case: as_measured(case) | {"repeats": [sum(as_measured(case)["repeats"])]},
)


def _running(case: Case) -> dict[str, Any]:
    right = as_measured(case)
    return right | {"repeats": [sum(right["repeats"][: i + 1]) for i in range(len(right["repeats"]))]}


def _from_the_start(case: Case) -> dict[str, Any]:
    right = as_measured(case)
    every = durations(case, right["calls"])
    sums = [sum(every[: i + 1]) for i in range(len(every))]
    return {"first": sums[0], "repeats": sums[1 + asked_for(case)[0] :], "calls": right["calls"]}


both("one-begin", _running, _from_the_start)
seen("no-wait", lambda case, expected, answer: is_error(answer, "RuntimeError") and "not reached" in answer["message"])


def another_clock(case: Case, expected: Any, answer: Any) -> bool:
    if is_raised(answer):
        return is_error(answer, "AttributeError") or is_error(answer, "TypeError")
    return all(0 <= one < 0.5 for one in [answer["first"], *answer["repeats"]])


seen("own-clock", another_clock)


def _later_first(case: Case) -> dict[str, Any]:
    """Warm-up first, and then the first of what is timed."""
    warm_up, repeats = asked_for(case)
    every = durations(case, 1 + warm_up + repeats)
    return {"first": every[warm_up], "repeats": every[1 + warm_up :], "calls": len(every)}


def _after_an_untimed_one(case: Case) -> dict[str, Any]:
    warm_up, repeats = asked_for(case)
    every = durations(case, 1 + warm_up + repeats)
    return {"first": every[1 + warm_up], "repeats": every[1 + warm_up :], "calls": len(every)}


def _of_the_timed_ones(case: Case) -> dict[str, Any]:
    warm_up, repeats = asked_for(case)
    every = durations(case, warm_up + repeats)
    return {"first": every[warm_up], "repeats": every[warm_up:], "calls": len(every)}


both("first-missing", _later_first, _after_an_untimed_one, _of_the_timed_ones)
