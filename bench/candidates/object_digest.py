"""The digest of what decides a module's answers, found by walking the module itself.

`state_dict()` leaves out much of it: plain attributes, buffers that are not persistent, networks in
a plain list, hooks, thresholds in a closure. The walk takes all of these, by their content. No
address enters, nor an order that differs between processes, nor where a submission's folder lies.

Code of installed packages is known by its name: which version it had is recorded beside a run.
Other code is known by its source and by the values that it refers to.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import copyreg
import dataclasses
import dis
import enum
import functools
import hashlib
import io
import itertools
import linecache
import logging
import re
import struct
import sys
import threading
import types
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates.foreign_code import PACKAGE
from bench.errors import FOREIGN_ERRORS, is_in_library

PACKAGE_NAME = re.compile(rf"{PACKAGE}_[0-9a-f]+")

MOST_NESTED = 20_000
"""Python calls on top of each other during a walk: deep structures need more than the usual."""

LIBRARIES = frozenset({"bench", "torch", "numpy", *sys.stdlib_module_names})

STATELESS = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.local,
    contextvars.ContextVar,
    logging.Logger,
    torch.utils.hooks.RemovableHandle,
)
"""Types whose contents decide no answer."""

WITHOUT_EFFECT = frozenset(
    {"_state_dict_hooks", "_state_dict_pre_hooks", "_compiled_call_impl", "_is_full_backward_hook"}
    | {"_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_non_persistent_buffers_set"}
)
"""What a module has for saving and loading it."""

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
HOOK_OPTIONS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Hooks of a module, which are keyed by numbers that count all hooks of the process."""

GRAPH_MODULE = frozenset(
    {"_graph", "_code", "_tracer_cls", "_tracer_extras", "_lineno_map", "meta"}
)
CLASS_BODY = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"}
    | {"__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__"}
    | {"_backward_cls", "__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__"}
)
"""What Python and PyTorch add to a class without changing what it does."""


@dataclass(frozen=True)
class ObjectDigest:
    """What a walk found.

    Attributes:
        sha256: digest of all that was found.
        undigested: what could not be digested, a line each with its dotted name; empty: nothing.
    """

    sha256: str
    undigested: tuple[str, ...]


def object_digest(
    value: object,
    known: Sequence[tuple[object, str]] = (),
    folder: Path | None = None,
) -> ObjectDigest:
    """Return the digest of a module, or of anything else, and of all that it refers to.

    It is the same in another process, and after the same code built the same thing again. It must
    be taken before the first pass: a module may keep something of the images it has seen.

    Args:
        value: what to walk; nothing of it is called or changed.
        known: objects with digests of their own, which stand for them.
        folder: of the submission; texts that name it are the same wherever it lies.
    """
    walk = _Walk(known, folder)
    with _deep_calls():
        walk.visit(value, "")
        for name in ("_global_forward_pre_hooks", "_global_forward_hooks"):
            hooks = getattr(torch.nn.modules.module, name, {})
            if hooks:
                walk.visit(list(hooks.values()), f"torch.{name}")
    return ObjectDigest(walk.hexdigest(), tuple(walk.undigested.values()))


class _Undigestible(Exception):
    """An object that has contents no one can read."""


