"""The monitor as a callback of `transformers.Trainer`.

trainer = Trainer(...)
trainer.add_callback(RobustnessCallback(trainer, bench.RobustnessMonitor("cifar10-linf")))
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import Unavailable, raised
from bench.monitor.monitor import RobustnessMonitor

STATE_FILE = "robustness_monitor.pt"
"""The monitor's state, in the trainer's checkpoint folders."""


def _callback() -> Any:
    """Return the base class of callbacks.

    Raises:
        Unavailable: it is not installed, or does not import.
    """
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise Unavailable(
            "expected transformers with its Trainer, which cannot be imported: "
            f"{raised(error)}; pip install 'tradeoff-bench[hf]'"
        ) from error


def call(model: nn.Module, images: Tensor) -> Any:
    """Return the logits of an image classifier that takes images in [0, 1] as they are."""
    return model(pixel_values=images).logits


class RobustnessCallback(_callback()):  # type: ignore[misc]  # imported when it is needed
    """Measures robust accuracy at the end of epochs, and logs it through the trainer.

    The state is saved beside the trainer's checkpoints, and read again where a training resumes.
    """

    def __init__(
        self,
        trainer: Any,
        monitor: RobustnessMonitor,
        logits: Callable[[Any, Tensor], Any] = call,
        prefix: str = "robustness",
    ) -> None:
        """Make a callback.

        Args:
            trainer: the `Trainer` that it is added to; its `log` is called.
            monitor: measures.
            logits: from the model and images (n, C, H, W) in [0, 1] to logits (n, K), for example
                `lambda model, images: model(pixel_values=(images - MEAN) / STD).logits`.
            prefix: of the logged names.
        """
        self.monitor = monitor
        self._trainer = trainer
        self._logits = logits
        self._prefix = prefix

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the state beside the checkpoint that the training resumes from."""
        path = _state_path(args, state)
        if state.global_step and path.is_file():
            self.monitor.load_state_dict(torch.load(path, weights_only=True))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure and log."""
        model = partial(self._logits, kwargs["model"])
        result = self.monitor(model, epoch=round(state.epoch) - 1)
        if result is not None:
            self._trainer.log(result.log(self._prefix))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the state."""
        path = _state_path(args, state)
        if state.is_world_process_zero and path.parent.is_dir():
            torch.save(self.monitor.state_dict(), path)


def _state_path(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE
