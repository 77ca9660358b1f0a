"""One attack on many samples, scheduled so that the batch stays full.

A work item is (sample, attack, target, restart). Items share a batch whatever their iteration; an
item leaves the moment it is broken or finished, and the next one of the agenda takes its place.

Every success is confirmed by the candidate's own module in float32, on the image as it is stored,
before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from bench.attacks import (
    AttackPlan,
    State,
    concatenate,
    inside,
    keyed_draws,
    likeliest_wrong_classes,
    reopen,
    select,
)
from bench.attacks.attack import STEPS_BETWEEN_LOOKS
from bench.attacks.draws import kernel_problem
from bench.attacks.tolerance import check_claims
from bench.engines.acceleration import Accelerated
from bench.engines.agenda import Agenda, Item
from bench.engines.batch import Batch
from bench.engines.engine import GRADIENT_COST, AttackTask
from bench.engines.prediction import Purpose, confirm, own_randomness
from bench.engines.search_record import Fill, Finding, search_block
from bench.engines.views import view
from bench.executors.stage import Doing, Report
from bench.memory.out_of_memory import ImagesAtOnce
from bench.memory.transfer import send
from bench.precision import tensor_cores
from bench.store.records import AttackBlock

SECONDS_A_BLOCK = 20.0
SECONDS_BETWEEN_REPORTS = 0.5
MOST_CONFIRMED_TOGETHER = 32
WAITING_SHARE = 8
"""At most one in this many of the batch's items waits to be confirmed: while it waits, later rounds
of its sample that were started ahead of their turn go on in vain."""


Rank = Callable[[Tensor, int], Tensor]
"""From rows (n,) of the task and a number to so many of their wrong classes, first to be tried
first: (n, at most that many) int64, on the CPU."""


class Search:
    """One attack on all samples that still stand."""

    def __init__(
        self,
        task: AttackTask,
        plan: AttackPlan,
        fast: Accelerated,
        size: int,
        stage: int,
        precision: str,
        rank: Rank | None = None,
    ) -> None:
        self.task = task
        self.plan = plan
        self.fast = fast
        self.stage = stage
        self.precision = precision
        self.cost = 0.0
        """What the steps so far have cost, in forward passes."""
        self.in_blocks = self.lost = 0
        """Samples in the blocks so far, and those of them that broke."""
        self.rank = rank or self._by_logits
        self.places = ImagesAtOnce(size)
        self.at_once = ImagesAtOnce(size)
        """In passes without a gradient; the candidate's own module may need more memory."""
        self.batch = Batch(size)
        self.pending: list[Item] = []
        """Items that the agenda started and that have no place in the batch yet."""
        self.agenda = Agenda((), plan.items)
        self.waiting: list[tuple[State, list[Item]]] = []
        self.returning: list[tuple[State, list[Item]]] = []
        self.found: dict[int, Finding] = {}
        self.margins: dict[int, tuple[float, float]] = {}
        self.targets = torch.empty(0, 0, dtype=torch.int64)
        self.target_row: dict[int, int] = {}
        self.model = view(plan.view, fast, task)
        if fast.compiler_works:
            plan.attack.compile()
        self.steps_made = 0
        self.fill = Fill()

    def run(self, report: Report) -> Iterator[AttackBlock]:
        """Attack all samples of the task; yield a block about every 20 seconds, and at the end."""
        rows = list(range(len(self.task.labels)))
        if self.plan.targets and rows:
            self._rank_targets(torch.tensor(rows))
        if self.task.device.type == "cpu":
            # A GPU's step costs about the same however full its batch is.
            self.batch = Batch(evenly(len(rows) * self.plan.items, self.places.size))
        self.agenda = Agenda(rows, self.plan.items)
        clock = _Clock()
        while self._advance():
            if clock.block_is_due() and self.agenda.done:
                yield self._block(clock.lap())
            if clock.report_is_due():
                report(self._doing())
        if self.agenda.done:
            yield self._block(clock.lap())
        self.plan.attack.release()
        report(self._doing())

    def _doing(self) -> Doing:
        broken = sum(sample.broke is not None for sample in self.agenda.done)
        finished = self.in_blocks + len(self.agenda.done)
        return Doing(finished, self.lost + broken, self.cost, self._under_way())

    def _rank_targets(self, rows: Tensor) -> None:
        """Rank the wrong classes of samples."""
        ranked = self.plan.first_target + self.plan.targets
        parts = self.at_once.in_parts(rows, lambda part: self.rank(part, ranked))
        self.targets = torch.cat(parts)[:, self.plan.first_target :]
        self.target_row = {row: position for position, row in enumerate(rows.tolist())}

    def _by_logits(self, rows: Tensor, count: int) -> Tensor:
        """Rank by the logits of the candidate's own module on the clean images."""
        with (
            torch.no_grad(),
            tensor_cores(False),
            own_randomness(self.task, Purpose.SEARCH, self.stage, 0),
        ):
            logits = self.task.module(send(self.task.images[rows], self.task.device)).float()
        labels = send(self.task.labels[rows], logits.device)
        return likeliest_wrong_classes(logits, labels, count).cpu()

    def _advance(self) -> bool:
        """Fill the batch, step it, and let go what is done; False when nothing is left.

        If that runs out of memory, the items in the batch begin anew in a smaller one. An item's
        draws are its own, so it takes the same way again.
        """
        with self.places.halving():
            return self._advanced()
        self.plan.attack.release()
        self.pending = self.batch.items + self.pending
        self.batch = Batch(self.places.size)
        return True

    def _advanced(self) -> bool:
        self._fill()
        if not self.batch.items:
            if not self.waiting:
                return False
            self._confirm()
            return True
        state = self.batch.view()
        looks = STEPS_BETWEEN_LOOKS[self.task.device.type]
        self.steps_made += looks
        with (
            tensor_cores(self.precision == "tf32"),
            own_randomness(self.task, Purpose.SEARCH, self.stage, self.steps_made),
        ):
            for _ in range(looks):
                self.plan.attack.step(self.model, state)
        finished = self.plan.attack.finished(state)
        superseded = torch.tensor([item.superseded for item in self.batch.items])
        leaving = (finished.cpu() | superseded).nonzero().flatten().tolist()
        passes = self.plan.attack.passes
        cost = passes.forward + GRADIENT_COST * passes.forward_backward
        self.cost += looks * len(self.batch.items) * cost
        self.fill.add(looks * len(self.batch.items), looks * self.batch.capacity)
        if leaving:
            items = [self.batch.items[place] for place in leaving]
            self.waiting.append((self.batch.remove(leaving), items))
            self.agenda.wait(items)
            waiting = sum(len(items) for _, items in self.waiting)
            enough = max(1, len(self.batch.items) // WAITING_SHARE)
            if waiting >= min(MOST_CONFIRMED_TOGETHER, enough):
                self._confirm()
        return True

    def _fill(self) -> None:
        """Fill the batch: first with items that go on, then with new ones."""
        while self.returning and self.batch.free:
            state, items = self.returning[-1]
            free = self.batch.free
            self.batch.add(select(state, slice(0, free)), items[:free])
            self.agenda.resume(items[:free])
            self.returning.pop()
            if len(items) > free:
                self.returning.append((select(state, slice(free, None)), items[free:]))
        self.pending += self.agenda.start(self.batch.free - len(self.pending))
        items = self.pending[: self.batch.free]
        if items:
            self.batch.add(self._start(items), items)
            del self.pending[: len(items)]

    def _start(self, items: list[Item]) -> State:
        """Return the state of new items, each with its own target and random numbers."""
        rows = torch.tensor([sample.row for sample, _ in items])
        numbers = torch.tensor([number for _, number in items])
        device = self.task.device
        ranks, restarts = numbers // self.plan.restarts, numbers % self.plan.restarts
        targets = None
        draws_target: Tensor | int = 0
        if self.plan.targets:
            position = torch.tensor([self.target_row[sample.row] for sample, _ in items])
            targets = send(self.targets[position, ranks], device)
            draws_target = self.plan.first_target + ranks + 1
        draws = keyed_draws(
            self.task.seed,
            self.task.indices[rows],
            self.plan.name,
            restarts=restarts,
            targets=draws_target,
        ).to(device)
        images, labels = (send(each[rows], device) for each in (self.task.images, self.task.labels))
        restarts = send(restarts, device)
        state = self.plan.attack.start(images, labels, draws, targets, restarts)
        return cast(State, state)

    def _confirm(self) -> None:
        """Decide about the items that left: broken, finished, or to go on."""
        state = concatenate([state for state, _ in self.waiting])
        items = [item for _, group in self.waiting for item in group]
        claimed = state.broken.cpu()
        # After a search in lower precision every result is tried in float32, claimed or not.
        tried = claimed if self.precision == "float32" else torch.ones_like(claimed)
        places = tried.nonzero().flatten()
        images = self.plan.attack.images(state).float()
        wrong, predictions = self._proven_wrong(images, state.labels, items, places)
        witnesses = images[send(places, self.task.device)].to("cpu", non_blocking=True)
        # One transfer for all items; the host waits for the images here too.
        is_wrong, classes, steps, labels = torch.stack(
            (wrong.long(), predictions, state.iteration, state.labels)
        ).tolist()
        is_claimed = claimed.tolist()
        fooled_outside = [
            place
            for place in range(len(items))
            if is_claimed[place] and not is_wrong[place] and classes[place] != labels[place]
        ]
        self._check_claims(images, items, fooled_outside)
        witness_of = dict(zip(places.tolist(), witnesses, strict=True))
        going_on = [
            place
            for place, item in enumerate(items)
            if is_claimed[place]
            and not is_wrong[place]
            and steps[place] < self.plan.attack.steps
            and not item.superseded
        ]
        returning = self._reopened(state, items, going_on)
        self._note_margins(state, items)
        # From here on nothing can run out of memory, after which the items would be tried again.
        self.waiting.clear()
        self.returning += returning
        stays = set(going_on)
        for place, item in enumerate(items):
            if place in stays:
                continue
            witness = witness_of[place].clone() if is_wrong[place] else None
            if self.agenda.end(item, steps[place], broken=bool(is_wrong[place])):
                assert witness is not None
                self.found[item.sample.row] = Finding(witness, classes[place])

    def _proven_wrong(
        self, images: Tensor, labels: Tensor, items: list[Item], places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return which items (n,) are proven to be broken, and their classes (n,).

        Args:
            images: (n, C, H, W) on the device, which the attack found.
            labels: (n,) on the device.
            items: n of them.
            places: those to try; others count as not broken.
        """
        device, threat = self.task.device, self.task.threat_model
        wrong = torch.zeros_like(labels, dtype=torch.bool)
        predictions = labels.clone()

        def confirm_part(part: Tensor) -> None:
            rows = torch.tensor([items[place][0].row for place in part.tolist()])
            clean, at = send(self.task.images[rows], device), send(part, device)
            predicted = confirm(self.task, images[at], labels[at])
            good = inside(images[at], clean, threat.norm, threat.eps)
            wrong[at] = (predicted != labels[at]) & good
            predictions[at] = predicted

        self.at_once.in_parts(places, confirm_part)
        return wrong, predictions

    def _check_claims(self, images: Tensor, items: list[Item], places: list[int]) -> None:
        """Refuse claims of success at some places, whose images (n, C, H, W) lie outside by far.

        Raises:
            EvaluationError: one does.
        """
        if not places:
            return
        clean = self.task.images[torch.tensor([items[place][0].row for place in places])]
        threat = self.task.threat_model
        check_claims(self.plan.name, images[places].cpu(), clean, threat.norm, threat.eps)

    def _reopened(
        self, state: State, items: list[Item], places: list[int]
    ) -> list[tuple[State, list[Item]]]:
        """Return the items at some places with their state, to be attacked on."""
        if not places:
            return []
        device = self.task.device
        again = select(state, send(torch.tensor(places), device))
        reopen(again, torch.arange(len(places), device=device))
        return [(again, [items[place] for place in places])]

    def _note_margins(self, state: State, items: list[Item]) -> None:
        """Keep how near each sample's rounds came: the first start, and the best of all rounds."""
        margins = self.plan.attack.margins(state)
        if margins is None:
            return
        starts, bests = torch.stack(margins).tolist()
        for item, start, best in zip(items, starts, bests, strict=True):
            first, so_far = self.margins.get(item.sample.row, (start, best))
            self.margins[item.sample.row] = first, max(so_far, best)

    def _under_way(self) -> float:
        """Return how much of the samples that are not done is done, in samples."""
        steps = float(self.batch.view().iteration.sum()) if self.batch.items else 0.0
        return (self.agenda.rounds_ended + steps / self.plan.attack.steps) / self.plan.items

    def _block(self, seconds: float) -> AttackBlock:
        """Return a block of the samples that are done."""
        samples = self.agenda.take_done()
        found = {each.row: self.found.pop(each.row) for each in samples if each.broke is not None}
        margins = {
            each.row: self.margins.pop(each.row) for each in samples if each.row in self.margins
        }
        record: dict[str, float | str] = {**self.fast.record, **self.fill.taken()}
        if self.plan.note:
            record[self.plan.name] = self.plan.note
        if self.places.size < self.places.asked:
            record[f"batch size of {self.plan.name}"] = (
                f"{self.places.size} for {self.places.asked}, which memory cannot hold"
            )
        if problem := self.plan.attack.compile_problem:
            record[f"arithmetic of {self.plan.name} not compiled"] = problem
        if problem := self.plan.attack.replay_problem:
            record[f"arithmetic of {self.plan.name} not replayed"] = problem
        if self.task.device.type == "cuda" and (problem := kernel_problem(self.task.device)):
            record["random numbers in many launches"] = problem
        key = f"{self.stage + 1:02d}-{self.plan.name}"
        self.in_blocks += len(samples)
        self.lost += len(found)
        return search_block(self.task, self.plan, samples, found, key, seconds, record, margins)


def evenly(items: int, most: int) -> int:
    """Return the batch size that needs no more batches than the largest, and fills the last one.

    Args:
        items: their number; all take equally long.
        most: the largest batch, at least 1.
    """
    return -(-items // max(1, -(-items // most)))


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
        """Return the seconds since the last block."""
        now = time.perf_counter()
        seconds, self._block = now - self._block, now
        return seconds
