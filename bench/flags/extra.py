"""Flags that need attacks of their own, on a few dozen samples of a finished run.

Sources: Carlini et al. 2019 (arXiv 1902.06705), sections 4.2 to 4.9: unbounded attacks reach 0,
iterations converge, transfer attacks are weaker than white-box ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.attacks import ATTACKS
from bench.engines.engine import AttackTask, Trials, plan
from bench.engines.fast import FastEngine
from bench.engines.prediction import decide
from bench.engines.trials import try_images
from bench.flags.attacks import SQUARE_THRESHOLD, more_iterations_break
from bench.flags.substitute import train_substitute, transfer_images
from bench.statistics.excess import beyond_chance
from bench.store.summary import Flag
from bench.store.tables import Tables, attacked_samples
from bench.suites.suite import AttackChoice

SAMPLES = 32
RADIUS_FACTOR = 4.0
ITERATION_FACTOR = 4


def extra_flags(
    task: AttackTask, tables: Tables, trials: Trials | None, others: Sequence[str] = ()
) -> list[Flag]:
    """Attack a few samples in other ways, and see whether the run's attacks were good enough.

    Args:
        task: of the run; its attacks are the ones on trial.
        tables: of the run.
        trials: adversarial images of other candidates; None: there are none.
        others: names of further attacks of the run that use the candidate's gradients.

    Returns:
        the flags raised; none where the run has no attack that uses gradients.
    """
    white_box = _white_box(task)
    if not white_box:
        return []
    known = torch.tensor(tables.samples["index"].tolist())
    task = _keep(task, torch.isin(task.indices, known))  # a run may stop before all were attacked
    samples = tables.samples.set_index("index").loc[task.indices.tolist()]
    right = torch.tensor(samples["clean_correct"].to_numpy(bool))
    names = [*(choice.name for choice in white_box), *others]
    by_gradient = torch.tensor(samples["broken_by"].isin(names).to_numpy(bool))
    robust = torch.tensor(samples["robust"].to_numpy(bool))
    found = [
        larger_radius(_some(task, right), white_box),
        more_iterations(_some(task, robust), white_box),
        transfer(task, _some(task, right & ~by_gradient), trials),
    ]
    return [flag for flag in found if flag is not None]


def larger_radius(task: AttackTask, attacks: Sequence[AttackChoice]) -> Flag | None:
    """Flag samples that survive although the whole image may be changed.

    Args:
        task: a few samples that are right without attack.
        attacks: gradient attacks, tried at ever larger radii up to the size of the image cube.
    """
    n = len(task.labels)
    threat = task.threat_model
    largest = 1.0 if threat.norm == "Linf" else math.sqrt(task.images[0].numel())
    eps = threat.eps
    standing = task
    while len(standing.labels) and eps < largest:
        eps = min(RADIUS_FACTOR * eps, largest)
        larger = replace(standing, threat_model=threat.model_copy(update={"eps": eps}))
        standing = _keep(standing, _survivors(larger, attacks))
    left = len(standing.labels)
    if not left:
        return None
    return Flag(
        name="larger-radius-survived",
        measured=left / n,
        threshold=0.0,
        meaning="This share of the samples survives although the attacks may change the image into "
        "any other, so that nothing can be robust: they do not find what is there.",
        advice="Look for masked gradients, and attack a differentiable surrogate (BPDA) or without "
        "gradients.",
    )


def more_iterations(task: AttackTask, attacks: Sequence[AttackChoice]) -> Flag | None:
    """Flag samples that break when gradient attacks take several times the steps.

    Args:
        task: a few samples that survived all attacks.
        attacks: those that they survived.
    """
    n = len(task.labels)
    longer = []
    for choice in attacks:
        defaults = ATTACKS[choice.name].defaults
        steps = int(choice.parameters.get("steps", defaults["steps"]))
        parameters = {**choice.parameters, "steps": ITERATION_FACTOR * steps}
        longer.append(AttackChoice(name=choice.name, parameters=parameters))
    return more_iterations_break(n - int(_survivors(task, longer).sum()), n)


def transfer(whole: AttackTask, task: AttackTask, trials: Trials | None) -> Flag | None:
    """Flag samples that images made on other networks break and white-box attacks left.

    Args:
        whole: all samples of the run, on which a substitute learns.
        task: a few samples that survived the white-box attacks.
        trials: adversarial images of other candidates; None: there are none.
    """
    n = len(task.labels)
    if not n:
        return None
    threat = task.threat_model
    reach = threat.eps if threat.norm == "Linf" else threat.eps / math.sqrt(task.images[0].numel())
    substitute = train_substitute(
        lambda images: decide(task, images),
        whole.images.to(task.device),
        task.classes,
        2 * reach,
        task.seed,
    )
    made = transfer_images(
        substitute,
        task.images.to(task.device),
        task.labels.to(task.device),
        threat.norm,
        threat.eps,
    ).cpu()
    images, index = made, task.indices
    if trials is not None:
        images = torch.cat([made, trials.images])
        index = torch.cat([index, trials.index])
    block = try_images(task, Trials(index, images, torch.zeros(len(index))))
    broken = 0 if block.witnesses is None else len(block.witnesses.index)
    if not beyond_chance(broken, n, SQUARE_THRESHOLD):
        return None
    return Flag(
        name="transfer-beats-white-box",
        measured=broken / n,
        threshold=SQUARE_THRESHOLD,
        meaning="Images made on other networks break this share of the samples that survived the "
        "attacks with the candidate's own gradients: these are masked.",
        advice="Run --seed-witnesses, Square with more queries, or declare a surrogate and run "
        "--protocol adaptive.",
    )


def _white_box(task: AttackTask) -> list[AttackChoice]:
    """Return the run's gradient attacks inside the ball, so not FAB's."""
    return [
        choice
        for choice in task.attacks
        if choice.name.startswith("apgd") and plan(task, choice).needs_gradient
    ]


def _survivors(task: AttackTask, attacks: Sequence[AttackChoice]) -> Tensor:
    """Return which samples (N,) of a task survive these attacks."""
    if not len(task.labels):
        return torch.ones(0, dtype=torch.bool)
    engine = FastEngine()
    work = replace(task, attacks=tuple(attacks), trials=None, until_converged=False)
    samples = attacked_samples(list(engine.run(work, {}, lambda _: None)))
    samples = samples.set_index("index").loc[task.indices.tolist()]
    return torch.tensor(samples["robust"].to_numpy(bool))


def _some(task: AttackTask, chosen: Tensor) -> AttackTask:
    """Return the first `SAMPLES` of the chosen (N,) samples."""
    rows = chosen.nonzero().flatten()[:SAMPLES]
    return _keep(task, torch.zeros_like(chosen).scatter(0, rows, value=True))


def _keep(task: AttackTask, chosen: Tensor) -> AttackTask:
    return replace(
        task,
        images=task.images[chosen],
        labels=task.labels[chosen],
        indices=task.indices[chosen],
    )
