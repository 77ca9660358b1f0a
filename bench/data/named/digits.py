"""The 8x8 grey images of handwritten digits in scikit-learn."""

from __future__ import annotations

from bench.data.dataset import Dataset
from bench.data.registry import NamedDataset, register_dataset
from bench.data.request import Request

TEST_SIZE = 360
SPLIT_SEED = 0


def load(request: Request) -> Dataset:
    """Return samples of a stratified split into 1,437 images and 360 for testing."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)),
        test_size=TEST_SIZE,
        stratify=bunch.target,
        random_state=SPLIT_SEED,
    )
    chosen = np.sort(test if request.split == "test" else train)
    dataset = Dataset.whole(
        "digits",
        torch.from_numpy(bunch.images[chosen] / 16.0).float().unsqueeze(1),
        torch.from_numpy(bunch.target[chosen]).long(),
        tuple(str(digit) for digit in bunch.target_names),
    )
    return dataset.take(request.choose(dataset.size))


register_dataset(
    NamedDataset(
        name="digits",
        shape=(1, 8, 8),
        test_size=TEST_SIZE,
        load=load,
        mean=(0.3053,),
        standard_deviation=(0.3760,),
        radii={"Linf": 0.2, "L2": 0.5},
    )
)
