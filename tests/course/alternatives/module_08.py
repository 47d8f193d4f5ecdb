"""Other right answers in module 08."""

from planting import Alternative

ALTERNATIVES = [
    Alternative(
        "8.1",
        "zip of one iterator",
        "def pages_of(self, token_ids):\n    return list(zip(*[iter(token_ids)] * self.page_size))\n",
    ),
    Alternative(
        "8.1",
        "token by token",
        """
def pages_of(self, token_ids):
    pages, page = [], ()
    for token in token_ids:
        page += (token,)
        if len(page) == self.page_size:
            pages.append(page)
            page = ()
    return pages
""",
    ),
    Alternative(
        "8.1",
        "how many, then slices; the whole as a tuple",
        """
def pages_of(self, token_ids):
    n, rest = divmod(len(token_ids), self.page_size)
    tokens = tuple(token_ids)
    return tuple(tokens[i * self.page_size : (i + 1) * self.page_size] for i in range(n))
""",
    ),
    Alternative(
        "8.2",
        "key and number by themselves",
        """
def lookup(self, token_ids):
    found, key, number = [], 0, 0
    for tokens in self.pages_of(token_ids):
        key = self.hash_page(key, tokens)
        if key not in self.by_key:
            return found
        entry = self.by_key[key]
        if (entry.parent, entry.token_ids) != (number, tokens):
            return found
        number = entry.number
        found.append(entry)
    return found
""",
    ),
    Alternative(
        "8.2",
        "recursive",
        """
def lookup(self, token_ids):
    def behind(before, pages):
        if not pages:
            return []
        first, *rest = pages
        entry = self.by_key.get(self.hash_page(before.key, first), ROOT)
        if entry.token_ids == first and entry.parent == before.number:
            return [entry, *behind(entry, rest)]
        return []

    return behind(ROOT, self.pages_of(token_ids))
""",
    ),
    Alternative(
        "8.2",
        "over the whole index, a list of all keys first",
        """
def lookup(self, token_ids):
    pages = self.pages_of(token_ids)
    keys = [0]
    for page in pages:
        keys.append(self.hash_page(keys[-1], page))
    run = [ROOT]
    for key, page in zip(keys[1:], pages):
        same = [
            entry
            for entry in self.by_page.values()
            if entry.key == key and entry.token_ids == page and entry.parent == run[-1].number
        ]
        if not same:
            break
        run += same
    return run[1:]
""",
    ),
    Alternative(
        "8.2",
        "from child to child, without a key",
        """
def lookup(self, token_ids):
    run = [ROOT]
    for tokens in self.pages_of(token_ids):
        children = self._children.get(run[-1].number, {}).values()
        child = next((entry for entry in children if entry.token_ids == tokens), None)
        if child is None:
            break
        run.append(child)
    return run[1:]
""",
    ),
    Alternative(
        "8.3",
        "page by page, asks for each whether it is known",
        """
def insert(self, token_ids, pages):
    before, known = ROOT, True
    for tokens, page in zip(self.pages_of(token_ids), pages):
        key = self.hash_page(before.key, tokens)
        entry = self.by_key.get(key)
        if known and entry is not None and entry.token_ids == tokens and entry.parent == before.number:
            before = entry
            continue
        known = False
        if page == 0:
            return
        if entry is not None:
            self.forget(entry.page)
        if page in self.by_page:
            self.forget(page)
        before = self.enter(before, key, tokens, page)
""",
    ),
    Alternative(
        "8.3",
        "by index, the page first",
        """
def insert(self, token_ids, pages):
    run = [ROOT, *self.lookup(token_ids)]
    tokens = self.pages_of(token_ids)
    n = min(len(tokens), len(pages))
    for i in range(len(run) - 1, n):
        if pages[i] == 0:
            break
        self.forget(pages[i])
        key = self.hash_page(run[-1].key, tokens[i])
        while key in self.by_key:
            self.forget(self.by_key[key].page)
        run.append(self.enter(run[-1], key, tokens[i], pages[i]))
""",
    ),
    Alternative(
        "8.3",
        "nothing new is left out at once; pages up to the first zero",
        """
def insert(self, token_ids, pages):
    from itertools import takewhile

    found = self.lookup(token_ids)
    n = len(found)
    todo = self.pages_of(token_ids)[n:]
    own = list(takewhile(bool, pages[n:]))
    last = found[-1] if found else ROOT
    for tokens, page in zip(todo, own):
        key = self.hash_page(last.key, tokens)
        for other in [page, *(entry.page for entry in [self.by_key.get(key)] if entry is not None)]:
            self.forget(other)
        last = self.enter(last, key, tokens, page)
""",
    ),
    Alternative(
        "8.4",
        "free ones in one slice, from the other end",
        """
def take(self, n):
    table = self.table
    pages = table.free_pages[:n]
    del table.free_pages[:n]
    for page in list(self.idle)[: n - len(pages)]:
        self.idle.pop(page)
        self.index.forget(page)
        pages.append(page)
    for page in pages:
        self.owners[page] += 1
    return pages
""",
    ),
    Alternative(
        "8.4",
        "idle ones are freed first, as many as are missing",
        """
def take(self, n):
    while len(self.table.free_pages) < n:
        oldest, *_ = self.idle
        self.idle.pop(oldest)
        self.index.forget(oldest)
        self.table.free_pages.append(oldest)
    taken = [self.table.free_pages.pop(0) for _ in range(n)]
    for page in taken:
        self.owners[page] = 1
    return taken
""",
    ),
    Alternative(
        "8.4",
        "recursive, the smallest free page",
        """
def take(self, n):
    if n == 0:
        return []
    if self.table.free_pages:
        page = min(self.table.free_pages)
        self.table.free_pages.remove(page)
    else:
        page = list(self.idle)[0]
        self.idle = {other: None for other in self.idle if other != page}
        self.index.forget(page)
    self.owners[page] = 1
    return [page, *self.take(n - 1)]
""",
    ),
    Alternative(
        "8.5",
        "counted first, sorted out afterwards",
        """
def drop(self, pages):
    for page in pages:
        self.owners[page] = self.owners[page] - 1
    left = [page for page in pages if self.owners[page] == 0]
    known = [page for page in left if page in self.index.by_page]
    self.table.free_pages.extend(page for page in left if page not in self.index.by_page)
    self.idle.update(dict.fromkeys(reversed(known)))
""",
    ),
    Alternative(
        "8.5",
        "from the back by index, free ones to the front",
        """
def drop(self, pages):
    for i in range(len(pages) - 1, -1, -1):
        page = pages[i]
        if self.owners[page] > 1:
            self.owners[page] -= 1
            continue
        self.owners[page] = 0
        self.idle.pop(page, None)
        if self.index.by_page.get(page) is None:
            self.table.free_pages.insert(0, page)
        else:
            self.idle[page] = None
""",
    ),
    Alternative(
        "8.5",
        "a list of its own, popped",
        """
def drop(self, pages):
    todo = list(pages)
    free = []
    while todo:
        page = todo.pop()
        self.owners[page] -= 1
        unowned = not self.owners[page]
        if unowned and page in {entry.page for entry in self.index.by_key.values()}:
            self.idle = {**self.idle, page: None}
        elif unowned:
            free = [page, *free]
    self.table.free_pages = free + self.table.free_pages
""",
    ),
    Alternative(
        "8.6",
        "enumerate once, column by column",
        """
def share(self, batch_idx, pages):
    table, row = self.table, []
    for column, page in enumerate(pages):
        table.page_table[batch_idx, column] = page
        row.append(page)
        if page == 0:
            continue
        table.logical_of_page[page] = column
        self.owners[page] += 1
        if page in self.idle:
            del self.idle[page]
    table.owned[batch_idx] = row
    table.capacity[batch_idx] = table.page_size * len(row)
""",
    ),
    Alternative(
        "8.6",
        "tensors, the sink written too",
        """
def share(self, batch_idx, pages):
    table = self.table
    n = len(pages)
    self.idle = {page: None for page in self.idle if page not in set(pages)}
    for page in set(pages):
        self.owners[page] += page > 0
    table.owned[batch_idx].extend(pages)
    table.capacity[batch_idx] += n * table.page_size
    table.page_table[batch_idx] = 0
    table.page_table[batch_idx, :n] = torch.tensor(pages)
    table.logical_of_page[pages] = torch.arange(n, dtype=torch.int32)
""",
    ),
    Alternative(
        "8.6",
        "one field after the other",
        """
def share(self, batch_idx, pages):
    real = {page: logical for logical, page in enumerate(pages) if page}
    for page in real.keys() & self.idle.keys():
        del self.idle[page]
    for page in real:
        self.owners[page] = self.owners[page] + 1
    for page, logical in real.items():
        self.table.logical_of_page[page] = logical
    for logical in range(len(pages)):
        self.table.page_table[batch_idx][logical] = pages[logical]
    self.table.owned[batch_idx] = [page for page in pages]
    self.table.capacity[batch_idx] = self.table.page_size * len(self.table.owned[batch_idx])
""",
    ),
    Alternative(
        "8.7",
        "the three cases one after the other",
        """
def make_writable(self, batch_idx, position):
    table = self.table
    place = position // table.page_size
    old = table.owned[batch_idx][place]
    shared, known = self.owners[old] > 1, old in self.index.by_page
    if not shared and not known:
        return True
    if table.pages_available > 0:
        new = self.take(1)[0]
        self.copies += [(old, new)]
        table.owned[batch_idx] = [*table.owned[batch_idx][:place], new, *table.owned[batch_idx][place + 1 :]]
        table.page_table[batch_idx, place] = new
        table.logical_of_page[new] = place
        self.drop([old])
        return True
    if shared:
        return False
    self.index.forget(old)
    return True
""",
    ),
    Alternative(
        "8.7",
        "drops first, then takes",
        """
def make_writable(self, batch_idx, position):
    table = self.table
    logical, _ = divmod(position, table.page_size)
    page = int(table.page_table[batch_idx, logical])
    alone = self.owners[page] == 1
    if alone and self.index.by_page.get(page) is None:
        return True
    if table.pages_available == 0:
        if alone:
            self.index.forget(page)
        return alone
    table.drop([page])
    new = table.take(1)[0]
    table.page_table[batch_idx, logical] = new
    table.owned[batch_idx][logical] = new
    table.logical_of_page[new] = table.logical_of_page[page]
    self.copies.append([page, new])
    return True
""",
    ),
    Alternative(
        "8.7",
        "keeps the books by hand",
        """
def make_writable(self, batch_idx, position):
    table = self.table
    logical = position // table.page_size
    page = table.owned[batch_idx][logical]
    if self.owners[page] < 2 and page not in self.index.by_page:
        return True
    if not self.table.free_pages and not self.idle:
        if self.owners[page] != 1:
            return False
        self.index.forget(page)
        return True
    [new] = table.take(1)
    self.owners[page] -= 1
    if self.owners[page] == 0:
        self.idle[page] = None
    for listed in (table.owned[batch_idx], table.page_table[batch_idx]):
        listed[logical] = new
    table.logical_of_page[new] = logical
    self.copies.append((page, new))
    return True
""",
    ),
]
