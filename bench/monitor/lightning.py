"""The monitor as a callback of PyTorch Lightning.

    trainer = Trainer(callbacks=[RobustnessCallback(bench.RobustnessMonitor("cifar10-linf"))])

Both of Lightning's packages are served, `lightning` and `pytorch_lightning`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.errors import Unavailable
from bench.monitor.monitor import RobustnessMonitor

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callbacks() -> tuple[Any, ...]:
    """Return the base classes of callbacks: of the packages in use, or of the first that is here.

    Raises:
        Unavailable: neither is installed.
    """
    used = [name for name in _PACKAGES if name in sys.modules]
    here = [name for name in _PACKAGES if importlib.util.find_spec(name.partition(".")[0])]
    if not here:
        raise Unavailable(
            "expected PyTorch Lightning, which is not installed; "
            "pip install 'tradeoff-bench[lightning]'"
        )
    return tuple(importlib.import_module(name).Callback for name in used or here[:1])


def call(module: nn.Module, images: Tensor) -> Any:
    """Return what a module's own `forward` returns for images in [0, 1]."""
    return module(images)


class RobustnessCallback(*_callbacks()):  # type: ignore[misc]  # whichever package is here
    """Measures robust accuracy at the end of training epochs, and logs it.

    All ranks measure the same images, so that none waits for another; the first one logs.
    """

    def __init__(
        self,
        monitor: RobustnessMonitor,
        logits: Callable[[Any, Tensor], Any] = call,
        prefix: str = "robustness",
    ) -> None:
        """Make a callback.

        Args:
            monitor: measures at the end of training epochs.
            logits: from the LightningModule and images (n, C, H, W) in [0, 1] to logits (n, K), for
                example `lambda module, images: module((images - MEAN) / STD)`.
            prefix: of the logged names; `ModelCheckpoint(monitor="robustness/robust", mode="max")`
                keeps the most robust checkpoint.
        """
        super().__init__()
        self.monitor = monitor
        self._logits = logits
        self._prefix = prefix

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure and log."""
        result = self.monitor(partial(self._logits, pl_module), epoch=trainer.current_epoch)
        if result is not None:
            pl_module.log_dict(result.log(self._prefix), rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, which Lightning keeps in its checkpoints."""
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.monitor.load_state_dict(state_dict)
