"""Checkpoints as people save them: read to equal tensors, or refused with one reason."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

from bench.candidates.weights import file_sha256, load_weights
from bench.cli import main
from bench.errors import InputError

State = dict[str, Any]


class Net(nn.Module):
    """A convolution, a batch norm and a linear layer, by the usual names."""

    def __init__(self, seed: int = 0, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(1, 4, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.fc = nn.Linear(4, classes)
            self.bn1.running_mean.uniform_()
            self.bn1.num_batches_tracked += 7


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


NET = Net(seed=1)
STATE: State = NET.state_dict()
EMA: State = Net(seed=2).state_dict()
OPTIMIZER = torch.optim.Adam(NET.parameters())
sum(parameter.sum() for parameter in NET.parameters()).backward()
OPTIMIZER.step()
TRAINING = {
    "epoch": 3,
    "arch": "resnet18",
    "best_acc1": np.float64(91.2),
    "args": argparse.Namespace(lr=0.1, data=Path("data")),
    "optimizer": OPTIMIZER.state_dict(),
    "lr_schedulers": [{"last_epoch": 3}],
}
STATE = copy.deepcopy(NET.state_dict())


def averaged() -> State:
    return AveragedModel(nn.DataParallel(NET)).state_dict()


WRAPPED: dict[str, tuple[Callable[[], Any], str | None]] = {
    "plain": (lambda: STATE, None),
    "module": (lambda: NET, None),
    "DataParallel": (lambda: nn.DataParallel(NET).state_dict(), "prefix `module.` removed"),
    "compiled": (lambda: torch.compile(NET).state_dict(), "prefix `_orig_mod.` removed"),
    "both": (
        lambda: nn.DataParallel(torch.compile(NET)).state_dict(),
        "prefix `module._orig_mod.` removed",
    ),
    "a part compiled": (
        lambda: {n.replace("layer1.", "layer1._orig_mod."): v for n, v in STATE.items()},
        "`_orig_mod.` removed inside names",
    ),
    "averaged": (averaged, "prefix `module.module.` removed, left aside: n_averaged"),
    "ImageNet example": (
        lambda: TRAINING | {"state_dict": prefixed(STATE, "module.")},
        "read from key `state_dict`, prefix `module.` removed",
    ),
    "Lightning": (
        lambda: (
            TRAINING
            | {
                "state_dict": prefixed(STATE, "model.") | {"criterion.weight": torch.ones(3)},
                "hyper_parameters": {"lr": 0.1},
            }
        ),
        "prefix `model.` removed, left aside: criterion.weight",
    ),
    "Cohen et al.": (
        lambda: {"arch": "cifar_resnet110", "epoch": 3, "state_dict": prefixed(STATE, "1.module.")},
        "prefix `1.module.` removed",
    ),
    "nested keys": (lambda: {"model": {"ema": STATE}}, "read from key `model.ema`"),
    "nested modules": (
        lambda: {
            "conv1": NET.conv1.state_dict(),
            "bn1": NET.bn1.state_dict(),
            "layer1": NET.layer1.state_dict(),
            "fc": NET.fc.state_dict(),
            "epoch": 4,
        },
        None,
    ),
    "tuple": (lambda: (STATE, 4), "read from key `0`"),
    "equal EMA": (lambda: {"model": STATE, "ema": dict(STATE)}, "read from key `model`"),
    "half": (lambda: {n: v.half() for n, v in STATE.items()}, None),
    "no counters, old": (
        lambda: OrderedDict(item for item in STATE.items() if "tracked" not in item[0]),
        None,
    ),
    "no counters, wrapped": (
        lambda: {
            "net": prefixed({n: v for n, v in STATE.items() if "tracked" not in n}, "module.")
        },
        "read from key `net`, prefix `module.` removed",
    ),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", [name for name in WRAPPED if name != "module"])
def test_wrapped_checkpoints_are_read(name: str, zipped: bool, tmp_path: Path) -> None:
    make, said = WRAPPED[name]
    path = tmp_path / "best.pth.tar"
    torch.save(make(), path, _use_new_zipfile_serialization=zipped)
    network = Net()
    notes = load_weights(network, path)
    expected = dict(STATE)
    if name == "half":
        expected = {n: v.half().float() if v.is_floating_point() else v for n, v in STATE.items()}
    for key, value in network.state_dict().items():
        if "counters" not in name or "tracked" not in key:
            assert torch.equal(value, expected[key]), key
    assert (notes == []) if said is None else (said in notes[0]), notes


@pytest.mark.parametrize("ending", ["", ".bin", ".ckpt", ".pt", ".npz"])
def test_the_content_decides_not_the_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{ending}"
    if ending == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in STATE.items()})
    else:
        save_file(STATE, path)
    network = Net()
    assert load_weights(network, path) == []
    assert torch.equal(network.fc.weight, NET.fc.weight)


def test_old_names_of_normalizations_are_torchs_to_translate(tmp_path: Path) -> None:
    for old, new in (
        (weight_norm(nn.Linear(4, 3)), parametrizations.weight_norm(nn.Linear(4, 3))),
        (spectral_norm(nn.Linear(4, 3)), spectral_norm(nn.Linear(4, 3))),
    ):
        wrapped = nn.DataParallel(nn.Sequential(nn.Linear(4, 4), old))
        torch.save({"state_dict": wrapped.state_dict()}, tmp_path / "old.pth")
        network = nn.Sequential(nn.Linear(4, 4), new)
        load_weights(network, tmp_path / "old.pth")
        torch.testing.assert_close(network.eval()[1].weight, wrapped.eval().module[1].weight)


def test_weights_go_below_the_part_that_has_them_all(tmp_path: Path) -> None:
    class Normalize(nn.Module):
        pass

    torch.save({"state_dict": prefixed(STATE, "module.")}, tmp_path / "w.pt")
    network = nn.Sequential(Normalize(), Net())
    assert "prefix `1.` added" in load_weights(network, tmp_path / "w.pt")[0]
    assert torch.equal(network[1].fc.weight, NET.fc.weight)


KEYS = ("state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "params", "x.y")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "encoder.", "1.", "backbone.")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(KEYS), max_size=3),
    st.lists(st.sampled_from(PREFIXES), max_size=4),
    st.booleans(),
)
def test_any_nesting_is_read_and_two_different_sets_are_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], prefixes: list[str], counters: bool
) -> None:
    def wrap(state: State) -> Any:
        state = {n: v for n, v in state.items() if counters or "tracked" not in n}
        for prefix in prefixes:
            state = prefixed(state, prefix)
        for key in keys:
            state = {key: state, "epoch": 3, "optimizer": TRAINING["optimizer"]}
        return state

    path = tmp_path_factory.getbasetemp() / "nested.pt"
    torch.save(wrap(STATE), path)
    network = Net()
    load_weights(network, path)
    assert torch.equal(network.bn1.running_mean, NET.bn1.running_mean)
    assert torch.equal(network.fc.weight, NET.fc.weight)
    torch.save({"first": wrap(STATE), "second": wrap(EMA)}, path)
    network = Net()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="2 sets of weights in it fit") as error:
        load_weights(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for chosen, state in (("first", STATE), ("second", EMA)):
        assert f"`{chosen}" in str(error.value)
        load_weights(network, path, chosen)
        assert torch.equal(network.fc.weight, state["fc.weight"])


class _Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (
        lambda path: torch.save({"w": _Attack(path.parent / "executed")}, path),
        "refused, it holds more than tensors.*weights_only=False",
    ),
    "module": (
        lambda path: torch.save(NET, path),
        r"more than tensors \(.*Net\), .*\n.*torch.load\(.w.pt.*\n.*torch.save\(module.state_dict",
    ),
    "scripted": (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), "got a TorchScript"),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><p>404"), "got a web page"),
    "git lfs": (lfs, "got a Git LFS pointer; fetch"),
    "empty": (lambda path: path.write_bytes(b""), "got an empty file"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08\0"), "packed by gzip"),
    "text": (lambda path: path.write_text("text"), "cannot be read as weights: .*begins with"),
    "plain pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4)),
        "cannot be read as weights without trusting it",
    ),
    "a buffer of the architecture's own": (
        lambda path: torch.save({n: v for n, v in STATE.items() if "running" not in n}, path),
        r"missing bn1\.running_var\. Only buffers are missing",
    ),
    "list": (lambda path: torch.save([1], path), "expected a mapping .*, got list;"),
    "no tensors": (lambda path: torch.save({"a": 1}, path), "got one of a; save"),
    "one missing": (
        lambda path: torch.save({n: v for n, v in STATE.items() if n != "fc.bias"}, path),
        r"do not fit the architecture: missing fc\.bias$",
    ),
    "one missing, wrapped": (
        lambda path: torch.save(
            {"model": prefixed({n: v for n, v in STATE.items() if n != "fc.bias"}, "module.")}, path
        ),
        r"read from key `model`, prefix `module\.` removed: the nearest.*: missing fc\.bias$",
    ),
    "other classes": (
        lambda path: torch.save(Net(classes=5).state_dict(), path),
        r"fc\.weight: expected shape \(3, 4\), got \(5, 4\).*with 5 outputs there instead of 3",
    ),
    "1x1 convolution": (
        lambda path: torch.save(STATE | {"fc.weight": torch.ones(3, 4, 1, 1)}, path),
        "As many values in another shape",
    ),
    "another network": (
        lambda path: torch.save({"stem.weight": torch.ones(3)}, path),
        "have no name in common",
    ),
    "normalization left out": (
        lambda path: torch.save(prefixed(STATE, "net.") | {"mean": torch.ones(3)}, path),
        "`net`, beside mean; then write `weights_key: net` in submission.yaml$",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_explained(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    path = tmp_path / "w.pt"
    write(path)
    network = Net()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=f"(?s)^{path}: .*{message}"):
        load_weights(network, path)
    assert not (tmp_path / "executed").exists()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(InputError, match=str(path)):
        load_weights(network, path, "absent")


def test_what_is_left_aside_by_choice_and_odd_values_are_told(tmp_path: Path) -> None:
    broken = STATE | {"fc.bias": torch.full((3,), torch.nan)}
    torch.save(prefixed(broken, "net.") | {"mean": torch.ones(3)}, tmp_path / "w.pt")
    notes = load_weights(Net(), tmp_path / "w.pt", "net")
    assert notes == [
        "read from key `net`",
        "not read: mean",
        "1 tensor holds NaN or infinite values: fc.bias",
    ]
    torch.save({"net": STATE, "head": {"weight": torch.ones(2)}}, tmp_path / "w.pt")
    assert load_weights(Net(), tmp_path / "w.pt")[1] == "not read: head"


def test_a_module_that_cannot_be_copied_is_left_as_it_was(tmp_path: Path) -> None:
    class Uncopied(Net):
        def __deepcopy__(self, memo: object) -> Net:
            raise TypeError("no copies")

    network = Uncopied()
    torch.save(
        {"state_dict": {n: v for n, v in STATE.items() if n != "fc.bias"}}, tmp_path / "w.pt"
    )
    with pytest.raises(InputError, match=r"missing fc\.bias"):
        load_weights(network, tmp_path / "w.pt")
    assert torch.equal(network.conv1.weight, Net().conv1.weight)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["zip", "legacy", "safetensors", "npz"]))
def test_damaged_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    if kind == "safetensors":
        save_file(STATE, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: value.numpy() for name, value in STATE.items()})
    else:
        torch.save(TRAINING | {"ema": STATE}, path, _use_new_zipfile_serialization=kind == "zip")
    content, draw = bytearray(path.read_bytes()), random.Random(seed)
    if draw.random() < 0.3:
        content = content[: draw.randrange(len(content))]
    for _ in range(draw.randrange(4)):
        if content:
            content[draw.randrange(min(len(content), 3000))] = draw.randrange(256)
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        load_weights(Net(), path)


def test_mappings_that_hold_themselves_end(tmp_path: Path) -> None:
    loop: State = {"fc": {"weight": torch.ones(2)}}
    loop["fc"]["fc"] = loop
    for _ in range(20):
        loop = {"a": loop, "b": loop, "fc": loop}
    torch.save(loop, tmp_path / "w.pt")
    with pytest.raises(InputError, match="do not fit"):
        load_weights(Net(), tmp_path / "w.pt")


def test_how_weights_were_read_is_shown_and_the_key_is_part_of_the_candidate(
    write_submission: Callable[..., Path], linear_digits: nn.Module, tmp_path: Path
) -> None:
    folder = write_submission()
    state: dict[str, Tensor] = linear_digits.state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"state_dict": prefixed(state, "module."), "ema": other}, folder / "last.ckpt")
    fields = yaml.safe_load((folder / "submission.yaml").read_text())
    fields |= {"weights": "last.ckpt", "sha256": file_sha256(folder / "last.ckpt")}
    command = ["run", "--suite", "digits-linf", "--candidate", str(folder), "--n-examples", "2"]
    command += ["--results-dir", str(tmp_path / "r"), "--report-dir", str(tmp_path / "p")]
    runner = CliRunner()

    def run(**changes: object) -> Any:
        (folder / "submission.yaml").write_text(yaml.safe_dump(fields | changes))
        return runner.invoke(main, command)

    refused = run()
    assert refused.exit_code == 2
    assert "`weights_key: state_dict.module`" in refused.stderr
    first = run(weights_key="state_dict")
    assert first.exit_code == 0
    said = "weights read from key `state_dict`, prefix `module.` removed"
    assert first.stdout.count(said) == 1
    assert "clean 100.00%" in first.stdout
    assert "was complete already" in run(weights_key="state_dict").stdout
    shown = runner.invoke(
        main, ["show", "digits-linf/linear", "--results-dir", str(tmp_path / "r")]
    )
    assert "prefix `module.` removed" in " ".join(shown.stdout.split())
    second = run(weights_key="ema")
    assert "was complete already" not in second.stdout
    assert "clean 100.00%" not in second.stdout
