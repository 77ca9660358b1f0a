"""Certification logs: the published ones give the published figures, wrong ones are named."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.certification.accuracy import average_certified_radius, certified_counts
from bench.certification.log import read_certification_log
from bench.errors import InputError
from bench.store.records import Certificates

LOGS = Path(str(resources.files("bench.claims") / "certify_logs"))
AVERAGE_RADII = {
    "gaussian_cifar10_resnet110_sigma0.25": 0.429,
    "gaussian_cifar10_resnet110_sigma0.50": 0.538,
    "gaussian_cifar10_resnet110_sigma1.00": 0.542,
    "gaussian_cifar10_resnet20_sigma0.50": 0.524,
    "stability_cifar10_resnet20_sigma0.50": 0.499,
    "macer_cifar10_resnet20_sigma0.50": 0.661,
    "smoothadv_cifar10_resnet20_sigma0.50": 0.692,
    "consistency-lbd10_cifar10_resnet20_sigma0.50": 0.686,
    "consistency-lbd20_cifar10_resnet110_sigma0.25": 0.552,
    "smoothmix_cifar10_resnet110_sigma0.25": 0.553,
    "smoothmix-onestep_cifar10_resnet110_sigma0.25": 0.548,
    "smoothmix_cifar10_resnet110_sigma0.50": 0.712,
}
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """CIFAR-10's test labels, as one of the logs has them."""
    with gzip.open(LOGS / "macer_cifar10_resnet20_sigma0.50.tsv.gz", "rt") as file:
        return np.array([int(row["label"]) for row in csv.DictReader(file, delimiter="\t")])


def _read(name: str, labels: np.ndarray) -> Certificates:
    return read_certification_log(LOGS / f"{name}.tsv.gz", labels, 10, sigma=1.0)


@pytest.mark.parametrize("name", AVERAGE_RADII)
def test_published_average_certified_radii(name: str, labels: np.ndarray) -> None:
    certificates = _read(name, labels)
    assert len(certificates.index) == (
        500 if name.startswith("gaussian_cifar10_resnet110") else 10_000
    )
    assert round(average_certified_radius(certificates), 3) == AVERAGE_RADII[name]


def test_every_shipped_log_is_checked() -> None:
    assert {path.name.removesuffix(".tsv.gz") for path in LOGS.glob("*.gz")} == set(AVERAGE_RADII)


@pytest.mark.parametrize(
    ("name", "radii", "percentages", "decimals"),
    [
        (
            "smoothmix_cifar10_resnet110_sigma0.25",
            (0, 0.25, 0.5, 0.75),
            (77.1, 67.9, 57.9, 46.7),
            1,
        ),
        ("gaussian_cifar10_resnet110_sigma0.25", (0.25, 0.5, 0.75), (60, 43, 27), 0),
        ("gaussian_cifar10_resnet110_sigma0.50", (0.25, 0.5, 0.75), (55, 41, 32), 0),
    ],
)
def test_published_certified_accuracies(
    name: str,
    radii: tuple[float, ...],
    percentages: tuple[float, ...],
    decimals: int,
    labels: np.ndarray,
) -> None:
    certificates = _read(name, labels)
    counts = np.array(certified_counts(certificates, radii))
    found = 100 * counts / len(certificates.index)
    np.testing.assert_allclose(found, percentages, rtol=0, atol=0.5 * 10**-decimals + 1e-9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("idx\tlabel\tpredict\tcorrect\n", "line 1: expected columns .*: radius missing"),
        (HEADER + "0\t3\t3\t0.1\t1\t9\n0\t3\t3\t0.1\t1\t9\n", "line 3: .*got 0 again after line 2"),
        (
            HEADER + "0\t4\t3\t0.1\t0\t9\n",
            "line 2: expected label 3, the data set's at idx 0; got 4",
        ),
        (HEADER + "0\t3\t3\t0.1\n", "line 2: expected 6 columns, got 4"),
        (HEADER + "9\t3\t3\t0.1\t1\t9\n", "line 2: expected idx from 0 to 1, got '9'"),
        (HEADER + "0\t3\t10\t0.1\t0\t9\n", "line 2: expected predict from -1 to 9, got '10'"),
        (HEADER + "0\t3\t3\tfar\t1\t9\n", "line 2: expected a radius >= 0, got 'far'"),
        (HEADER + "0\t3\t3\t3.1\t1\t9\n", "line 2: expected a radius of at most 3, .*got 3.1"),
        (HEADER + "0\t3\t-1\t0.1\t0\t9\n", "line 2: expected radius 0 with predict -1"),
        (HEADER + "0\t3\t3\t0.1\t0\t9\n", "line 2: expected correct 1 for label 3"),
        (HEADER, "expected rows below the header, got none"),
    ],
)
def test_wrong_logs_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(content)
    with pytest.raises(InputError, match=f"^{path}.*{message}"):
        read_certification_log(path, np.array([3, 8]), 10, sigma=0.5)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv.gz"
    path.write_bytes(gzip.compress(HEADER.encode())[:-9])
    with pytest.raises(InputError, match="cannot be read as a certification log"):
        read_certification_log(path, np.array([3]), 10, sigma=0.5)


ROWS = "0\t3\t3\t0.25\t1\t9\n1\t8\t-1\t0.0\t0\t9\n"
FORMS: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "PowerShell": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "commas": lambda text: text.replace("\t", ",").encode(),
    "semicolons": lambda text: text.replace("\t", ";").replace(".", ",").encode(),
    "spaces between": lambda text: text.replace("\t", "  ").encode(),
    "spaces around": lambda text: text.replace("\t", " \t ").replace("\n", " \n").encode(),
    "quotes": lambda text: (
        '"{}"'.format(text.strip().replace("\t", '"\t"')).replace("\n", '"\n"').encode()
    ),
    "blank lines": lambda text: ("\n" + text.replace("\n", "\n\n") + "\t\t\n").encode(),
    "empty cells": lambda text: text.replace("\n", "\t\t\n").encode(),
    "capitals": lambda text: text.title().encode(),
    "truth": lambda text: text.replace("1\t9", "True\t9").replace("0\t9", "False\t9").encode(),
    "pandas": lambda text: text.replace("0\t3\t3", "0.0\t3.0\t3.0").encode(),
    "packed": lambda text: gzip.compress(text.encode("utf-8-sig")),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_editors_and_spreadsheets_make_of_a_log_is_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_bytes(FORMS[form](HEADER + ROWS))
    log = read_certification_log(path, np.array([3, 8]), 10, sigma=0.5)
    assert log.index.tolist() == [0, 1]
    assert log.label.tolist() == [3, 8]
    assert log.prediction.tolist() == [3, -1]
    assert log.radius.tolist() == [0.25, 0.0]


@given(st.binary(max_size=40), st.integers(0, 60), st.sampled_from(["utf-8", "utf-16"]))
def test_damaged_logs_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int, encoding: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "log.tsv"
    content = (HEADER + ROWS).encode(encoding)
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    with contextlib.suppress(InputError):
        log = read_certification_log(path, np.array([3, 8]), 10, sigma=0.5)
        assert set(log.label.tolist()) <= {3, 8}
        assert (log.radius <= 3).all()
