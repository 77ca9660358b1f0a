"""What a careful evaluation tries, filled in from an audit's records and from nothing else.

Sources: Carlini et al., "On evaluating adversarial robustness" (2019, arXiv 1902.06705), and Tramer
et al., "On adaptive attacks to adversarial example defenses" (NeurIPS 2020, arXiv 2002.08347).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bench.auditing.records import AttackLine, Records, Rounds
from bench.auditing.verdict import Verdict
from bench.formatting import count, percent, setting
from bench.store.summary import Flag

State = Literal["done", "not done", "not applicable"]

CARLINI, TRAMER = "Carlini et al. 2019", "Tramer et al. 2020"

GRADIENT_FLAGS = (
    "zero-gradients",
    "vanishing-gradients",
    "non-finite-gradients",
    "stopped-gradients",
    "gradient-error",
    "attacks-skipped",
)


class Item(BaseModel):
    """One row of the checklist.

    Attributes:
        what: what is to be tried.
        source: who asks for it; empty: this program.
        state: whether it was.
        figure: what came of it, or why it was not tried.
        is_concern: whether what came of it is a reason to doubt a claim.
    """

    model_config = ConfigDict(extra="forbid")

    what: str
    source: str
    state: State
    figure: str
    is_concern: bool = False


def checklist(records: Records, verdicts: Sequence[Verdict]) -> list[Item]:
    """Return the checklist of an audit."""
    return [make(records, verdicts) for make in ROWS]


def _identified(records: Records, _: Sequence[Verdict]) -> Item:
    what, loaded = "weights and definition are identified", records.loaded
    if loaded is None:
        return Item(what=what, source=CARLINI, state="not done", figure="it could not be loaded")
    weights = ", ".join(f"{name} {value[:12]}" for name, value in loaded.weights_sha256.items())
    text = f"SHA-256 {weights}; definition {loaded.definition_sha256[:12]}"
    if loaded.unidentified:
        text += f"; not identified: {'; '.join(loaded.unidentified)}"
    return Item(
        what=what,
        source=CARLINI,
        state="done",
        figure=text,
        is_concern=bool(loaded.unidentified),
    )


def _clean(records: Records, verdicts: Sequence[Verdict]) -> Item:
    what = "clean accuracy equals the claim"
    claimed = next((each for each in verdicts if each.name == "clean"), None)
    if records.clean is None:
        return Item(what=what, source=CARLINI, state="not done", figure="nothing was predicted")
    right, n = sum(records.clean.right), len(records.clean.right)
    text = f"{percent(right / max(n, 1))}% on {count(n)} images"
    if failed := len(records.clean.failed):
        text += f", of which {count(failed)} count as wrong since the candidate raised an error"
    if claimed is None:
        return Item(what=what, source=CARLINI, state="not applicable", figure=f"{text}; no claim")
    return Item(
        what=what,
        source=CARLINI,
        state="done",
        figure=f"{text}, claimed {percent(claimed.claimed)}%: {claimed.outcome}",
        is_concern=claimed.outcome == "refuted",
    )


def _gradients(records: Records, _: Sequence[Verdict]) -> Item:
    what = "gradients lead somewhere: no sign of masking"
    if records.rounds is None or not records.rounds.run:
        return _not_attacked(what, TRAMER, records)
    flagged = [each for each in records.rounds.flags if each.name in GRADIENT_FLAGS]
    return Item(
        what=what,
        source=TRAMER,
        state="done",
        figure=_flags(flagged) or "no flag on gradients",
        is_concern=bool(flagged),
    )


def _gradient_free(records: Records, _: Sequence[Verdict]) -> Item:
    what = "a gradient-free attack finds no more"
    lines = [each for each in _lines(records) if each.name in ("express-look", "square")]
    if not lines:
        return _not_attacked(what, CARLINI, records)
    tried, broken = sum(each.attempted for each in lines), sum(each.broken for each in lines)
    escalated = records.rounds.escalated if records.rounds else ""
    text = f"random search on {count(tried)} images that survived: {count(broken)} broken"
    return Item(
        what=what,
        source=CARLINI,
        state="done",
        figure=f"{text}; {escalated}" if escalated else text,
        is_concern=bool(escalated) and "random search" in escalated,
    )


def _full_flag(what: str, source: str, name: str, fine: str) -> Callable[..., Item]:
    """Return a row about one of the flags that need attacks of their own."""

    def row(records: Records, _: Sequence[Verdict]) -> Item:
        rounds = records.rounds
        if rounds is None or not rounds.run:
            return _not_attacked(what, source, records)
        if rounds.flags_checked != "full":
            return Item(what=what, source=source, state="not done", figure=_why(records, "flags"))
        flagged = [each for each in rounds.flags if each.name == name]
        ended = _ended(rounds)
        if ended and not flagged:
            return Item(what=what, source=source, state="not done", figure=ended)
        return Item(
            what=what,
            source=source,
            state="done",
            figure=_flags(flagged) or fine,
            is_concern=bool(flagged),
        )

    return row


def _ended(rounds: Rounds) -> str:
    """Return the candidate's error that ended the full checks; "" if none did."""
    return "; ".join(str(each.measured) for each in rounds.flags if each.name == "failed-checks")


