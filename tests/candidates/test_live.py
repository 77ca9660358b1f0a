"""Models of this process: what they are, what they refer to, and that they are given back."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.attacks import inside
from bench.candidates.live import borrowed, live_reference, modules_of, qualified_name

NETWORK = nn.Linear(2, 2)


def _by_global_name(images: Tensor) -> Tensor:
    answer: Tensor = NETWORK(images)
    return answer


class _ByGlobalName:
    def __call__(self, images: Tensor) -> Tensor:
        return _by_global_name(images)


class _Defence:
    def __init__(self, network: nn.Module) -> None:
        self.networks = [network]

    def predict(self, images: Tensor) -> Tensor:
        answer: Tensor = self.networks[0](images)
        return answer

    def __call__(self, images: Tensor) -> Tensor:
        return self.predict(images)


def test_the_modules_of_a_callable_are_found_where_people_keep_them() -> None:
    inner = nn.Linear(2, 2)
    defence = _Defence(inner)
    assert modules_of(_by_global_name) == modules_of(_ByGlobalName()) == [NETWORK]
    assert modules_of(lambda images: inner(images)) == [inner]
    assert modules_of(functools.partial(torch.nn.functional.linear, weight=inner)) == [inner]
    assert modules_of(defence.predict) == modules_of(defence) == [inner]
    assert modules_of(torch.relu) == []


def test_a_function_may_have_a_name_that_is_not_bound_yet() -> None:
    inner = nn.Linear(2, 2)

    def network(images: Tensor) -> Tensor:
        answer: Tensor = inner(images) if later is None else later(images)
        return answer

    assert modules_of(network) == [inner]
    later = None


def test_a_model_is_given_back_after_an_error_in_the_very_same_tensors() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()
    model(torch.rand(3, 2)).sum().backward()
    tensors = [*model.parameters(), *model.buffers()]
    values = [each.detach().clone() for each in tensors]
    places = [each.data_ptr() for each in tensors]

    def lend() -> None:
        with borrowed(model):
            model.eval().requires_grad_(False).to("meta")  # no values: another device than any
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lend()
    now = [*model.parameters(), *model.buffers()]
    assert all(one is other for one, other in zip(now, tensors, strict=True))
    assert [each.data_ptr() for each in now] == places
    assert all(torch.equal(one, other) for one, other in zip(now, values, strict=True))
    assert [model[0].training, model[1].training] == [True, False]
    assert all(each.requires_grad for each in model.parameters())
    assert all(each.grad is not None and each.grad.device.type == "cpu" for each in now[:4])


def test_names_are_those_of_the_code_or_those_that_are_given() -> None:
    assert live_reference(nn.Linear(2, 2)).name == "Linear"
    assert live_reference(nn.DataParallel(NETWORK)).module is NETWORK
    assert live_reference(lambda images: images).name == "lambda"
    assert live_reference(_Defence(NETWORK)).name == "_Defence"
    assert live_reference(NETWORK, "mine").name == "mine"
    assert qualified_name(NETWORK) == "torch.nn.modules.linear.Linear"


def test_a_copy_is_the_same_candidate_and_a_trained_one_is_not() -> None:
    first, copy = nn.Linear(2, 2), nn.Linear(2, 2)
    copy.load_state_dict(first.state_dict())
    assert _identity(first) == _identity(copy)
    with torch.no_grad():
        copy.bias += 1
    assert _identity(first) != _identity(copy)


def _identity(module: nn.Module) -> tuple[dict[str, str], str]:
    candidate = live_reference(module).load()
    return candidate.weights_sha256, candidate.definition_sha256


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_evaluated_and_given_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    images = torch.rand(4, 1, 2, 2)
    labels = network(images).argmax(1)
    scripted = torch.jit.script(network)
    mixed = nn.Sequential(nn.Identity(), scripted).train()
    for name, model in {"mixed": mixed, "frozen": torch.jit.freeze(scripted.eval())}.items():
        result = bench.evaluate(
            model,
            images=images,
            labels=labels,
            threat_model=bench.Linf(0.01),
            protocol="express",
            name=name,
            results_dir=tmp_path,
            progress=False,
        )
        assert result.clean_accuracy == 1
        found = bench.attacks.apgd(model, images, labels, "Linf", 0.01, steps=2)
        assert inside(found, images, "Linf", 0.01).all()
    assert mixed.training
    assert not scripted.training


def test_one_part_that_cannot_be_given_back_does_not_keep_the_others() -> None:
    class Stubborn(nn.Module):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "training" and value and "training" in self.__dict__:
                raise RuntimeError("stubborn")
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Linear(2, 2), Stubborn(), nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="stubborn"), borrowed(model):
        model.eval()
    assert [part.training for part in model] == [True, False, True]
