"""The names of runs: a change of what decides a result, or of how it is written, changes them."""

from __future__ import annotations

from typing import Any

import pytest

from bench.store.manifest import Manifest

COMMON: dict[str, Any] = {
    "suite": "own-l2",
    "suite_version": 1,
    "candidate": "network",
    "dataset": {"name": "digits", "sha256": "d" * 64, "size": 360},
    "threat_model": {"norm": "L2", "eps": 0.5},
    "protocol": "standard",
    "attacks": [],
    "engine": "fast",
    "engine_settings": {},
    "precision": "float32",
    "seed": 0,
    "selection": {"kind": "first", "n": 32},
    "overrides": {"n_examples": 32},
    "weights_sha256": {"weights": "a" * 64},
    "definition_sha256": "b" * 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "evaluation": {"attacks": [{"name": "apgd-ce", "parameters": {}}]},
    "certification": {
        "protocol": "certified",
        "engine": "certification",
        "engine_settings": {"procedure": "fixed", "sigma": 0.5, "noise_samples": 100_000},
    },
    "sweep": {"engine": "sweep", "protocol": "cheap", "engine_settings": {"alphas": [0.0, 1.0]}},
    "imported-log": {"engine": "imported", "precision": "as published", "weights_sha256": {}},
    "imported-witnesses": {"engine": "import", "selection": {"kind": "listed", "n": 3}},
}


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("evaluation", "b8d8f257bf25"),
        ("certification", "a1b9173dc4b4"),
        ("sweep", "8c1a7d0ece04"),
        ("imported-log", "109cf1874cc9"),
        ("imported-witnesses", "fdb8f333f8a2"),
    ],
)
def test_the_name_of_a_run_of_each_kind(kind: str, run: str) -> None:
    assert Manifest.model_validate({"kind": kind, **COMMON, **KINDS[kind]}).run == run


def test_where_a_run_was_made_is_no_part_of_its_name() -> None:
    manifest = Manifest.model_validate({"kind": "evaluation", **COMMON})
    elsewhere = {"environment": {"device": "cuda"}, "information": {"paper": None}}
    assert manifest.model_copy(update=elsewhere).run == manifest.run
    assert manifest.model_copy(update={"seed": 1}).run != manifest.run
