"""Certify many images at once, with batches that are filled across images.

An image takes its draws in their order. When it has those that its procedure looks at next, it is
judged and either goes on or leaves. A batch first takes what the images under way want, then the
first draws of further images, so that batches are full until no image waits. A draw has the same
noise in every batch, so that each image has the certificate that it would have alone: under the
fixed procedure that of `bench.certification.smoothing.certify`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bench.certification.noise import Noise, Piece
from bench.certification.procedure import Evidence, Procedure
from bench.certification.smoothing import count_votes
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.records import ABSTAINED, IntArray

Conclude = Callable[[int, IntArray, IntArray, int], tuple[int, float] | None]
"""Maps an image's row, its votes (K,) among the draws that select the class and among those that
bound its probability, and the number of the latter, to a class and its certified radius; None:
abstained."""


@dataclass(frozen=True)
class Certificate:
    """The certificate of one image.

    Attributes:
        row: the image's place among those that were given.
        prediction: the smoothed classifier's class; `ABSTAINED` if the draws do not determine it.
        radius: L2 distance within which the prediction cannot change; 0 where it abstained.
        certified_count: votes for the class among the draws that bound its probability.
        noise_samples: the number of those draws, with those that voted for no class.
    """

    row: int
    prediction: int
    radius: float
    certified_count: int
    noise_samples: int


@dataclass
class _Image:
    """An image under way, with its votes (K,) so far.

    Attributes:
        selection: votes of the draws that select the class.
        votes: votes of the draws that bound its probability.
        wanted: the number of draws up to the next look, with those that select the class.
        taken: the number of draws that have been put into batches.
    """

    row: int
    index: int
    selection: IntArray
    votes: IntArray
    evidence: Evidence
    wanted: int
    taken: int = field(default=0)


def certify_many(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    indices: Tensor,
    classes: int,
    procedure: Procedure,
    noise: Noise,
    batch_size: int,
    conclude: Conclude | None = None,
    at_once: ImagesAtOnce | None = None,
) -> Iterator[tuple[list[Certificate], int]]:
    """Certify images, yielding after each batch.

    Args:
        predict: maps noisy images (n, C, H, W) to classes (n,); `bench.decision.NO_CLASS` is a
            vote against every class.
        images: (N, C, H, W) float32 in [0, 1], on the CPU; a batch takes those that it needs to the
            noise's device.
        indices: (N,) their places in the data set.
        classes: K.
        procedure: decides how many draws an image takes and which radius they prove.
        noise: where the draws come from.
        batch_size: noisy images in one pass; fewer once memory has run out.
        conclude: turns the votes of an image that has all its draws into a certificate; None: the
            selected class with the procedure's radius.
        at_once: replaces `batch_size`: what fitted into memory so far; it learns from this too.

    Yields:
        the certificates that the batch settled, and the number of draws in it.
    """
    waiting = deque(range(len(images)))
    places = indices.tolist()
    queue: deque[_Image] = deque()
    at_once = at_once or ImagesAtOnce(batch_size)
    sigma = procedure.smoothing.sigma
    while True:
        work: list[tuple[_Image, Piece]] = []
        free = at_once.size
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
        pieces = [piece for _, piece in work]
        drawn = sum(piece.count for piece in pieces)

        def vote(part: Tensor, pieces: list[Piece] = pieces) -> Tensor:
            some = _between(pieces, int(part[0]), int(part[-1]) + 1)
            return predict(_noisy(images, some, noise, sigma)).cpu()

        votes = torch.cat(at_once.in_parts(torch.arange(drawn), vote)).numpy()
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
        yield settled, drawn


def _between(pieces: Sequence[Piece], first: int, last: int) -> list[Piece]:
    """Return the draws `first` to `last` (exclusive) of all draws of pieces, counted from 0."""
    found = []
    start = 0
    for piece in pieces:
        low, high = max(first - start, 0), min(last - start, piece.count)
        if low < high:
            found.append(replace(piece, first=piece.first + low, count=high - low))
        start += piece.count
    return found


def _noisy(images: Tensor, pieces: Sequence[Piece], noise: Noise, sigma: float) -> Tensor:
    """Return noisy images (sum of counts, C, H, W), on the noise's device."""
    noisy = noise.normal(pieces, images.shape[1:]).mul_(sigma)
    rows = torch.tensor([piece.row for piece in pieces], device=images.device)
    clean = images[rows].to(noise.device)
    parts = torch.split(noisy, [piece.count for piece in pieces])
    for part, image in zip(parts, clean, strict=True):
        part += image
    return noisy


def _begin(row: int, index: int, classes: int, procedure: Procedure) -> _Image:
    nothing = np.zeros(classes, dtype=np.int64)
    wanted = procedure.smoothing.selection_samples + procedure.next_look(0)
    return _Image(row, index, nothing, nothing.copy(), procedure.start(1), wanted)


def _count(image: _Image, piece: Piece, votes: IntArray, procedure: Procedure) -> None:
    """Add votes: an image's first draws select the class, the others bound its probability."""
    selecting = max(0, procedure.smoothing.selection_samples - piece.first)
    classes = len(image.votes)
    image.selection += count_votes(votes[:selecting], classes)
    image.votes += count_votes(votes[selecting:], classes)


def _judge(image: _Image, procedure: Procedure, conclude: Conclude | None) -> Certificate | None:
    """Return the certificate of an image that has the draws it wanted; None if it wants more."""
    smoothing, evidence = procedure.smoothing, image.evidence
    selected = int(image.selection.argmax())
    evidence.successes[0] = image.votes[selected]
    evidence.drawn[0] = drawn = image.wanted - smoothing.selection_samples
    if not procedure.judge(evidence)[0]:
        image.wanted = smoothing.selection_samples + procedure.next_look(drawn)
        return None
    concluded: tuple[int, float] | None
    if conclude is None:
        radius = float(procedure.radii(evidence)[0])
        concluded = None if np.isnan(radius) else (selected, radius)
    else:
        concluded = conclude(image.row, image.selection, image.votes, drawn)
    prediction, radius = concluded or (ABSTAINED, 0.0)
    return Certificate(
        row=image.row,
        prediction=prediction,
        radius=radius,
        certified_count=int(image.votes[selected if concluded is None else prediction]),
        noise_samples=drawn,
    )
