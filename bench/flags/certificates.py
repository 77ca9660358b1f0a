"""A certificate that something broke: joins certifications and attacks of one candidate.

Attacks see the mean softmax over a bank of noise, certificates are about votes under fresh noise:
two classifiers. So a witness inside a certified radius is no contradiction by itself. It is one if
fresh votes there contradict the certificate, see `bench.certification.contradiction`, or if a mix
has no answer there, which no vote can mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.certification.contradiction import USUAL_FAILURE_PROBABILITY, too_many
from bench.certification.fresh_votes import contradicted
from bench.data import Dataset
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.store import RunFolder, Store
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.records import Certificates, ImageArray, Witnesses
from bench.store.same_candidate import same_candidate
from bench.store.summary import Flag
from bench.store.tables import Tables, certificates_of

MOST_WITNESSES = 32
"""How many witnesses a flag looks at."""
VOTES_AT_ONCE = 250
SIGMA_TOLERANCE = 1e-9

Found = TypeVar("Found")


@dataclass(frozen=True)
class Proved:
    """Certificates of one run.

    Attributes:
        certificates: of its samples.
        failure_probability: of each.
    """

    certificates: Certificates
    failure_probability: float


@dataclass(frozen=True)
class Contested:
    """For each sample with witnesses inside its certified radius, the farthest of them.

    Attributes:
        index: (n,) int64, places in the data set.
        images: (n, C, H, W) float32.
        classes: (n,) int64, the certified ones.
    """

    index: Tensor
    images: Tensor
    classes: Tensor

    def first(self, n: int) -> Contested:
        """Return the first `n` of them."""
        return Contested(self.index[:n], self.images[:n], self.classes[:n])


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
        candidate: only what can be certified can be flagged.
        dataset: whose samples count.
        manifest: of a run that is about to be complete; the candidate's others of its suite are
            joined to it.
        tables: of that run.
        store: where the others are.
        device: where the votes are taken.
    """
    sigma = candidate.sigma
    if sigma is None or candidate.voter is None:
        return None
    proved, witnesses = [], []
    if kind_named(manifest.kind).certifies:
        proved.append(proved_by(manifest, tables.samples))
    elif tables.witnesses is not None:
        witnesses.append(tables.witnesses)
    proved += proved_in(store, manifest, sigma)
    witnesses += witnesses_in(store, manifest, dataset)
    certificates = [each.certificates for each in proved]
    contested = witnesses_inside(certificates, witnesses, dataset).first(MOST_WITNESSES)
    n = len(contested.index)
    if n == 0:
        return None
    unsound = int(contradicted_certificates(candidate, contested, manifest.seed, device).sum())
    threshold = max(each.failure_probability for each in proved)
    if not too_many(unsound, n, threshold):
        return None
    return Flag(
        name="unsound-certificate",
        measured=unsound / n,
        threshold=threshold,
        meaning="Of this share of the samples with an adversarial image inside their certified "
        "radius, fresh votes contradict the certificate there: what was proved does not hold.",
        advice="Distrust the certification: look at its sigma, at how its draws are made, and at "
        "whether it was made of these very weights.",
    )


def contradicted_certificates(
    candidate: Candidate,
    contested: Contested,
    seed: int,
    device: torch.device,
    at_once: int = VOTES_AT_ONCE,
) -> Tensor:
    """Return which certificates fresh votes at their witnesses contradict, (n,) bool.

    Args:
        candidate: a smoothed classifier, or a mix of fixed weight whose robust base is one. Where
            the mix's accurate base has no finite answer, neither has the mix.
        contested: witnesses and certified classes.
        seed: of the run.
        device: where the votes are taken.
        at_once: noisy images in one pass.
    """
    assert candidate.voter is not None
    assert candidate.sigma is not None
    mix = candidate.module if isinstance(candidate.module, Mix) else None
    by_votes = contradicted(
        candidate.voter,
        candidate.sigma,
        None if mix is None else mix.alpha,
        contested.images,
        contested.index,
        contested.classes,
        seed,
        device,
        at_once,
    )
    if mix is None or not len(by_votes):
        return by_votes
    return by_votes | without_answer(mix.to(device), contested.images, device, at_once)


