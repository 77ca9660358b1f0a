"""Robust accuracy during a training: old witnesses first, then a short attack on what survives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from bench.api.attack_inputs import Samples, classes_of_model
from bench.attacks import inside
from bench.attacks.attack import Passes, misclassified
from bench.errors import EvaluationError, InputError
from bench.memory.out_of_memory import with_as_many_as_fit
from bench.monitor.result import MonitorResult
from bench.monitor.short_attack import Fallen, ShortAttack
from bench.monitor.subset import Subset, subset_in_hand, subset_of_suite
from bench.monitor.untouched import Logits, untouched
from bench.statistics import Interval, interval_at_look
from bench.suites.suite import Suite, ThreatModel
from bench.validation.seeds import check_seed

N_EXAMPLES = 256
"""Images by default: at most 2% of an epoch of CIFAR-10 (see `benchmarks/monitor.py`)."""
STEPS = 10

_RIGHT, _NEW, _OLD, _WRONG = range(4)
"""What became of a sample: it survived, fell to the attack or to an old witness, or was wrong."""


class RobustnessMonitor:
    """Measures a network's robust accuracy on the same few images again and again.

        monitor = bench.RobustnessMonitor("cifar10-linf")
        for epoch in range(epochs):
            train(model)
            if result := monitor(model, epoch=epoch):
                print(result)

    Each time, the clean images are classified; then the adversarial image that each sample last
    fell to (one pass each); then `ShortAttack` attacks what survives. Images that fooled the last
    checkpoint often fool this one, and cost little to try.

    **What the interval is valid for.** Suppose the images are independent draws from a population
    (such as a random part of a test set), and the training depends on them in no way but in when it
    stops and which checkpoint is kept. Then, with probability 95% over the draw of the images, the
    intervals of all measurements hold at once, however many there are: each holds the share of the
    population that its checkpoint classifies correctly and that survives old witnesses and this
    attack. So one may stop early, or keep the best checkpoint, and read its interval. The price is
    that intervals widen slowly, from look to look (`bench.statistics.interval_at_look`).

    The interval is about the draw of the images, not about the attack. A longer attack finds more,
    so the true robust accuracy is at most what is measured: `high` bounds it, `low` does not. Where
    the learning rate, the data or anything else follows the monitor's numbers, or where it is
    measured on training images, nothing is guaranteed. Evaluate the final model with
    `bench.evaluate`, on other images if you can.

    A measurement leaves the model and the process as they were: layers' modes, buffers and
    batch-norm statistics, gradients, random generators, autocast, gradient and inference mode.
    """

    def __init__(
        self,
        suite: Suite | str | None = None,
        *,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        threat_model: ThreatModel | None = None,
        every: int = 1,
        n_examples: int | None = None,
        steps: int = STEPS,
        confidence: float = 0.95,
        seed: int = 0,
        batch_size: int | None = None,
        data_dir: str | Path | None = None,
    ) -> None:
        """Choose the images.

        Args:
            suite: whose test samples and threat model are taken: itself, its name or its file.
            images: instead of a suite: (N, C, H, W) floating-point in [0, 1].
            labels: (N,) integers.
            threat_model: such as `bench.Linf(8 / 255)`.
            every: measure at every so many calls, the last of them; the others return None.
            n_examples: how many images are drawn, once; None: 256, or all where there are fewer.
            steps: gradient steps of each of the attack's two searches.
            confidence: of all intervals together, in (0, 1).
            seed: of the choice of images, and of the attack.
            batch_size: images in one pass; None: all, or as many as fit into memory.
            data_dir: the folder of the data sets' files; None: the usual one.

        Raises:
            InputError: an argument is missing, of the wrong form or out of its range.
        """
        if every < 1:
            raise InputError(f"every: expected at least 1, got {every}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {batch_size}")
        if not 0 < confidence < 1:
            raise InputError(f"confidence: expected a number in (0, 1), got {confidence}")
        check_seed(seed)
        # Tensors that are made in a caller's inference mode never have gradients.
        with torch.inference_mode(False):
            subset = _chosen(suite, images, labels, threat_model, n_examples, seed, data_dir)
        self.every = every
        self.confidence = confidence
        self._subset = subset
        self._steps = steps
        self._attack = ShortAttack(subset.threat_model, steps, seed)
        self._batch_size = batch_size or len(subset.indices)
        self._calls = 0
        self._history: list[dict[str, Any]] = []
        self._witnesses: dict[int, Tensor] = {}

    @property
    def indices(self) -> list[int]:
        """The images' places in the data set that they were drawn from, ascending."""
        return [int(index) for index in self._subset.indices]

    def __repr__(self) -> str:
        """Return what is measured how, and what the last measurement found."""
        ball, done = self._subset.threat_model, len(self._history)
        last = self._history[-1] if self._history else None
        found = f", the last one robust {last['robust']:.1%}" if last else ""
        return (
            f"<RobustnessMonitor: {len(self._subset.indices):,} images, "
            f"{ball.norm}, eps = {ball.eps:.4g}, {self._steps} steps, every "
            f"{self.every}; {done} measurement{'' if done == 1 else 's'}{found}>"
        )

    def __call__(self, model: Logits, epoch: int | None = None) -> MonitorResult | None:
        """Count a call, and measure if it is one of `every`; see `measure`.

        Returns:
            What was found; None where this call's turn is not to measure.
        """
        self._calls += 1
        if self._calls % self.every:
            return None
        return self.measure(model, self._calls - 1 if epoch is None else epoch)

    def measure(self, model: Logits, epoch: int | None = None) -> MonitorResult:
        """Measure a model now.

        Args:
            model: images (n, C, H, W) in [0, 1] to logits (n, K): a module, or a function of them
                such as `lambda images: network((images - mean) / deviation)`. It is put into
                evaluation mode for the time of the measurement.
            epoch: a number for the history; None: how many measurements there were.

        Raises:
            InputError: the model fails, returns no logits, or does not know a label.
            EvaluationError: the logits have no gradient.
        """
        start = time.perf_counter()
        samples = self._subset.samples
        with untouched(model, samples.images) as (module, device):
            if not self._history:
                _check(module, samples, device)
            outcome, witnesses, passes = with_as_many_as_fit(
                self._batch_size, lambda size: self._measured(module, device, size)
            )
        self._witnesses |= witnesses
        count = len(outcome)
        standing = int((outcome == _RIGHT).sum())
        result = MonitorResult(
            epoch=len(self._history) if epoch is None else epoch,
            clean=float((outcome != _WRONG).mean()),
            robust=standing / count,
            interval=self._interval(standing, count),
            n_examples=count,
            seconds=time.perf_counter() - start,
            passes=passes,
            old_witnesses=int((outcome == _OLD).sum()),
            new_witnesses=int((outcome == _NEW).sum()),
        )
        self._history.append(result.plain())
        return result

    def history(self) -> pd.DataFrame:
        """Return all measurements, one a row, in their order."""
        return pd.DataFrame(self._history)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: tensors and plain data only.

        `torch.load(..., weights_only=True)` reads it back.
        """
        rows = sorted(self._witnesses)
        shape = self._subset.samples.images.shape[1:]
        images = [self._witnesses[row] for row in rows]
        return {
            "subset": self._subset.sha256,
            "calls": self._calls,
            "history": [dict(row) for row in self._history],
            "witness_rows": rows,
            "witnesses": torch.stack(images) if images else torch.empty(0, *shape),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: it belongs to other images or another threat model, or is no such state.
        """
        try:
            subset, calls = state["subset"], int(state["calls"])
            history = [dict(row) for row in state["history"]]
            rows, images = [int(row) for row in state["witness_rows"]], state["witnesses"]
            witnesses = dict(zip(rows, images.to("cpu", torch.float32).unbind(), strict=True))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"expected what `RobustnessMonitor.state_dict` returned, got {error!r}"
            ) from error
        if subset != self._subset.sha256:
            raise InputError(
                "expected the state of a monitor with the same images and threat model, got "
                "another; make it with the same suite, n_examples and seed"
            )
        self._check_witnesses(witnesses)
        self._calls, self._history, self._witnesses = calls, history, witnesses

    def _check_witnesses(self, witnesses: Mapping[int, Tensor]) -> None:
        """Refuse images that could not break their samples: a damaged state would count them."""
        clean, threat = self._subset.samples.images, self._subset.threat_model
        for row, image in witnesses.items():
            fits = 0 <= row < len(clean) and image.shape == clean.shape[1:]
            original = clean[row : row + 1].cpu()
            if not (fits and bool(inside(image[None], original, threat.norm, threat.eps).all())):
                raise InputError(
                    f"expected a witness inside the ball of its image, got another for row {row}: "
                    "the state is damaged; begin a new monitor"
                )

    def _interval(self, standing: int, count: int) -> Interval:
        return interval_at_look(standing, count, len(self._history) + 1, self.confidence)

    def _measured(
        self, module: nn.Module, device: torch.device, size: int
    ) -> tuple[npt.NDArray[np.int64], dict[int, Tensor], Passes]:
        """Return what became of each sample, new witnesses by row, and the passes."""
        outcomes, witnesses, passes = [], {}, Passes(0, 0)
        for rows in torch.split(torch.arange(len(self._subset.indices)), size):
            outcome, fallen = self._batch(module, device, rows)
            outcomes.append(outcome)
            new = outcome == _NEW
            for row, image in zip(rows[new].tolist(), fallen.images[new].unbind(), strict=True):
                witnesses[row] = image.clone()
            passes = _sum(passes, fallen.passes)
        return torch.cat(outcomes).numpy(), witnesses, passes

    def _batch(
        self, module: nn.Module, device: torch.device, rows: Tensor
    ) -> tuple[Tensor, Fallen]:
        """Return what became of some rows (n,), on the CPU, with their images after the attack."""
        images = self._subset.samples.images[rows].to(device)
        labels = self._subset.samples.labels[rows].to(device)
        outcome = torch.full_like(labels, _RIGHT)
        outcome[misclassified(module(images), labels)] = _WRONG
        right = outcome == _RIGHT
        known = [
            at for at in right.nonzero().flatten().tolist() if int(rows[at]) in self._witnesses
        ]
        if known:
            tried = torch.stack([self._witnesses[int(rows[at])] for at in known]).to(device)
            fell = misclassified(module(tried), labels[known])
            outcome[torch.tensor(known, device=device)[fell]] = _OLD
        passes = Passes(len(rows) + len(known), 0)
        standing = (outcome == _RIGHT).nonzero().flatten()
        attacked = images.clone()
        if len(standing):
            indices = self._subset.indices[rows].to(device)
            done = self._attack(module, images[standing], labels[standing], indices[standing])
            attacked[standing] = done.images
            outcome[standing[done.broken]] = _NEW
            passes = _sum(passes, done.passes)
        attacked = attacked.cpu()
        outcome = outcome.cpu()
        return outcome, Fallen(attacked, outcome == _NEW, passes)


