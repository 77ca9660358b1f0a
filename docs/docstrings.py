"""What the reference needs of docstrings; called by griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe

SHARED = re.compile(
    r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+):(?P<text>.*(?:\n(?P=indent) +.*)*)", re.MULTILINE
)
"""An item such as `height, width: in pixels.`, with the lines that continue it."""


class OneNameAnItem(griffe.Extension):
    """Give each of several names that share a text in a docstring an item of its own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a function or a class before it is parsed."""
        if obj.docstring is None or not isinstance(obj, griffe.Function | griffe.Class):
            return
        known = set(obj.members)
        if isinstance(obj, griffe.Function):
            known |= {each.name.lstrip("*") for each in obj.parameters}

        def apart(item: re.Match[str]) -> str:
            names = item["names"].split(", ")
            if not known >= set(names):
                return item[0]
            return "\n".join(f"{item['indent']}{name}:{item['text']}" for name in names)

        obj.docstring.value = SHARED.sub(apart, obj.docstring.value)
