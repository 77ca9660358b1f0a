"""The mixing network: its weight, its training mode, its checkpoints, RobustBench's version 4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.candidates.mixing_network import (
    MixingNetwork,
    Trunk,
    TrunkShape,
    clamp_outliers,
    total_channels,
    trunk_shape_of,
)
from bench.candidates.weights import load_weights
from bench.errors import InputError

SHAPE = TrunkShape(4, (4, 6), (5, 7))


@settings(deadline=None, max_examples=60)
@given(
    gamma=st.floats(-1e4, 1e4),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] + 1e-3 < pair[1]),
    bare=st.booleans(),
)
def test_log_weights_are_the_logarithms_of_alpha(
    gamma: float, ends: tuple[float, float], bare: bool
) -> None:
    network = MixingNetwork(SHAPE, alpha_scale=ends[1] - ends[0], alpha_bias=ends[0]).eval()
    network.bare = bare
    value = torch.tensor([gamma], dtype=torch.float64, requires_grad=True)
    log_rest, log_alpha = network.log_weights(value)
    alpha = network.alpha(value)
    low, high = network.alpha_range
    assert low - 1e-9 <= alpha.item() <= high + 1e-9
    assert (low, high) == pytest.approx((0.0, 1.0) if bare else ends)
    torch.testing.assert_close(log_alpha.exp(), alpha, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(log_rest.exp(), 1 - alpha, atol=1e-9, rtol=1e-6)
    (gradient,) = torch.autograd.grad(log_rest.sum() + log_alpha.sum(), value)
    assert torch.isfinite(torch.cat([log_rest, log_alpha, gradient])).all()


def test_training_mode_clamps_and_takes_the_bare_sigmoid() -> None:
    output = torch.tensor([[-10.0], [0.0], [1.0], [30.0]])
    mean, reach = output.mean(), 0.6 * output.std()
    clamped = clamp_outliers(output)
    assert float(clamped.max()) == pytest.approx(float(mean + reach))
    assert float(clamped.min()) == pytest.approx(float(mean - reach))
    network = MixingNetwork(SHAPE, 0.15, 0.84, gamma_scale=3.0, gamma_bias=1.3)
    maps = (torch.rand(6, 2, 4, 4), torch.rand(6, 3, 2, 2))
    gamma = network(maps, maps)
    # Batch norm leaves mean 0 and (biased) deviation 1; then gamma has the scale and bias 2, 0.4.
    assert gamma.mean().item() == pytest.approx(0.4, abs=1e-4)
    assert gamma.std(correction=0).item() == pytest.approx(2.0, abs=1e-2)
    assert network.alpha_range == (0.0, 1.0)
    network.eval()
    evaluated = network(maps, maps)
    network.bare = True
    torch.testing.assert_close((network(maps, maps) - 0.4) / 2, (evaluated - 1.3) / 3)


def test_version_4_agrees_with_robustbench() -> None:
    from bench.robustbench import make_importable

    make_importable()
    from robustbench.model_zoo.architectures.mixing_net import MixingNetV4

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = MixingNetV4({"in_planes": (64, 64)}).eval()
        ours = Trunk(TrunkShape(4, (128, 256), (256, 512, 1024))).eval()
        first = [torch.rand(2, 64, 8, 8) for _ in range(2)]
        second = [torch.rand(2, 128, 4, 4) for _ in range(2)]
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs(first, second)
        torch.testing.assert_close(ours((first[0], second[0]), (first[1], second[1])), expected)


def test_published_checkpoints_load_and_other_sizes_are_refused(tmp_path: Path) -> None:
    network = MixingNetwork(SHAPE, 0.15, 0.84)
    published = {"model": network.model.state_dict(), "bn": network.bn.state_dict()}
    torch.save(published, tmp_path / "m2.pt")
    load_weights(MixingNetwork(SHAPE, 0.1, 0.8), tmp_path / "m2.pt")
    state = network.state_dict()
    network.check_checkpoint(state)
    assert trunk_shape_of(state) == SHAPE
    other = MixingNetwork(TrunkShape(3, (4, 8), (8, 7)), 0.15, 0.84)
    with pytest.raises(InputError, match=r"expected a mixing network of version 3.*version 4"):
        load_weights(other, tmp_path / "m2.pt", check=other.check_checkpoint)


@pytest.mark.parametrize(
    ("shape", "scale", "bias", "message"),
    [
        (TrunkShape(5, (4, 6), (5,)), 0.1, 0.5, "version: expected 3 or 4, got 5"),
        (TrunkShape(3, (4, 6), (5,)), 0.1, 0.5, "planes: expected 6 as the first one"),
        (SHAPE, 0.3, 0.8, r"alpha_bias \+ alpha_scale: expected a number in \[0, 1\], got 1.1"),
        (SHAPE, 0.0, 0.8, "alpha_scale: expected a number > 0, got 0"),
        (SHAPE, 0.3, -0.1, r"alpha_bias: expected a number in \[0, 1\], got -0.1"),
    ],
)
def test_wrong_arguments_are_named(
    shape: TrunkShape, scale: float, bias: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        MixingNetwork(shape, scale, bias)


def test_maps_that_do_not_fit_are_named() -> None:
    first, second, small = torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 2, 2)
    assert total_channels((first, second), (first, second)) == (4, 6)
    with pytest.raises(InputError, match=r"accurate_layers: expected a second map of size \(4"):
        total_channels((first, small), (first, second))
    with pytest.raises(InputError, match="expected first maps of one size"):
        total_channels((first, second), (second, small))
    with pytest.raises(InputError, match="robust_layers: expected two layers"):
        total_channels((first, second), (first,))
