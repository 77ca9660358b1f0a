"""Claims about a model's accuracy that a test makes, and what it says when they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.formatting import accuracy_text, percent

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation


@dataclass(frozen=True)
class Robustness:
    """Evaluates models for tests. Runs are kept, and an unchanged model is not evaluated again.

    Attributes:
        results_dir: where runs are kept.
        data_dir: where data sets lie; None: where `bench run` looks for them.
        device: auto, cpu or cuda.
    """

    results_dir: Path
    data_dir: str | None = None
    device: str = "auto"

    def at_least(
        self,
        model: Any,
        suite: Any = None,
        accuracy: float | None = None,
        *,
        beyond_chance: bool = False,
        **options: Any,
    ) -> Evaluation:
        """Fail unless a model's robust accuracy is at least so high; return its evaluation.

        Args:
            model: as of `bench.evaluate`.
            suite: a suite, such as "cifar10-linf"; None with `images=`, `labels=` and
                `threat_model=`.
            accuracy: in [0, 1].
            beyond_chance: fail only where the whole 95% interval lies below `accuracy`.
            options: of `bench.evaluate`, such as `n_examples=200`.

        Raises:
            AssertionError: it is lower; the message has the interval, the attack that broke most,
                and how to make the evaluation again.
            InputError: wrong arguments.
        """
        import bench

        __tracebackhide__ = True
        result = self._evaluated(bench.evaluate, model, suite, accuracy, options)
        assert accuracy is not None
        measured = result.interval.high if beyond_chance else result.robust_accuracy
        if measured < accuracy:
            text = accuracy_text(result.robust_accuracy, result.interval)
            raise AssertionError(
                f"{result.name} under {result.suite}: expected a robust accuracy of at least "
                f"{percent(accuracy)}%, got {text} on {result.n_examples:,} samples"
                f"{_worst_attack(result)}{_again(result, suite, options)}"
            )
        return result

    def clean_at_least(
        self,
        model: Any,
        suite: Any = None,
        accuracy: float | None = None,
        *,
        beyond_chance: bool = False,
        **options: Any,
    ) -> Evaluation:
        """Fail unless a model's clean accuracy is at least so high; otherwise as `at_least`.

        The model is attacked too: the run is the one that `at_least` makes or has made.
        """
        import bench

        __tracebackhide__ = True
        result = self._evaluated(bench.evaluate, model, suite, accuracy, options)
        assert accuracy is not None
        interval = result.summary.confidence_intervals["clean_accuracy"]
        measured = interval.high if beyond_chance else result.clean_accuracy
        if measured < accuracy:
            raise AssertionError(
                f"{result.name} under {result.suite}: expected a clean accuracy of at least "
                f"{percent(accuracy)}%, got {accuracy_text(result.clean_accuracy, interval)} on "
                f"{result.n_examples:,} samples{_again(result, suite, options)}"
            )
        return result

    def certified_at_least(
        self, model: Any, suite: Any = None, accuracy: float | None = None, **options: Any
    ) -> Evaluation:
        """Fail unless so large a share is certified at the threat model's radius.

        Args:
            model: a smoothed classifier, or a base classifier with `sigma=`; as of `bench.certify`.
            suite: a suite in L2.
            accuracy: in [0, 1].
            options: of `bench.certify`, such as `n_examples=100` and `noise_samples=1000`.

        Raises:
            AssertionError: it is smaller.
            InputError: wrong arguments.
        """
        import bench

        __tracebackhide__ = True
        result = self._evaluated(bench.certify, model, suite, accuracy, options)
        assert accuracy is not None
        if result.robust_accuracy < accuracy:
            radius = result.summary.manifest.threat_model.eps
            text = accuracy_text(result.robust_accuracy, result.interval)
            raise AssertionError(
                f"{result.name} under {result.suite}: expected at least {percent(accuracy)}% "
                f"certified at radius {radius:g}, got {text} on {result.n_examples:,} samples"
                f"{_again(result, suite, options)}"
            )
        return result

    def _evaluated(
        self,
        evaluate: Callable[..., Evaluation],
        model: Any,
        suite: Any,
        accuracy: float | None,
        options: dict[str, Any],
    ) -> Evaluation:
        if not isinstance(accuracy, int | float) or isinstance(accuracy, bool):
            raise InputError(f"accuracy: expected a number in [0, 1], got {accuracy!r}")
        if not 0 <= accuracy <= 1:
            hint = f"; did you mean {accuracy / 100:g}?" if 1 < accuracy <= 100 else ""
            raise InputError(f"accuracy: expected a number in [0, 1], got {accuracy!r}{hint}")
        given: dict[str, Any] = {
            "results_dir": self.results_dir,
            "data_dir": self.data_dir,
            "device": self.device,
            "progress": False,
        }
        given |= options
        return evaluate(model, **given) if suite is None else evaluate(model, suite, **given)


def _worst_attack(result: Evaluation) -> str:
    """Return which attack broke most, as the end of a sentence."""
    attacks = getattr(result.summary, "attacks", [])
    worst = max(attacks, key=lambda each: each.broken, default=None)
    if worst is None or not worst.broken:
        return ""
    return f"; {worst.name} broke most, {worst.broken:,} of {worst.attempted:,}"


def _again(result: Evaluation, suite: Any, options: dict[str, Any]) -> str:
    """Return how to make the evaluation again, and where it lies, as lines of their own."""
    again = result.command or _call(result, suite, options)
    return f"\n  again: {again}\n  run: {result.path}"


def _call(result: Evaluation, suite: Any, options: dict[str, Any]) -> str:
    """Return the call in Python that evaluates a live model as the test did."""
    function = "certify" if result.summary.kind.certifies else "evaluate"
    short = {
        name: repr(value) if isinstance(value, str | int | float | bool) else name
        for name, value in options.items()
    }
    given = ["model", *([repr(suite)] if suite is not None else [])]
    given += [f"{name}={value}" for name, value in short.items()]
    return f"bench.{function}({', '.join(given)})"
