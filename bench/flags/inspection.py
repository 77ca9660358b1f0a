"""What is looked at on a batch before anything is attacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.flags.answers import (
    batch_dependence,
    changed_input,
    check_logits,
    low_precision,
    probabilities,
    randomness,
    training_mode,
)
from bench.flags.gradients import (
    inner_gradients,
    non_finite_gradients,
    stopped_gradients,
    vanishing_gradients,
    zero_gradients,
)
from bench.out_of_memory import is_out_of_memory
from bench.store.summary import Flag


def inspect(
    name: str, module: nn.Module, images: Tensor, labels: Tensor, classes: int, randomized: bool
) -> list[Flag]:
    """Check a candidate's answers and gradients on a batch.

    Args:
        name: of the candidate, for messages.
        module: on the device of `images`.
        images: (n, C, H, W) in [0, 1].
        labels: (n,).
        classes: K.
        randomized: whether the candidate declares that two calls may differ, and attacks know it.

    Returns:
        the flags that it raises.

    Raises:
        InputError: logits that are no (n, K) floating-point tensor, or hold NaN or infinity; of a
            single image too.
    """
    given = images.clone()
    first, second = _answer(name, module, given), _answer(name, module, images.clone())
    check_logits(name, first, (len(images), classes))
    # Batches shrink as samples break: some modules drop the dimension of a single image.
    check_logits(name, _answer(name, module, images[:1].clone()), (1, classes))
    flags = [
        probabilities(first),
        zero_gradients(module, images, labels),
        non_finite_gradients(module, images, labels),
        vanishing_gradients(module, images, labels),
        stopped_gradients(module, images),
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


def _answer(name: str, module: nn.Module, images: Tensor) -> Tensor:
    """Whatever a module returns for images (n, C, H, W).

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
        ) from error
    return answer
