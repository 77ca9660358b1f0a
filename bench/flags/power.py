"""Attack power: would these attacks have noticed a weakness that is known to be there?

Each weakness of `bench.flags.planted` is planted in the candidate's own network, and the attacks
run on a few dozen samples again. What can be broken is proved, not assumed: a sample counts if an
image inside its ball is known that fools the planted network. A weakness is *found* if all but a
few of these samples break, if a flag names it, or if express notices by itself that gradients
mislead and escalates. Otherwise the suite finds it *partly*, where at least half of them break, or
misses it, and then a flag says so.

Express comes first, since it costs little. Where a run makes the protocol's own attacks anyhow,
they follow on what express and the flags did not notice; an escalation says nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from bench.attacks import ATTACKS, inside
from bench.engines.acceleration import default_precision
from bench.engines.engine import AttackTask, Engine, batches
from bench.engines.express import ExpressEngine
from bench.engines.prediction import Purpose, decide, keyed_randomness
from bench.flags.inspection import inspect
from bench.flags.planted import PLANTS, Plant, PlantError, unplanted
from bench.store.power import AttackPower, PlantedWeakness
from bench.store.records import AttackBlock
from bench.store.summary import Flag

SAMPLES = 32

MISSED_SHARE = 0.05
"""Attacks may leave this share of the samples that can be broken; significantly more is a miss."""

CHANCE = 0.05
"""The largest p-value of an excess over that share (exact binomial test) that counts as one. It is
larger than that of other flags: to call a weakness found takes more care than to call it missed."""

LEAST_BREAKABLE = 5
"""With fewer samples that can be broken, a plant tests nothing."""


IN_PARTS = frozenset({"mix", "mixing network"})
"""Needs of attacks that take a candidate apart."""


class NoticingExpress(ExpressEngine):
    """The express attacks; an escalation is noticed and not followed, which is what costs most."""

    def attacks(self, *_: Any) -> Iterator[AttackBlock]:
        """Run none of the protocol's own attacks."""
        return iter(())


def attack_power(
    task: AttackTask,
    engine: Engine[AttackTask] | None = None,
    own: Engine[AttackTask] | None = None,
) -> AttackPower:
    """Plant known weaknesses in a candidate, and see which of them attacks notice.

    Args:
        task: a run's, with all its samples; the first `SAMPLES` that are right are attacked.
        engine: the attacks on trial; None: those of express, as the run's device runs them.
        own: makes the task's own attacks on what is not noticed otherwise; None: nothing follows,
            and that attacks escalate counts as noticing.

    Returns:
        the same for the same task and seed.
    """
    suite = Suite(engine or NoticingExpress(default_precision(task.device)), own)
    if not task.attacks:
        return suite.nothing("the run has no attacks")
    if task.randomized:
        return suite.nothing("the candidate is declared randomized, so express always escalates")
    # Attacks that take a mix apart cannot see into the planted module, with or without a plant.
    whole = tuple(each for each in task.attacks if ATTACKS[each.name].need not in IN_PARTS)
    task = replace(task, attacks=whole, trials=None, until_converged=False)
    samples = _right(task)
    if len(samples.labels) < LEAST_BREAKABLE:
        return suite.nothing(f"only {len(samples.labels)} samples are right without attack")
    plain = attacked(suite.engine, samples)
    if plain.escalated:
        return suite.nothing(f"express escalates without a plant: {plain.escalated}")
    own_flags = _flags(samples)
    results, passes = [], plain.passes
    for number, make in enumerate(PLANTS):
        try:
            plant = make(task, samples)
        except PlantError as error:
            name = make.__name__.replace("_", "-")
            results.append(unplanted(name, str(error)))
            continue
        with keyed_randomness(task.device, task.seed, Purpose.SEARCH, number):
            result, more = _tried(suite, samples, plant, plain, own_flags)
        results.append(result)
        passes += more
    return AttackPower(
        attacks=suite.name,
        samples=len(samples.labels),
        broken=len(plain.witnesses),
        plants=results,
        passes=passes,
    )


def power_flag(power: AttackPower) -> Flag | None:
    """Flag attacks that missed a planted weakness.

    Args:
        power: as `attack_power` measured it.
    """
    missed = [plant for plant in power.plants if plant.outcome == "missed"]
    if not missed:
        return None
    counts = ", ".join(
        f"{plant.name} ({plant.broken} of {plant.breakable} broken)" for plant in missed
    )
    return Flag(
        name="attack-power",
        measured=counts,
        threshold="half of them",
        meaning="With these weaknesses planted in the candidate, the attacks "
        f"({power.attacks}) left most of the samples that are known to break. They would not have "
        "noticed such a weakness of the candidate's own.",
        advice="Run the standard protocol with --until-converged, or an attack that knows the "
        "defence.",
    )


@dataclass(frozen=True)
class Suite:
    """The attacks on trial.

    Attributes:
        engine: makes them.
        own: makes the task's own ones on what is not noticed otherwise; None: nothing follows.
    """

    engine: Engine[AttackTask]
    own: Engine[AttackTask] | None

    @property
    def name(self) -> str:
        """What they are called."""
        return self.engine.name + ("" if self.own is None else ", then the run's own attacks")

    def nothing(self, reason: str) -> AttackPower:
        """Return the record where nothing was planted."""
        return AttackPower(attacks=self.name, samples=0, broken=0, plants=[], reason=reason)


