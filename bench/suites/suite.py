"""A suite: what is evaluated, on which data, under which threat model, by which protocols."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from bench.data import DataSource, image_shape
from bench.data.in_hand import PREFIX as IN_HAND
from bench.errors import InputError
from bench.suggestion import did_you_mean
from bench.suites.sequences import SEQUENCES
from bench.validation import Number, StrictModel, read_yaml, validate


def _usual_spelling(value: Any) -> Any:
    """Turn "linf", "l_inf", "L-inf" and the like into the norm's usual name."""
    if not isinstance(value, str):
        return value
    usual = {"linf": "Linf", "l∞": "Linf", "l2": "L2", "l1": "L1"}
    return usual.get(value.strip().lower().replace("_", "").replace("-", ""), value)


def _norm_and_radius(value: Any) -> Any:
    """Turn "Linf" and "Linf 8/255" into the fields they name."""
    if not isinstance(value, str):
        return value
    norm, _, eps = value.strip().partition(" ")
    return {"norm": norm, "eps": eps.strip()} if eps else {"norm": norm}


NormField = Annotated[Literal["Linf", "L2", "L1"], BeforeValidator(_usual_spelling)]
EPS_TOLERANCE = 1e-6
"""Radii closer than this are one threat model; 0.031 and 8/255 are two."""
STANDARD_PROTOCOL = "standard"
CERTIFIED_PROTOCOL = "certified"
ADAPTIVE_PROTOCOL = "adaptive"
EXPRESS_PROTOCOL = "express"
"""Every suite whose threat model is attacked has it, without a word in its file."""
_SUFFIXES = (".yaml", ".yml")


class ThreatModel(StrictModel):
    """The perturbations that an attack may use: a ball around the image, inside [0, 1]."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"norm": "Linf", "eps": "8/255"}]})

    norm: NormField
    eps: Annotated[Number, Field(gt=0)]
    """Radius in the [0, 1] pixel scale."""

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return _norm_and_radius(value)

    @model_validator(mode="after")
    def _in_the_pixel_scale(self) -> ThreatModel:
        _check_scale(self.norm, self.eps)
        return self


def Linf(eps: float | str) -> ThreatModel:  # the norm's name
    """Return the threat model of an Linf ball.

    Args:
        eps: radius in the [0, 1] pixel scale, in (0, 1], such as 8 / 255 or "8/255".

    Raises:
        InputError: no such radius.
    """
    return _ball("Linf", eps)


def L2(eps: float | str) -> ThreatModel:  # the norm's name
    """Return the threat model of an L2 ball.

    Args:
        eps: radius in the [0, 1] pixel scale, > 0, such as 0.5 or "128/255".

    Raises:
        InputError: no such radius.
    """
    return _ball("L2", eps)


def _ball(norm: str, eps: float | str) -> ThreatModel:
    return validate(ThreatModel, {"norm": norm, "eps": eps}, norm)


class DeclaredThreatModel(StrictModel):
    """What a candidate was trained to withstand."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"norm": "Linf", "eps": "8/255"}]})

    norm: NormField
    eps: Annotated[Number, Field(gt=0)] | None = None
    """Radius in the [0, 1] pixel scale; None: the suite's under which it is evaluated."""

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return _norm_and_radius(value)

    @model_validator(mode="after")
    def _in_the_pixel_scale(self) -> DeclaredThreatModel:
        _check_scale(self.norm, self.eps)
        return self


def _check_scale(norm: str, eps: float | None) -> None:
    if norm == "Linf" and eps is not None and eps > 1:
        raise ValueError(
            f"expected eps of at most 1, since pixels are in [0, 1]; got {eps:g}: did you mean "
            f"{eps:g}/255?"
        )


def check_certifiable(threat_model: ThreatModel, origin: str) -> None:
    """Refuse certificates under a norm that is not that of their radii.

    Args:
        origin: of the threat model, for the message.

    Raises:
        InputError: the norm is not L2.
    """
    if threat_model.norm != "L2":
        raise InputError(
            f"{origin}: expected a threat model in L2 beside a certification, since votes under "
            f"Gaussian noise prove L2 radii; got {threat_model.norm}. An L2 radius r proves no "
            "more than r/sqrt(d) in Linf, d = channels * height * width: certify under a suite in "
            "L2, and `bench show` says what that proves in Linf"
        )


