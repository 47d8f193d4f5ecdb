"""What is right in module 05, by a model of its own: a pool is a number, a slot is a key with a number of pages.

`World` plays the scheduler.  Told the name of a mistake, it makes that mistake: what a learner with it would get.
A way of making a mistake is named after a colon, "wrong-edge:late".
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from course.grading.checks import Answer, Check, Exercise, draw_plain, equal, is_raised, plain, raises

Case = dict[str, Any]
NAMES = string.ascii_uppercase

# ================================================================================================ the model


class Crash(Exception):
    """What Python or the page table raises in the middle of a wrong solution.

    Args:
        names: the classes that it may be of.
        says: a part of the message.
    """

    def __init__(self, *names: str, says: str = "") -> None:
        super().__init__(*names)
        self.says = says


class Endless(Exception):
    """A wrong solution that does not come to an end."""


def foreseen(answer: Callable[[], Answer]) -> Answer:
    """An answer, or that the solution raises or never ends."""
    try:
        return answer()
    except Crash as crash:
        return raises(*crash.args, says=crash.says)
    except Endless:
        return {"endless": True}


def pages_for(tokens: int, size: int) -> int:
    """Pages that tokens 0, 1, 2, … lie in, by counting them."""
    return len({token // size for token in range(tokens)})


@dataclass
class Job:
    prompt: int
    made: int = 0
    at_most: int = 99
    stands: str = "waiting"
    slot: int = 0
    gave_way: int = 0
    why: str | None = None

    @property
    def tokens(self) -> int:
        return self.prompt + self.made


class World:
    """A pool, its jobs by name, and the scheduler's rules.

    Args:
        case: the sizes, and the (prompt, made) of who runs and who waits.
        wrong: a mistake to make.
        reading: how to read what the docstrings leave open.  "ended first": `grow` ends those who are too long before it
            serves anybody.  `steps_kept_waiting` in a decode step grows if there are candidates, else is 0; "counts on":
            else it stays; "counts since": else it grows too, once begun; "counts the queue": whoever waits is a candidate.
    """

    def __init__(self, case: Case, wrong: str = "", reading: Iterable[str] = ()) -> None:
        self.wrong, self.reading = wrong, set(reading)
        self.size, self.pool, self.n_slots = case["size"], case["pool"], case["slots"]
        self.budget, self.company, self.patience = case["budget"], case["min_prefill"], case["patience"]
        widest = self.pool if case["row"] is None else pages_for(case["row"], self.size)
        self.longest = min(widest, self.pool) * self.size
        self.pages: dict[int, int] = {}  # of each slot that is taken
        self.jobs: dict[str, Job] = {}
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.outgrown: list[str] = []
        self.gave_way = 0
        self.last_was_prefill, self.kept = False, 0
        for prompt, made in case.get("running", []):
            self.seat(self.newcomer(prompt, made))
        for prompt, made in case.get("waiting", []):
            self.waiting.append(self.newcomer(prompt, made))

    def is_wrong(self, *slugs: str) -> bool:
        return self.wrong in slugs

    def newcomer(self, prompt: int, made: int = 0, at_most: int = 99) -> str:
        name = NAMES[len(self.jobs)]
        self.jobs[name] = Job(prompt, made, at_most)
        return name

    def seat(self, name: str) -> None:
        """Let somebody run as after a step: the newest token has no place yet."""
        job = self.jobs[name]
        job.slot, job.stands = self.take_slot(), "running"
        self.hold(job.slot, job.tokens - (1 if job.made else 0))
        self.running.append(name)

    # ------------------------------------------------------------------------ slots and pages

    @property
    def free(self) -> int:
        return self.pool - sum(self.pages.values())

    @property
    def free_slots(self) -> int:
        return self.n_slots - len(self.pages)

    def take_slot(self) -> int:
        slot = next((number for number in range(1, self.n_slots + 1) if number not in self.pages), None)
        if slot is None:
            raise Crash("RuntimeError")
        self.pages[slot] = 0
        return slot

    def hold(self, slot: int, tokens: int) -> bool:
        if slot not in self.pages:
            raise Crash("ValueError", says="slot")
        if not 1 <= tokens <= self.longest:
            raise Crash("ValueError", says="seq_len")
        more = pages_for(tokens, self.size) - self.pages[slot]
        if more > self.free:
            return False
        self.pages[slot] += max(more, 0)
        return True

    def give_back(self, slot: int) -> None:
        if slot not in self.pages:
            raise Crash("ValueError", says="slot")
        del self.pages[slot]

    def board(self) -> dict[str, Any]:
        """How everyone stands, as the drive tells it."""
        shown: list[int] = []
        jobs = {}
        for name, job in self.jobs.items():
            if job.slot and job.slot not in shown:
                shown.append(job.slot)
            jobs[name] = {
                "stands": job.stands,
                "prompt": job.prompt,
                "made": job.made,
                "slot": shown.index(job.slot) + 1 if job.slot else 0,
                "pages": self.pages.get(job.slot, 0),
                "gave_way": job.gave_way,
                "why": job.why,
            }
        return {
            "jobs": jobs,
            "running": list(self.running),
            "waiting": list(self.waiting),
            "outgrown": sorted(self.outgrown),
            "gave_way": self.gave_way,
            "free_pages": self.free,
            "free_slots": self.free_slots,
        }

    # ------------------------------------------------------------------------ 5.2

    def add(self, name: str) -> bool:
        """Queue somebody; True if refused."""
        job, limit = self.jobs[name], self.longest
        tokens = job.prompt if self.is_wrong("forgets-output") else job.tokens
        if self.is_wrong("counts-the-future"):
            tokens += job.at_most
        if self.is_wrong("pool-not-row"):
            limit = self.pool * self.size
        if self.is_wrong("refuses-for-now"):
            limit = self.free * self.size
        if self.is_wrong("refuses-for-now:budget"):
            limit = min(limit, self.budget)
        if self.is_wrong("refuses-for-now:slots") and not self.free_slots:
            limit = 0
        too_long = tokens >= limit if self.is_wrong("exact-fit") else tokens > limit
        refuse = too_long and not self.is_wrong("never-fits", "says-nothing")
        if self.is_wrong("says-nothing") and too_long:
            return False
        if not refuse or self.is_wrong("queued-all-the-same"):
            self.waiting.insert(0 if self.is_wrong("jumps-the-queue") else len(self.waiting), name)
            if self.is_wrong("jumps-the-queue:short"):
                self.waiting.sort(key=lambda other: self.jobs[other].tokens)
        return refuse

    # ------------------------------------------------------------------------ 5.3

    def admissible(self) -> list[str]:
        """The longest head of the queue that may go, found by trying all of them."""
        if self.is_wrong("skips-ahead", "skips-ahead:budget", "skips-ahead:pages"):
            return self._whoever_fits()
        return next(head for head in self._heads() if not head or self._may_go(head))

    def _heads(self) -> Iterator[list[str]]:
        for length in range(len(self.waiting), -1, -1):
            yield self.waiting[:length]

    def _may_go(self, head: list[str]) -> bool:
        return self._have_slots(head) and self._have_pages(head) and self._in_budget(head)

    def _whoever_fits(self) -> list[str]:
        takes: list[str] = []
        for name in self.waiting:
            slots, pages, budget = (
                test([*takes, name]) for test in (self._have_slots, self._have_pages, self._in_budget)
            )
            if slots and pages and budget:
                takes.append(name)
            elif not (
                self.is_wrong("skips-ahead")
                or (self.is_wrong("skips-ahead:budget") and pages and slots)
                or (self.is_wrong("skips-ahead:pages") and slots and not pages)
            ):
                break
        return takes

    def _have_slots(self, head: list[str]) -> bool:
        if self.is_wrong("no-slot-left"):
            return True
        if self.is_wrong("no-slot-left:all"):
            return len(head) <= self.n_slots
        if self.is_wrong("no-slot-left:one-more"):
            return len(head) <= self.free_slots + 1
        return len(head) <= self.free_slots

    def _have_pages(self, head: list[str]) -> bool:
        short = self.is_wrong("forgets-output", "forgets-output:pages")
        lengths = [self.jobs[name].prompt if short else self.jobs[name].tokens for name in head]
        each = [pages_for(tokens, self.size) for tokens in lengths]
        if self.is_wrong("tokens-not-pages"):
            return sum(lengths) <= self.free * self.size
        if self.is_wrong("tokens-not-pages:sum"):
            return pages_for(sum(lengths), self.size) <= self.free
        if self.is_wrong("tokens-not-pages:down"):
            return sum(tokens // self.size for tokens in lengths) <= self.free
        if self.is_wrong("one-page-more"):
            return sum(tokens // self.size + 1 for tokens in lengths) <= self.free
        if self.is_wrong("forgets-the-others", "forgets-the-others:pages"):
            return all(pages <= self.free for pages in each)
        if self.is_wrong("strict-pages"):
            return sum(each) < self.free
        if self.is_wrong("whole-pool"):
            return sum(each) <= self.pool
        if self.is_wrong("no-pages-asked"):
            return True
        return sum(each) <= self.free

    def _in_budget(self, head: list[str]) -> bool:
        short = self.is_wrong("forgets-output", "forgets-output:budget")
        lengths = [self.jobs[name].prompt if short else self.jobs[name].tokens for name in head]
        if self.is_wrong("strict-budget"):
            return len(head) == 1 or sum(lengths) < self.budget
        if self.is_wrong("strict-budget:first"):
            return sum(lengths) < self.budget
        if self.is_wrong("forgets-the-others", "forgets-the-others:budget"):
            return all(tokens <= self.budget for tokens in lengths[1:])
        if self.is_wrong("forgets-the-others:long"):
            return all(tokens <= self.budget for tokens in lengths)
        if self.is_wrong("budget-overshot"):
            return sum(lengths[:-1]) < self.budget
        if self.is_wrong("budget-overshot:full"):
            return sum(lengths[:-1]) <= self.budget
        if self.is_wrong("long-starves"):
            return sum(lengths) <= self.budget
        if self.is_wrong("long-not-alone"):
            return sum(tokens for tokens in lengths[lengths[0] > self.budget :]) <= self.budget
        if self.is_wrong("long-not-alone:no-limit"):
            return lengths[0] > self.budget or sum(lengths) <= self.budget
        if self.is_wrong("long-not-alone:each"):
            return sum(tokens for tokens in lengths if tokens <= self.budget) <= self.budget
        if self.is_wrong("no-budget"):
            return True
        return len(head) == 1 or sum(lengths) <= self.budget

    def take_out(self, head: list[str]) -> None:
        """What happens to the queue when somebody asks; nothing, if right."""
        if self.is_wrong("takes-them-out", "takes-them-out:and-one"):
            more = 1 if self.is_wrong("takes-them-out:and-one") else 0
            self.waiting = self.waiting[len(head) + more :]
        if self.is_wrong("takes-them-out:admits"):
            self.admit(head)

    # ------------------------------------------------------------------------ 5.4

    def worth(self, candidates: int) -> bool:
        runs = len(self.running) > 0
        enough, long_enough = candidates >= self.company, self.kept >= self.patience
        if self.is_wrong("one-candidate-more"):
            enough = candidates > self.company
        if self.is_wrong("one-step-more"):
            long_enough = self.kept > self.patience
        if self.is_wrong("waits-for-ever"):
            long_enough = False
        if self.is_wrong("never-enough"):
            enough = False
        due = enough and long_enough if self.is_wrong("needs-both") else enough or long_enough
        after = self.last_was_prefill
        table = {
            "prefill-always": candidates > 0,
            "prefill-always:due": candidates > 0 and (not runs or due),
            "patience-first": candidates > 0 and (not runs or long_enough or (enough and not after)),
            "patience-first:enough": candidates > 0 and (not runs or enough or (long_enough and not after)),
            "idle-waits": candidates > 0 and due and not after,
            "idle-waits:after": candidates > 0 and not after and (not runs or due),
            "idle-waits:due": candidates > 0 and due and not (after and runs),
            "nobody-there": not runs or (due and not after),
            "nobody-there:due": due and not after if runs else candidates > 0,
            "static-batch": candidates > 0 and not runs,
            "upside-down": candidates > 0 and (not runs or (due and after)),
        }
        return table.get(self.wrong, candidates > 0 and (not runs or (due and not after)))

    # ------------------------------------------------------------------------ 5.5

    def admit(self, head: list[str]) -> list[list[Any]]:
        rows, shared = [], 0
        for name in list(self.waiting) if self.is_wrong("admits-everyone") else head:
            job = self.jobs[name]
            if not self.is_wrong("stays-waiting"):
                self.waiting.remove(name)
            slot = shared or self.take_slot()
            if self.is_wrong("one-slot"):
                shared = slot
            if not self.is_wrong("no-slot"):
                job.slot = slot
            if self.is_wrong("no-slot:at-once"):
                raise Crash("ValueError", says="slot 0")
            if not self.is_wrong("no-pages"):
                short = self.is_wrong("forgets-output", "forgets-output:pages")
                extra = 1 if self.is_wrong("room-for-more") else 0
                self.hold(slot, (job.prompt if short else job.tokens) + extra)
            if not self.is_wrong("keeps-status"):
                job.stands = "running"
            if not self.is_wrong("not-in-running"):
                at = 0 if self.is_wrong("head-of-running") else len(self.running)
                self.running.insert(at, name)
            short = self.is_wrong("forgets-output", "forgets-output:row")
            rows.append([name, 0, job.prompt if short else job.tokens])
            if self.is_wrong("decode-row"):
                rows[-1] = [name, job.tokens - 1, 1]
            if self.is_wrong("decode-row:new"):
                rows[-1] = [name, job.made, job.prompt]
            if self.is_wrong("decode-row:last"):
                rows[-1] = [name, 0, job.tokens - 1]
        if self.is_wrong("loses-the-rest"):
            self.waiting.clear()
        return rows

    # ------------------------------------------------------------------------ 5.6, 5.7

    def release(self, name: str) -> None:
        """Take what somebody holds."""
        job = self.jobs[name]
        if self.is_wrong("slot-first"):
            raise Crash("ValueError", says="slot 0")
        if self.is_wrong("keeps-pages:slot-too"):
            return
        if job.slot and not self.is_wrong("keeps-pages"):
            self.give_back(job.slot)
        if not self.is_wrong("stale-slot"):
            job.slot = 0

    def give_way(self, name: str) -> None:
        job = self.jobs[name]
        if self.is_wrong("takes-the-last"):
            self.running.pop()
        elif not self.is_wrong("runs-preempted:listed"):
            self.running.remove(name)
        if self.is_wrong("runs-preempted:again"):
            self.running.append(name)
        self.release(name)
        if not self.is_wrong("keeps-status"):
            job.stands = "waiting"
        if self.is_wrong("keeps-status:finished"):
            job.stands = "finished"
        if not self.is_wrong("not-counted", "not-counted:own"):
            job.gave_way += 1
        if not self.is_wrong("not-counted", "not-counted:all"):
            self.gave_way += 1
        if self.is_wrong("forgets-output", "forgets-output:lost"):
            job.made = 0
        if not self.is_wrong("not-queued"):
            self.waiting.insert(len(self.waiting) if self.is_wrong("back-of-the-queue") else 0, name)

    def end(self, name: str, why: str) -> None:
        job = self.jobs[name]
        if job.stands == "finished":
            if self.is_wrong("double-finish"):
                job.why = why
            if self.is_wrong("double-finish:raises"):
                raise Crash("ValueError")
            return
        waits = job.stands == "waiting"
        if waits and self.is_wrong("only-running"):
            raise Crash("ValueError")
        if waits and self.is_wrong("only-running:nothing"):
            return
        if waits and not self.is_wrong("only-running:queue"):
            self.waiting.remove(name)
        if waits and self.is_wrong("takes-the-first"):
            self.waiting[:] = [other for other in [name, *self.waiting] if other != self._first(name)]
        if not waits and not self.is_wrong("still-running"):
            self.running.remove(name)
        self.release(name)
        if not self.is_wrong("keeps-status"):
            job.stands = "finished"
        if not self.is_wrong("no-reason"):
            job.why = why

    def _first(self, name: str) -> str:
        return min([name, *self.waiting])

    # ------------------------------------------------------------------------ 5.8

    def grow(self) -> list[list[Any]]:
        rows: list[list[Any]] = []
        before = list(self.running)
        if "ended first" in self.reading:
            for name in before:
                self.end_if_too_long(name)
        if self.is_wrong("newest-first"):
            before.reverse()
        served = self._live() if self.is_wrong("skips-the-next") else iter(before)
        for name in served:
            if "ended first" not in self.reading:
                self.end_if_too_long(name)
            gone = self.serve(name, rows)
            if gone and self.is_wrong("stops-after-giving-way"):
                break
        if self.is_wrong("runs-preempted:all"):
            rows = [self.row(name) for name in before if self.jobs[name].stands != "finished"]
        return rows

    def _live(self) -> Iterator[str]:
        """Everyone who runs, by a loop over the list that changes meanwhile."""
        n = 0
        while n < len(self.running):
            n += 1
            yield self.running[n - 1]

    def end_if_too_long(self, name: str) -> None:
        job, limit = self.jobs[name], self.longest
        if job.tokens > limit and self.is_wrong("self-preempt:raises"):
            raise Crash("ValueError", "AssertionError", "RuntimeError", "MemoryError")
        if job.tokens > limit and self.is_wrong("self-preempt:waits") and job.stands == "running":
            self.give_way(name)
        if job.stands == "waiting" and self.is_wrong("outgrown-waits"):
            return
        if job.stands == "finished" or self.wrong.startswith(("self-preempt", "in-vain")):
            return
        if self.is_wrong("pool-not-row"):
            limit = self.pool * self.size
        too_long = job.tokens >= limit if self.is_wrong("ends-early") else job.tokens > limit
        if too_long:
            self.end(name, "out_of_pages")
            if not self.is_wrong("not-listed"):
                self.outgrown.append(name)

    def serve(self, name: str, rows: list[list[Any]]) -> bool:
        """Get somebody the pages for all tokens.  True if anybody gave way for it."""
        job = self.jobs[name]
        if job.stands == "waiting" and self.is_wrong("runs-preempted"):
            raise Crash("ValueError", says="slot 0")
        anybody = False
        while job.stands == "running":
            if self.reserves(job):
                rows.append(self.row(name))
                break
            if self.is_wrong("ignores-the-answer"):
                rows.append(self.row(name))
                break
            anybody = True
            victim, alone = self.victim(name), len(self.running) == 1
            if victim == name and (self.is_wrong("ends-the-newest") or (alone and self.is_wrong("in-vain"))):
                self.end(name, "out_of_pages")
                self.outgrown.append(name)
                break
            if self.is_wrong("runs-preempted:raises"):
                raise Crash("ValueError", says="slot 0")
            if victim == name and self.is_wrong("sits-there"):
                break
            self.give_way(victim)
            if victim == name and self.is_wrong("runs-preempted:self"):
                rows.append(self.row(name))
            if self.is_wrong("one-victim") and job.stands == "running":
                break
            if self.is_wrong("one-victim:no-retry") and job.stands == "running":
                rows.append(self.row(name))
                break
        return anybody

    def victim(self, name: str) -> str:
        if self.is_wrong("oldest-gives-way"):
            return self.running[0]
        if self.is_wrong("gives-way-itself"):
            return name
        if self.is_wrong("never-itself") and len(self.running) > 1:
            return [other for other in self.running if other != name][-1]
        return self.running[-1]

    def reserves(self, job: Job) -> bool:
        tokens, full = job.tokens, job.tokens % self.size == 0
        if tokens > self.longest and len(self.running) == 1 and self.is_wrong("self-preempt:for-ever"):
            raise Endless
        if tokens > self.longest and len(self.running) == 1 and self.is_wrong("self-preempt:raises-alone"):
            raise Crash("ValueError", "AssertionError", "RuntimeError", "MemoryError", "IndexError")
        if tokens > self.longest and self.is_wrong("self-preempt:raises-late"):
            raise Crash("ValueError", "AssertionError", "RuntimeError", "MemoryError", "IndexError")
        asks = ("asks-first", "for-ever", "raises-alone")
        if tokens > self.longest and self.is_wrong("in-vain", *(f"self-preempt:{way}" for way in asks)):
            return False
        if self.is_wrong("wrong-edge"):
            tokens = job.tokens - 1
        if self.is_wrong("wrong-edge:old-if-full") and not full:
            return True
        if self.is_wrong("wrong-edge:next"):
            tokens = job.tokens + 1
        if self.is_wrong("wrong-edge:next-if-full"):
            if not full:
                return True
            tokens = job.tokens + 1
        if self.is_wrong("pages-of-one") and job.tokens % self.size != 1:
            return True
        return self.hold(job.slot, tokens)

    def row(self, name: str) -> list[Any]:
        tokens = self.jobs[name].tokens
        rows = {
            "row-beside": [name, tokens, 1],
            "row-beside:prompt": [name, 0, tokens],
            "row-beside:output": [name, self.jobs[name].made - 1, 1],
            "row-beside:long": [name, tokens - 1, tokens],
        }
        return rows.get(self.wrong, [name, tokens - 1, 1])

    # ------------------------------------------------------------------------ 5.9

    def step(self) -> list[list[Any]]:
        for _round in range(100):
            if not self.running and not self.waiting and not self.is_wrong("no-way-out"):
                return []
            rows = self.choose()
            if rows or self.is_wrong("empty-step"):
                return rows
        raise Endless

    def choose(self) -> list[list[Any]]:
        takes = self.admissible()
        if self.is_wrong("counts-too-soon") and takes:
            self.kept += 1
        go = bool(takes) if self.is_wrong("prefill-always") else self.worth(len(takes))
        if self.is_wrong("static-batch"):
            go = bool(takes) and not self.running
        if not self.is_wrong("prefill-always:unset"):
            self.last_was_prefill = go
        if go:
            if not self.is_wrong("never-starts-anew"):
                self.kept = 0
            if self.is_wrong("mixed-step:first"):
                return [*self.grow(), *self.admit(takes)]
            rows = self.admit(takes)
            return [*rows, *self.grow()] if self.is_wrong("mixed-step") else rows
        self.count(takes)
        return self.grow()

    def count(self, takes: list[str]) -> None:
        waits = self.waiting if "counts the queue" in self.reading else takes
        if self.is_wrong("never-counts", "counts-too-soon"):
            return
        if waits or self.is_wrong("counts-alone") or ("counts since" in self.reading and self.kept):
            self.kept += 1
        elif "counts on" not in self.reading:
            self.kept = 0


def setting(
    running: Iterable[Iterable[int]] = (),
    waiting: Iterable[Iterable[int]] = (),
    *,
    pool: int = 8,
    size: int = 4,
    slots: int = 4,
    row: int | None = None,
    budget: int = 64,
    min_prefill: int = 1,
    patience: int = 16,
    **more: Any,
) -> Case:
    """A case: sizes, and (prompt, made) of everyone."""
    return {
        "running": [list(one) for one in running],
        "waiting": [list(one) for one in waiting],
        "pool": pool,
        "size": size,
        "slots": slots,
        "row": row,
        "budget": budget,
        "min_prefill": min_prefill,
        "patience": patience,
        **more,
    }


def jobs_of(case: Case, stands: str) -> dict[str, list[int]]:
    """(prompt, made) by name."""
    everyone = dict(zip(NAMES, [*case["running"], *case["waiting"]], strict=False))
    split = len(case["running"])
    return dict(list(everyone.items())[:split] if stands == "running" else list(everyone.items())[split:])


# ================================================================================================ words and pictures


def plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def say_tokens(prompt: int, made: int) -> str:
    """3+2: three of the prompt, two generated."""
    return f"{prompt}+{made}" if made else str(prompt)


def say_jobs(case: Case, stands: str) -> str:
    said = [f"{name} ({say_tokens(*job)})" for name, job in jobs_of(case, stands).items()]
    return f"{stands} {', '.join(said)}" if said else f"nobody {stands}"


def say_pool(case: Case) -> str:
    row = "" if case["row"] is None else f", at most {plural(pages_for(case['row'], case['size']), 'page')} a sequence"
    return f"pool of {plural(case['pool'], 'page')}, {plural(case['size'], 'token')} each{row}"


def say_everyone(case: Case) -> str:
    """Numbers in brackets are tokens, prompt + generated."""
    return f"{say_pool(case)}; {say_jobs(case, 'running')}; {say_jobs(case, 'waiting')}"


def boxes(pages: int) -> str:
    return "·" if not pages else "■" * pages if pages <= 6 else f"■x{pages}"


def say_row(row: list[Any]) -> str:
    start, n = row[1], row[2]
    return f"token {start}" if n == 1 else f"{start}…{start + n - 1}"


def draw_board(_case: Case, answer: Answer) -> str:
    """Everybody in a line, then the queues and what is free."""
    if is_raised(answer) or "jobs" not in answer:
        return draw_plain(_case, answer)
    rows = answer.get("rows")
    lines = ["   stands   tokens slot pages" + ("   row" if rows is not None else "")]
    for name, job in answer["jobs"].items():
        slot = "?" if job["slot"] < 0 else job["slot"] or "·"
        line = f"{name}  {job['stands']:<9}{say_tokens(job['prompt'], job['made']):<7}{slot:<5}{boxes(job['pages']):<7}"
        own = [say_row(row) for row in rows or [] if row[0] == name]
        lines.append((line + " ".join(own)).rstrip())
    if "refused" in answer:
        lines.append("refused  " + ("yes: ValueError" if answer["refused"] else "no"))
    lines.append("running  " + (" ".join(answer["running"]) or "·"))
    lines.append("waiting  " + (" ".join(answer["waiting"]) or "·"))
    lines.append(f"free     {plural(answer['free_pages'], 'page')}, {plural(answer['free_slots'], 'slot')}")
    if ended := [f"{name}: {job['why']}" for name, job in answer["jobs"].items() if job["why"]]:
        lines.append("reason   " + ", ".join(ended))
    if answer["outgrown"]:
        lines.append("outgrown " + " ".join(answer["outgrown"]))
    counts = [f"{name} {job['gave_way']}" for name, job in answer["jobs"].items() if job["gave_way"]]
    if counts or answer["gave_way"]:
        lines.append(", ".join([f"preempted {answer['gave_way']} in all", *counts]))
    return "\n".join(lines)


# ================================================================================================ writing a grader


def ask(
    exercise: Exercise,
    name: str,
    right: Callable[[Case], Answer],
    cases: Iterable[Case],
    describe: Callable[[Case], str],
    draw: Callable[[Case, Answer], str],
    marks: bool = True,
    **more: Any,
) -> Check:
    """A check: the drive's function `name`, put to `cases`.  With `marks` the lines of a picture that differ are marked."""

    def expected(case: Case) -> Answer:
        return right(case)

    expected.__name__ = name
    return exercise.check(cases=list(cases), describe=describe, draw=marked(draw, right) if marks else draw, **more)(
        expected
    )


