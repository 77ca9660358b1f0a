"""`bench accept`: keep runs as the results that later ones are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from bench.claims.accepted_records import records_of, update_records
from bench.cli import options
from bench.cli.stored_run import RunChoice, chooses_runs
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.same_candidate import same_candidate
from bench.store.summary import Summary


@click.command("accept")
@chooses_runs
@click.option(
    "--accepted",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the accepted results; it is made if there is none.",
)
@options.device
def command(choices: Sequence[RunChoice], folder: Path, device: str) -> None:
    """Keep complete runs as accepted results, with which `bench check --accepted` compares.

    A run takes the place of an accepted one of the same suite, candidate, protocol, engine and
    samples. Confirm it by `bench verify` first.

    A certification is kept with fresh votes at the adversarial images inside its radii, if other
    runs of the candidate found any. Only then is the candidate loaded: a suite of your own is named
    by --suite, a submission that was named by its path by --candidate.

    Exit codes: 0 all were kept, 2 none was: a run is missing, not complete, or of samples that the
    records cannot name, such as random ones.
    """
    store = choices[0].store
    runs = [store.summary(choice.reference) for choice in choices]
    chosen = {
        run.run: replace(choice, reference=_title(run))
        for run, choice in zip(runs, choices, strict=True)
    }
    records = records_of(store, runs, lambda run: _votes(chosen[run.run], run.manifest, device))
    update_records(folder, records)
    for run in runs:
        click.echo(f"{_title(run)}: accepted in {folder}")


def _title(run: Summary) -> str:
    return f"{run.manifest.suite}/{run.manifest.candidate}@{run.run}"


def _votes(choice: RunChoice, manifest: Manifest, device: str) -> Mapping[int, bool]:
    """Return for samples with a witness inside their radius whether fresh votes let it stand.

    Where nothing has attacked the candidate, it is not even loaded.
    """
    if not _is_attacked(choice.store, manifest):
        return {}
    from bench.runs.devices import torch_device
    from bench.runs.verify_certificates import (  # torch: slow to import
        check_verifiable,
        verify_certificates,
    )

    loaded = choice.load(check_verifiable)
    return verify_certificates(
        loaded.folder, loaded.candidate, loaded.dataset, choice.store, torch_device(device)
    ).stands


def _is_attacked(store: Store, manifest: Manifest) -> bool:
    """Return whether there is a run with witnesses of a certification's candidate."""
    return any(
        folder.is_complete
        and not folder.kind.certifies
        and same_candidate(folder.manifest(), manifest)
        for folder in store.runs(manifest.suite)
    )
