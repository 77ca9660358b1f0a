"""Architectures in a submission's own model.py, of many kinds, and what they answer.

Each kind is Python text with a function `build`. The answers are those of the same text, built and
loaded here by torch alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from tests.fuzz.case import Draws, Outcome
from tests.fuzz.problem import Array, Images

_HEAD = """\
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

C, H, W, K = {shape}
HERE = Path(__file__).parent

"""

_LINEAR = """
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K))
"""

_CLASS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
{init}

    def forward(self, x):
{forward}


def build():
    return Net()
"""


def net(forward: str, init: str = "self.fc = nn.Linear(C * H * W, K)") -> str:
    """The text of a module with a forward pass and what its constructor makes."""

    def indent(text: str) -> str:
        return "\n".join(8 * " " + line for line in text.split("\n"))

    return _CLASS.format(init=indent(init), forward=indent(forward))


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        code: of model.py, below the common head.
        outcome: of an evaluation.
        linear: whether its logits are linear in the image, the weights being the linear layer's.
        rounding: relative difference of logits that means nothing.
        flags: of which the run must raise one, unless empty.
        randomized: whether two answers differ; declared so.
        answers_of_one_call: whether an image has an answer of its own, whatever is beside it.
        reference: whether pyautoattack can attack it without help.
        codes: exit codes if it is not evaluated.
        has_weights: whether there is anything to save.
        verifiable: whether it is the same candidate each time it is built.
    """

    code: str
    outcome: Outcome = "accept"
    linear: bool = False
    rounding: float = 1e-4
    flags: tuple[str, ...] = ()
    randomized: bool = False
    answers_of_one_call: bool = True
    reference: bool = True
    codes: frozenset[int] = frozenset({2})
    has_weights: bool = True
    verifiable: bool = True


_FAILS_LATE = frozenset({1, 2})
_FC = "return self.fc(x.flatten(1))"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "linear": Kind(_LINEAR, linear=True),
        "linear in float64": Kind(
            net(
                "return self.fc(x.flatten(1).double()).float()",
                "self.fc = nn.Linear(C * H * W, K).double()",
            ),
            linear=True,
        ),
        "logits in float64": Kind(
            net(
                "return self.fc(x.flatten(1).double())",
                "self.fc = nn.Linear(C * H * W, K).double()",
            ),
            linear=True,
        ),
        "half precision": Kind(
            net("return self.fc(x.flatten(1).half())", "self.fc = nn.Linear(C * H * W, K).half()"),
            rounding=2e-2,
            flags=("low-precision-logits",),
        ),
        "bfloat16 inside": Kind(
            net(
                "return self.fc(x.flatten(1).bfloat16()).float()",
                "self.fc = nn.Linear(C * H * W, K).bfloat16()",
            ),
            rounding=5e-2,
        ),
        "autocast": Kind(
            net(
                "with torch.autocast('cpu', torch.bfloat16):\n"
                "    y = self.fc(x.flatten(1))\n"
                "return y.float()"
            ),
            rounding=5e-2,
        ),
        "convolutions with batch norm": Kind(
            """
def build():
    return nn.Sequential(
        nn.Conv2d(C, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, K),
    )
"""
        ),
        "batch norm without statistics": Kind(
            """
def build():
    return nn.Sequential(
        nn.Conv2d(C, 6, 3, padding=1), nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * H * W, K),
    )
""",
            flags=("batch-dependent",),
            answers_of_one_call=False,
        ),
        "batch norm without weights": Kind(
            """
def build():
    return nn.Sequential(
        nn.BatchNorm2d(C, affine=False), nn.Conv2d(C, 6, 3), nn.BatchNorm2d(6, affine=False),
        nn.Tanh(), nn.Flatten(), nn.Linear(6 * (H - 2) * (W - 2), K),
    )
"""
        ),
        "functional batch norm": Kind(
            net(
                "x = F.batch_norm(x, self.mean, self.var, training=False)\n" + _FC,
                "self.fc = nn.Linear(C * H * W, K)\n"
                "self.register_buffer('mean', torch.full((C,), 0.5))\n"
                "self.register_buffer('var', torch.full((C,), 0.1))",
            )
        ),
        "layer norm": Kind(
            """
def build():
    return nn.Sequential(
        nn.Flatten(), nn.LayerNorm(C * H * W), nn.Linear(C * H * W, 8), nn.GELU(),
        nn.LayerNorm(8), nn.Linear(8, K),
    )
"""
        ),
        "group and instance norm": Kind(
            """
