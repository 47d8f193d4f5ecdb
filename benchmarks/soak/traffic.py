"""Mixed traffic on the engine itself, option by option, on one model that stays."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.soak.books import Books, leaked, poisson
from benchmarks.soak.trend import Growth, growth
from benchmarks.workload import read_prompts
from flexnano import Inference, Result, SamplingParams

Report = dict[str, Any]

WHAT = "mixed traffic on the engine, option by option on one model: memory, time of a step, and every request accounted for"

WINDOW: dict[str, Any] = dict(sliding_window=64, attention_sinks=4)
FUSED: dict[str, Any] = dict(fuse_prefill=True, prefill_chunk=96)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"fast": False},
    "fast": {"fast": True},
    "sharing": {"fast": False, "prefix_sharing": True},
    "fusion": {"fast": False, **FUSED},
    "window": {"fast": False, **WINDOW},
    "all": {"fast": False, "prefix_sharing": True, **WINDOW, **FUSED},
    "all, fast": {"fast": True, "prefix_sharing": True, **WINDOW, **FUSED},
}
"""The engine is closed and made anew with the next of these, on the same model, again and again."""

SIZES: dict[str, Any] = dict(max_batch_size=8, max_seq_length=384, n_pages=44, page_size=8, max_prefill_tokens=256)
"""A pool so small that sequences give way to each other all the time, and some outgrow it."""

ON_A_GPU: dict[str, Any] = {**SIZES, "max_seq_length": 832, "n_pages": 12, "page_size": 64}
MEMORY_LIMIT_MIB = 8.0
"""Growth over the second half that is taken for flat: the keys and values of some 180 tokens of the embedded model in
float32, the logits of 40 requests."""
STEP_LIMIT_PERCENT = 10.0
DRAIN = 0.9
"""Share of an engine's time after which nobody comes any more."""
FEWEST = 4
"""Requests that an engine gets, however little time it has."""


