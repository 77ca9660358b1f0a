"""`bench import-witnesses`: adversarial images that others found."""

from __future__ import annotations

from pathlib import Path

import click

from bench import data
from bench.cli import options
from bench.formatting import percent
from bench.runs.devices import torch_device
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.best_known import best_known, newest_evaluation
from bench.store.summary import AttackedSummary
from bench.suites import load_suite


@click.command("import-witnesses")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.suite(required=True)
@click.option("--candidate", "name", required=True, help="One candidate, named as for `bench run`.")
@click.option("--source", required=True, help="Who found the images, and how.")
@options.architecture
@options.results_dir
@options.data_dir
@options.model_dir
@options.device
@options.check_batch_size
@options.trust_code
def command(
    file: Path,
    suite_name: str,
    name: str,
    source: str,
    architecture: str | None,
    results_dir: Path,
    data_dir: Path | None,
    model_dir: Path | None,
    device: str,
    batch_size: int,
    trust_code: bool,
) -> None:
    """Check adversarial images that others found, and keep those that break their samples.

    FILE holds tensors or arrays (.pt, .pth, .npy, .npz): the first n test images, perturbed, or
    images with their places as `index`. AutoAttack's and torchattacks' archives are known. They are
    kept as a run of their own, which lowers the best-known robust accuracy where it breaks a sample
    that survived.
    """
    from bench.candidates.named.model_files import with_architecture  # torch: slow to import
    from bench.candidates.registry import find_candidate
    from bench.runs.imported_witnesses import import_witnesses, read_images

    imported = read_images(file)
    suite = load_suite(suite_name)
    (name,) = with_architecture((name,), architecture)
    candidate = find_candidate(name, suite, model_dir, trust_code).load()
    dataset = data.load_source(suite.data, data_dir, suite.n_examples, candidate.preprocessing)
    settings = Settings(
        suite, torch_device(device), protocol=suite.attacking_protocol, batch_size=batch_size
    )
    store = Store(results_dir)
    outcome = import_witnesses(imported, source, candidate, dataset, settings, store, click.echo)
    summary = outcome.summary
    assert isinstance(summary, AttackedSummary)
    broken = sum(attack.broken for attack in summary.attacks)
    known = " (imported before)" if outcome.reused else ""
    click.echo(
        f"{suite.name}/{candidate.name}@{summary.run}: {broken} of {summary.n_examples} images "
        f"break their samples{known}"
    )
    joined = best_known(store, newest_evaluation(store, summary) or summary)
    click.echo(
        f"best known robust accuracy of @{joined.run}: {percent(joined.robust_accuracy)}%, "
        f"{joined.lowered} samples below its own {percent(joined.own_accuracy)}%"
    )
