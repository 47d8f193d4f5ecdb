"""Whatever a request held comes back when it is aborted, running or waiting."""

from course.clinic.bench import engine_for


def test_an_aborted_request_gives_everything_back() -> None:
    with engine_for(max_batch_size=2) as engine:
        table = engine.page_table
        requests = [engine.add_request([5, 6, 7 + n]) for n in range(3)]
        for _ in range(3):
            engine.run_one_step()
        for request in requests:
            assert engine.abort(request)
        table.check()
        assert table.pages_available == table.n_pages
        assert not any(table.is_allocated(slot) for slot in (1, 2))
