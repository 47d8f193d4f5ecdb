"""In the process with one engine: run a learner's tests, and say what each of them did.

The judge puts the test beside the engine's folder.  So `import flexnano` in the test gives that engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Case = dict[str, Any]
LONGEST = 600  # characters of a message


def tests(case: Case) -> dict[str, Any]:
    """Run the tests in a folder.

    Args:
        case: {"folder": where the test and the engine are, "file": the test}.

    Returns:
        {"trouble": what kept pytest from collecting, or "", "tests": [{"name", "outcome", "kind", "message", "looked"}]}.
        outcome: "passed", "failed" or "skipped"; kind: "assertion", or the exception's class.
    """
    folder = Path(case["folder"])
    os.chdir(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    watch = Watch(folder)
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(folder / "pytest.ini"), "--rootdir", str(folder)]
    pytest.main([*arguments, str(folder / case["file"])], plugins=[watch])
    return {"trouble": watch.trouble, "tests": watch.tests}


class Watch:
    """A pytest plugin that notes how each test went, and whether it read the engine's source."""

    def __init__(self, folder: Path) -> None:
        self.trouble = ""
        self.tests: list[dict[str, Any]] = []
        self._engine = str(folder / "flexnano") + os.sep
        self._test_folder = str(folder) + os.sep
        self._running = self._looked = False
        sys.addaudithook(self._audit)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.trouble:
            self.trouble = last_line(str(report.longrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        self._running, self._looked = True, False
        try:
            return (yield)
        finally:
            self._running = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[None]:
        report: Any = yield
        if report.when == "call" or not report.passed:
            error = call.excinfo
            asserts = error is not None and error.errisinstance((AssertionError, pytest.fail.Exception))
            self.tests.append(
                {
                    "name": item.name,
                    "outcome": report.outcome,
                    "kind": "" if error is None else "assertion" if asserts else error.typename,
                    "message": "" if error is None else str(error.value)[:LONGEST],
                    "looked": self._looked,
                }
            )
        return report

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python calls this for whatever is opened, compiled or started."""
        if event == "open" and self._running and str(arguments[0]).startswith(self._engine):
            self._looked = self._looked or self._is_the_tests_doing()

    def _is_the_tests_doing(self) -> bool:
        """Not where Python opens a module to import it."""
        frame, found = sys._getframe(1), False
        while frame is not None:
            name = frame.f_code.co_filename
            if "importlib" in name:
                return False
            found = found or (name.startswith(self._test_folder) and not name.startswith(self._engine))
            frame = frame.f_back  # type: ignore[assignment]
        return found


def last_line(text: str) -> str:
    """The line of a report that says what went wrong: pytest marks it with an E."""
    lines = [line for line in text.splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked or lines or ["?"])[-1][:LONGEST]
