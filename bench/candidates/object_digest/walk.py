"""Walk everything that is reached from an object, and feed a digest with it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from bench.candidates.foreign_code import PACKAGE
from bench.errors import FOREIGN_ERRORS

PACKAGE_NAME = re.compile(rf"{PACKAGE}_[0-9a-f]+")

Reader: TypeAlias = "Callable[[Walk, Any, str], None]"
"""Takes in an object of one kind, by the walk's methods; the text is the object's dotted name."""

Readers: TypeAlias = tuple[tuple[Any, Reader], ...]
"""Types, as `isinstance` takes them, and who reads objects of them."""


class Undigestible(Exception):
    """An object that has contents no one can read."""


class Walk:
    """Feeds a digest with everything that is reached from an object, each object once.

    Args:
        read: takes in an object that the walk meets for the first time.
        known: objects with digests of their own.
        folder: of the submission, if there is one.
    """

    def __init__(
        self, read: Reader, known: Sequence[tuple[object, str]], folder: Path | None
    ) -> None:
        self.undigested: dict[str, str] = {}
        self._read = read
        self._digest = hashlib.sha256()
        # Objects are kept: the next one at the address of a freed one is another object.
        self._seen: dict[int, tuple[str, object]] = {
            id(value): (f"known {sha256}", value) for value, sha256 in known
        }
        self._places = PACKAGE_NAME
        if folder is not None:
            paths = "|".join(re.escape(str(each)) for each in (folder.resolve(), folder.absolute()))
            self._places = re.compile(rf"(?:{paths})(?=/|$)|{PACKAGE_NAME.pattern}")

    def branch(self) -> Walk:
        """Return a walk with a digest of its own that knows what this one has seen."""
        walk = Walk(self._read, (), None)
        walk._seen, walk._places = dict(self._seen), self._places
        return walk

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was visited so far."""
        return self._digest.hexdigest()

    def visit(self, value: object, name: str) -> None:
        """Take an object in; note what cannot be digested by its dotted name."""
        try:
            self._take(value, name)
        except FOREIGN_ERRORS as error:
            kind = type(value)
            reason = str(error) if isinstance(error, Undigestible) else type(error).__name__
            place = name or "the module"
            what = f"{place} ({kind.__module__}.{kind.__qualname__})"
            self.undigested.setdefault(place, f"{what}: {reason}" if reason else what)
            self.token("undigested")

    def _take(self, value: object, name: str) -> None:
        plain = _plain(value)
        if plain is not None:
            self.token(type(value).__name__, self.text(plain))
        elif isinstance(value, bytes | bytearray | memoryview):
            self.token("bytes", bytes(value))
        elif type(value) is tuple:  # equal ones may be one object, or several
            self.items("tuple", value, name)
        elif (seen := self._seen.get(id(value))) is not None:
            self.token("seen", seen[0])
        else:
            self._seen[id(value)] = (str(len(self._seen)), value)
            self._read(self, value, name)

    def token(self, kind: str, content: Any = b"") -> None:
        """Feed the digest with a text or with bytes, under a name and with their length."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        self._digest.update(f"{kind} {memoryview(data).nbytes}:".encode())
        self._digest.update(data)

    def text(self, text: str) -> str:
        """Return a text with a placeholder for the path of a submission's folder."""
        return self._places.sub("<submission>", text)

    def qualified_name(self, kind: str, value: Any) -> None:
        """Take in the name of a function or a class, with its module's."""
        module = getattr(value, "__module__", None)
        self.token(kind, self.text(f"{module}.{value.__qualname__}"))

    def items(self, kind: str, values: Iterable[object], name: str) -> None:
        """Visit objects in their order, with their number."""
        items = list(values)
        self.token(kind, str(len(items)))
        for place, item in enumerate(items):
            self.visit(item, f"{name}[{place}]")

    def visit_class(self, kind: type, name: str) -> None:
        """Visit the class of an object."""
        self.visit(kind, f"{name}.__class__")

    def beyond(self, value: object, plain: tuple[type, ...], name: str) -> None:
        """Visit what a subclass of a container or a number has besides its contents."""
        if type(value) not in plain:
            self.visit_class(type(value), name)
            self.attributes(value, name)

    def attributes(self, value: object, name: str) -> None:
        """Visit instance variables and slots, by name."""
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
            self.token("attribute", str(key))
            self.visit(found[key], f"{name}.{key}" if name else str(key))


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
