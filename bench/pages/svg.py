"""Drawings by matplotlib as inline SVG that takes its colors and its font from the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context, style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.pages.figures import keep_figure

ROLES = {
    "ink": "#1f2933",
    "muted": "#5b6673",
    "grid": "#e4e7eb",
    "surface": "#fffffe",
    "published": "#98a2ad",
    "published-front": "#76818d",
    "measured": "#0072b2",
    "flagged": "#b84f00",
    "certified": "#00795a",
    "adaptive": "#a34a80",
    "clean": "#00795b",
    "adversarial": "#b84f01",
    "robust": "#0072b3",
    "on-robust": "#fffffd",
    "wrong": "#d9dee4",
    "attack-1": "#d55e00",
    "attack-2": "#e69f00",
    "attack-3": "#f0e442",
    "attack-4": "#cc79a7",
    "attack-5": "#56b4e9",
    "attack-6": "#009e73",
    "attack-7": "#7a4a1c",
    "attack-8": "#8b6fb8",
    "attack-9": "#94342f",
    "attack-10": "#b3b82f",
    "attack-11": "#67707a",
    "attack-12": "#a5dccb",
}
"""Colors of a light page, all different: those of Okabe and Ito, which color-blind readers can tell
apart, darkened where they are text, then further ones. Each stands for the style sheet's variable
--chart-NAME, for which dark pages and printers have other values."""

WIDE = 12.6
"""Width in inches of a drawing as wide as a page."""
NARROW = 6.2
"""Width in inches of a drawing that a phone shows whole, or a column of a paper."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own font
    "text.parse_math": False,  # a candidate's name may hold a dollar sign
    "font.size": 10.0,
    "axes.edgecolor": ROLES["muted"],
    "axes.labelcolor": ROLES["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": ROLES["ink"],
    "xtick.color": ROLES["muted"],
    "ytick.color": ROLES["muted"],
    "xtick.labelcolor": ROLES["muted"],
    "ytick.labelcolor": ROLES["muted"],
    "grid.color": ROLES["grid"],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Title:
    """What a part of a drawing says and leads to, see `Drawing.set_title`."""

    text: str
    address: str = ""
    row: str = ""


@dataclass
class Drawing:
    """A figure being drawn.

    Attributes:
        figure: the figure; its units are points, 72 to the inch.
        axes: its only axes.
        titles: texts that are shown when the pointer rests on a part, by the part's group id.
        halos: group ids of texts that lines must not cross.
    """

    figure: Figure
    axes: Axes
    titles: dict[str, Title] = field(default_factory=dict)
    halos: set[str] = field(default_factory=set)

    def set_title(self, artist: Artist, text: str, address: str = "", row: str = "") -> None:
        """Show `text` when the pointer rests on `artist`.

        Args:
            address: where a click leads; empty: nowhere.
            row: the `data-row` of the table row about the same thing, which is filtered with it;
                empty: none.
        """
        gid = f"titled-{len(self.titles)}"
        artist.set_gid(gid)
        self.titles[gid] = Title(text, address, row)

    def set_halo(self, text: Text) -> None:
        """Draw a border of the background's color around a text that may stand on lines."""
        gid = f"halo-{len(self.halos)}"
        text.set_gid(gid)
        self.halos.add(gid)

    def to_svg(self, identifier: str, alternative: str) -> Markup:
        """Return the drawing as an <svg> element; the same drawing gives the same text.

        Args:
            identifier: unique on the page; all ids in the drawing begin with it.
            alternative: text alternative of the drawing.
        """
        keep_figure(self.figure, identifier)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with rc_context({"svg.hashsalt": identifier}):
            self.figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
        root = ElementTree.fromstring(buffer.getvalue())
        _simplify(root)
        _add_titles(root, self.titles)
        _add_halos(root, self.halos)
        _rename_ids(root, identifier)
        _take_colors_from_style_sheet(root)
        width = float(root.attrib.pop("width").removesuffix("pt"))
        root.attrib.pop("height")
        root.set("style", f"max-width: {width * 4 / 3:.0f}px")
        # What is in an image cannot be reached, and links must be.
        links = any(title.address for title in self.titles.values())
        root.set("role", "group" if links else "img")
        root.set("aria-label", printable(alternative, limit=2000))
        # ElementTree escapes every text in it.
        return Markup(ElementTree.tostring(root, encoding="unicode"))


Drawn = TypeVar("Drawn", Markup, Markup | None)
"""What a function draws: a drawing, or for some records none."""


def for_both_widths(draw: Callable[[str, float], Drawn], identifier: str) -> Drawn:
    """Return a drawing for wide screens and one for narrow ones; the style sheet shows one.

    Args:
        draw: a function of an identifier and a width, `WIDE` or `NARROW`; if it returns None, so
            does this one.
        identifier: of the wide drawing; the narrow one's ends in `-narrow`.
    """
    wide, narrow = draw(identifier, WIDE), draw(f"{identifier}-narrow", NARROW)
    if wide is None or narrow is None:
        return None
    return Markup('<div class="broad">{}</div><div class="narrow">{}</div>').format(wide, narrow)


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """Make a drawing in the report's style.

    Args:
        width, height: size in inches; text has 10 points.
    """
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # The page's fonts may have characters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(width, height), dpi=72)
        FigureCanvasAgg(figure)
        yield Drawing(figure, figure.add_subplot())


def printable(text: str, limit: int = 36) -> str:
    """Return text for a label: one line of at most `limit` characters that SVG may contain."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _simplify(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata and the style sheet, which would apply to the whole page."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            if "}" in name:
                element.set(name.rpartition("}")[2], element.attrib.pop(name))
        for child in list(element):
            if child.tag.rpartition("}")[2] in {"metadata", "style"}:
                element.remove(child)


def _add_titles(root: ElementTree.Element, titles: Mapping[str, Title]) -> None:
    for parent in list(root.iter()):
        for place, element in enumerate(parent):
            title = titles.get(element.get("id", ""))
            if title is None:
                continue
            text = ElementTree.Element("title")
            text.text = printable(title.text, limit=400)
            element.insert(0, text)
            if title.row:
                element.set("data-row", title.row)
            if title.address:
                anchor = ElementTree.Element("a", {"href": title.address})
                anchor.append(element)
                parent[place] = anchor


def _add_halos(root: ElementTree.Element, halos: set[str]) -> None:
    for element in root.iter():
        if element.get("id") in halos:
            # A path effect of matplotlib would turn the text into shapes.
            element.set(
                "style", f"paint-order: stroke; stroke: {ROLES['surface']}; stroke-width: 3px"
            )


def _rename_ids(root: ElementTree.Element, identifier: str) -> None:
    """Keep the ids that other elements refer to, and make them unique on the page."""
    used: dict[str, str] = {}
    for element in root.iter():
        for value in element.attrib.values():
            for name in re.findall(r"^#(.+)$|url\(#(.+?)\)", value):
                used.setdefault(name[0] or name[1], f"{identifier}-{len(used)}")
    for element in root.iter():
        if "id" in element.attrib:
            name = element.attrib.pop("id")
            if name in used:
                element.set("id", used[name])
        for key, value in element.attrib.items():
            if value.startswith("#") and value[1:] in used:
                element.set(key, f"#{used[value[1:]]}")
            elif "url(#" in value:
                element.set(
                    key, re.sub(r"url\(#(.+?)\)", lambda found: f"url(#{used[found[1]]})", value)
                )


def _take_colors_from_style_sheet(root: ElementTree.Element) -> None:
    names = {color: name for name, color in ROLES.items()}

    def replace(found: re.Match[str]) -> str:
        name = names.get(found[0])
        return f"var(--chart-{name}, {found[0]})" if name else found[0]

    for element in root.iter():
        if "style" in element.attrib:
            element.set("style", re.sub("#[0-9a-f]{6}", replace, element.attrib["style"]))
