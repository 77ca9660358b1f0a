"""Whether a candidate has a gradient that attacks can follow."""

from __future__ import annotations

from bench.attacks import Model
from bench.attacks.image_gradient import image_gradient
from bench.engines.acceleration import TRIED_IMAGES
from bench.engines.engine import Task
from bench.memory.out_of_memory import with_as_many_as_fit


def is_differentiable(model: Model, task: Task) -> bool:
    """Return whether the logits have a gradient with respect to the image.

    It is tried on several images, since one alone is special to some modules (`squeeze`); on fewer
    if memory cannot hold what they keep.

    Args:
        model: the task's module, or what stands for it.

    Raises:
        GradientError: the gradient fails for a reason that does not mean that there is none.
    """

    def has_gradient(count: int) -> bool:
        images, labels = task.images[:count].to(task.device), task.labels[:count].to(task.device)
        return image_gradient(model, images, labels) is not None

    return with_as_many_as_fit(min(TRIED_IMAGES, task.batch_size, len(task.images)), has_gradient)
