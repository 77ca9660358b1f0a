"""Suites and submissions as YAML: as they should be, and changed as people change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from tests.fuzz.case import Draws, Outcome

Fields = dict[str, Any]

STRANGE_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    2.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "  ",
    "Linf",
    "é\u2028\U0001f600",
    "x" * 5000,
    "../../etc",
    "a\nb",
    "{{ 7 * 7 }}<script>",
    [],
    [[]],
    ["apgd-ce", 3],
    [None],
    {},
    {"name": "x"},
    {1: 2},
    {"norm": "L2", "eps": 0.5},
    b"\x00\xff",
)


def suite_fields(data: Any, norm: str, eps: float, attacks: list[Any]) -> Fields:
    """A suite as it should be."""
    return {
        "name": "tiny-suite",
        "version": 1,
        "title": "Tiny",
        "data": data,
        "threat_model": {"norm": norm, "eps": eps},
        "protocols": {"standard": {"attacks": attacks}},
    }


def submission_fields(dataset: str, **more: Any) -> Fields:
    """A submission as it should be."""
    return {"name": "net", "dataset": dataset, "architecture": "model:build", **more}


def places(fields: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places within nested fields, each as the keys that lead there."""
    found: list[tuple[Any, ...]] = []
    items = (
        fields.items()
        if isinstance(fields, dict)
        else enumerate(fields)
        if isinstance(fields, list)
        else ()
    )
    for key, value in items:
        found += [(*prefix, key), *places(value, (*prefix, key))]
    return found


