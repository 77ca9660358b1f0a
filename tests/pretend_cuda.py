"""A pretend CUDA device for tests on machines without one: tensors say `cuda:0` and live in RAM.

    with PretendCuda() as cuda:                # in a test
        model.to("cuda")(images.to("cuda"))    # mixed devices, foreign generators, .numpy(): errors
        assert not cuda.syncs                  # {("item", "engines/search.py:331"): 12, ...}
    with PretendCuda(memory=1 << 20): ...      # torch.OutOfMemoryError beyond so many bytes

    python tests/pretend_cuda.py -m bench run --device cuda ...    # a whole command, then a report

It refuses what CUDA refuses (tensors of several devices but for 0-dim CPU ones in pointwise
operations, CPU generators, `.numpy()`, use after a fork), counts where the host waits for the
device (item, nonzero, boolean masks, blocking copies), what is copied, how many operations are
launched and how much memory its tensors take, and keeps the device's random state apart.

Each tensor wraps a CPU tensor that does the work, so values and autograd are those of the CPU. To
C++ it is a *meta* tensor: the autograd engine asks a real driver about CUDA ones. So what C++
decides by `is_cuda` (autocast, cuDNN, fused optimizers) is not seen; neither are compiled code,
streams' races, TF32's rounding, libraries' workspaces and speed. It is 5 to 10 times as slow as
the CPU. Triton's interpreter runs its kernels, and CUDA graphs are recorded and replayed. Do not
use real meta tensors within it; a module's parameters are other objects after `.to("cuda")`, which
on CUDA they are not. Tried with torch 2.14 (CUDA build, no driver).
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import weakref
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import torch
import torch._dynamo  # before anything is replaced: it makes a table of functions
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = {aten.copy_, aten._to_copy, aten._copy_from}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
WAITS = {  # operations whose result's size, or whose result, the host must know
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.masked_select: "mask",
    aten.equal: "equal",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.bincount: "bincount",
    aten.repeat_interleave: "repeat_interleave",
    aten.masked_scatter: "mask",
}
SCALARS = {  # operations besides pointwise ones that take a 0-dim CPU tensor
    aten.masked_fill,
    aten.masked_fill_,
    aten.fill_,
    aten.fill,
    aten.index_fill,
    aten.index_fill_,
    aten.where,
    *INDEXED,
}
NO_KERNEL = {  # operations besides views that launch nothing
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten.lift_fresh,
    aten._reshape_alias,
    aten._unsafe_view,
    aten.set_,
    aten.resize_,
    aten.record_stream,
}
current: PretendCuda | None = None


class CudaTensor(Tensor):
    """A tensor on the pretend device; `inner` is the CPU tensor that does the work."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        self = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
            requires_grad=requires_grad,
        )
        self.inner, self.owner = inner, current
        self.held = current.hold(inner)
        return self

    def __del__(self):
        if hasattr(self, "held"):
            self.owner.drop(*self.held)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if current is None:
            raise RuntimeError("pretend device: a tensor outlived its PretendCuda()")
        return current.dispatch(func, args, kwargs or {})

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    def _set_data(self, other):
        Tensor.data.__set__(self, other)
        self.owner.drop(*self.held)
        self.inner, self.held = other.inner, self.owner.hold(other.inner)

    data = property(lambda self: Tensor.data.__get__(self), _set_data)

    def get_device(self):
        return 0

    def numpy(self, *args, **kwargs):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def tolist(self):
        return self.cpu().tolist()

    def data_ptr(self):
        return self.inner.data_ptr()

    def to(self, *args, copy=False, **kwargs):
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        more = {} if layout is None else {"memory_format": layout}
        if device is None or device.type in ("cuda", "meta"):
            return super().to(dtype or self.dtype, copy=copy, **more)
        return super().to(device, dtype or self.dtype, non_blocking=non_blocking, **more)

    def cuda(self, *args, **kwargs):
        return self

    def new_tensor(self, data, *, dtype=None, device=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA)

    def pin_memory(self, *args, **kwargs):
        raise RuntimeError(f"cannot pin {self.dtype} on cuda: only dense CPU tensors can be pinned")

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support deepcopy")
        if id(self) not in memo:
            copied = CudaTensor(self.inner.clone())
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        current.wait("d2h", self.inner)
        return _unpickled, (self.inner, self.requires_grad, getattr(self, "_is_param", False))

    def __repr__(self, **kwargs):
        current.wait("repr")
        return f"{self.inner!r} on cuda:0"

    def __format__(self, spec):
        return format(self.item() if self.dim() == 0 else repr(self), spec)


