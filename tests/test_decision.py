"""What is not finite is no class: in the rule itself, and wherever a decision rests on it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.attacks.expectation import expectation
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.candidates.mixed_nuts import MixedNuts
from bench.candidates.smoothed import Smoothed
from bench.certification.batched import Certificate, certify_many
from bench.certification.noise import Noise
from bench.certification.procedure import FixedProcedure
from bench.certification.smoothing import Smoothing
from bench.decision import NO_CLASS, classes_of
from bench.engines.certification import CertificationEngine
from bench.engines.engine import AttackTask, CertificationTask, Task, Trials
from bench.engines.prediction import confirm, decide
from bench.engines.sweep import SweepEngine
from bench.engines.trials import try_images
from bench.flags.substitute import train_substitute
from bench.robustbench import AutoAttack
from bench.runs.imported_witnesses import ImportedImages, import_witnesses
from bench.runs.mix_records import signed_margins
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.runs.sweep import Sweep
from bench.runs.verify import verify
from bench.store import Store
from bench.store.records import ABSTAINED, DRAWS_WITHOUT_CLASS
from bench.suites import ThreatModel, load_suite
from bench.suites.suite import AttackChoice
from bench.training.mix_answers import right_weights
from bench.training.network import clean_accuracy
from bench.training.recipes.adversarial import pgd_accuracy
from tests.silent import SilentObserver
from tests.unanswering import CLASSES, CORNER, EPS, LIMIT, Unanswering, dataset

CPU = torch.device("cpu")
NOTHING = [math.nan, math.inf, -math.inf]
ATTACKS = (AttackChoice(name="apgd-ce", parameters={"steps": 5}), AttackChoice(name="square"))


@given(
    rows=st.integers(1, 5).flatmap(
        lambda classes: st.lists(
            st.lists(
                st.floats(width=16) | st.sampled_from([0.0, -0.0, 65504.0, 1.0, *NOTHING]),
                min_size=classes,
                max_size=classes,
            ),
            min_size=1,
            max_size=4,
        )
    ),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    exponent=st.sampled_from([0, 30, 100]),
)
def test_a_row_decides_for_its_first_highest_logit_or_for_none(
    rows: list[list[float]], dtype: torch.dtype, exponent: int
) -> None:
    logits = (torch.tensor(rows, dtype=torch.float64) * 2.0**exponent).to(dtype)
    expected = [
        row.index(max(row)) if all(map(math.isfinite, row)) else NO_CLASS for row in logits.tolist()
    ]
    assert classes_of(logits).tolist() == expected


def _settings(engine: str, attacks: tuple[AttackChoice, ...] = ATTACKS) -> Settings:
    suite = load_suite("digits-linf")
    standard = suite.protocol("standard").model_copy(update={"attacks": attacks})
    threat = suite.threat_model.model_copy(update={"eps": EPS})
    changes = {"threat_model": threat, "protocols": {"standard": standard}}
    return Settings(suite.model_copy(update=changes), engine=engine)


def _candidate(module: nn.Module) -> Candidate:
    return Candidate("it", module.eval(), {"weights": "1" * 64}, "2" * 64)


def _flags(outcome: RunResult) -> list[str]:
    return [
        str(flag.measured) for flag in outcome.summary.flags if flag.name == "non-finite-logits"
    ]


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("nothing", NOTHING)
def test_under_attack_it_breaks_samples_of_every_label(
    engine: str, nothing: float, tmp_path: Path
) -> None:
    candidate, samples = _candidate(Unanswering(nothing, column=3)), dataset()
    attacks = ATTACKS if engine == "fast" else (AttackChoice(name="square"),)
    settings = _settings(engine, attacks)
    outcome = evaluate(candidate, samples, settings, Store(tmp_path), SilentObserver())
    assert outcome.summary.clean_accuracy == 1
    assert outcome.summary.robust_accuracy == 0
    table = outcome.folder.samples()
    assert table["adversarial_prediction"].tolist() == 20 * [NO_CLASS]
    assert _flags(outcome) == ["0 of 20 clean images, 20 of 20 adversarial images"]
    found = verify(outcome.folder, candidate, samples, CPU)
    assert found.is_confirmed, found.failures
    assert (found.confirmed, found.eight_bit) == (0, 0)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_on_clean_images_it_is_wrong_for_every_label(engine: str, tmp_path: Path) -> None:
    candidate, samples = _candidate(Unanswering(math.nan)), dataset(copies=3, unanswered=1)
    attacks = (AttackChoice(name="apgd-ce", parameters={"steps": 2} if engine == "fast" else {}),)
    settings = _settings(engine, attacks)
    outcome = evaluate(candidate, samples, settings, Store(tmp_path), SilentObserver())
    table = outcome.folder.samples()
    assert table["clean_prediction"].tolist() == [
        NO_CLASS if place % 3 == 0 else place // 3 for place in range(30)
    ]
    assert outcome.summary.clean_accuracy == pytest.approx(2 / 3)
    (measured,) = _flags(outcome)
    assert measured.startswith("10 of 30 clean images")
    assert verify(outcome.folder, candidate, samples, CPU).is_confirmed


def test_a_finite_candidate_has_no_such_flag(linear_digits: nn.Module, tmp_path: Path) -> None:
    settings = _settings("fast", ATTACKS[:1])
    samples = replace(dataset(), images=torch.rand(20, 1, 8, 8))
    outcome = evaluate(
        _candidate(linear_digits), samples, settings, Store(tmp_path), SilentObserver()
    )
    assert _flags(outcome) == []


def _bright(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, 0, 0, 0] = CORNER + EPS
    assert CORNER + EPS > LIMIT
    return images


def _task(module: nn.Module, **changes: object) -> AttackTask:
    samples = dataset()
    threat = ThreatModel(norm="Linf", eps=EPS)
    task = AttackTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=CLASSES,
        threat_model=threat,
        attacks=ATTACKS,
        seed=0,
        batch_size=8,
        device=CPU,
    )
    return replace(task, **changes)


def test_known_and_imported_images_break_samples_of_every_label(tmp_path: Path) -> None:
    module, samples = Unanswering(math.nan), dataset()
    task, images = _task(module), _bright(samples.images)
    block = try_images(task, Trials(samples.indices, images, torch.zeros(20)))
    assert block.witnesses is not None
    assert block.witnesses.prediction.tolist() == 20 * [NO_CLASS]
    assert block.attempts is not None
    assert set(block.attempts.outcome) == {"broken"}
    imported = ImportedImages(Path("it.npz"), "3" * 64, images, None)
    settings = _settings("fast")
    outcome = import_witnesses(
        imported, "us", _candidate(module), samples, settings, Store(tmp_path)
    )
    assert outcome.summary.robust_accuracy == 0
    assert _flags(outcome) == ["0 of 20 clean images, 20 of 20 adversarial images"]


class _Sometimes(nn.Module):
    """Has no answer in a share of its calls."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.network = Unanswering(math.nan)
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        silent = torch.rand(len(images), 1) < self.share
        return self.network(images).masked_fill(silent, math.nan)


