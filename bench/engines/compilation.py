"""Compiled passes, for runs that are long enough to pay for the compilation.

`torch.compile` fuses the operations between convolutions. Some networks gain a third from it,
others nothing, and some do not compile at all. So it is tried, checked and measured, and the run's
record says what was found. An interrupted run goes on as it began.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.attacks import Model
from bench.attacks.image_gradient import image_gradient
from bench.candidates.mix import as_mix
from bench.engines.acceleration import Accelerated
from bench.errors import briefly
from bench.precision import tensor_cores
from bench.store.records import Block

WORTH_SECONDS = 180.0
"""Expected seconds below which a run does not compile. What is expected is an upper bound: as if
every sample survived all attacks."""
FORWARD_WORTH_SECONDS = 30.0
"""The same where only forward passes are compiled, which takes seconds."""
LEAST_GAIN = 1.1
TIMINGS = 5
TOLERANCE = {"float32": 1e-4, "tf32": 2e-3, "bfloat16": 3e-2}
"""Largest relative change of a logit or of a gradient with which a compiled pass counts as equal.
A lower precision rounds more, so that another order of operations changes more."""
RECORD = "compiled"
_MEASURED = "times as fast"
"""In the record wherever the compiler worked."""


def compile_if_worth(
    fast: Accelerated,
    images: Tensor,
    labels: Tensor | None,
    expected_seconds: float,
    earlier: str | None,
) -> Accelerated:
    """Compile the candidate's passes if that is equal and faster; else return it as it is.

    Args:
        fast: differentiable, if there are labels.
        images: (n, C, H, W), a full batch on the device.
        labels: (n,); None if no gradient will be asked for.
        expected_seconds: of the run, as it is.
        earlier: what an interrupted run's record says, of `earlier_record`: it holds.

    Returns:
        what the search is to call; its record says whether it is compiled, or why not.
    """
    if earlier is not None and not earlier.startswith("yes"):
        return _with_record(replace(fast, compiler_works=_MEASURED in earlier), earlier)
    worth = FORWARD_WORTH_SECONDS if labels is None else WORTH_SECONDS
    if earlier is None and expected_seconds < worth:
        return _with_record(fast, "no: the run is too short to win it back")
    try:
        with tensor_cores(fast.record["precision"] == "tf32"), _quiet():
            return _try(fast, images, labels, earlier)
    except Exception as error:  # compilers fail in many ways; everything runs without them
        return _with_record(fast, f"no: {briefly(error)}")


def pass_seconds(model: Model, images: Tensor, labels: Tensor | None) -> float:
    """Return the seconds of a forward and a forward-backward pass: the best of a few.

    Args:
        model: images (n, C, H, W) -> logits (n, K).
        images: (n, C, H, W).
        labels: (n,); None: of the forward pass alone.
    """
    return min(_timed(model, images, labels) for _ in range(TIMINGS))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a processor always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(model: Model, images: Tensor, labels: Tensor | None) -> float:
    wait_for(images.device)
    start = time.perf_counter()
    with torch.no_grad():
        model(images)
    if labels is not None:
        image_gradient(model, images, labels)
    wait_for(images.device)
    return time.perf_counter() - start


def _try(
    fast: Accelerated, images: Tensor, labels: Tensor | None, earlier: str | None
) -> Accelerated:
    module = _compiled(fast.module)
    model = _call(module, fast.model)
    # Compiled for passes without a gradient, if none will have one.
    with torch.set_grad_enabled(labels is not None):
        difference = _difference(model(images), fast.model(images))
    if labels is not None:
        theirs = image_gradient(fast.model, images, labels)
        difference = max(difference, _difference(image_gradient(model, images, labels), theirs))
    if not difference <= TOLERANCE[fast.record["precision"]]:
        return _with_record(fast, f"no: results would change by {difference:.1e}")
    if earlier is None:
        gain = _gain(model, fast.model, images, labels)
        if gain < LEAST_GAIN:
            slow = f"no: {gain:.2f} {_MEASURED}"
            return _with_record(replace(fast, compiler_works=True), slow)
        earlier = f"yes: {gain:.2f} {_MEASURED}, largest relative difference {difference:.1e}"
    return _with_record(replace(fast, model=model, module=module, compiler_works=True), earlier)


def _compiled(module: nn.Module) -> nn.Module:
    """Return the module compiled, or a copy of a mix with compiled networks.

    The networks themselves are not copied: a traced one would lose its hooks.
    """
    mix = as_mix(module)
    if mix is None:
        return cast(nn.Module, torch.compile(module, dynamic=True))
    parts = [mix.get_submodule(path) for path in mix.part_names]
    changed = copy.deepcopy(module, {id(part): part for part in parts})
    mix = as_mix(changed)
    assert mix is not None
    for path in mix.part_names:
        parent, _, name = path.rpartition(".")
        part = torch.compile(mix.get_submodule(path), dynamic=True)
        setattr(mix.get_submodule(parent), name, part)
    return changed


def _gain(ours: Model, theirs: Model, images: Tensor, labels: Tensor | None) -> float:
    """Return how many times as fast the first model is: the best of a few turns each."""
    seconds = [
        (_timed(ours, images, labels), _timed(theirs, images, labels)) for _ in range(TIMINGS)
    ]
    return min(slow for _, slow in seconds) / min(fast for fast, _ in seconds)


def _call(module: nn.Module, uncompiled: Model) -> Callable[[Tensor], Tensor]:
    def call(images: Tensor) -> Tensor:
        # The compiler would make a version of its own for a single image.
        if len(images) < 2:
            return uncompiled(images)
        logits: Tensor = module(images.clone())
        return logits.to(images.dtype)

    return call


def _difference(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Return the largest difference, relative to the largest value; infinite if one is missing."""
    if ours is None or theirs is None:
        return float("inf")
    largest = theirs.detach().abs().max().clamp_min(1e-12)
    return float((ours - theirs).detach().abs().max() / largest)


def earlier_record(finished: Mapping[str, Block]) -> str | None:
    """Return what the blocks of an interrupted run say of compilation; None: nothing."""
    found: list[Any] = [
        block.record[RECORD] for block in finished.values() if RECORD in block.record
    ]
    return str(found[0]) if found else None


def _with_record(fast: Accelerated, text: str) -> Accelerated:
    return replace(fast, record={**fast.record, RECORD: text})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the compiler's own warnings out of the display."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
