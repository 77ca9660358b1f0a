"""The smallest perturbation that is known to fool a candidate, for each sample that it is right on.

It comes after all attacks of a run, on broken samples and on those that stand. What broke a sample
is shrunk along the line to the clean image; then the fast minimum-norm attack searches from the
clean image, untargeted and towards a few classes, and from that shrunk image. The nearest image
that the candidate's own module misclassifies in float32, as it is stored, counts. A sample that
stood everything before and has one inside its ball is broken by it, with that image as its witness.

Nothing is drawn, and no sample's result depends on another's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.attacks import ATTACKS, FMN, Model, inside, least_radii, likeliest_wrong_classes
from bench.attacks.distances import Norm, per_image
from bench.attacks.expectation import DRAWS
from bench.attacks.image_gradient import GradientError
from bench.engines.acceleration import Accelerated
from bench.engines.attack_works import Preparation, Prepared, preparation, unit_seconds
from bench.engines.differentiability import is_differentiable
from bench.engines.engine import (
    GRADIENT_COST,
    AttackTask,
    batches,
    failure_record,
    without_samples,
)
from bench.engines.prediction import Purpose, confirm, deciding_passes, own_randomness
from bench.engines.views import view
from bench.executors.progress import Progress, counting_others
from bench.executors.stage import Doing, Executor, Report, Stage, Work, Worker
from bench.precision import tensor_cores
from bench.store.records import FAILED, AttackBlock, Attempts, IntArray, Smallest, Witnesses

EPS_CURVE = "eps-curve"
"""Its name in manifests, and its blocks' in a run."""
ATTACK = "fmn-smallest"
"""The attack that what it finds counts as."""
STEPS = 100
TARGETS = 3
"""How many of the likeliest wrong classes are aimed for, each by one search of so many steps."""
BISECTIONS = 12
"""Halvings of the line from the clean image to the nearest adversarial one."""
PUSHES = (1.0, 1.002, 1.01, 1.05, 1.2)
"""Multiples of a perturbation that are tried until the candidate's own module confirms one: a
search in lower precision, or on the mean of a few draws, may end on the right side of the boundary.
"""
MOST_TRIED = 128
"""Images that are confirmed in one pass."""

_PREFIX = f"99-{EPS_CURVE}"
_STAGE = 98
"""Number of the stage in the key of a randomized candidate's draws."""


def curve_settings() -> dict[str, int]:
    """Return what decides the search's result, for the manifest."""
    return {"steps": STEPS, "targets": TARGETS, "bisections": BISECTIONS}


def curve_cost(task: AttackTask) -> tuple[int, int]:
    """Return the forward passes and the gradients of the search on one sample, at most."""
    searches = 2 + min(TARGETS, task.classes - 1)
    return 2 * (BISECTIONS + len(PUSHES) * searches), searches * STEPS


def find_smallest(
    task: AttackTask,
    precision: str,
    blocks: Sequence[AttackBlock],
    finished: Mapping[str, AttackBlock],
    report: Callable[[Progress], None],
    executor: Executor,
) -> Iterator[AttackBlock]:
    """Search on all samples that are right without attack; yield what is new, block by block.

    Args:
        task: all samples.
        precision: of the search; what it finds is confirmed in float32.
        blocks: all of the run so far, those of an interrupted search too.
        finished: blocks of an earlier, interrupted run by key.
        report: told how far the work is.
        executor: does the work.
    """
    right, witnesses = _outcomes(task, blocks)
    rows = right.nonzero().flatten()
    if not len(rows):
        if f"{_PREFIX}-00000" not in finished:  # the record that there is nothing to search on
            search = _Search(task, rows, None, precision)
            yield search.block(f"{_PREFIX}-00000", (), time.perf_counter())
        return
    setup = preparation(task, rows, precision, needs_gradient=False)
    unit = float(executor.ask(without_samples(task), setup, unit_seconds))
    forward, gradients = curve_cost(task)
    cost = forward + GRADIENT_COST * gradients
    stage = Stage(
        EPS_CURVE,
        _PREFIX,
        SmallestWork(setup, witnesses),
        cost,
        setup,
        exactly=0 if task.randomized else None,
    )
    expected = len(rows) * cost * unit
    report = counting_others(report, -len(witnesses))
    yield from executor.do(task, [stage], rows, finished, report, expected)


