"""The sweep engine: a fixed mix at many weights, under a cheap attack.

One pass through each base gives what the mix says of an image at every weight. So clean accuracies
need one pass over the samples, and an adversarial image that was found at one weight is tried at
all others without any.

Weight after weight, ascending: first the images found at other weights are tried, the nearest
weights first; then APGD on the cross-entropy and targeted APGD search, starting where the search at
the weight before ended: at the image that broke the sample there, or at the best point if none did.
At the end every image is tried at every weight. The steps are few, so what survives is an upper
bound of the accuracy under the full protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks import inside, likeliest_wrong_classes
from bench.attacks.image_gradient import image_gradient
from bench.attacks.projections import onto_ball_, onto_box_
from bench.candidates.mix import Mix, as_mix
from bench.decision import NO_CLASS
from bench.engines.acceleration import TRIED_IMAGES, Accelerated, accelerate
from bench.engines.batch_size import filling_size
from bench.engines.engine import AttackTask, failure_record, plan, survivor_costs
from bench.engines.point_search import PointSearch
from bench.engines.sweep_found import BaseAnswers, Found
from bench.errors import InputError
from bench.executors.in_process import InProcess
from bench.executors.progress import Progress
from bench.executors.stage import Doing, Executor, Report, Stage, Work, Worker, unsettled
from bench.precision import tensor_cores
from bench.store.records import (
    FAILED,
    Attempts,
    IntArray,
    SweepBlock,
    SweepResults,
    SweepStarts,
    Witnesses,
)
from bench.store.tables import concatenate

NEIGHBOURS = "neighbours"
"""The attack that an image found at another weight counts as."""
FINAL = f"02-{NEIGHBOURS}"
"""The name of the blocks with the results of all weights."""


class SweepEngine:
    """Sweeps the weight of a fixed mix.

    Args:
        alphas: the weights, ascending, each in [0, 1].
        precision: of the search; what it finds is confirmed in float32.
    """

    name = "sweep"

    def __init__(self, alphas: Sequence[float], precision: str = "float32") -> None:
        self.alphas = tuple(alphas)
        self.precision = precision

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        """Return the fast engine's."""
        return filling_size(module, images)

    def settings(self, task: AttackTask) -> dict[str, Any]:
        """Return the weights: searches start where those at other weights ended."""
        return {"alphas": list(self.alphas)}

    def run(
        self,
        task: AttackTask,
        finished: Mapping[str, SweepBlock],
        report: Callable[[Progress], None],
        executor: Executor | None = None,
    ) -> Iterator[SweepBlock]:
        """Yield a block for each weight, then one that tries every image at every weight.

        Where samples are shared out, each share has such blocks.

        Raises:
            InputError: the task's module is no fixed mix.
        """
        executor = executor or InProcess()
        passes = sum(survivor_costs(task)) * len(self.alphas)
        begun = tuple(finished.values())
        whole = Stage("sweep", FINAL, Sweeping(self.alphas, self.precision), passes)
        rows = unsettled(task, torch.arange(len(task.labels)), whole, begun)
        done: dict[str, Any] = dict(finished)
        for index in _begun_together(task, rows, begun):
            # What an interrupted sweep did of these samples holds for them together.
            work = Sweeping(self.alphas, self.precision, begun)
            together = replace(whole, work=work, exactly=0)
            here = torch.from_numpy(np.isin(task.indices[rows].numpy(), index))
            for block in executor.do(task, [together], rows[here], done, report):
                yield block
                done[block.key] = block
            rows = rows[~here]
        yield from executor.do(task, [whole], rows, done, report)


def _begun_together(
    task: AttackTask, rows: Tensor, blocks: Sequence[SweepBlock]
) -> list[tuple[int, ...]]:
    """Return the indices of samples that share blocks, and that no final block settles."""
    left = set(task.indices[rows].tolist())
    sets = {tuple(block.results.index.tolist()) for block in blocks if not is_final(block)}
    return sorted(each for each in sets if left.issuperset(each))


