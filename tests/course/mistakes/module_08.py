"""Mistakes in module 08, as edits of the reference or as functions of their own.

Of the mistakes seen in other engines three have no exercise of their own here: "empty-prefill" (a fully cached prompt
computes nothing) would be made in `SharedPages.find`, "born-cached" (a page that is still being computed is copied) in `find`
and `remember`, "stale-count" (pages are counted before the look-up) in `Planner.cost`.  All of these are given.
"""

from planting import Planted

PAGES_OF = "\ndef pages_of(self, token_ids):\n"
ENDS = "ends = range(self.page_size, len(token_ids) + 1, self.page_size)"
CUT = "return [tuple(token_ids[end - self.page_size : end]) for end in ends]"

PAGES = [
    Planted(
        "8.1",
        "keeps-the-rest",
        code=PAGES_OF
        + "    return [tuple(token_ids[i : i + self.page_size]) for i in range(0, len(token_ids), self.page_size)]\n",
    ),
    Planted(
        "8.1",
        "keeps-the-rest",
        note="an empty one too",
        code=PAGES_OF
        + """
    n = len(token_ids) // self.page_size + 1
    return [tuple(token_ids[i * self.page_size : (i + 1) * self.page_size]) for i in range(n)]
""",
    ),
    Planted("8.1", "drops-the-last", old="len(token_ids) + 1", new="len(token_ids)"),
    Planted(
        "8.1",
        "drops-the-last",
        note="always one less",
        code=PAGES_OF
        + """
    size = self.page_size
    return [tuple(token_ids[i * size : (i + 1) * size]) for i in range(len(token_ids) // size - 1)]
""",
    ),
    Planted("8.1", "overlapping", old="len(token_ids) + 1, self.page_size)", new="len(token_ids) + 1)"),
    Planted("8.1", "from-the-beginning", old="token_ids[end - self.page_size : end]", new="token_ids[:end]"),
    Planted("8.1", "lists", old=CUT, new=CUT.replace("tuple(", "list(")),
    Planted("8.1", "lists", note="slices", old=CUT, new="return [token_ids[e - self.page_size : e] for e in ends]"),
    Planted(
        "8.1",
        "padded",
        code=PAGES_OF
        + """
    tokens, size = list(token_ids), self.page_size
    tokens += [0] * (-len(tokens) % size)
    return [tuple(tokens[i : i + size]) for i in range(0, len(tokens), size)]
""",
    ),
    Planted(
        "8.1",
        "padded",
        note="zip_longest",
        code=PAGES_OF
        + """
    from itertools import zip_longest
    return list(zip_longest(*[iter(token_ids)] * self.page_size, fillvalue=-1))
""",
    ),
    Planted(
        "8.1",
        "takes-the-tokens",
        code=PAGES_OF
        + """
    pages, rest = [], token_ids if isinstance(token_ids, list) else list(token_ids)
    while len(rest) >= self.page_size:
        pages.append(tuple(rest[: self.page_size]))
        del rest[: self.page_size]
    return pages
""",
    ),
    Planted(
        "8.1",
        "lists-only",
        code=PAGES_OF
        + """
    rest, pages = token_ids.copy(), []
    while len(rest) >= self.page_size:
        pages.append(tuple(rest.pop(0) for _ in range(self.page_size)))
    return pages
""",
    ),
    Planted("8.1", "", note="backwards", old=CUT, new=CUT + "[::-1]"),
    Planted("8.1", "", note="the first only", old=CUT, new=CUT + "[:1]"),
    Planted("8.1", "", note="without what was seen", old=CUT, new="return list(dict.fromkeys(" + CUT[7:] + "))"),
    Planted("8.1", "", note="pages of four", code=PAGES_OF + "    return list(zip(*[iter(token_ids)] * 4))\n"),
    Planted("8.1", "", note="nothing comes back", old="return [", new="_ = ["),
]

LOOKUP = "\ndef lookup(self, token_ids):\n"
ASK = "entry is None or entry.token_ids != page_tokens or entry.parent != before.number"
KEY = "self.hash_page(before.key, page_tokens)"

