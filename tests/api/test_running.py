"""Models in, runs out: the same runs as of the command line, and the models unchanged."""

from __future__ import annotations

import inspect
import math
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import bench
from bench import data
from bench.api.running import option_words
from bench.cli.main import main
from bench.engines import search
from bench.errors import EvaluationError, InputError
from bench.runs.settings import Settings
from bench.store import RunFolder
from bench.store.records import Block
from bench.suites import load_suite

N = 12


def _accuracy(function: Callable[[Tensor], Tensor], n: int = N) -> float:
    digits = data.load("digits").first(n)
    with torch.no_grad():
        return float((function(digits.images).argmax(1) == digits.labels).float().mean())


def _evaluate(model: Any, suite: str, results: Path, **options: Any) -> bench.Evaluation:
    return bench.evaluate(
        model, suite, results_dir=results, progress=False, **{"n_examples": N, **options}
    )


def _command(folder: Path, suite: str, results: Path) -> list[str]:
    words = ["run", "--suite", suite, "--candidate", str(folder), "--results-dir", str(results)]
    return [*words, "--n-examples", str(N), "--report-dir", str(results.parent / "reports")]


def _outcomes(path: Path) -> pd.DataFrame:
    return RunFolder(path).attempts().drop(columns="seconds").sort_values(["attack", "index"])


def test_python_and_the_command_line_make_the_same_run(
    write_submission: Callable[..., Path], suite: str, results: Path
) -> None:
    folder = write_submission()
    ours = _evaluate(folder, suite, results)
    done = CliRunner().invoke(main, _command(folder, suite, results))
    assert done.exit_code == 0, done.output
    assert "was complete already" in done.output
    assert [each.name for each in (results / "quick" / "linear").glob("[!.]*")] == [ours.run]
    assert not ours.reused
    assert _evaluate(folder, suite, results).reused


def test_an_interrupted_call_is_finished_by_the_command_and_the_other_way_round(
    write_submission: Callable[..., Path],
    suite: str,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "SECONDS_A_BLOCK", 0.0)  # many blocks
    folder = write_submission()
    alone = _evaluate(folder, suite, results.with_name("alone"))
    append = RunFolder.append
    kept: list[str] = []

    def interrupted(self: RunFolder, block: Block) -> None:
        append(self, block)
        kept.append(block.key)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _evaluate(folder, suite, results)
    done = CliRunner().invoke(main, _command(folder, suite, results))
    assert "resuming: 2 blocks are finished" in done.output
    pd.testing.assert_frame_equal(
        _outcomes(results / "quick" / "linear" / alone.run), _outcomes(alone.path)
    )
    kept.clear()
    other = results.with_name("other")
    assert CliRunner().invoke(main, _command(folder, suite, other)).exit_code != 0
    ours = _evaluate(folder, suite, other)
    assert "resuming: 2 blocks are finished" in ours.notices
    pd.testing.assert_frame_equal(_outcomes(ours.path), _outcomes(alone.path))


def test_a_live_model_has_its_own_accuracy_and_stays_as_it_was(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    layer = linear_digits[1]
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), layer)
    model.train()
    model[0].eval()
    layer.bias.requires_grad_(False)
    handle = layer.register_forward_hook(lambda module, inputs, output: output)
    before = {name: id(each) for name, each in model.named_parameters()}
    found = _evaluate(model, suite, results)
    assert found.clean_accuracy == _accuracy(linear_digits)
    assert found.name == "Sequential"
    assert [each.training for each in model] == [False, True, True]
    assert {name: id(each) for name, each in model.named_parameters()} == before
    assert not layer.bias.requires_grad
    assert layer.weight.requires_grad
    assert list(layer._forward_hooks) == [handle.id]
    handle.remove()
    layer.bias.requires_grad_(True)


def test_a_model_that_fails_stays_as_it_was_and_the_error_says_where(
    suite: str, results: Path
) -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("no such layer")

    model = Failing().train()
    with pytest.raises((InputError, EvaluationError), match="no such layer"):
        _evaluate(model, suite, results)
    assert model.training