class _Walk:
    """Feeds a digest with everything that is reached from an object, each object once."""

    def __init__(self, known: Sequence[tuple[object, str]], folder: Path | None) -> None:
        self.undigested: dict[str, str] = {}
        self._digest = hashlib.sha256()
        # Objects are kept: the next one at the address of a freed one is another object.
        self._seen: dict[int, tuple[str, object]] = {
            id(value): (f"known {sha256}", value) for value, sha256 in known
        }
        self._places = PACKAGE_NAME
        if folder is not None:
            paths = "|".join(re.escape(str(each)) for each in (folder.resolve(), folder.absolute()))
            self._places = re.compile(rf"(?:{paths})(?=/|$)|{PACKAGE_NAME.pattern}")

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was visited so far."""
        return self._digest.hexdigest()

    def visit(self, value: object, name: str) -> None:
        """Take an object in; what cannot be digested is noted by its dotted name."""
        try:
            self._take(value, name)
        except FOREIGN_ERRORS as error:
            kind = type(value)
            reason = str(error) if isinstance(error, _Undigestible) else type(error).__name__
            place = name or "the module"
            what = f"{place} ({kind.__module__}.{kind.__qualname__})"
            self.undigested.setdefault(place, f"{what}: {reason}" if reason else what)
            self._token("undigested")

    def _token(self, kind: str, content: Any = b"") -> None:
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        self._digest.update(f"{kind} {memoryview(data).nbytes}:".encode())
        self._digest.update(data)

    def _text(self, text: str) -> str:
        """Return a text without where a submission's folder lies."""
        return self._places.sub("<submission>", text)

    def _take(self, value: object, name: str) -> None:
        plain = _plain(value)
        if plain is not None:
            self._token(type(value).__name__, self._text(plain))
        elif isinstance(value, bytes | bytearray | memoryview):
            self._token("bytes", bytes(value))
        elif type(value) is tuple:  # equal ones may be one object, or several
            self._items("tuple", value, name)
        elif (seen := self._seen.get(id(value))) is not None:
            self._token("seen", seen[0])
        else:
            self._seen[id(value)] = (str(len(self._seen)), value)
            self._object(value, name)

    def _object(self, value: object, name: str) -> None:
        for kinds, take in self._TAKERS:
            if isinstance(value, kinds):
                take(self, value, name)
                return
        if type(value).__module__ == "typing" or isinstance(value, types.GenericAlias):
            self._token("typing", self._text(repr(value)))
        elif callable(value) and isinstance(getattr(value, "__qualname__", None), str):
            self._callable(value, name)
        else:
            self._instance(value, name)

    # Containers -------------------------------------------------------------------------------

    def _items(self, kind: str, values: Iterable[object], name: str) -> None:
        items = list(values)
        self._token(kind, str(len(items)))
        for place, item in enumerate(items):
            self.visit(item, f"{name}[{place}]")

    def _sequence(self, value: list[Any] | tuple[Any, ...], name: str) -> None:
        self._items("sequence", value, name)
        self._beyond(value, (list, tuple), name)

    def _mapping(self, value: dict[Any, Any], name: str) -> None:
        items = list(dict.items(value))  # their order counts: networks are applied in it
        self._token("mapping", str(len(items)))
        for key, item in items:
            self.visit(key, f"{name}[...]")
            self.visit(item, f"{name}[{key!r}]" if isinstance(key, str | int) else f"{name}[...]")
        self._beyond(value, (dict,), name)

    def _set(self, value: set[Any] | frozenset[Any], name: str) -> None:
        """Visit a set in the order of digests: its own order differs between processes."""
        elements = []
        for element in value:
            walk = _Walk((), None)
            walk._seen, walk._places = dict(self._seen), self._places
            walk.visit(element, f"{name}{{...}}")
            self.undigested |= walk.undigested
            elements.append(walk.hexdigest())
        self._token("set", " ".join(sorted(elements)))
        self._beyond(value, (set, frozenset), name)

    def _beyond(self, value: object, plain: tuple[type, ...], name: str) -> None:
        """Visit what a subclass of a container or a number has besides its contents."""
        if type(value) not in plain:
            self._type(type(value), name)
            self._attributes(value, name)

    def _subclassed(self, value: Any, name: str) -> None:
        """Visit a number or a text of a class of its own."""
        base = next(each for each in (int, float, complex, str, bytes) if isinstance(value, each))
        self.visit(base(value), name)
        self._beyond(value, (base,), name)

    # Numbers ----------------------------------------------------------------------------------

    def _array(self, value: np.ndarray[Any, Any] | np.generic, name: str) -> None:
        array = np.asarray(value)
        self._token("array", f"{type(value).__name__} {array.dtype.descr} {array.shape}")
        if array.dtype.hasobject:
            self._items("objects", array.ravel().tolist(), name)
        else:
            self._token("values", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        if type(value) is not np.ndarray and isinstance(value, np.ndarray):
            self._type(type(value), name)
            if not isinstance(value, np.memmap):
                self._attributes(value, name)

    def _tensor(self, value: Tensor, name: str) -> None:
        kind = type(value)
        self._attributes(value, name)
        if kind not in (Tensor, nn.Parameter):
            self._type(kind, name)
            if hasattr(value, "__tensor_flatten__"):
                names, context = value.__tensor_flatten__()
                self.visit(context, f"{name}.context")
                for each in names:
                    self.visit(getattr(value, each), f"{name}.{each}")
                return
            value = value.as_subclass(Tensor)
        tensor = value.detach()
        self._token("tensor", f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}")
        for part in _parts(tensor):
            self._token("values", _raw(part))

    # Code -------------------------------------------------------------------------------------

    def _callable(self, value: Any, name: str) -> None:
        """Visit a function in C, a wrapped one or a descriptor: its name and its object."""
        self._named("callable", value)
        bound = getattr(value, "__self__", None)
        if bound is not None and not isinstance(bound, types.ModuleType):
            self.visit(bound, f"{name}.__self__")
        if hasattr(value, "__wrapped__"):
            self.visit(value.__wrapped__, name)

    def _named(self, kind: str, value: Any) -> None:
        module = getattr(value, "__module__", None)
        self._token(kind, self._text(f"{module}.{value.__qualname__}"))

    def _method(self, value: types.MethodType, name: str) -> None:
        self._token("method")
        self.visit(value.__func__, name)
        self.visit(value.__self__, f"{name}.__self__")

    def _partial(self, value: functools.partial[Any], name: str) -> None:
        self._token("partial")
        self.visit(value.func, f"{name}.func")
        self.visit(value.args, f"{name}.args")
        self.visit(value.keywords, f"{name}.keywords")
        self._beyond(value, (functools.partial,), name)

    def _function(self, value: types.FunctionType, name: str) -> None:
        self._named("function", value)
        if hasattr(value, "_torchdynamo_orig_callable"):  # of torch.compile
            self.visit(value._torchdynamo_orig_callable, name)
            return
        closure = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        for variable, cell in closure:
            with contextlib.suppress(ValueError):  # an empty cell
                self.visit(cell.cell_contents, f"{name}.{variable}")
        self._attributes(value, name)
        if _is_library(value.__module__) or is_in_library(value.__code__.co_filename):
            return
        text = _source(value.__code__)
        if text is None:
            self.visit(value.__code__, f"{name}.__code__")
        else:
            self._token("source", self._text(text))
        self.visit(value.__defaults__, f"{name}.__defaults__")
        self.visit(value.__kwdefaults__, f"{name}.__kwdefaults__")
        used, names = _names(value.__code__)
        for each in sorted(used & value.__globals__.keys()):
            found = value.__globals__[each]
            self._token("global", each)
            self.visit(found, each)
            if isinstance(found, types.ModuleType) and not _is_library(found.__name__):
                self.visit(
                    {key: vars(found)[key] for key in sorted(names & vars(found).keys())}, each
                )

    def _code(self, value: types.CodeType, name: str) -> None:
        self._token("code", value.co_code)
        self.visit(value.co_names, name)
        self.visit(value.co_consts, name)

    def _property(self, value: property, name: str) -> None:
        self._items("property", (value.fget, value.fset, value.fdel), name)

    def _wrapper(self, value: Any, name: str) -> None:
        self._token(type(value).__name__)
        self.visit(value.__func__, name)

    def _module_of_code(self, value: types.ModuleType, name: str) -> None:
        self._token("python module", self._text(value.__name__))
        file = getattr(value, "__file__", None)
        if not _is_library(value.__name__) and file is not None:
            self._token("file", Path(file).read_bytes())

    def _class(self, value: type, name: str) -> None:
        """Visit a class by its name; one of the user's own by its body and its bases too."""
        self._named("class", value)
        if not _is_library(value.__module__):
            for key, item in sorted(vars(value).items()):
                if key not in CLASS_BODY and not _is_written_by_dataclass(value, item):
                    self._token("attribute", key)
                    self.visit(item, f"{value.__qualname__}.{key}")
        for base in value.__bases__:
            if not _is_library(base.__module__):
                self._type(base, name)

    def _type(self, kind: type, name: str) -> None:
        self.visit(kind, f"{name}.__class__")

    # Objects ----------------------------------------------------------------------------------

    def _enum(self, value: enum.Enum, name: str) -> None:
        self._token("enum", value.name)
        self._type(type(value), name)

    def _stateless(self, value: object, name: str) -> None:
        self._named("stateless", type(value))

    def _reference(self, value: weakref.ref[Any], name: str) -> None:
        self._token("reference")
        self.visit(value(), name)

    def _generator(self, value: torch.Generator, name: str) -> None:
        self._token("generator", str(value.device))
        self.visit(value.get_state(), f"{name}.state")

    def _script(self, value: Any, name: str) -> None:
        """Visit TorchScript: its code, constants and attributes, as they would be saved."""
        buffer = io.BytesIO()
        if isinstance(value, torch.jit.ScriptModule):
            torch.jit.save(value, buffer)
            self._hooks(vars(value), name)
        else:
            buffer.write(value.save_to_buffer())
        with zipfile.ZipFile(buffer) as archive:
            for path, entry in sorted(
                (_unmangled(entry.filename.partition("/")[2].encode()), entry)
                for entry in archive.infolist()
                if _counts(entry.filename)
            ):
                content = archive.read(entry)
                if path.endswith((b".py", b".pkl")):
                    content = _unmangled(content)
                if path.endswith(b".py"):
                    content = _in_one_order(content)
                self._token("script", path)
                self._token("content", content)

    def _network(self, value: nn.Module, name: str) -> None:
        """Visit a PyTorch module: its class, tensors, parts, mode, hooks and all else."""
        self._type(type(value), name)
        state = {key: item for key, item in vars(value).items() if key not in WITHOUT_EFFECT}
        if isinstance(value, torch.fx.GraphModule):
            self._token("graph", self._text(value.code))
            state = {key: item for key, item in state.items() if key not in GRAPH_MODULE}
        if type(value).__module__.startswith("torch._dynamo."):  # of torch.compile
            state = {"_modules": state["_modules"]}
        self._hooks(state, name)
        prefix = f"{name}." if name else ""
        for key in sorted(state.keys() - {*HOOKS, *HOOK_OPTIONS} - _computed_before_passes(value)):
            self._token("attribute", key)
            if key in ("_modules", "_parameters", "_buffers"):
                for part, item in state[key].items():
                    self._token("part", part)
                    self.visit(item, f"{prefix}{part}")
            else:
                self.visit(state[key], f"{prefix}{key}")
        if type(value).get_extra_state is not nn.Module.get_extra_state:
            self.visit(value.get_extra_state(), f"{prefix}get_extra_state()")

    def _hooks(self, state: Mapping[str, Any], name: str) -> None:
        for key in HOOKS:
            hooks = state.get(key) or {}
            options = [state.get(each) or {} for each in HOOK_OPTIONS]
            for place, (number, hook) in enumerate(hooks.items()):
                self._token(key, str([number in each for each in options]))
                self.visit(hook, f"{name}.{key}[{place}]")

    def _instance(self, value: object, name: str) -> None:
        """Visit another object: its class, and its attributes or what it would be pickled as."""
        kind = type(value)
        self._type(kind, name)
        if _holds_c_state(kind) or (_is_library(kind.__module__) and _says_its_state(kind)):
            self._pickled(value, name)
        else:
            self._attributes(value, name)

    def _pickled(self, value: object, name: str) -> None:
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
        except FOREIGN_ERRORS as error:
            raise _Undigestible("its contents cannot be read") from error
        if isinstance(reduced, str):
            self._token("global", reduced)
            return
        function, arguments, *rest = reduced
        self.visit(function, f"{name}.__reduce_ex__")
        self._items("arguments", [each for each in arguments if each is not value], name)
        for part in rest:
            is_iterator = isinstance(part, Iterator)
            self.visit(list(part) if is_iterator else part, name)

    def _attributes(self, value: object, name: str) -> None:
        """Return instance variables and slots, by name."""
        found: dict[str, object] = {}
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                private = slot.startswith("__") and not slot.endswith("__")
                key = f"_{base.__name__.lstrip('_')}{slot}" if private else slot
                member = vars(base).get(key)
                if isinstance(member, types.MemberDescriptorType):
                    with contextlib.suppress(AttributeError):
                        found[key] = member.__get__(value, base)
        with contextlib.suppress(AttributeError):
            found |= object.__getattribute__(value, "__dict__")
        for key in sorted(found, key=str):
            self._token("attribute", str(key))
            self.visit(found[key], f"{name}.{key}" if name else str(key))

    _TAKERS: tuple[tuple[Any, Callable[[_Walk, Any, str], None]], ...] = (
        (STATELESS, _stateless),
        ((torch.jit.ScriptModule, torch.jit.ScriptFunction), _script),
        (nn.Module, _network),
        (Tensor, _tensor),
        ((np.ndarray, np.generic), _array),
        (enum.Enum, _enum),
        (PurePath, lambda walk, value, name: walk._token("path", walk._text(str(value)))),
        ((list, tuple), _sequence),
        (dict, _mapping),
        ((set, frozenset), _set),
        (types.MappingProxyType, lambda walk, value, name: walk._mapping(dict(value), name)),
        ((int, float, complex, str, bytes), _subclassed),
        (types.FunctionType, _function),
        (types.MethodType, _method),
        (functools.partial, _partial),
        (types.CodeType, _code),
        (type, _class),
        (types.ModuleType, _module_of_code),
        (property, _property),
        ((staticmethod, classmethod), _wrapper),
        (weakref.ref, _reference),
        (torch.Generator, _generator),
    )


def _computed_before_passes(module: nn.Module) -> set[str]:
    """Return the attributes of a module that PyTorch's own hooks compute before each pass.

    Weight norm, spectral norm and pruning keep a weight so. Until the first pass it is what the
    constructor drew, whatever was loaded since, and decides no answer.
    """
    # Recurrent layers hold their weights once more, in a list.
    names = {"_flat_weights"} if isinstance(module, nn.RNNBase) else set()
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils."):
            names |= {getattr(hook, each, "") for each in ("name", "_tensor_name")}
    return names


def _plain(value: object) -> str | None:
    """Return a value without parts as a text; None for all others."""
    kind = type(value)
    if kind is int:
        return f"{cast(int, value):x}"
    if value is None or value is Ellipsis or value is NotImplemented or kind in (bool, str):
        return str(value)
    if kind is float:
        return struct.pack(">d", value).hex()
    if kind is complex:
        number = cast(complex, value)
        return struct.pack(">dd", number.real, number.imag).hex()
    if kind in (range, slice, torch.dtype, torch.device, torch.layout, torch.memory_format):
        return repr(value)
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket | np.dtype | np.ufunc):
        return str(value)
    return None


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return strided tensors that hold the values of a tensor of any kind."""
    if tensor.is_meta:
        raise _Undigestible("a tensor on the device meta has no values")
    if tensor.is_nested:
        return [part for each in tensor.unbind() for part in _parts(each)]
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.layout != torch.strided:
        return [tensor.to_dense()]
    if not tensor.is_quantized:
        return [tensor]
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return [tensor.int_repr(), scale]
    axis = torch.tensor(tensor.q_per_channel_axis())
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return [tensor.int_repr(), scales, zero_points, axis]


def _raw(tensor: Tensor) -> Any:
    """Return the bytes of a strided tensor, without a conversion of its numbers."""
    values = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy() if values.numel() else b""


def _is_library(module: object) -> bool:
    """Return whether a Python module is of an installed package, Python or this program."""
    return isinstance(module, str) and _is_installed(module)


@functools.cache
def _is_installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top in LIBRARIES:
        return True
    found = sys.modules.get(module) or sys.modules.get(top)
    file = getattr(found, "__file__", None)
    return file is not None and is_in_library(str(file))


def _source(code: types.CodeType) -> str | None:
    """Return the text of a function or of a lambda alone; None where there is none."""
    node = _node(code)
    return None if node is None else ast.get_source_segment(_file_text(code.co_filename), node)


def _node(code: types.CodeType) -> ast.expr | ast.stmt | None:
    """Return where a function stands in its file: the smallest definition around it."""
    spans = [
        ((line, column), (last_line, last_column))
        for line, last_line, column, last_column in code.co_positions()
        if line is not None
        and last_line is not None
        and column is not None
        and last_column is not None
        and (line, column) < (last_line, last_column)
    ]
    if not spans:
        return None
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    fitting = [
        node
        for node in _definitions(_file_text(code.co_filename))
        if getattr(node, "name", "<lambda>") == code.co_name
        and (node.lineno, node.col_offset) <= first
        and (node.end_lineno or 0, node.end_col_offset or 0) >= last
    ]
    return max(fitting, key=lambda node: (node.lineno, node.col_offset), default=None)


def _file_text(path: str) -> str:
    return "".join(linecache.getlines(path))


@functools.lru_cache(maxsize=32)
def _definitions(text: str) -> tuple[ast.expr | ast.stmt, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # no file of Python code, such as a notebook's
        return ()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that a function refers to, and all names with attributes.

    Those of the functions inside it are counted too.
    """
    used = {
        str(each.argval)
        for each in dis.get_instructions(code)
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            theirs = _names(inner)
            used, names = used | theirs[0], names | theirs[1]
    return used, names


def _is_written_by_dataclass(owner: type, item: object) -> bool:
    """Return whether a method follows from the fields of a dataclass, without source."""
    if not dataclasses.is_dataclass(owner) or not isinstance(item, types.FunctionType):
        return False
    return item.__code__.co_filename.startswith("<")


def _holds_c_state(kind: type) -> bool:
    """Return whether objects of a class have contents besides their attributes and slots."""
    slots = sum(
        isinstance(member, types.MemberDescriptorType)
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for member in vars(base).values()
    )
    pointers = slots + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__basicsize__ > object.__basicsize__ + pointers * struct.calcsize("P")


def _says_its_state(kind: type) -> bool:
    """Return whether a class defines what its objects are pickled as."""
    names = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(kind, each) is not getattr(object, each, None) for each in names)


def _counts(path: str) -> bool:
    """Return whether a file in a TorchScript archive decides what the module does."""
    name = path.partition("/")[2]
    return name.startswith(("code/", "constants", "data")) and not name.endswith(".debug_pkl")


def _unmangled(content: bytes) -> bytes:
    """Return TorchScript's names of classes without the process's running number."""
    content = re.sub(rb"[./]?___torch_mangle_\d+", b"", content)
    return re.sub(PACKAGE_NAME.pattern.encode(), b"<submission>", content)


def _in_one_order(code: bytes) -> bytes:
    """Sort a class's constants in TorchScript's code: they come in the order of a set."""
    parts = itertools.groupby(code.splitlines(), key=lambda line: b" : Final[" in line)
    lines = (line for is_set, part in parts for line in (sorted(part) if is_set else part))
    return b"\n".join(lines)


@contextlib.contextmanager
def _deep_calls() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, MOST_NESTED))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
