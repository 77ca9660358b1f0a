"""The errors that reach a user: one clear line, and the exit code that goes with it."""

from __future__ import annotations


class BenchError(Exception):
    """An error with a message for the user: what was expected, what came, what to do."""


class InputError(BenchError):
    """Wrong usage or wrong input; nothing was run. Exit code 2."""


class Unavailable(BenchError):
    """A candidate cannot be evaluated here, e.g. its weights cannot be downloaded. Exit code 3."""


class EvaluationError(BenchError):
    """An evaluation started and failed. Exit code 1."""
