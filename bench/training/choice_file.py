"""What a choice of a mix's numbers has found so far, kept in a file that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.training.files import load_checkpoint, save_checkpoint

FILE = "choice.pt"


@dataclass
class Found:
    """What the attacks have found so far, of S settings on N images.

    Attributes:
        robust: (N,) bool, where the robust base is still right.
        standing: (S, N) bool, where each setting is right on the image and on all that was found.
        tried: (S,) bool, which settings were attacked themselves.
        seconds: Wall-clock time that it took.
        started: When the first attack began, in ISO 8601, UTC.
    """

    robust: Tensor
    standing: Tensor
    tried: Tensor
    seconds: float = 0.0
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True)
class ChoiceFile:
    """The file of one choice.

    Attributes:
        path: Where it is; None for no file.
        identity: Plain values that decide the attacks.
        clean: (S, N) bool, where each setting is right without an attack. It says which bases,
            mixing network, images and settings the file belongs to.
    """

    path: Path | None
    identity: dict[str, Any]
    clean: Tensor

    def load(self) -> Found | None:
        """Return what was found; None if the file is missing, or is another choice's.

        Raises:
            InputError: If the file is damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        stored = load_checkpoint(self.path)
        if stored.get("identity") != self.identity or not torch.equal(
            stored["clean"], self.clean.cpu()
        ):
            return None
        robust, standing, tried = (
            stored[name].to(self.clean.device) for name in ("robust", "standing", "tried")
        )
        return Found(robust, standing, tried, stored["seconds"], stored["started"])

    def save(self, found: Found) -> None:
        """Write what was found, as a whole or not at all."""
        if self.path is not None:
            content = {"identity": self.identity, "clean": self.clean, **vars(found)}
            save_checkpoint(self.path, content)
