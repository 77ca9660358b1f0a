"""Twelve kinds of models as people have them: the clean accuracy is the one computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn.functional import interpolate

import bench
from bench.cli import main
from bench.store import Store

N = 12
CODE = """
import torch
from torch import nn


def plain(channels=3, classes=10):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(96, classes),
    )


def gray():
    return plain(channels=1)


def one_logit():
    network = plain(classes=1)
    with torch.no_grad():
        network[-1].bias.zero_()
    return network


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = plain(), plain()
        with torch.no_grad():
            self.second[-1].weight.neg_()

    def forward(self, images):
        return self.first(images), self.second(images)


class Answers(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = plain()

    def forward(self, images):
        logits = self.body(images)
        return {"features": logits.softmax(1), "logits": logits}
"""


@dataclass(frozen=True)
class Kind:
    """A model as the command line names it, and its logits computed by hand."""

    name: str
    logits: Callable[[Tensor], Tensor]
    architecture: str | None = None
    said: str = ""


def _normalized(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3


def _user(name: str) -> nn.Module:
    space: dict[str, Callable[[], nn.Module]] = {}
    exec(CODE, space)
    return space[name]().eval()


def _timm() -> Kind:
    network = timm.create_model("resnet10t", num_classes=10).eval()
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, "timm.pt")
    config = network.pretrained_cfg
    size, mode = config["input_size"][1:], config["interpolation"]

    def logits(images: Tensor) -> Tensor:
        resized = interpolate(images, size, mode=mode, antialias=True)
        return network(_normalized(resized, config["mean"], config["std"]))

    return Kind("timm:resnet10t,checkpoint=timm.pt", logits, said="images resized")


def _torchvision() -> Kind:
    network = torchvision.models.squeezenet1_1(num_classes=10).eval()
    torch.save(network.state_dict(), "tv.pth")

    def logits(images: Tensor) -> Tensor:
        resized = interpolate(images, (224, 224), mode="bilinear", antialias=True)
        return network(_normalized(resized, *IMAGENET))

    return Kind("torchvision:squeezenet1_1,checkpoint=tv.pth", logits, said="224x224")


def _transformers(size: int) -> Kind:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=size,
        num_labels=10,
        initializer_range=0.3,
    )
    network = transformers.ViTForImageClassification(config).eval()
    sides = {"height": size, "width": size}
    network.save_pretrained(f"vit{size}")
    transformers.ViTImageProcessor(size=sides).save_pretrained(f"vit{size}")

    def logits(images: Tensor) -> Tensor:
        resized = interpolate(images, (size, size), mode="bilinear", antialias=True)
        return network(_normalized(resized, *HALF)).logits

    return Kind(f"hf:./vit{size}", logits, said="logits read from key `logits`")


def _data_parallel() -> Kind:
    network = _user("plain")
    torch.save({"model": nn.DataParallel(network).state_dict()}, "parallel.pt")
    return Kind("parallel.pt", network, "user_models:plain", "prefix `module.` removed")


def _averaged() -> Kind:
    network, averaged = _user("plain"), _user("plain")
    with torch.no_grad():
        averaged[-1].weight.neg_()
    torch.save({"model": network.state_dict(), "ema": averaged.state_dict()}, "ema.pt")
    return Kind("ema.pt,key=ema", averaged, "user_models:plain", "read from key `ema`")


def _one_logit() -> Kind:
    network = _user("one_logit")

    def logits(images: Tensor) -> Tensor:
        z = network(images)
        return torch.cat([-z / 2, z / 2], dim=1)

    return Kind("python:user_models:one_logit", logits, said="one logit z becomes two")


def _script() -> Kind:
    network = _user("plain")
    torch.jit.trace(network, torch.rand(2, 3, 32, 32)).save("script.pt")
    return Kind("script.pt", network)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


KINDS: dict[str, Callable[[], Kind]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": lambda: _transformers(64),
    "DataParallel checkpoint": _data_parallel,
    "EMA checkpoint": _averaged,
    "two heads": lambda: Kind(
        "python:user_models:TwoHeads,output=1",
        lambda images: _user("TwoHeads")(images)[1],
        said="logits read from output 1 of 2",
    ),
    "dict": lambda: Kind(
        "python:user_models:Answers",
        lambda images: _user("Answers")(images)["logits"],
        said="logits read from key `logits`",
    ),
    "one logit": _one_logit,
    "data in [-1, 1]": lambda: Kind(
        "python:user_models:plain,input_range=-1:1",
        lambda images: _user("plain")(2 * images - 1),
        said="[-1, 1]",
    ),
    "grayscale": lambda: Kind(
        "python:user_models:gray,grayscale=true",
        lambda images: _user("gray")(_grey(images)),
        said="one grey channel",
    ),
    "ViT at 224": lambda: _transformers(224),
    "TorchScript": _script,
}


def _suite(logits: Tensor, images: Tensor) -> float:
    """Write data on which about two thirds of the answers are right, and a suite of them."""
    labels = logits.argmax(dim=1)
    labels[::3] = (labels[::3] + 1) % logits.shape[1]
    np.savez("tiny.npz", images=images.numpy(), labels=labels.numpy())
    suite = {
        "name": "tiny-linf",
        "version": 1,
        "title": "Tiny",
        "data": {"npz": "tiny.npz", "classes": logits.shape[1]},
        "threat_model": {"norm": "Linf", "eps": "1/255"},
        "protocols": {
            "standard": {"attacks": [{"name": "square", "parameters": {"queries": 3}}]},
        },
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(suite))
    return float((logits.argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit")
def test_its_clean_accuracy_is_the_one_computed_by_hand(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("user_models.py").write_text(CODE)
    torch.manual_seed(0)
    made = KINDS[kind]()
    images = torch.rand(N, 3, 32, 32)
    with torch.no_grad():
        expected = _suite(made.logits(images), images)
    chosen = ["--candidate", made.name]
    chosen += ["--architecture", made.architecture] if made.architecture else []
    result = CliRunner().invoke(main, ["run", "--suite", "tiny.yaml", *chosen])
    assert result.exit_code == 0, result.output
    (run,) = Store(Path("results")).runs()
    summary = run.summary()
    assert isinstance(summary.clean_accuracy, float)  # type: ignore[attr-defined]
    assert summary.clean_accuracy == pytest.approx(expected)  # type: ignore[attr-defined]
    assert run.path.parents[1] == Path("results/tiny-linf")
    information = summary.manifest.information
    assert made.said in "\n".join([*information["weights"], *information["conversions"]])
    assert summary.manifest.unidentified == []
    name = f"{made.name},architecture={made.architecture}" if made.architecture else made.name
    evaluation = bench.evaluate(name, "tiny.yaml", progress=False)
    assert evaluation.clean_accuracy == pytest.approx(expected)
    assert [each.path for each in Store(Path("results")).runs()] == [run.path]


def test_live_models_are_read_as_named_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.rand(N, 3, 32, 32)
    answers, plain = _user("Answers"), _user("plain")
    with torch.no_grad():
        right = answers(images)["logits"].argmax(dim=1)
        scaled = plain(_normalized(images, *IMAGENET)).argmax(dim=1)
    data = {"threat_model": bench.Linf(1 / 255), "classes": 10, "progress": False}
    found = bench.evaluate(answers, images=images, labels=right, **data)
    assert found.clean_accuracy == 1
    wrapped = bench.wrap(plain, mean=IMAGENET[0], std=IMAGENET[1])
    found = bench.evaluate(wrapped, images=images, labels=scaled, **data)
    assert found.clean_accuracy == 1
