"""Inspect a batch before anything is attacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.data import DataSource
from bench.errors import InputError
from bench.flags.answers import check_logits, check_some_answered, training_mode
from bench.flags.data_mismatch import check_class_count, other_images
from bench.flags.registry import Answers, flags_of_answers
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
    # The finished records count images without an answer; here they are left out.
    if not bool(finite.all()):
        images, given, labels = images[finite], given[finite], labels[finite]
        first, second = first[finite], second[finite]
    return flags_of_answers(Answers(module, images, labels, first, second, given, randomized))


def _answer(
    name: str, module: nn.Module, images: Tensor, source: DataSource | None = None
) -> Tensor:
    """Return whatever a module returns for images (n, C, H, W).

    Raises:
        InputError: it raises an error, other than an out-of-memory error.
    """
    try:
        with torch.no_grad():
            answer: Tensor = module(images)
            if isinstance(answer, Tensor):
                answer = answer.clone()  # a module may write its next answer into the same memory
    except Exception as error:  # foreign code may raise anything
        if is_out_of_memory(error):
            raise
        mode = " (parts of it are in training mode)" if training_mode(module) else ""
        others = {each.dtype for each in module.parameters() if each.is_floating_point()}
        if others - {images.dtype}:
            kinds = ", ".join(sorted(str(each).removeprefix("torch.") for each in others))
            mode += f" (its weights are {kinds}, the images float32: call its float() first)"
        raise InputError(
            f"candidate {name}: expected logits of images {tuple(images.shape)}, got "
            f"{type(error).__name__}: {' '.join(str(error).split())}{mode}"
            f"{other_images(images, source)}"
        ) from error
    return answer
