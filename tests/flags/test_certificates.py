"""A certificate that attacks and votes contradict is flagged, a sound one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from bench import data
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.candidates.smoothed import Smoothed
from bench.flags.certificates import witnesses_inside
from bench.runs.imported_log import ImportedLog
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.records import Certificates, CertificationBlock, Witnesses
from bench.suites import Suite, ThreatModel
from tests.pages.runs import make_manifest, save_unreadable
from tests.silent import SilentObserver

N = 12
SIGMA = 0.15
SUITE = Suite.model_validate(
    {
        "name": "own",
        "version": 1,
        "title": "own",
        "data": "digits",
        "threat_model": {"norm": "L2", "eps": 0.8},
        "protocols": {
            "standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 20}}]},
            "certified": {"certification": {"selection_samples": 20, "noise_samples": 400}},
        },
    }
)


def _candidate(base: nn.Module, mixed: bool) -> Candidate:
    module: nn.Module = Smoothed(base, SIGMA, 8, 0)
    if mixed:
        module = Mix(base, module, alpha=0.7)
    return Candidate("it", module.eval(), {"w": "w"}, "it", sigma=SIGMA, voter=base)


def _flags(candidate: Candidate, store: Store, protocol: str, eps: float = 0.8) -> set[str]:
    suite = SUITE.model_copy(update={"threat_model": ThreatModel(norm="L2", eps=eps)})
    settings = Settings(suite, protocol=protocol, n_examples=N)
    samples = data.load("digits").first(N)
    outcome = evaluate(candidate, samples, settings, store, SilentObserver())
    return {flag.name for flag in outcome.summary.flags}


@pytest.mark.parametrize("mixed", [False, True])
def test_a_sound_certificate_stands(linear_digits: nn.Module, mixed: bool, tmp_path: Path) -> None:
    candidate, store = _candidate(linear_digits, mixed), Store(tmp_path)
    assert _flags(candidate, store, "standard") == set()
    assert _flags(candidate, store, "certified") == set()


@pytest.mark.parametrize("mixed", [False, True])
def test_a_log_that_claims_too_much_is_flagged(
    linear_digits: nn.Module, mixed: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    labels = data.load("digits").first(N).labels.numpy()
    unknown = np.full(N, -1)
    manifest = make_manifest(
        "digits-l2",
        "it",
        N,
        name="own",
        kind="imported-log",
        engine_settings={"sigma": SIGMA},
        selection=Selection(kind="first", n=N),
    )
    samples = Certificates(np.arange(N), labels, labels, np.full(N, 5.0), unknown, unknown)
    kind = ImportedLog()
    tables = kind.join([CertificationBlock(key="0", seconds=0, certificates=samples)])
    folder = store.folder(manifest)
    with folder.locked():
        folder.begin(manifest)
        summary = kind.summarise(manifest, tables, [], {}, "2026-01-01T11:00:00+00:00")
        folder.finish(tables, summary, np.zeros((0, 1, 1, 1), np.float32))
    assert _flags(_candidate(linear_digits, mixed), store, "standard") == {"unsound-certificate"}


def test_a_mix_without_an_answer_inside_a_radius_is_flagged(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    class Overflows(nn.Module):
        """Has an answer for the 17 shades of the digits' pixels only."""

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = linear_digits(images)
            steps = 16 * images.flatten(1)
            return logits / ((steps - steps.round()).abs().amax(dim=1, keepdim=True) < 0.1)

    vote = Smoothed(linear_digits, SIGMA, 8, 0)
    mix = Mix(Overflows(), vote, alpha=0.7).eval()
    candidate = Candidate("it", mix, {"w": "w"}, "it", sigma=SIGMA, voter=linear_digits)
    store = Store(tmp_path)
    _flags(candidate, store, "standard", eps=0.04)
    assert "unsound-certificate" in _flags(candidate, store, "certified", eps=0.04)


def test_runs_that_cannot_be_read_are_left_out_and_named_once(
    linear_digits: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, candidate = Store(tmp_path), _candidate(linear_digits, mixed=False)
    old = save_unreadable(store, "own")
    assert _flags(candidate, store, "standard") == set()
    (attacked,) = tmp_path.glob("own/it/*/witnesses.npz")
    attacked.write_bytes(b"damaged")
    assert _flags(candidate, store, "certified") == set()
    for path, reason in ((old, "expected schema version 2, got 1"), (attacked, "damaged")):
        (told,) = [each for each in caplog.messages if str(path) in each]
        assert reason in told


def test_one_witness_a_sample_is_looked_at_the_farthest_inside() -> None:
    dataset = data.load("digits").first(2)
    unknown = np.full(2, -1)
    labels = dataset.labels.numpy()
    certificates = Certificates(
        np.arange(2), labels, labels, np.array([0.5, 0.1]), unknown, unknown
    )

    def moved(distances: list[float]) -> Witnesses:
        images = dataset.images.numpy().copy()
        images[:, 0, 0, 0] += distances
        return Witnesses(
            index=np.arange(2),
            attack=np.full(2, "a"),
            prediction=np.full(2, 3),
            images=images,
        )

    runs = [moved([0.2, 0.2]), moved([0.4, 0.3]), moved([0.3, 0.4]), moved([0.6, 0.5])]
    found = witnesses_inside([certificates], runs, dataset)
    assert found.index.tolist() == [0]
    assert found.classes.tolist() == [labels[0]]
    assert float((found.images[0] - dataset.images[0]).norm()) == pytest.approx(0.4)