def build():
    return nn.Sequential(
        nn.Conv2d(C, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU(),
        nn.Conv2d(6, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.ELU(),
        nn.Flatten(), nn.Linear(6 * H * W, K),
    )
"""
        ),
        "spectral norm, old": Kind(
            """
def build():
    return nn.Sequential(
        nn.utils.spectral_norm(nn.Conv2d(C, 4, 3, padding=1)), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.utils.spectral_norm(nn.Linear(4 * H * W, K)),
    )
"""
        ),
        "spectral norm, parametrized": Kind(
            """
def build():
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        norm(nn.Conv2d(C, 4, 3, padding=1)), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        norm(nn.Linear(4 * H * W, K)),
    )
"""
        ),
        "weight norm, old": Kind(
            """
def build():
    return nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(C, 4, 3, padding=1)), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * H * W, K),
    )
"""
        ),
        "weight norm, parametrized": Kind(
            """
def build():
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        norm(nn.Conv2d(C, 4, 3, padding=1)), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        norm(nn.Linear(4 * H * W, K)),
    )
"""
        ),
        "pruned": Kind(
            """
from torch.nn.utils import prune


def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 12), nn.ReLU(), nn.Linear(12, K))
    prune.l1_unstructured(net[1], "weight", amount=0.5)
    return net
"""
        ),
        "attention": Kind(
            net(
                "tokens = self.embed(x.flatten(2).transpose(1, 2)) + self.position\n"
                "y, _ = self.attention(tokens, tokens, tokens, need_weights=False)\n"
                "return self.fc(self.norm(y + tokens).mean(dim=1))",
                "self.embed = nn.Linear(C, 8)\n"
                "self.position = nn.Parameter(torch.randn(1, H * W, 8))\n"
                "self.attention = nn.MultiheadAttention(8, 2, batch_first=True)\n"
                "self.norm = nn.LayerNorm(8)\n"
                "self.fc = nn.Linear(8, K)",
            )
        ),
        "transformer encoder": Kind(
            net(
                "y = self.encoder(self.embed(x.flatten(2).transpose(1, 2)))\n"
                "return self.fc(y[:, 0])",
                "self.embed = nn.Linear(C, 8)\n"
                "layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)\n"
                "self.encoder = nn.TransformerEncoder(layer, 1)\n"
                "self.fc = nn.Linear(8, K)",
            )
        ),
        "gru over rows": Kind(
            net(
                "y, _ = self.rnn(x.transpose(1, 2).flatten(2))\nreturn self.fc(y[:, -1])",
                "self.rnn = nn.GRU(C * W, 8, batch_first=True)\nself.fc = nn.Linear(8, K)",
            )
        ),
        "tied weights": Kind(
            net(
                "y = F.relu(self.first(x.flatten(1)))\nreturn self.fc(F.relu(self.second(y)))",
                "self.first = nn.Linear(C * H * W, C * H * W)\n"
                "self.second = nn.Linear(C * H * W, C * H * W)\n"
                "self.second.weight = self.first.weight\n"
                "self.fc = nn.Linear(C * H * W, K)",
            )
        ),
        "view after convolution": Kind(
            net(
                "y = F.relu(self.conv(x))\nreturn self.fc(y.view(y.shape[0], -1))",
                "self.conv = nn.Conv2d(C, 4, 3, padding=1)\nself.fc = nn.Linear(4 * H * W, K)",
            )
        ),
        "strides read": Kind(
            net(
                "y = self.conv(x)\n"
                "y = y.as_strided(y.shape, (y[0].numel(), H * W, W, 1))\n"
                "return self.fc(y.flatten(1))",
                "self.conv = nn.Conv2d(C, 4, 3, padding=1)\nself.fc = nn.Linear(4 * H * W, K)",
            ),
            outcome="either",
            codes=_FAILS_LATE,
        ),
        "input changed in place": Kind(
            net("x.sub_(0.5).mul_(3)\n" + _FC), flags=("changes-input",), reference=False
        ),
        "in-place activations": Kind(
            """
def build():
    return nn.Sequential(
        nn.Conv2d(C, 4, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1, inplace=True), nn.Flatten(), nn.Linear(4 * H * W, K),
    )
"""
        ),
        "forward hooks": Kind(
            """
def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 12), nn.ReLU(), nn.Linear(12, K))
    net[1].register_forward_hook(lambda module, given, y: 2 * y - 1)
    net[3].register_forward_pre_hook(lambda module, given: (given[0].sqrt(),))
    return net
