"""A finished run in short, derived from its manifest, its tables and its flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import flags
from bench.attacks.registry import STANDARD
from bench.certify.accuracy import certified_counts
from bench.certify.accuracy import summarise as summarise_certificates
from bench.engines.convergence import (
    ATTACKS,
    MOST_DOUBLINGS,
    SETTLED_SHARE,
    UNTIL_CONVERGED,
    doubled_name,
    expected_share,
)
from bench.records import (
    CERTIFYING_KINDS,
    DRAWS_WITHOUT_CLASS,
    AttackSummary,
    Convergence,
    Flag,
    Manifest,
    Summary,
    SweepPoint,
    best_point,
)
from bench.selection import interval_of
from bench.tables import Tables


def summarise(
    manifest: Manifest,
    tables: Tables,
    raised: Sequence[Flag],
    record: Mapping[str, float | str],
    finished: str,
    eight_bit: int,
) -> Summary:
    """A run in short.

    Args:
        eight_bit: how many witnesses break their samples as 8-bit images too.
        raised: flags that were measured before the attacks.
        record: of the engine.
        finished: when the run ended.
    """
    if manifest.kind in CERTIFYING_KINDS:
        return summarise_certification(manifest, tables, raised, record, finished)
    if manifest.kind == "sweep":
        return summarise_sweep(manifest, tables, raised, record, finished)
    samples, attempts = tables.samples, tables.attempts
    n = len(samples)
    clean = int(samples["clean_correct"].sum())
    robust = int(samples["robust"].sum())
    standing = clean
    attacks, skipped = [], []
    for attack in _attack_names(manifest, tables):
        rows = attempts[attempts["attack"] == attack]
        broken = int((rows["outcome"] == "broken").sum())
        standing -= broken
        if (rows["outcome"] == "skipped").any():
            skipped.append(attack)
        attacks.append(
            AttackSummary(
                name=attack,
                attempted=len(rows),
                broken=broken,
                accuracy_after=standing / n,
                seconds=float(rows["seconds"].sum()),
                forward_passes=round(float(rows["forward_passes"].sum())),
                backward_passes=round(float(rows["backward_passes"].sum())),
            )
        )
    convergence = _convergence(manifest, attacks, n)
    found = [
        flags.skipped_attacks(skipped),
        flags.square_beats_gradients([each for each in attacks if each.name not in skipped], n),
        flags.unconverged(convergence, robust) if convergence else None,
        flags.non_finite_logits(samples),
    ]
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=None if skipped else _autoattack_accuracy(attacks),
        robust_accuracy=robust / n,
        eight_bit_robust_accuracy=(clean - eight_bit) / n,
        confidence_intervals={
            "clean_accuracy": interval_of(manifest.selection, clean, n),
            "robust_accuracy": interval_of(manifest.selection, robust, n),
        },
        attacks=attacks,
        flags=[*raised, *(flag for flag in found if flag is not None)],
        engine_record=_with_rates(record, n, float(attempts["seconds"].sum())),
        convergence=convergence,
        seconds=float(attempts["seconds"].sum()),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def summarise_certification(
    manifest: Manifest,
    tables: Tables,
    raised: Sequence[Flag],
    record: Mapping[str, float | str],
    finished: str,
) -> Summary:
    """A certification, or an imported log, in short; arguments as in `summarise`."""
    certificates = tables.certificates()
    n = len(certificates.index)
    clean = int((certificates.prediction == certificates.label).sum())
    (proved,) = certified_counts(certificates, [manifest.threat_model.eps])
    unanswered = flags.non_finite_votes(
        float(record.get(DRAWS_WITHOUT_CLASS, 0)), float(record.get("draws", 0))
    )
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=None,
        robust_accuracy=proved / n,
        confidence_intervals={
            "clean_accuracy": interval_of(manifest.selection, clean, n),
            "robust_accuracy": interval_of(manifest.selection, proved, n),
        },
        attacks=[],
        flags=[*raised, *([] if unanswered is None else [unanswered])],
        engine_record=dict(record),
        certified=summarise_certificates(certificates, manifest.engine_settings["sigma"]),
        seconds=float(record.get("seconds", 0.0)),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def summarise_sweep(
    manifest: Manifest,
    tables: Tables,
    raised: Sequence[Flag],
    record: Mapping[str, float | str],
    finished: str,
) -> Summary:
    """A sweep in short; arguments as in `summarise`. Its accuracies are those of the best point."""
    by_weight = tables.samples.groupby("alpha", sort=True)[["clean_correct", "robust"]].mean()
    points = [
        SweepPoint(alpha=alpha, clean_accuracy=clean, attacked_accuracy=attacked)
        for alpha, clean, attacked in by_weight.itertuples()
    ]
    n = len(tables.samples) // len(points)
    best = best_point(points)
    unanswered = flags.non_finite_logits(tables.samples)
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=best.clean_accuracy,
        autoattack_accuracy=None,
        robust_accuracy=best.attacked_accuracy,
        confidence_intervals={
            "clean_accuracy": interval_of(manifest.selection, round(best.clean_accuracy * n), n),
            "robust_accuracy": interval_of(
                manifest.selection, round(best.attacked_accuracy * n), n
            ),
        },
        attacks=[],
        flags=[*raised, *([] if unanswered is None else [unanswered])],
        engine_record=dict(record),
        sweep=points,
        seconds=float(tables.attempts["seconds"].sum()),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def _with_rates(
    record: Mapping[str, float | str], n: int, seconds: float
) -> dict[str, float | str]:
    """The engine's record with how full its batches were, and how fast it was."""
    rates: dict[str, float | str] = dict(record)
    filled, slots = record.get("filled_steps"), record.get("slot_steps")
    if isinstance(filled, int | float) and isinstance(slots, int | float) and slots:
        rates["batch_fill"] = round(filled / slots, 4)
    if seconds > 0:
        rates["samples_per_second"] = round(n / seconds, 4)
    return rates


