"""Options that several subcommands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers, which "nan" lies in no more than infinity does."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """The number; see `click.ParamType.convert`."""
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", parameter, context)
        return number


_FOLDER = click.Path(file_okay=False, path_type=Path)


def suite(required: bool) -> Callable[[Command], Command]:
    """--suite, by name or path."""
    return click.option(
        "--suite", "suite_name", required=required, help="A suite's name, or the path of its YAML."
    )


def data_dir(command: Command) -> Command:
    """--data-dir, also from BENCH_DATA_DIR."""
    return click.option(
        "--data-dir",
        type=_FOLDER,
        envvar="BENCH_DATA_DIR",
        show_envvar=True,
        help="Where the data sets are, or are downloaded to.",
    )(command)


def model_dir(command: Command) -> Command:
    """--model-dir, also from BENCH_MODEL_DIR."""
    return click.option(
        "--model-dir",
        type=_FOLDER,
        envvar="BENCH_MODEL_DIR",
        show_envvar=True,
        help="Where downloaded weights are kept.",
    )(command)


def results_dir(command: Command) -> Command:
    """--results-dir."""
    return _folder("--results-dir", "results", "Where records are kept.")(command)


def report_dir(command: Command) -> Command:
    """--report-dir."""
    return _folder("--report-dir", "reports", "Where the pages are written.")(command)


def seed(command: Command) -> Command:
    """--seed."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)(command)


def eps(command: Command) -> Command:
    """--eps, a text for `read_radius`."""
    return click.option("--eps", help="Another radius, such as 4/255 (a variant).")(command)


def engine_batch_size(command: Command) -> Command:
    """--batch-size of an attack or a certification."""
    return click.option(
        "--batch-size", type=click.IntRange(min=1), help="Default: the engine's own."
    )(command)


def check_batch_size(command: Command) -> Command:
    """--batch-size where images are only looked at."""
    return click.option("--batch-size", type=click.IntRange(min=1), default=250, show_default=True)(
        command
    )


def device(command: Command) -> Command:
    """--device."""
    return click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    )(command)


def trust_code(command: Command) -> Command:
    """--trust-code."""
    return click.option(
        "--trust-code", is_flag=True, help="Let submissions run their own Python code."
    )(command)


def _folder(option: str, default: str, text: str) -> Callable[[Command], Command]:
    return click.option(option, type=_FOLDER, default=Path(default), show_default=True, help=text)
