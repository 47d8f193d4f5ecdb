"""What is right in module 11: a mended engine of each case does what any healthy engine does.

Each case has the checks of its own first, which differ from what its user reports, and then all the others: a mend must not
break anything else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from course.clinic.bench import SIZES, ToyTokenizer, plain_tokens
from course.grading.checks import Answer, Exercise, draw_plain, equal, is_raised

Case = dict[str, Any]
PRELOAD = ("transformers.models.llama.modeling_llama", "transformers.models.gemma2.modeling_gemma2")


@functools.cache
def right(prompt: tuple[int, ...], new: int, kind: str, longest: int) -> tuple[int, ...]:
    return tuple(plain_tokens(prompt, new, kind, longest))


def greedy(one: dict[str, Any], kind: str = "llama", sizes: dict[str, Any] | None = None) -> list[int]:
    """The tokens of a greedy request, by plain forward passes."""
    return list(right(tuple(one["prompt"]), one["new"], kind, {**SIZES, **(sizes or {})}["max_seq_length"]))


def ask(prompt: list[int], new: int, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "new": new, **more}


def words(n: int, first: int) -> list[int]:
    """A prompt of n tokens."""
    return [(first * 7 + 5 * i + i * i) % 48 for i in range(n)]


# ------------------------------------------------------------------------------------------------ answers


def load(*rounds: list[dict[str, Any]], kind: str = "llama", **sizes: Any) -> Case:
    return {"rounds": list(rounds), "kind": kind, "sizes": sizes}


def right_answers(case: Case) -> Answer:
    requests = [one for together in case["rounds"] for one in together]
    few = {**SIZES, **case["sizes"]}["n_pages"] < 20
    return {"tokens": [greedy(one, case["kind"], case["sizes"]) for one in requests], "preempted": few, "lost": ""}


def say_load(case: Case) -> str:
    sizes = {**SIZES, **case["sizes"]}
    rounds = [
        ", ".join(f"{len(one['prompt'])} tokens + {one['new']} new" for one in together) for together in case["rounds"]
    ]
    return f"{sizes['n_pages']} pages of {sizes['page_size']}, {case['kind']}: " + "; then ".join(rounds)


def draw_answers(case: Case, answer: Answer) -> str:
    """Each request's tokens, up to the first that is wrong; what was lost."""
    if is_raised(answer) or not isinstance(answer, dict):
        return draw_plain(case, answer)
    expected = case_right(case)
    lines = []
    for number, tokens in enumerate(answer.get("tokens", [])):
        wanted = expected[number] if number < len(expected) else []
        same = _agree(wanted, tokens or [])
        whole = tokens == wanted
        lines.append(
            f"answer {number + 1}: {len(wanted)} tokens right"
            if whole
            else f"answer {number + 1}: {same} tokens right, then {_few((tokens or [])[same:])}"
        )
    if answer.get("lost"):
        lines.append(answer["lost"])
    elif "lost" in answer:
        lines.append("all pages and slots came back")
    return "\n".join(lines)


def case_right(case: Case) -> list[list[int]]:
    """The right tokens of all requests of a case, in order."""
    if "rounds" in case:
        return [greedy(one, case["kind"], case["sizes"]) for together in case["rounds"] for one in together]
    return [greedy(one, case.get("kind", "llama"), case["sizes"]) for one in case.get("requests", case.get("long", []))]


def _agree(wanted: list[int], got: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))


def _few(tokens: list[int]) -> str:
    return (" ".join(map(str, tokens[:4])) + (" …" if len(tokens) > 4 else "")) or "nothing"


ONE_LEAVES = [
    load([ask(words(3, 1), 5), ask(words(9, 2), 20)]),
    load([ask(words(3, 1), 14), ask(words(5, 2), 4), ask(words(6, 3), 22)]),
    load([ask(words(2, 1), 3), ask(words(7, 2), 9), ask(words(5, 3), 26), ask(words(4, 4), 6)], page_size=8),
    load([ask(words(4, 5), 2), ask(words(4, 6), 18)], kind="gemma2"),
]
USED = [
    load([ask(words(4, 1), 9), ask(words(4, 2), 3)], [ask(words(6, 3), 15)]),
    load([ask(words(4, 1), 3), ask(words(4, 2), 9), ask(words(4, 3), 5)], [ask(words(6, 3), 15), ask(words(3, 4), 9)]),
]
SEVERAL = [
    load([ask(words(5, 1), 12)]),
    load([ask(words(1, 1), 1), ask(words(8, 2), 9), ask(words(33, 3), 12)]),
    load([ask(words(5 + n, n), 4 + 2 * n) for n in range(9)]),
]
FEW = [
    load([ask(words(6, 1), 20), ask(words(5, 2), 20), ask(words(7, 3), 20)], n_pages=9),
    load([ask(words(4, n), 16) for n in range(6)], n_pages=10),
]
WINDOW = [load([ask(words(12, 1), 14), ask(words(3, 2), 25), ask(words(21, 3), 8)], kind="gemma2")]