"""
        ),
        "hook on batch norm": Kind(
            """
def build():
    net = nn.Sequential(
        nn.Conv2d(C, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * H * W, K),
    )
    net[0].register_forward_hook(lambda module, given, y: y.square())
    net[1].register_forward_hook(lambda module, given, y: y + 1)
    return net
"""
        ),
        "subclass of batch norm": Kind(
            """
class Shifted(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + x


def build():
    return nn.Sequential(
        nn.Conv2d(C, 4, 3, padding=1), Shifted(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * H * W, K),
    )
"""
        ),
        "convolution used twice": Kind(
            net(
                "y = self.norm(self.conv(x))\nreturn self.fc(F.relu(self.conv(y)).flatten(1))",
                "self.conv = nn.Conv2d(C, C, 3, padding=1)\nself.norm = nn.BatchNorm2d(C)\n"
                "self.fc = nn.Linear(C * H * W, K)",
            )
        ),
        "plain tensor attribute": Kind(
            net(
                "return self.fc(x.flatten(1)) @ self.turn",
                "self.fc = nn.Linear(C * H * W, K)\nself.turn = torch.eye(K).roll(1, 0)",
            )
        ),
        "buffer that is not saved": Kind(
            net(
                "return self.fc(x.flatten(1)) * self.sign",
                "self.fc = nn.Linear(C * H * W, K)\n"
                "self.register_buffer('sign', -torch.ones(K), persistent=False)",
            )
        ),
        "children in a plain list": Kind(
            net(
                "return sum(part(x.flatten(1)) for part in self.parts)",
                "torch.manual_seed(5)\nself.parts = [nn.Linear(C * H * W, K) for _ in range(3)]",
            ),
            has_weights=False,
        ),
        "children in a plain list with dropout": Kind(
            net(
                "return sum(part(x.flatten(1)) for part in self.parts)",
                "torch.manual_seed(6)\n"
                "self.parts = [nn.Sequential(nn.Dropout(0.5), nn.Linear(C * H * W, K)).eval()\n"
                "              for _ in range(2)]",
            ),
            has_weights=False,
        ),
        "settings from a file": Kind(
            net(
                "return self.fc(x.flatten(1)).roll(self.roll, 1)",
                "self.fc = nn.Linear(C * H * W, K)\n"
                "self.roll = json.loads((HERE / 'config.json').read_text())['roll']",
            )
        ),
        "weights from its own file": Kind(
            net(
                "return x.flatten(1) @ self.weight.to(x)",
                "self.weight = torch.from_numpy(np.load(HERE / 'own.npy'))",
            ),
            has_weights=False,
        ),
        "probabilities": Kind(
            net("return self.fc(x.flatten(1)).softmax(dim=1)"), flags=("probabilities",)
        ),
        "log probabilities": Kind(net("return self.fc(x.flatten(1)).log_softmax(dim=1)")),
        "huge logits": Kind(net("return 1e30 * self.fc(x.flatten(1))"), linear=False),
        "logits near the largest number": Kind(
            net("y = self.fc(x.flatten(1))\nreturn 3e38 * y / y.abs().max(1, True)[0]"),
            outcome="either",
        ),
        "tiny logits": Kind(net("return 1e-30 * self.fc(x.flatten(1))")),
        "large common offset": Kind(net("return self.fc(x.flatten(1)) + 1e6"), rounding=1e-6),
        "constant": Kind(net("return 0 * self.fc(x.flatten(1)) + torch.arange(K, 0., -1.)")),
        "ties": Kind(net("return 0 * self.fc(x.flatten(1))")),
        "rounded logits": Kind(net("return self.fc(x.flatten(1)).mul(2).round()")),
        "quantised input": Kind(
            net("return self.fc((x * 4).round().div(4).flatten(1))"),
            flags=("zero-gradients", "stopped-gradients"),
        ),
        "no gradient": Kind(
            net("with torch.no_grad():\n    return self.fc(x.flatten(1))"),
            reference=False,
            flags=("zero-gradients", "stopped-gradients"),
        ),
        "inference mode": Kind(
            net("with torch.inference_mode():\n    return self.fc(x.flatten(1))"),
            reference=False,
            flags=("zero-gradients", "stopped-gradients"),
        ),
        "numpy inside": Kind(
            net(
                "y = x.detach().numpy().reshape(len(x), -1)\n"
                "return torch.from_numpy(y @ self.fc.weight.detach().numpy().T)"
            ),
            reference=False,
            flags=("zero-gradients", "stopped-gradients"),
        ),
        "frozen parameters": Kind(
            """
def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K))
    return net.requires_grad_(False)