class AttackChoice(StrictModel):
    """An attack by name, with the parameters that differ from its own defaults."""

    model_config = ConfigDict(json_schema_extra={"examples": ["apgd-ce"]})

    name: str = Field(description="an attack's name", examples=["apgd-ce"])
    parameters: dict[str, Any] = Field(default={}, examples=[{"steps": 50}])

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class CertificationSettings(StrictModel):
    """How many noisy draws a certificate takes, and its failure probability.

    `bench.certification.smoothing.Smoothing` adds the classifier's noise to it.
    """

    selection_samples: Annotated[int, Field(ge=1)] = 100
    noise_samples: Annotated[int, Field(ge=1)] = 100_000
    failure_probability: Annotated[float, Field(gt=0, lt=1)] = 0.001


def _named_sequence(value: Any) -> Any:
    """Turn the name of a sequence of attacks into the attacks' names."""
    if not isinstance(value, str):
        return value
    if value not in SEQUENCES:
        raise ValueError(f"expected a list of attacks, or one of {', '.join(SEQUENCES)}")
    return SEQUENCES[value]


class Protocol(StrictModel):
    """What is done to a candidate: it is attacked, it is certified, or what another kind does."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"attacks": ["apgd-ce", "square"]}]})

    kind: str = ""
    """The kind of run; by default `evaluation` with attacks and `certification` without."""
    extends: str = Field(default="", examples=["standard"])
    """A protocol of the suite whose attacks come before this one's; empty: none. A suite that was
    loaded has those attacks in `attacks`."""
    attacks: Annotated[tuple[AttackChoice, ...], BeforeValidator(_named_sequence)] = ()
    """Attacks in order, each on the samples that survived the earlier ones; a file may name one of
    `SEQUENCES`."""
    certification: CertificationSettings | None = None
    arguments: dict[str, Any] = {}
    """Settings of a kind of run of your own, beside attacks."""
    candidates: Annotated[tuple[str, ...], Field(examples=[["my-defence"]])] | None = None
    """Evaluated unless others are asked for; None: the suite's."""

    @model_validator(mode="after")
    def _attacks_or_certification(self) -> Protocol:
        if self.extends and self.certification is not None:
            raise ValueError("expected certification or a protocol to extend; got both")
        if self.kind:
            return self
        if self.extends:
            return self.model_copy(update={"kind": "evaluation"})
        if bool(self.attacks) == (self.certification is not None):
            came = "both" if self.attacks else "neither"
            raise ValueError(f"expected either attacks or certification; got {came}")
        kind = "evaluation" if self.attacks else "certification"
        return self.model_copy(update={"kind": kind})


SMALL_NAME = "small letters, digits, '.', '_' and '-', with a letter or digit first"
ProtocolName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description=SMALL_NAME, examples=["standard"]),
]


