"""A sweep: two candidates mixed at many weights, under a cheap attack and in part the full one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from bench.candidates import Candidate, CandidateReference
from bench.candidates.bases import PREFIX
from bench.candidates.identity import digest
from bench.engines.sweep import SweepEngine
from bench.errors import InputError
from bench.plan import Settings
from bench.suites.suite import AttackChoice, Protocol

PROTOCOL = "cheap"
DEFAULT_STEPS = 20
DEFAULT_TARGETS = 3
MOST_ALPHAS = 1000
SYNTAX = "<first>:<last>:<step> or <number>,<number>,..., all in [0, 1]"

INSPECTED_ALPHA = 0.5
"""The weight at which a sweep's candidate is checked: both bases run."""


def read_alphas(text: str, option: str) -> tuple[float, ...]:
    """The weights that `0:1:0.05` (both ends included) or `0.5,0.7` mean, ascending, each once.

    Raises:
        InputError: another form, or a weight outside [0, 1]; `option` is named.
    """
    is_range = ":" in text
    try:
        numbers = [Fraction(part.strip()) for part in text.split(":" if is_range else ",")]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option}: expected {SYNTAX}; got {text!r}") from error
    if is_range:
        if len(numbers) != 3 or numbers[2] <= 0 or numbers[1] < numbers[0]:
            raise InputError(f"{option}: expected {SYNTAX}, ascending; got {text!r}")
        first, last, step = numbers
        if (last - first) / step >= MOST_ALPHAS:
            raise InputError(f"{option}: expected at most {MOST_ALPHAS} weights, got {text!r}")
        _check_weights((first, last), text, option)
        numbers = [first + step * place for place in range(int((last - first) / step) + 1)]
    _check_weights(numbers, text, option)
    return tuple(sorted({float(number) for number in numbers}))


def _check_weights(numbers: Sequence[Fraction], text: str, option: str) -> None:
    for number in numbers:
        if not 0 <= number <= 1:
            raise InputError(
                f"{option}: expected weights in [0, 1], got {float(number):g} in {text!r}"
            )


def mix_name(
    accurate: str,
    robust: str,
    alpha: float | None = None,
    accurate_scale: float | None = None,
    robust_scale: float | None = None,
) -> str:
    """The name of a mix, as `--candidate` takes it; without alpha that of a sweep."""
    short = None if alpha is None else f"{alpha:g}"
    exact = short if short is None or float(short) == alpha else repr(alpha)
    given = {
        "accurate": accurate,
        "robust": robust,
        "alpha": exact,
        "accurate_scale": accurate_scale,
        "robust_scale": robust_scale,
    }
    return PREFIX + ",".join(f"{key}={value}" for key, value in given.items() if value is not None)


def sweep_candidate(reference: CandidateReference, name: str) -> Candidate:
    """The mix that is swept, at `INSPECTED_ALPHA`.

    Args:
        reference: of the mix at that weight.
        name: of the sweep.

    Raises:
        InputError: bases that do not go together, or a randomized one.
    """
    candidate = reference.load()
    if candidate.randomized:
        raise InputError(
            f"{name}: expected bases that answer alike each time, since a sweep asks them once an "
            "image; got a randomized one. Run its mixes one by one with `bench run`"
        )
    # Of all weights at once: no run of a mix at one weight is a run of the same candidate.
    definition = digest({"sweep": candidate.definition_sha256})
    return replace(candidate, name=name, definition_sha256=definition)


def sweep_settings(
    settings: Settings, alphas: Sequence[float], steps: int, targets: int
) -> Settings:
    """The settings of a sweep under a suite.

    Args:
        settings: of the full protocol's runs.
        alphas: ascending.
        steps: of each search.
        targets: of targeted APGD.
    """
    cheap = Protocol(
        attacks=(
            AttackChoice(name="apgd-ce", parameters={"steps": steps}),
            AttackChoice(name="apgd-t", parameters={"steps": steps, "targets": targets}),
        )
    )
    return replace(
        settings,
        suite=settings.suite.model_copy(update={"protocols": {PROTOCOL: cheap}}),
        engine=SweepEngine(alphas, settings.engine.precision),
        protocol=PROTOCOL,
    )
