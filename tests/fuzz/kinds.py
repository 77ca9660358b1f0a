"""Kinds of cases: what is varied, all else being as it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import norm as normal

from tests.fuzz import archives, datasets, definitions, networks, weights
from tests.fuzz.case import Case, Draws, Outcome, Step, worst
from tests.fuzz.confirm import confirm_run, flags_of, run_of
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
        """`bench run`, and what must come of it."""
        problems = [problem if n is None else problem.first(n) for problem in self.problems]
        flags = self.network.kind.flags

        def check(output: str) -> list[str]:
            found = confirm_run(problems, output, self.source.words)
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


def _followed(workspace: Workspace) -> list[Step]:
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


def a_network(folder: Path, draws: Draws) -> Case:
    """A network of any kind."""
    name = draws.one_of(list(networks.KINDS))
    workspace = make_workspace(folder, draws, network=name)
    if not workspace.network.kind.answers_of_one_call:
        return Case("network", name, [_only_the_outcome(workspace)])
    return Case("network", name, _followed(workspace))


def _only_the_outcome(workspace: Workspace) -> Step:
    """An evaluation whose numbers nobody can compute apart; flags must say why."""
    flags = workspace.network.kind.flags
    return workspace.evaluation(check=lambda output: _missing_flags(flags, output))


def _missing_flags(expected: tuple[str, ...], output: str) -> list[str]:
    """What is wrong if a run raised none of the flags that are expected."""
    raised = flags_of(output)
    if not expected or raised & set(expected):
        return []
    return [f"no flag: expected one of {', '.join(expected)}, got {sorted(raised)}"]


def a_linear_network(folder: Path, draws: Draws) -> Case:
    """A linear network, of which all is known; attacked by what finds all there is."""
    name = draws.one_of([name for name, kind in networks.KINDS.items() if kind.linear])
    workspace = make_workspace(folder, draws, network=name, norm="Linf", sure=True)
    return Case("linear network", name, _followed(workspace))


def some_weights(folder: Path, draws: Draws) -> Case:
    """Weights in any format."""
    name = draws.one_of(list(weights.FORMATS))
    network = draws.one_of(
        ("linear", "convolutions with batch norm", "layer norm", "attention", "weight norm, old")
    )
    workspace = make_workspace(folder, draws, network=network, weights_format=name)
    if name in ("not a number", "complex", "bfloat16 weights"):
        state = weights.read_back(folder / "sub", workspace.network.state)
        if state is not None and workspace.network.module is not None:
            workspace.network.module.load_state_dict(state)
            linear = None if name != "bfloat16 weights" else workspace.network.linear()
            workspace.problems = [replace(each, linear=linear) for each in workspace.problems]
    return Case("weights", f"{name} of {network}", _followed(workspace))


def old_weights(folder: Path, draws: Draws) -> Case:
    """Weights that only torch's own rules for older files accept."""
    network = draws.one_of(
        ("convolutions with batch norm", "weight norm, parametrized", "spectral norm, parametrized")
    )
    workspace = make_workspace(folder, draws, network=network)
    state = workspace.network.state
    assert state is not None
    changed = weights.as_of_old(state)
    file = weights.write_weights(folder / "sub", draws.one_of(("pt", "legacy", "pth.tar")), changed)
    workspace.submission |= file.fields
    workspace.write()
    return Case("old weights", network, _followed(workspace))


def an_archive(folder: Path, draws: Draws) -> Case:
    """Data in an archive of any kind."""
    name = draws.one_of(list(datasets.ARCHIVES))
    network = draws.one_of(("linear", "layer norm", "convolutions with batch norm"))
    one_channel = name == "without channels"
    shape = draws.one_of((SHAPES[0], SHAPES[3])) if one_channel else None
    workspace = make_workspace(folder, draws, network=network, archive=name, shape=shape)
    return Case("archive", f"{name}, {workspace.network.shape}", _followed(workspace))


def an_image_folder(folder: Path, draws: Draws) -> Case:
    """Data in a folder of images of any kind."""
    name = draws.one_of(list(datasets.FOLDERS))
    network = draws.one_of(("linear", "layer norm", "convolutions with batch norm"))
    classes = draws.one_of((11, 12)) if "class" in name and draws.chance(0.7) else None
    workspace = make_workspace(folder, draws, network=network, image_folder=name, classes=classes)
    return Case(
        "image folder", f"{name}, {workspace.network.classes} classes", _followed(workspace)
    )