# ------------------------------------------------------------------------------------------------ arrivals, aborts


def right_arrivals(case: Case) -> Answer:
    return {"tokens": case_right(case), "lost": ""}


ARRIVALS = [
    {
        "kind": "llama",
        "sizes": {},
        "requests": [ask(words(4 + n % 5, n), 6 + 3 * (n % 4), step=2 * n) for n in range(8)],
    }
]


def say_arrivals(case: Case) -> str:
    return f"{len(case['requests'])} requests, one in every second step, with the others still running"


def right_aborts(case: Case) -> Answer:
    kept = [one for index, one in enumerate(case["requests"]) if index not in case["abort"]]
    times = case["times"]
    return {
        "tokens": [[greedy(one, sizes=case["sizes"]) for one in kept]] * times,
        "reasons": [["aborted"] * len(case["abort"])] * times,
        "said": [True] * times,
        "lost": "",
    }


def say_aborts(case: Case) -> str:
    slots = {**SIZES, **case["sizes"]}["max_batch_size"]
    who = ", ".join(str(index + 1) for index in case["abort"])
    times = f", {case['times']} times over" if case["times"] > 1 else ""
    return (
        f"{len(case['requests'])} requests, {slots} slots; after {case['steps']} steps number {who} is aborted{times}"
    )


def draw_aborts(case: Case, answer: Answer) -> str:
    if is_raised(answer) or not isinstance(answer, dict):
        return draw_plain(case, answer)
    expected = right_aborts(case)
    lines = [
        f"the others' answers: {'right' if answer['tokens'] == expected['tokens'] else 'not as they should be'}",
        f"last events of the aborted: {'right' if answer['reasons'] == expected['reasons'] else answer['reasons']}",
        f"abort says True, then False: {'yes' if answer['said'] == expected['said'] else 'no'}",
        answer["lost"] or "all pages and slots came back",
    ]
    return "\n".join(lines)


ABORTS = [
    {"requests": [ask(words(5, 1), 20)], "steps": 3, "abort": [0], "times": 1, "sizes": {}},
    {
        "requests": [ask(words(5, 1), 9), ask(words(9, 2), 20), ask(words(3, 3), 12)],
        "steps": 4,
        "abort": [1],
        "times": 3,
        "sizes": {},
    },
    {"requests": [ask(words(5, n), 9) for n in range(3)], "steps": 2, "abort": [0, 2], "times": 6, "sizes": {}},
]
WAITING = [
    {
        "requests": [ask(words(5, 1), 9), ask(words(9, 2), 9), ask(words(3, 3), 9)],
        "steps": 2,
        "abort": [2],
        "times": 2,
        "sizes": {"max_batch_size": 2},
    },
    {
        "requests": [ask(words(8, n), 20) for n in range(4)],  # some have given way and wait again
        "steps": 9,
        "abort": [0, 3],
        "times": 2,
        "sizes": {"n_pages": 11},
    },
]
STREAMS = [{"requests": [ask(words(5, n), 20) for n in range(3)], "steps": 5, "times": 3, "sizes": {}}]


def say_streams(case: Case) -> str:
    return f"a stream of {len(case['requests'])} answers, left after {case['steps']} events, {case['times']} times over"


# ------------------------------------------------------------------------------------------------ seeds


def right_company(_case: Case) -> Answer:
    return {"answers": 1, "seeds differ": True, "positions differ": True}


def say_company(case: Case) -> str:
    pages = {**SIZES, **case["sizes"]}["n_pages"]
    return (
        f"a request with seed {case['mine']['seed']}, alone and at every place among up to "
        f"{max(map(len, case['others']))} others, {pages} pages"
    )


def draw_company(case: Case, answer: Answer) -> str:
    if is_raised(answer) or not isinstance(answer, dict):
        return draw_plain(case, answer)
    n = answer["answers"]
    return "\n".join(
        [
            f"{n} different answer{'s' if n > 1 else ''}",
            f"other seeds give others: {'yes' if answer['seeds differ'] else 'no'}",
            f"one token for ever: {'no' if answer['positions differ'] else 'yes'}",
        ]
    )


MINE = ask(words(5, 4), 14, temperature=1.0, seed=31)
COMPANY = [
    {
        "mine": MINE,
        "others": [
            [ask(words(3, 1), 14, temperature=1.0, seed=5)],
            [ask(words(9, 2), 6, temperature=0.7, seed=31, top_k=5), ask(words(2, 3), 20)],
        ],
        "sizes": {},
    },
    {
        "mine": {**MINE, "top_p": 0.9},
        "others": [[ask(words(7, 1), 18, temperature=1.0, seed=1), ask(words(7, 2), 18, temperature=1.2, seed=2)]],
        "sizes": {"n_pages": 9},
    },
]