@dataclass(frozen=True)
class Sweeping(Work):
    """A sweep of samples.

    Attributes:
        alphas: the weights, ascending.
        precision: of the search.
        begun: blocks of an interrupted sweep of these very samples.
    """

    alphas: tuple[float, ...]
    precision: str
    begun: tuple[SweepBlock, ...] = ()

    def blocks(self, worker: Worker, task: AttackTask, report: Report) -> Iterator[SweepBlock]:
        """Sweep, weight after weight."""
        sweep = _RunningSweep(task, self.precision, worker)
        known = {float(block.results.alpha[0]): block for block in self.begun}
        passes, n = sum(survivor_costs(task)), len(task.labels)
        blocks = []
        for number, alpha in enumerate(self.alphas):
            block = known.get(alpha)
            if block is None:
                block = sweep.attack("01-alpha", alpha, sweep.right_at(alpha))
                yield block
            sweep.take(block)
            blocks.append(block)
            lost = n - int(_robust(block.results).sum())
            under_way = n * (number + 1) / len(self.alphas)
            report(Doing(0, lost, under_way * passes * len(self.alphas), under_way))
        yield sweep.try_everywhere(FINAL, [block.results for block in blocks])

    def settled(self, block: SweepBlock) -> IntArray:
        """Return the samples that were tried at every weight."""
        return block.results.index if is_final(block) else block.results.index[:0]

    def lost(self, block: SweepBlock) -> IntArray:
        """Return the samples that do not stand at the weight at which most do."""
        if not is_final(block):
            return block.results.index[:0]
        robust, alpha = _robust(block.results), block.results.alpha
        best = max(np.unique(alpha).tolist(), key=lambda each: int(robust[alpha == each].sum()))
        index: IntArray = block.results.index[(alpha == best) & ~robust]
        return index

    def failed(self, task: AttackTask, problem: str) -> SweepBlock:
        """Return the record of a sample without an answer, which is wrong at every weight."""
        n = len(self.alphas)
        index, nothing = np.repeat(task.indices.numpy(), n), np.zeros(n)
        return SweepBlock(
            key=FINAL,
            seconds=0.0,
            attempts=Attempts(
                index=index,
                attack=np.full(n, "sweep"),
                outcome=np.full(n, FAILED),
                iteration=np.full(n, -1),
                forward_passes=nothing,
                backward_passes=nothing,
                seconds=nothing,
            ),
            results=SweepResults(
                alpha=np.array(self.alphas),
                index=index,
                label=np.repeat(task.labels.numpy(), n),
                clean_prediction=np.full(n, NO_CLASS),
                broken_by=np.full(n, ""),
                adversarial_prediction=np.full(n, NO_CLASS),
                found_at=np.full(n, np.nan),
            ),
            record=failure_record(task.indices.numpy(), problem),
        )

    def of(self, indices: IntArray) -> Sweeping:
        """Return the work with the blocks that hold exactly these samples."""
        same = [block for block in self.begun if set(block.results.index) == set(indices)]
        return replace(self, begun=tuple(same))


def is_final(block: SweepBlock) -> bool:
    """Return whether a block holds the results of all weights, instead of the search at one."""
    return block.key.startswith(FINAL)


def _robust(results: SweepResults) -> np.ndarray[Any, np.dtype[np.bool_]]:
    robust: np.ndarray[Any, np.dtype[np.bool_]] = (results.clean_prediction == results.label) & (
        results.broken_by == ""
    )
    return robust


@dataclass
class _SweptSamples:
    """What happens to the samples at one weight; rows of the task.

    Attributes:
        broken_by: names, empty for none.
        prediction: of the witness, -1 for none.
        found_at: the weight at which the witness was found, NaN for none.
    """

    n: int
    broken_by: list[str] = field(init=False)
    prediction: Tensor = field(init=False)
    found_at: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.broken_by = [""] * self.n
        self.prediction = torch.full((self.n,), -1)
        self.found_at = torch.full((self.n,), torch.nan, dtype=torch.float64)

    def set(self, rows: Tensor, attack: str, predictions: Tensor, found_at: Tensor | float) -> None:
        """Note that `attack` broke the samples in `rows`."""
        for row in rows.tolist():
            self.broken_by[row] = attack
        self.prediction[rows] = predictions
        self.found_at[rows] = torch.as_tensor(found_at, dtype=torch.float64)


