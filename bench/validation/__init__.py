"""Read users' YAML: fields are checked, and errors say what was expected and what came."""

from bench.validation.fields import (
    Number,
    StrictModel,
    explain,
    parse_fraction,
    read_yaml,
    validate,
)

__all__ = ["Number", "StrictModel", "explain", "parse_fraction", "read_yaml", "validate"]
