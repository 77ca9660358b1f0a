"""Adversarial images from earlier runs of a suite, to be tried on a candidate first."""

from __future__ import annotations

import numpy as np
import torch

from bench.engines import Task, Trials
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.same_candidate import same_candidate


def known_witnesses(manifest: Manifest, task: Task, store: Store) -> Trials | None:
    """Return the witnesses of the suite's complete runs on the same data, newest first.

    Runs of this candidate are left out, so that its result depends on its own attacks. Runs of its
    earlier versions with other weights are included.
    """
    images, indices = task.images.numpy(), task.indices.tolist()
    found = []
    for run in store.runs(manifest.suite):
        if not run.is_complete:
            continue
        other = run.manifest()
        same_images = other.dataset.name == manifest.dataset.name
        if (
            same_candidate(other, manifest)
            or not same_images
            or other.threat_model.norm != manifest.threat_model.norm
        ):
            continue
        witnesses = run.witnesses(images, indices, others=True)
        if witnesses is not None and len(witnesses.index):
            spent = run.attempts().groupby("index")[["forward_passes", "backward_passes"]].sum()
            passes = spent.sum(axis=1).reindex(witnesses.index.tolist(), fill_value=0.0).to_numpy()
            found.append((run.summary().finished, witnesses, passes))
    if not found:
        return None
    found.sort(key=lambda run: run[0], reverse=True)
    return Trials(
        torch.from_numpy(np.concatenate([witnesses.index for _, witnesses, _ in found])),
        torch.from_numpy(np.concatenate([witnesses.images for _, witnesses, _ in found])),
        torch.from_numpy(np.concatenate([passes for _, _, passes in found])),
    )
