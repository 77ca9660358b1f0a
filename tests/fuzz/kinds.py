"""Kinds of cases: which input is varied, all else being as it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import norm as normal

from tests.fuzz import archives, datasets, definitions, networks, weights
from tests.fuzz.case import Case, Draws, Outcome, Step
from tests.fuzz.confirm import confirm_run, run_of
from tests.fuzz.problem import Labels, Problem
from tests.fuzz.workspace import SHAPES, Workspace, followed, make_workspace, only_the_outcome


def a_network(folder: Path, draws: Draws) -> Case:
    """A network of any kind."""
    name = draws.one_of(list(networks.KINDS))
    workspace = make_workspace(folder, draws, network=name)
    if not workspace.network.kind.answers_of_one_call:
        return Case("network", name, [only_the_outcome(workspace)])
    return Case("network", name, followed(workspace))


def a_linear_network(folder: Path, draws: Draws) -> Case:
    """A linear network, of which all is known; attacked by what finds all there is."""
    name = draws.one_of([name for name, kind in networks.KINDS.items() if kind.linear])
    workspace = make_workspace(folder, draws, network=name, norm="Linf", sure=True)
    return Case("linear network", name, followed(workspace))


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
    return Case("weights", f"{name} of {network}", followed(workspace))


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
    return Case("old weights", network, followed(workspace))


def an_archive(folder: Path, draws: Draws) -> Case:
    """Data in an archive of any kind."""
    name = draws.one_of(list(datasets.ARCHIVES))
    network = draws.one_of(("linear", "layer norm", "convolutions with batch norm"))
    one_channel = name == "without channels"
    shape = draws.one_of((SHAPES[0], SHAPES[3])) if one_channel else None
    workspace = make_workspace(folder, draws, network=network, archive=name, shape=shape)
    return Case("archive", f"{name}, {workspace.network.shape}", followed(workspace))


def an_image_folder(folder: Path, draws: Draws) -> Case:
    """Data in a folder of images of any kind."""
    name = draws.one_of(list(datasets.FOLDERS))
    network = draws.one_of(("linear", "layer norm", "convolutions with batch norm"))
    classes = draws.one_of((11, 12)) if "class" in name and draws.chance(0.7) else None
    workspace = make_workspace(folder, draws, network=network, image_folder=name, classes=classes)
    return Case("image folder", f"{name}, {workspace.network.classes} classes", followed(workspace))


def a_selection(folder: Path, draws: Draws) -> Case:
    """A part of the samples, another radius, another seed or batch size."""
    workspace = make_workspace(
        folder, draws, network=draws.one_of(("linear", "layer norm", "attention"))
    )
    size = len(workspace.problems[0].labels)
    way = draws.one_of(("n", "too many", "eps", "seed", "batch", "suite n", "random", "every"))
    if way == "n":
        n = draws.choices.randint(1, size)
        workspace.problems = [each.first(n) for each in workspace.problems]
        step = workspace.evaluation("--n-examples", str(n))
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
        workspace.problems = [each.first(n) for each in workspace.problems]
        step = workspace.evaluation()
    elif way in ("random", "every"):
        options = ["--sample", "random", "--n-examples", str(size // 2)]
        options = options if way == "random" else ["--every", "2"]
        step = workspace.evaluation(*options, n=size // 2 if way == "random" else (size + 1) // 2)
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
    return Case("tiny images", f"{shape}", followed(workspace))


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
            return ["no run: exit 0 without records"]
        if written.what in ("without weights", "weights = None"):
            return []  # initialised at random
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

    names = (file, "submission.yaml", *workspace.source.names)
    step = workspace.evaluation(check=check, names=names)
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
        steps = followed(workspace)
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
            return ["no run: exit 0 without records"]
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
            return ["no run: exit 0 without records"]
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
        weights.write_weights(in_folder, "pt", state)
        loading = (
            "net = Net()\n    net.load_state_dict(torch.load(HERE / 'weights.pt'))\n    return net"
        )
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


FIELDS = (
    "names of classes",
    "number of classes",
    "more classes than there are",
    "fewer classes than labels",
    "a class twice",
    "the layout as it is",
    "the other layout",
    "an ambiguous layout",
    "an ambiguous layout, named",
    "order of folders",
    "order without a folder",
    "order with another folder",
    "names of more folders",
    "one channel",
    "three channels",
    "two channels",
    "channels of an archive",
)


def fields_of_data(folder: Path, draws: Draws) -> Case:
    """The fields of a suite that say how data are to be read."""
    way = draws.one_of(FIELDS)
    in_folder = "folder" in way or ("channel" in way and "archive" not in way)
    square = (3, 5, 3) if "ambiguous" in way else None
    workspace = make_workspace(
        folder,
        draws,
        shape=square,
        archive="channels last" if "layout" in way and draws.chance(0.5) else "no class names",
        image_folder="L" if way == "one channel" else "RGB" if in_folder else None,
    )
    classes = workspace.network.classes
    names = [chr(97 + number) * 2 for number in range(classes)]
    data = dict(workspace.source.data)
    outcome: Outcome = "accept"
    if way in ("names of classes", "number of classes"):
        data["classes"] = names if way == "names of classes" else classes
    elif way == "more classes than there are":
        data["classes"] = [*names, "zz"]
        outcome = "refuse"  # the network has no output for it
    elif way == "fewer classes than labels":
        data["classes"] = names[:-1]
        outcome = "refuse"
    elif way == "a class twice":
        data["classes"] = [*names[:-1], names[0]]
        outcome = "refuse"
    elif "layout" in way:
        outcome = _lay_out(way, data, workspace, folder, draws)
    elif way == "order of folders":
        order = draws.numbers.permutation(classes)
        data["class_order"] = [names[number] for number in order]
        workspace.problems = [_reordered(each, order) for each in workspace.problems]
    elif way == "order without a folder":
        data["class_order"] = names[1:]
        outcome = "refuse"
    elif way == "order with another folder":
        data["class_order"] = [*names, "zz"]
        outcome = "refuse"
    elif way == "names of more folders":
        data["classes"] = ["aaa", *names]
        outcome = "refuse"
    elif way == "one channel":
        data["channels"] = 1
        outcome = "refuse"  # the network wants three
    elif way == "three channels":
        data["channels"] = 3
    else:
        data["channels"] = 2 if way == "two channels" else 1
        outcome = "refuse"
    workspace.suite["data"] = data
    workspace.outcome = outcome
    workspace.names = (*workspace.names, "suite.yaml")
    workspace.write()
    return Case("fields of data", way, followed(workspace))


def _reordered(problem: Problem, order: Labels) -> Problem:
    """A problem with folder order[k] for class k; samples are sorted by class then by file."""
    labels = np.argsort(order)[problem.labels]
    rows = np.argsort(labels, kind="stable")
    by_class = replace(problem, labels=labels.astype(np.int64)).take(rows)
    same_files = replace(problem, labels=labels.astype(np.int64))
    sorted_by_class = (np.diff(same_files.labels) >= 0).all()
    return same_files if sorted_by_class else by_class


def _lay_out(
    way: str, data: dict[str, Any], workspace: Workspace, folder: Path, draws: Draws
) -> Outcome:
    """Write the arrays in a layout that is named, or not, and is right, or not."""
    problem = workspace.problems[0]
    last = draws.chance(0.5)
    images = problem.images.transpose(0, 2, 3, 1) if last else problem.images
    names = np.array([f"class {number}" for number in range(workspace.network.classes)])
    np.savez(folder / "data.npz", images=images, labels=problem.labels, classes=names)
    as_it_is, other = ("NHWC", "NCHW") if last else ("NCHW", "NHWC")
    if way in ("the layout as it is", "an ambiguous layout, named"):
        data["layout"] = as_it_is
        return "accept"
    if way == "the other layout":
        data["layout"] = other
        read = images.transpose(0, 3, 1, 2) if not last else images
        workspace.problems = [replace(problem, images=np.ascontiguousarray(read))]
        return "either"
    return "either"  # (N, 3, 5, 3): what it is taken for must be right, or it is refused


def a_named_state(folder: Path, draws: Draws) -> Case:
    """A weights file with several states, of which the submission names one."""
    name = draws.one_of(("ema beside other weights", "two models", "state_dict and optimizer"))
    workspace = make_workspace(folder, draws, network="layer norm", weights_format=name)
    keys = {"ema beside other weights": "ema", "two models": "net"}
    key = keys.get(name, "state_dict")
    if draws.chance(0.3):
        key = draws.one_of(("none of them", "optimizer", "state_dict.0", "state_dict."))
        workspace.outcome = "refuse"
    else:
        workspace.outcome = "accept"
    workspace.submission["weights_key"] = key
    workspace.write()
    return Case("named state", f"{key!r} of {name}", followed(workspace))
