"""A live model under Gaussian noise, as something that can be certified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.candidates import Candidate, CandidateReference
from bench.candidates.identity import digest
from bench.candidates.live import LiveReference
from bench.candidates.smoothed import Smoothed


@dataclass(frozen=True)
class SmoothedReference:
    """A live base classifier under Gaussian noise."""

    base: LiveReference
    sigma: float

    @property
    def name(self) -> str:
        """The base's name."""
        return self.base.name

    @property
    def norms(self) -> frozenset[str]:
        """The norm of its certificates."""
        return frozenset({"L2"})

    @property
    def bases(self) -> Mapping[str, CandidateReference]:
        """What is under the noise."""
        return {"base": self.base}

    def availability(self) -> Any:
        """Return that it is here."""
        return self.base.availability()

    def load(self) -> Candidate:
        """Return the smoothed classifier.

        Raises:
            InputError: sigma is no number above 0.
        """
        base = self.base.load()
        module = Smoothed(base.module, self.sigma, noise_samples=16, seed=0)
        return replace(
            base,
            module=module.eval(),
            definition_sha256=digest({"smoothed": base.definition_sha256, "sigma": module.sigma}),
            sigma=module.sigma,
            voter=base.module,
        )
