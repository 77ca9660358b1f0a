"""Model files: weights with an architecture, TorchScript, `torch.export` programs, ONNX."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bench.candidates.named import timm_models, torchvision_models
from bench.candidates.named.functions import SYNTAX, call, check_function
from bench.candidates.named.made import Made, SourceReference
from bench.candidates.named.options import NAMES, Options, read_options
from bench.candidates.named.requirements import in_one_line, required
from bench.candidates.sources import CandidateSource, Search
from bench.candidates.submission import FILE as SUBMISSION
from bench.candidates.weights import load_weights
from bench.errors import FOREIGN_ERRORS, InputError

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors", ".npz", ".pt2", ".onnx")
LIBRARIES = (timm_models.PREFIX, torchvision_models.PREFIX)
ALLOWED = tuple(name for name in NAMES if name != "checkpoint")


def is_model_file(name: str) -> bool:
    """Return whether a name means a file: one that exists, or has the ending of one.

    Raises:
        InputError: it is the file of a submission, which is named by its folder.
    """
    path = Path(name.partition(",")[0])
    if path.name == SUBMISSION and path.is_file():
        raise InputError(f"{name}: expected the submission's folder, such as {path.parent}")
    return path.is_file() or (path.suffix.lower() in SUFFIXES and not path.is_dir())


class ModelFileSource(CandidateSource):
    """Reads model files that are named by their paths."""

    title = "model file"

    def takes_options(self, name: str) -> bool:
        """Return whether it means a file."""
        return is_model_file(name)

    def find(self, name: str, search: Search) -> list[SourceReference]:
        """Return the file's candidate; none where the name means no file.

        Raises:
            InputError: the file does not exist, or needs an architecture.
        """
        if not is_model_file(name):
            return []
        text, options = read_options(name, ALLOWED)
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{text}: expected a model file, found none")
        make = partial(_make, path, options, search)
        return [SourceReference(_short(path), options, search, make)]


def with_architecture(names: tuple[str, ...], architecture: str | None) -> tuple[str, ...]:
    """Return candidates' names, the files among them with the architecture of their weights.

    Raises:
        InputError: an architecture is given, and none of the names means a file.
    """
    if architecture is None:
        return names
    if not any(map(is_model_file, names)):
        raise InputError(
            "--architecture: expected a weights file beside it, such as --candidate model.pt"
        )
    return tuple(
        f"{name},architecture={architecture}" if is_model_file(name) else name for name in names
    )


def _make(path: Path, options: Options, search: Search) -> Made:
    kind, load = _reader(path)
    if load is None:
        return _with_weights(path, options, search)
    if options.architecture is not None:
        raise InputError(
            f"{path}: {kind} brings its own architecture; leave out {options.architecture!r}"
        )
    try:
        module = load(path)
    except InputError:
        raise
    except FOREIGN_ERRORS as error:
        raise InputError(f"{path}: cannot be read as {kind}: {in_one_line(error)}") from error
    return Made(module, kind)


def _reader(path: Path) -> tuple[str, Callable[[Path], nn.Module] | None]:
    """Return what a file is that brings its own architecture, and what reads it; else None."""
    if path.suffix.lower() == ".onnx":
        return "an ONNX model", _onnx
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "a TorchScript archive", _torchscript
        if any(
            name.endswith(("serialized_exported_program.json", "archive_format"))
            or "/models/" in name
            for name in names
        ):
            return "a torch.export program", _exported
    return "", None


def _torchscript(path: Path) -> nn.Module:
    module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def _exported(path: Path) -> nn.Module:
    module: nn.Module = torch.export.load(path).module()
    return module


def _onnx(path: Path) -> nn.Module:
    converter = required("onnx2torch", str(path))
    module: nn.Module = converter.convert(str(path))
    return module


def _with_weights(path: Path, options: Options, search: Search) -> Made:
    architecture = options.architecture
    if architecture is None:
        raise InputError(
            f"{path}: expected the architecture of these weights beside them: --architecture "
            f"{SYNTAX}, or timm:NAME or torchvision:NAME"
        )
    name = str(path)
    with_file = replace(options, checkpoint=path, architecture=None)
    if architecture.startswith(timm_models.PREFIX):
        model = architecture.removeprefix(timm_models.PREFIX)
        return timm_models.make_model(name, model, with_file)
    if architecture.startswith(torchvision_models.PREFIX):
        model = architecture.removeprefix(torchvision_models.PREFIX)
        weights = torchvision_models.weights_named(name, *model.partition("/")[::2])
        return torchvision_models.make_model(name, model.partition("/")[0], weights, with_file)
    check_function(architecture, f"{path}: architecture")
    module = call(architecture, name)
    return Made(module, architecture, notes=tuple(load_weights(module, path, options.key)))


def _short(path: Path) -> str:
    """Return a file's name for records: relative to the current folder, or without its folder."""
    resolved, here = path.resolve(), Path.cwd().resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else path.name
