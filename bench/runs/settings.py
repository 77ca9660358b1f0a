"""How a suite is run: each field is an option, also of the command line.

Settings are plain data, as users write them. `bench.runs.manifest` and the kind of run work out
what they mean for a suite and a data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.errors import InputError
from bench.suites import Suite, ThreatModel, check_radius
from bench.suites.suite import ADAPTIVE_PROTOCOL
from bench.suites.suite import Protocol as SuiteProtocol
from bench.validation import parse_fraction
from bench.validation.seeds import LARGEST_SEED

if TYPE_CHECKING:
    import torch

    from bench.candidates import Candidate

# The names that `bench.engines` knows. They are repeated here so that --help imports no torch.
ENGINES = ("fast", "reference")
PRECISIONS = ("float32", "tf32", "bfloat16")
PROCEDURES = ("fixed", "sequential")

SWEEP_STEPS = 20
"""Default number of steps of each search of a sweep's cheap attack."""
SWEEP_TARGETS = 3
"""Default number of target classes of a sweep's targeted APGD."""

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Option:
    """What the command line needs to know about a setting beyond its name and default.

    Attributes:
        text: help text.
        kind: type of the value.
        choices: the allowed values; empty: any.
        minimum, maximum: bounds of a number; None: no bound.
        above_minimum: whether the minimum itself is not allowed.
        shown_default: the default in --help, if it depends on other settings.
    """

    text: str
    kind: type = str
    choices: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    shown_default: str = ""

    def allows(self, value: Any) -> bool:
        """Return whether a value is of the kind and within its bounds; texts are read later."""
        if self.choices:
            return value in self.choices
        if self.kind is str:
            return isinstance(value, str | int | float) and not isinstance(value, bool)
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if not isinstance(value, self.kind if self.kind is int else int | float):
            return False
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return low <= value <= high and not (self.above_minimum and value == low)

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
        words = kinds[self.kind]
        if self.minimum is not None:
            words += f" {'>' if self.above_minimum else '>='} {self.minimum:g}"
        if self.maximum is None:
            return words
        most = str(self.maximum) if isinstance(self.maximum, int) else f"{self.maximum:g}"
        return f"{words} and at most {most}"


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


def _option(default: Any, text: str, kind: type = str, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(text, kind, **more)})


class Audit(Protocol):
    """Says after each round of a growing random selection whether another one is made."""

    @property
    def claims(self) -> tuple[float, ...]:
        """The robust accuracies that are tested, fractions."""

    @property
    def round(self) -> int:
        """How many samples a round has."""

    def reason_to_stop(self, indices: Sequence[int], standing: Set[int]) -> str:
        """Return why no further round is made; "" if one is made.

        Args:
            indices: of the samples attacked so far, in the order of the draw.
            standing: those of them that are right and that nothing broke.
        """


