"""Certified accuracies and radii that papers print, with their sources."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from bench.claims.claims import Accuracy, Link, Text, none_if_empty
from bench.claims.rows import read_rows
from bench.data import DatasetName
from bench.validation import StrictModel

FILE = "certified.csv"

Positive = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(none_if_empty)]


class CertifiedClaim(StrictModel):
    """One number of a paper's table: accuracy at a radius, or the average certified radius."""

    dataset: DatasetName
    norm: Literal["L2"] = Field(alias="threat_model")
    model_id: Text
    paper: Text
    link: Link
    venue: str
    architecture: Text
    sigma: Annotated[float, Field(gt=0)]
    """Standard deviation of the smoothing noise, in the [0, 1] pixel scale."""
    radius: Positive
    """L2 radius, in the [0, 1] pixel scale."""
    certified_accuracy: Annotated[Accuracy, Field(alias="certified_acc")]
    average_certified_radius: Positive
    n_examples: Annotated[int, Field(ge=1)]
    """Test images that the number was measured on."""
    source: Text

    @model_validator(mode="after")
    def _one_number(self) -> CertifiedClaim:
        at_radius = self.radius is not None and self.certified_accuracy is not None
        neither = self.radius is None and self.certified_accuracy is None
        average = self.average_certified_radius is not None
        if not (at_radius or neither) or at_radius == average:
            raise ValueError(
                "expected either a radius with a certified_acc or an average_certified_radius"
            )
        return self

    @property
    def quantity(self) -> str:
        """What the number is."""
        if self.radius is None:
            return f"average certified radius, sigma {self.sigma:.2f}"
        return f"certified accuracy at {self.radius:.2f}, sigma {self.sigma:.2f}"


@cache
def load_certified_claims() -> tuple[CertifiedClaim, ...]:
    """Return all certified claims that ship with the package.

    Raises:
        InputError: a wrong row (file and row are named).
    """
    return tuple(read_certified_claims(Path(str(resources.files("bench.claims") / FILE))))


def read_certified_claims(path: Path) -> list[CertifiedClaim]:
    """Return the certified claims of one file: the columns of `CertifiedClaim`.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, or a field is wrong.
    """
    return [claim for _, claim in read_rows(path, CertifiedClaim)]