LOOKUPS = [
    Planted(
        "8.2",
        "hole",
        code=LOOKUP
        + """
    found, key = [], 0
    for page_tokens in self.pages_of(token_ids):
        key = self.hash_page(key, page_tokens)
        entry = self.by_key.get(key)
        if entry is not None and entry.token_ids == page_tokens:
            found.append(entry)
    return found
""",
    ),
    Planted("8.2", "hole", note="continue", old="                break\n", new="                continue\n"),
    Planted(
        "8.2",
        "hole",
        note="by key alone",
        code=LOOKUP
        + """
    keys, key = [], 0
    for page_tokens in self.pages_of(token_ids):
        key = self.hash_page(key, page_tokens)
        keys.append(key)
    return [self.by_key[key] for key in keys if key in self.by_key]
""",
    ),
    Planted("8.2", "orphan-hash", old=KEY, new="self.hash_page(0, page_tokens)"),
    Planted(
        "8.2",
        "orphan-hash",
        note="no parent",
        code=LOOKUP
        + """
    found = []
    for page_tokens in self.pages_of(token_ids):
        entry = self.by_key.get(self.hash_page(0, page_tokens))
        if entry is None or entry.token_ids != page_tokens:
            return found
        found.append(entry)
    return found
""",
    ),
    Planted("8.2", "chains-the-number", old=KEY, new="self.hash_page(before.number, page_tokens)"),
    Planted("8.2", "trusts-the-key", old=" or entry.token_ids != page_tokens", new=""),
    Planted("8.2", "trusts-the-key", note="in all", old=ASK, new="entry is None"),
    Planted("8.2", "any-parent", old=" or entry.parent != before.number", new=""),
    Planted("8.2", "other-parent", old="entry.parent != before.number", new="entry.parent != before.key"),
    Planted("8.2", "other-parent", note="page", old="entry.parent != before.number", new="entry.parent != before.page"),
    Planted("8.2", "other-parent", note="place", old="entry.parent != before.number", new="entry.parent != len(found)"),
    Planted("8.2", "leaves-the-last", old="self.pages_of(token_ids)", new="self.pages_of(token_ids[:-1])"),
    Planted(
        "8.2",
        "no-default",
        old="self.by_key.get(self.hash_page(before.key, page_tokens))",
        new="self.by_key[self.hash_page(before.key, page_tokens)]",
    ),
    Planted("8.2", "no-default", note="None", old="entry is None or ", new=""),
    Planted("8.2", "other-hash", old=KEY, new=KEY.removeprefix("self.")),
    Planted("8.2", "other-hash", note="hash", old=KEY, new="hash((before.key, page_tokens))"),
    Planted("8.2", "not-entries", old="found.append(entry)", new="found.append(entry.page)"),
    Planted("8.2", "not-entries", note="pairs", old="found.append(entry)", new="found.append((entry.page, entry.key))"),
    Planted(
        "8.2",
        "changes-the-index",
        code=LOOKUP
        + """
    found, before = [], ROOT
    for page_tokens in self.pages_of(token_ids):
        entry = self.by_key.get(self.hash_page(before.key, page_tokens))
        if entry is None or entry.token_ids != page_tokens or entry.parent != before.number:
            break
        found.append(entry)
        before = entry
    for entry in found:
        self.by_page.pop(entry.page)
    return found
""",
    ),
    Planted(
        "8.2",
        "changes-the-index",
        note="forgets what is not right",
        old="                break\n",
        new="                if entry is not None:\n                    self.forget(entry.page)\n                break\n",
    ),
    Planted("8.2", "", note="the first only", old="            before = entry\n", new="            break\n"),
    Planted("8.2", "", note="backwards", old="        return found\n", new="        return found[::-1]\n"),
    Planted("8.2", "", note="three at most", old="        return found\n", new="        return found[:3]\n"),
    Planted("8.2", "", note="all or nothing", old="                break\n", new="                return []\n"),
    Planted("8.2", "", note="only the last one", old="        return found\n", new="        return found[-1:]\n"),
]

LOOP = "for page_tokens, page in list(zip(self.pages_of(token_ids), pages, strict=False))[len(found) :]:"
WAY = "            if key in self.by_key:\n                self.forget(self.by_key[key].page)\n"
LAST = "before = self.enter(before, key, page_tokens, page)"

