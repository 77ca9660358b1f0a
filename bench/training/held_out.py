"""Which held-out images an earlier training saw: numbers must not be chosen on those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.training.data import TrainingData, split


@dataclass(frozen=True)
class Overlap:
    """Held-out images of a training that an earlier one was trained on.

    Attributes:
        seen: how many.
        held_out: how many the earlier one held out.
        seed: the earlier one's.
    """

    seen: int
    held_out: int
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.seen} that it was; it held out {self.held_out} with seed {self.seed}: take its "
            "seed and no more images"
        )


def overlap(
    training: Mapping[str, object],
    dataset: str | None,
    data: TrainingData,
    held_out: int,
    seed: int,
) -> Overlap | None:
    """Return which held-out images an earlier training saw.

    Args:
        training: what the earlier one's submission says of it.
        dataset: the name of the earlier one's data set.
        data: the images of this training.
        held_out: how many of them it holds out.
        seed: this training's.

    Returns:
        None: it was trained on other images, or does not say on which.
    """
    settings = training.get("settings")
    earlier = settings.get("held_out") if isinstance(settings, Mapping) else None
    earlier_seed, count = training.get("seed"), len(data.labels)
    if not (isinstance(earlier, int) and isinstance(earlier_seed, int)) or dataset != data.name:
        return None
    if not 0 <= earlier < count or earlier_seed < 0:
        return None
    unseen = set(split(count, earlier, earlier_seed)[1].tolist())
    mine = set(split(count, held_out, seed)[1].tolist())
    return Overlap(len(mine - unseen), earlier, earlier_seed)