@pytest.mark.parametrize(("share", "decides"), [(0.1, True), (0.9, False), (1.0, False)])
def test_a_randomized_candidate_decides_by_what_most_draws_say(share: float, decides: bool) -> None:
    task = _task(_Sometimes(share), randomized=True)
    expected = task.labels if decides else torch.full_like(task.labels, NO_CLASS)
    assert torch.equal(decide(task, task.images), expected)
    assert torch.equal(confirm(task, task.images, task.labels), expected)


def test_a_smoothed_classifier_decides_by_most_of_its_bank() -> None:
    images = dataset().images
    network = Unanswering(math.nan)
    smoothed = Smoothed(network, sigma=0.01, noise_samples=16, seed=0).eval()
    assert (smoothed.bank(images)[:, 0, 0, 0] + CORNER > LIMIT).any()
    assert torch.equal(classes_of(smoothed(images)), dataset().labels)
    assert (classes_of(smoothed(_bright(images))) == NO_CLASS).all()


def test_the_expectation_has_a_finite_gradient_where_a_draw_has_no_answer() -> None:
    images = dataset().images.requires_grad_()
    torch.manual_seed(0)
    mean = expectation(_Sometimes(0.2))(images)
    assert mean.isfinite().all()
    (gradient,) = torch.autograd.grad(mean[:, 0].sum(), images)
    assert gradient.isfinite().all()


def test_votes_for_no_class_make_certificates_smaller() -> None:
    images = dataset(1).images
    procedure = FixedProcedure(Smoothing(0.02, 10, 200))

    def certificates(share: float) -> list[Certificate]:
        network, draws = Unanswering(-1.0), torch.Generator().manual_seed(1)

        def vote(noisy: Tensor) -> Tensor:
            noisy[:, 0, 0, 0] = CORNER
            silent = torch.rand(len(noisy), generator=draws) < share
            return classes_of(network(noisy)).masked_fill(silent, NO_CLASS)

        work = certify_many(vote, images, torch.arange(10), 10, procedure, Noise(0), 64)
        found = [each for settled, _ in work for each in settled]
        return sorted(found, key=lambda each: each.row)

    whole, some, none = certificates(0), certificates(0.2), certificates(1)
    assert all(each.prediction == ABSTAINED and each.radius == 0 for each in none)
    for row, (most, fewer) in enumerate(zip(whole, some, strict=True)):
        assert (most.prediction, fewer.prediction) == (row, row)
        assert most.noise_samples == fewer.noise_samples == 200
        assert fewer.certified_count < most.certified_count == 200
        assert 0 < fewer.radius < most.radius


