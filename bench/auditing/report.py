"""What an audit says, as plain data; pages and forms are made from it and from nothing else."""

from __future__ import annotations

import shlex
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bench.auditing.checklist import Item, checklist
from bench.auditing.claims import Claim
from bench.auditing.decision import LEVEL, verdicts
from bench.auditing.process import Ended
from bench.auditing.records import GivenRun, GivenWitnesses, Isolation, Loaded, Records, Rounds
from bench.auditing.verdict import Outcome, Verdict
from bench.formatting import count, duration
from bench.suites import Suite

SCHEMA_VERSION = 1
AUTOATTACK_PASSES = 11_600
"""What standard AutoAttack takes of an image that survives, about; see
docs/concepts/protocols.md."""


class Plain(BaseModel):
    """The base of the parts of a report."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Tried(Plain):
    """One attack of the audit."""

    name: str
    images: int
    broken: int
    passes: int
    seconds: float
    need: str


class NotDone(Plain):
    """What was left out or failed, and why."""

    what: str
    why: str
    is_failure: bool


class Next(Plain):
    """What to run next."""

    command: str
    why: str
    seconds: float | None
    """Its price on this machine; None: unknown."""


class Report(Plain):
    """The result of an audit."""

    schema_version: int = SCHEMA_VERSION
    bench_version: str
    suite: str
    suite_title: str
    threat_model: str
    candidate: str
    finished: str
    """When, in UTC."""
    outcome: Outcome
    """Refuted if any claim is, consistent if all are."""
    verdicts: list[Verdict]
    level: float = LEVEL
    seed: int
    budget_seconds: float
    seconds: float
    ended: Literal["by itself", "killed: time", "killed: memory", "failed"]
    ended_note: str
    most_memory: int
    isolation: Isolation | None
    fetched: str
    loaded: Loaded | None
    clean_n: int
    clean_population: int
    rounds: Rounds | None
    tried: list[Tried]
    witnesses: list[GivenWitnesses]
    runs: list[GivenRun]
    not_done: list[NotDone]
    checklist: list[Item]
    next: list[Next]

    @property
    def is_refuted(self) -> bool:
        """Whether a claim is refuted."""
        return self.outcome == "refuted"


def make_report(
    *,
    suite: Suite,
    threat_model: str,
    candidate: str,
    claims: list[Claim],
    records: Records,
    ended: Ended,
    fetched: str,
    seed: int,
    budget_seconds: float,
    finished: str,
    bench_version: str,
) -> Report:
    """Return the report of an audit from its records.

    Args:
        fetched: what was downloaded before the candidate's process began.
    """
    found = verdicts(claims, records)
    kind, note = _ended(ended, records)
    clean = records.clean
    rounds = records.rounds
    return Report(
        bench_version=bench_version,
        suite=suite.name,
        suite_title=suite.title,
        threat_model=threat_model,
        candidate=records.loaded.name if records.loaded else candidate,
        finished=finished,
        outcome=_overall(found),
        verdicts=found,
        seed=seed,
        budget_seconds=budget_seconds,
        seconds=ended.seconds,
        ended=kind,
        ended_note=note,
        most_memory=ended.most_memory,
        isolation=records.isolation,
        fetched=fetched,
        loaded=records.loaded,
        clean_n=0 if clean is None else len(clean.indices),
        clean_population=0 if clean is None else clean.population,
        rounds=None
        if rounds is None
        else rounds.model_copy(update={"indices": [], "standing": []}),
        tried=[] if rounds is None else _tried(rounds),
        witnesses=records.witnesses,
        runs=records.runs,
        not_done=_not_done(records, note),
        checklist=checklist(records, found),
        next=_next(suite, candidate, records, found, budget_seconds),
    )


def _overall(found: list[Verdict]) -> Outcome:
    outcomes = {each.outcome for each in found}
    if "refuted" in outcomes:
        return "refuted"
    return "consistent" if outcomes == {"consistent"} else "not decided"


def _ended(
    ended: Ended, records: Records
) -> tuple[Literal["by itself", "killed: time", "killed: memory", "failed"], str]:
    """Return how the candidate's process ended, and why; no reason where it did by itself."""
    if records.finished:
        return "by itself", ""
    if ended.killed_for == "time":
        return (
            "killed: time",
            f"the candidate's process was killed after {duration(ended.seconds)}, in the stage "
            f"{records.stage}; what was completed before stays",
        )
    if ended.killed_for == "memory":
        return (
            "killed: memory",
            f"the candidate's process was killed in the stage {records.stage}, since it had "
            f"{ended.most_memory / 2**30:.1f} GiB of memory",
        )
    how = f"with signal {-ended.code}" if ended.code < 0 else f"with exit code {ended.code}"
    said = f"; its last line was: {ended.last_line}" if ended.last_line else ""
    return "failed", f"the candidate's process ended {how} in the stage {records.stage}{said}"


