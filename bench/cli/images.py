"""`bench images`: write a run's adversarial images as files, and say which still fool it."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options
from bench.cli.stored_run import RunChoice, chooses_a_run
from bench.formatting import count, percent
from bench.runs.devices import torch_device


@click.command("images")
@chooses_a_run
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the images.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Take only N, different attacks and classes first. Default: all.",
)
@options.device
@options.check_batch_size
def command(choice: RunChoice, out: Path, limit: int | None, device: str, batch_size: int) -> None:
    """Write clean, adversarial and difference images of the samples that a run broke, as PNG.

    A PNG has 8 bits a channel, and rounding may undo an attack. Each adversarial image is rounded
    inside the eps-ball and run through the candidate; index.csv says which still fool it.
    """
    run = choice.load()
    from bench.export.images import INDEX, write_images
    from bench.runs.eight_bit_files import eight_bit_files  # torch: slow to import

    files = eight_bit_files(
        run.folder, run.candidate, run.dataset, torch_device(device), batch_size, limit
    )
    title, threat = run.title, run.summary.manifest.threat_model
    if files is None:
        click.echo(f"{title}: no attack broke a sample, so there is no image to write")
        return
    classes = run.dataset.classes

    def named(label: int) -> str:
        return classes[label] if 0 <= label < len(classes) else "no answer"

    rows = [
        {
            "index": index,
            "label": label,
            "class": named(label),
            "attack": attack,
            "prediction": prediction,
            "predicted_class": named(prediction),
            "eight_bit_prediction": rounded,
            "still_fools": "yes" if fools else "no",
        }
        for index, label, attack, prediction, rounded, fools in zip(
            files.index.tolist(),
            files.labels.tolist(),
            files.attack.tolist(),
            files.prediction.tolist(),
            files.eight_bit_prediction.tolist(),
            files.fools.tolist(),
            strict=True,
        )
    ]
    write_images(out, rows, files.clean, files.adversarial, threat.norm, threat.eps)
    still, n = int(files.fools.sum()), len(rows)
    click.echo(
        f"{title}: {count(still)} of {count(n)} images ({percent(still / n)}%) still fool the "
        "candidate as 8-bit files"
    )
    click.echo(f"images: {out}\nindex:  {out / INDEX}")