def _chosen(
    suite: Suite | str | None,
    images: Tensor | None,
    labels: Tensor | None,
    threat_model: ThreatModel | None,
    n_examples: int | None,
    seed: int,
    data_dir: str | Path | None,
) -> Subset:
    """Return the images to measure on; see `RobustnessMonitor.__init__`."""
    if suite is None:
        return subset_in_hand(images, labels, threat_model, n_examples, N_EXAMPLES, seed)
    if any(each is not None for each in (images, labels, threat_model)):
        raise InputError("expected a suite, or images, labels and threat_model; got both")
    folder = None if data_dir is None else Path(data_dir)
    return subset_of_suite(suite, n_examples, N_EXAMPLES, seed, folder)


def _check(module: nn.Module, samples: Samples, device: torch.device) -> None:
    """Refuse a model that cannot be measured.

    Raises:
        InputError: it fails, returns no logits, or does not know a label.
        EvaluationError: its logits have no gradient.
    """
    classes_of_model(module, samples, device)
    image = samples.images[:1].to(device).requires_grad_()
    with torch.enable_grad():
        if not module(image).requires_grad:
            raise EvaluationError(
                "expected logits with a gradient, which the attack needs; got logits without. "
                "Return the network's own output, without detach() or no_grad()"
            )


def _sum(one: Passes, other: Passes) -> Passes:
    return Passes(one.forward + other.forward, one.forward_backward + other.forward_backward)