def _structure(records: Records, _: Sequence[Verdict]) -> Item:
    what = "attacks through the defence's own parts"
    if records.loaded is None:
        return _not_attacked(what, TRAMER, records)
    asked = records.loaded.adaptive_attacks
    if not asked:
        return Item(
            what=what,
            source=TRAMER,
            state="not applicable",
            figure="no mix, no stopped gradient and no randomness was found in it",
        )
    lines = [each for each in _lines(records) if each.need]
    if not lines:
        return Item(
            what=what,
            source=TRAMER,
            state="not done",
            figure=f"its structure asks for {', '.join(asked)}; "
            + ("the time went elsewhere" if _lines(records) else _why(records, "express")),
            is_concern=True,
        )
    return Item(what=what, source=TRAMER, state="done", figure=_tried(lines))


def _need_row(what: str, need: str, absent: str) -> Callable[..., Item]:
    """Return a row about attacks that a property of the candidate asks for."""

    def row(records: Records, _: Sequence[Verdict]) -> Item:
        loaded = records.loaded
        if loaded is None:
            return _not_attacked(what, TRAMER, records)
        if need == "randomness" and loaded.fingerprint_varies and not loaded.randomized:
            return Item(
                what=what,
                source=TRAMER,
                state="not done",
                figure="its answers vary from pass to pass, and it does not declare that",
                is_concern=True,
            )
        if need == "randomness" and loaded.fingerprint_problem and not loaded.randomized:
            return Item(
                what=what,
                source=TRAMER,
                state="not done",
                figure="whether its answers vary is not known, since it raised an error: "
                f"{loaded.fingerprint_problem}",
                is_concern=True,
            )
        if need not in loaded.capabilities:
            return Item(what=what, source=TRAMER, state="not applicable", figure=absent)
        lines = [each for each in _lines(records) if each.need == need]
        if not lines:
            return Item(
                what=what,
                source=TRAMER,
                state="not done",
                figure="the time went elsewhere" if _lines(records) else _why(records, "express"),
                is_concern=True,
            )
        return Item(what=what, source=TRAMER, state="done", figure=_tried(lines))

    return row


def _targets(records: Records, _: Sequence[Verdict]) -> Item:
    what, lines = "targeted and untargeted attacks", _lines(records)
    if not lines:
        return _not_attacked(what, CARLINI, records)
    aimed = [each for each in lines if each.parameters.get("targets")]
    others = [each for each in lines if not each.parameters.get("targets")]
    text = f"{len(others)} untargeted, {len(aimed)} targeted"
    done = bool(aimed) and bool(others)
    return Item(
        what=what,
        source=CARLINI,
        state="done" if done else "not done",
        figure=text if done else f"{text}: the budget went to these",
    )


def _losses(records: Records, _: Sequence[Verdict]) -> Item:
    what, lines = "several attacks and losses", _lines(records)
    if not lines:
        return _not_attacked(what, TRAMER, records)
    return Item(
        what=what,
        source=TRAMER,
        state="done" if len(lines) > 1 else "not done",
        figure=f"{len(lines)} attacks: {', '.join(each.name for each in lines)}",
    )


def _restarts(records: Records, _: Sequence[Verdict]) -> Item:
    what, lines = "several restarts", _lines(records)
    if not lines:
        return _not_attacked(what, CARLINI, records)
    again = [each for each in lines if int(each.parameters.get("restarts") or 1) > 1]
    if not again:
        return Item(
            what=what,
            source=CARLINI,
            state="not done",
            figure=f"one start an attack; {len(lines)} different attacks took their place",
        )
    restarts = ", ".join(f"{each.name}: {setting(each.parameters['restarts'])}" for each in again)
    return Item(what=what, source=CARLINI, state="done", figure=restarts)


