"""Tell whether two runs evaluated the same candidate, so that their results can be joined.

The digests of its weights and of everything else that decides its answers must agree. The
fingerprint, the candidate's answers on fixed probe images, shows changes that no digest covers,
such as another version of a library or a setting outside the program. Names are ignored: a copy of
a folder is the same candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.store.manifest import Manifest
from bench.store.records import FloatArray

FINGERPRINT_TOLERANCE = 0.01
"""Largest difference between logits that counts as rounding, in standard deviations of the logits.
Other machines, devices and numbers of threads change logits by a tenth of it or less."""


def same_candidate(one: Manifest, other: Manifest) -> bool:
    """Return whether two runs evaluated the same candidate; False if one of them is not identified.

    A run that did not check its candidate (`unidentified` is None) is joined with no other run.
    """
    return (
        one.unidentified == other.unidentified == []
        and one.weights_sha256 == other.weights_sha256
        and one.definition_sha256 == other.definition_sha256
        and same_answers(one.fingerprint, other.fingerprint)
    )


def has_other_weights(one: Manifest, other: Manifest) -> bool:
    """Return whether the weights of two runs differ; False if one of them does not know its own."""
    known = bool(one.weights_sha256 and other.weights_sha256)
    return known and one.weights_sha256 != other.weights_sha256


def same_answers(one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Return whether two fingerprints agree, up to rounding.

    Two missing fingerprints, as for candidates whose answers vary, count as equal.
    """
    if one is None or other is None:
        return one is other
    mine, theirs = _numbers(one), _numbers(other)
    if mine.shape != theirs.shape:
        return False
    finite = np.isfinite(mine)
    if not np.array_equal(mine[~finite], theirs[~finite], equal_nan=True):
        return False
    if not np.isfinite(theirs[finite]).all():
        return False
    spread = max(_spread(mine), _spread(theirs))
    largest = max(np.abs(mine[finite]).max(initial=0.0), np.abs(theirs[finite]).max(initial=0.0))
    allowed = FINGERPRINT_TOLERANCE * spread + 1e-5 * largest
    return bool((np.abs(mine[finite] - theirs[finite]) <= allowed).all())


def _numbers(fingerprint: Sequence[str]) -> FloatArray:
    """Return logits (images * K,) from a line for each image."""
    return np.array([float(each) for line in fingerprint for each in line.split()], np.float64)


def _spread(logits: FloatArray) -> float:
    finite = logits[np.isfinite(logits)]
    return float(finite.std()) if len(finite) else 0.0