""",
            linear=True,
        ),
        "custom gradient": Kind(
            """
class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        return g


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(C * H * W, K)

    def forward(self, x):
        return self.fc(Sign.apply(x - 0.5).flatten(1))


def build():
    return Net()
"""
        ),
        "checkpointing": Kind(
            net(
                "from torch.utils.checkpoint import checkpoint\n"
                "y = checkpoint(self.first, x, use_reentrant=False)\n"
                "return self.fc(y.flatten(1))",
                "self.first = nn.Sequential(nn.Conv2d(C, 4, 3, padding=1), nn.ReLU())\n"
                "self.fc = nn.Linear(4 * H * W, K)",
            )
        ),
        "complex numbers": Kind(
            net("return self.fc(torch.fft.fft2(x).abs().flatten(1))"),
        ),
        "gradients computed inside": Kind(
            net(
                "with torch.enable_grad():\n"
                "    z = x.detach().requires_grad_()\n"
                "    g, = torch.autograd.grad(self.fc(z.flatten(1)).logsumexp(1).sum(), z)\n"
                "return self.fc((x - 0.1 * g).flatten(1))"
            ),
            flags=("gradients-in-forward", "stopped-gradients"),
        ),
        "traced": Kind(
            """
def build():
    net = nn.Sequential(nn.Conv2d(C, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                        nn.Linear(4 * H * W, K)).eval()
    return torch.jit.trace(net, torch.rand(2, C, H, W))
"""
        ),
        "scripted": Kind(
            """
def build():
    return torch.jit.script(nn.Sequential(
        nn.Conv2d(C, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * H * W, K)))
"""
        ),
        "scripted child": Kind(
            """
def build():
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(C, 4, 3, padding=1), nn.BatchNorm2d(4)))
    return nn.Sequential(inner, nn.ReLU(), nn.Flatten(), nn.Linear(4 * H * W, K))
"""
        ),
        "quantised": Kind(
            """
def build():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 12), nn.ReLU(), nn.Linear(12, K))
    return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)
