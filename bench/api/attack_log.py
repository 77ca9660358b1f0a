"""What AutoAttack's authors' program writes while it runs, from the engine's blocks."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.attacks.distances import Norm, norms
from bench.engines.attack_works import CLEAN_ATTEMPT
from bench.store.records import AttackBlock, Attempts


class Lines:
    """Writes lines to standard output, and to a file as well if there is one."""

    def __init__(self, log_path: str | Path | None, verbose: bool) -> None:
        self._path = log_path
        self._verbose = verbose

    def write(self, line: str) -> None:
        """Write a line, if lines are asked for."""
        if not self._verbose:
            return
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if self._path is not None:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


class RunLog:
    """Follows a run block by block.

    Several processes may be at several attacks at once, so an attack's accuracy is told when the
    last sample that survived before it has passed it.
    """

    def __init__(self, names: Sequence[str], samples: int, lines: Lines) -> None:
        """Begin a log.

        Args:
            names: of the attacks, in their order, as they are written.
            samples: how many are evaluated.
            lines: where it is written.
        """
        self._names = names
        self._lines = lines
        self._clean = np.zeros(samples, dtype=bool)
        self._predicted = np.zeros(samples, dtype=bool)
        self._passed = np.zeros((len(names), samples), dtype=bool)
        self._broken = np.zeros((len(names), samples), dtype=bool)
        self._told = -1
        self._start = time.perf_counter()

    def restore(self, blocks: Sequence[AttackBlock]) -> None:
        """Take in what an earlier, interrupted run has done."""
        for block in blocks:
            self._take(block)
        self._tell_initial()
        if self._predicted.all():
            accuracy = self._accuracy(len(self._names))
            self._lines.write(f"robust accuracy at the time of restoring the state: {accuracy:.2%}")
        self._tell_finished()

    def add(self, block: AttackBlock) -> None:
        """Take in a new block, and write what it completes."""
        self._take(block)
        if block.clean is not None:
            self._tell_initial()
        if (attempts := _attempts(block)) is not None:
            stage = _stage(block)
            broken, attempted = int((attempts.outcome == "broken").sum()), self._passed[stage]
            self._lines.write(
                f"{self._names[stage]} - {attempted.sum()}/{self._entering(stage).sum()} - "
                f"{broken} out of {len(attempts.index)} successfully perturbed"
            )
        self._tell_finished()

    def finish(self, images: Tensor, clean: Tensor, robust: Tensor, norm: Norm) -> None:
        """Write what came out.

        Args:
            images: (N, C, H, W) that are returned.
            clean: (N, C, H, W) that came.
            robust: (N,) bool.
            norm: of the ball.
        """
        moved = norms((images.double() - clean.detach().double()).flatten(1), norm)
        self._lines.write(
            f"max {norm} perturbation: {float(moved.max()):.5f}, nan in tensor: "
            f"{int(images.isnan().sum())}, max: {float(images.max()):.5f}, min: "
            f"{float(images.min()):.5f}"
        )
        self._lines.write(f"robust accuracy: {float(robust.float().mean()):.2%}")

    def lowered_by(self, name: str) -> float:
        """Return by how much an attack lowered the accuracy that attacks before it had left.

        0 if it is the first, or was not run.
        """
        stage = self._names.index(name) if name in self._names else 0
        return self._accuracy(stage) - self._accuracy(stage + 1) if stage else 0.0

    def _take(self, block: AttackBlock) -> None:
        if block.clean is not None:
            right = block.clean.prediction == block.clean.label
            self._clean[block.clean.index] = right
            self._predicted[block.clean.index] = True
        if (attempts := _attempts(block)) is not None:
            stage = _stage(block)
            self._passed[stage, attempts.index] = True
            self._broken[stage, attempts.index] = attempts.outcome == "broken"

    def _entering(self, stage: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which samples (N,) survive before an attack, as far as is known."""
        standing: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._clean & ~self._broken[
            :stage
        ].any(axis=0)
        return standing

    def _accuracy(self, stage: int) -> float:
        return float(self._entering(stage).mean())

    def _tell_initial(self) -> None:
        if self._told < 0 and self._predicted.all():
            self._told = 0
            self._lines.write(f"initial accuracy: {self._clean.mean():.2%}")

    def _tell_finished(self) -> None:
        while 0 <= self._told < len(self._names):
            stage = self._told
            entering = self._entering(stage)
            if not entering.any() or not self._passed[stage, entering].all():
                return
            self._told += 1
            name, accuracy = self._names[stage], self._accuracy(stage + 1)
            seconds = time.perf_counter() - self._start
            self._lines.write(
                f"robust accuracy after {name.upper()}: {accuracy:.2%} (total time {seconds:.1f} s)"
            )


def _attempts(block: AttackBlock) -> Attempts | None:
    """Return a block's attempts by an attack; None if the sample failed before any attack."""
    attempts = block.attempts
    return None if attempts is None or CLEAN_ATTEMPT in attempts.attack else attempts


def _stage(block: AttackBlock) -> int:
    """Return the number of the attack, from 0, that a block belongs to."""
    return int(block.key.partition("-")[0]) - 1
