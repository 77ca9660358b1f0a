"""Digits, and a small network with batch norm and dropout in the middle of its training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bench
from bench import data


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Test images (N, 1, 8, 8) in [0, 1] and labels."""
    dataset = data.load("digits", "test")
    return dataset.images, dataset.labels


def small_network() -> nn.Sequential:
    """Return an untrained network, in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 10),
    )


def train(network: nn.Module, epochs: int) -> None:
    """Train on the digits, with random noise, by one large batch an epoch."""
    train_set = data.load("digits", "train")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(network(train_set.images), train_set.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture
def network() -> nn.Sequential:
    """A trained network in training mode, with gradients."""
    trained = small_network()
    train(trained, 40)
    return trained


@pytest.fixture
def monitor(digits: tuple[Tensor, Tensor]) -> bench.RobustnessMonitor:
    """A monitor of 64 digits under an Linf threat model."""
    images, labels = digits
    return bench.RobustnessMonitor(
        images=images, labels=labels, threat_model=bench.Linf(0.1), n_examples=64
    )