def soak_embedded(
    minutes: float,
    device: str,
    dtype: str | None,
    threads: int,
    seed: int,
    say: Callable[[str], None],
    shape: Path | None = None,
) -> Report:
    """`soak` on the embedded model, or on random weights of the shape that a folder's config.json describes."""
    import transformers

    from course.model import ensure_model

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype or ("float32" if device == "cpu" else "bfloat16"))
    transformers.utils.logging.disable_progress_bar()
    if shape is None:
        folder = ensure_model()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).to(device)
    else:
        folder = shape
        torch.manual_seed(seed)
        config = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=kind).to(device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # On a CPU the fastest path compiles for minutes, and each engine would be compared with another state of the compiler.
    if device == "cpu":
        return soak(model.eval(), tokenizer, minutes, seed, say, {**SIZES, "attention": "gather"})
    # There an engine compiles first and records its graphs, so one with everything serves all the time.  In short turns: the
    # host is slow for a moment now and then, and the more often a step is timed, the less that counts.
    settings = {"all, fast": SETTINGS["all, fast"]}
    return soak(model.eval(), tokenizer, minutes, seed, say, ON_A_GPU, settings, seconds_an_engine=3, keep=True)


def soak(
    model: Any,
    tokenizer: Any,
    minutes: float,
    seed: int = 0,
    say: Callable[[str], None] = print,
    always: dict[str, Any] | None = None,
    settings: dict[str, dict[str, Any]] = SETTINGS,
    seconds_an_engine: float | None = None,
    rounds: int = 1,
    keep: bool = False,
) -> Report:
    """Traffic for so many minutes.

    Args:
        always: options of all engines.
        seconds_an_engine: how long one lives; None: so that each setting has four turns, and at most 15 s.
        rounds: turns that each setting has at least, however long that takes.
        keep: of one setting the engine stays: a turn is a part of its life.
    """
    each = seconds_an_engine or min(15.0, 60 * minutes / len(settings) / 4)
    run = Run(model, tokenizer, {**(SIZES if always is None else always)}, random.Random(seed), each, keep)
    first = "plain" if "plain" in settings else next(iter(settings))
    run.turn(first, settings[first], rehearsal=True)  # what is set up on first use is not part of the measurement
    began = run.began = time.perf_counter()
    for name in itertools.cycle(settings):
        if time.perf_counter() - began > 60 * minutes and len(run.log) >= rounds * len(settings):
            break
        run.turn(name, settings[name])
        if len(run.log) % max(4, len(settings)) == 0:
            one = run.turns[-1]
            say(
                f"{one['minute']:6.2f} min: {run.counts['requests']:,} requests, {run.counts['steps']:,} steps, "
                f"{one['rss_mib']:.0f} MiB, {one['objects']:,} objects"
            )
    run.close()
    turns = run.turns
    found = fits(turns, model.device.type)
    for fit in found.values():
        say(fit.line())
    leaks = run.counts["pages leaked"] + run.counts["slots leaked"]
    grows = [name for name, fit in found.items() if fit.verdict == "grows"]
    return {
        "seed": seed,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "options": run.always,
        "settings": settings,
        "seconds_an_engine": each,
        "minutes": round((time.perf_counter() - began) / 60, 2),
        "engines": 1 if keep else len(turns),
        **{key.replace(" ", "_"): run.counts[key] for key in COUNTED},
        "probes_with_other_tokens": run.counts["probes with other tokens"],
        "growth": {name: fit.as_dict() for name, fit in found.items()},
        "grows": grows,
        "passed": not leaks and not grows and not (run.exact and run.counts["probes with other tokens"]),
        "turns": turns,
    }


COUNTED = (
    *("requests", "steps", "tokens", "stop", "length", "out_of_pages", "aborted", "closed", "refused", "streams"),
    *("streams closed", "preemptions", "cached tokens", "pages leaked", "slots leaked"),
)


@dataclass
class Run:
    """One soak.

    Fields:
        exact: whether the same requests must give the same tokens each time: in float32 they do.
    """

    model: Any
    tokenizer: Any
    always: dict[str, Any]
    rng: random.Random
    seconds: float
    keep: bool = False
    began: float = 0.0
    engine: Inference | None = None

    def __post_init__(self) -> None:
        self.log: list[str] = []  # as text, so that it is no object more for each turn
        self.counts: Counter[str] = Counter()
        self.probed: dict[str, list[list[int]]] = {}
        self.people = People(self.rng, self.model, self.tokenizer, self.always["max_seq_length"])
        self.exact = self.model.dtype == torch.float32
        self.process = psutil.Process()
        self.implementation = self.model.config._attn_implementation

    def turn(self, name: str, options: dict[str, Any], rehearsal: bool = False) -> None:
        """Make an engine, let people use it, see that nothing is left, measure, and close it."""
        engine = self.engine or Inference(self.model, self.tokenizer, **{**self.always, **options})
        if rehearsal:
            record_every_step(engine)
        before = facts(engine)
        books = Books(engine, self.people.judge(engine))
        watch = Watch(self)
        end = time.perf_counter() + self.seconds
        while (now := time.perf_counter()) < end or books.counts["requests"] < FEWEST:
            if now < end - (1 - DRAIN) * self.seconds or books.counts["requests"] < FEWEST:
                self.people.come(engine, books)
            start, steps = time.perf_counter(), engine.stats.decode_steps
            books.step()
            watch.step(time.perf_counter() - start, engine.stats.decode_steps > steps)
        watch.sample()
        books.settle()
        pages, slots = leaked(engine)
        counts, in_traffic = Counter(books.counts), engine.stats.steps - before["steps"]
        probe = self.probe(name, engine)
        again = leaked(engine)
        after = facts(engine)
        books.close()
        self.engine = engine
        del engine, books
        if not self.keep:
            self.close()
        memory = self.memory()
        if rehearsal:
            gc.collect()
            gc.freeze()
            return
        self.counts.update(counts)
        self.counts["steps"] += in_traffic
        for what in ("preemptions", "cached tokens"):
            self.counts[what] += after[what] - before[what]
        self.counts["pages leaked"] += pages + again[0]
        self.counts["slots leaked"] += slots + again[1]
        self.log.append(
            json.dumps(
                {
                    "minute": round((time.perf_counter() - self.began) / 60, 3),
                    "setting": name,
                    "requests": counts["requests"],
                    "steps": in_traffic,
                    "samples": watch.samples,
                    **probe,
                    **memory,
                    "pages_leaked": pages + again[0],
                    "slots_leaked": slots + again[1],
                }
            )
        )

    def close(self) -> None:
        """Close the engine, and see that the model is as it was."""
        if self.engine is None:
            return
        self.engine.close()
        self.engine = None
        assert self.model.config._attn_implementation == self.implementation
        assert not any(hasattr(module, "kv_cache") for module in self.model.modules()), "a cache stays in the model"

    @property
    def turns(self) -> list[Report]:
        return [json.loads(line) for line in self.log]

    def probe(self, name: str, engine: Inference) -> Report:
        """The same requests each time: what a decode step of eight takes, and whether the tokens are still the same."""
        requests = {
            engine.add_request(prompt, params): number for number, (prompt, params) in enumerate(self.people.probes)
        }
        found: list[list[int]] = [[] for _ in requests]
        on_gpu = engine.device.type == "cuda"
        walls, ratios = list[float](), list[float]()
        while engine.has_work:
            # Beside each step, so that a machine that is slow for a moment is slow for both.
            yardstick = 0.0 if on_gpu else self.yardstick()
            steps, wall, processor = engine.stats.decode_steps, time.perf_counter(), time.process_time()
            events = engine.run_one_step()
            if on_gpu:
                torch.cuda.synchronize()
            if engine.stats.decode_steps > steps and len(engine.scheduler.running) == len(requests):
                walls.append(time.perf_counter() - wall)
                if not on_gpu:
                    ratios.append((time.process_time() - processor) / yardstick)
            for event in events:
                if event.token_id is not None:
                    found[requests[event.request_id]].append(event.token_id)
        same = self.probed.setdefault(name, found) == found
        self.counts["probes with other tokens"] += not same
        report: Report = {"probe_ms": round(1000 * statistics.median(walls), 3), "probe_same_tokens": same}
        return report if on_gpu else {**report, "probe_by_yardstick": round(statistics.median(ratios), 3)}

    def yardstick(self) -> float:
        """Seconds of the processor for a piece of work that no engine can slow down: the model's last product, eight rows."""
        layer = self.model.get_output_embeddings()
        row = torch.zeros(8, layer.in_features, dtype=self.model.dtype)
        before = time.process_time()
        with torch.inference_mode():
            layer(row)
        return time.process_time() - before

    def memory(self) -> Report:
        gc.collect()
        trim()
        report: Report = {
            "rss_mib": round(self.process.memory_info().rss / 2**20, 2),
            "objects": len(gc.get_objects()),
            "tensors": sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()),
        }
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
            report["device_allocated_mib"] = round(torch.cuda.memory_allocated() / 2**20, 3)
            report["device_reserved_mib"] = round(torch.cuda.memory_reserved() / 2**20, 3)
        return report


