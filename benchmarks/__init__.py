"""Measured numbers of the README, one file a row; see `python -m benchmarks --help`."""