def marked(draw: Callable[[Case, Answer], str], right: Callable[[Case], Answer]) -> Callable[[Case, Answer], str]:
    """A picture in which the lines that differ from the right one are marked."""

    def drawn(case: Case, answer: Answer) -> str:
        if answer == {"endless": True}:
            return "it does not come to an end:\nis there a loop whose\ncondition never changes?"
        lines, expected = draw(case, answer).splitlines(), draw(case, plain(right(case))).splitlines()
        if len(lines) < 2:
            return "\n".join(lines)
        return "\n".join(line if line in expected else f"{line} ◄" for line in lines)

    return drawn


def known(exercise: Exercise, play: Callable[[Case, str], Answer], mistakes: dict[str, tuple[str, str, str]]) -> None:
    """Mistakes that `play` can make, with their hints.

    "slug: a b" is a mistake that `play` makes in three ways, called "slug", "slug:a" and "slug:b".
    """
    for key, hints in mistakes.items():
        slug, _, ways = key.partition(":")
        exercise.mistake(slug, *hints)
        for wrong in [slug, *(f"{slug}:{way}" for way in ways.split())]:
            for check in exercise.checks:
                check.predicts(slug)(_foretold(play, wrong))


def _foretold(play: Callable[[Case, str], Answer], wrong: str) -> Callable[[Case], Answer]:
    return lambda case: foreseen(lambda: play(case, wrong))