def without_answer(mix: Mix, images: Tensor, device: torch.device, at_once: int) -> Tensor:
    """Return at which images a mix's accurate base has no answer, (n,) bool.

    Args:
        mix: on the device.
        images: (n, C, H, W) in [0, 1], n >= 1.
        device: where they are passed.
        at_once: images in one pass; fewer where memory runs out.
    """

    def asked(part: Tensor) -> Tensor:
        probabilities = mix.accurate_probabilities(images[part].to(device))
        return ~probabilities.isfinite().all(dim=1).cpu()

    with tensor_cores(False), torch.no_grad():
        return torch.cat(ImagesAtOnce(at_once).in_parts(torch.arange(len(images)), asked))


def witnesses_inside(
    certificates: Iterable[Certificates], witnesses: Iterable[Witnesses], dataset: Dataset
) -> Contested:
    """Return for each sample the farthest witness inside its largest certified radius.

    One alone, since votes at several images of a sample would judge the same certificate.
    """
    images = dataset.images.numpy()
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    certified: dict[int, tuple[float, int]] = {}
    for found in certificates:
        for index, radius, prediction in zip(
            found.index.tolist(), found.radius.tolist(), found.prediction.tolist(), strict=True
        ):
            certified[index] = max(certified.get(index, (0.0, -1)), (radius, prediction))
    farthest: dict[int, tuple[float, ImageArray]] = {}
    for each in witnesses:
        for index, image in zip(each.index.tolist(), each.images, strict=True):
            if index not in certified:
                continue
            distance = float(np.linalg.norm(image - images[place[index]]))
            before, _ = farthest.get(index, (-1.0, image))
            if before < distance < certified[index][0]:
                farthest[index] = distance, image
    chosen = [image for _, image in farthest.values()]
    return Contested(
        torch.tensor(list(farthest), dtype=torch.int64),
        torch.from_numpy(np.stack(chosen) if chosen else images[:0]),
        torch.tensor([certified[index][1] for index in farthest], dtype=torch.int64),
    )


def proved_by(manifest: Manifest, samples: DataFrame) -> Proved:
    """Return what a certification proved.

    Args:
        samples: the run's table.
    """
    failure = manifest.engine_settings.get("failure_probability", USUAL_FAILURE_PROBABILITY)
    return Proved(certificates_of(samples), float(failure))


def proved_in(store: Store, manifest: Manifest, sigma: float) -> list[Proved]:
    """Return what a store's complete certifications of a run's candidate and data set proved.

    Runs that cannot be read are left out and logged.
    """

    def proved(folder: RunFolder, other: Manifest) -> Proved | None:
        if not kind_named(other.kind).certifies or not _certifies(other, manifest, sigma):
            return None
        return proved_by(other, folder.samples())

    return _in_others(store, manifest, proved)


def witnesses_in(store: Store, manifest: Manifest, dataset: Dataset) -> list[Witnesses]:
    """Return the witnesses of a store's complete runs of a run's candidate and data set.

    Runs that cannot be read are left out and logged.
    """
    images, indices = dataset.images.numpy(), dataset.indices.tolist()

    def witnesses(folder: RunFolder, other: Manifest) -> Witnesses | None:
        if kind_named(other.kind).certifies or not same_candidate(other, manifest):
            return None
        return folder.witnesses(images, indices, others=True)

    return _in_others(store, manifest, witnesses)


def _in_others(
    store: Store, manifest: Manifest, read: Callable[[RunFolder, Manifest], Found | None]
) -> list[Found]:
    """Return what `read` finds in the readable, complete runs of a run's suite on its data set."""

    def found(folder: RunFolder) -> Found | None:
        other = folder.manifest()
        return read(folder, other) if other.dataset.name == manifest.dataset.name else None

    return [each for each in store.readable(found, manifest.suite) if each is not None]


def _certifies(other: Manifest, manifest: Manifest, sigma: float) -> bool:
    """Return whether a run certifies this candidate; a log says no more than its name."""
    if abs(float(other.engine_settings["sigma"]) - sigma) > SIGMA_TOLERANCE:
        return False
    if kind_named(other.kind).is_imported:
        return other.candidate == manifest.candidate
    return same_candidate(other, manifest)
