"""Where the random draws of a training come from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def generator_for(seed: int, *key: int) -> torch.Generator:
    """A generator on the CPU whose stream depends on the seed and the key, and on nothing else.

    Each epoch draws from a stream of its own, so that a resumed training needs no generator state.
    """
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that ``make`` returns, with initial weights that depend on the seed only.

    torch.nn initialises from the global generator alone; it is seeded inside a fork, which gives
    the caller's random state back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_for(seed).initial_seed())
        return make()
