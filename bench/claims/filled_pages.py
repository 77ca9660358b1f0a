"""Pages of Markdown with tables that are made from the records.

A page has a line `<!-- bench check: NAME -->`, and further down `<!-- end of NAME -->`; what stands
between them is replaced by the table of that name (`TABLES`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench.claims.accepted_tables import certified_table, measured_table
from bench.claims.claims_page import claims_text
from bench.claims.evidence import Evidence, load_evidence
from bench.errors import InputError
from bench.store.files import write

BEGIN = "<!-- bench check: {name} -->"
END = "<!-- end of {name} -->"
MARKER = re.compile(r"^<!-- bench check: (.*?) -->$", re.MULTILINE)
TABLES: Mapping[str, Callable[[Evidence], str]] = MappingProxyType(
    {"claims": claims_text, "measured": measured_table, "certified": certified_table}
)
"""By name: the papers' claims and what we measured; accepted evaluations; certifications."""


def fill(path: Path) -> bool:
    """Write the tables between the markers of a page anew.

    Returns:
        whether anything changed.

    Raises:
        InputError: the page cannot be read, has no markers, names a table that there is not, or
            lacks a table's end.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    new = filled(old, str(path))
    if new != old:
        write(path, new.encode())
    return new != old


def filled(text: str, origin: str) -> str:
    """Return a page with its tables made anew.

    Args:
        text: the page.
        origin: its name, for errors.

    Raises:
        InputError: see `fill`.
    """
    names = MARKER.findall(text)
    if not names:
        raise InputError(
            f"{origin}: expected a line such as {BEGIN.format(name='claims')}, got none; tables: "
            f"{', '.join(TABLES)}"
        )
    evidence = load_evidence()
    for name in names:
        if name not in TABLES:
            raise InputError(
                f"{origin}: expected a table of {', '.join(TABLES)}; got {name!r} in "
                f"{BEGIN.format(name=name)}"
            )
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(f"{begin}\n")
        _, found, after = rest.partition(f"{end}\n")
        if not found:
            raise InputError(f"{origin}: expected a line {end} below {begin}, got none")
        text = f"{before}{begin}\n\n{TABLES[name](evidence)}\n\n{end}\n{after}"
    return text
