"""Images in folders: read as needed, cropped by the training's own draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bench.training
from bench.errors import InputError
from bench.training.data import FolderData, random_box
from bench.training.draws import generator_for

unit = st.floats(0, 1, exclude_max=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images of different sizes, each of one grey."""
    for number, (name, size) in enumerate(
        [("cat/a", (40, 30)), ("cat/b", (30, 50)), ("dog/c", (64, 64)), ("dog/d", (300, 260))]
    ):
        path = tmp_path / "data" / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size[::-1], 3), 60 * number, np.uint8)).save(path)
    return tmp_path / "data"


def test_images_are_read_in_the_order_asked_for(folder: Path) -> None:
    data = FolderData("imagenet", folder / "train")
    assert data.labels.tolist() == [0, 0, 1, 1]
    chosen = torch.tensor([3, 0, 2])
    for images in (data.images[chosen], data.images.random_crops(chosen, generator_for(0))):
        assert images.shape == (3, 3, 224, 224)
        torch.testing.assert_close(images.mean((1, 2, 3)), torch.tensor([180, 0, 120]) / 255)


@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    draws=st.lists(st.tuples(unit, unit, unit, unit), min_size=1, max_size=10),
)
def test_parts_lie_inside_the_image(
    size: tuple[int, int], draws: list[tuple[float, float, float, float]]
) -> None:
    left, top, right, bottom = random_box(size, draws)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_imagenet_presets_train_from_a_folder(folder: Path, tmp_path: Path) -> None:
    changes = {
        "architecture": "bench.candidates.architectures:residual_network",
        "architecture_args": {"num_classes": 2, "widths": [4], "blocks": [1], "stem_stride": 4},
        "epochs": 1,
    }
    written = bench.training.run(
        "gaussian", "imagenet-gaussian", folder, tmp_path / "out", 0, changes
    )
    assert written.dataset == "imagenet"
    with pytest.raises(InputError, match="expected a folder with one subfolder"):
        bench.training.run("gaussian", "imagenet-gaussian", tmp_path, tmp_path / "no", 0, changes)
    (folder / "train" / "cat" / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.png: expected an image"):
        FolderData("imagenet", folder / "train").images[torch.tensor([0])]
