"""The type of a candidate, and of a reference to one that is not loaded yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from bench.candidates.mix import MixedClassifier, as_mix
from bench.suites.suite import DeclaredThreatModel
from bench.validation import StrictModel


class Paper(StrictModel):
    """Where a candidate was published."""

    title: str
    authors: str = ""
    link: str = ""
    venue: str = ""


@dataclass(frozen=True)
class Information:
    """What is said about a candidate; nothing here changes its outputs."""

    architecture: str = ""
    paper: Paper | None = None
    training: dict[str, Any] = field(default_factory=dict)
    additional_data: bool = False
    threat_models: tuple[DeclaredThreatModel, ...] = ()
    claim: str | None = None
    """The id under which RobustBench's leaderboard lists it."""
    weights: tuple[str, ...] = ()
    """How its weights were read from their file if not plainly, and what is odd about them."""
    conversions: tuple[str, ...] = ()
    """What is done inside it to images before the network, and to what the network returns."""


@dataclass(frozen=True)
class Candidate:
    """Something to evaluate.

    Attributes:
        name: as the user writes it.
        module: images (N, C, H, W) in [0, 1] -> logits (N, K); in eval mode.
        weights_sha256: digests of the weights, one entry a base.
        definition_sha256: digest of everything else that decides the outputs: its files and the
            state of its module (`bench.candidates.identity`).
        randomized: whether two calls may give two answers, as its author declares.
        preprocessing: from a PIL image to (C, H, W) in [0, 1], where the data set has no one size.
        surrogate: a differentiable stand-in for `module`, which attacks may use for the backward
            pass; None where the module's own gradient is all there is.
        bases: of a mix that was declared from candidates, by "accurate" and "robust".
        sigma: of the Gaussian noise, in the [0, 1] pixel scale, if it is a smoothed classifier, or
            a mix whose robust base is one.
        voter: what votes under that noise: the smoothed classifier's own base.
        unidentified: what decides the outputs and could not be digested, a line each; empty: the
            digests say all. Runs of others are never resumed and never joined.
    """

    name: str
    module: nn.Module
    weights_sha256: dict[str, str]
    definition_sha256: str
    information: Information = field(default_factory=Information)
    randomized: bool = False
    preprocessing: Callable[[Any], Tensor] | None = None
    surrogate: nn.Module | None = None
    bases: Mapping[str, Candidate] = field(default_factory=dict)
    sigma: float | None = None
    voter: nn.Module | None = None
    unidentified: tuple[str, ...] = ()

    @property
    def mix(self) -> MixedClassifier | None:
        """The module as a mix: its bases, its weight, its logarithms; None if it is none."""
        return as_mix(self.module)


@dataclass(frozen=True)
class Availability:
    """Whether a candidate can be loaded from this disk.

    Attributes:
        here: nothing has to be downloaded.
        note: what has to be, and how large it is where that is known.
    """

    here: bool
    note: str = ""


class CandidateReference(Protocol):
    """A candidate that was found by name but not loaded."""

    @property
    def name(self) -> str:
        """As the user writes it."""

    @property
    def norms(self) -> frozenset[str]:
        """The norms that it was made to withstand; empty for none, or unknown."""

    def availability(self) -> Availability:
        """Return what loading would need; loads nothing."""

    def load(self) -> Candidate:
        """Load it, in eval mode, on the CPU.

        Raises:
            Unavailable: something could not be fetched.
            InputError: something is wrong with it.
        """
