"""An evaluation: one attack after the other on the samples that survived the earlier ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import flags
from bench.attacks import ATTACKS, plan_attack
from bench.attacks.eight_bit import eight_bit_successes
from bench.attacks.registry import STANDARD
from bench.candidates import Candidate
from bench.claims.gate import check_clean_accuracy
from bench.data import Dataset
from bench.decision import NO_CLASS
from bench.engines import DEFAULT_ENGINE, AttackTask, Engine, Task, Trials, make_engine
from bench.engines.answering import in_parts
from bench.engines.attack_works import CLEAN_ATTEMPT
from bench.engines.convergence import ATTACKS as DOUBLED_ATTACKS
from bench.engines.convergence import (
    MOST_DOUBLINGS,
    SETTLED_SHARE,
    UNTIL_CONVERGED,
    doubled_name,
    expected_share,
)
from bench.engines.fast import FastEngine
from bench.engines.prediction import decide
from bench.engines.smallest import ATTACK as SMALLEST_ATTACK
from bench.engines.smallest import EPS_CURVE, curve_settings
from bench.engines.trials import WITNESSES
from bench.errors import InputError
from bench.executors.stage import Executor
from bench.flags.extra import extra_flags
from bench.flags.power import attack_power
from bench.kinds.attacked import AttackedRecords, EvaluationRecords
from bench.memory.out_of_memory import ImagesAtOnce
from bench.runs.capabilities import applicable, needing
from bench.runs.confidence_records import with_confidences
from bench.runs.estimate import Estimate, estimate_attacks
from bench.runs.kind import RunnableKind, common_fields, task_of
from bench.runs.known_witnesses import known_witnesses
from bench.runs.measuring import measured
from bench.runs.mix_records import with_mix_records
from bench.runs.observer import Observer
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.eps_curve import eps_curve_of
from bench.store.manifest import Manifest
from bench.store.power import AttackPower
from bench.store.records import FAILED, AttackBlock
from bench.store.summary import AttackedSummary, AttackSummary, Convergence, Flag, Summary
from bench.store.tables import (
    Tables,
    attacked_samples,
    attempt_table,
    first_witnesses,
    smallest_records,
)


class AttackingKind(AttackedRecords, RunnableKind):
    """What evaluations and imported witnesses have in common."""

    supported_settings = frozenset(
        {"engine", "seed_witnesses", "until_converged", "eps_curve", "flags"}
    )

    def engine(self, settings: Settings) -> Engine[AttackTask]:
        """Return the engine that is asked for."""
        return make_engine(settings.engine or DEFAULT_ENGINE, settings.precision, settings.device)

    def task(
        self, candidate: Candidate, dataset: Dataset, settings: Settings, engine: Engine[Any]
    ) -> AttackTask:
        """Return the candidate with the attacks of the protocol that apply to it."""
        common = task_of(candidate.module, dataset, settings, engine)
        images = dataset.images[:4].to(settings.device)
        surrogate = candidate.surrogate
        planned = settings.chosen_protocol.attacks
        attacks = applicable(planned, candidate, images)
        if planned and not attacks:
            raise InputError(
                f"--protocol: none of the attacks of {settings.protocol} applies to "
                f"{candidate.name}, since each needs what it lacks, such as the parts of a mix; "
                "take protocol standard"
            )
        return AttackTask(
            **vars(replace(common, randomized=candidate.randomized)),
            attacks=attacks,
            until_converged=settings.until_converged,
            eps_curve=settings.eps_curve,
            surrogate=None if surrogate is None else surrogate.to(settings.device),
        )

    def estimate(self, task: AttackTask) -> Estimate:
        """Return how long the attacks will take."""
        return estimate_attacks(task)

    def check(self, candidate: Candidate, dataset: Dataset, settings: Settings) -> None:
        """Refuse attacks that need larger images before any of them runs."""
        norm, eps = settings.suite.threat_model.norm, settings.suite.threat_model.eps
        classes, height = max(len(dataset.classes), 2), dataset.images.shape[2]
        for choice in settings.chosen_protocol.attacks:
            plan = plan_attack(choice.name, choice.parameters, norm=norm, eps=eps, classes=classes)
            if height < plan.attack.least_height:
                raise InputError(
                    f"suite {settings.suite.name}: field protocols.{settings.protocol}.attacks: "
                    f"{choice.name} in {norm} needs images of at least {plan.attack.least_height} "
                    f"rows, those of {dataset.name} have {height}; leave it out, or enlarge the "
                    "images"
                )

    def averages(self, settings: Settings) -> bool:
        """Return whether an attack of the protocol takes the mean over a candidate's draws."""
        return any(
            choice.name in ATTACKS and ATTACKS[choice.name].need == "randomness"
            for choice in settings.chosen_protocol.attacks
        )

    def attacks(self, task: AttackTask, settings: Settings) -> list[dict[str, Any]]:
        """Return the protocol's attacks, with those that settings add before and after them."""
        return [
            *known_images(settings),
            *(attack.model_dump(mode="json") for attack in task.attacks),
            *([{"name": UNTIL_CONVERGED}] if task.until_converged else []),
            *curve_attack(task),
        ]

    def notices(self, task: AttackTask, settings: Settings) -> list[str]:
        """Say where a protocol's attacks that know a defence all leave the candidate alone."""
        special = needing(settings.chosen_protocol.attacks)
        if not special or any(choice in task.attacks for choice in special):
            return []
        left = ", ".join(choice.name for choice in task.attacks)
        return [
            f"none of the {len(special)} attacks of {settings.protocol} that know a defence "
            "applies: the candidate is no declared mix, stops no gradient and is not declared "
            f"randomized. What runs is {left}"
        ]

    def check_progress(
        self,
        settings: Settings,
        task: Task,
        manifest: Manifest,
        blocks: Collection[AttackBlock],
        observer: Observer,
    ) -> None:
        """Stop before the attacks if the clean accuracy contradicts the published one.

        A clean accuracy at chance level is only reported.
        """
        if not settings.allow_clean_mismatch:
            check_clean_accuracy(settings.suite, manifest, blocks)
        raised = _chance_level_so_far(manifest, task.classes, blocks)
        if raised is not None:
            observer.notice(f"{raised.name}: {raised.meaning} {raised.advice}")

    def prepared(
        self, task: AttackTask, settings: Settings, manifest: Manifest, store: Store
    ) -> AttackTask:
        """Return the task with the adversarial images of other candidates, if asked for."""
        if not settings.seed_witnesses:
            return task
        return replace(task, trials=known_witnesses(manifest, task, store))

    def join(self, blocks: Sequence[AttackBlock]) -> Tables:  # type: ignore[override]
        """Return the tables; a sample's first witness counts."""
        attempts = [block.attempts for block in blocks if block.attempts is not None]
        witnesses = [block.witnesses for block in blocks if block.witnesses is not None]
        samples = attacked_samples(blocks).reindex(columns=self.columns.samples.names)
        return Tables(
            samples,
            attempt_table(attempts),
            first_witnesses(witnesses),
            self.columns,
            *smallest_records(blocks),
        )

    def measured(self, task: AttackTask, tables: Tables) -> Tables:
        """Return the tables with the columns that need passes of their own.

        They record which samples survive if witnesses are rounded to 8-bit images, how confident
        the candidate is on clean images and witnesses, and a mix's weights and margins on them.
        """
        return with_mix_records(task, with_confidences(task, _with_eight_bit(task, tables)))

    def measured_by(self, task: AttackTask, tables: Tables, executor: Executor) -> Tables:
        """Let the workers measure; each sample's numbers are its own."""
        if executor.workers == 1:
            return self.measured(task, tables)
        return measured(self, task, tables, executor)

    def known_images(self, task: AttackTask, summary: Summary, store: Store) -> Trials | None:
        """Return the adversarial images of the suite's other runs."""
        return known_witnesses(summary.manifest, task, store)

    def extra_flags(self, task: AttackTask, tables: Tables, trials: Trials | None) -> list[Flag]:
        """Return flags from attacks in other ways on a few samples."""
        return extra_flags(task, tables, trials)

    def attack_power(self, task: AttackTask) -> AttackPower:
        """Return which planted weaknesses express, then the run's own attacks find."""
        return attack_power(task, own=FastEngine())

    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> AttackedSummary:
        """Sum up attack by attack."""
        samples, attempts = tables.samples, tables.attempts
        n = len(samples)
        clean, robust = int(samples["clean_correct"].sum()), int(samples["robust"].sum())
        attacks = _attack_summaries(manifest, tables, clean)
        skipped = list(attempts.loc[attempts["outcome"] == "skipped", "attack"].unique())
        convergence = _convergence(manifest, attacks, n)
        seconds = sum(attack.seconds for attack in attacks)
        return AttackedSummary(
            **common_fields(
                manifest, n, clean, robust, raised, _with_rates(record, n, seconds), finished
            ),
            autoattack_accuracy=None if skipped else _autoattack_accuracy(manifest, attacks),
            eight_bit_robust_accuracy=float(samples["eight_bit_robust"].mean()),
            attacks=attacks,
            convergence=convergence,
            eps_curve=eps_curve_of(tables, manifest.threat_model.eps),
            seconds=seconds,
        )


