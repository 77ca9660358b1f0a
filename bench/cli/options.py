"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

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
    return click.option(
        "--results-dir",
        type=_FOLDER,
        default=Path("results"),
        show_default=True,
        help="Where records are kept.",
    )(command)


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
