"""A candidate's identity: what decides an answer changes it, and nothing else does."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from bench.candidates.folder_digest import folder_digest
from bench.candidates.identity import package_digest
from bench.candidates.object_digest import object_digest
from bench.candidates.registry import ENTRY_POINT_GROUP

GLOBAL = {"shift": 1.0}


class Rich(nn.Module):
    """A module whose answers depend on what `state_dict()` does not hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.unregistered = [nn.Linear(3, 3), {"inner": (nn.Linear(2, 2),)}]
        self.mean = torch.ones(2)
        self.array = np.arange(3.0)
        self.labels = {"cat", "dog", "bird", "fish"}
        self.thresholds = {"low": 0.25, "high": [0.5, 0.75]}
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        factor = torch.tensor([2.0])
        self.layer.register_forward_hook(lambda module, inputs, logits: logits * factor)
        self.layer.register_forward_pre_hook(self.before)
        self.activation: Callable[..., Any] = functools.partial(nn.functional.leaky_relu)
        self.quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 2, torch.qint8)
        self.per_channel = torch.quantize_per_channel(
            torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8
        )
        self.normalised = parametrizations.weight_norm(nn.Linear(2, 2))
        self.dynamic = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(4, 3)), {nn.Linear}
        )
        self.scripted = torch.jit.script(nn.Linear(2, 2))
        self.myself = [self]

    def before(self, module: nn.Module, inputs: Any) -> Any:
        return inputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images) + GLOBAL["shift"]  # type: ignore[no-any-return]


def rich() -> Rich:
    """The module, always the same."""
    return Rich().eval()  # type: ignore[no-any-return]


def _edit(place: str) -> Callable[[Rich], object]:
    """A change of what a tensor holds."""

    def change(module: Rich) -> None:
        with torch.no_grad():
            eval(f"module.{place}").flatten()[0] += 1

    return change


CHANGES: dict[str, Callable[[Any], object]] = {
    "weight": _edit("layer.weight"),
    "weight in a list": _edit("unregistered[0].weight"),
    "weight in a dict": _edit("unregistered[1]['inner'][0].bias"),
    "plain tensor": _edit("mean"),
    "buffer": _edit("hidden"),
    "parametrization": _edit("normalised.parametrizations.weight.original0"),
    "array": lambda module: module.array.__setitem__(1, 7),
    "set": lambda module: module.labels.add("cow"),
    "number": lambda module: module.thresholds["high"].__setitem__(1, 0.7500001),
    "order": lambda module: module.thresholds.__setitem__("low", module.thresholds.pop("low")),
    "hook": lambda module: module.layer.register_forward_hook(lambda m, i, logits: logits * 3),
    "hook's place": lambda module: module.layer.register_forward_hook(
        lambda m, i, logits: logits, prepend=True
    ),
    "closure": lambda module: (
        next(iter(module.layer._forward_hooks.values())).__closure__[0].cell_contents.fill_(5)
    ),
    "mode": lambda module: module.layer.train(),
    "partial": lambda module: module.activation.keywords.__setitem__("negative_slope", 0.3),
    "function": lambda module: setattr(module, "activation", torch.relu),
    "type": lambda module: setattr(module, "mean", module.mean.double()),
    "quantised": lambda module: setattr(
        module, "quantised", torch.quantize_per_tensor(torch.ones(3), 0.2, 2, torch.qint8)
    ),
    "channel": lambda module: setattr(
        module,
        "per_channel",
        torch.quantize_per_channel(
            torch.ones(2, 2), torch.tensor([1.0, 2.0]), torch.zeros(2), 0, torch.qint8
        ),
    ),
    "packed weight": lambda module: module.dynamic[0].set_weight_bias(
        torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8), None
    ),
    "TorchScript": _edit("scripted.weight"),
    "forward": lambda module: setattr(module, "forward", lambda images: images),
}