def known_images(settings: Settings) -> list[dict[str, Any]]:
    """Return how a manifest lists the images that are tried first; nothing without them."""
    return [{"name": WITNESSES}] if settings.seed_witnesses else []


def curve_attack(task: AttackTask) -> list[dict[str, Any]]:
    """Return how a manifest lists the search for the smallest perturbations; nothing without it."""
    return [{"name": EPS_CURVE, "parameters": curve_settings()}] if task.eps_curve else []


class Evaluation(EvaluationRecords, AttackingKind):
    """Attacks, each on the samples that survived the earlier ones."""


def _chance_level_so_far(
    manifest: Manifest, classes: int, blocks: Collection[AttackBlock]
) -> Flag | None:
    """Flag a clean accuracy at chance level, once all clean predictions of a round are finished."""
    clean = [block.clean for block in blocks if block.clean is not None]
    n = sum(len(part.index) for part in clean)
    selection = manifest.selection
    if n == 0 or n != min(selection.round or selection.n, selection.n):
        return None
    right = sum(int((part.prediction == part.label).sum()) for part in clean)
    return flags.chance_level(right, n, classes)


def _attack_summaries(manifest: Manifest, tables: Tables, clean: int) -> list[AttackSummary]:
    """Return what each attack did, in the order they ran."""
    attempts, n, standing = tables.attempts, len(tables.samples), clean
    planned = [str(choice["name"]) for choice in manifest.attacks]
    names = [name for name in planned if name not in (UNTIL_CONVERGED, EPS_CURVE)]
    summaries = []
    # A sample without a prediction has failed before any attack.
    attempts = attempts[attempts["attack"] != CLEAN_ATTEMPT]
    for attack in dict.fromkeys([*names, *attempts["attack"].unique(), *_last(tables)]):
        rows = attempts[attempts["attack"] == attack]
        # The search for smallest perturbations also spends passes on samples that are broken.
        searched = tables.smallest if attack == SMALLEST_ATTACK else None
        spent = rows if searched is None else searched
        broken = int((rows["outcome"] == "broken").sum())
        standing -= broken + int((rows["outcome"] == FAILED).sum())
        summaries.append(
            AttackSummary(
                name=attack,
                attempted=len(rows),
                broken=broken,
                accuracy_after=standing / n,
                seconds=float(spent["seconds"].sum()),
                forward_passes=round(float(spent["forward_passes"].sum())),
                backward_passes=round(float(spent["backward_passes"].sum())),
            )
        )
    return summaries