def _autoattack_accuracy(attacks: list[AttackSummary]) -> float | None:
    """Accuracy after standard AutoAttack, if nothing else ran before its end."""
    names = tuple(attack.name for attack in attacks[: len(STANDARD)])
    return attacks[len(STANDARD) - 1].accuracy_after if names == STANDARD else None


def _attack_names(manifest: Manifest, tables: Tables) -> list[str]:
    """Attacks of the manifest, then those that the engine added, in the order they ran."""
    named = [str(choice["name"]) for choice in manifest.attacks]
    planned = [name for name in named if name != UNTIL_CONVERGED]
    return list(dict.fromkeys([*planned, *tables.attempts["attack"].unique()]))


def _convergence(manifest: Manifest, attacks: list[AttackSummary], n: int) -> Convergence | None:
    """What the doublings of a run that attacked until convergence brought."""
    if all(choice["name"] != UNTIL_CONVERGED for choice in manifest.attacks):
        return None
    passes, curve = 0, []
    for attack in attacks:
        passes += attack.forward_passes + attack.backward_passes
        curve.append((passes / n, attack.accuracy_after))
    accuracies = {attack.name: attack.accuracy_after for attack in attacks}
    standing = attacks[len(manifest.attacks) - 2].accuracy_after
    shares: list[float] = []
    for doubling in range(1, MOST_DOUBLINGS + 1):
        left = accuracies.get(doubled_name(ATTACKS[-1], doubling))
        if left is None or standing == 0:
            break
        shares.append(1 - left / standing)
        standing = left
    expected = expected_share(shares) if shares else 0.0
    return Convergence(
        shares_broken=shares,
        expected_share=expected,
        converged=standing == 0 or (bool(shares) and expected < SETTLED_SHARE),
        curve=curve,
    )
