"""The command `bench`, its subcommands and its exit codes."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import click

import bench
from bench.cli.stopping import exit_code, stopped
from bench.cli.streams import lenient_streams
from bench.errors import FULL, BenchError, EvaluationError, InputError, Unavailable, full_disk
from bench.plugins import add_plugins, load_plugins

EXIT_CODES: dict[type[BenchError], int] = {InputError: 2, EvaluationError: 1, Unavailable: 3}
COMMANDS = {
    "run": "Evaluate candidates under a suite.",
    "sweep": "Mix two candidates at many weights.",
    "list": "List suites, candidates, attacks, recipes with their settings, or runs.",
    "show": "Show one run: accuracies, attacks, flags, provenance.",
    "status": "Show where a run stands: stages, workers, time left.",
    "diff": "Compare candidates on the same samples.",
    "report": "Write the HTML pages.",
    "images": "Write a run's adversarial images as PNG files.",
    "view": "Serve the pages while runs go on.",
    "audit": "Test what is claimed of a candidate, within a time.",
    "verify": "Confirm a run by its witnesses; no attack is run.",
    "import-witnesses": "Import adversarial images that others found.",
    "check": "Compare results with published and accepted numbers.",
    "accept": "Keep runs as accepted results, for `bench check`.",
    "export": "Write results for RobustBench or for a paper.",
    "train": "Train a shipped recipe again.",
    "import-certify-log": "Import a published certification log.",
}


class _LazyGroup(click.Group):
    """Imports a subcommand when it is called: `bench --help` needs no torch."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"bench.cli.{name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *arguments: Any, **options: Any) -> Any:
        with lenient_streams():
            return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        # torch's warnings are for developers, not for users of this command.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
        try:
            return super().invoke(context)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "bench"
            message = " ".join(error.format_message().split())
            click.echo(f"error: {message} See `{command} --help`.", err=True)
            sys.exit(EXIT_CODES[InputError])
        except BenchError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] == "bench":
                raise  # a bug in bench, not a missing package
            click.echo(f"error: {error}; is it installed?", err=True)
            sys.exit(2)
        except KeyboardInterrupt as stop:
            click.echo(stopped(context.invoked_subcommand), err=True)
            sys.exit(exit_code(stop))
        except OSError as error:
            if error.errno not in FULL:
                raise
            click.echo(f"error: {full_disk(error)}", err=True)
            sys.exit(EXIT_CODES[EvaluationError])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bench.__version__, prog_name="bench")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A Python file that registers an attack or another addition; its code runs. Repeatable.",
)
def main(plugins: tuple[Path, ...]) -> None:
    """Benchmark the accuracy-robustness trade-off of image classifiers."""
    add_plugins(plugins)
    load_plugins()