def _unpickled(inner, requires_grad, is_parameter):
    made = CudaTensor(inner).requires_grad_(requires_grad)
    if is_parameter:
        made._is_param = True
    return made


_Generator = torch.Generator


class Generator(_Generator):
    """A generator that knows the device that it was made for; C++ hands on only its address."""

    of_device: set[int] = set()

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        if torch.device(device).type == "cuda":
            cls.of_device.add(made._cdata)
        return made

    def __del__(self):
        self.of_device.discard(self._cdata)

    device = property(lambda self: CUDA if self._cdata in self.of_device else torch.device("cpu"))


class Graph:
    """A CUDA graph: what was launched while it was recorded, done again on the same memory.

    As on CUDA, recording computes nothing: what it wrote is undone, what it made is NaN.
    """

    def __init__(self):
        self.calls, self.before, self.made = [], {}, []

    def capture_begin(self, pool=None, capture_error_mode="global"):
        current.recording = self

    def pool(self):
        return 0, 1

    def capture_end(self):
        current.recording = None
        for tensor, values in self.before.values():
            tensor.untyped_storage().copy_(values)
        for tensor in self.made:
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))

    def replay(self):
        current.launches["graph"] += 1
        with torch.no_grad():
            for call in self.calls:
                call()

    def note(self, func, args, kwargs, run):
        """Run an operation, and record it."""
        if func.is_view or func.overloadpacket is aten._unsafe_view:
            return run()
        ours = {each.untyped_storage().data_ptr() for each in self.made}
        for value in tree_flatten((args, kwargs))[0] if func._schema.is_mutable else ():
            key = isinstance(value, Tensor) and value.untyped_storage().data_ptr()
            if key and key not in ours:
                self.before.setdefault(key, (value, value.untyped_storage().clone()))
        result = run()
        made = [each for each in tree_flatten(result)[0] if isinstance(each, Tensor)]
        if func._schema.is_mutable:
            self.calls.append(lambda: func(*args, **kwargs))
        else:
            self.made += made

            def again():
                flat = tree_flatten(func(*args, **kwargs))[0]
                for old, new in zip(made, (x for x in flat if isinstance(x, Tensor)), strict=True):
                    old.copy_(new)

            self.calls.append(again)
        return result


