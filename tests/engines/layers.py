"""Tiny networks for 8x8 images, one of each kind of layer or wrapper that people bring."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from bench.modules import in_eval_mode

CLASSES = 5


def head(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, CLASSES))


def network(*layers: nn.Module, features: int = 4 * 64) -> nn.Sequential:
    """A convolution, a batch norm that can be folded, what is looked at, and a head."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *layers, head(features)
    )


class Applied(nn.Module):
    """A network with a function in its middle."""

    def __init__(
        self, function: Callable[..., Tensor], features: int = 4 * 64, **parts: nn.Module
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.parts = nn.ModuleDict(parts)
        self.function = function
        self.head = head(features)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.function(self.stem(images), **self.parts)))


class Tied(nn.Module):
    """One convolution used twice, one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.norm = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
        self.down.weight = self.up.weight
        self.head = head(4 * 64)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.convolution(self.first(images))).relu()
        hidden = self.down(self.up(self.convolution(hidden)))
        return cast(Tensor, self.head(hidden))


class Rows(nn.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.recurrent(images[:, 0])[0][:, -1]))


class Attention(nn.Module):
    """Rows as tokens that attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images[:, 0]
        attended, _ = self.attention(tokens, tokens, tokens)
        return cast(Tensor, self.head(self.encoder(attended).mean(dim=1)))


class Vision(nn.Module):
    """A vision transformer of two patches a side, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.position = nn.Parameter(torch.randn(1, 5, 12) / 10)
        self.norm, self.mixed = nn.LayerNorm(12), nn.Linear(12, 36)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1)
        tokens = tokens + self.position
        queries, keys, values = self.mixed(self.norm(tokens)).chunk(3, dim=-1)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return cast(Tensor, self.head((tokens + attended)[:, 0]))


class Doubled(torch.autograd.Function):
    """A function with its own backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 2 * gradients[0]


class Rounded(torch.autograd.Function):
    """A rounding whose author lets gradients pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.round(values * 4) / 4

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class Options(nn.Module):
    """A forward pass with further arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, images: Tensor, scale: float = 2.0, *, shift: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(images) * scale
        return logits if shift is None else logits + shift


class Standardized(nn.Conv2d):
    """Weight standardization by statistics without a graph."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
            deviation = self.weight.std(dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean.detach()) / (deviation + 1e-5)
        return cast(Tensor, self._conv_forward(images, weight, self.bias))


class Counting(nn.Module):
    """Statistics of what passes, which change no answer."""

    seen: Tensor
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen.mul_(0.9).add_(0.1 * images.mean())
        self.last = 0.9 * self.last + 0.1 * images.detach().mean()
        return cast(Tensor, self.body(images))


class Cached(nn.Module):
    """A hook keeps a feature in a dictionary that a copy of the module does not copy."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        features: dict[str, Tensor] = {}
        self.body[2].register_forward_hook(lambda _, __, output: features.__setitem__("it", output))
        self.read = lambda: features["it"]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits + self.read().flatten(1)[:, :CLASSES]


class Stale(nn.Module):
    """A copy's hook writes where its original reads, so that a copy answers with old features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.features = {"it": torch.zeros(1, CLASSES)}
        features = self.features
        self.body.register_forward_hook(lambda _, __, output: features.__setitem__("it", output))

    def forward(self, images: Tensor) -> Tensor:
        self.body(images)
        return 2 * self.features["it"]


class Locked(nn.Module):
    """Something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.lock = threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        with self.lock:
            return cast(Tensor, self.body(images))


class InPlace(nn.Module):
    """Writes into its input, and into a tensor that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(convolution(), nn.Hardswish(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        images.sub_(0.5).div_(0.25)
        padded = torch.zeros_like(images)
        padded[:, :, 1:] = images[:, :, :-1]
        return cast(Tensor, self.body(padded))


class Branching(nn.Module):
    """Control flow that depends on the data, around layers that can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = network(), network()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.first(images)
        return logits if float(images.mean()) > 2 else logits + self.second(images)