def test_the_same_thing_built_twice_has_one_identity_in_every_process() -> None:
    own = object_digest(rich())
    assert not own.undigested
    assert object_digest(rich()) == own
    assert object_digest(copy.deepcopy(rich())).sha256 != "", "a copy can be digested"
    code = (
        "from tests.candidates.test_identity import rich\n"
        "from bench.candidates.object_digest import object_digest\n"
        "print(object_digest(rich()).sha256)"
    )
    for seed in ("1", "2"):
        came = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert came.stdout.strip() == own.sha256


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
        lambda layer: nn.utils.weight_norm(nn.GRU(4, 3), "weight_hh_l0"),
    ],
    ids=["weight norm", "spectral norm", "pruning", "weight norm of a recurrent layer"],
)
def test_weights_that_hooks_compute_count_by_what_they_are_computed_from(
    change: Callable[[nn.Module], nn.Module],
) -> None:
    first, second = (change(nn.Linear(4, 3)) for _ in range(2))
    assert object_digest(first) != object_digest(second)
    second.load_state_dict(first.state_dict())
    assert object_digest(first) == object_digest(second)


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_an_answer_changes_the_identity(change: str) -> None:
    module = rich()
    before = object_digest(module).sha256
    CHANGES[change](module)
    assert object_digest(module).sha256 != before


def test_a_value_that_a_function_refers_to_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = object_digest(rich()).sha256
    monkeypatch.setitem(GLOBAL, "shift", 2.0)
    assert object_digest(rich()).sha256 != before


def test_two_functions_of_one_line_are_told_apart() -> None:
    one, other = (lambda x: x + 1), (lambda x: x + 2)
    assert object_digest(one).sha256 != object_digest(other).sha256
    assert object_digest(eval("lambda x: x + 1")) != object_digest(eval("lambda x: x + 2"))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=2), max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN, PLAIN)
def test_attributes_have_one_identity_if_and_only_if_they_are_equal(one: Any, other: Any) -> None:
    def digest(value: Any) -> str:
        module = nn.Identity()
        module.setting = value
        found = object_digest(module)
        assert not found.undigested
        return found.sha256

    assert digest(one) == digest(copy.deepcopy(one))
    assert (digest(one) == digest(other)) == (repr_of(one) == repr_of(other))


def repr_of(value: Any) -> str:
    """A text that tells values apart: types, the order of dicts, no order of sets."""
    if isinstance(value, frozenset):
        return f"set{sorted(map(repr, value))}"
    if isinstance(value, dict):
        return f"dict{[(key, repr_of(item)) for key, item in value.items()]}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{[repr_of(item) for item in value]}"
    return repr(value)


def test_what_cannot_be_digested_is_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(1, 1))
    with (tmp_path / "log").open("w") as file:
        module[0].log = file
        (line,) = object_digest(module).undigested
    assert line == "0.log (_io.TextIOWrapper): its contents cannot be read"
    (line,) = object_digest(nn.Linear(1, 1, device="meta").weight).undigested
    assert "a tensor on the device meta has no values" in line


def test_every_file_of_a_folder_counts_wherever_it_lies(tmp_path: Path) -> None:
    def write(folder: Path, **files: str) -> Path:
        for name, content in ({"model.py": "", "config.json": "{}"} | files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return folder

    first = folder_digest(write(tmp_path / "a"))
    assert folder_digest(write(tmp_path / "b" / "c")) == first
    tools = {"__pycache__/model.pyc": "x", ".git/HEAD": "x", ".0123456789ab.lock": ""}
    tools["results/s/c/r/manifest.json"] = (
        '{"schema_version": 1, "suite": "s", "candidate": "c", "engine": "fast"}'
    )
    tools["reports/s.html"] = '<html><meta name="generator" content="tradeoff-bench"></html>'
    assert folder_digest(write(tmp_path / "tools", **tools)) == first
    for name in ("config.json", "classes.txt", "data/other.npz", ".hidden", "results/x.json"):
        changed = folder_digest(write(tmp_path / f"changed-{len(name)}", **{name: "1"}))
        assert changed.sha256 != first.sha256
    renamed = write(tmp_path / "renamed")
    (renamed / "config.json").rename(renamed / "config2.json")
    assert folder_digest(renamed).sha256 != first.sha256


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "real.json").write_text("1")
    (folder / "inside.json").symlink_to("real.json")
    os.mkfifo(folder / "pipe")
    assert not folder_digest(folder).unread
    (folder / "outside.json").symlink_to(tmp_path / "secret")
    found = folder_digest(folder)
    assert found.unread == ("outside.json: a link that leads out of the folder (put a copy there)",)
    (tmp_path / "secret").write_text("2")
    assert folder_digest(folder) == found


def test_an_installed_package_counts_with_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_networks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "zoo.py").write_text("def build(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("theirs", "their_networks.zoo:build", ENTRY_POINT_GROUP)
    before = package_digest(entry)
    (package / "classes.json").write_text("[1, 0]")
    assert package_digest(entry).sha256 != before.sha256