INSERTS = [
    Planted("8.3", "replaces-known", old="found = self.lookup(token_ids)", new="found = []"),
    Planted(
        "8.3",
        "stops-at-known",
        old="before = found[-1] if found else ROOT",
        new="if found:\n            return\n        before = ROOT",
    ),
    Planted("8.3", "all-first", old=LAST, new="self.enter(before, key, page_tokens, page)"),
    Planted(
        "8.3",
        "all-first",
        note="at the root",
        code="""
def insert(self, token_ids, pages):
    found = self.lookup(token_ids)
    for page_tokens, page in list(zip(self.pages_of(token_ids), pages))[len(found):]:
        if page == 0:
            return
        key = self.hash_page(0, page_tokens)
        if key in self.by_key:
            self.forget(self.by_key[key].page)
        self.forget(page)
        self.enter(ROOT, key, page_tokens, page)
""",
    ),
    Planted("8.3", "from-the-root", old="found[-1] if found else ROOT", new="ROOT"),
    Planted(
        "8.3",
        "wrong-page",
        old=LOOP,
        new="for page_tokens, page in zip(self.pages_of(token_ids)[len(found) :], pages, strict=False):",
    ),
    Planted("8.3", "leaves-it-in-the-way", old=WAY, new=""),
    Planted(
        "8.3",
        "gives-way",
        old=WAY,
        new="            if key in self.by_key:\n                break\n",
    ),
    Planted(
        "8.3",
        "gives-way",
        note="goes on",
        old=WAY,
        new="            if key in self.by_key:\n                continue\n",
    ),
    Planted("8.3", "page-known-twice", old="            self.forget(page)\n", new=""),
    Planted("8.3", "enters-zero", old="            if not page:\n                break\n", new=""),
    Planted("8.3", "skips-the-zero", old="                break\n", new="                continue\n"),
    Planted("8.3", "other-hash", old="self.hash_page(", new="hash_page("),
    Planted("8.3", "one-page", old=LAST, new=LAST + "\n            break"),
    Planted("8.3", "one-page", note="the last", old="[len(found) :]:", new="[len(found) :][-1:]:"),
    Planted("8.3", "", note="nothing", old=LAST, new="pass"),
    Planted("8.3", "", note="forgets afterwards", old=LAST, new=LAST + "\n            self.forget(page)"),
    Planted(
        "8.3",
        "",
        note="starts anew",
        old="        found = self.lookup(token_ids)\n",
        new="        for page in list(self.by_page):\n            self.forget(page)\n"
        "        found = self.lookup(token_ids)\n",
    ),
    Planted("8.3", "", note="key of the number", old="self.hash_page(before.key,", new="self.hash_page(before.number,"),
]

TAKE = "\ndef take(self, n):\n"
OLDEST = "next(iter(self.idle))"
FREE_POP = "page = self.table.free_pages.pop()"