class Pixels(nn.Module):
    """An embedding of gray values: no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.head = head(2 * 64)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.embedding((images * 4).round().long())))


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, CLASSES) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([layer(images.flatten(1)) for layer in self.layers]).amax(dim=0)


class Numpy(nn.Module):
    """Leaves PyTorch on the way, and does not detach."""

    def __init__(self) -> None:
        super().__init__()
        self.head = head(64).requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(torch.from_numpy(images.numpy() * 2)))


def shuffled(values: Tensor) -> Tensor:
    n, channels, *size = values.shape
    return values.view(n, 2, channels // 2, *size).transpose(1, 2).reshape(n, channels, *size)


def rotated(values: Tensor) -> Tensor:
    turn = torch.tensor([[0.9, -0.3, 0.0], [0.3, 0.9, 0.0]]).expand(len(values), 2, 3)
    grid = functional.affine_grid(turn, list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, align_corners=False)


def normalized(values: Tensor) -> Tensor:
    return functional.batch_norm(values, torch.zeros(4), torch.ones(4) / 2)


def autocast(values: Tensor, layer: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out: Tensor = layer(values)
    return out.float()


def deterministic(values: Tensor, layer: nn.Module) -> Tensor:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        return cast(Tensor, layer(values))
    finally:
        torch.use_deterministic_algorithms(before)


def filtered(values: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(values)
    return torch.fft.irfft2(spectrum * torch.exp(1j * torch.arange(5.0)), s=(8, 8))


def checkpointed(values: Tensor, layer: nn.Module, *, reentrant: bool) -> Tensor:
    return cast(Tensor, checkpoint(layer, values, use_reentrant=reentrant))


def frozen(values: Tensor, layer: nn.Module) -> Tensor:
    with torch.no_grad():
        scale = layer(torch.ones_like(values)).mean()
    return cast(Tensor, layer(values)) * scale


def convolution(*, norm: bool = False) -> nn.Module:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(layer, nn.BatchNorm2d(4)) if norm else layer


def hooked(layer: int) -> nn.Module:
    module = network()
    module[layer].register_forward_hook(lambda _, __, output: output * 3 + 1)
    return module


def with_hook() -> nn.Module:
    """A hook on the whole network, which a trace of it would not call."""
    module = network()
    module.register_forward_hook(lambda _, __, output: output.flip(1))
    return module


def pruned() -> nn.Module:
    module = network(convolution())
    prune.l1_unstructured(module[0], "weight", amount=0.3)
    prune.random_structured(module[3], "weight", amount=0.5, dim=0)
    return module


def scripted_child() -> nn.Module:
    return nn.Sequential(network(convolution(norm=True))[:4], torch.jit.script(head(4 * 64)))


def traced() -> nn.Module:
    return cast(nn.Module, torch.jit.trace(network().eval(), torch.rand(2, 1, 8, 8)))


def dynamic() -> nn.Module:
    quantize: Any = torch.ao.quantization
    return cast(nn.Module, quantize.quantize_dynamic(network().eval(), {nn.Linear}))


def static() -> nn.Module:
    quantize: Any = torch.ao.quantization
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), head(4 * 64))
    module = nn.Sequential(quantize.QuantStub(), body, quantize.DeQuantStub()).eval()
    module.qconfig = quantize.default_qconfig
    prepared = quantize.prepare(module)
    prepared(torch.rand(8, 1, 8, 8))
    return cast(nn.Module, quantize.convert(prepared))


def old_weight_norm() -> nn.Module:
    layer = nn.utils.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
    return network(layer, nn.BatchNorm2d(4))


def compiled() -> nn.Module:
    return cast(nn.Module, torch.compile(network().eval(), backend="eager"))


def exported() -> nn.Module:
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(
        network().eval(), (torch.rand(2, 1, 8, 8),), dynamic_shapes=shapes
    )
    return program.module()


def timm_vision() -> nn.Module:
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cast(
            nn.Module,
            timm.create_model(
                "vit_tiny_patch16_224",
                img_size=8,
                patch_size=4,
                in_chans=1,
                num_classes=CLASSES,
                embed_dim=12,
                depth=1,
                num_heads=2,
            ),
        )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": network,
    "spectral norm": lambda: network(
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4)
    ),
    "old spectral norm": lambda: network(
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4)
    ),
    "weight norm": lambda: network(
        parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4)
    ),
    "old weight norm": old_weight_norm,
    "orthogonal": lambda: network(nn.Flatten(2), parametrizations.orthogonal(nn.Linear(64, 64))),
    "batch norm without statistics": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False), head(256)
    ),
    "batch norm without affine": lambda: network(
        convolution(), nn.BatchNorm2d(4, affine=False), nn.SiLU()
    ),
    "one dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.GELU(), head(4 * 62)
    ),
    "three dimensions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), head(256)
    ),
    "scripted": lambda: cast(nn.Module, torch.jit.script(network().eval())),
    "traced": traced,
    "scripted child": scripted_child,
    "lazy": lambda: nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)
    ),
    "tied": Tied,
    "in place": InPlace,
    "overwritten": lambda: network(nn.ReLU(inplace=True), nn.Hardswish(inplace=True)),
    "views": lambda: Applied(lambda values: values.view(len(values), 2, -1)[:, :, ::2], 4 * 32),
    "hook on a convolution": lambda: hooked(0),
    "hook on a batch norm": lambda: hooked(1),
    "hook on the network": with_hook,
    "hook that keeps a feature": Cached,
    "copies that share": Stale,
    "functional batch norm": lambda: Applied(normalized),
    "complex": lambda: Applied(filtered),
    "checkpoint": lambda: Applied(
        lambda values, layer: checkpointed(values, layer, reentrant=False), layer=convolution()
    ),
    "reentrant checkpoint": lambda: Applied(
        lambda values, layer: checkpointed(values, layer, reentrant=True), layer=convolution()
    ),
    "custom function": lambda: Applied(lambda values: cast(Tensor, Doubled.apply(values))),
    "straight-through": lambda: Applied(lambda values: cast(Tensor, Rounded.apply(values))),
    "deterministic": lambda: Applied(deterministic, layer=convolution(norm=True)),
    "autocast": lambda: Applied(autocast, layer=convolution(norm=True)),
    "no_grad on weights": lambda: Applied(frozen, layer=convolution(norm=True)),
    "rearranged": lambda: Applied(
        lambda values: values.unflatten(2, (2, 4)).permute(0, 2, 1, 3, 4).contiguous()
    ),
    "attention": Attention,
    "vision transformer": Vision,
    "vision transformer of timm": timm_vision,
    "group norm": lambda: network(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm(8)),
    "dropout left on": lambda: Applied(lambda values: functional.dropout(values, 0.1)),
    "further arguments": Options,
    "data parallel": lambda: nn.DataParallel(network()),
    "compiled": compiled,
    "exported": exported,
    "branching": Branching,
    "recurrent": lambda: Rows(nn.RNN(8, 6, batch_first=True)),
    "long short-term memory": lambda: Rows(nn.LSTM(8, 6, batch_first=True)),
    "gated recurrent": lambda: Rows(nn.GRU(8, 6, batch_first=True)),
    "embedding": Pixels,
    "sampled on a grid": lambda: Applied(rotated),
    "interpolated": lambda: Applied(
        lambda values: functional.interpolate(values, scale_factor=2, mode="bilinear"), 4 * 256
    ),
    "pooled": lambda: network(nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(1), features=4),
    "pixel shuffle": lambda: network(nn.PixelShuffle(2)),
    "depthwise": lambda: network(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.BatchNorm2d(4)),
    "transposed": lambda: network(nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4)),
    "channel shuffle": lambda: Applied(shuffled),
    "softmax": lambda: nn.Sequential(network(), nn.Softmax(dim=1)),
    "activations": lambda: network(nn.PReLU(), nn.Hardswish(), nn.ELU(), nn.Mish()),
    "maxout": Maxout,
    "weight standardization": lambda: nn.Sequential(
        Standardized(1, 4, 3), nn.BatchNorm2d(4), head(4 * 36)
    ),
    "statistics": Counting,
    "pruned": pruned,
    "locked": Locked,
    "through numpy": Numpy,
    "quantized linear layers": dynamic,
    "quantized": static,
}


def build(name: str) -> nn.Module:
    """One of them, with batch norms that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = LAYERS[name]()
        for part in module.modules():
            mean = getattr(part, "running_mean", None)
            if isinstance(mean, Tensor) and mean.is_leaf and not torch.nn.parameter.is_lazy(mean):
                mean.normal_(std=0.3)
                part.running_var.uniform_(0.5, 2)  # type: ignore[operator]
    return in_eval_mode(module)
