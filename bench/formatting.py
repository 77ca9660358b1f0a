"""Format numbers, times, settings and links for pages and the terminal."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup, escape

from bench.statistics.intervals import Interval
from bench.store.manifest import Selection
from bench.store.power import AttackPower
from bench.store.summary import Flag
from bench.suites import ThreatModel


def percent(fraction: float | None) -> str:
    """Return a fraction as percent with two decimals, as on RobustBench; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def points(difference: float) -> str:
    """Return a difference of two fractions in percentage points, with its sign."""
    text = f"{100 * difference:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def interval(value: Interval) -> str:
    """Return an interval of fractions, in percent."""
    return f"{percent(value.low)} – {percent(value.high)}"


def accuracy_text(fraction: float, bounds: Interval) -> str:
    """Return an accuracy with its interval, such as 64.17% [58.97 – 69.13]."""
    return f"{percent(fraction)}% [{interval(bounds)}]"


def interval_kind(value: Interval) -> str:
    """Describe what an interval refers to, and how it was computed."""
    return {
        "binomial": "exact binomial: of the population of images",
        "hypergeometric": "exact hypergeometric: of the whole test set",
        "anytime": "anytime-valid: of the whole test set, wherever the run stopped",
    }[value.kind]


def selection(value: Selection, size: int, evaluated: int) -> str:
    """Describe the samples of a run: `evaluated` of them, from a data set of `size`."""
    if value.kind == "all":
        return f"all {count(value.n)}"
    if value.kind == "first":
        return f"the first {count(value.n)} of {count(size)}"
    if value.kind == "listed":
        return f"{count(value.n)} listed ones of {count(size)}"
    if value.kind == "every":
        return f"{count(value.n)}, one in {value.step}"
    return f"{count(evaluated)} of {count(value.population or size)} at random, seed {value.seed}"


def radius(eps: float) -> str:
    """Return a radius in the [0, 1] pixel scale: k/255 if it is one and no short decimal."""
    decimal, steps = f"{eps:.6g}", round(eps * 255)
    if len(decimal) > len("0.031") and steps > 0 and abs(eps * 255 - steps) < 1e-6:
        return f"{steps}/255"
    return decimal


def threat_model(value: ThreatModel) -> str:
    """Return a norm and its radius."""
    return f"{value.norm}, eps = {radius(value.eps)}"


def count(value: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return how many a second, with three digits; a dash for None."""
    if value is None:
        return "–"
    return count(value) if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a time span, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, size), (next_name, next_size) in itertools.pairwise(units):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{whole} s"


def moment(text: str) -> str:
    """Return an ISO 8601 time, to the minute in UTC; other text as it is."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return text
    if parsed.tzinfo is None:
        return f"{parsed:%Y-%m-%d %H:%M}"
    return f"{parsed.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def web_link(address: Any) -> str | None:
    """Return a web address (http or https) as it is, and None for anything else."""
    if not isinstance(address, str):
        return None
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    return address.strip() if parts.scheme in {"http", "https"} and parts.netloc else None


def breakable(text: str) -> Markup:
    """Return a name that may wrap after its separators."""
    return Markup(re.sub(r"([:/_])(?=\S)", r"\1<wbr>", str(escape(text))))


def short_name(location: Any) -> str:
    """Return the name of the function for module:function, and other text as it is."""
    return location.rpartition(":")[2] if isinstance(location, str) else ""


def setting(value: Any, by_name: bool = False) -> str:
    """Return a setting's value: text as it is, numbers short, lists with commas.

    Args:
        by_name: whether a mapping with a `name`, such as an attack, is written as that name alone.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item, by_name) for item in value)
    if isinstance(value, Mapping):
        if by_name and "name" in value:
            return str(value["name"])
        return ", ".join(f"{key} = {setting(item, by_name)}" for key, item in value.items())
    return "–" if value is None or value == "" else str(value)


def flag_text(flag: Flag) -> str:
    """Return a reliability flag on one line."""
    return (
        f"{flag.name}: measured {setting(flag.measured)}, threshold {setting(flag.threshold)}. "
        f"{flag.meaning} {flag.advice}"
    )


def power_rows(power: AttackPower) -> list[tuple[str, str]]:
    """Return each planted weakness and what the attacks made of it, in words."""
    rows = []
    for plant in power.plants:
        text: str = plant.outcome
        if plant.found_by:
            text += f" by {plant.found_by}"
        if plant.breakable:
            text += f"; attacks broke {plant.broken} of {plant.breakable} samples known to break"
        if plant.escalated:
            text += f"; escalated: {plant.escalated}"
        if plant.flags:
            text += f"; flagged: {', '.join(plant.flags)}"
        if plant.reason:
            text += f"; {plant.reason}"
        rows.append((plant.name, text))
    return rows or [("nothing planted", power.reason)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return settings as (name, value) pairs, those of inner mappings named outer.inner."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{name}.")
        else:
            pairs.append((name, setting(value)))
    return pairs


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    if number % 100 in {11, 12, 13}:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
