"""The same draws give the same results as pyautoattack, in float64.

pyautoattack casts to float32 in places; while it runs here, float32 means float64. Its random calls
are answered from a recorder, whose answers the attacks under test are given too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from bench.attacks import square_linf
from bench.attacks.attack import Attack, likeliest_wrong_classes
from bench.attacks.auto_pgd import APGD
from bench.attacks.distances import Norm, norms
from bench.attacks.draws import Draws, GivenDraws, keyed_draws
from bench.attacks.fast_adaptive_boundary import FAB
from bench.attacks.losses import LOSSES
from bench.attacks.projections import onto_hyperplane
from bench.attacks.square_by_norm import square_for
from bench.attacks.state import reopen
from tests.attacks.networks import predictions, small_network, some_images

SAMPLES = 16
TARGETS = 4
CLOSE = 1e-6
EPS: dict[Norm, float] = {"Linf": 0.03, "L2": 0.25}
NO_DRAWS = GivenDraws(torch.zeros(SAMPLES, 1, 0))


@dataclass
class Recorder:
    """Answers torch.rand and torch.randn, and keeps what it answered.

    With `shared`, all samples of a call get the same numbers, so that they can be told apart
    afterwards without knowing which samples still took part.
    """

    shared: bool = False
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    answers: list[Tensor] = field(default_factory=list)

    def rand(self, *shape: Any, **_: Any) -> Tensor:
        return self._answer(torch.zeros(shape[0]).uniform_, shape[0])

    def randn(self, *shape: Any, **_: Any) -> Tensor:
        return self._answer(torch.zeros(shape[0]).normal_, shape[0])

    def _answer(self, fill: Any, shape: Any) -> Tensor:
        numbers: Tensor = fill(generator=self.generator)
        if self.shared and len(shape) == 4:
            numbers = numbers[:1].expand_as(numbers).clone()
        self.answers.append(numbers.clone())
        return numbers


@contextmanager
def reference_in_float64(recorder: Recorder) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        torch.set_default_dtype(torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(torch, "rand", recorder.rand)
        patch.setattr(torch, "randn", recorder.randn)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


@contextmanager
def recorded_runs(attack: type) -> Iterator[list[tuple[Tensor, Any]]]:
    """What each call of `attack_single_run` was given and gave back."""
    runs: list[tuple[Tensor, Any]] = []
    original = attack.attack_single_run  # type: ignore[attr-defined]

    def run(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = x.clone()
        result = original(self, x, *args, **kwargs)
        runs.append((given, result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attack, "attack_single_run", run)
        yield runs


def replay(attack: Attack[Any], model: Any, state: Any) -> Any:
    for _ in range(attack.steps):
        attack.step(model, state)
    return state


def given(numbers: Tensor) -> Draws:
    return GivenDraws(numbers.flatten(1).unsqueeze(1))


@pytest.fixture(name="problem")
def make_problem() -> tuple[Any, Tensor, Tensor]:
    network = small_network(dtype=torch.float64)
    images = some_images(SAMPLES, dtype=torch.float64)
    return network, images, predictions(network, images)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [100, 7])
def test_apgd(problem: Any, norm: Norm, loss: str, steps: int) -> None:
    network, images, labels = problem
    recorder = Recorder()
    with reference_in_float64(recorder), recorded_runs(APGDAttack) as runs:
        reference = APGDAttack(network, n_iter=steps, norm=norm, eps=EPS[norm], loss=loss)
        adversarial = reference.perturb(images.clone(), labels.clone())
    _, (best, robust, best_loss, _) = runs[0]

    attack = APGD(norm, EPS[norm], LOSSES[loss], steps=steps)
    state = replay(attack, network, attack.start(images, labels, given(recorder.answers[0])))

    assert 0 < int(state.broken.sum()) < SAMPLES
    assert torch.equal(state.broken, predictions(network, adversarial) != labels)
    assert torch.equal(state.broken, ~robust)
    torch.testing.assert_close(state.best_loss[robust], best_loss[robust], rtol=CLOSE, atol=0)
    torch.testing.assert_close(state.best[robust], best[robust], rtol=0, atol=CLOSE)

    # The reference searches on where a sample broke, as a reopened item does.
    state = attack.start(images, labels, given(recorder.answers[0]))
    for _ in range(attack.steps):
        reopen(attack.step(network, state), torch.arange(SAMPLES))
    torch.testing.assert_close(state.best_loss, best_loss, rtol=CLOSE, atol=0)
    torch.testing.assert_close(state.best, best, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_apgd_targeted(problem: Any, norm: Norm) -> None:
    network, images, labels = problem
    recorder = Recorder()
    with reference_in_float64(recorder), recorded_runs(APGDAttack) as runs:
        reference = APGDAttack_targeted(network, norm=norm, eps=EPS[norm], n_target_classes=TARGETS)
        adversarial = reference.perturb(images.clone(), labels.clone())

    attack = APGD(norm, EPS[norm], LOSSES["dlr-targeted"], targeted=True)
    targets = likeliest_wrong_classes(network(images), labels, TARGETS)
    standing = torch.arange(SAMPLES)
    for rank, (noise, (attacked, result)) in enumerate(zip(recorder.answers, runs, strict=True)):
        assert torch.equal(attacked, images[standing])
        state = attack.start(
            images[standing], labels[standing], given(noise), targets[standing, rank]
        )
        replay(attack, network, state)
        best, robust, best_loss, _ = result
        assert torch.equal(state.broken, ~robust)
        torch.testing.assert_close(state.best_loss[robust], best_loss[robust], rtol=CLOSE, atol=0)
        torch.testing.assert_close(state.best[robust], best[robust], rtol=0, atol=CLOSE)
        standing = standing[~state.broken]
    assert 0 < len(standing) < SAMPLES
    expected = (predictions(network, adversarial) == labels).nonzero().flatten()
    assert torch.equal(standing, expected)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("steps", "restarts"), [(100, 1), (20, 2)])
def test_fab_targeted(problem: Any, norm: Norm, steps: int, restarts: int) -> None:
    network, images, labels = problem
    recorder = Recorder()
    with reference_in_float64(recorder), recorded_runs(FABAttack_PT) as runs:
        reference = FABAttack_PT(
            network,
            norm=norm,
            eps=EPS[norm],
            targeted=True,
            n_target_classes=TARGETS,
            n_restarts=restarts,
            n_iter=steps,
        )
        adversarial = reference.perturb(images.clone(), labels.clone())

    attack = FAB(norm, EPS[norm], steps=steps)
    targets = likeliest_wrong_classes(network(images), labels, TARGETS)
    standing = torch.arange(SAMPLES)
    noises = iter(recorder.answers)
    for number, (attacked, result) in enumerate(runs):
        assert torch.equal(attacked, images[standing])
        rank, restart = divmod(number, restarts)
        state = attack.start(
            images[standing],
            labels[standing],
            given(next(noises)) if restart else NO_DRAWS,
            targets[standing, rank],
            torch.full_like(standing, restart),
        )
        replay(attack, network, state)
        distance = norms(result - attacked, norm)
        missed = predictions(network, result) == labels[standing]
        expected = torch.where(missed, float("inf"), distance)
        assert torch.equal(state.broken, expected <= EPS[norm])
        robust = ~state.broken
        torch.testing.assert_close(
            state.best_distance[robust], expected[robust], rtol=CLOSE, atol=0
        )
        standing = standing[robust]
    assert 0 < len(standing) < SAMPLES
    expected = (predictions(network, adversarial) == labels).nonzero().flatten()
    assert torch.equal(standing, expected)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("steps", "restarts"), [(100, 1), (20, 2)])
def test_fab_untargeted(problem: Any, norm: Norm, steps: int, restarts: int) -> None:
    network, images, labels = problem
    recorder = Recorder()
    with reference_in_float64(recorder), recorded_runs(FABAttack_PT) as runs:
        reference = FABAttack_PT(
            network, norm=norm, eps=EPS[norm], n_restarts=restarts, n_iter=steps
        )
        adversarial = reference.perturb(images.clone(), labels.clone())

    attack = FAB(norm, EPS[norm], steps=steps, classes=10)
    standing = torch.arange(SAMPLES)
    noises = iter(recorder.answers)
    for restart, (attacked, result) in enumerate(runs):
        assert torch.equal(attacked, images[standing])
        state = attack.start(
            images[standing],
            labels[standing],
            given(next(noises)) if restart else NO_DRAWS,
            restarts=torch.full_like(standing, restart),
        )
        replay(attack, network, state)
        distance = norms(result - attacked, norm)
        missed = predictions(network, result) == labels[standing]
        expected = torch.where(missed, float("inf"), distance)
        assert torch.equal(state.broken, expected <= EPS[norm])
        robust = ~state.broken
        torch.testing.assert_close(
            state.best_distance[robust], expected[robust], rtol=CLOSE, atol=0
        )
        standing = standing[robust]
    assert 0 < len(standing) < SAMPLES
    expected = (predictions(network, adversarial) == labels).nonzero().flatten()
    assert torch.equal(standing, expected)


@pytest.mark.parametrize("side", [8, 13])
def test_square_linf(side: int) -> None:
    queries = 600
    network = small_network(dtype=torch.float64, side=side)
    images = some_images(SAMPLES, dtype=torch.float64, side=side)
    labels = predictions(network, images)
    recorder = Recorder()
    with reference_in_float64(recorder), recorded_runs(SquareAttack) as runs:
        reference = SquareAttack(
            network, norm="Linf", eps=0.06, n_queries=queries, resc_schedule=False
        )
        adversarial = reference.perturb(images.clone(), labels.clone())
    _, (asked, best) = runs[0]

    channels = 3
    numbers = torch.zeros(SAMPLES, queries + 1, channels * side, dtype=torch.float64)
    numbers[:, 0] = recorder.answers[0].flatten(1)
    later = torch.cat([answer.flatten() for answer in recorder.answers[1:]])
    numbers[:, 1:, : 2 + channels] = later.view(queries, 2 + channels)
    attack = square_for("Linf", 0.06, queries=queries)
    state = replay(attack, network, attack.start(images, labels, GivenDraws(numbers)))
    check_square(state, network, labels, adversarial, asked, best)


def test_square_changes_windows_as_it_changes_whole_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, images = small_network(side=16), some_images(SAMPLES, side=16)
    labels = predictions(network, images)
    states = []
    for largest_share in (0.0, 1.0):
        monkeypatch.setattr(square_linf, "_LARGEST_SHARE", largest_share)
        attack = square_for("Linf", 0.03, queries=400)
        draws = keyed_draws(0, torch.arange(SAMPLES), "square")
        state = attack.start(images, labels, draws)
        state.iteration.copy_(torch.arange(SAMPLES) % 3 * 100)  # windows of several sizes at once
        for _ in range(200):
            attack.step(network, state)
        states.append(state)
    assert torch.equal(states[0].best, states[1].best)
    assert torch.equal(states[0].best_margin, states[1].best_margin)


@pytest.mark.parametrize("side", [8, 13])
def test_square_l2(side: int) -> None:
    queries, channels = 600, 3
    network = small_network(dtype=torch.float64, side=side)
    images = some_images(SAMPLES, dtype=torch.float64, side=side)
    labels = predictions(network, images)
    recorder = Recorder(shared=True)
    with reference_in_float64(recorder), recorded_runs(SquareAttack) as runs:
        reference = SquareAttack(
            network, norm="L2", eps=0.5, n_queries=queries, resc_schedule=False
        )
        adversarial = reference.perturb(images.clone(), labels.clone())
    _, (asked, best) = runs[0]

    tiles = (side // (side // 5)) ** 2
    # All samples share the numbers of the start too: a tile's direction, then its channels' signs.
    answers = [answer[0].flatten() for answer in recorder.answers]
    start = torch.cat(answers[: 2 * tiles])
    later = torch.cat(answers[2 * tiles :])
    numbers = torch.zeros(SAMPLES, queries + 1, len(start), dtype=torch.float64)
    numbers[:, 0] = start
    numbers[:, 1:, : 5 + channels] = later.view(queries, 5 + channels)
    attack = square_for("L2", 0.5, queries=queries)
    state = replay(attack, network, attack.start(images, labels, GivenDraws(numbers)))
    check_square(state, network, labels, adversarial, asked, best)


def check_square(
    state: Any, network: Any, labels: Tensor, adversarial: Tensor, asked: Tensor, best: Tensor
) -> None:
    assert 0 < int(state.broken.sum()) < SAMPLES
    assert torch.equal(state.broken, predictions(network, adversarial) != labels)
    assert torch.equal(state.iteration, asked.long())
    torch.testing.assert_close(state.best, best, rtol=0, atol=CLOSE)
    logits = network(best)
    column = labels.unsqueeze(1)
    margin = logits.gather(1, column) - logits.scatter(1, column, -1e9).max(1, keepdim=True).values
    torch.testing.assert_close(state.best_margin, margin[:, 0], rtol=CLOSE, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 64, 40)])
def test_square_window_sides(norm: Norm, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    reference = SquareAttack(None, norm=norm, n_queries=5000, eps=1.0, resc_schedule=False)
    table = square_for(norm, 1.0).table(torch.zeros(1, *shape), "side").tolist()
    smallest = 1 if norm == "Linf" else 3
    for query in range(5000):
        share = reference.p_selection(query)
        side = max(round((share * channels * height * width / channels) ** 0.5), smallest)
        if norm == "L2":
            side += side % 2 == 0
        assert table[query + 1] == min(side, height, width)
    assert table[0] == 0
    assert len(table) == 5002


@pytest.mark.parametrize("dimensions", [3, 64, 192])
@pytest.mark.parametrize("saturated", [0.0, 0.5])
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.5])
def test_hyperplane_projections(dimensions: int, saturated: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(dimensions)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    points = uniform(64, dimensions)
    points = torch.where(uniform(64, dimensions) < saturated, points.round(), points)
    normals = (2 * uniform(64, dimensions) - 1) * (uniform(64, dimensions) > 0.1)
    offsets = (2 * uniform(64) - 1) * normals.abs().sum(dim=1) * scale
    values = (normals * points).sum(dim=1) - offsets
    for norm, reference in (("Linf", projection_linf), ("L2", projection_l2)):
        with reference_in_float64(Recorder()):
            expected = reference(points, normals, values)
        way = onto_hyperplane(points, normals, offsets, norm)  # type: ignore[arg-type]
        torch.testing.assert_close(way, expected, rtol=0, atol=1e-10)
