"""Mixes on a suite's page: which runs belong together, and their samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import InputError
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.records import FloatArray
from bench.store.summary import AttackedSummary, Summary, SweepSummary, ranked
from bench.store.tables import MIX_COLUMNS

ROLES = ("accurate", "robust")


@dataclass(frozen=True)
class Family:
    """Mixes of the same two bases, measured on the same samples under one threat model.

    Attributes:
        names: names of the accurate and the robust base; None for a base that is no candidate.
        bases: runs of the two bases; None where there is none.
        sweeps: the newest sweep for each pair of base scales.
        fixed: runs of mixes with a fixed weight, by weight.
        bent: runs of mixes with a fixed weight that bend their bases' logits, by name.
        adaptive: runs of mixes with a mixing network, by name.
    """

    names: tuple[str | None, str | None]
    bases: tuple[AttackedSummary | None, AttackedSummary | None]
    sweeps: tuple[SweepSummary, ...]
    fixed: tuple[AttackedSummary, ...]
    bent: tuple[AttackedSummary, ...]
    adaptive: tuple[AttackedSummary, ...]

    @property
    def title(self) -> str:
        """Both bases' names, or the mixes' where those are unknown."""
        known = [name for name in self.names if name]
        mixes = [mix.manifest.candidate for mix in (*self.adaptive, *self.bent, *self.fixed)]
        return " and ".join(known or mixes)

    @property
    def has_curve(self) -> bool:
        """Whether there is something to draw beside the mixes."""
        return bool(self.sweeps or any(self.bases))


@dataclass(frozen=True)
class Margins:
    """One base's confidence margins, in [0, 1].

    Attributes:
        clean_right: (n,) margins on the clean images that it classifies correctly.
        attacked_wrong: (m,) margins on the adversarial images that it classifies wrongly.
    """

    clean_right: FloatArray
    attacked_wrong: FloatArray


@dataclass(frozen=True)
class MixSamples:
    """Weights and margins that a mix's run recorded.

    Attributes:
        candidate: the mix's name.
        alpha_clean: (n,) weights on the clean images.
        alpha_adversarial: (m,) weights on the images that broke the mix.
        margins: margins of the accurate and of the robust base.
    """

    candidate: str
    alpha_clean: FloatArray
    alpha_adversarial: FloatArray
    margins: tuple[Margins, Margins]


def families(summaries: Iterable[Summary]) -> list[Family]:
    """Sort a suite's runs into families; families with the most mixes come first."""
    runs = list(summaries)
    groups: dict[tuple[object, ...], list[Summary]] = {}
    for run in runs:
        if mix_of(run):
            groups.setdefault(_key(run), []).append(run)
    found = [_family(group, runs) for group in groups.values()]
    return sorted(
        found, key=lambda each: (-len((*each.fixed, *each.bent, *each.adaptive)), each.title)
    )


def mix_of(run: Summary) -> Mapping[str, Any]:
    """Return what the manifest says of the mix; empty for other candidates and kinds of runs."""
    is_drawn = run.kind.is_ranked or isinstance(run, SweepSummary)
    return mix_description(run) if is_drawn else {}


def mix_description(run: Summary) -> Mapping[str, Any]:
    """Return what the manifest of a run of whatever kind says of the mix; empty for others."""
    described = run.manifest.information.get("mix")
    return described if isinstance(described, Mapping) else {}


def weight_of(run: Summary) -> float:
    """Return the weight of a fixed mix."""
    return float(mix_of(run)["alpha_range"][0])


def read_mix_samples(store: Store, run: Summary) -> MixSamples | None:
    """Return the samples of a mix's run; None if unreadable or without the mix's columns."""
    try:
        samples = store.folder(run.manifest).samples()
    except InputError:
        return None
    if not set(MIX_COLUMNS) <= set(samples.columns) or samples["alpha_clean"].isna().all():
        return None
    return MixSamples(
        candidate=run.manifest.candidate,
        alpha_clean=_known(samples, "alpha_clean"),
        alpha_adversarial=_known(samples, "alpha_adversarial"),
        margins=(_margins(samples, "accurate"), _margins(samples, "robust")),
    )


