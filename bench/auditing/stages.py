"""The stages of an audit, in the candidate's process; each adds to the records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bench import data
from bench.attacks import ATTACKS
from bench.auditing.claims import Claim
from bench.auditing.decision import (
    EARLY,
    MARGIN,
    Undecided,
    broken_by_given,
    levels,
    robust_verdict,
    undecided,
)
from bench.auditing.isolation import Kept
from bench.auditing.records import (
    FILE,
    AttackLine,
    Clean,
    GivenRun,
    GivenWitnesses,
    Isolation,
    Loaded,
    Order,
    Records,
    Rounds,
    Trouble,
)
from bench.candidates import Candidate
from bench.candidates.named.model_files import with_architecture
from bench.candidates.registry import find_candidate
from bench.data import Dataset
from bench.decision import classes_of
from bench.engines.engine import GRADIENT_COST
from bench.errors import FOREIGN_ERRORS, BenchError, raised
from bench.executors.progress import Progress
from bench.formatting import duration
from bench.memory.out_of_memory import with_as_many_as_fit
from bench.plugins import load_plugins
from bench.precision import tensor_cores
from bench.runs.capabilities import applicable, capabilities
from bench.runs.devices import torch_device
from bench.runs.fingerprint import fingerprint
from bench.runs.imported_witnesses import import_witnesses, read_images
from bench.runs.samples import Samples
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.runs.verify import check_kind, verify
from bench.store import RunFolder, Store
from bench.store.files import write_json
from bench.store.selection import dataset_of, permutation
from bench.store.summary import ExpressSummary
from bench.suites import Suite, load_suite

RECORDS = "records"
"""Folder of the audit's own runs."""

CLEAN_SHARE = 0.3
"""Of the budget, that predictions of the whole test set may take; otherwise a part is predicted."""
PART_SHARE = 0.1
"""Of the budget, that the part takes."""
ATTACK_SHARE = 0.6
"""Of the budget, after which no further round of attacks is begun; flags have the rest."""
FLAG_EFFORT = 5
"""What the flags that need attacks of their own take of an image that stands, in the protocol's own
gradient attacks: four times the steps, and larger radii."""
FLAG_IMAGES = 32

ROUND_SIZES = (100, 50, 25, 10)
ROUNDS_IN_BUDGET = 3
PASSES_AN_IMAGE = 60
"""About what an express evaluation takes, for the choice of a round's size only."""
TIMED_IMAGES = 32
BATCH = 100
MOST_RUNS = 5
SHOWN_PARAMETERS = (int, float, str, bool)


class Log:
    """The records so far; written as a whole whenever they change."""

    def __init__(self, path: Path, isolation: Isolation) -> None:
        self.path = path
        self.records = Records(isolation=isolation)
        self.write()

    def write(self) -> None:
        """Write the records."""
        write_json(self.path, self.records)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note a stage; what foreign code raises in it is written down, and the audit goes on."""
        self.records.stage = name
        self.write()
        try:
            yield
        except BenchError as error:
            self.trouble(name, str(error))
        except FOREIGN_ERRORS as error:
            self.trouble(name, raised(error))
        self.write()

    def trouble(self, stage: str, reason: str, is_failure: bool = True) -> None:
        """Write down that a stage failed or was left out."""
        line = " ".join(reason.split())
        self.records.troubles.append(Trouble(stage=stage, reason=line, is_failure=is_failure))


class Quiet:
    """An observer that keeps what it is told to itself."""

    def progress(self, progress: Progress) -> None:
        """Take note of progress."""

    def notice(self, text: str) -> None:
        """Take a message."""


@dataclass
class Work:
    """What the stages share."""

    order: Order
    suite: Suite
    log: Log
    start: float

    @property
    def spent(self) -> float:
        """Seconds since the process began to work."""
        return time.monotonic() - self.start

    @property
    def budget(self) -> float:
        """Seconds that it has in all."""
        return self.order.budget_seconds

    @property
    def claims(self) -> list[Claim]:
        """What is claimed."""
        return [Claim(name=name, accuracy=value) for name, value in self.order.claims.items()]

    @property
    def data_dir(self) -> Path | None:
        """Folder of the data sets."""
        return None if self.order.data_dir is None else Path(self.order.data_dir)

    @property
    def store(self) -> Store:
        """The audit's own records."""
        return Store(Path(self.order.out) / RECORDS)


