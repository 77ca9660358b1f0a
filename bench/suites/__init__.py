"""Suites: a data set, a threat model, protocols, candidates and where the published numbers are."""

from bench.suites.suite import (
    DataSource,
    Protocol,
    Suite,
    ThreatModel,
    load_suite,
    suite_name,
    suite_names,
)

__all__ = [
    "DataSource",
    "Protocol",
    "Suite",
    "ThreatModel",
    "load_suite",
    "suite_name",
    "suite_names",
]
