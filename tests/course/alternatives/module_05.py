"""Other right answers in module 05."""

from planting import Alternative

LISTS = """
def __init__(self, page_table, max_prefill_tokens, min_prefill=None, patience=16):
    self.page_table, self.max_prefill_tokens, self.patience = page_table, max_prefill_tokens, patience
    self.min_prefill = min_prefill or max(1, page_table.max_batch_size // 16)
    self.waiting, self.running, self.outgrown = [], [], []
    self.steps_kept_waiting, self.prefilled_last, self.preemptions = 0, False, 0
"""
"""Lists for all queues."""

PREEMPT_IN_A_LIST = """
def preempt(self, sequence):
    del self.running[self.running.index(sequence)]
    self.page_table.erase(sequence.slot)
    sequence.slot, sequence.status = 0, Status.WAITING
    sequence.preemptions, self.preemptions = sequence.preemptions + 1, self.preemptions + 1
    self.waiting.insert(0, sequence)
"""

ALTERNATIVES: list[Alternative] = [
    # ------------------------------------------------------------------------------------------------ 5.1
    Alternative(
        "5.1",
        "a set of ends",
        code="""
        def check_done(self):
            made = len(self.output_ids)
            ends = set(self.params.stop_token_ids)
            ends.update(() if self.params.ignore_eos else self.eos_token_ids)
            if made and self.output_ids[-1] in ends:
                return "stop"
            full = made >= self.params.max_new_tokens or len(self.prompt_ids) + made >= self.max_length
            return "length" if made and full else None
        """,
    ),
    Alternative(
        "5.1",
        "asked after each token, so equality is enough",
        code="""
        def check_done(self):
            match self.output_ids:
                case []:
                    return None
                case [*_, newest] if newest in self.params.stop:
                    return "stop"
                case [*_, newest] if newest in self.eos_token_ids and not self.params.ignore_eos:
                    return "stop"
            if len(self.output_ids) == self.params.max_new_tokens or len(self.token_ids) == self.max_length:
                return "length"
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.2
    Alternative(
        "5.2",
        "a list, pages counted",
        code="""
        def add(self, sequence):
            pages = -(-len(sequence) // self.page_table.page_size)
            if pages > self.page_table.pages_per_row:
                raise ValueError(f"{pages} pages")
            self.waiting = [*self.waiting, sequence]
        """,
        also={"Scheduler.__init__": LISTS},
    ),
    Alternative(
        "5.2",
        "an error of its own",
        code="""
        def add(self, sequence):
            class NeverFits(ValueError):
                pass

            if not len(sequence) <= self.longest:
                raise NeverFits
            self.waiting.extend([sequence])
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.3
    Alternative(
        "5.3",
        "the longest head",
        code="""
        def admissible(self):
            table, queue = self.page_table, list(self.waiting)
            best = []
            for k in range(1, min(len(queue), len(table.free_slots)) + 1):
                head = queue[:k]
                if sum(table.pages_missing(0, len(s)) for s in head) > table.pages_available:
                    break
                if k > 1 and sum(map(len, head)) > self.max_prefill_tokens:
                    break
                best = head
            return best
        """,
    ),
    Alternative(
        "5.3",
        "counting down",
        code="""
        def admissible(self):
            slots = self.page_table.max_batch_size - len(self.running)
            pages, budget = self.page_table.pages_available, self.max_prefill_tokens
            taken = []
            for sequence in self.waiting:
                tokens = len(sequence.prompt_ids) + len(sequence.output_ids)
                slots, budget = slots - 1, budget - tokens
                pages -= (tokens + self.page_table.page_size - 1) // self.page_table.page_size
                if slots < 0 or pages < 0 or (taken and budget < 0):
                    return tuple(taken)
                taken += [sequence]
            return tuple(taken)
        """,
    ),
    Alternative(
        "5.3",
        "the queue as a list",
        code="""
        def admissible(self):
            from itertools import accumulate, takewhile

            free = self.page_table.pages_available
            lengths = [len(s) for s in self.waiting]
            tokens = accumulate(lengths)
            pages = accumulate(self.page_table.pages_missing(0, n) for n in lengths)
            fits = takewhile(
                lambda x: x[2] <= free and (x[0] == 0 or x[1] <= self.max_prefill_tokens),
                zip(range(len(self.page_table.free_slots)), tokens, pages),
            )
            return self.waiting[: len(list(fits))]
        """,
        also={"Scheduler.__init__": LISTS, "Scheduler.preempt": PREEMPT_IN_A_LIST},
    ),
    # ------------------------------------------------------------------------------------------------ 5.4
    Alternative(
        "5.4",
        "one expression",
        code="""
        def worth_prefilling(self, candidates):
            return bool(candidates) and (
                not self.running
                or not self.prefilled_last
                and (len(candidates) >= self.min_prefill or self.steps_kept_waiting >= self.patience)
            )
        """,
    ),
    Alternative(
        "5.4",
        "by cases, the empty list as False",
        code="""
        def worth_prefilling(self, candidates):
            if len(self.running) == 0:
                return candidates
            if self.prefilled_last:
                return False
            if candidates and len(candidates) - self.min_prefill >= 0:
                return True
            return len(candidates) > 0 and self.patience <= self.steps_kept_waiting
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.5
    Alternative(
        "5.5",
        "from the head of a list",
        code="""
        def admit(self, sequences):
            n = len(sequences)
            self.waiting[:n] = []
            for sequence in sequences:
                sequence.status, sequence.slot = Status.RUNNING, self.page_table.allocate()
                if not self.page_table.reserve(sequence.slot, len(sequence.token_ids)):
                    raise AssertionError("admissible counted other pages")
            self.running.extend(sequences)
            return [Row(sequence=s, start=0, n_tokens=len(s)) for s in sequences]
        """,
        also={"Scheduler.__init__": LISTS, "Scheduler.preempt": PREEMPT_IN_A_LIST},
    ),
    Alternative(
        "5.5",
        "slots first, then pages, rows backwards",
        code="""
        def admit(self, sequences):
            chosen = list(sequences)
            slots = [self.page_table.allocate() for _ in chosen]
            for slot, sequence in zip(slots[::-1], chosen):
                sequence.slot = slot
                self.page_table.reserve(slot, len(sequence))
            self.waiting = type(self.waiting)(s for s in self.waiting if s not in chosen)
            self.running = self.running + chosen
            for sequence in chosen:
                sequence.status = Status.RUNNING
            return [Row(s, 0, len(s)) for s in reversed(chosen)]
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.6
    Alternative("5.6", "lists", code=PREEMPT_IN_A_LIST, also={"Scheduler.__init__": LISTS}),
    Alternative(
        "5.6",
        "a new deque",
        code="""
        def preempt(self, sequence):
            slot, sequence.slot = sequence.slot, 0
            self.page_table.erase(slot)
            self.running = [other for other in self.running if other is not sequence]
            self.waiting = deque([sequence, *self.waiting])
            sequence.status = Status.WAITING
            self.preemptions = self.preemptions + 1
            sequence.preemptions = sequence.preemptions + 1
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.7
    Alternative(
        "5.7",
        "by lists",
        code="""
        def finish(self, sequence, reason):
            if sequence.finish_reason is not None or sequence.status is Status.FINISHED:
                return
            for queue in (self.running, self.waiting):
                if sequence in queue:
                    queue.remove(sequence)
            if sequence.slot != 0:
                self.page_table.erase(sequence.slot)
                sequence.slot = 0
            sequence.status = Status.FINISHED
            sequence.finish_reason = reason
        """,
    ),
    Alternative(
        "5.7",
        "new queues",
        code="""
        def finish(self, sequence, reason):
            match sequence.status:
                case Status.FINISHED:
                    return None
                case Status.WAITING:
                    self.waiting = deque(s for s in self.waiting if s is not sequence)
                case Status.RUNNING:
                    self.running = [s for s in self.running if s is not sequence]
                    self.page_table.erase(sequence.slot)
            sequence.slot, sequence.status, sequence.finish_reason = 0, Status.FINISHED, reason
        """,
    ),
    # ------------------------------------------------------------------------------------------------ 5.8
    Alternative(
        "5.8",
        "too long ones first",
        code="""
        def grow(self):
            for sequence in [s for s in self.running if len(s) > self.longest]:
                self.finish(sequence, "out_of_pages")
                self.outgrown.append(sequence)
            served = 0
            while served < len(self.running):
                sequence = self.running[served]
                if self.page_table.reserve(sequence.slot, len(sequence)):
                    served += 1
                else:
                    self.preempt(self.running[-1])
            return [Row(sequence, len(sequence) - 1, 1) for sequence in self.running]
        """,
    ),
    Alternative(
        "5.8",
        "pages asked for, only at the edge",
        code="""
        def grow(self):
            table, rows = self.page_table, {}
            for sequence in self.running.copy():
                n = len(sequence)
                if n > self.longest and sequence not in self.outgrown:
                    self.outgrown.append(sequence)
                    self.finish(sequence, "out_of_pages")
                if sequence.status is not Status.RUNNING:
                    continue
                if table.page_size == 1 or n % table.page_size == 1:
                    while sequence.status is Status.RUNNING and table.pages_missing(sequence.slot, n) > table.pages_available:
                        victim = self.running[-1]
                        if len(victim) > self.longest:
                            self.outgrown.append(victim)
                            self.finish(victim, "out_of_pages")
                        else:
                            self.preempt(victim)
                    if sequence.status is Status.RUNNING:
                        table.reserve(sequence.slot, n)
                if sequence.status is Status.RUNNING:
                    rows[sequence.request_id] = Row(sequence, n - 1, 1)
            return list(rows.values())[::-1]
        """,
    ),
    Alternative(
        "5.8",
        "one victim is always enough",
        code="""
        def grow(self):
            rows = []
            for sequence in list(self.running):
                n = len(sequence)
                if n > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                if sequence.status is not Status.RUNNING:
                    continue
                if not self.page_table.reserve(sequence.slot, n):
                    # Nobody needs more than one page in a step, and whoever runs has at least one.
                    self.preempt(self.running[-1])
                    if sequence.status is not Status.RUNNING:
                        continue
                    self.page_table.reserve(sequence.slot, n)
                rows.append(Row(sequence, n - 1, 1))
            return rows
        """,
    ),
    Alternative(
        "5.8",
        "the queue as a list",
        code="""
        def grow(self):
            todo, rows = list(self.running), []
            while todo:
                sequence = todo[0]
                if len(sequence) > self.longest:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown += [sequence]
                    todo.pop(0)
                elif sequence not in self.running:
                    todo.pop(0)
                elif self.page_table.reserve(sequence.slot, len(sequence)):
                    rows.append(Row(todo.pop(0), len(sequence) - 1, 1))
                else:
                    self.preempt(self.running[-1])
            return rows
        """,
        also={"Scheduler.__init__": LISTS, "Scheduler.preempt": PREEMPT_IN_A_LIST},
    ),
    # ------------------------------------------------------------------------------------------------ 5.9
    Alternative(
        "5.9",
        "by recursion",
        code="""
        def next_step(self):
            if not (self.running or self.waiting):
                self.prefilled_last = False
                return []
            candidates = self.admissible()
            if self.worth_prefilling(candidates):
                self.prefilled_last, self.steps_kept_waiting = True, 0
                return self.admit(candidates)
            self.prefilled_last = False
            rows = self.grow()
            if candidates and rows:
                self.steps_kept_waiting += 1
            elif not candidates:
                self.steps_kept_waiting = 0
            return rows or self.next_step()
        """,
    ),
    Alternative(
        "5.9",
        "the count goes on while somebody waits",
        code="""
        def next_step(self):
            rows = []
            while not rows and self.has_work:
                candidates = self.admissible()
                prefill = self.worth_prefilling(candidates)
                if prefill:
                    rows = self.admit(candidates)
                    self.steps_kept_waiting = 0
                else:
                    rows = self.grow()
                    if len(self.waiting):
                        self.steps_kept_waiting += 1
                self.prefilled_last = prefill
            return rows
        """,
    ),
    Alternative(
        "5.9",
        "with lists and too long ones first",
        code="""
        def next_step(self):
            while self.has_work:
                candidates = self.admissible()
                self.prefilled_last = bool(self.worth_prefilling(candidates))
                if self.prefilled_last:
                    self.steps_kept_waiting = 0
                    return list(self.admit(candidates))
                if candidates:
                    self.steps_kept_waiting += 1
                rows = self.grow()
                if rows:
                    return rows
            return []
        """,
        also={
            "Scheduler.__init__": LISTS,
            "Scheduler.preempt": PREEMPT_IN_A_LIST,
            "Scheduler.grow": """
            def grow(self):
                for sequence in [s for s in self.running if len(s) > self.longest]:
                    self.finish(sequence, "out_of_pages")
                    self.outgrown.append(sequence)
                for sequence in list(self.running):
                    while sequence.slot and not self.page_table.reserve(sequence.slot, len(sequence)):
                        self.preempt(self.running[-1])
                return [Row(sequence, len(sequence) - 1, 1) for sequence in self.running]
            """,
        },
    ),
]
