"""The choice of a mix's numbers on held-out images: the most accurate that is robust enough.

The answer of a mix with other numbers follows from the answers of its bases and its mixing network,
without another pass. So every setting is tested on every image that any attack has found so far,
and only a setting that is robust enough on all of them is attacked itself: by attacks of few steps,
then by one as long as AutoAttack's. Few steps alone would favour settings with steep gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.candidates.mix import MixedClassifier
from bench.decision import classes_of
from bench.errors import InputError
from bench.suites.suite import ThreatModel
from bench.training.choice_file import FILE, ChoiceFile, Found
from bench.training.mix import MixSettings
from bench.training.mix_answers import BATCH_SIZE, MixNumbers, part_answers
from bench.training.mix_search_attacks import attacks_on_base, attacks_on_mix
from bench.training.recipe import Conditions, TriedNumbers

DECISIVE = {"allowed_loss", "search_steps", "search_targets", "final_steps", "final_targets"}
"""The names of what decides which attacks each of the grid's numbers undergo."""


@dataclass(frozen=True)
class Choice:
    """The chosen numbers, and their accuracies on the held-out images.

    Attributes:
        numbers: The numbers of the mix.
        clean_accuracy: The mix's clean accuracy, as a fraction.
        attacked_accuracy: The mix's accuracy on the images found for it and for other settings.
        robust_clean_accuracy: The robust base's clean accuracy.
        robust_attacked_accuracy: The robust base's accuracy under the same attacks on itself.
        settings: How many settings there were to choose from.
        attacked: How many of them were attacked.
        seconds: Wall-clock time of the choice, including earlier runs of a resumed one.
        started: When its first run began, in ISO 8601, UTC.
    """

    numbers: MixNumbers
    clean_accuracy: float
    attacked_accuracy: float
    robust_clean_accuracy: float
    robust_attacked_accuracy: float
    settings: int
    attacked: int
    seconds: float
    started: str

    def record(self, images: int) -> dict[str, Any]:
        """Return rounded plain values for a submission, without the numbers themselves."""
        return {
            "choice": {
                "held_out_images": images,
                "clean_accuracy": round(self.clean_accuracy, 4),
                "attacked_accuracy": round(self.attacked_accuracy, 4),
                "robust_base_clean_accuracy": round(self.robust_clean_accuracy, 4),
                "robust_base_attacked_accuracy": round(self.robust_attacked_accuracy, 4),
                "settings_to_choose_from": self.settings,
                "settings_attacked": self.attacked,
            }
        }


def choose(
    make: Callable[[MixNumbers], MixedClassifier],
    neutral: MixNumbers,
    grid: Sequence[MixNumbers],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    settings: MixSettings,
    conditions: Conditions,
) -> Choice:
    """Return the numbers with the highest clean accuracy among those that are robust enough.

    They are robust enough if the attacked accuracy is at most `settings.allowed_loss` below the
    robust base's. Among equally accurate ones, those with the higher attacked accuracy so far are
    tried first.

    Args:
        make: From numbers to the mix, in eval mode. One mix is used at a time.
        neutral: Numbers with scale 1 for the bases, and scale 1 and bias 0 for gamma.
        grid: Numbers to choose from.
        images: (N, C, H, W) held-out images.
        labels: (N,) int64.
        threat_model: The threat model of the attacks.
        settings: The settings of the choice.
        conditions: The seed is that of the attacks' draws. What is found is kept in a file beside
            the checkpoint, from which a resumed choice goes on. Progress is called for the robust
            base, then for each of the numbers that were attacked.

    Raises:
        InputError: If no numbers of the grid are robust enough, or the file is damaged.
    """
    began = time.monotonic()
    search = _Search(make, neutral, grid, images, labels, threat_model, settings, conditions.seed)
    clean_standing = search.right(images, torch.arange(len(labels), device=labels.device))
    clean = _accuracy(clean_standing)
    robust_standing = search.robust_standing()
    file = ChoiceFile(
        None if conditions.checkpoint is None else conditions.checkpoint.with_name(FILE),
        search.identity,
        clean_standing,
    )
    found = file.load() if conditions.resume else None
    if found is None:
        found = Found(robust_standing, clean_standing.clone(), torch.zeros_like(clean) > 0)
        search.attack_base(found)
    began -= found.seconds
    robust_attacked = float(_accuracy(found.robust))
    least = robust_attacked - settings.allowed_loss
    robust_clean = float(_accuracy(robust_standing))
    conditions.progress(TriedNumbers({}, robust_clean, robust_attacked, least, True))
    while (row := _most_accurate(clean, found, least)) is not None:
        found.seconds = time.monotonic() - began
        file.save(found)
        found.tried[row] = True
        search.attack(row, found, least)
        left = float(_accuracy(found.standing[row]))
        is_robust_enough = bool(_is_enough(found.standing[row], least))
        conditions.progress(
            TriedNumbers(grid[row], float(clean[row]), left, least, is_robust_enough)
        )
        if is_robust_enough:
            return Choice(
                numbers=grid[row],
                clean_accuracy=float(clean[row]),
                attacked_accuracy=left,
                robust_clean_accuracy=robust_clean,
                robust_attacked_accuracy=robust_attacked,
                settings=len(grid),
                attacked=int(found.tried.sum()),
                seconds=time.monotonic() - began,
                started=found.started,
            )
    raise InputError(
        f"no setting of {len(grid)} keeps {least:.2%} accuracy on the held-out images "
        "under attack; raise allowed_loss, or add settings nearer to the robust base"
    )