def work(order_file: Path, kept: Kept) -> None:
    """Do what an order asks for, stage by stage."""
    start = time.monotonic()
    order = Order.model_validate_json(order_file.read_text(encoding="utf-8"))
    load_plugins()
    log = Log(Path(order.out) / FILE, Isolation(**vars(kept)))
    job = Work(order, load_suite(order.suite), log, start)
    found: list[tuple[Candidate, Dataset, torch.device]] = []
    with log.stage("load"):
        found.append(_load(job))
    for candidate, dataset, device in found:
        with tensor_cores(False):
            with log.stage("clean"):
                log.records.clean = _clean(job, candidate, dataset, device)
            for file in order.witnesses:
                with log.stage(f"witnesses {Path(file).name}"):
                    log.records.witnesses.append(_given(job, file, candidate, dataset, device))
            if order.results is not None:
                with log.stage("results"):
                    _given_runs(job, Path(order.results), candidate, device)
        with log.stage("express"):
            _attack(job, candidate, dataset, device)
    log.records.finished = True
    log.records.stage = "end"
    log.write()


def _load(job: Work) -> tuple[Candidate, Dataset, torch.device]:
    """Load the candidate and the whole test set; note what the candidate is."""
    start = time.monotonic()
    order, suite = job.order, job.suite
    device = torch_device(order.device)
    (name,) = with_architecture((order.candidate,), order.architecture)
    model_dir = None if order.model_dir is None else Path(order.model_dir)
    # Its code may run: this process is there for that.
    candidate = find_candidate(name, suite, model_dir, trust_code=True).load()
    dataset = data.load_source(suite.data, job.data_dir, suite.n_examples, candidate.preprocessing)
    module = candidate.module.to(device)
    few = dataset.images[:4].to(device)
    asked = [
        each.name
        for each in applicable(suite.protocol("express").attacks, candidate, few)
        if each.name in ATTACKS and ATTACKS[each.name].need
    ]
    information = candidate.information
    shape = tuple(dataset.images.shape[1:])
    job.log.records.loaded = Loaded(
        name=candidate.name,
        population=len(dataset),
        weights_sha256=candidate.weights_sha256,
        definition_sha256=candidate.definition_sha256,
        unidentified=list(candidate.unidentified),
        notes=[*information.weights, *information.conversions],
        architecture=information.architecture,
        parameters=sum(each.numel() for each in module.parameters()),
        randomized=candidate.randomized,
        is_mix=candidate.mix is not None,
        has_surrogate=candidate.surrogate is not None,
        sigma=candidate.sigma,
        capabilities=sorted(capabilities(candidate, few)),
        adaptive_attacks=asked,
        declared=[f"{each.norm} {each.eps:.6g}" for each in information.threat_models],
        fingerprint_varies=fingerprint(candidate, shape, device) is None,
        device=str(device),
        seconds=time.monotonic() - start,
    )
    return candidate, dataset, device


