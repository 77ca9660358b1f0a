"""What recipes for mixes share: settings, and the two bases."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, cast

from pydantic import Field
from torch import Tensor, nn

from bench.candidates.bases import check_norms, weights_of
from bench.candidates.candidate import Candidate
from bench.candidates.mix import MixedClassifier
from bench.candidates.registry import find_candidates
from bench.engines.acceleration import accelerate
from bench.errors import InputError
from bench.suites.suite import ThreatModel, load_suite
from bench.training.data import TrainingData
from bench.training.held_out import overlap
from bench.training.recipe import TrainingSettings, readable_radius

MixType = TypeVar("MixType", bound=MixedClassifier)

Scale = Annotated[float, Field(gt=0)]


class BasesSettings(TrainingSettings):
    """Which two bases are mixed, and on how many held-out training images numbers are chosen.

    If both bases held out the same number with the same seed, no part of the mix was trained on
    these images.
    """

    suite: str
    """The suite whose data set and threat model the mix is for."""
    accurate: str
    """The name of a candidate, the accurate base."""
    robust: str
    """The name of a candidate, the robust base."""
    held_out: int = Field(default=500, ge=1)

    def threat_models(self) -> list[dict[str, Any]]:
        """Return the suite's threat model."""
        threat_model = load_suite(self.suite).threat_model
        return [{"norm": threat_model.norm, "eps": readable_radius(threat_model.eps)}]


class MixSettings(BasesSettings):
    """The settings of the choice of a mix's numbers."""

    allowed_loss: float = Field(default=0.015, ge=0, le=1)
    """Attacked accuracy, as a fraction, that the mix may lose against its robust base."""
    accurate_scales: tuple[Scale, ...] = Field(default=(1.0, 2.0), min_length=1)
    """Factors on the accurate base's logits to choose from; training uses the first."""
    robust_scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1)
    """Factors on the robust base's logits to choose from; training uses the first."""
    search_steps: int = Field(default=20, ge=1)
    """Steps of each attack on the held-out images."""
    search_targets: int = Field(default=3, ge=1)
    """Classes that a targeted attack on the held-out images aims for."""
    final_steps: int = Field(default=100, ge=1)
    """Steps of the last attack, on a mix that is robust enough under the others."""
    final_targets: int = Field(default=9, ge=1)
    """Classes that the last attack aims for."""


class LoadedBases:
    """The two bases of a mix, loaded.

    Attributes:
        accurate: The accurate base.
        robust: The robust base.
        names: Their names, by "accurate" and "robust", as in a submission.
        sha256: The digests of their weights.
        threat_model: The threat model of the settings' suite.
    """

    def __init__(self, settings: BasesSettings, dataset: str) -> None:
        """Find and load the bases.

        Args:
            settings: The names of the bases and of the suite.
            dataset: The name of the data set of the training images.

        Raises:
            InputError: If a name is unknown, or the bases do not fit each other or the suite.
            Unavailable: If a base's weights cannot be downloaded.
        """
        suite = load_suite(settings.suite)
        if suite.data.label != dataset:
            raise InputError(
                f"setting suite: expected a suite of the data set {dataset}, got {suite.name} of "
                f"{suite.data.label}"
            )
        self.threat_model: ThreatModel = suite.threat_model
        self.names = {"accurate": settings.accurate, "robust": settings.robust}
        references = {}
        for role, name in self.names.items():
            found = [] if "/" in name else find_candidates([name], suite)
            if [each.name for each in found] != [name]:
                raise InputError(
                    f"setting {role}: expected the name of a shipped submission or "
                    f"robustbench:<model id>, got {name!r}; a mix finds its bases by name"
                )
            references[role] = found[0]
        check_norms(references, "settings accurate and robust")
        loaded: dict[str, Candidate] = {role: each.load() for role, each in references.items()}
        self.sha256 = weights_of(loaded)
        self.trainings = {role: each.information.training for role, each in loaded.items()}
        self.accurate: nn.Module = loaded["accurate"].module
        self.robust: nn.Module = loaded["robust"].module

    def images_seen(self, data: TrainingData, held_out: int, seed: int) -> dict[str, int]:
        """Return how many of the held-out images each base was trained on, by "accurate" and so on.

        A base that does not say what it was trained on is left out. One that held out nothing was
        trained on all: that is recorded, and for the reader to judge.

        Args:
            data: the images of this training.
            held_out: how many of them it holds out.
            seed: this training's.

        Raises:
            InputError: a base held out images, and others than these.
        """
        seen = {}
        for role, training in self.trainings.items():
            found = overlap(training, data.name, data, held_out, seed)
            if found is None:
                continue
            if found.seen and found.held_out:
                raise InputError(
                    f"expected held-out images that the {role} base {self.names[role]} was not "
                    f"trained on, got {found}"
                )
            seen[role] = found.seen
        return seen


def with_fast_bases(mix: MixType, images: Tensor) -> MixType:
    """Return a copy of a mix with frozen bases, which are faster and give equal results.

    Args:
        mix: In eval mode.
        images: A few images (n, C, H, W) on the mix's device.
    """
    return cast(MixType, accelerate(mix, images, "float32").module)
