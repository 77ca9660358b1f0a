"""Certifications stand beside the certified tables of papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.claims.accepted_records import records_of
from bench.claims.check import check
from bench.claims.comparison import Check
from bench.claims.formats import verdict_text
from bench.errors import InputError
from bench.runs.imported_log import ImportedLog
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.records import Certificates, CertificationBlock
from tests.pages.runs import make_manifest

N = 10_000
RADII = (0.0, 0.25, 0.5, 0.75)


def _save(
    store: Store,
    name: str,
    sigma: float,
    shares: tuple[float, ...],
    index: np.ndarray,
    engine_settings: dict[str, object] | None = None,
    **changes: object,
) -> None:
    """A log on the samples of `index` in which these shares are certified at `RADII`."""
    place = np.random.default_rng(0).permutation(len(index)) / len(index)
    radius = np.zeros(len(index))
    for share, certified in zip(shares, RADII, strict=True):
        radius[place < share] = certified + 0.1
    labels = np.zeros(len(index), np.int64)
    right = place < shares[0]
    unknown = np.full(len(index), -1)
    manifest = make_manifest(
        "cifar10-l2",
        name,
        len(index),
        **{"kind": "imported-log"} | changes,
        protocol="certified",
        attacks=[],
        engine_settings={"sigma": sigma} | (engine_settings or {}),
    )
    certificates = Certificates(index, labels, np.where(right, 0, 1), radius, unknown, unknown)
    kind = ImportedLog()
    tables = kind.join([CertificationBlock(key="0", seconds=0, certificates=certificates)])
    folder = store.folder(manifest)
    with folder.locked():
        folder.begin(manifest)
        summary = kind.summarise(manifest, tables, [], {}, "2026-01-01T11:00:00+00:00")
        folder.finish(tables, summary, np.zeros((0, 3, 1, 1), np.float32))


def _found(store: Store, model: str, sigma: str) -> list[Check]:
    checks = check(store, None, f"{model}*")
    return [
        each for each in checks if each.name.startswith(model) and f"sigma {sigma}" in each.quantity
    ]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (0.0, "reproduced"),
        (-0.02, "lower than published"),
        (0.02, "higher than published"),
    ],
)
def test_a_log_of_the_whole_test_set(change: float, outcome: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    published = (0.771, 0.679, 0.579, 0.467)
    moved = tuple(share + change for share in published)
    _save(store, "smoothmix", 0.25, moved, np.arange(N))
    *at_radius, average = _found(store, "SmoothMix", "0.25")
    assert [each.verdict.outcome for each in at_radius] == [outcome] * 4
    assert [each.fails for each in at_radius] == [outcome == "lower than published"] * 4
    assert [each.measured for each in at_radius] == pytest.approx(moved, abs=2e-4)
    # Radii were made up a tenth above the grid, so that their mean is not the published one.
    assert average.is_radius
    assert average.measured == pytest.approx(0.25 * sum(moved[1:]) + 0.1 * moved[0], abs=2e-4)
    assert average.verdict.outcome == "lower than published"


def test_draws_that_stopped_early_refute_no_published_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lower = (0.751, 0.659, 0.559, 0.447)
    sequential = {"procedure": "sequential", "radii": [0.0, 0.25]}
    _save(store, "smoothmix", 0.25, lower, np.arange(N), sequential)
    found = _found(store, "SmoothMix", "0.25")
    # At the radii that were asked for the numbers are final.
    assert [each.verdict.outcome for each in found] == [
        *["lower than published"] * 2,
        *["cannot tell"] * 3,
    ]
    assert "--procedure fixed" in found[-1].verdict.note
    _save(store, "smoothmix", 0.25, lower, np.arange(N), seed=1)
    assert all(each.fails for each in _found(store, "SmoothMix", "0.25"))


def test_every_twentieth_sample_is_taken_where_that_was_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    selection = Selection(kind="every", n=500, step=20)
    shares = (0.75, 0.60, 0.43, 0.27)
    _save(store, "Gaussian", 0.25, shares, np.arange(0, N, 20), selection=selection)
    found = _found(store, "Gaussian", "0.25")
    assert [each.verdict.outcome for each in found] == ["reproduced"] * 3
    assert [each.n for each in found] == [500] * 3
    others = _found(store, "Gaussian", "0.50")
    assert {each.verdict.outcome for each in others} == {"not measured"}


def test_the_first_samples_tell_nothing_of_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    selection = Selection(kind="first", n=1000)
    _save(store, "SmoothMix", 0.25, (0.9, 0.8, 0.7, 0.6), np.arange(1000), selection=selection)
    found = _found(store, "SmoothMix", "0.25")
    assert {each.verdict.outcome for each in found} == {"cannot tell"}


def test_claims_without_a_run_are_listed_for_the_suites_of_their_data_set_and_norm(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    listed = check(store, "cifar10-l2", "SmoothMix")
    assert len(listed) == len(check(store, None, "SmoothMix")) > 0
    assert {each.verdict.outcome for each in listed} == {"not measured"}
    assert {each.suite for each in listed} == {"cifar10-l2"}
    with pytest.raises(InputError, match="no published or accepted number about cifar10-linf"):
        check(store, "cifar10-linf", "SmoothMix")


def test_an_accepted_certification_is_compared_with_one_drawn_alike(tmp_path: Path) -> None:
    drawn = {"kind": "certification", "engine": "certification"}
    settings = {"procedure": "fixed", "noise_samples": 1000}
    store = Store(tmp_path / "before")
    _save(store, "mine", 0.5, (0.7, 0.6, 0.5, 0.2), np.arange(500), settings, **drawn)
    records = records_of(store, store.summaries(), lambda _: {})

    def outcomes(*shares: float, draws: int = 1000) -> dict[str, str]:
        later = Store(tmp_path / "_".join(map(str, (*shares, draws))))
        changed = settings | {"noise_samples": draws}
        _save(later, "mine", 0.5, shares, np.arange(500), changed, **drawn)
        found = check(later, "cifar10-l2", "mine", accepted=records)
        return {each.quantity.partition(",")[0]: verdict_text(each) for each in found}

    assert outcomes(0.7, 0.6, 0.5, 0.2) == {
        "right by votes": "reproduced",
        "average certified radius": "reproduced",
        "certified accuracy at 0.50": "reproduced",
    }
    lower = outcomes(0.7, 0.6, 0.4, 0.2)
    assert lower["right by votes"] == "reproduced"
    assert lower["average certified radius"] == "lower than published"
    assert lower["certified accuracy at 0.50"].startswith("lower than published: paired by sample")
    otherwise = outcomes(0.7, 0.6, 0.5, 0.2, draws=500)
    assert otherwise["right by votes"].startswith("not comparable: certified with sigma 0.5, 500")