def replaced(fields: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The fields with another value at a place."""
    if not place:
        return value
    copy = dict(fields) if isinstance(fields, dict) else list(fields)
    copy[place[0]] = replaced(copy[place[0]], place[1:], value)
    return copy


def removed(fields: Any, place: tuple[Any, ...]) -> Any:
    """The fields without a place."""
    copy = dict(fields) if isinstance(fields, dict) else list(fields)
    if len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = removed(copy[place[0]], place[1:])
    return copy


@dataclass(frozen=True)
class Written:
    """A YAML file as it was written.

    Attributes:
        what: what was changed.
        fields: as they are meant, where they can be told; None: whatever a reader makes of them.
    """

    what: str
    outcome: Outcome
    fields: Fields | None


def write_changed(path: Path, fields: Fields, draws: Draws) -> Written:
    """Write fields with one change of a random kind."""
    way = draws.one_of(("replace", "replace", "replace", "remove", "add", "text", "text"))
    if way == "replace":
        place, value = draws.one_of(places(fields)), draws.one_of(STRANGE_VALUES)
        changed = replaced(fields, place, value)
        path.write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
        return Written(f"{'.'.join(map(str, place))} = {value!r}"[:120], "either", None)
    if way == "remove":
        place = draws.one_of(places(fields))
        path.write_text(yaml.safe_dump(removed(fields, place)), encoding="utf-8")
        return Written(f"without {'.'.join(map(str, place))}", "either", None)
    if way == "add":
        into = draws.one_of(
            [(), *(place for place in places(fields) if isinstance(_at(fields, place), dict))]
        )
        key = draws.one_of(("extra", "Eps", "norms", 7, None, True, "nmae"))
        inner = {**_at(fields, into), key: draws.one_of(STRANGE_VALUES)}
        text = yaml.safe_dump(replaced(fields, into, inner), allow_unicode=True, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return Written(f"{key!r} added in {into}", "either", None)
    name = draws.one_of(list(TEXTS))
    change, outcome = TEXTS[name]
    path.write_bytes(change(yaml.safe_dump(fields, sort_keys=False)))
    return Written(name, outcome, fields)


def _at(fields: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        fields = fields[key]
    return fields


def _text(change: Callable[[str], str]) -> Callable[[str], bytes]:
    return lambda text: change(text).encode()


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"


TEXTS: Mapping[str, tuple[Callable[[str], bytes], Outcome]] = MappingProxyType(
    {
        "byte order mark": (lambda text: b"\xef\xbb\xbf" + text.encode(), "accept"),
        "lines of Windows": (_text(lambda text: text.replace("\n", "\r\n")), "accept"),
        "comments": (_text(lambda text: "# mine\n" + text + "# end\n"), "accept"),
        "start and end marks": (_text(lambda text: f"---\n{text}...\n"), "accept"),
        "flow style": (
            _text(lambda text: yaml.safe_dump(yaml.safe_load(text), default_flow_style=True)),
            "accept",
        ),
        "JSON": (
            lambda text: __import__("json").dumps(yaml.safe_load(text)).encode(),
            "accept",
        ),
        "UTF-16": (lambda text: text.encode("utf-16"), "either"),
        "Latin-1": (lambda text: text.encode() + "# é\n".encode("latin-1"), "either"),
        "null byte": (lambda text: text.encode() + b"\0", "refuse"),
        "tabs": (
            _text(
                lambda text: text.replace("\nthreat_model:", "\n\tthreat_model:").replace(
                    "\ndataset:", "\n\tdataset:"
                )
            ),
            "refuse",
        ),
        "twice a field": (_text(lambda text: text + text.split("\n")[0] + "\n"), "refuse"),
        "two documents": (_text(lambda text: f"{text}---\n{text}"), "refuse"),
        "empty": (lambda text: b"", "refuse"),
        "a comment alone": (lambda text: b"# nothing\n", "refuse"),
        "a list": (_text(lambda text: "- a\n- b\n"), "refuse"),
        "a number": (_text(lambda text: "17\n"), "refuse"),
        "a text": (_text(lambda text: "name\n"), "refuse"),
        "Python object": (
            _text(lambda text: text + "more: !!python/object/apply:os.getcwd []\n"),
            "refuse",
        ),
        "unknown tag": (_text(lambda text: text + "more: !mine 3\n"), "refuse"),
        "an alias of nothing": (_text(lambda text: text + "more: *nothing\n"), "refuse"),
        "an alias of itself": (_text(lambda text: text + "more: &more [*more]\n"), "refuse"),
        "a mapping that holds itself": (
            _text(lambda text: text + "more: &more {more: *more}\n"),
            "refuse",
        ),
        "many aliases": (_text(lambda text: text + _bomb()), "refuse"),
        "deep": (_text(lambda text: text + "more: " + 400 * "[" + 400 * "]" + "\n"), "refuse"),
        "very deep": (
            _text(lambda text: text + "more: " + 9000 * "[" + 9000 * "]" + "\n"),
            "refuse",
        ),
        "a list as key": (_text(lambda text: text + "? [a, b]\n: c\n"), "refuse"),
        "a mapping as key": (_text(lambda text: text + "? {a: b}\n: c\n"), "refuse"),
        "a wrong date": (_text(lambda text: text + "more: 2024-13-45\n"), "refuse"),
        "a date": (_text(lambda text: text + "more: 2024-12-15\n"), "refuse"),
        "cut short": (_text(lambda text: text.rstrip() + ": [\n"), "refuse"),
        "wrong indentation": (_text(lambda text: text + "  name: x\n"), "refuse"),
        "merged": (
            _text(
                lambda text: (
                    text + "<<: {version: 1}\n" if "version" in text else text + "<<: {name: net}\n"
                )
            ),
            "accept",
        ),
        "a merged number": (_text(lambda text: text + "<<: 3\n"), "refuse"),
        "control characters": (_text(lambda text: text + "# \x07\n"), "refuse"),
        "binary": (lambda text: bytes(range(256)), "refuse"),
    }
)

RADII: Mapping[str, tuple[str, Outcome]] = MappingProxyType(
    {
        "fraction": ("8/255", "accept"),
        "fraction with spaces": ("8 / 255", "accept"),
        "decimal": ("0.05", "accept"),
        "exponent": ("5e-2", "accept"),
        "quoted": ("'0.05'", "accept"),
        "0": ("0", "refuse"),
        "negative": ("-0.1", "refuse"),
        "not a number": (".nan", "refuse"),
        "infinite": (".inf", "refuse"),
        "nan as text": ("nan", "refuse"),
        "inf as text": ("inf", "refuse"),
        "pixels": ("8", "refuse"),
        "divided by 0": ("8/0", "refuse"),
        "percent": ("5%", "refuse"),
        "true": ("true", "refuse"),
        "list": ("[0.1]", "refuse"),
        "empty": ("", "refuse"),
        "a date": ("2024-01-01", "refuse"),
        "base 60": ("1:30", "refuse"),
        "octal": ("0o7", "refuse"),
        "huge exponent": ("1e400", "refuse"),
        "huge fraction": ("1/" + 400 * "9", "refuse"),
        "tiny": ("1e-12", "either"),
        "below float32": ("1e-300", "either"),
        "digits of another script": ("٠.٥", "either"),
        "underscores": ("0.0_5", "either"),
        "comma": ("0,05", "refuse"),
        "expression": ("4/255 + 4/255", "refuse"),
        "twice a fraction": ("8/255/2", "refuse"),
        "long fraction": ("1" + 5000 * "0" + "/255" + 5000 * "0", "either"),
    }
)
"""How a radius may be written in Linf, as YAML."""
