"""Adversarial images from earlier runs of a suite, to be tried on a candidate first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from bench.engines import Task, Trials
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import FloatArray, Witnesses
from bench.store.same_candidate import same_candidate


def known_witnesses(manifest: Manifest, task: Task, store: Store) -> Trials | None:
    """Return the witnesses of the suite's complete runs on the same data, newest first.

    Runs of this candidate are left out, so that its result depends on its own attacks. Runs of its
    earlier versions with other weights are included. Runs that cannot be read are left out and
    logged.
    """
    read = store.readable(lambda run: _witnesses_of(run, manifest, task), manifest.suite)
    found = [each for each in read if each is not None]
    if not found:
        return None
    found.sort(key=lambda each: each.finished, reverse=True)
    return Trials(
        torch.from_numpy(np.concatenate([each.witnesses.index for each in found])),
        torch.from_numpy(np.concatenate([each.witnesses.images for each in found])),
        torch.from_numpy(np.concatenate([each.passes for each in found])),
    )


class _Known(NamedTuple):
    """Witnesses of one run.

    Attributes:
        finished: time when the run ended.
        witnesses: of n samples.
        passes: (n,) that the run spent on each of them.
    """

    finished: str
    witnesses: Witnesses
    passes: FloatArray


def _witnesses_of(run: RunFolder, manifest: Manifest, task: Task) -> _Known | None:
    """Return a run's witnesses; None if it has none, or none that may be tried.

    Raises:
        InputError: the run cannot be read.
    """
    other = run.manifest()
    if (
        same_candidate(other, manifest)
        or other.dataset.name != manifest.dataset.name
        or other.threat_model.norm != manifest.threat_model.norm
    ):
        return None
    witnesses = run.witnesses(task.images.numpy(), task.indices.tolist(), others=True)
    if witnesses is None or not len(witnesses.index):
        return None
    spent = run.attempts().groupby("index")[["forward_passes", "backward_passes"]].sum()
    passes = spent.sum(axis=1).reindex(witnesses.index.tolist(), fill_value=0.0).to_numpy()
    return _Known(run.summary().finished, witnesses, passes)
