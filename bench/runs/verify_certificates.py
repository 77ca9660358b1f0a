"""Check a certification by fresh votes at adversarial images inside its radii.

A certificate holds but for its failure probability. What can be checked afterwards is whether
anything contradicts it; the places to look at are the witnesses that attacks on the same candidate
found inside certified radii.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.candidates import Candidate
from bench.certification.accuracy import certified_counts
from bench.certification.contradiction import too_many
from bench.certification.fresh_votes import VOTES
from bench.data import Dataset
from bench.errors import InputError
from bench.flags.certificates import (
    VOTES_AT_ONCE,
    contradicted_certificates,
    proved_by,
    witnesses_in,
    witnesses_inside,
)
from bench.runs.verify import check_answers, check_candidate, check_kind
from bench.store import RunFolder, Store
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest


@dataclass(frozen=True)
class CertificateVerification:
    """The result of checking a certification.

    Attributes:
        n_examples: number of samples of the run.
        radius: the threat model's, in L2.
        claimed: share of the samples that are right and certified at that radius.
        index: (n,) int64, places in the data set of the samples with a witness inside their radius.
        contradicted: (n,) bool, which certificates fresh votes contradict there.
        failure_probability: of a certificate.
        seconds: time of the check.
    """

    n_examples: int
    radius: float
    claimed: float
    index: Tensor
    contradicted: Tensor
    failure_probability: float
    seconds: float

    @property
    def votes(self) -> int:
        """How many votes were taken."""
        return VOTES * len(self.index)

    @property
    def is_confirmed(self) -> bool:
        """Whether no more certificates are contradicted than certificates and votes may err.

        So it is where no witness lies inside a radius, and nothing was checked.
        """
        against = int(self.contradicted.sum())
        return not too_many(against, len(self.index), self.failure_probability)

    @property
    def stands(self) -> dict[int, bool]:
        """For each sample with a witness inside its radius, whether its certificate stands."""
        return {
            index: not against
            for index, against in zip(self.index.tolist(), self.contradicted.tolist(), strict=True)
        }


def is_certification(manifest: Manifest) -> bool:
    """Return whether a run is a certification that was made here, not an imported log."""
    kind = kind_named(manifest.kind)
    return kind.certifies and not kind.is_imported


def check_verifiable(manifest: Manifest) -> None:
    """Refuse a run whose numbers neither witnesses nor votes can check.

    Raises:
        InputError: the run is of such a kind.
    """
    if not is_certification(manifest):
        check_kind(manifest)


def verify_certificates(
    folder: RunFolder,
    candidate: Candidate,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    batch_size: int = VOTES_AT_ONCE,
) -> CertificateVerification:
    """Take fresh votes at witnesses inside certified radii of a run, one a sample.

    Args:
        folder: the folder of a complete certification.
        candidate: the same candidate as when the run was made.
        dataset: the samples of the run.
        store: where runs that attacked the candidate are; those of the same suite count.
        device: where the votes are taken.
        batch_size: noisy images in one pass.

    Raises:
        InputError: it is another candidate than the run's, or no certification.
    """
    manifest = folder.manifest()
    check_candidate(candidate, manifest)
    if not is_certification(manifest):
        raise InputError(f"expected a certification, got a {manifest.kind}")
    check_answers(candidate, manifest, tuple(dataset.images.shape[1:]), device)
    start = time.perf_counter()
    proved = proved_by(manifest, folder.samples())
    witnesses = witnesses_in(store, manifest, dataset)
    contested = witnesses_inside([proved.certificates], witnesses, dataset)
    against = contradicted_certificates(candidate, contested, manifest.seed, device, batch_size)
    n, eps = len(proved.certificates.index), manifest.threat_model.eps
    (certified,) = certified_counts(proved.certificates, [eps])
    return CertificateVerification(
        n_examples=n,
        radius=eps,
        claimed=certified / n,
        index=contested.index,
        contradicted=against,
        failure_probability=proved.failure_probability,
        seconds=time.perf_counter() - start,
    )
