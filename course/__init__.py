"""The tooling of the course: set-up, the embedded model, the learner's stubs, the checks.

Everything that `python -m course` needs to start runs on a bare Python with the standard library alone; what needs the
installed packages imports them inside the functions that use them.
"""
