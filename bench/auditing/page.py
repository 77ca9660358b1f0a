"""Write a report as a page, as JSON, and as Markdown for a review form."""

from __future__ import annotations

import json
from pathlib import Path

from bench.auditing.form import form, isolation_text
from bench.auditing.report import Report
from bench.auditing.verdict import bounds_text
from bench.errors import InputError
from bench.pages.site import site_environment
from bench.store.files import write

PAGE, DATA, FORM = "audit.html", "audit.json", "audit.md"


def write_report(report: Report, out: Path) -> dict[str, Path]:
    """Write a report's three forms.

    Returns:
        the paths by `page`, `json` and `form`.

    Raises:
        InputError: the folder cannot be written.
    """
    content = json.dumps(report.model_dump(mode="json"), indent=2) + "\n"
    files = {
        "page": (out / PAGE, page(report)),
        "json": (out / DATA, content),
        "form": (out / FORM, form(report)),
    }
    try:
        for path, text in files.values():
            write(path, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
    return {name: path for name, (path, _) in files.items()}


def page(report: Report) -> str:
    """Return a report as one self-contained page."""
    template = site_environment().get_template("audit.html.jinja")
    return template.render(
        address=PAGE,
        index="#main",
        report=report,
        bounds_text=bounds_text,
        isolation=isolation_text(report),
    )
