"""The fast engine: the attacks of `bench.attacks`, scheduled so that no pass is wasted.

A work item is (sample, attack, target, restart). A batch is kept full of items, whatever their
iteration; an item leaves the moment it is broken or finished and the next takes its place. The
targets of a sample are tried in their order. Where there are fewer samples than places, later
targets are started ahead of their turn; the sample is broken by the first target, in their order,
that succeeds, so that the result is the same as if they had waited.

Every success is confirmed by the candidate's own module in float32, on the image as it is stored,
before it counts. A sample's result depends on the candidate, the sample, the protocol and the seed;
on nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench.attacks import (
    AttackPlan,
    Model,
    State,
    concatenate,
    insert,
    inside,
    keyed_draws,
    likeliest_wrong_classes,
    reopen,
    select,
)
from bench.engines.acceleration import PRECISIONS, Accelerated, accelerate, tensor_cores
from bench.engines.engine import (
    GRADIENT_COST,
    Outlook,
    Task,
    batches,
    broken_rows,
    clean_results,
    plan,
    survivor_costs,
)
from bench.errors import InputError
from bench.records import Attempts, Block, Progress, Witnesses

DEFAULT_BATCH_SIZE = {"cpu": 128, "cuda": 1024}
TRIED_IMAGES = 16
SECONDS_A_BLOCK = 20.0
SECONDS_BETWEEN_REPORTS = 0.5
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""How often the host asks the device which items are done; asking stops a GPU."""
CONFIRMED_TOGETHER = 32


@dataclass
class _Sample:
    """Where a sample stands in an attack. A round is one restart of one target."""

    row: int
    started: int = 0
    searching: set[int] = field(default_factory=set)
    steps: dict[int, int] = field(default_factory=dict)
    broke: int | None = None
    witness: Tensor | None = None
    prediction: int = -1


@dataclass
class _Slots:
    """The batch: a state with one row a place, and who sits there; places are filled from 0."""

    capacity: int
    state: State | None = None
    items: list[tuple[_Sample, int]] = field(default_factory=list)

    def add(self, state: State, items: list[tuple[_Sample, int]]) -> None:
        count = len(self.items)
        if self.state is None:
            spare = torch.arange(self.capacity) % len(items)
            self.state = select(state, spare.to(state.labels.device))
        rows = torch.arange(count, count + len(items), device=state.labels.device)
        insert(self.state, rows, state)
        self.items += items

    def view(self) -> State:
        assert self.state is not None
        return select(self.state, slice(0, len(self.items)))

    def remove(self, leaving: list[int]) -> State:
        """Take the items in places `leaving` (ascending) out; the last ones move into the gaps."""
        assert self.state is not None
        device = self.state.labels.device
        taken = select(self.state, torch.tensor(leaving, device=device))
        kept = len(self.items) - len(leaving)
        gaps = [place for place in leaving if place < kept]
        gone = set(leaving)
        movers = [place for place in range(kept, len(self.items)) if place not in gone]
        if gaps:
            moved = select(self.state, torch.tensor(movers, device=device))
            insert(self.state, torch.tensor(gaps, device=device), moved)
            for gap, mover in zip(gaps, movers, strict=True):
                self.items[gap] = self.items[mover]
        del self.items[kept:]
        return taken


