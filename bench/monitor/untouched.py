"""A model and a process that are measured in the middle of a training, and left as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.api.attack_inputs import attackable, device_of
from bench.candidates.live import borrowed, modules_of
from bench.modules import in_eval_mode, is_training, uncompiled
from bench.precision import tensor_cores

Logits = Callable[[Tensor], Any]
"""Images (n, C, H, W) in [0, 1] to logits (n, K)."""


@contextlib.contextmanager
def untouched(model: Logits, images: Tensor) -> Iterator[tuple[nn.Module, torch.device]]:
    """Give a model to measure, in evaluation mode and float32, with the device where it is.

    Within the context autocast and inference mode are off, no graph is kept, and no product is
    rounded to TF32. Afterwards the modes of all layers, their buffers, the parameters' gradients,
    the random generators of PyTorch, NumPy and Python and the contexts are as they were before.
    What wraps a module for training (`DistributedDataParallel`, `DataParallel`, `torch.compile`)
    is left out: its bookkeeping sees nothing, and no pass is compiled for a batch of another size.

    Args:
        model: a module, or a function that refers to modules.
        images: (N, C, H, W); their device counts where the model has no parameter.

    Raises:
        InputError: the model cannot be called, or is on a device where attacks do not run.
    """
    model = _bare(model)
    modules = [model] if isinstance(model, nn.Module) else modules_of(model)
    device = device_of(modules[0] if len(modules) else model, images)
    cuda = [device] if device.type == "cuda" else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.enter_context(tensor_cores(False))
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_same_buffers(modules))
        stack.enter_context(borrowed(*modules))
        for module in modules:
            if is_training(module):
                in_eval_mode(module)
        yield stack.enter_context(attackable(model, device)), device


def _bare(model: Logits) -> Logits:
    """Return the module inside what wraps it for training; anything else as it is."""
    while isinstance(model, nn.Module):
        inner = uncompiled(model)
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        if inner is model:
            break
        model = inner
    return model


@contextlib.contextmanager
def _same_buffers(modules: list[nn.Module]) -> Iterator[None]:
    """Give buffers their values back, in place.

    Only those that changed are written to: autograd counts writes, and a graph that the training
    still needs may hold them.
    """
    before = [(each, each.detach().clone()) for module in modules for each in module.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            if not torch.equal(buffer, values):
                buffer.copy_(values)