@dataclass(frozen=True)
class _Search:
    """What a choice works with; the arguments of `choose`."""

    make: Callable[[MixNumbers], MixedClassifier]
    neutral: MixNumbers
    grid: Sequence[MixNumbers]
    images: Tensor
    labels: Tensor
    threat_model: ThreatModel
    settings: MixSettings
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that decide the attacks."""
        return {
            "seed": self.seed,
            "threat_model": self.threat_model.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json", include=DECISIVE),
            "grid": list(self.grid),
        }

    def right(self, images: Tensor, samples: Tensor) -> Tensor:
        """Return whether each setting is correct on images (n, ...) of samples (n,), (S, n)."""
        return part_answers(self.make(self.neutral), images).right(self.grid, self.labels[samples])

    @torch.no_grad()
    def robust_standing(self) -> Tensor:
        """Return whether the robust base is correct on each held-out image, (N,)."""
        robust = self.make(self.neutral).at_alpha(1.0)
        parts = [classes_of(robust(some)) for some in torch.split(self.images, BATCH_SIZE)]
        return torch.cat(parts) == self.labels

    def attack_base(self, found: Found) -> None:
        """Attack the robust base, and note what is found."""
        robust = self.make(self.neutral).at_alpha(1.0)
        for attack in attacks_on_base(self.threat_model, self.settings, self._classes(robust)):
            broken, samples = attack(robust, self.images, self.labels, found.robust, self.seed)
            found.robust[samples] = False
            found.standing[:, samples] &= self.right(broken, samples)

    def attack(self, row: int, found: Found, least: float) -> None:
        """Attack one setting until it is not robust enough, and note what is found."""
        standing, classes = found.standing, self._classes(self.make(self.neutral))
        for attack in attacks_on_mix(
            self.make(self.neutral), self.threat_model, self.settings, classes
        ):
            mix = self.make(self.grid[row])
            broken, samples = attack(mix, self.images, self.labels, standing[row], self.seed)
            standing[:, samples] &= self.right(broken, samples)
            standing[row, samples] = False
            if not _is_enough(standing[row], least):
                break

    @torch.no_grad()
    def _classes(self, network: MixedClassifier) -> int:
        return int(network(self.images[:1]).shape[1])


def _accuracy(standing: Tensor) -> Tensor:
    """Return the share of samples (..., N) that survive, (...)."""
    return standing.double().mean(dim=-1)


def _is_enough(standing: Tensor, least: float) -> Tensor:
    """Return whether the accuracy on samples (..., N) reaches the least one, (...).

    Accuracies are multiples of 1/N, so that half of one is rounding.
    """
    return _accuracy(standing) >= least - 0.5 / standing.shape[-1]


def _most_accurate(clean: Tensor, found: Found, least: float) -> int | None:
    """Return the most accurate setting that can be robust enough and was not attacked yet.

    Args:
        clean: (S,) clean accuracies.
        found: What the attacks have found so far.
        least: The attacked accuracy that is enough.
    """
    possible = (_is_enough(found.standing, least) & ~found.tried).nonzero().flatten()
    if not len(possible):
        return None
    standing = found.standing[possible]
    order = clean[possible] + _accuracy(standing) / (2 * standing.shape[1])
    return int(possible[order.argmax()])
