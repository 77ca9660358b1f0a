"""What a training asks of a GPU; on a pretend one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import loop, run
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


def test_a_training_rounds_no_product_to_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def step(*arguments: Any) -> Any:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return run_step(*arguments)

    run_step = loop._Training._run_step
    monkeypatch.setattr(loop._Training, "_run_step", step)
    before = torch.backends.cudnn.allow_tf32
    settings = {"epochs": "1", "images_per_epoch": "32", "batch_size": "32", "held_out": "0"}
    run("gaussian", "digits-gaussian", None, tmp_path / "network", overrides=settings)
    assert seen == [(False, False)]
    assert torch.backends.cudnn.allow_tf32 is before
