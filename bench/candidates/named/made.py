"""From a network that some library or function made to a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from bench.candidates.candidate import Availability, Candidate, Information
from bench.candidates.checkpoints import mappings
from bench.candidates.identity import digest, state_of
from bench.candidates.named.options import Options
from bench.candidates.object_digest import object_digest
from bench.candidates.own_type import in_own_type
from bench.candidates.sources import Search
from bench.candidates.tensor_files import read_tensor_file
from bench.candidates.wrapped import read_outputs, wrap
from bench.data import image_shape, named_datasets
from bench.errors import InputError
from bench.modules import in_eval_mode

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Made:
    """A network as its library or function made it.

    Attributes:
        module: from images as it was trained on to whatever it returns.
        architecture: its name.
        conversion: arguments of `wrap`, as the library says; the user's options replace them.
        transform: from a PIL image to (C, H, W) in [0, 1] of the network's size, for data sets
            whose images have no common size.
        notes: on its weights, a line each.
    """

    module: nn.Module
    architecture: str
    conversion: Mapping[str, Any] = field(default_factory=dict)
    transform: Transform | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceReference:
    """A candidate that a source finds by what the user wrote.

    Attributes:
        name: as the user writes it.
        options: what the user says beside the name.
        search: the data set and folders.
        make: builds the network; raises InputError and Unavailable.
        missing: returns what would have to be downloaded, "" for nothing.
    """

    name: str
    options: Options
    search: Search
    make: Callable[[], Made]
    missing: Callable[[], str] = lambda: ""

    @property
    def norms(self) -> frozenset[str]:
        """Unknown."""
        return frozenset()

    def availability(self) -> Availability:
        """Return whether nothing has to be downloaded."""
        note = self.missing()
        return Availability(here=not note, note=note)

    def load(self) -> Candidate:
        """Build the network and put its preprocessing inside.

        Raises:
            Unavailable: weights cannot be downloaded.
            InputError: the network cannot be built, or returns no logits.
        """
        made = self.make()
        network = in_eval_mode(made.module)
        # Before the first pass: a module may keep something of the images that it has seen.
        state = state_of(network)
        conversion = _conversion(made.conversion, self.options.conversion)
        try:
            module: nn.Module = wrap(network, **conversion) if conversion else network
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        whole = object_digest(module, [(network, state.sha256)])
        shape = image_shape(self.search.dataset)
        module, given = in_own_type(module, shape)
        module, notes = read_outputs(module, shape, name=f"candidate {self.name}")
        dataset = named_datasets().get(self.search.dataset)
        declared = ["randomized"] if self.options.randomized else []
        return Candidate(
            name=self.name,
            module=module,
            weights_sha256={"weights": state.sha256},
            definition_sha256=digest([made.architecture, whole.sha256, *declared]),
            information=Information(
                architecture=made.architecture,
                weights=made.notes,
                conversions=(*given, *notes),
            ),
            randomized=self.options.randomized,
            preprocessing=made.transform if dataset and dataset.preprocessed else None,
            unidentified=state.unidentified,
        )


def _conversion(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a library's preprocessing with what the user says in its place.

    Mean, deviation and range belong together: who says one of them says all.
    """
    scale = ("mean", "std", "input_range")
    kept = {
        key: value
        for key, value in own.items()
        if value is not None and not (key in scale and given.keys() & set(scale))
    }
    return kept | dict(given)


def classes_in(checkpoint: Path, module: nn.Module) -> int | None:
    """Return how many classes the weights of a file are for, by the network's last layer.

    Args:
        module: the same network, perhaps for another number of classes.

    Returns:
        None where the file does not say it, or says two numbers.

    Raises:
        InputError: the file cannot be read.
    """
    layers = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        return None
    found = {
        len(value)
        for _, node in mappings(read_tensor_file(checkpoint, "weights"))
        for name, value in dict.items(node)
        if isinstance(name, str)
        and f".{name}".endswith(f".{layers[-1]}.weight")
        and isinstance(value, Tensor)
        and value.ndim
    }
    return found.pop() if len(found) == 1 else None


def pillow_transform(resize: int | list[int], crop: int | list[int], resample: Any) -> Transform:
    """Return the usual evaluation transform: shorter side resized, centre cropped, to [0, 1].

    Args:
        resize: length of the shorter side, or height and width.
        crop: side of the square in the middle, or height and width.
        resample: torchvision's `InterpolationMode`.
    """

    def transform(image: Any) -> Tensor:
        from torchvision.transforms import functional

        resized = functional.resize(image.convert("RGB"), resize, interpolation=resample)
        pixels = functional.pil_to_tensor(functional.center_crop(resized, crop))
        return cast(Tensor, pixels.float() / 255)

    return transform
