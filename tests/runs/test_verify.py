"""Witnesses: confirmed without an attack, refused where they prove nothing, added from others."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.cli import main
from bench.engines.prediction import MOST_CONFIRMATION_DRAWS, keyed_randomness
from bench.errors import EvaluationError, InputError
from bench.runs.fingerprint import PROBES
from bench.runs.imported_witnesses import import_witnesses, read_images
from bench.runs.manifest import selected_rows
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.runs.verify import verify
from bench.store import Store
from bench.store.best_known import best_known, newest_evaluation
from bench.store.tables import Tables
from bench.suites import load_suite
from tests.silent import SilentObserver

N, EPS = 24, 0.05
CPU = torch.device("cpu")


@pytest.fixture
def candidate(linear_digits: nn.Module) -> Candidate:
    """The linear classifier, with a digest of its own."""
    return Candidate("linear", linear_digits, {"weights": "1" * 64}, "2" * 64)


def _settings(**changes: object) -> Settings:
    suite = load_suite("digits-linf")
    suite = suite.model_copy(
        update={
            "threat_model": suite.threat_model.model_copy(update={"eps": EPS}),
            "protocols": {
                "standard": suite.protocol("standard").model_copy(
                    update={"attacks": suite.protocol("standard").attacks[:1]}
                )
            },
        }
    )
    fields = {"suite": suite, "engine": "fast", "n_examples": N, "batch_size": 64}
    return Settings(**(fields | changes))


def _run(candidate: Candidate, root: Path, **changes: object) -> RunResult:
    settings = _settings(**changes)
    samples = data.load("digits")
    rows = selected_rows(settings, samples.size)
    return evaluate(candidate, samples.take(rows), settings, Store(root), SilentObserver())


def test_an_honest_run_is_confirmed(candidate: Candidate, tmp_path: Path) -> None:
    outcome = _run(candidate, tmp_path)
    result = verify(outcome.folder, candidate, data.load("digits").first(N), CPU)
    assert result.is_confirmed, result.failures
    assert result.confirmed == pytest.approx(outcome.summary.robust_accuracy)
    assert 0 < result.confirmed < outcome.summary.clean_accuracy
    assert result.eight_bit == pytest.approx(outcome.summary.eight_bit_robust_accuracy)
    assert result.eight_bit >= result.confirmed
    assert result.passes < result.run_passes / 10


class _Fails(nn.Module):
    """Raises an error on images near the first digit, at distances from `least` to `most`.

    Attributes:
        passes_left: after so many passes it raises an error on every image.
    """

    def __init__(self, network: nn.Module, least: float = 2.0, most: float = 2.0) -> None:
        super().__init__()
        self.network, self.least, self.most = network, least, most
        self.odd = data.load("digits").images[:1]
        self.passes_left = 10**9

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K)."""
        self.passes_left -= 1
        distance = (images - self.odd).abs().flatten(1).amax(1)
        if self.passes_left < 0 or ((distance >= self.least) & (distance <= self.most)).any():
            raise ValueError("this digit is too odd")
        logits: torch.Tensor = self.network(images)
        return logits


@pytest.mark.parametrize(
    ("least", "most", "unconfirmed"), [(0, 0, 0), (1e-6, 2 * EPS, 1)], ids=["clean", "attacked"]
)
def test_a_run_with_a_failed_sample_is_confirmed_up_to_that(
    candidate: Candidate, tmp_path: Path, least: float, most: float, unconfirmed: int
) -> None:
    failing = replace(candidate, module=_Fails(candidate.module, least, most))
    outcome = _run(failing, tmp_path, n_examples=4, eps_curve=True)
    assert "failed-samples" in [flag.name for flag in outcome.summary.flags]
    result = verify(outcome.folder, failing, data.load("digits").first(4), CPU)
    assert result.is_confirmed, result.failures
    assert result.unconfirmed == unconfirmed
    assert result.confirmed == pytest.approx(outcome.summary.robust_accuracy + unconfirmed / 4)


