# Your copy of solutions/flexnano/trace.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 2259faebea4dc952
"""What an engine or a bare scheduler did, step by step: plain data, and a page in which one can watch it.  Given.

with record(engine) as trace:  # or a Scheduler
    engine.generate(prompts)
trace.html("run.html")  # one file, no server; as the last line of a cell, `trace` shows the same page
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import Inference
    from .page_table import PageTable
    from .scheduler import Row, Scheduler
    from .sequence import Sequence


@dataclass
class Request:
    """Who is drawn: `id` is the request's number, `name` a letter by order of arrival.

    `tokens` are the pieces of text of prompt and output, if the engine has a tokenizer; `prompt_tokens` of them are the
    prompt's.  `output_tokens` is how many were made by the end of the recording.
    """

    id: int
    name: str
    prompt_tokens: int
    output_tokens: int = 0
    tokens: list[str] = field(default_factory=list)


@dataclass
class Part:
    """What one request computed in a step: tokens start … start + n_tokens - 1; `kind` is "prefill" or "decode"."""

    request: int
    start: int
    n_tokens: int
    kind: str


@dataclass
class Holding:
    """The pages of a request, first token first.

    `filled`: how many tokens lie in each once the step has run.  `first`: where in its sequence the first page lies; 0
    unless earlier ones were given up.
    """

    request: int
    pages: list[int]
    filled: list[int]
    first: int = 0


@dataclass
class Step:
    """One step.

    Fields:
        parts: what was computed.
        held: who holds which pages while it runs, the one admitted longest ago first.
        waiting: requests without a slot, first to come first.
        admitted, preempted: requests that were given, and that lost, their pages as the step was chosen.
        taken: pages that have another holder than in the step before.
        stolen: by page, the request that was preempted and held it until now; the page is taken or lies free.
        freed: pages that lie free because their holder finished.
        finished: by request, why it ended in this step; its pages are free after it.
    """

    parts: list[Part]
    held: list[Holding]
    waiting: list[int]
    admitted: list[int]
    preempted: list[int]
    taken: list[int]
    stolen: dict[int, int]
    freed: list[int]
    finished: dict[int, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "prefill", "decode", or both."""
        return " + ".join(kind for kind in ("prefill", "decode") if any(part.kind == kind for part in self.parts))


