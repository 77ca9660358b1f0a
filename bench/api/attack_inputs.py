"""What users hand to the attacks on tensors, checked once, in the form that engines take.

A model is any callable from images to logits. It is attacked where it is and as it is, except that
a module in training mode is put into evaluation mode for the time of the attack: otherwise its
batch norms would make an image's logits depend on the other images of its batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.errors import FOREIGN_ERRORS, InputError, raised
from bench.memory.out_of_memory import is_out_of_memory
from bench.modules import in_eval_mode, is_training

DEVICES = ("cpu", "cuda")
TRIED_IMAGES = 4
RANDOMNESS_THRESHOLD = 1e-4
"""Largest change of an image's logits between two calls, relative to their length, that rounding
may cause."""


@dataclass(frozen=True)
class Samples:
    """Images and labels as engines take them: on the CPU.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor


def check_samples(images: object, labels: object) -> Samples:
    """Return images and labels as engines take them.

    Args:
        images: (N, C, H, W) of any floating-point dtype, in [0, 1], on any device.
        labels: (N,) of any integer dtype, on any device.

    Raises:
        InputError: a type, dtype, shape or value does not fit, or there are none.
    """
    images = _checked_images(images)
    if not isinstance(labels, Tensor):
        raise InputError(f"expected labels as a tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"expected integer labels, one class an image; got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"expected labels of shape ({len(images)},), one for each image; got "
            f"{tuple(labels.shape)}"
        )
    return Samples(
        images.detach().to("cpu", torch.float32).contiguous(),
        labels.detach().to("cpu", torch.int64).contiguous(),
    )


def _checked_images(images: object) -> Tensor:
    if not isinstance(images, Tensor):
        raise InputError(f"expected images as a tensor, got {type(images).__name__}")
    if not images.is_floating_point():
        raise InputError(
            f"expected floating-point images in [0, 1], got {images.dtype}; divide 8-bit images "
            "by 255"
        )
    if images.dim() != 4:
        raise InputError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}")
    if not images.numel():
        raise InputError(f"expected at least one image, got shape {tuple(images.shape)}")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        if low != low or high != high:
            raise InputError("expected images in [0, 1], got NaN")
        raise InputError(
            f"expected images in [0, 1], got values from {low:g} to {high:g}; scale the images, "
            "and normalize inside the model (`bench.wrap(model, mean=..., std=...)`)"
        )
    return images


def device_of(
    model: object, images: Tensor, asked: torch.device | str | None = None
) -> torch.device:
    """Return where a model is: with its first parameter or buffer; else what is asked for.

    Args:
        model: a module or any other callable.
        images: whose device counts where nothing else tells.
        asked: where the caller says that the model is; None or "auto": nowhere.

    Raises:
        InputError: the model is elsewhere, or attacks do not run there.
    """
    tensor = None
    asked = None if asked == "auto" else asked
    if isinstance(model, nn.Module):
        tensor = next(iter(model.parameters()), next(iter(model.buffers()), None))
    device = images.device if asked is None else _device(asked)
    if tensor is not None:
        differs = device.type != tensor.device.type or device.index not in (
            None,
            tensor.device.index,
        )
        if asked is not None and differs:
            raise InputError(
                f"expected the model on {device}, as `device` says; got one on {tensor.device}. "
                f"Move it with model.to('{device}'), or leave `device` out"
            )
        device = tensor.device
    if device.type not in DEVICES:
        raise InputError(
            f"expected a model on the CPU or on a CUDA device, got one on {device}; move it with "
            "model.to('cpu')"
        )
    return device


def _device(asked: torch.device | str) -> torch.device:
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"expected a device such as 'cpu' or 'cuda', got {asked!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"expected a device that torch sees, got {asked!r}; use device='cpu'")
    return device


@contextlib.contextmanager
def attackable(model: Callable[[Tensor], Tensor], device: torch.device) -> Iterator[nn.Module]:
    """Give a model in the form that engines take, and leave it afterwards as it was.

    A module whose own mode is evaluation is left as it is, with the modes of its parts: whoever
    keeps a dropout active in it means to.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K); a module, or any other callable.
        device: where it is.
    """
    if not callable(model):
        raise InputError(f"expected a model that can be called, got {type(model).__name__}")
    modes: dict[nn.Module, bool] = {}
    if isinstance(model, nn.Module) and is_training(model):
        modes = {part: is_training(part) for part in model.modules()}
    try:
        # A caller's inference mode would keep attacks from having gradients.
        with torch.inference_mode(False):
            if modes:
                in_eval_mode(model)  # type: ignore[arg-type]
            dtype = _dtype(model)
            if isinstance(model, nn.Module) and dtype == torch.float32:
                yield model
            else:
                yield _Called(model, dtype)
    finally:
        for part, training in modes.items():
            part.training = training


def classes_of_model(module: nn.Module, samples: Samples, device: torch.device) -> int:
    """Return the number of classes K of a model, and check that labels are among them.

    Raises:
        InputError: the model fails, its answer is no tensor of logits (n, K), or a label is no
            class.
    """
    images = samples.images[:TRIED_IMAGES].to(device)
    logits = _answer(module, images)
    count = len(images)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"expected the model's logits as one tensor, got {type(logits).__name__}; say which "
            "output is meant with `bench.wrap(model, output=...)`"
        )
    if logits.dim() != 2 or len(logits) != count or logits.shape[1] < 2:
        raise InputError(
            f"expected logits of shape ({count}, K) with K >= 2 classes from {count} images, got "
            f"{tuple(logits.shape)}"
        )
    classes = logits.shape[1]
    wrong = samples.labels[(samples.labels < 0) | (samples.labels >= classes)]
    if len(wrong):
        raise InputError(
            f"expected labels in [0, {classes}), the model's classes; got {int(wrong[0])}"
        )
    return classes


def changes_from_call_to_call(module: nn.Module, samples: Samples, device: torch.device) -> bool:
    """Return whether a model gives other logits when it is called again with the same images."""
    images = samples.images[:TRIED_IMAGES].to(device)
    first, second = (_answer(module, images).double() for _ in range(2))
    change = (first - second).norm(dim=1)
    # Logits that are not finite compare as equal here: whether they are is no question of chance.
    return bool((change > RANDOMNESS_THRESHOLD * first.norm(dim=1)).any())


def _answer(module: nn.Module, images: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            logits: Tensor = module(images.clone())
            # A model may write its next answer into the same memory.
            return logits.clone() if isinstance(logits, Tensor) else logits
    except FOREIGN_ERRORS as error:
        if isinstance(error, Exception) and is_out_of_memory(error):
            raise
        raise InputError(
            f"expected logits of images {tuple(images.shape)} {images.dtype} on {images.device}, "
            f"got {raised(error)}"
        ) from error


def _dtype(model: object) -> torch.dtype:
    """Return the floating-point dtype of a module's first parameter; float32 if it has none."""
    tensors = model.parameters() if isinstance(model, nn.Module) else iter(())
    floating = (each.dtype for each in tensors if each.is_floating_point())
    return next(floating, torch.float32)


class _Called(nn.Module):
    """Calls what is no module, or a module of another dtype than the engines' float32."""

    def __init__(self, model: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, K) of images (n, C, H, W) in [0, 1]."""
        logits: Any = self.model(images.to(self.dtype))
        if isinstance(logits, Tensor):
            return logits.to(images.dtype)
        return cast(Tensor, logits)  # `classes_of_model` refuses it
