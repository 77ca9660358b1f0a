"""Weights that a training begins from, in place of random ones: a submission's, or a file's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench.candidates.registry import default_model_dir, shipped_submissions
from bench.candidates.submission import FILE, read_submission
from bench.candidates.submission_weights import checked_digest, weights_file
from bench.candidates.weights import file_sha256, load_weights
from bench.errors import InputError
from bench.suggestion import did_you_mean
from bench.training.data import TrainingData
from bench.training.held_out import overlap


@dataclass(frozen=True)
class Start:
    """Weights to begin from.

    Attributes:
        weights: Their file.
        sha256: The file's digest.
        key: The key of the weights in the file, where a submission names one.
        dataset: The submission's; None for a file alone.
        training: What the submission says of its own training; empty for a file alone.
    """

    weights: Path
    sha256: str
    key: str | None
    dataset: str | None
    training: dict[str, object]

    def load(self, network: nn.Module) -> None:
        """Put the weights into a network of the same architecture.

        Raises:
            InputError: If they do not fit it.
        """
        try:
            load_weights(network, self.weights, self.key)
        except InputError as error:
            raise InputError(f"setting start: {error}") from error

    def check_held_out(self, data: TrainingData, held_out: int, seed: int) -> None:
        """Check that the earlier training held out every image that this one holds out.

        What was trained on other images, or does not say on which, passes.

        Args:
            data: The images of this training.
            held_out: How many of them it holds out.
            seed: This training's.

        Raises:
            InputError: If the earlier training saw one of them.
        """
        found = overlap(self.training, self.dataset, data, held_out, seed)
        if found is not None and found.seen:
            raise InputError(
                f"setting start: expected held-out images that {self.weights.parent} was not "
                f"trained on, got {found}, or held_out=0"
            )


def find_start(start: str) -> Start:
    """Return the weights that a setting names.

    Args:
        start: The name of a shipped submission, a submission's folder, or a weights file.

    Raises:
        InputError: If there is nothing of this name, or the submission has no network of its own,
            or its weights are not those that it names.
        Unavailable: If they cannot be downloaded.
    """
    path = shipped_submissions().get(start, Path(start))
    if not start:
        raise InputError(
            "setting start: expected a name or a path, got an empty text; leave it out"
        )
    if path.is_file() and _is_of_submission(path):
        path = path.parent
    if path.is_file():
        return Start(path, file_sha256(path), None, None, {})
    if not (path / FILE).is_file():
        hint = did_you_mean(start, list(shipped_submissions()))
        raise InputError(
            "setting start: expected a shipped submission, a folder with a submission.yaml or a "
            f"weights file, got {start!r}; {hint}".rstrip("; ")
        )
    submission = read_submission(path)
    if submission.weights is None or submission.bases is not None:
        raise InputError(
            "setting start: expected a submission with a network of its own and its weights, got "
            f"{path}, which has none"
        )
    weights = weights_file(path, submission, default_model_dir())
    return Start(
        weights,
        checked_digest(weights, path, submission),
        submission.weights_key,
        submission.dataset,
        submission.training,
    )


def _is_of_submission(path: Path) -> bool:
    """Return whether a file is the weights of the submission beside it, which says more of it."""
    if not (path.parent / FILE).is_file():
        return False
    return read_submission(path.parent).weights == path.name
