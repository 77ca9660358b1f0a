"""The fast engine: no result depends on the batch; only confirmed successes count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import data
from bench.attacks import inside
from bench.engines import AttackTask, attack_works, search
from bench.engines.acceleration import Accelerated, accelerate
from bench.engines.differentiability import is_differentiable
from bench.engines.fast import FastEngine
from bench.errors import InputError
from bench.executors.progress import Progress
from bench.runs.evaluation import Evaluation
from bench.store.records import AttackBlock
from bench.store.tables import Tables
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice

ATTACKS = (
    AttackChoice(name="apgd-ce", parameters={"steps": 12}),
    AttackChoice(name="apgd-t", parameters={"steps": 12, "targets": 3, "restarts": 2}),
    AttackChoice(name="fab-t", parameters={"steps": 8, "targets": 3}),
    AttackChoice(name="square", parameters={"queries": 60}),
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small convolutional network with batch norm, trained for a moment."""
    train = data.load("digits", "train")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 10),
        )
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(60):
        rows = torch.randint(len(train), (256,), generator=generator)
        loss = nn.functional.cross_entropy(module(train.images[rows]), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def _task(module: nn.Module, norm: str = "Linf", eps: float = 0.06, n: int = 40) -> AttackTask:
    samples = data.load("digits").first(n)
    return AttackTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        threat_model=ThreatModel.model_validate({"norm": norm, "eps": eps}),
        attacks=ATTACKS,
        seed=3,
        batch_size=16,
        device=torch.device("cpu"),
    )


def _run(
    task: AttackTask, finished: dict[str, AttackBlock] | None = None, **options: str
) -> dict[str, AttackBlock]:
    blocks = dict(finished or {})
    engine = FastEngine(**options)  # type: ignore[arg-type]
    for block in engine.run(task, finished or {}, lambda _: None):
        assert block.key not in blocks
        blocks[block.key] = block
    return blocks


def _tables(blocks: dict[str, AttackBlock]) -> Tables:
    return Evaluation().join([blocks[key] for key in sorted(blocks)])


def _same(ours: Tables, theirs: Tables, norm: str = "Linf") -> None:
    """Compare samples and attempts as they are, witnesses bit for bit where that is possible.

    The last bits of a gradient depend on how many images share its pass. In Linf, Auto-PGD takes
    only its signs and Square takes no gradient. In L2, and in FAB, points follow those bits: they
    differed by 2e-6 at most when this was measured.
    """
    assert ours.samples.equals(theirs.samples)
    columns = ["index", "attack", "outcome", "iteration"]
    order = ["attack", "index"]
    assert (
        ours.attempts[columns]
        .sort_values(order, ignore_index=True)
        .equals(theirs.attempts[columns].sort_values(order, ignore_index=True))
    )
    assert ours.witnesses is not None
    assert theirs.witnesses is not None
    follows_gradients = (theirs.witnesses.attack == "fab-t") | (norm == "L2")
    signs = ~follows_gradients
    np.testing.assert_array_equal(ours.witnesses.images[signs], theirs.witnesses.images[signs])
    np.testing.assert_allclose(
        ours.witnesses.images[follows_gradients],
        theirs.witnesses.images[follows_gradients],
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.35)])
def test_batch_size_and_order_change_nothing(network: nn.Module, norm: str, eps: float) -> None:
    task = _task(network, norm, eps)
    whole = _tables(_run(task))
    assert 0 < int(whole.samples["robust"].sum()) < int(whole.samples["clean_correct"].sum())
    for size in (1, 5, 200):
        _same(_tables(_run(replace(task, batch_size=size))), whole, norm)
    order = torch.randperm(len(task.labels), generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        task,
        images=task.images[order],
        labels=task.labels[order],
        indices=task.indices[order],
    )
    _same(_tables(_run(shuffled)), whole, norm)


