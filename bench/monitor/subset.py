"""The fixed random part of a data set that a training is measured on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.api.attack_inputs import Samples, check_samples
from bench.data.loading import load_source
from bench.data.request import Choose
from bench.errors import InputError
from bench.suites.suite import Suite, ThreatModel, load_suite


@dataclass(frozen=True)
class Subset:
    """Samples, and the threat model that they are attacked under.

    Attributes:
        samples: n of them, on the CPU.
        indices: (n,) int64, ascending: their places in the data set.
        threat_model: the ball.
    """

    samples: Samples
    indices: Tensor
    threat_model: ThreatModel

    @property
    def sha256(self) -> str:
        """Digest of images, labels and threat model."""
        ball = f"{self.threat_model.norm} {self.threat_model.eps!r}"
        digest = hashlib.sha256(ball.encode())
        for tensor in (self.samples.images, self.samples.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def subset_of_suite(
    suite: Suite | str, n_examples: int | None, default: int, seed: int, data_dir: Path | None
) -> Subset:
    """Return a random part of a suite's test samples.

    Args:
        suite: itself, its name or its file.
        n_examples: how many samples; None: `default`, or all where there are fewer.
        default: see `n_examples`.
        seed: of the choice.
        data_dir: the folder of the data sets' files; None: the usual one.

    Raises:
        InputError: no such suite or data, or fewer samples than asked for.
    """
    suite = load_suite(suite) if isinstance(suite, str) else suite
    chosen: list[Tensor] = []

    def choose(size: int) -> Tensor:
        chosen.append(random_rows(n_examples, default, seed)(size))
        return chosen[-1]

    dataset = load_source(suite.data, data_dir, choose=choose)
    return Subset(check_samples(dataset.images, dataset.labels), chosen[-1], suite.threat_model)


def subset_in_hand(
    images: Any, labels: Any, threat_model: Any, n_examples: int | None, default: int, seed: int
) -> Subset:
    """Return a random part of samples in memory; see `subset_of_suite`.

    Args:
        images: (N, C, H, W) floating-point in [0, 1].
        labels: (N,) integers.
        threat_model: such as `bench.Linf(8 / 255)`.

    Raises:
        InputError: one is missing or not of this form, or there are fewer than asked for.
    """
    for name, value in (("images", images), ("labels", labels), ("threat_model", threat_model)):
        if value is None:
            raise InputError(
                "expected a suite, or images, labels and threat_model together; got no "
                f"{name}{' such as bench.Linf(8 / 255)' if name == 'threat_model' else ''}"
            )
    if not isinstance(threat_model, ThreatModel):
        raise InputError(
            "threat_model: expected one such as bench.Linf(8 / 255) or bench.L2(0.5), got "
            f"{threat_model!r}"
        )
    samples = check_samples(images, labels)
    rows = random_rows(n_examples, default, seed)(len(samples.labels))
    # Copies: a training may write into the tensors that it was made from.
    return Subset(Samples(samples.images[rows], samples.labels[rows]), rows, threat_model)


def random_rows(n_examples: int | None, default: int, seed: int) -> Choose:
    """Return a choice of `n_examples` rows, all sets of them equally likely, in ascending order.

    Args:
        n_examples: None: `default`, or all where there are fewer.
        default: see `n_examples`.
        seed: of the choice.

    Raises:
        InputError: when called, if the data set has fewer rows.
    """

    def choose(size: int) -> Tensor:
        count = min(default, size) if n_examples is None else n_examples
        if not 1 <= count <= size:
            raise InputError(
                f"n_examples: expected at least 1 and at most {size}, the size of the data set; "
                f"got {count}"
            )
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        return order[:count].sort().values

    return choose