# ------------------------------------------------------------------------------------------------ who gets on


def right_getting_on(case: Case) -> Answer:
    return {
        "the long ones get on": True,
        "newcomers are answered": True,
        "tokens": case_right(case),
        "lost": "",
    }


def say_getting_on(case: Case) -> str:
    return (
        f"{len(case['long'])} long answers run; in each of {case['steps']} steps somebody comes who wants "
        f"{case['newcomer']['new']} token{'s' if case['newcomer']['new'] > 1 else ''}"
    )


def draw_getting_on(case: Case, answer: Answer) -> str:
    if is_raised(answer) or not isinstance(answer, dict):
        return draw_plain(case, answer)
    return "\n".join(
        [
            f"a token in every second step: {'yes' if answer['the long ones get on'] else 'no'}",
            f"newcomers are answered meanwhile: {'yes' if answer['newcomers are answered'] else 'no'}",
            draw_answers(case, {"tokens": answer["tokens"], "lost": answer["lost"]}),
        ]
    )


GETTING_ON = [
    {"long": [ask(words(4, 1), 20)], "newcomer": ask(words(2, 5), 1), "steps": 16, "sizes": {}},
    {
        "long": [ask(words(4, 1), 40), ask(words(6, 2), 30)],
        "newcomer": ask(words(3, 5), 1),
        "steps": 30,
        "sizes": {"max_batch_size": 8, "n_pages": 64},
    },
]


# ------------------------------------------------------------------------------------------------ memory


