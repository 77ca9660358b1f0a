"""New flags: one function each, through public interfaces only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.flags import Answers, Finished, Flag, register_inspection, register_review, registry
from tests.extensions.runs import call, page, run, write_suite

LEAST_CONFIDENCE = 0.9
LEAST_SAMPLES = 100

SOFT = """
class Soft(nn.Sequential):
    def forward(self, images):
        return 0.01 * super().forward(images)
"""


def unsure(answers: Answers) -> Flag | None:
    """Flag a candidate that is unsure of every image, so that small steps change its answer."""
    confidence = float(answers.logits.softmax(dim=1).amax(dim=1).max())
    if confidence >= LEAST_CONFIDENCE:
        return None
    return Flag(
        name="unsure-of-all",
        measured=confidence,
        threshold=LEAST_CONFIDENCE,
        meaning="The largest softmax of a batch is below this.",
        advice="Train longer, or lower the temperature.",
    )


def few_samples(finished: Finished) -> Flag | None:
    """Flag a run on so few samples that its interval says next to nothing."""
    if finished.summary.n_examples >= LEAST_SAMPLES:
        return None
    return Flag(
        name="few-samples",
        measured=len(finished.tables.samples),
        threshold=LEAST_SAMPLES,
        meaning="The accuracies rest on few samples.",
        advice="Run more of them.",
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only for these tests: a program that registers flags keeps them.
    monkeypatch.setattr(registry, "_inspections", [*registry._inspections])
    monkeypatch.setattr(registry, "_reviews", [*registry._reviews])
    register_inspection(unsure)
    register_review(few_samples)


def test_flags_from_outside_are_shown(
    tmp_path: Path, write_submission: Callable[..., Path]
) -> None:
    folder = write_submission("soft")
    code = (folder / "model.py").read_text().replace("return nn.Sequential(", "return Soft(")
    (folder / "model.py").write_text(f"{code}\n{SOFT}")
    suite = write_suite(tmp_path, "flagged", "standard: {attacks: [apgd-ce]}")
    result = run(tmp_path, suite, folder)
    assert result.exit_code == 0, result.output
    shown = call(tmp_path, "show", "flagged/soft")
    for name in ("unsure-of-all", "few-samples"):
        assert f"flag {name}: measured" in shown.output
        assert name in page(tmp_path, "flagged")
