"""Each training image's last perturbation, so that its next attack need not begin anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class PerturbationMemory:
    """The last perturbation of each of some images; see `bench.training.loop.Memory`.

    Kept in float16 on the CPU, 6 kB for an image of CIFAR. Rounding may lead out of a ball by a
    small part, so that an attack that starts here projects first.
    """

    def __init__(self, images: Tensor, shape: Sequence[int]) -> None:
        """Make an empty memory.

        Args:
            images: Indices (n,) in the data of the images that take part.
            shape: (C, H, W) of an image.
        """
        self._images = images.sort().values
        self._perturbations = torch.zeros(len(images), *shape, dtype=torch.float16)
        self._is_kept = torch.zeros(len(images), dtype=torch.bool)
        self._rows = torch.empty(0, dtype=torch.int64)

    def begin(self, chosen: Tensor) -> None:
        """Take note of the images (n,) of the next batch, as indices in the data.

        Raises:
            ValueError: If one of them does not take part.
        """
        rows = torch.searchsorted(self._images, chosen).clamp(max=len(self._images) - 1)
        if not torch.equal(self._images[rows], chosen):
            raise ValueError("expected images that take part in the training, got another one")
        self._rows = rows

    def recall(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's perturbations (n, C, H, W), and which images have one, (n,) bool.

        Args:
            images: (n, C, H, W) of the batch; device and precision are theirs.
        """
        return (
            self._perturbations[self._rows].to(images),
            self._is_kept[self._rows].to(images.device),
        )

    def keep(self, perturbations: Tensor) -> None:
        """Keep the perturbations (n, C, H, W) of the batch's images instead of their last ones."""
        self._perturbations[self._rows] = perturbations.to("cpu", torch.float16)
        self._is_kept[self._rows] = True

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is kept, for a checkpoint."""
        return {"perturbations": self._perturbations, "is_kept": self._is_kept}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what a checkpoint has."""
        self._perturbations.copy_(state["perturbations"])
        self._is_kept.copy_(state["is_kept"])
