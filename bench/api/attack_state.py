"""A file from which attacks on tensors go on after an interruption.

It holds the engine's finished blocks and what they belong to. It is written whole (under another
name, synced, renamed), so that killing the process at any instant leaves a file that can be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api.attack_inputs import TRIED_IMAGES
from bench.candidates.object_digest import object_digest
from bench.engines.engine import AttackTask
from bench.errors import InputError
from bench.precision import tensor_cores
from bench.store.files import UNREADABLE, write
from bench.store.packing import block_arrays, block_of
from bench.store.records import FAILED, AttackBlock, IntArray
from bench.store.same_candidate import same_answers

FORMAT = "bench attack state 1"
SHARE_OF_TIME = 0.05
"""About the share of a run's time that may be spent on writing its state."""


class AttackState:
    """The finished blocks of one run, kept in a file.

    Attributes:
        blocks: by key; of an earlier run those without failed samples, which are tried again.
    """

    def __init__(self, path: Path, task: AttackTask) -> None:
        """Read the file if there is one.

        Args:
            path: of the file.
            task: whose blocks it holds.

        Raises:
            InputError: the file is no such state, or one of another run: of other images, labels,
                arguments, or another model.
        """
        self.path = path
        self.blocks: dict[str, AttackBlock] = {}
        self._belongs_to = _description(task)
        self._samples = len(task.labels)
        self._written_at = time.perf_counter()
        self._pause = 0.0
        if not path.parent.is_dir():
            raise InputError(f"state_path: expected a file in a folder that exists, got {path}")
        if path.exists():
            self._read()

    def add(self, block: AttackBlock) -> None:
        """Keep a block; the file is written now, or with a later one if it was written just now."""
        self.blocks[block.key] = block
        if time.perf_counter() - self._written_at >= self._pause:
            self.save()

    def save(self) -> None:
        """Write the file."""
        start = time.perf_counter()
        header = {
            "format": FORMAT,
            "belongs to": self._belongs_to,
            "samples": self._samples,
            "blocks": list(self.blocks),
        }
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        for number, block in enumerate(self.blocks.values()):
            content = block_arrays(block)
            arrays |= {f"{number}.{name}": value for name, value in content.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write(self.path, buffer.getvalue())
        self._written_at = time.perf_counter()
        self._pause = (self._written_at - start) / SHARE_OF_TIME

    def _read(self) -> None:
        with _readable(self.path) as archive:
            _check(self.path, _header(archive)["belongs to"], self._belongs_to)
            blocks = _blocks(archive)
        self.blocks = {key: each for key, each in blocks.items() if not len(_failed(each))}


def robust_samples(path: Path) -> Tensor:
    """Return which samples (N,) bool nothing has broken, from the file of a state.

    Samples on which the model raised an error are not among them: nothing is known of them.

    Raises:
        InputError: the file is no such state, or samples are not predicted yet.
    """
    with _readable(path) as archive:
        blocks = list(_blocks(archive).values())
        samples = _header(archive).get("samples")
    clean = [block.clean for block in blocks if block.clean is not None]
    predicted = sum(len(each.index) for each in clean)
    if samples is None and len(clean) < len(blocks):
        # A state without the number of samples; attacks begin when all samples are predicted.
        samples = predicted
    if predicted != samples:
        number = "" if samples is None else f"{samples:,} "
        raise InputError(
            f"{path}: expected predictions of all {number}samples, got {predicted:,}; the same "
            "call of run_standard_evaluation goes on from it"
        )
    robust = torch.zeros(samples, dtype=torch.bool)
    for each in clean:
        robust[torch.from_numpy(each.index)] = torch.from_numpy(each.prediction == each.label)
    for block in blocks:
        if block.witnesses is not None:
            robust[torch.from_numpy(block.witnesses.index)] = False
        robust[torch.from_numpy(_failed(block))] = False
    return robust


def _failed(block: AttackBlock) -> IntArray:
    """Return the samples on which the model raised an error."""
    if block.attempts is None:
        return np.array([], dtype=np.int64)
    failed: IntArray = block.attempts.index[block.attempts.outcome == FAILED]
    return failed


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a state, with one error for whatever is wrong with the file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = _header(archive)["format"]
            if found != FORMAT:
                raise ValueError(f"format {found!r}")
            yield archive
    except (*UNREADABLE, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: expected a state that bench.autoattack wrote, got another file or a damaged "
            f"one ({reason}); remove it to begin anew, or name another state_path"
        ) from error


def _header(archive: Any) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(str(archive["header"]))
    return header


def _blocks(archive: Any) -> dict[str, AttackBlock]:
    keys = _header(archive)["blocks"]
    return {
        key: block_of(_part(archive, f"{number}."), key, AttackBlock)
        for number, key in enumerate(keys)
    }


def _part(archive: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    names = [name for name in archive if name.startswith(prefix)]
    return {name.removeprefix(prefix): archive[name] for name in names}


def _description(task: AttackTask) -> dict[str, Any]:
    """Return what decides a run's results, as plain data."""
    return {
        "images": _sha256(task.images),
        "labels": _sha256(task.labels),
        "threat model": f"{task.threat_model.norm} {task.threat_model.eps!r}",
        "attacks": [choice.model_dump(mode="json") for choice in task.attacks],
        "seed": task.seed,
        "randomness": task.batch_size if task.randomized else None,
        "model's weights": object_digest(list(task.module.state_dict().values())).sha256,
        "model's answers": None if task.randomized else _answers(task),
    }


def _check(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse a state of another run, and say what differs.

    Raises:
        InputError: something does.
    """
    answers = "model's answers"
    same = {name: found.get(name) == value for name, value in expected.items()}
    same[answers] = same_answers(found.get(answers), expected[answers])
    differing = [name for name, is_same in same.items() if not is_same]
    if differing:
        raise InputError(
            f"{path}: expected the state of a run with the same {', '.join(differing)}; got that "
            "of another one. Remove it to begin anew, or name another state_path"
        )


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _answers(task: AttackTask) -> list[str]:
    """Return a line of logits for some of the images, as `same_answers` compares them."""
    images = task.images[:TRIED_IMAGES].to(task.device)
    with torch.no_grad(), tensor_cores(False):
        logits = [task.module(image[None].clone()).double().cpu()[0] for image in images]
    return [" ".join(f"{number:.6g}" for number in row.tolist()) for row in logits]
