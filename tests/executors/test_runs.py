"""Whole runs of every kind end the same, whoever does the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import data
from bench.candidates.registry import find_candidates
from bench.executors.here import ThisMachine
from bench.runs import sweep
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from tests.silent import SilentObserver

SAMPLES = 16
SHORT = {"steps": 5, "targets": 2, "restarts": 1, "queries": 20}


def _settings(kind: str) -> Settings:
    suite = load_suite("digits-l2" if kind == "certified" else "digits-linf")
    if kind == "certified":
        return Settings(suite, protocol=kind, noise_samples=200, n_examples=SAMPLES)
    protocol = suite.protocols["adaptive"]
    short = tuple(
        AttackChoice(name=each.name, parameters={key: SHORT[key] for key in _known(each.name)})
        for each in protocol.attacks
    )
    cheap = protocol.model_copy(update={"attacks": short})
    suite = suite.model_copy(update={"protocols": {**suite.protocols, "adaptive": cheap}})
    settings = Settings(suite, protocol="adaptive", n_examples=SAMPLES, eps=0.15)
    return sweep.sweep_settings(settings, (0.3, 0.7), 5, 2) if kind == "sweep" else settings


def _known(attack: str) -> set[str]:
    from bench.attacks import ATTACKS

    return set(SHORT) & set(ATTACKS[attack].defaults)


def _tables(kind: str, candidate: str, workers: int, folder: Path) -> list[pd.DataFrame]:
    settings = _settings(kind)
    (reference,) = find_candidates([candidate], settings.suite, None, False)
    loaded = reference.load()
    if kind == "sweep":
        loaded = sweep.sweep_candidate(reference, candidate)
    machine = ThisMachine(workers)
    dataset = data.load("digits").first(SAMPLES)
    try:
        result = evaluate(
            loaded, dataset, settings, Store(folder), SilentObserver(), executor=machine
        )
    finally:
        machine.close()
    keys = [name for name in ("alpha", "attack", "index") if name in result.folder.attempts()]
    attempts = result.folder.attempts().drop(columns="seconds").sort_values(keys)
    witnesses = result.folder.witnesses(dataset.images.numpy(), dataset.indices.tolist())
    found = (
        pd.DataFrame()
        if witnesses is None
        else pd.DataFrame({"index": witnesses.index, "attack": witnesses.attack}).sort_values(
            ["index", "attack"]
        )
    )
    samples = result.folder.samples().drop(columns="witness", errors="ignore")
    return [each.reset_index(drop=True) for each in (samples, attempts, found)]


@pytest.mark.parametrize(
    ("kind", "candidate"),
    [
        ("adaptive", "digits-adaptive-mix"),
        ("certified", "digits-gaussian"),
        ("sweep", "mix:accurate=digits-standard,robust=digits-robust,alpha=0.7"),
    ],
)
def test_two_workers_make_the_run_of_one(kind: str, candidate: str, tmp_path: Path) -> None:
    alone = _tables(kind, candidate, 1, tmp_path / "one")
    shared = _tables(kind, candidate, 2, tmp_path / "two")
    for ours, theirs in zip(shared, alone, strict=True):
        numbers = [name for name in theirs.columns if theirs[name].dtype == np.float64]
        exact = [name for name in theirs.columns if name not in numbers]
        pd.testing.assert_frame_equal(ours[exact], theirs[exact])
        # Another batch rounds otherwise.
        pd.testing.assert_frame_equal(ours[numbers], theirs[numbers], rtol=1e-3, atol=1e-4)
