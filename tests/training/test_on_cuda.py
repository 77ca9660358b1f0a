"""What a training asks of a GPU; on a pretend one."""

from __future__ import annotations

from pathlib import Path

from bench.training import run
from tests.pretend_cuda import PretendCuda


def test_steps_of_a_training_wait_for_no_gpu(tmp_path: Path) -> None:
    waits = []
    for images in (64, 128):
        settings = {"epochs": "1", "images_per_epoch": str(images), "batch_size": "32"}
        settings |= {"held_out": "0", "average_decay": "0.9"}
        with PretendCuda() as cuda:
            run(
                "gaussian",
                "digits-gaussian",
                None,
                tmp_path / f"of-{images}",
                overrides=settings,
                device="cuda",
            )
        waits.append(sum(n for (_, place), n in cuda.syncs.items() if "training" in place))
    assert waits[0] == waits[1]
