"""A model that lives in this Python process, as a candidate.

Its identity is what its code made of it: the digest of its parameters and buffers, and that of all
else that decides its answers (its classes and their source, the modes of its layers, its hooks and
what its functions refer to; see `object_digest`). The model stays the user's: `borrowed` gives it
back as it was.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates.candidate import Availability, Candidate, Information
from bench.candidates.identity import digest, state_of
from bench.candidates.mix import as_mix
from bench.candidates.object_digest import object_digest
from bench.candidates.own_type import in_own_type
from bench.candidates.smoothed import Smoothed
from bench.candidates.wrapped import Wrapped, read_outputs
from bench.errors import InputError
from bench.modules import in_eval_mode, is_training, uncompiled


class CalledFunction(nn.Module):
    """A function or another callable as a module.

    Attributes:
        function: images (N, C, H, W) in [0, 1] -> logits (N, K).
        parts: the modules that it refers to, which are moved and set to eval mode with this one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules_of(function))

    def forward(self, images: Tensor) -> Any:
        """Return what the function returns."""
        return self.function(images)


@dataclass(frozen=True)
class LiveReference:
    """A candidate that is a module of this process.

    Attributes:
        name: in records and on pages.
        module: the user's, in any mode and on any device.
        randomized: whether two calls may give two answers.
        shape: (C, H, W) of the images, where it is known.
    """

    name: str
    module: nn.Module
    randomized: bool = False
    shape: tuple[int, ...] | None = None

    @property
    def norms(self) -> frozenset[str]:
        """Unknown."""
        return frozenset()

    def availability(self) -> Availability:
        """Return that it is here."""
        return Availability(here=True)

    def load(self) -> Candidate:
        """Return the module as it is now, in eval mode, with its identity.

        It is moved to the CPU, unless it is a function, which may hold tensors that cannot be moved
        with it. Call this within `borrowed`, which undoes both.
        """
        module = in_eval_mode(self.module)
        if not isinstance(module, CalledFunction):
            module.cpu()
        state = state_of(module)
        tensors = dict(_tensors(module))
        weights = object_digest(tensors).sha256 if tensors else state.sha256
        architecture = qualified_name(module.model if isinstance(module, Wrapped) else module)
        definition = digest({"live": qualified_name(module), "state": state.sha256})
        conversions: tuple[str, ...] = ()
        if as_mix(module) is None and not isinstance(module, Smoothed):
            module, given = in_own_type(module, self.shape)
            module, notes = read_outputs(module, self.shape, name=f"model {self.name}")
            conversions = (*given, *notes)
        return Candidate(
            name=self.name,
            module=module,
            weights_sha256={"weights": weights},
            definition_sha256=definition,
            information=Information(architecture=architecture, conversions=conversions),
            randomized=self.randomized,
            unidentified=state.unidentified,
        )


def live_reference(
    model: Callable[..., Any],
    name: str | None = None,
    randomized: bool = False,
    shape: tuple[int, ...] | None = None,
) -> LiveReference:
    """Return a module or any other callable as a candidate that can be loaded.

    Of a module in `DataParallel` or `DistributedDataParallel` the one inside is taken.

    Args:
        model: images (N, C, H, W) in [0, 1] -> logits (N, K).
        name: of the candidate; None: the name of the model's class or function.
        randomized: whether two calls may give two answers, as its author declares.
        shape: (C, H, W) of the images, where it is known.

    Raises:
        InputError: no callable, a class instead of an object, or a name that cannot be one.
    """
    if inspect.isclass(model):
        raise InputError(
            f"model: expected a model, got the class {model.__qualname__}; call it to make one"
        )
    if not callable(model):
        raise InputError(
            "model: expected a module, another callable from images to logits, or a candidate's "
            f"name, got {type(model).__name__}"
            + ("; load the weights into their network" if isinstance(model, dict) else "")
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    module = model if isinstance(model, nn.Module) else CalledFunction(model)
    if name is None:
        inner = module.model if isinstance(module, Wrapped) else module
        name = qualified_name(inner).rpartition(".")[2].strip("<>")
    if not name.strip() or any(each in name for each in "/@"):
        raise InputError(f"name: expected a text without / and @, got {name!r}")
    return LiveReference(name, module, randomized, shape)


def qualified_name(module: nn.Module) -> str:
    """Return the name of a module's class, or of its function, with the Python module's."""
    named: Any = type(uncompiled(module))
    if isinstance(module, CalledFunction):
        function: Any = module.function
        while isinstance(function, functools.partial):
            function = function.func
        named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def home_of(module: nn.Module) -> torch.device | None:
    """Return the device of a module's first tensor; None if it has none."""
    return next((tensor.device for _, tensor in _tensors(module)), None)


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a callable refers to.

    They are looked for where people keep them: in a method's object, an object's attributes, a
    partial's arguments, a closure, and the global names that the function uses.
    """
    found: dict[int, nn.Module] = {}
    _collect(function, found, set())
    return list(found.values())


@contextlib.contextmanager
def borrowed(*modules: nn.Module) -> Iterator[None]:
    """Give modules back as they were: modes, devices, gradients and whether they are asked for.

    Whatever happens within the context, the values of parameters and buffers are those from before,
    in the very same tensors.
    """
    with contextlib.ExitStack() as lent:  # each is given back, even if another cannot be
        for part in (part for module in modules for part in module.modules()):
            lent.callback(_Lent(part).give_back)
        yield


class _Lent:
    """One module as it was, without its submodules."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.training = is_training(module)
        self.own_parameters = dict(module._parameters)
        self.buffers = dict(module._buffers)
        self.parameters = [
            (each, each.data, each.requires_grad, None if each.grad is None else each.grad.data)
            for each in self.own_parameters.values()
            if each is not None
        ]

    def give_back(self) -> None:
        self.module.training = self.training
        _put_back(self.own_parameters, self.module._parameters)
        _put_back(self.buffers, self.module._buffers)
        for parameter, data, requires_grad, gradient in self.parameters:
            if parameter.device != data.device or parameter.data_ptr() != data.data_ptr():
                parameter.data = data
                if parameter.grad is not None and gradient is not None:
                    parameter.grad.data = gradient
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


def _put_back(before: Mapping[str, Any], now: dict[str, Any]) -> None:
    """Put those tensors back that were replaced, as a move to another device may do.

    Args:
        before: by name.
        now: a module's; TorchScript's are no dict and have no `get`.
    """
    for name, tensor in before.items():
        if name not in now or now[name] is not tensor:
            now[name] = tensor


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a module's parameters and buffers by name, without what users attached to them."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        yield name, tensor.detach()


def _collect(value: object, found: dict[int, nn.Module], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        found[id(value)] = value
        return
    for part in _referred(value):
        _collect(part, found, seen)


def _referred(value: object) -> Iterable[object]:
    """Return what a callable or a plain container holds, one step down."""
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, types.MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, types.FunctionType):
        names = value.__code__.co_names
        used = [value.__globals__[name] for name in names if name in value.__globals__]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                used.append(cell.cell_contents)
        return [each for each in used if not isinstance(each, types.ModuleType | type)]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, dict):
        return list(value.values())
    if callable(value) and not isinstance(value, type | types.BuiltinFunctionType):
        own = type(value).__call__  # a method of the class may use global names
        held = list(getattr(value, "__dict__", {}).values())
        return [*held, own] if isinstance(own, types.FunctionType) else held
    return ()
