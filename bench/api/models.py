"""From what a user passes as a model, a suite or data to what a run is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.candidates import Candidate, CandidateReference
from bench.candidates.candidate import Availability
from bench.candidates.live import CalledFunction, LiveReference, home_of, live_reference
from bench.candidates.registry import find_candidate
from bench.data import Dataset, image_shape, named_datasets
from bench.data.in_hand import DataInHand, dataset_in_hand
from bench.errors import InputError
from bench.formatting import threat_model as threat_model_text
from bench.runs.devices import torch_device
from bench.suites import Suite, ThreatModel, load_suite
from bench.suites.suite import CertificationSettings

Model = nn.Module | Callable[..., Any] | Candidate | str | os.PathLike[str]
"""A module, another callable, a candidate, or the name or folder of one."""
Images = Tensor | npt.ArrayLike
Classes = int | Sequence[str]


class UsualSuite(str):
    """The name of the suite that is taken where the user names none.

    A signature shows it as the plain name, and it is told from the same name in a user's call.
    """


@dataclass(frozen=True)
class GivenReference:
    """A candidate that the user made."""

    candidate: Candidate

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name

    @property
    def norms(self) -> frozenset[str]:
        """The norms that it was made to withstand."""
        return frozenset(each.norm for each in self.candidate.information.threat_models)

    def availability(self) -> Availability:
        """Return that it is here."""
        return Availability(here=True)

    def load(self) -> Candidate:
        """Return it."""
        return self.candidate


@dataclass(frozen=True)
class NamedReference:
    """A candidate under another name than its own."""

    name: str
    reference: CandidateReference

    @property
    def norms(self) -> frozenset[str]:
        """The candidate's own."""
        return self.reference.norms

    def availability(self) -> Availability:
        """Return what loading would need."""
        return self.reference.availability()

    def load(self) -> Candidate:
        """Load it; errors as of its own reference."""
        return replace(self.reference.load(), name=self.name)


def reference_of(
    model: Model,
    suite: Suite | None,
    name: str | None = None,
    *,
    model_dir: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    randomized: bool = False,
) -> CandidateReference:
    """Return what the user means by `model`; the module's values stay as they are.

    Args:
        suite: in which names are looked up, and whose images a live model takes; None, for models
            that are no names: unknown.
        name: of the candidate; None: its own.
        randomized: whether a live model's answers vary.

    Raises:
        InputError: a name that nothing answers to, or no model at all.
    """
    if isinstance(model, str | os.PathLike):
        assert suite is not None
        found = _find(os.fspath(model), suite, folder_of_models(model_dir), trust_code)
    elif isinstance(model, Candidate):
        found = GivenReference(model)
    else:
        return live_reference(model, name, randomized, _shape(suite))
    if randomized:
        raise InputError(
            "randomized: expected a model in Python beside it; a submission declares it in its "
            "file, and behind a name it is ,randomized=true"
        )
    return found if name in (None, found.name) else NamedReference(str(name), found)


def modules_of(reference: CandidateReference) -> tuple[nn.Module, ...]:
    """Return the user's own modules that a run would change for its time."""
    if isinstance(reference, NamedReference):
        return modules_of(reference.reference)
    if isinstance(reference, LiveReference):
        return (reference.module,)
    if isinstance(reference, GivenReference):
        given = reference.candidate
        parts = (given.module, given.surrogate, given.voter)
        return tuple(each for each in parts if each is not None)
    bases = getattr(reference, "bases", None)  # of a mix
    if not isinstance(bases, Mapping):
        return ()
    return tuple(module for base in bases.values() for module in modules_of(base))


def device_of(device: str | torch.device, reference: CandidateReference) -> torch.device:
    """Return where a candidate is evaluated.

    By default a live model stays on the GPU on which it is, and a function whose modules are known
    stays where they are; all else goes to the GPU if there is one.

    Raises:
        InputError: no name of a device, or one that torch does not see.
    """
    if device == "auto":
        for module in modules_of(reference):
            home = home_of(module)
            if home is not None and (home.type != "cpu" or isinstance(module, CalledFunction)):
                return home
    return torch_device(device)


def suite_of(suite: str | os.PathLike[str] | Suite) -> Suite:
    """Return a suite by its name, by the path of its file, or as it is.

    Raises:
        InputError: there is none.
    """
    return suite if isinstance(suite, Suite) else load_suite(os.fspath(suite))


