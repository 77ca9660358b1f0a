"""Benchmark harness for the accuracy-robustness trade-off of image classifiers.

Importing this package makes `robustbench` importable (see `bench.robustbench`).
"""

from bench.robustbench import make_importable

__version__ = "0.1.0"

make_importable()