def a_selection(folder: Path, draws: Draws) -> Case:
    """A part of the samples, another radius, another seed or batch size."""
    workspace = make_workspace(
        folder, draws, network=draws.one_of(("linear", "layer norm", "attention"))
    )
    size = len(workspace.problems[0].labels)
    way = draws.one_of(("n", "too many", "eps", "seed", "batch", "suite n", "random", "every"))
    n: int | None = None
    if way == "n":
        n = draws.choices.randint(1, size)
        step = workspace.evaluation("--n-examples", str(n), n=n)
    elif way == "too many":
        step = workspace.evaluation(
            "--n-examples", str(size + 1), outcome="refuse", names=(str(size),)
        )
    elif way == "eps":
        eps = draws.choices.uniform(0.001, 0.3)
        workspace.problems = [replace(each, eps=eps) for each in workspace.problems]
        step = workspace.evaluation("--eps", repr(eps))
    elif way == "suite n":
        n = draws.choices.randint(1, size)
        workspace.suite["n_examples"] = n
        workspace.write()
        step = workspace.evaluation(n=n)
    elif way in ("random", "every"):
        options = ["--sample", "random", "--n-examples", str(max(1, size // 2))]
        step = workspace.evaluation(*(options if way == "random" else ["--every", "2"]))
        step = replace(step, check=lambda output: [])
    else:
        option = {"seed": "--seed", "batch": "--batch-size"}[way]
        step = workspace.evaluation(option, str(draws.choices.randint(1, 20)))
    verified = [] if way == "too many" else [workspace.verification()]
    return Case("selection", way, [step, *verified])


def tiny_images(folder: Path, draws: Draws) -> Case:
    """Images of very few pixels: an attack that needs more says so before anything is run."""
    shape = draws.one_of(
        ((1, 1, 1), (3, 1, 1), (1, 2, 2), (3, 4, 4), (1, 3, 8), (3, 2, 1), (1, 5, 2))
    )
    workspace = make_workspace(folder, draws, shape=shape)
    workspace.reference_engine = False
    workspace.outcome = "either"
    return Case("tiny images", f"{shape}", _followed(workspace))


def a_changed_suite(folder: Path, draws: Draws) -> Case:
    """A suite's file with a field changed, or written strangely."""
    workspace = make_workspace(folder, draws)
    written = definitions.write_changed(workspace.suite_file, workspace.suite, draws)
    return Case("suite", written.what, [_changed(workspace, written, "suite.yaml")])


def a_changed_submission(folder: Path, draws: Draws) -> Case:
    """A submission's file with a field changed, or written strangely."""
    workspace = make_workspace(folder, draws)
    fields = workspace.submission | {
        "threat_models": [{"norm": "Linf", "eps": "8/255"}],
        "architecture_args": {},
        "additional_data": False,
        "randomized": False,
        "training": {"recipe": "none"},
        "paper": {"title": "T", "authors": "A", "link": "https://x.y", "venue": "V"},
    }
    written = definitions.write_changed(workspace.candidate / "submission.yaml", fields, draws)
    return Case("submission", written.what, [_changed(workspace, written, "submission.yaml")])


def _changed(workspace: Workspace, written: definitions.Written, file: str) -> Step:
    """An evaluation of a changed definition: with what the record says of the threat model."""

    def check(output: str) -> list[str]:
        folder = run_of(output)
        if folder is None:
            return ["exit 0 without a run"]
        manifest = json.loads((folder / "manifest.json").read_text())
        threat = manifest["threat_model"]
        problems = [
            replace(
                each.first(len(pd.read_parquet(folder / "samples.parquet"))),
                norm=threat["norm"],
                eps=threat["eps"],
                exact_attack=False,
                draws=400 if manifest["engine_settings"].get("confirmation_draws") else 1,
            )
            for each in workspace.problems
            if threat["norm"] in ("Linf", "L2")
        ]
        return confirm_run(problems, output) if problems else []

    step = workspace.evaluation(check=check, names=(file, *workspace.source.names))
    return replace(step, outcome=written.outcome)


def a_radius(folder: Path, draws: Draws) -> Case:
    """A radius written in any way."""
    workspace = make_workspace(folder, draws, norm="Linf")
    name = draws.one_of(list(definitions.RADII))
    text, outcome = definitions.RADII[name]
    content = workspace.suite_file.read_text()
    workspace.suite_file.write_text(re.sub(r"\beps: .*", lambda match: f"eps: {text}", content))
    if outcome == "accept":
        value = {"fraction": 8 / 255, "fraction with spaces": 8 / 255}.get(name, 0.05)
        workspace.problems = [replace(each, eps=value) for each in workspace.problems]
        steps = _followed(workspace)
    else:
        written = definitions.Written(name, outcome, None)
        steps = [_changed(workspace, written, "suite.yaml")]
    return Case("radius", name, steps)


def adversarial_images(folder: Path, draws: Draws) -> Case:
    """An archive of others' adversarial images."""
    name = draws.one_of(list(archives.IMAGES))
    network = draws.one_of(("linear", "layer norm", "not a number off the grid"))
    workspace = make_workspace(folder, draws, network=network)
    workspace.reference_engine = False
    problem = workspace.problems[0]
    file = archives.write_images(folder, name, problem, draws)

    def check(output: str) -> list[str]:
        right, maybe = problem.right()
        margin, doubt = problem.margins(file.images, problem.labels[file.index])
        least = int((right[file.index] & (margin < -doubt)).sum())
        most = int((maybe[file.index] & (margin <= doubt)).sum())
        told = re.search(r": (\d+) of (\d+) images", output)
        if told is None:
            return ["no line with the number of images"]
        broken, n = int(told[1]), int(told[2])
        if n != len(file.index) or not least <= broken <= most:
            expected = f"{least} to {most} of {len(file.index)}"
            return [f"images that break samples: told {broken} of {n}, computed apart {expected}"]
        return []

    command = ["import-witnesses", str(file.path), *workspace.inputs(), "--source", "fuzz"]
    step = Step(command, file.outcome, check, names=(file.path.name,))
    before = [workspace.evaluation()] if draws.chance(0.3) else []
    return Case("adversarial images", name, [*before, step])


def a_certification_log(folder: Path, draws: Draws) -> Case:
    """Others' certification log."""
    name = draws.one_of([*archives.LOGS, *archives.ROWS, "plain", "plain"])
    norm = "Linf" if draws.chance(0.1) else "L2"
    workspace = make_workspace(folder, draws, norm=norm)
    workspace.suite["protocols"]["certified"] = {"certification": {"noise_samples": 50}}
    workspace.write()
    problem = workspace.problems[0]
    sigma = draws.one_of((0.12, 0.25, 0.5, 1.0))
    file = archives.write_log(
        folder, name, problem.labels, workspace.network.classes, sigma, problem.eps, draws
    )

    def check(output: str) -> list[str]:
        record = run_of(output)
        if record is None:
            return ["exit 0 without a run"]
        summary = json.loads((record / "run.json").read_text())
        told = {
            "clean_accuracy": (summary["clean_accuracy"], file.clean),
            "robust_accuracy": (summary["robust_accuracy"], file.certified),
            "average radius": (
                summary["certified"]["average_certified_radius"],
                file.average_radius,
            ),
        }
        return [
            f"{what}: told {came}, computed apart {expected}"
            for what, (came, expected) in told.items()
            if abs(came - expected) > 1e-6
        ]

    command = ["import-certify-log", str(file.path), "--suite", str(workspace.suite_file)]
    command += ["--candidate", "theirs", "--sigma", str(sigma), "--source", "fuzz"]
    command += ["--results-dir", str(workspace.results)]
    outcome: Outcome = "refuse" if norm == "Linf" else file.outcome
    names = ("Linf", file.path.name)
    return Case(
        "certification log", f"{name}, {norm}", [Step(command, outcome, check, names=names)]
    )


_SMOOTHED = """
from bench.candidates.smoothed import Smoothed


def build():
    return Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)), {sigma}, 4, 0)
"""


def a_certification(folder: Path, draws: Draws) -> Case:
    """A smoothed linear classifier of two classes, whose exact radii are known."""
    norm = "Linf" if draws.chance(0.2) else "L2"
    workspace = make_workspace(folder, draws, classes=2, norm=norm)
    workspace.reference_engine = False
    sigma = draws.one_of((0.1, 0.25, 0.5))
    code = (folder / "sub" / "model.py").read_text()
    head = code[: code.index("def build")]
    (folder / "sub" / "model.py").write_text(head + _SMOOTHED.format(sigma=sigma))
    assert workspace.network.state is not None
    state = {f"base.{key}": value for key, value in workspace.network.state.items()}
    workspace.submission |= weights.write_weights(folder / "sub", "safetensors", state).fields
    settings = {"selection_samples": 20, "noise_samples": 200, "failure_probability": 1e-7}
    workspace.suite["protocols"]["certified"] = {"certification": settings}
    workspace.write()
    problem = workspace.problems[0]
    linear = workspace.network.linear()
    assert linear is not None
    procedure = draws.one_of(("fixed", "sequential"))

    def check(output: str) -> list[str]:
        record = run_of(output)
        if record is None:
            return ["exit 0 without a run"]
        samples = pd.read_parquet(record / "samples.parquet").sort_values("index")
        summary = json.loads((record / "run.json").read_text())
        weight, bias = linear
        flat = problem.images.reshape(len(problem.images), -1).astype(np.float64)
        margin = flat @ (weight[1] - weight[0]) + bias[1] - bias[0]
        distance = np.abs(margin) / np.linalg.norm(weight[1] - weight[0])
        radius = samples["radius"].to_numpy()
        prediction = samples["prediction"].to_numpy()
        voted = prediction >= 0
        found = []
        if (radius[voted] > distance[voted] + 1e-6).any():
            found.append("radii beyond the decision boundary")
        if (prediction[voted] != (margin[voted] > 0)).any():
            found.append("certified predictions that are not the smoothed classifier's")
        limit = sigma * normal.ppf(1e-7 ** (1 / 200))
        if (radius > limit + 1e-6).any():
            found.append(f"radii beyond what 200 draws prove, {limit:.4f}")
        right = prediction == problem.labels
        certified = float((right & (radius >= problem.eps)).mean())
        if abs(summary["robust_accuracy"] - certified) > 1e-9:
            found.append(f"certified accuracy: told {summary['robust_accuracy']}, is {certified}")
        return found

    outcome: Outcome = "refuse" if norm == "Linf" else "accept"
    options = ["--protocol", "certified", "--procedure", procedure]
    step = workspace.evaluation(*options, check=check, outcome=outcome, names=("Linf", "L2"))
    return Case("certification", f"{procedure}, {norm}", [step])


def a_mix(folder: Path, draws: Draws) -> Case:
    """A mix of two linear networks in folders of its own, with a fixed weight."""
    workspace = make_workspace(folder, draws, network="linear")
    workspace.reference_engine = False
    shape, classes = workspace.network.shape, workspace.network.classes
    bases = {}
    for role in ("accurate", "robust"):
        base_folder = folder / "sub" / role
        base = networks.write_network(base_folder, "linear", shape, classes, draws)
        fields = definitions.submission_fields(workspace.source.label)
        fields |= weights.write_weights(base_folder, "safetensors", base.state).fields
        fields["name"] = role
        (base_folder / "submission.yaml").write_text(yaml.safe_dump(fields))
        bases[role] = base
    alpha = round(draws.choices.uniform(0.1, 0.9), 3)
    workspace.submission = {
        "name": "net",
        "dataset": workspace.source.label,
        "architecture": "bench.candidates.mix:Mix",
        "architecture_args": {"alpha": alpha},
        "bases": {"accurate": "./accurate", "robust": "./robust"},
    }
    for each in ("model.py", "weights.safetensors"):
        (folder / "sub" / each).unlink()
    workspace.write()

    def logits(images: Any) -> Any:
        shares = []
        for role in ("accurate", "robust"):
            answers = bases[role].logits(images)
            powers = np.exp(answers - answers.max(axis=1, keepdims=True))
            shares.append(powers / powers.sum(axis=1, keepdims=True))
        return np.log((1 - alpha) * shares[0] + alpha * shares[1])

    workspace.problems = [replace(each, logits=logits, linear=None) for each in workspace.problems]
    return Case("mix", f"alpha {alpha}", [workspace.evaluation(), workspace.verification()])


CHANGES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "a number in JSON": (
            "return self.fc(x.flatten(1)).roll(json.loads((HERE / 'own.json').read_text()), 1)",
            "own.json",
            "number",
        ),
        "a text file": (
            "return self.fc(x.flatten(1)).roll(int((HERE / 'shift.txt').read_text()), 1)",
            "shift.txt",
            "number",
        ),
        "a file in a folder below": (
            "return self.fc(x.flatten(1)).roll(int((HERE / 'a' / 'b.cfg').read_text()), 1)",
            "a/b.cfg",
            "number",
        ),
        "a hidden file": (
            "return self.fc(x.flatten(1)).roll(int((HERE / '.shift').read_text()), 1)",
            ".shift",
            "number",
        ),
        "an array": (
            "return self.fc(x.flatten(1)).roll(int(np.load(HERE / 'shift.npy')), 1)",
            "shift.npy",
            "array",
        ),
        "an imported file": (
            "from .shift import SHIFT\nreturn self.fc(x.flatten(1)).roll(SHIFT, 1)",
            "shift.py",
            "code",
        ),
        "a file outside": (
            "return self.fc(x.flatten(1)).roll(int((HERE.parent / 'shift.txt').read_text()), 1)",
            "../shift.txt",
            "number",
        ),
        "the environment": (
            "import os\nreturn self.fc(x.flatten(1)).roll(int(os.environ['BENCH_FUZZ_SHIFT']), 1)",
            "",
            "environment",
        ),
    }
)
"""What may decide a candidate's answers beside its code and weights: forward, file, kind."""


def a_changed_candidate(folder: Path, draws: Draws) -> Case:
    """A candidate that is changed after its run: the same command must tell the new numbers."""
    name = draws.one_of(list(CHANGES))
    forward, file, how = CHANGES[name]
    workspace = make_workspace(folder, draws, network="linear")
    workspace.reference_engine = False
    code = (folder / "sub" / "model.py").read_text()
    head = code[: code.index("def build")]
    code = head + networks.net(forward)
    in_folder = folder / "sub"
    (in_folder / "model.py").write_text(code)
    assert workspace.network.state is not None
    state = {key.replace("1.", "fc."): value for key, value in workspace.network.state.items()}
    as_weights = draws.chance(0.6)
    if as_weights:
        workspace.submission |= weights.write_weights(in_folder, "safetensors", state).fields
    else:
        workspace.submission.pop("weights")
        workspace.submission.pop("sha256")
        torch_file = weights.write_weights(in_folder, "pt", state)
        loading = f"net = Net()\n    net.load_state_dict(torch.load(HERE / '{torch_file.fields['weights']}'))\n    return net"
        (in_folder / "model.py").write_text(code.replace("return Net()", loading))
    workspace.write()
    original = workspace.network.logits

    def set_shift(shift: int) -> None:
        import os

        if how == "environment":
            os.environ["BENCH_FUZZ_SHIFT"] = str(shift)
            return
        path = in_folder / file
        path.parent.mkdir(exist_ok=True)
        if how == "array":
            np.save(path, np.array(shift))
        else:
            path.write_text(f"SHIFT = {shift}\n" if how == "code" else str(shift))

    def step(shift: int) -> Step:
        problems = [
            replace(each, logits=lambda images: np.roll(original(images), shift, 1), linear=None)
            for each in workspace.problems
        ]
        made = replace(workspace, problems=problems).evaluation()
        return replace(made, prepare=lambda: set_shift(shift))

    steps = [step(0), step(1), workspace.verification(), step(0)]
    return Case(
        "changed candidate", f"{name}, {'with' if as_weights else 'without'} weights", steps
    )


def changed_data(folder: Path, draws: Draws) -> Case:
    """Data that are changed after a run: the same command must tell the new numbers."""
    workspace = make_workspace(folder, draws, network=draws.one_of(("linear", "layer norm")))
    problem = workspace.problems[0]
    way = draws.one_of(("labels", "images", "order"))
    images, labels = problem.images.copy(), problem.labels.copy()
    if way == "labels":
        labels = (labels + 1) % workspace.network.classes
    elif way == "images":
        images = (1 - images).astype(np.float32)
    else:
        images, labels = images[::-1].copy(), labels[::-1].copy()

    def change() -> None:
        names = np.array([f"class {number}" for number in range(workspace.network.classes)])
        np.savez(folder / "data.npz", images=images, labels=labels, classes=names)

    first = workspace.evaluation()
    changed = replace(
        workspace, problems=[replace(problem, images=images, labels=labels)]
    ).evaluation()
    return Case("changed data", way, [first, replace(changed, prepare=change)])


KINDS: tuple[tuple[int, Callable[[Path, Draws], Case]], ...] = (
    (24, a_network),
    (6, a_linear_network),
    (14, some_weights),
    (2, old_weights),
    (12, an_archive),
    (9, an_image_folder),
    (4, a_selection),
    (1, tiny_images),
    (7, a_changed_suite),
    (6, a_changed_submission),
    (3, a_radius),
    (7, adversarial_images),
    (5, a_certification_log),
    (2, a_certification),
    (1, a_mix),
    (4, a_changed_candidate),
    (1, changed_data),
)
"""Kinds, with how often they come."""


def make_case(number: int, folder: Path) -> Case:
    """Write the files of a case into an empty folder; the same number makes the same case."""
    draws = Draws(number)
    shares, makers = zip(*KINDS, strict=True)
    (maker,) = draws.choices.choices(makers, shares)
    case: Case = maker(folder, draws)
    return case
