"""The command that makes a run again."""

from __future__ import annotations

import shlex

from bench.formatting import radius
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest, Selection
from bench.validation import parse_fraction

SWITCHES = {
    "until-converged": "--until-converged",
    "witnesses": "--seed-witnesses",
    "eps-curve": "--eps-curve",
}
"""Options that show as attacks of the manifest, by the attack's name."""


def command_of(manifest: Manifest) -> str | None:
    """Return the command that makes a run with the same digest; None if no command does.

    Runs of listed samples are made in Python, imported runs from a file.
    """
    kind = kind_named(manifest.kind)
    if (
        manifest.selection.kind == "listed"
        or kind.is_imported
        or not (kind.has_witnesses or kind.certifies)
    ):
        return None
    words = ["bench", "run", "--suite", manifest.suite, "--candidate", manifest.candidate]
    words += ["--protocol", manifest.protocol, "--precision", manifest.precision]
    settings = manifest.engine_settings
    if manifest.engine == "reference":
        words += ["--engine", "reference"]
    if "batch_size" in settings:  # of the reference engine, and of randomized candidates
        words += ["--batch-size", str(settings["batch_size"])]
    if kind.certifies and settings.get("procedure") not in (None, "fixed"):
        words += ["--procedure", str(settings["procedure"])]
    if "noise_samples" in manifest.overrides:
        words += ["--noise-samples", str(manifest.overrides["noise_samples"])]
    words += [SWITCHES[name] for name in _names(manifest) if name in SWITCHES]
    words += _samples(manifest.selection, manifest.overrides.get("n_examples"))
    if "eps" in manifest.overrides:
        words += ["--eps", _exact(manifest.threat_model.eps)]
    if manifest.seed:
        words += ["--seed", str(manifest.seed)]
    if manifest.repetition:
        words.append("--again")
    return shlex.join(words)


def _names(manifest: Manifest) -> list[str]:
    return [str(attack.get("name", "")) for attack in manifest.attacks]


def _samples(selection: Selection, n: object) -> list[str]:
    words = [] if n is None else ["--n-examples", str(n)]
    if selection.kind == "every":
        words += ["--every", str(selection.step)]
    if selection.kind == "random":
        words += ["--sample", "random", "--sample-seed", str(selection.seed)]
    if selection.until_width is not None:
        words += ["--until-width", f"{100 * selection.until_width:.12g}"]
    if selection.budget_seconds is not None:
        words += ["--budget", f"{selection.budget_seconds:.12g}s"]
    return words


def _exact(eps: float) -> str:
    """Return a text that is read as exactly this radius."""
    short = radius(eps)
    return short if parse_fraction(short) == eps else repr(eps)
