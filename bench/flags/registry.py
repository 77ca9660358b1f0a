"""The register of reliability flags; a new one is a function and one call.

Two kinds of functions raise flags. An inspection looks at a batch and the candidate's answers to
it before anything is attacked (`register_inspection`). A review looks at a finished run's summary
and tables, whatever kind of run it is (`register_review`). Both return None where there is nothing
to flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from bench.attacks.image_gradient import GradientError
from bench.flags.gradients import failing_gradients
from bench.store.manifest import Manifest
from bench.store.summary import Flag, Summary
from bench.store.tables import Tables


@dataclass(frozen=True)
class Answers:
    """A candidate's answers to a batch of images.

    Attributes:
        module: in eval mode, on the device of the images.
        images: (n, C, H, W) in [0, 1], only those with finite logits.
        labels: (n,).
        logits: (n, K).
        again: (n, K), the answers to the same images in a second call.
        given: (n, C, H, W), the tensor that the first call was given, as that call left it.
        may_vary: whether the candidate declares that two calls may differ, and attacks know it.
    """

    module: nn.Module
    images: Tensor
    labels: Tensor
    logits: Tensor
    again: Tensor
    given: Tensor
    may_vary: bool


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        summary: of the run, of the type that its kind has.
        tables: whose columns depend on the kind of run.
        classes: how many classes the data have.
    """

    summary: Summary
    tables: Tables
    classes: int

    @property
    def manifest(self) -> Manifest:
        """What decided the result."""
        return self.summary.manifest


Inspection = Callable[[Answers], Flag | None]
Review = Callable[[Finished], Flag | None]

_inspections: list[Inspection] = []
_of_gradients: set[Inspection] = set()
_reviews: list[Review] = []


def register_inspection(inspection: Inspection) -> Inspection:
    """Register an inspection, which runs before any attack; return it, as a decorator does."""
    if inspection not in _inspections:
        _inspections.append(inspection)
    return inspection


def register_gradient_inspection(inspection: Inspection) -> Inspection:
    """Register an inspection of gradients, which runs before any attack; return it.

    A `GradientError` that it raises becomes the flag on gradients that cannot be computed; other
    inspections of gradients are then left out.
    """
    _of_gradients.add(inspection)
    return register_inspection(inspection)


def register_review(review: Review) -> Review:
    """Register a review of finished runs; return it, as a decorator does.

    It must pass over runs whose summary or tables lack what it reads.
    """
    if review not in _reviews:
        _reviews.append(review)
    return review


def flags_of_answers(answers: Answers) -> list[Flag]:
    """Return the flags that the registered inspections raise, in the order of registration."""
    found: list[Flag | None] = []
    fails = False
    for inspection in _inspections:
        if fails and inspection in _of_gradients:
            continue
        try:
            found.append(inspection(answers))
        except GradientError as error:
            found.append(failing_gradients(error))
            fails = True
    return [flag for flag in found if flag is not None]


def flags_of_records(summary: Summary, tables: Tables, classes: int) -> list[Flag]:
    """Return the flags that the registered reviews raise, in the order of registration."""
    finished = Finished(summary, tables, classes)
    raised = [review(finished) for review in _reviews]
    return [flag for flag in raised if flag is not None]
