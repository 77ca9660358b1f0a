"""The reference engine: pyautoattack as it is, driven one attack and one batch at a time.

pyautoattack sets its seed anew for each batch of each attack. Calling an attack on the very batches
that `run_standard_evaluation` would form therefore gives the same flags, and each batch can be
kept, and resumed from, on its own. The result belongs to (seed, batch size, list of samples).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks import inside, tolerance
from bench.attacks.attack import finite
from bench.attacks.registry import STANDARD
from bench.decision import answered
from bench.engines.attack_works import CLEAN, AttackWork, Clean, Preparation, preparation
from bench.engines.differentiability import is_differentiable
from bench.engines.engine import AttackTask, plan, survivor_costs, without_samples
from bench.engines.prediction import confirm
from bench.errors import EvaluationError, InputError
from bench.executors.in_process import InProcess
from bench.executors.progress import Progress
from bench.executors.stage import (
    Doing,
    Executor,
    Report,
    Setup,
    Stage,
    Worker,
    blocks_of,
    standing,
)
from bench.memory.out_of_memory import is_out_of_memory
from bench.precision import tensor_cores
from bench.store.records import AttackBlock, Attempts, Witnesses

MINIMUM_CLASSES = 4


class FiniteModule(nn.Module):
    """Gives pyautoattack finite logits and gradients only; finite ones are passed on bit for bit.

    pyautoattack takes NaN for class 0, and after a gradient of NaN goes on from images of NaN. Here
    it gets equal logits where they are not finite, and 0 in such places of a gradient, as the
    package's own attacks do.

    Attributes:
        unanswered_images: images passed whose logits were not finite.
    """

    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.unanswered_images = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, K) of images (n, C, H, W)."""
        if images.requires_grad:
            images.register_hook(finite)  # type: ignore[no-untyped-call]
        logits = self.module(images)
        is_answer = answered(logits)
        if bool(is_answer.all()):
            return logits
        self.unanswered_images += int((~is_answer).sum())
        self.meet_unanswered(images.detach()[~is_answer])
        return torch.where(is_answer.unsqueeze(1), logits, 0.0)

    def meet_unanswered(self, images: Tensor) -> None:
        """Handle images (m, C, H, W) whose logits are not finite; here, do nothing."""


