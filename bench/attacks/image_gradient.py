"""The gradient of a loss with respect to the image, for any candidate, even one without any."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks.losses import Loss, cross_entropy
from bench.errors import BenchError, EvaluationError, raised
from bench.memory.out_of_memory import is_out_of_memory

_NO_GRADIENT = (
    "is not implemented",  # the derivative of an operation, or a backend's
    "implement either the backward",
    "not differentiable",
    "none of output has requires_grad",
    "modified by an inplace operation",
    "is being used in an in-place operation",
    "being modified inplace",
    "has been modified inplace with grad mode enabled",  # a view, made without gradients
    "call numpy() on tensor that requires grad",
    "inference tensor",
    "don't support automatic differentiation",
    "marked with @once_differentiable",
)
"""Parts of PyTorch's messages, in lower case, where an operation has no derivative, or where values
that the backward pass needs were overwritten or never kept. Other errors prove nothing of this."""


class GradientError(EvaluationError):
    """A gradient failed for a reason that does not mean that there is none."""


def means_no_gradient(error: Exception) -> bool:
    """Return whether an error of a differentiated pass means that there is no gradient.

    An error that may be an out-of-memory error never means that.
    """
    text = str(error).lower()
    return not is_out_of_memory(error) and any(sign in text for sign in _NO_GRADIENT)


def image_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> Tensor | None:
    """Return the gradient (n, C, H, W) of a loss, or None if the model has no gradient.

    Args:
        model: images to logits (n, K).
        images: (n, C, H, W).
        labels: (n,).
        loss: a value a sample.

    Raises:
        GradientError: the pass raises an error that does not mean that there is no gradient.
        Exception: it is out of memory.
    """
    inputs = images.clone().requires_grad_()
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            # Quantized layers: PyTorch warns that they have no gradient, which is returned here.
            warnings.filterwarnings("ignore", message=".*autograd kernel was not registered")
            value = loss(model(inputs.clone()).float(), labels, labels).sum()
            if not value.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(value, inputs, allow_unused=True)
    except BenchError:
        raise
    except Exception as error:  # foreign code may raise anything
        if is_out_of_memory(error):
            raise
        if means_no_gradient(error):
            return None
        raise GradientError(
            "expected logits that can be differentiated with respect to the image, or that have "
            f"no gradient; got {raised(error)}; without the gradient no attack would mean much"
        ) from error
    return gradient
