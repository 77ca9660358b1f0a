"""The source of a suite's images and labels, as in its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from bench.data.class_names import numbered
from bench.data.registry import DatasetName
from bench.validation import StrictModel

KINDS = ("name", "torchvision", "folder", "npz")

_BESIDE = {
    "arguments": ("torchvision",),
    "classes": ("folder", "npz", "torchvision"),
    "class_order": ("folder",),
    "channels": ("folder", "torchvision"),
    "layout": ("npz",),
}
"""The kinds of sources beside which a field means something."""


def _class_names(value: Any) -> Any:
    """Turn 10 into "0" ... "9", and a list of texts and integers into texts."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return numbered(value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            "expected the class names in the order of the network's outputs, or their number "
            "where they are called 0, 1, 2, ..., such as [cat, dog]"
        )
    for name in value:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"expected names of classes; {name!r} is none, put it in quotes")
    names = tuple(str(name) for name in value)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"expected each class once; {', '.join(repeated)} is repeated")
    return names


ClassNames = Annotated[tuple[str, ...] | None, BeforeValidator(_class_names)]


class DataSource(StrictModel):
    """Where images and labels come from: exactly one of `name`, `torchvision`, `folder`, `npz`."""

    model_config = ConfigDict(json_schema_extra={"examples": ["cifar10", {"folder": "images"}]})

    name: DatasetName | None = None
    """A data set of `bench.data.named_datasets()`."""
    torchvision: Annotated[str, Field(examples=["SVHN"])] | None = None
    """A class of torchvision.datasets, e.g. SVHN."""
    arguments: dict[str, Any] = Field(default={}, examples=[{"split": "test"}])
    """Further arguments of the torchvision class, e.g. {split: test}."""
    folder: Path | None = None
    """One subfolder of images a class."""
    npz: Annotated[Path, Field(examples=["images.npz"])] | None = None
    """Arrays `images` (N, C, H, W) or (N, H, W, C), uint8 or float in [0, 1], and `labels` (N,)."""
    classes: ClassNames = Field(default=None, validate_default=False, examples=[["cat", "dog"]])
    """All classes in the order of the network's outputs; the data may lack some of them."""
    class_order: ClassNames = Field(default=None, validate_default=False, examples=[["cat", "dog"]])
    """The class folders, each once, in the order of the network's outputs."""
    channels: Literal[1, 3] | None = None
    """Whether images are converted to grey or RGB; None: to RGB in folders."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """The axes of `images`; None: as their lengths say."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _checked(self) -> DataSource:
        self.check_fields()
        return self

    def check_fields(self) -> None:
        """Refuse fields that do not go together.

        Raises:
            ValueError: which ones.
        """
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            came = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of name, torchvision, folder, npz; got {came}")
        for field, kinds in _BESIDE.items():
            if getattr(self, field) and given[0] not in kinds:
                allowed = " or ".join(f"`{kind}`" for kind in kinds)
                raise ValueError(
                    f"expected `{field}` only beside {allowed}, got it beside `{given[0]}`"
                )
        if self.classes and self.class_order:
            raise ValueError("expected `classes` or `class_order`, got both")

    @property
    def kind(self) -> str:
        """The field that names the source: name, torchvision, folder or npz."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @property
    def label(self) -> str:
        """A short name for records and pages."""
        if self.folder is not None:
            return self.folder.name
        if self.npz is not None:
            return self.npz.stem
        return self.name or str(self.torchvision).lower()

    def relative_to(self, folder: Path) -> DataSource:
        """Return the same source with paths relative to `folder`."""
        changes = {
            field: folder / path
            for field in ("folder", "npz")
            if (path := getattr(self, field)) is not None
        }
        return self.model_copy(update=changes)
