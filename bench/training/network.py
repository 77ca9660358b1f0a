"""The network that settings name."""

from __future__ import annotations

import importlib
from typing import cast

from torch import nn

from bench.errors import InputError
from bench.training.initialization import initialised
from bench.training.settings import Settings


def make_network(settings: Settings, seed: int) -> nn.Module:
    """A freshly initialised network.

    Raises:
        InputError: If there is no such architecture, or its arguments are wrong.
    """
    module_name, _, function_name = settings.architecture.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            "expected architecture to be module:function, e.g. "
            "bench.candidates.architectures:residual_network, got "
            f"{settings.architecture!r} ({error})"
        ) from error
    try:
        return initialised(lambda: cast(nn.Module, make(**settings.architecture_args)), seed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected architecture_args that {settings.architecture} takes, got "
            f"{settings.architecture_args} ({error})"
        ) from error
