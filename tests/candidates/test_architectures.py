"""Architectures: shapes, normalisation inside the network, stages that can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.candidates import architectures
from bench.candidates.whitened import whitened_network

SMALL = {"widths": (8, 16), "blocks": (1, 2), "stem_channels": 8}

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int]] = {
    "residual": (lambda: architectures.residual_network(100, **SMALL), (3, 32, 32), 100),
    "residual-stride": (
        lambda: architectures.residual_network(
            7, **SMALL, stem_stride=2, first_stride=2, activation="silu"
        ),
        (3, 32, 32),
        7,
    ),
    "residual-gelu": (
        lambda: architectures.residual_network(7, **SMALL, activation="gelu"),
        (3, 32, 32),
        7,
    ),
    "whitened": (lambda: whitened_network(7, widths=(8, 16)), (3, 32, 32), 7),
    "mirroring": (
        lambda: whitened_network(7, widths=(8, 16), average_mirrored=True),
        (3, 32, 32),
        7,
    ),
    "digits": (architectures.digits_network, (1, 8, 8), 10),
    "wide": (
        lambda: architectures.wide_resnet(100, depth=10, width=1, activation="silu"),
        (3, 32, 32),
        100,
    ),
    "pyautoattack": (architectures.pyautoattack_resnet18, (3, 32, 32), 10),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_architecture_maps_images_in_either_memory_format_to_logits(name: str) -> None:
    make, shape, classes = NETWORKS[name]
    network = make().eval()
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = network(images)
    assert logits.shape == (3, classes)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.shape == images.shape
    assert gradient.isfinite().all()
    in_channels_last = network.to(memory_format=torch.channels_last)(
        images.detach().to(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(in_channels_last, logits, rtol=1e-3, atol=1e-4)


def test_a_mirroring_network_answers_an_image_and_its_mirror_image_alike() -> None:
    network = whitened_network(7, widths=(8, 16), average_mirrored=True)
    network.whitening.normal_(generator=torch.Generator().manual_seed(1))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mirrored = images.flip(3)
    plain = whitened_network(7, widths=(8, 16)).eval()
    plain.load_state_dict(network.state_dict())
    network.eval()
    torch.testing.assert_close(network(images), network(mirrored))
    torch.testing.assert_close(network(images), (plain(images) + plain(mirrored)) / 2)
    # One view is trained at a time.
    assert not network.train()(images).allclose(network(mirrored))


def test_the_normalisation_belongs_to_the_network_but_not_to_its_weights() -> None:
    arguments = {"in_channels": 1, "mean": [0.5], "standard_deviation": [0.25]}
    network = architectures.residual_network(10, **SMALL, **arguments)  # type: ignore[arg-type]
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(network.normalization(images), (images - 0.5) / 0.25)
    assert not any(name.startswith("normalization") for name in network.state_dict())


def test_stages_halve_the_resolution_and_can_be_read_by_name() -> None:
    network = architectures.residual_network(10, **SMALL).eval()
    shapes = {}
    for name in ("stages.0", "stages.1"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.update({name: output.shape})
        )
    network(torch.rand(2, 3, 32, 32))
    assert shapes == {"stages.0": (2, 8, 32, 32), "stages.1": (2, 16, 16, 16)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "tanh"}, "expected an activation among relu"),
        ({"blocks": (1,)}, "expected one number of blocks for each width, got 1 for 3"),
        ({"in_channels": 1}, "expected a mean for each of 1 channels, got 3"),
        ({"standard_deviation": (1.0, 0.0, 1.0)}, "expected standard deviations > 0"),
        ({"mean": (0.0,) * 3, "standard_deviation": (1.0,)}, "got 3 and 1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architectures.residual_network(10, **arguments)  # type: ignore[arg-type]


def test_a_wide_resnet_has_a_depth_of_the_form_6_n_plus_4() -> None:
    with pytest.raises(ValueError, match="got 17"):
        architectures.wide_resnet(10, depth=17)
