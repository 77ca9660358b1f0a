"""Checkpoints as people save them: which tensors of a file are a module's weights.

A state dict is often saved below a key (`state_dict`, `ema`), beside other values, and with names
that a wrapper has changed (`module.` of DataParallel and of averaged models, `_orig_mod.` of
torch.compile, an attribute such as `model.`). Each way to undo this is a reading. Torch decides
which one fits (`bench.candidates.weights`): its hooks know what older files lack or name otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What wrappers call the module inside; anywhere in a name, since parts are wrapped too."""

BOOKKEEPING = re.compile(
    r"(n_averaged|num_updates|decay|criterion|loss|loss_fn|metrics?"
    r"|(train|val|valid|validation|test)_(acc|accuracy|metrics?|loss))(\.|$)"
)
"""Names beside a network's own that no answer depends on: counters of averaged models, losses and
metrics of trainers."""

NOT_TENSORS = ("_extra_state", "_packed_params", "dtype", "scale", "zero_point")
"""Last words of names whose values in a state dict need not be tensors."""

TRAINING_STATE = re.compile(r"optim|sched|scaler|rng|random|callback|loop|amp|^state$")
Words = tuple[str, ...]
"""A name's parts between its dots."""

MOST_NESTING = 12
LONGEST_LIST = 64


@dataclass(frozen=True)
class Reading:
    """One way to take a state dict from a file.

    Attributes:
        path: keys that lead to it.
        removed: words removed from the front of all names.
        unwrapped: wrappers' words removed anywhere in names.
        added: words put before all names.
        state: values by name, as `load_state_dict` takes them.
        left_aside: names beside it in the same mapping that are not read.
    """

    path: tuple[str, ...]
    state: OrderedDict[str, Any]
    removed: tuple[str, ...] = ()
    unwrapped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    left_aside: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What chooses this reading as `weights_key`."""
        return ".".join((*self.path, *self.removed))

    @property
    def is_plain(self) -> bool:
        """Whether the file's top level is the state dict, with nothing changed or left out."""
        return not (self.path or self.removed or self.unwrapped or self.added or self.left_aside)

    def __str__(self) -> str:
        said = [
            f"read from key `{'.'.join(self.path)}`" if self.path else "read from the top level"
        ]
        if self.removed:
            said.append(f"prefix `{'.'.join(self.removed)}.` removed")
        if self.unwrapped:
            said.append(
                f"{', '.join(f'`{word}.`' for word in self.unwrapped)} removed inside names"
            )
        if self.added:
            said.append(f"prefix `{'.'.join(self.added)}.` added")
        if self.left_aside:
            said.append(f"left aside: {listed(self.left_aside)}")
        return ", ".join(said)


def readings(content: Any, expected: Collection[str], key: str | None = None) -> list[Reading]:
    """Return every reading of a file's content, those that change least first.

    Args:
        content: of the file: mappings, sequences, tensors and plain values.
        expected: names of the module's own state dict.
        key: only below this key, where names outside it are left aside; None: everywhere.

    Raises:
        KeyError: nothing in the file has that key.
    """
    path: tuple[str, ...] = ()
    if key:
        path, content = _below(content, key)
    found: dict[tuple[tuple[str, int], ...], Reading] = {}
    for below, node in mappings(content):
        for state in _states(node, expected):
            for reading in _forms(Reading((*path, *below), state), expected):
                same = tuple(sorted((name, id(value)) for name, value in reading.state.items()))
                found.setdefault(same, reading)
    return list(found.values())


