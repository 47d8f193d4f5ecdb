"""Long runs: does anything grow, slow down, get lost?  `python -m benchmarks.soak schedule`, and `engine`."""
