"""Module 00: this machine can run the course.  `python -m course check` shows everything that was looked at."""

from __future__ import annotations

import pytest

from course import check


def test_this_machine_can_run_the_course() -> None:
    findings = check.look()
    if not check.works(findings):
        problems = [one for one in findings if one.level == "problem"]
        pytest.fail("\n".join([check.verdict(findings), *check.lines(problems)]), pytrace=False)
