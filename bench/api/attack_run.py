"""Attacks on images in memory: handed to the fast engine as a task, its blocks joined to images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor

from bench.api.attack_inputs import (
    TRIED_IMAGES,
    attackable,
    changes_from_call_to_call,
    check_samples,
    classes_of_model,
    device_of,
)
from bench.attacks.attack import Model
from bench.engines import make_engine
from bench.engines.engine import AttackTask, plan
from bench.errors import EvaluationError, InputError
from bench.executors.choice import ExecutorChoice, executing
from bench.executors.progress import Progress
from bench.store.records import FAILED, AttackBlock
from bench.suites.suite import AttackChoice, ThreatModel
from bench.validation import explain

RANDOMIZED = (
    "the model's logits change from call to call: what counts is the class of the mean over many "
    "calls. Attack it with version='rand' of bench.autoattack.AutoAttack, whose attacks know that"
)
_NO_GRADIENT = "skipped"


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """What is done to a model.

    Attributes:
        norm: of the ball: Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        attacks: in their order, each on what survives the earlier ones.
        seed: of all random draws, in [0, 2^64).
        batch_size: images in one pass; None: what fills the device.
        randomized: whether the model's logits change from call to call; None: it is tried.
        device: where the model is; None: it is asked.
    """

    norm: str
    eps: float
    attacks: tuple[AttackChoice, ...]
    seed: int = 0
    batch_size: int | None = None
    randomized: bool | None = None
    device: torch.device | str | None = None


@dataclass(frozen=True)
class Attacked:
    """What attacks made of samples.

    Attributes:
        images: (N, C, H, W): adversarial where an attack succeeded, else the clean ones.
        predictions: (N,) int64 on the CPU, the model's classes of `images`; -1: none, since the
            logits are not finite.
        robust: (N,) bool on the CPU: right, and no attack succeeded.
        skipped: attacks that were left out because the model has no gradient.
    """

    images: Tensor
    predictions: Tensor
    robust: Tensor
    skipped: tuple[str, ...]


@contextlib.contextmanager
def attack_task(
    model: Model, images: Tensor, labels: Tensor, settings: AttackSettings
) -> Iterator[AttackTask]:
    """Check a model, samples and settings, and give them as the engine's task.

    The model is in evaluation mode in this context, and afterwards as it was before.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K), on a device of its own.
        images: (N, C, H, W) floating-point, in [0, 1].
        labels: (N,) integers in [0, K).
        settings: what is done.

    Raises:
        InputError: something does not fit, or is out of its range.
    """
    threat_model = _threat_model(settings)
    _check_numbers(settings)
    samples = check_samples(images, labels)
    device = device_of(model, images, settings.device)
    with attackable(model, device) as module:
        classes = classes_of_model(module, samples, device)
        randomized = settings.randomized
        if randomized is None:
            randomized = changes_from_call_to_call(module, samples, device)
            if randomized:
                warnings.warn(RANDOMIZED, stacklevel=5)
        size = settings.batch_size or make_engine("fast", device=device).default_batch_size(
            module, samples.images[:TRIED_IMAGES].to(device)
        )
        task = AttackTask(
            module=module,
            images=samples.images,
            labels=samples.labels,
            indices=torch.arange(len(samples.labels)),
            classes=classes,
            threat_model=threat_model,
            seed=settings.seed,
            batch_size=size,
            device=device,
            randomized=randomized,
            attacks=settings.attacks,
        )
        _check_attacks(task)
        yield task


def run_attacks(
    task: AttackTask,
    finished: Mapping[str, AttackBlock] | None = None,
    on_block: Callable[[AttackBlock], None] | None = None,
) -> dict[str, AttackBlock]:
    """Run a task's attacks by the fast engine, and return all blocks by key.

    Args:
        task: of `attack_task`.
        finished: blocks of an earlier, interrupted run; they are not done again.
        on_block: told each new block as soon as it is there.
    """
    blocks = dict(finished or {})
    engine = make_engine("fast", device=task.device)
    with executing(ExecutorChoice()) as executor:
        for block in engine.run(task, dict(blocks), _unreported, executor):
            assert isinstance(block, AttackBlock)
            blocks[block.key] = block
            if on_block is not None:
                on_block(block)
    return blocks


def joined(images: Tensor, task: AttackTask, blocks: Mapping[str, AttackBlock]) -> Attacked:
    """Return what a task's blocks made of the images as the caller gave them.

    Args:
        images: (N, C, H, W) on any device. Those of half precision come back in float32: rounding
            would take adversarial images out of the ball.
        task: that was made of them.
        blocks: of `run_attacks`.

    Raises:
        EvaluationError: the model raised an error on a sample.
    """
    found = images.detach().clone()
    if found.dtype in (torch.float16, torch.bfloat16):
        found = found.float()
    predictions = torch.full_like(task.labels, -1)
    robust = torch.zeros_like(task.labels, dtype=torch.bool)
    skipped: dict[str, None] = {}
    for block in blocks.values():
        if block.clean is not None:
            rows = torch.from_numpy(block.clean.index)
            predictions[rows] = torch.from_numpy(block.clean.prediction)
            robust[rows] = predictions[rows] == task.labels[rows]
    for block in blocks.values():
        if block.witnesses is not None:
            rows = torch.from_numpy(block.witnesses.index)
            adversarial = torch.from_numpy(block.witnesses.images)
            found[rows.to(found.device)] = adversarial.to(found.device, found.dtype)
            predictions[rows] = torch.from_numpy(block.witnesses.prediction)
            robust[rows] = False
        if block.attempts is not None:
            left_out = block.attempts.outcome == _NO_GRADIENT
            skipped |= dict.fromkeys(block.attempts.attack[left_out].tolist())
            _refuse_failures(block)
    return Attacked(found, predictions, robust, tuple(skipped))


def _refuse_failures(block: AttackBlock) -> None:
    """Refuse samples on which the model raised an error: a caller would take them for robust."""
    assert block.attempts is not None
    failed = block.attempts.index[block.attempts.outcome == FAILED].tolist()
    if failed:
        texts = [str(text) for name, text in block.record.items() if name.startswith("failed on")]
        raise EvaluationError(f"the model raised an error on sample {failed[0]}: {texts[0]}")


def _threat_model(settings: AttackSettings) -> ThreatModel:
    try:
        return ThreatModel(norm=settings.norm, eps=settings.eps)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InputError("; ".join(explain(ThreatModel, error))) from error


def _check_numbers(settings: AttackSettings) -> None:
    seed, size = settings.seed, settings.batch_size
    if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise InputError(f"expected a seed as a whole number in [0, 2^64), got {seed!r}")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise InputError(f"expected a batch size >= 1, got {size!r}")
    if not settings.attacks:
        raise InputError("expected at least one attack, got none")


def _check_attacks(task: AttackTask) -> None:
    """Refuse attacks that do not exist, or not for such images, before any of them runs."""
    height = task.images.shape[2]
    for choice in task.attacks:
        least = plan(task, choice).attack.least_height
        if height < least:
            raise InputError(
                f"attack {choice.name} in {task.threat_model.norm}: expected images of at least "
                f"{least} rows, got {height}; leave it out, or enlarge the images"
            )


def _unreported(_: Progress) -> None:
    """Tell nobody."""
