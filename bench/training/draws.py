"""Where the random draws of a training come from: streams keyed by its seed and their purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

EPOCHS, MEASUREMENTS, FLIPS = 1, 2, 3
"""First entries of keys, by purpose. All keys of a purpose have the same length."""


def generator_for(seed: int, *key: int) -> torch.Generator:
    """Return a generator on the CPU whose stream depends on the seed and the key alone.

    Each epoch draws from a stream of its own, so that a resumed training needs no generator state.
    Without a key it is the stream of the initial weights and of the held-out images. These draws,
    like those of the keys in use, must stay as they are: training again gives the shipped weights.

    Raises:
        ValueError: If the key begins with 0, which would be the same stream as no key.
    """
    if key and key[0] == 0:
        raise ValueError(f"expected a key that does not begin with 0, got {key}")
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator on a device: the given one if it is there, else one that it seeds.

    Draws are made where they are used: those of a batch of images take longer to copy to a GPU than
    to draw on it. The streams of different kinds of devices differ.
    """
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(1 << 62, (), generator=generator)
    return torch.Generator(device).manual_seed(int(seed))


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return the network that ``make`` makes, with initial weights that depend on the seed alone.

    torch.nn initialises from the global generator. It is seeded inside a fork, which restores the
    caller's random state afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_for(seed).initial_seed())
        return make()