def small_first(cases: Iterable[Case]) -> list[Case]:
    """Few sequences before many, few tokens before many."""

    def size(case: Case) -> tuple[int, int]:
        everyone = [*case["running"], *case["waiting"]]
        return len(everyone), sum(prompt + made for prompt, made in everyone)

    return sorted(cases, key=size)


# ================================================================================================ 5.1

check_done = Exercise(
    "5.1",
    section="When a sequence ends",
    hints=(
        "Take the case by hand: which token is the newest, and which of the rules in the docstring is the "
        "first that holds?",
        "Compare your conditions with the docstring one by one: what each counts, whose limit it is, and which "
        "comes first.",
        "First the rules about the newest token, then the two about length, and None where none of them holds.",
    ),
)


def ending(
    prompt: list[int],
    output: list[int],
    *,
    new: int = 64,
    longest: int = 99,
    eos: Iterable[int] = (),
    stop: Iterable[Any] = (),
    ignore_eos: bool = False,
) -> Case:
    return {
        "prompt": prompt,
        "output": output,
        "new": new,
        "longest": longest,
        "eos": list(eos),
        "stop": list(stop),
        "ignore_eos": ignore_eos,
    }


def say_ending(case: Case) -> str:
    said = [f"prompt {case['prompt']}, output {case['output']}"]
    said += [f"eos_token_ids {set(case['eos'])}"] if case["eos"] else []
    said += [f"stop {tuple(case['stop'])}"] if case["stop"] else []
    said += ["ignore_eos"] if case["ignore_eos"] else []
    said += [f"max_new_tokens {case['new']}"] if case["new"] < 64 else []
    said += [f"max_length {case['longest']}"] if case["longest"] < 99 else []
    return "; ".join(said)


def draw_ending(case: Case, answer: Answer) -> str:
    if answer is None:
        return "None: it goes on"
    return f'"{answer}": it ends' if isinstance(answer, str) else draw_plain(case, answer)


def why(case: Case, wrong: str = "") -> Answer:
    """Why it ends: the first in a list of rules that holds."""
    prompt, output, eos, stop = case["prompt"], case["output"], case["eos"], case["stop"]
    newest = (prompt + output)[-1:] if wrong == "empty-output:prompt" else output[-1:]
    if wrong == "any-token":
        newest = output
    if wrong == "any-token:prompt" and output:
        newest = prompt + output
    if wrong == "any-token:first":
        newest = output[:1]
    if not output and wrong == "empty-output":
        raise Crash("IndexError")
    if not output and wrong not in ("empty-output:room", "empty-output:prompt"):
        return None
    counted = prompt + output if wrong == "counts-prompt" else output
    whole = output if wrong == "max-length" else prompt + output
    if wrong.startswith("one-eos"):
        eos = {"one-eos": eos[:1], "one-eos:last": eos[-1:]}.get(wrong, [])
    ignores = case["ignore_eos"] and wrong != "never-ignores"
    ids: list[Any] = [] if wrong == "no-stop-ids" else stop
    over = {"one-more": (1, 1), "one-more:new": (1, 0), "max-length:equal": (0, 1)}.get(wrong, (0, 0))
    rules = [
        ("stop", any(token in ids for token in newest) and not (ignores and wrong == "ignores-too-much")),
        ("stop", any(token in eos for token in newest) and not ignores),
        ("length", len(counted) >= case["new"] + over[0]),
        ("length", len(whole) >= case["longest"] + over[1]),
    ]
    if wrong == "length-first":
        rules = rules[2:] + rules[:2]
    return next((reason for reason, holds in rules if holds), None)


def some_counts() -> Iterator[Case]:
    for new, prompt in itertools.product((1, 2, 3, 4), ([5], [5, 6], [5, 6, 5])):
        for made in range(1, new + 1):
            yield ending(prompt, [7, 8, 9, 7][:made], new=new)


def some_rooms() -> Iterator[Case]:
    for longest, prompt in itertools.product((2, 3, 4, 6), ([5], [5, 6], [5, 6, 5])):
        for made in range(1, longest - len(prompt) + 1):
            yield ending(prompt, [7, 8, 9, 7, 8][:made], longest=longest)


def some_tokens() -> Iterator[Case]:
    for output in ([7], [1], [106], [7, 1], [7, 106], [1, 7], [106, 7], [7, 1, 8], [7, 8, 106]):
        yield ending([5], output, eos=[1, 106])
        yield ending([5], output, stop=[106])
        yield ending([5, 1, 106], output, eos=[1], stop=[8, "7"])
        yield ending([5], output)


def some_pairs() -> Iterator[Case]:
    for output, ignore in itertools.product(([1], [8], [7, 1], [7, 8], [1, 7]), (False, True)):
        yield ending([5], output, eos=[1], stop=[8], ignore_eos=ignore)
        yield ending([5], output, eos=[1], stop=[1], ignore_eos=ignore)
        yield ending([5], output, eos=[1], stop=[8], ignore_eos=ignore, new=len(output))
        yield ending([5], output, eos=[1], ignore_eos=ignore, longest=1 + len(output))


def nothing_made() -> Iterator[Case]:
    yield ending([5], [])
    yield ending([5, 1], [], eos=[1])
    yield ending([5, 8], [], stop=[8])
    yield ending([5, 6], [], longest=2)
    yield ending([5, 6, 1], [], eos=[1], longest=2)
    yield ending([5, 6], [], new=1)


for _name, _cases in {
    "by_count": some_counts,
    "by_room": some_rooms,
    "by_token": some_tokens,
    "first_rule": some_pairs,
    "before_the_first": nothing_made,
}.items():
    ask(check_done, _name, why, _cases(), say_ending, draw=draw_ending)

