"""The fingerprint of a candidate's answers: its logits on fixed probe images.

A digest can be right and the answers another's all the same: a library was updated, a file outside
the folder or an environment variable changed, a module reads something at every pass. The images
are keyed draws, the same for all candidates of one input shape: half of them noise pixel by pixel,
half of it smooth, since networks pass these on in different ways.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.attacks.draws import keyed_draws
from bench.candidates import Candidate
from bench.errors import FOREIGN_ERRORS
from bench.precision import tensor_cores
from bench.store.same_candidate import same_answers

PROBES = 4
COARSE = 3
"""Pixels a side of the smooth images, before they are enlarged."""


def fingerprint(
    candidate: Candidate, shape: tuple[int, ...], device: torch.device
) -> list[str] | None:
    """Return a candidate's logits on the probe images, a line an image, to six digits.

    None where they are not the same at every pass, so that they tell nothing: of a candidate that
    is declared to be randomized, and of one that turns out to be. None too where a pass fails;
    what is wrong is then found by the checks that a run begins with.

    Args:
        shape: (C, H, W) of an image.
        device: where the candidate is.
    """
    if candidate.randomized:
        return None
    images = probe_images(shape).to(device)
    try:
        module = candidate.module.to(device)
        first, second = (_answers(module, images) for _ in range(2))
    except FOREIGN_ERRORS:
        return None
    return first if same_answers(first, second) else None


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
    """Return a line of logits for each image, computed one by one so that no batch matters."""
    lines = []
    with torch.no_grad(), tensor_cores(False):
        for image in images:
            logits: Tensor = module(image[None].clone())
            numbers = logits.detach().double().cpu().flatten().tolist()
            lines.append(" ".join(f"{number:.6g}" for number in numbers))
    return lines
