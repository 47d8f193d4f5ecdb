"""Measurements of the finished engine; `FLEXNANO` chooses another package, say one's own."""

import os

os.environ.setdefault("FLEXNANO", "solutions")  # before anything imports flexnano
