"""The Python interface; users reach it as `bench.evaluate` and the like."""
