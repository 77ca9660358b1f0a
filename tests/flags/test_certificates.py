"""A certificate that attacks and votes contradict is flagged, a sound one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.candidates.smoothed import Smoothed
from bench.runs.imported_log import ImportedLog
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.records import Certificates, CertificationBlock
from bench.suites import Suite
from tests.pages.runs import make_manifest
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


def _flags(candidate: Candidate, store: Store, protocol: str) -> set[str]:
    settings = Settings(SUITE, protocol=protocol, n_examples=N)
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
