"""Published numbers, as data with their sources."""

from bench.claims.claims import (
    Claim,
    claim_of,
    claims_at,
    claims_at_other_radii,
    claims_for,
    find_claim,
    load_claims,
    read_claims,
)

__all__ = [
    "Claim",
    "claim_of",
    "claims_at",
    "claims_at_other_radii",
    "claims_for",
    "find_claim",
    "load_claims",
    "read_claims",
]
