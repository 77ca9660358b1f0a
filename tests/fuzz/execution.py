"""Runs a case's commands within this process and holds them against what must come of them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from unittest.mock import patch

import numpy as np
import torch
from click.testing import CliRunner, Result

from bench.cli import main
from tests.fuzz.case import Case, Step
from tests.fuzz.generate import make_case

SECONDS = 20
"""Of processor time that a command may take."""

VALIDATORS_WORDS = re.compile(
    r"Input should|Extra inputs|validation error|Value error|unable to parse|valid dictionary|"
    r"valid integer|valid string|Field required|pydantic",
)
"""Of pydantic's messages, which say nothing to the author of a file."""

PYTHONS_WORDS = re.compile(
    r"Traceback|object has no attribute|not subscriptable|not iterable|<class '|"
    r"__\w+__|numpy\.dtype|0x[0-9a-f]{6}"
)
"""Of errors inside Python, which a message may show only if a submission's own code raised them."""

CODES = frozenset({0, 1, 2, 3})


@dataclass(frozen=True)
class Failure:
    """What is wrong with a case.

    Attributes:
        rule: which rule is broken; failures of one cause share it.
        detail: what came.
        output: of the command.
    """

    number: int
    kind: str
    what: str
    rule: str
    detail: str
    output: str
    folder: Path

    def __str__(self) -> str:
        return (
            f"case {self.number}: {self.kind}: {self.what}\n  {self.rule}: {self.detail}\n"
            f"  files: {self.folder}\n"
            f"  again: python -m tests.fuzz --case {self.number}\n"
            + "\n".join(f"  | {line}" for line in self.output.strip().splitlines()[-25:])
        )


class _TooLong(BaseException):
    """Raised by the timer; not an Exception, so that nothing that is evaluated catches it."""


def run_case(number: int, folder: Path) -> Failure | None:
    """Make a case in an empty folder and run it; None if all is as it must be."""
    folder.mkdir(parents=True, exist_ok=True)
    with _restored_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(number)
        case = make_case(number, folder)
        for step in case.steps:
            step.prepare()
            failure, ended = _run_step(number, folder, case, step)
            if failure is not None or ended:
                return failure
    return None


def _run_step(number: int, folder: Path, case: Case, step: Step) -> tuple[Failure | None, bool]:
    """Run one command; what is wrong with it, and whether the case ends here."""
    result = None
    # Pages take longer than the rest of a small run.
    spared = number % 4 and step.arguments[0] in ("run", "sweep")
    pages = patch("bench.pages.build.build_report") if spared else contextlib.nullcontext()
    with _foreign_state(), pages, contextlib.suppress(_TooLong), _time_limit(SECONDS):
        result = CliRunner().invoke(main, step.arguments)
    complaint, ended = _judge(step, result)
    if complaint is None:
        return None, ended
    output = f"bench {' '.join(step.arguments)}\n{result.output if result else ''}"
    return Failure(number, case.kind, case.what, *complaint, output, folder), True


def _judge(step: Step, result: Result | None) -> tuple[tuple[str, str] | None, bool]:
    """The rule that a command broke with what came, if any, and whether the case ends here."""
    if result is None:
        return ("time", f"more than {SECONDS} s of processor time"), True
    error, code = result.exception, result.exit_code
    if error is not None and not isinstance(error, SystemExit):
        return ("traceback", _shown(error)), True
    if code not in CODES | step.codes:
        return ("exit code", f"{code}, documented are {sorted(CODES)}"), True
    if code == 0:
        if step.outcome == "refuse":
            return ("accepted", "expected a refusal, got exit 0"), True
        found = step.check(result.output)
        return (found[0].split(":")[0], "; ".join(found)) if found else None, False
    if step.outcome == "accept":
        return ("refused", f"expected exit 0, got {code}"), True
    if code not in step.codes:
        return ("exit code", f"{code}, expected {sorted(step.codes)}"), True
    return _wrong_words(step, result.output), not step.goes_on


def _wrong_words(step: Step, output: str) -> tuple[str, str] | None:
    """What is wrong with the message of a refusal."""
    if not output.strip():
        return "silent", "no message"
    if words := VALIDATORS_WORDS.search(output):
        return "validator's wording", words[0]
    if (words := PYTHONS_WORDS.search(output)) and "model.py" not in output:
        return "Python's wording", words[0]
    if step.names and not any(name in output for name in step.names):
        return "unnamed", f"expected one of {', '.join(step.names)} in the message"
    return None


def _shown(error: BaseException) -> str:
    """Type, text and the innermost place within bench."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}bench{os.sep}" in frame.filename]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    # Of this process, so that a busy machine makes no difference.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def _foreign_state() -> Iterator[None]:
    """Undo what a submission's code changes in this process beside its own modules."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


@contextlib.contextmanager
def _restored_state() -> Iterator[None]:
    environment, modules = dict(os.environ), set(sys.modules)
    state, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), _foreign_state():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(arrays)
        os.environ.clear()
        os.environ.update(environment)
        for name in set(sys.modules) - modules:
            if name.startswith(("bench_submission_", "fuzz_reference_")):
                del sys.modules[name]
