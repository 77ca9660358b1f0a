"""What the papers claim, as data, and on which of our own records each claim is tested.

`papers.yaml` holds the claims; `bench.claims.rules` says how each is judged.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.claims.claims import Link, Text
from bench.claims.trainings import training_name
from bench.data import DatasetName
from bench.validation import StrictModel, read_yaml, validate

FILE = "papers.yaml"

Rule = Literal[
    "gains-more-than-it-loses",
    "more-accurate-at-equal-robustness",
    "certificates-hold",
    "larger-average-radius",
    "same-robust-accuracy",
]


class Paper(StrictModel):
    """A paper that claims something."""

    title: Text
    authors: Text
    link: Link
    venue: Text


class PublishedNumber(StrictModel):
    """A number of the paper: a model of RobustBench's, a row of a certified table, or a log.

    Exactly one of `robustbench`, `certified` and `log` is given.
    """

    what: Text
    """What the model is, in words."""
    robustbench: str = ""
    """A model's id in `robustbench.csv`."""
    dataset: DatasetName = "cifar100"
    """The data set of that model's leaderboard."""
    norm: Literal["Linf", "L2"] = "Linf"
    """The norm of that model's leaderboard."""
    certified: str = ""
    """A model's id in `certified.csv`."""
    sigma: Annotated[float, Field(gt=0)] | None = None
    """The certified model's noise."""
    log: str = ""
    """A file of `certify_logs`, without its ending."""

    @model_validator(mode="after")
    def _one_source(self) -> PublishedNumber:
        given = [name for name in ("robustbench", "certified", "log") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"expected one of robustbench, certified and log, got {', '.join(given) or 'none'}"
            )
        if self.certified and self.sigma is None:
            raise ValueError("expected a sigma beside certified")
        return self


class Network(StrictModel):
    """Which record: an accepted run of a candidate, or a published log."""

    candidate: str = ""
    protocol: str = ""
    """The accepted run's protocol; empty: `adaptive` if there is one, else `standard`."""
    reference: bool = False
    """Whether the accepted run is of the reference engine."""
    log: str = ""
    """A file of `certify_logs`, without its ending."""
    called: str = ""
    """What the page calls it; empty: the candidate or the log."""
    trainings: Annotated[int, Field(ge=1)] = 1
    """How many trainings of the candidate there are, from seed 0 on; with several, each has a
    record of its own, named as by `training_name`."""

    @model_validator(mode="after")
    def _one_source(self) -> Network:
        if bool(self.candidate) == bool(self.log):
            raise ValueError("expected either a candidate or a log")
        if self.log and self.trainings > 1:
            raise ValueError("expected several trainings of a candidate, not of a log")
        return self

    @property
    def each_training(self) -> list[Network]:
        """Itself; or, where it stands for several trainings, these."""
        if self.trainings == 1:
            return [self]
        names = [training_name(self.candidate, seed) for seed in range(self.trainings)]
        return [self.model_copy(update={"candidate": name, "trainings": 1}) for name in names]

    @property
    def name(self) -> str:
        """What the page calls it, and which of its runs or trainings were asked for."""
        called = self.called or f"`{self.candidate or self.log}`"
        added = (
            self.protocol,
            "reference engine" if self.reference else "",
            f"{self.trainings} trainings" if self.trainings > 1 else "",
        )
        kind = ", ".join(filter(None, added))
        return f"{called} ({kind})" if kind else called


class Test(StrictModel):
    """One test of a claim: a network against others on the same images."""

    __test__ = False  # no test of pytest's

    suite: str = Field(examples=["cifar100-linf"])
    network: Network
    against: Annotated[list[Network], Field(min_length=1)]


class PaperClaim(StrictModel):
    """A claim of a paper, the numbers it rests on, and our tests of it."""

    title: Text
    claim: Text
    """In our words, without a full stop."""
    paper: Text
    """A key of `papers`."""
    where: Text
    """Where in the paper."""
    published: list[PublishedNumber] = []
    rule: Rule
    least_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The smallest difference that counts as the claim's, a fraction."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Up to which difference two robust accuracies count as equal, a fraction."""
    tests: Annotated[list[Test], Field(min_length=1)]

    @model_validator(mode="after")
    def _trainings(self) -> PaperClaim:
        networks = [each for test in self.tests for each in (test.network, *test.against)]
        if self.rule != "larger-average-radius" and any(each.trainings > 1 for each in networks):
            raise ValueError(f"expected one training of each network by the rule {self.rule}")
        return self


class PaperClaims(StrictModel):
    """The whole file."""

    papers: dict[str, Paper]
    claims: Annotated[list[PaperClaim], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> PaperClaims:
        unknown = sorted({each.paper for each in self.claims} - set(self.papers))
        if unknown:
            raise ValueError(f"expected papers of the file, got {', '.join(unknown)}")
        titles = [each.title for each in self.claims]
        if len(set(titles)) < len(titles):
            raise ValueError("expected each claim's title once")
        return self


@cache
def load_paper_claims() -> PaperClaims:
    """Return the papers' claims that ship with the package.

    Raises:
        InputError: a wrong field (file and field are named).
    """
    return read_paper_claims(Path(str(resources.files("bench.claims") / FILE)))


def read_paper_claims(path: Path) -> PaperClaims:
    """Return the claims of one file.

    Raises:
        InputError: the file cannot be read, or a field is wrong (file and field are named).
    """
    return validate(PaperClaims, read_yaml(path), str(path))