def suite_of_call(
    suite: str | os.PathLike[str] | Suite,
    images: Images | None,
    labels: Images | None,
    threat_model: ThreatModel | None,
    classes: Classes | None,
) -> tuple[Suite, bool]:
    """Return the suite that a call means, and whether it is made of data in memory.

    Args:
        suite: as the user names it, or a `UsualSuite`.
        images, labels, threat_model, classes: instead of a suite; None: not given.

    Raises:
        InputError: a suite is named beside one of the others, or as for `suite_of` and
            `suite_in_hand`.
    """
    in_memory = {
        "images": images, "labels": labels, "threat_model": threat_model, "classes": classes
    }  # fmt: skip
    given = [name for name, value in in_memory.items() if value is not None]
    if not given:
        return suite_of(suite), False
    if not isinstance(suite, UsualSuite):
        _refuse_suite_beside(suite, given)
    return suite_in_hand(images, labels, threat_model, classes), True


def _refuse_suite_beside(suite: str | os.PathLike[str] | Suite, given: Sequence[str]) -> None:
    """Refuse a suite that is named beside what stands for one.

    Args:
        given: the names of the other arguments.

    Raises:
        InputError: always.
    """
    named = suite.name if isinstance(suite, Suite) else os.fspath(suite)
    advice = f"leave out the suite, or {' and '.join(given)}"
    if given == ["threat_model"]:
        advice = "for another radius than the suite's, use eps"
    raise InputError(
        "expected a suite, or images, labels and threat_model in its place; got suite "
        f"{named!r} and {', '.join(given)}: {advice}"
    )


def suite_in_hand(
    images: Images | None,
    labels: Images | None,
    threat_model: ThreatModel | None,
    classes: Classes | None,
) -> Suite:
    """Return a suite of images and labels in memory, named by their digest and the threat model.

    Raises:
        InputError: one of the three is not given, or an array cannot be read for certain.
    """
    for name, value in (("images", images), ("labels", labels), ("threat_model", threat_model)):
        if value is None:
            example = " such as bench.Linf(8 / 255)" if name == "threat_model" else ""
            raise InputError(
                f"{name}: expected images, labels and threat_model together, got no {name}{example}"
            )
    if not isinstance(threat_model, ThreatModel):
        raise InputError(
            "threat_model: expected one such as bench.Linf(8 / 255) or bench.L2(0.5), got "
            f"{threat_model!r}"
        )
    assert images is not None
    assert labels is not None
    return suite_around(dataset_in_hand(images, labels, classes), threat_model)


def suite_around(dataset: Dataset, threat_model: ThreatModel) -> Suite:
    """Return the suite of a data set in memory, with the protocols of the shipped suites."""
    protocols: dict[str, Any] = {
        "standard": {"attacks": "autoattack"},
        "adaptive": {"extends": "standard", "attacks": "defence-aware"},
    }
    if threat_model.norm == "L2":
        protocols["certified"] = {"certification": CertificationSettings()}
    return Suite.model_validate(
        {
            "name": f"{dataset.name}-{threat_model.norm.lower()}-{threat_model.eps:.6g}",
            "version": 1,
            "title": f"{len(dataset):,} images given in Python, {threat_model_text(threat_model)}",
            "data": DataInHand(dataset=dataset),
            "threat_model": threat_model,
            "protocols": protocols,
        }
    )


def width_of(module: nn.Module, images: Tensor, device: torch.device) -> int | None:
    """Return how many classes a module's logits (1, K) have; None where it has no such answer."""
    with torch.no_grad():
        answer = module.to(device)(images[:1].to(device, copy=True))
    is_logits = isinstance(answer, Tensor) and answer.ndim == 2 and answer.shape[1] > 1
    return answer.shape[1] if is_logits else None


def folder_of_models(model_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder for downloaded weights that is given or that BENCH_MODEL_DIR names."""
    chosen = model_dir or os.environ.get("BENCH_MODEL_DIR")
    return Path(chosen) if chosen else None


def _shape(suite: Suite | None) -> tuple[int, ...] | None:
    """Return (C, H, W) of a suite's images where it is known."""
    if suite is None:
        return None
    if isinstance(suite.data, DataInHand):
        return tuple(suite.data.dataset.images.shape[1:])
    return image_shape(suite.data.label)


def _find(name: str, suite: Suite, model_dir: Path | None, trust_code: bool) -> CandidateReference:
    """Return the candidate of a name; for images in hand one that is made for any data set."""
    if not isinstance(suite.data, DataInHand):
        return find_candidate(name, suite, model_dir, trust_code)
    errors = []
    for dataset in named_datasets():
        like = suite.data.model_copy(update={"like": dataset})
        try:
            return find_candidate(
                name, suite.model_copy(update={"data": like}), model_dir, trust_code
            )
        except InputError as error:
            errors.append(error)
    raise errors[0]
