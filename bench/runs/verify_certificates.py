"""Check a certification by fresh votes at adversarial images inside its radii.

A certificate is a proof but for its failure probability, so nothing has to confirm it; what can be
checked is whether anything contradicts it. The places to look at are the witnesses that attacks on
the same candidate found inside the certified radii.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.candidates import Candidate
from bench.certification.accuracy import certified_counts
from bench.certification.contradiction import FAILURE_PROBABILITY
from bench.certification.fresh_votes import VOTES
from bench.data import Dataset
from bench.errors import InputError
from bench.flags.certificates import contradicted_certificates, witnesses_in, witnesses_inside
from bench.runs.verify import check_answers, check_candidate, check_kind
from bench.statistics.excess import beyond_chance
from bench.store import RunFolder, Store
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.tables import certificates_of


@dataclass(frozen=True)
class CertificateVerification:
    """The result of checking a certification.

    Attributes:
        n_examples: number of samples of the run.
        claimed: share that is right and certified at the suite's radius.
        index: (n,) int64, places in the data set of the samples with a witness inside their radius;
            a sample is there once for each such witness.
        contradicted: (n,) bool, which certificates fresh votes contradict there.
        seconds: time of the check.
    """

    n_examples: int
    claimed: float
    index: Tensor
    contradicted: Tensor
    seconds: float

    @property
    def votes(self) -> int:
        """How many votes were taken."""
        return VOTES * len(self.index)

    @property
    def is_confirmed(self) -> bool:
        """Whether no more certificates are contradicted than errors of the votes explain."""
        n = len(self.index)
        return not beyond_chance(int(self.contradicted.sum()), n, FAILURE_PROBABILITY)

    def of_samples(self) -> dict[int, bool]:
        """Return for each sample with a witness inside whether its certificate stands."""
        stands: dict[int, bool] = {}
        for index, against in zip(self.index.tolist(), self.contradicted.tolist(), strict=True):
            stands[index] = stands.get(index, True) and not against
        return stands


def certifies(manifest: Manifest) -> bool:
    """Return whether a run is a certification that was made here."""
    kind = kind_named(manifest.kind)
    return kind.certifies and not kind.is_imported


def check_verifiable(manifest: Manifest) -> None:
    """Refuse a run whose numbers neither witnesses nor votes can check.

    Raises:
        InputError: the run is of such a kind.
    """
    if not certifies(manifest):
        check_kind(manifest)


def verify_certificates(
    folder: RunFolder,
    candidate: Candidate,
    dataset: Dataset,
    store: Store,
    device: torch.device,
) -> CertificateVerification:
    """Take fresh votes at each known witness inside a certified radius of a run.

    Args:
        folder: the folder of a complete certification.
        candidate: the same candidate as when the run was made.
        dataset: the samples of the run.
        store: where runs that attacked the candidate are; those of the same suite count.

    Raises:
        InputError: it is another candidate than the run's, or no certification.
    """
    manifest = folder.manifest()
    check_candidate(candidate, manifest)
    if not certifies(manifest):
        raise InputError(f"expected a certification, got a {manifest.kind}")
    check_answers(candidate, manifest, tuple(dataset.images.shape[1:]), device)
    start = time.perf_counter()
    certificates = certificates_of(folder.samples())
    contested = witnesses_inside([certificates], witnesses_in(store, manifest, dataset), dataset)
    against = contradicted_certificates(candidate, contested, manifest.seed, device)
    (proved,) = certified_counts(certificates, [manifest.threat_model.eps])
    n = len(certificates.index)
    return CertificateVerification(
        n, proved / n, contested.index, against, time.perf_counter() - start
    )