@dataclass
class Trace:
    """A recorded run.

    Fields:
        n_pages, page_size: of the pool, without the sink; tokens in a page.
        slots: sequences that can run at once.
        requests: in order of arrival.
        admission_order: numbers of requests in the order in which they were first admitted; it gives them their colours.
        steps: in order.
    """

    n_pages: int
    page_size: int
    slots: int
    requests: list[Request] = field(default_factory=list)
    admission_order: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def name(self, request: int) -> str:
        return next(one.name for one in self.requests if one.id == request)

    # ------------------------------------------------------------------ to a file and back

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    def save(self, path: str | Path) -> Path:
        """Write the data as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote."""
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        steps = []
        for step in data.pop("steps"):
            step["parts"] = [Part(**part) for part in step["parts"]]
            step["held"] = [Holding(**held) for held in step["held"]]
            for by_number in ("stolen", "finished"):  # JSON has only strings as keys
                step[by_number] = {int(key): value for key, value in step[by_number].items()}
            steps.append(Step(**step))
        return cls(**{**data, "requests": [Request(**one) for one in data["requests"]], "steps": steps})

    # ------------------------------------------------------------------ to look at

    def page(self, title: str = "Pages of the KV cache, step by step") -> str:
        """The text of the HTML page: the data and all that shows it, nothing from elsewhere.

        What was in the prompts is in the page too, if the engine had a tokenizer.
        """
        from .trace_page import PAGE
        from .viz import OWNERS

        # In a script element, only `<` could end it.
        data = self.to_json().replace("<", "\\u003c")
        parts = {"TITLE": html.escape(title), "COLOURS": json.dumps(OWNERS), "DATA": data}
        before, *rest = PAGE.split("%%")
        return before + "".join(parts.get(piece, piece) for piece in rest)

    def html(self, path: str | Path, title: str = "Pages of the KV cache, step by step") -> Path:
        """Write the page as one file that needs no server and asks no other host."""
        Path(path).write_text(self.page(title), encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str:
        """A notebook shows the page in a frame; the page makes the frame as high as it is itself."""
        return (
            f'<iframe title="A recorded run" srcdoc="{html.escape(self.page())}" width="100%" height="720" '
            f'style="border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return (
            f"Trace({len(self.steps)} steps of {len(self.requests)} requests, "
            f"{self.n_pages} pages of {self.page_size} tokens)"
        )


@contextmanager
def record(run: Inference | Scheduler, names: Mapping[int, str] | None = None) -> Iterator[Trace]:
    """Record what `run` does while the block lasts; it does the same as without.

    Only looks: before and after each call of `next_step`, the scheduler's or the planner's, at the queues and the page table.

    Args:
        run: an engine, or a Scheduler that the block drives itself.
        names: by request number, what to call a request; the others are A, B, C, … in order of arrival.

    Yields:
        The trace, which grows with each step and is complete after the block.
    """
    scheduler: Any = getattr(run, "scheduler", run)
    recorder = _Recorder(scheduler, getattr(run, "tokenizer", None), names or {})
    chooser: Any = getattr(run, "planner", None) or scheduler  # homeworks 08 to 10 choose differently
    instead, next_step = vars(chooser).get("next_step"), chooser.next_step

    def watched() -> list[Row]:
        recorder.look()
        rows = next_step()
        recorder.add_step(rows)
        return rows

    chooser.next_step = watched
    try:
        yield recorder.trace
    finally:
        if instead is None:
            del chooser.next_step
        else:
            chooser.next_step = instead
        recorder.close()


class _Recorder:
    """Looks at a scheduler between its steps and notes what changed."""

    def __init__(self, scheduler: Scheduler, tokenizer: Any, names: Mapping[int, str]) -> None:
        self.scheduler, self.tokenizer, self.names = scheduler, tokenizer, names
        self.table: PageTable = scheduler.page_table
        self.trace = Trace(self.table.n_pages, self.table.page_size, self.table.max_batch_size)
        self.sequences: dict[int, Sequence] = {}
        self.computed: dict[int, int] = {}  # by request, tokens whose keys lie in its pages
        self.unfinished: set[int] = set()
        self.preemptions: dict[int, int] = {}
        self.look()
        # What ran before the recording has keys for all its tokens but the newest.
        for sequence in scheduler.running:
            self.computed[sequence.request_id] = len(sequence) - bool(sequence.output_ids)
        self.trace.admission_order += [sequence.request_id for sequence in scheduler.running]
        self.owner = self._owners(self._held())

    def look(self) -> None:
        """Note who came and who finished since the last look."""
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            number = sequence.request_id
            if number not in self.sequences:
                self.sequences[number] = sequence
                self.unfinished.add(number)
                self.preemptions[number] = sequence.preemptions
                name = self.names.get(number, letter(len(self.trace.requests)))
                self.trace.requests.append(Request(number, name, len(sequence.prompt_ids)))
        for number in sorted(self.unfinished):
            if (reason := self.sequences[number].finish_reason) is not None:
                self.unfinished.discard(number)
                if self.trace.steps:
                    self.trace.steps[-1].finished[number] = reason

    def add_step(self, rows: list[Row]) -> None:
        before = self.owner
        preempted = [n for n, sequence in self.sequences.items() if sequence.preemptions > self.preemptions[n]]
        for number in preempted:
            self.preemptions[number] = self.sequences[number].preemptions
            self.computed.pop(number, None)
        admitted = [row.sequence.request_id for row in rows if row.sequence.request_id not in self.computed]
        self.trace.admission_order += [n for n in admitted if n not in self.trace.admission_order]
        for row in rows:
            self.computed[row.sequence.request_id] = row.start + row.n_tokens
        if rows:
            held = self._held()
            self.owner = self._owners(held)
            lost = {page: n for page, owners in before.items() for n in owners & set(preempted)}
            self.trace.steps.append(
                Step(
                    parts=[_part(row) for row in rows],
                    held=held,
                    waiting=[sequence.request_id for sequence in self.scheduler.waiting],
                    admitted=admitted,
                    preempted=preempted,
                    taken=sorted(page for page, owners in self.owner.items() if owners - before.get(page, set())),
                    stolen={page: n for page, n in sorted(lost.items()) if n not in self.owner.get(page, set())},
                    freed=sorted(before.keys() - self.owner.keys() - lost.keys()),
                )
            )
        self.look()

    def _held(self) -> list[Holding]:
        size, logical_of_page = self.table.page_size, self.table.logical_of_page.tolist()
        held = []
        for sequence in self.scheduler.running:
            pages = [page for page in self.table.owned[sequence.slot] if page]  # 0: given up
            computed = self.computed.get(sequence.request_id, 0)
            filled = [min(max(computed - logical_of_page[page] * size, 0), size) for page in pages]
            held.append(Holding(sequence.request_id, pages, filled, logical_of_page[pages[0]] if pages else 0))
        return held

    @staticmethod
    def _owners(held: list[Holding]) -> dict[int, set[int]]:
        """By page, the requests that hold it: several where a prefix is shared."""
        owners: dict[int, set[int]] = {}
        for one in held:
            for page in one.pages:
                owners.setdefault(page, set()).add(one.request)
        return owners

    def close(self) -> None:
        self.look()
        for request in self.trace.requests:
            sequence = self.sequences[request.id]
            request.output_tokens = len(sequence.output_ids)
            if self.tokenizer is not None:
                request.tokens = [self.tokenizer.decode([token]) for token in sequence.token_ids]


def _part(row: Row) -> Part:
    """A decode computes the one newest token, which the model made itself."""
    decode = row.n_tokens == 1 and row.start >= len(row.sequence.prompt_ids) and not row.is_prefill
    return Part(row.sequence.request_id, row.start, row.n_tokens, "decode" if decode else "prefill")


def letter(i: int) -> str:
    """The name of the i-th sequence: A, B, …, Z, A2, B2, …"""
    return chr(ord("A") + i % 26) + (str(i // 26 + 1) if i >= 26 else "")
