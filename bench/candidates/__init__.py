"""Candidates: what is evaluated, wherever it comes from."""

from bench.candidates.candidate import (
    Availability,
    Candidate,
    CandidateReference,
    Information,
    Paper,
)

__all__ = ["Availability", "Candidate", "CandidateReference", "Information", "Paper"]
