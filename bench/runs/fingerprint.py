"""The fingerprint of a candidate's answers: its logits on fixed probe images.

A candidate can answer differently although its digests are the same: a library was updated, a file
outside the folder or an environment variable changed, or a module reads something at every pass.
The probe images are keyed draws, the same for all candidates of one input shape. Half of them are
noise in each pixel, the other half is smooth noise, because networks respond differently to the
two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.draws import keyed_draws
from bench.candidates import Candidate
from bench.errors import FOREIGN_ERRORS, raised
from bench.precision import tensor_cores
from bench.store.same_candidate import same_answers

PROBES = 4
COARSE = 3
"""Height and width of the smooth images before they are enlarged."""


def fingerprint(
    candidate: Candidate, shape: tuple[int, ...], device: torch.device
) -> list[str] | None:
    """Return a candidate's logits on the probe images, one line for each image, to six digits.

    The result is None if they vary from pass to pass and so identify nothing: for a candidate that
    is declared to be randomized, or that turns out to be. It is also None if a pass fails; the
    checks at the beginning of a run then find the reason.

    Args:
        shape: (C, H, W) of an image.
        device: the device that the candidate is on.
    """
    return probed(candidate, probe_images(shape), device).lines


@dataclass(frozen=True)
class Probed:
    """What a candidate said of images in two passes.

    Attributes:
        lines: its logits, one line for each image; None where they identify nothing.
        problem: the error that it raised, in one line; empty: none.
    """

    lines: list[str] | None
    problem: str = ""

    @property
    def vary(self) -> bool:
        """Whether its answers vary from pass to pass, as it declares or as was seen."""
        return self.lines is None and not self.problem


def probed(candidate: Candidate, images: Tensor, device: torch.device) -> Probed:
    """Return what a candidate says of images (n, C, H, W) in two passes over each.

    A candidate that is declared to be randomized is not asked.
    """
    if candidate.randomized:
        return Probed(None)
    images = images.to(device)
    try:
        module = candidate.module.to(device)
        first, second = (_answers(module, images) for _ in range(2))
    except FOREIGN_ERRORS as error:
        return Probed(None, raised(error))
    return Probed(first if same_answers(first, second) else None)


def probe_images(shape: tuple[int, ...]) -> Tensor:
    """Return the probe images (PROBES, C, H, W) in [0, 1)."""
    channels, height, width = shape
    rows = torch.arange(PROBES // 2)
    draws = keyed_draws(0, rows, "fingerprint")
    event = torch.zeros_like(rows)
    noise = draws.uniform(event, channels * height * width, torch.float32)
    coarse = draws.uniform(event + 1, channels * COARSE * COARSE, torch.float32)
    smooth = nn.functional.interpolate(
        coarse.view(-1, channels, COARSE, COARSE),
        (height, width),
        mode="bilinear",
        align_corners=True,
    )
    return torch.cat([noise.view(-1, *shape), smooth]).clamp(0, 1)


def _answers(module: nn.Module, images: Tensor) -> list[str]:
    """Return a line of logits for each image, computed one by one, so that no batch matters."""
    lines = []
    with torch.no_grad(), tensor_cores(False):
        for image in images:
            logits: Tensor = module(image[None].clone())
            numbers = logits.detach().double().cpu().flatten().tolist()
            lines.append(" ".join(f"{number:.6g}" for number in numbers))
    return lines