def _clean(job: Work, candidate: Candidate, dataset: Dataset, device: torch.device) -> Clean:
    """Predict the whole test set, or as much as a share of the budget pays."""
    start, size = time.monotonic(), len(dataset)
    order = permutation(size, job.order.seed)
    first = order[:TIMED_IMAGES]
    leads_of(candidate, dataset, first[:4], device)  # the first pass is slower
    timed = time.monotonic()
    leads_of(candidate, dataset, first, device)
    each = (time.monotonic() - timed) / len(first)
    affordable, note = size, ""
    if each * size > CLEAN_SHARE * job.budget:
        affordable = min(max(int(PART_SHARE * job.budget / each), len(first)), size)
        note = (
            f"all {size} would take about {each * size:.0f} s of the budget of {job.budget:.0f} s"
        )
    chosen = list(range(size)) if affordable == size else order[:affordable]
    right: list[bool] = []
    margins: list[float] = []
    for begin in range(0, len(chosen), BATCH):
        leads, hits = leads_of(candidate, dataset, chosen[begin : begin + BATCH], device)
        right += hits.tolist()
        margins += leads.tolist()
    return Clean(
        population=size,
        indices=dataset.indices[torch.tensor(chosen)].tolist(),
        right=right,
        margins=margins,
        seconds=time.monotonic() - start,
        note=note,
    )


