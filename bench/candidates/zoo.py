"""RobustBench's model zoo: candidates named `robustbench:<model id>`."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench import robustbench
from bench.candidates import published_mixes
from bench.candidates.candidate import Availability, Candidate, Information
from bench.candidates.identity import State, state_of
from bench.candidates.mix import as_mix
from bench.candidates.mixed_nuts import MixedNuts, surrogate
from bench.candidates.sources import CandidateSource, Search
from bench.data import named_dataset
from bench.errors import InputError
from bench.suites import Suite

PREFIX = "robustbench:"


@dataclass(frozen=True)
class ZooReference:
    """A model of RobustBench's zoo, for one data set and threat model."""

    model_id: str
    dataset: str
    norm: str
    model_dir: Path

    @property
    def name(self) -> str:
        """robustbench:<model id>."""
        return PREFIX + self.model_id

    @property
    def norms(self) -> frozenset[str]:
        """The one under which the zoo lists it."""
        return frozenset({self.norm})

    def availability(self) -> Availability:
        """Return whether the checkpoint is in the model folder, else its size as float32."""
        missing = robustbench.missing_checkpoints(
            self.model_id, self.dataset, self.norm, self.model_dir
        )
        if not missing:
            return Availability(here=True)
        size = (
            published_mixes.megabytes(self.dataset, self.model_id)
            if self._is_published_mix
            else robustbench.checkpoint_megabytes(self.model_id, self.dataset, self.norm)
        )
        note = "size unknown" if size is None else f"about {size:,.0f} MB"
        return Availability(here=False, note=f"weights to download, {note}")

    def load(self) -> Candidate:
        """Load the model through RobustBench's own loader, or as a mix of ours.

        Raises:
            Unavailable: a checkpoint cannot be downloaded or read.
            InputError: a published mix's checkpoint is damaged.
        """
        module = self._module().eval()
        states = _states(module)
        return Candidate(
            name=self.name,
            module=module,
            weights_sha256={name: state.sha256 for name, state in states.items()},
            definition_sha256=robustbench.version(),
            surrogate=surrogate(module) if isinstance(module, MixedNuts) else None,
            information=Information(
                architecture=type(module).__name__,
                claim=self.model_id,
            ),
            preprocessing=(
                robustbench.preprocessing(self.model_id, self.dataset, self.norm)
                if named_dataset(self.dataset).preprocessed
                else None
            ),
            unidentified=tuple(each for state in states.values() for each in state.unidentified),
        )

    @property
    def _is_published_mix(self) -> bool:
        return published_mixes.is_published(self.dataset, self.norm, self.model_id)

    def _module(self) -> nn.Module:
        if self._is_published_mix:
            return published_mixes.load(self.dataset, self.norm, self.model_id, self.model_dir)
        module = robustbench.load_zoo_model(self.model_id, self.dataset, self.norm, self.model_dir)
        if self.model_id == published_mixes.MIXED_NUTS:
            return published_mixes.as_mixed_nuts(module)
        return module


def _states(module: nn.Module) -> dict[str, State]:
    mix = as_mix(module)
    if mix is None:
        return {"weights": state_of(module)}
    parts = {"accurate": mix.accurate, "robust": mix.robust, "mixing_network": mix.trained_part}
    return {name: state_of(part) for name, part in parts.items() if part is not None}


def zoo_references(dataset: str, norm: str, model_dir: Path) -> list[ZooReference]:
    """Return the zoo's models for a data set ("cifar10", ...) and a norm ("Linf", "L2")."""
    return [
        ZooReference(model_id, dataset, norm, model_dir)
        for model_id in robustbench.model_ids(dataset, norm)
    ]


class ZooSource(CandidateSource):
    """Finds the zoo's models by `robustbench:<model id>` or a pattern of it."""

    title = "RobustBench"
    prefix = PREFIX

    def find(self, name: str, search: Search) -> list[ZooReference]:
        """Return the models of the search's data set and norm.

        Raises:
            InputError: the zoo has none for them.
        """
        zoo = zoo_references(search.dataset, search.norm, search.model_dir)
        if not zoo:
            raise InputError(
                f"candidate {name!r}: RobustBench's zoo has no models for suite {search.suite} "
                f"({search.dataset}, {search.norm})"
            )
        return [reference for reference in zoo if fnmatch.fnmatchcase(reference.name, name)]

    def names(self, search: Search) -> list[str]:
        """Return the names of the zoo's models."""
        zoo = zoo_references(search.dataset, search.norm, search.model_dir)
        return [reference.name for reference in zoo]

    def listed(self, suites: Sequence[Suite]) -> Mapping[str, list[str]]:
        """Return the names of the zoo's models with the suites of their data set and norm."""
        found: dict[str, list[str]] = {}
        for suite in suites:
            for model_id in robustbench.model_ids(suite.data.label, suite.threat_model.norm):
                found.setdefault(PREFIX + model_id, []).append(suite.name)
        return found
