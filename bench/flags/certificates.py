"""A certificate that something broke: joins certifications and attacks of one candidate.

Attacks see the mean softmax over a bank of noise, certificates are about votes under fresh noise:
two classifiers. So a witness inside a certified radius is no contradiction by itself. It is one if
fresh votes say that the certified class has less than half of them there (Cohen et al. 2019, arXiv
1902.02918: within the radius it keeps at least half).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from bench.candidates import Candidate
from bench.certification.noise import Noise, Piece
from bench.data import Dataset
from bench.decision import classes_of
from bench.flags.attacks import beyond_chance
from bench.store import Store
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.records import Certificates, ImageArray, Witnesses
from bench.store.same_candidate import same_candidate
from bench.store.summary import Flag
from bench.store.tables import Tables, certificates_of

VOTES = 1000
VOTES_A_BATCH = 250
MOST_WITNESSES = 32
FAILURE_PROBABILITY = 0.001
"""The probability of an error in one certificate, as in the suites, and in the votes against it."""
SEED_OFFSET = 0x5EED
"""Added to the run's seed: the draws of the certificate must not judge it."""
SIGMA_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Contested:
    """Witnesses inside the certified radius of their samples.

    Attributes:
        index: (n,) int64, places in the data set.
        images: (n, C, H, W) float32.
        classes: (n,) int64, the certified ones.
    """

    index: Tensor
    images: Tensor
    classes: Tensor


def unsound_certificates(
    candidate: Candidate,
    dataset: Dataset,
    manifest: Manifest,
    tables: Tables,
    store: Store,
    device: torch.device,
) -> Flag | None:
    """Flag certificates that votes at witnesses inside the certified radii contradict.

    Args:
        candidate: only a smoothed classifier can be flagged; not a mix with one, whose certificate
            does not rest on half of the votes.
        dataset: whose samples count.
        manifest: of a run that is about to be complete; the candidate's others of its suite are
            joined to it.
        tables: of that run.
        store: where the others are.
        device: where the votes are taken.
    """
    voter = candidate.voter
    if voter is None or candidate.sigma is None or candidate.mix is not None:
        return None
    contested = _contested(candidate.sigma, dataset, manifest, tables, store)
    n = len(contested.index)
    if n == 0:
        return None
    voter = voter.to(device)

    def vote(noisy: Tensor) -> Tensor:
        with torch.no_grad():
            return classes_of(voter(noisy))

    unsound = contradicted(vote, contested, candidate.sigma, manifest.seed + SEED_OFFSET, device)
    if not beyond_chance(unsound, n, FAILURE_PROBABILITY):
        return None
    return Flag(
        name="unsound-certificate",
        measured=unsound / n,
        threshold=FAILURE_PROBABILITY,
        meaning="At this share of the adversarial images that lie inside a certified radius, fresh "
        "votes take another class than the certified one: what was proved does not hold.",
        advice="Distrust the certification: look at its sigma, at how its draws are made, and at "
        "whether it was made of these very weights.",
    )


def contradicted(
    vote: Callable[[Tensor], Tensor],
    contested: Contested,
    sigma: float,
    seed: int,
    device: torch.device,
) -> int:
    """Return how many certified classes have less than half of the votes at their witness.

    Each is tested by an exact binomial test that errs with probability `FAILURE_PROBABILITY`.

    Args:
        vote: noisy images (n, C, H, W) -> classes (n,).
        contested: witnesses and certified classes.
        sigma: of the noise.
        seed: of the noise.
        device: where the votes are taken.
    """
    noise = Noise(seed, device)
    count = 0
    for place, index in enumerate(contested.index.tolist()):
        image = contested.images[place].to(device)
        votes = 0
        for first in range(0, VOTES, VOTES_A_BATCH):
            draws = noise.normal([Piece(0, index, first, VOTES_A_BATCH)], image.shape)
            votes += int((vote(image + sigma * draws) == contested.classes[place].item()).sum())
        count += bool(binom.cdf(votes, VOTES, 0.5) < FAILURE_PROBABILITY)
    return count


def _contested(
    sigma: float, dataset: Dataset, manifest: Manifest, tables: Tables, store: Store
) -> Contested:
    images, indices = dataset.images.numpy(), dataset.indices.tolist()
    place = {index: row for row, index in enumerate(indices)}
    certified: dict[int, tuple[float, int]] = {}
    witnesses: list[tuple[int, ImageArray]] = []

    def add_certificates(found: Certificates) -> None:
        for index, radius, prediction in zip(
            found.index.tolist(), found.radius.tolist(), found.prediction.tolist(), strict=True
        ):
            certified[index] = max(certified.get(index, (0.0, -1)), (radius, prediction))

    def add_witnesses(found: Witnesses | None) -> None:
        if found is not None:
            witnesses.extend(zip(found.index.tolist(), found.images, strict=True))

    if kind_named(manifest.kind).certifies:
        add_certificates(certificates_of(tables.samples))
    else:
        add_witnesses(tables.witnesses)
    for folder in store.runs(manifest.suite):
        if not folder.is_complete:
            continue
        other = folder.manifest()
        if other.dataset.name != manifest.dataset.name:
            continue
        if folder.kind.certifies and _certifies(other, manifest, sigma):
            add_certificates(certificates_of(folder.samples()))
        elif same_candidate(other, manifest):
            add_witnesses(folder.witnesses(images, indices, others=True))
    inside = [
        (index, image)
        for index, image in witnesses
        if index in certified
        and float(np.linalg.norm(image - images[place[index]])) < certified[index][0]
    ][:MOST_WITNESSES]
    return Contested(
        torch.tensor([index for index, _ in inside], dtype=torch.int64),
        torch.from_numpy(np.stack([image for _, image in inside]) if inside else images[:0]),
        torch.tensor([certified[index][1] for index, _ in inside], dtype=torch.int64),
    )


def _certifies(other: Manifest, manifest: Manifest, sigma: float) -> bool:
    """Return whether a run certifies this candidate; a log says no more than its name."""
    if abs(float(other.engine_settings["sigma"]) - sigma) > SIGMA_TOLERANCE:
        return False
    if kind_named(other.kind).is_imported:
        return other.candidate == manifest.candidate
    return same_candidate(other, manifest)