@torch.no_grad()
def leads_of(
    candidate: Candidate, dataset: Dataset, rows: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return by how much the right class leads (n,), and whether it wins (n,) bool."""
    chosen = torch.tensor(rows)

    def answers(count: int) -> list[Tensor]:
        return [
            candidate.module(dataset.images[part].to(device)).detach().float().cpu()
            for part in torch.split(chosen, count)
        ]

    logits = torch.cat(with_as_many_as_fit(len(rows), answers))
    labels = dataset.labels[chosen]
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    leads = torch.nan_to_num(own - others, nan=-1e6, posinf=1e6, neginf=-1e6)
    return leads, classes_of(logits) == labels


def _given(
    job: Work, file: str, candidate: Candidate, dataset: Dataset, device: torch.device
) -> GivenWitnesses:
    """Check adversarial images that came with the artefact."""
    start, path = time.monotonic(), Path(file)
    settings = Settings(job.suite, device, protocol=job.suite.attacking_protocol, batch_size=BATCH)
    found, images, error = [], 0, ""
    try:
        imported = read_images(path)
        images = len(imported.images)
        made = import_witnesses(
            imported, "came with the artefact", candidate, dataset, settings, job.store
        )
        samples = made.folder.samples()
        found = samples.loc[samples["broken_by"].notna(), "index"].tolist()
    except BenchError as raised_error:
        error = " ".join(str(raised_error).split())
    return GivenWitnesses(
        file=path.name,
        images=images,
        broken=found,
        error=error,
        seconds=time.monotonic() - start,
    )


def _given_runs(job: Work, root: Path, candidate: Candidate, device: torch.device) -> None:
    """Confirm the runs of a folder of results that came with the artefact."""
    folders = [
        each
        for each in Store(root).runs(job.suite.name)
        if each.is_complete and each.kind.has_witnesses
    ]
    own = [each for each in folders if each.manifest().candidate == candidate.name]
    if not own:
        job.log.trouble(
            "results",
            f"{root.name} holds no complete run of {candidate.name} under {job.suite.name} that "
            "has witnesses",
        )
    for folder in own[:MOST_RUNS]:
        job.log.records.runs.append(_given_run(job, folder, candidate, device))
        job.log.write()
    if len(own) > MOST_RUNS:
        job.log.trouble("results", f"{len(own) - MOST_RUNS} further runs were left out", False)


def _given_run(
    job: Work, folder: RunFolder, candidate: Candidate, device: torch.device
) -> GivenRun:
    start = time.monotonic()
    manifest = folder.manifest()
    claimed, n, confirmed, failures, first, error = 0.0, 0, None, 0, "", ""
    broken: list[int] = []
    try:
        summary = folder.summary()
        claimed, n = summary.robust_accuracy, summary.n_examples
        check_kind(manifest)
        samples = folder.samples()
        listed = samples["index"].tolist() if manifest.selection.kind == "listed" else ()
        dataset = dataset_of(manifest, job.suite, job.data_dir, candidate.preprocessing, listed)
        result = verify(folder, candidate, dataset, device, BATCH)
        confirmed, failures = result.confirmed, len(result.failures)
        first = result.failures[0] if result.failures else ""
        if result.is_confirmed:
            broken = samples.loc[samples["broken_by"].notna(), "index"].tolist()
    except BenchError as raised_error:
        error = " ".join(str(raised_error).split())
    return GivenRun(
        run=manifest.run,
        protocol=manifest.protocol,
        n_examples=n,
        claimed=claimed,
        confirmed=confirmed,
        failures=failures,
        first_failure=first,
        error=error,
        is_whole=manifest.selection.kind == "all",
        broken=broken,
        seconds=time.monotonic() - start,
    )


class Decides:
    """Stops the rounds when the claims are decided or the time is spent; writes each round down."""

    def __init__(self, job: Work, left: Undecided, whole: bool, size: int) -> None:
        self.job, self.left, self.round = job, left, size
        share = levels(job.claims, whole)
        self._robust = [(each, share[each.name]) for each in job.claims if not each.is_clean]
        self.claims = tuple(each.accuracy for each, _ in self._robust)
        self._begin = time.monotonic()

    def reason_to_stop(self, indices: Sequence[int], standing: Set[int]) -> str:
        """Return why no further round is made; see `bench.runs.settings.Audit`."""
        reason = self._reason(indices, standing)
        self.job.log.records.rounds = Rounds(
            run="",
            sizes=sizes_of(len(indices), self.round),
            indices=list(indices),
            standing=[index in standing for index in indices],
            ended=reason,
            seconds=time.monotonic() - self._begin,
        )
        self.job.log.write()
        return reason

    def _reason(self, indices: Sequence[int], standing: Set[int]) -> str:
        rounds = self.left.rounds(sizes_of(len(indices), self.round), indices, standing)
        found = [
            robust_verdict(each, self.left, rounds, level, margin=MARGIN - EARLY)
            for each, level in self._robust
        ]
        if found and all(each.outcome != "not decided" for each in found):
            return "every claim is decided"
        made = len(indices) / self.round
        each_round = (time.monotonic() - self._begin) / max(made, 1)
        if self.job.spent + each_round > ATTACK_SHARE_WITH_CLEAN * self.job.budget:
            return "the time is spent"
        return ""


ATTACK_SHARE_WITH_CLEAN = 0.8
"""Of the budget: another round must end before."""


def sizes_of(n: int, size: int) -> list[int]:
    """Return the sizes of the rounds in which n samples were taken."""
    return [min(size, n - begin) for begin in range(0, n, size)]


def _attack(job: Work, candidate: Candidate, dataset: Dataset, device: torch.device) -> None:
    """Attack a random sample that grows, then look for the flags that need attacks of their own."""
    records = job.log.records
    loaded, clean = records.loaded, records.clean
    assert loaded is not None
    if not any(not each.is_clean for each in job.claims):
        job.log.trouble("express", "nothing is claimed of an attacked accuracy", False)
        return
    varies = loaded.randomized or loaded.fingerprint_varies
    left = undecided(len(dataset), clean, broken_by_given(records), varies)
    whole = clean is not None and clean.is_whole and not varies
    decides = Decides(job, left, whole, _round_size(job, clean))
    settings = Settings(
        job.suite,
        device,
        sample="random",
        sample_seed=job.order.seed,
        budget=ATTACK_SHARE * job.budget,
        protocol="express",
        allow_clean_mismatch=True,
        audit=decides,
    )
    samples = Samples(settings, job.data_dir)
    chosen = samples.of(candidate)
    result = evaluate(candidate, chosen, settings, job.store, Quiet())
    _note(job, result, decides)
    records.stage = "flags"
    job.log.write()
    price = _price_of_flags(job, records)
    if job.spent + price > job.budget:
        reason = (
            f"it would take about {duration(price)} of the budget of {duration(job.budget)}, of "
            f"which {duration(job.spent)} were spent"
        )
        job.log.trouble("flags", reason, False)
        return
    begin = time.monotonic()
    full = replace(settings, flags="full")
    result = evaluate(candidate, chosen, full, job.store, Quiet())
    records.full_flags_seconds = time.monotonic() - begin
    _note(job, result, decides)


def _price_of_flags(job: Work, records: Records) -> float:
    """Return about how long the flags that need attacks of their own take, in seconds."""
    rounds = records.rounds
    assert rounds is not None
    passes = sum(each.passes for each in rounds.attacks)
    each_pass = sum(each.seconds for each in rounds.attacks) / max(passes, 1)
    gradients = 0.0
    for choice in job.suite.protocol("express").attacks:
        if choice.name.startswith("apgd"):
            given = {**ATTACKS[choice.name].defaults, **choice.parameters}
            starts = max(int(given.get("targets", 1)), 1) * int(given.get("restarts", 1))
            gradients += float(given["steps"]) * starts
    images = min(sum(rounds.standing), FLAG_IMAGES)
    return each_pass * FLAG_EFFORT * GRADIENT_COST * gradients * images


def _round_size(job: Work, clean: Clean | None) -> int:
    """Return a round's size, such that some rounds fit the budget."""
    each = clean.seconds / max(len(clean.indices), 1) if clean is not None else 0.01
    affordable = ATTACK_SHARE * job.budget / ROUNDS_IN_BUDGET / max(PASSES_AN_IMAGE * each, 1e-9)
    return next((size for size in ROUND_SIZES if size <= affordable), ROUND_SIZES[-1])


def _note(job: Work, result: RunResult, decides: Decides) -> None:
    """Write a finished run down."""
    summary = result.summary
    assert isinstance(summary, ExpressSummary)
    before = job.log.records.rounds
    samples = result.folder.samples().set_index("index")
    drawn = [index for index in _drawn(job, summary) if index in samples.index]
    standing = samples["robust"]
    job.log.records.rounds = Rounds(
        run=f"{summary.manifest.suite}/{summary.manifest.candidate}@{summary.run}",
        sizes=sizes_of(len(drawn), summary.manifest.selection.round or decides.round),
        indices=drawn,
        standing=[bool(standing[index]) for index in drawn],
        ended=before.ended if before is not None and before.ended else "the time is spent",
        seconds=summary.seconds,
        left=None if summary.left is None else min(summary.left.expected, 1.0),
        left_high=None if summary.left is None else min(summary.left.high, 1.0),
        escalated=summary.escalated,
        attacks=[
            AttackLine(
                name=each.name,
                attempted=each.attempted,
                broken=each.broken,
                passes=round(each.forward_passes + GRADIENT_COST * each.backward_passes),
                seconds=each.seconds,
                need=_need(each.name),
                parameters=_parameters(summary, each.name),
            )
            for each in summary.attacks
        ],
        flags=summary.flags,
        flags_checked=summary.flags_checked,
        eight_bit=summary.eight_bit_robust_accuracy,
        power=summary.attack_power,
    )
    job.log.write()


def _drawn(job: Work, summary: ExpressSummary) -> list[int]:
    """Return the whole draw of a run, in its order."""
    selection = summary.manifest.selection
    assert selection.population is not None
    return permutation(selection.population, selection.seed or 0)


def _need(name: str) -> str:
    own = name.removeprefix("express-").removesuffix("-again")  # as the express arms are named
    attack = ATTACKS.get(own)
    return str(attack.need or "") if attack is not None else ""


def _parameters(summary: ExpressSummary, name: str) -> dict[str, float | int | str | bool | None]:
    for each in summary.manifest.attacks:
        if each["name"] == name:
            return {
                key: value
                for key, value in each.get("parameters", {}).items()
                if isinstance(value, SHOWN_PARAMETERS)
            }
    return {}