known(
    check_done,
    why,
    {
        "one-more: new": (
            "Count on your fingers: which limit is reached here, and does the token that reaches it get a successor?",
            "Look at the comparison with `max_new_tokens`: it must be there, hold alone, and be true as soon "
            "as the count "
            "is equal to it.",
            'Answer "length" when the tokens are as many as the limit, or more; not only when they are more.',
        ),
        "counts-prompt": (
            "max_new_tokens says *new*. Which tokens of this sequence are new?",
            "Look at what you compare with `max_new_tokens`: `len(sequence)` counts the prompt too.",
            "Compare `max_new_tokens` with the number of generated tokens alone.",
        ),
        "max-length: equal": (
            "How many tokens does the sequence have now, prompt included, and how many may it have?",
            "Look at the comparison with `max_length`: it must be there, count prompt and output together, and "
            "be true as soon as "
            "the count is equal to the limit.",
            'Answer "length" also when prompt and output together have reached `max_length`.',
        ),
        "any-token: prompt first": (
            "The sequence was asked after each of its tokens already. Which one has not been judged yet?",
            "Look at which tokens you search for an end: only the newest can end the sequence now.",
            "Test the last generated token alone, not all of them and not the first.",
        ),
        "one-eos: last none": (
            "A model may have several tokens that end a text. How many are in `eos_token_ids`, and is the "
            "newest token one of "
            "them?",
            "Look at how you use `eos_token_ids`: one of its elements was picked, or none.",
            "Ask whether the newest token is in the set, whichever of its elements it is.",
        ),
        "no-stop-ids": (
            "The caller may name tokens to stop at, besides those of the model. Where do you look for those?",
            "`params.stop_token_ids` has the ids; your conditions never reach it.",
            'Answer "stop" also if the newest token is one of `params.stop_token_ids`.',
        ),
        "ignores-too-much": (
            "`ignore_eos` speaks of the model's own end tokens. Does it also speak of those that the caller asked for?",
            "Look at what your test of `ignore_eos` encloses: `stop_token_ids` count always.",
            "Let `ignore_eos` switch off `eos_token_ids` alone.",
        ),
        "never-ignores": (
            "This request wants to go on after the end token. Which of its parameters says so?",
            "Look at the test of `eos_token_ids`: `params.ignore_eos` has no part in it.",
            "Let the model's end tokens count only if `ignore_eos` is off.",
        ),
        "length-first": (
            "Two rules hold here at once. Which of them does the docstring name first?",
            'Look at the order of your tests: a text that came to its end was not cut, so "stop" comes before '
            '"length".',
            "Test the newest token first, the limits after it.",
        ),
        "empty-output: room prompt": (
            "Nothing has been generated here. Which token is the newest then, and can a prompt end itself?",
            "Look at the first line of your code that needs a generated token, and at the limits: before the "
            "first token "
            "neither may answer.",
            "Answer None first of all if there is no generated token.",
        ),
    },
)

# ================================================================================================ 5.2

add = Exercise(
    "5.2",
    section="The queue",
    hints=(
        "Compare the tokens of the newcomer with those that the longest sequence may have. Can it ever run, "
        "and where in "
        "the queue does it stand?",
        "Look at both halves: the question whether it can run with all pages to itself (`longest`), and its "
        "place behind "
        "those who wait.",
        "Raise ValueError before anything changes if it has more tokens than `longest`; else put it at the end "
        "of `waiting`.",
    ),
)


def say_added(case: Case) -> str:
    name = NAMES[len(case["running"]) + len(case["waiting"])]
    return (
        f"{say_everyone(case)}; max_prefill_tokens {case['budget']}; "
        f"add({name}), which has {say_tokens(*case['new'])} tokens and max_new_tokens 8"
    )