class PretendCuda(TorchDispatchMode):
    """Within this context there is a CUDA device.

    Attributes:
        syncs: how often the host waited, by kind and place (of the innermost frame in `watched`).
        copied: bytes by direction.
        launches: operations on the device by name; neither views nor what only takes memory.
        held, peak: bytes of the tensors on the device, now and at most so far.
    """

    def __init__(self, memory: float = float("inf"), watched: str = f"{os.sep}bench{os.sep}"):
        super().__init__()
        self.memory, self.watched = memory, watched
        self.held = self.peak = 0
        self.holders = Counter()
        self.syncs, self.copied, self.launches = Counter(), Counter(), Counter()
        self.uncounted, self.recording = False, None
        self.process, self.pinned = os.getpid(), set()
        self.random = Generator("cuda")
        self._patches = contextlib.ExitStack()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.dispatch(func, args, kwargs or {})

    def hold(self, inner) -> tuple[int, int]:
        storage = inner.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key and not self.holders[key] and self.held + size > self.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        if key:
            self.held += 0 if self.holders[key] else size
            self.holders[key] += 1
            self.peak = max(self.peak, self.held)
        return key, size

    def drop(self, key, size) -> None:
        if key:
            self.holders[key] -= 1
            if not self.holders[key]:
                del self.holders[key]
                self.held -= size

    def place(self) -> str:
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if self.watched in name and name != __file__:
                return f"{name.rpartition(self.watched)[2]}:{frame.f_lineno}"
            frame = frame.f_back
        return "elsewhere"

    @contextlib.contextmanager
    def of_the_model(self):
        """Launches that are not counted."""
        before, self.uncounted = self.uncounted, True
        try:
            yield
        finally:
            self.uncounted = before

    def wait(self, kind: str, data: Tensor | None = None) -> None:
        if self.recording is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.syncs[kind, self.place()] += 1
        if data is not None:
            self.copied[kind] += data.numel() * data.element_size()

    def dispatch(self, func, args, kwargs):
        flat, spec = tree_flatten((args, kwargs))
        wrapped = [each for each in flat if isinstance(each, CudaTensor)]
        asked = kwargs.get("device")
        to_cuda = asked is not None and asked.type in ("cuda", "meta")
        if not wrapped and not to_cuda:
            self._check_generator(func, flat, "cpu")
            return func(*args, **kwargs)
        if os.getpid() != self.process:
            raise RuntimeError(
                "Cannot re-initialize CUDA in forked subprocess. To use CUDA with "
                "multiprocessing, you must use the 'spawn' start method"
            )
        packet, tensors = func.overloadpacket, [each for each in flat if isinstance(each, Tensor)]
        if not (func.is_view or packet in NO_KERNEL or self.uncounted or self.recording):
            self.launches[str(packet)] += 1
        if packet not in COPIES:
            self._check_devices(func, packet, args, tensors, asked)
        drawn = self._check_generator(func, flat, "cuda")
        if packet in WAITS:
            self.wait(WAITS[packet])
        if packet in INDEXED:
            for index in args[1]:
                if isinstance(index, CudaTensor) and index.dtype in (torch.bool, torch.uint8):
                    filled = len(args) > 2 and args[2].numel() == 1 and len(args[1]) == 1
                    if not filled:  # else a masked_fill
                        self.wait("mask")
                elif isinstance(index, Tensor) and not isinstance(index, CudaTensor):
                    self.wait("h2d", index)
        inner = {id(each.inner): each for each in wrapped}
        args_in, kwargs_in = tree_unflatten(
            [each.inner if isinstance(each, CudaTensor) else each for each in flat], spec
        )
        on_cuda = to_cuda if asked is not None else bool(wrapped)
        if asked is not None:
            kwargs_in["device"] = torch.device("cpu")
            kwargs_in.pop("pin_memory", None)
        if packet in COPIES:
            source = args[1] if packet is aten.copy_ else args[0]
            onto = isinstance(args[0], CudaTensor) if packet is aten.copy_ else on_cuda
            if isinstance(source, CudaTensor) != onto:
                pinned = source.data_ptr() in self.pinned
                free = kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:] == (True,))
                if not (free and (pinned or not onto)):
                    self.wait("h2d" if onto else "d2h", source)
        result = self._run(func, args_in, kwargs_in, drawn)
        for each in wrapped if func._schema.is_mutable else ():
            if each.inner.shape != each.shape or each.inner.stride() != each.stride():
                Tensor.data.__set__(each, CudaTensor(each.inner))  # such as resize_, as_strided_

        def out(tensor):
            if id(tensor) in inner:
                return inner[id(tensor)]
            if not on_cuda or isinstance(tensor, CudaTensor):
                return tensor
            if any(tensor is each for each in tensors):  # a CPU tensor that was changed in place
                return tensor
            return CudaTensor(tensor)

        return tree_map_only(Tensor, out, result)

    def _check_devices(self, func, packet, args, tensors, asked) -> None:
        strays = [each for each in tensors if not isinstance(each, CudaTensor)]
        if not strays or len(strays) == len(tensors):
            return
        if packet in INDEXED:
            indices = [each for each in args[1] if each is not None]
            if not isinstance(args[0], CudaTensor):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the "
                    "indexed tensor (cpu)"
                )
            strays = [each for each in strays if not any(each is index for index in indices)]
        scalar = torch.Tag.pointwise in func.tags or packet in SCALARS
        changed = [
            value
            for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for stray in strays:
            if stray.dim() or not scalar or any(stray is each for each in changed):
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, cuda:0 and cpu! (in {func}, shape {tuple(stray.shape)})"
                )

    def _check_generator(self, func, values, device: str) -> bool:
        """Whether the device's own generator is drawn from."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return False
        given = next((each for each in values if isinstance(each, _Generator)), None)
        if given is not None and (given._cdata in Generator.of_device) != (device == "cuda"):
            other = "cpu" if device == "cuda" else "cuda"
            raise RuntimeError(
                f"Expected a '{device}' device type for generator but found '{other}'"
            )
        return given is None

    def _run(self, func, args, kwargs, drawn):
        if self.recording is not None:
            if drawn:
                raise RuntimeError("pretend device: no random numbers while recording")
            return self.recording.note(func, args, kwargs, lambda: func(*args, **kwargs))
        if not drawn:
            return func(*args, **kwargs)
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self.random.get_state())
        try:
            return func(*args, **kwargs)
        finally:
            self.random.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(before)

    @property
    def _run_kernel(self):
        """What launches a Triton kernel: its interpreter, on the tensors that do the work."""
        from triton.runtime.interpreter import InterpretedFunction

        def run(kernel, *args, grid, warmup=False, **kwargs):
            inner = [each.inner if isinstance(each, CudaTensor) else each for each in args]

            def interpret():
                with torch._C._DisableTorchDispatch():
                    InterpretedFunction(kernel.fn)[grid](*inner, **kwargs)

            if self.recording is not None:
                self.recording.calls.append(interpret)
            else:
                self.launches[kernel.fn.__name__] += not self.uncounted
                interpret()

        return run

    def _pin(self, tensor, *args):
        copy = tensor.clone()
        self.pinned.add(copy.data_ptr())
        weakref.finalize(copy, self.pinned.discard, copy.data_ptr())
        return copy

    def __enter__(self):
        global current
        if current is not None:
            raise RuntimeError("pretend device: there is one already")
        current = self
        nothing = lambda *args, **kwargs: None  # noqa: E731
        of_device = lambda value: lambda *args, **kwargs: value  # noqa: E731
        properties = SimpleNamespace(
            name="Pretend CUDA", total_memory=1 << 34, major=8, minor=0, multi_processor_count=108
        )
        replaced = {
            "is_available": of_device(True),
            "is_initialized": of_device(True),
            "device_count": of_device(1),
            "current_device": of_device(0),
            "get_device_name": of_device(properties.name),
            "_lazy_init": nothing,
            "get_device_properties": of_device(properties),
            "is_bf16_supported": of_device(True),
            "get_device_capability": of_device((8, 0)),
            "set_device": nothing,
            "mem_get_info": of_device((1 << 33, 1 << 34)),
            "empty_cache": nothing,
            "memory_allocated": of_device(0),
            "max_memory_allocated": of_device(0),
            "reset_peak_memory_stats": nothing,
            "Event": lambda *_, **__: mock.MagicMock(),
            "Stream": lambda *_, **__: mock.MagicMock(),
            "CUDAGraph": Graph,
            "current_stream": mock.MagicMock(),
            "stream": lambda _: contextlib.nullcontext(),
            "synchronize": lambda *_: self.wait("synchronize"),
            "manual_seed": self.random.manual_seed,
            "manual_seed_all": self.random.manual_seed,
            "get_rng_state": lambda *_: self.random.get_state(),
            "set_rng_state": lambda state, *_: self.random.set_state(state),
        }
        for module in (torch.cuda, torch.cuda.random, torch.cuda.memory):
            for name, value in replaced.items():
                if hasattr(module, name):
                    self._patches.enter_context(mock.patch.object(module, name, value))
        self._patches.enter_context(mock.patch.object(torch, "Generator", Generator))
        self._patches.enter_context(
            mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: self._pin(tensor))
        )
        self._patches.enter_context(mock.patch.object(torch, "compile", _no_compiler))
        with contextlib.suppress(ImportError):
            from triton.runtime import JITFunction

            self._patches.enter_context(mock.patch.object(JITFunction, "run", self._run_kernel))
        torch._C._ensureCUDADeviceGuardSet()  # C++ may ask which device is the current one
        for name in ("tensor", "as_tensor"):
            made = _from_data(getattr(torch, name))
            self._patches.enter_context(mock.patch.object(torch, name, made))
        return super().__enter__()

    def __exit__(self, *error):
        global current
        super().__exit__(*error)
        self._patches.close()
        current = None

    def report(self, most: int = 25) -> str:
        lines = [
            f"{sum(self.launches.values())} operations on the device; bytes copied "
            f"{dict(self.copied)}, at most {self.peak} held at once",
            f"{sum(self.syncs.values())} times the host waited:",
        ]
        lines += [f"{n:9d} {kind:12s} {place}" for (kind, place), n in self.syncs.most_common(most)]
        return "\n".join(lines)


def _from_data(make):
    """`torch.tensor` and the like: data to the CPU, from there to the device, as PyTorch does."""

    def call(data, *args, device=None, requires_grad=False, **kwargs):
        if isinstance(data, Tensor) or device is None or torch.device(device).type != "cuda":
            more = {"requires_grad": True} if requires_grad else {}
            return make(data, *args, **kwargs, **more, device=device)
        return make(data, *args, **kwargs).to("cuda").requires_grad_(requires_grad)

    return call


def _no_compiler(*args, **kwargs):
    raise NotImplementedError("pretend device: no compiler")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.modules["tests.pretend_cuda"] = sys.modules["__main__"]
    sys.argv = sys.argv[1:]
    as_module = sys.argv[0] == "-m"
    if as_module:
        sys.argv = sys.argv[1:]
    device = PretendCuda()
    try:
        with device:
            (runpy.run_module if as_module else runpy.run_path)(sys.argv[0], run_name="__main__")
    finally:
        print(device.report(), file=sys.stderr)