@dataclass(frozen=True, eq=False)
class SmallestWork(Work):
    """The search for the smallest perturbations.

    Attributes:
        setup: of the candidate.
        witnesses: what broke samples: attack, prediction and image (C, H, W), by index.
    """

    setup: Preparation
    witnesses: Mapping[int, tuple[str, int, Tensor]]

    def blocks(self, worker: Worker, task: AttackTask, report: Report) -> Iterator[AttackBlock]:
        """Yield a block for each batch."""
        prepared: Prepared = worker.prepared(self.setup)
        model = _model(prepared.fast, task)
        forward, gradients = curve_cost(task)
        at_once = worker.images_at_once(EPS_CURVE, prepared.sizes[""])
        rows = torch.arange(len(task.labels))
        done = broken = 0
        while done < len(rows):
            part, blocks = rows[done : done + at_once.size], []
            with at_once.halving():
                blocks = [self._searched(task, part, model)]
            for block in blocks:
                yield block
                done += len(part)
                broken += 0 if block.witnesses is None else len(block.witnesses.index)
                report(Doing(done, broken, done * (forward + GRADIENT_COST * gradients)))

    def _searched(self, task: AttackTask, part: Tensor, model: Model | None) -> AttackBlock:
        """Return the block of a batch."""
        start = time.perf_counter()
        search = _Search(task, part, model, self.setup.precision)
        search.begin_with(self.witnesses)
        search.shrink()
        if model is not None:
            for points, targets in search.starts():
                search.follow(points, targets)
            search.shrink()
        return search.block(_PREFIX, self.witnesses, start)

    def failed(self, task: AttackTask, problem: str) -> AttackBlock:
        """Return the record of a sample of which no perturbation is known."""
        index = task.indices.numpy()
        stood = np.array([each not in self.witnesses for each in index.tolist()])
        nothing = np.zeros(1)
        spent = dict.fromkeys(("forward_passes", "backward_passes", "seconds"), nothing)
        return AttackBlock(
            key=_PREFIX,
            seconds=0.0,
            attempts=Attempts(
                index=index[stood],
                attack=np.full(int(stood.sum()), ATTACK),
                outcome=np.full(int(stood.sum()), FAILED),
                iteration=np.full(int(stood.sum()), -1),
                **{name: values[stood] for name, values in spent.items()},
            ),
            smallest=Smallest(
                index=index, radius=np.full(1, np.inf), attack=np.array([""]), **spent
            ),
            record=failure_record(index, problem),
        )

    def settled(self, block: AttackBlock) -> IntArray:
        """Return the samples that were searched on."""
        assert block.smallest is not None
        return block.smallest.index

    def of(self, indices: IntArray) -> SmallestWork:
        """Return the work with the witnesses of these samples."""
        known = {
            index: self.witnesses[index] for index in indices.tolist() if index in self.witnesses
        }
        return replace(self, witnesses=known)


def _outcomes(
    task: AttackTask, blocks: Sequence[AttackBlock]
) -> tuple[Tensor, dict[int, tuple[str, int, Tensor]]]:
    """Return which samples (N,) are right without attack, and first witnesses by index."""
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    right = torch.zeros(len(task.labels), dtype=torch.bool)
    first: dict[int, tuple[str, int, Tensor]] = {}
    for block in blocks:
        if block.clean is not None:
            rows = torch.tensor([place[index] for index in block.clean.index.tolist()])
            right[rows] = torch.from_numpy(block.clean.prediction == block.clean.label)
        if block.witnesses is None or block.smallest is not None:
            continue
        found = block.witnesses
        for at, index in enumerate(found.index.tolist()):
            if index not in first:
                image = torch.from_numpy(found.images[at])
                first[index] = (str(found.attack[at]), int(found.prediction[at]), image)
    return right, first


def _model(fast: Accelerated, task: AttackTask) -> Model | None:
    """Return what the search follows the gradient of; None: there is no gradient.

    The mean over a randomized candidate's draws; where gradients stop, and the run has attacks that
    know it, a stand-in's gradient; else the logits.
    """
    if task.randomized:
        return view("expectation", fast, task) if _has_gradient(fast, task) else None
    needs = {ATTACKS[choice.name].need for choice in task.attacks if choice.name in ATTACKS}
    if task.surrogate is not None or "stopped gradient" in needs:
        return view("straight-through", fast, task)
    return fast.model if _has_gradient(fast, task) else None


