"""Exact intervals and tests for counts of 0/1 outcomes, also valid at any stopping time."""

from bench.statistics.comparison import (
    claim_p_value,
    mcnemar_p_value,
    power,
    required_sample_size,
)
from bench.statistics.intervals import (
    Interval,
    exact_binomial_interval,
    exact_hypergeometric_interval,
)
from bench.statistics.sequential import anytime_interval, anytime_p_value, interval_at_look

__all__ = [
    "Interval",
    "anytime_interval",
    "anytime_p_value",
    "claim_p_value",
    "exact_binomial_interval",
    "exact_hypergeometric_interval",
    "interval_at_look",
    "mcnemar_p_value",
    "power",
    "required_sample_size",
]
