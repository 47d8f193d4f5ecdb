"""Mistakes in module 05, as edits of the reference."""

from planting import Planted

MISTAKES = [
    # ------------------------------------------------------------------------------------------------ 5.1
    Planted("5.1", "one-more", old=">= self.params.max_new_tokens", new="> self.params.max_new_tokens", note="new"),
    Planted("5.1", "max-length", old="n_tokens >= self.max_length", new="n_tokens > self.max_length", note="length"),
    Planted(
        "5.1",
        "one-more",
        code="""
        def check_done(self):
            made = len(self.output_ids)
            if made == 0:
                return None
            last = self.token_ids[-1]
            ends = set(self.params.stop_token_ids)
            if not self.params.ignore_eos:
                ends |= self.eos_token_ids
            if last in ends:
                return "stop"
            if made > self.params.max_new_tokens or len(self.prompt_ids) + made > self.max_length:
                return "length"
        """,
        note="both",
    ),
    Planted("5.1", "counts-prompt", old="len(self.output_ids) >= self.params", new="len(self) >= self.params"),
    Planted("5.1", "max-length", old="n_tokens >= self.max_length", new="len(self.output_ids) >= self.max_length"),
    Planted("5.1", "max-length", old=" or n_tokens >= self.max_length", new="", note="no length"),
    Planted("5.1", "one-more", old="len(self.output_ids) >= self.params.max_new_tokens or ", new="", note="no new"),
    Planted(
        "5.1",
        "any-token",
        code="""
        def check_done(self):
            if not self.output_ids:
                return None
            for token in self.output_ids:
                if token in self.params.stop_token_ids:
                    return "stop"
                if token in self.eos_token_ids and not self.params.ignore_eos:
                    return "stop"
            if len(self.output_ids) >= self.params.max_new_tokens or len(self) >= self.max_length:
                return "length"
            return None
        """,
    ),
    Planted(
        "5.1",
        "any-token",
        code="""
        def check_done(self):
            if not self.output_ids:
                return None
            ends = self.params.stop_token_ids | (frozenset() if self.params.ignore_eos else self.eos_token_ids)
            if ends & set(self.token_ids):
                return "stop"
            full = len(self) >= self.max_length or len(self.output_ids) >= self.params.max_new_tokens
            return "length" if full else None
        """,
        note="prompt too",
    ),
    Planted("5.1", "any-token", old="self.output_ids[-1]", new="self.output_ids[0]", note="the first"),
    Planted(
        "5.1", "one-eos", old="newest in self.eos_token_ids", new="newest == min(self.eos_token_ids, default=None)"
    ),
    Planted(
        "5.1",
        "one-eos",
        old="newest in self.eos_token_ids",
        new="[newest] == list(self.eos_token_ids)[-1:]",
        note="last",
    ),
    Planted(
        "5.1",
        "one-eos",
        old=" or (newest in self.eos_token_ids and not self.params.ignore_eos)",
        new="",
        note="none",
    ),
    Planted("5.1", "no-stop-ids", old="newest in self.params.stop_token_ids or (newest", new="(newest"),
    Planted(
        "5.1",
        "ignores-too-much",
        old="if newest in self.params.stop_token_ids or (newest in self.eos_token_ids and not self.params.ignore_eos):",
        new="if not self.params.ignore_eos and newest in self.params.stop_token_ids | self.eos_token_ids:",
    ),
    Planted("5.1", "never-ignores", old=" and not self.params.ignore_eos", new=""),
    Planted(
        "5.1",
        "length-first",
        code="""
        def check_done(self):
            if not self.output_ids:
                return None
            if len(self.output_ids) >= self.params.max_new_tokens or len(self) >= self.max_length:
                return "length"
            newest = self.output_ids[-1]
            if newest in self.params.stop_token_ids:
                return "stop"
            if newest in self.eos_token_ids and not self.params.ignore_eos:
                return "stop"
            return None
        """,
    ),
    Planted("5.1", "empty-output", old="if not self.output_ids:", new="if len(self) == 0:", note="raises"),
    Planted(
        "5.1",
        "empty-output",
        code="""
        def check_done(self):
            newest = self.token_ids[-1]
            if newest in self.params.stop_token_ids or (newest in self.eos_token_ids and not self.params.ignore_eos):
                return "stop"
            if len(self.output_ids) >= self.params.max_new_tokens or len(self) >= self.max_length:
                return "length"
            return None
        """,
        note="the prompt's last",
    ),
    Planted(
        "5.1",
        "empty-output",
        code="""
        def check_done(self):
            newest = self.output_ids[-1] if self.output_ids else None
            if newest in self.params.stop_token_ids or (newest in self.eos_token_ids and not self.params.ignore_eos):
                return "stop"
            if len(self.output_ids) >= self.params.max_new_tokens or len(self) >= self.max_length:
                return "length"
            return None
        """,
        note="the prompt's length",
    ),
    Planted("5.1", "", old='return "length"', new='return "max_tokens"', note="another word"),
    Planted("5.1", "", old='return "stop"', new="return True", note="a bool"),
    Planted("5.1", "", old="self.output_ids[-1]", new="self.prompt_ids[-1]", note="the prompt's token"),
    # ------------------------------------------------------------------------------------------------ 5.2
    Planted("5.2", "never-fits", old="if len(sequence) > self.longest:", new="if False:"),
    Planted("5.2", "never-fits", code="def add(self, sequence):\n    self.waiting.append(sequence)\n", note="bare"),
    Planted(
        "5.2",
        "says-nothing",
        code="""
        def add(self, sequence):
            if len(sequence) <= self.longest:
                self.waiting.append(sequence)
        """,
    ),
    Planted(
        "5.2",
        "queued-all-the-same",
        code="""
        def add(self, sequence):
            self.waiting.append(sequence)
            if len(sequence) > self.longest:
                raise ValueError("too long")
        """,
    ),
    Planted("5.2", "exact-fit", old="> self.longest:", new=">= self.longest:"),
    Planted("5.2", "pool-not-row", old="> self.longest:", new="> self.page_table.n_pages * self.page_table.page_size:"),
    Planted(
        "5.2",
        "refuses-for-now",
        old="> self.longest:",
        new="> self.page_table.pages_available * self.page_table.page_size:",
    ),
    Planted(
        "5.2",
        "refuses-for-now",
        old="if len(sequence) > self.longest:",
        new="if not self.page_table.can_reserve(0, len(sequence)):",
        note="can_reserve",
    ),
    Planted(
        "5.2",
        "refuses-for-now",
        old="> self.longest:",
        new="> min(self.longest, self.max_prefill_tokens):",
        note="budget",
    ),
    Planted(
        "5.2",
        "refuses-for-now",
        old="> self.longest:",
        new="> self.longest or not self.page_table.free_slots:",
        note="slots",
    ),
    Planted(
        "5.2",
        "counts-the-future",
        old="if len(sequence) > self.longest:",
        new="if len(sequence.prompt_ids) + sequence.params.max_new_tokens > self.longest:",
    ),
    Planted("5.2", "forgets-output", old="if len(sequence) > self", new="if len(sequence.prompt_ids) > self"),
    Planted("5.2", "jumps-the-queue", old="self.waiting.append(sequence)", new="self.waiting.appendleft(sequence)"),
    Planted(
        "5.2",
        "jumps-the-queue",
        code="""
        def add(self, sequence):
            if len(sequence) > self.longest:
                raise ValueError("too long")
            self.waiting.append(sequence)
            self.waiting = type(self.waiting)(sorted(self.waiting, key=len))
        """,
        note="short first",
    ),
    Planted("5.2", "", old="raise ValueError(", new="raise RuntimeError(", note="another error"),
    Planted(
        "5.2",
        "",
        old="self.waiting.append(sequence)",
        new="sequence.slot = self.page_table.allocate(); self.waiting.append(sequence)",
        note="a slot at once",
    ),
    Planted("5.2", "", old="self.waiting.append(sequence)", new="self.running.append(sequence)", note="runs at once"),
    # ------------------------------------------------------------------------------------------------ 5.3
    Planted("5.3", "strict-budget", old="tokens > self.max_prefill_tokens", new="tokens >= self.max_prefill_tokens"),
    Planted(
        "5.3",
        "strict-budget",
        code="""
        def admissible(self):
            table, budget = self.page_table, self.max_prefill_tokens
            free, slots, taken = table.pages_available, len(table.free_slots), []
            for candidate in self.waiting:
                need = table.pages_missing(0, len(candidate))
                if not slots or need > free or not len(candidate) < budget:
                    if taken or not slots or need > free:
                        return taken
                taken.append(candidate)
                slots, free, budget = slots - 1, free - need, budget - len(candidate)
            return taken
        """,
        note="counting down",
    ),
    Planted(
        "5.3",
        "strict-budget",
        old="if chosen and tokens > self.max_prefill_tokens",
        new="if tokens >= self.max_prefill_tokens",
        note="and for the first",
    ),
    Planted("5.3", "no-budget", old="chosen and tokens > self.max_prefill_tokens", new="False"),
    Planted(
        "5.3",
        "budget-overshot",
        code="""
        def admissible(self):
            chosen, tokens, pages = [], 0, self.page_table.pages_available
            for sequence in self.waiting:
                if tokens >= self.max_prefill_tokens or len(chosen) >= len(self.page_table.free_slots):
                    break
                pages -= self.page_table.pages_missing(0, len(sequence))
                if pages < 0:
                    break
                tokens += len(sequence)
                chosen.append(sequence)
            return chosen
        """,
    ),
    Planted(
        "5.3",
        "budget-overshot",
        old="tokens > self.max_prefill_tokens",
        new="tokens - len(sequence) > self.max_prefill_tokens",
        note="full",
    ),
    Planted(
        "5.3",
        "tokens-not-pages",
        old="pages > self.page_table.pages_available:",
        new="tokens > self.page_table.pages_available * self.page_table.page_size:",
    ),
    Planted(
        "5.3",
        "tokens-not-pages",
        old="pages += self.page_table.pages_missing(0, len(sequence))",
        new="pages = self.page_table.pages_missing(0, tokens)",
        note="of the sum",
    ),
    Planted(
        "5.3",
        "tokens-not-pages",
        old="self.page_table.pages_missing(0, len(sequence))",
        new="len(sequence) // self.page_table.page_size",
        note="rounded down",
    ),
    Planted(
        "5.3",
        "one-page-more",
        old="self.page_table.pages_missing(0, len(sequence))",
        new="len(sequence) // self.page_table.page_size + 1",
        note="one too many",
    ),
    Planted(
        "5.3",
        "strict-pages",
        old="pages > self.page_table.pages_available:",
        new="pages >= self.page_table.pages_available:",
    ),
    Planted("5.3", "no-pages-asked", old=" or pages > self.page_table.pages_available", new=""),
    Planted("5.3", "whole-pool", old="pages > self.page_table.pages_available", new="pages > self.page_table.n_pages"),
    Planted(
        "5.3",
        "forgets-the-others",
        code="""
        def admissible(self):
            chosen = []
            for sequence in self.waiting:
                if len(chosen) == len(self.page_table.free_slots):
                    break
                if not self.page_table.can_reserve(0, len(sequence)):
                    break
                if chosen and len(sequence) > self.max_prefill_tokens:
                    break
                chosen.append(sequence)
            return chosen
        """,
    ),
    Planted("5.3", "forgets-the-others", old="pages += ", new="pages = ", note="pages"),
    Planted("5.3", "forgets-the-others", old="tokens += ", new="tokens = ", note="budget"),
    Planted(
        "5.3",
        "no-slot-left",
        old="len(chosen) == len(self.page_table.free_slots) or ",
        new="",
    ),
    Planted(
        "5.3",
        "no-slot-left",
        old="len(chosen) == len(self.page_table.free_slots)",
        new="len(chosen) > len(self.page_table.free_slots)",
        note="one more",
    ),
    Planted(
        "5.3",
        "no-slot-left",
        old="len(self.page_table.free_slots)",
        new="self.page_table.max_batch_size",
        note="all slots",
    ),
    Planted("5.3", "long-starves", old="if chosen and tokens >", new="if tokens >"),
    Planted(
        "5.3",
        "long-not-alone",
        old="if chosen and tokens > self.max_prefill_tokens:",
        new="if len(chosen) == 0 and tokens > self.max_prefill_tokens:\n"
        "                tokens = 0\n            elif tokens > self.max_prefill_tokens:",
    ),
    Planted(
        "5.3",
        "long-not-alone",
        old="if chosen and tokens > self.max_prefill_tokens:",
        new="if chosen and len(chosen[0]) <= self.max_prefill_tokens < tokens:",
        note="no limit",
    ),
    Planted(
        "5.3",
        "skips-ahead",
        code="""
        def admissible(self):
            chosen, tokens, pages = [], 0, 0
            for sequence in self.waiting:
                need = self.page_table.pages_missing(0, len(sequence))
                if len(chosen) == len(self.page_table.free_slots):
                    break
                if pages + need > self.page_table.pages_available:
                    continue
                if chosen and tokens + len(sequence) > self.max_prefill_tokens:
                    continue
                tokens, pages = tokens + len(sequence), pages + need
                chosen.append(sequence)
            return chosen
        """,
    ),
    Planted(
        "5.3",
        "skips-ahead",
        code="""
        def admissible(self):
            chosen, tokens, pages = [], 0, 0
            for sequence in self.waiting:
                need = self.page_table.pages_missing(0, len(sequence))
                if len(chosen) == len(self.page_table.free_slots) or pages + need > self.page_table.pages_available:
                    break
                if chosen and tokens + len(sequence) > self.max_prefill_tokens:
                    continue
                tokens, pages = tokens + len(sequence), pages + need
                chosen.append(sequence)
            return chosen
        """,
        note="budget",
    ),
    Planted(
        "5.3",
        "skips-ahead",
        code="""
        def admissible(self):
            table = self.page_table
            left, chosen = table.pages_available, []
            for sequence in list(self.waiting):
                if len(chosen) >= len(table.free_slots):
                    return chosen
                if table.pages_missing(0, len(sequence)) <= left:
                    if chosen and sum(map(len, chosen)) + len(sequence) > self.max_prefill_tokens:
                        return chosen
                    chosen.append(sequence)
                    left -= table.pages_missing(0, len(sequence))
            return chosen
        """,
        note="pages",
    ),
    Planted(
        "5.3",
        "forgets-output",
        code="""
        def admissible(self):
            chosen, tokens, pages = [], 0, 0
            for sequence in self.waiting:
                length = len(sequence.prompt_ids)
                tokens, pages = tokens + length, pages + self.page_table.pages_missing(0, length)
                if len(chosen) == len(self.page_table.free_slots) or pages > self.page_table.pages_available:
                    break
                if chosen and tokens > self.max_prefill_tokens:
                    break
                chosen.append(sequence)
            return chosen
        """,
    ),
    Planted(
        "5.3", "forgets-output", old="tokens += len(sequence)", new="tokens += len(sequence.prompt_ids)", note="sum"
    ),
    Planted(
        "5.3",
        "forgets-output",
        old="missing(0, len(sequence))",
        new="missing(0, len(sequence.prompt_ids))",
        note="pages",
    ),
    Planted(
        "5.3",
        "takes-them-out",
        old="return chosen",
        new="for sequence in chosen:\n            self.waiting.remove(sequence)\n        return chosen",
    ),
    Planted(
        "5.3",
        "takes-them-out",
        code="""
        def admissible(self):
            chosen, tokens, pages = [], 0, 0
            while self.waiting:
                sequence = self.waiting.popleft()
                tokens += len(sequence)
                pages += self.page_table.pages_missing(0, len(sequence))
                if len(chosen) == len(self.page_table.free_slots) or pages > self.page_table.pages_available:
                    break
                if chosen and tokens > self.max_prefill_tokens:
                    break
                chosen.append(sequence)
            return chosen
        """,
        note="and one more",
    ),
    Planted(
        "5.3",
        "one-page-more",
        old="pages_missing(0, len(sequence))",
        new="pages_missing(0, len(sequence) + 1)",
        note="room",
    ),
    Planted("5.3", "", old="return chosen", new="return chosen[::-1]", note="backwards"),
    Planted("5.3", "", old="return chosen", new="return [s.request_id for s in chosen]", note="numbers"),
    Planted("5.3", "", old="in self.waiting:", new="in sorted(self.waiting, key=len):", note="short first"),
    # ------------------------------------------------------------------------------------------------ 5.4
    Planted("5.4", "prefill-always", code="def worth_prefilling(self, candidates):\n    return len(candidates) > 0\n"),
    Planted("5.4", "prefill-always", old=" and not self.prefilled_last", new="", note="one after the other"),
    Planted(
        "5.4",
        "patience-first",
        code="""
        def worth_prefilling(self, candidates):
            if not candidates:
                return False
            if not self.running or self.steps_kept_waiting >= self.patience:
                return True
            return not self.prefilled_last and len(candidates) >= self.min_prefill
        """,
    ),
    Planted(
        "5.4",
        "patience-first",
        code="""
        def worth_prefilling(self, candidates):
            if not candidates or not self.running:
                return bool(candidates)
            return (
                len(candidates) >= self.min_prefill
                or self.steps_kept_waiting >= self.patience
                and not self.prefilled_last
            )
        """,
        note="no brackets",
    ),
    Planted("5.4", "idle-waits", old="if not candidates or not self.running:", new="if not candidates:"),
    Planted(
        "5.4",
        "idle-waits",
        code="""
        def worth_prefilling(self, candidates):
            if not candidates or self.prefilled_last:
                return False
            many = len(candidates) >= self.min_prefill
            return not self.running or many or self.steps_kept_waiting >= self.patience
        """,
        note="after a prefill",
    ),
    Planted(
        "5.4",
        "nobody-there",
        old="if not candidates or not self.running:\n            return bool(candidates)",
        new="if not self.running:\n            return True",
    ),
    Planted(
        "5.4",
        "nobody-there",
        old="if not candidates or not self.running:",
        new="if not self.running:",
        note="due",
    ),
    Planted("5.4", "static-batch", old="return due and not self.prefilled_last", new="return False"),
    Planted("5.4", "needs-both", old="self.min_prefill or self", new="self.min_prefill and self"),
    Planted("5.4", "waits-for-ever", old=" or self.steps_kept_waiting >= self.patience", new=""),
    Planted("5.4", "never-enough", old="len(candidates) >= self.min_prefill or ", new=""),
    Planted("5.4", "one-candidate-more", old="len(candidates) >= self", new="len(candidates) > self"),
    Planted("5.4", "one-step-more", old="self.steps_kept_waiting >= self", new="self.steps_kept_waiting > self"),
    Planted("5.4", "upside-down", old="and not self.prefilled_last", new="and self.prefilled_last"),
    Planted("5.4", "", old="len(candidates) >= self.min_prefill", new="len(self.running) >= self.min_prefill"),
    Planted("5.4", "", old="return due and", new="due and", note="no return"),
    # ------------------------------------------------------------------------------------------------ 5.5
    Planted(
        "5.5", "forgets-output", old="Row(sequence, 0, len(sequence))", new="Row(sequence, 0, len(sequence.prompt_ids))"
    ),
    Planted("5.5", "forgets-output", old="slot, len(sequence))", new="slot, len(sequence.prompt_ids))", note="pages"),
    Planted(
        "5.5",
        "forgets-output",
        code="""
        def admit(self, sequences):
            rows = []
            for sequence in sequences:
                self.waiting.popleft()
                n = len(sequence.prompt_ids)
                sequence.slot, sequence.status = self.page_table.allocate(), Status.RUNNING
                self.page_table.reserve(sequence.slot, n)
                rows.append(Row(sequence=sequence, start=0, n_tokens=n))
            self.running += sequences
            return rows
        """,
        note="both",
    ),
    Planted("5.5", "no-pages", old="            self.page_table.reserve(sequence.slot, len(sequence))\n", new=""),
    Planted("5.5", "room-for-more", old="slot, len(sequence))", new="slot, len(sequence) + 1)"),
    Planted("5.5", "stays-waiting", old="            self.waiting.remove(sequence)\n", new=""),
    Planted("5.5", "loses-the-rest", old="return rows", new="self.waiting.clear()\n        return rows"),
    Planted("5.5", "admits-everyone", old="for sequence in sequences:", new="for sequence in list(self.waiting):"),
    Planted("5.5", "keeps-status", old="            sequence.status = Status.RUNNING\n", new=""),
    Planted("5.5", "not-in-running", old="            self.running.append(sequence)\n", new=""),
    Planted("5.5", "head-of-running", old="self.running.append(sequence)", new="self.running.insert(0, sequence)"),
    Planted(
        "5.5",
        "no-slot",
        code="""
        def admit(self, sequences):
            rows = []
            for sequence in sequences:
                self.waiting.remove(sequence)
                slot = self.page_table.allocate()
                self.page_table.reserve(slot, len(sequence))
                sequence.status = Status.RUNNING
                self.running.append(sequence)
                rows.append(Row(sequence, 0, len(sequence)))
            return rows
        """,
    ),
    Planted("5.5", "no-slot", old="sequence.slot = self.page_table.allocate()", new="pass", note="never asked"),
    Planted(
        "5.5",
        "one-slot",
        code="""
        def admit(self, sequences):
            rows, slot = [], self.page_table.allocate()
            for sequence in sequences:
                self.waiting.remove(sequence)
                sequence.slot = slot
                self.page_table.reserve(sequence.slot, len(sequence))
                sequence.status = Status.RUNNING
                self.running.append(sequence)
                rows.append(Row(sequence, 0, len(sequence)))
            return rows
        """,
    ),
    Planted("5.5", "decode-row", old="Row(sequence, 0, len(sequence))", new="Row(sequence, len(sequence) - 1, 1)"),
    Planted(
        "5.5",
        "decode-row",
        old="Row(sequence, 0, len(sequence))",
        new="Row(sequence, 0, len(sequence) - 1)",
        note="all but the last",
    ),
    Planted(
        "5.5", "", old="self.page_table.reserve(sequence.slot, ", new="self.page_table.reserve(sequence.slot, 1 + 0 * "
    ),
    Planted("5.5", "", old="rows.append(Row(sequence, 0, len(sequence)))", new="rows.append(sequence)", note="no rows"),
    # ------------------------------------------------------------------------------------------------ 5.6
    Planted(
        "5.6",
        "runs-preempted",
        code="""
        def preempt(self, sequence):
            self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status = 0, Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(sequence)
        """,
    ),
    Planted(
        "5.6",
        "runs-preempted",
        old="self.waiting.appendleft(sequence)",
        new="self.waiting.appendleft(sequence)\n        self.running.append(sequence)",
        note="comes back",
    ),
    Planted(
        "5.6",
        "takes-the-last",
        code="""
        def preempt(self, sequence):
            self.running.pop()
            self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status = 0, Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(sequence)
        """,
    ),
    Planted("5.6", "back-of-the-queue", old="self.waiting.appendleft(", new="self.waiting.append("),
    Planted("5.6", "back-of-the-queue", old="self.waiting.appendleft(sequence)", new="self.add(sequence)", note="add"),
    Planted("5.6", "not-queued", old="        self.waiting.appendleft(sequence)\n", new=""),
    Planted(
        "5.6",
        "forgets-output",
        old="self.waiting.appendleft(sequence)",
        new="sequence.output_ids.clear()\n        self.waiting.appendleft(sequence)",
    ),
    Planted(
        "5.6",
        "forgets-output",
        old="sequence.preemptions += 1",
        new="sequence.preemptions, sequence.output_ids = sequence.preemptions + 1, []",
        note="a new list",
    ),
    Planted(
        "5.6",
        "keeps-pages",
        code="""
        def preempt(self, sequence):
            self.running.remove(sequence)
            sequence.slot, sequence.status = 0, Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(sequence)
        """,
    ),
    Planted(
        "5.6",
        "keeps-pages",
        code="""
        def preempt(self, sequence):
            self.running.remove(sequence)
            sequence.status = Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.insert(0, sequence)
        """,
        note="and the slot",
    ),
    Planted(
        "5.6",
        "slot-first",
        code="""
        def preempt(self, sequence):
            self.running.remove(sequence)
            sequence.slot = 0
            self.page_table.erase(sequence.slot)
            sequence.status = Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(sequence)
        """,
    ),
    Planted(
        "5.6",
        "stale-slot",
        code="""
        def preempt(self, sequence):
            self.running.remove(sequence)
            self.page_table.erase(sequence.slot)
            sequence.status = Status.WAITING
            sequence.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(sequence)
        """,
    ),
    Planted("5.6", "keeps-status", old="Status.WAITING", new="Status.RUNNING"),
    Planted("5.6", "keeps-status", old="Status.WAITING", new="Status.FINISHED", note="finished"),
    Planted("5.6", "not-counted", old="        sequence.preemptions += 1\n", new="", note="own"),
    Planted("5.6", "not-counted", old="        self.preemptions += 1\n", new="", note="all"),
    Planted(
        "5.6",
        "not-counted",
        old="        sequence.preemptions += 1\n        self.preemptions += 1\n",
        new="",
        note="neither",
    ),
    Planted(
        "5.6",
        "",
        old="self.preemptions += 1",
        new="self.preemptions += 1\n        sequence.prompt_ids, sequence.output_ids = sequence.token_ids, []",
        note="all becomes prompt",
    ),
    Planted("5.6", "", old="sequence.preemptions += 1", new="sequence.preemptions += 2", note="counts double"),
    Planted("5.6", "", old="self.waiting.appendleft(sequence)", new="self.waiting.insert(1, sequence)", note="second"),
    # ------------------------------------------------------------------------------------------------ 5.7
    Planted(
        "5.7",
        "keeps-pages",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            (self.running if sequence.status is Status.RUNNING else self.waiting).remove(sequence)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
    ),
    Planted(
        "5.7",
        "keeps-pages",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            (self.running if sequence.status is Status.RUNNING else self.waiting).remove(sequence)
            sequence.status, sequence.finish_reason = Status.FINISHED, reason
        """,
        note="and the slot",
    ),
    Planted(
        "5.7",
        "stale-slot",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            (self.running if sequence.status is Status.RUNNING else self.waiting).remove(sequence)
            if sequence.slot:
                self.page_table.erase(sequence.slot)
            sequence.status, sequence.finish_reason = Status.FINISHED, reason
        """,
    ),
    Planted(
        "5.7",
        "still-running",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            if sequence.slot:
                self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
    ),
    Planted(
        "5.7",
        "keeps-status",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            self._release(sequence, sequence.status)
            sequence.finish_reason = reason
        """,
    ),
    Planted("5.7", "no-reason", old="            sequence.finish_reason = reason\n", new=""),
    Planted(
        "5.7",
        "only-running",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            self.running.remove(sequence)
            self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
    ),
    Planted(
        "5.7",
        "only-running",
        old="if sequence.status is not Status.FINISHED:",
        new="if sequence.status is Status.RUNNING:",
        note="does nothing",
    ),
    Planted(
        "5.7",
        "only-running",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.FINISHED:
                return
            if sequence in self.running:
                self.running.remove(sequence)
                self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
        note="stays in the queue",
    ),
    Planted("5.7", "double-finish", old="if sequence.status is not Status.FINISHED:", new="if True:"),
    Planted(
        "5.7",
        "double-finish",
        code="""
        def finish(self, sequence, reason):
            if sequence.status is Status.RUNNING:
                self.running.remove(sequence)
                self.page_table.erase(sequence.slot)
            else:
                self.waiting.remove(sequence)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
        note="raises",
    ),
    Planted("5.7", "", old="sequence.finish_reason = reason", new="sequence.finish_reason = reason.upper()"),
    Planted(
        "5.7",
        "",
        old="sequence.finish_reason = reason",
        new="self.outgrown.append(sequence); sequence.finish_reason = reason",
        note="listed",
    ),
    # ------------------------------------------------------------------------------------------------ 5.8
    Planted(
        "5.8",
        "wrong-edge",
        old="reserve(sequence.slot, len(sequence))",
        new="reserve(sequence.slot, len(sequence) - 1)",
    ),
    Planted(
        "5.8",
        "wrong-edge",
        old="reserve(sequence.slot, len(sequence))",
        new="reserve(sequence.slot, len(sequence) + 1)",
        note="next",
    ),
    Planted(
        "5.8",
        "wrong-edge",
        old="if self.page_table.reserve(sequence.slot, len(sequence)):",
        new="if len(sequence) % self.page_table.page_size or self.page_table.reserve(sequence.slot, len(sequence) + 1):",
        note="next if full",
    ),
    Planted(
        "5.8",
        "wrong-edge",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                length = len(sequence)
                if length > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                while sequence.status is Status.RUNNING:
                    ok = True
                    if length % self.page_table.page_size == 0:
                        ok = self.page_table.reserve(sequence.slot, length)
                    if ok:
                        rows.append(Row(sequence, length - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
        note="old if full",
    ),
    Planted(
        "5.8",
        "pages-of-one",
        old="if self.page_table.reserve(sequence.slot, len(sequence)):",
        new="if len(sequence) % self.page_table.page_size != 1 or self.page_table.reserve(sequence.slot, len(sequence)):",
    ),
    Planted("5.8", "row-beside", old="Row(sequence, len(sequence) - 1, 1)", new="Row(sequence, len(sequence), 1)"),
    Planted(
        "5.8",
        "row-beside",
        old="Row(sequence, len(sequence) - 1, 1)",
        new="Row(sequence, 0, len(sequence))",
        note="all",
    ),
    Planted(
        "5.8",
        "row-beside",
        old="Row(sequence, len(sequence) - 1, 1)",
        new="Row(sequence, len(sequence.output_ids) - 1, 1)",
        note="output",
    ),
    Planted(
        "5.8",
        "runs-preempted",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                    continue
                while not self.page_table.reserve(sequence.slot, len(sequence)):
                    self.preempt(self.running[-1])
                rows.append(Row(sequence, len(sequence) - 1, 1))
            return rows
        """,
        note="raises",
    ),
    Planted(
        "5.8",
        "runs-preempted",
        code="""
        def grow(self):
            batch = list(self.running)
            for sequence in batch:
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        break
                    self.preempt(self.running[-1])
            return [Row(s, len(s) - 1, 1) for s in batch if s not in self.outgrown]
        """,
        note="all",
    ),
    Planted(
        "5.8",
        "runs-preempted",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if sequence.status is not Status.RUNNING:
                    if len(sequence) > self.longest:
                        self.finish(sequence, "out_of_pages")
                        self.outgrown.append(sequence)
                    continue
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                    continue
                while not self.page_table.reserve(sequence.slot, len(sequence)):
                    victim = self.running[-1]
                    self.preempt(victim)
                    if victim is sequence:
                        break
                rows.append(Row(sequence, len(sequence) - 1, 1))
            return rows
        """,
        note="self",
    ),
    Planted(
        "5.8",
        "runs-preempted",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                    continue
                while not self.page_table.reserve(sequence.slot, len(sequence)):
                    victim = self.running[-1]
                    self.preempt(victim)
                    if victim is sequence:
                        break
                else:
                    rows.append(Row(sequence, len(sequence) - 1, 1))
            return rows
        """,
        note="raises at the victim's turn",
    ),
    Planted(
        "5.8",
        "ignores-the-answer",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                else:
                    self.page_table.reserve(sequence.slot, len(sequence))
                    rows.append(Row(sequence, len(sequence) - 1, 1))
            return rows
        """,
    ),
    Planted(
        "5.8",
        "one-victim",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                if sequence.status is not Status.RUNNING:
                    continue
                if self.page_table.reserve(sequence.slot, len(sequence)):
                    rows.append(Row(sequence, len(sequence) - 1, 1))
                else:
                    self.preempt(self.running[-1])
            return rows
        """,
    ),
    Planted(
        "5.8",
        "one-victim",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                if sequence.status is not Status.RUNNING:
                    continue
                if not self.page_table.reserve(sequence.slot, len(sequence)):
                    self.preempt(self.running[-1])
                if sequence.status is Status.RUNNING:
                    rows.append(Row(sequence, len(sequence) - 1, 1))
            return rows
        """,
        note="never asks again",
    ),
    Planted(
        "5.8",
        "stops-after-giving-way",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                gave_way = False
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
                    gave_way = True
                if gave_way:
                    break
            return rows
        """,
    ),
    Planted("5.8", "oldest-gives-way", old="self.preempt(self.running[-1])", new="self.preempt(self.running[0])"),
    Planted("5.8", "gives-way-itself", old="self.preempt(self.running[-1])", new="self.preempt(sequence)"),
    Planted(
        "5.8",
        "never-itself",
        old="self.preempt(self.running[-1])",
        new="self.preempt(([s for s in self.running if s is not sequence] or [sequence])[-1])",
    ),
    Planted(
        "5.8",
        "sits-there",
        old="self.preempt(self.running[-1])",
        new="if self.running[-1] is sequence:\n                    break\n                self.preempt(self.running[-1])",
    ),
    Planted("5.8", "newest-first", old="in list(self.running)", new="in list(reversed(self.running))"),
    Planted(
        "5.8",
        "ends-the-newest",
        old="self.preempt(self.running[-1])",
        new="""if self.running[-1] is sequence:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                else:
                    self.preempt(self.running[-1])""",
    ),
    Planted("5.8", "self-preempt", old="if len(sequence) > self.longest]", new="if False]"),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                while sequence.status is Status.RUNNING:
                    if self.page_table.can_reserve(sequence.slot, len(sequence)):
                        self.page_table.reserve(sequence.slot, len(sequence))
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
        note="asks first",
    ),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                assert len(sequence) <= self.longest
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
        note="asserts",
    ),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                while sequence.status is Status.RUNNING:
                    if self.page_table.can_reserve(sequence.slot, len(sequence)):
                        self.page_table.reserve(sequence.slot, len(sequence))
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    if len(self.running) > 1 or len(sequence) <= self.longest:
                        self.preempt(self.running[-1])
            return rows
        """,
        note="for ever",
    ),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                while sequence.status is Status.RUNNING:
                    if self.page_table.can_reserve(sequence.slot, len(sequence)):
                        self.page_table.reserve(sequence.slot, len(sequence))
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    if len(self.running) == 1:
                        raise RuntimeError("out of pages")
                    self.preempt(self.running[-1])
            return rows
        """,
        note="raises when alone",
    ),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if sequence.status is Status.RUNNING and len(sequence) > self.longest:
                    self.preempt(sequence)
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
        note="waits",
    ),
    Planted(
        "5.8",
        "self-preempt",
        code="""
        def grow(self):
            rows = []
            for sequence in self.running[:]:
                while sequence in self.running:
                    try:
                        fits = self.page_table.reserve(sequence.slot, len(sequence))
                    except ValueError as error:
                        raise MemoryError("out of pages") from error
                    if fits:
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
        note="raises in its turn",
    ),
    Planted(
        "5.8",
        "outgrown-waits",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                if sequence.status is not Status.RUNNING:
                    continue
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
    ),
    Planted(
        "5.8",
        "in-vain",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                while sequence.status is Status.RUNNING:
                    if self.page_table.can_reserve(sequence.slot, len(sequence)):
                        self.page_table.reserve(sequence.slot, len(sequence))
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    if self.running == [sequence]:
                        self.finish(sequence, "out_of_pages")
                        self.outgrown.append(sequence)
                    else:
                        self.preempt(self.running[-1])
            return rows
        """,
    ),
    Planted("5.8", "ends-early", old="len(sequence) > self.longest", new="len(sequence) >= self.longest"),
    Planted("5.8", "pool-not-row", old="> self.longest]", new="> self.page_table.n_pages * self.page_table.page_size]"),
    Planted("5.8", "not-listed", old="            self.outgrown.append(sequence)\n", new=""),
    Planted(
        "5.8",
        "skips-the-next",
        code="""
        def grow(self):
            rows = []
            for sequence in self.running:
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                    continue
                while sequence.status is Status.RUNNING:
                    if self.page_table.reserve(sequence.slot, len(sequence)):
                        rows.append(Row(sequence, len(sequence) - 1, 1))
                        break
                    self.preempt(self.running[-1])
            return rows
        """,
    ),
    Planted("5.8", "another-name", old='finish(sequence, "out_of_pages")', new='finish(sequence, "length")'),
    Planted("5.8", "another-name", old='(sequence, "out_of_pages")', new='(sequence, "out of pages")', note="spaces"),
    Planted(
        "5.8", "", old="rows.append(Row(sequence, len(sequence) - 1, 1))", new="rows.append(sequence)", note="no rows"
    ),
    Planted(
        "5.8",
        "",
        old="self.preempt(self.running[-1])",
        new="self.preempt(max(self.running, key=len))",
        note="the longest gives way",
    ),
    Planted(
        "5.8",
        "",
        old="reserve(sequence.slot, len(sequence))",
        new="reserve(sequence.slot, min(self.longest, len(sequence) + self.page_table.page_size))",
        note="a page ahead",
    ),
    # ------------------------------------------------------------------------------------------------ 5.9
    Planted(
        "5.9", "prefill-always", old="self.worth_prefilling(candidates)", new="bool(candidates)", note="never asks"
    ),
    Planted(
        "5.9",
        "prefill-always",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                if self.worth_prefilling(candidates):
                    self.steps_kept_waiting = 0
                    return self.admit(candidates)
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
                if rows := self.grow():
                    return rows
            return []
        """,
        note="never notes",
    ),
    Planted(
        "5.9",
        "static-batch",
        old="self.worth_prefilling(candidates)",
        new="not self.running and self.worth_prefilling(candidates)",
    ),
    Planted(
        "5.9",
        "static-batch",
        note="never unset",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                if self.worth_prefilling(candidates):
                    self.prefilled_last = True
                    self.steps_kept_waiting = 0
                    return self.admit(candidates)
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
                if rows := self.grow():
                    return rows
            return []
        """,
    ),
    Planted(
        "5.9",
        "never-counts",
        old="            self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0\n",
        new="",
    ),
    Planted("5.9", "never-starts-anew", old="                self.steps_kept_waiting = 0\n", new=""),
    Planted(
        "5.9",
        "counts-alone",
        old="self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0",
        new="self.steps_kept_waiting += 1",
    ),
    Planted(
        "5.9",
        "counts-too-soon",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                self.steps_kept_waiting += bool(candidates)
                self.prefilled_last = self.worth_prefilling(candidates)
                if self.prefilled_last:
                    self.steps_kept_waiting = 0
                    return self.admit(candidates)
                if rows := self.grow():
                    return rows
            return []
        """,
    ),
    Planted(
        "5.9", "mixed-step", old="return self.admit(candidates)", new="return self.admit(candidates) + self.grow()"
    ),
    Planted(
        "5.9",
        "mixed-step",
        old="return self.admit(candidates)",
        new="return self.grow() + self.admit(candidates)",
        note="decode first",
    ),
    Planted(
        "5.9",
        "empty-step",
        code="""
        def next_step(self):
            candidates = self.admissible()
            self.prefilled_last = self.worth_prefilling(candidates)
            if self.prefilled_last:
                self.steps_kept_waiting = 0
                return self.admit(candidates)
            self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
            return self.grow()
        """,
    ),
    Planted("5.9", "no-way-out", old="while self.has_work:", new="while True:"),
    Planted(
        "5.9",
        "self-preempt",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                self.prefilled_last = self.worth_prefilling(candidates)
                if self.prefilled_last:
                    self.steps_kept_waiting = 0
                    return self.admit(candidates)
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
                rows = []
                for sequence in list(self.running):
                    while sequence.status is Status.RUNNING:
                        if self.page_table.can_reserve(sequence.slot, len(sequence)):
                            self.page_table.reserve(sequence.slot, len(sequence))
                            rows.append(Row(sequence, len(sequence) - 1, 1))
                            break
                        self.preempt(self.running[-1])
                if rows:
                    return rows
            return []
        """,
    ),
    Planted(
        "5.9",
        "runs-preempted",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                self.prefilled_last = self.worth_prefilling(candidates)
                if self.prefilled_last:
                    self.steps_kept_waiting = 0
                    return self.admit(candidates)
                self.steps_kept_waiting = self.steps_kept_waiting + 1 if candidates else 0
                before = list(self.running)
                if self.grow():
                    return [Row(s, len(s) - 1, 1) for s in before if s.status is not Status.FINISHED]
            return []
        """,
    ),
    Planted(
        "5.9",
        "forgets-output",
        old="return self.admit(candidates)",
        new="return [Row(row.sequence, 0, len(row.sequence.prompt_ids)) for row in self.admit(candidates)]",
    ),
    Planted("5.9", "", old="return self.admit(candidates)", new="return self.admit(candidates[:1])", note="one by one"),
    Planted("5.9", "", old="            return rows\n", new="            return rows[::-1][1:]\n", note="loses a row"),
    Planted("5.9", "", old="return self.admit(candidates)", new="return candidates", note="no rows"),
]