def right_pool(case: Case) -> Answer:
    sizes = {**SIZES, **case["sizes"]}
    heads, head_dim, layers = (case["model"] or {}).get("kv_heads", 2), (case["model"] or {}).get("head_dim", 8), 2
    layers = (case["model"] or {}).get("layers", layers)
    page_bytes = layers * heads * 2 * head_dim * 4 * sizes["page_size"]
    most = sizes["max_batch_size"] * -(-sizes["max_seq_length"] // sizes["page_size"])
    return {"pages": min(case["free"] // 2 // page_bytes - 1, most)}


def say_pool(case: Case) -> str:
    sizes = {**SIZES, **case["sizes"]}
    model = case["model"]
    heads = f"{model['q_heads']} heads of queries, {model['kv_heads']} of keys" if model else f"the tiny {case['kind']}"
    return f"{case['free']:,} bytes are free, half of them for the pools; {heads}; pages of {sizes['page_size']}"


def draw_pool(case: Case, answer: Answer) -> str:
    return draw_plain(case, answer) if is_raised(answer) else f"{answer['pages']} pages"


POOLS = [
    {"free": 48 * 1024, "kind": "llama", "model": None, "sizes": {"max_batch_size": 16}},
    {"free": 50_000, "kind": "gemma2", "model": None, "sizes": {"max_batch_size": 16, "page_size": 8}},
    {
        "free": 80_000,
        "kind": "llama",
        "model": {"q_heads": 4, "kv_heads": 4, "head_dim": 8, "layers": 1},
        "sizes": {"max_batch_size": 32},
    },
    {
        "free": 60_000,
        "kind": "llama",
        "model": {"q_heads": 8, "kv_heads": 1, "head_dim": 16, "layers": 3},
        "sizes": {"max_batch_size": 32},
    },
    {"free": 10**9, "kind": "llama", "model": None, "sizes": {}},
]


# ------------------------------------------------------------------------------------------------ text


def right_text(case: Case) -> Answer:
    ids = ToyTokenizer()(case["text"])["input_ids"]
    found = []
    for at, new in zip(case["prompts"], case["new"], strict=True):
        begin = len(ToyTokenizer()(case["text"][:at])["input_ids"])
        tokens = ids[begin : begin + new]
        text, why = ToyTokenizer().decode(tokens), "length"
        if (stop := case.get("stop")) and stop in text:
            # The tokens end with the one that completes the stop string.
            n = next(n for n in range(len(tokens) + 1) if stop in ToyTokenizer().decode(tokens[:n]))
            tokens, text, why = tokens[:n], text[: text.index(stop)], "stop"
        found.append({"text": text, "tokens": tokens, "why": why})
    return found


def same_text(_case: Case, expected: Answer, answer: Answer) -> bool:
    """Text, tokens and reason are equal, the pieces are the text, and no piece comes later than it must."""
    return len(expected) == len(answer) and all(_same_stream(e, a) for e, a in zip(expected, answer, strict=True))


def _same_stream(expected: dict[str, Any], answer: dict[str, Any]) -> bool:
    if any(expected[name] != answer[name] for name in expected) or "".join(answer["pieces"]) != expected["text"]:
        return False
    if expected["why"] == "stop":
        return True  # the beginning of a stop string is rightly held back
    shown = ""
    for n, piece in enumerate(answer["pieces"], start=1):
        shown += piece
        safe = ToyTokenizer().decode(expected["tokens"][:n]).rstrip("\ufffd")
        if len(shown) < len(safe):
            return False
    return True


def say_text(case: Case) -> str:
    stop = f", stop string {case['stop']!r}" if case.get("stop") else ""
    return f"a model recites {case['text']!r}; {len(case['prompts'])} streams of {case['new']} tokens{stop}"


def draw_text(case: Case, answer: Answer) -> str:
    if is_raised(answer) or not isinstance(answer, list):
        return draw_plain(case, answer)
    return "\n".join("|".join(one["pieces"]) if "pieces" in one else one["text"] for one in answer)


LETTERS = [
    {"text": "a 😀.", "prompts": [2], "new": [5]},
    {"text": "é漢😀é", "prompts": [1], "new": [9]},
    {"text": "the café 漢漢 is open 😀😀 now", "prompts": [4, 8, 1], "new": [33, 28, 12]},
]
CUT = [{"text": "ab 😀 cd", "prompts": [2, 2], "new": [3, 5]}]
STOPS = [{"text": "one, two é. three", "prompts": [3], "new": [14], "stop": "é."}]


# ------------------------------------------------------------------------------------------------ the six cases

Register = Callable[[Exercise], None]


def _checks(exercise: Exercise, *named: tuple[str, Any, Any, Any, Any, Any]) -> None:
    for name, cases, expected, describe, draw, same in named:

        def function(case: Case, expected: Any = expected) -> Answer:
            return expected(case)

        function.__name__ = name
        exercise.check(cases=cases, describe=describe, draw=draw, same=same)(function)


def _answers(exercise: Exercise) -> None:
    _checks(
        exercise,
        ("one_leaves", ONE_LEAVES, right_answers, say_load, draw_answers, equal),
        ("a_used_engine", USED, right_answers, say_load, draw_answers, equal),
    )


def _plain(exercise: Exercise) -> None:
    _checks(
        exercise,
        ("several", SEVERAL, right_answers, say_load, draw_answers, equal),
        ("few_pages", FEW, right_answers, say_load, draw_answers, equal),
        ("a_window", WINDOW, right_answers, say_load, draw_answers, equal),
        ("arrivals", ARRIVALS, right_arrivals, say_arrivals, draw_answers, equal),
    )


def _pools(exercise: Exercise) -> None:
    _checks(exercise, ("pool", POOLS, right_pool, say_pool, draw_pool, equal))


def _getting_on(exercise: Exercise) -> None:
    _checks(exercise, ("getting_on", GETTING_ON, right_getting_on, say_getting_on, draw_getting_on, equal))


def _seeds(exercise: Exercise) -> None:
    _checks(exercise, ("company", COMPANY, right_company, say_company, draw_company, equal))


def _aborts(exercise: Exercise) -> None:
    _checks(
        exercise,
        ("aborts", ABORTS, right_aborts, say_aborts, draw_aborts, equal),
        ("waiting_aborts", WAITING, right_aborts, say_aborts, draw_aborts, equal),
        ("closed_streams", STREAMS, lambda case: {"lost": ""}, say_streams, None, equal),
    )


def _texts(exercise: Exercise) -> None:
    _checks(
        exercise,
        ("letters", LETTERS, right_text, say_text, draw_text, same_text),
        ("cut_short", CUT, right_text, say_text, draw_text, same_text),
        ("stop_strings", STOPS, right_text, say_text, draw_text, same_text),
    )


ALL: tuple[Register, ...] = (_plain, _answers, _pools, _getting_on, _seeds, _aborts, _texts)
OWN = {
    1: (_answers, "The second answer changes"),
    2: (_pools, "The pool is too small"),
    3: (_getting_on, "An answer stands still"),
    4: (_seeds, "Another text from the same seed"),
    5: (_aborts, "Memory that never comes back"),
    6: (_texts, "Question marks"),
}
HINTS = (
    "This is what any healthy engine does, beyond what the user reports. Is the cause gone, or only what was seen of it?",
    "Run this very case with the engine in flexnano/, and with a test that asserts each step.",
    "If nothing of this case was touched by your mend, compare the function with the one as it was handed out.",
)
for _number, (_first, _section) in OWN.items():
    _exercise = Exercise(f"11.{_number}", section=_section, hints=HINTS, preload=PRELOAD)
    for _register in (_first, *(one for one in ALL if one is not _first)):
        _register(_exercise)