class Suite(StrictModel):
    """A named benchmark."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9._-]*$", description=SMALL_NAME, examples=["my-signs-linf"]
        ),
    ]
    version: Annotated[int, Field(ge=1)]
    title: str = Field(examples=["Traffic signs, Linf 4/255"])
    description: str = ""
    data: DataSource = Field(
        description="a data set's name, or where images lie: one of folder, npz, torchvision"
    )
    n_examples: Annotated[int, Field(ge=1)] | None = None
    """How many samples the protocol takes; None: the whole data set."""
    threat_model: ThreatModel
    protocols: Annotated[dict[ProtocolName, Protocol], Field(min_length=1)]
    """By name; `standard`, `adaptive` and `certified` are the usual ones."""
    candidates: tuple[str, ...] = Field(default=(), examples=[["my-defence"]])
    """The shipped submissions that are evaluated unless the protocol has its own, or others are
    asked for."""

    @model_validator(mode="after")
    def _with_the_attacks_of_extended_protocols(self) -> Suite:
        protocols = {name: self._extended(name) for name in self.protocols}
        if protocols == self.protocols:
            return self
        return self.model_copy(update={"protocols": protocols})

    def _extended(self, name: str) -> Protocol:
        """Return a protocol with the attacks of those that it extends before its own."""
        protocol = self.protocols[name]
        attacks, passed, base = protocol.attacks, {name}, protocol.extends
        while base:
            field = f"field protocols.{name}.extends: expected"
            if base in passed:
                raise ValueError(f"{field} a protocol that does not extend this one; got {base!r}")
            attacking = [each for each, one in self.protocols.items() if one.attacks or one.extends]
            if base not in attacking:
                others = ", ".join(each for each in attacking if each != name) or "there is none"
                raise ValueError(f"{field} another protocol with attacks ({others}); got {base!r}")
            passed.add(base)
            extended = self.protocols[base]
            attacks, base = (*extended.attacks, *attacks), extended.extends
        return protocol.model_copy(update={"attacks": attacks, "extends": ""})

    @model_validator(mode="after")
    def _certifies_in_l2(self) -> Suite:
        for name, protocol in self.protocols.items():
            if protocol.certification is not None:
                try:
                    check_certifiable(self.threat_model, f"field protocols.{name}")
                except InputError as error:
                    raise ValueError(str(error)) from error
        return self

    def protocol(self, name: str) -> Protocol:
        """Return the protocol called `name`.

        Raises:
            InputError: the suite has no such protocol.
        """
        if name in self.protocols:
            return self.protocols[name]
        attacking = [each for each, one in self.protocols.items() if one.attacks]
        if name == EXPRESS_PROTOCOL and attacking:
            richest = ADAPTIVE_PROTOCOL if ADAPTIVE_PROTOCOL in attacking else attacking[0]
            # Of its attacks, those that know how a candidate is built become arms; all of them
            # follow where gradients mislead.
            attacks = self.protocols[richest].attacks
            return Protocol(kind="express", attacks=attacks)
        names = ", ".join(self.protocol_names)
        raise InputError(f"suite {self.name}: expected a protocol of {names}; got {name!r}")

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """What `protocol` takes: its own protocols, and `express` if one of them attacks."""
        attacks = any(each.attacks for each in self.protocols.values())
        return tuple(dict.fromkeys([*self.protocols, *([EXPRESS_PROTOCOL] if attacks else [])]))

    @property
    def default_protocol(self) -> str:
        """The protocol that is taken where none is named: the only one, or `standard`.

        Raises:
            InputError: there are several, and none is called so.
        """
        if len(self.protocols) == 1:
            return next(iter(self.protocols))
        if STANDARD_PROTOCOL in self.protocols:
            return STANDARD_PROTOCOL
        names = ", ".join(self.protocols)
        raise InputError(f"suite {self.name}: expected --protocol with one of {names}; got none")

    @property
    def attacking_protocol(self) -> str:
        """`standard`, or the first protocol that attacks.

        Raises:
            InputError: all protocols certify.
        """
        attacking = [name for name, each in self.protocols.items() if each.certification is None]
        if not attacking:
            raise InputError(f"suite {self.name}: expected a protocol with attacks, got none")
        return STANDARD_PROTOCOL if STANDARD_PROTOCOL in attacking else attacking[0]

    @property
    def certifying_protocol(self) -> str:
        """`certified`, or the first protocol that certifies.

        Raises:
            InputError: all protocols attack.
        """
        certifying = [name for name, each in self.protocols.items() if each.certification]
        if not certifying:
            norm = self.threat_model.norm
            why = (
                "none of its protocols certifies"
                if norm == "L2"
                else f"its norm is {norm}, and votes under noise prove radii in L2"
            )
            raise InputError(
                f"suite {self.name} has no certification: {why}; suites that have one: "
                f"{', '.join(_certifying_suites())}"
            )
        return CERTIFIED_PROTOCOL if CERTIFIED_PROTOCOL in certifying else certifying[0]

    def candidates_of(self, protocol: str) -> tuple[str, ...]:
        """Return what is evaluated under the protocol called `protocol` by default.

        Raises:
            InputError: the suite has no such protocol.
        """
        own = self.protocol(protocol).candidates
        return self.candidates if own is None else own


def suite_names() -> list[str]:
    """Return the names of the suites that ship with the package, sorted."""
    files = resources.files("bench.suites").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _certifying_suites() -> list[str]:
    """Return the names of the shipped suites that have a certification."""
    return [
        name
        for name in suite_names()
        if any(protocol.certification for protocol in read_suite(name).protocols.values())
    ]


def suite_name(name_or_path: str) -> str:
    """Return the name of a suite that is given by its name or by its YAML file's path.

    Raises:
        InputError: the file cannot be read, or has a wrong field.
    """
    is_path = name_or_path.endswith(_SUFFIXES)
    return read_suite(name_or_path).name if is_path else name_or_path


def load_suite(name_or_path: str) -> Suite:
    """Load a shipped suite by its name, or a user's own by the path of its YAML file.

    Raises:
        InputError: no such suite (the nearest names are given), or a wrong field in the file.
    """
    suite = read_suite(name_or_path)
    if name_or_path not in suite_names():
        _check_attacks(suite, name_or_path)
    return suite


def read_suite(name_or_path: str) -> Suite:
    """Load a suite like `load_suite`, without looking up its attacks, which would import torch.

    This is enough to read results. `load_suite` also checks that the attacks exist.

    Raises:
        InputError: no such suite (the nearest names are given), or a wrong field in the file.
    """
    if name_or_path in suite_names():
        path = Path(str(resources.files("bench.suites") / f"{name_or_path}.yaml"))
    elif name_or_path.endswith(_SUFFIXES):
        path = Path(name_or_path)
    else:
        if name_or_path.startswith(IN_HAND):
            raise InputError(
                f"suite {name_or_path}: its images were given in Python and are not kept beside "
                "the records; call `bench.load(...).verify(model, images=..., labels=...)` there"
            )
        hint = did_you_mean(name_or_path, suite_names(), cutoff=0.5) or "see `bench list suites`"
        raise InputError(f"unknown suite {name_or_path!r}: {hint}")
    suite = validate(Suite, read_yaml(path), path)
    if name_or_path not in suite_names():
        check_radius(suite.threat_model, suite.data, f"{path}: field threat_model.eps")
    return suite.model_copy(update={"data": suite.data.relative_to(path.resolve().parent)})


def check_radius(threat_model: ThreatModel, source: DataSource, origin: str) -> None:
    """Refuse a ball in L2 that holds every image, where a data set's image size is known.

    Args:
        source: of the images.
        origin: of the radius, for the message.

    Raises:
        InputError: the radius is at least the diagonal of the cube of all images.
    """
    if threat_model.norm != "L2" or source.name is None:
        return
    shape = image_shape(source.name)
    assert shape is not None
    diagonal = math.sqrt(math.prod(shape))
    if threat_model.eps >= diagonal:
        raise InputError(
            f"{origin}: expected less than {diagonal:.4g}, the L2 distance of a black and a white "
            f"image of {source.name}, of shape {shape}; got {threat_model.eps:g}"
        )


def _check_attacks(suite: Suite, path: str) -> None:
    from bench.attacks.registry import ATTACKS, OWN_ATTACKS, plan_attack  # torch: slow to import

    threat = suite.threat_model
    for protocol, content in suite.protocols.items():
        for choice in content.attacks:
            field = f"{path}: field protocols.{protocol}.attacks"
            if choice.name not in ATTACKS:
                known = list(ATTACKS)
                hint = did_you_mean(choice.name, known, most=1) or f"known are {', '.join(known)}."
                raise InputError(f"{field}: unknown attack {choice.name!r}: {hint} {OWN_ATTACKS}")
            try:
                plan_attack(
                    choice.name, choice.parameters, norm=threat.norm, eps=threat.eps, classes=10
                )
            except InputError as error:
                raise InputError(f"{field}: {error}") from error
