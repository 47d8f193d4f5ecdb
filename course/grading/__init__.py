"""Grading: what a learner wrote, run in a process of its own and judged in another.

    checks.py   what graders are written with (tests/module_NN/judge.py)
    merge.py    the learner's files, with what is not theirs to blame taken from the reference
    worker.py   the process that imports the learner's code and runs cases (tests/module_NN/drive.py)
    pool.py     starts, asks and stops such processes
    grader.py   puts the questions of a module and says what came out
    diagnose.py which of the known mistakes explains the answers
    card.py     the card that a learner reads
    pytest_plugin.py   `pytest tests/module_03`

The process that runs a submission gets cases and gives answers.  What is right never enters it; who judges never imports it.
"""
