"""Read users' YAML: fields are checked, and errors say what was expected and what came."""

from bench.validation.described import DescribedField, described, meanings
from bench.validation.fields import (
    Number,
    StrictModel,
    explain,
    parse_fraction,
    read_yaml,
    validate,
)

__all__ = [
    "DescribedField",
    "Number",
    "StrictModel",
    "described",
    "explain",
    "meanings",
    "parse_fraction",
    "read_yaml",
    "validate",
]