def test_a_candidate_that_fails_on_everything_confirms_nothing(
    candidate: Candidate, tmp_path: Path
) -> None:
    failing = _Fails(candidate.module)
    candidate = replace(candidate, module=failing)
    outcome = _run(candidate, tmp_path)
    failing.passes_left = 2 * PROBES  # for its fingerprint
    with pytest.raises(ValueError, match="this digit is too odd"):
        verify(outcome.folder, candidate, data.load("digits").first(N), CPU)


def _rewrite(outcome: RunResult, change: Callable[[Tables, np.ndarray], None]) -> None:
    """Write the run again with changed witnesses, as a forger would."""
    samples = data.load("digits").first(N)
    images = samples.images.numpy()
    tables = outcome.folder.tables(images, samples.indices.tolist())
    assert tables.witnesses is not None
    clean = images[tables.witnesses.index]
    change(tables, clean)
    outcome.folder.finish(tables, outcome.summary, clean)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda witness, clean: np.copyto(witness, clean), "the candidate is right on it"),
        (lambda witness, clean: np.copyto(witness, 1 - clean), "got distance"),
        (lambda witness, clean: np.copyto(witness, np.nan), "expected an image in [0, 1]"),
    ],
)
def test_what_a_witness_does_not_prove_is_named(
    candidate: Candidate, tmp_path: Path, change: Callable[..., None], expected: str
) -> None:
    outcome = _run(candidate, tmp_path)

    def forge(tables: Tables, clean: np.ndarray) -> None:
        assert tables.witnesses is not None
        change(tables.witnesses.images[0], clean[0])

    _rewrite(outcome, forge)
    result = verify(outcome.folder, candidate, data.load("digits").first(N), CPU)
    assert len(result.failures) == 1
    assert expected in result.failures[0]
    assert result.confirmed == pytest.approx(result.claimed + 1 / N)


def test_missing_witnesses_and_a_better_sounding_summary_are_named(
    candidate: Candidate, tmp_path: Path
) -> None:
    outcome = _run(candidate, tmp_path)
    (outcome.folder.path / "witnesses.npz").unlink()
    path = outcome.folder.path / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"robust_accuracy": 0.01}))
    result = verify(outcome.folder, candidate, data.load("digits").first(N), CPU)
    assert "run.json says robust accuracy 1.00%" in result.failures[0]
    assert "without a witness" in result.failures[1]


def test_another_candidate_and_other_data_are_refused(candidate: Candidate, tmp_path: Path) -> None:
    outcome = _run(candidate, tmp_path)
    samples = data.load("digits").first(N)
    other = replace(candidate, weights_sha256={"weights": "9" * 64})
    with pytest.raises(InputError, match="expected weights with SHA-256 weights 1111"):
        verify(outcome.folder, other, samples, CPU)
    with pytest.raises(InputError, match="witnesses of another data set"):
        verify(outcome.folder, candidate, replace(samples, indices=samples.indices + 900), CPU)
    wide = replace(samples, images=samples.images.repeat(1, 3, 1, 1))
    with pytest.raises(InputError, match=r"expected witnesses of shape \(3, 8, 8\)"):
        verify(outcome.folder, candidate, wide, CPU)


