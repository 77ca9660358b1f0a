"""`bench train`: train a shipped recipe again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options
from bench.errors import InputError
from bench.formatting import duration, percent
from bench.runs.devices import torch_device

if TYPE_CHECKING:
    from bench.training import TrainingProgress, TriedNumbers


@click.command("train")
@click.option("--recipe", required=True, help="A recipe's name, see `bench list recipes`.")
@click.option("--dataset", help="Use the recipe's preset for this data set.")
@click.option("--preset", help="Or use this preset, see `bench list recipes`.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The submission's folder, which is created.  [default: submissions/<preset>]",
)
@options.data_dir
@options.seed
@options.device
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting that differs from the preset's, such as epochs=3; repeatable. "
    "`bench list recipes RECIPE` lists a recipe's settings.",
)
@click.option("--resume", is_flag=True, help="Continue from the folder's checkpoint.")
def command(
    recipe: str,
    dataset: str | None,
    preset: str | None,
    out: Path | None,
    data_dir: Path | None,
    seed: int,
    device: str,
    assignments: tuple[str, ...],
    resume: bool,
) -> None:
    """Train a recipe and write the submission: its weights and its submission.yaml."""
    from bench.training import preset_for, run  # torch: slow to import

    if (preset is None) == (dataset is None):
        raise InputError(
            "expected one of --dataset and --preset, got "
            + ("neither" if preset is None else "both")
        )
    chosen = preset or preset_for(recipe, str(dataset))
    folder = out or Path("submissions") / chosen
    overrides = dict(_assignment(text) for text in assignments)
    submission = run(
        recipe,
        chosen,
        data_dir,
        folder,
        seed,
        overrides,
        _Lines(),
        resume,
        str(torch_device(device)),
    )
    click.echo(f"submission {submission.name}: {folder}")


class _Lines:
    """Prints a line for each epoch, and for each of a mix's numbers that were tried."""

    def __init__(self) -> None:
        self._epoch = 0

    def __call__(self, progress: TrainingProgress | TriedNumbers) -> None:
        from bench.training import TriedNumbers

        if isinstance(progress, TriedNumbers):
            click.echo(_tried(progress))
            return
        if progress.epoch == self._epoch:
            return
        self._epoch = progress.epoch
        left = progress.seconds / progress.step * (progress.steps - progress.step)
        line = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
        measured = progress.measurement
        if measured is not None:
            line += f", held-out clean {percent(measured.clean_accuracy)}%"
            if measured.robust_accuracy is not None:
                line += f", PGD {percent(measured.robust_accuracy)}%"
        click.echo(f"{line}, {duration(left)} left")


def _tried(tried: TriedNumbers) -> str:
    what = " ".join(f"{name}={value:g}" for name, value in tried.numbers.items())
    line = f"held-out images, {what or 'robust base'}: clean {percent(tried.clean_accuracy)}%, "
    if tried.is_robust_enough:
        return f"{line}attacked {percent(tried.attacked_accuracy)}%"
    return (
        f"{line}attacked at most {percent(tried.attacked_accuracy)}%, "
        f"{percent(tried.required)}% needed"
    )


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set: expected KEY=VALUE, got {text!r}")
    return key, value
