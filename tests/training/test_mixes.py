"""Mixes that are trained or chosen: the loss, the attacked copies, the choice, the submissions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import bench.training
from bench.attacks.distances import norms
from bench.attacks.draws import keyed_draws
from bench.attacks.losses import margin
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.mix import Mix, MixAnswer
from bench.candidates.registry import find_candidates
from bench.candidates.submission import read_submission
from bench.data import load
from bench.errors import InputError
from bench.suites.suite import ThreatModel, load_suite
from bench.training import Conditions, Trained, TrainingProgress, TriedNumbers, override, recipes
from bench.training.choice_file import FILE
from bench.training.draws import generator_for
from bench.training.files import load_checkpoint
from bench.training.mix_answers import part_answers, right_weights
from bench.training.mix_attack import (
    TrainingAPGD,
    attacked_again,
    attacked_copies,
    cross_entropy_or_dlr,
    steps_of_run,
)
from bench.training.mix_search import Choice, choose
from bench.training.perturbation_memory import PerturbationMemory
from bench.training.recipes.fixed_mix import FixedMixSettings
from bench.training.recipes.mixing_network import (
    NEUTRAL,
    MixingNetworkSettings,
    configured,
    loss_of,
    number_grid,
    turning_loss,
)
from tests.candidates.networks import adaptive_mix

TINY: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "images_per_epoch": 16,
    "planes": [4],
    "held_out": 30,
    "attack_steps": 2,
    "attack_targets": 1,
    "search_steps": 1,
    "final_steps": 2,
    "final_targets": 1,
    "search_targets": 1,
    "alpha_step": 0.5,
    "allowed_loss": 1,
    "gamma_scales": [2],
    "gamma_biases": [0.4],
}

MIX = adaptive_mix()


class Killed(Exception):
    """Raised by a callback in place of a kill."""


def tiny_settings(**changes: Any) -> MixingNetworkSettings:
    preset = bench.training.presets()["digits-adaptive-mix"].settings
    chosen = override(preset, TINY | changes)
    assert isinstance(chosen, MixingNetworkSettings)
    return chosen


def test_the_loss_is_the_sum_that_the_paper_gives() -> None:
    mixed = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.8, 0.2]]).log()
    gamma = torch.tensor([1.0, -2.0, 0.5])
    answer = MixAnswer(mixed, mixed, mixed, torch.sigmoid(gamma), gamma)
    weights = tiny_settings(cross_entropy=0.5, mixing_entropy=2.0, product=0.25, clean_weight=3.0)
    labels = torch.tensor([0, 0, 0])
    expected = []
    for probability, value, is_attacked in ((0.5, 1.0, 1), (0.1, -2.0, 0), (0.8, 0.5, 0)):
        entropy = -math.log(probability)
        share = 1 / (1 + math.exp(-value))
        mixing = -math.log(share if is_attacked else 1 - share)
        loss = 0.5 * entropy + 2.0 * mixing + 0.25 * entropy * mixing
        expected.append(loss * (1 if is_attacked else 3))
    assert loss_of(answer, labels, 1, weights).tolist() == pytest.approx(expected, rel=1e-5)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.9), st.floats(0.02, 1))
def test_the_turning_loss_is_zero_where_no_weight_counts_and_else_points_to_right_weights(
    seed: int, start: float, width: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    accurate, robust = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64).mul(2)
    labels = torch.randint(4, (30,), generator=generator)
    ends = start, min(start + width, 1.0)
    gamma = (3 * torch.randn(30, generator=generator, dtype=torch.float64)).requires_grad_()
    answer = MixAnswer(accurate, accurate.log_softmax(1), robust.log_softmax(1), gamma, gamma)
    loss = turning_loss(answer, labels, ends)
    (gradient,) = torch.autograd.grad(loss.sum(), gamma)
    steps = torch.linspace(ends[0], ends[1], 401, dtype=torch.float64)[1:-1, None, None]
    mixed = (1 - steps) * accurate.softmax(1) + steps * robust.softmax(1)
    right = mixed.argmax(dim=2) == labels
    low, high = right_weights(accurate.softmax(1), robust.softmax(1), labels)
    never_counts = (low >= high) | (low >= ends[1]) | (high <= ends[0])
    always_right = (low <= ends[0]) & (high >= ends[1])
    assert (loss[never_counts | always_right] == 0).all()
    counts = right.any(dim=0) & ~right.all(dim=0)
    assert (loss[counts] > 0).all()
    only_high = counts & right[-1] & ~right[0]
    only_low = counts & right[0] & ~right[-1]
    assert (gradient[only_high] < 0).all()
    assert (gradient[only_low] > 0).all()


@pytest.mark.parametrize("attack", ["apgd", "pgd"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_attacked_copies_stay_in_balls_of_their_own_and_raise_the_loss(
    attack: str, norm: str
) -> None:
    mix = configured(MIX, NEUTRAL)
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    threat_model = ThreatModel.model_validate({"norm": norm, "eps": 0.2 if norm == "Linf" else 1})
    chosen = tiny_settings(attack=attack, attack_steps=12, attack_targets=3, push_weights=(0, 0))
    copies = attacked_copies(mix, images, labels, threat_model, chosen, generator_for(0))
    again = attacked_copies(mix, images, labels, threat_model, chosen, generator_for(0))
    assert torch.equal(copies, again)
    assert copies.shape == (24, 1, 8, 8)
    assert ((copies >= 0) & (copies <= 1)).all()
    distances = norms(copies - images.repeat(4, 1, 1, 1), threat_model.norm) / threat_model.eps
    assert distances.max() <= 1.1 + 1e-5
    assert distances[distances < 1].numel() > 0
    assert len(set(distances.tolist())) > 12
    with torch.no_grad():
        before = cross_entropy_or_dlr(mix(images), labels, labels)
        after = cross_entropy_or_dlr(mix(copies[:6]), labels, labels)
    assert (after > before).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_attack_goes_on_from_the_image_s_last_one_inside_its_new_ball(norm: str) -> None:
    mix = configured(MIX, NEUTRAL)
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    threat_model = ThreatModel.model_validate({"norm": norm, "eps": 0.2 if norm == "Linf" else 1})
    chosen = tiny_settings(
        attack="pgd",
        attack_steps=3,
        attack_targets=2,
        radius_factors=(0.3, 0.5),
        part_share=0.5,
        part_weights=(0.8, 1.0),
    )
    memory = PerturbationMemory(torch.arange(20) * 3, images.shape[1:])
    generator = generator_for(0)
    ends = []
    for visit in range(3):
        rows = torch.randperm(12, generator=generator)
        memory.begin(3 * rows)
        last, has_last = memory.recall(images[rows])
        assert bool(has_last.all()) == bool(has_last.any()) == (visit > 0)
        if visit:
            kept = (ends[-1] - images)[rows]
            torch.testing.assert_close(last, kept, rtol=1e-3, atol=1e-6)
        attacked = attacked_again(
            mix, images[rows], labels[rows], threat_model, chosen, memory, generator
        )
        distances = norms(attacked - images[rows], threat_model.norm) / threat_model.eps
        assert ((attacked >= 0) & (attacked <= 1)).all()
        assert distances.min() > 0
        assert distances.max() <= 0.5 + 1e-5
        ends.append(torch.empty_like(images).index_copy(0, rows, attacked))
    with pytest.raises(ValueError, match="take part"):
        memory.begin(torch.tensor([0, 1]))


@settings(deadline=None)
@given(st.data())
def test_the_memory_keeps_each_image_s_own_perturbation(drawn: st.DataObject) -> None:
    images = drawn.draw(st.lists(st.integers(0, 50), min_size=1, max_size=10, unique=True))
    memory = PerturbationMemory(torch.tensor(images), (1, 1, 2))
    expected: dict[int, float] = {}
    for value in range(drawn.draw(st.integers(1, 5))):
        batch = drawn.draw(st.lists(st.sampled_from(images), min_size=1, unique=True))
        memory.begin(torch.tensor(batch))
        memory.keep(torch.full((len(batch), 1, 1, 2), float(value)))
        expected |= dict.fromkeys(batch, float(value))
    other = PerturbationMemory(torch.tensor(images), (1, 1, 2))
    other.load_state_dict(memory.state_dict())
    other.begin(torch.tensor(images))
    perturbations, is_kept = other.recall(torch.zeros(len(images), 1, 1, 2))
    assert is_kept.tolist() == [each in expected for each in images]
    assert perturbations[:, 0, 0, 0].tolist() == [expected.get(each, 0.0) for each in images]


def test_an_item_with_a_fixed_weight_ascends_the_loss_there_and_pushes_gamma() -> None:
    mix = configured(MIX, NEUTRAL)
    attack = TrainingAPGD(
        "Linf",
        0.1,
        steps=1,
        radius_factors=(1, 1),
        push_weights=(0.25, 0.25),
        part_share=0.5,
        part_weights=(0.8, 0.9),
    )
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    draws = keyed_draws(0, torch.arange(40), "training")
    state = attack.start(images, labels, draws, labels)
    fixed = state.part_weights
    is_own = fixed.isnan()
    assert 5 < is_own.sum() < 35
    assert ((fixed[~is_own] >= 0.8) & (fixed[~is_own] <= 0.9)).all()
    _, losses, _ = attack.evaluate(mix, state)
    with torch.no_grad():
        answer = mix.answer(state.point)
        assert answer.gamma is not None
        alpha = torch.where(is_own, answer.alpha, fixed).unsqueeze(1)
        mixed = (1 - alpha) * answer.accurate.exp() + alpha * answer.robust.exp()
    entropy = functional.nll_loss(mixed.log(), labels, reduction="none")
    expected = 0.75 * entropy + 0.25 * functional.softplus(-answer.gamma)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_the_number_of_steps_is_chi_squared() -> None:
    generator = generator_for(1)
    drawn = torch.tensor([steps_of_run(75, generator) for _ in range(2000)], dtype=torch.float64)
    assert drawn.mean().item() == pytest.approx(75, abs=1.2)
    assert drawn.var().item() == pytest.approx(150, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(
        lambda ends: abs(ends[0] - ends[1]) > 0.01
    ),
    gamma=st.tuples(st.floats(0.5, 4), st.floats(-2, 2)),
    scales=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
)
def test_what_a_mix_with_other_numbers_says_needs_no_other_pass(
    ends: tuple[float, float], gamma: tuple[float, float], scales: tuple[float, float]
) -> None:
    mix, images = MIX, torch.rand(20, 1, 8, 8)
    numbers = {
        "alpha_scale": max(ends) - min(ends),
        "alpha_bias": min(ends),
        "gamma_scale": gamma[0],
        "gamma_bias": gamma[1],
        "accurate_scale": scales[0],
        "robust_scale": scales[1],
    }
    answers = part_answers(configured(mix, NEUTRAL), images)
    with torch.no_grad():
        own = configured(mix, numbers)(images)
    labels = torch.where(torch.arange(20) < 10, own.argmax(dim=1), torch.arange(20) % 10)
    lead = -margin(own, labels, labels)
    sure = lead.abs() > 1e-5
    assert torch.equal(answers.right([numbers], labels)[0, sure], (lead > 0)[sure])


class Table(nn.Module):
    """Logits (N, 4) of a row that the first pixel names; the second lifts a wrong class."""

    def __init__(self, logits: Tensor, slope: float) -> None:
        super().__init__()
        self.logits, self.slope = nn.Parameter(logits), slope

    def forward(self, images: Tensor) -> Tensor:
        rows = (4 * images[:, 0, 0, 0]).round().long()
        wrong = functional.one_hot((rows + 1) % 4, 4)
        return self.logits[rows] + self.slope * images[:, 0, 0, 1:] * wrong


GRID = [{"alpha": alpha, "accurate_scale": 1.0, "robust_scale": 1.0} for alpha in (0.2, 1.0, 0.9)]


def choice_from(
    grid: list[dict[str, float]], is_fragile: bool, conditions: Conditions, **changes: Any
) -> Choice:
    """The accurate base is right on all samples, the robust one on three of four."""
    labels = torch.tensor([0, 1, 2, 3])
    images = torch.zeros(4, 1, 1, 2)
    images[:, 0, 0, 0] = labels / 4
    robust = 6 * torch.eye(4)
    robust[3] = robust[2]
    bases = Table(3 * torch.eye(4), 100.0 if is_fragile else 0.0), Table(robust, 0.0)
    return choose(
        lambda numbers: Mix(*bases, **numbers),
        grid[0],
        grid,
        images,
        labels,
        ThreatModel(norm="Linf", eps=0.1),
        FixedMixSettings(
            suite="digits-linf", accurate="a", robust="b", **{"search_steps": 5} | changes
        ),
        conditions,
    )


@pytest.mark.parametrize("is_fragile", [False, True])
def test_the_choice_is_the_most_accurate_that_is_robust_enough(is_fragile: bool) -> None:
    trials: list[TriedNumbers] = []
    conditions = Conditions(progress=lambda trial: trials.append(cast(TriedNumbers, trial)))
    choice = choice_from(GRID, is_fragile, conditions)
    assert (choice.robust_clean_accuracy, choice.robust_attacked_accuracy) == (0.75, 0.75)
    assert choice.numbers["alpha"] in ((1.0, 0.9) if is_fragile else (0.2,))
    assert (choice.clean_accuracy, choice.attacked) == ((0.75, 2) if is_fragile else (1.0, 1))
    assert [dict(trial.numbers) for trial in (trials[0], trials[-1])] == [{}, choice.numbers]
    assert [trial.is_robust_enough for trial in trials] == [True, *[False] * is_fragile, True]
    assert {trial.required for trial in trials} == {0.75 - 0.015}
    assert trials[-1].attacked_accuracy == choice.attacked_accuracy
    if is_fragile:
        with pytest.raises(InputError, match="no setting of 1 keeps"):
            choice_from(GRID[:1], is_fragile, conditions)


def test_an_interrupted_choice_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = choice_from(GRID, True, Conditions())
    trials: list[TriedNumbers] = []

    def progress(trial: object) -> None:
        trials.append(cast(TriedNumbers, trial))
        if len(trials) == 3:  # the base, numbers that are not robust enough, and those chosen
            raise Killed

    conditions = Conditions(0, tmp_path / "checkpoint.pt", True, progress)
    with pytest.raises(Killed):
        choice_from(GRID, True, conditions)
    kept = load_checkpoint(tmp_path / FILE)
    resumed = choice_from(GRID, True, conditions)
    assert replace(resumed, seconds=whole.seconds, started=whole.started) == whole
    assert resumed.seconds > kept["seconds"] > 0
    assert resumed.started == kept["started"]
    assert [trial.numbers for trial in trials[3:]] == [{}, whole.numbers]
    choice_from(GRID, True, conditions, search_steps=6)  # another choice begins anew
    assert len(trials[5:]) == 3


def train_tiny(checkpoint: Path, kill_after: int | None = None, **changes: Any) -> Trained:
    def progress(state: TrainingProgress | TriedNumbers) -> None:
        if isinstance(state, TrainingProgress) and state.epoch == kill_after:
            raise Killed

    return recipes()["mixing-network"].train(
        tiny_settings(**changes),
        load("digits", "train").first(100),
        Conditions(5, checkpoint, resume=True, progress=progress),
    )


KEEPING: dict[str, Any] = {
    "kept_images": 20,
    "images_per_epoch": 16,
    "crop_padding": 0,
    "attack": "pgd",
    "precision": "bfloat16",
    "training_range": [0.5, 1.0],
    "part_share": 0.5,
}


@pytest.mark.parametrize("changes", [{}, KEEPING], ids=["new attacks", "kept perturbations"])
def test_a_killed_training_resumes_to_the_same_mixing_network(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    whole = train_tiny(tmp_path / "whole.pt", **changes)
    with pytest.raises(Killed):
        train_tiny(tmp_path / "killed.pt", kill_after=1, **changes)
    resumed = train_tiny(tmp_path / "killed.pt", **changes)
    assert resumed.network is not None
    assert whole.network is not None
    state, expected = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert resumed.architecture_args == whole.architecture_args


def test_a_checkpoint_serves_another_choice_but_not_another_training(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train_tiny(tmp_path / "trained.pt", kill_after=1)
    narrower = train_tiny(tmp_path / "trained.pt", lowest_alpha=0.5)
    assert narrower.architecture_args["alpha_bias"] >= 0.5
    with pytest.raises(InputError, match=r"made with .*, asked for .*; repeat its settings"):
        train_tiny(tmp_path / "trained.pt", weight_decay=0.1)


def test_a_trained_mix_is_a_submission_that_loads(tmp_path: Path) -> None:
    out = tmp_path / "tiny-mix"
    bench.training.run("mixing-network", "digits-adaptive-mix", None, out, 0, TINY)
    submission = read_submission(out)
    assert submission.bases is not None
    assert submission.bases.robust == "digits-robust"
    assert submission.training["choice"]["held_out_images"] == 30
    (threat_model,) = submission.threat_models
    assert (threat_model.norm, threat_model.eps) == ("Linf", 0.2)
    (reference,) = find_candidates([str(out)], load_suite("digits-linf"))
    candidate = reference.load()
    assert isinstance(candidate.module, AdaptiveMix)
    assert set(candidate.weights_sha256) == {"accurate", "robust", "mixing_network"}
    assert candidate.module(load("digits").images[:3]).isfinite().all()


def test_a_chosen_mix_is_a_submission_without_weights(tmp_path: Path) -> None:
    out = tmp_path / "chosen"
    changes = {"held_out": 30, "search_steps": 2, "search_targets": 1, "alpha_step": 0.25}
    written = bench.training.run("fixed-mix", "digits-mix", None, out, 0, changes)
    assert [path.name for path in out.iterdir()] == ["submission.yaml"]
    assert set(written.architecture_args) == {"alpha", "accurate_scale", "robust_scale"}
    (reference,) = find_candidates([str(out)], load_suite("digits-linf"))
    assert isinstance(reference.load().module, Mix)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "cifar10-linf"}, "setting suite: expected a suite of the data set digits"),
        ({"accurate": "digits-stand"}, "did you mean digits-standard"),
        ({"robust": "submissions/digits-robust"}, "setting robust: expected the name of a shipped"),
        ({"accurate_layers": ["stages.0", "stages.7"]}, "accurate_layers: the base has no layer"),
        ({"planes": []}, "planes: expected numbers of channels"),
        ({"radius_factors": [1.1, 0.4]}, "settings: field radius_factors"),
        ({"attack": "fgsm"}, "settings: field attack"),
        ({"part_weights": [0.5, 1.5]}, "settings: field part_weights"),
        ({"kept_images": 50}, "kept_images: expected crop_padding 0"),
        ({"held_out": 1437}, "expected held_out below the 1437"),
        ({"architecture_args.planes": [4]}, "settings: field architecture_args"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        bench.training.run("mixing-network", "digits-adaptive-mix", None, out, 0, TINY | changes)
    assert not out.exists()


def test_the_grid_holds_every_range_of_alpha_once() -> None:
    ranges = [
        (numbers["alpha_bias"], numbers["alpha_scale"])
        for numbers in number_grid(tiny_settings(accurate_scales=[1.0]))
    ]
    assert sorted(ranges) == [(0.0, 0.5), (0.0, 1.0), (0.5, 0.5)]
