"""Float32 is float32 whatever the process was set to, and the setting is as it was afterwards."""

from __future__ import annotations

import subprocess
import sys

import torch

NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")

SETTINGS = [
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    *(
        [
            "torch.backends.fp32_precision = 'tf32'",
            "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
            "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
            "torch.backends.mkldnn.set_flags(_fp32_precision='bf16')",
            "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
            "torch.backends.cudnn.fp32_precision = 'tf32'; torch.backends.cudnn.allow_tf32 = False",
        ]
        if NEW
        else []
    ),
]

SCRIPT = """
import os
import sys

import torch
from bench import data
from bench.runs.evaluation import Evaluation
from bench.runs.session import inspect
from bench.runs.settings import Settings
from bench.candidates import Candidate
from bench.precision import tensor_cores
from bench.suites import load_suite

NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")

def read(get):
    try:
        return get()
    except RuntimeError:
        return "the interfaces disagree"

def state():
    new = [
        torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn,
        torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.mkldnn,
        torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn,
    ] if NEW else []
    return [
        *(each.fp32_precision for each in new),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
        read(lambda: torch.backends.cudnn.allow_tf32),
        read(torch.get_float32_matmul_precision),
    ]

def check(allowed):
    # Both interfaces can be read and agree.
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
    if NEW:
        backends = torch.backends
        for each in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            assert (each.fp32_precision == "tf32") is allowed
        for each in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
            assert each.fp32_precision in ("none", "ieee")

def run(setting):
    exec(setting)
    before = state()
    for allowed in (True, False):
        with tensor_cores(allowed):
            check(allowed)
            with tensor_cores(not allowed):
                check(not allowed)
            check(allowed)
        assert state() == before, (setting, before, state())

    def seen(images):
        check(False)
        return network(images)

    class Checking(torch.nn.Module):
        def forward(self, images):
            return seen(images)

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    suite = load_suite("digits-linf")
    settings = Settings(suite, protocol="standard", n_examples=4)
    samples = data.load("digits").first(4)
    inspect(Candidate("it", Checking().eval(), {}, ""), samples, settings, Evaluation())
    assert state() == before, (setting, before, state())

# The settings are the process's: each has one of its own.
failed = []
for setting in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(setting)
            code = 0
        except Exception as error:
            print(setting, type(error).__name__, error, file=sys.stderr, flush=True)
        os._exit(code)
    if os.waitpid(child, 0)[1]:
        failed.append(setting)
sys.exit(len(failed))
"""


def test_a_precision_holds_by_both_interfaces_and_is_undone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *SETTINGS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
