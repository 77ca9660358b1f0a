"""What the monitor measures, what it leaves untouched, and how it goes on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.autoattack import AutoAttack
from bench.errors import EvaluationError, InputError
from tests.monitor.conftest import train


def _everything(network: nn.Module) -> list[Any]:
    """Return all that a measurement must leave as it is."""
    return [
        [part.training for part in network.modules()],
        [each.clone() for each in network.state_dict().values()],
        [None if each.grad is None else each.grad.clone() for each in network.parameters()],
        [each.requires_grad for each in network.parameters()],
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


@pytest.mark.parametrize(
    "context",
    [
        torch.enable_grad,
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("form", ["module", "function", "frozen"])
def test_it_measures_the_same_in_every_context_and_touches_nothing(
    network: nn.Sequential, monitor: bench.RobustnessMonitor, context: Any, form: str
) -> None:
    network[4].eval()  # one layer in another mode than the rest
    network[1].weight.requires_grad_(form != "frozen")
    model = (lambda images: network(2 * images - 1 + 1 - images)) if form == "function" else network
    expected = monitor.measure(network)
    with context():
        before = _everything(network)
        fresh = bench.RobustnessMonitor(
            images=monitor._subset.samples.images,
            labels=monitor._subset.samples.labels,
            threat_model=bench.Linf(0.1),
        )
        result = fresh.measure(model)
        assert _same(before, _everything(network))
    assert result.clean == expected.clean
    assert result.robust == pytest.approx(expected.robust, abs=0.04)


def test_a_graph_that_the_training_still_needs_survives(
    network: nn.Sequential, monitor: bench.RobustnessMonitor, digits: tuple[Tensor, Tensor]
) -> None:
    loss = nn.functional.cross_entropy(network(digits[0][:32]), digits[1][:32])
    monitor.measure(network)
    loss.backward()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "wrapper", [nn.DataParallel, nn.parallel.DistributedDataParallel, torch.compile]
)
def test_what_wraps_a_module_for_training_is_no_part_of_it(
    network: nn.Sequential,
    digits: tuple[Tensor, Tensor],
    monitor: bench.RobustnessMonitor,
    wrapper: Callable[[nn.Module], nn.Module],
) -> None:
    expected = monitor.measure(network)
    images, labels = digits
    wrapped = wrapper(network)
    again = bench.RobustnessMonitor(
        images=images, labels=labels, threat_model=bench.Linf(0.1), n_examples=64
    )
    assert again.measure(wrapped).robust == expected.robust
    assert wrapped.training
    if wrapper is not torch.compile:  # whose passes would be compiled
        nn.functional.cross_entropy(wrapped(images), labels).backward()
        again.measure(lambda inputs: wrapped(inputs))
        nn.functional.cross_entropy(wrapped(images), labels).backward()


def test_its_value_is_near_autoattacks(
    network: nn.Sequential, monitor: bench.RobustnessMonitor, digits: tuple[Tensor, Tensor]
) -> None:
    result = monitor.measure(network)
    images, labels = digits[0][monitor.indices], digits[1][monitor.indices]
    attack = AutoAttack(network.eval(), norm="Linf", eps=0.1, verbose=False)
    adversarial = attack.run_standard_evaluation(images, labels)
    robust = float((network(adversarial).argmax(1) == labels).float().mean())
    assert 0.05 < robust <= result.robust < result.clean < 1
    assert result.robust - robust < 0.05
    assert result.interval.low < robust < result.interval.high


def test_old_witnesses_are_tried_first_and_save_passes(
    network: nn.Sequential, monitor: bench.RobustnessMonitor
) -> None:
    first = monitor(network)
    again = monitor(network)
    assert first is not None
    assert again is not None
    assert first.old_witnesses == 0 < first.new_witnesses
    assert again.old_witnesses == first.new_witnesses
    assert again.robust == first.robust
    assert again.passes.forward_backward < first.passes.forward_backward
    assert again.interval.width > first.interval.width
    train(network, 3)
    later = monitor(network)
    assert later is not None
    assert later.old_witnesses > 0
    fallen = (later.clean - later.robust) * later.n_examples
    assert later.old_witnesses + later.new_witnesses == round(fallen)


def test_a_resumed_monitor_goes_on_as_if_nothing_had_happened(
    network: nn.Sequential, digits: tuple[Tensor, Tensor]
) -> None:
    def make(seed: int = 0) -> bench.RobustnessMonitor:
        images, labels = digits
        return bench.RobustnessMonitor(
            images=images,
            labels=labels,
            threat_model=bench.L2(0.5),
            every=2,
            n_examples=50,
            seed=seed,
        )

    monitor, resumed = make(), make()
    assert monitor(network) is None
    assert monitor(network, epoch=7) is not None
    assert monitor(network) is None
    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed.load_state_dict(state)
    train(network, 2)
    one, other = monitor(network), resumed(network)
    assert one is not None
    assert other is not None
    assert one.log().keys() == other.log().keys()
    assert (one.robust, one.old_witnesses, one.interval, one.passes) == (
        other.robust,
        other.old_witnesses,
        other.interval,
        other.passes,
    )
    assert resumed.history()["epoch"].tolist() == [7, 3]
    with pytest.raises(InputError, match="same images"):
        make(seed=1).load_state_dict(state)
    with pytest.raises(InputError, match="expected what"):
        make().load_state_dict({"calls": 1})
    assert len(state["witnesses"])
    with pytest.raises(InputError, match="the state is damaged"):
        make().load_state_dict({**state, "witnesses": state["witnesses"] + 1})
    with pytest.raises(InputError, match="the state is damaged"):
        make().load_state_dict({**state, "witnesses": state["witnesses"][:, :, :1]})


def test_a_suite_gives_images_and_threat_model(linear_digits: nn.Module) -> None:
    monitor = bench.RobustnessMonitor("digits-linf", n_examples=20, batch_size=8)
    result = monitor.measure(linear_digits)
    assert len(monitor.indices) == result.n_examples == 20
    assert max(monitor.indices) > 40  # a random part, not the first ones
    log = result.log()
    assert set(log) >= {f"robustness/{name}" for name in ("clean", "robust", "low", "high")}
    assert all(isinstance(value, float) for value in log.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got no images"),
        ({"suite": "digits-linf", "threat_model": bench.Linf(0.1)}, "got both"),
        ({"suite": "digits-linf", "n_examples": 10**6}, "at most"),
        ({"suite": "digits-linf", "every": 0}, "every"),
        ({"suite": "digits-linf", "steps": 0}, "steps"),
        ({"suite": "no-such-suite"}, "unknown suite"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench.RobustnessMonitor(**arguments)


def test_models_that_cannot_be_measured_are_refused(
    network: nn.Sequential, monitor: bench.RobustnessMonitor
) -> None:
    with pytest.raises(EvaluationError, match="gradient"):
        monitor.measure(lambda images: network(images).detach())
    with pytest.raises(InputError, match="got"):
        monitor.measure(nn.Sequential(nn.Flatten(), nn.Linear(3, 10)))
    assert network.training


def test_it_prints_what_it_measures_and_what_it_found(
    network: nn.Sequential, monitor: bench.RobustnessMonitor
) -> None:
    before = repr(monitor)
    assert f"{len(monitor.indices)} images, Linf, eps = " in before
    assert before.endswith("every 1; 0 measurements>")
    found = monitor.measure(network)
    assert repr(monitor).endswith(f"; 1 measurement, the last one robust {found.robust:.1%}>")
