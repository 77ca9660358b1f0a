"""The attacked copies of images that a mixing network is trained on.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 4: attacks of different strength on the current mix, which
also push its weight towards the accurate base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.attacks.attack import likeliest_wrong_classes
from bench.attacks.auto_pgd import APGDState
from bench.attacks.distances import Norm, norms, per_image
from bench.attacks.draws import Draws, keyed_draws
from bench.attacks.losses import LOSSES, cross_entropy, loss_for
from bench.attacks.mix_apgd import MixAPGD, MixState
from bench.attacks.mix_losses import towards_accurate_base
from bench.attacks.projections import SMALLEST_NORM, onto_ball_, onto_box_
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.suites.suite import ThreatModel
from bench.validation import StrictModel

_RADIUS_EVENT = 2
"""Events 0 and 1 of an item's stream are the start and the weight of its search."""
_PGD_REACH = 2.5
"""The length of all steps of PGD together, in radii."""


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= interval[0] <= interval[1]:
        raise ValueError("expected two numbers, 0 <= low <= high")
    return interval


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""The ends of a uniform distribution, in [0, infinity)."""


class MixAttackSettings(StrictModel):
    """The settings of the attacks that a mixing network is trained on."""

    attack: Literal["apgd", "pgd"] = "apgd"
    """Auto-PGD, or PGD with momentum."""
    attack_steps: int = Field(default=75, ge=1)
    """Degrees of freedom of the chi-squared distribution that the number of steps is drawn from."""
    attack_targets: int = Field(default=9, ge=0)
    """Classes that targeted runs aim for, beside one run on the cross-entropy."""
    radius_factors: Range = (0.4, 1.1)
    """The ratio of each attacked image's radius to the threat model's is drawn from here."""
    push_weights: Range = (0.0, 0.4)
    """The weight of BCE(gamma, 1) in each attacked image's loss is drawn from here."""
    momentum_decays: Range = (0.0, 0.9)
    """The decay of PGD's momentum is drawn from here."""


@dataclass(frozen=True)
class RadiusState(MixState):
    """See `MixState`.

    Attributes:
        radii: (N,) the radius of each item's ball.
    """

    radii: Tensor


class TrainingAPGD(MixAPGD):
    """Auto-PGD for the highest loss, in a ball of each item's own.

    It does not stop at the first wrong answer: that would leave images at their start that the mix
    gets wrong without an attack.
    """

    def __init__(
        self,
        norm: Norm,
        eps: float,
        *,
        steps: int,
        radius_factors: tuple[float, float],
        push_weights: tuple[float, float],
    ) -> None:
        """Make an attack.

        Args:
            norm: The norm of the balls, Linf or L2.
            eps: The radius of the threat model.
            steps: Gradient steps.
            radius_factors: Ends of the interval that each item's radius is drawn from, times eps.
            push_weights: Ends of the interval that each item's w is drawn from.

        Raises:
            InputError: If a parameter is out of its range.
        """
        loss = towards_accurate_base(cross_entropy_or_dlr)
        super().__init__(
            norm,
            eps,
            [loss],
            targeted=True,
            steps=steps,
            weights=[push_weights],
            stops_at_break=False,
        )
        self._radius_factors = radius_factors

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> RadiusState:
        """Start from a random point of each item's ball; see `Attack.start`.

        An item whose target is its own label ascends the cross-entropy; one with another target
        ascends the targeted difference of logits ratio.
        """
        state = super().start(images, labels, draws, targets, restarts)
        low, high = self._radius_factors
        events = torch.full_like(labels, _RADIUS_EVENT)
        factors = low + (high - low) * draws.uniform(events, 1, images.dtype)[:, 0]
        state.point.sub_(state.clean).mul_(per_image(factors, images)).add_(state.clean)
        for copy in (state.previous, state.best):
            copy.copy_(state.point.clamp_(0, 1))
        state.step_size.mul_(factors)
        return RadiusState(**vars(state), radii=self.eps * factors)

    def radii(self, state: APGDState) -> Tensor:
        """Return the radius (N,) of each item's own ball; see `APGD.radii`."""
        assert isinstance(state, RadiusState)
        return state.radii


def attacked_copies(
    mix: AdaptiveMix,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    settings: MixAttackSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return images attacked on a mix, once on the cross-entropy and once for each target.

    Args:
        mix: In a mode where no image depends on the others in its batch.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        threat_model: The settings' radii are relative to its radius.
        settings: The settings of the attack.
        generator: Source of every draw; on the CPU.

    Returns:
        ((1 + targets) N, C, H, W): all images under the first run, then all under the next, ....
        There are fewer if there are fewer wrong classes than targets.
    """
    with torch.no_grad():
        ranked = likeliest_wrong_classes(mix(images), labels, settings.attack_targets)
    targets = torch.cat((labels.unsqueeze(1), ranked), dim=1).T.flatten()
    runs = len(targets) // len(labels)
    attack = TrainingAPGD(
        threat_model.norm,
        threat_model.eps,
        steps=steps_of_run(settings.attack_steps, generator),
        radius_factors=settings.radius_factors,
        push_weights=settings.push_weights,
    )
    seed = int(torch.randint(1 << 62, (), generator=generator))
    draws = keyed_draws(seed, torch.arange(len(targets)), "training").to(labels.device)
    state = attack.start(images.repeat(runs, 1, 1, 1), labels.repeat(runs), draws, targets)
    if settings.attack == "pgd":
        low, high = settings.momentum_decays
        decay = low + (high - low) * float(torch.rand((), generator=generator))
        return momentum_pgd(attack, mix, state, decay)
    for _ in range(attack.steps):
        attack.step(mix, state)
    return state.best


def momentum_pgd(
    attack: TrainingAPGD, mix: AdaptiveMix, state: RadiusState, decay: float
) -> Tensor:
    """Return the last points (N, ...) of PGD with momentum.

    Y. Dong et al., "Boosting Adversarial Attacks with Momentum", 2018.

    Args:
        attack: Provides the losses and the number of steps.
        mix: The mix to attack.
        state: Items at their start. It is changed in place.
        decay: The decay of the momentum, in [0, 1).
    """
    steps = attack.phase_steps - 1
    radii, point = per_image(state.radii, state.point), state.point
    momentum = torch.zeros_like(point)
    for _ in range(steps):
        _, _, gradient = attack.evaluate(mix, state)
        size = norms(gradient, "L1") + SMALLEST_NORM
        momentum.mul_(decay).add_(gradient / per_image(size, gradient))
        reach = radii * (_PGD_REACH / steps)
        if attack.norm == "Linf":
            point.add_(momentum.sign() * reach)
            onto_box_(
                point, (state.clean - radii).clamp_(min=0), (state.clean + radii).clamp_(max=1)
            )
        else:
            length = norms(momentum, "L2") + SMALLEST_NORM
            point.add_(momentum / per_image(length, momentum) * reach)
            onto_ball_(point, state.clean, state.radii)
    return point


def steps_of_run(degrees_of_freedom: int, generator: torch.Generator) -> int:
    """Draw a number of steps from a chi-squared distribution, rounded, at least 1."""
    squares = torch.randn(degrees_of_freedom, generator=generator).square()
    return max(1, round(float(squares.sum())))


def cross_entropy_or_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy (N,) where the target is the label, else the targeted DLR."""
    targeted = LOSSES[loss_for("dlr-targeted", logits.shape[1])]
    return torch.where(
        targets == labels,
        cross_entropy(logits, labels, targets),
        targeted(logits, labels, targets),
    )
