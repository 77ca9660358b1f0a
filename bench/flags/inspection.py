"""What is looked at on a batch before anything is attacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.attacks.image_gradient import GradientError
from bench.data import DataSource
from bench.errors import InputError
from bench.flags.answers import (
    batch_dependence,
    changed_input,
    check_logits,
    check_some_answered,
    low_precision,
    probabilities,
    randomness,
    training_mode,
)
from bench.flags.data_mismatch import check_class_count, other_images
from bench.flags.gradients import (
    failing_gradients,
    inner_gradients,
    non_finite_gradients,
    stopped_gradients,
    vanishing_gradients,
    zero_gradients,
)
from bench.memory.out_of_memory import is_out_of_memory
from bench.store.summary import Flag


def inspect(
    name: str,
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: int,
    randomized: bool,
    source: DataSource | None = None,
) -> list[Flag]:
    """Check a candidate's answers and gradients on a batch.

    Args:
        name: of the candidate, for messages.
        module: on the device of `images`.
        images: (n, C, H, W) in [0, 1].
        labels: (n,).
        classes: K.
        randomized: whether the candidate declares that two calls may differ, and attacks know it.
        source: of the images; None: data that no suite describes.

    Returns:
        the flags that it raises.

    Raises:
        InputError: logits that are no (n, K) floating-point tensor, of a single image too; or none
            of the images has finite ones.
    """
    given = images.clone()
    first = _answer(name, module, given, source)
    second = _answer(name, module, images.clone(), source)
    if source is not None:
        check_class_count(name, first, classes, source)
    check_logits(name, first, (len(images), classes))
    # Batches shrink as samples break: some modules drop the dimension of a single image.
    check_logits(name, _answer(name, module, images[:1].clone(), source), (1, classes))
    finite = check_some_answered(name, first)
    # Images without an answer are counted in the finished records; here they tell nothing.
    if not bool(finite.all()):
        images, given, labels = images[finite], given[finite], labels[finite]
        first, second = first[finite], second[finite]
    flags = [
        probabilities(first),
        *_of_gradients(module, images, labels),
        inner_gradients(module, images),
        changed_input(images, given),
        training_mode(module),
        low_precision(first),
    ]
    if not randomized:
        repeats = randomness(first, second)
        # An answer that changes by itself also changes with its batch.
        flags.append(repeats or batch_dependence(module, images, first))
    return [flag for flag in flags if flag is not None]


def _of_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> list[Flag | None]:
    """What is said of the gradients, or that they cannot be computed."""
    try:
        return [
            zero_gradients(module, images, labels),
            non_finite_gradients(module, images, labels),
            vanishing_gradients(module, images, labels),
            stopped_gradients(module, images),
        ]
    except GradientError as error:
        return [failing_gradients(error)]


def _answer(
    name: str, module: nn.Module, images: Tensor, source: DataSource | None = None
) -> Tensor:
    """Return whatever a module returns for images (n, C, H, W).

    Raises:
        InputError: it raises an error, other than one for want of memory.
    """
    try:
        with torch.no_grad():
            answer: Tensor = module(images)
    except Exception as error:  # foreign code may raise anything
        if is_out_of_memory(error):
            raise
        mode = " (parts of it are in training mode)" if training_mode(module) else ""
        raise InputError(
            f"candidate {name}: expected logits of images {tuple(images.shape)}, got "
            f"{type(error).__name__}: {' '.join(str(error).split())}{mode}"
            f"{other_images(images, source)}"
        ) from error
    return answer
