"""Build one page for each suite and an index; each is a single file that needs no network."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

import bench
from bench import formatting
from bench.errors import InputError
from bench.pages.addresses import INDEX, link, suite_page
from bench.pages.attack_plot import attack_plot
from bench.pages.boards import leaderboards
from bench.pages.certified import certified_board
from bench.pages.certified_plot import certified_plot, envelope_plot
from bench.pages.eps_curve_plot import NamedCurve, curve_of, eps_curve_plot
from bench.pages.leaderboard import Leaderboard
from bench.pages.mix_figures import mix_figures
from bench.pages.provenance import differences, provenance
from bench.pages.repeated import repeated_trainings
from bench.pages.tradeoff_plot import tradeoff_plot
from bench.store import Store
from bench.store.files import write
from bench.suites import suite_name, suite_names

FILTERS = (
    formatting.percent,
    formatting.points,
    formatting.interval,
    formatting.interval_kind,
    formatting.radius,
    formatting.threat_model,
    formatting.count,
    formatting.duration,
    formatting.moment,
    formatting.web_link,
    formatting.setting,
    formatting.ordinal,
    formatting.breakable,
    formatting.short_name,
)


def build_report(store: Store, out: Path, suites: Sequence[str] | None = None) -> Path:
    """Write `<suite>.html` for each suite with complete runs, and an `index.html` that lists them.

    This reads the store and the published numbers only. A run that cannot be read is left out,
    logged, and listed on its suite's page.

    Args:
        store: the store with the results.
        out: the folder to write to; it is created if needed.
        suites: names or paths of the suites whose pages are written; None: all suites of the store.
            The index always lists all suites, and links those that have a page in `out`.

    Returns:
        the path of the index.

    Raises:
        InputError: there is no complete run at all or of a named suite, or `out` cannot be written.
    """
    wanted = None if suites is None else {suite_name(each) for each in suites}
    boards = leaderboards(store)
    found = [board.suite for board in boards]
    for name in sorted(wanted or ()):
        if name not in found:
            advice = f"; `bench run --suite {name}` makes one" if name in suite_names() else ""
            raise InputError(
                f"suite {name!r}: no complete run in {store.root}, expected one of "
                f"{', '.join(found) or '(none)'}{advice}"
            )
    if not boards:
        raise InputError(
            f"no complete run in {store.root}; `bench run --suite digits-linf` makes one"
        )
    environment = _environment()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for board in boards:
            if wanted is None or board.suite in wanted:
                page = _suite_page(environment, board, store)
                write(out / suite_page(board.suite), _encoded(page))
        write(out / INDEX, _encoded(_index_page(environment, boards, out)))
    except OSError as error:
        raise InputError(
            f"{out}: the report cannot be written: {error.strerror}; choose another folder"
        ) from error
    return out / INDEX


def _environment() -> jinja2.Environment:
    script = _static("page.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in FILTERS}
    environment.globals |= {
        "bench_version": bench.__version__,
        "style": Markup(_static("style.css")),
        "script": Markup(script),
        # The page allows exactly this script and no other, whatever a record holds.
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "provenance": provenance,
        "differences": differences,
        "suite_page": suite_page,
        "index": INDEX,
        "link": link,
    }
    return environment


def _static(name: str) -> str:
    return (resources.files("bench.pages") / "static" / name).read_text(encoding="utf-8")


def _suite_page(environment: jinja2.Environment, leaderboard: Leaderboard, store: Store) -> str:
    ranked = leaderboard.ranked
    tradeoff = attacks = None
    if ranked:
        tradeoff = tradeoff_plot(ranked, leaderboard.published, "tradeoff")
        attacks = attack_plot(ranked, leaderboard.attacks, "attacks")
    threat = leaderboard.threat_model
    certified = certified_board(store, leaderboard.suite, leaderboard.threat_model.eps)
    return environment.get_template("suite.html.jinja").render(
        address=suite_page(leaderboard.suite),
        board=leaderboard,
        tradeoff=tradeoff,
        attacks=attacks,
        eps_curves=eps_curve_plot(
            _curves(leaderboard, store), threat.eps, threat.norm, "eps-curves"
        ),
        certified=certified,
        repeated=repeated_trainings(certified.entries) if certified else [],
        certified_curves=certified_plot(certified, "certified-curves") if certified else None,
        envelopes=envelope_plot(certified, "certified-envelopes") if certified else None,
        mixes=mix_figures(store, leaderboard.suite),
    )


def _curves(leaderboard: Leaderboard, store: Store) -> list[NamedCurve]:
    """Return the curves of the ranked runs that looked for smallest perturbations."""
    found = []
    for entry in leaderboard.ranked:
        with contextlib.suppress(InputError):
            curve = curve_of(store.folder(entry.manifest), entry.summary)
            found += [] if curve is None else [curve]
    return found


def _index_page(environment: jinja2.Environment, boards: Sequence[Leaderboard], out: Path) -> str:
    written = {board.suite for board in boards if (out / suite_page(board.suite)).is_file()}
    return environment.get_template("index.html.jinja").render(
        address=INDEX, boards=boards, written=written
    )


def _encoded(text: str) -> bytes:
    # JSON records may hold unpaired surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", errors="replace")
