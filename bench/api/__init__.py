"""The interface for Python programs: what a notebook or a training script calls."""
