"""AutoAttack with the interface of its authors' package, run by the fast engine.

    from bench.autoattack import AutoAttack  # instead of: from autoattack import AutoAttack

    adversary = AutoAttack(model, norm="Linf", eps=8 / 255, version="standard")
    x_adv = adversary.run_standard_evaluation(x_test, y_test)

The attacks and budgets are those of the authors (Croce and Hein 2020, arXiv 2003.01690). What
differs from their package, https://github.com/fra31/auto-attack:

* The attacks run on full batches of samples at different steps, and each success is confirmed in
  float32 by the model on the image as it is returned. An image in the ball is in it up to the
  rounding of float32.
* `device` is where the model is; by default it is found out, where theirs is "cuda".
* `seed=None` means seed 0, where theirs means the clock: two calls give the same result. Draws
  belong to a sample's place among the images, so that `bs` changes no result and PyTorch's global
  generators are left alone. `bs=None`, the default, lets the engine choose the batch size.
* A module in training mode is attacked in evaluation mode, with a warning, and is in training mode
  again afterwards.
* `state_path` really resumes: after an interruption, the same call goes on where the last one was
  stopped, and returns the adversarial images of both.
* Logits that are not finite are no answer: the prediction is -1, which is wrong.
* A model whose logits change from call to call is wrong where the mean of its probabilities over
  many calls is, beyond doubt, where their package counts a single call.
* Each attack gets its own seed-dependent draws, so that results agree with theirs in the share of
  robust samples, not sample by sample.
* `norm="L1"`, TensorFlow models (`is_tf_model=True`) and settings other than those of `APGD`,
  `TargetedAPGD`, `FAB` and `Square` below are refused.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from bench import __version__
from bench.api.attack_inputs import attackable, check_samples, device_of
from bench.api.attack_log import Lines, RunLog
from bench.api.attack_run import Attacked, AttackSettings, attack_task, joined, run_attacks
from bench.api.attack_state import AttackState, robust_samples
from bench.attacks.expectation import DRAWS
from bench.attacks.registry import ATTACKS, STANDARD
from bench.decision import classes_of
from bench.engines.engine import batches
from bench.errors import EvaluationError, InputError
from bench.modules import is_training
from bench.store.records import AttackBlock
from bench.suites.suite import AttackChoice

VERSIONS = ("standard", "plus", "rand", "custom")
NAMES = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
"""All attacks, in the order of version "plus"."""
SUSPICIOUS_DROP = 0.002
"""Share of the samples that Square may break after other attacks without a word."""


@dataclass(slots=True)
class APGD:
    """Settings of `apgd-ce` and `apgd-dlr`.

    Attributes:
        n_restarts: random starts.
        n_iter: steps of each.
        eot_iter: calls of the model that one gradient is the mean of: 1, or 20 for a randomized
            model.
    """

    n_restarts: int = 5
    n_iter: int = 100
    eot_iter: int = 1


@dataclass(slots=True)
class TargetedAPGD:
    """Settings of `apgd-t`; as `APGD`.

    Attributes:
        n_target_classes: likeliest wrong classes that are aimed for.
    """

    n_restarts: int = 1
    n_iter: int = 100
    n_target_classes: int = 9
    eot_iter: int = 1


@dataclass(slots=True)
class FAB:
    """Settings of `fab` and `fab-t`.

    Attributes:
        n_restarts: of `fab`, the first one at the clean image; `fab-t` takes one for each target.
        n_iter: steps of each.
        n_target_classes: likeliest wrong classes that `fab-t` aims for.
    """

    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9


@dataclass(slots=True)
class Square:
    """Settings of `square`.

    Attributes:
        n_queries: of each restart.
        n_restarts: searches.
    """

    n_queries: int = 5000
    n_restarts: int = 1


class AutoAttack:
    """AutoAttack, with the interface of its authors' package; see the module for what differs.

    Attributes may be set before a run:

        adversary = AutoAttack(model, version="custom", attacks_to_run=["apgd-ce", "fab"])
        adversary.apgd.n_restarts = 1

    Attributes:
        model, norm, epsilon, seed, verbose, attacks_to_run, version, device, log_path: as given.
        apgd, apgd_targeted, fab, square: settings of the attacks.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str | None = None,
        log_path: str | Path | None = None,
        *,
        attacks: Sequence[str] | None = None,
    ) -> None:
        """Make an adversary of a model.

        Args:
            model: images (n, C, H, W) in [0, 1] to logits (n, K).
            norm: of the ball, "Linf" or "L2".
            eps: its radius, in the [0, 1] pixel scale.
            seed: of all random draws; None: 0.
            verbose: whether to write what happens, to standard output and to `log_path`.
            attacks_to_run: with version "custom", of "apgd-ce", "apgd-dlr", "apgd-t", "fab",
                "fab-t" and "square", in their order.
            version: "standard"; "plus", with more attacks and restarts; "rand", for randomized
                models, with gradients that are means over 20 calls; or "custom".
            is_tf_model: refused if it is True.
            device: where the model is; None or "auto": where its parameters are.
            log_path: a file to which lines are appended.
            attacks: pyautoattack's name for `attacks_to_run`.

        Raises:
            InputError: an argument is out of its range.
        """
        if is_tf_model:
            raise InputError(
                "expected a PyTorch model, got is_tf_model=True; convert the network to PyTorch, "
                "for example by onnx2torch"
            )
        if version not in VERSIONS:
            raise InputError(f"expected a version of {', '.join(VERSIONS)}; got {version!r}")
        chosen = list(attacks_to_run if attacks is None else attacks)
        if chosen and version != "custom":
            raise InputError(
                f"expected attacks_to_run with version='custom' only, got version={version!r}, "
                "which has attacks of its own"
            )
        self.model = model
        self.norm = norm
        self.epsilon = eps
        self.seed = seed
        self.verbose = verbose
        self.attacks_to_run = chosen
        self.version = version
        self.device = device
        self.log_path = log_path
        self.apgd = APGD()
        self.apgd_targeted = TargetedAPGD()
        self.fab = FAB()
        self.square = Square()
        if version != "custom":
            self.set_version(version)

    def __repr__(self) -> str:
        """Return the call that makes it, with the model's name and the attacks that it runs."""
        name = getattr(self.model, "__name__", type(self.model).__name__)
        return (
            f"AutoAttack({name}, norm={self.norm!r}, eps={self.epsilon!r}, seed={self.seed!r}, "
            f"attacks_to_run={self.attacks_to_run}, version={self.version!r})"
        )

    def set_version(self, version: str = "standard") -> None:
        """Set the attacks and their settings as a version has them.

        Args:
            version: "standard", "plus" or "rand".

        Raises:
            InputError: there is no such version.
        """
        self._lines().write(f"setting parameters for {version} version")
        if version == "standard":
            self.attacks_to_run = list(STANDARD)
            self.apgd.n_restarts = self.fab.n_restarts = 1
        elif version == "plus":
            self.attacks_to_run = list(NAMES)
            self.apgd.n_restarts = self.fab.n_restarts = 5
        elif version == "rand":
            self.attacks_to_run = ["apgd-ce", "apgd-dlr"]
            self.apgd.n_restarts = 1
            self.apgd.eot_iter = DRAWS
        else:
            known = ", ".join(VERSIONS[:-1])
            raise InputError(f"expected a version of {known}; got {version!r}")
        if version != "rand":
            self.apgd.eot_iter = 1
            self.apgd_targeted.n_restarts = 1
            self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 9
            self.square.n_queries = 5000
        self.version = version

    def get_logits(self, x: Tensor) -> Tensor:
        """Return the model's logits (n, K) of images (n, C, H, W)."""
        return self.model(x)

    def get_seed(self) -> int:
        """Return the seed of all random draws."""
        return 0 if self.seed is None else self.seed

    @overload
    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int | None = None,
        return_labels: Literal[False] = False,
        state_path: str | Path | None = None,
        *,
        batch_size: int | None = None,
    ) -> Tensor: ...

    @overload
    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int | None = None,
        *,
        return_labels: Literal[True],
        state_path: str | Path | None = None,
        batch_size: int | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int | None = None,
        return_labels: bool = False,
        state_path: str | Path | None = None,
        *,
        batch_size: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attack images, one attack after the other; each sees what survived the earlier ones.

        Args:
            x_orig: (N, C, H, W) clean images in [0, 1], floating-point, on any device.
            y_orig: (N,) integers in [0, K).
            bs: images in one pass; None: what fills the device.
            return_labels: whether to return the predictions as well.
            state_path: a file from which the same call goes on after an interruption.
            batch_size: pyautoattack's name for `bs`.

        Returns:
            Images (N, C, H, W) on the device and in the dtype of `x_orig` (float32 for half
            precision): adversarial where an attack succeeded, else the clean ones. With
            `return_labels` also the model's classes (N,) of them, in the dtype of `y_orig`.

        Raises:
            InputError: an argument is of the wrong form or out of its range, or the state file
                belongs to another run.
            EvaluationError: the model has no gradient, and all attacks need one.
        """
        outcome = self._attacked(
            self.attacks_to_run, x_orig, y_orig, batch_size or bs, self._lines(), state_path
        )
        if not return_labels:
            return outcome.images
        return outcome.images, _labels_like(outcome.predictions, y_orig)

    def run_standard_evaluation_individual(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int | None = None,
        return_labels: bool = False,
        *,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """Run each attack alone, on all images that are classified correctly.

        Args:
            x_orig, y_orig, bs, return_labels, batch_size: see `run_standard_evaluation`.

        Returns:
            What `run_standard_evaluation` returns, for each attack by its name.

        Raises:
            InputError, EvaluationError: see `run_standard_evaluation`.
        """
        lines = self._lines()
        lines.write(f"using {self.version} version including {', '.join(self.attacks_to_run)}.")
        results: dict[str, Any] = {}
        for name in self.attacks_to_run:
            start = time.perf_counter()
            outcome = self._attacked(
                [name], x_orig, y_orig, batch_size or bs, Lines(None, verbose=False)
            )
            accuracy = float(outcome.robust.float().mean())
            seconds = time.perf_counter() - start
            lines.write(
                f"robust accuracy by {name.upper()} \t {accuracy:.2%} \t "
                f"(time attack: {seconds:.1f} s)"
            )
            labels = _labels_like(outcome.predictions, y_orig)
            results[name] = (outcome.images, labels) if return_labels else outcome.images
        return results

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """Return the model's accuracy on images as they are, a fraction in [0, 1].

        Args:
            x_orig: (N, C, H, W) in [0, 1]; clean or adversarial.
            y_orig: (N,) integers.
            bs: images in one pass.

        Raises:
            InputError: an argument is of the wrong form.
        """
        if bs < 1:
            raise InputError(f"expected a batch size >= 1, got {bs!r}")
        samples = check_samples(x_orig, y_orig)
        device = device_of(self.model, x_orig, self.device)
        right = 0
        with attackable(self.model, device) as module, torch.no_grad():
            for rows in batches(torch.arange(len(samples.labels)), bs):
                classes = classes_of(module(samples.images[rows].to(device)))
                right += int((classes.cpu() == samples.labels[rows]).sum())
        accuracy = right / len(samples.labels)
        self._lines().write(f"clean accuracy: {accuracy:.2%}")
        return accuracy

    def _attacked(
        self,
        names: Sequence[str],
        x_orig: Tensor,
        y_orig: Tensor,
        batch_size: int | None,
        lines: Lines,
        state_path: str | Path | None = None,
    ) -> Attacked:
        choices = tuple(self._choice(name) for name in names)
        settings = AttackSettings(
            norm=self.norm,
            eps=self.epsilon,
            attacks=choices,
            seed=self.get_seed(),
            batch_size=batch_size,
            # Whoever takes means over calls says that calls differ.
            randomized=any(ATTACKS[each.name].need for each in choices) or None,
            device=self.device,
        )
        if isinstance(self.model, nn.Module) and is_training(self.model):
            warnings.warn(
                "the model is in training mode: it is attacked in evaluation mode, and is in "
                "training mode again afterwards. Call model.eval() first",
                stacklevel=3,
            )
        with attack_task(self.model, x_orig, y_orig, settings) as task:
            state = None if state_path is None else AttackState(Path(state_path), task)
            log = RunLog(names, len(task.labels), lines)
            lines.write(f"using {self.version} version including {', '.join(names)}.")
            lines.write(f"attacked by bench {__version__}, engine fast, seed {task.seed}")
            if state is not None and state.blocks:
                lines.write(f"Restored state from {state_path}")
                log.restore(list(state.blocks.values()))

            def keep(block: AttackBlock) -> None:
                if state is not None:
                    state.add(block)
                log.add(block)

            try:
                blocks = run_attacks(task, {} if state is None else state.blocks, keep)
            finally:
                if state is not None:
                    state.save()
            outcome = joined(x_orig, task, blocks)
        log.finish(outcome.images, x_orig, outcome.robust, task.threat_model.norm)
        drop = log.lowered_by("square")
        if outcome.skipped:
            warnings.warn(_without_gradient(outcome.skipped, choices), stacklevel=3)
        elif drop > SUSPICIOUS_DROP:
            warnings.warn(
                f"Square lowered the robust accuracy by {drop:.2%} after the attacks with "
                "gradients, which may be unreliable on this model. Consider attacks that know the "
                "defence (`bench run --protocol adaptive`)",
                stacklevel=3,
            )
        return outcome

    def _choice(self, name: str) -> AttackChoice:
        """Return an attack with the settings that it has now."""
        if name in ("apgd-ce", "apgd-dlr"):
            apgd = self.apgd
            loss = name.removeprefix("apgd-")
            parameters = {"steps": apgd.n_iter, "restarts": apgd.n_restarts}
            name = _with_draws(name, f"apgd-expectation-{loss}", apgd.eot_iter)
        elif name == "apgd-t":
            targeted = self.apgd_targeted
            parameters = {
                "steps": targeted.n_iter,
                "targets": targeted.n_target_classes,
                "restarts": targeted.n_restarts,
            }
            name = _with_draws(name, "apgd-expectation", targeted.eot_iter)
        elif name == "fab":
            parameters = {"steps": self.fab.n_iter, "restarts": self.fab.n_restarts}
        elif name == "fab-t":
            parameters = {"steps": self.fab.n_iter, "targets": self.fab.n_target_classes}
        elif name == "square":
            parameters = {"queries": self.square.n_queries, "restarts": self.square.n_restarts}
        else:
            raise InputError(f"expected attacks_to_run of {', '.join(NAMES)}; got {name!r}")
        return AttackChoice(name=name, parameters=parameters)

    def _lines(self) -> Lines:
        return Lines(self.log_path, verbose=self.verbose)


class EvaluationState:
    """What programs of the authors' package ask a state file for: which samples are robust.

    Attributes:
        robust_flags: (N,) float32, 1 for a sample that nothing has broken, else 0.
    """

    def __init__(self, robust_flags: Tensor) -> None:
        self.robust_flags = robust_flags

    @property
    def robust_accuracy(self) -> float:
        """The share of robust samples."""
        return float(self.robust_flags.mean())

    @classmethod
    def from_disk(cls, path: str | Path) -> EvaluationState:
        """Read a file that `run_standard_evaluation` wrote as `state_path`.

        Raises:
            InputError: it is no such file.
        """
        return cls(robust_samples(Path(path)).float())


def _without_gradient(skipped: Sequence[str], choices: Sequence[AttackChoice]) -> str:
    """Return the warning that attacks were left out because the model has no gradient.

    Raises:
        EvaluationError: no other attack was run.
    """
    needing = ", ".join(skipped)
    if set(skipped) == {choice.name for choice in choices}:
        raise EvaluationError(
            f"expected logits with a gradient, which {needing} need; got logits without. Use "
            "version='custom' with attacks_to_run=['square'], which needs none"
        )
    return (
        f"the model's logits have no gradient: {needing} were left out, and the robust accuracy "
        "is that of the other attacks alone"
    )


def _with_draws(name: str, averaging: str, draws: int) -> str:
    """Return the attack that takes its gradients from so many calls of the model.

    Raises:
        InputError: there is none.
    """
    if draws not in (1, DRAWS):
        raise InputError(
            f"expected eot_iter of 1, or of {DRAWS} as in version='rand'; got {draws!r}"
        )
    return name if draws == 1 else averaging


def _labels_like(predictions: Tensor, labels: Tensor) -> Tensor:
    """Return predictions (N,) on the device and in the dtype of labels, if it has a sign for -1."""
    dtype = labels.dtype if labels.dtype.is_signed else torch.int64
    return predictions.to(labels.device, dtype)
