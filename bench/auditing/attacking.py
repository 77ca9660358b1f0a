"""The stage of an audit that attacks: a random sample that grows until the claims are decided."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import replace

import torch

from bench.attacks import ATTACKS
from bench.auditing.decision import broken_by_given, levels
from bench.auditing.job import Job
from bench.auditing.records import AttackLine, Clean, Records, Rounds
from bench.auditing.robust_verdict import EARLY, MARGIN, robust_verdict
from bench.auditing.undecided import Undecided, undecided
from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines.engine import GRADIENT_COST
from bench.executors.progress import Progress
from bench.formatting import duration
from bench.runs.samples import Samples
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store.selection import permutation
from bench.store.summary import ExpressSummary

ATTACK_SHARE = 0.6
"""Share of the budget after which no further round of attacks is begun; flags have the rest."""
ATTACK_SHARE_WITH_CLEAN = 0.8
"""Share of the budget within which another round must end."""
FLAG_EFFORT = 5
"""What the flags that need attacks of their own take of an image that survives, in the protocol's
own gradient attacks: four times the steps, and larger radii."""
FLAG_IMAGES = 32

ROUND_SIZES = (100, 50, 25, 10)
ROUNDS_IN_BUDGET = 3
PASSES_AN_IMAGE = 60
"""About what an express evaluation takes, for the choice of a round's size only."""
SHOWN_PARAMETERS = (int, float, str, bool)


class Quiet:
    """An observer that keeps what it is told to itself."""

    def progress(self, progress: Progress) -> None:
        """Take note of progress."""

    def notice(self, text: str) -> None:
        """Take a message."""


class Decides:
    """Stops the rounds when the claims are decided or the time is spent; writes each round down."""

    def __init__(self, job: Job, left: Undecided, whole: bool, size: int) -> None:
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


def sizes_of(n: int, size: int) -> list[int]:
    """Return the sizes of the rounds in which n samples were taken."""
    return [min(size, n - begin) for begin in range(0, n, size)]


def attack(job: Job, candidate: Candidate, dataset: Dataset, device: torch.device) -> None:
    """Attack a random sample that grows, then look for the flags that need attacks of their own."""
    records = job.log.records
    loaded, clean = records.loaded, records.clean
    assert loaded is not None
    if not any(not each.is_clean for each in job.claims):
        job.log.trouble("express", "nothing is claimed of an attacked accuracy", False)
        return
    varies = loaded.may_vary
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


def _price_of_flags(job: Job, records: Records) -> float:
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


def _round_size(job: Job, clean: Clean | None) -> int:
    """Return a round's size, such that some rounds fit the budget."""
    each = clean.seconds / max(len(clean.indices), 1) if clean is not None else 0.01
    affordable = ATTACK_SHARE * job.budget / ROUNDS_IN_BUDGET / max(PASSES_AN_IMAGE * each, 1e-9)
    return next((size for size in ROUND_SIZES if size <= affordable), ROUND_SIZES[-1])


def _note(job: Job, result: RunResult, decides: Decides) -> None:
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


def _drawn(job: Job, summary: ExpressSummary) -> list[int]:
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
