"""A data set is one record: a new one needs no edit elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from bench import data
from bench.data import Dataset, NamedDataset, Request, named_datasets, registry
from bench.errors import InputError
from bench.suites import DataSource, check_radius, load_suite, suite_names


def _stripes(request: Request) -> Dataset:
    labels = torch.arange(8) % 2
    images = torch.zeros(8, 1, 4, 4)
    images[labels == 1, :, ::2] = 1
    dataset = Dataset.whole("stripes", images, labels, ("plain", "striped"))
    return dataset.take(request.choose(dataset.size))


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> NamedDataset:
    named_datasets()  # all others are there
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    dataset = NamedDataset("stripes", shape=(1, 4, 4), test_size=8, load=_stripes)
    return data.register_dataset(dataset)


def test_a_data_set_from_outside_is_one_registration(stripes: NamedDataset, tmp_path: Path) -> None:
    suite = {
        "name": "stripes-l2",
        "version": 1,
        "title": "Stripes",
        "data": "stripes",
        "threat_model": {"norm": "L2", "eps": 0.5},
        "protocols": {"standard": {"attacks": ["apgd-ce"]}},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    loaded = load_suite(str(tmp_path / "suite.yaml"))
    samples = data.load_source(loaded.data, n_examples=3)
    assert samples.labels.tolist() == [0, 1, 0]
    assert data.missing(loaded.data) is None
    assert data.image_shape("stripes") == (1, 4, 4)
    too_large = loaded.threat_model.model_copy(update={"eps": 4.0})
    with pytest.raises(InputError, match="less than 4, the L2 distance"):
        check_radius(too_large, loaded.data, "--eps")


def test_a_name_is_taken_once_and_unknown_ones_are_refused(stripes: NamedDataset) -> None:
    data.register_dataset(stripes)
    with pytest.raises(InputError, match="stripes: expected a name that is free"):
        data.register_dataset(NamedDataset("stripes", (1, 4, 4), 8, _stripes))
    with pytest.raises(ValueError, match="cifar10, cifar100, digits, imagenet, stripes"):
        DataSource(name="cifar11")
    with pytest.raises(InputError, match=r"expected a data set among cifar10.*got 'cifar11'"):
        data.load("cifar11")


def test_shipped_suites_have_the_usual_radii() -> None:
    for name in suite_names():
        suite = load_suite(name)
        usual = named_datasets()[str(suite.data.name)].radii[suite.threat_model.norm]
        assert suite.threat_model.eps == pytest.approx(usual), name


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "digits", "classes": ["a"]}, "`classes` only beside `folder` or `npz`"),
        ({"npz": "a.npz", "channels": 1}, "`channels` only beside `folder` or `torchvision`"),
        ({"folder": "a", "layout": "NCHW"}, "`layout` only beside `npz`"),
        ({"folder": "a", "classes": [1], "class_order": [1]}, "`classes` or `class_order`, got"),
        ({"folder": "a", "classes": [True, "off"]}, "True is none, put it in quotes"),
        ({"folder": "a", "classes": ["a", "b", "a"]}, "each class once; a is repeated"),
        ({"folder": "a", "classes": "cat"}, r"such as \[cat, dog\]"),
        ({"folder": "a", "classes": []}, r"such as \[cat, dog\]"),
    ],
)
def test_fields_of_a_source_that_do_not_fit(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        DataSource.model_validate(fields)