@torch.inference_mode()
def record_every_step(engine: Inference) -> None:
    """Compile and record all sizes of steps, rare ones too, so that none comes up for the first time in the measurement."""
    fast = engine.fast
    if fast is None:
        return
    for greedy in (True, False):
        for rows in fast.buckets:
            fast._graph(rows, greedy)
        if (mixed := fast.mixed) is not None:
            # Each part of a prompt fills up its last row, and there are no more parts than slots.
            most = mixed.steps.planner.token_budget // mixed.steps.block + engine.max_batch_size
            sizes = sorted({mixed.rows_recorded(n) for n in range(1, min(most, mixed.steps.most_rows) + 1)})
            for rows, prompts in itertools.product((0, fast.buckets[-1]), sizes):
                mixed._graph(rows, prompts, greedy)


def trim() -> None:
    """Let glibc's allocator give back to the system what nobody uses, so that what is left is what somebody holds.

    Without it the memory of a process at rest goes up and down by 40 MiB, as its pages happen to be split.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def facts(engine: Inference) -> dict[str, int]:
    """What an engine has counted since it was made."""
    cached = 0 if engine.planner is None else engine.planner.cached_tokens
    return {"steps": engine.stats.steps, "preemptions": engine.stats.preemptions, "cached tokens": cached}


class Watch:
    """Looks every few seconds at memory, and at what a decode step of the traffic took meanwhile."""

    def __init__(self, run: Run, every: float = 5.0) -> None:
        self.run, self.every, self.samples = run, every, list[Report]()
        self.walls: list[float] = []
        self.due = time.perf_counter() + every

    def step(self, seconds: float, decode: bool) -> None:
        if decode:
            self.walls.append(seconds)
        if time.perf_counter() > self.due:
            self.sample()

    def sample(self) -> None:
        self.due = time.perf_counter() + self.every
        if not self.walls:
            return
        one: Report = {
            "minute": round((time.perf_counter() - self.run.began) / 60, 3),
            "decode_ms": round(1000 * statistics.median(self.walls), 3),
            "rss_mib": round(self.run.process.memory_info().rss / 2**20, 2),
        }
        if self.run.model.device.type == "cuda":
            one["device_allocated_mib"] = round(torch.cuda.memory_allocated() / 2**20, 3)
            one["device_reserved_mib"] = round(torch.cuda.memory_reserved() / 2**20, 3)
        self.samples.append(one)
        self.walls.clear()


# ---------------------------------------------------------------------- verdicts


def fits(turns: list[Report], device: str) -> dict[str, Growth]:
    """What grew over the second half of the turns."""
    done = list(itertools.accumulate(one["requests"] for one in turns))
    half = done[-1] - done[len(done) // 2]

    def fit(what: str, unit: str, key: str, limit: float) -> Growth:
        return growth(what, unit, done, [one[key] for one in turns], limit)

    found = {
        "memory": fit("memory", "MiB", "rss_mib", MEMORY_LIMIT_MIB),
        "objects": fit("objects of Python", "", "objects", max(20.0, half / 10)),
        "tensors": fit("tensors", "", "tensors", max(2.0, half / 100)),
    }
    if device == "cuda":
        found["device_allocated"] = fit("device memory, allocated", "MiB", "device_allocated_mib", 1.0)
        found["device_reserved"] = fit("device memory, reserved", "MiB", "device_reserved_mib", 64.0)
    found["step"] = growth("time of a step", "%", done, relative_step(turns, STEP[device]), STEP_LIMIT_PERCENT)
    return found


STEP = {"cpu": "probe_by_yardstick", "cuda": "probe_ms"}
"""What is compared.  On a CPU others may be at work on the same cores, and slow down a step and the yardstick alike.  Nobody
else is on the GPU, which is what the host waits for there: when the host was slow, a hundred small kernels took a sixth
longer and a step a hundredth."""


def relative_step(turns: list[Report], key: str) -> list[float]:
    """The probe's step by the median of its setting, in %: settings differ, only time may tell."""
    usual = {
        name: statistics.median(one[key] for one in turns if one["setting"] == name)
        for name in {one["setting"] for one in turns}
    }
    return [100 * one[key] / usual[one["setting"]] for one in turns]


