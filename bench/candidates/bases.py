"""Mixes that are declared from candidates: their bases, what must agree, and their digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from bench.candidates.candidate import (
    Availability,
    Candidate,
    CandidateReference,
    Information,
)
from bench.candidates.identity import digest, unidentified_of
from bench.candidates.mix import Mix, as_mix, fraction, positive
from bench.candidates.smoothed import Smoothed
from bench.candidates.sources import CandidateSource, Search, find, takes_options
from bench.data import image_shape
from bench.errors import InputError
from bench.validation import StrictModel

PREFIX = "mix:"
SYNTAX = (
    "mix:accurate=<candidate>,robust=<candidate>,alpha=<number in [0, 1]>"
    "[,accurate_scale=<number>][,robust_scale=<number>]"
)
NUMBERS = {"alpha": fraction, "accurate_scale": positive, "robust_scale": positive}
"""What a mix named on the command line takes, and what checks it."""


class Bases(StrictModel):
    """The field `bases` of a `submission.yaml`.

    Each is the name of a shipped submission, the path of a submission inside the folder, or
    robustbench:<model id>.
    """

    accurate: str = Field(examples=["digits-standard"])
    robust: str = Field(examples=["digits-robust"])


@dataclass(frozen=True)
class MixReference:
    """A fixed mix of two candidates, as the command line names it.

    Attributes:
        name: as the user writes it.
        bases: by "accurate" and "robust".
        numbers: `alpha`, and the scales where they are given.
        dataset: of the suite.
    """

    name: str
    bases: Mapping[str, CandidateReference]
    numbers: Mapping[str, float]
    dataset: str

    @property
    def norms(self) -> frozenset[str]:
        """The norms that either base was made for."""
        return self.bases["accurate"].norms | self.bases["robust"].norms

    def availability(self) -> Availability:
        """Return whether both bases are here."""
        return availability_of(self.bases)

    def load(self) -> Candidate:
        """Load both bases and mix them.

        Raises:
            InputError: bases that do not go together.
            Unavailable: a base cannot be fetched.
        """
        check_norms(self.bases, self.name)
        bases = {role: reference.load() for role, reference in self.bases.items()}
        module = Mix(bases["accurate"].module, bases["robust"].module, **self.numbers)
        check_answers(module, self.dataset, self.name)
        voting = smoothed_part(module, bases)
        return Candidate(
            name=self.name,
            module=module.eval(),
            weights_sha256=weights_of(bases),
            definition_sha256=digest(
                {"mix": dict(self.numbers), "bases": definitions_of(bases)},
            ),
            information=Information(
                architecture="bench.candidates.mix:Mix",
                training={"bases": {role: base.name for role, base in bases.items()}},
                additional_data=any(each.information.additional_data for each in bases.values()),
                threat_models=bases["robust"].information.threat_models,
                weights=notes_of_bases(bases, "weights"),
                conversions=notes_of_bases(bases, "conversions"),
            ),
            randomized=any(base.randomized for base in bases.values()),
            preprocessing=bases["robust"].preprocessing,
            bases=bases,
            sigma=voting.sigma if voting else None,
            voter=voting.base if voting else None,
            unidentified=unidentified_of(bases),
        )


def read_mix(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """Read names and numbers from a text such as `mix:accurate=A,robust=B,alpha=0.7`.

    Raises:
        InputError: another form than that.
    """
    bases: dict[str, str] = {}
    numbers: dict[str, float] = {}
    last = ""
    for item in text.removeprefix(PREFIX).split(","):
        key, separator, value = (part.strip() for part in item.partition("="))
        is_own = key in Bases.model_fields or key in NUMBERS
        if separator and not is_own and last and takes_options(bases[last]):
            bases[last] += f",{item}"  # an option of the base before it
            continue
        if not separator or key in bases or key in numbers:
            raise InputError(f"{text}: expected {SYNTAX}, got {item!r}")
        if key in Bases.model_fields:
            bases[key] = value
            last = key
        elif key in NUMBERS:
            try:
                numbers[key] = NUMBERS[key](key, float(value))
            except ValueError as error:
                raise InputError(f"{text}: {key}: expected a number, got {value!r}") from error
            except InputError as error:
                raise InputError(f"{text}: {error}") from error
        else:
            raise InputError(f"{text}: expected {SYNTAX}, got {key!r}")
    absent = [key for key in (*Bases.model_fields, "alpha") if key not in {**bases, **numbers}]
    if absent:
        raise InputError(f"{text}: expected {SYNTAX}, got no {absent[0]}")
    return bases, numbers


def availability_of(bases: Mapping[str, CandidateReference]) -> Availability:
    """Return whether all bases are here, and else what is missing."""
    found = [base.availability() for base in bases.values()]
    notes = [
        f"{base.name}: {each.note}"
        for base, each in zip(bases.values(), found, strict=True)
        if not each.here
    ]
    return Availability(all(each.here for each in found), "; ".join(notes))


def check_norms(bases: Mapping[str, CandidateReference], origin: str) -> None:
    """Refuse bases that were made to withstand perturbations of different norms.

    Raises:
        InputError: they were; `origin` names the file and the field.
    """
    accurate, robust = bases["accurate"].norms, bases["robust"].norms
    if accurate and robust and not accurate & robust:
        raise InputError(
            f"{origin}: expected bases for one norm, got {bases['accurate'].name} for "
            f"{', '.join(sorted(accurate))} and {bases['robust'].name} for "
            f"{', '.join(sorted(robust))}"
        )


def check_answers(module: nn.Module, dataset: str, origin: str) -> None:
    """Refuse bases with different numbers of classes, by one blank image.

    A data set whose image size is not known here is left to the first real pass.

    Raises:
        InputError: they have; `origin` names the file and the field.
    """
    mix = as_mix(module)
    shape = image_shape(dataset)
    if mix is None or shape is None:
        return
    try:
        with torch.no_grad():
            mix.eval().answer(torch.zeros(1, *shape))
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def weights_of(bases: Mapping[str, Candidate]) -> dict[str, str]:
    """Return the digests of the bases' weights by role; a nested mix has "robust.accurate"."""
    return {
        role if key == "weights" else f"{role}.{key}": sha256
        for role, base in bases.items()
        for key, sha256 in base.weights_sha256.items()
    }


