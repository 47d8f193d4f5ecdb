"""Case 5: who is aborted keeps slot and pages."""

from course.clinic.case import Case, Edit, Variant

ABORT = ("inference.py", "Inference.abort")
FINISH = ("scheduler.py", "Scheduler.finish")
END = 'self._end(sequence, "aborted"'

CASE = Case(
    number=5,
    slug="aborted-keeps-pages",
    title="Memory that never comes back",
    report="""\
Our server runs for days. Every morning it is a little slower, and after a week it answers nothing any more until it is
restarted. The number of free pages in the log goes down and never comes back to where it was, also at night when nobody is
there. Nothing else is in the log.

It depends on which users are there. Some close their browser in the middle of an answer, and our server calls
`engine.abort(request_id)` then, which returns True and gives the last event as documented. Days without such users cost no
page.
""",
    reproduce='''\
"""What the user did: four users, one after the other, of whom each closes the browser in the middle of the answer."""

from course.clinic.bench import engine_for
from flexnano import SamplingParams

with engine_for(max_batch_size=6) as engine:
    print("free pages at the start", engine.page_table.pages_available)
    for user in range(4):
        request = engine.add_request([5, 6, 7 + user], SamplingParams(max_new_tokens=40))
        for _ in range(10):
            engine.run_one_step()
        engine.abort(request)
        engine.run_one_step()
        print(f"user {user + 1} has gone, nobody is there, free pages", engine.page_table.pages_available)
    lost = engine.page_table.n_pages - engine.page_table.pages_available
    print(f"{lost} pages are lost" if lost else "no page is lost")
''',
    symptom="pages are lost",
    bugs=(
        Variant(
            "without its slot",
            (
                Edit(
                    *ABORT,
                    END,
                    "sequence.slot = 0  # a step that is under way must not write for it any more\n        " + END,
                ),
            ),
        ),
        Variant(
            "nobody erases",
            (
                Edit(
                    *FINISH,
                    "self._release(sequence, Status.FINISHED)",
                    'sequence.slot *= reason != "aborted"\n            self._release(sequence, Status.FINISHED)',
                ),
            ),
        ),
        Variant(
            "pages only",
            (
                Edit(
                    *FINISH,
                    "self._release(sequence, Status.FINISHED)",
                    'if reason == "aborted" and sequence.slot:\n'
                    "                self.page_table.owned[sequence.slot] = []\n"
                    "            self._release(sequence, Status.FINISHED)",
                ),
            ),
        ),
    ),
    twins=(
        Variant(
            "erased by hand",
            (
                Edit(
                    *FINISH,
                    "self._release(sequence, Status.FINISHED)",
                    "queue = self.running if sequence.status is Status.RUNNING else self.waiting\n"
                    "            if sequence in queue:\n"
                    "                queue.remove(sequence)\n"
                    "            slot, sequence.slot, sequence.status = sequence.slot, 0, Status.FINISHED\n"
                    "            if slot:\n"
                    "                self.page_table.erase(slot)",
                ),
            ),
        ),
    ),
    hints=(
        "`PageTable.check` and `pages_available` after every step say when a page goes. Who owns it then, and in which state "
        "is that sequence?",
        "There are two ways out of the engine: an answer ends by itself, or the caller ends it. Compare what happens to the "
        "sequence on each of them, step by step, until its pages are given back.",
        "Whoever ends a sequence must leave it as it is, RUNNING or WAITING, until the one function that frees its slot and "
        "pages has been called; that function does nothing for a sequence that is FINISHED already.",
    ),
    published="blocks of an aborted request that wait for a signal which never comes, until no request is admitted any more",
    address="https://github.com/vllm-project/vllm/issues/46283",
)