TAKES = [
    Planted("8.4", "ghost-entry", old="                self.index.forget(page)\n", new=""),
    Planted("8.4", "ref-zero", old="            self.owners[page] = 1\n", new=""),
    Planted("8.4", "ref-zero", note="two", old="self.owners[page] = 1", new="self.owners[page] += 2"),
    Planted("8.4", "idle-first", old="if self.table.free_pages:", new="if not self.idle:"),
    Planted("8.4", "newest-first", old=OLDEST, new="next(reversed(self.idle))"),
    Planted(
        "8.4",
        "newest-first",
        note="popitem",
        code=TAKE
        + """
    pages = []
    while len(pages) < n:
        if self.table.free_pages:
            pages.append(self.table.free_pages.pop())
        else:
            page, _ = self.idle.popitem()
            self.index.forget(page)
            pages.append(page)
        self.owners[pages[-1]] += 1
    return pages
""",
    ),
    Planted("8.4", "by-number", old=OLDEST, new="min(self.idle)"),
    Planted("8.4", "by-number", note="largest", old=OLDEST, new="max(self.idle)"),
    Planted("8.4", "stays-idle", old="                del self.idle[page]\n", new=""),
    Planted(
        "8.4",
        "stays-free",
        code=TAKE
        + """
    free = list(self.table.free_pages)
    pages = []
    for _ in range(n):
        if free:
            page = free.pop()
        else:
            page = next(iter(self.idle))
            self.idle.pop(page)
            self.index.forget(page)
        self.owners[page] = 1
        pages.append(page)
    return pages
""",
    ),
    Planted(
        "8.4",
        "free-only",
        code=TAKE
        + """
    pages = [self.table.free_pages.pop() for _ in range(n)]
    for page in pages:
        self.owners[page] = 1
    return pages
""",
    ),
    Planted(
        "8.4",
        "free-only",
        note="fewer",
        code=TAKE
        + """
    pages = [self.table.free_pages.pop() for _ in range(min(n, len(self.table.free_pages)))]
    for page in pages:
        self.owners[page] = 1
    return pages
""",
    ),
    Planted(
        "8.4",
        "one-kind",
        code=TAKE
        + """
    if len(self.table.free_pages) >= n:
        pages = [self.table.free_pages.pop() for _ in range(n)]
    else:
        pages = list(self.idle)[:n]
        if len(pages) < n:
            raise IndexError("no page")
        for page in pages:
            del self.idle[page]
            self.index.forget(page)
    for page in pages:
        self.owners[page] = 1
    return pages
""",
    ),
    Planted(
        "8.4",
        "forgets-all",
        old="                self.index.forget(page)\n",
        new="                self.index.forget(page)\n"
        "                for other in self.idle:\n                    self.index.forget(other)\n",
    ),
    Planted(
        "8.4",
        "forgets-all",
        note="frees them",
        old="                self.index.forget(page)\n",
        new="                self.index.forget(page)\n"
        "                for other in self.idle:\n                    self.index.forget(other)\n"
        "                self.table.free_pages += list(self.idle)\n                self.idle.clear()\n",
    ),
    Planted("8.4", "one-page", old="for _ in range(n):", new="for _ in range(1):"),
    Planted("8.4", "", note="one more", old="for _ in range(n):", new="for _ in range(n + 1):"),
    Planted("8.4", "", note="one is kept back", old="        return pages\n", new="        return pages[1:]\n"),
    Planted("8.4", "", note="forgets the oldest", old="return pages", new="self.idle.clear()\n        return pages"),
    Planted(
        "8.4",
        "",
        note="second oldest",
        old=OLDEST,
        new="list(self.idle)[min(1, len(self.idle) - 1)]",
    ),
]

DROP = "\ndef drop(self, pages):\n"
COUNT = "            self.owners[page] -= 1\n            if self.owners[page]:\n                continue\n"
REST = """            if page in self.index.by_page:
                self.idle[page] = None
            else:
                self.table.free_pages.append(page)
"""

DROPS = [
    Planted("8.5", "head-first", old="reversed(pages)", new="pages"),
    Planted("8.5", "frees-shared", old=COUNT, new="            self.owners[page] = 0\n"),
    Planted("8.5", "frees-shared", note="counts", old=COUNT, new="            self.owners[page] -= 1\n"),
    Planted(
        "8.5",
        "keeps-the-count",
        old=COUNT,
        new="            if self.owners[page] - 1:\n                continue\n",
    ),
    Planted("8.5", "keeps-the-count", note="not at all", old=COUNT, new=""),
    Planted(
        "8.5",
        "keeps-the-count",
        note="of the last owner",
        old=COUNT,
        new="            if self.owners[page] > 1:\n                self.owners[page] -= 1\n                continue\n",
    ),
    Planted("8.5", "oldest", old="self.idle[page] = None", new="self.idle = {page: None, **self.idle}"),
    Planted(
        "8.5",
        "oldest",
        note="from the first",
        code=DROP
        + """
    for page in pages:
        self.owners[page] -= 1
        if self.owners[page] == 0:
            if page in self.index.by_page:
                self.idle = {page: None} | self.idle
            else:
                self.table.free_pages.append(page)
""",
    ),
    Planted("8.5", "free-though-known", old=REST, new="            self.table.free_pages.append(page)\n"),
    Planted("8.5", "idle-though-unknown", old=REST, new="            self.idle[page] = None\n"),
    Planted(
        "8.5",
        "forgets",
        old=REST,
        new="            self.index.forget(page)\n            self.table.free_pages.append(page)\n",
    ),
    Planted(
        "8.5",
        "free-and-idle",
        old=REST,
        new="            if page in self.index.by_page:\n                self.idle[page] = None\n"
        "            self.table.free_pages.append(page)\n",
    ),
    Planted("8.5", "by-number", old="reversed(pages)", new="sorted(pages)"),
    Planted("8.5", "by-number", note="descending", old="reversed(pages)", new="sorted(pages, reverse=True)"),
    Planted("8.5", "", note="loses them", old="self.table.free_pages.append(page)", new="pass"),
    Planted("8.5", "", note="the first stays", old="reversed(pages)", new="reversed(pages[1:])"),
    Planted(
        "8.5",
        "",
        note="two less",
        old="self.owners[page] -= 1",
        new="self.owners[page] = max(0, self.owners[page] - 2)",
    ),
    Planted("8.5", "", note="forgets the idle", old="for page in", new="self.idle.clear()\n        for page in"),
]