def _tried(rounds: Rounds) -> list[Tried]:
    """Return the attacks that were tried on at least one image."""
    return [
        Tried(
            name=each.name,
            images=each.attempted,
            broken=each.broken,
            passes=each.passes,
            seconds=each.seconds,
            need=each.need,
        )
        for each in rounds.attacks
        if each.attempted
    ]


def _not_done(records: Records, unfinished: str) -> list[NotDone]:
    """Return what was left out or failed.

    Args:
        unfinished: why the candidate's process did not end by itself; empty: it did.
    """
    left_out = [
        NotDone(what=each.stage, why=each.reason, is_failure=each.is_failure)
        for each in records.troubles
    ]
    if unfinished:
        left_out.append(NotDone(what=records.stage, why=unfinished, is_failure=True))
    if records.clean is not None and records.clean.note:
        what = "clean predictions of all images"
        left_out.append(NotDone(what=what, why=records.clean.note, is_failure=False))
    return left_out


def _next(
    suite: Suite, candidate: str, records: Records, found: list[Verdict], budget: float
) -> list[Next]:
    """Return what to run next, the most telling first."""
    steps: list[Next] = []
    rounds, loaded = records.rounds, records.loaded
    named = shlex.quote(candidate)
    run = f"bench run --suite {suite.name} --candidate {named}"
    open_claims = [each for each in found if each.outcome == "not decided"]
    further = [each for each in open_claims if each.more is not None]
    if further:
        most = max(further, key=lambda each: each.more or 0)
        price = most.more_seconds or 0.0
        claims = " ".join(f"--claim {each.name}={100 * each.claimed:g}" for each in found)
        minutes = max(round((budget + 1.6 * price) / 60 + 0.5), 1)
        steps.append(
            Next(
                command=f"bench audit {named} {claims} --suite {suite.name} --budget {minutes}m",
                why=f"about {count(most.more or 0)} more images are expected to decide {most.name}",
                seconds=price,
            )
        )
    if rounds is not None and rounds.flags and not rounds.escalated:
        names = ", ".join(dict.fromkeys(flag.name for flag in rounds.flags))
        steps.append(
            Next(
                command=f"{run} --sample random --n-examples 100 --protocol "
                f"{_protocol(suite, loaded is not None and bool(loaded.capabilities))} "
                "--until-converged",
                why=f"flagged: {names}",
                seconds=None,
            )
        )
    if rounds is not None and rounds.flags_checked != "full":
        steps.append(
            Next(
                command=f"{run} --sample random --n-examples 100 --flags full",
                why="the flags that need attacks of their own were not measured",
                seconds=None,
            )
        )
    if loaded is not None:
        steps.append(
            Next(
                command=f"{run} --protocol {_protocol(suite, bool(loaded.capabilities))}",
                why="the number itself, on all samples, with every attack of the protocol",
                seconds=_price_of_all(records),
            )
        )
    return steps


def _protocol(suite: Suite, has_structure: bool) -> str:
    return (
        "adaptive" if has_structure and "adaptive" in suite.protocols else suite.attacking_protocol
    )


def _price_of_all(records: Records) -> float | None:
    """Return what AutoAttack would take on all samples, at the rate of the audit's passes."""
    rounds, clean = records.rounds, records.clean
    if rounds is None or clean is None or not rounds.indices:
        return None
    passes = sum(each.passes for each in rounds.attacks)
    seconds = sum(each.seconds for each in rounds.attacks)
    if not passes:
        return None
    standing = sum(rounds.standing) / len(rounds.standing)
    return seconds / passes * AUTOATTACK_PASSES * standing * clean.population
