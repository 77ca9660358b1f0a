"""A run on matplotlib's axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import InputError
from bench.formatting import threat_model
from bench.store import Store
from bench.store.summary import AttackedSummary, CertifiedSummary, SweepSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.api.evaluation import Evaluation


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Return the figures that the run's page has, by name."""
    from bench.pages.candidate_page import figures_of

    # results/<suite>/<candidate>/<run>
    return figures_of(Store(evaluation.folder.path.parents[2]), evaluation.summary)


def plot(evaluation: Evaluation, axes: Axes | None = None) -> Axes:
    """Draw a run: accuracy after each attack, at each certified radius, or at each weight.

    Args:
        axes: where to draw; None: a new figure.
    """
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots()
    summary = evaluation.summary
    if isinstance(summary, CertifiedSummary):
        _certified(evaluation, axes)
    elif isinstance(summary, SweepSummary):
        weights = [point.alpha for point in summary.sweep]
        clean = [100 * point.clean_accuracy for point in summary.sweep]
        attacked = [100 * point.attacked_accuracy for point in summary.sweep]
        axes.plot(weights, clean, marker=".", label="clean")
        axes.plot(weights, attacked, marker=".", label="after the cheap attack (upper bound)")
        axes.set_xlabel("mixing weight alpha")
        axes.legend()
    else:
        assert isinstance(summary, AttackedSummary)
        names = ["clean", *(each.name for each in summary.attacks)]
        values = [summary.clean_accuracy, *(each.accuracy_after for each in summary.attacks)]
        axes.bar(names, [100 * each for each in values], color=["C0", *["C1"] * (len(names) - 1)])
        bounds = evaluation.interval
        last = 100 * summary.robust_accuracy
        axes.errorbar(
            names[-1],
            last,
            yerr=[[max(0, last - 100 * bounds.low)], [max(0, 100 * bounds.high - last)]],
            color="black",
            capsize=4,
        )
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"{evaluation.name}: {threat_model(summary.manifest.threat_model)}")
    return axes


def plot_eps_curves(evaluations: Sequence[Evaluation], axes: Axes | None = None) -> Axes:
    """Draw runs' robust accuracies against eps; arguments and errors as `Evaluation` has them.

    Args:
        evaluations: at least one; the first one's eps is marked.
        axes: where to draw; None: a new figure.
    """
    from bench.pages.eps_curve_plot import NamedCurve, draw_eps_curves

    first = evaluations[0].summary.manifest.threat_model
    curves = []
    for each in evaluations:
        norm = each.summary.manifest.threat_model.norm
        if norm != first.norm:
            raise InputError(f"expected runs in {first.norm}, got {each.name} in {norm}")
        curves.append(NamedCurve(each.name, each.smallest["radius"].to_numpy(np.float64)))
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots()
    draw_eps_curves(axes, curves, first.eps, first.norm)
    return axes


def _certified(evaluation: Evaluation, axes: Axes) -> None:
    """Draw the share of samples that are right with at least each radius."""
    samples = evaluation.samples
    right = (samples["prediction"] == samples["label"]).to_numpy()
    radii = np.sort(samples["radius"].to_numpy()[right])
    share = 100 * np.arange(len(radii), 0, -1) / len(samples)
    axes.step([0.0, *radii], [*share[:1], *share], where="pre")
    axes.axvline(evaluation.summary.manifest.threat_model.eps, linestyle=":", color="gray")
    axes.set_xlabel("certified L2 radius")
