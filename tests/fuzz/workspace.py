"""A problem with all its parts written into a folder: data, submission, suite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz import datasets, definitions, networks, weights
from tests.fuzz.case import Draws, Outcome, Step, worst
from tests.fuzz.confirm import confirm_run, flags_of
from tests.fuzz.datasets import Source
from tests.fuzz.networks import Network
from tests.fuzz.problem import Labels, Problem

SHAPES = ((1, 5, 5), (3, 5, 5), (3, 6, 5), (1, 7, 5))
ATTACKS: tuple[Any, ...] = (
    {"name": "apgd-ce", "parameters": {"steps": 6}},
    {"name": "apgd-t", "parameters": {"steps": 6, "targets": 2}},
    {"name": "apgd-dlr", "parameters": {"steps": 5}},
    {"name": "fab-t", "parameters": {"steps": 5, "targets": 2}},
    {"name": "square", "parameters": {"queries": 15}},
)
SURE_ATTACKS: tuple[Any, ...] = (
    {"name": "apgd-ce", "parameters": {"steps": 20}},
    {"name": "apgd-t", "parameters": {"steps": 30, "targets": 9}},
)
"""They find whatever breaks a linear classifier in Linf."""


@dataclass
class Workspace:
    """A case's folder with data, a submission and a suite in it, and what they mean.

    Attributes:
        problems: right readings of the data.
    """

    folder: Path
    draws: Draws
    network: Network
    source: Source
    problems: list[Problem]
    suite: dict[str, Any]
    submission: dict[str, Any]
    outcome: Outcome
    names: tuple[str, ...]
    codes: frozenset[int]
    reference_engine: bool

    @property
    def suite_file(self) -> Path:
        """The suite's YAML."""
        return self.folder / "suite.yaml"

    @property
    def candidate(self) -> Path:
        """The submission's folder."""
        return self.folder / "sub"

    @property
    def results(self) -> Path:
        """Where records go."""
        return self.folder / "results"

    def write(self) -> None:
        """Write suite and submission as they should be."""
        self.suite_file.write_text(yaml.safe_dump(self.suite, sort_keys=False))
        text = yaml.safe_dump(self.submission, sort_keys=False)
        (self.candidate / "submission.yaml").write_text(text)

    def inputs(self) -> list[str]:
        """The options that name suite, candidate and results."""
        named = {
            "--suite": self.suite_file,
            "--candidate": self.candidate,
            "--results-dir": self.results,
        }
        return [text for option, path in named.items() for text in (option, str(path))]

    def run(self, *options: str) -> list[str]:
        """`bench run`."""
        engine = ["--engine", "reference"] if self.reference_engine else []
        report = ["--report-dir", str(self.folder / "reports")]
        return ["run", *self.inputs(), *report, *engine, *options]

    def evaluation(self, *options: str, n: int | None = None, **changes: Any) -> Step:
        """`bench run`, and what must come of it, on n samples or all."""
        flags = self.network.kind.flags

        def check(output: str) -> list[str]:
            found = confirm_run(self.problems, output, self.source.words, n)
            return found or _missing_flags(flags, output)

        step = Step(self.run(*options), self.outcome, check, names=self.names, codes=self.codes)
        return replace(step, **changes)

    def verification(self) -> Step:
        """`bench verify`, which must confirm what is right."""
        name = f"{self.suite['name']}/{self.submission['name']}"
        return Step(["verify", name, *self.inputs()], "accept")

    def again(self) -> Step:
        """The same command: nothing is computed, and the same numbers are shown."""

        def check(output: str) -> list[str]:
            known = "nothing was computed" in output
            return self.evaluation().check(output) + ([] if known else ["computed again"])

        return replace(self.evaluation(), check=check)


def _labels(
    problem_logits: np.ndarray[Any, Any] | None, n: int, classes: int, draws: Draws
) -> Labels:
    """Labels (n,), four fifths of them as the network has it; each class occurs."""
    labels = draws.numbers.integers(0, classes, n)
    if problem_logits is not None and problem_logits.shape == (n, classes):
        predicted = np.nan_to_num(problem_logits, nan=-1e30).argmax(axis=1)
        labels = np.where(draws.numbers.random(n) < 0.8, predicted, labels)
    places = draws.numbers.permutation(n)[:classes]
    labels[places] = np.arange(len(places))
    return labels.astype(np.int64)