def test_a_certification_counts_the_draws_without_a_class(tmp_path: Path) -> None:
    common = {
        name: value
        for name, value in vars(_task(Unanswering(math.nan))).items()
        if name in Task.__dataclass_fields__
    }
    task = CertificationTask(**common, smoothing=Smoothing(0.02, 10, 100))
    blocks = list(CertificationEngine().run(task, {}, lambda _: None))
    counted = sum(float(block.record.get(DRAWS_WITHOUT_CLASS, 0)) for block in blocks)
    noise, expected = Noise(task.seed), 0
    for settled, _ in certify_many(
        lambda noisy: (noisy[:, 0, 0, 0] > LIMIT).long(),
        task.images,
        task.indices,
        2,
        FixedProcedure(Smoothing(0.02, 10, 100)),
        noise,
        64,
        lambda row, guesses, votes, draws: (1, float(guesses[1] + votes[1])),
    ):
        expected += int(sum(each.radius for each in settled))
    assert counted == expected > 0


def test_a_sweep_counts_samples_of_every_label() -> None:
    mix = Mix(Unanswering(math.nan), Unanswering(math.nan), 0.5).eval()
    attacks = (AttackChoice(name="apgd-ce", parameters={"steps": 5}),)
    task = _task(mix, attacks=attacks)
    blocks = list(SweepEngine((0.0, 0.5, 1.0)).run(task, {}, lambda _: None))
    table = Sweep().join(blocks).samples
    broken = table["broken_by"].notna()
    assert broken.any()
    assert (table.loc[broken, "adversarial_prediction"] == NO_CLASS).all()
    assert table.loc[~broken, "adversarial_prediction"].isna().all()
    assert 0 in table.loc[broken, "label"].tolist()


@pytest.mark.parametrize("silent", ["accurate", "robust"])
def test_a_mix_has_no_answer_where_a_base_has_none(silent: str) -> None:
    bases = {"accurate": Unanswering(-1e3), "robust": Unanswering(-1e3)}
    bases[silent] = Unanswering(math.nan, column=4)
    images = _bright(dataset().images)
    nuts = {"scale": 1.0, "power": 2.0, "bias": 0.0, "surrogate_alpha": 0.5}
    for mix in (Mix(**bases, alpha=0.5), MixedNuts(**bases, alpha=0.5, **nuts)):
        assert (classes_of(mix(images)) == NO_CLASS).all()
        assert (classes_of(mix(dataset().images)) == dataset().labels).all()
        answer = mix.answer(images)
        margins = signed_margins(getattr(answer, silent), dataset().labels)
        assert margins.isnan().all()


def test_training_measures_by_the_same_rule() -> None:
    network, samples = Unanswering(math.nan), dataset(copies=4, unanswered=1)
    assert clean_accuracy(network, samples.images, samples.labels, "float32") == 0.75
    generator = torch.Generator().manual_seed(0)
    attacked = pgd_accuracy(
        network, samples.images, samples.labels, EPS, "float32", generator, steps=3
    )
    assert 0 < attacked < 0.75
    broken = torch.full((2, 3), 1 / 3)
    broken[0, 1] = math.nan
    low, high = right_weights(broken, torch.eye(3)[:2], torch.tensor([0, 1]))
    assert low[0] >= high[0]
    assert low[1] < high[1]


def test_a_substitute_learns_from_the_answers_that_there_are() -> None:
    samples = dataset()

    def answers(images: Tensor) -> Tensor:
        return classes_of(Unanswering(math.nan)(images))

    network = train_substitute(answers, samples.images, CLASSES, 2 * EPS, seed=0)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_robustbench_is_warned_of_what_it_takes_for_class_0() -> None:
    samples = dataset(1, unanswered=0)
    adversary = AutoAttack(
        Unanswering(math.nan), eps=EPS, seed=0, version="custom", attacks_to_run=["square"]
    )
    with pytest.warns(UserWarning, match="hold NaN or infinity"):
        images = adversary.run_standard_evaluation(samples.images, samples.labels, bs=10)
    assert np.isfinite(images.numpy()).all()
