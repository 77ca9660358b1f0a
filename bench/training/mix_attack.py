"""The attacked copies of images that a mixing network is trained on.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 4: attacks of different strength on the current mix, which
also push its weight towards the accurate base. With kept perturbations an image's attack goes on
where its last one ended, as in A. Shafahi et al., "Adversarial Training for Free!", 2019, so that a
few steps a visit do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from bench.attacks.attack import likeliest_wrong_classes
from bench.attacks.auto_pgd import APGDState
from bench.attacks.distances import Norm, norms, per_image
from bench.attacks.draws import Draws, keyed_draws
from bench.attacks.losses import LOSSES, cross_entropy, loss_for
from bench.attacks.mix_apgd import MixAPGD, MixState
from bench.attacks.mix_losses import Answer, on_other_weight, towards_accurate_base
from bench.attacks.projections import SMALLEST_NORM, onto_ball_, onto_box_
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.suites.suite import ThreatModel
from bench.training.perturbation_memory import PerturbationMemory
from bench.validation import StrictModel

_RADIUS_EVENT, _PART_EVENT = 2, 3
"""Events 0 and 1 of an item's stream are the start and the weight of its search."""


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= interval[0] <= interval[1]:
        raise ValueError("expected two numbers, 0 <= low <= high")
    return interval


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""The ends of a uniform distribution, in [0, infinity)."""


def _fractions(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] > 1:
        raise ValueError("expected two numbers in [0, 1]")
    return interval


Fractions = Annotated[Range, AfterValidator(_fractions)]
"""The ends of an interval in [0, 1]."""


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
    attack_reach: float = Field(default=2.5, gt=0)
    """The length of all steps of PGD together, in radii."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The precision of the networks' passes in training; weights and losses are in float32."""
    part_share: float = Field(default=0.0, ge=0, le=1)
    """The share of images attacked as if the mix had a fixed weight, and on gamma."""
    part_weights: Fractions = (0.0, 1.0)
    """That weight is drawn from here; 1 is the robust base alone."""

    def passes_on(self, device: torch.device) -> torch.autocast:
        """Return a context in which passes have the settings' precision."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class RadiusState(MixState):
    """See `MixState`.

    Attributes:
        radii: (N,) the radius of each item's ball.
        part_weights: (N,) the fixed weight that each item is attacked at; NaN for the mix's own.
    """

    radii: Tensor
    part_weights: Tensor


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
        part_share: float = 0.0,
        part_weights: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """Make an attack.

        Args:
            norm: The norm of the balls, Linf or L2.
            eps: The radius of the threat model.
            steps: Gradient steps.
            radius_factors: Ends of the interval that each item's radius is drawn from, times eps.
            push_weights: Ends of the interval that each item's w is drawn from.
            part_share: The probability that an item is attacked at a fixed weight.
            part_weights: Ends of the interval that this weight is drawn from.

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
        self._part_share, self._part_weights = part_share, part_weights

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
        share, place = draws.uniform(torch.full_like(labels, _PART_EVENT), 2, images.dtype).T
        low, high = self._part_weights
        fixed = (low + (high - low) * place).masked_fill(share >= self._part_share, torch.nan)
        return RadiusState(**vars(state), radii=self.eps * factors, part_weights=fixed)

    def go_on_from(self, state: RadiusState, points: Tensor, going_on: Tensor) -> None:
        """Let some items of a state begin at given points instead, in place.

        Args:
            state: At its start.
            points: (N, ...) in any distance; they are brought into the items' balls and [0, 1].
            going_on: (N,) bool, which items do.
        """
        inside = self.into_balls(points.clone(), state)
        for copy in (state.point, state.previous, state.best):
            copy.copy_(torch.where(per_image(going_on, copy), inside, copy))

    def into_balls(self, points: Tensor, state: RadiusState) -> Tensor:
        """Bring points (N, ...) into the items' balls and [0, 1], in place, and return them."""
        if self.norm == "L2":
            return onto_ball_(points, state.clean, state.radii)
        radii = per_image(state.radii, points)
        low, high = (state.clean - radii).clamp_(min=0), (state.clean + radii).clamp_(max=1)
        return onto_box_(points, low, high)

    def radii(self, state: APGDState) -> Tensor:
        """Return the radius (N,) of each item's own ball; see `APGD.radii`."""
        assert isinstance(state, RadiusState)
        return state.radii

    def read(self, state: MixState) -> tuple[Tensor, ...]:
        """Return what losses read; see `MixAPGD.read`."""
        assert isinstance(state, RadiusState)
        return *super().read(state), state.part_weights

    def phase_losses(self, answer: Answer, read: tuple[Tensor, ...], phase: Tensor) -> Tensor:
        """Return (N,) the loss of each item: of the mix, or of the mix at the item's weight."""
        own = super().phase_losses(answer, read, phase)
        labels, targets, weights, _, fixed = read
        if self._part_share == 0:
            return own
        assert answer.gamma is not None
        at_weight = on_other_weight(cross_entropy_or_dlr)
        # The items without such a weight get any, since their loss is the other one.
        loss = at_weight(answer, labels, targets, fixed.nan_to_num(0.5))
        pushed = (1 - weights) * loss + weights * functional.softplus(-answer.gamma)
        return torch.where(fixed.isnan(), own, pushed)


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
    with torch.no_grad(), settings.passes_on(images.device):
        ranked = likeliest_wrong_classes(mix(images), labels, settings.attack_targets)
    targets = torch.cat((labels.unsqueeze(1), ranked), dim=1).T.flatten()
    runs = len(targets) // len(labels)
    attack, state = _start(
        images.repeat(runs, 1, 1, 1),
        labels.repeat(runs),
        targets,
        threat_model,
        settings,
        generator,
    )
    return _searched(attack, mix, state, settings, generator)


