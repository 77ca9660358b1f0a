"""Kinds of cases: which use is made of sound input, and what happens on the way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tests.fuzz import definitions, networks, weights
from tests.fuzz.case import Case, Draws, Step
from tests.fuzz.confirm import confirm_run, run_of
from tests.fuzz.networks import Network
from tests.fuzz.problem import Array, Images
from tests.fuzz.workspace import Workspace, make_workspace

NETWORKS = (
    "linear",
    "layer norm",
    "attention",
    "convolutions with batch norm",
    "spectral norm, parametrized",
    "not a number off the grid",
    "probabilities",
    "no gradient",
    "noise",
    "in-place activations",
)


def some_options(folder: Path, draws: Draws) -> Case:
    """Options of `bench run` that change how, not what, is evaluated."""
    network = draws.one_of(NETWORKS)
    workspace = make_workspace(folder, draws, network=network)
    workspace.reference_engine = False
    size = len(workspace.problems[0].labels)
    options = draws.one_of(
        (
            ("--flags", "full"),
            ("--seed-witnesses", "--seed", "3"),
            ("--until-converged",),
            ("--precision", "bfloat16"),
            ("--precision", "tf32"),
            ("--again",),
            ("--batch-size", "1"),
            ("--batch-size", "3", "--flags", "full"),
            ("--sample", "random", "--n-examples", str(size)),
            ("--sample", "random", "--until-width", "60"),
            ("--sample", "random", "--budget", "1s"),
            ("--dry-run",),
        )
    )
    first = [workspace.evaluation()] if options[0] in ("--seed-witnesses", "--again") else []
    step = workspace.evaluation(*options)
    if "--dry-run" in options:
        return Case("options", "--dry-run", [replace(step, check=lambda output: [])])
    if options[-1] in ("60", "1s"):
        step = replace(step, check=lambda output: _of_some(workspace, output))
    return Case(
        "options", f"{network}, {' '.join(options)}", [*first, step, workspace.verification()]
    )


def _of_some(workspace: Workspace, output: str) -> list[str]:
    """The same as for all samples, for as many as there are."""
    folder = run_of(output)
    n = 0 if folder is None else len(pd.read_parquet(folder / "samples.parquet"))
    return confirm_run(workspace.problems, output, n=n)


_INTERRUPTING = """
import os


