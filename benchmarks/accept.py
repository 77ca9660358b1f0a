"""Take finished runs into the project's accepted records, sample by sample.

    python benchmarks/accept.py digits-linf/digits-robust digits-l2/digits-smoothmix@12ab34cd56ef

A newer run of the same candidate under the same suite, protocol, engine and samples replaces the
older one. Run `bench verify` on each before, and `bench check --fill` on the pages after. A
certification is taken with the votes at adversarial images inside its radii, so that attacks on the
same candidate must be there first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.claims import accepted, accepted_samples
from bench.claims.accepted import AcceptedResult, accepted_row
from bench.claims.accepted_samples import (
    AcceptedCertification,
    KeptRun,
    SampleOutcomes,
    accepted_certification,
    sample_outcomes,
)
from bench.cli.stored_run import RunChoice
from bench.runs.verify_certificates import check_verifiable, verify_certificates
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.same_candidate import same_candidate
from bench.store.summary import AttackedSummary, CertifiedSummary

FOLDER = Path(accepted.__file__).parent


def key(row: AcceptedResult | KeptRun) -> tuple[object, ...]:
    """Return what only one record may have."""
    common = row.suite, row.candidate, row.protocol, row.engine
    if isinstance(row, AcceptedResult):
        return *common, row.precision, row.n_examples
    if isinstance(row, SampleOutcomes):
        return *common, row.step, len(row.clean)
    assert isinstance(row, AcceptedCertification)
    return *common, row.step, row.sigma, row.noise_samples, row.procedure, len(row.radii.split())


def joined(
    old: Sequence[AcceptedResult | KeptRun], new: Sequence[AcceptedResult | KeptRun]
) -> list:
    """Return the rows, with a new one in the place of an old one of the same key."""
    return list({key(row): row for row in [*old, *new]}.values())


def votes(store: Store, reference: str, manifest: Manifest) -> dict[int, bool]:
    """Return for samples with a witness inside their radius whether fresh votes let it stand.

    Where nothing has attacked the candidate, it is not even loaded.
    """
    if not any(
        folder.is_complete
        and not folder.kind.certifies
        and same_candidate(folder.manifest(), manifest)
        for folder in store.runs(manifest.suite)
    ):
        return {}
    run = RunChoice(reference, store.root).load(check_verifiable)
    device = torch.device("cpu")
    return verify_certificates(run.folder, run.candidate, run.dataset, store, device).stands


def main(names: Sequence[str]) -> None:
    """Accept runs by name."""
    store = Store(Path("results"))
    results, outcomes, certifications = [], [], []
    for name in names:
        place, _, run = name.partition("@")
        suite, _, candidate = place.partition("/")
        found = [each for each in store.summaries(suite, candidate) if run in ("", each.run)]
        if not found:
            sys.exit(f"{name}: there is no such run")
        for summary in found:
            samples = store.folder(summary.manifest).samples()
            if isinstance(summary, CertifiedSummary):
                stands = votes(store, f"{place}@{summary.run}", summary.manifest)
                certifications.append(accepted_certification(summary, samples, stands))
                continue
            outcomes.append(sample_outcomes(summary, samples))
            if isinstance(summary, AttackedSummary) and summary.manifest.kind == "evaluation":
                results.append(accepted_row(summary))
    accepted.write_accepted(joined(accepted.load_accepted(), results), FOLDER / accepted.FILE)
    accepted_samples.write_sample_outcomes(
        joined(accepted_samples.load_sample_outcomes(), outcomes),
        FOLDER / accepted_samples.SAMPLES_FILE,
    )
    accepted_samples.write_accepted_certifications(
        joined(accepted_samples.load_accepted_certifications(), certifications),
        FOLDER / accepted_samples.CERTIFIED_FILE,
    )
    print(
        f"{len(results)} evaluations, {len(outcomes)} with samples, {len(certifications)} certified"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
