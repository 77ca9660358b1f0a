"""Certifies many images at once: batches of votes are filled across images.

An image takes its draws in their order; when it has those that its procedure looks at next, it is
judged, and goes on or leaves. A batch takes what the images under way want, and the next images
when they want too little, so that batches are full until no image waits any more. A draw has the
same noise in every batch, so that batches change nothing about the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bench.certify.noise import Noise, Piece
from bench.certify.smoothing import Evidence, Procedure
from bench.decision import NO_CLASS
from bench.store.records import IntArray

ABSTAINED = -1

Conclude = Callable[[int, IntArray, IntArray, int], tuple[int, float] | None]
"""From an image's row, its votes (K,) of the guessing and of the bounding draws, and the number of
the latter draws, to a class and its certified radius; None: abstained."""


@dataclass(frozen=True)
class Certificate:
    """What is certified of one image.

    Attributes:
        row: the image's place among those that were given.
        prediction: the smoothed classifier's class, `ABSTAINED` if the draws do not tell it.
        radius: L2, within which the prediction cannot change; 0 where it abstained.
        certified_count: votes for the guessed class among the draws that bound its probability.
        noise_samples: how many draws those were, with those that voted for no class.
    """

    row: int
    prediction: int
    radius: float
    certified_count: int
    noise_samples: int


@dataclass
class _Image:
    """An image under way: votes by class of the draws that guess and of those that bound."""

    row: int
    index: int
    guesses: IntArray
    votes: IntArray
    evidence: Evidence
    wanted: int
    """Draws up to the next look, the guessing ones included."""
    taken: int = field(default=0)


def certify(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    indices: Tensor,
    classes: int,
    procedure: Procedure,
    noise: Noise,
    batch_size: int,
    conclude: Conclude | None = None,
) -> Iterator[tuple[list[Certificate], int]]:
    """Certify images, yielding after each batch.

    Args:
        predict: noisy images (n, C, H, W) -> classes (n,); `NO_CLASS` is a vote against every
            class.
        images: (N, C, H, W) float32 in [0, 1], on the device of the noise.
        indices: (N,) their places in the data set.
        classes: K.
        batch_size: noisy images in one pass.
        conclude: what the votes of an image that has all its draws mean; None: the class that was
            guessed, with the procedure's radius.

    Yields:
        the certificates that the batch settled, and how many draws it had.
    """
    waiting = deque(range(len(images)))
    places = indices.tolist()
    queue: deque[_Image] = deque()
    sigma = procedure.smoothing.sigma
    while True:
        work: list[tuple[_Image, Piece]] = []
        free = batch_size
        while free:
            if not queue:
                if not waiting:
                    break
                row = waiting.popleft()
                queue.append(_begin(row, places[row], classes, procedure))
            image = queue[0]
            count = min(free, image.wanted - image.taken)
            work.append((image, Piece(image.row, image.index, image.taken, count)))
            image.taken += count
            free -= count
            if image.taken == image.wanted:
                queue.popleft()
        if not work:
            return
        noisy = noise.normal([piece for _, piece in work], images.shape[1:]).mul_(sigma)
        parts = torch.split(noisy, [piece.count for _, piece in work])
        for part, (_, piece) in zip(parts, work, strict=True):
            part += images[piece.row]
        votes = predict(noisy).cpu().numpy()
        settled: list[Certificate] = []
        start = 0
        for image, piece in work:
            _count(image, piece, votes[start : start + piece.count], procedure)
            start += piece.count
            if piece.first + piece.count < image.wanted:
                continue
            found = _judge(image, procedure, conclude)
            if found is None:
                queue.append(image)
            else:
                settled.append(found)
        yield settled, len(noisy)


def _begin(row: int, index: int, classes: int, procedure: Procedure) -> _Image:
    nothing = np.zeros(classes, dtype=np.int64)
    wanted = procedure.smoothing.selection_samples + procedure.next_look(0)
    return _Image(row, index, nothing, nothing.copy(), procedure.start(1), wanted)


def _count(image: _Image, piece: Piece, votes: IntArray, procedure: Procedure) -> None:
    """Add votes: the first draws of an image guess its class, the others bound its probability."""
    guessing = max(0, procedure.smoothing.selection_samples - piece.first)
    classes = len(image.votes)
    image.guesses += _tally(votes[:guessing], classes)
    image.votes += _tally(votes[guessing:], classes)


def _tally(votes: IntArray, classes: int) -> IntArray:
    """(K,) how many of the votes (n,) each class has; those for no class are not among them."""
    return np.bincount(votes[votes != NO_CLASS], minlength=classes)


def _judge(image: _Image, procedure: Procedure, conclude: Conclude | None) -> Certificate | None:
    """The certificate of an image that has the draws it wanted; None if it wants more."""
    smoothing, evidence = procedure.smoothing, image.evidence
    guess = int(image.guesses.argmax())
    evidence.successes[0] = image.votes[guess]
    evidence.drawn[0] = drawn = image.wanted - smoothing.selection_samples
    if not procedure.judge(evidence)[0]:
        image.wanted = smoothing.selection_samples + procedure.next_look(drawn)
        return None
    concluded: tuple[int, float] | None
    if conclude is None:
        radius = float(procedure.radii(evidence)[0])
        concluded = None if np.isnan(radius) else (guess, radius)
    else:
        concluded = conclude(image.row, image.guesses, image.votes, drawn)
    prediction, radius = concluded or (ABSTAINED, 0.0)
    return Certificate(
        row=image.row,
        prediction=prediction,
        radius=radius,
        certified_count=int(image.votes[guess if concluded is None else prediction]),
        noise_samples=drawn,
    )