def _last(tables: Tables) -> list[str]:
    """Return what ran after all attacks: the search for smallest perturbations, if at all."""
    return [] if tables.smallest is None else [SMALLEST_ATTACK]


def _with_eight_bit(task: Task, tables: Tables) -> Tables:
    """Return the tables with `eight_bit_robust` filled in."""
    samples, witnesses = tables.samples.copy(), tables.witnesses
    # A sample on which the candidate failed is right at first, and not robust without a witness.
    samples["eight_bit_robust"] = samples["robust"] | (
        samples["clean_correct"] & samples["broken_by"].notna()
    )
    if witnesses is not None:
        place = {index: row for row, index in enumerate(task.indices.tolist())}
        rows = torch.tensor([place[index] for index in witnesses.index.tolist()])

        def classes(images: Tensor) -> Tensor:
            parts = in_parts(
                ImagesAtOnce(task.batch_size),
                torch.arange(len(images)),
                lambda some: decide(task, images[some]).cpu(),
                lambda some: torch.full((len(some),), NO_CLASS),
            )
            return torch.cat(parts)

        broken = eight_bit_successes(
            torch.from_numpy(witnesses.images),
            task.images[rows],
            task.labels[rows],
            classes,
            task.threat_model.norm,
            task.threat_model.eps,
        )
        broken_index = witnesses.index[broken.numpy()]
        samples.loc[np.isin(samples["index"], broken_index), "eight_bit_robust"] = False
    return replace(tables, samples=samples)


def _with_rates(
    record: Mapping[str, float | str], n: int, seconds: float
) -> dict[str, float | str]:
    """Return the engine's record with its batch fill and its samples per second."""
    rates: dict[str, float | str] = dict(record)
    filled, slots = record.get("filled_steps"), record.get("slot_steps")
    if isinstance(filled, int | float) and isinstance(slots, int | float) and slots:
        rates["batch_fill"] = round(filled / slots, 4)
    if seconds > 0:
        rates["samples_per_second"] = round(n / seconds, 4)
    return rates


def _autoattack_accuracy(manifest: Manifest, attacks: Sequence[AttackSummary]) -> float | None:
    """Return the accuracy after standard AutoAttack, if nothing else ran before its end."""
    names = tuple(attack.name for attack in attacks[: len(STANDARD)])
    is_standard = not any(choice.get("parameters") for choice in manifest.attacks[: len(STANDARD)])
    if names != STANDARD or not is_standard:
        return None
    return attacks[len(STANDARD) - 1].accuracy_after


def _convergence(
    manifest: Manifest, attacks: Sequence[AttackSummary], n: int
) -> Convergence | None:
    """Return the results of the doublings; None for a run that did not attack until convergence."""
    planned = [choice["name"] for choice in manifest.attacks]
    if UNTIL_CONVERGED not in planned:
        return None
    passes, curve = 0, []
    attacks = [attack for attack in attacks if attack.name != SMALLEST_ATTACK]
    for attack in attacks:
        passes += attack.forward_passes + attack.backward_passes
        curve.append((passes / n, attack.accuracy_after))
    accuracies = {attack.name: attack.accuracy_after for attack in attacks}
    standing = attacks[planned.index(UNTIL_CONVERGED) - 1].accuracy_after
    shares: list[float] = []
    for doubling in range(1, MOST_DOUBLINGS + 1):
        left = accuracies.get(doubled_name(DOUBLED_ATTACKS[-1], doubling))
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