SHARE = "\ndef share(self, batch_idx, pages):\n"
IDLE = "                self.idle.pop(page, None)\n"
CAPACITY = "table.capacity[batch_idx] = len(pages) * table.page_size"
ROW = "table.page_table[batch_idx, : len(pages)] = torch.tensor(pages, dtype=torch.int32)"
LOGICAL = """        for logical, page in enumerate(pages):
            if page:
                table.logical_of_page[page] = logical
"""

SHARES = [
    Planted("8.6", "not-counted", old="                self.owners[page] += 1\n", new=""),
    Planted(
        "8.6",
        "not-counted",
        note="idle ones only",
        old="self.owners[page] += 1",
        new="self.owners[page] += page in self.idle",
    ),
    Planted(
        "8.6",
        "not-counted",
        note="others' only",
        old="self.owners[page] += 1",
        new="self.owners[page] += page not in self.idle",
    ),
    Planted("8.6", "sets-one", old="self.owners[page] += 1", new="self.owners[page] = 1"),
    Planted("8.6", "stays-idle", old=IDLE, new=""),
    Planted("8.6", "forgets-capacity", old=f"        {CAPACITY}\n", new=""),
    Planted("8.6", "capacity-in-pages", old=CAPACITY, new="table.capacity[batch_idx] = len(pages)"),
    Planted(
        "8.6",
        "holes-not-counted",
        old=CAPACITY,
        new="table.capacity[batch_idx] = sum(page > 0 for page in pages) * table.page_size",
    ),
    Planted(
        "8.6",
        "closes-the-holes",
        old="        table = self.table\n",
        new="        table = self.table\n        pages = [page for page in pages if page]\n",
    ),
    Planted("8.6", "forgets-the-row", old=f"        {ROW}\n", new=""),
    Planted(
        "8.6",
        "forgets-the-row",
        note="a copy",
        old="table.page_table[batch_idx, : len(pages)] =",
        new="table.page_table[[batch_idx]][0, : len(pages)] =",
    ),
    Planted("8.6", "forgets-owned", old="        table.owned[batch_idx] = list(pages)\n", new=""),
    Planted("8.6", "forgets-logical", old=LOGICAL, new=""),
    Planted(
        "8.6",
        "logical-without-holes",
        old=LOGICAL,
        new="        for logical, page in enumerate(page for page in pages if page):\n"
        "            table.logical_of_page[page] = logical\n",
    ),
    Planted("8.6", "one-list", old="= list(pages)", new="= pages"),
    Planted("8.6", "forgets", old=IDLE, new=IDLE + "                self.index.forget(page)\n"),
    Planted(
        "8.6",
        "",
        note="pages of its own",
        code=SHARE + "    self.table.reserve(batch_idx, len(pages) * self.table.page_size)\n",
    ),
    Planted("8.6", "", note="backwards", old="torch.tensor(pages,", new="torch.tensor(pages[::-1],"),
    Planted("8.6", "", note="idle is emptied", old=IDLE, new="                self.idle.clear()\n"),
    Planted("8.6", "", note="a page more", old=CAPACITY, new=CAPACITY.replace("len(pages)", "(len(pages) + 1)")),
]

WRITABLE = "\ndef make_writable(self, batch_idx, position):\n"
OWN = "self.owners[page] == 1 and page not in self.index.by_page"
NOTE = "self.copies.append((page, new))"
ROW_OF = "        table.page_table[batch_idx, logical] = new\n"
OWNED_OF = "        table.owned[batch_idx][logical] = new\n"
NO_PAGE = "not table.pages_available"
TAKEN = "        (new,) = table.take(1)\n"