def mappings(content: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """Return each mapping in a file's content once, with the keys that lead to it."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, node = waiting.pop(0)
        if id(node) in seen or len(path) > MOST_NESTING:
            continue
        seen.add(id(node))
        children: list[tuple[Any, Any]] = []
        if isinstance(node, dict):
            yield path, node
            children = [item for item in dict.items(node) if isinstance(item[0], str)]
        elif isinstance(node, list | tuple) and len(node) <= LONGEST_LIST:
            children = list(enumerate(node))
        waiting += [
            ((*path, str(name)), value)
            for name, value in children
            if isinstance(value, dict | list | tuple)
        ]


def keys_with_tensors(content: Any) -> list[str]:
    """Return the keys that lead to tensors by name in a file's content."""
    return [".".join(path) for path, node in mappings(content) if path and _has_tensors(node)]


def keys_beside(content: Any, reading: Reading) -> list[str]:
    """Return the keys that hold tensors other than a training's state, and are not read."""
    if not isinstance(content, dict) or not reading.path:
        return []
    return [
        name
        for name, value in dict.items(content)
        if isinstance(name, str)
        and name != reading.path[0]
        and not name.startswith(f"{reading.path[0]}.")
        and not TRAINING_STATE.search(name.lower())
        and (isinstance(value, Tensor) or any(_has_tensors(node) for _, node in mappings(value)))
    ]


def partial_keys(content: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Return keys below which names and shapes are the expected ones, where others stand beside.

    Returns:
        the names beside it, by key.
    """
    found: dict[str, list[str]] = {}
    for path, node in mappings(content):
        tensors = {str(n): v for n, v in dict.items(node) if isinstance(v, Tensor)}
        below: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, value in tensors.items():
            words = name.split(".")
            for count in range(1, len(words)):
                inner = below.setdefault(".".join(words[:count]), {})
                inner[".".join(words[count:])] = tuple(value.shape)
        for prefix, inner in below.items():
            beside = [name for name in tensors if not name.startswith(f"{prefix}.")]
            if beside and inner == shapes:
                found[".".join((*path, prefix))] = beside
    return found


def listed(names: Collection[str], limit: int = 8) -> str:
    """Return the first names in a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(itertools.islice(names, limit)) + more


def _has_tensors(node: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in dict.values(node))


def _states(node: dict[Any, Any], expected: Collection[str]) -> Iterator[OrderedDict[str, Any]]:
    """Return the state dicts that a mapping may be: its own tensors, or nested ones too.

    Nested ones count where the module has a part of their name, as in {"model": ..., "bn": ...}.
    """
    endings = {name.rpartition(".")[2] for name in expected} & set(NOT_TENSORS)
    own = _flat(node, endings, lambda _: False)
    parts = {name.partition(".")[0] for name in expected}
    nested = _flat(node, endings, lambda name: name.partition(".")[0] in parts)
    for state in (own, nested) if len(nested) > len(own) else (own,):
        if any(isinstance(value, Tensor) for value in state.values()):
            yield state


def _flat(
    node: dict[Any, Any],
    endings: Collection[str],
    enters: Callable[[str], bool],
    seen: set[int] | None = None,
) -> OrderedDict[str, Any]:
    """Return values by dotted names, with the metadata that torch keeps beside a state dict.

    Each mapping counts once: a damaged file's may hold itself.
    """
    entered = {id(node)} if seen is None else seen
    flat: OrderedDict[str, Any] = OrderedDict()
    metadata: dict[str, Any] = dict(_metadata(node))
    for name, value in dict.items(node):
        if not isinstance(name, str):
            continue
        if isinstance(value, Tensor) or name.rpartition(".")[2] in endings:
            flat[name] = value
        elif isinstance(value, dict) and id(value) not in entered and enters(name):
            entered.add(id(value))
            inner = _flat(value, endings, lambda _: True, entered)
            flat.update((f"{name}.{each}", tensor) for each, tensor in inner.items())
            for each, about in _metadata(inner).items():
                metadata[f"{name}.{each}".rstrip(".")] = about
    return _with_metadata(flat, metadata)


def _forms(plain: Reading, expected: Collection[str]) -> Iterator[Reading]:
    """Return a state dict as it is, without the words of wrappers, and below other keys."""
    bare = list(_stripped(plain, expected))
    unwrapped = [each for reading in bare for each in _unwrapped(reading)]
    # A buffer of the module's own, such as a mean to subtract, stands beside a part and its prefix.
    words = _common_words([name for name in expected if "." in name])
    for reading in (*bare, *unwrapped):
        yield reading
        for count in range(1, len(words) + 1):
            added = words[:count]
            yield replace(
                reading,
                state=_renamed(reading.state, partial(_before, added)),
                added=added,
            )


def _stripped(reading: Reading, expected: Collection[str]) -> Iterator[Reading]:
    """Return a reading, and what is left as the first word that all names share is removed."""
    while True:
        aside = [name for name in reading.state if name not in expected and BOOKKEEPING.match(name)]
        if len(aside) == len(reading.state):
            return
        if aside:
            kept = OrderedDict(item for item in reading.state.items() if item[0] not in aside)
            before = ".".join((*reading.removed, ""))
            reading = replace(
                reading,
                state=_with_metadata(kept, _metadata(reading.state)),
                left_aside=(*reading.left_aside, *(f"{before}{name}" for name in aside)),
            )
        yield reading
        words = _common_words(reading.state)[:1]
        if not words:
            return
        reading = replace(
            reading,
            state=_renamed(reading.state, partial(_after, words)),
            removed=(*reading.removed, *words),
        )


def _unwrapped(reading: Reading) -> Iterator[Reading]:
    """Return a reading without the words of wrappers, for each choice of wrappers."""
    present = {word for name in reading.state for word in name.split(".")}
    there = [word for word in WRAPPERS if word in present]
    for count in range(1, len(there) + 1):
        for words in itertools.combinations(there, count):
            state = _renamed(
                reading.state,
                partial(_without, words),
            )
            if len(state) == len(reading.state):
                yield replace(reading, state=state, unwrapped=words)


def _common_words(names: Collection[str]) -> tuple[str, ...]:
    """Return the words at the front of all names, of which each keeps its last word."""
    if not names:
        return ()
    split = [name.split(".")[:-1] for name in names]
    same = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*split, strict=False))
    return tuple(words[0] for words in same)


