"""The weights file of a submission: in its folder, in an installed package, or at an address."""

from __future__ import annotations

import importlib.util
import urllib.error
from pathlib import Path
from urllib.parse import urlparse

import torch

from bench.candidates.candidate import Availability
from bench.candidates.submission import FILE, Submission, inside
from bench.candidates.weights import file_sha256
from bench.errors import InputError, Unavailable

IN_PACKAGE = "package://"


def weights_availability(submission: Submission, model_dir: Path) -> Availability:
    """Return whether a submission's own weights are on this disk; others are downloaded.

    Args:
        model_dir: where downloaded weights are kept.
    """
    weights = submission.weights
    if weights is None or not _is_address(weights):
        return Availability(here=True)
    is_here = _download_path(submission, model_dir).exists()
    return Availability(is_here, "" if is_here else f"weights from {weights}")


def weights_file(folder: Path, submission: Submission, model_dir: Path) -> Path:
    """Return the path of a submission's weights file, which is downloaded if need be.

    Args:
        folder: of the submission.
        submission: one with the field `weights`.
        model_dir: where downloaded weights are kept.

    Raises:
        InputError: there is no such file, or it lies outside the folder.
        Unavailable: the weights cannot be downloaded.
    """
    weights = submission.weights
    assert weights is not None
    if weights.startswith(IN_PACKAGE):
        return package_file(weights, folder / FILE)
    if _is_address(weights):
        return _download(folder, submission, model_dir)
    path = inside(folder, weights, "weights")
    if not path.is_file():
        raise InputError(f"{folder / FILE}: field weights: {path} does not exist")
    return path


def checked_digest(path: Path, folder: Path, submission: Submission) -> str:
    """Return the SHA-256 of a weights file, which is the one that the submission says.

    Raises:
        InputError: it is not.
    """
    came = file_sha256(path)
    if came != submission.sha256:
        raise InputError(
            f"{path}: expected SHA-256 {submission.sha256} as in {folder / FILE}, "
            f"got {came}. Restore the file, or correct field sha256 if it was trained anew."
        )
    return came


def package_file(reference: str, origin: Path) -> Path:
    """Return the file that package://<package>/<file> names in an installed package."""
    package, _, name = reference.removeprefix(IN_PACKAGE).partition("/")
    if not name or not all(part.isidentifier() for part in package.split(".")):
        raise InputError(
            f"{origin}: field weights: expected package://<package>/<file>, such as "
            f"package://my_models/weights.safetensors; got {reference!r}"
        )
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # a package that is named within another one
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = inside(Path(folder), name, "weights")
        if path.is_file():
            return path
    raise InputError(f"{origin}: field weights: no file {name!r} in installed package {package!r}")


def _is_address(weights: str) -> bool:
    return "://" in weights and not weights.startswith(IN_PACKAGE)


def _download_path(submission: Submission, model_dir: Path) -> Path:
    name = Path(urlparse(str(submission.weights)).path).name or "weights"
    return model_dir / "submissions" / str(submission.sha256) / name


def _download(folder: Path, submission: Submission, model_dir: Path) -> Path:
    url = str(submission.weights)
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{folder / FILE}: field weights: expected http(s), got {url!r}")
    path = _download_path(submission, model_dir)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (urllib.error.URLError, OSError) as error:
            raise Unavailable(f"weights cannot be downloaded from {url}: {error}") from error
    return path