def after_adding(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    prompt, made = case["new"]
    refused = world.add(world.newcomer(prompt, made, at_most=8))
    return {"refused": refused, **world.board()}


def lone_newcomers() -> Iterator[Case]:
    for queue in ([], [[2, 0]], [[9, 0], [2, 0]], [[3, 0], [9, 0], [3, 0]]):
        for tokens in (1, 4, 9, 12):
            yield setting([], queue, pool=8, slots=2, new=[tokens, 0])


def lengths_at_the_edge() -> Iterator[Case]:
    for pool, row in ((1, None), (3, None), (3, 8), (3, 7), (3, 16), (5, 4)):
        edge = 4 * min(pool, 99 if row is None else pages_for(row, 4))
        for tokens, queue in itertools.product((1, edge - 1, edge, edge + 1, 4 * pool, 4 * pool + 1), ([], [[2, 0]])):
            yield setting([], queue, pool=pool, row=row, new=[tokens, 0])


def busy_pools() -> Iterator[Case]:
    for running, tokens in itertools.product(([[8, 1]], [[4, 1], [4, 1]], [[8, 1], [4, 1]]), (4, 5, 9, 12, 13)):
        yield setting(running, pool=3, slots=len(running), new=[tokens, 0])
        yield setting(running, pool=3, budget=4, new=[tokens, 0])
        yield setting([], [[12, 0]], pool=3, budget=4, slots=1, new=[tokens, 0])
    for prompt, made in ((3, 2), (8, 4), (8, 5), (12, 1), (4, 9)):
        yield setting(pool=3, new=[prompt, made])


for _name, _cases in {
    "queued": lone_newcomers,
    "refused": lengths_at_the_edge,
    "not_refused_for_now": busy_pools,
}.items():
    ask(add, _name, after_adding, _cases(), say_added, draw=draw_board)

known(
    add,
    after_adding,
    {
        "never-fits": (
            "When will this sequence run: later, or never? And those behind it?",
            "Nothing in your code asks how many tokens a sequence may have at most; `longest` knows.",
            "Raise ValueError if it has more tokens than `longest`, before it is queued.",
        ),
        "says-nothing": (
            "It was not queued. How does the caller learn that no answer will ever come?",
            "Look at what happens to a sequence that is too long: it is left out, and nobody is told.",
            "Raise ValueError for it.",
        ),
        "queued-all-the-same": (
            "It was refused. Why does it still stand in the queue?",
            "Look at the order of your lines: what is done before the ValueError stays done.",
            "Judge first, queue afterwards.",
        ),
        "exact-fit": (
            "`longest` is what the longest sequence *has*. Does a sequence of just that many tokens fit?",
            "Look at the comparison with `longest`: what does it say of equal numbers?",
            "Refuse only what has more tokens than `longest`.",
        ),
        "pool-not-row": (
            "Can one sequence have all pages of this pool?",
            "Look at what you compare with: a row of the page table may be shorter than the pool, and "
            "`longest` minds that.",
            "Compare with `longest` instead of counting the pool's pages yourself.",
        ),
        "refuses-for-now: budget slots": (
            "Is there no room for it ever, or only no room now?",
            "Look at what your refusal depends on: free pages, free slots and the size of a prefill all allow "
            "it to run later.",
            "Refuse only what would not fit if it had the whole page table to itself.",
        ),
        "counts-the-future": (
            "Does everyone generate as much as they may?",
            "Look at what you compare with `longest`: `max_new_tokens` is a limit, and most texts end before it.",
            "Compare only the tokens that the sequence has now.",
        ),
        "forgets-output": (
            "This sequence has generated tokens already. How many must be computed before it can go on?",
            "Look at which tokens you count: `len(sequence)` counts prompt and output.",
            "Compare all its tokens with `longest`, not the prompt's alone.",
        ),
        "jumps-the-queue: short": (
            "Who came first?",
            "Look at the end of `waiting` at which the newcomer is put; the head is served first.",
            "Put it behind everyone who waits.",
        ),
    },
)

# ================================================================================================ 5.3

admissible = Exercise(
    "5.3",
    section="Who may go",
    hints=(
        "Go through the queue by hand: after each sequence, which slots, pages and tokens are used up, and who "
        "is the first "
        "that finds too few of one?",
        "Compare your three conditions with the docstring: each speaks of all the chosen together, the pages "
        "are counted "
        "for each sequence, and the first that does not fit ends the choice.",
        "For each from the head on, add its tokens and its pages to those of the chosen before it, and stop at "
        "the first "
        "that exceeds the free slots, the free pages, or (unless it is the first) the tokens of a prefill.",
    ),
)


def free_now(case: Case) -> tuple[int, int]:
    world = World(case)
    return world.free, world.free_slots


def say_queue(case: Case) -> str:
    pages, slots = free_now(case)
    return (
        f"free: {plural(slots, 'slot')}, {plural(pages, 'page')} of {case['size']} tokens; "
        f"max_prefill_tokens {case['budget']}; {say_jobs(case, 'waiting')}"
    )


def draw_queue(case: Case, answer: Answer) -> str:
    """The queue with what each needs; who goes, and what they need together."""
    if not isinstance(answer, list):
        return draw_plain(case, answer)
    lines, total, pages = ["     tokens  pages"], 0, 0
    queue = jobs_of(case, "waiting")
    for name, (prompt, made) in queue.items():
        needs = pages_for(prompt + made, case["size"])
        lines.append(f"{name}    {say_tokens(prompt, made):<8}{needs:<7}{'goes' if name in answer else '·'}")
        if name in answer:
            total, pages = total + prompt + made, pages + needs
    lines += [f"sum  {total:<8}{pages}", f"may  {case['budget']:<8}{free_now(case)[0]}"]
    if answer != [name for name in queue if name in answer]:
        lines.append("in this order: " + " ".join(answer))
    return "\n".join(lines)


def who_may_go(case: Case, wrong: str = "") -> Answer:
    return World(case, wrong).admissible()


def after_asking(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    world.take_out(World(case).admissible())
    return world.board()


def queues(*lengths: int, most: int = 3) -> Iterator[list[list[int]]]:
    """All queues of at most so many, of these lengths."""
    for count in range(most + 1):
        yield from ([[tokens, 0] for tokens in queue] for queue in itertools.product(lengths, repeat=count))


def slot_cases() -> Iterator[Case]:
    for queue, running, slots in itertools.product(queues(2), ([], [[3, 1]], [[3, 1], [3, 1]]), (1, 2, 3, 4)):
        if len(running) <= slots:
            yield setting(running, queue, slots=slots, pool=12)


def token_cases() -> Iterator[Case]:
    for queue in queues(2, 4, 5):
        yield setting([], queue, budget=8, pool=12)
        yield setting([[3, 1]], queue, budget=9, pool=12)


def page_cases() -> Iterator[Case]:
    for queue, pool in itertools.product(queues(1, 4, 5), (2, 3, 4)):
        yield setting([], queue, pool=pool)
        yield setting([[4, 1]], queue, pool=pool)


def long_cases() -> Iterator[Case]:
    for queue in queues(2, 6, 9):
        yield setting([], queue, budget=8, pool=20)


def blocked_cases() -> Iterator[Case]:
    for queue in queues(2, 9, most=4):
        yield setting([], queue, budget=10, pool=20)
        yield setting([], queue, pool=2)
        yield setting([[3, 1]], queue, pool=4)


def resumed_cases() -> Iterator[Case]:
    jobs = ([2, 2], [3, 2], [4, 0], [4, 1])
    for queue in itertools.chain.from_iterable(itertools.product(jobs, repeat=count) for count in (1, 2, 3)):
        yield setting([], queue, budget=9, pool=20)
        yield setting([], queue, pool=3)


def queue_search() -> Any:
    """Any small state of the scheduler before it chooses."""
    job = st.tuples(st.integers(1, 12), st.integers(0, 4))
    return st.builds(
        lambda waiting, running, extra, slots, budget: setting(
            [[prompt, made + 1] for prompt, made in running],
            waiting,
            pool=sum(pages_for(prompt + made, 4) for prompt, made in running) + extra,
            row=16,
            slots=max(1, len(running) + slots),
            budget=budget,
        ),
        st.lists(job, max_size=5),
        st.lists(job, max_size=2),
        st.integers(4, 12),
        st.integers(0, 4),
        st.integers(1, 30),
    )


for _name, _cases in {
    "by_slots": slot_cases,
    "by_tokens": token_cases,
    "by_pages": page_cases,
    "long_ones": long_cases,
    "in_order": blocked_cases,
    "resumed_ones": resumed_cases,
}.items():
    ask(admissible, _name, who_may_go, small_first(_cases()), say_queue, draw=draw_queue)
ask(admissible, "any_queue", who_may_go, [], say_queue, draw=draw_queue, search=queue_search())

known(
    admissible,
    who_may_go,
    {
        "strict-budget: first": (
            "The sum is exactly the limit. Is the limit allowed?",
            "Look at the comparison with `max_prefill_tokens`: 'at most 8' includes 8.",
            "Stop only when the tokens together are more than `max_prefill_tokens`.",
        ),
        "no-budget": (
            "How many tokens may one prefill have, and how many has this one?",
            "Nothing in your choice asks for `max_prefill_tokens`.",
            "Stop before the tokens of all the chosen together are more than `max_prefill_tokens`.",
        ),
        "budget-overshot: full": (
            "Add up the tokens of those who go. When does your code find out that there are too many?",
            "Look at what the comparison with `max_prefill_tokens` counts: those chosen before, or the next "
            "one as well?",
            "Count the next one in before you compare; if the sum is too large, it stays.",
        ),
        "tokens-not-pages: sum down": (
            "Can two sequences share a page? Count the pages of each, and then the sum.",
            "Look at how tokens become pages: each sequence ends in a page of its own, however empty, and a "
            "full one needs no more.",
            "Ask `pages_missing(0, n)` for each sequence, and compare the sum with `pages_available`.",
        ),
        "one-page-more": (
            "How many pages do the tokens of the first that stays need, and how many did your code count for them?",
            "Look at how you count pages, with 3, 4 and 5 tokens: a full page needs no other, and the place of "
            "the token to come "
            "is not asked for here.",
            "Count `pages_missing(0, n)` for the n tokens of a sequence, and nothing on top.",
        ),
        "strict-pages": (
            "After this choice no page would be left. What is wrong with that?",
            "Look at the comparison with `pages_available`: all of them may be taken.",
            "Stop only when more pages are needed than are available.",
        ),
        "no-pages-asked": (
            "Where do the pages of those who go come from: how many are free, and how many do they need?",
            "Nothing in your choice asks for `pages_available`, or it counts pages that somebody else has.",
            "Stop before the pages of all the chosen together are more than are available now.",
        ),
        "whole-pool": (
            "Some of the pages belong to those who run. How many are free?",
            "Look at the number of pages that you compare with: `n_pages` is the whole pool.",
            "Compare with the pages that nobody owns, `pages_available`.",
        ),
        "forgets-the-others: pages budget long": (
            "Each of them fits alone. Do they fit together?",
            "Look at what you compare with the limit: one sequence, or the sum of all that are chosen so far?",
            "Keep running sums of tokens and of pages over the chosen, and compare these.",
        ),
        "no-slot-left: all one-more": (
            "How many slots are free, and how many do those who go need?",
            "Look at the comparison with the slots: those that the running ones have are not free, and none "
            "may be missing.",
            "Stop when as many are chosen as there are free slots.",
        ),
        "long-starves": (
            "This prompt alone is longer than `max_prefill_tokens`. When will it ever go?",
            "Look at the budget for the first in the queue: the docstring makes an exception for it.",
            "Do not compare with `max_prefill_tokens` as long as nobody is chosen.",
        ),
        "long-not-alone: no-limit each": (
            "The first has used up the whole budget by itself. What is left for the others?",
            "Look at the exception for a long first prompt: it goes, and its tokens count like all others.",
            "After the first, compare the sum of all the chosen, the long one included, with `max_prefill_tokens`.",
        ),
        "skips-ahead: budget pages": (
            "Somebody does not fit, and one behind goes. How long may the one in front have to wait?",
            "Look at what happens with a sequence that does not fit: does the search go on to the next?",
            "End the choice at the first that does not fit.",
        ),
        "forgets-output: budget pages": (
            "A sequence of 3+2 tokens was preempted. The keys and values of how many tokens are gone?",
            "Look at what you count for tokens and for pages: `len(sequence)` is prompt and output.",
            "Count all tokens of a sequence, both against the budget and for its pages.",
        ),
    },
)
admissible.mistake(
    "takes-them-out",
    "You were asked who could go. Who has gone?",
    "Look at what your code does to `waiting`, slots and pages: `next_step` may still decide for the running ones.",
    "Read the queue from its head without taking anything out; `admit` does that.",
)


@admissible.check(
    cases=[
        setting([], [[4, 0]]),
        setting([], [[4, 0], [5, 0]]),
        setting([[3, 1]], [[4, 0], [5, 0], [9, 2]], pool=6),
        setting([], [[9, 0], [9, 0], [2, 0]], budget=8, pool=5),
        setting([[3, 1]], [[2, 0], [2, 0]], slots=1),
        setting([[3, 1]], []),
    ],
    describe=lambda case: f"how everyone stands after admissible(): {say_queue(case)}",
    draw=marked(draw_board, after_asking),
)
def nothing_changes(case: Case) -> Answer:
    return after_asking(case)


for _wrong in ("takes-them-out", "takes-them-out:and-one", "takes-them-out:admits"):
    nothing_changes.predicts("takes-them-out")(_foretold(after_asking, _wrong))

# ================================================================================================ 5.4

worth_prefilling = Exercise(
    "5.4",
    section="When a prefill is worth it",
    hints=(
        "Say the docstring's sentence with the numbers of this case. Which of its parts hold?",
        "Compare your condition with the sentence: which parts are joined by *and*, which by *or*, and what "
        "encloses what?",
        "No candidates: no. Nobody runs: yes. Else only if the step before was not a prefill, and the "
        "candidates are many "
        "enough or have waited long enough.",
    ),
)


def say_worth(case: Case) -> str:
    before = "a prefill" if case["prefilled_last"] else "a decode"
    names = list(jobs_of(case, "waiting"))
    return (
        f"{len(case['running']) or 'nobody'} running, candidates {' '.join(names) or '(none)'}; the step before "
        f"was {before}; "
        f"kept waiting for {plural(case['kept_waiting'], 'step')}; min_prefill {case['min_prefill']}, patience "
        f"{case['patience']}"
    )


def draw_worth(case: Case, answer: Answer) -> str:
    if not isinstance(answer, bool):
        return draw_plain(case, answer)
    return "True: prefill now" if answer else "False: no prefill"


def is_worth(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    world.last_was_prefill, world.kept = case["prefilled_last"], case["kept_waiting"]
    return world.worth(len(case["waiting"]))


def worth_cases(running: Iterable[int], candidates: Iterable[int], before: Iterable[bool]) -> list[Case]:
    """All combinations, with a `patience` of 3 and everything around it."""
    return [
        setting(
            [[1, 1]] * run,
            [[1, 0]] * come,
            slots=8,
            pool=12,
            min_prefill=least,
            patience=3,
            kept_waiting=kept,
            prefilled_last=last,
        )
        for come, run, last, least, kept in itertools.product(candidates, running, before, (1, 2, 3), (0, 2, 3, 4))
    ]


for _name, _combinations in {
    "nobody_to_choose": worth_cases([0], [0, 1, 2], [False, True]) + worth_cases([1, 2], [0], [False, True]),
    "due": worth_cases([1, 2], [1, 2, 3, 4], [False]),
    "after_a_prefill": worth_cases([1, 2], [1, 2, 3, 4], [True]),
}.items():
    ask(worth_prefilling, _name, is_worth, _combinations, say_worth, draw=draw_worth)

known(
    worth_prefilling,
    is_worth,
    {
        "prefill-always: due": (
            "Let one newcomer arrive in every step. How many tokens do those who run get?",
            "Look at what holds a prefill back while somebody runs: how many candidates there are, how long "
            "they have waited, "
            "and whether the step before was a prefill.",
            "While somebody runs, say yes only if the step before was not a prefill, and there are enough "
            "candidates or they "
            "have been kept waiting long enough.",
        ),
        "patience-first: enough": (
            "The step before was a prefill. Is there any reason that lets another follow at once while somebody runs?",
            "Look at which reasons your test of `prefilled_last` encloses: *and* binds more tightly than *or*.",
            "Require for both reasons, enough candidates and enough waiting, that the step before was not a prefill.",
        ),
        "idle-waits: after due": (
            "Nobody runs. Whom would a prefill hold up?",
            "Look at what you ask before you ask whether anybody runs: with nobody running the other "
            "conditions do not count.",
            "If there are candidates and nobody runs, say yes at once.",
        ),
        "nobody-there: due": (
            "There are no candidates. What would this prefill compute?",
            "Look at the case of an empty list: no other condition can make up for it.",
            "Say no first of all if there are no candidates.",
        ),
        "static-batch": (
            "When may a newcomer join those who run: only when all of them have ended?",
            "Look at what your code does while somebody runs: `min_prefill` and `patience` are made for that.",
            "Say yes also while somebody runs, if the candidates are due and the step before was not a prefill.",
        ),
        "needs-both": (
            "Many candidates, or long waiting: does a prefill need both?",
            "Look at the word between the two conditions: with too few newcomers, nobody would ever be due by waiting.",
            "One of the two is enough.",
        ),
        "waits-for-ever": (
            "A single candidate, and no other will ever come. What ends its waiting?",
            "Look for `steps_kept_waiting` and `patience` in your condition.",
            "Let the candidates be due also when they have been kept waiting for `patience` steps.",
        ),
        "never-enough": (
            "How many candidates make a prefill worth while? How many are there?",
            "Look for `min_prefill` in your condition.",
            "Let the candidates be due also when there are at least `min_prefill` of them.",
        ),
        "one-candidate-more": (
            "There are exactly `min_prefill` candidates. Is that enough?",
            "Look at the comparison with `min_prefill`: 'at least' includes the number itself.",
            "Let as many candidates as `min_prefill` be enough.",
        ),
        "one-step-more": (
            "They have been kept waiting for exactly `patience` steps. Is one more needed?",
            "Look at the comparison with `patience`: is it true when the numbers are equal?",
            "Let the candidates be due as soon as `steps_kept_waiting` has reached `patience`.",
        ),
        "upside-down": (
            "The step before was a prefill: is that a reason for the next, or against it?",
            "Look at the sign of `prefilled_last` in your condition.",
            "While somebody runs, let a prefill follow only a step that was none.",
        ),
    },
)

# ================================================================================================ 5.5

admit = Exercise(
    "5.5",
    section="Admission",
    hints=(
        "Compare the two tables line by line: what does each of the admitted have, where does it stand, and "
        "what is left?",
        "Five things change for each of the admitted: queue, slot, pages, status, place in `running`. And its "
        "row says which "
        "tokens are computed. Which of these differs?",
        "For each in turn: out of `waiting`, a slot of its own, pages for all its tokens, RUNNING, last in "
        "`running`, and a row "
        "from token 0 over all tokens.",
    ),
)


def say_admit(case: Case) -> str:
    admitted = " ".join(list(jobs_of(case, "waiting"))[: case["admit"]])
    return f"admit({admitted}): {say_everyone(case)}"


def after_admitting(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    rows = world.admit(world.waiting[: case["admit"]])
    return {"rows": sorted(rows, key=str), **world.board()}


def newcomer_cases() -> Iterator[Case]:
    for count, tokens, running in itertools.product((1, 2, 3), (3, 4, 5, 9), ([], [[3, 1]], [[5, 1], [3, 1]])):
        queue = [[tokens, 0], [4, 0], [2, 0]]
        for more in range(count, 4):
            yield setting(running, queue[:more], pool=12, slots=6, admit=count)
    yield setting([], [[8, 0]], pool=2, slots=1, admit=1)
    yield setting([], [[5, 0], [4, 0]], pool=3, slots=2, admit=2)


def returning_cases() -> Iterator[Case]:
    for first, running in itertools.product(([3, 2], [2, 2], [4, 1], [1, 8], [6, 1]), ([], [[3, 1]])):
        yield setting(running, [first], pool=12, admit=1)
        yield setting(running, [first, [4, 0], [2, 0]], pool=12, admit=2)


ask(admit, "newcomers", after_admitting, small_first(newcomer_cases()), say_admit, draw=draw_board)
ask(admit, "returning", after_admitting, small_first(returning_cases()), say_admit, draw=draw_board)

known(
    admit,
    after_admitting,
    {
        "forgets-output: row pages": (
            "It was preempted after it had generated tokens. The keys and values of which tokens are gone?",
            "Look at which tokens you reserve pages for, and which the row covers: the prompt is only a part of them.",
            "Reserve and compute all tokens, prompt and output: `len(sequence)`.",
        ),
        "no-pages": (
            "It has a slot. Where will its keys and values be written?",
            "A slot from `allocate` owns no pages yet.",
            "Reserve pages for all its tokens in its slot.",
        ),
        "room-for-more": (
            "How many tokens does the prefill write? And how many pages did `admissible` count?",
            "Look at the number of tokens you reserve: the place of the next token is `grow`'s business.",
            "Reserve for the tokens that it has, not for the one to come.",
        ),
        "stays-waiting": (
            "It runs now. Where else does it stand?",
            "Look at `waiting`: who is admitted would be admitted again in the next step.",
            "Take each of the admitted out of `waiting`.",
        ),
        "loses-the-rest": (
            "Some were not among the admitted. Where are they now?",
            "Look at how you empty `waiting`: only those who were given to `admit` leave it.",
            "Take out the admitted alone.",
        ),
        "admits-everyone": (
            "Whom were you asked to admit?",
            "Look at what your loop goes over: the argument, or the queue?",
            "Go over the sequences that were given.",
        ),
        "keeps-status": (
            "It has everything that it needs to run. What does its `status` say?",
            "Look at the fields of the sequence that change with admission.",
            "Set the status to RUNNING.",
        ),
        "not-in-running": (
            "It was computed in this step. Who will think of it in the next one?",
            "Look at `running`: `grow` serves only those who stand there.",
            "Put it at the end of `running`.",
        ),
        "head-of-running": (
            "Who among those who run was admitted longest ago?",
            "Look at the end of `running` at which the newcomer is put: the last one there gives way first.",
            "Put each at the end of `running`, in the order of the queue.",
        ),
        "no-slot: at-once": (
            "Which slot did `allocate` give, and how will the sequence know?",
            "Look at `sequence.slot` after your code: the number that came from `allocate` must stand there, "
            "before pages are "
            "reserved.",
            "Store the new slot in the sequence first, and reserve in that slot.",
        ),
        "one-slot": (
            "Whose keys are in this slot?",
            "Look at where `allocate` is called: once for all, or once for each?",
            "Allocate a slot for each sequence, inside the loop.",
        ),
        "decode-row: new last": (
            "None of its tokens has keys and values yet. Which of them must be computed?",
            "Look at `start` and `n_tokens` of the row: a prefill begins at token 0 and takes all, the "
            "generated ones too.",
            "Start at 0, with as many tokens as the sequence has.",
        ),
    },
)

# ================================================================================================ 5.6

preempt = Exercise(
    "5.6",
    section="Giving way",
    hints=(
        "Compare the two tables line by line: what does the preempted sequence hold, where does it stand, what "
        "is counted?",
        "It changes queues, gives back slot and pages, and is counted twice; its tokens stay. Which of these differs?",
        "Out of `running`; slot and pages back to the page table, then slot 0; WAITING; both counters up; head "
        "of the queue.",
    ),
)


def say_preempt(case: Case) -> str:
    return "; ".join([*(f"preempt({name})" for name in case["who"]), say_everyone(case)])


def after_giving_way(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    for name in case["who"]:
        world.give_way(name)
    return world.board()


def victims() -> Iterator[Case]:
    for running in ([[3, 1]], [[3, 2], [4, 1]], [[3, 1], [4, 3], [2, 1]], [[9, 1], [8, 1]]):
        for who, queue in itertools.product(NAMES[: len(running)][::-1], ([], [[2, 0]], [[2, 0], [3, 1]])):
            yield setting(running, queue, who=who)


def several_victims() -> Iterator[Case]:
    for who, queue in itertools.product(("CB", "CBA", "CAB"), ([], [[2, 0]])):
        yield setting([[3, 2], [4, 1], [6, 1]], queue, who=who)


ask(preempt, "preempted", after_giving_way, small_first(victims()), say_preempt, draw=draw_board)
ask(preempt, "preempted_one_by_one", after_giving_way, small_first(several_victims()), say_preempt, draw=draw_board)

known(
    preempt,
    after_giving_way,
    {
        "runs-preempted: listed again": (
            "It has no pages any more. In which lists does it stand?",
            "Look at `running`: whoever stands there is computed in the next decode, into pages that belong to "
            "somebody else.",
            "Take it out of `running`.",
        ),
        "takes-the-last": (
            "Who was to give way, and who left `running`?",
            "Look at how you take somebody out of `running`: the sequence that is given need not be the last.",
            "Remove the given sequence itself.",
        ),
        "back-of-the-queue": (
            "It came before all who wait now. Who should be served first?",
            "Look at the end of `waiting` at which it is put: its head is served first.",
            "Put it in front of everyone who waits.",
        ),
        "not-queued": (
            "It does not run any more. How does it come back?",
            "Look at `waiting`: a sequence in neither list is lost, and its caller waits for ever.",
            "Put it at the head of `waiting`.",
        ),
        "forgets-output": (
            "The pages are gone. Are the tokens gone too, which the caller may have read already?",
            "Look at what your code does to the tokens: only keys and values are lost, and those can be "
            "computed again.",
            "Leave prompt and output as they are.",
        ),
        "keeps-pages: slot-too": (
            "Somebody needed pages, and this one gave way. How many pages are free now?",
            "Look at what goes back to the page table, and when: after the slot's number is forgotten nobody "
            "can free it.",
            "Erase its slot in the page table before you set the slot to 0.",
        ),
        "slot-first": (
            "What does the error say: which slot was to be freed, or who was looked for where?",
            "Look at the order of your lines: a slot that was set to 0 already can't be erased, one who left "
            "can't be removed.",
            "Erase the slot first, then set it to 0.",
        ),
        "stale-slot": (
            "Who has this slot from now on?",
            "Look at `sequence.slot` after the slot went back: the next one admitted may get the same number.",
            "Set its slot to 0.",
        ),
        "keeps-status: finished": (
            "What does its `status` say, and is that so?",
            "Look at the status that it has afterwards: it will run again, but it does not now.",
            "Set the status to WAITING.",
        ),
        "not-counted: own all": (
            "How often was it preempted, and how often anybody?",
            "Two counters go up: the sequence's own `preemptions`, and the scheduler's.",
            "Add one to each.",
        ),
    },
)

# ================================================================================================ 5.7

finish = Exercise(
    "5.7",
    section="Finishing",
    hints=(
        "Compare the two tables line by line: what does the finished sequence hold, where does it stand, what "
        "is its reason?",
        "Three situations: it runs, it waits, it has ended already. What does it have in each, and what must be gone?",
        "If it has ended already, do nothing. Else take it out of its list, free slot and pages if it has any, "
        "set slot 0, "
        "FINISHED and the reason.",
    ),
)


def say_finish(case: Case) -> str:
    if "heir" not in case:
        return f'finish({case["who"]}, "{case["why"]}"): {say_everyone(case)}'
    between = ""
    if case["heir"]:
        between = f"; then {next(iter(jobs_of(case, 'waiting')))} is admitted"
    return f'finish({case["who"]}, "stop"){between}; then finish({case["who"]}, "{case["why"]}"): {say_everyone(case)}'


def after_finishing(case: Case, wrong: str = "") -> Answer:
    world = World(case, wrong)
    if "heir" in case:
        world.end(case["who"], "stop")
        if case["heir"]:
            world.seat(world.waiting.pop(0))
    world.end(case["who"], case["why"])
    return world.board()


def ending_runners() -> Iterator[Case]:
    for running in ([[3, 1]], [[3, 2], [4, 1]], [[3, 1], [4, 3], [2, 1]]):
        for who, queue in itertools.product(NAMES[: len(running)], ([], [[2, 0]], [[2, 0], [3, 1]])):
            yield setting(running, queue, who=who, why="stop")


def ending_waiters() -> Iterator[Case]:
    for running, queue in itertools.product(([], [[3, 1]]), ([[2, 0]], [[2, 0], [3, 1]], [[2, 0], [3, 1], [4, 0]])):
        for index in range(len(queue)):
            yield setting(running, queue, who=NAMES[len(running) + index], why="aborted")


def ending_again() -> Iterator[Case]:
    yield setting([[3, 1]], [], who="A", why="aborted", heir=False)
    yield setting([], [[3, 1]], who="A", why="aborted", heir=False)
    yield setting([[3, 1]], [[5, 0]], who="A", why="aborted", heir=True)
    yield setting([[3, 1], [9, 1]], [[5, 0]], who="A", why="aborted", heir=True, slots=2)
    yield setting([[3, 1], [9, 1]], [[5, 0]], who="B", why="aborted", heir=True, slots=2)


ask(finish, "who_runs", after_finishing, small_first(ending_runners()), say_finish, draw=draw_board)
ask(finish, "who_waits", after_finishing, small_first(ending_waiters()), say_finish, draw=draw_board)
ask(finish, "finished_twice", after_finishing, small_first(ending_again()), say_finish, draw=draw_board)

known(
    finish,
    after_finishing,
    {
        "keeps-pages: slot-too": (
            "It will never need its pages again. How many are free now?",
            "Look at what goes back to the page table, and when: after the slot's number is forgotten nobody "
            "can free it.",
            "Erase its slot in the page table, then set the slot to 0.",
        ),
        "stale-slot": (
            "Who will have this slot next?",
            "Look at `sequence.slot` of one that has ended: its old number will be given to somebody else.",
            "Set its slot to 0.",
        ),
        "still-running": (
            "It has ended. In which lists does it stand?",
            "Look at `running`: the next decode would compute it again.",
            "Take it out of `running`.",
        ),
        "keeps-status": (
            "What does its `status` say?",
            "Look at the fields of the sequence that you set: its end must be known to whoever asks.",
            "Set the status to FINISHED.",
        ),
        "no-reason": (
            "Why did it end, and where can the caller read that?",
            "Look for the argument `reason` in your code.",
            "Store the reason as its `finish_reason`.",
        ),
        "only-running: nothing queue": (
            "This one waits: which slot does it have, and in which list does it stand?",
            "Look at the lines that make sense only for a running one: leaving `running`, and freeing a slot.",
            "Take one that waits out of `waiting`, and free a slot only if it has one.",
        ),
        "double-finish: raises": (
            "It had ended already, for another reason. What should change?",
            "Look at the first line of your code: the docstring says what happens to one that is FINISHED.",
            "Do nothing if it is FINISHED.",
        ),
    },
)

# ================================================================================================ 5.8

grow = Exercise(
    "5.8",
    section="Growing",
    hints=(
        "Serve them by hand, the oldest first: how many pages does each need for all its tokens, how many are "
        "free then, and "
        "who gives way?",
        "Compare the two tables from above: the first line that differs belongs to the sequence whose turn went wrong.",
        "For each in order: end it if it is longer than `longest`; else, until its pages are there, let the "
        "last of `running` "
        "give way, and stop if that was itself. Rows only for those who got their pages.",
    ),
)


def say_grow(case: Case) -> str:
    return f"grow(): {say_everyone(case)}; the newest token of each that runs has no place yet"


def after_growing(case: Case, wrong: str = "", reading: Iterable[str] = ()) -> Answer:
    world = World(case, wrong, reading)
    return {"rows": sorted(world.grow(), key=str), **world.board()}


def same_growth(case: Case, expected: Answer, answer: Answer) -> bool:
    """Those who are too long may be ended in their turn or first of all; a preemption on their way out may count."""
    if "jobs" not in expected:
        return equal(case, expected, answer)
    right = [after_growing(case), after_growing(case, reading=["ended first"])]
    if not equal(case, without_counts(right[0]), without_counts(expected)):
        return equal(case, expected, answer)
    return any(equal(case, without_counts(one), without_counts(answer)) for one in right)


def without_counts(board: Any) -> Any:
    """A board that says how often somebody was preempted only of those who have not ended."""
    ended = [name for name, job in board["jobs"].items() if job["stands"] == "finished"]
    jobs = {name: {**job, "gave_way": 0} if name in ended else job for name, job in board["jobs"].items()}
    return {**board, "jobs": jobs, "gave_way": 0 if ended else board["gave_way"]}


def draw_growth(case: Case, answer: Answer) -> str:
    """A board, without the counts that are not asked for."""
    return draw_board(case, without_counts(answer) if isinstance(answer, dict) and "jobs" in answer else answer)


def held(running: Iterable[Iterable[int]], size: int = 4) -> int:
    """Pages of those who run before they grow."""
    return sum(pages_for(prompt + made - 1, size) for prompt, made in running)


def lone_runners() -> Iterator[Case]:
    for prompt, made in itertools.product((1, 2, 3, 4, 5, 7, 8), (1, 2, 4, 5)):
        yield setting([[prompt, made]], pool=6)


def runners_side_by_side() -> Iterator[Case]:
    for count in (2, 3):
        for running in itertools.product(([3, 1], [4, 1], [4, 2], [7, 1]), repeat=count):
            yield setting(running, [[2, 0]], pool=held(running) + count)


def runners_short_of_pages() -> Iterator[Case]:
    jobs = ([2, 1], [4, 1], [5, 1], [4, 5])
    for count, extra in ((2, 0), (2, 1), (3, 0), (3, 1), (4, 0)):
        for running in itertools.product(jobs[:3] if count > 3 else jobs, repeat=count):
            queue = [[2, 0]] if count == 3 else []
            pool = held(running) + extra
            fits = all(sum(job) <= pool * 4 for job in running)
            # Without anyone who needs a page nothing is short.
            if fits and sum(pages_for(sum(job), 4) for job in running) > pool:
                yield setting(running, queue, pool=pool)


def outgrown_runners() -> Iterator[Case]:
    for pool in (1, 2, 3):
        yield setting([[4 * pool, 1]], pool=pool)
        yield setting([[3, 4 * pool - 2]], [[2, 0]], pool=pool)
        yield setting([[3, 4 * pool - 3]], pool=pool)
        yield setting([[3, 1]], [[2, 0]], pool=pool, row=4)
        yield setting([[4, 1]], [[2, 0]], pool=pool, row=4)
    for running in (
        [[4, 1], [3, 1]],
        [[3, 1], [4, 1]],
        [[4, 1], [4, 1]],
        [[2, 1], [4, 1], [3, 1]],
        [[4, 1], [4, 1], [3, 1]],
    ):
        yield setting(running, [[2, 0]], pool=6, row=4)
    for running in ([[8, 1], [4, 1]], [[4, 1], [8, 1]], [[4, 1], [8, 1], [3, 1]], [[8, 1], [3, 1], [4, 1]]):
        yield setting(running, pool=held(running) + 1, row=8)
        yield setting(running, pool=held(running), row=8)


def pages_of_one_token() -> Iterator[Case]:
    for running, extra in itertools.product(([[1, 1]], [[2, 3]], [[1, 1], [2, 1]]), (0, 1, 2)):
        yield setting(running, pool=held(running, 1) + extra, size=1)


def batch_search() -> Any:
    """Any small batch before a decode, in a pool that may be too small for it."""
    job = st.tuples(st.integers(1, 9), st.integers(1, 5))
    return st.builds(
        lambda running, waiting, extra, row: setting(
            running, waiting, pool=held(running) + extra, row=max([row, *(sum(job) - 1 for job in running)])
        ),
        st.lists(job, min_size=1, max_size=4),
        st.lists(job, max_size=2),
        st.integers(0, 3),
        st.integers(4, 20),
    )


for _name, _cases in {
    "alone": lone_runners,
    "side_by_side": runners_side_by_side,
    "too_few_pages": runners_short_of_pages,
    "too_long": outgrown_runners,
    "pages_of_one": pages_of_one_token,
}.items():
    ask(grow, _name, after_growing, small_first(_cases()), say_grow, draw=draw_growth, same=same_growth)
ask(grow, "any_batch", after_growing, [], say_grow, draw=draw_growth, same=same_growth, search=batch_search())

known(
    grow,
    after_growing,
    {
        "wrong-edge: old-if-full next next-if-full": (
            "Count all tokens, the newest too: its key is written in this step. Does the last page have a "
            "place for it?",
            "Look at the number that you reserve for, and at any test of `len(sequence) % page_size`: the "
            "length already counts "
            "the newest token, and nobody counts the one to come.",
            "Reserve for `len(sequence)` tokens, whatever the remainder; `reserve` takes nothing where nothing "
            "is missing.",
        ),
        "pages-of-one": (
            "What is the remainder when pages hold a single token?",
            "Look at your test of `len(sequence) % page_size`: where a page is one token, every token opens a page.",
            "Leave the test out: `reserve` takes nothing where nothing is missing.",
        ),
        "row-beside: prompt output long": (
            "Which tokens have keys and values already, and which is the one to compute? Tokens count from 0.",
            "Look at `start` and `n_tokens` of your rows: of a sequence of 5 tokens, the newest is token 4.",
            "Start at the last token, `len(sequence) - 1`, with one token.",
        ),
        "runs-preempted: raises all self": (
            "Somebody gave way in this step and has no pages. What would its row write, and where?",
            "Look at what your loop does with a sequence after it was preempted, whether before its turn or in "
            "its own.",
            "Make a row only for one that is RUNNING and got its pages; pass over everybody else.",
        ),
        "ignores-the-answer": (
            "`reserve` said no. Where will the newest token be written?",
            "Look at what `reserve` gives back, and at what you do if it is False.",
            "While it is False, the last of `running` gives way, and you ask again.",
        ),
        "one-victim: no-retry": (
            "One gave way. Did the sequence that needed pages get them?",
            "Look at what follows the preemption: the pages that came free must still be asked for, and may "
            "not be enough.",
            "Repeat: reserve, and if that fails preempt the last, until it succeeds or the sequence itself gave way.",
        ),
        "stops-after-giving-way": (
            "Others run besides these. Who serves them?",
            "Look at what you leave when somebody gave way: the inner loop, or the whole method?",
            "Go on with the next sequence that runs.",
        ),
        "oldest-gives-way": (
            "Who of them was admitted longest ago, and who gave way? What if that happens in every step?",
            "Look at the end of `running` from which you take the one to preempt.",
            "Preempt the last of `running`.",
        ),
        "gives-way-itself": (
            "Who lacks pages, and who is the newest? Which of the two gives way?",
            "Look at whom you preempt: the one that is being served, or the last of `running`?",
            "Preempt the last of `running`, whoever is being served.",
        ),
        "never-itself": (
            "The newest lacks a page. Should an older one give way to it?",
            "Look at whom you leave out when you choose who gives way: the docstring makes no exception for "
            "the sequence itself.",
            "Preempt the last of `running`, even if that is the one being served.",
        ),
        "sits-there": (
            "It got no page and has no row. What does it hold, and who could use that?",
            "Look at what you do when the last of `running` is the sequence that is being served: it still "
            "stands there.",
            "Preempt it like any other; only then there is nothing more to do for it.",
        ),
        "newest-first": (
            "In which order were they served, and who got the last page?",
            "Look at the order of your loop: the oldest stands first in `running`.",
            "Serve them from the front of `running` to its end.",
        ),
        "ends-the-newest": (
            "Will there never be room for it, or only not now?",
            "Look at what you do with the newest when it can't get pages: it is ended although it could run later.",
            "Preempt it like any other; end only one that has more tokens than `longest`.",
        ),
        "self-preempt: asks-first raises raises-late raises-alone for-ever waits": (
            "It has more tokens than fit, even with all pages to itself. What will be different the next time?",
            "Look at what happens to a sequence with more tokens than `longest`: to wait does not help it, and "
            "no error must reach "
            "the others.",
            'Before you reserve, finish one that has more tokens than `longest` with "out_of_pages", and list '
            "it in `outgrown`.",
        ),
        "outgrown-waits": (
            "One gave way, and has more tokens than `longest`. What will be different when its turn comes again?",
            "Look at what your loop asks first: whoever gave way before its turn is passed over, however long it is.",
            "Ask for `longest` first, of everyone who ran when the step began; only then whether it still runs.",
        ),
        "in-vain": (
            "Somebody gave way. Did that help the one that is too long?",
            "Look at when you find out that a sequence is longer than `longest`: only after the others are gone.",
            "Ask for it first, before anybody is preempted for its sake.",
        ),
        "ends-early": (
            "`longest` is what the longest sequence has. Does one of just that many tokens fit?",
            "Look at the comparison with `longest`: what does it say of equal numbers?",
            "End only one that has more tokens than `longest`.",
        ),
        "pool-not-row": (
            "Can one sequence have all pages of this pool?",
            "Look at what you compare the length with: a row of the page table may be shorter than the pool.",
            "Compare with `longest`, which minds the row.",
        ),
        "not-listed": (
            "One was ended here. How does the engine learn of it, to tell the caller?",
            "Look at the field `outgrown` afterwards.",
            "Append it to `outgrown`.",
        ),
        "skips-the-next": (
            "One was ended. Who stood behind it, and was it served?",
            "Look at what your loop goes over: a list from which something is removed meanwhile moves up by one.",
            "Go over a copy of `running`.",
        ),
    },
)
for _check, _slug in itertools.product(
    grow.checks, list(grow.mistakes)
):  # whoever ends those who are too long first of all
    _check.predicts(_slug)(_foretold(lambda case, wrong: after_growing(case, wrong, ["ended first"]), _slug))
grow.mistake(
    "another-name",
    "Everything is right but the reason. What does the docstring call it?",
    "Look at the reason that you give to `finish`.",
    'Give the reason "out_of_pages", letter by letter.',
)


@next(check for check in grow.checks if check.name == "too_long").shows("another-name")
def _(case: Case, expected: Answer, answer: Answer) -> bool:
    reasons = {job["why"] for job in answer["jobs"].values()} - {None, "out_of_pages"}
    renamed = {name: {**job, "why": "out_of_pages" if job["why"] else None} for name, job in answer["jobs"].items()}
    return bool(reasons) and same_growth(case, expected, {**answer, "jobs": renamed})


# ================================================================================================ 5.9

next_step = Exercise(
    "5.9",
    section="One step",
    hints=(
        "Find the first step at which the two timelines differ. Was it a prefill or a decode, and which should "
        "it have been?",
        "Compare your loop with the docstring at that step: who is admissible, is a prefill worth it, what are "
        "`prefilled_last` and `steps_kept_waiting` after the step before, and is the step empty?",
        "As long as there is work: ask who may go and whether that is worth it, and note it in "
        "`prefilled_last`; either admit "
        "and set the count of waiting steps to 0, or count a step if somebody could have gone, and grow; "
        "return rows if any.",
    ),
)

READINGS = [
    [*counting, *ending]
    for ending in ([], ["ended first"])
    for counting in ([], ["counts on"], ["counts the queue"], ["counts the queue", "counts on"], ["counts since"])
]
"""Ways to read what the docstrings leave open; all are right."""


def load(
    *arrivals: tuple[int, int, int],
    pool: int = 8,
    slots: int = 4,
    row: int | None = None,
    budget: int = 64,
    min_prefill: int = 1,
    patience: int = 16,
    steps: int = 40,
) -> Case:
    """A case: who arrives before which step, with how many tokens, and how many it generates."""
    sizes = {"pool": pool, "size": 4, "slots": slots, "row": row, "budget": budget}
    coming = [list(one) for one in sorted(arrivals, key=lambda one: one[0])]
    return {**sizes, "min_prefill": min_prefill, "patience": patience, "steps": steps, "arrivals": coming}


def say_load(case: Case) -> str:
    coming = [
        f"{name} before step {step + 1} ({prompt}, makes {new})"
        for name, (step, prompt, new) in zip(NAMES, case["arrivals"], strict=False)
    ]
    return (
        f"{say_pool(case)}, {plural(case['slots'], 'slot')}; max_prefill_tokens {case['budget']}, "
        f"min_prefill {case['min_prefill']}, patience {case['patience']}; " + "; ".join(coming)
    )


def timeline(case: Case, wrong: str = "", reading: Iterable[str] = ()) -> Answer:
    """What each step does, until nobody is left."""
    world = World(case, wrong, reading)
    steps: list[dict[str, Any]] = []
    coming = list(case["arrivals"])
    while len(steps) < case["steps"] and (coming or world.running or world.waiting):
        while coming and coming[0][0] <= len(steps):
            _, prompt, new = coming.pop(0)
            world.waiting.append(world.newcomer(prompt, at_most=new))
        try:
            rows = world.step()
        except Endless:
            steps.append({"endless": True})
            break
        queues = {"running": list(world.running), "waiting": list(world.waiting), "outgrown": sorted(world.outgrown)}
        steps.append({"rows": sorted(rows, key=str), "free_pages": world.free, **queues})
        world.outgrown.clear()
        for name, _start, _n in rows:
            job = world.jobs[name]
            job.made += 1
            if job.made >= job.at_most:
                world.end(name, "length")
    return steps


def same_timeline(case: Case, expected: Answer, answer: Answer) -> bool:
    if expected == answer:
        return True
    return expected == timeline(case) and any(answer == timeline(case, reading=reading) for reading in READINGS)


STEPS_IN_A_LINE = 11


def draw_timeline(case: Case, answer: Answer) -> str:
    """Steps from left to right, a line for each sequence; ▲ below the first step that is not as it should be."""
    if not isinstance(answer, list):
        return draw_plain(case, answer)
    right = timeline(case)
    wrong = next((n for n in range(max(len(right), len(answer))) if right[n : n + 1] != answer[n : n + 1]), None)
    if answer in (timeline(case, reading=reading) for reading in READINGS):
        wrong = None
    lines: list[str] = []
    seen: list[str] = []
    for begin in range(0, min(len(answer), 2 * STEPS_IN_A_LINE), STEPS_IN_A_LINE):
        steps = range(begin, min(begin + STEPS_IN_A_LINE, len(answer)))
        lines.append("step " + in_columns(str(n + 1) for n in steps))
        for name, (step, _prompt, _new) in zip(NAMES, case["arrivals"], strict=False):
            marks = ["" if n < step else mark(name, answer, n) for n in steps]
            seen += marks
            if any(marks):
                lines.append(f"{name}    " + in_columns(marks))
        lines.append("free " + in_columns(str(answer[n].get("free_pages", "∞")) for n in steps))
        if wrong is not None and begin <= wrong < begin + STEPS_IN_A_LINE:
            lines.append("     " + in_columns([""] * (wrong - begin) + ["▲"]))
    return "\n".join([*lines, *legend(seen)])


def in_columns(signs: Iterable[str]) -> str:
    return "".join(f"{sign:<3}" for sign in signs).rstrip()


def legend(seen: list[str]) -> list[str]:
    """What the signs mean that were drawn, two or three in a line."""
    prefill = next((sign for sign in seen if sign.startswith("P")), "")
    said = {prefill: f"{prefill} prefill of {prefill[1:]}"} if prefill else {}
    said |= {"d": "d decode", "·": "· held up", "w": "w waits", "x": "x gives way", "!": "! too long"}
    said |= {"?": "? decode without pages", "2": "2 in two rows", "∞": "∞ no end"}
    words = [text for sign, text in said.items() if sign in seen]
    return [", ".join(words[n : n + 3]) for n in range(0, len(words), 3)]


def mark(name: str, steps: list[dict[str, Any]], n: int) -> str:
    """What a sequence does in a step, in at most two signs."""
    step = steps[n]
    if "endless" in step:
        return "∞"
    own = [row for row in step["rows"] if row[0] == name]
    if len(own) > 1:
        return "2"
    if own and own[0][1] == 0:
        return f"P{own[0][2]}"
    if name in step["outgrown"]:
        return "!"
    if name in step["waiting"]:
        if own:
            return "?"
        return "x" if n and name in steps[n - 1].get("running", []) else "w"
    return "d" if own else "·" if name in step["running"] else ""


def plain_loads() -> Iterator[Case]:
    yield load((0, 4, 1))
    yield load((0, 3, 3))
    yield load((0, 3, 3), (0, 4, 3))
    yield load((0, 3, 2), (0, 4, 4))
    yield load((0, 3, 2), (0, 4, 2), (0, 5, 2), slots=2)
    yield load((0, 3, 2), (4, 4, 2))
    yield load((2, 3, 2), (6, 4, 2))


def loads_with_newcomers() -> Iterator[Case]:
    yield load((0, 3, 4), (1, 4, 3))
    yield load((0, 3, 6), (2, 4, 3))
    yield load((0, 9, 3), (0, 3, 2), budget=8)
    yield load((0, 5, 3), (0, 5, 2), (0, 5, 2), budget=8)
    yield load((0, 3, 8), (2, 4, 3), min_prefill=2, patience=3)
    yield load((0, 3, 8), (1, 4, 3), (4, 4, 3), min_prefill=2, patience=16)
    yield load((0, 3, 12), (1, 4, 3), min_prefill=3, patience=4)
    yield load((0, 3, 12), (1, 4, 5), (5, 4, 3), min_prefill=2, patience=3)
    yield load((0, 3, 20), (1, 4, 2), (7, 4, 2), (13, 4, 2), min_prefill=3, patience=4, pool=12)
    yield load((0, 3, 20), (9, 4, 2), (16, 4, 2), min_prefill=2, patience=5, pool=12)
    yield load((0, 3, 5), *((step, 3, 3) for step in range(1, 6)), pool=12, slots=8)
    yield load((0, 3, 9), *((step, 2, 2) for step in range(1, 10)), pool=20, slots=8)
    yield load((0, 3, 9), *((step, 2, 2) for step in range(1, 10)), pool=20, slots=8, min_prefill=2, patience=3)
    yield load((0, 3, 6), (0, 3, 8), (1, 3, 2), slots=2)


def loads_short_of_pages() -> Iterator[Case]:
    yield load((0, 4, 6), pool=1)
    yield load((0, 8, 3), pool=2)
    yield load((0, 8, 3), (0, 4, 2), pool=2)
    yield load((0, 4, 4), (0, 4, 4), pool=2)
    yield load((0, 4, 4), (0, 3, 4), pool=3)
    yield load((0, 4, 4), (0, 4, 4), (0, 4, 4), pool=4)
    yield load((0, 4, 4), (0, 4, 4), (1, 3, 2), (2, 5, 1), pool=3)
    yield load((0, 3, 7), (0, 7, 3), (0, 2, 6), pool=4)
    yield load((0, 4, 9), (0, 4, 2), pool=3, row=8)
    yield load((0, 5, 9), (3, 4, 9), pool=3, min_prefill=2, patience=2)
    yield load((0, 4, 5), (0, 4, 5), (0, 4, 5), (0, 4, 5), pool=5, slots=3, budget=8)


def load_search() -> Any:
    """Any small load: arrivals, growth, preemption, endings."""
    arrival = st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(1, 9))
    return st.builds(
        lambda arrivals, pool, slots, budget, least, patience: load(
            *((step, min(prompt, 4 * pool), new) for step, prompt, new in arrivals),
            pool=pool,
            slots=slots,
            budget=budget,
            min_prefill=least,
            patience=patience,
            steps=60,
        ),
        st.lists(arrival, min_size=1, max_size=6),
        st.integers(1, 6),
        st.integers(1, 4),
        st.integers(1, 24),
        st.integers(1, 3),
        st.integers(1, 5),
    )


for _name, _cases in {
    "plain_runs": plain_loads,
    "newcomers_in_a_run": loads_with_newcomers,
    "runs_short_of_pages": loads_short_of_pages,
}.items():
    ask(next_step, _name, timeline, _cases(), say_load, draw=draw_timeline, marks=False, same=same_timeline)
ask(
    next_step,
    "long_runs",
    timeline,
    [],
    say_load,
    draw=draw_timeline,
    marks=False,
    same=same_timeline,
    search=load_search(),
)

known(
    next_step,
    timeline,
    {
        "prefill-always: unset": (
            "How many tokens do those who run get while newcomers keep arriving?",
            "Look at what decides for a prefill: candidates alone are no reason, and `worth_prefilling` must "
            "learn from "
            "`prefilled_last` what the step before was.",
            "Ask `worth_prefilling`, and keep its answer in `prefilled_last` for the next step.",
        ),
        "static-batch": (
            "A slot and pages are free, and somebody waits. Until when? What would let it in while others run?",
            "Look at what must hold for a prefill in your code. `worth_prefilling` decides it, also while "
            "somebody runs; and "
            "`prefilled_last` must become False again in a decode.",
            "Ask `worth_prefilling` whoever runs, and set `prefilled_last` in every step: True in a prefill, "
            "False in a decode.",
        ),
        "never-counts": (
            "Somebody waits alone and could have been admitted long ago. Who counts the steps?",
            "Look at `steps_kept_waiting`: `worth_prefilling` waits for it to reach `patience`.",
            "Add one in each decode step in which there were candidates.",
        ),
        "never-starts-anew": (
            "Those who waited were admitted. How long have the next ones been kept waiting?",
            "Look at `steps_kept_waiting` after a prefill.",
            "Set it to 0 with each prefill.",
        ),
        "counts-alone": (
            "Who was kept waiting in the steps before this newcomer came?",
            "Look at when you count: steps in which nobody could have been admitted keep nobody waiting.",
            "Count a decode step only if there were candidates.",
        ),
        "counts-too-soon": (
            "How many decode steps has this newcomer been kept waiting for before this one?",
            "Look at when you count the step: before or after it is decided?",
            "Decide first; count the step only if it became a decode.",
        ),
        "mixed-step: first": (
            "Is this step a prefill or a decode?",
            "Look at what you return after `admit`: rows of one kind only.",
            "Return the rows of the prefill alone; those who run go on in the next step.",
        ),
        "empty-step": (
            "In this step nothing is computed, but somebody is left. What is the engine to do with it?",
            "Look at what you return when `grow` gives no rows: everyone who ran ended or gave way, and others "
            "may go now.",
            "If there are no rows and there is still work, choose again at once.",
        ),
        "no-way-out": (
            "Nobody is left, neither running nor waiting. When does your loop end?",
            "Look at the condition of the loop: with nobody there, no round ever gives rows.",
            "Go on only as long as there is work (`has_work`); else return no rows.",
        ),
        "self-preempt: asks-first": (
            "It has more tokens than the whole pool holds. What will be different in the next round?",
            "Look at what happens to a sequence with more tokens than `longest`: it must be ended by name, as "
            "`grow` does.",
            "Call `grow` for the running ones; it ends those who can't be helped.",
        ),
        "runs-preempted: all": (
            "Somebody gave way in this step. Why does it have a row?",
            "Look at how the rows of a decode are made: after the preemptions, and only for those who still run.",
            "Return the rows that `grow` gives.",
        ),
        "forgets-output: row": (
            "It comes back with tokens that it had generated. How many have to be computed?",
            "Look at how the rows of a prefill are made: prompt and output were both lost.",
            "Return the rows that `admit` gives.",
        ),
    },
)
