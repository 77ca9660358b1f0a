"""The file `submission.yaml`, which makes a folder a candidate: its fields, and reading it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, field_validator, model_validator

from bench.candidates.bases import Bases
from bench.candidates.candidate import Paper
from bench.errors import InputError
from bench.suites.suite import DeclaredThreatModel
from bench.validation import StrictModel, read_yaml, validate

FILE = "submission.yaml"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


Function = Annotated[
    str, Field(pattern=FUNCTION, description="module:function", examples=["model:build"])
]
Digest = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{64}$",
        description="the file's SHA-256, 64 hexadecimal digits, as `sha256sum` prints it",
        examples=[hashlib.sha256().hexdigest()],
    ),
]


class Normalize(StrictModel):
    """The field `normalize`: a mean and a standard deviation, one number for each channel."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mean": [0.5], "std": [0.5]}]})

    mean: float | tuple[float, ...] | str | None = None
    """Numbers, or the name of a data set, which stands for both fields where it is alone."""
    std: float | tuple[float, ...] | str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_data_set(cls, value: Any) -> Any:
        return {"mean": value, "std": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _both_or_a_name(self) -> Normalize:
        given = {"mean": self.mean, "std": self.std}
        missing = [name for name, value in given.items() if value is None]
        if missing and not any(isinstance(value, str) for value in given.values()):
            raise ValueError(
                "expected mean and std, such as {mean: [0.5], std: [0.5]}, or the "
                f"name of a data set; got no {' and no '.join(missing)}"
            )
        return self


def _size(value: Any) -> Any:
    sides = tuple(value) if isinstance(value, list | tuple) else (value,)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not whole or len(sides) > 2 or not sides:
        raise ValueError("expected a whole number, or height and width")
    return value if isinstance(value, int) else sides


def _output(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a key, or a position from 0")
    return value


Size = Annotated[
    int | tuple[int, int], PlainValidator(_size), Field(description="a size", examples=[224])
]
OutputChoice = Annotated[
    int | str, PlainValidator(_output), Field(description="an output", examples=["logits"])
]


class Submission(StrictModel):
    """The fields of a `submission.yaml`."""

    name: Annotated[
        str,
        Field(
            pattern=NAME,
            description="letters, digits, '.', '_' and '-', with a letter or digit first",
            examples=["my-defence"],
        ),
    ]
    dataset: str = Field(description="the name of the suite's data set", examples=["cifar10"])
    threat_models: tuple[DeclaredThreatModel, ...] = ()
    """What it was trained to withstand; empty for a network trained without attacks."""
    architecture: Function
    """`module:function`, in the folder's own Python file or below bench.candidates."""
    architecture_args: dict[str, Any] = Field(default={}, examples=[{"width": 4}])
    weights: Annotated[str, Field(examples=["weights.safetensors"])] | None = None
    """A file in the folder, a URL, or package://<package>/<file> of an installed package."""
    sha256: Digest | None = None
    weights_key: Annotated[str, Field(examples=["state_dict"])] | None = None
    """The key of the weights in their file, where several would fit: `state_dict`, or `ema`."""
    paper: Paper | None = None
    training: dict[str, Any] = Field(default={}, examples=[{"recipe": "adversarial"}])
    additional_data: bool = False
    randomized: bool = False
    normalize: Normalize | None = None
    """What the network expects to be subtracted from its images, and what they are divided by."""
    resize: Size | None = None
    """Height and width that the network takes; images of another size are resized inside."""
    interpolation: Literal["bilinear", "bicubic", "nearest-exact"] = "bilinear"
    grayscale: bool = False
    """Whether the network takes one grey channel of RGB images."""
    input_range: Annotated[tuple[float, float], Field(examples=[[-1, 1]])] | None = None
    """What pixels in [0, 1] become before the network, and before `normalize`."""
    output: OutputChoice | None = None
    """Which part of what the network returns is the logits: a key or a position."""
    bases: Bases | None = None
    """For a mix: the candidates that the architecture gets as `accurate` and `robust`."""
    surrogate: Function | None = None
    """`module:function` from the network to a differentiable stand-in for the backward pass."""
    claim: Annotated[str, Field(examples=["Wang2023Better_WRN-70-16"])] | None = None
    """The id under which RobustBench's leaderboard lists this model."""

    @field_validator("threat_models", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @field_validator("sha256", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _digest_beside_weights(self) -> Submission:
        if self.weights is not None and self.sha256 is None:
            raise ValueError("expected `sha256` beside `weights`: the digest of the weights file")
        if self.weights is None and self.weights_key is not None:
            raise ValueError("expected `weights` beside `weights_key`: the file that has this key")
        return self


def read_submission(folder: Path) -> Submission:
    """Return the validated `submission.yaml` of a folder.

    Raises:
        InputError: no such file, or a wrong field.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: expected a folder with a {FILE}, found none")
    return validate(Submission, read_yaml(path), path)


def inside(folder: Path, name: str, field: str) -> Path:
    """Return the path of a file that a submission names; it may not leave the folder.

    Raises:
        InputError: it does.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder / FILE}: field {field}: expected a path inside the folder, got {name!r}"
        )
    return folder / name