class FastEngine:
    """Our own attacks on a full batch, confirmed in float32."""

    name = "fast"

    def __init__(self, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise InputError(f"expected a precision of {', '.join(PRECISIONS)}; got {precision!r}")
        self.precision = precision

    def default_batch_size(self, device: torch.device) -> int:
        """Enough to keep the device busy, little enough for a processor's cache."""
        return DEFAULT_BATCH_SIZE[device.type]

    def settings(self, task: Task) -> dict[str, Any]:
        """Nothing: batch size, order and restarts change no result."""
        return {}

    def run(
        self, task: Task, finished: Mapping[str, Block], report: Callable[[Progress], None]
    ) -> Iterator[Block]:
        """Clean predictions, then attack by attack on what still stands.

        Raises:
            InputError: an attack of the protocol is unknown or its parameters are wrong.
        """
        plans = [plan(task, attack) for attack in task.attacks]
        standing = yield from _clean(task, task.batch_size, finished, report)
        if not bool(standing.any()):
            return
        rows = standing.nonzero().flatten()[:TRIED_IMAGES]
        fast = accelerate(task.module, task.images[rows].to(task.device), self.precision)
        size = _fitting_size(fast.model, task, task.batch_size)
        differentiable = _is_differentiable(fast.model, task)
        outlook = Outlook(survivor_costs(task))
        for stage, each in enumerate(plans):
            if each.needs_gradient and not differentiable:
                key = f"{stage + 1:02d}-{each.name}-00000"
                if key not in finished:
                    yield _skipped(task, each, key, standing)
                continue
            search = _Search(task, each, fast, size, stage, self.precision, outlook)
            yield from search.run(standing, finished, report)


def _clean(
    task: Task, size: int, finished: Mapping[str, Block], report: Callable[[Progress], None]
) -> Generator[Block, None, Tensor]:
    """Predict all samples; returns which (N,) are right."""
    standing = torch.zeros(len(task.labels), dtype=torch.bool)
    known = torch.zeros(len(task.labels), dtype=torch.bool)
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    number = 0
    for key, block in finished.items():
        if block.clean is not None:
            rows = torch.tensor([place[index] for index in block.clean.index.tolist()])
            standing[rows] = torch.from_numpy(block.clean.prediction == block.clean.label)
            known[rows] = True
            number = max(number, int(key.rpartition("-")[2]) + 1)
    for rows in batches((~known).nonzero().flatten(), max(size, 1000)):
        start = time.perf_counter()
        parts = [clean_results(task, part) for part in batches(rows, size)]
        clean = type(parts[0])(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("index", "label", "prediction")
            }
        )
        yield Block(f"00-clean-{number:05d}", time.perf_counter() - start, clean=clean)
        number += 1
        standing[rows] = torch.from_numpy(clean.prediction == clean.label)
        known[rows] = True
        done = int(known.sum())
        report(Progress("clean", done, len(standing), int(standing.sum()), done))
    return standing


def _fitting_size(model: Model, task: Task, size: int) -> int:
    """The batch size, halved until a forward-backward pass fits into memory."""
    while True:
        images = task.images[torch.arange(size) % len(task.images)].to(task.device)
        try:
            with torch.enable_grad():
                inputs = images.requires_grad_()
                logits = model(inputs)
                if logits.requires_grad:
                    torch.autograd.grad(logits.sum(), inputs, allow_unused=True)
            return size
        except (torch.OutOfMemoryError, MemoryError):
            if size == 1:
                raise
            size //= 2
            torch.cuda.empty_cache()


def _is_differentiable(model: Model, task: Task) -> bool:
    """Whether the logits have a gradient with respect to the image."""
    with torch.enable_grad():
        inputs = task.images[:1].to(task.device).clone().requires_grad_()
        logits = model(inputs)
        if not logits.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(logits.sum(), inputs, allow_unused=True)
    return gradient is not None


def _skipped(task: Task, plan: AttackPlan, key: str, standing: Tensor) -> Block:
    """The record of an attack that needs a gradient on a candidate that has none."""
    index = task.indices[standing].numpy()
    n, nothing = len(index), np.zeros(len(index))
    attempts = Attempts(
        index=index,
        attack=np.full(n, plan.name),
        outcome=np.full(n, "skipped"),
        iteration=np.full(n, -1),
        forward_passes=nothing,
        backward_passes=nothing,
        seconds=nothing,
    )
    return Block(key, 0.0, attempts=attempts)


