"""A suite of the digits with short attacks, and where its records go."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Digits, short attacks",
    "data": "digits",
    "threat_model": {"norm": "Linf", "eps": 0.08},
    "protocols": {
        "standard": {
            "attacks": [
                {"name": "apgd-ce", "parameters": {"steps": 5}},
                {"name": "square", "parameters": {"queries": 20}},
            ]
        }
    },
}


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """The path of the suite's file."""
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return str(path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The folder of the records."""
    return tmp_path / "results"