def test_weights_and_code_make_the_candidate(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    class Other(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            result: Tensor = super().forward(images) * 1.0
            return result

    first = _evaluate(linear_digits, suite, results, name="one")
    assert _evaluate(linear_digits, suite, results, name="one").reused
    second = _evaluate(Other(*linear_digits.children()), suite, results, name="one")
    assert not second.reused
    assert second.summary.manifest.weights_sha256 == first.summary.manifest.weights_sha256
    assert second.run != first.run
    with torch.no_grad():
        linear_digits[1].bias += 1e-3
    try:
        assert _evaluate(linear_digits, suite, results, name="one").run not in {
            first.run,
            second.run,
        }
    finally:
        with torch.no_grad():
            linear_digits[1].bias -= 1e-3


def test_what_cannot_be_digested_is_said_once_and_run_anew(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    model = nn.Sequential(linear_digits)
    model.source = (each for each in "abc")  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="not identified: source") as told:
        first = _evaluate(model, suite, results)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _evaluate(model, suite, results).path != first.path


def test_a_function_is_evaluated_with_the_module_that_it_refers_to(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    noisy = nn.Sequential(linear_digits, nn.Dropout(0.9)).train()
    found = _evaluate(lambda images: noisy(images) / 2, suite, results, name="function")
    assert found.clean_accuracy == _accuracy(linear_digits)
    assert noisy.training


def test_images_in_hand_make_a_suite_of_their_own(linear_digits: nn.Module, results: Path) -> None:
    digits = data.load("digits").first(N)
    large = bench.Linf(0.5)  # nothing stands, which is soon found
    given = {"results_dir": results, "progress": False}
    found = bench.evaluate(
        linear_digits, images=digits.images, labels=digits.labels, threat_model=large, **given
    )
    assert found.clean_accuracy == _accuracy(linear_digits)
    assert found.suite.startswith("images-")
    assert found.verify().is_confirmed
    grey = (digits.images * 255).round().to(torch.uint8).numpy()
    again = bench.evaluate(
        linear_digits, images=grey, labels=digits.labels.tolist(), threat_model=large, **given
    )
    assert again.n_examples == N
    loaded = bench.load(f"{found.suite}/{found.name}", results_dir=results)
    with pytest.raises(InputError, match="were given in Python"):
        loaded.verify()
    checked = loaded.verify(linear_digits, images=digits.images, labels=digits.labels)
    assert checked.is_confirmed
    bench.report(results_dir=results, out=results.with_name("pages"))


@pytest.mark.parametrize("function", [bench.evaluate, bench.certify])
def test_a_suite_that_is_named_beside_images_is_refused(
    function: Callable[..., bench.Evaluation], linear_digits: nn.Module, results: Path
) -> None:
    digits = data.load("digits").first(N)
    given = {"images": digits.images, "labels": digits.labels, "threat_model": bench.L2(0.1)}
    message = (
        "expected a suite, or images, labels and threat_model in its place; got suite 'digits-l2' "
        "and images, labels, threat_model: leave out the suite, or images and labels and "
        "threat_model"
    )
    for suite in ("digits-l2", load_suite("digits-l2")):
        with pytest.raises(InputError, match=re.escape(message)):
            function(linear_digits, suite, **given, results_dir=results)
    usual = inspect.signature(function).parameters["suite"].default
    with pytest.raises(InputError, match="got suite"):  # the default's name, but named
        function(linear_digits, str(usual), **given, results_dir=results)
    assert repr(usual) in (repr("cifar10-linf"), repr("cifar10-l2"))  # help() shows it
    assert not results.exists()


def test_a_part_of_what_stands_for_a_suite_is_refused(linear_digits: nn.Module) -> None:
    with pytest.raises(InputError, match=r"^images: expected images, labels and threat_model"):
        bench.evaluate(linear_digits, labels=[0])


def test_a_threat_model_beside_a_suite_is_answered_with_the_radius(
    linear_digits: nn.Module,
) -> None:
    with pytest.raises(InputError, match=r"got suite 'digits-linf' and threat_model: .* use eps$"):
        bench.evaluate(linear_digits, "digits-linf", threat_model=bench.Linf(0.1))


def test_the_callers_modes_of_torch_change_nothing(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    usual = _evaluate(linear_digits, suite, results)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu"):
            other = _evaluate(linear_digits, suite, results.with_name("other"))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.run == usual.run
    pd.testing.assert_frame_equal(_outcomes(other.path), _outcomes(usual.path))
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_evaluate_too(linear_digits: nn.Module, suite: str, results: Path) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(_evaluate(linear_digits, suite, results)))
    thread.start()
    thread.join()
    assert found[0].clean_accuracy == _accuracy(linear_digits)


@pytest.mark.parametrize(("budget", "text"), [(1800, "1800s"), (0.5, "0.5s"), ("30m", "30m")])
def test_a_budget_in_seconds_has_its_unit_on_the_command_line(
    budget: str | float, text: str
) -> None:
    settings = Settings(suite=load_suite("digits-linf"), budget=budget)
    assert option_words(settings) == ["--budget", text]
    assert replace(settings, budget=text).budget_seconds == settings.budget_seconds


def test_every_option_of_bench_run_is_an_argument() -> None:
    arguments = inspect.signature(bench.evaluate).parameters
    for each in fields(Settings):
        if "option" in each.metadata:
            assert arguments[each.name].default == each.default, each.name
            assert arguments[each.name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear, {}, "got the class Linear; call it"),
        ({"weight": 1}, {}, "got dict; load the weights into their network"),
        ("digits-robst", {}, "did you mean digits-robust"),
        (nn.Flatten(), {"n_examples": 0}, r"n_examples: expected a whole number >= 1, got 0"),
        (nn.Flatten(), {"sample": "last"}, "sample: expected one of first, random, got 'last'"),
        (nn.Flatten(), {"eps": 8}, "^eps: expected at most 1"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10).double(), nn.Linear(10, 10)),
            {},
            "candidate Sequential: .*its weights are .*float64.*, .*call its float",
        ),
        *(
            (
                nn.Flatten(),
                {"sample": "random", "budget": budget},
                "^budget: expected a time above 0",
            )
            for budget in (-5, 0, math.nan, math.inf, "0s", "-5m", "30", "")
        ),
        (nn.Flatten(), {"labels": [0]}, "^expected a suite, or images, labels and threat_model"),
        (nn.Flatten(), {"device": "tpu"}, "^device: expected auto, cpu or cuda, got 'tpu'"),
        (nn.Flatten(), {"device": "meta"}, "^device: expected auto, cpu or cuda, got 'meta'"),
        (nn.Flatten(), {"name": "a/b"}, "name: expected a text without / and @"),
        (nn.Flatten(), {"procedure": "fixed"}, "^procedure cannot be used with protocol standard"),
    ],
)
def test_wrong_input_is_one_clear_error(
    model: Any, options: dict[str, Any], message: str, results: Path
) -> None:
    with pytest.raises(InputError, match=message):
        bench.evaluate(model, "digits-linf", results_dir=results, progress=False, **options)


