"""Ordinary layers and wrappers, all of them, through the flags and the fast engine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench import flags
from bench.attacks.image_gradient import image_gradient
from bench.candidates.recomputation import differentiable_checkpoints
from bench.engines import AttackTask
from bench.engines.acceleration import accelerate
from bench.engines.fast import FastEngine
from bench.runs.evaluation import Evaluation
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice
from tests.engines.layers import CLASSES, LAYERS, build

ATTACKS = (
    AttackChoice(name="apgd-ce", parameters={"steps": 3}),
    AttackChoice(name="fab-t", parameters={"steps": 2, "targets": 1}),
    AttackChoice(name="square", parameters={"queries": 10}),
)
LABELS = torch.arange(5)
NO_GRADIENT = {
    "overwritten",
    "embedding",
    "through numpy",
    "quantized linear layers",
    "quantized",
}
FLAGS = {
    "batch norm without statistics": {"batch-dependent"},
    "in place": {"changes-input"},
    "dropout left on": {"randomized"},
    "softmax": {"probabilities"},
    "quantized linear layers": {"batch-dependent"},
}
"""What is raised for good reason, beside `zero-gradients` where there is no gradient."""
FOLDED = {
    **dict.fromkeys(("depthwise", "branching", "deterministic", "scripted child"), 2),
    **dict.fromkeys(("batch norm without affine", "no_grad on weights"), 2),
    # Hooks, weights that are computed, subclasses, a layer that is used twice: nothing is folded.
    **dict.fromkeys(("hook on a convolution", "hook on a batch norm", "pruned", "tied"), 0),
    **dict.fromkeys(("batch norm without statistics", "weight standardization"), 0),
    **dict.fromkeys(("hook on the network", "scripted", "traced", "exported"), 0),
    **dict.fromkeys(("copies that share", "locked"), 0),
    # What has no batch norm behind a convolution.
    **dict.fromkeys(("attention", "vision transformer", "vision transformer of timm"), 0),
    **dict.fromkeys(("recurrent", "long short-term memory", "gated recurrent", "maxout"), 0),
    **dict.fromkeys(("embedding", "through numpy", "quantized"), 0),
}
"""How many batch norms are folded; 1 elsewhere."""
UNDONE = {
    "three dimensions": ("channels_last", "rank 4"),
    "scripted": ("channels_last", "ScriptModules"),
    "traced": ("channels_last", "ScriptModules"),
    "views": ("channels_last", "view size"),
    "copies that share": ("passes", "a copy of the module differs"),
    "locked": ("passes", "cannot be copied"),
    "autocast": ("batch norms folded", "others not: logits would change"),
    "further arguments": ("batch norms folded", "others not: TypeError"),
}
"""What the record says of steps that were undone."""


def _task(module: nn.Module) -> AttackTask:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = module(images.clone()).argmax(dim=1)
    return AttackTask(
        module=module,
        images=images,
        labels=labels,
        indices=torch.arange(6),
        classes=CLASSES,
        threat_model=ThreatModel.model_validate({"norm": "Linf", "eps": 0.2}),
        attacks=ATTACKS,
        seed=0,
        batch_size=6,
        device=torch.device("cpu"),
        randomized=False,
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore")
@differentiable_checkpoints()
def test_a_layer_is_evaluated(name: str) -> None:
    module = build(name)
    task = _task(module)
    raised = {
        flag.name
        for flag in flags.inspect(name, module, task.images, task.labels, CLASSES, randomized=False)
    }
    assert raised == FLAGS.get(name, set()) | ({"zero-gradients"} if name in NO_GRADIENT else set())
    tables = Evaluation().join(list(FastEngine().run(task, {}, lambda _: None)))
    skipped = set(tables.attempts.query("outcome == 'skipped'")["attack"])
    assert skipped == ({"apgd-ce", "fab-t"} if name in NO_GRADIENT else set())
    if name == "dropout left on":  # nothing that it answers can be asked again
        return
    assert tables.samples["clean_correct"].all()
    if tables.witnesses is not None:
        everyone = task.images.clone()
        everyone[tables.witnesses.index] = torch.from_numpy(tables.witnesses.images)
        with torch.no_grad():
            classes = module(everyone.clone()).argmax(dim=1)
        if "batch-dependent" not in raised:
            broken = torch.from_numpy(tables.witnesses.index)
            assert (classes != task.labels)[broken].all()


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "dropout left on"])
@pytest.mark.filterwarnings("ignore")
@differentiable_checkpoints()
def test_acceleration_leaves_the_answers_and_says_what_it_undid(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    module = build(name)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module(images.clone())  # lazy layers have their weights from here on
    state = module.state_dict().items()
    weights = {key: value for key, value in state if isinstance(value, Tensor)}
    before = {key: weights[key].clone() for key in weights if key not in ("seen", "last")}
    made = accelerate(module, images, "float32")
    record = made.record
    count = record.get("batch norms folded", "none").partition(",")[0].partition(":")[0]
    assert count == (str(FOLDED.get(name, 1)) if FOLDED.get(name, 1) else "none")
    key, text = UNDONE.get(name, ("precision", "float32"))
    assert text in record[key]
    assert ("passes" in record) == (key == "passes")
    assert "gradients of weights" not in record
    others = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            made.model(others), module(others.clone()).float(), atol=1e-4, rtol=1e-4
        )
    theirs, ours = (image_gradient(each, others, LABELS) for each in (module, made.model))
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())
    assert capfd.readouterr().err == ""
