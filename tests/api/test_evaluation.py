"""What an evaluation says of its run, and what can be done with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import bench
from bench import data
from bench.api.origin import Origin
from bench.errors import InputError

mpl.use("agg")
N = 40


class Shifted(nn.Sequential):
    """The layers of the linear digits with the logits moved, so that some samples change sides."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 10)."""
        moved: Tensor = super().forward(images) + torch.linspace(-3, 3, 10)
        return moved


@pytest.fixture
def found(linear_digits: nn.Module, suite: str, results: Path) -> bench.Evaluation:
    return bench.evaluate(
        linear_digits, suite, n_examples=N, eps=0.02, results_dir=results, progress=False
    )


def test_its_numbers_are_those_of_the_records(found: bench.Evaluation) -> None:
    samples = found.samples
    assert found.robust_accuracy == samples["robust"].mean()
    assert found.interval.low <= found.robust_accuracy <= found.interval.high
    assert list(found.attacks.index) == ["apgd-ce", "square"]
    assert found.attacks["accuracy_after"].iloc[-1] == found.robust_accuracy
    assert f"n = {N}" in repr(found)


def test_it_prints_a_line_that_says_variant(found: bench.Evaluation) -> None:
    assert f"n = {N} (variant)" in repr(found)
    ranked = found.summary.manifest.model_copy(update={"overrides": {}})
    whole = replace(found, summary=found.summary.model_copy(update={"manifest": ranked}))
    assert "(variant)" not in repr(whole)
    assert repr(found.origin) == (
        f"Origin(suite='quick', candidate='{found.name}', dataset='digits, {N} samples')"
    )
    assert repr(Origin()) == "Origin()"


def test_its_adversarial_images_fool_the_model_inside_the_ball(
    found: bench.Evaluation, linear_digits: nn.Module
) -> None:
    images, indices = found.adversarial_images()
    digits = data.load("digits")
    assert len(images) > 0
    assert (images - digits.images[indices]).abs().max() <= 0.02 + 1e-6
    assert (linear_digits(images).argmax(1) != digits.labels[indices]).all()
    assert found.verify().is_confirmed


def test_a_sample_has_its_images_and_what_is_known_of_them(found: bench.Evaluation) -> None:
    table = found.samples.set_index("index")
    images, places = found.adversarial_images()
    broken, standing = int(places[0]), int(table.index[table["robust"]][0])
    sample = found.sample(broken)
    assert sample.adversarial is not None
    assert torch.equal(sample.adversarial, images[0])
    assert sample.distance == pytest.approx((sample.clean - images[0]).abs().max().item())
    assert sample.facts["adversarial_prediction"] != sample.label == table["label"][broken]
    assert sample.attempts["outcome"].iloc[-1] == "broken"
    assert f"broken by {table['broken_by'][broken]}: class" in repr(sample)
    assert found.sample(standing).adversarial is None
    assert "no attack broke it" in repr(found.sample(standing))
    with pytest.raises(InputError, match=f"one of the run's {N} samples"):
        found.sample(N)


def test_a_changed_model_is_not_verified(found: bench.Evaluation, linear_digits: nn.Module) -> None:
    with pytest.raises(InputError, match="expected weights with SHA-256"):
        found.verify(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(InputError, match="as it was defined then"):
        found.verify(Shifted(*linear_digits.children()))


def test_two_runs_are_compared_on_the_samples_of_both(
    found: bench.Evaluation, linear_digits: nn.Module, suite: str, results: Path
) -> None:
    other = bench.evaluate(
        Shifted(*linear_digits.children()),
        suite,
        n_examples=30,
        eps=0.02,
        results_dir=results,
        progress=False,
    )
    compared = found.compare(other)
    first, second = found.samples["robust"][:30], other.samples["robust"]
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    assert lost + gained > 0
    assert (compared.n_examples, compared.only_first, compared.only_second) == (30, lost, gained)
    assert compared.p_value == pytest.approx(binomtest(lost, lost + gained).pvalue)
    assert len(compared.differing) == lost + gained
    wider = bench.evaluate(
        linear_digits, suite, n_examples=N, eps=0.03, results_dir=results, progress=False
    )
    with pytest.raises(InputError, match="under one threat model"):
        found.compare(wider)


def test_an_express_evaluation_says_so(linear_digits: nn.Module, results: Path) -> None:
    given: dict[str, Any] = {"n_examples": 8, "results_dir": results, "progress": False}
    short = bench.evaluate(linear_digits, "digits-linf", protocol="express", **given)
    assert f"%, express {100 * short.robust_accuracy:.2f}% [" in repr(short)


def test_it_is_saved_whole_and_loaded_without_the_store(
    found: bench.Evaluation, linear_digits: nn.Module, tmp_path: Path
) -> None:
    path = found.save(tmp_path / "saved" / "run.bench")
    loaded = bench.load(path)
    assert loaded.summary == found.summary
    assert torch.equal(loaded.adversarial_images()[0], found.adversarial_images()[0])
    assert loaded.verify(linear_digits).is_confirmed
    assert loaded.figures().keys() == found.figures().keys()
    content = path.read_bytes()
    for damaged in (content[:-200], b"no archive", content.replace(b"PAR1", b"PAR2")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            bench.Evaluation.load(path)


def test_a_saved_certification_is_verified_without_the_store(
    linear_digits: nn.Module, results: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"n_examples": 4, "noise_samples": 200, "results_dir": results}
    found = bench.certify(linear_digits, "digits-l2", sigma=0.1, progress=False, **given)
    loaded = bench.load(found.save(tmp_path / "run.bench"))
    assert loaded.path.parents[2] == Path(loaded.held.held.name)
    assert loaded.verify(linear_digits).is_confirmed


def test_the_store_is_a_table_and_its_runs_can_be_loaded(
    found: bench.Evaluation, results: Path
) -> None:
    table = bench.results(results_dir=results)
    assert table["run"].tolist() == [found.run]
    assert table["robust_accuracy"].tolist() == [found.robust_accuracy]
    assert bench.load("quick/Sequential", results_dir=results).summary == found.summary
    assert bench.results(results_dir=results / "none").empty
    with pytest.raises(InputError, match="no complete run"):
        bench.load("quick/other", results_dir=results)


def test_its_card_is_escaped(linear_digits: nn.Module, suite: str, results: Path) -> None:
    found = bench.evaluate(
        linear_digits,
        suite,
        name="<script>alert(1)<|script>",
        n_examples=4,
        results_dir=results,
        progress=False,
    )
    html = found._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "apgd-ce" in html


def test_the_figures_of_its_page_are_matplotlibs(found: bench.Evaluation, tmp_path: Path) -> None:
    figures = found.figures()
    assert {"waterfall", "passes", "confusion", "reliability"} <= set(figures)
    assert figures["waterfall"].axes[0].get_xlabel().startswith("Samples (%)")
    figures["passes"].savefig(tmp_path / "passes.pdf")
    bench.report(results_dir=found.path.parents[2], out=tmp_path / "site", figures=tmp_path / "all")
    assert len(list((tmp_path / "all").rglob("waterfall.svg"))) == 1


def test_it_is_drawn(found: bench.Evaluation) -> None:
    heights = [bar.get_height() for bar in found.plot().patches]
    assert heights[0] == pytest.approx(100 * found.clean_accuracy)
    assert heights[-1] == pytest.approx(100 * found.robust_accuracy)
