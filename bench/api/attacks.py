"""Attacks as functions on tensors; also `bench.attacks.apgd`, `fab`, `square` and `autoattack`.

Each takes a model, images and labels, and returns adversarial images. The fast engine runs them: it
keeps batches full, makes passes faster where that changes nothing, and confirms every success in
float32 by the model itself, on the image as it is returned.

What all of them share:

* `model` is an `nn.Module` or any other callable from images (n, C, H, W) in [0, 1] to logits
  (n, K), attacked on the device where it is. A module in training mode is attacked in evaluation
  mode and is in training mode again afterwards; its weights, gradients and statistics stay as they
  are.
* `images` are (N, C, H, W), floating-point, in [0, 1], on any device. They are attacked as float32.
  `labels` are (N,) integers in [0, K).
* What comes back is a new tensor of the images' shape, device and dtype (float32 for images of half
  precision, which rounding would take out of the ball). A sample that survives comes back as its
  clean image, as does one that is classified wrongly to begin with. So the robust accuracy is the
  accuracy on what comes back.
* Every image that comes back is in [0, 1], and within `eps` of its clean image up to the rounding
  of float32 (`bench.attacks.tolerance`).
* The random draws follow from `seed` and a sample's place among the images, and do not touch
  PyTorch's global generators. `batch_size` changes memory and speed, but no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from bench.api.attack_run import AttackSettings, attack_task, joined, run_attacks
from bench.attacks.attack import Model
from bench.attacks.registry import STANDARD
from bench.errors import EvaluationError, InputError
from bench.suites.suite import AttackChoice

NormName = Literal["Linf", "L2"]
APGDLoss = Literal["ce", "dlr", "dlr-targeted"]

_APGD = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-targeted": "apgd-t"}
"""Attacks by the names of their losses."""


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: NormName = "Linf",
    eps: float = 8 / 255,
    steps: int = 100,
    loss: APGDLoss = "ce",
    seed: int = 0,
    *,
    restarts: int = 1,
    targets: int = 9,
    batch_size: int | None = None,
) -> Tensor:
    """Return adversarial images by Auto-PGD.

    F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, arXiv 2003.01690. See the module for what is common to all
    attacks.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K).
        images: (N, C, H, W) clean images in [0, 1].
        labels: (N,) their classes.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        steps: gradient steps of each restart.
        loss: what is ascended: the cross-entropy "ce", the difference of logits ratio "dlr", or
            "dlr-targeted", which aims for the likeliest wrong classes in turn.
        seed: of the random starts.
        restarts: for each target.
        targets: how many classes "dlr-targeted" aims for, at most K - 1; ignored by other losses.
        batch_size: images in one pass; by default what fills the device.

    Returns:
        (N, C, H, W): adversarial images, and the clean ones of samples that survive.

    Raises:
        InputError: an argument is of the wrong form or out of its range.
        EvaluationError: the model has no gradient; use `square`.
    """
    if loss not in _APGD:
        raise InputError(f"expected a loss of {', '.join(_APGD)}; got {loss!r}")
    parameters = {"steps": steps, "restarts": restarts}
    if loss == "dlr-targeted":
        parameters["targets"] = targets
    choice = AttackChoice(name=_APGD[loss], parameters=parameters)
    return _adversarial(model, images, labels, norm, eps, [choice], seed, batch_size)


def fab(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: NormName = "Linf",
    eps: float = 8 / 255,
    steps: int = 100,
    seed: int = 0,
    *,
    targeted: bool = True,
    targets: int = 9,
    restarts: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return adversarial images by the fast adaptive boundary attack (FAB).

    F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", ICML 2020, arXiv 1907.02044. FAB looks for the smallest perturbation; here it ends at
    the first one inside the ball, and a perturbation that is larger than `eps` is not returned. See
    the module for what is common to all attacks.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K).
        images: (N, C, H, W) clean images in [0, 1].
        labels: (N,) their classes.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        steps: iterations of each restart.
        seed: of the random starts; the first restart begins at the clean image.
        targeted: whether to aim for the likeliest wrong classes in turn, one gradient a step, as
            standard AutoAttack does; otherwise for the nearest boundary of all classes, K - 1
            gradients a step.
        targets: how many classes the targeted form aims for, at most K - 1.
        restarts: for each target.
        batch_size: images in one pass; by default what fills the device.

    Returns:
        (N, C, H, W): adversarial images, and the clean ones of samples that survive.

    Raises:
        InputError: an argument is of the wrong form or out of its range.
        EvaluationError: the model has no gradient; use `square`.
    """
    parameters = {"steps": steps, "restarts": restarts}
    if targeted:
        parameters["targets"] = targets
    choice = AttackChoice(name="fab-t" if targeted else "fab", parameters=parameters)
    return _adversarial(model, images, labels, norm, eps, [choice], seed, batch_size)


def square(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: NormName = "Linf",
    eps: float = 8 / 255,
    queries: int = 5000,
    seed: int = 0,
    *,
    restarts: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return adversarial images by the Square attack, a random search that needs no gradient.

    M. Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via
    random search", ECCV 2020, arXiv 1912.00049. See the module for what is common to all attacks.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K).
        images: (N, C, H, W) clean images in [0, 1].
        labels: (N,) their classes.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        queries: forward passes of each restart.
        seed: of the random search.
        restarts: how often the search begins anew.
        batch_size: images in one pass; by default what fills the device.

    Returns:
        (N, C, H, W): adversarial images, and the clean ones of samples that survive.

    Raises:
        InputError: an argument is of the wrong form or out of its range.
    """
    choice = AttackChoice(name="square", parameters={"queries": queries, "restarts": restarts})
    return _adversarial(model, images, labels, norm, eps, [choice], seed, batch_size)


def autoattack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: NormName = "Linf",
    eps: float = 8 / 255,
    seed: int = 0,
    *,
    batch_size: int | None = None,
) -> Tensor:
    """Return adversarial images by standard AutoAttack.

    APGD on the cross-entropy, APGD on the targeted difference of logits ratio, targeted FAB and
    Square, each with its authors' budget and on what survives the earlier ones (Croce and
    Hein 2020, arXiv 2003.01690). `bench.autoattack.AutoAttack` has its other versions, a log and
    resumption. See the module for what is common to all attacks.

    Args:
        model: images (n, C, H, W) in [0, 1] to logits (n, K).
        images: (N, C, H, W) clean images in [0, 1].
        labels: (N,) their classes.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        seed: of all random draws.
        batch_size: images in one pass; by default what fills the device.

    Returns:
        (N, C, H, W): adversarial images, and the clean ones of samples that survive.

    Raises:
        InputError: an argument is of the wrong form or out of its range.
        EvaluationError: the model has no gradient; use `square`.
    """
    choices = [AttackChoice(name=name) for name in STANDARD]
    return _adversarial(model, images, labels, norm, eps, choices, seed, batch_size)


def _adversarial(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    attacks: Sequence[AttackChoice],
    seed: int,
    batch_size: int | None,
) -> Tensor:
    settings = AttackSettings(
        norm=norm, eps=eps, attacks=tuple(attacks), seed=seed, batch_size=batch_size
    )
    with attack_task(model, images, labels, settings) as task:
        outcome = joined(images, task, run_attacks(task))
    if outcome.skipped:
        raise EvaluationError(
            f"expected logits with a gradient, which {', '.join(outcome.skipped)} need; got logits "
            "without. Use bench.attacks.square, which needs none"
        )
    return outcome.images
