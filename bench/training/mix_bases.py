"""The bases of a mix that is trained or chosen."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import Tensor, nn

from bench.candidates.bases import check_norms, weights_of
from bench.candidates.candidate import Candidate
from bench.candidates.mix import MixedClassifier
from bench.candidates.registry import find_candidates
from bench.engines.acceleration import accelerate
from bench.errors import InputError
from bench.suites.suite import ThreatModel, load_suite
from bench.training.mix_settings import MixSettings

MixType = TypeVar("MixType", bound=MixedClassifier)


class LoadedBases:
    """Both bases, loaded.

    Attributes:
        accurate: The accurate base.
        robust: The robust base.
        names: By "accurate" and "robust", as a submission names them.
        sha256: Digests of their weights.
        threat_model: Of the settings' suite.
    """

    def __init__(self, settings: MixSettings, dataset: str) -> None:
        """Find and load them.

        Args:
            settings: Name them, and the suite.
            dataset: Of the training images.

        Raises:
            InputError: Nothing has such a name, or the two do not go together.
            Unavailable: A base's weights cannot be fetched.
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
        self.accurate: nn.Module = loaded["accurate"].module
        self.robust: nn.Module = loaded["robust"].module


def with_fast_bases(mix: MixType, images: Tensor) -> MixType:
    """A copy of a mix whose bases are faster, with equal results: they are frozen.

    Args:
        mix: In eval mode.
        images: (n, C, H, W) a few images on the mix's device.
    """
    return cast(MixType, accelerate(mix, images, "float32").module)