class _Search:
    """One attack on all samples that stand."""

    def __init__(
        self,
        task: Task,
        plan: AttackPlan,
        fast: Accelerated,
        size: int,
        stage: int,
        precision: str,
        outlook: Outlook,
    ) -> None:
        self.task = task
        self.plan = plan
        self.fast = fast
        self.stage = stage
        self.precision = precision
        self.outlook = outlook
        self.slots = _Slots(size)
        self.ready: deque[_Sample] = deque()
        self.waiting: list[tuple[State, list[tuple[_Sample, int]]]] = []
        self.returning: list[tuple[State, list[tuple[_Sample, int]]]] = []
        self.done: list[_Sample] = []
        self.targets = torch.empty(0, 0, dtype=torch.int64)
        self.target_row: dict[int, int] = {}
        self.filled_steps = 0
        self.slot_steps = 0

    def run(
        self,
        standing: Tensor,
        finished: Mapping[str, Block],
        report: Callable[[Progress], None],
    ) -> Iterator[Block]:
        """Attack all samples that stand; `standing` (N,) is updated as they break."""
        prefix = f"{self.stage + 1:02d}-{self.plan.name}-"
        earlier = {key: block for key, block in finished.items() if key.startswith(prefix)}
        total = int(standing.sum())
        attempted: set[int] = set()
        for block in earlier.values():
            assert block.attempts is not None
            attempted.update(block.attempts.index.tolist())
            standing[broken_rows(self.task, block)] = False
        number = 1 + max((int(key.removeprefix(prefix)) for key in earlier), default=-1)
        indices = self.task.indices.tolist()
        left = standing.nonzero().flatten().tolist()
        rows = [row for row in left if indices[row] not in attempted]
        if self.plan.targets and rows:
            self._rank_targets(torch.tensor(rows))
        self.ready.extend(_Sample(row) for row in rows)
        clock = _Clock()
        done = len(attempted)
        while self._advance():
            if clock.block_is_due() and self.done:
                done += len(self.done)
                yield self._block(f"{prefix}{number:05d}", clock.lap(), standing)
                number += 1
            if clock.report_is_due():
                now = done + len(self.done)
                broken = sum(sample.broke is not None for sample in self.done)
                robust = int(standing.sum()) - broken
                seconds = self.outlook.seconds_left(self.stage, total - now, robust)
                report(Progress(self.plan.name, now, total, robust, len(standing), seconds))
        if self.done:
            yield self._block(f"{prefix}{number:05d}", clock.lap(), standing)
        report(Progress(self.plan.name, total, total, int(standing.sum()), len(standing)))

    def _rank_targets(self, rows: Tensor) -> None:
        """Wrong classes by their logits on the clean images, from the candidate's own module."""
        parts = []
        for part in batches(rows, self.slots.capacity):
            with torch.no_grad():
                logits = self.task.module(self.task.images[part].to(self.task.device)).float()
            labels = self.task.labels[part].to(self.task.device)
            parts.append(likeliest_wrong_classes(logits, labels, self.plan.targets).cpu())
        self.targets = torch.cat(parts)
        self.target_row = {row: position for position, row in enumerate(rows.tolist())}

    def _advance(self) -> bool:
        """Fill the batch, step it, and let go what is done; False when nothing is left."""
        self._fill()
        if not self.slots.items:
            if not self.waiting:
                return False
            self._confirm()
            return True
        state = self.slots.view()
        looks = STEPS_BETWEEN_LOOKS[self.task.device.type]
        start = time.perf_counter()
        with tensor_cores(self.precision == "tf32"):
            for _ in range(looks):
                self.plan.attack.step(self.fast.model, state)
        passes = self.plan.attack.passes
        cost = passes.forward + GRADIENT_COST * passes.forward_backward
        self.outlook.add(looks * len(self.slots.items) * cost, time.perf_counter() - start)
        self.filled_steps += looks * len(self.slots.items)
        self.slot_steps += looks * self.slots.capacity
        finished = self.plan.attack.finished(state)
        superseded = [
            place
            for place, (sample, number) in enumerate(self.slots.items)
            if sample.broke is not None and number > sample.broke
        ]
        if superseded:
            finished = finished.clone()
            finished[torch.tensor(superseded, device=finished.device)] = True
        leaving = finished.nonzero().flatten().tolist()
        if leaving:
            items = [self.slots.items[place] for place in leaving]
            self.waiting.append((self.slots.remove(leaving), items))
            if sum(len(items) for _, items in self.waiting) >= CONFIRMED_TOGETHER:
                self._confirm()
        return True

    def _fill(self) -> None:
        for state, items in self._take_returning():
            self.slots.add(state, items)
        free = self.slots.capacity - len(self.slots.items)
        items = []
        while self.ready and len(items) < free:
            sample = self.ready.popleft()
            items.append((sample, sample.started))
            sample.searching.add(sample.started)
            sample.started += 1
        if not items and free and (self.slots.items or self.waiting):
            items = self._ahead_of_turn(free)
        if items:
            self.slots.add(self._start(items), items)

    def _take_returning(self) -> list[tuple[State, list[tuple[_Sample, int]]]]:
        """Items whose success was not confirmed, as many as there are places for."""
        taken = []
        free = self.slots.capacity - len(self.slots.items)
        while self.returning and free:
            state, items = self.returning.pop()
            if len(items) > free:
                self.returning.append((select(state, slice(free, None)), items[free:]))
                state, items = select(state, slice(0, free)), items[:free]
            taken.append((state, items))
            free -= len(items)
        return taken

    def _ahead_of_turn(self, free: int) -> list[tuple[_Sample, int]]:
        """Later rounds of samples that are being searched, the earliest rounds first."""
        seen: dict[int, _Sample] = {sample.row: sample for sample, _ in self.slots.items}
        candidates = [
            sample
            for sample in seen.values()
            if sample.broke is None and sample.started < self.plan.items
        ]
        items: list[tuple[_Sample, int]] = []
        while candidates and len(items) < free:
            candidates.sort(key=lambda sample: (sample.started, sample.row))
            sample = candidates[0]
            items.append((sample, sample.started))
            sample.searching.add(sample.started)
            sample.started += 1
            if sample.started == self.plan.items:
                candidates.pop(0)
        return items

    def _start(self, items: list[tuple[_Sample, int]]) -> State:
        rows = torch.tensor([sample.row for sample, _ in items])
        numbers = torch.tensor([number for _, number in items])
        device = self.task.device
        ranks, restarts = numbers // self.plan.restarts, numbers % self.plan.restarts
        targets = None
        draws_target: Tensor | int = 0
        if self.plan.targets:
            position = torch.tensor([self.target_row[sample.row] for sample, _ in items])
            targets = self.targets[position, ranks].to(device)
            draws_target = (ranks + 1).to(device)
        draws = keyed_draws(
            self.task.seed,
            self.task.indices[rows].to(device),
            self.plan.name,
            restarts=restarts.to(device),
            targets=draws_target,
        )
        images = self.task.images[rows].to(device)
        labels = self.task.labels[rows].to(device)
        state = self.plan.attack.start(images, labels, draws, targets, restarts.to(device))
        return cast(State, state)

    def _confirm(self) -> None:
        """Decide about the items that left: broken, finished, or to go on."""
        state = concatenate([state for state, _ in self.waiting])
        items = [item for _, group in self.waiting for item in group]
        self.waiting.clear()
        attack = self.plan.attack
        claimed = state.broken
        images = attack.images(state).float()
        # What a search in lower precision ended with is tried in float32, claimed or not.
        tried = claimed if self.precision == "float32" else torch.ones_like(claimed)
        wrong = torch.zeros_like(claimed)
        predictions = state.labels.clone()
        chosen = tried.nonzero().flatten()
        if len(chosen):
            rows = torch.tensor([items[place][0].row for place in chosen.tolist()])
            clean = self.task.images[rows].to(images.device)
            with torch.no_grad(), tensor_cores(False):
                predicted = self.task.module(images[chosen].clone()).max(dim=1)[1]
            threat = self.task.threat_model
            good = inside(images[chosen], clean, threat.norm, threat.eps)
            wrong[chosen] = (predicted != state.labels[chosen]) & good
            predictions[chosen] = predicted
        budget_spent = (state.iteration >= attack.steps).tolist()
        going_on: list[int] = []
        for place, (sample, number) in enumerate(items):
            if sample.broke is not None and number > sample.broke:
                outcome = "superseded"
            elif bool(wrong[place]):
                outcome = "broken"
            elif bool(claimed[place]) and not budget_spent[place]:
                going_on.append(place)
                continue
            else:
                outcome = "survived"
            sample.steps[number] = int(state.iteration[place])
            sample.searching.discard(number)
            if outcome == "broken":
                sample.broke = number
                sample.witness = images[place].cpu()
                sample.prediction = int(predictions[place])
            self._settle(sample)
        if going_on:
            rows = torch.tensor(going_on, device=claimed.device)
            again = select(state, rows)
            reopen(again, torch.arange(len(going_on), device=claimed.device))
            self.returning.append((again, [items[place] for place in going_on]))

    def _settle(self, sample: _Sample) -> None:
        """A round of a sample ended: the sample is done, or its next round is ready."""
        if any(sample.broke is None or number < sample.broke for number in sample.searching):
            return
        if sample.broke is not None or sample.started == self.plan.items:
            if not sample.searching:
                self.done.append(sample)
        else:
            self.ready.append(sample)

    def _block(self, key: str, seconds: float, standing: Tensor) -> Block:
        samples, self.done = self.done, []
        name, passes = self.plan.name, self.plan.attack.passes
        rows = torch.tensor([sample.row for sample in samples])
        index = self.task.indices[rows].numpy()
        steps = np.array([sum(sample.steps.values()) for sample in samples], dtype=np.float64)
        broken = np.array([sample.broke is not None for sample in samples])
        iteration = [
            -1
            if sample.broke is None
            else sample.broke * self.plan.attack.steps + sample.steps[sample.broke]
            for sample in samples
        ]
        n = len(samples)
        attempts = Attempts(
            index=index,
            attack=np.full(n, name),
            outcome=np.where(broken, "broken", "survived"),
            iteration=np.array(iteration),
            forward_passes=steps * passes.forward,
            backward_passes=steps * passes.forward_backward,
            seconds=seconds * steps / max(float(steps.sum()), 1.0),
        )
        witnesses = None
        found = [sample for sample in samples if sample.witness is not None]
        if found:
            witnesses = Witnesses(
                index=index[broken],
                attack=np.full(len(found), name),
                prediction=np.array([sample.prediction for sample in found]),
                images=torch.stack([cast(Tensor, sample.witness) for sample in found]).numpy(),
            )
            standing[torch.tensor([sample.row for sample in found])] = False
        record: dict[str, float | str] = {**self.fast.record, **self._counts(samples)}
        if self.plan.note:
            record[name] = self.plan.note
        return Block(key, seconds, attempts=attempts, witnesses=witnesses, record=record)

    def _counts(self, samples: list[_Sample]) -> dict[str, float]:
        """What adds up over blocks: passes of the reference, and how full the batch was."""
        forward = gradient = 0
        for sample in samples:
            rounds = self.plan.items if sample.broke is None else sample.broke + 1
            reference = self.plan.reference_passes([1] * rounds, sum(sample.steps.values()))
            forward += reference.forward
            gradient += reference.forward_backward
        filled, self.filled_steps = self.filled_steps, 0
        slots, self.slot_steps = self.slot_steps, 0
        return {
            "reference_forward_passes": forward,
            "reference_backward_passes": gradient,
            "filled_steps": filled,
            "slot_steps": slots,
        }


class _Clock:
    """Says when a block and a report are due."""

    def __init__(self) -> None:
        self._block = self._report = time.perf_counter()

    def block_is_due(self) -> bool:
        return time.perf_counter() - self._block >= SECONDS_A_BLOCK

    def report_is_due(self) -> bool:
        now = time.perf_counter()
        due = now - self._report >= SECONDS_BETWEEN_REPORTS
        if due:
            self._report = now
        return due

    def lap(self) -> float:
        """Seconds since the last block."""
        now = time.perf_counter()
        seconds, self._block = now - self._block, now
        return seconds
