"""A suite: what is evaluated, on which data, under which threat model, by which protocols."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.errors import InputError
from bench.validation import Number, StrictModel, read_yaml, validate

Norm = Literal["Linf", "L2", "L1"]
_SUFFIXES = (".yaml", ".yml")


class ThreatModel(StrictModel):
    """The perturbations that an attack may use: a ball around the image, inside [0, 1]."""

    norm: Norm
    eps: Annotated[Number, Field(gt=0)]
    """Radius in the [0, 1] pixel scale."""

    @model_validator(mode="after")
    def _in_the_pixel_scale(self) -> ThreatModel:
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(
                f"expected eps of at most 1, since pixels are in [0, 1]; did you mean "
                f"{self.eps:g}/255?"
            )
        return self


class DataSource(StrictModel):
    """Where images and labels come from: exactly one of `name`, `torchvision`, `folder`, `npz`."""

    name: Literal["digits", "cifar10", "cifar100", "imagenet"] | None = None
    torchvision: str | None = None
    """A class of torchvision.datasets, e.g. SVHN."""
    arguments: dict[str, Any] = {}
    """Further arguments of the torchvision class, e.g. {split: test}."""
    folder: Path | None = None
    """One subfolder of images a class."""
    npz: Path | None = None
    """Arrays `images` (N, C, H, W) or (N, H, W, C), uint8 or float in [0, 1], and `labels` (N,)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSource:
        given = [
            field for field in ("name", "torchvision", "folder", "npz") if getattr(self, field)
        ]
        if len(given) != 1:
            came = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of name, torchvision, folder, npz; got {came}")
        if self.arguments and self.torchvision is None:
            raise ValueError("expected `arguments` only beside `torchvision`")
        return self

    @property
    def label(self) -> str:
        """A short name for records and pages."""
        if self.folder is not None:
            return self.folder.name
        if self.npz is not None:
            return self.npz.stem
        return self.name or str(self.torchvision).lower()

    def relative_to(self, folder: Path) -> DataSource:
        """The same source with relative paths taken from `folder`."""
        changes = {
            field: folder / path
            for field in ("folder", "npz")
            if (path := getattr(self, field)) is not None
        }
        return self.model_copy(update=changes)


class AttackChoice(StrictModel):
    """An attack by name, with the parameters that differ from its own defaults."""

    name: str
    parameters: dict[str, Any] = {}


class Certification(StrictModel):
    """How much noise a certificate may take; `bench.certify.smoothing.Smoothing` says of what."""

    selection_samples: Annotated[int, Field(ge=1)] = 100
    noise_samples: Annotated[int, Field(ge=1)] = 100_000
    failure_probability: Annotated[float, Field(gt=0, lt=1)] = 0.001


class Protocol(StrictModel):
    """What is done to a candidate: it is attacked, it is certified, or what another kind does."""

    kind: str = ""
    """The kind of run; by default `evaluation` with attacks and `certification` without."""
    attacks: tuple[AttackChoice, ...] = ()
    """Each on the samples that stood the earlier ones."""
    certification: Certification | None = None
    arguments: dict[str, Any] = {}
    """What a kind of run of your own needs beside attacks."""
    candidates: tuple[str, ...] | None = None
    """Evaluated unless others are asked for; None: the suite's."""

    @model_validator(mode="after")
    def _attacks_or_certification(self) -> Protocol:
        if self.kind:
            return self
        if bool(self.attacks) == (self.certification is not None):
            came = "both" if self.attacks else "neither"
            raise ValueError(f"expected either attacks or certification; got {came}")
        kind = "evaluation" if self.attacks else "certification"
        return self.model_copy(update={"kind": kind})

    @field_validator("attacks", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"name": item} if isinstance(item, str) else item for item in value]
        return value


class Suite(StrictModel):
    """A named benchmark."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Annotated[int, Field(ge=1)]
    title: str
    description: str = ""
    data: DataSource
    n_examples: Annotated[int, Field(ge=1)] | None = None
    """How many samples the protocol takes; None: the whole data set."""
    threat_model: ThreatModel
    protocols: dict[Literal["standard", "adaptive", "certified"], Protocol]
    candidates: tuple[str, ...] = ()
    """The shipped submissions that are evaluated unless the protocol has its own, or others are
    asked for."""

    @field_validator("data", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def protocol(self, name: str) -> Protocol:
        """The protocol called `name`.

        Raises:
            InputError: the suite has no such protocol.
        """
        for known, protocol in self.protocols.items():
            if known == name:
                return protocol
        names = ", ".join(self.protocols)
        raise InputError(f"suite {self.name}: expected a protocol of {names}; got {name!r}")

    def candidates_of(self, protocol: str) -> tuple[str, ...]:
        """What is evaluated under the protocol called `protocol` unless others are asked for.

        Raises:
            InputError: the suite has no such protocol.
        """
        own = self.protocol(protocol).candidates
        return self.candidates if own is None else own


def suite_names() -> list[str]:
    """Names of the suites that ship with the package, sorted."""
    files = resources.files("bench.suites").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def suite_name(name_or_path: str) -> str:
    """The name of a suite that is given by its name or by the path of its YAML file.

    Raises:
        InputError: the file cannot be read, or has a wrong field.
    """
    is_path = name_or_path.endswith(_SUFFIXES)
    return load_suite(name_or_path).name if is_path else name_or_path


def load_suite(name_or_path: str) -> Suite:
    """A shipped suite by its name, or a user's own by the path of its YAML file.

    Raises:
        InputError: no such suite (the nearest names are given), or a wrong field in the file.
    """
    if name_or_path in suite_names():
        path = Path(str(resources.files("bench.suites") / f"{name_or_path}.yaml"))
    elif name_or_path.endswith(_SUFFIXES):
        path = Path(name_or_path)
    else:
        near = difflib.get_close_matches(name_or_path, suite_names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `bench list suites`"
        raise InputError(f"unknown suite {name_or_path!r}: {hint}")
    suite = validate(Suite, read_yaml(path), path)
    if name_or_path not in suite_names():
        _check_attacks(suite, path)
        _check_radius(suite, path)
    return suite.model_copy(update={"data": suite.data.relative_to(path.resolve().parent)})


def _check_radius(suite: Suite, path: Path) -> None:
    from bench.data import check_radius  # torch: slow to import

    check_radius(suite.threat_model, suite.data, f"{path}: field threat_model.eps")


def _check_attacks(suite: Suite, path: Path) -> None:
    from bench.attacks.registry import ATTACKS, plan_attack  # torch: slow to import

    threat = suite.threat_model
    for protocol, content in suite.protocols.items():
        for choice in content.attacks:
            field = f"{path}: field protocols.{protocol}.attacks"
            if choice.name not in ATTACKS:
                near = difflib.get_close_matches(choice.name, ATTACKS, n=1) or list(ATTACKS)
                raise InputError(f"{field}: expected {', '.join(near)}; got {choice.name!r}")
            try:
                plan_attack(
                    choice.name, choice.parameters, norm=threat.norm, eps=threat.eps, classes=10
                )
            except InputError as error:
                raise InputError(f"{field}: {error}") from error
