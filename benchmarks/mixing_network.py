"""Whether a mixing network knows attacked images from clean ones, and what its mix gains by it.

    python benchmarks/mixing_network.py detection --candidate cifar100-adaptive-mix
    python benchmarks/mixing_network.py comparison --candidate cifar100-adaptive-mix
    python benchmarks/mixing_network.py table

`detection` attacks images with Auto-PGD on the cross-entropy, all with one budget: of the mix at a
fixed weight (its median on clean images), of the robust base alone, of the mix as it is, and of the
mix while pushing its weight down. The area under the curve of gamma as a detector says how well the
network tells each kind from the clean images. An attack keeps its image of the highest loss,
whether or not it has broken the mix.

`comparison` evaluates the mix by protocol express and sweeps fixed weights of the same bases; the
weight whose robust accuracy comes nearest is then evaluated by express too, and so are its
neighbours, until two lie around the adaptive mix. The two mixes are compared on the same images.

Records are appended to benchmarks/results/mixing_network.jsonl; the newest of each candidate,
images and kind make the table in mixing_network.txt.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import bench
from bench import data
from bench.attacks.draws import keyed_draws
from bench.attacks.losses import cross_entropy
from bench.attacks.mix_apgd import MixAPGD
from bench.attacks.mix_losses import (
    MixLoss,
    on_mix,
    on_other_weight,
    on_robust_base,
    towards_accurate_base,
)
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.candidate import Candidate
from bench.candidates.registry import find_candidates
from bench.engines.acceleration import TRIED_IMAGES, accelerate
from bench.statistics.paired import PairedCounts
from bench.suites import Suite, load_suite
from bench.training.data import split

RESULTS = Path(__file__).parent / "results" / "mixing_network.jsonl"
BATCH_SIZE = 50
RESAMPLES = 2000
CLEAN = "no attack"
ATTACKS: Mapping[str, tuple[MixLoss, float | None]] = {
    "the bases at a fixed weight": (on_other_weight(cross_entropy), None),
    "the robust base alone": (on_robust_base(cross_entropy), 0.0),
    "the mix": (on_mix(cross_entropy), 0.0),
    "the mix and its weight, w = 0.25": (towards_accurate_base(cross_entropy), 0.25),
    "the mix and its weight, w = 0.5": (towards_accurate_base(cross_entropy), 0.5),
    "the weight alone": (towards_accurate_base(cross_entropy), 1.0),
}
"""By name: what is ascended, and the loss's number; None: the median of alpha on clean images."""


@dataclass(frozen=True)
class Detected:
    """What a mixing network makes of one kind of attacked images.

    Attributes:
        wrong: Share of the images that the mix classifies wrongly.
        alpha: Quartiles of the weight.
        auc: The probability that an attacked image has a higher gamma than a clean one, with the
            ends of its 95% interval; None without attack.
        auc_broken: The same of the images that the attack has broken, against the same ones clean.
    """

    wrong: float
    alpha: tuple[float, float, float]
    auc: tuple[float, float, float] | None = None
    auc_broken: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Detection:
    """Each attack on one candidate's images, under equal budgets."""

    candidate: str
    images: str
    n: int
    steps: int
    found: dict[str, Detected]
    kind: str = "detection"


@dataclass(frozen=True)
class Accuracy:
    """A mix under protocol express; accuracies are fractions, with 95% intervals."""

    mix: str
    clean: tuple[float, float, float]
    robust: tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """An adaptive mix against fixed weights of its bases on the same images.

    Attributes:
        swept: Clean accuracy, and robust accuracy at most, by weight; under a short attack.
        fixed: Fixed weights under express, ascending.
        paired: For each of them, the four counts of clean images (both right, only the adaptive
            mix, only the fixed one, neither), then those of robust images.
    """

    candidate: str
    images: str
    n: int
    adaptive: Accuracy
    fixed: list[Accuracy]
    paired: list[tuple[list[int], list[int]]]
    swept: dict[str, list[float]] = field(default_factory=dict)
    kind: str = "comparison"


def area_under_curve(clean: npt.NDArray[Any], attacked: npt.NDArray[Any]) -> float:
    """Return the share of pairs in which the attacked value is the higher one; ties count half."""
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, attacked, side="left")
    not_above = np.searchsorted(ordered, attacked, side="right")
    return float((below + not_above).mean() / (2 * len(clean)))


def with_interval(clean: Tensor, attacked: Tensor) -> tuple[float, float, float] | None:
    """Return the area under the curve and its 95% bootstrap interval, images drawn in pairs."""
    if not len(clean):
        return None
    first, second = clean.numpy(), attacked.numpy()
    draws = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    areas = [area_under_curve(first[each], second[each]) for each in draws]
    low, high = np.quantile(areas, (0.025, 0.975))
    return area_under_curve(first, second), float(low), float(high)


