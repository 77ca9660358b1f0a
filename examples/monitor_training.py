"""Watch robust accuracy while a small network is trained, with attacks and without.

    python examples/monitor_training.py

trains a classifier of handwritten digits twice: on clean images, and on adversarial ones. After each
epoch a monitor measures both accuracies on a few test images. Trained on clean images the network
learns to be right, and not to be robust.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional

import bench

EPS = 0.2


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--n-examples", type=int, default=128, help="images that are monitored")
    options = parser.parse_args()

    train = bench.data.load("digits", "train")
    test = bench.data.load("digits")
    for attacked in (False, True):
        print("trained on adversarial images" if attacked else "trained on clean images")
        torch.manual_seed(0)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        monitor = bench.RobustnessMonitor(
            images=test.images,
            labels=test.labels,
            threat_model=bench.Linf(EPS),
            n_examples=options.n_examples,
        )
        for epoch in range(options.epochs):
            for rows in torch.randperm(len(train.images)).split(64):
                images, labels = train.images[rows], train.labels[rows]
                if attacked:
                    images = bench.attacks.apgd(model, images, labels, eps=EPS, steps=3)
                loss = functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"  {monitor(model, epoch=epoch)}")


if __name__ == "__main__":
    main()
