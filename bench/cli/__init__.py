"""The command line: parses, calls, prints."""

from bench.cli.main import main

__all__ = ["main"]
