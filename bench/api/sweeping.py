"""Sweep two models over mixing weights: the run of `bench sweep`, called from Python."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bench.api.conditions import usual_torch
from bench.api.evaluation import Evaluation
from bench.api.models import Model, device_of, reference_of, suite_of
from bench.api.running import Folder, Place, option_words, place_words, run
from bench.api.wording import errors_in_python
from bench.candidates import Candidate, CandidateReference
from bench.candidates.bases import MixReference
from bench.candidates.candidate import Availability
from bench.runs import sweep as sweeps
from bench.runs.settings import SWEEP_STEPS, SWEEP_TARGETS, Settings
from bench.suites import Suite

OPTIONS = ("n_examples", "batch_size", "precision", "seed", "eps")


def sweep(
    accurate: Model,
    robust: Model,
    suite: str | os.PathLike[str] | Suite = "cifar10-linf",
    *,
    alphas: str | Sequence[float] = "0:1:0.05",
    accurate_scale: float | None = None,
    robust_scale: float | None = None,
    steps: int = SWEEP_STEPS,
    targets: int = SWEEP_TARGETS,
    n_examples: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seed: int = 0,
    eps: str | float | None = None,
    again: bool = False,
    device: str | torch.device = "auto",
    results_dir: Folder | None = None,
    data_dir: Folder | None = None,
    model_dir: Folder | None = None,
    trust_code: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Draw the trade-off curve of two models, mixed at many weights, under a cheap attack.

    The attacked accuracies are upper bounds. `summary.sweep` holds the points, `plot()` draws them.
    Arguments that are not named here, and errors, are those of `bench.evaluate`.

    Args:
        accurate, robust: models as for `bench.evaluate`.
        alphas: weights of the robust one, in [0, 1]: first:last:step, or numbers.
        accurate_scale, robust_scale: factors on their logits.
        steps: of each search of the cheap attack.
        targets: classes of its targeted part.

    Raises:
        InputError: also bases that do not fit together, or weights outside [0, 1].
    """
    with errors_in_python(), usual_torch():
        text = alphas if isinstance(alphas, str) else ",".join(repr(float(each)) for each in alphas)
        weights = sweeps.read_alphas(text, "--alphas")
        found = suite_of(suite)
        bases = {
            role: reference_of(model, found, model_dir=model_dir, trust_code=trust_code)
            for role, model in (("accurate", accurate), ("robust", robust))
        }
        scales = {"accurate_scale": accurate_scale, "robust_scale": robust_scale}
        reference = _reference({"accurate": accurate, "robust": robust}, bases, scales, found)
        settings = Settings(
            suite=found,
            device=device_of(device, reference),
            protocol=sweeps.PROTOCOL,
            n_examples=n_examples,
            batch_size=batch_size,
            precision=precision,
            seed=seed,
            eps=eps,
            again=again,
        )
        settings.check_values()
        place = Place.of(results_dir, data_dir, model_dir, trust_code)
        command = ""
        if all(isinstance(each, str | os.PathLike) for each in (accurate, robust, suite)):
            options = {
                "--suite": suite,
                "--accurate": accurate,
                "--robust": robust,
                "--alphas": text,
                "--accurate-scale": accurate_scale,
                "--robust-scale": robust_scale,
                "--steps": steps if steps != SWEEP_STEPS else None,
                "--targets": targets if targets != SWEEP_TARGETS else None,
            }
            command = _command(options, settings, place)
        swept = sweeps.sweep_settings(settings, weights, steps, targets)
        return run(reference, swept, place, progress, command)


def _reference(
    models: Mapping[str, Model],
    bases: Mapping[str, CandidateReference],
    scales: Mapping[str, float | None],
    suite: Suite,
) -> SweepReference:
    """Return the mix at any weight.

    Args:
        models: both bases as they were given, by role.
        bases: the same as references.
        scales: factors on their logits, by the name of the mix's argument; None: 1.
        suite: where it is evaluated.
    """
    names = {
        role: os.fspath(model) if isinstance(model, str | os.PathLike) else bases[role].name
        for role, model in models.items()
    }
    name = sweeps.mix_name(
        names["accurate"],
        names["robust"],
        None,
        scales["accurate_scale"],
        scales["robust_scale"],
    )
    given = {key: value for key, value in scales.items() if value is not None}
    numbers = {"alpha": sweeps.INSPECTED_ALPHA, **given}
    return SweepReference(name, MixReference(name, bases, numbers, suite.data.label))


def _command(options: Mapping[str, object], settings: Settings, place: Place) -> str:
    """Return the command line that makes the same sweep; an option that is None is left out."""
    words: list[object] = ["bench", "sweep"]
    for option, value in options.items():
        words += [] if value is None else [option, value]
    words += [*option_words(settings, OPTIONS), *place_words(place)]
    return shlex.join(str(each) for each in words)


@dataclass(frozen=True)
class SweepReference:
    """What a sweep evaluates: a mix at any weight."""

    name: str
    mix: MixReference

    @property
    def norms(self) -> frozenset[str]:
        """The norms that either base was made for."""
        return self.mix.norms

    @property
    def bases(self) -> Mapping[str, CandidateReference]:
        """The two bases."""
        return self.mix.bases

    def availability(self) -> Availability:
        """Return whether both bases are here."""
        return self.mix.availability()

    def load(self) -> Candidate:
        """Load both bases and mix them; errors as of the mix."""
        return sweeps.sweep_candidate(self.mix, self.name)
