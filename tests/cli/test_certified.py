"""`bench run --protocol certified`: results, variants, records, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

from bench.candidates import Candidate
from bench.cli import main
from bench.data import load
from bench.errors import InputError
from bench.runs.certification import smoothing_of
from bench.runs.imported_log import import_certification_log
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.summary import AttackedSummary, CertifiedSummary
from bench.suites import Suite, ThreatModel

CODE = """
from torch import nn

from bench.candidates.smoothed import Smoothed


def small(sigma=0.15):
    return Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), sigma, 4, 0)
"""
SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 20,
    "threat_model": {"norm": "L2", "eps": 0.25},
    "protocols": {
        "standard": {"attacks": ["apgd-ce"]},
        "certified": {"certification": {"selection_samples": 20, "noise_samples": 400}},
    },
}


@pytest.fixture
def candidate(tmp_path: Path, linear_digits: nn.Module) -> str:
    """The folder of a smoothed linear classifier."""
    folder = tmp_path / "submissions" / "small"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(CODE)
    weights = {f"base.{name}": value for name, value in linear_digits.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    fields = {
        "name": "small",
        "dataset": "digits",
        "architecture": "model:small",
        "weights": "weights.safetensors",
        "sha256": hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump(fields))
    return str(folder)


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """Calls `bench run --protocol certified` on a quick suite, its results under tmp_path."""
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))

    def run(*arguments: str, protocol: str | None = "certified") -> Result:
        folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
        named = [] if protocol is None else ["--protocol", protocol]
        command = ["run", "--suite", str(suite), *named, *folders, *arguments]
        return CliRunner().invoke(main, command)

    return run


def test_certifies_records_shows_and_reuses(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    first = call("--candidate", candidate)
    assert first.exit_code == 0, first.output
    (summary,) = Store(tmp_path / "results").summaries("quick")
    assert f"{100 * summary.robust_accuracy:.2f}%" in first.output
    manifest, certified = summary.manifest, summary
    assert isinstance(certified, CertifiedSummary)
    assert (manifest.kind, manifest.protocol, manifest.engine) == (
        "certification",
        "certified",
        "certification",
    )
    assert manifest.overrides == {}
    assert manifest.engine_settings["sigma"] == 0.15
    (folder,) = Store(tmp_path / "results").runs("quick")
    samples = folder.samples()
    right = samples["prediction"] == samples["label"]
    assert summary.clean_accuracy == certified.certified.accuracy_at_radius["0.00"] == right.mean()
    assert 0 < summary.robust_accuracy == (right & (samples["radius"] >= 0.25)).mean()
    assert certified.certified.average_certified_radius == pytest.approx(
        (samples["radius"] * right).mean()
    )
    assert samples["noise_samples"].eq(400).all()
    assert certified.certified.mean_noise_samples == 400
    assert "nothing was computed" in call("--candidate", candidate).output

    show = ["show", "quick/small", "--results-dir", f"{tmp_path}/results"]
    shown = CliRunner().invoke(main, show)
    assert f"ACR        {certified.certified.average_certified_radius:.3f}" in shown.output
    assert "at L2 radius 0.25" in shown.output
    # 0.25 / sqrt(1 * 8 * 8)
    assert "in Linf    the same at radius 0.03125" in shown.output


def test_a_radius_for_which_no_more_was_drawn_counts_as_a_lower_bound(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    first = call("--candidate", candidate, "--procedure", "sequential")
    assert first.exit_code == 0, first.output
    (summary,) = Store(tmp_path / "results").summaries("quick")
    assert isinstance(summary, CertifiedSummary)
    average = f"{summary.certified.average_certified_radius:.3f}"
    show = ["show", "quick/small", "--results-dir", f"{tmp_path}/results"]
    assert f"ACR        at least {average}" in CliRunner().invoke(main, show).output
    page = (tmp_path / "reports" / "quick.html").read_text()
    assert "radii 0, 0.25, 0.5, 0.75 were settled" in " ".join(page.split())
    assert f"&ge;</abbr> {average}" in page


def test_fresh_votes_verify_a_certification(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    assert call("--candidate", candidate).exit_code == 0
    (certified,) = store.summaries("quick")
    verify = ["verify", f"quick/small@{certified.run}", "--suite", str(tmp_path / "quick.yaml")]
    verify += ["--candidate", candidate, "--results-dir", str(tmp_path / "results")]

    nothing = CliRunner().invoke(main, verify)
    assert nothing.exit_code == 0, nothing.output
    assert "there was nothing to check" in nothing.output

    attack = call("--candidate", candidate, "--eps", "0.8", protocol="standard")
    assert attack.exit_code == 0, attack.output
    honest = CliRunner().invoke(main, verify)
    assert honest.exit_code == 0, honest.output
    assert "not contradicted" in honest.output

    table = store.folder(certified.manifest).path / "samples.parquet"
    samples = pd.read_parquet(table)
    samples.assign(radius=samples["radius"].clip(lower=5.0)).to_parquet(table)
    inflated = CliRunner().invoke(main, verify)
    assert inflated.exit_code == 1, inflated.output
    assert "CONTRADICTED" in inflated.output
    assert "fresh votes contradict its certificate" in inflated.output


def test_less_is_a_variant_and_another_procedure_another_run(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    assert call("--candidate", candidate, "--procedure", "sequential").exit_code == 0
    fewer = call("--candidate", candidate, "--noise-samples", "100", "--every", "3")
    assert "(variant)" in fewer.output
    runs = Store(tmp_path / "results").summaries("quick")
    sequential, variant = sorted(runs, key=lambda run: len(run.manifest.overrides))
    assert sequential.manifest.engine_settings["radii"] == [0.0, 0.25, 0.5, 0.75]
    assert sequential.manifest.overrides == {}
    assert variant.manifest.overrides == {"every": 3, "noise_samples": 100}
    assert (variant.manifest.selection.kind, variant.n_examples) == ("every", 7)
    randomly = call("--candidate", candidate, "--n-examples", "3", "--sample", "random")
    assert randomly.exit_code == 0, randomly.output
    (page,) = tmp_path.glob("reports/quick.html")
    text = page.read_text()
    assert "3 of 20 at random, seed 0" in text
    assert "7, one in 3" in text
    plan = call("--candidate", candidate, "--dry-run")
    assert "all here" in plan.output


@pytest.mark.parametrize("norm", ["Linf", "L1"])
@pytest.mark.parametrize("name", ["certified", "standard", "own"])
def test_radii_in_l2_certify_nothing_under_another_norm(
    call: Callable[..., Result], candidate: str, tmp_path: Path, norm: str, name: str
) -> None:
    certification = SUITE["protocols"]["certified"]  # type: ignore[index]
    fields = SUITE | {
        "threat_model": {"norm": norm, "eps": 0.2},
        "protocols": {name: certification},
    }
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(fields))
    result = call("--candidate", candidate, protocol=name)
    assert result.exit_code == 2
    assert f"protocols.{name}: expected a threat model in L2" in result.output
    assert "r/sqrt(d) in Linf" in result.output
    assert not list(tmp_path.glob("results/**/run.json"))
    # Nor where the suite is put together without its file.
    suite = Suite.model_validate(SUITE)
    changed = suite.model_copy(update={"threat_model": ThreatModel(norm=norm, eps=0.2)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="in L2"):
        import_certification_log(
            tmp_path / "none.tsv", changed, load("digits"), "it", 0.25, Store(tmp_path)
        )
    settings = Settings(changed, protocol="certified")
    smoothed = Candidate("it", nn.Identity(), {}, "it", sigma=0.25, voter=nn.Identity())
    with pytest.raises(InputError, match="in L2"):
        smoothing_of(smoothed, settings)


def test_a_record_of_l2_radii_under_linf_is_not_shown(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    assert call("--candidate", candidate).exit_code == 0
    for path in tmp_path.glob("results/**/*.json"):
        path.write_text(path.read_text().replace('"L2"', '"Linf"'))
    show = ["show", "quick/small", "--results-dir", f"{tmp_path}/results"]
    shown = CliRunner().invoke(main, show)
    assert shown.exit_code == 2
    assert "expected a threat model in L2" in shown.output
    assert "certified  " not in shown.output


def test_the_only_protocol_of_a_suite_is_its_default(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    protocols = SUITE["protocols"]
    assert isinstance(protocols, dict)
    attacks, certification = protocols["standard"], protocols["certified"]
    for name, protocol in (("adaptive", attacks), ("certified", certification), ("own", attacks)):
        fields = SUITE | {"name": f"only-{name}", "protocols": {name: protocol}}
        (tmp_path / "quick.yaml").write_text(yaml.safe_dump(fields))
        result = call("--candidate", candidate, protocol=None)
        assert result.exit_code == 0, result.output
        (summary,) = Store(tmp_path / "results").summaries(f"only-{name}")
        assert summary.manifest.protocol == name
    several = SUITE | {"protocols": {"adaptive": attacks, "certified": certification}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(several))
    result = call("--candidate", candidate, protocol=None)
    assert result.exit_code == 2
    assert "expected --protocol with one of adaptive, certified; got none" in result.output


def test_what_cannot_be_certified_is_named(
    call: Callable[..., Result],
    candidate: str,
    write_submission: Callable[..., Path],
    tmp_path: Path,
) -> None:
    plain = call("--candidate", str(write_submission()))
    assert plain.exit_code == 2
    assert "candidate linear: expected a smoothed classifier" in plain.output
    engine = call("--candidate", candidate, "--engine", "fast")
    assert engine.exit_code == 2
    assert "--engine cannot be used with protocol certified" in engine.output
    attacked = call("--candidate", candidate, "--noise-samples", "5", protocol="standard")
    assert attacked.exit_code == 2
    assert "--noise-samples cannot be used with protocol standard" in attacked.output
    suite = tmp_path / "quick.yaml"
    suite.write_text(suite.read_text().replace("noise_samples: 400", "failure_probability: 1.0"))
    wrong = call("--candidate", candidate)
    assert wrong.exit_code == 2
    assert "failure_probability: expected a number above 0 and below 1" in wrong.output
    assert ", such as 0.001; got 1.0" in wrong.output
    fields = yaml.safe_load(Path(candidate, "submission.yaml").read_text())
    fields["architecture_args"] = {"sigma": -0.5}
    Path(candidate, "submission.yaml").write_text(yaml.safe_dump(fields))
    suite.write_text(yaml.safe_dump(SUITE))
    negative = call("--candidate", candidate)
    assert negative.exit_code == 2
    assert "expected sigma > 0, got -0.5" in negative.output
    assert not list(tmp_path.glob("results/**/run.json"))


def test_the_vote_is_attacked_as_another_classifier(
    call: Callable[..., Result], candidate: str, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        result = call("--candidate", candidate, "--engine", "fast", protocol="standard")
    assert result.exit_code == 0, result.output
    (summary,) = Store(tmp_path / "results").summaries("quick")
    assert isinstance(summary, AttackedSummary)


def test_a_mix_is_certified_by_its_robust_bases_vote(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    mix = ("--candidate", "digits-mix-smoothmix")
    result = call(*mix)
    assert result.exit_code == 0, result.output
    base = call("--candidate", "digits-smoothmix")
    assert base.exit_code == 0, base.output
    runs = {run.manifest.candidate: run for run in Store(tmp_path / "results").summaries("quick")}
    certified, alone = (runs[name] for name in ("digits-mix-smoothmix", "digits-smoothmix"))
    assert isinstance(certified, CertifiedSummary)
    assert isinstance(alone, CertifiedSummary)
    # What the accurate base may do costs radius.
    assert (
        0 < certified.certified.average_certified_radius < alone.certified.average_certified_radius
    )
    manifest = runs["digits-mix-smoothmix"].manifest
    assert manifest.engine_settings["mixed_vote"] == {"alpha": 0.7}
    assert set(manifest.weights_sha256) == {"accurate", "robust"}
    sequential = call(*mix, "--procedure", "sequential")
    assert sequential.exit_code == 2
    assert "--procedure: expected fixed for a mix" in sequential.output
    named = call("--candidate", "mix:accurate=digits-standard,robust=digits-smoothmix,alpha=0.9")
    assert named.exit_code == 0, named.output


def test_too_few_draws_for_the_suites_radius_are_said_before_the_run(
    call: Callable[..., Result], candidate: str
) -> None:
    result = call("--candidate", candidate, "--noise-samples", "20", "--n-examples", "2")
    assert result.exit_code == 0, result.output
    assert "20 draws at sigma 0.15 certify at most 0.0" in result.output
    assert "so nothing at the suite's radius 0.25; that takes 142 draws" in result.output
    assert "certify at most" not in call("--candidate", candidate, "--n-examples", "2").output
