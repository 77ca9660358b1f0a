"""Submissions: candidates that live in a folder with a `submission.yaml`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

import torch
from pydantic import Field, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.candidates.candidate import Availability, Candidate, Information, Paper
from bench.candidates.smoothed import Smoothed
from bench.errors import InputError, Unavailable
from bench.suites import ThreatModel
from bench.validation import StrictModel, read_yaml, validate

FILE = "submission.yaml"
OWN_PREFIX = "bench.candidates."


class Submission(StrictModel):
    """The fields of a `submission.yaml`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    dataset: str
    threat_models: tuple[ThreatModel, ...] = ()
    """What it was trained to withstand; empty for a network trained without attacks."""
    architecture: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:function`, in the folder's own Python file or below bench.candidates."""
    architecture_args: dict[str, Any] = {}
    weights: str | None = None
    """A file in the folder, a URL, or package://<package>/<file> of an installed package."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    paper: Paper | None = None
    training: dict[str, Any] = {}
    additional_data: bool = False
    randomized: bool = False
    claim: str | None = None
    """The id under which RobustBench's leaderboard lists this model."""

    @field_validator("sha256", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _digest_beside_weights(self) -> Submission:
        if self.weights is not None and self.sha256 is None:
            raise ValueError("expected `sha256` beside `weights`: the digest of the weights file")
        return self


@dataclass(frozen=True)
class SubmissionReference:
    """A submission in `folder`.

    Attributes:
        trust_code: whether Python code in the folder may run.
        model_dir: where downloaded weights are kept.
    """

    folder: Path
    submission: Submission
    trust_code: bool
    model_dir: Path

    @property
    def name(self) -> str:
        """The submission's name."""
        return self.submission.name

    def availability(self) -> Availability:
        """Whether the weights are on this disk."""
        weights = self.submission.weights
        if weights is None or "://" not in weights or weights.startswith("package://"):
            return Availability(here=True)
        path = self._download_path()
        return Availability(path.exists(), "" if path.exists() else f"weights from {weights}")

    def load(self) -> Candidate:
        """Build the architecture and load its weights.

        Raises:
            InputError: code that is not trusted, an architecture that cannot be built, weights
                that are missing, differ from their digest or do not fit.
            Unavailable: the weights cannot be downloaded.
        """
        module = self._build()
        digests: dict[str, str] = {}
        if self.submission.weights is not None:
            path = self._weights_path()
            digests["weights"] = self._check_digest(path)
            load_weights(module, path)
        smoothed = module if isinstance(module, Smoothed) else None
        return Candidate(
            name=self.name,
            module=module.eval(),
            weights_sha256=digests,
            definition_sha256=self._definition_sha256(),
            information=Information(
                architecture=self.submission.architecture,
                paper=self.submission.paper,
                training=self.submission.training,
                additional_data=self.submission.additional_data,
                threat_models=self.submission.threat_models,
                claim=self.submission.claim,
            ),
            randomized=self.submission.randomized,
            sigma=smoothed.sigma if smoothed else None,
            voter=smoothed.base if smoothed else None,
        )

    def _build(self) -> nn.Module:
        location, _, function = self.submission.architecture.partition(":")
        build = getattr(self._import(location), function, None)
        field = f"{self.folder / FILE}: field architecture"
        if not callable(build):
            raise InputError(f"{field}: expected a function in {location}, got {function!r}")
        try:
            module = build(**self.submission.architecture_args)
        except (TypeError, ValueError) as error:
            raise InputError(f"{field}_args: {error}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"{field}: expected an nn.Module, got {type(module).__name__}")
        return module

    def _import(self, location: str) -> Any:
        if location.startswith(OWN_PREFIX):
            try:
                return importlib.import_module(location)
            except ModuleNotFoundError as error:
                raise InputError(f"{self.folder / FILE}: field architecture: {error}") from error
        path = inside(self.folder, f"{location}.py", "architecture")
        if not path.is_file():
            raise InputError(
                f"{self.folder / FILE}: field architecture: expected a module below "
                f"{OWN_PREFIX[:-1]} or a file {path.name} beside it, got {location!r}"
            )
        if not self.trust_code:
            raise InputError(
                f"{path}: this submission brings its own code, which runs only if you name the "
                "folder by its path or pass --trust-code"
            )
        identity = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        spec = importlib.util.spec_from_file_location(f"bench_submission_{identity}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    def _weights_path(self) -> Path:
        weights = self.submission.weights
        assert weights is not None
        if weights.startswith("package://"):
            return package_file(weights, self.folder / FILE)
        if "://" in weights:
            return self._download(weights)
        path = inside(self.folder, weights, "weights")
        if not path.is_file():
            raise InputError(f"{self.folder / FILE}: field weights: {path} does not exist")
        return path

    def _download_path(self) -> Path:
        name = Path(urlparse(str(self.submission.weights)).path).name or "weights"
        return self.model_dir / "submissions" / str(self.submission.sha256) / name

    def _download(self, url: str) -> Path:
        if not url.startswith(("https://", "http://")):
            raise InputError(f"{self.folder / FILE}: field weights: expected http(s), got {url!r}")
        path = self._download_path()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(path), progress=False)
            except (urllib.error.URLError, OSError) as error:
                raise Unavailable(f"weights cannot be downloaded from {url}: {error}") from error
        return path

    def _check_digest(self, path: Path) -> str:
        came = file_sha256(path)
        if came != self.submission.sha256:
            raise InputError(
                f"{path}: expected SHA-256 {self.submission.sha256} as in {self.folder / FILE}, "
                f"got {came}. Restore the file, or correct field sha256 if it was trained anew."
            )
        return came

    def _definition_sha256(self) -> str:
        content = {
            "architecture": self.submission.architecture,
            "architecture_args": self.submission.architecture_args,
            "code": {
                str(path.relative_to(self.folder)): file_sha256(path)
                for path in sorted(self.folder.rglob("*.py"))
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_submission(folder: Path) -> Submission:
    """The validated `submission.yaml` of a folder.

    Raises:
        InputError: no such file, or a wrong field.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: expected a folder with a {FILE}, found none")
    return validate(Submission, read_yaml(path), path)


def inside(folder: Path, name: str, field: str) -> Path:
    """The path of a file that a submission names; it may not leave the folder.

    Raises:
        InputError: it does.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder / FILE}: field {field}: expected a path inside the folder, got {name!r}"
        )
    return folder / name


def package_file(reference: str, origin: Path) -> Path:
    """The file that package://<package>/<file> names in an installed package."""
    package, _, name = reference.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = inside(Path(folder), name, "weights")
        if path.is_file():
            return path
    raise InputError(f"{origin}: field weights: no file {name!r} in installed package {package!r}")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a .safetensors or a .pt file into a module, never running code from it.

    Raises:
        InputError: the file cannot be read, or its keys or shapes do not fit (which ones).
    """
    state = read_weights(path)
    expected = module.state_dict()
    problems = [
        *(f"missing {key}" for key in expected if key not in state),
        *(f"unexpected {key}" for key in state if key not in expected),
        *(
            f"{key}: expected shape {tuple(expected[key].shape)}, got {tuple(state[key].shape)}"
            for key in expected
            if key in state and expected[key].shape != state[key].shape
        ),
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        raise InputError(f"{path}: the weights do not fit the architecture: {shown}")
    module.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or a .pt file, on the CPU.

    Raises:
        InputError: the file is damaged, holds anything but tensors, or is of another format.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pt": lambda file: torch.load(file, map_location="cpu", weights_only=True),
    }
    readers[".pth"] = readers[".pt"]
    if path.suffix not in readers:
        raise InputError(f"{path}: expected weights in .safetensors, .pt or .pth")
    try:
        state = readers[path.suffix](path)
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as weights: {error}") from error
    except Exception as error:  # pickle's errors, and what a damaged zip raises
        raise InputError(f"{path}: refused, it holds more than tensors: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a mapping of names to tensors")
    return state


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
