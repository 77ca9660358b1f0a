"""`bench verify`: confirm a run by its witnesses, a certification by fresh votes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bench.cli import options
from bench.cli.stored_run import RunChoice, chooses_a_run
from bench.formatting import count, duration, percent
from bench.runs.devices import torch_device

if TYPE_CHECKING:
    from bench.runs.verify import Verification
    from bench.runs.verify_certificates import CertificateVerification

SHOWN_FAILURES = 20


@click.command("verify")
@chooses_a_run
@options.device
@options.check_batch_size
def command(choice: RunChoice, device: str, batch_size: int) -> None:
    """Confirm a run's robust accuracy as an upper bound by its witnesses; no attack is run.

    Checks each witness against the eps-ball and [0, 1], and runs the candidate once on it. For a
    certification, takes fresh votes at the candidate's witnesses inside certified radii. A suite of
    your own is named by --suite, a submission that was named by its path by --candidate.

    Exit codes: 0 confirmed, 1 not confirmed, 2 wrong usage or input.
    """
    from bench.runs.verify import verify  # torch: slow to import
    from bench.runs.verify_certificates import (
        check_verifiable,
        is_certification,
        verify_certificates,
    )

    run, place = choice.load(check_verifiable), torch_device(device)
    if is_certification(run.summary.manifest):
        votes = verify_certificates(
            run.folder, run.candidate, run.dataset, choice.store, place, batch_size
        )
        _tell_certificates(votes, run.title)
        is_confirmed = votes.is_confirmed
    else:
        result = verify(run.folder, run.candidate, run.dataset, place, batch_size)
        _tell(result, run.title)
        is_confirmed = result.is_confirmed
    sys.exit(0 if is_confirmed else 1)


def _tell(result: Verification, title: str) -> None:
    for line in _lines(result):
        click.echo(line)
    _tell_failures(result.failures)
    verdict = "confirmed" if result.is_confirmed else "NOT confirmed"
    click.echo(
        f"{title}: {verdict}: robust accuracy is at most {percent(result.confirmed)}%, claimed "
        f"{percent(result.claimed)}%"
    )


def _tell_certificates(result: CertificateVerification, title: str) -> None:
    against = sorted(index for index, stands in result.stands.items() if not stands)
    looked_at = len(result.index)
    if not looked_at:
        click.echo(
            "witnesses   none lies inside a certified radius, so there was nothing to check; "
            "attack the candidate first, such as by --protocol standard"
        )
    else:
        click.echo(
            f"witnesses   {count(looked_at)} samples have one inside their certified radius\n"
            f"votes       {count(result.votes)} in {duration(result.seconds)}"
        )
    _tell_failures([f"sample {index}: fresh votes contradict its certificate" for index in against])
    verdict = "not contradicted" if result.is_confirmed else "CONTRADICTED"
    if against and result.is_confirmed:
        verdict = f"{len(against)} of {looked_at} contradicted, no more than chance explains"
    click.echo(
        f"{title}: {verdict}: {percent(result.claimed)}% are right and certified at L2 radius "
        f"{result.radius:g}"
    )


def _tell_failures(failures: Sequence[str]) -> None:
    for failure in failures[:SHOWN_FAILURES]:
        click.echo(f"failed: {failure}")
    if len(failures) > SHOWN_FAILURES:
        click.echo(f"failed: and {len(failures) - SHOWN_FAILURES} more")


def _share(whole: float, part: float, of: str = "") -> str:
    """Return which part of a run's cost the check took; nothing where it was no part of it."""
    return f": 1/{count(whole / part)}{of}" if part and whole >= part else ""


def _lines(result: Verification) -> list[str]:
    each = result.witness_bytes / max(result.witnesses, 1)
    return [
        f"witnesses   {count(result.witnesses)} of {count(result.n_examples)} samples, "
        f"{count(result.witness_bytes)} bytes ({count(each)} each)",
        f"8-bit       robust accuracy {percent(result.eight_bit)}% if witnesses are kept as 8-bit "
        "images",
        f"time        {duration(result.seconds)} of {duration(result.run_seconds)}"
        f"{_share(result.run_seconds, result.seconds, ' of what the run took')}",
        f"passes      {count(result.passes)} of {count(result.run_passes)}"
        f"{_share(result.run_passes, result.passes)}",
        *_unconfirmed(result.unconfirmed),
    ]


def _unconfirmed(failed: int) -> list[str]:
    samples = "1 failed sample" if failed == 1 else f"{count(failed)} failed samples"
    line = f"errors      {samples} cannot be confirmed: an error leaves no witness"
    return [line] if failed else []
