"""A new source of candidates: one class, through public interfaces only.

`linear:<penalty>` is a linear classifier of the suite's data, fitted by ridge regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from torch import nn

from bench import data
from bench.candidates import Availability, Candidate, Information
from bench.candidates.identity import digest, state_of
from bench.candidates.sources import CandidateSource, Search, register_source
from bench.cli import main
from bench.errors import InputError
from bench.store import Store


@dataclass(frozen=True)
class LinearReference:
    """A linear classifier that is fitted when it is loaded."""

    penalty: float
    dataset: str
    norms: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"linear:{self.penalty:g}"

    def availability(self) -> Availability:
        return Availability(here=True)

    def load(self) -> Candidate:
        train = data.load(self.dataset, "train")
        inputs = train.images.flatten(1).double()
        targets = nn.functional.one_hot(train.labels).double()
        gram = inputs.T @ inputs + self.penalty * torch.eye(inputs.shape[1], dtype=torch.float64)
        layer = nn.Linear(inputs.shape[1], targets.shape[1], bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.linalg.solve(gram, inputs.T @ targets).T)
        module = nn.Sequential(nn.Flatten(), layer).eval()
        return Candidate(
            name=self.name,
            module=module,
            weights_sha256={"weights": state_of(module).sha256},
            definition_sha256=digest({"linear": self.penalty}),
            information=Information(architecture="ridge regression"),
        )


class LinearSource(CandidateSource):
    """Fits linear classifiers."""

    title = "ridge regression"
    prefix = "linear:"

    def find(self, name: str, search: Search) -> Sequence[LinearReference]:
        try:
            penalty = float(name.removeprefix(self.prefix))
        except ValueError as error:
            raise InputError(f"{name}: expected linear:<penalty>") from error
        return [LinearReference(penalty, search.dataset)]


class Greedy(LinearSource):
    """Claims a prefix that another source has."""

    prefix = "linear:fast:"


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_source(LinearSource())


def _run(tmp_path: Path, *names: str) -> Result:
    chosen = [argument for name in names for argument in ("--candidate", name)]
    folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
    command = ["run", "--suite", "digits-linf", "--n-examples", "8", "--protocol", "standard"]
    return CliRunner().invoke(main, [*command, *chosen, *folders])


def test_its_candidates_are_run_alone_and_as_bases_of_mixes(tmp_path: Path) -> None:
    mix = "mix:accurate=linear:0.1,robust=digits-robust,alpha=0.5"
    result = _run(tmp_path, "linear:0.1", mix)
    assert result.exit_code == 0, result.output
    results = ["--results-dir", f"{tmp_path}/results"]
    for name in ("linear:0.1", mix):
        assert Store(tmp_path / "results").summary(f"digits-linf/{name}").n_examples == 8
        verified = CliRunner().invoke(main, ["verify", f"digits-linf/{name}", *results])
        assert verified.exit_code == 0, verified.output


def test_a_submission_takes_one_as_its_base(
    tmp_path: Path, write_submission: Callable[..., Path]
) -> None:
    folder = write_submission("mixed", weights=None, sha256=None)
    fields = yaml.safe_load((folder / "submission.yaml").read_text()) | {
        "architecture": "bench.candidates.mix:Mix",
        "architecture_args": {"alpha": 0.5},
        "bases": {"accurate": "linear:0.1", "robust": "digits-robust"},
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump(fields))
    result = _run(tmp_path, str(folder))
    assert result.exit_code == 0, result.output


def test_wrong_names_and_taken_prefixes_are_refused(tmp_path: Path) -> None:
    result = _run(tmp_path, "linear:much")
    assert result.exit_code == 2
    assert "linear:much: expected linear:<penalty>" in result.output
    with pytest.raises(InputError, match=r"expected a new prefix .* cannot be told from 'linear:'"):
        register_source(Greedy())