def test_two_models_of_one_name_are_told(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert type(linear_digits) is type(other)
    first = _evaluate(linear_digits, suite, results, n_examples=4)
    assert not first.notices
    assert not _evaluate(linear_digits, suite, results, n_examples=5).notices
    (changed,) = _evaluate(other, suite, results, n_examples=4).notices
    assert f"changed since run {first.run}; pages show the newest one" in changed
    (told,) = _evaluate(other, suite, results, n_examples=6).notices
    assert "another candidate called Sequential has runs here, with other weights" in told
    assert "in Python name=..." in told
    assert not _evaluate(other, suite, results, n_examples=4).notices
    assert not _evaluate(other, suite, results, n_examples=6, name="other").notices


def test_nothing_is_printed(
    linear_digits: nn.Module, suite: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.evaluate(linear_digits, suite, n_examples=N, results_dir=results)
    assert capfd.readouterr() == ("", "")


def test_a_live_base_is_certified_under_noise(linear_digits: nn.Module, results: Path) -> None:
    given: dict[str, Any] = {"n_examples": N, "results_dir": results, "progress": False}
    found = bench.certify(linear_digits, "digits-l2", sigma=0.1, noise_samples=200, **given)
    assert found.measure == "certified"
    assert found.clean_accuracy >= _accuracy(linear_digits) - 2 / N
    assert found.samples["radius"].max() > 0.1
    checked = found.verify()
    assert checked.is_confirmed
    assert not len(checked.index)  # nothing attacked it
    loaded = bench.load(f"digits-l2/{found.name}@{found.run}", results_dir=given["results_dir"])
    assert loaded.verify(linear_digits).is_confirmed
    other = bench.certify(linear_digits, "digits-l2", sigma=0.2, noise_samples=200, **given)
    assert other.run != found.run
    with pytest.raises(InputError, match="sigma: expected the standard deviation"):
        bench.certify(linear_digits, "digits-l2", **given)


def test_live_models_are_swept_and_mixed(
    linear_digits: nn.Module, suite: str, results: Path
) -> None:
    model = nn.Sequential(linear_digits).train()
    found = bench.sweep(
        model,
        lambda images: linear_digits(images) / 2,
        suite,
        alphas=[0, 1],
        n_examples=N,
        steps=2,
        results_dir=results,
        progress=False,
    )
    assert found.measure == "attacked"
    points = found.summary.sweep  # type: ignore[attr-defined]
    assert [point.clean_accuracy for point in points] == [_accuracy(linear_digits)] * 2
    assert model.training