class WatchedModule(FiniteModule):
    """Passes images on to a module, counts them, and remembers those whose logits are not finite.

    Attributes:
        forward_images: images passed forward.
        backward_images: images through which a gradient was taken.
        unanswered: images (C, H, W) whose logits were not finite, by the place of a clean image in
            whose ball they lie: the first of each, up to rounding.
    """

    def __init__(
        self, module: nn.Module, clean: Tensor, norm: Literal["Linf", "L2", "L1"], eps: float
    ) -> None:
        """Watch a module.

        Args:
            module: images (n, C, H, W) -> logits (n, K).
            clean: (N, C, H, W) centres of the balls, on the module's device.
            norm: of the balls.
            eps: their radius.
        """
        super().__init__(module)
        self.forward_images = 0
        self.backward_images = 0
        self.unanswered: dict[int, Tensor] = {}
        self._clean = clean.flatten(1)
        self._power = {"Linf": math.inf, "L2": 2.0, "L1": 1.0}[norm]
        self._reach = eps + tolerance(norm, eps, self._clean.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, K) of images (n, C, H, W)."""
        logits = super().forward(images)
        self.forward_images += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def meet_unanswered(self, images: Tensor) -> None:
        """Keep the first image of each ball that has none yet."""
        open_places = [row for row in range(len(self._clean)) if row not in self.unanswered]
        if not open_places:
            return
        distances = torch.cdist(
            images.flatten(1).double(), self._clean[open_places].double(), self._power
        )
        near = distances <= self._reach
        for column in near.any(dim=0).nonzero().flatten().tolist():
            first = int(near[:, column].nonzero()[0])
            self.unanswered[open_places[column]] = images[first].clone()

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_images += len(gradient)


class ReferenceEngine:
    """pyautoattack, unmodified, version standard."""

    name = "reference"
    precision = "float32"

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        """Return pyautoattack's own."""
        return 250

    def settings(self, task: AttackTask) -> dict[str, Any]:
        """Return the batch size: pyautoattack's draws depend on it."""
        return {"batch_size": task.batch_size}

    def run(
        self,
        task: AttackTask,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        executor: Executor | None = None,
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, then attack by attack what still stands.

        Raises:
            InputError: an attack that standard AutoAttack does not have or one with changed
                parameters, fewer than four classes, or more than standard AutoAttack.
            EvaluationError: an attack needs a gradient, and the candidate has none.
        """
        _check(task)
        executor = executor or InProcess()
        size = task.batch_size
        everything = torch.arange(len(task.labels))
        clean = Stage("clean", CLEAN, Clean(size), 1.0, exactly=size, counts_up=True)
        blocks = blocks_of(finished, CLEAN)
        for block in executor.do(task, [clean], everything, finished, report):
            yield block
            blocks.append(block)
        rows = standing(task, everything, clean, blocks)
        needing = [each.name for each in task.attacks if plan(task, each).needs_gradient]
        if len(rows) and needing:
            setup = preparation(task, rows, "float32", needs_gradient=True)
            if not executor.ask(without_samples(task), GradientOf(setup), bool):
                raise EvaluationError(
                    f"expected logits with a gradient, which pyautoattack's {', '.join(needing)} "
                    "need; got logits without. Use --engine fast, which leaves such attacks out "
                    "and says so"
                )
        for number, (attack, cost) in enumerate(
            zip(task.attacks, survivor_costs(task), strict=True)
        ):
            key = f"{number + 1:02d}-{attack.name}"
            work = ReferenceAttack(attack.name, key, cost)
            stage = Stage(attack.name, key, work, cost, exactly=size)
            blocks = blocks_of(finished, key)
            for block in executor.do(task, [stage], rows, finished, report):
                yield block
                blocks.append(block)
            rows = standing(task, rows, stage, blocks)


@dataclass(frozen=True, eq=False)
class GradientOf(Setup):
    """Whether a candidate has a gradient."""

    preparation: Preparation

    @property
    def key(self) -> Hashable:
        """The samples on which it is tried."""
        return "gradient", self.preparation.key

    def make(self, worker: Worker) -> bool:
        """Try."""
        samples = self.preparation.samples
        task = replace(
            worker.task, images=samples.images, labels=samples.labels, indices=samples.indices
        )
        return is_differentiable(task.module, task)


@dataclass(frozen=True)
class ReferenceAttack(AttackWork):
    """One of pyautoattack's attacks on one batch.

    Attributes:
        attack: its name.
        key: the name of its block.
        cost: of a sample, in forward passes.
    """

    attack: str
    key: str
    cost: float

    def blocks(self, worker: Worker, task: AttackTask, report: Report) -> Iterator[AttackBlock]:
        """Attack all samples as one batch: the draws belong to it."""
        rows = torch.arange(len(task.labels))
        block = _within_memory(task, self.attack, rows, self.key)
        yield block
        report(Doing(len(rows), len(self.lost(block)), len(rows) * self.cost))


def _within_memory(task: AttackTask, attack: str, rows: Tensor, key: str) -> AttackBlock:
    """Run `attack_batch`; its batch cannot be halved, since its draws belong to its size."""
    try:
        return attack_batch(task, attack, rows, key)
    except Exception as error:  # third-party code may wrap the error in any other
        if not is_out_of_memory(error):
            raise
        raise EvaluationError(
            f"out of memory in {attack} with batches of {task.batch_size}, to which the reference "
            "engine's results belong; use a smaller --batch-size, or --engine fast"
        ) from error


def attack_batch(task: AttackTask, attack: str, rows: Tensor, key: str) -> AttackBlock:
    """Run one of pyautoattack's attacks on one batch.

    Args:
        attack: its name in pyautoattack.
        rows: (n,) places of the samples within the task.
        key: of the block that is returned.
    """
    start = time.perf_counter()
    images, labels, threat = task.images[rows], task.labels[rows], task.threat_model
    clean = images.to(task.device)
    watched = WatchedModule(task.module, clean, threat.norm, threat.eps)
    with _isolated(), tensor_cores(False):
        adversary = make_adversary(watched, task)
        adversarial = perturb(adversary, attack, clean, labels.to(task.device), task.seed)
    # A pass with a gradient counts once, as forward-backward.
    counts = watched.forward_images - watched.backward_images, watched.backward_images
    found = adversarial.detach().float()
    prediction, broken = _confirmed(task, found, images, labels)
    # pyautoattack does not see a success in an image without an answer of a sample of class 0.
    missed = [row for row in watched.unanswered if not broken[row]]
    if missed:
        found[missed] = torch.stack([watched.unanswered[row] for row in missed]).float()
        prediction[missed], broken[missed] = _confirmed(
            task, found[missed], images[missed], labels[missed]
        )
    found = found.cpu()
    seconds = time.perf_counter() - start
    n = len(rows)
    index = task.indices[rows].numpy()
    attempts = Attempts(
        index=index,
        attack=np.full(n, attack),
        outcome=np.where(broken.numpy(), "broken", "survived"),
        iteration=np.full(n, -1),
        forward_passes=np.full(n, counts[0] / n),
        backward_passes=np.full(n, counts[1] / n),
        seconds=np.full(n, seconds / n),
    )
    witnesses = None
    if broken.any():
        witnesses = Witnesses(
            index=index[broken.numpy()],
            attack=np.full(int(broken.sum()), attack),
            prediction=prediction[broken].numpy(),
            images=found[broken].numpy(),
        )
    return AttackBlock(key=key, seconds=seconds, attempts=attempts, witnesses=witnesses)


def _confirmed(
    task: AttackTask, found: Tensor, clean: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the classes (n,) of images found (n, C, H, W), and which (n,) break their samples."""
    prediction = confirm(task, found, labels).cpu()
    good = inside(found.cpu(), clean, task.threat_model.norm, task.threat_model.eps)
    return prediction, (prediction != labels) & good


def make_adversary(module: nn.Module, task: AttackTask) -> Any:
    """Return pyautoattack's own object, version standard, with targets as classes allow."""
    from pyautoattack import AutoAttack

    adversary = AutoAttack(
        module,
        norm=task.threat_model.norm,
        eps=task.threat_model.eps,
        seed=task.seed,
        version="standard",
        device=task.device,
    )
    for targeted in (adversary.apgd_targeted, adversary.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, task.classes - 1)
    return adversary


def perturb(adversary: Any, attack: str, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Call one attack as pyautoattack's `run_standard_evaluation` does.

    Args:
        images: (n, C, H, W) in [0, 1].
        labels: (n,).

    Returns:
        adversarial images (n, C, H, W); the clean image where the attack found none.
    """
    chosen = {
        "apgd-ce": adversary.apgd,
        "apgd-t": adversary.apgd_targeted,
        "fab-t": adversary.fab,
        "square": adversary.square,
    }[attack]
    chosen.seed = seed
    if attack == "apgd-ce":
        chosen.loss = "ce"
    if attack == "fab-t":
        chosen.targeted = True
    with torch.no_grad():
        adversarial: Tensor = chosen.perturb(images.clone(), labels.clone())
    return adversarial


def _check(task: AttackTask) -> None:
    for attack in task.attacks:
        if attack.name not in STANDARD or attack.parameters:
            changed = f" with {attack.parameters}" if attack.parameters else ""
            raise InputError(
                f"the reference engine runs {', '.join(STANDARD)} as pyautoattack has them; "
                f"got {attack.name}{changed}"
            )
    if task.classes < MINIMUM_CLASSES:
        raise InputError(
            f"the reference engine needs at least {MINIMUM_CLASSES} classes, since the targeted "
            f"DLR loss is not defined for fewer; the data set has {task.classes}"
        )


@contextlib.contextmanager
def _isolated() -> Iterator[None]:
    """Keep the caller's random state and log: pyautoattack seeds globally and logs warnings.

    `bench.flags` measures and records what it warns of (zero gradients, randomness).
    """
    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logger.setLevel(level)
