"""Images that a network was not trained on: the usual normalizations, tried on a few of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.data import named_datasets
from bench.errors import FOREIGN_ERRORS
from bench.memory.out_of_memory import is_out_of_memory
from bench.store.summary import Flag

LEVEL = 0.001
"""How often the sign test flags a normalization that is right as often as it is wrong."""
SCALES = {"pixels in [-1, 1]": (-1.0, 1.0), "pixels in [0, 255]": (0.0, 255.0)}


def missing_normalization(
    module: nn.Module, images: Tensor, labels: Tensor, logits: Tensor
) -> Flag | None:
    """Flag a network that is right on significantly more images after a usual normalization.

    Args:
        module: in eval mode; passes of other images must not change it.
        images: (n, C, H, W) in [0, 1].
        labels: (n,).
        logits: (n, K) of the images as they are.
    """
    right = logits.argmax(dim=1) == labels
    if bool(right.all()):
        return None
    best: tuple[int, str] | None = None
    tried = []
    for name, inputs in _normalized(images):
        try:
            with torch.no_grad():
                then = module(inputs).argmax(dim=1) == labels
        except FOREIGN_ERRORS as error:
            if is_out_of_memory(error):
                raise
            continue  # a network that checks the range of its images
        tried.append(f"{name}: {int(then.sum())}")
        gained, lost = int((then & ~right).sum()), int((right & ~then).sum())
        is_better = binom.sf(gained - 1, gained + lost, 0.5) <= LEVEL
        if is_better and (best is None or int(then.sum()) > best[0]):
            best = int(then.sum()), name
    if best is None:
        return None
    count, name = best
    n = len(labels)
    return Flag(
        name="missing-normalization",
        measured=count / n,
        threshold=float(right.float().mean()),
        meaning=f"Do the inputs need normalization? Of {n} images {int(right.sum())} are right as "
        f"they are, and {count} with {name}. Tried: {', '.join(tried)}.",
        advice="Declare what the network expects, so that it is applied inside: `normalize` or "
        "`input_range` in submission.yaml, `normalize=` behind a name, `mean=` and `std=` of "
        "bench.wrap.",
    )


def _normalized(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Return images as networks usually take them, each with its name."""
    for name, (low, high) in SCALES.items():
        yield name, images * (high - low) + low
    for dataset in named_datasets().values():
        if len(dataset.mean) in (1, images.shape[1]) and dataset.mean:
            mean = images.new_tensor(dataset.mean).view(1, -1, 1, 1)
            deviation = images.new_tensor(dataset.standard_deviation).view(1, -1, 1, 1)
            yield f"mean and deviation of {dataset.name}", (images - mean) / deviation