def images_of(suite: Suite, n: int, held_out: bool) -> tuple[Tensor, Tensor]:
    """Return the first n test images, or n of the training images that no part was trained on."""
    if not held_out:
        samples = data.load_source(suite.data, None, n)
        return samples.images, samples.labels
    training = data.load(suite.data.label, "train")
    chosen = split(len(training.labels), 500, 0)[1][:n]
    assert isinstance(training.images, Tensor)
    return training.images[chosen], training.labels[chosen]


def loaded(suite: Suite, name: str) -> tuple[Candidate, AdaptiveMix]:
    """Return an adaptive mix by its candidate's name or folder."""
    (reference,) = find_candidates([name], suite)
    candidate = reference.load()
    if not isinstance(candidate.mix, AdaptiveMix):
        raise click.UsageError(f"expected a mix with a mixing network, got {name}")
    return candidate, candidate.mix


def detection(suite: Suite, name: str, n: int, steps: int, held_out: bool) -> Detection:
    """Attack images in every way, and look at gamma."""
    candidate, mix = loaded(suite, name)
    images, labels = images_of(suite, n, held_out)
    fast = accelerate(mix.eval(), images[:TRIED_IMAGES], "float32").module
    assert isinstance(fast, AdaptiveMix)
    threat = suite.threat_model

    def answers(found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            parts = [fast.answer(each) for each in torch.split(found, BATCH_SIZE)]
        predictions = torch.cat([each.log_probabilities.argmax(dim=1) for each in parts])
        gammas = [each.gamma for each in parts if each.gamma is not None]
        return predictions != labels, torch.cat(gammas), torch.cat([each.alpha for each in parts])

    def quartiles(alpha: Tensor) -> tuple[float, float, float]:
        low, middle, high = alpha.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        return low, middle, high

    wrong, gamma, alpha = answers(images)
    found = {CLEAN: Detected(float(wrong.double().mean()), quartiles(alpha))}
    for kind, (loss, number) in ATTACKS.items():
        weight = float(alpha.median()) if number is None else number
        attack = MixAPGD(
            threat.norm, threat.eps, [loss], steps=steps, weights=[weight], stops_at_break=False
        )
        attacked = []
        for rows in torch.split(torch.arange(n), BATCH_SIZE):
            state = attack.start(images[rows], labels[rows], keyed_draws(0, rows, kind))
            for _ in range(attack.steps):
                attack.step(fast, state)
            attacked.append(state.best)
        is_wrong, raised, weights = answers(torch.cat(attacked))
        broken = is_wrong & ~wrong
        found[kind] = Detected(
            float(is_wrong.double().mean()),
            quartiles(weights),
            with_interval(gamma, raised),
            with_interval(gamma[broken], raised[broken]),
        )
        click.echo(f"{name}, {kind}: {found[kind]}")
    return Detection(candidate.name, _images(held_out), n, steps, found)


def comparison(suite: Suite, name: str, n: int, alphas: str, results: Path) -> Comparison:
    """Evaluate an adaptive mix and fixed ones."""
    candidate, mix = loaded(suite, name)
    bases = {role: base.name for role, base in candidate.bases.items()}

    def evaluated(model: str) -> bench.Evaluation:
        return bench.evaluate(
            model, suite, protocol="express", n_examples=n, results_dir=results, progress=False
        )

    adaptive = evaluated(name)
    click.echo(f"{name}: {_accuracy(name, adaptive)}")
    swept = bench.sweep(
        bases["accurate"],
        bases["robust"],
        suite,
        accurate_scale=mix.accurate_scale,
        robust_scale=mix.robust_scale,
        alphas=alphas,
        n_examples=n,
        results_dir=results,
        progress=False,
    )
    curve = swept.samples.groupby("alpha")[["clean_correct", "robust"]].mean()
    weights = curve.index.to_numpy(dtype=float).tolist()
    clean, robust = (curve[column].to_numpy(dtype=float) for column in curve)
    place = int(np.abs(robust - adaptive.robust_accuracy).argmin())
    found: dict[int, bench.Evaluation] = {}
    while 0 <= place < len(weights) and place not in found:
        found[place] = evaluated(
            f"mix:accurate={bases['accurate']},robust={bases['robust']},"
            f"alpha={weights[place]:g},accurate_scale={mix.accurate_scale:g},"
            f"robust_scale={mix.robust_scale:g}"
        )
        click.echo(f"{weights[place]:g}: {_accuracy('', found[place])}")
        is_below = found[place].robust_accuracy < adaptive.robust_accuracy
        place += 1 if is_below else -1
    order = sorted(found)
    return Comparison(
        candidate.name,
        _images(False),
        n,
        _accuracy(candidate.name, adaptive),
        [_accuracy(f"alpha {weights[each]:g}", found[each]) for each in order],
        [
            (
                _counts(adaptive, found[each], "clean_correct"),
                _counts(adaptive, found[each], "robust"),
            )
            for each in order
        ],
        {
            f"{weight:g}": points
            for weight, *points in zip(weights, clean.tolist(), robust.tolist(), strict=True)
        },
    )


def _images(held_out: bool) -> str:
    return "held-out training images" if held_out else "test images"


def _accuracy(mix: str, found: bench.Evaluation) -> Accuracy:
    intervals = found.summary.confidence_intervals
    return Accuracy(
        mix,
        (found.clean_accuracy, *intervals["clean_accuracy"]),
        (found.robust_accuracy, *intervals["robust_accuracy"]),
    )


def _counts(first: bench.Evaluation, second: bench.Evaluation, column: str) -> list[int]:
    ours, theirs = (
        each.samples.sort_values("index")[column].to_numpy(dtype=bool) for each in (first, second)
    )
    return [
        int(each.sum()) for each in (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)
    ]


def table(records: list[dict[str, Any]]) -> str:
    """Return the newest records as text."""
    newest = {(each["kind"], each["candidate"], each["images"]): each for each in records}
    write: Mapping[str, Callable[[dict[str, Any]], list[str]]] = {
        "detection": _detection_lines,
        "comparison": _comparison_lines,
    }
    lines = [line for key in sorted(newest) for line in write[key[0]](newest[key])]
    return "\n".join(lines) + "\n"


def _detection_lines(record: dict[str, Any]) -> list[str]:
    lines = [
        f"{record['candidate']}, {record['n']} {record['images']}, Auto-PGD with {record['steps']} "
        "steps",
        f"{'attack on':<34}{'wrong':>7}{'alpha: quartiles':>22}{'AUC of gamma, 95%':>24}"
        f"{'of broken images':>24}",
    ]
    for kind, row in record["found"].items():
        alpha = "{:.3f} {:.3f} {:.3f}".format(*row["alpha"])
        areas = [
            "{:.3f} ({:.3f} to {:.3f})".format(*row[key]) if row[key] else "-"
            for key in ("auc", "auc_broken")
        ]
        lines.append(f"{kind:<34}{100 * row['wrong']:>7.1f}{alpha:>22}{areas[0]:>24}{areas[1]:>24}")
    return [*lines, ""]


def _comparison_lines(record: dict[str, Any]) -> list[str]:
    lines = [
        f"{record['candidate']} against fixed weights of its bases, the first {record['n']} "
        f"{record['images']}, express",
        f"{'mix':<24}{'clean, 95%':>24}{'robust, 95%':>24}{'clean: adaptive - fixed':>32}"
        f"{'McNemar p':>11}{'robust: difference':>20}",
    ]

    def cells(row: dict[str, Any]) -> str:
        both = (tuple(100 * part for part in row[key]) for key in ("clean", "robust"))
        text = ("{:.1f} ({:.1f} to {:.1f})".format(*each) for each in both)
        return f"{row['mix']:<24}" + "".join(f"{each:>24}" for each in text)

    lines.append(cells(record["adaptive"]))
    for row, (clean, robust) in zip(record["fixed"], record["paired"], strict=True):
        pairs, other = PairedCounts(*clean), PairedCounts(*robust)
        difference = "{:+.1f} ({:+.1f} to {:+.1f})".format(
            *(100 * each for each in (pairs.difference, *pairs.interval()))
        )
        lines.append(
            f"{cells(row)}{difference:>32}{pairs.p_value:>11.3f}{100 * other.difference:>+20.1f}"
        )
    lines.append("swept fixed weights: clean, and robust at most, under a short attack")
    lines += [
        f"  {weight:<6}{100 * clean:>7.1f}{100 * robust:>7.1f}"
        for weight, (clean, robust) in record["swept"].items()
    ]
    return [*lines, ""]


@click.group()
def main() -> None:
    """Measure a mixing network."""


@main.command("detection")
@click.option("--suite", default="cifar100-linf", show_default=True)
@click.option("--candidate", "candidates", multiple=True, default=("cifar100-adaptive-mix",))
@click.option("--n-examples", default=250, show_default=True)
@click.option("--steps", default=30, show_default=True)
@click.option("--held-out", is_flag=True, help="Training images that the shipped parts left out.")
def detect(
    suite: str, candidates: tuple[str, ...], n_examples: int, steps: int, held_out: bool
) -> None:
    """Measure how well gamma tells attacked images from clean ones."""
    for name in candidates:
        _keep(detection(load_suite(suite), name, n_examples, steps, held_out))


@main.command("comparison")
@click.option("--suite", default="cifar100-linf", show_default=True)
@click.option("--candidate", default="cifar100-adaptive-mix", show_default=True)
@click.option("--n-examples", default=1000, show_default=True)
@click.option("--alphas", default="0.84:0.96:0.01", show_default=True)
@click.option("--results-dir", type=click.Path(path_type=Path), help="Keep the runs here.")
def compare(
    suite: str, candidate: str, n_examples: int, alphas: str, results_dir: Path | None
) -> None:
    """Compare an adaptive mix with fixed weights."""
    with tempfile.TemporaryDirectory() as scratch:
        place = results_dir or Path(scratch)
        _keep(comparison(load_suite(suite), candidate, n_examples, alphas, place))


@main.command("table")
def show() -> None:
    """Write the table again."""
    _write_table()


def _keep(record: Detection | Comparison) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")
    _write_table()


def _write_table() -> None:
    text = table([json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()])
    RESULTS.with_suffix(".txt").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