def _margins(samples: pd.DataFrame, role: str) -> Margins:
    clean = _known(samples, f"{role}_margin_clean")
    adversarial = _known(samples, f"{role}_margin_adversarial")
    return Margins(clean[clean > 0], -adversarial[adversarial < 0])


def _known(samples: pd.DataFrame, column: str) -> FloatArray:
    values: FloatArray = samples[column].dropna().to_numpy(dtype=float)
    return values


def _key(run: Summary) -> tuple[object, ...]:
    weights = [tuple(sorted(base_weights(run.manifest, role).items())) for role in ROLES]
    # Names count too, because mixes of the same networks have the same digests.
    names = [mix_of(run).get(role) for role in ROLES]
    names += [_definition(run, role) for role in ROLES]
    who = [*weights, *names] if all(weights) else [run.manifest.candidate]
    return (*_circumstances(run), *who)


def _circumstances(run: Summary) -> tuple[object, ...]:
    """Return what must be equal for accuracies to be drawn on the same axes."""
    manifest = run.manifest
    threat = manifest.threat_model
    samples = (manifest.dataset.sha256, run.n_examples)
    return (manifest.suite_version, threat.norm, threat.eps, *samples)


def base_weights(mix: Manifest, role: str) -> dict[str, str]:
    """Return the digests of a mix's base's weights, as a run of the base itself names them.

    Args:
        mix: of a run of the mix.
        role: "accurate" or "robust".
    """
    found = {}
    for name, digest in mix.weights_sha256.items():
        if name == role:
            found["weights"] = digest
        elif name.startswith(f"{role}."):
            found[name.removeprefix(f"{role}.")] = digest
    return found


def _family(runs: Sequence[Summary], everything: Sequence[Summary]) -> Family:
    first = runs[0]
    evaluations = _best(ranked(runs))
    sweeps = {
        (mix_of(run).get("accurate_scale"), mix_of(run).get("robust_scale")): run
        for run in sorted(runs, key=lambda run: run.finished)
        if isinstance(run, SweepSummary)
    }
    names = [next(filter(None, (mix_of(run).get(role) for run in runs)), None) for role in ROLES]
    accurate, robust = (_base(first, role, everything) for role in ROLES)
    adaptive = [run for run in evaluations if mix_of(run)["adaptive"]]
    # Records from before mixes said so bend nothing.
    bent = [run for run in evaluations if mix_of(run).get("bends_logits") and run not in adaptive]
    fixed = [run for run in evaluations if run not in adaptive and run not in bent]
    return Family(
        names=(names[0], names[1]),
        bases=(accurate, robust),
        sweeps=tuple(sweeps.values()),
        fixed=tuple(sorted(fixed, key=weight_of)),
        bent=tuple(bent),
        adaptive=tuple(adaptive),
    )


def _definition(mix: Summary, role: str) -> str | None:
    """Return the digest of a base's definition; None if not recorded."""
    definition: str | None = (mix_of(mix).get("definitions") or {}).get(role)
    return definition


def _base(mix: Summary, role: str, runs: Sequence[Summary]) -> AttackedSummary | None:
    weights, name = base_weights(mix.manifest, role), mix_of(mix).get(role)
    found = _best(
        [
            run
            for run in ranked(runs)
            if weights
            and run.manifest.weights_sha256 == weights
            # Mixes of the same networks have the same digests at every weight.
            and (name is None or run.manifest.candidate == name)
            and _definition(mix, role) in (None, run.manifest.definition_sha256)
            and _circumstances(run) == _circumstances(mix)
        ]
    )
    return found[0] if found else None


def _best(runs: Sequence[AttackedSummary]) -> list[AttackedSummary]:
    """Return the run with the lowest accuracy, then the newest, of each candidate, by name."""
    chosen: dict[str, AttackedSummary] = {}
    for run in sorted(runs, key=lambda run: run.finished, reverse=True):
        name = run.manifest.candidate
        if name not in chosen or run.robust_accuracy < chosen[name].robust_accuracy:
            chosen[name] = run
    return [chosen[name] for name in sorted(chosen)]
