"""Where a run's numbers come from, as rows for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.data.class_names import listed
from bench.formatting import (
    count,
    duration,
    flatten,
    moment,
    radius,
    selection,
    setting,
    threat_model,
    web_link,
)
from bench.pages.leaderboard import Entry
from bench.store import safe_name
from bench.store.manifest import Manifest
from bench.store.summary import Summary
from bench.suites import Suite


@dataclass(frozen=True)
class Fact:
    """One row of a run's provenance.

    Attributes:
        name: heading of the row.
        lines: the value, in one or several lines.
        link: web address of the first line, if it has one.
        is_code: whether the value is to be copied exactly, such as a digest.
    """

    name: str
    lines: tuple[str, ...]
    link: str | None = None
    is_code: bool = False


@dataclass(frozen=True)
class Group:
    """Rows that belong together."""

    title: str
    facts: tuple[Fact, ...]


def provenance(entry: Entry) -> list[Group]:
    """Return what decided a run's result, how it was made, and information about its candidate."""
    groups = [
        Group("Run", tuple(_run(entry.summary))),
        Group("Candidate", tuple(_candidate(entry))),
        Group("Made with", tuple(_environment(entry.summary))),
    ]
    return [
        Group(group.title, tuple(fact for fact in group.facts if any(fact.lines)))
        for group in groups
    ]


def differences(manifest: Manifest, suite: Suite | None) -> list[str]:
    """Return in words how a variant differs from its suite."""
    texts = []
    for name, value in manifest.overrides.items():
        if name == "n_examples" and isinstance(value, int):
            whole = (suite and suite.n_examples) or manifest.dataset.size
            which = "first " if manifest.selection.kind in ("first", "every") else ""
            texts.append(f"{which}{count(value)} of {count(whole)} images")
        elif name == "every":
            texts.append(f"one in {value}" + (" of those" if texts else ""))
        elif name == "until_width" and isinstance(value, (int, float)):
            texts.append(f"until the interval is {100 * value:g} points wide")
        elif name == "eps" and isinstance(value, (int, float)):
            usual = f" (suite: {radius(suite.threat_model.eps)})" if suite else ""
            texts.append(f"eps {radius(value)}{usual}")
        else:
            texts.append(f"{name}: {setting(value)}")
    return texts


def _attack(attack: Mapping[str, Any]) -> str:
    """Return an attack's name with its parameters, and the digest of code that is not ours."""
    text = f"{attack.get('name', '')}{_in_brackets(attack.get('parameters'))}"
    if code := attack.get("code_sha256"):
        text += f", code {code[:12]}"
    if package := attack.get("package"):
        text += f" of {package}"
    return text


def _run(summary: Summary) -> list[Fact]:
    manifest = summary.manifest
    data = manifest.dataset
    reference = f"{manifest.suite}/{safe_name(manifest.candidate)}@{manifest.run}"
    samples = selection(manifest.selection, data.size, summary.n_examples)
    attacks = tuple(map(_attack, manifest.attacks))
    return [
        Fact("Run", (manifest.run,), is_code=True),
        Fact("Show it", (f"bench show {reference}",), is_code=True),
        Fact("Repetition", (str(manifest.repetition),) if manifest.repetition else ()),
        Fact("Suite", (f"{manifest.suite}, version {manifest.suite_version}",)),
        Fact("Threat model", (threat_model(manifest.threat_model),)),
        Fact("Protocol", (manifest.protocol,)),
        Fact("Attacks", attacks),
        Fact("Samples", (f"{samples} of {data.name}",)),
        Fact("Classes, in order", (listed(data.classes, 8),) if data.classes else ()),
        Fact("How the data were read", tuple(manifest.information.get("data_notices") or ())),
        Fact("SHA-256 of the samples", (data.sha256,), is_code=True),
        Fact("Seed", (str(manifest.seed),)),
        Fact("Engine", (f"{manifest.engine}{_in_brackets(manifest.engine_settings)}",)),
        Fact("Precision", (manifest.precision,)),
    ]


def _candidate(entry: Entry) -> list[Fact]:
    manifest = entry.manifest
    information = manifest.information
    facts = [
        Fact("Architecture", (_text(information.get("architecture")),)),
        Fact("Converted inside", tuple(information.get("conversions") or ())),
        *_paper(information.get("paper")),
        Fact("Additional data", (_text(entry.additional_data),)),
        *(
            Fact(f"SHA-256 of {name}", (digest,), is_code=True)
            for name, digest in manifest.weights_sha256.items()
        ),
        Fact("Definition", (manifest.definition_sha256,), is_code=True),
        Fact("Not identified", tuple(manifest.unidentified or ())),
    ]
    training = information.get("training")
    if isinstance(training, Mapping):
        lines = tuple(f"{name}: {value}" for name, value in flatten(training))
        facts.append(Fact("Training", lines))
    return facts


def _paper(paper: Any) -> list[Fact]:
    if not isinstance(paper, Mapping) or not paper.get("title"):
        return []
    link = web_link(paper.get("link"))
    venue = _text(paper.get("venue"))
    other = _text(paper.get("link")) if link is None else ""
    lines = (_text(paper.get("title")), *(text for text in (venue, other) if text))
    return [Fact("Paper", lines, link=link)]


def _environment(summary: Summary) -> list[Fact]:
    environment = dict(summary.manifest.environment)
    environment.pop("started", None)
    packages = environment.pop("packages", None)
    facts = [
        Fact("Started", (moment(summary.started),)),
        Fact("Finished", (moment(summary.finished),)),
        Fact("Time on attacks", (duration(summary.seconds),)),
        Fact(
            "Engine's record",
            tuple(f"{name}: {value}" for name, value in flatten(summary.engine_record)),
        ),
    ]
    facts += [
        Fact(name.replace("_", " ").capitalize(), (value,)) for name, value in flatten(environment)
    ]
    if isinstance(packages, Mapping):
        installed = {name: value for name, value in packages.items() if value is not None}
        lines = tuple(f"{name} {value}" for name, value in flatten(installed))
        facts.append(Fact("Packages", lines))
    return facts


def _in_brackets(settings: Any) -> str:
    return f" ({setting(settings)})" if isinstance(settings, Mapping) and settings else ""


def _text(value: Any) -> str:
    return "" if value is None or value == "" else setting(value)