class Interrupting(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == int(os.environ.get("BENCH_FUZZ_STOP", 0)):
            raise {error}
        return self.net(x)


def build():
    return Interrupting(inner())
"""


def an_interruption(folder: Path, draws: Draws) -> Case:
    """A run that is interrupted or fails somewhere; the same command finishes it."""
    workspace = make_workspace(
        folder, draws, network=draws.one_of(("linear", "layer norm", "attention"))
    )
    model = folder / "sub" / "model.py"
    error = draws.one_of(("KeyboardInterrupt", "MemoryError", "RuntimeError('now')"))
    text = model.read_text().replace("def build()", "def inner()")
    model.write_text(text + _INTERRUPTING.format(error=error))
    state = workspace.network.state
    assert state is not None
    inner = {f"net.{key}": value for key, value in state.items()}
    workspace.submission |= weights.write_weights(folder / "sub", "safetensors", inner).fields
    workspace.write()
    stop = draws.choices.randint(1, 60)

    def stop_at(call: int) -> Callable[[], None]:
        return lambda: os.environ.update(BENCH_FUZZ_STOP=str(call))

    interrupted = workspace.evaluation(
        outcome="either",
        codes=frozenset({1, 2, 130}),
        prepare=stop_at(stop),
        goes_on=True,
    )
    finished = workspace.evaluation(prepare=stop_at(0))
    return Case(
        "interruption", f"{error} in pass {stop}", [interrupted, finished, workspace.verification()]
    )


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda content: None,
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "last byte": lambda content: content[:-1],
    "noise": lambda content: bytes(255 - byte for byte in content),
    "text": lambda content: b"hello\n",
    "empty mapping": lambda content: b"{}",
    "null": lambda content: b"null",
    "list": lambda content: b"[]",
    "binary": lambda content: bytes(range(256)),
}
FILES = ("manifest.json", "run.json", "samples.parquet", "attempts.parquet", "witnesses.npz")


def a_damaged_record(folder: Path, draws: Draws) -> Case:
    """A file of a finished run that is damaged; then commands that read it, and the run again."""
    workspace = make_workspace(folder, draws, network=draws.one_of(("linear", "layer norm")))
    file, damage = draws.one_of(FILES), draws.one_of(list(DAMAGES))

    def harm() -> None:
        for path in workspace.results.glob(f"*/*/*/{file}"):
            content = DAMAGES[damage](path.read_bytes())
            path.unlink()
            if content is not None:
                path.write_bytes(content)

    name = f"{workspace.suite['name']}/{workspace.submission['name']}"
    results = ["--results-dir", str(workspace.results)]
    reading = draws.one_of(
        (
            ["show", name, *results],
            ["verify", name, *workspace.inputs()],
            ["report", *results, "--out", str(folder / "pages")],
            ["export", "csv", "--suite", str(workspace.suite["name"]), *results],
            ["check", *results],
        )
    )
    first = Step(reading, "either", prepare=harm, codes=frozenset({1, 2, 4}), goes_on=True)
    again = workspace.evaluation(outcome="either", names=(file, "run"))
    what = f"{file}: {damage}, {reading[0]}"
    return Case("damaged record", what, [workspace.evaluation(), first, again])


def several_candidates(folder: Path, draws: Draws) -> Case:
    """Two candidates in one command, of which one may fail."""
    workspace = make_workspace(folder, draws, network=draws.one_of(("linear", "layer norm")))
    workspace.reference_engine = False
    kinds = (
        "attention",
        "in-place activations",
        "raises off the grid",
        "not a number off the grid",
    )
    name = draws.one_of(kinds)
    shape, classes = workspace.network.shape, workspace.network.classes
    other = networks.write_network(folder / "other", name, shape, classes, draws)
    fields = definitions.submission_fields(workspace.source.label) | {"name": "other"}
    fields |= weights.write_weights(folder / "other", "pt", other.state).fields
    (folder / "other" / "submission.yaml").write_text(yaml.safe_dump(fields))
    others = [
        replace(each, logits=other.logits, linear=None, exact_attack=False)
        for each in workspace.problems
    ]

    def check(output: str) -> list[str]:
        first = confirm_run(workspace.problems, output, candidate="net")
        second = (
            [] if other.kind.outcome == "either" else confirm_run(others, output, candidate="other")
        )
        return first + second

    command = workspace.run("--candidate", str(folder / "other"))
    codes = frozenset({1, 2}) if other.kind.outcome == "either" else frozenset({2})
    step = Step(command, other.kind.outcome, check, names=("other",), codes=codes)
    return Case("several candidates", name, [step])


def a_sweep(folder: Path, draws: Draws) -> Case:
    """Two linear networks mixed at several weights."""
    workspace = make_workspace(folder, draws, network="linear")
    shape, classes = workspace.network.shape, workspace.network.classes
    bases: list[Network] = []
    for name in ("first", "second"):
        base = networks.write_network(folder / name, "linear", shape, classes, draws)
        fields = definitions.submission_fields(workspace.source.label) | {"name": name}
        fields |= weights.write_weights(folder / name, "safetensors", base.state).fields
        (folder / name / "submission.yaml").write_text(yaml.safe_dump(fields))
        bases.append(base)
    alphas = sorted({round(draws.choices.uniform(0, 1), 2) for _ in range(3)} | {0.0, 1.0})
    problem = workspace.problems[0]

    def check(output: str) -> list[str]:
        folder = run_of(output)
        if folder is None:
            return ["no run: exit 0 without records"]
        points = json.loads((folder / "run.json").read_text())["sweep"]
        if [point["alpha"] for point in points] != alphas:
            return [f"other weights: expected {alphas}, got {[p['alpha'] for p in points]}"]
        found = []
        for point in points:
            mixed = replace(problem, logits=_mixed(bases, point["alpha"]), linear=None)
            surely, perhaps = mixed.right()
            if not surely.mean() - 1e-9 <= point["clean_accuracy"] <= perhaps.mean() + 1e-9:
                found.append(f"clean accuracy at {point['alpha']}: {point['clean_accuracy']}")
            if point["attacked_accuracy"] > point["clean_accuracy"]:
                found.append("attacked accuracy above the clean one")
            end = {0.0: bases[0], 1.0: bases[1]}.get(point["alpha"])
            robust = None if end is None else replace(problem, linear=end.linear()).surely_robust()
            if robust is not None and point["attacked_accuracy"] < (robust & surely).mean() - 1e-9:
                found.append("provably robust samples are recorded as broken")
        return found

    command = ["sweep", "--suite", str(workspace.suite_file), "--steps", "5", "--targets", "2"]
    command += ["--accurate", str(folder / "first"), "--robust", str(folder / "second")]
    command += ["--alphas", ",".join(map(str, alphas)), "--results-dir", str(workspace.results)]
    command += ["--report-dir", str(folder / "reports")]
    return Case("sweep", f"{len(alphas)} weights", [Step(command, "accept", check)])


def _mixed(bases: list[Network], alpha: float) -> Callable[[Images], Array]:
    def logits(images: Images) -> Array:
        shares = []
        for base in bases:
            answers = base.logits(images)
            powers = np.exp(answers - answers.max(axis=1, keepdims=True))
            shares.append(powers / powers.sum(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            mixed: Array = np.log((1 - alpha) * shares[0] + alpha * shares[1])
        return mixed

    return logits


HOSTILE = (
    "<script>alert('fuzz')</script>",
    "{{ 7 * 7 }}",
    "a & b_c % d # e $ f ~ g ^ h \\ i {j}",
    "été 日本 🚗 \u202e reversed",
    "| a | b |\n| - | - |",
    "=HYPERLINK('http://x')",
    "[bold red]markup[/]",
    "x" * 3000,
    "'; DROP TABLE runs; --",
)


def hostile_texts(folder: Path, draws: Draws) -> Case:
    """Texts of suites and submissions that mean something to a page, a table or a terminal."""
    workspace = make_workspace(folder, draws)
    workspace.reference_engine = False
    text = draws.one_of(HOSTILE)
    workspace.suite |= {"title": text, "description": text}
    workspace.submission |= {
        "paper": {
            "title": text,
            "authors": text,
            "venue": text,
            "link": "https://example.org/?a=b&c",
        },
        "training": {text: text, "recipe": [text, {"x": text}]},
    }
    workspace.write()
    suite = str(workspace.suite["name"])
    results = ["--results-dir", str(workspace.results)]
    name = f"{suite}/{workspace.submission['name']}"

    def check_pages(output: str) -> list[str]:
        pages = "".join(path.read_text() for path in (folder / "pages").rglob("*.html"))
        found = [] if "<script>alert('fuzz')" not in pages else ["a page runs a text as a script"]
        return found if pages else ["no pages"]

    after = [
        ["show", name, *results],
        *(["export", style, "--suite", suite, *results] for style in ("latex", "markdown", "csv")),
        ["export", "robustbench", name, *results, "--out", str(folder / "out")],
    ]
    pages = ["report", *results, "--out", str(folder / "pages")]
    either = [
        Step(
            each, "either" if "robustbench" in each else "accept", names=("robustbench", "expected")
        )
        for each in after
    ]
    steps = [workspace.evaluation(), Step(pages, "accept", check_pages), *either]
    return Case("hostile texts", text[:40], steps)


def joined_images(folder: Path, draws: Draws) -> Case:
    """Others' images beside an evaluation: the best-known accuracy joins the two."""
    workspace = make_workspace(folder, draws, network=draws.one_of(("linear", "layer norm")))
    workspace.reference_engine = False
    problem = workspace.problems[0]
    n = len(problem.labels)
    corner = draws.numbers.choice([-1.0, 1.0], problem.images.shape) * problem.eps * 0.999
    if problem.norm == "L2":
        corner /= np.sqrt(problem.images[0].size)
    images = np.clip(problem.images + corner, 0, 1).astype(np.float32)
    np.savez(folder / "found.npz", images=images, index=np.arange(n))

    def check(output: str) -> list[str]:
        told = re.search(r"best known robust accuracy of @\w+: ([\d.]+)%", output)
        if told is None:
            return ["no line with the best-known accuracy"]
        (samples,) = [
            pd.read_parquet(path.parent / "samples.parquet").sort_values("index")
            for path in workspace.results.glob("*/*/*/manifest.json")
            if json.loads(path.read_text())["kind"] == "evaluation"
        ]
        robust = samples["robust"].to_numpy(bool)
        margin, doubt = problem.margins(images, problem.labels)
        least = float((robust & (margin > doubt)).mean())
        most = float((robust & (margin >= -doubt)).mean())
        if not least - 6e-5 <= float(told[1]) / 100 <= most + 6e-5:
            return [
                f"best-known accuracy: told {told[1]}%, computed apart {least:.4f} to {most:.4f}"
            ]
        return []

    command = ["import-witnesses", str(folder / "found.npz"), *workspace.inputs()]
    steps = [workspace.evaluation(), Step([*command, "--source", "fuzz"], "accept", check)]
    return Case("joined images", problem.norm, steps)


def other_commands(folder: Path, draws: Draws) -> Case:
    """Commands that list and tell, on names that are and are not."""
    workspace = make_workspace(folder, draws)
    results = ["--results-dir", str(workspace.results)]
    name = f"{workspace.suite['name']}/{workspace.submission['name']}"
    arguments: list[list[str]] = [
        ["list", "suites", "--json"],
        ["list", "attacks"],
        ["list", "candidates", "--json"],
        [
            "show",
            draws.one_of((name, "tiny-suite", "/", "a/b/c", f"{name}@", "@", "../..")),
            *results,
        ],
        ["check", *results, "--format", draws.one_of(("json", "junit", "github"))],
        ["verify", draws.one_of((name, f"{name}@0", "x/y", "tiny-suite/")), *workspace.inputs()],
        ["report", *results, "--out", str(folder / "pages")],
        ["export", "csv", "--suite", draws.one_of(("tiny-suite", "none")), *results],
    ]
    ran = [workspace.evaluation()] if draws.chance(0.5) else []
    chosen = draws.one_of(arguments)
    step = Step(chosen, "either", codes=frozenset({1, 2, 4}))
    return Case("other commands", " ".join(chosen[:2]), [*ran, step])
