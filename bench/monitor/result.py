"""What one measurement during a training found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.attacks.attack import Passes
from bench.statistics import Interval


@dataclass(frozen=True)
class MonitorResult:
    """Accuracies at one time of a training.

    Attributes:
        epoch: the training's own number, or how often the monitor had been called before.
        clean: share of the subset that is classified correctly, in [0, 1].
        robust: share that is, and survives the old witnesses and the attack, in [0, 1].
        interval: of the robust accuracy; see `RobustnessMonitor` for what it is valid for.
        n_examples: how many images the subset has.
        seconds: what the measurement took.
        passes: images that went through the network.
        old_witnesses: samples that fell to an adversarial image from an earlier measurement.
        new_witnesses: samples that fell to the attack.
    """

    epoch: int
    clean: float
    robust: float
    interval: Interval
    n_examples: int
    seconds: float
    passes: Passes
    old_witnesses: int
    new_witnesses: int

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: clean {self.clean:.1%}, robust {self.robust:.1%} "
            f"[{self.interval.low:.1%} – {self.interval.high:.1%}], {self.seconds:.1f} s"
        )

    def log(self, prefix: str = "robustness") -> dict[str, float]:
        """Return numbers by name, as `wandb.log` and Lightning's `log_dict` take them.

        TensorBoard's `add_scalar` takes each by itself.

        Args:
            prefix: what stands before the slash in each name; dashboards group by it.
        """
        values = {
            "clean": self.clean,
            "robust": self.robust,
            "low": self.interval.low,
            "high": self.interval.high,
            "seconds": self.seconds,
        }
        return {f"{prefix}/{name}": value for name, value in values.items()}

    def plain(self) -> dict[str, Any]:
        """Return a row of the history: numbers and texts by name."""
        return {
            "epoch": self.epoch,
            "clean": self.clean,
            "robust": self.robust,
            "low": self.interval.low,
            "high": self.interval.high,
            "n_examples": self.n_examples,
            "seconds": self.seconds,
            "forward": self.passes.forward,
            "forward_backward": self.passes.forward_backward,
            "old_witnesses": self.old_witnesses,
            "new_witnesses": self.new_witnesses,
        }
