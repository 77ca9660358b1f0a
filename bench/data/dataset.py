"""Labelled images in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch is slow to import, and a suite's file is read without it
    from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in the order of the data set.

    Attributes:
        name: name in records.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64 in [0, K).
        indices: (N,) int64, each sample's place in the whole data set.
        classes: the K class names, in the order of the network's outputs.
        size: number of samples of the whole data set, >= N.
        notices: messages for the user about how the data were read.
    """

    name: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    classes: tuple[str, ...]
    size: int
    notices: tuple[str, ...] = ()

    @classmethod
    def whole(
        cls,
        name: str,
        images: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        notices: tuple[str, ...] = (),
    ) -> Dataset:
        """Return a data set of which all samples are given."""
        import torch

        size = len(labels)
        return cls(name, images, labels, torch.arange(size), classes, size, notices)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Dataset:
        """Return the first `n` samples."""
        return self._part(slice(n))

    def take(self, rows: Tensor) -> Dataset:
        """Return the samples in `rows` (n,), in that order."""
        return self._part(rows)

    def every(self, step: int) -> Dataset:
        """Return the first sample and every `step`-th after it."""
        return self._part(slice(None, None, step))

    def _part(self, chosen: Tensor | slice) -> Dataset:
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            indices=self.indices[chosen],
        )

    def sha256(self) -> str:
        """Return the digest of images and labels: equal digests mean the same samples."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.indices):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data.cast("B"))
        return digest.hexdigest()
