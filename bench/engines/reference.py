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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks import inside, tolerance
from bench.attacks.attack import finite
from bench.attacks.registry import STANDARD
from bench.decision import answered
from bench.engines.differentiability import is_differentiable
from bench.engines.engine import (
    AttackTask,
    Outlook,
    batches,
    broken_rows,
    plan,
    survivor_costs,
)
from bench.engines.prediction import clean_results, confirm
from bench.engines.progress import Progress
from bench.errors import EvaluationError, InputError
from bench.memory.out_of_memory import is_out_of_memory
from bench.precision import tensor_cores
from bench.store.records import AttackBlock, Attempts, Witnesses
from bench.suites.suite import AttackChoice

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
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, then attack by attack what still stands.

        Raises:
            InputError: an attack that standard AutoAttack does not have or one with changed
                parameters, fewer than four classes, or more than standard AutoAttack.
            EvaluationError: an attack needs a gradient, and the candidate has none.
        """
        _check(task)
        standing = torch.ones(len(task.labels), dtype=torch.bool)
        for number, rows in enumerate(batches(torch.arange(len(task.labels)), task.batch_size)):
            key = f"00-clean-{number:05d}"
            block = finished.get(key)
            if block is None:
                start = time.perf_counter()
                clean = clean_results(task, rows)
                block = AttackBlock(key=key, seconds=time.perf_counter() - start, clean=clean)
                yield block
            assert block.clean is not None
            standing[rows] = torch.from_numpy(block.clean.prediction == block.clean.label)
            done = int(rows[-1]) + 1
            report(Progress("clean", done, len(standing), int(standing[:done].sum()), done))
        if bool(standing.any()):
            _check_gradient(task)
        outlook = Outlook(survivor_costs(task))
        for stage, attack in enumerate(task.attacks):
            yield from self._attack(task, attack, stage, standing, finished, report, outlook)

    def _attack(
        self,
        task: AttackTask,
        attack: AttackChoice,
        stage: int,
        standing: Tensor,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        outlook: Outlook,
    ) -> Iterator[AttackBlock]:
        """Run one attack on all that stand; `standing` (N,) is updated as samples break."""
        attacked = torch.nonzero(standing).flatten()
        done = 0
        for number, rows in enumerate(batches(attacked, task.batch_size)):
            left = outlook.seconds_left(stage, len(attacked) - done, int(standing.sum()))
            report(
                Progress(attack.name, done, len(attacked), int(standing.sum()), len(standing), left)
            )
            key = f"{stage + 1:02d}-{attack.name}-{number:05d}"
            block = finished.get(key)
            if block is None:
                block = _within_memory(task, attack.name, rows, key)
                outlook.add(len(rows) * outlook.costs[stage], block.seconds)
                yield block
            standing[broken_rows(task, block)] = False
            done += len(rows)
        report(Progress(attack.name, done, len(attacked), int(standing.sum()), len(standing)))


def _check_gradient(task: AttackTask) -> None:
    """Refuse candidates without a gradient, on which pyautoattack fails in the middle of a run."""
    needing = [attack.name for attack in task.attacks if plan(task, attack).needs_gradient]
    if needing and not is_differentiable(task.module, task):
        raise EvaluationError(
            f"expected logits with a gradient, which pyautoattack's {', '.join(needing)} need; "
            "got logits without. Use --engine fast, which leaves such attacks out and says so"
        )


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