def test_interrupted_anywhere_it_ends_the_same(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS_A_BLOCK", 0.0)
    task = _task(network)
    blocks = _run(task)
    whole = _tables(blocks)
    keys = sorted(blocks)
    for kept in (1, len(keys) // 3, len(keys) - 1):
        resumed = _run(task, {key: blocks[key] for key in keys[:kept]})
        _same(_tables(resumed), whole)


def test_a_long_search_keeps_samples_from_early_on(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when it has been through all targets of all samples."""
    monkeypatch.setattr(search, "SECONDS_A_BLOCK", 0.0)
    monkeypatch.setattr(search, "MOST_CONFIRMED_TOGETHER", 1)
    attacks = (AttackChoice(name="apgd-t", parameters={"steps": 4, "targets": 9}),)
    task = replace(_task(network, eps=0.001), attacks=attacks, batch_size=4)
    kept = [
        len(block.attempts.index)
        for block in FastEngine().run(task, {}, lambda _: None)
        if block.attempts is not None
    ]
    assert len(kept) >= 9
    assert max(kept) <= 8


def test_the_time_that_is_left_falls_to_nothing(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where targets are searched ahead of their turn, and given up."""
    monkeypatch.setattr(search, "SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr(search, "MOST_CONFIRMED_TOGETHER", 1)
    attacks = (AttackChoice(name="apgd-t", parameters={"steps": 6, "targets": 9}),)
    reports: list[Progress] = []
    for _ in FastEngine().run(replace(_task(network), attacks=attacks), {}, reports.append):
        pass
    left = [each.seconds_left for each in reports if each.seconds_left is not None]
    assert min(left) >= 0
    assert left[-1] < left[0] / 3


@given(items=st.integers(0, 5_000), most=st.integers(1, 600))
def test_even_batches_are_as_few_and_fuller(items: int, most: int) -> None:
    size = search.evenly(items, most)
    assert size <= most
    if items:
        batches = math.ceil(items / most)
        assert math.ceil(items / size) == batches
        assert batches * size - items < batches


def test_witnesses_hold_by_independent_code(network: nn.Module) -> None:
    task = _task(network)
    witnesses = _tables(_run(task)).witnesses
    assert witnesses is not None
    images = torch.from_numpy(witnesses.images)
    clean = task.images[witnesses.index]
    assert images.min() >= 0
    assert images.max() <= 1
    assert float((images.double() - clean.double()).abs().max()) <= 0.06 + 1e-7
    assert inside(images, clean, "Linf", 0.06).all()
    predictions = network(images).argmax(dim=1)
    assert torch.equal(predictions, torch.from_numpy(witnesses.prediction))
    assert not (predictions == task.labels[witnesses.index]).any()


def test_unconfirmed_successes_do_not_count(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(module: nn.Module, images: Tensor, precision: str) -> Accelerated:
        """A search model that favours class 3: it claims successes that are none."""
        call: Callable[[Tensor], Tensor] = accelerate(module, images, "float32").model
        favour = 2.0 * (torch.arange(10) == 3)
        return Accelerated(lambda inputs: call(inputs) + favour, {}, module, module)

    task = _task(network, n=12)
    honest = _tables(_run(task))
    monkeypatch.setattr(attack_works, "accelerate", shifted)
    tables = _tables(_run(task))
    assert 0 < tables.samples["robust"].sum() >= honest.samples["robust"].sum() - 1
    assert tables.witnesses is not None
    wrong = network(torch.from_numpy(tables.witnesses.images)).argmax(dim=1)
    assert not (wrong == task.labels[tables.witnesses.index]).any()


def test_lower_precision_breaks_about_as_much(network: nn.Module) -> None:
    task = _task(network)
    exact, lowered = (
        _tables(_run(task, precision=name)).samples["robust"] for name in ("float32", "bfloat16")
    )
    assert abs(int(exact.sum()) - int(lowered.sum())) <= 1


def test_passes_are_counted_and_compared(network: nn.Module) -> None:
    blocks = _run(_task(network))
    tables = _tables(blocks)
    gradient = tables.attempts.query("attack == 'apgd-ce'")
    survived = gradient["outcome"] == "survived"
    assert (gradient["backward_passes"][survived] == 13).all()
    assert (gradient["backward_passes"] <= 13).all()
    used = tables.attempts[["forward_passes", "backward_passes"]].sum().sum()
    names = ("reference_forward_passes", "reference_backward_passes")
    theirs = sum(float(block.record.get(name, 0)) for block in blocks.values() for name in names)
    assert used < theirs


def test_no_gradient_leaves_square(network: nn.Module) -> None:
    class Step(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = network(images)
            return logits

    attempts = _tables(_run(_task(Step().eval(), n=16))).attempts
    assert set(attempts.query("attack != 'square'")["outcome"]) == {"skipped"}
    assert set(attempts.query("attack == 'square'")["outcome"]) <= {"broken", "survived"}


def test_a_single_image_does_not_decide_whether_there_are_gradients(network: nn.Module) -> None:
    def shy(images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits if len(images) > 1 else logits.detach()

    assert is_differentiable(shy, _task(network))
    assert not is_differentiable(lambda images: shy(images).detach(), _task(network))


def test_no_pass_takes_more_than_a_batch(network: nn.Module) -> None:
    """Confirming neither: memory may hold no more."""

    class Cramped(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 4:
                raise torch.OutOfMemoryError
            logits: Tensor = network(images)
            return logits

    task = replace(_task(Cramped().eval(), eps=0.2), batch_size=4)
    whole = _tables(_run(replace(_task(network, eps=0.2), batch_size=4)))
    _same(_tables(_run(task)), whole)


def test_few_samples_cost_few_passes(network: nn.Module) -> None:
    """Targets that were started ahead of their turn are given up as soon as one succeeded."""
    attacks = (AttackChoice(name="apgd-t", parameters={"steps": 60, "targets": 9}),)
    task = replace(_task(network, eps=0.1, n=4), attacks=attacks, batch_size=128)
    together = _tables(_run(task)).attempts["backward_passes"].sum()
    in_turn = _tables(_run(replace(task, batch_size=1))).attempts["backward_passes"].sum()
    assert together <= 4 * in_turn


def test_a_module_that_casts_is_refused_in_bfloat16(network: nn.Module) -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images.float())
            return logits

    with pytest.raises(InputError, match="use --precision float32"):
        _run(_task(Casting().eval()), precision="bfloat16")


def test_acceleration_folds_and_keeps_the_logits() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    images = torch.rand(4, 3, 8, 8)
    made = accelerate(module.eval(), images, "float32")
    assert made.record["batch norms folded"].startswith("1, largest relative logit difference")
    torch.testing.assert_close(made.model(images), module(images), atol=1e-4, rtol=1e-4)
    assert isinstance(module[1], nn.BatchNorm2d)

    class Viewing(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.view(len(inputs), -1)

    assert accelerate(Viewing(), images, "float32").record["channels_last"].startswith("no")