def notes_of_bases(
    bases: Mapping[str, Candidate], kind: Literal["weights", "conversions"]
) -> tuple[str, ...]:
    """Return the notes on the bases' weights or conversions, each behind the base's role."""
    return tuple(
        f"{role}: {note}"
        for role, base in bases.items()
        for note in getattr(base.information, kind)
    )


def definitions_of(bases: Mapping[str, Candidate]) -> dict[str, str]:
    """Return the definition digests of the bases."""
    return {role: base.definition_sha256 for role, base in bases.items()}


def smoothed_part(module: nn.Module, bases: Mapping[str, Candidate]) -> Smoothed | None:
    """Return what votes under noise: the module, or the robust base of a mix of fixed weight.

    Other mixes cannot be certified: their weight, or what they make of the robust base's
    answers, is not what the certificate assumes.
    """
    if isinstance(module, Smoothed):
        return module
    robust = bases["robust"].module if isinstance(module, Mix) and bases else None
    return robust if isinstance(robust, Smoothed) else None


class MixSource(CandidateSource):
    """Mixes two candidates of any sources as `mix:accurate=A,robust=B,alpha=0.7` says."""

    title = "mix"
    prefix = PREFIX
    gives_bases = False  # a mix of mixes is written as a submission, which can name its folder

    def find(self, name: str, search: Search) -> list[MixReference]:
        """Return the mix.

        Raises:
            InputError: another form, an unknown base, or a pattern that several candidates match.
        """
        names, numbers = read_mix(name)
        bases: dict[str, CandidateReference] = {}
        for role, base in names.items():
            found = find(base, search)
            if len(found) != 1:
                raise InputError(f"{name}: {role}: expected one candidate, got {len(found)}")
            bases[role] = found[0]
        return [MixReference(name, bases, numbers, search.dataset)]