WRITES = [
    Planted("8.7", "shared-tail", code=WRITABLE + "    return True\n"),
    Planted("8.7", "shared-tail", note="if it is known", old=OWN, new="page not in self.index.by_page"),
    Planted("8.7", "known-page", old=OWN, new="self.owners[page] == 1"),
    Planted("8.7", "always-copies", old=f"        if {OWN}:\n            return True\n", new=""),
    Planted(
        "8.7",
        "forgets-too-soon",
        old=f"        if {NO_PAGE}:\n",
        new="        if self.owners[page] == 1:\n            self.index.forget(page)\n            return True\n"
        f"        if {NO_PAGE}:\n",
    ),
    Planted("8.7", "no-copy", old=f"        {NOTE}\n", new=""),
    Planted("8.7", "copies-backwards", old=NOTE, new="self.copies.append((new, page))"),
    Planted("8.7", "one-copy", old=NOTE, new="self.copies = [(page, new)]"),
    Planted("8.7", "forgets-the-row", old=ROW_OF, new=""),
    Planted("8.7", "forgets-the-row", note="owned", old=OWNED_OF, new=""),
    Planted("8.7", "forgets-logical", old="        table.logical_of_page[new] = logical\n", new=""),
    Planted("8.7", "keeps-owning", old="        table.drop([page])\n", new=""),
    Planted(
        "8.7",
        "frees-the-old",
        old="        table.drop([page])\n",
        new="        self.owners[page] -= 1\n        table.free_pages.append(page)\n",
    ),
    Planted(
        "8.7",
        "frees-the-old",
        note="no owner",
        old="        table.drop([page])\n",
        new="        self.owners[page] = 1\n        table.drop([page])\n",
    ),
    Planted(
        "8.7",
        "refuses-the-only-owner",
        old="            if self.owners[page] > 1:\n                return False\n"
        "            self.index.forget(page)\n            return True\n",
        new="            return False\n",
    ),
    Planted("8.7", "leaves-it-known", old="            self.index.forget(page)\n", new=""),
    Planted(
        "8.7",
        "raises-when-full",
        code=WRITABLE
        + """
    table, logical = self.table, position // self.table.page_size
    page = table.owned[batch_idx][logical]
    if self.owners[page] == 1 and page not in self.index.by_page:
        return True
    (new,) = table.take(1)
    table.owned[batch_idx][logical] = new
    table.page_table[batch_idx, logical] = new
    table.logical_of_page[new] = logical
    self.copies.append((page, new))
    table.drop([page])
    return True
""",
    ),
    Planted("8.7", "counts-the-free-only", old=NO_PAGE, new="not table.free_pages"),
    Planted("8.7", "wrong-place", old="position // self.table.page_size", new="position % self.table.page_size"),
    Planted("8.7", "wrong-place", note="last", old="position // self.table.page_size", new="-1"),
    Planted("8.7", "wrong-place", note="position", old="position // self.table.page_size", new="position"),
    Planted(
        "8.7",
        "wrong-place",
        note="one before",
        old="position // self.table.page_size",
        new="(position - 1) // self.table.page_size",
    ),
    Planted(
        "8.7",
        "everybody-moves",
        old=ROW_OF,
        new="        table.page_table[table.page_table == page] = new\n",
    ),
    Planted("8.7", "", note="gives nothing", old="        table.drop([page])\n        return True\n", new=""),
    Planted("8.7", "", note="two pages", old=TAKEN, new="        new, _ = table.take(2)\n"),
    Planted(
        "8.7",
        "",
        note="no for yes",
        old="        table.drop([page])\n        return True\n",
        new="        return False\n",
    ),
    Planted(
        "8.7",
        "",
        note="the new one is known",
        old="        table.drop([page])\n",
        new="        entry = self.index.by_page.get(page)\n        if entry is not None:\n"
        "            self.index.forget(page)\n"
        "            self.index.enter(ROOT, entry.key, entry.token_ids, new)\n        table.drop([page])\n",
    ),
]

MISTAKES = [*PAGES, *LOOKUPS, *INSERTS, *TAKES, *DROPS, *SHARES, *WRITES]