# ---------------------------------------------------------------------- who asks, and for what


KINDS: list[dict[str, Any]] = [
    *({}, {}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.05}, {"logprobs": 3}, {"top_k": 5, "top_p": 0.5}),
]
"""Of sampling; the first is greedy."""


class People:
    """Those who ask: short prompts and long ones, every kind of sampling, streams left midway, aborts, bad requests."""

    def __init__(self, rng: random.Random, model: Any, tokenizer: Any, longest: int) -> None:
        self.rng, self.tokenizer, self.longest = rng, tokenizer, longest
        instructions, sentences = read_prompts()
        self.text = instructions + sentences
        vocabulary = model.get_input_embeddings().num_embeddings
        self.ids = [one for one in tokenizer("\n".join(self.text))["input_ids"] if one < vocabulary]
        if len(set(self.ids)) < 50:  # a tokenizer for tests, which knows no text
            self.ids = rng.choices(range(3, vocabulary), k=2000)
        self.beginning = self.ids[:48]
        self.chats = getattr(tokenizer, "chat_template", None) is not None
        self.bad = [
            ([], None),
            ([1, vocabulary], None),
            ([1, -1], None),
            ([1.5], None),
            (None, None),
            ("", None),
            ([{"role": "user"}, 5], None),
            (self.ids[:1] * (longest + 1), None),
            ([1], "greedy"),
            ([1], SamplingParams(n=2)),
        ]
        greedy, seeded = SamplingParams(max_new_tokens=24), SamplingParams(max_new_tokens=24, temperature=0.7, seed=1)
        self.probes = [
            (self.ids[at : at + 20], [greedy, seeded][i % 2]) for i, at in enumerate(range(100, 100 + 8 * 25, 25))
        ]
        self.probes = [(ids, SamplingParams(**{**vars(params), "ignore_eos": True})) for ids, params in self.probes]

    def come(self, engine: Inference, books: Books) -> None:
        """Between two steps: newcomers as Poisson has them, counted in steps; sometimes somebody leaves."""
        rng = self.rng
        mean = 0.6 if engine.stats.steps // 40 % 2 == 0 else 0.2  # more than can be served, then less
        if len(engine.scheduler.waiting) < 12:
            for _ in range(poisson(rng, mean)):
                if rng.random() < 0.02:  # more than there is room for
                    room = min(engine.scheduler.longest, engine.max_seq_length)
                    ids = (self.ids * (room // len(self.ids) + 1))[: room - 10]
                    books.add(ids, SamplingParams(max_new_tokens=64, ignore_eos=True))
                    continue
                books.add(self.prompt(), self.params())
        if rng.random() < 0.02:
            books.abort(rng)
        if rng.random() < 0.03:
            books.add_bad(*rng.choice(self.bad))
        if rng.random() < 0.03 and len(books.streams) < 2:
            n = rng.randint(1, 2)
            prompts: list[Any] = [self.prompt() for _ in range(n)]
            if rng.random() < 0.3:
                prompts.append([-1])  # refused, while the others run
            books.open_stream(prompts, [self.params(rng.choice([1, 1, 3])) for _ in prompts])
        for stream in list(books.streams):
            if rng.random() < 0.5:
                books.read_stream(stream, rng.randint(1, 4))
        if books.streams and rng.random() < 0.05:
            books.close_stream(rng.choice(books.streams))

    def prompt(self) -> Any:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.2:
            text = " ".join(rng.choice(self.text).split()[: rng.randint(1, 8)])
            return [{"role": "user", "content": text}] if self.chats and kind < 0.1 else text
        n = rng.randint(60, 200) if kind > 0.9 else rng.randint(1, 24)
        at = rng.randrange(max(1, len(self.ids) - n))
        own = self.ids[at : at + n]
        return self.beginning + own if kind < 0.5 else own

    def params(self, n: int = 1) -> SamplingParams:
        rng = self.rng
        options: dict[str, Any] = dict(max_new_tokens=rng.randint(1, 32), n=n)
        kind = rng.randrange(len(KINDS))
        if kind:
            options |= dict(temperature=rng.choice([0.3, 0.8, 1.5]), seed=rng.choice([None, rng.getrandbits(40)]))
        options |= KINDS[kind]
        if rng.random() < 0.2:
            options["stop"] = rng.choice([".", ("\n", "the"), (self.ids[7], self.ids[11])])
        return SamplingParams(ignore_eos=rng.random() < 0.2, **options)

    def judge(self, engine: Inference) -> Callable[[int, SamplingParams, Result], None]:
        """What can be said of a result without knowing the model."""
        room, longest, ends = engine.scheduler.longest, engine.max_seq_length, engine.eos_token_ids

        def judge(request: int, params: SamplingParams, result: Result) -> None:
            n_prompt, n, reason = len(result.prompt_token_ids), len(result.token_ids), result.finish_reason
            said = f"request {request}: {reason} after {n} of {params.max_new_tokens} tokens, prompt of {n_prompt}"
            assert n <= params.max_new_tokens, said
            if reason == "length":
                assert n == min(params.max_new_tokens, longest - n_prompt), said
            elif reason == "stop":
                last = result.token_ids[-1]
                assert params.stop or (last in ends and not params.ignore_eos), said
            elif reason == "out_of_pages":
                assert n_prompt + n == room + 1, said
            if params.logprobs is not None:
                assert result.logprobs is not None and len(result.logprobs) == n, said
            else:
                assert result.logprobs is None, said
            for text in params.stop_strings:
                assert text not in result.text, f"{said}: the stop string is in {result.text!r}"

        return judge