def _has_gradient(fast: Accelerated, task: AttackTask) -> bool:
    try:
        return is_differentiable(fast.model, task)
    except GradientError:
        return False


class _Search:
    """The search on a batch of samples, and the nearest adversarial images so far.

    Attributes:
        rows: (n,) of the task.
        clean, labels: of those rows, on the CPU.
        images: (n, C, H, W) float32; the clean image where none is known.
        radius: (n,) float64, see `least_radii`; infinite where none is known.
        prediction: (n,) int64, the classes of the images.
        attack: (n,) the names of the attacks that found them; empty where none is known.
        forward, gradients: (n,) passes so far.
    """

    def __init__(self, task: AttackTask, rows: Tensor, model: Model | None, precision: str) -> None:
        self.task = task
        self.rows = rows
        self.model = model
        self.precision = precision
        self.clean, self.labels = task.images[rows], task.labels[rows]
        self.images = self.clean.clone()
        self.radius = torch.full((len(rows),), torch.inf, dtype=torch.float64)
        self.prediction = self.labels.clone()
        self.attack = [""] * len(rows)
        self.forward = torch.zeros(len(rows), dtype=torch.float64)
        self.gradients = torch.zeros(len(rows), dtype=torch.float64)

    def begin_with(self, witnesses: Mapping[int, tuple[str, int, Tensor]]) -> None:
        """Take what the run's attacks found, which was confirmed then."""
        for place, index in enumerate(self.task.indices[self.rows].tolist()):
            if index in witnesses:
                attack, prediction, image = witnesses[index]
                self._keep(torch.tensor([place]), image[None], torch.tensor([prediction]), attack)

    def starts(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield where searches start (n, C, H, W), and the classes (n,) that they aim for."""
        images = self.clean.to(self.task.device, copy=True)  # a candidate may change its input
        with (
            torch.no_grad(),
            tensor_cores(False),
            own_randomness(self.task, Purpose.SEARCH, _STAGE, 0),
        ):
            logits = self.task.module(images).float().cpu()
        self.forward += 1
        yield self.clean, None
        for targets in likeliest_wrong_classes(logits, self.labels, TARGETS).unbind(dim=1):
            yield self.clean, targets
        yield self.images, None

    def follow(self, points: Tensor, targets: Tensor | None) -> None:
        """Search from points, and keep what is confirmed and nearer than what is known."""
        device, threat = self.task.device, self.task.threat_model
        assert self.model is not None
        # Where no image is known there is nothing to start from but the clean image again.
        is_new = targets is not None or points is self.clean
        chosen = torch.arange(len(self.rows)) if is_new else self._known()
        if not len(chosen):
            return
        attack = FMN(
            threat.norm, threat.eps, targeted=targets is not None, steps=STEPS, minimal=True
        )
        state = attack.start_at(
            points[chosen].to(device),
            self.clean[chosen].to(device),
            self.labels[chosen].to(device),
            None if targets is None else targets[chosen].to(device),
        )
        with (
            tensor_cores(self.precision == "tf32"),
            own_randomness(self.task, Purpose.SEARCH, _STAGE, len(chosen)),
        ):
            for _ in range(STEPS):
                attack.step(self.model, state)
        self.gradients[chosen] += STEPS * (DRAWS if self.task.randomized else 1)
        is_found = (state.best_distance < torch.inf).cpu()
        self._try_along(chosen[is_found], state.best.float().cpu()[is_found])

    def shrink(self) -> None:
        """Halve the line between the clean image and the nearest adversarial one."""
        chosen = self._known()
        way = (self.images - self.clean)[chosen]
        right = torch.zeros(len(chosen))
        wrong = torch.ones(len(chosen))
        for _ in range(BISECTIONS):
            middle = (right + wrong) / 2
            tried = (self.clean[chosen] + way * per_image(middle, way)).clamp_(0, 1)
            is_wrong = self._try(chosen, tried, "")
            wrong = torch.where(is_wrong, middle, wrong)
            right = torch.where(is_wrong, right, middle)

    def _try_along(self, places: Tensor, images: Tensor) -> None:
        """Try images, then, where one is not confirmed, what lies beyond it on the line."""
        way = images - self.clean[places]
        for push in PUSHES:
            if not len(places):
                return
            tried = (self.clean[places] + way * push).clamp_(0, 1) if push > 1 else images
            is_done = self._try(places, tried, ATTACK)
            is_done |= least_radii(tried, self.clean[places], self._norm) >= self.radius[places]
            places, way, images = places[~is_done], way[~is_done], images[~is_done]

    def _known(self) -> Tensor:
        """Return the places (m,) of the samples of which an adversarial image is known."""
        return (self.radius < torch.inf).nonzero().flatten()

    @property
    def _norm(self) -> Norm:
        return self.task.threat_model.norm

    def _try(self, places: Tensor, images: Tensor, attack: str) -> Tensor:
        """Keep images that are nearer than what is known, and misclassified; return which were.

        Args:
            places: (m,) within the batch.
            images: (m, C, H, W) float32.
            attack: that found them; empty: the one that found what is known.
        """
        radii = least_radii(images, self.clean[places], self._norm)
        kept = torch.zeros(len(places), dtype=torch.bool)
        for part in batches((radii < self.radius[places]).nonzero().flatten(), MOST_TRIED):
            labels = self.labels[places[part]]
            predictions = confirm(self.task, images[part], labels).cpu()
            self.forward[places[part]] += deciding_passes(self.task)
            good = part[predictions != labels]
            self._keep(places[good], images[good], predictions[predictions != labels], attack)
            kept[good] = True
        return kept

    def _keep(self, places: Tensor, images: Tensor, predictions: Tensor, attack: str) -> None:
        """Take images (m, C, H, W) as the nearest ones of the samples at places (m,)."""
        clean, threat = self.clean[places], self.task.threat_model
        # One that counts as inside the ball has at most its radius, any other one more.
        eps = torch.full((len(places),), threat.eps, dtype=torch.float64)
        beyond = torch.nextafter(eps, torch.full_like(eps, torch.inf))
        radii = least_radii(images, clean, threat.norm)
        is_inside = inside(images, clean, threat.norm, threat.eps)
        self.radius[places] = torch.where(is_inside, radii.minimum(eps), radii.maximum(beyond))
        self.images[places] = images
        self.prediction[places] = predictions
        if attack:
            for place in places.tolist():
                self.attack[place] = attack

    def block(self, key: str, known: Collection[int], start: float) -> AttackBlock:
        """Return the block of the batch.

        Args:
            key: of the block.
            known: indices of samples that the run's attacks broke.
            start: when the batch began, as `time.perf_counter` says.
        """
        index = self.task.indices[self.rows].numpy()
        attack = np.array(self.attack, dtype=np.str_)
        stood = ~np.isin(index, list(known))
        broken = stood & (self.radius.numpy() <= self.task.threat_model.eps)
        passes = self.forward + self.gradients
        seconds = time.perf_counter() - start
        spent = {
            "forward_passes": self.forward.numpy(),
            "backward_passes": self.gradients.numpy(),
            "seconds": (seconds * passes / passes.sum().clamp_min(1)).numpy(),
        }
        # On a sample that was broken before it is no attempt to break it.
        attempts = Attempts(
            index=index[stood],
            attack=np.full(int(stood.sum()), ATTACK),
            outcome=np.where(broken[stood], "broken", "survived"),
            iteration=np.full(int(stood.sum()), -1),
            **{name: values[stood] for name, values in spent.items()},
        )
        smallest = Smallest(
            index=index,
            radius=self.radius.numpy(),
            attack=attack,
            **spent,
        )
        record: dict[str, float | str] = {}
        if self.model is None and len(index):
            record[EPS_CURVE] = "known images shrunk only: the candidate has no gradient"
        found = self._known().numpy()
        at = broken.nonzero()[0]
        return AttackBlock(
            key=key,
            seconds=seconds,
            attempts=attempts,
            witnesses=self._witnesses(at) if len(at) else None,
            smallest=smallest,
            smallest_images=self._witnesses(found) if len(found) else None,
            record=record,
        )

    def _witnesses(self, places: IntArray) -> Witnesses:
        return Witnesses(
            index=self.task.indices[self.rows].numpy()[places],
            attack=np.array([self.attack[place] for place in places.tolist()], dtype=np.str_),
            prediction=self.prediction.numpy()[places],
            images=self.images.numpy()[places],
        )
