"""Claims: numbers published elsewhere, with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bench.claims.rows import read_rows
from bench.data import DatasetName
from bench.errors import InputError
from bench.suites import Suite, ThreatModel
from bench.suites.suite import EPS_TOLERANCE
from bench.validation import Number, StrictModel


def none_if_empty(value: Any) -> Any:
    """Turn an empty field into None; leave everything else to the field's own validation."""
    return None if value == "" else value


def _fraction_of_percent(value: Any) -> Any:
    if value is None or value == "":
        return None
    try:
        percent = Decimal(str(value))
    except InvalidOperation:
        percent = Decimal("NaN")
    if percent.is_nan() or not 0 <= percent <= 100:
        raise ValueError("expected a percentage in [0, 100] or nothing")
    return float(percent / 100)  # computed with decimals, so that 95.51 is exactly 9,551 / 10,000


CLAIM_FILES = ("robustbench.csv",)

Accuracy = Annotated[float | None, BeforeValidator(_fraction_of_percent)]
"""A fraction in [0, 1], written as a percentage in the file."""


def _one_line(value: Any) -> Any:
    # Some of RobustBench's files hold line breaks, also as HTML.
    return " ".join(value.replace("<br>", " ").split()) if isinstance(value, str) else value


Link = Annotated[
    str,
    Field(
        pattern=r"^https?://\S+$",
        description="an address with http:// or https://",
        examples=["https://arxiv.org/abs/1902.02918"],
    ),
]
Text = Annotated[str, BeforeValidator(_one_line), Field(min_length=1)]


class Claim(StrictModel):
    """One row of a claims file; the aliases are its columns.

    Accuracies are fractions in [0, 1], None where the source gives none.
    """

    dataset: DatasetName
    norm: Literal["Linf", "L2", "corruptions"] = Field(alias="threat_model")
    """The leaderboard: a norm, or common corruptions, with which no suite is compared."""
    model_id: Text
    paper: Text
    link: Link
    venue: Annotated[str, BeforeValidator(_one_line)]
    architecture: Text
    eps: Annotated[Annotated[Number, Field(gt=0)] | None, BeforeValidator(none_if_empty)]
    """Radius of the attack in the [0, 1] pixel scale, as the source gives it."""
    clean_accuracy: Annotated[Accuracy, Field(alias="clean_acc")]
    autoattack_accuracy: Annotated[Accuracy, Field(alias="autoattack_acc")]
    """Under standard AutoAttack."""
    external_accuracy: Annotated[Accuracy, Field(alias="external")]
    """The lowest accuracy known, if another evaluation found a lower one than AutoAttack."""
    reported: Accuracy
    """Robust accuracy as the paper itself says."""
    corruptions_accuracy: Annotated[Accuracy, Field(alias="corruptions_acc")]
    corruptions_mce: Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(none_if_empty)]
    """Mean corruption error, in percent of AlexNet's."""
    additional_data: bool
    """Whether data beyond the training set was used."""
    forward_passes: Annotated[int, Field(alias="number_forward_passes", ge=1)]
    """Forward passes of a network that one prediction takes."""
    unreliable: Annotated[bool | None, BeforeValidator(none_if_empty)]
    """Whether the source doubts its robust accuracy; None: it does not say."""
    source: Text

    @model_validator(mode="after")
    def _attacked_at_a_radius(self) -> Claim:
        if self.norm != "corruptions":
            if self.eps is None:
                raise ValueError(f"expected an eps beside threat model {self.norm}")
            if self.autoattack_accuracy is None:
                raise ValueError(f"expected an autoattack_acc beside threat model {self.norm}")
        return self

    @property
    def best_known_accuracy(self) -> float | None:
        """The lowest robust accuracy known, by which RobustBench ranks."""
        if self.external_accuracy is not None:
            return self.external_accuracy
        return self.autoattack_accuracy


@cache
def load_claims() -> tuple[Claim, ...]:
    """Return all claims that ship with the package.

    Raises:
        InputError: a wrong row (file and row are named).
    """
    folder = Path(str(resources.files("bench.claims")))
    return tuple(claim for name in CLAIM_FILES for claim in read_claims(folder / name))


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of one file: comma-separated, UTF-8, the columns of `Claim`.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, a field is wrong, or
            a model stands twice on a leaderboard. Rows are counted from 1, which is the header.
    """
    claims: list[Claim] = []
    first_row: dict[tuple[str, str, str], str] = {}
    for origin, claim in read_rows(path, Claim):
        key = (claim.dataset, claim.norm, claim.model_id)
        if key in first_row:
            raise InputError(
                f"{origin}: field model_id: expected each model once on a leaderboard, got "
                f"{claim.model_id!r} again (first in {first_row[key]})"
            )
        first_row[key] = origin.rpartition(": ")[2]
        claims.append(claim)
    return claims


def claims_at(dataset: str, threat_model: ThreatModel) -> list[Claim]:
    """Return the claims about a data set under exactly this threat model, most robust first."""
    found = [
        claim
        for claim in load_claims()
        if claim.dataset == dataset
        and claim.norm == threat_model.norm
        and claim.eps is not None
        and abs(claim.eps - threat_model.eps) <= EPS_TOLERANCE
    ]
    return sorted(found, key=_rank)


def claims_for(suite: Suite) -> list[Claim]:
    """Return the claims that a suite's results can be compared with, most robust first.

    Six entries of RobustBench's CIFAR-10 Linf leaderboard were attacked at eps 0.031, slightly
    below 8/255. The suite at 8/255 is not compared with them.
    """
    return claims_at(suite.data.label, suite.threat_model)


def claims_at_other_radii(dataset: str, threat_model: ThreatModel) -> list[Claim]:
    """Return the claims about a data set under the norm at another radius, most robust first."""
    return sorted(
        (
            claim
            for claim in load_claims()
            if claim.dataset == dataset
            and claim.norm == threat_model.norm
            and claim.eps is not None
            and abs(claim.eps - threat_model.eps) > EPS_TOLERANCE
        ),
        key=_rank,
    )


def find_claim(claims: Sequence[Claim], model_id: str | None) -> Claim | None:
    """Return the claim about a model among others; None if there is none."""
    return next((claim for claim in claims if claim.model_id == model_id), None)


def claim_of(suite: Suite, claim_id: str | None) -> Claim | None:
    """Return the claim about the model that RobustBench lists as `claim_id`, or None."""
    return find_claim(claims_for(suite), claim_id)


def _rank(claim: Claim) -> tuple[float, float, str]:
    return (-(claim.best_known_accuracy or 0), -(claim.clean_accuracy or 0), claim.model_id)
