"""In the process with one engine of the clinic: what its user did, and the simplest use of an engine."""

from __future__ import annotations

import contextlib
import io
from typing import Any


def reproduce(case: dict[str, Any]) -> str:
    """What reproduce.py prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(case["text"], "reproduce.py", "exec"), {"__name__": "__main__"})
    return said.getvalue()


def naive(_case: Any) -> dict[str, Any]:
    """One prompt, greedy, in a fresh engine: its tokens, and a text in plain letters."""
    from course.clinic.bench import engine_for, recite
    from flexnano import SamplingParams

    with engine_for() as engine:
        (result,) = engine.generate([[5, 6, 7]], SamplingParams(max_new_tokens=20))
    text = "one prompt, one answer."
    with engine_for(text=True) as engine:
        recite(engine, text)
        (recited,) = engine.generate([text[:3]], SamplingParams(max_new_tokens=len(text) - 3))
    return {"tokens": result.token_ids, "text": recited.text}
