"""Mixes declared in files and on the command line: what is built, and what is refused and how."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from bench import data
from bench.candidates import registry
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.candidate import Candidate
from bench.candidates.mix import Mix
from bench.candidates.registry import find_candidates, shipped_submissions
from bench.candidates.submission import read_submission
from bench.errors import InputError
from bench.suites import load_suite
from tests.candidates.networks import adaptive_mix

DIGITS = load_suite("digits-linf")
COMMAND = "mix:accurate=digits-standard,robust=digits-robust,"
BASES = {"accurate": "digits-standard", "robust": "digits-robust"}
LAYERS = ["stages.0", "stages.1"]
ADAPTIVE = {
    "alpha_scale": 0.3,
    "alpha_bias": 0.6,
    "accurate_layers": LAYERS,
    "robust_layers": LAYERS,
    "planes": [8, 16],
}

Write = Callable[..., Path]


@pytest.fixture
def write_mix(tmp_path: Path) -> Write:
    """Writes a submission of a mix; keywords change its fields, `arguments` its arguments."""

    def write(name: str = "some-mix", arguments: object = None, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        fields = {
            "name": Path(name).name,
            "dataset": "digits",
            "architecture": "bench.candidates.mix:Mix",
            "architecture_args": {"alpha": 0.7} if arguments is None else arguments,
            "bases": BASES,
        } | changes
        (folder / "submission.yaml").write_text(yaml.safe_dump(fields))
        return folder

    return write


def _load(name: str | Path) -> Candidate:
    (reference,) = find_candidates([str(name)], DIGITS)
    assert reference.availability().here
    return reference.load()


def test_command_line_and_file_give_the_same_mix() -> None:
    shipped = _load("digits-mix")
    arguments = read_submission(shipped_submissions()["digits-mix"]).architecture_args
    named = _load(COMMAND + ",".join(f"{key}={value}" for key, value in arguments.items()))
    images = data.load("digits").images[:20]
    assert torch.equal(shipped.module(images), named.module(images))
    assert shipped.mix is shipped.module
    assert shipped.mix.alpha_range == (arguments["alpha"],) * 2
    assert shipped.bases["robust"].name == "digits-robust"
    assert shipped.bases["robust"].mix is None
    digests = {role: _load(base).weights_sha256["weights"] for role, base in BASES.items()}
    assert shipped.weights_sha256 == named.weights_sha256 == digests
    other = _load(COMMAND + "alpha=0.7,accurate_scale=2")
    assert isinstance(other.module, Mix)
    assert other.module.accurate_scale == 2
    assert other.definition_sha256 != named.definition_sha256


def test_adaptive_mix_loads_its_network_only(write_mix: Write, tmp_path: Path) -> None:
    architecture = "bench.candidates.adaptive_mix:AdaptiveMix"
    bases = {role: _load(name).module for role, name in BASES.items()}
    arguments = {"image_shape": (1, 8, 8)} | bases | ADAPTIVE
    fresh = AdaptiveMix(**arguments).eval()  # type: ignore[arg-type]
    folder = tmp_path / "trained"
    folder.mkdir()
    weights = folder / "weights.safetensors"
    save_file(fresh.mixing_network.state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    fields = {"architecture": architecture, "weights": weights.name, "sha256": digest}
    trained = _load(write_mix("trained", ADAPTIVE, **fields))
    assert sorted(trained.weights_sha256) == ["accurate", "mixing_network", "robust"]
    assert trained.weights_sha256["mixing_network"] == digest
    images = data.load("digits").images[:20]
    assert torch.equal(trained.module(images), fresh(images))
    wider = ADAPTIVE | {"planes": [8, 24]}
    with pytest.raises(InputError, match=r"submission\.yaml: field architecture_args: version, pl"):
        _load(write_mix("trained", wider, **fields))
    with pytest.raises(InputError, match="field weights: expected none, since this mix has noth"):
        _load(write_mix("trained", weights=weights.name, sha256=digest))
    with pytest.raises(InputError, match="field weights: expected the file of the MixingNetwork"):
        _load(write_mix("untrained", ADAPTIVE, architecture=architecture))


def test_bases_may_live_in_the_folder_and_surrogates_are_loaded(
    write_mix: Write, write_submission: Write, tmp_path: Path
) -> None:
    nuts = {"alpha": 0.9, "scale": 1.0, "power": 2.0, "bias": -1.0, "surrogate_alpha": 0.8}
    folder = write_mix(
        "submissions",
        nuts,
        architecture="bench.candidates.mixed_nuts:MixedNuts",
        surrogate="bench.candidates.mixed_nuts:surrogate",
        bases=BASES | {"robust": "./linear"},
    )
    write_submission("linear")
    candidate = _load(folder)
    images = data.load("digits").images[:20]
    assert candidate.surrogate is not None
    assert candidate.surrogate(images).shape == candidate.module(images).shape
    assert not torch.equal(candidate.surrogate(images), candidate.module(images))
    code = (
        "from bench.candidates.mix import Mix\n"
        "class Own(Mix): pass\n"
        "def soft(mix):\n    assert isinstance(mix, Own)\n    return mix.at_alpha(0.5)\n"
    )
    own = {"architecture": "model:Own", "surrogate": "model:soft"}
    (write_mix("own", **own) / "model.py").write_text(code)
    assert isinstance(_load(tmp_path / "own").surrogate, Mix)
    assert sorted(_load(tmp_path / "own").weights_sha256) == ["accurate", "robust"]
    layer = "Own(Mix):\n    def __init__(self, **a):\n        super().__init__(**a)\n"
    layer += "        self.layer = __import__('torch').nn.Linear(2, 2)\n"
    (tmp_path / "own" / "model.py").write_text(code.replace("Own(Mix): pass\n", layer))
    assert sorted(_load(tmp_path / "own").weights_sha256) == ["accurate", "robust", "weights"]
    with pytest.raises(InputError, match="field surrogate: expected a function in bench"):
        _load(write_mix(surrogate="bench.candidates.mixed_nuts:none"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COMMAND + "alpha=1.5", r"alpha: expected a number in \[0, 1\], got 1.5"),
        (COMMAND + "alpha=much", "alpha: expected a number, got 'much'"),
        (COMMAND + "beta=1", "expected mix:accurate=<candidate>.*got 'beta'"),
        (COMMAND + "robust_scale=1", "got no alpha"),
        ("mix:accurate=digits-standrd,robust=digits-robust,alpha=0", "did you mean digits-stand"),
        ("mix:accurate=digits-*,robust=digits-robust,alpha=0", "accurate: expected one candidate"),
    ],
)
def test_wrong_mixes_on_the_command_line_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_candidates([text], DIGITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"alpha": -0.1}}, r"architecture_args: alpha: expected a number in \[0, 1"),
        (
            {"bases": BASES | {"robust": "digits-robst"}},
            r"field bases\.robust: unknown candidate 'digits-robst': did you mean digits-robust",
        ),
        (
            {"bases": BASES | {"accurate": "cifar100-standard"}},
            r"field bases\.accurate: expected a candidate for digits.*for cifar100",
        ),
        ({"bases": BASES | {"accurate": "."}}, r"field bases\.accurate: unknown"),
        ({"bases": BASES | {"accurate": "./"}}, r"field bases\.accurate: './' is this mix itself"),
        ({"bases": BASES | {"accurate": "../x"}}, "expected a path inside the folder, got '../x'"),
        (
            {"bases": {"accurate": "digits-standard"}},
            r"field bases\.robust: expected a text, such as digits-robust; got nothing",
        ),
        (
            {
                "architecture": "bench.candidates.adaptive_mix:AdaptiveMix",
                "arguments": ADAPTIVE | {"robust_layers": ["stages.0", "stages.7"]},
            },
            "architecture_args: robust_layers: the base has no layer 'stages.7'; it has stages",
        ),
    ],
)
def test_wrong_mixes_in_files_are_named(
    changes: dict[str, object], message: str, write_mix: Write
) -> None:
    with pytest.raises(InputError, match=r"submission\.yaml: field ") as raised:
        _load(write_mix(**changes))
    assert raised.match(message)
    assert "\n" not in str(raised.value)


def test_mixes_of_each_other_are_refused(write_mix: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {
        "one": write_mix("one", bases=BASES | {"robust": "other"}),
        "other": write_mix("other", bases=BASES | {"accurate": "one"}),
    }
    shipped = registry.shipped_submissions()
    monkeypatch.setattr(registry, "shipped_submissions", lambda: shipped | folders)
    with pytest.raises(InputError, match=r"field bases\.accurate: 'one' is this mix itself, or"):
        _load("one")


def test_bases_that_do_not_go_together_are_refused(
    write_mix: Write, write_submission: Write
) -> None:
    changes = {"threat_models": [{"norm": "L2", "eps": 0.5}]}
    folder = write_submission("linear", **changes)
    with pytest.raises(InputError, match=r"expected bases for one norm, got linear for L2 and"):
        find_candidates([f"mix:accurate={folder},robust=digits-robust,alpha=0.5"], DIGITS)[0].load()
    few = write_submission("few", weights=None, sha256=None)
    (few / "model.py").write_text(
        "from torch import nn\ndef linear(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))"
    )
    with pytest.raises(InputError, match="accurate base with 7 and a robust base with 10"):
        find_candidates([f"mix:accurate={few},robust=digits-robust,alpha=0.5"], DIGITS)[0].load()


def test_a_mix_may_be_a_base() -> None:
    mix = adaptive_mix()
    images = torch.rand(3, 1, 8, 8)
    nested = Mix(mix, mix.at_alpha(1.0), 0.5)
    assert torch.isfinite(nested(images)).all()
