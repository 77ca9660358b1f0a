"""Auto-PGD on a loss of one's own: the cross-entropy at a higher temperature.

Where softmax saturates, the cross-entropy has no gradient; dividing the logits brings it back.
"""

from torch import Tensor
from torch.nn import functional

from bench.attacks import APGD, AttackPlan, AttackRequest, Definition, register_attack


def build(request: AttackRequest) -> AttackPlan:
    """Return the plan that answers a suite's request."""
    temperature = request.parameters["temperature"]

    def loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image (N,); an untargeted one does not read the targets."""
        return functional.cross_entropy(logits / temperature, labels, reduction="none")

    steps = request.parameters["steps"]
    attack = APGD(request.norm, request.eps, loss, steps=steps)
    return request.plan(attack, loss="cross-entropy at a temperature")


register_attack(
    "apgd-warm",
    Definition(
        "Auto-PGD on the cross-entropy at a temperature",
        {"steps": 100, "restarts": 1, "temperature": 10.0},
        build,
    ),
)
