"""`bench import-certify-log`: published logs stand in the store as runs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import data
from bench.cli import main
from bench.errors import InputError
from bench.store import Store
from bench.store.summary import CertifiedSummary

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def _import(log: Path, results: Path, *arguments: str, suite: str = "digits-l2") -> Result:
    command = ["import-certify-log", str(log), "--suite", suite, "--results-dir", str(results)]
    return CliRunner().invoke(main, [*command, "--candidate", "published", *arguments])


def _write_log(path: Path, step: int = 1) -> Path:
    samples = data.load("digits").every(step)
    rows = zip(samples.indices.tolist(), samples.labels.tolist(), strict=True)
    path.write_text(HEADER + "".join(f"{i}\t{y}\t{y}\t0.5\t1\t0:00:01.5\n" for i, y in rows))
    return path


def test_a_log_of_l2_radii_is_refused_under_linf(tmp_path: Path) -> None:
    log = _write_log(tmp_path / "log.tsv")
    result = _import(log, tmp_path / "results", "--sigma", "0.25", suite="digits-linf")
    assert result.exit_code == 2
    assert "has no certification: its norm is Linf" in result.output
    assert not list((tmp_path / "results").glob("**/run.json"))


def test_a_log_becomes_a_run(tmp_path: Path) -> None:
    log = _write_log(tmp_path / "log.tsv")
    result = _import(log, tmp_path / "results", "--sigma", "0.25", "--source", "a paper")
    assert result.exit_code == 0, result.output
    assert "published: right by votes 100.00%, ACR 0.500" in result.output
    (folder,) = Store(tmp_path / "results").runs("digits-l2")
    summary = folder.summary()
    assert summary.manifest.kind == "imported-log"
    assert summary.manifest.overrides == {}
    assert summary.manifest.information["source"] == "a paper"
    assert isinstance(summary, CertifiedSummary)
    assert summary.certified.sigma == 0.25
    assert summary.certified.accuracy_at_radius["0.50"] == 1
    assert summary.certified.accuracy_at_radius["0.75"] == 0
    assert folder.samples()["noise_samples"].isna().all()
    again = _import(log, tmp_path / "results", "--sigma", "0.25")
    assert "was complete already" in again.output
    other = _import(_write_log(tmp_path / "log.tsv", 20), tmp_path / "results", "--sigma", "0.25")
    assert other.exit_code == 0, other.output
    overrides = [run.manifest.overrides for run in Store(tmp_path / "results").summaries()]
    assert {"every": 20} in overrides
    assert (
        CliRunner()
        .invoke(
            main, ["report", "--results-dir", f"{tmp_path}/results", "--out", f"{tmp_path}/reports"]
        )
        .exit_code
        == 0
    )


def test_a_damaged_import_is_named_and_made_again(tmp_path: Path) -> None:
    log, store = _write_log(tmp_path / "log.tsv", 20), Store(tmp_path / "results")
    assert _import(log, store.root, "--sigma", "0.25").exit_code == 0
    (folder,) = store.runs()
    readers = {
        "manifest.json": folder.manifest,
        "run.json": folder.summary,
        "samples.parquet": folder.samples,
    }
    for name, read in readers.items():
        (folder.path / name).write_text("{")
        with pytest.raises(InputError, match="the same `bench import-certify-log` sets it aside"):
            read()
        again = _import(log, store.root, "--sigma", "0.25")
        assert again.exit_code == 0, again.output
        assert "damaged, set aside as" in again.output
        assert ("complete already" in again.output) == (name == "manifest.json")
        assert folder.verify_tables() == []
    assert len(list(store.root.rglob("*.damaged-*"))) == 3


@pytest.mark.parametrize(
    ("change", "sigma", "suite", "message"),
    [
        (("radius\t", ""), "0.25", "digits-l2", "line 1: expected columns"),
        (("\t0.5\t1\t", "\tfar\t1\t"), "0.25", "digits-l2", "line 2: expected a radius >= 0"),
        (("", ""), "0", "digits-l2", "expected sigma > 0, got 0.0"),
        (
            ("", ""),
            "0.25",
            "digits-linf",
            "suite digits-linf has no certification: its norm is Linf, and votes under noise prove "
            "radii in L2; suites that have one: cifar10-l2, digits-l2, imagenet-l2",
        ),
    ],
)
def test_nothing_is_imported_from_wrong_input(
    change: tuple[str, str], sigma: str, suite: str, message: str, tmp_path: Path
) -> None:
    log = _write_log(tmp_path / "log.tsv")
    log.write_text(log.read_text().replace(*change, 1))
    result = _import(log, tmp_path / "results", "--sigma", sigma, suite=suite)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not list(tmp_path.glob("results/**/*.json"))


@pytest.mark.cifar
def test_a_published_log(data_dir: Path, tmp_path: Path) -> None:
    log = "gaussian_cifar10_resnet110_sigma0.25.tsv.gz"
    path = Path(str(resources.files("bench.claims") / "certify_logs" / log))
    arguments = ["--sigma", "0.25", "--data-dir", str(data_dir)]
    result = _import(path, tmp_path / "results", *arguments, suite="cifar10-l2")
    assert result.exit_code == 0, result.output
    assert "ACR 0.429" in result.output