def make_workspace(
    folder: Path,
    draws: Draws,
    *,
    network: str = "linear",
    weights_format: str = "safetensors",
    archive: str | None = "float32",
    image_folder: str | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    norm: str | None = None,
    sure: bool = False,
) -> Workspace:
    """Draw and write a problem with its parts of the kinds that are named."""
    shape = shape or (draws.one_of(SHAPES) if image_folder is None else draws.one_of(SHAPES[1:3]))
    classes = classes or draws.choices.randint(2, 5)
    n = draws.choices.randint(max(classes, 6), 16)
    norm = norm or draws.one_of(("Linf", "L2"))
    eps = round(draws.choices.uniform(0.01, 0.15), 4) * (1 if norm == "Linf" else 3)
    net = networks.write_network(folder / "sub", network, shape, classes, draws)
    pixels = draws.numbers.integers(0, 256, (n, *shape)).astype(np.uint8)
    answers = None
    if net.module is not None and net.kind.outcome != "refuse":
        answers = net.logits((pixels / np.float32(255)).astype(np.float32))
    labels = _labels(answers, n, classes, draws)
    if image_folder is not None:
        source = datasets.write_folder(folder, image_folder, pixels, labels, classes, draws)
    else:
        source = datasets.write_archive(folder, str(archive), pixels, labels, classes, draws)
    file = weights.write_weights(folder / "sub", weights_format, net.state)
    kind = net.kind
    reference = draws.chance(0.15) and classes >= 4 and kind.reference and not kind.randomized
    attacks: list[Any] = (
        list(SURE_ATTACKS)
        if sure or draws.chance(0.3)
        else [attack for attack in ATTACKS if draws.chance(0.5)]
    )
    attacks = attacks or [ATTACKS[0]]
    exact = attacks == list(SURE_ATTACKS) and norm == "Linf"
    if reference:
        attacks, exact = ["apgd-ce"], False
    problems = [
        Problem(
            net.logits,
            images,
            wanted,
            norm,
            eps,
            kind.rounding,
            net.linear(),
            draws=400 if kind.randomized else 1,
            exact_attack=exact,
        )
        for images, wanted in source.readings
    ]
    protocol = "adaptive" if kind.randomized and draws.chance(0.5) else "standard"
    if protocol == "adaptive":
        attacks = [*attacks, {"name": "apgd-expectation", "parameters": {"steps": 3, "targets": 1}}]
    suite = definitions.suite_fields(source.data, norm, eps, attacks)
    if protocol == "adaptive":
        suite["protocols"]["adaptive"] = suite["protocols"]["standard"]
    more = {"randomized": True} if kind.randomized else {}
    workspace = Workspace(
        folder=folder,
        draws=draws,
        network=net,
        source=source,
        problems=problems,
        suite=suite,
        submission=definitions.submission_fields(source.label, **file.fields, **more),
        outcome=worst(kind.outcome, source.outcome, file.outcome),
        names=(
            *source.names,
            *file.names,
            "model.py",
            "submission.yaml",
            "candidate net",
            "net: ",
            "suite tiny-suite",
            "interrupted",
        ),
        codes=kind.codes,
        reference_engine=reference,
    )
    workspace.write()
    return workspace


def followed(workspace: Workspace) -> list[Step]:
    """An evaluation, a verification of it, and sometimes the same command again."""
    kind = workspace.network.kind
    steps = [workspace.evaluation()]
    if kind.verifiable:
        steps.append(workspace.verification())
        if workspace.draws.chance(0.15):
            steps.append(workspace.again())
    if workspace.draws.chance(0.1):
        name = f"{workspace.suite['name']}/{workspace.submission['name']}"
        steps.append(Step(["show", name, "--results-dir", str(workspace.results)], "accept"))
    return steps


def only_the_outcome(workspace: Workspace) -> Step:
    """An evaluation whose numbers nobody can compute apart; flags must say why."""
    flags = workspace.network.kind.flags
    return workspace.evaluation(check=lambda output: _missing_flags(flags, output))


def _missing_flags(expected: tuple[str, ...], output: str) -> list[str]:
    """What is wrong if a run raised none of the flags that are expected."""
    raised = flags_of(output)
    if not expected or raised & set(expected):
        return []
    return [f"no flag: expected one of {', '.join(expected)}, got {sorted(raised)}"]
