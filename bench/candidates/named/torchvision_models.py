"""Classifiers of torchvision: `torchvision:resnet18`, `torchvision:resnet18/IMAGENET1K_V1`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.candidates.named.made import Made, SourceReference, classes_in, pillow_transform
from bench.candidates.named.options import Options, read_options
from bench.candidates.named.requirements import in_one_line, unavailable
from bench.candidates.sources import CandidateSource, Search, unknown
from bench.candidates.weights import load_weights
from bench.errors import FOREIGN_ERRORS, InputError

PREFIX = "torchvision:"


class TorchvisionSource(CandidateSource):
    """Finds torchvision's classifiers; the preprocessing is that of the weights' transforms."""

    title = "torchvision"
    prefix = PREFIX

    def takes_options(self, name: str) -> bool:
        """Return that it may."""
        return True

    def find(self, name: str, search: Search) -> list[SourceReference]:
        """Return the model with the weights that are named, or its default ones.

        Raises:
            InputError: torchvision has no such classifier, or no such weights of it.
        """
        text, options = read_options(name)
        model, _, chosen = text.removeprefix(PREFIX).partition("/")
        if model not in _classifiers():
            raise unknown(name, self.names(search))
        weights = weights_named(name, model, chosen)
        make = partial(make_model, name, model, weights, options)
        missing = partial(_missing, weights, options)
        return [SourceReference(name, options, search, make, missing)]

    def names(self, search: Search) -> list[str]:
        """Return the names of all classifiers."""
        return [f"{PREFIX}{model}" for model in _classifiers()]


def make_model(name: str, model: str, weights: Any, options: Options) -> Made:
    """Build a classifier with its weights.

    Args:
        name: as the user writes it, for messages.
        model: as torchvision calls it.
        weights: a member of its weights enum; beside a checkpoint only for the preprocessing.

    Raises:
        InputError: the weights do not fit.
        Unavailable: they cannot be downloaded.
    """
    from torchvision.models import get_model

    notes: list[str] = []
    module: nn.Module
    if options.checkpoint is not None:
        try:
            module = get_model(model)
            classes = options.classes or classes_in(options.checkpoint, module)
            if classes is not None:
                module = get_model(model, num_classes=classes)
        except InputError:
            raise
        except FOREIGN_ERRORS as error:
            raise InputError(
                f"{name}: torchvision cannot build it: {in_one_line(error)}"
            ) from error
        notes = load_weights(module, options.checkpoint, options.key)
    else:
        try:
            module = get_model(model, weights=weights, progress=False)
        except FOREIGN_ERRORS as error:
            if _missing(weights, options):
                raise unavailable(name, f"its weights from {weights.url}", error) from error
            raise InputError(f"{name}: torchvision cannot load it: {in_one_line(error)}") from error
    transforms = weights.transforms()
    (crop,), (size,) = transforms.crop_size, transforms.resize_size
    conversion = {
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "resize": [crop, crop],
        "interpolation": transforms.interpolation.value,
    }
    chosen = "" if options.checkpoint is not None else f"/{weights.name}"
    return Made(
        module,
        f"torchvision:{model}{chosen}",
        conversion,
        pillow_transform(size, crop, transforms.interpolation),
        tuple(notes),
    )


def _classifiers() -> list[str]:
    from bench.robustbench import check_torchvision

    check_torchvision()
    from torchvision import models

    found: list[str] = models.list_models(module=models)
    return found


def weights_named(name: str, model: str, chosen: str) -> Any:
    from torchvision.models import get_model_weights

    members = get_model_weights(model)
    if not chosen:
        return members.DEFAULT
    found = members.__members__.get(chosen.rpartition(".")[2])
    if found is None:
        raise InputError(
            f"{name}: expected weights among {', '.join(members.__members__)}; got {chosen!r}"
        )
    return found


def _missing(weights: Any, options: Options) -> str:
    if options.checkpoint is not None:
        return ""
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]
    return "" if file.is_file() else f"weights from {weights.url}"
