"""Long runs: does anything grow, slow down, get lost?  `python -m benchmarks.soak schedule`, and `engine`."""

import os

os.environ.setdefault(
    "FLEXNANO", "solutions"
)  # before anything imports flexnano: what is soaked is the finished engine
