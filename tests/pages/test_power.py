"""A candidate's page says which planted weaknesses its attacks missed."""

from __future__ import annotations

from pathlib import Path

from bench.pages.addresses import candidate_page
from bench.pages.build import build_report
from bench.store import Store
from bench.store.power import AttackPower, PlantedWeakness
from tests.pages.runs import make_manifest, save_run


def test_what_was_missed_is_on_the_page(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    folder = save_run(store, make_manifest("digits-linf", "it", 30), 28, [20, 18, 18, 18])
    plants = [
        PlantedWeakness(name="back-door", effect="", outcome="missed", breakable=20, broken=3),
        PlantedWeakness(
            name="noisy-input",
            effect="",
            outcome="untested",
            breakable=0,
            broken=0,
            reason="<too few>",
        ),
    ]
    power = AttackPower(attacks="express", samples=28, broken=8, plants=plants)
    with folder.locked():
        folder.write_summary(folder.summary().model_copy(update={"attack_power": power}))
    build_report(store, tmp_path / "reports")
    page = (tmp_path / "reports" / candidate_page("digits-linf", "it")).read_text(encoding="utf-8")
    assert "missed; attacks broke 3 of 20 samples known to break" in page
    assert "untested; &lt;too few&gt;" in page