def _before(words: Words, name: Words) -> Words:
    """Return a name with words put before it."""
    return *words, *name


def _after(words: Words, name: Words) -> Words | None:
    """Return the rest of a name that begins with some words; None if it does not."""
    return name[len(words) :] if name[: len(words)] == words else None


def _without(words: Words, name: Words) -> Words:
    """Return a name without some words, wherever they are."""
    return tuple(word for word in name if word not in words)


def _renamed(
    state: OrderedDict[str, Any],
    rename: Callable[[Words], Words | None],
) -> OrderedDict[str, Any]:
    """Return a state dict under other names with its metadata; None leaves a name out."""
    renamed = OrderedDict(
        (".".join(new), value)
        for name, value in state.items()
        if (new := rename(tuple(name.split(".")))) is not None
    )
    metadata = {}
    # A wrapper's and the module's own entry may get one name: the module's, which is longer, stays.
    for name, about in sorted(_metadata(state).items(), key=lambda item: len(item[0])):
        new = rename(tuple(name.split(".")) if name else ())
        if new is not None:
            metadata[".".join(new)] = about
    return _with_metadata(renamed, metadata)


def _metadata(node: Any) -> dict[str, Any]:
    """Return what torch keeps of each part's version beside a state dict, by the part's name."""
    metadata = getattr(node, "_metadata", None)
    if not isinstance(metadata, dict):
        return {}
    return {
        name: about
        for name, about in dict.items(metadata)
        if isinstance(name, str) and isinstance(about, dict)
    }


def _with_metadata(state: OrderedDict[str, Any], metadata: dict[str, Any]) -> OrderedDict[str, Any]:
    if metadata:
        state._metadata = metadata  # type: ignore[attr-defined]
    return state


def _below(content: Any, key: str) -> tuple[tuple[str, ...], dict[Any, Any]]:
    """Return what is below a key: a mapping, or the names of a state dict that begin with the key.

    Returns:
        the path to it, as `Reading.path` keeps it, and the mapping.

    Raises:
        KeyError: there is no such key.
    """
    for path, node in mappings(content):
        if ".".join(path) == key:
            return path, node
    for path, node in mappings(content):
        before = ".".join((*path, ""))
        prefix = key.removeprefix(before) if key.startswith(before) else None
        if not prefix:
            continue
        named = OrderedDict(item for item in dict.items(node) if isinstance(item[0], str))
        state = _renamed(
            _with_metadata(named, _metadata(node)),
            partial(_after, tuple(prefix.split("."))),
        )
        if _has_tensors(state):
            return (*path, prefix), state
    raise KeyError(key)
