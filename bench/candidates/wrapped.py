"""A network with its preprocessing and the reading of its outputs inside.

Attacks move pixels in [0, 1]. What a network expects instead (a normalization, another range, one
grey channel, another size) is therefore applied inside the module, differentiably.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates.mix import as_mix
from bench.candidates.outputs import OutputKey, describe_logits, logits_of
from bench.candidates.smoothed import Smoothed
from bench.data import named_datasets
from bench.errors import FOREIGN_ERRORS, InputError
from bench.modules import is_training

INTERPOLATIONS = ("bilinear", "bicubic", "nearest-exact")
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as Pillow and torchvision take them."""

PROBES = 2
USUAL_SIZE = (32, 32)
"""Blank images of the pass that finds out what a network returns."""

Numbers = float | Sequence[float]


class Wrapped(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> preprocessing -> network -> logits (N, K).

    In this order: to the network's channels, to its size, to its range, minus mean, by deviation.
    Made by `wrap`, which checks the arguments.

    Attributes:
        model: the network inside.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        channels: int | None = None,
        input_range: tuple[float, float] | None = None,
        output: OutputKey | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", mean), ("std", std)):
            tensor = None if values is None else torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        self.resize = resize
        self.interpolation = interpolation
        self.channels = channels
        self.input_range = input_range
        self.output = output

    def preprocessed(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] as the network takes them."""
        inputs = _with_channels(images, self.channels)
        if self.resize is not None and tuple(inputs.shape[-2:]) != self.resize:
            smooth = self.interpolation in ("bilinear", "bicubic")
            inputs = nn.functional.interpolate(
                inputs, self.resize, mode=self.interpolation, antialias=smooth
            )
        if self.input_range is not None:
            low, high = self.input_range
            inputs = inputs * (high - low) + low
        if self.mean is not None:
            inputs = inputs - self.mean
        if self.std is not None:
            inputs = inputs / self.std
        return inputs

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1].

        Raises:
            InputError: the network returns no logits, or it is not obvious which they are.
        """
        return logits_of(self.model(self.preprocessed(images)), len(images), self.output)


class _Called(nn.Module):
    """A callable that is no module, as one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def wrap(
    model: nn.Module | Callable[[Tensor], Any],
    *,
    mean: Numbers | str | None = None,
    std: Numbers | str | None = None,
    resize: int | Sequence[int] | None = None,
    interpolation: str = "bilinear",
    grayscale: bool = False,
    input_range: Sequence[float] | None = None,
    output: OutputKey | None = None,
) -> Wrapped:
    """Return a network as one from images (N, C, H, W) in [0, 1] to logits (N, K).

    The preprocessing is applied inside, so that attacks see pixels: first grayscale and resize,
    then the range, then mean and std, which are meant in that range.

    Args:
        model: the network, as it was trained.
        mean: subtracted from the images; a number, one for each channel, or the name of a data set
            whose usual mean is meant ("cifar10", "imagenet"). With three numbers, the channel of
            grey images is repeated.
        std: what the images are then divided by, > 0; in the same forms. The name of a data set
            for one of mean and std alone stands for both.
        resize: height and width that the network takes; one number for a square. Images of another
            size are resized, differentiably.
        interpolation: of the resize, one of `INTERPOLATIONS`; the first two are antialiased.
        grayscale: whether the network takes one grey channel (ITU-R BT.601) of RGB images.
        input_range: what pixels in [0, 1] become, such as (-1, 1) or (0, 255).
        output: which part of what the network returns is the logits: a key, or a position in a
            tuple; None: what is obvious.

    Raises:
        InputError: an argument of another form.
    """
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise InputError(f"expected a module or a callable, got {type(model).__name__}")
        model = _Called(model)
    mean, std = _mean_and_std(mean, std)
    lengths = {len(each) for each in (mean, std) if each is not None} - {1}
    if len(lengths) > 1:
        raise InputError(
            f"expected as many values in mean as in std, got {len(mean or ())} and {len(std or ())}"
        )
    if std is not None and min(std) <= 0:
        raise InputError(f"std: expected numbers > 0, got {list(std)}")
    if grayscale and lengths - {1}:
        raise InputError(
            f"grayscale: expected one value in mean and std, got {max(lengths)}; a network that "
            "takes three grey channels converts them itself"
        )
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
        )
    return Wrapped(
        model,
        mean=mean,
        std=std,
        resize=None if resize is None else _size(resize),
        interpolation=interpolation,
        channels=1 if grayscale else next(iter(lengths), None),
        input_range=None if input_range is None else _range(input_range),
        output=output,
    ).train(is_training(model))


def with_logits(
    module: nn.Module,
    example: Tensor,
    *,
    name: str = "the model",
    output: OutputKey | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a module whose outputs are logits, and how they are read, by one pass.

    Args:
        module: on the device of the example.
        example: images (n, C, H, W) in [0, 1].
        name: of the module, for messages.
        output: which part is meant; None: what is obvious.

    Returns:
        the module itself where it returns one tensor that is read as it is, else the module
        wrapped; and notes, a line each.

    Raises:
        InputError: it is not obvious which output is meant.
    """
    inner = module.model if isinstance(module, Wrapped) else module
    given = module.preprocessed(example) if isinstance(module, Wrapped) else example.clone()
    declared = output
    if declared is None and isinstance(module, Wrapped):
        declared = module.output
    with torch.no_grad():
        answer = inner(given)
    try:
        notes = describe_logits(answer, len(example), declared)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    if isinstance(module, Wrapped) or not notes:
        return module, notes
    return Wrapped(module, output=output).train(is_training(module)), notes


def read_outputs(
    module: nn.Module,
    shape: Sequence[int] | None,
    output: OutputKey | None = None,
    name: str = "the network",
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a module whose outputs are logits, and what is converted inside, by a blank image.

    Args:
        module: in eval mode, before its first pass.
        shape: (C, H, W) of the images; None where it is not known yet.
        output: which part of what it returns is meant; None: what is obvious.
        name: of the module, for messages.

    Returns:
        the module, wrapped where it returns more than a tensor of logits or where that cannot be
        found out yet; and notes, a line each.

    Raises:
        InputError: it is not obvious which output is meant, or a network of one channel has a mean
            of several.
    """
    if isinstance(module, Smoothed) or as_mix(module) is not None:
        return module, ()  # their outputs are our own; what they stand for is asked of them
    size = module.resize if isinstance(module, Wrapped) else None
    example = torch.zeros(PROBES, *(shape or (3, *(size or USUAL_SIZE))))
    try:
        module, notes = with_logits(module, example, name=name, output=output)
    except InputError:
        raise
    except FOREIGN_ERRORS:  # the checks that a run begins with say it, on real images
        _check_grey(module, example, name)
        notes = ()
        if shape is None and not isinstance(module, Wrapped):
            module = wrap(module, output=output)
    return module, (*notes_of(module, shape), *notes)


def _check_grey(module: nn.Module, example: Tensor, name: str) -> None:
    """Refuse several values for mean or std where network and images have one channel.

    Args:
        module: that fails on the example.
        example: images (n, C, H, W) in [0, 1].
        name: of the module, for messages.
    """
    if not isinstance(module, Wrapped) or example.shape[1] != 1 or (module.channels or 1) == 1:
        return
    try:
        with torch.no_grad():
            module.model(module.preprocessed(example)[:, :1])
    except FOREIGN_ERRORS:
        return
    raise InputError(
        f"{name}: mean or std has {module.channels} values, the images 1 channel, which the "
        "network takes as it is; give one value"
    )


def notes_of(module: nn.Module, shape: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return what preprocessing a wrapped module applies, a line each; () for other modules.

    Args:
        shape: (C, H, W) of the images, where it is known.
    """
    if not isinstance(module, Wrapped):
        return ()
    notes = []
    came = tuple(shape) if shape is not None else None
    if module.channels == 1 and (came is None or came[0] != 1):
        notes.append("images converted to one grey channel inside the network")
    if module.channels == 3 and came is not None and came[0] == 1:
        notes.append("the grey channel repeated three times inside the network")
    if module.resize is not None and (came is None or came[1:] != module.resize):
        size = "x".join(map(str, module.resize))
        said = f" from {came[1]}x{came[2]}" if came is not None else ""
        notes.append(f"images resized{said} to {size} inside the network ({module.interpolation})")
    if module.input_range is not None:
        low, high = module.input_range
        notes.append(f"pixels scaled to [{low:g}, {high:g}] inside the network")
    parts = [
        f"{word} {', '.join(f'{number:.4g}' for number in tensor.flatten().tolist())}"
        for word, tensor in (("mean", module.mean), ("deviation", module.std))
        if tensor is not None
    ]
    if parts:
        notes.append(f"images normalized inside the network by {' and '.join(parts)}")
    return tuple(notes)


def _with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Return images with a number of channels: grey of RGB, or grey repeated."""
    came = images.shape[1]
    if channels is None or channels == came:
        return images
    if channels == 1 and came == 3:
        return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    if came == 1:
        return images.expand(-1, channels, -1, -1)
    raise InputError(f"expected images with {channels} channels for this network, got {came}")


def _mean_and_std(
    mean: Numbers | str | None, std: Numbers | str | None
) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and deviation; the name of a data set for one of them alone stands for both.

    A network that was trained on images normalized by a data set's mean was trained on images
    divided by its deviation too: without it the accuracy is silently too low.

    Raises:
        InputError: neither numbers nor the name of a data set whose values are known.
    """
    subtracted, divisor = _values(mean, "mean"), _values(std, "std")
    if std is None and isinstance(mean, str):
        divisor = _values(mean, "std")
    if mean is None and isinstance(std, str):
        subtracted = _values(std, "mean")
    return subtracted, divisor


def _values(value: Numbers | str | None, name: str) -> list[float] | None:
    if value is None:
        return None
    if isinstance(value, str):
        dataset = named_datasets().get(value)
        found = dataset and (dataset.mean if name == "mean" else dataset.standard_deviation)
        if not found:
            known = [each.name for each in named_datasets().values() if each.mean]
            raise InputError(
                f"{name}: expected numbers or one of {', '.join(known)}; got {value!r}"
            )
        return list(found)
    try:
        numbers = [float(each) for each in _flat(value)]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected numbers, got {value!r}") from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{name}: expected finite numbers, one a channel, got {value!r}")
    return numbers


def _flat(value: Any) -> list[Any]:
    if isinstance(value, Tensor):
        return value.detach().flatten().tolist()
    return [value] if isinstance(value, int | float) else list(value)


def _size(value: int | Sequence[int]) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise InputError(f"resize: expected a size > 0, or height and width; got {value!r}")
    return sides[0], sides[1]


def _range(value: Sequence[float]) -> tuple[float, float]:
    ends = tuple(map(float, value))
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
        raise InputError(
            f"input_range: expected two numbers, the smaller one first, such as [-1, 1]; got "
            f"{list(value)}"
        )
    return ends[0], ends[1]