def _attacked(candidate: Candidate, n: int) -> torch.Tensor:
    """The first n images, each one step along the gradient of the cross-entropy."""
    samples = data.load("digits").first(n)
    images = samples.images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(candidate.module(images), samples.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return (samples.images + EPS * gradient.sign()).clamp(0, 1)


def test_imported_images_lower_the_best_known_accuracy(
    candidate: Candidate, tmp_path: Path
) -> None:
    weak = _settings().suite.protocol("standard").attacks[0]
    weak = weak.model_copy(update={"name": "square", "parameters": {"queries": 2}})
    settings = _settings()
    suite = settings.suite.model_copy(
        update={
            "protocols": {
                "standard": settings.suite.protocols["standard"].model_copy(
                    update={"attacks": (weak,)}
                )
            }
        }
    )
    own = _run(candidate, tmp_path, suite=suite).summary
    store = Store(tmp_path)
    assert best_known(store, own).lowered == 0

    path = tmp_path / "found.npz"
    images = _attacked(candidate, 12)
    order = np.array([7, 3, *range(3), *range(4, 7), *range(8, 12)])
    np.savez(path, images=images.numpy()[order], index=order)
    samples = data.load("digits")
    outcome = import_witnesses(
        read_images(path), "one step", candidate, samples, _settings(), store
    )
    summary = outcome.summary
    assert summary.manifest.kind == "imported-witnesses"
    assert summary.manifest.selection.kind == "listed"
    assert summary.attacks[0].broken > 0
    joined = best_known(store, own)
    alone = store.folder(own.manifest).samples().set_index("index")["robust"]
    theirs = outcome.folder.samples().set_index("index")["robust"]
    both = [bool(alone[i]) and bool(theirs.get(i, True)) for i in range(N)]
    assert joined.robust_accuracy == pytest.approx(sum(both) / N)
    assert joined.lowered > 0
    assert joined.runs == (summary.run,)
    assert verify(outcome.folder, candidate, samples.first(12), CPU).is_confirmed
    again = import_witnesses(read_images(path), "one step", candidate, samples, _settings(), store)
    assert again.reused
    assert store.summary("digits-linf/linear").run == own.run
    assert store.summary(f"digits-linf/linear@{summary.run}").run == summary.run
    # Newer runs of the same name, of other weights and at another radius.
    _run(replace(candidate, weights_sha256={"weights": "9" * 64}), tmp_path, suite=suite)
    _run(candidate, tmp_path, suite=suite, eps=EPS / 2)
    newest = newest_evaluation(store, summary)
    assert newest is not None
    assert newest.run == own.run


@pytest.mark.parametrize(
    ("least", "most", "attack"), [(0, 1e-6, "clean"), (1e-6, 2 * EPS, "imported")]
)
def test_imported_images_on_which_the_candidate_fails_are_recorded(
    candidate: Candidate, tmp_path: Path, least: float, most: float, attack: str
) -> None:
    path = tmp_path / "found.npz"
    np.savez(path, images=_attacked(candidate, 6).numpy())
    failing = replace(candidate, module=_Fails(candidate.module, least, most))
    outcome = import_witnesses(
        read_images(path), "x", failing, data.load("digits"), _settings(), Store(tmp_path)
    )
    assert "failed-samples" in [flag.name for flag in outcome.summary.flags]
    attempts = outcome.folder.attempts()
    failed = attempts[attempts["outcome"] == "failed"]
    assert failed[["index", "attack"]].to_numpy().tolist() == [[0, attack]]
    samples = outcome.folder.samples().set_index("index")
    assert not samples["robust"][0]
    assert samples["broken_by"].isna()[0]
    assert samples["broken_by"].notna().any()


def test_a_candidate_that_fails_on_all_imported_images_leaves_nothing_behind(
    candidate: Candidate, tmp_path: Path
) -> None:
    path = tmp_path / "found.npz"
    np.savez(path, images=_attacked(candidate, 12).numpy())
    failing = replace(candidate, module=_Fails(candidate.module, 0, 1))
    with pytest.raises(EvaluationError, match="this digit is too odd"):
        import_witnesses(
            read_images(path), "x", failing, data.load("digits"), _settings(), Store(tmp_path)
        )
    assert Store(tmp_path).runs() == []


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.npz", {"images": np.zeros((2, 3, 8, 8), np.float32)}, r"shape \(1, 8, 8\)"),
        ("a.npz", {"images": np.ones((2, 1, 8, 8), np.float32)}, "the first is sample 0"),
        ("a.npz", {"images": np.zeros((400, 1, 8, 8), np.float32)}, r"places in \[0, 359\]"),
        (
            "a.npz",
            {"images": np.zeros((2, 1, 8, 8), np.float32), "index": np.array([1, 1])},
            "each sample once",
        ),
        ("a.npz", {"images": np.zeros((2, 8, 8), np.float32)}, r"shape \(n, C, H, W\), got images"),
        (
            "a.npz",
            {"images": np.array([_Runs()], dtype=object)},
            "refused, it holds Python objects",
        ),
        ("a.pt", _Runs(), "runs code when it is loaded"),
        ("a.pt", "text", "got no arrays"),
        ("a.jpg", b"", "expected images, got an empty file"),
    ],
)
def test_wrong_files_are_named_and_nothing_is_kept(
    candidate: Candidate, tmp_path: Path, name: str, content: object, expected: str
) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        assert isinstance(content, dict)
        np.savez(path, **content)
    elif name.endswith(".pt"):
        torch.save(content, path)
    else:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=expected):
        import_witnesses(
            read_images(path), "x", candidate, data.load("digits"), _settings(), Store(tmp_path)
        )
    assert Store(tmp_path).runs() == []


