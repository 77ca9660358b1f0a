"""The call in Python that makes a run again."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bench.data.class_names import numbered
from bench.data.in_hand import PREFIX as IN_HAND
from bench.pages.command import SWITCHES
from bench.runs.settings import SWEEP_STEPS, SWEEP_TARGETS, Settings
from bench.store.manifest import Manifest
from bench.store.summary import SweepSummary
from bench.suites import suite_names

if TYPE_CHECKING:  # torch is slow to import, and records are read without it
    from bench.api.evaluation import Evaluation
    from bench.candidates import CandidateReference

_SCALE = re.compile(r",((?:accurate|robust)_scale)=([^,]+)")


def call_of(evaluation: Evaluation) -> str:
    """Return the call that makes a run with the same digest; empty where no call does.

    What only the user has stands in it by the name of its argument, such as `model` or `images`.
    """
    summary = evaluation.summary
    manifest = summary.manifest
    selection = manifest.selection
    if summary.kind.is_imported or selection.kind == "listed" or selection.claims:
        return ""
    given = settings_of(manifest)
    if isinstance(summary, SweepSummary):
        del given["protocol"]
        return _call("sweep", ["accurate", "robust", _suite(manifest)], _sweep(manifest) | given)
    is_live = _is_live(evaluation.origin.reference)
    named: dict[str, Any] = {"name": manifest.candidate}
    function = "evaluate"
    if _is_certify(evaluation):
        function = "certify"
        del given["protocol"]
        if is_live:
            named["sigma"] = manifest.engine_settings["sigma"]
    elif is_live and _is_randomized(evaluation):
        named["randomized"] = True
    is_in_hand = manifest.dataset.name.startswith(IN_HAND)
    data = _in_hand(manifest) if is_in_hand else [_suite(manifest)]
    return _call(function, ["model", *data], named | given)


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """Return the settings that decide a run's result, as users give them.

    Those that have their default are left out.
    """
    selection, attacks = manifest.selection, {each.get("name") for each in manifest.attacks}
    switches = {_argument(option): name in attacks for name, option in SWITCHES.items()}
    given = switches | {
        "protocol": manifest.protocol,
        "n_examples": manifest.overrides.get("n_examples"),
        "every": selection.step,
        "sample": "random" if selection.kind == "random" else None,
        "sample_seed": selection.seed,
        "until_width": selection.until_width and _points(selection.until_width),
        "budget": selection.budget_seconds,
        "engine": manifest.engine if manifest.engine == "reference" else None,
        "procedure": manifest.engine_settings.get("procedure"),
        "noise_samples": manifest.overrides.get("noise_samples"),
        "batch_size": manifest.engine_settings.get("batch_size"),
        "precision": manifest.precision,
        "seed": manifest.seed,
        "eps": manifest.overrides.get("eps"),
        "again": manifest.repetition > 0,
    }
    usual = {each.name: each.default for each in fields(Settings)}
    return {
        name: value for name, value in given.items() if value is not None and value != usual[name]
    }


def _call(function: str, positional: list[str], named: dict[str, Any]) -> str:
    words = [*positional, *(f"{name}={value!r}" for name, value in named.items())]
    return f"bench.{function}({', '.join(words)})"


def _sweep(manifest: Manifest) -> dict[str, Any]:
    """Return the arguments that only sweeps have."""
    scales = {name: ast.literal_eval(text) for name, text in _SCALE.findall(manifest.candidate)}
    targeted = manifest.attacks[-1]["parameters"]
    usual = {"steps": SWEEP_STEPS, "targets": SWEEP_TARGETS}
    changed = {name: targeted[name] for name in usual if targeted[name] != usual[name]}
    return {"alphas": manifest.engine_settings["alphas"], **scales, **changed}


def _in_hand(manifest: Manifest) -> list[str]:
    """Return the arguments for images that exist in Python only."""
    norm, eps = manifest.threat_model.norm, manifest.threat_model.eps
    if "eps" in manifest.overrides:
        eps = float(manifest.suite.removeprefix(f"{manifest.dataset.name}-{norm.lower()}-"))
    names = manifest.dataset.classes or ()
    classes = len(names) if names == numbered(len(names)) else "classes"
    return [
        "images=images",
        "labels=labels",
        f"threat_model=bench.{norm}({eps!r})",
        f"classes={classes}",
    ]


def _suite(manifest: Manifest) -> str:
    """Return the suite's name in quotes, or `suite` for one of the user's own."""
    return repr(manifest.suite) if manifest.suite in suite_names() else "suite"


def _is_certify(evaluation: Evaluation) -> bool:
    """Return whether `bench.certify` can make the run; `bench.evaluate` takes more options."""
    manifest, suite = evaluation.summary.manifest, evaluation.origin.suite
    if not evaluation.summary.kind.certifies or manifest.selection.kind == "random":
        return False
    return suite is None or manifest.protocol == suite.certifying_protocol


def _is_live(reference: CandidateReference | None) -> bool:
    """Return whether a candidate is a model in Python; where the records alone are known, True."""
    if reference is None:
        return True
    from bench.api.smoothed_reference import SmoothedReference
    from bench.candidates.live import LiveReference

    return isinstance(reference, LiveReference | SmoothedReference)


def _is_randomized(evaluation: Evaluation) -> bool:
    """Return whether a model in Python was declared to be random, which has no fingerprint."""
    without_fingerprint = evaluation.summary.manifest.fingerprint is None
    return bool(getattr(evaluation.origin.reference, "randomized", without_fingerprint))


def _points(width: float) -> float:
    """Return the points that `Settings` takes as exactly this width, a fraction."""
    short = round(100 * width, 10)
    return short if short / 100 == width else 100 * width


def _argument(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
