"""Mixes on the page: their bases, the curve over the weight, the distributions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.pages.build import build_report
from bench.pages.mixes import families
from bench.store import Store
from bench.store.manifest import DatasetRecord
from bench.store.summary import SweepPoint

from .runs import make_manifest, save_run

N = 200
BASES = {"accurate": "a" * 64, "robust": "b" * 64}


def information(low: float, high: float) -> dict[str, Any]:
    mix = {"accurate": "g", "robust": "h", "accurate_scale": 1.0, "robust_scale": 1.0}
    return {"mix": mix | {"alpha_range": [low, high], "adaptive": low < high}}


def mixed_columns() -> dict[str, np.ndarray[Any, Any]]:
    """Margins and weights of N samples, of which a third stood."""
    draws = np.random.default_rng(0)
    stood = np.arange(N) % 3 == 0
    columns: dict[str, np.ndarray[Any, Any]] = {
        "alpha_clean": draws.beta(2, 5, N),
        "alpha_adversarial": draws.beta(5, 2, N),
        "accurate_margin_clean": draws.beta(8, 1, N),
        "robust_margin_clean": draws.beta(3, 2, N),
        "accurate_margin_adversarial": -draws.beta(6, 1, N),
        "robust_margin_adversarial": np.where(draws.random(N) < 0.2, 0.3, -draws.beta(1, 4, N)),
    }
    for name, values in columns.items():
        if name.endswith("adversarial"):
            values[stood] = np.nan
    return columns


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("mixes") / "results")

    def save(name: str, clean: int, robust: int, weights: dict[str, str], **rest: Any) -> None:
        changes = {key: rest.pop(key) for key in ("information", "kind", "dataset") if key in rest}
        manifest = make_manifest("cifar100-linf", name, N, weights_sha256=weights, **changes)
        save_run(store, manifest, clean, [robust] * 4, **rest)

    save("g", 170, 0, {"weights": BASES["accurate"]})
    save("h", 120, 80, {"weights": BASES["robust"]})
    save("stranger", 150, 50, {"weights": "c" * 64})
    save("mix:alpha=0.5", 168, 30, BASES, information=information(0.5, 0.5))
    save("mix:alpha=0.7", 160, 60, BASES, information=information(0.7, 0.7))
    bent = information(0.99, 0.99)
    bent["mix"]["bends_logits"] = True
    save("nuts", 162, 78, BASES, information=bent)
    # The same bases on other images are another family.
    elsewhere = DatasetRecord(name="cifar100", sha256="9" * 64, size=N)
    save("mix:far", 100, 9, BASES, information=information(0.6, 0.6), dataset=elsewhere)
    save(
        "adaptive-mix",
        163,
        75,
        BASES | {"weights": "d" * 64},
        information=information(0.1, 0.9),
        columns=mixed_columns(),
    )
    points = [
        SweepPoint(
            alpha=alpha, clean_accuracy=0.85 - 0.25 * alpha**4, attacked_accuracy=0.42 * alpha**2
        )
        for alpha in np.linspace(0, 1, 21).tolist()
    ]
    save("mix:sweep", 120, 84, BASES, information=information(0.5, 0.5), kind="sweep", sweep=points)
    return store


def test_runs_of_the_same_bases_on_the_same_images_are_a_family(store: Store) -> None:
    first, second = families(store.summaries("cifar100-linf"))
    assert first.names == ("g", "h")
    assert [base.manifest.candidate for base in first.bases if base] == ["g", "h"]
    assert [run.manifest.candidate for run in first.fixed] == ["mix:alpha=0.5", "mix:alpha=0.7"]
    assert [run.manifest.candidate for run in first.adaptive] == ["adaptive-mix"]
    assert [run.manifest.candidate for run in first.bent] == ["nuts"]
    assert len(first.sweeps) == 1
    assert second.bases == (None, None)
    assert not second.has_curve


def test_a_base_is_not_another_mix_of_the_same_networks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for alpha in (0.7, 0.5):
        changes = {"weights_sha256": BASES, "information": information(alpha, alpha)}
        save_run(store, make_manifest("cifar100-linf", f"mix-{alpha}", N, **changes), 140, [20] * 4)
    nested = information(0.4, 0.4)
    nested["mix"]["accurate"] = "mix-0.7"
    weights = {f"accurate.{role}": digest for role, digest in BASES.items()} | {"robust": "e" * 64}
    changes = {"weights_sha256": weights, "information": nested}
    save_run(store, make_manifest("cifar100-linf", "nested", N, **changes), 150, [30] * 4)
    (family,) = [
        each for each in families(store.summaries("cifar100-linf")) if each.names[0] == "mix-0.7"
    ]
    assert family.bases[0] is not None
    assert family.bases[0].manifest.candidate == "mix-0.7"


def test_the_page_shows_curve_bases_weights_and_margins(store: Store, tmp_path: Path) -> None:
    build_report(store, tmp_path, ["cifar100-linf"])
    text = (tmp_path / "cifar100-linf.html").read_text(encoding="utf-8")
    section = text[
        text.index('<section id="mixes"') : text.index(
            "</section>", text.index('<section id="mixes"')
        )
    ]
    # Every second drawing is that of narrow windows.
    tradeoff, alpha, margins = re.findall(r"<svg.*?</svg>", section, re.DOTALL)[::2]
    assert "cheap attack: an upper bound" in tradeoff
    assert "g (standard protocol): clean 85.00, robust 0.00" in tradeoff
    assert "adaptive-mix (standard protocol): clean 81.50, robust 37.50" in tradeoff
    # A mix that bends logits stands for itself, and for no weight.
    assert "nuts (standard protocol): clean 81.00, robust 39.00" in tradeoff
    assert "nonlinear mixes, full protocol" in tradeoff
    assert "0.99" not in tradeoff
    assert tradeoff.count("after the cheap attack") == 21
    assert "stranger" not in tradeoff
    assert "clean images, n = 200, median" in alpha
    assert "adversarial images, n = 133, median" in alpha
    assert "Accurate base: g" in margins
    assert "Robust base: h" in margins
    assert re.search(r"Robust base: h\..*attacked and wrong: 1[01]\d, median", margins)
    # The sweep is no candidate: it is neither ranked nor listed.
    assert "mix:sweep" not in text