def test_commands(
    write_submission: Callable[..., Path], linear_digits: nn.Module, tmp_path: Path
) -> None:
    suite = tmp_path / "quick.yaml"
    suite.write_text(
        yaml.safe_dump(
            {
                "name": "quick",
                "version": 1,
                "title": "Quick",
                "data": "digits",
                "n_examples": N,
                "threat_model": {"norm": "Linf", "eps": EPS},
                "protocols": {"standard": {"attacks": ["apgd-ce"]}},
            }
        )
    )
    folder = write_submission()
    results = ["--results-dir", f"{tmp_path}/results"]
    named = ["--suite", str(suite), "--candidate", str(folder), *results]

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    assert call("run", *named, "--report-dir", f"{tmp_path}/reports").exit_code == 0
    confirmed = call("verify", "quick/linear", *named)
    assert confirmed.exit_code == 0, confirmed.output
    assert "confirmed: robust accuracy is at most" in confirmed.output
    files = call("images", "quick/linear", *named, "--out", f"{tmp_path}/images", "--limit", "2")
    assert files.exit_code == 0, files.output
    assert "still fool the candidate as 8-bit files" in files.output
    with (tmp_path / "images/index.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    for row in rows:
        clean, adversarial, _ = (
            np.asarray(Image.open(tmp_path / f"images/{int(row['index']):06}-{what}.png"))
            for what in ("clean", "adversarial", "difference")
        )
        # The clean image is off the grid, so that its file is up to half a level away.
        assert np.abs(adversarial / 255 - clean / 255).max() <= EPS + 0.5 / 255
        image = torch.from_numpy(adversarial / 255).float().reshape(1, 1, 8, 8)
        assert int(linear_digits(image).argmax()) == int(row["eight_bit_prediction"])
        assert (row["still_fools"] == "yes") == (row["eight_bit_prediction"] != row["label"])
    assert len(rows) == 2
    assert call("verify", "quick/linear", *results).exit_code == 2
    unnamed = call("verify", "quick/linear", *named[:2], *results)
    assert unnamed.exit_code == 2
    assert "made from a folder" in unnamed.output
    assert "--candidate FOLDER" in unnamed.output
    (record,) = tmp_path.glob("results/quick/linear/*/run.json")
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"robust_accuracy": 0.0}))
    refused = call("verify", "quick/linear", *named)
    assert refused.exit_code == 1
    assert "NOT confirmed" in refused.output

    record.write_text(json.dumps(content))
    images = data.load("digits").first(N).images
    torch.save(images, tmp_path / "found.pt")
    added = call("import-witnesses", f"{tmp_path}/found.pt", *named, "--source", "nobody")
    assert added.exit_code == 0, added.output
    assert f"0 of {N} images break their samples" in added.output
    assert "8-bit" in call("show", "quick/linear", *results).output


def test_only_attacks_have_witnesses_to_verify(linear_digits: nn.Module, tmp_path: Path) -> None:
    candidate = Candidate("linear", linear_digits, {"weights": "1" * 64}, "2" * 64)
    outcome = _run(candidate, tmp_path)
    manifest = outcome.folder.manifest().model_copy(update={"kind": "sweep"})
    summary = outcome.summary.model_copy(update={"manifest": manifest})
    outcome.folder.write_summary(summary)
    with pytest.raises(InputError, match="expected a run that attacked, got a sweep"):
        verify(outcome.folder, candidate, data.load("digits").first(N), CPU)


class _Noisy(nn.Module):
    """A linear classifier that sees its images under fresh noise each time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K)."""
        logits: torch.Tensor = self.network(images + 0.1 * torch.randn_like(images))
        return logits


