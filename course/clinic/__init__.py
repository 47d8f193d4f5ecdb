"""Module 11, the bug clinic: engines that are broken by bugs of real engines, to be found, proved and mended.

    case.py      what a case is
    cases/       the cases, as edits of the reference (not in a class release: the edits quote it)
    store.py     where the cases and a healthy engine come from: this copy, or a teacher's clinic.zip
    folder.py    the folder in which a learner works on a case
    bench.py     what reproductions and tests are written with
    witness.py   runs a learner's tests in the process with one engine
    grading.py   found, proved, mended
    command.py   `python -m course clinic`
    lab.py       the clinic in a notebook

The general checks that a mended engine has to pass are in tests/module_11.
"""
