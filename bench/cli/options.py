"""Options that several subcommands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.runs.settings import Option, Settings, option_name
from bench.validation.seeds import LARGEST_SEED

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of finite numbers: it includes neither NaN nor infinity."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return the number; see `click.ParamType.convert`."""
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", parameter, context)
        return number


_FOLDER = click.Path(file_okay=False, path_type=Path)


def suite(required: bool) -> Callable[[Command], Command]:
    """Add --suite, by name or path."""
    return click.option(
        "--suite", "suite_name", required=required, help="A suite's name, or the path of its YAML."
    )


def data_dir(command: Command) -> Command:
    """Add --data-dir, also read from BENCH_DATA_DIR."""
    return click.option(
        "--data-dir",
        type=_FOLDER,
        envvar="BENCH_DATA_DIR",
        show_envvar=True,
        help="Folder of the data sets; missing ones are downloaded to it.",
    )(command)


def model_dir(command: Command) -> Command:
    """Add --model-dir, also read from BENCH_MODEL_DIR."""
    return click.option(
        "--model-dir",
        type=_FOLDER,
        envvar="BENCH_MODEL_DIR",
        show_envvar=True,
        help="Folder for downloaded weights.",
    )(command)


def architecture(command: Command) -> Command:
    """Add --architecture."""
    return click.option(
        "--architecture",
        help="What builds the network of a weights file: package.module:function, timm:NAME or "
        "torchvision:NAME.",
    )(command)


def results_dir(command: Command) -> Command:
    """Add --results-dir."""
    return _folder("--results-dir", "results", "Folder of the records.")(command)


def report_dir(command: Command) -> Command:
    """Add --report-dir."""
    return _folder("--report-dir", "reports", "Folder for the pages.")(command)


def seed(command: Command) -> Command:
    """Add --seed."""
    kind = click.IntRange(0, LARGEST_SEED)
    return click.option("--seed", type=kind, default=0, show_default=True)(command)


def of_settings(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds options for all settings of a run, or for those named.

    The options' values are passed as keyword arguments with the settings' names.
    """

    def decorate(command: Command) -> Command:
        chosen = [each for each in fields(Settings) if "option" in each.metadata]
        for each in reversed(chosen):  # click lists the outermost decorator first
            if not names or each.name in names:
                command = _of_setting(each)(command)
        return command

    return decorate


def _of_setting(setting: Field[Any]) -> Callable[[Command], Command]:
    option: Option = setting.metadata["option"]
    name = option_name(setting.name)
    if option.kind is bool:
        return click.option(name, is_flag=True, help=option.text)
    kind: Any = None
    if option.choices:
        kind = click.Choice(option.choices)
    elif option.kind is int:
        kind = click.IntRange(_whole(option.minimum), _whole(option.maximum))
    elif option.kind is float:
        kind = FiniteRange(option.minimum, option.maximum, min_open=option.above_minimum)
    shown = option.shown_default or (setting.default is not None and setting.default != 1)
    return click.option(
        name, type=kind, default=setting.default, show_default=shown, help=option.text
    )


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def check_batch_size(command: Command) -> Command:
    """Add --batch-size, for commands that attack nothing."""
    return click.option("--batch-size", type=click.IntRange(min=1), default=250, show_default=True)(
        command
    )


def device(command: Command) -> Command:
    """Add --device."""
    return click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    )(command)


def executor(command: Command) -> Command:
    """Add --executor, --workers and --gpus-per-worker."""
    for option in (
        click.option(
            "--gpus-per-worker",
            type=FiniteRange(min=0),
            help="With --executor ray: GPUs of each worker, fractions too. Default: 1 where the "
            "cluster has GPUs.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="How many workers. Default: as many as there are GPUs, or cores.",
        ),
        click.option(
            "--executor",
            "executor_text",
            default="local",
            show_default=True,
            help="Where the work is done: local (this machine), local:N (N processes of it), ray "
            "(the cluster that RAY_ADDRESS names, or one on this machine alone) or ray:HOST:PORT.",
        ),
    ):
        command = option(command)
    return command


def trust_code(command: Command) -> Command:
    """Add --trust-code."""
    return click.option(
        "--trust-code", is_flag=True, help="Allow submissions to run their own Python code."
    )(command)


def _folder(option: str, default: str, text: str) -> Callable[[Command], Command]:
    return click.option(option, type=_FOLDER, default=Path(default), show_default=True, help=text)
