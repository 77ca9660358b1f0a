"""Choose which runs of candidates are compared, where only the candidates are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.pages.comparison import protocol_text
from bench.store import Store
from bench.store.run_folder import RunFolder
from bench.store.summary import Summary, SweepSummary
from bench.suites import ThreatModel


@dataclass(frozen=True)
class _Choice:
    """Runs of the first candidates, one each, and the samples that all of them have.

    Attributes:
        samples: places in the data set.
    """

    runs: tuple[Summary, ...]
    samples: frozenset[int]

    @property
    def protocols(self) -> frozenset[str]:
        return frozenset(protocol_text(run.manifest) for run in self.runs)

    @property
    def problem(self) -> tuple[str, int, ThreatModel]:
        """The data set and the threat model, which are those of all the runs."""
        manifest = self.runs[0].manifest
        return manifest.dataset.name, manifest.dataset.size, manifest.threat_model

    @property
    def finished(self) -> tuple[str, ...]:
        return tuple(run.finished for run in self.runs)

    def and_one(self, other: _Choice) -> _Choice | None:
        """Return this choice with one more run; None: that one cannot be compared with it."""
        samples = self.samples & other.samples
        if self.problem != other.problem:
            return None
        return _Choice((*self.runs, *other.runs), samples) if samples else None


def chosen_runs(store: Store, references: Sequence[str]) -> list[Summary]:
    """Return the complete run that each SUITE/CANDIDATE[@RUN] stands for in a comparison.

    Runs that are not named by @RUN are chosen so that all are of one protocol, if there are such
    runs; then so that they share the most samples; then the newest. Where no runs can be compared,
    they are the newest ones.

    Raises:
        InputError: no such run, or one that is not finished.
    """
    newest = [store.summary(reference) for reference in references]
    first, *others = (
        _choices(store, reference, run) for reference, run in zip(references, newest, strict=True)
    )
    found = first
    for choices in others:
        longer = [one.and_one(other) for one in found for other in choices]
        found = _newest_of_equals([each for each in longer if each is not None])
    best = max(
        found,
        key=lambda each: (len(each.protocols) == 1, len(each.samples), each.finished),
        default=None,
    )
    return list(best.runs) if best else newest


def _choices(store: Store, reference: str, newest: Summary) -> list[_Choice]:
    """Return the runs that a reference may stand for: the one that it names, or all readable ones.

    An imported run is one of them only if there is no other, and a sweep never is: it has a result
    for each weight.
    """
    suite, _, rest = reference.partition("/")
    candidate, _, named = rest.partition("@")
    if named:
        found = [_choice(store.folder(newest.manifest))]
    else:
        found = store.readable(_choice, suite, candidate)
    comparable = [each for each in found if not isinstance(each.runs[0], SweepSummary)]
    own = [each for each in comparable if not each.runs[0].kind.is_imported]
    return _newest_of_equals(own or comparable)


def _choice(folder: RunFolder) -> _Choice:
    return _Choice((folder.summary(),), frozenset(folder.samples()["index"].tolist()))


def _newest_of_equals(choices: Sequence[_Choice]) -> list[_Choice]:
    """Return one choice, the newest, for each protocol, threat model, data set and samples."""
    found: dict[object, _Choice] = {}
    for each in sorted(choices, key=lambda each: each.finished):
        found[each.protocols, each.problem, each.samples] = each
    return list(found.values())
