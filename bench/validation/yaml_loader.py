"""YAML without surprises: no field twice, no number read as another one, no endless aliases."""

from __future__ import annotations

import codecs
import re
from typing import Any

import yaml

from bench.errors import InputError

MOST_NODES = 100_000
"""The most nodes of a file, with aliases expanded: a few aliases can exceed any memory."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with those rules of YAML 1.2 that tell text from numbers as people do.

    `1e-3` is a number; `0100`, `1:30` and `2024-01-31` are text, where YAML 1.1 has 64, 90 and a
    date. `yes` and `no` stay what they are in YAML 1.1: nothing says which was meant.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping as written, before `<<` brings keys that may be given again.

        Raises:
            InputError: a key that is given twice; by itself the loader takes the last one.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise InputError(
                    f"field {key.value}: expected once, got it in lines {lines[key.value]} and "
                    f"{line}"
                )
            lines[key.value] = line
        return node


_REPLACED = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_NUMBERS = (
    (
        "tag:yaml.org,2002:int",
        re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
        "-+0123456789",
    ),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+0123456789.",
    ),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _REPLACED]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _NUMBERS:
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))


def parse_yaml(content: str | bytes) -> Any:
    """Return what a YAML document says; bytes are UTF-8, or UTF-16 with a byte order mark.

    Raises:
        InputError: it is not YAML, gives a field twice, or is nested or repeated beyond reason.
    """
    if isinstance(content, bytes):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        loader = _Loader(content)  # `yaml.safe_load` would use its own loader class
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        advice = "; indent by spaces" if "\\t" in problem else ""
        raise InputError(f"{place}not a YAML file: {problem}{advice}") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"not a YAML file in UTF-8: {problem}") from error
    except RecursionError as error:
        raise InputError("not a YAML file: nested too deeply") from error
    except (ValueError, OverflowError) as error:  # a number with thousands of digits
        raise InputError(f"not a YAML file: {error}") from error


def _check_size(root: yaml.Node) -> None:
    """Refuse a document whose aliases make it endless or huge."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise InputError(
                f"line {node.start_mark.line + 1}: expected an alias of something else, got one of "
                "what it stands in"
            )
        if key not in sizes:
            open_nodes.add(key)
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[key] = 1 + sum(map(size, children))
            open_nodes.discard(key)
        return sizes[key]

    if (found := size(root)) > MOST_NODES:
        raise InputError(
            f"expected at most {MOST_NODES:,} values, with what aliases stand for; got {found:,}"
        )
