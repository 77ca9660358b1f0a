"""Suites: a data set, a threat model, protocols, candidates and where the published numbers are."""

from bench.data.source import DataSource
from bench.suites.suite import (
    Protocol,
    Suite,
    ThreatModel,
    check_radius,
    load_suite,
    read_suite,
    suite_name,
    suite_names,
)

__all__ = [
    "DataSource",
    "Protocol",
    "Suite",
    "ThreatModel",
    "check_radius",
    "load_suite",
    "read_suite",
    "suite_name",
    "suite_names",
]