@dataclass(frozen=True)
class Attacked:
    """What attacks did: a witness by row, why they escalated, and what it took."""

    witnesses: dict[int, Tensor]
    escalated: str
    passes: float


def attacked(engine: Engine[AttackTask], task: AttackTask) -> Attacked:
    """Attack a task; a sample's first witness counts."""
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    witnesses: dict[int, Tensor] = {}
    escalated, passes = "", 0.0
    for block in engine.run(task, {}, lambda _: None):
        assert isinstance(block, AttackBlock)
        escalated = str(block.record.get("express_escalated", escalated))
        if block.attempts is not None:
            passes += float(block.attempts.forward_passes.sum())
            passes += float(block.attempts.backward_passes.sum())
        if block.witnesses is not None:
            for index, image in zip(block.witnesses.index, block.witnesses.images, strict=True):
                witnesses.setdefault(place[int(index)], torch.from_numpy(image))
    return Attacked(witnesses, escalated, passes)


def _tried(
    suite: Suite, samples: AttackTask, plant: Plant, plain: Attacked, own_flags: set[str]
) -> tuple[PlantedWeakness, float]:
    """Return what attacks and flags made of a plant, and the passes of the attacks."""
    planted = replace(samples, module=plant.module)
    deciding = replace(planted, randomized=plant.may_vary)
    breakable = _breakable(deciding, plant, plain)
    raised = sorted(plant.named_by & (_flags(planted) - own_flags))
    tried = attacked(suite.engine, planted)
    passes = tried.passes
    broken = _fooling(deciding, tried.witnesses) & breakable
    escalated = tried.escalated if suite.own is None else ""
    enough = len(breakable) >= LEAST_BREAKABLE
    if suite.own is not None and enough and not raised and not _few_left(breakable, broken):
        rows = sorted(breakable - broken)
        more = attacked(suite.own, planted.part(torch.tensor(rows)))
        passes += more.passes
        broken |= _fooling(deciding, {rows[at]: image for at, image in more.witnesses.items()})
    found_by = next(
        by
        for by, noticed in (
            ("attacks", _few_left(breakable, broken)),
            ("escalation", escalated),
            ("flags", raised),
            ("", True),
        )
        if noticed
    )
    reason = ""
    if found_by:
        outcome = "found"
    elif not enough:
        outcome = "untested"
        reason = f"{len(breakable)} samples are known that can be broken, too few to tell"
    else:
        outcome = "partly" if 2 * len(broken) >= len(breakable) else "missed"
    return PlantedWeakness.model_validate(
        {
            "name": plant.name,
            "effect": plant.effect,
            "outcome": outcome,
            "found_by": found_by,
            "breakable": len(breakable),
            "broken": len(broken),
            "escalated": escalated,
            "flags": raised,
            "reason": reason,
        }
    ), passes


def _few_left(breakable: set[int], broken: set[int]) -> bool:
    """Return whether enough samples can be broken, and hardly more than a few survive."""
    left = len(breakable - broken)
    chance = float(binom.sf(left - 1, len(breakable), MISSED_SHARE))
    return len(breakable) >= LEAST_BREAKABLE and chance >= CHANCE


def _breakable(task: AttackTask, plant: Plant, plain: Attacked) -> set[int]:
    """Return the rows that are right, and of which an image is known that fools the plant.

    Where the plant masks, that image broke the candidate. A back door brings its own for samples
    that survived without it.
    """
    known = plain.witnesses
    if plant.witnesses is not None:
        known = {row: image for row, image in enumerate(plant.witnesses) if row not in known}
    wrong = _fooling(task, dict(enumerate(task.images)))
    return _fooling(task, known) - wrong


def _fooling(task: AttackTask, images: dict[int, Tensor]) -> set[int]:
    """Return the rows whose image lies in the sample's ball and is misclassified."""
    rows = torch.tensor(sorted(images), dtype=torch.int64)
    threat, kept = task.threat_model, set()
    for part in batches(rows, task.batch_size):
        given = torch.stack([images[row] for row in part.tolist()])
        wrong = decide(task, given).cpu() != task.labels[part]
        kept |= set(
            part[wrong & inside(given, task.images[part], threat.norm, threat.eps)].tolist()
        )
    return kept


def _right(task: AttackTask) -> AttackTask:
    """Return the first `SAMPLES` that are right without attack."""
    rows: list[int] = []
    for part in batches(torch.arange(len(task.labels)), task.batch_size):
        right = decide(task, task.images[part]).cpu() == task.labels[part]
        rows += part[right].tolist()
        if len(rows) >= SAMPLES:
            break
    return task.part(torch.tensor(rows[:SAMPLES], dtype=torch.int64))


def _flags(task: AttackTask) -> set[str]:
    """Return the names of the flags that a look at the answers raises."""
    images, labels = task.images.to(task.device), task.labels.to(task.device)
    raised = inspect("planted", task.module, images, labels, task.classes, randomized=False)
    return {flag.name for flag in raised}