def attacked_again(
    mix: AdaptiveMix,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    settings: MixAttackSettings,
    memory: PerturbationMemory,
    generator: torch.Generator,
) -> Tensor:
    """Return images (N, C, H, W) attacked once each, from where their last attack ended.

    Each image's loss is drawn: the cross-entropy, or that of one of its targets.

    Args:
        mix: See `attacked_copies`.
        images: The images (N, C, H, W), in [0, 1], of the batch that the memory has begun.
        labels: (N,) int64.
        threat_model: The settings' radii are relative to its radius.
        settings: The settings of the attack.
        memory: Holds the last perturbations, and is given the new ones.
        generator: Source of every draw; on the CPU.
    """
    with torch.no_grad(), settings.passes_on(images.device):
        ranked = likeliest_wrong_classes(mix(images), labels, settings.attack_targets)
    choices = torch.cat((labels.unsqueeze(1), ranked), dim=1)
    drawn = torch.randint(choices.shape[1], (len(labels), 1), generator=generator)
    targets = choices.gather(1, drawn.to(labels.device)).squeeze(1)
    attack, state = _start(images, labels, targets, threat_model, settings, generator)
    last, has_last = memory.recall(images)
    attack.go_on_from(state, images + last, has_last)
    attacked = _searched(attack, mix, state, settings, generator)
    memory.keep(attacked - images)
    return attacked


def _start(
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    threat_model: ThreatModel,
    settings: MixAttackSettings,
    generator: torch.Generator,
) -> tuple[TrainingAPGD, RadiusState]:
    """Return an attack and its items at random starts."""
    attack = TrainingAPGD(
        threat_model.norm,
        threat_model.eps,
        steps=steps_of_run(settings.attack_steps, generator),
        radius_factors=settings.radius_factors,
        push_weights=settings.push_weights,
        part_share=settings.part_share,
        part_weights=settings.part_weights,
    )
    seed = int(torch.randint(1 << 62, (), generator=generator))
    draws = keyed_draws(seed, torch.arange(len(targets)), "training").to(labels.device)
    return attack, attack.start(images, labels, draws, targets)


def _searched(
    attack: TrainingAPGD,
    mix: AdaptiveMix,
    state: RadiusState,
    settings: MixAttackSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return the images (N, ...) that a search ends at."""
    low, high = settings.momentum_decays
    with settings.passes_on(state.point.device):
        if settings.attack == "pgd":
            decay = low + (high - low) * float(torch.rand((), generator=generator))
            return momentum_pgd(attack, mix, state, decay, settings.attack_reach)
        for _ in range(attack.steps):
            attack.step(mix, state)
    return state.best


def momentum_pgd(
    attack: TrainingAPGD, mix: AdaptiveMix, state: RadiusState, decay: float, length: float
) -> Tensor:
    """Return the last points (N, ...) of PGD with momentum.

    Y. Dong et al., "Boosting Adversarial Attacks with Momentum", 2018.

    Args:
        attack: Provides the losses and the number of steps.
        mix: The mix to attack.
        state: Items at their start. It is changed in place.
        decay: The decay of the momentum, in [0, 1).
        length: The length of all steps together, in radii.
    """
    steps = attack.phase_steps - 1
    radii, point = per_image(state.radii, state.point), state.point
    momentum = torch.zeros_like(point)
    for _ in range(steps):
        _, _, gradient = attack.evaluate(mix, state)
        size = norms(gradient, "L1") + SMALLEST_NORM
        momentum.mul_(decay).add_(gradient / per_image(size, gradient))
        reach = radii * (length / steps)
        if attack.norm == "Linf":
            point.add_(momentum.sign() * reach)
        else:
            length_now = norms(momentum, "L2") + SMALLEST_NORM
            point.add_(momentum / per_image(length_now, momentum) * reach)
        attack.into_balls(point, state)
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