@dataclass(frozen=True)
class Settings:
    """How a suite is run; the text of each field's option explains the field.

    Widths of intervals are in percentage points, radii in the [0, 1] pixel scale, times in seconds
    or as text such as 30m.
    """

    suite: Suite
    device: torch.device = field(default_factory=_cpu)
    n_examples: int | None = _option(
        None, "Take only N samples, the first unless --sample says otherwise (a variant).", int,
        minimum=1,
    )  # fmt: skip
    sample: Literal["first", "random"] = _option(
        "first", "Which N: the first, or drawn at random without replacement.",
        choices=("first", "random"),
    )  # fmt: skip
    sample_seed: int | None = _option(
        None, "Seed of the draw of --sample random.", int, minimum=0, shown_default="0"
    )
    until_width: float | None = _option(
        None,
        "With --sample random: stop when the 95% interval of the robust accuracy is at most so "
        "many points wide.",
        float, minimum=0, maximum=100, above_minimum=True,
    )  # fmt: skip
    budget: str | float | None = _option(
        None, "With --sample random: stop when this time is spent, such as 45s, 30m, 2h."
    )
    every: int = _option(
        1,
        "Take only the first sample and every K-th after it, of the first N of --n-examples (a "
        "variant).",
        int, minimum=1,
    )  # fmt: skip
    protocol: str | None = _option(
        None,
        "A protocol of the suite, usually standard, adaptive or certified; or express. Default: "
        "its only one, or adaptive for mixes, else standard.",
    )
    engine: str | None = _option(
        None, "The engine that attacks.", choices=ENGINES, shown_default="fast"
    )
    procedure: str | None = _option(
        None,
        "How protocol certified draws noise: a fixed number of draws, or only as many as settle "
        "the question.",
        choices=PROCEDURES, shown_default="fixed",
    )  # fmt: skip
    noise_samples: int | None = _option(
        None,
        "With protocol certified: at most N draws for each sample (a variant).",
        int,
        minimum=1,
    )
    batch_size: int | None = _option(
        None, "Samples in one pass. Default: chosen by the engine.", int, minimum=1
    )
    precision: str | None = _option(
        None,
        "Precision of the fast engine's search, whose successes are confirmed in float32 (default: "
        "the fastest of the device that is as strong as float32); for protocol certified, "
        "precision of the classifier that is certified (default: float32).",
        choices=PRECISIONS,
    )  # fmt: skip
    seed: int = _option(
        0, "Seed of all random draws but that of --sample.", int, minimum=0, maximum=LARGEST_SEED
    )  # fmt: skip
    eps: str | float | None = _option(None, "Use another radius, such as 4/255 (a variant).")
    seed_witnesses: bool = _option(
        False, "Try the adversarial images of the suite's earlier runs before any attack.", bool
    )
    until_converged: bool = _option(
        False,
        "Attack what survives with ever larger budgets until they change almost nothing.",
        bool,
    )
    eps_curve: bool = _option(
        False,
        "Look for each sample's smallest perturbation after the attacks, for the whole curve of "
        "robust accuracy against eps.",
        bool,
    )
    flags: Literal["basic", "full"] = _option(
        "basic",
        "Which reliability flags: full adds those that need attacks of their own on a few dozen "
        "samples, also to a run that is complete.",
        choices=("basic", "full"),
    )
    again: bool = _option(False, "Make a new run although a complete one exists.", bool)
    allow_clean_mismatch: bool = _option(
        False, "Attack although the clean accuracy contradicts the published one.", bool
    )
    audit: Audit | None = None
    """With random samples: decides when to stop. No option of commands that run a suite."""

    @property
    def chosen_protocol(self) -> SuiteProtocol:
        """The protocol that is named.

        Raises:
            InputError: none is named, or the suite has no such protocol.
        """
        if self.protocol is None:
            raise InputError("expected a protocol, got none; see `Settings.of_candidate`")
        return self.suite.protocol(self.protocol)

    def of_candidate(self, candidate: Candidate) -> Settings:
        """Return the settings with a protocol: the candidate's default if none is set."""
        if self.protocol is not None:
            return self
        return replace(self, protocol=default_protocol(candidate, self.suite))

    @property
    def threat_model(self) -> ThreatModel:
        """The suite's threat model, with the radius `eps` if it is set.

        Raises:
            InputError: the radius is no number above 0, or its ball holds every image.
        """
        threat_model = self.suite.threat_model
        if self.eps is None:
            return threat_model
        value = parse_fraction(self.eps) if isinstance(self.eps, str) else float(self.eps)
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise InputError(f"--eps: expected a number > 0 such as 0.03 or 8/255, got {self.eps}")
        if threat_model.norm == "Linf" and value > 1:
            raise InputError(
                f"--eps: expected at most 1, since pixels are in [0, 1]; got {self.eps}: did you "
                f"mean {value:g}/255?"
            )
        changed = threat_model.model_copy(update={"eps": value})
        check_radius(changed, self.suite.data, "--eps")
        return changed

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds.

        Raises:
            InputError: it is no time above 0.
        """
        if self.budget is None:
            return None
        if isinstance(self.budget, str):
            number, unit = parse_fraction(self.budget[:-1]), SECONDS.get(self.budget[-1:])
        else:
            number, unit = float(self.budget), 1
        if unit is None or not isinstance(number, float) or not 0 < number < math.inf:
            raise InputError(
                f"--budget: expected a time above 0 such as 45s, 30m or 2h, got {self.budget!r}"
            )
        return number * unit

    def check_values(self) -> None:
        """Refuse values of a wrong type or out of their range, as the command line does.

        Raises:
            InputError: which setting, what was expected, what came.
        """
        for each in fields(self):
            option: Option | None = each.metadata.get("option")
            value = getattr(self, each.name)
            if option is not None and value != each.default and not option.allows(value):
                raise InputError(
                    f"{option_name(each.name)}: expected {option.expected}, got {value!r}"
                )

    def check_for(self, supported: frozenset[str], protocol: str) -> None:
        """Refuse settings that contradict each other, or that the kind of run does not support.

        Args:
            supported: names of the settings in `OPTIONAL` that the kind of run supports.
            protocol: for the message.

        Raises:
            InputError: which setting, and why.
        """
        for each in fields(self):
            is_set = getattr(self, each.name) != each.default
            if each.name in OPTIONAL and is_set and each.name not in supported:
                raise InputError(
                    f"{option_name(each.name)} cannot be used with protocol {protocol}"
                )
        # These properties read texts; asking for them finds a wrong text before anything runs.
        _ = self.threat_model, self.budget_seconds
        if self.sample_seed is not None and self.sample == "first":
            raise InputError("--sample-seed can only be used with --sample random")
        if self.engine == "reference":
            for name in ("seed_witnesses", "until_converged", "eps_curve"):
                if getattr(self, name):
                    raise InputError(f"{option_name(name)} cannot be used with --engine reference")


OPTIONAL = frozenset(
    {
        "engine",
        "procedure",
        "noise_samples",
        "seed_witnesses",
        "until_converged",
        "eps_curve",
        "flags",
    }
)
"""Settings that only some kinds of runs support."""


def option_name(setting: str) -> str:
    """Return a setting's name as the command line writes it."""
    return "--" + setting.replace("_", "-")


def default_protocol(candidate: Candidate, suite: Suite) -> str:
    """Return the default protocol of a candidate.

    A mix, and a candidate that is declared to be random, is attacked adaptively.

    Raises:
        InputError: the suite has several protocols, and none of those.
    """
    needs_adaptive = candidate.mix is not None or candidate.randomized
    adaptive = needs_adaptive and ADAPTIVE_PROTOCOL in suite.protocols
    return ADAPTIVE_PROTOCOL if adaptive else suite.default_protocol