def _witnesses(records: Records, _: Sequence[Verdict]) -> Item:
    what = "witnesses that came with the artefact are verified"
    files, runs = records.witnesses, records.runs
    if not files and not runs:
        tried = [each for each in records.troubles if each.stage.startswith(("witn", "result"))]
        if tried:
            return Item(
                what=what, source="", state="not done", figure=tried[0].reason, is_concern=True
            )
        return Item(what=what, source="", state="not applicable", figure="none came with it")
    texts = [
        f"{file.file}: {file.error}"
        if file.error
        else f"{file.file}: {count(len(file.broken))} of {count(file.images)} images break their "
        "samples"
        for file in files
    ]
    for run in runs:
        if run.error or run.confirmed is None:
            texts.append(f"@{run.run}: {run.error or 'not verified'}")
        elif run.failures:
            texts.append(f"@{run.run}: {count(run.failures)} checks failed, {run.first_failure}")
        else:
            text = f"@{run.run}: at most {percent(run.confirmed)}% confirmed"
            if run.outside:
                text += (
                    f" within {run.threat_model}; {count(run.outside)} of the samples that it "
                    "broke do not count, since their images lie outside the claims' ball"
                )
            texts.append(text)
    wrong = any(file.error for file in files) or any(run.error or run.failures for run in runs)
    return Item(what=what, source="", state="done", figure="; ".join(texts), is_concern=wrong)


def _eight_bit(records: Records, _: Sequence[Verdict]) -> Item:
    what, rounds = "successes hold for images as they are stored", records.rounds
    if rounds is None or rounds.eight_bit is None:
        return _not_attacked(what, CARLINI, records)
    return Item(
        what=what,
        source=CARLINI,
        state="done",
        figure="each is confirmed in float32, inside the ball and [0, 1]; rounded to 8 bits, "
        f"{percent(rounds.eight_bit)}% of the sample would survive",
    )


def _power(records: Records, _: Sequence[Verdict]) -> Item:
    what, rounds = "attack power: planted weaknesses are found", records.rounds
    if rounds is None or not rounds.run:
        return _not_attacked(what, TRAMER, records)
    if rounds.power is None:
        reason = _ended(rounds) or _why(records, "flags")
        return Item(what=what, source=TRAMER, state="not done", figure=reason)
    if rounds.power.reason:
        return Item(what=what, source=TRAMER, state="not done", figure=rounds.power.reason)
    texts = []
    for outcome in ("found", "partly", "missed", "untested"):
        named = [each.name for each in rounds.power.plants if each.outcome == outcome]
        if named:
            texts.append(f"{outcome}: {', '.join(named)}")
    return Item(
        what=what,
        source=TRAMER,
        state="done",
        figure=f"on {count(rounds.power.samples)} images; {'; '.join(texts)}",
        is_concern=any(each.outcome == "missed" for each in rounds.power.plants),
    )


def _by_hand(records: Records, _: Sequence[Verdict]) -> Item:
    return Item(
        what="an attack that a person wrote for this defence",
        source=TRAMER,
        state="not done",
        figure="no program can do that; the documentation says how to write one",
    )


ROWS: tuple[Callable[[Records, Sequence[Verdict]], Item], ...] = (
    _identified,
    _clean,
    _gradients,
    _gradient_free,
    _full_flag(
        "more iterations do not lower accuracy",
        CARLINI,
        "more-iterations-break",
        "four times the steps broke no more of up to 32 images, beyond chance",
    ),
    _full_flag(
        "success reaches 100% at a large radius",
        CARLINI,
        "larger-radius-survived",
        "all of up to 32 images broke as the radius grew to the whole image",
    ),
    _full_flag(
        "a transfer attack finds no more",
        CARLINI,
        "transfer-beats-white-box",
        "images made on a substitute broke no more of up to 32 images, beyond chance",
    ),
    _structure,
    _need_row(
        "randomness: expectation over draws", "randomness", "two passes gave the same logits"
    ),
    _need_row(
        "non-differentiable parts: straight-through",
        "stopped gradient",
        "no operation that stops gradients was found",
    ),
    _targets,
    _losses,
    _restarts,
    _witnesses,
    _eight_bit,
    _power,
    _by_hand,
)
"""The rows, in their order."""


def _lines(records: Records) -> list[AttackLine]:
    """Return the attacks that were made on at least one image."""
    rounds = records.rounds
    return [] if rounds is None else [each for each in rounds.attacks if each.attempted]


def _tried(lines: Sequence[AttackLine]) -> str:
    return ", ".join(
        f"{each.name}: {count(each.broken)} of {count(each.attempted)} broken" for each in lines
    )


def _flags(flags: Sequence[Flag]) -> str:
    return "; ".join(f"{each.name}: measured {setting(each.measured)}" for each in flags)


def _why(records: Records, stage: str) -> str:
    """Return why a stage did not finish."""
    for each in records.troubles:
        if each.stage == stage:
            return each.reason
    if records.finished:
        return "nothing asked for it"
    return f"the process ended in the stage {records.stage}"


def _not_attacked(what: str, source: str, records: Records) -> Item:
    reason = _why(records, "express") if records.loaded else _why(records, "load")
    return Item(what=what, source=source, state="not done", figure=reason)
