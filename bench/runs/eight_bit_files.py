"""A run's witnesses as 8-bit images, and which of them still fool the candidate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bench.attacks.eight_bit import eight_bit_images
from bench.candidates import Candidate
from bench.data import Dataset
from bench.runs.verify import check_answers, check_candidate, check_kind
from bench.runs.witness_judge import Judge
from bench.store import RunFolder
from bench.store.gallery import spread
from bench.store.records import ImageArray, IntArray, TextArray


@dataclass(frozen=True)
class EightBitFiles:
    """Witnesses on the 8-bit grid.

    Attributes:
        index: (n,) places in the data set.
        labels: (n,) true classes.
        attack: (n,) names of the attacks that found the witnesses.
        prediction: (n,) classes of the witnesses as found; -1: none.
        eight_bit_prediction: (n,) classes of the images on the grid; -1: none.
        fools: (n,) whether they break their samples from inside their balls.
        clean: (n, C, H, W) float32 in [0, 1].
        adversarial: (n, C, H, W) float32, multiples of 1/255.
    """

    index: IntArray
    labels: IntArray
    attack: TextArray
    prediction: IntArray
    eight_bit_prediction: IntArray
    fools: np.ndarray[tuple[int], np.dtype[np.bool_]]
    clean: ImageArray
    adversarial: ImageArray


def eight_bit_files(
    folder: RunFolder,
    candidate: Candidate,
    dataset: Dataset,
    device: torch.device,
    batch_size: int = 250,
    limit: int | None = None,
) -> EightBitFiles | None:
    """Round a run's witnesses to 8 bits inside their balls, and run the candidate on them.

    Args:
        folder: the folder of a complete run.
        candidate: the same candidate as when the run was made.
        dataset: the samples of the run.
        limit: take so many, different attacks and classes first; None: all.

    Returns:
        the images by index; None if no sample was broken by an attack.

    Raises:
        InputError: it is another candidate than the run's, the run keeps no witnesses, or files are
            damaged.
    """
    manifest = folder.manifest()
    check_kind(manifest)
    check_candidate(candidate, manifest)
    check_answers(candidate, manifest, tuple(dataset.images.shape[1:]), device)
    witnesses = folder.witnesses(dataset.images.numpy(), dataset.indices.tolist())
    if witnesses is None:
        return None
    chosen = sorted(spread(witnesses.attack.tolist(), witnesses.prediction.tolist())[:limit])
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    index = witnesses.index[chosen]
    rows = torch.tensor([place[value] for value in index.tolist()])
    clean, labels = dataset.images[rows], dataset.labels[rows]
    judge = Judge(candidate, device, manifest.seed, batch_size)
    images, fools, classes = eight_bit_images(
        torch.from_numpy(witnesses.images[chosen]),
        clean,
        labels,
        judge.classes,
        manifest.threat_model.norm,
        manifest.threat_model.eps,
    )
    return EightBitFiles(
        index=index,
        labels=labels.numpy(),
        attack=witnesses.attack[chosen],
        prediction=witnesses.prediction[chosen],
        eight_bit_prediction=classes.numpy(),
        fools=fools.numpy(),
        clean=clean.numpy(),
        adversarial=images.numpy(),
    )
