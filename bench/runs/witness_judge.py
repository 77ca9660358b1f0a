"""Ask a candidate what it says of witnesses, by the rule that confirmed them in the run.

It is the rule of `bench.engines.prediction`: float32 without TF32, fresh draws where the candidate
is randomized, and no answer, which is wrong, where it raises an error or its logits are not finite.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks.expectation import expectation
from bench.candidates import Candidate
from bench.decision import NO_CLASS, answered, classes_of
from bench.engines.answering import in_parts
from bench.engines.prediction import (
    BEYOND_DOUBT,
    DECIDING_DRAWS,
    Purpose,
    keyed_randomness,
    leads,
)
from bench.executors.worker import is_at_fault
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores


class Judge:
    """A candidate that predicts in full float32, also on a GPU, as when witnesses are confirmed.

    Where it raises an error it has no answer. If it does so on many more images than there are
    samples that failed in the run, something else is wrong, and the error is raised.

    Attributes:
        failed: number of samples that failed in the run.
        passes: forward passes so far, of one image each, without those of `classes`.
    """

    def __init__(
        self,
        candidate: Candidate,
        device: torch.device,
        seed: int,
        batch_size: int,
        failed: int = 0,
    ) -> None:
        self.module = candidate.module.to(device)
        self.randomized = candidate.randomized
        self.device = device
        self.seed = seed
        self.batch_size = batch_size
        self.failed = failed
        self.passes = 0
        self._asked = 0
        self._unanswered = 0

    def leads(self, images: Tensor, labels: Tensor, predictions: Tensor) -> Tensor:
        """Return by how much the candidate prefers another class to the labels (n,).

        For images (n, C, H, W) it is the highest other logit minus the label's, and infinite where
        the logits are not finite or the candidate raises an error. For a randomized candidate it is
        the difference of the recorded prediction (n,) and the label, in standard errors.
        """

        def ask(some: Tensor, theirs: Tensor, recorded: Tensor) -> Tensor:
            if self.randomized:
                lead, draws = leads(self.module, some, recorded, theirs, least=-BEYOND_DOUBT)
                self.passes += int(draws.sum())
                return lead
            self.passes += len(some)
            logits: Tensor = self.module(some)
            # The difference of very large logits can overflow float32.
            precise = logits.double()
            own = precise.gather(1, theirs[:, None]).squeeze(1)
            others = precise.scatter(1, theirs[:, None], float("-inf")).max(dim=1)[0]
            # The candidate predicts the first of several tied classes.
            is_wrong = classes_of(logits) != theirs
            lead = torch.where(
                is_wrong, (others - own).clamp_min(torch.finfo(own.dtype).tiny), others - own
            )
            # Logits that are not finite count as wrong by an infinite margin.
            return torch.where(answered(logits), lead, float("inf"))

        return self._in_batches(ask, float("inf"), images, labels, predictions)

    def classes(self, images: Tensor) -> Tensor:
        """Return the classes (n,) of images (n, C, H, W), `NO_CLASS` where there is none."""
        model = expectation(self.module, DECIDING_DRAWS) if self.randomized else self.module
        return self._in_batches(lambda some: classes_of(model(some)), NO_CLASS, images)

    def _in_batches(self, ask: Callable[..., Tensor], nothing: float, *inputs: Tensor) -> Tensor:
        """Return what is asked of each row of the inputs; `nothing` where that raises an error."""

        def answer(part: Tensor) -> Tensor:
            # Indexing copies: a candidate may change its input in place.
            return ask(*(each[part].to(self.device) for each in inputs)).cpu()

        def without(part: Tensor) -> Tensor:
            self._unanswered += len(part)
            if is_at_fault(self._unanswered - self.failed, self._asked):
                return answer(part)  # raises the error again
            return torch.full((len(part),), nothing)

        rows = torch.arange(len(inputs[0]))
        self._asked += len(rows)
        with (
            torch.no_grad(),
            tensor_cores(False),
            keyed_randomness(self.device, self.seed, Purpose.VERIFICATION, len(rows)),
        ):
            answers = in_parts(ImagesAtOnce(self.batch_size), rows, answer, without)
        return torch.cat(answers)
