""" "Waiting for 3.2 PageTable.reserve" where a traceback would say less."""

from __future__ import annotations

import ast
import html
import os
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..exercises import Exercise

UNWRITTEN = re.compile(r"Exercise (\d+\.\d+): (\S+)")


def in_test() -> bool:
    """Whether nbval or the build of the book runs this notebook."""
    return os.environ.get("FLEXNANO_NBVAL") == "1"


class Waiting:
    """Tells a cell that needs an unwritten exercise from one that went wrong."""

    def __init__(self, shell: Any, show: Callable[[str, str], None]) -> None:
        self.shell, self.show = shell, show
        self.missing: dict[str, str] = {}  # names that a waiting cell would have made -> what it waits for
        self._cell = ""
        self._handled: BaseException | None = None
        shell.set_custom_exc((NotImplementedError, NameError), self._handler())
        shell.events.register("pre_run_cell", self.before)
        shell.events.register("post_run_cell", self.after)

    def close(self) -> None:
        self.shell.set_custom_exc((), None)
        self.shell.events.unregister("pre_run_cell", self.before)
        self.shell.events.unregister("post_run_cell", self.after)

    def before(self, info: Any = None) -> None:
        self._cell, self._handled = getattr(info, "raw_cell", "") or "", None

    def after(self, result: Any = None) -> None:
        """A cell that waits has not failed: "Run all" goes on behind it."""
        if self._handled is not None and result is not None and result.error_in_exec is self._handled:
            result.error_in_exec = None

    def done(self, exercise: Exercise) -> None:
        """An exercise passes: what is missing now is missing for another reason."""
        self.missing = {name: what for name, what in self.missing.items() if what != str(exercise)}

    def what(self, error: BaseException) -> str | None:
        """The exercise that an error waits for: "3.2 PageTable.reserve"; None: it is an error like any other."""
        if isinstance(error, NotImplementedError):
            found = UNWRITTEN.match(str(error))
            return f"{found[1]} {found[2]}" if found else None
        if isinstance(error, NameError):
            return self.missing.get(getattr(error, "name", None) or "")
        return None

    def _handler(self) -> Callable[..., list[str] | None]:
        def handle(
            shell: Any, etype: type, value: BaseException, tb: TracebackType | None, tb_offset: int | None = None
        ) -> list[str] | None:
            what = self.what(value)
            if what is None:
                shell.showtraceback((etype, value, tb), tb_offset=tb_offset)
                return None
            self.missing.update(dict.fromkeys(names_made_by(self._cell), what))
            said = f"waiting for {what}"
            if in_test():  # here a cell that can't run has to fail, in one line
                shell._showtraceback(etype, said, [said])
                return [said]
            self._handled = value
            self.show(said, f"<div style='border-left:4px solid #e69f00;padding:4px 12px'>{html.escape(said)}</div>")
            return None

        return handle


def names_made_by(cell: str) -> set[str]:
    """Names that a cell would have given a value."""
    lines = [line if not line.lstrip().startswith(("%", "!")) else "" for line in cell.splitlines()]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