class _RunningSweep:
    """A sweep under way: the samples, the bases' answers, and the images found so far."""

    def __init__(self, task: AttackTask, precision: str, worker: Worker) -> None:
        mix = as_mix(task.module)
        if not isinstance(mix, Mix):
            raise InputError("expected a fixed mix to sweep, got another candidate")
        self.task = task
        self.mix = mix
        self.precision = precision
        self.plans = [plan(task, attack) for attack in task.attacks]
        self.asked_at_once = worker.images_at_once("sweep answers", task.batch_size)
        self.searched_at_once = worker.images_at_once("sweep searches", task.batch_size)
        self.clean = self._ask(task.images)
        self._fast: Accelerated | None = None
        nothing = torch.empty(0, dtype=torch.int64)
        nobody = BaseAnswers(self.clean.accurate[:0], self.clean.robust[:0])
        self.found = Found(nothing, torch.empty(0, dtype=torch.float64), nobody)
        self.starts = torch.empty_like(task.images)
        self.has_start = torch.zeros(len(task.labels), dtype=torch.bool)
        self.row_of = {index: row for row, index in enumerate(task.indices.tolist())}

    def right_at(self, alpha: float) -> Tensor:
        """Return (N,) bool: which samples are right without attack."""
        return self.clean.predictions(alpha) == self.task.labels

    def take(self, block: SweepBlock) -> None:
        """Take in a finished block of one weight; starts are the same after any restart."""
        if block.witnesses is not None:
            rows = self._rows(block.witnesses.index)
            images = torch.from_numpy(block.witnesses.images)
            self.found.add(rows, float(block.results.alpha[0]), self._ask(images))
            self.starts[rows], self.has_start[rows] = images, True
        if block.starts is not None:
            rows = self._rows(block.starts.index)
            clean = self.task.images[rows]
            points = clean + torch.from_numpy(block.starts.perturbation).float()
            self.starts[rows], self.has_start[rows] = self._into_ball(points, clean), True

    def attack(self, key: str, alpha: float, standing: Tensor) -> SweepBlock:
        """Run all attacks at one weight; update `standing` (N,)."""
        begin = time.perf_counter()
        outcome = _SweptSamples(len(standing))
        attempts = [self._try_found(alpha, standing, outcome)]
        witnesses: list[Witnesses] = []
        best = {}
        for each in self.plans:
            rows = standing.nonzero().flatten()
            search = PointSearch(
                self._model(alpha), each, self.task, self.precision, self.searched_at_once
            )
            points, steps = self.starts.clone(), torch.zeros(len(standing), dtype=torch.int64)
            before, start = rows, time.perf_counter()
            mixed = self.clean.mixed(alpha)
            classes = likeliest_wrong_classes(mixed, self.task.labels, each.targets)
            for rank in range(max(classes.shape[1], 1)):
                targets = classes[:, rank] if each.targets else None
                fresh = rows[~self.has_start[rows]]
                points[fresh] = search.random_points(fresh, rank)
                images, broken, taken = search.run(rows, points[rows], targets)
                steps[rows] += taken
                confirmed, predictions = self._confirm(rows[broken], images[broken], alpha)
                good = rows[broken][confirmed]
                outcome.set(good, each.name, predictions, alpha)
                standing[good] = False
                if len(good):
                    witnesses.append(
                        Witnesses(
                            index=self.task.indices[good].numpy(),
                            attack=np.full(len(good), each.name),
                            prediction=predictions.numpy(),
                            images=images[broken][confirmed].numpy(),
                        )
                    )
                left = standing[rows]
                if not each.targets:
                    best = dict(zip(rows[left].tolist(), images[left], strict=True))
                rows = rows[left]
            attempts.append(
                self._attempts(each.name, before, standing, steps, time.perf_counter() - start)
            )
        return SweepBlock(
            key=key,
            seconds=time.perf_counter() - begin,
            attempts=concatenate(attempts),
            witnesses=concatenate(witnesses) if witnesses else None,
            results=self._results(alpha, outcome),
            starts=self._best_points(best, standing),
            record=self._record(),
        )

    def try_everywhere(self, key: str, results: Sequence[SweepResults]) -> SweepBlock:
        """Return the final results of all weights: every image is tried at every weight."""
        begin = time.perf_counter()
        final = []
        for each in results:
            alpha = float(each.alpha[0])
            standing = torch.from_numpy(_robust(each))
            entries = self.found.breaking(alpha, standing, self.task.labels)
            rows = self.found.row[entries].numpy()
            predictions = self.found.answers.predictions(alpha)
            changed = {
                name: getattr(each, name).copy() for name in ("adversarial_prediction", "found_at")
            }
            changed["adversarial_prediction"][rows] = predictions[entries].numpy()
            changed["found_at"][rows] = self.found.alpha[entries].numpy()
            names = each.broken_by.astype(object)
            names[rows] = NEIGHBOURS
            final.append(replace(each, broken_by=names.astype(np.str_), **changed))
        return SweepBlock(key=key, seconds=time.perf_counter() - begin, results=concatenate(final))

    def _try_found(self, alpha: float, standing: Tensor, outcome: _SweptSamples) -> Attempts:
        """Try the images of other weights, which takes no pass."""
        start = time.perf_counter()
        tried = torch.zeros_like(standing)
        tried[self.found.row] = True
        before = (standing & tried).nonzero().flatten()
        entries = self.found.breaking(alpha, standing, self.task.labels)
        rows = self.found.row[entries]
        predictions = self.found.answers.predictions(alpha)[entries]
        outcome.set(rows, NEIGHBOURS, predictions, self.found.alpha[entries])
        standing[rows] = False
        none = torch.zeros(len(standing), dtype=torch.int64)
        return self._attempts(NEIGHBOURS, before, standing, none, time.perf_counter() - start)

    def _confirm(self, rows: Tensor, images: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Return which images (m, ...) count, (m,) bool, and the classes of those."""
        threat = self.task.threat_model
        predictions = self._ask(images).predictions(alpha)
        good = inside(images, self.task.images[rows], threat.norm, threat.eps)
        good &= predictions != self.task.labels[rows]
        return good, predictions[good]

    def _ask(self, images: Tensor) -> BaseAnswers:
        """Return the answers of the candidate's own bases in float32; one pass through each."""
        nothing = torch.empty(0, self.task.classes)

        def answers(part: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad(), tensor_cores(False):
                answer = self.mix.answer(images[part].to(self.task.device))
            return answer.accurate.cpu(), answer.robust.cpu()

        parts = self.asked_at_once.in_parts(torch.arange(len(images)), answers)
        accurate, robust = zip((nothing, nothing), *parts, strict=True)
        return BaseAnswers(torch.cat(accurate), torch.cat(robust))

    def _accelerated(self) -> Accelerated:
        if self._fast is None:
            images = self.task.images[:TRIED_IMAGES].to(self.task.device)
            self._fast = accelerate(self.mix, images, self.precision)
            labels = self.task.labels[:1].to(self.task.device)
            if image_gradient(self._fast.model, images[:1], labels) is None:
                raise InputError(
                    "expected bases with a gradient, which the attack of a sweep needs; got one "
                    "without. Run its mixes one by one with `bench run`"
                )
        return self._fast

    def _record(self) -> dict[str, float | str]:
        record: dict[str, float | str] = dict(self._accelerated().record)
        searched = self.searched_at_once
        if searched.size < searched.asked:
            record["batch size"] = f"{searched.size} for {searched.asked}, which memory cannot hold"
        return record

    def _model(self, alpha: float) -> Callable[[Tensor], Tensor]:
        fast = self._accelerated().module
        assert isinstance(fast, Mix)
        mix = fast.at_alpha(alpha).eval()

        def call(images: Tensor) -> Tensor:
            logits: Tensor = mix(images.clone())
            return logits.to(images.dtype)

        return call

    def _into_ball(self, points: Tensor, clean: Tensor) -> Tensor:
        eps = self.task.threat_model.eps
        if self.task.threat_model.norm == "L2":
            return onto_ball_(points, clean, eps)
        return onto_box_(points, (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1))

    def _best_points(self, best: Mapping[int, Tensor], standing: Tensor) -> SweepStarts | None:
        rows = [row for row in best if bool(standing[row])]
        if not rows:
            return None
        points = torch.stack([best[row] for row in rows])
        perturbation = (points - self.task.images[rows]).half()
        return SweepStarts(self.task.indices[rows].numpy(), perturbation.numpy())

    def _attempts(
        self, attack: str, rows: Tensor, standing: Tensor, steps: Tensor, seconds: float
    ) -> Attempts:
        taken = steps[rows].double().numpy()
        broken = ~standing[rows].numpy()
        searched = bool(taken.any())
        return Attempts(
            index=self.task.indices[rows].numpy(),
            attack=np.full(len(rows), attack),
            outcome=np.where(broken, "broken", "survived"),
            iteration=np.where(broken & searched, steps[rows].numpy(), -1),
            forward_passes=np.zeros(len(rows)),
            backward_passes=taken,
            seconds=seconds * (taken / taken.sum() if searched else taken + 1 / max(len(rows), 1)),
        )

    def _results(self, alpha: float, outcome: _SweptSamples) -> SweepResults:
        n = outcome.n
        return SweepResults(
            alpha=np.full(n, alpha),
            index=self.task.indices.numpy(),
            label=self.task.labels.numpy(),
            clean_prediction=self.clean.predictions(alpha).numpy(),
            broken_by=np.array(outcome.broken_by, dtype=np.str_),
            adversarial_prediction=outcome.prediction.numpy(),
            found_at=outcome.found_at.numpy(),
        )

    def _rows(self, index: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        return torch.tensor([self.row_of[value] for value in index.tolist()], dtype=torch.int64)