""",
            outcome="either",
            codes=_FAILS_LATE,
            has_weights=False,
            rounding=5e-2,
            answers_of_one_call=False,
        ),
        "not a number on dark images": Kind(
            net(
                "y = self.fc(x.flatten(1))\n"
                "return torch.where(x.flatten(1).mean(1, True) < 0.47, torch.nan, y)"
            ),
            outcome="either",
        ),
        "one class not a number": Kind(
            net(
                "y = self.fc(x.flatten(1)).clone()\n"
                "dark = x.flatten(1).mean(1) < 0.47\n"
                "y[dark, 1] = torch.nan\n"
                "return y"
            ),
            outcome="either",
        ),
        "infinite on bright images": Kind(
            net(
                "y = self.fc(x.flatten(1)).clone()\n"
                "y[x.flatten(1).mean(1) > 0.53, K - 1] = torch.inf\n"
                "return y"
            ),
            outcome="either",
        ),
        "not a number off the grid": Kind(
            net(
                "y = self.fc(x.flatten(1))\n"
                "off = ((255 * x) - (255 * x).round()).abs().flatten(1).amax(1, True) > 1e-2\n"
                "return torch.where(off, torch.nan, y)"
            ),
        ),
        "noise": Kind(
            net("return self.fc(x.flatten(1)) + 0.02 * torch.randn(len(x), K)"), randomized=True
        ),
        "dropout that stays on": Kind(
            net(
                "return self.fc(F.dropout(x.flatten(1), 0.1, training=True))",
            ),
            randomized=True,
        ),
        "noise that is not declared": Kind(
            net("return self.fc(x.flatten(1)) + 0.02 * torch.randn(len(x), K)"),
            flags=("randomized",),
            answers_of_one_call=False,
            reference=False,
        ),
        "made at random": Kind(
            _LINEAR, has_weights=False, answers_of_one_call=False, verifiable=False
        ),
        "prints": Kind(net("print('called', x.shape)\n" + _FC), linear=True),
        "warns": Kind(net("import warnings\nwarnings.warn('old function')\n" + _FC), linear=True),
        "a stateful counter": Kind(
            net(
                "self.calls += 1\n" + _FC,
                "self.fc = nn.Linear(C * H * W, K)\nself.calls = 0",
            ),
            linear=True,
        ),
        "an output buffer that is used again": Kind(
            net(
                "out = self.out[:len(x)]\n"
                "with torch.no_grad():\n"
                "    out.copy_(self.fc(x.flatten(1)))\n"
                "return out",
                "self.fc = nn.Linear(C * H * W, K)\nself.out = torch.zeros(4096, K)",
            ),
            reference=False,
            flags=("zero-gradients", "stopped-gradients"),
        ),
        "cannot be copied": Kind(
            net(
                _FC,
                "import threading\nself.fc = nn.Linear(C * H * W, K)\nself.lock = threading.Lock()",
            ),
            linear=True,
        ),
        "a lambda inside": Kind(
            net(
                "return self.head(x)",
                "self.fc = nn.Linear(C * H * W, K)\nself.head = lambda x: self.fc(x.flatten(1))",
            ),
            outcome="either",
            codes=_FAILS_LATE,
        ),
        "default dtype changed": Kind(
            "\ntorch.set_default_dtype(torch.float64)\n"
            + net("return self.fc(x.flatten(1).double()).float()"),
            linear=True,
            reference=False,
        ),
        "gradients switched off at import": Kind(
            "\ntorch.set_grad_enabled(False)\n" + _LINEAR, linear=True
        ),
        "seed set in forward": Kind(net("torch.manual_seed(0)\n" + _FC), linear=True),
        "only float32 accepted": Kind(
            net("assert x.dtype == torch.float32 and x.is_contiguous()\n" + _FC), linear=True
        ),
        "only under no_grad": Kind(
            net("assert not x.requires_grad\n" + _FC),
            outcome="either",
            codes=_FAILS_LATE,
        ),
        "train overridden": Kind(
            net("return self.fc(x.flatten(1)) * (1 if self.training else -1)")
            + "\n\nNet.train = lambda self, mode=True: self\n",
            flags=("training-mode",),
        ),
        "answers as a tuple": Kind(net("return self.fc(x.flatten(1)), x"), outcome="refuse"),
        "answers as a dictionary": Kind(
            net("return {'logits': self.fc(x.flatten(1))}"), outcome="refuse"
        ),
        "answers as classes": Kind(net("return self.fc(x.flatten(1)).argmax(1)"), outcome="refuse"),
        "answers of whole numbers": Kind(
            net("return self.fc(x.flatten(1)).long()"), outcome="refuse"
        ),
        "complex answers": Kind(
            net("return self.fc(x.flatten(1)).to(torch.complex64)"), outcome="refuse"
        ),
        "answers as numpy": Kind(
            net("return self.fc(x.flatten(1)).detach().numpy()"), outcome="refuse"
        ),
        "answers None": Kind(net("self.fc(x.flatten(1))"), outcome="refuse"),
        "a class too many": Kind(
            net(_FC, "self.fc = nn.Linear(C * H * W, K + 1)"), outcome="refuse"
        ),
        "a class too few": Kind(
            net(_FC, "self.fc = nn.Linear(C * H * W, K - 1)"), outcome="refuse"
        ),
        "answers of four dimensions": Kind(
            net("return self.fc(x.flatten(1))[:, :, None, None]"), outcome="refuse"
        ),
        "squeezed": Kind(net("return self.fc(x.flatten(1)).squeeze()"), outcome="either"),
        "raises": Kind(net("raise ValueError('bad {x}\\nnews %s')"), outcome="refuse"),
        "raises an assertion without text": Kind(net("assert False"), outcome="refuse"),
        "raises on one image": Kind(net("assert len(x) > 1\n" + _FC), outcome="refuse"),
        "raises off the grid": Kind(
            net("assert ((255 * x) - (255 * x).round()).abs().max() < 1e-2, 'off'\n" + _FC),
            outcome="either",
            codes=_FAILS_LATE,
        ),
        "exits in forward": Kind(net("raise SystemExit(0)"), outcome="refuse"),
        "exits off the grid": Kind(
            net(
                "if ((255 * x) - (255 * x).round()).abs().max() > 1e-2:\n    raise SystemExit\n"
                + _FC
            ),
            outcome="either",
            codes=_FAILS_LATE,
        ),
        "interrupts in forward": Kind(
            net("raise KeyboardInterrupt"), outcome="refuse", codes=frozenset({1, 2, 130})
        ),
        "exits at import": Kind(
            "\nimport sys\n\nsys.exit(0)\n", outcome="refuse", has_weights=False
        ),
        "exits in build": Kind(
            "\ndef build():\n    exit(0)\n", outcome="refuse", has_weights=False
        ),
        "raises at import": Kind("\n1 / 0\n", outcome="refuse", has_weights=False),
        "syntax error": Kind("\ndef build(:\n", outcome="refuse", has_weights=False),
        "null byte": Kind("\ndef build():\n    return '\0'\n", outcome="refuse", has_weights=False),
        "missing import": Kind(
            "\nimport no_such_package_anywhere\n", outcome="refuse", has_weights=False
        ),
        "build is no function": Kind("\nbuild = 3\n", outcome="refuse", has_weights=False),
        "build returns a function": Kind(
            "\ndef build():\n    return lambda x: x\n", outcome="refuse", has_weights=False
        ),
        "build returns a class": Kind(
            "\ndef build():\n    return nn.Linear\n", outcome="refuse", has_weights=False
        ),
        "build wants arguments": Kind(
            "\ndef build(width):\n    return nn.Linear(width, K)\n",
            outcome="refuse",
            has_weights=False,
        ),
        "wrong input size": Kind(
            "\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W + 1, K))\n",
            outcome="refuse",
        ),
        "lazy layers": Kind(
            "\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(K))\n",
            outcome="either",
            has_weights=False,
            codes=_FAILS_LATE,
            answers_of_one_call=False,
            verifiable=False,
        ),
        "on the meta device": Kind(
            "\ndef build():\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K, device='meta'))\n",
            outcome="refuse",
            has_weights=False,
            codes=_FAILS_LATE,
        ),
        "missing no parameters": Kind(
            net("return x.flatten(1)[:, :K] * 4", "pass"), has_weights=False
        ),
    }
)


@dataclass(frozen=True)
class Network:
    """A network as it was written into a folder.

    Attributes:
        name: of its kind.
        state: its weights; None if there are none to save.
        module: the same network, built and loaded without bench; None if that is not possible.
    """

    name: str
    kind: Kind
    shape: tuple[int, int, int]
    classes: int
    state: dict[str, Tensor] | None
    module: nn.Module | None

    def logits(self, images: Images) -> Array:
        """Answers (n, K) to images (n, C, H, W)."""
        assert self.module is not None
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            answers: Tensor = self.module(torch.from_numpy(images.copy()))
        numbers: Array = answers.detach().clone().double().numpy()
        return numbers

    def linear(self) -> tuple[Array, Array] | None:
        """Weight (K, D) and bias (K,), where it is linear."""
        if not self.kind.linear or self.module is None:
            return None
        layers = [each for each in self.module.modules() if isinstance(each, nn.Linear)]
        weight = layers[-1].weight.detach().double().numpy()
        bias = layers[-1].bias.detach().double().numpy()
        return weight, bias


_numbers = itertools.count()


def write_network(
    folder: Path, name: str, shape: tuple[int, int, int], classes: int, draws: Draws
) -> Network:
    """Write model.py and the files that it reads, and draw weights for it."""
    kind = KINDS[name]
    head = _HEAD.format(shape=", ".join(map(str, (*shape, classes))))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(head + kind.code)
    if "config.json" in kind.code:
        (folder / "config.json").write_text(json.dumps({"roll": 1}))
    if "own.npy" in kind.code:
        weight = draws.numbers.normal(size=(int(np.prod(shape)), classes))
        np.save(folder / "own.npy", weight.astype(np.float32))
    seed = draws.seed()
    module = build(folder, seed)
    state = None
    if module is not None and kind.has_weights:
        _spread(module)
        state = {key: value.clone() for key, value in module.state_dict().items()}
        again = build(folder, seed + 1)
        assert again is not None
        again.load_state_dict(state)
        module = again
    return Network(name, kind, shape, classes, state, module)


def build(folder: Path, seed: int) -> nn.Module | None:
    """The network of a folder's model.py without bench; None if that raises."""
    package = f"fuzz_reference_{next(_numbers)}"
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = importlib.util.module_from_spec(spec)
    name = f"{package}.model"
    file_spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    assert file_spec is not None
    assert file_spec.loader is not None
    code = importlib.util.module_from_spec(file_spec)
    sys.modules[name] = code
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            file_spec.loader.exec_module(code)
            function: Callable[[], object] = code.build
            made = function()
        except (Exception, SystemExit):
            return None
    return made.eval() if isinstance(made, nn.Module) else None


def _spread(module: nn.Module) -> None:
    """Give weights and batch norms' statistics a spread that makes images differ."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.2, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.05, 0.5)
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point() and parameter.dim() > 1 and "norm" not in name:
                parameter.mul_(2)