def test_witnesses_of_a_randomized_candidate_fool_any_draws(
    linear_digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = Candidate(
        "noisy", _Noisy(linear_digits), {"weights": "1" * 64}, "2" * 64, randomized=True
    )
    outcome = _run(noisy, tmp_path)
    broken = N - round(N * outcome.summary.robust_accuracy)
    assert broken
    for offset in range(8):
        monkeypatch.setattr(
            "bench.runs.witness_judge.keyed_randomness",
            lambda device, *keys, offset=offset: keyed_randomness(device, *keys, offset),
        )
        result = verify(outcome.folder, noisy, data.load("digits").first(N), CPU)
        assert result.passes <= MOST_CONFIRMATION_DRAWS * N
        assert not result.failures


def _save(path: Path, content: object) -> None:
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        torch.save(content, path)


ARCHIVES: dict[str, tuple[str, Callable[[torch.Tensor, torch.Tensor], object]]] = {
    "AutoAttack": ("aa_standard_32.pth", lambda x, y: {"adv_complete": x}),
    "torchattacks": ("adv.pt", lambda x, y: {"adv_inputs": x, "labels": y, "preds": y}),
    "clean ones beside": ("adv.pt", lambda x, y: {"adv_inputs": x, "images": 0 * x, "labels": y}),
    "tuple": ("adv.pt", lambda x, y: (x, y)),
    "list without an ending": ("adv", lambda x, y: [x, y]),
    "foolbox": ("adv.npy", lambda x, y: x.numpy()),
    "float64": ("adv.npz", lambda x, y: {"x_adv": x.double().numpy(), "names": np.array(["a"])}),
    "big-endian": ("adv.npy", lambda x, y: x.numpy().astype(">f4")),
    "channels last": ("adv.npy", lambda x, y: x.permute(0, 2, 3, 1).numpy()),
    "a graph's": ("adv.pt", lambda x, y: {"adv": x.clone().requires_grad_()}),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_other_tools_are_read(name: str, candidate: Candidate, tmp_path: Path) -> None:
    file, make = ARCHIVES[name]
    attacked = _attacked(candidate, 6)
    _save(tmp_path / file, make(attacked, data.load("digits").take(6).labels))
    digits = data.load("digits")
    imported = read_images(tmp_path / file)
    store = Store(tmp_path / "results")
    outcome = import_witnesses(imported, "x", candidate, digits, _settings(), store)
    with torch.no_grad():
        right = candidate.module(digits.images[:6]).argmax(1) == digits.labels[:6]
        fooled = candidate.module(attacked).argmax(1) != digits.labels[:6]
    assert outcome.summary.attacks[0].broken == int((right & fooled).sum()) > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pixels_of_8_bits_are_divided(dtype: torch.dtype, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (3, 1, 8, 8))
    torch.save(pixels.to(dtype), tmp_path / "a.pt")
    assert torch.equal(read_images(tmp_path / "a.pt").images, pixels.float() / 255)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)), "which are the adversarial ones"),
        ({"x_adv": torch.zeros(2, 1, 8, 8), "adv": torch.ones(2, 1, 8, 8)}, "which are the adv"),
        (torch.ones(2, 1, 8, 8, dtype=torch.uint8), "integers from 0 to 255.*from 1 to 1"),
        (torch.full((2, 1, 8, 8), 300), "integers from 0 to 255.*from 300 to 300"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.complex64), "numbers as pixels, got torch.complex64"),
        (torch.zeros(2, 1, 8, 8).to_sparse(), "expected dense tensors"),
        (torch.full((2, 1, 8, 8), 200.0), "Are the pixels from 0 to 255"),
        (torch.full((2, 1, 8, 8), torch.nan), "2 of 2 that are not"),
        (
            {"adv_inputs": torch.ones(2, 1, 8, 8), "labels": torch.tensor([7, 7])},
            "images are in another order",
        ),
    ],
)
def test_archives_that_cannot_be_right_are_named(
    content: object, message: str, candidate: Candidate, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=f"a.pt: .*{message}"):
        import_witnesses(
            read_images(tmp_path / "a.pt"),
            "x",
            candidate,
            data.load("digits"),
            _settings(),
            Store(tmp_path / "results"),
        )
